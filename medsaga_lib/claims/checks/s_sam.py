"""Checks of S-SAM's abstract, reviews and rebuttal."""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from medsaga_lib.adapt.svd import SVDLayer
from medsaga_lib.claims.arithmetic import listed, percent_less, rank_of
from medsaga_lib.claims.claim import Claim, Found, check, reproduced_if
from medsaga_lib.claims.networks import (
    MIB,
    built,
    counted,
    ledger_of,
    of_model,
    parameters,
    recipe_of,
    sam_without_memory,
)
from medsaga_lib.claims.tables import cells, figure, text_of
from medsaga_lib.recipes.build import build_model, trainable

RANKS = (2, 4, 8, 16)  # rebuttal, R3 Q2-4
TURNED = ("attn.qkv", "attn.proj", "mlp.lin1", "mlp.lin2", "neck.0", "neck.2")  # released code
FLOAT = 4  # bytes


def _vit_b() -> int:
    return parameters(sam_without_memory("vit_b"))


def _share(claim: Claim, size: int) -> Found:
    trained = counted("s_sam", size=size).trainable
    share = 100 * trained / _vit_b()
    reason = f"{trained:,} of {_vit_b():,}; learnable positions grow with the image"
    return reproduced_if(abs(share - claim.value) <= claim.tolerance, f"{share:.3f} %", reason)


@check
def ssam_04_at_256(claim: Claim) -> Found:
    return _share(claim, 256)


@check
def ssam_04_at_1024(claim: Claim) -> Found:
    return _share(claim, 1024)


@check
def ssam_04_twice(claim: Claim) -> Found:
    both = [text_of("s_sam_text", f"{p} trained share of SAM") for p in ("Abstract", "Review 2")]
    return reproduced_if(both[0] == both[1], " and ".join(both), "equal in both places")


@cache
def _trained() -> dict[str, nn.Parameter]:
    """Return the trained tensors of S-SAM at 256 px by name, without memory."""
    with torch.device("meta"):
        return trainable(build_model(recipe_of("s_sam"), "vit_b", 256, 1, "random"))


def _numbers(*parts: str) -> int:
    """Return how many trained numbers are in tensors whose names have one of these parts."""
    return sum(p.numel() for name, p in _trained().items() if any(part in name for part in parts))


@check
def ssam_parts(claim: Claim) -> Found:
    parts = {
        "singular values": _numbers(".scale", ".shift"),
        "positions": _numbers("pos_embed"),
        "norms": _numbers(".norm"),
        "label network": _numbers("affine"),
    }
    total = _numbers("")
    measured = ", ".join(f"{name} {count:,}" for name, count in parts.items())
    share = 100 * parts["singular values"] / total
    reason = f"of {total:,}; the SVD's are {share:.0f} % of what trains"
    return reproduced_if(sum(parts.values()) == total, measured, reason)


@check
def ssam_positions(claim: Claim) -> Found:
    count = _numbers("pos_embed")
    return reproduced_if(count == 16 * 16 * 768, f"{count:,}", "16 x 16 x 768")


@check
def ssam_norms(claim: Claim) -> Found:
    count = sum(p.numel() for n, p in _trained().items() if "blocks" in n and ".norm" in n)
    return reproduced_if(count == 12 * 2 * 2 * 768, f"{count:,}", "12 blocks x 2 norms x 2 x 768")


@check
def ssam_text_layer(claim: Claim) -> Found:
    count = _numbers("affine")
    reason = "a linear layer from CLIP's 512 numbers and a batch normalisation"
    return reproduced_if(count == 512 * 256 + 256 + 2 * 256, f"{count:,}", reason)


@check
def ssam_decoder_untouched(claim: Claim) -> Found:
    count = _numbers("mask_decoder")
    reason = (
        f"LayerNorms, which the released code trains: {100 * count / _numbers(''):.1f} % of all"
    )
    return reproduced_if(count == 0, f"{count:,} trained", reason)


@check
def ssam_prompt_encoder_frozen(claim: Claim) -> Found:
    count = _numbers("prompt_encoder")
    return reproduced_if(count == 0, f"{count} trained", "names replace its prompts")


