# %% [markdown]
# # 13. Volumes
#
# **You will be able to**
# - compare the voxels of volumes, and measure what resampling costs in Dice and in mm,
# - segment a volume from one box, and find the slices where it fails,
# - say why a mean over slices and a score per volume differ, and report the right one,
# - decide whether to keep the largest component, from cases where it helps and where it harms,
# - write a result into the grid of its input, and test that two readers see it in the same place.
#
# **Before this** [Chapter 1](01_images_and_metrics.ipynb) on spacing, orientation and metrics; [chapter 8](08_lite_medsam.ipynb) on one box for a volume.
#
# **Budget** 2 minutes on two CPU cores, 2 GB of memory, 0 MB to download

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
# ## Three kinds of voxels
#
# SAM is a network for 2D images. A 3D volume, such as a CT, gives it one slice at a time, and everything that connects the slices is left to you: the distance between them, the box that goes from one to the next, and the score.
#
# The volumes of this chapter are a CT of a spleen, MR volumes of the hippocampus, and a diffusion-weighted MR of a brain after a stroke.
# Where `MEDSAGA_DATA` names no folder, a drawn volume with a tilted ellipsoid replaces them, and the cells that need real volumes are left out.

# %% tags=["data"]
from medsaga_lib.data.catalog import open_or_phantoms
from medsaga_lib.data.phantoms import LICENCE

names = "ct_spleen_msd_crop", "hippocampus_msd", "mr_dwi_stroke_isles22"
opened = [open_or_phantoms(name) for name in names]
spleen, hippocampus, stroke = opened
are_real = spleen.dimensions == 3
for dataset in opened if are_real else ():
    print(dataset.describe())
if not are_real:
    print(f"phantom_volume: 1 volume, {LICENCE}")

# %%
import textwrap

from medsaga_lib.data.cases import read_pair
from medsaga_lib.data.phantoms import draw_volume

# %%
volumes = {"drawn": draw_volume(seed)}
if are_real:
    names = "spleen CT", "hippocampus MR", "stroke MR"
    pairs = [read_pair(dataset, dataset.cases[0]) for dataset in opened]
    volumes = dict(zip(names, pairs, strict=True))

# %%
credits = [f"{data.name}: {data.citation} | {data.licence}" for data in opened]
if not are_real:
    credits = 3 * ["drawn by medsaga_lib.data.phantoms.draw_volume"]


def credit(number):
    """Print the citation and the licence of a data set."""
    print(textwrap.fill(credits[number], 80))


# %% [markdown]
# An array of the library has the axes z, y, x: slice, row, column. *Anisotropy* is the largest side of a voxel divided by the smallest.

# %%
import numpy as np
import pandas as pd

# %% caption="Three volumes: size, spacing and labels."
rows = {}
for name, (volume, truth) in volumes.items():
    spacing = np.array(volume.spacing)
    extent = spacing * volume.shape
    rows[name] = {
        "shape (z, y, x)": " x ".join(map(str, volume.shape)),
        "voxel (mm)": " x ".join(f"{length:.2f}" for length in spacing),
        "extent (mm)": " x ".join(f"{length:.0f}" for length in extent),
        "anisotropy": f"{spacing.max() / spacing.min():.1f}",
        "labelled slices": f"{(truth > 0).any((1, 2)).sum()} of {len(truth)}",
        "labelled (ml)": f"{(truth > 0).sum() * spacing.prod() / 1000:.1f}",
    }
pd.DataFrame(rows)

# %% [markdown]
# The figure cuts each volume through the middle of its object, in three directions and in mm. An *axial* slice is seen from the feet, a *coronal* one from the front and a *sagittal* one from the side.
#
# > **Predict.** In which of these planes would you recognise that the slices are thick?

# %%
from medsaga_lib import display


# %% tags=["figure"]
def three_planes(volume, truth):
    """Axial, coronal and sagittal slice through the middle of the object."""
    arrays = volume.pixels, (truth > 0).astype(int)
    middle = [int(np.median(places)) for places in np.nonzero(truth)]
    for axis, plane in enumerate(("axial", "coronal", "sagittal")):
        head_up = slice(None) if axis == 0 else slice(None, None, -1)
        image, mask = (it.take(middle[axis], axis)[head_up] for it in arrays)
        spacing = tuple(np.delete(volume.spacing, axis))
        yield display.Panel(image, mask, None, plane, spacing)


# %% tags=["figure"]
panels = [panel for pair in volumes.values() for panel in three_planes(*pair)]
alt = (
    "A row for each volume with an axial, a coronal and a sagittal slice, and "
    "the contour of the labelled object, dashed. In the volume with slices of "
    "5 mm, the coronal and the sagittal slice consist of strips 5 mm high, and "
    "the contour has steps."
)

# %%
display.show(
    display.grid(panels, {1: "object"}, alt),
    caption=f"Rows: {', '.join(volumes)}. Columns: an axial, a coronal and a "
    "sagittal slice through the middle of the object, in mm. Dashed: ground "
    "truth.",
)
for number in range(len(volumes)):
    credit(number)

# %% [markdown] tags=["real"]
# A CT voxel of the spleen is 6.3 times as long as it is wide. In the axial plane, nobody sees this: LiteMedSAM gets sharp axial slices. The other planes are 26 rows of 5 mm.
# The other two volumes have the same spacing in all directions, so any plane may be cut into slices.

