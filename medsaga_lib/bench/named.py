"""The comparisons of `medsaga bench` by name, each as `name, ours, peer, ratio` and more.

ratio: peer / ours, so it is above 1 where ours takes less time.
"""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from medsaga_lib.bench.cases import CASES, ROUNDS, compare_cases
from medsaga_lib.bench.metrics import compare_metrics
from medsaga_lib.bench.optimizers import PUBLISHED, compare_late_stages, compare_optimizers
from medsaga_lib.errors import UserError
from medsaga_lib.inference.runtime import Runtime

# The kind of step of `compare_optimizers` for each name
STEPS = {"galore_refresh": "refresh_step", "galore_step": "plain_step"}
NAMES = (*CASES, "late_stages_step", "evaluate", *STEPS)


def compare(
    names: Sequence[str], runtime: Runtime = "torch", threads: int | None = None,
    rounds: int = ROUNDS,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield the comparison of each name, in the order of `NAMES`.

    Args:
        names: some of `NAMES`.
        runtime, threads: of the cases with boxes, as in `compare_cases`.
        rounds: of the turns of both ways.

    Raises:
        UserError: a name is unknown, or a peer is not installed.
    """
    for name in names:
        if name not in NAMES:
            raise UserError(f"There is no benchmark {name!r}; choose from {', '.join(NAMES)}.")
    yield from compare_cases([name for name in CASES if name in names], [runtime], threads, rounds)
    if "late_stages_step" in names:
        yield {"name": "late_stages_step", **compare_late_stages(rounds=rounds)}
    if "evaluate" in names:
        yield {"name": "evaluate", **compare_metrics(rounds)}
    if any(name in names for name in STEPS):
        yield from (row for row in steps(compare_optimizers(rounds=rounds)) if row["name"] in names)


def steps(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the comparisons of `STEPS` from the rows of `compare_optimizers`."""
    ways = {row["name"]: row for row in rows}
    for name, key in STEPS.items():
        here, published = (ways[way] for way in ("GaLore, here", PUBLISHED))
        turns = zip(published[f"{key}s"], here[f"{key}s"], strict=True)
        ratios = [peer / ours for peer, ours in turns]
        row = {"name": name, "ours": here[key], "peer": published[key], "ratio": median(ratios)}
        yield row | {"ratios": [min(ratios), max(ratios)]}
