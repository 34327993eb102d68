"""What all tests share: a small data set, and skips that a build server does not accept."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}


def excused(reason):
    """Whether a test may be skipped on a build server: for want of a GPU, or of all real data."""
    without_data = not os.environ.get("MEDSAGA_DATA") and "MEDSAGA_DATA" in reason
    return without_data or "GPU" in reason or "CUDA" in reason


def fail_unexcused(report):
    """Turns a skip into a failure that says why."""
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not excused(reason):
            report.outcome = "failed"
            report.longrepr = f"not to be skipped on a build server: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return fail_unexcused((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return fail_unexcused((yield))


@pytest.fixture
def target(record_property) -> Callable[[int, str, str, float], None]:
    """Keeps what a test measured of one of GaLore's targets, for `tools.targets` to show."""

    def keep(number: int, what: str, goal: str, measured: float) -> None:
        record_property("target", json.dumps([number, what, goal, float(measured)]))

    return keep


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """A small data set in the folder format: 14 drawn chest X-rays of 10 patients, three labels."""
    from medsaga_lib.data.phantoms import write_phantoms

    root = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(root, patients=10, pictures=14, seed=0)
    return root


@pytest.fixture
def medsaga(monkeypatch, capsys):
    """Runs the command in this process: (exit code, standard output, standard error)."""
    from medsaga_lib import cli

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["medsaga", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return run
