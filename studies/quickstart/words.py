"""What the quickstart says of its numbers: the notes of the page, and the sentences at the end."""

from __future__ import annotations

from pathlib import Path

from xt.core.encoder.resolve import Resolved
from xt.core.results.report import Report
from xt.core.results.work import Training
from xt.studies.quickstart.plan import LANGUAGES
from xt.studies.quickstart.settings import DIRECTION


def notes(base: Resolved) -> list[str]:
    """Return what a reader must know to judge the numbers."""
    found = [
        "The training sets are samples written for xt, a few hundred examples, and few steps were made: they show that "
        "training works, not what it can do. The trained encoder is measured on its tasks in PyTorch; the retrieval on "
        "this page is that of the encoder before training. `xt quickstart --full` exports and measures both.",
        "The corpus is interface text: short sentences, many alike, so retrieval is harder than it looks and languages "
        "with fewer translated sentences have fewer candidates. Accuracies are not comparable with Tatoeba's.",
        f"{LANGUAGES} languages of 64 were measured. ECE of a language rests on 81 to 144 sentences; compare it with "
        "its null value, what a perfectly calibrated model would show at that size.",
        "The encoder was exported as 8-bit blocks of weights (`--precision int8-blocks --provider cpu`), made in "
        "seconds; the default of `xt export`, int8 with fixed scales on OpenVINO, takes minutes to make. Parity with "
        "PyTorch was measured on half of the sentences that `xt export` takes, of all 64 languages, and on the served "
        "graph alone; it had to reach the same thresholds. Its vectors may change in the last bits with the batch, "
        "which those of int8 with fixed scales do not.",
    ]
    if "4-bit" in base.spec.provenance:
        found.insert(0, "The encoder is a 4-bit copy of multilingual-e5-small; the published weights score higher.")
    return found


def closing(report: Report, page: Path) -> list[str]:
    """Sum a run up in three sentences, then the page and the next command."""
    encoder, trained = report.encoders[0], report.training or Training()
    found, methods = encoder.retrieval[DIRECTION], encoder.calibration[DIRECTION].methods
    accuracy, low = found.mean["all"], found.mean.get("low")
    before, ece = methods["cosine"].overall.ece, methods["zero-shot"].overall.ece
    learned = ", ".join(f"{t.task} {t.after or 0:.0%} (majority {t.majority or 0:.0%})" for t in trained.tasks)
    count = len(found.languages)
    poor = f", {low:.0%} in the low-resource ones" if low is not None else ""
    return [
        f"In {count} languages the encoder finds a sentence's English translation {accuracy:.0%} of the time{poor}.",
        f"Its probabilities are off by {ece:.3f} on average, calibrated on five languages; by {before:.3f} before.",
        f"After {trained.steps} steps of training its heads score {learned} on held-out samples.",
        f"The page: {page}",
        f"Next: xt serve {page.parent.parent / 'repository'} --gateway-port 8080   # and ask at http://127.0.0.1:8080",
    ]
