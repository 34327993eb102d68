"""Finds the subspace that holds most of a gradient and carries Adam's moments into it.

Subspace: that of GaLore, Zhao et al. 2024 (arXiv 2403.03507), section 4, by the randomized subspace
iteration of Halko, Martinsson and Tropp 2011 (SIAM Review 53, algorithm 4.4).
Moments: the first as in LDAdam (arXiv 2410.16103); the second is our choice, see `rotate_moments`.

Every matrix here has its short side first: G is m x n with m <= n, and P stands on its left.
"""

import hashlib

import torch
from torch import Tensor

OVERSAMPLING = 8  # extra columns; Halko et al. 2011, section 4.2, advise 5 to 10
COLD_STEPS = 2  # power iterations without an earlier basis; Halko et al. 2011, section 4.5
WARM_STEPS = 1  # from an earlier basis; our choice, measured in tests/optim/test_subspace.py


def exact_basis(G: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(P, R): the first `rank` left singular vectors of G (m x n), and R = P^T G (rank x n)."""
    U, sigma, Vh = torch.linalg.svd(G, full_matrices=False)
    # a copy, because a view would keep the whole of U alive
    P = U[:, :rank].clone(memory_format=torch.contiguous_format)
    return P, sigma[:rank, None] * Vh[:rank]


def randomized_basis(
    G: Tensor, rank: int, previous: Tensor | None, seed: int
) -> tuple[Tensor, Tensor]:
    """(P, R) as in `exact_basis`, of nearly the same subspace and many times faster.

    `previous` (m x rank, or None) is the basis that a warm start improves. The global random state
    is not touched; the same `seed` gives the same basis.
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
    # One QR a step, not two: G G^T squares the singular values, so in float32 directions with less
    # than 1e-7 of the largest energy blur. They hold nothing worth a QR of the long side.
    for _ in range(steps):
        Q = torch.linalg.qr(G @ _scaled(G.T @ Q)).Q  # (m, columns)

    # Rayleigh-Ritz: the strongest `rank` directions inside Q, left singular vectors of B = Q^T G,
    # from the eigenvectors of B B^T for the same reason
    B_T = G.T @ Q
    B_1 = _scaled(B_T)
    U = torch.linalg.eigh(B_1.T @ B_1).eigenvectors.flip(1)[:, :rank]  # strongest first
    return Q @ U, (B_T @ U).T


def _scaled(B: Tensor) -> Tensor:
    """B over its largest number, so that the squares of a tiny gradient do not vanish."""
    largest = B.abs().amax()
    return B / torch.where(largest > 0, largest, 1.0)


def refresh_seed(seed: int, step: int, index: int) -> int:
    """Seed of one refresh: a function of the run's seed, the step and the tensor's index alone."""
    digest = hashlib.sha256(f"{seed},{step},{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes 63 bits


def rotate_moments(
    M: Tensor, V: Tensor, P_old: Tensor, P_new: Tensor, R: Tensor, correction: float
) -> tuple[Tensor, Tensor]:
    """Adam's moments (each r x n) in the coordinates of P_new.

    With C = P_new^T P_old, the first moment is linear in the gradient, so it becomes C M. The
    second becomes (C * C) V, which is what E[(C R)^2] is when the old coordinates are uncorrelated,
    as singular directions are. A new axis that the old subspace saw only in part has row sum
    s = sum(C * C) < 1; the missing share 1 - s takes the current R^2 (R = P_new^T G). With V near 0
    there, Adam's first step along it would be (1 - beta_1) / sqrt(1 - beta_2) = 3.2 times its usual
    length. `correction` is Adam's 1 - beta_2^t of V. No weight is negative, so V stays nonnegative;
    a flipped column of P changes nothing.
    """
    C = P_new.T @ P_old  # (r, r)
    seen = C.square()
    unseen = (1 - seen.sum(dim=1, keepdim=True)).clamp_(min=0)  # (r, 1)
    return C @ M, seen @ V + unseen * R.square() * correction
