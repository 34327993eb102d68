"""GaLore's AdamW against torch's AdamW and algorithm 2 of the paper; states, memory, mistakes."""

import copy
import io
import json
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from medsaga_lib.errors import UserError
from medsaga_lib.optim import galore
from medsaga_lib.optim.apollo import ApolloAdamW
from medsaga_lib.optim.fira import FiraAdamW
from medsaga_lib.optim.galore import (
    GaLoreAdamW,
    GaLoreConfig,
    NonFiniteGradientError,
    as_matrix,
    param_groups,
    treatment,
)

BLOCK_MATRICES = ("blocks.*.attn.qkv.weight", "blocks.*.attn.proj.weight", "blocks.*.mlp.*.weight")


class Zoo(nn.Module):
    """Module with one tensor of each kind in SAM: position table, matrices, convolutions, bias."""

    def __init__(self, seed=0):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        shapes = {
            "pos_embed": (1, 6, 6, 12),
            "tall": (40, 12),
            "wide": (12, 48),
            "square": (16, 16),
            "conv": (12, 6, 3, 3),
            "up": (12, 6, 2, 2),
            "small": (3, 20),
            "bias": (12,),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape, generator=g)))

    def set_gradients(self, step):
        """A slowly turning direction plus noise, so that subspaces move."""
        for i, W in enumerate(self.parameters()):
            g = torch.Generator().manual_seed(1000 * step + i)
            fixed = torch.randn(W.shape, generator=torch.Generator().manual_seed(i))
            noise = torch.randn(W.shape, generator=g)
            W.grad = (fixed + 0.5 * noise + 0.02 * step * fixed.flip(0)).to(W.dtype)


def train(net, optimizer, steps, start=0):
    for step in range(start, start + steps):
        net.set_gradients(step)
        optimizer.step()
    return net


def weights(net):
    return torch.cat([W.detach().double().flatten() for W in net.parameters()])


def difference(net, other, start):
    """Distance of the weights of two networks, relative to the distance from the start."""
    return float((weights(net) - weights(other)).norm() / (weights(other) - weights(start)).norm())


def optimizer_for(net, lr=1e-2, weight_decay=0.1, **config):
    config = GaLoreConfig(**{"rank": 4, "refresh": 5} | config)
    return GaLoreAdamW(param_groups(net, config, lr, weight_decay))


def vit_b(size, device="meta"):
    """Image encoder of segment_anything's vit_b for images of `size` pixels."""
    from segment_anything.modeling import ImageEncoderViT

    with torch.device(device):
        return ImageEncoderViT(
            img_size=size,
            depth=12,
            embed_dim=768,
            num_heads=12,
            mlp_ratio=4,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            qkv_bias=True,
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=(2, 5, 8, 11),
            out_chans=256,
        )


def held(optimizer):
    """Bytes of the storages of the states, without the step counters."""
    storages = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
        for state in optimizer.state.values()
        for key, value in state.items()
        if key != "step"
    }
    return sum(storages.values())


# The update itself


@pytest.mark.parametrize("weight_decay", [0, 0.1])
@pytest.mark.parametrize("rank", [None, 12, 1000])
def test_full_rank_is_torch_adamw_bit_for_bit(weight_decay, rank, target):
    net = Zoo()
    net.square.requires_grad_(rank != 12)  # 16 x 16 would still be projected at rank 12
    twin = copy.deepcopy(net)
    theirs = torch.optim.AdamW(
        [W for W in twin.parameters() if W.requires_grad],
        lr=1e-2,
        weight_decay=weight_decay,
        fused=True,
    )
    if rank is None:
        params = [W for W in net.parameters() if W.requires_grad]
        ours = GaLoreAdamW(params, lr=1e-2, weight_decay=weight_decay)
    else:
        ours = optimizer_for(net, rank=rank, weight_decay=weight_decay)
    train(net, ours, 20)
    train(twin, theirs, 20)
    apart = (weights(net) - weights(twin)).abs().max()
    target(1, "full rank: largest difference from torch's AdamW after 20 steps", "0", apart)
    assert torch.equal(weights(net), weights(twin))


