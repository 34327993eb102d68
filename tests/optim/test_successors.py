"""Fira and APOLLO against their formulas in float64 NumPy, step by step."""

import io

import numpy as np
import pytest
import torch

from medsaga_lib.optim.apollo import ApolloAdamW
from medsaga_lib.optim.fira import FiraAdamW
from medsaga_lib.optim.limiter import GROWTH, limited
from medsaga_lib.optim.subspace import refresh_seed

RANK, PERIOD, ETA, ALPHA, DECAY = 3, 4, 1e-2, 0.25, 0.1
OPTIONS = {
    "rank": RANK,
    "refresh": PERIOD,
    "scale": ALPHA,
    "subspace": "exact",
    "moments": "keep",
    "lr": ETA,
    "weight_decay": DECAY,
}


def gradients(shape, steps, seed=0):
    """Gradients (m, n) whose size jumps, so that the limiter acts."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.normal(0, 1, steps))
    return [size * rng.normal(0, 1, shape) for size in sizes]


def train(kind, W, gradients, **options):
    weight = torch.nn.Parameter(torch.tensor(W, dtype=torch.float32))
    optimizer = kind([{"params": [weight], **OPTIONS, **options}])
    for G in gradients:
        weight.grad = torch.tensor(G, dtype=torch.float32)
        optimizer.step()
    return weight.detach().numpy(), optimizer


def short(length, update):
    """Reference of the limiter: the limited update and its length."""
    now = np.linalg.norm(update)
    if length is not None and now > GROWTH * length:
        update, now = update * GROWTH * length / now, GROWTH * length
    return update, now


def by_hand(name, W, gradients, period):
    """Weights after all steps in float64 NumPy, for matrices with m <= n."""
    M = V = 0
    length = None
    for t, G in enumerate(gradients):
        if name == "fira" and t % period == 0:
            P = np.linalg.svd(G, full_matrices=False)[0][:, :RANK]
        if name == "apollo" and t % period == 0:
            generator = torch.Generator().manual_seed(refresh_seed(0, t // period, 0))
            P = torch.randn(len(G), RANK, generator=generator).double().numpy() / RANK**0.5
        R = P.T @ G
        M, V = 0.9 * M + 0.1 * R, 0.999 * V + 0.001 * R**2
        N = (M / (1 - 0.9 ** (t + 1))) / (np.sqrt(V / (1 - 0.999 ** (t + 1))) + 1e-8)
        scale = np.linalg.norm(N, axis=0) / (np.linalg.norm(R, axis=0) + 1e-8)
        rest, length = short(length, (G - P @ R if name == "fira" else G) * scale)
        update = P @ N + rest if name == "fira" else rest
        W = (1 - ETA * DECAY) * W - ETA * ALPHA * update
    return W


@pytest.mark.parametrize(("name", "kind"), [("fira", FiraAdamW), ("apollo", ApolloAdamW)])
@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (9, 9)])
def test_equals_the_formulas(name, kind, shape):
    """Fira runs without a refresh, at which the signs of an SVD matter; see test_galore.py."""
    period = 100 if name == "fira" else PERIOD
    W = np.random.default_rng(1).normal(0, 1, shape)
    steps = gradients(shape, 11)
    ours, _ = train(kind, W, steps, refresh=period)
    if shape[0] < shape[1]:
        expected = by_hand(name, W, steps, period)
    else:  # the short side comes first
        expected = by_hand(name, W.T, [G.T for G in steps], period).T
    np.testing.assert_allclose(ours, expected, atol=2e-6)
    assert np.abs(ours - W).max() > 1e-2


@pytest.mark.parametrize("kind", [FiraAdamW, ApolloAdamW])
def test_resumes_exactly(kind):
    steps = gradients((10, 14), 10)
    W = np.random.default_rng(2).normal(0, 1, (10, 14))
    whole, _ = train(kind, W, steps)
    half, optimizer = train(kind, W, steps[:5])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    weight = torch.nn.Parameter(torch.tensor(half))
    resumed = kind([{"params": [weight], **OPTIONS}])
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for G in steps[5:]:
        weight.grad = torch.tensor(G, dtype=torch.float32)
        resumed.step()
    np.testing.assert_array_equal(weight.detach().numpy(), whole)


def test_apollo_keeps_no_basis_and_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    _, optimizer = train(ApolloAdamW, np.ones((10, 20)), gradients((10, 20), 2))
    assert torch.equal(torch.rand(1), expected)
    (state,) = optimizer.state.values()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert shapes == {"step": (), "exp_avg": (3, 20), "exp_avg_sq": (3, 20), "length": ()}


def test_fira_at_nearly_full_rank_is_galore_with_nothing_left_over():
    """A gradient of rank 3 has no remainder, so both updates are equal."""
    from medsaga_lib.optim.galore import GaLoreAdamW

    rng = np.random.default_rng(3)
    basis = rng.normal(0, 1, (10, RANK))
    steps = [basis @ rng.normal(0, 1, (RANK, 14)) for _ in range(6)]
    W = rng.normal(0, 1, (10, 14))
    np.testing.assert_allclose(
        train(FiraAdamW, W, steps)[0], train(GaLoreAdamW, W, steps)[0], atol=1e-5
    )


@pytest.mark.parametrize("kind", [FiraAdamW, ApolloAdamW])
def test_they_use_directions_that_the_subspace_leaves_out(kind):
    from medsaga_lib.optim.galore import GaLoreAdamW

    steps = gradients((10, 14), 3)
    start = np.zeros((10, 14))
    rank_of = {
        k: np.linalg.matrix_rank(train(k, start, steps[:1])[0], tol=1e-7)
        for k in (kind, GaLoreAdamW)
    }
    assert rank_of == {kind: 10, GaLoreAdamW: RANK}


def test_limiter():
    state = {}
    sizes = [1.0, 5.0, 0.5, 0.6, 0.0, 3.0]
    lengths = [limited(torch.full((4,), size), state).norm().item() for size in sizes]
    expected = [2.0, 2.0 * GROWTH, 1.0, GROWTH, 0.0, 6.0]  # after zero there is no limit
    np.testing.assert_allclose(lengths, expected, rtol=1e-6)
