# %% [markdown]
# # 14. Your own images
#
# **You will be able to**
# - turn a folder of images and masks into a data set, and find its faults before they cost you a training,
# - choose a method by your data, your memory and your validation images,
# - train, evaluate and predict with the command line, and read the notes on images that differ from those of training,
# - hand a trained network to somebody else,
# - answer the question of the first page, with its uncertainty.
#
# **Before this** [Chapter 1](01_images_and_metrics.ipynb) on splits and metrics; [chapter 10](10_few_labels.ipynb) on late stages.
#
# **Budget** 3 minutes on two CPU cores, 2 GB of memory, 0 MB to download

# %% tags=["colab"]
# Colab only: fetch the book and its library. Colab's torch and numpy stay.
import importlib.util, os, subprocess, sys

if "google.colab" in sys.modules:
    book = "/content/book"
    if not os.path.isdir(book):
        address = "https://github.com/medsaga-book/medsaga-book"
        clone = ["git", "clone", "-q", "--depth", "1", address, book]
        subprocess.run(clone, check=True)
    if importlib.util.find_spec("medsaga_lib") is None:
        subprocess.run([sys.executable, book + "/tools/colab.py"], check=True)
    os.chdir(book + "/notebooks")

# %% tags=["parameters"]
profile = "quick"  # "colab" runs the same cells
seed = 0

# %% [markdown]
# ## A folder as it comes, and what the import reads
#
# Nobody gets a data set in the layout of this book. `medsaga data import` reads these layouts: a folder of images and one of masks, where a mask has the name of its image or a name such as `NAME_mask.png`; nnU-Net; the Medical Segmentation Decathlon; COCO; Labelme; and the npz and npy files of MedSAM. The library reads PNG, JPEG, TIFF, NIfTI, DICOM and more formats, in grey or RGB, with 8 or 16 bits. [How to use this book](../book/how-to-use.md#your-own-images) has the commands and all formats.
#
# This chapter starts from two folders of files, once for X-rays and once, with the same functions, for volumes.
# Replace the first folder by your own, and run the cells again.
#
# Where `MEDSAGA_DATA` names no folder, drawn chest X-rays and drawn volumes replace the real ones.

# %% tags=["data"]
from medsaga_lib.data.catalog import open_or_phantoms
from medsaga_lib.data.phantoms import LICENCE

chest = open_or_phantoms("cxr_hannover_lungs")
volumes = open_or_phantoms("hippocampus_msd")
are_real = volumes.dimensions == 3
print(chest.describe())
drawn = f"phantom_volumes: 16 volumes, {LICENCE}"
print(volumes.describe() if are_real else drawn)

# %% [markdown]
# The next cells write what a hospital might send: X-rays of 16 patients with 12 bits in files of 16 bits, masks from a web tool in another folder, and names made of patient and visit.

# %%
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from medsaga_lib.data.cases import read_pair

# %%
temporary = Path(tempfile.mkdtemp())
sent = temporary / "sent"


