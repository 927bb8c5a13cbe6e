"""How a report's document is kept on disk: tables of languages by column, numbers to seven digits, curves apart.

Schema 1, until October 2026, was the document as it is: 35 MB where 64 languages were measured under eleven methods.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from xt.core import __version__
from xt.core.errors import XtError

SCHEMA = 2
"""Of metrics.json."""
DIGITS = 7
"""Significant digits of a number: no figure moves by more than 5e-7 of itself."""
TABLE = "languages"
"""The key of the objects that are kept by column: language -> figures, the same for most of them."""
CURVES = ("reliability", "risk_coverage")
"""Keys of a calibration method, and of each of its languages, that curves.parquet keeps."""
BIN = ("low", "high", "confidence", "accuracy", "count")
"""Figures of a bin of a reliability diagram, each a column; `consistency` is a pair, and makes two."""


def pack(document: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Return the text of metrics.json, a line for each key, and the rows of curves.parquet."""
    curves: list[dict[str, Any]] = []
    thin = _without_curves(document, curves)
    body = {"schema": SCHEMA, **{k: _pack(v, k) for k, v in thin.items() if k != "schema"}}
    lines = [f"{_dumps(key)}: {_dumps(value)}" for key, value in body.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n", curves


def unpack(stored: Any, where: str) -> dict[str, Any]:
    """Return the document of a metrics.json that was read, of this schema or the one before; without its curves.

    Raises XtError for what is no report, or of a schema that is not known.
    """
    if not isinstance(stored, dict):
        raise XtError(f"{where} holds a JSON {type(stored).__name__}, no object.", "Make the report again.")
    schema = stored.get("schema", 1)
    if schema not in (1, SCHEMA):
        raise XtError(
            f"{where} has schema {schema}; this xt ({__version__}) reads 1 and {SCHEMA}.",
            "Read it with the version of xt that wrote it, or make the report again.",
        )
    if schema == 1:
        return dict(stored)
    return {"schema": 1, **{k: _unpack(v, k) for k, v in stored.items() if k != "schema"}}


def put_curves(document: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Put the rows of curves.parquet back to where they were taken from."""
    found = {(r["encoder"], r["subject"], r["method"], r["language"]): r for r in rows}
    for (encoder, subject, method), holder in _methods(document):
        languages = holder.get(TABLE)
        places = [(None, holder), *(languages.items() if isinstance(languages, Mapping) else ())]
        for language, place in places:
            row = found.get((encoder, subject, method, language))
            if row is not None and isinstance(place, MutableMapping):
                place.update(_curves_of(row))


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str, separators=(",", ":"))


# -- columns and digits ------------------------------------------------------------------------------------------------


def _pack(value: Any, key: str = "") -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        if key == TABLE and value and all(isinstance(row, Mapping) for row in value.values()):
            return {"rows": list(value), **_columns(list(value.values()), list(value))}
        return {k: _pack(v, k) for k, v in value.items()}
    return [_pack(v) for v in value] if isinstance(value, list | tuple) else value


def _columns(rows: list[Mapping[str, Any]], names: list[str]) -> dict[str, Any]:
    """Keep rows by column: what all have; and under `rest`, by row, what some have."""
    common = [key for key in rows[0] if all(key in row for row in rows)]
    columns = {key: _column([row[key] for row in rows], names) for key in common}
    rest = {
        name: {k: _pack(v, k) for k, v in row.items() if k not in columns}
        for name, row in zip(names, rows, strict=True)
    }
    left = {name: some for name, some in rest.items() if some}
    return {"columns": columns, **({"rest": left} if left else {})}


def _column(values: list[Any], names: list[str]) -> Any:
    if all(isinstance(v, Mapping) and v for v in values):
        return _columns(values, names)
    return [_pack(v) for v in values]


def _unpack(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        if key == TABLE and isinstance(value.get("rows"), list) and "columns" in value:
            names = [str(name) for name in value["rows"]]
            return dict(zip(names, _rows(value, names), strict=True))
        return {k: _unpack(v, k) for k, v in value.items()}
    return [_unpack(v) for v in value] if isinstance(value, list) else value


def _rows(table: Mapping[str, Any], names: list[str]) -> list[dict[str, Any]]:
    columns = {
        key: _rows(values, names) if isinstance(values, dict) else [_unpack(v) for v in values]
        for key, values in table["columns"].items()
    }
    rest = table.get("rest", {})
    return [
        {**{key: values[i] for key, values in columns.items()}, **_unpack(rest.get(name, {}))}
        for i, name in enumerate(names)
    ]


# -- curves ------------------------------------------------------------------------------------------------------------


def _methods(document: Mapping[str, Any]) -> Iterator[tuple[tuple[str | None, str, str], Any]]:
    """Return every calibration method: encoder (None: a head), direction or task, name, and what it holds."""
    encoders = document.get("encoders")
    holders = [(str(e.get("name")), e) for e in encoders or () if isinstance(e, Mapping)]
    for encoder, holder in [*holders, (None, document)]:
        sections = holder.get("calibration")
        for subject, section in sections.items() if isinstance(sections, Mapping) else ():
            methods = section.get("methods") if isinstance(section, Mapping) else None
            for name, method in methods.items() if isinstance(methods, Mapping) else ():
                if isinstance(method, Mapping):
                    yield (encoder, subject, name), method


def _without_curves(document: Mapping[str, Any], curves: list[dict[str, Any]]) -> dict[str, Any]:
    """Copy a document without its curves, which are added to `curves`."""
    holders: set[int] = set()
    for (encoder, subject, method), holder in _methods(document):
        languages = holder.get(TABLE)
        places = [(None, holder), *(languages.items() if isinstance(languages, Mapping) else ())]
        for language, place in places:
            if isinstance(place, Mapping) and any(key in place for key in CURVES):
                holders.add(id(place))
                names = {"encoder": encoder, "subject": subject, "method": method, "language": language}
                curves.append({**names, **_curve_row(place)})

    def copy(value: Any) -> Any:
        if isinstance(value, Mapping):
            skipped = CURVES if id(value) in holders else ()
            return {k: copy(v) for k, v in value.items() if k not in skipped}
        return value

    return {k: [copy(e) for e in v] if k == "encoders" else copy(v) for k, v in document.items()}


def _curve_row(place: Mapping[str, Any]) -> dict[str, Any]:
    """Return the curves of one method or language as lists of numbers."""
    row: dict[str, Any] = {}
    if "reliability" in place:
        bins = place["reliability"] or []
        row |= {key: [b.get(key) for b in bins] for key in BIN}
        within = [b.get("consistency") or (None, None) for b in bins]
        row |= {"within_low": [w[0] for w in within], "within_high": [w[1] for w in within]}
    if "risk_coverage" in place:
        points = place["risk_coverage"] or []
        row |= {"coverage": [p[0] for p in points], "risk": [p[1] for p in points]}
    return row


def _curves_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the curves of one row of curves.parquet."""
    out: dict[str, Any] = {}
    if row.get("count") is not None:
        bins = [{key: _pack(row[key][i]) for key in BIN} for i in range(len(row["count"]))]
        for one, low, high in zip(bins, row["within_low"], row["within_high"], strict=True):
            if low is not None:
                one["consistency"] = [_pack(low), _pack(high)]
        out["reliability"] = bins
    if row.get("coverage") is not None:
        out["risk_coverage"] = [[_pack(c), _pack(r)] for c, r in zip(row["coverage"], row["risk"], strict=True)]
    return out
