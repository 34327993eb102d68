"""The small book becomes a site: complete, rebuilt only where it changed, stopped by a warning."""

from xml.etree import ElementTree

import pytest

from tools import build
from tools.book import BookError


def pages(root):
    folder = root / build.HTML
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("[a-z]*/*.html")}


@pytest.mark.slow
def test_a_site_is_built_and_then_only_what_changed(small_book):
    root = small_book.root
    build.build(root, "quick")
    first = pages(root)
    assert first.keys() == {"index.html", "status.html", "01_small.html"}
    assert (root / build.HTML / "_static" / "mathjax" / build.MATHJAX).stat().st_size > 10**6
    page = (root / build.HTML / "notebooks" / "01_small.html").read_text(encoding="utf-8")
    assert 'class="provenance"' in page
    assert "mathjax/tex-svg-full.js" in page

    small_book.edit("A word.", "Another word.", file="book/index.md")
    build.build(root, "quick")
    second = pages(root)
    assert {name for name in first if second[name] != first[name]} == {"index.html"}

    small_book.edit("Another word.", "[a dead link](gone.md)", file="book/index.md")
    for _ in range(2):  # a second try must not forget the warning
        with pytest.raises(BookError, match=r"gone\.md"):
            build.build(root, "quick")


def test_pairs_are_checked_before_anything_is_executed(small_book):
    small_book.edit("1 + 1", "1 + 2")
    with pytest.raises(BookError, match="make sync"):
        build.build(small_book.root, "quick")
    assert not (small_book.root / "_build").exists()


def test_images_need_an_alt_text_of_their_own(tmp_path):
    (tmp_path / "a.html").write_text(
        '<img src="a/one.png" alt="two lungs"><img src="a/two.png" alt="../a/two.png">'
        '<img src="three.png" alt=" "><img src="four.png">'
    )
    found = build.images_without_alt(tmp_path, build.read_pages(tmp_path))
    assert [line.split(" ")[3] for line in found] == ["a/two.png", "three.png", "four.png"]


def test_links_into_the_site_lead_somewhere(tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "macros.html").write_text('<a href="{{ not a page }}"></a>')
    (tmp_path / "one page.html").write_text('<h2 id="a">A</h2>')
    (tmp_path / "b.html").write_text(
        '<h2 id="b">B</h2><a href="#b"></a><a href="one%20page.html#a"></a><script src="gone.js">'
        '</script><a href="one%20page.html#c"></a><a href="#a"></a><a href="https://a.org/#x"></a>'
        '<a href="mailto:a@b.org"></a><a href="data:,"></a>'
    )
    found = build.dead_links(tmp_path, build.read_pages(tmp_path))
    assert found == [
        f"b.html: the link {link} leads nowhere" for link in ("#a", "gone.js", "one%20page.html#c")
    ]


def test_the_sitemap_has_every_page(small_book):
    small_book.edit("title:", "html: {baseurl: 'https://example.org/a&b/'}\ntitle:", "_config.yml")
    (small_book.root / build.HTML).mkdir(parents=True)
    build.write_sitemap(small_book.root)
    tree = ElementTree.parse(small_book.root / build.HTML / "sitemap.xml")
    assert [one.text for one in tree.iter() if one.tag.endswith("}loc")] == [
        f"https://example.org/a&b/{page}.html"
        for page in ("book/index", "notebooks/01_small", "book/status")
    ]
