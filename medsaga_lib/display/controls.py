"""Figures that readers change, by ipywidgets, where a kernel runs.

On the site, `book/_static/figures.js` draws the same figures from the same numbers and says the
same sentences. A figure here is made of *choices*, the controls by their names, and of an *answer*,
a function of their values that returns a sentence and a figure.
"""

import base64
import html
import io
import math
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np
from ipywidgets import HTML, Checkbox, Dropdown, IntSlider, SelectionSlider, VBox, Widget
from matplotlib.figure import Figure
from PIL import Image

from medsaga_lib.display.charts import GIB, MIB, Curve, bar_ledger, curve_with_interval
from medsaga_lib.display.page import Shown
from medsaga_lib.display.pictures import Panel, draw_panel
from medsaga_lib.display.style import INK, WIDTH, styled
from medsaga_lib.errors import UserError

Answer = Callable[..., tuple[str, Figure]]

WIDGET = "application/vnd.jupyter.widget-view+json"
NUMBER_BYTES = 4  # of a number in single precision
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)  # between the lines of a grid
MOST_STEPS = 5
POINTS_OF_A_CURVE = 40  # at most, equally spaced on the logarithmic axis


class Controls(VBox):  # type: ignore[misc]
    """Controls above a sentence and a figure that follow them.

    A page without a kernel shows the figure of the first values instead.

    Args:
        choices: name -> a widget with a `value`; the name is that of an argument of `answer`.
        answer: called with the values of the widgets by name; returns a sentence and a figure,
            whose label is its alt text. What a `UserError` says takes the place of the sentence.
        caption: a sentence below the figure.
    """

    def __init__(self, choices: Mapping[str, Widget], answer: Answer, caption: str = "") -> None:
        self.choices, self._answer, self._caption = choices, answer, caption
        self.said, self.picture = HTML(), HTML()
        for choice in choices.values():
            choice.observe(lambda _: self._update(), "value")
        super().__init__([*choices.values(), self.said, self.picture])
        self._update()

    def _update(self) -> None:
        values = {name: choice.value for name, choice in self.choices.items()}
        try:
            sentence, figure = self._answer(**values)
        except UserError as error:
            sentence = str(error)
        else:
            self._shown = Shown(figure, caption=self._caption)
            self.picture.value = self._shown.to_html()
        self.said.value = f'<span role="status">{html.escape(sentence)}</span>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return view_of(self) | self._shown._repr_mimebundle_()[0]


def view_of(widget: Widget) -> dict[str, Any]:
    """Return how a notebook stores a widget; ipywidgets 7, as on Colab, has no method for it."""
    return {WIDGET: {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}}


def of_kind(kind: str, numbers: dict[str, Any]) -> tuple[dict[str, Widget], Answer]:
    """Return the choices and the answer of a figure of `display.interactive`."""
    return {"spectrum": _spectrum, "seeds": _seeds, "threshold": _threshold, "bytes": _bytes}[kind](
        numbers
    )


def fixed(number: float, digits: int) -> str:
    """Write a number with some digits after the point, as JavaScript's `toFixed` does.

    Python rounds a tie to the even digit, JavaScript away from 0.
    """
    unit = Decimal(1).scaleb(-digits)
    return f"{Decimal(float(number)).quantize(unit, ROUND_HALF_UP):,f}"


def checkbox(text: str, checked: bool = False) -> Checkbox:
    """Return a checkbox beside its whole text, which ipywidgets would cut."""
    return Checkbox(checked, description=text, indent=False, layout={"width": "auto"})


def percent(share: float) -> str:
    return f"{fixed(100 * share, 1)} %"


def rounds(low: float, high: float) -> list[float]:
    """Return the values of the lines of a grid from at most `low` to at least `high`, all round.

    >>> rounds(0.85, 0.93)
    [0.84, 0.86, 0.88, 0.9, 0.92, 0.94]
    """
    step = next((one for one in STEPS if (high - low) / one <= MOST_STEPS + 1e-9), 1)
    first = math.floor(low / step + 1e-9)
    last = max(first + 1, math.ceil(high / step - 1e-9))
    return [round(number * step, 2) for number in range(first, last + 1)]


def _spectrum(numbers: dict[str, Any]) -> tuple[dict[str, Widget], Answer]:
    """Energy of a gradient in its strongest directions, and the states of Adam in them."""
    (m, n), curves = numbers["shape"], numbers["curves"]
    points = np.unique(np.geomspace(1, m, POINTS_OF_A_CURVE).round().astype(int))

    def answer(rank: int) -> tuple[str, Figure]:
        wanted, adam = 2 * rank * n + rank * m, 2 * m * n
        states = min(wanted, adam)
        shares = ", ".join(f"{name} {percent(y[rank - 1])}" for name, y in curves.items())
        held, all_of_adam = (fixed(NUMBER_BYTES * s / MIB, 2) for s in (states, adam))
        end = ": at this rank the projection would need more, so Adam's are kept."
        sentence = (
            f"Rank {rank} of {m}: {shares} of the energy. GaLore's states, 2 r n + r m numbers, "
            f"take {held} MiB, {percent(states / adam)} of Adam's {all_of_adam} MiB"
            f"{end if wanted > adam else '.'}"
        )
        lines = [
            Curve(name, points.tolist(), [y[point - 1] for point in points])
            for name, y in curves.items()
        ]
        axes = "rank r (directions)", "share of energy"
        figure = curve_with_interval(lines, *axes, sentence, log_x=True)
        figure.axes[0].axvline(rank, color=INK)
        return sentence, figure

    return {"rank": IntSlider(round(m / 12), 1, m, description="rank r")}, answer


