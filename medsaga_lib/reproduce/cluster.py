"""Distributes runs over the workers of a Dask cluster: threads of this process, or another one.

A run is a process of its own, so a worker here is a thread that waits for it. If the process of a
worker elsewhere is lost, Dask gives its run to another worker, where it continues if both have the
same folder of runs.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from medsaga_lib.errors import UserError
from medsaga_lib.reproduce.process import RunError

Item = TypeVar("Item")
Result = TypeVar("Result")


def finished(
    job: Callable[[Item, int | None], Result],
    items: Sequence[Item],
    workers: int = 1,
    scheduler: str | None = None,
) -> Iterator[Result]:
    """Yield the results of a job in the order in which the cluster finishes them.

    Args:
        job: it takes an item and the number of threads that it may use, or None for its default.
        items: one for each call.
        workers: calls at a time on this machine, which share its cores.
        scheduler: address of another cluster, which is then used instead.

    Raises:
        RunError: a call failed; calls that have not started are cancelled.
        UserError: Dask is missing, or no scheduler answers.
    """
    try:
        import dask
        from dask.distributed import Client, KilledWorker, LocalCluster, as_completed
    except ImportError:
        raise UserError(
            'A grid needs Dask; install it with pip install "medsaga-lib[distributed]".'
        ) from None
    cluster: AbstractContextManager
    if scheduler:
        cluster, threads = nullcontext(scheduler), None
    else:
        # Threads cannot be lost. But after a sleep of the machine, which stops scheduler and
        # workers, the scheduler would take them for lost, and wait for new ones for ever.
        with dask.config.set({"distributed.scheduler.worker-ttl": None}):
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=False,
                dashboard_address="127.0.0.1:0",  # any free port, since several grids may run
            )
        threads = threads_of(workers)
    with cluster as address, _client(Client, address) as client:
        calls = [client.submit(job, item, threads, pure=False) for item in items]
        try:
            for call in as_completed(calls):
                yield call.result()
        except KilledWorker as error:
            raise RunError(
                1, f"{error.last_worker.address}, the last of several workers, was lost too."
            ) from error
        finally:
            client.cancel(calls)


def threads_of(workers: int) -> int:
    """Return the cores of each of several workers on this machine."""
    return max(1, (os.cpu_count() or 1) // workers)


def _client(kind: Any, address: Any) -> Any:
    try:
        return kind(address)
    except (OSError, ValueError) as error:  # no answer, or not an address
        raise UserError(
            f"No Dask scheduler answers at {address} ({error}); correct --scheduler, or omit it to "
            "run here."
        ) from error
