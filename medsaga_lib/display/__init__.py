"""Figures of the book: pictures with contours, charts with intervals, bars of memory.

Every function returns a `Figure` that carries its alt text as its label; `show` puts it into a
notebook with that text.
"""

from medsaga_lib.display.charts import Curve, bar_ledger, curve_with_interval, dots_of_seeds
from medsaga_lib.display.page import encode, show, to_png
from medsaga_lib.display.pictures import Panel, draw_panel, grid, outlines, show_boxes, show_case
from medsaga_lib.display.style import colour, use_style

__all__ = [
    "Curve",
    "Panel",
    "bar_ledger",
    "colour",
    "curve_with_interval",
    "dots_of_seeds",
    "draw_panel",
    "encode",
    "grid",
    "outlines",
    "show",
    "show_boxes",
    "show_case",
    "to_png",
    "use_style",
]
