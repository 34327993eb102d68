# %% [markdown]
# # 4. GaLore
#
# **You will be able to**
# - measure whether a gradient is low-rank, and say which share of its energy a subspace of rank 16 contains,
# - write GaLore in about 10 lines, and say which line saves the memory,
# - explain the error in Adam's moments after a refresh of the subspace, and correct it,
# - explain why GaLore at full rank is not AdamW.
#
# **Before this** [Chapter 3](03_memory_ledger.ipynb); the singular value decomposition, once seen.
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
profile = "quick"  # "colab" runs the same cells: nothing here needs a GPU
seed = 0

# %% [markdown]
# ## Is a gradient low-rank?
#
# Adam keeps two moments for each trained weight. LoRA freezes the weights and trains a few new ones, so it needs few moments. GaLore ([Zhao et al. 2024](../book/references.md)) trains *all* weights of a matrix and keeps small moments.
# This is possible if the gradient is nearly *low-rank*: if most of it is in a few directions. We test this on the gradient of one weight matrix.
#
# The network is the **pocket SAM**, a small network with SAM's classes of code, which we pretrained on drawn images ([Where the weights come from](../book/weights.md)). It is not SAM. All of its image encoder trains here. The images are 8 chest X-rays. Where `MEDSAGA_DATA` names no folder, drawn X-rays replace them.

# %% tags=["data"]
from medsaga_lib.data.catalog import open_or_phantoms

dataset = open_or_phantoms("cxr_hannover_lungs")
print(dataset.describe())

# %%
from dataclasses import replace

import torch

from medsaga_lib.data.samples import Samples
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import build_model
from medsaga_lib.recipes.encoder import Full

torch.manual_seed(seed)
# Random class tokens: equal ones give the encoder no gradient (chapter 5)
medsaga = get_recipe("medsaga")
full = replace(medsaga, name="full", image_encoder=Full(), start="random")
model = build_model(full, "pocket", 128, classes=len(dataset.labels), seed=seed)
samples = Samples(dataset, dataset.split("train"), size=128)

# %%
from medsaga_lib.training.losses import cross_entropy_dice


def gradient(first, count=8):
    """The gradient (192, 576) of one weight matrix on `count` X-rays."""
    batch = [samples[i] for i in range(first, first + count)]
    images = torch.stack([sample["image"] for sample in batch])
    # The labels, reduced to the size of the masks
    labels = torch.stack([sample["label"][2::4, 2::4] for sample in batch])
    model.zero_grad()
    cross_entropy_dice(model(images), labels).total.backward()
    return model.sam.image_encoder.blocks[3].attn.qkv.weight.grad.T.clone()


G = gradient(0)


# %% [markdown]
# The singular value decomposition (SVD) writes $G$ as a product $U \Sigma V^\top$. The columns of $U$ and of $V$ are orthogonal and have length 1. The matrix $\Sigma$ is diagonal and has the singular values $\sigma_1 \ge \sigma_2 \ge \dots \ge 0$. The columns of $U$ are the *directions* of $G$, and $\sigma_i$ is the strength of direction $i$.
# The sum of the squares of all $\sigma_i$ is the sum of the squares of all entries of $G$. We call it the *energy* of $G$. The $r$ strongest directions hold this share of it:
#
# $$\frac{\sigma_1^2 + \dots + \sigma_r^2}{\sigma_1^2 + \dots + \sigma_{192}^2}.$$
#
# > **Predict.** Take the 16 strongest of the 192 directions. Which share of the energy do they hold in the gradient, in the weight matrix, and in a matrix of random numbers?

# %%
def energy(matrix):
    """The shares of the energy in the 1, 2, 3, ... strongest directions."""
    squares = torch.linalg.svdvals(matrix).square()
    return squares.cumsum(0) / squares.sum()


# %%
noise = torch.randn_like(G)
weight = model.sam.image_encoder.blocks[3].attn.qkv.weight.detach().T
kept = {"gradient": G, "weight": weight, "noise": noise}
for name, matrix in kept.items():
    print(f"{name:9} {energy(matrix)[15]:.1%}")

# %% tags=["figure"]
from medsaga_lib import display

ranks = [1, 4, 8, 16, 32, 64, 128, 192]
curves = [
    display.Curve(name, ranks, [energy(matrix)[r - 1].item() for r in ranks])
    for name, matrix in kept.items()
]

# %%
alt = (
    "Share of the energy against the rank, on a logarithmic axis. The curve of "
    "the gradient reaches 0.8 at rank 4. The curves of the weight matrix and "
    "of the noise rise slowly and reach 0.8 between rank 64 and rank 128."
)
axes = "rank (directions)", "share of energy"
caption = (
    "Share of the energy in the strongest directions of a gradient, of its "
    "weight matrix and of random numbers, all of 192 x 576, against the number "
    "of directions (logarithmic axis)."
)
figure = display.curve_with_interval(curves, *axes, alt, log_x=True)
display.show(figure, alt=alt, caption=caption)

# %% [markdown]
# The next figure has a slider for the rank, on the site and in a notebook with a kernel.

