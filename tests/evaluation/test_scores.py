"""Results over cases against hand arithmetic, a slow bootstrap, and data sets on disk."""

import json
import math
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from medsaga_lib.data.cases import read_case_mask
from medsaga_lib.data.dataset import Case, DataSet
from medsaga_lib.errors import UserError
from medsaga_lib.evaluation import scores
from medsaga_lib.evaluation.metrics import score_case
from medsaga_lib.evaluation.scores import (
    BESIDE,
    COLUMNS,
    METRICS,
    Evaluation,
    evaluate_cases,
    over_seeds,
)

NAN = math.nan


def table(rows):
    """Table of rows (case, patient, class, label, dice); the Dice determines the other metrics."""
    return pd.DataFrame(
        [(*row, 10 * row[4], row[4] / 2, 0.0, 0.0, row[4] / 4) for row in rows],
        columns=list(COLUMNS),
    )


@pytest.fixture
def two_classes():
    return Evaluation(
        table(
            [
                ("a", "ann", "spleen", 1, 0.9),
                ("a", "ann", "liver", 6, 0.5),
                ("b", "ann", "spleen", 1, 0.7),
                ("b", "ann", "liver", 6, NAN),
                ("c", "ben", "spleen", 1, NAN),
                ("c", "ben", "liver", 6, 0.1),
            ]
        )
    )


def test_summary_is_the_mean_over_classes_of_the_means_over_cases(two_classes):
    summary = two_classes.summary()
    metrics = {"dice", "hd95", "nsd"}
    intervals = {f"{metric}_interval" for metric in metrics}
    assert set(summary) == metrics | intervals | {
        "synapse",
        "confused",
        "empty",
        "classes",
        "cases",
    }
    assert summary["dice_interval"] == list(two_classes.interval("dice"))
    # spleen (0.9 + 0.7) / 2, liver (0.5 + 0.1) / 2; the mean of all 4 scores is 0.55, too,
    # so `more` below has another case of the spleen
    assert summary["dice"] == pytest.approx((0.8 + 0.3) / 2)
    assert summary["hd95"] == pytest.approx((8 + 3) / 2)
    assert summary["nsd"] == pytest.approx((0.4 + 0.15) / 2)
    assert summary["confused"] == pytest.approx((0.2 + 0.075) / 2)
    assert summary["empty"] == 2

    more = pd.concat([two_classes.table, table([("d", "cleo", "spleen", 1, 0.2)])])
    assert Evaluation(more).summary()["dice"] == pytest.approx((0.6 + 0.3) / 2)


def test_summary_of_classes_and_cases(two_classes):
    summary = two_classes.summary()
    spleen, liver = summary["classes"]
    assert (spleen["name"], spleen["label"], spleen["empty"]) == ("spleen", 1, 1)
    assert (liver["name"], liver["label"], liver["empty"]) == ("liver", 6, 1)
    assert spleen["dice"] == pytest.approx(0.8)
    assert liver["hd95"] == pytest.approx(3)
    a, b, c = summary["cases"]
    assert [case["case"] for case in (a, b, c)] == ["a", "b", "c"]
    assert a["patient"] == "ann"
    assert a["dice"] == pytest.approx(0.7)
    assert b["dice"] == pytest.approx(0.7)  # the class that is absent is ignored
    assert c["classes"][1] == {"name": "liver", "label": 6, "dice": 0.1, "hd95": 1, "nsd": 0.05}


def test_synapse_means():
    frame = table([("a", "ann", "spleen", 1, 1.0), ("b", "ben", "spleen", 1, 1.0)])
    frame["dice_synapse"], frame["hd95_synapse"] = [1.0, 0.0], [4.0, 0.0]
    assert Evaluation(frame).summary()["synapse"] == {"dice": 0.5, "hd95": 2.0}


