"""The check finds what is suspicious in a data set that can be used, and summarises its files."""

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medsaga_lib.data.check import check_dataset, report
from medsaga_lib.data.facts import _plain
from medsaga_lib.data.images import read_image

RANDOM = np.random.default_rng(4)
LPS = np.diag([-1.0, -1, 1, 1])


@pytest.fixture
def make(tmp_path):
    """Write a data set of volumes; its cases are (name, values, patient, split)."""

    def write(cases, modality="MR", more="", labels=("organ",), mask=None):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        names = "\n".join(f'{value} = "{name}"' for value, name in enumerate(labels, start=1))
        (tmp_path / "dataset.toml").write_text(
            f'name = "v"\nmodality = "{modality}"\ndimensions = 3\nmasks = "labels"\n{more}\n'
            f"[labels]\n{names}\n"
        )
        rows = ["case,image,mask,patient,split"]
        for name, values, patient, split in cases:
            image = values if isinstance(values, nib.Nifti1Image) else nib.Nifti1Image(values, LPS)
            nib.save(image, tmp_path / f"images/{name}.nii")
            truth = np.ones(image.shape, np.uint8) if mask is None else mask
            shown = nib.Nifti1Image(truth, None, header=image.header)
            shown.set_data_dtype(np.uint8)
            nib.save(shown, tmp_path / f"masks/{name}.nii")
            rows.append(f"{name},images/{name}.nii,masks/{name}.nii,{patient},{split}")
        (tmp_path / "index.csv").write_text("\n".join(rows))
        return tmp_path

    return write


def numbers(dtype=np.int16, low=-1000, high=1000):
    return RANDOM.integers(low, high, (4, 5, 6)).astype(dtype)


def noted(root):
    problems = check_dataset(root)
    assert all(problem.note for problem in problems), problems
    return [str(problem) for problem in problems]


def test_nothing_is_suspicious(make):
    root = make([("a", numbers(), "1", "train"), ("b", numbers(), "2", "test")])
    assert noted(root) == []


@pytest.mark.parametrize(
    ("one", "other"), [("P7", "p7"), ("7", "07"), ("P-007", "p_7"), ("a 1", "A1")]
)
def test_a_patient_written_in_two_ways(make, one, other):
    root = make([("a", numbers(), one, "train"), ("b", numbers(), other, "test")])
    (said,) = noted(root)
    assert f"the patients '{one}', '{other}' may be the same" in said
    same = make([("a", numbers(), one, "train"), ("b", numbers(), other, "train"),
                 ("c", numbers(), "z", "test")])  # fmt: skip
    assert noted(same) == []


@given(st.integers(0, 999), st.integers(0, 999))
def test_numbers_of_patients_are_not_confused(one, other):
    assert (_plain(f"p{one:03}") == _plain(f"P{other}")) == (one == other)
    assert (_plain(f"{one}-{other}") == _plain(f"{other}-{one}")) == (one == other)


def test_a_label_that_no_mask_shows(make):
    cases = [("a", numbers(), "1", "train"), ("b", numbers(), "2", "test")]
    said = noted(make(cases, labels=("organ", "lesion")))
    assert len(said) == 2
    assert "no mask of the split 'train' shows 'lesion'; a network cannot learn it" in said[0]
    assert "no mask of the split 'test' shows 'lesion'; its scores will be empty" in said[1]
    empty = noted(make(cases, mask=np.zeros((4, 5, 6), np.uint8)))
    assert "no mask of the split 'train' shows 'organ'" in empty[0]


def test_ct_that_was_windowed_already(make):
    cases = [("a", numbers(np.uint8, 0, 256), "1", "train"), ("b", numbers(), "2", "test")]
    (said,) = noted(make(cases, "CT"))
    assert "1 of the cases (a): 8 bits cannot hold Hounsfield units" in said
    root = make([("a", numbers(np.int16, 0, 256), "1", "train")], "CT")
    (said,) = noted(root)
    assert "is a CT volume with values from" in said
    assert "add `window = [0, 255]`" in said
    assert (
        noted(make([("a", numbers(np.int16, 0, 256), "1", "train")], "CT", "window = [0, 255]"))
        == []
    )


def test_ct_of_8_bits_is_not_windowed_again(make):
    values = numbers(np.uint8, 0, 256)
    root = make([("a", values, "1", "train")], "CT")
    np.testing.assert_allclose(
        read_image(root / "images/a.nii", "CT").pixels, values.T / 255, atol=1e-6
    )


