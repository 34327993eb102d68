# %% [markdown]
# # A. Pretraining the pocket SAM
#
# **You will be able to**
# - say what the pocket SAM was trained on and for what, and what it therefore cannot know,
# - ask it with a box and judge its answer against one that needs no network,
# - train a small promptable network yourself, and say what its loss hides.
#
# **Before this** [Chapter 5](05_adapting_sam.ipynb); PyTorch.
#
# **Budget** 2 minutes on two CPU cores, 1.5 GB of memory, 0 MB to download

# %% tags=["colab"]
# Colab only: fetch the book and its library, leave Colab's own torch and numpy as they are.
import importlib.util, os, subprocess, sys

if "google.colab" in sys.modules:
    if not os.path.isdir("/content/book"):
        clone = ["git", "clone", "-q", "--depth", "1", "https://github.com/medsaga-book/medsaga-book", "/content/book"]
        subprocess.run(clone, check=True)
    if importlib.util.find_spec("medsaga_lib") is None:
        install = [sys.executable, "-m", "pip", "install", "-q", "/content/book[galore]"]
        subprocess.run(install, check=True)
    os.chdir("/content/book/notebooks")

# %% tags=["parameters"]
profile = "quick"  # "colab" runs the same cells
seed = 0

# %% [markdown]
# ## Pictures that nobody has to label
#
# SAM learned from eleven million photographs and a billion masks. We have two CPU cores and no photographs that we may ship.
# What we can have without end is *drawn* pictures: whoever draws a picture knows every object in it, to the pixel.
#
# A scene has a layout (cells, organs in a body, layers, branching vessels ...), is bent a little, and gets an appearance: brightness, texture, blur, noise, sometimes colour.

# %% tags=["data"]
from medsaga_lib.data.folder import open_or_phantoms
from medsaga_lib.data.procedural import HELD_OUT, TRAINED, procedural_scene

scenes = {name: procedural_scene((seed, 2), size=128, families=[name]) for name in TRAINED}
dataset = open_or_phantoms("cxr_hannover_lungs")
print(f"phantom scenes: {len(TRAINED)} families, and {', '.join(HELD_OUT)} for the test only")
print(dataset.describe())

# %%
import numpy as np

from medsaga_lib import display


def largest(scene):
    """The mask of the largest object, (S, S)."""
    return max(scene.masks(), key=lambda mask: mask.sum())


def panel(scene, title, prediction=None):
    """A picture with its largest object, and an answer, drawn as outlines."""
    return display.Panel(scene.image / 255.0, largest(scene).astype(int), prediction, title)


panels = [panel(scene, name) for name, scene in scenes.items()]
display.show(
    display.grid(panels, {1: "object"}, alt="Drawn scenes.", columns=6),
    alt="Twelve small drawn scenes, one of each family, in grey and in colour, each with its "
    "largest object outlined; objects differ in size, contrast and texture.",
)

# %% [markdown]
# None of them is a medical image, and none is meant to pass for one. The hope is that borders, textures, parts and wholes are common to all of them.
#
# ## What is asked
#
# SAM is asked with a *prompt*: a box around the object, or a point on it. Boxes are jittered, because people are not exact. A point may mean the cell or its nucleus,
# so SAM gives three masks, and in training only the best of them is corrected. Then comes a *click* where the mask is wrong, and it has to mend it.
# The loss is SAM's: twenty times the focal loss of [chapter 6](06_svd_affine.ipynb) and once the Dice loss. A small head beside the masks learns to guess the IoU of each, because whoever clicks once has to be given one of the three, and no truth is there to choose it.
#
# > **Predict.** You are given only the box, not the picture. Which mask would you draw, and how good would it be?

# %%
from medsaga_lib.pretraining.pictures import unseen_scenes
from medsaga_lib.pretraining.scores import baselines

blind = [baselines(mask) for scene in unseen_scenes(40, TRAINED) for mask in scene.masks([0])]
for name in ("box_itself", "ellipse", "ceiling"):
    print(f"{name:11} mean IoU {np.mean([row[name] for row in blind]):.2f}")

