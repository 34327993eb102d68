"""Time whole cases with boxes against the published network, for the book.

    python -m tools.cases

The result is notebooks/recorded/cases.json, which chapter 8 shows: the cases of
`medsaga_lib.bench.cases` with 1 and 2 threads, by torch and by each runtime that is installed. With
`--only` or `--threads`, the other rows of the file stay.
"""

import argparse
import json
from importlib.metadata import version
from typing import Any

from medsaga_lib.bench.cases import CASES, ROUNDS, compare_cases
from medsaga_lib.files import write_json
from medsaga_lib.inference.runtime import PACKAGES, Runtime, missing
from tools.provenance import RECORDED, machine

THREADS = (2, 1)
TARGET = RECORDED / "cases.json"
KEYS = ("name", "threads", "runtime")


def main() -> None:
    """Measure the times, print each case and write the file after it."""
    parser = argparse.ArgumentParser(description="Time whole cases with boxes.")
    parser.add_argument("--only", nargs="+", choices=CASES, default=[*CASES])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS)
    words = parser.parse_args()
    others: tuple[Runtime, ...] = ("onnx", "openvino")
    runtimes: list[Runtime] = ["torch", *(name for name in others if not missing(name))]
    origin: dict[str, Any] = {"command": "python -m tools.cases", **machine()}
    for name in {package for runtime in runtimes[1:] for package in PACKAGES[runtime]}:
        origin["versions"][name] = version(name)
    rows = json.loads(TARGET.read_text(encoding="utf-8"))["cases"] if TARGET.exists() else []
    for threads in words.threads:
        for row in compare_cases(words.only, runtimes, threads, words.rounds):
            rows = [one for one in rows if any(one[key] != row[key] for key in KEYS)] + [row]
            rows.sort(key=lambda one: ([*CASES].index(one["name"]), -one["threads"]))
            how = f"{row['threads']} threads, {row['runtime']}"
            low, high = row["ratios"]
            agree = f"least IoU {row['least_iou']:.4f}"
            print(f"{row['name']}, {how}: {row['ratio']:.2f} ({low:.2f} to {high:.2f}), {agree}")
            write_json(TARGET, {"provenance": origin, "cases": rows})


if __name__ == "__main__":
    main()
