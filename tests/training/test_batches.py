"""Batches: the order of the samples in each epoch, and prompts that fit the changed label."""

from functools import partial

from medsaga_lib.data.prompts import POSITIVE, draw_prompts
from medsaga_lib.data.samples import Samples
from medsaga_lib.data.transforms import Augment
from medsaga_lib.training.batches import Batches


def test_each_epoch_holds_every_sample_once(dataset):
    samples = Samples(dataset, dataset.split("train")[:5], 32)
    batches = Batches(samples, batch=3, augment=Augment("none"), seed=0)
    places = [(step, place) for step in range(10) for place in range(3)]
    drawn = [int(batches[place][0].sum() * 100) for place in places]
    own = sorted(int(samples[i]["image"].sum() * 100) for i in range(5))
    assert len(set(own)) == 5
    for epoch in range(6):
        assert sorted(drawn[5 * epoch : 5 * epoch + 5]) == own
    assert drawn[:5] != drawn[5:10]


def test_prompts_are_drawn_from_the_changed_label(dataset):
    ask = partial(draw_prompts, "points", (1, 2, 3))
    samples = Samples(dataset, dataset.split("train")[:3], 64)
    batches = Batches(samples, 3, Augment("samed"), seed=2, ask=ask)
    for place in range(3):
        _, label, coordinates, roles = batches[4, place]
        assert (roles[:, 0] == POSITIVE).all()
        for value, (x, y) in enumerate(coordinates[:, 0].int().tolist(), start=1):
            assert label[y, x] == value
