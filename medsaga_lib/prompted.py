"""A SAM that is asked by boxes, trained here or as it came: pictures and volumes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from skimage.transform import resize
from torch import Tensor
from torch.nn import functional

from medsaga_lib import boxes3d
from medsaga_lib.backbones.sam import SHAPES, build_sam
from medsaga_lib.backbones.weights import load_state
from medsaga_lib.data import litemedsam
from medsaga_lib.data.boxes import Boxes, require_boxes, stored_boxes
from medsaga_lib.data.images import Picture, Window, read_image
from medsaga_lib.data.longest_side import Frame
from medsaga_lib.errors import UserError
from medsaga_lib.inference import load_run, recipe_of
from medsaga_lib.multibox import paint_boxes, segment_boxes
from medsaga_lib.results import require_room, stem, targets, write_bytes, write_labels
from medsaga_lib.runs import read_run

Way = Literal["propagate", "same"]  # from slice to slice, see `boxes3d`


@torch.inference_mode()
def embed(sam: Sam, pixels: np.ndarray, squeezed: bool = False) -> Tensor:
    """Image embedding (1, C, h, w) of a picture (H, W) or (H, W, 3) in [0, 1].

    As segment_anything's `SamPredictor`: antialiased bilinear, proportions kept, SAM's
    normalisation, then zeros to the right and below. squeezed: as in `Frame`, for what was trained
    here.
    """
    channels = _three_channels(pixels).movedim(-1, 0)[None]
    inner = Frame(pixels.shape[:2], sam.image_encoder.img_size, squeezed).inner
    small = functional.interpolate(
        channels, inner, mode="bilinear", align_corners=False, antialias=True
    )
    return sam.image_encoder(sam.preprocess(255 * small.to(sam.device)))


@torch.inference_mode()
def embed_litemedsam(sam: Sam, pixels: np.ndarray) -> Tensor:
    """As `embed`, but fed as LiteMedSAM was trained: area, min-max (`data.litemedsam`)."""
    grey_levels = (255 * _three_channels(pixels)).round().to(torch.uint8).numpy()
    given = litemedsam.network_input(grey_levels, sam.image_encoder.img_size)
    return sam.image_encoder(torch.from_numpy(given)[None].to(sam.device))


@torch.inference_mode()
def embed_medsam(sam: Sam, pixels: np.ndarray) -> Tensor:
    """As `embed`, but fed as MedSAM was trained: squeezed by cubic splines, min-max.

    Source: bowang-lab/MedSAM, MedSAM_Inference.py.
    """
    side = sam.image_encoder.img_size
    grey_levels = (255 * _three_channels(pixels)).round().numpy()
    square = resize(grey_levels, (side, side), order=3, preserve_range=True, anti_aliasing=True)
    square = np.trunc(square)  # the script's uint8
    given = (square - square.min()) / max(np.ptp(square), litemedsam.LEAST_RANGE)
    return sam.image_encoder(torch.from_numpy(given).float().movedim(-1, 0)[None].to(sam.device))


def _three_channels(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) of (H, W) or (H, W, 3)."""
    channels = torch.from_numpy(np.ascontiguousarray(pixels, np.float32))
    return (channels if channels.ndim == 3 else channels[..., None]).expand(-1, -1, 3)


@dataclass(frozen=True)
class BoxPrompts:
    """A SAM and how it is fed."""

    sam: Sam
    modality: str = ""
    window: Window | None = None
    embed: Callable[[Sam, np.ndarray], Tensor] = embed
    frame: Callable[[tuple[int, int], int], Frame] = Frame  # `embed` must place pictures so

    def __call__(self, picture: Picture, boxes: Boxes, way: Way = "propagate") -> NDArray[np.int64]:
        """Label map of the picture's size, 1 ... N in the order of the boxes.

        Raises:
            UserError: the boxes do not fit the picture.
        """
        require_boxes(boxes, picture.shape)
        if len(picture.shape) == 2:
            embedding = self.embed(self.sam, picture.pixels)
            frame = self._frame(picture.shape)
            asked = torch.from_numpy(boxes)
            return segment_boxes(self.sam, embedding, asked, frame.size, frame=frame).labels
        return self._volume(picture.pixels, boxes, way)

    def _frame(self, size: tuple[int, ...]) -> Frame:
        height, width = size
        return self.frame((height, width), self.sam.prompt_encoder.input_image_size[0])

    def _volume(self, pixels: np.ndarray, boxes: Boxes, way: Way) -> NDArray[np.int64]:
        frame = self._frame(pixels.shape[1:])
        flat = frame.boxes(torch.from_numpy(boxes[:, [0, 1, 3, 4]])).numpy()
        spans = [range(int(first), int(last) + 1) for first, last in boxes[:, [2, 5]]]
        best, labels = torch.zeros(pixels.shape), torch.zeros(pixels.shape, dtype=torch.int64)

        twice = boxes3d.both_ways(spans) if way == "propagate" else set()
        kept: dict[int, Tensor] = {}

        def segment(z: int, asked: np.ndarray, objects: Sequence[int]) -> list[np.ndarray]:
            embedding = kept.pop(z, None)
            if embedding is None:
                embedding = self.embed(self.sam, pixels[z])
                if z in twice:
                    kept[z] = embedding
            values = [1 + number for number in objects]
            here = frame, values, best[z], labels[z]
            masks = paint_boxes(self.sam, embedding, torch.from_numpy(asked), *here)
            return [mask.whole(frame.size) for mask in masks]

        def next_box(mask: np.ndarray) -> np.ndarray | None:
            box = litemedsam.box_of(mask)
            if box is None:
                return None
            if frame.whole:
                return box
            of_picture = box / Frame(frame.size, litemedsam.SIDE).ratios.numpy()
            return frame.boxes(torch.from_numpy(of_picture[None]))[0].numpy()

        if way == "same":
            boxes3d.same_box(flat, spans, len(pixels), segment)
        else:
            boxes3d.propagate(flat, spans, len(pixels), segment, next_box)
        return labels.numpy()


