# %% [markdown]
# # 5. Adapting SAM: LoRA and GaLore
#
# **You will be able to**
# - turn SAM, which needs prompts, into a network that assigns a class to each pixel,
# - adapt SAM with LoRA (SAMed) and with GaLore (MedSAGa), and say which weights train and which optimizer states are stored,
# - fine-tune both on a few chest X-rays, and report their Dice with a 95 % interval.
#
# **Before this** [Chapter 3](03_memory_ledger.ipynb) on where memory goes; PyTorch; the Dice score.
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
profile = "quick"  # "colab": SAM's own weights and a GPU
seed = 0

# %% [markdown]
# ## A task with few labels
#
# Outlining both lungs on a chest X-ray takes a radiologist minutes.
# Suppose somebody did that for 16 pictures. Is that enough to teach a network the rest?
# The usual advice is to start from a network that already knows what an object looks like:
# the Segment Anything Model, SAM ([Kirillov et al. 2023](../book/references.md)). Whether that helps depends on what it knows; the section on longer runs measures it.
#
# First the pictures. Where `MEDSAGA_DATA` names a folder of real data sets, the chapter uses chest X-rays of
# Hannover Medical School; elsewhere it draws phantoms, and the line below says which.

# %% tags=["data"]
from medsaga_lib.data.catalog import open_or_phantoms

dataset = open_or_phantoms("cxr_hannover_lungs")
print(dataset.describe())

# %%
from medsaga_lib import display
from medsaga_lib.data.cases import read_pair

patient = dataset.split("test")[0]
picture, truth = read_pair(dataset, patient)
display.show(
    display.show_case(picture.pixels, truth, labels=dataset.labels),
    alt="A chest X-ray, plain and with the outlines that an annotator drew: the right lung on the "
    "left side of the picture, the left lung on the right.",
)

# %%
print(dataset.citation, "|", dataset.licence)

# %% [markdown]
# The right lung is on the left: we look at the patient face to face. A network has to learn that, too,
# so nothing in this chapter ever mirrors a picture.
#
# All pictures of one patient stay on one side of the split. Otherwise we would test on lungs that we trained on.

# %%
for split in ("train", "val", "test"):
    cases = dataset.split(split)
    print(f"{split:5} {len(cases):3} images, {len({c.patient for c in cases}):3} patients")

# %% [markdown]
# ## SAM and the pocket SAM
#
# SAM has three parts. The *image encoder* turns a picture into an embedding, slowly. The *prompt encoder* turns
# a click or a box into tokens. The *mask decoder* lets tokens and embedding look at each other and draws masks.
#
# With `profile = "quick"` this chapter runs on the **pocket SAM**: the same classes of code, 24 times smaller, pretrained by us
# on drawn pictures. It is not SAM, and its scores are not SAM's. It is here so that you can train on a laptop in seconds.

# %%
from medsaga_lib.models.sam import build_sam

backbone = "vit_b" if profile == "colab" else "pocket"
size = 512 if profile == "colab" else 128
sam = build_sam(backbone, size)
for part in ("image_encoder", "prompt_encoder", "mask_decoder"):
    print(f"{part:15} {sum(p.numel() for p in getattr(sam, part).parameters()):>11,}")

# %% [markdown]
# Most of the numbers sit in the image encoder. Remember that: whoever wants to save memory has to save it there.
#
# ## Class tokens instead of prompts
#
# Nobody wants to click on 200,000 X-rays. SAMed and MedSAGa drop the prompt: SAM's decoder has a learned *mask token*
# for each mask it may return, and so it gets one token for each class, background included.
# With two lungs that makes three tokens, three masks (the drawn X-rays have a heart, too), and each pixel takes the class of the highest one.
#
# What should a new token be at the start? SAMed's code draws it at random. We let each class start as a **copy** of SAM's own
# token for a single mask, which at least knows what a mask is. That is our choice, and the recipe says so.
#
# > **Predict.** Identical tokens, not trained yet. What will the network say about each pixel?

# %%
import torch

from medsaga_lib.models.weights import load_state
from medsaga_lib.models.heads import class_tokens

