"""One encoder into one model of a Triton repository: exported, quantised, parity-tested, ready to serve."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from xt.core.characters import compose
from xt.core.data.bitext import Bitext
from xt.core.encoder.onnx_engine import PROVIDERS, OnnxEngine, choose_provider
from xt.core.encoder.resolve import Resolved
from xt.core.encoder.text import TextEncoder, TextTokenizer
from xt.core.errors import unknown
from xt.core.files.artifact import Artifact, new_artifact, open_artifact, refuse_existing, sha256
from xt.export import graph, parity
from xt.export.candidates import Bench, Candidate, choose, measure_speeds, possible
from xt.export.graphs import FUSING, PRECISIONS, Graphs, megabytes
from xt.export.pipeline import Content, Report, Step, as_dicts, check_parity, check_request, triton_config, write
from xt.export.quantize import calibration_texts, feeds
from xt.export.shrink.settings import Shrinking
from xt.export.thresholds import THRESHOLDS

RUNTIMES = ("python", "onnxruntime")
MIN_COSINE = 0.99
"""For `--precision auto`: least first percentile of the cosine to PyTorch."""
DEV_PAIRS = 1536
"""For `--precision auto`: sentence pairs that accuracy is measured on."""
SPEED_TEXTS = 512
QUICK_SENTENCES = 4
"""Sentences of each language that parity is measured on, with `quick`."""


@dataclass(frozen=True)
class EncoderExport:
    """How an encoder is exported."""

    precision: str = "int8"
    """`fp32`, `bf16`, `fp16`, `int8` (static scales), `int8-blocks` (a scale every 32 weights), or `auto`: the fastest
    here that keeps to `max_loss`."""
    provider: str = "auto"
    """ONNX Runtime's execution provider, in xt's words; `auto` follows the hardware."""
    runtime: str = "python"
    """`python` (ONNX Runtime inside Triton's Python backend) or `onnxruntime` (its own backend, in NVIDIA's
    container)."""
    exact: bool = False
    """Ask that a text's vector be the same bit for bit in any batch."""
    quick: bool = False
    """Measure the served graph alone, not the fp32 graphs before it, and on half of the sentences of every language;
    its thresholds are the same."""
    min_cosine: float | None = None
    """Another threshold for the first percentile of the cosine to PyTorch."""
    max_loss: float = 0.3
    """For `auto`, points of mean retrieval accuracy that may be lost."""
    dev_corpus: Sequence[Bitext] | None = None
    """For `auto`, what accuracy is measured on; None: the corpus of parity."""
    shrinking: Shrinking = field(default_factory=Shrinking)
    """What is made smaller before."""

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise unknown("runtime", self.runtime, RUNTIMES)

    def thresholds(self, precision: str) -> dict[str, float]:
        """Return what every graph must reach."""
        found = dict(THRESHOLDS[precision]["encoder"])
        if self.min_cosine is not None:
            found["cosine_p1"] = self.min_cosine
        if self.exact:
            found["bit_equal"] = 1.0
        return found


