"""The sets of the chapters, fetched from archives in the layouts of their origins.

The origins cannot be reached from a test. Their layouts are written from the data at hand, and the
fetched data set must have the same index and the same pixels.
"""

import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage.measure import find_contours

from medsaga_lib.data.cases import read_case_mask
from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.corrections import into_central_square
from medsaga_lib.data.fetching import pins
from medsaga_lib.data.fetching.catalogue import official_sets
from medsaga_lib.data.images import read_stored
from medsaga_lib.download import has_hash
from medsaga_lib.errors import UserError
from tests.data.fetching.builders import picture, zipped

SAME = "the pixels are those that the book's results were measured on"


@pytest.fixture
def some_cases(monkeypatch):
    """Limit the index of a set to some cases; returns its rows."""
    real = pins.read_pins

    def limit(name, chosen):
        rows = [row for row in real(name) if row["case"].startswith(tuple(chosen))]
        assert len(rows) == len(chosen)
        monkeypatch.setattr(pins, "read_pins", lambda name: rows)
        return rows

    return limit


def pixels(path):
    return read_stored(path, is_mask=path.parent.name == "masks").values


def require_same(fetched, name, root):
    """Compare each case of a fetched set with the one of the set at hand."""
    at_hand = open_dataset(root / name)
    known = {case.name: case for case in at_hand.cases}
    assert (fetched.labels, fetched.masks, fetched.modality) == (
        at_hand.labels, at_hand.masks, at_hand.modality,
    )  # fmt: skip
    for case in fetched.cases:
        other = known[case.name]
        assert (case.patient, case.split) == (other.patient, other.split)
        assert case.image.relative_to(fetched.root) == other.image.relative_to(at_hand.root)
        assert case.mask.relative_to(fetched.root) == other.mask.relative_to(at_hand.root)
        assert np.array_equal(pixels(case.image), pixels(other.image))
        assert np.array_equal(pixels(case.mask), read_case_mask(at_hand, other).values)


def test_hippocampus(real_data, served, fetch, some_cases):
    rows = some_cases("hippocampus_msd", ["hippocampus_001", "hippocampus_003", "hippocampus_367"])
    folder = real_data / "hippocampus_msd"
    top = "nd320-c3-3d-imaging-starter-895fee6/data/TrainingSet"
    files = {}
    for row in rows:
        files[f"{top}/images/{row['case']}.nii.gz"] = (folder / row["image"]).read_bytes()
        files[f"{top}/labels/{row['case']}.nii.gz"] = (folder / row["mask"]).read_bytes()
    files[f"{top}/images/hippocampus_118.nii.gz"] = b"a case without a label"
    served("hippocampus_msd", {"commit.zip": zipped(files)})
    require_same(fetch("hippocampus_msd")[0], "hippocampus_msd", real_data)


def test_nuclei(real_data, served, fetch, some_cases):
    """Grey and stained images; two masks that overlap show the later file on top."""
    cases = ["00071198", "0a7d30b2", "1609b1b8", "0e21d7b3", "0121d675"]
    rows = some_cases("nuclei_dsb2018", cases)
    folder, files = real_data / "nuclei_dsb2018", {}
    for row in rows:
        top = f"kaggle-dsbowl-2018-dataset-fixes-3035455/stage1_train/{row['case']}"
        image = Image.open(folder / row["image"]).convert("RGBA")
        files[f"{top}/images/{row['case']}.png"] = picture(np.asarray(image))
        ids = pixels(folder / row["mask"])
        for number in np.unique(ids[ids > 0]):
            own = ids == number
            if number + 1 in ids:  # what the next nucleus covers, as in three of the images
                own |= (ids == number + 1) & (np.roll(ids, 1, 0) == number)
            files[f"{top}/masks/{number:04d}.png"] = picture(own.astype(np.uint8) * 255)
    served("nuclei_dsb2018", {"commit.zip": zipped(files)})
    found, _ = fetch("nuclei_dsb2018")
    require_same(found, "nuclei_dsb2018", real_data)
    modes = {Image.open(case.image).mode for case in found.cases}
    assert modes == {Image.open(folder / row["image"]).mode for row in rows}


def test_polyps(real_data, served, fetch, some_cases):
    """JPEG changes the values at the borders of a mask; the threshold brings the mask back."""
    rows = some_cases("polyp_kvasir", ["cju0qkwl35piu", "cju0s690hkp96", "cju0u82z3cuma"])
    folder, files = real_data / "polyp_kvasir", {}
    for row, part in zip(rows, ("train", "val", "test"), strict=True):
        top = f"show-project-kvasir-keras-07697df/{part}"
        files[f"{top}/images/{row['case']}.jpg"] = (folder / row["image"]).read_bytes()
        white = pixels(folder / row["mask"]).astype(np.uint8) * 255
        jpeg = picture(white, "JPEG")
        files[f"{top}/masks/{row['case']}.jpg"] = jpeg
    assert len(np.unique(np.asarray(Image.open(io.BytesIO(jpeg))))) > 2
    served("polyp_kvasir", {"commit.zip": zipped(files)})
    found, _ = fetch("polyp_kvasir")
    require_same(found, "polyp_kvasir", real_data)
    assert found.cases[0].image.read_bytes() == (folder / rows[0]["image"]).read_bytes()


