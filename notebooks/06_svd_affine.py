# %% [markdown]
# # 6. SVD affine tuning and label names
#
# **You will be able to**
# - explain what a singular value does in a layer, and what a change of one singular value does to a mask,
# - write S-SAM's layer in 4 lines, and explain its shift and its ReLU,
# - show which changes of a weight matrix LoRA, GaLore and S-SAM each allow,
# - prompt a network with the name of an organ, and judge how much the network uses the name.
#
# **Before this** [Chapter 5](05_adapting_sam.ipynb); the singular value decomposition as in [chapter 4](04_galore.ipynb).
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
profile = "quick"  # "colab" runs the same cells: nothing here needs a GPU
seed = 0

# %% [markdown]
# ## The singular value decomposition of a layer
#
# LoRA and GaLore ask how to change a matrix cheaply. S-SAM ([Paranjape et al. 2024](https://arxiv.org/abs/2408.06447)) asks what is in it already.
# Every matrix is a product of three, its singular value decomposition:
#
# $$ W = U\,\mathrm{diag}(s)\,V^\top = \sum_i s_i\, u_i v_i^\top. $$
#
# So a layer works in three steps. Each row of $V^\top$ asks the input one question; $s_i$ says how loud the answer counts; the column $u_i$ says where it goes.
# S-SAM leaves questions and places alone and turns the volume.
#
# (What this book knows of S-SAM comes from its [public code](https://github.com/JayParanjape/SVDSAM) and from the reviews and the rebuttal that MICCAI publishes beside the paper.)
#
# Here are the chest X-rays of chapter 5, and the matrix of chapter 4: the fused $q$, $k$, $v$ of the pocket SAM's fourth block.

# %% tags=["data"]
from medsaga_lib.data.catalog import open_or_phantoms

dataset = open_or_phantoms("cxr_hannover_lungs")
print(dataset.describe())

# %%
import torch

from medsaga_lib.models.sam import build_sam
from medsaga_lib.models.weights import load_state

size = 128
sam = build_sam("pocket", size).eval()
sam.load_state_dict(load_state("pocket", size))
block = sam.image_encoder.blocks[3]
W = block.attn.qkv.weight.detach()  # (576, 192)

# %% [markdown]
# > **Predict.** 192 singular values. By which factor is the first larger than the last? And in a matrix of random numbers?

# %%
from medsaga_lib import display

torch.manual_seed(seed)
proj, noise = block.attn.proj.weight.detach(), W.std() * torch.randn(W.shape)
matrices = {"qkv": W, "proj": proj, "noise": noise}
spectra = {name: torch.linalg.svdvals(matrix) for name, matrix in matrices.items()}
for name, s in spectra.items():
    print(f"{name:5} from {s[0]:.2f} to {s[-1]:.4f}, a factor of {s[0] / s[-1]:,.0f}")

# %%
numbers = [1, 3, 6, 12, 25, 50, 100, 192]
curves = [display.Curve(name, numbers, [s[i - 1] for i in numbers]) for name, s in spectra.items()]
alt = (
    "Singular values, loudest first. Those of qkv begin a quarter above noise of the same strength and "
    "go on a little below it; those of proj end at zero."
)
axes = "number of the direction, loudest first", "singular value"
display.show(display.curve_with_interval(curves, *axes, alt, log_x=True), alt=alt)

# %% [markdown]
# `qkv` falls a little more steeply than noise, and in `proj` some directions are all but silent.
#
# ## The effect of one singular value
#
# Turn a single one of the 192 values and leave everything else. `SVDLayer` is the library's layer in three steps, and `scale` holds a factor for each value.
#
# > **Predict.** Double one value of one layer of six blocks. By how many per cent does the image embedding change?

# %%
from medsaga_lib.adapt.svd import SVDLayer
from medsaga_lib.data.samples import Samples

sample = Samples(dataset, dataset.split("test"), size)[0]
pixels = (sample["image"][None] * 255 - sam.pixel_mean) / sam.pixel_std  # (1, 3, 128, 128)
block.attn.qkv = turned = SVDLayer(block.attn.qkv)


# %%
@torch.no_grad()
def embedding(number=1, factor=1.0):
    """The image embedding when singular value `number` (from 1) counts `factor` times."""
    turned.scale.fill_(1)[number - 1] = factor
    return sam.image_encoder(pixels)