def export_model(
    resolved: Resolved,
    repository: Path,
    *,
    corpus: Sequence[Bitext],
    name: str = "encoder",
    options: EncoderExport = EncoderExport(),
    force: bool = False,
    report: Report = print,
) -> Artifact:
    """Write `repository/name`, a Triton model of the encoder, and return it opened.

    Args:
        resolved: the checkpoint.
        repository: the Triton model repository; other models in it stay.
        corpus: real text of many languages that parity is measured, and static scales are calibrated, on.
        name: the model's name on the server.
        options: precision, provider, thresholds, and what is made smaller.
        force: replace an existing model.
        report: called with a line for every stage.

    Raises:
        CheckFailed: a stage is not near enough to PyTorch; nothing is written.
    """
    target, parent = repository / name, resolved.parent
    precision, provider, inputs = options.precision, options.provider, [resolved.path]
    check_request(
        repository, name, precision=precision, precisions=PRECISIONS, role="encoder", inputs=inputs, force=force
    )
    if options.runtime == "onnxruntime":
        refuse_existing(repository / f"{name}_graph", force=force, kind="model", role="graph")
    if precision != "auto":
        provider = choose_provider(provider, precision=precision)
    with new_artifact(target, kind="model", force=force) as draft, tempfile.TemporaryDirectory() as scratch:
        shrunk: dict[str, Any] = {}
        if options.shrinking:
            from xt.export.shrink.shrink import shrink

            folder = Path(scratch) / "shrunk"
            wanted = options.shrinking
            small, shrunk = shrink(
                resolved,
                folder,
                layers=wanted.layers,
                languages=wanted.languages,
                corpus=wanted.corpus,
                dims=wanted.dims,
            )
            # What tells vectors apart is the smaller encoder, not the checkpoint that others are made of as well.
            of = resolved.parent["hash"]
            resolved = replace(small, parent={**small.parent, "hash": open_artifact(folder).hash, "of": of})
        subject = Encoder(resolved, name, Path(scratch) / "graphs", corpus, quick=options.quick)
        rows: list[Candidate] = []
        if precision == "auto":
            rows = subject.candidates(provider, options.dev_corpus or corpus, report)
            least = options.min_cosine if options.min_cosine is not None else MIN_COSINE
            best = choose(rows, max_loss=options.max_loss, min_cosine=least)
            precision, provider = best.precision, best.provider
            report(f"chosen: {best.stage}, {best.tokens_per_second:.0f} tokens/s, {best.accuracy_change:+.2f} points")
        else:
            report(f"provider: {provider} ({PROVIDERS[provider].name})")
        result, file = check_parity(subject, precision, provider, options.thresholds(precision), report)
        draft.facts = {"candidates": [c.to_json() for c in rows], "shrunk": shrunk}
        draft.facts |= {"exact": options.exact, "quick": options.quick}
        write(draft, subject, file, precision=precision, provider=provider, parity=result)
        draft.parents = [parent]
        if options.runtime == "onnxruntime":
            from xt.export.native import split_native

            gpu = precision == "fp16" or PROVIDERS[provider].device == "cuda"
            split_native(draft, repository, name, device="gpu" if gpu else "cpu", force=force)
    return open_artifact(target, kind="model")


