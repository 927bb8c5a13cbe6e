"""Triton's page of metrics: fetching it, and reading Prometheus' text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from xt.core.machine.proxies import read_url

SAMPLE = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(\{[^}]*\})? (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def fetch(url: str, timeout: float) -> str:
    """Return the page at `url`; OSError when it cannot be had."""
    status, page = read_url(url, timeout=timeout)
    if status != 200:
        raise OSError(f"{url} answered with status {status}")
    return page.decode("utf-8", errors="replace")


def samples(page: str) -> Iterator[tuple[str, dict[str, str], float]]:
    r"""Yield the name, labels and value of each sample of a page.

    >>> list(samples('# HELP a b\na{model="x"} 1\nb 3\n'))
    [('a', {'model': 'x'}, 1.0), ('b', {}, 3.0)]
    """
    for line in page.splitlines():
        match = SAMPLE.match(line)
        if not match:
            continue
        try:
            yield match[1], dict(LABEL.findall(match[2] or "")), float(match[3])
        except ValueError:
            continue


def add_up(page: str, name_of: Callable[[str, Mapping[str, str]], str]) -> dict[str, float]:
    """Return the sums of a page's samples, each counted under what `name_of` makes of its name and labels."""
    found: dict[str, float] = {}
    for name, labels, value in samples(page):
        key = name_of(name, labels)
        found[key] = found.get(key, 0.0) + value
    return found


def model_names(page: str) -> list[str]:
    """Return the names of the models that Triton counts requests of."""
    counted = (labels for name, labels, _ in samples(page) if name == "nv_inference_request_success")
    return sorted({labels["model"] for labels in counted if "model" in labels})
