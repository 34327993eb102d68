"""The style of the figures: `book.mplstyle`, and a fixed colour for each name.

The colours are those of Okabe and Ito, greys, and 8 more, because there are more methods than such
colours. As people with protanopia, deuteranopia or tritanopia see them (by the matrices of Machado
et al. 2009), two colours of methods have a distance of at least 13 in CIELAB.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path

import matplotlib.style

STYLE = str(Path(__file__).with_name("book.mplstyle"))
styled = matplotlib.style.context(STYLE)  # decorator of functions that draw

BLUE, SKY, GREEN = "#0072B2", "#56B4E9", "#009E73"
ORANGE, VERMILLION, PURPLE, GREY = "#E69F00", "#D55E00", "#CC79A7", "#999999"
SLATE = "#666666"
INDIGO, OLIVE, BROWN, FOREST = "#332288", "#999933", "#6B3D00", "#117733"
LEAF, VIOLET, LAVENDER, PLUM = "#88BB77", "#9900FF", "#8877FF", "#440044"
OTHERS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)  # yellow is invisible on white
INK = "#222222"

# Labels, methods, optimizers, starting weights and parts of memory are 5 scales, so the same colour
# may stand for SAMed, for the heart and for the optimizer's states. A method that changes one part
# of another one has its colour.
LABELS = {
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
}
METHOD_TINTS = {
    "MedSAGa": BLUE,
    "MedSAGa_v1": BLUE,
    "MedSAGa_v2": BLUE,
    "SAMed": VERMILLION,
    "SAMed_s": VERMILLION,
    "S-SAM": GREEN,
    "DAE-Former": PURPLE,
    "U-Net": SLATE,
    "SegResNet": OLIVE,
    "frozen encoder": SKY,
    "full": ORANGE,
    "full fine-tuning": ORANGE,
    "late stages": INDIGO,
    "LiteMedSAM + LoRA": BROWN,
    "AdaptiveSAM": FOREST,
    "SVF": LEAF,
    "SAM adapter": LAVENDER,
    "Cheap Lunch": VIOLET,
    "decoder only": PLUM,
    "no training": INK,
}
OPTIMIZERS = {
    "AdamW": ORANGE,  # on every weight
    "LoRA": VERMILLION,  # of SAMed
    "kept": BLUE,  # MedSAGa's GaLore, in three variants
    "rotated": BLUE,
    "galore-torch": BLUE,
    "Fira": GREEN,
    "APOLLO": PURPLE,
}
STARTS = {"pretrained": BLUE, "random": PURPLE}
STARTS |= {f"{start} weights": tint for start, tint in STARTS.items()}
PARTS = {"weights": GREY, "gradients": SKY, "states": VERMILLION, "activations": ORANGE}

# Each name has the same colour in all figures of the book
COLOURS = LABELS | METHOD_TINTS | OPTIMIZERS | STARTS | PARTS

WIDTH = 7.0  # inches
POINTS = 72  # per inch
NAME_SIZE = 8.0  # points
LETTER_WIDTH, LINE_HEIGHT = 0.66, 1.4  # width of a bold letter, height of a line, in font sizes


def use_style() -> None:
    """Use the style of the book for the figures that a notebook draws itself."""
    matplotlib.style.use(STYLE)


def colour(name: str) -> str:
    """Return the colour of a label, a method or a part of memory, the same in every figure.

    >>> colour("right lung")
    '#56B4E9'
    """
    return COLOURS.get(name) or OTHERS[zlib.crc32(name.encode()) % len(OTHERS)]


def distinct_colours(names: Sequence[str]) -> list[str]:
    """Return different colours for the names of one figure, while there are enough colours."""
    chosen: dict[str, str] = {}
    for name in sorted(names, key=lambda name: name not in COLOURS):  # those with their own first
        free = [tint for tint in (colour(name), *OTHERS) if tint not in chosen.values()]
        chosen[name] = free[0] if free else colour(name)
    return [chosen[name] for name in names]
