"""The comparison of position lifts: scores as the library's, and a file that continues."""

import json

import numpy as np
import pytest
import torch

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.evaluation.scores import evaluate_cases
from medsaga_lib.inference.predictor import Predictor
from medsaga_lib.models.feeding import FEED_OF
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import build_model
from tools import positions


def test_masks_that_are_all_alike_and_masks_that_are_not():
    mask = np.zeros((9, 12), int)
    mask[2:5, 3:7] = 1
    wide = mask.repeat(2, axis=1)
    assert positions.alike([mask, 2 * mask, wide]) > 0.9  # rounding to the square's pixels
    assert positions.alike([mask, np.roll(mask, 5, axis=1)]) < 0.2
    assert positions.alike([mask[None], mask[None]]) is None


@pytest.fixture(scope="module")
def lifted():
    """A network with random weights, whose lift is not zero."""
    recipe = get_recipe("late_stages")
    model = build_model(recipe, "lite_medsam", positions.SIZE, 3, "random", 0).eval()
    torch.nn.init.normal_(model.lift.weight, generator=torch.Generator().manual_seed(0))
    return model


def test_scores_are_those_of_an_evaluation(lifted, phantoms):
    dataset = open_dataset(phantoms)
    cases = dataset.split("test")[:2]
    kept = {case.name: positions.encoded(lifted, dataset, case) for case in cases}
    row = positions.row_of(positions.Run("phantoms", 4, "fourier", 0), lifted, dataset, cases, kept)
    predictor = Predictor(lifted, dataset.labels, dataset.modality, None, FEED_OF["lite_medsam"])
    table = evaluate_cases(lambda case: predictor.case(dataset, case), dataset, cases)
    assert row["dice"] == pytest.approx(table.means()["dice"].mean())
    assert row["confused"] == pytest.approx(
        table.means(["confused"])["confused"].mean(), nan_ok=True
    )
    assert row["lift_weights"] == 256**2


def test_runs_that_are_there_are_not_repeated(monkeypatch, tmp_path, lifted, phantoms):
    asked = []
    monkeypatch.setattr(positions, "open_dataset", lambda _: open_dataset(phantoms))
    monkeypatch.setattr(positions, "trained", lambda run, _: asked.append(run) or lifted)
    monkeypatch.setattr(positions, "row_of", lambda run, *_: run._asdict() | {"dice": 0.5})
    words = ["--out", str(tmp_path / "out.json"), "--data", "some:4", "--kinds", "none", "table"]
    positions.main([*words, "--seeds", "0"])
    positions.main([*words, "--seeds", "0", "1"])
    wanted = [positions.Run("some", 4, kind, seed) for seed in (0, 1) for kind in ("none", "table")]
    assert asked == wanted
    runs = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert runs == [run._asdict() | {"dice": 0.5} for run in wanted]
    positions.main([*words, "--seeds", "0", "--set", "weight_decay=1"])
    assert [run.changes for run in asked] == 4 * [""] + 2 * ["weight_decay=1"]
