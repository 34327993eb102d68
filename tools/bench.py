"""Record what `medsaga bench` and `medsaga bench-stages` compare, for the book.

    python -m tools.bench --name bench_intel
    python -m tools.bench --name stage_steps --stages

The result is notebooks/recorded/NAME.json, which chapter 8 shows: one file for each processor. With
`--only`, the other rows of the file stay. `tools.cases` records the whole cases with each runtime.
"""

import argparse
import json

from medsaga_lib.bench.named import NAMES, compare
from medsaga_lib.bench.stages import compare_stages
from medsaga_lib.files import write_json
from tools.provenance import RECORDED, machine

STEPS = 7  # timed steps of each kind; the fastest counts


def main() -> None:
    """Measure the times and write the file after each comparison."""
    parser = argparse.ArgumentParser(description="Record the comparisons of medsaga bench.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=[*NAMES])
    parser.add_argument("--stages", action="store_true", help="Steps on all and on late stages.")
    words = parser.parse_args()
    target = RECORDED / f"{words.name}.json"
    command = f"python -m tools.bench --name {words.name}"
    if words.stages:
        origin = {"command": f"{command} --stages", **machine()}
        write_json(target, {"provenance": origin, "rows": compare_stages(steps=STEPS)})
        return
    origin = {"command": command, **machine()}
    kept = json.loads(target.read_text(encoding="utf-8"))["rows"] if target.exists() else []
    rows = {row["name"]: row for row in kept}
    for row in compare(words.only):
        rows[row["name"]] = row
        ordered = [rows[name] for name in NAMES if name in rows]
        write_json(target, {"provenance": origin, "rows": ordered})


if __name__ == "__main__":
    main()
