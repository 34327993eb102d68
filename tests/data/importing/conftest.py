"""Shared helpers of the tests of imports."""

from dataclasses import replace

import pytest

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.importing.found import Options
from medsaga_lib.data.importing.importer import Request, import_dataset


@pytest.fixture
def bring(tmp_path):
    """Import a folder to `tmp_path / "out"`; returns the opened data set and the import."""

    def run(source, **given):
        options = {
            key: given.pop(key)
            for key in ("channel", "labels", "instances", "colours")
            if key in given
        }
        request = replace(Request(options=Options(**options)), **given)
        out = tmp_path / "out"
        done = import_dataset(source, out, request)
        return open_dataset(out), done

    return run
