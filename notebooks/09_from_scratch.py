# %% [markdown]
# # 9. Networks from scratch
#
# **You will be able to**
# - report how well a network without pretraining segments after training on 4 labelled X-rays, and compare it with an adapted SAM,
# - write attention whose cost is linear in the number of pixels, and say what it cannot represent,
# - write attention between channels, and find out what neither kind of attention can distinguish,
# - count the parameters of a published network that are never used.
#
# **Before this** [Chapter 5](05_adapting_sam.ipynb); queries, keys and values, once seen.
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
        install = [sys.executable, "-m", "pip", "install", "-q", "/content/book[galore,weights]"]
        subprocess.run(install, check=True)
    os.chdir("/content/book/notebooks")

# %% tags=["parameters"]
profile = "quick"  # "colab": larger pictures and a longer training, on a GPU
seed = 0

# %% [markdown]
# ## A U-Net trained on 4 labelled images
#
# Every chapter so far began with a network that had seen pictures before. Here is the other way: random numbers, four labelled
# X-rays, and nothing else. Whoever adapts a foundation model should know how far this gets, because it is what the foundation has to beat.

# %% tags=["data"]
from medsaga_lib.data.catalog import open_or_phantoms

dataset = open_or_phantoms("cxr_hannover_lungs")
print(dataset.describe())

# %% [markdown]
# The network is a U-Net ([Ronneberger et al. 2015](https://arxiv.org/abs/1505.04597)), MONAI's. Going down, convolutions halve the map and widen it;
# going up, they double it again, and at each level the map from the way down is laid beside the one from below.
# So the deep layers see much of the picture coarsely, and the *skips* bring the edges back.

# %%
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import build_model

size = 256 if profile == "colab" else 128
unet = build_model(get_recipe("unet"), "none", size, classes=len(dataset.labels), seed=seed)
print(f"{sum(p.numel() for p in unet.parameters()):,} parameters")

# %%
for level, width in enumerate((16, 32, 64, 128, 256)):
    side = size >> min(level + 1, 4)  # four halvings; the last level stays
    print(f"level {level}: {width:3} channels, {side} x {side} places")

# %% [markdown]
# Four pictures, a hundred steps, the loss of chapter 5. No pretraining, no prompts, no adapters.
#
# > **Predict.** Which Dice does it reach on patients that it has never seen: 0.2, 0.5 or 0.8?

# %%
from dataclasses import replace

from medsaga_lib.training.loop import train
from medsaga_lib.training.run_folder import Settings

steps, batch = (400, 12) if profile == "colab" else (100, 6)
recipe = replace(get_recipe("unet"), steps=steps, batch=batch)
settings = Settings(shots=4, size=size, seed=seed)
result = train(recipe, dataset, settings, progress=False)

# %%
from functools import partial

from medsaga_lib.evaluation.scores import evaluate_cases
from medsaga_lib.inference.predictor import Predictor

predict = Predictor(result.model, dataset.labels, dataset.modality, dataset.window)
test = dataset.split("test")
scores = evaluate_cases(partial(predict.case, dataset), dataset, test)
low, high = scores.interval("dice")
print(f"Dice {scores.summary()['dice']:.3f}, 95 % interval over patients {low:.3f} to {high:.3f}")
print(f"{len(test)} pictures of {len({case.patient for case in test})} patients")

# %%
from medsaga_lib import display
from medsaga_lib.data.cases import read_pair

panels = []
for case in test[:3]:
    picture, truth = read_pair(dataset, case)
    panels.append(display.Panel(picture.pixels, truth, predict(picture), case.name))
display.show(
    display.grid(panels, dataset.labels, alt="Three held-out patients."),
    alt="Three held-out chest X-rays with the U-Net's solid outlines and the annotator's dashed ones: "
    "the lungs are found and told apart; where the two lines part, the border is wrong.",
)
print(dataset.citation, "|", dataset.licence)

# %% [markdown]
# Four labels are enough to find two lungs, perhaps because lungs on a chest X-ray are large, dark and always in the same place. The borders are another matter:
# on the real X-rays they wander, and specks appear where no lung is; drawn ones are kinder.
#
# ## Comparison with an adapted SAM
#
# One training is an anecdote. The recorded runs of [chapter 5](05_adapting_sam.ipynb) have five seeds, each with its own four pictures, and MedSAGa on the pocket SAM beside the U-Net:
# same pictures, same number of steps, and the same test: 19 X-rays of 11 patients.

