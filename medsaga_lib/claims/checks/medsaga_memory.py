"""Checks of MedSAGa's statements on memory, operations and numbers of parameters.

Ledgers and peaks are those of this library's implementation on SAM's ViT-B in float32, at batch
12, 512 px and 8 classes where nothing else is said.
"""

from medsaga_lib.claims.arithmetic import listed, percent_less, rounds_to
from medsaga_lib.claims.claim import Claim, Found, check, reproduced_if
from medsaga_lib.claims.networks import (
    GIB,
    MIB,
    counted,
    ledger_of,
    of_model,
    operations_of_a_step,
    parameters,
    peak_of,
    recipe_of,
    sam_without_memory,
)
from medsaga_lib.claims.tables import figure, text_of
from medsaga_lib.optim.galore import GaLoreConfig, Treatment, treatment
from medsaga_lib.recipes.encoder import GaLore

FLOAT = 4  # bytes
PUBLISHED_DAE_FORMER = 48_073_065  # parameters of its code; it never uses 18,382,864 of them


def _mib(*sizes: float) -> str:
    return " against ".join(f"{size / MIB:,.0f} MiB" for size in sizes)


def _gib(*sizes: float) -> str:
    return " against ".join(f"{size / GIB:.1f} GiB" for size in sizes)


def _model_memory(name: str, **settings: bool) -> int:
    """Return the bytes of weights, gradients and states."""
    return of_model(name, **settings).sum


def _dae_former_at_most() -> int:
    """Return DAE-Former's largest model memory: its published weights with AdamW."""
    return 4 * FLOAT * PUBLISHED_DAE_FORMER  # weight, gradient and two moments


def _config() -> GaLoreConfig:
    how = recipe_of("medsaga").image_encoder
    assert isinstance(how, GaLore)
    return how.config(sam_without_memory("vit_b", 512).image_encoder)


def _treatments() -> list[Treatment]:
    """Return how GaLore treats each tensor of ViT-B's image encoder."""
    return treatment(sam_without_memory("vit_b", 512).image_encoder, _config())


@check
def medsaga_lowest_memory(claim: Claim) -> Found:
    ours, samed = _model_memory("medsaga"), _model_memory("samed")
    reason = "SAMed has gradients and states for 5 % of its parameters only"
    return reproduced_if(ours < samed, _mib(ours, samed), reason)


@check
def medsaga_lowest_peak(claim: Claim) -> Found:
    ours, samed = peak_of("medsaga"), peak_of("samed")
    reason = "frozen layers need no input for a weight gradient"
    return reproduced_if(ours < samed, _gib(ours, samed), reason)


@check
def medsaga_samed_huge(claim: Claim) -> Found:
    ours, samed = peak_of("medsaga"), peak_of("samed")
    reason = f"SAMed's peak is {percent_less(samed, ours):.0f} % below MedSAGa's"
    return reproduced_if(ours < samed, _gib(ours, samed), reason)


def _bound_against_samed() -> float:
    """Return by how many percent MedSAGa's weights alone are below SAMed's model memory."""
    return percent_less(of_model("medsaga").weights, _model_memory("samed"))


@check
def medsaga_66_bound_samed(claim: Claim) -> Found:
    bound = _bound_against_samed()
    reason = "MedSAGa without any gradient and state saves no more"
    return reproduced_if(bound >= claim.value, f"at most {bound:.1f} %", reason)


@check
def medsaga_66_and_61(claim: Claim) -> Found:
    mean = figure("medsaga_text", "Abstract memory efficiency")
    dae = figure("medsaga_text", "4.3 memory below DAE-Former")
    two, three = 2 * mean - dae, (3 * mean - dae) / 2
    measured = f"{two:.0f} % for the other, or {three:.1f} % for two others"
    reason = f"SAMed allows {_bound_against_samed():.1f} % at most; the models are not named"
    return Found(measured, "unspecified", reason)


@check
def medsaga_66_reading(claim: Claim) -> Found:
    lower, more = claim.value, percent_less(1, 1 + claim.value / 100)
    reason = "memory lower by 66 %, or efficiency higher by 66 %; the paper does not say which"
    return Found(f"{lower:.0f} % or {more:.1f} % less", "unspecified", reason)


@check
def medsaga_66_twice(claim: Claim) -> Found:
    places = [text_of("medsaga_text", f"{p} memory efficiency") for p in ("Abstract", "4.3")]
    return reproduced_if(len(set(places)) == 1, " and ".join(places), "equal in both places")


