"""Plans for small GPUs: SAM's ViT-B, fine-tuned with every way to save memory."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from medsaga_lib.memory.plan import Plan, predict_peak
from medsaga_lib.recipes import get_recipe

# The published batch of SAMed and MedSAGa is 12; the number of classes changes little.
_LEAN = Plan("vit_b", 12, 1024, 8, checkpointing=True, per_layer=True, precision="bf16")


@dataclass(frozen=True)
class NamedPlan:
    """A recipe and a plan, with a name for the memory that they are meant for."""

    name: str
    why: str
    recipe: str
    plan: Plan

    @property
    def command(self) -> str:
        """The command that trains it, but for the data set."""
        plan = self.plan
        flags = {"--checkpointing": plan.checkpointing, "--per-layer": plan.per_layer}
        flags["--bf16"] = plan.precision == "bf16"
        words = ["medsaga", "train", self.recipe, "--backbone", plan.backbone]
        words += ["--size", str(plan.size), "--batch", str(plan.batch)]
        return " ".join([*words, *(flag for flag, on in flags.items() if on), "--data FOLDER"])

    def peak(self) -> int:
        """Predict the peak of a step in bytes."""
        return predict_peak(get_recipe(self.recipe), self.plan)


# Half of the memory is left for the driver, the kernels and what else the GPU shows; our choice.
NAMED_PLANS = (
    NamedPlan(
        "SAM on 8 GB",
        "all weights, at SAM's own 1,024 px",
        "medsaga",
        _LEAN,
    ),
    NamedPlan(
        "SAM on 4 GB",
        "LoRA and the decoder, at the 512 px of SAMed and MedSAGa",
        "samed",
        replace(_LEAN, size=512),
    ),
)


def fitting(limit: int) -> Iterator[tuple[NamedPlan, int]]:
    """Yield the plans whose predicted peak is at most half of `limit` bytes, with their peaks."""
    for named in NAMED_PLANS:
        if 2 * (peak := named.peak()) <= limit:
            yield named, peak
