# %% [markdown]
# # 6. SVD affine tuning and label names
#
# **You will be able to**
# - explain what a singular value does in a layer, and show what happens to a mask when one of them is set to 0,
# - write S-SAM's layer, and explain its scale, its shift and its ReLU,
# - show which changes of a weight matrix LoRA, GaLore and S-SAM each allow,
# - prompt a network with the name of an organ, and test how much the network uses the name.
#
# **Before this** [Chapter 5](05_adapting_sam.ipynb); the singular value decomposition as in [chapter 4](04_galore.ipynb).
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
profile = "quick"  # "colab" runs the same cells: nothing here needs a GPU
seed = 0

# %% [markdown]
# ## The singular value decomposition of a layer
#
# LoRA adds a small matrix to a weight matrix, and GaLore compresses its gradient. S-SAM ([Paranjape et al. 2024](https://arxiv.org/abs/2408.06447)) decomposes the weight matrix itself. Every matrix is a product of three matrices, its singular value decomposition (SVD):
#
# $$ W = U\,\mathrm{diag}(s)\,V^\top = \sum_i s_i\, u_i v_i^\top. $$
#
# A linear layer with this matrix works in three steps. The product $v_i^\top x$ is the component of the input $x$ along the direction $v_i$. The singular value $s_i$ multiplies it. The vector $u_i$ is its direction in the output.
# S-SAM freezes all directions and trains how much each of them counts.
#
# We know S-SAM from its [public code](https://github.com/JayParanjape/SVDSAM), and from the reviews and the rebuttal that MICCAI publishes with the paper.
#
# The network is LiteMedSAM with its published weights, and the images are the chest X-rays of chapter 5. LiteMedSAM has probably seen X-rays of this data set in its training, with masks of other annotators ([Where the weights come from](../book/weights.md)). Where `MEDSAGA_DATA` names no folder, drawn chest X-rays replace them.

# %% tags=["data"]
from medsaga_lib.data.catalog import open_or_phantoms

dataset = open_or_phantoms("cxr_hannover_lungs")
print(dataset.describe())

# %% [markdown]
# TinyViT, the image encoder of LiteMedSAM, has 4 stages. We take three matrices of the last block of its last stage: `qkv` makes queries, keys and values of the attention, `proj` is the last layer of the attention, and `fc1` is the first layer of the MLP, the two layers that follow.

# %%
import torch

from medsaga_lib.models.sam import build_sam
from medsaga_lib.models.weights import load_state

size = 128
sam = build_sam("lite_medsam", size).eval()
sam.load_state_dict(load_state("lite_medsam", size))
last = sam.image_encoder.layers[3].blocks[1]
plain = {"qkv": last.attn.qkv, "proj": last.attn.proj, "fc1": last.mlp.fc1}

# %% [markdown]
# > **Predict.** Each of these matrices has 320 singular values. Is the largest far above the second? Is it so in a matrix of random numbers?

# %%
import pandas as pd

torch.manual_seed(seed)
matrices = {name: layer.weight.detach() for name, layer in plain.items()}
fc1 = matrices["fc1"]
matrices["random, as fc1"] = fc1.std() * torch.randn(fc1.shape)
spectra = {name: torch.linalg.svdvals(m) for name, m in matrices.items()}
numbers = [1, 2, 3, 6, 25, 100, 320]


# %%
def table_of(values):
    """One row for each matrix: the entries of `values` for the numbers."""
    chosen = [number - 1 for number in numbers]
    rows = {name: v[chosen].tolist() for name, v in values.items()}
    return pd.DataFrame(rows, numbers).T


# %% caption="Singular values of 3 matrices of LiteMedSAM and of a random matrix, by their number."
table_of(spectra).round(3)

# %%
from medsaga_lib import display

display.use_style()
curves = [
    display.Curve(name, numbers, [*row])
    for name, row in table_of(spectra).T.items()
]
axes = "number of the singular value", "singular value"
alt = (
    "Singular values of four matrices by number, with a logarithmic axis for "
    "the numbers. fc1 starts at 14 and falls to 7 at the second value. proj "
    "starts near 7, falls to 3 at the second value and ends near 0. qkv starts "
    "near 8 and falls slowly. The random matrix starts near 5 and falls slowly."
)
caption = (
    "Singular values of 3 weight matrices of LiteMedSAM and of a random matrix "
    "with the standard deviation of fc1, from the largest to the smallest "
    "(logarithmic axis)."
)
figure = display.curve_with_interval(curves, *axes, alt, log_x=True)
display.show(figure, alt=alt, caption=caption)

# %% [markdown]
# The largest value of `fc1` and the largest value of `proj` are about twice the second. In `qkv` and in the random matrix, the first two are close to each other. `proj` also has values near 0.
#
# ## The effect of one singular value
#
# Now we set one singular value of one layer to 0, and everything else stays as it is. `SVDLayer` is the library's linear layer in the three steps above. Its `scale` has one factor for each singular value, and all factors are 1 at the start.
# The early stages do not change, so their output is computed once (`early`). The last stage and the *neck*, the convolutions after it, are computed again for each trial (`late`). We use 4 test X-rays, which we chose because the network gives good masks from boxes on them.

# %%
from medsaga_lib.adapt.svd import SVDLayer

layers = {name: SVDLayer(layer) for name, layer in plain.items()}
last.attn.qkv, last.attn.proj, last.mlp.fc1 = layers.values()

# %%
from medsaga_lib.data.cases import read_pair
from medsaga_lib.models.feeding import FEED_OF
from medsaga_lib.models.heads import normalise
from medsaga_lib.models.stages import early, late

feed = FEED_OF["lite_medsam"]


def input_of(picture, side):
    """The network's input (1, 3, side, side) for an X-ray."""
    pixels = torch.tensor(picture.pixels)[None, None]
    return feed.images(pixels, side).expand(-1, 3, -1, -1)


# %%
pairs = [read_pair(dataset, case) for case in dataset.split("test")[4:8]]
with torch.no_grad():
    inputs = torch.cat([input_of(picture, size) for picture, _ in pairs])
    kept = early(sam.image_encoder, normalise(sam, inputs), 3)


