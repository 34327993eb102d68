"""Numbers of the papers that need no training: computed again, and reproduced or contradicted.

The tests of the recipes hold the numbers of parameters that a recipe reproduces. Here are sizes and
operations that the papers call something else than what they are, and the papers' tables, typed
from MedSAGa (arXiv 2407.15042) and from LiteMedSAM with Low-Rank Adaptation.
"""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from medsaga_lib.memory.plan import Plan, count, predict_ledger
from medsaga_lib.models.sam import build_sam
from medsaga_lib.recipes import get_recipe

MIB = 2**20


@pytest.fixture(scope="module")
def sam_b() -> int:
    """The number of parameters of SAM with ViT-B."""
    return count(get_recipe("sam_zero_shot"), "vit_b", 1024, 8).total


def table(name: str) -> pd.DataFrame:
    """A table of a paper."""
    return pd.read_csv(Path(__file__).with_name(f"{name}.csv"))


@pytest.mark.parametrize("name", ["medsaga_table1", "medsaga_table3"])
def test_medsagas_tables_are_complete(name):
    """This checks that the tables were typed without gaps."""
    rows = table(name)
    assert not rows.duplicated(["data", "images"]).any()
    assert not rows.isna().any(axis=None)
    assert rows.filter(like="_dice").stack().between(0, 1).all()
    assert (rows.filter(like="_hd95") > 1).all(axis=None)


def test_litemedsams_averages_are_the_means_of_its_rows():
    """Every number is rounded to 0.01, so a mean of rounded rows may differ by 0.01."""
    rows = table("litemedsam_table3").set_index("target")
    means = rows.drop("average").mean()
    assert len(rows) == 10
    assert (means - rows.loc["average"]).abs().max() <= 0.01


def test_litemedsam_has_a_hundredth_of_the_printed_parameters():
    """ "985.22M"."""
    counted = count(get_recipe("lite_medsam_lora"), "lite_medsam", 256, 1)
    assert (counted.total, counted.trainable) == (9_895_236, 4_168_496)
    assert 99 < 985.22e6 / counted.total < 100


def test_litemedsams_operations_are_neither_of_the_two_usual_counts():
    """ "59.32G", for one picture and one box. Multiplications alone are half of all operations."""
    with torch.device("meta"):
        sam = build_sam("lite_medsam").eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            embedding = sam.image_encoder(torch.zeros(1, 3, 256, 256))
            asked = sam.prompt_encoder(None, torch.zeros(1, 4), None)
            sam.mask_decoder(embedding, sam.prompt_encoder.get_dense_pe(), *asked, False)
    both = counter.get_total_flops()
    assert both == pytest.approx(78.6e9, rel=0.01)
    for counted in (both, both / 2):
        assert abs(counted / 59.32e9 - 1) > 0.3


def test_sameds_millions_are_mebibytes(sam_b):
    """ "5.25% (18.81M) of the original model size (358M)", quoted by MedSAGa as SAM's own."""
    trained = count(get_recipe("samed"), "vit_b", 512, 8).trainable
    assert trained == 4_913_621
    assert 4 * trained / MIB == pytest.approx(18.81, rel=0.005)
    whole = 4 * sam_b / MIB
    assert whole == pytest.approx(358, rel=0.002)
    assert 100 * trained / sam_b == pytest.approx(5.25, abs=0.02)


def test_cheap_lunchs_millions_are_probably_mebibytes_of_samed_s():
    """ "only 6.32M trainable parameters"; SAMed_s's checkpoint has 6.318 MiB, 1 % of them a zip."""
    trained = count(get_recipe("samed_s"), "vit_b", 512, 8).trainable
    assert trained == 1_645_909
    assert 4 * trained / MIB == pytest.approx(6.318, rel=0.01)


@pytest.mark.parametrize(("size", "trained"), [(256, 444_672), (512, 1_034_496), (1024, 3_393_792)])
def test_s_sams_share_is_what_it_says_at_256_pixels_only(size, trained, sam_b):
    """ "parameters equal to 0.4% of SAM's"."""
    assert count(get_recipe("s_sam"), "vit_b", size, 8).trainable == trained
    assert (0.4 < 100 * trained / sam_b < 0.5) == (size == 256)


def test_svdsams_factors_take_432_mebibytes_beside_the_weights():
    """U, S and V^T of the layers that S-SAM turns, in float32, as its code keeps them."""
    with torch.device("meta"):
        encoder = build_sam("vit_b", 256).image_encoder
    turned = ("attn.qkv", "attn.proj", "mlp.lin1", "mlp.lin2", "neck.0", "neck.2")
    shapes = [
        (len(module.weight), module.weight[0].numel())
        for name, module in encoder.named_modules()
        if name.endswith(turned)
    ]
    assert len(shapes) == 4 * 12 + 2
    factors = sum((m + 1 + n) * min(m, n) for m, n in shapes)
    assert 4 * factors / MIB == pytest.approx(432, rel=0.01)


@pytest.mark.no_cover  # measuring the coverage doubles its time
def test_medsagas_model_memory_is_not_61_percent_below_dae_formers():
    """ "Model memories ... depend only on the model parameters": weights, gradients and states."""

    def of_the_model(name, backbone, size):
        plan = Plan(backbone, 12, size, 8)
        ledger = predict_ledger(get_recipe(name), plan)
        return ledger.weights + ledger.gradients + ledger.states + ledger.projectors

    medsaga, dae_former = (
        of_the_model("medsaga", "vit_b", 512),
        of_the_model("dae_former", "none", 224),
    )
    published = dae_former * 48_073_065 / 29_690_201  # with the weights that its code never uses
    assert medsaga > 1.3 * published
    assert medsaga > of_the_model("samed", "vit_b", 512)
