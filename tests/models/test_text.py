"""Label names as vectors: a small CLIP with random weights against transformers' own; spelling."""

import json
import subprocess
import sys

import pytest
import torch

from medsaga_lib import compat  # noqa: F401  (before transformers, which imports torchvision)
from medsaga_lib.errors import UserError
from medsaga_lib.models.text import WIDTH, ClipText, Spelling

NAMES = ["left lung", "right lung", "heart", "spleen"]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A CLIP in the hub's layout: every letter is a token, the weights are random."""
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    text = {
        "vocab_size": len(tokens),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "bos_token_id": len(tokens) - 2,
        "eos_token_id": len(tokens) - 1,
    }
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
    model = CLIPModel(config).eval()
    model.save_pretrained(folder)
    return folder, model


def test_clip_gives_the_text_half_of_transformers_clip(clip_folder):
    folder, model = clip_folder
    encode = ClipText(str(folder))
    together = encode(NAMES)
    assert together.shape == (4, WIDTH)
    assert together.dtype == torch.float32
    assert not together.requires_grad
    for name, vector in zip(NAMES, together, strict=True):  # one at a time: no padding at all
        tokens = encode.tokenizer(name, return_tensors="pt")
        with torch.no_grad():
            hidden = model.text_model(**tokens).pooler_output
            expected = model.text_projection(hidden)[0]
        torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-5)
    assert torch.cdist(together, together).fill_diagonal_(1).min() > 1e-3


def test_clip_that_cannot_be_had_says_what_to_do(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="name a folder that holds it"):
        ClipText(str(tmp_path))


def test_clip_without_transformers_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"medsaga-lib\[text\]"):
        ClipText()


def test_spelling_is_the_same_in_every_process_and_near_for_near_names():
    vectors = Spelling()(NAMES)
    assert vectors.shape == (4, WIDTH)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    assert vectors[0] @ vectors[1] > 0.4 > abs(vectors[0] @ vectors[2])
    torch.testing.assert_close(Spelling()(["  Left  LUNG "])[0], vectors[0])

    code = "from medsaga_lib.models.text import Spelling; print(Spelling()(['heart'])[0].tolist())"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout) == vectors[2].tolist()


@pytest.mark.parametrize("names", [[], ["heart", " "]])
def test_label_without_a_name_is_named(names):
    with pytest.raises(UserError, match="name every label"):
        Spelling()(names)