# %%
def write_gray(path, values):
    """Write an array as a grey image with its own number of bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


# %%
patients = list(dict.fromkeys(case.patient for case in chest.cases))
visits = Counter()
for case in chest.cases:
    number = 1 + patients.index(case.patient)
    if number > 16:
        continue
    visits[number] += 1
    name = f"PAT{number:02d}_{visits[number]}"
    xray, truth = read_pair(chest, case)
    stored = (4095 * xray.pixels).round().astype(np.uint16)
    write_gray(sent / f"img/{name}.png", stored)
    write_gray(sent / f"annotations/{name}_mask.png", truth.astype(np.uint8))
print(f"{visits.total()} X-rays of {len(visits)} patients")

# %% [markdown]
# Real folders have faults. We plant five that users of such tools report again and again:
#
# 1. the masks of one image were exported at half of its size,
# 2. one mask has a value that is not in the list of labels,
# 3. one mask was saved as a JPEG,
# 4. one patient is written in two ways,
# 5. one X-ray was sent twice, under two patients.
#
# > **Predict.** Which of the five would stop a training with an error? Which would only make its score wrong?

# %%
masks = sorted((sent / "annotations").iterdir())
originals = {path: np.array(Image.open(path)) for path in masks[3:6]}

# %%
half, unknown, lossy = originals
write_gray(half, originals[half][::2, ::2])
spoilt = originals[unknown].copy()
spoilt[:40] = 9
write_gray(unknown, spoilt)
Image.open(lossy).save(lossy.with_suffix(".jpg"))
lossy.unlink()

# %%
import shutil

several = next(n for n, count in visits.items() if count > 1 and n < 10)
for folder, end in (("img", ".png"), ("annotations", "_mask.png")):
    here = sent / folder
    (here / f"PAT{several:02d}_1{end}").rename(here / f"PAT{several}_1{end}")
    shutil.copy(here / f"PAT16_1{end}", here / f"PAT17_1{end}")

# %% [markdown]
# ## Import and check
#
# The command line does all steps of this chapter. The next function runs it in this process and prints what it prints, in lines of 88 characters.

# %%
import shlex
import textwrap

from typer.testing import CliRunner

from medsaga_lib.cli import app
from medsaga_lib.errors import UserError


# %%
def medsaga(*words):
    """Run a command of medsaga, and print the command and its output."""
    words = [str(word) for word in words]
    done = CliRunner().invoke(app, words)
    error, said = done.exception, done.output
    if error and not isinstance(error, (UserError, SystemExit)):
        raise error
    if isinstance(error, UserError):
        said += f"medsaga: {error}"
    command = shlex.join(["medsaga", *words])
    for line in (f"$ {command}", *said.splitlines()):
        line = line.replace(f"{temporary}/", "")
        print(textwrap.fill(line, 88, subsequent_indent="    "))


# %%
first = temporary / "first"
medsaga("data", "import", sent, first)

# %% [markdown]
# Fault 3 cannot be repaired: the values at the borders are gone ([chapter 1](01_images_and_metrics.ipynb)). We ask the annotator for the file without loss. A folder of PNG files says little about itself, so the next command adds what only you know: the modality, the names of the labels, and which part of a file name is the patient. A *regular expression* in `--patient` says it; the part in parentheses is the patient.

# %%
lossy.with_suffix(".jpg").unlink()
write_gray(lossy, originals[lossy])
known = ["--modality", "X-ray", "--patient", r"(PAT\d+)_"]
labels = [f"{value}={name}" for value, name in chest.labels.items()]
known += ["--labels", ",".join(labels)]
medsaga("data", "import", sent, first, *known)

# %% [markdown]
# Fault 2. Is value 9 another organ, or a slip? Only the annotator knows. It was a slip, and we get the mask again.

# %%
write_gray(unknown, originals[unknown])
known += ["--window", "0,4095"]  # 12 bits in files of 16
medsaga("data", "import", sent, first, *known)

# %% [markdown]
# We also gave a window: files of 16 bits do not say which of their 65,536 grey levels are in use, and no training starts without it.
# The import is written now, and ends with the report of `medsaga data check`. Fault 1 is an error, and its sentence names the file and both sizes. Faults 4 and 5 may be correct, so they are no errors: equal images are a note, and the two names of one patient are in the line `perhaps one patient`. No training would stop, and the score could be wrong.
#
# `--fix` repairs what needs no decision, in a copy.

# %%
medsaga("data", "check", first, "--fix", temporary / "repaired")

# %% [markdown]
# One fault is mechanical: the patient that was written in two ways. For the others somebody has to decide. Mend files at the source, so that the import can be repeated.

# %%
write_gray(half, originals[half])
for folder, end in (("img", ".png"), ("annotations", "_mask.png")):
    here = sent / folder
    (here / f"PAT{several}_1{end}").rename(here / f"PAT{several:02d}_1{end}")
    (here / f"PAT17_1{end}").unlink()

# %%
shares = ["--test-share", 0.3, "--val-share", 0.2]
mine = temporary / "mine"
medsaga("data", "import", sent, mine, *known, *shares)

# %% [markdown]
# The last lines are the summary. Read it: are the number of patients, the sizes and the values as you expect? Then look at every case. `--html` writes a page with a thumbnail of each case and its contours; the figure shows four.

# %%
page = temporary / "check.html"
medsaga("data", "check", mine, "--html", page)
print(f"{page.stat().st_size / 1e6:.1f} MB, opens without a network")

# %%
from medsaga_lib import display
from medsaga_lib.data.catalog import open_dataset

# %%
data = open_dataset(mine)

# %% tags=["figure"]
panels = []
for case in data.cases[:4]:
    picture, truth = read_pair(data, case)
    title = f"{case.name}: {case.split}"
    panels.append(display.Panel(picture.pixels, truth, title=title))

# %% tags=["figure"]
alt = (
    "Four chest X-rays with the dashed contours of the right and the left "
    "lung, the right lung on the left side. In the fourth, the contour of "
    "the left lung runs into the black border. The titles give the case and "
    "the split."
)

# %%
display.show(
    display.grid(panels, data.labels, alt, columns=4),
    caption="The first 4 imported X-rays with the contours of their masks "
    "(dashed). The titles give the name of the case and its split.",
)
print(textwrap.fill(f"{chest.citation} | {chest.licence}", 80))

# %% [markdown]
# ## No masks yet
#
# A training needs masks. If your folder has only images, draw the first ones in a notebook: `Clicks` shows an image, LiteMedSAM answers each box with a mask, and *Keep as label* writes the mask into a label map. The next cells do by code what you would do by hand, on the first X-ray and with the boxes of its true masks. In a notebook with a kernel, drag a box on the image below.

# %%
from medsaga_lib.data.prompts import box_of
from medsaga_lib.inference.box_predictor import load_box_predictor
from medsaga_lib.inference.clicks import Clicks

# %%
case = data.cases[0]
_, truth = read_pair(data, case)
lite = load_box_predictor("lite_medsam", window=(0, 4095))
drawn = Clicks(
    data.root / case.image,
    lite,
    caption="An imported X-ray, and the same with a box around a lung and "
    "LiteMedSAM's mask.",
)
drawn.ask(box=box_of(truth == 1))
drawn

# %%
from medsaga_lib.evaluation.metrics import dice

for value, name in data.labels.items():
    drawn.ask(box=box_of(truth == value))
    drawn.keep(value)
    print(f"{name}: Dice {dice(drawn.labels == value, truth == value):.2f}")
print(drawn.save(temporary / "drawn" / "labels").name)

# %% [markdown]
# Put the images in a folder `images` beside `labels`, and `medsaga data import` reads the pair. The number beside *Keep as label* is the value of the organ, as in `data.labels`.
# Look at each mask before you keep it, and correct it in a drawing program where it is wrong: a network learns the faults of its masks. [Chapter 2](02_sam_from_the_inside.ipynb) shows on which images LiteMedSAM's masks are close to an annotator's.

# %% [markdown] tags=["real"]
# X-rays are not among them: even with exact boxes, these two masks have a Dice of 0.84 and 0.77.

# %% [markdown]
# ## Choose by data and memory
#
# [Chapter 10](10_few_labels.ipynb) ends with a table of which method to take when. For organs with a fixed place it names two: late stages of LiteMedSAM, and a U-Net from random weights. Do they fit? The cell predicts the memory of a training step with 4 images at 128 px ([chapter 3](03_memory_ledger.ipynb)).

# %%
import pandas as pd

from medsaga_lib.memory.plan import Plan, kept_bytes, predict_ledger
from medsaga_lib.recipes import RECIPES, get_recipe


# %%
def method(name):
    """The name of a recipe's method; other names stay."""
    return get_recipe(name).method if name in RECIPES else name