def test_mixed_numbers_of_bits_under_one_window(make):
    cases = [("a", numbers(np.uint8, 0, 256), "1", "train")]
    cases += [(name, numbers(np.int16, 0, 4096), name, "train") for name in "bc"]
    (said,) = noted(make(cases, more="window = [0, 4095]"))
    assert (
        "1 of the cases (a): uint8, but the others have int16; one window cannot fit both" in said
    )


def test_standardised_mr(make):
    values = RANDOM.normal(size=(20, 20, 20)).astype(np.float32)
    (said,) = noted(make([("a", values, "1", "train")]))
    assert "looks standardised (mean" in said
    assert "add `window = [-" in said
    assert noted(make([("a", values, "1", "train")], more="window = [-4, 4]")) == []


def test_forms_that_are_missing_or_differ(make):
    image = nib.Nifti1Image(numbers(), None)
    image.header.set_qform(None, 0)
    image.header.set_sform(None, 0)
    image.header.set_xyzt_units("mm")
    (said,) = noted(make([("a", image, "1", "train")]))
    assert "gives no orientation; its axes are used as they are" in said
    turned = nib.Nifti1Image(numbers(), LPS)
    turned.header.set_qform(np.diag([1.0, -1, 1, 1]), 1)
    turned.header.set_sform(LPS, 2)
    (said,) = noted(
        make([("a", nib.Nifti1Image(turned.dataobj, None, turned.header), "1", "train")])
    )
    assert "has a qform and an sform that differ by up to 6.0 voxels; the sform is used" in said


def test_equal_images_in_two_splits(make):
    values = numbers()
    (said,) = noted(make([("a", values, "1", "train"), ("b", values, "2", "test")]))
    assert "the images of 'a', 'b' are equal; keep one of them" in said


def test_the_summary_counts(make, medsaga):
    cases = [
        ("a", numbers(), "1", "train"),
        ("b", numbers(), "1", "train"),
        ("c", numbers(), "2", "test"),
    ]
    root = make(cases, labels=("organ", "lesion"))
    found = report(root).summary
    assert found["cases"] == {"train": 2, "val": 0, "test": 1}
    assert found["patients"] == {"train": 1, "val": 0, "test": 1}
    assert found["size"] == [[6, 5, 4], [6, 5, 4]]
    assert found["orientations"] == {"LPS": 3}
    assert found["cases_with_label"]["organ"] == {"train": 2, "val": 0, "test": 1}
    assert found["cases_with_label"]["lesion"] == {"train": 0, "val": 0, "test": 0}
    assert found["pixels_of_label"]["organ"] == {"train": 240, "val": 0, "test": 120}
    assert found["spacing_mm"] == [[1, 1, 1], [1, 1, 1]]  # the files say 1 mm
    assert found["channels"] == {"1": 3}
    assert found["absent_in_training"] == ["lesion"]
    assert found["suspicious_patients"] == []
    assert found["mask_displacement_voxels"] == 0
    code, out, _ = medsaga("data", "check", root, "--json")
    assert code == 0
    assert json.loads(out)["summary"] == json.loads(json.dumps(found))
    code, out, _ = medsaga("data", "check", root)
    assert "cases with organ: train 2, val 0, test 1" in out
    assert "orientations: LPS 3" in out


def test_the_summary_names_what_may_be_wrong(make, medsaga):
    cases = [("a", numbers(), "P7", "train"), ("b", numbers(), "p7", "train")]
    root = make(cases, mask=np.zeros((4, 5, 6), np.uint8))
    shifted = nib.load(root / "masks/a.nii")
    shifted.affine[0, 3] += 0.05
    nib.save(nib.Nifti1Image(np.asarray(shifted.dataobj), shifted.affine), root / "masks/a.nii")
    found = report(root).summary
    assert found["cases_without_any_label"] == {"train": 2, "val": 0, "test": 0}
    assert found["suspicious_patients"] == [["P7", "p7"]]
    assert found["mask_displacement_voxels"] == pytest.approx(0.05, abs=1e-6)
    out = medsaga("data", "check", root)[1]
    assert "cases without any label: train 2, val 0, test 0" in out
    assert "labels absent in training: organ" in out
    assert "perhaps one patient: P7, p7" in out
    assert "masks beside their images: by up to 0.05 voxels" in out


def test_the_label_of_a_bad_mask_counts_nowhere(make):
    root = make([("a", numbers(), "1", "train")], mask=np.full((4, 5, 6), 9, np.uint8))
    found = report(root).summary
    assert found["cases_without_any_label"]["train"] == 0
    assert found["absent_in_training"] == []