# %%
numbers = {
    name: [round(share, 5) for share in energy(matrix).tolist()]
    for name, matrix in kept.items()
}
display.interactive(
    "spectrum",
    {"shape": list(G.shape), "curves": numbers},
    "Choose a rank. The sentence gives the share of the energy that the "
    "strongest directions hold, and the bytes that GaLore keeps at this rank "
    "instead of Adam's two moments.",
)


# %% [markdown]
# In this gradient, 16 of 192 directions hold more than 95 % of the energy, so it is nearly low-rank. Its weight matrix is not, and random numbers are not.
# A possible reason is the following. $G$ is a sum of products of two vectors, one product for each of the 512 tokens of the batch (8 images with 64 tokens). In general, 512 products give full rank, because 512 is more than 192. But the tokens of X-rays may be so similar that most products point in a few directions.
# This is one matrix before the first step of training. Other matrices may differ.
#
# ## Adam in a subspace: rank, refresh and scale
#
# GaLore computes a basis $P$ (192 x 16) of the 16 strongest directions, the first 16 columns of $U$. Adam gets the projected gradient $R = P^\top G$, which has 16 rows instead of 192, and its moments have the shape of $R$. The product with $P$ gives Adam's step the shape of the weights again:
#
# $$\begin{aligned} R_t &= P_t^\top G_t, \\ W_t &= W_{t-1} - \eta\,\alpha\,P_t\,\mathrm{Adam}(R_t) \end{aligned}$$
#
# Here $\eta$ is the learning rate. GaLore has three values of its own, with these keys and defaults in a recipe:
#
# Table: The values of GaLore, their keys in a recipe, and their defaults.
#
# | value | key | meaning | default |
# | --- | --- | --- | --- |
# | rank $r$ | `image_encoder.rank` | number of directions in the basis | the width of the image encoder / 12, which is our choice |
# | $T$ | `image_encoder.refresh` | number of steps from one *refresh*, which computes the basis again, to the next | 200, or less in a short run, so that it has at least 10 bases |
# | $\alpha$ | `image_encoder.scale` | a fixed factor of the step | 0.25 |
#
# The next function is all of GaLore, for a matrix whose short side comes first.

# %%
def galore_step(W, G, state, t, rank, lr=1e-3, T=200, alpha=0.25):
    """The weights (m, n) after step t = 1, 2, ...; `state` keeps P, M and V."""
    beta_1, beta_2 = 0.9, 0.999
    if (t - 1) % T == 0:  # a refresh
        state["P"] = torch.linalg.svd(G, full_matrices=False).U[:, :rank]
    P = state["P"]
    R = P.T @ G  # (r, n) instead of (m, n): this line saves the memory
    state["M"] = beta_1 * state.get("M", 0) + (1 - beta_1) * R
    state["V"] = beta_2 * state.get("V", 0) + (1 - beta_2) * R**2
    M, V = state["M"] / (1 - beta_1**t), state["V"] / (1 - beta_2**t)
    return W - lr * alpha * P @ (M / (V.sqrt() + 1e-8))


# %% [markdown]
# Does the library do the same? The next cells compare 10 steps with 10 gradients and a refresh every 4 steps. As in the paper, a refresh does not change the moments.

# %%
from medsaga_lib.optim.galore import GaLoreAdamW

options = {"rank": 16, "refresh": 4, "subspace": "exact", "moments": "keep"}
theirs = torch.nn.Parameter(weight.clone())
group = {"params": [theirs], **options}
optimizer = GaLoreAdamW([group], lr=1e-3, weight_decay=0.0)
ours, state = weight.clone(), {}

# %%
for t in range(1, 11):
    theirs.grad = torch.randn_like(weight) + G / G.std()
    ours = galore_step(ours, theirs.grad, state, t, rank=16, T=4)
    optimizer.step()
moved, difference = (ours - weight).norm(), (ours - theirs).norm()
print(f"difference / change of the weights: {difference / moved:.0e}")

# %% [markdown]
# Both are equal up to rounding errors.
#
# > **Predict.** By which factor are the states smaller than Adam's, for this matrix of 192 x 576 and rank 16? The basis counts as a state.

# %%
from medsaga_lib.memory.ledger import held_bytes

adam, galore = 2 * weight.numel() * 4, held_bytes(optimizer)
print(f"Adam {adam:,} bytes, GaLore {galore:,}: factor {adam / galore:.1f}")

# %% [markdown]
# For a matrix of $m \times n$ with $m \le n$, AdamW keeps $2mn$ numbers of 4 bytes, and GaLore $2rn + mr$: here two moments of 16 x 576 and a basis of 192 x 16. The number of steps takes 4 more bytes.
#
# ## Adam's moments after a refresh of the subspace
#
# The strongest directions change during training, so $P$ is computed again every $T$ steps. Adam's first moment $M$ is a running mean of past gradients, in the coordinates of the *old* basis.
# In the paper, a refresh keeps the numbers in $M$. From then on, they are used as coordinates in the new basis. Which direction do they mean there?
#
# The simplest case is a new basis of the same subspace with the opposite sign. An SVD may return either sign.

# %%
from torch.nn.functional import cosine_similarity


def cosine(A, B):
    """The cosine of the angle between two matrices, as vectors."""
    return cosine_similarity(A.flatten(), B.flatten(), dim=0).item()


# %%
P, M = state["P"], state["M"]
flipped = -P
print(f"before and after: cosine {cosine(P @ M, flipped @ M):+.2f}")

