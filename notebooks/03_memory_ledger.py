# %% [markdown]
# # 3. The memory ledger
#
# **You will be able to**
# - name the four kinds of data that fill the memory during training, and compute the size of three of them by hand,
# - predict the size of the fourth, the activations, without the GPU that would train the network,
# - say which method reduces which of the four, and why a claim of "66 % less memory" can be true and still not make the training fit.
#
# **Before this** PyTorch: you have written a training loop.
#
# **Budget** 3 minutes on two CPU cores, 1.5 GB of memory, 0 MB to download

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
# ## The four parts of training memory
#
# `CUDA out of memory` tells you that something did not fit. It does not tell you what the memory was full of.
# A training step keeps four kinds of bytes:
#
# | | what | how many |
# |---|---|---|
# | **weights** | the network itself | 4 bytes a number in single precision |
# | **gradients** | one for each weight that trains | as many again |
# | **states** | what the optimizer remembers; AdamW keeps two moments | twice as many |
# | **activations** | what the forward pass leaves behind for the backward pass | depends on the batch and on the picture |
#
# We keep the ledger of one linear layer first.
#
# > **Predict.** A layer from 1000 to 1000 numbers, without bias, trained by AdamW on a batch of 50. How many MB in each row?

# %%
import torch
from torch import nn

from medsaga_lib.memory.ledger import held_bytes, saved_bytes

torch.manual_seed(seed)
layer = nn.Linear(1000, 1000, bias=False)
optimizer = torch.optim.AdamW(layer.parameters())
batch = torch.randn(50, 1000)

# %%
with saved_bytes(layer) as saved:
    loss = layer(batch).square().mean()
    activations = saved.total()
loss.backward()
optimizer.step()

# %%
rows = {
    "weights": layer.weight.nbytes,
    "gradients": layer.weight.grad.nbytes,
    "states": held_bytes(optimizer),
    "activations": activations,
}
for name, size in rows.items():
    print(f"{name:12} {size / 1e6:6.2f} MB")

# %% [markdown]
# 4, 4 and 8 MB, and 0.4 MB of activations: the layer's input and its output, 50 x 1000 numbers each, kept because the backward pass needs them.
# (The states hold four bytes more than two moments. AdamW counts its steps.)
#
# Here the activations hardly matter. Let us see how long that lasts.
#
# ## Measuring the activations of a training step
#
# Our subject is SAM, the Segment Anything Model. It cuts a picture into patches of 16 x 16 pixels. Its *image encoder*, a vision transformer (the size used here is called ViT-B), makes a vector of each patch, a *token*, and lets tokens look at each other (*attention*, in several *heads* side by side). A small *mask decoder* turns tokens into masks.
# What runs here is mostly a small stand-in, the pocket SAM of 3.8 million parameters: the same classes of code, pretrained by us. It is not SAM.

# %% tags=["data"]
from medsaga_lib.data.catalog import open_or_phantoms

dataset = open_or_phantoms("cxr_hannover_lungs")
print(dataset.describe())

# %%
from medsaga_lib import display
from medsaga_lib.data.samples import Samples

samples = Samples(dataset, dataset.split("train")[:8], size=256)
panels = [display.Panel(samples[i]["image"][0].numpy(), title=samples.key(i)) for i in range(4)]
display.show(
    display.grid(panels, {}, alt="Four X-rays.", columns=4),
    alt="Four chest X-rays, squeezed to squares of 256 pixels as the network gets them.",
)

# %%
print(dataset.citation, "|", dataset.licence)

# %% [markdown]
# A *recipe* says how a method trains. `samed` freezes the image encoder and adds LoRA, small trainable matrices beside the frozen ones. `medsaga` trains all of the image encoder with GaLore, an AdamW with smaller states ([chapter 4](04_galore.ipynb)). Both train the mask decoder with plain AdamW. We make a third one, plain full fine-tuning, by replacing a single field.

# %%
from dataclasses import replace

from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.encoder import Full

samed, medsaga = get_recipe("samed"), get_recipe("medsaga")
full = replace(samed, name="full", image_encoder=Full())
recipes = {"full, AdamW": full, "MedSAGa, GaLore": medsaga, "SAMed, LoRA": samed}

