"""The Parquet files of a task on the Hugging Face hub, and how places there spell a language."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from xt.core.data.tasks import Hub
from xt.core.hub import is_offline, snapshots
from xt.core.languages import ALIASES, LANGUAGES

NAMES = {"cmn": "chinese"}
"""English names that data sets use, where they are not the first word of the language's name."""


def spellings(pattern: str, language: str) -> list[str]:
    """Return a pattern once for each way a place may spell the language's code, the likeliest first.

    >>> spellings("xquad.{iso1}.json", "swh"), spellings("{iso3}_{script}", "cmn")
    (['xquad.sw.json'], ['cmn_Hans', 'zho_Hans', 'chi_Hans'])
    """
    row = LANGUAGES[language]
    others = [code for code, key in ALIASES.items() if key == language]
    iso3 = [language, *(c for c in others if len(c) == 3)]
    iso1 = [c for c in (row.iso1, *others) if c and len(c) == 2]
    name = NAMES.get(language, row.name.split(" (")[0].lower())
    forms = {
        "{language}": list(dict.fromkeys(iso1 + iso3)),
        "{iso3}": iso3,
        "{iso1}": list(dict.fromkeys(iso1)),
        "{script}": [row.script],
        "{name}": [name],
        "{Name}": [name.title()],
    }
    used = {key: values for key, values in forms.items() if key in pattern}
    written = []
    for values in product(*used.values()):
        one = pattern
        for key, value in zip(used, values, strict=True):
            one = one.replace(key, value)
        written.append(one)
    return written


def hub_patterns(config: str, split: str) -> list[str]:
    """Return the patterns of a split's Parquet files in a repository, as the hub and its owners lay them out."""
    at = f"{config}/" if config else ""
    middles = [f"{split}-*.parquet", f"{split}/*.parquet", f"{split}.parquet"]
    roots = [at] if config else ["", "data/", "default/"]
    return [root + middle for root in roots for middle in middles]


def parquet_files(hub: Hub, split: str, language: str) -> tuple[list[Path], str]:
    """Return the Parquet files of one of the hub's own splits, from its local cache or downloaded; or none and why."""
    why = ""
    configs = spellings(hub.config, language)
    allowed = [p for config in configs for p in hub_patterns(config, split)]
    for folder, why in snapshots(hub.id, hub.revision, allowed, kind="dataset"):
        if folder is None:
            why = "not in the local cache, and offline (HF_HUB_OFFLINE)" if is_offline() else why
            continue
        for config in configs:
            files = [f for p in hub_patterns(config, split) for f in sorted(folder.glob(p))]
            if files and _complete(files):
                return files, ""
        why = f"no Parquet files of {split}" + (f" in {', '.join(configs)}" if hub.config else "")
    return [], why


def _complete(files: Sequence[Path]) -> bool:
    """Return whether none of the files that the names count (`-00000-of-00002`, `0000`, `0001`) is missing."""
    for file in files:
        if found := re.search(r"-of-(\d+)", file.name):
            return len(files) == int(found[1])
    numbers = [int(file.stem) for file in files if file.stem.isdigit()]
    return numbers == list(range(len(numbers)))


def commit_of(file: Path) -> str:
    """Return the commit that a file of the hub cache belongs to: the folder below `snapshots`."""
    parts = file.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else ""
