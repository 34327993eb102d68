"""Runs a function on many items, on one core or on several, with the results in order."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

from medsaga_lib.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 8  # our choice: each process holds one case, and a large volume needs 2 GB


def cores() -> int:
    """Return the number of cores that this process may use, at most `MOST`."""
    if hasattr(os, "sched_getaffinity"):  # Linux; a container may allow fewer than there are
        return min(MOST, len(os.sched_getaffinity(0)))
    return min(MOST, os.cpu_count() or 1)


def for_each(
    function: Callable[[Item], Result], items: Sequence[Item], processes: int
) -> list[Result]:
    """Return the results of a function for all items, in their order.

    Args:
        function: with one argument; it and the items are pickled if `processes` is above 1.
        items: the arguments.
        processes: new processes to use; 1: none, the items are done here one by one. A script that
            asks for more needs the guard `if __name__ == "__main__"`, because they import it.

    Raises:
        UserError: the system ended one of the processes.
    """
    if processes == 1 or len(items) < 2:
        return [function(item) for item in items]
    results: list[Result] = []
    # "spawn" is safe in every program; "fork" would copy the threads' locks of OpenCV and ITK
    pool = ProcessPoolExecutor(min(processes, len(items)), get_context("spawn"), _start)
    try:
        with _interrupts_later():  # the first items start the processes
            futures = [pool.submit(function, item) for item in items[:processes]]
        futures += [pool.submit(function, item) for item in items[processes:]]
        for future in futures:
            results.append(future.result())
    except BrokenProcessPool as error:
        raise UserError(
            f"A process that read item {len(results) + 1} of {len(items)}, or one of the next "
            f"{processes}, was ended by the system; perhaps the memory was full: use one process."
        ) from error
    finally:  # after an interrupt, wait only for the items that are being done
        pool.shutdown(cancel_futures=True)
    return results


def _start() -> None:
    """Prepare a new process: one thread for each, and the first process answers an interrupt."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Hold back SIGINT for a moment; processes that start meanwhile never receive it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
