"""The folder of a run: which run it accepts, and how a folder of an older version is read.

What a damaged folder says is in tests/inference/test_predictor.py, beside `load_run`.
"""

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from runs import SMALL, equal, short, train, weights_of
from safetensors.torch import save_file

from medsaga_lib.data import images
from medsaga_lib.data.catalog import open_dataset
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


# What a run was trained on


@pytest.fixture(scope="module")
def of_ct(tmp_path_factory):
    """A run on 2 CT volumes of 5 x 0.8 x 0.8 mm, and the folder of its data."""
    root = tmp_path_factory.mktemp("ct")
    write_ct(root, "train", (0.8, 0.8, 5.0))
    train(short("unet", steps=1), open_dataset(root), 4, root / "run", **TINY)
    return root


def write_ct(root, split, spacing, values=(-1000, 1000)):
    """Write a data set of 2 volumes."""
    root.mkdir(exist_ok=True)
    (root / "dataset.toml").write_text(
        'name = "v"\nmodality = "CT"\ndimensions = 3\nmasks = "labels"\n[labels]\n1 = "organ"\n'
    )
    mask = np.zeros((12, 10, 4), np.uint8)
    mask[3:6, 2:9] = 1
    rows = ["case,image,mask,split"]
    for name in "ab":
        image = np.random.default_rng(ord(name)).integers(*values, mask.shape).astype(np.int16)
        for kind, array in (("i", image), ("m", mask)):
            volume = nib.Nifti1Image(array, np.diag([*spacing, 1.0]))
            nib.save(volume, root / f"{name}{kind}.nii")
        rows.append(f"{name},{name}i.nii,{name}m.nii,{split}")
    (root / "index.csv").write_text("\n".join(rows))


def test_a_run_records_what_its_images_are_like(of_ct):
    domain = json.loads((of_ct / "run" / RUN_FILE).read_text())["domain"]
    assert domain["orientations"] == ["RAS"]
    assert np.allclose(domain["spacing_mm"], [[5.0, 0.8, 0.8]] * 2)
    assert domain["size"] == [[4, 10, 12]] * 2
    assert (domain["types"], domain["bits"]) == (["int16"], [10, 10])
    assert (domain["window"], domain["rules"]) == ([[-160, 240]] * 2, ["CT"])


def test_train_says_a_window_that_is_not_declared(of_ct, medsaga):
    words = "train", "unet", "--data", of_ct, "--shots", 4, "--out", of_ct / "run"
    more = "--size", 32, "--steps", 1, "--batch", 3
    code, out, err = medsaga(*words, *more)
    assert (code, err) == (0, "")
    assert "values of -160 become black and values of 240 white (the window of CT)" in out


def test_images_far_from_the_training_images_are_named(of_ct, tmp_path, medsaga):
    write_ct(tmp_path / "near", "test", (0.8, 0.8, 4.0))
    write_ct(tmp_path / "far", "test", (0.8, 0.8, 1.0), (0, 255))
    run = of_ct / "run"
    for name, count in (("near", 0), ("far", 2)):
        path = tmp_path / name / "ai.nii"
        code, out, err = medsaga("predict", run, path, "--out", tmp_path / name / "out")
        assert (code, err.count("medsaga: note: ")) == (0, count)
        scores = "evaluate", run, "--data", tmp_path / name, "--out", tmp_path / name / "scores"
        code, out, err = medsaga(*scores, "--json")
        assert (code, err.count("medsaga: note: ")) == (0, count)
        assert len(json.loads(out).get("notes", [])) == count
    assert "ai.nii: has the spacing 1 x 0.8 x 0.8 mm, not 5 x 0.8 x 0.8 mm as the train" in err
    assert "as the training images, as 1 more of the 2 images; the scores say little" in err
    assert "has values from 0 to 254, a range of 254 and not of" in err


def test_a_run_without_a_record_has_no_notes(of_ct, tmp_path):
    older = tmp_path / "older"
    shutil.copytree(of_ct / "run", older)
    content = json.loads((older / RUN_FILE).read_text())
    del content["domain"]
    (older / RUN_FILE).write_text(json.dumps(content))
    write_ct(tmp_path / "far", "test", (0.8, 0.8, 1.0))
    scores = evaluate_run(older, open_dataset(tmp_path / "far"), "test", tmp_path / "scores")
    assert scores.notes == ()
    train(short("unet", steps=1), open_dataset(of_ct), 4, older, **TINY)
    content["domain"] = {"orientations": ["RAS"]}
    (older / RUN_FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        read_run(older)


def test_a_run_is_not_continued_on_images_of_another_spacing(of_ct, tmp_path):
    write_ct(tmp_path / "other", "train", (0.8, 0.8, 4.0))
    with pytest.raises(UserError, match="was trained on other data with the name v"):
        train(short("unet", steps=1), open_dataset(tmp_path / "other"), 4, of_ct / "run", **TINY)


def test_evaluation_reads_each_image_once(of_ct, tmp_path, monkeypatch):
    write_ct(tmp_path / "more", "test", (0.8, 0.8, 5.0))
    seen = []
    read = images.volumes.read_nifti
    monkeypatch.setattr(images.volumes, "read_nifti", lambda path: seen.append(path) or read(path))
    monkeypatch.setattr("medsaga_lib.evaluation.of_a_run._write_figure", lambda *_: None)
    evaluate_run(of_ct / "run", open_dataset(tmp_path / "more"), "test", tmp_path / "scores")
    assert sorted(path.name for path in seen) == ["ai.nii", "am.nii", "bi.nii", "bm.nii"]
