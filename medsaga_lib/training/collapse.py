"""Notice a training run that collapsed: no use of the images, or a loss that did not fall.

The reference for the loss is the best constant prediction: the same probability of each class in
every pixel of every image. A network that learned anything from the images has a lower loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from medsaga_lib.data.dataset import DataSet
from medsaga_lib.data.shots import choose_shots
from medsaga_lib.models.feeding import get_feed
from medsaga_lib.models.heads import Promptable, head_of
from medsaga_lib.models.scratch import FromScratch
from medsaga_lib.optim.schedule import REFERENCE_WARMUP
from medsaga_lib.recipes.build import Model, build_model, trainable
from medsaga_lib.recipes.recipe import Recipe
from medsaga_lib.training.losses import OBJECTIVES, reduce_labels
from medsaga_lib.training.run_samples import prompts_of
from medsaga_lib.training.setup import Run

# All values are our choice
LEAST_STEPS = 50  # a tenth of a shorter run is less than 5 batches, too few for a mean loss
IMAGES = 8  # training images whose prediction is looked at
# Runs that used one class everywhere reached 0.95 or more of the best constant prediction's loss.
# Runs of 50 to 60 steps that learned something, on 5 data sets at 64 pixels, reached 0.09 to 0.89.
SHARE_OF_LOSS = 0.95
# Predicted pixels outside the most frequent class, as a share of the true ones; fewer are strays
SHARE_OF_PIXELS = 0.01
# Pixels whose predicted class differs from image to image, as a share of those whose true class
# does: 0.00 in runs with a rate that was too high, 0.41 to 0.88 in runs that learned something
SHARE_OF_DIFFERENCES = 0.05
# The weights' distance from their start as a share of its norm: the rate was too low below it
MOVED = 0.05
FACTOR = 3  # between the learning rate of a collapsed run and the advised one
SIDE = 64  # pixels along one side of the labels of the best constant prediction, at least


@dataclass(frozen=True)
class Collapse:
    """The reason why a run counts as collapsed, and what to change: two parts of a sentence."""

    why: str
    advice: str

    def __str__(self) -> str:
        return f"The training collapsed: {self.why}; {self.advice}."


@dataclass(frozen=True)
class Outcome:
    """The results of a finished run that show whether it collapsed."""

    losses: Sequence[float]  # of all steps
    constant: float  # training loss of the best constant prediction
    predicted: Tensor  # (N, h, w), labels of training images, predicted by the trained network
    truth: Tensor  # (N, h, w), their true labels

    @property
    def last(self) -> list[float]:
        """The losses of the last tenth of the steps."""
        return list(self.losses[-max(1, len(self.losses) // 10) :])

    @property
    def learned(self) -> bool:
        """Whether the loss is clearly lower than that of the best constant prediction."""
        return fmean(self.last) < SHARE_OF_LOSS * self.constant


def find_collapse(run: Run, dataset: DataSet) -> Collapse | None:
    """Judge a run whose steps are all done; return None if it did not collapse or is too short."""
    if len(run.log) < LEAST_STEPS:
        return None
    recipe, chosen, labels = run.recipe, run.settings, dataset.require_labels()
    names = [labels[value] for value in sorted(labels)]
    network: nn.Module = run.model
    samples: Dataset
    if run.trained is not None and run.batches is not None:
        network, samples = run.trained, run.batches.samples
    else:  # an earlier process did all steps
        place = get_feed(chosen.feed).sample
        samples = choose_shots(dataset, chosen.shots, chosen.size, chosen.seed, place)
    with run.autocast():  # what a run in bf16 keeps of the images is bf16
        predicted, truth = predict(network, samples, min(IMAGES, chosen.shots))
    one_pass = recipe.batch // (chosen.accumulate * chosen.processes)
    constant = best_constant_loss(recipe, truth, 1 + len(names), one_pass)
    outcome = Outcome([row["loss"] for row in run.log], constant, predicted, truth)
    why = reason(outcome, ["background", *names])
    if why is None:
        return None
    how = chosen.backbone, chosen.size, len(names), chosen.weights, chosen.seed
    start = build_model(recipe, *how, names=names)
    return Collapse(why, advice(recipe, run.model, distance(start, run.model), outcome.learned))


def reason(outcome: Outcome, names: Sequence[str]) -> str | None:
    """Say why a run collapsed, or return None if it did not.

    names: of the classes; class 0 is the background.
    """
    predicted, truth = outcome.predicted, outcome.truth
    counts = torch.bincount(predicted.flatten(), minlength=len(names))
    common, pixels = int(counts.argmax()), predicted.numel()
    others = int((truth != common).sum())
    if pixels - int(counts[common]) < SHARE_OF_PIXELS * others:
        return (
            f"the network predicts {names[common]} for {counts[common] / pixels:.1%} of the pixels "
            f"of {len(truth)} training images, although {100 * others / pixels:.2g}% of them show "
            "something else"
        )
    differing, wanted = (int((labels != labels[:1]).sum()) for labels in (predicted, truth))
    if differing < SHARE_OF_DIFFERENCES * wanted:
        return f"the network predicts the same labels for {len(truth)} different training images"
    if not outcome.learned:
        return (
            f"the mean loss of the last {len(outcome.last)} steps is {fmean(outcome.last):.3f}, "
            f"although the same prediction in every pixel already reaches {outcome.constant:.3f}"
        )
    return None


def advice(recipe: Recipe, model: Model, moved: float, learned: bool) -> str:
    """Say which values of the recipe to change.

    Args:
        recipe: that of the run.
        model: its trained network.
        moved: distance of the trained weights from their start, as a share of the start's norm.
        learned: whether the loss is clearly lower than that of the best constant prediction.
    """
    factor = FACTOR if moved < MOVED else 1 / FACTOR
    values = {key: rate * factor for key, rate in rates(recipe, model).items()}
    options = " ".join(f"--set {key}={value:.2g}" for key, value in values.items())
    if moved < MOVED:
        return (
            f"the weights moved by only {100 * moved:.2g}% of their norm, so train again with a "
            f"higher learning rate: {options}"
        )
    lower = "train again with a lower learning rate"
    if recipe.warmup == 0:
        lower, options = f"{lower} and a warm-up", f"{options} --set warmup={REFERENCE_WARMUP}"
    if learned:
        return f"{lower}, {options}, or for more steps, --steps {2 * recipe.steps}"
    return f"{lower}: {options}"


def rates(recipe: Recipe, model: Model) -> dict[str, float]:
    """Return the learning rates that train something in the model, by their keys in the recipe."""
    encoder = model if isinstance(model, FromScratch) else model.sam.image_encoder
    encoders = {id(p) for p in encoder.parameters()}
    inside = [id(p) in encoders for p in trainable(model).values()]
    own = getattr(recipe.image_encoder, "lr", None)
    found = {}
    if own is None or not all(inside):
        found["lr"] = recipe.lr
    if own is not None and any(inside):
        found["image_encoder.lr"] = own
    return found


@torch.no_grad()
def distance(start: Model, trained: Model) -> float:
    """Return the distance of the trained weights from their start, as a share of its norm."""
    before, after = trainable(start), trainable(trained)
    change = sum(float((after[key].cpu() - before[key]).square().sum()) for key in before)
    return (change / sum(float(tensor.square().sum()) for tensor in before.values())) ** 0.5


@torch.no_grad()
def predict(network: nn.Module, samples: Dataset, count: int) -> tuple[Tensor, Tensor]:
    """Predict the first `count` samples, one by one.

    Args:
        network: takes the image of a sample, and prompts if its head is `Promptable`.
        samples: as the run trains on them, without augmentation.

    Returns:
        predicted and true labels, both (count, h, w), at the size of the logits.
    """
    network.eval()
    head, device = head_of(network), next(network.parameters()).device
    predicted, truth = [], []
    for number in range(count):
        sample = samples[number]
        image, label = sample["image"][None], sample["label"][None]
        prompts = prompts_of(label, head, number) if isinstance(head, Promptable) else ()
        logits = network(image.to(device), *(part.to(device) for part in prompts)).cpu()
        predicted.append(logits.argmax(1))
        truth.append(reduce_labels(label, logits))
    return torch.cat(predicted), torch.cat(truth)


def best_constant_loss(recipe: Recipe, labels: Tensor, classes: int, one_pass: int) -> float:
    """Return the lowest training loss of a prediction that is the same in every pixel.

    Args:
        recipe: it has the objective and its weights.
        labels: (N, h, w), int64 in 0..classes-1.
        classes: number of classes, background included.
        one_pass: number of images whose loss is computed together; the Dice loss depends on it.
    """
    stride = max(1, labels.shape[-1] // SIDE)
    groups = labels[:, ::stride, ::stride].split(one_pass)

    def loss_of(constant: Tensor) -> Tensor:  # (classes,) logits
        parts = []
        for group in groups:
            logits = constant[None, :, None, None].expand(len(group), -1, *group.shape[1:])
            weights = recipe.ce_weight, recipe.dice_weight
            parts.append(OBJECTIVES[recipe.objective](logits, group, *weights).total)
        return torch.stack(parts).mean()

    frequencies = (torch.bincount(labels.flatten(), minlength=classes) + 1).float()
    starts = torch.zeros(classes), frequencies.log() - frequencies.log()[0]
    return min(_minimum(loss_of, start) for start in starts)


def _minimum(loss_of: Callable[[Tensor], Tensor], start: Tensor) -> float:
    """Return the lowest value of a function of a few numbers that descent from `start` finds."""
    point = start.clone().requires_grad_()
    descent = torch.optim.LBFGS([point], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        descent.zero_grad()
        loss = loss_of(point)
        loss.backward()
        return loss

    descent.step(closure)
    return loss_of(point).item()
