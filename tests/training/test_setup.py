"""How settings become a run: what is left open is filled in, and what makes no sense is refused."""

import json
from dataclasses import replace

import pytest
from runs import SMALL, short, train

from medsaga_lib.errors import UserError
from medsaga_lib.models.feeding import FEEDS
from medsaga_lib.recipes import get_recipe
from medsaga_lib.training.run_folder import RUN_FILE, Settings
from medsaga_lib.training.setup import resolve


def settings_of(recipe, dataset, **given):
    """The settings of a run with nothing left open."""
    return resolve(recipe, dataset, Settings(shots=4, **given))[1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"per_layer": True, "accumulate": 3}, "--accumulate 1"),
        ({"per_layer": True, "changes": ("clip_norm=1",)}, "omit --per-layer or clip_norm"),
        ({"accumulate": 2}, "A batch of 3 cannot be split into 2 equal passes"),
        ({"precision": "fp16"}, "'fp16'; choose fp32 or bf16"),
        ({"feed": "blur"}, "no feed 'blur'; choose one of squeeze, "),
        ({"size": 100}, "multiple of 16"),
        ({"backbone": "vit_z"}, "vit_z"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(
    given, said, dataset, tmp_path
):
    with pytest.raises(UserError, match=said):
        train(short("samed"), dataset, 4, tmp_path / "run", **(SMALL | given))
    assert not (tmp_path / "run").exists()


def test_a_batch_is_shared_by_processes_and_passes(dataset):
    settings = Settings(shots=4, accumulate=2)
    resolve(short("samed", batch=12), dataset, settings, processes=3)
    with pytest.raises(UserError, match=r"A batch of 8 cannot be split into 2 .* in 3 processes"):
        resolve(short("samed", batch=8), dataset, settings, processes=3)


def test_a_network_without_a_backbone_says_so(dataset):
    chosen = settings_of(get_recipe("unet"), dataset)
    assert (chosen.backbone, chosen.weights) == ("none", "random")
    with pytest.raises(UserError, match=r"unet has no backbone for mine\.pth; omit --weights"):
        settings_of(get_recipe("unet"), dataset, weights="mine.pth")


def test_a_recipe_without_steps_needs_no_shots(dataset):
    assert settings_of(get_recipe("sam_zero_shot"), dataset).shots == 0


@pytest.mark.parametrize(
    ("backbone", "feed"),
    [("pocket", "squeeze"), ("vit_b", "longest_side"), ("medsam", "medsam"),
     ("lite_medsam", "lite_medsam")],
)  # fmt: skip
def test_a_backbone_has_a_feed_and_another_may_be_chosen(backbone, feed, dataset):
    recipe = get_recipe("samed")
    assert settings_of(recipe, dataset, backbone=backbone).feed == feed
    for other in FEEDS:
        assert settings_of(recipe, dataset, backbone=backbone, feed=other).feed == other


def test_a_new_run_names_its_feed(dataset, tmp_path):
    recipe = short("decoder_only", steps=1, batch=1)
    train(recipe, dataset, 1, tmp_path, backbone="lite_medsam", **(SMALL | {"size": 32}))
    assert json.loads((tmp_path / RUN_FILE).read_text())["settings"]["feed"] == "lite_medsam"


def test_labels_that_no_training_image_shows_are_named(dataset, tmp_path):
    assert train(short("unet", steps=1), dataset, 2, **SMALL).absent == ()
    more = replace(dataset, labels=dataset.labels | {9: "spleen"})
    result = train(short("unet", steps=1), more, 2, tmp_path / "run", **SMALL)
    assert result.absent == ("spleen",)
    assert train(short("unet", steps=1), more, 2, tmp_path / "run", **SMALL).absent == ("spleen",)