@cache
def _layers() -> list[tuple[int, int]]:
    """Return the shapes (D, K) of ViT-B's layers that S-SAM factors; kernels as D x inputs."""
    encoder = sam_without_memory("vit_b", 256).image_encoder
    weights = [m.weight for n, m in encoder.named_modules() if n.endswith(TURNED)]
    return [(len(W), W[0].numel()) for W in weights]


@check
def ssam_2min(claim: Claim) -> Found:
    formula = sum(2 * min(shape) for shape in _layers())
    count = _numbers(".scale", ".shift")
    reason = f"the formula over {len(_layers())} layers gives {formula:,}"
    return reproduced_if(count == formula, f"{count:,}", reason)


@check
def ssam_lora_formula(claim: Claim) -> Found:
    adapted = 12 * 2  # q and v of every block
    added = counted("samed").total - counted("medsaga").total
    formula = adapted * recipe_of("samed").image_encoder.rank * (768 + 768)
    return reproduced_if(added == formula, f"{added:,}", "SAMed: r = 4, 24 layers of 768 x 768")


@check
def ssam_2min_below_lora(claim: Claim) -> Found:
    fewer = all(2 * min(d, k) <= r * (d + k) for d, k in _layers() for r in (1, *RANKS))
    least = sum(d + k for d, k in _layers())
    reason = f"in every layer, as 2 min(D, K) <= D + K; r = 1 has {least:,}"
    return reproduced_if(fewer, f"{sum(2 * min(s) for s in _layers()):,}", reason)


@check
def ssam_fewer_than_adaptive(claim: Claim) -> Found:
    sizes = (256, 512, 1024)
    ours = [counted("s_sam", size=size).trainable for size in sizes]
    other = [counted("adaptive_sam", size=size).trainable for size in sizes]
    holds = all(a < b for a, b in zip(ours, other, strict=True))
    return reproduced_if(holds, f"{ours[0]:,}", f"AdaptiveSAM {other[0]:,} at 256 px")


@check
def ssam_fewer_than_lora(claim: Claim) -> Found:
    ours = counted("s_sam", size=256).trainable
    same, two = sum(4 * (d + k) for d, k in _layers()), 12 * 2 * 4 * (768 + 768)
    if ours < min(same, two):
        return Found(f"{ours:,}", "reproduced", f"LoRA alone {min(same, two):,} or more")
    reason = (
        f"LoRA r = 4 alone has {same:,} on the same layers and {two:,} on q and v; the baseline's "
        "layers and other trained parts are not described"
    )
    return Found(f"{ours:,}", "not comparable", reason)


@check
def ssam_fewer_than_samed(claim: Claim) -> Found:
    ours, samed = (counted(name, size=256).trainable for name in ("s_sam", "samed"))
    return reproduced_if(ours < samed, f"{ours:,}", f"SAMed {samed:,}, decoder included")


@check
def ssam_fewer_than_full(claim: Claim) -> Found:
    ours, dense = (counted(name, size=256).trainable for name in ("s_sam", "full"))
    share = 100 * ours / dense
    return reproduced_if(share <= claim.tolerance, f"{share:.2f} %", f"{ours:,} of {dense:,}")


@check
def ssam_r8_much_more(claim: Claim) -> Found:
    four, eight = (sum(r * (d + k) for d, k in _layers()) for r in (4, 8))
    return reproduced_if(eight == 2 * four, f"{eight:,}", f"r = 4 has {four:,} on the same layers")


@check
def ssam_minimal_parameters(claim: Claim) -> Found:
    added = _numbers(".scale", ".shift")
    share = 100 * added / _vit_b()
    return reproduced_if(share <= claim.tolerance, f"{share:.3f} %", f"{added:,} numbers")


@check
def ssam_factors(claim: Claim) -> Found:
    ours, plain = (of_model(name, 256, 1).weights for name in ("s_sam", "full"))
    more = 100 * (ours / plain - 1)
    if more <= claim.tolerance:
        return Found(f"{more:.1f} % more", "reproduced", "the factors replace the weights")
    reason = f"{ours / MIB:.0f} MiB instead of {plain / MIB:.0f}: the review counts what trains"
    return Found(f"{more:.0f} % more held", "not comparable", reason)