# %% [markdown]
# ## Resampling
#
# Many pipelines bring all volumes to one spacing, because the same organ looks different in 26 slices of 5 mm and in 130 slices of 1 mm. The result has to return to the grid of the input. How much is lost on the way, if the network makes no error at all?
#
# `regrid` does this with SimpleITK. An image is interpolated linearly. Labels are names, so a mask takes the nearest voxel ([chapter 1](01_images_and_metrics.ipynb), exercise 3).

# %%
import SimpleITK as sitk


# %%
def regrid(values, spacing, wanted, linear=False):
    """An array (z, y, x) on a grid near the wanted spacing, and its spacing."""
    extent = np.multiply(values.shape, spacing)
    counts = np.maximum(1, (extent / wanted).round()).astype(int)
    exact = extent / counts
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing[::-1])  # ITK's order is x, y, z
    to = sitk.ResampleImageFilter()
    to.SetInterpolator(sitk.sitkLinear if linear else sitk.sitkNearestNeighbor)
    to.SetSize(counts[::-1].tolist())
    to.SetOutputSpacing(exact[::-1].tolist())
    # The outer faces of both grids coincide, so the first centres do not
    to.SetOutputOrigin(((exact - spacing) / 2)[::-1].tolist())
    to.UseNearestNeighborExtrapolatorOn()
    return sitk.GetArrayFromImage(to.Execute(image)), tuple(exact.tolist())


# %% [markdown]
# The cell takes the annotator's mask to another spacing and back, and compares it with itself.
#
# > **Predict.** The spleen has 5 mm slices. Is it worse to drop every second slice, or to make the pixels of a slice 4 times as wide?

# %%
from medsaga_lib.evaluation.metrics import dice, hd95, nsd


def there_and_back(mask, spacing, wanted):
    """Dice, HD95 in mm and NSD of a mask after resampling and back."""
    coarse, between = regrid(mask.astype(np.uint8), spacing, wanted)
    pair = regrid(coarse, between, spacing)[0] > 0, mask
    return dice(*pair), hd95(*pair, spacing), nsd(*pair, spacing)


# %%
thick, organ = next(iter(volumes.values()))
organ = organ == 1

# %%
factors = {"slices x 2": (2, 1, 1), "slices x 3": (3, 1, 1)}
factors |= {"pixels x 2": (1, 2, 2), "pixels x 4": (1, 4, 4)}
rows = {}
for name, factor in factors.items():
    wanted = np.multiply(thick.spacing, factor)
    found = there_and_back(organ, thick.spacing, wanted)
    rows[name] = " x ".join(f"{length:.2g}" for length in wanted), *found

# %% caption="A mask taken to another spacing and back, compared with itself: the spleen."
isotropic = there_and_back(organ, thick.spacing, 3 * [max(thick.spacing)])
rows["cubes"] = " x ".join(3 * [f"{max(thick.spacing):.2g}"]), *isotropic
columns = ["voxel (mm)", "Dice", "HD95 (mm)", "NSD, 2 mm"]
pd.DataFrame(rows, columns).T.infer_objects().round(3)

# %% [markdown] tags=["real"]
# Every second slice costs more than pixels that are 4 times as wide, because a slice is already several times as thick as a pixel is wide. HD95 becomes the thickness of a slice: where the organ begins and ends, the mask is one slice off. NSD falls most, because a difference of one slice is never within 2 mm.

# %% [markdown] tags=["real"]
# The hippocampus has about 1 % of the spleen's volume. The next table has the means over 10 test volumes.

# %% caption="The same for the hippocampus, means over 10 volumes." tags=["real"]
# needs real images
tested = hippocampus.split("test")[:10]
small = [read_pair(hippocampus, case) for case in tested]
grids = [(2, 1, 1), (3, 1, 1), (1, 2, 2), (2, 2, 2), (3, 3, 3)]
rows = {}
for wanted in grids:
    scores = [
        there_and_back(mask > 0, one.spacing, wanted) for one, mask in small
    ]
    rows[" x ".join(map(str, wanted))] = np.mean(scores, 0)
pd.DataFrame(rows, columns[1:]).T.rename_axis("voxel (mm)").round(3)

# %% tags=["real", "figure"]
# needs real images
one, mask = small[0]
z = (mask > 0).sum((1, 2)).argmax()
panels = []
for side in (1, 2, 3):
    low, between = regrid((mask > 0).astype(np.uint8), one.spacing, 3 * [side])
    back = regrid(low, between, one.spacing)[0].astype(int)
    title = f"{side} mm and back: {dice(back > 0, mask > 0):.2f}"
    pair = (mask[z] > 0).astype(int), back[z]
    panels.append(display.Panel(one.pixels[z], *pair, title))

# %% tags=["real", "figure"]
# needs real images
alt = (
    "One MR slice 3 times with the hippocampus, dashed the annotator's "
    "contour, solid the contour after resampling and back. At 1 mm they "
    "agree. At 2 and 3 mm the solid contour consists of large steps and is up "
    "to 2 pixels off. The titles give the Dice of the volume."
)