torch.manual_seed(seed)
state = load_state(backbone, size)
model = class_tokens(backbone, state, size, classes=len(dataset.labels), start="copied")

# %%
from medsaga_lib.data.samples import Samples
from medsaga_lib.models.feeding import FEED_OF

feed = FEED_OF[backbone]  # how a picture becomes this network's input
held_out = Samples(dataset, dataset.split("test"), size, feed.sample)
image = held_out[0]["image"][None]  # (1, 3, size, size), values in [0, 1]
with torch.no_grad():
    logits = model(image)  # (1, classes + 1, size / 4, size / 4)
print("shape", tuple(logits.shape), "| spread between classes", float(logits.std(dim=1).max()))

# %% [markdown]
# Equal tokens give equal masks: the spread is zero and `argmax` calls everything background.
# The loss asks something different of each class, so the *tokens'* gradients differ at once, and after one step so do the masks. The encoder has to wait for that: while all masks are equal its gradient is zero.
# GaLore would take its directions from that zero, from rounding errors. The library's optimizer therefore waits with its first basis until there is a gradient.
#
# The masks are a quarter of the input's size. That is SAM's resolution; for training, the annotator's labels are reduced to it
# (MedSAGa, eq. 4), and for a result the masks are enlarged.
#
# ## LoRA: low-rank matrices beside frozen weights
#
# A linear layer computes $y = Wx$. LoRA freezes $W$ and learns a detour of rank $r$ beside it:
#
# $$ y = Wx + \tfrac{\alpha}{r}\, B A x, \qquad A \in \mathbb{R}^{r \times n},\; B \in \mathbb{R}^{m \times r}. $$
#
# $A$ starts random and $B$ at zero, so at first nothing changes. SAMed puts detours with $r = 4$ on two of the three projections of
# each attention layer, on $q$ and $v$, and trains the whole decoder beside them.
#
# There is a snag. SAM keeps $q$, $k$ and $v$ in one fused layer, and a detour around that would adapt $k$ as well.
# So we take it apart first.

# %%
from medsaga_lib.adapt.lora import LoRA

block = model.sam.image_encoder.blocks[0]
print("before:", block.attn.qkv)
LoRA(rank=4, targets=("q", "v")).attach(model.sam.image_encoder)
for name in "qkv":
    print(name, type(getattr(block.attn.qkv, name)).__module__)

# %%
with torch.no_grad():
    difference = (model(image) - logits).abs().max()
print(f"the output moved by {difference:.1e}")

# %% [markdown]
# Nothing moved, as it should be before training.
#
# > **Predict.** ViT-B, SAM's smallest official encoder, has 12 blocks of width 768. How many numbers do the detours of SAMed add?
# > Each one has $A$ (4 x 768) and $B$ (768 x 4).

# %%
detours = 12 * 2 * (4 * 768 + 768 * 4)
print(f"{detours:,}")

# %% [markdown]
# The paper this chapter's second method comes from quotes "18.81M" trainable parameters for SAMed. Count them:

# %%
from medsaga_lib.recipes import get_recipe
from medsaga_lib.memory.plan import count

samed, medsaga = get_recipe("samed"), get_recipe("medsaga")
on_vit_b = count(samed, "vit_b", size=512, classes=8)
print(f"{on_vit_b.trainable:,} trainable; as a file {4 * on_vit_b.trainable / 2**20:.2f} MiB")

# %% [markdown]
# 4.9 million parameters, which take 18.7 MiB in single precision. The "18.81M" is close to the size of SAMed's file, not to a number of parameters.
#
# ## GaLore: all weights train, with small optimizer states
#
# LoRA restricts *which weights* can be reached. GaLore lets all of them move and restricts *the optimizer's memory*.
# AdamW keeps two numbers for each weight, its moments. GaLore looks at the gradient $G_t$ of a matrix through a small window:
#
# $$ R_t = P_t^\top G_t, \qquad W_{t+1} = W_t - \eta\,\alpha\,P_t\,\mathrm{Adam}(R_t), $$
#
# where the columns of $P_t$ are the $r$ leading directions of the gradient, renewed every $T$ steps: 200 in the paper, at least ten times in our shorter runs.
# The moments belong to $R_t$, which is $r$ rows high instead of $m$.
#
# MedSAGa applies this to the image encoder. Not every tensor gains: a bias has no two sides, and a matrix may be too thin for the window to pay.

