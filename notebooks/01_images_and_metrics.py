# %% [markdown]
# # 1. Medical images, masks and metrics
#
# **You will be able to**
# - say what the numbers of an X-ray, a CT, an MR volume, a microscopy image and a colonoscopy frame mean, and choose a window for a CT,
# - read a spacing, an orientation, a label map and an instance map, and check the folder of a data set,
# - split a data set by patient, and measure what another split does to a score,
# - say which errors Dice, IoU, HD95 and NSD show, and which they hide,
# - report a mean with an interval over patients, and read the tables of the later chapters.
#
# **Before this** Python and NumPy. No knowledge of medicine or of SAM is needed.
#
# **Budget** 2 minutes on two CPU cores, 1.5 GB of memory, 0 MB to download

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
# ## Images as arrays
#
# To *segment* an image is to give each of its pixels a class, for example right lung, left lung or background. The result is a *mask*.
# This chapter shows what the images and the masks are as arrays, and how a predicted mask is compared with the mask of an annotator. It needs no network.
#
# A *modality* is a way to make images: X-ray, CT, MR, microscopy or endoscopy, which includes colonoscopy. The book uses one data set or more of each.
# Where the environment variable `MEDSAGA_DATA` names no folder, drawn chest X-rays (*phantoms*) and a drawn volume replace them, and the cells that need real images are left out.

# %% tags=["data"]
from medsaga_lib.data.catalog import open_or_phantoms

names = (
    "cxr_hannover_lungs", "polyp_kvasir", "nuclei_dsb2018",
    "ct_spleen_msd_crop", "hippocampus_msd", "mr_dwi_stroke_isles22",
)  # fmt: skip
opened = [open_or_phantoms(name) for name in names]
for dataset in {dataset.name: dataset for dataset in opened}.values():
    print(dataset.describe())

# %%
chest, polyps, nuclei, spleen, hippocampus, stroke = opened


def credit(dataset):
    """Print the citation and the licence of a data set."""
    print(f"{dataset.name}: {dataset.citation} | {dataset.licence}")


# %% [markdown]
# A *case* is one image or one volume with its mask. The next table has the stored numbers of the first case of each data set.

# %% [markdown] tags=["real"]
# > **Predict.** Which modalities have values below 0? In which of them do the values have a unit?

# %%
import numpy as np
import pandas as pd

from medsaga_lib.data.images import read_stored

# %% caption="One image or volume of each data set: modality, shape, type, and lowest and highest stored value."
rows = {}
for dataset in opened:
    stored = read_stored(dataset.cases[0].image)
    rows[dataset.name] = {
        "modality": dataset.modality,
        "shape": " x ".join(map(str, stored.values.shape)),
        "type": stored.values.dtype,
        "lowest": f"{stored.values.min():.0f}",
        "highest": f"{stored.values.max():.0f}",
    }
pd.DataFrame(rows).T

# %% [markdown] tags=["real"]
# The CT and one of the MR volumes have values below 0. CT values have a unit, MR values have none. The figure shows the same 6 cases. From a volume, it shows the axial slice with the largest mask. An *axial* slice is perpendicular to the axis from the feet to the head.

# %% tags=["real"]
# needs real images
from medsaga_lib import display
from medsaga_lib.data.cases import read_pair


# %% tags=["real"]
# needs real images
def panel(dataset):
    """The first case; of a volume, the slice with the largest mask."""
    picture, truth = read_pair(dataset, dataset.cases[0])
    pixels, spacing = picture.pixels, picture.spacing
    if len(spacing) == 3:
        middle = (truth > 0).sum((1, 2)).argmax()
        pixels, spacing = pixels[middle], spacing[1:]
    return display.Panel(pixels, title=dataset.name, spacing=spacing)


# %% tags=["real"]
# needs real images
panels = [panel(dataset) for dataset in opened]
display.show(
    display.grid(panels, {}, alt="Six modalities."),
    alt="Six images. A chest X-ray. A red frame from inside a colon with a "
    "round polyp. Grey nuclei on a black background. A part of a CT slice with "
    "the spleen, fat and ribs. A small MR slice with large pixels. An MR slice "
    "of a brain with a few bright spots.",
    caption="The first case of each data set. A volume is shown by the axial "
    "slice with its largest mask, in its true proportions.",
)
for dataset in opened:
    credit(dataset)

# %% [markdown] tags=["real"]
# Table: Modalities of this book, and what a value measures.
#
# | modality | what a value measures | unit |
# | --- | --- | --- |
# | X-ray | X-rays that reached the detector, after processing by the device | none |
# | CT | how much a voxel attenuates X-rays | Hounsfield unit |
# | MR | the signal of hydrogen nuclei, which depends on the device and its settings | none |
# | microscopy | light of a dye, or light that a stained tissue lets through | none |
# | colonoscopy | the light of a camera in red, green and blue | none |

# %% [markdown] tags=["real"]
# ## CT: Hounsfield units and windows
#
# A CT computes the attenuation coefficient $\mu$ of each *voxel*, the pixel of a volume. It is stored in Hounsfield units (HU):
#
# $$ \mathrm{HU} = 1000\, \frac{\mu - \mu_{\text{water}}}{\mu_{\text{water}} - \mu_{\text{air}}}. $$
#
# Water is 0 HU and air is -1000 HU on every device. An organ therefore has about the same values in every patient, if they got the same contrast agent. Fat is a little below water, soft tissue a little above it, and bone has the highest values of the body. The next cell measures the spleen.

# %% tags=["real"]
# needs real images
from medsaga_lib.data.cases import read_case_mask

# %% tags=["real"]
# needs real images
hounsfield = read_stored(spleen.cases[0].image).values  # (z, y, x)
organ = read_case_mask(spleen, spleen.cases[0]).values == 1
low, median, high = np.percentile(hounsfield[organ], [5, 50, 95])
print(f"spleen: median {median:.0f} HU")
print(f"5 % of its voxels are below {low:.0f} HU, 5 % above {high:.0f} HU")
print(f"90 % of its voxels are within {high - low:.0f} HU")
print(f"all voxels: {hounsfield.min():.0f} to {hounsfield.max():.0f} HU")

# %% [markdown] tags=["real"]
# The values of the volume have a range of almost 2,000 HU, and 90 % of the spleen's voxels are within 74 HU. A screen shows 256 grey levels. A *window* maps a part of the range to black ... white; values outside become black or white. It is given by its ends, or by its centre (*level*) and its *width*.
#
# > **Predict.** How many grey levels do these 74 HU get if all values are shown? How many with the window from -160 to 240 HU?

# %% tags=["real"]
# needs real images
from medsaga_lib.data.images import CT_WINDOW, scale

# %% tags=["real"]
# needs real images
windows = {
    "all values": (hounsfield.min(), hounsfield.max()),
    "bone": (-500, 1300),  # level 400, width 1800
    "abdomen": CT_WINDOW,  # level 40, width 400
}

# %% tags=["real"]
# needs real images
middle = organ.sum((1, 2)).argmax()
panels = [
    display.Panel(scale(hounsfield[middle], *ends), title=name)
    for name, ends in windows.items()
]

