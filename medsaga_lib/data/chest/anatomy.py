"""The parameters of a drawn patient and of a drawn image, and their ranges."""

from dataclasses import dataclass
from typing import Literal

from medsaga_lib.data.chest.profiles import Random

Projection = Literal["PA", "AP"]


@dataclass(frozen=True)
class Anatomy:
    """The parameters that are the same in all images of a patient."""

    cage: float  # half-width of the rib cage inside, at its widest
    apex: float  # y of the tips of the lungs
    dome: float  # y of the top of the right diaphragm
    left_drop: float  # how much lower the left diaphragm is
    angle: float  # how much lower the costophrenic angles are than the dome
    middle: float  # half-width of the mediastinum
    heart: float  # width of the heart relative to the rib cage
    tall: float  # height of the heart relative to the lung
    lean: float  # position of the tip of the heart; positive: lower
    knob: float  # size of the aortic knob
    rib_drop: float  # how much lower a rib ends in front than at the spine
    rib_width: float  # half the thickness of a rib
    bone: float  # density of the bones
    flesh: float  # thickness of the body wall
    breast: float  # thickness of the breasts
    curve: float  # sideways bend of the spine
    bubble: float  # gas in the stomach

    @classmethod
    def draw(cls, random: Random) -> "Anatomy":
        """Draw a random patient."""
        return cls(**_uniform(random, ANATOMY))


@dataclass(frozen=True)
class View:
    """The parameters that differ between images of one patient: breath, pose and exposure."""

    height: float  # height of the image relative to its width
    breath: float  # how much lower the diaphragm is than in a deep breath; negative: higher
    scale: float  # size of the patient in the image
    turn: float  # rotation in degrees
    right: float  # shift to the right
    down: float  # shift down
    twist: float  # rotation about the spine, as a shift of the front relative to the back
    contrast: float  # exponent of the tone curve
    dark: float  # grey level of the least dense tissue
    bright: float  # grey level of the densest tissue
    flatten: float  # share of the slow brightness changes that the image processing removes
    noise: float  # strength of the quantum noise

    @classmethod
    def draw(cls, random: Random, projection: Projection) -> "View":
        """Draw a random view of a patient, standing (PA) or in bed (AP)."""
        return cls(**_uniform(random, VIEWS[projection]))


ANATOMY = {
    "cage": (0.36, 0.43),
    "apex": (0.07, 0.15),
    "dome": (0.69, 0.78),
    "left_drop": (0.012, 0.045),
    "angle": (0.07, 0.15),
    "middle": (0.055, 0.075),
    "heart": (0.42, 0.53),
    "tall": (0.44, 0.54),
    "lean": (-1.0, 1.0),
    "knob": (0.6, 1.3),
    "rib_drop": (0.20, 0.28),
    "rib_width": (0.011, 0.015),
    "bone": (0.7, 1.2),
    "flesh": (0.03, 0.07),
    "breast": (-0.12, 0.12),
    "curve": (-0.012, 0.012),
    "bubble": (-0.5, 1.0),
}
VIEWS = {
    "PA": {
        "height": (0.95, 1.1),
        "breath": (-0.04, 0.03),
        "scale": (0.92, 1.04),
        "turn": (-2.5, 2.5),
        "right": (-0.03, 0.03),
        "down": (-0.03, 0.03),
        "twist": (-0.012, 0.012),
        "contrast": (0.75, 1.15),
        "dark": (0.05, 0.25),
        "bright": (0.72, 0.95),
        "flatten": (0.25, 0.55),
        "noise": (0.004, 0.012),
    },
    "AP": {
        "height": (0.82, 0.95),
        "breath": (-0.14, -0.02),
        "scale": (0.98, 1.15),
        "turn": (-6, 6),
        "right": (-0.05, 0.05),
        "down": (-0.02, 0.06),
        "twist": (-0.03, 0.03),
        "contrast": (0.65, 1.05),
        "dark": (0.08, 0.35),
        "bright": (0.75, 0.98),
        "flatten": (0.4, 0.65),
        "noise": (0.008, 0.02),
    },
}


def _uniform(random: Random, ranges: dict[str, tuple[float, float]]) -> dict[str, float]:
    return {name: float(random.uniform(*ends)) for name, ends in ranges.items()}
