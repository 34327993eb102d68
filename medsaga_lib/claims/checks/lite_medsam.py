"""Checks of LiteMedSAM + LoRA: its tables, its data, and TinyViT as this library builds it."""

from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medsaga_lib.claims.arithmetic import (
    interval,
    listed,
    mean_interval,
    number,
    overlap,
    percent_less,
    rank_of,
    signs,
)
from medsaga_lib.claims.claim import Claim, Found, check, reproduced_if
from medsaga_lib.claims.networks import (
    MIB,
    counted,
    of_model,
    parameters,
    recipe_of,
    sam_without_memory,
)
from medsaga_lib.claims.tables import figure, printed, table, text_of
from medsaga_lib.data.sampling import probabilities
from medsaga_lib.models.feeding import get_feed
from medsaga_lib.models.sam import build_sam
from medsaga_lib.models.tinyvit import Block, ConvNorm, MBConv, PatchEmbedding, TinyViT
from medsaga_lib.recipes.build import build_model
from medsaga_lib.training.losses import FOCAL_ALPHA, FOCAL_GAMMA, focal_dice

OTHER_SEVEN = ("PET", "US", "X-Ray", "Dermatology", "Endoscopy", "Fundus", "Microscopy")


def _value(table_: str, row: str) -> str:
    return str(printed(table_).at[row, "value"])


def _average(claim: Claim, method: str) -> Found:
    rows = printed("litemedsam_table3")
    holds, means = True, []
    for metric in ("dsc", "nsd"):
        column = rows[f"{method}_{metric}"]
        cells, average = column.drop("Average"), column["Average"]
        holds &= overlap(mean_interval(cells), interval(average))
        means.append(np.mean([number(cell) for cell in cells]))
    reason = "means of nine cells; a rounded cell is up to 0.005 off"
    return reproduced_if(holds, f"{means[0]:.3f} and {means[1]:.3f}", reason)


@check
def lite_average_baseline(claim: Claim) -> Found:
    return _average(claim, "baseline")


@check
def lite_average_ablation1(claim: Claim) -> Found:
    return _average(claim, "ablation1")


@check
def lite_average_ablation2(claim: Claim) -> Found:
    return _average(claim, "ablation2")


@check
def lite_average_proposed(claim: Claim) -> Found:
    return _average(claim, "proposed")


@check
def lite_order(claim: Claim) -> Found:
    average = table("litemedsam_table3").loc["Average"]
    dsc, nsd = (average.filter(like=metric) for metric in ("dsc", "nsd"))
    holds = dsc.idxmax() == "proposed_dsc" and nsd.idxmax() == "proposed_nsd"
    return reproduced_if(holds, f"DSC {listed(dsc, 2)}", f"NSD {listed(nsd, 2)}")


def _gain(metric: str) -> pd.Series:
    """Return proposed minus baseline of the nine modalities."""
    rows = table("litemedsam_table3").drop("Average")
    return (rows[f"proposed_{metric}"] - rows[f"baseline_{metric}"]).round(2)


def _both(metric_gains: tuple[float, float]) -> str:
    return f"DSC {metric_gains[0]:+.2f}, NSD {metric_gains[1]:+.2f}"


@check
def lite_improves_average(claim: Claim) -> Found:
    gains = _gain("dsc").mean(), _gain("nsd").mean()
    return reproduced_if(min(gains) > 0, _both(gains), "mean difference of nine modalities")


@check
def lite_improves_most(claim: Claim) -> Found:
    both = (_gain("dsc") > 0) & (_gain("nsd") > 0)
    measured = f"{both.sum()} of {len(both)} modalities"
    return reproduced_if(both.mean() > 0.5, measured, f"not {', '.join(both.index[~both])}")


@check
def lite_gain_by_target(claim: Claim) -> Found:
    gain = _gain("dsc").sort_values()
    two, rest = gain.iloc[-2:], gain.iloc[:-2]
    share = 100 * two.sum() / gain.sum()
    reason = (
        f"from {' and '.join(two.index)}; the other seven gain {rest.mean():+.2f} DSC on average; "
        "the text names no modality"
    )
    return Found(f"{share:.0f} % of the gain", "not comparable", reason)


