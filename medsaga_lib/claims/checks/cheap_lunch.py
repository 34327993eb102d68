"""Checks of the summary of Cheap Lunch; the paper itself is not at hand."""

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from medsaga_lib.claims.arithmetic import half_unit, listed, number, rounds_to
from medsaga_lib.claims.claim import Claim, Found, check, reproduced_if
from medsaga_lib.claims.networks import MIB, built, counted, parameters, sam_without_memory
from medsaga_lib.claims.tables import figure, text_of
from medsaga_lib.data.synthesis import Pasting, Synthesis
from medsaga_lib.data.transforms import Augment
from medsaga_lib.models.sam import build_sam

FLOAT = 4  # bytes
SIDE = 64  # pixels of a small synthesised sample


def _value(row: str) -> float:
    return figure("cheap_lunch_text", row)


def _results() -> list[str]:
    return [text_of("cheap_lunch_text", f"Key Results DSC on {s}") for s in ("BraTS", "Synapse")]


def _ends(place: str = "Quick Facts") -> list[str]:
    return [text_of("cheap_lunch_text", f"{place} {end} DSC") for end in ("lowest", "highest")]


@check
def cheap_82_84(claim: Claim) -> Found:
    results = [number(text) for text in _results()]
    low, high = _ends()
    measured = f"{listed(results, 2)} %"
    if rounds_to(min(results), low) and rounds_to(max(results), high):
        return Found(measured, "reproduced", "both ends are results")
    return Found(measured, "unspecified", f"{low} comes from no number in the document")


@check
def cheap_dsc_twice(claim: Claim) -> Found:
    low, high = _ends()
    ends = number(low) - half_unit(low), number(high) + half_unit(high)
    holds = all(ends[0] <= number(text) <= ends[1] for text in _results())
    return reproduced_if(holds, f"{ends[0]} to {ends[1]}", "the range before rounding")


@check
def cheap_range_twice(claim: Claim) -> Found:
    both = _ends(), _ends("Confidence")
    return reproduced_if(both[0] == both[1], " to ".join(both[1]), "equal in both places")


@check
def cheap_exemplars(claim: Claim) -> Found:
    tried = [_value(f"Open Question 3 exemplars {n}") for n in (1, 2, 3)]
    holds = _value("Key Results labelled data") in tried
    return reproduced_if(holds, f"{listed(tried, 1)} %", "the shares that were tried")


def _ranks() -> list[int]:
    return [int(_value(f"Next Checks 3 rank {n}")) for n in (1, 2, 3, 4)]


@check
def cheap_rank_suggested(claim: Claim) -> Found:
    rank = _value("Method Summary rank of LoRA")
    return reproduced_if(rank in _ranks(), f"{rank:.0f}", f"suggested: {listed(_ranks(), 0)}")


@check
def cheap_one_percent(claim: Claim) -> Found:
    slices = figure("facts", "Synapse training slices")
    few = slices * _value("Key Results labelled data") / 100
    return reproduced_if(
        few <= claim.tolerance, f"{few:.0f} slices", f"of {slices:,.0f} training slices"
    )


@cache
def _largest_lora(rank: int = 4) -> tuple[int, int]:
    """Return the layers of ViT-B's encoder and decoder, and LoRA's numbers on all of them."""
    sam = sam_without_memory("vit_b", 512)
    linear = [
        module
        for part in (sam.image_encoder, sam.mask_decoder)
        for module in part.modules()
        if isinstance(module, nn.Linear)
    ]
    return len(linear), sum(rank * (m.in_features + m.out_features) for m in linear)


def _near(value: float, claim: Claim) -> bool:
    return abs(value / claim.value - 1) <= claim.tolerance / 100


@check
def cheap_632_count(claim: Claim) -> Found:
    layers, numbers = _largest_lora()
    reason = f"r = 4 on every one of {layers} linear layers, more than any choice of layers"
    return reproduced_if(numbers >= 0.99e6 * claim.value, f"{numbers:,}", reason)


