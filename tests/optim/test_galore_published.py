"""The reimplementation of galore-torch 1.0 against the package."""

import warnings

import pytest
import torch
from torch import nn

from medsaga_lib.optim.galore import GaLoreAdamW
from medsaga_lib.optim.galore_published import PublishedGaLoreAdamW

SHAPES = {"tall": (48, 20), "wide": (20, 48), "square": (24, 24), "bias": (24,)}


def package():
    """Optimizer of galore-torch 1.0, which warns of a deprecated base class at import."""
    pytest.importorskip("galore_torch", reason="galore-torch is for comparison only")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from galore_torch import GaLoreAdamW as Published
    return Published


def tensors():
    g = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=g)) for name, shape in SHAPES.items()}


def set_gradients(weights, step, feedback=1.0):
    """Set gradients that depend on the weights, so that a difference grows."""
    for i, W in enumerate(weights.values()):
        g = torch.Generator().manual_seed(100 * step + i)
        W.grad = feedback * W.detach() + torch.randn(W.shape, generator=g)


# at full rank the last singular vectors are ill-conditioned, and feedback would amplify rounding
@pytest.mark.parametrize(("rank", "feedback"), [(6, 1.0), (24, 0.0)])
@pytest.mark.parametrize("weight_decay", [0, 0.1])
def test_follows_the_package_across_refreshes(rank, feedback, weight_decay, target):
    Published = package()
    ours, theirs = tensors(), tensors()
    start = torch.cat([W.detach().flatten() for W in ours.values()])

    def groups(weights, **names):
        *matrices, bias = weights.values()
        return [{"params": [bias]}, {"params": matrices, "rank": rank, "scale": 0.25, **names}]

    options = {"lr": 1e-2, "weight_decay": weight_decay}
    a = PublishedGaLoreAdamW(groups(ours, refresh=7), **options)
    b = Published(
        groups(theirs, update_proj_gap=7, proj_type="std"), no_deprecation_warning=True, **options
    )
    for step in range(40):
        for weights, optimizer in ((ours, a), (theirs, b)):
            set_gradients(weights, step, feedback)
            optimizer.step()
    x = torch.cat([W.detach().flatten() for W in ours.values()])
    y = torch.cat([W.detach().flatten() for W in theirs.values()])
    apart = (x - y).norm() / (y - start).norm()
    target(2, "share of the way that differs from galore-torch, 40 steps", "<= 1e-5", apart)
    assert apart <= 1e-5


def test_states_hold_what_they_show():
    """No state keeps more memory than its size; the package's basis keeps a factor of the SVD."""
    weights = tensors()
    matrices = list(weights.values())[:-1]
    ours = PublishedGaLoreAdamW([{"params": matrices, "rank": 6}])
    set_gradients(weights, 0)
    ours.step()
    for state in ours.state.values():
        assert all(v.untyped_storage().nbytes() == v.numel() * 4 for v in state.values())


def test_full_rank_in_singular_coordinates_is_not_adamw():
    """Adam is not invariant to rotation, so GaLoreAdamW does not project at full rank."""
    results = []
    for kind, options in (
        (PublishedGaLoreAdamW, {"rank": 24, "scale": 1.0}),
        (GaLoreAdamW, {"rank": 24, "scale": 1.0}),
        (torch.optim.AdamW, {"fused": True}),
    ):
        W = tensors()["square"]
        optimizer = kind([{"params": [W], **options}], lr=1e-2, weight_decay=0)
        for step in range(10):
            set_gradients({"square": W}, step)
            optimizer.step()
        results.append(W.detach())
    published, ours, adamw = results
    assert torch.equal(ours, adamw)
    assert (published - adamw).norm() > 0.3 * (adamw - tensors()["square"]).norm()
