"""A data set with its cases, labels and splits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from medsaga_lib.data.corrections import Correction
from medsaga_lib.data.problems import BadFile, listed
from medsaga_lib.errors import UserError, counted

DESCRIPTION = "dataset.toml"
INDEX = "index.csv"
LABEL_LIST = "labels.json"  # replaces [labels] if the label values differ from case to case

Split = Literal["train", "val", "test"]
Masks = Literal["labels", "instances"]
SPLITS: tuple[str, ...] = get_args(Split)
MODALITIES = ("CT", "MR", "CT and MR", "X-ray", "ultrasound", "endoscopy", "dermoscopy", "fundus",
              "OCT", "microscopy", "mammography", "PET", "other")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One image or volume of one patient; `mask` is None if the case is not labelled."""

    name: str
    patient: str
    image: Path
    mask: Path | None
    split: str


@dataclass(frozen=True)
class DataSet:
    """A data set on disk.

    `labels` maps foreground label values to names. It is empty if the values differ from case to
    case. `window` is the pair of intensities (low, high) that become 0 and 1, or None for the rule
    of the modality. `pixel_size` is the height and width of a pixel in mm, for images whose files
    do not give it, or None. `colours` maps the colours of RGB masks to label values.
    `correction` is what is done to masks with a known fault when they are read (`corrections`).
    """

    root: Path
    name: str
    modality: str
    dimensions: int
    masks: Masks
    licence: str
    citation: str
    labels: dict[int, str]
    window: tuple[float, float] | None
    cases: tuple[Case, ...]
    pixel_size: tuple[float, float] | None = None
    colours: tuple[tuple[tuple[int, int, int], int], ...] = ()
    correction: Correction = ""

    def split(self, name: str) -> tuple[Case, ...]:
        """Return the cases of the split "train", "val" or "test", in the order of the index.

        Raises:
            UserError: there is no such split.
        """
        if name not in SPLITS:
            raise UserError(f"{self.root}: no split is called '{name}'; use {listed(SPLITS)}.")
        return tuple(case for case in self.cases if case.split == name)

    def describe(self) -> str:
        """Return one line with the name, the number of images and of patients, and the licence.

        The number of patients is omitted if every case has a different patient, because the data
        set may then not know which images belong to the same patient.
        """
        patients, count = len({case.patient for case in self.cases}), len(self.cases)
        cases = counted(count, "image" if self.dimensions == 2 else "volume")
        whose = f" of {counted(patients, 'patient')}" if patients < count else ""
        corrected = ", masks corrected" if self.correction else ""
        return f"{self.name}: {cases}{whose}{corrected}, {self.licence}"

    def require_labels(self) -> dict[int, str]:
        """Return the labels that a network can be trained for.

        Raises:
            UserError: the label values differ from case to case, so there are no common classes.
        """
        if not self.labels:
            raise BadFile(
                self.root / DESCRIPTION,
                f"'{self.name}' has no [labels] because its label values differ from case to case "
                f"({LABEL_LIST})",
                "train on another data set, or renumber the masks by one list of labels and add "
                "[labels]; prediction works without [labels].",
            )
        return self.labels