class Encoder:
    """An encoder as a subject of `xt.export.pipeline`."""

    kind: ClassVar[str] = "encoder"
    code: ClassVar[str] = "encoder"
    noun: ClassVar[str] = "graph"
    hint: ClassVar[str] = "Try --precision fp32, or lower --min-cosine if you accept the loss."

    def __init__(
        self, resolved: Resolved, name: str, scratch: Path, corpus: Sequence[Bitext], *, quick: bool = False
    ) -> None:
        """Load the checkpoint.

        Args:
            resolved: the checkpoint.
            name: the model's name on the server.
            scratch: where its graphs are made.
            corpus: what parity is measured and static scales are calibrated on.
            quick: see `export_model`.
        """
        from xt.core.encoder import torch_engine

        self.resolved, self.name, self.quick = resolved, name, quick
        self.torch_encoder = torch_engine.load_encoder(resolved, device="cpu")
        network = torch_engine.load_network(resolved.path, attn_implementation="eager").eval()
        self.texts = parity.ParityTexts.sample(corpus, QUICK_SENTENCES if quick else parity.SENTENCES_A_LANGUAGE)
        tokenizer, pad_id, prefix = self.torch_encoder.tokenizer, self.torch_encoder.pad_id, resolved.spec.prefix(None)
        self.graphs = Graphs(
            scratch,
            network,
            lambda file: graph.to_onnx(network, resolved.spec, file),
            lambda: feeds(
                calibration_texts([t for b in corpus for t in (*b.foreign, *b.english)]), tokenizer, prefix, pad_id
            ),
        )

    @cached_property
    def expected(self) -> parity.Reference:
        """PyTorch's vectors."""
        return parity.reference(self.torch_encoder, self.texts)

    def open(self, file: Path, provider: str, precision: str) -> TextEncoder:
        """Open a graph as it is served."""
        engine = OnnxEngine(file, provider=provider, precision=precision)
        of = self.torch_encoder
        return TextEncoder(self.resolved.spec, of.tokenizer, engine, pad_id=of.pad_id)

    def steps(self, precision: str, provider: str) -> list[Step]:
        """See `Subject`. A provider that fuses by itself gets the traced graph, as the fused stage too, in fp32."""
        made = partial(self.graphs.get, precision, provider)
        served = [] if precision == "fp32" else [Step(precision, made, provider, precision)]
        if self.quick and served:
            return served
        fused = Step("fused", self.graphs.raw, provider) if provider in FUSING else Step("fused", self.graphs.fused)
        return [Step("onnx", self.graphs.raw), fused, *served]

    def measure(self, stage: str, file: Path, provider: str, precision: str, megabytes: float) -> parity.Stage:
        """See `Subject`."""
        return parity.measure(stage, self.open(file, provider, precision), self.expected, self.texts, megabytes)

    def parity(self, stages: Sequence[parity.Stage], thresholds: Mapping[str, float]) -> dict[str, Any]:
        """See `Subject`."""
        return {
            "sentences": self.texts.sentences,
            "languages": self.texts.languages,
            "thresholds": dict(thresholds),
            "passed": True,
            "stages": as_dicts(stages),
        }

    def candidates(self, provider: str, dev: Sequence[Bitext], report: Report) -> list[Candidate]:
        """Measure every precision that this machine can serve, speeds in interleaved rounds."""
        each = max(DEV_PAIRS // len(dev), parity.SENTENCES_A_LANGUAGE)
        bench = Bench(self.torch_encoder, parity.ParityTexts.sample(dev, each))
        rows, encoders = [], []
        for precision, where in possible(provider):
            file = self.graphs.get(precision, where)
            encoder = self.open(file, where, precision)
            rows.append(bench.candidate(encoder, precision, where, megabytes(file)))
            encoders.append(encoder)
            report(f"candidate {rows[-1].stage}: accuracy {rows[-1].accuracy:.2f}")
        for row, value in zip(rows, measure_speeds(encoders, bench.texts.foreign[:SPEED_TEXTS]), strict=True):
            row.tokens_per_second = round(value, 1)
        return rows

    def complete(self, version: Path, precision: str, provider: str) -> Content:
        """See `Subject`: the golden vectors, and what tells this export from others of its checkpoint."""
        spec, pad_id = self.resolved.spec, self.torch_encoder.pad_id
        tokenizer = TextTokenizer(version / "tokenizer.json", spec.max_length)
        engine = OnnxEngine(version / "model.onnx", provider=provider, precision=precision)
        encoder = TextEncoder(spec, tokenizer, engine, pad_id=pad_id)
        golden = parity.golden(self.texts.foreign)
        both = [golden[i] for i in parity.in_both_forms(golden, parity.GOLDEN_DECOMPOSED)]
        vectors = encoder.encode([*golden, *map(compose, both)]).vectors
        return Content(
            golden={
                "composed": True,
                "texts": [*golden, *map(parity.decompose, both)],
                "cosine_min": THRESHOLDS[precision]["golden"]["encoder"],
                "vectors": vectors.tolist(),
            },
            served={
                "encoder": spec.to_json(),
                "precision": precision,
                # fp16 is written for GPUs: tested on the CPU where there is none, served by the GPU that is there.
                "provider": "auto" if (precision, provider) == ("fp16", "cpu") else provider,
                "checkpoint": self.resolved.parent,
                "content": _content(version),
            },
            pad_id=pad_id,
            config=lambda template, served: triton_config(template, self.name, spec.dim, served),
        )


def _content(version: Path) -> str:
    """Return the hash of a version's graph and tokenizer, by which a client tells exports of one checkpoint apart."""
    files = sorted([*version.glob("model.onnx*"), version / "tokenizer.json"])
    return hashlib.sha256(json.dumps([[f.name, sha256(f)] for f in files]).encode()).hexdigest()
