"""What one run of the short quickstart is to do."""

from __future__ import annotations

from dataclasses import dataclass

from xt.core.encoder.text import check_text
from xt.core.errors import XtError
from xt.eval.retrieval.ranking import DIRECTIONS
from xt.studies.quickstart.plan import LANGUAGES, QUESTION, STEPS
from xt.studies.quickstart.steps import RunSettings

ENCODER = "multilingual-e5-small"
CORPUS = "django"
PRECISION = "int8-blocks"
PROVIDER = "cpu"
"""8-bit blocks on ONNX Runtime's own provider: no scales to calibrate and no kernel to compile for every shape."""
TASKS = ("sample-nli", "sample-paraphrase")
DIRECTION = DIRECTIONS[0]


@dataclass(frozen=True)
class Settings(RunSettings):
    """The settings of one run."""

    steps: int = STEPS
    ask: str = QUESTION
    """The question, in any language."""
    encoder: str = ENCODER
    precision: str = PRECISION
    """Of the export."""
    languages: int = LANGUAGES
    """Languages of the corpus that are measured."""

    def __post_init__(self) -> None:
        check_text(self.ask, "the question")
        if self.steps < 1:
            raise XtError(f"{self.steps} training steps, at least 1 is needed.", "Give --steps more.")