# %%
untouched = embedding()
curves = []
for name, factor in (("doubled", 2.0), ("off", 0.0)):
    moved = [(embedding(i, factor) - untouched).norm() / untouched.norm() for i in numbers]
    curves.append(display.Curve(name, numbers, moved))
    print(f"{name:8}", *[f"{share:7.2%}" for share in moved])

# %%
alt = (
    "Relative change of the image embedding when one singular value is doubled or switched off: seven "
    "to twelve per cent for the loudest, two or three at the twelfth and the twenty-fifth, next to "
    "nothing at the end."
)
axes = axes[0], "relative change of the embedding"
display.show(display.curve_with_interval(curves, *axes, alt, log_x=True), alt=alt)

# %% [markdown]
# One number, and the embedding moves by seven to twelve per cent. At the end of the list nobody notices. And the mask? We turn one value up eightfold and ask the pocket SAM the usual way, by a box around the lung on the left side of the picture.

# %%
from torch.nn.functional import interpolate

from medsaga_lib.models.heads import decode_masks

rows, columns = torch.where(sample["label"] == 1)
box = torch.stack([columns.min(), rows.min(), columns.max(), rows.max()])[None].float()


# %%
@torch.no_grad()
def mask(embedding):
    """SAM's mask for the box, at the size of the picture."""
    prompts = sam.prompt_encoder(None, box, None)
    position = sam.prompt_encoder.get_dense_pe()
    logits, _ = decode_masks(sam.mask_decoder, embedding, position, *prompts)
    return (interpolate(logits[:, :1], (size, size), mode="bilinear")[0, 0] > 0).long()


# %%
gray, asked_for = sample["image"][0].numpy(), {1: dataset.labels[1]}
trials = {"untouched": (1, 1), "1st times 8": (1, 8), "2nd times 8": (2, 8), "100th times 8": (100, 8)}
panels = [
    display.Panel(gray, prediction=mask(embedding(*trial)).numpy(), title=name)
    for name, trial in trials.items()
]
display.show(
    display.grid(panels, asked_for, alt="Four masks.", columns=4),
    alt="One X-ray with the mask for a box around the right lung. Untouched it roughly "
    "follows the lung; with the first value eightfold, and with the second, it leaves the border; with "
    "the hundredth it stays nearly as it was.",
)

# %%
print(dataset.citation, "|", dataset.licence)


# %% [markdown]
# With the first or the second value eight times as loud, the mask leaves the lung's border, on the real X-ray by far; the hundredth may be as loud and next to nothing happens.
#
# ## S-SAM's layer
#
# Each singular value gets a factor $a_i$, a shift $b_i$, and a floor at zero:
#
# $$ W' = U\,\mathrm{diag}\big(\mathrm{ReLU}(a \odot s + b)\big)\,V^\top. $$
#
# At the start $a = 1$ and $b = 0$, so nothing changes. As a function:

# %%
def ssam_weight(W, a, b):
    """The weight that S-SAM makes of W (m, n); a and b are (min(m, n),)."""
    U, s, Vh = torch.linalg.svd(W, full_matrices=False)
    return U @ torch.diag(torch.relu(a * s + b)) @ Vh


# %% [markdown]
# Does the library do the same?

# %%
torch.manual_seed(seed)
with torch.no_grad():
    turned.scale.normal_(1, 0.5), turned.shift.normal_(0, 0.5)
    x = torch.randn(10, 192)
    ours = x @ ssam_weight(W, turned.scale, turned.shift).T + turned.bias
    print(f"largest difference {(ours - turned(x)).abs().max():.0e}")
    print(f"switched off: {(turned.values() == 0).sum()} of 192")

# %% [markdown]
# To rounding. The library never builds $W'$: it applies $V^\top$, the values and $U$ one after the other.
#
# ## Factor and shift: why two numbers for one singular value?
#
# A factor alone could take any positive singular value anywhere. SVF ([Sun et al. 2022](https://arxiv.org/abs/2206.06122)) tunes the values alone, and a reviewer of S-SAM called the shift the only difference.
# To *what can be reached* it adds next to nothing. To *what is reached* it does, because Adam moves every parameter by about the learning rate in each step, however small its effect: a step of $a_i$ moves the value by $\eta s_i$, a step of $b_i$ by $\eta$.
#
# Take the matrix `proj`, with its silent end, and want the opposite of what it is: the loud directions quiet and the quiet ones loud.
#
# > **Predict.** After 200 steps with a learning rate of 0.01, where do factors alone get, and where factors and shifts?

# %%
wanted = spectra["proj"].flip(0)


