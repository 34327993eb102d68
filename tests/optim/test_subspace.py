"""Subspaces by their share of the energy, and the rotation of moments against its formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medsaga_lib.optim.subspace import (
    exact_basis,
    randomized_basis,
    refresh_seed,
    rotate_moments,
)

RANK = 32


def with_spectrum(m, n, power, seed):
    """Random (m, n) matrix with singular values i^-power, and its left singular vectors."""
    g = torch.Generator().manual_seed(seed)
    U = torch.linalg.qr(torch.randn(m, m, generator=g)).Q
    V = torch.linalg.qr(torch.randn(n, m, generator=g)).Q
    return (U * torch.arange(1, m + 1) ** -float(power)) @ V.T, U


def energy(P, G):
    return float((P.T.double() @ G.double()).square().sum())


def relative_energy(P, G, U):
    return energy(P, G) / energy(U[:, : P.shape[1]], G)


@pytest.mark.parametrize(("m", "n"), [(192, 576), (192, 192), (192, 768)])
@pytest.mark.parametrize(("power", "cold", "warm"), [(0.5, 0.985, 0.98), (1, 0.999, 0.999)])
def test_subspace_energy(m, n, power, cold, warm, target):
    G, U = with_spectrum(m, n, power, seed=1)
    first, _ = randomized_basis(G, RANK, None, seed=2)
    again, _ = randomized_basis(G, RANK, first, seed=3)
    exact, at_first, later = (
        relative_energy(P, G, U) for P in (exact_basis(G, RANK)[0], first, again)
    )
    where = f"energy of the best subspace, singular values i^-{power}"
    target(6, f"{where}: exact", ">= 0.99999", exact)
    target(6, f"{where}: cold", f">= {cold}", at_first)
    target(6, f"{where}: warm", f">= {warm}", later)
    assert exact >= 0.99999
    assert at_first >= cold
    assert later >= max(warm, at_first)


def test_warm_start_follows_a_gradient_that_moved():
    G, _ = with_spectrum(192, 576, 1, seed=1)
    other, _ = with_spectrum(192, 576, 1, seed=2)
    moved = G + 0.5 * other
    U = torch.linalg.svd(moved.double())[0].float()
    first, _ = randomized_basis(G, RANK, None, seed=2)
    warm, _ = randomized_basis(moved, RANK, first, seed=3)
    assert relative_energy(first, moved, U) < 0.9  # the old basis is not enough
    assert relative_energy(warm, moved, U) > 0.99


@given(
    m=st.integers(1, 24),
    more=st.integers(0, 24),
    rank=st.integers(1, 24),
    true_rank=st.integers(0, 24),
    scale=st.sampled_from([1e-20, 1e-6, 1.0, 1e6]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_every_basis_is_orthonormal(m, more, rank, true_rank, scale, seed):
    """The bases of zero, low-rank and tiny gradients are orthonormal, too."""
    n, rank = m + more, min(rank, m)
    g = torch.Generator().manual_seed(seed)
    k = min(true_rank, m)
    G = scale * torch.randn(m, k, generator=g) @ torch.randn(k, n, generator=g)
    first = randomized_basis(G, rank, None, seed)
    for P, R in (exact_basis(G, rank), first, randomized_basis(G, rank, first[0], seed)):
        assert P.shape == (m, rank)
        torch.testing.assert_close(R, P.T @ G, rtol=1e-3, atol=1e-4 * scale)
        assert (P.T @ P - torch.eye(rank)).abs().max() <= 1e-5
        if k <= rank:  # the subspace holds the whole gradient
            torch.testing.assert_close(P @ (P.T @ G), G, rtol=1e-3, atol=1e-4 * scale)


def test_bases_own_no_more_memory_than_they_show():
    G, _ = with_spectrum(96, 192, 1, seed=0)
    for P, _ in (exact_basis(G, 8), randomized_basis(G, 8, None, 0)):
        assert P.untyped_storage().nbytes() == 96 * 8 * 4


def test_randomness_is_a_function_of_the_seed():
    G, _ = with_spectrum(96, 192, 0.5, seed=0)
    before = torch.get_rng_state()
    bases = [randomized_basis(G, 8, None, seed)[0] for seed in (5, 5, 6)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(bases[0], bases[1])
    assert not torch.equal(bases[0], bases[2])
    seeds = {refresh_seed(s, t, i) for s in range(3) for t in range(20) for i in range(20)}
    assert len(seeds) == 3 * 20 * 20
    assert refresh_seed(1, 200, 3) == refresh_seed(1, 200, 3)


@given(
    r=st.integers(1, 6),
    m=st.integers(6, 12),
    n=st.integers(1, 8),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_rotating_moments(r, m, n, seed):
    g = torch.Generator().manual_seed(seed)
    P_old = torch.linalg.qr(torch.randn(m, r, generator=g)).Q
    P_new = torch.linalg.qr(torch.randn(m, r, generator=g)).Q
    M, V = torch.randn(r, n, generator=g), torch.rand(r, n, generator=g)
    R = torch.randn(r, n, generator=g)

    # a rotation within one subspace and back is the identity for M and keeps the sum of V
    turned = P_old @ torch.linalg.qr(torch.randn(r, r, generator=g)).Q
    M_there, V_there = rotate_moments(M, V, P_old, turned, R, 1.0)
    M_back, _ = rotate_moments(M_there, V_there, turned, P_old, R, 1.0)
    torch.testing.assert_close(M_back, M, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(V_there.sum(0), V.sum(0), rtol=1e-4, atol=1e-4)

    M_new, V_new = rotate_moments(M, V, P_old, P_new, R, 1.0)
    assert (V_new >= 0).all()
    torch.testing.assert_close(M_new, P_new.T @ (P_old @ M), rtol=1e-4, atol=1e-5)

    # the moments of an axis flip with its sign, exactly
    signs = torch.randint(0, 2, (r,), generator=g) * 2.0 - 1
    M_flip, V_flip = rotate_moments(M, V, P_old, P_new * signs, R * signs[:, None], 1.0)
    assert torch.equal(M_flip, M_new * signs[:, None])
    assert torch.equal(V_flip, V_new)


def test_an_axis_never_seen_starts_from_the_present_gradient():
    eye = torch.eye(4)
    M, V = torch.ones(2, 3), torch.full((2, 3), 9.0)
    R = torch.full((2, 3), 2.0)
    M_new, V_new = rotate_moments(M, V, eye[:, :2], eye[:, 2:], R, 0.5)
    assert torch.equal(M_new, torch.zeros(2, 3))
    assert torch.equal(V_new, torch.full((2, 3), 2.0))  # 0.5 * R^2


def test_second_moment_is_exact_for_uncorrelated_coordinates():
    """Compare with samples of R with independent coordinates of variance v, in other axes."""
    g = torch.Generator().manual_seed(0)
    v = torch.tensor([4.0, 1.0, 0.25])
    samples = torch.randn(200_000, 3, generator=g, dtype=torch.float64) * v.sqrt()
    C = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64)).Q
    expected = (samples @ C.T).square().mean(0)
    eye = torch.eye(3, dtype=torch.float64)
    _, V = rotate_moments(
        torch.zeros(3, 1).double(), v[:, None].double(), eye, C.T, torch.zeros(3, 1).double(), 1.0
    )
    torch.testing.assert_close(V[:, 0], expected, rtol=0.02, atol=0)