def _seeds(numbers: dict[str, Any]) -> tuple[dict[str, Widget], Answer]:
    """Means over the chosen seeds, against the number of labels."""
    rows = numbers["rows"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    shots, seeds = (sorted({row[key] for row in rows}) for key in ("shots", "seed"))
    grades = rounds(numbers["least"], max(row["dice"] for row in rows))
    boxes = {f"seed {seed}": checkbox(f"seed {seed}", True) for seed in seeds}

    def answer(**checked: bool) -> tuple[str, Figure]:
        chosen = [seed for seed in seeds if checked[f"seed {seed}"]]
        if not chosen:
            chosen, boxes[f"seed {seeds[0]}"].value = [seeds[0]], True

        def mean(method: str, shot: int) -> float:
            found = [
                row["dice"]
                for row in rows
                if row["method"] == method and row["shots"] == shot and row["seed"] in chosen
            ]
            return sum(found) / len(found)

        parts = []
        for shot in shots:
            means = {method: mean(method, shot) for method in methods}
            ordered = sorted(means, key=lambda method: -means[method])
            names = ", ".join(f"{method} {fixed(means[method], 3)}" for method in ordered)
            parts.append(f"{shot} labels: {names}.")
        one = "Seed" if len(chosen) == 1 else "Mean over seeds"
        sentence = f"{one} {', '.join(map(str, chosen))}. {' '.join(parts)}"
        curves = [Curve(name, shots, [mean(name, shot) for shot in shots]) for name in methods]
        figure = curve_with_interval(curves, "labelled images", "mean Dice", sentence, log_x=True)
        figure.axes[0].set(ylim=(grades[0], grades[-1]), yticks=grades)
        return sentence, figure

    return boxes, answer


def _threshold(numbers: dict[str, Any]) -> tuple[dict[str, Widget], Answer]:
    """A soft mask cut at a threshold, beside the annotator's, with its metrics."""
    objects = {one["name"]: one for one in numbers["objects"]}
    steps = len(numbers["objects"][0]["scores"])

    def answer(image: str, step: int) -> tuple[str, Figure]:
        one = objects[image]
        row = one["scores"][step]
        cut, far = row["threshold"], row["hd95"]
        distance = "not defined: the mask is empty"
        if far is not None:
            distance = f"{fixed(far, 1)} {one['unit']}"
        sentence = (
            f"Threshold {fixed(cut, 2)}: Dice {fixed(row['dice'], 3)}, IoU {fixed(row['iou'], 3)}, "
            f"HD95 {distance}."
        )
        return sentence, _cut(one, cut, sentence)

    choices = {
        "image": Dropdown(options=list(objects), description="image"),
        "step": IntSlider((steps - 1) // 2, 0, steps - 1, description="step", readout=False),
    }
    return choices, answer


@styled
def _cut(one: dict[str, Any], cut: float, alt: str) -> Figure:
    """Draw an image with its mask at a threshold, and the curves of its metrics."""
    size = one["height"], one["width"]
    content = base64.b64decode(one["picture"].split(",", 1)[1])
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) / 255
    soft, truth = (
        np.frombuffer(base64.b64decode(one[key]), np.uint8).reshape(size)
        for key in ("probability", "truth")
    )
    figure = Figure(figsize=(WIDTH, 0.45 * WIDTH), label=alt)
    left, right = figure.subplots(1, 2)
    draw_panel(left, Panel(pixels, truth, (soft > 255 * cut).astype(int)), {1: "object"})
    for key, name in (("dice", "Dice"), ("iou", "IoU")):
        lines = [(row["threshold"], row[key]) for row in one["scores"]]
        right.plot(*np.transpose(lines), label=name)
    right.axvline(cut, color=INK)
    right.set(xlabel="threshold", ylabel="score", xlim=(0, 1), ylim=(0, 1))
    right.legend()
    return figure


def _bytes(numbers: dict[str, Any]) -> tuple[dict[str, Widget], Answer]:
    """The parts of training memory as a bar, for a method and a number of savings."""
    parts = {(row["method"], row["saving"]): row["parts"] for row in numbers["rows"]}
    most = max(sum(sizes.values()) for sizes in parts.values())
    methods, savings = (list(dict.fromkeys(key[at] for key in parts)) for at in (0, 1))

    def answer(method: str, saving: str) -> tuple[str, Figure]:
        sizes = parts[method, saving]
        total = sum(sizes.values())
        names = ", ".join(f"{name} {fixed(size / MIB, 0)} MiB" for name, size in sizes.items())
        sentence = (
            f"{method}, {saving}: {names}; sum {fixed(total / GIB, 2)} GiB, "
            f"{percent(total / most)} of the largest."
        )
        return sentence, bar_ledger({method: sizes}, sentence, saving, most)

    choices = {
        "method": Dropdown(options=methods, description="method"),
        "saving": SelectionSlider(options=savings, description="savings"),
    }
    return choices, answer
