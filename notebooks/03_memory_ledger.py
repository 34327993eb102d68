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
# ## The four parts of training memory
#
# The message `CUDA out of memory` says that something did not fit. It does not say what filled the memory.
# A training step keeps data of four kinds:
#
# Table: The memory of a training step, by content.
#
# | part | content | size |
# |---|---|---|
# | **weights** | the parameters of the network | 4 bytes for each parameter in single precision (fp32) |
# | **gradients** | one number for each trained parameter | 4 bytes for each trained parameter |
# | **states** | numbers that the optimizer keeps from step to step; AdamW keeps two *moments*, running means of the gradient and of its square | 8 bytes for each trained parameter |
# | **activations** | tensors that the forward pass keeps for the backward pass | depends on the batch and on the size of the images |
#
# A *ledger* is the list of these four sizes. We start with the ledger of one linear layer.
#
# > **Predict.** A linear layer maps 1,000 numbers to 1,000 numbers, without a bias. AdamW trains it on a batch of 50. How many MB does each part need?

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
# The activations are the input and the output of the layer, 50 x 1,000 numbers each. The backward pass needs them: the input for the gradient of the weights, and the output for the gradient of the square.
#
# In this layer, the activations are the smallest part. The next sections measure them in a large network.
#
# ## Measuring the activations of a training step
#
# SAM, the Segment Anything Model, cuts an image into patches of 16 x 16 pixels. Its *image encoder* is a vision transformer. It turns each patch into a vector, called a *token*. In *attention*, each token takes up information from the other tokens; several *heads* do this in parallel. A small *mask decoder* turns the tokens into masks ([chapter 2](02_sam_from_the_inside.ipynb)).
#
# This chapter uses two image encoders. ViT-B is the smallest encoder that SAM's authors published. The **pocket SAM** is a small network with the same classes of code, which we pretrained on drawn images ([Where the weights come from](../book/weights.md)). It is not SAM: it is small enough to measure a training step on a CPU.
# Where `MEDSAGA_DATA` names no folder, drawn chest X-rays replace the real ones.

# %% tags=["data"]
from medsaga_lib.data.catalog import open_or_phantoms

dataset = open_or_phantoms("cxr_hannover_lungs")
print(dataset.describe())

# %%
from medsaga_lib import display
from medsaga_lib.data.samples import Samples

samples = Samples(dataset, dataset.split("train")[:8], size=256)

# %%
panels = []
for number in range(4):
    pixels = samples[number]["image"][0].numpy()
    panels.append(display.Panel(pixels, title=samples.key(number)))
display.show(
    display.grid(panels, {}, alt="Four X-rays.", columns=4),
    alt="Four chest X-rays, squeezed to squares of 256 pixels for the network.",
    caption="Four chest X-rays of the training images as the network gets "
    "them, 256 x 256 px. Each title is the name of a case.",
)
print(dataset.citation, "|", dataset.licence)

# %% [markdown]
# A *recipe* holds all values of a method: which parameters train, with which loss, optimizer and schedule.
# The recipe `samed` freezes the image encoder and adds LoRA, pairs of small trainable matrices beside the frozen ones ([chapter 5](05_adapting_sam.ipynb)). The recipe `medsaga` trains the whole image encoder with GaLore, an AdamW with smaller states ([chapter 4](04_galore.ipynb)). Both train the mask decoder with plain AdamW. The next cell makes a third recipe, full fine-tuning with plain AdamW, by replacing one value.

# %%
from dataclasses import replace

from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.encoder import Full

samed, medsaga = get_recipe("samed"), get_recipe("medsaga")
full = replace(samed, name="full", image_encoder=Full())
recipes = {
    "full, AdamW": full,
    "MedSAGa, GaLore": medsaga,
    "SAMed, LoRA": samed,
}

# %% [markdown]
# The next cells make one training step of the pocket SAM on one X-ray. They measure the states and the activations.

# %%
from medsaga_lib.training.losses import cross_entropy_dice
from medsaga_lib.recipes.build import build_model, build_optimizer

classes = len(dataset.labels)
model = build_model(full, "pocket", 256, classes, seed=seed)
images = samples[0]["image"][None]  # (1, 3, 256, 256)
labels = samples[0]["label"][None, ::4, ::4].contiguous()  # (1, 64, 64)

# %%
with saved_bytes(model) as saved:
    loss = cross_entropy_dice(model(images), labels).total
    for_one = saved.total()
optimizer = build_optimizer(full, model)
loss.backward()
optimizer.step()
states = held_bytes(optimizer) / 2**20
print(f"states {states:.1f} MiB, activations {for_one / 2**20:.1f} MiB")