# %% tags=["real"]
# needs real images
display.show(
    display.grid(panels, {}, alt="One CT slice with three windows."),
    alt="One CT slice with three windows. All values: everything but the ribs "
    "is a similar grey. Bone: the ribs show their structure, and soft tissue "
    "is dark. Abdomen: the grey spleen is clearly separated from the dark fat "
    "around it, and the ribs are white.",
    caption="One axial CT slice with 3 windows. Values at or below the lower "
    "end of the window are black, values at or above its upper end are white.",
)
credit(spleen)

# %% caption="A CT volume in 3 windows: how many of the 256 grey levels the spleen gets, and the share of voxels that become black or white." tags=["real"]
# needs real images
rows = {}
for name, ends in windows.items():
    rows[name] = {
        "window (HU)": "{:.0f} to {:.0f}".format(*ends),
        "greys of 90 % of the spleen": round(255 * (high - low) / np.ptp(ends)),
        "voxels made black": f"{(hounsfield < ends[0]).mean():.0%}",
        "voxels made white": f"{(hounsfield > ends[1]).mean():.0%}",
    }
pd.DataFrame(rows).T

# %% [markdown] tags=["real"]
# The abdomen window, with level 40 and width 400, is for soft tissue such as liver and spleen. It gives the middle 90 % of the spleen's values 47 grey levels instead of 10. In return, 13 % of the voxels are black, such as all air, and 2 % are white, such as bone above 240 HU.
# A window cannot be undone: 8 bits hold 256 values, and clipped voxels are lost. Keep Hounsfield units on disk, and window when you read. This library uses the abdomen window for a CT unless `dataset.toml` names another, for example the bone window: `window = [-500, 1300]`.

# %% [markdown] tags=["real"]
# ## MR: no unit
#
# > **Predict.** The hippocampus is the same organ in every patient. Does it have similar values in every MR volume?

# %% caption="4 MR volumes: the highest stored value, and the median in the hippocampus before and after scaling." tags=["real"]
# needs real images
rows = {}
for case in hippocampus.split("train")[:4]:
    stored = read_stored(case.image).values
    picture, truth = read_pair(hippocampus, case)
    rows[case.name] = {
        "highest": stored.max(),
        "median in the hippocampus": np.median(stored[truth > 0]),
        "the same after scaling": np.median(picture.pixels[truth > 0]),
    }
pd.DataFrame(rows).T.round(2)

# %% tags=["real"]
# needs real images
index = pd.read_csv(hippocampus.root / "index.csv")
low, high = index["vmax"].min(), index["vmax"].max()
print(f"highest of {len(index)} volumes: {low:,.0f} to {high:,.0f}")

# %% [markdown] tags=["real"]
# The median of the hippocampus ranges from 49 to 500 in 4 volumes. The scale of MR depends on the device, its settings and the export of the file.
# The library therefore scales each volume that is not a CT by its own percentiles: of the values above 0, the 0.5th percentile becomes black and the 99.5th becomes white. In the last column the 4 medians are close to one another.

# %% [markdown]
# ## Volumes: spacing and orientation
#
# A volume is a stack of slices, an array with the axes z, y, x. Its *spacing* is the size of a voxel in mm along each axis. In CT the slices are often much thicker than a pixel is wide.

# %%
from medsaga_lib import display
from medsaga_lib.data.cases import read_pair
from medsaga_lib.data.phantoms import draw_volume

if spleen.dimensions == 3:
    volume, organ = read_pair(spleen, spleen.cases[0])
    source = f"{spleen.name}: {spleen.citation} | {spleen.licence}"
else:
    volume, organ = draw_volume(seed)
    source = "drawn by medsaga_lib.data.phantoms.draw_volume"
organ = organ == 1
print(volume.shape, "voxels of", np.round(volume.spacing, 2), "mm")

# %% [markdown]
# A *coronal* slice is a view from the front: each of its rows comes from another axial slice. The figure shows it with square voxels, and with voxels of their true size.

# %% tags=["figure"]
z, y = organ.sum((1, 2)).argmax(), organ.sum((0, 2)).argmax()
slices = {"coronal, squares": y, "coronal, in mm": y, "axial": z}
spacings = (1, 1), (volume.spacing[0], volume.spacing[2]), (1, 1)
panels = []
for (title, number), spacing in zip(slices.items(), spacings, strict=True):
    # The head is at the top of a coronal slice
    part = number if title == "axial" else np.s_[::-1, number]
    both = volume.pixels[part], organ[part].astype(int)
    panels.append(display.Panel(*both, None, title, spacing))

# %%
display.show(
    display.grid(panels, {1: "organ"}, alt="A coronal and an axial slice."),
    alt="A coronal slice twice and an axial slice, with the organ dashed. With "
    "square voxels, the coronal slice is a flat band, and the organ is "
    "stretched sideways. In mm, it has its true proportions, and the steps of "
    "the contour show how thick the slices are.",
    caption="The organ (dashed contour) in a coronal slice with square voxels, "
    "in the same slice in mm, and in an axial slice.",
)
print(source)

# %% [markdown]
# With square voxels, the organ has a wrong shape. Sizes and distances need the spacing; a section below measures its effect on a score.

# %%
voxel, count = np.prod(volume.spacing), organ.sum()
print(f"{count:,} voxels of {voxel:.2f} mm^3 are {count * voxel / 1000:.0f} ml")

# %% [markdown] tags=["real"]
# *Orientation* says in which direction each axis runs. NIfTI files store an *affine*, a 4 x 4 matrix from the index of a voxel to a position in mm. The code RAS means that the axes of the array run to the patient's right, front (anterior) and head (superior); L, P and I are the opposite directions.

# %% tags=["real"]
# needs real images
for dataset in (spleen, hippocampus, stroke):
    geometry = read_stored(dataset.cases[0].image).geometry
    print(f"{dataset.name:22} {geometry.codes}")
print(read_stored(spleen.cases[0].image).geometry.affine.round(2))

# %% [markdown] tags=["real"]
# The files have two different orientations. The columns of the affine show the lengths of a voxel, 0.79, 0.79 and 5 mm, and the last column the position of the first voxel.
#
# > **Predict.** The spleen is on the patient's left. On which side of an axial slice is it?

# %% tags=["real"]
# needs real images
import nibabel

as_stored = nibabel.load(spleen.cases[0].image).get_fdata()[:, :, middle]

# %% tags=["real"]
# needs real images
panels = [
    display.Panel(scale(as_stored, *CT_WINDOW), title="array of the file"),
    display.Panel(volume.pixels[middle], title="as in radiology"),
]
display.show(
    display.grid(panels, {}, alt="A slice of the file, and turned.", columns=2),
    alt="The same CT slice twice. As stored, the body is rotated, and the ribs "
    "are on the left. As in radiology, the ribs and the side of the body are "
    "on the right, and the back is below.",
    caption="One axial CT slice as the file stores it, and turned as radiology "
    "shows it: the front at the top, the patient's left on the right side.",
)
print(source)

# %% [markdown] tags=["real"]
# The array of the file has the axes x, y, z, and its first axis runs down the page. In radiology, the viewer looks from the feet at a patient who lies on the back, so the patient's left is on the right side of the image. The spleen is on that side.
# The library turns every volume to this orientation, and writes results back to the orientation of the file. Without it, a network would see the same organ in different positions for a reason that has nothing to do with the patient.

# %% [markdown]
# ## Masks: labels and instances
#
# A *label map* has an integer for each pixel: 0 is the background, and each other value is a class with a name.

