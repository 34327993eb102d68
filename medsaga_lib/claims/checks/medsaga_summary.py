"""Checks of the summary of MedSAGa, most of them against the paper."""

from itertools import pairwise

import torch
from torch import nn

from medsaga_lib.claims.arithmetic import percent_less, rank_of
from medsaga_lib.claims.claim import Claim, Found, check, reproduced_if
from medsaga_lib.claims.networks import (
    counted,
    of_model,
    parameters,
    recipe_of,
    sam_without_memory,
)
from medsaga_lib.claims.tables import figure, printed, table, text_of
from medsaga_lib.optim.galore import GaLoreAdamW, GaLoreConfig, param_groups, treatment
from medsaga_lib.optim.schedule import warmup_polynomial
from medsaga_lib.optim.subspace import exact_basis


def _here(row: str) -> float:
    return figure("medsaga_summary", row)


def _smallest() -> dict[str, int]:
    """Return the smallest setting of each data set in Table 1."""
    rows = printed("medsaga_table1")
    return rows["images"].astype(int).groupby(rows["data_set"]).min().to_dict()


@check
def summary_66(claim: Claim) -> Found:
    places = ("Quick Facts", "Executive Summary", "Key Results")
    here = {text_of("medsaga_summary", f"{place} memory efficiency") for place in places}
    paper = text_of("medsaga_text", "Abstract memory efficiency")
    return reproduced_if(here == {paper}, f"{paper} %", "three places and the paper's abstract")


@check
def summary_66_baselines(claim: Claim) -> Found:
    dae = figure("medsaga_text", "4.3 memory below DAE-Former")
    needed = 2 * _here("Key Results memory efficiency") - dae
    samed = of_model("samed").sum
    possible = percent_less(of_model("medsaga").weights, samed)
    reason = (
        f"a mean over these two asks {needed:.0f} % for SAMed in float32; the document says like, "
        "and the paper names none"
    )
    measured = f"at most {possible:.1f} % for SAMed"
    return Found(measured, "reproduced" if possible >= needed else "unspecified", reason)


@check
def summary_dice_range(claim: Claim) -> Found:
    dice = table("medsaga_table1")["medsaga_dice"]
    low, high = _here("Key Results lowest Dice"), _here("Key Results highest Dice")
    inside = dice.between(low - claim.tolerance, high + claim.tolerance)
    reason = f"{inside.sum()} of {len(dice)} lie in the range, none of ISLES or AMOS"
    return reproduced_if(inside.all(), f"{dice.min()} to {dice.max()}", reason)


@check
def summary_50_500(claim: Claim) -> Found:
    smallest = _smallest()
    ends = min(smallest.values()), max(smallest.values())
    there = tuple(_here(f"Executive Summary fewest images {end}") for end in ("from", "to"))
    measured = ", ".join(f"{name} {count}" for name, count in smallest.items())
    return reproduced_if(ends == there, f"{ends[0]} to {ends[1]}", measured)


@check
def summary_50_7000(claim: Claim) -> Found:
    images = printed("medsaga_table1")["images"].astype(int)
    ends = images.min(), images.max()
    there = tuple(_here(f"Method Summary images {end}") for end in ("from", "to"))
    return reproduced_if(ends == there, f"{ends[0]} to {ends[1]}", "the rows of Table 1")


@check
def summary_four_sets(claim: Claim) -> Found:
    sets = printed("medsaga_table1")["data_set"].unique()
    return reproduced_if(len(sets) == claim.value, f"{len(sets)}", ", ".join(sets))


@check
def summary_references(claim: Claim) -> Found:
    paper = figure("medsaga_text", "References references")
    return reproduced_if(paper == claim.value, f"{paper:.0f}", "the paper's numbered list")


@check
def summary_t_unspecified(claim: Claim) -> Found:
    there = text_of("medsaga_text", "4.2 GaLore plane change rate")
    reason = "section 4.2 gives it; the rank and the regularizer are indeed missing"
    return reproduced_if(there == "", f"T = {there}", reason)


@check
def summary_q_k_v_o(claim: Claim) -> Found:
    encoder = sam_without_memory("vit_b", 512).image_encoder
    config = recipe_of("medsaga").image_encoder.config(encoder)
    ends = ("attn.qkv.weight", "attn.proj.weight")
    how = [entry.how for entry in treatment(encoder, config) if entry.name.endswith(ends)]
    projected = how.count("projected")
    return reproduced_if(projected == len(how) == 24, f"{projected} of 24", "12 blocks of ViT-B")


@check
def summary_competitive(claim: Claim) -> Found:
    dice = table("medsaga_table1")["medsaga_dice"]
    low = int((dice < 0.4).sum())
    reason = "no number says what is competitive"
    return Found(f"{low} of {len(dice)} below 0.4", "not comparable", reason)


@check
def summary_encoder_most(claim: Claim) -> Found:
    sam = sam_without_memory("vit_b")
    share = 100 * parameters(sam.image_encoder) / parameters(sam)
    measured = f"{share:.2f} %"
    reason = f"{parameters(sam.image_encoder):,} of {parameters(sam):,}"
    return reproduced_if(share >= claim.tolerance, measured, reason)


@check
def summary_light_parts(claim: Claim) -> Found:
    sam = sam_without_memory("vit_b")
    light = parameters(sam.mask_decoder) + parameters(sam.prompt_encoder)
    share = 100 * light / parameters(sam)
    reason = "weights, gradients and two moments are 16 bytes for each parameter everywhere"
    return reproduced_if(share <= claim.tolerance, f"{share:.1f} %", reason)


@check
def summary_full_rank_weights(claim: Claim) -> Found:
    random = torch.Generator().manual_seed(0)
    layer = nn.Linear(24, 24, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(24, 24, generator=random))
    optimizer = GaLoreAdamW(param_groups(layer, GaLoreConfig(rank=2), lr=0.01, weight_decay=0))
    for _ in range(5):
        layer.weight.grad = torch.randn(24, 24, generator=random)
        optimizer.step()
    rank = rank_of(layer.weight.detach().numpy())
    return reproduced_if(rank == 24, f"rank {rank} of 24", "5 updates of rank 2")


@check
def summary_breaks_down(claim: Claim) -> Found:
    noise = torch.randn(768, 768, generator=torch.Generator().manual_seed(0))
    kept = float((exact_basis(noise, 64)[1].norm() / noise.norm()) ** 2)
    reason = "a gradient without structure; r = 64 of 768, the best subspace"
    return reproduced_if(kept < claim.tolerance, f"{100 * kept:.0f} % of the energy", reason)


@check
def summary_galore_lora(claim: Claim) -> Found:
    ours, samed = (100 * counted(n).trainable / counted(n).total for n in ("medsaga", "samed"))
    return reproduced_if(ours == 100 > samed, f"{ours:.0f} % and {samed:.1f} %", "trained shares")


@check
def summary_warmup(claim: Claim) -> Found:
    recipe = recipe_of("medsaga")
    rates = [warmup_polynomial(i, recipe.lr, recipe.warmup, 14_880) for i in range(recipe.warmup)]
    rising = all(a < b for a, b in pairwise(rates))
    return reproduced_if(rising, f"{rates[0]:.5f} to {rates[-1]:.3f}", f"{recipe.warmup} steps")
