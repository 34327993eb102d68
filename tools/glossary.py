"""Read the terms of `book/glossary.md`, for the tips on the chapters' pages and for the linter."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

PAGE = Path("book/glossary.md")
SCRIPT = Path("book/_static/terms.js")  # made when the book is staged
LIST = re.compile(r"^```\{glossary\}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
# Words that also have another meaning in the chapters get no tip.
AMBIGUOUS = {
    "affine", "case", "claim", "effect", "feed", "head", "peak", "power", "rank", "seed", "split",
    "stage", "states", "verdict", "window",
}  # fmt: skip


@dataclass(frozen=True)
class Term:
    """An entry of the glossary: its names, the id of its anchor, and its text without markup."""

    names: list[str]
    id: str
    text: str


def terms(root: Path) -> list[Term]:
    """Return the entries of the glossary; none if there is no such page."""
    page = root / PAGE
    found = LIST.search(page.read_text(encoding="utf-8")) if page.exists() else None
    return list(_entries(found[1])) if found else []


def _entries(text: str) -> Iterator[Term]:
    for entry in text.strip().split("\n\n"):
        lines = entry.splitlines()
        names = [line for line in lines if not line.startswith(" ")]
        said = " ".join(line.strip() for line in lines[len(names) :])
        plain = LINK.sub(r"\1", said).replace("`", "")
        anchor = re.sub(r"[^a-zA-Z0-9._]+", "-", f"term-{names[0]}").rstrip("-")  # as Sphinx
        yield Term(names, anchor, plain)


def script(root: Path) -> str:
    """Return the script that gives the terms to `glossary.js`."""
    entries = [
        asdict(term) | {"names": names}
        for term in terms(root)
        if (names := [name for name in term.names if name not in AMBIGUOUS])
    ]
    return f"const TERMS = {json.dumps(entries, ensure_ascii=False, indent=1)};\n"
