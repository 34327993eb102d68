"""The figure of the imports agrees with the source, and every package has its row."""

import ast
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools import architecture

ROOT = Path(__file__).parents[2]
NAMES = architecture.order(ROOT)


@pytest.fixture(scope="module")
def counted():
    return architecture.imports(NAMES)


def test_every_package_is_in_the_order():
    folder = ROOT / architecture.LIBRARY
    found = {path.parent.name for path in folder.glob("*/__init__.py")}
    found |= {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert set(NAMES) == found


def test_imports_are_those_of_the_source(counted):
    """As a parser of the files sees them, without import-linter's graph."""
    found = set()
    for path in (ROOT / architecture.LIBRARY).rglob("*.py"):
        ours = path.relative_to(ROOT / architecture.LIBRARY).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("medsaga_lib"):
                parts = node.module.split(".")
                names = parts[1:2] or [alias.name for alias in node.names]
                found |= {(ours, name) for name in names if name != ours}
    assert set(counted) == {pair for pair in found if set(pair) <= set(NAMES)}


def test_all_imports_are_below_the_diagonal(counted):
    for one, other in counted:
        assert NAMES.index(one) > NAMES.index(other)


def test_the_figure_has_a_cell_for_each_pair_and_says_them_all():
    counted = Counter({("high", "low"): 2, ("high", "middle"): 40})
    svg = ElementTree.fromstring(architecture.drawn(["low", "middle", "high"], counted))
    assert "low imports nothing; middle imports nothing; high imports low, middle." in (
        svg.get("aria-label")
    )
    filled = [rect for rect in svg.iter("rect") if rect.get("fill") == "#0072b2"]
    places = {(float(rect.get("x")), float(rect.get("y"))) for rect in filled}
    left, down = architecture.NAMES, architecture.NAMES + 2 * architecture.CELL
    assert places == {(left, down), (left + architecture.CELL, down)}
    assert sorted(rect.get("fill-opacity") for rect in filled) == ["0.36", "1.00"]


def test_the_page_gets_figure_and_table():
    text = architecture.page(ROOT, (ROOT / architecture.PAGE).read_text(encoding="utf-8"))
    assert "<!--" not in text
    assert text.count("<svg") == 1
    assert not re.search(r"<svg[^\n]*\n", text.split("</svg>")[0])  # one line: no Markdown inside
    for name in NAMES:
        assert re.search(rf"^\| `{name}` \| [A-Z].+\. \|$", text, re.MULTILINE), name
