"""Checks of MedSAGa's equations, schedules and statements on what is trained."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from medsaga_lib.claims.arithmetic import rank_of
from medsaga_lib.claims.claim import Claim, Found, check, reproduced_if
from medsaga_lib.claims.networks import built, recipe_of, with_a_gradient
from medsaga_lib.claims.tables import figure
from medsaga_lib.models.dae_former import DAEFormer, efficient_attention
from medsaga_lib.optim.galore import GaLoreAdamW, GaLoreConfig, param_groups
from medsaga_lib.optim.galore_published import PublishedGaLoreAdamW
from medsaga_lib.optim.schedule import warmup_polynomial
from medsaga_lib.optim.subspace import exact_basis
from medsaga_lib.training.losses import cross_entropy_dice, reduce_labels

M, N, R = 24, 16, 4  # a small gradient and its rank


def _in_42(name: str) -> float:
    return figure("medsaga_text", f"4.2 {name}")


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _bases(rank: int = R) -> tuple[Tensor, Tensor, Tensor]:
    """Return a gradient G (m, n) and its leading singular vectors P (m, r) and Q (n, r)."""
    G = _normal(M, N)
    return G, exact_basis(G, rank)[0], exact_basis(G.T, rank)[0]


def _as_in_samed(names: dict[str, float]) -> Found:
    """Compare values of section 4.2 with SAMed's, which its recipe holds with their sources."""
    published = {name: _in_42(name) for name in names}
    measured = ", ".join(f"{value:g}" for value in names.values())
    return reproduced_if(published == names, measured, "SAMed, arXiv 2304.13785, sections 3.4, 4.1")


@check
def medsaga_warmup_as_samed(claim: Claim) -> Found:
    samed = recipe_of("samed")
    return _as_in_samed({"warm-up period": samed.warmup, "initial learning rate": samed.lr})


@check
def medsaga_loss_as_samed(claim: Claim) -> Found:
    samed = recipe_of("samed")
    return _as_in_samed(
        {"weight of cross-entropy": samed.ce_weight, "weight of Dice": samed.dice_weight}
    )


@check
def medsaga_adamw_as_samed(claim: Claim) -> Found:
    samed = recipe_of("samed")
    values = {"AdamW beta1": samed.betas[0], "AdamW beta2": samed.betas[1]}
    return _as_in_samed({**values, "AdamW weight decay": samed.weight_decay})


def _warmup_rates() -> list[float]:
    base, steps = _in_42("initial learning rate"), int(_in_42("warm-up period"))
    return [warmup_polynomial(step, base, steps, total=14_880) for step in range(steps)]


@check
def medsaga_warmup_rises(claim: Claim) -> Found:
    rates = _warmup_rates()
    steps = [after - before for before, after in pairwise(rates)]
    holds = min(steps) > 0 and max(steps) - min(steps) < claim.tolerance
    measured = f"{rates[0]:.5f} to {rates[-1]:.3f}"
    return reproduced_if(holds, measured, f"{len(steps)} steps of {steps[0]:.5f}")


@check
def medsaga_warmup_initial(claim: Claim) -> Found:
    first = _warmup_rates()[0]
    if first == claim.value:
        return Found(f"{first:g}", "reproduced", "the first rate")
    reason = "SAMed's first rate; 0.005 comes at step 250, so base rate or first rate is not said"
    return Found(f"{first:g}", "unspecified", reason)


@check
def medsaga_warmup_unit(claim: Claim) -> Found:
    batch = _in_42("batch size")
    few, many = (claim.value * batch / images for images in (50, 7000))
    measured = f"{few:.0f} epochs of 50 images or {many:.2f} of 7,000"
    reason = (
        "250 iterations at batch 12; as epochs nothing else would be left; the unit is not given"
    )
    return Found(measured, "unspecified", reason)


@check
def medsaga_t_200(claim: Claim) -> Found:
    group = PublishedGaLoreAdamW([nn.Parameter(torch.zeros(2, 2))]).param_groups[0]
    return reproduced_if(group["refresh"] == claim.value, f"{group['refresh']}", "galore-torch 1.0")


@check
def medsaga_eq1_dimensions(claim: Claim) -> Found:
    G, P, Q = _bases()
    inside = P.T @ G @ Q
    back = P @ inside @ Q.T
    measured = f"{tuple(inside.shape)} and back to {tuple(back.shape)}"
    holds = inside.shape == (R, R) and back.shape == G.shape
    return reproduced_if(holds, measured, f"m = {M}, n = {N}, r = {R}")


