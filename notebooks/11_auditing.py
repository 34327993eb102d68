# %% [markdown]
# # 11. Auditing the papers
#
# **You will be able to**
# - decide whether a published number follows from the other published numbers, rounding included,
# - list the meanings that a percentage can have, and say which of them are possible,
# - find out what a number "in M" counts,
# - say how a metric library treats a missed organ, and test whether this changes a ranking.
#
# **Before this** [Chapter 1](01_images_and_metrics.ipynb) on Dice, HD95 and NSD; [chapter 3](03_memory_ledger.ipynb) on the memory of a training step; [chapter 5](05_adapting_sam.ipynb) on SAMed and MedSAGa.
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
# ## What is a claim, and what is a verdict?
#
# This book follows four papers: MedSAGa, S-SAM, Cheap Lunch, and LiteMedSAM with LoRA. We have read the papers of MedSAGa and LiteMedSAM with LoRA, the abstract, reviews and rebuttal of S-SAM, and a summary of Cheap Lunch that somebody else wrote. 23 claims are from such a summary of MedSAGa: a contradiction there is a fault of the summary, not of the paper. We have written down every statement that somebody could check: numbers, comparisons, counts, descriptions of a method. Two more claims are from the README of the package torchao, on the memory of an optimizer.
# Each statement is a *claim*. It has an id, a place, a published value where there is one, and a criterion with a tolerance. Most claims have a *check*, a short function that calculates.

# %%
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from medsaga_lib import display
from medsaga_lib.claims.claim import Found
from medsaga_lib.claims.run import Answer, answer, find

display.use_style()

# %%
(claim,) = find(["medsaga-525-arithmetic"])
print(claim.statement)
print(answer(claim).code)

# %% [markdown]
# The claim is that 18.81 M is 5.25 % of 358 M, as section 4.2 of the paper says. The check reads both numbers from the typed-in text of the paper and divides. It asks whether the result can be printed as 5.25 when it is rounded:

# %%
answer(claim).found

# %% [markdown]
# The claim is true. A paper is right until the arithmetic says otherwise, and a difference that rounding can make is no contradiction. There are five verdicts:
#
# Table: The five verdicts.
#
# | verdict | meaning |
# | --- | --- |
# | reproduced | our calculation gives the published value, within the tolerance |
# | contradicted | the published numbers, or a calculation with the published method, give another value |
# | not comparable | we have a value, but the paper does not give the setting that it needs, or claims something else |
# | unspecified | the document does not say enough for a verdict |
# | not run here | the check needs a GPU, a data set, or weights that are not at hand |
#
# A check of a document says nothing about the quality of a method. A contradiction may be a slip of typing.
#
# The next cell reads recorded answers of all checks. `medsaga claims` runs them again in 2 minutes.

# %%
recorded = json.loads(Path("recorded/claims.json").read_text())
print(recorded["provenance"]["command"], "|", recorded["provenance"]["date"])
answers = [
    Answer(find([name])[0], Found(*found), by)
    for name, (*found, by) in recorded["found"].items()
]

# %%
from medsaga_lib.claims.report import counts

header, rows = counts(answers)
print(pd.DataFrame(rows, columns=header).set_index("kind").to_string())

# %% [markdown]
# More than half of the claims are reproduced. Arithmetic, counts and descriptions of methods can be checked best. For 15 of the 58 claims on accuracy the verdict would need a new training run on the papers' data. `medsaga reproduce` makes such runs; [Reproducing the tables](../book/reproducing.md) says which data they need.
#
# ## The table of all claims
#
# Choose a paper, a kind or a verdict, or type words. Open *code of the check* to see the function that decided, with the functions that it calls. The command below it runs the check on your machine.

# %% caption="The claims, each with its published value, ours, and the verdict."
from IPython.display import HTML

from medsaga_lib.claims.page import claims_html

HTML(claims_html(answers))

# %% [markdown]
# The next sections look at seven stories behind these claims.
#
# ## 66 % less memory than what?
#
# MedSAGa's abstract claims "an average memory efficiency of 66% more" than the state of the art. SAMed and DAE-Former are among its baselines. The abstract does not say which memory is meant, and over which models the average is. Section 4.3 adds that the memory depends only on the model's parameters, and gives 61 % against DAE-Former.
#
# > **Predict.** MedSAGa trains all weights of ViT-B, SAMed 5 % of them. Suppose that GaLore needed no memory at all for gradients and states. How much less than SAMed could MedSAGa need?
#
# [Chapter 3](03_memory_ledger.ipynb) counts the bytes of a training step. The cell uses its ledger for SAM's ViT-B in float32.

# %%
from medsaga_lib.claims.arithmetic import percent_less
from medsaga_lib.claims.checks.medsaga_memory import PUBLISHED_DAE_FORMER
from medsaga_lib.claims.networks import ledger_of, of_model