# %%
import json
from pathlib import Path

import pandas as pd

from medsaga_lib.evaluation.scores import over_seeds  # mean, and half of a 95 % interval (Student's t)

recorded = json.loads(Path("recorded/pretraining_value.json").read_text())
origin = recorded["provenance"]
print(origin["command"])
print(origin["date"], "|", origin["device"])

# %%
runs = pd.DataFrame(recorded["runs"]).query("data == 'cxr_hannover_lungs' and shots == 4")
dice = runs.pivot(index="seed", columns=["recipe", "weights"], values="dice")
dice.columns = [" ".join(pair) for pair in dice.columns]
dice["U-Net ahead of MedSAGa"] = dice["unet random"] - dice["medsaga pretrained"]
for name, values in dice.items():
    mean, half = over_seeds(values)
    print(f"{name:22} {mean:+.3f} +- {half:.3f} over {len(values)} seeds")

# %% [markdown]
# The last line compares seed by seed, which takes out how good the four pictures were. Its interval takes in zero: at four shots, on this task, five seeds do not say who is ahead. This U-Net, which knows nothing, does about as well as a MedSAGa that has seen 298,000 drawn pictures; MedSAGa from random numbers ends three hundredths lower.
#
# What that does not say: that pretraining is useless. The pocket SAM is no SAM, lungs are easy (on polyps it was the U-Net that fell behind), and eleven patients are few. It does say where the burden of proof lies.
# What the authors of MedSAGa found, with the real SAM and DAE-Former as the network from scratch (Table 1, chest X-rays, Dice):

# %%
images = [50, 100, 200, 350, 500, 1800]
published = {
    "MedSAGa": [0.899, 0.913, 0.921, 0.930, 0.934, 0.938],
    "DAE-Former": [0.842, 0.859, 0.882, 0.896, 0.924, 0.949],
}
curves = [display.Curve(name, images, values) for name, values in published.items()]
alt = (
    "Published Dice against the number of labelled chest X-rays. MedSAGa starts higher and rises "
    "slowly; DAE-Former, from random weights, starts lower and crosses it between 500 and 1800."
)
axes = "labelled images", "published mean Dice"
display.show(display.curve_with_interval(curves, *axes, alt, log_x=True), alt=alt)

# %% [markdown]
# There the foundation wins while labels are few, and the network from scratch overtakes it where they are many. There is no U-Net in that table.
# But who is this DAE-Former ([Azad et al. 2022](https://arxiv.org/abs/2212.13504))? A U-Net in shape, with attention in place of most convolutions. MedSAGa's paper says of it that its attention
# "still retains the intrinsic quadratic computational complexity with respect to the number of tokens". Let us build it and look.
#
# ## Attention and its memory cost
#
# A convolution sees its neighbours. In attention every token, here a place in the map, asks a question $q$ of every other token's key $k$ and takes the answers $v$ in proportion:

# %%
import torch

torch.manual_seed(seed)


def attention(q, k, v):
    """(N, d) each; the map in the middle is N x N."""
    return (q @ k.T / q.shape[1] ** 0.5).softmax(1) @ v


# %% [markdown]
# > **Predict.** DAE-Former's first stage has a token for every 4 x 4 pixels. How much memory does one such map take for a picture of 224 pixels, and for 1024?