# %% [markdown]
# The first moment now points in the opposite direction, although no gradient has changed. The sign of a singular vector has no meaning.
#
# A change of coordinates corrects this. $C = P_\mathrm{new}^\top P_\mathrm{old}$ maps old coordinates to new ones, so the first moment becomes $C M$. We say that it is *rotated*:

# %%
C = flipped.T @ P
print(f"rotated: cosine {cosine(P @ M, flipped @ (C @ M)):+.2f}")

# %% [markdown]
# The next cell makes a refresh with two different subspaces: the old basis is from the first 8 X-rays, the new one from the next 8.
#
# > **Predict.** Which share of the old subspace does the new one contain? How similar is the first moment after the refresh to the one before, if its numbers are kept, and if it is rotated?

# %%
import math

from medsaga_lib.optim.subspace import exact_basis

P_old, M = exact_basis(gradient(0), rank=16)  # M: G in this basis
P_new, _ = exact_basis(gradient(8), rank=16)
C = P_new.T @ P_old
print(f"shared: {C.square().sum() / 16:.0%} of the subspace")
for name, after in {"kept": P_new @ M, "rotated": P_new @ (C @ M)}.items():
    found = cosine(P_old @ M, after)
    angle = math.degrees(math.acos(found))
    print(f"{name:8} cosine {found:+.2f}, angle {angle:.0f} degrees")

# %% [markdown]
# If the numbers are kept, the first moment turns by about 40 degrees, although the two subspaces share most of their directions. If it is rotated, it loses the part that the new subspace cannot represent, and nothing else.
# The second moment needs another rule, because the squares of coordinates do not rotate. The function `rotate_moments` in `medsaga_lib/optim/subspace.py` contains and explains it. The library rotates both moments by default; `moments="keep"` selects the paper's method.
#
# Does this matter for training? The first moment forgets: after 20 steps, $0.9^{20} = 12$ % of its old value are left. With the paper's $T = 200$, a wrong direction disturbs about the first 20 steps after each refresh.
# The second moment forgets slowly: after 200 steps, $0.999^{200} = 82$ % of its old value are left. So wrong numbers there make steps too long or too short until the next refresh. The comparison on lungs below measures the effect on the Dice: rotated minus kept is 0.0024 ± 0.0025 there, over 5 seeds.
#
# ## GaLore at full rank is not AdamW
#
# At full rank, the subspace is the whole space, and nothing is discarded.
#
# > **Predict.** Is the step of GaLore at full rank equal to Adam's?

# %%
start = torch.zeros_like(G)
galore = galore_step(start, G, {}, t=1, rank=192, alpha=1.0)
adam_step = -1e-3 * G.sign()  # Adam's first step: lr in each entry
print(f"cosine of the two steps {cosine(galore, adam_step):.2f}")

# %% [markdown]
# The steps are different. Adam divides each *coordinate* of the gradient by its own size, so its step depends on the coordinates. GaLore's coordinates are those of the singular vectors, not the entries of the matrix.
# The library does not project a matrix if this saves no memory. Then it is PyTorch's AdamW, bit for bit; on a CPU, the one with the option `fused`:

# %%
weights = [torch.nn.Parameter(weight.clone()) for _ in range(2)]
for W in weights:
    W.grad = G.clone()
GaLoreAdamW([{"params": weights[:1], "rank": 192}]).step()
torch.optim.AdamW(weights[1:], fused=True).step()
print("equal to AdamW, bit for bit:", torch.equal(*weights))

# %% [markdown]
# ## The time cost of a refresh
#
# A refresh with an SVD of every matrix is slow. But GaLore does not need all singular vectors, and it does not need them exactly. A *randomized* method multiplies $G$ by a few random vectors, and computes a basis of the results. A *cold* start uses only random vectors. A *warm* start begins with the previous basis and is faster.
#
# > **Predict.** The matrix has the size of one in ViT-B, 768 x 3072, and the rank is 64. How many times faster is the randomized method, and which share of the energy of the exact subspace does it hold?

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
    """The seconds that a function needs for a basis, and the energy in it."""
    start = perf_counter()
    _, R = basis()
    return perf_counter() - start, R.square().sum()


# The first call is slower
timed(lambda: randomized_basis(drifted, 64, None, seed))
exact_time, exact_energy = timed(lambda: exact_basis(drifted, 64))
for name, previous in {"cold": None, "warm": P_before}.items():
    seconds, held = timed(
        lambda before=previous: randomized_basis(drifted, 64, before, seed)
    )
    faster, share = exact_time / seconds, held / exact_energy
    print(f"{name}: {faster:.0f} times faster, {share:.1%} of the exact energy")

# %% [markdown]
# The randomized method loses little energy, and the warm start loses the least here. These are single timings on an artificial matrix that changes little between two refreshes. The table at the end of the chapter has a refresh of ViT-B's 48 matrices. It also has gradients of a training run, on which the warm start loses more than the cold one.

# %% [markdown]
# ## Memory and checkpoints of the published package
#
# The package `galore-torch` 1.0 takes the first columns of $U$ as its basis. In PyTorch, such a slice is a *view*: it uses the memory of the whole matrix and keeps all of it.

