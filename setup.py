"""The packages by discovery: each folder here with an __init__.py is the package xt.FOLDER, with those below it."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
FOLDERS = sorted(p.parent.name for p in ROOT.glob("*/__init__.py"))

setup(
    packages=sorted(
        ".".join(["xt", *p.parent.relative_to(ROOT).parts])
        for name in FOLDERS
        for p in (ROOT / name).rglob("__init__.py")
    ),
    package_dir={f"xt.{name}": name for name in FOLDERS},
)
