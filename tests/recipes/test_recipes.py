"""What the recipes train, keep and start from, in numbers."""

import io
from dataclasses import replace

import pytest
import torch

from medsaga_lib.errors import UserError
from medsaga_lib.optim.galore import GaLoreAdamW, treatment
from medsaga_lib.recipes import RECIPES, get_recipe
from medsaga_lib.recipes.build import (
    build_model,
    build_optimizer,
    count,
    galore_config,
    trainable,
)
from medsaga_lib.recipes.predict import Plan, predict_ledger
from medsaga_lib.recipes.recipe import Full


def test_samed_trains_what_its_paper_trains():
    counted = count(get_recipe("samed"), "vit_b", 512, 8)
    assert counted.trainable == 4_913_621  # 147,456 LoRA + 4,759,945 decoder + 6,220 prompts
    assert counted.total == counted.trainable + 87_278_848  # the frozen encoder at 512 px
    assert counted.state_bytes == 2 * 4 * 4_913_621


def test_samed_s_trains_what_its_code_trains():
    recipe = get_recipe("samed_s")
    assert count(recipe, "vit_b", 512, 8).trainable == 1_645_909  # METHODS, from SAMed's code
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
    file = io.BytesIO()
    torch.save({name: p.detach().clone() for name, p in trainable(model).items()}, file)
    assert round(4 * 1_645_909 / 2**20, 3) == 6.279  # the numbers alone
    assert file.tell() / 2**20 == pytest.approx(6.318, rel=0.005)  # with names and headers


def test_a_decoder_gets_the_encoders_lora_or_none():
    with pytest.raises(UserError, match=r"there is none in medsaga; choose whole"):
        replace(get_recipe("medsaga"), decoder="lora")


def test_a_word_that_is_no_choice_is_refused():
    medsaga = get_recipe("medsaga")
    with pytest.raises(UserError, match=r"decoder is 'decoder_only'; choose one of whole, lora,"):
        replace(medsaga, decoder="decoder_only")
    with pytest.raises(UserError, match=r"augmentation is 'strong'; choose one of samed, small"):
        replace(medsaga, augmentation="strong")
    with pytest.raises(UserError, match=r"moments is 'turn'; choose one of rotate, keep"):
        replace(medsaga, image_encoder=replace(medsaga.image_encoder, moments="turn"))


def test_medsaga_trains_every_tensor_of_the_encoder():
    recipe = get_recipe("medsaga")
    counted = count(recipe, "vit_b", 512, 8)
    assert counted.trainable == counted.total == 87_278_848 + 4_759_945 + 6_220
    with torch.device("meta"):
        encoder = build_model(recipe, "vit_b", 512, 8, "random").sam.image_encoder
    config = galore_config(recipe.image_encoder, encoder)
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


@pytest.mark.parametrize("name", RECIPES)
def test_state_bytes_are_what_the_optimizer_holds(name):
    recipe = get_recipe(name)
    model = build_model(recipe, "pocket", 64, 2, "random")
    optimizer = build_optimizer(recipe, model)
    for parameter in trainable(model).values():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    held = sum(
        tensor.untyped_storage().nbytes()
        for state in optimizer.state.values()
        for key, tensor in state.items()
        if key != "step"
    )
    assert held == count(recipe, "pocket", 64, 2).state_bytes


@pytest.mark.parametrize("name", RECIPES)
def test_every_trainable_tensor_is_optimised_once(name):
    recipe = get_recipe(name)
    model = build_model(recipe, "pocket", 64, 2, "random")
    optimizer = build_optimizer(recipe, model)
    optimised = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(optimised) == len(set(optimised))
    assert set(optimised) == {id(p) for p in trainable(model).values()}


