"""A server whose gRPC is encrypted can be reached by every command and client that reaches one that is not.

Tests `serve/client/heads.py` and `serve/client/evaluation.py` as well.
"""

from __future__ import annotations

import json
import subprocess
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from xt.cli.main import app
from xt.core.errors import XtError
from xt.eval.heads.engines import open_heads
from xt.eval.mteb_adapter import MtebEncoder, open_for_mteb
from xt.serve import Client
from xt.serve.client.address import Tls
from xt.serve.client.encoder import TritonEncoder
from xt.serve.client.errors import BadConnection, Unreachable
from xt.serve.client.heads import TritonHeads
from xt.serve.triton.addresses import Tls as ServerTls
from xt.serve.triton.launcher import TritonServer
from xt.serve.triton.reload import ServerAccess, reload


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A certificate authority, and a server's and a client's certificate of it."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "rsa:2048", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    openssl("req", "-x509", *key, "-keyout", "other.key", "-out", "other.pem", "-subj", "/CN=other")
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
    for name in ("server", "client"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *sign)
    return folder


@pytest.fixture(scope="module")
def encrypted(tiny_repository, files):
    """A Triton that asks its callers for a certificate."""
    tls = ServerTls(files / "server.pem", files / "server.key", files / "ca.pem")
    with TritonServer(tiny_repository, tls=tls) as running:
        yield running


@pytest.fixture(scope="module")
def tls(files):
    return Tls(files / "ca.pem", files / "client.key", files / "client.pem")


@pytest.fixture(scope="module")
def flags(files):
    return [
        *("--tls-ca", str(files / "ca.pem")),
        *("--tls-cert", str(files / "client.pem"), "--tls-key", str(files / "client.key")),
    ]


def run(*words, code=0):
    answer = CliRunner().invoke(app, [str(w) for w in words])
    assert answer.exit_code == code, (answer.output, answer.exception)
    return answer


def test_encode_index_and_search_reach_it(encrypted, tls, flags, tmp_path):
    (tmp_path / "corpus.txt").write_text("guten morgen welt\nthe cat sleeps today\nhabari za asubuhi\n")
    at = ["--url", encrypted.url, *flags]
    run("encode", tmp_path / "corpus.txt", *at, "--out", tmp_path / "vectors")
    found = np.load(tmp_path / "vectors" / "vectors-00000.npy")
    with Client(encrypted.url, tls=tls) as client:
        expected = client.encode(["guten morgen welt", "the cat sleeps today", "habari za asubuhi"], prefix="passage")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    run("index", tmp_path / "corpus.txt", *at, "--out", tmp_path / "index")
    # Without --url the index knows where its encoder is, but not which certificates to trust.
    shown = json.loads(run("search", tmp_path / "index", "the cat", *flags, "--json").stdout)
    assert len(shown["hits"]) == 3


def test_eval_and_bench_reach_it(encrypted, flags, corpus, tmp_path):
    (tmp_path / "mine").mkdir()
    for b in corpus:
        for side, rows in ((b.language, b.foreign), ("eng", b.english)):
            (tmp_path / "mine" / f"mine.{b.language}-eng.{side}").write_text("\n".join(rows) + "\n", encoding="utf-8")
    at = ["--url", encrypted.url, *flags]
    run(
        "eval", "mine:" + str(tmp_path), *at, "--out", tmp_path / "never", code=1
    )  # reached: no such data, not "no server"
    (tmp_path / "texts.txt").write_text("\n".join(f"word{i} guten morgen" for i in range(64)) + "\n")
    words = ["--corpus", tmp_path / "texts.txt", "--concurrency", 2, "--seconds", 1, "--rounds", 1, "--json"]
    shown = json.loads(run("bench", *at, "--protocol", "grpc", *words).stdout)
    assert shown["rows"][0]["sentences_per_second"] > 0


def test_the_open_functions_of_evaluation_reach_it(encrypted, tls):
    served = open_for_mteb(url=encrypted.url, tls=tls) if _has_mteb() else None
    assert served is None or isinstance(served, MtebEncoder)
    with pytest.raises(XtError, match="has no trained heads"):  # so it was reached
        open_heads(url=encrypted.url, tls=tls)
    with pytest.raises(XtError, match="has no trained heads"):
        TritonHeads(encrypted.url, tls=tls)


def _has_mteb():
    from importlib.util import find_spec

    return find_spec("mteb") is not None


def test_reload_is_told_over_the_encrypted_connection(encrypted, tls, flags):
    assert reload(
        encrypted.url, force=True, access=ServerAccess(tls=tls, http_port=1)
    ).changed  # nothing listens on that port
    shown = json.loads(run("reload", "--url", encrypted.url, *flags, "--again", "--json").stdout)
    assert shown["model"] == "encoder"
    with pytest.raises(XtError, match="refused the admin key"):
        reload(encrypted.url, force=True, access=ServerAccess(tls=tls, admin_key="k" * 20))


@pytest.mark.parametrize("case", ["no TLS", "no certificate of its own", "other authority"])
def test_a_connection_that_does_not_fit_is_named(encrypted, files, case):
    chosen = {
        "no TLS": None,
        "no certificate of its own": Tls(files / "ca.pem"),
        "other authority": Tls(files / "other.pem"),
    }
    start = time.monotonic()
    with pytest.raises(Unreachable) as error:
        TritonEncoder(encrypted.url, tls=chosen[case], wait_seconds=1)
    assert time.monotonic() - start < 5
    if case == "other authority":  # the one of the three that this end can tell, and so is not tried again
        assert isinstance(error.value, BadConnection)
        assert "--tls-ca" in error.value.hint
    else:
        assert "TLS" in error.value.hint


def test_tls_to_a_server_without_it_is_named_at_once(server, tls):
    start = time.monotonic()
    with pytest.raises(BadConnection, match="No connection to .*WRONG_VERSION_NUMBER"):
        TritonEncoder(server.url, tls=tls, timeout_seconds=60)
    assert time.monotonic() - start < 5


def test_options_that_do_nothing_and_files_that_are_none_are_refused(files, tmp_path):
    url = ["--url", "127.0.0.1:9"]
    text = tmp_path / "c.txt"
    text.write_text("one\n")
    (tmp_path / "der").write_bytes(b"\x30\x82")
    ca, cert, key = (
        ["--tls-" + n, str(files / f)] for n, f in (("ca", "ca.pem"), ("cert", "client.pem"), ("key", "client.key"))
    )
    cases = [
        (ca, 2, "give --url"),
        ([*url, *cert, *key], 2, "need --tls-ca"),
        ([*url, *ca, *cert], 2, "belong together"),
        ([*url, "--tls-ca", str(tmp_path / "none")], 1, "There is no file"),
        ([*url, "--tls-ca", str(tmp_path / "der")], 1, "is no PEM file"),
    ]
    for words, code, says in cases:
        answer = CliRunner().invoke(app, ["encode", str(text), *words, "--out", str(tmp_path / "out")])
        told = answer.output + str(answer.exception)
        assert answer.exit_code == code, told
        assert says in " ".join(told.replace("│", " ").split()), told
    assert "ssl" in Tls().options()  # the system's own certificates
    with pytest.raises(XtError, match="without its certificate"):
        Tls(files / "ca.pem", key=files / "client.key").options()
