"""Figures that readers change: the browser's sentences have the numbers of the cell."""

import base64
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from medsaga_lib import display
from medsaga_lib.display.controls import of_kind
from medsaga_lib.display.live import Interactive
from tools import site

STATIC = Path(__file__).parents[2] / "book" / "_static"
LINES = "all => all.map(one => getComputedStyle(one).stroke)"
BLUE_PIXELS = """() => {
    const one = document.querySelector("canvas"), context = one.getContext("2d");
    const {data} = context.getImageData(0, 0, one.width, one.height);
    return data.reduce((sum, value, i) => sum + (i % 4 === 2 && value > data[i - 2]), 0);
}"""


def rgb(tint):
    """A colour as the browser writes it."""
    return f"rgb({', '.join(str(int(tint[at : at + 2], 16)) for at in (1, 3, 5))})"


class Parts(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)


def test_a_notebook_without_the_site_shows_the_caption_only():
    made = Interactive("seeds", {"rows": [{"method": "</script><b>"}]}, "Choose\n  the <seeds>.")
    bundle = made._repr_mimebundle_()
    assert bundle["text/plain"] == repr(made) == "Choose the <seeds>."
    parts = Parts()
    parts.feed(bundle["text/html"])
    assert parts.tags == ["figure", "figcaption", "script"]  # what is stored opens no tag


