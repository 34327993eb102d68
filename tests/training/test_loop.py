"""The training loop: exact resuming, accumulation, recomputation, validation, and learning."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import SMALL, equal, short, train, weights_of

from medsaga_lib.data.samples import Samples
from medsaga_lib.data.shots import choose_shots
from medsaga_lib.errors import UserError
from medsaga_lib.models.feeding import get_feed
from medsaga_lib.optim.schedule import warmup_polynomial
from medsaga_lib.recipes import RECIPES, get_recipe
from medsaga_lib.recipes.build import build_model, learned
from medsaga_lib.recipes.recipe import changed
from medsaga_lib.training import loop
from medsaga_lib.training.losses import reduce_labels
from medsaga_lib.training.run_folder import CHECKPOINT_FILE, read_checkpoint

TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def save_often(monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 1)


# tests/recipes/test_adapters.py stops and resumes every recipe once, from pretrained weights. Here
# the weights are random, and the stops are before, at and after a renewal of GaLore's bases.
@pytest.mark.parametrize(
    ("name", "stops"), [("medsaga", (1, 2, 4, 5)), ("s_sam", (2, 5)), ("unet_sgd", (2, 5))]
)
def test_a_stopped_run_ends_with_the_very_same_weights(name, stops, dataset, tmp_path):
    recipe = short(name)
    whole = train(recipe, dataset, 4, tmp_path / "whole", **SMALL)
    for stop in stops:
        train(recipe, dataset, 4, tmp_path / "parts", stop_after=stop, **SMALL)
        assert read_checkpoint(tmp_path / "parts").step == stop
    parts = train(recipe, dataset, 4, tmp_path / "parts", **SMALL)
    assert equal(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"))
    assert [row["loss"] for row in whole.log] == [row["loss"] for row in parts.log]
    assert read_checkpoint(tmp_path / "parts").optimizer == {}  # finished: nothing more to resume


def test_equal_class_tokens_teach_galore_nothing_and_the_first_step_is_resumed(dataset, tmp_path):
    """The first gradient of the encoder is rounding noise, so the bases come from the second."""
    recipe, options = short("medsaga"), SMALL | {"weights": "pretrained"}
    whole = train(recipe, dataset, 4, **options)
    train(recipe, dataset, 4, tmp_path, stop_after=1, **options)
    assert not [key for key in read_checkpoint(tmp_path).optimizer if key.endswith("basis")]
    train(recipe, dataset, 4, tmp_path, stop_after=2, **options)
    assert [key for key in read_checkpoint(tmp_path).optimizer if key.endswith("basis")]
    parts = train(recipe, dataset, 4, tmp_path, **options)
    assert [row["loss"] for row in whole.log] == [row["loss"] for row in parts.log]


A_RUN_TO_KILL = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from runs import SMALL, short, train
from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.training import loop

loop.SAVE_EVERY = 1
recipe = short("medsaga", steps=int(sys.argv[4]), augmentation="none")
train(recipe, open_dataset(Path(sys.argv[2])), 4, Path(sys.argv[3]), **SMALL)
"""


def test_killed_in_the_middle_and_resumed(phantoms, dataset, tmp_path):
    killed, steps = tmp_path / "killed", 18
    words = [sys.executable, "-c", A_RUN_TO_KILL, *map(str, (TESTS, phantoms, killed, steps))]
    process = subprocess.Popen(words)
    limit = time.monotonic() + 300
    while not (killed / CHECKPOINT_FILE).exists() and time.monotonic() < limit:
        assert process.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < read_checkpoint(killed).step < steps

    recipe = short("medsaga", steps=steps, augmentation="none")
    train(recipe, dataset, 4, killed, **SMALL)
    train(recipe, dataset, 4, tmp_path / "whole", **SMALL)
    assert equal(weights_of(killed), weights_of(tmp_path / "whole"))


