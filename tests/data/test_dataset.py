"""A data set's splits, its one-line description, and the labels of a network trained on it."""

import pandas as pd
import pytest

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.errors import UserError


def test_unknown_split(tiny):
    with pytest.raises(UserError, match="no split is called 'training'; use train, val, test"):
        open_dataset(tiny).split("training")


def test_labels_that_differ_by_case_cannot_be_trained(tiny):
    text = (tiny / "dataset.toml").read_text().split("[labels]")[0]
    (tiny / "dataset.toml").write_text(text)
    (tiny / "labels.json").write_text("{}")
    dataset = open_dataset(tiny)
    assert dataset.labels == {}
    with pytest.raises(UserError, match=r"differ from case to case.*add \[labels\]"):
        dataset.require_labels()


def test_the_description_counts_images_and_patients(tiny):
    assert open_dataset(tiny).describe() == "tiny: 6 images of 5 patients, CC0"
    index = tiny / "index.csv"
    table = pd.read_csv(index)
    table.drop(columns="patient").assign(split="train").to_csv(index, index=False)
    assert open_dataset(tiny).describe() == "tiny: 6 images, CC0"


def test_the_description_calls_3d_images_volumes(volumes):
    assert volumes.describe().startswith("v: 1 volume, ")
