"""The graphs that one encoder can be served as, and the choice among them: the fastest that keeps to a stated loss."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xt.calibration.apply.retrieval import RetrievalTemperature
from xt.calibration.fit.temperature import LOG_T, label_loss, search_log_temperature
from xt.core.encoder.onnx_engine import PROVIDERS, available_providers
from xt.core.encoder.text import TextEncoder, Vectors
from xt.core.errors import CheckFailed
from xt.export import parity
from xt.export.thresholds import THRESHOLDS

ROUNDS = 3


@dataclass
class Candidate:
    """One way to serve the encoder, as measured."""

    stage: str
    precision: str
    provider: str
    megabytes: float
    tokens_per_second: float
    cosine_min: float
    cosine_p1: float
    cosine_mean: float
    accuracy: float
    """Mean over languages, foreign to English, in per cent; the candidates are all English sentences."""
    accuracy_change: float
    """Points gained over PyTorch fp32; a loss is negative."""
    neighbour_agreement: float
    ece_change: float
    """Expected calibration error at PyTorch's best temperature, minus PyTorch's own."""
    kept: bool = False
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as the manifest keeps it."""
        return asdict(self)


def possible(provider: str = "auto") -> list[tuple[str, str]]:
    """List the (precision, provider) pairs that this machine can run, a GPU's alone where there is one."""
    found = available_providers()
    gpus = [p for p in found if PROVIDERS[p].device == "cuda"]
    chosen = [provider] if provider != "auto" else (["cuda"] if "cuda" in gpus else found)
    pairs = [(precision, p) for p in chosen for precision in PROVIDERS[p].precisions]
    # On the CPU's own provider fp16 is only emulated. Beside OpenVINO only its block-wise int8 is worth measuring.
    beside = len(chosen) > 1
    return [x for x in pairs if x[1] != "cpu" or x[0] == "int8-blocks" or (not beside and x[0] != "fp16")]


def speed(encoder: TextEncoder, texts: Sequence[str]) -> float:
    """Return the tokens a second, padding not counted, of encoding `texts` in one call."""
    start = time.perf_counter()
    tokens = int(encoder.encode(texts, truncate=True).tokens.sum())
    return tokens / (time.perf_counter() - start)


def retrieval_ece(foreign: Vectors, english: Vectors, gold: Sequence[int], temperature: float, bins: int = 15) -> float:
    """Return the expected calibration error of the best candidate's probability, in bins of equal mass."""
    probabilities = RetrievalTemperature(temperature)(foreign @ english.T)[:, :-1]
    confidence, right = probabilities.max(1), probabilities.argmax(1) == np.asarray(gold)
    parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    return float(sum(len(p) / len(right) * abs(confidence[p].mean() - right[p].mean()) for p in parts if len(p)))


class Bench:
    """Measures candidates on a dev corpus against PyTorch fp32."""

    def __init__(self, reference: TextEncoder, texts: parity.ParityTexts) -> None:
        self.texts = texts
        self.expected = parity.reference(reference, texts)
        self.gold = [texts.english.index(t) for t in texts.translations]
        loss = label_loss((self.expected[0] @ self.expected[1].T).astype(np.float64), self.gold)
        self.temperature = math.exp(search_log_temperature(loss, LOG_T, xatol=1e-4))
        self.ece = retrieval_ece(*self.expected[:2], self.gold, self.temperature)
        self.accuracy = self._accuracy(*self.expected[:2])

    def _accuracy(self, foreign: Vectors, english: Vectors) -> float:
        right = (foreign @ english.T).argmax(1) == np.asarray(self.gold)
        groups: dict[str, list[bool]] = {}
        for language, hit in zip(self.texts.of_language, right, strict=True):
            groups.setdefault(language, []).append(bool(hit))
        return 100 * float(np.mean([np.mean(hits) for hits in groups.values()]))

    def candidate(self, encoder: TextEncoder, precision: str, provider: str, megabytes: float) -> Candidate:
        """Measure everything but the speed."""
        stage = parity.measure(f"{precision} on {provider}", encoder, self.expected, self.texts, megabytes)
        foreign = encoder.encode(self.texts.foreign).vectors
        english = encoder.encode(self.texts.english).vectors
        accuracy = self._accuracy(foreign, english)
        return Candidate(
            stage=stage.stage,
            precision=precision,
            provider=provider,
            megabytes=stage.megabytes,
            tokens_per_second=0.0,
            cosine_min=stage.cosine_min,
            cosine_p1=stage.cosine_p1,
            cosine_mean=stage.cosine_mean,
            accuracy=accuracy,
            accuracy_change=accuracy - self.accuracy,
            neighbour_agreement=stage.neighbour_agreement,
            ece_change=retrieval_ece(foreign, english, self.gold, self.temperature) - self.ece,
        )


def choose(candidates: Sequence[Candidate], *, max_loss: float, min_cosine: float) -> Candidate:
    """Take the fastest candidate that keeps to the loss, and say of each other why not.

    Args:
        candidates: measured, speeds included.
        max_loss: points of mean accuracy that may be lost.
        min_cosine: least first percentile of the cosine to PyTorch.

    Raises:
        CheckFailed: no candidate keeps to it.
    """
    for c in candidates:
        reasons = []
        if -c.accuracy_change > max_loss:
            reasons.append(f"loses {-c.accuracy_change:.2f} points, {max_loss:g} allowed")
        if not c.cosine_p1 >= min_cosine:
            reasons.append(f"cosine p1 {c.cosine_p1:.4f} below {min_cosine:g}")
        for key in ("cosine_min", "neighbour_agreement"):
            if not getattr(c, key) >= (least := THRESHOLDS[c.precision]["encoder"][key]):
                reasons.append(f"{key.replace('_', ' ')} {getattr(c, key):.4f} below {least:g}")
        c.why = "; ".join(reasons)
    fitting = [c for c in candidates if not c.why]
    if not fitting:
        raise CheckFailed(
            "No precision keeps to the loss: " + "; ".join(f"{c.stage} {c.why}" for c in candidates) + ".",
            "Allow more by --max-loss or --min-cosine.",
        )
    best = max(fitting, key=lambda c: c.tokens_per_second)
    best.kept, best.why = True, "the fastest that keeps to the loss"
    for c in fitting:
        if c is not best:
            c.why = "slower"
    return best


def measure_speeds(encoders: Sequence[TextEncoder], texts: Sequence[str]) -> list[float]:
    """Return the median tokens a second of each over interleaved rounds, every shape seen before."""
    for encoder in encoders:
        speed(encoder, texts)
    turns = [[speed(e, texts) for e in encoders] for _ in range(ROUNDS)]
    return [float(np.median([turn[i] for turn in turns])) for i in range(len(encoders))]
