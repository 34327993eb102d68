# %% [markdown]
# # 9. Networks from scratch
#
# **You will be able to**
# - train a U-Net from random weights on 4 X-rays, and compare it with an adapted SAM on the same X-rays,
# - write attention whose cost is linear in the number of pixels, and say what it cannot represent,
# - count the parameters of a published network that are never used,
# - compare methods without mixing those that get prompts with those that get none.
#
# **Before this** [Chapter 5](05_adapting_sam.ipynb) on class tokens; a first idea of queries, keys and values.
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
profile = "quick"  # "colab": a larger run, if there is a GPU
seed = 0

# %% [markdown]
# ## A U-Net trained on 4 labelled images
#
# Most chapters of this book start from a pretrained network. This section starts from random weights and 4 labelled X-rays.
# An adapted foundation model should be better than such a network; otherwise its pretraining does not help on this task.
#
# Where `MEDSAGA_DATA` names no folder, drawn chest X-rays replace the data sets of this chapter.

# %% tags=["data"]
from medsaga_lib.data.catalog import open_or_phantoms

names = "cxr_hannover_lungs", "polyp_kvasir"
chest, polyps = (open_or_phantoms(name) for name in names)
for dataset in {data.name: data for data in (chest, polyps)}.values():
    print(dataset.describe())

# %% [markdown]
# The network is MONAI's U-Net ([Ronneberger et al. 2015](https://arxiv.org/abs/1505.04597)). On the way down, convolutions halve the sides of the feature map and give it more channels. On the way up, they double the sides again.
# At each level, a *skip* connection joins the map from the way down to the one from the way up. In the deep layers, each cell depends on a large part of the image, at low resolution. The skips carry the edges at high resolution.
#
# The second network is LiteMedSAM with its published weights, a frozen image encoder and class tokens, as in [chapter 10](10_few_labels.ipynb). Its mask decoder is trained, together with a *lift* that gives its embedding absolute positions; chapter 10 explains the lift.
# LiteMedSAM has probably seen images of this source in its training ([Where the weights come from](../book/weights.md)). The U-Net has seen none.
#
# Both networks get the same 4 X-rays, the same number of steps and the same batch size.
#
# > **Predict.** Which Dice does the U-Net reach on X-rays of other patients: 0.2, 0.5 or 0.8? Is LiteMedSAM ahead of it?

# %%
from medsaga_lib.models.profile import choose

chosen = choose(profile, size=128)
size, steps = chosen.size, 200 if chosen.large else 60
print(chosen.found)

# %%
from dataclasses import replace

from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.recipe import changed
from medsaga_lib.training.loop import train
from medsaga_lib.training.run_folder import Settings

settings = Settings(shots=4, size=size, seed=seed, validations=0)
recipe = changed(get_recipe("unet"), ["batch=4", f"steps={steps}"])
unet = train(recipe, chest, settings, progress=False).model

# %%
changes = ["image_encoder.copies=4", "lift=fourier", "lr=0.001"]
changes += ["batch=4", f"steps={steps}"]
recipe = changed(get_recipe("frozen_encoder"), changes)
settings = replace(settings, backbone="lite_medsam")
frozen = train(recipe, chest, settings, progress=False).model

# %%
from functools import partial

from medsaga_lib.evaluation.scores import evaluate_cases
from medsaga_lib.inference.predictor import Predictor
from medsaga_lib.models.feeding import FEED_OF


def predictor(model, data=chest, backbone="none"):
    """A network with the preprocessing of a backbone; from scratch: "none"."""
    described = data.labels, data.modality, data.window
    return Predictor(model, *described, FEED_OF[backbone])


# %%
networks = {"U-Net": predictor(unet)}
networks["LiteMedSAM"] = predictor(frozen, backbone="lite_medsam")

# %%
import pandas as pd

from medsaga_lib import display

test, scored = chest.split("test"), {}
for name, network in networks.items():
    evaluation = evaluate_cases(partial(network.case, chest), chest, test)
    summary = evaluation.summary()
    row = {key: round(summary[key], 3) for key in ("dice", "hd95", "confused")}
    row["interval"] = "{:.3f} to {:.3f}".format(*evaluation.interval("dice"))
    trained = [p.numel() for p in network.model.parameters() if p.requires_grad]
    scored[name] = row | {"trainable": f"{sum(trained):,}"}

# %% caption="U-Net and LiteMedSAM after the same short training on 4 X-rays. Likely seen by LiteMedSAM: lungs."
patients = len({case.patient for case in test})
print(f"{len(test)} test images of {patients} patients, {steps} steps")
display.table(pd.DataFrame(scored).T)

# %% [markdown]
# The column `interval` is the 95 % interval of the mean Dice over patients, HD95 is in pixels, and `confused` is the share of predicted pixels on another organ.

# %% [markdown] tags=["real"]
# With this one seed, both networks reach a Dice of about 0.8, and the intervals overlap. The HD95 of the U-Net is larger; the next figure shows why.

# %%
from medsaga_lib.data.cases import read_pair

display.use_style()
panels = []
for case in test[:2]:
    picture, truth = read_pair(chest, case)
    for name, network in networks.items():
        masks = truth, network(picture)
        panels.append(display.Panel(picture.pixels, *masks, name))
alt = (
    "Two test X-rays, each with the masks of the two networks; solid is the "
    "prediction, dashed the annotator's mask. Both networks find the organs. "
    "Their edges are uneven and differ from the annotator's in places, and "
    "small patches are outside the organs."
)
caption = (
    "Two test X-rays (rows) with the masks (solid) of the U-Net and of "
    "LiteMedSAM, each trained on the same 4 X-rays; dashed: the annotator's "
    "masks."
)
figure = display.grid(panels, chest.labels, alt, columns=2)
display.show(figure, alt=alt, caption=caption)
print(chest.citation, "|", chest.licence)

# %% [markdown] tags=["real"]
# Both networks find both lungs and give each its own class. The U-Net also gives the class of the right lung to a few pixels at the right border of the image, far from this lung, and these make its HD95 large. Parts of LiteMedSAM's masks are outside the lungs as well, but they are nearer.

# %% [markdown]
# Large organs that are always in the same place are an easy task for a network from scratch. One training with one seed cannot rank the two networks; the recorded runs on the pocket SAM below have 3 seeds and more methods.
#
# ## What MedSAGa's authors measured
#
# Table 1 of [MedSAGa](https://arxiv.org/abs/2407.15042) compares MedSAGa and SAMed with DAE-Former, a network from scratch, on 4 data sets. The next cells print the Dice of MedSAGa minus that of DAE-Former, for each number of training images.
#
# > **Predict.** On which data sets is the adapted SAM ahead with few labels, and DAE-Former ahead with many?

# %%
methods = ["MedSAGa", "SAMed", "DAE-Former"]
published = {  # number of training images, then the Dice of the three methods
    "chest X-ray": [(50, 0.899, 0.882, 0.842), (100, 0.913, 0.902, 0.859),
                    (200, 0.921, 0.916, 0.882), (350, 0.930, 0.924, 0.896),
                    (500, 0.934, 0.929, 0.924), (1800, 0.938, 0.943, 0.949)],
    "ISLES": [(200, 0.343, 0.218, 0.267), (500, 0.537, 0.227, 0.435),
              (700, 0.534, 0.280, 0.553), (1000, 0.574, 0.368, 0.546),
              (2000, 0.685, 0.686, 0.683), (3200, 0.783, 0.742, 0.733)],
    "Spleen": [(100, 0.842, 0.807, 0.793), (200, 0.838, 0.869, 0.877),
               (500, 0.882, 0.877, 0.905), (700, 0.876, 0.878, 0.901),
               (800, 0.882, 0.907, 0.916)],
    "AMOS": [(500, 0.199, 0.166, 0.268), (1000, 0.208, 0.201, 0.301),
             (2000, 0.222, 0.201, 0.299), (5000, 0.314, 0.250, 0.314),
             (7000, 0.389, 0.377, 0.349)],
}  # fmt: skip

# %%
for name, rows in published.items():
    ahead = [f"{images}: {one - other:+.3f}" for images, one, _, other in rows]
    print(f"{name:11}", ", ".join(ahead))

