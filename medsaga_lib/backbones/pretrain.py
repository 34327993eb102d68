"""Pretrains the pocket SAM as a promptable segmenter on procedural pictures (SAM, 2304.02643).

SAM's objective (its appendix A): a box or a point, then a corrective click; three masks for a lone
point, of which the best is taught; 20 x focal + dice, and the IoU head by squared error. A picture
is encoded once and answers several prompts. Every step is a function of (seed, step) alone, so a
run that was interrupted goes on as if it had not been.

    python -m medsaga_lib.backbones.pretrain --out RUN --steps 20000
"""

import argparse
import csv
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.ndimage import distance_transform_edt
from segment_anything.modeling import PromptEncoder, Sam
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from medsaga_lib.backbones.sam import SHAPES, build_sam, resize_positions
from medsaga_lib.data.procedural import HELD_OUT, TRAINED, Scene, procedural_scene
from medsaga_lib.errors import UserError
from medsaga_lib.files import replacing
from medsaga_lib.heads import decode_masks

# Labels of prompt tokens, as in segment_anything's PromptEncoder
PAD, NEGATIVE, POSITIVE, CORNER, OPPOSITE_CORNER = -1, 0, 1, 2, 3
TRAIN_STREAM, PROMPT_STREAM, CLICK_STREAM, TEST_STREAM = range(4)  # keep random numbers apart
READABLE = 0o644  # safetensors writes files that only their owner can read
REDUCTION = 4  # input pixels along one side of a logit
FOCAL_WEIGHT, DICE_WEIGHT, IOU_WEIGHT = 20.0, 1.0, 1.0  # SAM, appendix A
FOCAL_GAMMA = 2.0  # Lin et al., arXiv 1708.02002
BOX_NOISE, BOX_NOISE_LIMIT = 0.1, 20 / 1024  # SAM, appendix A: of the box's side, of the picture's


@dataclass(frozen=True)
class Settings:
    """What fixes a run. Values without a source are our choice."""

    steps: int = 20_000
    seed: int = 0
    size: int = 256  # pixels along one side
    pictures: int = 8  # in a step
    objects: int = 6  # prompted in each picture
    corrections: int = 2  # clicks after the first prompt
    learning_rate: float = 1e-3
    warmup: int = 100  # steps
    weight_decay: float = 0.05
    clip: float = 1.0  # largest norm of the gradient
    average: float = 0.999  # decay of the moving average of the weights, which is what is shipped


# --- Prompts ---


def box_of(mask: np.ndarray) -> np.ndarray:
    """The box (4,) x0, y0, x1, y1 around the pixel centres of a mask (H, W) that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], float)


def jittered(box: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """The box (4,) with each side moved as in SAM's training."""
    sides = np.tile(box[2:] - box[:2] + 1, 2)
    limit = BOX_NOISE_LIMIT * size
    moved = box + np.clip(rng.normal(0, BOX_NOISE * sides), -limit, limit)
    return np.clip(moved, 0, size - 1)


def middle_of(mask: np.ndarray) -> np.ndarray:
    """The pixel (x, y) of a mask that lies farthest from its border."""
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), mask.shape)
    return np.array([column, row], float)


def embed_prompts(encoder: PromptEncoder, coordinates: Tensor, labels: Tensor) -> Tensor:
    """Prompt tokens (N, K, C) of points and box corners in any mixture.

    The same as `PromptEncoder`, which cannot mix prompts of several kinds in one batch.

    Args:
        coordinates: (N, K, 2) x, y in input pixels.
        labels: (N, K) PAD, NEGATIVE, POSITIVE, CORNER or OPPOSITE_CORNER.
    """
    centres = coordinates + 0.5
    position = encoder.pe_layer.forward_with_coords(centres, encoder.input_image_size)
    kinds = torch.cat([e.weight for e in (encoder.not_a_point_embed, *encoder.point_embeddings)])
    return torch.where(labels[..., None] == PAD, 0.0, position) + kinds[labels - PAD]


