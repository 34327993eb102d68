"""Figures checked by what their artists hold: places, colours, texts; and by what a page gets."""

import base64
import io
import itertools
import os
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from matplotlib import font_manager
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from PIL import Image

from medsaga_lib import display
from medsaga_lib.data.folder import open_dataset
from medsaga_lib.data.images import read_pair
from medsaga_lib.display import Curve, Panel

LUNGS = {1: "right lung", 2: "left lung"}
OKABE_ITO = {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}


@pytest.fixture
def chest():
    """A picture of 60 x 80 with two rectangles as lungs, and the same one row lower."""
    image = np.linspace(0, 1, 4800).reshape(60, 80)
    truth = np.zeros((60, 80), int)
    truth[10:40, 8:32], truth[10:40, 45:69] = 1, 2
    return image, truth, np.roll(truth, 1, axis=0)


def contours(axes):
    return {lines.get_label(): lines for lines in axes.collections}


def names(axes):
    return [text.get_text() for text in axes.texts]


# --- contours


@settings(max_examples=60, deadline=None)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=8)))
def test_the_pixels_inside_the_outlines_are_the_mask(mask):
    centres = np.argwhere(np.ones_like(mask))[:, ::-1]  # (column, row)
    crossings = np.zeros(mask.size, int)
    for line in display.outlines(mask):
        assert np.array_equal(line[0], line[-1])
        crossings += Outline(line).contains_points(centres)
    assert np.array_equal(crossings.reshape(mask.shape) % 2 == 1, mask)


def test_outline_of_a_rectangle_at_the_border_runs_around_its_pixels():
    mask = np.zeros((6, 9), bool)
    mask[2:, :4] = True
    (line,) = display.outlines(mask)
    assert line.min(axis=0) == pytest.approx([-0.5, 1.5])
    assert line.max(axis=0) == pytest.approx([3.5, 5.5])


def test_panel_draws_each_class_of_each_mask_in_its_colour_and_line(chest):
    image, truth, prediction = chest
    axes = Figure().add_subplot()
    display.draw_panel(axes, Panel(image, truth, prediction, "case 7"), LUNGS)
    drawn = contours(axes)
    assert list(drawn) == [
        "prediction: right lung",
        "prediction: left lung",
        "truth: right lung",
        "truth: left lung",
    ]
    for key, lines in drawn.items():
        kind, name = key.split(": ")
        assert to_hex(lines.get_edgecolor()[0]).upper() == display.colour(name)
        assert (lines.get_linestyle()[0][1] is None) == (kind == "prediction")  # no dashes
        mask = {"truth": truth, "prediction": prediction}[kind] == (1 if "right" in name else 2)
        (vertices,) = lines.get_segments()
        assert np.array_equal(vertices, display.outlines(mask)[0])
        assert lines.get_facecolor().size == 0  # contours, no fill
    assert np.array_equal(axes.images[0].get_array(), image)
    assert axes.images[0].get_clim() == (0, 1)
    assert axes.get_title(loc="left") + axes.get_title() == "case 7"


