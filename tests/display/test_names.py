"""Names in figures are text: a $ is a $, and a script without a font has a clear fallback."""

import warnings

import numpy as np
import pytest
from matplotlib.text import Text

from medsaga_lib.display import Curve, Panel, curve_with_interval, grid, names, to_png
from medsaga_lib.display.names import readable

MASK = np.zeros((64, 64), int)
MASK[10:30, 10:30], MASK[40:60, 30:60] = 1, 2
GREY = np.linspace(0, 1, 64**2).reshape(64, 64)


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("name", ["$", "a $ b", "$x$ and $y$", r"\frac{", "^_%&#", "cost: $5, $6"])
@pytest.mark.parametrize("count", [2, 6])  # in the image, and in the legend
def test_a_name_is_no_markup(name, count):
    labels = {1: name, 2: "other", **{value: f"label {value}" for value in range(3, count + 1)}}
    figure = grid([Panel(GREY, MASK, title=name)], labels, alt="")
    assert texts(figure).count(name) == 2  # the title, and the region or the key
    assert to_png(figure).startswith(b"\x89PNG")


def test_the_name_of_a_curve_is_no_markup():
    figure = curve_with_interval([Curve("$x", [1, 2], [1, 2])], "x", "y", alt="")
    assert "$x" in texts(figure)
    assert to_png(figure).startswith(b"\x89PNG")


def test_a_name_without_a_font_becomes_its_number(monkeypatch):
    """The letter is in the private use area, which no font has to fill."""
    monkeypatch.setattr(names, "_families_with", lambda letters: ())
    assert readable({1: "heart", 4: "\uf8f0"}) == {1: "heart", 4: "label 4"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns if a glyph is missing
        to_png(grid([Panel(GREY, MASK)], {1: "\uf8f0", 2: "heart"}, alt=""))


def test_another_font_is_used_if_one_has_the_letters(monkeypatch):
    monkeypatch.setattr(names, "_families_with", lambda letters: ("DejaVu Serif",))
    figure = grid([Panel(GREY, MASK)], {1: "\uf8f0", 2: "heart"}, alt="")
    shown = {text.get_text(): text for text in figure.axes[0].texts}
    assert shown["\uf8f0"].get_fontfamily() == ["DejaVu Sans", "DejaVu Serif"]
    assert shown["heart"].get_fontfamily() != shown["\uf8f0"].get_fontfamily()


def test_a_name_of_every_european_language_is_drawn_as_it_is():
    named = {1: "Lunge, rechts (äöüß)", 2: "płuco, сердце, καρδιά"}
    assert readable(named) == named
