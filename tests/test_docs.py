"""README and docs/ tell the truth: generated parts are current, commands parse, quick ones run, links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

try:
    from tests import reference
except ImportError:  # pytest imports a test by its path alone
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests import reference

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
README_BYTES = 10_000
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
OTHERS = {
    "--help",
    *("--nproc-per-node", "--no-deps", "--force-reinstall", "--no-faults", "--font", "--annotations", "--seconds"),
    *("--profile", "--target", "--http-restricted-api", "--grpc-restricted-protocol", "--memory", "--gpus"),
}
"""Options of other programs that the text names."""


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """The code blocks of a page, with their languages."""
    return ((found[1], found[2]) for found in BLOCK.finditer(text(page)))


def prose(page: str) -> str:
    """A page without its code blocks."""
    return BLOCK.sub("", text(page))


def commands(page: str) -> list[str]:
    """The `xt` command lines of a page's code blocks, those of several lines joined."""
    lines = [line for _, block in blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    lines += [line.strip() for line in prose(page).splitlines() if line.startswith("    xt ")]
    found = [re.sub(r" +#.*", "", line.removeprefix("$ ")).strip() for line in lines]
    return [line for line in found if re.match(r"xt [a-z]", line)]


def inline(page: str) -> list[str]:
    """What a page's prose puts between backquotes."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_readme_is_read_in_five_minutes():
    assert len((ROOT / "README.md").read_bytes()) <= README_BYTES


@pytest.mark.parametrize("page", NAMES)
def test_generated_parts_are_current(page):
    assert reference.renewed(text(page)) == text(page), "run `make docs`"


def test_every_task_encoder_and_command_is_in_a_generated_part():
    parts = [found[2] for page in NAMES for found in reference.MARKED.finditer(text(page))]
    assert sorted(parts) == sorted(reference.PARTS)
    options = [o for leaf in reference.leaves().values() for p in leaf.params for o in p.opts if o.startswith("--")]
    assert len(options) > 150
    missing = {o for o in options if f"`{o}`" not in text("docs/commands.md")} - {"--help"}
    assert missing == set()


@pytest.mark.parametrize("page", NAMES)
def test_commands_parse(page):
    for command in commands(page):
        reference.parse(shlex.split(command)[1:])


def test_there_are_commands_to_parse():
    assert len(commands("README.md")) >= 5
    assert sum(len(commands(page)) for page in NAMES) > 60
    with pytest.raises(Exception, match="--no-such"):
        reference.parse(["check", "folder", "--no-such"])


@pytest.mark.parametrize("page", NAMES)
def test_commands_and_options_named_in_the_text_exist(page):
    known = {o for leaf in reference.leaves().values() for p in leaf.params for o in (*p.opts, *p.secondary_opts)}
    names = {name.split()[0] for name in reference.leaves()}
    for code in inline(page):
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", code)) <= known | OTHERS, code
        if found := re.match(r"(?:\$ )?xt ([a-z]+)", code):
            assert found[1] in names, code


@pytest.mark.parametrize("page", NAMES)
def test_targets_of_make_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = [*inline(page), *(line for _, block in blocks(page) for line in block.splitlines())]
    named = {m[1] for c in code if (m := re.match(r"(?:\$ )?make ([a-z-]+)", c))}
    assert named <= targets


@pytest.mark.parametrize("page", NAMES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", prose(page)):
        link = target[0] or target[1]
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), link
        if anchor:
            assert anchor in anchors(there), link


def test_the_index_of_the_docs_links_every_page():
    linked = {(ROOT / "docs" / link).resolve() for link in re.findall(r"\]\(([^)\s#]+)", text("docs/README.md"))}
    pages = {page for page in PAGES if page.parent.name != "" and page != ROOT / "docs" / "README.md"}
    assert pages - {ROOT / "README.md"} <= linked


@pytest.mark.parametrize("page", NAMES)
def test_python_is_valid_and_what_it_imports_is_there(page):
    for language, block in blocks(page):
        if language == "python":
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom | ast.Import):
                    exec(compile(ast.unparse(node), page, "exec"), {})


def test_the_map_of_folders_is_that_of_the_packages():
    (rows,) = [block for _, block in blocks("README.md") if re.search(r"^core/ ", block, re.MULTILINE)]
    named = re.findall(r"^([a-z_]+)/ +(.+)$", rows, re.MULTILINE)
    packages = {init.parent.name for init in ROOT.glob("*/__init__.py")}
    assert packages <= {name for name, _ in named}
    assert [name for name, _ in named if not (ROOT / name).is_dir()] == []
    assert [words for _, words in named if len(words.split()) > 10] == []
