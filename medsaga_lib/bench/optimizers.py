"""Benchmark of this library's GaLore, the published package, torch's AdamW and LoRA, in one run.

Times depend on the machine, so they are given as ratios within one run; bytes do not depend on it.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medsaga_lib.adapt.lora import LoRA
from medsaga_lib.errors import UserError
from medsaga_lib.memory.ledger import held_bytes
from medsaga_lib.models.sam import build_sam
from medsaga_lib.optim.galore import GaLoreAdamW

if TYPE_CHECKING:
    from medsaga_lib.recipes.encoder import GaLore

MATRICES = tuple(  # fc1 and fc2 are TinyViT's lin1 and lin2
    f"{layer}.weight" for layer in ("qkv", "attn.proj", "lin1", "lin2", "fc1", "fc2")
)
LORA_RANK = 4  # SAMed
PUBLISHED = "galore-torch 1.0"
DECAY = 0.01  # weight decay; the default of torch's AdamW, so all optimizers use it
SHORT = 150  # steps of the recorded runs on late stages; a run has at least 10 bases
SPECTRUM = 0.5  # singular values fall as i^-1/2 before noise, which is slow: hard for a subspace


@dataclass
class Contestant:
    """An optimizer, its weights and gradients, and the seconds of its steps."""

    name: str
    weights: list[nn.Parameter]
    gradients: list[Tensor]
    optimizer: torch.optim.Optimizer
    first: float = 0.0  # the first step, which computes a basis from scratch
    plain: list[float] = field(default_factory=list)
    refresh: list[float] = field(default_factory=list)  # steps in which every basis is refreshed

    def step(self, clock: Callable[[], float] = time.perf_counter) -> float:
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient
        began = clock()
        self.optimizer.step()
        return clock() - began


def compare_optimizers(
    backbone: str = "vit_b", rank: int = 32, rounds: int = 7, plain: int = 3, seed: int = 0
) -> list[dict[str, Any]]:
    """Measure steps, states and checkpoints of each optimizer on an encoder's block matrices.

    Args:
        backbone: has these matrices; weights start at 0, and gradients are random.
        rank: of GaLore; LoRA has rank 4 on q and v, as in SAMed.
        rounds: number of timed refreshes; the optimizers take turns within a round.
        plain: steps between two refreshes.
        seed: for the gradients.

    Returns:
        for each optimizer its `name`; the number of `trainable` parameters; the seconds of the
        `first_step`; the median seconds of a `plain_step` and of a `refresh_step`, which refreshes
        all matrices; `plain_steps` and `refresh_steps`, the seconds of each round (the median of
        its plain steps); the `state_bytes` in memory, and the `checkpoint_bytes` of the state dict
        on disk.

    Raises:
        UserError: galore-torch is not installed.
    """
    contestants = _contestants(backbone, rank, plain + 1, seed)
    for one in contestants:
        one.first = one.step()
    for _ in range(rounds):
        for one in contestants:
            one.plain += [one.step() for _ in range(plain)]
        for one in contestants:
            one.refresh.append(one.step())
    return [
        {
            "name": one.name,
            "trainable": sum(w.numel() for w in one.weights),
            "first_step": one.first,
            "plain_step": median(one.plain),
            "refresh_step": median(one.refresh),
            "plain_steps": [median(one.plain[i:][:plain]) for i in range(0, len(one.plain), plain)],
            "refresh_steps": one.refresh,
            "state_bytes": held_bytes(one.optimizer),
            "checkpoint_bytes": _checkpoint_bytes(one.optimizer),
        }
        for one in contestants
    ]


def comparisons(rows: list[dict[str, Any]], energy: dict[str, float]) -> list[dict[str, Any]]:
    """Return results of `compare_optimizers` and `captured_energy` as `name, ours, peer, ratio`.

    ratio: peer / ours, so it is above 1 where ours takes less time or memory. The peer of an energy
    is 1, the energy of the exact basis. AdamW and LoRA have no basis to compute or refresh.
    """
    ours = next(row for row in rows if row["name"] == "GaLore, here")
    pairs = [
        (f"{key.replace('_', ' ')}: {peer['name']}", ours[key], peer[key])
        for peer in rows
        if peer is not ours
        for key in ("first_step", "plain_step", "refresh_step", "state_bytes", "checkpoint_bytes")
        if peer["name"] == PUBLISHED or key not in ("first_step", "refresh_step")
    ]
    pairs += [(f"energy: {key.replace('_', ' ')}", held, 1.0) for key, held in energy.items()]
    return [
        {"name": name, "ours": mine, "peer": peer, "ratio": peer / mine}
        for name, mine, peer in pairs
    ]


def compare_late_stages(
    rounds: int = 7, steps: int = SHORT // 10, from_stage: int = 2
) -> dict[str, Any]:
    """Compare steps of MedSAGa's GaLore with those of torch's AdamW on LiteMedSAM's late stages.

    Args:
        rounds: of the turns; the medians count.
        steps: of each in a round; GaLore renews its bases in one of them.
        from_stage: the first stage that is trained.

    Returns:
        the mean seconds of a step, `ours` and `peer` (AdamW with `foreach`), and their `ratio`,
        with the recipe's own steps between two refreshes, which are in `refresh_every`;
        `short_ratio` is that of a run of 150 steps, which renews its bases after `steps`.
    """
    groups = late_stages(steps, from_stage)
    weights = [W for group in groups for W in group["params"]]
    gradients = [W.grad for W in weights if W.grad is not None]
    copies = [W.detach().clone().requires_grad_() for W in weights]
    adamw = torch.optim.AdamW(copies, lr=1e-4, weight_decay=DECAY, foreach=True)
    ours = Contestant("GaLore, here", weights, gradients, GaLoreAdamW(groups))
    peer = Contestant("AdamW, foreach", copies, gradients, adamw)
    for turn in range(rounds + 1):
        for one in (ours, peer):
            first, *others = (one.step() for _ in range(steps))
            if turn:  # the first turn makes the states
                one.refresh.append(first)  # of AdamW, a step like the others
                one.plain.append(median(others or [first]))
    every = _medsaga().refresh
    pairs = [*zip(ours.plain, ours.refresh, peer.plain, strict=True)]
    means = [plain + (refresh - plain) / every for plain, refresh, _ in pairs]
    ratios = [other / mine for mine, (*_, other) in zip(means, pairs, strict=True)]
    short = [other / (plain + (refresh - plain) / steps) for plain, refresh, other in pairs]
    return {
        "ours": median(means),
        "peer": median(peer.plain),
        "ratio": median(ratios),
        "ratios": [min(ratios), max(ratios)],
        "refresh_every": every,
        "short_ratio": median(short),
    }


def late_stages(refresh: int, from_stage: int = 2) -> list[dict[str, Any]]:
    """Return the groups of MedSAGa's GaLore on LiteMedSAM's late stages, with random gradients.

    Args:
        refresh: steps between two refreshes.
        from_stage: the first stage that is trained.
    """
    encoder = build_sam("lite_medsam", 64).image_encoder
    how = replace(_medsaga(), from_stage=from_stage, refresh=refresh)
    how.attach(encoder)
    groups = how.groups(encoder, lr=1e-4, weight_decay=DECAY, seed=0, steps=0)
    generator = torch.Generator().manual_seed(0)
    for W in (W for group in groups for W in group["params"]):
        W.grad = torch.randn(W.shape, generator=generator)
    return groups


def _medsaga() -> "GaLore":
    from medsaga_lib.recipes import get_recipe
    from medsaga_lib.recipes.encoder import GaLore

    how = get_recipe("medsaga").image_encoder
    assert isinstance(how, GaLore)
    return how


def captured_energy(
    refresh: int = 10, steps: int = 41, size: int = 128, seed: int = 0
) -> dict[str, float]:
    """Return the gradient energy in our basis as a ratio to that in the exact basis.

    The gradients come from training MedSAGa on phantom chest X-rays with the pocket SAM. Returned
    are the mean and the smallest ratio over all matrices and refreshes, for the first basis
    (`cold`) and for later ones (`warm`).
    """
    from medsaga_lib.data.catalog import open_dataset
    from medsaga_lib.data.shots import choose_shots
    from medsaga_lib.data.transforms import Augment
    from medsaga_lib.recipes import get_recipe
    from medsaga_lib.recipes.build import build_model, build_optimizer
    from medsaga_lib.training.batches import Batches
    from medsaga_lib.training.losses import cross_entropy_dice, reduce_labels

    recipe, dataset = get_recipe("medsaga"), open_dataset("phantom_cxr")
    model = build_model(recipe, "pocket", size, len(dataset.labels), seed=seed)
    groups = build_optimizer(recipe, model, seed).param_groups
    for group in groups:
        if group["rank"] is not None:
            group["refresh"] = refresh
    optimizer = _Watched(groups)
    batches = Batches(choose_shots(dataset, 16, size, seed), 4, Augment(recipe.augmentation), seed)
    for step in range(steps):
        batch = [batches[step, place] for place in range(batches.batch)]
        images, labels = (torch.stack(parts) for parts in zip(*batch, strict=True))
        logits = model(images)
        optimizer.zero_grad()
        cross_entropy_dice(logits, reduce_labels(labels, logits)).total.backward()
        optimizer.step()
    ratios = {"cold": optimizer.cold, "warm": optimizer.warm}
    return {f"{k}_{f.__name__}": f(v) for k, v in ratios.items() for f in (mean, min)}


class _Watched(GaLoreAdamW):
    """A GaLoreAdamW that compares each new basis with the exact one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.cold: list[float] = []
        self.warm: list[float] = []
        super().__init__(*arguments, **options)

    def _project(
        self, index: int, group: dict[str, Any], W: Tensor, G: Tensor
    ) -> tuple[Tensor, Tensor]:
        before = self.state[W].get("basis") if W in self.state else None
        P, R = super()._project(index, group, W, G)
        if P is not before:
            exact = torch.linalg.svdvals(G)[: group["rank"]].square().sum()
            if exact > 0:
                kept = self.cold if before is None else self.warm
                kept.append((R.square().sum() / exact).item())
        return P, R


