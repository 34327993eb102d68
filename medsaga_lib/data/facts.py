"""Facts of the files of a data set, their summary, and what in them is suspicious."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from medsaga_lib.data.dataset import DESCRIPTION, INDEX, SPLITS, Case, DataSet
from medsaga_lib.data.geometry import displacement
from medsaga_lib.data.images import Stored
from medsaga_lib.data.problems import Problem, listed
from medsaga_lib.data.volumes import other_form

# Our choice: a volume is standardised if its mean and standard deviation are this near to 0 and 1
NEAR_0, NEAR_1 = 0.1, 0.1
FORMS_APART = 0.1  # voxels; our choice, as for an image and its mask
SHOWN = 5  # our choice: a note names at most this many cases


@dataclass(frozen=True)
class Facts:
    """The facts of one case; `labels` maps the values of its mask to their numbers of pixels."""

    case: Case
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    dtype: str
    low: float
    high: float
    mean: float
    deviation: float
    codes: str  # directions of the file's axes; "" for an image, "?" if the file does not say
    forms_apart: float  # voxels between qform and sform of a NIfTI file
    digest: str  # of the stored values
    labels: dict[int, int]


def facts_of(case: Case, image: Stored, mask: np.ndarray | None) -> Facts:
    """Collect the facts of a case.

    Args:
        case: it.
        image: as stored.
        mask: its label map, or None if there is none.
    """
    values = image.values
    where = image.geometry
    other = None if where is None else other_form(where)
    apart = 0.0
    if where is not None and other is not None:
        apart = displacement(where.affine, other, where.shape_outside(image.shape))
        apart = np.inf if np.isnan(apart) else apart  # the qform is not a rotation
    counts: dict[int, int] = {}
    if mask is not None:
        found, numbers = np.unique(mask, return_counts=True)
        counts = {int(v): int(n) for v, n in zip(found, numbers, strict=True) if v}
    return Facts(
        case=case,
        shape=image.shape,
        spacing=image.spacing,
        dtype=str(values.dtype),
        low=float(values.min()),
        high=float(values.max()),
        mean=float(values.mean(dtype=np.float64)),
        deviation=float(values.std(dtype=np.float64)),
        codes="" if where is None else where.codes,
        forms_apart=apart,
        digest=sha256(np.ascontiguousarray(values).tobytes()).hexdigest(),
        labels=counts,
    )


def summary(dataset: DataSet, facts: Sequence[Facts]) -> dict[str, Any]:
    """Return numbers about a data set: cases, patients, sizes, intensities, labels by split."""
    labels: dict[str, dict[str, int]] = {}
    for value, name in dataset.labels.items():
        having = [one for one in facts if one.labels.get(value)]
        if dataset.masks == "instances":
            having = [one for one in facts if one.labels]
        labels[name] = {split: sum(f.case.split == split for f in having) for split in SPLITS}
    return {
        "cases": {split: len(dataset.split(split)) for split in SPLITS},
        "patients": {
            split: len({case.patient for case in dataset.split(split)}) for split in SPLITS
        },
        "size": _range([one.shape for one in facts]),
        "spacing_mm": _range([one.spacing for one in facts if set(one.spacing) != {1.0}]),
        "types": dict(Counter(one.dtype for one in facts)),
        "intensities": [min(f.low for f in facts), max(f.high for f in facts)] if facts else None,
        "orientations": dict(Counter(one.codes for one in facts if one.codes)),
        "cases_with_label": labels,
    }


def _range(rows: Sequence[Sequence[float]]) -> list[list[float]] | None:
    """Return the smallest and the largest value of each column; None without rows."""
    if not rows or len({len(row) for row in rows}) > 1:
        return None
    return [np.min(rows, axis=0).tolist(), np.max(rows, axis=0).tolist()]


def notes(dataset: DataSet, facts: Sequence[Facts]) -> list[Problem]:
    """List what is suspicious; the data set can be used all the same."""
    return [
        *_intensity_notes(dataset, facts),
        *_geometry_notes(facts),
        *_label_notes(dataset, facts),
        *_patient_notes(dataset),
        *_twin_notes(dataset, facts),
    ]


def _intensity_notes(dataset: DataSet, facts: Sequence[Facts]) -> Iterator[Problem]:
    file = str(dataset.root / DESCRIPTION)
    volumes = [one for one in facts if len(one.shape) == 3]
    eight_bits = [one for one in facts if one.dtype == "uint8"]
    if dataset.modality == "CT" and dataset.window is None:
        for one in volumes:
            if one.dtype != "uint8" and one.low >= 0 and one.high <= 255:
                what = f"is a CT volume with values from {one.low:g} to {one.high:g}"
                remedy = "if it was windowed already, add `window = [0, 255]` to dataset.toml."
                yield Problem(str(one.case.image), what, remedy, note=True)
        if windowed := [one for one in volumes if one.dtype == "uint8"]:
            what = f"{_cases(windowed)}: 8 bits cannot hold Hounsfield units"
            remedy = "the values 0 to 255 are used as they are, without the window of CT."
            yield Problem(file, what, remedy, note=True)
    if dataset.window is not None and 0 < len(eight_bits) < len(facts):
        rest = [one for one in facts if one.dtype != "uint8"]
        few, other = sorted((eight_bits, rest), key=len)
        what = f"{_cases(few)}: {few[0].dtype}, but the others have {other[0].dtype}"
        remedy = "one window cannot fit both; save all images with the same number of bits."
        yield Problem(file, what, remedy, note=True)
    for one in volumes:
        standard = abs(one.mean) < NEAR_0 and abs(one.deviation - 1) < NEAR_1 and one.low < 0
        if dataset.modality != "CT" and dataset.window is None and standard:
            what = (
                f"looks standardised (mean {one.mean:.2f}, standard deviation {one.deviation:.2f})"
            )
            remedy = (
                "the rule for volumes sets all values below 0 to black; add `window = "
                f"[{one.low:.1f}, {one.high:.1f}]` to dataset.toml to keep them."
            )
            yield Problem(str(one.case.image), what, remedy, note=True)


def _geometry_notes(facts: Sequence[Facts]) -> Iterator[Problem]:
    for one in facts:
        if one.codes == "?":
            what = "gives no orientation (both form codes are 0)"
            remedy = "its axes are used as they are; check that left and right are right."
            yield Problem(str(one.case.image), what, remedy, note=True)
        if one.forms_apart > FORMS_APART:
            what = f"has a qform and an sform that differ by up to {one.forms_apart:.1f} voxels"
            remedy = "the sform is used; programs that use ITK may take the qform."
            yield Problem(str(one.case.image), what, remedy, note=True)


def _label_notes(dataset: DataSet, facts: Sequence[Facts]) -> Iterator[Problem]:
    file = str(dataset.root / DESCRIPTION)
    if dataset.masks == "instances":
        return
    masked = [one for one in facts if one.case.mask is not None]
    for split in ("train", "test"):
        chosen = [one for one in masked if one.case.split == split]
        absent = [
            name
            for value, name in dataset.labels.items()
            if chosen and not any(one.labels.get(value) for one in chosen)
        ]
        for name in absent:
            what = f"no mask of the split '{split}' shows '{name}'"
            remedy = "a network cannot learn it; add a case, or remove the label."
            if split == "test":
                remedy = "its scores will be empty; add a case, or remove the label."
            yield Problem(file, what, remedy, note=True)


def _patient_notes(dataset: DataSet) -> Iterator[Problem]:
    """List patients of different splits whose names differ only in how they are written."""
    written: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for case in dataset.cases:
        written[_plain(case.patient)][case.patient].add(case.split)
    for names in written.values():
        if len(names) > 1 and len(set.union(*names.values())) > 1:
            what = f"the patients {_quoted(names)} may be the same, and are in different splits"
            remedy = "write one patient in one way, and put all of its images into one split."
            yield Problem(str(dataset.root / INDEX), what, remedy, note=True)


def _plain(patient: str) -> str:
    """Return a name without case, separators and leading zeros: P7, p-07 and P_007 are one."""
    short = re.sub(r"(?<!\d)0+(?=\d)", "", patient.casefold())
    return re.sub(r"(?<!\d)[\W_]+|[\W_]+(?!\d)", "", short)  # those between numbers stay


def _twin_notes(dataset: DataSet, facts: Sequence[Facts]) -> Iterator[Problem]:
    """List images with the same values in different splits, or of different patients."""
    same: dict[tuple[str, tuple[int, ...]], list[Facts]] = defaultdict(list)
    for one in facts:
        same[one.digest, one.shape].append(one)
    for twins in same.values():
        if len(twins) > 1 and len({(t.case.split, t.case.patient) for t in twins}) > 1:
            what = f"the images of {_quoted(t.case.name for t in twins)} are equal"
            remedy = "keep one of them; in two splits or patients they make scores too good."
            yield Problem(str(dataset.root / INDEX), what, remedy, note=True)


def _quoted(names: Iterable[str]) -> str:
    return listed(f"'{name}'" for name in names)


def _cases(facts: Sequence[Facts]) -> str:
    names = listed(one.case.name for one in facts[:SHOWN])
    more = f" and {len(facts) - SHOWN} more" if len(facts) > SHOWN else ""
    return f"{len(facts)} of the cases ({names}{more})"


def table(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the summary as rows (what, value) for a terminal."""

    def write(counts: dict[str, int]) -> str:
        return listed(f"{key} {count}" for key, count in counts.items())

    rows = [("cases", write(found["cases"])), ("patients", write(found["patients"]))]
    for key, name in (("size", "size"), ("spacing_mm", "spacing (mm)")):
        if found[key]:
            low, high = (" x ".join(f"{x:.4g}" for x in ends) for ends in found[key])
            rows.append((name, low if low == high else f"{low} to {high}"))
    rows.append(("types", write(found["types"])))
    if found["intensities"]:
        rows.append(("values", "{:g} to {:g}".format(*found["intensities"])))
    if found["orientations"]:
        rows.append(("orientations", write(found["orientations"])))
    rows += [(f"cases with {n}", write(c)) for n, c in found["cases_with_label"].items()]
    return rows