# %%
for pixels in (224, 512, 1024):
    N = (pixels // 4) ** 2
    print(f"{pixels:4} px: {N:6,} tokens, a map of {4 * N * N / 2**20:9,.0f} MiB")


# %% [markdown]
# Twice the side, sixteen times the memory. (A fused kernel, as in chapter 3, need not keep the map; it still has to do the $N^2 d$ multiplications.)
#
# Efficient attention ([Shen et al. 2018](https://arxiv.org/abs/1812.01243)) rests on one remark: without the softmax between them, $(q\,k^\top)\,v = q\,(k^\top v)$, and the right-hand side never makes an $N \times N$ matrix.
# So give $q$ and $k$ a softmax each, *before* they meet:

# %%
def linear_attention(q, k, v):
    """(N, d) each; the summary in the middle is d x d."""
    summary = k.softmax(0).T @ v  # each channel of k pools the whole picture into one vector
    return q.softmax(1) @ summary  # each token mixes these d vectors


# %% [markdown]
# Is it still attention? Multiply in the other order and look at the map that it never makes.

# %%
q, k, v = torch.randn(3, 144, 16)  # a 12 x 12 map with 16 channels
implied = q.softmax(1) @ k.softmax(0).T  # (144, 144)
print("same result:", torch.allclose(linear_attention(q, k, v), implied @ v, atol=1e-6))
print(f"rows add up to {implied.sum(1).min():.3f} ... {implied.sum(1).max():.3f}, all positive")

# %% [markdown]
# Yes: each row is a set of weights over all tokens. Now the claim. What does autograd keep for the backward pass, counted by chapter 3's ledger?

# %%
from medsaga_lib.memory.ledger import saved_bytes


def kept(function, N, d=128):
    """MiB that one call keeps for its backward pass."""
    qkv = [torch.randn(N, d, requires_grad=True) for _ in range(3)]
    with saved_bytes(torch.nn.ParameterList(qkv)) as saved:
        out = function(*qkv)
        return saved.total() / 2**20 if out is not None else 0


# %%
sides = [14, 28, 56]  # DAE-Former's maps at 224 pixels, the coarsest first
table = {f.__name__: [kept(f, side**2) for side in sides] for f in (attention, linear_attention)}
for name, sizes in table.items():
    growth = ", ".join(f"x {b / a:.1f}" for a, b in zip(sizes, sizes[1:], strict=False))
    print(f"{name:16} {sizes[0]:6.2f} {sizes[1]:6.2f} {sizes[2]:6.2f} MiB: {growth}")

# %% [markdown]
# Four times the tokens: the ordinary kind needs sixteen times the memory, the efficient kind close to four (a part of what it keeps, the summary, does not grow at all, and on the coarsest map makes it the larger).
# And the network as a whole, with everything around its attention?

# %%
from medsaga_lib.memory.plan import Plan, predict_ledger

for pixels in (224, 448):
    entry = predict_ledger(get_recipe("dae_former"), Plan("none", 1, pixels, classes=8))
    print(f"{pixels} px: {entry.activations / 2**20:6,.0f} MiB for one picture")

# %% [markdown]
# Four times. The memory is linear in the number of tokens, and where no $N \times N$ map is made, so are the multiplications: the sentence above is wrong about it.
#
# Linear is not always less. $N^2 d$ against $N d^2$ multiplications: the efficient kind wins where there are more tokens than channels.

# %%
for side, d in ((56, 128), (28, 320), (14, 512)):  # places along a side and channels, at 224 px
    print(f"{side:2} x {side:2} tokens, {d} channels: {side**2 / d:5.1f} times cheaper")

# %% [markdown]
# In the coarsest stage it costs more than what it replaces, at the size that its authors use.
#
# ## The limits of linear attention
#
# > **Predict.** Let each token ask exactly for itself: keys all different, and the query of a token is its own key, made large. Which of the two finds it?

# %%
k = torch.randn(144, 16)
q = 8 * k
maps = {
    "attention": (q @ k.T / 4).softmax(1),
    "linear attention": q.softmax(1) @ k.softmax(0).T,
}
for name, weights in maps.items():
    rank = torch.linalg.matrix_rank(weights)
    print(f"{name:17} own weight {weights.diag().mean():.2f}, rank {rank} of 144")

# %%
panels = [
    display.Panel((weights / weights.max()).numpy(), title=name) for name, weights in maps.items()
]
display.show(
    display.grid(panels, {}, alt="Two attention maps.", columns=2),
    alt="Two maps of 144 x 144 weights, bright is large. Ordinary attention: a bright diagonal, each "
    "token finds itself. Linear attention: a faint diagonal in noise, with columns brighter than it, "
    "places that many tokens look at.",
)

# %% [markdown]
# Sixteen summaries are all there is to read, so tokens cannot all point at places of their own: the map's rank is at most the number of channels $d$,
# and the weights on the diagonal add up to at most $d$ whatever $q$ and $k$ are, here 16/144 = 0.11 for a token.
# For lungs that may be enough. It is a trade, not a free lunch.
#
# ## Attention between channels
#
# DAE-Former's blocks are *dual*: after the places, the channels look at each other, and their map is $d \times d$ whatever the size of the picture
# ([El-Nouby et al. 2021](https://arxiv.org/abs/2106.09681)). Rows of length 1 make the products cosines; a learned temperature says how sharp.

# %%
from torch.nn.functional import normalize


def channel_attention(q, k, v, temperature=1.0):
    """(N, d) each; the map is d x d: which channels go together, over the whole picture?"""
    weights = (normalize(q, dim=0).T @ normalize(k, dim=0) * temperature).softmax(1)
    return v @ weights.T


# %%
from medsaga_lib.models import dae_former

q, k, v = torch.randn(3, 144, 16)
pairs = {
    "efficient": (linear_attention(q, k, v), dae_former.efficient_attention(q, k, v)),
    "channel": (channel_attention(q, k, v), dae_former.channel_attention(q, k, v, torch.ones(1))),
}
for name, (ours, library) in pairs.items():
    print(f"{name:9} differs from the library's by {(ours - library).abs().max():.0e}")

# %% [markdown]
# The library's have learned projections around them and form a block: efficient attention, a feed-forward part, channel attention, a feed-forward part, each added to what came in.
#
# > **Predict.** Shuffle the places of a map, pass it through a part, and put the places back. Which of the three parts notices?

# %%
block = dae_former.DualBlock(width=16)
x, order = torch.randn(1, 12, 12, 16), torch.randperm(144)  # maps are (B, H, W, C)
shuffled = x.flatten(1, 2)[:, order].view_as(x)
for part in block.parts[:3]:
    with torch.no_grad():
        back = part(shuffled).flatten(1, 2)[:, order.argsort()].view_as(x)
        print(f"{type(part).__name__:19} {(back - part(x)).abs().max():.0e}")

# %% [markdown]
# Neither attention knows where anything is. DAE-Former has no table of positions like SAM's: all that tells a right lung from a left one are the
# convolutions, those in the feed-forward parts (3 x 3, each channel by itself) and those that embed the patches, and the zeros beyond the border that they see.
#
# ## DAE-Former and its 18 million unused parameters
#
# Three stages down, two up, each of two dual blocks; a decoder stage lets the encoder's map say *where to look* and its own map *what is there*.
# It is one short file, `medsaga_lib/models/dae_former.py`. The published code has more parameters:

# %%
with torch.device("meta"):  # shapes without memory
    whole = dae_former.DAEFormer(outputs=9)
ours, published = sum(p.numel() for p in whole.parameters()), 48_073_065
print(f"published {published:,}, here {ours:,}: {1 - ours / published:.0%} missing")

# %% [markdown]
# Both compute the same function, within rounding, which this project's tests hold against the published code's output. The difference is dead. Its lowest decoder stage has no skip to meet,
# so its forward pass stops after the patch expanding, but the whole stage has been built. And each feed-forward part has three norms and uses one.

# %%
from torch import nn

with torch.device("meta"):
    stage = nn.ModuleList(
        [nn.Linear(512, 512), dae_former.SkipCrossAttention(512), nn.Linear(1024, 512)]
        + [dae_former.DualBlock(512) for _ in range(2)]
    )
parts = [m for m in (*whole.modules(), *stage.modules()) if isinstance(m, dae_former.MixFFN)]
unused_norms = sum(2 * sum(p.numel() for p in part.norm.parameters()) for part in parts)
unused_stage = sum(p.numel() for p in stage.parameters())
print(f"stage {unused_stage:,} + norms {unused_norms:,} = {unused_stage + unused_norms:,}")
print(f"accounts for everything: {unused_stage + unused_norms == published - ours}")

# %% [markdown]
# Dead weights do not change a result. They are in the file, on the GPU, and in every table that compares sizes: who reports 48 million parameters for DAE-Former reports a network that nobody has run.
# A gradient finds them in one line: after a backward pass, their `.grad` is still `None`.
#
# To train the living ones: `medsaga train dae_former --data FOLDER --shots 32`, with its authors' SGD, batch of 24 and loss. On two cores that takes hours, which is why this chapter's live training was the U-Net.
# A glance at the two largest networks of this book, then, both from random numbers: 32 X-rays, a hundred steps, batches of four. The second is [chapter 8](08_lite_medsam.ipynb)'s TinyViT-SAM with LoRA, asked by boxes.

# %%
recorded = json.loads(Path("recorded/large_networks.json").read_text())
print(recorded["provenance"]["command"])
for run in recorded["runs"]:
    low, high = run["dice_interval"]
    print(f"{run['recipe']:24} {run['trainable']:10,} numbers train, {run['cpu_seconds'] / 60:.0f} minutes "
          f"of a core, Dice {run['dice']:.3f} ({low:.3f} to {high:.3f})")  # fmt: skip

# %% [markdown]
# A hundred steps are nothing to DAE-Former. And the TinyViT has a box and untaught eyes: it ends below the ellipse in the box, which chapter 8 found at 0.84.

# %% [markdown]
# ## The pocket SAM without training, with three kinds of prompts
#
# Before those who learn, one who does not: the pocket SAM as it is, no labelled picture seen. Asked by a point in each organ, by the box around it, or by nothing: a grid of 32 x 32 points, three masks for each, doubles removed (of two much alike SAM keeps the one its IoU head prefers), and for each organ we take the mask that is nearest to it. (Nobody without the truth could take that one; it is what the best choice would reach.) All at 128 pixels, like the table below, although it was pretrained at 256.
#
# > **Predict.** Is the best mask of a grid better than the one for a box?

# %%
recorded = json.loads(Path("recorded/zero_shot.json").read_text())
print(recorded["provenance"]["command"])
asked = {"sam_zero_shot": "point", "sam_zero_shot:head=boxes:answer=single": "box",
         "sam_zero_shot:head=grid": "best of a grid"}  # fmt: skip
print("Dice, and its 95 % interval over patients")
for run in recorded["runs"]:
    low, high = run["dice_interval"]
    print(f"{run['data']:18} {asked[run['recipe']]:14} {run['dice']:.3f} ({low:.3f} to {high:.3f})")

# %% [markdown]
# On lungs the grid is level with the box: among its masks is one about as good as what the box was answered with, and the trouble is to know which. On polyps it is a tenth behind. A point does worse, perhaps because it leaves open how far the organ goes; and of its three masks the IoU head chooses (chapter 7's point takes SAM's single mask, and has 0.58 on polyps).
# On lungs eight labelled X-rays teach almost everybody below more than that. On polyps, which lie anywhere, a box that the truth has drawn is worth more than any training without one. It is the box's merit, not the network's: an ellipse in it, which has learned nothing, is better than the network's answer on both (lungs 0.84, [chapter 8](08_lite_medsam.ipynb); polyps 0.83, [chapter 7](07_exemplar_synthesis.ipynb)).
#
# ## All methods on the same images
#
# By now every method of this book has been introduced. Here they stand side by side, on lungs from 8 and from 32 labelled X-rays and on polyps from 64 frames: the same pictures, the same 200 steps, the pocket SAM under all that adapt one, two networks from scratch (the U-Net and SegResNet, [Myronenko 2018](https://arxiv.org/abs/1810.11654), the same ladder with residual blocks), and what people with little memory are told to do, a *frozen encoder*, whose embeddings are computed once while only the decoder trains.
#
# > **Predict.** Is anybody behind the frozen encoder? On which of the three tasks do the methods differ most? Who needs most memory, who most time?

# %%
recorded = json.loads(Path("recorded/methods.json").read_text())
origin = recorded["provenance"]
print(origin["command"])
print(origin["date"], "|", origin["device"], "|", origin["data"])

# %%
runs = pd.DataFrame(recorded["runs"])
organ = runs["data"].map({"cxr_hannover_lungs": "lungs", "polyp_kvasir": "polyps"})
runs["task"] = organ + " from " + runs["shots"].astype(str)
print(runs["recipe"].nunique(), "methods, seeds", *runs["seed"].unique())

# %%
dice = runs.pivot(index="recipe", columns=["task", "seed"], values="dice")
dice = dice.loc[dice.mean(axis=1).sort_values(ascending=False).index]
called = {"medsaga": "MedSAGa", "samed": "SAMed", "s_sam": "S-SAM"}
near = dice.drop(["medsaga_v2", "sam_zero_shot"]).rename(called)  # the two would need half the width
tasks = {task: near[task].T.to_dict("list") for task in runs["task"].unique()}

# %%
display.show(
    display.dots_of_seeds(tasks, "Dice", alt="Dice of each method.", baseline="frozen_encoder"),
    alt="Dice of fifteen methods on three tasks, a dot for each seed. On lungs all lie within a tenth, "
    "most of them right of the frozen encoder's dashed line; on polyps they are spread widely, with the "
    "two that are asked by boxes and points far ahead and the decoder alone level with the frozen encoder.",
)

# %% [markdown]
# A dot is a seed: other shots, other random numbers. A stroke is their mean, and the dashed line that of the frozen encoder. The same in numbers, with the standard deviation of the three seeds, and in how many of the nine runs a method was ahead of the frozen encoder with the same shots:

# %%
table = pd.DataFrame({"asked by": [str(get_recipe(name).head) for name in dice.index]}, dice.index)
for task in tasks:
    mean, spread = dice[task].mean(axis=1), dice[task].std(axis=1)
    table[task] = [f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True)]
