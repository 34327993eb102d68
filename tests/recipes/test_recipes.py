"""Numbers of parameters and bytes of recipes, as in their papers and their code."""

import io
from dataclasses import replace

import pytest
import torch

from medsaga_lib.memory.plan import count
from medsaga_lib.optim.galore import treatment
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import build_model, build_optimizer, trainable
from medsaga_lib.recipes.recipe import changed


def test_samed_trains_what_its_paper_trains():
    counted = count(get_recipe("samed"), "vit_b", 512, 8)
    assert counted.trainable == 4_913_621  # 147,456 LoRA + 4,759,945 decoder + 6,220 prompts
    assert counted.total == counted.trainable + 87_278_848  # the frozen encoder at 512 px
    assert counted.state_bytes == 2 * 4 * 4_913_621


def test_samed_s_trains_what_its_code_trains():
    recipe = get_recipe("samed_s")
    assert count(recipe, "vit_b", 512, 8).trainable == 1_645_909  # from SAMed's code
    with torch.device("meta"):
        model = build_model(recipe, "vit_b", 512, 8, "random")
    parts = {"lora": 0, "prompt_encoder": 0, "heads": 0}
    for name, parameter in trainable(model).items():
        part = "lora" if "lora_" in name else name.split(".")[1]
        parts[part if part in parts else "heads"] += parameter.numel()
    # q and v of 12 blocks; of the decoder, 2 x 2 layers of 256 -> 256 and 5 x 2 of 256 -> 128
    in_decoder = 2 * 2 * 4 * (256 + 256) + 5 * 2 * 4 * (256 + 128)
    assert parts["lora"] == 147_456 + in_decoder
    assert parts["prompt_encoder"] == 6_220
    assert parts["heads"] == 4_759_945 - 3_291_264  # SAMed's decoder without its transformer


def test_samed_s_checkpoint_is_mebibytes_and_not_millions_of_parameters():
    """Cheap Lunch's "6.32M trainable parameters" is the size of this file: 6.318 MiB."""
    model = build_model(get_recipe("samed_s"), "vit_b", 512, 8, "random")
    tensors, file = {n: p.detach().clone() for n, p in trainable(model).items()}, io.BytesIO()
    torch.save(tensors, file)
    numbers = sum(tensor.nbytes for tensor in tensors.values())
    assert numbers / 2**20 == pytest.approx(6.279, abs=5e-4)
    assert file.tell() / 2**20 == pytest.approx(6.318, rel=0.005)  # with names and headers


def test_medsaga_trains_every_tensor_of_the_encoder():
    recipe = get_recipe("medsaga")
    counted = count(recipe, "vit_b", 512, 8)
    assert counted.trainable == counted.total == 87_278_848 + 4_759_945 + 6_220
    with torch.device("meta"):
        encoder = build_model(recipe, "vit_b", 512, 8, "random").sam.image_encoder
    config = recipe.image_encoder.config(encoder)
    assert config.rank == 64  # 768 / 12
    plan = treatment(encoder, config)
    assert len(plan) == 177
    for tensor in plan:
        if tensor.matrix and min(tensor.matrix) > 64:
            small, large = sorted(tensor.matrix)
            # projected exactly where basis and moments take less than dense moments
            saves = small * 64 + 2 * large * 64 < 2 * small * large
            assert (tensor.how == "projected") == saves, tensor
        else:
            assert tensor.how == "dense", tensor
    projected = {t.name for t in plan if t.how == "projected"}
    assert {"pos_embed", "neck.2.weight", "blocks.0.attn.qkv.weight"} <= projected


def test_s_sam_trains_what_its_code_trains():
    ssam = get_recipe("s_sam")
    counted = count(ssam, "vit_b", 256, 8)
    plain = count(get_recipe("decoder_only"), "vit_b", 256, 3).total  # as many masks as SAM's own
    assert counted.total == plain + 131_840 + 74_752  # names as prompts; scales and shifts
    assert counted.trainable == 444_672  # of its code: 74,752 + 196,608 + 36,864 + 4,608 + 131,840
    frozen = replace(ssam, decoder="frozen")
    assert count(frozen, "vit_b", 256, 8).trainable == 440_064  # the paper: the decoder is frozen
    with torch.device("meta"):
        model = build_model(ssam, "vit_b", 256, 8, "random")
    groups = {"scale_shift": 0, "pos_embed": 0, "norm": 0, "affine": 0}
    for name, parameter in trainable(model).items():
        key = "scale_shift" if name.endswith((".scale", ".shift")) else name
        (group,) = [g for g in groups if g in key]
        groups[group] += parameter.numel()
    assert groups == {
        "scale_shift": 74_752,
        "pos_embed": 196_608,
        "norm": 36_864 + 4_608,
        "affine": 131_840,
    }


def test_svd_holds_a_quarter_of_what_the_reference_holds_besides_the_weights():
    with torch.device("meta"):
        plain = build_model(get_recipe("decoder_only"), "vit_b", 256, 8, "random").sam.image_encoder
        model = build_model(get_recipe("s_sam"), "vit_b", 256, 8, "random").sam.image_encoder

    def held(module):
        tensors = [*module.parameters(), *module.buffers()]
        return sum(t.numel() * t.element_size() for t in tensors)

    assert (held(model) - held(plain)) / 2**20 == pytest.approx(109, abs=1)  # reference: 432


def test_svf_trains_singular_values_and_the_text_layer():
    names = trainable(build_model(get_recipe("svf"), "pocket", 64, 2, "random"))
    text = {name for name in names if name.startswith("affine.")}
    assert text
    assert names.keys() > text
    assert all(name.endswith(".scale") for name in names.keys() - text)


def test_dae_former_trains_what_its_paper_trains_but_the_dead_weights():
    counted = count(get_recipe("dae_former"), "none", 224, 8)
    assert counted.trainable == counted.total == 48_073_065 - 18_382_864
    assert counted.state_bytes == 4 * counted.total  # SGD's momentum
    model = build_model(get_recipe("dae_former"), "none", 32, 1, "random")
    (group,) = build_optimizer(get_recipe("dae_former"), model).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.05, 0.9, 1e-4)


def test_minilms_names_are_narrower_than_clips():
    recipe = changed(get_recipe("s_sam"), ["text=minilm"])
    spelled, minilm = (count(r, "pocket", 64, 2).trainable for r in (get_recipe("s_sam"), recipe))
    assert spelled - minilm == (512 - 384) * 128  # the affine layer, to the pocket's 128 channels
    model = build_model(recipe, "pocket", 64, 2, "random", names=["kidney", "renal"])
    assert model.texts.shape == (2, 384)
    assert model.texts[0] @ model.texts[1] > 0.9
