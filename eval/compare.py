"""Comparing two reports of one task: differences with paired intervals, by language, resource class and overall.

Both sides are resampled together: a resample holds the same queries of both. What the two have in common (a hard query
is hard for either) then cancels, and an interval is far narrower than the two single ones would suggest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

from xt.calibration.measuring import resampling
from xt.calibration.measuring.clusters import shared_draws
from xt.calibration.measuring.resampling import Draw, Floats, Sample, in_turn
from xt.core.errors import XtError
from xt.core.files.artifact import refuse_existing
from xt.core.languages import resource_of
from xt.core.results.folder import Files, write_report
from xt.core.results.report import Report
from xt.eval.compare_reading import Answers, Side, matched, read_side
from xt.eval.report import build
from xt.eval.report.describe import describe_run

MEASURES = ("accuracy", "ece", "nll_binary", "brier", "auroc", "aurc")
"""What is compared; all but the first need probabilities. Losses are of "the answer is right" as a binary event."""
LEVEL = 0.05
"""The share of false alarms that all flags of one measure together may have (Holm 1979)."""


def compare(
    a: Path,
    b: Path,
    out: Path,
    *,
    force: bool = False,
    repeats: int = 1000,
    seed: int = 0,
    methods: tuple[str | None, str | None] = (None, None),
    progress: Callable[[int, int, str], None] | None = None,
) -> Report:
    """Compare two report folders of one task, write a report folder, and return its report.

    Differences are of the second less the first. Languages and directions that only one has are left out, and listed.

    Args:
        a: the report that is compared with.
        b: the report that is looked at.
        out: the folder to write.
        force: replace what is there.
        repeats: resamples of the queries.
        seed: of the resamples.
        methods: the calibration method of each side, a `p_...` column without its `p_`; None chooses the best that
            needs no labels in the language and both have.
        progress: called for every language before it is resampled.

    Raises:
        XtError: when the tasks, the queries or their right answers differ, naming the first difference; when a report
            has no predictions; when there is no language in common.
    """
    if repeats < 100:
        raise XtError(f"Expected at least 100 resamples, found {repeats}.", "1000 is usual.")
    refuse_existing(out, force=force, kind="report", inputs=[a, b])
    sides = read_side(a), read_side(b)
    chosen = choose(sides, methods)
    section = {**describe(sides, chosen), "repeats": repeats, "seed": seed, "level": LEVEL}
    in_both = {d: matched(sides, d, chosen) for d in sides[0].answers if d in sides[1].answers}
    left_out = {d: missing for d, (_, missing) in in_both.items()}
    total = sum(len(pairs) for pairs, _ in in_both.values())
    done = 0

    def tell(code: str) -> None:
        nonlocal done
        if progress:
            progress(done, total, code)
        done += 1

    directions = {d: differences(pairs, repeats=repeats, seed=seed, tell=tell) for d, (pairs, _) in in_both.items()}
    if progress and total:
        progress(total, total, "")
    if not directions:
        found = " and ".join("/".join(s.answers) or "none" for s in sides)
        raise XtError(f"The reports have no direction in common ({found}).", "Compare reports of the same run options.")
    section |= {"directions": directions, "left_out": left_out}
    section["only"] = [[d for d in s.answers if d not in directions] for s in sides]
    codes = [code for part in directions.values() for code in part["languages"]]
    codes = list(dict.fromkeys([*codes, *(c for two in left_out.values() for one in two for c in one)]))
    names = section["names"]
    task = sides[0].task.to_json()
    report = describe_run(f"{names[1]} against {names[0]}", task, codes, comparison=section)
    write_report(
        out,
        report,
        Files(build.render(report)),
        parents=[s.parent for s in sides],
        facts={"task": task, "compared": [str(a), str(b)]},
        seed=seed,
        force=force,
    )
    return report


def choose(sides: tuple[Side, Side], methods: tuple[str | None, str | None]) -> tuple[str | None, str | None]:
    """Settle the method of each side: as asked for, else one that both have; None where neither has probabilities."""
    common = [m for m in sides[0].methods if m in sides[1].methods]
    preferred = next((m for m in ("predicted", "zero-shot", *reversed(common)) if m in common), None)
    chosen = []
    for side, method in zip(sides, methods, strict=True):
        if method is not None and method not in side.methods:
            known = ", ".join(side.methods) or "none"
            raise XtError(f"{side.path} has no probabilities of method {method!r}.", f"Its methods: {known}.")
        if method is None and preferred is None and side.methods:
            known = " and ".join(", ".join(s.methods) or "none" for s in sides)
            raise XtError(f"The reports have no calibration method in common ({known}).", "Name one for each side.")
        chosen.append(method or preferred)
    return chosen[0], chosen[1]


def describe(sides: tuple[Side, Side], chosen: tuple[str | None, str | None]) -> dict[str, Any]:
    """Return what a page says of the two sides; their names differ."""
    names = [s.encoder for s in sides]
    if names[0] == names[1]:
        names = [s.path.resolve().name for s in sides]
    if names[0] == names[1]:
        names = [
            f"{n} ({m})" if chosen[0] != chosen[1] else f"{n} ({x})"
            for n, m, x in zip(names, chosen, "AB", strict=True)
        ]
    described = [
        {"path": str(s.path), "hash": s.parent["hash"], "encoder": s.encoder, "method": m, "created": s.created}
        for s, m in zip(sides, chosen, strict=True)
    ]
    return {"names": names, "a": described[0], "b": described[1]}


def differences(
    pairs: Mapping[str, tuple[Answers, Answers]], *, repeats: int, seed: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Compare one direction: each language, means by resource class and overall, flags that hold together.

    Args:
        pairs: language -> the answers of both sides to the same queries in the same order.
        repeats: resamples.
        seed: of the resamples, in which a query and its translations are drawn together, the same for both sides.
        tell: called for every language before it is resampled.
    """
    values = {code: tuple(figures(answers) for answers in pair) for code, pair in pairs.items()}
    drawn = {}
    for code, pair in pairs.items():
        tell(code)
        drawn[code] = paired(pair, in_turn(shared_draws(pair[0].ids, repeats, seed=seed)), repeats)
    rows = {}
    for code, (one, other) in values.items():
        gaps = {k: subtract(other[k], one[k]) for k in one}
        rows[code] = {"n": len(pairs[code][0].correct), **spread(one, other, gaps, drawn[code])}
    for key in MEASURES:
        flag(rows, key)
    groups: dict[str, list[str]] = {}
    for code in rows:
        groups.setdefault(resource_of(code), []).append(code)
    return {
        "languages": rows,
        "by_resource": {g: mean(members, values, drawn, rows) for g, members in sorted(groups.items())},
        "overall": mean(list(rows), values, drawn, rows),
    }


