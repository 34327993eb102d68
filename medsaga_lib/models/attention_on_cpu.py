"""Attention with relative positions on a CPU and its gradient, one piece of the map at a time.

Symbols as in FlashAttention (Dao et al. 2022, arXiv 2205.14135):

    S = scale Q K^T + rows + columns,  L = log sum exp S,  P = exp(S - L),  O = P V

The gradient dO of O gives, with delta = sum(dO * O):

    dV = P^T dO,  dS = P * (dO V^T - delta),  dQ = scale dS K,  dK = scale dS^T Q

torch's own kernel requires Q, K and V of the same width. With the positions as additional channels
of Q and K, it mostly multiplies the zero padding of V, and takes 1.1 to 2 times as long. Here the
positions are added to S, and their gradients are sums over dS.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

PIECE = 2**20  # numbers of S in a piece: 4 MiB, which fit into a CPU cache; our choice, measured
EVEN = 8  # channels; matrix products of a multiple of this width are faster; our choice


def attention(
    q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Return O with the shape and dtype of v, and L (B, heads, N) in float32 or better.

    The arithmetic is float32 or better. In autocast, only the product with V has lower precision.

    q, k, v: (B, heads, N, c), where N = h x w.
    rows, columns: (B, heads, N, h) and (B, heads, N, w), added to the scores of a query for the row
        and the column of a key.
    """
    Q, K, V, rows, columns = (_precise(x).flatten(0, 1) for x in (q, k, v, rows, columns))
    Q = scale * Q
    out, L = torch.empty_like(V), Q.new_empty(Q.shape[:2])
    for m, i, (S,) in _pieces(Q, buffers=1):
        _scores(S, Q[m, i], K[m], rows[m, i], columns[m, i])
        most = S.amax(2, keepdim=True)
        total = S.sub_(most).exp_().sum(2, keepdim=True)
        out[m, i] = torch.bmm(S, V[m]).div_(total)
        L[m, i] = most.add_(total.log_()).squeeze(2)
    return out.view(v.shape).to(v.dtype), L.view(v.shape[:3])


def attention_backward(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rows: Tensor,
    columns: Tensor,
    out: Tensor,
    logarithms: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the first 5 arguments of `attention`, given its results."""
    # An additional channel subtracts L and delta within the matrix products
    Q_L, K_1 = _with(q, -logarithms, scale), _with(k, 1)
    dO_delta, V_1 = _with(gradient, -(_precise(gradient) * _precise(out)).sum(3)), _with(v, 1)
    Q, K, dO = (x[:, :, : q.shape[3]] for x in (Q_L, K_1, dO_delta))
    of_rows, of_columns = (_precise(x).flatten(0, 1) for x in (rows, columns))
    dQ, dK, dV = (Q.new_empty(Q.shape) for _ in range(3))
    d_rows, d_columns = torch.empty_like(of_rows), torch.empty_like(of_columns)
    grid = rows.shape[3], columns.shape[3]
    for m, i, (S, dS) in _pieces(Q, buffers=2):
        P = _scores(S, Q_L[m, i], K_1[m], of_rows[m, i], of_columns[m, i]).exp_()
        begun = int(i.start > 0)  # 0 starts a sum over the queries, 1 adds a further piece to it
        dV[m].baddbmm_(P.mT, dO[m, i], beta=begun)
        torch.bmm(dO_delta[m, i], V_1[m].mT, out=dS).mul_(P)
        dQ[m, i].baddbmm_(dS, K[m], beta=0, alpha=scale)
        dK[m].baddbmm_(dS.mT, Q[m, i], beta=begun)
        d_rows[m, i] = dS.unflatten(2, grid).sum(3)
        d_columns[m, i] = dS.unflatten(2, grid).sum(2)
    found = zip((dQ, dK, dV, d_rows, d_columns), (q, k, v, rows, columns), strict=True)
    return tuple(d.view(x.shape).to(x.dtype) for d, x in found)  # type: ignore[return-value]


def _pieces(Q: Tensor, buffers: int) -> Iterator[tuple[slice, slice, list[Tensor]]]:
    """Yield the maps and queries of each piece, and reused memory of (maps, queries, N)."""
    maps, length, _ = Q.shape
    together, queries = max(1, PIECE // length**2), max(1, min(length, PIECE // length))
    memory = Q.new_empty(buffers, min(maps, together) * queries * length)
    for first in range(0, maps, together):
        for begin in range(0, length, queries):
            m, i = slice(first, first + together), slice(begin, begin + queries)
            shape = len(Q[m]), len(Q[0, i]), length
            yield m, i, [part[: shape[0] * shape[1] * length].view(shape) for part in memory]


def _scores(S: Tensor, Q: Tensor, K: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Write S = Q K^T + rows + columns into the memory of S."""
    torch.bmm(Q, K.mT, out=S)
    S.unflatten(2, (rows.shape[2], -1)).add_(rows[..., None]).add_(columns[:, :, None])
    return S


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _with(x: Tensor, channel: Tensor | float, scale: float = 1.0) -> Tensor:
    """Append a channel (B, heads, N) to scale x (B, heads, N, c): (maps, N, c + 1 or more)."""
    width = x.shape[3]
    x = _precise(x)
    wide = x.new_zeros(*x.shape[:3], width + 1 + -(width + 1) % EVEN)
    torch.mul(x, scale, out=wide[..., :width])
    wide[..., width] = channel
    return wide.flatten(0, 1)