@check
def lite_best_per_target(claim: Claim) -> Found:
    dsc = table("litemedsam_table3").drop("Average").filter(like="dsc")
    first = dsc.idxmax(axis=1).str.removesuffix("_dsc").value_counts()
    measured = ", ".join(f"{name} {first.get(name, 0)}" for name in ("proposed", "ablation1"))
    reason = "first places among nine modalities; the text speaks of the average alone"
    return Found(measured, "not comparable", reason)


@check
def lite_significant(claim: Claim) -> Found:
    p = float(stats.wilcoxon(_gain("dsc")).pvalue)
    above, _, below = signs(_gain("dsc"))
    reason = f"nine modalities, {above} higher and {below} lower; the text claims no test"
    return Found(f"p = {p:.2f}", "not comparable", reason)


@check
def lite_small_modalities(claim: Claim) -> Found:
    both = (_gain("dsc")[list(OTHER_SEVEN)] > 0) & (_gain("nsd")[list(OTHER_SEVEN)] > 0)
    reason = f"not {', '.join(both.index[~both])}"
    return reproduced_if(both.sum() >= claim.tolerance, f"{both.sum()} of {len(both)}", reason)


def _one_modality(name: str) -> Found:
    gains = _gain("dsc")[name], _gain("nsd")[name]
    return reproduced_if(min(gains) > 0, _both(gains), "fewer than 2,000 samples by section 2.1")


@check
def lite_us(claim: Claim) -> Found:
    return _one_modality("US")


@check
def lite_microscopy(claim: Claim) -> Found:
    return _one_modality("Microscopy")


@check
def lite_fundus(claim: Claim) -> Found:
    return _one_modality("Fundus")


@check
def lite_large_modalities(claim: Claim) -> Found:
    gains = _gain("dsc")[["CT", "MR"]]
    measured = f"CT {gains['CT']:+.2f}, MR {gains['MR']:+.2f}"
    return Found(measured, "not comparable", "the price of drawing them less; the text is silent")


def _samples(modality: str) -> float:
    return figure("litemedsam_text", f"2.1 {modality} samples")


def _totals() -> tuple[float, float]:
    """Return the least and largest number of samples that CT's share of 82 % allows."""
    low, high = interval(text_of("litemedsam_text", "2.1 CT share"))
    return _samples("CT") / (high / 100), _samples("CT") / (low / 100)


@check
def lite_shares(claim: Claim) -> Found:
    least, most = _totals()
    shares = 100 * _samples("MR") / most, 100 * _samples("MR") / least
    reason = f"CT's share means {least:,.0f} to {most:,.0f} samples"
    holds = overlap(shares, interval(claim.published))
    return reproduced_if(holds, f"{shares[0]:.2f} to {shares[1]:.2f} %", reason)


@check
def lite_rest_below_3(claim: Claim) -> Found:
    least, most = _totals()
    rest = least - _samples("CT") - _samples("MR"), most - _samples("CT") - _samples("MR")
    few = figure("litemedsam_text", "2.1 modalities with fewer than 2000 samples")
    others = figure("litemedsam_text", "2.1 other modalities") - few
    most_each = claim.tolerance / 100 * most
    holds = 0 < rest[0] < others * most_each + few * 2000
    reason = f"{others:.0f} modalities with up to {most_each:,.0f} samples can hold them"
    return reproduced_if(holds, f"{rest[0]:,.0f} to {rest[1]:,.0f} samples left", reason)


@check
def lite_less_than_1(claim: Claim) -> Found:
    few = figure("litemedsam_text", "2.1 samples of each of five modalities")
    share = 100 * few / _totals()[0]
    return reproduced_if(share < claim.tolerance, f"{share:.2f} %", f"at most {few:,.0f} samples")