def test_lungs(real_data, served, fetch, some_cases):
    """Outlines of the masks at hand, which are corrected when they are read, in V7's squares.

    V7's own polygons are not at hand, so that only scale, sides and drawing are shown here.
    """
    rows = some_cases("cxr_hannover_lungs", ["53c9be49", "b343e657", "2168a917"])
    folder, images, documents = real_data / "cxr_hannover_lungs", {}, {}
    for row in rows:
        case = row["case"]
        mask = into_central_square(pixels(folder / row["mask"]))
        top = "covid-19-image-repository-ad7ab09/png"
        images[f"{top}/{case}.png"] = (folder / row["image"]).read_bytes()
        images[f"{top}/00000000.png"] = b"another image"
        side = min(mask.shape)
        first, scale = (np.array(mask.shape) - side) / 2, 2000 / side
        lungs = []
        for label in (2, 1):  # the order does not matter
            outline = max(find_contours(mask == label, 0.5), key=len) + 0.5
            path = [{"x": x, "y": y} for y, x in (outline - first) * scale]
            lungs.append({"name": "Lung", "polygon": {"path": path}})
        documents[f"covid-only/{row['v7_id']}.json"] = json.dumps(
            {
                "image": {"original_filename": f"{case}.png", "width": 2000, "height": 2000},
                "annotations": [*lungs, {"name": "Ignore", "polygon": {"path": path}}],
            }
        ).encode()
    served(
        "cxr_hannover_lungs", {"commit.zip": zipped(images), "covid-only.zip": zipped(documents)}
    )
    require_same(fetch("cxr_hannover_lungs")[0], "cxr_hannover_lungs", real_data)


@pytest.mark.parametrize(
    "name", ["mr_dwi_stroke_isles22", "ct_spleen_msd_crop", "ct_mr_multiorgan_totalseg_example"]
)
def test_single_files(name, real_data, monkeypatch, fetch):
    """The published hashes are those of the files at hand; the pixels have the pinned hash."""
    official = official_sets()[name]

    def download(url, path, known, *args, **options):
        file = next(file for file in official.files if file.url == url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((real_data / name / file.to).read_bytes())
        assert known == file.hash
        assert path.stat().st_size == file.bytes
        assert has_hash(path, known)

    monkeypatch.setattr("medsaga_lib.data.fetching.fetch.download", download)
    found, notes = fetch(name)
    require_same(found, name, real_data)
    assert SAME in notes


def test_slices_of_a_demonstration(real_data, served, fetch):
    """One mask for each structure; a structure may have two parts."""
    name, files = "ct_mr_slices_sammed2d_demo", {}
    values = json.loads((real_data / name / "labels.json").read_text(encoding="utf-8"))
    top = "SAM-Med2D-bfd2b93/data_demo"
    for row in pins.read_pins(name):
        case = row["case"]
        files[f"{top}/images/{case}.png"] = (real_data / name / row["image"]).read_bytes()
        mask = pixels(real_data / name / row["mask"])
        for structure in row["labelled"].split(";"):
            part = mask == values[structure]
            left = np.arange(mask.shape[1]) < np.median(np.nonzero(part)[1])
            for number, one in enumerate((part & left, part & ~left)):
                content = picture(one.astype(np.uint8) * 255)
                files[f"{top}/masks/{case}_{structure}_{number:03d}.png"] = content
    served(name, {"commit.zip": zipped(files)}, pixels=official_sets()[name].pixels)
    found, notes = fetch(name)
    require_same(found, name, real_data)
    assert SAME in notes
    assert json.loads((found.root / "labels.json").read_text(encoding="utf-8")) == values


def test_another_commit_is_recognised(served, fetch, tmp_path):
    top = "a/data/TrainingSet"
    files = {f"{top}/{part}/hippocampus_001.nii.gz": b"" for part in ("images", "labels")}
    served("hippocampus_msd", {"commit.zip": zipped(files)})
    with pytest.raises(UserError, match=r"lacks 259 cases .*not at the commit"):
        fetch("hippocampus_msd")
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".out*")) == []


@pytest.mark.parametrize("name", [path.stem for path in pins.PINS.glob("*.csv")])
def test_the_index_is_the_one_at_hand(name, real_data, tmp_path):
    pins.write_pins(name, tmp_path / "index.csv")
    written, at_hand = (
        pd.read_csv(f / "index.csv", dtype=str) for f in (tmp_path, real_data / name)
    )
    counted = [column for column in at_hand if column.endswith("_lung_px")]  # of uncorrected masks
    pd.testing.assert_frame_equal(written, at_hand.drop(columns=counted))


def test_the_hash_of_pixels_ignores_the_numbering_of_objects():
    ids = np.array([[0, 3, 3], [7, 0, 1]])
    assert pins._in_order(ids).tolist() == [[0, 1, 1], [2, 0, 3]]
    assert pins._in_order(ids + 1).tolist() == [[1, 2, 2], [3, 1, 4]]
