"""On a build server `tests/conftest.py` fails what is skipped for want of a browser or of data."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

CONFTEST = pathlib.Path(__file__).parents[1] / "conftest.py"
TESTS = """\
import pytest

def test_browser():
    pytest.skip("no Chromium on this machine")

def test_data():
    pytest.skip("MEDSAGA_DATA is not set")

def test_gpu():
    pytest.skip("needs a GPU")

@pytest.mark.xfail(reason="known")
def test_known():
    raise ValueError
"""
MODULE = "import pytest\npytest.skip('the book is not built', allow_module_level=True)"


def counts(folder, environment):
    """Runs the tests in `folder` beside our conftest; gives outcome -> number."""
    shutil.copy(CONFTEST, folder)
    clean = {key: value for key, value in os.environ.items() if key not in {"CI", "MEDSAGA_DATA"}}
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    last = answer.stdout.strip().splitlines()[-1]
    return {name: int(number) for number, name in re.findall(r"(\d+) ([a-z]+)", last)}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {"skipped": 3, "xfailed": 1}),
        ({"CI": "true"}, {"failed": 1, "skipped": 2, "xfailed": 1}),
        ({"CI": "true", "MEDSAGA_DATA": "."}, {"failed": 2, "skipped": 1, "xfailed": 1}),
    ],
)
def test_skips_are_failures_on_a_build_server(tmp_path, environment, expected):
    (tmp_path / "test_one.py").write_text(TESTS)
    assert counts(tmp_path, environment) == expected


@pytest.mark.parametrize(("ci", "expected"), [("", {"skipped": 1}), ("true", {"error": 1})])
def test_so_is_a_module_that_is_skipped_as_a_whole(tmp_path, ci, expected):
    (tmp_path / "test_two.py").write_text(MODULE)
    assert counts(tmp_path, {"CI": ci}) == expected
