"""Feeds against what they copy: LiteMedSAM's script (`litemedsam_preprocessing.json`), MedSAM's and
segment_anything's; and training and prediction against each other.
"""

import numpy as np
import oracle
import pytest
import torch
from PIL import Image

from medsaga_lib.data.cases import read_pair
from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.samples import Samples
from medsaga_lib.errors import UserError
from medsaga_lib.inference.box_predictor import BoxPredictor
from medsaga_lib.inference.predictor import Predictor
from medsaga_lib.models.feeding import (
    FEED_OF,
    FEEDS,
    LITE_MEDSAM,
    get_feed,
    lite_medsam_input,
    resize_area,
)
from medsaga_lib.models.frame import Frame
from medsaga_lib.models.sam import SHAPES, build_sam
from medsaga_lib.models.weights import load_state

STORED = oracle.read("litemedsam_preprocessing")
PICTURES = STORED["image_2d"]


def picture(described):
    return oracle.fill.integers(described["tag"], described["shape"], 256).astype(np.uint8)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_and_boxes(name):
    case = PICTURES[name]
    image = picture(case["image"])
    frame = Frame(image.shape[:2], 256)
    assert list(frame.inner) == case["new_size"]
    resized = resize_area(image, frame.inner)
    sample = resized.reshape(-1)[oracle.fill.sample_indices(resized.size)].astype(int)
    assert sample.tolist() == case["resized_uint8"]["sample"]
    stored = case["network_input"]
    given = lite_medsam_input(image)
    sample = given.reshape(-1)[oracle.fill.sample_indices(given.size)]
    assert [1, *given.shape] == stored["shape"]
    np.testing.assert_allclose(sample, stored["sample"], rtol=0, atol=1.01 / 200)
    assert given.mean() == pytest.approx(stored["mean"], abs=1e-3)
    asked = torch.tensor(case["boxes"])
    assert LITE_MEDSAM.frame(image.shape[:2], 256).boxes(asked).tolist() == case["boxes_256"]


def test_other_numbers_than_grey_levels_are_kept():
    image = picture(PICTURES["300x200"]["image"])
    expected = lite_medsam_input(image)
    for scaled in (image / 255, image.astype(np.float32) * 7 - 3, image.astype(np.uint16) * 200):
        np.testing.assert_allclose(lite_medsam_input(scaled), expected, atol=1.01 / 200)


def test_a_very_long_picture_keeps_a_row():
    long = np.arange(600, dtype=np.uint16)[None, :, None].repeat(3, 2)
    assert lite_medsam_input(long).max() == 1


def test_a_constant_picture_is_black():
    assert not lite_medsam_input(np.full((60, 90, 3), 7, np.uint8)).any()


@pytest.mark.parametrize("case", STORED["resize_box"])
def test_a_box_is_cut_off(case):
    frame = LITE_MEDSAM.frame(case["original_size"], 256)
    assert frame.boxes(torch.tensor([case["box"]])).tolist() == [case["result"]]