# %% caption="Predicted memory of a training step with 4 images at 128 px, and of one kept copy of an image."
classes = len(data.labels)
plan_of_lungs = Plan("lite_medsam", batch=4, size=128, classes=classes)
rows = {}
for name in ("late_stages", "unet"):
    recipe = get_recipe(name)
    rows[recipe.method] = {
        "a step (MiB)": predict_ledger(recipe, plan_of_lungs).sum / 2**20,
        "one kept copy (MiB)": kept_bytes(recipe, plan_of_lungs) / 2**20,
    }
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# Both fit into 8 GB many times; `medsaga memory --fit 8GB` computes the largest batch. Late stages also keep 12 copies of the early stages' output for each image, in the memory of the computer; exercise 1 asks how many copies of 50 X-rays fit.
#
# ## Train and choose on validation images
#
# There is little time for a training in a chapter, so this one has 64 px and 12 X-rays: late stages for 24 steps with 2 kept copies, and the U-Net, whose steps are cheaper, for 60 steps. Without these options, `medsaga train --data mine` takes 150 steps at 128 px, 2.5 to 5 minutes of one core.
#
# > **Predict.** Which of the two is ahead after so few steps?

# %%
short = ["--size", 64, "--batch", 4]
runs = {"late_stages": ["--steps", 24], "unet": ["--steps", 60]}
runs["late_stages"] += ["--backbone", "lite_medsam"]
runs["late_stages"] += ["--set", "image_encoder.copies=2"]

# %%
for name, options in runs.items():
    words = ["--data", mine, "--shots", 12, *short, *options]
    medsaga("train", name, *words, "--out", temporary / name)

# %% [markdown]
# Every training needs a baseline that learned nothing about images. Here it is the *mean mask*: the most frequent label of each pixel in the training masks, stretched to the size of the image.

# %%
from skimage.transform import resize

from medsaga_lib.data.samples import Samples


# %%
def mean_mask(dataset, side=64):
    """A function that predicts the mean mask for every case."""
    cases = [case for case in dataset.split("train") if case.mask]
    samples = Samples(dataset, cases, side)
    numbers = range(len(samples))
    found = np.stack([samples[it]["label"].numpy() for it in numbers])
    classes = range(1 + len(dataset.labels))
    counts = np.stack([(found == label).sum(0) for label in classes])
    labels = np.array([0, *sorted(dataset.labels)])[counts.argmax(0)]

    def predict(case):
        shape = read_pair(dataset, case)[1].shape
        how = {"order": 0, "preserve_range": True, "anti_aliasing": False}
        flat = resize(labels, shape[-2:], **how)
        return np.broadcast_to(flat, shape).astype(int)

    return predict


# %%
from medsaga_lib.evaluation.of_a_run import evaluate_run
from medsaga_lib.evaluation.scores import evaluate_cases