@torch.no_grad()
def embeddings(name="qkv", number=1, factor=1.0):
    """The 4 image embeddings with one singular value times `factor`."""
    layers[name].scale[number - 1] = factor
    found = late(sam.image_encoder, kept, 3)
    layers[name].scale[number - 1] = 1
    return found


# %% [markdown]
# > **Predict.** You set the largest of the 320 values of one layer to 0. By what percentage does the image embedding change? Does the largest value always have the largest effect?

# %%
untouched = embeddings()


# %%
def change(*trial):
    """The mean change of the 4 embeddings, relative to their norm."""
    moved = (embeddings(*trial) - untouched).flatten(1).norm(dim=1)
    return (moved / untouched.flatten(1).norm(dim=1)).mean().item()


# %% caption="Change of the image embedding after one singular value is set to 0."
off = {name: [change(name, i, 0.0) for i in numbers] for name in layers}
pd.DataFrame(off, numbers).T.map("{:.1%}".format)

# %% [markdown]
# Each number is the norm of the change, as a percentage of the norm of the embedding. Without the largest value of `qkv`, the embedding changes by less than 10 %. Without that of `fc1`, it changes by more than its own norm. In `qkv` and `proj`, the largest value does not have the largest effect.
# The effect also depends on the input: a direction with a large singular value has little effect if the inputs have a small component along it. The next table multiplies each singular value by the root mean square of the component $v_i^\top x$ over all tokens of the 4 X-rays. The product is the strength of the direction in the output of the layer.

# %%
given = {}  # layer -> its input, with one token in each row
for name, layer in layers.items():
    keep = lambda _, x, n=name: given.update({n: x[0].flatten(0, -2)})
    layer.register_forward_pre_hook(keep)

# %% caption="Singular value times the root mean square of the input along its direction."
embeddings()  # with these hooks
strength = {
    name: layer.singular * (given[name] @ layer.right.T).square().mean(0).sqrt()
    for name, layer in layers.items()
}
table_of(strength).round(2)

# %% [markdown] tags=["real"]
# In `fc1`, the 1st direction is about 10 times as strong as the 2nd, and has by far the largest effect. In `qkv` and `proj`, the strength does not explain the effects. In `qkv`, the 3rd direction is about 20 times as strong as the 1st and has nearly the same effect. In `proj`, the 1st direction is the strongest, but the 6th has the largest effect. The effect of a direction also depends on the layers after it.

# %%
component = given["fc1"] @ layers["fc1"].right[0]
mean, std = component.mean(), component.std()
print(f"component along v_1: {mean:.2f}, standard deviation {std:.2f}")

# %% [markdown]
# The input of `fc1` has nearly the same component along $v_1$ in every token. The first direction of `fc1` therefore adds nearly the same vector to every token, as a bias does.
#
# The result of SAM is a mask, not an embedding, so we also compare masks. The prompt of each lung is the exact box around the annotator's mask. The measure is the mean IoU over all lungs of the 4 X-rays, with the masks of the untouched network and with those of the annotator.
#
# > **Predict.** Without the 6th value of `proj`, the embedding changes by more than 30 %. Does the mask change?

# %%
import numpy as np

from medsaga_lib.bench.boxes import iou
from medsaga_lib.data.prompts import box_of
from medsaga_lib.inference.box_decoder import segment_boxes


def masks(found):
    """The label maps of the 4 X-rays, from the boxes of all labels."""
    maps = []
    for embedding, (_, truth) in zip(found, pairs, strict=True):
        values = [int(value) for value in np.unique(truth) if value]
        boxes = np.stack([box_of(truth == value) for value in values])
        frame = feed.frame(truth.shape, size)
        asked = torch.tensor(boxes).float(), truth.shape, values, frame
        maps.append(segment_boxes(sam, embedding[None], *asked).labels)
    return maps


# %%
def mean_iou(maps, others):
    """The mean IoU of all labels of two lists of label maps."""
    both = zip(maps, others, strict=True)
    values = [iou(a == v, b == v) for a, b in both for v in np.unique(b) if v]
    return np.mean(values)


# %%
trials = {
    "untouched": ("fc1", 1, 1.0),
    "fc1, 1st off": ("fc1", 1, 0.0),
    "fc1, 2nd off": ("fc1", 2, 0.0),
    "proj, 6th off": ("proj", 6, 0.0),
}
found = {name: masks(embeddings(*trial)) for name, trial in trials.items()}

# %% caption="Effect of one removed singular value on the embedding and on the masks. Likely seen by LiteMedSAM: lungs."
truths = [truth for _, truth in pairs]
rows = {}
for name, maps in found.items():
    rows[name] = {
        "embedding changes by": change(*trials[name]),
        "IoU with the untouched mask": mean_iou(maps, found["untouched"]),
        "IoU with the annotator's mask": mean_iou(maps, truths),
    }
pd.DataFrame(rows).T.round(2)

# %%
picture, truth = pairs[1]
panels = [
    display.Panel(picture.pixels, truth, maps[1], name)
    for name, maps in found.items()
]
alt = (
    "One chest X-ray four times, with dashed contours of the annotator and "
    "solid contours of the masks from boxes. Untouched, the masks follow both "
    "lungs. Without the 1st singular value of fc1, large parts of both lungs "
    "are missing. Without the 2nd of fc1 or the 6th of proj, the masks are "
    "nearly the same as untouched."
)
caption = (
    "LiteMedSAM's masks of both lungs from exact boxes (solid), untouched and "
    "with one singular value set to 0; dashed: the annotator's masks."
)
figure = display.grid(panels, dataset.labels, alt, columns=4)
display.show(figure, alt=alt, caption=caption)
print(dataset.citation, "|", dataset.licence)


# %% [markdown] tags=["real"]
# Without the 1st singular value of `fc1`, the masks lose large parts of the lungs. In the last two rows of the table the embedding changes as well, but the masks stay nearly the same. A large change of the embedding is therefore not always a large change of the mask.
# The untouched network also differs from the annotators. LiteMedSAM segments the air in the lungs, and the annotators include the lung behind the heart.