# %%
from collections import Counter

from medsaga_lib.optim.galore import treatment
from medsaga_lib.recipes.build import build_model

galore_model = build_model(medsaga, backbone, size, len(dataset.labels), seed=seed)
encoder = galore_model.sam.image_encoder
plan = treatment(encoder, medsaga.image_encoder.config(encoder))
print(Counter(tensor.how for tensor in plan))

# %%
for tensor in plan[:6]:
    print(f"{tensor.name:28} {tensor.shape!s:18} {tensor.how:9} {tensor.why}")

# %% [markdown]
# > **Predict.** Which of the two needs more optimizer memory on ViT-B: SAMed, which trains 5 % of the weights,
# > or GaLore, which trains all of them?

# %%
for recipe in (samed, medsaga):
    counted = count(recipe, "vit_b", size=512, classes=8)
    share = counted.trainable / counted.total
    print(f"{recipe.name:8} trains {share:6.1%}, states {counted.state_bytes / 2**20:6.1f} MiB")

# %% [markdown]
# LoRA still needs less, and it does not store gradients for what is frozen either. GaLore's promise is a different one:
# the freedom of full fine-tuning, whose states would take 702 MiB here, at a seventh of that memory.
# What both cost in a real step, activations included, is [chapter 3](03_memory_ledger.ipynb)'s subject.
#
# ## Two other methods: adapters and bias tuning
#
# Two more ways to move an encoder by little stand in [chapter 9](09_from_scratch.ipynb)'s table. *Medical SAM Adapter* ([Wu et al. 2023](https://arxiv.org/abs/2304.12620)) gives each block two small networks, down, GELU, up, one behind the attention and one beside the MLP, the last layer at zero.
# *AdaptiveSAM* ([Paranjape et al. 2023](https://arxiv.org/abs/2308.03726)) adds nothing: it trains what is no matrix, the biases, norms and positions, and is asked by the organ's name, as [chapter 6](06_svd_affine.ipynb)'s S-SAM is.
#
# > **Predict.** Which of the four, LoRA, GaLore, adapters, biases, leaves a network that after training is SAM again, of SAM's shape and size?

# %%
from medsaga_lib.models.sam import build_sam


def of_the_encoder(sam):
    """How many numbers an image encoder has, and how many of them train."""
    numbers = [(p.numel(), p.requires_grad) for p in sam.image_encoder.parameters()]
    return sum(n for n, _ in numbers), sum(n for n, trains in numbers if trains)


# %%
with torch.device("meta"):  # shapes without memory
    before, _ = of_the_encoder(build_sam("vit_b", 512))
    for name in ("samed", "medsaga", "sam_adapter", "adaptive_sam"):
        network = build_model(get_recipe(name), "vit_b", 512, classes=8, weights="random")
        after, trained = of_the_encoder(network.sam)
        print(f"{name:12} trains {trained:10,} numbers, {after - before:9,} of them new")

# %% [markdown]
# All but the adapter. GaLore and the biases add nothing, and LoRA's detour is a product of matrices, which can be added to the weight it bends around. The adapter has a GELU between its two layers; no single matrix does what it does, and it stays for good.
#
# ## Training SAMed and MedSAGa
#
# A *recipe* holds everything that makes a method: what trains, how, with which loss and schedule. Both of ours share the loss of the papers,
# $0.2\,\mathrm{CE} + 0.8\,\mathrm{Dice}$, a warm-up and a decay. Change a value with `replace` and you have an ablation.
#
# Sixteen labelled images, sixty steps, small pictures: this is a demonstration of half a minute, not a result.
#
# > **Predict.** Which curve falls faster? And is the faster one the better one?

# %%
from dataclasses import replace

from medsaga_lib.training.loop import train
from medsaga_lib.training.run_folder import Settings