# %% [markdown]
# > **Predict.** SAMed and MedSAGa use a batch of 12. Which of the two numbers grows with the batch, and by which factor?

# %%
for count in (1, 2, 4, 8):
    batch = torch.stack([samples[i]["image"] for i in range(count)])
    with saved_bytes(model) as saved:
        result = model(batch)
        print(f"batch {count}: activations {saved.total() / 2**20:6.1f} MiB")
    del result

# %% [markdown]
# Twice as many images need twice the activations. With 1 image they are a little less than above, where the loss keeps some, too. Weights, gradients and states do not depend on the batch.
#
# ## Predicting memory from tensor shapes
#
# A measurement needs a machine that can train the network. A prediction does not: PyTorch can run a network on *fake tensors*, which have a shape and no content, and take no memory. The library adds up the bytes that the forward pass *would* keep.
# The next cell compares prediction and measurement for the step above.

# %%
from medsaga_lib.memory.plan import Plan, predict_ledger

step = Plan("pocket", batch=1, size=256, classes=classes)
predicted = predict_ledger(full, step)
print(f"predicted {predicted.activations:,} bytes, measured {for_one:,}")
print(f"difference {abs(predicted.activations - for_one) / for_one:.3%}")

# %% [markdown]
# Now we predict SAM's ViT-B at 512 px, with the papers' batch of 12, with 8 organs, and with SAM's own code for the attention. The sum is that of the four parts, for the whole model.
#
# > **Predict.** GaLore reduces the states of full fine-tuning to 15 %. By how many % does the sum fall?

# %%
PARTS = ("weights", "gradients", "states", "activations")


def predict(recipes, plan):
    """The ledger of each recipe."""
    return {name: predict_ledger(one, plan) for name, one in recipes.items()}


# %%
plan = Plan("vit_b", batch=12, size=512, classes=8, attention="original")
ledgers = predict(recipes, plan)
for name, entry in ledgers.items():
    states, total = entry.states / 2**20, entry.sum / 2**30
    print(f"{name:16} states {states:6.0f} MiB, sum {total:6.2f} GiB")


# %% tags=["figure"]
def parts(entries):
    """The sizes of the four parts of each ledger, for a figure."""
    return {
        name: {part: getattr(entry, part) for part in PARTS}
        for name, entry in entries.items()
    }


# %%
title = "ViT-B, 512 px, batch 12, fp32"
display.show(
    display.bar_ledger(parts(ledgers), alt="Ledgers.", title=title),
    alt="Three stacked bars. Activations fill more than 90 % of each. GaLore's "
    "bar is about as long as that of full fine-tuning, and LoRA's is about "
    "30 % shorter.",
    caption="Predicted memory of a training step of 3 methods with SAM's own "
    "attention: the colours are the four parts, the bold number is their sum.",
)

# %%
for name, entry in ledgers.items():
    saving = 1 - entry.sum / ledgers["full, AdamW"].sum
    share = entry.activations / entry.sum
    print(f"{name:16} activations {share:.1%}, saves {saving:.1%}")

# %% [markdown]
# ### More than 90 % are activations, and LoRA keeps fewer
#
# **GaLore** keeps its promise: it reduces the states from 702 to 104 MiB. But more than 90 % of each sum are activations, and GaLore does not change them. It saves 4.0 % of the sum.
#
# **LoRA** saves 30.3 %, and most of this is activations. The gradient of a weight matrix $W$ is computed from the input of its layer. A frozen $W$ has no gradient, so the input of the layer is not kept.
#
# The sum is not the *peak*, the most memory in use at any moment. Temporary tensors add to the peak. But the gradients are complete only when most activations have been freed, so not all parts have their full size at the same time. The peak can be above the sum or below it.
#
# ## Fused attention: the attention maps are not stored
#
# Attention computes a weight for each pair of tokens. These weights form the *attention map*. SAM's code keeps the map for the backward pass.
# At 512 px, 4 of the 12 blocks of ViT-B use attention over the whole image. It has 32 x 32 = 1,024 tokens, so a map has about 1 million pairs, for each of 12 heads and each image.
#
# > **Predict.** How many GiB do the maps of these 4 blocks need at batch 12?

# %%
pairs = (32 * 32) ** 2
blocks, heads, images, bytes_each = 4, 12, 12, 4
print(f"{blocks * heads * images * pairs * bytes_each / 2**30:.2f} GiB")

# %% [markdown]
# The maps need not be stored. A *fused* kernel such as FlashAttention, one function of the GPU for the whole attention, computes a map in small tiles and discards them. The backward pass computes the tiles again.
# SAM's attention does not fit into such a kernel unchanged. SAM adds a *relative position bias* to the map: a number for each pair of tokens, which depends on the distance of the two tokens along each side of the image.
# A map contains products of vectors, the *queries* and *keys*. This library writes the bias as additional channels of these vectors, and then a fused kernel can compute the attention. On a CPU, the library itself computes the map piece by piece (`medsaga_lib/models/attention.py`). The next cell compares the results of both codes.