# %% [markdown]
# ## S-SAM's layer
#
# S-SAM gives each singular value a scale $a_i$ and a shift $b_i$. A singular value cannot be negative, so a ReLU sets negative results to 0:
#
# $$ W' = U\,\mathrm{diag}\big(\mathrm{ReLU}(a \odot s + b)\big)\,V^\top. $$
#
# At the start $a = 1$ and $b = 0$, so the network computes the same as before. The next function computes this weight:

# %%
def ssam_weight(W, a, b):
    """The weight that S-SAM makes of W (m, n); a and b are (min(m, n),)."""
    U, s, Vh = torch.linalg.svd(W, full_matrices=False)
    return U @ torch.diag(torch.relu(a * s + b)) @ Vh


# %% [markdown]
# The next cell compares the function with the library's layer, for random scales and shifts.

# %%
torch.manual_seed(seed)
W, layer = matrices["qkv"], SVDLayer(plain["qkv"])
with torch.no_grad():
    layer.scale.normal_(1, 0.5), layer.shift.normal_(0, 0.5)
    x = torch.randn(10, 320)
    ours = x @ ssam_weight(W, layer.scale, layer.shift).T + layer.bias
    print(f"largest difference {(ours - layer(x)).abs().max():.0e}")
    print(f"switched off: {(layer.values() == 0).sum()} of 320")

# %% [markdown]
# The two differ by rounding errors alone. The library does not compute $W'$: it multiplies the input by $V^\top$, by the values and by $U$, one after the other.
#
# ## Scale and shift: why two numbers for one singular value?
#
# A scale alone can give a positive singular value any size. SVF ([Sun et al. 2022](https://arxiv.org/abs/2206.06122)) trains scales alone, and a reviewer of S-SAM called the shift the only difference between the two methods.
# The shift changes the speed of training. Adam moves every parameter by about the learning rate $\eta$ in each step, even if its effect is small. A step of $a_i$ therefore changes the singular value by about $\eta s_i$, and a step of $b_i$ changes it by about $\eta$.
#
# The next experiment takes `proj`, which has values near 0. The target is the same list of values in the opposite order: large values must become small, and small values large.
#
# > **Predict.** After 200 steps with a learning rate of 0.01, which values miss the target with scales alone, and which with scales and shifts?

# %%
wanted = spectra["proj"].flip(0)


def reached(shift, steps=200):
    """The singular values after Adam has moved them towards `wanted`."""
    layer = SVDLayer(plain["proj"], shift)
    layer.bias = None
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        (layer.values() - wanted).square().sum().backward()
        optimizer.step()
    return layer.values().detach()


# %%
ends = {"start": spectra["proj"]}
ends |= {"scales alone": reached(False), "scales and shifts": reached(True)}
ends["target"] = wanted

# %%
points = [1, 2, 3, 6, 12, 25, *range(50, 276, 25), 290, 305, 315, 318, 319, 320]
curves = [
    display.Curve(name, points, [s[i - 1] for i in points])
    for name, s in ends.items()
]
alt = (
    "Singular values by number. The start falls from 7 to 0, and the target "
    "rises from 0 to 7. With scales alone, the values reach the target up to "
    "about number 225 and then fall to 0 at the end. With scales and shifts, "
    "the values reach the target up to about number 275 and end near 2."
)
caption = (
    "Singular values of proj before the training (start), their target, and "
    "the values after 200 steps with scales alone and with scales and shifts."
)
figure = display.curve_with_interval(curves, *axes, alt)
display.show(figure, alt=alt, caption=caption)

# %% [markdown]
# With scales alone, the values near 0 stay near 0. With shifts, the values from about number 275 on miss the target, too: in 200 steps of 0.01, a shift moves by at most about 2. But they grow to nearly 2 in the same 200 steps: the shift can switch directions *on*.
# The ReLU can switch directions *off*: where $a_i s_i + b_i$ is below 0, the direction is removed. The next cell removes the first direction. It prints the gradients of $a$ and $b$ for the first two directions.

# %%
without = SVDLayer(plain["proj"])
without.shift.data[0] = -10
without(torch.randn(5, 320)).square().sum().backward()

# %% caption="A removed direction and the next one, with the gradients of the scale a and the shift b."
rows = {"value": without.values(), "gradient of a": without.scale.grad}
rows["gradient of b"] = without.shift.grad
rows = {name: row[:2].tolist() for name, row in rows.items()}
pd.DataFrame(rows, ["1st", "2nd"]).T.round(1)

# %% [markdown]
# Both gradients of the first direction are 0, so no later batch can bring it back. Weight decay acts without a gradient, but it multiplies $a_i$ and $b_i$ by the same factor, so $a_i s_i + b_i$ stays negative.
# Weight decay also pulls every $a_i$ towards 0, although the layer is unchanged at $a_i = 1$.
#
# ## Which changes of a weight matrix are possible?
#
# We train LoRA with rank 4 on $q$ and $v$ (SAMed), GaLore with rank 16 (MedSAGa), and S-SAM. Each method trains the last stage for 6 steps on 4 X-rays at 64 px, without weight decay. GaLore changes its subspace after 3 steps. Then we compute the change $W' - W$ of the matrix `qkv`.
#
# > **Predict.** What is the rank of the change, for each of the three methods?

# %%
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.recipe import changed
from medsaga_lib.training.loop import train
from medsaga_lib.training.run_folder import Settings

short = ["image_encoder.from_stage=3", "image_encoder.copies=1", "batch=2"]
short += ["steps=6", "weight_decay=0"]
subspaces = ["image_encoder.rank=16", "image_encoder.refresh=3"]
subspaces += ["image_encoder.bases=0"]
recipes = {
    "LoRA (SAMed)": changed(get_recipe("samed"), [*short, "lr=0.001"]),
    "GaLore (MedSAGa)": changed(get_recipe("medsaga"), [*short, *subspaces]),
    "S-SAM": changed(get_recipe("s_sam"), [*short, "lr=0.01"]),
}