# %% tags=["real"]
# needs real images
display.show(
    display.grid(panels, {1: "hippocampus"}, alt, lines=("after", "before")),
    caption="The mask of a hippocampus before (dashed) and after (solid) "
    "resampling to cubes of 1, 2 and 3 mm and back. The titles give the Dice "
    "of the volume.",
)
credit(1)

# %% [markdown] tags=["real"]
# With voxels of 2 mm, a method that repeats the annotator's mask has a mean Dice of 0.86. HD95 and NSD hardly show the loss, because an error of one voxel is 1 mm, within the tolerance.
# A table that compares methods at different spacings also compares these losses. So score on the grid of the input, and choose the spacing by this test before you train.

# %% [markdown]
# ## From one box to a volume
#
# A person draws one box on the middle slice, and names the first and the last slice. [Chapter 8](08_lite_medsam.ipynb) compared two ways to go on: the *same box* on every slice, and *propagation*, where each next box surrounds the last mask. We add the exact box of every slice, which is the most that boxes can give, and the ellipse in the person's box, which needs no network.
#
# On the command line, `medsaga predict lite_medsam ct.nii.gz --window CT --box X0,Y0,Z0,X1,Y1,Z1 --out masks` propagates a box, given in voxels of the file; `--slices same` keeps the same box. In Python, `load_box_predictor` does it, as below.
#
# Most of the time goes into the encoder, and its output does not depend on the boxes. The dictionary `kept` holds the embeddings, so that each slice is encoded once. To save time, the input has 128 px; a slice of the spleen has 166 x 164 pixels. Chapter 8 has the same box with LiteMedSAM's 256 px, so its Dice is different.
# LiteMedSAM has probably seen this CT in its own training ([Where the weights come from](../book/weights.md)), so the scores say nothing about new patients. The kinds of errors are what to look at.

# %%
import torch

from medsaga_lib.data.prompts import box_of, fill_box
from medsaga_lib.inference.box_predictor import load_box_predictor

lite = load_box_predictor("lite_medsam", size=128)
# Channels last in memory: the same result up to rounding, often faster on a CPU
lite.sam.image_encoder.to(memory_format=torch.channels_last)
kept = {}

# %%
inside = np.flatnonzero(organ.any((1, 2)))
first, last = inside[0], inside[-1]
middle = (first + last) // 2
left, top, right, bottom = box_of(organ[middle])
one_box = np.array([[left, top, first, right, bottom, last]])
exact = [box_of(organ[z]) for z in inside]
each_box = [[*box[:2], z, *box[2:], z] for box, z in zip(exact, inside)]
print(f"{len(inside)} slices, {first} to {last}")
print(f"box on slice {middle}: {one_box[0]}")

# %%
from time import process_time

ways = {"a box per slice": (np.array(each_box), "same")}
ways |= {"same box": (one_box, "same"), "propagated": (one_box, "propagate")}

# %%
masks, seconds = {}, {}
for name, (boxes, rule) in ways.items():
    start = process_time()
    masks[name] = lite(thick, boxes, rule, kept) > 0
    seconds[name] = process_time() - start

# %%
ellipse = fill_box(box_of(organ[middle]), organ.shape[1:], ellipse=True)
masks["ellipse"] = np.zeros_like(organ)
masks["ellipse"][inside] = ellipse


# %% [markdown]
# > **Predict.** What does the network gain from 20 boxes instead of one?

# %%
def scores_of(mask):
    """Dice, HD95 in mm and NSD of a mask of the whole volume."""
    pair, spacing = (mask, organ), thick.spacing
    return dice(*pair), hd95(*pair, spacing), nsd(*pair, spacing)


# %% caption="The spleen from boxes, by the number of boxes that a person draws. Likely seen by LiteMedSAM: spleen."
rows = {name: scores_of(mask) for name, mask in masks.items()}
table = pd.DataFrame(rows, columns[1:]).T
table.insert(0, "boxes drawn", [len(inside), 1, 1, 1])
table.round(3).astype({"boxes drawn": int})

# %% [markdown]
# The score of a volume does not say where a method fails. The figure shows the area of each slice.

# %%
pixel = thick.spacing[1] * thick.spacing[2] / 100  # cm²
drawn = {"annotator": organ}
drawn |= {name: masks[name] for name in ("same box", "propagated")}
areas = {name: pixel * mask.sum((1, 2)) for name, mask in drawn.items()}

# %% tags=["figure"]
heights = (inside - middle) * thick.spacing[0]
curves = [
    display.Curve(name, heights, area[inside]) for name, area in areas.items()
]

# %% tags=["figure"]
alt = (
    "Area of the object in each slice against the distance from the slice "
    "with the box, for the annotator, the same box and propagation. "
    "Propagation follows the annotator. The same box can keep a large area "
    "where the object becomes small."
)

# %%
axes = "distance from the slice with the box (mm)", "area (cm²)"
display.show(
    display.curve_with_interval(curves, *axes, alt),
    caption="Area of the object in each of its slices. The distance is "
    "negative towards the feet and positive towards the head.",
)

# %%
by_slice = {
    name: [dice(mask[z], organ[z]) for z in inside]
    for name, mask in masks.items()
}