@check
def lite_million(claim: Claim) -> Found:
    both = _samples("CT") + _samples("MR")
    return reproduced_if(both > claim.value, f"{both:,.0f}", "CT and MR alone")


@check
def lite_modalities(claim: Claim) -> Found:
    count = 2 + figure("litemedsam_text", "2.1 other modalities")
    return reproduced_if(count == claim.value, f"{count:.0f}", "CT, MR and nine others")


def _published_shares() -> list[float]:
    names = ("CT", "MR", "the others")
    return [figure("litemedsam_text", f"2.1 probability of {n}") / 100 for n in names]


@check
def lite_probabilities(claim: Claim) -> Found:
    total = 100 * sum(_published_shares())
    return reproduced_if(total == 100, f"{total:.0f} %", "three numbers")


@check
def lite_sampler(claim: Claim) -> Found:
    others = [f"other {number_}" for number_ in range(9) for _ in range(number_ + 1)]
    modalities = np.array(["CT"] * 800 + ["MR"] * 130 + others)
    drawn = probabilities(modalities.tolist())
    is_other = ~np.isin(modalities, ["CT", "MR"])
    shares = [drawn[modalities == m].sum() for m in ("CT", "MR")] + [drawn[is_other].sum()]
    error = max(abs(a - b) for a, b in zip(shares, _published_shares(), strict=True))
    return reproduced_if(error <= claim.tolerance, listed(shares, 2), "nine unequal others")


@check
def lite_imbalance(claim: Claim) -> Found:
    rest = (sum(_totals()) / 2 - _samples("CT") - _samples("MR")) / 9
    ct, _, others = _published_shares()
    before, after = _samples("CT") / rest, ct / (others / 9)
    reason = "CT to the mean of the nine others, in the data and as drawn"
    return reproduced_if(after < before, f"{before:.0f} : 1 to {after:.1f} : 1", reason)


@check
def lite_quantities(claim: Claim) -> Found:
    ct, mr, _ = _published_shares()
    drawn, there = ct / mr, _samples("CT") / _samples("MR")
    reason = f"in the data {there:.1f} : 1; the order follows the quantities, the shares do not"
    return Found(f"CT to MR {drawn:.0f} : 1", "not comparable", reason)


@check
def lite_sam_data(claim: Claim) -> Found:
    images, masks = (figure("facts", f"SAM {what}") for what in ("images", "masks"))
    holds = images == figure("litemedsam_text", "1 SAM images")
    holds &= int(masks) == figure("litemedsam_text", "1 SAM masks")
    return reproduced_if(holds, f"{images:.0f} million, {masks} billion", "Kirillov et al. 2023")


@check
def lite_loss_sum(claim: Claim) -> Found:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 8, 8, generator=random)
    truth = torch.randint(2, (2, 8, 8), generator=random)
    p = logits[:, 1].sigmoid()
    right = torch.where(truth > 0, p, 1 - p)
    weight = torch.where(truth > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    focal = (-weight * (1 - right) ** FOCAL_GAMMA * right.log()).mean()
    overlaps, sizes = (p * truth).sum((1, 2)), p.sum((1, 2)) + truth.sum((1, 2))
    by_hand = (focal + (1 - (2 * overlaps + 1) / (sizes + 1)).mean()).item()
    ours = focal_dice(logits, truth).total.item()
    holds = abs(ours - by_hand) <= claim.tolerance
    return reproduced_if(holds, f"{ours:.6f} and {by_hand:.6f}", "weights of 1, random logits")


@check
def lite_preprocessing(claim: Claim) -> Found:
    image = torch.linspace(0.2, 0.7, 100 * 50).reshape(1, 1, 100, 50)
    side = int(number(_value("litemedsam_table2", "Patch size")))
    out = get_feed("lite_medsam").images(image, side)[0, 0]
    inner, padding = out[:, : side // 2], out[:, side // 2 :]
    holds = out.shape == (side, side) and float(padding.abs().max()) == 0
    holds &= abs(float(inner.min())) <= claim.tolerance >= abs(float(inner.max()) - 1)
    measured = f"{inner.shape[0]} x {inner.shape[1]} of {side} x {side}, {inner.min():.0f} to 1"
    return reproduced_if(holds, measured, "the rest is 0; input 100 x 50, 0.2 to 0.7")


@check
def lite_argmax_background(claim: Claim) -> Found:
    logits = -torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))  # no mask anywhere
    alone = (logits.argmax(0) + 1).count_nonzero()
    with_zero = torch.cat([torch.zeros(1, 8, 8), logits]).argmax(0).count_nonzero()
    if not alone:
        return Found("0 pixels", "reproduced", "no pixel belongs to a box")
    reason = (
        f"all are negative, so no pixel should have a label; with a zero channel in front, as in "
        f"the released code, {int(with_zero)} have one; the paper does not mention it"
    )
    return Found(f"{int(alone)} of 64 pixels labelled", "unspecified", reason)


