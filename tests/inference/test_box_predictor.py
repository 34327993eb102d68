"""Prediction by boxes: pictures, volumes and runs, from the command line and from npz files."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import oracle
import pytest
import torch
from PIL import Image
from runs import train
from torch.utils.data import default_collate

from medsaga_lib.data.cases import read_pair
from medsaga_lib.data.images import Picture, read_image
from medsaga_lib.data.prompts import draw_prompts
from medsaga_lib.errors import UserError
from medsaga_lib.inference.box_decoder import Mask, segment_boxes
from medsaga_lib.inference.box_predictor import BoxPredictor, load_box_predictor, takes_boxes
from medsaga_lib.inference.predictor import load_run
from medsaga_lib.models.feeding import LITE_MEDSAM
from medsaga_lib.recipes import get_recipe
from medsaga_lib.training.run_folder import RunSettings, write_run


@pytest.fixture(scope="module")
def prompts():
    return load_box_predictor(Path("pocket"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A picture of two discs, and a volume of a ball."""
    folder = tmp_path_factory.mktemp("files")
    y, x = np.mgrid[:120, :160]
    discs = np.full((120, 160), 60, np.uint8)
    discs[(x - 45) ** 2 + (y - 50) ** 2 < 25**2] = 200
    discs[(x - 115) ** 2 + (y - 70) ** 2 < 30**2] = 160
    Image.fromarray(discs).save(folder / "discs.png")
    z, y, x = np.mgrid[:9, :64, :64]
    ball = (((x - 32) ** 2 + (y - 30) ** 2) / 20**2 + (z - 4) ** 2 / 5**2 < 1) * 180.0 + 40
    affine = np.diag([0.8, -0.8, 3.0, 1.0])
    affine[:3, 3] = 5, 6, 7
    nibabel.save(nibabel.Nifti1Image(ball.T.astype(np.float32), affine), folder / "ball.nii.gz")
    boxes = np.array([[10, 8, 1, 54, 52, 7], [20, 20, 3, 40, 40, 5]])
    np.savez(folder / "ball.npz", imgs=ball.astype(np.uint8), boxes=boxes, spacing=[0.8, 0.8, 3])
    np.savez(folder / "plain.npz", imgs=np.stack([discs] * 3, -1))
    return folder


@pytest.fixture
def predict(medsaga, tmp_path):
    """`medsaga predict` in this process: (exit code, standard output, standard error)."""
    return lambda *words: medsaga("predict", *words, "--out", tmp_path / "out")


DISCS = ("--box", "20,25,70,75", "--box", "85,40,145,100")


def test_a_picture_by_two_boxes(files, predict, prompts, tmp_path):
    code, text, _ = predict("pocket", files / "discs.png", *DISCS, "--json")
    assert code == 0
    (record,) = json.loads(text)
    labels = np.asarray(Image.open(record["labels"]))
    picture = read_image(files / "discs.png", "")
    boxes = torch.tensor([[20.0, 25, 70, 75], [85, 40, 145, 100]])
    embedding, frame = prompts.embed(picture.pixels), prompts.frame(picture.shape)
    wanted = segment_boxes(prompts.sam, embedding, boxes, (120, 160), frame=frame).labels
    assert np.array_equal(labels, wanted)
    assert record["voxels"] == [int((labels == 1).sum()), int((labels == 2).sum())]
    assert (labels[30:70, 25:65] == 1).mean() > 0.5  # each label is mostly where its disc is
    assert (labels[50:90, 95:135] == 2).mean() > 0.5
    assert Image.open(record["overlay"]).width > 600


def test_a_volume_keeps_its_affine(files, predict, tmp_path):
    code, _, error = predict("pocket", files / "ball.nii.gz", "--box", "10,8,1,54,52,7")
    assert code == 0, error
    result = nibabel.load(tmp_path / "out/ball_labels.nii.gz")
    assert np.array_equal(result.affine, nibabel.load(files / "ball.nii.gz").affine)
    found = np.asarray(result.dataobj).T
    assert found.shape == (9, 64, 64)
    assert not found[[0, 8]].any()  # beyond the box's slices
    assert all(found[z].any() for z in range(2, 7))