# %% tags=["figure"]
alt = (
    "Published Dice against the number of training images, on four data sets, "
    "with a curve for each of MedSAGa, SAMed and DAE-Former. Chest X-ray: "
    "DAE-Former starts lowest and ends highest. ISLES: MedSAGa starts highest "
    "and ends highest. Spleen: DAE-Former starts lowest and is highest from "
    "the second point on. AMOS: DAE-Former is highest in the first three "
    "points and lowest in the last."
)
caption = (
    "Dice by number of training images in MedSAGa's Table 1, on 4 data sets. "
    "The scale of the Dice differs from panel to panel; that of the images is "
    "logarithmic."
)

# %%
from matplotlib import pyplot as plt

figure, panels = plt.subplots(1, 4, figsize=(7, 2.4))
for axes, (name, rows) in zip(panels, published.items(), strict=True):
    images, *dice = zip(*rows, strict=True)
    for method, values in zip(methods, dice, strict=True):
        look = {"color": display.colour(method), "markersize": 3}
        axes.plot(images, values, "o-", label=method, **look)
    axes.set(title=name, xscale="log", xlabel="training images")
    axes.set_xticks([images[0], images[-1]], [images[0], images[-1]])
    axes.minorticks_off()
panels[0].set_ylabel("published Dice")
key = axes.get_legend_handles_labels()
figure.legend(*key, loc="outside lower center", ncols=3)
display.show(figure, alt=alt, caption=caption)

# %% [markdown]
# The adapted SAM is ahead with few labels, and the network from scratch with many, on two of the four data sets:
#
# Table: Where MedSAGa and DAE-Former are ahead, by MedSAGa's Table 1.
#
# | data set | MedSAGa is ahead with | DAE-Former is ahead with |
# | --- | --- | --- |
# | chest X-ray | 50 to 500 images | 1,800 images |
# | Spleen | 100 images | 200 to 800 images |
# | ISLES | 200, 500, and 1,000 to 3,200 images | 700 images |
# | AMOS | 7,000 images | 500 to 2,000 images |
#
# On AMOS, the order is the reverse: DAE-Former is ahead with few images. The two are equal with 5,000.
#
# The paper gives neither the number of seeds nor an interval, so small differences mean little. Its Table 3 has another Dice of MedSAGa for 2 of these cells, with the same HD95: 0.943 with 1,800 chest X-rays, and 0.359 with 7,000 images of AMOS. The signs of both differences to DAE-Former stay the same.
#
# ## Attention: its memory and its multiplications
#
# DAE-Former ([Azad et al. 2022](https://arxiv.org/abs/2212.13504)) has the shape of a U-Net, with attention in place of most convolutions. MedSAGa's paper says that this attention
# "still retains the intrinsic quadratic computational complexity with respect to the number of tokens". This section tests the statement.
#
# A token is a cell of the feature map, a vector of $d$ channels. In ordinary attention, each token compares its query $q$ with the keys $k$ of all $N$ tokens, and takes a weighted mean of their values $v$:

# %%
import torch


# %%
def attention(q, k, v):
    """Ordinary attention of q, k and v (N, d), with a map of N x N."""
    return (q @ k.T / q.shape[1] ** 0.5).softmax(1) @ v


# %% [markdown]
# The map has $N \times N$ weights. If the sides of an image are twice as long, there are 4 times as many tokens, and the map is 16 times as large. A fused kernel, as in [chapter 3](03_memory_ledger.ipynb), does not store the map, but does the same multiplications, $2 N^2 d$ in number.
#
# Without the softmax, $(q\,k^\top)\,v = q\,(k^\top v)$, and the right-hand side has no $N \times N$ matrix. Efficient attention ([Shen et al. 2018](https://arxiv.org/abs/1812.01243)) uses this. It applies a softmax to $q$ and to $k$ separately, *before* the product:

# %%
def linear_attention(q, k, v):
    """Efficient attention of q, k and v (N, d), with a summary of d x d."""
    # each channel of k pools the whole image into one vector
    summary = k.softmax(0).T @ v
    return q.softmax(1) @ summary  # each token mixes these d vectors


# %% [markdown]
# The next cell multiplies in the other order, to compute the $N \times N$ map that efficient attention does not need.
#
# > **Predict.** Are the rows of this map weights, positive numbers with the sum 1?

# %%
torch.manual_seed(seed)
q, k, v = torch.randn(3, 144, 16)  # a 12 x 12 map with 16 channels
implied = q.softmax(1) @ k.softmax(0).T  # (144, 144)
same = torch.allclose(linear_attention(q, k, v), implied @ v, atol=1e-6)
sums = implied.sum(1)
print(f"same result: {same}, smallest weight {implied.min():.1e}")
print(f"sums of the rows from {sums.min():.3f} to {sums.max():.3f}")

# %% [markdown]
# The rows are weights over all tokens, so this is still attention. The next cells count the memory that autograd keeps for the backward pass, with the ledger of chapter 3.

# %%
from medsaga_lib.memory.ledger import saved_bytes


# %%
def kept(function, N, d=128):
    """MiB that one call keeps for its backward pass."""
    qkv = [torch.randn(N, d, requires_grad=True) for _ in range(3)]
    with saved_bytes(torch.nn.ParameterList(qkv)) as saved:
        out = function(*qkv)
        return saved.total() / 2**20 if out is not None else 0


# %% caption="Memory that autograd keeps for the backward pass, by number of tokens."
sides = [14, 28, 56]  # cells along a side of DAE-Former's maps at 224 pixels
both = (attention, linear_attention)
table = {f.__name__: [kept(f, side**2) for side in sides] for f in both}
names = [f"{side**2} tokens (MiB)" for side in sides]
pd.DataFrame(table, index=names).T.round(2)

# %% [markdown]
# From one column to the next, the number of tokens grows 4 times. The memory of ordinary attention grows about 16 times, that of efficient attention less than 4 times. The next cell does the same for the whole network.

# %%
from medsaga_lib.memory.plan import Plan, predict_ledger

recipe = get_recipe("dae_former")
for pixels in (224, 448):
    entry = predict_ledger(recipe, Plan("none", 1, pixels, classes=8))
    needs = entry.activations / 2**20
    print(f"{pixels} px: {needs:6,.0f} MiB of activations for one image")

# %% [markdown]
# An image with sides of twice the length has 4 times as many tokens, and needs about 4 times the memory. The statement in MedSAGa's paper is wrong: the cost of DAE-Former's attention is linear in the number of tokens.
#
# Linear attention is not always cheaper. Efficient attention needs $2 N d^2$ multiplications. This is less than $2 N^2 d$ if there are more tokens than channels, $N / d > 1$:

# %%
# cells along a side and channels, at 224 px
for side, d in ((56, 128), (28, 320), (14, 512)):
    times = side**2 / d
    print(f"{side:2} x {side:2} tokens, {d} channels: N / d = {times:.1f}")

# %% [markdown]
# For the map of 14 x 14 tokens, efficient attention needs more multiplications than ordinary attention.
#
# ## The limits of linear attention
#
# Each of 144 tokens gets a random key. Its query is its own key times 8, so that the product of a query with its own key is large.
#
# > **Predict.** Is most of the weight of a token on itself, with both kinds of attention?

# %%
k = torch.randn(144, 16)
q = 8 * k
maps = {
    "attention": (q @ k.T / 4).softmax(1),
    "linear attention": q.softmax(1) @ k.softmax(0).T,
}
for name, weights in maps.items():
    rank = torch.linalg.matrix_rank(weights)
    itself = weights.diag().mean()
    print(f"{name:17} mean weight on itself {itself:.2f}, rank {rank} of 144")

# %%
panels = []
for name, weights in maps.items():
    bright = weights / weights.max()
    panels.append(display.Panel(bright.numpy(), title=name))
alt = (
    "Two maps of 144 x 144 weights; bright is large. Ordinary attention: a "
    "bright diagonal on black, so each token attends to itself. Linear "
    "attention: a faint diagonal in noise, with some columns that are "
    "brighter, the tokens to which many others attend."
)
caption = (
    "Attention maps of 144 tokens. A row has the weights of one token, a "
    "column those on one token; white is the largest weight of the map."
)
figure = display.grid(panels, {}, alt, columns=2)
display.show(figure, alt=alt, caption=caption)