# %%
U = torch.linalg.svd(torch.randn(768, 768), full_matrices=False).U
P = U[:, :32]
kept_bytes = P.untyped_storage().nbytes()
print(f"basis {P.nbytes:,} bytes, memory kept {kept_bytes:,} bytes")

# %% [markdown]
# The memory is 24 times as large as the basis, for each of the 48 matrices of ViT-B's image encoder. `P.clone()` would avoid it. The next cell runs the package on the matrix from above.

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
size = held_bytes(package)
ratio = size / held_bytes(optimizer)
print(f"states {size:,} bytes, {ratio:.1f} times as large as this library's")

# %% [markdown]
# Two of the states are not tensors: the number of steps is an `int`, and the projector is an object of a Python class.
#
# > **Predict.** A run is saved to a *checkpoint*, a file with weights and states, and continued on the next day. PyTorch loads files safely by default. What happens?

# %%
import io
import pickle

file = io.BytesIO()
torch.save(package.state_dict(), file)
file.seek(0)
try:
    torch.load(file, weights_only=True)
except pickle.UnpicklingError as error:
    lines = (line.strip() for line in str(error).split("\n"))
    reason = next(line for line in lines if "GaLore" in line)
    print("refused:", reason.partition(" was not")[0])

# %% [markdown]
# Safe loading accepts tensors and plain numbers, and refuses objects of other classes, because loading them can execute any code. This library keeps its basis as a tensor, so its checkpoints can be loaded safely.
# The file `medsaga_lib/optim/galore_published.py` has the updates of the package without its way of storing the states. A test compares the two; the table at the end of the chapter has the result.
#
# ## The part of the gradient that GaLore discards
#
# The rest of the gradient, $G - P P^\top G$, does not change the weights until a refresh finds a basis that contains it.

# %%
R = P_old.T @ gradient(0)
rest = gradient(0) - P_old @ R
lost = rest.square().sum() / gradient(0).square().sum()
print(f"rank 16 discards {lost:.1%} of the energy")

# %% [markdown]
# ### Successors of GaLore
#
# Later methods change GaLore at these places:
#
# Table: Successors of GaLore.
#
# | method | change |
# |---|---|
# | [LDAdam](https://arxiv.org/abs/2410.16103) | rotates the moments, and adds the discarded part to a later gradient |
# | [Fira](https://arxiv.org/abs/2410.01623) | also uses the discarded part, scaled |
# | [APOLLO](https://arxiv.org/abs/2412.05270) | steps along the whole gradient; moments in a random subspace give the length of the step for each column |
# | [GaLore 2](https://arxiv.org/abs/2504.20437) | uses a randomized SVD |
# | [Q-GaLore](https://arxiv.org/abs/2407.08296) | keeps the weights in 8 bits and the bases in 4 bits, and refreshes a layer only when its subspace has changed |
#
# `image_encoder.optimizer=fira` and `=apollo` select two of them in the recipe `medsaga`.
#
# ## Comparison of optimizers on lung segmentation
#
# Does the optimizer change a segmentation? The recorded runs train the pocket SAM (not SAM) at 128 px on 32 labelled X-rays, with 200 steps and a refresh every 20 steps. `kept` is this library's GaLore with kept moments, and `rotated` with rotated moments.
# A bad learning rate can make a good method look bad, so the learning rate is chosen first. The first table has one seed and many rates. The second table has three or four rates for each method, which we chose from the first, with 3 seeds. Both have the Dice on the *validation* patients.
#
# > **Predict.** How much Dice does a learning rate cost that is about 3 times too high or too low?

# %%
import json
from pathlib import Path

import pandas as pd

called = {
    "full": "AdamW",
    "samed": "LoRA",
    "fira": "Fira",
    "apollo": "APOLLO",
    "keep": "kept",
    "published": "galore-torch",
    "galore": "rotated",
}


# %%
def read(name):
    """Recorded runs, each with its method and learning rate."""
    recorded = json.loads(Path(f"recorded/{name}.json").read_text())
    runs = pd.DataFrame(recorded["runs"])
    runs["method"] = [
        next(name for part, name in called.items() if part in recipe)
        for recipe in runs["recipe"]
    ]
    return runs.assign(rate=runs["recipe"].str.rpartition("=")[2].astype(float))


# %%
def by_rate(runs):
    """The mean validation Dice over the seeds, by method and learning rate."""
    table = runs.pivot_table("val_dice", "rate", "method").rename("{:g}".format)
    return display.table(table.rename_axis("rate"))


# %% caption="Validation Dice by learning rate, one seed."
by_rate(read("optimizers_bracket"))

# %% caption="Mean validation Dice over 3 seeds by learning rate."
tried = read("optimizers_rates")
spread = tried.groupby(["method", "rate"])["val_dice"].std().mean()
print(f"standard deviation over 3 seeds: {spread:.3f}")
by_rate(tried)

# %% [markdown]
# In the second table, neighbouring rates differ by at most 0.03 Dice, and often by less than seeds do. So one seed can choose a rate by chance: galore-torch has its highest value at 0.0001 in the first table, and at 0.003 in the second, where 0.0001 was not tried again. Nor was 0.0003 of APOLLO, which is as high as its 0.1 in the first table.
# The test uses the best rate of the second table for each method. That of APOLLO is at the end of its column; the first table has a much lower Dice at the next rate, 0.3.
#
# > **Predict.** The test has 5 seeds. Rank the methods: AdamW on every weight, LoRA, galore-torch, GaLore with kept and with rotated moments, Fira, APOLLO.

