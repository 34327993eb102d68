"""Images with the contours of ground truth and predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage.measure import find_contours

from medsaga_lib.display.names import readable, write
from medsaga_lib.display.style import (
    INK,
    LETTER_WIDTH,
    LINE_HEIGHT,
    NAME_SIZE,
    OTHERS,
    POINTS,
    WIDTH,
    colour,
    styled,
)
from medsaga_lib.errors import counted

LINES: dict[str, Any] = {"prediction": "-", "truth": (0, (2.0, 1.6))}  # in drawing order
LINE_WIDTH = 1.4
KEY_COLUMNS = 6
LARGEST_NAME = 0.12  # share of its region that a name may cover; our choice


@dataclass(frozen=True)
class Panel:
    """An image, (H, W) or (H, W, 3) in [0, 1], and label maps (H, W) to draw as contours."""

    image: NDArray[np.floating]
    truth: NDArray[np.integer] | None = None
    prediction: NDArray[np.integer] | None = None
    title: str = ""
    spacing: tuple[float, float] = (1.0, 1.0)  # height and width of a pixel in mm

    @property
    def masks(self) -> dict[str, NDArray[np.integer]]:
        """The label maps that are given, with the keys of `LINES`."""
        both = {"prediction": self.prediction, "truth": self.truth}
        return {kind: mask for kind, mask in both.items() if mask is not None}

    @property
    def values(self) -> set[int]:
        """The label values that occur in the label maps."""
        found = [np.unique(mask) for mask in self.masks.values()]
        return {int(value) for values in found for value in values} - {0}

    @property
    def tallness(self) -> float:
        """The height of the drawn image relative to its width."""
        return self.image.shape[0] * self.spacing[0] / (self.image.shape[1] * self.spacing[1])


def show_case(
    image: NDArray[np.floating],
    truth: NDArray[np.integer] | None = None,
    prediction: NDArray[np.integer] | None = None,
    labels: Mapping[int, str] | None = None,
    title: str = "",
    spacing: tuple[float, float] = (1.0, 1.0),
    alt: str = "",
) -> Figure:
    """Draw an image and, beside it, the image with contours: ground truth dashed, prediction solid.

    Args:
        image: (H, W) or (H, W, 3) in [0, 1].
        truth, prediction: label maps (H, W) of the ground truth and of the prediction, or None.
        labels: label value -> name, for the labels to draw; default: all values that occur.
        title: title of the first image.
        spacing: height and width of a pixel in mm.
        alt: what a reader sees; default: the names of the drawn labels.
    """
    panel = Panel(image, truth, prediction, "", spacing)
    if labels is None:
        labels = {value: f"label {value}" for value in sorted(panel.values)}
    kinds = " and ".join(panel.masks) or "no contours"
    names = ", ".join(labels[value] for value in labels if value in panel.values) or "nothing"
    alt = alt or f"{title or 'An image'}; {kinds}: {names}."
    plain = Panel(image, None, None, title, spacing)
    return grid([plain, panel] if panel.masks else [plain], labels, alt, columns=2)


def show_boxes(
    image: NDArray[np.floating],
    labels: NDArray[np.integer],
    boxes: NDArray[np.floating],
    alt: str = "",
) -> Figure:
    """Draw an image and, beside it, the image with box prompts and the contours of the objects.

    Args:
        image: (H, W) or (H, W, 3) in [0, 1].
        labels: label map (H, W) with the values 1 ... N in the order of the boxes.
        boxes: (N, 4) x0, y0, x1, y1 in pixels.
        alt: what a reader sees; default: the number of boxes and of objects.
    """
    objects = len(np.unique(labels[labels > 0]))
    alt = alt or f"An image with {counted(len(boxes), 'box')}; {counted(objects, 'object')}."
    figure = grid([Panel(image), Panel(image)], {}, alt, columns=2)
    for number, (left, top, right, bottom) in enumerate(boxes, start=1):
        tint = OTHERS[number % len(OTHERS)]  # the same for an object and its box
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        contour = outlines(labels == number)
        for lines, width in ((contour, LINE_WIDTH), ([np.array(corners)], LINE_WIDTH / 2)):
            look: dict[str, Any] = {"colors": tint, "linewidths": width}
            collection = LineCollection(lines, path_effects=halo(width), **look)
            figure.axes[1].add_collection(collection, autolim=False)
    return figure


@styled
def grid(
    panels: Sequence[Panel],
    labels: Mapping[int, str],
    alt: str,
    columns: int = 3,
    lines: tuple[str, str] = ("prediction", "truth"),
) -> Figure:
    """Draw panels in rows of `columns`, with the names of the labels.

    A name stands in the first region of its label. If one of them would cover too much of its
    region, all names are below the images: beside it, a name could be taken for a neighbour's.

    Args:
        lines: what the legend calls the solid and the dashed contours.
    """
    gap, line = 0.1, 0.22  # inches: the space between images, the height of a line of text
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    width = (WIDTH - gap * (columns - 1)) / columns
    heights = [width * max(panel.tallness for panel in row) for row in rows]
    above = line if any(panel.title for panel in panels) else 0.0

    shown = readable({v: name for v, name in labels.items() if any(v in p.values for p in panels)})
    first = {value: next(p for p in panels if value in p.values) for value in shown}
    places = {v: _place_inside(first[v], v, name, width) for v, name in shown.items()}
    inside = None not in places.values()
    key = _key(panels, labels, {} if inside else shown, lines)
    below = line * -(-len(key) // KEY_COLUMNS)
    top = total = sum(height + above + gap for height in heights) - gap + below
    figure = Figure(figsize=(WIDTH, total), label=alt)
    figure.set_layout_engine("none")
    for row, height in zip(rows, heights, strict=True):
        bottom = top - above - height
        for column, panel in enumerate(row):
            left = column * (width + gap)
            place = (left / WIDTH, bottom / total, width / WIDTH, height / total)
            axes = figure.add_axes(place)
            draw_panel(axes, panel, labels)
            for value, centre in places.items():
                if inside and centre is not None and first[value] is panel:
                    text = write(axes.text(*centre, "", color=colour(labels[value])), shown[value])
                    look = {"size": NAME_SIZE, "weight": "bold", "path_effects": halo(LINE_WIDTH)}
                    text.set(ha="center", va="center", **look)
        top = bottom - gap
    if key:
        legend = figure.legend(handles=key, loc="lower left", ncols=KEY_COLUMNS, borderaxespad=0)
        for text in legend.get_texts():
            write(text, text.get_text())
    return figure


def draw_panel(axes: Axes, panel: Panel, labels: Mapping[int, str]) -> None:
    """Draw the image of a panel and the contours of its label maps in the colours of the labels."""
    aspect = panel.spacing[0] / panel.spacing[1]
    axes.imshow(panel.image, cmap="gray", vmin=0, vmax=1, aspect=aspect)
    write(axes.set_title(""), panel.title)
    axes.set_axis_off()
    axes.set_anchor("N")  # aligns the titles of a row if the panels have different shapes
    for kind, mask in panel.masks.items():
        for value, name in labels.items():
            contours = LineCollection(
                outlines(mask == value),
                colors=colour(name),
                linestyles=[LINES[kind]],
                linewidths=LINE_WIDTH,
                path_effects=halo(LINE_WIDTH),
                label=f"{kind}: {name}",
            )
            axes.add_collection(contours, autolim=False)


def halo(width: float) -> list[withStroke]:
    """Return the dark rim that makes a line of some width visible on an image of its colour."""
    return [withStroke(linewidth=width + 1, foreground="#00000090")]


def outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Return the closed contours of the regions of a mask, (n, 2) each, as (column, row)."""
    return [line[:, ::-1] - 1 for line in find_contours(np.pad(mask, 1).astype(float), 0.5)]


