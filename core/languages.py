"""The languages xt evaluates on (languages.json), and how to name and choose them.

Keys are LASER's Tatoeba codes where LASER has the language (`cmn`, `pes`, `swh`, also `ara`, `est`, `lvs`, `zsm`), else
the ISO 639-3 code that goes with the two-letter one (`nep`, `que`); `ALIASES` leads other codes there. The rows cover
Tatoeba, the 53 SIB-200 languages used here, MasakhaNER, XTREME, XTREME-R and Django 5.2's locales.

Where the columns come from:

- iso3, iso1, name: ISO 639-3. `kzj` was merged into `dtp` in 2016; LASER still has both.
- script: ISO 15924, the usual one. Tatoeba itself mixes scripts for srp (mostly Latn), uzb and lfn.
- joshi: classes of Joshi et al. 2020, "The State and Fate of Linguistic Diversity", published by language name
  (microsoft.github.io/linguisticdiversity/assets/lang2tax.txt). Two lists give those names codes:
  hamid-amir/data_lang2vec `data/lang2tax.txt.codes`, used here, and MaLA-LM/LangResourceAtlas `Joshi-et-al`, used for
  ang, ber, ckb and pan, which the first lacks. Where the taxonomy has one language under two names the higher class
  stands (war "waray", gsw "alemannic", kur "kurdish (kurmanji)"). `dtp` and `kzj` share "kadazan". None: the taxonomy
  does not name the language.
- family: the usual classification, by general knowledge, under the family names of XTREME's README where it has one.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from xt.core.errors import XtError


@dataclass(frozen=True)
class Language:
    """One language: codes, writing, family and how much data there is for it."""

    iso3: str
    """Three-letter code, the key in `LANGUAGES`."""
    iso1: str | None
    """Two-letter ISO 639-1 code, None where there is none."""
    name: str
    script: str
    """ISO 15924 code of the usual script, such as Latn."""
    family: str
    """Family, with the branch for Indo-European ("IE Germanic")."""
    joshi: int | None
    """Class 0 (least data) to 5 (most) of Joshi et al. 2020, None where not known."""

    @property
    def resource(self) -> str:
        """Amount of data in a word: "low" (class 0-2), "mid" (3), "high" (4-5), "unknown" (None).

        >>> LANGUAGES["swh"].resource, LANGUAGES["est"].resource, LANGUAGES["deu"].resource, LANGUAGES["swg"].resource
        ('low', 'mid', 'high', 'unknown')
        """
        return "unknown" if self.joshi is None else ("low", "low", "low", "mid", "high", "high")[self.joshi]


_TABLE = json.loads(Path(__file__).with_name("languages.json").read_text(encoding="utf-8"))

LANGUAGES: dict[str, Language] = {row[0]: Language(*row) for row in _TABLE["languages"]}
"""Every language of the table, by its three-letter code."""

ALIASES: dict[str, str] = {row.iso1: row.iso3 for row in LANGUAGES.values() if row.iso1} | _TABLE["other_codes"]
"""Every other code, in lower case, and the key of `LANGUAGES` it stands for: of macro-languages and their main members
whichever is not the key, two-letter codes since replaced, and the other three-letter codes of ISO 639-2/B."""

XTREME_TATOEBA: tuple[str, ...] = tuple(_TABLE["xtreme"])
"""The 36 languages of XTREME's Tatoeba task (Hu et al. 2020)."""

XTREME_R_TATOEBA: tuple[str, ...] = tuple(sorted((*XTREME_TATOEBA, "aze", "lit", "pol", "ron", "ukr")))
"""The 41 languages of XTREME-R's Tatoeba task (Ruder et al. 2021)."""

PRESETS: dict[str, tuple[str, ...]] = {
    "all": tuple(LANGUAGES),
    **{
        f"{level}-resource": tuple(row.iso3 for row in LANGUAGES.values() if row.resource == level)
        for level in ("low", "mid", "high")
    },
    "xtreme": XTREME_TATOEBA,
    "xtreme-r": XTREME_R_TATOEBA,
}
"""What `select` knows by name. "all" there is everything available, also a code that this table lacks."""


def _subtags(code: str) -> list[str]:
    """Return the parts of a code in lower case: "zh-Hans_CN" -> ["zh", "hans", "cn"]."""
    return code.strip().lower().replace("-", "_").split("_")


def _is_script_or_region(tag: str) -> bool:
    """Return whether a subtag has the form of a script (four letters) or a region (two letters or three digits)."""
    return tag.isascii() and ((tag.isalpha() and len(tag) in (2, 4)) or (tag.isdigit() and len(tag) == 3))


UNDETERMINED = "und"
"""ISO 639's code for texts that do not name their language."""

_NAMED = {
    form.casefold(): row.iso3 for row in LANGUAGES.values() for form in (row.name, row.name.partition(" (")[0])
} | _TABLE["other_names"]
"""English names in small letters, and the key of `LANGUAGES` that each stands for."""


def _find(code: str) -> Language | None:
    """Return the language of a code or of an English name, None when there is none."""
    head, *rest = _subtags(code)
    row = LANGUAGES.get(ALIASES.get(head, head)) if all(map(_is_script_or_region, rest)) else None
    return row or LANGUAGES.get(_NAMED.get(" ".join(code.split()).casefold(), ""))