# %% [markdown]
# With ordinary attention, almost all of the weight of a token is on itself. With linear attention, most of it is on other tokens. The map of linear attention has at most rank $d$, here 16, because it is a product of an $N \times d$ and a $d \times N$ matrix. The sum of its diagonal is at most $d$ for any $q$ and $k$, so the mean weight of a token on itself is at most $16/144 = 0.11$.
#
# ## Attention between channels, and what tells left from right
#
# DAE-Former's blocks are *dual*: after the attention between tokens comes attention between channels, with a $d \times d$ map for any size of the image
# ([El-Nouby et al. 2021](https://arxiv.org/abs/2106.09681)). The columns of $q$ and $k$ get length 1, so the products are cosines; a learned temperature multiplies them.

# %%
from torch.nn.functional import normalize


# %%
def channel_attention(q, k, v, temperature=1.0):
    """Attention between channels of q, k and v (N, d), with a map of d x d."""
    cosines = normalize(q, dim=0).T @ normalize(k, dim=0)
    return v @ (cosines * temperature).softmax(1).T


# %% [markdown]
# In the library's DAE-Former, both kinds of attention have learned projections around them. A block is efficient attention, a feed-forward part, channel attention, and a second feed-forward part; each adds its output to its input.
#
# > **Predict.** Shuffle the cells of a map, apply one part of the block, and put the cells back in order. Which parts give another output than without the shuffle?

# %%
from medsaga_lib.models import dae_former

block = dae_former.DualBlock(width=16)
x = torch.randn(1, 12, 12, 16)  # (B, H, W, C)
order = torch.randperm(144)
shuffled = x.flatten(1, 2)[:, order].view_as(x)

# %%
for part in block.parts[:3]:
    with torch.no_grad():
        back = part(shuffled).flatten(1, 2)[:, order.argsort()].view_as(x)
        apart = (back - part(x)).abs().max()
    print(f"{type(part).__name__:19} changes by {apart:.0e}")

# %% [markdown]
# The output of the feed-forward part changes. Both kinds of attention give the same output up to rounding, so their output does not depend on the positions of the tokens. SAM's ViT has a table of positions, and DAE-Former has none. It can tell a right lung from a left lung only by its convolutions, those in the feed-forward parts and those that embed the patches: beyond the border of the image, they get zeros.
#
# ## DAE-Former and its 18 million unused parameters
#
# DAE-Former has 3 stages on the way down and 2 on the way up, each with 2 dual blocks. In a decoder stage, the encoder's map gives the queries and keys, and the decoder's own map gives the values.
# The library's network is in one file, `medsaga_lib/models/dae_former.py`. The network of the published code has more parameters; we counted them by running that code:

# %%
with torch.device("meta"):  # shapes without memory
    whole = dae_former.DAEFormer(outputs=9)

# %%
ours, published_count = sum(p.numel() for p in whole.parameters()), 48_073_065
unused = published_count - ours
print(f"published {published_count:,}, here {ours:,}")
share = unused / published_count
print(f"difference {unused:,}, {share:.0%} of the published number")


# %% [markdown]
# Both networks give the same output; the tests of this project compare the outputs for the same weights. The published code builds two kinds of layers that its forward pass never calls:
#
# - The published code builds a third decoder stage below these two. It has no skip connection, so its forward pass uses only its last layer, which enlarges the map, and none of the layers before it.
# - Each feed-forward part has 3 norms and uses 1.
#
# The next cell builds the unused layers of that stage and counts both kinds.

# %%
def count(modules):
    """The number of parameters of these modules."""
    return sum(p.numel() for module in modules for p in module.parameters())


# %%
def norms(modules):
    """The norms of all feed-forward parts within these modules."""
    inside = [part for module in modules for part in module.modules()]
    return [part.norm for part in inside if isinstance(part, dae_former.MixFFN)]


# %%
with torch.device("meta"):
    stage = [torch.nn.Linear(512, 512), dae_former.SkipCrossAttention(512)]
    stage += [torch.nn.Linear(1024, 512)]
    stage += [dae_former.DualBlock(512), dae_former.DualBlock(512)]

# %%
# with 3 norms in each feed-forward part
in_stage = count(stage) + 2 * count(norms(stage))
elsewhere = 2 * count(norms([whole]))
print(f"lowest decoder stage {in_stage:,} + norms elsewhere {elsewhere:,}")
both = in_stage + elsewhere
print(f"= {both:,}, all of the difference: {both == unused}")

# %% [markdown]
# The two counts explain the whole difference. The unused norms inside the lowest stage are part of the first count, so the second count leaves them out.
#
# Unused parameters do not change a result, but they need memory in the file and on the GPU. A table that compares the sizes of networks should not count them.
# A backward pass finds them: the `.grad` of an unused parameter is still `None` after it.
#
# `medsaga train dae_former --data FOLDER --shots 32` trains the network of this library with its authors' optimizer, batch size and loss. The recorded runs below do not include it, because the authors' 400 epochs take too long on two cores.
#
# ## What a prompt tells a network: classes, points, boxes
#
# Some of the methods below get a prompt, a point or a box. In training and in test, the prompts come from the ground truth. A prompt thus tells the network where the object is, and a box also tells how large it is.
#
# The next cells measure how much a prompt tells, with LiteMedSAM without training, on 5 test images of each data set. The prompt is a random pixel of each object, or its exact box. The third row uses no network: it is the ellipse inscribed in the box.
#
# > **Predict.** Order the 3 rows by their Dice.

# %%
import numpy as np

from medsaga_lib.data.cases import read_case_mask
from medsaga_lib.data.prompts import box_of, fill_box
from medsaga_lib.recipes.build import build_model


# %%
def ellipses(data, case):
    """The label map with the ellipse in the exact box of each object."""
    truth = read_case_mask(data, case).values
    drawn = np.zeros_like(truth)
    for value in np.unique(truth[truth > 0]):
        drawn[fill_box(box_of(truth == value), truth.shape, True)] = value
    return drawn


# %%
def prompted(data, head, answer):
    """LiteMedSAM without training: a function from a case to a label map."""
    values = [f"head={head}", f"answer={answer}"]
    recipe = changed(get_recipe("sam_zero_shot"), values)
    model = build_model(recipe, "lite_medsam", size, len(data.labels)).eval()
    return partial(predictor(model, data, "lite_medsam").case, data)


# %% caption="Mean Dice by what a prompt tells, without training. Likely seen by LiteMedSAM: polyps and lungs."
rows = {}
for data in (chest, polyps):
    ways = {"point": prompted(data, "points", "best")}
    ways["box"] = prompted(data, "boxes", "single")
    ways["ellipse in the box"] = partial(ellipses, data)
    for name, way in ways.items():
        evaluation = evaluate_cases(way, data, data.split("test")[:5])
        score = evaluation.summary()["dice"]
        rows.setdefault(name, {})[data.name] = round(score, 3)
pd.DataFrame(rows).T

# %% [markdown] tags=["real"]
# From boxes, the network has the higher Dice on polyps, and about the ellipse's on X-rays. From points, the network finds almost nothing. The likely reason is its training: MedSAM, from which LiteMedSAM was distilled, was trained only with boxes ([Ma et al. 2024](https://doi.org/10.1038/s41467-024-44824-z)).
# LiteMedSAM has probably seen images of both sources.

