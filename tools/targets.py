"""Measure the targets of this library's GaLore, one line for each target.

    python -m tools.targets

Numbers come from the tests that check them (the fixture `target`), and times from `medsaga bench`,
which runs the published package too. The result is notebooks/recorded/targets.json, which chapter 4
shows.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple
from xml.etree import ElementTree

from medsaga_lib.bench.optimizers import PUBLISHED, captured_energy, compare_optimizers, comparisons
from medsaga_lib.files import write_json
from tools.provenance import RECORDED, ROOT, machine

TESTS = ("tests/optim", "tests/memory")
IMPORTS = 5  # fresh interpreters; our choice


class Line(NamedTuple):
    """One target: the quantity, its goal and every measured value."""

    target: int
    what: str
    goal: str
    values: list[float]


def main() -> None:
    """Measure the targets, write the file and print the lines."""
    lines = sorted([*from_tests(TESTS), *from_bench(), ledger_time(), import_time()])
    write_json(
        RECORDED / "targets.json",
        {
            "provenance": {"command": "python -m tools.targets", **machine()},
            "lines": [line._asdict() for line in lines],
        },
    )
    for line in lines:
        print(f"{line.target:2}  {line.what}: {spread(line.values)} (goal: {line.goal})")


def spread(values: list[float]) -> str:
    """Return the value, or the smallest and the largest."""
    low, high = (f"{value:,.8g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def from_tests(tests: tuple[str, ...]) -> list[Line]:
    """Run the tests and return what they measured; exit if one fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        words = [sys.executable, "-m", "pytest", *tests, f"--junitxml={report}"]
        words += ["-o", "junit_family=xunit1"]  # xunit2 has no properties of a test
        if subprocess.run(words, cwd=ROOT, check=False).returncode:
            sys.exit("A test fails, so its target is not met; nothing was written.")
        return lines_of(report)


def lines_of(report: Path) -> list[Line]:
    """Return the targets in pytest's report; cases of one test share a line."""
    found: dict[tuple[int, str, str], list[float]] = {}
    for entry in ElementTree.parse(report).iter("property"):
        if entry.get("name") == "target":
            number, what, goal, value = json.loads(entry.get("value", ""))
            found.setdefault((number, what, goal), []).append(value)
    return [Line(*key, values) for key, values in found.items()]


def from_bench() -> Iterator[Line]:
    """Yield times and energies of `medsaga bench`, as ratios."""
    compared = {c["name"]: c for c in comparisons(compare_optimizers(), captured_energy())}
    for step, goal in (("first", ">= 12"), ("plain", ">= 1"), ("refresh", ">= 25")):
        ratio = compared[f"{step} step: {PUBLISHED}"]["ratio"]
        yield Line(7, f"{step} step of vit_b's 48 matrices: galore-torch / here", goal, [ratio])
    for when, goal in (("cold", ">= .985"), ("warm", ">= .98")):
        held = compared[f"energy: {when} mean"]["ours"]
        yield Line(6, f"mean energy on the gradients of a training run: {when}", goal, [held])


def ledger_time() -> Line:
    """Measure the processor seconds of a predicted ledger, for vit_b at 512 px and batch 12."""
    from medsaga_lib.memory.plan import Plan, predict_ledger
    from medsaga_lib.recipes import get_recipe

    def seconds(name: str) -> float:
        began = time.process_time()
        predict_ledger(get_recipe(name), Plan("vit_b", 12, 512, 8))
        return time.process_time() - began

    seconds("samed")  # imports
    values = [seconds(name) for name in ("medsaga", "samed", "full")]
    return Line(11, "processor seconds of a predicted ledger", "< 1", values)


def import_time() -> Line:
    """Measure `import medsaga_lib` in seconds after torch's import, in fresh interpreters."""
    code = (
        "import time, torch; began = time.perf_counter(); import medsaga_lib; "
        "print(time.perf_counter() - began)"
    )
    words = [sys.executable, "-c", code]
    runs = [
        subprocess.run(words, cwd=ROOT, capture_output=True, check=True) for _ in range(IMPORTS)
    ]
    seconds = median(float(run.stdout) for run in runs)
    return Line(12, "seconds of import medsaga_lib beyond torch's", "<= 0.1", [seconds])


if __name__ == "__main__":
    main()