def _contestants(backbone: str, rank: int, period: int, seed: int) -> list[Contestant]:
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        encoder = build_sam(backbone).image_encoder
        adapted = build_sam(backbone).image_encoder
        LoRA(rank=LORA_RANK, targets=("q", "v")).attach(adapted)  # by peft
    shapes = [tuple(p.shape) for n, p in encoder.named_parameters() if n.endswith(MATRICES)]
    gradients = [_gradient(shape, generator) for shape in shapes]
    thin = [tuple(p.shape) for p in adapted.parameters() if p.requires_grad]  # A and B
    of_lora = [torch.randn(shape, generator=generator) for shape in thin]

    def contestant(
        name: str, gradients: list[Tensor], build: Callable[[list], torch.optim.Optimizer]
    ) -> Contestant:
        weights = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
        return Contestant(name, weights, gradients, build(weights))

    published = _published()
    options = {"rank": rank, "scale": 0.25, "weight_decay": DECAY}
    return [
        contestant("AdamW", gradients, torch.optim.AdamW),
        contestant(
            "GaLore, here",
            gradients,
            lambda weights: GaLoreAdamW([{"params": weights, "refresh": period, **options}]),
        ),
        contestant(
            PUBLISHED,
            gradients,
            lambda weights: published(
                [{"params": weights, "update_proj_gap": period, "proj_type": "std", **options}],
                no_deprecation_warning=True,
            ),
        ),
        contestant(f"LoRA, r = {LORA_RANK}", of_lora, torch.optim.AdamW),
    ]


def _gradient(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return a random matrix whose singular values fall slowly."""
    side = min(shape)
    scale = torch.arange(1, side + 1) ** -SPECTRUM
    noise = torch.randn(shape, generator=generator)
    return noise * (scale[:, None] if shape[0] == side else scale)


def _published() -> Callable[..., torch.optim.Optimizer]:
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from galore_torch import GaLoreAdamW as Published
    except ImportError as error:
        raise UserError(
            f"galore-torch cannot be imported ({error}); run "
            'pip install "medsaga-lib[galore]" bitsandbytes transformers.'
        ) from error
    return Published


def _checkpoint_bytes(optimizer: torch.optim.Optimizer) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.pt")
        torch.save(optimizer.state_dict(), path)
        return path.stat().st_size
