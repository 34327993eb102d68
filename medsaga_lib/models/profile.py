"""Choose the network and the input size of a chapter by its profile and by what the machine has."""

from dataclasses import dataclass

import torch

from medsaga_lib.errors import UserError
from medsaga_lib.models.weights import fetch

PROFILES = ("quick", "colab")
SIZE_ON_GPU = 256  # px; the input size that LiteMedSAM was trained with


@dataclass(frozen=True)
class Choice:
    """The network that a chapter trains, and a sentence about what was found."""

    backbone: str
    size: int  # pixels along one side of the input
    large: bool  # whether the profile is "colab" and there is a GPU: more pixels and steps
    found: str


def choose(profile: str, size: int, vit_b: int | None = None) -> Choice:
    """Choose a backbone and an input size.

    Args:
        profile: "quick" is LiteMedSAM at `size`. "colab" is a larger run if there is a GPU, and the
            quick one if there is none.
        size: pixels along one side of the quick profile.
        vit_b: pixels along one side of ViT-B, which "colab" uses if its weights are here or can be
            downloaded; None: the chapter uses LiteMedSAM only.

    Raises:
        UserError: there is no such profile.
    """
    if profile not in PROFILES:
        raise UserError(f"There is no profile {profile!r}; choose one of {', '.join(PROFILES)}.")
    gpu = _gpu()
    if profile == "quick":
        found = f"Profile quick: LiteMedSAM at {size} px, on {gpu or 'the CPU'}."
        return Choice("lite_medsam", size, False, found)
    if gpu is None:
        found = (
            f"There is no GPU, so this is the profile quick: LiteMedSAM at {size} px, on the CPU. "
            "On Colab, choose a GPU under Runtime, Change runtime type."
        )
        return Choice("lite_medsam", size, False, found)
    found = f"Profile colab: LiteMedSAM at {SIZE_ON_GPU} px, on {gpu}."
    if vit_b is not None:
        try:
            fetch("vit_b")
        except UserError as error:
            found += f" SAM's ViT-B is not here: {error}"
        else:
            found = f"Profile colab: SAM's ViT-B at {vit_b} px, on {gpu}."
            return Choice("vit_b", vit_b, True, found)
    return Choice("lite_medsam", SIZE_ON_GPU, True, found)


def _gpu() -> str | None:
    """Return the name and memory of the first GPU, as "Tesla T4 (15 GiB)"; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    card = torch.cuda.get_device_properties(0)
    return f"{card.name} ({card.total_memory / 2**30:.0f} GiB)"