# %% [markdown]
# One real step of the pocket SAM on one X-ray, and what it holds:

# %%
from medsaga_lib.training.losses import cross_entropy_dice
from medsaga_lib.recipes.build import build_model, build_optimizer

model = build_model(full, "pocket", 256, classes=len(dataset.labels), seed=seed)
images = samples[0]["image"][None]  # (1, 3, 256, 256)
labels = samples[0]["label"][None, ::4, ::4].contiguous()  # (1, 64, 64), as large as the masks

# %%
with saved_bytes(model) as saved:
    loss = cross_entropy_dice(model(images), labels).total
    for_one = saved.total()
optimizer = build_optimizer(full, model)
loss.backward()
optimizer.step()
print(f"states {held_bytes(optimizer) / 2**20:.1f} MiB, activations {for_one / 2**20:.1f} MiB")

# %% [markdown]
# > **Predict.** A batch of 12 is what SAMed and MedSAGa use. Which of the two numbers grows, and how far?

# %%
for count in (1, 2, 4, 8):
    batch = torch.stack([samples[i]["image"] for i in range(count)])
    with saved_bytes(model) as saved:
        result = model(batch)
        print(f"batch {count}: activations {saved.total() / 2**20:6.1f} MiB")
    del result

# %% [markdown]
# Twice the pictures, twice the activations. Weights, gradients and states do not know how large the batch is.
#
# ## Predicting memory from tensor shapes
#
# Measuring needs the machine. But shapes are enough to know how many bytes *would* be kept:
# PyTorch can run a network on fake tensors, which have a shape and no content. That costs about a second, and no memory.
# First the test: prediction against measurement, for the step above.

# %%
from medsaga_lib.memory.plan import Plan, predict_ledger

predicted = predict_ledger(full, Plan("pocket", batch=1, size=256, classes=len(dataset.labels)))
print(f"predicted {predicted.activations:,} bytes, measured {for_one:,}")
print(f"difference {abs(predicted.activations - for_one) / for_one:.3%}")

# %% [markdown]
# Now the network that nobody can train while reading: SAM's ViT-B, 512 pixels, the paper's batch of 12, eight organs, with SAM's own code for attention.
#
# > **Predict.** GaLore shrinks AdamW's states to a seventh. How much smaller does the whole bar get?

# %%
plan = Plan("vit_b", batch=12, size=512, classes=8, attention="original")
ledgers = {name: predict_ledger(recipe, plan) for name, recipe in recipes.items()}
for name, entry in ledgers.items():
    print(f"{name:16} states {entry.states / 2**20:6.0f} MiB, sum {entry.sum / 2**30:6.2f} GiB")

# %%
PARTS = ("weights", "gradients", "states", "activations")
bars = {name: {part: getattr(entry, part) for part in PARTS} for name, entry in ledgers.items()}
display.show(
    display.bar_ledger(bars, alt="Ledgers.", title="ViT-B, 512 px, batch 12, fp32"),
    alt="Three stacked bars. Activations fill more than nine tenths of each; GaLore's bar is hardly "
    "shorter than full fine-tuning's, LoRA's is about a third shorter.",
)

# %%
saving = 1 - ledgers["MedSAGa, GaLore"].sum / ledgers["full, AdamW"].sum
print(f"GaLore saves {saving:.1%} of the sum")

# %% [markdown]
# GaLore did what it promised: the states went from 702 to 104 MiB. They were never the problem.
# At batch 12 more than 90 % of the bar are activations, and GaLore does not touch those.
#
# LoRA saves more here, and not because it has few states. A frozen linear layer does not need its input for the backward pass (there is no gradient of $W$ to compute), so that input is not kept.
#
# This sum is no *peak*. Temporaries come on top, and with checkpointing (below) so does the block that is being computed again; but gradients are complete only when most activations are gone. So the peak may lie above the sum or below it. The sum says what the memory is full of.
#
# ## Fused attention: the attention maps are not stored
#
# Which activations? SAM's attention computes, for each pair of tokens, how much one looks at the other, and keeps that map for the backward pass.
# At 512 pixels the four blocks that see the whole picture have 32 x 32 = 1024 tokens: a million pairs, for each of 12 heads, for each picture.
#
# > **Predict.** How many GiB are the maps of those four blocks, at batch 12?