# %% caption="Mean Dice of slices by their place in the spleen. Likely seen by LiteMedSAM: spleen."
parts = {"first 3": slice(3), "middle": slice(3, -3), "last 3": slice(-3, None)}
rows = {
    name: {part: np.mean(values[chosen]) for part, chosen in parts.items()}
    for name, values in by_slice.items()
}
print("mean Dice of slices")
pd.DataFrame(rows).T.round(2)

# %% caption="Area of the spleen in 4 slices, by annotator and by two ways, in cm\u00b2."
print("area in cm²")
at = {"first slice": first, "slice with the box": middle}
at |= {"4 above": middle + 4, "last slice": last}
rows = {name: area[[*at.values()]] for name, area in areas.items()}
pd.DataFrame(rows, at).T.round(1)


# %% [markdown] tags=["real"]
# With a box on each slice, Dice is 0.97: the network can segment this organ. With one box instead of 20, propagation keeps 0.93, and the same box 0.83.
#
# - Towards both ends the spleen becomes small, and the same box does not. In the first slice, the organ has 2 cm² and the mask 26 cm².
# - Downwards, propagation stays near the organ. Upwards, both masks lack 8 and 9 cm² 4 slices above the box, and both are too large in the last slice. The spleen leaves the first box, and a propagated box is only 3 px of 256 larger than the last mask.
# - Even exact boxes have 0.91 in the outer slices, and 0.97 between them. The organ is cut along its surface there, and 5 mm of tissue are averaged in a voxel.

# %% tags=["figure"]
def panel_of(z, mask, title):
    """A slice with the contours of the annotator and of a mask."""
    pair = organ[z].astype(int), mask[z].astype(int)
    return display.Panel(thick.pixels[z], *pair, title, thick.spacing[1:])


panels = [
    panel_of(z, masks[name], f"{name}, slice {z}")
    for name in ("same box", "propagated")
    for z in (first, middle, last)
]

# %% tags=["figure"]
alt = (
    "The first, the middle and the last slice of the organ, above with the "
    "same box and below with propagation. Dashed: the annotator. Solid: the "
    "network. In the middle slice, the contours agree. In the first and the "
    "last slice, the organ is small. There, the same box also has a mask of "
    "other tissue, and the propagated mask is larger than the organ."
)

# %%
display.show(
    display.grid(panels, {1: "organ"}, alt),
    caption="First, middle and last slice of the organ. Top: the same box on "
    "every slice; bottom: propagated boxes. Solid: LiteMedSAM's masks; "
    "dashed: ground truth.",
)
credit(0)

# %% [markdown] tags=["real"]
# In the first slice, the same box contains a kidney, and the network segments it. In the last slice, it takes lung beside the spleen. A network that is asked by a box answers with what is in the box.

# %% [markdown]
# ### Slices without the organ
#
# Neither way finds the ends of the organ: the first and the last slice come from the person. If the first slice is too early, the network has no way to object. The next cell makes the range 3 slices too long at each end.
#
# > **Predict.** How much Dice do 6 empty slices cost?

# %%
long_box = one_box.copy()
long_box[0, [2, 5]] = max(first - 3, 0), min(last + 3, len(organ) - 1)
for name, rule in (("same box", "same"), ("propagated", "propagate")):
    masks[f"{name}, long"] = lite(thick, long_box, rule, kept) > 0

# %%
empty = ~organ.any((1, 2))
voxel = np.prod(thick.spacing) / 1000  # ml
rows = {}
for name in ("same box", "same box, long", "propagated", "propagated, long"):
    invented = masks[name][empty]
    rows[name] = [invented.any((1, 2)).sum(), invented.sum() * voxel]
    rows[name] += scores_of(masks[name])

# %% caption="The right range of slices, and one that is 3 slices too long at each end (`long`). Likely seen by LiteMedSAM: spleen."
table = pd.DataFrame(rows, ["slices invented", "invented (ml)", *columns[1:]]).T
table.round(3).astype({"slices invented": int})


# %% [markdown] tags=["real"]
# The network finds a spleen in all 6 slices that have none. With the same box, it invents 113 ml, more than a third of the spleen's 305 ml. Propagation invents 17 ml, because its boxes shrink with the organ, and HD95 rises from 6 to 13 mm.
# The range of slices is a part of the prompt. A range that is too short loses slices in the same way, and no mask shows it.

# %% [markdown]
# ## A score per slice or per volume
#
# Some papers report a mean over slices, others a score for each volume, and networks for slices are scored in both ways: SAMed and TransUNet report volumes on Synapse. Both scores are called "Dice". Here are rules for the same masks:
#
# - `volume`: all voxels of the volume at once,
# - `slices with the organ`: the mean over the slices that the annotator marked,
# - `slices with a mask`: the mean over the slices that have the organ or a prediction; an invented slice has 0,
# - `all slices`: the mean over all slices, where two empty masks count as 1,
# - `HD95 of slices`: the mean of the distances within the slices that have both masks.
#
# > **Predict.** Which rule gives the highest Dice to the long range, and which the lowest?