def test_pictures_are_padded_as_segment_anything_pads_them():
    """Against `SamPredictor`, which resizes 8-bit pictures, up to SAM's normalisation."""
    from segment_anything import SamPredictor

    sam = build_sam("pocket", 128)
    sam.load_state_dict(load_state("pocket", 128))
    image = np.random.default_rng(0).integers(0, 256, (90, 130, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(image).resize((60, 40)).resize((130, 90)))  # smooth
    predictor = SamPredictor(sam.eval())
    predictor.set_image(image)
    wanted = predictor.get_image_embedding()
    ours = BoxPredictor(sam, feed=get_feed("longest_side")).embed(image / np.float32(255))
    assert (ours - wanted).abs().mean() < 0.02 * wanted.std()


def test_medsam_is_fed_as_its_script_feeds_it():
    """The picture is squeezed and its grey levels are stretched; the boxes follow the picture."""
    feed = FEED_OF["medsam"]
    steps = torch.linspace(0.3, 0.5, 20).repeat_interleave(5)
    image = feed.images(steps.expand(1, 1, 50, -1), 64)
    assert image.shape == (1, 1, 64, 64)
    assert (image.min(), image.max()) == (0, 1)
    assert (image - torch.linspace(0, 1, 64)).abs().max() < 0.05  # the steps, wide as the square
    assert image.std(2).max() < 0.02  # no padding below
    box = feed.frame((100, 200), 256).boxes(torch.tensor([[20.0, 20, 180, 80]]))
    torch.testing.assert_close(box, torch.tensor([[25.6, 51.2, 230.4, 204.8]]))


def test_lite_medsam_stretches_what_sam_leaves_faint():
    """Min-max scaling restores the contrast of a faint picture; SAM's normalisation does not."""
    pixels = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    faint = (pixels * 51).round() / 255  # five times these are whole grey levels, too
    lite, sam = FEEDS["lite_medsam"], FEEDS["longest_side"]
    torch.testing.assert_close(lite.images(faint, 64), lite.images(5 * faint, 64))
    assert (sam.images(faint, 64) - sam.images(5 * faint, 64)).abs().mean() > 0.2


def test_squeezed_lite_medsam_differs_from_the_published_feed_in_fine_patterns():
    """Square, smooth pictures give nearly the published input; a fine pattern becomes fainter."""
    published, squeezed = FEEDS["lite_medsam"], FEEDS["lite_medsam_squeezed"]
    y, x = torch.meshgrid(torch.linspace(0, 3, 200), torch.linspace(0, 4, 200), indexing="ij")
    smooth = torch.stack([0.5 + 0.4 * torch.sin(y + x), 0.5 + 0.4 * torch.cos(y)])[:, None]
    given = squeezed.images(smooth, 64)
    assert (given.amin((1, 2, 3)) == 0).all()
    assert (given.amax((1, 2, 3)) == 1).all()
    assert (given - published.images(smooth, 64)).abs().max() < 0.03
    pattern = torch.zeros(1, 1, 200, 200)
    pattern[..., ::5] = 1  # lines of 1 pixel, 1.6 pixels apart in the input
    pattern[..., 100:, :] = torch.linspace(0, 1, 200)  # keeps the range
    lines = [feed.images(pattern, 64)[0, 0, 8:24].std() for feed in (published, squeezed)]
    assert lines[1] < 0.8 * lines[0]


def test_squeezed_lite_medsam_fills_the_square_and_keeps_fractions_of_boxes():
    feed = FEEDS["lite_medsam_squeezed"]
    ramp = torch.linspace(0.2, 0.6, 120).expand(1, 3, 50, -1)
    given = feed.images(ramp, 64)
    assert (given[0, :, :, -1] > 0.98).all()  # no padding below
    assert feed.images(torch.full((1, 3, 60, 90), 0.4), 64).max() < 1e-4  # a constant is black
    box = feed.frame((50, 120), 64).boxes(torch.tensor([[15.0, 10, 90, 35]]))
    torch.testing.assert_close(box, torch.tensor([[8.0, 12.8, 48, 44.8]]))


@pytest.mark.parametrize("size", [32, 300])  # pictures are made smaller, or larger
@pytest.mark.parametrize("name", FEEDS)
def test_training_and_prediction_see_the_same_picture(name, size, phantoms):
    """Also where pictures are not square: `Samples` feeds one, `Predictor` the other."""
    dataset = open_dataset(phantoms)
    feed, case = get_feed(name), dataset.split("train")[0]
    sample = Samples(dataset, [case], size, feed.sample)[0]
    seen = []

    class Network(torch.nn.Linear):
        def __init__(self):
            super().__init__(1, 1)
            self.size = size

        def forward(self, images):
            seen.append(images)
            return torch.zeros(1, 4, size, size)

    picture, truth = read_pair(dataset, case)
    assert picture.shape[0] != picture.shape[1]
    Predictor(Network(), dataset.labels, "X-ray", None, feed)(picture)
    assert seen[0][0].equal(sample["image"])
    # and the label map goes the same way: back at its own size it is what it was, but for edges
    logits = torch.nn.functional.one_hot(sample["label"], 4).movedim(-1, 0)[None].float()
    back = feed.frame(picture.shape, size).enlarge(logits).argmax(1)[0].numpy()
    assert (back == truth).mean() > (0.9 if size == 32 else 0.98)


def test_every_backbone_has_a_feed():
    assert FEED_OF.keys() == {*SHAPES, "none"}
    with pytest.raises(UserError, match="There is no feed 'blur'; choose one of squeeze,"):
        get_feed("blur")


@pytest.mark.parametrize("name", FEEDS)
def test_points_and_boxes_follow_the_picture(name):
    """A single bright pixel of a wide picture lies where its frame says."""
    feed = get_feed(name)
    image = torch.zeros(1, 1, 40, 100)
    image[0, 0, 30, 70] = 1
    bright = feed.images(image, 200)[0].mean(0)
    y, x = (bright > 0.9 * bright.max()).nonzero().float().mean(0).tolist()
    at = feed.frame((40, 100), 200).coordinates(torch.tensor([70.5, 30.5])).tolist()
    assert [x + 0.5, y + 0.5] == pytest.approx(at, abs=2.5)