def reached(shift, steps=200):
    """The singular values after Adam has pulled them towards `wanted`."""
    layer = SVDLayer(block.attn.proj, shift)
    layer.bias = None
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        (layer.values() - wanted).square().sum().backward()
        optimizer.step()
    return layer.values().detach()


# %%
ends = {"start": spectra["proj"], "a alone": reached(False), "a and b": reached(True)}
numbers = [1, 3, 6, 12, 25, 50, 75, 100, 125, 142, 167, 180, 187, 190, 192]
curves = [
    display.Curve(name, numbers, [s[i - 1] for i in numbers])
    for name, s in {**ends, "wanted": wanted}.items()
]
alt = (
    "Singular values by number. Factors alone bring the loud ones down and fall short from about the "
    "130th on, down to zero at the end; with shifts only the last twenty-five or so fall short."
)
axes = "number of the direction", "singular value"
display.show(display.curve_with_interval(curves, *axes, alt), alt=alt)

# %% [markdown]
# The shift switches directions *on*. The ReLU switches them *off*: a singular value has no sign, so where $a_i s_i + b_i$ falls below zero, the direction is gone. And it stays gone:

# %%
off = SVDLayer(block.attn.proj)
off.shift.data[0] = -10
off(torch.randn(5, 192)).square().sum().backward()
for name, tensor in (("value", off.values()), ("a", off.scale.grad), ("b", off.shift.grad)):
    print(f"{name:5} {tensor[0].item():.1f} and, of its neighbour, {tensor[1].item():.1f}")

# %% [markdown]
# The first direction is off, and no gradient reaches either of its two numbers any more. Only weight decay does: it pulls $b_i$ towards zero, and every $a_i$ too, although 1 would be home. Both shrink by the same factor, so that $a_i s_i + b_i$ stays negative: there is no way back.
#
# ## Which changes of a weight matrix are possible?
#
# Three methods, three kinds of change. Train each for 20 steps on eight small X-rays, without weight decay, and look at $W' - W$ of our matrix.
# GaLore refreshes its subspace after 10 of them.
#
# > **Predict.** The rank of the change: for LoRA of rank 4 on $q$ and $v$, for GaLore of rank 16, for S-SAM?

# %%
from dataclasses import replace

from medsaga_lib.recipes import get_recipe
from medsaga_lib.training.loop import train
from medsaga_lib.training.run_folder import Settings

samed, medsaga, s_sam = (
    replace(get_recipe(name), steps=20, batch=4, weight_decay=0.0)
    for name in ("samed", "medsaga", "s_sam")
)
medsaga = replace(medsaga, image_encoder=replace(medsaga.image_encoder, refresh=10, bases=0))

# %%
settings = Settings(shots=8, size=64, seed=seed, validations=0)
changes = {}
for recipe in (samed, medsaga, s_sam):
    encoder = train(recipe, dataset, settings, progress=False).model.sam.image_encoder
    if recipe is not medsaga:  # GaLore has no parts to merge
        recipe.image_encoder.merge(encoder)
    changes[recipe.name] = encoder.blocks[3].attn.qkv.weight.detach() - W

# %%
for name, change in changes.items():
    rank = torch.linalg.matrix_rank(change, rtol=1e-3)
    print(f"{name:8} rank {rank:3}, moved {change.norm() / W.norm():.1%} of the weight's norm")

# %% [markdown]
# LoRA's rank is 4 for $q$ and 4 for $v$, GaLore's 16 for each of its two subspaces; S-SAM's change has full rank, or nearly. Its authors say so in the rebuttal, and count it as an advantage over LoRA. But rank is not freedom. Write each change in the matrix's own coordinates, $U^\top (W' - W)\,V$: cell $(i, j)$ says how much of question $j$ now goes to place $i$.

# %%
U, _, Vh = torch.linalg.svd(W, full_matrices=False)
panels = []
for name, change in changes.items():
    cells = (U.T @ change @ Vh.T).abs()[:64, :64]  # of the 64 loudest directions
    bright = (cells / cells.flatten().quantile(0.999)).clamp(0, 1).sqrt()
    panels.append(display.Panel(bright.numpy(), title=get_recipe(name).title.split(":")[0]))
alt = (
    "Three squares of 64 by 64 cells. SAMed's and MedSAGa's are grey all over, SAMed's in stripes; "
    "S-SAM's is black except for its diagonal."
)
display.show(display.grid(panels, {}, alt), alt=alt)

