"""From a run to label maps: sizes, label values, affines, volumes slice by slice."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from runs import SMALL, prompted_run, train
from safetensors.torch import save_file

from medsaga_lib.data.images import Picture, read_image
from medsaga_lib.errors import UserError
from medsaga_lib.inference.predictor import highest, load_run, predict_files
from medsaga_lib.inference.volume_labels import consistent
from medsaga_lib.models.sam import build_sam
from medsaga_lib.recipes import get_recipe
from medsaga_lib.training.run_folder import CHECKPOINT_FILE, RUN_FILE


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    """The folder of a run, and the network that its training returned."""
    folder = tmp_path_factory.mktemp("runs") / "samed"
    recipe = replace(get_recipe("samed"), steps=20, batch=4)
    return folder, train(recipe, dataset, 6, folder, **SMALL).model


@pytest.fixture
def run(trained):
    return trained[0]


def test_the_loaded_network_is_the_trained_one(trained):
    folder, model = trained
    loaded = load_run(folder).model
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert model(image).equal(loaded(image))


def test_a_picture_keeps_its_size_and_uses_the_labels(run, dataset):
    predictor = load_run(run)
    path = dataset.split("test")[0].image
    picture = read_image(path, "X-ray")
    prediction = predictor(picture)
    assert prediction.shape == picture.shape
    assert prediction.dtype == np.int64
    assert set(np.unique(prediction)) <= {0, 1, 2, 3}


def test_label_values_need_not_be_consecutive(run):
    predictor = load_run(run)
    picture = Picture(np.random.default_rng(0).random((40, 50), dtype=np.float32), (1.0, 1.0))
    plain = predictor(picture)
    renamed = replace(predictor, labels={10: "a", 20: "b", 70: "c"})(picture)
    assert np.array_equal(renamed, np.array([0, 10, 20, 70])[plain])


def test_a_volume_is_its_slices(run):
    predictor = load_run(run)
    volume = np.random.default_rng(0).random((11, 30, 40), dtype=np.float32)
    whole = predictor(Picture(volume, (2.0, 1.0, 1.0)))
    assert whole.shape == volume.shape
    for z in (0, 7, 10):  # before, in and after the first batch of slices
        one = predictor(Picture(volume[z], (1.0, 1.0)))
        assert (whole[z] != one).mean() < 1e-3  # another batch size, other rounding


@pytest.mark.parametrize("axis", [1, 2])
def test_a_volume_is_cut_across_any_axis(run, axis):
    predictor = load_run(run)
    volume = np.random.default_rng(0).random((6, 7, 9), dtype=np.float32)
    across = predictor(Picture(volume, (1.0,) * 3), axis)
    turned = predictor(Picture(np.moveaxis(volume, axis, 0), (1.0,) * 3))
    assert across.shape == volume.shape
    assert np.array_equal(np.moveaxis(across, axis, 0), turned)
    voted = predictor(Picture(volume, (1.0,) * 3), axis, "majority")
    assert not np.array_equal(voted, across)
    assert np.array_equal(np.moveaxis(voted, axis, 0), consistent(turned, "majority"))


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_highest_channel_is_that_of_argmax(channels):
    generator = torch.Generator().manual_seed(channels)
    logits = torch.randint(-2, 3, (2, channels, 9, 7), generator=generator).float()  # many equals
    values = [3 * number for number in range(channels)]
    assert highest(logits, values).equal(torch.tensor(values)[logits.argmax(1)])


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
    picture = read_image(inputs[2], "X-ray")
    expected = picture.geometry.outside(predictor(picture))
    assert np.array_equal(np.asarray(result.dataobj), expected)
    assert np.load(tmp_path / "out/d.npz")["segs"].shape == (2, 30, 40)


def test_two_inputs_for_one_result_are_refused_before_anything_is_written(run, tmp_path):
    for name in ("a.png", "a.jpg"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name)
    inputs = [tmp_path / "a.png", tmp_path / "a.jpg"]
    with pytest.raises(UserError, match=r"a\.jpg and .*a\.png would both be written to"):
        list(predict_files(load_run(run), inputs, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_stack_that_no_png_can_hold_is_refused_before_it_is_predicted(run, tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.ones((3, 8, 8), np.uint8))
    predictor = load_run(run)
    monkeypatch.setattr(type(predictor), "__call__", lambda *_: pytest.fail("it was predicted"))
    with pytest.raises(UserError, match=r"a\.npy: holds 3 slices, .*; save the stack as NIfTI"):
        list(predict_files(predictor, [tmp_path / "a.npy"], tmp_path / "out"))


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"is not a run: it has no run\.json"):
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
    with pytest.raises(UserError, match=r"scan\.png is not a run"):
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
def test_a_run_may_start_from_any_file_of_the_backbone(dataset, tmp_path, recipe):
    file, folder = tmp_path / "mine.safetensors", tmp_path / "run"
    save_file(build_sam("pocket").state_dict(), file)
    short = replace(get_recipe(recipe), steps=2, batch=2)
    options = SMALL | {"weights": str(file)}
    trained = train(short, dataset, 4, folder, **options).model.eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(load_run(folder).model(image), trained(image))

    save_file(build_sam("pocket").state_dict(), file)  # drawn anew
    with pytest.raises(UserError, match=r"trained with other pocket weights than .*mine"):
        load_run(folder)
    file.unlink()
    with pytest.raises(UserError, match=r"Cannot read .*mine.safetensors"):
        load_run(folder)
    with pytest.raises(UserError, match=r"no checkpoint at .*mine.safetensors"):
        train(short, dataset, 4, tmp_path / "new", **options)
    with pytest.raises(UserError, match=r"unet has no backbone for .*mine.safetensors; omit"):
        train(get_recipe("unet"), dataset, 4, tmp_path / "new", **options)


@pytest.fixture(scope="module", params=["points", "boxes"])
def prompted(request, dataset, tmp_path_factory):
    return prompted_run(request.param, dataset, tmp_path_factory.mktemp("runs"))


def test_pictures_have_no_axis_to_be_cut_across(run, dataset, tmp_path):
    path = dataset.split("test")[0].image
    for words in ((1, "none"), (0, "largest")):
        with pytest.raises(UserError, match="not a volume; omit --axis and --consistency"):
            list(predict_files(load_run(run), [path], tmp_path, *words))


def test_a_prompted_run_needs_prompts_for_files(prompted, dataset, tmp_path):
    path = dataset.split("test")[0].image
    with pytest.raises(UserError, match=f"prompted with {prompted.name}.*medsaga evaluate"):
        list(predict_files(load_run(prompted), [path], tmp_path))


def test_prompts_are_in_pixels_of_the_picture(prompted):
    """The picture is twice as wide as high, so x and y have different ratios."""
    from torch.nn.functional import interpolate

    from medsaga_lib.data.prompts import draw_prompts
    from medsaga_lib.data.samples import squeeze

    predictor = load_run(prompted)
    pixels = np.random.default_rng(0).random((64, 128), dtype=np.float32)
    labels = np.zeros((64, 128), int)
    labels[10:30, 20:100], labels[40:60, 5:30] = 1, 3
    drawn = draw_prompts(predictor.model.kind, (1, 2, 3), labels, 0)
    one = type(drawn)(drawn.coordinates[None], drawn.roles[None])
    prediction = predictor(Picture(pixels, (1.0, 1.0)), prompts=one)
    half = torch.tensor([0.5, 1.0])
    image, _ = squeeze(torch.tensor(pixels)[None, None], torch.zeros(1, 64, 128), 64)
    with torch.no_grad():
        logits = predictor.model(image.expand(-1, 3, -1, -1), one.coordinates * half, one.roles)
    logits = interpolate(logits, (64, 128), mode="bilinear")
    assert np.array_equal(prediction, logits.argmax(1)[0])
    assert not (prediction == 2).any()  # was not asked for
