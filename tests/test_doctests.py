"""Every example in a docstring gives what it says."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WITH_EXAMPLES = [
    f"xt.{'.'.join(file.relative_to(ROOT).with_suffix('').parts)}".removesuffix(".__init__")
    for package in sorted(p.parent for p in ROOT.glob("*/__init__.py") if p.parent.name != "tests")
    for file in sorted(package.rglob("*.py"))
    if ">>> " in file.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_give_what_they_say(module):
    found = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted and not found.failed
