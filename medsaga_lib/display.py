"""Figures of the book: pictures with contours, curves with intervals, bars of memory.

Every function returns a `Figure` that carries its alt text as its label; `show` puts it into a
notebook with that text. The style is `book.mplstyle`, the colours are those of Okabe and Ito.
"""

import base64
import html
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt, find_objects
from scipy.ndimage import label as label_components
from skimage.measure import find_contours

STYLE = str(Path(__file__).with_name("book.mplstyle"))
styled = matplotlib.style.context(STYLE)  # decorates what draws

BLUE, SKY, GREEN = "#0072B2", "#56B4E9", "#009E73"
ORANGE, VERMILLION, PURPLE, GREY = "#E69F00", "#D55E00", "#CC79A7", "#999999"
OTHERS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)  # the yellow vanishes on white
INK = "#222222"

# One thing has one colour throughout the book.
COLOURS = {
    "right lung": SKY,
    "left lung": ORANGE,
    "heart": VERMILLION,
    "lesion": PURPLE,
    "infarct": PURPLE,
    "tumour": PURPLE,
    "spleen": GREEN,
    "liver": VERMILLION,
    "stomach": PURPLE,
    "pancreas": BLUE,
    "right kidney": SKY,
    "left kidney": ORANGE,
    "polyp": SKY,
    "anterior hippocampus": SKY,
    "posterior hippocampus": ORANGE,
    "object": ORANGE,
    "MedSAGa": BLUE,
    "SAMed": VERMILLION,
    "S-SAM": GREEN,
    "DAE-Former": PURPLE,
    "full": ORANGE,
    "weights": GREY,
    "gradients": SKY,
    "states": VERMILLION,
    "activations": ORANGE,
}

LINES: dict[str, Any] = {"prediction": "-", "truth": (0, (2.0, 1.6))}  # in drawing order
LINE_WIDTH = 1.4
HALO = [withStroke(linewidth=2.4, foreground="#00000090")]  # keeps a colour visible on white

WIDTH = 7.0  # inches
POINTS = 72  # per inch
CSS_DPI = 96  # a browser's pixels per inch: text then has the size that the style gives it
NAME_SIZE = 8.0  # points
LETTER_WIDTH, LINE_HEIGHT = 0.66, 1.4  # of a bold letter and of a line, in font sizes
NAMED_IN_PICTURE = 4  # names that find room in a picture; more of them stand below it
KEY_COLUMNS = 6
MOST_TICKS = 8  # that are written one by one
NARROWEST = 0.05  # share of the longest bar in which a number finds room
WEBP_QUALITY = 90  # our choice: the fine vessels of a lung are still there
PALETTE = 256  # colours of a PNG
MIB = 2**20


@dataclass(frozen=True)
class Panel:
    """A picture, (H, W) or (H, W, 3) in [0, 1], and label maps (H, W) to draw as contours."""

    image: NDArray[np.floating]
    truth: NDArray[np.integer] | None = None
    prediction: NDArray[np.integer] | None = None
    title: str = ""
    spacing: tuple[float, float] = (1.0, 1.0)  # mm of a row and of a column

    @property
    def masks(self) -> dict[str, NDArray[np.integer]]:
        """The label maps there are, named as in `LINES`."""
        both = {"prediction": self.prediction, "truth": self.truth}
        return {kind: mask for kind, mask in both.items() if mask is not None}

    @property
    def values(self) -> set[int]:
        """The labels that occur."""
        found = [np.unique(mask) for mask in self.masks.values()]
        return {int(value) for values in found for value in values} - {0}

    @property
    def tallness(self) -> float:
        """Height over width as it is drawn."""
        return self.image.shape[0] * self.spacing[0] / (self.image.shape[1] * self.spacing[1])


class Curve(NamedTuple):
    """Points of a line and, where known, the ends of an interval around each."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


class Box(NamedTuple):
    """A rectangle in a picture, in columns and rows."""

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


# --- what a notebook calls


def use_style() -> None:
    """Give the book's look to the figures that a notebook draws by itself."""
    matplotlib.style.use(STYLE)


def colour(name: str) -> str:
    """The colour of a label, a method or a part of memory, the same in every figure.

    >>> colour("right lung")
    '#56B4E9'
    """
    return COLOURS.get(name) or OTHERS[zlib.crc32(name.encode()) % len(OTHERS)]


