"""Snapshots of the Hugging Face hub's repositories: from its local cache, else downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from xt.core.errors import XtError, explain_os_error, require

HINT = "Name another folder for what the hub sends by HF_HOME, or do without the hub: HF_HUB_OFFLINE=1."


def is_offline() -> bool:
    """Return whether the hub is switched off (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def snapshots(
    repository: str, revision: str, patterns: Sequence[str], *, kind: str = "model"
) -> Iterator[tuple[Path | None, str]]:
    """Yield the folder of the files that match, from the local cache and, unless offline, downloaded.

    Instead of a folder that cannot be had, None and the reason. Take the first that holds what is needed.

    Args:
        repository: `owner/name`.
        revision: a commit, branch or tag.
        patterns: of file names, as in a shell.
        kind: `model` or `dataset`.
    """
    require("huggingface_hub", extra="cpu", purpose="Reading the hub cache")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download

    for local in (True,) if is_offline() else (True, False):
        try:
            folder = snapshot_download(
                repository,
                repo_type=kind,
                revision=revision,
                allow_patterns=list(patterns),
                local_files_only=local,
                etag_timeout=5,
            )
        except (OSError, RuntimeError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None and error.filename and not local:
                raise XtError(explain_os_error(error).message, HINT) from error
            yield None, (str(error).splitlines() or [type(error).__name__])[0]
        else:
            yield Path(folder), ""
