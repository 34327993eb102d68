"""A picture with labels, and a browser, for the tests of the figures."""

from pathlib import Path

import numpy as np
import pytest

from medsaga_lib.display.live import Interactive
from tools import site

STATIC = Path(__file__).parents[2] / "book" / "_static"


@pytest.fixture
def chest():
    """A picture of 60 x 80 with two rectangles as lungs, and the same one row lower."""
    image = np.linspace(0, 1, 4800).reshape(60, 80)
    truth = np.zeros((60, 80), int)
    truth[10:40, 8:32], truth[10:40, 45:69] = 1, 2
    return image, truth, np.roll(truth, 1, axis=0)


@pytest.fixture(scope="module")
def show(browser):
    """A function that opens figures in a browser, at a phone's width."""

    def opened(kind, numbers):
        page = browser.new_page(viewport={"width": site.PHONE, "height": 800})
        page.set_content(Interactive(kind, numbers, "caption")._repr_mimebundle_()["text/html"])
        for script in ("shared.js", "figures.js"):
            page.add_script_tag(path=STATIC / script)
        return page

    return opened
