"""Charts, checked by the artists in them: places, colours, texts."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from medsaga_lib import display
from medsaga_lib.display import Curve
from medsaga_lib.display.charts import mib


def test_curves_bands_and_names_at_the_end():
    curves = [
        Curve("MedSAGa", [8, 16, 50], [0.5, 0.7, 0.80], [0.4, 0.6, 0.7], [0.6, 0.8, 0.9]),
        Curve("SAMed", [8, 16, 50], [0.4, 0.6, 0.81]),
    ]
    figure = display.curve_with_interval(
        curves, "labelled images", "Dice", alt="Both rise", log_x=True
    )
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["MedSAGa", "SAMed"]
    for curve, line in zip(curves, axes.lines, strict=True):
        assert line.get_xydata().tolist() == np.column_stack([curve.x, curve.y]).tolist()
        assert line.get_color() == display.colour(curve.name)
    (band,) = axes.collections
    extent = band.get_datalim(axes.transData)
    assert (extent.y0, extent.y1) == pytest.approx((0.4, 0.9))
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "labelled images"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["8", "16", "50"]
    assert {text.get_text(): text.get_color() for text in axes.texts} == {
        "MedSAGa": display.colour("MedSAGa"),
        "SAMed": display.colour("SAMed"),
    }


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=6))
def test_names_of_curves_do_not_overlap_and_keep_their_order(ends):
    curves = [Curve(f"curve {i}", [0, 1], [50, end]) for i, end in enumerate(ends)]
    figure = display.curve_with_interval(curves, "x", "y", alt="x")
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    order = np.argsort(ends, kind="stable")
    for lower, upper in itertools.pairwise(order):
        assert boxes[lower].y1 <= boxes[upper].y0 + 0.5
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)
    colours = {line.get_color() for line in figure.axes[0].lines}
    assert len(colours) == len(curves)


def test_a_dot_for_each_seed_and_a_stroke_for_the_mean():
    tasks = {
        "8 X-rays": {"SAMed": [0.8, 0.9], "frozen": [0.7]},
        "32 X-rays": {"SAMed": [0.9, 0.95], "frozen": [0.8]},
    }
    figure = display.dots_of_seeds(tasks, "Dice", alt="SAMed is ahead", baseline="frozen")
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(tasks)
    for axes, values in zip(figure.axes, tasks.values(), strict=True):
        dots, stroke, single, line = axes.lines
        several, one = values["SAMed"], values["frozen"]
        assert dots.get_xydata().tolist() == [[seed, 0] for seed in several]
        assert set(stroke.get_xdata()) == {np.mean(several)}
        assert dots.get_color() == stroke.get_color() == display.colour("SAMed")
        assert single.get_xydata().tolist() == [[*one, 1]]  # one value has no mean
        assert set(line.get_xdata()) == set(values["frozen"])
        low, high = axes.get_ylim()
        assert low > high  # the first method on top
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["SAMed", "frozen"]


def test_ledger_bars_stand_side_by_side_in_mib():
    mib = 2**20
    figure = display.bar_ledger(
        {
            "full": {"weights": 100 * mib, "states": 200 * mib},
            "LoRA": {"weights": 100 * mib, "gradients": 3 * mib, "states": 2 * mib},
        },
        alt="LoRA needs a third",
    )
    (axes,) = figure.axes
    bars = {part.get_label(): part for part in axes.containers}
    assert list(bars) == ["weights", "states", "gradients"]
    assert [bar.get_width() for bar in bars["states"]] == [200, 2]
    assert [bar.get_x() for bar in bars["states"]] == [100, 100]
    assert [bar.get_x() for bar in bars["gradients"]] == [300, 102]
    assert to_hex(bars["states"][0].get_facecolor()).upper() == display.colour("states")
    # Numbers where there is room for them, and the totals at the ends.
    texts = [text.get_text() for text in axes.texts]
    assert [text for text in texts if text] == ["100", "100", "200", "300", "105"]
    assert "MiB" in axes.get_xlabel()


@pytest.mark.parametrize(
    ("size", "text"), [(2100.4, "2,100"), (10, "10"), (1.5, "1.5"), (0.04, "0.04")]
)
def test_numbers_of_mib(size, text):
    assert mib(size) == text