# %%
from medsaga_lib.models.sam import build_sam
from medsaga_lib.models.weights import load_state

encoders = []
for kind in ("original", "fused"):
    sam = build_sam("pocket", attention=kind)
    sam.load_state_dict(load_state("pocket"))  # trained, so the bias is not 0
    encoders.append(sam.image_encoder)
with torch.no_grad():
    image = samples[0]["image"][None] * 2 - 1
    difference = encoders[0](image) - encoders[1](image)
print(f"largest difference {difference.abs().max():.0e}")

# %%
plan = replace(plan, attention="fused")
for name, entry in predict(recipes, plan).items():
    old, new = ledgers[name].sum / 2**30, entry.sum / 2**30
    print(f"{name:16} {old:5.2f} -> {new:5.2f} GiB, {new / old - 1:+.0%}")

# %% [markdown]
# The result is equal up to rounding errors, and the sums fall by more than 40 %.
# This is more than the maps of the 4 blocks, for two reasons. The other 8 blocks use attention in windows of 14 x 14 tokens, and their maps are not stored either. For the windows, SAM pads the grid of 32 x 32 tokens with zeros to 42 x 42, which is 72 % more tokens. SAM's code computes and keeps the padding in all layers of the attention; the library does not.
#
# The mask decoder keeps SAM's own attention: its maps have about 12 rows, so a fused kernel would save very little. Fused attention is the default of the library. `attention="original"` selects SAM's own code.
#
# ## Checkpointing: the activations are computed again
#
# *Activation checkpointing* or *gradient checkpointing*, in short checkpointing, keeps the input of each block of the image encoder and discards the other activations. The backward pass computes the block again. Checkpointing reduces the memory and adds time; the next section shows how much. It has nothing to do with *checkpoints*, the files that store a run.

# %%
plan = replace(plan, checkpointing=True)
lean = predict(recipes, plan)

# %%
title = "ViT-B, 512 px, batch 12, fp32, fused attention, checkpointing"
display.show(
    display.bar_ledger(parts(lean), alt="Ledgers.", title=title),
    alt="Three stacked bars, less than a third as long as with fused attention "
    "alone. States are about 30 % of the bar of full fine-tuning, and GaLore's "
    "bar is clearly shorter.",
    caption="The same prediction with fused attention and checkpointing, on a "
    "shorter axis: the colours are the four parts, the bold number is their "
    "sum.",
)

# %%
saving = 1 - lean["MedSAGa, GaLore"].sum / lean["full, AdamW"].sum
print(f"GaLore saves {saving:.0%} of the sum")

# %% [markdown]
# Most activations are gone, so the states are now a large part of the sum, and GaLore saves 26 % of it. So reduce the activations first (fused attention, checkpointing, a smaller batch, smaller images), and then the states.
#
# ## All memory savings together
#
# The library has two more switches:
#
# - *Per-layer updates*: the optimizer updates each parameter inside the backward pass, and its gradient is freed at once. Only one gradient exists at a time.
# - *bf16*, a kind of *mixed precision*: the network computes with numbers of 16 bits. Weights and states stay in single precision. The library has no switch for fp16.
#
# The first row of the next table is SAM's own code. Each further row adds one switch to those above it. The last row is the predicted peak with all switches. The fourth method is S-SAM, which trains fewer parameters than the others ([chapter 6](06_svd_affine.ipynb)).
#
# > **Predict.** With all switches on, which method needs the least memory: GaLore, LoRA or S-SAM?

# %%
import pandas as pd

methods = {**recipes, "S-SAM, SVD": get_recipe("s_sam")}
switches = [
    ("attention", "original"),
    ("attention", "fused"),
    ("checkpointing", True),
    ("per_layer", True),
    ("precision", "bf16"),
]

# %%
all_on, rows, each = Plan("vit_b", batch=12, size=512, classes=8), {}, []
for switch, value in switches:
    all_on = replace(all_on, **{switch: value})
    entries = predict(methods, all_on)
    sums = [entry.sum / 2**30 for entry in entries.values()]
    rows[f"{switch} = {value}"] = sums
    each.append((switch, value, entries))

# %% caption="Memory of a training step in GiB as the switches are turned on one after the other, by the ledger."
from medsaga_lib.memory.plan import predict_peak

peaks = [predict_peak(recipe, all_on) for recipe in methods.values()]
rows["peak"] = [peak / 2**30 for peak in peaks]
print("GiB, whole model, ViT-B, 512 px, batch 12")
pd.DataFrame(rows, index=list(methods)).T.round(2)

