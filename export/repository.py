"""One encoder into one model of a Triton repository: exported, fused, quantised and proven."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from xt.core.characters import compose
from xt.core.data.bitext import Bitext
from xt.core.encoder.onnx_engine import PROVIDERS, OnnxEngine, choose_provider
from xt.core.encoder.resolve import Resolved
from xt.core.encoder.text import TextEncoder
from xt.core.errors import CheckFailed, XtError, require, unknown
from xt.core.files.artifact import Artifact, Draft, new_artifact, open_artifact, refuse_existing, sha256, write_json
from xt.export import parity
from xt.export.candidates import PRECISIONS, Bench, Candidate, Graphs, choose, measure_speeds, possible

GOLDEN_DECOMPOSED = 4
"""Golden texts that stand there a second time, decomposed, with the vectors of their composed form."""
GOLDEN_TEXTS = 16
RUNTIMES = ("python", "onnxruntime")
GOLDEN_COSINE = {"fp32": 0.99999, "bf16": 0.999, "fp16": 0.999, "int8": 0.999, "int8-blocks": 0.999}
"""How near the golden vectors must be when the model loads on another machine."""
MIN_COSINE = 0.99
"""For `--precision auto`: least first percentile of the cosine to PyTorch."""
DEV_PAIRS = 1536
"""For `--precision auto`: sentence pairs that accuracy is measured on."""
SPEED_TEXTS = 512
QUICK_SENTENCES = 4
"""Sentences of each language that parity is measured on, with `quick`."""


def export_model(
    resolved: Resolved,
    repository: Path,
    *,
    corpus: Sequence[Bitext],
    name: str = "encoder",
    precision: str = "int8",
    provider: str = "auto",
    runtime: str = "python",
    exact: bool = False,
    quick: bool = False,
    min_cosine: float | None = None,
    max_loss: float = 0.3,
    dev_corpus: Sequence[Bitext] | None = None,
    layers: int | None = None,
    languages: Sequence[str] | None = None,
    shrink_corpus: Iterable[tuple[str, str]] | None = None,
    dims: int | None = None,
    force: bool = False,
    report: Callable[[str], None] = print,
) -> Artifact:
    """Write `repository/name`, a Triton model of the encoder, and give it opened.

    Args:
        resolved: the checkpoint.
        repository: the Triton model repository; other models in it stay.
        corpus: real text of many languages that parity is measured, and static scales are calibrated, on.
        name: the model's name on the server.
        precision: `fp32`, `bf16`, `fp16`, `int8` (static scales), `int8-blocks` (a scale every 32 weights), or `auto`:
            the fastest here that keeps to `max_loss`.
        provider: ONNX Runtime's execution provider, in xt's words; `auto` follows the hardware.
        runtime: `python` (ONNX Runtime inside Triton's Python backend) or `onnxruntime` (its own backend, in NVIDIA's
            container).
        exact: ask that a text's vector be the same bit for bit in any batch.
        quick: measure the served graph alone, not the fp32 graphs before it, and on half of the sentences of every
            language; its thresholds are the same.
        min_cosine: another threshold for the first percentile of the cosine to PyTorch.
        max_loss: for `auto`, points of mean retrieval accuracy that may be lost.
        dev_corpus: for `auto`, what accuracy is measured on; default: `corpus`.
        layers: keep so many layers.
        languages: keep only the vocabulary that these languages use in `shrink_corpus`.
        shrink_corpus: (language, text), needed with `languages`.
        dims: keep so many leading dimensions, renormalised.
        force: replace an existing model.
        report: told of every stage.

    Raises:
        CheckFailed: a stage is not near enough to PyTorch; nothing is written.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
        raise XtError(f"{name!r} cannot name a model.", "Use letters, digits, '-' and '_', a letter first.")
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if runtime not in RUNTIMES:
        raise unknown("runtime", runtime, RUNTIMES)
    require("onnxruntime", extra="cpu", purpose="Export")
    target, parent = repository / name, resolved.parent
    refuse_existing(target, force=force, kind="model", role="encoder", inputs=[resolved.path])
    if runtime == "onnxruntime":
        refuse_existing(repository / f"{name}_graph", force=force, kind="model", role="graph")
    if precision != "auto":
        provider = choose_provider(provider, precision=precision)
    with new_artifact(target, kind="model", force=force) as draft, tempfile.TemporaryDirectory() as scratch:
        shrunk: dict[str, Any] = {}
        if layers is not None or languages or dims is not None:
            from xt.export.shrink import shrink

            folder = Path(scratch) / "shrunk"
            small, shrunk = shrink(
                resolved, folder, layers=layers, languages=languages, corpus=shrink_corpus, dims=dims
            )
            # What tells vectors apart is the smaller encoder, not the checkpoint that others are made of as well.
            of = resolved.parent["hash"]
            resolved = replace(small, parent={**small.parent, "hash": open_artifact(folder).hash, "of": of})
        maker = _Maker(resolved, Path(scratch), corpus, report, quick=quick)
        rows: list[Candidate] = []
        if precision == "auto":
            rows = maker.candidates(provider, dev_corpus or corpus)
            least = min_cosine if min_cosine is not None else MIN_COSINE
            best = choose(rows, max_loss=max_loss, min_cosine=least)
            precision, provider = best.precision, best.provider
            report(f"chosen: {best.stage}, {best.tokens_per_second:.0f} tokens/s, {best.accuracy_change:+.2f} points")
        else:
            report(f"provider: {provider} ({PROVIDERS[provider].name})")
        thresholds = dict(parity.THRESHOLDS[precision])
        if min_cosine is not None:
            thresholds["cosine_p1"] = min_cosine
        if exact:
            thresholds["bit_equal"] = 1.0
        stages, file = maker.stages(precision, provider)
        # The last stage must reach the precision's thresholds; those before it are fp32 and must reach fp32's.
        before = parity.THRESHOLDS["fp32"]
        failures = [f for s in stages for f in s.failures(thresholds if s is stages[-1] else before)]
        result = {**parity.as_json(stages, maker.texts, precision, not failures), "thresholds": thresholds}
        if failures:
            raise CheckFailed(
                f"The exported graph is not near enough to PyTorch, so nothing was written: {'; '.join(failures)}.",
                "Try --precision fp32, or lower --min-cosine if you accept the loss.",
            )
        version = draft.path / "1"
        version.mkdir()
        for part in file.parent.glob(f"{file.name}*"):  # a large graph's weights lie beside it
            shutil.move(part, version / part.name)
        shutil.copyfile(resolved.path / "tokenizer.json", version / "tokenizer.json")
        write_json(draft.path / "parity.json", result)
        draft.facts = {"candidates": [c.to_json() for c in rows], "shrunk": shrunk, "exact": exact, "quick": quick}
        _complete(resolved, draft, name, precision, provider, result, maker.texts)
        draft.parents = [parent]
        if runtime == "onnxruntime":
            from xt.export.native import split_native

            gpu = precision == "fp16" or PROVIDERS[provider].device == "cuda"
            split_native(draft, repository, name, device="gpu" if gpu else "cpu", force=force)
    return open_artifact(target, kind="model")


