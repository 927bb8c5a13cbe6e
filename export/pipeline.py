"""One export for encoders and heads.

Graphs made step by step, each parity-tested against PyTorch, and the model written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Protocol

from xt.core.encoder.resolve import Resolved
from xt.core.errors import CheckFailed, require, unknown
from xt.core.files.artifact import Draft, check_model_name, refuse_existing, write_json
from xt.export.graphs import megabytes
from xt.export.thresholds import THRESHOLDS, failures

Report = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One graph on the way to the served one, and how it is run to be measured."""

    stage: str
    """What reports call it."""
    graph: Callable[[], Path]
    """Makes it, or returns it where it was made."""
    provider: str = "cpu"
    precision: str = "fp32"


@dataclass
class Content:
    """What a model's folder holds besides the graph, the tokenizer and the code."""

    golden: dict[str, Any]
    served: dict[str, Any]
    """Facts that a client may read, too."""
    pad_id: int
    config: Callable[[str, dict[str, Any]], str]
    """Fills the committed config.pbtxt, given with the served facts."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """More JSON files of the version."""


class Subject(Protocol):
    """What is exported: an encoder or a head."""

    kind: ClassVar[str]
    """`encoder` or `head`, the column of `THRESHOLDS`."""
    code: ClassVar[str]
    """Its folder among the committed Triton models."""
    noun: ClassVar[str]
    """What a refusal calls it."""
    hint: ClassVar[str]
    """What to try when it is not near enough to PyTorch."""
    resolved: Resolved

    def steps(self, precision: str, provider: str) -> Sequence[Step]:
        """List the graphs to make and to measure; the last is served."""
        ...

    def measure(self, stage: str, file: Path, provider: str, precision: str, megabytes: float) -> Any:
        """Compare a graph, run as it is served, with PyTorch: a stage."""
        ...

    def parity(self, stages: Sequence[Any], thresholds: Mapping[str, float]) -> dict[str, Any]:
        """Return what `parity.json` keeps of stages that passed."""
        ...

    def complete(self, version: Path, precision: str, provider: str) -> Content:
        """Open the graph in the version's folder and return what else belongs there."""
        ...


def check_request(
    repository: Path,
    name: str,
    *,
    precision: str,
    precisions: Iterable[str],
    role: str,
    inputs: Sequence[Path],
    force: bool,
) -> None:
    """Raise XtError for a name, a precision or a target that cannot be, before any work."""
    check_model_name(name)
    if precision not in precisions:
        raise unknown("precision", precision, precisions)
    require("onnxruntime", extra="cpu", purpose="Export")
    refuse_existing(repository / name, force=force, kind="model", role=role, inputs=inputs)


def check_parity(
    subject: Subject, precision: str, provider: str, thresholds: Mapping[str, float], report: Report
) -> tuple[dict[str, Any], Path]:
    """Make the graphs step by step, each measured as it is served: what `parity.json` keeps, and the last graph.

    The last must keep to `thresholds`; those before it are fp32 and must keep to fp32's.

    Raises CheckFailed when one does not.
    """
    stages: list[Any] = []
    for step in subject.steps(precision, provider):
        file = step.graph()
        stages.append(subject.measure(step.stage, file, step.provider, step.precision, megabytes(file)))
        report(str(stages[-1]))
    before = THRESHOLDS["fp32"][subject.kind]
    found = [f for s in stages for f in failures(s, thresholds if s is stages[-1] else before)]
    if found:
        raise CheckFailed(
            f"The exported {subject.noun} is not near enough to PyTorch, so nothing was written: {'; '.join(found)}.",
            subject.hint,
        )
    return subject.parity(stages, thresholds), file


def write(draft: Draft, subject: Subject, file: Path, *, precision: str, provider: str, parity: dict[str, Any]) -> None:
    """Fill a draft: the graph, the tokenizer, the served code, its configuration, the golden answers and the facts."""
    version = draft.path / "1"
    version.mkdir()
    for part in file.parent.glob(f"{file.name}*"):  # a large graph's weights lie beside it
        shutil.move(part, version / part.name)
    shutil.copyfile(subject.resolved.path / "tokenizer.json", version / "tokenizer.json")
    write_json(draft.path / "parity.json", parity)
    source = resources.files("xt.model_repository") / subject.code
    (version / "model.py").write_text((source / "1" / "model.py").read_text(encoding="utf-8"), encoding="utf-8")
    content = subject.complete(version, precision, provider)
    for name, value in {"golden.json": content.golden, **content.files}.items():
        write_json(version / name, value)
    template = (source / "config.pbtxt").read_text(encoding="utf-8")
    (draft.path / "config.pbtxt").write_text(content.config(template, content.served), encoding="utf-8")
    draft.parents = [subject.resolved.parent]
    draft.facts |= {
        **content.served,
        "graph": "1/model.onnx",
        "tokenizer": "1/tokenizer.json",
        "golden": "1/golden.json",
        "pad_id": content.pad_id,
        "parity": parity,
    }


def triton_config(template: str, name: str, dim: int, facts: dict[str, Any]) -> str:
    """Fill the committed config.pbtxt: the model's name, the vector's length, and the facts a client may read."""
    from xt.serve.triton import model_config

    config = model_config.parse(template)
    config.name = name
    if facts.get("provider") in ("cuda", "tensorrt"):
        for group in config.instance_group:
            group.kind = group.KIND_GPU
    for output in config.output:
        if output.name.startswith("embedding"):
            output.dims[:] = [dim]
    config.parameters["xt"].string_value = json.dumps(facts, sort_keys=True)
    return model_config.to_text(config)


def as_dicts(stages: Sequence[Any]) -> list[dict[str, Any]]:
    """Return stages as `parity.json` keeps them."""
    return [asdict(stage) for stage in stages]