table["ahead"] = dice.gt(dice.loc["frozen_encoder"]).sum(axis=1).astype(str) + f" of {dice.shape[1]}"
table

# %%
named = runs.rename(columns={"hd95": "HD95 (pixels)", "nsd": "NSD (within 2 pixels)"})
others = named.pivot_table(index="recipe", columns="task", values=list(named.filter(like="pixels")))
others.loc[dice.index].reindex(columns=tasks, level="task").round(2)

# %%
runs = runs.assign(minutes=runs["cpu_seconds"] / 60, MiB=runs["peak_bytes"] / 2**20)
costs = runs.groupby("recipe")[["trainable", "minutes", "MiB"]].mean()
costs.sort_values("minutes").astype({"trainable": int, "MiB": int}).round(1)

# %% [markdown]
# How to read it. Three seeds say how much a choice of shots moves a number: `medsaga_v2` apart, their standard deviation is up to three hundredths on lungs and four on polyps. They say little about other patients. Neighbours are not told apart.
# The table has a yardstick of its own: `frozen_encoder` and `decoder_only` train the same numbers of the same network. The first sees a few changed copies of each picture again and again, the second a new one in every step. With eight X-rays the second is ahead in each seed, by two hundredths on average and once by next to nothing; in the other two tasks it is not.
# Who is asked by points or boxes was told where the organ is, by the truth ([chapter 7](07_exemplar_synthesis.ipynb)); those rows compare with each other only. On polyps, which may be anywhere, the two that train and are told are one and two tenths ahead of everybody who is not. MiB is the peak of the whole process; the untrained network's are mostly Python and its libraries.
#
# Eleven methods are ahead of the frozen encoder in all nine runs, S-SAM in eight. The decoder alone is ahead in six and never further behind than two and a half hundredths.
# Far behind on lungs are two, and both should be. `sam_zero_shot` was not trained at all (on polyps its point puts it ahead of the frozen encoder, and of few others). `medsaga_v2` may move the whole encoder and none of the decoder; its class tokens are random and stay so, and what it reaches depends on the draw: between 0.41 and 0.67 on the same lungs ([chapter 5](05_adapting_sam.ipynb)).
# SVF is ahead in five: in two on lungs from 8 and in all three on polyps, where it is level with S-SAM. On lungs from 32 it is behind the frozen encoder in each seed, by one to three hundredths. S-SAM turns the same singular values at the same rate, which [chapter 6](06_svd_affine.ipynb) chose, and trains four things more: shifts, the encoder's norms, its positions, and the decoder's norms.
#
# > **Predict.** Take one of the four away from S-SAM. Which of them carries it on lungs from 32?