settings = Settings(shots=16, backbone=backbone, size=size, seed=seed)
steps, batch = (400, 12) if profile == "colab" else (60, 6)
results = {}
for recipe in (samed, medsaga):
    short = replace(recipe, steps=steps, batch=batch)
    results[recipe.name] = train(short, dataset, settings, progress=False)

# %%
import numpy as np


def smoothed(log, width=5):
    """Running mean of the loss: single batches of six images jump."""
    return np.convolve([row["loss"] for row in log], np.ones(width) / width, mode="valid")


curves = [
    display.Curve(name, np.arange(len(smoothed(r.log))), smoothed(r.log))
    for name, r in results.items()
]

# %%
display.show(
    display.curve_with_interval(curves, "step", "loss, mean of 5 steps", alt="Loss against steps."),
    alt="The training loss of SAMed and MedSAGa over sixty steps; both fall steeply in the first "
    "twenty steps and slowly after that.",
)

# %% [markdown]
# A training loss says how well sixteen pictures are remembered. What counts are patients that the network has never seen.

# %%
from functools import partial

from medsaga_lib.evaluation.scores import evaluate_cases
from medsaga_lib.inference.predictor import Predictor

predictors = {
    name: Predictor(r.model, dataset.labels, dataset.modality, dataset.window, feed)
    for name, r in results.items()
}

# %%
panels = []
for name, predictor in predictors.items():
    panels.append(display.Panel(picture.pixels, truth, predictor(picture), name))
display.show(
    display.grid(panels, dataset.labels, alt="Both predictions.", columns=2),
    alt="The same held-out patient segmented by both networks after sixty steps: the solid outlines "
    "follow the lungs roughly, the dashed ones are the annotator's.",
)

# %%
test = dataset.split("test")
for name, predictor in predictors.items():
    scores = evaluate_cases(partial(predictor.case, dataset), dataset, test)
    low, high = scores.interval("dice")
    print(f"{name:8} Dice {scores.summary()['dice']:.3f}, 95 % interval {low:.3f} to {high:.3f}")

# %% [markdown]
# The intervals come from drawing the test patients again and again (a bootstrap over patients).
# They say how much the mean would move with other patients. They do not say what another seed, other shots or a longer training would give.
# Both were tested on the same patients, so what would count is the difference case by case, and not the overlap. But one seed is one seed: nobody has won.

# %% [markdown]
# ## Longer runs: 8 and 32 shots, with and without pretraining
#
# What takes longer than a chapter may is run once by a command, recorded with its provenance, and read here:
# the same two recipes for 200 steps on the real chest X-rays; each of them also from random weights,
# so that one sees what pretraining gives. For SAMed, random weights mean that LoRA adapts a frozen encoder that knows nothing.
#
# > **Predict.** How much does the pocket SAM's pretraining buy at 8 shots?

# %%
import json
from pathlib import Path

import pandas as pd

recorded = json.loads(Path("recorded/adapting_sam.json").read_text())
origin = recorded["provenance"]
print(origin["command"])
print(origin["date"], "|", origin["device"], "|", origin["data"])

# %%
print(f"{origin['test_cases']} held-out X-rays of {origin['test_patients']} patients")
runs = pd.DataFrame(recorded["runs"])
runs["95 % interval"] = ["{:.3f} to {:.3f}".format(*ends) for ends in runs["dice_interval"]]
table = runs.rename(columns={"dice": "Dice", "hd95": "HD95 (px)"}).set_index("recipe")
table[["weights", "shots", "Dice", "95 % interval", "HD95 (px)"]].round({"Dice": 3, "HD95 (px)": 1})

# %%
curves = []
for name, part in runs.groupby(["recipe", "weights"], sort=False):
    low, high = zip(*part["dice_interval"], strict=True)
    curves.append(display.Curve(", ".join(name), [*part["shots"]], [*part["dice"]], low, high))
display.show(
    display.curve_with_interval(curves, "labelled images", "mean Dice", alt="Dice by shots.",
                                log_x=True),
    alt="Mean Dice on held-out patients against the number of labelled images, for both recipes "
    "from pretrained and from random weights, with 95 % intervals over patients.",
)  # fmt: skip

