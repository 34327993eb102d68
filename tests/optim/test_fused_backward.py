"""Per-layer updates against plain ones, and the uses of gradients that they refuse."""

import copy
import weakref

import pytest
import torch
from torch import nn

from medsaga_lib.errors import UserError
from medsaga_lib.optim.fused_backward import FusedGaLoreAdamW
from medsaga_lib.optim.galore import (
    GaLoreAdamW,
    GaLoreConfig,
    NonFiniteGradientError,
    param_groups,
)


class Net(nn.Module):
    """Convolution, norm and 2 linear layers; norm and linear layers are used twice per pass."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 12, 4, stride=4)
        self.norm = nn.LayerNorm(12)
        self.wide = nn.Linear(12, 40)
        self.back = nn.Linear(40, 12)
        self.unused = nn.Linear(8, 8)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        for _ in range(2):
            x = x + self.back(torch.relu(self.wide(self.norm(x))))
        return x.square().mean()


def groups(net):
    return param_groups(net, GaLoreConfig(4, refresh=3), 1e-2, 0.1)


def batches(n):
    return torch.randn(n, 2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def train(net, optimizer, xs, dtype=torch.float32, start=0):
    for step, x in enumerate(xs, start=start):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * 0.9**step
        net(x.to(dtype)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.cat([W.detach().flatten() for W in net.parameters()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_plain_updates_bit_for_bit(dtype, target):
    plain, fused = Net().to(dtype), Net().to(dtype)
    ours = FusedGaLoreAdamW(groups(fused))
    a = train(plain, GaLoreAdamW(groups(plain)), batches(10), dtype)
    b = train(fused, ours, batches(10), dtype)
    target(8, "per-layer updates: largest difference from plain ones", "0", (a - b).abs().max())
    assert torch.equal(a, b)
    assert not torch.equal(b, torch.cat([W.flatten() for W in Net().to(dtype).parameters()]))


def test_resume():
    whole, first = Net(), Net()
    expected = train(whole, GaLoreAdamW(groups(whole)), batches(7))

    optimizer = FusedGaLoreAdamW(groups(first))
    train(first, optimizer, batches(7)[:4])
    second = Net()
    second.load_state_dict(first.state_dict())
    resumed = FusedGaLoreAdamW(groups(second))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(train(second, resumed, batches(7)[4:], start=4), expected)


def test_at_most_one_gradient_is_alive():
    net = Net()
    gradients = []

    def watch(W):
        assert all(gradient() is None for gradient in gradients)  # previous gradients are freed
        gradients.append(weakref.ref(W.grad))

    for W in net.parameters():
        W.register_post_accumulate_grad_hook(watch)  # runs before the optimizer's own hook
    FusedGaLoreAdamW(groups(net))
    net(batches(1)[0]).backward()
    assert len(gradients) == 8
    assert all(gradient() is None for gradient in gradients)
    assert net.stem.weight.grad.data_ptr() == 0  # the placeholder has no memory


def test_accumulation_is_refused():
    net = Net()
    FusedGaLoreAdamW(groups(net))
    x, y = batches(2)
    net(x).backward()
    with pytest.raises(UserError, match="accumulation"):
        net(y).backward()


def test_clipping_is_refused():
    net = Net()
    FusedGaLoreAdamW(groups(net))
    net(batches(1)[0]).backward()
    with pytest.raises(UserError, match="clipping"):
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    with pytest.raises(UserError, match="clipping"):
        torch.nn.utils.clip_grad_value_(net.parameters(), 1.0)


def test_gradient_scaler_is_refused():
    net = Net()
    optimizer = FusedGaLoreAdamW(groups(net))
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(net(batches(1)[0])).backward()
    with pytest.raises(UserError, match="scalers"):
        scaler.step(optimizer)


def test_several_processes_are_refused(monkeypatch):
    net = Net()
    FusedGaLoreAdamW(groups(net))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(UserError, match="diverge"):
        net(batches(1)[0]).backward()


def test_a_step_cannot_be_skipped():
    with pytest.raises(UserError, match="skip"):
        FusedGaLoreAdamW(groups(Net()), nonfinite="skip")


def test_nonfinite_gradients_raise_out_of_backward():
    net = Net()
    FusedGaLoreAdamW(groups(net))
    with pytest.raises(NonFiniteGradientError, match="gradient of"):
        (net(batches(1)[0]) * float("inf")).backward()