# %% [markdown]
# Two rules follow. Do not rank a method that gets prompts from the ground truth against one that gets only the image. Put the score of the ellipse beside every score from boxes.
#
# ## Recorded runs on LiteMedSAM
#
# These runs adapt LiteMedSAM with the methods of this book, on 3 tasks: polyps from 16 colonoscopy frames and lungs from 4 X-rays at 128 px, and the hippocampus from 16 slices at 64 px. The 64 px are our choice, because 60 test volumes are scored: even at 64 px, that takes about as long as the training of a method that starts from LiteMedSAM ([below](#time-and-memory-of-a-training-run)). Each method gets 150 steps of 4 images, with each of 3 seeds. A seed decides the *shots*, which are the labelled images, and all random numbers. Two networks start from random weights and see as many images: the U-Net and SegResNet ([Myronenko 2018](https://arxiv.org/abs/1810.11654)), which has residual blocks.
#
# The methods that adapt the image encoder do so in its last stage ([chapter 10](10_few_labels.ipynb)). *Late stages* trains all weights of this stage, and the *frozen encoder* none. For lungs and hippocampus, all methods but SVF have the position lift; for polyps, only late stages has it. S-SAM, SVF and AdaptiveSAM are prompted with the names of the labels, as MiniLM's vectors ([chapter 6](06_svd_affine.ipynb)).
#
# Each method has the learning rate that validation chooses for it on this task, with seed 0 ([below](#learning-rates)). For late stages it is the decoder's rate, and the last stage keeps 0.0001; for MedSAGa it is the last stage's, and the decoder keeps 0.001.

# %%
import json
from pathlib import Path

from medsaga_lib.evaluation.scores import over_seeds


def parts_of(names):
    """Recorded files with runs; their commands are printed."""
    files = [Path(f"recorded/{name}.json") for name in names]
    parts = [json.loads(file.read_text()) for file in files]
    for part in parts:
        made = part["provenance"]
        print(made["command"], "|", made["date"], "|", made["device"])
    return parts


tasks = ("polyps", "lungs", "hippocampus")
late = parts_of(f"late_{task}_methods" for task in tasks)
late_runs = [run for part in late for run in part["runs"]]

# %% [markdown]
# The next functions make the tables. A method is *told* a location if its head takes points or boxes. If a method was recorded with several values on a task, its row names the value, for example *late stages, lr=0.003*.

# %%
ORGANS = {"cxr_hannover_lungs": "lungs", "polyp_kvasir": "polyps",
          "hippocampus_msd": "hippocampus"}  # fmt: skip


# %%
def methods_of(recipes):
    """The names of methods, with the values that differ between their runs."""
    split = recipes.str.split(":")
    by_recipe = split.groupby(split.str[0])
    shared = by_recipe.agg(lambda of: set.intersection(*map(set, of)))
    names = []
    for name, *values in split:
        differ = [value for value in values if value not in shared[name]]
        names.append(", ".join([get_recipe(name).method, *differ]))
    return names


def rows_of(runs):
    """The runs with their task and method, and whether the method is told."""
    runs = pd.DataFrame(runs)
    shots = runs["shots"].astype(str)
    runs["task"] = runs["data"].map(ORGANS) + " from " + shots
    runs["method"] = runs.groupby("task")["recipe"].transform(methods_of)
    split = runs["recipe"].str.split(":")
    heads = split.map(lambda of: changed(get_recipe(of[0]), of[1:]).head)
    return runs.assign(told=heads.isin(["points", "boxes", "grid"]))


# %%
def table_of(runs, told=False):
    """Mean Dice ± half of its interval, and costs, of methods told or not."""
    rows = rows_of(runs).query("told == @told")
    dice = rows.groupby(["method", "task"])["dice"]
    means = dice.mean().groupby("method").mean()
    order = means.sort_values(ascending=False).index
    plus_minus = "{:.3f}\u00a0±\u00a0{:.3f}".format
    text = dice.agg(lambda seeds: plus_minus(*over_seeds(seeds)))
    table = text.unstack().loc[order, rows["task"].unique()]
    costs = rows.groupby("method")
    table["minutes"] = (costs["cpu_seconds"].mean() / 60).round(1)
    table["MiB"] = (costs["peak_bytes"].max() / 2**20).round().astype(int)
    table["parameters"] = costs["trainable"].max().map("{:,.0f}".format)
    return table


# %% [markdown]
# `minutes` is the mean processor time of a training run on one core, `MiB` the largest memory of its process including Python and its libraries, and `parameters` the number of trained parameters, for the task with most classes.
#
# > **Predict.** On which task is LiteMedSAM's pretraining worth most? Which of the adapted methods are told apart?

# %% caption="Mean test Dice over the seeds by task, with halves of 95 % intervals over seeds, and costs. Likely seen by LiteMedSAM: polyps and lungs; not known: hippocampus."
table_of(late_runs)

# %% [markdown]
# The rows are ordered by the mean over the tasks. The number after ± is half of the 95 % interval over seeds (Student's t). LiteMedSAM has probably seen images of the polyps' and the lungs' sources in its training; about the hippocampus nothing is known.
# The intervals of two methods may overlap although one is ahead on most cases and with each seed. The next table therefore compares case by case and seed by seed: the mean difference to the U-Net, with an interval that has both patients and seeds as sources of chance ([chapter 12](12_open_questions.ipynb) derives it). The polyps' set names no patients, so each frame counts as one.

# %%
from medsaga_lib.evaluation.compare import compare


def scores_of(rows):
    """The Dice of each case of these runs, as `compare` takes them."""
    found = []
    for run in rows.itertuples():
        columns = ["case", "patient", "score"]
        cases = pd.DataFrame(run.case_dice, columns=columns)
        found.append(cases.assign(method=run.method, seed=run.seed))
    return pd.concat(found)


# %%
def ahead_of(runs, baseline):
    """Mean differences to a baseline, with intervals over both."""
    found = {}
    for task, rows in rows_of(runs).groupby("task", sort=False):
        for one in compare(scores_of(rows), baseline):
            low, high = one.over_both
            text = f"{one.mean:+.3f} ({low:+.2f} to {high:+.2f})"
            found.setdefault(one.method, {})[task] = text
    return pd.DataFrame(found).T


# %% caption="Mean difference in Dice to the U-Net on the same test cases and with the same 3 seeds, with 95 % intervals over patients and seeds. Likely seen by LiteMedSAM: polyps and lungs; not known: hippocampus."
order = table_of(late_runs).index
ahead_of(late_runs, "U-Net").loc[order.drop("U-Net")]


# %% [markdown]
# Dice does not see everything. The next table has the 95 % Hausdorff distance and the normalised surface Dice of the same runs ([chapter 1](01_images_and_metrics.ipynb)). HD95 is in mm on the hippocampus and in pixels on the other two; the tolerance of NSD is 2 mm, or 2 pixels.

# %%
def distances_of(runs):
    """Means over the seeds of HD95 and NSD, in the order of the Dice."""
    rows = rows_of(runs).rename(columns={"hd95": "HD95", "nsd": "NSD"})
    means = rows.pivot_table(
        index="method", columns="task", values=["HD95", "NSD"], sort=False
    )
    means = means.rename_axis(columns=[None, None]).loc[table_of(runs).index]
    return display.table(means, HD95=1)


# %% caption="HD95 and NSD of the same runs: means over the seeds. Likely seen by LiteMedSAM: polyps and lungs; not known: hippocampus."
distances_of(late_runs)

# %% [markdown]
# The three tasks give three answers:
#
# - **Polyps** may be anywhere in the frame. Every method that starts from LiteMedSAM is ahead of the U-Net: SVF by 0.28, with an interval that begins at 0.00, and the others by 0.36 to 0.43, with intervals that exclude 0. SegResNet is level with the U-Net. Late stages, MedSAGa, SAMed, S-SAM and AdaptiveSAM are within 0.02 of each other, and their means have larger intervals than that. SVF's seeds differ most.
# - **Lungs** have a fixed place, and with 3 seeds no method is told apart from the U-Net: all intervals contain 0. The methods that start from LiteMedSAM are ahead by 0.04 to 0.05, except SVF; [chapter 10](10_few_labels.ipynb) has 5 seeds of late stages and SAMed.
# - **The hippocampus** is small, and its two parts differ by their place. MedSAGa has the highest mean, the lowest HD95 and the highest NSD. It is ahead of the U-Net by 0.056, with an interval that just contains 0; late stages are ahead by 0.032. No method is told apart from the U-Net with 3 seeds. S-SAM has the lowest mean, and its seeds differ most.
#
# HD95 and NSD order the methods in another way than Dice. On polyps and lungs, both networks from scratch have the lowest NSD: their borders are further off than their Dice tells. A few stray pixels make HD95 large, so 3 seeds do not rank the methods by it.
#
# ### More labels
#
# The same methods were recorded with 64 frames and with 32 X-rays. The rates were set before all those [below](#learning-rates) had been tried, so some are other ones than above; the commands have them. A run still has 150 steps of 4 images, so a method sees 600 augmented images, as before, but fewer of each frame.