def random_scores(seed, patients=12, cases_each=4):
    """Table of random scores that vary more between patients than between a patient's cases."""
    generator = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        level = generator.normal(0.7, 0.1)
        for case in range(cases_each):
            for label, name in enumerate(("one", "two"), 1):
                score = level + generator.normal(0, 0.02)
                rows.append((f"{patient}-{case}", str(patient), name, label, score))
    return table(rows)


def test_interval_equals_a_bootstrap_written_as_a_loop():
    frame = random_scores(seed=1)
    frame.loc[::7, "dice"] = NAN
    pairs = frame.groupby("patient")[["label", "dice"]]
    by_patient = [rows.to_numpy() for _, rows in pairs]
    generator = np.random.default_rng(5)
    means = []
    for _ in range(4000):
        drawn = generator.integers(len(by_patient), size=len(by_patient))
        label, score = np.concatenate([by_patient[i] for i in drawn]).T
        means.append(np.mean([np.nanmean(score[label == value]) for value in (1, 2)]))
    low, high = np.quantile(means, [0.025, 0.975])
    ours = Evaluation(frame).interval("dice")
    assert ours == pytest.approx((low, high), abs=0.06 * (high - low))
    assert ours == Evaluation(frame).interval("dice")


def test_interval_covers_the_truth_as_often_as_it_says():
    inside = 0
    for seed in range(200):
        low, high = Evaluation(random_scores(seed, patients=20, cases_each=2)).interval("dice")
        inside += low < 0.7 < high
    # with 20 patients the percentile bootstrap covers less than 95 %; 3 standard errors around it
    assert 0.85 < inside / 200 < 0.99


def test_copies_of_a_patients_cases_do_not_narrow_the_interval():
    once, often = (Evaluation(random_scores(3, cases_each=n)).interval("dice") for n in (1, 30))
    assert (often[1] - often[0]) > 0.7 * (once[1] - once[0])


def test_no_interval_of_one_patient_or_of_no_score():
    frame = table([("a", "ann", "spleen", 1, 0.9), ("b", "ann", "spleen", 1, 0.5)])
    assert np.isnan(Evaluation(frame).interval("dice")).all()
    nothing = table([("a", "ann", "spleen", 1, NAN), ("b", "ben", "spleen", 1, NAN)])
    assert np.isnan(Evaluation(nothing).interval("dice", "spleen")).all()
    assert math.isnan(Evaluation(nothing).summary()["dice"])


def test_save_writes_a_table_and_strict_json(two_classes, tmp_path):
    two_classes.save(tmp_path / "new")
    read = pd.read_csv(tmp_path / "new" / "cases.csv")
    pd.testing.assert_frame_equal(read, two_classes.table)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "new" / "summary.json").read_text()
    saved = json.loads(text, parse_constant=refuse)
    assert saved["dice"] == pytest.approx(0.55)
    assert saved["cases"][1]["classes"][1]["dice"] is None
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "cases.csv",
        "summary.json",
    ]


def written(root, masks, kind="labels", labels=None):
    """Data set whose masks, name -> array, are written as PNG files; it has no image files."""
    cases = []
    for name, mask in masks.items():
        path = root / f"{name}.png"
        Image.fromarray(mask.astype(np.uint8)).save(path)
        cases.append(Case(name, f"patient of {name}", root / "none.png", path, "test"))
    labels = {1: "object"} if kind == "instances" else labels or {}
    return DataSet(root, "d", "X-ray", 2, kind, "CC0", "", labels, None, tuple(cases))


@pytest.mark.parametrize("beside", [0, BESIDE], ids=["one by one", "beside the next"])
def test_evaluate_cases_scores_each_case_by_its_mask(tmp_path, monkeypatch, beside):
    monkeypatch.setattr(scores, "BESIDE", beside)
    generator = np.random.default_rng(0)
    masks = {name: generator.integers(0, 3, (9, 11)) for name in ("a", "b")}
    predictions = {name: generator.integers(0, 3, (9, 11)) for name in masks}
    dataset = written(tmp_path, masks, labels={1: "lung", 2: "heart"})
    result = evaluate_cases(lambda case: predictions[case.name], dataset, dataset.cases).table
    assert list(result.columns) == list(COLUMNS)
    assert result["patient"].tolist() == ["patient of a"] * 2 + ["patient of b"] * 2
    for name, rows in result.groupby("case"):
        expected = score_case(predictions[name], masks[name], dataset.labels, (1.0, 1.0))
        assert rows["class"].tolist() == ["lung", "heart"]
        assert rows[list(METRICS)].to_numpy().tolist() == [list(score[2:5]) for score in expected]


