"""Comparisons of methods: against scipy, statsmodels, and simulations with known answers."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from medsaga_lib.errors import UserError
from medsaga_lib.evaluation.compare import _crossed, _needed, compare, detectable, scores_of

RANDOM = np.random.default_rng(7)


def table(differences, cases=1):
    """Scores of the methods a and b, b - a as given (seeds, patients), `cases` for each patient."""
    rows = []
    for seed, values in enumerate(differences):
        for patient, value in enumerate(values):
            for number in range(cases if np.isscalar(cases) else cases[patient]):
                base = RANDOM.random()
                for method, score in (("a", base), ("b", base + value)):
                    rows.append((method, seed, f"{patient}_{number}", f"p{patient}", score))
    return pd.DataFrame(rows, columns=["method", "seed", "case", "patient", "score"])


def test_one_seed_is_the_paired_t_test():
    values = RANDOM.normal(0.05, 0.1, (1, 30))
    (one,) = compare(table(values), "a")
    expected = stats.ttest_1samp(values[0], 0).confidence_interval(0.95)
    assert (one.method, one.seeds, one.patients) == ("b", 1, 30)
    assert one.mean == pytest.approx(values.mean())
    assert one.over_both == pytest.approx(tuple(expected))
    assert math.isnan(one.over_seeds[0])
    assert one.effect == pytest.approx(values.mean() / values.std(ddof=1))
    assert one.p == pytest.approx(stats.ttest_1samp(values[0], 0).pvalue, abs=0.02)


def test_few_patients_give_the_exact_p_of_all_signs():
    values = np.array([[0.1, 0.2, 0.3, 0.4, -0.05]])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1).T
    means = (signs * values[0]).mean(1)
    expected = (np.abs(means) >= values.mean() - 1e-12).mean()
    assert compare(table(values), "a")[0].p == pytest.approx(expected)


def test_patients_count_by_their_cases():
    """The mean is over cases, and a patient's cases are one observation."""
    values = np.array([[0.0, 0.3, 0.1, 0.2]])
    counts = [4, 1, 2, 1]
    (one,) = compare(table(values, counts), "a")
    assert one.mean == pytest.approx(np.average(values[0], weights=counts))
    # Cochran 1977, (6.13): variance of a ratio of totals over a sample of clusters
    apart = np.array(counts) * (values[0] - one.mean)
    error = math.sqrt((apart**2).sum() / 3 / 4) / np.mean(counts)
    low, high = one.over_both
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 3) * error)


@pytest.mark.filterwarnings("ignore:The MLE may be on the boundary")
def test_seeds_and_patients_are_the_random_effects_of_statsmodels():
    seeds, patients = 4, 8
    values = 0.1 + RANDOM.normal(0, 0.05, (seeds, 1)) + RANDOM.normal(0, 0.08, (1, patients))
    values = values + RANDOM.normal(0, 0.03, (seeds, patients))
    (one,) = compare(table(values), "a")
    frame = pd.DataFrame(
        [(s, p, values[s, p]) for s in range(seeds) for p in range(patients)],
        columns=["seed", "patient", "y"],
    )
    parts = {"seed": "0 + C(seed)", "patient": "0 + C(patient)"}
    model = MixedLM.from_formula("y ~ 1", frame, groups=np.ones(len(frame)), vc_formula=parts)
    fitted = model.fit(reml=True)
    half = (one.over_both[1] - one.over_both[0]) / 2
    least, most = (stats.t.ppf(0.975, free) for free in (seeds + patients - 2, seeds - 1))
    assert least * fitted.bse["Intercept"] < half < most * fitted.bse["Intercept"]
    assert one.mean == pytest.approx(fitted.fe_params.iloc[0], abs=1e-6)


def test_the_interval_over_both_holds_the_truth_as_often_as_it_says():
    seeds, patients, runs = 3, 20, 400
    hits = 0
    for _ in range(runs):
        values = 0.02 + RANDOM.normal(0, 0.03, (seeds, 1)) + RANDOM.normal(0, 0.1, (1, patients))
        values = values + RANDOM.normal(0, 0.05, (seeds, patients))
        low, high = _crossed(values)
        hits += low <= 0.02 <= high
    assert abs(hits / runs - 0.95) < 4 * math.sqrt(0.95 * 0.05 / runs)


