# %% [markdown]
# # 2. SAM from the inside
#
# **You will be able to**
# - name the three parts of SAM, and say what goes into each and what comes out,
# - turn a point, a box and a mask into what the mask decoder receives,
# - compute a mask by hand from one token and the upscaled embedding,
# - say which prompts LiteMedSAM can use on medical images, where it fails, and how far its own estimate of its quality can be trusted.
#
# **Before this** PyTorch; IoU as in [chapter 1](01_images_and_metrics.ipynb); a first idea of queries, keys and values.
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
profile = "quick"  # "colab" runs the same cells
seed = 0

# %% [markdown]
# ## An image and a prompt
#
# The Segment Anything Model, SAM ([Kirillov et al. 2023](../book/references.md)), gets an image and a *prompt*: points, a box, or a rough mask. It returns a mask of the object that the prompt means.
# This chapter takes a SAM apart. The network is LiteMedSAM, a small SAM for medical images, with its published weights ([Where the weights come from](../book/weights.md)). It has the parts of SAM; the last section before the questions lists the differences. Unless a table names another network, all scores below are LiteMedSAM's, not SAM's.
#
# A mask is compared with the annotator's by the intersection over union: the number of pixels in both masks, divided by the number of pixels in at least one. This IoU is 1 for equal masks, and 0 for masks without a common pixel.
#
# Where `MEDSAGA_DATA` names no folder, drawn chest X-rays replace all images.

# %% tags=["data"]
from medsaga_lib.data.catalog import open_or_phantoms

organs = {
    "polyp_kvasir": "polyps",
    "cxr_hannover_lungs": "lungs",
    "nuclei_dsb2018": "nuclei",
    "hippocampus_msd": "hippocampus",
    "ct_spleen_msd_crop": "spleen",
}
datasets = {(data := open_or_phantoms(name)).name: data for name in organs}
for dataset in datasets.values():
    print(dataset.describe())

# %% [markdown] tags=["real"]
# Has LiteMedSAM seen these images in its own training? The library keeps what is known:

# %% tags=["real"]
# needs real images
from medsaga_lib.data.seen import seen

for name in datasets:
    print(f"{name:19} {seen('lite_medsam', name).exposure}")

# %% [markdown] tags=["real"]
# Good scores on polyps, lungs and spleen may therefore be scores on training images. [Where the weights come from](../book/weights.md) gives the reasons.

# %% [markdown]
# We take a few test images, each of a different patient; where a set names no patients, each image counts as one. `examples_of` takes the slice of a volume with most labelled voxels, 2 slices of the single CT volume, and at most 4 nuclei of an image.

# %%
from medsaga_lib.data.examples import examples_of

counts = {
    "polyp_kvasir": 8,
    "cxr_hannover_lungs": 5,
    "nuclei_dsb2018": 2,
    "hippocampus_msd": 4,
    "ct_spleen_msd_crop": 2,
    "phantom_cxr": 5,
}

# %%
examples, groups = [], {}
for name, data in datasets.items():
    examples += examples_of(data, counts[name])
for number, one in enumerate(examples):
    groups.setdefault(organs.get(one.data, "phantoms"), []).append(number)
print(groups)


# %%
def first_object(number):
    """An example, and the annotator's mask of its first object."""
    one = examples[number]
    return one, one.truth == one.values[0]


# %%
def credit(*names):
    """Print the sources and the licences of data sets."""
    for name in names:
        print(datasets[name].citation, "|", datasets[name].licence)


# %% [markdown]
# ## Three parts
#
# The *image encoder* turns the image into an embedding, a grid of vectors. The *prompt encoder* turns the prompt into a few vectors of the same length, the *tokens*. The *mask decoder* lets tokens and embedding exchange information, and returns masks.
#
# > **Predict.** Which part has most of the parameters? Which part takes most of the time?

# %%
import torch
from torch.nn.functional import interpolate

from medsaga_lib.inference.box_predictor import load_box_predictor

# %%
lite = load_box_predictor("lite_medsam")
sam = lite.sam.requires_grad_(False)
# Channels last in memory: the same result up to rounding, often faster on a CPU
sam.image_encoder.to(memory_format=torch.channels_last)
prompter, decoder = sam.prompt_encoder, sam.mask_decoder

# %%
from time import process_time

# %%
seconds = {"image encoder": [], "prompt encoder": [], "mask decoder": []}
embeddings = []
for one in examples:
    start = process_time()
    embeddings.append(lite.embed(one.pixels))
    seconds["image encoder"].append(process_time() - start)

# %%
box, position = torch.tensor([[60.0, 60, 180, 160]]), prompter.get_dense_pe()
for embedding in embeddings[:5]:
    start = process_time()
    sparse, dense = prompter(points=None, boxes=box, masks=None)
    middle = process_time()
    given = embedding, position, sparse, dense
    logits, scores = decoder(*given, multimask_output=True)
    seconds["prompt encoder"].append(middle - start)
    seconds["mask decoder"].append(process_time() - middle)

# %%
import numpy as np
import pandas as pd


def shapes(*tensors):
    """The shapes of some tensors as text."""
    return " and ".join(str(tuple(tensor.shape)) for tensor in tensors)


# %%
gives = (embedding,), (sparse, dense), (logits, scores)
text = [shapes(*tensors) for tensors in gives]
parts = pd.DataFrame({"gives": text}, [*seconds])