class Pictures(Dataset):
    """Batches for training: item `step` is a function of the settings' seed and of `step`."""

    def __init__(self, settings: Settings, families: Sequence[str] = TRAINED):
        self.settings, self.families = settings, families

    def __len__(self) -> int:
        return self.settings.steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        """A batch of B pictures with N = B x objects prompts.

        `images` (B, 3, S, S) uint8; `picture` (N,) int64, whose prompt it is; `coordinates`
        (N, 2, 2) and `labels` (N, 2): a box or a point with padding; `targets` (N, S/4, S/4)
        float32, the covered part of each cell.
        """
        settings = self.settings
        rng = np.random.default_rng((PROMPT_STREAM, settings.seed, step))
        images, coordinates, labels, targets = [], [], [], []
        for position in range(settings.pictures):
            seed = (TRAIN_STREAM, settings.seed, step, position)
            scene = procedural_scene(seed, settings.size, self.families)
            images.append(scene.image.transpose(2, 0, 1))
            chosen = rng.permutation(max(len(scene), settings.objects))[: settings.objects]
            for mask in scene.masks(chosen % len(scene)):
                prompt, kinds = first_prompt(mask, rng)
                coordinates.append(prompt)
                labels.append(kinds)
                targets.append(coverage(mask))
        return {
            "images": torch.from_numpy(np.stack(images)),
            "picture": torch.arange(settings.pictures).repeat_interleave(settings.objects),
            "coordinates": torch.from_numpy(np.stack(coordinates)).float(),
            "labels": torch.tensor(labels),
            "targets": torch.from_numpy(np.stack(targets)),
        }