@check
def cheap_632_with_decoder(claim: Claim) -> Found:
    with torch.device("meta"):
        sam = build_sam("vit_b", 512, mask_tokens=8)
    rest = parameters(sam.mask_decoder) + parameters(sam.prompt_encoder)
    total = _largest_lora()[1] + rest
    reason = "LoRA on every layer, and decoder and prompt encoder in full, 9 tokens"
    return reproduced_if(_near(total / 1e6, claim), f"{total:,}", reason)


def _trained_mib(name: str) -> float:
    return FLOAT * counted(name).trainable / MIB


@check
def cheap_632_mib(claim: Claim) -> Found:
    size = _trained_mib("samed_s")
    apart = 100 * (size / claim.value - 1)
    reason = f"{apart:+.1f} %; {counted('samed_s').trainable:,} numbers: an inference about a slip"
    return Found(f"{size:.3f} MiB", "not comparable", reason)


@check
def cheap_632_checkpoint(claim: Claim) -> Found:
    size = figure("facts", "SAMed_s checkpoint")
    fits = rounds_to(size, claim.published)
    reason = "rounds to 6.32" if fits else "does not round to 6.32"
    return Found(f"{size} MiB", "not comparable", f"{reason}: an inference about a slip")


@check
def cheap_632_points(claim: Claim) -> Found:
    size = _trained_mib("cheap_lunch")
    reason = f"{counted('cheap_lunch').trainable:,} numbers: a point-prompted SAM has no class head"
    if _near(size, claim):
        return Found(f"{size:.2f} MiB", "reproduced", reason)
    return Found(f"{size:.2f} MiB", "not comparable", reason)


@check
def cheap_frozen(claim: Claim) -> Found:
    numbers = _largest_lora()[1]
    sizes = numbers / 1e6, FLOAT * numbers / MIB
    holds = max(sizes) >= 0.99 * claim.value
    measured = f"at most {sizes[0]:.2f} million or {sizes[1]:.2f} MiB"
    return reproduced_if(holds, measured, "LoRA r = 4 on every linear layer")


@check
def cheap_frozen_weights(claim: Claim) -> Found:
    sam = built("cheap_lunch", 3).sam
    base = [p for n, p in sam.named_parameters() if "base_layer" in n]
    pairs = [p for n, p in sam.named_parameters() if ".lora_" in n]
    holds = not any(p.requires_grad for p in base) and all(min(p.shape) == 4 for p in pairs)
    reason = f"{len(pairs) // 2} pairs of matrices of rank 4 are trained; pocket SAM"
    return reproduced_if(holds, f"{len(base)} base tensors frozen", reason)


@check
def cheap_lora_both(claim: Claim) -> Found:
    sam = built("cheap_lunch", 3).sam
    counts = [
        sum(".lora_A" in name for name, _ in part.named_parameters())
        for part in (sam.image_encoder, sam.mask_decoder)
    ]
    return reproduced_if(min(counts) > 0, f"{counts[0]} and {counts[1]} layers", "pocket SAM")


@check
def cheap_rank_parameters(claim: Claim) -> Found:
    counts = [
        counted(f"samed image_encoder.rank={rank}").total - counted("medsaga").total
        for rank in _ranks()
    ]
    holds = all(count * 4 == counts[1] * rank for count, rank in zip(counts, _ranks(), strict=True))
    measured = ", ".join(f"{count:,}" for count in counts)
    return reproduced_if(holds, measured, f"q and v of ViT-B at ranks {listed(_ranks(), 0)}")


