"""The loop: exact resuming, accumulation, recomputation, validation, and learning at all."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from medsaga_lib import training
from medsaga_lib.backbones.sam import build_sam
from medsaga_lib.data.batches import Batches, choose_shots, sample_names
from medsaga_lib.data.folder import open_dataset
from medsaga_lib.data.prompts import POSITIVE, draw_prompts
from medsaga_lib.data.samples import Samples
from medsaga_lib.data.transforms import Augment
from medsaga_lib.errors import UserError
from medsaga_lib.optim.schedule import warmup_polynomial
from medsaga_lib.recipes import RECIPES, get_recipe
from medsaga_lib.recipes.build import build_model, learned
from medsaga_lib.runs import CHECKPOINT_FILE, read_checkpoint

SMALL = {"weights": "random", "size": 64, "progress": False, "validations": 0}


def recipe_of(name, **changes):
    changes = {"steps": 6, "batch": 3} | changes
    if name == "unet_sgd":
        name, changes = "unet", changes | {"optimizer": "sgd"}
    how = get_recipe(name).image_encoder
    if name == "medsaga":
        how = replace(how, refresh=2, bases=0)  # so that a run of six steps crosses refreshes
    return replace(get_recipe(name), image_encoder=how, **changes)


@pytest.fixture
def dataset(phantoms):
    return open_dataset(phantoms)


@pytest.fixture(autouse=True)
def save_often(monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 1)


def weights_of(folder):
    return read_checkpoint(folder).weights


def equal(first, second):
    return first.keys() == second.keys() and all(first[k].equal(second[k]) for k in first)


# One of each kind: GaLore's states, LoRA's names, statistics of batch normalisation, points and
# pasted exemplars, no SAM, SGD
@pytest.mark.parametrize("name", ["medsaga", "samed", "s_sam", "cheap_lunch", "unet", "unet_sgd"])
def test_a_stopped_run_ends_with_the_very_same_weights(name, dataset, tmp_path):
    recipe = recipe_of(name)
    whole = training.train(recipe, dataset, 4, tmp_path / "whole", **SMALL)
    for stop in (1, 2, 4, 5):  # in between, at, and after a refresh of the subspace
        training.train(recipe, dataset, 4, tmp_path / "parts", stop_after=stop, **SMALL)
        assert read_checkpoint(tmp_path / "parts").step == stop
    parts = training.train(recipe, dataset, 4, tmp_path / "parts", **SMALL)
    assert equal(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"))
    assert [row["loss"] for row in whole.log] == [row["loss"] for row in parts.log]
    assert read_checkpoint(tmp_path / "parts").optimizer == {}  # finished: nothing more to resume


def test_equal_class_tokens_teach_galore_nothing_and_the_first_step_is_resumed(dataset, tmp_path):
    """The encoder's first gradient is rounding; its bases come from the second."""
    recipe, options = recipe_of("medsaga"), SMALL | {"weights": "pretrained"}
    whole = training.train(recipe, dataset, 4, **options)
    training.train(recipe, dataset, 4, tmp_path, stop_after=1, **options)
    assert not [key for key in read_checkpoint(tmp_path).optimizer if key.endswith("basis")]
    training.train(recipe, dataset, 4, tmp_path, stop_after=2, **options)
    assert [key for key in read_checkpoint(tmp_path).optimizer if key.endswith("basis")]
    parts = training.train(recipe, dataset, 4, tmp_path, **options)
    assert [row["loss"] for row in whole.log] == [row["loss"] for row in parts.log]


def test_killed_in_the_middle_and_resumed(phantoms, dataset, tmp_path):
    code = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "import test_training as t\n"
        "from pathlib import Path\n"
        "t.training.SAVE_EVERY = 1\n"
        "dataset = t.open_dataset(Path(sys.argv[1]))\n"
        "recipe = t.recipe_of('medsaga', steps=40)\n"
        "t.training.train(recipe, dataset, 4, Path(sys.argv[2]), **t.SMALL)\n"
    )
    folders = [str(phantoms), str(tmp_path / "killed"), os.path.dirname(__file__)]
    process = subprocess.Popen([sys.executable, "-c", code, *folders])
    checkpoint = tmp_path / "killed" / CHECKPOINT_FILE
    limit = time.monotonic() + 300
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = read_checkpoint(tmp_path / "killed").step
    assert 0 < killed_at < 40
    left = {p.name for p in (tmp_path / "killed").iterdir()}

    recipe = recipe_of("medsaga", steps=40)
    training.train(recipe, dataset, 4, tmp_path / "killed", **SMALL)
    training.train(recipe, dataset, 4, tmp_path / "whole", **SMALL)
    assert equal(weights_of(tmp_path / "killed"), weights_of(tmp_path / "whole"))
    assert {"run.json", CHECKPOINT_FILE} <= left


