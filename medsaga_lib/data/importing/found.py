"""A data set as it is found in another layout: its cases, and how each file of it is written."""

import base64
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np

from medsaga_lib.data.folder import LARGEST_LABEL
from medsaga_lib.data.images import Colours, read_labels
from medsaga_lib.data.problems import BadFile
from medsaga_lib.errors import UserError
from medsaga_lib.files import file_stem

Array = np.ndarray
Place = Callable[[Path, Path], None]  # puts a file of the source at a path: a copy or a link


class Content(Protocol):
    """The image or the mask of a case."""

    def write(self, target: Path, place: Place) -> Path:
        """Write it at a path without ending; return the path that index.csv names."""
        ...


@dataclass(frozen=True)
class Copied:
    """A file, or a folder with a DICOM series, that stays as it is.

    name: of the copy, without its ending; default: the case.
    """

    path: Path
    name: str = ""

    def write(self, target: Path, place: Place) -> Path:
        """Place the file with its ending; if it needs other files, place all in one folder."""
        target = target.with_name(self.name or target.name)
        if self.path.is_dir():
            target.mkdir()
            for file in sorted(self.path.iterdir()):
                if file.is_file() and not file.name.startswith("."):
                    place(file, target / file.name)
            return target
        if (data := data_file(self.path)) is not None:
            target.mkdir()
            for file in (self.path, data):
                place(file, target / file.name)
            return target / self.path.name
        ending = self.path.name[len(file_stem(self.path)) :]
        goal = target.with_name(target.name + ending)
        place(self.path, goal)
        return goal


@dataclass(frozen=True)
class LabelMap:
    """A mask that is written anew: PNG for (H, W), NIfTI or npz for (D, H, W).

    draw: returns whole numbers from 0, and the spacing of a volume in mm, or None if it is unknown.
    """

    draw: Callable[[], tuple[Array, tuple[float, ...] | None]]

    def write(self, target: Path, place: Place) -> Path:
        """Write 8 bits if the values fit, otherwise 16 bits."""
        values, spacing = self.draw()
        small = values.astype(np.uint8 if values.max(initial=0) < 256 else np.uint16)
        if small.ndim == 2:
            from PIL import Image

            goal = target.with_name(target.name + ".png")
            Image.fromarray(small).save(goal)
        elif spacing is None:  # a NIfTI file would claim 1 mm
            goal = target.with_name(target.name + ".npz")
            np.savez_compressed(goal, gts=small)
        else:
            goal = target.with_name(target.name + ".nii.gz")
            _write_nifti(goal, small, spacing)
        return goal


def _write_nifti(path: Path, values: Array, spacing: tuple[float, ...]) -> None:
    """Write a volume (z, y, x) without an orientation, which its array does not give."""
    import nibabel

    image = nibabel.Nifti1Image(values.T, None)
    image.header.set_zooms(spacing[::-1])
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


@dataclass(frozen=True)
class Channel:
    """One channel of a NIfTI file with the axes (x, y, z, channel)."""

    path: Path
    number: int

    def write(self, target: Path, place: Place) -> Path:
        """Write the stored values of the channel with the header of the file."""
        import nibabel

        image: nibabel.Nifti1Image = nibabel.load(self.path)  # type: ignore[assignment]
        values = np.asanyarray(image.dataobj[..., self.number])
        header = image.header.copy()
        header.set_data_dtype(values.dtype)
        goal = target.with_name(target.name + ".nii.gz")
        nibabel.save(type(image)(values, None, header), goal)
        return goal


@dataclass(frozen=True)
class Renumbered:
    """A NIfTI file of labels whose values change; values without a new one become 0."""

    path: Path
    values: dict[int, int]

    def write(self, target: Path, place: Place) -> Path:
        """Write 8 bits with the header of the file."""
        import nibabel

        image: nibabel.Nifti1Image = nibabel.load(self.path)  # type: ignore[assignment]
        stored = np.asanyarray(image.dataobj)
        labels = np.zeros(stored.shape, np.uint8)
        for old, new in self.values.items():
            labels[stored == old] = new
        header = image.header.copy()
        header.set_data_dtype(labels.dtype)
        goal = target.with_name(target.name + ".nii.gz")
        nibabel.save(type(image)(labels, None, header), goal)
        return goal