def test_boxes_of_an_npz_file(files, predict, prompts, tmp_path):
    code, _, error = predict("pocket", files / "ball.npz", "--slices", "same")
    assert code == 0, error
    found = np.load(tmp_path / "out/ball.npz")["segs"]
    assert found.shape == (9, 64, 64)
    assert set(np.unique(found)) <= {0, 1, 2}
    # the same box on each slice is each slice alone
    stored = np.load(files / "ball.npz")
    flat = stored["boxes"][:, [0, 1, 3, 4]].astype(float)
    pixels = read_image(files / "ball.npz", "").pixels
    for z, numbers in ((1, [0]), (4, [0, 1]), (8, [])):
        if not numbers:
            assert not found[z].any()
            continue
        alone = prompts(Picture(pixels[z], (1.0, 1.0)), flat[numbers])
        assert (found[z] != alone).mean() < 1e-3


@pytest.mark.parametrize(("words", "window"), [("CT", (-160, 240)), ("50,150", (50, 150))])
def test_a_window_is_what_the_backbone_sees(files, predict, prompts, tmp_path, words, window):
    code, _, error = predict(
        "pocket", files / "ball.nii.gz", "--box", "10,8,4,54,52,4", "--window", words
    )
    assert code == 0, error
    picture = read_image(files / "ball.nii.gz", "", window)  # x grows to the right: it is turned
    box = picture.geometry.boxes_inside(np.array([[10.0, 8, 4, 54, 52, 4]]), picture.shape)
    wanted = prompts(Picture(picture.pixels[4], (1.0, 1.0)), box[:, [0, 1, 3, 4]])
    result = np.asarray(nibabel.load(tmp_path / "out/ball_labels.nii.gz").dataobj)
    assert np.array_equal(picture.geometry.inside(result)[4], wanted)


@pytest.mark.parametrize("words", ["soft", "5", "3,3", "9,1", "nan,2", "0,inf"])
def test_no_window(files, predict, words):
    code, _, error = predict("pocket", files / "discs.png", *DISCS, "--window", words)
    assert code == 2
    assert f"--window {words} is not a window" in error


def test_propagation_asks_the_middle_slice_by_the_box_itself(files, prompts):
    picture = read_image(files / "ball.npz", "")
    box = np.array([[10.0, 8, 1, 54, 52, 7]])
    volume = prompts(picture, box)
    alone = prompts(Picture(picture.pixels[4], (1.0, 1.0)), box[:, [0, 1, 3, 4]])
    assert np.array_equal(volume[4], alone)
    assert not volume[[0, 8]].any()


@pytest.mark.parametrize("name", ["up_96x80", "down_320x280", "reach_last_slice"])
def test_lite_medsams_boxes_are_its_scripts(monkeypatch, name):
    """Coordinates are cut off to whole pixels once, and not again from slice to slice."""
    case = oracle.read("litemedsam_preprocessing")["volume_3d"]["cases"][name]
    asked = []

    def paint(sam, embedding, boxes, frame, values, best, labels):
        """Give the masks of the oracle's rule instead of a network's."""
        for box in boxes.numpy():
            asked.append(box.tolist())
            x0, y0, x1, y1 = (box * (max(frame.size) / 256)).astype(int)
            mask = np.zeros(frame.size, bool)
            mask[y0 + 4 : y1 - 4, x0 + 5 : x1 - 4] = True
            yield Mask(0, 0, mask)

    monkeypatch.setattr("medsaga_lib.inference.box_predictor.paint_boxes", paint)
    monkeypatch.setattr(BoxPredictor, "embed", lambda self, pixels: torch.zeros(()))
    sam = SimpleNamespace(prompt_encoder=SimpleNamespace(input_image_size=(256, 256)))
    lite = BoxPredictor(sam, feed=LITE_MEDSAM)
    volume = Picture(np.zeros(case["volume"]["shape"], np.float32), (1.0, 1.0, 1.0))
    lite(volume, np.array(case["boxes_xyzxyz"], float))
    assert asked == [call["box_256"] for call in case["calls"]]


