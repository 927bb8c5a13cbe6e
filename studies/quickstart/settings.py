"""What one run of the short quickstart is to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xt.core.encoder.text import check_text
from xt.core.errors import XtError
from xt.eval.retrieval.ranking import DIRECTIONS
from xt.serve.triton.starting import START_SECONDS
from xt.studies.quickstart.plan import LANGUAGES, QUESTION, STEPS

ENCODER = "multilingual-e5-small"
CORPUS = "django"
PRECISION = "int8-blocks"
PROVIDER = "cpu"
"""8-bit blocks on ONNX Runtime's own provider: no scales to calibrate and no kernel to compile for every shape."""
TASKS = ("sample-nli", "sample-paraphrase")
DIRECTION = DIRECTIONS[0]


@dataclass(frozen=True)
class Settings:
    """The settings of one run."""

    out: Path
    ask: str = QUESTION
    """The question, in any language."""
    steps: int = STEPS
    """Training steps of 16 examples."""
    seed: int = 0
    force: bool = False
    """Do every step again."""
    start_seconds: float = START_SECONDS
    """How long Triton may take to start; 0: no limit."""
    encoder: str = ENCODER
    precision: str = PRECISION
    """Of the export."""
    languages: int = LANGUAGES
    """Languages of the corpus that are measured."""

    def __post_init__(self) -> None:
        check_text(self.ask, "the question")
        if self.steps < 1:
            raise XtError(f"{self.steps} training steps, at least 1 is needed.", "Give --steps more.")
