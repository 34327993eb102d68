"""Measured numbers of tests become lines; if a test fails, there are none."""

import sys
from types import SimpleNamespace

import pytest

from tools import targets


def test_lines_come_from_the_tests_that_hold_them():
    lines = targets.from_tests(("tests/optim/test_galore.py::test_treatment_of_vit_b",))
    assert [(line.target, line.values) for line in lines if line.goal == "177"] == [(9, [177.0])]


def test_cases_of_one_test_share_a_line(tmp_path):
    properties = "".join(
        f'<property name="target" value="[3, &quot;signs&quot;, &quot;0&quot;, {value}]"/>'
        for value in (0.5, 0.25)
    )
    report = tmp_path / "report.xml"
    report.write_text(
        f"<testsuite><testcase><properties>{properties}</properties></testcase></testsuite>"
    )
    (line,) = targets.lines_of(report)
    assert line == (3, "signs", "0", [0.5, 0.25])
    assert targets.spread(line.values) == "0.25 to 0.5"


def test_a_failing_test_ends_it(tmp_path):
    failing = tmp_path / "test_that_fails.py"
    failing.write_text("def test():\n    assert False\n")
    with pytest.raises(SystemExit, match="nothing was written"):
        targets.from_tests((str(failing),))


def test_importing_is_timed_in_fresh_interpreters_and_the_median_counts(monkeypatch, capsys):
    """No time is asserted: tests/test_compat.py shows that the import loads nothing heavy."""
    printed, started = iter(("0.5", "0.02", "0.03")), []

    def run(words, **_):
        started.append(words)
        return SimpleNamespace(stdout=next(printed).encode())

    monkeypatch.setattr(targets, "IMPORTS", 3)
    monkeypatch.setattr(targets.subprocess, "run", run)
    assert targets.import_time().values == [0.03]
    assert [words[0] for words in started] == [sys.executable] * 3
    exec(started[0][2], {})
    assert float(capsys.readouterr().out) >= 0  # the code prints one number
