"""A command runs in a process of its own, which ends with its parent and may be killed."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from medsaga_lib.errors import COLLAPSED
from medsaga_lib.reproduce import process
from medsaga_lib.reproduce.provenance import ROOT


def test_a_command_that_fails_passes_on_what_it_says():
    with pytest.raises(process.RunError) as caught:
        process.medsaga(["frobnicate"], threads=1)
    code, said = caught.value.args
    assert code == 2
    assert "No such command 'frobnicate'" in said


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a shell script in the place of Python."""

    def write(text):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setattr(process.sys, "executable", str(path))

    return write


@pytest.mark.parametrize("code", [0, COLLAPSED])
def test_a_collapsed_training_is_a_result(code, program):
    program(f"echo '{{\"collapsed\": {code}}}'\nexit {code}")
    said, used = process.medsaga(["train"], None)
    assert said == {"collapsed": code}
    assert used["peak_bytes"] > 0


def test_a_killed_command_is_run_again(program, tmp_path):
    program(f"cd {tmp_path}; [ -e once ] || {{ touch once; kill -9 $$; }}; echo 7")
    assert process.persistent(["train"], None) == (7, {"cpu_seconds": None, "peak_bytes": None})
    assert process.persistent(["train"], None)[1]["peak_bytes"] > 0  # killed at no time


def test_a_command_that_is_always_killed_ends_in_one_sentence(program, tmp_path):
    program(f"echo x >> {tmp_path / 'times'}; kill -9 $$")
    with pytest.raises(process.RunError, match="medsaga train was killed by signal 9"):
        process.persistent(["train"], None)
    assert len((tmp_path / "times").read_text().split()) == process.ATTEMPTS


def test_a_command_ends_with_the_process_that_started_it(tmp_path):
    """The grandchild must not go on training when its parent is killed."""
    code = (
        "import sys, threading, time; sys.path.insert(0, %r)\n"
        "from medsaga_lib.reproduce import child\n"
        "threading.Thread(target=child._end_with_parent, daemon=True).start()\n"
        "open(%r, 'w').write('here'); time.sleep(60)"
    )
    marker = tmp_path / "marker"
    parent = (
        "import subprocess, sys, time\n"
        f"one = subprocess.Popen([sys.executable, '-c', {code % (str(ROOT), str(marker))!r}], "
        "stdin=subprocess.PIPE)\nprint(one.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as started:
        child = psutil.Process(int(started.stdout.readline()))
        until(marker.exists)
        os.kill(started.pid, signal.SIGKILL)
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def until(true):
    """Wait until a condition holds; a test that waits for ever is stopped by the loop's end."""
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it never came true")
