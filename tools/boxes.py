"""Time many boxes on one image, with the published decoder and with ours, for the book.

    python -m tools.boxes

The result is notebooks/recorded/boxes.json, which chapter 8 shows: the tasks of
`medsaga_lib.bench.boxes`, and other ways that are said to be fast on a CPU. ONNX Runtime is one of
them if `onnx`, `onnxscript` and `onnxruntime` are installed.
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

from medsaga_lib.bench.boxes import AT_ONCE, Task, compare_boxes, iou, one_by_one, tasks
from medsaga_lib.files import write_json
from medsaga_lib.inference.box_decoder import segment_boxes
from medsaga_lib.models.frame import Frame
from tools.provenance import RECORDED, machine

TRIED = 12  # boxes; bfloat16 takes a second per box if the processor does not support it


def main() -> None:
    """Measure the times and write the file."""
    origin = {"command": "python -m tools.boxes", **machine(), "batched_at_once": AT_ONCE}
    measured, tried = compare_boxes(), attempts(tasks(TRIED)[-1])
    content = {"provenance": origin, "tasks": measured, "attempts": tried}
    write_json(RECORDED / "boxes.json", content)
    for task in measured:
        agree = f"IoU with the published masks at least {task['least_iou']:.4f}"
        print(f"{task['name']}: {task['ratio']['seconds']:.1f} times as fast as published, {agree}")
    for way in tried:
        print(f"{way['name']}: {way['ratio']:.2f} times as fast, first run {way['start']:.0f} s")


def attempts(task: Task, rounds: int = 7) -> list[dict[str, Any]]:
    """Time ways that are said to be fast, on a few boxes: seconds of each round and of the start.

    `ratio` is the time of the published way / the time of this way, in the same run, without the
    start.
    """
    sam, embedding = task.predictor.sam, task.predictor.embed(task.pixels)
    arguments = sam, embedding, task.boxes, task.frame
    compiled = copy(sam)
    compiled._modules = {**sam._modules, "mask_decoder": torch.compile(sam.mask_decoder)}
    ways: dict[str, Callable[[], Any]] = {
        "published": lambda: list(one_by_one(*arguments)),
        "ours": lambda: _whole(*arguments),
        "torch.compile": lambda: list(one_by_one(compiled, *arguments[1:])),
        "bfloat16": lambda: _in_bfloat16(*arguments),
    }
    if all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        ways["ONNX Runtime"] = partial(_by_onnx, _exported(sam, embedding, task.boxes), *arguments)
    starts, masks = {}, {}
    for name, run in ways.items():  # compilation happens here
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
            "boxes": len(task.boxes),
            "start": starts[name],
            "seconds": took,
            "ratio": median(p / t for p, t in zip(spent["published"], took, strict=True)),
            "least_iou": min(map(iou, masks["published"], masks[name])),
        }
        for name, took in spent.items()
    ]


def _whole(sam: Any, embedding: Tensor, boxes: Tensor, frame: Frame) -> list[np.ndarray]:
    found = segment_boxes(sam, embedding, boxes, frame.size, frame=frame)
    return [mask.whole(frame.size) for mask in found.masks]


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
def _exported(sam: Any, embedding: Tensor, boxes: Tensor) -> Any:
    """Export the network's decoder to a session of ONNX Runtime."""
    import onnxruntime

    sparse, dense = sam.prompt_encoder(None, boxes[:1], None)
    example = embedding, sparse, dense.contiguous()
    program: Any = torch.onnx.export(_Published(sam).eval(), example, dynamo=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options)


@torch.no_grad()
def _by_onnx(
    session: Any, sam: Any, embedding: Tensor, boxes: Tensor, frame: Frame
) -> list[np.ndarray]:
    """Compute `one_by_one` with the exported decoder."""
    names = [entry.name for entry in session.get_inputs()]
    found = []
    for box in frame.boxes(boxes).split(1):
        sparse, dense = sam.prompt_encoder(None, box, None)
        given = zip(names, (embedding, sparse, dense.contiguous()), strict=True)
        (logits,) = session.run(None, {name: tensor.numpy() for name, tensor in given})
        whole = sam.postprocess_masks(torch.from_numpy(logits), frame.inner, frame.size)
        found.append((whole[0, 0] > 0).numpy())
    return found


if __name__ == "__main__":
    main()
