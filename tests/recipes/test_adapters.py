"""Every recipe: what it trains, what it computes before training and merged, and that it learns."""

from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
import torch
from runs import train

from medsaga_lib.adapt.lora import LoRA
from medsaga_lib.adapt.svd import SVDAffine
from medsaga_lib.data.prompts import CORNER, OPPOSITE_CORNER, PAD, POSITIVE
from medsaga_lib.data.shots import choose_shots
from medsaga_lib.errors import UserError
from medsaga_lib.inference.predictor import load_run
from medsaga_lib.memory.plan import count
from medsaga_lib.models.heads import Promptable
from medsaga_lib.models.weights import load_state
from medsaga_lib.recipes import RECIPES, get_recipe
from medsaga_lib.recipes.build import build_model, build_optimizer, trainable
from medsaga_lib.recipes.encoder import Frozen
from medsaga_lib.recipes.recipe import changed
from medsaga_lib.training import loop
from medsaga_lib.training.losses import OBJECTIVES

ENCODER, DECODER, PROMPTS = "sam.image_encoder.", "sam.mask_decoder.", "sam.prompt_encoder.*"
LORA = ("*.lora_A.default.weight", "*.lora_B.default.weight")
HEADS = tuple(f"{DECODER}{part}*" for part in ("iou_", "mask_tokens.", "output_"))
WHOLE = (f"{DECODER}*", PROMPTS)
TEXT = "affine.*"

# What trains, by pattern, and nothing else
TRAINS = {
    "medsaga": ("*",),
    "medsaga_v1": (f"{ENCODER}blocks.*.attn.*", *WHOLE),
    "medsaga_v2": (f"{ENCODER}*",),
    "samed": (f"{ENCODER}*{LORA[0]}", f"{ENCODER}*{LORA[1]}", *WHOLE),
    "samed_s": (*LORA, *HEADS, PROMPTS),
    "s_sam": (
        *("*.scale", "*.shift", f"{ENCODER}pos_embed", TEXT),
        *(f"{ENCODER}blocks.*.norm?.*", f"{DECODER}transformer.*norm*"),
    ),
    "svf": ("*.scale", TEXT),
    "adaptive_sam": (
        *(f"{ENCODER}*.bias", f"{ENCODER}*norm?.weight", f"{ENCODER}neck.[13].weight"),
        *(f"{ENCODER}pos_embed", f"{DECODER}*", TEXT),
    ),
    "sam_adapter": (f"{ENCODER}blocks.*.adapter.*", *WHOLE),
    "cheap_lunch": (*LORA, *HEADS, PROMPTS),
    "lite_medsam_lora": (f"{ENCODER}*{LORA[0]}", f"{ENCODER}*{LORA[1]}", *WHOLE),
    "late_stages": (f"{ENCODER}blocks.[345].*", f"{ENCODER}neck.*", *WHOLE, "lift.weight"),
    "full": ("*",),
    "decoder_only": WHOLE,
    "frozen_encoder": WHOLE,
    "sam_zero_shot": (),
    "unet": ("*",),
    "segresnet": ("*",),
    "dae_former": ("*",),
}
# These get no gradient without a prompt, and without a loss on the predicted IoU
SILENT = ("*iou_*", "*mask_downscaling*", "*point_embeddings*", "*not_a_point_embed*")
LEARNING = [name for name, patterns in TRAINS.items() if patterns]
WITH_SAM = [n for n, r in RECIPES.items() if r.network is None]
OPTIONS = {"size": 64, "validations": 0}


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def answers(model, images):
    """The logits of two labels; a model that needs prompts gets the same prompt for both."""
    prompts = ()
    if isinstance(model, Promptable):
        corners = torch.tensor([[10.0, 12.0], [40.0, 50.0]])
        roles = (CORNER, OPPOSITE_CORNER) if model.kind == "boxes" else (POSITIVE, PAD)
        prompts = corners.expand(2, 2, 2, 2), torch.tensor(roles).expand(2, 2, 2)
    return model(images, *prompts)


def fits(name, patterns):
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def plain(recipe):
    """The SAM that a recipe starts from, with its head and without its adapter."""
    kind = replace(recipe, image_encoder=Frozen(), decoder="whole", synthesis=None)
    return build_model(kind, "pocket", 64, 2).eval()


