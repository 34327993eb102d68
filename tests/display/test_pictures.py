"""Pictures, checked by the artists in them: places, colours, texts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline

from medsaga_lib import display
from medsaga_lib.display import Panel

LUNGS = {1: "right lung", 2: "left lung"}


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
    assert figure.get_label() == "An image; prediction: label 1, label 2."
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
@given(st.integers(0, 45), st.integers(0, 60), st.integers(1, 60), st.integers(1, 80))
def test_names_are_in_their_regions_or_all_below(top, left, height, width):
    truth = np.zeros((60, 80), int)
    truth[5:58, 3:78] = 2
    truth[top : top + height, left : left + width] = 1
    labels = {1: "lesion", 2: "infarct"}
    figure = display.show_case(np.zeros((60, 80)), truth, labels=labels)
    figure.draw_without_rendering()
    texts = figure.axes[1].texts
    below = [text.get_text() for text in legend(figure)[0]]
    occur = [name for value, name in labels.items() if (truth == value).any()]
    assert [text.get_text() for text in texts] + below[1:] == (below[1:] or occur)
    for text in texts:
        box = text.get_window_extent().transformed(figure.axes[1].transData.inverted())
        columns = slice(int(box.x0 + 1), int(box.x1))
        rows = slice(int(min(box.y0, box.y1) + 1), int(max(box.y0, box.y1)))
        assert set(labels[value] for value in truth[rows, columns].flat) == {text.get_text()}


def test_a_name_that_does_not_fit_moves_all_names_below():
    truth = np.zeros((60, 80), int)
    truth[5:35, 5:50] = 1
    alone = display.show_case(np.zeros((60, 80)), truth, labels={1: "liver", 2: "lesion"})
    assert names(alone.axes[1]) == ["liver"]
    assert [text.get_text() for text in legend(alone)[0]] == ["truth"]
    truth[45:48, 60:63] = 2
    both = display.show_case(np.zeros((60, 80)), truth, labels={1: "liver", 2: "lesion"})
    assert names(both.axes[1]) == []
    assert [text.get_text() for text in legend(both)[0]] == ["truth", "liver", "lesion"]


def test_a_name_stands_in_the_true_region_and_not_in_a_larger_wrong_one():
    truth, prediction = np.zeros((2, 60, 80), int)
    truth[30:58, 45:78], prediction[2:40, 2:44] = 1, 1
    panel = Panel(np.zeros((60, 80)), truth, prediction)
    (axes,) = display.grid([panel], {1: "liver"}, alt="x", columns=1).axes
    x, y = axes.texts[0].get_position()
    assert truth[y, x] == 1


def test_the_legend_calls_the_lines_as_it_is_told(chest):
    figure = display.grid([Panel(*chest)], LUNGS, alt="x", lines=("corrected", "as they came"))
    assert [text.get_text() for text in legend(figure)[0]][:2] == ["corrected", "as they came"]


def test_every_box_is_drawn_with_its_object():
    labels = np.zeros((40, 50), int)
    labels[5:15, 5:15], labels[20:35, 20:45] = 1, 2
    boxes = np.array([[5.0, 5, 14, 14], [20, 20, 44, 34], [0, 30, 9, 39]])  # the third is empty
    plain, drawn = display.show_boxes(np.zeros((40, 50)), labels, boxes).axes
    assert not plain.collections
    contours, frames = drawn.collections[::2], drawn.collections[1::2]
    assert [len(c.get_segments()) for c in contours] == [1, 1, 0]
    corners = [frame.get_segments()[0] for frame in frames]
    assert [(*c.min(0), *c.max(0)) for c in corners] == [tuple(box) for box in boxes]