# %%
def compare(dataset, folder, split):
    """Scores of both runs and of the mean mask on a split."""
    found = {}
    for name in runs:
        run = folder / name
        found[name] = evaluate_run(run, dataset, split, run / split)
    cases = [case for case in dataset.split(split) if case.mask]
    found["mean mask"] = evaluate_cases(mean_mask(dataset), dataset, cases)
    rows = {}
    for name, evaluation in found.items():
        means, ends = evaluation.means().mean(), evaluation.interval("dice")
        rows[name] = {"dice": means["dice"]}
        rows[name]["interval"] = "{:.2f} to {:.2f}".format(*ends)
        rows[name][f"HD95 ({evaluation.unit or 'px'})"] = means["hd95"]
    return pd.DataFrame(rows).T.infer_objects().round(3)


# %% [markdown]
# The next table has the mean Dice on the validation images, its 95 % interval over patients, and HD95. Training prints another Dice: that of all pixels together, in the size that the network sees.

# %% caption="Validation Dice of the 3 methods on X-rays, with 95 % intervals over patients. Likely seen by LiteMedSAM: lungs."
on_validation = compare(data, temporary, "val")
display.table(on_validation.rename(method))

# %% [markdown] tags=["real"]
# On 4 validation X-rays of 3 patients, the U-Net has the highest Dice. After so few steps, the three intervals overlap, also that of the mean mask, which learned nothing about images. In HD95, the mean mask is the best of the three, because it has no patches far from the lungs.
# The Dice on validation images decides, so the U-Net is chosen. An interval over 3 patients promises too much ([chapter 1](01_images_and_metrics.ipynb)). How many validation images you need depends on the difference that you want to find: [chapter 12](12_open_questions.ipynb) computes the number of patients. The test images are used once, for this one network.

# %%
chosen = on_validation.loc[list(runs), "dice"].idxmax()
medsaga("evaluate", temporary / chosen, "--data", mine)

# %%
from medsaga_lib.inference.predictor import load_run

# %%
network = load_run(temporary / chosen)
table = pd.read_csv(temporary / chosen / "evaluation/cases.csv")
scores = table.groupby("case")["dice"].mean()
ordered = scores.sort_values().index