# %% [markdown]
# The sum of full fine-tuning falls from 14.61 to 1.53 GiB, and its peak is 1.96 GiB. The peaks of MedSAGa and SAMed are 1.37 and 1.21 GiB. SAMed still needs the least, but the difference to MedSAGa is small, and MedSAGa trains all weights of the image encoder.
#
# The next figure shows what each sum is made of, on the site and in a notebook with a kernel.

# %% tags=["figure"]
words = {
    "original": "SAM's own attention",
    "fused": "fused attention",
    "per_layer": "per-layer updates",
    "precision": "bf16",
}

# %% tags=["figure"]
bars = []
for switch, value, entries in each:
    saving = words.get(value, words.get(switch, switch))
    for name, sizes in parts(entries).items():
        bars.append({"method": name, "saving": saving, "parts": sizes})

# %%
display.interactive(
    "bytes",
    {"rows": bars, "colours": {part: display.colour(part) for part in PARTS}},
    "Choose a method and move the slider: each step adds a saving to a "
    "training step of ViT-B (512 px, batch 12). The full width is full "
    "fine-tuning without savings.",
)

# %% [markdown]
# ### S-SAM: the decoder runs once for each label
#
# With all switches on, S-SAM needs more than MedSAGa and SAMed, although it trains fewer parameters. The next cell shows how its ledger depends on the number of labels.

# %% caption="Memory of a training step in MiB with 8 labels and with 1, all switches on."
rows = {}
for classes in (8, 1):
    for name in ("S-SAM, SVD", "SAMed, LoRA"):
        entry = predict_ledger(methods[name], replace(all_on, classes=classes))
        sizes = {part: getattr(entry, part) / 2**20 for part in (*PARTS, "sum")}
        rows[f"{name}, labels: {classes}"] = sizes
print("MiB, all switches on")
pd.DataFrame(rows).T.round().astype(int)

# %% [markdown]
# S-SAM's prompt is the name of a label, so its mask decoder runs once for each label. Checkpointing does not discard the activations of the decoder. With 1 label, S-SAM has even fewer activations than SAMed. Its weights stay more than 100 MiB larger, because each matrix is stored as the factors of its singular value decomposition.
#
# ### The time cost of the memory savings
#
# Checkpointing and fused attention compute activations again. How much time do the switches cost? The recorded run has one training step of ViT-B at batch 1 and 512 px, on one core of a CPU. The first table has seconds, and each number is the fastest of 3 steps. The second table has the change from the row above.

# %%
import json
from pathlib import Path

recorded = json.loads(Path("recorded/measured_cpu.json").read_text())
origin = recorded["provenance"]
print(origin["command"])
print(origin["date"], "|", recorded["rows"][0]["device"])

# %% caption="Seconds of a training step, the fastest of 3."
times = pd.json_normalize(recorded["rows"])
times.columns = times.columns.str.removeprefix("plan.")
names = {recipe.name: name for name, recipe in methods.items()}
times["method"] = times["recipe"].map(names)
on = ["attention", "checkpointing", "per_layer", "precision"]
seconds = times.pivot_table("seconds", on, "method", sort=False)
steps = ["original", "fused", "+ checkpointing", "+ per-layer", "+ bf16"]
seconds = seconds.set_axis(steps).rename_axis(columns=None)
seconds.round(1)

# %% caption="Change of the time from the row above."
(seconds / seconds.shift() - 1).iloc[1:].map("{:+.0%}".format)

# %% [markdown]
# Table: Switches, what they reduce, and their time.
#
# | switch | reduces | time of a step |
# | --- | --- | --- |
# | fused attention | activations | up to 12 % less |
# | checkpointing | activations | 16 to 43 % more |
# | per-layer updates | gradients | -5 to +12 %; a few percent may be noise |
# | bf16 | activations | 33 to 43 % less |
#
# With all switches on, a step is faster than with SAM's own code. This CPU has instructions for bf16. A CPU without them computes bf16 many times more slowly than fp32. The next cell tests the computer that runs this page.

# %%
from time import perf_counter

for dtype in (torch.float32, torch.bfloat16):
    a, b = torch.randn(256, 768).to(dtype), torch.randn(768, 768).to(dtype)
    a @ b  # the first call is slower
    began = perf_counter()
    a @ b
    print(f"{dtype}: {1000 * (perf_counter() - began):.1f} ms for one product")