@check
def cheap_rank_capacity(claim: Claim) -> Found:
    target = torch.randn(48, 40, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(target)
    errors = [float(values[rank:].norm() / values.norm()) for rank in _ranks()]
    holds = errors == sorted(errors, reverse=True)
    reason = (
        "relative error of the best update of a random 48 x 40 target; overfitting is not in it"
    )
    return reproduced_if(holds, listed(errors, 2), reason)


@check
def cheap_small_fraction(claim: Claim) -> Found:
    shares = [100 * counted(n).trainable / counted(n).total for n in ("cheap_lunch", "samed_s")]
    reason = "with points, and SAMed_s with 8 classes"
    return reproduced_if(max(shares) <= claim.tolerance, f"{listed(shares, 2)} %", reason)


@check
def cheap_vit_base(claim: Claim) -> Found:
    encoder = sam_without_memory("vit_b", 512).image_encoder
    shape = len(encoder.blocks), encoder.pos_embed.shape[-1]
    return reproduced_if(shape == (12, 768), f"{shape[0]} blocks, width {shape[1]}", "SAM's ViT-B")


def _exemplar() -> dict[str, Tensor]:
    """Return a small picture with an organ that has no symmetry."""
    image = torch.linspace(0.3, 0.5, SIDE).expand(3, SIDE, SIDE).clone()
    label = torch.zeros(SIDE, SIDE, dtype=torch.int64)
    label[20:44, 16:34], label[20:30, 34:50] = 1, 1
    image[:, label == 1] += 0.3
    return {"image": image, "label": label}


def _pasted(classes: int, seed: int = 0, **changes: float) -> dict[str, Tensor]:
    """Return a synthesised sample with only these changes."""
    nothing = dict.fromkeys(("turn", "scale", "shift", "gain", "bias", "blur"), 0.0)
    ground = [torch.linspace(0.1, 0.4, SIDE)[:, None].expand(1, SIDE, SIDE).clone()]
    config = Synthesis(**{"share": 1.0, **nothing, **changes})
    pasting = Pasting(config, ground, classes, Augment("none"))
    return pasting.paste(_exemplar(), np.random.default_rng(seed))


@check
def cheap_transforms(claim: Claim) -> Found:
    plain = _pasted(2)["image"]
    changed = {
        "blur": _pasted(2, blur=0.05),
        "intensity": _pasted(2, gain=0.5, bias=0.2),
        "scale": _pasted(2, scale=0.3),
        "rotation": _pasted(2, turn=30),
    }
    names = [n for n, sample in changed.items() if not torch.allclose(sample["image"], plain)]
    flipped = _exemplar()["label"].flip(1)
    overlap = [((_pasted(1, seed)["label"] > 0) == (flipped > 0)).all() for seed in range(8)]
    names += ["flip"] if any(overlap) else []
    holds = len(names) == claim.tolerance
    return reproduced_if(holds, ", ".join(names), "the library's synthesis; ranges are its choice")


@check
def cheap_labels_move(claim: Claim) -> Found:
    sample = _pasted(2, shift=0.2, turn=20)
    inside, outside = sample["label"] > 0, sample["label"] == 0
    same_place = bool((inside == (_exemplar()["label"] > 0)).all())
    contrast = float(sample["image"][0][inside].mean() - sample["image"][0][outside].mean())
    holds = contrast > 0.1 and not same_place
    return reproduced_if(holds, f"brighter by {contrast:.2f} inside", "a moved and turned organ")


@check
def cheap_synthesis_many(claim: Claim) -> Found:
    wanted = int(claim.tolerance)
    samples = [_pasted(2, seed, turn=15, scale=0.2, shift=0.06) for seed in range(wanted)]
    different = {sample["image"].numpy().tobytes() for sample in samples}
    reason = f"{wanted} seeds, one exemplar; whether they help is another question"
    return reproduced_if(len(different) == wanted, f"{len(different)} different", reason)


@check
def cheap_point_located(claim: Claim) -> Found:
    encoder = built("cheap_lunch", 3).sam.prompt_encoder
    tokens = []
    for place in ((10.0, 10.0), (50.0, 30.0)):
        point = torch.tensor([[place]]), torch.tensor([[1]])
        with torch.no_grad():
            tokens.append(encoder(points=point, boxes=None, masks=None)[0])
    change = float((tokens[0] - tokens[1]).abs().max())
    return reproduced_if(change > 0, f"change {change:.2f}", "SAM's prompt encoder, random weights")
