"""The subspace that holds most of a gradient, and the rotation of Adam's moments into it.

The subspace is that of GaLore, Zhao et al. 2024 (arXiv 2403.03507), section 4, found by the
randomized subspace iteration of Halko, Martinsson and Tropp 2011 (SIAM Review 53, algorithm 4.4).
The first moment follows LDAdam (arXiv 2410.16103); the second is our choice, see `rotate_moments`.

Every matrix here has its short side first: G is m x n with m <= n, and P multiplies it on the left.
"""

import hashlib

import torch
from torch import Tensor

OVERSAMPLING = 8  # extra columns; Halko et al. 2011, section 4.2, advise 5 to 10
COLD_STEPS = 2  # power iterations without a previous basis; Halko et al. 2011, section 4.5
WARM_STEPS = 1  # from a previous basis; our choice, measured in tests/optim/test_subspace.py


def exact_basis(G: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The first `rank` left singular vectors P of G (m x n), and R = P^T G (rank x n), by SVD."""
    U, sigma, Vh = torch.linalg.svd(G, full_matrices=False)
    # a copy, because a view would keep all of U in memory
    P = U[:, :rank].clone(memory_format=torch.contiguous_format)
    return P, sigma[:rank, None] * Vh[:rank]


def randomized_basis(
    G: Tensor, rank: int, previous: Tensor | None, seed: int
) -> tuple[Tensor, Tensor]:
    """Basis P and R = P^T G of nearly the subspace of `exact_basis`, many times faster.

    Args:
        G: gradient, (m, n) with m <= n.
        rank: number of columns of P.
        previous: basis (m, rank) for a warm start, or None.
        seed: the same seed gives the same basis; the global random state is not used.
    """
    m, n = G.shape
    generator = torch.Generator().manual_seed(seed)
    if previous is None:
        columns = min(rank + OVERSAMPLING, m)
        Q = G @ torch.randn(n, columns, generator=generator).to(G)  # (m, columns)
        steps = COLD_STEPS
    else:
        columns = min(OVERSAMPLING, m - rank)
        fresh = torch.randn(m, columns, generator=generator).to(G) / m**0.5  # columns of length 1
        Q = torch.cat([previous, fresh], dim=1)
        steps = WARM_STEPS
    if steps > 1:
        Q = torch.linalg.qr(Q).Q
    # One QR per step, not two: G G^T squares the singular values, so float32 cannot separate
    # directions with less than 1e-7 of the largest energy. They do not need a QR of the long side.
    for _ in range(steps):
        Q = torch.linalg.qr(G @ _scaled(G.T @ Q)).Q  # (m, columns)

    # Rayleigh-Ritz: the strongest `rank` directions inside Q are left singular vectors of
    # B = Q^T G, computed as eigenvectors of B B^T for the same reason
    B_T = G.T @ Q
    B_1 = _scaled(B_T)
    U = torch.linalg.eigh(B_1.T @ B_1).eigenvectors.flip(1)[:, :rank]  # strongest first
    return Q @ U, (B_T @ U).T


def _scaled(B: Tensor) -> Tensor:
    """Divide B by its largest absolute value, so that squares of its entries do not underflow."""
    largest = B.abs().amax()
    return B / torch.where(largest > 0, largest, 1.0)


def refresh_seed(seed: int, step: int, index: int) -> int:
    """Seed of one refresh, a function of the run's seed, the step and the tensor's index only."""
    digest = hashlib.sha256(f"{seed},{step},{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes 63 bits


def rotate_moments(
    M: Tensor, V: Tensor, P_old: Tensor, P_new: Tensor, R: Tensor, correction: float
) -> tuple[Tensor, Tensor]:
    """Transform Adam's moments M and V, each (r, n), to the coordinates of P_new.

    Let C = P_new^T P_old. The first moment is linear in the gradient, so it becomes C M. The second
    becomes (C * C) V, which equals E[(C R)^2] if the old coordinates are uncorrelated, as singular
    directions are. A new axis that lies only partly in the old subspace has the row sum
    s = sum(C * C) < 1; the current R^2 (R = P_new^T G) gets the missing weight 1 - s. If V were
    near 0 there, Adam's first step along the axis would be (1 - beta_1) / sqrt(1 - beta_2) = 3.2
    times its usual length. `correction` is Adam's 1 - beta_2^t of V. All weights are nonnegative,
    so V stays nonnegative. The signs of the columns of P do not matter.
    """
    C = P_new.T @ P_old  # (r, r)
    seen = C.square()
    unseen = (1 - seen.sum(dim=1, keepdim=True)).clamp_(min=0)  # (r, 1)
    return C @ M, seen @ V + unseen * R.square() * correction
