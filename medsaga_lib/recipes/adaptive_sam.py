"""AdaptiveSAM: train biases, norms, positions and the decoder; prompt with the label names."""

from dataclasses import replace

from medsaga_lib.adapt.biases import Biases
from medsaga_lib.recipes.s_sam import S_SAM

ADAPTIVE_SAM = replace(
    S_SAM,
    name="adaptive_sam",
    title="AdaptiveSAM: biases, norms and the decoder, prompted by name",
    source="Paranjape et al. 2023, AdaptiveSAM, arXiv 2308.03726, as S-SAM describes it",
    image_encoder=Biases(),  # as S-SAM describes AdaptiveSAM
    lr=0.005,  # our choice: SAMed's value, not tuned; at 0.01 the model does not fit 4 images
    decoder="whole",  # S-SAM's reviews: "AdaptiveSAM, which trains the decoder"
)
