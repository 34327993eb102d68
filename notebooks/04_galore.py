# %% [markdown]
# # 4. GaLore
#
# **You will be able to**
# - measure whether a gradient is low-rank, and say which share of its energy a subspace of rank 16 contains,
# - write GaLore in 15 lines, and say which line saves the memory,
# - explain the error in Adam's moments after a refresh of the subspace, and correct it,
# - explain why GaLore at full rank is not AdamW.
#
# **Before this** [Chapter 3](03_memory_ledger.ipynb); the singular value decomposition, once seen.
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
        library = "/content/book[galore,text,weights]"
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", library], check=True)
    os.chdir("/content/book/notebooks")

# %% tags=["parameters"]
profile = "quick"  # "colab" runs the same cells: nothing here needs a GPU
seed = 0

# %% [markdown]
# ## Is a gradient low-rank?
#
# Adam remembers two numbers for each weight. LoRA avoids them by training a few new weights instead of the old ones.
# GaLore trains *all* weights and saves on the memory of Adam, if one thing is true: that the gradient of a weight matrix lives, mostly, in a few directions.
# A claim about gradients can be tested on a gradient. Here are eight chest X-rays,

# %% tags=["data"]
from medsaga_lib.data.catalog import open_or_phantoms

dataset = open_or_phantoms("cxr_hannover_lungs")
print(dataset.describe())

# %% [markdown]
# and the pocket SAM, all of which trains. It is not SAM, but its blocks are built of the same code.

# %%
from dataclasses import replace

import torch

from medsaga_lib.data.samples import Samples
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import build_model
from medsaga_lib.recipes.encoder import Full

torch.manual_seed(seed)
# Random class tokens: equal ones would give the encoder no gradient yet (chapter 5)
full = replace(get_recipe("medsaga"), name="full", image_encoder=Full(), start="random")
model = build_model(full, "pocket", 128, classes=len(dataset.labels), seed=seed)
samples = Samples(dataset, dataset.split("train"), size=128)

# %%
from medsaga_lib.training.losses import cross_entropy_dice


def gradient(first, count=8):
    """Gradient of one weight matrix on `count` X-rays, (192, 576), short side first."""
    batch = [samples[i] for i in range(first, first + count)]
    images = torch.stack([sample["image"] for sample in batch])
    labels = torch.stack([sample["label"][2::4, 2::4] for sample in batch])  # as the masks
    model.zero_grad()
    cross_entropy_dice(model(images), labels).total.backward()
    return model.sam.image_encoder.blocks[3].attn.qkv.weight.grad.T.clone()


G = gradient(0)


# %% [markdown]
# The singular values say how long $G$ is in each direction. Their squares add up to its energy.
#
# > **Predict.** Of 192 directions take the 16 strongest. What share of the energy do they hold? And in a matrix of random numbers?

# %%
def energy(matrix):
    """Share of the energy that the strongest 1, 2, 3, ... directions hold."""
    squares = torch.linalg.svdvals(matrix).square()
    return squares.cumsum(0) / squares.sum()


noise = torch.randn_like(G)
weight = model.sam.image_encoder.blocks[3].attn.qkv.weight.detach().T
for name, matrix in {"gradient": G, "weight": weight, "noise": noise}.items():
    print(f"{name:9} {energy(matrix)[15]:.1%}")

# %%
from medsaga_lib import display

ranks = [1, 2, 4, 8, 16, 32, 64, 128, 192]
curves = [
    display.Curve(name, ranks, [energy(matrix)[r - 1].item() for r in ranks])
    for name, matrix in {"gradient": G, "weight": weight, "noise": noise}.items()
]
alt = (
    "Share of energy against rank. The gradient's curve reaches 0.8 with four directions; the "
    "weight's and the noise's climb slowly."
)
axes = "rank (directions)", "share of energy"
figure = display.curve_with_interval(curves, *axes, alt, log_x=True)
display.show(figure, alt=alt)

# %% [markdown]
# On the site, the next figure has a slider for the rank.

# %%
kept = {"gradient": G, "weight": weight, "noise": noise}
numbers = {name: [round(share, 5) for share in energy(W).tolist()] for name, W in kept.items()}
display.interactive(
    "spectrum",
    {"shape": list(G.shape), "curves": numbers},
    "Choose a rank. The sentence gives the share of the energy that the strongest directions hold, "
    "and the bytes that GaLore keeps at this rank instead of Adam's two moments.",
)


