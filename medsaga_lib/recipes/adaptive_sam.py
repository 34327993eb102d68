"""AdaptiveSAM: biases, norms, positions and the decoder learn, labels are asked for by name."""

from dataclasses import replace

from medsaga_lib.adapt.biases import Biases
from medsaga_lib.recipes.s_sam import S_SAM

ADAPTIVE_SAM = replace(
    S_SAM,
    name="adaptive_sam",
    title="AdaptiveSAM: biases, norms and the decoder, asked by name",
    source="Paranjape et al. 2023, AdaptiveSAM, arXiv 2308.03726: as S-SAM's baseline",
    image_encoder=Biases(),
    lr=0.005,  # our choice, SAMed's, not tuned; at 0.01 four images are not learned
    decoder="whole",  # S-SAM's reviews: "AdaptiveSAM, which trains the decoder"
)
