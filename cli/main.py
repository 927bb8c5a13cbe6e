"""The `xt` command. Heavy imports live inside the commands, so that help is instant."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from xt.cli import bench, doctor, export, images, index, quickstart, reload, serve, study, train
from xt.cli.evaluate import command
from xt.core import __version__

app = typer.Typer(
    name="xt",
    help="Train, export, serve and calibrate multilingual retrievers.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"xt {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Train, export, serve and calibrate multilingual retrievers."""


for module in (quickstart, train, export, serve, reload, index, command, bench, study, images, doctor):
    module.register(app)


def run() -> None:
    """Run the command line: user errors are printed without a traceback, with their exit code."""
    from xt.core.errors import EXIT_INTERRUPTED, XtError, explain_os_error
    from xt.core.machine.cores import prepare_threads

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)  # so that a server that was started is stopped, and drafts are removed
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    prepare_threads()
    try:
        app()
    except XtError as error:
        _fail(error)
    except OSError as error:
        _fail(explain_os_error(error))
    except RuntimeError as error:
        if "home directory" not in str(error):
            raise
        _fail(XtError("A path begins with ~, and this user has no home.", "Write the path in full, or set HOME."))
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(EXIT_INTERRUPTED)


def _fail(error: object) -> None:
    message, hint = getattr(error, "message", str(error)), getattr(error, "hint", "")
    sys.stderr.write(f"Error: {message}\n" + (f"{hint}\n" if hint else ""))
    sys.exit(getattr(error, "exit_code", 1))


if __name__ == "__main__":  # torchrun -m xt.cli.main train ...
    run()