def test_weights_in_another_layout_are_updated_as_by_torch():
    """torch's fused kernel would take the moments of other weights."""
    images = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = []
    for kind, options in ((GaLoreAdamW, {}), (torch.optim.AdamW, {"foreach": False})):
        torch.manual_seed(0)
        net = nn.Conv2d(4, 4, 3)
        first = kind(net.parameters(), lr=1e-2, **options)
        net(images).square().mean().backward()
        first.step()
        net = net.to(memory_format=torch.channels_last)
        optimizer = kind(net.parameters(), lr=1e-2, **options)
        optimizer.load_state_dict(copy.deepcopy(first.state_dict()))
        net(images).square().mean().backward()
        optimizer.step()
        found.append(weights(net))
    assert torch.allclose(*found, rtol=0, atol=1e-7)


def algorithm_2(W, gradients, rank, T, alpha, eta, decay, beta_1=0.9, beta_2=0.999, eps=1e-8):
    """Algorithm 2 of the paper in float64 NumPy, with unchanged moments; W (m, n) has m <= n."""
    M = V = 0
    for t, G in enumerate(gradients, start=1):
        if (t - 1) % T == 0:
            P = np.linalg.svd(G, full_matrices=False)[0][:, :rank]
        R = P.T @ G
        M = beta_1 * M + (1 - beta_1) * R
        V = beta_2 * V + (1 - beta_2) * R**2
        N = M / (1 - beta_1**t) / (np.sqrt(V / (1 - beta_2**t)) + eps)
        W = W - eta * decay * W - eta * alpha * P @ N
    return W


@pytest.mark.parametrize("shape", [(40, 12), (12, 48), (16, 16), (12, 6, 3, 3), (1, 6, 6, 12)])
def test_follows_algorithm_2_in_float64(shape):
    """Within one subspace: there the signs of the basis, which an SVD leaves open, cancel."""

    def short_first(x):
        x = x.reshape(as_matrix(shape)).double().numpy()
        return x.T if x.shape[0] >= x.shape[1] else x

    g = torch.Generator().manual_seed(0)
    W = nn.Parameter(0.1 * torch.randn(shape, generator=g))
    start = W.detach().clone()
    gradients = [torch.randn(shape, generator=g) for _ in range(12)]
    config = {"rank": 4, "refresh": 100, "scale": 0.5, "subspace": "exact", "weight_decay": 0.1}
    optimizer = GaLoreAdamW([{"params": [W], **config}], lr=1e-2)
    for G in gradients:
        W.grad = G
        optimizer.step()
    expected = algorithm_2(
        short_first(start), [short_first(G) for G in gradients], 4, 100, 0.5, 1e-2, 0.1
    )
    error = np.linalg.norm(short_first(W.detach()) - expected)
    assert error <= 1e-5 * np.linalg.norm(expected - short_first(start))


@pytest.mark.parametrize("subspace", ["exact", "randomized"])
@pytest.mark.parametrize("moments", ["rotate", "keep"])
def test_signs_of_the_basis_change_nothing(monkeypatch, subspace, moments, target):
    """The weights are identical if the moments are rotated, and differ if they are kept."""
    plain, flipped = Zoo(), Zoo()
    train(plain, optimizer_for(plain, subspace=subspace, moments=moments), 23)

    function = getattr(galore, f"{subspace}_basis")
    coins = torch.Generator().manual_seed(0)

    def with_random_signs(G, rank, *rest):
        signs = torch.randint(0, 2, (rank,), generator=coins) * 2.0 - 1
        P, R = function(G, rank, *rest)
        return P * signs, R * signs[:, None]

    monkeypatch.setattr(galore, f"{subspace}_basis", with_random_signs)
    train(flipped, optimizer_for(flipped, subspace=subspace, moments=moments), 23)
    if moments == "rotate":
        apart = difference(flipped, plain, Zoo())
        target(3, "signs of the basis flipped: share of the way that differs", "0", apart)
        assert torch.equal(weights(plain), weights(flipped))
    else:
        assert difference(flipped, plain, Zoo()) > 0.05


def test_the_backend_of_the_svd_changes_nothing(monkeypatch, target):
    def by_eigenvectors(G, rank):
        P = torch.linalg.eigh(G @ G.T)[1][:, -rank:].flip(1)
        return P, P.T @ G

    by_svd, by_eigh = Zoo(), Zoo()
    train(by_svd, optimizer_for(by_svd, subspace="exact"), 40)
    monkeypatch.setattr(galore, "exact_basis", by_eigenvectors)
    train(by_eigh, optimizer_for(by_eigh, subspace="exact"), 40)
    apart = difference(by_eigh, by_svd, Zoo())
    target(3, "SVD or eigh: share of the way that differs after 40 steps", "<= 2e-5", apart)
    assert apart <= 2e-5


