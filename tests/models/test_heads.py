"""The heads against segment_anything's decoder, which takes one image at a time."""

import oracle
import pytest
import torch

from medsaga_lib.adapt.lora import LoRA
from medsaga_lib.data.prompts import POSITIVE, draw_prompts
from medsaga_lib.errors import UserError
from medsaga_lib.models.heads import (
    ABSENT,
    FromPart,
    LabelPrompts,
    Promptable,
    class_tokens,
    decode_masks,
    embed_prompts,
    grid_positions,
)
from medsaga_lib.models.sam import VIT_B, build_sam, resize_positions
from medsaga_lib.models.text import Spelling


@pytest.fixture(scope="module")
def sam():
    torch.manual_seed(0)
    return build_sam("pocket").eval()


@torch.no_grad()
@pytest.mark.parametrize("prompt", ["none", "box"])
def test_a_batch_equals_one_image_at_a_time(sam, prompt):
    embeddings = torch.randn(3, 128, 16, 16, generator=torch.Generator().manual_seed(1))
    boxes = None
    if prompt == "box":
        boxes = torch.tensor([[10.0, 20, 200, 210], [0, 0, 50, 60], [100, 120, 250, 130]])
    sparse, dense = sam.prompt_encoder(None, boxes, None)
    image_pe = sam.prompt_encoder.get_dense_pe()
    masks, iou = decode_masks(sam.mask_decoder, embeddings, image_pe, sparse, dense)
    assert masks.shape == (3, 4, 64, 64)
    assert iou.shape == (3, 4)
    for i in range(3):
        own = slice(i, i + 1) if prompt == "box" else slice(None)
        one, one_iou = sam.mask_decoder.predict_masks(
            embeddings[i : i + 1], image_pe, sparse[own], dense[own]
        )
        torch.testing.assert_close(masks[i : i + 1], one, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(iou[i : i + 1], one_iou, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_trap_is_real_and_avoided(sam):
    embeddings = torch.randn(3, 128, 16, 16)
    sparse, dense = sam.prompt_encoder(None, torch.rand(3, 4) * 256, None)
    image_pe = sam.prompt_encoder.get_dense_pe()
    with pytest.raises(RuntimeError, match="size of tensor"):  # 3 x 3 embeddings, 3 prompts
        sam.mask_decoder.predict_masks(embeddings, image_pe, sparse, dense)
    assert len(decode_masks(sam.mask_decoder, embeddings, image_pe, sparse, dense)[0]) == 3


@torch.no_grad()
def test_samed_with_lora_equals_the_oracle():
    stored = oracle.read("samed_lora_512")
    with torch.device("meta"):
        full = build_sam("vit_b").state_dict()
    state = resize_positions(oracle.filled(full), VIT_B, 512)
    with torch.device("meta"):
        model = class_tokens("vit_b", None, 512, 8, "random").eval()
    own = {k.removeprefix("sam."): v for k, v in model.state_dict().items()}
    own_shape = oracle.filled(stored["filled_by_own_shape"])
    model.sam.load_state_dict({k: own_shape.get(k, state.get(k)) for k in own}, assign=True)
    assert all(tuple(own_shape[k].shape) == tuple(own[k].shape) for k in own_shape)
    LoRA(rank=4).attach(model.sam.image_encoder)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 4_913_621

    adapters = oracle.filled(stored["lora_shapes"])
    for t, block in enumerate(model.sam.image_encoder.blocks):
        for place, name in enumerate("qv"):
            layer = getattr(block.attn.qkv, name)
            layer.lora_A.default.weight.data = adapters[f"w_a_{2 * t + place:03d}"]
            layer.lora_B.default.weight.data = adapters[f"w_b_{2 * t + place:03d}"]
    # SAMed's code feeds [0, 1] without SAM's normalisation
    model.sam.pixel_mean = torch.zeros(3, 1, 1)
    model.sam.pixel_std = torch.full((3, 1, 1), 255.0)

    image, embeddings = oracle.tensor(stored["input"]), []
    hook = model.sam.image_encoder.register_forward_hook(lambda *seen: embeddings.append(seen[2]))
    logits = model(image)
    hook.remove()
    oracle.assert_close(stored["image_embedding_with_lora"], embeddings[0])
    oracle.assert_close(stored["low_res_logits"], logits)
    masks = torch.nn.functional.interpolate(logits, (512, 512), mode="bilinear")
    oracle.assert_close(stored["masks"], masks)
    histogram = masks.argmax(1).flatten().bincount(minlength=9)
    assert (histogram - torch.tensor(stored["argmax_histogram"])).abs().max() <= 3

    plain = model.sam.image_encoder
    LoRA(rank=4).merge(plain)
    oracle.assert_close(stored["image_embedding_with_lora"], plain(image))
    assert set(plain.state_dict()) == {
        k.removeprefix("image_encoder.") for k in full if k.startswith("image_encoder.")
    }


def test_copied_start_gives_every_class_sams_single_mask():
    state = build_sam("pocket").state_dict()
    model = class_tokens("pocket", state, 256, classes=5, start="copied").eval()
    assert model.sam.mask_decoder.num_mask_tokens == 6
    with torch.no_grad():
        image = torch.rand(1, 3, 256, 256)
        logits = model(image)
        plain = build_sam("pocket").eval()
        plain.load_state_dict(state)
        pixels = (image * 255 - plain.pixel_mean) / plain.pixel_std
        assert logits.shape == (1, 6, 64, 64)
        torch.testing.assert_close(logits, logits[:, :1].expand_as(logits))
        # the same network, but six equal tokens attend to each other instead of four different
        assert plain.image_encoder(pixels).equal(model.sam.image_encoder(pixels))
    assert model.sam.mask_decoder.mask_tokens.weight[5].equal(
        state["mask_decoder.mask_tokens.weight"][0]
    )


def test_random_start_draws_the_class_tensors_and_keeps_the_rest():
    state = build_sam("pocket").state_dict()
    model = class_tokens("pocket", state, 256, classes=3, start="random")
    own = model.sam.state_dict()
    fresh = [k for k in own if not (k in state and own[k].equal(state[k]))]
    per_class = ("mask_tokens", "output_hypernetworks_mlps", "iou_prediction_head")
    assert fresh
    assert all(any(part in k for part in per_class) for k in fresh)


def test_names_as_prompts_equal_one_prompt_at_a_time():
    """Two images and three names in one pass, against segment_anything's decoder one by one."""
    torch.manual_seed(0)
    model = LabelPrompts(build_sam("pocket", 64), Spelling()(["lung", "heart", "spleen"])).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        logits = model(images)
        assert logits.shape == (2, 4, 16, 16)
        assert not logits[:, 0].any()
        sam, tokens = model.sam, model.affine(model.texts)
        embeddings = sam.image_encoder((images * 255 - sam.pixel_mean) / sam.pixel_std)
        for i in range(2):
            for k in range(3):
                _, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
                masks, _ = sam.mask_decoder.predict_masks(
                    embeddings[[i]], sam.prompt_encoder.get_dense_pe(), tokens[[k], None], dense
                )
                torch.testing.assert_close(logits[i, 1 + k], masks[0, 0], atol=1e-5, rtol=1e-4)


def test_positions_are_not_rounded_on_the_way(sam):
    encoder, point = (
        sam.prompt_encoder,
        (torch.tensor([[[71.3, 18.9]]]), torch.tensor([[POSITIVE]])),
    )
    with torch.autocast("cpu", torch.bfloat16):
        cells, prompt = grid_positions(encoder, torch.float32), embed_prompts(encoder, *point)
    assert torch.equal(cells, encoder.get_dense_pe())
    assert torch.equal(prompt, embed_prompts(encoder, *point))


def test_one_name_and_one_image_cannot_be_normalised():
    model = LabelPrompts(build_sam("pocket", 32), Spelling()(["lung"])).train()
    with pytest.raises(UserError, match="raise --batch"):
        model(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("kind", ["points", "boxes"])
def test_prompts_of_a_batch_equal_segment_anythings_predictor_asked_one_by_one(kind):
    from segment_anything import SamPredictor

    torch.manual_seed(0)
    sam = build_sam("pocket", 64).eval()
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    labels = torch.zeros(2, 64, 64, dtype=torch.int64)
    labels[0, 5:20, 30:50], labels[0, 40:60, 3:9], labels[1, 10:40, 10:50] = 1, 3, 2
    drawn = [draw_prompts(kind, (1, 2, 3), one.numpy(), 7) for one in labels]
    coordinates, roles = torch.utils.data.default_collate(drawn)
    images = pixels.movedim(3, 1) / 255
    with torch.no_grad():
        single = Promptable(sam, kind, 3)(images, coordinates, roles)
        best = Promptable(sam, kind, 3, "best")(images, coordinates, roles)
    assert single.shape == (2, 4, 16, 16)
    assert not single[:, 0].any()
    shown = [(0, 1), (0, 3), (1, 2)]
    predictor = SamPredictor(sam)
    for picture, label in shown:
        predictor.set_image(pixels[picture].numpy())
        where = coordinates[picture, label - 1].numpy()
        prompt = {"box": where.flatten()}
        if kind == "points":
            prompt = {"point_coords": where[:1], "point_labels": [1]}
        _, _, alone = predictor.predict(**prompt, multimask_output=False)
        ours = single[picture, label]
        torch.testing.assert_close(ours, torch.tensor(alone[0]), atol=1e-5, rtol=1e-4)
        _, scores, three = predictor.predict(**prompt, multimask_output=True)
        ours = best[picture, label]
        torch.testing.assert_close(ours, torch.tensor(three[scores.argmax()]), atol=1e-5, rtol=1e-4)
    for picture, label in {(p, k) for p in range(2) for k in (1, 2, 3)} - set(shown):
        assert (single[picture, label] == ABSENT).all()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["class tokens", "names as prompts"])
def test_a_model_from_any_part_answers_as_the_whole_model_does(kind):
    torch.manual_seed(0)
    model = class_tokens("pocket", None, 64, classes=2, start="random")
    if kind == "names as prompts":
        model = LabelPrompts(build_sam("pocket", 64), Spelling()(["lung", "heart"]))
    images = torch.rand(2, 3, 64, 64)
    networks = [FromPart(model.eval(), part) for part in range(8)]  # 6 blocks, the neck, the end
    kept = [network.keep(images) for network in networks]
    assert kept[-1].equal(model.embed(images))
    for _ in range(2):
        assert all(n(x).equal(model(images)) for n, x in zip(networks, kept, strict=True))
        model.sam.mask_decoder.mask_tokens.weight.add_(1)  # the weights are the model's own
