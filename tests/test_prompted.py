"""Boxes from the command line and from npz files, in pictures and volumes, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import oracle
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate

from medsaga_lib.data.folder import open_dataset
from medsaga_lib.data.images import Picture, read_image, read_pair
from medsaga_lib.data.prompts import draw_prompts
from medsaga_lib.display import show_boxes
from medsaga_lib.errors import UserError
from medsaga_lib.inference import load_run
from medsaga_lib.multibox import Mask, segment_boxes
from medsaga_lib.prompted import (
    FED,
    BoxPrompts,
    embed,
    embed_litemedsam,
    embed_medsam,
    load_prompted,
    takes_boxes,
)
from medsaga_lib.recipes import get_recipe
from medsaga_lib.runs import Settings, write_run
from medsaga_lib.training import train


@pytest.fixture(scope="module")
def prompts():
    return load_prompted(Path("pocket"))


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
    embedding = embed(prompts.sam, picture.pixels)
    wanted = segment_boxes(prompts.sam, embedding, boxes, (120, 160)).labels
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
        alone = prompts(Picture(pixels[z], (1.0, 1.0), None), flat[numbers])
        assert (found[z] != alone).mean() < 1e-3


@pytest.mark.parametrize(("words", "window"), [("CT", (-160, 240)), ("50,150", (50, 150))])
def test_a_window_is_what_the_backbone_sees(files, predict, prompts, tmp_path, words, window):
    code, _, error = predict(
        "pocket", files / "ball.nii.gz", "--box", "10,8,4,54,52,4", "--window", words
    )
    assert code == 0, error
    found = np.asarray(nibabel.load(tmp_path / "out/ball_labels.nii.gz").dataobj).T[4]
    seen = read_image(files / "ball.nii.gz", "", window).pixels[4]
    wanted = prompts(Picture(seen, (1.0, 1.0), None), np.array([[10.0, 8, 54, 52]]))
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("words", ["soft", "5", "3,3", "9,1", "nan,2", "0,inf"])
def test_no_window(files, predict, words):
    code, _, error = predict("pocket", files / "discs.png", *DISCS, "--window", words)
    assert code == 2
    assert f"--window {words} is no window" in error


def test_propagation_asks_the_middle_slice_by_the_box_itself(files, prompts):
    picture = read_image(files / "ball.npz", "")
    box = np.array([[10.0, 8, 1, 54, 52, 7]])
    volume = prompts(picture, box)
    alone = prompts(Picture(picture.pixels[4], (1.0, 1.0), None), box[:, [0, 1, 3, 4]])
    assert np.array_equal(volume[4], alone)
    assert not volume[[0, 8]].any()


def test_pictures_are_fed_as_sam_is(prompts):
    """Against segment_anything's own predictor, which resizes 8-bit pictures."""
    from segment_anything import SamPredictor

    image = np.random.default_rng(0).integers(0, 256, (90, 130, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(image).resize((60, 40)).resize((130, 90)))  # smooth
    predictor = SamPredictor(prompts.sam)
    predictor.set_image(image)
    ours = embed(prompts.sam, image / np.float32(255))
    wanted = predictor.get_image_embedding()
    assert (ours - wanted).abs().mean() < 0.02 * wanted.std()


class Recorder:
    """In the place of an image encoder: keeps what it is given."""

    def __init__(self, img_size):
        self.given, self.img_size = [], img_size

    def __call__(self, image):
        self.given.append(image)
        return torch.zeros(1, 256, 4, 4)


def test_medsam_is_fed_as_its_script_feeds_it():
    """Squeezed, and stretched between the least and the largest grey level; so are its boxes."""
    sam = SimpleNamespace(image_encoder=Recorder(64), device="cpu")
    steps = np.repeat(np.linspace(0.3, 0.5, 20, dtype=np.float32), 5)
    embed_medsam(sam, np.tile(steps, (50, 1)))
    (image,) = sam.image_encoder.given
    assert image.shape == (1, 3, 64, 64)
    assert (image.min(), image.max()) == (0, 1)
    assert (image - torch.linspace(0, 1, 64)).abs().max() < 0.05  # the steps, wide as the square
    assert image.std(2).max() < 0.02  # no padding below
    _, frame = FED["medsam"]
    box = frame((100, 200), 256).boxes(torch.tensor([[20.0, 20, 180, 80]]))
    torch.testing.assert_close(box, torch.tensor([[25.6, 51.2, 230.4, 204.8]]))


@pytest.mark.parametrize("name", ["up_96x80", "down_320x280", "reach_last_slice"])
def test_lite_medsams_boxes_are_its_scripts(monkeypatch, name):
    """Cut off to whole pixels, and from slice to slice as they are."""
    case = oracle.read("litemedsam_preprocessing")["volume_3d"]["cases"][name]
    asked = []

    def paint(sam, embedding, boxes, frame, values, best, labels):
        """The oracle's rule in place of a network."""
        for box in boxes.numpy():
            asked.append(box.tolist())
            x0, y0, x1, y1 = (box * (max(frame.size) / 256)).astype(int)
            mask = np.zeros(frame.size, bool)
            mask[y0 + 4 : y1 - 4, x0 + 5 : x1 - 4] = True
            yield Mask(0, 0, mask)

    monkeypatch.setattr("medsaga_lib.prompted.paint_boxes", paint)
    sam = SimpleNamespace(prompt_encoder=SimpleNamespace(input_image_size=(256, 256)))
    _, frame = FED["lite_medsam"]
    lite = BoxPrompts(sam, embed=lambda sam, pixels: torch.zeros(()), frame=frame)
    volume = Picture(np.zeros(case["volume"]["shape"], np.float32), (1.0, 1.0, 1.0), None)
    lite(volume, np.array(case["boxes_xyzxyz"], float))
    assert asked == [call["box_256"] for call in case["calls"]]


def test_a_slice_is_embedded_once(prompts):
    """Also where it lies above the middle of one object and below that of another."""
    calls = []

    def counted(sam, pixels):
        calls.append(float(pixels[0, 0]))
        return embed(sam, pixels)

    pixels = np.tile(np.arange(9, dtype=np.float32)[:, None, None] / 9, (1, 32, 32))
    boxes = np.array([[2, 2, 0, 20, 20, 6], [8, 8, 4, 30, 30, 8], [4, 4, 1, 9, 9, 7.0]])
    replace(prompts, embed=counted)(Picture(pixels, (1.0, 1.0, 1.0), None), boxes)
    assert len(calls) == len(set(calls)) == 9


def test_the_litemedsam_way_is_another(prompts):
    """Min-max makes a faint picture as strong as any, which SAM's own normalisation does not."""
    pixels = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    faint = np.round(pixels * 51) / 255  # five times these are whole grey levels, too
    given = embed_litemedsam(prompts.sam, faint), embed_litemedsam(prompts.sam, 5 * faint)
    torch.testing.assert_close(*given, atol=1e-4, rtol=0)
    difference = (embed(prompts.sam, faint) - embed(prompts.sam, 5 * faint)).abs().mean()
    assert difference > 0.02


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("discs.png", ("--box", "20,25,70"), "has 3 numbers; write x0,y0,x1,y1"),
        ("discs.png", ("--box", "20,25,70,b"), "is not made of numbers"),
        ("discs.png", ("--box", "20,25,19,75"), "The box 20,25,19,75 is empty"),
        ("discs.png", ("--box", "70,25,20,75"), "The box 70,25,20,75 is empty"),
        ("discs.png", ("--box", "nan,25,20,75"), "is empty"),
        ("discs.png", ("--box", "20,25,170,75"), "is not within 0 and 160x120"),
        ("discs.png", ("--box", "-1,25,100,75"), "is not within 0 and 160x120"),
        ("discs.png", ("--box", "1,2,0,70,80,1"), "A 3-D box does not fit a picture of 160x120"),
        ("discs.png", (*DISCS, "--box", "1,2,3,4,5,6"), "are not of the same kind"),
        ("discs.png", (*DISCS, "--axis", "x"), "leave --axis and --consistency"),
        ("discs.png", (), "discs.png comes without boxes"),
        ("plain.npz", (), "has no array `boxes`"),
        ("ball.nii.gz", ("--box", "1,2,30,40"), "A 2-D box does not fit a volume of 64x64x9"),
        ("ball.nii.gz", ("--box", "1,2,9,30,40,9"), "is not within 0 and 64x64x9"),
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


def test_a_run_that_takes_no_boxes(files, predict, tmp_path):
    values = ("samed", "pocket", "random", 64, "phantoms", 2, 0, 1, 2, "fp32", 1, False)
    facts = dict.fromkeys(("labels", "modality", "window", "backbone_sha256"))
    write_run(tmp_path / "run", Settings(*values), facts)
    code, _, error = predict(tmp_path / "run", files / "discs.png", *DISCS)
    assert code == 2
    assert "was trained to predict without boxes; leave --box" in error


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
    values = (recipe, "pocket", "random", 64, "phantoms", 2, 0, 1, 2, "fp32", 1, False, False)
    facts = dict.fromkeys(("labels", "modality", "window", "backbone_sha256"))
    write_run(tmp_path / "run", Settings(*values, changes), facts)
    assert takes_boxes(tmp_path / "run") == taken


def test_the_best_of_several_masks_is_for_evaluation(tmp_path):
    values = ("sam_zero_shot", "pocket", "random", 64, "phantoms", 2, 0, 0, 2, "fp32", 1, False)
    facts = dict.fromkeys(("labels", "modality", "window", "backbone_sha256"))
    write_run(tmp_path / "run", Settings(*values, changes=["head=boxes"]), facts)
    with pytest.raises(UserError, match="only `medsaga evaluate` does"):
        load_prompted(tmp_path / "run")


def test_every_box_is_drawn_with_its_object():
    labels = np.zeros((40, 50), int)
    labels[5:15, 5:15], labels[20:35, 20:45] = 1, 2
    boxes = np.array([[5.0, 5, 14, 14], [20, 20, 44, 34], [0, 30, 9, 39]])  # the third is empty
    plain, drawn = show_boxes(np.zeros((40, 50)), labels, boxes).axes
    assert not plain.collections
    contours, frames = drawn.collections[::2], drawn.collections[1::2]
    assert [len(c.get_segments()) for c in contours] == [1, 1, 0]
    corners = [frame.get_segments()[0] for frame in frames]
    assert [(*c.min(0), *c.max(0)) for c in corners] == [tuple(box) for box in boxes]


def test_a_run_that_takes_boxes_is_fed_as_it_was_trained(phantoms, tmp_path):
    """Pictures are squeezed in training; `predict --box` agrees with what `evaluate` predicts."""
    recipe = replace(get_recipe("lite_medsam_lora"), steps=2, batch=2)
    dataset = open_dataset(phantoms)
    train(recipe, dataset, 2, tmp_path, size=64, progress=False, validations=0)
    case = dataset.split("test")[0]
    picture, truth = read_pair(dataset, case)
    wide = Picture(picture.pixels[:, : truth.shape[1] // 2], **{
        key: value for key, value in vars(picture).items() if key != "pixels"
    })  # fmt: skip
    labels = np.unique(truth[:, : truth.shape[1] // 2])[1:]
    drawn = draw_prompts("boxes", [1, 2, 3], truth[:, : truth.shape[1] // 2], seed=0)
    expected = load_run(tmp_path)(wide, prompts=default_collate([drawn]))
    boxes = drawn.coordinates[labels - 1].flatten(1).numpy()
    found = load_prompted(tmp_path)(wide, boxes)
    named = np.concatenate([[0], labels])[found]
    assert len(labels) >= 1
    assert (expected > 0).any()
    assert (named == expected).mean() > 0.97  # they enlarge the logits in one step, in two
    with pytest.raises(UserError, match="its own window"):
        load_prompted(tmp_path, (0.0, 1.0))
