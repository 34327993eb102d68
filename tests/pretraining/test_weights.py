"""The shipped weights: where they come from, and that they answer prompts."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from medsaga_lib.backbones import sam as architecture
from medsaga_lib.backbones.sam import build_sam
from medsaga_lib.data.procedural import TRAINED
from medsaga_lib.data.prompts import CORNER, OPPOSITE_CORNER, box_of
from medsaga_lib.evaluation import over_seeds
from medsaga_lib.files import file_hash
from medsaga_lib.pretraining.pictures import unseen_scenes
from medsaga_lib.pretraining.scores import ask, evaluate, prompted, spread

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
    """`SamPredictor` answers as our own evaluation does."""
    from segment_anything import SamPredictor  # works once medsaga_lib is imported

    (scene,) = unseen_scenes(1, ["blobs"])
    truth = scene.masks([0])[0]
    predictor = SamPredictor(pocket)
    predictor.set_image(scene.image)
    masks, scores, logits = predictor.predict(box=box_of(truth), multimask_output=False)
    ours, our_scores, our_logits = ask(
        pocket, predictor.features, box_of(truth).reshape(2, 2), [CORNER, OPPOSITE_CORNER]
    )
    np.testing.assert_allclose(logits[0], our_logits[0], atol=1e-3)
    np.testing.assert_array_equal(masks[0], ours[0])
    assert scores[0] == pytest.approx(our_scores[0], abs=1e-4)
    assert masks.shape == (1, 256, 256)


def test_segment_anythings_automatic_masks_run_on_them(pocket):
    """A grid of points, the IoU head's filter and non-maximum suppression, all in its own code."""
    from segment_anything import SamAutomaticMaskGenerator

    (scene,) = unseen_scenes(1, ["ellipses"])
    generator = SamAutomaticMaskGenerator(
        pocket, points_per_side=6, pred_iou_thresh=0.5, stability_score_thresh=0.5
    )
    found = generator.generate(scene.image)
    assert found
    assert all(record["segmentation"].shape == (256, 256) for record in found)
    truth = scene.masks()
    best = [
        max((f["segmentation"] & mask).sum() / (f["segmentation"] | mask).sum() for f in found)
        for mask in truth
    ]
    assert max(best) > 0.7


@pytest.fixture(scope="module")
def scores(pocket):
    return evaluate(pocket, prompted(unseen_scenes(16, TRAINED)), clicks=1)


def test_pretraining_taught_it_to_answer_prompts(scores):
    """pocket.md has the figures; an untrained network's box and point are below 0.1."""
    torch.manual_seed(0)
    untrained = build_sam("pocket").eval()
    random = evaluate(untrained, prompted(unseen_scenes(16, TRAINED)), clicks=1)
    assert scores["box"] > random["box"] + 0.5
    assert scores["point"] > random["point"] + 0.4
    assert scores["iou_head"] > 0.6
    assert scores["clicks_1"] > 0.7 * scores["point"]  # the head finds one of the better masks
    assert scores["box"] < scores["ceiling"]


def test_box_prompt_beats_the_ellipse_in_the_box(scores):
    assert scores["box"] > scores["ellipse"] + 0.1


def test_encoder_has_not_collapsed(pocket):
    """The first weights gave nearly the same embedding for every picture, which random ones do not.

    That it looks is shown by the boxes above: an ellipse needs no picture.
    """
    assert spread(pocket) > 0.5


def test_recorded_runs_begin_with_them():
    """New weights leave no table of the old ones behind."""
    runs = [r for f in RECORDED.glob("*.json") for r in json.loads(f.read_text()).get("runs", [])]
    begun = [run for run in runs if run.get("weights") == "pretrained"]
    others = [run["command"] for run in begun if run["backbone_sha256"] != file_hash(SHIPPED)]
    assert begun
    assert not others


def test_model_card_says_what_was_recorded_of_their_value():
    card = SHIPPED.with_suffix(".md").read_text()
    runs = pd.DataFrame(json.loads((RECORDED / "pretraining_value.json").read_text())["runs"])
    organs = {"cxr_hannover_lungs": "lungs", "hippocampus_msd": "hippocampus"}
    tasks = runs.assign(start=runs["recipe"] + " " + runs["weights"]).groupby(["data", "shots"])
    for (data, shots), part in tasks:
        dice = part.pivot(index="seed", columns="start", values="dice")
        ours, others = dice["medsaga pretrained"], dice[["medsaga random", "unet random"]]
        cells = ["{:.3f} ± {:.3f}".format(*over_seeds(d)) for d in (ours, *others.T.values)]
        cells += ["{:+.3f} ± {:.3f}".format(*over_seeds(ours - d)) for d in others.T.values]
        assert f"| {organs.get(data, 'polyps')}, {shots} | {' | '.join(cells)} |" in card
