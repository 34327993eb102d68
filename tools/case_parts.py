"""Measure where the time of whole cases with boxes goes, for the book.

    python -m tools.case_parts

The result is notebooks/recorded/case_parts.json, which chapter 8 shows: for each case of
`medsaga_lib.bench.cases` the seconds of the image encoder, of the boxes and of the rest, in the
published way and in ours, and a limit. The limit is the number of operations of the part, divided
by the rate of this processor's fastest matrix product. The number comes from shapes, on the `meta`
device.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode

from medsaga_lib.bench.cases import CASES, ROUNDS, Published
from medsaga_lib.data.images import read_image
from medsaga_lib.files import write_json
from medsaga_lib.inference import box_predictor
from medsaga_lib.inference.box_decoder import decode_boxes
from medsaga_lib.inference.box_predictor import BoxPredictor, load_box_predictor
from medsaga_lib.inference.user_boxes import stored_boxes
from medsaga_lib.models.linear import linear
from medsaga_lib.models.sam import build_sam
from tools.provenance import RECORDED, machine

PARTS = "encoder", "boxes"
SIDE, TURNS = 2048, 9  # of the matrix product and its repetitions; our choice

Spent = dict[str, float]  # seconds of each part
Calls = dict[str, list[int]]  # for each call of a part, the number of images or boxes


def main() -> None:
    """Measure the parts of each case, print them and write the file."""
    parser = argparse.ArgumentParser(description="Measure where the time of whole cases goes.")
    parser.add_argument("--only", nargs="+", choices=CASES, default=[*CASES])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    words = parser.parse_args()
    torch.set_num_threads(1)
    rate, of, rows = fastest_product(), operations(), []
    published, ours = Published(), load_box_predictor("lite_medsam")
    for name in words.only:
        with TemporaryDirectory() as folder:
            path = CASES[name](Path(folder))
            for row in measure(published, ours, path, words.rounds):
                calls, way = row["calls"], row["way"]
                row["calls"] = {part: sum(numbers) for part, numbers in calls.items()}
                row["limit"] = {part: of[way, part](calls[part]) / rate for part in PARTS}
                rows.append({"case": name, **row})
                print(rows[-1])
    origin = {"command": "python -m tools.case_parts", **machine()}
    content = {"provenance": origin, "operations_per_second": rate, "cases": rows}
    write_json(RECORDED / "case_parts.json", content)


def measure(
    published: Published, ours: BoxPredictor, path: Path, rounds: int
) -> Iterator[dict[str, Any]]:
    """Yield the median seconds of the parts of one case, of both ways in turn.

    Yields:
        way, `published` or `ours`; `seconds` of the encoder, the boxes and the rest; `calls` of the
        encoder and of the boxes, each with its number of images or boxes.
    """
    ways: dict[str, tuple[Callable[[], Any], list[tuple[Any, str, str]]]] = {
        "published": (
            lambda: published(path),
            [(Published, "_embed", "encoder"), (Published, "_masks", "boxes")],
        ),
        "ours": (
            lambda: ours(read_image(path, ""), stored_boxes(path)),
            [
                (BoxPredictor, "embed", "encoder"),
                (box_predictor, "segment_boxes", "boxes"),
                (box_predictor, "paint_boxes", "boxes"),
            ],
        ),
    }
    found: dict[str, list[Spent]] = {way: [] for way in ways}
    calls: dict[str, Calls] = {}
    for _ in range(rounds):
        for way, (run, places) in ways.items():
            with timed(places) as (spent, calls[way]):
                began = time.perf_counter()
                run()
                spent["rest"] = time.perf_counter() - began - sum(spent.values())
            found[way].append(spent)
    for way, rounds_of in found.items():
        seconds = {part: median(one[part] for one in rounds_of) for part in (*PARTS, "rest")}
        yield {"way": way, "seconds": seconds, "calls": calls[way]}


@contextmanager
def timed(places: list[tuple[Any, str, str]]) -> Iterator[tuple[Spent, Calls]]:
    """Time functions, given by owner and name, as parts; a generator runs to its end at once."""
    spent = dict.fromkeys(PARTS, 0.0)
    calls: Calls = {part: [] for part in PARTS}

    def clocked(function: Callable, part: str) -> Callable:
        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            result = function(*arguments, **options)
            if isinstance(result, Iterator):
                result = [*result]
            spent[part] += time.perf_counter() - began
            boxes = [one for one in arguments if isinstance(one, torch.Tensor) and one.ndim == 2]
            calls[part].append(len(boxes[0]) if part == "boxes" else 1)
            return result

        return call

    with ExitStack() as stack:
        for owner, name, part in places:
            stack.enter_context(patch.object(owner, name, clocked(getattr(owner, name), part)))
        yield spent, calls


def operations() -> dict[tuple[str, str], Callable[[list[int]], float]]:
    """Return for each way and part the number of operations of its calls."""
    with torch.device("meta"):
        sam = build_sam("lite_medsam", attention="original").eval()
        side = sam.image_encoder.img_size
        image = torch.empty(1, 3, side, side)
        with FlopCounterMode(display=False) as encoder:
            sam.image_encoder(image)  # layer by layer, as published, because its weights train
        once = {"published": encoder.get_total_flops()}
        sam.requires_grad_(False)
        with FlopCounterMode(display=False) as encoder:
            embedding = sam.image_encoder(image)
        once["ours"] = encoder.get_total_flops()

        def published(boxes: int) -> None:
            sparse, dense = sam.prompt_encoder(None, torch.empty(boxes, 4), None)
            position = sam.prompt_encoder.get_dense_pe()
            sam.mask_decoder(embedding, position, sparse, dense, multimask_output=False)

        def shared(boxes: int) -> None:
            _ = [*decode_boxes(sam, embedding, torch.empty(boxes, 4))]

        one, ours, two = (
            counted(run, boxes) for run, boxes in ((published, 1), (shared, 1), (shared, 2))
        )
    return {
        ("published", "encoder"): lambda calls: once["published"] * sum(calls),
        ("ours", "encoder"): lambda calls: once["ours"] * sum(calls),
        ("published", "boxes"): lambda calls: one * sum(calls),
        ("ours", "boxes"): lambda calls: sum(ours + (n - 1) * (two - ours) for n in calls),
    }


def counted(run: Callable[[int], None], boxes: int) -> float:
    """Return the multiplications and additions of a call."""
    with FlopCounterMode(display=False) as counter:
        run(boxes)
    return counter.get_total_flops()


def fastest_product() -> float:
    """Return the operations per second of the faster kernel of a product in float32, one core."""
    x, weight = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    best = 0.0
    with torch.inference_mode():
        for kernel in (torch.nn.functional.linear, linear):
            for _ in range(TURNS):
                began = time.perf_counter()
                kernel(x, weight)
                best = max(best, 2 * SIDE**3 / (time.perf_counter() - began))
    return best


if __name__ == "__main__":
    main()