# %%
def size(module):
    """The number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


# %% caption="The 3 parts of LiteMedSAM: the shape of what they give, the number of parameters, and the median time."
modules = sam.image_encoder, prompter, decoder
parts["parameters"] = [f"{size(module):,}" for module in modules]
median = pd.Series({name: np.median(took) for name, took in seconds.items()})
parts["ms"] = (1000 * median).round(1)
parts

# %%
ratio = median["image encoder"] / median["mask decoder"]
print(f"one encoding takes as long as {ratio:.0f} decodings")

# %% [markdown]
# The image encoder gives 64 x 64 vectors of 256 channels. The prompt encoder gives 2 tokens for the box, and a grid that is added to the embedding. The mask decoder gives the logits of 3 masks, and an estimate of their IoU.
# The image encoder has 5.7 million parameters and the mask decoder 4.1 million, but the image encoder takes most of the time. It does not depend on the prompt, so an image is encoded once, and each further prompt costs one call of the prompt encoder and the decoder. An annotator who corrects a box does not wait for the image encoder. The ratio above compares times, and depends on the library and the machine. [Chapter 8](08_lite_medsam.ipynb) counts operations, also for SAM, which gives another ratio. Chapter 8 also makes the decoder faster for many boxes.
#
# ## From the image to the input
#
# The input of LiteMedSAM is a square of 256 px. The longer side of the image becomes 256 px, and zeros fill the rest to the right and below. `Frame` keeps this position: it maps prompts to the input, and masks back to the image.

# %%
from medsaga_lib import display
from medsaga_lib.data.prompts import box_of

display.use_style()

# %%
one, target = first_object(0)
frame = lite.frame(one.truth.shape)
exact = torch.tensor(box_of(target)[None])
inside = frame.boxes(exact)
print(f"image {frame.size}, within the input {frame.inner}")
print("box in the image", exact[0].tolist(), "in the input", inside[0].tolist())

# %%
pixels = torch.tensor(one.pixels).float()
if pixels.ndim == 3:
    channels = pixels.movedim(-1, 0)
else:
    channels = pixels.expand(3, -1, -1)
given = lite.feed.images(channels[None], 256)  # (1, 3, 256, 256)
print(f"values from {given.min():.2f} to {given.max():.2f}")

# %% tags=["figure"]
titles = {"image": one.pixels, "input": given[0].movedim(0, -1).numpy()}
panels = [display.Panel(array, title=title) for title, array in titles.items()]
figure = display.grid(panels, {}, "An image and the input.", columns=2)
for axes, corners in zip(figure.axes, (exact[0], inside[0]), strict=True):
    left, top, right, bottom = corners.tolist()
    x, y = (left, right, right, left, left), (top, top, bottom, bottom, top)
    axes.plot(x, y, color="white")

# %%
display.show(
    figure,
    alt="An image and the input of the network, each with the same box in "
    "white. The input is a square; the image fills its upper left part, and a "
    "black strip the rest.",
    caption="An image, and the input of 256 x 256 px that LiteMedSAM gets. "
    "White: the exact box of one object, in both.",
)
credit(one.data)


# %% [markdown]
# The grey levels or colours are normalised by minimum and maximum to [0, 1], and a grey image is given 3 equal channels. SAM subtracts a fixed mean colour instead, and divides by a fixed standard deviation. Small changes of the preprocessing can change a mask completely; [chapter 10](10_few_labels.ipynb) shows an example.
#
# ## What the embedding represents
#
# An embedding has 256 channels and cannot be drawn as it is. The next figure shows it in two ways. The first 3 principal components of all vectors become red, green and blue: cells with similar vectors have similar colours. The third column is the cosine similarity of each cell with the cell at the white dot.
#
# > **Predict.** The dot is in an object. Which cells are similar to it: those of the same object, those at the same distance from the border, or those with the same texture anywhere?

# %%
def cells_of(number):
    """The embedding (256, h, w) of an example without the padding."""
    inner = lite.frame(examples[number].truth.shape).inner
    rows, columns = (-(-length // 4) for length in inner)
    return embeddings[number][0, :, :rows, :columns]


# %%
def on_image(grid, number):
    """Enlarge a grid (h, w) or (h, w, 3) to the pixels of an example."""
    grid = torch.as_tensor(grid)
    grid = grid if grid.ndim == 3 else grid[..., None]
    channels = grid.movedim(-1, 0)[None]
    large = interpolate(channels, examples[number].truth.shape, mode="nearest")
    return large[0].movedim(0, -1).squeeze(-1).numpy()


# %%
def principal_colours(number):
    """3 principal components (h, w, 3) in [0, 1]; their share of variance."""
    cells = cells_of(number)
    vectors = cells.flatten(1).T
    vectors = vectors - vectors.mean(0)
    variance, axes = torch.linalg.eigh(vectors.T @ vectors)  # ascending
    parts = vectors @ axes[:, -3:].flip(1)
    low, high = parts.quantile(torch.tensor([0.02, 0.98]), dim=0)
    colours = ((parts - low) / (high - low)).clamp(0, 1)
    share = float(variance[-3:].sum() / variance.sum())
    return colours.unflatten(0, cells.shape[1:]), share


# %%
from scipy.ndimage import distance_transform_edt


# %%
def middle_of(mask):
    """The pixel (x, y) of a mask that is farthest from its border."""
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return int(column), int(row)


# %%
def similarity(number, x, y):
    """The cosine similarity (h, w) of each cell with the cell at a pixel."""
    frame = lite.frame(examples[number].truth.shape)
    x, y = (frame.coordinates(torch.tensor([x, y])) / 4).long()
    cells = torch.nn.functional.normalize(cells_of(number), dim=0)
    return torch.einsum("chw,c->hw", cells, cells[:, y, x])


# %%
shown = groups.get("lungs", [0])[0], groups.get("polyps", [0, 1])[1]

# %% tags=["figure"]
panels, dots = [], []
for number in shown:
    one, target = first_object(number)
    colours, share = principal_colours(number)
    dots.append(middle_of(target))
    like = similarity(number, *dots[-1]).clamp(0, 1)
    titles = {
        "image": one.pixels,
        f"{share:.0%} of the variance": on_image(colours, number),
        "similarity to the dot": on_image(like, number),
    }
    for title, array in titles.items():
        panels.append(display.Panel(array, title=title))

# %%
figure = display.grid(panels, {}, "Two embeddings.")
for place, dot in zip((2, 5), dots, strict=True):
    figure.axes[place].plot(*dot, "o", color="white", markeredgecolor="black")
display.show(
    figure,
    alt="Two images, each with the principal components of its embedding as "
    "colours, and with the similarity of all cells to one cell. The colours "
    "follow the edges of the organs. The similarity is high in the whole "
    "object with the dot, and in other regions like it.",
    caption="Two images; the first 3 principal components of their embeddings "
    "as red, green and blue; the cosine similarity of each cell with the cell "
    "at the dot, from 0 or less (black) to 1 (white).",
)
credit(*(examples[number].data for number in shown))

# %%
rows = []
for number in shown:
    one, target = first_object(number)
    like = on_image(similarity(number, *middle_of(target)), number)
    other = (one.truth > 0) & ~target
    other = like[other].mean() if other.any() else np.nan
    rows.append([like[target].mean(), other, like[one.truth == 0].mean()])

# %% caption="Mean cosine similarity of the cells with the cell at the dot, by place."
columns = ["same object", "other object", "rest"]
table = pd.DataFrame(rows, ["first image", "second image"], columns)
table.round(2).astype(object).fillna("none")

# %% [markdown] tags=["real"]
# The colours follow the anatomy: air, the border of the lungs, the mediastinum and the tissue outside have different colours, and so have the polyp and the mucosa. The network was given no prompt for this.
# The dot is in the right lung. The left lung is nearly as similar to it as the right lung is: the embedding does not tell right from left. The border of both lungs is dark, so it differs from both sides. On the second image, the polyp is more similar to the dot than the rest, but no threshold would cut it out. The prompt has to say which region is meant.

# %% [markdown]
# ## The position of a token
#
# A box corner and a cell of the embedding must be comparable: both have a position. SAM turns a position into a vector of 256 numbers. With $\hat x, \hat y \in [-1, 1]$ the position relative to the input, and a fixed random matrix $G \in \mathbb{R}^{2 \times 128}$,
#
# $$\begin{aligned} p(x, y) = \bigl[&\sin\bigl(2\pi\,(\hat x, \hat y)\,G\bigr), \\ &\cos\bigl(2\pi\,(\hat x, \hat y)\,G\bigr)\bigr] \end{aligned}$$
#
# These are *random Fourier features* ([Tancik et al. 2020](../book/references.md)).

# %%
matrix = prompter.pe_layer.positional_encoding_gaussian_matrix  # G, (2, 128)


def positional(x, y):
    """The encoding (256,) of a pixel of the input; whole numbers: centres."""
    angle = 2 * torch.pi * ((torch.tensor([x, y]) + 0.5) / 256 * 2 - 1) @ matrix
    return torch.cat([angle.sin(), angle.cos()])


# %%
row, column = 20, 44
# The centre of a cell of 4 x 4 pixels is between its second and third pixel
by_hand = positional(4 * column + 1.5, 4 * row + 1.5)
print("equal:", torch.allclose(by_hand, position[0, :, row, column], atol=1e-4))

# %% [markdown]
# > **Predict.** What is the product of the encodings of two positions? What does it depend on?

# %%
alike = torch.einsum("chw,c->hw", position[0], by_hand) / 128
product = alike.clamp(0, 1).numpy()

# %% tags=["figure"]
panels = [display.Panel(product, title="product with one cell")]
for channel in matrix.norm(dim=0).argsort()[[5, 64, 120]]:
    wave = (position[0, channel] / 2 + 0.5).numpy()
    panels.append(display.Panel(wave, title="one channel"))

# %%
display.show(
    display.grid(panels, {}, "Positional encoding.", columns=4),
    alt="Four maps of 64 x 64 cells. The product of the encoding of one cell "
    "with those of all cells is bright at this cell and becomes dark within a "
    "few cells. Three single channels are stripes of different direction and "
    "width.",
    caption="The product of one cell's encoding with that of each cell, "
    "divided by 128 (black: 0 or less, white: 1), and 3 of the 256 channels of "
    "the encoding (black: -1, white: 1).",
)

# %% [markdown]
# As $\sin a \sin b + \cos a \cos b = \cos(a - b)$, the product depends only on the displacement between the two positions. It is largest for equal positions and falls with the distance. Attention compares tokens and cells by products, so a token can find the cells at its position.
# The decoder gets this encoding of all cells as a second grid. LiteMedSAM's embedding itself says little about absolute positions; [chapter 10](10_few_labels.ipynb) shows what follows.
#
# ## From a prompt to tokens, and from a mask to a grid
#
# A token is the encoding of its position plus a learned vector for its *role*: background point, foreground point, first corner, second corner. Here are the tokens of a box by hand:

# %%
left, top, right, bottom = box[0]
first, second = (prompter.point_embeddings[role].weight[0] for role in (2, 3))
corners = positional(left, top), positional(right, bottom)
tokens = torch.stack([corners[0] + first, corners[1] + second])
print("equal:", torch.allclose(tokens, sparse[0], atol=1e-4))

# %% [markdown]
# > **Predict.** A point is 2 tokens, although it has one position. What is the second for? Where does a mask prompt go?

# %% caption="The shapes that the prompt encoder returns for each kind of prompt. Tokens: images, tokens, channels. Grid: images, channels, rows, columns."
point = torch.tensor([[[120.0, 110]]]), torch.ones(1, 1)
mask = torch.zeros(1, 1, 256, 256)
prompts = {
    "a point": (point, None, None),
    "a box": (None, box, None),
    "a point and a box": (point, box, None),
    "a mask": (None, None, mask),
    "no prompt": (None, None, None),
}
rows = {}
for name, prompt in prompts.items():
    rows[name] = [shapes(part) for part in prompter(*prompt)]
pd.DataFrame(rows, ["tokens", "grid added to the embedding"]).T

# %% [markdown]
# A point without a box is followed by a padding token, which is a learned vector without a position. A mask gives no token: convolutions reduce it from 256 to 64 px, and the result is added to the embedding. Without a mask, one learned vector is added to all cells.
#
# ## Attention in both directions
#
# The decoder puts 5 learned tokens before those of the prompt: 1 for the predicted IoU and 4 *mask tokens*. Mask token 0 is for a single mask, the other 3 are for ambiguous prompts.
# Then the tokens attend to each other, the tokens attend to the image, and the image attends to the tokens. This happens twice, and the tokens attend to the image once more at the end. The next cells record the attention of mask token 0 to the cells.
#
# > **Predict.** Where does mask token 0 look: at the whole object, at its edge, or at the corners of the box?

# %%
from medsaga_lib.data.prompts import box_around
from medsaga_lib.inference.answers import answer


# %%
def ask(number, prompt, mask=None):
    """LiteMedSAM's answer to a prompt (coordinates, roles) for an example."""
    frame = lite.frame(examples[number].truth.shape)
    return answer(sam, embeddings[number], frame, *prompt, mask)


