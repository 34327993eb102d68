"""Work on several processes: order, errors, a process that dies, an interrupt."""

import os
import signal
import subprocess
import sys
import time

import pytest

from medsaga_lib.data.parallel import cores, for_each
from medsaga_lib.data.problems import BadFile
from medsaga_lib.errors import UserError


def refuse(item):
    raise BadFile("a.png", f"is item {item}", "remove it.")


def test_one_process_is_this_one():
    assert for_each(lambda item: (item, os.getpid()), [3, 1, 2], 1) == [
        (item, os.getpid()) for item in (3, 1, 2)
    ]
    assert for_each(refuse, [], 2) == []
    assert 1 <= cores() <= 8


def test_results_keep_their_order_and_errors_their_sentence():
    items = [0.2, 0.0, 0.1, 0.0]
    found = for_each(_slept, items, 2)
    assert [item for item, _ in found] == items
    assert os.getpid() not in {process for _, process in found}
    with pytest.raises(BadFile, match=r"a\.png: is item 7; remove it\.") as raised:
        for_each(refuse, [7, 8], 2)
    assert raised.value.problem.remedy == "remove it."


def _slept(seconds):
    time.sleep(seconds)
    return seconds, os.getpid()


def test_a_process_that_dies_is_one_sentence():
    with pytest.raises(UserError, match=r"item 1 of 2, or .*ended by the system.*use one process"):
        for_each(os._exit, [3, 3], 2)


SCRIPT = """
import signal, sys, time
from medsaga_lib.data.parallel import for_each
if __name__ == "__main__":
    # a shell starts background processes with SIGINT ignored, and these tests may be one
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("started", flush=True)
    for_each(time.sleep, [0.05] * 400, 2)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups of this kind")
def test_an_interrupt_ends_all_processes_without_a_word(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    child = subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches every process of the group
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout.readline() == "started\n"
    time.sleep(1)
    os.killpg(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert said.count("Traceback") == 1  # of this process; the command line prints none
    assert said.rstrip().endswith("KeyboardInterrupt")
