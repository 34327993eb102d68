import warnings
from functools import partial

import pytest
import torch
from marks import PEER, needs_peak
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from medsaga_lib.memory.ledger import (
    Ledger,
    _Timeline,
    fake,
    held_bytes,
    ledger,
    peak_bytes,
    quantized_bytes,
    saved_bytes,
    state_bytes,
    weight_bytes,
)
from medsaga_lib.optim import galore
from medsaga_lib.optim.fused_backward import FusedGaLoreAdamW
from medsaga_lib.optim.galore import GaLoreAdamW, GaLoreConfig, param_groups

BLOCK_MATRICES = ("blocks.*.attn.qkv.weight", "blocks.*.attn.proj.weight", "blocks.*.mlp.*.weight")


def image_encoder(size, width=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11)):
    """segment_anything's image encoder; vit_b by default."""
    from segment_anything.modeling import ImageEncoderViT

    return ImageEncoderViT(
        img_size=size,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=global_blocks,
    )


def small_encoder():
    return image_encoder(256, width=48, depth=2, heads=3, global_blocks=(1,))


class Attention(nn.Module):
    """Convolution, norm, fused attention and GELU: the operators of a modern encoder."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 48, 16, 16)
        self.norm = nn.BatchNorm2d(48)
        self.qkv = nn.Linear(48, 144)
        self.out = nn.Linear(48, 48)

    def forward(self, x):
        x = self.norm(self.stem(x)).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).unflatten(2, (3, 3, 16)).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return functional.gelu(x + self.out(y))


# Weights, gradients and states


@pytest.mark.parametrize(
    ("rank", "states", "projectors", "total", "per_layer_total"),
    [
        (None, 684.1, 0, 1368.3, 1038.2),
        (32, 67.6, 4.5, 751.8, 421.7),
        (64, 99.1, 9, 783.3, 453.2),
        (128, 162.1, 18, 846.3, 516.2),
        (256, 288.1, 36, 972.3, 642.2),
    ],
)
def test_vit_b_at_1024_pixels(rank, states, projectors, total, per_layer_total):
    """In MiB; the table was also found by building the optimizers and adding up their storages."""
    with torch.device("meta"):
        encoder = image_encoder(1024)
    groups = [{"params": list(encoder.parameters())}]
    if rank is not None:
        groups = param_groups(encoder, GaLoreConfig(rank, projected=BLOCK_MATRICES), 1e-3, 0.1)
    mib = ledger(encoder, groups).mib()
    near = partial(pytest.approx, abs=0.051)
    assert mib["weights"] == near(342.1)
    assert mib["gradients"] == near(342.1)
    assert mib["states"] == near(states)
    assert mib["projectors"] == near(projectors)
    assert mib["activations"] == 0
    assert mib["sum"] == near(total)
    assert ledger(encoder, groups, per_layer=True).mib()["sum"] == near(per_layer_total)


def test_frozen_tensors_cost_weights_only():
    net = Attention().requires_grad_(False)
    net.qkv.requires_grad_(True)
    groups = param_groups(net, GaLoreConfig(4), 1e-3, 0)
    entry = ledger(net, groups)
    assert entry.gradients == 4 * (144 * 48 + 144)
    assert entry.projectors == 4 * 48 * 4
    assert entry.states == 4 * (2 * 144 * 4 + 48 * 4 + 2 * 144)
    assert entry.weights == weight_bytes(net)
    buffers = 4 * 48 + 4 * 48 + 8  # BatchNorm's mean, variance and its int64 counter
    assert weight_bytes(net) == buffers + 4 * sum(W.numel() for W in net.parameters())


def test_bfloat16_weights_have_float32_states():
    net = nn.Linear(64, 64, bias=False).to(torch.bfloat16)
    entry = ledger(net, [{"params": [net.weight]}])
    assert entry == Ledger(2 * 4096, 2 * 4096, 2 * 4 * 4096, 0, 0)
    assert entry.sum == 48 * 1024


@pytest.mark.parametrize("config", [GaLoreConfig(4), GaLoreConfig(4, projected=("qkv.*",))])
def test_formula_is_what_the_optimizer_holds(config):
    net = Attention()
    groups = param_groups(net, config, 1e-3, 0)
    optimizer = GaLoreAdamW(groups)
    for _ in range(2):
        net(torch.randn(1, 3, 64, 64)).sum().backward()
        optimizer.step()
    counters = 4 * len(list(net.parameters()))
    assert held_bytes(optimizer) == sum(state_bytes(groups)) + counters


def test_held_bytes_finds_the_hidden_factor_of_galore_torch():
    """Its projector is a view that keeps a whole factor of the SVD: 24 times what it shows."""
    pytest.importorskip("galore_torch", reason="galore-torch is for comparison only")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from galore_torch import GaLoreAdamW as Published
    W = nn.Parameter(torch.randn(768, 768))
    W.grad = torch.randn(768, 768)
    options = {"rank": 32, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std"}
    optimizer = Published([{"params": [W], **options}], no_deprecation_warning=True)
    optimizer.step()
    moments, projector = state_bytes([{"params": [W], "rank": 32}])
    assert projector == 98_304
    assert held_bytes(optimizer) == moments + 2_359_296


def test_held_bytes_counts_the_parts_of_a_tensor_that_only_looks_large():
    """As torchao's states: the outer tensor has the shape of float32 and no memory of its own."""

    class Coded(torch.Tensor):
        def __tensor_flatten__(self):
            return ["codes", "scale"], None

        @classmethod
        def __torch_dispatch__(cls, *_):
            raise NotImplementedError

    outer = torch.Tensor._make_wrapper_subclass(Coded, (100, 10), dtype=torch.float32)
    outer.codes, outer.scale = torch.zeros(1000, dtype=torch.uint8), torch.zeros(4)
    W = nn.Parameter(torch.zeros(100, 10))
    optimizer = torch.optim.SGD([W], lr=1)
    optimizer.state[W] = {"exp_avg": outer, "step": torch.zeros(()), "count": 3}
    assert held_bytes(optimizer) == 1000 + 4 * 4 + 4


