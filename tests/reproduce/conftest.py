"""A folder of data sets in which the phantoms stand for a set that the quick profile takes."""

import pytest


@pytest.fixture
def stand_in(phantoms, tmp_path, monkeypatch):
    """Set $MEDSAGA_DATA to a folder with one data set; returns the folder."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "cxr_hannover_lungs").symlink_to(phantoms, target_is_directory=True)
    monkeypatch.setenv("MEDSAGA_DATA", str(root))
    return root
