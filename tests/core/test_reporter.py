"""What work tells of itself goes to whoever asked for it, and below another's lines it is indented."""

from __future__ import annotations

from xt.core.reporter import Reporter


def test_lines_and_counters_of_a_part_stand_below_those_of_the_whole():
    lines, counted = [], []
    reporter = Reporter(lines.append, lambda what: lambda done, total, detail: counted.append((what, done, total)))
    part = reporter.indented().indented("> ")
    reporter.say("whole")
    part.say("part")
    part.counter("texts")(1, 2, "a")
    assert lines == ["whole", "    > part"]
    assert counted == [("    > texts", 1, 2)]


def test_without_anybody_to_tell_work_goes_on():
    Reporter().say("unheard")
    Reporter().counter("texts")(1, 1, "")
