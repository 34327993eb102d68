"""From a recipe to the network and the optimizer that it describes."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import nn

from medsaga_lib.adapt import adapter, biases, lora, svd
from medsaga_lib.backbones.sam import Attention, build_sam, input_size, recompute_blocks
from medsaga_lib.backbones.text import WIDTH, ClipText, Spelling, TextEncoder
from medsaga_lib.backbones.weights import file_of, load_state
from medsaga_lib.errors import UserError
from medsaga_lib.heads import (
    ClassTokens,
    FromEmbeddings,
    LabelPrompts,
    Promptable,
    class_tokens,
)
from medsaga_lib.memory import state_bytes
from medsaga_lib.networks import FromScratch, network_size
from medsaga_lib.optim.apollo import ApolloAdamW
from medsaga_lib.optim.fira import FiraAdamW
from medsaga_lib.optim.fused_backward import FusedGaLoreAdamW
from medsaga_lib.optim.galore import GaLoreAdamW, GaLoreConfig, param_groups
from medsaga_lib.optim.galore_published import PublishedGaLoreAdamW
from medsaga_lib.recipes.recipe import Frozen, Full, GaLore, Recipe, Scratch

KEPT = {"fp32": torch.float32, "bf16": torch.bfloat16}  # by checkpointing, for each precision
OPTIMIZERS = {"galore": GaLoreAdamW, "fira": FiraAdamW, "apollo": ApolloAdamW}
TEXT_ENCODERS: dict[str, Callable[[], TextEncoder]] = {"spelling": Spelling, "clip": ClipText}
Model = ClassTokens | LabelPrompts | Promptable | FromScratch
ATTENTION = "*blocks.*.attn.*"  # names of the attentions' tensors in the image encoder
WIDTH_PER_RANK = 12  # our choice: r = 64 on ViT-B, 16 on the pocket SAM


def build_model(
    recipe: Recipe,
    backbone: str,
    size: int,
    classes: int,
    weights: str = "pretrained",
    seed: int = 0,
    attention: Attention = "fused",
    names: Sequence[str] | None = None,
) -> Model:
    """The recipe's network: what trains has `requires_grad`, the rest has not.

    Args:
        recipe: says what the image encoder becomes and how the class tokens start.
        backbone: a name of `backbones.sam.SHAPES`; a recipe from scratch has none.
        size: pixels along one side of the input.
        classes: foreground classes.
        weights: of the backbone: pretrained, random, or a file of its layout.
        seed: of everything drawn here; torch's global generator is left as it was.
        attention: as in `build_sam`; the weights do not depend on it.
        names: of the classes, for recipes that ask by name; default: "label 1", "label 2", ...
    """
    how = recipe.image_encoder
    if isinstance(how, Scratch):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return FromScratch(how.network, size, classes)
    file = file_of(backbone, weights)
    state = None if file is None else load_state(backbone, size, file=file)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: ClassTokens | LabelPrompts | Promptable
        if recipe.head == "classes":
            model = class_tokens(backbone, state, size, classes, recipe.start, attention)
        else:
            sam = build_sam(backbone, size, attention=attention)
            if state is not None:
                sam.load_state_dict(state)
            if recipe.head == "names":
                called = names or [f"label {number}" for number in range(1, classes + 1)]
                model = LabelPrompts(sam, _vectors(recipe, called))
            else:
                model = Promptable(sam, recipe.head, classes, recipe.answer)
        if isinstance(how, lora.LoRA):
            lora.attach(model.sam.image_encoder, how)
        elif isinstance(how, svd.SVDAffine):
            svd.attach(model.sam.image_encoder, how)
        elif isinstance(how, biases.Biases):
            biases.attach(model.sam.image_encoder, how)
        elif isinstance(how, adapter.Bottleneck):
            adapter.attach(model.sam.image_encoder, how)
        elif isinstance(how, GaLore) and how.others == "frozen":
            for name, parameter in model.sam.image_encoder.named_parameters():
                parameter.requires_grad_(fnmatchcase(name, ATTENTION))
        elif isinstance(how, Frozen):
            model.sam.image_encoder.requires_grad_(False)
        if recipe.decoder == "lora" and isinstance(how, lora.LoRA):
            lora.attach_decoder(model.sam.mask_decoder, how)
    if recipe.decoder in ("norms", "frozen"):
        model.sam.mask_decoder.requires_grad_(False)
    if recipe.decoder in ("norms", "frozen") or recipe.head == "names":
        model.sam.prompt_encoder.requires_grad_(False)  # names take the place of its prompts
    if recipe.decoder == "norms":
        for module in model.sam.mask_decoder.modules():
            if isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)
    return model


def _vectors(recipe: Recipe, names: Sequence[str]) -> torch.Tensor:
    """Names as vectors (K, W), on the device that is the default: none, where shapes are enough."""
    if torch.get_default_device().type == "meta":
        return torch.empty(len(names), WIDTH)
    return TEXT_ENCODERS[recipe.text]()(names)


def trained_part(recipe: Recipe, model: Model) -> Model | FromEmbeddings:
    """What training runs: the model, or what follows the image encoder if embeddings are kept."""
    if isinstance(model, ClassTokens | LabelPrompts) and kept_copies(recipe):
        return FromEmbeddings(model)
    return model


def kept_copies(recipe: Recipe) -> int:
    """Copies of each picture whose embeddings are computed before training; 0 if none are."""
    how = recipe.image_encoder
    return how.copies if isinstance(how, Frozen) else 0


def model_size(recipe: Recipe, backbone: str, size: int | None) -> int:
    """Pixels along one side of the input: those asked for, or the default; UserError as it says."""
    if isinstance(recipe.image_encoder, Scratch):
        return network_size(recipe.image_encoder.network, size)
    return input_size(backbone, size)


def checkpoint_blocks(model: Model, precision: str) -> None:
    """Each block of the image encoder is computed again in the backward pass."""
    if isinstance(model, FromScratch):
        raise UserError("There are no blocks to recompute in this network; leave --checkpointing.")
    recompute_blocks(model.sam.image_encoder, KEPT[precision])


def require_per_layer(recipe: Recipe) -> None:
    """UserError where the recipe's optimizer cannot update inside the backward pass."""
    how = recipe.image_encoder
    if recipe.optimizer == "sgd":
        raise UserError("Per-layer updates are there for adamw only, not for sgd.")
    if isinstance(how, GaLore) and how.optimizer != "galore":
        raise UserError(f"There are no per-layer updates for {how.optimizer}; use galore.")


