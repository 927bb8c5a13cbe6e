"""Recipes: YAML files that fill the training settings, as the flags do."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from xt.core.errors import UsageError, XtError, unknown
from xt.train.config import TrainConfig, setting_names

RECIPES = Path(__file__).parent / "shipped"

EXCLUSIVE = (("steps", "epochs"), ("target_steps", "target_epochs"))
"""Two ways to say one thing: a flag for either also puts the recipe's other aside."""

TRAINED_ON = ("intermediate", "target", "mlm", "contrastive", "image_text")
"""Settings that name what to train on."""

_POWER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def shipped() -> list[str]:
    """Return the names of the recipes that come with xt."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find(path_or_name: str) -> Path:
    """Return the file of a recipe: a bare name is one of the shipped ones, anything with a separator is a path."""
    if "/" not in path_or_name and "\\" not in path_or_name:
        name = path_or_name.removesuffix(".yaml")
        if name not in shipped():
            error = unknown("recipe", name, shipped())
            raise XtError(error.message, f"{error.hint} For a file of your own give a path, such as ./{name}.yaml.")
        return RECIPES / f"{name}.yaml"
    path = Path(path_or_name).expanduser()
    if not path.is_file():
        raise XtError(
            f"No recipe at {path_or_name}.", f"Give a YAML file, or the name of one of: {', '.join(shipped())}."
        )
    return path


def load_recipe(path_or_name: str, known: Collection[str]) -> dict[str, Any]:
    """Read the settings of a shipped recipe or of a YAML file; their names must be among `known`.

    Values are numbers, words, true and false, or lists of them. `1e-5` is read as a number (YAML 1.1, which wants
    `1.0e-5`, would give a string). An empty file gives no settings.
    """
    path = find(path_or_name)
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        settings = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise XtError(f"{path} is not UTF-8 text (byte {error.start}).", "Save the recipe as UTF-8.") from error
    except RecursionError:
        raise XtError(f"{path} is nested too deeply.", _SHAPE) from None
    except yaml.YAMLError as error:
        raise XtError(f"{path}{_line_of(error)} is not YAML: {_problem(error)}.", _SHAPE) from error
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise XtError(f"{path}, line {node.start_mark.line + 1}: expected `name: value`, found {_kind(node)}.", _SHAPE)
    _check(node, path, known)
    return {name: _numbers(value) for name, value in settings.items()}


_SHAPE = "A recipe has one `name: value` a line, such as `learning_rate: 1e-5`; lists are written `[a, b]`."


def _check(node: yaml.MappingNode, path: Path, known: Collection[str]) -> None:
    """Raise one error for all that is wrong with the names and the kinds of values, each with its line."""
    problems: list[XtError] = []
    seen: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        items = value.value if isinstance(value, yaml.SequenceNode) else [value]
        where = f"{path}, line {line}: "
        if name not in known:
            error = unknown("setting", name, known)
            problems.append(XtError(where + error.message, error.hint))
        elif name in seen:
            problems.append(XtError(f"{where}{name} is given a second time, after line {seen[name]}.", "Keep one."))
        elif not all(isinstance(item, yaml.ScalarNode) for item in items):
            problems.append(XtError(f"{where}{name} is neither a value nor a list of values.", _SHAPE))
        seen.setdefault(name, line)
    if problems:
        raise XtError(_lines(p.message for p in problems), _lines(dict.fromkeys(p.hint for p in problems)))


def merge(recipe: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe's settings with the given flags over them; a list replaces a list.

    A flag that is None or an empty list was not given. A flag for steps puts a recipe's epochs aside, and the other
    way round (`EXCLUSIVE`).

    >>> merge({"epochs": 3, "batch": 32, "intermediate": ["mnli", "qqp"]}, {"steps": 9, "batch": None})
    {'batch': 32, 'intermediate': ['mnli', 'qqp'], 'steps': 9}
    """
    given = {name: value for name, value in flags.items() if value is not None and value != [] and value != ()}
    aside = {other for pair in EXCLUSIVE for one, other in (pair, pair[::-1]) if one in given}
    return {**{name: value for name, value in recipe.items() if name not in aside}, **given}


def resolve_recipe(recipe: str | None, given: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a run: those of a recipe, with what was given over them.

    Raises a `UsageError` when without a recipe no encoder or nothing to train on was named.
    """
    if not recipe and not given.get("encoder"):
        raise UsageError("name what to train: --encoder, or a --recipe that does")
    if not recipe and not any(given.get(kind) for kind in TRAINED_ON):
        options = ", ".join(f"--{kind.replace('_', '-')}" for kind in TRAINED_ON)
        raise UsageError(f"name what to train on: {options}")
    own = {name: given[name] for name in ("force", "resume") if name in given}
    flags = {name: value for name, value in given.items() if name not in own}
    settings = merge(load_recipe(recipe, setting_names()) if recipe else {}, flags)
    if not settings.get("encoder"):
        raise XtError(f"The recipe {recipe} names no encoder.", "Name one by --encoder.")
    return TrainConfig(**settings, **own)


def show(settings: Mapping[str, Any]) -> str:
    """Return the settings as YAML, in their order; `load_recipe` reads the text again.

    >>> print(show({"encoder": "e5", "intermediate": ("sick", "rte"), "learning_rate": 1e-5}), end="")
    encoder: e5
    intermediate:
    - sick
    - rte
    learning_rate: 1.0e-05
    """
    plain = {name: _plain(value) for name, value in settings.items()}
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=1000)) if plain else ""


def _plain(value: Any) -> Any:
    """Return what YAML knows: paths as text, and each list its own, as YAML marks one that is met twice (`&id001`)."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _numbers(value: Any) -> Any:
    """`1e-5` and the like, which YAML 1.1 takes for strings, as numbers."""
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and _POWER.fullmatch(value) else value


def _kind(node: yaml.Node) -> str:
    """Return a node in words."""
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"


def _line_of(error: yaml.YAMLError) -> str:
    """Return where the reader stopped, as `, line 3`; empty when it does not say."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def _problem(error: yaml.YAMLError) -> str:
    """Return what the reader found, on one line."""
    return str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).replace("\n", " ")


def _lines(texts: Iterable[str]) -> str:
    """Return one text as it is, several each on a line."""
    return "\n".join(text for text in texts if text)