@cache
def _operations(boxes: int) -> tuple[int, int]:
    """Return the operations of LiteMedSAM's encoder for an image, and of its decoder for boxes."""
    with torch.device("meta"):
        sam = build_sam("lite_medsam").eval().requires_grad_(False)
        with FlopCounterMode(display=False) as encoder:
            embedding = sam.image_encoder(torch.zeros(1, 3, 256, 256))
        with FlopCounterMode(display=False) as decoder:
            prompts = sam.prompt_encoder(None, torch.zeros(boxes, 4), None)
            sam.mask_decoder(embedding, sam.prompt_encoder.get_dense_pe(), *prompts, False)
    return encoder.get_total_flops(), decoder.get_total_flops()


@check
def lite_boxes_same_work(claim: Claim) -> Found:
    one_by_one, together = 12 * _operations(1)[1], _operations(12)[1]
    measured = f"{together / 1e9:.1f} G against {one_by_one / 1e9:.1f} G"
    if percent_less(together, one_by_one) >= claim.tolerance:
        return Found(measured, "reproduced", "12 boxes, mask decoder")
    reason = (
        "12 boxes, mask decoder: the work is the same, so time is won only where the machine is "
        "idle otherwise; the table has no times"
    )
    return Found(measured, "not comparable", reason)


@check
def lite_boxes_same_masks(claim: Claim) -> Found:
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        sam = build_sam("pocket", 64).eval()
        embedding = sam.image_encoder(torch.rand(1, 3, 64, 64))
    boxes = torch.tensor([[4.0, 4, 30, 40], [20, 10, 60, 60], [1, 30, 20, 50]])

    def decode(some: Tensor) -> Tensor:
        with torch.inference_mode():
            prompts = sam.prompt_encoder(None, some, None)
            return sam.mask_decoder(embedding, sam.prompt_encoder.get_dense_pe(), *prompts, False)[
                0
            ]

    alone = torch.cat([decode(box[None]) for box in boxes])
    error = float((decode(boxes) - alone).abs().max())
    reason = "three boxes, pocket SAM with random weights"
    return reproduced_if(error <= claim.tolerance, f"difference {error:.0e}", reason)


@check
def lite_30_hours(claim: Claim) -> Found:
    epochs = number(_value("litemedsam_table2", "Total epochs"))
    images = epochs * _totals()[0] / (3600 * claim.value)
    tflops = 1e-12 * images * sum(_operations(1)) * 2  # half a backward pass for frozen layers
    limit, exact = figure("facts", "A100 TF32"), figure("facts", "A100 float32")
    reason = (
        f"about {tflops:.0f} Tflop/s if an epoch is all samples; an A100 has {exact} in float32 "
        f"and {limit:.0f} in TF32; neither the length of an epoch nor the precision is given"
    )
    return Found(f"{images:.0f} images/s", "not comparable", reason)


