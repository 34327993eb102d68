# %% [markdown]
# # 5. Adapting SAM: LoRA and GaLore
#
# **You will be able to**
# - turn SAM, which needs prompts, into a network that assigns a class to each pixel,
# - adapt SAM with LoRA (SAMed) and with GaLore (MedSAGa), and say which weights train and which optimizer states are stored,
# - fine-tune both on a few chest X-rays, and report their Dice with a 95 % interval,
# - find out with one gradient why a part of a network does not learn.
#
# **Before this** [Chapter 3](03_memory_ledger.ipynb) on where memory goes; PyTorch; Dice and intervals as in [chapter 1](01_images_and_metrics.ipynb).
#
# **Budget** 2 minutes on two CPU cores, 2 GB of memory, 0 MB to download

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
# ## A task with few labels, where left and right matter
#
# Suppose that both lungs are annotated on 8 chest X-rays. Can a network learn from them to segment the lungs of other patients?
# A usual way is to start from a pretrained network, for example the Segment Anything Model, SAM ([Kirillov et al. 2023](../book/references.md)).
# This chapter shows two ways to adapt it: SAMed ([Zhang and Liu 2023](../book/references.md)), which uses LoRA, and MedSAGa ([Mahla et al. 2024](../book/references.md)), which uses GaLore.
#
# Where `MEDSAGA_DATA` names a folder of real data sets, the chapter uses chest X-rays of Hannover Medical School. Otherwise it draws phantoms.

# %% tags=["data"]
from medsaga_lib.data.catalog import open_or_phantoms

dataset = open_or_phantoms("cxr_hannover_lungs")
print(dataset.describe())

# %%
from medsaga_lib import display
from medsaga_lib.data.cases import read_pair

# %%
patient = dataset.split("test")[0]
image, truth = read_pair(dataset, patient)

# %%
display.show(
    display.show_case(image.pixels, truth, labels=dataset.labels),
    alt="A chest X-ray, without and with the contours of an annotator: the "
    "right lung on the left side of the image, the left lung on the right "
    "side.",
    caption="A chest X-ray of the test set, and the same X-ray with its ground "
    "truth: a dashed contour and a name in one colour for each label.",
)
print(dataset.citation, "|", dataset.licence)

# %% [markdown]
# The right lung is on the left side of the image, because the viewer faces the patient. The network has to learn this, so no augmentation in this chapter mirrors (flips) an image.
#
# The split is by patient: all images of a patient are in the same part. Otherwise the test set would contain lungs that the network was trained on.

# %%
for split in ("train", "val", "test"):
    cases = dataset.split(split)
    patients = {case.patient for case in cases}
    print(f"{split:5} {len(cases):3} images, {len(patients):3} patients")

# %% [markdown]
# ## The three parts of SAM
#
# The *image encoder* turns an image into an embedding. The *prompt encoder* turns points or boxes into tokens. The *mask decoder* combines tokens and embedding by attention, and returns masks. [Chapter 2](02_sam_from_the_inside.ipynb) shows all three at work.
#
# This chapter uses LiteMedSAM, a SAM with a small image encoder, TinyViT, that was trained on medical images. Its published weights come with a package ([Where the weights come from](../book/weights.md)).
# With `profile = "colab"` and a GPU, the same cells use ViT-B, the smallest image encoder of SAM's authors, if its weights can be downloaded, and otherwise LiteMedSAM at 256 px. The two papers use ViT-B. The next table compares both networks.

# %%
import pandas as pd
import torch

# %%
from medsaga_lib.models.sam import build_sam


