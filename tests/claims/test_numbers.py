"""The numbers that the checks rest on, against counts made with the papers' own code."""

from collections import Counter

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from medsaga_lib.claims.checks.torchao import vit_h
from medsaga_lib.claims.networks import (
    MIB,
    counted,
    ledger_of,
    of_model,
    parameters,
    sam_without_memory,
)
from medsaga_lib.claims.tables import table


@pytest.mark.parametrize("name", ["medsaga_table1", "medsaga_table2", "litemedsam_table3"])
def test_tables_have_no_gaps(name):
    assert not table(name).isna().any(axis=None)


def test_sam_has_the_parameters_of_its_checkpoint():
    assert parameters(sam_without_memory("vit_b")) == 93_735_472
    assert parameters(sam_without_memory("lite_medsam")) == 9_791_300


def test_vit_h_has_the_tensors_of_timms():
    import timm

    with torch.device("meta"):
        model = timm.create_model("vit_huge_patch14_224", num_classes=45)
    assert Counter(vit_h()) == Counter(tuple(p.squeeze().shape) for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "backbone", "size", "trained"),
    [
        ("samed", "vit_b", 512, 4_913_621),
        ("samed_s", "vit_b", 512, 1_645_909),
        ("s_sam", "vit_b", 256, 444_672),
        ("s_sam", "vit_b", 512, 1_034_496),
        ("s_sam", "vit_b", 1024, 3_393_792),
        ("lite_medsam_lora", "lite_medsam", 256, 4_168_496),
    ],
)
def test_methods_train_as_many_parameters_as_their_code(name, backbone, size, trained):
    assert counted(name, backbone, size, 8).trainable == trained


def test_svdsams_factors_take_432_mebibytes_in_the_blocks():
    """U, S and V^T beside the weights of the blocks, in float32, as S-SAM's code keeps them."""
    ends = ("attn.qkv", "attn.proj", "mlp.lin1", "mlp.lin2")
    encoder = sam_without_memory("vit_b", 256).image_encoder
    shapes = [m.weight.shape for n, m in encoder.named_modules() if n.endswith(ends)]
    assert 4 * sum((m + 1 + n) * min(m, n) for m, n in shapes) / MIB == pytest.approx(432, abs=1)


def test_the_ledger_without_activations_is_that_of_the_step():
    model, step = of_model("samed", 64, 3, "pocket"), ledger_of("samed", 2, 64, 3, "pocket")
    for part in ("weights", "gradients", "states", "projectors"):
        assert getattr(model, part) == getattr(step, part)
    assert model.activations == 0 < step.activations


def test_operations_of_a_product_are_counted_twice():
    """The counter counts multiplications and additions, so multiply-adds are half of it."""
    with FlopCounterMode(display=False) as counter:
        torch.empty(3, 5, device="meta") @ torch.empty(5, 7, device="meta")
    assert counter.get_total_flops() == 2 * 3 * 5 * 7
