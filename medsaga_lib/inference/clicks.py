"""Clicks and boxes on an image in a notebook: a mask for each prompt, kept as labels.

It needs ipywidgets and anywidget, which JupyterLab, VS Code and Colab show without an extension.
`clicks.js` beside this file draws the prompt and listens to pointer and keyboard.
"""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from traitlets import Dict, Int, Unicode

from medsaga_lib.data.images import Picture, read_image
from medsaga_lib.data.label_files import require_room, targets, write_labels
from medsaga_lib.display.page import Shown
from medsaga_lib.display.pictures import show_boxes
from medsaga_lib.display.style import OTHERS
from medsaga_lib.errors import UserError, counted
from medsaga_lib.inference.box_predictor import BoxPredictor, load_box_predictor
from medsaga_lib.inference.prompts import Point, segment_prompt

try:
    from anywidget import AnyWidget
    from ipywidgets import HTML, BoundedIntText, Button, HBox, IntSlider, ToggleButtons, VBox

    from medsaga_lib.display.controls import view_of
except ImportError as error:
    raise UserError(
        "Clicks in a notebook need anywidget and ipywidgets; run pip install anywidget ipywidgets."
    ) from error

SIDE = 1024  # pixels of the longer side of a shown image, at most; our choice
TINT, EDGE = 90, 255  # alpha of a mask and of its edge; our choice
MASK = "#E69F00"  # of the mask that is not kept yet: orange, as on the page "Try it"
LARGEST_LABEL = 255
KEPT = 16  # embeddings of slices, of 4 MB each for LiteMedSAM; our choice
BEGIN = "Draw a box around an object."
WITH_POINTS = "pocket", "vit_b", "mobile_sam"  # trained with points; the others with boxes alone
NONE: dict[str, Any] = {"box": None, "points": []}
TOOLS = [("box", "box"), ("point in the object", "object"), ("point outside", "outside")]

STYLE = """
.clicks { position: relative; max-width: 100%; cursor: crosshair; touch-action: none; }
.clicks > * { display: block; width: 100%; pointer-events: none; user-select: none; }
.clicks > img + img, .clicks > svg { position: absolute; inset: 0; height: 100%; }
.clicks > [hidden] { display: none; }
.clicks:focus-visible { outline: 3px solid #0072b2; }
"""


class Stage(AnyWidget):  # type: ignore[misc]
    """An image with a prompt; the browser changes `prompt`, Python the rest."""

    _esm = Path(__file__).with_suffix(".js")
    _css = STYLE
    picture = Unicode().tag(sync=True)  # a data URL, and so is the overlay
    overlay = Unicode().tag(sync=True)
    alt = Unicode().tag(sync=True)
    width = Int().tag(sync=True)  # of the image in pixels, in which a prompt is given
    height = Int().tag(sync=True)
    prompt = Dict(NONE).tag(sync=True)
    tool = Unicode("box").tag(sync=True)
    answers = Int(0).tag(sync=True)  # prompts that have been answered