def test_the_summary_of_pictures(tmp_path, medsaga):
    (tmp_path / "dataset.toml").write_text(
        'name = "p"\nmodality = "X-ray"\ndimensions = 2\nmasks = "instances"\n'
    )
    Image.fromarray(numbers(np.uint8, 0, 256)[..., 0]).save(tmp_path / "a.png")
    Image.fromarray(np.eye(4, 5, dtype=np.uint8)).save(tmp_path / "m.png")
    (tmp_path / "index.csv").write_text("case,image,mask,split\na,a.png,m.png,train\n")
    code, out, _ = medsaga("data", "check", tmp_path)
    assert code == 0
    assert "size: 4 x 5\n" in out
    assert "cases with object: train 1, val 0, test 0" in out
    assert "spacing" not in out


def test_ct_without_values_below_0(make):
    """Some converters store Hounsfield units + 1024 without a sign, and no intercept."""
    cases = [("a", numbers(np.uint16, 0, 2400), "1", "train")]
    (said,) = noted(make(cases, "CT"))
    assert "is a CT volume without values below 0 (" in said
    assert "if 1024 was added to them, add `window = [864, 1264]` to dataset.toml" in said
    assert noted(make(cases, "CT", "window = [864, 1264]")) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (RANDOM.random((4, 5, 6)).astype(np.float32), "add `window = [0, 1]`"),
        (RANDOM.normal(size=(20, 20, 20)), "for CT volumes makes all of them nearly the same grey"),
    ],
)
def test_ct_of_other_units(make, values, said):
    (found,) = noted(make([("a", values, "1", "train")], "CT"))
    assert said in found


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0, 500, "1 of the cases (b): all values are in the lowest 1/8 of the window [0, 4095]"),
        (5000, 9000, "1 of the cases (b): the mean is above the window [0, 4095]"),
    ],
)
def test_values_that_a_window_makes_black_or_white(make, low, high, said):
    cases = [("a", numbers(low=0, high=4096), "1", "train")]
    cases.append(("b", numbers(low=low, high=high), "2", "train"))
    (found,) = noted(make(cases, more="window = [0, 4095]"))
    assert said in found
    assert found.endswith("or save all images in the same units and number of bits.")


def write_picture(root, mask, more=""):
    (root / "dataset.toml").write_text(
        f'name = "p"\nmodality = "X-ray"\ndimensions = 2\nmasks = "instances"\n{more}'
    )
    image = sitk.GetImageFromArray(numbers(np.uint8, 0, 256)[0].repeat(6, 0).repeat(6, 1))
    image.SetSpacing((0.2, 0.2))
    sitk.WriteImage(image, str(root / "a.mha"))
    Image.fromarray(mask).save(root / "m.png")
    (root / "index.csv").write_text("case,image,mask,split\na,a.mha,m.png,train\n")


OBJECTS = np.zeros((30, 36), np.uint8)
for number, (y, x) in enumerate([(2, 3), (2, 20), (15, 4), (15, 12), (15, 25), (24, 8)], start=1):
    OBJECTS[y : y + 5, x : x + 6] = number


@pytest.mark.parametrize(
    ("mask", "parts"),
    [
        ((OBJECTS > 0).astype(np.uint8), "1 values in 6 separate parts"),  # one number for all
        (OBJECTS + (RANDOM.random(OBJECTS.shape) < 0.3) * np.uint8(1), "7 values in"),  # noise
    ],
)
def test_masks_that_do_not_number_objects(tmp_path, mask, parts):
    write_picture(tmp_path, mask)
    (said,) = noted(tmp_path)
    assert f"m.png: has {parts}" in said
    write_picture(tmp_path, OBJECTS)
    assert noted(tmp_path) == []


def test_two_sizes_of_a_pixel(tmp_path):
    write_picture(tmp_path, OBJECTS, "pixel_size = [0.3, 0.2]\n")
    (said,) = noted(tmp_path)
    assert "a.mha: has a pixel size of 0.2 x 0.2 mm, and dataset.toml 0.3 x 0.2 mm; that" in said
    write_picture(tmp_path, OBJECTS, "pixel_size = [0.2, 0.2]\n")
    assert noted(tmp_path) == []


def test_a_pixel_size_is_not_for_volumes(make):
    (said,) = noted(make([("a", numbers(), "1", "train")], more="pixel_size = [0.3, 0.2]"))
    assert "pixel_size is for images, and is not used for volumes" in said
