"""Answers as text: a table, the counts by kind and verdict, and one claim in full."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from typing import get_args

from medsaga_lib.claims.claim import Verdict
from medsaga_lib.claims.run import Answer, announced, environment
from medsaga_lib.claims.tables import cells, source

HEADER = ("claim", "published", "ours", "verdict", "reason")
WIDTHS = (28, 22, 30, 14)  # characters of the first columns; the reason takes the rest
LEAST = 30  # characters of the reason
GAP = "  "


def table(answers: Sequence[Answer], width: int) -> str:
    """Return a table whose cells are wrapped to `width` characters a line."""
    rest = width - sum(WIDTHS) - len(WIDTHS) * len(GAP)
    widths = (*WIDTHS, max(LEAST, rest))
    lines = _row(HEADER, widths)
    document = ""
    for one in answers:
        claim, found = one.claim, one.found
        if claim.document != document:
            document = claim.document
            lines += ["", f"{claim.paper} (document {document})"]
        ours = found.measured or f"({one.by})"
        lines += _row((claim.id, claim.published, ours, found.verdict, found.reason), widths)
    return "\n".join(lines)


def _row(cells_: Sequence[str], widths: Sequence[int]) -> list[str]:
    wrapped = [textwrap.wrap(cell, n) or [""] for cell, n in zip(cells_, widths, strict=True)]
    parts = zip_longest(*wrapped, fillvalue="")
    return [
        GAP.join(part.ljust(n) for part, n in zip(line, widths, strict=True)).rstrip()
        for line in parts
    ]


def counts(answers: Sequence[Answer]) -> tuple[tuple[str, ...], list[tuple]]:
    """Return header and rows of the numbers of claims by kind and verdict, with sums."""
    verdicts = get_args(Verdict)
    found = Counter((one.claim.kind, one.found.verdict) for one in answers)
    kinds = sorted({one.claim.kind for one in answers})
    numbers = {str(kind): [found[kind, v] for v in verdicts] for kind in kinds}
    numbers["all"] = [sum(column) for column in zip(*numbers.values(), strict=True)]
    return ("kind", *verdicts, "all"), [(kind, *row, sum(row)) for kind, row in numbers.items()]


def ways(answers: Sequence[Answer]) -> str:
    """Return a sentence on how the verdicts were reached."""
    by = Counter(one.by for one in answers)
    return (
        f"{by['calculation']} verdicts by calculation, {by['reading']} by reading the document, "
        f"{by['not run']} claims not run here"
    )


def details(one: Answer) -> str:
    """Return everything about one claim, with its table cells and the code of its check."""
    claim, found = one.claim, one.found
    tolerance = f" (tolerance {claim.tolerance:g})" if claim.tolerance else ""
    entries = [
        ("claim", claim.statement),
        ("from", f"{claim.paper}, document {claim.document}: {claim.place} ({claim.kind})"),
        ("published", claim.published),
        ("reproduced if", f"{claim.criterion}{tolerance}"),
        ("ours", found.measured or "-"),
        ("verdict", f"{found.verdict}, by {one.by}" if one.by != "not run" else found.verdict),
        ("reason", found.reason),
        ("environment", ", ".join(f"{name} {value}" for name, value in environment().items())),
    ]
    lines = [claim.id, ""]
    for name, text in entries:
        lines += _row((name, text), (13, 85))
    for pattern in claim.cells:
        lines += ["", source(pattern.partition("[")[0])]
        lines += [f"  {place}: {value or '(empty)'}" for place, value in cells(pattern).items()]
    if one.code is not None:
        lines += ["", one.code.rstrip()]
    return "\n".join(lines)


def changes(answers: Sequence[Answer]) -> list[str]:
    """Return a sentence for each verdict that differs from the announced one."""
    return [
        f"{one.claim.id} is announced as {announced()[one.claim.id]}, but is {one.found.verdict} "
        "here; compare the environments"
        for one in answers
        if announced().get(one.claim.id, one.found.verdict) != one.found.verdict
    ]