ours, samed, full = (of_model(name) for name in ("medsaga", "samed", "full"))
ours_each = of_model("medsaga", per_layer=True)
full_each = of_model("full", per_layer=True)
# A weight, its gradient and two moments of 4 bytes each
dae_former = 4 * 4 * PUBLISHED_DAE_FORMER

# %%
savings = {
    "the abstract": 66,
    "66 % more efficient, as 1 / 1.66": percent_less(1, 1.66),
    "SAMed: model memory": percent_less(ours.sum, samed.sum),
    "SAMed: upper bound": percent_less(ours.weights, samed.sum),
    "DAE-Former: model memory": percent_less(ours.sum, dae_former),
    "DAE-Former: upper bound": percent_less(ours.weights, dae_former),
    "full fine-tuning: model memory": percent_less(ours.sum, full.sum),
    "full: both layer by layer": percent_less(ours_each.sum, full_each.sum),
    "full: only MedSAGa layer by layer": percent_less(ours_each.sum, full.sum),
    "full: optimizer states alone": percent_less(ours.states, full.states),
}

# %%
ledgers = {"SAMed": ledger_of("samed")}
for size in (224, 512):
    ledger = ledger_of("dae_former", backbone="none", size=size)
    ledgers[f"DAE-Former at {size} px"] = ledger
for name, ledger in ledgers.items():
    less = percent_less(ledger_of("medsaga").sum, ledger.sum)
    savings[f"{name}, activations too"] = less

# %% tags=["figure"]
alt = (
    "12 readings and the abstract as dots on a line from -100 to 90 percent, "
    "with a dashed line at 66. Against SAMed the model memory is 98 percent "
    "higher, and the upper bound of the saving is 14 percent. One reading lies "
    "near the dashed line: full fine-tuning, with layer by layer updates for "
    "MedSAGa alone."
)

# %%
readings = {"": {name: [saved] for name, saved in savings.items()}}
label = "MedSAGa needs less memory by (%)"
display.show(
    display.dots_of_seeds(readings, label, alt, baseline="the abstract"),
    caption=f"{len(savings) - 1} readings of one claim: by how many percent "
    "MedSAGa needs less memory. Below 0, it needs more. Dashed: the 66 % of "
    "the abstract.",
)

# %% caption="How much less memory MedSAGa needs in %, by each reading."
pd.Series(savings, name="%").round(1).to_frame()

# %% [markdown]
# *Model memory* is weights, gradients and optimizer states. The *upper bound* compares MedSAGa's weights alone with the model memory of the other method.
#
# - Against SAMed, MedSAGa needs more. The saving cannot exceed 13.9 %, because SAMed's memory is almost entirely the same weights.
# - Against DAE-Former, the upper bound is below 61 %. With activations, at batch 12, the saving depends on the size of DAE-Former's input, which the paper does not give. Here the attention of SAM is fused. The rows without activations count the 48 million parameters of DAE-Former that its paper gives, and those with activations the 30 million that its code uses. [Chapter 3](03_memory_ledger.ipynb) has the original attention, so its percentages differ.
# - One reading gives 67 %: full fine-tuning of the same SAM, if MedSAGa frees each gradient at once and full fine-tuning does not. But full fine-tuning is no baseline of the paper.
#
# So the verdict on 66 % against SAMed is *contradicted*, and on 66 % against full fine-tuning *not comparable*. One more claim is true, and it is what GaLore promises: the optimizer states are 85 % smaller than those of full fine-tuning.
#
# ## Do two tables of one paper agree?
#
# MedSAGa's Table 3 compares variants, and its first columns repeat numbers of Table 1. Both tables are typed in.

# %% caption="The settings in which a number differs between Tables 1 and 3 of MedSAGa."
from medsaga_lib.claims.tables import printed

first, third = printed("medsaga_table1"), printed("medsaga_table3")
columns = {"medsaga_dice": "Dice", "medsaga_hd95": "HD95"}
one = first.loc[third.index, [*columns]].rename(columns=columns)
three = third[[*columns]].rename(columns=columns)
both = pd.concat({"Table 1": one, "Table 3": three}, axis=1)
both[(one != three).any(axis=1)]

# %% [markdown]
# 13 of 16 numbers are equal. The HD95 of AMOS with 500 images differs by 1 in the last digit, which rounding can explain. The other two cannot be rounding.

# %% caption="Dice of the three methods in Table 1, in the two settings whose Dice differs from Table 3."
first.loc[["Chest-Xray 1800", "AMOS 7000"]].filter(like="_dice")

# %% [markdown]
# In Table 3, MedSAGa with 1,800 X-rays has a Dice of 0.943, beside the HD95 of its row in Table 1. In Table 1, 0.943 is SAMed's Dice. A cell that was copied from the wrong column is the simplest explanation, but only the authors can say. For AMOS, 0.359 and 0.389 differ in one digit.
#
# ## What is 18.81M?
#
# MedSAGa gives a size of the original model, "358M", and a size of what vit_b occupies, "18.81M". Cheap Lunch trains "6.32M". The letter M can mean million parameters, or megabytes. The next cell counts both for everything that could be meant.
#
# > **Predict.** SAM with ViT-B has 93.7 million parameters. How many MiB are these in float32?

