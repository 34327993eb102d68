"""From a run to label maps: sizes, label values, affines, volumes slice by slice."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import save_file

from medsaga_lib import training
from medsaga_lib.backbones.sam import build_sam
from medsaga_lib.consistency import consistent
from medsaga_lib.data.folder import open_dataset
from medsaga_lib.data.images import Picture, read_case_mask, read_image
from medsaga_lib.errors import UserError
from medsaga_lib.inference import evaluate_run, evaluation_folder, load_run, predict_files
from medsaga_lib.recipes import get_recipe
from medsaga_lib.runs import CHECKPOINT_FILE, RUN_FILE


@pytest.fixture(scope="module")
def run(phantoms, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "samed"
    recipe = replace(get_recipe("samed"), steps=30, batch=4)
    options = {"weights": "random", "size": 64, "progress": False}
    training.train(recipe, open_dataset(phantoms), 6, folder, **options)
    return folder


def test_the_loaded_network_is_the_trained_one(run, phantoms):
    recipe = replace(get_recipe("samed"), steps=30, batch=4)
    options = {"weights": "random", "size": 64, "progress": False}
    trained = training.train(recipe, open_dataset(phantoms), 6, **options).model
    loaded = load_run(run).model
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert trained(image).equal(loaded(image))


def test_a_picture_keeps_its_size_and_uses_the_labels(run, phantoms):
    predictor = load_run(run)
    path = open_dataset(phantoms).split("test")[0].image
    picture = read_image(path, "X-ray")
    prediction = predictor(picture)
    assert prediction.shape == picture.shape
    assert prediction.dtype == np.int64
    assert set(np.unique(prediction)) <= {0, 1, 2, 3}


def test_label_values_need_not_be_consecutive(run):
    predictor = load_run(run)
    picture = Picture(np.random.default_rng(0).random((40, 50), dtype=np.float32), (1.0, 1.0), None)
    plain = predictor(picture)
    renamed = replace(predictor, labels={10: "a", 20: "b", 70: "c"})(picture)
    assert np.array_equal(renamed, np.array([0, 10, 20, 70])[plain])


def test_a_volume_is_its_slices(run):
    predictor = load_run(run)
    volume = np.random.default_rng(0).random((11, 30, 40), dtype=np.float32)
    whole = predictor(Picture(volume, (2.0, 1.0, 1.0), None))
    assert whole.shape == volume.shape
    for z in (0, 7, 10):  # before, in and after the first batch of slices
        one = predictor(Picture(volume[z], (1.0, 1.0), None))
        assert (whole[z] != one).mean() < 1e-3  # another batch size, other rounding


@pytest.mark.parametrize("axis", [1, 2])
def test_a_volume_is_cut_across_any_axis(run, axis):
    predictor = load_run(run)
    volume = np.random.default_rng(0).random((6, 7, 9), dtype=np.float32)
    across = predictor(Picture(volume, (1.0,) * 3, None), axis)
    turned = predictor(Picture(np.moveaxis(volume, axis, 0), (1.0,) * 3, None))
    assert across.shape == volume.shape
    assert np.array_equal(np.moveaxis(across, axis, 0), turned)
    voted = predictor(Picture(volume, (1.0,) * 3, None), axis, "majority")
    assert not np.array_equal(voted, across)
    assert np.array_equal(np.moveaxis(voted, axis, 0), consistent(turned, "majority"))


def test_files_of_each_kind(run, tmp_path):
    predictor = load_run(run)
    random = np.random.default_rng(0)
    grey = (random.random((30, 40)) * 255).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / "b.jpg", quality=100)
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3.0, 9], [0, 0, 0, 1]])
    volume = random.random((20, 24, 5)).astype(np.float32)  # x, y, z
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "c.nii.gz")
    np.savez(tmp_path / "d.npz", imgs=np.stack([grey, grey]))

    inputs = [tmp_path / name for name in ("a.png", "b.jpg", "c.nii.gz", "d.npz")]
    records = list(predict_files(predictor, inputs, tmp_path / "out"))
    written = {p.name for p in (tmp_path / "out").iterdir()}
    assert written == {
        "a_labels.png", "a_overlay.png", "b_labels.png", "b_overlay.png",
        "c_labels.nii.gz", "d.npz",
    }  # fmt: skip
    labels = np.asarray(Image.open(tmp_path / "out/a_labels.png"))
    assert np.array_equal(labels, predictor(read_image(inputs[0], "X-ray")))
    assert records[0]["voxels"]["heart"] == int((labels == 3).sum())

    result = nibabel.load(tmp_path / "out/c_labels.nii.gz")
    assert np.array_equal(result.affine, affine)
    expected = predictor(read_image(inputs[2], "X-ray"))
    assert np.array_equal(np.asarray(result.dataobj), expected.T)
    assert np.load(tmp_path / "out/d.npz")["segs"].shape == (2, 30, 40)


def test_two_inputs_for_one_result_are_refused_before_anything_is_written(run, tmp_path):
    for name in ("a.png", "a.jpg"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name)
    inputs = [tmp_path / "a.png", tmp_path / "a.jpg"]
    with pytest.raises(UserError, match=r"a\.jpg and .*a\.png would both be written to"):
        list(predict_files(load_run(run), inputs, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_stack_that_no_png_can_hold_is_refused_before_it_is_predicted(run, tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((3, 8, 8), np.uint8), photometric="minisblack")
    predictor = load_run(run)
    monkeypatch.setattr(type(predictor), "__call__", lambda *_: pytest.fail("it was predicted"))
    with pytest.raises(UserError, match=r"a\.tif: holds 3 slices, .*; save the stack as NIfTI"):
        list(predict_files(predictor, [tmp_path / "a.tif"], tmp_path / "out"))


@pytest.mark.parametrize("name", ["scan.npz", "a_labels.png", "a_overlay.png"])
def test_an_input_is_never_overwritten(run, tmp_path, name):
    pixels = np.zeros((8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    if name.endswith("npz"):
        np.savez(tmp_path / name, imgs=pixels)
    else:
        Image.fromarray(pixels).save(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(UserError, match=f"{name} is an input and would be lost"):
        list(predict_files(load_run(run), [tmp_path / "a.png", tmp_path / name], tmp_path))
    assert (tmp_path / name).read_bytes() == before


def test_evaluation_writes_csv_json_and_figure(run, phantoms, tmp_path):
    dataset = open_dataset(phantoms)
    evaluation = evaluate_run(run, dataset, "test", tmp_path / "e")
    assert {p.name for p in (tmp_path / "e").iterdir()} == {
        "cases.csv", "summary.json", "figure.png",
    }  # fmt: skip
    summary = json.loads((tmp_path / "e/summary.json").read_text())
    assert {"dice", "hd95", "nsd", "classes", "cases"} <= set(summary)
    assert [c["name"] for c in summary["classes"]] == ["right lung", "left lung", "heart"]
    assert len(summary["cases"]) == len(dataset.split("test"))
    assert evaluation.summary()["dice"] == pytest.approx(summary["dice"])
    assert (summary["data"], summary["split"]) == (dataset.name, "test")
    assert Image.open(tmp_path / "e/figure.png").width > 600


def test_a_mask_that_is_not_its_images_is_not_scored(run, phantoms, tmp_path):
    dataset = open_dataset(phantoms)
    case = dataset.split("test")[0]
    values = read_case_mask(case).values.astype(np.uint8)
    values[0, 0] = 9
    Image.fromarray(values).save(tmp_path / "mask.png")
    wrong = replace(dataset, cases=(replace(case, mask=tmp_path / "mask.png"),))
    with pytest.raises(UserError, match=r"mask\.png.*9"):
        evaluate_run(run, wrong, "test", tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_no_evaluation_replaces_another(run, phantoms):
    dataset = open_dataset(phantoms)
    folders = [
        evaluation_folder(run, dataset, "test"),
        evaluation_folder(run, dataset, "val"),
        evaluation_folder(run, replace(dataset, name="other"), "test"),
    ]
    names = ["evaluation", f"evaluation-{dataset.name}-val", "evaluation-other-test"]
    assert folders == [run / name for name in names]


def test_labels_must_be_those_of_the_run(run, phantoms, tmp_path):
    dataset = replace(open_dataset(phantoms), labels={1: "spleen"})
    with pytest.raises(UserError, match=r"has the labels .*spleen.*was trained for .*heart"):
        evaluate_run(run, dataset, "test", tmp_path)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"is no run: it has no run\.json"):
        load_run(tmp_path)


@pytest.mark.parametrize("content", ["{", '{"settings": {}}', "without labels"])
def test_a_damaged_run_file(run, tmp_path, content):
    if content == "without labels":
        content = json.dumps({"settings": json.loads((run / RUN_FILE).read_text())["settings"]})
    (tmp_path / RUN_FILE).write_text(content)
    with pytest.raises(UserError, match=r"run\.json is damaged .* delete .* and train"):
        load_run(tmp_path)


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "scan.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"scan\.png is no run"):
        load_run(tmp_path / "scan.png")


def test_a_run_before_its_first_checkpoint(run, tmp_path):
    (tmp_path / RUN_FILE).write_bytes((run / RUN_FILE).read_bytes())
    with pytest.raises(UserError, match="has no checkpoint yet"):
        load_run(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "other tensors"])
def test_a_bad_checkpoint(run, tmp_path, damage):
    (tmp_path / RUN_FILE).write_bytes((run / RUN_FILE).read_bytes())
    whole = (run / CHECKPOINT_FILE).read_bytes()
    path = tmp_path / CHECKPOINT_FILE
    path.write_bytes({"truncated": whole[:-100], "text": b"hello"}.get(damage, b""))
    if damage == "other tensors":
        save_file({"weights.a": torch.zeros(1)}, path, metadata={"step": "1"})
    with pytest.raises(UserError, match=r"cannot be read as a checkpoint|does not fit"):
        load_run(tmp_path)


@pytest.mark.parametrize("recipe", ["samed", "s_sam"])
def test_a_run_may_start_from_any_file_of_the_backbone(phantoms, tmp_path, recipe):
    file, folder = tmp_path / "mine.safetensors", tmp_path / "run"
    save_file(build_sam("pocket").state_dict(), file)
    short = replace(get_recipe(recipe), steps=2, batch=2)
    options = {"weights": str(file), "size": 64, "progress": False, "validations": 0}
    trained = training.train(short, open_dataset(phantoms), 4, folder, **options).model.eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(load_run(folder).model(image), trained(image))

    save_file(build_sam("pocket").state_dict(), file)  # drawn anew
    with pytest.raises(UserError, match=r"made on other pocket weights than those in .*mine"):
        load_run(folder)
    file.unlink()
    with pytest.raises(UserError, match=r"Cannot read .*mine.safetensors"):
        load_run(folder)
    with pytest.raises(UserError, match=r"no checkpoint at .*mine.safetensors"):
        training.train(short, open_dataset(phantoms), 4, tmp_path / "new", **options)
    with pytest.raises(UserError, match=r"unet has no backbone for .*mine.safetensors; leave"):
        training.train(get_recipe("unet"), open_dataset(phantoms), 4, tmp_path / "new", **options)


@pytest.fixture(scope="module", params=["points", "boxes"])
def prompted(request, phantoms, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / request.param
    recipe = replace(get_recipe("samed"), steps=2, batch=2)
    options = {"weights": "random", "size": 64, "progress": False, "validations": 0}
    changes = [f"head={request.param}"]
    training.train(recipe, open_dataset(phantoms), 4, folder, changes=changes, **options)
    return folder


def test_evaluation_asks_with_the_truth_and_says_so(prompted, phantoms, tmp_path):
    dataset = open_dataset(phantoms)
    evaluation = evaluate_run(prompted, dataset, "test", tmp_path / "e")
    summary = json.loads((tmp_path / "e/summary.json").read_text())
    told = {"points": "pixel of each label in each slice of the truth", "boxes": "box of each"}
    assert told[prompted.name] in summary["prompts"]
    again = evaluate_run(prompted, dataset, "test", tmp_path / "f")
    assert evaluation.table.equals(again.table)


def test_pictures_have_no_axis_to_be_cut_across(run, phantoms, tmp_path):
    path = open_dataset(phantoms).split("test")[0].image
    for words in ((1, "none"), (0, "largest")):
        with pytest.raises(UserError, match="no volume; leave --axis and --consistency"):
            list(predict_files(load_run(run), [path], tmp_path, *words))


def test_a_prompted_run_needs_prompts_for_files(prompted, phantoms, tmp_path):
    path = open_dataset(phantoms).split("test")[0].image
    with pytest.raises(UserError, match=f"asked by {prompted.name}.*medsaga evaluate"):
        list(predict_files(load_run(prompted), [path], tmp_path))


def test_prompts_are_in_pixels_of_the_picture(prompted):
    """Twice as wide as high: segment_anything multiplies coordinates by the ratio of sizes."""
    from torch.nn.functional import interpolate

    from medsaga_lib.data.prompts import draw_prompts
    from medsaga_lib.data.samples import squeeze

    predictor = load_run(prompted)
    pixels = np.random.default_rng(0).random((64, 128), dtype=np.float32)
    labels = np.zeros((64, 128), int)
    labels[10:30, 20:100], labels[40:60, 5:30] = 1, 3
    drawn = draw_prompts(predictor.model.kind, (1, 2, 3), labels, 0)
    one = type(drawn)(drawn.coordinates[None], drawn.roles[None])
    prediction = predictor(Picture(pixels, (1.0, 1.0), None), prompts=one)
    half = torch.tensor([0.5, 1.0])
    image, _ = squeeze(torch.tensor(pixels)[None, None], torch.zeros(1, 64, 128), 64)
    with torch.no_grad():
        logits = predictor.model(image.expand(-1, 3, -1, -1), one.coordinates * half, one.roles)
    logits = interpolate(logits, (64, 128), mode="bilinear")
    assert np.array_equal(prediction, logits.argmax(1)[0])
    assert not (prediction == 2).any()  # was not asked for
