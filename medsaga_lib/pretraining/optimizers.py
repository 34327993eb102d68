"""Muon for the matrices of a SAM's linear layers, AdamW for all else."""

from segment_anything.modeling import Sam
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from medsaga_lib.pretraining.pictures import Settings

BETAS = (0.9, 0.95)  # of AdamW; the second as in MAE (2111.06377), for fresh second moments


def build_optimizers(sam: Sam, settings: Settings) -> tuple[Optimizer, Optimizer]:
    """Muon and AdamW; each group's `relative_rate` times the run's learning rate is its own.

    Matrices of linear layers are Muon's (Jordan et al. 2024), which gives every direction of a
    gradient the same length, in steps as long as AdamW's (Liu et al., arXiv 2502.16982). Weight
    decay is for them and for convolutions; none for positions, tokens, norms and biases.
    """
    patches = list(sam.image_encoder.patch_embed.parameters())
    matrices = [m.weight for m in sam.modules() if isinstance(m, nn.Linear)]
    filters = [m.weight for m in sam.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    filters = [p for p in filters if all(p is not patch for patch in patches)]
    elsewhere = {id(p) for p in (*patches, *matrices, *filters)}
    rest = [p for p in sam.parameters() if id(p) not in elsewhere]
    muon = Muon(
        [{"params": matrices, "relative_rate": 1.0}],
        weight_decay=settings.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    groups = [
        {"params": filters, "weight_decay": settings.weight_decay, "relative_rate": 1.0},
        {"params": rest, "weight_decay": 0.0, "relative_rate": 1.0},
        {"params": patches, "weight_decay": 0.0, "relative_rate": settings.patch_rate},
    ]
    return muon, AdamW(groups, betas=BETAS)