# %%
case = chest.split("test")[0]
image, truth = read_pair(chest, case)

# %%
display.show(
    display.show_case(image.pixels, truth, labels=chest.labels),
    alt="A chest X-ray, without and with the contours of its label map. The "
    "right lung is on the left side of the image, and the left lung on the "
    "right side.",
    caption="A chest X-ray, and the same X-ray with its label map: a dashed "
    "contour and a name in one colour for each label.",
)
credit(chest)

# %%
names_of = {0: "background", **chest.labels}
values, counts = np.unique(truth, return_counts=True)
for value, count in zip(values, counts, strict=True):
    share = count / truth.size
    print(f"{value} {names_of[value]:10} {count:7,} pixels, {share:.0%}")

# %% [markdown]
# The values are names, not amounts: label 2 is not twice label 1. Do not interpolate them; exercise 3 shows what happens. Store masks as PNG or NIfTI, because JPEG changes values.
#
# A network that finds nothing is right on all pixels of the background. The share of correct pixels is therefore a poor score, and the metrics below leave the background out.

# %% [markdown] tags=["real"]
# An *instance map* numbers the objects of one class: 0 is the background, and each nucleus has its own number. Can the instances be computed from a mask of all nuclei, as its connected components?

# %% tags=["real"]
# needs real images
from scipy.ndimage import label

# %% tags=["real"]
# needs real images
rows = []
for one in nuclei.cases:
    instances = read_case_mask(nuclei, one).values
    number = len(np.unique(instances)) - 1
    rows.append((one.name, number, label(instances > 0)[1]))
counted = pd.DataFrame(rows, columns=["case", "nuclei", "components"])
print(counted[["nuclei", "components"]].sum().to_string())

# %% tags=["real"]
# needs real images
crowded = next(
    one for one in nuclei.cases if one.name.startswith("4d14a362")
)
part = np.s_[130:, :150]
instances = read_case_mask(nuclei, crowded).values[part]
ids = np.unique(instances)[1:]
print(f"{len(ids)} nuclei in {label(instances > 0)[1]} connected components")

# %% tags=["real", "figure"]
# needs real images
from medsaga_lib.data.prompts import box_of

tissue, _ = read_pair(nuclei, crowded)
numbered = np.searchsorted([0, *ids], instances)  # 1 ... N
boxes = np.array([box_of(instances == one) for one in ids])

# %% tags=["real"]
# needs real images
display.show(
    display.show_boxes(tissue.pixels[part], numbered, boxes),
    alt="A part of a microscopy image with violet nuclei, without and with a "
    "contour and a box for each instance. Many contours touch, so one "
    "connected region contains several nuclei.",
    caption="A part of a microscopy image, without and with its instances: "
    "each nucleus has a contour and a box in one colour.",
)
credit(nuclei)

# %% [markdown] tags=["real"]
# The connected components miss nearly a fifth of all nuclei, because nuclei that touch become one component. Where objects have to be counted, the numbers must be stored. Nuclei are the only instance maps of this book; [chapter 8](08_lite_medsam.ipynb) gives each of them a box.

# %% [markdown] tags=["real"]
# ## Does the mask fit the image?
#
# A mask can pass every check of its file and still be wrong. The lungs of our X-rays are polygons by V7 Labs. They came to this project as label maps of the right size, with the right values and names. The next figure shows 4 of them as they came.

# %% tags=["real"]
# needs real images
from dataclasses import replace

as_given = replace(chest, correction="")

# %% tags=["real", "figure"]
# needs real images
panels = []
for one in chest.cases[:4]:
    picture, right = read_pair(chest, one)
    wide = read_case_mask(as_given, one).values
    panels.append(display.Panel(picture.pixels, wide, right, one.name))

# %% tags=["real"]
# needs real images
lines = "corrected", "as they came"
display.show(
    display.grid(panels, chest.labels, "Too wide.", columns=4, lines=lines),
    alt="Four chest X-rays. The dashed contours are wider than the chest: they "
    "leave the ribs on both sides and end in the arms, or in the black beside "
    "the X-ray. The solid contours follow the lungs.",
    caption="4 chest X-rays with the masks as they came (dashed) and with the "
    "corrected masks (solid).",
)
credit(chest)

# %% [markdown] tags=["real"]
# The dashed masks are too wide. Above and below they fit, so something has stretched them from side to side.
#
# > **Predict.** These X-rays are wider than high. Suppose that the annotators saw squares. What may have happened on the way from the square to the X-ray?
#
# We measure it. Lungs are darker than what surrounds them. The next cell makes each mask narrower, step by step, and finds the width at which the X-ray is most different on both sides of the contour.

# %% tags=["real"]
# needs real images
from scipy.ndimage import distance_transform_edt, gaussian_filter

shares = np.arange(0.72, 1.09, 0.04)  # of the width of the mask


# %% tags=["real"]
# needs real images
def step_at_contour(pixels, mask):
    """How much brighter the X-ray is outside of a contour than inside."""
    outside = distance_transform_edt(~mask)
    inside = distance_transform_edt(mask)
    ring = pixels[(outside > 1) & (outside < 7)].mean()
    return ring - pixels[(inside > 0) & (inside < 7)].mean()


# %% tags=["real"]
# needs real images
def narrower(mask, share):
    """The mask with a share of its width, around the middle of the image."""
    middle = mask.shape[1] / 2
    columns = (np.arange(mask.shape[1]) + 0.5 - middle) / share + middle
    columns = np.floor(columns).astype(int)
    made = np.zeros_like(mask)
    valid = (columns >= 0) & (columns < mask.shape[1])
    made[:, valid] = mask[:, columns[valid]]
    return made


# %% tags=["real"]
# needs real images
rows = []
for one in chest.cases:
    picture, _ = read_pair(chest, one)
    pixels = gaussian_filter(picture.pixels, 2)[::2, ::2]
    wide = read_case_mask(as_given, one).values[::2, ::2] > 0
    steps = [step_at_contour(pixels, narrower(wide, it)) for it in shares]
    height, width = picture.shape
    rows.append((height / width, shares[np.argmax(steps)]))
fitted = pd.DataFrame(rows, columns=["height / width", "best share"])

# %% caption="The share of its width at which a mask fits best, by the shape of the X-ray: medians, and numbers of X-rays." tags=["real"]
# needs real images
ends = [0.8, 0.84, 0.9, 0.97, 1.03, 1.2]
shapes = fitted.groupby(pd.cut(fitted["height / width"], ends))
medians = shapes.median().round(2).assign(number=shapes.size())
medians = medians.rename(columns={"height / width": "its median"})
medians.rename_axis("range of height / width")

# %% [markdown] tags=["real"]
# The best share follows the shape of the X-ray. The search has steps of 0.04, and up to a ratio of 1 the best share is 0.02 to 0.04 below the height divided by the width. A square X-ray cannot be stretched, and its best share is 0.96, not 1, so the search itself is too low by up to a step. X-rays that are higher than wide have the same share as square ones, so their width is right.
# One explanation fits: V7 annotated the central square of each X-ray, and the label maps were drawn as if the square were the whole X-ray.
#
# The library shrinks the longer side of these masks back into the central square when it reads them, and says `masks corrected` in the first output of this page. It recognises this copy by the hash of its first mask, a number that is computed from the content of a file, so a correct copy is not changed.
# A check of sizes, values and names cannot find such a fault, and a score does not show it either ([chapter 10](10_few_labels.ipynb)). So draw the masks on the images, and look at them.