# %%
more = parts_of(f"late_{task}_more_labels" for task in tasks[:2])
more_runs = [run for part in more for run in part["runs"]]

# %% caption="Mean test Dice over 3 seeds with more labels, with halves of 95 % intervals over seeds, and costs. Likely seen by LiteMedSAM: polyps and lungs."
table_of(more_runs)

# %% caption="Mean difference in Dice to the U-Net with more labels, over 3 seeds, with 95 % intervals over patients and seeds. Likely seen by LiteMedSAM: polyps and lungs."
ahead_of(more_runs, "U-Net").loc[table_of(more_runs).index.drop("U-Net")]

# %% caption="HD95 and NSD with more labels: means over the seeds. Likely seen by LiteMedSAM: polyps and lungs."
distances_of(more_runs)

# %% [markdown]
# - **Polyps.** The first three methods gain 0.03 to 0.04 from 4 times as many frames, and the U-Net 0.08. The lead over the U-Net is 0.35 to 0.39 for the first four, and every method that starts from LiteMedSAM is ahead with an interval that excludes 0. Both networks from scratch stay below 0.5. S-SAM, SVF and the frozen encoder, which train the fewest parameters of those that start from LiteMedSAM, gain nothing: their Dice is 0.005 to 0.013 lower than from 16 frames, and the intervals over seeds are larger than that.
# - **Lungs.** With 8 times as many X-rays, every method gains 0.02 to 0.06, and the seeds of nearly all differ less. Late stages and MedSAGa are ahead of the U-Net by 0.02, with intervals that begin at 0.00; no other method is told apart from it. SegResNet is third, takes a minute, and has the lowest HD95, but its NSD is behind that of all methods that start from LiteMedSAM.
#
# ### Names as letters or as meaning
#
# S-SAM was recorded once more on the polyps, with vectors of the name's letters instead of MiniLM's vectors of its meaning, with the rate that validation chooses for MiniLM:

# %%
texts = json.loads(Path("recorded/late_spelling.json").read_text())
print(texts["provenance"]["command"], "|", texts["provenance"]["date"])
letters = rows_of(texts["runs"])
meaning = rows_of(late[0]["runs"]).query("method == 'S-SAM'")
both = pd.concat([letters.assign(method="letters"), meaning])
for method, dice in both.groupby("method")["dice"]:
    print("{}: {:.3f} ± {:.3f}".format(method, *over_seeds(dice)))
(apart,) = compare(scores_of(both), "S-SAM")
low, high = apart.over_both
print(f"letters - MiniLM: {apart.mean:+.3f} ({low:+.2f} to {high:+.2f})")


# %% [markdown]
# Over 3 seeds, letters and meaning are level: the interval of the difference contains 0. A single label has nothing to tell apart, so the meaning of its name cannot help here.
#
# ### Learning rates
#
# A method with a poor learning rate looks like a poor method. On each task, each method that gets no prompt was recorded with 3 to 6 rates, with seed 0. Validation Dice chooses between them. If the best rate was the highest or the lowest one, we added the next, until the best lay between two others.
#
# > **Predict.** On the hippocampus, the U-Net has a Dice of 0.66 with its usual rate, 0.001. What does a rate of its own change?

# %%
def rate_of(recipe):
    """The rate that differs between the runs: MedSAGa's is the encoder's."""
    name, *values = recipe.split(":")
    recipe = changed(get_recipe(name), values)
    return recipe.image_encoder.lr if name == "medsaga" else recipe.lr


names = "late_rates", "late_rates_others", "late_rates_lungs"
tried = parts_of([*names, "late_rates_hippocampus"])
rates = rows_of([run for part in tried for run in part["runs"]])
rates["method"] = rates["recipe"].map(lambda of: methods_of(pd.Series([of]))[0])
rates["rate"] = rates["recipe"].map(rate_of)
scores = {"val_dice": "validation", "dice": "test"}
rates = rates.rename(columns=scores)

# %% caption="Validation and test Dice of each method by learning rate, seed 0. Likely seen by LiteMedSAM: polyps and lungs; not known: hippocampus."
by_rate = rates.pivot(
    index=["method", "rate"], columns="task", values=[*scores.values()]
)
by_rate = by_rate.rename("{:g}".format, level="rate")
display.table(by_rate.rename_axis(columns=[None, None]))

# %% caption="Test Dice with the rate that validation chooses. Likely seen by LiteMedSAM: polyps and lungs; not known: hippocampus."
best = rates.groupby(["task", "method"])["validation"].idxmax()
best = rates.loc[best]
best["rate"] = best["rate"].map("{:g}".format)
best = best.pivot(index="method", columns="task", values=["rate", "test"])
display.table(best.rename_axis(columns=[None, None]))

# %% [markdown]
# - **Polyps.** For the U-Net the rate hardly matters: its test Dice is 0.38 to 0.41, and SegResNet's 0.26 to 0.39. Both stay far behind most methods that start from LiteMedSAM, with each rate. S-SAM and SVF depend most on theirs. Validation has 16 frames, and does not always choose well: the frozen encoder gets 0.003, with a test Dice that is 0.05 lower than with 0.001.
# - **Lungs.** From 0.0003 to 0.003, the rate changes the test Dice of SAMed, MedSAGa, late stages and the frozen encoder by 0.015 at most. The U-Net gets 0.0003, and 0.001 would have been better by 0.015 on the test X-rays.
# - **Hippocampus.** The rate of another task may fail: with the 0.003 of polyps and lungs, S-SAM has hardly learned after 150 steps, and with 0.03 it predicts nothing but background. The U-Net gains 0.06 by a rate of its own. With 0.001 for both, late stages are ahead of it by 0.06, and with the chosen rates by 0.01. Tune the baseline as carefully as your own method, or you measure your own care. Over 5 seeds, the lead shrinks in the same way ([chapter 10](10_few_labels.ipynb)).
#
# Late stages have a second rate, 0.0001 for the image encoder. It was recorded with 2 others on polyps and lungs:

# %% caption="Late stages by the rate of the image encoder, seed 0: validation and test Dice. Likely seen by LiteMedSAM: polyps and lungs."
dense = json.loads(Path("recorded/late_rates_dense.json").read_text())
print(dense["provenance"]["command"], "|", dense["provenance"]["date"])
dense = rows_of(dense["runs"])
rate = dense["recipe"].str.extract(r"lr=(.+)", expand=False)
dense["rate"] = rate.fillna("1e-4").astype(float)
dense = dense.pivot(index="rate", columns="task", values=["val_dice", "dice"])
names = {"val_dice": "validation", "dice": "test"}
display.table(dense.rename(columns=names))

# %% [markdown]
# Validation prefers 0.00003 on both tasks. So this rate was recorded with 2 more seeds:

# %% caption="Late stages with 0.00003 for the image encoder - with 0.0001: mean difference in Dice over 3 seeds, with 95 % intervals over seeds. Likely seen by LiteMedSAM: polyps and lungs."
low = json.loads(Path("recorded/late_rates_dense_seeds.json").read_text())
print(low["provenance"]["command"], "|", low["provenance"]["date"])
low = pd.DataFrame(low["runs"])
low["task"] = low["data"].map(ORGANS)
found = {}
for score, name in {"val_dice": "validation", "dice": "test"}.items():
    by_rate = low.pivot(
        index=["task", "seed"], columns="recipe", values=score
    )
    gain = by_rate["late_stages:image_encoder.lr=3e-5"] - by_rate["late_stages"]
    pairs = gain.groupby("task").apply(over_seeds)
    found[name] = pairs.map(lambda pair: f"{pair[0]:+.3f} ± {pair[1]:.3f}")
pd.DataFrame(found)