def test_quantized_states_by_hand():
    # codes, a scale of 4 bytes per block, a map of 4 bytes per code; two moments
    assert quantized_bytes(2**20, 8) == 2 * (2**20 + 4 * 4096 + 4 * 256)
    assert quantized_bytes(2**20, 4) == 2 * (2**19 + 4 * 8192 + 4 * 16)
    assert quantized_bytes(4095, 8) == quantized_bytes(4095, 4) == 8 * 4095
    assert quantized_bytes(4096 + 128, 8) == 8 * (4096 + 128)  # not whole blocks of 256
    W = torch.empty(64, 64, device="meta")
    assert state_bytes([{"params": [W], "bits": 8}]) == (quantized_bytes(4096, 8), 0)
    galore = {"params": [W], "bits": 8, "rank": 4}
    assert state_bytes([galore]) == state_bytes([{"params": [W], "rank": 4}])
    assert state_bytes([{"params": [W], "bits": 8, "momentum": 0.9}]) == (4 * 4096, 0)


@pytest.mark.parametrize(("bits", "name"), [(8, "AdamW8bit"), (4, "AdamW4bit")])
def test_quantized_states_are_those_of_torchao(bits, name, monkeypatch):
    optim = pytest.importorskip("torchao.optim", reason=PEER)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    shapes = [(64, 64), (100, 41), (33, 128), (4095,), (4224,), (16, 32, 3, 3)]
    tensors = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    optimizer = getattr(optim, name)(tensors)
    for W in tensors:
        W.grad = torch.ones_like(W)
    optimizer.step()
    counters = 4 * len(tensors)
    expected = sum(quantized_bytes(W.numel(), bits) for W in tensors)
    assert held_bytes(optimizer) == expected + counters


# Activations


def count(net, forward):
    with saved_bytes(net) as saved:
        result = forward()
        total = saved.total()
    del result
    return total