# %% tags=["figure"]
panels = []
for name in (ordered[0], ordered[len(ordered) // 2], ordered[-1]):
    case = next(case for case in data.cases if case.name == name)
    picture, truth = read_pair(data, case)
    title = f"{name}: {scores[name]:.2f}"
    panels.append(display.Panel(picture.pixels, truth, network(picture), title))

# %% tags=["figure"]
alt = (
    "The test X-rays with the lowest, the middle and the highest Dice. "
    "Dashed: the annotator's lungs. Solid: the network's. The solid contours "
    "are on both lungs and are coarse, because the network works at 64 px."
)

# %%
display.show(
    display.grid(panels, data.labels, alt),
    caption=f"Of {len(ordered)} test X-rays, those with the lowest, the "
    "middle and the highest Dice, which is in the titles. Solid: the chosen "
    "network; dashed: ground truth.",
)
print(textwrap.fill(f"{chest.citation} | {chest.licence}", 80))

# %% [markdown] tags=["real"]
# After 60 steps at 64 px the contours are coarse and have patches beside them. In the worst case, the patient fills less of the image than in most X-rays, and the masks are too large.

# %% [markdown]
# ## Predict new images
#
# A new X-ray of another patient arrives twice: as the device stores it, with 12 bits, and as a screenshot with 8 bits.
#
# > **Predict.** Does the network give the same mask for both?

# %%
case = next(case for case in chest.cases if patients.index(case.patient) >= 16)
xray, truth = read_pair(chest, case)

# %%
new, results = temporary / "new", temporary / "results"
write_gray(new / "device.png", (4095 * xray.pixels).round().astype(np.uint16))
write_gray(new / "screenshot.png", (255 * xray.pixels).round().astype(np.uint8))
medsaga("predict", temporary / chosen, *sorted(new.iterdir()), "--out", results)

# %% tags=["figure"]
panels = []
for name in ("device", "screenshot"):
    labels = np.array(Image.open(results / f"{name}_labels.png")).astype(int)
    shown = np.array(Image.open(new / f"{name}.png")) / 4095  # the window
    panels.append(display.Panel(shown, truth, labels, name))

# %% tags=["figure"]
alt = (
    "The same X-ray with the two results, as the network sees it. With 12 "
    "bits, the solid contours are on both lungs. With 8 bits, the image is "
    "nearly black, and the result differs."
)

# %%
display.show(
    display.grid(panels, data.labels, alt, columns=2),
    caption="One X-ray with 12 bits (left) and 8 bits (right), in the window "
    "of the run, as the network sees it. Solid: the network's masks; dashed: "
    "ground truth.",
)
print(textwrap.fill(f"{chest.citation} | {chest.licence}", 80))

# %% [markdown] tags=["real"]
# On the nearly black image, the network still draws two lungs. It has learned where lungs usually are. Such a mask looks like a result, and only the note and the image behind it show that it is none.

# %% [markdown]
# The run knows its training images. The screenshot has at most 256 of their 4,096 grey levels, so under the same window it is nearly black, and the note says so.
#
# Each image gets its mask as `NAME_labels.png`, with the label values of your masks, and `NAME_overlay.png` to look at. Volumes get a file in their own format and grid ([chapter 13](13_volumes.ipynb)).
#
# ## Hand it over
#
# A run is one folder. The next cell copies it to another place and checks that the prediction is the same to the last pixel.

# %%
import json

for path in sorted((temporary / chosen).glob("*.*")):
    print(f"{path.name:24} {path.stat().st_size / 1e3:8,.0f} kB")
copy = shutil.copytree(temporary / chosen, temporary / "elsewhere")
print("same result:", np.array_equal(load_run(copy)(xray), network(xray)))

# %%
described = json.loads((copy / "run.json").read_text())
for key in ("labels", "modality", "window", "backbone_sha256"):
    print(f"{key:16} {str(described[key])[:50]}")
print(f"{'trained on':16} {len(described['train_samples'])} images")
print(f"{'their range':16} {described['domain']['range']}")


# %% [markdown]
# `run.json` has what the receiver has to know: the labels, the window, the training images and what they were like, and a hash of the backbone's file, which a U-Net does not have. The checkpoint has tensors only, in the format safetensors, which cannot run code when it is opened. `medsaga predict elsewhere scan.png --out masks` needs this folder, the library and, if there is a backbone, its weights.
#
# If the run has a backbone, `medsaga predict elsewhere scan.png --runtime onnx --out masks` exports its image encoder to ONNX at the first use and runs it in ONNX Runtime; `--runtime openvino` uses OpenVINO. The decoder stays in torch, so the receiver still needs the library ([The command line](../book/how-to-use.md#the-command-line)).
#
# ## The same steps for a set of volumes
#
# The same steps, as a function. It gets a folder, the options of the import, and the number of shots.

# %%
def from_folder(source, out, options, shots):
    """Import a folder, train both methods, and score them on validation."""
    out.mkdir()
    medsaga("data", "import", source, out / "data", *options)
    words = ["--data", out / "data", "--shots", shots, *short]
    for name, more in runs.items():
        medsaga("train", name, *words, *more, "--out", out / name)
    dataset = open_dataset(out / "data")
    return dataset, compare(dataset, out, "val")


# %% [markdown] tags=["real"]
# The second set is another organ, another modality, and 3D: MR volumes of the hippocampus. It is one of the book's own sets, which the cells below write in the raw layout of nnU-Net. This layout has a `dataset.json` with the modality and the labels, so the import needs no options but the shares.

# %%
import nibabel

SPACING = np.diag([1.6, 1.6, 5.0, 1.0])  # of the drawn volumes


def read_volume(number):
    """Image and mask of a volume as NIfTI."""
    if are_real:
        case = volumes.cases[number]
        return nibabel.load(case.image), nibabel.load(case.mask)
    picture, organ = draw_volume(seed + number)
    arrays = picture.pixels[:, ::2, ::2], organ[:, ::2, ::2].astype(np.uint8)
    return [nibabel.Nifti1Image(array.T, SPACING) for array in arrays]


# %%
from medsaga_lib.data.phantoms import draw_volume

# %%
nnunet = temporary / "Dataset042_Organ"
for name in ("imagesTr", "labelsTr"):
    (nnunet / name).mkdir(parents=True)
for number in range(16):
    image, mask = read_volume(number)
    nibabel.save(image, nnunet / f"imagesTr/vol{number:03d}_0000.nii.gz")
    nibabel.save(mask, nnunet / f"labelsTr/vol{number:03d}.nii.gz")

# %%
names = {"object": 1}
if are_real:
    names = {name: value for value, name in volumes.labels.items()}
task = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, **names}}
task |= {"numTraining": 16, "file_ending": ".nii.gz"}
_ = (nnunet / "dataset.json").write_text(json.dumps(task))

# %% caption="Validation Dice of the 3 methods on the hippocampus, with 95 % intervals over patients. Seen by LiteMedSAM: not known."
second = temporary / "second"
other, scores_of_other = from_folder(nnunet, second, shares, shots=12)
display.table(scores_of_other.rename(method))

# %% [markdown] tags=["real"]
# The same commands ran on volumes without a change, and the scores are poor. The mean mask is empty: one mask stands for all slices of a volume, and the hippocampus lies elsewhere in each, so the background is the most frequent label of every pixel.
# Is this what the methods can do? With 16 slices and 150 steps, [chapter 10](10_few_labels.ipynb) has recorded means over 5 seeds: 0.71 for late stages, and for the U-Net 0.58 or, with a learning rate of its own, 0.68. A short training shows that everything works. It does not choose a method: after so few steps, the rounding of another machine changes these Dice by 0.1 and more.

