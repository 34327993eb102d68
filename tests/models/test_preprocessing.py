"""segment_anything's own preprocessing and mask utilities give the oracle's numbers here.

They need torchvision, so this also shows that what `compat` supplies is enough for them.
"""

import numpy as np
import oracle
import pytest
import torch

from medsaga_lib.models.sam import build_sam

STORED = oracle.read("sam_preprocessing_amg")
SIZES = list(STORED["sizes"])
WITH_IMAGE = [name for name in SIZES if "image" in STORED["sizes"][name]]


def picture(described):
    return oracle.fill.integers(described["tag"], described["shape"], 256).astype(np.uint8)


@pytest.mark.parametrize("name", SIZES)
def test_coordinates_and_boxes(name):
    from segment_anything.utils.transforms import ResizeLongestSide

    case = STORED["sizes"][name]
    height, width = map(int, name.split("x"))
    transform = ResizeLongestSide(1024)
    assert list(transform.get_preprocess_shape(height, width, 1024)) == case["preprocess_shape"]
    points = transform.apply_coords(np.array(case["points"]), (height, width))
    np.testing.assert_allclose(points, case["points_out"], rtol=1e-5)
    boxes = transform.apply_boxes(np.array(case["boxes"]), (height, width))
    np.testing.assert_allclose(boxes.reshape(-1, 4), case["boxes_out"], rtol=1e-5)


@pytest.mark.parametrize("name", WITH_IMAGE)
def test_pictures(name):
    from segment_anything.utils.transforms import ResizeLongestSide

    case = STORED["sizes"][name]
    resized = ResizeLongestSide(1024).apply_image(picture(case["image"]))
    stored = case["resized_uint8"]
    sample = resized.reshape(-1)[oracle.fill.sample_indices(resized.size)].astype(int)
    assert list(resized.shape) == stored["shape"]
    assert np.abs(sample - np.array(stored["sample"])).max() <= 1  # a grey level

    with torch.device("meta"):
        sam = build_sam("vit_b")
    sam.pixel_mean = torch.tensor([123.675, 116.28, 103.53])[:, None, None]  # as in Sam's defaults
    sam.pixel_std = torch.tensor([58.395, 57.12, 57.375])[:, None, None]
    pixels = torch.from_numpy(resized).permute(2, 0, 1)[None].contiguous()
    oracle.assert_close(case["network_input"], sam.preprocess(pixels), rtol=0.05)

    low = oracle.tensor(STORED["low_res_logits"])
    height, width = map(int, name.split("x"))
    masks = sam.postprocess_masks(low, tuple(case["preprocess_shape"]), (height, width))
    oracle.assert_close(case["postprocess_masks_of_low_res"], masks, rtol=1e-4)


def test_grids_and_crops():
    from segment_anything.utils import amg

    np.testing.assert_allclose(amg.build_point_grid(4), STORED["point_grid_4"])
    grids = amg.build_all_layer_point_grids(32, 2, 2)
    assert [len(g) for g in grids] == STORED["layer_point_grid_sizes_32_layers2_scale2"]
    boxes, layers = amg.generate_crop_boxes((300, 500), 2, 512 / 1500)
    assert boxes == STORED["crop_boxes_300x500_2_layers"]["boxes"]
    assert layers == STORED["crop_boxes_300x500_2_layers"]["layers"]


def test_boxes_of_masks():
    from segment_anything.utils.amg import batched_mask_to_box, mask_to_rle_pytorch

    masks = torch.zeros(3, 20, 24, dtype=torch.bool)
    masks[0, 3:9, 4:20] = True
    masks[1, 0, 0] = masks[1, 19, 23] = True
    assert batched_mask_to_box(masks).tolist() == STORED["mask_to_box"]["boxes"]
    assert mask_to_rle_pytorch(masks) == STORED["mask_to_box"]["rle"]
