"""Writes the page of a reproduced table in Markdown: scores, verdicts, and how they were made."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from medsaga_lib.reproduce.published import Cell, Table
from medsaga_lib.reproduce.runs import Row
from medsaga_lib.reproduce.verdicts import (
    TOLERANCE,
    Ahead,
    Interval,
    Judged,
    ahead,
    judge,
    reasons,
)

NAMES = {"dice": "Dice", "hd95": "HD95"}
DIGITS = {"dice": 3, "hd95": 1}  # our choice; one fewer for Dice in percent
SECONDS = 3600  # of an hour
MEANINGS = {
    "reproduced": f"the 95 % interval of the difference in Dice is within {TOLERANCE:g}",
    "contradicted": "the interval is outside it, and the paper states everything",
    "undecided": "more seeds or patients would decide",
    "unspecified": "the paper does not state something that decides",
    "not comparable": "our run differs from the paper's; its number says nothing about theirs",
    "not run here": "there is no run of it",
}


def page(
    table: Table,
    cells: Sequence[Cell],
    rows: Sequence[Row],
    needs: dict[str, str] | None = None,
    command: str = "",
) -> str:
    """Return the page of some cells of a table and the rows of their runs.

    needs: why a data set has no runs.
    command: what made the rows.
    """
    found = [judge(table, cell, rows, needs or {}) for cell in cells]
    run = [one for one in found if one.seeds]
    parts = [f"# {table.title}", _summary(found)]
    if run:
        parts += ["## Published and ours", _scores(table, run)]
    if pairs := ahead(table, cells, rows):
        parts += ["## Which method is ahead", _pairs(table, pairs)]
    if missing := _missing(found):
        parts += ["## Not run here", missing]
    used = dict.fromkeys([*(one.verdict for one in found), *(pair.verdict for pair in pairs)])
    parts += ["## Verdicts", bullets(f"**{name}**: {MEANINGS[name]}." for name in used)]
    if run:
        parts += ["## How this was made", _origin(rows, command)]
    return "\n\n".join(parts) + "\n"


def _summary(found: Sequence[Judged]) -> str:
    counts = Counter(one.verdict for one in found)
    numbers = ", ".join(f"{count} {name}" for name, count in counts.items())
    lines = [f"{len(found)} published numbers: {numbers}."]
    if why := reasons(found):
        lines.append(f"\n**Not comparable** with the published numbers: {safe(why)}.")
    return "\n".join(lines)


def _scores(table: Table, found: Sequence[Judged]) -> str:
    header = ("Data, images", "Method", "Score", "Published", "Ours", "Difference",
              "95 % interval", "Seeds", "Verdict")  # fmt: skip
    rows = []
    for one in found:
        digits = DIGITS[one.cell.metric] - (table.scale(one.cell) > 1)
        rows.append(
            (f"{one.cell.dataset}, {one.cell.images}", table.title_of(one.cell.method),
             NAMES[one.cell.metric],
             one.cell.text, number(one.ours, digits), number(one.difference, digits, "+"),
             ends(one.interval, digits), one.seeds, one.verdict)
        )  # fmt: skip
    notes = dict.fromkeys(
        f"{one.verdict}: {one.why}" for one in found if one.verdict != "not comparable"
    )
    caption = (
        "The published scores and ours. The interval is that of the difference, over patients and "
        "seeds, for Dice alone. Our HD95 is in mm where the images have a spacing, else in pixels."
    )
    return "\n\n".join(filter(None, [markdown(header, rows, caption), bullets(notes)]))


def _pairs(table: Table, pairs: Sequence[Ahead]) -> str:
    header = ("Data, images", "Dice of", "less that of", "Published", "Ours", "95 % interval",
              "p over patients (Holm)", "Verdict", "Reason")  # fmt: skip
    rows = [
        (f"{one.dataset}, {one.images}", table.title_of(one.method), table.title_of(one.baseline),
         number(one.published, 3, "+"), number(one.ours, 3, "+"), ends(one.interval, 3),
         "< 0.001" if one.p < 0.001 else number(one.p, 3), one.verdict, one.why)
        for one in pairs
    ]  # fmt: skip
    caption = (
        f"Dice of each method less that of {table.title_of(pairs[0].baseline)}, published and ours."
    )
    return markdown(header, rows, caption)


def _missing(found: Sequence[Judged]) -> str:
    lines = dict.fromkeys(
        f"{one.cell.dataset}: {one.why}." for one in found if one.verdict == "not run here"
    )
    return bullets(lines)


def _origin(rows: Sequence[Row], command: str) -> str:
    """Return the facts about the runs; no line but the last depends on when they were made."""
    facts = {
        "Command": f"`{command}`" if command else "",
        "Data": _each(row["data_text"] for row in rows),
        "Backbones": _each(
            f"{row['backbone']} (sha256 {row['backbone_sha256'][:12]})"
            for row in rows
            if row.get("backbone_sha256")
        ),
        "Inputs": _each(f"{row['size']} px" for row in rows),
        "Steps": _each(str(row["planned_steps"]) for row in rows),
        "Seeds": _each(str(row["seed"]) for row in rows),
        "Devices": _each(row["device"] for row in rows),
        "Versions": _each(
            ", ".join(f"{name} {version}" for name, version in row["versions"].items())
            for row in rows
        ),
        "Commits": _each(row["commit"] or "unknown" for row in rows),
        "Runs, hours": _hours(rows),
    }
    return bullets(f"{name}: {text}" for name, text in facts.items() if text)


def _hours(rows: Sequence[Row]) -> str:
    timed = [row["wall_seconds"] for row in rows if row["wall_seconds"]]
    dates = _each(row["date"] for row in rows)
    known = f"{sum(timed) / SECONDS:.2f} hours for {len(timed)} of them" if timed else "no time"
    return f"{len(rows)} runs, {known}; {dates}"


def _each(texts: Iterable[str]) -> str:
    """Return the different texts, sorted, so that the order of the runs does not matter."""
    return "; ".join(sorted(set(texts), key=lambda text: (len(text), text)))


def number(value: float, digits: int, sign: str = "") -> str:
    """Return a number for a table, or a dash if it is not known."""
    return "-" if math.isnan(value) else f"{value:{sign}.{digits}f}"


def ends(interval: Interval, digits: int) -> str:
    """Return an interval of a difference for a table, or a dash if it is not known."""
    low, high = interval
    return "-" if math.isnan(low) else f"[{low:+.{digits}f}, {high:+.{digits}f}]"


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """Return a Markdown table, with its caption in a line above it."""
    lines = [header, ["---"] * len(header), *rows]
    text = "\n".join(
        "| " + " | ".join(safe(str(cell)).replace("|", "/") for cell in line) + " |"
        for line in lines
    )
    return f"Table: {caption}\n\n{text}" if caption else text


def bullets(lines: Iterable[str]) -> str:
    """Return a Markdown list."""
    return "\n".join(f"- {safe(line)}" for line in lines)


def safe(text: str) -> str:
    """Return a text that starts no HTML; rows may be a stranger's."""
    return text.replace("<", "&lt;")