# %%
best = scores_of_other.loc[list(runs), "dice"].idxmax()
medsaga("evaluate", second / best, "--data", second / "data")

# %%
test = other.split("test")[0]
picture, truth = read_pair(other, test)
found = load_run(second / best)(picture)
middle = (truth > 0).sum((1, 2)).argmax()

# %% tags=["figure"]
panels = []
for z in (middle - 4, middle, middle + 4):
    pair, spacing = (truth[z], found[z]), picture.spacing[1:]
    panel = display.Panel(picture.pixels[z], *pair, f"slice {z}", spacing)
    panels.append(panel)

# %%
alt = (
    "Three slices of a test volume with the dashed contours of the annotator "
    "and the solid contours of the network, which overlap in the middle slice."
)
display.show(
    display.grid(panels, other.labels, alt),
    caption="3 slices of the first test volume. Solid: the masks of the "
    "network that was chosen on validation; dashed: ground truth.",
)
if are_real:
    print(textwrap.fill(f"{volumes.citation} | {volumes.licence}", 80))

# %% [markdown]
# A volume from another scanner has slices that are 4 times as thick. Does `medsaga predict` notice?

# %%
thick, affine = nibabel.load(test.image), nibabel.load(test.image).affine.copy()
affine[:3, 2] *= 4
every_fourth = thick.get_fdata(dtype=np.float32)[:, :, ::4]
nibabel.save(nibabel.Nifti1Image(every_fourth, affine), new / "thick.nii.gz")
medsaga("predict", second / best, new / "thick.nii.gz", "--out", results)

# %% [markdown]
# ## 50 X-rays, 8 GB
#
# The first page asks: you have 50 labelled chest X-rays and a GPU with 8 GB, and you need a network for lungs. Do you train all of SAM, a part of it, or the same weights with a smaller optimizer? What fits, and what do 50 labels buy?
#
# The first part, *what fits*, is a calculation. The cell predicts the memory of a step of 4 images in GiB: weights, gradients, states and activations.

# %%
from medsaga_lib.recipes.recipe import changed

# %%
last_stage = ["image_encoder.from_stage=3", "image_encoder.copies=12"]
small = Plan("lite_medsam", 4, 128, classes=2)
large = Plan("vit_b", 4, 512, classes=2)
places = {
    "LiteMedSAM, last stage, 128 px": (small, last_stage),
    "SAM's ViT-B, whole, 512 px": (large, []),
}

# %% caption="Predicted memory of a training step of 4 images in GiB, with fused attention."
peaks = {place: {} for place in places}
for place, (plan, values) in places.items():
    for name in ("full", "samed", "medsaga"):
        ledger = predict_ledger(changed(get_recipe(name), values), plan)
        peaks[place][method(name)] = ledger.sum / 2**30
pd.DataFrame(peaks).round(2)

# %% [markdown]
# The second part, *what labels buy*, was recorded. The cell compares the methods on the lungs: 4 and 32 X-rays on LiteMedSAM, and 8 and 32 X-rays on the pocket SAM, this project's small stand-in, whose plain ViT is small enough to adapt as a whole on a CPU ([Where the weights come from](../book/weights.md)). A number is the mean Dice on 19 test X-rays of 11 patients over 3 seeds ± half of its 95 % interval over seeds; `minutes` is the time of one core. SAMed has a position lift with 4 X-rays on LiteMedSAM, and none with 32. Compare methods within a block, and not one block with another: on LiteMedSAM a run has 150 steps of 4 images, on the pocket SAM 200, so their U-Nets differ as well.

# %%
from medsaga_lib.evaluation.scores import over_seeds

# %%
recorded = {
    "late_lungs_seeds": "LiteMedSAM",
    "late_more_labels": "LiteMedSAM",
    "methods": "pocket SAM",
}
rows = []
for name, backbone in recorded.items():
    runs_of = json.loads(Path(f"recorded/{name}.json").read_text())
    made = runs_of["provenance"]
    print(made["command"][:60], "... |", made["date"])
    rows += [{**run, "backbone": backbone} for run in runs_of["runs"]]

# %%
rows = pd.DataFrame(rows).query("data == 'cxr_hannover_lungs'")
told = ["cheap_lunch", "lite_medsam_lora", "sam_zero_shot"]  # by a prompt
rows["name"] = rows["recipe"].str.split(":").str[0]
rows["method"] = rows.query("name not in @told")["name"].map(method)
rows = rows[~rows["recipe"].str.contains("lift=none")].dropna(subset="method")


# %%
def with_interval(values):
    """Mean over seeds ± half of its 95 % interval."""
    return "{:.3f} ± {:.3f}".format(*over_seeds(values))


# %%
rows["minutes"] = rows["cpu_seconds"] / 60


