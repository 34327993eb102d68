"""Labelme's files: each type of shape against brute force, and pictures inside the files."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from medsaga_lib.data.check import check_dataset
from medsaga_lib.errors import UserError

RANDOM = np.random.default_rng(9)
SIDES = (20, 30)  # H, W
PICTURE = RANDOM.integers(0, 256, (*SIDES, 3), np.uint8)


def png(values):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {},
            **more}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """Write a file of Labelme for each list of shapes, with its picture; returns the folder."""
    root = tmp_path / "labelme"
    root.mkdir()

    def run(shapes, **changes):
        for name, one in shapes.items():
            content = {
                "version": "5.4.1", "flags": {}, "shapes": one, "imagePath": f"{name}.png",
                "imageData": None, "imageHeight": SIDES[0], "imageWidth": SIDES[1],
            }  # fmt: skip
            (root / f"{name}.json").write_text(json.dumps({**content, **changes}))
            (root / f"{name}.png").write_bytes(png(PICTURE))
        return root

    return run


def mask_of(dataset, name):
    (case,) = [case for case in dataset.cases if case.name == name]
    return np.asarray(Image.open(case.mask))


def test_every_shape_with_an_area(write, bring):
    part = RANDOM.random((4, 5)) > 0.5
    stored = base64.b64encode(png(part)).decode()
    shapes = {
        "a": [
            shape("liver", [[1, 1], [9, 1], [9, 7], [1, 7]]),
            shape("spleen", [[14, 10], [6, 4]], "rectangle"),
            shape("liver", [[22, 9], [22, 13.2]], "circle"),
            shape("tumour", [[24, 15], [28, 18]], "mask", mask=stored),
            shape("_background_", [[2, 2], [4, 4]], "rectangle"),
            shape("tip", [[5, 5]], "point"),
        ],
        "b": [],
    }
    dataset, done = bring(write(shapes), modality="CT")
    assert done.layout == "labelme"
    assert dataset.labels == {1: "liver", 2: "spleen", 3: "tumour"}
    expected = np.zeros(SIDES, int)
    expected[1:7, 1:9] = 1
    expected[4:10, 6:14] = 2
    for y in range(20):
        for x in range(30):
            if (x + 0.5 - 22) ** 2 + (y + 0.5 - 9) ** 2 < 4.2**2:
                expected[y, x] = 1
    expected[15:19, 24:29][part] = 3
    expected[2:4, 2:4] = 0
    np.testing.assert_array_equal(mask_of(dataset, "a"), expected)
    assert not mask_of(dataset, "b").any()
    assert "points and lines, which have no area, left out: 1" in done.notes
    assert "pictures without an object, whose mask is empty: 1" in done.notes
    # Spleen takes 3 x 3 pixels of liver, and the background 2 x 2
    assert f"pixels of several shapes, which show the last one: {3 * 3 + 2 * 2}" in done.notes
    assert all(problem.note for problem in check_dataset(dataset.root))


def test_shapes_of_a_group_are_one_object(write, bring):
    box = [[1, 1], [3, 3]]
    shapes = [
        shape("cell", box, "rectangle", group_id=7),
        shape("cell", [[5, 1], [7, 3]], "rectangle"),
        shape("cell", [[9, 1], [11, 3]], "rectangle", group_id=7),
    ]
    dataset, _ = bring(write({"a": shapes}), modality="microscopy", instances=True)
    mask = mask_of(dataset, "a")
    assert (mask[1, 1], mask[1, 5], mask[1, 9], mask.max()) == (1, 2, 1, 2)


def test_a_picture_inside_its_file_keeps_its_bytes(write, bring):
    picture = png(PICTURE)
    root = write(
        {"a": [shape("x", [[1, 1], [9, 1], [9, 7]])]}, imageData=base64.b64encode(picture).decode()
    )
    (root / "a.png").unlink()
    dataset, _ = bring(root, modality="CT")
    assert dataset.cases[0].image.read_bytes() == picture
    (root / "a.png").write_bytes(png(255 - PICTURE))  # a picture beside the file comes first


def test_a_picture_in_another_folder_of_windows(write, bring):
    root = write({"a": [shape("x", [[1, 1], [9, 1], [9, 7]])]}, imagePath="..\\labelme\\p\\a.png")
    (root / "p").mkdir()
    (root / "a.png").rename(root / "p/a.png")
    (root / "p/b.png").write_bytes(png(PICTURE))
    dataset, done = bring(root, modality="CT")
    assert dataset.cases[0].image.read_bytes() == png(PICTURE)
    assert "1 picture without a file of Labelme left out" in done.notes


@pytest.mark.parametrize(
    ("one", "changes", "said"),
    [
        (shape("x", [[1, 1], [2, 2]]), {}, r"shape 1 \('x'\); it has no list of 3"),
        (shape("x", [[1, 1], [2, 2]], "spiral"), {}, "its type is spiral with 2 points"),
        (shape("x", [[1, 1], [2, 2]], "mask", mask="%%"), {}, "its mask is no picture"),
        (
            shape("x", [[1, 1], [2, 2]], "mask", mask=base64.b64encode(png(PICTURE)).decode()),
            {},
            "another size than its corners",
        ),
        (shape("__ignore__", [[1, 1], [2, 2], [3, 1]]), {}, "no method ignores pixels"),
        (shape("", [[1, 1], [2, 2], [3, 1]]), {}, "a shape without a label"),
        (shape("x", [[1, 1], [9, 1], [9, 7]]), {"imagePath": "z.png"}, "'z.png', which is missing"),
        (shape("x", [[1, 1], [9, 1], [9, 7]]), {"imageHeight": None}, "no imageHeight"),
    ],
)
def test_files_that_cannot_be_obeyed(write, bring, tmp_path, one, changes, said):
    with pytest.raises(UserError, match=said):
        bring(write({"a": [one]}, **changes), modality="CT")
    assert not (tmp_path / "out").exists()


def test_image_data_that_is_no_picture(write, bring, tmp_path):
    root = write({"a": [shape("x", [[1, 1], [9, 1], [9, 7]])]}, imageData="bm8gcGljdHVyZQ==")
    (root / "a.png").unlink()
    with pytest.raises(UserError, match="`imageData` that is no picture"):
        bring(root, modality="CT")
    assert not (tmp_path / "out").exists()