# %%
parts = json.loads(Path("recorded/s_sam_parts.json").read_text())
print(parts["provenance"]["command"])
less = pd.DataFrame(parts["runs"]).pivot(index="recipe", columns="seed", values="dice")
less = pd.concat([less, dice.loc[["s_sam", "svf"], "lungs from 32"]])
less.assign(mean=less.mean(axis=1)).sort_values("mean", ascending=False).round(3)

# %% [markdown]
# No single one. Without the positions, or without the decoder's norms, S-SAM falls in each of the three seeds, and by less than a hundredth on average; shifts are hardly missed, the encoder's norms in one seed only. The four small falls add up to about what SVF is behind.
# Each method has a single rate in all three tasks: its paper's or SAMed's for most, from a bracket for five (for S-SAM and SVF with polyps in it). Where one does badly, it may be the rate.
#
# The frozen encoder takes the least time of all that train, because each picture goes through the encoder a few times and not in every step; most memory and most time go into SegResNet. Among those that train in the pocket SAM's encoder memory differs little, from 700 to 800 MiB; the encoder is small ([chapter 3](03_memory_ledger.ipynb) has ViT-B).
# Four times the X-rays move nearly everybody up, by up to four hundredths on average, SVF by next to nothing. On lungs from 32 the two networks that knew nothing lead among all that are told nothing but the classes, the pocket SAM trained in full beside them; from 8 the table does not tell them from those that adapt it, but for S-SAM and SVF, which are one to four hundredths behind both in every seed. On polyps whatever moves the pocket SAM's encoder is ahead of both in all three seeds, but for `medsaga_v1`, which is level with SegResNet and up to three hundredths behind the U-Net, and `medsaga_v2`. Whoever adapts a foundation model should train one of the two, too, and see.
#
# ## Exercises
#
# ### Exercise 1 (easy, 5 minutes)
# DAE-Former's first stage has $d = 128$ channels and one token for every 4 x 4 pixels. From which side of the picture on (in pixels, a multiple of 16) does efficient attention need *fewer* multiplications than ordinary attention there?

