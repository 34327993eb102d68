"""The two modules for export give the masks and scores of segment_anything's decoder."""

import numpy as np
import pytest
import torch

from medsaga_lib.inference.exported import parts_of, rounded, to_16_bits
from medsaga_lib.models.heads import embed_images
from medsaga_lib.models.sam import build_sam


@pytest.fixture(scope="module")
def sam():
    """Random weights; running statistics of batch normalisation that are not the initial ones."""
    torch.manual_seed(0)
    sam = build_sam("lite_medsam", 64).eval()
    for name, buffer in sam.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return sam


@torch.no_grad()
def test_masks_and_scores_are_segment_anythings(sam):
    image, box = torch.rand(1, 3, 64, 64), torch.tensor([[5.0, 8.0, 40.0, 50.0]])
    parts = parts_of(sam)
    logits, score = parts.box(box, *parts.image(image))
    sparse, dense = sam.prompt_encoder(None, box, None)
    given = embed_images(sam, image), sam.prompt_encoder.get_dense_pe(), sparse, dense
    masks, scores = sam.mask_decoder(*given, multimask_output=False)
    torch.testing.assert_close(logits, masks[0, 0], atol=1e-4 * masks.std().item(), rtol=0)
    torch.testing.assert_close(score, scores[0])


def test_a_box_without_a_size_is_segment_anythings_point(sam):
    image = torch.rand(1, 3, sam.image_encoder.img_size, sam.image_encoder.img_size)
    place = torch.tensor([[17.0, 40.0]])
    with torch.no_grad():
        parts = parts_of(sam)
        logits, score = parts.box(place.repeat(1, 2), *parts.image(image))
        points = place[None], torch.ones(1, 1, dtype=torch.int64)
        sparse, dense = sam.prompt_encoder(points, None, None)
        position = sam.prompt_encoder.get_dense_pe()
        embedding = embed_images(sam, image)
        prompts = embedding, position, sparse, dense
        wanted, wanted_score = sam.mask_decoder(*prompts, multimask_output=False)
    torch.testing.assert_close(logits, wanted[0, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(score, wanted_score[0], rtol=1e-4, atol=1e-4)


def test_the_model_itself_stays_as_it_was(sam):
    before = {name: tensor.clone() for name, tensor in sam.state_dict().items()}
    parts = rounded(parts_of(sam))
    assert all(torch.equal(tensor, before[name]) for name, tensor in sam.state_dict().items())
    assert parts.image.sam is parts.box.sam


def test_16_bits_are_nearer_than_float16():
    torch.manual_seed(0)
    for values in (torch.randn(8, 30, 3, 3), torch.randn(30, 8) * torch.rand(8)):
        whole, scales = to_16_bits(values.numpy())
        assert scales.size in values.shape
        error = torch.from_numpy(whole * scales) - values
        # half a step of the scale, and the rounding of float32
        assert (error.abs() <= 0.5001 * torch.from_numpy(scales)).all()
        assert error.square().mean() < 0.2 * (values.half().float() - values).square().mean()


def test_a_channel_of_zeros_stays_zero():
    values = np.zeros((3, 4), np.float32)
    values[1] = 2
    whole, scales = to_16_bits(values)
    assert np.allclose(whole * scales, values)
