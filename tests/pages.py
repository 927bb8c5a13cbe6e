"""Pages as tests read them: elements with their text, tables as rows of words."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser

VOID = {"meta", "br"}


class Element:
    """An element of a page, with what is inside it."""

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag, self.attributes = tag, attributes
        self.inside: list[Element | str] = []

    def __getitem__(self, attribute: str) -> str:
        return self.attributes[attribute]

    def of(self, tag: str | None = None, class_: str | None = None, **attributes: str) -> list[Element]:
        """Return the elements below of a tag, a class, and with some attributes."""

        def fits(element: Element) -> bool:
            classes = element.attributes.get("class", "").split()
            given = all(element.attributes.get(k.replace("_", "-")) == v for k, v in attributes.items())
            return tag in (None, element.tag) and (class_ is None or class_ in classes) and given

        return [element for element in self.below() if fits(element)]

    def below(self) -> Iterator[Element]:
        """Return all elements inside, in the order of the page."""
        for element in self.inside:
            if isinstance(element, Element):
                yield element
                yield from element.below()

    def words(self) -> Iterator[str]:
        """Return what is written inside; neither style nor script."""
        for part in self.inside:
            if isinstance(part, str):
                yield part
            elif part.tag not in ("style", "script"):
                yield from part.words()

    @property
    def text(self) -> str:
        """What is written inside, words with one space between."""
        return " ".join(" ".join(self.words()).split())

    @property
    def ids(self) -> list[str]:
        """The ids inside."""
        return [element["id"] for element in self.below() if "id" in element.attributes]

    @property
    def sections(self) -> dict[str, Element]:
        """The sections inside, by their ids."""
        return {element["id"]: element for element in self.of("section")}

    @property
    def rows(self) -> list[list[str]]:
        """The rows of a table, or of all tables inside: the text of each cell."""
        rows = [[cell for cell in row.below() if cell.tag in ("td", "th")] for row in self.of("tr")]
        return [[cell.text for cell in row] for row in rows]

    def row(self, name: str) -> list[str]:
        """Return the first row that begins with a name."""
        return next(row for row in self.rows if row and row[0] == name)

    def table(self, caption: str) -> Element:
        """Return the first table inside whose caption begins so."""
        return next(t for t in self.of("table") if t.of("caption")[0].text.startswith(caption))


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("", {})]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in <{tag}> at {self.getpos()}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].inside.append(element)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            element = self.open[-1].inside[-1]
            assert isinstance(element, Element)
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}> at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)


def read(html: str) -> Element:
    """Return the root of a page, or of a part of one; fails where tags do not nest."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert len(reader.open) == 1, f"left open: {[element.tag for element in reader.open[1:]]}"
    return reader.open[0]


def numbers(element: Element, *attributes: str) -> tuple[float, ...]:
    """Return attributes as numbers."""
    return tuple(float(element[name]) for name in attributes)


def points(element: Element) -> list[tuple[float, ...]]:
    """Return the points of a line or polygon."""
    return [tuple(map(float, pair.split(","))) for pair in element["points"].split()]