# %%
pairs = (32 * 32) ** 2
print(f"{4 * 12 * 12 * pairs * 4 / 2**30:.2f} GiB")  # blocks, heads, pictures, bytes

# %% [markdown]
# The map need not be kept. A *fused* kernel goes through it in small tiles and forgets them; the backward pass makes the tiles again.
# SAM's attention does not fit into such a kernel as it stands, because it adds a number to each pair that depends on how far apart the two are.
# So this library moves that number into the vectors that are compared, and then it fits (`medsaga_lib/models/attention.py`); on a CPU it makes and forgets the tiles itself. The result is the same:

# %%
from medsaga_lib.models.sam import build_sam

from medsaga_lib.models.weights import load_state

encoders = []
for kind in ("original", "fused"):
    sam = build_sam("pocket", attention=kind)
    sam.load_state_dict(load_state("pocket"))  # trained: the added numbers are not zero
    encoders.append(sam.image_encoder)
with torch.no_grad():
    picture = samples[0]["image"][None] * 2 - 1
    difference = encoders[0](picture) - encoders[1](picture)
print(f"largest difference {difference.abs().max():.0e}")

# %%
plan = replace(plan, attention="fused")
without_maps = {name: predict_ledger(recipe, plan) for name, recipe in recipes.items()}
for name, entry in without_maps.items():
    print(f"{name:16} {ledgers[name].sum / 2**30:5.2f} -> {entry.sum / 2**30:5.2f} GiB")

# %% [markdown]
# Four tenths of every bar are gone and nothing else has changed: not the result, not the method.
# Not all of it was maps. The other eight blocks look through windows of 14 x 14 tokens, and before SAM cuts the 32 x 32 grid into those, it fills it up with zeros to 42 x 42: three quarters more tokens, computed, kept and thrown away. They are left out too. (The pocket SAM has no windows; `tests/models/test_attention.py` compares the two there.)
# The mask decoder attends, too, but its maps have some twelve rows, and a fused kernel's own notes are as large: for MedSAGa and SAMed it would save 0.2 and 0.4 % of the activations, for S-SAM it would cost 0.2 (`tests/memory/test_plan.py`). So the decoder stays SAM's own.
# All this is the library's default; `attention="original"` is there to compare.
#
# ## Checkpointing: the activations are computed again
#
# *Checkpointing* keeps only the input of each block and computes the block again during the backward pass: about a third more time, for a fraction of the activations.

# %%
plan = replace(plan, checkpointing=True)
lean = {f"{name}, checkpointed": predict_ledger(r, plan) for name, r in recipes.items()}
bars = {name: {part: getattr(entry, part) for part in PARTS} for name, entry in lean.items()}
display.show(
    display.bar_ledger(bars, alt="Ledgers.", title="the same with checkpointing"),
    alt="With checkpointing the three bars shrink to about a quarter or less; states are now three "
    "tenths of the bar of full fine-tuning, and GaLore's bar is clearly shorter.",
)

# %%
saving = 1 - lean["MedSAGa, GaLore, checkpointed"].sum / lean["full, AdamW, checkpointed"].sum
print(f"now GaLore saves {saving:.0%} of the sum")

# %% [markdown]
# With the activations out of the way the optimizer matters, and GaLore's saving shows. The order of the advice is therefore:
# activations first (fused attention, checkpointing, smaller batch, smaller picture), then states.
#
# ## All memory savings together, and their time cost
#
# Two switches are left. *Per-layer updates* let the optimizer take each gradient inside the backward pass and free it at once, so that only one exists at a time.
# *bf16* computes in half the bits; weights and states stay in full precision. Here is the start and then all four ways to save, each on top of those before it, for four methods, nobody left out.
#
# > **Predict.** With everything on, who needs least: GaLore, LoRA, or S-SAM ([chapter 6](06_svd_affine.ipynb)), which trains fewer numbers than either?

# %%
import pandas as pd

