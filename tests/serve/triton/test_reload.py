"""A new version under load: no request is lost, a bad one is refused, and the caller is told what serves.

Tests `cli/reload.py` as well.
"""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xt.core.encoder import resolve
from xt.core.encoder.onnx_engine import load_model
from xt.core.errors import XtError
from xt.core.files.artifact import MANIFEST, new_artifact, read_manifest
from xt.serve.triton import server_state
from xt.serve.triton.addresses import free_ports
from xt.serve.triton.launcher import TritonServer
from xt.serve.triton.processes import model_processes
from xt.serve.triton.reload import ServerAccess, reload

SOAK = runpy.run_path(str(Path(__file__).parents[1] / "soak.py"))
Callers, TEXTS = SOAK["Callers"], SOAK["sentences"](64)


@pytest.fixture(scope="module")
def other_model(tiny, corpus, tmp_path_factory) -> Path:
    """The tiny encoder with other weights, exported under the same name."""
    import torch
    from transformers import BertModel

    from xt.export.encoder import EncoderExport, export_model

    folder = tmp_path_factory.mktemp("other")
    source = Path(shutil.copytree(tiny.path, folder / "tiny"))
    network = BertModel.from_pretrained(source)
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in network.encoder.parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    network.save_pretrained(source, safe_serialization=True)
    export_model(
        resolve.resolve(str(source)),
        folder / "repository",
        corpus=corpus,
        options=EncoderExport(precision="fp32"),
        report=lambda line: None,
    )
    return folder / "repository" / "encoder"


@pytest.fixture
def repository(tiny_repository, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_repository, tmp_path / "repository"))


def put(source: Path, target: Path) -> None:
    """Put a model folder in the place of another, by renaming."""
    aside = target.with_name(f".{target.name}.new")
    shutil.copytree(source, aside)
    target.rename(target.with_name(f".{target.name}.old"))
    aside.rename(target)
    shutil.rmtree(target.with_name(f".{target.name}.old"))


def vectors(folder: Path) -> np.ndarray:
    return load_model(folder, device="cpu", threads=1)[0].encode(TEXTS).vectors


def hash_of(folder: Path) -> str:
    return read_manifest(folder)["hash"]


def test_a_reload_under_load_loses_no_request_and_serves_the_new_version(repository, tiny_repository, other_model):
    old, new = vectors(repository / "encoder"), vectors(other_model)
    assert np.abs(old - new).max() > 0.05
    with TritonServer(repository) as server:
        with Callers(server.url, TEXTS, old, callers=2) as before:
            before.until(20)
        assert not before.errors()
        # The last but one is the version that was put aside: its files are older than those of what serves.
        for source in (other_model, tiny_repository / "encoder", other_model):
            with Callers(server.url, TEXTS, old, or_else=new, callers=6, size=2) as load:
                load.until(30)
                put(source, repository / "encoder")
                done = reload(server.url)
                load.until(30)
            assert not load.errors()
            assert done.changed
            assert done.after == hash_of(source) != done.before
            with Callers(server.url, TEXTS, vectors(source), callers=2) as after:
                after.until(20)
            assert not after.errors()
        assert server.restarts == 0  # the watch takes no reload for a death


def test_what_serves_already_is_not_loaded_again(repository):
    with TritonServer(repository) as server:
        (before,) = model_processes(server.prefix)
        done = reload(server.url, "encoder")
        assert not done.changed
        assert done.before == done.after == hash_of(repository / "encoder")
        assert model_processes(server.prefix) == [before]
        assert reload(server.url, "encoder", force=True).changed
        assert before not in model_processes(server.prefix) or len(model_processes(server.prefix)) == 2


def flip(folder: Path) -> None:
    file = next(folder.glob("1/*.onnx"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def other_golden(folder: Path) -> None:
    """Every hash fits, but the vectors are not those of the graph."""
    manifest, draft = read_manifest(folder), folder.with_name("draft")
    with new_artifact(draft, kind="model") as new:
        shutil.copytree(folder, new.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        golden = json.loads((new.path / manifest["facts"]["golden"]).read_text())
        golden["vectors"].reverse()
        (new.path / manifest["facts"]["golden"]).write_text(json.dumps(golden))
        new.facts, new.parents = manifest["facts"], manifest["parents"]
    put(draft, folder)
    shutil.rmtree(draft)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(flip, "content differs"), (cut, f"has no {MANIFEST}"), (other_golden, "other vectors than at export")],
)
def test_a_bad_version_is_refused_here_and_by_the_server_and_the_old_one_goes_on(repository, spoil, message):
    expected, served = vectors(repository / "encoder"), hash_of(repository / "encoder")
    with TritonServer(repository) as server:
        with Callers(server.url, TEXTS, expected, callers=3) as load:
            load.until(10)
            spoil(repository / "encoder")
            with pytest.raises(XtError, match=message):
                reload(server.url)
            # Whoever goes past the check here meets the model's own.
            from xt.serve.triton.reload import _load, _renew

            _renew(repository / "encoder")  # for a younger config.pbtxt alone, Triton does not load anew
            with pytest.raises(XtError, match=r"the old one goes on serving(.|\n)*" + message):
                _load(server.url, f"127.0.0.1:{server.ports.http}", "encoder", server.admin_key, 60.0, None)
            load.until(30)
        assert not load.lost
        assert server_state.find(server.url).models == {"encoder": served}
        assert server.restarts == 0


def test_a_model_that_is_not_there_is_named(repository):
    with TritonServer(repository) as server, pytest.raises(XtError, match="Unknown model 'encodr'") as error:
        reload(server.url, "encodr")
    assert "encoder" in error.value.hint


def test_a_server_that_is_not_known_here_asks_for_what_is_missing(repository, monkeypatch):
    monkeypatch.delenv(server_state.KEY_VARIABLE, raising=False)
    (port,) = free_ports(1)
    with pytest.raises(XtError, match="was not started by this user") as error:
        reload(f"127.0.0.1:{port}")
    assert "--repository, --admin-key, --http-port" in error.value.hint
    with pytest.raises(XtError, match="did not answer"):
        reload(f"127.0.0.1:{port}", access=ServerAccess(repository, "k" * 20, port))


def test_a_wrong_key_is_refused(repository):
    with TritonServer(repository) as server, pytest.raises(XtError, match="refused the admin key"):
        reload(server.url, access=ServerAccess(admin_key="k" * 20), force=True)


def test_the_command_says_what_served_and_what_serves(repository, other_model):
    with TritonServer(repository) as server:
        before = hash_of(repository / "encoder")
        put(other_model, repository / "encoder")
        script = "from xt.cli import reload; import typer; a = typer.Typer(); a.command()(reload.reload); a()"
        done = subprocess.run(
            [sys.executable, "-c", script, "--url", server.url, "--json"], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    after = hash_of(other_model)
    assert json.loads(done.stdout) == {"model": "encoder", "before": before, "after": after, "changed": True}
    assert f"{before[:16]} served before, {after[:16]} serves now" in done.stderr