# %%
settings = Settings(
    shots=4, backbone="lite_medsam", size=64, seed=seed, validations=0
)
moved = {}
for name, recipe in recipes.items():
    result = train(recipe, dataset, settings, progress=False)
    encoder = result.model.sam.image_encoder
    if name != "GaLore (MedSAGa)":  # GaLore adds nothing that has to be merged
        recipe.image_encoder.merge(encoder)
    moved[name] = encoder.layers[3].blocks[1].attn.qkv.weight.detach() - W

# %%
for name, difference in moved.items():
    rank = torch.linalg.matrix_rank(difference, rtol=1e-3)
    share = difference.norm() / W.norm()
    print(f"{name:16} rank {rank:3}, norm of the change {share:.2%} of W's")

# %% [markdown]
# LoRA changes $q$ and $v$ with rank 4 each. GaLore changes the matrix with rank 16 in each of its two subspaces. The change of S-SAM has nearly the full rank, 320. In the rebuttal, its authors call this "full-rank fine-tuning" and name it as an advantage over LoRA.
# However, a full rank is not the same as many degrees of freedom. In the coordinates of the matrix, the change is $U^\top (W' - W)\,V$. Entry $(i, j)$ is the change of the weight from the input direction $v_j$ to the output direction $u_i$.

# %%
U, _, Vh = torch.linalg.svd(W, full_matrices=False)
entries = {name: (U.T @ delta @ Vh.T).abs() for name, delta in moved.items()}

# %%
panels = []
for name, sizes in entries.items():
    part = sizes[:64, :64]  # of the 64 largest singular values
    bright = (part / part.flatten().quantile(0.999)).clamp(0, 1).sqrt()
    panels.append(display.Panel(bright.numpy(), title=name))
alt = (
    "Three squares of 64 by 64 entries, bright where the change is large. LoRA "
    "and GaLore have entries everywhere. S-SAM is black outside its diagonal."
)
caption = (
    "Change of qkv in the coordinates of the matrix, for the directions of its "
    "64 largest singular values. Bright is large, relative to each method's "
    "largest entries."
)
display.show(display.grid(panels, {}, alt), alt=alt, caption=caption)

# %% [markdown]
# LoRA can connect any input direction with any output direction, within a low rank. GaLore can, too: its rank is low in each subspace, but the sum over many subspaces can have full rank. In S-SAM, all entries outside the diagonal are 0 and stay 0. S-SAM has 2 numbers for each of the 320 values of this matrix. It can change the strength of existing directions, but it cannot learn new ones.
# S-SAM also trains the LayerNorms of encoder and decoder, the table of positions of a ViT, and the text layer, which a later section explains.
#
# ## The number of trained parameters
#
# The abstract of S-SAM says that it trains "0.4% of SAM's parameters". The next cells count the trained parameters on the paper's backbone, ViT-B, at 256 px. The count needs no weights.
#
# > **Predict.** Which of the trained parts is the largest: scales and shifts, LayerNorms, positions, or the text layer? And what happens at 512 px?

# %%
from collections import Counter

from medsaga_lib.memory.plan import count
from medsaga_lib.recipes.build import build_model, trainable


def kinds(model):
    """The number of trained parameters of each kind."""
    total = Counter()
    for name, tensor in trainable(model).items():
        place = "decoder" if "mask_decoder" in name else "encoder"
        kind = f"{place} norms" if "norm" in name else name.split(".")[-1]
        kind = "text layer" if name.startswith("affine") else kind
        total[kind] += tensor.numel()
    return dict(total)


# %%
s_sam = get_recipe("s_sam")
with torch.device("meta"):  # shapes without memory
    whole = sum(p.numel() for p in build_sam("vit_b", 1024).parameters())
    on_vit_b = build_model(s_sam, "vit_b", 256, classes=8, weights="random")
print(f"SAM with ViT-B: {whole:,}")
print(kinds(on_vit_b))

# %% caption="Trained parameters on ViT-B with 8 classes by input size, and their share of SAM's parameters."
rows = {}
for name in ("s_sam", "samed"):
    recipe = get_recipe(name)
    frozen = changed(recipe, ["decoder=frozen"])
    for how, one in {"": recipe, ", decoder frozen": frozen}.items():
        row = rows.setdefault(f"{recipe.method}{how}", {})
        for side in (256, 512, 1024):
            trains = count(one, "vit_b", side, classes=8).trainable
            row[f"{side} px"] = f"{trains:,} ({trains / whole:.2%})"
pd.DataFrame(rows).T

# %% [markdown]
# The published code trains 444,672 parameters, as S-SAM does here at 256 px. One reviewer describes a decoder "without any modifications and tuning". Without the LayerNorms of the decoder, the count is that of the second row. Both are 0.47 % of SAM, near the published "0.4%".
# This share holds at 256 px alone. The largest part is the table of positions, which has 768 numbers for each token. If the side of the image is twice as long, there are 4 times as many tokens.
# SAMed trains more, because it trains the whole decoder. With the decoder frozen, LoRA of rank 4 is left, and it trains about a third of S-SAM's number at 256 px.
#
# ## The memory of the factors
#
# S-SAM trains few numbers, but it stores the matrices $U$ and $V$, which together have more entries than $W$. The published code stores them in addition to $W$.
#
# > **Predict.** How much memory does ViT-B's encoder need in addition, with the factors beside $W$, and with the factors in place of $W$?

# %%
import re

from medsaga_lib.memory.ledger import weight_bytes

with torch.device("meta"):
    encoder = build_sam("vit_b", 256).image_encoder
factored = re.compile(r"(attn.qkv|attn.proj|mlp.lin[12]|neck.[02]).weight")
named = encoder.named_parameters()
shapes = [p.flatten(1).shape for name, p in named if factored.search(name)]

# %%
beside = sum(4 * min(m, n) * (m + n + 1) for m, n in shapes)  # U, V, s in fp32
in_place = weight_bytes(on_vit_b.sam.image_encoder) - weight_bytes(encoder)
print(f"encoder                  {weight_bytes(encoder) / 2**20:6.1f} MiB")
print(f"factors beside W         {beside / 2**20:+6.1f} MiB")
print(f"factors in place of W    {in_place / 2**20:+6.1f} MiB, with a and b")