# %% [markdown]
# ### Prediction and measurement
#
# Is the ledger right? `python -m tools.resident` ran real training steps on a CPU, 4 images of 128 px on LiteMedSAM with 8 labels, for each recipe that trains a SAM. It read the *resident set*, the memory that a process really occupies, in the third of 3 equal runs in one process, and took its highest value minus the value before this run. The first runs leave code and compiled kernels in the process; the table has them as *stays*, and they are not counted. The allocator was told to return every large block to the system (`MALLOC_MMAP_THRESHOLD_`); without this, a process may keep more.

# %%
resident = json.loads(Path("recorded/resident.json").read_text())
print(resident["provenance"]["command"], "|", resident["provenance"]["date"])
table = pd.DataFrame(resident["rows"]).set_index("recipe")
table["error"] = table["predicted"] / table["measured"] - 1
error = table["error"]
low, high = error.min(), error.max()
print(f"{len(table)} recipes, errors from {low:+.2%} to {high:+.2%}")

# %% caption="Predicted and measured memory of training steps in MiB, for 9 of the recipes. The error is predicted / measured - 1."
LAST = ":image_encoder.from_stage=3"
shown = {}
for name in ("full", "medsaga", "samed", "s_sam"):
    method = get_recipe(name).method
    shown[f"{method}, whole encoder"] = table.loc[name]
    shown[f"{method}, last stage"] = table.loc[name + LAST]
shown["frozen encoder"] = table.loc["frozen_encoder"]
shown = pd.DataFrame(shown).T
sizes = (shown[["predicted", "measured", "process"]] / 2**20).astype(float)
sizes = sizes.round(1).rename(columns={"process": "stays"})
sizes.assign(error=shown["error"].map("{:+.2%}".format))

# %% [markdown]
# The sizes are in MiB. The ledger's peak is within 1 % of the measured one for each recipe, whether it trains the whole image encoder, its last stage or the decoder alone. On a GPU, PyTorch's allocator, the driver and the kernels need more; we have not measured them.
#
# ### Your own GPU
#
# `medsaga memory --fit 12GiB` predicts the four parts for each recipe, and the largest batch whose peak is within 12 GiB. `--backbone`, `--size`, `--batch`, `--checkpointing`, `--per-layer`, `--bf16` and `--original-attention` change the plan. The library also has two named plans for a small GPU. The command prints those whose peak is at most half of this memory, each with the command that trains it. At 12 GiB it prints both: MedSAGa on ViT-B at 1024 px, with a peak of 4.0 GiB, and SAMed on ViT-B at 512 px, with 1.2 GiB. [Will it fit my GPU?](../book/fit.md) is a form for the same question.
#
# In a notebook with a kernel, the next cell shows controls for any plan, and the ledger predicts it while you change them. A stage is a part of the image encoder, in ViT-B one block. `from stage` is the first one that is trained; 0 keeps the recipe's own setting. Without a kernel, the cell shows the plan that it begins with.

# %%
from medsaga_lib.memory.controls import plan_controls

plan_controls(
    "Predicted sum of the four parts of a training step of MedSAGa on ViT-B "
    "(512 px, batch 12, fused attention)."
)

# %% [markdown]
# ## Comparison with SAMed and DAE-Former
#
# So far we compared GaLore with AdamW on the same network. MedSAGa's paper ([Mahla et al. 2024](../book/references.md)) compares itself with other methods. Its number of 66 % is an average over "current state-of-the-art", SAMed ([Zhang and Liu 2023](../book/references.md)) and DAE-Former ([Azad et al. 2022](../book/references.md)). Against DAE-Former alone it claims 61 %, for memory that "depend[s] only on the model parameters". [Chapter 9](09_from_scratch.ipynb) introduces DAE-Former, a network that is trained from scratch.
#
# > **Predict.** Which of the three methods needs the least memory for weights, gradients and states? Which one needs the most when the activations of 12 images are added?

# %%
asked = {
    "MedSAGa": ("medsaga", "vit_b", 512),
    "SAMed": ("samed", "vit_b", 512),
    "DAE-Former, its own 224 px": ("dae_former", "none", 224),
    "DAE-Former at SAM's 512 px": ("dae_former", "none", 512),
}

# %%
table = {}
for name, (recipe, on, side) in asked.items():
    there = Plan(on, 12, side, 8, attention="original")
    entry = predict_ledger(get_recipe(recipe), there)
    model_only = (entry.sum - entry.activations) / 2**30
    table[name] = {"model": model_only, "sum": entry.sum / 2**30}

# %% caption="Memory in GiB: weights, gradients and states (`model`), and the sum with the activations of 12 images. A percentage is MedSAGa's number against that of the row."
compared = pd.DataFrame(table).T.rename_axis("GiB", axis=1)
for column in ("model", "sum"):
    share = compared.loc["MedSAGa", column] / compared[column] - 1
    compared[f"MedSAGa's {column}"] = share.map("{:+.0%}".format)
compared.round(2)