methods = {**recipes, "S-SAM, SVD": get_recipe("s_sam")}
switches = [("attention", "original"), ("attention", "fused"), ("checkpointing", True),
            ("per_layer", True), ("precision", "bf16")]  # fmt: skip
all_on, rows = Plan("vit_b", batch=12, size=512, classes=8), {}
for switch, value in switches:
    all_on = replace(all_on, **{switch: value})
    sums = [predict_ledger(recipe, all_on).sum / 2**30 for recipe in methods.values()]
    rows[f"{switch} = {value}"] = sums

# %%
from medsaga_lib.memory.plan import predict_peak

rows["peak of the last"] = [predict_peak(r, all_on) / 2**30 for r in methods.values()]
print("GiB, whole model, batch 12")
pd.DataFrame(rows, index=list(methods)).T.round(2)

# %% [markdown]
# The sum of full fine-tuning falls from more than 14 GiB to about one and a half, and its peak is then about two. The peaks of MedSAGa and LoRA are below one and a half: GaLore no longer loses by gigabytes, and it does not win either. Where it differs is *what* it trains, which is all of the encoder.
#
# And S-SAM, with the fewest numbers to train, needs more than both. Where does that go?

# %%
for classes in (8, 1):
    for name in ("S-SAM, SVD", "SAMed, LoRA"):
        entry = predict_ledger(methods[name], replace(all_on, classes=classes))
        sizes = f"activations {entry.activations / 2**20:5,.0f}, sum {entry.sum / 2**20:5,.0f} MiB"
        print(f"{classes} label(s), {name}: {sizes}")

# %% [markdown]
# Into the mask decoder, which it asks once for every label, and whose activations nothing here throws away. For one label most of the difference is gone; what stays are the factors of its matrices, a hundred MiB more weights than LoRA's.
#
# Memory that is not kept must be computed again. What do the switches cost in time? One training step at batch 1, ViT-B, 512 pixels, on one core of a CPU, in seconds:

# %%
import json
from pathlib import Path

recorded = json.loads(Path("recorded/measured_cpu.json").read_text())
origin = recorded["provenance"]
print(origin["command"])
print(origin["date"], "|", recorded["rows"][0]["device"])

# %%
times = pd.json_normalize(recorded["rows"])
on = ["plan.attention", "plan.checkpointing", "plan.per_layer", "plan.precision"]
times.pivot_table(index=on, columns="recipe", values="seconds", sort=False).round(1)

# %% [markdown]
# The fused attention saves time, too, 8 to 12 %, with LoRA 5, which may be noise. Checkpointing costs most, 16 to 43 % on top of the row before it. Per-layer updates are nearly free, or cost a tenth. And bf16 takes 33 to 43 % off, so that everything at once is *faster* than the start. (Each number is the fastest of three steps; differences of about 6 % are noise.)
# That last row is the processor's merit: it has instructions for bf16. An older one without them has to emulate it, and then bf16 takes many times longer than fp32. What has yours?

# %%
from time import perf_counter

for dtype in (torch.float32, torch.bfloat16):
    a, b = torch.randn(256, 768).to(dtype), torch.randn(768, 768).to(dtype)
    a @ b  # the first call is slower
    began = perf_counter()
    a @ b
    print(f"{dtype}: {1000 * (perf_counter() - began):.1f} ms for one product of matrices")

# %% [markdown]
# ## Comparison with SAMed and DAE-Former
#
# So far AdamW on the same SAM stood beside GaLore. The paper compares with others: its 66 % are an average over "current state-of-the-art", SAMed and DAE-Former, and against the latter alone it says 61 %, of memory that "depend[s] only on the model parameters". Both are recipes here ([chapter 9](09_from_scratch.ipynb) introduces DAE-Former).
#
# > **Predict.** Who needs least for weights, gradients and states? And who needs most once the activations of twelve pictures count?

# %%
asked = {"MedSAGa": ("medsaga", "vit_b", 512), "SAMed": ("samed", "vit_b", 512),
         "DAE-Former, its own 224 px": ("dae_former", "none", 224),
         "DAE-Former at SAM's 512 px": ("dae_former", "none", 512)}  # fmt: skip