class Clicks(VBox):  # type: ignore[misc]
    """Segment an image or the slices of a volume by boxes and points, and keep masks as labels.

    Show it as the last line of a cell. A page without a kernel shows the image with the last box
    and its mask instead.

    Args:
        image: a file, or a picture in [0, 1] as `read_image` returns it.
        network: the name of a backbone, the folder of a run that takes boxes, or a `BoxPredictor`.
        modality: as in `read_image`, for a file and a backbone.
        caption: a sentence below the figure of a page without a kernel.

    Attributes:
        mask: (H, W) bool, of the last prompt.
        score: the network's own estimate of its IoU.
        labels: (H, W) or (D, H, W) int64, the masks that were kept, by their values.

    Raises:
        UserError: the file cannot be read, or the network takes no boxes.
    """

    def __init__(
        self,
        image: Picture | Path | str,
        network: BoxPredictor | Path | str = "lite_medsam",
        modality: str = "",
        caption: str = "",
    ) -> None:
        self.path = None if isinstance(image, Picture) else Path(image)
        self._points = str(network) in WITH_POINTS
        if not isinstance(network, BoxPredictor):
            network = load_box_predictor(network)
        self.predictor = network
        self.picture = self._read(image, modality)
        self._caption, self._answered = caption, NONE
        self._embeddings: dict[int, Tensor] = {}  # of slices
        self.labels = np.zeros(self.picture.shape, np.int64)
        self.mask, self.score = np.zeros(self.picture.shape[-2:], bool), 0.0

        height, width = self.mask.shape
        self.stage = Stage(width=width, height=height)
        self.said = HTML()
        self.tool = ToggleButtons(options=TOOLS, description="prompt")
        self.value = BoundedIntText(1, 0, LARGEST_LABEL, description="label")
        depth = len(self.labels) if self.labels.ndim == 3 else 1
        self.slice = IntSlider(depth // 2, 0, depth - 1, description="slice")
        keep, clear = (Button(description=text) for text in ("Keep as label", "Clear prompt"))
        keep.on_click(lambda _: self.keep(self.value.value))
        clear.on_click(lambda _: self.clear())
        self.tool.observe(lambda change: self.stage.set_trait("tool", change["new"]), "value")
        self.stage.observe(lambda _: self._segment(), "prompt")
        self.slice.observe(lambda _: self._turn(), "value")
        row = HBox([self.value, keep, clear])
        super().__init__([self.tool, self.stage, self.said, row, *[self.slice] * (depth > 1)])
        self._turn()

    def _read(self, image: Picture | Path | str, modality: str) -> Picture:
        if isinstance(image, Picture):
            return image
        how = self.predictor.modality or modality, self.predictor.window
        return read_image(image, *how)

    @property
    def pixels(self) -> NDArray[np.floating]:
        """The image, or the slice of the volume that is shown."""
        return self._shown(self.picture.pixels)

    def _shown(self, array: NDArray[Any]) -> NDArray[Any]:
        return array[self.slice.value] if self.labels.ndim == 3 else array

    def ask(self, box: Sequence[float] | None = None, points: Sequence[Point] = ()) -> None:
        """Segment from a prompt, as a drawn one does; arguments as in `segment_prompt`.

        Raises:
            UserError: there is neither a box nor a point, or one of them is not in the image.
        """
        prompt = {
            "box": None if box is None else [float(number) for number in box],
            "points": [list(point) for point in points],
        }
        self._answer(prompt)
        self.stage.prompt = prompt

    def keep(self, value: int) -> None:
        """Write the mask into the labels with this value, 0 to erase, and clear the prompt.

        Raises:
            UserError: the value is not between 0 and `LARGEST_LABEL`.
        """
        if not 0 <= value <= LARGEST_LABEL:
            raise UserError(f"The label {value} is not between 0 and {LARGEST_LABEL}.")
        if not self.mask.any():
            self._say("There is no mask to keep; draw a box first.")
            return
        labels = self._shown(self.labels)  # a view
        labels[self.mask] = value
        self.clear()
        pixels = counted(int((labels == value).sum()), "pixel")
        self._say(f"Label {value} has {pixels} now." if value else "The mask was erased.")

    def clear(self) -> None:
        """Remove the prompt and its mask; kept labels stay."""
        self.stage.prompt = NONE

    def save(self, folder: Path | str) -> Path:
        """Write the labels on the grid of the image's file and return the path of the new file.

        It is named as by `medsaga predict`: an image gives STEM_labels.png.

        Raises:
            UserError: the image came from no file, nothing was kept, or the file cannot be written.
        """
        if self.path is None:
            raise UserError("The image was not read from a file; use `labels` instead of `save`.")
        if not self.labels.any():
            raise UserError("No mask was kept, so there is nothing to save; keep one first.")
        (target,) = targets([self.path], Path(folder))
        require_room(target, self.path, self.picture)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_labels(target, self.picture, self.labels, self.path)
        return target

    def _segment(self) -> None:
        if self.stage.prompt == self._answered:
            return  # by `ask`
        try:
            self._answer(self.stage.prompt)
        except UserError as error:  # of a prompt from the browser, which shows no traceback
            self._say(str(error))

    def _answer(self, prompt: dict[str, Any]) -> None:
        box, points = prompt["box"], [(x, y, int(inside)) for x, y, inside in prompt["points"]]
        if prompt == NONE:
            self.mask, self.score = np.zeros_like(self.mask), 0.0
            self._say(BEGIN)
        else:
            size = self.stage.height, self.stage.width
            given = self.predictor, self._embedding(), size
            self.mask, self.score = segment_prompt(*given, box, points)
            warning = ""
            if points and not self._points:
                warning = " It was trained with boxes alone, so a point may mislead it."
            self._say(
                f"The mask has {counted(int(self.mask.sum()), 'pixel')}, {self.mask.mean():.1%} of "
                f"the image. The network estimates its IoU as {self.score:.2f}.{warning}"
            )
        self._answered = prompt
        self.stage.overlay = self._overlay()
        self.stage.answers += 1

    def _embedding(self) -> Tensor:
        """Return the embedding of the image or of the slice; the last ones are kept."""
        at = self.slice.value
        if at not in self._embeddings:
            if len(self._embeddings) == KEPT:
                del self._embeddings[next(iter(self._embeddings))]
            self._embeddings[at] = self.predictor.embed(self.pixels)
        return self._embeddings[at]

    def _turn(self) -> None:
        """Show the image, or another slice, without a prompt."""
        name = self.path.name if self.path else "An image"
        where = f", slice {self.slice.value}" if self.labels.ndim == 3 else ""
        self.stage.alt = f"{name}{where}."
        self.stage.picture = _url(Image.fromarray(_bytes(_small(self.pixels))).convert("RGB"))
        self.stage.prompt = NONE
        self.stage.overlay = self._overlay()
        self._say(BEGIN)

    def _overlay(self) -> str:
        """Draw the kept labels and the mask as a transparent picture."""
        labels, mask = _small(self._shown(self.labels)), _small(self.mask)
        tints = [*OTHERS[:4], OTHERS[5]]  # orange is the mask's
        drawn = np.zeros((*mask.shape, 4), np.uint8)
        for value in np.unique(labels[labels > 0]):
            _paint(drawn, labels == value, tints[(int(value) - 1) % len(tints)])
        _paint(drawn, mask, MASK)
        return _url(Image.fromarray(drawn))

    def _say(self, text: str) -> None:
        self.said.value = f'<span role="status">{html.escape(text)}</span>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        box = self.stage.prompt["box"]
        boxes = np.array([box] if box else [], np.float64).reshape(-1, 4)
        figure = show_boxes(self.pixels, self.mask.astype(int), boxes)
        return view_of(self) | Shown(figure, caption=self._caption)._repr_mimebundle_()[0]


def _small(values: NDArray[Any]) -> NDArray[Any]:
    """Return every second (third, ...) pixel of an array that is larger than `SIDE`."""
    step = -(-max(values.shape[:2]) // SIDE)
    return values[::step, ::step]


def _bytes(pixels: NDArray[np.floating]) -> NDArray[np.uint8]:
    return (255 * pixels).round().astype(np.uint8)


def _paint(drawn: NDArray[np.uint8], mask: NDArray[np.bool_], tint: str) -> None:
    """Paint a mask and its edge into an RGBA picture, in place."""
    from scipy.ndimage import binary_erosion

    drawn[mask] = [*(round(255 * part) for part in to_rgb(tint)), TINT]
    drawn[mask & ~binary_erosion(mask), 3] = EDGE


def _url(picture: Image.Image) -> str:
    written = io.BytesIO()
    picture.save(written, "png")
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
