"""`xt study run`: the study that was named."""

from __future__ import annotations

from typing import Any

from xt.core.reporter import Reporter
from xt.studies.options import StudyOptions


def run(options: StudyOptions, *, reporter: Reporter = Reporter()) -> dict[str, Any]:
    """Run a study and return what it found; what is complete in the folder of transfer is kept."""
    if options.name == "transfer":
        from xt.studies import transfer

        settings = transfer.Settings(**options.shared(), runs=options.only, scale=options.scale)
        found = transfer.execute(settings, reporter=reporter)
        reporter.say(transfer.markdown(found))
        return found
    if options.name == "accuracy":
        from xt.studies import accuracy

        corpora: dict[str, Any] = {"corpora": options.only} if options.only else {}
        found = accuracy.execute(
            accuracy.Settings(**options.shared(), **corpora, force=options.force), reporter=reporter
        )
        reporter.say(accuracy.markdown(found))
        return found
    from xt.bench import training_speed  # transformers' Trainer: seconds to import

    tasks: dict[str, Any] = {"tasks": options.only} if options.only else {}
    speed = training_speed.Settings(**options.shared(), **tasks, force=options.force)
    return training_speed.execute(speed, reporter=reporter)