def block(backbone):
    """Scores on one backbone, by number of X-rays and method."""
    answer = {"dice": with_interval, "hd95": "mean", "minutes": "mean"}
    part = rows[rows["backbone"] == backbone].groupby(["shots", "method"])
    return display.table(part.agg(answer), digits=1)


# %% caption="LiteMedSAM: mean Dice with half of its 95 % interval and HD95 in pixels on test X-rays over 3 seeds, and minutes of one core. The U-Net starts from random weights. Likely seen by LiteMedSAM: lungs."
block("LiteMedSAM")

# %% caption="Pocket SAM: the same scores. U-Net and SegResNet start from random weights."
block("pocket SAM")

# %% [markdown]
# The same shots and seeds were used for all methods of a block, so the methods are compared seed by seed: the Dice minus that of the U-Net.

# %% caption="Mean difference in Dice to the U-Net over 3 seeds, with halves of 95 % intervals. Likely seen by LiteMedSAM: lungs."
keys = ["backbone", "shots", "seed"]
wide = rows.pivot(index=keys, columns="method", values="dice")
apart = wide.sub(wide.pop("U-Net"), axis=0)
table = apart.groupby(["backbone", "shots"]).agg(with_interval)
table.replace("nan ± nan", "not run").T

# %% [markdown]
# ### The answer
#
# The predictions and the recorded runs say:
#
# - **Memory does not decide.** Each method of the table of peaks above fits into 8 GB, even on SAM's ViT-B; the table assumes fused attention, which stores no maps. On LiteMedSAM's last stage, the smaller optimizer saves next to nothing.
# - **The method hardly decides.** The exception is MedSAGa_v2, which freezes the mask decoder and is 0.4 behind. With 32 X-rays on the pocket SAM, full fine-tuning, MedSAGa, SAMed and the frozen encoder differ from the U-Net by at most 0.013 (the table above). With 4 X-rays on LiteMedSAM, SAMed and late stages are ahead of the U-Net by about 0.015 in these 3 seeds, and no interval excludes 0; over 5 seeds the lead is 0.02 to 0.03 ([chapter 10](10_few_labels.ipynb)). With 32, late stages lead by 0.022 ± 0.023.
# - **Labels buy little here.** From 8 to 32 X-rays, the mean Dice of the U-Net rises from 0.886 to 0.906.
#
# So take the 50 X-rays, keep whole patients for validation and test, and train a U-Net first: it needs a minute of one core. Train late stages of LiteMedSAM as a second candidate, choose on validation images, and report the test score with its interval.
# This holds for lungs, which have a fixed place. Polyps may be anywhere, and there the networks that start from LiteMedSAM are far ahead of the U-Net ([chapter 10](10_few_labels.ipynb)); LiteMedSAM has probably seen such frames.
#
# ### Limits of this answer
#
# The recorded runs have at most 32 X-rays, not 50. SAM's own ViT-B appears as a prediction of memory and not as a score. The pocket SAM is not SAM, and LiteMedSAM has probably seen X-rays of this source. The test set has 11 patients of one hospital, and an interval over seeds says nothing about other hospitals.

# %% [markdown]
# ## Questions

# %% [markdown] tags=["question"]
# **Question 1.** Your validation set has 3 patients. One method has a Dice of 0.86 there, and the other 0.85. Which decision is right?
#
# - **A.** Take the method that is cheaper or easier for you, or label more validation images.
# - **B.** Take the method with 0.86.
# - **C.** Evaluate both on the test images, and take the better one.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** Yes: a difference of 0.01 on 3 patients says nothing. Report the test score of the one that you chose.
# - **B.** No: it may be the better one, but 0.01 on 3 patients does not show it. Another patient may turn the order.
# - **C.** No: then the test images have chosen, and the reported score is too good.
# </details>

# %% [markdown] tags=["question"]
# **Question 2.** `medsaga data check` reports no problems. Which fault can still be there?
#
# - **A.** A mask with a value that is not in the list of labels.
# - **B.** Right and left are exchanged in all masks.
# - **C.** A mask that has another size than its image.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: the check reads all values, and an unknown one is an error.
# - **B.** Yes: the files do not show it. Look at the thumbnails of `--html`.
# - **C.** No: the check compares the sizes.
# </details>

# %% [markdown] tags=["question"]
# **Question 3.** A colleague in another hospital uses your run, and the masks are nonsense. Which step comes first?
#
# - **A.** Train again with more images.
# - **B.** Use a larger network.
# - **C.** Look at the notes that `medsaga predict` printed, and at one image with its stored values.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: the network worked on your images. Find out first what is different in theirs.
# - **B.** No: this does not help if the input is scaled in another way.
# - **C.** Yes: another number of bits, an inverted scale or another spacing are more frequent than a bad network.
# </details>

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: calculate (easy, 5 minutes)
# Late stages keep 12 copies of each image in the memory of the computer. How many copies of each of 50 X-rays fit into 500 MiB at 128 px? `one_copy` is the size of one copy in MiB.

