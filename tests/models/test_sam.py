"""The SAMs that we build compute what the code of segment_anything and of SAMed computes."""

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medsaga_lib.errors import UserError
from medsaga_lib.models.heads import decode_masks
from medsaga_lib.models.sam import POCKET, SHAPES, VIT_B, build_sam, resize_positions


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_vit_b_has_the_published_counts():
    with torch.device("meta"):
        sam = build_sam("vit_b")
    assert parameters(sam) == 93_735_472
    assert parameters(sam.image_encoder) == 89_670_912
    assert parameters(sam.prompt_encoder) == 6_220
    assert parameters(sam.mask_decoder) == 4_058_340
    assert len(sam.state_dict()) == 314


def test_vit_b_equals_segment_anythings_own_builder():
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        ours, theirs = build_sam("vit_b", attention="original"), sam_model_registry["vit_b"]()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    assert str(ours) == str(theirs)  # every module and its settings


def test_pocket_fits_the_repository():
    with torch.device("meta"):
        assert parameters(build_sam("pocket")) * 2 < 10e6  # fp16, bytes


@pytest.fixture(scope="module")
def vit_b_512():
    with torch.device("meta"):
        full = build_sam("vit_b").state_dict()
    state = resize_positions(oracle.filled(full), VIT_B, 512)
    with torch.device("meta"):
        sam = build_sam("vit_b", 512).eval()
    sam.load_state_dict(state, assign=True)
    return sam


def test_positions_are_resized_as_samed_does(vit_b_512):
    stored = oracle.read("sam_vit_b_encoder_512")["resized"]
    state = vit_b_512.state_dict()
    for key, summary in stored.items():
        oracle.assert_close(summary, state[key], rtol=1e-5)
    assert len(stored) == 3


@torch.no_grad()
def test_encoder_at_512_equals_the_oracle(vit_b_512):
    stored = oracle.read("sam_vit_b_encoder_512")
    result = vit_b_512.image_encoder(oracle.tensor(stored["input"]))
    oracle.assert_close(stored["output"], result)


@pytest.mark.slow
@torch.no_grad()
def test_encoder_at_1024_equals_the_oracle():
    stored = oracle.read("sam_vit_b_encoder_1024")
    with torch.device("meta"):
        encoder = build_sam("vit_b").image_encoder.eval()
    state = oracle.filled(stored["state_dict"])
    state = {k.removeprefix("image_encoder."): v for k, v in state.items()}
    encoder.load_state_dict(state, assign=True)
    oracle.assert_close(stored["output"], encoder(oracle.tensor(stored["input"])))


CASES = ["none", "box", "two_boxes", "points", "points_with_pad_label", "point_and_box",
         "box_and_mask"]  # fmt: skip


@pytest.fixture(scope="module")
def decoder_oracle():
    stored = oracle.read("sam_prompt_encoder_mask_decoder")
    sam = build_sam("vit_b").eval()
    sam.load_state_dict(oracle.filled(stored["state_dict"]), strict=False)
    return stored, sam


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_prompts_and_decoder_equal_the_oracle(decoder_oracle, name):
    stored, sam = decoder_oracle
    case = stored["cases"][name]
    points = None
    if case["points"] is not None:
        points = torch.tensor(case["points"]), torch.tensor(case["labels"])
    boxes = None if case["boxes"] is None else torch.tensor(case["boxes"])
    prompt = oracle.tensor(stored["mask_prompt"]) if case["mask_prompt"] else None
    sparse, dense = sam.prompt_encoder(points, boxes, prompt)
    if "mean" in case["sparse"]:
        oracle.assert_close(case["sparse"], sparse)
    image_pe = sam.prompt_encoder.get_dense_pe()
    oracle.assert_close(stored["dense_pe"], image_pe)

    embedding = oracle.tensor(stored["image_embedding"])
    pairs = embedding.expand(len(sparse), -1, -1, -1)
    masks, iou = decode_masks(sam.mask_decoder, pairs, image_pe, sparse, dense)
    for kind, tokens in (("single", slice(0, 1)), ("multi", slice(1, None))):
        oracle.assert_close(case[kind]["masks"], masks[:, tokens])
        oracle.assert_close(case[kind]["iou"], iou[:, tokens])


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 12))
def test_any_multiple_of_16_works(patches):
    sam = build_sam("pocket", 16 * patches).eval()
    sam.load_state_dict(resize_positions(build_sam("pocket").state_dict(), POCKET, 16 * patches))
    with torch.no_grad():
        embedding = sam.image_encoder(torch.zeros(1, 3, 16 * patches, 16 * patches))
    assert embedding.shape == (1, POCKET.embedding, patches, patches)


def test_positions_that_fit_stay_untouched():
    state = build_sam("pocket").state_dict()
    resized = resize_positions(state, POCKET, POCKET.size)
    assert all(resized[k] is state[k] for k in state)


@pytest.mark.parametrize("size", [0, -16, 100, 1000])
def test_a_size_that_is_no_multiple_of_16_is_refused(size):
    with pytest.raises(UserError, match=f"Input size {size} .*multiple of 16"):
        build_sam("pocket", size)


def test_an_unknown_backbone_names_the_known_ones():
    with pytest.raises(UserError, match=f"'vit_z'.*{', '.join(SHAPES)}"):
        build_sam("vit_z")