@pytest.mark.parametrize("side", [128, 256, 512])
def test_the_next_box_is_in_pixels_of_the_networks_input(monkeypatch, side):
    """LiteMedSAM's rule counts in its own 256 pixels."""
    asked = []

    def paint(sam, embedding, boxes, frame, values, best, labels):
        asked.append(boxes[0].tolist())
        mask = np.zeros(frame.size, bool)
        mask[32:64, 16:48] = True
        yield Mask(0, 0, mask)

    monkeypatch.setattr("medsaga_lib.inference.box_predictor.paint_boxes", paint)
    monkeypatch.setattr(BoxPredictor, "embed", lambda self, pixels: torch.zeros(()))
    sam = SimpleNamespace(prompt_encoder=SimpleNamespace(input_image_size=(side, side)))
    volume = Picture(np.zeros((3, 128, 128), np.float32), (1.0, 1.0, 1.0))
    BoxPredictor(sam, feed=LITE_MEDSAM)(volume, np.array([[10.0, 20, 0, 60, 70, 2]]))
    of_256 = np.array([2 * 16 - 3, 2 * 32 - 3, 2 * 47 + 1 + 3, 2 * 63 + 1 + 3])
    np.testing.assert_allclose(asked[0], np.array([10, 20, 60, 70]) * (side / 128))
    assert np.abs(np.array(asked[1]) - of_256 * (side / 256)).max() <= 1


def test_a_slice_is_embedded_once(prompts, monkeypatch):
    """Also a slice between the middles of two objects, which both need."""
    calls, embed = [], BoxPredictor.embed

    def counted(self, pixels):
        calls.append(float(pixels[0, 0]))
        return embed(self, pixels)

    monkeypatch.setattr(BoxPredictor, "embed", counted)

    pixels = np.tile(np.arange(9, dtype=np.float32)[:, None, None] / 9, (1, 32, 32))
    boxes = np.array([[2, 2, 0, 20, 20, 6], [8, 8, 4, 30, 30, 8], [4, 4, 1, 9, 9, 7.0]])
    prompts(Picture(pixels, (1.0, 1.0, 1.0)), boxes)
    assert len(calls) == len(set(calls)) == 9


def test_a_smaller_input_has_a_smaller_grid(files):
    """Also the state of 256 px fits, and the answer is that of a frame of this size."""
    small = load_box_predictor("pocket", size=128)
    picture = read_image(files / "discs.png", "")
    embedding = small.embed(picture.pixels)
    assert embedding.shape[2:] == (8, 8)
    assert small.frame(picture.shape).side == 128
    labels = small(picture, np.array([[20.0, 25, 70, 75]]))
    assert labels.shape == picture.shape
    assert labels[30:70, 25:65].mean() > 0.5


def test_kept_embeddings_answer_further_boxes(prompts, monkeypatch):
    """The masks are those without them, and only a slice that is not kept is encoded."""
    pixels = np.random.default_rng(0).random((5, 32, 32), np.float32)
    volume, box = Picture(pixels, (1.0, 1.0, 1.0)), np.array([[4, 4, 0, 25, 25, 3.0]])
    wanted = {rule: prompts(volume, box, rule) for rule in ("same", "propagate")}
    kept, calls, embed = {}, [], BoxPredictor.embed
    monkeypatch.setattr(
        BoxPredictor, "embed", lambda self, slice_: calls.append(1) or embed(self, slice_)
    )
    for rule, labels in wanted.items():
        assert np.array_equal(prompts(volume, box, rule, kept), labels)
    assert (len(calls), sorted(kept)) == (4, [0, 1, 2, 3])
    prompts(volume, np.array([[4, 4, 2, 25, 25, 4.0]]), "propagate", kept)
    assert (len(calls), sorted(kept)) == (5, [0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("discs.png", ("--box", "20,25,70"), "has 3 numbers; write x0,y0,x1,y1"),
        ("discs.png", ("--box", "20,25,70,b"), "is not made of numbers"),
        ("discs.png", ("--box", "20,25,19,75"), "The box 20,25,19,75 is empty"),
        ("discs.png", ("--box", "70,25,20,75"), "The box 70,25,20,75 is empty"),
        ("discs.png", ("--box", "nan,25,20,75"), "is empty"),
        ("discs.png", ("--box", "20,25,170,75"), "is not between 0 and 160x120"),
        ("discs.png", ("--box", "-1,25,100,75"), "is not between 0 and 160x120"),
        ("discs.png", ("--box", "1,2,0,70,80,1"), "A 3-D box does not fit an image of 160x120"),
        ("discs.png", (*DISCS, "--box", "1,2,3,4,5,6"), "differ in their number of coordinates"),
        ("discs.png", (*DISCS, "--axis", "x"), "omit --axis and --consistency"),
        ("discs.png", (), "discs.png contains no boxes"),
        ("plain.npz", (), "has no array `boxes`"),
        ("ball.nii.gz", ("--box", "1,2,30,40"), "A 2-D box does not fit a volume of 64x64x9"),
        ("ball.nii.gz", ("--box", "1,2,9,30,40,9"), "is not between 0 and 64x64x9"),
        ("ball.nii.gz", ("--box", "1,2,5,30,40,4"), "is empty"),
        ("missing.png", ("--box", "1,2,3,4"), "missing.png: is missing"),
    ],
)
def test_bad_boxes_are_one_sentence(name, words, says, files, predict, tmp_path):
    code, text, error = predict("pocket", files / name, *words)
    assert code == 2, error
    assert text == ""
    assert len(error.strip().splitlines()) == 1
    assert error.startswith("medsaga: ")
    assert error.strip().endswith(".")
    assert says in error
    assert not (tmp_path / "out").exists()


