"""What `xt eval` prints on stderr of each kind of result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xt.cli.console import say, stderr, table
from xt.core.results.gaps import Gaps, gaps_of
from xt.core.results.tasks import Extracted, Layers, Mining, PairProbability, Summary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xt.core.results.calibration import Calibration, Measures
    from xt.core.results.comparison import Comparison
    from xt.core.results.folder import ReportFolder
    from xt.core.results.report import Classification, Encoder, Ranked, Report


def show_report(folder: ReportFolder) -> None:
    """Print what a report says, and where its page is."""
    report = folder.report
    if report.summary:
        show_summary(report)
        return
    if report.comparison is not None:
        show_comparison(report.comparison, folder.path)
        return
    if report.classification is not None:
        show_classes(report.classification)
        if report.calibration:
            show_calibration(str(report.encoders[0].name), report.calibration)
    elif report.ranked is not None:
        show_ranked(report.ranked)
        show_calibration(str(report.encoders[0].name), report.encoders[0].calibration)
    elif report.mining:
        show_mining(report.mining)
    else:
        show_metrics(report.encoders)
        if report.layers is not None:
            show_layers(report.layers)
    say(f"report: {folder.path / 'report.html'}")


def show_classes(section: Classification) -> None:
    """Print the scores of each language and their means on stderr."""
    names = [name for name in section.mean if name not in ("confidence",)]
    table(
        f"{section.task}, answered by the head {section.head}",
        ["language", "n", *names],
        [[code, row.n, *map(row.score, names)] for code, row in section.languages.items()],
    )
    say(f"mean {section.metric}: {_groups(section.mean[str(section.metric)])}")
    if section.images:
        chance = ", ".join(f"{k} {v:.3f}" for k, v in section.chance.items())
        say(f"{section.images} images; by chance: {chance}")


def show_layers(data: Layers) -> None:
    """Print the mean accuracy of each layer on stderr, and the layer chosen on held-out languages."""
    ways = {way: data.by_number(way) for way in data.directions}
    table(
        "mean accuracy by layer (*: its own)",
        ["layer", *ways],
        [
            [f"{n}{' *' if n == data.own else ''}", *(f"{100 * ways[w][n].mean['all']:.1f}" for w in ways)]
            for n in next(iter(ways.values()))
        ],
    )
    if best := data.best:
        scores = ", ".join(f"{way} {100 * value:.1f}" for way, value in best.accuracy.items())
        say(f"layer {best.layer}, chosen on {', '.join(best.chosen_on)}; on the other languages: {scores}")


def show_metrics(encoders: list[Encoder], languages: bool = True) -> None:
    """Print accuracy and calibration on stderr."""
    for m in encoders:
        name = str(m.name)
        if languages and len(m.retrieval["foreign-english"].languages) <= 120:
            show_accuracies(m)
        for direction, way in m.retrieval.items():
            say(f"{name}, {direction}: accuracy {_percents(way.mean)}")
            if way.by_text:
                say(f"  by text: {_percents(way.by_text)}")
            if way.pool_mean:
                missing = f"; without {', '.join(way.pool_missing)}" if way.pool_missing else ""
                say(f"  among {way.pool} candidates: {_percents(way.pool_mean)}{missing}")
        show_calibration(name, m.calibration)
        show_trust(m)
        for note in m.notes:
            say(note)


def show_accuracies(m: Encoder) -> None:
    """Print the accuracies of each language, in both directions and by each convention."""
    ways = m.retrieval
    pool = ways["foreign-english"].pool
    rows = []
    repeated = any(row.copies for way in ways.values() for row in way.languages.values())
    for code, row in ways["foreign-english"].languages.items():
        both = [row, ways["english-foreign"].languages[code]]
        cells = [_percent(r.accuracy) for r in both] + [_percent(row.f1)]
        cells += [_percent(r.accuracy_pool) for r in both] if pool else []
        cells += [_percent(r.accuracy_by_text) for r in both] if repeated else []
        rows.append([code, row.n, *cells])
    head = ["language", "n", "foreign-english", "english-foreign", "F1 foreign-english"]
    head += [f"f-e, pool {pool}", f"e-f, pool {pool}"] if pool else []
    head += ["f-e by text", "e-f by text"] if repeated else []
    title = f"accuracy in percent, {m.name} (XTREME: english-foreign; MTEB: foreign-english and its weighted F1)"
    table(title, head, rows)


def show_calibration(name: str, sections: dict[str, Calibration]) -> None:
    """Print the measures of every method on stderr, means over languages; `sections`: direction or task -> methods."""
    rows = []
    for direction, section in sections.items():
        for key, x in section.methods.items():
            mean, gaps = x.overall, gaps_of(x.languages)
            cells = [gaps.mean, _signed(gaps.worst), _outside(gaps), mean.ece, gaps.excess]
            cells += [gaps.worst_excess and gaps.worst_excess[0], mean.slope, mean.nll, mean.brier, mean.auroc]
            cells += [None if x.temperature is None else f"{x.temperature:.5f}"]
            rows.append([f"{direction} {key}", *cells])
    table(
        f"calibration, {name} (means over languages; gap: |mean confidence - accuracy|, beside it the worst, with its "
        "sign, and in how many languages its interval leaves out 0; excess: ECE less that of a perfectly calibrated "
        "model, at least 0 in a mean)",
        ["method", "gap", "worst", "out", "ECE", "excess", "worst", "slope", "NLL", "Brier", "AUROC", "T"],
        [[_dash(cell) for cell in row] for row in rows],
    )
    for direction, section in sections.items():
        for note in section.notes:
            say(f"{direction}: {note}")


def show_trust(m: Encoder) -> None:
    """Print what refusing, conformal sets and few labelled queries give, and where the time went, on stderr."""
    for direction, way in m.calibration.items():
        for k, arms in way.shots.items():
            words = [
                f"{arm} gap {_short(row.mean_gap)} (worst {_short(row.worst_gap)}), "
                f"excess {row.ece_excess:.4f} (worst {row.worst_ece_excess:.3f})"
                for arm, row in arms.items()
                if row.languages
            ]
            say(f"{direction}, {k} labelled queries a language: {'; '.join(words) or 'no language has as many'}")
    for direction, missing in m.none_of_these.items():
        for key, method in missing.methods.items():
            found = method.overall
            right = _gap("P(right)", {code: row.answer for code, row in method.languages.items()})
            none = _gap("P(none)", {code: row.none for code, row in method.languages.items()})
            say(
                f"{direction}, half of the answers not in the index ({key}): {right}{none}AUROC {_short(found.auroc)}; "
                f"refusing at a risk of {missing.risk:g} answers {found.coverage:.2f} of the queries, "
                f"{_short(found.risk_found)} wrongly"
            )
    for direction, sets in m.conformal.items():
        for scope, each in sets.scopes.items():
            row = each.overall
            say(
                f"{direction}, sets that promise {1 - (sets.alpha or 0):.0%} ({scope}): coverage {row.coverage:.3f}, "
                f"{row.mean_size:.1f} candidates"
            )
    if m.seconds:
        kept = f" ({m.kept_vectors} vectors were kept from before)" if m.kept_vectors else ""
        say("seconds: " + ", ".join(f"{what} {value:.1f}" for what, value in m.seconds.items()) + kept)


def show_mining(section: Mining) -> None:
    """Print what was mined in each language, what is promised of it, and the means."""
    names = ["precision", "recall", "F1", "guaranteed", "recall ", "wrong found", "ECE", "null"]
    rows = []
    for code, row in section.languages.items():
        sure, chance = row.guarantee or Extracted(), row.probability or PairProbability()
        extra = [sure.precision, sure.recall, row.fdr and row.fdr.false_share, chance.ece, chance.ece_null]
        rows.append([code, row.n, row.precision, row.recall, row.f1, *map(_dash, extra)])
    title = f"mining by the {section.margin} margin; thresholds from dev, figures of test (guaranteed: precision "
    title += "at a threshold certified on dev; wrong found: among conformal discoveries)"
    table(title, ["language", "gold", *names], rows)
    for code, row in section.languages.items():
        for note in row.notes:
            say(f"{code}: {note}")
    for note in section.notes:
        say(note)
    say(f"mean F1: {_groups(section.mean.get('f1', {})) or 'no language was mined'}")


def show_ranked(section: Ranked) -> None:
    """Print each measure by the language of the queries, and the means."""
    names = section.measures
    rows = []
    for code, row in section.languages.items():
        bounds = {n: row.interval(n) for n in names}
        cells = [f"{row.score(n):.3f}" + (" [{:.3f}, {:.3f}]".format(*bounds[n]) if bounds[n] else "") for n in names]
        rows.append([code, row.n, *cells, row.score("accuracy")])
    title = f"ranking of {section.documents:,} documents (a query for which nothing is found counts 0)"
    table(title, ["language", "n", *names, "accuracy"], rows)
    for note in section.notes:
        say(note)
    if cut := sum(section.truncated):
        say(f"{cut} texts were longer than the encoder reads, and cut")
    say(f"mean {section.metric}: {_groups(section.mean[str(section.metric)])}")


def show_summary(report: Report) -> None:
    """Print a benchmark's table and what is missing from it."""
    section = report.summary or Summary()
    rows = [
        [name, t.group, _percent(t.score), _percent(t.partial), f"{len(t.languages)}/{t.expected}"]
        for name, t in section.tasks.items()
    ]
    table(f"{section.benchmark}", ["task", "group", "score", "of what is there", "languages"], rows)
    for name, group in section.groups.items():
        say(f"{name}: {_percent(group.score)}")
    say(f"overall: {_percent(section.overall.score)}")
    for note in report.notes:
        say(note)