# %%
origin = json.loads(Path("recorded/optimizers.json").read_text())["provenance"]
print(origin["date"], "|", origin["device"], "|", origin["data"])
tested = f"{origin['test_cases']} X-rays of {origin['test_patients']} patients"
print("test:", tested)

# %%
runs = read("optimizers")
runs["method"] += " (lr " + runs["rate"].astype(str) + ")"
table = runs.pivot(index="seed", columns="method", values="dice")
table = table[table.mean().sort_values(ascending=False).index]
baseline = next(name for name in table if name.startswith("AdamW"))

# %%
alt = (
    "Test Dice of 7 methods with 5 seeds each, between 0.89 and 0.92. The mean "
    "of AdamW is a dashed line. Fira, AdamW and rotated have the highest "
    "means, and kept is just below. LoRA, galore-torch and APOLLO have the "
    "lowest, about 0.01 below."
)
caption = (
    f"Test Dice on {tested}, for each method with its learning rate (lr). "
    "Dots are 5 seeds, bars their means; the dashed line is the mean of AdamW."
)
dots = {"lungs from 32 X-rays": table.to_dict("list")}
figure = display.dots_of_seeds(dots, "Dice", alt, baseline)
display.show(figure, alt=alt, caption=caption)

# %% [markdown]
# The next table has the mean Dice, and the mean difference to AdamW, seed by seed. The number after ± is half of a 95 % interval over 5 seeds (Student's t).

# %%
from medsaga_lib.evaluation.scores import over_seeds


def with_interval(dice, sign="", digits=3):
    """Mean ± half of the 95 % interval over the seeds."""
    mean, half = over_seeds(dice)
    return f"{mean:{sign}.{digits}f} ± {half:.{digits}f}"


# %% caption="Mean test Dice over 5 seeds, and mean difference to AdamW, with halves of 95 % intervals."
differences = table.drop(columns=baseline).sub(table[baseline], axis=0)
columns = {
    "Dice": table.agg(with_interval),
    "minus AdamW": differences.agg(with_interval, sign="+"),
}
pd.DataFrame(columns).loc[table.columns].fillna("")

# %% caption="Mean difference in test Dice of 4 pairs of methods, seed by seed."
by_name = table.rename(columns=lambda name: name.split()[0])
chosen = [
    ("rotated", "kept"),
    ("rotated", "galore-torch"),
    ("kept", "galore-torch"),
    ("kept", "LoRA"),
]
pairs = pd.DataFrame()
for one, other in chosen:
    pairs[f"{one} - {other}"] = by_name[one] - by_name[other]
pairs.agg(with_interval, sign="+", digits=4).rename("difference").to_frame()

# %% [markdown]
# - **AdamW.** The means of all 7 methods are within 0.012, on 19 X-rays of 11 patients. Fira, rotated and kept are level with AdamW: their intervals include 0. So this library's GaLore reaches the Dice of AdamW here with a part of its moments. LoRA, galore-torch and APOLLO are behind by about 0.01, and their intervals exclude 0. The intervals are over seeds; other patients would make them wider.
# - **Other pairs.** 7 methods have 21 pairs. If no two methods differed, about one of these intervals would still exclude 0.
# - **Kept and rotated.** Both have the same rate. Rotated is ahead by 0.0024 ± 0.0025, so the interval of the difference includes 0, but only just. These runs do not decide whether the rotation helps; if it does, by at most about 0.005 Dice. A possible reason is that the first moment forgets: at the next refresh, after 20 steps, 12 % of a wrong direction are left. This was not tested. With the paper's $T = 200$, these runs would have a single subspace, and both methods would be equal.
# - **galore-torch.** Its mean is below those of kept and rotated by about 0.01, and both intervals exclude 0. One disadvantage is known. Its first basis comes from the first step, in which the class tokens are equal and the gradient of the image encoder is rounding errors ([chapter 5](05_adapting_sam.ipynb)), and it is used until step 20. This library waits until there is a gradient. No run tests whether this explains the difference.
#
# ## Other packages, and AdamW with 8 or 4 bits
#
# Other packages make the states of AdamW smaller without a subspace. They *quantise* them: each number of a moment is stored as a code of 8 or 4 bits instead of 32. A code chooses one of 256 or 16 values between -1 and 1. This value is multiplied by a scale in float32 that a block of numbers shares.
# The next run compares these, and GaLore, Fira and APOLLO in packages, with this library. `python -m tools.peers` made it. The states and steps are those for stages 2 and 3 of LiteMedSAM's image encoder, with the same random gradients for all. GaLore, Fira and APOLLO have rank 26, and a refresh every 10 steps.
# The Dice comes from the training of the comparison above: the pocket SAM, 5 seeds, and the learning rate that was chosen there for the algorithm. AdamW with 8 and with 4 bits has the rate of AdamW. GaLore with 8 bits, `GaLoreAdamW8bit` of galore-torch, is not among them, and this library has none.
#
# > **Predict.** AdamW on these 5.2 million weights has 41 MB of states. Which is smaller, AdamW with 4 bits or GaLore of rank 26? Which optimizer has the slowest step on a CPU?

