"""A table that is killed twice while it trains, and finished, has the page of one that was not."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from medsaga_lib.reproduce.provenance import ROOT

WORDS = (
    "reproduce medsaga_table3 --profile quick --dataset Chest-Xray --shots 50 --method medsaga "
    "--method v1 --seeds 0 --backbone pocket --size 32 --steps 3 --workers 1 --out out"
)
LIMIT = 1800  # seconds of a grid on a busy machine


@pytest.mark.slow
def test_a_table_that_is_killed_twice_has_the_same_page(stand_in, tmp_path):
    once, killed = tmp_path / "once", tmp_path / "killed"
    once.mkdir()
    killed.mkdir()
    start = time.monotonic()
    finish(once)
    whole = time.monotonic() - start
    dice = random.Random(0)
    for _ in range(2):
        process = begin(killed)
        time.sleep(dice.uniform(0.2, 0.8) * whole)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finish(killed)
    assert steady(killed) == steady(once)
    assert "| Chest-Xray, 50 | MedSAGa | Dice | 0.899 |" in "\n".join(steady(once))


def begin(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "medsaga_lib.cli", *WORDS.split()],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(folder):
    process = begin(folder)
    _, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, error.decode()


def steady(folder):
    """The page, but for its time, and the commit, which is unknown for a continued run."""
    lines = (folder / "out" / "page.md").read_text().splitlines()
    return [line for line in lines if not line.startswith(("- Runs, hours", "- Commits"))]
