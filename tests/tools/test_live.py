"""The page "Try it": the browser gives the masks of Python, by mouse, keyboard and numbers."""

import io
import json
import re
import shutil
import statistics
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from medsaga_lib.bench.boxes import iou, load_backbone
from medsaga_lib.errors import UserError
from tools import live, live_times, site
from tools.book import BUILD
from tools.serve import HEADERS

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "book" / "_static"
MADE = ROOT / BUILD / "live"
SECONDS = 300  # a busy machine may be slow; nothing here is timed
NEAR = 0.99  # IoU of the browser's mask with Python's

PAGE = """\
<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Try it</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<link rel="stylesheet" href="../_static/book.css"><script src="../_static/shared.js"></script>
</head><body><main>{}</main></body></html>
"""


def masks_of(page):
    """Return the painted mask as runs of pixels that are not transparent."""
    return page.evaluate("""() => {
        const canvas = document.querySelector("[data-part=overlay]");
        const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const runs = [];
        let now = 0, length = 0;
        for (let i = 3; i < data.length; i += 4) {
            const here = data[i] ? 1 : 0;
            if (here === now) { length++; continue; }
            runs.push(length);
            [now, length] = [here, 1];
        }
        return [...runs, length];
    }""")


def mask_of(runs, size):
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The page's own HTML, without the book around it, with the files that make book made."""
    if site.browser_path() is None:
        pytest.skip("no Chromium on this machine")
    if not (MADE / live.EXAMPLES_FILE).exists():
        pytest.skip("the book is not built: run make book first")
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(STATIC, root / "_static")
    shutil.copytree(MADE, root / "_static" / "live")
    (root / "book").mkdir()
    content = PAGE.format((ROOT / "book" / "live.md").read_text(encoding="utf-8"))
    (root / "book" / "live.html").write_text(content, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def content(folder):
    text = (folder / "_static" / "live" / live.EXAMPLES_FILE).read_text(encoding="utf-8")
    return json.loads(text.removeprefix("const LIVE = ").rstrip(";\n"))


@pytest.fixture(scope="module")
def browser(folder):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=site.browser_path(), args=site.FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(browser, root):
    """Open the page at a phone's width; nothing may be asked of another machine."""
    with site.opened(browser, f"{root}/book/live.html", site.PHONE) as (page, problems):
        page.set_default_timeout(1000 * SECONDS)
        yield page
        assert problems == []


@pytest.fixture(scope="module")
def page(browser, folder, content):
    """The page with a network that is ready and has answered the first box."""
    if content["why"]:
        pytest.skip(content["why"])
    with site.served(folder) as address, opened(browser, address) as page:
        page.wait_for_function("""() => document.querySelector("[data-part=result]")
            .innerText.includes("The box took")""")
        yield page


def after_an_answer(page, act):
    """Act, and wait until the page has told the result."""
    before = int(page.locator("#live").get_attribute("data-answers"))
    act()
    page.wait_for_function(f"Number(document.getElementById('live').dataset.answers) > {before}")


def set_number(page, name, value):
    """Type a side of the box, as a reader does, and wait for the answer."""
    page.locator(f"#live [name={name}]").fill(str(value))
    after_an_answer(page, lambda: page.keyboard.press("Enter"))


def box_of(page):
    return [
        int(page.locator(f"#live [name={name}]").input_value())
        for name in ("left", "top", "right", "bottom")
    ]


def said(page):
    return page.locator("[data-part=result]").inner_text()


@pytest.mark.slow
def test_masks_and_scores_are_pythons(page, content):
    overlaps, errors = [], []
    for number, example in enumerate(content["examples"]):
        if number:
            choice = page.locator(f"#live [name=example][value='{number}']")
            after_an_answer(page, choice.check)
        size = example["height"], example["width"]
        for i, prompt in enumerate(example["prompts"]):
            button = page.locator("[data-part=prompts] button").nth(i)
            after_an_answer(page, button.click)
            assert box_of(page) == prompt["box"]
            overlaps.append(iou(mask_of(masks_of(page), size), mask_of(prompt["mask"], size)))
            score = float(re.search(r"estimates its IoU as ([0-9.]+)\.", said(page))[1])
            errors.append(abs(score - prompt["score"]))
    assert len(overlaps) == 20
    assert min(overlaps) >= NEAR
    assert max(errors) < 0.015  # two digits are shown


@pytest.mark.slow
def test_a_box_moves_by_keyboard_mouse_and_numbers(page):
    after_an_answer(page, page.locator("[data-part=prompts] button").first.click)
    stage = page.locator("[data-part=stage]")
    before = box_of(page)
    stage.focus()
    after_an_answer(page, lambda: page.keyboard.press("Shift+ArrowLeft"))
    narrower = box_of(page)
    assert narrower[:2] == before[:2]
    assert narrower[2] < before[2]
    after_an_answer(page, lambda: page.keyboard.press("ArrowRight"))
    moved = box_of(page)
    assert moved[0] > narrower[0]
    assert moved[2] - moved[0] == narrower[2] - narrower[0]
    set_number(page, "left", 0)
    assert box_of(page)[0] == 0
    place = stage.bounding_box()
    page.mouse.move(place["x"] + 0.25 * place["width"], place["y"] + 0.25 * place["height"])
    page.mouse.down()
    end = place["x"] + 0.5 * place["width"], place["y"] + 0.75 * place["height"]
    after_an_answer(page, lambda: page.mouse.move(*end))
    page.mouse.up()
    width, height = page.locator("[data-part=overlay]").evaluate("c => [c.width, c.height]")
    wanted = [0.25 * width, 0.25 * height, 0.5 * width, 0.75 * height]
    assert np.allclose(box_of(page), wanted, atol=0.01 * max(width, height))


@pytest.mark.slow
def test_a_point_has_pythons_mask_and_moves(page, content):
    """A point is a box without a size."""
    example = content["examples"][0]
    after_an_answer(page, page.locator("#live [name=example][value='0']").check)
    after_an_answer(page, page.locator("#live [name=prompt][value=point]").check)
    left, top, right, bottom = example["prompts"][0]["box"]
    x, y = box_of(page)[:2]
    assert box_of(page) == [x, y, x, y]
    assert abs(x - (left + right) / 2) <= 0.5
    assert abs(y - (top + bottom) / 2) <= 0.5
    assert "The point took" in said(page)
    assert page.locator("#live [name=right]").is_disabled()
    stage = page.locator("[data-part=stage]")
    stage.focus()
    after_an_answer(page, lambda: page.keyboard.press("ArrowRight"))
    assert box_of(page)[0] > x
    set_number(page, "left", x)
    assert box_of(page) == [x, y, x, y]
    mask = mask_of(masks_of(page), (example["height"], example["width"]))
    assert iou(mask, point_mask(example, x, y)) >= NEAR
    after_an_answer(page, page.locator("[data-part=prompts] button").first.click)
    assert page.locator("#live [name=prompt][value=box]").is_checked()
    assert box_of(page) == example["prompts"][0]["box"]


def point_mask(example, x, y):
    """The mask of a point by segment_anything's own modules, on the page's image."""
    with Image.open(MADE / example["file"]) as file:
        stored = np.asarray(file.convert("RGB"))
    predictor = load_backbone(live.NETWORK)
    with torch.inference_mode():
        embedding, frame = predictor.embed(stored / 255), predictor.frame(stored.shape[:2])
        scale = frame.side / max(stored.shape[:2])
        place = torch.tensor([[[int(x * scale), int(y * scale)]]]).float()
        sparse, dense = predictor.sam.prompt_encoder((place, torch.ones(1, 1)), None, None)
        position = predictor.sam.prompt_encoder.get_dense_pe()
        prompts = embedding, position, sparse, dense
        logits, _ = predictor.sam.mask_decoder(*prompts, multimask_output=False)
        large = functional.interpolate(logits, (frame.side,) * 2, mode="bilinear")
        height, width = frame.inner
        inner = large[..., :height, :width]
        return functional.interpolate(inner, stored.shape[:2], mode="bilinear")[0, 0].numpy() > 0


@pytest.mark.slow
def test_an_image_of_the_reader_is_segmented(page, tmp_path):
    image = np.full((90, 130, 3), 40, np.uint8)
    image[30:60, 40:90] = 200
    Image.fromarray(image).save(tmp_path / "square.png")
    own = page.locator("#live [name=own]")
    after_an_answer(page, lambda: own.set_input_files(tmp_path / "square.png"))
    for name, value in (("left", 38), ("top", 28), ("right", 92), ("bottom", 62)):
        set_number(page, name, value)
    mask = mask_of(masks_of(page), image.shape[:2])
    (wanted,), _ = live.predict(load_backbone(live.NETWORK), image, np.array([[38, 28, 92, 62]]))
    assert iou(mask, wanted) >= NEAR
    assert iou(mask, image[..., 0] > 100) > 0.8
    (tmp_path / "text.png").write_text("no image")
    own.set_input_files(tmp_path / "text.png")
    page.wait_for_function(
        "document.querySelector('[data-part=result]').innerText.includes('cannot read text.png')"
    )


@pytest.mark.parametrize("how", ["file", "no network"])
def test_without_the_network_the_page_shows_pythons_masks(browser, folder, content, how, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    why = "npm is missing." if how == "no network" else content["why"]
    text = f"const LIVE = {json.dumps({**content, 'why': why})};"
    (tmp_path / "_static" / "live" / live.EXAMPLES_FILE).write_text(text, encoding="utf-8")
    example = content["examples"][0]
    with opened(browser, tmp_path.as_uri()) as page:
        page.wait_for_selector("#live[data-state=precomputed]")
        told = page.locator("[data-part=progress]").inner_text()
        assert (why or "run make serve") in told
        page.locator("[data-part=prompts] button").nth(1).click()
        assert "Python computed this mask" in said(page)
        mask = mask_of(masks_of(page), (example["height"], example["width"]))
        wanted = mask_of(example["prompts"][1]["mask"], mask.shape)
        assert (mask == wanted).all()
        page.locator("#live [name=left]").fill("1")
        page.keyboard.press("Enter")
        assert "no mask of this box" in said(page)


def test_runs_of_a_mask_and_back():
    random = np.random.default_rng(0)
    for mask in (random.random((7, 5)) < 0.5, np.ones((2, 3), bool), np.zeros((2, 3), bool)):
        assert (mask_of(live.runs_of(mask), mask.shape) == mask).all()


def test_boxes_begin_with_the_objects_and_get_wider():
    first, second = np.zeros((2, 40, 60), bool)
    first[10:20, 10:30] = True
    second[0:5, 50:60] = True
    boxes = live.boxes_of([first, second])
    assert boxes.shape == (live.PROMPTS, 4)
    assert boxes[0].tolist() == [10, 10, 29, 19]
    assert boxes[1].tolist() == [50, 0, 59, 4]
    sides = boxes[[0, 2, 3, 4], 2] - boxes[[0, 2, 3, 4], 0]
    assert np.allclose(sides / sides[0], [1, 1.1, 1.2, 1.3], atol=0.06)


def test_a_package_with_another_hash_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSAGA_CACHE", str(tmp_path))
    (tmp_path / "npm").mkdir()
    (tmp_path / "npm" / live.PACKAGE).write_bytes(b"another file")
    with pytest.raises(UserError, match="pinned sha256"):
        live.unpack_runtime(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_npm_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSAGA_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        UserError, match=r"npm, which fetches onnxruntime-web@1\.30\.0, is not inst"
    ):
        live.unpack_runtime(tmp_path / "out")


def test_exported_matrices_are_int16_and_compute_the_same():
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    torch.manual_seed(0)
    module = torch.nn.Linear(16, 8)
    given, file = torch.randn(3, 16), io.BytesIO()
    torch.onnx.export(module, (given,), file, dynamo=False, input_names=["x"])
    model = live.in_16_bits(file.getvalue())
    onnx.checker.check_model(onnx.load_from_string(model))
    (found,) = ReferenceEvaluator(onnx.load_from_string(model)).run(None, {"x": given.numpy()})
    with torch.no_grad():
        wanted = module(given)
    torch.testing.assert_close(torch.from_numpy(found), wanted, atol=1e-4, rtol=0)
    (stored,) = (
        t
        for t in onnx.load_from_string(model).graph.initializer
        if len(t.dims) > 1 and t.data_type == onnx.TensorProto.INT16
    )
    assert list(stored.dims) in ([16, 8], [8, 16])


def test_a_matrix_and_its_multiple_are_stored_once():
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(16, 8))
            self.halved = torch.nn.Parameter(self.weight.detach() / 2)

        def forward(self, x):
            return torch.relu(x @ self.weight) @ self.halved.T

    torch.manual_seed(0)
    module, given, file = Twice(), torch.randn(3, 16), io.BytesIO()
    names = {"input_names": ["x"], "output_names": ["y"]}
    torch.onnx.export(module, (given,), file, dynamo=False, do_constant_folding=False, **names)
    model = onnx.load_from_string(live.in_16_bits(file.getvalue()))
    onnx.checker.check_model(model)
    (found,) = ReferenceEvaluator(model).run(["y"], {"x": given.numpy()})
    torch.testing.assert_close(
        torch.from_numpy(found), module(given).detach(), atol=1e-2, rtol=1e-3
    )
    whole = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT16]
    assert [list(tensor.dims) for tensor in whole] == [[16, 8]]
    assert {node.name for node in model.graph.node} == {""}