@check
def medsaga_66_vs_full(claim: Claim) -> Found:
    dense, dense_each = _model_memory("full"), _model_memory("full", per_layer=True)
    ours, ours_each = _model_memory("medsaga"), _model_memory("medsaga", per_layer=True)
    pairs = ((ours_each, dense), (ours_each, dense_each), (ours, dense))
    uneven, both, neither = (percent_less(*pair) for pair in pairs)
    reason = (
        f"GaLore alone with per-layer updates; both with them {both:.1f} %, neither "
        f"{neither:.1f} %; dense fine-tuning is not a baseline of the paper"
    )
    return Found(f"{uneven:.1f} %", "not comparable", reason)


@check
def medsaga_61_dae_model(claim: Claim) -> Found:
    weights, limit = of_model("medsaga").weights, (1 - claim.value / 100) * _dae_former_at_most()
    reason = "MedSAGa's weights alone against 39 % of DAE-Former with AdamW on all its parameters"
    return reproduced_if(weights <= limit, _mib(weights, limit), reason)


@check
def medsaga_61_dae_activations(claim: Claim) -> Found:
    ours = ledger_of("medsaga").sum
    less = {
        size: percent_less(ours, ledger_of("dae_former", backbone="none", size=size).sum)
        for size in (224, 512)
    }
    measured = ", ".join(f"{value:.0f} % less with {size} px" for size, value in less.items())
    reason = "DAE-Former's own 224 px, or 512 px for both; the paper gives no input sizes"
    return Found(measured, "not comparable", reason)


@check
def medsaga_model_memory_parameters(claim: Claim) -> Found:
    one, twelve = ledger_of("medsaga", 1, attention="original"), ledger_of("medsaga")
    parts = [entry.weights + entry.gradients + entry.states for entry in (one, twelve)]
    reason = f"batch 1 and 12; activations grow: {_mib(one.activations, twelve.activations)}"
    return reproduced_if(parts[0] == parts[1], _mib(*parts), reason)


@check
def medsaga_memory_measure(claim: Claim) -> Found:
    entry = ledger_of("medsaga")
    share = entry.activations / entry.sum
    reason = "at batch 12, so a figure with activations is not one of parameters alone"
    return reproduced_if(share <= claim.tolerance, f"{100 * share:.0f} % are activations", reason)


@check
def medsaga_inference_samed(claim: Claim) -> Found:
    ours, samed = of_model("medsaga").weights, of_model("samed").weights
    less = percent_less(ours, samed)
    reason = f"{less:.2f} % less; merged LoRA takes nothing, and GaLore changes only training"
    return reproduced_if(less >= claim.tolerance, _mib(ours, samed), reason)


@check
def medsaga_inference_dae(claim: Claim) -> Found:
    ours, dae = of_model("medsaga").weights, FLOAT * PUBLISHED_DAE_FORMER
    return reproduced_if(ours < dae, _mib(ours, dae), "weights are all that remains")


@check
def medsaga_galore_states(claim: Claim) -> Found:
    ours, dense = of_model("medsaga").states, of_model("full").states
    reason = f"{percent_less(ours, dense):.1f} % less at rank 64, our choice"
    return reproduced_if(ours < dense, _mib(ours, dense), reason)


@check
def medsaga_galore_model_memory(claim: Claim) -> Found:
    ours, dense = _model_memory("medsaga"), _model_memory("full")
    reason = f"{percent_less(ours, dense):.1f} % less"
    return reproduced_if(ours < dense, _mib(ours, dense), reason)


@check
def medsaga_galore_peak(claim: Claim) -> Found:
    ours, dense = peak_of("medsaga"), peak_of("full")
    reason = f"{percent_less(ours, dense):.1f} % less: activations, not states, fill the memory"
    return reproduced_if(ours < dense, _gib(ours, dense), reason)


@check
def medsaga_compute(claim: Claim) -> Found:
    step = operations_of_a_step("medsaga")
    projected = [entry for entry in _treatments() if entry.how == "projected" and entry.matrix]
    rank = _config().rank
    more = sum(4 * rank * m * n for m, n in (entry.matrix or (0, 0) for entry in projected))
    reason = "P^T G and P N in each step come on top of the dense step; one image at 512 px"
    return reproduced_if(more < 0, f"{more / 1e9:.0f} G more than {step / 1e9:.0f} G", reason)


@check
def medsaga_compute_samed(claim: Claim) -> Found:
    ours, samed = operations_of_a_step("medsaga"), operations_of_a_step("samed")
    measured = f"{ours / 1e9:.0f} G against {samed / 1e9:.0f} G"
    reason = "one image at 512 px; frozen layers need no weight gradients"
    return reproduced_if(ours < samed, measured, reason)


