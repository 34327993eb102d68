"""Times many boxes on one picture, the published ways and ours: a recorded run of the book.

    python -m tools.boxes

Writes notebooks/recorded/boxes.json: the tasks of `medsaga_lib.bench_boxes`, and other ways that
are said to be fast on a CPU, which chapter 8 shows. ONNX Runtime is among them where `onnx`,
`onnxscript` and `onnxruntime` are installed.
"""

import time
from collections.abc import Callable
from copy import copy
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medsaga_lib.bench_boxes import AT_ONCE, Task, bench, drawn, iou, one_by_one
from medsaga_lib.data.longest_side import Frame
from medsaga_lib.files import write_json
from medsaga_lib.multibox import segment_boxes
from tools.record import RECORDED, machine

TRIED = 12  # boxes; bfloat16 takes a second for each where the processor has none


def main() -> None:
    """Measures and writes the file."""
    origin = {"command": "python -m tools.boxes", **machine(), "batched_at_once": AT_ONCE}
    tasks, tried = bench(), attempts(drawn(TRIED))
    content = {"provenance": origin, "tasks": tasks, "attempts": tried}
    write_json(RECORDED / "boxes.json", content)
    for task in tasks:
        agree = f"IoU with the published masks at least {task['least_iou']:.4f}"
        print(
            f"{task['name']}: {task['ratio']['seconds']:.1f} times faster than published, {agree}"
        )
    for way in tried:
        print(f"{way['name']}: x {way['ratio']:.2f}, after a start of {way['start']:.0f} s")


def attempts(task: Task, rounds: int = 3) -> list[dict[str, Any]]:
    """Ways that are said to be fast, on a few boxes: seconds of each round, and a start's.

    `ratio` is the published way's time for one of theirs, in the same run, after the start.
    """
    arguments = task.sam, task.embedding, task.boxes, task.truth.shape[1:]
    compiled = copy(task.sam)
    compiled._modules = {**task.sam._modules, "mask_decoder": torch.compile(task.sam.mask_decoder)}
    ways: dict[str, Callable[[], Any]] = {
        "published": lambda: list(one_by_one(*arguments)),
        "ours": lambda: _whole(*arguments),
        "torch.compile": lambda: list(one_by_one(compiled, *arguments[1:])),
        "bfloat16": lambda: _in_bfloat16(*arguments),
    }
    if all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        ways["ONNX Runtime"] = partial(_by_onnx, _exported(task), *arguments)
    starts, masks = {}, {}
    for name, run in ways.items():  # what compiles does it now
        began = time.perf_counter()
        masks[name] = run()
        starts[name] = time.perf_counter() - began
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            spent[name].append(time.perf_counter() - began)
    return [
        {
            "name": name,
            "boxes": len(task.truth),
            "start": starts[name],
            "seconds": took,
            "ratio": median(p / t for p, t in zip(spent["published"], took, strict=True)),
            "least_iou": min(map(iou, masks["published"], masks[name])),
        }
        for name, took in spent.items()
    ]


def _whole(*arguments: Any) -> list[np.ndarray]:
    return [mask.whole(arguments[3]) for mask in segment_boxes(*arguments).masks]


def _in_bfloat16(*arguments: Any) -> list[np.ndarray]:
    with torch.autocast("cpu", torch.bfloat16):
        return list(one_by_one(*arguments))


class _Published(nn.Module):
    """The published decoder as a function of tensors alone."""

    def __init__(self, sam: Any):
        super().__init__()
        self.decoder, self.position = sam.mask_decoder, sam.prompt_encoder.get_dense_pe()

    def forward(self, embedding: Tensor, sparse: Tensor, dense: Tensor) -> Tensor:
        return self.decoder(embedding, self.position, sparse, dense, multimask_output=False)[0]


@torch.no_grad()
def _exported(task: Task) -> Any:
    """A session of ONNX Runtime with the task's decoder."""
    import onnxruntime

    encoder = task.sam.prompt_encoder
    sparse, dense = encoder(None, task.boxes[:1], None)
    example = task.embedding, sparse, dense.contiguous()
    program: Any = torch.onnx.export(_Published(task.sam).eval(), example, dynamo=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options)


@torch.no_grad()
def _by_onnx(
    session: Any, sam: Any, embedding: Tensor, boxes: Tensor, size: tuple[int, int]
) -> list[np.ndarray]:
    """`one_by_one` with the exported decoder."""
    frame = Frame(size, sam.prompt_encoder.input_image_size[0])
    names = [entry.name for entry in session.get_inputs()]
    found = []
    for box in frame.boxes(boxes).split(1):
        sparse, dense = sam.prompt_encoder(None, box, None)
        given = zip(names, (embedding, sparse, dense.contiguous()), strict=True)
        (logits,) = session.run(None, {name: tensor.numpy() for name, tensor in given})
        whole = sam.postprocess_masks(torch.from_numpy(logits), frame.inner, size)
        found.append((whole[0, 0] > 0).numpy())
    return found


if __name__ == "__main__":
    main()