# %% tags=["exercise"]
one_copy = kept_bytes(get_recipe("late_stages"), plan_of_lungs) / 2**20
copies = None

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# copies = int(500 / (50 * one_copy))
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
from medsaga_lib.display.answers import as_number

given = as_number("copies", copies)
assert given % 1 == 0, f"{copies} is not a whole number of copies; round down."
needed = 50 * given * one_copy
assert needed <= 500, (
    f"{copies} copies of each of the 50 X-rays need {needed:.0f} MiB."
)
assert needed + 50 * one_copy > 500, (
    f"One more copy still fits: {needed:.0f} MiB are used."
)


# %% [markdown]
# ### Exercise 2: experiment (medium, 15 minutes)
# Is the number of shots or the number of steps the limit of the short training? Train the U-Net on your data again with 30 steps instead of 60, and with 4 shots instead of 12, each time everything else as above. Put the three validation Dice into `by_change`, and say whether one change matters more. The function `trained` does one training.

# %% tags=["exercise"]
def trained(steps, shots):
    """Validation Dice of a U-Net with these steps and shots."""
    out = temporary / f"unet_{steps}_{shots}"
    words = ["train", "unet", "--data", mine, *short, "--out", out]
    words += ["--steps", steps, "--shots", shots, "--json"]
    CliRunner().invoke(app, [str(word) for word in words])
    return evaluate_run(out, data, "val", out / "val").summary()["dice"]


by_change = {"as above": on_validation.loc["unet", "dice"]}

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# by_change["30 steps"] = trained(30, 12)
# by_change["4 shots"] = trained(60, 4)
# print({name: f"{value:.3f}" for name, value in by_change.items()})
# # With one seed and 4 validation X-rays, only a large difference can be read
# # from these numbers. In 60 steps of 4 images, each of 12 X-rays is seen 20
# # times, and each of 4 X-rays 60 times.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
assert {*by_change} == {"as above", "30 steps", "4 shots"}, (
    f"There are results for {[*by_change]}; add '30 steps' and '4 shots'."
)
for name, run in (("30 steps", "unet_30_12"), ("4 shots", "unet_60_4")):
    given = as_number(f"by_change['{name}']", by_change[name])
    path = temporary / run / "val/summary.json"
    assert path.exists(), (
        f"There is no run {run}: change one thing alone, with "
        "trained(steps, shots)."
    )
    wanted = json.loads(path.read_text())["dice"]
    assert abs(given - wanted) < 1e-6, (
        f"by_change['{name}'] is not {wanted:.3f}, the Dice of {run}."
    )

# %% [markdown]
# ### Exercise 3: find the fault (hard, 15 minutes)
# A colleague imports the same files without `--patient`. The report has no problem, and still the test score cannot be trusted. Show the fault: write `leaking(dataset)`, which returns the patients whose X-rays are in the training set and in the test set. The file names still say who they are. Then make `fair` an import without leaks.

# %% tags=["exercise"]
no_patient = known[:2] + known[4:]
medsaga("data", "import", sent, temporary / "colleague", *no_patient, *shares)
colleague = fair = open_dataset(temporary / "colleague")


def leaking(dataset):
    return set()


# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def leaking(dataset):
#     in_split = {
#         split: {case.name.split("_")[0] for case in dataset.split(split)}
#         for split in ("train", "test")
#     }
#     return in_split["train"] & in_split["test"]
#
#
# fair = open_dataset(mine)
# print("without --patient:", sorted(leaking(colleague)))
# print("with --patient:", sorted(leaking(fair)))
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
trained_on, tested_on = (
    {case.name[:5] for case in colleague.split(split)}
    for split in ("train", "test")
)
torn = trained_on & tested_on
found = leaking(colleague)
assert isinstance(found, set | list | tuple), (
    f"leaking(dataset) returns {found!r}; return a set."
)
assert torn and set(found) == torn, (
    f"{len(torn)} patients are in both sets of the colleague, and you found "
    f"{len(set(found))}. The name of a case begins with its patient, as PAT07."
)
assert not leaking(fair), (
    f"{sorted(leaking(fair))} are still in both sets; import with --patient."
)

# %% [markdown]
# ## Summary
#
# - Import, read the report, mend at the source, import again. A fault that only makes a score wrong stops nothing, and needs your decision.
# - Compare at least two methods and the mean mask on validation images. Use the test images once.
# - A run knows what its training images were like. Read its notes before you believe a mask.
# - For lungs on X-rays, memory does not decide between the methods, and with 32 labels all but MedSAGa_v2 are within 0.03 Dice of one another, the U-Net included.
#
# ## Sources
#
# The faults of the first folder are those that users of such tools report; layouts: nnU-Net's [dataset format](https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md). The data sets: [References](../book/references.md). Privacy and care: [How to use this book](../book/how-to-use.md).