def test_saved_bytes_by_hand():
    net = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    x = torch.randn(7, 10)
    # the first layer keeps x, ReLU keeps its output, which is the second layer's input
    assert count(net, lambda: net(x)) == 4 * (7 * 10 + 7 * 20)
    assert count(net, lambda: net(x).square()) == 4 * (7 * 10 + 7 * 20 + 7 * 5)
    with torch.no_grad():
        assert count(net, lambda: net(x)) == 0
    net[0].requires_grad_(False)  # a frozen layer at the bottom keeps nothing
    assert count(net, lambda: net(x)) == 4 * 7 * 20


def test_a_view_costs_its_whole_storage_once():
    big = torch.randn(100, 10)
    w = nn.Parameter(torch.randn(10))
    net = nn.ParameterList([w])
    assert count(net, lambda: (big[:3] * w).sum() + (big[5:8] * w).sum()) == 4 * 1000


def test_graphs_that_are_gone_do_not_count():
    net = nn.Linear(10, 10)
    with saved_bytes(net) as saved:
        first = net(torch.randn(8, 10)).square()
        assert saved.total() == 4 * 160
        del first
        assert saved.total() == 0


def bf16(net, x):
    with torch.autocast("cpu", torch.bfloat16):
        return net(x)


def checkpointed(net, x):
    x = net.patch_embed(x) + net.pos_embed
    for block in net.blocks:
        x = checkpoint(block, x, use_reentrant=False)
    return net.neck(x.permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("build", "forward"),
    [
        (small_encoder, lambda net, x: net(x)),
        (small_encoder, lambda net, x: net(x).square().mean()),
        (small_encoder, bf16),
        (small_encoder, checkpointed),
        (Attention, lambda net, x: net(x)),
        (Attention, bf16),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_predicted_equals_the_real_run(build, forward, batch, target):
    net = build()
    x = torch.randn(batch, 3, 256, 256)
    real = count(net, lambda: forward(net, x))
    with fake():
        net = build()
        x = torch.randn(batch, 3, 256, 256)
        predicted = count(net, lambda: forward(net, x))
    assert real > 0
    target(11, "saved bytes, predicted / real", "1 ± 0.005", predicted / real)
    assert predicted == pytest.approx(real, rel=0.005)


def test_predicted_activations_of_vit_b_at_512_pixels():
    """1,170,283,008 bytes (1.090 GiB) is what a real float32 forward pass at batch 1 saved."""
    with fake():
        encoder = image_encoder(512)
        x = torch.zeros(1, 3, 512, 512)
        groups = param_groups(encoder, GaLoreConfig(32), 1e-3, 0.1)
        entry = ledger(encoder, groups, lambda: encoder(x))
    assert entry.activations == pytest.approx(1_170_283_008, rel=0.005)
    assert entry.states == 35_927_040


def test_checkpointing_and_freezing_save_activations():
    with fake():
        net = small_encoder()
        x = torch.zeros(2, 3, 256, 256)
        plain = count(net, lambda: net(x))
        assert count(net, lambda: checkpointed(net, x)) < plain / 2
        net.blocks[0].requires_grad_(False)
        net.patch_embed.requires_grad_(False)
        net.pos_embed.requires_grad_(False)
        assert count(net, lambda: net(x)) < 0.6 * plain


def test_prediction_leaves_the_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with fake():
        net = small_encoder()
        ledger(net, [], lambda: net(torch.randn(1, 3, 256, 256)))
    assert torch.equal(torch.rand(2), expected)


# Peaks


def small_sam():
    from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer

    transformer = TwoWayTransformer(depth=1, embedding_dim=256, num_heads=4, mlp_dim=256)
    parts = {
        "image_encoder": small_encoder(),
        "prompt_encoder": PromptEncoder(256, (16, 16), (256, 256), 16),
        "mask_decoder": MaskDecoder(transformer_dim=256, transformer=transformer),
    }
    return nn.ModuleDict(parts)


def whole_sam(net, x):
    """Image encoder, prompt encoder without a prompt, mask decoder."""
    sparse, dense = net["prompt_encoder"](points=None, boxes=None, masks=None)
    masks, scores = net["mask_decoder"](
        image_embeddings=net["image_encoder"](x),
        image_pe=net["prompt_encoder"].get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    return masks.square().mean() + scores.mean()


@needs_peak
@pytest.mark.no_cover  # measuring the coverage doubles its time
@pytest.mark.parametrize(
    ("build", "forward"),
    [
        (small_sam, whole_sam),
        (small_encoder, lambda net, x: bf16(net, x).float().square().mean()),
        (small_encoder, lambda net, x: checkpointed(net, x).square().mean()),
    ],
)
def test_peak_agrees_with_mem_tracker(build, forward, target):
    from torch.distributed._tools.mem_tracker import MemTracker

    with fake():
        net = build()

        def loss():
            return forward(net, torch.zeros(2, 3, 256, 256))

        optimizer = torch.optim.AdamW(net.parameters(), foreach=False)
        loss().backward()  # the first step creates the states
        optimizer.step()
        optimizer.zero_grad()
        tracker = MemTracker()
        tracker.track_external(net, optimizer)
        with tracker:
            loss().backward()
            optimizer.step()
        reference = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
        ours = peak_bytes(net, optimizer.param_groups, loss)
    target(11, "peak, predicted / MemTracker's", "1 ± 0.03", ours / reference)
    assert ours == pytest.approx(reference, rel=0.03)


@needs_peak
@pytest.mark.parametrize("rank", [None, 8])
@pytest.mark.parametrize("kind", [GaLoreAdamW, FusedGaLoreAdamW])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 1500])  # the peak lies in the update, or in the activations
def test_peak_is_that_of_a_real_step(rank, kind, dtype, batch, monkeypatch):
    """A step of the real optimizer on real tensors; every tensor that it creates is counted."""
    monkeypatch.setattr(galore, "FUSED", ())  # as on a GPU, for which the ledger predicts

    def network():
        return nn.Sequential(*[nn.Linear(256, 256) for _ in range(3)]).to(dtype)

    def groups(net):
        return [{"params": list(net.parameters()), "rank": rank}]

    def loss(net):
        return net(torch.ones(batch, 256, dtype=dtype)).square().mean()

    def step():
        loss(net).backward()
        optimizer.step()

    net = network()
    optimizer = kind(groups(net))
    step()
    optimizer.zero_grad()
    states = [value for state in optimizer.state.values() for value in state.values()]
    with _Timeline([*net.parameters(), *states]) as timeline:
        step()
    real = weight_bytes(net) + held_bytes(optimizer) + timeline.peak
    twin = network()  # without the hooks of an optimizer
    per_layer = kind is FusedGaLoreAdamW
    predicted = peak_bytes(twin, groups(twin), lambda: loss(twin), per_layer=per_layer)
    assert predicted == pytest.approx(real, rel=0.03)
    assert all(W.grad is None for W in twin.parameters())


@needs_peak
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_states_and_peak_of_sgd_are_those_of_a_real_step(momentum):
    net = nn.Sequential(*[nn.Linear(256, 256) for _ in range(3)])

    def loss():
        return net(torch.ones(1, 256)).square().mean()

    optimizer = torch.optim.SGD(net.parameters(), momentum=momentum, weight_decay=0.1)
    loss().backward()
    optimizer.step()
    optimizer.zero_grad()
    states = [value for state in optimizer.state.values() for value in state.values()]
    with _Timeline([*net.parameters(), *states]) as timeline:
        loss().backward()
        optimizer.step()
    real = weight_bytes(net) + held_bytes(optimizer) + timeline.peak
    assert sum(state_bytes(optimizer.param_groups)) == held_bytes(optimizer)
    assert peak_bytes(net, optimizer.param_groups, loss) == pytest.approx(real, rel=0.03)


@needs_peak
def test_per_layer_updates_lower_the_peak_where_gradients_dominate():
    with fake():
        net = nn.Sequential(*[nn.Linear(512, 512) for _ in range(6)])
        groups = [{"params": list(net.parameters()), "rank": 8}]

        def loss():
            return net(torch.ones(1, 512)).sum()

        plain, per_layer = (peak_bytes(net, groups, loss, flag) for flag in (False, True))
        entry = ledger(net, groups, loss)
    assert plain > entry.sum
    assert plain - per_layer > 0.7 * entry.gradients