def write_settings(folder, recipe, changes=()):
    """Write a run's folder with its recipe and without data and weights."""
    settings = RunSettings(
        recipe=recipe, data="phantoms", shots=2, size=64, feed="squeeze", steps=1, batch=2,
        changes=changes,
    )  # fmt: skip
    facts = dict.fromkeys(("labels", "modality", "window", "backbone_sha256"))
    write_run(folder, {"settings": asdict(settings), **facts})


def test_a_run_that_takes_no_boxes(files, predict, tmp_path):
    write_settings(tmp_path / "run", "samed")
    code, _, error = predict(tmp_path / "run", files / "discs.png", *DISCS)
    assert code == 2
    assert "was trained to predict without boxes; omit --box" in error


@pytest.mark.parametrize(
    ("recipe", "changes", "taken"),
    [
        ("samed", ["head=boxes"], True),
        ("lite_medsam_lora", [], True),
        ("lite_medsam_lora", ["head=points"], False),
        ("sam_zero_shot", ["head=boxes", "answer=single"], True),
    ],
)
def test_what_a_run_was_changed_to_decides_whether_it_takes_boxes(recipe, changes, taken, tmp_path):
    write_settings(tmp_path / "run", recipe, changes)
    assert takes_boxes(tmp_path / "run") == taken


def test_the_best_of_several_masks_is_for_evaluation(tmp_path):
    write_settings(tmp_path / "run", "sam_zero_shot", changes=["head=boxes"])
    with pytest.raises(UserError, match="only `medsaga evaluate` supports"):
        load_box_predictor(tmp_path / "run")


def test_a_run_that_takes_boxes_is_fed_as_it_was_trained(dataset, tmp_path):
    """`predict --box` agrees with what `evaluate` predicts."""
    recipe = replace(get_recipe("lite_medsam_lora"), steps=2, batch=2)
    train(recipe, dataset, 2, tmp_path, size=64, validations=0)
    case = dataset.split("test")[0]
    picture, truth = read_pair(dataset, case)
    wide = Picture(picture.pixels[:, : truth.shape[1] // 2], **{
        key: value for key, value in vars(picture).items() if key != "pixels"
    })  # fmt: skip
    labels = np.unique(truth[:, : truth.shape[1] // 2])[1:]
    drawn = draw_prompts("boxes", [1, 2, 3], truth[:, : truth.shape[1] // 2], seed=0)
    expected = load_run(tmp_path)(wide, prompts=default_collate([drawn]))
    boxes = drawn.coordinates[labels - 1].flatten(1).numpy()
    found = load_box_predictor(tmp_path)(wide, boxes)
    named = np.concatenate([[0], labels])[found]
    assert len(labels) >= 1
    assert (expected > 0).any()
    assert (named == expected).mean() > 0.97  # they enlarge the logits in one step, in two
    with pytest.raises(UserError, match="its own window"):
        load_box_predictor(tmp_path, (0.0, 1.0))