# %% [markdown]
# With 3 seeds, all intervals contain 0: the two rates are level, and the recipe keeps 0.0001. Validation on 16 frames is a weak guide here: on polyps its Dice is higher with 0.00003, and the mean test Dice is lower.
#
# ### Warm-up and clipping
#
# Two more values of the schedule were recorded on the polyps, with seed 0; S-SAM has its better rate, 0.003. Without a *warm-up*, the first step has the full rate; in all other runs, the rate rises during the first 15 of the 150 steps. With *clipping* (`clip_norm`), the gradients of a step are scaled down if their norm, over all trained tensors together, is above 1 or above 0.1.
#
# > **Predict.** AdamW divides each gradient by a running mean of its size. What is then left for clipping to change?

# %%
schedule = json.loads(Path("recorded/late_schedule.json").read_text())
print(schedule["provenance"]["command"])
print(schedule["provenance"]["date"])
COLUMNS = {"warmup=0": "no warm-up", "clip_norm=1": "clipped at 1",
           "clip_norm=0.1": "clipped at 0.1"}  # fmt: skip


def by_schedule(runs, score):
    """A score of the runs: a row for a method, a column for a schedule."""
    found = {}
    for run in runs:
        name, *values = run["recipe"].split(":")
        named = [COLUMNS[value] for value in values if value in COLUMNS]
        row = found.setdefault(get_recipe(name).method, {})
        row[named[0] if named else "usual"] = run[score]
    return pd.DataFrame(found).T


fast = [r for r in schedule["runs"] if "lr=0.005" in r["recipe"]]
usual_rates = [run for run in schedule["runs"] if run not in fast]

# %% caption="Test Dice by schedule, with validation Dice in brackets. Likely seen by LiteMedSAM: polyps."
on_test = by_schedule(usual_rates, "dice")
on_validation = by_schedule(usual_rates, "val_dice")
for table in (on_test, on_validation):
    table.loc["mean"] = table.mean()
brackets = on_validation.map(" ({:.3f})".format)
on_test.map("{:.3f}".format) + brackets

# %% [markdown]
# A factor that the gradients of all steps share cancels in AdamW's step. Clipping therefore only changes how much the steps with large gradients count. With a limit of 0.1, the mean test Dice is 0.005 higher and the mean validation Dice is lower. With a limit of 1, AdaptiveSAM gains 0.05 and SVF loses 0.2; with 0.1, both are near their usual Dice.
# Without a warm-up, the test Dice is lower for 5 of the 7 methods, and the mean falls by 0.03. Validation would choose this for SAMed, SVF and the frozen encoder, whose test Dice is then lower by 0.04 to 0.07. So one seed and 16 validation frames give no reason to change the schedule of the tables above.
#
# Does clipping make a rate usable that is too high without it? Two were tried: that of SAMed's paper, 0.005, on polyps, and S-SAM's 0.03 on the hippocampus.

# %% caption="High rates with and without clipping: validation and test Dice. Likely seen by LiteMedSAM: polyps; not known: hippocampus."
clipped = json.loads(Path("recorded/late_clip_hippocampus.json").read_text())
print(clipped["provenance"]["command"], "|", clipped["provenance"]["date"])
fast = rows_of(fast + clipped["runs"]).set_index(["task", "method"])
display.table(fast[["val_dice", "dice"]])

# %% [markdown]
# It does not: SAMed stays behind its rate 0.001, and S-SAM still predicts nothing but background.
#
# ### Time and memory of a training run
#
# The table of the runs has the costs of training. The evaluation on the test images costs more where they are many: the 60 test volumes of the hippocampus have many slices, and all of them are encoded.

# %% caption="Evaluation of the 60 test volumes of the hippocampus: least and largest processor time of the recorded runs, relative to that of the training."
volumes = rows_of(late[2]["runs"])
volumes["times"] = volumes["evaluation_cpu_seconds"] / volumes["cpu_seconds"]
volumes = volumes.groupby("method")["times"].agg(["count", "min", "max"])
display.table(volumes, digits=1)

# %% [markdown]
# For the methods that train the last stage, the evaluation takes 0.9 to 1.4 times as long as the training, and for a frozen encoder 1.3 to 2.3 times. So a comparison of training times alone leaves out about half of the time there.

# %% [markdown]
# ### LiteMedSAM from boxes and points
#
# Three more methods were recorded on the polyps. They get prompts from the ground truth, in training and in test, so their rows cannot be compared with those above. The row *no training* is LiteMedSAM with its published weights and the exact box of each polyp. *LiteMedSAM + LoRA* is the method of [chapter 8](08_lite_medsam.ipynb), and *Cheap Lunch* gets one random point of each polyp ([chapter 7](07_exemplar_synthesis.ipynb)). Both train the last stage and see 16 frames.

# %%
prompts = json.loads(Path("recorded/late_prompted.json").read_text())
print(prompts["provenance"]["command"], "|", prompts["provenance"]["date"])
prompts = table_of(prompts["runs"], told=True).astype(object)

# %% tags=["real"]
# needs real images
drawn = evaluate_cases(partial(ellipses, polyps), polyps, polyps.split("test"))
score = f"{drawn.summary()['dice']:.3f}"
prompts.loc["ellipse in the box", "polyps from 16"] = score

# %% caption="Mean test Dice over 3 seeds of methods that get a prompt, with halves of 95 % intervals over seeds, and costs. Likely seen by LiteMedSAM: polyps."
prompts.fillna("")

# %% [markdown]
# Without training, the network's Dice from exact boxes is 0.90, and no seed changes it. After 150 steps of LoRA on 16 frames the mean is 0.89, and its interval contains 0.90: nothing here says that the training helped. From one point, Cheap Lunch reaches 0.85. LiteMedSAM has probably seen these frames and their masks.

# %% [markdown]
# ### 50 X-rays and 8 GB
#
# The first page asks what to train with 50 labelled chest X-rays and a GPU with 8 GB. The next cell predicts the memory of a step of 4 images in GiB: on LiteMedSAM at 128 px, where the methods adapt the last stage, and on SAM's ViT-B at 512 px, where they adapt the whole image encoder.

# %%
from medsaga_lib.memory.plan import Plan, predict_ledger

late_stage = ["image_encoder.from_stage=3", "image_encoder.copies=12"]
on_lite = Plan("lite_medsam", 4, 128, classes=2), late_stage
on_vit_b = Plan("vit_b", 4, 512, classes=2), []
plans = {"LiteMedSAM, last stage, 128 px": on_lite}
plans["ViT-B, whole encoder, 512 px"] = on_vit_b

# %% caption="Predicted memory of a training step of 4 images in GiB."
rows = {}
for name in ("samed", "medsaga", "full"):
    for title, (plan, values) in plans.items():
        recipe = get_recipe(name)
        step = predict_ledger(changed(recipe, values), plan)
        row = rows.setdefault(recipe.method, {})
        row[title] = round(step.sum / 2**30, 2)
pd.DataFrame(rows).T

# %% [markdown]
# By this prediction, all 6 fit in 8 GiB; the driver and the libraries need some more ([Will it fit my GPU?](../book/fit.md)). The memory does not decide. The recorded runs have 4 or 32 X-rays, not 50. With 32, late stages and MedSAGa on LiteMedSAM lead the U-Net by 0.02, and the intervals begin at 0.00 ([above](#more-labels)). For lungs, train the U-Net first, because it takes the least time; the methods that start from LiteMedSAM with a lift may add 0.02 to 0.03. If the object has no fixed place, or is small, adapt the last stage of LiteMedSAM. [Chapter 10](10_few_labels.ipynb) ends with a table of which method to use when.

# %% [markdown]
# ## Recorded runs on the pocket SAM
#
# These runs compare almost all methods of this book on the same images: lungs from 8 and from 32 labelled X-rays, and polyps from 64 frames, each with 3 seeds, 200 steps and 128 px. A seed decides the *shots*, which are the labelled images, and all random numbers.
# The adapted network is the *pocket SAM*, this project's small network with SAM's parts, which was pretrained on drawn images. It has a plain ViT encoder that is cheap enough to train in full. Its results do not tell what a real SAM would reach.
#
# U-Net and SegResNet start from random weights. The baseline is the *frozen encoder*: the embeddings of 8 augmented copies of each image are computed once, and the decoder is trained. *Decoder only* trains the same weights, with each image augmented anew in every step. SAMed_s, MedSAGa_v1 and MedSAGa_v2 are variants, and SAM adapter adds bottlenecks to each block ([chapter 5](05_adapting_sam.ipynb)).

