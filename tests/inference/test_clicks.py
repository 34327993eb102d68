"""Clicks in a notebook: Python's side alone, and the browser's side with a model of its own."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsaga_lib.data.images import Picture, read_image, read_mask
from medsaga_lib.errors import UserError
from medsaga_lib.inference import clicks as module
from medsaga_lib.inference.box_predictor import load_box_predictor
from medsaga_lib.inference.clicks import Clicks
from medsaga_lib.inference.prompts import segment_prompt
from tools import site

BOX = [20, 25, 70, 75]
SCRIPT = Path(module.__file__).with_suffix(".js").read_text(encoding="utf-8")
PAGE = f"<!doctype html><title>Clicks</title><style>{module.STYLE}</style><div id=here></div>"
# A model as of a notebook: it keeps what is set, and notes what is sent
START = """async given => {
  const state = given, sent = [], listeners = {};
  const model = {
    get: name => state[name],
    set: (name, value) => { state[name] = value; },
    save_changes: () => sent.push(structuredClone(state.prompt)),
    on: (name, listen) => { listeners[name] = listen; },
  };
  window.sent = sent;
  window.change = (name, value) => { state[name] = value; listeners[`change:${name}`](); };
  const source = URL.createObjectURL(new Blob([SCRIPT], {type: "text/javascript"}));
  const {default: clicks} = await import(source);
  clicks.render({model, el: document.getElementById("here")});
}"""


@pytest.fixture
def discs(tmp_path):
    """An image of two discs, 120 x 160."""
    y, x = np.mgrid[:120, :160]
    pixels = np.full((120, 160), 60, np.uint8)
    pixels[(x - 45) ** 2 + (y - 50) ** 2 < 25**2] = 200
    pixels[(x - 115) ** 2 + (y - 70) ** 2 < 30**2] = 160
    Image.fromarray(pixels).save(tmp_path / "discs.png")
    return tmp_path / "discs.png"


@pytest.fixture(scope="module")
def pocket():
    return load_box_predictor("pocket")


def picture_in(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))))


def test_a_prompt_from_the_browser_gives_the_networks_mask(discs, pocket):
    clicks = Clicks(discs, pocket)
    assert "Draw a box" in clicks.said.value
    clicks.stage.prompt = {"box": BOX, "points": []}  # as the browser sets it
    pixels = read_image(discs, "").pixels
    expected = segment_prompt(pocket, pocket.embed(pixels), pixels.shape, BOX)
    np.testing.assert_array_equal(clicks.mask, expected.mask)
    assert f"{expected.mask.sum():,} pixels" in clicks.said.value
    assert f"{expected.score:.2f}." in clicks.said.value
    shown = picture_in(clicks.stage.overlay)
    np.testing.assert_array_equal(shown[..., 3] > 0, expected.mask)
    grey = picture_in(clicks.stage.picture)[..., 0]
    np.testing.assert_array_equal(grey, np.asarray(Image.open(discs)))


def test_an_image_is_encoded_once_and_a_prompt_answered_once(discs, pocket, monkeypatch):
    calls = []
    encoded = type(pocket).embed
    monkeypatch.setattr(type(pocket), "embed", lambda *given: calls.append(1) or encoded(*given))
    clicks = Clicks(discs, pocket)
    before = clicks.stage.answers
    clicks.ask(BOX)
    clicks.ask([85, 40, 145, 100])
    assert len(calls) == 1
    assert clicks.stage.answers == before + 2


def test_masks_are_kept_and_saved_as_labels(discs, pocket, tmp_path):
    clicks = Clicks(discs, pocket)
    masks = []
    for value, box in ((1, BOX), (3, [85, 40, 145, 100])):
        clicks.ask(box)
        masks.append(clicks.mask)
        clicks.keep(value)
        assert not clicks.mask.any()
        assert clicks.stage.prompt == {"box": None, "points": []}
    assert f"Label 3 has {masks[1].sum():,} pixels now." in clicks.said.value
    expected = np.where(masks[1], 3, masks[0])
    np.testing.assert_array_equal(clicks.labels, expected)
    target = clicks.save(tmp_path / "labels")
    assert target == tmp_path / "labels" / "discs_labels.png"
    np.testing.assert_array_equal(read_mask(target)[0], expected)
    clicks.ask(BOX)
    clicks.keep(0)
    assert "was erased" in clicks.said.value
    np.testing.assert_array_equal(clicks.labels, np.where(masks[0], 0, expected))


def test_the_slices_of_a_volume_have_their_own_labels(pocket, tmp_path):
    z, y, x = np.mgrid[:5, :64, :64]
    ball = (((x - 32) ** 2 + (y - 30) ** 2) / 20**2 + (z - 2) ** 2 / 3**2 < 1) * 180 + 40
    np.savez(tmp_path / "ball.npz", imgs=ball.astype(np.uint8), spacing=[3, 1, 1])
    clicks = Clicks(tmp_path / "ball.npz", pocket)
    assert (clicks.slice.value, clicks.slice.max) == (2, 4)
    clicks.ask([10, 8, 54, 52])
    of_middle = clicks.mask
    clicks.keep(1)
    clicks.slice.value = 3
    assert clicks.stage.alt == "ball.npz, slice 3."
    assert not picture_in(clicks.stage.overlay)[..., 3].any()
    np.testing.assert_array_equal(clicks.labels.any((1, 2)), [False, False, True, False, False])
    np.testing.assert_array_equal(clicks.labels[2], of_middle)
    with np.load(clicks.save(tmp_path / "labels")) as saved:
        np.testing.assert_array_equal(saved["segs"], clicks.labels)


def test_what_cannot_be_obeyed_is_said(discs, pocket, tmp_path):
    clicks = Clicks(discs, pocket)
    with pytest.raises(UserError, match="nothing to save"):
        clicks.save(tmp_path)
    with pytest.raises(UserError, match="not between 0 and 160x120"):
        clicks.ask([0, 0, 500, 5])
    clicks.stage.prompt = {"box": [0, 0, 500, 5], "points": []}
    assert "not between 0 and 160x120" in clicks.said.value
    clicks.keep(1)
    assert "There is no mask to keep" in clicks.said.value
    with pytest.raises(UserError, match="256 is not between 0 and 255"):
        clicks.keep(256)
    drawn = Clicks(Picture(np.zeros((40, 40), np.float32), (1.0, 1.0)), pocket)
    drawn.ask([5, 5, 30, 30])
    drawn.labels[:] = 1
    with pytest.raises(UserError, match="not read from a file"):
        drawn.save(tmp_path)


def test_a_network_of_boxes_warns_of_points(discs):
    points = [(45.0, 50.0, 1)]
    for network, warned in (("pocket", False), (load_box_predictor("pocket"), True)):
        clicks = Clicks(discs, network)
        clicks.ask(points=points)
        assert ("trained with boxes alone" in clicks.said.value) == warned


def test_a_page_without_a_kernel_shows_the_last_box(discs, pocket):
    clicks = Clicks(discs, pocket, caption="A box.")
    clicks.ask(BOX)
    bundle = clicks._repr_mimebundle_()
    assert 'alt="An image with 1 box; 1 object."' in bundle["text/html"]
    assert "<figcaption>A box.</figcaption>" in bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


@pytest.fixture(scope="module")
def page(browser):
    """A function that opens the browser's side at a phone's width."""

    def opened(**state):
        blank = np.zeros((100, 200), np.uint8)
        start = {"width": 200, "height": 100, "alt": "An image.", "overlay": "", "answers": 0}
        start |= {"picture": module._url(Image.fromarray(blank)), "tool": "box"}
        start |= {"prompt": {"box": None, "points": []}, **state}
        new = browser.new_page(viewport={"width": site.PHONE, "height": 800})
        new.set_content(PAGE)
        new.evaluate(START.replace("SCRIPT", json.dumps(SCRIPT)), start)
        return new

    return opened


def place(page, x, y):
    """The position on the screen of a pixel of the image of 200 x 100."""
    box = page.locator(".clicks").bounding_box()
    return box["x"] + (x + 0.5) / 200 * box["width"], box["y"] + (y + 0.5) / 100 * box["height"]


def last(page):
    return page.evaluate("window.sent.at(-1)")


def test_a_box_is_dragged_in_any_direction(page):
    opened = page()
    assert opened.locator(".clicks").bounding_box()["width"] <= site.PHONE
    opened.mouse.move(*place(opened, 150, 80))
    opened.mouse.down()
    opened.mouse.move(*place(opened, 100, 50))
    opened.mouse.move(*place(opened, 40, 20))
    opened.mouse.up()
    assert opened.evaluate("window.sent.length") == 1  # one prompt for a drag
    np.testing.assert_allclose(last(opened)["box"], [40, 20, 150, 80], atol=1)
    assert opened.locator("rect").count() == 2  # black below white: visible on any image


def test_a_box_stays_in_the_image(page):
    opened = page()
    opened.mouse.move(*place(opened, 150, 80))
    opened.mouse.down()
    opened.mouse.move(*place(opened, 260, 150))
    opened.mouse.up()
    np.testing.assert_allclose(last(opened)["box"], [150, 80, 199, 99], atol=1)


def test_the_keyboard_moves_and_resizes_a_box(page):
    opened = page()
    opened.locator(".clicks").focus()
    opened.keyboard.press("ArrowRight")  # from the middle half of the image, by 1 % of 200
    assert last(opened)["box"] == [52, 25, 152, 75]
    opened.keyboard.press("Shift+ArrowDown")
    assert last(opened)["box"] == [52, 25, 152, 77]


def test_points_are_clicked_or_typed(page):
    opened = page(tool="object")
    opened.mouse.click(*place(opened, 60, 30))
    opened.evaluate("change('tool', 'outside')")
    assert "Enter adds a point" in opened.locator(".clicks").get_attribute("aria-label")
    opened.keyboard.press("ArrowLeft")  # from the middle
    opened.keyboard.press("Enter")
    first, second = last(opened)["points"]
    np.testing.assert_allclose(first, [60, 30, 1], atol=1)
    assert second == [98, 50, 0]
    assert opened.locator("circle").count() == 2


def test_a_new_mask_and_a_cleared_prompt_are_drawn(page):
    opened = page(prompt={"box": [10, 10, 50, 50], "points": []})
    assert opened.locator("img").nth(1).is_hidden()
    mask = module._url(Image.fromarray(np.full((100, 200, 4), 99, np.uint8)))
    opened.evaluate("mask => change('overlay', mask)", mask)
    assert opened.locator("img").nth(1).is_visible()
    opened.evaluate("change('prompt', {box: null, points: []})")
    assert opened.locator("rect").count() == 0