@check
def medsaga_consumer_gpu(claim: Claim) -> Found:
    ours = peak_of("medsaga", attention="original")
    more = percent_less(peak_of("medsaga"), peak_of("full"))
    reason = f"dense AdamW needs about {more:.0f} % more, so GaLore is not what makes it possible"
    return reproduced_if(ours < claim.tolerance * GIB, _gib(ours), reason)


@check
def medsaga_batch12_48gb(claim: Claim) -> Found:
    peak = peak_of("medsaga", attention="original")
    return reproduced_if(peak < claim.tolerance * 1e9, _gib(peak), "512 px, 8 classes")


@check
def medsaga_batch12_1024(claim: Claim) -> Found:
    kept = 12 * ledger_of("medsaga", 1, 1024, attention="original").activations
    measured = f"{_gib(kept)} of activations"
    if kept < claim.tolerance * 1e9:
        return Found(measured, "reproduced", "1,024 px may fit too")
    reason = "the input size is not given; it was not 1,024 px with segment_anything's attention"
    return Found(measured, "unspecified", reason)


@check
def medsaga_decoder_not_worth(claim: Claim) -> Found:
    states = of_model("medsaga").states
    rest = states - sum(entry.state_bytes for entry in _treatments())
    share = 100 * rest / _model_memory("medsaga")
    reason = f"{_mib(rest)} of dense states, {100 * rest / states:.0f} % of all states"
    return reproduced_if(share <= claim.tolerance, f"{share:.1f} %", reason)


@check
def medsaga_overhead_bases(claim: Claim) -> Found:
    bases = of_model("medsaga").projectors
    share = 100 * bases / _model_memory("medsaga")
    return reproduced_if(share <= claim.tolerance, f"{share:.1f} %", f"{_mib(bases)} at rank 64")


@check
def medsaga_overhead_all_parameters(claim: Claim) -> Found:
    every = _model_memory("medsaga")
    frozen, dense = (
        _model_memory(f"medsaga_v1 image_encoder.others={others}") for others in ("frozen", "dense")
    )
    measured = f"{_mib(every)} for all, {_mib(frozen)} or {_mib(dense)} for attention alone"
    reason = "the rest of the encoder frozen, or trained by dense AdamW; the paper does not say"
    return Found(measured, "not comparable", reason)


@check
def medsaga_rank_lowers_memory(claim: Claim) -> Found:
    ranks = (256, 128, 64, 32)
    states = [counted(f"medsaga image_encoder.rank={rank}").state_bytes / MIB for rank in ranks]
    holds = states == sorted(states, reverse=True)
    return reproduced_if(holds, f"{listed(states, 0)} MiB", f"states at ranks {listed(ranks, 0)}")


@check
def medsaga_attention_grows(claim: Claim) -> Found:
    small, large = (
        ledger_of("medsaga", batch=1, size=size, attention="original").activations
        for size in (512, 1024)
    )
    reason = f"{_mib(small)} to {_mib(large)} with 4 times the tokens"
    return reproduced_if(large / small > claim.tolerance, f"{large / small:.1f} times", reason)


@check
def medsaga_samed_saves(claim: Claim) -> Found:
    samed, dense = _model_memory("samed"), _model_memory("full")
    reason = f"{percent_less(samed, dense):.0f} % less"
    return reproduced_if(samed < dense, _mib(samed, dense), reason)


def _vit_b() -> int:
    return parameters(sam_without_memory("vit_b"))


@check
def medsaga_358_as_mib(claim: Claim) -> Found:
    size = FLOAT * _vit_b() / MIB
    return reproduced_if(
        rounds_to(size, claim.published), f"{size:.2f} MiB", f"{_vit_b():,} floats"
    )


@check
def medsaga_358_as_parameters(claim: Claim) -> Found:
    ratio = claim.value * 1e6 / _vit_b()
    holds = abs(ratio - 1) <= claim.tolerance / 100
    return reproduced_if(holds, f"{_vit_b():,}", f"358 million are {ratio:.1f} times as many")


@check
def medsaga_358_checkpoint(claim: Claim) -> Found:
    size = figure("facts", "SAM ViT-B checkpoint") / MIB
    return reproduced_if(
        rounds_to(size, claim.published), f"{size:.2f} MiB", "the size of the released file"
    )


def _near(value: float, published: float, percent: float) -> bool:
    return abs(value / published - 1) <= percent / 100