# %% [markdown]
# Read the table before the legend of any paper. The intervals of one column of shots overlap all over: with one seed each and eleven patients, nobody has won, neither LoRA nor GaLore.
#
# And pretraining, the reason why one starts from SAM at all, buys two to four hundredths here, in all four rows and, with one seed each, inside their intervals over patients: a network of random numbers, trained for two minutes ([chapter 9](09_from_scratch.ipynb) has the costs), ends nearly as high.
# That is a statement about the pocket SAM, which saw 298,000 drawn pictures in 6.3 hours; SAM saw eleven million photographs.
#
# One seed proves little, and lungs are one organ. So here are five seeds, lungs from four X-rays on, polyps from 16 and 64 frames and the hippocampus from as many slices, MedSAGa from both starts, and a guest: a U-Net of 1.6 million parameters that has never heard of SAM. (Test sets: 19 X-rays of 11 patients, 40 frames, 60 volumes.)
#
# > **Predict.** Where is pretraining worth most: with few images or with many, on lungs, on polyps or on the hippocampus? And where is the guest?

# %%
value = json.loads(Path("recorded/pretraining_value.json").read_text())
print(value["provenance"]["command"])
runs = pd.DataFrame(value["runs"])
organs = {"cxr_hannover_lungs": "lungs", "polyp_kvasir": "polyps", "hippocampus_msd": "hippocampus"}
runs["organ"] = pd.Categorical(runs["data"].map(organs), organs.values())
runs["network"] = runs["recipe"].where(runs["recipe"] == "unet", runs["weights"])

# %%
from medsaga_lib.evaluation.scores import over_seeds  # mean, and half of a 95 % interval (Student's t)

found = {}
for (organ, shots), part in runs.groupby(["organ", "shots"], observed=True):
    dice = part.pivot(index="seed", columns="network", values="dice")
    dice["gain"] = dice["pretrained"] - dice["random"]
    dice["unet ahead"] = dice["unet"] - dice["pretrained"]
    found[f"{organ} from {shots}"] = {name: over_seeds(d) for name, d in dice.items()}
pd.DataFrame(found).T.map(lambda pair: "{:.3f} ± {:.3f}".format(*pair))

# %%
lungs = {int(task.split()[-1]): row for task, row in found.items() if "lungs" in task}
curves = []
for name in ("pretrained", "random", "unet"):
    means, halves = (np.array([row[name][k] for row in lungs.values()]) for k in (0, 1))
    curves.append(display.Curve(name, list(lungs), means, means - halves, means + halves))
alt = (
    "Mean Dice on held-out X-rays against the number of labelled ones, with intervals over seeds: the "
    "U-Net and MedSAGa from pretrained weights close together, their bands overlapping everywhere; "
    "MedSAGa from random weights below them, its band apart from theirs from eight X-rays on."
)
axes = "labelled X-rays", "mean Dice, five seeds"
display.show(display.curve_with_interval(curves, *axes, alt, log_x=True), alt=alt)

# %% [markdown]
# Pretraining is worth three hundredths on lungs, however many X-rays there are, five on the hippocampus and seventeen or more on polyps; all eight intervals leave out zero. One guess: lungs lie where lungs lie, and the hippocampus in the middle of a picture cut out around it, and places can be learned from random numbers too; a polyp may be anywhere and has to be *seen*.
#
# The U-Net, which knows nothing, is level with it on lungs from eight X-rays and a hundredth ahead from four, 16 and 32, at 32 alone by more than its interval. On polyps it is five to eight behind, more than its intervals, on the hippocampus three, which is less than they are. (Not all of that is the network: its learning rate was chosen in a bracket, MedSAGa's is the paper's.)
#
# So before you adapt a foundation model, train the small network that you would have trained without it: same images, same steps, same loss, its own learning rate. Whether the foundation is worth its weight depends on the task.
#
# Does the image encoder use the image at all? One test needs no training: measure how much the embedding changes from one X-ray to the next.