# %% [markdown]
# Beside $W$, the factors more than double the memory of the encoder. In place of $W$, they add about 33 %.
# The published code also computes $W'$ in every pass, and its backward pass computes a gradient of the size of $W$. This library puts the factors in place of $W$, so it computes neither. After training, `SVDAffine.merge` multiplies the factors, and the network has its old size.
#
# ## Prompting by label name
#
# The second part of S-SAM is the prompt: the name of a label, such as *right lung*. A frozen text encoder turns the name into a vector. A small trained network, the *text layer*, turns the vector into a prompt token. The mask decoder answers with mask 0, as for a box ([chapter 2](02_sam_from_the_inside.ipynb)).
# The published code uses the text encoder of CLIP, which was trained on images and their captions, and has to be downloaded. This chapter uses MiniLM ([Reimers and Gurevych 2019](https://arxiv.org/abs/1908.10084)), an encoder of sentences that comes with a package (`text="minilm"`). We compare it with `Spelling`, a text encoder of this library. The vectors of `Spelling` depend on the letters alone.
#
# > **Predict.** Which names have more similar vectors for an encoder of sentences: *kidney* and *renal*, or *kidney* and *lung*? And how similar are those of *right lung* and *left lung*?

# %%
from medsaga_lib.models.text import MiniLMText, Spelling

encoders = {"MiniLM": MiniLMText(), "Spelling": Spelling()}

# %% caption="Cosine similarity of pairs of names, by two encoders."
compared = [
    *("kidney / renal", "kidney / lung", "liver / hepatic"),
    *("right lung / left lung", "right lung / lung"),
    *("right lung / rigth lung", "left lung / rigth lung"),
    *("right lung / Right Lung", "right lung / pulmo dexter"),
    "right lung / banana",
]
rows = {
    name: [torch.dot(*encoder(pair.split(" / "))).item() for pair in compared]
    for name, encoder in encoders.items()
}
pd.DataFrame(rows, compared).round(2)

# %% [markdown]
# - MiniLM knows synonyms: *kidney* and *renal* have similar vectors, *kidney* and *lung* do not. For `Spelling`, both pairs are unrelated.
# - MiniLM does not separate sides: *right lung* and *left lung* are as similar as the synonyms *kidney* and *renal*. The text layer has to learn the side.
# - The misspelt *rigth lung* is about as similar to *left lung* as to *right lung*.
# - The Latin *pulmo dexter* means right lung, but it is less similar to *right lung* than *banana* is.
#
# ### The text layer, and data with a single label
#
# The text layer has a linear map, a ReLU and a batch normalisation. The batch normalisation gives every channel the mean 0 and the variance 1 within a batch. The batch consists of the names of the labels, repeated for each image.
#
# > **Predict.** In training, what is the cosine of the two tokens of two names? And what is the token of a single name?

# %%
from torch import nn


def tokens(names, images=4):
    """The prompt tokens that a new text layer makes of names in training."""
    torch.manual_seed(seed)
    parts = nn.Linear(384, 256), nn.ReLU(), nn.BatchNorm1d(256)
    vectors = encoders["MiniLM"](names).repeat(images, 1)
    return nn.Sequential(*parts)(vectors)[: len(names)].detach()


# %%
for pair in ("right lung / left lung", "kidney / renal", "right lung / banana"):
    both = [of(pair.split(" / ")) for of in (encoders["MiniLM"], tokens)]
    text, token = (torch.cosine_similarity(*vectors, 0) for vectors in both)
    print(f"{pair:22} MiniLM {text:+.2f}, prompt token {token:+.2f}")

# %%
for name in ("polyp", "banana"):
    largest = tokens([name]).abs().max()
    print(f"one name, {name}: largest number of the token {largest:.3f}")

# %% [markdown]
# With two names, the mean of each channel over the names is 0, so the channel has a value $c$ for one name and $-c$ for the other. The two tokens are opposite vectors, even for the synonyms *kidney* and *renal*.
# With one name, every channel is 0. In training, a data set with a single label therefore gets the same token whether its label is *polyp* or *banana*.
# With a short and fixed list of labels, the token says which label of the list is meant, and little else. The meaning of a name can help if there are many names in training.
#
# ## An error in the published code: the sigmoid is applied twice
#
# The loss is the Dice loss plus the focal loss. For a pixel of the organ with probability $p = \sigma(z)$, the focal loss is $-\alpha\,(1 - p)^3 \log p$, where $\alpha = 0.75$ is the weight of the pixels of the organ. The function that computes it takes the logit $z$ and applies the sigmoid itself. The published code passes $\sigma(z)$ to it.
#
# > **Predict.** The network is sure that a pixel of the lung is background ($z = -8$). How large is the gradient of each version?

# %%
from medsaga_lib.training.losses import focal_dice


def pull(first):
    """Minus the gradient of the focal loss at 33 logits, after `first`."""
    z = torch.linspace(-8, 8, 33, requires_grad=True)
    channels = torch.stack([torch.zeros(33), first(z)], 1)[..., None, None]
    labels = torch.ones(33, 1, 1, dtype=torch.int64)  # 33 images of one pixel
    pixels = 33  # the loss is their mean, and we want each gradient
    loss = focal_dice(channels, labels, focal_weight=pixels, dice_weight=0)
    loss.total.backward()
    return z.detach(), -z.grad


# %%
(z, twice), (_, once) = pull(torch.sigmoid), pull(lambda z: z)
print(f"at z = -8: focal loss {once[0]:.3f}, published code {twice[0]:.6f}")
ends = once.max(), twice.max()
print("largest:   focal loss {:.3f}, published code {:.3f}".format(*ends))