# %%
def rules(mask, truth, spacing):
    """The same mask, scored by several rules."""
    pairs = list(zip(mask, truth, strict=True))
    values = np.array([dice(*pair) for pair in pairs])  # NaN if both are empty
    both = [pair for pair in pairs if pair[0].any() and pair[1].any()]
    flat = [hd95(*pair, spacing[1:]) for pair in both]
    return {
        "volume": dice(mask, truth),
        "slices with the organ": values[truth.any((1, 2))].mean(),
        "slices with a mask": np.nanmean(values),
        "all slices": np.nan_to_num(values, nan=1).mean(),
        "HD95 (mm)": hd95(mask, truth, spacing),
        "HD95 of slices (mm)": np.mean(flat) if flat else np.nan,
    }


# %% caption="Four rules for the Dice of a volume, and two for its HD95. Likely seen by LiteMedSAM: spleen."
chosen = "a box per slice", "same box", "propagated", "propagated, long"
rows = {name: rules(masks[name], organ, thick.spacing) for name in chosen}
pd.DataFrame(rows).T.round(3)

# %% [markdown] tags=["real"]
# Compare the last two rows. The range is 3 slices too long at each end:
#
# - `slices with the organ` does not change at all, because nobody looks at the invented slices.
# - `volume` falls from 0.93 to 0.90, because the invented masks are small.
# - `slices with a mask` falls from 0.92 to 0.70, because each invented slice counts as much as the largest slice of the organ.
#
# The same mask has a Dice of 0.70, 0.90 or 0.92. HD95 within slices stays at 6.6 mm, because slices that only one of the masks has are left out.

# %% [markdown]
# Report the score of the volume, because a patient has one organ and not 20 slices. Name the rule, and never take a number from a paper that does not.
#
# ## The largest component
#
# Slices that are segmented one by one may have stray patches. Two simple steps use the fact that they belong to one volume: `majority` gives each voxel the label that 2 of 3 neighbouring slices agree on, and `largest` keeps the largest component of each label, connected by faces. Both are options of `medsaga predict`; neither belongs to a published method.
#
# > **Predict.** Which of the masks above gains from `largest`, and which does not?

# %% caption="Scores as they are (none), after a majority of 3 slices, and with the largest component alone. Likely seen by LiteMedSAM: spleen."
from medsaga_lib.inference.volume_labels import consistent

rows = {}
for name in chosen:
    for step in ("none", "majority", "largest"):
        mask = consistent(masks[name].astype(int), step) > 0
        rows[name, step] = scores_of(mask)
pd.DataFrame(rows, columns[1:]).T.round(3)

# %% tags=["figure"]
alone = consistent(masks["same box"].astype(int), "largest") > 0
z = (masks["same box"] & ~alone).sum((1, 2)).argmax()
both = {"same box": masks["same box"], "largest component": alone}
panels = [panel_of(z, mask, title) for title, mask in both.items()]
alt = (
    "One slice twice, with the organ dashed. On the left, the solid contours "
    "of the same box, with the largest stray patch of the volume. On the "
    "right, only the part that is connected with the rest of the organ is "
    "left."
)

# %%
display.show(
    display.grid(panels, {1: "organ"}, alt, columns=2),
    caption="The slice that loses most when the largest component of the "
    "volume is kept: before (left) and after (right). Solid: the mask of the "
    "same box; dashed: ground truth.",
)
credit(0)

# %% [markdown] tags=["real"]
# `largest` repairs the same box: Dice rises from 0.83 to 0.90, and HD95 falls from 33 to 15 mm, because the kidney and other patches are not connected with the spleen. The other masks change little. The invented slices of the long range touch the organ, so they stay.
# `majority` smooths from slice to slice. With slices of 5 mm, neighbouring slices differ for good reasons, and it changes the Dice by at most 0.02 here.
# This is one volume, so there is no interval. Compare such a step on the validation volumes of your own data before you use it.

# %% [markdown] tags=["real"]
# ### When the largest component is wrong
#
# > **Predict.** An infarct is one disease, but not one piece. What does `largest` do to the annotator's own mask of the stroke?

# %% tags=["real"]
# needs real images
brain, infarct = volumes["stroke MR"]
largest_piece = consistent(infarct, "largest") == 1
print(f"Dice {dice(largest_piece, infarct == 1):.3f}", end=", ")
print(f"HD95 {hd95(largest_piece, infarct == 1, brain.spacing):.1f} mm")

# %% [markdown] tags=["real"]
# The Dice of the annotator's own mask falls to 0.55, and no network made an error. Use `largest` only for one connected organ, such as a spleen, and not for lesions, vessels, nuclei, or a pair of organs with one label.

# %% [markdown]
# ## Back to the grid of the file
#
# The library turns each volume to one orientation. A result has to return: to the axes, the spacing and the position of its input. Otherwise a viewer shows it beside the organ, and no score shows this error, because scores compare arrays.
#
# The next cells use a file whose axes are oblique, and run in other directions than those of the library. `write_labels` writes a label map into the grid of its image.

# %%
import tempfile
from pathlib import Path

import nibabel

from medsaga_lib.data.images import read_image
from medsaga_lib.data.label_files import write_labels

folder = Path(tempfile.mkdtemp())

# %%
if are_real:
    scan, wanted = stroke.cases[0].image, volumes["stroke MR"][1]