def show_comparison(data: Comparison, out: Any) -> None:
    """Print the differences on stderr, and where the page is."""
    keys = ("accuracy", "ece", "brier", "auroc")
    for way, part in data.directions.items():
        rows = []
        for code, r in [*part.languages.items(), ("mean", part.overall)]:
            cells = []
            for k in keys:
                gap, star = r.difference.get(k), "*" if r.beyond_chance.get(k) else ""
                cells.append("-" if gap is None else f"{gap:+.3f}{star}")
            rows.append([code, r.n, *cells])
        title = f"{data.names[1]} less {data.names[0]} {way} (*: beyond chance, Holm)"
        table(title, ["language", "n", *keys], rows)
    stderr.print(f"comparison: {out / 'report.html'}", markup=False, soft_wrap=True)


def _signed(worst: tuple[float, str] | None) -> str | None:
    return None if worst is None else f"{worst[0]:+.3f} {worst[1]}"


def _gap(what: str, rows: Mapping[str, Measures]) -> str:
    """Return the gap of a probability in words; empty of reports that do not have it."""
    gaps = gaps_of(rows)
    return f"{what} off by {_short(gaps.mean)} (worst {_signed(gaps.worst)}), " if gaps.worst else ""


def _outside(gaps: Gaps) -> str | None:
    return None if gaps.outside is None else f"{gaps.outside}/{gaps.known}"


def _dash(value: Any) -> Any:
    return "-" if value is None else value


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _percents(means: dict[str, float]) -> str:
    return ", ".join(f"{group} {100 * value:.1f}" for group, value in means.items())


def _groups(means: dict[str, float]) -> str:
    return ", ".join(f"{group} {value:.3f}" for group, value in means.items())