def test_medsaga_uses_the_papers_two_learning_rates():
    recipe = get_recipe("medsaga")
    model = build_model(recipe, "pocket", 64, 2, "random")
    optimizer = build_optimizer(recipe, model)
    assert isinstance(optimizer, GaLoreAdamW)
    encoder = {id(p) for p in model.sam.image_encoder.parameters()}
    for group in optimizer.param_groups:
        inside = {id(p) in encoder for p in group["params"]}
        assert len(inside) == 1
        assert group["lr"] == (recipe.image_encoder.lr if inside.pop() else recipe.lr)
        assert group["weight_decay"] == 0.1


def test_full_fine_tuning_is_a_replaced_recipe():
    recipe = replace(get_recipe("samed"), image_encoder=Full())
    model = build_model(recipe, "pocket", 64, 2, "random")
    assert len(trainable(model)) == len(list(model.parameters()))
    assert type(build_optimizer(recipe, model)) is torch.optim.AdamW


def test_building_depends_on_the_seed_and_touches_no_global_state():
    recipe = get_recipe("samed")
    before = torch.random.get_rng_state()
    first, second, other = (
        build_model(recipe, "pocket", 64, 2, "random", seed).state_dict() for seed in (3, 3, 4)
    )
    assert torch.random.get_rng_state().equal(before)
    assert all(first[k].equal(second[k]) for k in first)
    assert any(not first[k].equal(other[k]) for k in first)


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(UserError, match=r"'samed_xl'.*medsaga, samed, samed_s"):
        get_recipe("samed_xl")


def test_s_sam_trains_what_its_code_trains():
    ssam = get_recipe("s_sam")
    counted = count(ssam, "vit_b", 256, 8)
    plain = count(get_recipe("decoder_only"), "vit_b", 256, 3).total  # as many masks as SAM's own
    assert counted.total == plain + 131_840 + 74_752  # names as prompts; scales and shifts
    assert counted.trainable == 444_672  # METHODS: 74,752 + 196,608 + 36,864 + 4,608 + 131,840
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
    model = build_model(get_recipe("svf"), "pocket", 64, 2, "random")
    assert all(n.endswith(".scale") or n.startswith("affine.") for n in trainable(model))


def test_dae_former_trains_what_its_paper_trains_but_the_dead_weights():
    counted = count(get_recipe("dae_former"), "none", 224, 8)
    assert counted.trainable == counted.total == 48_073_065 - 18_382_864
    assert counted.state_bytes == 4 * counted.total  # SGD's momentum
    model = build_model(get_recipe("dae_former"), "none", 32, 1, "random")
    (group,) = build_optimizer(get_recipe("dae_former"), model).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.05, 0.9, 1e-4)


def test_sgd_is_for_dense_updates_after_the_backward_pass():
    unet = replace(get_recipe("unet"), optimizer="sgd")
    with pytest.raises(UserError, match="adamw only"):
        build_optimizer(unet, build_model(unet, "none", 32, 1, "random"), per_layer=True)
    medsaga = replace(get_recipe("medsaga"), optimizer="sgd")
    with pytest.raises(UserError, match="adamw only"):
        build_optimizer(medsaga, build_model(medsaga, "pocket", 32, 1, "random"))
    with pytest.raises(UserError, match="adamw only"):  # nor is it predicted
        predict_ledger(get_recipe("dae_former"), Plan("none", 1, 32, 1, per_layer=True))


@pytest.mark.parametrize(
    ("steps", "bases", "refresh"),
    [(14_880, 10, 200), (2_000, 10, 200), (400, 10, 40), (200, 10, 20), (6, 10, 1), (60, 0, 200)],
)
def test_a_short_run_renews_its_bases_more_often(steps, bases, refresh):
    recipe = get_recipe("medsaga")
    how = replace(recipe.image_encoder, bases=bases)
    recipe = replace(recipe, image_encoder=how, steps=steps)
    with torch.device("meta"):
        model = build_model(recipe, "pocket", 64, 2, "random")
    group = build_optimizer(recipe, model).param_groups[0]
    assert group["refresh"] == refresh
