"""Rows of several people in one file: written by --submit, checked, and merged.

A row is called by its command, weights, index of the data set, device, versions and commit. The
same row twice counts once; two rows with the same name and other results are a conflict. The file
is sorted, so it does not depend on the order of the files.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsaga_lib.data.problems import BadFile
from medsaga_lib.errors import UserError
from medsaga_lib.evaluation.scores import without_nan
from medsaga_lib.reproduce.published import chosen, find_table
from medsaga_lib.reproduce.runs import Row

FORMAT = 1
LARGEST = 64 * 2**20  # bytes of a file of rows; our choice, a row has about 2 kB
NAMED_BY = ("table", "dataset", "images", "method", "command", "backbone_sha256", "index_sha256",
            "device", "versions", "commit")  # fmt: skip
TIMES = ("date", "seconds", "wall_seconds", "cpu_seconds", "evaluation_cpu_seconds", "peak_bytes")
TEXTS = ("table", "dataset", "images", "method", "recipe", "weights", "data", "command", "asked",
         "backbone", "index_sha256", "data_text", "date", "device")  # fmt: skip
COUNTS = ("shots", "seed", "size", "planned_steps", "batch", "steps", "trainable", "classes")
REMEDY = "ask its author for a new one, made with --submit."


def submission(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the content of a file of rows."""
    return {"format": FORMAT, "rows": sorted((without_nan(row) for row in rows), key=_order)}


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file, each checked.

    Raises:
        UserError: the file is missing, too large or damaged, or a row is not one of a table.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise BadFile(path, f"has more than {LARGEST} bytes", REMEDY)
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise BadFile(path, f"has the format {content['format']!r}, not {FORMAT}", REMEDY)
        rows = list(content["rows"])
        for place, row in enumerate(rows, start=1):
            if fault := _fault(row):
                raise BadFile(path, f"row {place} {fault}", REMEDY)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}; give a file of rows.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadFile(path, f"is not a file of rows ({error!r})", REMEDY) from error
    return rows


def merge(files: Sequence[tuple[Path, Sequence[Row]]]) -> list[Row]:
    """Return the rows of all files, each once, in an order of their own.

    Raises:
        UserError: two rows have the same name and other results; it names all of them.
    """
    found: dict[str, tuple[Path, Row]] = {}
    conflicts = []
    for path, rows in files:
        for row in rows:
            other_path, other = found.setdefault(_name(row), (path, row))
            if _result(other) != _result(row):
                conflicts.append(
                    f"{other_path} and {path}: {row['command']} (Dice {other['dice']:.4f} and "
                    f"{row['dice']:.4f})"
                )
            elif _order(row) < _order(other):  # of the same result, times may differ
                found[_name(row)] = path, row
    if conflicts:
        listed = "\n".join(sorted(set(conflicts)))
        raise UserError(
            f"Rows of the same run have other results:\n{listed}\nNothing was written; merge one "
            "of the files alone."
        )
    return sorted((row for _, row in found.values()), key=_order)


def _name(row: Row) -> str:
    return json.dumps([row.get(key) for key in NAMED_BY], sort_keys=True)


def _result(row: Row) -> Row:
    return {key: value for key, value in row.items() if key not in TIMES}


def _order(row: Row) -> str:
    return _name(row) + json.dumps(row, sort_keys=True)


def _fault(row: Any) -> str:
    """Return why something is no row of a table, or ""."""
    if not isinstance(row, dict):
        return "is not an object"
    for key in TEXTS:
        if not isinstance(row.get(key), str) or "\n" in row[key]:
            return f"has no text for {key}"
    for key in COUNTS:
        if type(row.get(key)) is not int or not 0 <= row[key] < 2**63:
            return f"has no count for {key}"
    return _wrong_place(row) or _wrong_origin(row) or _wrong_scores(row)


def _wrong_place(row: Row) -> str:
    try:
        chosen(find_table(row["table"]), [row["dataset"]], [row["images"]], [row["method"]])
    except UserError as error:
        return f"is at no place of a table ({error})"
    return ""


def _wrong_origin(row: Row) -> str:
    if not isinstance(row.get("official"), bool):
        return "does not say whether its data set is official"
    versions = row.get("versions")
    if not isinstance(versions, dict) or not all(
        isinstance(text, str) for text in versions.values()
    ):
        return "has no versions"
    for key in ("commit", "backbone_sha256"):
        if not isinstance(row.get(key), str | None):
            return f"has a wrong {key}"
    if not isinstance(row.get("wall_seconds"), int | None):
        return "has a wrong wall_seconds"
    return ""


def _wrong_scores(row: Row) -> str:
    if not _is_share(row.get("dice")):
        return "has no Dice from 0 to 1"
    hd95 = row.get("hd95")
    if hd95 is not None and not (_is_number(hd95) and hd95 >= 0):
        return "has a wrong HD95"
    cases = row.get("case_dice")
    if not isinstance(cases, list) or not cases:
        return "has no Dice of each case"
    for case in cases:
        if not isinstance(case, list) or len(case) != 3:
            return "has a wrong Dice of a case"
        name, patient, dice = case
        if not (isinstance(name, str) and isinstance(patient, str)):
            return "has a case without a name and a patient"
        if dice is not None and not _is_share(dice):
            return f"has no Dice from 0 to 1 for the case {name!r}"
    if len({name for name, _, _ in cases}) < len(cases):
        return "has a case twice"
    return ""


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