# %%
recorded = json.loads(Path("recorded/methods.json").read_text())
origin = recorded["provenance"]
print(origin["command"])
print(origin["date"], "|", origin["device"], "|", origin["data"])

# %% [markdown]
# ### Methods that get only the image
#
# S-SAM, SVF and AdaptiveSAM also get the names of the labels, which are the same for every image.
#
# > **Predict.** On which of the 3 tasks do the methods differ most? Where are the two networks from scratch?

# %% caption="Mean test Dice over 3 seeds, pocket SAM and networks from scratch, with halves of 95 % intervals."
table_of(recorded["runs"])

# %% [markdown]
# The rows are ordered by the mean over the tasks. The number after ± is half of the 95 % interval over seeds (Student's t). Many neighbouring rows differ by less than this.
# The next figure shows 6 of the methods on lungs, with the seeds that you choose, on the site and in a notebook with a kernel. Is the order of the methods at 8 labels the same for each seed?

# %%
chosen = ["MedSAGa", "SAMed", "S-SAM", "full fine-tuning"]
chosen += ["frozen encoder", "U-Net"]
rows = rows_of(recorded["runs"])
rows = rows.query("data == 'cxr_hannover_lungs' and method in @chosen")
rows = rows[["method", "shots", "seed", "dice"]].round(4).to_dict("records")
caption = (
    "Mean Dice on lungs by number of labelled X-rays, for the seeds that you "
    "choose, in recorded runs on the pocket SAM. A seed decides the shots and "
    "all random numbers."
)
display.interactive("seeds", {"rows": rows, "least": 0.85}, caption)


# %% [markdown]
# A paired comparison is less noisy: it subtracts the Dice of the frozen encoder with the same task and the same seed. In the figure, a dot is the difference of one seed, and a line is the mean of 3 seeds. The figure leaves out MedSAGa_v2, whose differences on lungs are far below 0: it trains no part of the decoder, and its class tokens stay random ([chapter 5](05_adapting_sam.ipynb)).

# %%
def differences(runs, baseline="frozen encoder"):
    """Dice minus the baseline's, by task and seed, of methods not told."""
    rows = rows_of(runs).query("not told")
    dice = rows.pivot(index=["task", "seed"], columns="method", values="dice")
    return dice.sub(dice.pop(baseline), axis=0).loc[rows["task"].unique()]


# %%
apart = differences(recorded["runs"])
apart = apart[apart.mean().sort_values(ascending=False).index]

# %%
baseline = "frozen encoder"
shown = apart.drop(columns="MedSAGa_v2").assign(**{baseline: 0.0})
groups = shown.groupby("task", sort=False)
tasks = {task: rows.to_dict("list") for task, rows in groups}
alt = (
    "Differences of Dice to the frozen encoder in three panels, a row for each "
    "method, three dots and their mean in each row, and a dashed line at 0. On "
    "lungs from 8 almost all dots are between 0 and 0.06. On lungs from 32 "
    "most are between 0 and 0.03; the mean of SVF is below 0. On "
    "polyps all methods but decoder only are about 0.1 to 0.3 ahead."
)
caption = (
    "Dice minus that of the frozen encoder with the same task and seed, pocket "
    "SAM: a dot for each of 3 seeds, a short line for their mean. The scale "
    "differs from panel to panel."
)
figure = display.dots_of_seeds(tasks, "difference of Dice", alt, baseline)
display.show(figure, alt=alt, caption=caption)


# %%
def with_interval(seeds):
    """Mean over seeds ± half of its 95 % interval; a star if 0 is outside."""
    mean, half = over_seeds(seeds)  # Student's t
    return f"{mean:+.3f} ± {half:.3f}" + (" *" if abs(mean) > half else "")


# %% caption="Mean difference in Dice to the frozen encoder over 3 seeds, with halves of 95 % intervals. A star marks intervals that exclude 0."
table = apart.groupby("task", sort=False).agg(with_interval).T
stars = table.map(lambda text: "*" in text).sum().sum()
print(f"{stars} of {table.size} intervals exclude 0")
table

# %% [markdown]
# Without MedSAGa_v2, the methods differ most on polyps. There, both networks from scratch and every method that trains the pocket SAM's encoder, except MedSAGa_v2, are ahead of the frozen encoder, with intervals that exclude 0. On lungs from 32, most intervals exclude 0 as well, but no mean difference is above 0.03. On lungs from 8, all but one contain 0. The networks from scratch are level with the best methods on lungs. On polyps, most methods that train the pocket SAM's encoder have higher means than both.
#
# ### Limits of the intervals
#
# The intervals of the last table have 4 limits:
#
# - If no method differed from the frozen encoder, about 2 of 39 intervals would exclude 0 by chance.
# - All rows of a task subtract the same 3 runs. If the frozen encoder has a low Dice by chance, all differences of the task are too high.
# - The intervals cover shots and random numbers, not patients.
# - Each method has one learning rate for all tasks. A low row may mean a bad learning rate.
#
# ### Methods that get points or boxes from the ground truth
#
# Two methods of the next table are trained: Cheap Lunch gets points ([chapter 7](07_exemplar_synthesis.ipynb)), and *LiteMedSAM + LoRA* is the method of [chapter 8](08_lite_medsam.ipynb). The row *no training* is the pocket SAM with points.

# %%
told = table_of(recorded["runs"], told=True).astype(object)

# %% [markdown] tags=["real"]
# The ellipse in the box is computed here, on all test images of the same tasks.

# %% tags=["real"]
# needs real images
for data in (chest, polyps):
    predict = partial(ellipses, data)
    summary = evaluate_cases(predict, data, data.split("test")).summary()
    for task in told.filter(like=ORGANS[data.name]):
        told.loc["ellipse in the box", task] = f"{summary['dice']:.3f}"
told = told.fillna("")

# %% caption="Mean test Dice over 3 seeds of methods that get a prompt, with halves of 95 % intervals."
told

# %% [markdown] tags=["real"]
# From boxes, the trained network has a higher Dice than the ellipse on lungs. On polyps, its mean is below that of the ellipse, which needs no training. The two rows from points cannot be compared with the ellipse, because a point does not tell the size. The untrained network does not depend on the seed, so its interval has the width 0.

# %% [markdown]
# ## Questions

# %% [markdown] tags=["question"]
# **Question 1.** Linear attention never makes the $N \times N$ map. Which price does it pay?
#
# - **A.** The rows of the map that it implies are not weights any more.
# - **B.** The map that it implies has at most rank $d$, so a token cannot attend sharply to itself alone.
# - **C.** It needs more multiplications than ordinary attention for large images.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: they are positive and have the sum 1. The cell shows it.
# - **B.** Yes: it is the product of an $N \times d$ and a $d \times N$ matrix. The weights on the diagonal have at most the sum $d$.
# - **C.** No: it needs fewer wherever there are more tokens than channels.
# </details>

# %% [markdown] tags=["question"]
# **Question 2.** The published network has 48 million parameters, and 18 million of them are never used. How can you find such parameters in any network?
#
# - **A.** Do a backward pass, and look for parameters whose gradient is None.
# - **B.** Look for weights that are 0 after the training.
# - **C.** Compare the output with that of a network without them.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** Yes: what the forward pass does not call gets no gradient at all, not even 0.
# - **B.** No: unused weights keep their random start values.
# - **C.** No: the outputs are equal, but you must know the unused parameters before you can remove them.
# </details>