def test_a_case_is_read_while_the_one_before_it_is_predicted(tmp_path):
    """But not the second one: what a network says in its first prediction must be seen."""
    dataset = written(tmp_path, {name: np.ones((4, 4)) for name in "abcd"}, labels={1: "lung"})
    begun = {case.name: threading.Event() for case in dataset.cases}
    done = []

    def read(case):
        begun[case.name].set()
        return None, read_case_mask(dataset, case)

    def predict(case):
        if case.name == "a":
            assert not begun["b"].wait(0.2)
        if case.name in "bc":
            assert begun["c" if case.name == "b" else "d"].wait(60)
        done.append(case.name)
        return np.ones((4, 4), int)

    evaluate_cases(predict, dataset, dataset.cases, read=read)
    assert done == list("abcd")


@pytest.mark.parametrize("beside", [0, BESIDE])
def test_a_damaged_file_stops_at_its_turn(beside, tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "BESIDE", beside)
    dataset = written(tmp_path, {name: np.ones((4, 4)) for name in "abcd"}, labels={1: "lung"})
    (tmp_path / "c.png").write_bytes(b"")
    done = []
    with pytest.raises(UserError, match=r"c\.png.* is empty"):
        evaluate_cases(
            lambda case: done.append(case.name) or np.ones((4, 4), int), dataset, dataset.cases
        )
    assert done == ["a", "b"]


def test_numbered_instances_are_one_class(tmp_path):
    mask = np.zeros((8, 8))
    mask[1:3, 1:3], mask[5:7, 5:7] = 7, 200
    dataset = written(tmp_path, {"a": mask}, kind="instances")
    result = evaluate_cases(lambda case: (mask > 0).astype(int), dataset, dataset.cases)
    assert result.summary()["classes"][0]["name"] == "object"
    assert result.summary()["dice"] == 1


def test_tolerance_is_passed_on(tmp_path):
    mask = np.zeros((20, 20))
    mask[5:10, 5:10] = 1
    dataset = written(tmp_path, {"a": mask}, labels={1: "lung"})
    moved = np.roll(mask, 3, axis=1).astype(int)
    strict, loose = (
        evaluate_cases(lambda case: moved, dataset, dataset.cases, tolerance=t).summary()["nsd"]
        for t in (0.5, 3)
    )
    assert strict < loose == 1


def test_what_cannot_be_evaluated_is_named(tmp_path):
    dataset = written(tmp_path, {"a": np.ones((4, 4))}, labels={1: "lung"})
    (case,) = dataset.cases
    with pytest.raises(UserError, match="no cases"):
        evaluate_cases(lambda case: np.ones((4, 4)), dataset, ())
    with pytest.raises(UserError, match=r"a\.png.*\(4, 4\).*\(5, 4\)"):
        evaluate_cases(lambda case: np.ones((5, 4)), dataset, dataset.cases)
    unlabelled = Case("b", "p", Path("b.png"), None, "test")
    with pytest.raises(UserError, match=r"'b' has no mask"):
        evaluate_cases(lambda case: np.ones((4, 4)), dataset, [case, unlabelled])


def test_the_interval_over_seeds_is_students():
    dice = [0.85, 0.87, 0.84, 0.90, 0.86]
    mean, half = over_seeds(dice)
    low, high = stats.t.interval(0.95, 4, np.mean(dice), np.std(dice, ddof=1) / np.sqrt(5))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert np.isnan(over_seeds([0.9])[1])
