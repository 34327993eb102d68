"""Whether pretrained weights may have been trained on the images of a data set.

A network scores better on images that it was trained on. `medsaga evaluate` therefore prints the
word that `seen` gives, and chapters print it beside results of LiteMedSAM. The page "Where the
weights come from" of the book shows the same words with their sources.
"""

from dataclasses import dataclass
from typing import Literal

Exposure = Literal["known", "likely", "not known", "no"]


@dataclass(frozen=True)
class Seen:
    """The knowledge about a pair of weights and a data set: one of four words, and the reason.

    known: a published list of the training data of these weights names the data set.
    likely: a list of data that these weights were probably trained on names it, or names data that
        contain its images.
    not known: no list decides it.
    no: the training data are known, and the images are not among them.
    """

    exposure: Exposure
    reason: str


# LiteMedSAM was distilled from MedSAM and published as the baseline of the CVPR 2024 challenge.
# Its authors do not say which of the two training sets it saw, so the challenge's list makes a
# data set "likely", not "known".
_OF_MEDSAM: dict[str, Seen] = {
    "cxr_hannover_lungs": Seen(
        "likely",
        "the challenge's list names the COVID-19 Radiography Database, which contains 183 images "
        "of the same repository, with masks of other annotators",
    ),
    "hippocampus_msd": Seen("not known", "the challenge's list names no data of the hippocampus"),
    "nuclei_dsb2018": Seen(
        "not known", "the challenge's list names other microscopy only (NeurIPS22CellSeg)"
    ),
    "polyp_kvasir": Seen("likely", "the challenge's list names Kvasir-SEG, the same images"),
    "mr_dwi_stroke_isles22": Seen("likely", "the challenge's list names ISLES2022, DWI and ADC"),
    "ct_spleen_msd_crop": Seen(
        "likely",
        "the challenge's list names AbdomenCT-1K, which contains the spleen data of the Decathlon",
    ),
    "ct_mr_multiorgan_totalseg_example": Seen(
        "not known", "the origin of the two test images is not documented"
    ),
    "ct_mr_slices_sammed2d_demo": Seen(
        "likely",
        "the challenge's list names AMOS, the source of 2 of the 4 slices; nothing is known about "
        "the other 2",
    ),
}
_NO_DATA_SET = Seen("not known", "nobody has compared this data set with the training data")
_OTHERS: dict[str, Seen] = {
    "pocket": Seen("no", "pretrained on drawn images only"),
    "vit_b": Seen("no", "trained on SA-1B, which is 11 million photographs"),
    "mobile_sam": Seen("no", "trained on a part of SA-1B, which is photographs"),
    "none": Seen("no", "not pretrained"),
}
OF_MEDSAM = ("lite_medsam", "medsam")  # backbones with the same entries

SEEN: dict[str, dict[str, Seen]] = {
    data: {**_OTHERS, **dict.fromkeys(OF_MEDSAM, entry)} for data, entry in _OF_MEDSAM.items()
}


def seen(backbone: str, data: str) -> Seen:
    """Return what is known about a backbone's pretraining and a data set.

    Args:
        backbone: a backbone of `models.weights`, or "none".
        data: the name of a data set. A name that `SEEN` does not have gives "not known", unless the
            backbone was pretrained on no medical images.
    """
    return SEEN.get(data, _OTHERS).get(backbone, _NO_DATA_SET)