@check
def medsaga_1881_vit_b(claim: Claim) -> Found:
    readings = (FLOAT * _vit_b() / MIB, _vit_b() / 1e6)
    holds = any(_near(value, claim.value, claim.tolerance) for value in readings)
    measured = f"{readings[0]:.1f} MiB, {readings[1]:.1f} million"
    return reproduced_if(holds, measured, "all of ViT-B's SAM")


def _trained_mib(name: str, classes: int = 8) -> float:
    return FLOAT * counted(name, classes=classes).trainable / MIB


@check
def medsaga_1881_sameds(claim: Claim) -> Found:
    ours, samed = _trained_mib("medsaga"), _trained_mib("samed")
    reason = f"SAMed trains {samed:.2f} MiB at 8 classes, within 1 % of 18.81"
    return reproduced_if(_near(ours, claim.value, claim.tolerance), f"{ours:.1f} MiB", reason)


@check
def medsaga_1881_classes(claim: Claim) -> Found:
    sizes = [_trained_mib("samed", classes) for classes in (1, 3, 15)]
    holds = any(_near(size, claim.value, claim.tolerance) for size in sizes)
    reason = "1 class in ISLES and Spleen, 3 in Chest, 15 in AMOS; 18.81 fits 8 classes"
    return reproduced_if(holds, f"{listed(sizes, 2)} MiB", reason)


@check
def medsaga_full_training(claim: Claim) -> Found:
    counts = counted("medsaga")
    measured = f"{counts.trainable:,} of {counts.total:,}"
    return reproduced_if(counts.trainable == counts.total, measured, "ViT-B, 8 classes")


@check
def medsaga_525_full(claim: Claim) -> Found:
    counts = counted("medsaga")
    share = 100 * counts.trainable / counts.total
    samed = 100 * counted("samed").trainable / _vit_b()
    reason = f"SAMed's share of ViT-B is {samed:.2f} %"
    return reproduced_if(rounds_to(share, claim.published), f"{share:.0f} %", reason)


@check
def medsaga_lightweight(claim: Claim) -> Found:
    sam = sam_without_memory("vit_b")
    parts = [parameters(part) for part in (sam.mask_decoder, sam.prompt_encoder)]
    share = 100 * sum(parts) / parameters(sam)
    reason = f"{parts[0]:,} and {parts[1]:,} of {parameters(sam):,}"
    return reproduced_if(share <= claim.tolerance, f"{share:.2f} %", reason)


@check
def medsaga_samed_q_and_v(claim: Claim) -> Found:
    added = counted("samed").total - counted("medsaga").total
    formula = 12 * 2 * 4 * (768 + 768)
    return reproduced_if(added == formula, f"{added:,}", "12 x 2 x 4 x (768 + 768)")


@check
def medsaga_samed_decoder(claim: Claim) -> Found:
    lora = counted("samed").total - counted("medsaga").total
    rest = counted("samed").trainable - lora
    parts = counted("decoder_only").trainable
    reason = f"trained besides LoRA's {lora:,}: mask decoder and prompt encoder"
    return reproduced_if(rest == parts, f"{rest:,}", reason)


@check
def medsaga_lora_fewer(claim: Claim) -> Found:
    counts = counted("samed")
    share = 100 * counts.trainable / counts.total
    measured = f"{share:.1f} %"
    reason = f"{counts.trainable:,} of {counts.total:,}"
    return reproduced_if(share <= claim.tolerance, measured, reason)


@check
def medsaga_q_k_v_o(claim: Claim) -> Found:
    weights = [
        entry
        for entry in _treatments()
        if entry.name.endswith(("attn.qkv.weight", "attn.proj.weight"))
    ]
    projected = sum(entry.how == "projected" for entry in weights)
    reason = "12 blocks with q, k and v in one layer and o in another"
    return reproduced_if(projected == len(weights) == 24, f"{projected} of {len(weights)}", reason)


@check
def medsaga_all_parameters(claim: Claim) -> Found:
    shapes = [p.ndim for p in sam_without_memory("vit_b", 512).image_encoder.parameters()]
    of = {dimensions: shapes.count(dimensions) for dimensions in (1, 2, 4)}
    measured = f"{of[2]} of {len(shapes)} are matrices"
    if of[2] == len(shapes):
        return Found(measured, "reproduced", "all are matrices")
    reason = f"{of[1]} vectors and {of[4]} with 4 dimensions: what happens to them is not said"
    return Found(measured, "unspecified", reason)


@check
def medsaga_keeps_full_weights(claim: Claim) -> Found:
    ours, dense = counted("medsaga").total, counted("full").total
    return reproduced_if(ours == dense, f"{ours:,} and {dense:,}", "SAMed adds 147,456")
