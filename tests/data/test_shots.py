"""The number of labelled images: given as a number or as a share, and chosen by a seed."""

import nibabel
import numpy as np
import pytest

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.shots import choose_shots, count_shots
from medsaga_lib.errors import UserError


@pytest.mark.parametrize(
    ("text", "count"), [("3", 3), ("25%", 1), ("26%", 2), ("0.5%", 1), (" 50 %", 2), ("100%", 4)]
)
def test_a_share_of_four_pictures_is_rounded_up(tiny, text, count):
    assert count_shots(open_dataset(tiny), text) == count


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "0%", "101%", "nan%", "few", "%", "inf%"])
def test_what_is_no_number_of_images_is_refused(tiny, text):
    with pytest.raises(UserError, match=r"is not a number of images; write 32, or a share such"):
        count_shots(open_dataset(tiny), text)


def test_of_volumes_the_labelled_slices_count(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "dataset.toml").write_text(
        'name = "v"\nmodality = "MR"\ndimensions = 3\nmasks = "labels"\n[labels]\n1 = "organ"\n'
    )
    rows = ["case,image,mask,patient,split"]
    for case, labelled in (("a", 4), ("b", 3)):
        mask = np.zeros((6, 5, 8), np.uint8)
        mask[2, 2, :labelled] = 1
        for folder, values in (("images", np.ones(mask.shape)), ("masks", mask)):
            image = nibabel.Nifti1Image(values, np.eye(4))
            image.to_filename(tmp_path / folder / f"{case}.nii")
        rows.append(f"{case},images/{case}.nii,masks/{case}.nii,{case},train")
    (tmp_path / "index.csv").write_text("\n".join(rows))
    dataset = open_dataset(tmp_path)
    assert count_shots(dataset, "100%") == 7
    assert len(choose_shots(dataset, count_shots(dataset, "100%"), 16, seed=0)) == 7
    assert count_shots(dataset, "50%") == 4
