"""The folder of a run: which run it accepts, and how a folder of an older version is read.

What a damaged folder says is in tests/inference/test_predictor.py, beside `load_run`.
"""

import json
from dataclasses import replace

import pytest
import torch
from runs import SMALL, equal, short, train, weights_of
from safetensors.torch import save_file

from medsaga_lib.errors import UserError
from medsaga_lib.evaluation.of_a_run import evaluate_run
from medsaga_lib.inference.predictor import load_run
from medsaga_lib.models.sam import build_sam
from medsaga_lib.training import loop
from medsaga_lib.training.run_folder import RUN_FILE, read_checkpoint, read_run

TINY = SMALL | {"size": 32}


def test_another_run_in_the_same_folder_is_refused(dataset, tmp_path):
    train(short("samed", steps=1), dataset, 4, tmp_path / "run", **SMALL)
    with pytest.raises(UserError, match=r"holds another run \(shots = 4, not 2\)"):
        train(short("samed", steps=1), dataset, 2, tmp_path / "run", **SMALL)
    other = replace(dataset, labels=dataset.labels | {1: "liver"})
    with pytest.raises(UserError, match="trained on other data with the name"):
        train(short("samed", steps=1), other, 4, tmp_path / "run", **SMALL)
    higher = short("samed", steps=1, lr=0.1)
    with pytest.raises(UserError, match="other values of samed than the current"):
        train(higher, dataset, 4, tmp_path / "run", **SMALL)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/me.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"photos exists and is not a run"):
        train(short("samed"), dataset, 4, tmp_path / "photos", **SMALL)
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["me.jpg"]


def test_other_weights_in_the_same_file_are_refused(dataset, tmp_path):
    weights, recipe = tmp_path / "mine.safetensors", short("samed", steps=1)
    given = SMALL | {"weights": str(weights)}
    torch.manual_seed(0)
    save_file(build_sam("pocket").state_dict(), weights)
    train(recipe, dataset, 4, tmp_path / "run", **given)
    train(recipe, dataset, 4, tmp_path / "run", **given)  # the same weights are accepted
    save_file(build_sam("pocket").state_dict(), weights)  # drawn anew
    with pytest.raises(UserError, match="other pocket weights"):
        train(recipe, dataset, 4, tmp_path / "run", **given)


# Folders of older versions


def make_older(folder, network=None, stagger=None):
    """Rewrite a run's folder as the version before feeds wrote it."""
    path = folder / RUN_FILE
    content = json.loads(path.read_text())
    del content["settings"]["feed"]
    del content["recipe"]["network"]
    if network is not None:
        content["recipe"]["image_encoder"] = {"network": network}
    if stagger is not None:
        content["recipe"]["image_encoder"]["stagger"] = stagger
    path.write_text(json.dumps(content))


@pytest.fixture
def save_often(monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 1)


@pytest.mark.parametrize(
    ("name", "older"),
    [("samed", {}), ("unet", {"network": "unet"}), ("medsaga", {"stagger": False})],
)
def test_an_older_run_is_read_evaluated_and_gone_on_with(
    name, older, dataset, tmp_path, save_often
):
    recipe = short(name, steps=3)
    train(recipe, dataset, 4, tmp_path / "whole", **TINY)
    train(recipe, dataset, 4, tmp_path / "older", stop_after=2, **TINY)
    make_older(tmp_path / "older", **older)
    assert read_run(tmp_path / "older")["settings"]["feed"] == "squeeze"
    scores = evaluate_run(tmp_path / "older", dataset, "test", tmp_path / "scores")
    assert scores.table["dice"].between(0, 1).all()
    train(recipe, dataset, 4, tmp_path / "older", **TINY)
    assert read_checkpoint(tmp_path / "older").step == 3
    assert equal(weights_of(tmp_path / "older"), weights_of(tmp_path / "whole"))


def test_an_older_run_with_another_value_of_an_option_that_is_gone_is_refused(dataset, tmp_path):
    train(short("medsaga", steps=1), dataset, 4, tmp_path, **TINY)
    make_older(tmp_path, stagger=True)
    with pytest.raises(UserError, match="other values of medsaga than the current"):
        train(short("medsaga", steps=1), dataset, 4, tmp_path, **TINY)


def test_an_older_run_with_another_network_is_refused(dataset, tmp_path):
    train(short("unet", steps=1), dataset, 4, tmp_path, **TINY)
    make_older(tmp_path, network="segresnet")
    with pytest.raises(UserError, match="other values of unet than the current"):
        train(short("unet", steps=1), dataset, 4, tmp_path, **TINY)


def test_an_older_run_keeps_its_feed_where_the_backbone_has_another(dataset, tmp_path, save_often):
    """Today LiteMedSAM has a feed of its own. An older run squeezed pictures and continues so."""
    recipe = short("decoder_only", steps=2, batch=1)
    lite = TINY | {"backbone": "lite_medsam"}
    for folder in ("whole", "older"):
        stop = 1 if folder == "older" else None
        train(recipe, dataset, 1, tmp_path / folder, stop, feed="squeeze", **lite)
    make_older(tmp_path / "older")
    assert load_run(tmp_path / "older").feed.name == "squeeze"
    with pytest.raises(UserError, match="feed = 'squeeze', not 'lite_medsam'"):
        train(recipe, dataset, 1, tmp_path / "older", feed="lite_medsam", **lite)
    train(recipe, dataset, 1, tmp_path / "older", **lite)
    assert equal(weights_of(tmp_path / "older"), weights_of(tmp_path / "whole"))
    new = train(recipe, dataset, 1, **lite).model.state_dict()
    old = weights_of(tmp_path / "whole")
    assert not equal({key: new[key] for key in old}, old)
