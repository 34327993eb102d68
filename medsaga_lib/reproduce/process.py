"""Run `medsaga` commands in processes of their own, and measure what they use."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from typing import Any

from medsaga_lib.data.catalog import DATA_VARIABLE, data_root
from medsaga_lib.errors import COLLAPSED
from medsaga_lib.reproduce.provenance import ROOT

ATTEMPTS = 3  # of a command whose process is killed, as for lack of memory; our choice
KIB = 1024  # the unit of ru_maxrss on Linux
Used = dict[str, int | None]  # cpu_seconds and peak_bytes


class RunError(Exception):
    """A command of a run failed; the arguments are its exit code and its error message."""


class KilledError(RunError):
    """The process of a command was killed by a signal."""


def medsaga(words: list[str], threads: int | None) -> tuple[Any, Used]:
    """Run a command; return its JSON output and what its process used.

    A training that collapsed is a result, too: its run is saved and its output says so.

    Raises:
        RunError: the command failed.
    """
    print("medsaga", shlex.join(words), file=sys.stderr, flush=True)
    limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    if (data := data_root()) is not None:  # the process runs in another folder
        limit[DATA_VARIABLE] = str(data)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "medsaga_lib.reproduce.child", *words, "--json"],
            cwd=ROOT,
            env=os.environ | limit,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
        )
        assert process.stdin is not None
        with process.stdin:  # open until the process has ended
            _, status, usage = os.wait4(process.pid, 0)  # of this child alone, unlike getrusage
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        said, error = out.read().decode(), err.read().decode()
    if process.returncode < 0:
        raise KilledError(
            1,
            f"medsaga {words[0]} was killed by signal {-process.returncode}; if the memory was "
            f"full, run fewer at a time. {error.strip()}".strip(),
        )
    if process.returncode not in (0, COLLAPSED):
        raise RunError(process.returncode, error.strip())
    used = round(usage.ru_utime + usage.ru_stime)
    return json.loads(said), {"cpu_seconds": used, "peak_bytes": usage.ru_maxrss * KIB}


def persistent(words: list[str], threads: int | None) -> tuple[Any, Used]:
    """Run a command as `medsaga`, and again if its process is killed; it then continues.

    Raises:
        RunError: the command failed, or it was killed each time.
    """
    for attempt in range(ATTEMPTS):
        try:
            done, used = medsaga(words, threads)
        except KilledError:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            return done, used if attempt == 0 else dict.fromkeys(used)
    raise AssertionError("every attempt returns or raises")
