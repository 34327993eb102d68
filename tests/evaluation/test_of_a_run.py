"""The evaluation of a run on a split: its files, their place, and what cannot be scored."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from runs import SMALL, prompted_run, short, train

from medsaga_lib.data.cases import read_case_mask, read_pair
from medsaga_lib.errors import UserError
from medsaga_lib.evaluation import of_a_run
from medsaga_lib.evaluation.metrics import dice
from medsaga_lib.evaluation.of_a_run import TRUTH_PROMPTS, drawn, evaluate_run, evaluation_folder
from medsaga_lib.evaluation.scores import Evaluation
from medsaga_lib.inference.predictor import load_run
from medsaga_lib.training.run_folder import read_run


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(short("decoder_only", steps=20), dataset, 4, folder, **SMALL)
    return folder


def test_evaluation_writes_csv_json_and_figure(run, dataset, tmp_path):
    evaluation = evaluate_run(run, dataset, "test", tmp_path / "e")
    assert {p.name for p in (tmp_path / "e").iterdir()} == {
        "cases.csv", "summary.json", "figure.png",
    }  # fmt: skip
    summary = json.loads((tmp_path / "e/summary.json").read_text())
    assert {"dice", "hd95", "nsd", "classes", "cases"} <= set(summary)
    assert [c["name"] for c in summary["classes"]] == ["right lung", "left lung", "heart"]
    assert len(summary["cases"]) == len(dataset.split("test"))
    assert evaluation.summary()["dice"] == pytest.approx(summary["dice"])
    assert (summary["data"], summary["split"]) == (dataset.name, "test")
    assert not {"prompts", "seen"} & summary.keys()
    assert Image.open(tmp_path / "e/figure.png").width > 600


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.5, 0.9, 0.1, 0.7], {"worst": "c", "middle": "d", "best": "b"}),
        ([0.5, math.nan, 0.1], {"worst": "c", "best": "a"}),  # b has no object
        ([0.5], {"best": "a"}),
        ([math.nan], {}),
    ],
)
def test_the_figure_shows_the_worst_the_middle_and_the_best_case(scores, expected):
    table = pd.DataFrame({"case": list("abcd")[: len(scores)], "dice": scores})
    assert drawn(Evaluation(table)) == expected


def test_the_scores_are_those_of_the_runs_own_predictions(run, dataset, tmp_path):
    table = evaluate_run(run, dataset, "val", tmp_path / "e").table.set_index(["case", "class"])
    case = dataset.split("val")[0]
    picture, truth = read_pair(dataset, case)
    prediction = load_run(run)(picture)
    assert table.loc[case.name, "dice"].max() > 0.1
    for value, name in dataset.labels.items():
        found = table.loc[(case.name, name), "dice"]
        assert found == pytest.approx(dice(prediction == value, truth == value), nan_ok=True)


def test_a_mask_that_is_not_its_images_is_not_scored(run, dataset, tmp_path):
    case = dataset.split("test")[0]
    values = read_case_mask(dataset, case).values.astype(np.uint8)
    values[0, 0] = 9
    Image.fromarray(values).save(tmp_path / "mask.png")
    wrong = replace(dataset, cases=(replace(case, mask=tmp_path / "mask.png"),))
    with pytest.raises(UserError, match=r"mask\.png.*9"):
        evaluate_run(run, wrong, "test", tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_labels_must_be_those_of_the_run(run, dataset, tmp_path):
    other = replace(dataset, labels={1: "spleen"})
    with pytest.raises(UserError, match=r"has the labels .*spleen.*was trained for .*heart"):
        evaluate_run(run, other, "test", tmp_path)


def test_no_evaluation_replaces_another(run, dataset):
    folders = [
        evaluation_folder(run, dataset, "test"),
        evaluation_folder(run, dataset, "val"),
        evaluation_folder(run, replace(dataset, name="other"), "test"),
    ]
    names = ["evaluation", f"evaluation-{dataset.name}-val", "evaluation-other-test"]
    assert folders == [run / name for name in names]


@pytest.mark.parametrize(
    ("name", "settings", "word"),
    [
        ("polyp_kvasir", {"backbone": "lite_medsam", "weights": "pretrained"}, "likely"),
        ("my_own_scans", {"backbone": "lite_medsam", "weights": "pretrained"}, "not known"),
        ("my_own_scans", {"backbone": "pocket", "weights": "pretrained"}, "no"),
        ("polyp_kvasir", {"backbone": "pocket", "weights": "mine.pth"}, "not known"),
        ("polyp_kvasir", {"backbone": "pocket", "weights": "random"}, None),
        ("polyp_kvasir", {"backbone": "none", "weights": "pretrained"}, None),
        ("phantom_cxr", {"backbone": "lite_medsam", "weights": "pretrained"}, None),
    ],
)
def test_the_summary_says_whether_the_backbone_saw_the_images(
    name, settings, word, run, dataset, tmp_path, monkeypatch
):
    written = read_run(run)
    written |= {"settings": written["settings"] | settings}
    monkeypatch.setattr(of_a_run, "read_run", lambda folder: written)
    monkeypatch.setattr(of_a_run, "_write_figure", lambda *parts: None)
    few = replace(dataset, name=name, cases=dataset.split("test")[:1])
    evaluate_run(run, few, "test", tmp_path / "e")
    assert json.loads((tmp_path / "e/summary.json").read_text()).get("seen") == word


@pytest.mark.parametrize("kind", ["points", "boxes"])
def test_prompts_are_taken_from_the_truth_and_the_summary_says_so(kind, dataset, tmp_path):
    run = prompted_run(kind, dataset, tmp_path)
    first, second = (evaluate_run(run, dataset, "test", tmp_path / name) for name in "ef")
    summary = json.loads((tmp_path / "e/summary.json").read_text())
    assert summary["prompts"] == TRUTH_PROMPTS[kind]
    assert first.table.equals(second.table)
