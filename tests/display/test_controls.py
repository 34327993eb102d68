"""Figures with controls in a notebook: they say what the site's figures say."""

import html

import numpy as np
import pytest
from ipywidgets import IntSlider
from matplotlib.figure import Figure

from medsaga_lib import display
from medsaga_lib.display.controls import Controls, fixed, of_kind
from medsaga_lib.display.live import Interactive
from medsaga_lib.errors import UserError

WIDGET = "application/vnd.jupyter.widget-view+json"
RANKS = [1, 2, 5, 12]  # of 12


def spectrum():
    share = np.cumsum(np.sort(np.random.default_rng(0).random(12))[::-1])
    return {"shape": [12, 20], "curves": {"gradient": (share / share[-1]).tolist()}}


def seeds():
    rng = np.random.default_rng(1)
    rows = [
        {"method": method, "shots": shots, "seed": seed, "dice": float(rng.random())}
        for method in ("b", "a")
        for shots in (8, 32)
        for seed in (0, 1, 2)
    ]
    return {"rows": rows, "least": 0.0}


def threshold():
    rng = np.random.default_rng(2)
    soft, truth = rng.random((20, 30)), np.zeros((20, 30), bool)
    truth[5:15, 8:22] = True
    objects = []
    for name in ("first", "second"):
        scores = [
            {"threshold": k / 10, "dice": float(rng.random()), "iou": float(rng.random())}
            | {"hd95": None if k == 9 else float(100 * rng.random())}
            for k in range(1, 10)
        ]
        one = {"name": name, "unit": "mm", "scores": scores}
        objects.append(one | display.soft_mask(soft, truth, soft))
    return {"objects": objects}


def of_bytes():
    rng = np.random.default_rng(3)
    rows = [
        {"method": method, "saving": saving}
        | {"parts": {part: float(2e9 * rng.random()) for part in ("weights", "states")}}
        for method in ("MedSAGa", "SAMed")
        for saving in ("none", "fused")
    ]
    return {"rows": rows, "colours": {"weights": "#999999", "states": "#d55e00"}}


def set_in_browser(page, selector, value):
    page.locator(selector).evaluate(
        "(one, value) => { one.value = value;"
        " for (const kind of ['input', 'change']) one.dispatchEvent(new Event(kind)); }",
        str(value),
    )


def ranks(page):
    for rank in RANKS:
        yield {"rank": rank}, lambda rank=rank: set_in_browser(page, "input", rank)


def chosen_seeds(page):
    for chosen in ((0, 1, 2), (1, 2), (2,), (0, 2)):

        def tick(chosen=chosen):
            for seed in sorted(range(3), key=lambda seed: seed not in chosen):
                page.get_by_label(str(seed), exact=True).set_checked(seed in chosen)

        yield {f"seed {seed}": seed in chosen for seed in range(3)}, tick


def steps(page):
    for number, name in enumerate(("first", "second")):
        for step in (0, 4, 8):

            def move(number=number, step=step):
                set_in_browser(page, "select", number)
                set_in_browser(page, "input", step)

            yield {"image": name, "step": step}, move


def savings(page):
    for method in ("MedSAGa", "SAMed"):
        for number, saving in enumerate(("none", "fused")):

            def move(method=method, number=number):
                set_in_browser(page, "select", method)
                set_in_browser(page, "input", number)

            yield {"method": method, "saving": saving}, move


FIGURES = {
    "spectrum": (spectrum, ranks),
    "seeds": (seeds, chosen_seeds),
    "threshold": (threshold, steps),
    "bytes": (of_bytes, savings),
}


@pytest.mark.parametrize("kind", FIGURES)
def test_a_notebook_says_what_the_site_says(show, kind):
    make, states = FIGURES[kind]
    page = show(kind, make())
    choices, answer = of_kind(kind, make())
    said = {}
    for values, move in states(page):
        assert values.keys() == choices.keys()
        move()
        sentence, figure = answer(**values)
        assert page.locator("[role=status]").inner_text() == sentence
        assert figure.get_label() == sentence  # the alt text
        said[str(values)] = sentence
    assert len({*said.values()}) == len(said)  # each state says something else


@pytest.mark.parametrize("kind", FIGURES)
def test_both_begin_with_the_same_values(show, kind):
    numbers = FIGURES[kind][0]()
    page = show(kind, numbers)
    made = Controls(*of_kind(kind, numbers), "A caption.")
    assert page.locator("[role=status]").inner_text() in html.unescape(made.said.value)
    assert "<figcaption>A caption.</figcaption>" in made.picture.value


def test_the_figure_follows_the_controls():
    made = Controls(*of_kind("spectrum", spectrum()))
    before = made.said.value, made.picture.value
    made.choices["rank"].value = 7
    assert made.said.value.startswith('<span role="status">Rank 7 of 12:')
    assert made.picture.value != before[1]


def test_the_last_seed_cannot_be_left_out():
    made = Controls(*of_kind("seeds", seeds()))
    for seed in (0, 1, 2):
        made.choices[f"seed {seed}"].value = False
    assert made.choices["seed 0"].value
    assert "Seed 0. 8 labels" in made.said.value


def test_an_error_takes_the_place_of_the_sentence():
    def answer(number):
        if number > 1:
            raise UserError("2 is too many; <choose> 1.")
        return "Well.", Figure(label="A figure.")

    made = Controls({"number": IntSlider(1, 0, 2)}, answer)
    drawn = made.picture.value
    made.choices["number"].value = 2
    assert "2 is too many; &lt;choose&gt; 1." in made.said.value
    assert made.picture.value == drawn


@pytest.mark.parametrize("kernel", [True, False])
def test_only_a_kernel_has_controls(monkeypatch, kernel):
    shell = type("Shell", (), {"kernel": object()} if kernel else {})()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    bundle = Interactive("spectrum", spectrum(), "A caption.")._repr_mimebundle_()
    assert (WIDGET in bundle) == kernel
    assert 'class="figure-live"' in bundle["text/html"]  # what the site shows
    assert bundle["text/plain"] == "A caption."


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [(0.25, 1, "0.3"), (2.5, 0, "3"), (1234.5, 0, "1,235"), (1.005, 2, "1.00"), (0.0, 2, "0.00")],
)
def test_numbers_are_rounded_as_in_javascript(number, digits, text):
    """`(0.25).toFixed(1)` is 0.3; Python writes 0.2."""
    assert fixed(number, digits) == text