# Backbones that were trained on pictures prepared otherwise than SAM's
FED: dict[str, tuple[Callable, Callable]] = {
    "medsam": (embed_medsam, partial(Frame, squeezed=True)),
    "lite_medsam": (embed_litemedsam, partial(Frame, whole=True)),
}


def takes_boxes(run: Path) -> bool:
    """Whether a backbone or a run is asked by boxes; UserError if it is neither."""
    if str(run) in SHAPES:
        return True
    return recipe_of(read_run(run)).head == "boxes"


def load_prompted(run: Path, window: Window | None = None) -> BoxPrompts:
    """A backbone as it came, by its name, or a run whose recipe is prompted by boxes.

    Args:
        run: a backbone's name or a run's folder.
        window: intensities that become 0 and 1, for a backbone; default: as in `read_image`.

    Raises:
        UserError: neither, or the run's recipe takes no boxes, or has a window of its own.
    """
    if not takes_boxes(run):
        raise UserError(
            f"{run} was trained to predict without boxes; leave --box, or give a backbone's name "
            f"({', '.join(SHAPES)}) in its place."
        )
    if str(run) in SHAPES:
        sam = build_sam(str(run))
        sam.load_state_dict(load_state(str(run)))
        fed, frame = FED.get(str(run), (embed, Frame))
        return BoxPrompts(sam.eval(), window=window, embed=fed, frame=frame)
    if window is not None:
        raise UserError(f"{run} was trained with its own window; leave --window.")
    if recipe_of(read_run(run)).answer != "single":
        raise UserError(
            f"{run} answers with the best of several masks, which only `medsaga evaluate` does; "
            "train with --set answer=single."
        )
    trained = load_run(run)
    sam = trained.model.get_submodule("sam").cpu()
    return BoxPrompts(
        sam,  # type: ignore[arg-type]
        trained.modality,
        trained.window,
        embed=partial(embed, squeezed=True),
        frame=partial(Frame, squeezed=True),
    )


def predict_boxes(
    prompts: BoxPrompts,
    inputs: list[Path],
    out: Path,
    boxes: Boxes | None = None,
    way: Way = "propagate",
) -> Iterator[dict[str, Any]]:
    """Predicts files by boxes and writes the results to a folder, one record for each.

    Files are named as in `results.targets`, labels are 1 ... N in the order of the boxes; beside a
    picture's there is STEM_overlay.png with the boxes.

    Args:
        boxes: for every input; default: those that each npz file holds.

    Raises:
        UserError: an input cannot be read, boxes do not fit, or the folder cannot be written.
    """
    for target, path in targets(inputs, out).items():
        picture = read_image(path, prompts.modality, prompts.window)
        require_room(target, path, picture)
        asked = stored_boxes(path) if boxes is None else boxes
        labels = prompts(picture, asked, way)
        write_labels(target, picture, labels)
        counts = np.bincount(labels.ravel(), minlength=len(asked) + 1)[1:].tolist()
        record: dict[str, Any] = {"input": str(path), "labels": str(target), "voxels": counts}
        if target.suffix == ".png":
            from medsaga_lib.display import show_boxes, to_png

            overlay = out / f"{stem(path)}_overlay.png"
            write_bytes(overlay, to_png(show_boxes(picture.pixels, labels, asked)))
            record["overlay"] = str(overlay)
        yield record
