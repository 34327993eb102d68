"""Draw which package of the library imports which, from the imports themselves.

`tools.stage` puts the figure and a table of the packages into `book/architecture.md`, so neither
can be out of date.
"""

import ast
import html
import tomllib
from collections import Counter
from pathlib import Path

import grimp

PAGE = Path("book/architecture.md")
FIGURE_MARK = "<!-- The figure of the imports stands here once the book is built. -->"
TABLE_MARK = "<!-- The table of the packages stands here once the book is built. -->"
LIBRARY = "medsaga_lib"
CELL, NAMES, LETTERS = 26, 96, 13  # pixels: side of a cell, room for names, height of letters
DARKEST = 10  # imports from which a cell has the full colour; our choice


def page(root: Path, text: str) -> str:
    """Return the text of the page with the figure and the table."""
    names = order(root)
    figure = drawn(names[::-1], imports(names))  # in the order of the table
    return text.replace(FIGURE_MARK, figure).replace(TABLE_MARK, table(root, names))


def order(root: Path) -> list[str]:
    """Return the packages from the lowest to the highest, as import-linter's contract has them."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return [name.strip() for layer in reversed(layers) for name in layer.split("|")]


def imports(names: list[str]) -> Counter[tuple[str, str]]:
    """Count the modules of one package that are imported by modules of another."""
    graph, found = grimp.build_graph(LIBRARY, cache_dir=None), Counter[tuple[str, str]]()
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            pair = (_package(module), _package(other))
            if pair[0] != pair[1] and set(pair) <= set(names):
                found[pair] += 1
    return found


def _package(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def drawn(names: list[str], counted: Counter[tuple[str, str]]) -> str:
    """Return an SVG with a row for each package and a column for each that it imports."""
    side = NAMES + CELL * len(names)
    parts = []
    for row, name in enumerate(names):
        middle = NAMES + CELL * row + CELL // 2
        parts.append(_text(name, NAMES - 6, middle + LETTERS // 3, "end"))
        turned = f' transform="rotate(-60 {middle} {NAMES - 6})"'
        parts.append(_text(name, middle, NAMES - 6, "start", turned))
        for column, other in enumerate(names):
            number = counted[name, other]
            share = min(1.0, number / DARKEST)
            x, y = NAMES + CELL * column, NAMES + CELL * row
            fill = f'fill="#0072b2" fill-opacity="{0.2 + 0.8 * share:.2f}"'
            if row == column:
                fill = 'fill="currentColor" fill-opacity="0.25"'
            elif not number:
                fill = 'fill="none"'
            parts.append(
                f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" {fill} '
                'stroke="currentColor" stroke-opacity="0.2"/>'
            )
    pairs = [f"{one} imports {', '.join(_imported(one, names, counted))}" for one in names]
    alt = f"Which package imports which, in the order of the table, no circle: {'; '.join(pairs)}."
    # The slanted name of the last column needs room at the right
    return (
        f'<svg class="architecture" role="img" aria-label="{html.escape(alt)}" '
        f'viewBox="0 0 {side + NAMES // 2} {side}">{"".join(parts)}</svg>'
    )


def _imported(name: str, names: list[str], counted: Counter[tuple[str, str]]) -> list[str]:
    return [other for other in names if counted[name, other]] or ["nothing"]


def _text(text: str, x: int, y: int, anchor: str, more: str = "") -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{LETTERS}" fill="currentColor" '
        f'text-anchor="{anchor}"{more}>{text}</text>'
    )


def table(root: Path, names: list[str]) -> str:
    """Return a Markdown table with the first sentence of each package's docstring."""
    lines = ["| package | its purpose |", "|---|---|"]
    for name in reversed(names):
        folder = root / LIBRARY / name
        file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        lines.append(f"| `{name}` | {' '.join(said.split(chr(10) * 2)[0].split())} |")
    return "\n".join(lines)