# %%
from medsaga_lib.claims import networks
from medsaga_lib.claims.networks import MIB, counted

of_sam = networks.parameters(networks.sam_without_memory("vit_b"))
numbers = {"SAM with ViT-B": of_sam}
for classes in (1, 3, 8, 15):
    trained = counted("samed", classes=classes).trainable
    numbers[f"SAMed trains, classes: {classes}"] = trained
numbers["SAMed_s trains, classes: 8"] = counted("samed_s").trainable
numbers["MedSAGa trains, classes: 8"] = counted("medsaga").trainable

# %% caption="Candidates for 18.81M and 6.32M, in parameters and in MiB."
sizes = pd.DataFrame({"parameters": numbers})
sizes["million"] = sizes["parameters"] / 1e6
sizes["MiB"] = 4 * sizes["parameters"] / MIB
display.table(sizes, digits=2)

# %% [markdown]
# - 358M is the size of SAM in MiB (357.6), so it is no number of parameters.
# - 18.81M is near what *SAMed* trains, in MiB, for 8 classes: 18.74. It is not what MedSAGa trains, which is everything: 92.0 million, fewer than SAM's 93.7 because the table of positions is smaller at 512 px. None of the paper's data sets has 8 classes; SAMed's own data set, Synapse, has 8.
# - 6.32M is near what SAMed_s, a smaller variant of SAMed, trains: 6.28 MiB. The file that SAMed's authors publish for it has 6.318 MiB.
#
# The last two are inferences: the numbers fit, but the papers do not say so. The table of claims therefore has *contradicted* for "18.81M is what MedSAGa trains", and for 6.32M *contradicted* where the paper says what is counted, and *not comparable* where it does not. The paper's arithmetic is right: 18.81 is 5.25 % of 358. It is the share that SAMed trains, 5.24 % by our count.
#
# ## Where does an average gain come from?
#
# LiteMedSAM with LoRA is an entry of the CVPR 2024 challenge ([chapter 8](08_lite_medsam.ipynb)), whose name for Dice is DSC. By its Table 3, it improves the average DSC over nine modalities from 83.23 to 87.05 %.
#
# > **Predict.** How many of the nine modalities carry this gain?

# %%
from medsaga_lib.claims.tables import table

scores = table("litemedsam_table3").drop("Average")
gain = (scores["proposed_dsc"] - scores["baseline_dsc"]).sort_values()
largest = gain.iloc[-2:]
print(f"{gain.mean():+.2f} on average; {' and '.join(largest.index)}: ", end="")
print(f"{largest.sum() / gain.sum():.0%} of the sum; ", end="")
print(f"the others {gain.iloc[:-2].mean():+.2f}")

# %% tags=["figure"]
from matplotlib.figure import Figure

figure = Figure(figsize=(display.style.WIDTH, 2.6))
axes = figure.add_subplot(
    xlabel="DSC of the proposed method minus baseline (percentage points)"
)
blue, orange = display.style.BLUE, display.style.VERMILLION
axes.barh(gain.index, gain, color=np.where(gain > 0, blue, orange))
axes.axvline(gain.mean(), color=display.style.INK, linestyle="--", linewidth=1)
alt = (
    "Nine bars, one for each modality, and a dashed line at the mean of 3.8 "
    "points. Microscopy gains 19 points and PET 14, X-ray gains 8, three gain "
    "0.5 to 2.3, and MR, CT and ultrasound lose up to 8."
)

# %%
display.show(
    figure,
    alt,
    caption="Gain (blue) or loss (orange) of LiteMedSAM with LoRA in each "
    "modality, from the paper's Table 3. Dashed: the mean. US is ultrasound.",
)

# %% [markdown]
# The claim "the average improves" is true. Two modalities make up 96 % of the sum. The other seven gain 0.20 on average: one of them, X-ray, gains 8 points, and ultrasound loses 8. The abstract names no modality, so nothing is contradicted. A reader with CT images should still know that CT got slightly worse.
#
# ## What do 0.4 % of the parameters depend on?
#
# S-SAM trains scales and shifts of singular values, and "0.4 %" of SAM's parameters. It also trains the embedding of positions, which has one vector of 768 numbers for each patch of 16 x 16 pixels.
#
# > **Predict.** How does the trained share depend on the size of the image?

