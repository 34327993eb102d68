"""Prediction from box prompts in images and volumes, with a backbone or a trained run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import Tensor

from medsaga_lib.data.domain import Domain, shift_notes
from medsaga_lib.data.images import Picture, Window, read_image
from medsaga_lib.data.label_files import require_room, targets, write_labels
from medsaga_lib.errors import UserError
from medsaga_lib.files import file_stem, write_bytes
from medsaga_lib.inference import volume_boxes
from medsaga_lib.inference.box_decoder import paint_boxes, segment_boxes
from medsaga_lib.inference.predictor import load_run
from medsaga_lib.inference.runtime import Runtime, use_runtime
from medsaga_lib.inference.user_boxes import Boxes, require_boxes, stored_boxes
from medsaga_lib.models.feeding import FEED_OF, SQUEEZE, Feed
from medsaga_lib.models.frame import Frame
from medsaga_lib.models.heads import embed_images
from medsaga_lib.models.sam import SHAPES, build_sam
from medsaga_lib.models.weights import load_state
from medsaga_lib.training.run_folder import read_run, recipe_of

SliceRule = Literal["propagate", "same"]  # how boxes go from slice to slice, see `volume_boxes`


@dataclass(frozen=True)
class BoxPredictor:
    """A SAM that takes box prompts, and the preprocessing of its input."""

    sam: Sam
    modality: str = ""
    window: Window | None = None
    feed: Feed = SQUEEZE
    domain: Domain | None = None  # what the training images of a run were like
    runtime: str = "torch"  # of the image encoder

    def __call__(
        self,
        picture: Picture,
        boxes: Boxes,
        rule: SliceRule = "propagate",
        kept: dict[int, Tensor] | None = None,
    ) -> NDArray[np.int64]:
        """Return a label map of the image's size, with labels 1 ... N in the order of the boxes.

        Args:
            picture: the image or volume.
            boxes: (N, 4) of an image or (N, 6) of a volume.
            rule: how boxes of a volume go from slice to slice.
            kept: embeddings of a volume's slices, by their number. Missing ones are computed and
                added, so a second call with the same dictionary encodes no slice again. Default:
                embeddings are not kept.

        Raises:
            UserError: the boxes do not fit the image.
        """
        require_boxes(boxes, picture.shape)
        if len(picture.shape) == 2:
            frame, asked = self.frame(picture.shape), torch.from_numpy(boxes)
            embedding = self.embed(picture.pixels)
            return segment_boxes(self.sam, embedding, asked, frame.size, frame=frame).labels
        return self._volume(picture.pixels, boxes, rule, kept)

    @torch.inference_mode()
    def embed(self, pixels: np.ndarray) -> Tensor:
        """Return the image embedding (1, C, h, w) of an image (H, W) or (H, W, 3) in [0, 1]."""
        picture = torch.from_numpy(np.ascontiguousarray(pixels, np.float32))
        channels = (picture if picture.ndim == 3 else picture[..., None]).movedim(-1, 0)[None]
        given = self.feed.images(channels, self.sam.image_encoder.img_size)
        return embed_images(self.sam, given.expand(-1, 3, -1, -1).to(self.sam.device))

    def frame(self, size: tuple[int, ...]) -> Frame:
        """Return the position of an image of `size` (H, W) in the network's input."""
        return self.feed.frame(size, self.sam.prompt_encoder.input_image_size[0])

    def _volume(
        self, pixels: np.ndarray, boxes: Boxes, rule: SliceRule, kept: dict[int, Tensor] | None
    ) -> NDArray[np.int64]:
        frame = self.frame(pixels.shape[1:])
        flat = frame.boxes(torch.from_numpy(boxes[:, [0, 1, 3, 4]])).numpy()
        spans = [range(int(first), int(last) + 1) for first, last in boxes[:, [2, 5]]]
        best, labels = torch.zeros(pixels.shape), torch.zeros(pixels.shape, dtype=torch.int64)

        twice = volume_boxes.both_ways(spans) if rule == "propagate" else set()
        stored = {} if kept is None else kept

        def segment(z: int, asked: np.ndarray, objects: Sequence[int]) -> list[np.ndarray]:
            embedding = stored.get(z)
            if embedding is None:
                embedding = self.embed(pixels[z])
                if kept is not None or z in twice:
                    stored[z] = embedding
            elif kept is None:  # the second and last visit
                del stored[z]
            values = [1 + number for number in objects]
            here = frame, values, best[z], labels[z]
            masks = paint_boxes(self.sam, embedding, torch.from_numpy(asked), *here)
            return [mask.whole(frame.size) for mask in masks]

        def next_box(mask: np.ndarray) -> np.ndarray | None:
            box = volume_boxes.next_box(mask)
            if box is None:
                return None
            if frame.whole:
                return box * (frame.side / volume_boxes.SIDE)
            of_picture = box / np.tile(Frame(frame.size, volume_boxes.SIDE).ratios.numpy(), 2)
            return frame.boxes(torch.from_numpy(of_picture[None]))[0].numpy()

        if rule == "same":
            volume_boxes.same_box(flat, spans, len(pixels), segment)
        else:
            volume_boxes.propagate(flat, spans, len(pixels), segment, next_box)
        return labels.numpy()


