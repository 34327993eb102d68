"""Times many boxes on one picture, the published ways and ours: a recorded run of the book.

    python -m tools.boxes

Writes notebooks/recorded/boxes.json, the tasks of `medsaga_lib.bench_boxes`, which chapter 8 shows.
"""

from medsaga_lib.bench_boxes import AT_ONCE, bench
from medsaga_lib.files import write_json
from tools.record import RECORDED, machine


def main() -> None:
    """Measures and writes the file."""
    origin = {"command": "python -m tools.boxes", **machine(), "batched_at_once": AT_ONCE}
    tasks = bench()
    write_json(RECORDED / "boxes.json", {"provenance": origin, "tasks": tasks})
    for task in tasks:
        agree = f"IoU with the published masks at least {task['least_iou']:.4f}"
        print(
            f"{task['name']}: {task['ratio']['seconds']:.1f} times faster than published, {agree}"
        )


if __name__ == "__main__":
    main()
