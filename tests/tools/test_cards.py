"""Social cards: the first figure of a chapter, whole, and its goals as a sentence."""

import base64
import io
import re
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from tools import book, cards


def chapter(*pages):
    outputs = [nbformat.v4.new_output("display_data", {"text/html": page}) for page in pages]
    cells = [nbformat.v4.new_markdown_cell("Text"), nbformat.v4.new_code_cell("x", outputs=outputs)]
    return nbformat.v4.new_notebook(cells=cells)


def figure(size, colour, alt="A red square."):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "WEBP", lossless=True)
    content = base64.b64encode(file.getvalue()).decode()
    image = f'<img src="data:image/webp;base64,{content}" alt="{alt}">'
    return f"<figure>{image}<figcaption>Words.</figcaption></figure>"


@pytest.mark.parametrize("size", [(2000, 500), (500, 2000), (20, 10)])
def test_the_first_figure_is_shown_whole(size, small_book, tmp_path):
    notebook = chapter("<table></table>", figure(size, "red"), figure((9, 9), "blue"))
    target = cards.add_card(notebook, "01_small", small_book.root, tmp_path)
    with Image.open(target) as card:
        assert (card.size, card.mode) == (cards.SIZE, "RGB")
        assert card.getpixel((0, 0)) == (255, 255, 255)
        assert card.getpixel((cards.SIZE[0] // 2, cards.SIZE[1] // 2)) == (255, 0, 0)
        red = card.getchannel("B").point(lambda value: 255 * (value < 128)).getbbox()
    left, top, right, bottom = red
    assert (right - left) / (bottom - top) == pytest.approx(size[0] / size[1], rel=0.01)
    assert right - left == cards.SIZE[0] - 60 or bottom - top == cards.SIZE[1] - 60


def test_a_page_names_its_card_by_the_address_of_the_site(small_book, tmp_path):
    notebook = chapter(figure((4, 4), "red", alt="A &quot;red&quot; square."))
    target = cards.add_card(notebook, "01_small", small_book.root, tmp_path)
    assert target == tmp_path / "book/_static/cards/01_small.png"
    site = book.settings(small_book.root).get("html", {}).get("baseurl", "")
    assert notebook.metadata["og:image"] == f"{site}_static/cards/01_small.png"
    assert notebook.metadata["og:image:alt"] == 'A "red" square.'
    before = target.stat().st_mtime_ns
    cards.add_card(notebook, "01_small", small_book.root, tmp_path)
    assert target.stat().st_mtime_ns == before


def test_a_chapter_without_a_figure_has_no_card_of_its_own(small_book, tmp_path):
    notebook = chapter("<p>text</p>", "<figure><table></table></figure>")
    folder = tmp_path / "stage"
    assert cards.add_card(notebook, "01_small", small_book.root, folder) is None
    assert "og:image" not in notebook.metadata
    assert not folder.exists()


@pytest.mark.parametrize(
    ("goals", "said"),
    [
        (["do `one`,", "write [two](a.md)."], "You will be able to do one; write two."),
        (["say $x$,", "y" * cards.LETTERS + ",", "z."], "You will be able to say x."),
        (["y" * cards.LETTERS + ","], f"You will be able to {'y' * cards.LETTERS}."),
        ([], ""),
    ],
)
def test_a_chapter_is_described_by_its_first_goals(goals, said):
    source = "# 1. Title\n\n**You will be able to**\n" + "".join(f"- {goal}\n" for goal in goals)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"{source}\nText")])
    assert cards.description(notebook) == said
    cards.describe(notebook)
    assert notebook.metadata.get("og:description", "") == said
    assert notebook.metadata.get("myst", {}) == (
        {"html_meta": {"description": said}} if said else {}
    )


CHAPTERS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_each_chapter_has_a_description(path):
    found = cards.description(nbformat.read(path, 4))
    assert 80 < len(found) <= cards.LETTERS
    assert not re.search(r",[,.;]|[`*$\[\]\n]", found)