@dataclass(frozen=True)
class Drawn:
    """An image that is written anew as PNG: (H, W) or (H, W, 3), 8 bits."""

    draw: Callable[[], Array]

    def write(self, target: Path, place: Place) -> Path:
        """Write the PNG."""
        from PIL import Image

        goal = target.with_name(target.name + ".png")
        Image.fromarray(self.draw()).save(goal)
        return goal


@dataclass(frozen=True)
class Embedded:
    """A picture that a JSON document of Labelme holds; its bytes stay as they are."""

    document: Path
    read: Callable[[], str]

    def write(self, target: Path, place: Place) -> Path:
        """Write the bytes with the ending of their format.

        Raises:
            BadFile: the text is no picture.
        """
        from PIL import Image

        try:
            content = base64.b64decode(self.read())
            ending = str(Image.open(io.BytesIO(content)).format).lower()
        except (ValueError, OSError) as error:
            what = f"has `imageData` that is no picture ({error})"
            raise BadFile(self.document, what, "save it again with the picture.") from None
        goal = target.with_name(f"{target.name}.{ending}")
        goal.write_bytes(content)
        return goal


@dataclass(frozen=True)
class Item:
    """A case of the source.

    source: the path of its image below the source. mask: None if it is not labelled. split: that of
    the source, or None. patient: by a rule of the layout; empty if the layout has none. columns:
    more of the case for `index.csv`.
    """

    name: str
    source: PurePath
    image: Content
    mask: Content | None
    split: str | None = None
    patient: str = ""
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A data set in another layout.

    modality: in the words of the source; empty if it does not say. labels: empty if the source does
    not name them. notes: sentences about what was decided and what was skipped. counted: numbers of
    things that are known once the masks are written, by the sentences that follow the numbers.
    window: of `dataset.toml`. label_list: the content of `labels.json`, if the label values differ
    from case to case.
    """

    items: list[Item]
    name: str = ""
    modality: str = ""
    labels: dict[int, str] = field(default_factory=dict)
    licence: str = ""
    citation: str = ""
    notes: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    window: list[float] | None = None
    label_list: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """Options of the user that a layout obeys.

    channel: of images with several. labels: names of the label values. instances: whether masks
    hold one value for each object. colours: the label of each colour of RGB masks.
    """

    channel: int | None = None
    labels: dict[int, str] = field(default_factory=dict)
    instances: bool = False
    colours: Colours = ()


def data_file(path: Path) -> Path | None:
    """Return the file that holds the values of an .mhd or .nhdr header; None for other files.

    Raises:
        BadFile: the values are in several files, or the file is missing.
    """
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return None
    separator = "=" if path.suffix.lower() == ".mhd" else ":"
    remedy = "save it as .mha or .nrrd, in one file."
    for line in path.read_text(encoding="latin-1").splitlines():
        key, _, value = (part.strip() for part in line.partition(separator))
        if key.casefold().replace(" ", "") not in ("elementdatafile", "datafile"):
            continue
        if value.casefold() == "local":
            return None
        data = path.parent / value
        if not data.is_file() or data.parent != path.parent:
            raise BadFile(path, f"names the data file '{value}', not one file beside it", remedy)
        return data
    raise BadFile(path, "names no data file", remedy)


def read_label_map(path: Path) -> tuple[Array, tuple[float, ...] | None]:
    """Read the mask of an npy or npz file, and its spacing in mm if the file gives it.

    Raises:
        BadFile: it cannot be read, or a value is above `LARGEST_LABEL`.
    """
    stored = read_labels(path)
    if stored.values.max() > LARGEST_LABEL:
        what = f"holds the label value {stored.values.max()}"
        raise BadFile(path, what, f"number the labels from 0 to {LARGEST_LABEL}.")
    return stored.values, None if set(stored.spacing) == {1.0} else stored.spacing


def choose_channel(count: int, names: dict[int, str], asked: int | None) -> int:
    """Return the number of the channel that is imported.

    Raises:
        UserError: there are several and none was asked for, or there is no such channel.
    """
    known = ", ".join(f"{n} {names.get(n, '')}".strip() for n in range(count))
    if asked is None and count > 1:
        raise UserError(f"The images have {count} channels ({known}); choose one with --channel.")
    if asked is not None and not 0 <= asked < count:
        raise UserError(f"The images have no channel {asked}; their channels are {known}.")
    return asked or 0