table = {}
for name, (recipe, on, side) in asked.items():
    entry = predict_ledger(get_recipe(recipe), Plan(on, 12, side, 8, attention="original"))
    table[name] = {"model": (entry.sum - entry.activations) / 2**30, "sum": entry.sum / 2**30}

# %%
compared = pd.DataFrame(table).T.rename_axis("GiB", axis=1)
for column in ("model", "sum"):
    share = compared.loc["MedSAGa", column] / compared[column] - 1
    compared[f"MedSAGa's {column}"] = share.map("{:+.0%}".format)
compared.round(2)

# %% [markdown]
# Of the model itself MedSAGa needs *more* than either: twice SAMed's, more than twice DAE-Former's (half as much again where DAE-Former keeps the weights that its published code never uses).
# With activations it still needs more, unless DAE-Former is trained on pictures of SAM's size. Then MedSAGa takes two thirds less, which is near the paper's number and no merit of GaLore: SAMed takes three quarters less. We do not know whether that was the comparison: the paper does not say at which size it trained DAE-Former.
#
# One more thing is not in our ledger. The published GaLore package ([chapter 4](04_galore.ipynb)) keeps the whole factor of which its basis is a part, as long as the basis lives:

# %%
from medsaga_lib.optim.galore import treatment
from medsaga_lib.recipes.build import build_model

with torch.device("meta"):
    encoder = build_model(medsaga, "vit_b", 512, 8, "random").sam.image_encoder
config = medsaga.image_encoder.config(encoder)
plans = [t for t in treatment(encoder, config) if t.how == "projected" and len(t.shape) == 2]
hidden = sum(4 * min(t.matrix) * (min(t.matrix) - config.rank) for t in plans)
print(f"{hidden / 2**20:.0f} MiB more, so {table['MedSAGa']['sum'] + hidden / 2**30:.2f} GiB")

# %% [markdown]
# ## Gradient accumulation: 12 passes of 1 image
#
# There is an older trick. Activations grow with the batch, so let one picture through at a time, add up twelve gradients, and only then let the optimizer step.
#
# > **Predict.** What is left of the 14.6 GiB of full fine-tuning? And are twelve passes of one picture the same as one pass of twelve?

# %%
single = replace(plan, batch=1, checkpointing=False, attention="original")
for name, recipe in recipes.items():
    entry = predict_ledger(recipe, single)
    print(f"{name:16} {entry.sum / 2**30:.2f} GiB, of which states {entry.states / entry.sum:.0%}")

# %% [markdown]
# It costs no arithmetic more, only a smaller load for the GPU at a time. But is it the same? Try it with the loss of these papers, a fifth cross-entropy and four fifths Dice, on eight X-rays.

# %%
batch = torch.stack([samples[i]["image"] for i in range(8)])
targets = torch.stack([samples[i]["label"][::4, ::4] for i in range(8)])
with torch.no_grad():
    logits = model(batch)
together = cross_entropy_dice(logits, targets)
alone = [cross_entropy_dice(logits[[i]], targets[[i]]) for i in range(8)]

# %%
for name in ("cross_entropy", "dice"):
    one_by_one = sum(getattr(part, name) for part in alone) / 8
    print(f"{name:14} together {getattr(together, name):.4f}, one by one {one_by_one:.4f}")

# %% [markdown]
# Cross-entropy is a mean over pixels, and a mean of means of equal size is the mean. Dice is a ratio of sums, taken over *all pictures of a pass*: twelve ratios do not average to the ratio of all twelve.
# One by one, each picture counts the same, however small its organ, and a picture in which an organ is absent costs nearly 1 for it. Neither is wrong, but it is another objective: a run with `--accumulate 12` reproduces no run with a batch of 12.
#
# ## The claim of 66 % less memory
#
# MedSAGa's abstract claims "an average memory efficiency of 66% more" than other models, without saying of what the 66 % are.
# One way to get there: leave the activations out, and let GaLore update each layer inside the backward pass, so that only one gradient exists at a time, while AdamW keeps them all.

