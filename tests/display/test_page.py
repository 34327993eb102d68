"""A figure on a page is a small image with an alt text."""

import base64
import io
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from medsaga_lib import display
from medsaga_lib.data.cases import read_pair
from medsaga_lib.data.catalog import open_dataset

LUNGS = {1: "right lung", 2: "left lung"}


class ImageTag(HTMLParser):
    def handle_starttag(self, tag, attributes):
        self.tag, self.attributes = tag, dict(attributes)


def emitted(figure, alt="", caption=""):
    """The data and metadata of the one output of `show` in an IPython session."""
    InteractiveShell.instance()
    try:
        with capture_output() as captured:
            display.show(figure, alt, caption)
    finally:
        InteractiveShell.clear_instance()
    (output,) = captured.outputs
    return output.data, output.metadata


def parsed(data):
    parser = ImageTag()
    parser.feed(data["text/html"])
    assert parser.tag == "img"
    return parser.attributes


def test_show_emits_an_image_with_alt_text(chest):
    alt = 'The "right" lung & the left: 5 < 7,\n both found'
    data, metadata = emitted(display.show_case(*chest, LUNGS, alt=alt))
    flat = 'The "right" lung & the left: 5 < 7, both found'
    tag = parsed(data)
    assert tag["alt"] == data["text/plain"] == metadata["alt"] == flat
    assert "max-width: 100%" in tag["style"]
    kind, content = tag["src"].split(";base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert kind == "data:image/webp"
    assert picture.format == "WEBP"
    assert picture.width == 1050
    assert int(tag["width"]) == 672  # 7 in of 96 pixels, as CSS has it


def test_a_caption_stands_below_the_image(chest):
    figure = display.show_case(*chest, LUNGS, alt="Two lungs")
    data, metadata = emitted(figure, caption="Both lungs,\n  a < b.")
    start, rest = data["text/html"].split("<img")
    assert start == '<figure style="margin: 0">'
    assert rest.endswith("><figcaption>Both lungs, a &lt; b.</figcaption></figure>")
    assert data["text/plain"] == metadata["alt"] == "Two lungs"


def test_show_takes_any_figure_of_matplotlib_and_closes_it():
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    data, _ = emitted(figure, alt="A line that rises")
    assert parsed(data)["src"].startswith("data:image/png;base64,")
    assert not plt.fignum_exists(figure.number)


def test_a_file_is_a_png_that_carries_its_alt_text(chest):
    figure = display.show_case(*chest, LUNGS, alt="Two lungs, größer")
    picture = Image.open(io.BytesIO(display.to_png(figure)))
    assert picture.format == "PNG"
    assert picture.size == (1050, round(figure.get_figheight() * 150))
    assert picture.text["Description"] == "Two lungs, größer"
    assert Image.open(io.BytesIO(display.to_png(figure, "A"))).text["Description"] == "A"


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_show_refuses_a_figure_without_alt_text(alt):
    with pytest.raises(ValueError, match="alt text"):
        emitted(Figure(), alt)


def test_drawings_keep_their_colours_as_png():
    figure = display.bar_ledger({"a": {"weights": 2**30, "states": 2**30}}, alt="x")
    mime, content = display.encode(figure)
    assert mime == "image/png"
    assert len(content) < 30_000
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).reshape(-1, 3)
    for name in ("weights", "states"):
        wanted = 255 * np.array(to_rgb(display.colour(name)))
        near = np.abs(pixels - wanted).max(axis=1) < 3
        assert near.mean() > 0.05


def test_a_real_x_ray_is_small_and_keeps_its_greys(real_data):
    dataset = open_dataset("cxr_hannover_lungs")
    picture, mask = read_pair(dataset, dataset.split("test")[0])
    figure = display.show_case(picture.pixels, mask, np.roll(mask, 5, 1), dataset.labels)
    mime, content = display.encode(figure)
    assert mime == "image/webp"
    assert len(content) < 120_000
    before, after = (
        np.asarray(Image.open(io.BytesIO(file)).convert("L"), dtype=float)
        for file in (display.to_png(figure), content)
    )
    assert np.sqrt(np.mean((before - after) ** 2)) < 4  # of 255