# %%
peers = json.loads(Path("recorded/optimizers_peers.json").read_text())
print(peers["provenance"]["date"], "|", peers["provenance"]["device"])
for package, version in peers["provenance"]["versions"].items():
    print(package, version)


# %%
def times(measured):
    """A time as a multiple of AdamW's step: the median and the range."""
    if not measured:
        return ""
    low, high = measured["ratios"]
    return f"{measured['ratio']:.1f} ({low:.1f} to {high:.1f})"


# %%
steps = pd.DataFrame(peers["steps"]).set_index(["name", "package"])
runs = pd.DataFrame(peers["runs"])
by_peer = runs.pivot(index="seed", columns=["name", "package"], values="dice")

# %%
# The Dice of this library's optimizers, from the comparison above
here = {
    ("AdamW, foreach", "torch"): "AdamW",
    ("GaLore", "medsaga-lib"): "rotated",
    ("GaLore", "galore-torch"): "galore-torch",
    ("Fira", "medsaga-lib"): "Fira",
    ("APOLLO", "medsaga-lib"): "APOLLO",
}
for peer, method in here.items():
    by_peer[peer] = by_name[method]

# %% caption="Optimizers of this library and 5 packages: states and times of a step on LiteMedSAM's stages 2 and 3, and Dice of the pocket SAM."
columns = {
    "states, MB": (steps["state_bytes"] / 1e6).round(1),
    "step / AdamW's": steps["plain"].map(times),
    "with refresh": steps["refresh"].map(times),
    "Dice": by_peer.agg(with_interval),
}
pd.DataFrame(columns).loc[steps.index].fillna("")

# %% [markdown]
# A step is compared with that of AdamW with PyTorch's option `foreach`, on one core: the median of 9 turns, and the smallest and largest. The states are all that is held, codes and scales too. The Dice of galore-torch is that of its updates in `galore_published.py`, as in the comparison above.
#
# - **Memory.** AdamW with 4 bits and this library's GaLore of rank 26 have 5.9 MB of states each, 1/7 of 41.4 MB. At a fixed rank, GaLore gains with larger matrices: its states grow with a side of a matrix, and those of 4 bits with the product of both sides. With this library's default rank, 1/12 of the width, both grow alike.
# - **galore-torch** keeps the whole matrix of singular vectors, as shown above. It projects only matrices. The kernels of convolutions, 825,344 of these weights, keep two moments of full size there: 6.6 MB. This library projects them as well.
# - **Time.** AdamW with 8 or 4 bits has the slowest plain steps here. bitsandbytes takes 4 to 5 times AdamW's step, and torchao 11 to 13 times. Both are written for a GPU, and were not measured on one. PyTorch's `fused` AdamW takes less than a third of `foreach`.
# - **Refresh.** The packages compute an SVD of every matrix, and a step with it takes as long as about 12 plain steps of AdamW; with this library's randomized method, it takes 2 to 4. With `stagger=True`, this library spreads the refreshes over the $T$ steps, so that no step pays for all of them. APOLLO draws a random subspace and needs no SVD.
#
# The next table has the mean difference in Dice between a peer and the optimizer of the same algorithm above, seed by seed.

# %% caption="Mean difference in test Dice to the optimizer in the last column, seed by seed."
pairs = {
    ("AdamW, 8 bits", "bitsandbytes"): "AdamW",
    ("AdamW, 8 bits", "torchao"): "AdamW",
    ("AdamW, 4 bits", "torchao"): "AdamW",
    ("GaLore", "pytorch-optimizer"): "galore-torch",
    ("Fira", "pytorch-optimizer"): "Fira",
    ("APOLLO", "pytorch-optimizer"): "APOLLO",
}
minus = pd.DataFrame({p: by_peer[p] - by_name[m] for p, m in pairs.items()})
minus = minus.agg(with_interval, sign="+").rename("difference").to_frame()
minus.assign(to=pairs.values())


# %% [markdown]
# - **Few bits.** AdamW with 8 or 4 bits reaches the Dice of AdamW: all three intervals include 0.
# - **GaLore.** pytorch-optimizer is level with galore-torch, whose algorithm it has.
# - **Fira and APOLLO.** Both have a lower Dice in pytorch-optimizer, and both intervals exclude 0. The learning rates were chosen for this library's optimizers, and a high one such as APOLLO's 0.1 may suit the other less. APOLLO as published steps along the whole gradient, and takes only the length of the step from the subspace. pytorch-optimizer's version 4.1.0 steps along the projected gradient, so between two refreshes it changes only 16 directions of a matrix of the pocket SAM, on which the Dice was measured. No run tests whether this is the reason.
#
# ### Which optimizer?
#
# The mean Dice of AdamW with 32, 8 and 4 bits, Fira, and GaLore with kept and rotated moments differ by at most 0.005. On a CPU and with these small networks, the states are small beside the activations ([chapter 3](03_memory_ledger.ipynb)), and AdamW with `fused` has the fastest step.
#
# ## Tested properties of this implementation
#
# The last table lists properties of this library's GaLore and of its memory ledger, with a goal for each. `python -m tools.targets` measures all of them. "Share of the way" is the length of a difference between two results, divided by the length of the change of the weights. The table has the least and the largest value of a property that was measured several times.