# %% [markdown]
# LoRA and GaLore connect any question with any place, in a few combinations at a time. S-SAM's cells off the diagonal are zero and remain so: no question gets a new place, ever. It has 192 knobs at this matrix, of two numbers each.
# What needs a new direction it cannot learn here; what needs old directions in other strengths it learns with few numbers. Which of the two an X-ray needs is not for algebra to say. (The LayerNorms and the position table train too, and the text layer below.)
#
# ## The number of trained parameters
#
# S-SAM's abstract says "0.4% of SAM's parameters". SAM has 93,735,472.
#
# > **Predict.** Which part of what trains is the largest: the values, the LayerNorms, the positions, or the text layer? And what happens at 512 pixels?

# %%
from collections import Counter

from medsaga_lib.memory.plan import count
from medsaga_lib.recipes.build import build_model, trainable

s_sam = get_recipe("s_sam")
with torch.device("meta"):  # shapes without memory
    on_vit_b = build_model(s_sam, "vit_b", 256, classes=8, weights="random")

# %%
kinds = Counter()
for name, tensor in trainable(on_vit_b).items():
    place = "decoder" if "mask_decoder" in name else "encoder"
    kind = f"{place} norms" if "norm" in name else name.split(".")[-1]
    kinds["text layer" if name.startswith("affine") else kind] += tensor.numel()
print(dict(kinds))

# %%
frozen = replace(s_sam, name="decoder frozen", decoder="frozen")
for recipe in (s_sam, frozen, get_recipe("svf")):
    for side in (256, 512, 1024):
        trains = count(recipe, "vit_b", side, classes=8).trainable
        print(f"{recipe.name:15} {side:5} px {trains:>10,} {trains / 93_735_472:.3%}")

# %% [markdown]
# The first number is what the published code trains: 444,672. A reviewer describes the decoder as used "without any modifications and tuning"; without its LayerNorms there are 440,064.
# Both are 0.47 % of SAM, and "0.4%" is generous rounding. It also holds at 256 pixels alone, because the largest part is not a singular value at all: it is the position table, 768 numbers for each token, and a picture of twice the side has four times the tokens.
#
# ## The memory of the factors
#
# Values are few, but vectors are many: $U$ and $V$ together are larger than $W$. The published code keeps them beside it.
#
# > **Predict.** ViT-B's encoder weighs about 330 MiB. How much more does it hold with its factors beside it, and how much with the factors in its place?

# %%
import re

from medsaga_lib.memory.ledger import weight_bytes

with torch.device("meta"):
    plain = build_sam("vit_b", 256).image_encoder
factored = re.compile(r"(attn.qkv|attn.proj|mlp.lin[12]|neck.[02]).weight")

# %%
shapes = {n: p.flatten(1).shape for n, p in plain.named_parameters() if factored.search(n)}
beside = {name: 4 * min(m, n) * (m + n + 1) for name, (m, n) in shapes.items()}  # U, V and s
in_blocks = sum(held for name, held in beside.items() if "blocks" in name)
here = weight_bytes(on_vit_b.sam.image_encoder) - weight_bytes(plain)
print(f"the encoder       {weight_bytes(plain) / 2**20:6.1f} MiB")
print(f"factors beside W  {sum(beside.values()) / 2**20:+6.1f} MiB, {in_blocks / 2**20:.1f} in blocks")
print(f"factors for W     {here / 2**20:+6.1f} MiB, with a and b")

# %% [markdown]
# The published code also builds $W'$ in every pass, and its backward pass makes a gradient as large as $W'$ to get two numbers for each direction.
# Here the gradient of the values comes from the $k$ numbers of each token between the two factors. After training, `SVDAffine.merge` multiplies the factors, and SAM weighs what it always did.
#
# ## Prompting by label name
#
# S-SAM's other half is the prompt. No click, no class token, but a word: *right lung*. A frozen text encoder makes 512 numbers of it, a small layer that trains makes a prompt token of those, and SAM's own mask token 0 answers. Two labels in one pass:

# %%
model = build_model(s_sam, "pocket", size, 2, seed=seed, names=["right lung", "left lung"])
with torch.no_grad():
    logits = model(sample["image"][None])
print(tuple(logits.shape), "| texts", tuple(model.texts.shape), "|", model.affine)

# %% [markdown]
# Channel 0 is zero everywhere, so that background wins where no label is likelier than not. The encoder, the expensive half, ran once.
#
# The published code uses CLIP's text encoder. It has read the captions of many photographs, and words that stand in the same captions may lie near each other. CLIP is a download, so this chapter uses `Spelling`: a vector that knows how a word is spelled and nothing else.