def takes_boxes(run: Path | str) -> bool:
    """Return whether a backbone or a run takes box prompts.

    Raises:
        UserError: `run` is neither a backbone nor a run.
    """
    if str(run) in SHAPES:
        return True
    return recipe_of(read_run(Path(run))).head == "boxes"


def load_box_predictor(
    run: Path | str,
    window: Window | None = None,
    size: int | None = None,
    runtime: Runtime = "torch",
) -> BoxPredictor:
    """Load a backbone by its name, or a run whose recipe is prompted with boxes.

    Args:
        run: a backbone's name or a run's folder.
        window: intensities that become 0 and 1, for a backbone; default: as in `read_image`.
        size: side of the input in pixels, for a backbone; default: that of its checkpoint.
        runtime: of the image encoder (`inference.runtime`).

    Raises:
        UserError: `run` is neither, its recipe takes no boxes, it has a window or a size of its
            own, or the runtime cannot be used.
    """
    if not takes_boxes(run):
        raise UserError(
            f"{run} was trained to predict without boxes; omit --box, or give the name of a "
            f"backbone instead: {', '.join(SHAPES)}."
        )
    if str(run) in SHAPES:
        sam = build_sam(str(run), size)
        sam.load_state_dict(load_state(str(run), size))
        used = use_runtime(sam.eval(), runtime)
        return BoxPredictor(sam, window=window, feed=FEED_OF[str(run)], runtime=used)
    if window is not None:
        raise UserError(f"{run} was trained with its own window; omit --window.")
    if size is not None:
        raise UserError(f"{run} was trained with its own size; omit size={size}.")
    run = Path(run)
    if recipe_of(read_run(run)).answer != "single":
        raise UserError(
            f"{run} predicts the best of several masks, which only `medsaga evaluate` supports; "
            "train with --set answer=single."
        )
    trained = load_run(run, runtime)
    sam = trained.model.get_submodule("sam").cpu()
    how = trained.modality, trained.window, trained.feed, trained.domain, trained.runtime
    return BoxPredictor(sam, *how)  # type: ignore[arg-type]


def predict_boxes(
    predictor: BoxPredictor,
    inputs: list[Path],
    out: Path,
    boxes: Boxes | None = None,
    rule: SliceRule = "propagate",
) -> Iterator[dict[str, Any]]:
    """Predict files from boxes, write the results to a folder and yield one record per file.

    Files are named as in `label_files.targets`, and labels are 1 ... N in the order of the boxes.
    For an image there is also STEM_overlay.png with the boxes.

    Args:
        predictor: the network.
        inputs: files of images or volumes.
        out: the folder.
        boxes: the same for every input, in voxels of its file; default: those stored in each npz
            file.
        rule: how boxes of a volume go from slice to slice.

    Raises:
        UserError: an input cannot be read, boxes do not fit, or the folder cannot be written.
    """
    for target, path in targets(inputs, out).items():
        picture = read_image(path, predictor.modality, predictor.window)
        require_room(target, path, picture)
        asked = stored_boxes(path) if boxes is None else boxes
        if (where := picture.geometry) is not None:
            require_boxes(asked, where.shape_outside(picture.shape))
            asked = where.boxes_inside(asked, picture.shape)
        labels = predictor(picture, asked, rule)
        write_labels(target, picture, labels, path)
        counts = np.bincount(labels.ravel(), minlength=len(asked) + 1)[1:].tolist()
        record: dict[str, Any] = {"input": str(path), "labels": str(target), "voxels": counts}
        record["notes"] = shift_notes(predictor.domain, path, picture)
        if target.suffix == ".png":
            from medsaga_lib.display import show_boxes, to_png

            overlay = out / f"{file_stem(path)}_overlay.png"
            write_bytes(overlay, to_png(show_boxes(picture.pixels, labels, asked)))
            record["overlay"] = str(overlay)
        yield record
