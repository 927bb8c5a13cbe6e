"""Which layer to pool: retrieval from every layer of one encoder, and the best of them, chosen on other languages.

Pires et al. 2019 (arXiv 1906.01502, section 5.1) found middle layers to align languages best; XTREME reads layer 14 of
24. What is reported of the best layer comes from languages that had no part in choosing it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from xt.core.data.bitext import Bitext
from xt.core.data.corpus import Corpus
from xt.core.encoder.resolve import resolve
from xt.core.encoder.text import TextEncoder, Vectors
from xt.core.errors import UsageError
from xt.core.languages import resource_of
from xt.core.reporter import Reporter
from xt.eval.retrieval import ranking
from xt.eval.retrieval.ranking import DIRECTIONS, Encodings
from xt.serve.encoders import OpenedEncoder

EncodeLayers = Callable[[Sequence[str]], Mapping[int, Vectors]]
"""Texts to layer -> (texts, dim), as `xt.core.encoder.torch_engine.encode_layers` does it."""
Accuracies = dict[str, dict[int, dict[str, float]]]
"""direction -> layer -> language -> accuracy at 1."""


def accuracies(
    encode_layers: EncodeLayers,
    corpus: Sequence[Bitext],
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> Accuracies:
    """Measure accuracy at 1 by cosine, in both directions, of every layer in every language.

    One language at a time is in memory: its sentences, in all layers.
    """
    found: Accuracies = {direction: {} for direction in DIRECTIONS}
    for done, pairs in enumerate(corpus):
        if progress:
            progress(done, len(corpus), pairs.language)
        places = {sentence: i for i, sentence in enumerate(dict.fromkeys(pairs.english))}
        rows = [places[sentence] for sentence in pairs.english]
        n = len(pairs.foreign)
        for layer, vectors in encode_layers([*pairs.foreign, *places]).items():
            unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            both = Encodings(unit[:n], unit[n:][rows], 0, 0)
            for direction in DIRECTIONS:
                gold = ranking.rank(pairs, both, direction, k=1).gold
                found[direction].setdefault(layer, {})[pairs.language] = float((gold == 0).mean())
    if progress:
        progress(len(corpus), len(corpus), "")
    return found


def halves(languages: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split languages by a hash of their codes: those to choose on and those to report on, the odd one to the former.

    >>> halves(["deu", "fra", "swh"])
    (['deu', 'swh'], ['fra'])
    """
    order = sorted(set(languages), key=lambda code: hashlib.sha256(code.encode()).hexdigest())
    middle = (len(order) + 1) // 2
    return sorted(order[:middle]), sorted(order[middle:])


def best(found: Accuracies, own: int) -> dict[str, Any] | None:
    """Choose the layer with the best mean over both directions on one half of the languages; report it on the other.

    Gives the layer, both halves, and for the languages reported on the mean accuracy of each direction at that layer
    and, where it was measured, at the encoder's `own`. None with fewer than two languages. Of equal layers the lowest.
    """
    layers = sorted(found[DIRECTIONS[0]])
    chosen_on, reported_on = halves(list(found[DIRECTIONS[0]][layers[0]]))
    if not reported_on:
        return None

    def mean(direction: str, layer: int, languages: Sequence[str]) -> float:
        return float(np.mean([found[direction][layer][code] for code in languages]))

    def at(layer: int) -> dict[str, float]:
        return {direction: mean(direction, layer, reported_on) for direction in DIRECTIONS}

    both = {n: float(np.mean([mean(d, n, chosen_on) for d in DIRECTIONS])) for n in layers}
    layer = max(layers, key=lambda n: both[n])
    return {
        "layer": layer,
        "chosen_on": chosen_on,
        "reported_on": reported_on,
        "accuracy": at(layer),
        "own_accuracy": at(own) if own in layers else None,
    }


def sweep(
    encode_layers: EncodeLayers,
    corpus: Sequence[Bitext],
    *,
    resources: dict[str, str],
    own: int,
    count: int,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Measure every layer that `encode_layers` returns: the section `layers` of metrics.json.

    Args:
        encode_layers: texts to vectors by layer.
        corpus: the parallel text.
        resources: the resource class of each language.
        own: the layer that the encoder itself pools.
        count: how many layers the network has.
        progress: called for every language before it is encoded.
    """
    found = accuracies(encode_layers, corpus, progress=progress)
    directions = {
        direction: {
            str(layer): {
                "mean": ranking.means({code: {"accuracy": a} for code, a in rows.items()}, resources),
                "languages": rows,
            }
            for layer, rows in sorted(by_layer.items())
        }
        for direction, by_layer in found.items()
    }
    return {"count": count, "own": own, "directions": directions, "best": best(found, own)}


def layer_sweep(
    opened: OpenedEncoder, layers: Sequence[int] | None, *, truncate: bool = False, reporter: Reporter = Reporter()
) -> Callable[[Corpus], dict[str, Any]]:
    """Check the layers (None: all) against a checkpoint in PyTorch, and return what measures them on a corpus."""
    from xt.core.encoder import torch_engine
    from xt.core.encoder.layers import check_layers, stack

    encoder = opened.encoder
    if not (isinstance(encoder, TextEncoder) and isinstance(encoder.engine, torch_engine.TorchEngine)):
        raise UsageError("--layers reads a checkpoint in PyTorch, not an exported model")
    whole = torch_engine.whole_encoder(encoder, resolve(str(opened.source["encoder"])).path)
    own, count = (len(stack(torch_engine.network_of(e))) for e in (encoder, whole))
    chosen = list(range(count + 1)) if layers is None else list(layers)
    check_layers(chosen, count)

    def measure(corpus: Corpus) -> dict[str, Any]:
        reporter.say(f"{len(chosen)} layers, each in {len(corpus.pairs)} languages")
        return sweep(
            lambda texts: torch_engine.encode_layers(whole, texts, chosen, truncate=truncate),
            corpus.pairs,
            resources={b.language: resource_of(b.language) for b in corpus.pairs},
            own=own,
            count=count,
            progress=reporter.counter("languages"),
        )

    return measure
