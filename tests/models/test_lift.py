"""The position lift: nothing at the start, its functions against formulas, and what it can tell."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.errors import UserError
from medsaga_lib.inference.predictor import load_run
from medsaga_lib.memory.plan import count
from medsaga_lib.models.heads import class_tokens, grid_positions
from medsaga_lib.models.lift import PositionLift, features
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import build_model, trainable
from medsaga_lib.training.loop import train
from medsaga_lib.training.run_folder import Settings

KINDS = {"fourier": 256, "coordinates": 2, "cosines": 16, "table": 64}


@pytest.mark.parametrize(("kind", "functions"), KINDS.items())
@pytest.mark.parametrize("name", ["medsaga", "s_sam"])
def test_it_starts_at_nothing_and_has_the_weights_it_says(name, kind, functions):
    plain = get_recipe(name)
    lifted = replace(plain, lift=kind)
    counts = [count(recipe, "lite_medsam", 64, 2).trainable for recipe in (plain, lifted)]
    assert counts[1] - counts[0] == 256 * functions
    images = torch.rand(2, 3, 32, 32)
    models = [build_model(r, "lite_medsam", 32, 2, "random").eval() for r in (plain, lifted)]
    with torch.no_grad():
        assert models[0](images).equal(models[1](images))
    assert "lift.weight" in trainable(models[1])
    state = models[0].state_dict()
    assert models[1].state_dict().keys() - state.keys() == {"lift.weight"}


def test_a_trained_lift_is_in_the_run_that_is_read(phantoms, tmp_path):
    """Without its lift, the network of the run gives other logits."""
    dataset = open_dataset(phantoms)
    changes = "lift=cosines", "batch=2", "steps=2", "lr=0.1"
    settings = Settings(shots=2, size=64, weights="random", validations=0, changes=changes)
    recipe = get_recipe("frozen_encoder")
    trained = train(recipe, dataset, settings, tmp_path, progress=False).model.eval()
    read = load_run(tmp_path).model
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert trained.lift.weight.abs().max() > 0
        assert read(images).equal(trained(images))
        read.lift.weight.zero_()
        assert not read(images).equal(trained(images))
    with pytest.raises(UserError, match="has another lift than the one of this name"):
        train(replace(recipe, lift="cosines"), dataset, settings, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 5), (32, 32)])
def test_functions_against_formulas(height, width):
    """Loops over the cells, with x and y of their centres as fractions of the image."""
    xy, cosines, table = (features(k, height, width) for k in ("coordinates", "cosines", "table"))
    for row in range(height):
        for column in range(width):
            y, x = (row + 0.5) / height, (column + 0.5) / width
            assert xy[:, row, column].tolist() == pytest.approx([2 * x - 1, 2 * y - 1], abs=1e-6)
            for a in range(4):
                for b in range(4):
                    wanted = math.cos(math.pi * a * y) * math.cos(math.pi * b * x)
                    ours = cosines[4 * a + b, row, column]
                    assert ours.item() == pytest.approx(wanted, abs=1e-6)
    assert torch.allclose(table.sum(0), torch.ones(height, width))
    assert features("table", 8, 8).flatten(1).equal(torch.eye(64))


def test_the_lift_of_sams_positions_is_one_linear_layer():
    sam = class_tokens("pocket", None, 64, 1, "random").sam
    position, lift = grid_positions(sam.prompt_encoder, torch.float32), PositionLift("fourier", 128)
    nn.init.normal_(lift.weight)
    cells = position[0].flatten(1).T @ lift.weight.T  # (h w, C)
    torch.testing.assert_close(lift(position)[0].flatten(1).T, cells, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_only_a_lift_can_tell_two_equal_cells_apart(kind):
    """On an embedding that is the same everywhere, a decoder without positions has no sides."""
    torch.manual_seed(0)
    model = class_tokens("pocket", None, 64, 1, "random", lift=kind)
    embedding = torch.randn(1, 128, 1, 1).expand(-1, -1, 4, 4)
    if model.lift is not None:
        nn.init.normal_(model.lift.weight)
    added = model.lifted(
        torch.zeros(1, 128, 4, 4), grid_positions(model.sam.prompt_encoder, embedding.dtype)
    )
    cells = added.flatten(2)[0].T
    assert (torch.pdist(cells).min() > 0) == (kind != "none")