else:
    scan, wanted = folder / "scan.nii.gz", volumes["drawn"][1]
    cos, sin = np.cos(0.3), np.sin(0.3)  # the slices are tilted by 0.3 radians
    oblique = np.eye(4)
    oblique[:3] = [[-1, 0, 0, 60], [0, cos, -sin, -40], [0, sin, cos, -60]]
    oblique[:3, :3] *= volumes["drawn"][0].spacing[::-1]
    stored = nibabel.Nifti1Image(volumes["drawn"][0].pixels.T[:, ::-1], oblique)
    stored.set_qform(oblique, 2)
    nibabel.save(stored, scan)

# %%
source = read_image(scan, "MR")
print("axes of the file:", source.geometry.codes, "| inside the library: LPS")
write_labels(folder / "result.nii.gz", source, wanted)


# %% [markdown]
# Two independent readers open the result: nibabel, whose positions in mm grow to the right, front and head (RAS), and SimpleITK, whose positions grow to the left, back and head (LPS). Where is the centre of the object for each?

# %%
def centre_nibabel(path):
    """The centre of all voxels above 0, in mm (RAS), by nibabel."""
    image = nibabel.load(path)
    voxel = np.argwhere(image.get_fdata() > 0).mean(0)
    return image.affine[:3, :3] @ voxel + image.affine[:3, 3]


# %%
def centre_itk(path):
    """The same by SimpleITK, turned from LPS to RAS."""
    image = sitk.ReadImage(str(path))
    voxel = np.argwhere(sitk.GetArrayViewFromImage(image) > 0).mean(0)[::-1]
    place = image.TransformContinuousIndexToPhysicalPoint(voxel)
    return place * np.array([-1, -1, 1])


# %%
for reader in (centre_nibabel, centre_itk):
    print(f"{reader.__name__:15} {reader(folder / 'result.nii.gz').round(2)}")
files = scan, folder / "result.nii.gz"
before, after = (nibabel.load(path).header for path in files)
for key in ("qform_code", "sform_code", "pixdim", "dim"):
    print(f"{key:10} equal: {np.array_equal(before[key], after[key])}")


# %% [markdown]
# Both readers agree, and the header has the dimensions and the voxel lengths of the input, and its two codes, which are explained below. The figure shows the result on the scan, as each of the two readers gives the arrays.

# %%
def by_nibabel(path):
    return np.asarray(nibabel.load(path).dataobj).T