# %% [markdown]
# Filling the box, or the ellipse in it, is a fair answer to most questions. The last row is the truth itself, squeezed through masks of a quarter of the size: no answer can be much better.
# A network that has learned to fill boxes scores like the first rows and has learned nothing about pictures. Our first one did just that.
# So the pretraining also asks *without* a prompt: one mask for all objects, one for their borders. There is no box to fill then, one has to look.
# And today's command asks each box once more of a *blank* picture, where there is nothing to look at and only the box can tell, and lets [Muon](https://kellerjordan.github.io/posts/muon/) train the matrices. The weights that this page shows are from before; what that changes so far stands in the model card.
#
# ## A short training
#
# Here are eighty steps on small pictures, with the command's own functions. Beside the loss we watch the *spread*: how much the embedding of a place changes from picture to picture, as a part of all its changes. At 0 the encoder says the same whatever it is shown.
#
# > **Predict.** The loss will fall. Will the spread rise?

# %%
import torch

from medsaga_lib.pretraining.pictures import Pictures, Settings
from medsaga_lib.pretraining.run import Run
from medsaga_lib.pretraining.scores import spread

settings = Settings(steps=80, seed=seed, size=64, pictures=8, objects=3, corrections=1, warmup=20)
run, pictures = Run(settings), Pictures(settings)
before = spread(run.sam)

# %%
log = [run.train_step(pictures[step]) for step in range(settings.steps)]
first, last = (np.mean([row["loss"] for row in part]) for part in (log[:8], log[-8:]))
print(f"loss {first:.1f} -> {last:.1f}, spread {before:.2f} -> {spread(run.sam):.2f}")

# %% [markdown]
# The loss falls and the encoder *stops looking*. Nearly empty masks are a better answer than random ones, and whoever answers the same every time need not look.
# A loss alone would not have told us. What happens later is in the log of the real run:

# %%
import json
from pathlib import Path

recorded = json.loads(Path("recorded/pretraining.json").read_text())
origin = recorded["provenance"]
for stage in recorded["stages"]:
    end = stage["rows"][-1]
    print(stage["command"], "|", f"{end['step']:.0f} steps, {end['minutes']:.0f} minutes")
print(origin["date"], "|", origin["device"], "| commit", origin["commit"])

# %%
rows = [row for row in recorded["stages"][0]["rows"] if row["step"] > 100]
tested = [row for row in rows if "spread" in row]
seen = {name: [row["step"] * 16 for row in part] for name, part in (("all", rows), ("tested", tested))}
curves = [
    display.Curve("borders", seen["all"], [row["borders"] for row in rows]),
    display.Curve("box", seen["all"], [row["box"] for row in rows]),
    display.Curve("spread", seen["tested"], [row["spread"] for row in tested]),
]
alt = (
    "Against the pictures seen in training: the spread is high when first measured, after 8,000 "
    "pictures, and stays; "
    "IoU for borders and boxes rises from zero, fast until 30,000 pictures and slowly after."
)
figure = display.curve_with_interval(curves, "pictures seen", "IoU in training; spread", alt)
display.show(figure, alt=alt)

# %% [markdown]
# (The fourth was stopped before its 1500 steps were over. Stages with the same seed and size draw the same scenes again, some of them untidy now, so the 124,480 pictures show 91,680 scenes.)
# Each line is a command that you can type. It writes a curve and a checkpoint; stopped, by `--minutes 30` or by a power cut, it goes on with the same words to the very weights that it would have had. `--start` begins with other weights, `--export` writes what the library ships, and `--device cuda --bf16 --workers 8` is meant for a GPU, on which nobody has run it yet.
# The seventh stage trained the small head alone. Until then it had been taught about the best of the three masks only, and did not know the others when it saw them: on polyps the mask that it chose after one click had an IoU of 0.26, the best of the three 0.59. Thirteen minutes later it was 0.50 (both from the model card).
#
# When the spread of the first stage is measured for the first time, after 8,000 pictures, it is high. That proves nothing, as the random weights above show, which had a high one, too; a low one would be an alarm. The proof is IoU for borders: nobody can draw those without looking. It is still below .2 there and goes on rising. This is where the first hour went.
# Our first weights, trained with prompts alone and a patch embedding that learned too fast, never came back from it; their model card, `medsaga_lib/backbones/pocket.md`, tells the story.
#
# ## What the shipped weights know
#
# > **Predict.** Three families were never trained on: threads, onions (shells in shells), camouflage (told apart by texture). Is the answer to a box better than the ellipse in it, on families that were trained on, and on these?

