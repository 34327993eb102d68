"""The page of a check: complete, self-contained, readable by machines, safe for any name."""

import base64
import html.parser
import io
import json

import numpy as np
import pytest
from PIL import Image

from medsaga_lib.data import check
from medsaga_lib.data.check import report
from medsaga_lib.data.check_page import write_page
from tests.data.test_check import BAD, edit, grey, save


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes, and its text without the style sheet."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page(tmp_path):
    def make(root):
        path = tmp_path / "page.html"
        write_page(path, root, report(root, pictures=True), root)
        return Page(path.read_text(encoding="utf-8"))

    return make


def test_every_case_has_a_picture_with_a_name_and_an_alt_text(tiny, page):
    found = page(tiny)
    assert found.open == []
    images = found.all("img")
    assert len(images) == 6
    names = [f"images/case{number}.png" for number in range(6)]
    assert [found.words.index(name) for name in names] == sorted(map(found.words.index, names))
    for number, image in enumerate(images):
        assert image["alt"] == f"Case case{number}: contours of right lung, left lung."
        assert image["loading"] == "lazy"
        content = base64.b64decode(image["src"].removeprefix("data:image/webp;base64,"))
        size = Image.open(io.BytesIO(content)).size
        assert size == (int(image["width"]), int(image["height"])) == (256, 192)
    assert "0 problems and 0 notes." in found.words
    assert not [figure for figure in found.all("figure") if figure["class"]]


def test_the_page_needs_nothing_else(tiny, page):
    found = page(tiny)
    assert not found.all("script") + found.all("link") + found.all("iframe")
    sources = [value for _, attributes in found.tags for key, value in attributes.items()
               if key in ("src", "href", "srcset")]  # fmt: skip
    assert all(source.startswith(("data:", "#")) for source in sources)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {source[1:] for source in sources if source[0] == "#"} <= set(ids)
    assert found.all("html") == [{"lang": "en"}]
    assert all("scope" in head for head in found.all("th"))


def test_problems_are_listed_and_their_cases_marked(tiny, page):
    BAD["unknown label"][0](tiny)
    (tiny / "images/case3.png").write_bytes(b"")
    edit(tiny / "index.csv", "masks/case4.png", "")
    found = page(tiny)
    assert [figure["class"] for figure in found.all("figure")] == ["", "bad", "", "bad", "note", ""]
    assert "2 problems and 1 note." in found.words
    for problem in check.check_dataset(tiny):
        assert problem.what in found.words
        assert problem.remedy in found.words
    assert len(found.all("img")) == 5
    assert "No picture: the image cannot be read." in found.words
    assert [i["alt"] for i in found.all("img")][
        1
    ] == "Case case1: contours of the unknown value 255."


@pytest.mark.parametrize("name", sorted(BAD)[::4])
def test_every_bad_folder_has_a_page(tiny, page, name):
    BAD[name][0](tiny)
    found = page(tiny)
    assert found.open == []
    assert all(problem.what in found.words for problem in check.check_dataset(tiny))


def test_names_are_text_and_never_markup(tiny, page):
    evil = '<img src=x onerror="alert(1)">&amp;'
    edit(tiny / "dataset.toml", '"right lung"', f"'{evil}'")
    edit(tiny / "dataset.toml", 'name = "tiny"', f"name = '{evil}'")
    edit(tiny / "index.csv", "eve", '<b>""quoted""</b>'.join('""'))
    found = page(tiny)
    assert len(found.all("img")) == 6
    assert found.all("img")[0]["alt"] == f"Case case0: contours of {evil}, left lung."
    assert evil in found.words
    assert not found.all("script")


def test_above_the_limit_problems_come_first(tiny, page, monkeypatch):
    monkeypatch.setattr(check, "PICTURES", 3)
    monkeypatch.setattr("medsaga_lib.data.check_page.PICTURES", 3)
    save(tiny / "masks/case3.png", grey(9))
    save(tiny / "masks/case5.png", grey(9))
    found = page(tiny)
    assert [image["alt"].split(":")[0] for image in found.all("img")] == [
        "Case case0", "Case case3", "Case case5",
    ]  # fmt: skip
    assert "The page shows 3 of 6 cases: those with a problem, and a sample" in found.words


def test_volumes_and_their_slices(volumes, page):
    found = page(volumes.root)
    (image,) = found.all("img")
    assert image["alt"] == "Case a, slice 3 of 8: contours of organ."
    assert "A volume is shown by its axial slice with the largest labelled area." in found.words
    assert "8 x 10 x 12, values -160 to 120, 1 x 1 x 1 mm" in found.words


def test_processes_give_the_same_report(tiny):
    save(tiny / "masks/case3.png", grey(9))
    assert report(tiny, pictures=True, processes=2) == report(tiny, pictures=True)


def test_the_command(tiny, tmp_path, medsaga):
    path = tmp_path / "new/page.html"
    code, text, _ = medsaga("data", "check", tiny, "--html", path)
    assert (code, text) == medsaga("data", "check", tiny)[:2]
    assert Page(path.read_text(encoding="utf-8")).all("h1")
    save(tiny / "masks/case1.png", np.stack([grey()] * 3, axis=-1))
    words = ("--html", path, "--fix", tmp_path / "fixed", "--json")
    code, text, _ = medsaga("data", "check", tiny, *words)
    assert json.loads(text)["ok"]
    words = Page(path.read_text(encoding="utf-8")).words
    assert f"This folder is a copy of {tiny} with these changes." in words
    assert "one channel is kept of three equal ones" in words
    for bad in (tiny / "index.csv", tmp_path):
        code, _, error = medsaga("data", "check", tiny, "--html", bad)
        assert code == 2
        assert "is not a page; name a file that ends in .html" in error
    assert (tiny / "index.csv").read_text(encoding="utf-8").startswith("case,")