# %%
def attention_maps(number, prompt):
    """3 maps (64, 64) of mask token 0's attention, means over the heads."""
    maps, transformer = [], decoder.transformer

    def keep(module, _, given):
        q, k = module.q_proj(given["q"]), module.k_proj(given["k"])
        heads = module.num_heads, -1
        q, k = (x.unflatten(2, heads).transpose(1, 2) for x in (q, k))
        weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)
        # weights: (1, 8 heads, 7 tokens, 4096 cells)
        maps.append(weights[0, :, 1].mean(0).view(64, 64))

    layers = [layer.cross_attn_token_to_image for layer in transformer.layers]
    layers.append(transformer.final_attn_token_to_image)
    hooks = []
    for layer in layers:
        hooks.append(layer.register_forward_pre_hook(keep, with_kwargs=True))
    ask(number, prompt)
    for hook in hooks:
        hook.remove()
    return maps


# %%
number = shown[1]
one, target = first_object(number)
height, width = cells_of(number).shape[1:]
names = "first layer", "second layer", "last attention"
found = attention_maps(number, box_around(target, None))
maps = {
    name: weights[:height, :width]
    for name, weights in zip(names, found, strict=True)
}

# %% tags=["figure"]
contour = target.astype(int)
panels = [display.Panel(one.pixels, contour, title="image")]
for name, weights in maps.items():
    bright = (weights / weights.quantile(0.995)).clamp(0, 1) ** 0.5
    panels.append(display.Panel(on_image(bright, number), contour, title=name))

# %%
display.show(
    display.grid(panels, {1: "object"}, "Attention.", columns=4),
    alt="An image with the annotator's contour dashed, and three maps of "
    "attention. In the first layer, mask token 0 attends to spots outside the "
    "object. In the second layer and in the last attention, it attends to the "
    "object and most to its edge.",
    caption="An image with the true contour of its object (dashed), and the "
    "attention of mask token 0 to the cells, mean over the heads: white is "
    "most, on the scale of each map.",
)
credit(one.data)

# %%
from medsaga_lib.data.prompts import fill_box

in_box = fill_box(box_of(target), target.shape)
inside = {"object": target, "rest of the box": in_box & ~target}

