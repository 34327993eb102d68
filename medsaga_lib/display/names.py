"""Names of labels in figures: text and never markup, in a font that has their letters."""

from collections.abc import Mapping
from functools import lru_cache

import matplotlib
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text


def write(text: Text, name: str) -> Text:
    """Make `text` show a name as it is: a $ starts no formula, and other scripts get their font."""
    text.set_parse_math(False)
    text.set_text(name)
    if missing := _missing(name):
        families = _families_with(missing)
        if families:
            text.set_fontfamily([*matplotlib.rcParams["font.family"], families[0]])
    return text


def readable(labels: Mapping[int, str]) -> dict[int, str]:
    """Return the names that a figure can show; "label 3" for one that no font here has."""
    return {
        value: f"label {value}" if (no := _missing(name)) and not _families_with(no) else name
        for value, name in labels.items()
    }


@lru_cache(maxsize=1)
def _own() -> frozenset[int]:
    """The letters of the book's font, DejaVu Sans, which comes with matplotlib."""
    return frozenset(FT2Font(fontManager.findfont("DejaVu Sans")).get_charmap())


def _missing(name: str) -> frozenset[int]:
    return frozenset(map(ord, name)) - _own()


@lru_cache(maxsize=64)
def _families_with(letters: frozenset[int]) -> tuple[str, ...]:
    """Return the families of the installed fonts that have all of these letters."""
    found = []
    for entry in fontManager.ttflist:
        try:
            charmap = FT2Font(entry.fname).get_charmap()
        except (OSError, RuntimeError):  # a font that cannot be opened has no letters
            continue
        if letters <= charmap.keys():
            found.append(entry.name)
    return tuple(dict.fromkeys(found))