def test_randomized_follows_exact():
    """The subspaces nearly agree, so the weights differ by less than 20 % of the distance."""
    exact, randomized = Zoo(), Zoo()
    train(exact, optimizer_for(exact, subspace="exact"), 30)
    train(randomized, optimizer_for(randomized, subspace="randomized"), 30)
    assert difference(randomized, exact, Zoo()) < 0.2


def test_rotation_keeps_the_direction_of_the_first_moment():
    """At a refresh the cosine of old and new momentum stays near 1; with "keep" it falls."""
    g = torch.Generator().manual_seed(0)
    signal = torch.randn(40, 4, generator=g) @ torch.randn(4, 60, generator=g)
    gradients = [signal + 0.3 * torch.randn(40, 60, generator=g) for _ in range(6)]
    cosines = {}
    for moments in ("rotate", "keep"):
        W = nn.Parameter(torch.zeros(40, 60))
        optimizer = GaLoreAdamW([{"params": [W], "rank": 4, "refresh": 5, "moments": moments}])
        momenta = []
        for W.grad in gradients:  # the last of the 6 steps refreshes
            optimizer.step()
            state = optimizer.state[W]
            momenta.append((state["basis"] @ state["exp_avg"]).flatten())
        cosines[moments] = float(torch.cosine_similarity(*momenta[-2:], dim=0))
    assert cosines["rotate"] > 0.99
    assert cosines["keep"] < 0.7