# %%
from medsaga_lib.backbones.sam import build_sam
from medsaga_lib.backbones.weights import load_state
from medsaga_lib.data.prompts import box_of

sam = build_sam("pocket").eval()
_ = sam.load_state_dict(load_state("pocket", 256))

# %%
from segment_anything import SamPredictor

predictor = SamPredictor(sam)  # segment_anything's own; the pocket SAM is one of its SAMs


def answer(scene):
    """The mask for the exact box around the largest object, (256, 256) of 0 and 1."""
    predictor.set_image(scene.image)
    masks, _, _ = predictor.predict(box=box_of(largest(scene)), multimask_output=False)
    return masks[0].astype(int)


# %%
panels = []
for name in ("organs", "cells", "shells", *HELD_OUT):
    scene = procedural_scene((seed, 5), families=[name])
    panels.append(panel(scene, name, answer(scene)))
display.show(
    display.grid(panels, {1: "object"}, alt="Answers to boxes."),
    alt="Six scenes with the true outline dashed and the pocket SAM's answer to the exact box solid; "
    "the upper three are of families it was trained on, the lower three are not.",
)

# %%
from medsaga_lib.pretraining.scores import evaluate, prompted

for name, families in {"trained on": TRAINED, "never seen": HELD_OUT}.items():
    scores = evaluate(sam, prompted(unseen_scenes(24, families), objects=2), clicks=1)
    print(f"{name}: box {scores['box']:.2f}, point {scores['point']:.2f}, "
          f"ellipse {scores['ellipse']:.2f} ({scores['objects']} objects)")  # fmt: skip

# %% [markdown]
# Better than the ellipse on families that it knows, and by a little on those it does not. Twenty-four pictures are few; the model card has the table of 200, with the command that makes it.
#
# ## Untidy pictures
#
# On real images the second weights failed, and a look said why: in a box around a lung or a polyp they kept what had one brightness, and left out ribs, glare and shadows.
# In a drawn scene an object has one brightness, so that is what an object was. The mend is in the data: from the third stage on six or seven of ten training pictures get light and shade inside objects, half transparent ribs, glare, tubes, veils, or so much haze that only the prompt is left. No mask changes. (The figure is drawn by today's command, which makes objects round and loses borders, too.)

# %%
from medsaga_lib.pretraining.clutter import cluttered


def untidy(scene):
    """The same scene with clutter."""
    noise = np.random.default_rng((seed, 4))
    image = cluttered(scene.image, scene.labels, noise)
    return display.Panel(image / 255.0, largest(scene).astype(int), None, "cluttered")


# %%
chosen = [scenes[name] for name in ("organs", "cells", "pairs")]
panels = [panel(scene, scene.family) for scene in chosen] + [untidy(scene) for scene in chosen]
display.show(
    display.grid(panels, {1: "object"}, alt="Clutter.", columns=3),
    alt="Three drawn scenes, and below them the same three with shading, bands and spots that run "
    "across objects and background alike; the outlines are the same.",
)

# %% [markdown]
# Now boxes on chest X-rays, which no step has seen (real ones where the data set is at hand, drawn ones otherwise).
#
# > **Predict.** The ellipse in the box around a real lung has an IoU of about 0.7. Is the network better?

# %%
from itertools import islice

from medsaga_lib.pretraining.real import real_objects