@check
def ssam_factors_beside(claim: Claim) -> Found:
    factors = FLOAT * sum((d + 1 + k) * min(d, k) for d, k in _layers())
    more = 100 * factors / (FLOAT * _vit_b())
    if more <= claim.tolerance:
        return Found(f"{more:.1f} % more", "reproduced", "U, S and V^T beside W")
    reason = f"U, S and V^T beside W are {factors / MIB:.0f} MiB: the review counts what trains"
    return Found(f"{more:.0f} % more held", "not comparable", reason)


def _of_tuning(name: str) -> float:
    entry = of_model(name, 256, 1)
    return (entry.gradients + entry.states) / MIB


@check
def ssam_states(claim: Claim) -> Found:
    ours, *others = (_of_tuning(name) for name in ("s_sam", "samed", "adaptive_sam"))
    reason = f"SAMed {others[0]:.0f}, AdaptiveSAM {others[1]:.0f} MiB"
    return reproduced_if(ours < min(others), f"{ours:.0f} MiB", reason)


def _of_a_step(name: str) -> float:
    return ledger_of(name, 32, 256, 1).sum / MIB


@check
def ssam_training_memory(claim: Claim) -> Found:
    ours, *others = (_of_a_step(name) for name in ("s_sam", "samed", "adaptive_sam"))
    measured = f"{ours:,.0f} MiB"
    reason = f"SAMed {others[0]:,.0f}, AdaptiveSAM {others[1]:,.0f} MiB"
    if ours < min(others):
        return Found(measured, "reproduced", reason)
    reason += "; this library's implementation; the document counts parameters, not bytes"
    return Found(measured, "not comparable", reason)


@check
def ssam_below_dense(claim: Claim) -> Found:
    ours, dense = _of_a_step("s_sam"), _of_a_step("full")
    reason = f"dense fine-tuning {dense:,.0f} MiB: {percent_less(ours, dense):.0f} % less"
    return reproduced_if(ours < dense, f"{ours:,.0f} MiB", reason)


@check
def ssam_frozen_decoder_saves(claim: Claim) -> Found:
    ours, trained = _of_a_step("s_sam"), _of_a_step("s_sam decoder=whole")
    reason = (
        f"{trained:,.0f} MiB with the decoder trained: {percent_less(ours, trained):.1f} % less"
    )
    return reproduced_if(ours < trained, f"{ours:,.0f} MiB", reason)


def _layer(seed: int = 0) -> tuple[nn.Linear, SVDLayer]:
    """Return a linear layer of 40 x 48 and its factors."""
    layer = nn.Linear(48, 40)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(40, 48, generator=random))
        layer.bias.zero_()
    return layer, SVDLayer(layer)


def _moved(seed: int = 1) -> SVDLayer:
    """Return the factors with a scale and a shift."""
    _, factored = _layer()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        factored.scale.copy_(1 + 0.3 * torch.randn(40, generator=random))
        factored.shift.copy_(0.3 * torch.randn(40, generator=random))
    return factored


def _error(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().max())


@check
def ssam_scale_shift_relu(claim: Claim) -> Found:
    moved = _moved()
    U, s, Vh = (
        part.numpy().astype(np.float64) for part in (moved.left, moved.singular, moved.right)
    )
    a, b = (part.detach().numpy() for part in (moved.scale, moved.shift))
    by_hand = U @ np.diag(np.maximum(a * s + b, 0)) @ Vh
    error = float(np.abs(moved.merged().weight.detach().numpy() - by_hand).max())
    return reproduced_if(error <= claim.tolerance, f"difference {error:.0e}", "in float64, 40 x 48")


@check
def ssam_identity_start(claim: Claim) -> Found:
    layer, factored = _layer()
    error = _error(factored.merged().weight, layer.weight)
    return reproduced_if(error <= claim.tolerance, f"difference {error:.0e}", "a 40 x 48 weight")


@check
def ssam_identity_convolution(claim: Claim) -> Found:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer, x = nn.Conv2d(16, 8, 3, padding=1), torch.randn(1, 16, 12, 12)
    error = _error(SVDLayer(layer)(x), layer(x))
    reason = "a 3 x 3 convolution, factored as 8 x 144"
    return reproduced_if(error <= claim.tolerance, f"difference {error:.0e}", reason)


