"""What a kill or a full disk leaves: every file whole, old or new, and the next write goes on.

A forked process writes. It is killed before its n-th step on the disk, for every n, or it may not
write files above some size.
"""

import errno
import json
import os
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from medsaga_lib.data.fetching.fetch import fetch_set
from medsaga_lib.data.geometry import Geometry
from medsaga_lib.data.images import Picture, read_mask
from medsaga_lib.data.label_files import write_labels
from medsaga_lib.errors import UserError
from medsaga_lib.evaluation.scores import CASES_FILE, SUMMARY_FILE, Evaluation
from medsaga_lib.files import is_leftover, write_json
from medsaga_lib.models import weights
from medsaga_lib.training.run_folder import (
    LOG_COLUMNS,
    Checkpoint,
    read_checkpoint,
    read_log,
    save_checkpoint,
)

STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.chmod"}  # events of Python's audit
REFUSED = 3  # exit code of a process whose write was refused in one sentence
PIXELS = Picture(
    np.zeros((3, 8, 9), np.float32), (2.0, 1.0, 1.0), Geometry(np.diag([-1.0, -1, 2, 1]))
)


class Labels:
    """Label maps of a volume, as `medsaga predict` writes them."""

    def __init__(self, ending):
        self.name = f"a{ending}"

    def write(self, folder: Path, number: int) -> None:
        values = np.random.default_rng(number).integers(0, 3, PIXELS.shape)
        write_labels(folder / self.name, PIXELS, values)

    def number(self, folder: Path) -> int:
        """Return which of the writes the folder holds whole."""
        path = folder / self.name
        found = np.load(path)["segs"] if self.name.endswith(".npz") else read_mask(path)[0]
        for number in (1, 2):
            if np.array_equal(found, np.random.default_rng(number).integers(0, 3, PIXELS.shape)):
                return number
        raise AssertionError("a mixture")


class Run:
    """The checkpoint and the log of a run, as `medsaga train` writes them."""

    def write(self, folder: Path, number: int) -> None:
        trained, states = ({"a": torch.full((2000,), float(number))} for _ in range(2))
        log = [dict.fromkeys(LOG_COLUMNS, float(step)) for step in range(number)]
        save_checkpoint(folder, Checkpoint(number, trained, states), log)

    def number(self, folder: Path) -> int:
        saved = read_checkpoint(folder)
        assert saved is not None
        assert (saved.weights["a"] == saved.step).all()
        assert (saved.optimizer["a"] == saved.step).all()
        assert len(read_log(folder)) >= saved.step  # `train` drops the rows after the checkpoint
        return saved.step


class Scores:
    """The table and the summary of `medsaga evaluate`."""

    def write(self, folder: Path, number: int) -> None:
        row = {"case": "a", "patient": "p", "class": "lung", "label": 1}
        row |= dict.fromkeys(("dice", "hd95", "nsd"), number / 4)
        table = pd.DataFrame([row] * 30)
        write_json(folder / SUMMARY_FILE, {"n": number, "filler": [0] * 500})
        Evaluation.save(_Table(table, number), folder)

    def number(self, folder: Path) -> int:
        assert len(pd.read_csv(folder / CASES_FILE)) == 30
        return json.loads((folder / SUMMARY_FILE).read_text())["n"]


class _Table:
    def __init__(self, table, number):
        self.table, self._number = table, number

    def summary(self):
        return {"n": self._number, "filler": [0] * 500}


WRITERS = {
    **{ending: Labels(ending) for ending in (".nii.gz", ".nrrd", ".mha", ".tif", ".npz")},
    "run": Run(),
    "scores": Scores(),
}


