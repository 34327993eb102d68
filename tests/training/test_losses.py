"""The losses against SAMed's code (oracle), MONAI, torchvision and finite differences."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss
from torch.nn import functional

from medsaga_lib.training.losses import (
    FOCAL_ALPHA,
    FOCAL_GAMMA,
    SMOOTH,
    cross_entropy_dice,
    dice_loss,
    focal_dice,
)

ORACLES = Path(__file__).parents[1] / "oracles"
CASES = json.loads((ORACLES / "dice_ce_loss.json").read_text())["cases"]
_spec = importlib.util.spec_from_file_location("fill", ORACLES / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)


def oracle_inputs(case):
    """Logits (float32) and labels of an oracle case; `kind` is a formula such as 8*uniform-4."""
    scale, offset = {"8*uniform-4": (8, 4), "20*uniform-10": (20, 10)}[case["logits"]["kind"]]
    uniform = torch.from_numpy(fill.uniform(case["logits"]["tag"], case["logits"]["shape"]))
    logits = scale * uniform - offset
    if isinstance(case["labels"], str):  # "all zero"
        return logits, torch.zeros_like(logits[:, 0], dtype=torch.int64)
    largest = int(case["labels"]["kind"].split("=")[1])
    labels = fill.integers(case["labels"]["tag"], case["labels"]["shape"], largest)
    return logits, torch.from_numpy(labels)


@pytest.mark.parametrize("name", CASES)
def test_equals_samed_in_float32(name):
    case = CASES[name]
    loss = cross_entropy_dice(*oracle_inputs(case))
    expected = (case["combined_02_08"], case["ce"], case["dice"])
    assert [part.item() for part in loss] == pytest.approx(expected, abs=1e-5)
    half = cross_entropy_dice(*oracle_inputs(case), ce_weight=0.5, dice_weight=0.5)
    assert half.total.item() == pytest.approx(case["transunet_half_half"], abs=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_equals_samed_in_float64_with_its_gradient(name):
    case = CASES[name]
    logits, labels = oracle_inputs(case)
    logits = logits.double().requires_grad_()
    loss = cross_entropy_dice(logits, labels)
    expected = [case["float64"][key] for key in ("combined", "ce", "dice")]
    assert [part.item() for part in loss] == pytest.approx(expected, abs=1e-10, rel=1e-11)

    loss.total.backward()
    stored = case["grad_of_combined_wrt_logits"]
    assert fill.compare(stored, logits.grad.numpy(), rtol=1e-8)
    indices = fill.sample_indices(logits.numel())
    difference = logits.grad.flatten()[indices] - torch.tensor(stored["sample"]).double()
    assert difference.abs().max() < 1e-10


def test_gradient_equals_finite_differences():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(3, (2, 4, 5))
    assert torch.autograd.gradcheck(lambda x: cross_entropy_dice(x, labels).total, logits)


def with_gradient(function, logits):
    """Value of a scalar function and its gradient."""
    logits = logits.clone().requires_grad_()
    value = function(logits)
    return value.detach(), *torch.autograd.grad(value, logits)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(2, 5), st.integers(0, 2**31))
def test_dice_equals_monai_with_its_gradient(batch, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 6 * torch.randn(batch, classes, 5, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (batch, 5, 7), generator=generator)
    peer = DiceLoss(softmax=True, squared_pred=True, batch=True, smooth_nr=SMOOTH, smooth_dr=SMOOTH)
    one_hot = functional.one_hot(labels, classes).movedim(-1, 1).double()
    ours = with_gradient(lambda x: dice_loss(x, labels), logits)
    torch.testing.assert_close(ours, with_gradient(lambda x: peer(x, one_hot), logits))


def test_a_certain_answer_costs_nothing_and_its_opposite_everything():
    labels = torch.randint(2, (2, 16, 16), generator=torch.Generator().manual_seed(1))
    sure = 60.0 * functional.one_hot(labels, 2).movedim(-1, 1)
    assert cross_entropy_dice(sure, labels).total.item() == pytest.approx(0, abs=1e-6)
    wrong = cross_entropy_dice(sure, 1 - labels)
    assert wrong.dice.item() == pytest.approx(1, abs=1e-6)
    assert wrong.cross_entropy.item() == pytest.approx(60, abs=1e-4)


def test_order_of_the_batch_and_of_the_pixels_does_not_matter():
    torch.manual_seed(2)
    logits, labels = torch.randn(4, 3, 8, 8).double(), torch.randint(3, (4, 8, 8))
    turned = cross_entropy_dice(logits.flip(0).rot90(1, (2, 3)), labels.flip(0).rot90(1, (1, 2)))
    torch.testing.assert_close(turned.total, cross_entropy_dice(logits, labels).total)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_do_not_overflow(dtype):
    # 12 x 256 x 256 = 786,432 pixels; the largest float16 is 65,504.
    logits = torch.zeros(12, 2, 256, 256, dtype=dtype)
    labels = torch.zeros(12, 256, 256, dtype=torch.int64)
    total = cross_entropy_dice(logits, labels).total
    exact = cross_entropy_dice(logits.double(), labels).total
    assert total.item() == pytest.approx(exact.item(), rel=1e-5)


def test_the_logged_parts_hold_no_graph():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    loss = cross_entropy_dice(logits, torch.zeros(1, 4, 4, dtype=torch.int64))
    assert loss.total.requires_grad
    assert not loss.cross_entropy.requires_grad
    assert not loss.dice.requires_grad


def test_labels_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 2, 4, 4\) and \(1, 8, 8\)"):
        cross_entropy_dice(torch.zeros(1, 2, 4, 4), torch.zeros(1, 8, 8, dtype=torch.int64))


@pytest.mark.parametrize("labels_there", [True, False])
def test_focal_dice_equals_torchvisions_focal_and_monais_dice(labels_there):
    """Each label has its own mask; without `labels_there`, no pixel has the last 2 labels."""
    from torchvision.ops import sigmoid_focal_loss

    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(2, 4, 9, 7, generator=generator)
    labels = torch.randint(0, 4 if labels_there else 2, (2, 9, 7), generator=generator)
    got = focal_dice(logits, labels, 0.3, 0.7)
    truth = functional.one_hot(labels, 4).movedim(-1, 1)[:, 1:].float()

    def peer(x):
        focal = sigmoid_focal_loss(x[:, 1:], truth, FOCAL_ALPHA, FOCAL_GAMMA, "mean")
        return 0.3 * focal + 0.7 * DiceLoss(sigmoid=True, smooth_nr=1, smooth_dr=1)(x[:, 1:], truth)

    ours = with_gradient(lambda x: focal_dice(x, labels, 0.3, 0.7).total, logits)
    torch.testing.assert_close(ours, with_gradient(peer, logits))
    focal = sigmoid_focal_loss(logits[:, 1:], truth, FOCAL_ALPHA, FOCAL_GAMMA, "mean")
    dice = DiceLoss(sigmoid=True, smooth_nr=1, smooth_dr=1)(logits[:, 1:], truth)
    assert got.cross_entropy.item() == pytest.approx(focal.item(), rel=1e-5)
    assert got.dice.item() == pytest.approx(dice.item(), rel=1e-5)
    # the channel of the background is ignored
    logits[:, 0] = 100
    assert focal_dice(logits, labels, 0.3, 0.7).total == got.total