@check
def ssam_original_kept(claim: Claim) -> Found:
    _, factored = _layer()
    before = factored.singular.clone()
    optimizer = torch.optim.AdamW([p for p in factored.parameters() if p.requires_grad], lr=0.1)
    factored(torch.ones(1, 48)).sum().backward()
    optimizer.step()
    same = torch.equal(before, factored.singular)
    changed = int((factored.scale != 1).sum())
    return reproduced_if(same, f"{changed} scales changed, no singular value", "one step of AdamW")


@check
def ssam_independent_tasks(claim: Claim) -> Found:
    factored, x = _moved(1), torch.ones(1, 48)
    first, state = factored(x).detach(), {k: v.clone() for k, v in factored.state_dict().items()}
    factored.load_state_dict(_moved(2).state_dict())
    other = factored(x).detach()
    factored.load_state_dict(state)
    holds = torch.equal(factored(x), first) and not torch.allclose(other, first)
    return reproduced_if(holds, f"{len(state)} tensors exchanged", "two sets on one set of vectors")


@check
def ssam_full_rank(claim: Claim) -> Found:
    change = _moved().merged().weight - _layer()[0].weight
    rank = rank_of(change.detach().numpy(), 1e-5)
    return reproduced_if(rank == 40, f"rank {rank} of 40", "with 40 singular values to choose")


@check
def ssam_lora_low_rank(claim: Claim) -> Found:
    random = torch.Generator().manual_seed(0)
    B, A = torch.randn(40, 4, generator=random), torch.randn(4, 48, generator=random)
    rank = rank_of((B @ A).numpy())
    return reproduced_if(rank <= 4, f"rank {rank} of 40", "B A with r = 4")


@check
def ssam_svd_keeps_directions(claim: Claim) -> Found:
    W, moved = _layer()[0].weight.detach(), _moved().merged().weight.detach()
    U, _, Vh = torch.linalg.svd(W, full_matrices=False)
    inside = U.T @ moved @ Vh.T
    error = _error(inside, torch.diag(inside.diagonal()))
    reason = "largest entry beside the diagonal of U^T W' V"
    return reproduced_if(error <= claim.tolerance, f"{error:.0e}", reason)


@check
def ssam_affine_is_svf(claim: Claim) -> Found:
    layer, moved = _layer()[0], _moved()
    svf = SVDLayer(layer, shift=False)
    with torch.no_grad():
        svf.scale.copy_(moved.values() / svf.singular)
    error = _error(svf.merged().weight, moved.merged().weight)
    reason = "one scale a value, as in SVF, gives the weight of a random scale and shift"
    return reproduced_if(error <= claim.tolerance, f"difference {error:.0e}", reason)


@check
def ssam_affine_independent(claim: Claim) -> Found:
    _, factored = _layer()
    rows = torch.autograd.functional.jacobian(
        lambda both: functional.relu(both[0] * factored.singular + both[1]),
        torch.stack([factored.scale.detach(), factored.shift.detach()]),
    )
    freedom = rank_of(rows.flatten(1).numpy())
    reason = "SVF reaches the same weights; only the parametrisation and its step sizes differ"
    return Found(f"{freedom} degrees of freedom from 80 numbers", "not comparable", reason)


def _by_name() -> Any:
    return built("s_sam", 3).eval()


@check
def ssam_label_names(claim: Claim) -> Found:
    with torch.no_grad():
        masks = _by_name()(torch.zeros(1, 3, 64, 64)).shape[1] - 1  # channel 0 is the background
    return reproduced_if(masks == 3, f"{masks} masks", "three names and no other input; pocket SAM")


@check
def ssam_one_token(claim: Claim) -> Found:
    model = _by_name()
    with torch.no_grad():
        tokens = model.affine(model.texts)
    width = model.sam.prompt_encoder.embed_dim
    return reproduced_if(
        tokens.shape == (3, width), f"{tuple(tokens.shape)}", "one token for each of three names"
    )


@check
def ssam_smaller_images(claim: Claim) -> Found:
    shape = next(tuple(p.shape) for n, p in _trained().items() if "pos_embed" in n)
    return reproduced_if(shape == (1, 16, 16, 768), f"{shape}", "256 px, patches of 16")


