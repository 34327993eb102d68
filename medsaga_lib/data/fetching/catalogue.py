"""The official data sets: their facts, which are data in `sets.toml`."""

import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from medsaga_lib.errors import UserError

FACTS = Path(__file__).with_name("sets.toml")
FACTS_OF_A_SET = ("address", "licence", "hash")  # what can be verified
LIKE = "like"  # the set whose facts a set has, except for those it states


@dataclass(frozen=True)
class OfficialFile:
    """A file to download; `to` is its path for the converter, by default the file's name."""

    url: str
    hash: str | None = None
    bytes: int | None = None
    to: str = ""

    @property
    def name(self) -> str:
        """The name of the file."""
        return unquote(Path(urlsplit(self.url).path).name)


@dataclass(frozen=True)
class OfficialSet:
    """Facts of a data set; their meanings are at the top of `sets.toml`."""

    name: str
    title: str
    used_by: str
    modality: str
    licence: str
    terms: Literal["free", "non-commercial", "own terms"]
    comes: Literal["direct", "by hand"]
    verified: tuple[str, ...]
    page: str
    citation: str
    convert: str
    how: str = ""
    about: str = ""
    files: tuple[OfficialFile, ...] = ()
    labels: dict[int, str] = field(default_factory=dict)
    wanted: tuple[str, ...] = ()
    instances: bool = False
    window: tuple[float, float] | None = None
    channel: int | None = None
    pixels: str | None = None
    least: int | None = None
    pad: int | None = None

    @property
    def bytes(self) -> int | None:
        """The size of all files to download, or None if one is unknown."""
        sizes = [file.bytes for file in self.files]
        return sum(sizes) if sizes and None not in sizes else None  # type: ignore[arg-type]

    @property
    def needs_consent(self) -> bool:
        """Whether the user must accept the licence: it is not free, or was not verified."""
        return self.terms != "free" or "licence" not in self.verified

    @property
    def unverified(self) -> tuple[str, ...]:
        """The facts that were not verified."""
        known = [fact for fact in FACTS_OF_A_SET if fact != "hash" or self.files]
        return tuple(fact for fact in known if fact not in self.verified)


@cache
def official_sets() -> dict[str, OfficialSet]:
    """Return all official data sets by their names."""
    tables = tomllib.loads(FACTS.read_text(encoding="utf-8"))
    return {name: _set(name, table, tables) for name, table in tables.items()}


def find_set(name: str) -> OfficialSet:
    """Return the facts of a data set; raise UserError if there is none of this name."""
    sets = official_sets()
    if name not in sets:
        raise UserError(f"There is no official data set '{name}'; choose one of {', '.join(sets)}.")
    return sets[name]


def _set(name: str, table: dict[str, Any], tables: dict[str, dict[str, Any]]) -> OfficialSet:
    facts = {**tables.get(table.get(LIKE, ""), {}), **table}
    facts.pop(LIKE, None)
    facts["files"] = tuple(OfficialFile(**file) for file in facts.get("files", ()))
    facts["labels"] = {int(value): label for value, label in facts.get("labels", {}).items()}
    for key in ("verified", "wanted", "window"):
        if key in facts:
            facts[key] = tuple(facts[key])
    return OfficialSet(name, **facts)
