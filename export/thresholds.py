"""What every precision must keep to, as an encoder and as a head, when it is exported and when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

THRESHOLDS: dict[str, dict[str, dict[str, float]]] = {
    "fp32": {
        "encoder": {
            "cosine_min": 0.9999,
            "cosine_p1": 0.99999,
            "neighbour_agreement": 0.995,
            "batch_cosine_min": 0.99999,
        },
        "head": {"difference_max": 1e-3, "difference_p99": 1e-4, "agreement": 0.995, "batch_difference_max": 1e-3},
        "golden": {"encoder": 0.99999, "head": 1e-3},
    },
    "bf16": {
        "encoder": {
            "cosine_min": 0.999,
            "cosine_p1": 0.9995,
            "neighbour_agreement": 0.98,
            "batch_cosine_min": 0.9999,
        },
        "head": {"difference_max": 0.1, "difference_p99": 0.05, "agreement": 0.97, "batch_difference_max": 0.1},
        "golden": {"encoder": 0.999, "head": 0.05},
    },
    "fp16": {
        "encoder": {"cosine_min": 0.999, "cosine_p1": 0.9995, "neighbour_agreement": 0.98, "batch_cosine_min": 0.999},
        "head": {"difference_max": 0.05, "difference_p99": 0.02, "agreement": 0.98, "batch_difference_max": 0.05},
        "golden": {"encoder": 0.999, "head": 0.02},
    },
    "int8": {
        "encoder": {"cosine_min": 0.98, "cosine_p1": 0.99, "neighbour_agreement": 0.93, "batch_cosine_min": 0.9999},
        "head": {"difference_max": 0.25, "difference_p99": 0.1, "agreement": 0.95, "batch_difference_max": 0.05},
        "golden": {"encoder": 0.999, "head": 0.02},
    },
    "int8-blocks": {
        "encoder": {"cosine_min": 0.98, "cosine_p1": 0.99, "neighbour_agreement": 0.95, "batch_cosine_min": 0.9999},
        "head": {"difference_max": 0.25, "difference_p99": 0.1, "agreement": 0.95, "batch_difference_max": 0.02},
        "golden": {"encoder": 0.999, "head": 0.02},
    },
}
"""For each precision the measures of `xt.export.parity.Stage` (`encoder`) and of `xt.export.heads.parity.HeadStage`
(`head`), and how near the golden vectors (cosine) and probabilities (difference) must be on another machine (`golden`).

Differences count at most, everything else at least. `--exact` asks for `bit_equal` 1.0 besides. The cosine is the gate
proper; a neighbour may change between near ties, of which a corpus of like sentences is full.
"""


def failures(stage: Any, limits: Mapping[str, float]) -> list[str]:
    """Name the measures of a stage, a dataclass, that do not keep to their limits; not a number keeps to none."""
    values = asdict(stage)
    found = []
    for key, limit in limits.items():
        at_most = "difference" in key
        if not (values[key] <= limit if at_most else values[key] >= limit):
            side = "above" if at_most else "below"
            found.append(f"{stage.stage}: {key} {values[key]:.6f} is {side} {limit}")
    return found