# %%
curves = [display.Curve("published code", z, twice)]
curves.append(display.Curve("focal loss", z, once))
alt = (
    "Minus the gradient of the focal loss at the logit of a lung pixel. The "
    "focal loss has values from 0.7 to 0.9 at logits below -1.5, and nearly 0 "
    "above logit 1. The published code is close to 0 everywhere, with a low "
    "maximum near logit -1."
)
axes = "logit of a lung pixel", "minus the gradient"
caption = (
    "Minus the gradient of the focal loss by the logit of a lung pixel: a "
    "large value raises the logit fast. The published code applies the "
    "sigmoid twice."
)
figure = display.curve_with_interval(curves, *axes, alt)
display.show(figure, alt=alt, caption=caption)

# %% [markdown]
# The focal loss was designed to have a small gradient where the network is right and a large one where it is wrong. With two sigmoids, the gradient is small everywhere, and nearly 0 where the network is most wrong. The Dice loss still gets probabilities, so training can work.
# No message reports such an error. This library passes logits, and a test compares its focal loss with that of torchvision.
#
# This library differs from the published code in three more points:
#
# - the encoder of that code has neither relative positions nor windows,
# - its decoder has no positional encodings,
# - one of the standard deviations that normalise its input has a typo.
#
# ## Training with and without an absent label
#
# We train S-SAM on LiteMedSAM twice, with 8 labelled X-rays at 64 px. The first network is trained with the names of the data set. The second has one more name, *spleen*. No X-ray of the set shows a spleen, so the mask of this name is always empty. The published code also trains on absent labels.
# To save time, S-SAM adapts only the neck of the encoder, and each batch has 2 images. A *lift* adds positions to the embedding, so that the network can tell left from right ([chapter 10](10_few_labels.ipynb)).
#
# > **Predict.** Does a label that is always empty change the masks of the other labels?

# %%
from dataclasses import replace

names = {"no spleen": dataset.labels}
names["with spleen"] = dataset.labels | {len(dataset.labels) + 1: "spleen"}
values = ["text=minilm", "lift=fourier", "steps=120", "batch=2", "lr=0.003"]
values += ["image_encoder.from_stage=4", "image_encoder.copies=3"]
by_name = changed(s_sam, values)

# %%
settings, trained = replace(settings, shots=8), {}
for name, labels in names.items():
    named = replace(dataset, labels=labels)
    trained[name] = train(by_name, named, settings, progress=False).model

# %%
network = trained["no spleen"]
print(kinds(network))  # weight: the lift
print(f"names {tuple(network.texts.shape)}, text layer {network.affine}")

# %% [markdown]
# Most of the trained parameters belong to the text layer and to the lift. The scales and shifts are a small part.

# %% caption="S-SAM after two short trainings, with and without a name that no X-ray shows. Likely seen by LiteMedSAM: lungs."
from functools import partial

from medsaga_lib.evaluation.scores import evaluate_cases
from medsaga_lib.inference.predictor import Predictor

test, predictors, rows = dataset.split("test"), {}, {}
for name, labels in names.items():
    described = labels, dataset.modality, dataset.window
    predictors[name] = Predictor(trained[name], *described, feed)
    predict = partial(predictors[name].case, dataset)
    scores = evaluate_cases(predict, dataset, test)
    interval = "{:.3f} to {:.3f}".format(*scores.interval("dice"))
    row = {"Dice": scores.summary()["dice"], "95 % interval": interval}
    row["share on the other organ"] = scores.table["confused"].mean()
    rows[name] = row
pd.DataFrame.from_dict(rows, "index").round(3)

# %%
picture, truth = read_pair(dataset, test[5])
panels = [
    display.Panel(picture.pixels, truth, predict(picture), name)
    for name, predict in predictors.items()
]
alt = (
    "A test X-ray twice, with the masks of both networks as solid contours and "
    "those of the annotator as dashed contours. Both networks place one mask "
    "on each lung. The contours are uneven and do not follow the borders "
    "exactly."
)
caption = (
    "Masks (solid) of the networks that were trained without and with the name "
    "spleen, in one test X-ray; dashed: the annotator's masks."
)
figure = display.grid(panels, dataset.labels, alt, columns=2)
display.show(figure, alt=alt, caption=caption)
print(dataset.citation, "|", dataset.licence)

# %% [markdown] tags=["real"]
# The mean Dice of the two networks is nearly the same, and the intervals overlap. One seed cannot show whether the absent label costs the other labels a little. Both networks tell left from right, but after 120 steps their masks do not follow the borders of the lungs well.

# %% [markdown]
# ## Prompting with unknown names
#
# Both networks were trained with the names of the data set. Now we prompt both with other names too, on 8 test X-rays.
#
# > **Predict.** Which mask does the misspelt *rigth lung* give? And *banana*?

# %%
from medsaga_lib.models.heads import LabelPrompts


@torch.inference_mode()
def ask(network, picture, words):
    """The masks (n, H, W) of a network for any n names, in one X-ray."""
    prompted = LabelPrompts(network.sam, encoders["MiniLM"](words)).eval()
    prompted.affine, prompted.lift = network.affine, network.lift
    logits = prompted(input_of(picture, network.size))[:, 1:]
    frame = feed.frame(picture.shape, network.size)
    return (frame.enlarge(logits)[0] > 0).numpy()


# %%
words = ["right lung", "left lung", "rigth lung", "Right Lung", "lung"]
words += ["pulmonary", "heart", "spleen", "banana"]
eight = [read_pair(dataset, case) for case in test[:8]]


# %%
def overlap(mask, organ):
    """The Dice of two masks; 0 if both are empty."""
    return 2 * (mask & organ).sum() / max(mask.sum() + organ.sum(), 1)


def answers(network):
    """For each name: the share of the image, and the Dice with each lung."""
    masks = [ask(network, picture, words) for picture, _ in eight]
    rows = {}
    for word, found in zip(words, zip(*masks, strict=True), strict=True):
        rows[word] = {"share of image": np.mean([m.mean() for m in found])}
        for value in (1, 2):
            both = zip(found, eight, strict=True)
            dice = [overlap(mask, truth == value) for mask, (_, truth) in both]
            rows[word][f"Dice, {dataset.labels[value]}"] = np.mean(dice)
    return pd.DataFrame(rows).T


