"""TinyViT against MobileSAM's and LiteMedSAM's, its bias table, its statistics, its sizes."""

import oracle
import pytest
import torch

from medsaga_lib.errors import UserError
from medsaga_lib.models.sam import build_sam, recompute_blocks
from medsaga_lib.models.tinyvit import Attention, BatchNorm, TinyViT

LITE, MOBILE = "tinyvit_litemedsam_256", "tinyvit_mobilesam_1024"
CLASSIFIER = ("norm_head.", "head.")  # in MobileSAM's file, never used


def state_of(stored):
    """The oracle's weights under the encoder's names, without the counters of batches."""
    names = {k: k.removeprefix("image_encoder.") for k in stored["state_dict"]}
    return {
        name: torch.from_numpy(oracle.fill.fill(k, stored["state_dict"][k], "fan_in"))
        for k, name in names.items()
        if not name.startswith(CLASSIFIER) and not name.endswith("num_batches_tracked")
    }


def loaded(stored, shrinks):
    """In evaluation mode first and loaded then: the order in which MobileSAM's table goes stale."""
    encoder = TinyViT(0, shrinks).eval()
    counters = encoder.state_dict().keys() - state_of(stored).keys()
    assert all(name.endswith("num_batches_tracked") for name in counters)
    encoder.load_state_dict(state_of(stored), strict=False)
    return encoder


@torch.no_grad()
def run(encoder, image):
    """The output, and the outputs of the patch embedding and of each stage."""
    found = {}

    def keep(name):
        return lambda module, inputs, output: found.update({name: output})

    encoder.patch_embed.register_forward_hook(keep("patch_embed"))
    for number, stage in enumerate(encoder.layers):
        stage.register_forward_hook(keep(f"layer_{number}"))
    return encoder(image), found


def assert_equal(stored, encoder):
    case = stored["fan_in"]
    output, found = run(encoder, oracle.tensor(case["input"]))
    oracle.assert_close(case["output"], output)
    assert found.keys() == case["intermediate"].keys()
    for name, summary in case["intermediate"].items():
        tokens = found[name] if name == "patch_embed" else found[name].flatten(2).mT
        oracle.assert_close(summary, tokens)


def test_encoder_and_its_stages_equal_litemedsams():
    stored = oracle.read(LITE)
    assert_equal(stored, loaded(stored, shrinks=False))


@pytest.mark.slow
@torch.no_grad()
def test_encoder_and_its_stages_equal_mobilesams_and_no_table_is_stale():
    """MobileSAM's builder calls eval(), which keeps a table of biases, and loads the weights then.

    What its encoder gives before a second eval() is stored too: it is what ours would give with
    biases of zero, and does not give, although it was loaded in that order.
    """
    stored = oracle.read(MOBILE)
    encoder = loaded(stored, shrinks=True)
    assert_equal(stored, encoder)
    for block in encoder.blocks:
        block.attn.attention_biases.zero_()
    without = encoder(oracle.tensor(stored["fan_in"]["input"]))
    oracle.assert_close(stored["fan_in_loaded_after_eval_stale_bias_table"]["output"], without)


@pytest.mark.parametrize(
    ("name", "key", "encoder", "whole"),
    # LiteMedSAM: of its code; MobileSAM: its encoder's 6,065,532 without the classifier's 321,640
    [("lite_medsam", LITE, 5_726_740, 9_791_300), ("mobile_sam", MOBILE, 5_743_892, 9_808_452)],
)
def test_counts_names_and_shapes_are_the_references(name, key, encoder, whole):
    stored = oracle.read(key)
    with torch.device("meta"):
        sam = build_sam(name)
    assert sum(p.numel() for p in sam.image_encoder.parameters()) == encoder
    assert sum(p.numel() for p in sam.parameters()) == whole
    assert stored["parameters"] - encoder == (321_640 if name == "mobile_sam" else 0)
    unused = {f"image_encoder.{u}" for u in stored["unused_in_forward"]}
    own = {k: list(v.shape) for k, v in sam.state_dict().items() if k.startswith("image_encoder.")}
    assert own == {k: shape for k, shape in stored["state_dict"].items() if k not in unused}