def test_writing_nothing_gives_the_same_weights(dataset, tmp_path):
    recipe = short("samed", steps=3)
    written = train(recipe, dataset, 4, tmp_path / "run", **SMALL).model.state_dict()
    kept = train(recipe, dataset, 4, **SMALL).model.state_dict()
    assert equal(written, kept)


def test_neither_the_global_seed_nor_validation_changes_anything(dataset):
    recipe = short("samed", steps=3)
    torch.manual_seed(1)
    first = train(recipe, dataset, 4, **SMALL)
    torch.manual_seed(2)
    second = train(recipe, dataset, 4, **(SMALL | {"validations": 3}))
    assert equal(first.model.state_dict(), second.model.state_dict())
    assert all(np.isfinite(row["val_dice"]) for row in second.log)
    other = train(recipe, dataset, 4, seed=1, **SMALL)
    assert not equal(first.model.state_dict(), other.model.state_dict())


def test_recomputing_blocks_gives_the_same_weights(dataset):
    recipe = short("medsaga", steps=3)
    plain = train(recipe, dataset, 4, **SMALL).model.state_dict()
    less = train(recipe, dataset, 4, checkpointing=True, **SMALL).model.state_dict()
    for key in plain:
        torch.testing.assert_close(less[key], plain[key], atol=1e-5, rtol=1e-4)


def test_recomputing_in_bf16_changes_the_loss_by_no_more_than_bf16_rounds(dataset):
    """A number in bf16 has 8 significant bits: it is rounded by up to 2^-9 of itself, or 0.2 %.

    The loss after three steps may differ by five such roundings, 1 %.
    """
    recipe = short("samed", steps=3)
    exact = train(recipe, dataset, 4, **SMALL).log[-1]["loss"]
    for checkpointing in (False, True):
        options = SMALL | {"precision": "bf16", "checkpointing": checkpointing}
        rough = train(recipe, dataset, 4, **options).log[-1]["loss"]
        assert rough != exact
        assert rough == pytest.approx(exact, rel=5 * 2**-9)


@pytest.mark.parametrize("name", ["medsaga", "samed", "s_sam"])
def test_per_layer_updates_give_the_same_weights(name, dataset):
    recipe = short(name, steps=3)
    plain = train(recipe, dataset, 4, **SMALL).model.state_dict()
    fused = train(recipe, dataset, 4, per_layer=True, **SMALL).model.state_dict()
    assert equal(plain, fused)


@pytest.fixture(scope="module")
def by_galore(dataset):
    """The weights after GaLore's run of six steps."""
    return train(short("medsaga"), dataset, 4, **SMALL).model.state_dict()


@pytest.mark.parametrize("optimizer", ["fira", "apollo", "published"])
def test_successors_of_galore_train_and_go_on_exactly(optimizer, by_galore, dataset, tmp_path):
    recipe = short("medsaga")
    recipe = replace(recipe, image_encoder=replace(recipe.image_encoder, optimizer=optimizer))
    whole = train(recipe, dataset, 4, tmp_path / "whole", **SMALL)
    train(recipe, dataset, 4, tmp_path / "parts", stop_after=3, **SMALL)
    parts = train(recipe, dataset, 4, tmp_path / "parts", **SMALL)
    assert equal(whole.model.state_dict(), parts.model.state_dict())
    assert not equal(by_galore, whole.model.state_dict())
    with pytest.raises(UserError, match=f"no per-layer updates for {optimizer}"):
        train(recipe, dataset, 4, per_layer=True, **SMALL)


def test_accumulated_passes_add_up(dataset):
    """With cross-entropy alone, which is a mean over images, passes give the batch's gradient."""
    recipe = short("samed", steps=2, batch=4, ce_weight=1.0, dice_weight=0.0)
    whole = train(recipe, dataset, 4, **SMALL)
    parts = train(recipe, dataset, 4, accumulate=2, **SMALL)
    for key, value in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[key], value, atol=2e-4, rtol=1e-2)
    assert parts.log[0]["loss"] == pytest.approx(whole.log[0]["loss"], rel=1e-5)


