"""Attack a served encoder: hostile inputs one by one, then faults under load. Writes the table of what was tried.

    python -m tests.attack.run REPOSITORY/encoder --out docs/attacks.md

Exit code 3 when an answer was lost or wrong, when something failed (status 500, a dead or slow server), or when what had
to be refused was not.
"""

from __future__ import annotations

import argparse
import datetime as dt
import platform
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.attack import faults, gateway, texts, triton
from tests.attack.harness import Attack, Target, probe
from tests.attack.stage import Callers, Stage, behind_a_dead_proxy, prepare, target_of

ATTACKS: list[Attack] = [*texts.ATTACKS, *gateway.ATTACKS, *triton.ATTACKS]
KINDS = ("answered", "refused", "closed", "lost", "wrong", "failed")


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def attack_all(target: Target, attacks: list[Attack]) -> tuple[dict[str, Counter[str]], list[str]]:
    """Send every attack, each followed by a plain request; returns counts by group, and what was not as it should be."""
    counts: dict[str, Counter[str]] = {}
    problems: list[str] = []
    for attack in attacks:
        answer = attack.send(target)
        kind, why = attack.judge(answer, target)
        after = probe(target)
        if after and kind not in ("lost", "wrong", "failed"):
            kind, why = "failed", f"afterwards {after}"
        counts.setdefault(attack.group, Counter())[kind] += 1
        if why:
            problems.append(f"{attack.group}: {attack.name}: {kind}: {why}")
            say(f"  {problems[-1]}")
    return counts, problems


def cpu() -> str:
    """Name the processor and its widest instructions."""
    text = Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*: (.*)", text)
    flags = set((re.search(r"flags\s*: (.*)", text) or [None, ""])[1].split())  # type: ignore[index]
    widest = next(
        (w for f, w in (("avx512_vnni", "AVX-512 VNNI"), ("avx_vnni", "AVX-VNNI"), ("avx2", "AVX2")) if f in flags), ""
    )
    return f"{name[1] if name else platform.machine()}, {widest}"


def table(counts: dict[str, Counter[str]]) -> list[str]:
    """Return the Markdown table of the inputs."""
    rows = ["| inputs | sent | " + " | ".join(KINDS) + " |", "| --- |" + " --- |" * (len(KINDS) + 1)]
    for group, found in counts.items():
        rows.append(f"| {group} | {found.total()} | " + " | ".join(str(found[kind]) for kind in KINDS) + " |")
    total = sum(counts.values(), Counter())
    rows.append(f"| **all** | {total.total()} | " + " | ".join(str(total[kind]) for kind in KINDS) + " |")
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="the encoder that xt export wrote")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--only", default="", help="inputs and faults whose group or name holds this")
    parser.add_argument("--no-faults", action="store_true", help="inputs alone")
    options = parser.parse_args(arguments)
    behind_a_dead_proxy()
    folder = Path(tempfile.mkdtemp(prefix="xt-attack-"))
    stage = Stage(
        prepare(options.model, folder), folder, {n: faults.free_port() for n in ("http", "grpc", "metrics", "gateway")}
    )
    rows: list[str] = []
    problems: list[str] = []
    counts: dict[str, Counter[str]] = {}
    begun = time.monotonic()
    try:
        stage.start()
        target = target_of(stage)
        chosen = [a for a in ATTACKS if options.only in f"{a.group} {a.name}"]
        say(f"{len(chosen)} inputs")
        counts, problems = attack_all(target, chosen)
        if not options.no_faults:
            for fault in [f for f in faults.FAULTS if options.only in f.name]:
                with Callers(target) as callers:
                    time.sleep(1)
                    try:
                        trouble = fault.do(stage, target)
                    except Exception as error:  # the others are to be tried all the same
                        trouble = f"{type(error).__name__}: {error}"
                    time.sleep(2)
                lost = sum(callers.lost.values())
                row = f"| {fault.name} | {callers.calls} | {lost} | {callers.wrong} | {callers.longest:.1f} |"
                rows.append(row)
                say(row)
                problems += [f"{fault.name}: {what}" for what in (trouble, *map(str, callers.lost.items())) if what]
                problems += [f"{fault.name}: {callers.wrong} wrong answers"] if callers.wrong else []
        stage.stop()
    finally:
        if stage.process is not None and stage.process.poll() is None:
            stage.process.kill()
        shutil.rmtree(folder, ignore_errors=True)
    for problem in problems:
        say(problem)
    text = page(counts, rows, problems, time.monotonic() - begun)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    say("\n".join(table(counts)))
    return 3 if problems else 0


def page(counts: dict[str, Counter[str]], rows: list[str], problems: list[str], seconds: float) -> str:
    """Return the page of the docs."""
    lines = [
        "# What was tried against a served model",
        "",
        "Written by `python -m tests.attack.run REPOSITORY/encoder --out docs/attacks.md`, which `make slow` runs: a real",
        "`xt serve --restart` with an encoder, a retriever and the gateway, the variables of a dead proxy set.",
        f"{dt.date.today().isoformat()}, {cpu()}, {seconds / 60:.0f} minutes.",
        "",
        "## Inputs",
        "",
        "After each a plain request has to be answered right, bit for bit, by the gateway and by Triton. *Answered*: with the",
        "right vectors. *Refused*: with a reason. *Closed*: what is no HTTP ends the connection. *Lost*: no answer. *Wrong*:",
        "other vectors, or an answer where a refusal was due. *Failed*: a status of 500, a refusal without its reason, or a",
        "server that was dead or slow afterwards.",
        "",
        *table(counts),
        "",
    ]
    if rows:
        lines += [
            "## Faults",
            "",
            "Six callers by the Python client (`timeout_seconds=60`) and two by the gateway (again after `Retry-After`) ask for",
            "single texts all the time. A call without the right answer within 60 s is lost.",
            "",
            "| what breaks | calls | lost | wrong | longest wait, s |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    lines += ["## Not as it should be", "", *[f"- {p}" for p in problems], ""] if problems else []
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