def test_another_run_in_the_same_folder_is_refused(dataset, tmp_path):
    training.train(recipe_of("samed", steps=1), dataset, 4, tmp_path / "run", **SMALL)
    with pytest.raises(UserError, match=r"holds another run \(shots = 4, not 2\)"):
        training.train(recipe_of("samed", steps=1), dataset, 2, tmp_path / "run", **SMALL)
    other = replace(
        dataset, labels={1: "liver", **{k: v for k, v in dataset.labels.items() if k > 1}}
    )
    with pytest.raises(UserError, match="trained on other data of the name"):
        training.train(recipe_of("samed", steps=1), other, 4, tmp_path / "run", **SMALL)
    higher = replace(recipe_of("samed", steps=1), lr=0.1)
    with pytest.raises(UserError, match="other values of samed than it has now"):
        training.train(higher, dataset, 4, tmp_path / "run", **SMALL)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/me.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"photos exists and is no run"):
        training.train(recipe_of("samed"), dataset, 4, tmp_path / "photos", **SMALL)
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["me.jpg"]


def test_writing_nothing_gives_the_same_weights(dataset, tmp_path):
    recipe = recipe_of("samed", steps=3)
    written = training.train(recipe, dataset, 4, tmp_path / "run", **SMALL).model.state_dict()
    kept = training.train(recipe, dataset, 4, **SMALL).model.state_dict()
    assert equal(written, kept)


def test_neither_the_global_seed_nor_validation_changes_anything(dataset):
    recipe = recipe_of("samed", steps=3)
    torch.manual_seed(1)
    first = training.train(recipe, dataset, 4, **SMALL)
    torch.manual_seed(2)
    second = training.train(recipe, dataset, 4, **(SMALL | {"validations": 3}))
    assert equal(first.model.state_dict(), second.model.state_dict())
    assert all(np.isfinite(row["val_dice"]) for row in second.log)
    other = training.train(recipe, dataset, 4, seed=1, **SMALL)
    assert not equal(first.model.state_dict(), other.model.state_dict())


def test_recomputing_blocks_gives_the_same_weights(dataset):
    recipe = recipe_of("medsaga", steps=3)
    plain = training.train(recipe, dataset, 4, **SMALL).model.state_dict()
    less = training.train(recipe, dataset, 4, checkpointing=True, **SMALL).model.state_dict()
    for key in plain:
        torch.testing.assert_close(less[key], plain[key], atol=1e-5, rtol=1e-4)


def test_recomputing_from_rounded_inputs_is_no_rougher_than_bf16_itself(dataset):
    recipe = recipe_of("samed", steps=3)
    exact = training.train(recipe, dataset, 4, **SMALL).log[-1]["loss"]
    rough = training.train(recipe, dataset, 4, precision="bf16", **SMALL).log[-1]["loss"]
    both = training.train(recipe, dataset, 4, precision="bf16", checkpointing=True, **SMALL)
    assert both.log[-1]["loss"] == pytest.approx(exact, rel=max(0.01, 2 * abs(rough / exact - 1)))


@pytest.mark.parametrize("name", ["medsaga", "samed", "s_sam"])
def test_per_layer_updates_give_the_same_weights(name, dataset):
    recipe = recipe_of(name, steps=3)
    plain = training.train(recipe, dataset, 4, **SMALL).model.state_dict()
    fused = training.train(recipe, dataset, 4, per_layer=True, **SMALL).model.state_dict()
    assert equal(plain, fused)


@pytest.mark.parametrize("optimizer", ["fira", "apollo", "published"])
def test_successors_of_galore_train_and_go_on_exactly(optimizer, dataset, tmp_path):
    recipe = recipe_of("medsaga")
    recipe = replace(recipe, image_encoder=replace(recipe.image_encoder, optimizer=optimizer))
    whole = training.train(recipe, dataset, 4, tmp_path / "whole", **SMALL)
    training.train(recipe, dataset, 4, tmp_path / "parts", stop_after=3, **SMALL)
    parts = training.train(recipe, dataset, 4, tmp_path / "parts", **SMALL)
    assert equal(whole.model.state_dict(), parts.model.state_dict())
    galore = training.train(recipe_of("medsaga"), dataset, 4, **SMALL).model.state_dict()
    assert not equal(galore, whole.model.state_dict())
    with pytest.raises(UserError, match=f"no per-layer updates for {optimizer}"):
        training.train(recipe, dataset, 4, per_layer=True, **SMALL)


