"""The report on a conversion with Jupyter Book 2; a small script stands in for it."""

import json
from collections import Counter

import pytest

from tools import jb2
from tools.book import BookError

LOG = """\
⚠️  notebooks/01_a.ipynb 'jupytext' extra key ignored: filter (at notebooks/01_a.ipynb#frontmatter)
⚠️  notebooks/02_b.ipynb 'jupytext' extra key ignored: filter (at notebooks/02_b.ipynb#frontmatter)
⚠️  notebooks/01_a.ipynb Duplicate identifier in project "dfa53dd5"
⛔️ book/references.md:6 Could not find DOI "https://doi.org/10.1/2" from doi.org as doi:10.1/2
⛔️ book/index.md:3 Cross reference target was not found: here
📚 Built 2 pages for project in 9.42 s.
"""
# Like Jupyter Book 2: it asks before it upgrades, and fails without a theme from another server.
PRETENDER = """\
#!/bin/sh
if [ "$1" = init ]; then
    read answer && [ "$answer" = y ] || exit 1
    mv _config.yml ._config.yml.bak
    printf 'site: {template: book-theme, options: {folders: true}}\\n' >myst.yml
    exit 1
fi
grep -q 'template: theme' myst.yml && [ -e theme/template.yml ] || exit 1
mkdir -p _build/site/content
cp index.json _build/site/content/index.json
echo '⚠️  book/index.md A warning (at book/index.md#x)'
"""
PAGE = """\
# Title

<details><summary>More</summary>

<form><input type="text"></form>
</details>

`<form>` in code, <!-- <form> --> in a comment.
"""


def test_complaints_are_counted_by_their_text_and_look_ups_are_left_out():
    assert jb2.complaints(LOG) == Counter(
        {
            "'jupytext' extra key ignored: filter": 2,
            "Duplicate identifier in project": 1,
            "Cross reference target was not found: here": 1,
        }
    )


@pytest.fixture
def copy(tmp_path):
    """A copied book of one page, and a program that converts it."""
    folder = tmp_path / "copy"
    (folder / "book").mkdir(parents=True)
    (folder / "_config.yml").write_text(
        "sphinx: {config: {html_js_files: [a.js]}}\n", encoding="utf-8"
    )
    (folder / "book" / "index.md").write_text(PAGE, encoding="utf-8")
    kinds = {"type": "details", "children": [{"type": "summary"}]}
    (folder / "index.json").write_text(json.dumps({"mdast": kinds}), encoding="utf-8")
    return folder


def program(folder, text=PRETENDER):
    """An executable with this text."""
    path = folder / "pretender"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_conversion_is_reported(copy, tmp_path):
    log = jb2.convert(copy, program(tmp_path))
    assert jb2.summary(copy, log, ["book/index"]).splitlines() == [
        "Jupyter Book 2 made 1 of 1 pages. What breaks:",
        "",
        "- A warning (1)",
        "- HTML elements that are dropped: `<form>` (1), `<input>` (1)",
        "- settings of Sphinx that are not taken over: `html_js_files`",
    ]


def test_settings_that_are_not_upgraded_stop_it(copy, tmp_path):
    with pytest.raises(BookError, match="did not upgrade"):
        jb2.convert(copy, program(tmp_path, "#!/bin/sh\nexit 1\n"))


def test_a_build_that_fails_stops_it_with_its_output(copy, tmp_path):
    broken = PRETENDER.replace("mkdir", "echo no room; exit 7; mkdir")
    with pytest.raises(BookError, match="no room"):
        jb2.convert(copy, program(tmp_path, broken))


def test_without_node_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(BookError, match="needs Node"):
        jb2.install(tmp_path)


def test_the_copy_has_new_files_and_none_that_git_ignores(small_book, tmp_path_factory):
    small_book.commit()
    (small_book.root / "_build").mkdir()
    (small_book.root / "_build" / "page.html").write_text("", encoding="utf-8")
    (small_book.root / "new.md").write_text("# New\n", encoding="utf-8")
    copied = jb2.copy_of(small_book.root, tmp_path_factory.mktemp("copies") / "copy")
    assert (copied / "new.md").exists()
    assert (copied / "notebooks" / "01_small.ipynb").exists()
    assert not (copied / "_build").exists()
