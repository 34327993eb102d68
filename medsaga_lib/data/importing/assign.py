"""The patient and the split of each imported case."""

import csv
import io
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from medsaga_lib.data.dataset import Case
from medsaga_lib.data.importing.found import Item
from medsaga_lib.data.problems import BadFile, listed
from medsaga_lib.data.splits import split_by_patient
from medsaga_lib.errors import UserError, counted

TEST_SHARE, VAL_SHARE = 0.2, 0.1  # our choice, as for the phantoms
SHOWN = 5  # our choice: a message names at most this many cases


@dataclass(frozen=True)
class Shares:
    """Shares of the patients in the splits test and val; None means the default."""

    test: float | None = None
    val: float | None = None
    seed: int = 0


def patients_of(
    items: list[Item], pattern: str | None, table: Path | None
) -> tuple[dict[str, str], str]:
    """Return the patient of each case by its name, and a sentence that says where it is from.

    Args:
        pattern: a regular expression, searched in the path of the image; its first group is the
            patient.
        table: a CSV file with the columns case and patient.

    Raises:
        UserError: a case has no patient by the pattern or the table.
    """
    if pattern is not None and table is not None:
        raise UserError("--patient and --patients both name the patients; omit one of them.")
    if pattern is not None:
        return _by_pattern(items, pattern), "by --patient"
    if table is not None:
        return _by_table(items, table), f"by {table.name}"
    if any(item.patient for item in items):
        rule = "by the names of files and folders"
        return {item.name: item.patient or item.name for item in items}, rule
    rule = "one for each case; if patients have several images, give --patient"
    return {item.name: item.name for item in items}, rule


def _by_pattern(items: list[Item], pattern: str) -> dict[str, str]:
    try:
        search = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--patient {pattern} is no regular expression ({error}).") from None
    if not search.groups:
        raise UserError(f"--patient {pattern} has no group; put the patient's part into (...).")
    found = {item.name: search.search(item.source.as_posix()) for item in items}
    patients = {name: (match and match[1]) or "" for name, match in found.items()}
    _require_all(items, patients, f"--patient {pattern} finds no patient in")
    return patients


def _by_table(items: list[Item], table: Path) -> dict[str, str]:
    given: dict[str, str] = {}
    for case, patient in _read_pairs(table):
        if given.setdefault(case, patient) != patient:
            what = f"gives {case} the patients {listed((given[case], patient))}"
            raise BadFile(table, what, "keep one.")
    # The name of a file that is in several folders does not say which case is meant
    files = Counter(item.source.name for item in items)
    by_file = {item.name: given.get(item.source.name, "") for item in items
               if files[item.source.name] == 1}  # fmt: skip
    patients = {item.name: given.get(item.name) or by_file.get(item.name, "") for item in items}
    do = "name each case, or the file of its image, in the column case"
    _require_all(items, patients, f"{table} has no patient of", do)
    return patients


def _read_pairs(table: Path) -> list[tuple[str, str]]:
    """Return case and patient of each row; spreadsheets also separate by semicolons or tabs."""
    try:
        text = table.read_text(encoding="utf-8-sig")
        readers = [csv.DictReader(io.StringIO(text), restval="", delimiter=c) for c in ",;\t"]
        fit = (r for r in readers if {"case", "patient"} <= set(r.fieldnames or ()))
        rows = list(reader := next(fit, readers[0]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadFile(table, f"cannot be read ({error})", "save it as UTF-8 CSV.") from None
    columns = reader.fieldnames or ()
    if not {"case", "patient"} <= set(columns):
        what = f"has the columns {listed(columns)}"
        raise BadFile(table, what, "give it the columns case and patient.")
    return [(row["case"].strip(), row["patient"].strip()) for row in rows]


def _require_all(
    items: list[Item], patients: dict[str, str], what: str, do: str = "each case needs one"
) -> None:
    bare = [item.source.as_posix() for item in items if not patients[item.name]]
    if bare:
        more = f" and {len(bare) - SHOWN} more" if len(bare) > SHOWN else ""
        raise UserError(f"{what} {listed(bare[:SHOWN])}{more}; {do}.")


def splits_of(
    items: list[Item], patients: dict[str, str], shares: Shares
) -> tuple[dict[str, str], list[str]]:
    """Return the split of each case by its name, and notes.

    Splits of the source are kept, and a patient's other cases join them. The other patients are
    split at random, with a share of test or val if no labelled case of the source has that split.

    Raises:
        UserError: the source puts a patient into two splits, or a share cannot be obeyed.
    """
    sides: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.split is not None:
            sides[patients[item.name]].add(item.split)
    if torn := sorted(patient for patient, splits in sides.items() if len(splits) > 1):
        raise UserError(
            f"The source has {counted(len(torn), 'patient')} in several splits "
            f"({listed(torn[:SHOWN])}); give another --patient, or remove what names the splits."
        )
    fixed = {patient: splits.copy().pop() for patient, splits in sides.items()}
    kept = {item.split for item in items if item.split and item.mask is not None}
    free = [item for item in items if patients[item.name] not in fixed]
    wanted = {"test": shares.test, "val": shares.val}
    for name, share in wanted.items():
        if share is not None and (name in kept or not free):
            raise UserError(f"The source has its own splits; omit --{name}-share.")
        if share is not None and not 0 <= share <= 1:
            raise UserError(f"--{name}-share {share} is no share; give a number from 0 to 1.")
    default = {"test": TEST_SHARE, "val": VAL_SHARE}
    fractions = {
        name: 0.0 if name in kept else default[name] if share is None else share
        for name, share in wanted.items()
    }
    if sum(fractions.values()) > 1:
        raise UserError("--test-share and --val-share add up to more than 1; reduce one of them.")
    fractions = {"train": 1 - sum(fractions.values()), **fractions}
    cases = [Case(i.name, patients[i.name], Path(), None, "train") for i in free]
    parts = split_by_patient(cases, fractions, shares.seed)
    splits = {case.name: case.split for part in parts.values() for case in part}
    splits |= {i.name: fixed[patients[i.name]] for i in items if patients[i.name] in fixed}
    notes = []
    if fixed:
        notes.append(f"splits: the source gives {listed(sorted(set(fixed.values())))}")
    if free:
        shown = listed(f"{name} {share:g}" for name, share in fractions.items() if share)
        notes.append(f"splits: {len({c.patient for c in cases})} patients at random: {shown}")
    return splits, notes