def test_per_layer_updates_cannot_wait_for_several_passes(dataset):
    with pytest.raises(UserError, match="--accumulate 1"):
        training.train(recipe_of("samed"), dataset, 4, per_layer=True, accumulate=3, **SMALL)


def test_accumulated_passes_add_up(dataset):
    """With cross-entropy alone, which is a mean over images, passes give the batch's gradient."""
    recipe = recipe_of("samed", steps=2, batch=4, ce_weight=1.0, dice_weight=0.0)
    whole = training.train(recipe, dataset, 4, **SMALL)
    parts = training.train(recipe, dataset, 4, accumulate=2, **SMALL)
    for key, value in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[key], value, atol=2e-4, rtol=1e-2)
    assert parts.log[0]["loss"] == pytest.approx(whole.log[0]["loss"], rel=1e-5)


def test_two_processes_train_what_one_does(phantoms, tmp_path):
    """Again with cross-entropy alone; each process has half of every batch, one of them speaks."""
    launchers = {"one": [], "two": ["-m", "torch.distributed.run", "--nproc-per-node", "2"]}
    train = f"medsaga_lib.cli train samed --data {phantoms} --shots 4 --weights random --size 64"
    train += " --steps 2 --batch 4 --set ce_weight=1 --set dice_weight=0 --json --out"
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    for name, launcher in launchers.items():
        words = [*launcher, "-m", *train.split(), str(tmp_path / name)]
        done = subprocess.run(
            [sys.executable, *words], check=True, env=environment, stdout=subprocess.PIPE
        )
        assert json.loads(done.stdout)["steps"] == 2
    one, two = (weights_of(tmp_path / name) for name in launchers)
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=2e-4, rtol=1e-2, msg=key)
    before = build_model(recipe_of("samed"), "pocket", 64, 3, "random").state_dict()
    assert not equal(one, before)


def test_a_batch_that_cannot_be_divided(dataset):
    with pytest.raises(UserError, match="A batch of 3 cannot be made of 2 equal passes"):
        training.train(recipe_of("samed"), dataset, 4, accumulate=2, **SMALL)


def test_other_weights_in_the_same_file_are_refused(dataset, tmp_path):
    weights, options = tmp_path / "mine.safetensors", SMALL | {"size": 64}
    for seed, expected in ((0, nullcontext()), (1, pytest.raises(UserError, match="other pocket"))):
        torch.manual_seed(seed)
        save_file(build_sam("pocket").state_dict(), weights)
        with expected:
            options["weights"] = str(weights)
            training.train(recipe_of("samed", steps=1), dataset, 4, tmp_path / "run", **options)


@pytest.mark.parametrize(
    ("steps", "taken"), [(7, [1, 3, 5, 6]), (11, [2, 5, 8, 10]), (3, [0, 1, 2])]
)
def test_validations_are_as_many_as_asked_and_the_last_is_at_the_end(dataset, steps, taken):
    recipe = recipe_of("frozen_encoder", steps=steps)
    log = training.train(recipe, dataset, 4, **(SMALL | {"validations": 4})).log
    assert [row["step"] for row in log if np.isfinite(row["val_dice"])] == taken


def test_precisions_have_names(dataset):
    with pytest.raises(UserError, match="'fp16'; choose fp32 or bf16"):
        training.train(recipe_of("samed"), dataset, 4, precision="fp16", **SMALL)


def test_bf16_trains_and_keeps_fp32_weights(dataset):
    result = training.train(recipe_of("medsaga", steps=2), dataset, 4, precision="bf16", **SMALL)
    assert all(p.dtype == torch.float32 for p in result.model.parameters())
    assert np.isfinite([row["loss"] for row in result.log]).all()


def test_a_loss_that_is_no_number_stops_with_advice(dataset, tmp_path):
    recipe = recipe_of("samed", steps=4, lr=1e30)
    with pytest.raises(UserError, match="lower the learning rate"):
        training.train(recipe, dataset, 4, tmp_path / "run", **SMALL)


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name].steps])
def test_only_what_the_recipe_names_is_trained(name, dataset):
    recipe = recipe_of(name, steps=2)
    before = build_model(recipe, "pocket", 64, 3, "random").state_dict()
    model = training.train(recipe, dataset, 4, **SMALL).model
    changed = {k for k, v in model.state_dict().items() if not v.equal(before[k])}
    assert changed <= set(learned(model))
    # without a prompt, these see no gradient (METHODS: "in practice without gradient")
    silent = ["iou_prediction_head", "mask_downscaling", "point_embeddings", "not_a_point", "iou_"]
    if recipe.head in ("points", "boxes"):  # token 0 alone answers
        silent += [f"hypernetworks_mlps.{other}" for other in (1, 2, 3)]
    for key in set(learned(model)) - changed:
        assert any(part in key for part in silent), key


