"""SAM prompted by a grid of points: masks of the picture's size, named by the ground truth."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pictures import discs
from runs import train

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.errors import UserError
from medsaga_lib.evaluation.of_a_run import evaluate_run
from medsaga_lib.inference.point_grid import everything, named_by
from medsaga_lib.inference.predictor import load_run, predict_files
from medsaga_lib.models.sam import build_sam
from medsaga_lib.models.weights import load_state
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.recipe import changed

SHAPE = (4, 5)
MASKS = st.lists(hnp.arrays(bool, SHAPE), max_size=4)


@given(hnp.arrays(np.int64, SHAPE, elements=st.integers(0, 2)), MASKS)
def test_each_label_gets_the_mask_with_the_largest_iou(truth, masks):
    labels = named_by(truth, masks, [1])
    ious = [(m & (truth == 1)).sum() / (m | (truth == 1)).sum() if m.any() else 0 for m in masks]
    if not ious or max(ious) == 0:
        assert not labels.any()
    else:
        assert any(
            np.array_equal(labels == 1, m) and i == max(ious)
            for m, i in zip(masks, ious, strict=True)
        )


def test_labels_do_not_overwrite_each_other_and_an_absent_one_is_left_out():
    truth = np.array([[1, 1, 2, 0]])
    masks = [np.array([[True, True, True, False]]), np.array([[False, False, True, True]])]
    np.testing.assert_array_equal(named_by(truth, masks, [1, 2, 3]), [[1, 1, 1, 2]])


def test_one_of_the_masks_is_near_a_thing_and_comes_in_the_size_of_the_picture():
    sam = build_sam("pocket", 128)
    sam.load_state_dict(load_state("pocket", 128))
    image, truth = discs()
    masks = everything(sam.eval(), image[:200].astype(np.float32) / 255)
    assert masks
    assert {mask.shape for mask in masks} == {(100, 128)}
    whole = [mask[:200] for mask in truth if not mask[200:].any()]
    assert whole
    named = [named_by(mask.astype(int), masks, [1]) == 1 for mask in whole]
    assert {mask.shape for mask in named} == {(200, 256)}
    assert max((m & t).sum() / (m | t).sum() for m, t in zip(named, whole, strict=True)) > 0.6


def test_a_grid_is_scored_with_the_truths_names_and_predicts_no_files(phantoms, tmp_path):
    dataset = open_dataset(phantoms)
    dataset = replace(dataset, cases=dataset.split("test")[:1])
    recipe = get_recipe("sam_zero_shot")
    train(recipe, dataset, 1, tmp_path / "run", size=64, changes=["head=grid"])
    evaluation = evaluate_run(tmp_path / "run", dataset, "test", tmp_path / "e")
    assert "nearest to its truth" in evaluation.prompts
    assert evaluation.table["dice"].between(0, 1).all()
    with pytest.raises(UserError, match=r"masks of a grid of points have no names.*evaluate"):
        list(predict_files(load_run(tmp_path / "run"), [dataset.cases[0].image], tmp_path / "out"))


def test_a_grid_cannot_be_trained():
    with pytest.raises(UserError, match=r"A grid .* trains nothing; set steps=0"):
        changed(get_recipe("samed"), ["head=grid"])


def test_a_grid_of_fewer_points_finds_masks_at_some_of_them():
    sam = build_sam("pocket", 128)
    sam.load_state_dict(load_state("pocket", 128))
    image, _ = discs()
    many, few = (everything(sam.eval(), image.astype(np.float32) / 255, n) for n in (8, 2))
    assert 0 < len(few) <= 3 * 2 * 2  # 3 masks for each point, without duplicates
    assert len(few) < len(many)