def first_prompt(mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """A jittered box or a random point of a mask: coordinates (2, 2) and labels."""
    if rng.random() < 0.5:
        return jittered(box_of(mask), len(mask), rng).reshape(2, 2), [CORNER, OPPOSITE_CORNER]
    pixels = np.flatnonzero(mask)
    row, column = divmod(pixels[rng.integers(len(pixels))], mask.shape[1])
    return np.array([[column, row], [0, 0]], float), [POSITIVE, PAD]


def coverage(mask: np.ndarray) -> np.ndarray:
    """(S/4, S/4) float32: which part of each cell of 4 x 4 pixels the mask (S, S) covers."""
    cells = len(mask) // REDUCTION
    return mask.reshape(cells, REDUCTION, cells, REDUCTION).mean(axis=(1, 3), dtype=np.float32)


def corrective_click(logits: Tensor, targets: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A random cell where the mask is wrong: coordinates (N, 1, 2) and labels (N, 1).

    `noise` (N, h, w) in [0, 1) decides; a mask without an error gets a click in the object.
    """
    truth = targets > 0.5
    wrong = (logits > 0) != truth
    score = 2.0 * wrong + targets * ~wrong.flatten(1).any(dim=1)[:, None, None] + noise
    cell = score.flatten(1).argmax(dim=1)
    row, column = cell // targets.shape[2], cell % targets.shape[2]
    inside = targets.flatten(1).gather(1, cell[:, None]) > 0.5
    centre = REDUCTION / 2 - 0.5  # of a cell, in pixels
    coordinates = torch.stack([column, row], dim=1).float() * REDUCTION + centre
    return coordinates[:, None], torch.where(inside, POSITIVE, NEGATIVE)


# --- Loss ---


def mask_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """20 x focal + dice loss (...) of masks (..., h, w); targets may be any part of 1.

    For fractions the focal factor is |target - probability| (Li et al., arXiv 2006.04388) and the
    Dice has squared denominators, so that both are least where the probability is the target.
    """
    probability = logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    focal = ((targets - probability).abs() ** FOCAL_GAMMA * entropy).mean(dim=(-2, -1))
    overlap = (probability * targets).sum(dim=(-2, -1))
    squares = (probability**2 + targets**2).sum(dim=(-2, -1))
    return FOCAL_WEIGHT * focal + DICE_WEIGHT * (1 - (2 * overlap + 1) / (squares + 1))


def mask_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU (...) of masks (..., h, w) with the cells that their targets cover by more than half."""
    predicted, truth = logits > 0, targets > 0.5
    union = (predicted | truth).sum(dim=(-2, -1))
    return (predicted & truth).sum(dim=(-2, -1)) / union.clamp(min=1)


def promptable_loss(sam: Sam, batch: dict[str, Tensor], noise: Tensor) -> dict[str, Tensor]:
    """The loss of one step and, for the log, its parts (scalars).

    Args:
        batch: of `Pictures`.
        noise: (corrections, 2, N, h, w) in [0, 1), decides the clicks and where masks are shown.

    Returns:
        `loss` with gradient, the sum over the rounds; without: `box` and `point`, the IoU after
        the first prompt (of three masks the best), `click`, the IoU after the last click.
    """
    encoder, picture, targets = sam.prompt_encoder, batch["picture"], batch["targets"]
    coordinates, labels = batch["coordinates"], batch["labels"]
    pixels = (batch["images"].float() - sam.pixel_mean) / sam.pixel_std
    embeddings = sam.image_encoder(pixels)[picture]  # (N, C, h, w)
    position, no_mask = encoder.get_dense_pe(), encoder.no_mask_embed.weight[:, :, None, None]

    # First prompt: a box asks for the single mask, a point for the best of three
    is_point = labels[:, 0] == POSITIVE
    sparse = embed_prompts(encoder, coordinates, labels)
    dense = no_mask.expand_as(embeddings)
    answer = decode_masks(sam.mask_decoder, embeddings, position, sparse, dense)
    loss, iou, shown = _best_mask(*answer, targets, is_point)
    parts = {"box": iou[~is_point].nanmean(), "point": iou[is_point].nanmean()}

    # Corrective clicks ask for the single mask; half of the prompts come with the mask so far
    for of_click, of_mask in noise:
        click, label = corrective_click(shown, targets, of_click)
        coordinates = torch.cat([click, coordinates], dim=1)
        labels = torch.cat([label, labels], dim=1)
        sparse = embed_prompts(encoder, coordinates, labels)
        with_mask = of_mask[:, None, :1, :1] < 0.5
        dense = torch.where(with_mask, encoder.mask_downscaling(shown[:, None]), no_mask)
        answer = decode_masks(sam.mask_decoder, embeddings, position, sparse, dense)
        more, iou, shown = _best_mask(*answer, targets, torch.zeros_like(is_point))
        loss = loss + more
    return {"loss": loss, **parts, "click": iou.mean()}


def _best_mask(
    logits: Tensor, scores: Tensor, targets: Tensor, is_ambiguous: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss (scalar), the IoU (N,) and the logits (N, h, w), without gradient, of one mask each.

    The mask is token 0's or, for ambiguous prompts (N,), the one of the others with the least loss.
    """
    losses = mask_losses(logits, targets[:, None].expand_as(logits))  # (N, T)
    is_single = torch.arange(losses.shape[1], device=losses.device)[None] == 0
    losses = losses.masked_fill(is_single == is_ambiguous[:, None], math.inf)
    least, best = losses.min(dim=1)
    prompts = torch.arange(len(best), device=best.device)
    mask = logits.detach()[prompts, best]
    iou = mask_iou(mask, targets)
    score_loss = functional.mse_loss(scores[prompts, best].float(), iou)
    return least.mean() + IOU_WEIGHT * score_loss, iou, mask


# --- Training ---


class Run:
    """A model, its moving average and its optimizer, at a step."""

    def __init__(self, settings: Settings, device: str = "cpu"):
        self.settings, self.device, self.step = settings, device, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.sam = build_sam("pocket", settings.size).to(device)
        self.average = {k: v.detach().clone() for k, v in self.sam.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            _decay_groups(self.sam, settings.weight_decay), lr=settings.learning_rate
        )

    def rate(self) -> float:
        """The learning rate of this step: linear warm-up, then half a cosine to 0."""
        settings = self.settings
        if self.step < settings.warmup:
            return settings.learning_rate * (self.step + 1) / settings.warmup
        done = (self.step - settings.warmup) / max(1, settings.steps - settings.warmup)
        return settings.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def train_step(self, batch: dict[str, Tensor], bf16: bool = False) -> dict[str, float]:
        """One step on a batch of `Pictures`; returns the parts of its loss."""
        batch = {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
        random = np.random.default_rng((CLICK_STREAM, self.settings.seed, self.step))
        shape = self.settings.corrections, 2, *batch["targets"].shape
        noise = random.random(shape, np.float32)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        precision = torch.autocast(self.device, torch.bfloat16) if bf16 else nullcontext()
        with precision:
            parts = promptable_loss(self.sam, batch, torch.from_numpy(noise).to(self.device))
        self.optimizer.zero_grad()
        parts["loss"].backward()
        nn.utils.clip_grad_norm_(self.sam.parameters(), self.settings.clip)
        self.optimizer.step()
        self.step += 1
        decay = min(self.settings.average, self.step / (self.step + 10))
        with torch.no_grad():
            for key, value in self.sam.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)
        return {key: value.item() for key, value in parts.items()}

    def averaged(self) -> Sam:
        """A copy with the averaged weights, in evaluation mode."""
        sam = build_sam("pocket", self.settings.size)
        sam.load_state_dict(self.average)
        return sam.to(self.device).eval()

    def save(self, path: Path) -> None:
        """Everything that goes on, in one file of tensors."""
        tensors = {f"average.{key}": value for key, value in self.average.items()}
        tensors |= {f"model.{key}": value for key, value in self.sam.state_dict().items()}
        for name, parameter in self.sam.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value
        metadata = {"step": str(self.step), "settings": json.dumps(asdict(self.settings))}
        write_tensors(tensors, path, metadata)

    def start_from(self, path: Path) -> None:
        """Takes the weights of a saved run or of an export, of any input size."""
        tensors = load_file(path)
        weights = _part(tensors, "average.") or tensors
        weights = {key: value.float() for key, value in weights.items()}
        weights = resize_positions(weights, SHAPES["pocket"], self.settings.size)
        self.sam.load_state_dict(weights)
        self.average = {k: v.detach().clone() for k, v in self.sam.state_dict().items()}

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> "Run":
        """A run that goes on where `save` left it."""
        with safe_open(path, "pt", device=device) as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        run = cls(Settings(**json.loads(metadata["settings"])), device)
        run.step = int(metadata["step"])
        run.average = _part(tensors, "average.")
        run.sam.load_state_dict(_part(tensors, "model."))
        for name, parameter in run.sam.named_parameters():
            for key in ("step", "exp_avg", "exp_avg_sq"):
                run.optimizer.state[parameter][key] = tensors[f"optimizer.{key}.{name}"]
        return run


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _decay_groups(sam: Sam, weight_decay: float) -> list[dict]:
    """Weight decay for matrices and convolutions; none for positions, tokens, norms and biases."""
    layers = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    decayed = [module.weight for module in sam.modules() if isinstance(module, layers)]
    identities = {id(weight) for weight in decayed}
    others = [p for p in sam.parameters() if id(p) not in identities]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def write_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """A safetensors file that replaces an older one only when it is complete."""
    with replacing(path) as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata)
        temporary.chmod(READABLE)


# --- Evaluation ---


def unseen_scenes(
    count: int, families: Sequence[str], size: int = 256, seed: int = 0
) -> Iterator[Scene]:
    """Pictures that no training step sees."""
    return (procedural_scene((TEST_STREAM, seed, i), size, families) for i in range(count))


def evaluate(sam: Sam, scenes: Iterable[Scene], clicks: int = 3, objects: int = 4) -> dict:
    """Mean IoU at full resolution over the first `objects` objects of each scene.

    Returns:
        `box`: the exact box; `point`: one point in the middle of the object, best of three masks;
        `clicks_k`: k clicks in all, each in the middle of the larger error, the first mask chosen
        by the IoU head. Beside them `box_itself` and the `ellipse` inscribed in it, and `ceiling`,
        the truth passed through logits of a quarter of the size. `iou_head`: correlation of
        predicted with true IoU over the masks for boxes and points. `objects`: how many there were.
    """
    rows, heads = [], []
    for scene in scenes:
        pixels = torch.from_numpy(scene.image.transpose(2, 0, 1).copy()).float()
        with torch.no_grad():
            embedding = sam.image_encoder(sam.preprocess(pixels.to(sam.device))[None])
        for truth in scene.masks(slice(0, objects)):
            row, pairs = _answers(sam, embedding, truth, clicks)
            rows.append(row | baselines(truth))
            heads += pairs
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    correlation = float(np.corrcoef(np.array(heads).T)[0, 1])
    return means | {"iou_head": correlation, "objects": len(rows)}


def baselines(truth: np.ndarray) -> dict[str, float]:
    """IoU of the box, of the ellipse inscribed in it and of the truth at a quarter of the size."""
    left, top, right, bottom = box_of(truth)
    y, x = np.mgrid[: truth.shape[0], : truth.shape[1]]
    across = np.abs(x - (left + right) / 2) / ((right - left + 1) / 2)
    down = np.abs(y - (top + bottom) / 2) / ((bottom - top + 1) / 2)
    cells = torch.from_numpy(coverage(truth))[None] - 0.5
    return {
        "box_itself": _iou((across <= 1) & (down <= 1), truth),
        "ellipse": _iou(across**2 + down**2 <= 1, truth),
        "ceiling": _iou(_enlarged(cells)[0], truth),
    }


def _answers(
    sam: Sam, embedding: Tensor, truth: np.ndarray, clicks: int
) -> tuple[dict[str, float], list[tuple[float, float]]]:
    """IoU after each prompt for one object, and pairs of predicted and true IoU."""
    corners = box_of(truth).reshape(2, 2)
    masks, scores, _ = _ask(sam, embedding, corners, [CORNER, OPPOSITE_CORNER])
    row = {"box": _iou(masks[0], truth)}
    pairs = [(scores[0], row["box"])]

    points, labels = [middle_of(truth)], [POSITIVE]
    masks, scores, logits = _ask(sam, embedding, np.array([*points, (0, 0)]), [*labels, PAD])
    three = [_iou(mask, truth) for mask in masks[1:]]
    row["point"] = max(three)
    pairs += zip(scores[1:], three, strict=True)
    which = 1 + int(np.argmax(scores[1:]))

    for count in range(2, clicks + 1):
        missed, extra = truth & ~masks[which], masks[which] & ~truth
        if missed.any() or extra.any():
            grows = _depth(missed) >= _depth(extra)
            points.append(middle_of(missed if grows else extra))
            labels.append(POSITIVE if grows else NEGATIVE)
        asked = np.array([*points, (0, 0)]), [*labels, PAD]
        masks, scores, logits = _ask(sam, embedding, *asked, logits[which])
        which = 0
        row[f"clicks_{count}"] = _iou(masks[0], truth)
    return row, pairs


@torch.no_grad()
def _ask(
    sam: Sam,
    embedding: Tensor,
    coordinates: np.ndarray,
    labels: list[int],
    mask: Tensor | None = None,
) -> tuple[np.ndarray, list[float], Tensor]:
    """Masks (T, S, S) bool, predicted IoU of each, logits (T, S/4, S/4) for one prompt."""
    encoder = sam.prompt_encoder
    where = torch.from_numpy(coordinates).float()[None].to(sam.device)
    sparse = embed_prompts(encoder, where, torch.tensor([labels], device=sam.device))
    dense = encoder.no_mask_embed.weight[:, :, None, None].expand_as(embedding)
    if mask is not None:
        dense = encoder.mask_downscaling(mask[None, None])
    position = encoder.get_dense_pe()
    logits, scores = decode_masks(sam.mask_decoder, embedding, position, sparse, dense)
    return _enlarged(logits[0].cpu()), scores[0].tolist(), logits[0]


def _enlarged(logits: Tensor) -> np.ndarray:
    """Masks (T, S, S) bool of logits (T, S/4, S/4)."""
    large = functional.interpolate(logits[None], scale_factor=REDUCTION, mode="bilinear")[0]
    return (large > 0).numpy()


def _depth(mask: np.ndarray) -> float:
    return distance_transform_edt(np.pad(mask, 1)).max()


def _iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return (mask & truth).sum() / max((mask | truth).sum(), 1)


# --- Command ---

LOG_EVERY = 50  # steps
TEST_EVERY = 500
SAVE_EVERY = 250
TEST_PICTURES = 16  # of each set


class Curve:
    """`curve.csv`: a row every `LOG_EVERY` steps, means since the row before."""

    columns = (
        "step",
        "minutes",  # of training in all
        "pictures_per_second",
        "learning_rate",
        *("loss", "box", "point", "click"),  # while training, as in `promptable_loss`
        *("test_box", "test_point", "test_clicks_3"),  # of the average, on families trained on
        *("held_out_box", "held_out_point", "held_out_clicks_3"),
    )

    def __init__(self, path: Path, step: int):
        """Continues a curve up to `step`; later rows belong to steps that were not saved."""
        self.path, self.rows = path, []
        if path.exists():
            with path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]

    def add(self, row: dict) -> None:
        """Writes the file again with one more row; unknown columns stay empty."""
        self.rows.append(row)
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)

    @property
    def minutes(self) -> float:
        return float(self.rows[-1]["minutes"]) if self.rows else 0.0


def train(
    run: Run, out: Path, minutes: float = math.inf, bf16: bool = False, workers: int = 0
) -> None:
    """Trains to the last step of the settings, or for `minutes`.

    Writes `out`/run.safetensors, from which `Run.load` goes on, and `out`/curve.csv.
    """
    settings = run.settings
    pictures = DataLoader(
        Pictures(settings),
        batch_size=None,
        sampler=range(run.step, settings.steps),
        num_workers=workers,
        pin_memory=run.device != "cpu",
    )
    curve = Curve(out / "curve.csv", run.step)
    start = since = time.monotonic()
    recent: list[dict[str, float]] = []
    for batch in pictures:
        rate = run.rate()
        recent.append(run.train_step(batch, bf16))
        now = time.monotonic()
        stop = run.step == settings.steps or now - start >= 60 * minutes
        if stop or run.step % LOG_EVERY == 0:
            row = {
                "step": run.step,
                "minutes": round(curve.minutes + (now - since) / 60, 2),
                "pictures_per_second": round(settings.pictures * len(recent) / (now - since), 1),
                "learning_rate": f"{rate:.3g}",
            }
            row |= {k: round(float(np.mean([r[k] for r in recent])), 4) for k in recent[0]}
            if stop or run.step % TEST_EVERY == 0:
                row |= _tested(run)
            curve.add(row)
            print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
            recent, since = [], time.monotonic()
        if stop or run.step % SAVE_EVERY == 0:
            run.save(out / "run.safetensors")
        if stop:
            return


def _tested(run: Run) -> dict[str, float]:
    row: dict[str, float] = {}
    sam = run.averaged()
    for name, families in (("test", TRAINED), ("held_out", HELD_OUT)):
        scores = evaluate(sam, unseen_scenes(TEST_PICTURES, families, run.settings.size))
        row |= {f"{name}_{k}": round(scores[k], 4) for k in ("box", "point", "clicks_3")}
    return row


def export(run: Run, path: Path) -> None:
    """The averaged weights in float16, as the library ships them."""
    half = {key: value.half() for key, value in run.average.items()}
    metadata = {"step": str(run.step), "settings": json.dumps(asdict(run.settings))}
    write_tensors(half, path, metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the run; one that exists goes on")
    add("--steps", type=int, default=Settings.steps, help="of the whole schedule")
    add("--minutes", type=float, default=math.inf, help="stop after; the same command goes on")
    add("--seed", type=int, default=Settings.seed)
    add("--size", type=int, default=Settings.size, help="pixels along one side of a picture")
    add("--start", type=Path, help="begin with these weights, made at any size")
    add("--pictures", type=int, default=Settings.pictures, help="in a step")
    add("--learning-rate", type=float, default=Settings.learning_rate)
    add("--device", default="cpu", help="cpu or cuda")
    add("--bf16", action="store_true", help="bfloat16 where autocast allows it, for GPUs")
    add("--workers", type=int, default=0, help="processes that draw pictures")
    add("--export", type=Path, help="also write the averaged weights in float16 to this file")
    add("--report", action="store_true", help="print the table of the model card as JSON and stop")
    options = parser.parse_args()

    names = ("steps", "seed", "size", "pictures", "learning_rate")
    settings = Settings(**{name: getattr(options, name) for name in names})
    saved = options.out / "run.safetensors"
    if saved.exists():
        run = Run.load(saved, options.device)
    else:
        run = Run(settings, options.device)
        if options.start:
            run.start_from(options.start)
    if run.settings != settings:
        raise UserError(f"{saved} was begun with {run.settings}; repeat them or change --out.")
    if not options.report:
        train(run, options.out, options.minutes, options.bf16, options.workers)
    if options.export:
        export(run, options.export)
    if options.report:
        sam = run.averaged()
        for name, families in (("trained", TRAINED), ("held_out", HELD_OUT)):
            print(json.dumps({"families": name} | evaluate(sam, unseen_scenes(200, families))))


if __name__ == "__main__":
    main()