def test_four_images_can_be_learned_by_heart(dataset):
    recipe = recipe_of("medsaga", steps=120, batch=4, augmentation="none")
    recipe = replace(recipe, image_encoder=get_recipe("medsaga").image_encoder)
    result = training.train(recipe, dataset, 4, **SMALL)
    samples = choose_shots(dataset, 4, 64, 0)
    assert training.validation_dice(result.model, samples) > 0.95


@pytest.mark.parametrize("kind", ["points", "boxes"])
def test_prompted_runs_resume_exactly_and_are_validated_with_the_truths_prompts(
    kind, dataset, tmp_path
):
    recipe = recipe_of("samed", head=kind, weight_decay=0.0)
    whole = training.train(recipe, dataset, 4, tmp_path / "whole", **(SMALL | {"validations": 1}))
    training.train(recipe, dataset, 4, tmp_path / "parts", stop_after=3, **SMALL)
    training.train(recipe, dataset, 4, tmp_path / "parts", **SMALL)
    assert equal(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"))
    assert np.isfinite(whole.log[-1]["val_dice"])
    before = build_model(recipe, "pocket", 64, 3, "random").state_dict()
    after, asked = whole.model.state_dict(), {"points": (1,), "boxes": (2, 3)}[kind]
    for number in range(4):  # negative, positive, and a box's two corners
        key = f"sam.prompt_encoder.point_embeddings.{number}.weight"
        assert (number in asked) != before[key].equal(after[key])


def test_prompts_are_drawn_from_the_changed_label(dataset):
    ask = partial(draw_prompts, "points", (1, 2, 3))
    samples = Samples(dataset, dataset.split("train")[:3], 64)
    for place in range(3):
        batches = Batches(samples, 3, Augment("samed"), seed=2, ask=ask)
        _, label, coordinates, roles = batches[4, place]
        assert (roles[:, 0] == POSITIVE).all()
        for value, (x, y) in enumerate(coordinates[:, 0].int().tolist(), start=1):
            assert label[y, x] == value


def test_shots_are_nested_and_come_from_the_training_split(dataset):
    few, more = (choose_shots(dataset, n, 64, seed=5) for n in (3, 6))
    assert set(sample_names(few)) < set(sample_names(more))
    assert set(sample_names(more)) <= {case.name for case in dataset.split("train")}


def test_each_epoch_holds_every_sample_once(dataset):
    samples = Samples(dataset, dataset.split("train")[:5], 32)
    batches = Batches(samples, batch=3, augment=Augment("none"), seed=0)
    places = [(step, place) for step in range(10) for place in range(3)]
    drawn = [int(batches[place][0].sum() * 100) for place in places]
    own = sorted(int(samples[i]["image"].sum() * 100) for i in range(5))
    for epoch in range(6):
        assert sorted(drawn[5 * epoch : 5 * epoch + 5]) == own
    assert drawn[:5] != drawn[5:10]


def test_the_learning_rate_is_the_published_one_for_a_published_run():
    recipe = replace(get_recipe("samed"), steps=18_600)
    for step in (0, 100, 249, 250, 1000, 18_599):
        wanted = warmup_polynomial(step, 0.005, 250, 18_600)
        assert recipe.lr * training.learning_rate_factor(recipe, step) == pytest.approx(wanted)


def test_labels_are_reduced_to_the_pixel_at_the_middle():
    labels = torch.arange(64).reshape(1, 8, 8)
    small = training.reduce_labels(labels, torch.zeros(1, 2, 2, 2))
    assert small.tolist() == [[[18, 22], [50, 54]]]


def test_validation_dice_by_hand(dataset, monkeypatch):
    samples = Samples(dataset, dataset.split("val"), 64)
    model = build_model(get_recipe("samed"), "pocket", 64, 3, "random").eval()
    measured = training.validation_dice(model, samples)
    truth, guess = [], []
    with torch.no_grad():
        for i in range(len(samples)):
            logits = model(samples[i]["image"][None])
            guess.append(logits.argmax(1).flatten())
            truth.append(training.reduce_labels(samples[i]["label"][None], logits).flatten())
    truth, guess = torch.cat(truth), torch.cat(guess)
    dice = [
        2 * ((truth == c) & (guess == c)).sum() / ((truth == c).sum() + (guess == c).sum())
        for c in (1, 2, 3)
    ]
    assert measured == pytest.approx(float(torch.stack(dice).mean()), rel=1e-6)
