"""The table of pretraining data: complete, and the same as on the book's page."""

import os
from pathlib import Path

import pytest

from medsaga_lib.data.seen import OF_MEDSAM, SEEN, seen
from medsaga_lib.models.weights import WEIGHT_FILES

PAGE = Path(__file__).parents[2] / "book" / "weights.md"


def test_every_backbone_is_in_every_row():
    for row in SEEN.values():
        assert row.keys() == {*WEIGHT_FILES, "none"}


def test_every_real_data_set_has_a_row():
    folder = os.environ.get("MEDSAGA_DATA")
    if not folder:
        pytest.skip("MEDSAGA_DATA is not set: the data sets are not on this machine")
    names = {path.parent.name for path in Path(folder).glob("*/dataset.toml")}
    assert names <= SEEN.keys()


def test_the_page_shows_the_same_words():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    shown = {row[0].strip("`"): row[1:] for row in rows if row[0].strip("`") in SEEN}
    assert shown.keys() == SEEN.keys()
    for data, (word, reason) in shown.items():
        for backbone in OF_MEDSAM:
            entry = seen(backbone, data)
            assert (entry.exposure, entry.reason) == (word, reason)


def test_an_unknown_data_set_is_not_known_but_drawn_images_are_never_real():
    assert seen("lite_medsam", "my_own_scans").exposure == "not known"
    assert seen("pocket", "my_own_scans").exposure == "no"
    assert seen("lite_medsam", "polyp_kvasir").exposure == "likely"
