"""A command's flags are those of its settings: names, types, defaults and help from the fields, values back into them.

Tests `core/settings.py` as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from xt.cli.settings import Given, with_flags
from xt.core.errors import UsageError
from xt.core.settings import Flag


@dataclass(frozen=True)
class Server:
    """Options that travel together."""

    url: Annotated[str | None, Flag("Where it is.")] = None
    port: Annotated[int, Flag("Which port.", least=1)] = 8001


@dataclass(frozen=True)
class Settings:
    """Each kind of field once."""

    source: Annotated[Path, Flag("What to read.", positional=True, metavar="INPUT")]
    server: Server
    rate: Annotated[float, Flag("How fast.", name="--lr", default="slow")] = 0.5
    names: Annotated[tuple[str, ...], Flag("What to take; repeatable.")] = ()
    files: Annotated[Mapping[str, tuple[str, ...]], Flag("TASK=PATH; repeatable.")] = field(default_factory=dict)
    keep: Annotated[bool, Flag("Keep it.", name="--keep/--drop")] = True
    unseen: int = 7

    def __post_init__(self) -> None:
        if self.rate > 1:
            raise UsageError(f"--lr is {self.rate}; 1 at most")


seen: list[Any] = []


@with_flags
def whole(settings: Settings, json: Annotated[bool, Flag("As JSON.")] = False) -> None:
    """Take settings as they are."""
    seen.append((settings, json))


@with_flags
def partial(given: Annotated[dict[str, Any], Given(Settings, required=("source",))]) -> None:
    """Take what was given."""
    seen.append(given)


def call(function: Any, *words: str) -> Any:
    app = typer.Typer()
    app.command()(function)
    seen.clear()
    return CliRunner().invoke(app, list(words))


def test_the_values_of_the_flags_make_the_settings() -> None:
    words = ["in.txt", "--url", "a:1", "--lr", "0.25", "--names", "x", "--names", "y", "--files", "t=p", "--drop"]
    assert call(whole, *words, "--json").exit_code == 0
    expected = Settings(Path("in.txt"), Server("a:1"), 0.25, ("x", "y"), {"t": ["p"]}, keep=False)  # type: ignore[dict-item]
    assert seen == [(expected, True)]
    assert call(whole, "in.txt").exit_code == 0
    assert seen == [(Settings(Path("in.txt"), Server()), False)]


def test_of_settings_that_a_recipe_may_fill_only_what_was_given_arrives() -> None:
    assert call(partial, "in.txt", "--drop", "--port", "9").exit_code == 0
    assert seen == [{"source": Path("in.txt"), "keep": False, "port": 9}]
    assert call(partial).exit_code == 2


def test_the_help_has_the_words_of_the_fields_and_their_defaults() -> None:
    shown = {}
    for function in (whole, partial):
        app = typer.Typer()
        app.command()(function)
        shown[function] = {p.name: p for p in typer.main.get_command(app).params}  # type: ignore[attr-defined]
    assert {n: p.default for n, p in shown[whole].items() if n in ("port", "rate", "keep", "url")} == {
        "port": 8001, "rate": 0.5, "keep": True, "url": None,
    }  # fmt: skip
    assert shown[whole]["rate"].help == "How fast.  [default: slow]"
    assert shown[whole]["rate"].opts == ["--lr"]
    assert shown[partial]["port"].help == "Which port.  [default: 8001]"
    assert (shown[partial]["port"].default, shown[partial]["names"].help) == (None, "What to take; repeatable.")
    assert "unseen" not in shown[whole]


@pytest.mark.parametrize("words", [["in.txt", "--lr", "3"], ["in.txt", "--port", "0"], ["in.txt", "--files", "p"], []])
def test_wrong_usage_ends_with_2_and_a_message(words: list[str]) -> None:
    answer = call(whole, *words)
    assert answer.exit_code == 2
    assert "Usage:" in answer.stderr
    assert seen == []


def test_two_fields_of_one_name_are_refused_when_the_command_is_made() -> None:
    def twice(server: Server, url: Annotated[str, Flag("Another.")] = "") -> None:
        """Take two."""

    with pytest.raises(TypeError, match="two flags of twice are called url"):
        with_flags(twice)