@check
def medsaga_eq1_low_rank(claim: Claim) -> Found:
    G, P, Q = _bases()
    rank = rank_of((P @ (P.T @ G @ Q).sign() @ Q.T).numpy())
    reason = f"for r = {R}, also with an element-wise function between"
    return reproduced_if(rank <= R, f"rank {rank}", reason)


@check
def medsaga_eq1_projector(claim: Claim) -> Found:
    error = 0.0
    for basis in _bases()[1:]:
        square = basis @ basis.T
        error = max(error, float((square @ square - square).abs().max()))
        error = max(error, float((square - square.T).abs().max()), abs(float(square.trace()) - R))
    return reproduced_if(error <= claim.tolerance, f"error {error:.0e}", "singular vectors of G")


@check
def medsaga_eq1_full_rank(claim: Claim) -> Found:
    G = _normal(N, N)
    P, Q = exact_basis(G, N)[0], exact_basis(G.T, N)[0]
    error = float((P @ P.T @ G @ Q @ Q.T - G).abs().max())
    return reproduced_if(error <= claim.tolerance, f"error {error:.0e}", f"r = m = n = {N}")


@check
def medsaga_eq1_best_subspace(claim: Claim) -> Found:
    G, P, _ = _bases()
    lost = float((G - P @ P.T @ G).norm())
    least = float(torch.linalg.svdvals(G)[R:].norm())  # Eckart and Young
    random = torch.linalg.qr(_normal(M, R, seed=1)).Q
    by_chance = float((G - random @ random.T @ G).norm())
    holds = abs(lost - least) <= claim.tolerance and lost < by_chance
    reason = f"the best rank-{R} matrix loses {least:.4f}, a random subspace {by_chance:.4f}"
    return reproduced_if(holds, f"{lost:.4f} lost", reason)


@check
def medsaga_eq1_two_sided(claim: Claim) -> Found:
    W = nn.Parameter(_normal(M, N))
    W.grad = _normal(M, N, seed=1)
    optimizer = PublishedGaLoreAdamW([{"params": [W], "rank": R}])
    optimizer.step()
    shape = tuple(optimizer.state[W]["exp_avg"].shape)
    if shape == (R, R):
        return Found(f"{shape}", "reproduced", "moments of both sides")
    reason = (
        f"the package's moments for {(M, N)}, projected from one side; which was run is not said"
    )
    return Found(f"{shape}", "unspecified", reason)


@check
def medsaga_eq2_sign(claim: Claim) -> Found:
    W = _normal(M, N).requires_grad_()
    before = W.square().sum() / 2
    (G,) = torch.autograd.grad(before, W)
    after = (W + 0.1 * G).square().sum() / 2
    measured = f"{before.item():.0f} to {after.item():.0f}"
    if after < before:
        return Found(measured, "reproduced", "the loss falls")
    reason = "|W|^2 / 2 rises; right if G is the negative gradient, which the paper does not say"
    return Found(measured, "unspecified", reason)


@check
def medsaga_eq3(claim: Claim) -> Found:
    logits = _normal(1, 9, 32, 64)
    same = torch.equal(logits.softmax(1).argmax(1), logits.argmax(1))
    return reproduced_if(same, f"equal in {32 * 64} pixels", "softmax keeps the order")


@check
def medsaga_eq3_k_masks(claim: Claim) -> Found:
    foreground = 3
    masks = built("medsaga", foreground)(torch.zeros(1, 3, 64, 64)).shape[1]
    reason = f"{foreground} classes and the background"
    return reproduced_if(masks == foreground + 1, f"{masks} masks", reason)


@check
def medsaga_eq4(claim: Claim) -> Found:
    logits, labels = _normal(2, 4, 16, 16), _normal(2, 16, 16, seed=1).abs().long().clamp(max=3)
    weights = [_in_42(f"weight of {part}") for part in ("cross-entropy", "Dice")]
    p, truth = logits.softmax(1), functional.one_hot(labels, 4).movedim(-1, 1)
    overlap, size = (p * truth).sum((0, 2, 3)), (p**2 + truth).sum((0, 2, 3))
    parts = functional.cross_entropy(logits, labels), (1 - 2 * overlap / size).mean()
    by_hand = sum(w * part.item() for w, part in zip(weights, parts, strict=True))
    ours = cross_entropy_dice(logits, labels).total.item()
    measured = f"{ours:.6f} and {by_hand:.6f}"
    return reproduced_if(abs(ours - by_hand) <= claim.tolerance, measured, "random logits")


