"""Where an image lies in the network's input, and how masks come back: as in segment_anything."""

import oracle
import pytest
import torch
from torch.nn.functional import interpolate

from medsaga_lib.models.frame import Frame
from medsaga_lib.models.sam import build_sam

PUBLISHED = oracle.read("litemedsam_preprocessing")["postprocess"]
SIZES = [(64, 64), (256, 100), (300, 200), (33, 517)]


@pytest.fixture(scope="module")
def sam():
    return build_sam("pocket")


def logits_of(cells):
    return torch.randn(1, 1, cells, cells, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(97, 131), (131, 97), (300, 200), (64, 64)])
def test_frames_place_pictures_as_segment_anything_does(shape):
    from segment_anything.utils.transforms import ResizeLongestSide

    transform, frame = ResizeLongestSide(256), Frame(shape, 256)
    assert frame.inner == transform.get_preprocess_shape(*shape, 256)
    boxes = torch.tensor([[3.0, 5, 60, 41], [0, 0, shape[1], shape[0]]])
    torch.testing.assert_close(frame.boxes(boxes), transform.apply_boxes_torch(boxes, shape))


def test_a_very_long_image_keeps_a_row():
    assert Frame((1, 600), 256).inner == (1, 256)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cells", [64, 256])
def test_enlarging_is_segment_anythings(sam, size, cells):
    logits, frame = logits_of(cells), Frame(size, 256)
    wanted = sam.postprocess_masks(logits, frame.inner, size)[0, 0]
    ours = frame.enlarging(0, cells) @ logits[0, 0] @ frame.enlarging(1, cells).T
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(frame.enlarge(logits)[0, 0], wanted, atol=1e-5, rtol=0)


# The oracle's third case is one row off the size that the script itself gives such a picture
@pytest.mark.parametrize("case", PUBLISHED["cases"][:2])
def test_logits_are_enlarged_as_published(case):
    logits = oracle.tensor(PUBLISHED["logits"])[0, 0]
    frame = Frame(tuple(case["original_size"]), 256)
    assert list(frame.inner) == case["new_size"]
    large = frame.enlarging(0, 256) @ logits @ frame.enlarging(1, 256).T
    oracle.assert_close(case["output"], large[None, None])
    assert int((large > 0).sum()) == case["mask_pixels"]


@pytest.mark.parametrize("size", SIZES)
def test_a_squeezed_image_fills_the_input(size):
    frame, logits = Frame(size, 128, squeezed=True), logits_of(32)
    assert frame.inner == (128, 128)
    corner = torch.tensor([size[1], size[0]])
    torch.testing.assert_close(frame.coordinates(corner), torch.tensor([128.0, 128.0]))
    wanted = interpolate(logits, size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(frame.enlarge(logits), wanted)
