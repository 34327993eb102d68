"""A table of claims for a page: filters, search, and the code of each check, without a kernel."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, get_args

from medsaga_lib.claims.claim import Kind, Verdict
from medsaga_lib.claims.run import Answer

STEP = 12  # rows that are shown at first, and more with each press of a button; our choice
SUMMARY = {
    "calculation": "code of the check",
    "reading": "how it was decided",
    "not run": "how it would be decided",
}


def claims_html(answers: Sequence[Answer]) -> str:
    """Return an HTML element with a table of the answers, its style and its script.

    Without JavaScript, the table shows all rows. A page can have one such table, whose rows have
    the ids "claim-ID".
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("medsaga_lib.claims", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    verdicts, kinds = get_args(Verdict), sorted(get_args(Kind))
    papers = list(dict.fromkeys(one.claim.paper for one in answers))
    filters = [
        ("paper", _counted(papers, [one.claim.paper for one in answers])),
        ("kind", _counted(kinds, [one.claim.kind for one in answers])),
        ("verdict", _counted(verdicts, [one.found.verdict for one in answers])),
    ]
    claims = [_row(one) for one in answers]
    return environment.get_template("page.html").render(claims=claims, filters=filters, step=STEP)


def _counted(choices: Sequence[str], values: Sequence[str]) -> list[tuple[str, int]]:
    """Return the choices that occur, with how often."""
    numbers = Counter(values)
    return [(choice, numbers[choice]) for choice in choices if numbers[choice]]


def _row(one: Answer) -> dict[str, Any]:
    claim, found = one.claim, one.found
    return {
        "id": claim.id,
        "paper": claim.paper,
        "place": claim.place,
        "kind": claim.kind,
        "statement": claim.statement,
        "published": claim.published,
        "criterion": claim.criterion,
        "tolerance": f"{claim.tolerance:g}" if claim.tolerance else "",
        "measured": found.measured,
        "verdict": found.verdict,
        "reason": found.reason,
        "summary": SUMMARY[one.by],
        "command": f"medsaga claims {claim.id}" if one.by != "not run" else "",
        "code": one.code,
    }