@check
def medsaga_eq4_downsampling(claim: Claim) -> Found:
    logits = built("medsaga", 3)(torch.zeros(1, 3, 64, 64))
    small = reduce_labels(torch.zeros(1, 64, 64, dtype=torch.int64), logits)
    sides = logits.shape[-1], small.shape[-1]
    return reproduced_if(sides == (16, 16), f"64 px to {sides[0]}", "logits and labels")


@check
def medsaga_gradient_low_rank(claim: Claim) -> Found:
    shares = []
    model = built("medsaga start=random", 3)
    images, labels = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)), None
    logits = model(images)
    labels = (images.mean(1, keepdim=True) > 0.5).long()
    cross_entropy_dice(logits, reduce_labels(labels[:, 0], logits)).total.backward()
    for name, W in model.sam.image_encoder.named_parameters():
        if name.endswith(("qkv.weight", "proj.weight")) and W.grad is not None and W.ndim == 2:
            energy = torch.linalg.svdvals(W.grad).square()
            shares.append(float(energy[: 192 // 12].sum() / energy.sum()))
    reason = f"least of {len(shares)} attention weights at r = 16 of 192, random images and weights"
    return reproduced_if(min(shares) > claim.tolerance, f"{100 * min(shares):.0f} %", reason)


def _galore_run(steps: int, refresh: int) -> tuple[list[int], int]:
    """Return the rank of each update of a 40 x 48 weight, and the rank of their sum."""
    layer = nn.Linear(48, 40, bias=False)
    with torch.no_grad():
        layer.weight.copy_(_normal(40, 48))
    config = GaLoreConfig(rank=R, refresh=refresh)
    optimizer = GaLoreAdamW(param_groups(layer, config, lr=0.01, weight_decay=0))
    start, ranks = layer.weight.detach().clone(), []
    for step in range(steps):
        before = layer.weight.detach().clone()
        layer.weight.grad = _normal(40, 48, seed=step)
        optimizer.step()
        ranks.append(rank_of((layer.weight.detach() - before).double().numpy()))
    return ranks, rank_of((layer.weight.detach() - start).double().numpy())


@check
def medsaga_update_low_rank(claim: Claim) -> Found:
    ranks, _ = _galore_run(steps=20, refresh=20)
    holds = max(ranks) <= R
    return reproduced_if(holds, f"rank {max(ranks)}", f"{len(ranks)} updates of a 40 x 48 weight")


@check
def medsaga_weights_full_rank(claim: Claim) -> Found:
    _, rank = _galore_run(steps=100, refresh=10)
    return reproduced_if(rank == 40, f"rank {rank} of 40", f"10 subspaces of rank {R}")


@check
def medsaga_adamw_decoupled(claim: Claim) -> Found:
    lr, decay, left = 1e-3, 0.1, {}
    for kind in (torch.optim.AdamW, torch.optim.Adam):
        W = nn.Parameter(torch.ones(1))
        W.grad = torch.zeros(1)
        kind([W], lr=lr, weight_decay=decay).step()
        left[kind.__name__] = W.item()
    error = abs(left["AdamW"] - (1 - lr * decay))
    measured = f"AdamW {left['AdamW']:.6f}, Adam {left['Adam']:.6f}"
    reason = f"a step without gradient from 1: 1 - lr x decay is {1 - lr * decay:.6f}"
    holds = error <= claim.tolerance < abs(left["Adam"] - left["AdamW"])
    return reproduced_if(holds, measured, reason)


def _softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT).softmax(-1) @ v


def _growth(attention, tokens: int = 784, width: int = 64) -> float:
    """Return how many times the operations grow with 4 times the tokens."""
    counts = []
    for number in (tokens, 4 * tokens):
        parts = [torch.empty(1, number, width, device="meta") for _ in range(3)]
        with FlopCounterMode(display=False) as counter:
            attention(*parts)
        counts.append(counter.get_total_flops())
    return counts[1] / counts[0]


@check
def medsaga_dae_quadratic(claim: Claim) -> Found:
    growth = _growth(efficient_attention)
    reason = (
        f"4 times the tokens; linear is 4, softmax(Q K^T) V has {_growth(_softmax_attention):.0f}"
    )
    return reproduced_if(abs(growth - 16) <= claim.tolerance, f"{growth:.1f} times", reason)


@check
def medsaga_dae_network_quadratic(claim: Claim) -> Found:
    counts = []
    with torch.device("meta"):
        network = DAEFormer(9)
        for size in (224, 448):
            with FlopCounterMode(display=False) as counter:
                network(torch.zeros(1, 3, size, size))
            counts.append(counter.get_total_flops())
    growth = counts[1] / counts[0]
    reason = "from 224 to 448 px, 4 times the tokens; linear is 4"
    return reproduced_if(growth > 4 + claim.tolerance, f"{growth:.2f} times", reason)


@check
def medsaga_attention_quadratic(claim: Claim) -> Found:
    growth = _growth(_softmax_attention)
    holds = abs(growth - 16) <= claim.tolerance
    return reproduced_if(holds, f"{growth:.1f} times", "softmax(Q K^T) V with 4 times the tokens")


def _of_prompt_encoder() -> tuple[dict[str, int], int]:
    """Return the prompt encoder's tensors with a gradient, and the number of its parameters."""
    learned = {k: n for k, n in with_a_gradient("medsaga").items() if "prompt_encoder" in k}
    encoder = built("medsaga", 3).sam.prompt_encoder
    return learned, sum(p.numel() for p in encoder.parameters())


@check
def medsaga_prompt_encoder_gradient(claim: Claim) -> Found:
    learned, total = _of_prompt_encoder()
    count = sum(learned.values())
    reason = "without prompts the loss reaches the default embedding alone; pocket SAM"
    return reproduced_if(count == total, f"{count:,} of {total:,} parameters", reason)


@check
def medsaga_default_embedding(claim: Claim) -> Found:
    learned, _ = _of_prompt_encoder()
    names = [name.rpartition("prompt_encoder.")[2] for name in learned]
    return reproduced_if(names == ["no_mask_embed.weight"], ", ".join(names), "pocket SAM")


@check
def medsaga_decoder_gradient(claim: Claim) -> Found:
    learned = {k: n for k, n in with_a_gradient("medsaga").items() if "mask_decoder" in k}
    decoder = built("medsaga", 3).sam.mask_decoder
    total = sum(p.numel() for p in decoder.parameters())
    without = {n.split(".")[0] for n, _ in decoder.named_parameters()} - {
        name.split("mask_decoder.")[1].split(".")[0] for name in learned
    }
    share = 100 * sum(learned.values()) / total
    reason = f"without a gradient: {', '.join(sorted(without)) or 'none'}; pocket SAM"
    return reproduced_if(share >= claim.tolerance, f"{share:.1f} %", reason)


@check
def medsaga_no_prompts(claim: Claim) -> Found:
    encoder = built("medsaga", 3).sam.prompt_encoder
    sparse, dense = encoder(points=None, boxes=None, masks=None)
    one = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    holds = sparse.shape[1] == 0 and torch.equal(dense, one.expand_as(dense))
    return reproduced_if(holds, f"{sparse.shape[1]} tokens", "segment_anything's prompt encoder")


@check
def medsaga_lora_freezes(claim: Claim) -> Found:
    encoder = built("samed", 3).sam.image_encoder
    base = [p for name, p in encoder.named_parameters() if "base_layer" in name]
    rank, shapes = recipe_of("samed").image_encoder.rank, set()
    for name, p in encoder.named_parameters():
        if p.requires_grad:
            shapes.add((min(p.shape), "lora" in name))
    holds = not any(p.requires_grad for p in base) and shapes == {(rank, True)}
    reason = "the only trained tensors of the encoder have r rows or columns"
    return reproduced_if(holds, f"{len(base)} base tensors frozen", reason)


@check
def medsaga_plain_sam(claim: Claim) -> Found:
    ours, dense = (
        {name: type(module) for name, module in built(recipe, 3).named_modules()}
        for recipe in ("medsaga", "full")
    )
    return reproduced_if(ours == dense, f"{len(ours)} modules, all equal", "GaLore is an optimizer")
