"""Templates of pages: Jinja2 with everything escaped; the kit's own stand beside those of each package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from xt.core.pages import numbers

HERE = Path(__file__).parent / "templates"


@cache
def environment(folder: Path) -> Environment:
    """Return what reads the templates of a folder, and the kit's; None is shown as an en dash."""
    found = Environment(
        loader=FileSystemLoader([folder, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: numbers.DASH if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    shown = (numbers.fixed, numbers.percent, numbers.points, numbers.quantity, numbers.signed)
    found.filters |= {f.__name__: f for f in shown}
    return found


@dataclass(frozen=True)
class Macros:
    """The macros of a template as functions from values to HTML; it is compiled when the first of them is called.

    >>> Macros("kit.html.j2").named("Mayan <languages>", "myn")
    Markup('Mayan &lt;languages&gt; <small class="aside">myn</small>')
    """

    file: str
    folder: Path = HERE

    def __getattr__(self, name: str) -> Callable[..., Markup]:
        """Return a macro."""
        macro: Callable[..., Markup] = getattr(environment(self.folder).get_template(self.file).module, name)
        return macro


kit = Macros("kit.html.j2")


def document(
    title: str, header: str, main: str, footer: str, *, nav: list[tuple[str, str]] | None = None, script: bool = True
) -> str:
    """Return the whole page, in one file that loads nothing.

    Args:
        title: of the window.
        header: HTML, as `main` and `footer` are.
        main: the sections.
        footer: below them.
        nav: (id of a section, label) for links to sections.
        script: whether it has the script of tables that sort and maps that are stepped through.
    """
    page = environment(HERE).get_template("page.html.j2")
    return page.render(title=title, header=header, main=main, footer=footer, nav=nav or [], script=script) + "\n"