# %% tags=["exercise"]
smallest_side = None

# %% cellView="form" tags=["solution"]
# @title Solution
smallest_side = next(side for side in range(16, 1024, 16) if (side // 4) ** 2 > 128)

# %% tags=["exercise-check"]
from torch.utils.flop_counter import FlopCounterMode


def multiplications(function, side):
    with FlopCounterMode(display=False) as counter:
        function(*torch.zeros(3, (side // 4) ** 2, dae_former.WIDTHS[0]))
    return counter.get_total_flops()


assert smallest_side, "there is no answer yet"
assert smallest_side % 16 == 0, f"{smallest_side} is no multiple of 16"
for side, cheaper in ((smallest_side - 16, False), (smallest_side, True)):
    less = multiplications(dae_former.efficient_attention, side) < multiplications(attention, side)
    assert less == cheaper, f"at {side} px efficient attention needs {'less' if less else 'more'}"


# %% [markdown]
# ### Exercise 2 (medium, 10 minutes)
# With several *heads*, the channels are cut into equal groups and each group attends by itself; then the groups are laid side by side again.
# Write `with_heads(q, k, v, heads)` for linear attention on (N, d).

# %% tags=["exercise"]
def with_heads(q, k, v, heads):
    return linear_attention(q, k, v)


# %% cellView="form" tags=["solution"]
# @title Solution
def with_heads(q, k, v, heads):
    groups = zip(*(x.chunk(heads, dim=1) for x in (q, k, v)), strict=True)
    return torch.cat([linear_attention(*group) for group in groups], dim=1)


# %% tags=["exercise-check"]
q, k, v = torch.randn(3, 30, 16)
split = (x.unflatten(1, (2, 8)).transpose(0, 1) for x in (q, k, v))  # (2 heads, 30, 8)
expected = dae_former.efficient_attention(*split).transpose(0, 1).flatten(1)
error = (with_heads(q, k, v, 2) - expected).abs().max()
assert error < 1e-5, f"off by {error:.2f}: two heads are two groups of eight, with a softmax of q in each"

# %% [markdown]
# ### Exercise 3 (medium, 10 minutes)
# One of the three biases in `EfficientAttention`, of `queries`, `keys` or `values`, cannot change its output, however long one trains. Which? Find it by thinking, and check by trying.

# %% tags=["exercise"]
inert = None

# %% cellView="form" tags=["solution"]
# @title Solution
# A bias shifts one channel of k at all tokens alike, and a softmax over the tokens does not see that.
inert = "keys"

# %% tags=["exercise-check"]
layer = dae_former.EfficientAttention(16)
moved = {}
for name in ("queries", "keys", "values"):
    changed = dae_former.EfficientAttention(16)
    changed.load_state_dict(layer.state_dict())
    with torch.no_grad():
        getattr(changed, name).bias += torch.randn(16)
        moved[name] = (changed(x) - layer(x)).abs().max().item()
assert inert in moved, "name one of queries, keys, values"
assert inert == min(moved, key=moved.get), f"{inert} moves the output by {moved[inert]:.2f}"

# %% [markdown]
# ## Summary
#
# - Four labels and a small U-Net find both lungs, on this task as well as MedSAGa on the pocket SAM after the same steps. Always train it, too.
# - Softmax before the product instead of after it makes attention linear in the pixels. The price is a map of low rank.
# - Linear attention multiplies less only where tokens outnumber channels.
# - Attention does not know where things are; in DAE-Former convolutions do.
# - 38 % of DAE-Former's published parameters never run. Count what gets a gradient, not what is in the file.