# %% [markdown]
# This gradient is low-rank; the weight matrix it belongs to is not, and noise of the same shape is not.
# One reason: $G$ is a sum of 512 products of two vectors, one for each token (eight pictures of 64). That alone would allow full rank, since 512 is more than 192; perhaps the tokens of X-rays are so much alike that most products point the same few ways. (One matrix, before the first step; others may differ.)
#
# ## Adam in a subspace
#
# So let $P$ (192 x 16) hold the 16 strongest directions, and let Adam see only $R = P^\top G$, which has 16 rows instead of 192. Its moments have the shape of $R$. The step goes back through $P$:
#
# $$R_t = P_t^\top G_t, \qquad W_t = W_{t-1} - \eta\,\alpha\,P_t\,\mathrm{Adam}(R_t)$$
#
# This is all of GaLore, for a matrix whose short side comes first:

# %%
def galore_step(W, G, state, t, rank, lr=1e-3, T=200, alpha=0.25):
    """The weights (m, n) after step t = 1, 2, ...; `state` remembers what Adam needs."""
    beta_1, beta_2 = 0.9, 0.999
    if (t - 1) % T == 0:  # a refresh
        state["P"] = torch.linalg.svd(G, full_matrices=False).U[:, :rank]
    P = state["P"]
    R = P.T @ G  # (r, n) instead of (m, n): here is the saving
    state["M"] = beta_1 * state.get("M", 0) + (1 - beta_1) * R
    state["V"] = beta_2 * state.get("V", 0) + (1 - beta_2) * R**2
    M, V = state["M"] / (1 - beta_1**t), state["V"] / (1 - beta_2**t)
    return W - lr * alpha * P @ (M / (V.sqrt() + 1e-8))


# %% [markdown]
# Does the library do the same? Ten steps with ten gradients, a refresh every four, and moments that are left alone, as in the paper:

# %%
from medsaga_lib.optim.galore import GaLoreAdamW

options = {"rank": 16, "refresh": 4, "subspace": "exact", "moments": "keep"}
theirs = torch.nn.Parameter(weight.clone())
optimizer = GaLoreAdamW([{"params": [theirs], **options}], lr=1e-3, weight_decay=0.0)
ours, state = weight.clone(), {}

# %%
for t in range(1, 11):
    theirs.grad = torch.randn_like(weight) + G / G.std()
    ours = galore_step(ours, theirs.grad, state, t, rank=16, T=4)
    optimizer.step()
moved = (ours - weight).norm()
print(f"difference {(ours - theirs).norm() / moved:.0e} of the way they went")

# %% [markdown]
# > **Predict.** By which factor are the states smaller than Adam's, for this matrix of 192 x 576 and rank 16? The basis counts.

# %%
from medsaga_lib.memory.ledger import held_bytes

adam, galore = 2 * weight.numel() * 4, held_bytes(optimizer)
print(f"Adam {adam:,} bytes, GaLore {galore:,}: {adam / galore:.1f} x")

# %% [markdown]
# Two moments of 16 x 576 and a basis of 192 x 16. (And four bytes that count the steps.)
#
# ## Adam's moments after a refresh of the subspace
#
# The strongest directions change while the network trains, so $P$ is renewed every $T = 200$ steps. Adam's first moment $M$ is a memory of past gradients, in the coordinates of the *old* basis.
# The paper leaves its numbers as they are. What do they mean in the new basis?
#
# Take the mildest refresh that there is. The subspace stays the same, and the new basis only points the other way, which an SVD may choose at will:

# %%
from torch.nn.functional import cosine_similarity


def cosine(A, B):
    return cosine_similarity(A.flatten(), B.flatten(), dim=0).item()


P, M = state["P"], state["M"]
flipped = -P
print(f"momentum before and after: cosine {cosine(P @ M, flipped @ M):+.2f}")

# %% [markdown]
# The momentum now points backwards. Nothing about the gradient has changed: the sign of a singular vector means nothing.
#
# The mend is a change of coordinates. $C = P_\mathrm{new}^\top P_\mathrm{old}$ turns old coordinates into new ones, so the memory becomes $C M$:

