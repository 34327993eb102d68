"""A claim of a document, the answer of its check, and the registry of checks.

A claim is a row of `documents/NAME.csv`: its place, its kind, what it says in our words, the
published value, and the criterion that decides, with its tolerance. A check is a function that is
called as the claim, with "_" for "-".
"""

from collections.abc import Callable
from csv import DictReader
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, cast

from medsaga_lib.claims.arithmetic import number

Verdict = Literal["reproduced", "contradicted", "not comparable", "unspecified", "not run here"]
Kind = Literal[
    "accuracy", "arithmetic", "consistency", "count", "memory", "method", "protocol", "speed",
    "wording",
]  # fmt: skip
Document = Literal[
    "medsaga", "medsaga_summary", "litemedsam_lora", "s_sam_reviews", "cheap_lunch_summary",
    "torchao_readme",
]  # fmt: skip
PAPERS: dict[Document, str] = {
    "medsaga": "MedSAGa",
    "medsaga_summary": "summary of MedSAGa",
    "litemedsam_lora": "LiteMedSAM + LoRA",
    "s_sam_reviews": "reviews of S-SAM",
    "cheap_lunch_summary": "summary of Cheap Lunch",
    "torchao_readme": "torchao",
}
FOLDER = Path(__file__).with_name("documents")


@dataclass(frozen=True)
class Claim:
    """A claim, with the criterion of its verdict."""

    id: str
    document: Document
    place: str  # section, table or figure of the document
    kind: Kind
    statement: str  # in our words
    published: str  # the value as printed
    criterion: str  # when the claim is reproduced
    tolerance: float  # of the measured value; 0 for counts, signs and readings
    cells: tuple[str, ...]  # cells of the tables that the check reads; see `tables.cells`
    needs: str  # what a run needs that is not at hand, such as a GPU; "" for a claim checked here

    @property
    def value(self) -> float:
        """The published value as a number; its first number if it has several."""
        return number(self.published)

    @property
    def paper(self) -> str:
        """The document by name: a paper, or what somebody wrote about one."""
        return PAPERS[self.document]


class Found(NamedTuple):
    """The answer of a check: the value found here, the verdict and one reason."""

    measured: str
    verdict: Verdict
    reason: str


Check = Callable[[Claim], Found]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    """Register a function as the check of the claim that has its name."""
    CHECKS[function.__name__.replace("_", "-")] = function
    return function


def reproduced_if(holds: bool, measured: str, reason: str) -> Found:
    """Return the verdict of a criterion that holds or does not."""
    return Found(measured, "reproduced" if holds else "contradicted", reason)


@cache
def all_claims() -> tuple[Claim, ...]:
    """Return every claim, in the order of the documents."""
    found = []
    for document in PAPERS:
        with (FOLDER / f"{document}.csv").open(encoding="utf-8", newline="") as file:
            found += [_claim(document, row) for row in DictReader(file)]
    return tuple(found)


def _claim(document: Document, row: dict[str, str]) -> Claim:
    return Claim(
        row["id"],
        document,
        row["place"],
        cast(Kind, row["kind"]),
        row["statement"],
        row["published"],
        row["criterion"],
        float(row["tolerance"]),
        tuple(filter(None, row["cells"].split("; "))),
        row["needs"],
    )