# %% [markdown]
# The column `model` is the sum without activations. The last two columns compare MedSAGa with the method of the row.
# Without activations, MedSAGa needs 98 % *more* than SAMed and 137 % more than DAE-Former. With activations it needs 38 % and 65 % more.
# The exception is DAE-Former on images of SAM's size, 512 px: there MedSAGa needs 67 % less. This is close to the paper's numbers, but GaLore is not the reason, because SAMed needs even less than MedSAGa. The paper does not say at which image size it trained DAE-Former, so we do not know whether it made this comparison.
#
# The ledger counts the optimizer of this library. The published GaLore package needs more: its basis is a slice of a larger matrix, and the whole matrix stays in memory as long as the basis is used ([chapter 4](04_galore.ipynb)). The next cell adds this memory.

# %%
from medsaga_lib.optim.galore import treatment

with torch.device("meta"):  # shapes without memory
    encoder = build_model(medsaga, "vit_b", 512, 8, "random").sam.image_encoder
config = medsaga.image_encoder.config(encoder)
hidden = 0
for tensor in treatment(encoder, config):
    if tensor.how == "projected" and len(tensor.shape) == 2:
        shorter = min(tensor.matrix)
        hidden += 4 * shorter * (shorter - config.rank)
total = table["MedSAGa"]["sum"] + hidden / 2**30
print(f"{hidden / 2**20:.0f} MiB more, so the sum is {total:.2f} GiB")

# %% [markdown]
# ## Gradient accumulation: 12 passes of 1 image
#
# Activations grow with the batch. *Gradient accumulation* avoids this: it passes 1 image at a time through the network, adds up the gradients of 12 images, and then the optimizer makes one step.
#
# > **Predict.** Full fine-tuning with SAM's own code needed 14.61 GiB at batch 12. How much is left with 1 image? Do 12 passes of 1 image give the same gradient as 1 pass of 12 images?

# %%
single = replace(plan, batch=1, checkpointing=False, attention="original")
for name, recipe in recipes.items():
    entry = predict_ledger(recipe, single)
    share = entry.states / entry.sum
    print(f"{name:16} {entry.sum / 2**30:.2f} GiB, of which states {share:.0%}")

# %% [markdown]
# Accumulation needs the same number of operations. But a pass of 1 image may be too small to use a GPU fully.
# The next cells test the second question with the loss of both papers, 0.2 times cross-entropy plus 0.8 times the Dice loss. They compute each term for 8 X-rays together, and as the mean of 8 single X-rays.

# %%
batch = torch.stack([samples[i]["image"] for i in range(8)])
targets = torch.stack([samples[i]["label"][::4, ::4] for i in range(8)])
with torch.no_grad():
    logits = model(batch)
together = cross_entropy_dice(logits, targets)
alone = [cross_entropy_dice(logits[[i]], targets[[i]]) for i in range(8)]

# %%
for name in ("cross_entropy", "dice"):
    mean = sum(getattr(part, name) for part in alone) / 8
    at_once = getattr(together, name)
    print(f"{name:14} together {at_once:.4f}, one by one {mean:.4f}")

# %% [markdown]
# Cross-entropy is a mean over pixels. The mean of 8 means of equal size is the mean of all pixels, so both values are equal.
# The Dice loss is a ratio of two sums over *all images of a pass*. The mean of 8 ratios is not the ratio of the sums. With single images, each image has the same weight, even if its organ is small, and an image without an organ adds a loss of nearly 1 for this organ.
# Neither objective is wrong, but they differ. A run of `medsaga train` with `--accumulate 12` does not reproduce a run with a batch of 12.
#
# ## The claim of 66 % less memory
#
# MedSAGa's abstract claims "an average memory efficiency of 66% more" than other models. It does not say which memory it counts.
# One way to get this number is to leave out the activations, and to use per-layer updates for GaLore but not for AdamW.

# %%
one = Plan("vit_b", batch=1, size=512, classes=8)
without = predict_ledger(medsaga, replace(one, per_layer=True))
dense = predict_ledger(full, one)
ours = (without.sum - without.activations) / 2**20
theirs = (dense.sum - dense.activations) / 2**20
print(f"{ours:.0f} MiB and {theirs:.0f} MiB: {1 - ours / theirs:.0%} less")

# %% [markdown]
# The calculation gives 67 %. It is correct, but it counts three of the four parts, and only one method uses a switch that both could use. GaLore saves 4.0 % of the whole sum at batch 12, as shown above.
# A claim about memory must say which parts it counts. [Will it fit my GPU?](../book/fit.md) has a form in which you can choose the parts and the switches.

# %% [markdown]
# ## Questions