# %% [markdown]
# ## The folder of a data set
#
# All data sets of this book have one layout: the folders `images/` and `masks/`, a table `index.csv` with one row per case, and a description `dataset.toml`. [How to use this book](../book/how-to-use.md) has all keys and file formats.
# The next cells write such a folder with drawn X-rays.

# %%
import tempfile
from pathlib import Path

from medsaga_lib.data.phantoms import write_phantoms

# %%
temporary = Path(tempfile.mkdtemp())
folder = temporary / "my_data"
write_phantoms(folder, patients=6, pictures=9, seed=seed)

# %% caption="The first rows of `index.csv`, without the column for the projection."
print(*sorted(path.name for path in folder.iterdir()))
print((folder / "dataset.toml").read_text())
pd.read_csv(folder / "index.csv").drop(columns="projection").head(4)

# %% [markdown]
# The column `patient` says whose image it is, and `split` what it is used for:
#
# - `train`: images from which a network learns. *Shots* are the labelled images that are actually used.
# - `val`: images for choices, such as the learning rate or the number of steps.
# - `test`: images for the reported score, used once at the end.
#
# `medsaga data check my_data` reads every file. We add 3 faults before the check: a mask with a value that is not a label, a patient whose name is written in two ways, and a row without its image.

# %%
from PIL import Image

index = pd.read_csv(folder / "index.csv")
one = index.index[index["patient"] == "p001"][-1]
index.loc[one, ["patient", "split"]] = "P-01", "test"
index.to_csv(folder / "index.csv", index=False)
(folder / index["image"].iloc[0]).unlink()
mask = np.array(Image.open(folder / index["mask"].iloc[-1]))
mask[:20, :20] = 7
Image.fromarray(mask).save(folder / index["mask"].iloc[-1])

# %%
from typer.testing import CliRunner

from medsaga_lib.cli import app


# %%
def check(folder):
    """Print what `medsaga data check` prints, in short lines."""
    command = ["data", "check", str(folder), "--processes", "1"]
    printed = CliRunner().invoke(app, command).output
    for line in printed.replace(f"{folder.parent}/", "").splitlines():
        print(line)


# %%
check(folder)

# %% [markdown]
# Each line names the file, the fault and the remedy. A *note* is suspicious and may be correct: only you know whether `P-01` and `p001` are the same person. The other two are errors, and training stops with the same sentences.
# The last lines are a summary. It is worth reading before any training: are sizes, spacings, values and labels as you expect?

# %% tags=["real"]
# needs real images
check(chest.root)

# %% [markdown]
# ## Four metrics, and two rules for HD95
#
# A metric compares a predicted mask $P$ with the annotator's mask $T$, the *truth*. Two metrics count pixels:
#
# $$ \begin{aligned} \mathrm{Dice} &= \frac{2\,|P \cap T|}{|P| + |T|}, \\ \mathrm{IoU} &= \frac{|P \cap T|}{|P \cup T|} = \frac{\mathrm{Dice}}{2 - \mathrm{Dice}}. \end{aligned} $$
#
# Both are 1 for equal masks and 0 without overlap. Each follows from the other: $\mathrm{Dice} = 2\,\mathrm{IoU} / (1 + \mathrm{IoU})$. So for a given truth, both rank any two masks in the same order. IoU is never higher than Dice.
#
# Two metrics measure distances. The *surface* of a mask is the set of its pixels that have a neighbour outside the mask. From each surface pixel of either mask, take the distance to the nearest surface pixel of the other mask:
#
# - **HD95** is the 95th percentile of all these distances. The largest of them is the *Hausdorff distance*. Lower is better; the unit is mm, or pixels where the spacing is unknown.
# - **NSD**, the normalised surface Dice, is the share of these distances that are at most a *tolerance* $\tau$. 1 is best. We use $\tau$ = 2 mm, as the challenge of [chapter 8](08_lite_medsam.ipynb) does.
#
# > **Predict.** The next cells change the mask of one lung in 8 ways. Which changes does Dice hardly show? Which ones does HD95 not show at all?

# %%
from scipy.ndimage import binary_dilation, binary_erosion

from medsaga_lib.data.prompts import box_of, fill_box

lung = truth == 1
rows = np.flatnonzero(lung.any(axis=1))  # those that show the lung
lowest = np.arange(len(lung)) > rows[-1] - 0.05 * len(rows)


# %%
def with_patch(mask, side):
    """The mask with a square in the lower right corner of the image."""
    changed = mask.copy()
    changed[-5 - side : -5, -5 - side : -5] = True
    return changed