def moved(model):
    """Change every value that trains, and return the model."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def test_every_recipe_is_tested_here():
    assert set(TRAINS) == set(RECIPES)


@pytest.mark.parametrize("name", LEARNING)
def test_gradients_reach_what_the_recipe_names_and_nothing_else(name, images):
    recipe = get_recipe(name)
    model = build_model(recipe, "pocket", 64, 2, "random").train()
    logits = answers(model, images)
    labels = torch.randint(3, (2, *logits.shape[2:]), generator=torch.Generator().manual_seed(0))
    OBJECTIVES[recipe.objective](logits, labels).total.backward()
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad == fits(key, TRAINS[name]), key
        if not fits(key, SILENT):
            assert (parameter.grad is not None) == parameter.requires_grad, key


@torch.no_grad()
@pytest.mark.parametrize("name", WITH_SAM)
def test_before_training_the_network_is_sam_with_a_head(name, images):
    recipe = get_recipe(name)
    model = build_model(recipe, "pocket", 64, 2).eval()
    torch.testing.assert_close(
        answers(model, images), answers(plain(recipe), images), atol=1e-4, rtol=1e-5
    )


@torch.no_grad()
@pytest.mark.parametrize("name", WITH_SAM)
def test_what_is_exported_is_a_plain_sam_that_computes_the_same(name, images):
    recipe = replace(get_recipe(name), lift="none")  # a plain SAM has no place for a lift
    model = moved(build_model(recipe, "pocket", 64, 2)).eval()
    trained = answers(model, images)
    before = answers(plain(recipe), images)
    assert ((trained - before).abs().max() > 0.1 * before.std()) == (name in LEARNING)
    how = recipe.image_encoder
    if isinstance(how, LoRA | SVDAffine):
        how.merge(model.sam.image_encoder)
    else:
        with pytest.raises(UserError, match="cannot be merged into the weights"):
            how.merge(model.sam.image_encoder)
    if recipe.decoder == "lora":
        how.merge_decoder(model.sam.mask_decoder)
    torch.testing.assert_close(answers(model, images), trained, atol=1e-4, rtol=1e-5)
    adapters = {key for key in model.state_dict() if ".adapter." in key}
    assert bool(adapters) == (name == "sam_adapter")  # which bend, and cannot be merged
    assert model.state_dict().keys() - adapters == plain(recipe).state_dict().keys()


@torch.no_grad()
@pytest.mark.parametrize("name", ["samed", "svf", "s_sam"])
def test_a_lift_stays_beside_merged_weights(name, images):
    """The lift adds to the embedding, after the weights that an adapter is merged into."""
    recipe = replace(get_recipe(name), lift="cosines")
    model = moved(build_model(recipe, "pocket", 64, 2)).eval()
    trained, lift = answers(model, images), model.lift.weight.clone()
    recipe.image_encoder.merge(model.sam.image_encoder)
    torch.testing.assert_close(answers(model, images), trained, atol=1e-4, rtol=1e-5)
    assert model.lift.weight.equal(lift)
    model.lift.weight.zero_()  # which the outputs depend on
    assert (answers(model, images) - trained).abs().max() > 0.01 * trained.std()


@pytest.mark.parametrize("name", LEARNING)
def test_stopped_resumed_and_loaded_it_is_the_same_network(name, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 1)
    recipe = replace(get_recipe(name), steps=3, batch=2)
    changes = [f"batch={recipe.batch}", f"steps={recipe.steps}"]
    options = OPTIONS | {"size": 32}
    whole = train(recipe, dataset, 3, changes=changes, **options)
    train(recipe, dataset, 3, tmp_path, changes=changes, stop_after=2, **options)
    parts = train(recipe, dataset, 3, tmp_path, changes=changes, **options)
    assert [row["loss"] for row in parts.log] == [row["loss"] for row in whole.log]
    loaded = load_run(tmp_path).model.state_dict()
    for key, tensor in whole.model.state_dict().items():
        assert parts.model.state_dict()[key].equal(tensor), key
        assert loaded[key].equal(tensor), key


# Higher learning rates for recipes whose own rate is too low for a run of few steps
BY_HEART = {name: ("steps=30",) for name in LEARNING if name != "medsaga_v2"} | {
    "full": ("steps=25",),
    "decoder_only": ("steps=40",),
    "lite_medsam_lora": ("steps=20",),
    "samed_s": ("steps=20",),
    "s_sam": ("steps=35", "lr=0.05"),
    "svf": ("steps=60", "lr=0.5"),
    "adaptive_sam": ("steps=40",),
    "unet": ("steps=25", "lr=0.005"),
    "segresnet": ("steps=50", "lr=0.01"),
    "cheap_lunch": ("steps=60", "synthesis.share=0", "lr=0.01"),
}
del BY_HEART["dae_former"]  # in tests/models/test_scratch.py, with small pictures


@pytest.mark.parametrize("name", BY_HEART)
def test_four_images_can_be_learned_by_heart(name, dataset):
    """`medsaga_v2` is the exception, see the next test."""
    recipe = changed(get_recipe(name), ["batch=4", "augmentation=none", *BY_HEART[name]])
    size = 32 if name == "segresnet" else 64
    result = train(recipe, dataset, 4, **OPTIONS | {"size": size})
    assert loop.validation_dice(result.model, choose_shots(dataset, 4, size, 0)) > 0.95


@pytest.mark.no_cover
def test_v2_learns_by_sams_own_tokens_little_by_random_and_nothing_by_equal_ones(dataset):
    """The decoder is frozen, so the class tokens stay what they were."""
    fallen = {}
    for start, steps in (("copied", 3), ("random", 25), ("in_turn", 25)):
        words = [f"start={start}", f"steps={steps}", "batch=4", "augmentation=none"]
        recipe = changed(get_recipe("medsaga_v2"), words)
        losses = [row["loss"] for row in train(recipe, dataset, 4, **OPTIONS).log]
        fallen[start] = losses[0] - losses[-1]
    assert abs(fallen["copied"]) < 1e-5
    assert fallen["random"] > 1e-3
    assert fallen["in_turn"] > 3 * fallen["random"]


def test_equal_tokens_give_a_frozen_decoders_encoder_no_gradient(images):
    """Softmax sees no difference in equal logits: dL/dz sums to zero over the classes."""
    gradients = {}
    for start in ("copied", "in_turn"):
        model = build_model(replace(get_recipe("medsaga_v2"), start=start), "pocket", 64, 2).eval()
        logits = model(images)
        OBJECTIVES["cross_entropy_dice"](logits, torch.zeros(2, 16, 16).long()).total.backward()
        gradients[start] = max(float(p.grad.abs().max()) for p in trainable(model).values())
    assert gradients["copied"] < 1e-5 * gradients["in_turn"]


def test_in_turn_gives_each_class_one_of_sams_four_tokens():
    state = load_state("pocket", 64)
    recipe = replace(get_recipe("medsaga_v2"), start="in_turn")
    decoder = build_model(recipe, "pocket", 64, 5).sam.mask_decoder
    tokens = state["mask_decoder.mask_tokens.weight"]
    assert decoder.mask_tokens.weight.equal(tokens[[0, 1, 2, 3, 0, 1]])
    third = state["mask_decoder.output_hypernetworks_mlps.3.layers.1.weight"]
    assert decoder.output_hypernetworks_mlps[3].layers[1].weight.equal(third)


def test_v1_projects_the_attention_and_the_rest_is_frozen_or_dense():
    frozen = get_recipe("medsaga_v1")
    dense = changed(frozen, ["image_encoder.others=dense"])
    for recipe, wanted in ((frozen, 28_408_320), (dense, 87_278_848)):
        with torch.device("meta"):
            model = build_model(recipe, "vit_b", 512, 8, "random")
        groups = build_optimizer(recipe, model).param_groups
        inside = {n: p for n, p in trainable(model).items() if n.startswith(ENCODER)}
        # 12 x (768 x 2304 + 2304 + 768^2 + 768) + relative positions: 8 x 2 x 27, 4 x 2 x 63 of 64
        assert sum(p.numel() for p in inside.values()) == wanted
        projected = [n for group in groups if "subspace" in group for n in group["names"]]
        assert len(projected) == 12 * 2
        assert all(".attn.qkv.w" in n or ".attn.proj.w" in n for n in projected)


def test_adaptive_sam_trains_what_a_count_by_hand_gives():
    """vit_b at 256 px."""
    biases = 12 * (2304 + 768 + 3072 + 768) + 768  # qkv, proj, lin1, lin2; patches
    norms = 12 * 2 * 2 * 768 + 2 * 2 * 256  # blocks, neck
    positions, decoder = 16 * 16 * 768, 4_058_340  # of SAM's own mask decoder
    text = 512 * 256 + 256 + 2 * 256
    counted = count(get_recipe("adaptive_sam"), "vit_b", 256, 8)
    assert counted.trainable == biases + norms + positions + decoder + text == 4_508_388


def test_adapters_are_a_quarter_as_wide_as_the_encoder():
    with_adapters, without = (
        count(get_recipe(n), "vit_b", 512, 8) for n in ("sam_adapter", "decoder_only")
    )
    one = 768 * 192 + 192 + 192 * 768 + 768
    assert with_adapters.trainable - without.trainable == 12 * 2 * one == 7_100_928


def test_warmup_can_be_left_out(dataset):
    """MedSAGa's table 2: the first step is then at the full rate."""
    words = ["steps=400", "warmup=0"]
    recipe = changed(get_recipe("medsaga"), words)
    rates = [loop.learning_rate_factor(recipe, step) for step in range(400)]
    assert rates[0] == 1
    assert rates == sorted(rates, reverse=True)
    warm = changed(recipe, ["warmup=250"])
    assert loop.learning_rate_factor(warm, 0) < loop.learning_rate_factor(warm, 1) < 1
    words += ["steps=1", "batch=1"]
    result = train(get_recipe("medsaga"), dataset, 2, changes=words, **OPTIONS)
    assert result.log[0]["lr"] == recipe.lr
