"""Every name has one colour, and the style does not change other figures."""

import re
from pathlib import Path

import matplotlib
from matplotlib import font_manager

from medsaga_lib import display
from medsaga_lib.display import style

OKABE_ITO = {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}


def test_colours_are_okabe_ito_and_do_not_change():
    assert set(style.COLOURS.values()) <= OKABE_ITO | {style.GREY, style.SLATE}
    assert len({display.colour(name) for name in ("right lung", "left lung", "heart")}) == 3
    assert display.colour("gallbladder") == style.OTHERS[2332613143 % 6]  # by its CRC-32


def test_the_fit_page_has_the_colours_of_the_figures():
    css = (Path(__file__).parents[2] / "book/_static/book.css").read_text(encoding="utf-8")
    found = dict(re.findall(r"^\.fit-(\w+) \{ background: (#\w{6}); \}", css, re.MULTILINE))
    parts = ("weights", "gradients", "states", "activations")
    assert found == {part: display.colour(part).lower() for part in parts}


def test_the_style_is_used_and_does_not_leak():
    before = dict(matplotlib.rcParams)
    figure = display.bar_ledger({"full": {"weights": 2**20}}, alt="x")
    assert dict(matplotlib.rcParams) == before
    assert figure.get_figwidth() == 7
    assert figure.dpi == 150
    found = font_manager.findfont("DejaVu Sans", fallback_to_default=False)
    assert Path(matplotlib.get_data_path()) in Path(found).parents  # ships with matplotlib