# %%
changes = {
    "moved by 5 px": np.roll(lung, 5, axis=1),
    "eroded by 5 px": binary_erosion(lung, iterations=5),
    "dilated by 5 px": binary_dilation(lung, iterations=5),
    "lowest rows lost": lung & ~lowest[:, None],  # 5 % of the height
    "one far pixel": with_patch(lung, 1),
    "a far patch": with_patch(lung, lung.shape[1] // 13),
    "with the other lung": lung | (truth == 2),
    "ellipse in the box": fill_box(box_of(lung), lung.shape, ellipse=True),
}

# %%
from medsaga_lib.evaluation.metrics import dice, hd95, nsd, surface_distances

# %% caption="The mask of one lung after 8 changes: overlap, distances in pixels, and NSD with 2 tolerances."
rows = {}
for name, mask in changes.items():
    both = surface_distances(mask, lung)
    rows[name] = {
        "Dice": dice(mask, lung),
        "IoU": dice(mask, lung) / (2 - dice(mask, lung)),
        "largest distance": max(some.max() for some in both),
        "HD95": hd95(mask, lung),
        "NSD, 2 px": nsd(mask, lung, tolerance=2),
        "NSD, 5 px": nsd(mask, lung, tolerance=5),
    }
pd.DataFrame(rows).T.round(3)

# %% tags=["figure"]
panels = [
    display.Panel(image.pixels, lung.astype(int), mask.astype(int), name)
    for name, mask in changes.items()
]

# %%
display.show(
    display.grid(panels, chest.labels, alt="Changed masks.", columns=4),
    alt="A chest X-ray 8 times. Dashed: the annotator's right lung. Solid: the "
    "changed mask, moved, eroded, dilated, cut at the bottom, with one pixel "
    "or a square added in the lower right corner of the image, with the left "
    "lung added, and an ellipse instead of the lung.",
    caption="The right lung of a chest X-ray (truth, dashed) and 8 changes of "
    "its mask, scored as if each were a prediction (solid).",
)
credit(chest)

# %% [markdown] tags=["real"]
# - The moved, the eroded and the dilated mask have a high Dice and an HD95 of 5 px. NSD is low at a tolerance of 2 px and nearly 1 at 5 px: no part of the contour is wrong by much more than 5 px.
# - HD95 does not show the lost rows, because they are less than 5 % of the contour. Dice hardly shows them either.
# - One far pixel changes only the largest distance. The far patch, of 49 px, costs little Dice, and HD95 becomes 342 px.
# - With the other lung, Dice is 0.64 and IoU 0.47. More than half of the predicted pixels belong to the other label.

# %% [markdown]
# The ellipse knows nothing about the lung but its box, and still has a Dice of about 0.8. A score means little without such a baseline.
#
# HD95 is a percentile, so it ignores up to 5 % of the distances, and then it jumps:

# %%
sides = list(range(0, 61, 4))
masks = [with_patch(lung, side) for side in sides]
at_95 = [hd95(mask, lung) for mask in masks]
distances = [surface_distances(mask, lung) for mask in masks]
largest = [max(some.max() for some in both) for both in distances]

# %%
named = {"largest": largest, "HD95": at_95}
curves = [display.Curve(name, sides, values) for name, values in named.items()]
axes = "side of the patch (px)", "distance (px)"
alt = (
    "Largest distance and HD95 against the side of the far patch. The largest "
    "distance is high from the smallest patch on. HD95 is 0 for small patches, "
    "then jumps to nearly the same height."
)
caption = (
    "Largest distance and HD95 between the mask with the far patch and the "
    "mask without it, against the side of the patch, in pixels."
)
figure = display.curve_with_interval(curves, *axes, alt)
display.show(figure, alt=alt, caption=caption)

# %% [markdown]
# There are two rules for HD95. This library and MedPy take the percentile of the distances in both directions together (`pooled`). MONAI takes the larger of two percentiles, one for each direction (`maximum`). They differ for the lung without its lowest rows:

# %%
cut = changes["lowest rows lost"]
for rule in ("pooled", "maximum"):
    print(f"{rule:8} {hd95(cut, lung, rule=rule):.1f} px")

# %% [markdown]
# ### The tolerance of NSD
#
# This book uses the challenge's tolerance of 2 mm, or 2 pixels where the spacing is unknown. A tolerance should be a difference that does not matter, for example the usual distance between the contours of two annotators. The figure shows NSD for each tolerance.

# %%
tolerances = np.arange(0, 13)
curves = []
for name in ("moved by 5 px", "eroded by 5 px", "lowest rows lost"):
    scores = [nsd(changes[name], lung, tolerance=one) for one in tolerances]
    curves.append(display.Curve(name, tolerances, scores))

# %%
axes = "tolerance (px)", "NSD"
alt = (
    "NSD against the tolerance. The eroded mask goes from 0 to almost 1 at 5 "
    "pixels. The moved mask rises slowly to 0.3 at 4 pixels and jumps to 1 at "
    "5. The cut mask is high from the start and rises little."
)
caption = (
    "NSD of 3 changed masks of the right lung against its tolerance in pixels: "
    "the share of the two surfaces that is at most this far apart."
)
figure = display.curve_with_interval(curves, *axes, alt)
display.show(figure, alt=alt, caption=caption)

# %% [markdown]
# At 2 px the eroded mask scores 0, and at 6 px it scores 1. An NSD without its tolerance says nothing.
# The cut mask is exact along most of its contour, so its NSD is high at every tolerance. It lost a part of the lung all the same.

# %% [markdown] tags=["real"]
# ### Small objects that are missed
#
# The infarct of the stroke data has many pieces. What do the metrics say if a method finds only the largest ones?

# %% caption="An infarct of many pieces, of which only the largest are found." tags=["real"]
# needs real images
brain, infarct = read_pair(stroke, stroke.cases[0])
pieces, how_many = label(infarct == 1)
by_size = 1 + np.argsort(np.bincount(pieces.flat)[1:])[::-1]
rows = {}
for kept in (how_many, 8, 5, 3, 1):
    found = np.isin(pieces, by_size[:kept])
    pair = found, infarct == 1
    rows[f"{kept} of {how_many} pieces"] = {
        "Dice": dice(*pair),
        "HD95 (mm)": hd95(*pair, brain.spacing),
        "NSD, 2 mm": nsd(*pair, brain.spacing),
    }
pd.DataFrame(rows).T.round(3)

# %% [markdown] tags=["real"]
# A method that misses 18 of 21 pieces has a Dice of 0.88, because the 3 largest pieces have most of the voxels. If missed pieces matter, count them as well.

# %% [markdown]
# ### Millimetres and voxels
#
# The volume above has thick slices. We move its mask by one voxel along each axis, and score with the spacing and without it.
#
# > **Predict.** Which move costs most Dice? Do the three HD95 differ in mm? And in voxels?

# %% caption="A mask with thick slices, moved by one voxel along each axis and scored with and without the spacing."
rows = {}
for axis, name in enumerate(("one slice up", "one row", "one column")):
    pair = np.roll(organ, 1, axis), organ
    rows[name] = {
        "Dice": dice(*pair),
        "HD95 (mm)": hd95(*pair, volume.spacing),
        "HD95 (voxels)": hd95(*pair),
        "NSD, 2 mm": nsd(*pair, volume.spacing),
        "NSD, 2 voxels": nsd(*pair),
    }
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# The move by one slice costs most Dice. In voxels, all three moves have the same HD95 and NSD. In mm, one slice is more than 6 times as far as one row. The same two masks have another HD95 and another NSD with another spacing; Dice does not use the spacing.
# The X-rays of this book are PNG files without a spacing, so their HD95 is in pixels. Do not compare it with an HD95 in mm.

# %% [markdown]
# ## Empty masks
#
# In many slices an organ is absent. What is the score of a method that finds nothing there, and rightly so? The formula of Dice gives 0 / 0. The table has the rule of this library, and the rule behind published tables of Synapse, CTs of the abdomen.

# %%
from medsaga_lib.evaluation.metrics import score_case

full = np.zeros((40, 40), int)
full[10:20, 10:20] = 1
empty = np.zeros_like(full)
pairs = {"both empty": (empty, empty), "missed": (empty, full)}
pairs["invented"] = full, empty

# %% caption="Three cases with an empty mask: the rule of this library, and the rule of the Synapse tables."
columns = ["dice", "hd95", "nsd", "dice_synapse", "hd95_synapse"]
scores = {}
for name, (prediction, true) in pairs.items():
    scores[name] = score_case(prediction, true, {1: "organ"})[0]._asdict()
display.table(pd.DataFrame(scores).T[columns].astype(float), digits=1)

# %% [markdown]
# In this library, a missed and an invented organ get Dice 0, NSD 0, and as HD95 the diagonal of the image, here 57 px. If both masks are empty, the scores are NaN, an empty cell of the table. Means leave them out, and the summary counts them as `empty`.
# The Synapse rule gives a perfect score to an invented organ, HD95 0 to a missed one, and Dice 0 if both are empty. Other rules count *both empty* as Dice 1. Scores can be compared only if their rules are the same.

# %% tags=["real"]
# needs real images
volumes = hippocampus.split("test")[:30]
masks = [read_case_mask(hippocampus, case).values for case in volumes]
filled = np.concatenate([mask.any((1, 2)) for mask in masks])
print(f"{(~filled).mean():.0%} of {len(filled)} slices show no hippocampus")

# %% [markdown] tags=["real"]
# With the rule that *both empty* counts as 1, a method that never finds anything would have this share as its mean Dice per slice.

# %% [markdown]
# ## Dice depends on the size of the object
#
# An error of one pixel along the contour is a large part of a small object. The cell moves discs by one pixel.
#
# > **Predict.** What is the Dice for a radius of 3 px? And for 100 px?

# %% caption="A disc moved by one pixel, for 4 radii."
y, x = np.indices((240, 240)) - 120
rows = {}
for radius in (3, 10, 30, 100):
    disc = y**2 + x**2 <= radius**2
    moved = np.roll(disc, 1, axis=1)
    rows[radius] = disc.sum(), dice(moved, disc), nsd(moved, disc)
table = pd.DataFrame(rows, ["pixels", "Dice", "NSD, 2 px"]).T
table.astype({"pixels": int}).rename_axis("radius (px)").round(3)


# %% [markdown] tags=["real"]
# The figure does the same with masks of annotators: single nuclei of 12 images, 20 polyp frames, and the lungs of 10 X-rays.

# %% tags=["real"]
# needs real images
def one_pixel(masks):
    """The size of each mask, and its Dice when it is moved by one pixel."""
    padded = [np.pad(mask, 1) for mask in masks]
    moved = [np.roll(mask, 1, axis=1) for mask in padded]
    pairs = zip(moved, padded, strict=True)
    return [(mask.sum(), dice(other, mask)) for other, mask in pairs]


# %% tags=["real"]
# needs real images
def masks_of(dataset, cases):
    """Each object of the cases as a mask."""
    maps = [read_case_mask(dataset, case).values for case in cases]
    return [one == value for one in maps for value in np.unique(one)[1:]]


# %% tags=["real"]
# needs real images
objects = {
    "nuclei": masks_of(nuclei, nuclei.cases[:12]),
    "polyps": masks_of(polyps, polyps.cases[:20]),
    "lungs": masks_of(chest, chest.cases[:10]),
}

# %% tags=["real"]
# needs real images
import matplotlib.pyplot as plt

display.use_style()
figure, axes = plt.subplots(figsize=(7, 2.8))
for name, masks in objects.items():
    sizes, scores = np.transpose(one_pixel(masks))
    axes.semilogx(sizes, scores, "o", markersize=3, alpha=0.6, label=name)
axes.legend(loc="lower right")
axes.set(xlabel="size of the object (px)", ylabel="Dice after a move by 1 px")
display.show(
    figure,
    alt="Dice after a move by one pixel against the size of the object, on a "
    "logarithmic axis. Nuclei of a few dozen pixels lose most, and large "
    "nuclei little. Polyps and lungs are nearly at 1.",
    caption="Dice after a move by 1 px against the size of the object in "
    "pixels (logarithmic axis). Each dot is the mask of one object.",
)

# %% [markdown]
# A Dice of 0.95 means less than a pixel of error for a small object, and several pixels for a lung. Do not compare Dice between tasks. NSD with a tolerance of 2 px is 1 in each row of the table of discs: it does not depend on the size here.

# %% [markdown]
# ## Splits by patient, and leakage
#
# Several images of one patient are often alike: the same bones, the same implants, the same bed. If one of them is in the training set and another in the test set, a network may score well because it remembers the patient. This is called *leakage*.
# All X-rays of a patient are therefore in the same part:

# %%
for split in ("train", "val", "test"):
    cases = chest.split(split)
    patients = {case.patient for case in cases}
    print(f"{split:5} {len(cases):2} images, {len(patients):2} patients")

# %% [markdown]
# How much does leakage change a score? We measure it with the simplest method that remembers: copy the mask of the most similar image. *Similar* means a high correlation of the pixels of two images, reduced to 64 x 64 px.
# The copy comes either from all other images, as if the split were by image, or from other patients only. We score it on the images of patients who have several.
# The effect needs real images: phantoms of one patient share the anatomy, but neither the pose nor the exposure.

# %%
from medsaga_lib.data.samples import Samples


def patients_of(samples):
    """The patient of each sample."""
    numbers = range(len(samples))
    return np.array([samples.case(number).patient for number in numbers])


# %%
def nearest(samples, excluded):
    """The most similar sample of each, except those that are excluded."""
    numbers = range(len(samples))
    images = [samples[number]["image"][0].numpy().ravel() for number in numbers]
    return np.where(excluded, -1, np.corrcoef(images)).argmax(axis=1)


# %%
def copied(samples, sources, labels):
    """Dice of masks copied from the sources, for the classes of a sample."""
    maps = [samples[number]["label"].numpy() for number in range(len(samples))]
    rows = []
    for number, source in enumerate(sources):
        found, true = maps[source], maps[number]
        who = samples.key(number), samples.case(number).patient
        for value, name in enumerate(labels.values(), start=1):
            if (true == value).any():
                rows.append((*who, name, dice(found == value, true == value)))
    return pd.DataFrame(rows, columns=["case", "patient", "class", "dice"])


# %%
def sources_of(samples):
    """The nearest samples among all, and among those of other patients."""
    patients = patients_of(samples)
    itself = np.eye(len(patients), dtype=bool)
    same = patients[:, None] == patients
    return nearest(samples, itself), nearest(samples, same)


# %%
def count_mates(patients, source):
    """Print how often a source is of the same patient; return who has mates."""
    mates = (patients[:, None] == patients).sum(axis=1) - 1
    several = mates > 0
    found = (patients[source] == patients)[several].mean()
    chance = mates[several].mean() / (len(patients) - 1)
    people = len({*patients[several]})
    print(f"{several.sum()} images of {people} patients with several images")
    print(f"nearest of the same patient: {found:.1%}; by chance {chance:.1%}")
    return several


# %%
def compare(samples, labels):
    """Dice of copies from all images and of copies from other patients."""
    patients, sources = patients_of(samples), sources_of(samples)
    of_several = patients[count_mates(patients, sources[0])]
    tables = [copied(samples, source, labels) for source in sources]
    return [table[table["patient"].isin(of_several)] for table in tables]


# %% [markdown]
# > **Predict.** How often is the most similar X-ray of the same patient? How much Dice do copies gain from it?

# %%
xrays = Samples(chest, chest.cases, 64)
leaking, honest = compare(xrays, chest.labels)

# %%
for name, table in (("all images", leaking), ("other patients", honest)):
    print(f"copies from {name:14} Dice {table['dice'].mean():.3f}")

# %% tags=["real"]
# needs real images
gain_of_copies = leaking["dice"] - honest["dice"]
differ = gain_of_copies.groupby(leaking["case"]).transform(np.any)
print(f"{leaking['case'][differ].nunique()} images have another copy; ", end="")
print(f"their gain is {gain_of_copies[differ].mean():.3f}")

# %% tags=["real", "figure"]
# needs real images
patients = patients_of(xrays)
mate, other = sources_of(xrays)
first = np.flatnonzero(patients[mate] == patients)[0]
chosen = {"an X-ray": first, "nearest: same patient": mate[first]}
chosen["nearest of others"] = other[first]

# %% tags=["real", "figure"]
# needs real images
panels = []
for title, number in chosen.items():
    xray, lungs = read_pair(chest, chest.cases[number])
    panels.append(display.Panel(xray.pixels, lungs, title=title))

# %% tags=["real"]
# needs real images
display.show(
    display.grid(panels, chest.labels, alt="An X-ray and its two nearest."),
    alt="Three chest X-rays with the contours of both lungs: one X-ray, the "
    "most similar one, which is of the same patient with another exposure, and "
    "the most similar one of another patient. All contours are alike.",
    caption="An X-ray, the X-ray most similar to it, and the most similar one "
    "of another patient. Dashed: the annotator's contours of both lungs.",
)
credit(chest)

# %% [markdown] tags=["real"]
# The most similar X-ray is of the same patient in 25 % of the cases, 8 times as often as by chance. The gain in Dice is only 0.015, because the other images have the same copy in both lists. Where the copies differ, it is 0.062. The figure shows one of these. So leakage hardly shows in this score. A network can remember more than a copy does, and this measurement says nothing about it.
#
# ### Leakage between slices of a volume
#
# The slices of a volume are images of one patient, too. Now each slice of 30 MR volumes is one image. A split by image would put neighbouring slices into training and test set.
#
# > **Predict.** Is the gain larger or smaller than with X-rays?

# %% tags=["real"]
# needs real images
slices = Samples(hippocampus, hippocampus.split("test")[:30], 64)
leaking_slices, honest_slices = compare(slices, hippocampus.labels)

# %% tags=["real"]
# needs real images
tables = {"all slices": leaking_slices, "other patients": honest_slices}
for name, table in tables.items():
    print(f"copies from {name:14} Dice {table['dice'].mean():.3f}")

# %% [markdown] tags=["real"]
# The most similar slice is nearly always of the same patient, and copies of it gain 0.13 Dice. No network learned anything here. A split by slice would report this gain as quality.

# %% [markdown]
# ### Data sets without patients
#
# A data set that does not name its patients cannot be split by patient. The nuclei and the polyps of this book are of this kind. Each of their cases counts as a patient, and nobody knows how much leaks.

# %% [markdown]
# ## Intervals over patients
#
# A test set is a sample of patients. Another sample would give another mean. The *bootstrap* estimates by how much: draw as many patients as there are, with replacement, and compute the mean; repeat this 2,000 times. The middle 95 % of the means are the *95 % interval*.
# All images of a drawn patient are drawn together, because images of one patient are alike and tell less than images of other patients.
#
# > **Predict.** Is the interval wider or narrower if images are drawn instead of patients?

# %%
from medsaga_lib.evaluation.scores import Evaluation


# %%
def intervals(table):
    """The mean Dice, and its 95 % intervals over patients and over images."""
    rows = {}
    for unit in ("patient", "case"):
        drawn = table.assign(patient=table[unit])
        low, high = Evaluation(drawn).interval("dice")
        rows[f"over {table[unit].nunique()} {unit}s"] = low, high, high - low
    return pd.DataFrame(rows, ["from", "to", "width"]).T.round(3)


# %% caption="95 % intervals of the mean Dice of copied X-rays, drawn by patient and by case."
print(f"copied X-rays: mean Dice {honest['dice'].mean():.3f}")
intervals(honest)

# %% caption="95 % intervals of the mean Dice of copied MR slices, drawn by patient and by case." tags=["real"]
# needs real images
print(f"copied MR slices: mean Dice {honest_slices['dice'].mean():.3f}")
intervals(honest_slices)

# %% [markdown] tags=["real"]
# Both intervals over patients are wider than those over images: 0.063 and 0.055 on X-rays, 0.034 and 0.027 on slices. An interval over images is too optimistic.
# How much too optimistic depends on how alike the scores of one patient are.

# %% [markdown]
# How many patients are needed? The next cell takes the first patients of the table.

# %%
in_order = honest["patient"].unique()
for count in (5, 10, len(in_order)):
    some = honest[honest["patient"].isin(in_order[:count])]
    low, high = Evaluation(some).interval("dice")
    mean = some["dice"].mean()
    print(f"{count:2} patients: {mean:.3f}, interval {low:.3f} to {high:.3f}")


# %% [markdown] tags=["real"]
# The interval of the first 5 patients does not even contain the mean of all 19. A bootstrap knows only the patients that it has, so an interval from 5 patients promises too much.

# %% [markdown] tags=["real"]
# ### Paired differences
#
# Two methods on the same patients are compared by the difference of their scores for each image. The next cell compares the two kinds of copies.
#
# > **Predict.** Suppose that the intervals of the two means overlap widely. Can the interval of the difference exclude 0?

# %% tags=["real"]
# needs real images
def gain(better, other):
    """The mean of the paired differences, and its interval over patients."""
    difference = better.assign(dice=better["dice"] - other["dice"])
    low, high = Evaluation(difference).interval("dice")
    mean = difference["dice"].mean()
    return f"{mean:.3f}, 95 % interval {low:.3f} to {high:.3f}"


# %% tags=["real"]
# needs real images
for name, table in (("all images", leaking), ("other patients", honest)):
    low, high = Evaluation(table).interval("dice")
    print(f"copies from {name:14} {low:.3f} to {high:.3f}")
print("paired difference:", gain(leaking, honest))

# %% tags=["real"]
# needs real images
print("the same for the MR slices:", gain(leaking_slices, honest_slices))

# %% [markdown] tags=["real"]
# On X-rays, the intervals of the two means overlap, and the interval of the difference excludes 0, but only just. A paired difference removes the variation between patients that both methods share: a patient who is difficult for both moves both means, but not their difference.

# %% [markdown]
# An interval over patients says nothing about other hospitals, other devices, or another training run with other random numbers. Where a table has several runs, it gives the mean over seeds and half of its 95 % interval, as 0.812 ± 0.020.
#
# ## How to read the tables of this book
#
# Table: Columns of the tables in this book.
#
# | column | meaning | better |
# | --- | --- | --- |
# | `dice` | mean over cases for each class, then over classes | higher |
# | `interval` | 95 % bootstrap interval over patients | |
# | ± | half of the 95 % interval over training runs with different seeds | smaller |
# | `hd95` | in mm, or in pixels where the images have no spacing | lower |
# | `nsd` | tolerance 2 mm, or 2 pixels | higher |
# | `confused` | share of the predicted pixels of a class that belong to another class in the truth | lower |
# | `empty` | number of scores left out because both masks were empty | |
# | `shots` | number of labelled training images | |
# | `seen` | whether the pretrained weights may have been trained on these images | |

# %% [markdown]
# ## Questions

# %% [markdown] tags=["question"]
# **Question 1.** Two methods have a mean Dice of 0.90 and 0.91 on the same X-rays, and their 95 % intervals over patients overlap. How do you find out whether the second is better?
#
# - **A.** The overlap of the intervals shows that it is not better.
# - **B.** The higher mean shows that it is better.
# - **C.** Compute the difference for each image, and the interval of these differences over patients.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: each of the two intervals contains the variation between patients that both methods share. It cancels in the difference.
# - **B.** No: another sample of patients would give other means, and a difference of 0.01 may be chance.
# - **C.** Yes: if this interval excludes 0, the second method is better on patients like these, for these training runs.
# </details>

# %% [markdown] tags=["question"]
# **Question 2.** One paper reports an HD95 of 4.1 for a CT data set and names no unit. Another reports 3.2 mm. Which method has the better contour?
#
# - **A.** Nobody can say.
# - **B.** The one with 3.2 mm, because 3.2 is less than 4.1.
# - **C.** The one with 4.1, because voxels are smaller than 1 mm.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** Yes: if 4.1 is in voxels, and the slices are 5 mm thick, it can be up to 20 mm. The rules for empty masks may differ, too.
# - **B.** No: the numbers can be compared only if both are in mm. The table of shifted masks has the same HD95 in voxels for shifts of different length in mm.
# - **C.** No: slices of CT are often several mm thick, so 1 voxel can be several mm.
# </details>

# %% [markdown] tags=["question"]
# **Question 3.** You have 400 slices of 10 patients. Which test is honest?
#
# - **A.** Draw 80 slices at random for the test, and give the interval over these 80.
# - **B.** Keep 2 patients for the test, and give the interval over their 80 slices.
# - **C.** Put whole patients into training or test, let each patient be in a test once, and give the interval over the 10 patients.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: slices of one patient are alike. A network can score on the test slices because it remembers their neighbours from the training.
# - **B.** No: the split is right, but 80 slices of 2 patients tell less than 80 slices of 80 patients, so this interval is too narrow.
# - **C.** Yes: this is cross-validation by patient. The patient is the unit of the split and of the interval.
# </details>

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: calculate (easy, 5 minutes)
# A square of 20 x 20 pixels is predicted 5 pixels too far to the right. Compute by hand Dice, IoU, NSD with a tolerance of 5 px, and HD95 in mm for pixels of 0.8 mm.

# %% tags=["exercise"]
by_hand = {"Dice": None, "IoU": None, "NSD": None, "HD95 in mm": None}

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# by_hand = {
#     "Dice": 2 * 15 * 20 / (400 + 400),
#     "IoU": 15 * 20 / (25 * 20),
#     "NSD": 1.0,  # no surface pixel is farther than 5 px from the other surface
#     "HD95 in mm": 5 * 0.8,
# }
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
from medsaga_lib.display.answers import as_number

square = np.zeros((40, 60), bool)
square[10:30, 10:30] = True
moved = np.roll(square, 5, axis=1)
expected = {
    "Dice": dice(moved, square),
    "IoU": (moved & square).sum() / (moved | square).sum(),
    "NSD": nsd(moved, square, tolerance=5),
    "HD95 in mm": hd95(moved, square, (0.8, 0.8)),
}
hints = {
    "Dice": "15 of 20 columns overlap.",
    "IoU": "the union has 25 columns.",
    "NSD": "which surface pixel is more than 5 px from the other surface?",
    "HD95 in mm": "more than 5 % of the surface pixels are 5 px away; "
    "give it in mm.",
}
for name, value in expected.items():
    answer = as_number(name, by_hand.get(name))
    assert abs(answer - value) < 1e-3, f"{name} is not {answer}: {hints[name]}"

# %% [markdown]
# ### Exercise 2: experiment (medium, 15 minutes)
# HD95 ignores a small far patch. `with_patch(lung, side)` makes the masks. Find the smallest side of the patch, to the pixel, for which HD95 is above 50 px, and put it into `smallest`. Explain the number with the lengths of the surfaces: what share of all surface pixels does the patch have?

# %% tags=["exercise"]
smallest, share = None, None

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# smallest = 1
# while hd95(with_patch(lung, smallest), lung) <= 50:
#     smallest += 1
# both = surface_distances(with_patch(lung, smallest), lung)
# border = 4 * (smallest - 1)  # surface pixels of a square
# share = border / sum(some.size for some in both)
# print(f"{smallest} px: {border} surface pixels, {share:.1%} of all")
# # All distances of the lung are 0, and those of the patch are several hundred
# # pixels. The 95th percentile is one of the patch's distances as soon as they
# # are more than 5 % of all.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
side = as_number("smallest", smallest)
assert side % 1 == 0 and side > 0, (
    f"A side of {smallest} px cannot be drawn; give whole pixels."
)
distance = hd95(with_patch(lung, int(side)), lung)
before = hd95(with_patch(lung, int(side) - 1), lung)
assert distance > 50, f"With {smallest} px, HD95 is still {distance:.1f} px."
assert before <= 50, f"With {smallest - 1} px, HD95 is already {before:.0f} px."
assert 0.045 < as_number("share", share) < 0.06, (
    f"The share is not {share}. Divide the surface pixels of the patch, "
    "4 (side - 1), by those of both masks; a surface is a line, not an area."
)

# %% [markdown]
# ### Exercise 3: find the fault (hard, 15 minutes)
# A colleague stores masks at half of their size and enlarges them again for the evaluation. The masks are the annotator's own, so the scores should be almost perfect. They are not, for at least one label. Find the fault with the metrics and with a look at the values, and make `enlarged` correct.

# %% tags=["exercise"]
from skimage.transform import resize

half = truth[::2, ::2]


def enlarge(labels):
    large = resize(labels.astype(float), truth.shape, order=1)
    return large.round().astype(int)


def show_scores(labels):
    for one in score_case(labels, truth, chest.labels):
        print(f"{one.name:11} Dice {one.dice:.3f}, HD95 {one.hd95:5.1f} px")


enlarged = enlarge(half)
show_scores(enlarged)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# edges = np.bincount(truth[(enlarged == 1) & (truth != 1)])
# print("wrong pixels of label 1, by their true label:", edges)
#
#
# def enlarge(labels):
#     return resize(labels, truth.shape, order=0, preserve_range=True).astype(int)
#
#
# enlarged = enlarge(half)
# show_scores(enlarged)
# # Interpolation makes values between 0 and 2 along the edge of label 2, and
# # rounding makes some of them 1. So the left lung gets a rim of "right lung".
# # Dice hardly shows it, because the rim is thin, but it has a long surface, and
# # HD95 becomes the distance from the rim to the right lung. Labels have to be
# # resized by the nearest pixel.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
assert np.shape(enlarged) == truth.shape, (
    f"`enlarged` has the shape {np.shape(enlarged)}; it must be {truth.shape}, "
    "as the truth is."
)
for score in score_case(enlarged, truth, chest.labels):
    assert score.hd95 < 3, (
        f"{score.name} still has an HD95 of {score.hd95:.0f} px. Which label "
        "do the pixels at the edge of label 2 have, "
        "if 0 and 2 are interpolated?"
    )
assert dice(enlarged > 0, truth > 0) > 0.98, (
    "This is not the annotator's mask any more."
)

# %% [markdown]
# ## Summary
#
# - CT has a unit, MR has none. CT needs a window, and a window cannot be undone. MR is scaled volume by volume.
# - A volume has a spacing and an orientation. Distances in mm need the spacing.
# - A label map names classes, an instance map numbers objects. Neither may be interpolated. Draw masks on their images: a stretched mask passes every check of files.
# - Split by patient. The leakage is large in slices of volumes, and small for masks that are copied between X-rays. The nuclei and the polyps name no patients, so nobody knows how much leaks there.
# - Dice and IoU count pixels and depend on the size of the object. HD95 shows far errors if they have more than 5 % of the surface. NSD needs its tolerance. Report a metric of overlap, one of distance, and the rule for empty masks.
# - The interval of a mean is over patients. Methods are compared by paired differences.
#
# ## Sources
#
# The metrics and their pitfalls: Maier-Hein et al. 2024, Reinke et al. 2024; NSD: Nikolov et al. 2018; data sets: all in [References](../book/references.md). The rules of this library are in `medsaga_lib/evaluation/metrics.py`.
# [Chapter 3](03_memory_ledger.ipynb) is about memory; [chapter 5](05_adapting_sam.ipynb) trains the first network on the X-rays of this chapter.