@pytest.mark.parametrize("subspace", ["exact", "randomized"])
def test_it_learns(subspace):
    """In least squares with a low-rank solution, the loss falls by a factor of 100."""
    g = torch.Generator().manual_seed(0)
    X = torch.randn(200, 20, generator=g)
    Y = X @ torch.randn(20, 3, generator=g) @ torch.randn(3, 30, generator=g)
    net = nn.Linear(20, 30, bias=False)
    nn.init.zeros_(net.weight)
    optimizer = optimizer_for(net, lr=0.1, weight_decay=0, refresh=20, subspace=subspace, scale=1.0)
    losses = []
    for _ in range(300):
        optimizer.zero_grad()
        loss = (net(X) - Y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 100


def test_every_basis_is_renewed_every_t_steps():
    net = Zoo()
    optimizer = optimizer_for(net, refresh=6, moments="keep")
    refreshed = {}
    for step in range(13):
        before = {W: optimizer.state[W].get("basis") for W in net.parameters()}
        train(net, optimizer, 1, start=step)
        refreshed[step] = [
            name
            for name, W in net.named_parameters()
            if optimizer.state[W].get("basis") is not before[W]
        ]
    projected = {item.name for item in treatment(net, GaLoreConfig(4)) if item.how == "projected"}
    for step, names in refreshed.items():
        assert set(names) == (projected if step % 6 == 0 else set())


def test_staggered_refreshes_are_spread_over_the_steps():
    net = Zoo()
    optimizer = optimizer_for(net, refresh=6, stagger=True, moments="keep")
    refreshed = []
    for step in range(13):
        before = {W: optimizer.state[W].get("basis") for W in net.parameters()}
        train(net, optimizer, 1, start=step)
        after = {name: optimizer.state[W].get("basis") for name, W in net.named_parameters()}
        kept = before.values()
        refreshed.append([n for n, old in zip(after, kept, strict=True) if after[n] is not old])
    projected = sorted(t.name for t in treatment(net, GaLoreConfig(4)) if t.how == "projected")
    assert sorted(refreshed[0]) == projected  # the first step needs every basis
    for first in (1, 7):  # T steps renew each basis once, and no step renews all
        steps = refreshed[first : first + 6]
        assert sorted(name for names in steps for name in names) == projected
        assert max(map(len, steps)) < len(projected) / 2


def test_a_state_from_before_staggering_goes_on():
    net = Zoo()
    optimizer = optimizer_for(net)
    train(net, optimizer, 6)
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        group.pop("stagger", None)
    optimizer.load_state_dict(saved)
    train(net, optimizer, 5, start=6)


def test_a_zero_gradient_at_a_refresh_keeps_the_basis():
    net = Zoo()
    optimizer = optimizer_for(net)
    train(net, optimizer, 5)
    basis = optimizer.state[net.wide]["basis"]
    net.set_gradients(5)
    net.wide.grad.zero_()
    optimizer.step()
    assert optimizer.state[net.wide]["basis"] is basis


@pytest.mark.parametrize("kind", [GaLoreAdamW, FiraAdamW, ApolloAdamW])
def test_the_first_basis_waits_for_a_gradient_that_is_more_than_rounding(kind):
    """The encoder's first gradient is rounding, about 1e-10, until the class tokens differ."""
    generator = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(6, 24, 40, generator=generator)
    late, plain = (torch.nn.Parameter(start.clone()) for _ in range(2))
    for W, steps in ((late, [1e-10 * gradients[0], *gradients[1:]]), (plain, gradients[1:])):
        optimizer = kind([{"params": [W], "rank": 4, "weight_decay": 0.0, "subspace": "exact"}])
        for W.grad in steps:
            optimizer.step()
    assert torch.equal(late, plain)  # steps before the first basis have no effect


def test_memory_format_changes_nothing():
    plain, other = Zoo(), Zoo()
    other.conv.data = other.conv.data.to(memory_format=torch.channels_last)
    other.pos_embed.data = other.pos_embed.data.to(memory_format=torch.channels_last)
    train(plain, optimizer_for(plain), 8)
    train(other, optimizer_for(other), 8)
    assert difference(other, plain, Zoo()) < 1e-6


def test_bfloat16_weights_have_float32_states(target):
    net, twin = Zoo().to(torch.bfloat16), Zoo().to(torch.bfloat16)
    optimizer = optimizer_for(net)
    train(net, optimizer, 7)
    for state in optimizer.state.values():
        assert {value.dtype for value in state.values()} == {torch.float32}
        if "basis" in state:
            P = state["basis"]
            error = (P.T @ P - torch.eye(P.shape[1])).abs().max()
            what = "bf16 weights: largest entry of P^T P - 1, a float32 basis"
            target(10, what, "<= 1e-5", error)
            assert error < 1e-5
    assert {W.dtype for W in net.parameters()} == {torch.bfloat16}

    # one step is the float32 step, rounded
    wide = twin.float()
    reference = copy.deepcopy(wide)
    small = copy.deepcopy(wide).to(torch.bfloat16)
    train(small, optimizer_for(small, weight_decay=0), 1)
    for W, G in zip(reference.parameters(), small.parameters(), strict=True):
        W.grad = G.grad.float()
    optimizer_for(reference, weight_decay=0).step()
    for W, V in zip(small.parameters(), reference.parameters(), strict=True):
        assert torch.equal(W, V.to(torch.bfloat16))


# Saving and loading


def round_trip(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stop", [3, 5, 10])  # T = 5: inside, and at both refresh boundaries
@pytest.mark.parametrize("stagger", [False, True])
def test_resume_is_exact(dtype, stop, stagger, target):
    whole = Zoo().to(dtype)
    train(whole, optimizer_for(whole, stagger=stagger), 14)

    first = Zoo().to(dtype)
    optimizer = optimizer_for(first, stagger=stagger)
    train(first, optimizer, stop)
    saved = round_trip({"net": first.state_dict(), "optimizer": optimizer.state_dict()})

    second = Zoo(seed=9).to(dtype)
    second.load_state_dict(saved["net"])
    resumed = optimizer_for(second, stagger=stagger)
    resumed.load_state_dict(saved["optimizer"])
    train(second, resumed, 14 - stop, start=stop)
    apart = (weights(second) - weights(whole)).abs().max()
    target(4, "resumed, also at a refresh: largest difference after 14 steps", "0", apart)
    assert torch.equal(weights(second), weights(whole))


def test_state_is_tensors_and_plain_values():
    net = Zoo()
    optimizer = optimizer_for(net)
    train(net, optimizer, 2)
    saved = optimizer.state_dict()
    assert all(
        isinstance(value, torch.Tensor) for s in saved["state"].values() for value in s.values()
    )
    json.dumps(saved["param_groups"])


def test_loading_shares_no_memory_with_the_saved_state():
    net, twin = Zoo(), Zoo()
    optimizer, other = optimizer_for(net), optimizer_for(twin)
    train(net, optimizer, 2)
    other.load_state_dict(optimizer.state_dict())
    before = other.state[twin.wide]["exp_avg"].clone()
    train(net, optimizer, 1, start=2)
    assert torch.equal(other.state[twin.wide]["exp_avg"], before)


def test_loading_another_rank_is_refused():
    net, twin = Zoo(), Zoo()
    optimizer = optimizer_for(net, rank=4)
    train(net, optimizer, 1)
    with pytest.raises(UserError, match="rank 4, this one 3"):
        optimizer_for(twin, rank=3).load_state_dict(optimizer.state_dict())


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    net = Zoo()
    train(net, optimizer_for(net), 12)
    assert torch.equal(torch.rand(3), expected)


def test_the_seed_decides():
    runs = []
    for seed in (1, 1, 2):
        net = Zoo()
        runs.append(weights(train(net, optimizer_for(net, seed=seed), 7)))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


# Memory and the table of treatments


@pytest.mark.parametrize(
    ("size", "projected", "expected"),
    [
        (1024, BLOCK_MATRICES, 70_920_192),
        (512, BLOCK_MATRICES, 51_783_680),
        (1024, ("*",), 36_843_520),
        (512, ("*",), 35_927_040),
    ],
)
def test_state_bytes_of_vit_b(size, projected, expected):
    plan = treatment(vit_b(size), GaLoreConfig(32, projected=projected))
    assert len(plan) == 177
    assert sum(item.state_bytes for item in plan) == expected


@pytest.mark.parametrize(("rank", "mib"), [(32, 67.6), (64, 99.1), (128, 162.1), (256, 288.1)])
def test_state_mebibytes_of_vit_b_by_rank(rank, mib):
    plan = treatment(vit_b(1024), GaLoreConfig(rank, projected=BLOCK_MATRICES))
    assert sum(item.state_bytes for item in plan) / 2**20 == pytest.approx(mib, abs=0.05)


@pytest.mark.parametrize(
    ("projected", "expected"), [(BLOCK_MATRICES, 70_920_192), (("*",), 36_843_520)]
)
def test_held_storage_of_vit_b_is_the_formula_to_the_byte(projected, expected, target):
    encoder = vit_b(1024).to_empty(device="cpu")
    for W in encoder.parameters():
        W.data = torch.zeros(1).expand(W.shape).clone()
        W.grad = torch.ones_like(W)
    config = GaLoreConfig(32, projected=projected)
    optimizer = GaLoreAdamW(param_groups(encoder, config, 1e-3, 0.1))
    optimizer.step()
    which = "48 matrices" if projected == BLOCK_MATRICES else "all of two or more dimensions"
    what = f"bytes held, vit_b at 1024 px, r = 32, {which}"
    target(5, what, f"{expected:,}", held(optimizer))
    assert held(optimizer) == expected
    assert held(optimizer) == sum(item.state_bytes for item in treatment(encoder, config))


@pytest.mark.parametrize("subspace", ["exact", "randomized"])
def test_held_storage_after_refreshes_and_reload(subspace):
    net = Zoo()
    optimizer = optimizer_for(net, subspace=subspace)
    train(net, optimizer, 12)
    expected = sum(item.state_bytes for item in treatment(net, GaLoreConfig(4)))
    assert held(optimizer) == expected
    other = optimizer_for(net, subspace=subspace)
    other.load_state_dict(round_trip(optimizer.state_dict()))
    assert held(other) == expected


def test_treatment_of_vit_b(target):
    plan = {item.name: item for item in treatment(vit_b(1024), GaLoreConfig(32))}
    target(9, "tensors of vit_b's encoder that are handled", "177", len(plan))
    projected = sum(item.how == "projected" for item in plan.values())
    target(9, "tensors of vit_b's encoder that are projected", "where it saves memory", projected)
    assert plan["pos_embed"].matrix == (4096, 768)
    assert plan["pos_embed"].how == "projected"
    assert plan["patch_embed.proj.weight"].matrix == (768, 768)
    assert plan["neck.2.weight"].matrix == (256, 2304)
    assert plan["blocks.0.attn.rel_pos_h"].how == "dense"  # 27 x 64
    assert plan["blocks.2.attn.rel_pos_h"].how == "projected"  # 127 x 64
    assert plan["blocks.0.norm1.weight"].matrix is None
    assert sum(item.how == "projected" for item in plan.values()) == 60
    assert all(item.why for item in plan.values())


def test_projection_only_where_it_saves_memory():
    net = nn.Linear(16, 16, bias=False)
    (item,) = treatment(net, GaLoreConfig(10))  # 10 * (2 * 16 + 16) < 2 * 16 * 16
    assert (item.how, item.state_bytes) == ("projected", 4 * 480)
    (item,) = treatment(net, GaLoreConfig(11))
    assert (item.how, item.state_bytes) == ("dense", 4 * 512)


def test_frozen_tensors_are_left_out_and_names_choose():
    net = Zoo()
    net.tall.requires_grad_(False)
    config = GaLoreConfig(4, projected=("w*", "square"))
    groups = param_groups(net, config, 1e-3, 0.1)
    assert [group["names"] for group in groups] == [
        ["wide", "square"],
        ["pos_embed", "conv", "up", "small", "bias"],
    ]
    assert groups[0]["rank"] == 4
    assert "rank" not in groups[1]
    assert "tall" not in [item.name for item in treatment(net, config)]


# Mistakes


@pytest.mark.parametrize("subspace", ["exact", "randomized"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["wide", "bias"])
@pytest.mark.parametrize("steps", [4, 5])  # the step after the fifth refreshes
def test_a_nonfinite_gradient_is_named_and_changes_nothing(subspace, value, name, steps):
    net = Zoo()
    optimizer = optimizer_for(net, subspace=subspace)
    train(net, optimizer, steps)
    before, state = weights(net), copy.deepcopy(optimizer.state_dict())
    net.set_gradients(steps)
    dict(net.named_parameters())[name].grad.view(-1)[3] = value
    with pytest.raises(NonFiniteGradientError, match=f"gradient of {name} .*1 of 8"):
        optimizer.step()
    assert torch.equal(weights(net), before)
    for number, tensors in optimizer.state_dict()["state"].items():
        assert all(torch.equal(v, state["state"][number][k]) for k, v in tensors.items())


def test_a_nonfinite_gradient_can_be_skipped():
    net, twin = Zoo(), Zoo()
    groups = param_groups(net, GaLoreConfig(4, refresh=5), 1e-2, 0.1)
    optimizer = GaLoreAdamW(groups, nonfinite="skip")
    train(net, optimizer, 2)
    net.set_gradients(2)
    net.wide.grad[0, 0] = float("nan")
    optimizer.step()
    assert optimizer.skipped == 1
    train(net, optimizer, 2, start=2)
    train(twin, optimizer_for(twin), 4)
    assert torch.equal(weights(net), weights(twin))


def test_a_large_finite_gradient_is_no_error():
    W = nn.Parameter(torch.zeros(8, 8))
    optimizer = GaLoreAdamW([W])
    W.grad = torch.full((8, 8), 3e38)  # its float32 sum overflows
    optimizer.step()
    assert W.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"rank": -1}, "rank is -1"),
        ({"rank": 2.5}, "rank is 2.5"),
        ({"refresh": 0}, "refresh is 0"),
        ({"scale": 0}, "scale is 0"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"moments": "rotated"}, "moments is 'rotated'"),
        ({"subspace": "svd"}, "subspace is 'svd'"),
    ],
)
def test_nonsense_is_refused_with_its_value(options, message):
    options = {"rank": 4} | options
    with pytest.raises(UserError, match=message):
        GaLoreConfig(**options)
    with pytest.raises(UserError, match=message):
        GaLoreAdamW([{"params": [nn.Parameter(torch.zeros(9, 9))], **options}])


def test_other_mistakes():
    net = Zoo()
    with pytest.raises(UserError, match="called 'norm"):
        param_groups(net, GaLoreConfig(4, projected=("norm*",)), 1e-3, 0)
    with pytest.raises(UserError, match="Nothing to train"):
        param_groups(Zoo().requires_grad_(False), GaLoreConfig(4), 1e-3, 0)
    with pytest.raises(UserError, match="betas"):
        GaLoreAdamW(net.parameters(), betas=(0.9, 1.0))
    with pytest.raises(UserError, match="not be negative"):
        GaLoreAdamW(net.parameters(), lr=-1)
    table = nn.Embedding(9, 9, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(UserError, match="sparse"):
        GaLoreAdamW(table.parameters()).step()


def test_a_closure_and_a_schedule_work_as_in_torch():
    net = Zoo()
    optimizer = optimizer_for(net)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)

    def closure():
        optimizer.zero_grad()
        loss = sum(W.square().sum() for W in net.parameters())
        loss.backward()
        return loss

    first = optimizer.step(closure)
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.5e-2
    assert optimizer.step(closure) < first
