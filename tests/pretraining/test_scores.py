"""The scores of the model card, against counts by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medsaga_lib.data.procedural import procedural_scene
from medsaga_lib.data.prompts import NEGATIVE, PAD, POSITIVE
from medsaga_lib.errors import UserError
from medsaga_lib.pretraining import scores
from medsaga_lib.pretraining.scores import Prompted, evaluate, prompted

SIZE = 64


def block(top, bottom, left, right):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top:bottom, left:right] = True
    return mask


TRUTH = block(16, 48, 16, 48)


@pytest.fixture
def asked(monkeypatch):
    """Answers as written here instead of a network's; the prompts that were asked."""
    prompts = []
    nothing = block(0, 0, 0, 0)
    first = [nothing, block(16, 48, 16, 32), block(16, 48, 16, 40), block(16, 24, 16, 48)]
    too_much = block(16, 64, 16, 48)
    halves = [block(16, 48, 16, 32), nothing]  # of the first object, and of the second

    def ask(sam, embedding, coordinates, labels, mask=None):
        prompts.append((coordinates.tolist(), labels, mask))
        turn = (len(prompts) - 1) % 6  # of an object's six prompts
        if turn == 0:  # the box
            masks = np.stack([block(16, 40, 16, 48), *first[1:]])
            return masks, [0.7, 0.0, 0.0, 0.0], torch.ones(4)
        if turn == 5:  # the box, on a blank picture
            return np.stack([halves[len(prompts) // 6 - 1], *first[1:]]), [0.0] * 4, torch.ones(4)
        if turn == 1:  # one point: the head likes the left half best
            return np.stack(first), [0.99, 0.5, 0.3, 0.2], torch.arange(4.0)
        answer = too_much if turn == 2 else TRUTH
        return np.stack([answer, *first[1:]]), [0.6, 0.0, 0.0, 0.0], torch.full((4,), 9.0)

    monkeypatch.setattr(scores, "ask", ask)
    return prompts


class Encoder:
    """Keeps what it is shown."""

    img_size = SIZE

    def __init__(self):
        self.seen = []

    def __call__(self, pixels):
        self.seen.append(pixels)
        return pixels


def test_scores_are_those_of_the_answers_and_clicks_correct_the_larger_error(asked):
    encoder = Encoder()
    sam = SimpleNamespace(image_encoder=encoder, preprocess=lambda x: x - 7, device="cpu")
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    found = evaluate(sam, [Prompted(image, TRUTH[None])] * 2, clicks=4)
    assert found["box"] == 24 / 32
    assert found["box_kept"] == 24 / 32
    assert found["box_kept_blank"] == (16 / 32 + 0) / 2
    assert [(e.min(), e.max()) for e in encoder.seen] == [(0, 0), (-7, -7), (-7, -7)]  # blank first
    assert found["point"] == 24 / 32  # the best of three
    assert found["clicks_1"] == 16 / 32  # the one that the head chose
    assert found["clicks_2"] == 32 / 48
    assert found["clicks_3"] == found["clicks_4"] == 1
    assert found["box_itself"] == 1
    assert found["ceiling"] == pytest.approx(1, abs=0.005)  # whole cells, but for the corners
    assert found["ellipse"] == pytest.approx(np.pi / 4, abs=0.01)
    gain = found["box"] - found["ellipse"]
    assert found["gain"] == [pytest.approx(gain)] * 2  # of equal pictures
    predicted, true = [0.7, 0.5, 0.3, 0.2], [24 / 32, 16 / 32, 24 / 32, 8 / 32]
    assert found["iou_head"] == pytest.approx(np.corrcoef(predicted, true)[0, 1])
    assert (found["pictures"], found["objects"]) == (2, 2)

    box, *clicks, blank = asked[:6]
    assert box[0] == blank[0] == [[16, 16], [47, 47]]
    assert [labels for _, labels, _ in clicks] == [
        [POSITIVE, PAD],
        [POSITIVE, POSITIVE, PAD],
        [POSITIVE, POSITIVE, NEGATIVE, PAD],
        [POSITIVE, POSITIVE, NEGATIVE, PAD],  # nothing was wrong any more
    ]
    (x, y), (_, below) = clicks[1][0][1], clicks[2][0][2]
    assert x in (39, 40)  # the middle of what was missed
    assert 23 <= y <= 40  # no nearer to its ends than to its sides
    assert below in (55, 56)  # of what was too much
    assert [mask.item() for *_, mask in clicks[1:]] == [1, 9, 9]  # logits of the mask so far


def test_nothing_to_ask_for_is_one_sentence():
    sam = SimpleNamespace(image_encoder=Encoder(), device="cpu")
    with pytest.raises(UserError, match="no object to ask for"):
        evaluate(sam, [])


def test_a_head_that_always_says_the_same_has_no_correlation(asked, monkeypatch):
    answer = scores.ask
    monkeypatch.setattr(scores, "ask", lambda *a: (answer(*a)[0], [0.5] * 4, torch.ones(4)))
    sam = SimpleNamespace(image_encoder=Encoder(), preprocess=lambda x: x, device="cpu")
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    assert evaluate(sam, [Prompted(image, TRUTH[None])], clicks=4)["iou_head"] is None


def test_objects_are_drawn_from_the_whole_picture_and_always_the_same():
    scenes = [procedural_scene((i, 5), size=SIZE, families=["cells"]) for i in range(4)]
    first, again = (list(prompted(scenes, objects=3)) for _ in range(2))
    for one, other, scene in zip(first, again, scenes, strict=True):
        np.testing.assert_array_equal(one.masks, other.masks)
        assert len(one.masks) == min(3, len(scene))
    early = [scene.masks(slice(0, 3)) for scene in scenes]
    assert not all(np.array_equal(p.masks, masks) for p, masks in zip(first, early, strict=True))