@pytest.mark.parametrize("passes", [1, 2])
def test_clipping_scales_the_gradient_of_the_whole_batch(passes, dataset):
    """One step of SGD without momentum: the weights move by the rate times the gradient."""
    recipe = replace(short("unet_sgd", steps=1, batch=4, lr=1.0), betas=(0, 0), weight_decay=0)

    def moved(clip_norm):
        result = train(replace(recipe, clip_norm=clip_norm), dataset, 4, **options)
        after = dict(result.model.named_parameters())
        change = torch.cat([(after[key] - start[key]).flatten() for key in start])
        return change.detach() / result.log[0]["lr"]

    options = SMALL | {"accumulate": passes}
    still = train(replace(recipe, lr=0.0), dataset, 4, **options).model
    start = dict(still.named_parameters())
    gradient = moved(None)
    norm = gradient.norm().item()
    torch.testing.assert_close(moved(norm / 8), gradient / 8, atol=1e-5 * norm, rtol=1e-3)
    assert torch.equal(moved(norm * 2), gradient)


def test_two_processes_train_what_one_does(phantoms, dataset, tmp_path):
    """Again with cross-entropy alone; each process has half of every batch, one of them writes.

    Without augmentation and without LoRA a process has less to import.
    """
    values = {"augmentation": "none", "ce_weight": 1.0, "dice_weight": 0.0}
    words = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "medsaga_lib.cli"]
    words += ["train", "full", "--data", str(phantoms), "--out", str(tmp_path / "two"), "--json"]
    words += ["--shots", "4", "--weights", "random", "--size", "64", "--steps", "2", "--batch", "4"]
    words += [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    done = subprocess.run(
        [sys.executable, *words],
        check=True,
        env=os.environ | {"ACCELERATE_USE_CPU": "true"},
        stdout=subprocess.PIPE,
    )
    assert json.loads(done.stdout)["steps"] == 2
    recipe = replace(get_recipe("full"), steps=2, batch=4, **values)
    one = train(recipe, dataset, 4, **SMALL).model.state_dict()
    two = weights_of(tmp_path / "two")
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=2e-4, rtol=1e-2, msg=key)
    before = build_model(recipe, "pocket", 64, 3, "random").state_dict()
    assert (one["sam.image_encoder.pos_embed"] - before["sam.image_encoder.pos_embed"]).any()
    assert not equal(one, before)


@pytest.mark.parametrize(
    ("steps", "taken"), [(7, [1, 3, 5, 6]), (11, [2, 5, 8, 10]), (3, [0, 1, 2])]
)
def test_validations_are_as_many_as_asked_and_the_last_is_at_the_end(dataset, steps, taken):
    recipe = short("frozen_encoder", steps=steps)
    log = train(recipe, dataset, 4, **(SMALL | {"validations": 4})).log
    assert [row["step"] for row in log if np.isfinite(row["val_dice"])] == taken


def test_bf16_trains_and_keeps_fp32_weights(dataset):
    result = train(short("medsaga", steps=2), dataset, 4, precision="bf16", **SMALL)
    assert all(p.dtype == torch.float32 for p in result.model.parameters())
    assert np.isfinite([row["loss"] for row in result.log]).all()


@pytest.mark.parametrize("name", ["late_stages", "frozen_encoder"])
def test_a_run_in_bf16_validates_in_fp32_as_the_evaluation(name, dataset):
    """Outputs of TinyViT's stages that are kept for training are bf16, those for validation not."""
    recipe = changed(short(name, steps=2), ["image_encoder.copies=2"])
    how = SMALL | {"backbone": "lite_medsam", "precision": "bf16", "validations": 1}
    result = train(recipe, dataset, 4, **how)
    cases = [case for case in dataset.split("val") if case.mask is not None]
    place = get_feed("lite_medsam").sample
    expected = loop.validation_dice(result.model, Samples(dataset, cases, how["size"], place))
    assert result.log[-1]["val_dice"] == pytest.approx(expected, abs=1e-6)


