"""Images with the contours of ground truth and predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects
from scipy.ndimage import label as label_components
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
HALO = [withStroke(linewidth=2.4, foreground="#00000090")]  # makes colours visible on white
NAMED_IN_PICTURE = 4  # up to this number, names are in the image; more names are below it
KEY_COLUMNS = 6


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


class Box(NamedTuple):
    """A rectangle in an image, in columns and rows."""

    left: float
    top: float
    right: float
    bottom: float

    def part_of(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        rows = slice(int(self.top), int(np.ceil(self.bottom)))
        return mask[rows, int(self.left) : int(np.ceil(self.right))]

    def meets(self, other: "Box") -> bool:
        beside = self.right <= other.left or other.right <= self.left
        return not (beside or self.bottom <= other.top or other.bottom <= self.top)


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
            collection = LineCollection(lines, colors=tint, linewidths=width)
            figure.axes[1].add_collection(collection, autolim=False)
    return figure


@styled
def grid(panels: Sequence[Panel], labels: Mapping[int, str], alt: str, columns: int = 3) -> Figure:
    """Draw panels in rows of `columns`; the first panel that shows a label has its name."""
    gap, line = 0.1, 0.22  # inches: the space between images, the height of a line of text
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    width = (WIDTH - gap * (columns - 1)) / columns
    heights = [width * max(panel.tallness for panel in row) for row in rows]
    above = line if any(panel.title for panel in panels) else 0.0

    key = _key(panels, labels)
    below = line * -(-len(key) // KEY_COLUMNS)
    top = total = sum(height + above + gap for height in heights) - gap + below
    figure = Figure(figsize=(WIDTH, total), label=alt)
    figure.set_layout_engine("none")
    unnamed = readable(labels) if len(labels) <= NAMED_IN_PICTURE else {}
    tints = {value: colour(name) for value, name in labels.items()}
    for row, height in zip(rows, heights, strict=True):
        bottom = top - above - height
        for column, panel in enumerate(row):
            left = column * (width + gap)
            place = (left / WIDTH, bottom / total, width / WIDTH, height / total)
            axes = figure.add_axes(place)
            draw_panel(axes, panel, labels)
            _name_regions(axes, panel, unnamed, tints)
            unnamed = {v: name for v, name in unnamed.items() if v not in panel.values}
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
                path_effects=HALO if kind == next(iter(panel.masks)) else None,  # once is enough
                label=f"{kind}: {name}",
            )
            axes.add_collection(contours, autolim=False)


def outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Return the closed contours of the regions of a mask, (n, 2) each, as (column, row)."""
    return [line[:, ::-1] - 1 for line in find_contours(np.pad(mask, 1).astype(float), 0.5)]


def _key(panels: Sequence[Panel], labels: Mapping[int, str]) -> list[Line2D]:
    """Return the legend below the images: the line styles, and the names if there are many."""
    kinds = {kind for panel in panels for kind in panel.masks}
    key = [
        Line2D([], [], color=INK, linewidth=LINE_WIDTH, linestyle=line, label=kind)
        for kind, line in LINES.items()
        if kind in kinds
    ]
    if key and len(labels) > NAMED_IN_PICTURE:
        shown = readable(labels)
        key += [
            Line2D([], [], color=colour(name), linewidth=4, label=shown[value])
            for value, name in labels.items()
        ]
    return key


def _name_regions(
    axes: Axes, panel: Panel, names: Mapping[int, str], tints: Mapping[int, str]
) -> None:
    """Write the names into the image, each in or beside its region and in its colour."""
    column = axes.get_position().width * WIDTH * POINTS / panel.image.shape[1]  # width in points
    row = column * panel.spacing[0] / panel.spacing[1]
    found: NDArray[np.integer] = np.array(list(panel.masks.values()))  # (kinds, H, W)
    foreground = np.asarray((found > 0).any(axis=0))
    taken: list[Box] = []
    for value, name in names.items():
        if value not in panel.values:
            continue
        width = LETTER_WIDTH * NAME_SIZE * len(name) / column
        height = LINE_HEIGHT * NAME_SIZE / row
        box = _free_box((found == value).any(axis=0), foreground, width, height, taken)
        taken.append(box)
        centre = (box.left + box.right) / 2, (box.top + box.bottom) / 2
        text = write(axes.text(*centre, "", color=tints[value]), name)
        text.set(size=NAME_SIZE, weight="bold", ha="center", va="center", path_effects=HALO)


def _free_box(
    mask: NDArray[np.bool_],
    foreground: NDArray[np.bool_],
    width: float,
    height: float,
    taken: list[Box],
) -> Box:
    """Find a place for a name inside its region, or else above, below, right or left of it."""
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), mask.shape)
    components, _ = label_components(mask)
    region = components == components[y, x]  # the component with the most space
    rows, columns = find_objects(region.astype(int))[0]
    middle = (columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2
    around = [
        (middle[0], rows.start - height / 2),
        (middle[0], rows.stop + height / 2),
        (columns.stop + width / 2, middle[1]),
        (columns.start - width / 2, middle[1]),
    ]
    inside = _box_within(mask.shape, x, y, width, height)
    boxes = [_box_within(mask.shape, *centre, width, height) for centre in around]
    free = [inside] if inside.part_of(region).all() else []
    free += [box for box in boxes if not box.part_of(foreground).any()]
    free += [box for box in boxes if not box.part_of(region).any()]
    free = [box for box in free if not any(box.meets(other) for other in taken)]
    return free[0] if free else boxes[0]


def _box_within(shape: tuple[int, ...], x: float, y: float, width: float, height: float) -> Box:
    """Return a box around a point, moved to be inside an image of `shape` (rows, columns)."""
    left = min(max(x - width / 2, 0), max(shape[1] - width, 0))
    top = min(max(y - height / 2, 0), max(shape[0] - height, 0))
    return Box(left, top, left + width, top + height)