# %% caption="Answers to names, known and unknown: the share of the image in the mask, and its Dice with each lung. Likely seen by LiteMedSAM: lungs."
tables = {name: answers(network) for name, network in trained.items()}
pd.concat(tables, axis=1).round(2)

# %%
chosen = ["right lung", "rigth lung", "spleen", "banana"]
panels = [
    display.Panel(picture.pixels, None, 3 * mask.astype(int), word)
    for name, network in trained.items()
    for word, mask in zip(chosen, ask(network, picture, chosen), strict=True)
]
shares = [(p.title, (p.prediction > 0).mean()) for p in panels]
parts = [f"{word}: {share:.0%}" for word, share in shares]
alt = "One X-ray with 8 masks, of the network without the name spleen and then "
alt += "of the one with it. Name and share of the image: "
alt += f"{'; '.join(parts)}."
caption = (
    "Masks for 4 names in one X-ray, by the networks that were trained without "
    "(top) and with the name spleen (bottom). No contour: an empty mask."
)
figure = display.grid(panels, {3: "mask"}, alt, columns=4)
display.show(figure, alt=alt, caption=caption)
print(dataset.citation, "|", dataset.licence)

# %% [markdown] tags=["real"]
# - The network without *spleen* was never trained with an empty mask. It marks a part of a lung for every name, also for *spleen* and *banana*.
# - The network with *spleen* gives an empty mask for *spleen*, as trained. Its masks for *heart* and *banana* are much smaller than a lung, or empty.
# - *Right Lung* gives the same as *right lung*, because MiniLM ignores case.
# - *lung* and *pulmonary* could mean both lungs, but each answer is mostly one of them.
# - The misspelt *rigth lung* means the right lung, but MiniLM's vector of it is about as similar to either side. Its mask is a matter of chance: with the same seed, the first network gave the **left** lung on one processor and the right lung on another, because their rounding differs.

# %% [markdown]
# A text encoder gives a vector for any name, but the network has learned masks only for the names of its training. A program should accept those names and refuse all others.
#
# ## Recorded runs on the pocket SAM
#
# The two tables of this section are recorded runs with the pocket SAM, our small ViT that was pretrained on drawn images. S-SAM and SVF adapt its whole image encoder in each of 200 steps, on a CPU; the baseline has the same network, so that the Dice can be compared. They do not contain LoRA. [Chapter 9](09_from_scratch.ipynb) compares S-SAM with SAMed and other methods, on LiteMedSAM and on the pocket SAM.
#
# The first study chose the learning rates of S-SAM and SVF, on lungs from 8 images and on polyps from 64. The table shows the validation Dice on each task: the mean and the minimum of 3 seeds.
#
# > **Predict.** S-SAM trains scales and shifts, and SVF trains scales alone. Which of the two depends more on the learning rate?

# %%
import json
from pathlib import Path

bracket = json.loads(Path("recorded/svd_affine_bracket.json").read_text())
tasks = {"cxr_hannover_lungs": "lungs", "polyp_kvasir": "polyps"}
print(bracket["provenance"]["command"])

# %% caption="Mean and minimum of the validation Dice over 3 seeds, by learning rate."
names = {"s_sam": "S-SAM", "svf": "SVF", "decoder_only": "decoder only"}
tried = pd.DataFrame(bracket["runs"])
tried[["method", "rate"]] = tried["recipe"].str.split(":lr=", expand=True)
tried = tried.replace({"method": names, "data": tasks})
index, both = ["method", "rate"], ["mean", "min"]
tried.pivot_table("val_dice", index, "data", aggfunc=both).round(2)

# %% [markdown]
# SVF depends more on the learning rate. On lungs, 0.01 is too low for it. On polyps, 0.03 has its highest mean, 0.46, and at least one run at 0.1 fails, as the minimum shows. For S-SAM, 0.01 to 0.1 are level on lungs, and both ends of the bracket are lower. On polyps, its two lowest rates are better, and its means differ by at most 0.07. The recipes of this library use 0.03 for both methods, so a difference between them does not come from the rate. This rate is the best for SVF on polyps; S-SAM loses 0.04 there against its own best rate, 0.01. The short runs above are on LiteMedSAM, with lower rates of our choice; [chapter 9](09_from_scratch.ipynb) tests rates on LiteMedSAM.
#
# The second table compares both methods with a baseline, *decoder only*, that trains the mask decoder and freezes the image encoder.

# %%
recorded = json.loads(Path("recorded/svd_affine.json").read_text())
origin = recorded["provenance"]
print(origin["command"])
print(origin["date"], "|", origin["device"], "|", origin["data"])

# %%
cases, patients = origin["test_cases"], origin["test_patients"]
print(f"{cases} test X-rays of {patients} patients")

# %% caption="Test Dice of S-SAM, SVF and the trained decoder alone, by number of shots."
runs = pd.DataFrame(recorded["runs"]).replace({"recipe": names})
runs = runs.rename(columns={"recipe": "method", "dice": "Dice"})
runs = runs.rename(columns={"trainable": "trained parameters"})
runs = runs.set_index(["shots", "method"])
format_ends = "{:.2f} to {:.2f}".format
runs["95 % interval"] = [format_ends(*ends) for ends in runs["dice_interval"]]
display.table(runs[["trained parameters", "Dice", "95 % interval"]])

# %% [markdown]
# S-SAM and SVF train 13 % and 10 % of the number of parameters that the baseline trains. All intervals overlap, and there is only one seed, so this table does not tell the three methods apart.

# %% [markdown]
# ## Questions

# %% [markdown] tags=["question"]
# **Question 1.** The largest singular value of a layer is switched off, and the embedding hardly changes. Which explanation is possible?
#
# - **A.** The inputs of the layer have a small component along its direction $v_1$.
# - **B.** The layer has other singular values of the same direction.
# - **C.** The largest singular value is only a matter of scaling.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** Yes: the strength of a direction is the product of its singular value and the component of the inputs.
# - **B.** No: the directions of an SVD are orthogonal to each other.
# - **C.** No: each singular value scales its own direction. Scaling the whole matrix would change all of them.
# </details>

