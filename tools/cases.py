"""Time whole cases with boxes against the published network, for the book.

    python -m tools.cases

The result is notebooks/recorded/cases.json, which chapter 8 shows: the cases of
`medsaga_lib.bench.cases` with 1 and 2 threads, by torch and by each runtime that is installed.
"""

import argparse
import sys
from importlib.metadata import version

from medsaga_lib.bench.cases import CASES, ROUNDS, compare_cases
from medsaga_lib.files import write_json
from medsaga_lib.inference.runtime import PACKAGES, Runtime, missing
from tools.provenance import RECORDED, machine

THREADS = (2, 1)


def main() -> None:
    """Measure the times, print each case and write the file after it."""
    parser = argparse.ArgumentParser(description="Time whole cases with boxes.")
    parser.add_argument("--only", nargs="+", choices=CASES, default=[*CASES])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS)
    words = parser.parse_args()
    others: tuple[Runtime, ...] = ("onnx", "openvino")
    runtimes: list[Runtime] = ["torch", *(name for name in others if not missing(name))]
    command = " ".join(["python -m tools.cases", *sys.argv[1:]])
    origin = {"command": command, **machine()}
    for name in {package for runtime in runtimes[1:] for package in PACKAGES[runtime]}:
        origin["versions"][name] = version(name)
    rows = []
    for threads in words.threads:
        for row in compare_cases(words.only, runtimes, threads, words.rounds):
            rows.append(row)
            how = f"{row['threads']} threads, {row['runtime']}"
            low, high = row["ratios"]
            agree = f"least IoU {row['least_iou']:.4f}"
            print(f"{row['name']}, {how}: {row['ratio']:.2f} ({low:.2f} to {high:.2f}), {agree}")
            write_json(RECORDED / "cases.json", {"provenance": origin, "cases": rows})


if __name__ == "__main__":
    main()