# %%
trained = counted("s_sam", size=256).trainable
rest = trained - (256 // 16) ** 2 * 768
for size in (224, 256, 512, 1024):
    total = rest + (size // 16) ** 2 * 768
    print(f"{size:4} px: {total:9,} trained, {total / of_sam:.2%} of SAM")

# %%
parts = next(one for one in answers if one.claim.id == "ssam-parts")
print(parts.found.measured)

# %% [markdown]
# At 256 px the share is 0.47 %, and the claim's tolerance is 0.1, so it counts as reproduced. At 1,024 px, the size in the released code for one data set, it is 3.62 %, 7.6 times as much. The claim is true for small images alone.
# The second cell splits what trains at 256 px into its parts. The scales and shifts, after which the method is named, are 17 % of it; the positions are 44 %.
#
# ## A background point that is no point
#
# S-SAM is compared with full fine-tuning, which gets a point as its prompt. S-SAM's rebuttal says that this is one foreground point, or one background point where the mask of an image is empty. The released code gives the background point the label -1. SAM's own labels are 1 for foreground and 0 for background. What does -1 mean to SAM? The next cells move a point and measure by how much its tokens change.

# %%
from medsaga_lib.models.sam import build_sam

torch.manual_seed(seed)
encoder = build_sam("pocket").prompt_encoder


def tokens(x, y, label):
    """The prompt's tokens for one point, with random weights."""
    point = torch.tensor([[[x, y]]]), torch.tensor([[label]])
    with torch.no_grad():
        return encoder(points=point, boxes=None, masks=None)[0]


# %%
points = {1: "foreground", 0: "background", -1: "the code's point"}
for label, name in points.items():
    moved = (tokens(10.0, 10.0, label) - tokens(50.0, 30.0, label)).abs().max()
    print(f"label {label:2} ({name}): the tokens change by {moved:.2f}")

# %% [markdown]
# With label -1 the tokens do not depend on the place of the point. SAM uses this label for padding: it replaces the point by a learned vector, "not a point". So images with an empty mask are prompted with no place at all, and the claim of a background point is *contradicted*. We do not know whether a background point would have given other scores.
#
# ## MedSAGa against DAE-Former on all four data sets
#
# DAE-Former is a network that is trained from scratch. MedSAGa's section 4.3 says that with few images MedSAGa has the higher Dice, and with many a slightly lower one. The figure has all 22 settings of Table 1.
#
# > **Predict.** In how many of the four data sets do the two curves cross?

# %%
dice = table("medsaga_table1").filter(like="_dice")
dice.columns = dice.columns.str.removesuffix("_dice")
dice.index = dice.index.str.rsplit(n=1, expand=True).rename(["data", "images"])

# %% tags=["figure"]
names = {"medsaga": "MedSAGa", "samed": "SAMed", "dae_former": "DAE-Former"}
figure = Figure(figsize=(display.style.WIDTH, 3.0))
panels = figure.subplots(1, 4)
panels[0].set_ylabel("Dice")
for axes, (data, part) in zip(panels, dice.groupby("data", sort=False)):
    images = part.index.get_level_values("images").astype(int)
    for method, name in names.items():
        line = {"label": name, "color": display.colour(name), "marker": "o"}
        axes.plot(images, part[method], **line)
    axes.set(xscale="log", title=data, xlabel="training images")
    limits = [images.min(), images.max()]
    axes.set_xticks(limits, [f"{number:,}" for number in limits])
    axes.minorticks_off()

# %% tags=["figure"]
key = panels[3].get_legend_handles_labels()
figure.legend(*key, loc="outside lower center", ncols=3)
alt = (
    "Four panels of Dice against the number of training images, each with "
    "MedSAGa, SAMed and DAE-Former. Chest: MedSAGa leads up to 500 images, "
    "DAE-Former with 1,800. ISLES: MedSAGa leads except at 700, and at 2,000 "
    "all three are level. Spleen: MedSAGa leads with 100 images, DAE-Former "
    "from 200 on. AMOS: DAE-Former leads up to 2,000, MedSAGa with 7,000."
)

# %%
display.show(
    figure,
    alt,
    caption="The Dice of MedSAGa's Table 1, as printed and without intervals, "
    "in its 22 settings. The numbers of training images are on a logarithmic "
    "axis.",
)

# %% caption="Dice of MedSAGa minus that of DAE-Former, by data set of Table 1."
lead = (dice["medsaga"] - dice["dae_former"]).round(3)
by_data = lead.groupby("data", sort=False)
wins = by_data.agg(lambda leads: (leads > 0).sum()).astype(int)
ends = {"fewest images": by_data.first(), "most images": by_data.last()}
pd.DataFrame(ends | {"settings ahead": wins})

# %% [markdown]
# Table: The claims of section 4.3 of MedSAGa about DAE-Former.
#
# | claim of section 4.3 | verdict |
# | --- | --- |
# | with the fewest images MedSAGa is ahead on Chest, ISLES and Spleen | reproduced: +0.057, +0.076, +0.049 |
# | with the most images it is slightly behind on Chest and Spleen | reproduced: -0.011 and -0.034 |
# | with the most images it is slightly behind on ISLES | contradicted: +0.050, so it is ahead |
# | its HD95 is lower than DAE-Former's in most settings | reproduced: 21 of 22 |
#
# The two curves cross in all four data sets, on ISLES twice. On AMOS the order is reversed: MedSAGa is behind with few images and ahead with the most. The paper's sentence does not name AMOS, so it is right. The figure of the paper shows only Chest, and a reader of it would expect the Chest pattern everywhere.

# %% [markdown]
# ## Metric forensics: one prediction, many scores
#
# A published HD95 is a number of a method and of a library. The libraries agree on two masks that both have elements, up to small differences in the definition. They disagree on a mask that is empty. There are four states of a class in an image:
#
# Table: The four states of a class in an image.
#
# | state | prediction | truth |
# | --- | --- | --- |
# | both | has elements | has elements |
# | missed | empty | has elements |
# | spurious | has elements | empty |
# | empty | empty | empty |
#
# > **Predict.** A network misses an organ completely. What is its HD95? What does that do to the mean over all patients?
#
# MONAI is installed with this book, so we can ask it. One image has a square that is found 3 pixels too low. In the next image the square is missed.

# %%
from monai.metrics import HausdorffDistanceMetric

square = torch.zeros(1, 1, 16, 16)
square[..., 4:8, 4:8] = 1
low, nothing = square.roll(3, dims=2), torch.zeros_like(square)


def monai_mean(*predictions):
    """MONAI's mean HD95 of predictions of the square."""
    metric = HausdorffDistanceMetric(include_background=True, percentile=95)
    for prediction in predictions:
        metric(prediction, square)
    return metric.aggregate().item()


# %%
import warnings

with warnings.catch_warnings(action="ignore"):  # MONAI warns of each empty mask
    print(f"found twice:        {monai_mean(low, low):.1f}")
    print(f"found, then missed: {monai_mean(low, nothing):.1f}")
    print(f"missed twice:       {monai_mean(nothing, nothing):.1f}")

# %% [markdown]
# MONAI leaves the missed square out of its mean. If all are missed, the mean is 0, which is the best HD95 there is. MONAI prints a warning for each image, and no warning with the mean.
#
# seg-metrics is not installed with this book, and MedPy only with its tests. `python -m tools.forensics` has asked all libraries about a square in the four states, with these versions:

# %%
forensics = json.loads(Path("recorded/forensics.json").read_text())
origin = forensics["provenance"]
print(origin["command"], "|", origin["date"])
print(", ".join(f"{name} {number}" for name, number in origin["peers"].items()))

# %% caption="Answers of the libraries for a square in the four states of a prediction and its truth."
probes = pd.DataFrame(forensics["probes"]).set_index("state").T
probes.index = probes.index.str.split(n=1, expand=True)
probes.index.names = ["metric", "library or rule"]
texts = probes.astype(float).map("{:.1f}".format)
display.table(texts.replace("nan", "left out"))

# %% [markdown]
# *Left out* stands for NaN or for an error: the usual mean then omits this image.
#
# Table: Libraries and rules on an empty mask.
#
# | library or rule | HD95 of a missed organ | other surprises |
# | --- | --- | --- |
# | MedPy | raises an error; whoever writes the loop decides | its Dice of two empty masks is 1 up to NumPy 2.2, and NaN since NumPy 2.3 |
# | MONAI | NaN, which its mean omits; 0 if all are missed | its Dice omits every image without the organ by default, so spurious predictions cost nothing |
# | seg-metrics | 0, as for a perfect mask, because it sets the map of distances to 0 | the same for a spurious organ |
# | surface-distance 0.1 | infinite with NumPy 1; an error with NumPy 2 | its HD95 weights surface elements by their area |
# | Synapse rule, in the code of TransUNet, SAMed and DAE-Former | 0 | a spurious organ has Dice 1, and two empty masks have Dice 0 |
# | this library | the diagonal of the image, which is our choice | images where both masks are empty are omitted and counted |
#
# The row *surface-distance* of NSD is the function that the challenge calls for one label. It gives 0 where one mask is empty.
#
# ## Does the rule change which method wins?
#
# 5 methods segment the same 10 test volumes of the hippocampus, which has an anterior and a posterior part. 2 are U-Nets, which `tools.forensics` trained on 16 slices, one for 100 steps and the other for 40. Both are poor, as such short runs are. 2 more, *largest*, keep only the largest connected component of each part of their masks, a common step after a network. The fifth method predicts *nothing*: background everywhere.
# We score slices first, every third one of each volume. A score belongs to one part in one slice. The next table counts their states.

# %% caption="Number of scores by state and method, over slices and parts."
short = {f"unet:batch=4:steps={n}": f"{n} steps" for n in (100, 40)}
short |= {f"{name}+largest": f"{said}, largest" for name, said in short.items()}
short |= {"nothing": "nothing"}
slices = pd.DataFrame(forensics["slices"]).replace({"method": short})
pairs = slices[slices["class"] != "case"]
pairs.pivot_table("number", "method", "state", "sum", 0).loc[short.values()]


# %% [markdown]
# For more than half of the scores, the truth is empty. The U-Net of 40 steps predicts both parts in every slice, so all of these are spurious. Keeping the largest component removes many spurious predictions of the U-Net of 100 steps.
#
# > **Predict.** Which of the five has the highest mean Dice, and which the lowest HD95? Is the answer the same for all libraries?

# %%
def mean_of(measure):
    """The mean of each method over slices and parts that are not left out."""
    parts = slices.dropna(subset=[measure]).set_index("method")[measure]
    total = parts.map(lambda part: part[0] * part[1]).groupby("method").sum()
    return total / parts.str[0].groupby("method").sum()


# %%
measures = [*forensics["probes"][0].keys() - {"state"}]
measures += ["dice CVPR 2024", "nsd CVPR 2024"]
measures.sort(key=str.lower)
means = pd.DataFrame({measure: mean_of(measure) for measure in measures})
means = means.T[[*short.values()]]
named = means.index.str.replace(", ", " with ")
means.index = named.str.split(n=1, expand=True)

# %% tags=["figure"]
sign = np.where(means.index.get_level_values(0) == "hd95", 1, -1)
ranks = means.round(3).mul(sign, axis=0).rank(axis=1, method="min")
figure = Figure(figsize=(display.style.WIDTH, 5))
axes = figure.add_subplot()
axes.imshow(ranks, cmap="Greens_r", vmin=-9, vmax=5, aspect="auto")
for (row, column), value in np.ndenumerate(means.to_numpy()):
    rank = ranks.iat[row, column]
    said = "left out" if np.isnan(value) else f"{value:.2f} ({rank:.0f})"
    axes.text(column, row, said, ha="center", va="center", fontsize=8)

# %% tags=["figure"]
metrics = {"dice": "Dice", "hd95": "HD95 (mm)", "nsd": "NSD"}
rows = [f"{library}: {metrics[name]}" for name, library in means.index]
axes.set_yticks(range(len(rows)), rows)
axes.set_xticks(range(5), means.columns.str.replace(", ", "\n"))
axes.xaxis.tick_top()
axes.grid(visible=False)

# %% tags=["figure"]
alt = (
    "A matrix of means, one row for each metric and library, one column for "
    "each of five methods, with the rank in brackets. The rank of a column "
    "changes from row to row. By the Synapse rule, 40 steps with the largest "
    "component has the highest Dice and 100 steps with the largest component "
    "the lowest of the four networks; in all other rows of Dice the latter is "
    "first, alone or with 100 steps. By seg-metrics and the Synapse rule, the "
    "method that predicts nothing has an HD95 of 0 and is first."
)

# %%
display.show(
    figure,
    alt,
    caption="Mean scores of 5 methods (columns) on the slices of 10 test "
    "volumes, by each library or rule (rows). Brackets and colour: the rank "
    "in the row, dark is first.",
)


# %% [markdown]
# *CVPR 2024* is the whole rule of the challenge. It scores both parts of a slice together, and sets the NSD of the slice to 0 if one part is in neither mask, or if the mean Dice is at most 0.2. *Left out* means that no score remains; MONAI's own mean is 0 there, as shown above.
# The next cells list the pairs of methods that the libraries order differently.

# %% caption="Pairs of methods that the libraries order differently by Dice."
def flips(metric):
    """Pairs of methods that libraries order differently."""
    scores = means.loc[metric].round(3) * (-1 if metric == "hd95" else 1)
    rows = {}
    for one, two in itertools.combinations(scores, 2):
        first = scores.index[scores[one] > scores[two]]
        second = scores.index[scores[two] > scores[one]]
        if len(first) and len(second):
            said = {"first is better": ", ".join(first)}
            said["second is better"] = ", ".join(second)
            rows[f"{one} | {two}"] = said
    return pd.DataFrame(rows).T


pd.set_option("display.max_colwidth", None)
flips("dice")

# %% caption="Pairs of methods that the libraries order differently by HD95 and NSD."
display.table(pd.concat({one: flips(one) for one in ("hd95", "nsd")}))

# %% [markdown]
# - **Dice by the Synapse rule** puts both networks of 40 steps before those of 100. They predict both parts in every slice, and are rewarded, because a spurious prediction has Dice 1, and a slice that is rightly left empty has Dice 0.
# - **Dice with 1 for two empty masks** (seg-metrics, and MONAI with `ignore_empty=False`) puts *nothing* before the U-Net of 100 steps: 0.54 against 0.39. More than half of the scores have an empty truth, and *nothing* has all of these right.
# - **HD95 of seg-metrics and of the Synapse rule** has *nothing* in the first place, with 0. In MONAI it has no score for any slice, so MONAI's mean would be 0 too. The order of the four networks by HD95 is the same in all libraries here.
# - **NSD by the challenge's rule** has the U-Net of 100 steps first and the same with *largest* last of the four. The rule gives 0 to a slice where a label is in neither mask. It was made for prompts with boxes, where every label is there, and should not be used for slices without.
#
# So the rule changes the winner. By Dice, *40 steps, largest* is first with the Synapse rule, and *100 steps, largest* in all other rows, alone or with *100 steps*. By HD95, *nothing* is first with seg-metrics and the Synapse rule. By NSD, *100 steps* is first with the challenge's rule.
# The size of the numbers differs even where the order does not: the HD95 of *100 steps* is 1.9 mm by seg-metrics and 32 mm by this library. Such numbers of two papers cannot be compared.
#
# ## The same volumes with and without spacing
#
# Scored as volumes, no prediction of the four methods with a U-Net is empty. The differences that remain come from the definition of HD95 and from the spacing: MedPy and this library take the percentile of the distances of both directions together, MONAI the larger of two percentiles, and surface-distance weights by area.
# The test volumes have voxels of 1 mm in all directions. Many clinical images have thick slices. Every third slice is therefore also scored as a volume of voxels of 3 x 1 x 1 mm, once with this spacing, and once without. Without it, the distance of two slices counts as 1.

# %% caption="Mean HD95 of the volumes, and of the same volumes with thick slices with and without their spacing."
volumes = pd.DataFrame(forensics["cases"]).replace({"method": short})
distances = ["hd95 " + name for name in means.loc["hd95"].index]
by_unit = volumes.groupby(["unit", "method"])[distances].mean()
by_unit.columns = by_unit.columns.str.removeprefix("hd95 ")
by_unit.stack().unstack("method")[[*short.values()][:4]].round(2)

# %% [markdown]
# Compare *40 steps* with *100 steps*. By MedPy, seg-metrics, the rule of Synapse and this library, *100 steps* has the lower HD95 on the volumes; by MONAI and surface-distance, *40 steps* has. In thick slices MONAI has *100 steps* ahead with the spacing, and *40 steps* ahead without it. MedPy has *100 steps* level with *40 steps, largest* with the spacing, and 1.4 behind without it. So a forgotten spacing does more than change the unit: it changes the order.
# But do 10 volumes tell the two networks apart at all? The next cell has the mean difference in mm over volumes and its 95 % interval (Student's t).

# %%
from medsaga_lib.evaluation.scores import over_seeds

whole = volumes[volumes["unit"] == "volumes"]
whole = whole.groupby(["method", "case"])[distances].mean()
apart = whole.loc["40 steps"] - whole.loc["100 steps"]
for name, differences in apart.items():
    print("{:22} {:+.2f} ± {:.2f} mm".format(name, *over_seeds(differences)))

# %% [markdown]
# All six intervals contain 0, so 10 volumes do not tell these two networks apart in any library. On these volumes, where no mask is empty, the choice of library decides only close races: *100 steps, largest* is ahead by more than 8 mm in every library. On slices with empty masks it decided more than that.
# One training run of each network on one data set shows that rankings can change, not how often they do.

# %% [markdown]
# ## Questions

# %% [markdown] tags=["question"]
# **Question 1.** A paper says that a method needs 66 % less memory. Which question comes first?
#
# - **A.** Is 66 correctly rounded?
# - **B.** Less of which memory, against which method, with which settings?
# - **C.** Was the memory measured with the newest version of PyTorch?
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: this is a question for later. The same method can save 85 % or lose memory, whatever the rounding is.
# - **B.** Yes: the figure has 12 readings of one claim, from a large saving to a need of more memory.
# - **C.** No: a version changes the number a little. The denominator changes even its sign.
# </details>

# %% [markdown] tags=["question"]
# **Question 2.** A library gives an HD95 of 0 to a method that predicts nothing. How does this happen?
#
# - **A.** It defines the distance of an empty mask as 0, or leaves all such images out and takes the mean of nothing as 0.
# - **B.** The method is perfect on images without the organ.
# - **C.** HD95 ignores 5 % of the distances.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** Yes: both rules exist in published code. The number of missed objects has to stand beside a mean HD95.
# - **B.** No: those images are one part of the test. The images with the organ were missed, and no distance was computed for them.
# - **C.** No: here 100 % are ignored.
# </details>

# %% [markdown] tags=["question"]
# **Question 3.** An average over 9 groups improves by 4 points, and 2 groups make up almost all of the gain. Which report is honest?
#
# - **A.** The average, because it is what the paper claims.
# - **B.** The average without the 2 groups, because they are outliers.
# - **C.** The gain of each group, with the average.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: the claim is true, but it hides that some groups became worse.
# - **B.** No: they were measured like the others, and their gain may be what the method is for.
# - **C.** Yes: a reader with images of one group needs the number of this group.
# </details>

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: calculate (easy, 5 minutes)
# Suppose that MedSAGa's 66 % is the mean of two savings, against DAE-Former (61 %) and against SAMed. All three are rounded to whole numbers. Between which limits must the saving against SAMed be? Give the ends `low_end` and `high_end` in %. Compare them with the upper bound in the first figure.

# %% tags=["exercise"]
low_end, high_end = None, None

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# low_end, high_end = 2 * 65.5 - 61.5, 2 * 66.5 - 60.5
# bound = savings["SAMed: upper bound"]
# print(f"{low_end} to {high_end} %; the upper bound is {bound:.1f} %")
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
from medsaga_lib.claims.arithmetic import interval
from medsaga_lib.display.answers import as_number

given = as_number("low_end", low_end), as_number("high_end", high_end)
assert given[0] != given[1], (
    f"{given[0]:g} is the middle; rounding leaves a range."
)
(mean_low, mean_high), (dae_low, dae_high) = interval("66"), interval("61")
wanted = 2 * mean_low - dae_high, 2 * mean_high - dae_low
assert np.allclose(given, wanted), (
    f"{given[0]:g} to {given[1]:g} is wrong: a printed 66 is any number from "
    "65.5 to 66.5; the sum of both savings is twice the mean, and the lower "
    "limit takes the lowest mean with the highest saving against DAE-Former."
)

# %% [markdown]
# ### Exercise 2: experiment (medium, 10 minutes)
# S-SAM's share at 256 px is 0.47 %, which would be printed as 0.5. Change the size of the image: which is the largest size in pixels, a multiple of 16, whose share is printed as "0.4 %"? Why does the share fall to a limit and not to 0 for small images?

# %% tags=["exercise"]
largest_size = None

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# from medsaga_lib.claims.arithmetic import rounds_to
#
# shares = {}
# for size in range(16, 513, 16):
#     shares[size] = 100 * counted("s_sam", size=size).trainable / of_sam
# fitting = [size for size in shares if rounds_to(shares[size], "0.4")]
# largest_size = max(fitting)
# for size in (largest_size, 16):
#     print(f"{size} px: {shares[size]:.3f} %")
# # Only the positions depend on the size. Scales, shifts, norms and the label
# # network remain.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
given = as_number("largest_size", largest_size)
assert given % 16 == 0 and given > 0, f"{largest_size} is no multiple of 16."
share, larger = (
    100 * (rest + (size // 16) ** 2 * 768) / of_sam
    for size in (given, given + 16)
)
assert share < 0.45, (
    f"At {given:.0f} px the share is {share:.3f} %, printed as {share:.1f}."
)
assert larger >= 0.45, (
    f"At {given + 16:.0f} px the share is {larger:.3f} %, "
    "printed as 0.4 as well."
)

# %% [markdown]
# ### Exercise 3: find the fault (medium, 10 minutes)
# A colleague compares two networks on two images. Network A finds the square in both, 3 pixels too low. Network B finds it in the first and misses it in the second. "Both have an HD95 of 3.0," says the colleague, who used `monai_mean`. Find the fault, and write `mended`, which returns a mean HD95 in pixels that tells the two apart. Count a missed square with the diagonal of the image.

# %% tags=["exercise"]
network_a, network_b = (low, low), (low, nothing)
mended = monai_mean
with warnings.catch_warnings(action="ignore"):  # MONAI warns of the empty mask
    print(mended(*network_a), mended(*network_b))

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# from medsaga_lib.evaluation.metrics import hd95
#
#
# def mended(*predictions):
#     """The mean HD95 with the diagonal for a missed square."""
#     truth = square[0, 0].numpy() > 0
#     masks = [prediction[0, 0].numpy() > 0 for prediction in predictions]
#     return np.mean([hd95(mask, truth) for mask in masks])
#
#
# print(f"A: {mended(*network_a):.1f} px, B: {mended(*network_b):.1f} px")
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
with warnings.catch_warnings(action="ignore"):
    mean_a = as_number("mended(*network_a)", mended(*network_a))
    mean_b = as_number("mended(*network_b)", mended(*network_b))
diagonal = 16 * 2**0.5
assert mean_b > mean_a, (
    f"A has {mean_a:.1f} and B {mean_b:.1f}: the missed square is left out."
)
assert np.isclose(mean_a, 3), (
    f"A is 3 pixels off in both images, not {mean_a:.1f}."
)
assert np.isclose(mean_b, (3 + diagonal) / 2), (
    f"B has {mean_b:.2f}; 3 pixels and the diagonal, {diagonal:.2f}, "
    f"have the mean {(3 + diagonal) / 2:.2f}."
)

# %% [markdown]
# ## Summary
#
# - A claim is checked against a criterion that is fixed before the calculation. Rounding is no contradiction.
# - A percentage needs three words: of what, against what, with which settings. MedSAGa's 66 % is possible against full fine-tuning under one reading, and impossible against SAMed.
# - A number "in M" may be MiB. 358M is SAM in MiB, and 18.81M is near what SAMed trains.
# - An average gain may come from two of nine groups.
# - A mean HD95 says little without the rule for empty masks. Report the number of missed and spurious objects beside it, and compare methods with one library and one rule.