# %% [markdown] tags=["question"]
# **Question 2.** The change that S-SAM makes to a matrix has nearly full rank, and LoRA's has a low rank. Which statement follows?
#
# - **A.** S-SAM can reach every matrix that LoRA can reach, and more.
# - **B.** S-SAM trains more numbers of this matrix than LoRA.
# - **C.** S-SAM can change the strength of all existing directions, but it cannot connect them in a new way.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: S-SAM's change is diagonal in the coordinates of the matrix, and LoRA's is not.
# - **B.** No: it trains 2 numbers for each singular value, and LoRA of rank 4 trains 4 rows of $A$ and 4 columns of $B$, each as long as a side of the matrix.
# - **C.** Yes: a full rank is not the same as many degrees of freedom. All entries outside the diagonal stay 0.
# </details>

# %% [markdown] tags=["question"]
# **Question 3.** A network was trained with the names *right lung* and *left lung*. A user writes *banana*, and gets a mask of a lung. Why is there no error?
#
# - **A.** The text encoder knows that a banana has the shape of a lung.
# - **B.** The text encoder gives a vector for any text, and no loss has ever told the network to answer an unknown name with an empty mask.
# - **C.** The batch normalisation turns every name into one of the two known names.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: the text encoder has seen no image. Its vector for *banana* is a vector like any other.
# - **B.** Yes: a program should accept the names of the training and refuse all others.
# - **C.** No: in prediction it has fixed statistics, so the token depends on the name. No training defines the mask for such a token.
# </details>

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: calculate (easy, 10 minutes)
# The ReLU can prune a layer. Set the shift of `pruned` so that its 16 largest singular values stay as they are and all others become 0.

# %% tags=["exercise"]
pruned = SVDLayer(plain["fc1"])
pruned.shift.data = torch.zeros(320)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# pruned = SVDLayer(plain["fc1"])
# pruned.shift.data = -pruned.singular
# pruned.shift.data[:16] = 0
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
merged = pruned.merged().weight.detach()
rank = torch.linalg.matrix_rank(merged, rtol=1e-4).item()
assert rank == 16, (
    f"The rank is {rank}: a direction is removed where a s + b is not above 0."
)
error = (pruned.values()[:16] - pruned.singular[:16]).abs().max()
assert error < 1e-4, (
    f"A singular value that should stay has changed by {error:.2f}."
)

# %% [markdown]
# ### Exercise 2: experiment (medium, 15 minutes)
# Find a singular value of `qkv` whose removal changes the embedding at least 1.2 times as much as the removal of the 1st does, and put its number into `number`. Do not try all 320: try those with the largest `strength`. Then say in one sentence whether `strength` predicts the order of the effects.

# %% tags=["exercise"]
number = 1

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# candidates = (strength["qkv"].topk(5).indices + 1).tolist()
# number = max(candidates, key=lambda candidate: change("qkv", candidate, 0.0))
# print(candidates, number)
# # It gives candidates and no order: the 1st direction is much weaker than these,
# # and its effect is nearly as large. The layers after qkv decide as well.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
from medsaga_lib.display.answers import as_number, as_returned

picked = as_number("number", number)
assert picked in range(1, 321), (
    f"number is {number}; the singular values have the numbers 1 to 320."
)
times = change("qkv", int(picked), 0.0) / change("qkv", 1, 0.0)
assert times >= 1.2, (
    f"The removal of value {number} changes the embedding {times:.2f} times as "
    "much as that of the 1st. Which values of `strength` are large? The 1st "
    "has the index 0 there."
)

# %% [markdown]
# ### Exercise 3: find the fault (medium, 15 minutes)
# A colleague computes the prompt tokens that the trained text layer makes of names. The token of *right lung* should not depend on the other names in the list, but it does. Find the fault in `prompt_tokens` and mend it.

# %% tags=["exercise"]
from copy import deepcopy


@torch.no_grad()
def prompt_tokens(words):
    """The prompt tokens (n, 256) of names."""
    text_layer = deepcopy(network.affine).train()
    return text_layer(encoders["MiniLM"](words))


alone = prompt_tokens(["right lung", "left lung"])[0]
beside = prompt_tokens(["right lung", "banana"])[0]
apart = (alone - beside).abs().max()
print(f"the token of right lung changes by up to {apart:.2f}")

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# @torch.no_grad()
# def prompt_tokens(words):
#     """The prompt tokens (n, 256) of names."""
#     # the statistics of the training, not those of the list of names
#     text_layer = deepcopy(network.affine).eval()
#     return text_layer(encoders["MiniLM"](words))
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
pairs_of_names = [["right lung", other] for other in ("left lung", "banana")]
like = torch.zeros(2, 256)
alone, beside = (
    as_returned("prompt_tokens(words)", prompt_tokens(words), like)[0]
    for words in pairs_of_names
)
apart = (alone - beside).abs().max()
assert apart < 1e-4, (
    "The token of right lung still depends on the other name, by up to "
    f"{apart:.2f}: which layer of `text_layer` uses all names of the list at "
    "once?"
)
assert alone.abs().max() > 1e-3, (
    "The token is 0, so it says nothing about the name."
)

# %% [markdown]
# ## Summary
#
# - The SVD writes a matrix as a sum of directions, each with a singular value. S-SAM trains a scale and a shift for each value and keeps the directions.
# - The effect of a singular value depends on its size and on the component of the inputs along its direction. A large change of the embedding is not always a large change of the mask.
# - The shift makes small values grow fast. The ReLU removes directions, and training cannot bring them back.
# - The change has nearly full rank but few degrees of freedom: it is diagonal in the coordinates of the matrix.
# - At 256 px, S-SAM trains 0.47 % of SAM's parameters, near the published "0.4%"; at 1024 px it trains 3.62 %. The positions are the largest part. The matrices $U$ and $V$ need much more memory than the trained values.
# - A sigmoid applied twice makes the focal loss nearly ineffective, and no message reports it.
# - An encoder of sentences knows synonyms, but it hardly separates left from right. A program should accept only the names that the network was trained with.
