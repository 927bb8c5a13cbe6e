"""The language table covers the data sets, and codes are found, chosen and refused as documented."""

import json
import os
from dataclasses import fields
from pathlib import Path

import pytest

from xt.core import languages
from xt.core.errors import XtError
from xt.core.languages import (
    ALIASES,
    LANGUAGES,
    PRESETS,
    XTREME_R_TATOEBA,
    XTREME_TATOEBA,
    Language,
    resolve,
    resource_of,
    select,
)

DATA = Path(os.environ.get("XT_DATA") or Path(__file__).resolve().parents[2].parent / "shared" / "data")

DJANGO = [
    "af",
    "ar",
    "ar_DZ",
    "ast",
    "az",
    "be",
    "bg",
    "bn",
    "br",
    "bs",
    "ca",
    "ckb",
    "cs",
    "cy",
    "da",
    "de",
    "dsb",
    "el",
    "en",
    "eo",
    "es",
    "et",
    "eu",
    "fa",
    "fi",
    "fr",
    "fy",
    "ga",
    "gd",
    "gl",
    "he",
    "hi",
    "hr",
    "hsb",
    "hu",
    "hy",
    "ia",
    "id",
    "ig",
    "io",
    "is",
    "it",
    "ja",
    "ka",
    "kab",
    "kk",
    "km",
    "kn",
    "ko",
    "ky",
    "lb",
    "lt",
    "lv",
    "mk",
    "ml",
    "mn",
    "mr",
    "ms",
    "my",
    "nb",
    "ne",
    "nl",
    "nn",
    "os",
    "pa",
    "pl",
    "pt",
    "pt_BR",
    "ro",
    "ru",
    "sk",
    "sl",
    "sq",
    "sr",
    "sr_Latn",
    "sv",
    "sw",
    "ta",
    "te",
    "tg",
    "th",
    "tk",
    "tr",
    "tt",
    "udm",
    "ug",
    "uk",
    "ur",
    "uz",
    "vi",
    "zh_Hans",
    "zh_Hant",
]  # conf/locale of Django 5.2; regional en_ and es_ left out
XTREME = [
    "af",
    "ar",
    "bg",
    "bn",
    "de",
    "el",
    "en",
    "es",
    "et",
    "eu",
    "fa",
    "fi",
    "fr",
    "he",
    "hi",
    "hu",
    "id",
    "it",
    "ja",
    "jv",
    "ka",
    "kk",
    "ko",
    "ml",
    "mr",
    "ms",
    "my",
    "nl",
    "pt",
    "ru",
    "sw",
    "ta",
    "te",
    "th",
    "tl",
    "tr",
    "ur",
    "vi",
    "yo",
    "zh",
]  # Hu et al. 2020
XTREME_R = [*XTREME, *["az", "gu", "ht", "lt", "pa", "pl", "qu", "ro", "uk", "wo"]]


def names_in(folder: str, pattern: str = "*") -> list[str]:
    """Names under a folder of the real data; skips the test where it is not there."""
    if not (DATA / folder).is_dir():
        pytest.skip(f"real data not found: {DATA / folder} (set XT_DATA)")
    return sorted(path.name for path in (DATA / folder).glob(pattern))


def message(code: str) -> str:
    """What resolve() says about a code it does not know."""
    with pytest.raises(XtError) as error:
        resolve(code)
    return str(error.value)


def test_every_tatoeba_code_is_a_key() -> None:
    codes = [name.rsplit(".", 1)[1] for name in names_in("tatoeba", "tatoeba.*-eng.*")]
    assert len(set(codes)) == 113  # 112 languages and English
    assert {resolve(code).iso3 for code in codes} == set(codes)


def test_every_sib_folder_resolves_to_its_language_and_script() -> None:
    names = [name.split(".")[0] for name in names_in("sib200")]
    assert len(names) >= 53
    rows = {name: resolve(name) for name in names}
    assert len({row.iso3 for row in rows.values()}) == len(names)
    assert {name: row.script for name, row in rows.items()} == {name: name.split("_")[1] for name in names}