def test_interactive_displays_in_a_notebook(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    display.interactive("spectrum", {}, "caption")
    assert [type(one) for one in shown] == [Interactive]


def test_spectrum_tells_the_energy_and_the_bytes_of_a_rank(show):
    m, n = 12, 20
    energy = [min(1, 0.3 + 0.1 * r) for r in range(m)]
    page = show("spectrum", {"shape": [m, n], "curves": {"gradient": energy}})
    said = page.locator("[role=status]")
    assert said.inner_text().startswith("Rank 1 of 12: gradient 30.0 % of the energy.")
    page.locator("input").focus()
    page.keyboard.press("ArrowRight")
    text = said.inner_text()
    assert text.startswith("Rank 2 of 12: gradient 40.0 %")
    assert f"{100 * (2 * 2 * n + 2 * m) / (2 * m * n):.1f} % of Adam's" in text
    page.keyboard.press("End")
    assert "100.0 % of Adam's" in said.inner_text()
    assert "Adam's are kept" in said.inner_text()


def test_seeds_tell_the_means_of_the_chosen_seeds(show):
    dice = {("a", 8, 0): 0.5, ("a", 8, 1): 0.7, ("a", 32, 0): 0.8, ("a", 32, 1): 0.9}
    dice |= {("b", 8, 0): 0.65, ("b", 8, 1): 0.65, ("b", 32, 0): 0.7, ("b", 32, 1): 0.7}
    rows = [{"method": m, "shots": n, "seed": s, "dice": d} for (m, n, s), d in dice.items()]
    page = show("seeds", {"rows": rows, "least": 0.4})
    said = page.locator("[role=status]")
    assert said.inner_text() == (
        "Mean over seeds 0, 1. 8 labels: b 0.650, a 0.600. 32 labels: a 0.850, b 0.700."
    )
    page.get_by_label("0").uncheck()
    assert said.inner_text() == "Seed 1. 8 labels: a 0.700, b 0.650. 32 labels: a 0.900, b 0.700."
    page.get_by_label("1", exact=True).uncheck()  # the last one: the first comes back
    assert said.inner_text().startswith("Seed 0. 8 labels: b 0.650")
    assert page.locator("svg").bounding_box()["width"] <= site.PHONE


def test_a_line_has_the_colour_of_its_method_on_the_site_and_in_a_kernel(show):
    methods = "frozen encoder", "MedSAGa", "SAMed", "another", "full fine-tuning"
    rows = [
        {"method": name, "shots": shots, "seed": 0, "dice": 0.5}
        for name in methods
        for shots in (4, 8)
    ]
    made = Interactive("seeds", {"rows": rows, "least": 0}, "caption")
    wanted = made.numbers["colours"]
    assert wanted | {name: display.colour(name) for name in methods if name != "another"} == wanted
    assert len(set(wanted.values())) == len(methods)
    page = show("seeds", {"rows": rows, "least": 0})
    drawn = page.eval_on_selector_all("polyline", LINES)
    assert drawn == [rgb(tint) for tint in wanted.values()]
    _, answer = of_kind("seeds", made.numbers)
    _, figure = answer(**{"seed 0": True})
    assert [line.get_color() for line in figure.axes[0].lines] == list(wanted.values())
    page.add_style_tag(path=STATIC / "book.css")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    dark = page.eval_on_selector_all("polyline", LINES)
    assert dark[1] == rgb("#0082cc")  # MedSAGa; the others are light enough
    assert dark[0] == drawn[0]


@pytest.mark.parametrize("least", [0.85, 0.4, 0])
def test_the_lines_of_a_grid_are_at_the_numbers_beside_them(show, least):
    rows = [
        {"method": "a", "shots": shots, "seed": 0, "dice": dice}
        for shots, dice in ((8, 0.88), (32, 0.9237))
    ]
    page = show("seeds", {"rows": rows, "least": least})
    said = page.locator("svg text[text-anchor=end]").all_text_contents()
    _, answer = of_kind("seeds", {"rows": rows, "least": least})
    _, figure = answer(**{"seed 0": True})
    axes = figure.axes[0]
    assert said == [f"{tick:.2f}" for tick in axes.get_yticks()]
    assert np.allclose(np.diff([float(text) for text in said], 2), 0)  # not rounded
    assert axes.get_ylim() == (float(said[0]), float(said[-1]))
    assert float(said[0]) <= least
    assert float(said[-1]) >= 0.9237


def test_a_soft_mask_is_the_part_around_the_truth():
    rng = np.random.default_rng(0)
    truth = np.zeros((400, 300), bool)
    truth[100:200, 40:90] = True  # the margin is 50; the left end is cut at 0
    probability = rng.random(truth.shape)
    stored = display.soft_mask(rng.random((400, 300, 3)), truth, probability)
    assert (stored["width"], stored["height"]) == (70, 100)  # every second pixel of 140 x 200
    part = np.s_[50:250:2, 0:140:2]
    for key, expected in (("truth", truth), ("probability", np.round(255 * probability))):
        found = np.frombuffer(base64.b64decode(stored[key]), np.uint8).reshape(100, 70)
        assert (found == expected[part]).all()


def test_threshold_tells_the_scores_and_draws_the_mask(show):
    truth = np.zeros((8, 8), bool)
    truth[2:6, 2:6] = True
    probability = np.where(truth, 0.9, 0.1)
    probability[2, 2] = 0.4
    scores = [
        {"threshold": 0.25, "dice": 1, "iou": 1, "hd95": 0},
        {"threshold": 0.5, "dice": 30 / 31, "iou": 15 / 16, "hd95": 1},
        {"threshold": 0.95, "dice": 0, "iou": 0, "hd95": None},
    ]
    one = display.soft_mask(np.zeros((8, 8)), truth, probability)
    page = show(
        "threshold", {"objects": [{"name": "a square", "unit": "mm", "scores": scores, **one}]}
    )
    said = page.locator("[role=status]")
    assert said.inner_text() == "Threshold 0.50: Dice 0.968, IoU 0.938, HD95 1.0 mm."
    inside = page.evaluate(BLUE_PIXELS)
    page.get_by_label("threshold").focus()
    page.keyboard.press("End")
    assert said.inner_text().endswith("HD95 not defined: the mask is empty.")
    assert inside > page.evaluate(BLUE_PIXELS) == 0
    assert page.locator("svg").bounding_box()["width"] <= site.PHONE


def test_bytes_tell_the_parts_of_a_method_and_their_sum(show):
    parts = {"weights": 100 * 2**20, "states": 412 * 2**20}
    half = {name: size / 2 for name, size in parts.items()}
    rows = [
        {"method": "full", "saving": "nothing", "parts": parts},
        {"method": "full", "saving": "bf16", "parts": half},
    ]
    page = show("bytes", {"rows": rows, "colours": {"weights": "#999999", "states": "#d55e00"}})
    said = page.locator("[role=status]")
    assert said.inner_text() == (
        "full, nothing: weights 100 MiB, states 412 MiB; sum 0.50 GiB, 100.0 % of the largest."
    )
    page.get_by_label("savings").focus()
    page.keyboard.press("ArrowRight")
    assert said.inner_text().endswith("sum 0.25 GiB, 50.0 % of the largest.")
    assert page.locator(".figure-bar").bounding_box()["width"] <= site.PHONE