def subtract(after: float | None, before: float | None) -> float | None:
    """Return after - before; None where either is."""
    return None if after is None or before is None else after - before


def figures(answers: Answers) -> dict[str, float | None]:
    """Return the measures of one side; AUROC is None with one class only."""
    out: dict[str, float | None] = {"accuracy": float(answers.correct.mean())}
    if answers.confidence is not None:
        sample = Sample.of(answers.confidence, answers.correct, bins=15)
        out |= {k: v for k, v in resampling.undefined_to_none(sample.point()) if k in MEASURES}
    return out


def paired(pair: tuple[Answers, Answers], draw: Draw, repeats: int) -> dict[str, Floats]:
    """Return the differences of `repeats` resamples, each of the same queries on both sides: measure -> (repeats,)."""
    n = len(pair[0].correct)
    samples = [None if x.confidence is None else Sample.of(x.confidence, x.correct, bins=15) for x in pair]

    def block(rows: int) -> dict[str, Floats]:
        counts = draw(rows)
        out = {"accuracy": counts @ (pair[1].correct - pair[0].correct) / n}
        if samples[0] is not None and samples[1] is not None:
            one, other = (s.resampled(counts[:, s.order]) for s in samples if s is not None)
            out |= {k: other[k] - one[k] for k in MEASURES if k in one}
        return out

    size = max(1, resampling.BLOCK // n)
    parts = [block(min(size, repeats - start)) for start in range(0, repeats, size)]
    return {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}


def spread(
    one: Mapping[str, float | None],
    other: Mapping[str, float | None],
    gaps: Mapping[str, float | None],
    drawn: Mapping[str, Floats],
) -> dict[str, Any]:
    """Return the values of both sides, differences, their intervals and p-values."""
    return {
        "a": dict(one),
        "b": dict(other),
        "difference": dict(gaps),
        "ci": {k: resampling.interval(v, drawn[k], low=-np.inf, high=np.inf) for k, v in gaps.items()},
        "p": {k: p_value(v, drawn[k]) for k, v in gaps.items()},
    }


def p_value(value: float | None, drawn: Floats) -> float | None:
    """Return the two-sided p-value of "no difference".

    It is how far the value is from 0 in bootstrap standard errors, as a normal.

    Counting resamples instead would not go below 1 / (repeats + 1), which the correction for 100 languages needs.
    """
    kept = drawn[np.isfinite(drawn)]
    if value is None or len(kept) < max(2, len(drawn) // 2):
        return None
    deviation = float(kept.std(ddof=1))
    if deviation < 1e-12:  # every resample has the same difference: either none, or one without any doubt
        return 1.0 if abs(value) < 1e-12 else 0.0
    return float(2 * ndtr(-abs(value) / deviation))


def holm(p_values: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Return which of several differences hold together at a level of false alarms (Holm 1979, section 3).

    >>> holm([0.01, 0.04, 0.03, 0.005])
    [True, False, False, True]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    flags = [False] * len(p_values)
    for rank, i in enumerate(order):
        if p_values[i] > level / (len(p_values) - rank):
            break
        flags[i] = True
    return flags


def flag(rows: Mapping[str, dict[str, Any]], key: str) -> None:
    """Add to every language whether its difference in one measure is beyond chance, all languages considered."""
    having = [code for code, row in rows.items() if row["p"].get(key) is not None]
    for code, beyond in zip(having, holm([rows[c]["p"][key] for c in having]), strict=True):
        rows[code].setdefault("beyond_chance", {})[key] = beyond


def mean(
    members: Sequence[str],
    values: Mapping[str, tuple[dict[str, float | None], ...]],
    drawn: Mapping[str, Mapping[str, Floats]],
    rows: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Mean over languages, each with the same weight; a measure is averaged over those where both sides have it."""
    one: dict[str, float | None] = {}
    other: dict[str, float | None] = {}
    gaps: dict[str, float | None] = {}
    spreads: dict[str, Floats] = {}
    for key in values[members[0]][0]:
        having = [m for m in members if rows[m]["difference"].get(key) is not None]
        for side, to in enumerate((one, other)):
            found = [v for m in having if (v := values[m][side][key]) is not None]
            to[key] = float(np.mean(found)) if found else None
        gaps[key] = float(np.mean([rows[m]["difference"][key] for m in having])) if having else None
        spreads[key] = np.mean([drawn[m][key] for m in having], axis=0) if having else np.empty(0)
    n = sum(rows[m]["n"] for m in members)
    return {"n": n, "n_languages": len(members), **spread(one, other, gaps, spreads)}