# %% caption="Share of the attention of mask token 0 on the object and on the rest of its box, and their shares of the image."
share = {}
for name, weights in maps.items():
    large = on_image(weights, number)
    large = large / large.sum()
    share[name] = {part: large[region].sum() for part, region in inside.items()}
share["area"] = {part: region.mean() for part, region in inside.items()}
pd.DataFrame(share).T.round(2)

# %% [markdown] tags=["real"]
# In the first layer, the vectors of the cells (*image tokens*) do not know the prompt yet, and 7 % of the attention is on the polyp, which has 13 % of the area. Then the image attends to the tokens. In the second layer and in the last attention, more than two thirds of the attention of mask token 0 are on the polyp. In the figure, the brightest cells are at its edge.

# %% [markdown]
# A map of attention shows where information comes from. It is not the mask.
#
# ## A mask by hand
#
# After the transformer, transposed convolutions enlarge the image tokens from 64 to 256 px and reduce them from 256 to 32 channels. A small network, the *hypernetwork*, turns the mask token into 32 numbers. The mask is the product of the two: at each pixel, the sum of the 32 channels, each multiplied by its number.

# %%
from medsaga_lib.models.heads import embed_prompts

coordinates, roles = box_around(target, None)
frame = lite.frame(target.shape)
places = frame.coordinates(torch.tensor(coordinates))[None]
prompt = embed_prompts(prompter, places, torch.tensor(roles)[None])

# %%
learned = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
tokens = torch.cat([learned[None], prompt], dim=1)
print("tokens", tuple(tokens.shape))

# %%
embedding = embeddings[number] + dense
hidden, image = decoder.transformer(embedding, position, tokens)
image = image.transpose(1, 2).view(1, 256, 64, 64)
upscaled = decoder.output_upscaling(image)[0]
weights = decoder.output_hypernetworks_mlps[0](hidden[:, 1])[0]
by_hand = torch.einsum("c,chw->hw", weights, upscaled)
print(shapes(upscaled, weights, by_hand))

# %%
library = ask(number, (coordinates, roles))
largest = (by_hand - library.logits[0]).abs().max()
print(f"logits from {by_hand.min():.1f} to {by_hand.max():.1f}")
print(f"largest difference {largest:.1e}")

# %% tags=["figure"]
height, width = frame.inner
order = (weights.abs() * upscaled.std((1, 2))).argsort(descending=True)
panels = []
for channel in order[:3].tolist():
    grey = upscaled[channel, :height, :width]
    grey = (grey - grey.min()) / (grey.max() - grey.min())
    title = f"channel {channel} x {weights[channel]:.2f}"
    panels.append(display.Panel(grey.numpy(), title=title))
probability = by_hand.sigmoid()[:height, :width].numpy()
panels.append(display.Panel(probability, title="all 32 together"))

# %%
display.show(
    display.grid(panels, {}, "Channels.", columns=4),
    alt="Three of the 32 channels of the upscaled embedding in grey, with "
    "their factors, and the probability from all 32. One channel is dark in "
    "the whole box; in the other two the object differs from its surroundings. "
    "In the probability, the object is white and everything else is black.",
    caption="Three of the 32 channels, each from its minimum (black) to its "
    "maximum (white), with its factor in the title; right, the probability "
    "from all 32, from 0 (black) to 1 (white).",
)

# %% [markdown]
# The three channels are those that change the sum most. Two of them already separate the object from its surroundings, and one shows the whole box, because the image tokens have attended to the prompt.
# The logits computed by hand are those of the library up to rounding. They are enlarged to the image, and the mask is where they are above 0.
#
# ### The threshold
#
# A logit of 0 is a probability of 0.5. That threshold is a choice. The next cells cut the probability at other thresholds and score each mask against the annotator's, first for all objects of our images, then for two of them as a figure.
#
# > **Predict.** Is 0.5 the best threshold? On which side of it would a better one be?

# %%
from medsaga_lib.evaluation.metrics import dice, hd95


# %%
def soft_masks(number):
    """For each object its true mask, and the probability from its box."""
    one, frame = examples[number], lite.frame(examples[number].truth.shape)
    for value in one.values:
        target = one.truth == value
        logits = ask(number, box_around(target, None)).logits[:1, None]
        yield target, frame.enlarge(logits)[0, 0].sigmoid().numpy()


# %% caption="Mean Dice of LiteMedSAM's masks from exact boxes, cut at 6 thresholds. Likely seen by LiteMedSAM: polyps, lungs and spleen; not known: nuclei and hippocampus."
cuts, rows = [0.05, 0.1, 0.3, 0.5, 0.7, 0.9], {}
for name, numbers in groups.items():
    pairs = [pair for number in numbers for pair in soft_masks(number)]
    scores = [[dice(soft > cut, true) for cut in cuts] for true, soft in pairs]
    rows[name] = np.mean(scores, axis=0)
pd.DataFrame(rows, pd.Index(cuts, name="threshold")).T.round(3)


# %% tags=["figure"]
def at_thresholds(number):
    """The first soft mask of an example, with the metrics at 99 thresholds."""
    one, (target, soft) = examples[number], next(soft_masks(number))
    scores = []
    for percent in range(1, 100):
        mask = soft > percent / 100
        row = {"threshold": percent / 100, "dice": dice(mask, target)}
        row["iou"] = row["dice"] / (2 - row["dice"])
        row["hd95"] = hd95(mask, target, one.spacing) if mask.any() else None
        scores.append(row)
    unit = "px" if one.spacing == (1, 1) else "mm"
    about = {"name": one.data, "unit": unit, "scores": scores}
    return about | display.soft_mask(one.pixels, target, soft)


# %%
cut = [number, groups.get("hippocampus", groups[[*groups][-1]])[0]]
display.interactive(
    "threshold",
    {"objects": [at_thresholds(each) for each in cut]},
    "Move the threshold of LiteMedSAM's mask (blue); the true contour is "
    "orange. The curves are Dice and IoU of this object at all thresholds.",
)
credit(*(examples[each].data for each in cut))

# %% [markdown] tags=["real"]
# On polyps, nuclei and spleen, 0.5 is within 0.01 of the best threshold in the table. On lungs and hippocampus it is far from it: LiteMedSAM's masks are too small, and a threshold of 0.05 raises the mean Dice by more than 0.1. The network is less sure there, so the probability falls slowly from the middle of the object to its edge.
# A threshold that is chosen on the test images makes their score too high. It belongs to the method, so choose it on validation images and report it.

# %% [markdown]
# Methods without prompts replace the mask tokens by *class tokens*, one for each organ ([chapter 5](05_adapting_sam.ipynb)).
#
# ## Boxes on five kinds of images
#
# The prompt is the exact box of each annotated object. A box already gives the place and the size of an object, so the baseline is the ellipse in the box ([chapter 8](08_lite_medsam.ipynb)).
#
# > **Predict.** On which kind of images is LiteMedSAM best? Is it always ahead of the ellipse?