def _near(word: str, candidates: Iterable[str]) -> list[str]:
    """Return up to three candidates spelt like the word, best first."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    return [by_lower[match] for match in get_close_matches(word.strip().lower(), by_lower)]


def resolve(code: str) -> Language:
    """Return the language that a code stands for.

    Accepts ISO 639-3 and 639-1 codes, locale ids (pt_BR, zh-Hans), SIB-200 and FLORES ids (swh_Latn), old or
    macro-language codes (zho, msa, iw), and English names (German), in any case. Script and region must be
    well formed and are otherwise not used: the row of zho_Hant is that of cmn, with its usual script.

    >>> resolve("swa_Latn").iso3, resolve("zh-Hant").iso3, resolve("pt_BR").iso3
    ('swh', 'cmn', 'por')
    """
    if language := _find(code):
        return language
    head = _subtags(code)[0]
    if head in ALIASES or head in LANGUAGES:
        near = [head]
    else:
        names = {row.name: row.iso3 for row in LANGUAGES.values()}
        near = [names.get(match, match) for match in _near(head, [*names, *LANGUAGES, *ALIASES])]
    rows = {row.iso3: row for row in map(resolve, near)}  # each language once, by its own code
    found = ", ".join(f"{row.iso3} ({row.name})" for row in rows.values())
    raise XtError(
        f"Unknown language code {code!r}; " + (f"nearest: {found}." if found else "no known code is like it."),
        "Give an ISO 639 code, with a script or region if you like: sw, swh, swh_Latn, pt_BR.",
    )


def canonical(code: str) -> str:
    """Return the key under which texts of a language are counted: of a code that is not known, itself in lower case.

    Script and region are left off: what rows call `zh-CN`, `zho_Hans` or `Chinese` is one language. Blank gives `und`.

    >>> canonical("de"), canonical("deu_Latn"), canonical("German"), canonical("zh-CN"), canonical("Tir")
    ('deu', 'deu', 'deu', 'cmn', 'tir')
    """
    if row := _find(code):
        return row.iso3
    return " ".join(code.split()).casefold() or UNDETERMINED


def is_known(code: str) -> bool:
    """Return whether the table has a language of this code or name."""
    return _find(code) is not None


def _same(wanted: str, offered: str) -> bool:
    """Return whether two codes mean one language and neither contradicts the other's script or region."""
    left, right = set(_subtags(wanted)[1:]), set(_subtags(offered)[1:])
    language = _find(wanted)
    return language is not None and language == _find(offered) and (left <= right or right <= left)


def _pick(wanted: str, offered: list[str]) -> list[str]:
    """Return the offered codes that a listed one means: itself if it is there, else all of its language."""
    exact = [code for code in offered if _subtags(code) == _subtags(wanted)]
    picked = exact or [code for code in offered if _same(wanted, code)]
    if picked:
        return picked
    if wanted.lower() in PRESETS:
        raise XtError(f"{wanted!r} is a preset, not a code, and cannot stand in a list.", "Give it alone.")
    if not _find(wanted) and (near := _near(wanted, [*PRESETS, *offered])):
        raise XtError(f"Unknown language {wanted!r}; nearest: {', '.join(near)}.", f"Presets: {', '.join(PRESETS)}.")
    language = resolve(wanted)
    related = [code for code in offered if _find(code) == language]  # in another script or region
    related = related or _near(wanted, offered) or _near(language.iso3, offered)
    nearest = f"; nearest available: {', '.join(related)}" if related else ""
    raise XtError(
        f"No data for {wanted!r} ({language.name}){nearest}.",
        f"Available: {' '.join(offered) or 'none'}.",
    )


def select(expression: str, available: Iterable[str]) -> list[str]:
    """Return the available codes that an expression asks for, spelt as they are available.

    expression: a name in `PRESETS` (answered in the order of `available`), or codes with commas between them (answered
    in the order given, each once). A listed code takes its exact spelling where available, else every available code of
    that language that does not contradict its script or region: "zh" finds zho_Hans and zho_Hant, "zho_Hant" only the
    latter. Finding nothing is an error.

    >>> select("low-resource", ["deu_Latn", "swh_Latn", "wol_Latn"]), select("de,sw", ["swh", "deu", "fra"])
    (['swh_Latn', 'wol_Latn'], ['deu', 'swh'])
    """
    offered = list(available)
    name = expression.strip().lower()
    if name in PRESETS:
        members = offered if name == "all" else [c for c in offered if (row := _find(c)) and row.iso3 in PRESETS[name]]
        if not members:
            raise XtError(f"No available language is in {name!r}.", f"Available: {' '.join(offered) or 'none'}.")
        return members
    wanted = [code.strip() for code in expression.split(",") if code.strip()]
    if not wanted:
        raise XtError("No language given.", f"Give codes with commas between them, or one of: {', '.join(PRESETS)}.")
    return list(dict.fromkeys(code for item in wanted for code in _pick(item, offered)))


def resource_of(code: str) -> str:
    """Return the resource class of a language code; "unknown" for a code outside the table.

    >>> resource_of("sw"), resource_of("mylang")
    ('low', 'unknown')
    """
    try:
        return resolve(code).resource
    except XtError:
        return "unknown"