# %% [markdown] tags=["question"]
# **Question 3.** In a table, a method that gets exact boxes of the test objects has a higher Dice than a method that gets only the images. Which statement is right?
#
# - **A.** Adapting with boxes is better than adapting with class tokens.
# - **B.** The two could be compared if both had the same number of training images.
# - **C.** The box contains a large part of the answer, so the row belongs beside the ellipse in the box.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: one method was told where each object is and how large it is, and the other had to find it.
# - **B.** No: the boxes come from the ground truth of the test images. This information stays, however the training was done.
# - **C.** Yes: a method with prompts is compared with methods that get the same prompts, and with a baseline that uses the prompt alone.
# </details>

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: calculate (medium, 10 minutes)
# The three stages of DAE-Former have maps with a quarter, an eighth and a sixteenth of the image's side, and 128, 320 and 512 channels. From which size of the image on, in px and as a multiple of 32, does efficient attention need at most as many multiplications as ordinary attention in *all* stages?

# %% tags=["exercise"]
smallest_size = None

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# stages = {4: 128, 8: 320, 16: 512}  # px of a cell -> channels
# smallest_size = next(
#     px
#     for px in range(32, 1025, 32)
#     if all((px // cell) ** 2 >= d for cell, d in stages.items())
# )
# print(smallest_size)
# # 2 N d^2 <= 2 N^2 d means d <= N. The coarsest stage has most channels and
# # fewest tokens, so it decides: (size / 16)^2 >= 512.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
from torch.utils.flop_counter import FlopCounterMode

from medsaga_lib.display.answers import as_number, as_returned


def ratio(px, cell, d):
    """The operations of efficient attention relative to ordinary attention."""
    counted = []
    for function in (linear_attention, attention):
        with FlopCounterMode(display=False) as counter:
            function(*torch.empty(3, (px // cell) ** 2, d, device="meta"))
        counted.append(counter.get_total_flops())
    return counted[0] / counted[1]


px = as_number("smallest_size", smallest_size)
assert px % 32 == 0 and px > 0, f"{smallest_size} is not a multiple of 32 px."
for cell, d in ((4, 128), (8, 320), (16, 512)):
    times = f"{ratio(int(px), cell, d):.2f} times as many"
    assert ratio(int(px), cell, d) <= 1, (
        f"At {px:.0f} px, the stage with {d} channels needs {times}."
    )
smaller = int(px) - 32
enough = smaller > 0 and ratio(smaller, 16, 512) <= 1
assert not enough, f"{smaller} px is already enough."


# %% [markdown]
# ### Exercise 2: find the fault (medium, 10 minutes)
# With several *heads*, the channels are cut into equal groups, each group has an attention of its own, and the outputs are joined again. A colleague wrote `with_heads(q, k, v, heads)` for linear attention on (N, d). With one head it is right. The cell below gives it values that are all 1, so each weighted mean should be 1. Find the fault, and repair `with_heads`.

# %% tags=["exercise"]
def with_heads(q, k, v, heads):
    """Linear attention (N, d) with heads."""
    q, k = q.softmax(1), k.softmax(0)
    groups = zip(*(x.chunk(heads, dim=1) for x in (q, k, v)), strict=True)
    return torch.cat([q_h @ (k_h.T @ v_h) for q_h, k_h, v_h in groups], dim=1)


q, k = torch.randn(2, 30, 16)
for heads in (1, 2, 4):
    means = with_heads(q, k, torch.ones(30, 16), heads)
    print(f"heads: {heads}, from {means.min():.2f} to {means.max():.2f}")

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def with_heads(q, k, v, heads):
#     """Linear attention (N, d) with heads."""
#     groups = zip(*(x.chunk(heads, dim=1) for x in (q, k, v)), strict=True)
#     return torch.cat([linear_attention(*group) for group in groups], dim=1)
#
#
# # The softmax of q runs over channels, so it has to be taken in each head. Taken
# # over all channels, the weights of one head have a sum below 1. The softmax of
# # k runs over tokens and may come first.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
q, k, v = torch.randn(3, 30, 16)
# (2 heads, 30, 8)
split = (x.unflatten(1, (2, 8)).transpose(0, 1) for x in (q, k, v))
expected = dae_former.efficient_attention(*split).transpose(0, 1).flatten(1)
result = as_returned("with_heads(q, k, v, 2)", with_heads(q, k, v, 2), v)
error = (result - expected).abs().max()
assert error < 1e-5, (
    f"With 2 heads, the result is wrong by up to {error:.2f}: over which "
    "channels must the weights of one head have the sum 1?"
)

# %% [markdown]
# ### Exercise 3: experiment (medium, 10 minutes)
# One of the three biases in `EfficientAttention`, that of `queries`, `keys` or `values`, cannot change the output, however long the network is trained. Which one is it, and why? Write down your answer first, and then test it: change each bias, and compare the outputs.

# %% tags=["exercise"]
inert = None

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# # A bias shifts one channel of k by the same number at all tokens. The softmax
# # over the tokens cancels the shift.
# inert = "keys"
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
layer = dae_former.EfficientAttention(16)
moved = {}
for name in ("queries", "keys", "values"):
    other = dae_former.EfficientAttention(16)
    other.load_state_dict(layer.state_dict())
    with torch.no_grad():
        getattr(other, name).bias += torch.randn(16)
        moved[name] = (other(x) - layer(x)).abs().max().item()
assert inert in moved, (
    f"inert is {inert!r}; it must be one of 'queries', 'keys' and 'values'."
)
assert inert == min(moved, key=moved.get), (
    f"The bias of {inert} changes the output by up to {moved[inert]:.2f}. Test "
    "all three."
)


# %% [markdown]
# ### Exercise 4: experiment (hard, 15 minutes)
# On a chest X-ray, the left lung is on the right side of the image, and most of the heart is beside it. Does the U-Net recognise the left lung by the heart, or does it go by the side? Mirror each X-ray: the left lung and the heart are now on the left side of the image.
#
# Write down what you expect of `dice` and `confused`. Then change `mirrored(case)`: it should mirror the image, predict, and mirror the label map back, so that it can be compared with the annotator's mask. Score it on `test[:5]`, and explain the result.

# %% tags=["exercise"]
def mirrored(case):
    picture, _ = read_pair(chest, case)
    return networks["U-Net"](picture)


# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def mirrored(case):
#     picture, _ = read_pair(chest, case)
#     pixels = np.ascontiguousarray(picture.pixels[:, ::-1])
#     flipped = replace(picture, pixels=pixels)
#     return networks["U-Net"](flipped)[:, ::-1]
#
#
# table = evaluate_cases(mirrored, chest, test[:5]).table
# print(table[["dice", "confused"]].mean().round(3).to_string())
# # Most predicted pixels are on the other lung: the U-Net names a lung by its
# # side of the image, not by the heart. It never saw a mirrored X-ray: the
# # training images are augmented without flips.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
given, unet_of = [], networks["U-Net"]
pixels = read_pair(chest, test[0])[0].pixels


def copies(picture):
    """A network that copies its image: bright pixels get label 1."""
    given.append(picture.pixels)
    return (picture.pixels > 0.5).astype(int)


networks["U-Net"] = copies
try:
    answer = mirrored(test[0])
finally:
    networks["U-Net"] = unet_of
assert given and np.array_equal(given[0], pixels[:, ::-1]), (
    "The network does not get the mirrored image: mirror it from left to right."
)
answer = as_returned("mirrored(case)", answer, pixels)
assert np.array_equal(answer, pixels > 0.5), (
    "The label map is not mirrored back after the prediction."
)
confused = evaluate_cases(mirrored, chest, test[:5]).table["confused"].mean()
assert confused > 0.3, f"Only {confused:.1%} of pixels are on the other lung."

# %% [markdown]
# ## Summary
#
# - A small U-Net, trained on 4 X-rays, finds both lungs. Compare every adapted foundation model with a network from scratch that is trained on the same images.
# - In MedSAGa's Table 1, the adapted SAM is ahead with few labels and the network from scratch with many on two of four data sets; on AMOS the order is the reverse.
# - Softmax before the product makes the cost of attention linear in the number of tokens, but its map has a low rank. It needs fewer multiplications if there are more tokens than channels.
# - The output of attention does not depend on the positions of the tokens; in DAE-Former, only convolutions use them.
# - 38 % of the parameters of DAE-Former's published code are never used. Count those that get a gradient.
# - Methods that get prompts from the ground truth belong in a table of their own, with the ellipse in the box.
