"""Putting a new version of a model into a running server: checked here first, and then loaded without losing a request.

Triton loads the new version beside the old one, moves new requests to it once it is ready, and ends the old one when
its last request was answered. When the new version fails to load, the old one goes on serving.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xt.core.errors import XtError, unknown
from xt.core.files.artifact import Artifact, open_artifact, read_manifest
from xt.serve.client.address import Tls, split_address
from xt.serve.client.connection import Connection
from xt.serve.client.errors import DeadlinePassed, InvalidRequest, Restricted
from xt.serve.client.http import TritonHttp
from xt.serve.triton import server_state
from xt.serve.triton.model_code import check_data, refuse_code
from xt.serve.triton.processes import remove_bytecode
from xt.serve.triton.starting import OPTION, START_SECONDS, check_limit, progress


@dataclass(frozen=True)
class Reloaded:
    """What a reload did. Hashes are content hashes of the model's folder."""

    model: str
    before: str | None
    """What served before; None when the server's state does not say."""
    after: str
    changed: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class ServerAccess:
    """How a server is asked to load; what is None is known of a server that this user started on this machine."""

    repository: Path | None = None
    """The folder that it serves."""
    admin_key: str | None = None
    """Opens its model control; None: also taken from XT_ADMIN_KEY."""
    http_port: int | None = None
    """Over which it is asked."""
    tls: Tls | None = None
    """The files of an encrypted connection, over which it is then asked by gRPC; HTTP has none."""


def reload(
    url: str,
    model: str | None = None,
    *,
    access: ServerAccess = ServerAccess(),
    trust_code: bool = False,
    force: bool = False,
    start_seconds: float = START_SECONDS,
    report: Callable[[str], None] = lambda line: None,
) -> Reloaded:
    """Check the folder of `model` on disk and have the server at `url` serve it.

    Args:
        url: HOST:PORT of the server's gRPC endpoint.
        model: its name; may be left out when the repository holds one.
        access: the server's folder, key, port and encryption, as far as they are not known here.
        trust_code: load also code that no release of xt wrote: see `xt.serve.triton.model_code`.
        force: load again also when the same content serves already.
        start_seconds: how long the new version may take to load; 0: no limit.
        report: gets a line every half minute of waiting.

    Raises XtError when the folder is incomplete, damaged, holds such code or gives other vectors than at export, and
    when the server refuses it. In each of these cases the old version goes on serving.
    """
    check_limit(start_seconds)
    state = server_state.find(url)
    key, tls = access.admin_key or server_state.admin_key(url), access.tls
    repository, http_port = access.repository, access.http_port
    if state is not None:
        repository, http_port = repository or Path(state.repository), http_port or state.http
    needed = {"--repository": repository, "--admin-key": key, "--http-port": http_port if tls is None else True}
    missing = [option for option, value in needed.items() if not value]
    if repository is None or key is None or (http_port is None and tls is None):
        raise XtError(
            f"The server at {url} was not started by this user on this machine, so its state is not known here.",
            f"Check --url, or give {', '.join(missing)}.",
        )
    name, folder = _choose(repository, model)
    artifact = _checked(folder, trust_code=trust_code)
    before = state.models.get(name) if state else None
    if before == artifact.hash and not force:
        return Reloaded(name, before, artifact.hash, changed=False)
    _renew(folder)
    _check_code(folder, trust_code=trust_code)
    host = url.rpartition(":")[0]
    if state is not None and http_port == state.http:
        host = state.http_host or host
    try:
        with progress(start_seconds, report, f"the server at {url} to load {name}"):
            _load(url, f"{host}:{http_port}", name, key, start_seconds, tls)
    finally:
        remove_bytecode(repository)
    after = _opened(folder, trust_code=trust_code).hash
    _check_code(folder, trust_code=trust_code)
    if after != artifact.hash:
        raise XtError(f"{folder} was changed while it was loaded.", "Run the reload again.")
    # Read anew: the server may have been started again, or another model reloaded, while this one was checked.
    if (state := server_state.find(url)) is not None:
        server_state.note_model(state, name, after)
    return Reloaded(name, before, after, changed=True)


def _choose(repository: Path, model: str | None) -> tuple[str, Path]:
    names = sorted(p.parent.name for p in repository.glob("*/config.pbtxt"))
    if model is None:
        if len(names) != 1:
            raise XtError(f"{repository} holds {', '.join(names) or 'no model'}.", "Name the model to reload.")
        model = names[0]
    if model not in names:
        raise unknown("model", model, names)
    return model, repository / model


def _opened(folder: Path, *, trust_code: bool) -> Artifact:
    """Open the folder, every file checked; what is trusted may differ from the manifest in its code."""
    if not trust_code:
        return open_artifact(folder, kind="model")
    check_data(folder)
    return Artifact(folder, read_manifest(folder))


def _check_code(folder: Path, *, trust_code: bool) -> None:
    """Raise XtError for code that no release of xt wrote, unless it is trusted; compiled code is removed."""
    if trust_code:
        remove_bytecode(folder.parent)
    else:
        refuse_code(folder.parent, [folder.name])


def _checked(folder: Path, *, trust_code: bool) -> Artifact:
    """Open the folder, every file checked; an encoder must also give its golden vectors, here and now."""
    from xt.core.encoder.onnx_engine import check_golden, load_model

    artifact = _opened(folder, trust_code=trust_code)
    _check_code(folder, trust_code=trust_code)
    if not trust_code and {"graph", "golden", "encoder"} <= artifact.facts.keys():
        encoder, artifact = load_model(folder, threads=1)  # by the provider that it was exported for
        check_golden(encoder, folder, artifact)
    return artifact


def _renew(folder: Path) -> None:
    """Set the date of the model's files to now: Triton reloads only what is younger than what it serves.

    So a version that was put aside and is put back would otherwise be taken for the one that serves.
    """
    try:
        for file in (*folder.glob("*/model.py"), folder / "config.pbtxt"):
            os.utime(file)
    except OSError as error:
        raise XtError(
            f"{folder} cannot be marked as new: {error.strerror}.", "Reload as the user that owns the repository."
        ) from error


def _load(url: str, http_address: str, model: str, key: str, seconds: float, tls: Tls | None) -> None:
    """Have the server load a model: by HTTP, or, where its gRPC is encrypted, by that. XtError when it does not."""
    address = http_address if tls is None else url
    try:
        if tls is None:
            host, port = split_address(http_address)
            TritonHttp(host, port, key).load(model, seconds or None)
        else:
            with closing(Connection(url, tls=tls, admin_key=key)) as connection:
                connection.load(model, seconds or None)
    except DeadlinePassed as error:
        raise XtError(
            f"The server at {address} did not load {model!r} within {seconds:g} s. It may still do so, and then serves "
            "the new version.",
            f"Give it more time by {OPTION} (0: no limit); `xt reload --again` tells whether it loads.",
        ) from error
    except Restricted as error:
        raise XtError(f"The server at {address} refused the admin key.", "Give the key it was started with.") from error
    except InvalidRequest as error:
        raise XtError(
            f"The server refused the new version of {model!r}; the old one goes on serving:\n{error.message.strip()}",
            "Mend the folder, or put the old one back, and reload.",
        ) from error
