"""Answer claims: run their checks, or say why they are not run."""

import difflib
import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from csv import DictReader
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import CodeType
from typing import Any, Literal, cast

from medsaga_lib import __version__
from medsaga_lib.claims import checks as _checks  # noqa: F401  registers every check
from medsaga_lib.claims.claim import CHECKS, Claim, Found, Verdict, all_claims
from medsaga_lib.errors import UserError

READINGS = Path(__file__).with_name("readings.csv")
ANNOUNCED = Path(__file__).with_name("verdicts.csv")
PACKAGES = ("torch", "numpy", "scipy")  # the results depend on them
Way = Literal["calculation", "reading", "not run"]


@dataclass(frozen=True)
class Answer:
    """A claim with its verdict and the way to it."""

    claim: Claim
    found: Found
    by: Way

    @property
    def code(self) -> str | None:
        """The source of the check and of the private functions of its module that it calls.

        None for a reading and for a claim that is not run.
        """
        if self.by != "calculation":
            return None
        return "\n\n".join(map(inspect.getsource, _called(CHECKS[self.claim.id])))

    def record(self) -> dict[str, Any]:
        """Return the answer for JSON."""
        claim = self.claim
        return {
            "id": claim.id,
            "paper": claim.paper,
            "document": claim.document,
            "place": claim.place,
            "kind": claim.kind,
            "verdict": self.found.verdict,
            "published": claim.published,
            "measured": self.found.measured,
            "reason": self.found.reason,
            "statement": claim.statement,
            "criterion": claim.criterion,
            "tolerance": claim.tolerance,
            "needs": claim.needs,
            "cells": list(claim.cells),
            "by": self.by,
            "code": self.code,
            "environment": environment(),
        }


def _called(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Return a function, then the private functions of its module that it calls, each once."""
    found = [function]
    for one in found:  # grows
        inner = inspect.unwrap(one)
        names = _names(inner.__code__)
        private = [inner.__globals__.get(name) for name in names if name.startswith("_")]
        found += [
            other
            for other in private
            if inspect.isfunction(inspect.unwrap(other)) and other not in found
        ]
    return found


def _names(code: CodeType) -> list[str]:
    """Return the global names in a code object and in those inside it, such as lambdas."""
    inner = [part for part in code.co_consts if isinstance(part, CodeType)]
    return [*code.co_names, *(name for part in inner for name in _names(part))]


def answer(claim: Claim) -> Answer:
    """Answer a claim: by its check, by a reading of the document, or not here."""
    if claim.needs:
        return Answer(claim, Found("", "not run here", f"needs {claim.needs}"), "not run")
    if claim.id in CHECKS:
        return Answer(claim, CHECKS[claim.id](claim), "calculation")
    return Answer(claim, readings()[claim.id], "reading")


def answers(claims: Iterable[Claim]) -> Iterator[Answer]:
    """Answer claims one after the other."""
    return map(answer, claims)


@cache
def readings() -> dict[str, Found]:
    """Return the verdicts that follow from the text of a document, by the claim's id."""
    with READINGS.open(encoding="utf-8", newline="") as file:
        rows = list(DictReader(file))
    return {row["id"]: Found("", cast(Verdict, row["verdict"]), row["reason"]) for row in rows}


@cache
def announced() -> dict[str, str]:
    """Return the verdict that the repository announces for each claim."""
    with ANNOUNCED.open(encoding="utf-8", newline="") as file:
        return {row["id"]: row["verdict"] for row in DictReader(file)}


def find(ids: Sequence[str]) -> list[Claim]:
    """Return the claims with these ids; raise UserError for an unknown id."""
    known = {claim.id: claim for claim in all_claims()}
    for name in ids:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            near += [other for other in known if name in other and other not in near][:3]
            hint = f"near matches: {', '.join(near)}" if near else "see the ids in `medsaga claims`"
            raise UserError(f"There is no claim {name!r}; {hint}.")
    return [known[name] for name in ids]


@cache
def environment() -> dict[str, str]:
    """Return the versions that the answers depend on, and their hash."""
    versions = {"medsaga-lib": __version__, **{name: version(name) for name in PACKAGES}}
    text = ",".join(f"{name}={number}" for name, number in versions.items())
    return {"hash": hashlib.sha256(text.encode()).hexdigest()[:12], **versions}