def build_optimizer(
    recipe: Recipe, model: Model, seed: int = 0, per_layer: bool = False
) -> torch.optim.Optimizer:
    """The recipe's optimizer over everything in the model that trains.

    per_layer: updates inside the backward pass, for any recipe; the results are the same.
    """
    encoder, rest = _encoder_and_rest(model)
    dense = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    how = recipe.image_encoder
    if per_layer:
        require_per_layer(recipe)
    if recipe.optimizer == "sgd" and isinstance(how, GaLore):
        raise UserError("GaLore is there for adamw only, not for sgd.")
    if isinstance(how, GaLore):
        image_encoder = model.get_submodule("sam.image_encoder")
        config = galore_config(how, image_encoder, seed, recipe.steps)
        groups = param_groups(image_encoder, config, lr=how.lr, weight_decay=recipe.weight_decay)
        if rest:
            groups.append({"params": list(rest.values()), "names": list(rest), **dense})
        if how.optimizer == "published":
            return PublishedGaLoreAdamW(_matrices_projected(groups), betas=recipe.betas)
        kind = FusedGaLoreAdamW if per_layer else OPTIMIZERS[how.optimizer]
        return kind(groups, betas=recipe.betas)
    everything = [{"params": [*encoder, *rest.values()], **dense}]
    if isinstance(how, Full) and how.lr is not None:
        of_encoder = {"lr": how.lr, "weight_decay": recipe.weight_decay}
        everything = [{"params": encoder, **of_encoder}, {"params": [*rest.values()], **dense}]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(everything, momentum=recipe.betas[0])
    # Without a rank FusedGaLoreAdamW is AdamW, bit for bit
    return (FusedGaLoreAdamW if per_layer else torch.optim.AdamW)(everything, betas=recipe.betas)


def _matrices_projected(groups: list[dict]) -> list[dict]:
    """The groups with what is no matrix (kernels, positions) dense: galore-torch 1.0 takes none."""
    split = []
    for group in groups:
        plain = {key: group[key] for key in ("lr", "weight_decay")}
        rank = {key: group[key] for key in ("rank", "refresh", "scale") if key in group}
        matrices = [p for p in group["params"] if p.ndim == 2]
        others = [p for p in group["params"] if p.ndim != 2]
        split += [{"params": matrices, **plain, **rank}, {"params": others, **plain}]
    return split


def galore_config(
    how: GaLore, image_encoder: nn.Module, seed: int = 0, steps: int | None = None
) -> GaLoreConfig:
    """GaLore's settings with the rank that this encoder's width gives, TinyViT's largest.

    steps: of the run; where it is short, the basis is renewed more often (`GaLore.bases`).
    """
    neck: nn.Conv2d = image_encoder.get_submodule("neck.0")  # type: ignore[assignment]
    width = neck.in_channels
    longest = max(1, steps // how.bases) if steps and how.bases else None
    return GaLoreConfig(
        rank=width // WIDTH_PER_RANK if how.rank is None else how.rank,
        refresh=how.refresh if longest is None else min(how.refresh, longest),
        scale=how.scale,
        moments=how.moments,
        subspace=how.subspace,
        stagger=how.stagger,
        seed=seed,
        projected=("*",) if how.others == "projected" else (ATTENTION,),
    )


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """What trains, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def learned(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes, by name: what trains, and the statistics of batch normalisation."""
    found: dict[str, torch.Tensor] = dict(trainable(model))
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            found |= {f"{path}.{name}": buffer for name, buffer in module.named_buffers()}
    return found


def _numbers(model: nn.Module) -> int:
    """Parameters of a network; of a factored layer those of the matrix that it stands for."""
    factored = [layer for layer in model.modules() if isinstance(layer, svd.SVDLayer)]
    matrices = sum(len(layer.left) * layer.right.shape[1] for layer in factored)
    return matrices + sum(p.numel() for p in model.parameters())


def _encoder_and_rest(model: nn.Module) -> tuple[list[nn.Parameter], dict[str, nn.Parameter]]:
    """What trains in the image encoder, and what trains outside it by name."""
    parts = trainable(model)
    rest = {name: p for name, p in parts.items() if not name.startswith("sam.image_encoder.")}
    return [p for name, p in parts.items() if name not in rest], rest


class Count(NamedTuple):
    """A recipe in numbers, for one backbone, size and number of classes."""

    name: str
    trainable: int  # parameters
    total: int
    state_bytes: int  # of the optimizer, in fp32, bases included
    source: str


def count(recipe: Recipe, backbone: str, size: int, classes: int) -> Count:
    """Counts without holding or computing a single weight."""
    with torch.device("meta"):
        model = build_model(recipe, backbone, size, classes, weights="random")
    parts = trainable(model)
    return Count(
        recipe.name,
        sum(p.numel() for p in parts.values()),
        _numbers(model),
        sum(state_bytes(build_optimizer(recipe, model).param_groups)),
        recipe.source,
    )