# %%
def short(number):
    """Whole numbers in full, others with 4 digits."""
    return f"{number:,.0f}" if number == round(number) else f"{number:.4g}"


def span(values):
    """The least and the largest value, or the only one."""
    return " to ".join(dict.fromkeys([short(min(values)), short(max(values))]))


# %% caption="Tested properties of GaLore and of the ledger, with their goals."
targets = json.loads(Path("recorded/targets.json").read_text())
print(targets["provenance"]["date"], "|", targets["provenance"]["device"])
lines = pd.DataFrame(targets["lines"]).set_index("target")
lines["measured"] = lines["values"].map(span)
pd.options.display.max_colwidth = None  # whole sentences
lines[["what", "goal", "measured"]]

# %% [markdown]
# - A value of 0 means that two results are exactly equal. At full rank, the library takes AdamW's steps, because it does not project there. The signs of the basis change nothing. A resumed run has exactly the weights of a run without a break.
# - All goals are met in this run, but not on every machine. Here, a refresh is 25.6 times as fast as the package's. On one machine with AMD's processor it was 165 times as fast, and a plain step was 0.97 times as fast, where the goal is 1 ([chapter 8](08_lite_medsam.ipynb)).
# - A plain step is 1.12 times as fast as the package's. A plain step has no refresh, so both spend most of their time on the same two matrix products.
# - The peaks are compared with PyTorch's MemTracker, not with a GPU.
#
# The table does not say whether GaLore is the right choice. [Will it fit my GPU?](../book/fit.md) answers this for memory, and the comparison above for the Dice on one task.

# %% [markdown]
# ## Questions

# %% [markdown] tags=["question"]
# **Question 1.** At a refresh, an SVD returns the same directions with opposite signs, and the first moment $M$ keeps its numbers. Why does the momentum $P M$ point backwards?
#
# - **A.** The gradient has changed its sign, too.
# - **B.** The refresh sets the moments to 0.
# - **C.** $M$ contains coordinates in the old basis, and in the new basis the same coordinates mean the opposite direction.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: the gradient is the same. The sign of a singular vector is arbitrary.
# - **B.** No: then there would be no momentum, instead of the opposite one.
# - **C.** Yes: the momentum is $P M$, so $P$ and $M$ have to change together.
# </details>

# %% [markdown] tags=["question"]
# **Question 2.** GaLore at full rank discards nothing. Why does its first step differ from AdamW's all the same?
#
# - **A.** Adam divides each coordinate by its own size, and GaLore's coordinates are those of the singular vectors.
# - **B.** The SVD has rounding errors.
# - **C.** The scale $\alpha$ shortens the step.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** Yes: Adam depends on its coordinates. In another basis it is another optimizer.
# - **B.** No: rounding errors are near $10^{-7}$, and the cosine of the two steps is far from 1.
# - **C.** No: a shorter step has the same direction, and $\alpha$ is 1 in this comparison.
# </details>

# %% [markdown] tags=["question"]
# **Question 3.** The gradient of a matrix has the energy of noise: all its singular values are similar. Which statement about GaLore of rank 16 on a matrix with 192 rows is right?
#
# - **A.** It loses nothing, because it takes the 16 strongest directions.
# - **B.** Its states are as small as before, but each step follows a small part of the gradient.
# - **C.** Its states become larger than Adam's.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: the line *noise* shows how small the share of the strongest 16 is then.
# - **B.** Yes: the states depend only on shape and rank. The saving is the same, and the assumption behind it does not hold.
# - **C.** No: their size depends on the shape and the rank, not on the content of the gradient.
# </details>

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: calculate (easy, 5 minutes)
# A matrix has 768 x 3072 numbers. How many bytes do GaLore's states take at rank 64, both moments and the basis, in single precision?

# %% tags=["exercise"]
states = None

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# states = 4 * (2 * 64 * 3072 + 768 * 64)
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
from medsaga_lib.display.answers import as_number, as_returned
from medsaga_lib.optim.galore import projected_bytes

given = as_number("states", states)
expected = sum(projected_bytes((768, 3072), 64))
assert given != expected / 4, (
    f"{given:,.0f} is the count of numbers; each has 4 bytes."
)
assert given == expected, (
    f"{given:,.0f} is wrong: 2 moments (r, n) and a basis (m, r) of 4 bytes."
)

# %% [markdown]
# ### Exercise 2: calculate (medium, 5 minutes)
# From which rank on do GaLore's states take at least as much memory as Adam's two moments, for the same matrix? Put the smallest such rank into `useless_from`.

# %% tags=["exercise"]
useless_from = None

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# m, n = 768, 3072
# useless_from = 1
# while (2 * n + m) * useless_from < 2 * m * n:
#     useless_from += 1
# # The basis is the price: without it, every rank below 768 would save memory.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
rank, shape = as_number("useless_from", useless_from), (768, 3072)
assert rank in range(1, 769), (
    f"useless_from is {useless_from}; it must be a rank from 1 to 768."
)
sizes = (sum(projected_bytes(shape, int(rank) - less)) for less in (0, 1))
at, below = (size / (2 * 4 * 768 * 3072) for size in sizes)
assert at >= 1, (
    f"At rank {rank:.0f}, GaLore takes {at:.1%} of Adam's two moments."
)
assert below < 1, (
    f"Rank {rank - 1:.0f} is already useless: it takes {below:.1%}. "
    "Count the basis."
)