@pytest.mark.parametrize(("folder", "count"), [("xcopa", 11), ("masakhaner", 4), ("xquad", 12), ("udpos", 6)])
def test_every_other_data_set_resolves(folder: str, count: int) -> None:
    at = {"xquad": lambda name: name.split(".")[1], "udpos": lambda name: name.split("_")[0]}.get(folder, str)
    assert len({resolve(at(name)).iso3 for name in names_in(folder)}) == count


def test_every_django_locale_and_xtreme_language_resolves() -> None:
    assert len(DJANGO) == 92
    by_three = {code for code in DJANGO if resolve(code).iso1 != code.split("_")[0]}
    assert by_three == {"ast", "ckb", "dsb", "hsb", "kab", "udm"}
    assert len(XTREME) == 40
    assert len(XTREME_R) == 50
    assert [resolve(code).iso1 for code in XTREME_R] == XTREME_R


def table() -> dict:
    return json.loads(Path(languages.__file__).with_name("languages.json").read_text(encoding="utf-8"))


def test_rows_are_well_formed_and_codes_unambiguous() -> None:
    for iso3, row in LANGUAGES.items():
        assert row.iso3 == iso3
        assert len(iso3) == 3
        assert row.iso1 is None or len(row.iso1) == 2
        assert len(row.script) == 4
        assert row.script == row.script.title()
        assert row.joshi is None or 0 <= row.joshi <= 5
        assert resolve(iso3) is row
    assert list(LANGUAGES) == sorted(LANGUAGES)
    assert not set(ALIASES) & set(LANGUAGES)
    assert set(ALIASES.values()) <= set(LANGUAGES)
    two = [row.iso1 for row in LANGUAGES.values() if row.iso1]
    assert len(two) == len(set(two))
    assert not set(two) & set(table()["other_codes"])
    assert len({row.name for row in LANGUAGES.values()}) == len(LANGUAGES)


def test_no_row_is_lost_to_a_repeated_key() -> None:
    assert len(table()["languages"]) == len(LANGUAGES)
    assert set(table()["columns"]) == {f.name for f in fields(Language)}


def test_xtreme_counts_and_classes() -> None:
    assert len(set(XTREME_TATOEBA)) == len(XTREME_TATOEBA) == 36
    assert len(set(XTREME_R_TATOEBA)) == len(XTREME_R_TATOEBA) == 41
    assert set(XTREME_R_TATOEBA) - set(XTREME_TATOEBA) == {"aze", "lit", "pol", "ron", "ukr"}
    by_class = {level: {c for c in XTREME_TATOEBA if LANGUAGES[c].joshi == level} for level in range(6)}
    assert by_class[0] == set()
    assert by_class[1] == {"jav", "mal", "tel"}
    assert by_class[2] == {"mar", "swh"}
    assert [len(by_class[level]) for level in (3, 4, 5)] == [13, 12, 6]
    assert by_class[5] == {"ara", "cmn", "deu", "fra", "jpn", "spa"}


@pytest.mark.parametrize(
    ("code", "iso3"),
    [
        ("eng", "eng"), ("en", "eng"), ("en_GB", "eng"), ("EN-us", "eng"), ("pt_BR", "por"), ("es-419", "spa"),
        ("ar_DZ", "ara"), ("zh-Hans", "cmn"), ("zh_Hant", "cmn"), ("zh-Hans-CN", "cmn"), ("zho_Hans", "cmn"),
        ("zho", "cmn"), ("sr_Latn", "srp"), ("swh_Latn", "swh"), ("swa", "swh"), ("sw", "swh"), ("arb_Arab", "ara"),
        ("fas", "pes"), ("fa", "pes"), ("msa", "zsm"), ("ms", "zsm"), ("ekk", "est"), ("lav", "lvs"), ("lv", "lvs"),
        ("nor", "nob"), ("no", "nob"), ("nb", "nob"), ("nn", "nno"), ("ory", "ori"), ("azj_Latn", "aze"),
        ("npi", "nep"), ("quy_Latn", "que"), ("ayr_Latn", "aym"), ("als", "sqi"), ("iw", "heb"), ("ger", "deu"),
        ("fil", "tgl"), ("kmr", "kur"), ("ckb", "ckb"), ("arz", "arz"), ("arq", "arq"), (" swh ", "swh"),
    ],
)  # fmt: skip
def test_resolve_by_hand(code: str, iso3: str) -> None:
    assert resolve(code).iso3 == iso3


