"""What a running server notes for later commands of the same user: its ports, its admin key, what it serves.

One JSON file a server, mode 0600, in the user's cache folder. Model control, logs, traces, statistics and shared memory
of a server are behind its admin key; a command on the same machine finds the key here, one elsewhere is given it by the
environment variable XT_ADMIN_KEY.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from xt.core.errors import XtError, explain_os_error
from xt.core.files.cache_folder import HINT, cache_folder
from xt.core.files.own_files import read_own

KEY_VARIABLE = "XT_ADMIN_KEY"
TOKEN_VARIABLE = "XT_TOKEN"  # noqa: S105 - its name
"""What callers of the gateway must send."""
SECRETS = (KEY_VARIABLE, TOKEN_VARIABLE)
"""Variables of the environment that no child process is given."""
START_VARIABLE = "XT_START_TIMEOUT"
"""Seconds that a model may wait for what it needs, for the server's models; 0: no limit."""
KEY_HEADER = "xt-admin-key"
"""The HTTP header that carries the admin key."""
GRPC_KEY_HEADER = f"triton-grpc-protocol-{KEY_HEADER}"
"""The same over gRPC: Triton puts its own prefix before the name."""
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1", "[::1]")


@dataclass(frozen=True)
class ServerState:
    """A running server, as it was noted when it became ready."""

    pid: int
    """Of the process that started the server."""
    started: int
    """When that process started (clock ticks since boot), since process numbers repeat."""
    host: str
    http: int
    grpc: int
    metrics: int
    admin_key: str
    repository: str
    models: dict[str, str] = field(default_factory=dict)
    """Name -> content hash of what serves."""
    http_host: str = ""
    """Where this machine reaches HTTP; empty: where it reaches gRPC, of which `host` is the address."""
    metrics_host: str = ""
    """Likewise the metrics."""


def folder() -> Path:
    """Return the folder of the state files."""
    return cache_folder() / "servers"


def process_start(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when there is none, or it is dead already."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _file(grpc_port: int) -> Path:
    return folder() / f"{grpc_port}.json"


def note(state: ServerState) -> None:
    """Write a server's state, readable by this user alone.

    Raises OSError, or XtError, where there is no place for it; a server runs as well without: see `note_server`.
    """
    place = folder()
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = _file(state.grpc)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as out:
            json.dump(asdict(state), out, indent=2)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def note_server(
    host: str,
    ports: Mapping[str, int],
    admin_key: str,
    repository: Path,
    models: Mapping[str, str],
    *,
    http_host: str = "",
    metrics_host: str = "",
) -> str:
    """Note a server that this process started; `ports` are http, grpc and metrics, `models` name -> content hash.

    Returns what to tell the user where that was not possible, else an empty text.
    """
    started = process_start(os.getpid())
    assert started is not None, "this process runs"
    noted = ServerState(
        os.getpid(),
        started,
        host,
        **ports,
        admin_key=admin_key,
        repository=str(repository),
        models=dict(models),
        http_host=http_host,
        metrics_host=metrics_host,
    )
    return try_note(noted)


def try_note(state: ServerState) -> str:
    """Write a server's state if there is a place for it; returns what to tell the user where there is none, else ""."""
    try:
        note(state)
    except (OSError, XtError) as error:
        reason = (explain_os_error(error) if isinstance(error, OSError) else error).message
        return (
            f"The server's state was not noted: {reason} Commands such as `xt reload` need --repository, --http-port "
            f"and its admin key then ({KEY_VARIABLE}). {HINT}"
        )
    return ""


def find(url: str) -> ServerState | None:
    """Return the state of the live server whose gRPC endpoint is `url`; None unless it is of this machine."""
    host, _, port = url.rpartition(":")
    if not port.isdigit():
        return None
    try:
        state = ServerState(**json.loads(read_own(_file(int(port)))))
    except (OSError, ValueError, TypeError, RecursionError, XtError):
        return None
    if host not in (*LOCAL_HOSTS, state.host) or process_start(state.pid) != state.started:
        return None
    return state


def forget(grpc_port: int) -> None:
    """Remove a server's state; one that another process wrote since stays."""
    state = find(f"127.0.0.1:{grpc_port}")
    if state is None or state.pid == os.getpid():
        try:
            _file(grpc_port).unlink(missing_ok=True)
        except (OSError, XtError):  # nothing could be noted there either
            pass


def note_model(state: ServerState, model: str, content_hash: str) -> ServerState:
    """Note that `model` now serves other content, if there is a place for it; returns the new state."""
    changed = replace(state, models={**state.models, model: content_hash})
    try_note(changed)
    return changed


def check_key(key: str, source: str) -> str:
    """Return the key, stripped; raises XtError when it is too short to keep anyone out, or cannot stand in a header."""
    key = key.strip()
    if not (16 <= len(key) <= 256 and key.isascii() and all(c.isalnum() or c in "-_." for c in key)):
        raise XtError(
            f"The admin key of {source} must be 16 to 256 letters, digits, '-', '_' or '.' (it has {len(key)}).",
            "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return key


def read_key(file: Path) -> str:
    """Read an admin key from a file; raises XtError when there is none, or when it is no good."""
    try:
        return check_key(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise XtError(f"The admin key file {file} cannot be read: {error}", "Check the path.") from error


def admin_key(url: str) -> str | None:
    """Return the admin key for the server at `url`: of XT_ADMIN_KEY, else of its state file, else None."""
    if given := os.environ.get(KEY_VARIABLE):
        return check_key(given, KEY_VARIABLE)
    state = find(url)
    return state.admin_key if state else None


def admin_headers(url: str) -> dict[str, str]:
    """Return the gRPC headers that open the restricted calls of the server at `url`; empty when its key is not known.

    >>> admin_headers("nowhere.example:8001") if KEY_VARIABLE not in os.environ else {}
    {}
    """
    key = admin_key(url)
    return {GRPC_KEY_HEADER: key} if key else {}
