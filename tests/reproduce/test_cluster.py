"""A cluster of workers: a killed one is replaced, and a failure ends in one sentence."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributed import LocalCluster

from medsaga_lib.errors import UserError
from medsaga_lib.reproduce.cluster import finished
from medsaga_lib.reproduce.process import RunError


@pytest.mark.slow
def test_a_killed_worker_is_replaced(tmp_path):
    """Its item is calculated again, and each item has one result."""
    folder, kill = str(tmp_path), int(signal.SIGKILL)

    def job(item, threads):
        marker = Path(folder, f"{item}")
        if item == 1 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), kill)
        return item, threads

    with LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        found = list(finished(job, [0, 1, 2, 3], scheduler=cluster.scheduler_address))
    assert sorted(found) == [(item, None) for item in range(4)]
    assert (tmp_path / "1").exists()


@pytest.mark.slow
def test_a_sleep_of_the_machine_loses_no_worker():
    """The process stops for longer than the time after which Dask takes workers for lost."""
    code = (
        "import time\n"
        "from medsaga_lib.reproduce.cluster import finished\n"
        "def job(item, threads):\n    print('started', flush=True)\n    time.sleep(1)\n"
        "    return item\n"
        "print(sorted(finished(job, range(4), workers=2)))\n"
    )
    lost = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "1s"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **lost}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(7)  # a worker may leave out 10 heartbeats, one each half second
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert said.splitlines()[-1] == "[0, 1, 2, 3]"


def test_workers_here_share_the_cores():
    found = list(finished(lambda item, threads: (item, threads), [5, 6], workers=2))
    assert sorted(found) == [(item, max(1, (os.cpu_count() or 1) // 2)) for item in (5, 6)]


def test_a_failure_stops_what_has_not_started():
    done = []

    def job(item, threads):
        done.append(item)
        if item == 0:
            raise RunError(2, "in its own words")
        return item

    with pytest.raises(RunError, match="in its own words"):
        list(finished(job, list(range(50)), workers=1))
    assert len(done) < 50


def test_no_scheduler_and_no_dask_are_one_sentence(monkeypatch):
    with pytest.raises(UserError, match="No Dask scheduler answers at nowhere"):
        list(finished(print, [1], scheduler="nowhere"))
    monkeypatch.setitem(__import__("sys").modules, "dask.distributed", None)
    with pytest.raises(UserError, match=r"pip install \"medsaga-lib\[distributed\]\""):
        list(finished(print, [1]))
