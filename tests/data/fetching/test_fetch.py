"""Fetching: consent, resumed downloads, hashes, complete folders, and the same command again."""

import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.dataset import MODALITIES
from medsaga_lib.data.fetching.catalogue import FACTS_OF_A_SET, official_sets
from medsaga_lib.data.fetching.fetch import RECORD, default_folder, fetch_set
from medsaga_lib.errors import UserError
from medsaga_lib.files import CACHE_VARIABLE
from tests.data.fetching.builders import ct, nifti, organs, zipped

BOOK = Path(__file__).parents[3] / "book"


@pytest.fixture
def stroke(served, monkeypatch, tmp_path):
    """ISLES 2022 on loopback with 6 cases, and a cache in tmp_path; returns the server."""
    files = {}
    for n in range(1, 7):
        case = f"sub-strokecase{n:04d}"
        files[f"ISLES-2022/{case}/ses-0001/dwi/{case}_ses-0001_dwi.nii.gz"] = nifti(ct(n) + 900)
        files[f"ISLES-2022/derivatives/{case}/ses-0001/{case}_ses-0001_msk.nii.gz"] = nifti(
            organs([], [1], [1], [])
        )
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    server = served("isles22", {"ISLES-2022.zip": zipped(files)})
    server.content = server.files["/ISLES-2022.zip"]
    return server


def fetch(out, **options):
    return fetch_set("isles22", out, progress=False, **options)


def state(folder):
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_fetched_folder_says_where_it_is_from(stroke, tmp_path):
    done = fetch(tmp_path / "out")
    text = (done.out / "SOURCE.md").read_text(encoding="utf-8")
    official = official_sets()["isles22"]
    for said in (
        official.licence,
        official.citation,
        official.files[0].url,
        official.files[0].hash,
    ):
        assert said in text
    assert len(open_dataset(done.out).cases) == 6
    assert list(tmp_path.glob(".out*")) == []  # no working folder is left
    assert not (tmp_path / "out/images").is_symlink()


def test_the_same_command_again_changes_and_downloads_nothing(stroke, tmp_path):
    out = fetch(tmp_path / "out").out
    before, sent = state(out), len(stroke.sent)
    done = fetch(out)
    assert done.unchanged
    assert state(out) == before
    assert len(stroke.sent) == sent


def test_a_second_conversion_takes_the_download_of_the_first(stroke, tmp_path):
    fetch(tmp_path / "out")
    sent = len(stroke.sent)
    slices = fetch(tmp_path / "slices", slices=True)
    assert len(stroke.sent) == sent
    assert len(open_dataset(slices.out).cases) == 12


def test_two_fetches_are_equal(stroke, tmp_path):
    first, second = (fetch(tmp_path / name).out for name in ("a", "b"))
    assert {k: v[0] for k, v in state(first).items()} == {k: v[0] for k, v in state(second).items()}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda out: (out / RECORD).unlink(), "exists and was not fetched"),
        (lambda out: (out / "index.csv").write_text("case\n"), r"its index\.csv has changed"),
        (lambda out: next((out / "masks").iterdir()).unlink(), r"its masks/sub.* has changed"),
    ],
)
def test_a_changed_folder_is_not_touched(change, says, stroke, tmp_path):
    out = fetch(tmp_path / "out").out
    change(out)
    before = state(out)
    with pytest.raises(UserError, match=says + ".*choose another OUT"):
        fetch(out)
    assert state(out) == before


def test_a_folder_of_another_kind_is_not_touched(stroke, tmp_path):
    out = fetch(tmp_path / "out").out
    with pytest.raises(UserError, match="was fetched as isles22; choose another OUT"):
        fetch(out, slices=True)


