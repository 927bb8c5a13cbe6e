"""`xt eval`."""

from __future__ import annotations

import typer

from xt.cli import tasks
from xt.cli.console import REPORTER, emit
from xt.cli.settings import with_flags
from xt.core.settings import Json
from xt.eval.options import EvalOptions

EVAL_EPILOG = """Examples:

xt eval tatoeba --encoder multilingual-e5-small --data-dir data --languages xtreme --out reports/tatoeba

xt eval django --url 127.0.0.1:8001 --model encoder --out reports/served

xt eval ./my-bitext --encoder repository --out reports/mine

xt eval ids:my-corpus --encoder repository --pool 100 --out reports/by-id

xt eval tatoeba --encoder xlm-roberta-large --data-dir data --languages xtreme --layers all --out reports/layers

xt eval sib200 --encoder runs/sib200 --data-dir data --languages low-resource --out reports/sib200

xt eval single:german.jsonl --encoder runs/intents --languages de --out reports/german

xt eval tatoeba-mining xquad-r --encoder repository --data-dir data --languages de,ru --out reports/more

xt eval beir:scifact --url 127.0.0.1:8001 --out reports/scifact

xt eval django --url 127.0.0.1:8001 --tls-ca ca.pem --out reports/encrypted

xt eval --summary reports/tatoeba reports/xnli --benchmark xtreme --out reports/xtreme

xt eval --compare reports/before reports/after --out reports/difference"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("eval", epilog=EVAL_EPILOG)(evaluate)
    tasks.register(app)


@with_flags
def evaluate(options: EvalOptions, json: Json = False) -> None:
    """Measure retrieval of translations, mining, ranking or trained heads over languages; write a report.

    Parallel text is retrieved from in both directions and calibrated, pairs are mined and documents ranked by any
    encoder. Other tasks are answered by the trained head for them, or for the task that they train on.
    """
    from xt.cli.evaluate.show import show_report
    from xt.eval.run import report_on_reports, run
    from xt.eval.task_requests import read_requests

    if options.results.summary or options.results.compare:
        folders = [report_on_reports(options, reporter=REPORTER)]
        show_report(folders[0])
    else:
        requests = read_requests(options)
        if requests.of_images:
            from xt.studies.images.evaluation import run
        folders = run(options, requests, reporter=REPORTER, written=show_report)
    if json:
        documents = [folder.to_json() for folder in folders]
        emit(documents[0] if len(documents) == 1 else documents)