# %% [markdown]
# ### Exercise 3: find the fault (medium, 10 minutes)
# A colleague's optimizer takes the first moment through a refresh by `carry`. The training works, and the loss at each refresh looks normal. The cell below renews the basis within the same subspace, so the momentum $P M$ should not change; it prints the cosine of the momentum before and after. Find the fault, and repair `carry`. `M` has the shape (r, n) and both bases have the shape (m, r).

# %% tags=["exercise"]
def carry(M, P_old, P_new):
    return M


# Another basis of the same subspace
P_same = P_old @ torch.linalg.qr(torch.randn(16, 16)).Q
print(f"cosine {cosine(P_old @ M, P_same @ carry(M, P_old, P_same)):+.2f}")

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def carry(M, P_old, P_new):
#     # M are coordinates, P_old @ M is the momentum, and P_new.T gives its new
#     # coordinates. The part of it outside of the new subspace is lost.
#     return (P_new.T @ P_old) @ M
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
carried = as_returned("carry(M, P_old, P_same)", carry(M, P_old, P_same), M)
error = (P_same @ carried - P_old @ M).norm() / M.norm()
assert error < 1e-4, (
    f"The momentum changed by {error:.0%} of its length although the subspace "
    "is the same: which coordinates does P_old @ M have in the new basis?"
)
# The part of the momentum that another subspace can represent
expected = P_new @ (P_new.T @ (P_old @ M))
error = (P_new @ carry(M, P_old, P_new) - expected).norm() / expected.norm()
assert error < 1e-4, (
    f"In another subspace, the momentum is wrong by {error:.0%} of its length."
)


# %% [markdown]
# ### Exercise 4: experiment (hard, 15 minutes)
# Change the subspace: take random directions instead of the strongest. Write `random_share(matrix, rank)`, which draws one random orthonormal basis with this number of directions and returns the share of the matrix's energy in it. Fill `by_rank` with the mean over 20 draws for `G` and the ranks 4, 16 and 64. Compare with the strongest directions, and explain the numbers.
#
# <details><summary>Theory</summary>
#
# A random subspace of 16 of 192 directions holds 16/192 = 8.3 % of any matrix on average, whether it is low-rank or not. A single draw of a matrix with few directions can be far from this mean.
# </details>

# %% tags=["exercise"]
def random_share(matrix, rank):
    """The share of the energy of a matrix in a random orthonormal basis."""
    return rank / 192  # this is expected, not measured


by_rank = {rank: random_share(G, rank) for rank in (4, 16, 64)}

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def random_share(matrix, rank):
#     """The share of the energy of a matrix in a random orthonormal basis."""
#     Q = torch.linalg.qr(torch.randn(len(matrix), rank)).Q
#     return float((Q.T @ matrix).square().sum() / matrix.square().sum())
#
#
# by_rank = {}
# for rank in (4, 16, 64):
#     share = sum(random_share(G, rank) for _ in range(20)) / 20
#     by_rank[rank], strongest = share, energy(G)[rank - 1]
#     print(f"rank {rank}: random {share:.1%}, strongest {strongest:.1%}")
# # On average, each direction holds 1/192 of the energy. GaLore works because the
# # strongest directions of this gradient hold much more, and not because a few
# # directions are enough for any gradient.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
flat = random_share(torch.eye(192), 16)
flat = as_number("random_share(torch.eye(192), 16)", flat)
assert abs(flat - 16 / 192) < 1e-4, (
    "For the identity matrix, every orthonormal basis of 16 holds 16/192 of "
    f"the energy, not {flat:.3f}: make the directions orthonormal, and square "
    "the lengths."
)
draws = [random_share(G, 16) for _ in range(4)]
assert max(draws) > min(draws), (
    f"4 draws give exactly {draws[0]:.4f}, so nothing is drawn."
)
assert {*by_rank} == {4, 16, 64}, (
    f"`by_rank` has the ranks {[*by_rank]}; fill it for 4, 16 and 64."
)
for rank, share in by_rank.items():
    name, mean = f"by_rank[{rank}]", rank / 192
    measured = as_number(name, share)
    assert measured != mean, (
        f"{name} is exactly {rank}/192, which no 20 draws give."
    )
    assert abs(measured - mean) < 0.06, (
        f"{name} is {measured:.3f}; the mean of 20 draws is near {mean:.3f}."
    )

# %% [markdown]
# ## Summary
#
# - The gradient measured here is nearly low-rank, and its weight matrix is not. The function `energy` measures yours.
# - GaLore is Adam on $R = P^\top G$: the moments have $r$ rows instead of $m$, and the basis $P$ is one more state.
# - After a refresh, the old numbers of the moments mean other directions. The library rotates the moments into the new basis. In the recorded runs, its effect on the Dice is at most about 0.005, and may be none.
# - GaLore at full rank is not AdamW, because Adam depends on the coordinates.
# - GaLore reduces the states, one of the four parts of [chapter 3](03_memory_ledger.ipynb)'s ledger.
# - AdamW with 8 or 4 bits, Fira and this library's GaLore are level with AdamW in Dice here; on a CPU, AdamW with `fused` is the fastest.
