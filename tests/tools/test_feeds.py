"""The comparison of feeds: its ways, its scores, and a file that continues where it stopped."""

import json

import numpy as np
import pytest
import torch

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.inference.box_predictor import BoxPredictor
from medsaga_lib.models.feeding import FEEDS
from tools import feeds

IMAGE = np.random.default_rng(0).integers(0, 200, (60, 90, 3)).astype(np.uint8)
PIXELS = torch.from_numpy(IMAGE).movedim(-1, 0)[None].float() / 255


@pytest.mark.parametrize(
    ("way", "feed"), [("area", "lite_medsam"), ("linear_squeezed", "lite_medsam_squeezed")]
)
def test_two_ways_are_feeds_of_the_library(way, feed):
    given = feeds.CANDIDATES[way].feed.images(PIXELS, 32)
    torch.testing.assert_close(given, FEEDS[feed].images(PIXELS, 32), atol=1e-5, rtol=0)


@pytest.mark.parametrize("way", [*feeds.CANDIDATES, *feeds.CHANGES])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_way_gives_an_input(way, channels):
    ways = feeds.CANDIDATES | feeds.CHANGES
    given = ways[way].feed.images(PIXELS[:, :channels], 32)
    assert given.shape == (1, channels, 32, 32)
    assert (given.min(), given.max()) >= (0, 0)
    assert given.max() <= 1 + 1e-6


def test_only_grey_images_are_cut_off():
    assert feeds.cut_off(IMAGE) is IMAGE
    grey = IMAGE[..., :1].copy()
    grey[0, 0], grey[0, 1] = 255, 0
    cut = feeds.cut_off(grey)
    assert (cut == 255).sum() > 5
    assert cut[0, 1] == 0


def test_high_frequencies_of_stripes_and_of_a_wave():
    stripes = np.tile([0.0, 1.0], (32, 16))[..., None]
    wave = np.sin(np.linspace(0, 6, 32))[None, :, None].repeat(32, 0)
    assert feeds.high_frequencies(stripes) > 0.99
    assert feeds.high_frequencies(wave) < 0.01


def test_the_interval_is_of_paired_differences():
    base = {"iou": [[0.1, 0.5, 0.9], [0.2, None, 0.9]]}
    better = {"iou": [[0.2, 0.6, 1.0], [0.3, None, 1.0]]}
    low, high = feeds.interval(base, better, ["a", "b", "c"])
    assert low == pytest.approx(0.1)
    assert high == pytest.approx(0.1)
    assert feeds.mean(better) - feeds.mean(base) == pytest.approx(0.1)


def test_rows_that_are_there_are_kept(monkeypatch, tmp_path, phantoms):
    monkeypatch.setattr(feeds, "load", lambda size: BoxPredictor(None))
    monkeypatch.setattr(feeds, "open_dataset", lambda _: open_dataset(phantoms))
    asked = []

    def scored(predictor, way, items):
        asked.append(way)
        return {"iou": [[0.5 for _ in items]], "high": 0.1}

    monkeypatch.setattr(feeds, "scored", scored)
    words = [
        "--out",
        str(tmp_path / "feeds.json"),
        "--data",
        "polyp_kvasir",
        "--images",
        "1",
        "--sizes",
        "128",
    ]
    feeds.main(words)
    count = len(asked)
    feeds.main(words)
    assert len(asked) == count > 0
    written = json.loads((tmp_path / "feeds.json").read_text())
    assert {"command", "commit", "device"} <= written["provenance"].keys()
    assert len(written["rows"]) == count
    assert {row["way"] for row in written["differences"]} < set(feeds.CANDIDATES)