# %%
import pandas as pd

from medsaga_lib.models.text import Spelling

words = ["right lung", "left lung", "rigth lung", "lung", "heart", "pulmo dexter"]
vectors = Spelling()(words)
pd.DataFrame(vectors @ vectors.T, words, words).round(2)


# %% [markdown]
# A slip of the pen stays among the lungs, though hardly nearer to the right one than the left one is; Latin is as far away as the heart. With CLIP (`text="clip"` in the recipe) that may be different.
#
# But how much of a text vector reaches the decoder at all? The text layer ends in a batch normalisation: it looks at the batch, and gives every channel mean zero and spread one. The batch consists of the label names, repeated for each picture.
#
# > **Predict.** With two names, what values can a normalised channel take? And with a single one?

# %%
def tokens(names, images=6):
    """What a new text layer makes of names in training, for a batch of `images` pictures."""
    torch.manual_seed(seed)
    layer = build_model(s_sam, "pocket", 64, len(names), "random", seed, names=names).affine
    return layer(Spelling()(names).repeat(images, 1))[: len(names)].detach()


two = tokens(["right lung", "left lung"])
print("two names:", *[f"{number:+.2f}" for number in two[0, :9]])

# %%
near = torch.stack([(two[0].abs() - value).abs() < 0.05 for value in (0, 1)]).any(0)
print(f"{near.float().mean():.0%} of the numbers are within 0.05 of -1, 0 or 1")
for one in ("polyp", "banana"):
    print(f"one name, {one}: largest number {tokens([one]).abs().max():.3f}")

# %% [markdown]
# With two names each channel sees two values, and normalising two values leaves little more than a sign, which of the two is larger: 0 where the ReLU has cut off both, and something between where they are so near that the normalisation's epsilon counts. With one name it leaves nothing: in training, a data set with a single label gets the same token for *polyp* and for *banana*.
# For a fixed list of labels the name is a number plate. It becomes a *name* only where training saw many of them.
#
# ## An error in the published code: the sigmoid is applied twice
#
# The loss is Dice plus focal loss, $-\alpha\,(1 - p)^3 \log p$ for a pixel of the organ, with $p = \sigma(z)$. The function that computes it wants the logit $z$ and applies the sigmoid itself. The published code gives it $\sigma(z)$.
#
# > **Predict.** A pixel of the lung that the network is quite sure is none ($z = -8$). How strongly does each version pull?

# %%
from medsaga_lib.training.losses import focal_dice


def pull(first):
    """Minus the gradient of the focal loss, for logits from -8 to 8; `first` is applied before."""
    z = torch.linspace(-8, 8, 33, requires_grad=True)
    channels = torch.stack([torch.zeros(33), first(z)], 1)[..., None, None]  # (33, 2, 1, 1)
    labels = torch.ones(33, 1, 1, dtype=torch.int64)
    focal_dice(channels, labels, focal_weight=33, dice_weight=0).total.backward()
    return z.detach(), -z.grad


# %%
published, right = pull(torch.sigmoid), pull(lambda z: z)
print(f"at z = -8: {right[1][0]:.3f} against {published[1][0]:.6f}")
print(f"largest:   {right[1].max():.3f} against {published[1].max():.3f}")

# %%
curves = [display.Curve("published", *published), display.Curve("focal loss", *right)]
alt = (
    "Pull on the logit of a lung pixel. Focal loss pulls hard where the logit is wrong and lets go "
    "where it is right; the published version pulls weakly, and most where the network is undecided."
)
display.show(display.curve_with_interval(curves, "logit of a lung pixel", "pull", alt), alt=alt)

# %% [markdown]
# Focal loss was made to pull hardest where the network is wrong. Twice through the sigmoid it pulls weakly everywhere, most where the network is undecided, and next to nothing where it is most wrong. It can train nevertheless: Dice beside it wants probabilities and gets them.
# Nothing warns. The library feeds logits; `tests/training/test_losses.py` holds it against torchvision's focal loss.
#
# We also leave out other things that the code does: its encoder has no relative positions and no windows, its decoder no positional encodings, and one of its pixel deviations has a typing error.

# %% [markdown]
# ## Training with and without an absent label
#
# Sixteen labelled X-rays, sixty steps, asked by the names of the data set. And a second time with one name more, *spleen*, which no X-ray of the set shows: its mask is empty everywhere.
# The published code trains so, too: one sample is a picture with a label, absent labels included.
#
# > **Predict.** Does an answer that is always *nothing* disturb the others?

