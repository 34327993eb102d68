"""Fixtures for all tests: a cache of their own, a small data set, the command line; and a rule that
turns most skips into failures on a build server.
"""

import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}


def excused(reason):
    """Whether a build server may skip a test: it lacks a GPU, real data, npm, pip or a peer."""
    without_data = not os.environ.get("MEDSAGA_DATA") and "MEDSAGA_DATA" in reason
    excuses = ("npm, which fetches", "npm cannot fetch", "package index", "GPU", "CUDA")
    excuses += ("a recorded run only",)  # `marks.PEER`
    return without_data or any(excuse in reason for excuse in excuses)


def fail_unexcused(report):
    """Turn a skip on a build server into a failure that gives the reason of the skip."""
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


def pytest_collection_modifyitems(items):
    """Begin with the test that takes longest, so that no worker is left alone with it."""
    items.sort(key=lambda item: item.name != "test_the_book_is_in_order")


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory) -> Iterator[Iterator[Path]]:
    """Give an endless row of new cache folders, and set the first one for the whole session.

    Fixtures of a module or of the session run before the fixtures of a test, so they use this first
    folder and never the user's cache.
    """
    root = tmp_path_factory.mktemp("caches")
    folders = (root / str(number) for number in itertools.count())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDSAGA_CACHE", str(next(folders)))
        patch.setenv("IPYTHONDIR", str(root / "ipython"))  # kernels write a history
        yield folders


@pytest.fixture(autouse=True)
def own_cache(caches, monkeypatch) -> Path:
    """Give each test an empty cache of its own, which the processes that it starts inherit.

    The folder does not exist yet.
    """
    folder = next(caches)
    monkeypatch.setenv("MEDSAGA_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    from tools import site

    if site.browser_path() is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=site.browser_path(), args=site.FLAGS)
        yield started
        started.close()


@pytest.fixture
def target(record_property) -> Callable[[int, str, str, float], None]:
    """Record a measured number for one of GaLore's targets; `tools.targets` shows it."""

    def keep(number: int, what: str, goal: str, measured: float) -> None:
        record_property("target", json.dumps([number, what, goal, float(measured)]))

    return keep


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """Draw a small data set in the folder format: 14 chest X-rays of 10 patients, three labels."""
    from medsaga_lib.data.phantoms import write_phantoms

    root = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(root, patients=10, pictures=14, seed=0)
    return root


@pytest.fixture
def phantom_cxr(phantoms, own_cache) -> Path:
    """Put `phantoms` into the test's cache under the name `phantom_cxr`, which it then opens.

    The data set of that name has 90 pictures, and drawing them takes ten seconds.
    """
    from medsaga_lib.data.phantoms import PHANTOMS, VERSION

    own_cache.mkdir(parents=True)
    folder = own_cache / f"{PHANTOMS}-{VERSION}"
    folder.symlink_to(phantoms, target_is_directory=True)
    return folder


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets that $MEDSAGA_DATA names."""
    if not os.environ.get("MEDSAGA_DATA"):
        pytest.skip("MEDSAGA_DATA is not set: the real data sets are not on this machine")
    return Path(os.environ["MEDSAGA_DATA"])


@pytest.fixture(scope="session")
def dataset(phantoms):
    """The small data set of `phantoms`, opened."""
    from medsaga_lib.data.catalog import open_dataset

    return open_dataset(phantoms)


@pytest.fixture
def medsaga(monkeypatch, capsys):
    """Run the command `medsaga` in this process: (exit code, standard output, standard error)."""
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
