"""TinyViT where nothing is differentiated, against its layers one by one, as in training."""

import pytest
import torch
from torch import nn

from medsaga_lib.adapt.bottleneck import Bottleneck
from medsaga_lib.adapt.lora import LoRA
from medsaga_lib.adapt.svd import SVDAffine
from medsaga_lib.models import evaluated
from medsaga_lib.models.tinyvit import Attention, BatchNorm, ConvNorm, MBConv, Merge, TinyViT


def filled(module):
    """The module in evaluation mode, with weights and statistics that are not the initial ones."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, BatchNorm):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
        if isinstance(part, BatchNorm | nn.LayerNorm):
            nn.init.normal_(part.weight, 1, 0.1)
            nn.init.normal_(part.bias, std=0.1)
        if isinstance(part, Attention):
            nn.init.normal_(part.attention_biases)
    return module.eval()


def both(module, x):
    """The outputs with and without differentiation; only the former runs layer by layer."""
    eager = module(x.requires_grad_())
    assert eager.requires_grad
    with torch.no_grad():
        return eager.detach(), module(x)


@pytest.mark.parametrize("shrinks", [False, True])
@pytest.mark.parametrize("size", [64, pytest.param(128, marks=pytest.mark.slow)])
def test_an_encoder_gives_the_same_embedding_in_both_precisions(shrinks, size):
    encoder, image = filled(TinyViT(size, shrinks)), torch.rand(1, 3, size, size)
    reference, exact = both(encoder.double(), image.double())
    torch.testing.assert_close(exact, reference, atol=1e-10, rtol=0)
    with torch.no_grad():
        single = encoder.float()(image)
    torch.testing.assert_close(single.double(), reference, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_whole_input_of_litemedsam_has_the_same_embedding():
    encoder, image = filled(TinyViT(256, shrinks=False)), torch.rand(1, 3, 256, 256)
    reference, found = both(encoder, image)
    torch.testing.assert_close(found, reference, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(36, 100), (52, 28), (4, 4)])
def test_sides_that_windows_do_not_divide(size):
    encoder = filled(TinyViT(0, shrinks=False)).double()
    reference, found = both(encoder, torch.rand(2, 3, *size, dtype=torch.float64))
    assert reference.shape == (2, 256, size[0] // 4, size[1] // 4)
    torch.testing.assert_close(found, reference, atol=1e-10, rtol=0)


@pytest.mark.parametrize("numbers", [1, 200, 1_000, 10**9])
@pytest.mark.parametrize("height", [1, 2, 5, 12, 13])
@pytest.mark.parametrize("layer", [MBConv(4), Merge(4, 8, 6, stride=1), Merge(4, 8, 6, stride=2)])
def test_rows_computed_a_few_at_a_time_are_those_of_the_whole_image(
    layer, height, numbers, monkeypatch
):
    monkeypatch.setattr(evaluated, "AT_ONCE", numbers)
    reference, found = both(filled(layer).double(), torch.randn(2, 4, height, 7).double())
    torch.testing.assert_close(found, reference)


@pytest.mark.parametrize(
    "adaptation", [LoRA(rank=2, targets=("q", "v", "lin1")), SVDAffine(), Bottleneck()]
)
def test_an_adapted_encoder_gives_the_same_embedding(adaptation):
    encoder, image = filled(TinyViT(64, shrinks=True)), torch.rand(1, 3, 64, 64)
    adaptation.attach(encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    reference, found = both(encoder.double(), image.double())
    torch.testing.assert_close(found, reference, atol=1e-10, rtol=0)


@torch.no_grad()
def test_changed_weights_count_at_once():
    norm = filled(ConvNorm(3, 4, 3))
    x = torch.rand(1, 3, 5, 5)
    for change in (norm.c.weight, norm.bn.bias, norm.bn.running_var):
        before = norm(x)
        change.data += 1
        assert not norm(x).allclose(before)
        torch.testing.assert_close(norm(x), norm.bn(norm.c(x)))


@torch.no_grad()
def test_a_norm_that_learns_uses_the_batch_even_if_nothing_is_differentiated():
    block, x = MBConv(4).train(), torch.randn(2, 4, 6, 6)
    statistics = block.conv1.bn.running_mean.clone()
    by_batch = block(x)
    assert not block.conv1.bn.running_mean.equal(statistics)
    assert not by_batch.allclose(block.eval()(x), atol=1e-2)


def test_frozen_layers_in_front_of_trained_ones_give_the_same_gradients():
    front, behind = filled(MBConv(4)).requires_grad_(False), filled(MBConv(4))
    x = torch.randn(1, 4, 6, 6)
    assert evaluated.is_evaluated(front, x)
    assert not evaluated.is_evaluated(behind, x)
    behind(front(x)).sum().backward()
    found = behind.conv1.c.weight.grad.clone()
    behind.zero_grad()
    behind(front(x.requires_grad_())).sum().backward()  # layer by layer
    torch.testing.assert_close(found, behind.conv1.c.weight.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("numbers", [1, 20, 70, 10**9])
def test_tokens_computed_a_few_at_a_time_are_those_of_all_tokens(numbers, monkeypatch):
    monkeypatch.setattr(evaluated, "AT_ONCE", numbers)
    tokens, weight = torch.randn(7, 3), torch.randn(2, 3)
    found = evaluated.in_pieces(lambda some: some @ weight.T, tokens, hidden=10)
    torch.testing.assert_close(found, tokens @ weight.T)
