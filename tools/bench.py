"""Record what `medsaga bench` compares besides whole cases, for the book.

    python -m tools.bench

The result is notebooks/recorded/bench.json, which chapter 8 shows: steps on late stages, metrics of
a large volume, and refreshes and steps of GaLore. `tools.cases` records the whole cases.
"""

from medsaga_lib.bench.cases import CASES
from medsaga_lib.bench.named import NAMES, compare
from medsaga_lib.files import write_json
from tools.provenance import RECORDED, machine

TARGET = RECORDED / "bench.json"


def main() -> None:
    """Measure the times and write the file."""
    rows = [*compare([name for name in NAMES if name not in CASES])]
    origin = {"command": "python -m tools.bench", **machine()}
    write_json(TARGET, {"provenance": origin, "rows": rows})


if __name__ == "__main__":
    main()
