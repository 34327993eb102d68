"""The shipped weights: where they come from, and that they answer prompts."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pictures import discs
from safetensors import safe_open
from safetensors.torch import load_file

from medsaga_lib.data.images import Picture
from medsaga_lib.data.prompts import box_of
from medsaga_lib.evaluation.scores import over_seeds
from medsaga_lib.files import file_hash
from medsaga_lib.inference.box_predictor import BoxPredictor
from medsaga_lib.models import sam as architecture
from medsaga_lib.models.feeding import LONGEST_SIDE
from medsaga_lib.models.sam import build_sam
from medsaga_lib.models.weights import WEIGHT_FILES

SHIPPED = Path(architecture.__file__).with_name("pocket.safetensors")
RECORDED = Path(__file__).parents[2] / "notebooks" / "recorded"


@pytest.fixture(scope="module")
def pocket():
    sam = build_sam("pocket")
    sam.load_state_dict({key: value.float() for key, value in load_file(SHIPPED).items()})
    return sam.eval()


def test_shipped_weights_fit_strictly_and_say_where_they_come_from(pocket):
    assert SHIPPED.stat().st_size <= 10e6
    with safe_open(SHIPPED, "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
        settings = json.loads(file.metadata()["settings"])
    assert settings["size"] == 256


def test_segment_anythings_predictor_runs_on_them(pocket):
    """`SamPredictor` and our predictor with SAM's feed give the same mask for a box."""
    from segment_anything import SamPredictor  # works once medsaga_lib is imported

    image, truth = discs()
    predictor = SamPredictor(pocket)
    predictor.set_image(image)
    masks, scores, _ = predictor.predict(box=box_of(truth[0]), multimask_output=False)
    ours = BoxPredictor(pocket, feed=LONGEST_SIDE)
    labels = ours(Picture(image / 255, (1.0, 1.0)), box_of(truth[0])[None])
    np.testing.assert_array_equal(masks[0], labels == 1)
    assert 0 < scores[0] < 1.2
    assert masks.shape == (1, 256, 256)


def test_segment_anythings_automatic_masks_run_on_them(pocket):
    """Its own code does it all: the grid of points, the IoU filter, non-maximum suppression."""
    from segment_anything import SamAutomaticMaskGenerator

    image, truth = discs()
    generator = SamAutomaticMaskGenerator(
        pocket, points_per_side=6, pred_iou_thresh=0.5, stability_score_thresh=0.5
    )
    found = generator.generate(image)
    assert found
    assert all(record["segmentation"].shape == (256, 256) for record in found)
    best = [
        max((f["segmentation"] & mask).sum() / (f["segmentation"] | mask).sum() for f in found)
        for mask in truth
    ]
    assert max(best) > 0.7


def test_it_answers_boxes_which_random_weights_do_not(pocket):
    """The model card has the numbers on real images."""
    torch.manual_seed(0)
    untrained = build_sam("pocket").eval()
    image, truth = discs()
    boxes = torch.tensor([box_of(mask).tolist() for mask in truth])

    def overlap(sam):
        predictor = BoxPredictor(sam)
        labels = predictor(Picture(image / 255, (1.0, 1.0)), boxes.double().numpy())
        masks = [labels == number for number in range(1, 1 + len(truth))]
        return np.mean([(m & t).sum() / (m | t).sum() for m, t in zip(masks, truth, strict=True)])

    assert overlap(pocket) > 0.85
    assert overlap(pocket) > overlap(untrained) + 0.4


def test_recorded_runs_begin_with_them():
    """No recorded table shows runs that began with older weights."""
    runs = [r for f in RECORDED.glob("*.json") for r in json.loads(f.read_text()).get("runs", [])]
    begun = [run for run in runs if run.get("weights") == "pretrained"]
    known = {"pocket": file_hash(SHIPPED)}
    known["lite_medsam"] = str(WEIGHT_FILES["lite_medsam"].known_hash).removeprefix("sha256:")
    for backbone, sha256 in known.items():
        ours = [run for run in begun if f"--backbone {backbone} " in run["command"]]
        assert ours
        assert not [run["command"] for run in ours if run["backbone_sha256"] != sha256]


def test_model_card_says_what_was_recorded_of_their_value():
    card = SHIPPED.with_suffix(".md").read_text(encoding="utf-8")
    runs = pd.DataFrame(json.loads((RECORDED / "pretraining_value.json").read_text())["runs"])
    organs = {"cxr_hannover_lungs": "lungs", "hippocampus_msd": "hippocampus"}
    tasks = runs.assign(start=runs["recipe"] + " " + runs["weights"]).groupby(["data", "shots"])
    assert len(tasks) > 1
    for (data, shots), part in tasks:
        dice = part.pivot(index="seed", columns="start", values="dice")
        ours, others = dice["medsaga pretrained"], dice[["medsaga random", "unet random"]]
        cells = ["{:.3f} ± {:.3f}".format(*over_seeds(d)) for d in (ours, *others.T.values)]
        cells += ["{:+.3f} ± {:.3f}".format(*over_seeds(ours - d)) for d in others.T.values]
        assert f"| {organs.get(data, 'polyps')}, {shots} | {' | '.join(cells)} |" in card
