"""Fixtures for tests of fetching: official sets whose files are served on loopback."""

import hashlib
from dataclasses import replace

import pytest
from loopback import serving

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.fetching.catalogue import OfficialFile, official_sets
from medsaga_lib.data.fetching.fetch import fetch_set


@pytest.fixture
def served(monkeypatch):
    """Let the files of an official set come from loopback; returns the server."""
    opened = []

    def serve(name, files, **facts):
        context = serving({f"/{path}": content for path, content in files.items()})
        server = context.__enter__()
        opened.append(context)
        items = tuple(
            OfficialFile(
                f"{server.address}/{path}",
                "sha256:" + hashlib.sha256(content).hexdigest(),
                len(content),
            )
            for path, content in files.items()
        )
        facts = {"files": items, "pixels": None, **facts}
        monkeypatch.setitem(official_sets(), name, replace(official_sets()[name], **facts))
        return server

    yield serve
    for context in opened:
        context.__exit__(None, None, None)


@pytest.fixture
def fetch(tmp_path):
    """Fetch an official set to `tmp_path / "out"`; returns the opened data set and the notes."""

    def run(name, **options):
        options = {"accepts": True, "progress": False, **options}
        done = fetch_set(name, tmp_path / "out", **options)
        return open_dataset(done.out), done.notes

    return run