# %%
from medsaga_lib.bench.boxes import iou

# %%
rows = []
for name, numbers in groups.items():
    for number in numbers:
        one = examples[number]
        for value in one.values:
            target = one.truth == value
            found = ask(number, box_around(target, None))
            ellipse = fill_box(box_of(target), target.shape, ellipse=True)
            row = {"images": name, "number": number, "value": value}
            row["ellipse"] = iou(ellipse, target)
            for k, mask in enumerate(found.masks):
                row[f"mask {k}"] = iou(mask, target)
                row[f"predicted {k}"] = found.predicted_iou[k]
            rows.append(row | {"logits": found.logits[0]})
boxes = pd.DataFrame(rows)
boxes = boxes.rename(columns={"mask 0": "IoU", "predicted 0": "predicted"})

# %% caption="Mean IoU of LiteMedSAM and of the ellipse in the exact box. `ahead` counts the objects on which LiteMedSAM is ahead. Likely seen by LiteMedSAM: polyps, lungs and spleen; not known: nuclei and hippocampus."
boxes["ahead"] = boxes["IoU"] > boxes["ellipse"]
by_kind = boxes.groupby("images", sort=False)
table = by_kind[["IoU", "ellipse"]].mean().round(2)
table.assign(objects=by_kind.size(), ahead=by_kind["ahead"].sum())


# %% tags=["figure"]
def panel_of(row):
    """An object with its mask from the exact box; IoU of mask and ellipse."""
    one = examples[row["number"]]
    target = one.truth == row["value"]
    mask = ask(row["number"], box_around(target, None)).masks[0]
    title = f"{row['images']}: {row['IoU']:.2f} ({row['ellipse']:.2f})"
    both = target.astype(int), mask.astype(int)
    return display.Panel(one.pixels, *both, title, one.spacing)