# %%
C = flipped.T @ P
print(f"rotated: cosine {cosine(P @ M, flipped @ (C @ M)):+.2f}")

# %% [markdown]
# Now a real refresh: one basis from the first eight X-rays, one from the next eight.
#
# > **Predict.** How much of the old subspace does the new one contain? And where does the momentum point afterwards, kept or rotated?

# %%
from medsaga_lib.optim.subspace import exact_basis

P_old, M = exact_basis(gradient(0), rank=16)  # the basis, and G in its coordinates
P_new, _ = exact_basis(gradient(8), rank=16)
C = P_new.T @ P_old
print(f"shared: {C.square().sum() / 16:.0%} of the subspace")
print(f"kept:    cosine {cosine(P_old @ M, P_new @ M):+.2f}")
print(f"rotated: cosine {cosine(P_old @ M, P_new @ (C @ M)):+.2f}")

# %% [markdown]
# Kept numbers turn the momentum by more than forty degrees, although most of the subspace has stayed. Rotated ones lose only what the new subspace cannot express.
# The second moment needs its own rule, because squares do not rotate; `rotate_moments` says which, and why. This library rotates unless told otherwise, and `moments="keep"` is the paper.
#
# Does it matter for a network? Adam's first moment forgets: $0.9^{20}$ is an eighth, so at $T = 200$ a wrong direction disturbs the first tenth of each period.
# The second moment remembers a thousand steps; wrong numbers there misjudge the lengths of steps until the next refresh. Neither is a disaster, and both cost nothing to avoid.
#
# ## GaLore at full rank is not AdamW
#
# If the subspace is the whole space, nothing is thrown away. Is GaLore then AdamW? Try it with the function from above.

# %%
start = torch.zeros_like(G)
galore = galore_step(start, G, {}, t=1, rank=192, alpha=1.0)
adam_step = -1e-3 * G.sign()  # Adam's first step: the learning rate, everywhere
print(f"cosine of the two steps {cosine(galore, adam_step):.2f}")

# %% [markdown]
# It is another optimizer. Adam divides each *coordinate* by its own size, so it depends on the coordinates one works in, and GaLore works in those of the singular vectors.
# The library does not project where projecting saves nothing, and then it is AdamW to the last bit:

# %%
weights = [torch.nn.Parameter(weight.clone()) for _ in range(2)]
for W in weights:
    W.grad = G.clone()
GaLoreAdamW([{"params": weights[:1], "rank": 192}]).step()
torch.optim.AdamW(weights[1:], foreach=False).step()
print("equal to AdamW, bit for bit:", torch.equal(*weights))

# %% [markdown]
# ## The time cost of a refresh
#
# An SVD of every matrix in one step is slow. But we do not need all singular vectors, and not exactly. A *randomized* method multiplies a few random vectors by $G$ and keeps what comes out; from the basis of last time it is faster still.
#
# > **Predict.** For a matrix of ViT-B's size, 768 x 3072, at rank 64: how many times faster, and how much of what the exact 64 directions hold is lost?

# %%
from time import perf_counter

from medsaga_lib.optim.subspace import randomized_basis

torch.manual_seed(seed)
scale = torch.arange(1, 769)[:, None] ** -0.5  # a slow decay: a hard case
large = scale * torch.randn(768, 3072)
drifted = large + 0.1 * scale * torch.randn(768, 3072)  # some steps later
P_before, _ = exact_basis(large, 64)


# %%
def timed(basis):
    start = perf_counter()
    _, R = basis()
    return perf_counter() - start, R.square().sum()


timed(lambda: randomized_basis(drifted, 64, None, seed))  # the first call is slower
exact_time, exact_energy = timed(lambda: exact_basis(drifted, 64))
for name, previous in {"cold": None, "warm": P_before}.items():
    seconds, held = timed(lambda p=previous: randomized_basis(drifted, 64, p, seed))
    print(f"{name}: {exact_time / seconds:.0f} x faster, {held / exact_energy:.1%} of what the exact hold")

# %% [markdown]
# The approximation loses little of what the best 64 directions hold, and here the warm start least. (Single timings of a made-up matrix that drifts little. The table at the end of the chapter has the refresh of ViT-B's 48 matrices, and gradients of a training run, on which the warm start loses more than the cold one.)

