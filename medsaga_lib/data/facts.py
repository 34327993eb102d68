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
from medsaga_lib.data.images import CT_WINDOW, Stored
from medsaga_lib.data.problems import Problem, in_mm, listed
from medsaga_lib.data.volumes import other_form

# Our choice: a volume is standardised if its mean and standard deviation are this near to 0 and 1
NEAR_0, NEAR_1 = 0.1, 0.1
SHIFT = 1024  # of CT values that are stored without a sign; most scanners declare it as intercept
# Our choice: an image whose values are all in the lowest eighth of the window has lost 3 bits
DIM = 1 / 8
SAME_SIZE = 0.01  # our choice: sizes of a pixel that differ by a smaller share are the same
# Our choice: masks of numbered objects with more connected parts for each number hold noise, or one
# number for all objects
PARTS = 4
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
    objects: tuple[int, int] | None  # values of a mask of instances, and their connected parts


def facts_of(
    case: Case,
    image: Stored,
    labels: np.ndarray | None,
    mask_apart: float | None = None,
    instances: np.ndarray | None = None,
) -> Facts:
    """Collect the facts of a case.

    Args:
        case: it.
        image: as stored.
        labels: its label map, or None if there is none that could be read.
        mask_apart: how far apart the files say that mask and image are; None if they do not say.
        instances: the numbers of the objects, in a data set of instances.
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
        objects=None if instances is None else _objects(instances),
    )


def _objects(instances: np.ndarray) -> tuple[int, int]:
    """Return the number of values above 0 of a mask, and the number of their connected parts."""
    from skimage.measure import label

    return len(count_values(instances).keys() - {0}), int(label(instances).max())


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
        *_window_notes(dataset, facts),
        *_geometry_notes(dataset, facts),
        *_label_notes(dataset, facts),
        *_object_notes(facts),
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
                top = 1 if one.high <= 1 else 255
                remedy = f"if it was windowed already, add `window = [0, {top}]` to dataset.toml."
                yield Problem(str(one.case.image), what, remedy, note=True)
            elif one.dtype != "uint8" and one.low >= 0:
                what = f"is a CT volume without values below 0 ({one.low:g} to {one.high:g})"
                low, high = (end + SHIFT for end in CT_WINDOW)
                remedy = (
                    f"air has about -1000 Hounsfield units; if {SHIFT} was added to them, add "
                    f"`window = [{low:g}, {high:g}]` to dataset.toml."
                )
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
        if dataset.window is None and standard:
            what = (
                f"looks standardised (mean {one.mean:.2f}, standard deviation {one.deviation:.2f})"
            )
            rule = "sets all values below 0 to black"
            if dataset.modality == "CT":
                rule = "makes all of them nearly the same grey"
            remedy = (
                f"the rule for {dataset.modality} volumes {rule}; add `window = "
                f"[{one.low:.1f}, {one.high:.1f}]` to dataset.toml to keep them."
            )
            yield Problem(str(one.case.image), what, remedy, note=True)


def _window_notes(dataset: DataSet, facts: Sequence[Facts]) -> Iterator[Problem]:
    """List the images that a declared window makes nearly black or white."""
    if dataset.window is None:
        return
    low, high = dataset.window
    mixed = len({one.dtype == "uint8" for one in facts}) > 1  # which has a note of its own
    dim = [one for one in facts if one.high < low + DIM * (high - low)]
    dim = [one for one in dim if not (mixed and one.dtype == "uint8")]
    bright = [one for one in facts if one.mean >= high]
    file = str(dataset.root / DESCRIPTION)
    remedy = "correct the window, or save all images in the same units and number of bits."
    for found, where in (
        (dim, "all values are in the lowest 1/8 of"),
        (bright, "the mean is above"),
    ):
        if found:
            what = f"{_cases(found)}: {where} the window [{low:g}, {high:g}]"
            yield Problem(file, what, remedy, note=True)


def _geometry_notes(dataset: DataSet, facts: Sequence[Facts]) -> Iterator[Problem]:
    for one in facts:
        if _other_size(dataset, one):
            here, there = in_mm(one.spacing), in_mm(dataset.pixel_size or ())
            what = f"has a pixel size of {here}, and dataset.toml {there}"
            remedy = "that of the file is used; correct the wrong one."
            yield Problem(str(one.case.image), what, remedy, note=True)
        if one.codes == "?":
            what = "gives no orientation"
            remedy = "its axes are used as they are; check that left and right are right."
            yield Problem(str(one.case.image), what, remedy, note=True)
        if one.forms_apart > FORMS_APART:
            what = f"has a qform and an sform that differ by up to {one.forms_apart:.1f} voxels"
            remedy = "the sform is used; programs that use ITK may take the qform."
            yield Problem(str(one.case.image), what, remedy, note=True)


def _other_size(dataset: DataSet, one: Facts) -> bool:
    """Tell whether the file of an image gives another size of a pixel than its data set."""
    size = dataset.pixel_size
    if size is None or len(one.shape) != 2 or set(one.spacing) == {1.0}:
        return False
    return not np.allclose(one.spacing, size, rtol=SAME_SIZE, atol=0)


def _label_notes(dataset: DataSet, facts: Sequence[Facts]) -> Iterator[Problem]:
    file = str(dataset.root / DESCRIPTION)
    for split in ("train", "test"):
        for name in _absent(dataset, facts, split):
            what = f"no mask of the split '{split}' shows '{name}'"
            remedy = "a network cannot learn it; add a case, or remove the label."
            if split == "test":
                remedy = "its scores will be empty; add a case, or remove the label."
            yield Problem(file, what, remedy, note=True)


def _object_notes(facts: Iterable[Facts]) -> Iterator[Problem]:
    """List masks whose values are no numbers of objects."""
    for one in facts:
        if one.objects is None or one.objects[1] <= PARTS * one.objects[0]:
            continue
        what = f"has {one.objects[0]} values in {one.objects[1]} separate parts"
        remedy = (
            "give each object one value without smoothing or lossy compression, or write masks = "
            '"labels".'
        )
        yield Problem(str(one.case.mask), what, remedy, note=True)


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