@check
def lite_co2(claim: Claim) -> Found:
    hours = number(_value("litemedsam_table2", "Training time"))
    per_kwh = [claim.value / (hours * watts / 1000) for watts in (400, 250)]
    measured = f"{listed(per_kwh, 2)} kg/kWh"
    if per_kwh[1] >= claim.tolerance:
        return Found(measured, "reproduced", "a common grid")
    reason = "400 and 250 W for the GPU alone; most grids have 0.2 to 0.7; not stated"
    return Found(measured, "not comparable", reason)


@check
def lite_985m(claim: Claim) -> Found:
    total = counted("lite_medsam_lora", "lite_medsam", 256, 1).total
    ratio = claim.value * 1e6 / total
    holds = abs(ratio - 1) <= claim.tolerance / 100
    return reproduced_if(holds, f"{total:,}", f"the printed number is {ratio:.1f} times as large")


@check
def lite_985_hundredth(claim: Claim) -> Found:
    total = counted("lite_medsam_lora", "lite_medsam", 256, 1).total
    apart = 100 * (claim.value * 1e4 / total - 1)
    reason = "9.8522 million against the network with LoRA: a likely slip, but an inference"
    return Found(f"{apart:+.2f} %", "not comparable", reason)


@check
def lite_59g(claim: Claim) -> Found:
    both = sum(_operations(1)) / 1e9
    apart = [abs(value / claim.value - 1) for value in (both, both / 2)]
    measured = f"{both:.2f} G operations, {both / 2:.2f} G multiply-adds"
    if min(apart) <= claim.tolerance / 100:
        return Found(measured, "reproduced", "one picture and one box")
    reason = "one picture and one box; the footnote on the way of counting is not in the document"
    return Found(measured, "not comparable", reason)


@check
def lite_lora_count(claim: Claim) -> Found:
    added = counted("lite_medsam_lora", "lite_medsam", 256, 1).total - _tiny_sam()
    formula = sum(
        4 * (block.attn.qkv.in_features * 4 + 2 * 5 * block.attn.qkv.in_features)
        for block in _tinyvit().blocks
    )  # q and v: C + C each; both MLP layers: C + 4 C each
    reason = "r = 4 as in the released code, 10 blocks; k and the output projection have none"
    return reproduced_if(added == formula, f"{added:,}", reason)


def _tiny_sam() -> int:
    return parameters(sam_without_memory("lite_medsam"))


def _tinyvit() -> TinyViT:
    encoder = sam_without_memory("lite_medsam").image_encoder
    assert isinstance(encoder, TinyViT)
    return encoder


@check
def lite_lora_fewer(claim: Claim) -> Found:
    counts = counted("lite_medsam_lora", "lite_medsam", 256, 1)
    share = 100 * counts.trainable / counts.total
    reason = (
        f"{counts.trainable:,} of {counts.total:,}; most are the decoder's, trained in the code"
    )
    return reproduced_if(counts.trainable < counts.total, f"{share:.0f} %", reason)


@check
def lite_lora_memory(claim: Claim) -> Found:
    lora, dense = (
        of_model(name, 256, 1, "lite_medsam").sum for name in ("lite_medsam_lora", "full")
    )
    measured = f"{lora / MIB:.0f} MiB against {dense / MIB:.0f} MiB"
    return reproduced_if(lora < dense, measured, f"{percent_less(lora, dense):.0f} % less")


@check
def lite_lora_decomposes(claim: Claim) -> Found:
    model = build_model(recipe_of("lite_medsam_lora"), "lite_medsam", 64, 1, "random")
    base = {n: p for n, p in model.named_parameters() if "base_layer.weight" in n}
    full = sum(rank_of(p.detach().numpy(), 1e-6) == min(p.shape) for p in base.values())
    frozen = not any(p.requires_grad for p in base.values())
    reason = "they stay whole and frozen; pairs of small matrices are added beside them"
    low = full < len(base) and frozen
    return reproduced_if(low, f"{full} of {len(base)} weights have full rank", reason)