# %% tags=["figure"]
each = -(-5 // len(groups))
ranked = boxes.sort_values("IoU", ascending=False)
ranked = ranked.groupby("images", sort=False)
reading = (
    f"{each} of each kind of images, with LiteMedSAM's mask (solid) and the "
    "true contour (dashed). Titles: IoU of the mask and of the ellipse."
)

# %% tags=["figure"]
best = pd.concat([part.head(each) for _, part in ranked])
best = best.sort_values("IoU", ascending=False)
panels = [panel_of(row) for _, row in best.iterrows()]

# %%
display.show(
    display.grid(panels, {1: "object"}, "Objects with the highest IoU."),
    alt="The objects with the highest IoU of each kind of images, with "
    "LiteMedSAM's mask and the annotator's contour, and a title with the IoU "
    "of the mask and of the ellipse.",
    caption=f"The objects with the highest IoU, {reading}",
)
credit(*datasets)

# %% tags=["figure"]
worst = pd.concat([part.tail(each) for _, part in ranked]).sort_values("IoU")
panels = [panel_of(row) for _, row in worst.iterrows()]

# %%
display.show(
    display.grid(panels, {1: "object"}, "Objects with the lowest IoU."),
    alt="The objects with the lowest IoU of each kind of images, with "
    "LiteMedSAM's mask and the annotator's contour, and a title with the IoU "
    "of the mask and of the ellipse.",
    caption=f"The objects with the lowest IoU, {reading}",
)
credit(*datasets)

# %% [markdown] tags=["real"]
# The best masks follow the edge of the polyp and of the spleen closely. These are two of the three sets that LiteMedSAM has probably seen.
# The worst masks show:
#
# - *Lungs.* The mask is a thin rim of the lung. The published preprocessing is unstable on some X-rays; [chapter 10](10_few_labels.ipynb) shows one, and how another preprocessing repairs its masks. Even the best mask leaves out a part at the bottom of the lung that the annotator included.
# - *Hippocampus.* The whole slice has about 50 x 36 pixels, so the input is a strong enlargement, and the border of the hippocampus hardly has a visible edge.
# - *Nuclei.* A nucleus is about 12 pixels wide in the input. The mask is about right, but one pixel more or less changes the IoU much.
# - *Spleen.* Even the worst mask is close to the annotator's.
# - *Polyps.* The worst mask misses a strip of the polyp, and the ellipse is ahead of it.
#
# On three of the five kinds of images, the ellipse has the higher mean IoU. A box from the ground truth says so much that a network must be compared with it.

# %% [markdown]
# ### Your own boxes, on your own image
#
# Where a kernel runs, drag a box on the next image: LiteMedSAM answers with a mask and its estimate of the IoU. `Clicks` also takes the path of an image or a volume, so put your own file in place of `own`. *Keep as label* writes a mask into `clicks.labels`. If you gave a path, `clicks.save(folder)` writes these labels to a file. Without a kernel, the page shows the first box, and [Try it](../book/live.md) runs LiteMedSAM in your browser.

# %%
from medsaga_lib.data.images import Picture
from medsaga_lib.inference.clicks import Clicks

one, target = first_object(0)
own = Picture(one.pixels, one.spacing)
clicks = Clicks(
    own, lite, caption="A box prompt and LiteMedSAM's mask; left, the image."
)
clicks.ask(box=box_of(target))
credit(one.data)
clicks

# %% [markdown]
# ## How exact must a box be?
#
# A person's box is not exact. LiteMedSAM's training script moves each side of a box outwards by a random number of 0 to 5 px of 256 ([train_one_gpu.py](https://github.com/bowang-lab/MedSAM/blob/LiteMedSAM/train_one_gpu.py)). We move all sides outwards by k px of the input, or the whole box to the right by k px, and measure the IoU.
#
# > **Predict.** Which costs more: a box that is 16 px too large on each side, one that is 8 px too small, or one that is moved by 16 px?

# %%
from medsaga_lib.inference.box_decoder import segment_boxes

steps = [-16, -8, -4, 0, 4, 8, 16, 32]
kinds = {"all sides outwards": (-1, -1, 1, 1), "to the right": (1, 0, 1, 0)}


# %%
def tolerance(number, direction):
    """The mean IoU over the objects of an example, for boxes at each step."""
    one, scores = examples[number], []
    frame = lite.frame(one.truth.shape)
    move = torch.tensor(steps)[:, None] * torch.tensor(direction)
    move = move * max(frame.size) / 256
    for value in one.values:
        target = one.truth == value
        moved = (torch.tensor(box_of(target)) + move).float()
        given = embeddings[number], moved, frame.size
        found = segment_boxes(sam, *given, frame=frame).masks
        scores.append([iou(mask.whole(frame.size), target) for mask in found])
    return np.mean(scores, axis=0)


# %%
from medsaga_lib.evaluation.scores import bootstrap


# %%
def curve(name, numbers, direction):
    """The mean over examples and its 95 % interval, a bootstrap over images."""
    scores = np.array([tolerance(number, direction) for number in numbers])
    once = np.ones((len(numbers), 1))
    ends = [bootstrap(column[:, None], once) for column in scores.T]
    return display.Curve(name, steps, scores.mean(0), *zip(*ends, strict=True))


# %%
numbers = groups.get("polyps", groups.get("phantoms"))
curves = [curve(name, numbers, direction) for name, direction in kinds.items()]

# %%
axes = "movement of the sides (px of the 256 px input)", "mean IoU"
display.show(
    display.curve_with_interval(curves, *axes, "Tolerance."),
    alt="Mean IoU against the movement of the sides, with bands of 95 %. With "
    "all sides outwards, the curve is flat from 0 to 8 px and falls steeply to "
    "the left, where boxes are too small, and slowly to the right. With a box "
    "moved to the side, it falls in both directions.",
    caption="Mean IoU for boxes that are larger (below 0: smaller) than the "
    "exact box, or moved to the right (below 0: left). "
    f"Bands: 95 % over {len(numbers)} images.",
)

# %% caption="Mean IoU after a change of the box by k px of the input. Likely seen by LiteMedSAM: polyps."
pd.DataFrame({one.name: one.y for one in curves}, steps).T.round(2)

# %% [markdown] tags=["real"]
# Up to 8 px outwards, the IoU of the polyps does not fall: the training had boxes that are up to 5 px too large. A box that is too small costs most. With 8 px inwards, the IoU falls from 0.93 to 0.53, because the mask hardly leaves the box. A box moved to a side by 16 px costs 0.3.
# If in doubt, draw the box too large. The intervals are from 8 frames; they are wide at the ends.

# %% [markdown]
# ## One mask or three
#
# A point can mean an organ or a part of it, so SAM answers with 3 masks and an estimated IoU for each. A box is hardly ambiguous, and mask 0 is made for it.
# LiteMedSAM's training script uses only boxes and mask 0. There, masks 1 to 3 have no part in the loss. The table gives the mean IoU of all 4 masks from exact boxes. `chosen` is the mask of 1 to 3 with the highest estimate, and `best of 3` the one with the highest IoU.
#
# > **Predict.** What is left of masks 1 to 3?

# %% caption="Mean IoU of LiteMedSAM's masks 0 to 3 from exact boxes. `IoU` is that of mask 0, which LiteMedSAM returns. Likely seen by LiteMedSAM: polyps, lungs and spleen; not known: nuclei and hippocampus."
three = boxes[[f"mask {k}" for k in (1, 2, 3)]].to_numpy()
estimates = boxes[[f"predicted {k}" for k in (1, 2, 3)]].to_numpy()
boxes["chosen"] = three[np.arange(len(three)), estimates.argmax(1)]
boxes["best of 3"] = three.max(1)
columns = ["IoU", "mask 1", "mask 2", "mask 3", "chosen", "best of 3"]
boxes.groupby("images", sort=False)[columns].mean().round(2)

# %% [markdown] tags=["real"]
# Masks 1 to 3 are still masks of the object. On polyps and spleen they are behind mask 0. On lungs and hippocampus, where mask 0 fails, mask 1 is ahead of it. With 0.79 on lungs, it is ahead of the ellipse. All 4 masks are products with the same upscaled embedding, which may be the reason that the other tokens still work. Why mask 1 is better here, we do not know.

# %% [markdown]
# ## Points, a grid of points, and masks
#
# The pocket SAM, our small network that was pretrained on drawn images ([Where the weights come from](../book/weights.md)), was trained with points, boxes and 3 masks. It shows what points are for. Each object gets 1 point at the place farthest from its border.
#
# > **Predict.** LiteMedSAM accepts a point without an error. What does it answer?

# %%
from medsaga_lib.data.prompts import PAD, POSITIVE

# %%
pocket = load_box_predictor("pocket")
pocket_embeddings = [pocket.embed(one.pixels) for one in examples]


# %%
def point_in_middle(target):
    """One foreground point, and the padding token after it."""
    return [middle_of(target), (0, 0)], [POSITIVE, PAD]


# %%
rows = []
for _, row in boxes.iterrows():
    number = row["number"]
    target = examples[number].truth == row["value"]
    prompt, frame = point_in_middle(target), pocket.frame(target.shape)
    again = ask(number, box_around(target, None), row["logits"])
    small = answer(pocket.sam, pocket_embeddings[number], frame, *prompt)
    found = {
        "LiteMedSAM, box": row["IoU"],
        "LiteMedSAM, box and its own mask": iou(again.masks[0], target),
        "LiteMedSAM, point": iou(ask(number, prompt).masks[0], target),
        "pocket SAM, point": iou(small.masks[0], target),
    }
    three = [iou(mask, target) for mask in small.masks[1:]]
    best = small.predicted_iou[1:].argmax()
    found["pocket SAM, point, chosen of 3"] = three[best]
    found["pocket SAM, point, best of 3"] = max(three)
    rows.append(found)

# %% caption="Mean IoU from a box and from a point, for LiteMedSAM and the pocket SAM. Likely seen by LiteMedSAM: polyps, lungs and spleen; not known: nuclei and hippocampus."
pd.DataFrame(rows).groupby(boxes["images"], sort=False).mean().T.round(2)

# %%
number = groups.get("polyps", groups.get("phantoms"))[2]
one, target = first_object(number)
prompt, frame = point_in_middle(target), pocket.frame(target.shape)
small = answer(pocket.sam, pocket_embeddings[number], frame, *prompt)
masks = {"LiteMedSAM": ask(number, prompt).masks[0]}
masks |= {f"pocket SAM {k}": small.masks[k] for k in (1, 2, 3)}

# %% tags=["figure"]
panels = []
for name, mask in masks.items():
    title = f"{name}: {iou(mask, target):.2f}"
    both = target.astype(int), mask.astype(int)
    panels.append(display.Panel(one.pixels, *both, title))

# %%
figure = display.grid(panels, {1: "object"}, "One point.", columns=4)
dot = {"color": "white", "markeredgecolor": "black", "markersize": 4}
for axes in figure.axes:
    axes.plot(*prompt[0][0], "o", **dot)
display.show(
    figure,
    alt="One image with one point, 4 times. LiteMedSAM has no mask that "
    "overlaps the object. The 3 masks of the pocket SAM are regions of "
    "different size around or beside the point. The titles give the IoU.",
    caption="One point (white) in the middle of an object (dashed). Solid: the "
    "mask of LiteMedSAM, and masks 1 to 3 of the pocket SAM, with their IoU.",
)
credit(one.data)

# %% [markdown]
# With a point, LiteMedSAM's IoU is almost 0. There is no error message: the roles of points exist in its prompt encoder, but the training used only boxes. [Chapter 7](07_exemplar_synthesis.ipynb) teaches it what a point means.
# The pocket SAM answers points. Its 3 masks have different sizes, as a point allows several objects. The best of the 3 is chosen with the annotator's mask, so it is an upper bound of the network's own choice.

# %% [markdown] tags=["real"]
# A mask prompt is also new to LiteMedSAM. If it gets the box together with its own logits, the masks become worse on four of the five kinds of images, by 0.01 to 0.11, and better on the lungs, by 0.10. SAM was trained to improve its own mask in this way.

# %% [markdown]
# Without any prompt from a person, SAM puts a grid of points on the image and keeps the masks that differ. The grid here has 5 x 5 points; SAM's has 32 x 32. Such masks have no names. The next table takes the mask nearest to the object above, so its IoU says what the best choice could reach.

# %%
from medsaga_lib.inference.point_grid import everything, named_by

# %% caption="Masks from a grid of 5 x 5 points: their number, their median area as a share of the image, and the IoU of the best. Likely seen by LiteMedSAM: polyps."
rows = {}
for name, network in {"LiteMedSAM": sam, "pocket SAM": pocket.sam}.items():
    found = everything(network, one.pixels, per_side=5)
    nearest = named_by(target.astype(int), found, [1]) == 1
    area = np.median([mask.mean() for mask in found])
    rows[name] = {"masks": len(found), "median area": area}
    rows[name]["best IoU"] = iou(nearest, target)
display.table(pd.DataFrame(rows).T)

# %% [markdown] tags=["real"]
# Most of LiteMedSAM's masks are empty or have a few pixels, and none is near the polyp. Among the masks of the pocket SAM there is one near the polyp, but somebody has to choose it.

# %% [markdown]
# ## The network's estimate of its own IoU
#
# The token before the mask tokens becomes an estimate of the IoU of each mask. In LiteMedSAM's training script, the squared difference to the true IoU is a part of the loss. A good estimate would find the bad masks without an annotator.
#
# > **Predict.** Is the estimate too high or too low? Does it tell good masks from bad ones within one kind of images?

# %%
from matplotlib import pyplot as plt

# %%
figure, axes = plt.subplots(figsize=(4.8, 4.2))
for name, part in by_kind:
    axes.plot(part["IoU"], part["predicted"], "o", label=name, alpha=0.8)
axes.plot([0, 1], [0, 1], color="#999999", linewidth=1)
axes.set(xlabel="IoU with the annotator", ylabel="IoU estimated by the network")
axes.set(xlim=(0, 1), ylim=(0, 1.02))
axes.legend(loc="lower right")
display.show(
    figure,
    alt="IoU estimated by the network against the IoU with the annotator, a "
    "dot for each object, and the diagonal. Nearly all dots are above the "
    "diagonal where the IoU is low, and near it where the IoU is high.",
    caption="IoU that LiteMedSAM estimates for its mask from the exact box, "
    "against the true IoU. A dot is an object; on the line, both are equal.",
)


# %%
def agreement(part):
    """How the estimates of some objects agree with the IoU."""
    error = part["predicted"] - part["IoU"]
    row = part[["IoU", "predicted"]].mean()
    row["mean error"] = error.mean()
    rank = part[["predicted", "IoU"]].corr("spearman")
    row["rank correlation"] = rank.iloc[0, 1]
    return row


# %% caption="True and predicted IoU from exact boxes. `mean error` is predicted minus true. Likely seen by LiteMedSAM: polyps, lungs and spleen; not known: nuclei and hippocampus."
table = {name: agreement(part) for name, part in by_kind}
pd.DataFrame(table | {"all": agreement(boxes)}).T.round(2)

# %% [markdown] tags=["real"]
# On polyps and spleen, the mean error is 0.01 and -0.01. On hippocampus and lungs, the estimate is too high by 0.23 and 0.33: a mask of a lung with an IoU of 0.1 gets an estimate of 0.7. LiteMedSAM has probably seen X-rays of this source in its training, so similar images in the training are not enough for a right estimate.
# The order of the estimates is more reliable than their values. The rank correlation over all objects is 0.89. The estimate can therefore sort masks, so that a person looks at the worst first; it cannot be read as an IoU. On the polyps all masks are good, and the order says little. The rank correlation of 2 slices of the spleen says nothing.

# %% [markdown]
# ## What LiteMedSAM changed
#
# The last table compares LiteMedSAM with SAM's smallest network, ViT-B. The numbers come from the library, which builds both without weights. The words come from SAM's paper and from LiteMedSAM's training script.

# %%
from medsaga_lib.models.sam import SHAPES, build_sam

# %%
rows = {}
for title, name in {"SAM, ViT-B": "vit_b", "LiteMedSAM": "lite_medsam"}.items():
    with torch.device("meta"):  # shapes without memory
        network, shape = build_sam(name), SHAPES[name]
    rows[title] = {
        "image encoder": type(network.image_encoder).__name__,
        "parameters of image encoder": f"{size(network.image_encoder):,}",
        "parameters of prompt encoder": f"{size(network.prompt_encoder):,}",
        "parameters of mask decoder": f"{size(network.mask_decoder):,}",
        "input": f"{shape.size} px",
        "cells": f"{shape.size // shape.patch} x {shape.size // shape.patch}",
        "a cell": f"{shape.patch} px",
        "logits": f"{4 * shape.size // shape.patch} px",
    }

# %% caption="SAM's ViT-B beside LiteMedSAM."
rows["SAM, ViT-B"] |= {
    "input values": "minus a mean, divided by a deviation",
    "trained on": "photographs",
    "prompts in training": "points, boxes, masks",
    "masks in training": "1 and 3",
}
rows["LiteMedSAM"] |= {
    "input values": "[0, 1] by minimum and maximum",
    "trained on": "medical images",
    "prompts in training": "boxes",
    "masks in training": "1",
}
pd.DataFrame(rows)

# %% [markdown]
# Prompt encoder and mask decoder are the same. LiteMedSAM has a small image encoder, TinyViT ([chapter 8](08_lite_medsam.ipynb)), and an input of 256 px in place of 1024 px. Both have 64 x 64 cells, so a cell of LiteMedSAM has 4 px of the input and a cell of SAM 16 px. SAM's input shows more detail, and its logits have a quarter of the input's side.
# The lower rows explain the failures with points and masks: the parts are there, but the training did not use them.

# %% [markdown]
# ## Questions

# %% [markdown] tags=["question"]
# **Question 1.** An annotator moves one corner of a box on an image that is already encoded. Which parts have to run again?
#
# - **A.** All three parts.
# - **B.** The prompt encoder and the mask decoder.
# - **C.** The mask decoder alone.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: the image has not changed, so its embedding has not changed either. It is the most expensive part, and it is kept.
# - **B.** Yes: the new box becomes new tokens, and the decoder combines them with the old embedding. The table shows how little time both take.
# - **C.** No: the decoder gets tokens, and those of the new box come from the prompt encoder.
# </details>

# %% [markdown] tags=["question"]
# **Question 2.** LiteMedSAM accepts a point, gives no error, and the IoU of its mask is almost 0. Why?
#
# - **A.** Its training used only boxes, so the decoder never learned how a mask follows from a point.
# - **B.** Its prompt encoder has no tokens for points.
# - **C.** A point is ambiguous, and the network chose another object at this place.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** Yes: the parts for points exist, as in SAM, but no training image had a point.
# - **B.** No: the table of tokens shows 2 tokens for a point. Otherwise there would be an error.
# - **C.** No: the mask does not fit any object at the point. The pocket SAM, which was trained with points, answers with regions around or beside it.
# </details>

# %% [markdown] tags=["question"]
# **Question 3.** The network estimates the IoU of its own masks on images unlike those of its training. Which use of the estimate is justified?
#
# - **A.** Report the mean estimate where no annotator has drawn masks.
# - **B.** None, because the estimates are wrong.
# - **C.** Sort the masks by the estimate, so that a person looks at the lowest first.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: on such images the estimate can be far too high, and nothing in the number shows it.
# - **B.** No: the values may be wrong although the order is useful. The last column of the table compares the order.
# - **C.** Yes: this needs only the order. Compare it with the IoU on a few images of your own before you rely on it.
# </details>

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: calculate (easy, 5 minutes)
# An image has 300 rows and 640 columns. How many of the 64 x 64 cells of its embedding contain only padding?

# %% tags=["exercise"]
padding_cells = None

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# rows_of_image = 300 * 256 / 640  # px of the input
# padding_cells = int(64 - rows_of_image / 4) * 64
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
from medsaga_lib.display.answers import as_number, as_returned

used = lite.frame((300, 640)).inner[0] // 4
cells = as_number("padding_cells", padding_cells)
assert cells != 64 - used, (
    f"{cells:.0f} is the number of rows; each row has 64 cells."
)
assert cells != 64 * used, (
    f"{cells:.0f} cells contain the image; the others contain padding."
)
assert cells == 64 * (64 - used), (
    f"{cells} is wrong: the longer side becomes 256 px, a cell has 4 x 4 px, "
    "and there are 64 x 64 cells."
)

# %% [markdown]
# ### Exercise 2: experiment (medium, 15 minutes)
# Repeat the experiment with boxes that move outwards for the image number `few`: an image of nuclei, if you have the real images. Put `tolerance(few, ...)` into `scores`, and the mean side of its exact boxes, in px of the input, into `side`. How much larger may a box be here before the IoU falls clearly? Why is it not the same number of px as above?

# %% tags=["exercise"]
few = groups.get("nuclei", groups.get("phantoms"))[-1]
scores, side = np.zeros(len(steps)), None

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# scores = tolerance(few, (-1, -1, 1, 1))
# one = examples[few]
# exact = np.stack([box_of(one.truth == value) for value in one.values])
# inside = lite.frame(one.truth.shape).boxes(torch.tensor(exact))
# side = float((inside[:, 2:] - inside[:, :2]).mean())
# print(dict(zip(steps, scores.round(2).tolist(), strict=True)))
# print(f"side {side:.0f} px")
# # With the real images: up to 8 px, the IoU of the nuclei falls slowly; with
# # 16 px it falls to 0.3. A nucleus has a side of about 12 px in the input, so
# # such a box is almost 4 times as wide. The tolerance depends on the size of
# # the object and on what is beside it.
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
given = as_number("side", side)
assert np.shape(scores) == (len(steps),), (
    f"`scores` needs {len(steps)} numbers, one for each step."
)
assert np.any(scores), (
    "`scores` is still 0: call `tolerance` with the image number `few`."
)
measured = tolerance(few, (-1, -1, 1, 1))
assert np.allclose(scores, measured, atol=1e-6), (
    "These are not the mean IoUs of boxes whose sides all move outwards: "
    "compare the direction with `kinds`."
)
truth = examples[few].truth
exact = [box_of(truth == value) for value in examples[few].values]
sides = [corners[2:] - corners[:2] for corners in exact]
expected = np.mean(sides) * 256 / max(truth.shape)
assert abs(given - expected) < 1.5, (
    f"{side} is not the mean side; is it in px of the input?"
)


# %% [markdown]
# ### Exercise 3: find the fault (medium, 10 minutes)
# A colleague enlarges the logits to the image without the library. On square images the masks are right, and on others they are not. There is no error message. The cell below shows a wrong mask. Find the fault, and repair `to_image`. The logits have 256 x 256 px, as the input has.

# %% tags=["exercise"]
def to_image(logits, frame):
    """The mask (H, W) bool of logits (256, 256)."""
    large = interpolate(logits[None, None], frame.size, mode="bilinear")
    return (large[0, 0] > 0).numpy()


for sides in ((256, 256), (300, 640)):
    frame, logits = lite.frame(sides), library.logits[0]
    right = (frame.enlarge(logits[None, None])[0, 0] > 0).numpy()
    agree = iou(to_image(logits, frame), right)
    print(sides, f"IoU with the library's mask {agree:.2f}")

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def to_image(logits, frame):
#     rows, columns = frame.inner  # the rest of the input is padding
#     logits = logits[None, None, :rows, :columns]
#     large = interpolate(logits, frame.size, mode="bilinear")
#     return (large[0, 0] > 0).numpy()
# ```
#
# </details>

# %% tags=["exercise-check", "raises-exception"]
for sides in ((300, 640), (640, 300), (256, 256)):
    frame, logits = lite.frame(sides), library.logits[0]
    right = (frame.enlarge(logits[None, None])[0, 0] > 0).numpy()
    mask = to_image(logits, frame)
    mask = as_returned("to_image(logits, frame)", mask, right)
    agree, inner = iou(mask, right), frame.inner
    assert agree > 0.999, (
        f"For an image of {sides[0]} x {sides[1]} pixels, the IoU with the "
        f"right mask is {agree:.2f}: the image fills only {inner[0]} x "
        f"{inner[1]} px of the logits."
    )

# %% [markdown]
# ## Summary
#
# - SAM has three parts. The image encoder runs once for an image, prompt encoder and mask decoder once for a prompt, and the decoder is much faster.
# - A token is the encoding of a position plus a vector for its role. A mask prompt is added to the embedding.
# - The decoder puts 5 learned tokens, 1 for the IoU and 4 for masks, before those of the prompt. Tokens and image attend to each other in both directions. A mask is the product of 32 numbers from a mask token with 32 channels of the upscaled embedding.
# - A network answers any prompt without an error. LiteMedSAM works with boxes. It fails with points, and a mask prompt mostly makes its masks worse, because its training had neither.
# - A box may be a few px too large, but not too small. How many px depends on the size of the object.
# - Report the ellipse in the box beside a score from boxes. Do not replace the annotator by the network's estimate of its own IoU before you have compared the two on your images.
#
# ## Sources
#
# SAM's parts and training: [Kirillov et al. 2023](../book/references.md). The random Fourier features: [Tancik et al. 2020](../book/references.md). LiteMedSAM: the branch [LiteMedSAM](https://github.com/bowang-lab/MedSAM/tree/LiteMedSAM) of MedSAM's code, whose `train_one_gpu.py` has the boxes, the masks and the loss of its training; the paper of the challenge is [Ma et al. 2024](../book/references.md). The data sets are named below their images.