def test_resource_follows_the_class() -> None:
    expected = {"nqo": "low", "jav": "low", "swh": "low", "est": "mid", "fin": "high", "fra": "high", "tzl": "unknown"}
    assert {code: LANGUAGES[code].resource for code in expected} == expected


def test_errors_name_the_near_match() -> None:
    assert "swe (Swedish)" in message("swee")
    assert "swh (Swahili)" in message("swahilli")
    assert message("sqw").count("Swahili") == 1  # sw and swh are both near
    assert "sqi (Albanian)" in message("sqi_Lat")
    assert "'qqq'" in message("qqq")
    assert "''" in message("")


def test_presets_keep_the_order_and_spelling_of_available() -> None:
    available = ["wol_Latn", "deu_Latn", "est_Latn", "swh_Latn", "zho_Hans", "pol_Latn", "tzl", "x-unknown"]
    assert select("all", available) == available
    assert select("low-resource", available) == ["wol_Latn", "swh_Latn"]
    assert select("mid-resource", available) == ["est_Latn"]
    assert select("high-resource", available) == ["deu_Latn", "zho_Hans", "pol_Latn"]
    assert select("xtreme", available) == ["deu_Latn", "est_Latn", "swh_Latn", "zho_Hans"]
    assert select(" XTREME-R ", available) == ["deu_Latn", "est_Latn", "swh_Latn", "zho_Hans", "pol_Latn"]
    assert select("low-resource", XTREME_TATOEBA) == ["jav", "mal", "mar", "swh", "tel"]
    assert set(PRESETS) == {"all", "low-resource", "mid-resource", "high-resource", "xtreme", "xtreme-r"}


def test_lists_keep_their_own_order_and_find_other_spellings() -> None:
    assert select("sw, zh,deu,sw", ["deu_Latn", "swh_Latn", "zho_Hans"]) == ["swh_Latn", "zho_Hans", "deu_Latn"]
    assert select("pt", ["pt_BR", "pt"]) == ["pt"]
    assert select("zh", ["zh_Hant", "en", "zh_Hans"]) == ["zh_Hant", "zh_Hans"]
    assert select("zho-hant", ["zh_Hans", "zh_Hant"]) == ["zh_Hant"]
    assert select("swa_Latn", (code for code in ["est", "swh"])) == ["swh"]


@pytest.mark.parametrize(
    ("expression", "available", "said"),
    [
        ("swh,yor", ["swh", "xho", "yori"], "yori"),  # known, not available: the near spelling is
        ("zho_Hant", ["zho_Hans", "eng"], "zho_Hans"),
        ("swhh", ["swh", "eng"], "swh"),
        ("low-resorce", ["swh"], "low-resource"),
        ("xtreme,swh", ["swh"], "alone"),
        ("xtreme", ["wol", "eng"], "xtreme"),
        ("low-resource", ["eng"], "low-resource"),
        ("all", [], "all"),
        (" , ", ["eng"], "low-resource"),
    ],
)
def test_selecting_nothing_is_an_error_that_helps(expression: str, available: list[str], said: str) -> None:
    with pytest.raises(XtError) as error:
        select(expression, available)
    assert said in f"{error.value} {getattr(error.value, 'hint', '')}"


def test_resource_classes_are_those_of_the_table():
    codes = ("swh", "est", "deu", "swg", "mylang")
    assert [resource_of(c) for c in codes] == ["low", "mid", "high", "unknown", "unknown"]
