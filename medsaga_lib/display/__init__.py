"""Figures of the book: images with contours, charts with intervals, bars of memory.

Every function that draws returns a `Figure`, whose label is the alt text. `show` puts the figure
into a notebook with this text.
"""

from medsaga_lib.display.charts import Curve, bar_ledger, curve_with_interval, dots_of_seeds
from medsaga_lib.display.live import interactive
from medsaga_lib.display.page import encode, show, soft_mask, to_png
from medsaga_lib.display.pictures import Panel, draw_panel, grid, outlines, show_boxes, show_case
from medsaga_lib.display.style import colour, use_style
from medsaga_lib.display.tables import table

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
    "interactive",
    "outlines",
    "show",
    "show_boxes",
    "show_case",
    "soft_mask",
    "table",
    "to_png",
    "use_style",
]