# %%
names = {"two names": dataset.labels}
names["+ spleen"] = dataset.labels | {len(dataset.labels) + 1: "spleen"}
short = replace(s_sam, steps=60, batch=6)
settings = Settings(shots=16, size=size, seed=seed, validations=0)
trained = {}
for name, labels in names.items():
    asked = replace(dataset, labels=labels)
    trained[name] = train(short, asked, settings, progress=False).model

# %%
from functools import partial

from medsaga_lib.data.cases import read_pair
from medsaga_lib.evaluation.scores import evaluate_cases
from medsaga_lib.inference.predictor import Predictor

# %%
test, predictors, found = dataset.split("test"), {}, {}
for name, labels in names.items():
    predict = Predictor(trained[name], labels, dataset.modality, dataset.window)
    found[name] = scores = evaluate_cases(partial(predict.case, dataset), dataset, test)
    low, high = scores.interval("dice")
    print(f"{name:9} Dice {scores.summary()['dice']:.3f}, 95 % interval {low:.3f} to {high:.3f}")
    predictors[name] = predict
two, three = (scores.table["dice"] for scores in found.values())
print(f"the new name changes Dice by {(three - two).mean():+.3f} on average")

# %%
picture, truth = read_pair(dataset, test[0])
panels = [display.Panel(picture.pixels, truth, p(picture), n) for n, p in predictors.items()]
display.show(
    display.grid(panels, dataset.labels, alt="Both predictions.", columns=2),
    alt="A held-out chest X-ray with the masks of both networks, solid, beside the annotator's dashed "
    "ones. Both find the lungs and tell them apart; the borders wander.",
)

# %%
print(dataset.citation, "|", dataset.licence)

# %% [markdown]
# Little or nothing: on the drawn X-rays (whose names include the heart) the new name changes next to nothing; on the real ones Dice is nearly three hundredths lower, which one seed cannot tell from chance. Perhaps sixty steps are few for an empty mask, too.
#
# Which directions did that move? Compare the values with those of the start.

# %%
for place in ("attn.qkv", "attn.proj", "mlp.lin1", "mlp.lin2"):
    parts = [b.get_submodule(place) for b in trained["two names"].sam.image_encoder.blocks]
    ratio = torch.cat([part.values() / part.singular for part in parts]).detach()
    louder, off, moved = (ratio > 2).sum(), (ratio == 0).sum(), (ratio - 1).abs().median()
    print(f"{place:10} median turn {moved:.0%}, of {len(ratio)}: {louder} doubled, {off} off")

# %% [markdown]
# The typical direction is turned up or down by a fifth or a quarter, in `proj` by a third or more. Some are more than doubled and some switched off, nearly all of them in `proj` with its silent end.
#
# ## Prompting with unknown names
#
# Both networks know the lungs by name. Now ask both for what they have never heard, on eight held-out X-rays.
#
# > **Predict.** What do they answer to *rigth lung*? And to *banana*?

# %%
from medsaga_lib.models.heads import LabelPrompts

samples = Samples(dataset, test, size)
eight = torch.stack([samples[i]["image"] for i in range(8)])


# %%
@torch.no_grad()
def ask(network, words):
    """The network's masks (8, n, h, w) for any n words."""
    asked = LabelPrompts(network.sam, Spelling()(words)).eval()
    asked.affine = network.affine
    logits = interpolate(asked(eight)[:, 1:], (size, size), mode="bilinear")
    return (logits > 0).long()


# %%
words = ["right lung", "left lung", "rigth lung", "Right Lung", "lung", "spleen", "banana"]
answers = {name: ask(network, words) for name, network in trained.items()}
for name, masks in answers.items():
    print(f"{name:12} share of picture, Dice with right lung, with left lung")
    for word, found in zip(words, masks.unbind(1), strict=True):
        same = [2 * (found & m).sum() / (found.sum() + m.sum()) for m in masks[:, :2].unbind(1)]
        print(f"  {word:10} {found.float().mean():16.0%} {same[0]:20.2f} {same[1]:15.2f}")