def _key(
    panels: Sequence[Panel],
    labels: Mapping[int, str],
    shown: Mapping[int, str],
    lines: tuple[str, str],
) -> list[Line2D]:
    """Return the legend below the images: the line styles, and the names that are shown there."""
    kinds = {kind for panel in panels for kind in panel.masks}
    styles = [
        Line2D([], [], color=INK, linewidth=LINE_WIDTH, linestyle=style, label=called)
        for (kind, style), called in zip(LINES.items(), lines, strict=True)
        if kind in kinds
    ]
    names = [
        Line2D([], [], color=colour(labels[value]), linewidth=4, label=name)
        for value, name in shown.items()
    ]
    return styles + names


def _place_inside(panel: Panel, value: int, name: str, width: float) -> tuple[int, int] | None:
    """Return the deepest pixel (column, row) of a region if the name fits there, else None.

    Args:
        width: of the panel, in inches.
    """
    masks = [mask == value for mask in panel.masks.values()]
    region = next(mask for mask in reversed(masks) if mask.any())  # that of the truth, if any
    depth = distance_transform_edt(np.pad(region, 1), sampling=panel.spacing)[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), region.shape)
    column = width * POINTS / region.shape[1]  # width of a pixel in points
    row = column * panel.spacing[0] / panel.spacing[1]
    wide = LETTER_WIDTH * NAME_SIZE * len(name) / 2 / column
    high = LINE_HEIGHT * NAME_SIZE / 2 / row
    left, top = x - wide, y - high
    part = region[
        max(int(top), 0) : int(np.ceil(y + high)), max(int(left), 0) : int(np.ceil(x + wide))
    ]
    within = left >= 0 and top >= 0 and x + wide <= region.shape[1] and y + high <= len(region)
    small = 4 * wide * high <= LARGEST_NAME * region.sum()
    return (int(x), int(y)) if within and small and part.all() else None