def show(figure: Figure, alt: str = "") -> None:
    """Put a figure into the notebook as a picture with alt text, never wider than its column.

    Args:
        figure: of this module, or any other of matplotlib.
        alt: what a reader sees and what follows from it; otherwise the figure's own.

    Raises:
        ValueError: there is no alt text.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    display(Shown(figure, alt or str(figure.get_label())))
    plt.close(figure)  # pyplot's own figures would be drawn a second time


def show_case(
    image: NDArray[np.floating],
    truth: NDArray[np.integer] | None = None,
    prediction: NDArray[np.integer] | None = None,
    labels: Mapping[int, str] | None = None,
    title: str = "",
    spacing: tuple[float, float] = (1.0, 1.0),
    alt: str = "",
) -> Figure:
    """A picture as it is and, beside it, with contours: prediction solid, truth dashed.

    Args:
        image: (H, W) or (H, W, 3) in [0, 1].
        truth, prediction: label maps (H, W); both, one or none.
        labels: names of the labels to draw; by default all that occur, by their numbers.
        spacing: mm of a row and of a column, for the shape of the picture.
        alt: what a reader sees; by default the names of what is drawn.
    """
    panel = Panel(image, truth, prediction, "", spacing)
    if labels is None:
        labels = {value: f"label {value}" for value in sorted(panel.values)}
    kinds = " and ".join(panel.masks) or "no contours"
    names = ", ".join(labels[value] for value in labels if value in panel.values) or "nothing"
    alt = alt or f"{title or 'A picture'}; {kinds}: {names}."
    plain = Panel(image, None, None, title, spacing)
    return grid([plain, panel] if panel.masks else [plain], labels, alt, columns=2)


def show_boxes(
    image: NDArray[np.floating],
    labels: NDArray[np.integer],
    boxes: NDArray[np.floating],
    alt: str = "",
) -> Figure:
    """A picture as it is and, beside it, with each object's contour and the box it was asked by.

    Args:
        image: (H, W) or (H, W, 3) in [0, 1].
        labels: (H, W), 1 ... N in the order of the boxes.
        boxes: (N, 4) x0, y0, x1, y1 in pixels.
        alt: what a reader sees; by default how many boxes and objects there are.
    """
    alt = alt or f"A picture with {len(boxes)} boxes; {len(np.unique(labels[labels > 0]))} objects."
    figure = grid([Panel(image), Panel(image)], {}, alt, columns=2)
    for number, (left, top, right, bottom) in enumerate(boxes, start=1):
        tint = OTHERS[number % len(OTHERS)]  # of an object and its box
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        contour = outlines(labels == number)
        for lines, width in ((contour, LINE_WIDTH), ([np.array(corners)], LINE_WIDTH / 2)):
            collection = LineCollection(lines, colors=tint, linewidths=width)
            figure.axes[1].add_collection(collection, autolim=False)
    return figure


@styled
def grid(panels: Sequence[Panel], labels: Mapping[int, str], alt: str, columns: int = 3) -> Figure:
    """Small multiples in rows of `columns`; a class is named in the first panel that has it."""
    gap, line = 0.1, 0.22  # inches: between pictures, and for a line of text
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    width = (WIDTH - gap * (columns - 1)) / columns
    heights = [width * max(panel.tallness for panel in row) for row in rows]
    above = line if any(panel.title for panel in panels) else 0.0

    key = _key(panels, labels)
    below = line * -(-len(key) // KEY_COLUMNS)
    top = total = sum(height + above + gap for height in heights) - gap + below
    figure = Figure(figsize=(WIDTH, total), label=alt)
    figure.set_layout_engine("none")
    unnamed = dict(labels) if len(labels) <= NAMED_IN_PICTURE else {}
    for row, height in zip(rows, heights, strict=True):
        bottom = top - above - height
        for column, panel in enumerate(row):
            left = column * (width + gap)
            place = (left / WIDTH, bottom / total, width / WIDTH, height / total)
            axes = figure.add_axes(place)
            draw_panel(axes, panel, labels)
            _name_regions(axes, panel, unnamed)
            unnamed = {v: name for v, name in unnamed.items() if v not in panel.values}
        top = bottom - gap
    if key:
        figure.legend(handles=key, loc="lower left", ncols=KEY_COLUMNS, borderaxespad=0)
    return figure


def draw_panel(axes: Axes, panel: Panel, labels: Mapping[int, str]) -> None:
    """Draw a panel's picture and the contours of its label maps, each in its label's colour."""
    aspect = panel.spacing[0] / panel.spacing[1]
    axes.imshow(panel.image, cmap="gray", vmin=0, vmax=1, aspect=aspect)
    axes.set_title(panel.title)
    axes.set_axis_off()
    axes.set_anchor("N")  # panels of other shapes stand in a row with their titles
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


@styled
def curve_with_interval(
    curves: Sequence[Curve],
    x_label: str,
    y_label: str,
    alt: str,
    title: str = "",
    log_x: bool = False,
) -> Figure:
    """Lines with points and, behind them, the bands of their intervals; names at the right end.

    Args:
        x_label, y_label: with units.
        log_x: equal steps for equal factors, as for numbers of labelled images.
    """
    figure = Figure(label=alt)
    axes = figure.add_subplot(xlabel=x_label, ylabel=y_label, title=title)
    axes.set_xscale("log" if log_x else "linear")
    tints = _distinct_colours([curve.name for curve in curves])
    for curve, tint in zip(curves, tints, strict=True):
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=tint, alpha=0.18, linewidth=0)
        axes.plot(curve.x, curve.y, marker="o", color=tint, label=curve.name)
    ticks = sorted({x for curve in curves for x in curve.x})
    if len(ticks) <= MOST_TICKS:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    figure.draw_without_rendering()  # settles the layout, on which the names' places depend
    _name_ends(axes, curves, tints)
    return figure


@styled
def bar_ledger(ledgers: Mapping[str, Mapping[str, float]], alt: str, title: str = "") -> Figure:
    """Memory as one bar for each row, its parts side by side, in MiB.

    Args:
        ledgers: for each row the bytes of its parts, such as weights, gradients, states.
    """
    parts = list(dict.fromkeys(part for ledger in ledgers.values() for part in ledger))
    sizes = np.array([[ledger.get(part, 0) / MIB for part in parts] for ledger in ledgers.values()])
    totals = sizes.sum(1)
    figure = Figure(figsize=(WIDTH, 1.0 + 0.34 * len(ledgers)), label=alt)
    axes = figure.add_subplot(xlabel="memory (MiB)", title=title)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    for index, (part, tint) in enumerate(zip(parts, _distinct_colours(parts), strict=True)):
        before = sizes[:, :index].sum(1)
        bars = axes.barh(list(ledgers), sizes[:, index], 0.72, before, color=tint, label=part)
        wide = sizes[:, index] > NARROWEST * totals.max()
        numbers = np.where(wide, [_mib(size) for size in sizes[:, index]], "")
        axes.bar_label(bars, numbers, label_type="center", fontsize=8)
    axes.bar_label(bars, [_mib(total) for total in totals], padding=4, weight="bold")
    axes.invert_yaxis()
    figure.legend(loc="outside lower left", ncols=len(parts), handlelength=1, handleheight=1)
    return figure


def outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """The closed lines around a mask's regions, (n, 2) each, as (column, row)."""
    return [line[:, ::-1] - 1 for line in find_contours(np.pad(mask, 1).astype(float), 0.5)]


