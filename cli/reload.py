"""`xt reload`."""

from __future__ import annotations

import typer

from xt.cli.console import emit, say
from xt.cli.settings import with_flags
from xt.core.settings import Json
from xt.serve.settings import ReloadOptions

EPILOG = """Examples:

xt reload --url 127.0.0.1:8001

xt reload encoder --url 127.0.0.1:8001 --start-timeout 1800 --json"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reload", epilog=EPILOG)(reload)


@with_flags
def reload(options: ReloadOptions, json: Json = False) -> None:
    """Serve what lies in a model's folder now, after checking it; a bad version leaves the old one serving."""
    from xt.serve.triton.reload import reload as run

    url = options.url
    done = run(
        url,
        options.model,
        access=options.access(),
        trust_code=options.trust_code,
        force=options.again,
        start_seconds=options.start_timeout,
        report=say,
    )
    before = done.before[:16] if done.before else "unknown"
    if done.changed:
        say(f"{done.model} at {url}: {before} served before, {done.after[:16]} serves now")
    else:
        say(f"{done.model} at {url}: {before} serves already (--again loads it again)")
    if json:
        emit(done.to_json())
