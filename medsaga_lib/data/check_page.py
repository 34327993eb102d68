"""Writes the report of a check as one HTML page with thumbnails of the cases."""

import base64
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsaga_lib.data.check import PICTURES, Checked, Report, label_colours
from medsaga_lib.data.dataset import SPLITS, DataSet
from medsaga_lib.data.facts import file_rows, suspicion_rows
from medsaga_lib.data.problems import Problem, in_mm, listed, times
from medsaga_lib.data.repair_index import Change
from medsaga_lib.errors import UserError
from medsaga_lib.files import file_stem, write_bytes

ENDINGS = (".html", ".htm")
NAMES_IN_ALT = 6  # our choice: an alt text names at most this many labels


def require_page(path: Path) -> None:
    """Raise UserError if a page cannot have this name: it must not replace a file of the data."""
    if path.suffix.lower() not in ENDINGS or path.is_dir():
        raise UserError(f"--html {path} is not a page; name a file that ends in .html.")


def write_page(
    path: Path, root: Path, found: Report, original: Path, changes: Sequence[Change] = ()
) -> None:
    """Write a page that needs no other file and no network.

    Args:
        path: the page; a page of the same name is replaced.
        root: folder of the data set.
        found: its report with pictures.
        original: the folder of which `root` is a repaired copy, if there are changes.
        changes: what was repaired.

    Raises:
        UserError: the page cannot be written.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("medsaga_lib.data", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("check.html").render(
        _content(root, found), original=original, changes=changes
    )
    write_bytes(path, page.encode("utf-8", "backslashreplace"))  # a name may be no valid UTF-8


def _content(root: Path, found: Report) -> dict[str, Any]:
    dataset, summary = found.dataset, found.summary
    errors = sum(not problem.note for problem in found.problems)
    notes = len(found.problems) - errors
    rows: dict[str, list[int]] = defaultdict(list)  # file -> numbers of its problems
    for number, problem in enumerate(found.problems, start=1):
        rows[problem.file].append(number)
    figures = _figures(root, found, rows)
    places = {file: one["number"] for one in figures for file in one["files"]}
    return {
        "name": root.name if dataset is None else dataset.name,
        "root": root,
        "verdict": f"{_count(errors, 'problem')} and {_count(notes, 'note')}.",
        "summary": summary,
        "splits": SPLITS,
        "counts": [] if dataset is None or summary is None else _counts(dataset, summary),
        "facts": [] if summary is None else file_rows(summary) + suspicion_rows(summary),
        "problems": [
            {
                "file": _inside(root, problem.file),
                "what": problem.what,
                "remedy": problem.remedy,
                "note": problem.note,
                "figure": places.get(problem.file),
            }
            for problem in found.problems
        ],
        "figures": figures,
        "shown": _shown(len(figures), found),
    }


def _counts(dataset: DataSet, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the table by split."""
    colours = label_colours(dataset)
    rows = [
        {"name": key, "colour": None, "cells": [f"{summary[key][split]:,}" for split in SPLITS]}
        for key in ("cases", "patients")
    ]
    for value, name in dataset.labels.items():
        cases, pixels = summary["cases_with_label"][name], summary["pixels_of_label"][name]
        cells = [f"{cases[split]:,} ({pixels[split]:,})" for split in SPLITS]
        rows.append({"name": name, "colour": colours.get(value, colours[0]), "cells": cells})
    without = summary["cases_without_any_label"]
    if any(without.values()):
        cells = [f"{without[split]:,}" for split in SPLITS]
        rows.append({"name": "masks without any label", "colour": None, "cells": cells})
    return rows


def _figures(root: Path, found: Report, rows: dict[str, list[int]]) -> list[dict[str, Any]]:
    """Return what the page says about each case that it shows."""
    figures = []
    for number, one in enumerate(_chosen(found.cases), start=1):
        files = [str(one.case.image), *([str(one.case.mask)] if one.case.mask else [])]
        numbers = [row for file in files for row in rows[file]]
        about = [found.problems[row - 1] for row in numbers]
        bad = [row for row, problem in zip(numbers, about, strict=True) if not problem.note]
        drawn = one.thumbnail
        figures.append(
            {
                "number": number,
                "files": files,
                "file": _inside(root, files[0]),
                "kind": "bad" if bad else "note" if about else "",
                "mark": _mark(about),
                "row": (bad or numbers or [0])[0],
                "alt": _alt(found.dataset, one),
                "lines": _lines(one),
                "source": drawn and "data:image/webp;base64," + _base64(drawn.webp),
                "width": drawn and drawn.width,
                "height": drawn and drawn.height,
            }
        )
    return figures


def _chosen(cases: Sequence[Checked]) -> list[Checked]:
    """Return all cases, or above `PICTURES` those with a problem and those of the sample."""
    if len(cases) <= PICTURES:
        return list(cases)
    bad = [one for one in cases if not all(problem.note for problem in one.problems)]
    kept = {id(one) for one in bad[:PICTURES]}
    for one in cases:
        if len(kept) < PICTURES and one.thumbnail is not None:
            kept.add(id(one))
    return [one for one in cases if id(one) in kept]


def _shown(shown: int, found: Report) -> str:
    parts = []
    if shown < (count := len(found.cases)):
        parts.append(
            f"The page shows {shown:,} of {count:,} cases: those with a problem, and a sample of "
            "the others."
        )
    if any(one.thumbnail and one.thumbnail.position for one in found.cases):
        parts.append("A volume is shown by its axial slice with the largest labelled area.")
    return " ".join(parts)


def _mark(about: Sequence[Problem]) -> str:
    errors = sum(not problem.note for problem in about)
    counts = [(errors, "problem"), (len(about) - errors, "note")]
    return " and ".join(_count(number, what) for number, what in counts if number)


def _alt(dataset: DataSet | None, one: Checked) -> str:
    drawn = one.thumbnail
    if drawn is None or dataset is None:
        return ""
    place = "{} of {}".format(*drawn.position) if drawn.position else ""
    what = f"Case {one.case.name}, slice {place}" if place else f"Case {one.case.name}"
    if not drawn.values:
        return f"{what}, without contours."
    if dataset.masks == "instances" or not dataset.labels:
        return f"{what}: contours of {_count(len(drawn.values), 'object')}."
    names = [dataset.labels.get(value, f"the unknown value {value}") for value in drawn.values]
    more = f" and {len(names) - NAMES_IN_ALT} more" if len(names) > NAMES_IN_ALT else ""
    return f"{what}: contours of {listed(names[:NAMES_IN_ALT])}{more}."


def _lines(one: Checked) -> list[str]:
    """Return the lines below a thumbnail: case, split, patient, size, values, labels."""
    case, facts, drawn = one.case, one.facts, one.thumbnail
    lines = [case.split]
    if case.name != file_stem(case.image):
        lines.insert(0, f"case {case.name}")
    if case.patient != case.name:
        lines.append(f"patient {case.patient}")
    lines = [", ".join(lines)]
    if facts is not None:
        size = f"{times(facts.shape)}, values {facts.low:g} to {facts.high:g}"
        known = facts.codes or set(facts.spacing) != {1.0}
        lines.append(f"{size}, {in_mm(facts.spacing)}" if known else size)
    if drawn is not None and drawn.position:
        lines.append("slice {} of {}".format(*drawn.position))
    if facts is not None and facts.masked and not facts.labels:
        lines.append("mask without any label")
    return lines


def _inside(root: Path, file: str) -> str:
    """Return a file's path inside the data set."""
    path = Path(file)
    return path.relative_to(root).as_posix() if path != root and path.is_relative_to(root) else file


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