# %% [markdown] tags=["question"]
# **Question 1.** GaLore makes the optimizer states of ViT-B several times smaller. Why does the sum of the ledger hardly change at a batch of 12?
#
# - **A.** The basis of each matrix takes the memory that the moments saved.
# - **B.** The activations are most of the sum, and GaLore does not change them.
# - **C.** GaLore keeps the gradients in double precision.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: the basis is counted in the states, which are much smaller all the same.
# - **B.** Yes: they grow with the batch and with the image, and the states do not.
# - **C.** No: gradients have the precision of the weights, with GaLore and without it.
# </details>

# %% [markdown] tags=["question"]
# **Question 2.** LoRA saves activations, and GaLore does not. Why?
#
# - **A.** A frozen linear layer needs no gradient of its weights, so its input is not kept for the backward pass.
# - **B.** LoRA's two matrices are small, so the outputs of the layers are small.
# - **C.** LoRA has fewer optimizer states.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** Yes: the gradient of $W$ is a product with the layer's input. With GaLore all weights train, so all inputs are kept.
# - **B.** No: the output of a layer has the same shape with LoRA as without.
# - **C.** No: it has, but states are another row of the ledger. They do not change what the forward pass keeps.
# </details>

# %% [markdown] tags=["question"]
# **Question 3.** You train with 12 passes of 1 image and one step of the optimizer, instead of 1 batch of 12. The loss is cross-entropy plus Dice over all images of a pass. Which statement is right?
#
# - **A.** Both give the same gradient, because gradients add up.
# - **B.** The 12 passes need as much memory, because all 12 images are needed for the step.
# - **C.** The 12 passes need fewer activations, but they train another objective.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: this holds for the cross-entropy, which is a mean. Dice is a ratio of sums, and a mean of ratios is not the ratio of the sums.
# - **B.** No: the activations of a pass are freed before the next one. The gradients, which add up, are as large as for one pass.
# - **C.** Yes: one by one, each image counts the same, however small its organ is.
# </details>

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: calculate (easy, 10 minutes)
# A linear layer from 768 to 3072 numbers, without bias, is frozen. LoRA of rank 4 trains beside it: a matrix A from 768 to 4, and a matrix B from 4 to 3072. Compute by hand how many bytes the weights, the gradients and the two moments of AdamW take in single precision.

# %% tags=["exercise"]
by_hand = {"weights": None, "gradients": None, "states": None}

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# of_lora = 768 * 4 + 4 * 3072
# by_hand = {"weights": 4 * (768 * 3072 + of_lora)}
# by_hand |= {"gradients": 4 * of_lora, "states": 2 * 4 * of_lora}
# # The frozen matrix is in memory, and has neither a gradient nor moments.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
from medsaga_lib.display.answers import as_number

frozen = nn.Linear(768, 3072, bias=False).requires_grad_(False)
lora = nn.Sequential(
    nn.Linear(768, 4, bias=False), nn.Linear(4, 3072, bias=False)
)
adamw = torch.optim.AdamW(lora.parameters())
x = torch.randn(2, 768)
(frozen(x) + lora(x)).sum().backward()
adamw.step()
states = adamw.state.values()
trained = sum(p.nbytes for p in lora.parameters())
expected = {
    "weights": frozen.weight.nbytes + trained,
    "gradients": sum(p.grad.nbytes for p in lora.parameters()),
    "states": sum(s["exp_avg"].nbytes + s["exp_avg_sq"].nbytes for s in states),
}
hints = {
    "weights": "the frozen matrix is in memory, too, and a number has 4 bytes.",
    "gradients": "which of the three matrices gets a gradient?",
    "states": "AdamW keeps 2 moments for each number that trains.",
}
for name, value in expected.items():
    answer = as_number(name, by_hand.get(name))
    assert answer == value, f"{name} are not {answer:,.0f} bytes: {hints[name]}"

# %% [markdown]
# ### Exercise 2: calculate (medium, 10 minutes)
# A free Colab GPU has 15 GiB. What is the largest batch for which the ledger's **sum** of full fine-tuning (ViT-B, 512 px, 8 classes, fused attention, no checkpointing) is at most 13 GiB, so that 2 GiB are left for temporary tensors?
# The activations grow linearly with the batch, so one prediction is enough. The plan `one` has a batch of 1.

# %% tags=["exercise"]
largest_batch = None

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# entry = predict_ledger(full, one)
# fixed = entry.weights + entry.gradients + entry.states
# largest_batch = (13 * 2**30 - fixed) // entry.activations
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
batches = as_number("largest_batch", largest_batch)
assert batches % 1 == 0 and batches > 0, (
    f"{largest_batch} is not a number of images; round down."
)
both = (replace(one, batch=int(batches) + more) for more in (0, 1))
fits, does_not = (predict_ledger(full, each).sum / 2**30 for each in both)
assert fits <= 13, (
    f"A batch of {largest_batch} has a sum of {fits:.2f} GiB: weights, "
    "gradients and states take memory, too."
)
assert does_not > 13, (
    f"One image more still fits, with a sum of {does_not:.2f} GiB."
)