def numbers(module):
    """The number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


# %% caption="Parameters of LiteMedSAM and of SAM with ViT-B."
sizes = {}
parts = ("image_encoder", "prompt_encoder", "mask_decoder")
for title, name in {"LiteMedSAM": "lite_medsam", "SAM, ViT-B": "vit_b"}.items():
    with torch.device("meta"):  # shapes without memory
        sam = build_sam(name)
    sizes[title] = {part: f"{numbers(getattr(sam, part)):,}" for part in parts}
pd.DataFrame(sizes)

# %% [markdown]
# Both have the same prompt encoder and the same mask decoder. Most parameters are in the image encoder, so a method that saves memory for weights, gradients or states has to save it there.
#
# ## Class tokens instead of prompts
#
# To segment thousands of X-rays with SAM, a person has to draw a box around each lung. SAMed and MedSAGa use no prompt. SAM's mask decoder has a learned *mask token* for each mask that it can return. In SAMed and MedSAGa it has one token for each class and one for the background.
# $K$ labels give $K + 1$ tokens and $K + 1$ masks. Each pixel gets the class with the highest logit.
#
# These *class tokens* need start values. SAMed's code draws them at random. In our recipes, each class starts with a **copy** of SAM's token for a single mask, which is already trained. This is our choice. The exception is MedSAGa_v2, which does not train its tokens and starts with random ones; [a section below](#three-starts-of-the-class-tokens) shows why.
#
# > **Predict.** All tokens are equal, and nothing has been trained. Which class does each pixel get?

# %%
from medsaga_lib.models.heads import class_tokens
from medsaga_lib.models.profile import choose
from medsaga_lib.models.weights import load_state

# %%
chosen = choose(profile, size=64, vit_b=512)
print(chosen.found)

# %%
backbone, size = chosen.backbone, chosen.size
classes = len(dataset.labels)
torch.manual_seed(seed)
state = load_state(backbone, size)
model = class_tokens(backbone, state, size, classes, start="copied").eval()

# %%
from medsaga_lib.data.samples import Samples
from medsaga_lib.models.feeding import FEED_OF

# %%
feed = FEED_OF[backbone]  # the preprocessing of this network
held_out = Samples(dataset, [patient], size, feed.sample)
inputs = held_out[0]["image"][None]  # (1, 3, size, size), values in [0, 1]
with torch.no_grad():
    logits = model(inputs)  # (1, classes + 1, h, w)
spread = float(logits.std(dim=1).max())
print("shape", tuple(logits.shape), "| spread between classes", spread)

# %% [markdown]
# Equal tokens give equal masks. The spread between classes is 0, and `argmax` gives every pixel the first class, which is the background.
# The loss treats each class differently, so the gradients of the tokens differ, and after 1 step the masks differ, too. The image encoder gets no gradient before that; a later section measures this.
#
# The side of SAM's masks is 25 % of the side of the input. LiteMedSAM's masks are as large as the input. For training, the annotator's labels are reduced to the size of the masks (MedSAGa, eq. 4). For evaluation, the masks are enlarged to the size of the image.
#
# ## LoRA: low-rank matrices beside frozen weights
#
# A linear layer computes $y = Wx$ with a weight matrix $W \in \mathbb{R}^{m \times n}$. LoRA ([Hu et al. 2022](../book/references.md)) freezes $W$ and adds a product of two small trainable matrices of rank $r$:
#
# $$\begin{aligned} y &= Wx + \tfrac{\alpha}{r}\, B A x, \\ A &\in \mathbb{R}^{r \times n},\; B \in \mathbb{R}^{m \times r} \end{aligned}$$
#
# $A$ starts with random values and $B$ with 0, so the output does not change at the start. SAMed uses $r = 4$ on two of the three projections of each attention layer, $q$ and $v$, and trains the whole mask decoder and prompt encoder.
#
# SAM computes $q$, $k$ and $v$ in one fused layer. LoRA on this layer would adapt $k$ as well, so the library splits it first.
# In SAM's ViT, the rows of the fused weight are first all of $q$, then all of $k$, then all of $v$. TinyViT orders the rows head by head: $q$, $k$ and $v$ of head 0, then of head 1, and so on. The number of such groups is `runs` below; [chapter 8](08_lite_medsam.ipynb) explains it.

# %%
from medsaga_lib.adapt.lora import LoRA
from medsaga_lib.models.stages import late_blocks

# %%
encoder = model.sam.image_encoder
attention = late_blocks(encoder, 0)[0].attn  # of the first block with attention
print("before:", attention.qkv)
LoRA(rank=4, targets=("q", "v")).attach(encoder)
split = attention.qkv
print("after: ", type(split).__name__, "with runs =", split.runs)
for name, layer in split.named_children():
    print(name, "with LoRA" if hasattr(layer, "lora_A") else "frozen")

# %%
with torch.no_grad():
    difference = (model(inputs) - logits).abs().max()
print(f"the logits range from {logits.min():.1f} to {logits.max():.1f}")
print(f"the largest change of a logit is {difference:.1e}")

# %% [markdown]
# The output does not change, because $B = 0$.
#
# > **Predict.** ViT-B has 12 blocks of width 768. How many parameters does SAMed's LoRA add, if each adapted projection has an $A$ of 4 x 768 and a $B$ of 768 x 4?

# %%
added = 12 * 2 * (4 * 768 + 768 * 4)
print(f"{added:,}")

# %% [markdown]
# ### What the published 5.25 % counts
#
# MedSAGa's paper (section 4.2) writes that the base model "occupies 5.25% (18.81M) of the original model size (358M)". The next cell counts what SAMed trains on ViT-B with 8 classes, and compares it with SAM's file of weights.

# %%
from medsaga_lib.memory.plan import count
from medsaga_lib.recipes import get_recipe

# %%
samed, medsaga = get_recipe("samed"), get_recipe("medsaga")
on_vit_b = count(samed, "vit_b", size=512, classes=8)
trained_size, file_size = 4 * on_vit_b.trainable / 2**20, 375e6 / 2**20  # MiB
share = trained_size / file_size
print(f"{on_vit_b.trainable:,} trainable parameters, {trained_size:.1f} MiB")
print(f"SAM's file of 375 MB: {file_size:.0f} MiB, and {share:.2%} of it")

# %% [markdown]
# SAMed's LoRA adds 147,456 parameters. Together with the decoder and the prompt encoder, SAMed trains 4.9 million.
# The published "18.81M", "358M" and "5.25%" are close to the sizes of two files in MiB and to their ratio: SAMed's trained weights and SAM's ViT-B. They are not numbers of parameters.
#
# ## GaLore: all weights train, with small optimizer states
#
# LoRA restricts *which changes of the weights* are possible. GaLore ([Zhao et al. 2024](../book/references.md)) trains all weights and reduces *the memory of the optimizer*. [Chapter 4](04_galore.ipynb) derives it.
# AdamW keeps two moments for each weight. GaLore projects the gradient $G_t \in \mathbb{R}^{m \times n}$ of a matrix, with $m \le n$, to a subspace of rank $r$, and keeps the moments of the projected gradient $R_t \in \mathbb{R}^{r \times n}$:
#
# $$\begin{aligned} R_t &= P_t^\top G_t, \\ W_t &= W_{t-1} - \eta\,\alpha\,P_t\,\mathrm{Adam}(R_t) \end{aligned}$$
#
# The columns of $P_t \in \mathbb{R}^{m \times r}$ are the $r$ leading left singular vectors of a gradient. The basis is computed again only every $T$ steps, from the gradient of that step; $T = 200$ in MedSAGa's paper, and less in short runs of this library, so that a run has at least 10 bases.
# MedSAGa's paper gives no rank. Our choice is the width of the image encoder divided by 12, which is 64 for ViT-B. The next cell prints the rank for the network of this page.
#
# MedSAGa applies GaLore to the image encoder. The projection is not useful for every tensor: a bias is not a matrix, and for a narrow matrix the basis takes more memory than the projection saves.

# %%
from collections import Counter

# %%
from medsaga_lib.optim.galore import treatment
from medsaga_lib.recipes.build import build_model

galore_model = build_model(medsaga, backbone, size, classes, seed=seed)
encoder = galore_model.sam.image_encoder
config = medsaga.image_encoder.config(encoder)
plan = treatment(encoder, config)
print("rank", config.rank, "|", dict(Counter(tensor.how for tensor in plan)))

# %% caption="How GaLore treats the first tensors of an attention layer."
shown = [one for one in plan if "attn" in one.name and "norm" not in one.name]
pd.DataFrame(shown[:5]).set_index("name")[["shape", "how", "why"]]


# %% [markdown]
# The two weight matrices of this attention are projected. The other tensors use AdamW as it is (`dense`).
#
# > **Predict.** Which method needs more optimizer memory on ViT-B: SAMed, which trains 5 % of the weights, or MedSAGa, which trains all of them?

# %%
def method(recipe):
    """The name of a method, and the value that a recorded run changed."""
    name, _, change = recipe.partition(":")
    method = get_recipe(name).method
    return f"{method}, {change}" if change else method


# %% caption="Share of trained parameters, and memory of the optimizer's states, on ViT-B."
rows = {}
for name in ("samed", "medsaga", "full"):
    counted = count(get_recipe(name), "vit_b", size=512, classes=8)
    trained = f"{counted.trainable / counted.total:.1%}"
    states = round(counted.state_bytes / 2**20, 1)
    rows[method(name)] = {"trained": trained, "states (MiB)": states}
pd.DataFrame(rows).T

# %% [markdown]
# MedSAGa needs more than SAMed, because GaLore trains all weights of the image encoder. Its states are 15 % of those of full fine-tuning with AdamW. SAMed also needs no gradients for frozen weights.
# [Chapter 3](03_memory_ledger.ipynb) compares the memory of a whole step, with activations.
#
# ## Two other methods: bottlenecks and biases
#
# [Chapter 9](09_from_scratch.ipynb) compares two more methods:
#
# - *Medical SAM Adapter* ([Wu et al. 2023](https://arxiv.org/abs/2304.12620)) adds two small networks, *bottlenecks*, to each block of the image encoder, one after the attention and one beside the MLP. Each has a linear layer to a smaller width, a GELU, and a linear layer back. In this library, the last layer starts at 0.
# - *AdaptiveSAM* ([Paranjape et al. 2023](https://arxiv.org/abs/2308.03726)) adds nothing to the image encoder. It trains the biases, the norms and the positions there, and its prompt is the name of an organ, as in [chapter 6](06_svd_affine.ipynb).
#
# > **Predict.** After training, which of the four methods give an image encoder with SAM's own layers: LoRA, GaLore, bottlenecks, biases?

# %% caption="Trained and added parameters of the image encoder."
rows = {}
with torch.device("meta"):
    before = numbers(build_sam("vit_b", 512).image_encoder)
    for name in ("samed", "medsaga", "sam_adapter", "adaptive_sam"):
        recipe = get_recipe(name)
        network = build_model(recipe, "vit_b", 512, classes=8, weights="random")
        encoder = network.sam.image_encoder
        trains = [p for p in encoder.parameters() if p.requires_grad]
        trained = sum(parameter.numel() for parameter in trains)
        added = numbers(encoder) - before
        rows[method(name)] = {"trained": f"{trained:,}", "added": f"{added:,}"}
pd.DataFrame(rows).T.rename_axis("parameters of the image encoder")

# %% [markdown]
# After training with LoRA, GaLore or biases, the image encoder has SAM's own layers. GaLore and the bias method add no parameters. LoRA's product $BA$ is a matrix of the shape of $W$ and can be added to it. A bottleneck has a GELU between its layers, so no matrix can replace it, and it stays in the network.
#
# ## A short training of SAMed and MedSAGa
#
# A *recipe* holds all values of a method: what is trained, with which loss, optimizer and schedule. These are the values of both recipes:

# %% caption="Values of the training in the recipes of SAMed and MedSAGa."
keys = "lr", "warmup", "decay_power", "weight_decay", "batch", "steps"
keys += "ce_weight", "dice_weight"
both = {"SAMed": samed, "MedSAGa": medsaga}
of_both = [[getattr(recipe, key) for recipe in both.values()] for key in keys]
pd.DataFrame(of_both, keys, [*both], dtype=object)

# %% [markdown]
# - **Loss.** The loss is `ce_weight` times the cross-entropy plus `dice_weight` times the Dice loss, as in both papers.
# - **Schedule.** The learning rate rises to `lr` in `warmup` steps, or in 10 % of the steps in a short run. Then it falls: $1 - p$ to the power `decay_power`, where $p$ is the part of the steps that is done. MedSAGa's image encoder has its own learning rate, `image_encoder.lr`.
# - **Optimizer.** AdamW trains all weights that are not frozen. In MedSAGa's image encoder, it runs in GaLore's subspaces.
#
# `changed` replaces values. In a shell, `medsaga train samed --data FOLDER --shots 32` trains SAMed on the pocket SAM; `--backbone` names another network, and `--set lr=0.001` changes a value.
#
# The papers adapt the whole image encoder of a ViT-B. The next cells make a run that a CPU can do, on LiteMedSAM and images of 64 px. They change these values:
#
# - `image_encoder.from_stage=3` adapts TinyViT from its last stage on and leaves the earlier stages frozen. `image_encoder.copies=4` keeps their output for 4 versions of each image, 3 of them augmented ([chapter 10](10_few_labels.ipynb)).
# - `lift=fourier` adds positions. TinyViT has no absolute positions, only those within a window, so class tokens on its embedding confuse left and right. The *lift* is a learned linear map of the grid's positional encoding, added to the dense prompt. It is 0 at the start, so the network first computes the same as without it (`medsaga_lib/models/lift.py`). Chapter 10 measures what it changes.
# - `lr=0.001` replaces the 0.005 of both papers, which was too high for LiteMedSAM in our trials. MedSAGa's learning rate of the image encoder, `image_encoder.lr`, stays at the published 0.001.
# - `batch=4` and `steps=30` make the run short.
#
# With `profile = "colab"` and a GPU, a ViT-B keeps the values of the recipes, on images of 512 px, and LiteMedSAM has 200 steps.
#
# > **Predict.** Which training loss falls faster? Is the method with the lower training loss also better on other patients?

# %%
from medsaga_lib.recipes.recipe import changed

short = [
    "image_encoder.from_stage=3",
    "image_encoder.copies=4",
    "lift=fourier",
    "lr=0.001",
    "batch=4",
    "steps=30",
]

# %%
changes = short[:-1] + ["steps=200"] if chosen.large else short
if backbone == "vit_b":
    changes = ["batch=12", "steps=400"]
recipes = {
    "SAMed": changed(samed, changes),
    "MedSAGa": changed(medsaga, changes),
}

# %%
from medsaga_lib.training.loop import train
from medsaga_lib.training.run_folder import Settings

# %%
settings = Settings(
    shots=8, backbone=backbone, size=size, seed=seed, validations=0
)
results = {
    name: train(recipe, dataset, settings, progress=False)
    for name, recipe in recipes.items()
}

# %%
import numpy as np

# %% tags=["figure"]
width = 5  # steps; the loss of a single batch varies
curves = []
for name, result in results.items():
    losses = [row["loss"] for row in result.log]
    mean = np.convolve(losses, np.ones(width) / width, mode="valid")
    curves.append(display.Curve(name, np.arange(len(mean)) + width, mean))

# %%
axes = "step", "loss, mean of 5 steps"
display.show(
    display.curve_with_interval(curves, *axes, alt="Loss by step."),
    alt="The training loss of SAMed and of MedSAGa by step. Both curves fall "
    "steeply and then flatten. MedSAGa's ends lower.",
    caption=f"Training loss of both methods on {settings.shots} X-rays, with "
    "one seed. Each point is the mean of a step and the 4 steps before it.",
)

# %% [markdown]
# With this one seed, the two curves cross, and the loss of MedSAGa ends lower. A training loss shows how well a network fits the training images. The next figure shows the predictions for a patient of the test set.

# %%
from medsaga_lib.inference.predictor import Predictor

# %%
described = dataset.labels, dataset.modality, dataset.window
predictors = {
    name: Predictor(result.model, *described, feed)
    for name, result in results.items()
}

# %%
panels = [
    display.Panel(image.pixels, truth, predict(image), name)
    for name, predict in predictors.items()
]
display.show(
    display.grid(panels, dataset.labels, alt="Both predictions.", columns=2),
    alt="The same test image twice, with the predictions of SAMed and of "
    "MedSAGa as solid contours, one for each label, and the annotator's "
    "contours dashed.",
    caption="A test X-ray with the predictions of both networks (solid) and "
    "the ground truth (dashed). Each label has its own colour.",
)
print(dataset.citation, "|", dataset.licence)

# %% [markdown]
# The table has the number of trained parameters, the mean Dice of all test images, its 95 % interval, and `confused`, the share of predicted pixels that the annotator gave to another label. The interval is a bootstrap over patients.

# %%
from functools import partial

# %% caption="SAMed and MedSAGa after the short training of this page. Likely seen by LiteMedSAM: lungs."
from medsaga_lib.evaluation.scores import evaluate_cases

rows, tests = {}, dataset.split("test")
for name, predictor in predictors.items():
    predict = partial(predictor.case, dataset)
    found = evaluate_cases(predict, dataset, tests).summary()
    trained = count(recipes[name], backbone, size, classes).trainable
    rows[name] = {
        "trained": f"{trained:,}",
        "Dice": f"{found['dice']:.3f}",
        "95 % interval": "{:.3f} to {:.3f}".format(*found["dice_interval"]),
        "confused": f"{found['confused']:.1%}",
    }
pd.DataFrame(rows).T

# %% [markdown] tags=["real"]
# With this one seed, MedSAGa has the lower training loss and also the higher Dice on other patients. A longer run or other learning rates may change the order.
# Both networks find both lungs and hardly confuse them. In the figure, both masks are too small at the top and in the lower outer corners of the lungs.
# LiteMedSAM has probably seen X-rays of this source in its training, with masks of other annotators ([Where the weights come from](../book/weights.md)).

# %% [markdown]
# An interval says how much the mean would vary with other patients. It says nothing about another seed, other training images or a longer training. This is one run of each method, so it does not show which method is better.
# Recorded runs of LiteMedSAM with more methods and seeds are in [chapter 9](09_from_scratch.ipynb) and [chapter 10](10_few_labels.ipynb).
#
# ## Recorded runs: is pretraining worth it?
#
# The runs of this section use the whole image encoder in each of 200 steps. They were made on a CPU, so they use the **pocket SAM**: SAM's code with a small ViT, which we pretrained on drawn images ([Where the weights come from](../book/weights.md)). Its scores are not SAM's.
# The first runs are SAMed and MedSAGa on 8 and on 32 X-rays, from pretrained and from random weights, with one seed. With random weights, SAMed's LoRA adapts a frozen encoder that has learned nothing.
#
# > **Predict.** How much Dice does the pretraining of the pocket SAM add with 8 X-rays?

# %%
import json
from pathlib import Path


# %%
def recorded(name):
    """The runs of a recorded file; prints how they were made."""
    content = json.loads(Path(f"recorded/{name}.json").read_text())
    origin = content["provenance"]
    print(origin["command"])
    print(origin["date"], "|", origin["device"])
    return pd.DataFrame(content["runs"])


# %% caption="Test Dice on lungs by number of labelled X-rays, with the 95 % interval over patients."
runs = recorded("adapting_sam")
ends = [" ({:.3f} to {:.3f})".format(*pair) for pair in runs["dice_interval"]]
runs["Dice"] = runs["dice"].map("{:.3f}".format) + ends
runs["method"] = runs["recipe"].map(method)
runs.pivot(index=["method", "weights"], columns="shots", values="Dice")

# %% [markdown]
# With this one seed, pretraining adds 0.03 Dice with 8 X-rays. The intervals overlap, also those of SAMed and MedSAGa.
#
# The second runs have 5 seeds, 3 data sets and a third network: a U-Net with random weights, which has no part of SAM. The other two are MedSAGa from pretrained and from random weights. All train on 16 images; on the hippocampus, on 16 slices.
#
# > **Predict.** On which task is pretraining worth most: lungs, hippocampus or polyps?

# %%
tasks = {
    "lungs": "cxr_hannover_lungs",
    "hippocampus": "hippocampus_msd",
    "polyps": "polyp_kvasir",
}
networks = ["pretrained", "random", "U-Net"]

# %%
runs = recorded("pretraining_value")
runs["network"] = runs["weights"].mask(runs["recipe"] == "unet", "U-Net")
found = {}
for task, data in tasks.items():
    part = runs[(runs["data"] == data) & (runs["shots"] == 16)]
    table = part.pivot(index="seed", columns="network", values="dice")
    found[f"{task} from 16"] = table[networks]

# %%
dots = {task: dice.to_dict("list") for task, dice in found.items()}
display.show(
    display.dots_of_seeds(dots, "Dice", "3 networks.", baseline="pretrained"),
    alt="Dice of MedSAGa from pretrained and from random weights and of a "
    "U-Net, 5 seeds each. Lungs: the U-Net and the pretrained network overlap, "
    "random weights are lower. Hippocampus: all three overlap, the pretrained "
    "network has the highest mean. Polyps: the pretrained network has the "
    "highest mean, then the U-Net, then random weights.",
    caption="Test Dice of MedSAGa from pretrained and from random weights, and "
    "of a U-Net, from 16 images or slices. Dots are 5 seeds, marks their "
    "means; the dashed line is the mean of pretrained.",
)

# %%
from medsaga_lib.evaluation.scores import over_seeds

# %%
for task, dice in found.items():
    for other in networks[1:]:
        gain, half = over_seeds(dice["pretrained"] - dice[other])
        print(f"{task:19} pretrained - {other:6} {gain:6.3f} ± {half:.3f}")

# %% [markdown]
# The number after ± is half of a 95 % interval over the seeds. Pretraining is worth most on polyps. On all 3 tasks, the interval of its gain over random weights excludes 0.
# The difference to the U-Net is uncertain on lungs and on the hippocampus, where the intervals include 0. On polyps the U-Net is behind. We chose its learning rate by trials; MedSAGa's is the published one.
#
# Does the gain of pretraining shrink with more labels? On lungs, the same three were recorded with 4, 8, 16 and 32 X-rays.

# %%
lungs = runs[runs["data"] == tasks["lungs"]]
curves = []
for name in networks:
    by_shots = lungs[lungs["network"] == name].groupby("shots")["dice"]
    means, halves = np.array([over_seeds(dice) for _, dice in by_shots]).T
    ends = means - halves, means + halves
    label = name if name == "U-Net" else f"{name} weights"
    curves.append(display.Curve(label, [*by_shots.groups], means, *ends))

# %%
axes = "labelled X-rays", "Dice"
display.show(
    display.curve_with_interval(curves, *axes, "Curves.", log_x=True),
    alt="Dice against the number of labelled X-rays, 4 to 32, three curves "
    "that rise, with bands. The curve of pretrained weights is above that of "
    "random weights everywhere, by about 0.03. The U-Net has the widest band "
    "with 4 X-rays; with 32 it is the highest.",
    caption="Mean test Dice on lungs against the number of labelled X-rays, "
    "over 5 seeds. Bands: 95 % intervals over seeds.",
)

# %%
by_seed = lungs.set_index(["network", "shots", "seed"])["dice"]
gains = by_seed["pretrained"] - by_seed["random"]
ahead = by_seed["U-Net"] - by_seed["pretrained"]
asked = {"gain with 4 X-rays": gains[4], "gain with 32": gains[32]}
asked |= {"4 minus 32": gains[4] - gains[32], "U-Net ahead with 32": ahead[32]}
for name, values in asked.items():
    print("{:19} {:6.3f} ± {:.3f}".format(name, *over_seeds(values)))

# %% [markdown]
# With 32 X-rays, the gain of pretraining is a little smaller than with 4, and the U-Net from random weights has the highest mean; the interval of its difference to the pretrained network includes 0. The U-Net's seeds differ most with 4 X-rays: its score there depends on the X-rays that have labels, and on the random numbers of the run.
#
# Before you adapt a large network, train a small one from random weights on the same images. The comparison shows what pretraining is worth on your task.
#
# ## Ablations of SAMed and MedSAGa
#
# An *ablation* removes or changes one part of a method. MedSAGa's authors describe two: *v1* trains only the attention layers of the image encoder, with GaLore, and freezes its other layers, and *v2* freezes the mask decoder and the prompt encoder. SAMed's authors describe *SAMed_s*, which uses LoRA in the decoder's transformer instead of training it. The table counts parameters and states on ViT-B.

# %% caption="Trained parameters, and memory of the optimizer's states, of the variants on ViT-B."
variants = ["samed", "samed_s", "medsaga", "medsaga_v1", "medsaga_v2"]
rows = {}
for name in variants:
    one = count(get_recipe(name), "vit_b", size=512, classes=8)
    trained, states = f"{one.trainable:,}", round(one.state_bytes / 2**20, 1)
    rows[method(name)] = {"trained": trained, "states (MiB)": states}
pd.DataFrame(rows).T

# %% [markdown]
# ### Three starts of the class tokens
#
# In MedSAGa's Table 3, v2 hardly segments: its Dice lies between 0.006 and 0.119.
# A frozen decoder means that the class tokens keep their start values. The next cells measure the gradient of the image encoder for three starts: copies of one token, random values, and SAM's own 4 tokens in turn. They use the pocket SAM, because v2 trains the whole image encoder.
#
# > **Predict.** What is the gradient of the image encoder if all class tokens are copies of one token?

# %%
from medsaga_lib.training.losses import cross_entropy_dice, reduce_labels


# %%
def loss_of(network, samples):
    """The loss of a network on all samples, as in a training step."""
    images = torch.stack([sample["image"] for sample in samples])
    labels = torch.stack([sample["label"] for sample in samples])
    logits = network(images)
    return cross_entropy_dice(logits, reduce_labels(labels, logits)).total


# %%
eight = Samples(dataset, dataset.split("train")[:8], 128)
samples = [eight[number] for number in range(8)]
for start in ("copied", "random", "in_turn"):
    v2 = changed(get_recipe("medsaga_v2"), [f"start={start}"])
    network = build_model(v2, "pocket", 128, classes, seed=seed)
    loss_of(network, samples).backward()
    norms = [p.grad.norm() for p in network.sam.image_encoder.parameters()]
    norm = torch.stack(norms).norm()
    print(f"{start:8} gradient of the image encoder {norm:.1e}")

# %% [markdown]
# With copies, the gradient is 0 up to rounding errors: all masks are equal whatever the encoder computes, so a change of the encoder does not change the loss. With other starts the gradient is not 0, and v2 can learn something.
# Where the tokens are trained, copies become different in the first step, and the encoder gets a gradient from the second step on. GaLore must not take its first basis from the rounding errors of the first step; this library waits until there is a gradient.
#
# ### Recorded runs of the variants
#
# The recorded runs compare all variants on the pocket SAM: 32 X-rays, 200 steps, 3 seeds. Three rows have a changed value: no warm-up, or v2 with another start.
#
# > **Predict.** Is v2 better with SAM's own tokens in turn than with random ones? Does it reach the methods that train the decoder?

# %% caption="Test Dice on lungs of 3 seeds and their mean."
runs = pd.concat([recorded("parts"), recorded("methods")])
rows = runs[
    runs["recipe"].str.split(":").str[0].isin(variants)
    & (runs["data"] == "cxr_hannover_lungs")
    & (runs["shots"] == 32)
]
table = rows.pivot(index="recipe", columns="seed", values="dice")
table["mean"] = table.mean(axis=1)
table = table.rename_axis("method").rename(index=method)
table.sort_values("mean", ascending=False).round(3)


# %% [markdown]
# - **v2.** Tokens in turn are better than random ones in every seed. With random tokens, Dice varies much from seed to seed. With both, v2 stays behind all methods that train the decoder.
# - **Other variants.** SAMed_s, v1, SAMed and MedSAGa differ by no more than their seeds.
# - **Warm-up.** Without it, MedSAGa is lower in 2 of 3 seeds, and SAMed in each of them, but the means hardly differ. In the paper's Table 2 the difference is larger: 0.913 with and 0.736 without warm-up on 100 X-rays.
# - **Rank.** [Chapter 12](12_open_questions.ipynb) has an ablation of the ranks of LoRA and GaLore, on LiteMedSAM.

# %% [markdown]
# ## Questions

# %% [markdown] tags=["question"]
# **Question 1.** All class tokens start as copies of one mask token. Why does the image encoder get no gradient in the first step?
#
# - **A.** The image encoder is frozen in this step.
# - **B.** All masks are equal whatever the encoder computes, so a change of the encoder does not change the loss.
# - **C.** The loss is 0 at the start.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: it trains from the start. Its gradient is 0 although it is computed.
# - **B.** Yes: the softmax over equal logits is the same for every embedding. The tokens themselves get different gradients, so the masks differ after 1 step.
# - **C.** No: every pixel gets the same probabilities, which is wrong for most of them, so the loss is large.
# </details>

# %% [markdown] tags=["question"]
# **Question 2.** SAMed trains about 5 % of the weights, and MedSAGa trains all of them with small states. After training, which statement about the image encoder is right?
#
# - **A.** LoRA's product can be added to the frozen weights, and GaLore leaves nothing to add, so both encoders have SAM's own layers.
# - **B.** SAMed's encoder needs LoRA's matrices for ever, because the frozen weights must not change.
# - **C.** MedSAGa's encoder needs the bases of its subspaces for predictions.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** Yes: this is the difference to bottlenecks, which have a GELU between their layers and stay in the network.
# - **B.** No: $W + \frac{\alpha}{r} B A$ is a matrix of the same shape. It can be computed once and stored.
# - **C.** No: the bases belong to the optimizer. The trained weights are ordinary matrices.
# </details>

# %% [markdown] tags=["question"]
# **Question 3.** One run with one seed gives MedSAGa a higher Dice than SAMed, and the 95 % interval of the paired difference over patients is above 0. Which conclusion holds?
#
# - **A.** MedSAGa is the better method, because the interval is above 0.
# - **B.** MedSAGa is better on X-rays, and not on other images.
# - **C.** This network is better than that one on patients like these. Runs with other seeds are needed to compare the methods.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: the interval is over patients. It says nothing about another seed, other training images or another learning rate.
# - **B.** No: one trained network of each method cannot show this for X-rays either.
# - **C.** Yes: a method is a distribution of networks, and one seed is one draw.
# </details>

# %% [markdown]
# ## Exercises
#
# Exercise 2 uses the next function.

# %%
def gradients(network):
    """The norms of the gradients of all A and all B, for 2 training images."""
    network.zero_grad()
    two = Samples(dataset, dataset.split("train")[:2], size, feed.sample)
    loss_of(network, [two[0], two[1]]).backward()
    norms = {"A": [], "B": []}
    for name, parameter in network.named_parameters():
        for letter in norms:
            if f"lora_{letter}" in name:
                norms[letter].append(parameter.grad.norm())
    return {one: float(torch.stack(norms[one]).norm()) for one in norms}


# %% [markdown]
# ### Exercise 1: calculate (easy, 10 minutes)
# How many parameters train on ViT-B with 8 classes, if LoRA has rank 16 and is on $q$, $k$ **and** $v$? Compute it from the numbers above, without building the network. From which rank on does LoRA train at least as many numbers as one projection of 768 x 768 has?

# %% tags=["exercise"]
trainable, useless_from = None, None

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# decoder_and_prompt = 4_913_621 - 147_456
# trainable = decoder_and_prompt + 12 * 3 * (16 * 768 + 768 * 16)
# useless_from = 768 * 768 // (768 + 768)  # 2 * 768 numbers for each rank
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
from medsaga_lib.display.answers import as_number

wider = changed(samed, ["image_encoder.rank=16", "image_encoder.targets=q,k,v"])
expected = count(wider, "vit_b", size=512, classes=8).trainable
given = as_number("trainable", trainable)
assert given != expected + 147_456, (
    "LoRA of rank 4 is counted, too: subtract it first."
)
assert given != expected - 4_766_165, (
    "This is LoRA alone; decoder and prompt encoder train, too."
)
assert given == expected, (
    f"{trainable} is wrong: there are 12 blocks with 3 projections each, and "
    "every projection has an A and a B."
)
rank = as_number("useless_from", useless_from)
at, below = (2 * 768 * (rank - less) / 768**2 for less in (0, 1))
assert at >= 1, f"LoRA of rank {rank:g} has {at:.1%} of the numbers of W."
assert below < 1, (
    f"Rank {rank - 1:g} is already useless; count both A and B."
)

# %% [markdown]
# ### Exercise 2: find the fault (medium, 15 minutes)
# A colleague starts SAMed with $A = 0$ as well as $B = 0$, "so that nothing changes at the start". The training loss falls, and there is no error message.
# The function `gradients` gives the norm of the gradients of all $A$ and of all $B$. The class tokens start in turn, so that the image encoder has a gradient in the first step. Does $A$ learn in the colleague's network, does $B$, or does neither? Find the reason, and make `mended` a SAMed that learns.

# %% tags=["exercise"]
in_turn = changed(recipes["SAMed"], ["start=in_turn"])
mended = build_model(in_turn, backbone, size, classes, seed=seed).eval()
for name, parameter in mended.named_parameters():
    if "lora_A" in name:
        torch.nn.init.zeros_(parameter)
print(gradients(mended))

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# for name, parameter in mended.named_parameters():
#     if "lora_A" in name:
#         torch.nn.init.kaiming_uniform_(parameter, a=5**0.5)
# print(gradients(mended))
# # The gradient of B contains the factor A, and the gradient of A contains the
# # factor B. If both are 0, both gradients are 0 and stay 0: LoRA never learns.
# # The loss falls because the decoder learns. With a random A and B = 0 the
# # output is still that of SAM, B learns in the first step, and A from the second
# # step on.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
norms = gradients(mended)
assert max(norms.values()) > 0, (
    f"The gradients are {norms}: A and B cannot both start at 0."
)
assert min(norms.values()) == 0, (
    "A or B has to start at 0, so that the output does not change."
)

# %% [markdown]
# ### Exercise 3: experiment (medium, 10 minutes)
# After training, LoRA's product can be added to the weights. The image encoder then has its own layers again, needs no extra time, and can be used without the package `peft`, which has LoRA's layers.
# Merge a copy of the trained SAMed, and put the largest change of its output for `inputs` into `change`. The adaptation of a recipe, `recipes["SAMed"].image_encoder`, has a method `merge`. Explain why the change is not exactly 0, and why the same is impossible for a bottleneck.

# %% tags=["exercise"]
from copy import deepcopy

merged, change = deepcopy(results["SAMed"].model), None

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# with torch.no_grad():
#     before = merged(inputs)
#     recipes["SAMed"].image_encoder.merge(merged.sam.image_encoder)
#     change = (merged(inputs) - before).abs().max()
# print(f"largest change {change:.1e}")
# # W x + B A x and (W + B A) x are the same sums in another order, so they round
# # differently. A bottleneck has a GELU between its two layers; no matrix
# # computes a GELU.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
layer = late_blocks(merged.sam.image_encoder, 0)[-1].attn.qkv
assert type(layer) is torch.nn.Linear, (
    "`merged` still has LoRA: call merge with its image encoder."
)
with torch.no_grad():
    measured = (merged(inputs) - results["SAMed"].model(inputs)).abs().max()
given = as_number("change", change)
assert abs(given - measured) < 1e-6, (
    f"{given:.1e} is not correct: the outputs of `merged` and of the trained "
    f"model differ by {measured:.1e}."
)
assert measured < 1e-3, (
    f"The output changed by {measured}, which is more than rounding errors."
)

# %% [markdown]
# ## Summary
#
# - Class tokens replace prompts: SAM's decoder gets one mask token for each class, and each pixel gets the class with the highest logit.
# - SAMed freezes the image encoder and adds LoRA of rank 4 to $q$ and $v$. On ViT-B with 8 classes it trains 4,913,621 parameters, decoder and prompt encoder included.
# - MedSAGa trains every weight and keeps the moments in a subspace. Its optimizer states take less memory than those of full fine-tuning, and more than those of LoRA.
# - Equal class tokens that are not trained give the image encoder no gradient. LoRA with $A = B = 0$ gets none either. In both cases there is no error message.
# - Test on patients that are not in the training set, and report the interval with the mean.
#
# For your own images, `medsaga train medsaga --data FOLDER --shots 32` trains MedSAGa; [How to use this book](../book/how-to-use.md) describes the layout of the folder.