@check
def lite_four_stages(claim: Claim) -> Found:
    stages = len(_tinyvit().layers)
    return reproduced_if(
        stages == claim.value, f"{stages}", "TinyViT as MobileSAM's and LiteMedSAM's"
    )


@cache
def _sides(size: int, backbone: str) -> list[int]:
    """Return the sides of the outputs of patch embedding and stages."""
    with torch.device("meta"):
        encoder = build_sam(backbone, size).image_encoder
        x = encoder.patch_embed(torch.zeros(1, 3, size, size))
        sides = [x.shape[-1]]
        for stage in encoder.layers:
            x = stage(x)
            sides.append(x.shape[-1])
    return sides


@check
def lite_resolution_falls(claim: Claim) -> Found:
    sides = _sides(256, "lite_medsam")
    holds = sides[-1] < sides[0] and all(a >= b for a, b in pairwise(sides))
    reason = "patch embedding and four stages at 256 px; the last merge keeps the grid"
    return reproduced_if(holds, listed(sides, 0), reason)


@check
def lite_patch_embedding(claim: Claim) -> Found:
    size = int(number(_value("litemedsam_table2", "Patch size")))
    as_printed, without = _sides(size, "mobile_sam")[-1], _sides(size, "lite_medsam")[-1]
    reason = f"at {size} px; the released code has 1 x 1 with stride 1, which gives {without}"
    measured = f"{as_printed} x {as_printed}"
    return reproduced_if(as_printed == 64, measured, reason)


@check
def lite_patch_embedding_mobile(claim: Claim) -> Found:
    convolutions = [m for m in PatchEmbedding(64, True).modules() if isinstance(m, nn.Conv2d)]
    shape = {(c.kernel_size[0], c.stride[0], c.padding[0]) for c in convolutions}
    names = ("kernel", "stride", "padding")
    there = tuple(figure("litemedsam_text", f"2.2 patch embedding {name}") for name in names)
    side = _sides(1024, "mobile_sam")[0]
    holds = len(convolutions) == 2 and shape == {there} and side == 1024 // 4
    return reproduced_if(holds, f"1,024 px to {side}", "MobileSAM's patch embedding")


@check
def lite_mbconv_first(claim: Claim) -> Found:
    kinds = {type(block).__name__ for block in _tinyvit().layers[0].blocks}
    return reproduced_if(kinds == {MBConv.__name__}, ", ".join(kinds), "blocks of stage 1")


@check
def lite_window_attention(claim: Claim) -> Found:
    stages = list(_tinyvit().layers)[1:]
    kinds = {type(block) for stage in stages for block in stage.blocks}
    windows = [stage.blocks[0].attn.window for stage in stages]
    grids = _sides(256, "lite_medsam")[1:4]
    holds = kinds == {Block} and all(w < g for w, g in zip(windows, grids, strict=True))
    return reproduced_if(
        holds, f"windows of {listed(windows, 0)}", f"on grids of {listed(grids, 0)}"
    )