panels = []
for name, pictures in real_objects(dataset, 256):
    for image, (truth, *_) in islice(pictures, 2):
        predictor.set_image(image)
        masks, _, _ = predictor.predict(box=box_of(truth), multimask_output=False)
        title = name.split(", ")[1]
        panels.append(display.Panel(image / 255.0, truth.astype(int), masks[0].astype(int), title))
display.show(
    display.grid(panels, {1: "object"}, alt="Boxes on X-rays.", columns=4),
    alt="X-rays with the true outline of one lung dashed and the answer to its exact box solid.",
)

# %%
print("box IoU on real objects: second weights, today's, ellipse; 95 % of today's - ellipse")
for row in recorded["real"]:
    low, high = row["gain"]
    print(f"{row['real']:32} {row['before']:.2f}  {row['box']:.2f}  {row['ellipse']:.2f}  "
          f"[{low:+.2f}, {high:+.2f}]  {row['pictures']} pictures")  # fmt: skip

# %% [markdown]
# A box around a polyp is answered better than before, and so are both sets of drawn families (the model card has the numbers): by the clutter, or by the 52,000 pictures more that these weights have seen; we did not train once without it to tell. A lung is not, and the right one is answered worse. We think that the answer follows the border that one can *see*; on real X-rays the annotator drew the lung on behind the heart, too.
# The box knew. Its sides touch the truth, and a mask that keeps away from a side must be wrong; the ellipse, which knows nothing else, wins by that alone. On none of the real objects is the network ahead of it.
#
# What matters most for this book is another number: how much these weights help when a few real images are labelled. [Chapter 5](05_adapting_sam.ipynb) measures it on three organs; here are the questions behind it.
#
# ## Would another network do?
#
# Six blocks of 192 channels, why not another shape? Today's command (but for borders that get lost in the clutter, which came later) from random numbers, at 128 pixels and on one core each: those, four blocks of 256 channels, and the first again at a learning rate of 0.0015 instead of 0.0006.
#
# > **Predict.** Twenty minutes are little. What is the best use of them: a wider network, or a higher rate?

# %%
import pandas as pd

shapes = json.loads(Path("recorded/pretraining_shapes.json").read_text())
curves = []
for tried in shapes["runs"]:
    asked, rows = tried["settings"], pd.DataFrame(tried["rows"]).query("minutes < 20")
    name = f"{asked['depth']} x {asked['width']}, {asked['learning_rate']:g}"
    smooth = rows[["minutes", "box"]].rolling(4).mean()[3:]
    curves.append(display.Curve(name, *smooth.to_numpy().T))
alt = (
    "IoU with a box in training against minutes, up to twenty: all three curves are flat for two "
    "to five minutes and then rise; that of the higher rate rises first, that of the wider network last."
)
figure = display.curve_with_interval(curves, "minutes on one core", "IoU with a box", alt)
display.show(figure, alt=alt)

# %% [markdown]
# The wider network is a little behind all the way. The higher rate wins: the same IoU in two thirds of the time. (One seed each: the third was stopped at nine minutes, and small differences mean nothing.)
#
# ## Would more pictures help?
#
# The encoder has been trained three times. The first weights had seen 18,000 pictures, by prompts alone, the second 72,480, those of today 124,480 (`git show ca249cf:medsaga_lib/backbones/pocket.safetensors > ../pocket-ca249cf.safetensors` brings the second back). MedSAGa starts from each of them and from random numbers, with four labelled X-rays and five seeds; it is tested on 19 X-rays of 11 patients.
# Two lines to measure it by: the U-Net that starts from nothing, and what people reach. Two observers who outlined the lungs of other chest X-rays agree with an IoU of 0.946 ([van Ginneken et al. 2006](https://doi.org/10.1016/j.media.2005.02.002)), which is a Dice of 0.972.
#
# > **Predict.** Draw the curve on from 124,480 pictures. How many does it take to reach the U-Net, and the observers?

# %%
from medsaga_lib.evaluation import over_seeds  # mean, and half of a 95 % interval (Student's t)

runs = []
for name in ("pretraining_value", "pretraining_curve"):
    recorded = json.loads(Path(f"recorded/{name}.json").read_text())
    runs += recorded["runs"]
    print(recorded["provenance"]["command"])

