"""Record what `medsaga bench` compares, for the book.

    python -m tools.bench --name bench_intel

The result is notebooks/recorded/NAME.json, which chapter 8 shows: one file for each processor. With
`--only`, the other rows of the file stay. `tools.cases` records the whole cases with each runtime.
"""

import argparse
import json

from medsaga_lib.bench.named import NAMES, compare
from medsaga_lib.files import write_json
from tools.provenance import RECORDED, machine


def main() -> None:
    """Measure the times and write the file after each comparison."""
    parser = argparse.ArgumentParser(description="Record the comparisons of medsaga bench.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=[*NAMES])
    words = parser.parse_args()
    target = RECORDED / f"{words.name}.json"
    origin = {"command": f"python -m tools.bench --name {words.name}", **machine()}
    kept = json.loads(target.read_text(encoding="utf-8"))["rows"] if target.exists() else []
    rows = {row["name"]: row for row in kept}
    for row in compare(words.only):
        rows[row["name"]] = row
        ordered = [rows[name] for name in NAMES if name in rows]
        write_json(target, {"provenance": origin, "rows": ordered})


if __name__ == "__main__":
    main()