def test_a_loss_that_is_no_number_stops_with_advice(dataset, tmp_path):
    recipe = short("samed", steps=4, lr=1e30)
    with pytest.raises(UserError, match="lower the learning rate"):
        train(recipe, dataset, 4, tmp_path / "run", **SMALL)


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name].steps])
def test_only_what_the_recipe_names_is_trained(name, dataset):
    recipe = short(name, steps=2)
    before = build_model(recipe, "pocket", 32, 3, "random").state_dict()
    model = train(recipe, dataset, 4, **SMALL | {"size": 32}).model
    changed = {k for k, v in model.state_dict().items() if not v.equal(before[k])}
    assert changed <= set(learned(model))
    # These parts get no gradient without a prompt, and without a loss on the predicted IoU
    silent = ["iou_prediction_head", "mask_downscaling", "point_embeddings", "not_a_point", "iou_"]
    if recipe.head in ("points", "boxes"):  # token 0 alone answers
        silent += [f"hypernetworks_mlps.{other}" for other in (1, 2, 3)]
    for key in set(learned(model)) - changed:
        assert any(part in key for part in silent), key


def test_four_images_can_be_learned_by_heart(dataset):
    """From random weights; tests/recipes/test_adapters.py has every recipe from pretrained ones."""
    recipe = replace(get_recipe("medsaga"), steps=25, batch=4, augmentation="none")
    result = train(recipe, dataset, 4, **SMALL)
    samples = choose_shots(dataset, 4, 64, 0)
    assert loop.validation_dice(result.model, samples) > 0.95


@pytest.mark.parametrize("kind", ["points", "boxes"])
def test_prompted_runs_resume_exactly_and_are_validated_with_the_truths_prompts(
    kind, dataset, tmp_path
):
    recipe = short("samed", head=kind, weight_decay=0.0)
    whole = train(recipe, dataset, 4, tmp_path / "whole", **(SMALL | {"validations": 1}))
    train(recipe, dataset, 4, tmp_path / "parts", stop_after=3, **SMALL)
    train(recipe, dataset, 4, tmp_path / "parts", **SMALL)
    assert equal(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"))
    assert np.isfinite(whole.log[-1]["val_dice"])
    before = build_model(recipe, "pocket", 64, 3, "random").state_dict()
    after, asked = whole.model.state_dict(), {"points": (1,), "boxes": (2, 3)}[kind]
    for number in range(4):  # negative, positive, and a box's two corners
        key = f"sam.prompt_encoder.point_embeddings.{number}.weight"
        assert (number in asked) != before[key].equal(after[key])


def test_the_learning_rate_is_the_published_one_for_a_published_run():
    recipe = replace(get_recipe("samed"), steps=18_600)
    for step in (0, 100, 249, 250, 1000, 18_599):
        wanted = warmup_polynomial(step, 0.005, 250, 18_600)
        assert recipe.lr * loop.learning_rate_factor(recipe, step) == pytest.approx(wanted)


def test_labels_are_reduced_to_the_pixel_at_the_middle():
    labels = torch.arange(64).reshape(1, 8, 8)
    small = reduce_labels(labels, torch.zeros(1, 2, 2, 2))
    assert small.tolist() == [[[18, 22], [50, 54]]]


def test_validation_dice_by_hand(dataset, monkeypatch):
    samples = Samples(dataset, dataset.split("val"), 64)
    model = build_model(get_recipe("samed"), "pocket", 64, 3, "random").eval()
    measured = loop.validation_dice(model, samples)
    truth, guess = [], []
    with torch.no_grad():
        for i in range(len(samples)):
            logits = model(samples[i]["image"][None])
            guess.append(logits.argmax(1).flatten())
            truth.append(reduce_labels(samples[i]["label"][None], logits).flatten())
    truth, guess = torch.cat(truth), torch.cat(guess)
    dice = [
        2 * ((truth == c) & (guess == c)).sum() / ((truth == c).sum() + (guess == c).sum())
        for c in (1, 2, 3)
    ]
    assert measured == pytest.approx(float(torch.stack(dice).mean()), rel=1e-6)