def test_the_server_isolates_its_pages(folder):
    with site.served(folder) as address, urlopen(f"{address}/book/live.html") as answer:
        assert HEADERS.items() <= dict(answer.headers).items()


def test_the_pages_table_is_the_record_and_keeps_the_rule():
    recorded = json.loads(live.RECORD.read_text(encoding="utf-8"))
    text = (ROOT / "book" / "live.md").read_text(encoding="utf-8")
    assert [row["data"] for row in recorded["rows"]] == list(live.CHECKED_DATA)
    for row in recorded["rows"]:
        cells = f"| `{row['data']}` | {row['boxes']} | {row['mean']:.4f} | {row['lowest']:.4f} |"
        assert cells in text
        assert row["mean"] >= 0.995  # below it, weights would have to be stored in more bits


def test_the_page_tells_the_recorded_times():
    found = json.loads(live_times.RECORD.read_text(encoding="utf-8"))
    image, first, later = (statistics.median(found[name]) for name in ("image", "first", "next"))
    text = (ROOT / "book" / "live.md").read_text(encoding="utf-8")
    assert f"the image took {image:.1f} s, its first box {first:.2f} s and a further box" in text
    assert f"a further box {later:.2f} s: medians of {len(found['first'])} loads" in text
    assert f"{len(found['next'])} further boxes" in text
    assert f"with {found['threads']} threads" in text


def test_the_page_tells_the_size_of_its_downloads(folder, content):
    if content["why"]:
        pytest.skip(content["why"])
    made = folder / "_static" / "live"
    weights = sum((made / name).stat().st_size for name in (live.IMAGE_FILE, live.BOX_FILE))
    program = sum((made / name).stat().st_size for name in live.MEMBERS)
    assert weights <= 20e6
    text = (ROOT / "book" / "live.md").read_text(encoding="utf-8")
    assert f"{weights / 1e6:.1f} MB of weights and {program / 1e6:.1f} MB of program" in text