def in_child(prepare, write) -> int:
    """Return the exit code of a forked process that writes; negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            prepare()
            write()
            code = 0
        except UserError:
            code = REFUSED
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_before(step: int, folder: Path):
    """Return a function after which the process kills itself before a step in the folder."""

    def prepare():
        left = [step]

        def watch(event, arguments):
            if event in STEPS and str(arguments[0]).startswith(str(folder)):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1

        sys.addaudithook(watch)

    return prepare


@pytest.mark.parametrize("kind", WRITERS)
def test_a_kill_before_any_step_leaves_whole_files(kind, tmp_path):
    writer = WRITERS[kind]
    writer.write(tmp_path, 1)
    names = {path.name for path in tmp_path.iterdir()}
    found = []
    for step in range(100):
        code = in_child(kill_before(step, tmp_path), lambda: writer.write(tmp_path, 2))
        found.append(writer.number(tmp_path))
        extra = {path for path in tmp_path.iterdir() if path.name not in names}
        assert all(is_leftover(path) for path in extra)
        writer.write(tmp_path, 1)  # the same command goes on, and cleans up
        assert {path.name for path in tmp_path.iterdir()} == names
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert step >= 2
    assert found[0] == 1
    assert found[-1] == 2


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_refused_and_changes_nothing(kind, tmp_path):
    writer = WRITERS[kind]
    writer.write(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    largest = max(map(len, before.values()))

    def limited(size):
        def prepare():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        return prepare

    for size in (0, largest // 2):
        code = in_child(limited(size), lambda: writer.write(tmp_path, 2))
        assert code == REFUSED, size
        assert writer.number(tmp_path) == 1 or kind == "scores"  # the summary may fit
        assert {path.name for path in tmp_path.iterdir()} == before.keys()


def test_a_folder_whose_first_write_was_killed_is_a_new_run(phantoms, tmp_path, medsaga):
    out = tmp_path / "run"
    out.mkdir()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    (out / f".run.json.{child}.tmp").write_text('{"settings"')
    words = ["train", "samed", "--data", phantoms, "--shots", 2, "--out", out, "--steps", 1]
    assert medsaga(*words, "--weights", "random", "--size", 32)[0] == 0
    assert not list(out.glob(".*"))


def test_the_temporary_file_of_a_running_process_is_kept(tmp_path):
    other = tmp_path / f".a.json.{os.getppid()}.tmp"
    other.write_text("{")
    write_json(tmp_path / "a.json", 1)
    assert other.exists()


def test_a_download_killed_at_any_step_goes_on(own_cache, monkeypatch):
    content = bytes(range(256)) * 100

    def download(url, part, progress):
        have = part.stat().st_size if part.exists() else 0
        for start in range(have, len(content), 10_000):
            with part.open("ab") as file:
                file.write(content[start : start + 10_000])

    import hashlib

    item = weights.WeightFile(
        "pocket", "w.pth", "none", "a test", "http://localhost/w.pth",
        "sha256:" + hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
    monkeypatch.setitem(weights.WEIGHT_FILES, "pocket", item)
    monkeypatch.setattr("medsaga_lib.download._download", download)
    folder = own_cache / "weights"
    for step in range(100):
        code = in_child(kill_before(step, own_cache), lambda: weights.fetch("pocket", False))
        seen = {path.name for path in folder.iterdir()} if folder.exists() else set()
        assert seen <= {"w.pth", "w.pth.part"}
        if code == 0:
            break
        assert "w.pth" not in seen
        assert weights.fetch("pocket", False).read_bytes() == content
        (folder / "w.pth").unlink()
    assert step > 4
    assert weights.fetch("pocket", False).read_bytes() == content


def test_a_fetch_killed_at_any_step_leaves_no_folder(tmp_path, monkeypatch):
    """The folder is there completely or not at all, and the next fetch removes what is left."""
    import nibabel

    given, out = tmp_path / "given", tmp_path / "sets/out"
    given.mkdir()
    for name in ("volume-0.nii", "segmentation-0.nii"):
        nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 2), np.uint8), np.eye(4)), given / name)

    def fetch():
        fetch_set("lits", out, given=given, accepts=True, progress=False)

    whole = set()
    for step in range(0, 200, 3):
        code = in_child(kill_before(step, tmp_path / "sets"), fetch)
        seen = {path.name for path in out.iterdir()} if out.exists() else set()
        if seen:
            whole = seen
            break
        assert code == -signal.SIGKILL
    assert step > 4
    assert whole == {"dataset.toml", "index.csv", "images", "masks", "SOURCE.md", "fetched.json"}
    fetch()
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_full_disk_during_a_download_is_one_sentence(own_cache, monkeypatch):
    def download(url, part, progress):
        part.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("medsaga_lib.download._download", download)
    with pytest.raises(UserError, match=r"Cannot write .*No space left.*MEDSAGA_CACHE"):
        weights.fetch("vit_b", False)
    assert [path.name for path in (own_cache / "weights").iterdir()] == [
        "sam_vit_b_01ec64.pth.part"  # the next call continues it
    ]