# %%
one = Plan("vit_b", batch=1, size=512, classes=8)
without = predict_ledger(medsaga, replace(one, per_layer=True))
dense = predict_ledger(full, one)
ours = without.weights + without.gradients + without.states
theirs = dense.weights + dense.gradients + dense.states
print(f"{ours / 2**20:.0f} MiB against {theirs / 2**20:.0f} MiB: {1 - ours / theirs:.0%} less")

# %% [markdown]
# There it is, or nearly: a true number, about three of the four rows, with an advantage that only one side was given.
# Of what has to fit into the card at batch 12, it is a few per cent.
# A saving without its denominator is not a measurement. [Will it fit my GPU?](../book/fit.md) has sliders for every reading of the claim.

# %% [markdown]
# ## Exercises
#
# ### Exercise 1 (easy, 5 minutes)
# SAM's ViT-B has 93,735,472 parameters. How many bytes do AdamW's two moments take when all of them train in single precision?

# %% tags=["exercise"]
moments = None

# %% cellView="form" tags=["solution"]
# @title Solution
moments = 2 * 4 * 93_735_472

# %% tags=["exercise-check"]
from medsaga_lib.memory.ledger import state_bytes

with torch.device("meta"):  # shapes without memory
    sam = build_sam("vit_b")
expected, _ = state_bytes([{"params": list(sam.parameters())}])
assert moments == expected, f"{moments} is not it: two numbers of four bytes for each weight"

# %% [markdown]
# ### Exercise 2 (medium, 10 minutes)
# A free Colab GPU has 15 GiB. What is the largest batch for which the ledger's **sum** of full fine-tuning (ViT-B, 512 px, 8 classes, fused attention, no checkpointing) stays below 13 GiB, leaving 2 for temporaries?
# Activations grow linearly with the batch: one prediction is enough.

# %% tags=["exercise"]
largest_batch = None

# %% cellView="form" tags=["solution"]
# @title Solution
entry = predict_ledger(full, one)
fixed = entry.weights + entry.gradients + entry.states
largest_batch = (13 * 2**30 - fixed) // entry.activations

# %% tags=["exercise-check"]
assert isinstance(largest_batch, int), "give a whole number of images"
fits, does_not = (
    predict_ledger(full, replace(one, batch=largest_batch + more)).sum for more in (0, 1)
)
assert fits <= 13 * 2**30 < does_not, f"{largest_batch} is not the largest that fits (fused attention)"

# %% [markdown]
# ### Exercise 3 (hard, 10 minutes)
# Halve the side of the picture, from 512 to 256 pixels: a quarter of the tokens. By which factor do the activations of full fine-tuning fall at batch 1, with the original attention? Guess first, then put the predicted factor into `factor`. Why is it not 4?
#
# <details><summary>Why</summary>
#
# Two things pull apart. Attention maps have one number for each *pair* of tokens: in the four blocks that look at the whole picture they fall by 16.
# The other eight blocks work in windows of 14 x 14 tokens and pad the grid until windows fit: 32 becomes 42, and 16 becomes 28. There a quarter of the tokens is only 2.25 times fewer.
# </details>

# %% tags=["exercise"]
factor = None

# %% cellView="form" tags=["solution"]
# @title Solution
original = replace(one, attention="original")
large, small = (
    predict_ledger(full, replace(original, size=side)).activations for side in (512, 256)
)
factor = large / small

# %% tags=["exercise-check"]
assert factor, "there is no answer yet"
plans = [Plan("vit_b", 1, side, 8, attention="original") for side in (512, 256)]
halves = [predict_ledger(full, plan).activations for plan in plans]
assert abs(factor - halves[0] / halves[1]) < 0.05, f"{factor:.2f} is off: keep batch 1, 8 classes"

# %% [markdown]
# ## Summary
#
# - A step keeps weights, gradients, states and activations; the first three follow from counting parameters.
# - Activations grow with the batch and the picture; at the papers' batch of 12 they are nine tenths of it.
# - GaLore saves states, LoRA saves states, gradients and some activations; fused attention and checkpointing save activations.
# - Predict on fake tensors before you rent the card; [chapter 5](05_adapting_sam.ipynb) trains what this chapter counted.