@cache
def _prompt_encoder() -> nn.Module:
    """Return SAM's prompt encoder with random weights."""
    return built("samed", 3).sam.prompt_encoder


def _point(x: float, y: float, label: int) -> Tensor:
    """Return the tokens of one point."""
    point = torch.tensor([[[x, y]]]), torch.tensor([[label]])
    with torch.no_grad():
        return _prompt_encoder()(points=point, boxes=None, masks=None)[0]


@check
def ssam_background_point(claim: Claim) -> Found:
    moved = {label: _error(_point(10, 10, label), _point(50, 30, label)) for label in (-1, 0)}
    measured = f"change {moved[-1]:.1f} when it moves"
    reason = f"label -1 means no point to SAM; a true background point, label 0: {moved[0]:.2f}"
    return reproduced_if(moved[-1] > 0, measured, reason)


@check
def ssam_point_has_place(claim: Claim) -> Found:
    change = _error(_point(10, 10, 1), _point(50, 30, 1))
    return reproduced_if(change > 0, f"change {change:.2f}", "a foreground point that moves")


def _lower_hd95(data_set: str) -> Found:
    ours, other = (
        figure("s_sam_text", f"Rebuttal HD95 of {name} on {data_set}")
        for name in ("S-SAM", "AdaptiveSAM")
    )
    reason = f"{percent_less(ours, other):.1f} % lower; unit and rule for empty masks are not given"
    return reproduced_if(ours < other, f"{ours} against {other}", reason)


@check
def ssam_hd95_cholec(claim: Claim) -> Found:
    return _lower_hd95("CholecSeg8k")


@check
def ssam_hd95_glas(claim: Claim) -> Found:
    return _lower_hd95("GlaS")


@check
def ssam_hd95_all_sets(claim: Claim) -> Found:
    count = len(cells("s_sam_text[Rebuttal HD95 of S-SAM on *, value]"))
    if count < claim.tolerance:
        reason = "numbers for two of five data sets, against one of the baselines"
        return Found(f"{count} data sets", "unspecified", reason)
    return Found(f"{count} data sets", "reproduced", "all data sets")


@check
def ssam_five_sets(claim: Claim) -> Found:
    names = ("Abstract links to data sets", "Review 3 data sets", "Abstract modalities")
    numbers = {figure("s_sam_text", name) for name in names}
    return reproduced_if(numbers == {claim.value}, listed(sorted(numbers), 0), "links and review 3")


@check
def ssam_rank_chosen(claim: Claim) -> Found:
    tried = [figure("s_sam_text", f"Rebuttal LoRA rank {n}") for n in (1, 2, 3, 4)]
    chosen = figure("s_sam_text", "Rebuttal LoRA rank chosen")
    return reproduced_if(chosen in tried, f"{chosen:.0f}", f"tried: {listed(tried, 0)}")


def _ratings() -> list[float]:
    return [figure("s_sam_text", f"Review {number} rating") for number in (1, 2, 3)]


@check
def ssam_ratings_rise(claim: Claim) -> Found:
    before = _ratings()
    after = [before[0], figure("s_sam_text", "Review 2 rating after the rebuttal"), before[2]]
    measured = f"mean {sum(before) / 3:.2f} to {sum(after) / 3:.2f}"
    return reproduced_if(sum(after) > sum(before), measured, "two reviewers give no second rating")


@check
def ssam_loss(claim: Claim) -> Found:
    recipe = recipe_of("s_sam")
    weights = {recipe.ce_weight, recipe.dice_weight}
    holds = recipe.objective == "focal_dice" and len(weights) == 1
    return reproduced_if(holds, f"weights {weights.pop():g} and equal", "the released code")


@check
def ssam_single_rank(claim: Claim) -> Found:
    with torch.device("meta"):
        model = build_model(recipe_of("adaptive_sam"), "vit_b", 256, 1, "random")
    names = [n for n in trainable(model) if "image_encoder" in n and "weight" in n]
    matrices = [n for n in names if "norm" not in n and "neck" not in n]
    reason = "biases, norms and positions of the encoder have no rank; the word is not explained"
    return Found(f"{len(matrices)} weight matrices trained", "not comparable", reason)
