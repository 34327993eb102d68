"""Many boxes on one image, here and the published way, side by side in one run.

`python -m tools.boxes` runs it. The published way is one decoder call per box, each mask brought to
the picture's size (segment_anything, LiteMedSAM); the batched way gives the same decoder several
boxes in a call (SAMIL gives it all). Times depend on the machine and on who else uses it, so all
take turns and the ratio counts.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from medsaga_lib.backbones.sam import POCKET, build_sam
from medsaga_lib.backbones.weights import load_state
from medsaga_lib.data.folder import open_dataset
from medsaga_lib.data.images import read_case_mask, read_pair
from medsaga_lib.data.longest_side import Frame
from medsaga_lib.data.procedural import TRAINED
from medsaga_lib.data.prompts import box_of
from medsaga_lib.multibox import segment_boxes
from medsaga_lib.pretraining.pictures import unseen_scenes
from medsaga_lib.prompted import embed

BOXES = 241  # in the case that LiteMedSAM's authors time (2DBox_Microscope_0016, 19.1 s)
AT_ONCE = 16  # boxes in a call of the batched way; all 241 would need gigabytes
SCENES = 4  # along one side of the drawn picture, each as large as the pocket SAM's input


class Task(NamedTuple):
    """A decoder, an image embedding, and masks (N, H, W) to ask for by their boxes.

    `look` computes an image embedding of that size, so that it can be timed, too.
    """

    name: str
    sam: Sam
    embedding: Tensor
    truth: np.ndarray
    look: Callable[[], Tensor] | None = None

    @property
    def boxes(self) -> Tensor:
        return torch.from_numpy(np.stack([box_of(mask) for mask in self.truth])).float()


@torch.inference_mode()
def one_by_one(
    sam: Sam, embedding: Tensor, boxes: Tensor, size: tuple[int, int], at_once: int = 1
) -> Iterator[np.ndarray]:
    """The published way: each box's mask (H, W) bool; arguments as in `segment_boxes`.

    at_once: boxes in a call of the decoder, which repeats the image embedding for each.
    """
    frame = Frame(size, sam.prompt_encoder.input_image_size[0])
    position = sam.prompt_encoder.get_dense_pe()
    for some in frame.boxes(boxes).split(at_once):
        sparse, dense = sam.prompt_encoder(None, some, None)
        logits, _ = sam.mask_decoder(embedding, position, sparse, dense, multimask_output=False)
        yield from (sam.postprocess_masks(logits, frame.inner, size)[:, 0] > 0).numpy()


def bench(boxes: int = BOXES, rounds: int = 3) -> list[dict[str, Any]]:
    """For each task the seconds, by the clock and of the processor, and how far masks agree."""
    return [measure(task, rounds) for task in (nuclei(boxes), drawn(boxes))]


def measure(task: Task, rounds: int) -> dict[str, Any]:
    """Seconds of each round, ratios published to ours, and how far the masks agree.

    `ratio_with_look` has the image encoder's time in both.
    """
    arguments = task.sam, task.embedding, task.boxes, task.truth.shape[1:]
    contestants = {
        "published": lambda: list(one_by_one(*arguments)),
        "batched": lambda: list(one_by_one(*arguments, AT_ONCE)),
        "ours": lambda: segment_boxes(*arguments).masks,
    }
    if task.look is not None:
        contestants["look"] = task.look
    clocks = {"seconds": time.perf_counter, "cpu_seconds": time.process_time}
    spent: dict[str, dict[str, list[float]]] = {c: {n: [] for n in contestants} for c in clocks}
    masks: dict[str, Any] = {}
    for _ in range(rounds):
        for name, run in contestants.items():
            began = {clock: read() for clock, read in clocks.items()}
            masks[name] = run()
            for clock, read in clocks.items():
                spent[clock][name].append(read() - began[clock])
    ratios = {
        clock: median(p / o for p, o in zip(times["published"], times["ours"], strict=True))
        for clock, times in spent.items()
    }
    with_look = {}
    if task.look is not None:
        took = spent["seconds"]
        rounds_of = zip(took["published"], took["ours"], took["look"], strict=True)
        with_look = {"ratio_with_look": median((p + look) / (o + look) for p, o, look in rounds_of)}
    published, size = masks["published"], task.truth.shape[1:]
    ours = [mask.whole(size) for mask in masks["ours"]]
    agreement = [*map(iou, published, ours)]
    return {
        "name": task.name,
        "boxes": len(task.truth),
        "size": list(size),
        **spent,
        "ratio": ratios,
        **with_look,
        "least_iou": min(agreement),
        "not_empty": sum(bool(mask.any()) for mask in published),
        "iou_with_truth": float(np.mean([*map(iou, ours, task.truth)])),
    }


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0


def nuclei(boxes: int) -> Task:
    """Nuclei of the test picture that has most of them (313)."""
    dataset = open_dataset("nuclei_dsb2018")
    numbers = {case: read_case_mask(case).values for case in dataset.split("test") if case.mask}
    case = max(numbers, key=lambda case: len(np.unique(numbers[case])))
    picture, _ = read_pair(dataset, case)
    values = [value for value in np.unique(numbers[case]) if value][:boxes]
    sam = _loaded("pocket", POCKET.size)
    truth = np.stack([numbers[case] == value for value in values])
    look = partial(embed, sam, picture.pixels)
    return Task("pocket SAM, nuclei", sam, look(), truth, look)


def drawn(boxes: int) -> Task:
    """Drawn objects, in turns until there are enough; the pocket SAM in a decoder of SAM's size.

    That is TinyViT-SAM's decoder, too; the look is its encoder's, whose time no weights change.
    """
    side = SCENES * POCKET.size
    image, masks = np.zeros((side, side, 3), np.float32), []
    for place, scene in enumerate(unseen_scenes(SCENES**2, TRAINED, POCKET.size)):
        row, column = (POCKET.size * at for at in divmod(place, SCENES))
        here = slice(row, row + POCKET.size), slice(column, column + POCKET.size)
        image[here] = scene.image / np.float32(255)
        for mask in scene.masks():
            masks.append(np.zeros((side, side), bool))
            masks[-1][here] = mask
    sam = _loaded("pocket", side)
    embedding = embed(sam, image).repeat_interleave(2, dim=1)
    return Task(
        "256 channels, 64 x 64",
        widened(sam),
        embedding,
        np.stack(list(islice(cycle(masks), boxes))),
        partial(embed, build_sam("lite_medsam").eval(), image),
    )


def _loaded(name: str, size: int) -> Sam:
    sam = build_sam(name, size)
    sam.load_state_dict(load_state(name, size))
    return sam.eval()


def widened(sam: Sam) -> Sam:
    """A pocket SAM whose prompt encoder and mask decoder are as wide as SAM's and do the same.

    Every channel stands twice, and what sums over channels has half the weight (Net2Net, Chen et
    al., 1511.05641); heads are copied as a whole. Image embeddings must be doubled likewise. The
    image encoder is SAM's without weights.
    """
    with torch.device("meta"):
        wide = build_sam("vit_b", sam.image_encoder.img_size).eval()
    for part in ("prompt_encoder", "mask_decoder"):
        narrow, module = sam.get_submodule(part).state_dict(), wide.get_submodule(part)
        state = {k: _widened(k, narrow[k], t.shape) for k, t in module.state_dict().items()}
        module.load_state_dict(state, assign=True)
    return wide


def _widened(key: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    summed = 0 if key.startswith("output_upscaling") else 1  # of a transposed convolution: first
    if tensor.ndim < 2 or "embed" in key or "token" in key.split(".")[0] or "gaussian" in key:
        summed = -1  # nothing is summed
    by_head = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "out_proj": 1}
    heads = next((axis for name, axis in by_head.items() if name in key), -1)
    for axis, (old, new) in enumerate(zip(tensor.shape, shape, strict=True)):
        copies = [tensor] * (new // old)
        if axis == heads:
            tensor = torch.cat(copies, axis)
        else:
            tensor = tensor.repeat_interleave(new // old, axis)
        if axis == summed:
            tensor = tensor / (new // old)
    if "hypernetworks" in key and ".layers.2." in key:
        tensor = tensor / 2  # their result is multiplied with the doubled channels
    return tensor