# %%
chosen = ["right lung", "rigth lung", "spleen", "banana"]
panels = [
    display.Panel(gray, None, masks[0, words.index(word)].numpy(), f"{name}: {word}")
    for name, masks in answers.items()
    for word in chosen
]
display.show(
    display.grid(panels, {1: "answer"}, alt="Answers.", columns=4),
    alt="One X-ray and four words, put to both networks. The one that knows two names outlines lung "
    "for every word, for spleen and banana pieces of it. The one that was taught that spleen is nowhere "
    "leaves spleen empty and draws pieces of both lungs for the misspelt right one.",
)

# %% [markdown]
# A network that was only ever asked for what is there answers with something, whatever it is asked for: a *banana* is a piece of lung, large on the real X-rays, a speck on the drawn ones. Nothing in its training was an empty mask, so nobody taught it to say *not here*.
# One name that is always absent teaches it that, for this name. What *banana* gets from it is luck, nothing or some piece of lung: no loss has ever spoken of bananas.
#
# And look at *rigth lung*, two letters in the wrong order: the second network draws pieces of the **left** one, too. To *lung*, which could be either, it answers with the left one and, on the real X-rays, about half of the right.
# `Spelling` folds case and spaces, so *Right Lung* is no harm. A program that takes names from people should accept those it was trained with and refuse the rest, whichever text encoder stands behind it.
#
# ## Longer runs: S-SAM, SVF and the decoder alone
#
# S-SAM against SVF (factors alone: no shift, no norms, no positions, nothing of the decoder) and against the baseline that takes least thought, the decoder alone above a frozen encoder.
#
# A rate can hide a method, so first a rate for each of the two that turn volumes. Five and four were tried, on lungs from 8 pictures and on polyps from 64, with three seeds each, and judged by the Dice of the *validation* patients. (The decoder's is SAMed's.)
#
# > **Predict.** S-SAM trains factors and shifts, SVF factors alone. Which of them needs the higher rate?

# %%
import json
from pathlib import Path

tried = pd.DataFrame(json.loads(Path("recorded/svd_affine_bracket.json").read_text())["runs"])
tried[["recipe", "rate"]] = tried["recipe"].str.split(":lr=", expand=True)
tried["on"] = tried["data"].map({"cxr_hannover_lungs": "lungs", "polyp_kvasir": "polyps"})
table = tried.pivot_table("val_dice", ["recipe", "rate"], "on", aggfunc=["mean", "min"])
table["both", "mean"] = table["mean"].mean(axis=1)
table.round(2)

# %% [markdown]
# SVF, as far as one can tell. S-SAM's five rates are about level over both tasks: lungs alone would take a high one, polyps a low one. SVF learns too little at 0.01; and on polyps single runs of it do badly at 0.01 and fail at 0.1 (see the minimum), not at 0.03 or 0.3, so a mean of three jumps up and down.
# We take SVF's best, 0.03, for both, so that an ablation that takes one part away tests the part and not the rate.
#
# What trains in the pocket SAM, and at which rate:

# %%
for name in ("s_sam", "svf", "decoder_only"):
    recipe = get_recipe(name)
    trains = count(recipe, "pocket", size, classes=2).trainable
    print(f"{name:13} {trains:8,} numbers, learning rate {recipe.lr}")

# %% [markdown]
# > **Predict.** Who is ahead at 8 shots: one of the two that turn volumes, or the decoder?

# %%
recorded = json.loads(Path("recorded/svd_affine.json").read_text())
origin = recorded["provenance"]
print(origin["command"])
print(origin["date"], "|", origin["device"], "|", origin["data"])

# %%
print(f"{origin['test_cases']} held-out X-rays of {origin['test_patients']} patients")
runs = pd.DataFrame(recorded["runs"])
runs["95 % interval"] = ["{:.3f} to {:.3f}".format(*ends) for ends in runs["dice_interval"]]
table = runs.rename(columns={"dice": "Dice", "hd95": "HD95 (px)"}).set_index("recipe")
table[["shots", "Dice", "95 % interval", "HD95 (px)"]].round({"Dice": 3, "HD95 (px)": 1})

# %%
curves = []
for name, part in runs.groupby("recipe", sort=False):
    title = re.split("[:,]", get_recipe(name).title)[0]
    low, high = zip(*part["dice_interval"], strict=True)
    curves.append(display.Curve(title, [*part["shots"]], [*part["dice"]], low, high))

# %%
alt = (
    "Mean Dice on held-out patients at 8 and 32 labelled images for S-SAM, SVF and the decoder "
    "alone: the decoder begins highest, at 0.85, and hardly rises; S-SAM rises most and passes it by a "
    "hair, SVF stays below both. All bands over patients overlap."
)
axes = "labelled images", "mean Dice"
display.show(display.curve_with_interval(curves, *axes, alt, log_x=True), alt=alt)