# %% [markdown]
# ### Exercise 3: experiment (medium, 10 minutes)
# Change the size of the image from 512 to 256 px, which leaves a quarter of the tokens. By which factor do the activations of full fine-tuning fall, at batch 1 and with the original attention? Write down your guess first. Then predict both ledgers, and put the factor into `factor`. Why is it not 4?

# %% tags=["exercise"]
factor = None

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# original = replace(one, attention="original")
# large = predict_ledger(full, replace(original, size=512)).activations
# small = predict_ledger(full, replace(original, size=256)).activations
# factor = large / small
# print(f"{factor:.2f}")
# # Two effects have opposite directions. The attention maps have one number for
# # each pair of tokens: in the 4 blocks with global attention they become 16
# # times smaller. The other 8 blocks have windows of 14 x 14 tokens and fill the
# # grid up with zeros until the windows fit: 32 becomes 42, and 16 becomes 28.
# # There, the number of tokens becomes only 2.25 times smaller.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
given = as_number("factor", factor)
assert given > 1, (
    f"The factor is {given:.2f}, but the activations fall: "
    "divide the larger by the smaller."
)
plans = [Plan("vit_b", 1, side, 8, attention="original") for side in (512, 256)]
before, after = (predict_ledger(full, plan).activations for plan in plans)
assert abs(given - before / after) < 0.05, (
    f"The factor is not {given:.2f}. "
    "Predict it with batch 1, 8 classes and attention='original'."
)


# %% [markdown]
# ### Exercise 4: find the fault (medium, 10 minutes)
# A colleague measures the activations of 3 linear layers that get the same input, as $q$, $k$ and $v$ of an attention do. The list `kept` has all tensors that PyTorch keeps for the backward pass, and `bytes_of` adds up their bytes. The result is 3 times as large as that of the library. Find the fault with the cell below, and repair `bytes_of`. The memory behind a tensor is `tensor.untyped_storage()`; it has `data_ptr()` and `nbytes()`.

# %% tags=["exercise"]
def bytes_of(tensors):
    """Bytes of memory that these tensors keep."""
    return sum(tensor.nbytes for tensor in tensors)


kept = []
three = nn.ModuleList(nn.Linear(768, 768, bias=False) for _ in range(3))
hooks = torch.autograd.graph.saved_tensors_hooks(
    lambda x: kept.append(x) or x, lambda x: x
)
with hooks:
    tokens = torch.randn(50, 768)
    results = [layer(tokens) for layer in three]
with saved_bytes(three) as saved:
    results = [layer(tokens) for layer in three]
    without_results = saved.total()
print(f"bytes_of {bytes_of(kept):,}, library {without_results:,}")

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def bytes_of(tensors):
#     """Bytes of memory that these tensors keep."""
#     storages = [tensor.untyped_storage() for tensor in tensors]
#     sizes = {one.data_ptr(): one.nbytes() for one in storages}
#     return sum(sizes.values())
#
#
# print([tensor.data_ptr() for tensor in kept])
# # All 3 layers keep their input, and it is the same memory. It is held once, and
# # freed when the last of them has had its backward pass. A view of a tensor
# # shares its memory, too.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
first, second = torch.randn(50, 768), torch.randn(10, 10)
cases = {
    "the same tensor 3 times": ([first] * 3, first.nbytes),
    "a tensor and its transpose": ([first, first.T], first.nbytes),
    "5 rows, which keep the whole tensor": ([first[:5]], first.nbytes),
    "two tensors": ([first, second], first.nbytes + second.nbytes),
}
for name, (tensors, expected) in cases.items():
    counted = as_number("bytes_of(...)", bytes_of(tensors))
    assert counted == expected, (
        f"For {name}, it gives {counted:,.0f} bytes, not {expected:,}."
    )

# %% [markdown]
# ## Summary
#
# - A training step keeps weights, gradients, states and activations. The first three follow from the number of parameters.
# - Activations grow with the batch and with the size of the images. On ViT-B at 512 px and batch 12, with SAM's own attention, they are more than 90 % of the sum.
# - GaLore reduces states. LoRA reduces states, gradients and some activations. Fused attention and checkpointing reduce activations.
# - S-SAM's decoder runs once for each label, so its activations grow with the number of labels.
# - Predict the memory on fake tensors before you pay for a GPU. [Chapter 5](05_adapting_sam.ipynb) trains the methods of this chapter.