# %% [markdown]
# ## Memory and checkpoints of the published package
#
# `galore-torch` 1.0 takes its basis as the first columns of the SVD's factor. In PyTorch such a slice is a *view*: it has few numbers and keeps all of the factor's memory alive.

# %%
U = torch.linalg.svd(torch.randn(768, 768), full_matrices=False).U
P = U[:, :32]
print(f"shows {P.nbytes:,} bytes, keeps {P.untyped_storage().nbytes():,}")

# %% [markdown]
# Twenty-four times more than it shows, for each of the 48 matrices of a ViT-B encoder; a `.clone()` mends it. Here is the package at work on the matrix from above:

# %%
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from galore_torch import GaLoreAdamW as Published

group = {"rank": 16, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std"}
W = torch.nn.Parameter(weight.clone())
package = Published([{"params": [W], **group}], no_deprecation_warning=True)
W.grad = G.clone()
package.step()
for name, value in package.state[W].items():
    print(f"{name:11} {type(value).__name__}")
print(f"holds {held_bytes(package):,} bytes, {held_bytes(package) / held_bytes(optimizer):.1f} x ours")

# %% [markdown]
# Two of its states are no tensors: the count of steps, a plain number, and the projector, a Python object.
#
# > **Predict.** What does that mean for someone who saves a run today and resumes it tomorrow, with PyTorch's safe loading?

# %%
import io
import pickle

file = io.BytesIO()
torch.save(package.state_dict(), file)
file.seek(0)
try:
    torch.load(file, weights_only=True)
except pickle.UnpicklingError as error:
    print("refused:", next(line.strip() for line in str(error).split("\n") if "GaLore" in line)[:99])

# %% [markdown]
# The package's arithmetic, without its storage, is in `medsaga_lib/optim/galore_published.py`, and this project's tests run the package beside it: the updates agree to rounding, across refreshes.
#
# ## The part of the gradient that GaLore discards
#
# The rest of the gradient, $G - P P^\top G$, is never seen by the optimizer until a refresh finds it.

# %%
R = P_old.T @ gradient(0)
rest = gradient(0) - P_old @ R
print(f"rank 16 leaves out {rest.square().sum() / gradient(0).square().sum():.1%} of the energy")

# %% [markdown]
# Others have built on GaLore at each of these places:
#
# | what | by |
# |---|---|
# | rotates the moments | [LDAdam](https://arxiv.org/abs/2410.16103), which also feeds back what was left out |
# | uses the rest of the gradient, scaled | [Fira](https://arxiv.org/abs/2410.01623) |
# | steps along the whole gradient; a random subspace only says how long each column's step should be | [APOLLO](https://arxiv.org/abs/2412.05270) |
# | randomized SVD | [GaLore 2](https://arxiv.org/abs/2504.20437) |
# | refreshes layer by layer, and only when needed | [Q-GaLore](https://arxiv.org/abs/2407.08296) |
#
# ## Comparison of optimizers on lung segmentation
#
# A single matrix cannot show whether the optimizer changes a segmentation. The test is therefore a training of the pocket SAM (not SAM) at 128 pixels, 32 labelled X-rays, 200 steps, a new basis every 20.
# A learning rate can hide a method, so first the rates. Three to seven were tried for each method with one seed (`recorded/optimizers_bracket.json`); three or four of them, by our choice, were tried again with three. The judge is Dice on the *validation* patients:
#
# > **Predict.** What does a rate cost that is three times too high or too low?

# %%
import json
from pathlib import Path

import pandas as pd

called = {"full": "AdamW", "samed": "LoRA", "fira": "Fira", "apollo": "APOLLO", "keep": "kept",
          "published": "galore-torch", "galore": "rotated"}  # fmt: skip


def read(name):
    """Recorded runs, each with its method and learning rate."""
    runs = pd.DataFrame(json.loads(Path(f"recorded/{name}.json").read_text())["runs"])
    runs["method"] = [next(n for part, n in called.items() if part in r) for r in runs["recipe"]]
    return runs.assign(rate=runs["recipe"].str.rpartition("=")[2])


# %%
tried = read("optimizers_rates").pivot_table("val_dice", ["method", "rate"], "seed")
for method, rates in tried.mean(axis=1).groupby(level="method"):
    print(f"{method:13}", *(f"{rate:>6}: {dice:.3f}" for (_, rate), dice in rates.items()))
print(f"standard deviation over seeds: {tried.std(axis=1).mean():.3f}")

# %% [markdown]
# Between nothing and two hundredths, often about one; seeds differ by as much. So one seed would choose by luck: with the first alone, galore-torch has its best at 0.03, with three at 0.01. Each method takes its best of these. (In the bracket, with one seed, AdamW was best at 0.0001 and APOLLO at 0.0003, by less than seeds differ; these were not tried again. AdamW at 0.01 was two hundredths worse.)
#
# > **Predict.** Five seeds now. Rank them: AdamW on every weight, LoRA, the package's GaLore, ours with moments kept and rotated, Fira, APOLLO.

# %%
origin = json.loads(Path("recorded/optimizers.json").read_text())["provenance"]
print(origin["date"], "|", origin["device"], "|", origin["data"])
print(origin["test_cases"], "held-out X-rays of", origin["test_patients"], "patients")

# %%
from medsaga_lib.evaluation.scores import over_seeds  # mean, and half of a 95 % interval (Student's t)

runs = read("optimizers")
runs["method"] += " (lr " + runs["rate"] + ")"
table = runs.pivot(index="seed", columns="method", values="dice")
table = table[table.mean().sort_values(ascending=False).index]
baseline = next(name for name in table if name.startswith("AdamW"))

# %%
alt = (
    "Dice of seven optimizers, five seeds each, within four hundredths. Kept and Fira are a hair ahead "
    "of AdamW, galore-torch and LoRA last; all clouds of dots overlap with AdamW's."
)
task = {"lungs from 32": table.to_dict("list")}
display.show(display.dots_of_seeds(task, "Dice", alt, baseline), alt=alt)

# %%
print(f"{'':27} Dice            behind AdamW")
for name in table:
    mean, half = over_seeds(table[name])
    behind, spread = over_seeds(table[baseline] - table[name])
    print(f"{name:27} {mean:.3f} +- {half:.3f}  {behind:+.3f} +- {spread:.3f}")
by_name = table.rename(columns=lambda name: name.split()[0])
for pair in ("rotated kept", "rotated galore-torch", "kept galore-torch", "kept LoRA"):
    one, other = pair.split()
    ahead, spread = over_seeds(by_name[one] - by_name[other])
    print(f"{one} ahead of {other}: {ahead:+.3f} +- {spread:.3f}")

# %% [markdown]
# All seven are within about a hundredth of each other, on 19 X-rays of eleven patients, and none of the six differences from AdamW leaves its interval. So these runs do not rank them against AdamW. Other pairs do leave theirs, as kept and LoRA, but of 21 pairs one or two would by luck. What the runs do say: an optimizer that keeps a few rows of the moments ends, to a hundredth or so, where one ends that keeps them all. (The intervals are over seeds; other patients would widen them.)
#
# Rotated and kept run at the same rate here and differ by less than their interval. So the rotation, for all its charm, bought no Dice that these runs could see. Kept moments are turned by a refresh, as we saw; perhaps it matters little because Adam's first moment forgets in ten steps and a refresh comes every twenty, but that was not tested.
#
# The package is half a hundredth behind ours rotated, less than the interval, and a hundredth behind ours kept, a little more than it, at another rate. One handicap of it is known, though nobody tested whether it explains that: its first basis comes from the very first step, in which the class tokens are equal and the encoder's gradient is a zero of rounding errors ([chapter 5](05_adapting_sam.ipynb)), and holds until step 20. The library waits for a gradient.
#
# A footnote, without which the table says too much: at the paper's $T = 200$ these runs would see a single subspace, and kept and rotated would be the same run.
#
# ## Tested properties of this implementation
#
# A library that teaches an optimizer should say what it holds itself to. Each line below is a number that a test holds, or a time from one run beside the package; `python -m tools.targets` measures all of them anew.

# %%
targets = json.loads(Path("recorded/targets.json").read_text())
print(targets["provenance"]["date"], "|", targets["provenance"]["device"])
lines = pd.DataFrame(targets["lines"]).set_index("target")
lines["least"] = [f"{min(values):,.8g}" for values in lines["values"]]
lines["largest"] = [f"{max(values):,.8g}" for values in lines["values"]]
pd.options.display.max_colwidth = None  # whole sentences
lines[["what", "goal", "least", "largest"]]

# %% [markdown]
# Every goal is met in this run but one, and that is missed by a hair: a refresh is 24.8 times as fast as the package's, not 25. The plain step has little room, too: the package renews no basis in it either, so both spend it on the same two products of matrices. What no line holds: the Dice of five seeds is the table above, and peaks on a GPU nobody has measured yet.
# Zeros are exact: the library at full rank *is* AdamW, as it does not project there, signs of the basis change *nothing*, a resumed run *is* the run.
# None of these lines says that GaLore is the right choice. That is the ledger's question ([will it fit?](../book/fit.md)) and the table's above.

# %% [markdown]
# ## Exercises
#
# ### Exercise 1 (easy, 5 minutes)
# How many bytes do GaLore's states take for a matrix of 768 x 3072 at rank 64, moments and basis, in single precision?

# %% tags=["exercise"]
states = None

# %% cellView="form" tags=["solution"]
# @title Solution
states = 4 * (2 * 3072 * 64 + 768 * 64)

# %% tags=["exercise-check"]
from medsaga_lib.optim.galore import projected_bytes

expected = sum(projected_bytes((768, 3072), 64))
assert states == expected, f"{states} is not it: two moments (r, n) and a basis (m, r)"


# %% [markdown]
# ### Exercise 2 (medium, 10 minutes)
# Write `carry(M, P_old, P_new)`: the first moment in the coordinates of the new basis. Where the two bases hold the same subspace, the momentum must stay what it was.

# %% tags=["exercise"]
def carry(M, P_old, P_new):
    return M


# %% cellView="form" tags=["solution"]
# @title Solution
def carry(M, P_old, P_new):
    return (P_new.T @ P_old) @ M


# %% tags=["exercise-check"]
turn = torch.linalg.qr(torch.randn(16, 16)).Q  # any other basis of the same subspace
P_turned = P_old @ turn
error = (P_turned @ carry(M, P_old, P_turned) - P_old @ M).norm() / M.norm()
assert error < 1e-4, f"the momentum moved by {error:.0%} of its length, in the same subspace"
expected = P_new @ (P_new.T @ (P_old @ M))  # what another subspace can express of it
error = (P_new @ carry(M, P_old, P_new) - expected).norm() / expected.norm()
assert error < 1e-4, f"off by {error:.0%} where the new subspace is another one"

# %% [markdown]
# ### Exercise 3 (hard, 15 minutes)
# Random directions instead of the strongest: how much energy of `G` does a random orthonormal basis of 16 directions hold? Put the mean over 20 draws into `random_share`. Compare with the share of the strongest 16. What would you expect from theory?
#
# <details><summary>Theory</summary>
#
# 16 of 192 directions, chosen without looking, hold 16/192 = 8.3 % of anything on average, be it low-rank or not.
# </details>

# %% tags=["exercise"]
random_share = None

# %% cellView="form" tags=["solution"]
# @title Solution
shares = []
for _ in range(20):
    Q = torch.linalg.qr(torch.randn(192, 16)).Q
    shares.append(((Q.T @ G).square().sum() / G.square().sum()).item())
random_share = sum(shares) / 20

# %% tags=["exercise-check"]
assert random_share, "there is no answer yet"
wrong = f"{random_share:.3f}: 16 orthonormal directions of 192, squared lengths, the mean of 20 draws"
assert abs(random_share - 16 / 192) < 0.025, wrong

# %% [markdown]
# ## Summary
#
# - The gradient measured here is low-rank, its weight matrix is not. Measure yours, it takes one line.
# - GaLore is Adam on $P^\top G$: moments of $r$ rows instead of $m$, and a basis.
# - At a refresh, moments that keep their numbers change their meaning. Rotating them costs nothing; in these runs it bought nothing either.
# - Projected at full rank it is not AdamW, because Adam depends on its coordinates.
# - It saves states, one row of [chapter 3](03_memory_ledger.ipynb)'s ledger. Nothing else.