def test_biases_are_those_of_the_distances_and_follow_the_table():
    attention = Attention(width=8, heads=2, window=3).eval()
    x = torch.randn(1, 3, 3, 8)
    before = attention(x)
    with torch.no_grad():
        attention.attention_biases.normal_()
    biases = attention.biases()
    assert not attention(x).allclose(before)  # changed after eval(), and seen
    for q in range(9):
        for k in range(9):
            rows, columns = abs(q // 3 - k // 3), abs(q % 3 - k % 3)
            assert biases[:, q, k].equal(attention.attention_biases[:, 3 * rows + columns])


def test_attention_is_softmax_of_q_k_and_biases_head_by_head():
    torch.manual_seed(0)
    attention = Attention(width=8, heads=2, window=3).double()
    torch.nn.init.normal_(attention.attention_biases)
    x = torch.randn(4, 3, 3, 8, dtype=torch.float64)
    rows = attention.qkv(attention.norm(x)).flatten(1, 2)  # (4, 9, 24)
    heads = []
    for head in range(2):
        q, k, v = (rows[..., 12 * head + 4 * part :][..., :4] for part in range(3))
        maps = (q @ k.mT / 2 + attention.biases()[head]).softmax(-1)  # sqrt 4 = 2
        heads.append(maps @ v)
    expected = attention.proj(torch.cat(heads, -1)).view(x.shape)
    torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize("name", ["mobile_sam", "lite_medsam"])
def test_small_pictures_give_embeddings_masks_and_gradients(name):
    torch.manual_seed(0)
    sam = build_sam(name, 64)
    patch = 16 if name == "mobile_sam" else 4
    grid = 64 // patch
    embeddings = sam.image_encoder(torch.rand(2, 3, 64, 64))
    assert embeddings.shape == (2, 256, grid, grid)
    sparse, dense = sam.prompt_encoder(None, torch.tensor([[8.0, 8.0, 40.0, 50.0]]), None)
    assert dense.shape == embeddings[:1].shape
    masks, _ = sam.mask_decoder(
        embeddings[:1], sam.prompt_encoder.get_dense_pe(), sparse, dense, False
    )
    assert masks.shape == (1, 1, 4 * grid, 4 * grid)
    embeddings.square().sum().backward()
    grads = {k: p.grad for k, p in sam.image_encoder.named_parameters()}
    assert all(g is not None and g.isfinite().all() and g.any() for g in grads.values())


@torch.no_grad()
def test_a_picture_does_not_depend_on_its_neighbours_nor_on_the_sides_being_equal():
    encoder = TinyViT(64, shrinks=True).eval()
    pictures = torch.rand(2, 3, 64, 96)
    both = encoder(pictures)
    assert both.shape == (2, 256, 4, 6)
    torch.testing.assert_close(encoder(pictures[1:]), both[1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "size"), [("lite_medsam", 258), ("mobile_sam", 1000)])
def test_a_size_that_patches_do_not_divide_is_refused(name, size):
    patch = 4 if name == "lite_medsam" else 16
    with pytest.raises(UserError, match=f"Input size {size} .*multiple of {patch}"):
        build_sam(name, size)


def test_litemedsams_weights_see_pictures_as_they_are():
    image = torch.rand(3, 8, 8)
    torch.testing.assert_close(build_sam("lite_medsam", 8).preprocess(255 * image), image)


def statistics(encoder):
    return {k: v.clone() for k, v in encoder.state_dict().items() if "running" in k}


def small_encoder():
    torch.manual_seed(0)
    return TinyViT(32, shrinks=True)


@torch.no_grad()
def test_frozen_statistics_stay_and_training_computes_what_evaluation_does():
    encoder, image = small_encoder(), torch.rand(2, 3, 32, 32)
    before = statistics(encoder)
    encoder.requires_grad_(False)
    assert encoder.train()(image).equal(encoder.eval()(image))
    assert all(v.equal(before[k]) for k, v in statistics(encoder).items())


def test_learning_statistics_are_torchs_own():
    norm, reference = BatchNorm(3), torch.nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 5, 5) * 2 + 1
    torch.testing.assert_close(norm(x), reference(x))
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    torch.testing.assert_close(norm.running_var, reference.running_var)
    torch.testing.assert_close(norm.eval()(x), reference.eval()(x))


def test_recomputed_blocks_give_the_same_gradients():
    plain, recomputing, image = small_encoder(), small_encoder(), torch.rand(2, 3, 32, 32)
    recompute_blocks(recomputing)
    for encoder in (plain, recomputing):
        encoder(image).square().sum().backward()
    for (name, p), q in zip(plain.named_parameters(), recomputing.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_nothing_is_rounded_where_no_gradient_is_taken():
    plain, recomputing, image = small_encoder(), small_encoder(), torch.rand(2, 3, 32, 32)
    recompute_blocks(recomputing, torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(plain.eval()(image), recomputing.eval()(image))
    assert not torch.equal(plain(image), recomputing(image))


@pytest.mark.parametrize("keep", [torch.float32, torch.bfloat16])
def test_recomputing_counts_no_batch_twice(keep):
    encoder, image = small_encoder(), torch.rand(2, 3, 32, 32)
    before = statistics(encoder)
    recompute_blocks(encoder, keep)
    loss = encoder(image).square().sum()
    once = statistics(encoder)
    assert not any(v.equal(before[k]) for k, v in once.items())
    loss.backward()
    assert all(v.equal(once[k]) for k, v in statistics(encoder).items())
    encoder(image)  # the next batch counts again
    assert not any(v.equal(once[k]) for k, v in statistics(encoder).items())
