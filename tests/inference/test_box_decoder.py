"""Many boxes at once give the masks that segment_anything gives one after the other."""

import copy

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import discs

from medsaga_lib.bench.boxes import iou, load_backbone, one_by_one
from medsaga_lib.inference import box_decoder
from medsaga_lib.inference.box_decoder import decode_boxes, segment_boxes
from medsaga_lib.models.frame import Frame
from medsaga_lib.models.sam import build_sam

SIZE = (90, 120)


@pytest.fixture(scope="module")
def sam():
    """Random weights and an image that make masks with many borders."""
    torch.manual_seed(0)
    return build_sam("pocket").eval()


@pytest.fixture(scope="module")
def embedding():
    return 3 * torch.randn(1, 128, 16, 16, generator=torch.Generator().manual_seed(1))


def random_boxes(count, size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.random((count, 2, 2)) * (size[1], size[0])
    return torch.from_numpy(np.sort(corners, axis=1).reshape(count, 4)).float()


def published(sam, embedding, boxes):
    position = sam.prompt_encoder.get_dense_pe()
    with torch.no_grad():
        for box in boxes:
            sparse, dense = sam.prompt_encoder(None, box[None], None)
            yield sam.mask_decoder(embedding, position, sparse, dense, False)[0][0, 0]


@pytest.mark.parametrize("count", [1, 3, 17])  # 16 are decoded at a time
def test_logits_are_segment_anythings(sam, embedding, count):
    boxes = random_boxes(count, (256, 256))
    ours = list(decode_boxes(sam, embedding, boxes))
    for one, other in zip(ours, published(sam, embedding, boxes), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * other.std().item(), rtol=0)


def test_the_oracles_decoder():
    """A decoder of SAM's size against the logits of the reference."""
    stored = oracle.read("sam_prompt_encoder_mask_decoder")
    with torch.device("meta"):
        sam = build_sam("vit_b").eval()
    shapes = sam.state_dict().items()
    decoder = {k: v for k, v in shapes if k.startswith(("prompt_encoder.", "mask_decoder."))}
    sam.load_state_dict(oracle.filled(decoder), strict=False, assign=True)
    image, case = oracle.tensor(stored["image_embedding"]), stored["cases"]["two_boxes"]
    logits = torch.stack(list(decode_boxes(sam, image, torch.tensor(case["boxes"]))))
    oracle.assert_close(case["single"]["masks"], logits[:, None])


def test_masks_and_labels_are_those_of_the_published_way(sam, embedding):
    boxes = random_boxes(9)
    found = segment_boxes(sam, embedding, boxes, SIZE)
    for at_once in (1, 4):
        others = one_by_one(sam, embedding, boxes, Frame(SIZE, 256), at_once)
        for mask, other in zip(found.masks, others, strict=True):
            assert iou(mask.whole(SIZE), other) >= 0.999

    frame = Frame(SIZE, 256)
    logits = torch.stack(list(published(sam, embedding, frame.boxes(boxes))))[:, None]
    large = sam.postprocess_masks(logits, frame.inner, SIZE)[:, 0]
    wanted = torch.cat([torch.zeros(1, *SIZE), large]).argmax(0).numpy()
    assert len(np.unique(wanted)) > 3
    assert (found.labels != wanted).mean() < 1e-3


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(5)))
def test_the_order_of_boxes_does_not_matter(sam, embedding, order):
    boxes, values = random_boxes(5), torch.tensor([2, 3, 5, 7, 11])
    first = segment_boxes(sam, embedding, boxes, SIZE, values.tolist()).labels
    second = segment_boxes(sam, embedding, boxes[order], SIZE, values[order].tolist()).labels
    assert (first != second).mean() < 1e-3


def test_labels_do_not_collide(sam, embedding):
    boxes = random_boxes(3)
    plain = segment_boxes(sam, embedding, boxes, SIZE).labels
    named = segment_boxes(sam, embedding, boxes, SIZE, [2, 3, 5]).labels
    assert np.array_equal(named, np.array([0, 2, 3, 5])[plain])
    # what renaming one after the other does, by the published code's order
    renamed = plain.copy()
    for number, value in enumerate([2, 3, 5], start=1):
        renamed[renamed == number] = value
    assert not np.array_equal(renamed, named)


def test_nothing_to_find(sam, embedding):
    """Without a positive logit a mask has no pixels, and the label map no label."""
    silent = copy.deepcopy(sam)
    for parameter in silent.mask_decoder.output_hypernetworks_mlps[0].parameters():
        parameter.data.zero_()
    found = segment_boxes(silent, embedding, random_boxes(2), SIZE)
    assert not found.labels.any()
    assert [mask.whole(SIZE).any() for mask in found.masks] == [False, False]


def test_labels_in_an_array_and_no_boxes_at_all(sam, embedding):
    boxes = random_boxes(2)
    for values in (np.array([2, 7]), torch.tensor([2, 7])):
        found = segment_boxes(sam, embedding, boxes, SIZE, values)
        assert set(np.unique(found.labels)) <= {0, 2, 7}
        assert found.labels.any()
    nothing = segment_boxes(sam, embedding, torch.zeros(0, 4), SIZE)
    assert nothing.masks == []
    assert not nothing.labels.any()


def test_far_from_the_mask_one_logit_stands_for_all_of_a_token(monkeypatch):
    """The pocket SAM's discs: their masks are those of all logits, from a part of the tokens."""
    image, _ = discs()
    predictor = load_backbone("pocket")
    boxes = torch.tensor([[20.0, 30.0, 120.0, 130.0]])
    embedding, computed = predictor.embed(image / 255), []
    enlarge = box_decoder._Enlarging.__call__

    def counted(self, tokens):
        computed.append(len(tokens))
        return enlarge(self, tokens)

    monkeypatch.setattr(box_decoder._Enlarging, "__call__", counted)
    (near,) = decode_boxes(predictor.sam, embedding, boxes)
    assert 0 < sum(computed) < 16 * 16 / 2
    monkeypatch.setattr(box_decoder, "FAR", np.inf)
    (whole,) = decode_boxes(predictor.sam, embedding, boxes)
    assert iou(near.numpy() > 0, whole.numpy() > 0) == 1
    by_token = (near == whole).unflatten(0, (16, 4)).unflatten(2, (16, 4))
    assert by_token.sum((1, 3)).min() >= 1  # the middle one


def test_a_mask_grows_until_its_border_is_negative(monkeypatch):
    """Only one middle is above -FAR, but the mask spans the row of tokens."""

    class Row:
        classifier = torch.zeros(16)

        def middles(self):
            return torch.tensor([1.0] + [-9.0] * 7 + [-9.0] * 56)

        def __call__(self, tokens):
            row = tokens < 8
            return torch.where(row, 1.0, -1.0)[:, None, None].expand(-1, 4, 4)

    logits = box_decoder._near_the_mask(Row(), torch.Size((8, 8)))
    assert (logits[:8] == 1).all()
    assert (logits[8:16] == -1).all()
    assert (logits[16:] == -9).all()


def test_a_mask_smaller_than_a_token_is_not_lost():
    """All middles are far below 0, and one token has a positive logit: it is the whole mask."""

    class Speck:
        classifier, shared = torch.zeros(16), torch.zeros(64, 1)

        def middles(self):
            return torch.full((64,), -9.0)

        def __call__(self, tokens):
            blocks = torch.full((64, 4, 4), -9.0)
            blocks[37, 0, 3] = 2.0
            return blocks[tokens]

    logits = box_decoder._near_the_mask(Speck(), torch.Size((8, 8)))
    assert (logits > 0).nonzero().tolist() == [[37, 0, 3]]
