"""Against LiteMedSAM's inference script (`litemedsam_preprocessing.json`)."""

import numpy as np
import oracle
import pytest
import torch

from medsaga_lib.data.litemedsam import network_input, resize_area, resize_box
from medsaga_lib.data.longest_side import Frame

STORED = oracle.read("litemedsam_preprocessing")
PICTURES = STORED["image_2d"]


def picture(described):
    return oracle.fill.integers(described["tag"], described["shape"], 256).astype(np.uint8)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_and_boxes(name):
    case = PICTURES[name]
    image = picture(case["image"])
    frame = Frame(image.shape[:2], 256)
    assert list(frame.inner) == case["new_size"]
    resized = resize_area(image, frame.inner)
    sample = resized.reshape(-1)[oracle.fill.sample_indices(resized.size)].astype(int)
    assert sample.tolist() == case["resized_uint8"]["sample"]
    stored = case["network_input"]
    given = network_input(image)
    sample = given.reshape(-1)[oracle.fill.sample_indices(given.size)]
    assert [1, *given.shape] == stored["shape"]
    np.testing.assert_allclose(sample, stored["sample"], rtol=0, atol=1.01 / 200)
    assert given.mean() == pytest.approx(stored["mean"], abs=1e-3)
    for box, wanted in zip(case["boxes"], case["boxes_256"], strict=True):
        assert resize_box(box, image.shape[:2]).tolist() == wanted


def test_other_numbers_than_grey_levels_are_kept():
    image = picture(PICTURES["300x200"]["image"])
    expected = network_input(image)
    for scaled in (image / 255, image.astype(np.float32) * 7 - 3, image.astype(np.uint16) * 200):
        np.testing.assert_allclose(network_input(scaled), expected, atol=1.01 / 200)


def test_a_very_long_picture_keeps_a_row():
    assert Frame((1, 600), 256).inner == (1, 256)
    assert network_input(np.arange(600)[None, :, None].repeat(3, 2).astype(np.uint16)).max() == 1


def test_a_constant_picture_is_black():
    assert not network_input(np.full((60, 90, 3), 7, np.uint8)).any()


@pytest.mark.parametrize("case", STORED["resize_box"])
def test_a_box_is_cut_off(case):
    assert resize_box(case["box"], case["original_size"]).tolist() == case["result"]


# The oracle's third case is one row off the size that the script itself gives such a picture
@pytest.mark.parametrize("case", STORED["postprocess"]["cases"][:2])
def test_logits_are_enlarged_as_published(case):
    logits = oracle.tensor(STORED["postprocess"]["logits"])[0, 0]
    frame = Frame(tuple(case["original_size"]), 256)
    assert list(frame.inner) == case["new_size"]
    large = frame.enlarging(0, 256) @ logits @ frame.enlarging(1, 256).T
    oracle.assert_close(case["output"], large[None, None])
    assert int((large > 0).sum()) == case["mask_pixels"]


@pytest.mark.parametrize("shape", [(97, 131), (131, 97), (300, 200), (64, 64)])
def test_frames_place_pictures_as_segment_anything_does(shape):
    from segment_anything.utils.transforms import ResizeLongestSide

    transform, frame = ResizeLongestSide(256), Frame(shape, 256)
    assert frame.inner == transform.get_preprocess_shape(*shape, 256)
    boxes = torch.tensor([[3.0, 5, 60, 41], [0, 0, shape[1], shape[0]]])
    torch.testing.assert_close(frame.boxes(boxes), transform.apply_boxes_torch(boxes, shape))