# %% [markdown]
# Nobody. At 8 shots the decoder alone is two and three hundredths ahead of them, at 32 S-SAM passes it by less than one; with one seed and eleven patients all of that is inside the intervals, and the means over three seeds in [chapter 9](09_from_scratch.ipynb) are within a hundredth at 8 shots; at 32 S-SAM is ahead of the decoder in each seed, by a hundredth or so at most, and SVF behind. So for these lungs volumes gain next to nothing on a decoder. For polyps they gain two tenths, as chapter 9 shows. S-SAM and SVF train about a tenth of the decoder's numbers; most of those are the text layer, and no row here shows it alone.
#
# What this cannot say: whether it holds for SAM's own weights, for organs less dark than lungs, for many names, or with CLIP.
#
# ## Exercises
#
# ### Exercise 1 (easy, 5 minutes)
# S-SAM trains two numbers for each singular value. How many times more does a LoRA of rank 4 train, beside a matrix of 3072 x 768 such as `lin1` of ViT-B?

# %% tags=["exercise"]
times = None

# %% cellView="form" tags=["solution"]
# @title Solution
times = 4 * (3072 + 768) / (2 * 768)

# %% tags=["exercise-check"]
from torch import nn

detour = sum(p.numel() for p in (nn.Linear(768, 4, False).weight, nn.Linear(4, 3072, False).weight))
layer = SVDLayer(nn.Linear(768, 3072))
knobs = layer.scale.numel() + layer.shift.numel()
assert times == detour / knobs, f"{times} is not it: r (m + n) numbers against 2 min(m, n)"

# %% [markdown]
# ### Exercise 2 (medium, 10 minutes)
# The ReLU can prune. Set the shift of `pruned` so that its 16 loudest directions stay exactly as loud as they are and all others are switched off.

# %% tags=["exercise"]
pruned = SVDLayer(block.mlp.lin1)
pruned.shift.data = torch.zeros(192)

# %% cellView="form" tags=["solution"]
# @title Solution
pruned = SVDLayer(block.mlp.lin1)
pruned.shift.data = -pruned.singular
pruned.shift.data[:16] = 0

# %% tags=["exercise-check"]
whole, kept = block.mlp.lin1.weight.detach(), pruned.merged().weight.detach()
rank = torch.linalg.matrix_rank(kept, rtol=1e-4).item()
assert rank == 16, f"the rank is {rank}: a direction is off where a s + b is not above zero"
loud = torch.linalg.svdvals(whole)[:16]
error = (torch.linalg.svdvals(kept)[:16] - loud).abs().max()
assert error < 1e-4, f"a direction that stays has changed by {error:.2f}"

# %% [markdown]
# ### Exercise 3 (medium, 10 minutes)
# A network is to be asked for the organs below, by `Spelling`. Which two names are nearest to each other, and so the likeliest to be taken for one another? Put the pair into `nearest`.

# %% tags=["exercise"]
organs = ["spleen", "right kidney", "left kidney", "gallbladder", "liver", "stomach", "aorta"]
nearest = ("spleen", "liver")

# %% cellView="form" tags=["solution"]
# @title Solution
vectors = Spelling()(organs)
cosines = (vectors @ vectors.T).fill_diagonal_(0)
row, column = divmod(cosines.argmax().item(), len(organs))
nearest = organs[row], organs[column]

# %% tags=["exercise-check"]
assert nearest[0] != nearest[1], "two different names"
vectors = Spelling()(organs)
distances = torch.pdist(vectors)  # of all pairs
distance = (vectors[organs.index(nearest[0])] - vectors[organs.index(nearest[1])]).norm()
assert distance <= distances.min() + 1e-6, f"there is a nearer pair than {' and '.join(nearest)}"

# %% [markdown]
# ## Summary
#
# - A matrix is a list of directions with a volume each; S-SAM turns the volumes, with a factor and a shift, and a floor at zero.
# - The shift wakes in few steps what factors alone wake slowly; the ReLU switches directions off, for good.
# - The change has full rank and few degrees of freedom: it is diagonal in the matrix's own coordinates.
# - "0.4%" is a number at 256 pixels, and positions are its largest part.
# - Factors in place of $W$ cost a quarter of what factors beside it cost.
# - A name is a number plate until training has seen many; what is absent must be taught, and a slip of the pen can bring in the other lung.
