"""The data set `phantom_cxr` of drawn chest X-rays, written once to the cache; a drawn volume.

The cache is the folder $MEDSAGA_CACHE; default: `pooch.os_cache("medsaga")`.
"""

import csv
from pathlib import Path

import numpy as np

from medsaga_lib.data.chest import LABELS, draw_chest
from medsaga_lib.data.chest.anatomy import Anatomy, Projection, View
from medsaga_lib.data.dataset import DESCRIPTION, INDEX, Case
from medsaga_lib.data.images import Picture
from medsaga_lib.data.splits import split_by_patient
from medsaga_lib.errors import UserError
from medsaga_lib.files import CACHE_VARIABLE, cache_folder, working_folder

PHANTOMS = "phantom_cxr"  # the name of the data set
MODALITY, LICENCE = "X-ray", "CC0-1.0"
VERSION = 2  # increase it when the images change; then the folder of an older version stays unused

# our choice: enough for few-shot subsets of 8 to 32 images and a test split, drawn in about 10 s
PATIENTS, PICTURES, SEED = 60, 90, 0
FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}
BEDSIDE = 0.45  # share of AP images, our choice; a hospital's cxr_hannover_lungs has 44 of 77

SOURCE = """# phantom_cxr - drawn chest X-rays with both lungs and the heart

These images show no real patients: `medsaga_lib/data/chest` draws them from a seed.
Labels: 1 right lung (the patient's right is on the left side of the image), 2 left lung, 3 heart.
Where the heart overlaps a lung, the label is heart. The images of a patient share the anatomy and
differ in breath, pose, projection (PA standing, AP in bed) and exposure. Use them to see that code
runs and that a method learns. Scores on them say nothing about real X-rays.
"""


def write_once() -> Path:
    """Return the folder of `phantom_cxr` in the cache; the first call draws it in about 10 s.

    Raises:
        UserError: the cache folder cannot be written.
    """
    cache = cache_folder()
    root = cache / f"{PHANTOMS}-{VERSION}"
    if root.is_dir():
        return root
    try:
        with working_folder(root) as folder:
            draft = folder / root.name
            write_phantoms(draft, PATIENTS, PICTURES, SEED)
            _publish(draft, root)
    except OSError as error:
        raise UserError(
            f"The phantoms cannot be written to '{cache}' ({error.strerror}); "
            f"free some space, or name another folder in ${CACHE_VARIABLE}."
        ) from error
    return root


def write_phantoms(root: Path, patients: int, pictures: int, seed: int) -> None:
    """Draw a data set and write its folder; the same arguments give the same pixels.

    The patients get the images in turn, so that some patients have more than one image.
    """
    from PIL import Image

    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(pictures):
        patient, visit = number % patients, number // patients
        projection, picture, labels = draw_phantom(seed, patient, visit)
        name = f"p{patient:03d}_{visit}"
        image, mask = f"images/{name}.png", f"masks/{name}.png"
        Image.fromarray(picture).save(root / image)
        Image.fromarray(labels).save(root / mask)
        rows.append([name, image, mask, f"p{patient:03d}", projection])
    _write_index(root, rows, seed)
    (root / "SOURCE.md").write_text(SOURCE, encoding="utf-8")
    (root / DESCRIPTION).write_text(_description(), encoding="utf-8")


def draw_phantom(seed: int, patient: int, visit: int) -> tuple[Projection, np.ndarray, np.ndarray]:
    """Draw one image of one patient: its projection, pixels and labels (both uint8, H x W)."""
    anatomy = Anatomy.draw(np.random.default_rng([seed, patient]))
    random = np.random.default_rng([seed, patient, visit + 1])
    projection: Projection = "AP" if random.random() < BEDSIDE else "PA"
    picture, labels = draw_chest(anatomy, View.draw(random, projection), projection, random)
    return projection, picture, labels


def draw_volume(seed: int) -> tuple[Picture, np.ndarray]:
    """Draw a volume of a tilted ellipsoid in noise, slices of 5 mm, and its labels 0 and 1."""
    shape, spacing = (26, 160, 160), (5.0, 0.8, 0.8)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij")
    inside = (z / 0.8) ** 2 + ((y - 0.3 * z) / 0.45) ** 2 + ((x + 0.35 * z) / 0.35) ** 2 < 1
    noise = np.random.default_rng(seed).normal(0.35, 0.05, shape)
    pixels = np.clip(noise + 0.3 * inside, 0, 1).astype(np.float32)
    return Picture(pixels, spacing), inside.astype(np.int64)


def _write_index(root: Path, rows: list[list[str]], seed: int) -> None:
    cases = [Case(row[0], row[3], Path(row[1]), Path(row[2]), "train") for row in rows]
    parts = split_by_patient(cases, FRACTIONS, seed)
    split = {case.name: case.split for part in parts.values() for case in part}
    with (root / INDEX).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "image", "mask", "patient", "projection", "split"])
        writer.writerows([*row, split[row[0]]] for row in sorted(rows))


def _description() -> str:
    labels = "\n".join(f'{label} = "{name}"' for label, name in LABELS.items())
    return f"""name = "{PHANTOMS}"
modality = "{MODALITY}"
dimensions = 2
masks = "labels"
licence = "{LICENCE}"
citation = "drawn by medsaga_lib.data.chest, version {VERSION}"

[labels]
{labels}
"""


def _publish(draft: Path, root: Path) -> None:
    """Rename the finished folder, unless another process has already written the same folder."""
    try:
        draft.rename(root)
    except OSError:
        if not root.is_dir():
            raise