@check
def lite_window_cost(claim: Claim) -> Found:
    grids, windows = _sides(256, "lite_medsam")[1:4], []
    whole = within = 0
    for stage, grid in zip(list(_tinyvit().layers)[1:], grids, strict=True):
        window = stage.blocks[0].attn.window
        windows.append(window)
        whole += len(stage.blocks) * grid**4  # pairs of tokens
        within += len(stage.blocks) * (-(-grid // window)) ** 2 * window**4
    reason = f"pairs of tokens in a forward pass, windows of {listed(windows, 0)}"
    return reproduced_if(within < whole, f"{whole / within:.0f} times fewer", reason)


@check
def lite_attention_biases(claim: Claim) -> Found:
    blocks = _tinyvit().blocks
    tables = [tuple(block.attn.attention_biases.shape) for block in blocks]
    holds = all(t == (b.attn.heads, b.attn.window**2) for t, b in zip(tables, blocks, strict=True))
    reason = "a number for each head and distance"
    return reproduced_if(holds, f"{len(tables)} of {len(blocks)} blocks", reason)


@check
def lite_local_convolution(claim: Claim) -> Found:
    good = 0
    for block in _tinyvit().blocks:
        convolution = block.local_conv.c
        parts = [name for name, _ in block.named_children()]
        good += (
            parts == ["attn", "local_conv", "mlp"]
            and convolution.kernel_size == (3, 3)
            and convolution.groups == convolution.in_channels
        )
    count = len(_tinyvit().blocks)
    return reproduced_if(good == count, f"{good} of {count} blocks", "attention, convolution, MLP")


@check
def lite_residuals(claim: Claim) -> Found:
    block = Block(width=16, heads=2, window=4).eval()
    for layer in (block.attn.proj, block.mlp.fc2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.dirac_(block.local_conv.c.weight, groups=16)
    x = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = float((block(x) * (1 + 1e-5) ** 0.5 - x).abs().max())  # BatchNorm's epsilon
    reason = "output minus input with zero attention and MLP and the identity as convolution"
    return reproduced_if(error <= claim.tolerance, f"difference {error:.0e}", reason)


@check
def lite_norms(claim: Claim) -> Found:
    encoder = _tinyvit()
    inside = [m for name, m in encoder.named_modules() if not name.startswith("neck")]
    with_norm = sum(isinstance(m, ConvNorm) for m in inside)
    convolutions = sum(isinstance(m, nn.Conv2d) for m in inside)
    layer_norms = sum(isinstance(m, nn.LayerNorm) for m in inside)
    holds = with_norm == convolutions and layer_norms == 2 * len(encoder.blocks)
    measured = f"{with_norm} of {convolutions} convolutions, {layer_norms} LayerNorms"
    return reproduced_if(holds, measured, "10 attentions and 10 MLPs; SAM's neck follows")


@check
def lite_gelu(claim: Claim) -> Found:
    names: set[str] = set()

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    with torch.device("meta"), Watch():
        _tinyvit()(torch.zeros(1, 3, 64, 64))
    used = sorted(names & {"gelu", "relu", "silu", "hardswish", "sigmoid", "tanh", "elu"})
    return reproduced_if(
        used == ["gelu"], ", ".join(used), "operators of a forward pass of TinyViT"
    )


@check
def lite_reduces_parameters(claim: Claim) -> Found:
    tiny, vit_b = _tiny_sam(), parameters(sam_without_memory("vit_b"))
    return reproduced_if(tiny < vit_b, f"{tiny:,}", f"{vit_b / tiny:.1f} times fewer than ViT-B's")


@check
def lite_reduces_operations(claim: Claim) -> Found:
    tiny = _operations(1)[0]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        # fused attention computes with wider heads, so its counted operations are not SAM's
        encoder = sam_without_memory("vit_b", 1024, "original").image_encoder
        encoder(torch.zeros(1, 3, 1024, 1024, device="meta"))
    vit_b = counter.get_total_flops()
    reason = f"image encoder; {vit_b / 1e9:.0f} G of ViT-B at 1,024 px"
    return reproduced_if(tiny < vit_b, f"{tiny / 1e9:.0f} G", reason)


@check
def lite_speed(claim: Claim) -> Found:
    cells = printed("litemedsam_table4")[["ablation_s", "proposed_s"]]
    empty = int((cells == "").sum().sum())
    if not empty:
        times = table("litemedsam_table4")
        faster = bool((times["proposed_s"] < times["baseline_s"]).all())
        return reproduced_if(faster, "all cells filled", "times of the method")
    return Found(f"{empty} of {cells.size} cells empty", "unspecified", "no time of the method")


def _times_2d() -> tuple[np.ndarray, np.ndarray]:
    rows = printed("litemedsam_table4")
    rows = rows[rows.index.str.startswith("2DBox")]
    return rows["objects"].astype(int).to_numpy(), rows["baseline_s"].astype(float).to_numpy()


@check
def lite_time_linear(claim: Claim) -> Found:
    boxes, seconds = _times_2d()
    line = stats.linregress(boxes, seconds)
    worst = float(np.abs(seconds - line.intercept - line.slope * boxes).max())
    measured = f"{line.intercept:.2f} s + {1000 * line.slope:.0f} ms a box"
    reason = f"residuals of at most {worst:.2f} s; the case of 241 boxes carries the slope"
    return reproduced_if(worst <= claim.tolerance, measured, reason)


@check
def lite_time_offset(claim: Claim) -> Found:
    boxes, seconds = _times_2d()
    single = seconds[boxes == 1]
    measured = f"{single.min()} to {single.max()} s"
    reason = "one box, from 256 x 256 to 3024 x 4032: a fixed cost, start or loading; not said"
    return Found(measured, "unspecified", reason)


@check
def lite_time_3d(claim: Claim) -> Found:
    rows = printed("litemedsam_table4").loc[["3DBox_CT_0566", "3DBox_CT_0888"]]
    slices = [number(size) for size in rows["size"]]
    seconds = rows["baseline_s"].astype(float)
    times, more = seconds.iloc[0] / seconds.iloc[1], slices[0] / slices[1]
    measured = f"{times:.1f} times the time for {more:.1f} times the slices"
    if times / more <= claim.tolerance:
        return Found(measured, "reproduced", "in proportion")
    return Found(measured, "unspecified", "how many slices the objects span is not given")


@check
def lite_modality_names(claim: Claim) -> Found:
    cases = printed("litemedsam_table4").index.str.split("_").str[1].unique()
    missing = [name for name in cases if name not in printed("litemedsam_table3").index]
    measured = f"not in Table 3: {', '.join(missing)}"
    if not missing:
        return Found("all", "reproduced", "the same names")
    return Found(measured, "not comparable", "Dermatology and Microscopy there: other words for it")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


@check
def lite_python(claim: Claim) -> Found:
    there = _value("litemedsam_table1", "Programming language").removeprefix("Python ")
    newest = text_of("facts", "newest Python for torch 2.0")
    holds = _version(there) <= _version(newest)
    return reproduced_if(holds, f"at most {newest}", "table of versions in pytorch/vision's README")


@check
def lite_torchvision(claim: Claim) -> Found:
    there = _value("litemedsam_table1", "Deep learning framework").rpartition(" ")[2]
    pair = text_of("facts", "torchvision for torch 2.0")
    holds = _version(there)[:2] == _version(pair)
    return reproduced_if(holds, pair, "0.2.2 belongs to torch 1.0.1 and older")


@check
def lite_cuda(claim: Claim) -> Found:
    least = text_of("facts", "least CUDA for torch 2.0")
    if _version(claim.published) >= _version(least):
        return Found(least, "reproduced", "torch 2.0's builds")
    reason = "torch 2.0 is built for 11.7 and 11.8; the driver's or system's version may be meant"
    return Found(f"at least {least}", "unspecified", reason)


@check
def lite_ram(claim: Claim) -> Found:
    rate = number(_value("litemedsam_table1", "RAM").partition(";")[2])
    usual = figure("facts", "DDR4 rate")
    holds = abs(rate / usual - 1) <= claim.tolerance / 100
    reason = f"the printed rate is a thousandth of DDR4-2666's: {usual / rate:.0f} times less"
    return reproduced_if(holds, f"{usual:.0f} MT/s", reason)


@check
def lite_checklist(claim: Claim) -> Found:
    answers = printed("litemedsam_table5")["answer"]
    template = {"Yes/No", "Number", "Figure number", "Page number", "Table number"}
    open_ = int(answers.isin(template).sum())
    if open_ < len(answers):
        return Found(f"{len(answers) - open_} answered", "reproduced", "the checklist has answers")
    return Found(f"{open_} of {len(answers)} open", "unspecified", "the template's placeholders")


@check
def lite_authors(claim: Claim) -> Found:
    authors = figure("litemedsam_text", "Title authors")
    return reproduced_if(
        authors <= claim.value, f"{authors:.0f}", "authors with ORCID in the title"
    )