def by_itk(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


# %% tags=["figure"]
panels = []
for name, read in (("nibabel", by_nibabel), ("SimpleITK", by_itk)):
    arrays = [read(file) for file in files]
    z = arrays[1].sum((1, 2)).argmax()
    grey = np.clip(arrays[0][z] / np.percentile(arrays[0], 99.5), 0, 1)
    mask = (arrays[1][z] > 0).astype(int)
    panels.append(display.Panel(grey, None, mask, f"{name}, slice {z}"))

# %% tags=["figure"]
alt = (
    "The same slice of the file twice, read by nibabel and by SimpleITK, with "
    "the solid contour of the result. Image and contour are the same in both, "
    "and solid contours surround bright lesions. The slice is upside down, "
    "because the axes are those of the file."
)

# %%
display.show(
    display.grid(panels, {1: "infarct"}, alt, 2, ("result", "")),
    caption="The result (solid) on its scan, as two readers give the arrays. "
    "The axes are those of the file, so the slice may be upside down.",
)
credit(2)

# %% [markdown]
# ### A result without a header
#
# > **Predict.** A colleague saves the array without a header: `nibabel.Nifti1Image(labels, numpy.eye(4))`. How far is the object from its place?

# %%
bare = nibabel.Nifti1Image(wanted.astype(np.uint8), np.eye(4))
nibabel.save(bare, folder / "bare.nii.gz")
places = [centre_nibabel(folder / f"{it}.nii.gz") for it in ("result", "bare")]
print(f"off by {np.linalg.norm(places[1] - places[0]):.0f} mm")

# %% [markdown]
# ### Two forms of one affine
#
# A NIfTI file may have two forms of its affine, the *qform* and the *sform*. Each has a code that says what its positions mean, and the two may differ. The next cell moves the qform of a copy by 10 mm.

# %%
moved = nibabel.Nifti1Image.from_filename(scan)
other = moved.get_qform() if moved.header["qform_code"] else moved.affine.copy()
other[0, 3] += 10
moved.set_qform(other, 1)
moved.set_sform(moved.affine, 2)
nibabel.save(moved, folder / "two_forms.nii.gz")

# %%
twice = read_image(folder / "two_forms.nii.gz", "MR")
write_labels(folder / "of_two_forms.nii.gz", twice, wanted)
readers = {"nibabel": centre_nibabel, "SimpleITK": centre_itk}
for name, centre in readers.items():
    print(f"{name:10} {centre(folder / 'of_two_forms.nii.gz').round(2)}")

# %% [markdown]
# The readers now disagree by 10 mm, about the scan and about the result alike: nibabel takes the sform; SimpleITK 2.5 takes the qform, unless the code of the sform is 1, and the cell set it to 2. The result has both forms of its input, so it lies on its scan in either reader. `medsaga data check` names such files.

# %% [markdown]
# ## Time and memory
#
# A volume costs what its slices cost. The cell measures one slice, and multiplies.

# %%
start = process_time()
embedding = lite.embed(thick.pixels[middle])
encode = process_time() - start
decode = seconds["same box"] / len(inside)

# %% caption="Time and memory of a volume from the time of one slice."
rows = {}
sizes = {"this volume": thick.shape, "CT of a trunk": (700, 512, 512)}
for name, (depth, height, width) in sizes.items():
    rows[name] = {
        "slices": depth,
        "encode all (minutes)": depth * encode / 60,
        "one box, kept (minutes)": depth * decode / 60,
        "pixels in float32 (MB)": depth * height * width * 4 / 1e6,
        "kept embeddings (MB)": depth * embedding.nbytes / 1e6,
    }
display.table(pd.DataFrame(rows).T, digits=2)

# %% [markdown]
# The encoder takes nearly all of the time. The kept embeddings of a CT of a trunk take as much memory as its pixels, and 4 times as much at 256 px, because their grid has 4 times as many cells. So the library keeps embeddings only if you give it a dictionary. Slices outside the range of the box are not encoded, so a short range saves time as well.

# %% [markdown]
# ## Questions

# %% [markdown] tags=["question"]
# **Question 1.** A paper reports a mean Dice of 0.93 over all slices of 40 CT volumes. You have 0.85 per volume. Which method is better?
#
# - **A.** Nobody can say without the rule for slices that show no organ, and without their number.
# - **B.** The one with 0.93, because a mean over more slices is more exact.
# - **C.** The one with 0.85, because volumes are harder than slices.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** Yes: if two empty masks count as 1, and half of the slices are empty, a Dice of 0.86 on the others gives 0.93.
# - **B.** No: it is a mean of other things. An invented slice, a missed slice and an empty slice have no part of their own in the Dice of a volume.
# - **C.** No: the table of rules has one mask with very different scores, and the order depends on the rule.
# </details>

# %% [markdown] tags=["question"]
# **Question 2.** Propagation lost the organ in slice 12 and found nothing from there on. Which correction takes least time?
#
# - **A.** Draw a contour by hand in each slice from 12 on.
# - **B.** Draw a new box on slice 12, and let it propagate to the end.
# - **C.** Draw a larger box on the middle slice.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: this repairs the masks, but every slice costs a contour.
# - **B.** Yes: every slice after an error depends on it, so the first wrong slice is the one to correct.
# - **C.** No: the first box was good enough for all slices up to 11. The box of slice 12 comes from the mask of slice 11.
# </details>

# %% [markdown] tags=["question"]
# **Question 3.** Which masks may you repair by keeping the largest component of each label?
#
# - **A.** All masks, because stray patches are always errors.
# - **B.** Masks of nuclei, which are small and round.
# - **C.** Masks of one connected organ, after a test on validation volumes.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: an infarct has many pieces, and the step removes correct ones. The annotator's own mask loses.
# - **B.** No: one nucleus would be left.
# - **C.** Yes: a spleen is one piece. The test shows whether the patches that are removed are the wrong ones.
# </details>

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: calculate (easy, 5 minutes)
# An organ is a cylinder of 10 slices, each 5 mm thick and the same disc. A method misses the first and the last slice, and is right elsewhere. Compute by hand: the Dice of the volume; the mean Dice of the 10 slices that have the organ; and HD95 in mm.

# %% tags=["exercise"]
by_hand = {"volume": None, "slices": None, "HD95 in mm": None}

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# by_hand = {"volume": 2 * 8 / (10 + 8), "slices": 8 / 10, "HD95 in mm": 5.0}
# # All voxels of both end discs are surface, so far more than 5 % of the
# # distances are 5 mm.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
from medsaga_lib.display.answers import as_number

y, x = np.indices((60, 60)) - 30
cylinder = np.zeros((14, 60, 60), bool)
cylinder[2:12] = y**2 + x**2 <= 20**2
short = cylinder.copy()
short[[2, 11]] = False
scored = rules(short, cylinder, (5, 1, 1))
expected = {"volume": "volume", "slices": "slices with the organ"}
expected["HD95 in mm"] = "HD95 (mm)"
hints = {
    "volume": "the masks have 8 and 10 discs, and 8 in common.",
    "slices": "a missed slice has Dice 0.",
    "HD95 in mm": "how far is the annotator's end disc from the prediction's?",
}
for name, rule in expected.items():
    answer = as_number(name, by_hand.get(name))
    right = abs(answer - scored[rule]) < 1e-3
    assert right, f"{name} is not {answer}: {hints[name]}"

# %% [markdown]
# ### Exercise 2: experiment (medium, 15 minutes)
# Would propagation still work if the scan had thicker gaps between its slices? Write `propagated_every(step)`: take every `step`-th slice of the organ's range, `inside[::step]`, with the exact box on their middle slice, and return the Dice on these slices. No slice has to be encoded again: give the stored embeddings with their new numbers. Fill `by_step` for the steps 1, 2 and 4, and explain the result with `SHIFT` in `medsaga_lib/inference/volume_boxes.py`.

# %% tags=["exercise"]
from dataclasses import replace


def propagated_every(step):
    numbers = inside[::step]
    fewer = replace(thick, pixels=thick.pixels[numbers])
    again = {place: kept[number] for place, number in enumerate(numbers)}
    box = one_box  # of all slices, not of these
    return dice(lite(fewer, box, "propagate", again) > 0, organ[numbers])


by_step = {}

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def propagated_every(step):
#     numbers = inside[::step]
#     fewer = replace(thick, pixels=thick.pixels[numbers])
#     again = {place: kept[number] for place, number in enumerate(numbers)}
#     left, top, right, bottom = box_of(organ[numbers[(len(numbers) - 1) // 2]])
#     box = np.array([[left, top, 0, right, bottom, len(numbers) - 1]])
#     return dice(lite(fewer, box, "propagate", again) > 0, organ[numbers])
#
#
# by_step = {step: propagated_every(step) for step in (1, 2, 4)}
# print({step: round(score, 3) for step, score in by_step.items()})
# # A propagated box is SHIFT = 3 px of 256 larger than the last mask, whatever
# # the distance of the slices is. If the organ grows or moves by more than that
# # from slice to slice, its new part lies outside of the box. The step from mask
# # to box should depend on the spacing.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
assert {*by_step} == {1, 2, 4}, (
    f"by_step has the steps {[*by_step]}; fill it for 1, 2 and 4."
)
dices = {n: as_number(f"by_step[{n}]", by_step[n]) for n in by_step}
assert abs(dices[1] - dice(masks["propagated"], organ)) < 1e-6, (
    f"With step 1, the Dice is that of `propagated` above, not {dices[1]:.3f}."
)
every = len(inside)
alone = as_number(f"propagated_every({every})", propagated_every(every))
own = dice(masks["a box per slice"][first], organ[first])
assert abs(alone - own) < 0.02, (
    f"With step {every}, one slice is left, so the Dice is that of its own "
    f"exact box, {own:.3f}, and not {alone:.3f}. Which box, and which numbers "
    "of slices, does `lite` get?"
)
for step in (2, 4):
    again = as_number(f"propagated_every({step})", propagated_every(step))
    assert abs(dices[step] - again) < 1e-6, (
        f"by_step[{step}] is {dices[step]:.3f}, not {again:.3f}."
    )


# %% [markdown]
# ### Exercise 3: find the fault (hard, 15 minutes)
# A colleague brings masks to pixels of twice the size, scores them there, and is happy: "HD95 is only half of what it was before!" Find the fault with a mask that is moved by a known distance, and repair `score_resampled`.

# %% tags=["exercise"]
def score_resampled(mask, truth, spacing, wanted):
    """HD95 in mm between two masks, after both got another spacing."""
    small, new = regrid(mask.astype(np.uint8), spacing, wanted)
    small_truth, new = regrid(truth.astype(np.uint8), spacing, wanted)
    return hd95(small > 0, small_truth > 0, spacing)


# A mask that was moved by 6 mm, with voxels of 2 mm instead of 1 mm
plate = np.zeros((4, 40, 40), bool)
plate[:, 8:24, 8:24] = True
moved = np.roll(plate, 6, axis=2)
print(score_resampled(moved, plate, (1.0, 1.0, 1.0), (1.0, 2.0, 2.0)))

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def score_resampled(mask, truth, spacing, wanted):
#     small, new = regrid(mask.astype(np.uint8), spacing, wanted)
#     small_truth, new = regrid(truth.astype(np.uint8), spacing, wanted)
#     return hd95(small > 0, small_truth > 0, new)  # the grid's new spacing
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
z, y, x = np.indices((20, 40, 40))
# Voxels of 4 x 1 x 1 mm
ball = (4 * (z - 10)) ** 2 + (y - 20) ** 2 + (x - 20) ** 2 <= 15**2
beside = np.roll(ball, 6, axis=2)
for wanted in ((4.0, 2.0, 2.0), (4.0, 1.0, 1.0)):
    scored = score_resampled(beside, ball, (4.0, 1.0, 1.0), wanted)
    scored = as_number("score_resampled(...)", scored)
    assert abs(scored - 6) < 2.1, (
        f"A mask that was moved by 6 mm has an HD95 of {scored:.1f} mm after "
        f"resampling to {wanted} mm: which spacing do the resampled masks have?"
    )

# %% [markdown]
# ## Summary
#
# - A voxel has a shape. Resampling to larger voxels limits the Dice that any method can have; measure this limit with the annotator's masks before you train.
# - One box for a volume fails at the ends, where the organ is small and the box also holds other tissue, and where the organ moves out of the box. It invents masks in slices without the organ. The range of slices is a part of the prompt.
# - The same mask has different Dice per slice and per volume. Report the volume, with the rule for empty slices.
# - The largest component removes stray patches of a connected organ, and destroys lesions of several pieces.
# - A result belongs to the grid of its file. Test it with two readers.
#
# ## Sources
#
# LiteMedSAM's propagation: [Ma et al. 2024](../book/references.md), and the branch [LiteMedSAM](https://github.com/bowang-lab/MedSAM/tree/LiteMedSAM) of MedSAM's code. The data sets are named below their images. The forms of NIfTI: the [NIfTI-1 header](https://nifti.nimh.nih.gov/nifti-1/). The rules of this library for files are in [How to use this book](../book/how-to-use.md).
# [Chapter 14](14_your_own_images.ipynb) does all steps on a folder of your own.