def test_show_case_shows_the_picture_alone_and_with_contours(chest):
    figure = display.show_case(*chest, LUNGS, title="case 7", spacing=(2.0, 1.0), alt="Two lungs")
    plain, marked = figure.axes
    assert not plain.collections
    assert len(marked.collections) == 4
    assert sorted(names(marked)) == ["left lung", "right lung"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["prediction", "truth"]
    assert figure.get_label() == "Two lungs"
    assert marked.get_aspect() == 2
    box = marked.get_position()
    tall = box.height * figure.get_figheight() / (box.width * figure.get_figwidth())
    assert tall == pytest.approx(2 * 60 / 80)


def test_show_case_without_names_or_truth(chest):
    image, _, prediction = chest
    figure = display.show_case(image, prediction=prediction)
    assert list(contours(figure.axes[1])) == ["prediction: label 1", "prediction: label 2"]
    assert figure.get_label() == "A picture; prediction: label 1, label 2."
    assert len(display.show_case(image).axes) == 1


def test_only_the_labels_that_are_asked_for_are_drawn(chest):
    figure = display.show_case(*chest, {2: "left lung"})
    assert list(contours(figure.axes[1])) == ["prediction: left lung", "truth: left lung"]
    assert names(figure.axes[1]) == ["left lung"]


def test_colour_pictures_are_shown_as_they_are():
    image = np.random.default_rng(0).random((20, 30, 3))
    figure = display.show_case(image, np.ones((20, 30), int), labels={1: "polyp"})
    assert np.array_equal(figure.axes[0].images[0].get_array(), image)


# --- where panels and names go


def test_grid_names_a_class_where_it_first_occurs(chest):
    image, truth, _ = chest
    right = np.where(truth == 1, 1, 0)
    panels = [Panel(image, right), Panel(image, truth), Panel(image, truth), Panel(image, right)]
    figure = display.grid(panels, LUNGS, alt="Four chests", columns=2)
    assert [names(axes) for axes in figure.axes] == [["right lung"], ["left lung"], [], []]


def test_grid_stands_in_rows_without_overlaps(chest):
    image = chest[0]
    panels = [Panel(picture, None, None, "t") for picture in (image, image.T, image, image)]
    figure = display.grid(panels, LUNGS, alt="x", columns=2)
    figure.draw_without_rendering()
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert boxes[0].y1 == pytest.approx(boxes[1].y1)  # tops in line, though shapes differ
    assert boxes[0].x0 == pytest.approx(boxes[2].x0)
    assert boxes[2].y1 < boxes[1].y0
    assert boxes[0].x1 < boxes[1].x0
    assert all(box.width / box.height == pytest.approx(4 / 3) for box in (boxes[0], boxes[2]))


def test_many_classes_are_named_below(chest):
    image, _, _ = chest
    truth = np.repeat(np.arange(10), 6)[:, None] * np.ones((1, 80), int)
    labels = {value: f"organ {value}" for value in range(1, 10)}
    figure = display.show_case(image, truth, labels=labels)
    assert names(figure.axes[1]) == []
    key = {text.get_text(): line for text, line in zip(*legend(figure), strict=True)}
    assert list(key) == ["truth", *labels.values()]
    for name in labels.values():
        assert key[name].get_color() == display.colour(name)
    figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent().y1 <= figure.axes[1].get_window_extent().y0


def legend(figure):
    return figure.legends[0].get_texts(), figure.legends[0].get_lines()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 45), st.integers(0, 60), st.integers(1, 15), st.integers(1, 20))
def test_names_stay_in_the_picture_and_off_small_regions(top, left, height, width):
    truth = np.zeros((60, 80), int)
    truth[top : top + height, left : left + width] = 1
    truth[50:58, 3:20] = 2
    figure = display.show_case(np.zeros((60, 80)), truth, labels={1: "lesion", 2: "infarct"})
    figure.draw_without_rendering()
    (_, axes), boxes = figure.axes, []
    for text in axes.texts:
        box = text.get_window_extent().transformed(axes.transData.inverted())
        assert box.x0 > -1
        assert box.x1 < 80
        assert min(box.y0, box.y1) > -1.5
        assert max(box.y0, box.y1) < 60.5
        boxes.append(text.get_window_extent())
    assert not boxes[0].overlaps(boxes[1])


def test_a_name_stands_in_a_large_region_and_beside_a_small_one():
    truth = np.zeros((60, 80), int)
    truth[5:35, 5:50], truth[45:48, 60:63] = 1, 2
    figure = display.show_case(np.zeros((60, 80)), truth, labels={1: "liver", 2: "lesion"})
    places = {text.get_text(): text.get_position() for text in figure.axes[1].texts}
    x, y = places["liver"]
    assert truth[round(y), round(x)] == 1
    x, y = places["lesion"]
    assert truth[round(y), round(x)] == 0
    assert abs(x - 61) < 15
    assert abs(y - 46) < 8


# --- colours and style


def test_colours_are_okabe_ito_and_do_not_change():
    assert set(display.COLOURS.values()) <= OKABE_ITO | {display.GREY}
    assert display.colour("right lung") != display.colour("left lung") != display.colour("heart")
    assert display.colour("gallbladder") == display.OTHERS[2332613143 % 6]  # by its CRC-32


def test_the_style_is_used_and_does_not_leak():
    before = dict(matplotlib.rcParams)
    figure = display.bar_ledger({"full": {"weights": 2**20}}, alt="x")
    assert dict(matplotlib.rcParams) == before
    assert figure.get_figwidth() == 7
    assert figure.dpi == 150
    found = font_manager.findfont("DejaVu Sans", fallback_to_default=False)
    assert Path(matplotlib.get_data_path()) in Path(found).parents  # ships with matplotlib


# --- curves and bars


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
    assert display._mib(size) == text


# --- what the page gets


class ImageTag(HTMLParser):
    def handle_starttag(self, tag, attributes):
        self.tag, self.attributes = tag, dict(attributes)


def emitted(figure, alt=""):
    """The data and metadata of the one output of `show` in an IPython session."""
    InteractiveShell.instance()
    try:
        with capture_output() as captured:
            display.show(figure, alt)
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


def test_a_real_x_ray_is_small_and_keeps_its_greys():
    if not os.environ.get("MEDSAGA_DATA"):
        pytest.skip("MEDSAGA_DATA is not set: the chest X-rays are not on this machine")
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