def test_the_needed_patients_find_it_four_times_in_five():
    values = RANDOM.normal(0.05, 0.1, (1, 40))
    (one,) = compare(table(values), "a")
    many = RANDOM.normal(one.effect, 1, (4000, int(one.needed)))
    found = (stats.ttest_1samp(many, 0, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.03)
    smallest = detectable(table(values), "b", "a")
    many = RANDOM.normal(smallest, values.std(ddof=1), (4000, 40))
    assert (stats.ttest_1samp(many, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.03)


def test_holm_adjusts_for_the_number_of_methods():
    values = RANDOM.normal(0.03, 0.1, (1, 30))
    both = pd.concat(
        [table(values), *(table(values * k).query("method == 'b'").replace("b", name)
                          for k, name in ((0.5, "c"), (0.1, "d")))]
    )  # fmt: skip
    found = compare(both, "a")
    expected = multipletests([one.p for one in found], method="holm")[1]
    np.testing.assert_allclose([one.p_holm for one in found], expected)
    assert found[0].p_holm != found[0].p


def test_equal_methods_are_not_told_apart():
    (one,) = compare(table(np.zeros((2, 6))), "a")
    assert (one.mean, one.p, one.effect, one.needed) == (0, 1, 0, math.inf)


def test_a_case_without_a_score_is_left_out_for_every_seed():
    scores = table(np.array([[0.1, 0.2, 0.9], [0.1, 0.2, 0.9]]))
    lost = (scores["method"] == "b") & (scores["case"] == "2_0") & (scores["seed"] == 1)
    scores.loc[lost, "score"] = np.nan
    (one,) = compare(scores, "a")
    assert one.patients == 2
    assert one.mean == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("change", "baseline", "said"),
    [
        (lambda s: s, "c", "Cannot compare a, b with c"),
        (lambda s: s[s["method"] == "a"], "a", "give it and another method"),
        (lambda s: s[s["patient"] == "p0"], "a", "fewer than 2 patients"),
        (lambda s: s.assign(seed=s["seed"] + (s["method"] == "b")), "a", "with the same seed"),
    ],
)
def test_what_cannot_be_compared(change, baseline, said):
    with pytest.raises(UserError, match=said):
        compare(change(table(np.ones((1, 4)))), baseline)


@pytest.fixture
def runs(tmp_path):
    """Folders of 4 evaluated runs: 2 methods with 2 seeds."""
    from dataclasses import asdict

    from medsaga_lib.training.run_folder import RUN_FILE, RunSettings

    folders = []
    for recipe, gain in (("samed", 0.1), ("unet", 0.0)):
        for seed in (0, 1):
            folder = tmp_path / f"{recipe}{seed}"
            (folder / "evaluation").mkdir(parents=True)
            settings = RunSettings(shots=4, size=64, feed="squeeze", recipe=recipe, data="lungs",
                                   steps=5, batch=2, seed=seed, changes=("lr=0.1",))  # fmt: skip
            content = {"settings": asdict(settings), "labels": {}, "modality": "CT"}
            content |= {"window": None, "backbone_sha256": None}
            (folder / RUN_FILE).write_text(json.dumps(content), encoding="utf-8")
            rows = [f"00{case},00{case},{name},{0.5 + gain * (1 + 0.1 * case)}"
                    for case in range(5) for name in ("right", "left")]  # fmt: skip
            text = "\n".join(["case,patient,class,dice", *rows])
            (folder / "evaluation" / "cases.csv").write_text(text, encoding="utf-8")
            folders.append(folder)
    return folders


def test_the_command(runs, medsaga):
    code, out, _ = medsaga("compare", *map(str, runs), "--baseline", "unet", "--json")
    assert code == 0
    (one,) = json.loads(out)["differences"]
    assert (one["method"], one["seeds"], one["patients"]) == ("samed", 2, 5)
    assert one["mean"] == pytest.approx(0.12)
    code, out, _ = medsaga("compare", *map(str, runs))
    assert "dice of samed: 0.620" in out
    assert "-0.120" in out


def test_equal_runs_have_no_number_of_patients(runs, medsaga):
    other = (runs[0] / "evaluation" / "cases.csv").read_bytes()
    (runs[2] / "evaluation" / "cases.csv").write_bytes(other)
    code, out, _ = medsaga("compare", str(runs[0]), str(runs[2]), "--json")
    assert code == 0
    assert json.loads(out)["differences"][0]["needed"] is None
    code, out, _ = medsaga("compare", str(runs[0]), str(runs[2]))
    assert code == 0
    assert out.splitlines()[3].split()[-2:] == ["5", "-"]


def test_faulty_runs_get_one_sentence(runs, medsaga):
    (runs[0] / "evaluation" / "cases.csv").unlink()
    code, _, said = medsaga("compare", *map(str, runs))
    assert (code, said.count("\n")) == (2, 1)
    assert "cases.csv: is missing; run `medsaga evaluate` first" in said
    code, _, said = medsaga("compare", str(runs[1]), str(runs[1]))
    assert (code, said.count("\n")) == (2, 1)
    assert "are both samed with seed 1; omit one" in said


def test_settings_that_differ_are_part_of_the_name(runs):
    from medsaga_lib.training.run_folder import method_names

    path = runs[1] / "run.json"
    text = path.read_text(encoding="utf-8").replace('"size": 64', '"size": 128')
    path.write_text(text.replace("lr=0.1", "lr=0.2"), encoding="utf-8")
    assert [name for name, _ in method_names(runs)] == [
        "samed:lr=0.1:size=64", "samed:lr=0.2:size=128", "unet", "unet",
    ]  # fmt: skip


def test_a_score_that_does_not_exist(runs):
    with pytest.raises(UserError, match="no score iou; give one of dice, hd95, nsd"):
        scores_of([("a", 0, runs[0] / "evaluation")], "iou")


@pytest.mark.parametrize("effect", [0.02, 0.3, 1.0, 3.0])
def test_needed_is_the_first_number_with_enough_power(effect):
    needed, power = _needed(effect), TTestPower().power
    assert power(effect, needed, 0.05) >= 0.8
    assert needed == 2 or power(effect, needed - 1, 0.05) < 0.8


@pytest.mark.parametrize("effect", [99.0, 700.0, -1e6, math.inf])
def test_a_difference_that_is_nearly_constant_needs_two_patients(effect):
    assert _needed(effect) == 2