# --- how a figure gets onto the page


class Shown:
    """A figure as a notebook stores it: HTML, because MyST-NB gives a bare picture no alt text.

    The alt text is also the plain text of the output and stands in its metadata under `alt`.
    """

    def __init__(self, figure: Figure, alt: str) -> None:
        if not alt.strip():
            raise ValueError("a figure needs alt text: what does a reader see in it?")
        self.alt = " ".join(alt.split())
        self.mime, self.picture = encode(figure)
        self.width = round(figure.get_figwidth() * CSS_DPI)

    def __repr__(self) -> str:
        return self.alt

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, str]]:
        source = f"data:{self.mime};base64,{base64.b64encode(self.picture).decode()}"
        tag = (
            f'<img alt="{html.escape(self.alt)}" src="{source}" width="{self.width}" '
            'style="max-width: 100%; height: auto">'
        )
        return {"text/html": tag, "text/plain": self.alt}, {"alt": self.alt}


def to_png(figure: Figure, alt: str = "") -> bytes:
    """A figure as a PNG file, exact, with its alt text as the description inside."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Description": alt or str(figure.get_label())})
    return file.getvalue()


def encode(figure: Figure) -> tuple[str, bytes]:
    """MIME type and bytes of a figure: WebP if it shows a picture, or else PNG with a palette.

    Two X-rays side by side are 50 kB, 360 kB as a PNG; curves are 17 instead of 70 kB.
    """
    written = io.BytesIO()
    picture = Image.open(io.BytesIO(to_png(figure))).convert("RGB")
    if any(axes.images for axes in figure.axes):
        picture.save(written, format="webp", quality=WEBP_QUALITY, method=6)
        return "image/webp", written.getvalue()
    reduced = picture.quantize(PALETTE, dither=Image.Dither.NONE)
    reduced.save(written, format="png", optimize=True)
    return "image/png", written.getvalue()


# --- where names and keys go


def _key(panels: Sequence[Panel], labels: Mapping[int, str]) -> list[Line2D]:
    """What stands below the pictures: the kinds of lines, and the names if they are many."""
    kinds = {kind for panel in panels for kind in panel.masks}
    key = [
        Line2D([], [], color=INK, linewidth=LINE_WIDTH, linestyle=line, label=kind)
        for kind, line in LINES.items()
        if kind in kinds
    ]
    if key and len(labels) > NAMED_IN_PICTURE:
        key += [Line2D([], [], color=colour(n), linewidth=4, label=n) for n in labels.values()]
    return key


def _name_regions(axes: Axes, panel: Panel, names: Mapping[int, str]) -> None:
    """Write names into the picture, each in or beside its region."""
    column = axes.get_position().width * WIDTH * POINTS / panel.image.shape[1]  # in points
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
        text = axes.text(
            (box.left + box.right) / 2, (box.top + box.bottom) / 2, name, color=colour(name)
        )
        text.set(size=NAME_SIZE, weight="bold", ha="center", va="center", path_effects=HALO)


def _free_box(
    mask: NDArray[np.bool_],
    foreground: NDArray[np.bool_],
    width: float,
    height: float,
    taken: list[Box],
) -> Box:
    """Where a name goes: inside its region, or else above, below, right or left of it."""
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), mask.shape)
    components, _ = label_components(mask)
    region = components == components[y, x]  # the one with the most room
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
    """A box about a point, moved into a picture of `shape` (rows, columns)."""
    left = min(max(x - width / 2, 0), max(shape[1] - width, 0))
    top = min(max(y - height / 2, 0), max(shape[0] - height, 0))
    return Box(left, top, left + width, top + height)


def _name_ends(axes: Axes, curves: Sequence[Curve], tints: Sequence[str]) -> None:
    """Write each curve's name at its right end, moved apart where ends lie close together."""
    ends = [(curve.x[-1], curve.y[-1]) for curve in curves]
    heights = axes.transData.transform(ends)[:, 1] / axes.figure.dpi * POINTS
    shifts = _spread(heights, LINE_HEIGHT * NAME_SIZE) - heights
    for curve, end, shift, tint in zip(curves, ends, shifts, tints, strict=True):
        text = axes.annotate(curve.name, end, (8, shift), textcoords="offset points", color=tint)
        text.set(size=NAME_SIZE, weight="bold", va="center")


def _spread(places: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """The places moved apart to lie at least `gap` from each other, in the same order."""
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    relative = places[order] - steps
    # Pushing all up and pushing all down both keep the gap, and so does the mean of the two.
    up = np.maximum.accumulate(relative)
    down = np.minimum.accumulate(relative[::-1])[::-1]
    moved = np.empty(len(places))
    moved[order] = (up + down) / 2 + steps
    return moved


def _distinct_colours(names: Sequence[str]) -> list[str]:
    """The colours of names that stand in one figure: a colour that is taken gives way."""
    chosen: list[str] = []
    for name in names:
        free = [tint for tint in (colour(name), *OTHERS) if tint not in chosen]
        chosen.append(free[0] if free else colour(name))
    return chosen


def _mib(size: float) -> str:
    return f"{size:,.0f}" if size >= 10 else f"{size:.2g}"
