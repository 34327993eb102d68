"""Every name has one colour, and the style does not change other figures."""

import itertools
import json
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager

from medsaga_lib import display
from medsaga_lib.display import style
from medsaga_lib.recipes import get_recipe

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "notebooks" / "recorded"
OKABE_ITO = {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}


TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1, 1.089])
# Machado, Oliveira & Fernandes 2009, table 1, severity 1.0: linear RGB as it is seen
SIGHT = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def linear(tint):
    rgb = np.array([int(tint[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def cielab(tint, sight):
    share = TO_XYZ @ np.clip(sight @ linear(tint), 0, 1) / WHITE
    x, y, z = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one, other):
    """As in the Web Content Accessibility Guidelines."""
    light, dark = sorted(((TO_XYZ @ linear(tint))[1] for tint in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_of_labels_are_okabe_ito_and_do_not_change():
    assert set(style.LABELS.values()) <= OKABE_ITO
    assert len({display.colour(name) for name in ("right lung", "left lung", "heart")}) == 3
    assert display.colour("gallbladder") == style.OTHERS[2332613143 % 6]  # by its CRC-32


def test_each_method_of_the_recorded_tables_has_a_colour():
    texts = [path.read_text(encoding="utf-8") for path in RECORDED.glob("*.json")]
    recipes = {name for text in texts for name in re.findall(r'"recipe": "(\w+)', text)}
    assert {"late_stages", "segresnet", "lite_medsam_lora"} <= recipes
    assert {get_recipe(name).method for name in recipes} <= style.METHOD_TINTS.keys()
    peers = json.loads((RECORDED / "optimizers_peers.json").read_text(encoding="utf-8"))
    assert "Fira" in json.dumps(peers)
    assert {"Fira", "APOLLO", "AdamW"} <= style.OPTIMIZERS.keys()


@pytest.mark.parametrize("sight", SIGHT)
def test_two_colours_of_methods_differ_for_everybody(sight):
    seen = [cielab(tint, np.array(SIGHT[sight])) for tint in set(style.METHOD_TINTS.values())]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) >= 13


def test_each_colour_of_a_live_figure_has_a_contrast_of_3_in_the_dark_theme():
    css = (ROOT / "book/_static/book.css").read_text(encoding="utf-8")
    lighter = dict(re.findall(r"--of-(\w{6}): (#\w{6});", css))
    panel = "#29313d"  # --pst-color-surface of the theme
    for tint in {*style.METHOD_TINTS.values(), *style.OTHERS}:
        assert contrast(lighter.get(tint[1:].lower(), tint), panel) >= 3, tint


def test_the_fit_page_has_the_colours_of_the_figures():
    css = (ROOT / "book/_static/book.css").read_text(encoding="utf-8")
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
