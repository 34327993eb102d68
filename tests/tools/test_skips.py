"""On a build server `tests/conftest.py` fails tests that are skipped without a browser or data."""

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
OPTIONS = ("-p", "no:cacheprovider", "--continue-on-collection-errors")
MODULE = "import pytest\npytest.skip('the book is not built', allow_module_level=True)"


def counts(folder, environment):
    """Run the tests in `folder` with our conftest; returns the number of each outcome."""
    shutil.copy(CONFTEST, folder)
    clean = {key: value for key, value in os.environ.items() if key not in {"CI", "MEDSAGA_DATA"}}
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *OPTIONS, str(folder)],
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
        ({}, {"skipped": 4, "xfailed": 1}),
        ({"CI": "true"}, {"failed": 1, "skipped": 2, "xfailed": 1, "error": 1}),
        (
            {"CI": "true", "MEDSAGA_DATA": "."},
            {"failed": 2, "skipped": 1, "xfailed": 1, "error": 1},
        ),
    ],
)
def test_skips_are_failures_on_a_build_server(tmp_path, environment, expected):
    """A module that is skipped as a whole is an error of the collection."""
    (tmp_path / "test_one.py").write_text(TESTS)
    (tmp_path / "test_two.py").write_text(MODULE)
    assert counts(tmp_path, environment) == expected