# %%
eight = torch.stack([held_out[i]["image"] for i in range(8)])
torch.manual_seed(seed)
for start, weights in (("pretrained", state), ("random", build_sam(backbone, size).state_dict())):
    sam.load_state_dict(weights)
    with torch.no_grad():
        found = sam.image_encoder((eight * 255 - sam.pixel_mean) / sam.pixel_std)
    print(f"{start:10} spread between X-rays {found.std(0).mean():.2f} of {found.std():.2f}")

# %% [markdown]
# A spread near zero would show that the encoder ignores the image. A large spread shows nothing, because random weights have one, too.
# Pretraining is only as good as what the network has learned. The [model card](https://github.com/medsaga-book/medsaga-book/blob/main/medsaga_lib/models/pocket.md) of the pocket SAM, `medsaga_lib/models/pocket.md`, says what it was trained on and how it scores on real images.
#
# ## Ablations of SAMed and MedSAGa
#
# A method is a bundle. MedSAGa has GaLore on all of the encoder, a decoder that trains, a warm-up; which of these does the work?
# Its authors took parts away: *v1* has GaLore on the attention alone, *v2* freezes the decoder. SAMed has a small sister, *SAMed_s*, whose decoder gets detours instead of being trained. Each of them is a `replace` of a field or two, and all are recipes of this library.

# %%
variants = ["samed", "samed_s", "medsaga", "medsaga_v1", "medsaga_v2"]
for name in variants:
    one = count(get_recipe(name), "vit_b", size=512, classes=8)
    states = one.state_bytes / 2**20
    print(f"{name:11} {one.trainable:11,} numbers train, states {states:6.1f} MiB")

# %% [markdown]
# The paper's v2 hardly segments at all: its Dice lies between .006 and .119 (Table 3), with the same digits for few and for many images, as if it had learned nothing.
#
# > **Predict.** In v2 nothing outside the encoder trains, so the class tokens stay as they start. Let them start as copies of one token. What is the gradient of the encoder? And with random tokens, or with SAM's own four in turn?

# %%
from medsaga_lib.training.losses import cross_entropy_dice

sixteen = Samples(dataset, dataset.split("train")[:16], 128)
images = torch.stack([sixteen[i]["image"] for i in range(16)])
labels = torch.stack([sixteen[i]["label"][2::4, 2::4] for i in range(16)])  # as the masks
v2 = get_recipe("medsaga_v2")  # on the pocket SAM: what we look for does not depend on size

# %%
for start in ("copied", "random", "in_turn"):
    frozen = replace(v2, start=start)
    network = build_model(frozen, "pocket", 128, len(dataset.labels), seed=seed)
    loss = cross_entropy_dice(network(images), labels).total
    loss.backward()
    grads = [p.grad.norm() for p in network.parameters() if p.grad is not None]
    print(f"{start:8} loss {loss:.3f}, gradient {torch.stack(grads).norm():.1e}")

# %% [markdown]
# Copies give equal masks, whatever the encoder does, and the loss has no slope there: nothing can be learned, at any learning rate. (Where the tokens train, they move apart in the first step. In v2 they are frozen.)
# The other two have a slope, so v2 can learn something. How much is a matter of runs: 32 X-rays, 200 steps, three seeds: the five from the table at the end of [chapter 9](09_from_scratch.ipynb), and three with a part less or another start.
#
# > **Predict.** SAMed and MedSAGa without the warm-up: is either worse? And v2, when its tokens are SAM's own?

# %%
recorded = json.loads(Path("recorded/parts.json").read_text())
print(recorded["provenance"]["command"])
print(recorded["provenance"]["date"], "|", recorded["provenance"]["device"])
everybody = json.loads(Path("recorded/methods.json").read_text())["runs"]

# %%
rows = [run for run in everybody + recorded["runs"]
        if run["recipe"].split(":")[0] in variants
        and (run["data"], run["shots"]) == ("cxr_hannover_lungs", 32)]  # fmt: skip
table = pd.DataFrame(rows).pivot(index="recipe", columns="seed", values="dice")
table = table.assign(mean=table.mean(axis=1))
table.sort_values("mean", ascending=False).round(3)

