"""COCO's instances: objects as pycocotools draws them, splits, and files that are refused."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from medsaga_lib.data.check import check_dataset
from medsaga_lib.data.importing.shapes import coco_mask
from medsaga_lib.errors import UserError

RANDOM = np.random.default_rng(8)
SIDES = (20, 30)  # H, W
BIG = [[2, 2, 12, 2, 12, 12, 2, 12]]
SMALL = [[8, 8, 15, 8, 15, 11, 8, 11], [20, 1, 25, 1, 25, 5, 20, 5]]  # one object in two parts
COUNTS = [5 * 20, 10 * 20, 15 * 20]  # columns 5 to 14


def annotation(number, image, category, segmentation, **more):
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation,
            "iscrowd": 0, **more}  # fmt: skip


def document(names, annotations, ids=(1, 2)):
    return {
        "info": {"description": "Cells", "year": 2021, "contributor": "Lab"},
        "licenses": [{"id": 1, "name": "CC BY 4.0"}, {"id": 2, "name": "CC BY 4.0"}],
        "images": [
            {"id": number, "file_name": name, "height": SIDES[0], "width": SIDES[1]}
            for number, name in enumerate(names)
        ],
        "annotations": annotations,
        "categories": [{"id": ids[0], "name": "cell"}, {"id": ids[1], "name": "nucleus"}],
    }


@pytest.fixture
def write(tmp_path):
    """Write pictures and the JSON files over them; returns the folder."""
    root = tmp_path / "coco"

    def run(pictures, documents):
        for name in pictures:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(RANDOM.integers(0, 256, (*SIDES, 3), np.uint8)).save(path)
        for name, content in documents.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        return root

    return run


def mask_of(dataset, name):
    (case,) = [case for case in dataset.cases if case.name == name]
    return np.asarray(Image.open(case.mask))


def drawn(segmentation):
    return coco.decode(coco.merge(coco.frPyObjects(segmentation, *SIDES))).astype(bool)


def runs(mask):
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(SIDES), "counts": encoded["counts"].decode()}


def test_objects_lie_over_each_other_by_size(write, bring):
    objects = [
        annotation(1, 0, 2, SMALL),
        annotation(2, 0, 1, BIG),
        annotation(3, 0, 1, {"size": list(SIDES), "counts": COUNTS}, iscrowd=1),
        annotation(4, 1, 2, runs(np.eye(*SIDES))),
    ]
    names = ["a.png", "b.png", "c.png", "d.png"]
    root = write([f"images/{n}" for n in names], {"annotations/i.json": document(names, objects)})
    dataset, done = bring(root, modality="microscopy")
    assert done.layout == "coco"
    assert dataset.labels == {1: "cell", 2: "nucleus"}
    assert dataset.licence == "CC BY 4.0"
    assert dataset.citation == "Lab, Cells, 2021"
    crowd = np.zeros(SIDES, bool)
    crowd[:, 5:15] = True
    expected = np.where(drawn(SMALL), 2, np.where(drawn(BIG) | crowd, 1, 0))
    np.testing.assert_array_equal(mask_of(dataset, "a"), expected)
    np.testing.assert_array_equal(mask_of(dataset, "b"), 2 * np.eye(*SIDES))
    assert not mask_of(dataset, "c").any()
    shared = int((drawn(SMALL) & (drawn(BIG) | crowd)).sum())
    assert f"pixels of several objects, which show the smallest: {shared}" in done.notes
    assert "crowds, which lie below the other objects: 1" in done.notes
    assert "pictures without an object, whose mask is empty: 2" in done.notes
    for case in dataset.cases:
        assert case.image.read_bytes() == (root / "images" / case.image.name).read_bytes()
    assert all(problem.note for problem in check_dataset(dataset.root))


def test_each_object_its_value(write, bring):
    objects = [annotation(1, 0, 1, BIG), annotation(2, 0, 1, SMALL)]
    root = write(["a.png"], {"i.json": document(["a.png"], objects)})
    dataset, _ = bring(root, modality="microscopy", instances=True)
    expected = np.where(drawn(SMALL), 2, drawn(BIG))
    np.testing.assert_array_equal(mask_of(dataset, "a"), expected)
    assert (dataset.masks, dataset.labels) == ("instances", {1: "object"})


def test_ids_that_are_no_label_values_are_renumbered(write, bring):
    objects = [annotation(1, 0, 0, BIG), annotation(2, 0, 70000, SMALL)]
    root = write(["a.png"], {"i.json": document(["a.png"], objects, (0, 70000))})
    dataset, _ = bring(root, modality="microscopy")
    assert dataset.labels == {1: "cell", 2: "nucleus"}
    np.testing.assert_array_equal(mask_of(dataset, "a") == 2, drawn(SMALL))


def test_categories_without_objects_are_left_out(write, bring):
    root = write(["a.png"], {"i.json": document(["a.png"], [annotation(1, 0, 5, BIG)], (0, 5))})
    assert bring(root, modality="microscopy")[0].labels == {5: "nucleus"}


def test_labels_choose_the_values(write, bring):
    objects = [annotation(1, 0, 1, BIG), annotation(2, 0, 2, SMALL)]
    root = write(["a.png"], {"i.json": document(["a.png"], objects)})
    with pytest.raises(UserError, match="differ in cell, rock; the classes of the source are cell"):
        bring(root, modality="microscopy", labels={4: "rock", 3: "nucleus"})
    dataset, _ = bring(root, modality="microscopy", labels={4: "cell", 3: "nucleus"})
    assert dataset.labels == {3: "nucleus", 4: "cell"}
    np.testing.assert_array_equal(mask_of(dataset, "a") == 3, drawn(SMALL))


def test_files_for_training_and_validation_give_splits(write, bring):
    pictures = ["train2017/1.png", "train2017/2.png", "val2017/1.png"]
    parts = {
        "annotations/instances_train2017.json": document(
            ["1.png", "2.png"], [annotation(1, 0, 1, BIG), annotation(2, 1, 2, BIG)]
        ),
        "annotations/instances_val2017.json": document(["1.png"], [annotation(1, 0, 1, SMALL)]),
        "annotations/captions_train2017.json": {"images": [], "annotations": []},
    }
    root = write(pictures, parts)
    dataset, _ = bring(root, modality="microscopy")
    assert {case.name: case.split for case in dataset.cases} == {
        "train2017_1": "train", "2": "train", "val2017_1": "val",
    }  # fmt: skip
    np.testing.assert_array_equal(mask_of(dataset, "val2017_1"), drawn(SMALL))


def test_one_json_file_is_a_source(write, bring):
    root = write(
        ["train/1.png", "val/2.png"],
        {"annotations/a.json": document(["1.png"], [annotation(1, 0, 1, BIG)]),
         "annotations/b.json": document(["1.png"], [annotation(1, 0, 1, BIG)])},
    )  # fmt: skip
    with pytest.raises(UserError, match=r"b.json: lists 1.png, as a.json does; give one"):
        bring(root, modality="microscopy")
    dataset, _ = bring(root / "annotations/a.json", modality="microscopy")
    assert [case.name for case in dataset.cases] == ["1"]


def test_pictures_without_annotations_have_no_masks(write, bring):
    tests = document(["c.png"], [])
    del tests["annotations"]
    parts = {"train.json": document(["a.png"], [annotation(1, 0, 1, BIG)]), "test.json": tests}
    dataset, _ = bring(write(["a.png", "c.png"], parts), modality="microscopy")
    assert [(case.name, case.mask) for case in dataset.split("test")] == [("c", None)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["annotations"][0].update(segmentation=[]), "annotation 1; it has no polygon"),
        (lambda d: d["annotations"][0].pop("segmentation"), "annotation 1; it is neither"),
        (
            lambda d: d["annotations"][0].update(category_id=9),
            "annotation 1 of an unknown category",
        ),
        (lambda d: d["annotations"][0].update(image_id=9), "of an image that it does not list"),
        (lambda d: d["images"][0].update(file_name="z.png"), "'z.png', which is missing"),
        (lambda d: d["images"][0].update(height="20"), "give it id, file_name, height"),
        (lambda d: d["images"][0].update(height=10**9), "give it id, file_name, height"),
        (lambda d: d["images"].append(d["images"][0]), "has the image 0 twice"),
        (lambda d: d["categories"].append("cell"), "has the category 'cell'"),
    ],
)
def test_documents_that_cannot_be_obeyed(write, bring, tmp_path, change, said):
    content = document(["a.png"], [annotation(1, 0, 1, BIG)])
    change(content)
    root = write(["a.png"], {"i.json": content})
    with pytest.raises(UserError, match=said):
        bring(root, modality="microscopy")
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]


def places(content, path=()):
    """The paths of all values in a document."""
    yield from [path] if path else []
    if isinstance(content, list):
        content = dict(enumerate(content))
    for key, value in content.items() if isinstance(content, dict) else ():
        yield from places(value, (*path, key))


@pytest.mark.parametrize("value", [None, [[]]], ids=str)
def test_any_value_in_any_place_is_obeyed_or_refused(write, bring, tmp_path, value):
    whole = document(
        ["a.png"], [annotation(1, 0, 1, BIG), annotation(2, 0, 2, runs(np.eye(*SIDES)))]
    )
    root = write(["a.png"], {})
    refused = 0
    for path in list(places(whole)):
        content = json.loads(json.dumps(whole))
        place = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        (root / "i.json").write_text(json.dumps(content))
        try:
            bring(root, layout="coco", modality="microscopy")
        except UserError:
            refused += 1
            assert not (tmp_path / "out").exists()
        else:
            shutil.rmtree(tmp_path / "out")
    assert refused > 15


def test_a_damaged_file_is_no_reason_to_go_on(write, bring):
    root = write(["a.png"], {"i.json": document(["a.png"], [annotation(1, 0, 1, BIG)])})
    (root / "j.json").write_text('{"images": [')
    with pytest.raises(UserError, match=r"j.json: cannot be read as JSON"):
        bring(root, modality="microscopy")


@pytest.mark.parametrize(
    ("turn", "size", "fits"),
    [(1, SIDES, True), (6, SIDES[::-1], True), (6, SIDES, False), (3, SIDES, False)],
)
def test_pictures_that_are_to_be_turned(write, bring, turn, size, fits):
    content = document(["a.jpg"], [annotation(1, 0, 1, BIG)])
    content["images"][0].update(height=size[0], width=size[1])
    root = write(["a.jpg"], {"i.json": content})
    exif = Image.Exif()
    exif[274] = turn
    Image.open(root / "a.jpg").save(root / "a.jpg", exif=exif)
    if fits:
        dataset, _ = bring(root, modality="dermoscopy")
        assert all(problem.note for problem in check_dataset(dataset.root))
    else:
        with pytest.raises(UserError, match=f"is to be turned .orientation {turn}."):
            bring(root, modality="dermoscopy")


def test_polygons_of_a_picture_are_one_object():
    np.testing.assert_array_equal(coco_mask(SMALL, SIDES), drawn(SMALL))