def test_a_broken_download_goes_on_where_it_stopped(stroke, tmp_path, monkeypatch):
    monkeypatch.setattr("medsaga_lib.download.CHUNK", 512)  # the archive has a few thousand bytes
    stroke.break_at = half = len(stroke.content) // 2
    with pytest.raises(UserError, match=r"Cannot download .*run the command again.*--from"):
        fetch(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    stroke.break_at = None
    fetch(tmp_path / "out")
    start, end = stroke.sent[-1]
    assert 0 < start <= half
    assert end == len(stroke.content)


def test_a_wrong_hash_leaves_nothing(stroke, tmp_path, monkeypatch):
    official = official_sets()["isles22"]
    wrong = tuple(replace(file, hash="sha256:" + "0" * 64) for file in official.files)
    monkeypatch.setitem(official_sets(), "isles22", replace(official, files=wrong))
    with pytest.raises(UserError, match="does not have the hash"):
        fetch(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_an_unpublished_hash_is_recorded(stroke, tmp_path, monkeypatch):
    official = official_sets()["isles22"]
    unknown = tuple(replace(file, hash=None) for file in official.files)
    monkeypatch.setitem(official_sets(), "isles22", replace(official, files=unknown))
    done = fetch(tmp_path / "out")
    out = done.out
    assert "no hash is published for ISLES-2022.zip; fetched.json has those seen" in done.notes
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    assert record["sources"] == {official.files[0].url: official.files[0].hash}


def test_a_file_that_was_downloaded_by_hand(stroke, tmp_path):
    (tmp_path / "ISLES-2022.zip").write_bytes(stroke.content)
    done = fetch(tmp_path / "out", given=tmp_path / "ISLES-2022.zip")
    assert len(open_dataset(done.out).cases) == 6
    assert stroke.sent == []
    (tmp_path / "ISLES-2022.zip").write_bytes(stroke.content + b" ")
    with pytest.raises(UserError, match=r"ISLES-2022.zip does not have the hash"):
        fetch(tmp_path / "other", given=tmp_path / "ISLES-2022.zip")


@pytest.mark.parametrize("given", ["missing.zip", "file.txt"])
def test_a_path_that_is_neither_a_folder_nor_an_archive(given, stroke, tmp_path):
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(UserError, match=rf"{given} is neither a folder nor an archive"):
        fetch(tmp_path / "out", given=tmp_path / given)


def test_a_given_folder_stays_as_it_is(stroke, tmp_path):
    from medsaga_lib.data.fetching.archives import unpack

    given = tmp_path / "given"
    given.mkdir()
    (tmp_path / "a.zip").write_bytes(stroke.content)
    unpack(tmp_path / "a.zip", given, progress=False)
    before = state(given)
    out = fetch(tmp_path / "out", given=given).out
    image = next((out / "images").iterdir())
    assert image.stat().st_nlink == 1  # a copy, not a link to the user's file
    assert state(given) == before


def test_a_licence_that_is_not_free_must_be_accepted(tmp_path):
    for name, official in official_sets().items():
        if not official.needs_consent:
            continue
        with pytest.raises(UserError, match=r"read http.*, and add --accept-licence"):
            fetch_set(name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_set_behind_a_registration_says_what_to_download(tmp_path):
    with pytest.raises(UserError, match=r"Register at .*RawData\.zip.*--from"):
        fetch_set("synapse", tmp_path / "out", accepts=True)


def test_slices_need_a_rule(tmp_path):
    with pytest.raises(UserError, match="glas has no rule for slices"):
        fetch_set("glas", tmp_path / "out", accepts=True, slices=True)


def test_slices_have_a_folder_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDSAGA_DATA", str(tmp_path))
    assert default_folder("isles22", slices=False) == tmp_path / "isles22"
    assert default_folder("isles22", slices=True) == tmp_path / "isles22_slices"
    monkeypatch.delenv("MEDSAGA_DATA")
    monkeypatch.chdir(tmp_path)
    assert default_folder("glas", slices=False) == tmp_path / "glas"


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(UserError, match=r"'isles'; choose one of cxr_hannover_lungs, .*cvpr24"):
        fetch_set("isles", tmp_path / "out")


def test_the_facts_are_complete():
    for name, official in official_sets().items():
        assert re.fullmatch(r"[a-z0-9_]+", name)
        assert official.modality in (*MODALITIES, "")
        assert set(official.verified) <= set(FACTS_OF_A_SET)
        assert (official.comes == "direct") == bool(official.files)
        assert (official.comes == "by hand") == bool(official.how)
        for file in official.files:
            assert urlsplit(file.url).scheme in ("http", "https")
            kind, _, digest = (file.hash or f"md5:{'0' * 32}").partition(":")
            assert len(digest) == {"sha256": 64, "md5": 32}[kind]
            assert (
                file.hash is not None or "hash" not in official.verified or len(official.files) > 1
            )


def test_a_set_without_free_terms_is_named_so():
    """A row that calls its terms free has a licence that is."""
    for official in official_sets().values():
        free = re.search(r"CC0|CC BY(-SA)? \d|Apache", official.licence)
        restricted = re.search(r"NC|ND|research|terms|\basks\b", official.licence)
        assert (official.terms == "free") == (bool(free) and not restricted)


def test_every_set_is_cited_in_the_references():
    """By the DOI or the arXiv number of its citation, or by the page of its data."""
    text = (BOOK / "references.md").read_text(encoding="utf-8")
    for name, official in official_sets().items():
        keys = re.findall(r"arXiv:(\d{4}\.\d{5})|doi:([\w./-]+)", official.citation)
        papers = [number or doi for number, doi in keys]
        for paper in papers or [official.citation.split(" et al")[0]]:
            assert paper in text, (name, paper)


def test_the_command_prints_licence_and_size_first(stroke, tmp_path, medsaga):
    code, out, err = medsaga("data", "fetch", "isles22", tmp_path / "out")
    assert code == 0
    lines = out.splitlines()
    assert lines[1] == f"licence: {official_sets()['isles22'].licence}"
    assert lines[3] == f"size: {len(stroke.content) / 1e6:,.1f} MB"
    assert lines[-2] == f"{tmp_path / 'out'} is written"
    assert "ISLES-2022.zip" in lines[-1]  # where the download is kept
    assert "6" in err or "B/s" in err  # the bar of the download
    code, out, err = medsaga("data", "fetch", "isles22", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "was fetched before, and nothing was changed" in out
    assert "size:" not in out


def test_the_command_as_json(stroke, tmp_path, medsaga):
    code, out, err = medsaga("data", "fetch", "isles22", tmp_path / "out", "--json")
    record = json.loads(out)
    assert (code, err) == (0, "")
    assert record["out"] == str(tmp_path / "out")
    assert (record["unchanged"], record["exact"]) == (False, None)


@pytest.mark.parametrize("words", [(), ("list",)])
def test_the_command_alone_lists_all_sets(words, medsaga):
    code, out, _ = medsaga("data", "fetch", *words)
    assert code == 0
    header, *rows = out.splitlines()
    assert header.split()[:4] == ["name", "used", "by", "licence"]
    assert [row.split()[0] for row in rows] == list(official_sets())
    brats = next(row for row in rows if row.startswith("brats"))
    assert "by hand" in brats
    assert brats.endswith("address, licence")  # not verified
    records = json.loads(medsaga("data", "fetch", *words, "--json")[1])
    assert [record["name"] for record in records] == list(official_sets())


def test_the_command_refuses_in_one_sentence(medsaga, tmp_path):
    code, out, err = medsaga("data", "fetch", "cholecseg8k", tmp_path / "out")
    assert code == 2
    assert "licence: CC BY-NC-SA 4.0" in out
    assert re.fullmatch(r"medsaga: The licence of .*--accept-licence if you accept it\.\n", err)
