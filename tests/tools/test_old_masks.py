"""Recorded runs on X-rays with uncorrected masks: each chapter that shows them says so."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SET, CORRECTED, SAID = "cxr_hannover_lungs", "masks corrected", "masks that are too wide"


RECORDED = sorted((ROOT / "notebooks" / "recorded").glob("*.json"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_scored_run_names_its_data(path):
    """Otherwise nobody can tell which masks it had."""
    content = json.loads(path.read_text(encoding="utf-8"))
    runs = content.get("runs") if isinstance(content, dict) else None
    scored = [run for run in runs or [] if "dice" in run]
    assert [run for run in scored if "data" not in run] == []


def outdated():
    """The names of the recorded grids that were made with the uncorrected masks."""
    for path in RECORDED:
        content = json.loads(path.read_text(encoding="utf-8"))
        runs = content.get("runs")
        if isinstance(runs, list) and any(run.get("data") == SET for run in runs):
            described = content["provenance"].get("data", "")
            if f"{SET}:" not in described or CORRECTED not in described:
                yield path.stem


@pytest.mark.parametrize("chapter", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda p: p.stem)
def test_a_chapter_says_which_masks_its_recorded_runs_had(chapter):
    text = chapter.read_text(encoding="utf-8")
    named = '"' if "recorded/{" in text else "/"  # in a list of names, or in a path
    shown = [name for name in outdated() if re.search(rf"[/{named}]{name}[.\"]", text)]
    assert (SAID in text) == bool(shown), shown
