"""Image encoders on other runtimes give the embeddings of torch, with adapters merged."""

import numpy as np
import pytest
import torch
from runs import SMALL, short, train

from medsaga_lib.data.images import Picture
from medsaga_lib.errors import UserError
from medsaga_lib.inference import runtime
from medsaga_lib.inference.box_predictor import load_box_predictor
from medsaga_lib.inference.predictor import load_run
from medsaga_lib.models.sam import build_sam

SIDE = 64


def installed(name):
    if absent := runtime.missing(name):
        pytest.skip(f"{' and '.join(absent)} are for the runtime {name} only")


def random_sam(backbone):
    """Random weights, also where they start at 0, and statistics that are not the initial ones."""
    torch.manual_seed(0)
    sam = build_sam(backbone, SIDE).eval()
    with torch.no_grad():
        for name, tensor in sam.image_encoder.state_dict().items():
            if "rel_pos" in name or name.endswith(("pos_embed", "attention_biases")):
                tensor.normal_(std=0.1)
            if name.endswith(("running_mean", "running_var")):
                tensor.uniform_(0.5, 1.5)
    return sam


@torch.inference_mode()
def embed(sam, count=2):
    images = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return sam.image_encoder(images)


@pytest.mark.parametrize("name", ["onnx", "openvino"])
@pytest.mark.parametrize("backbone", ["pocket", "lite_medsam"])
def test_embeddings_are_torchs(name, backbone):
    installed(name)
    sam = random_sam(backbone)
    expected = embed(sam)
    assert runtime.use_runtime(sam, name) == name
    torch.testing.assert_close(embed(sam), expected, atol=1e-4, rtol=0)


def test_windows_of_a_vit_are_those_of_torch():
    """The blocks of ViT-B attend within windows, which do not divide this grid."""
    encoder = random_sam("pocket").image_encoder
    for block in encoder.blocks[:3]:
        block.attn.window = 3
    images = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = encoder(images)
        plain = runtime.plain_copy(encoder)
        torch.testing.assert_close(plain(images), expected, atol=1e-5, rtol=0)
    assert [block.window_size for block in plain.blocks] == [3, 3, 3, 0, 0, 0]
    assert [block.window_size for block in encoder.blocks] == [0] * 6  # the copy alone changed


@pytest.mark.parametrize("recipe", ["samed", "s_sam", "sam_adapter"])
def test_a_trained_run_predicts_the_same(recipe, dataset, tmp_path):
    """LoRA and the singular values are merged; the bottlenecks become layers of the file."""
    installed("onnx")
    train(short(recipe, lr=0.01), dataset, 4, tmp_path / recipe, **SMALL)
    eager, other = load_run(tmp_path / recipe), load_run(tmp_path / recipe, "onnx")
    assert (eager.runtime, other.runtime) == ("torch", "onnx")
    torch.testing.assert_close(embed(other.model.sam), embed(eager.model.sam), atol=1e-4, rtol=0)
    picture = Picture(np.random.default_rng(0).random((40, 50), dtype=np.float32), (1.0, 1.0))
    assert (other(picture) != eager(picture)).mean() < 0.01


def test_a_file_is_written_once_for_the_same_weights(own_cache):
    installed("onnx")
    for _ in range(2):
        first = runtime.exported(runtime.plain_copy(random_sam("pocket").image_encoder))
    changed = random_sam("pocket").image_encoder
    with torch.no_grad():
        changed.neck[0].weight[0] += 1
    other = runtime.exported(runtime.plain_copy(changed))
    assert {*own_cache.rglob("*.onnx")} == {first, other}


def test_auto_takes_the_fastest(monkeypatch):
    installed("onnx")
    monkeypatch.setattr(runtime, "PACKAGES", {"onnx": runtime.PACKAGES["onnx"]})
    for seconds, expected in (({"Exported": 1.0}, "onnx"), ({"Exported": 3.0}, "torch")):
        monkeypatch.setattr(
            runtime, "_seconds", lambda one, _, s=seconds: s.get(type(one).__name__, 2.0)
        )
        assert runtime.use_runtime(random_sam("pocket"), "auto") == expected


def test_without_packages_there_is_one_sentence_and_auto_is_torch(medsaga, monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    assert runtime.use_runtime(random_sam("pocket"), "auto") == "torch"
    with pytest.raises(UserError, match="needs onnx and onnxruntime") as error:
        load_box_predictor("pocket", runtime="onnx")
    assert str(error.value).endswith('run: pip install "medsaga-lib[onnx]".')
    words = "predict", "pocket", tmp_path / "a.png", "--out", tmp_path, "--box", "0,0,3,3"
    code, _, message = medsaga(*words, "--runtime", "openvino")
    assert code == 2
    assert 'pip install "medsaga-lib[openvino]"' in message


def test_a_network_without_an_image_encoder_stays_in_torch(dataset, tmp_path):
    train(short("unet", steps=1), dataset, 3, tmp_path / "unet", **SMALL)
    assert load_run(tmp_path / "unet", "auto").runtime == "torch"
    with pytest.raises(UserError, match="unet has no image encoder of a SAM"):
        load_run(tmp_path / "unet", "onnx")