# %%
runs = pd.DataFrame(runs).query("data == 'cxr_hannover_lungs' and shots == 4")
runs["start"] = runs["recipe"].where(runs["recipe"] == "unet", runs["weights"])
dice = runs.pivot(index="seed", columns="start", values="dice")

# %%
seen = {"random": 0, "../pocket-e74b4f1.safetensors": 18_000,
        "../pocket-ca249cf.safetensors": 72_480, "pretrained": 124_480}  # fmt: skip
for start in [*seen, "unet"]:
    print("{:30} {:.3f} +- {:.3f}".format(start, *over_seeds(dice[start])))

# %%
more = dice["pretrained"] - dice["../pocket-ca249cf.safetensors"]
print("today's less the second: {:+.3f} +- {:.3f}".format(*over_seeds(more)))

# %%
means, halves = np.array([over_seeds(dice[start]) for start in seen]).T
OBSERVERS_IOU = 0.946  # van Ginneken et al. 2006
pictures, ends = list(seen.values()), [0, 124_480]
curves = [
    display.Curve("MedSAGa", pictures, means, means - halves, means + halves),
    display.Curve("U-Net", ends, [dice["unet"].mean()] * 2),
    display.Curve("two observers", ends, [2 * OBSERVERS_IOU / (1 + OBSERVERS_IOU)] * 2),
]
alt = (
    "Mean Dice on held-out X-rays against pictures seen in pretraining. It falls from 0.81 with none "
    "to 0.75 with the first weights, then rises to 0.83 with today's; the U-Net's line lies just "
    "above, that of two observers far above."
)
figure = display.curve_with_interval(curves, "pictures seen in pretraining", "mean Dice", alt)
display.show(figure, alt=alt)


# %% [markdown]
# Pretraining is not good in itself: the first weights, which had learned not to look, cost six hundredths. From the second to today's it is one hundredth for 52,000 pictures: little, but seed by seed ahead in all five. (Those pictures were untidy, too, and the first weights came from another recipe altogether, so this is no pure curve of more of the same.) If it were a straight line, it would reach the U-Net's after some hundred thousand more and the observers' after nearly eight hundred thousand. Nothing says that it is straight.

# %% [markdown]
# ## Exercises
#
# ### Exercise 1 (easy, 5 minutes)
# Two masks, (H, W), true or false. Write their IoU, the number this whole page is about.

# %% tags=["exercise"]
def iou(a, b):
    return None


# %% cellView="form" tags=["solution"]
# @title Solution
def iou(a, b):
    return (a & b).sum() / (a | b).sum()


# %% tags=["exercise-check"]
a, b = (np.abs(np.arange(40) - c) < 10 for c in (15, 20))
found = iou(a, b)
assert found is not None, "there is no answer yet"
assert abs(found - 14 / 24) < 1e-9, f"{found:.3f}: what both have, over what either has"

# %% [markdown]
# ### Exercise 2 (medium, 10 minutes)
# How good is the ellipse for a *ring*? Give its IoU with a ring of radii 40 and 30 pixels, and think first: which shapes make filling boxes a bad strategy?

# %% tags=["exercise"]
ring_score = None

# %% cellView="form" tags=["solution"]
# @title Solution
y, x = np.mgrid[:128, :128] - 64
distance = np.hypot(x, y)
ring = (distance <= 40) & (distance > 30)
ring_score = baselines(ring)["ellipse"]

# %% tags=["exercise-check"]
assert ring_score, "there is no answer yet"
expected = (40**2 - 30**2) / 40**2  # the ring's area over the disc's
assert abs(ring_score - expected) < 0.03, f"{ring_score:.2f}: the ellipse in its box is a disc"

# %% [markdown]
# ## Summary
#
# - Drawn pictures come with exact masks; no real image is in these weights.
# - Compare a promptable network with the ellipse in the box before you praise it.
# - Watch the spread: a loss may fall while the encoder stops looking.
# - A network learns what its pictures have in common, tidiness too.
