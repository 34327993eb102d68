"""Samples are squeezed to squares, with their labels; volumes give their labelled slices."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from medsaga_lib.data import samples as samples_module
from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.samples import Samples, squeeze


def test_label_values_with_gaps_become_classes(tiny):
    """BraTS has the labels 1, 2 and 4, and the loss needs consecutive classes."""
    before = [
        sample["label"] for sample in Samples(open_dataset(tiny), open_dataset(tiny).cases, 8)
    ]
    text = (tiny / "dataset.toml").read_text()
    (tiny / "dataset.toml").write_text(text.replace("1 =", "3 =").replace("2 =", "7 ="))
    for case in open_dataset(tiny).cases:
        if case.mask is not None:
            mask = np.array([0, 3, 7], np.uint8)[np.asarray(Image.open(case.mask))]
            Image.fromarray(mask).save(case.mask)
    dataset = open_dataset(tiny)
    assert dataset.labels == {3: "right lung", 7: "left lung"}
    after = [sample["label"] for sample in Samples(dataset, dataset.cases, 8)]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_sample_of_a_grey_picture(tiny):
    dataset = open_dataset(tiny)
    samples = Samples(dataset, dataset.split("train"), 16)
    assert len(samples) == 4
    sample = samples[1]
    assert sample["image"].shape == (3, 16, 16)
    assert sample["image"].dtype == torch.float32
    assert sample["label"].shape == (16, 16)
    assert sample["label"].dtype == torch.int64
    assert set(sample["label"].unique().tolist()) == {0, 1, 2}
    assert samples.key(1) == "case1"
    assert samples.case(1) == dataset.cases[1]
    stored = Image.open(dataset.cases[1].image).convert("F")
    expected = np.asarray(stored.resize((16, 16), Image.Resampling.BILINEAR)) / 255
    for channel in sample["image"]:
        np.testing.assert_allclose(channel, expected, atol=1e-5)
    mask = Image.open(dataset.cases[1].mask).resize((16, 16), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(sample["label"], np.asarray(mask))


@given(st.integers(2, 40), st.integers(2, 40), st.integers(2, 40), st.integers(0, 99))
def test_squeeze_is_pillows(height, width, size, seed):
    """Pillow's own filters are an independent reference: antialiased bilinear, and nearest."""
    random = np.random.default_rng(seed)
    image = random.random((height, width), dtype=np.float32)
    label = random.integers(0, 5, (height, width), dtype=np.uint8)
    ours, near = squeeze(torch.from_numpy(image)[None, None], torch.from_numpy(label)[None], size)
    theirs = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(ours[0, 0], np.asarray(theirs), atol=1e-5)
    assert near.dtype == torch.uint8
    rows = np.floor((np.arange(size) + 0.5) * height / size).astype(int)
    columns = np.floor((np.arange(size) + 0.5) * width / size).astype(int)
    exact = [(np.arange(size) + 0.5) * length / size % 1 for length in (height, width)]
    clear = [np.abs(x - np.round(x)) > 1e-4 for x in exact]  # float32 may round a tie either way
    both = np.ix_(*clear)
    np.testing.assert_array_equal(near[0].numpy()[both], label[np.ix_(rows, columns)][both])


def test_colour_is_kept(tiny):
    colour = np.zeros((24, 32, 3), np.uint8)
    colour[..., 0], colour[..., 2] = 255, 51
    Image.fromarray(colour).save(tiny / "images/case0.png")
    dataset = open_dataset(tiny)
    image = Samples(dataset, dataset.cases[:1], 8)[0]["image"]
    torch.testing.assert_close(image.mean((1, 2)), torch.tensor([1.0, 0.0, 0.2]))


@pytest.mark.parametrize("size", [8, 32])  # squeezed before and after it is kept in memory
def test_volume_gives_its_labelled_slices(volumes, size):
    samples = Samples(volumes, volumes.cases, size)
    assert [samples.key(n) for n in range(len(samples))] == ["a/002", "a/003", "a/006"]
    for index, number in enumerate((2, 3, 6)):
        image, label = samples[index]["image"], samples[index]["label"]
        expected = torch.full((3, size, size), number * 40 / 400)  # of the CT window
        torch.testing.assert_close(image, expected)
        assert label.any()
    middle = samples[0]["label"][int(size * 0.5), int(size * 0.37)]  # y 5 of 10, x 4.4 of 12
    assert middle == 1


def test_instances_become_one_label(tiny):
    text = (tiny / "dataset.toml").read_text().split("[labels]")[0]
    (tiny / "dataset.toml").write_text(text.replace('"labels"', '"instances"'))
    ids = np.zeros((24, 32), np.uint16)
    ids[2:9, 3:20], ids[12:20, 5:30] = 300, 7
    Image.fromarray(ids).save(tiny / "masks/case0.png")
    dataset = open_dataset(tiny)
    label = Samples(dataset, dataset.cases[:1], 24)[0]["label"]
    assert set(label.unique().tolist()) == {0, 1}


def test_decoded_files_are_kept(tiny, monkeypatch):
    dataset = open_dataset(tiny)
    samples = Samples(dataset, dataset.cases, 16)
    first = samples[0]["image"].clone()
    (tiny / "images/case0.png").unlink()
    torch.testing.assert_close(samples[0]["image"], first)


def test_what_does_not_fit_in_memory_is_read_again(tiny, monkeypatch):
    dataset = open_dataset(tiny)
    kept = Samples(dataset, dataset.cases, 16)
    monkeypatch.setattr(samples_module, "CACHE_BYTES", 3000)  # two samples of 16 x 16 x 5 bytes
    squeezed = Samples(dataset, dataset.cases, 16)
    for index in range(6):
        torch.testing.assert_close(squeezed[index], kept[index])
    (tiny / "images/case5.png").unlink()
    with pytest.raises(Exception, match=r"case5\.png: is missing"):
        squeezed[5]


def test_batches_of_a_loader(tiny):
    dataset = open_dataset(tiny)
    batch = next(iter(DataLoader(Samples(dataset, dataset.cases, 16), batch_size=6)))
    assert batch["image"].shape == (6, 3, 16, 16)
    assert batch["label"].shape == (6, 16, 16)


def test_real_slices(real_data):
    dataset = open_dataset("mr_dwi_stroke_isles22")
    samples = Samples(dataset, dataset.cases, 112)
    assert len(samples) == 22  # slices with an infarct, of its SOURCE.md
    voxels = sum(int(samples[n]["label"].sum()) for n in range(22))
    assert voxels == 523