class _Maker:
    """Makes and measures the graphs of one encoder."""

    def __init__(
        self,
        resolved: Resolved,
        scratch: Path,
        corpus: Sequence[Bitext],
        report: Callable[[str], None],
        *,
        quick: bool = False,
    ) -> None:
        from xt.core.encoder import torch_engine

        self.report = report
        self.corpus = corpus
        self.resolved = resolved
        self.torch_encoder = torch_engine.load_encoder(resolved, device="cpu")
        network = torch_engine.load_network(resolved.path, attn_implementation="eager").eval()
        folder = scratch / "graphs"
        folder.mkdir()
        texts = [t for b in corpus for t in (*b.foreign, *b.english)]
        self.quick = quick
        self.graphs = Graphs(resolved, network, self.torch_encoder.tokenizer, folder, texts)
        self.texts = parity.ParityTexts.sample(corpus, QUICK_SENTENCES if quick else parity.SENTENCES_A_LANGUAGE)

    def open(self, file: Path, provider: str, precision: str) -> TextEncoder:
        """Open a graph as it is served."""
        engine = OnnxEngine(file, provider=provider, precision=precision)
        of = self.torch_encoder
        return TextEncoder(self.resolved.spec, of.tokenizer, engine, pad_id=of.pad_id)

    def stages(self, precision: str, provider: str) -> tuple[list[parity.Stage], Path]:
        """Make the graph step by step, measuring each step as it is served; give the last graph."""
        expected = parity.reference(self.torch_encoder, self.texts)
        stages: list[parity.Stage] = []

        def check(stage: str, file: Path, provider: str, precision: str) -> Path:
            encoder = self.open(file, provider, precision)
            stages.append(parity.measure(stage, encoder, expected, self.texts, _megabytes(file)))
            s = stages[-1]
            self.report(
                f"{stage}: {s.megabytes:.0f} MB, cosine min {s.cosine_min:.5f} p1 {s.cosine_p1:.5f} mean "
                f"{s.cosine_mean:.5f}, neighbours {s.neighbour_agreement:.1%}, batch {s.batch_cosine_min:.6f}, "
                f"bit-equal {s.bit_equal:.0%}"
            )
            return file

        # A provider that fuses by itself gets the traced graph; the fused stage is then what it makes of it, in fp32.
        fuses = provider in ("openvino", "tensorrt")
        if self.quick and precision != "fp32":
            made = self.graphs.get(precision, provider, self.torch_encoder.pad_id)
            return stages, check(precision, made, provider, precision)
        file = check("onnx", self.graphs.raw(), "cpu", "fp32")
        file = check("fused", *((file, provider) if fuses else (self.graphs.fused(), "cpu")), "fp32")
        if precision != "fp32":
            made = self.graphs.get(precision, provider, self.torch_encoder.pad_id)
            file = check(precision, made, provider, precision)
        return stages, file

    def candidates(self, provider: str, dev: Sequence[Bitext]) -> list[Candidate]:
        """Measure every precision that this machine can serve, speeds in interleaved rounds."""
        each = max(DEV_PAIRS // len(dev), parity.SENTENCES_A_LANGUAGE)
        bench = Bench(self.torch_encoder, parity.ParityTexts.sample(dev, each))
        rows, encoders = [], []
        for precision, where in possible(provider):
            file = self.graphs.get(precision, where, self.torch_encoder.pad_id)
            encoder = self.open(file, where, precision)
            rows.append(bench.candidate(encoder, precision, where, _megabytes(file)))
            encoders.append(encoder)
            self.report(f"candidate {rows[-1].stage}: accuracy {rows[-1].accuracy:.2f}")
        for row, value in zip(rows, measure_speeds(encoders, bench.texts.foreign[:SPEED_TEXTS]), strict=True):
            row.tokens_per_second = round(value, 1)
        return rows


def _megabytes(file: Path) -> float:
    return sum(p.stat().st_size for p in file.parent.glob(f"{file.name}*")) / 1e6


def _complete(
    resolved: Resolved,
    draft: Draft,
    name: str,
    precision: str,
    provider: str,
    result: dict[str, Any],
    texts: parity.ParityTexts,
) -> None:
    """Add the served code, its configuration, the golden vectors and the facts."""
    from xt.core.encoder.text import TextTokenizer
    from xt.core.encoder.torch_engine import pad_id

    spec, version = resolved.spec, draft.path / "1"
    source = resources.files("xt.model_repository") / "encoder"
    (version / "model.py").write_text((source / "1" / "model.py").read_text(encoding="utf-8"), encoding="utf-8")
    padding = pad_id(resolved.path)
    tokenizer = TextTokenizer(version / "tokenizer.json", spec.max_length)
    engine = OnnxEngine(version / "model.onnx", provider=provider, precision=precision)
    encoder = TextEncoder(spec, tokenizer, engine, pad_id=padding)
    rows = np.unique(np.linspace(0, len(texts.foreign) - 1, GOLDEN_TEXTS).astype(int))
    golden = [texts.foreign[i] for i in rows]
    both = parity.in_both_forms(golden, GOLDEN_DECOMPOSED)
    vectors = encoder.encode([*golden, *map(compose, both)]).vectors
    least = GOLDEN_COSINE[precision]
    write_json(
        version / "golden.json",
        {
            "composed": True,
            "texts": [*golden, *map(parity.decompose, both)],
            "cosine_min": least,
            "vectors": vectors.tolist(),
        },
    )
    # fp16 is written for GPUs: proven on the CPU where there is none, but served by the GPU that is there.
    where = "auto" if (precision, provider) == ("fp16", "cpu") else provider
    served = {
        "encoder": spec.to_json(),
        "precision": precision,
        "provider": where,
        "checkpoint": resolved.parent,
        "content": _content(version),
    }
    config = triton_config((source / "config.pbtxt").read_text(encoding="utf-8"), name, spec.dim, served)
    (draft.path / "config.pbtxt").write_text(config, encoding="utf-8")
    draft.parents = [resolved.parent]
    draft.facts |= {
        **served,
        "graph": "1/model.onnx",
        "tokenizer": "1/tokenizer.json",
        "golden": "1/golden.json",
        "pad_id": padding,
        "parity": result,
    }


def _content(version: Path) -> str:
    """Return the hash of a version's graph and tokenizer, by which a client tells exports of one checkpoint apart."""
    files = sorted([*version.glob("model.onnx*"), version / "tokenizer.json"])
    return hashlib.sha256(json.dumps([[f.name, sha256(f)] for f in files]).encode()).hexdigest()


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
