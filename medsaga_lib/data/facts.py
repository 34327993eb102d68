"""Facts of the files of a data set, their summary, and what in them is suspicious."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from medsaga_lib.data.cases import count_values
from medsaga_lib.data.dataset import DESCRIPTION, INDEX, SPLITS, Case, DataSet
from medsaga_lib.data.geometry import displacement
from medsaga_lib.data.images import Stored
from medsaga_lib.data.problems import Problem, listed
from medsaga_lib.data.volumes import other_form

# Our choice: a volume is standardised if its mean and standard deviation are this near to 0 and 1
NEAR_0, NEAR_1 = 0.1, 0.1
SEEN_APART = 1e-3  # voxels; our choice: a smaller distance is rounding of the header
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
    channels: int  # 1 or 3
    masked: bool  # it has a label map that could be read
    labels: dict[int, int]
    mask_apart: float | None  # voxels between the mask and the image, by their files


def facts_of(
    case: Case, image: Stored, labels: np.ndarray | None, mask_apart: float | None = None
) -> Facts:
    """Collect the facts of a case.

    Args:
        case: it.
        image: as stored.
        labels: its label map, or None if there is none that could be read.
        mask_apart: how far apart the files say that mask and image are; None if they do not say.
    """
    values = image.values
    where = image.geometry
    other = None if where is None else other_form(where)
    apart = 0.0
    if where is not None and other is not None:
        apart = displacement(where.affine, other, where.shape_outside(image.shape))
        apart = np.inf if np.isnan(apart) else apart  # the qform is not a rotation
    counts = {} if labels is None else count_values(labels)
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
        channels=1 if image.shape == values.shape else values.shape[-1],
        masked=labels is not None,
        labels={value: number for value, number in counts.items() if value},
        mask_apart=mask_apart,
    )


def summary(dataset: DataSet, facts: Sequence[Facts]) -> dict[str, Any]:
    """Return numbers about a data set: cases, patients, sizes, intensities, labels by split."""
    having = {
        name: [one for one in facts if one.labels.get(value)]
        for value, name in dataset.labels.items()
    }
    plain = [one for one in facts if one.masked and not one.labels]
    apart = [one.mask_apart for one in facts if one.mask_apart is not None]
    return {
        "cases": {split: len(dataset.split(split)) for split in SPLITS},
        "patients": {
            split: len({case.patient for case in dataset.split(split)}) for split in SPLITS
        },
        "size": _range([one.shape for one in facts]),
        "spacing_mm": _range([f.spacing for f in facts if f.codes or set(f.spacing) != {1.0}]),
        "types": dict(Counter(one.dtype for one in facts)),
        "channels": {str(n): c for n, c in sorted(Counter(f.channels for f in facts).items())},
        "intensities": [min(f.low for f in facts), max(f.high for f in facts)] if facts else None,
        "orientations": dict(Counter(one.codes for one in facts if one.codes)),
        "mask_displacement_voxels": max(apart, default=None),
        "cases_with_label": {name: _by_split(shown) for name, shown in having.items()},
        "pixels_of_label": {
            name: {
                split: sum(one.labels.get(value, 0) for one in facts if one.case.split == split)
                for split in SPLITS
            }
            for value, name in dataset.labels.items()
        },
        "cases_without_any_label": _by_split(plain),
        "absent_in_training": _absent(dataset, facts, "train"),
        "suspicious_patients": [list(names) for names in written_differently(dataset.cases)],
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
    for split in ("train", "test"):
        for name in _absent(dataset, facts, split):
            what = f"no mask of the split '{split}' shows '{name}'"
            remedy = "a network cannot learn it; add a case, or remove the label."
            if split == "test":
                remedy = "its scores will be empty; add a case, or remove the label."
            yield Problem(file, what, remedy, note=True)


def _absent(dataset: DataSet, facts: Sequence[Facts], split: str) -> list[str]:
    """Return the names of the labels that no mask of a split shows; none if it has no masks."""
    chosen = [one for one in facts if one.case.split == split and one.masked]
    if not chosen or dataset.masks == "instances":
        return []
    return [
        name
        for value, name in dataset.labels.items()
        if not any(one.labels.get(value) for one in chosen)
    ]


def _by_split(facts: Iterable[Facts]) -> dict[str, int]:
    counts = Counter(one.case.split for one in facts)
    return {split: counts[split] for split in SPLITS}


def _patient_notes(dataset: DataSet) -> Iterator[Problem]:
    """List patients of different splits whose names differ only in how they are written."""
    for names in written_differently(dataset.cases):
        if len(set.union(*names.values())) > 1:
            what = f"the patients {_quoted(names)} may be the same, and are in different splits"
            remedy = "write one patient in one way, and put all of its images into one split."
            yield Problem(str(dataset.root / INDEX), what, remedy, note=True)


def written_differently(cases: Iterable[Case]) -> list[dict[str, set[str]]]:
    """Return the groups of patients whose names differ only in how they are written.

    Each group maps the names, in the order of the index, to the splits in which they are.
    """
    written: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for case in cases:
        written[_plain(case.patient)][case.patient].add(case.split)
    return [dict(names) for names in written.values() if len(names) > 1]


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
    rows = [(key, _written(found[key])) for key in ("cases", "patients")]
    rows += file_rows(found)
    rows += [(f"cases with {n}", _written(c)) for n, c in found["cases_with_label"].items()]
    if any(found["cases_without_any_label"].values()):
        rows.append(("cases without any label", _written(found["cases_without_any_label"])))
    return rows + suspicion_rows(found)


def file_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of a summary about the contents of the files."""
    rows = []
    for key, name in (("size", "size"), ("spacing_mm", "spacing (mm)")):
        if found[key]:
            low, high = (" x ".join(f"{x:.4g}" for x in ends) for ends in found[key])
            rows.append((name, low if low == high else f"{low} to {high}"))
    rows.append(("types", _written(found["types"])))
    if len(found["channels"]) > 1:
        rows.append(("channels", listed(f"{n}: {c} cases" for n, c in found["channels"].items())))
    if found["intensities"]:
        rows.append(("values", "{:g} to {:g}".format(*found["intensities"])))
    if found["orientations"]:
        rows.append(("orientations", _written(found["orientations"])))
    if (apart := found["mask_displacement_voxels"]) is not None and apart > SEEN_APART:
        rows.append(("masks beside their images", f"by up to {apart:.2g} voxels"))
    return rows


def suspicion_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of a summary about labels and patients that may be wrong."""
    rows = [("perhaps one patient", listed(names)) for names in found["suspicious_patients"]]
    if found["absent_in_training"]:
        rows.insert(0, ("labels absent in training", listed(found["absent_in_training"])))
    return rows


def _written(counts: dict[str, int]) -> str:
    return listed(f"{key} {count}" for key, count in counts.items())