# %% [markdown]
# Without the warm-up MedSAGa ends a hundredth or more lower in each seed, SAMed one lower in two and level in the third. So here a warm-up helps a little; three seeds do not say how often. In the paper's Table 2 it matters more (0.913 with, 0.736 without, on X-rays); our runs are short, and in them the warm-up is shortened, too.
# SAMed_s, v1 and MedSAGa are as near to each other as their seeds.
# v2 is the exception, and its tokens are the reason. Random ones reach what their draw allows, 0.41 to 0.67; SAM's own four in turn reach 0.78 with the same frozen decoder, still nine hundredths behind all whose decoder trains.
#
# ## Exercises
#
# ### Exercise 1 (easy, 5 minutes)
# SAMed's authors also tried larger ranks. How many parameters train on ViT-B at 8 classes with $r = 16$ on $q$, $k$ **and** $v$?
# Work it out from the numbers above, without building the network.

# %% tags=["exercise"]
trainable = None

# %% cellView="form" tags=["solution"]
# @title Solution
decoder_and_prompt = 4_913_621 - 147_456
trainable = decoder_and_prompt + 12 * 3 * (16 * 768 + 768 * 16)

# %% tags=["exercise-check"]
wider = replace(samed, image_encoder=LoRA(rank=16, targets=("q", "k", "v")))
expected = count(wider, "vit_b", size=512, classes=8).trainable
assert trainable == expected, f"{trainable} is not it: three detours a block, each of A and B"

# %% [markdown]
# ### Exercise 2 (medium, 10 minutes)
# GaLore keeps two moments of $r \times n$ and a basis of $m \times r$ numbers ($m \le n$); AdamW keeps two moments of $m \times n$.
# Up to which rank does projecting save memory on a 768 x 3072 matrix?

# %% tags=["exercise"]
largest_rank = None

# %% cellView="form" tags=["solution"]
# @title Solution
m, n = 768, 3072
largest_rank = max(r for r in range(1, m) if r * (2 * n + m) < 2 * m * n)

# %% tags=["exercise-check"]
from medsaga_lib.optim.galore import is_projected

saving = [r for r in range(1, 769) if is_projected((768, 3072), r)]
assert largest_rank == saving[-1], f"{largest_rank} is not it: compare r (2n + m) with 2 m n"

# %% [markdown]
# ### Exercise 3 (medium, 10 minutes)
# After training, LoRA's detours can be added to the weights and SAM is a plain SAM again: no slower, nothing extra to install.
# Merge a copy of the trained SAMed, and put the largest change of its output for `image` into `change`.

# %% tags=["exercise"]
from copy import deepcopy

merged, change = deepcopy(results["samed"].model), None

# %% cellView="form" tags=["solution"]
# @title Solution
with torch.no_grad():
    before = merged(image)
    samed.image_encoder.merge(merged.sam.image_encoder)
    change = (merged(image) - before).abs().max()

# %% tags=["exercise-check"]
from torch.nn import Linear

layer = merged.sam.image_encoder.blocks[0].attn.qkv
assert type(layer) is Linear, "`merged` still has its detours: give its encoder to LoRA.merge"
with torch.no_grad():
    measured = (merged(image) - results["samed"].model(image)).abs().max()
assert change is not None, "measure it: the outputs before and after"
assert abs(change - measured) < 1e-6, f"{change}: `merged` differs by {measured}"
assert measured < 1e-3, "rounding alone moves it by less"

# %% [markdown]
# ## Summary
#
# - Without prompts, SAM labels every pixel: one mask token for each class, the highest mask wins.
# - SAMed freezes the encoder and adds detours of rank 4 to $q$ and $v$: 4,913,621 trainable parameters on ViT-B, decoder included.
# - MedSAGa trains every weight and keeps the moments in a subspace: less optimizer memory than full fine-tuning, more than LoRA.
# - Judge with patients that were never trained on, and give the interval with the number.
#
# On your own pictures the same is one line: `medsaga train medsaga --data FOLDER --shots 32`; the folder's layout is described in
# [How to use this book](../book/how-to-use.md).
