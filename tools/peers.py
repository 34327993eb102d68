"""Compare this library's optimizers with those of packages: states, time of a step, and Dice.

    python -m tools.peers
    python -m tools.peers --steps 10 --seeds 0 --out /tmp/peers.json     # a quick look

Two of the packages are not among the requirements of the book:

    pip install --no-deps pytorch-optimizer==4.1.0 torchao==0.18.0

The states and the steps are those for the weights of LiteMedSAM's late stages. All optimizers get
the same random gradients and take turns. The runs train the pocket SAM on the lungs, with the
settings of notebooks/recorded/optimizers.json. That file has the runs of this library's optimizers.
The result is notebooks/recorded/optimizers_peers.json. It is written after every run, and runs in
it are not run again. A package that is not installed has a row that says so.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import torch

from medsaga_lib.adapt.adaptation import Adaptation
from medsaga_lib.bench.optimizers import Contestant, late_stages
from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.data.dataset import DataSet
from medsaga_lib.evaluation.scores import evaluate_cases
from medsaga_lib.files import write_json
from medsaga_lib.inference.predictor import Predictor
from medsaga_lib.memory.ledger import held_bytes
from medsaga_lib.models.feeding import FEED_OF
from medsaga_lib.optim.apollo import ApolloAdamW
from medsaga_lib.optim.fira import FiraAdamW
from medsaga_lib.optim.galore import GaLoreAdamW
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.encoder import Full, GaLore, matrices_projected
from medsaga_lib.recipes.recipe import Recipe, changed
from medsaga_lib.reproduce.runs import DIGITS
from medsaga_lib.training.loop import train
from medsaga_lib.training.run_folder import Settings
from tools.provenance import RECORDED, ROOT, commit, machine

TARGET = RECORDED / "optimizers_peers.json"
TURNS, PERIOD = 9, 10  # turns that count, and steps in each: one of them is a refresh; our choice
BETAS = (0.9, 0.999)  # as in MedSAGa's recipe
# The settings of notebooks/recorded/optimizers.json
DATA, BACKBONE, SHOTS, SIZE, STEPS, SEEDS = "cxr_hannover_lungs", "pocket", 32, 128, 200, range(5)

Groups = list[dict[str, Any]]  # as those of `optim.galore.param_groups`
Betas = tuple[float, float]
Algorithm = Literal["AdamW", "GaLore", "Fira", "APOLLO"]


class Peer(NamedTuple):
    """An optimizer, its package, and how it is built for the groups of this library's GaLore."""

    name: str
    algorithm: Algorithm
    package: str
    build: Callable[[Groups, Betas], torch.optim.Optimizer]
    refresh: int | None = None  # the step of each period that renews the bases; None: no bases
    trains: bool = False  # whether it is run here; the others are in optimizers.json


def dense(groups: Groups) -> Groups:
    """Return the groups without a projection."""
    return [{key: group[key] for key in ("params", "lr", "weight_decay")} for group in groups]


def matrices(groups: Groups, kind: str) -> Groups:
    """Return the groups in the words of the packages; they project matrices only.

    kind: the package's name of the option that selects the side; "std" is the shorter side.
    """
    found = []
    for group in matrices_projected(groups):
        if "rank" in group:
            group = {**group, "update_proj_gap": group.pop("refresh"), kind: "std"}
        found += [group] if group["params"] else []
    return found


def scaled_outside(groups: Groups) -> Groups:
    """Return groups with scale 1, and alpha in the learning rate of the projected tensors instead.

    pytorch-optimizer multiplies by the scale in the projection to the full space. So its Fira does
    not multiply the part outside the subspace, and subtracts a shortened part inside from it. With
    scale 1, both parts are those of the paper. Weight decay stays as it was.
    """
    return [
        group
        if "rank" not in group
        else {
            **group,
            "lr": group["lr"] * group["scale"],
            "weight_decay": group["weight_decay"] / group["scale"],
            "scale": 1.0,
        }
        for group in groups
    ]


def _torch(implementation: str) -> Callable[[Groups, Betas], torch.optim.Optimizer]:
    return lambda groups, betas: torch.optim.AdamW(
        dense(groups), betas=betas, **{implementation: True}
    )


def _published(groups: Groups, betas: Betas) -> torch.optim.Optimizer:
    from galore_torch import GaLoreAdamW as Published

    return Published(matrices(groups, "proj_type"), betas=betas, no_deprecation_warning=True)


def _pytorch_optimizer(
    name: str, **options: Any
) -> Callable[[Groups, Betas], torch.optim.Optimizer]:
    def build(groups: Groups, betas: Betas) -> torch.optim.Optimizer:
        import pytorch_optimizer

        projected = scaled_outside(matrices(groups, "projection_type"))
        return getattr(pytorch_optimizer, name)(projected, betas=betas, **options)

    return build


def _bitsandbytes(groups: Groups, betas: Betas) -> torch.optim.Optimizer:
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(dense(groups), betas=betas)


def _torchao(name: str) -> Callable[[Groups, Betas], torch.optim.Optimizer]:
    def build(groups: Groups, betas: Betas) -> torch.optim.Optimizer:
        import torchao.optim

        return getattr(torchao.optim, name)(dense(groups), betas=betas)

    return build


def _ours(kind: type[GaLoreAdamW]) -> Callable[[Groups, Betas], torch.optim.Optimizer]:
    return lambda groups, betas: kind(groups, betas=betas)


OURS, OTHER = "medsaga-lib", "pytorch-optimizer"
LAST = PERIOD - 1  # pytorch-optimizer counts steps from 1, and the others from 0
PEERS = (
    Peer("AdamW, foreach", "AdamW", "torch", _torch("foreach")),
    Peer("AdamW, fused", "AdamW", "torch", _torch("fused")),
    Peer("AdamW, 8 bits", "AdamW", "bitsandbytes", _bitsandbytes, trains=True),
    Peer("AdamW, 8 bits", "AdamW", "torchao", _torchao("AdamW8bit"), trains=True),
    Peer("AdamW, 4 bits", "AdamW", "torchao", _torchao("AdamW4bit"), trains=True),
    Peer("GaLore", "GaLore", OURS, _ours(GaLoreAdamW), 0),
    Peer("GaLore", "GaLore", "galore-torch", _published, 0),  # its updates are in optimizers.json
    Peer("GaLore", "GaLore", OTHER, _pytorch_optimizer("GaLore"), LAST, trains=True),
    Peer("Fira", "Fira", OURS, _ours(FiraAdamW), 0),
    Peer("Fira", "Fira", OTHER, _pytorch_optimizer("Fira"), LAST, trains=True),
    Peer("APOLLO", "APOLLO", OURS, _ours(ApolloAdamW), 0),
    Peer(
        "APOLLO", "APOLLO", OTHER, _pytorch_optimizer("APOLLO", scale_type="channel"), LAST,
        trains=True,
    ),
)  # fmt: skip


def main(words: list[str] | None = None) -> None:
    """Measure states and steps, train the missing runs, and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, default=TARGET)
    add("--turns", type=int, default=TURNS, help="Turns of the steps that count.")
    add("--seeds", nargs="*", type=int, default=list(SEEDS), help="Seeds of the runs.")
    add("--steps", type=int, default=STEPS, help="Steps of each run.")
    options = parser.parse_args(words)
    said = sys.argv[1:] if words is None else words
    found = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    rows = found.get("runs", [])
    origin = {"command": shlex.join(["python", "-m", "tools.peers", *said]), **machine()}
    origin["versions"] |= {
        peer.package: _version(peer) for peer in PEERS if peer.package not in (OURS, "torch")
    }
    dataset = open_dataset(DATA) if options.seeds else None
    if dataset is not None:
        origin["data"] = dataset.describe()
    steps = found.get("steps") or compare_steps(PEERS, options.turns)
    write_json(options.out, {"provenance": origin, "steps": steps, "runs": rows})
    known = [(row["name"], row["package"], row["seed"], row["steps"]) for row in rows]
    for seed in options.seeds:
        for peer in PEERS:
            key = peer.name, peer.package, seed, options.steps
            if not peer.trains or key in known or _version(peer) is None:
                continue
            assert dataset is not None
            rows.append(row_of(peer, dataset, seed, options.steps))
            print(*key, f"{rows[-1]['dice']:.3f}", flush=True)
            write_json(options.out, {"provenance": origin, "steps": steps, "runs": rows})


def _version(peer: Peer) -> str | None:
    """Return the version of a peer's package; None if it is not installed."""
    try:
        return version(peer.package)
    except ImportError:
        return None


def compare_steps(peers: Sequence[Peer], turns: int) -> list[dict[str, Any]]:
    """Measure the states and the steps of each optimizer, on the same weights and gradients.

    Returns:
        for each peer its name and package; its `state_bytes`; the medians over turns of the seconds
        of a `plain` step and of a step with a `refresh`, with their `ratio` to a plain step of the
        first peer, and the least and largest ratio. `refresh` is None for optimizers without bases.
        A peer without its package has `missing` instead.
    """
    contestants: dict[Peer, Contestant] = {}
    for peer in peers:
        try:
            contestants[peer] = contestant(peer)
        except ImportError as error:
            print(f"{peer.package} cannot be imported ({error})", file=sys.stderr)
    for turn in range(turns + 1):
        for peer, one in contestants.items():
            times = [one.step(time.process_time) for _ in range(PERIOD)]
            if turn:  # the first turn makes the states and compiles
                if peer.refresh is not None:
                    one.refresh.append(times.pop(peer.refresh))
                one.plain.append(median(times))
    return [_row(peer, contestants.get(peer), contestants[peers[0]].plain) for peer in peers]


def contestant(peer: Peer) -> Contestant:
    """Build a peer's optimizer, with weights of its own and the gradients of all."""
    groups = late_stages(PERIOD)
    weights = [W for group in groups for W in group["params"]]
    gradients = [W.grad for W in weights if W.grad is not None]
    return Contestant(peer.name, weights, gradients, peer.build(groups, BETAS))


def _row(peer: Peer, one: Contestant | None, unit: list[float]) -> dict[str, Any]:
    row: dict[str, Any] = {"name": peer.name, "package": peer.package}
    if one is None:
        return {**row, "missing": f"{peer.package} is not installed"}
    return {
        **row,
        "numbers": sum(W.numel() for W in one.weights),
        "state_bytes": held_bytes(one.optimizer),
        "plain": _timed(one.plain, unit),
        "refresh": _timed(one.refresh, unit) if one.refresh else None,
    }


def _timed(seconds: list[float], unit: list[float]) -> dict[str, Any]:
    ratios = [mine / other for mine, other in zip(seconds, unit, strict=True)]
    return {
        "seconds": median(seconds),
        "ratio": median(ratios),
        "ratios": [min(ratios), max(ratios)],
    }


@dataclass(frozen=True)
class WithPeer(Adaptation):
    """An adaptation whose optimizer is that of a peer."""

    peer: Peer = PEERS[0]

    def build_optimizer(
        self, groups: Groups, betas: Betas, per_layer: bool
    ) -> torch.optim.Optimizer:
        """Build the peer's optimizer."""
        return self.peer.build(groups, betas)


@dataclass(frozen=True)
class FullWithPeer(WithPeer, Full):
    """Full fine-tuning by a peer."""


@dataclass(frozen=True)
class GaLoreWithPeer(WithPeer, GaLore):
    """GaLore, or one of its successors, by a peer."""


def recorded_recipe(algorithm: Algorithm) -> str:
    """Return the recipe of an algorithm's recorded runs, with the learning rate chosen for it.

    The packages' GaLore has the rate that was chosen for the updates of galore-torch.
    """
    part = {"AdamW": "full", "GaLore": "published", "Fira": "fira", "APOLLO": "apollo"}[algorithm]
    runs = json.loads((RECORDED / "optimizers.json").read_text(encoding="utf-8"))["runs"]
    return next(run["recipe"] for run in runs if part in run["recipe"])


def recipe_with(peer: Peer, steps: int) -> Recipe:
    """Return the recorded recipe of the peer's algorithm, with the peer's optimizer."""
    name, *changes = recorded_recipe(peer.algorithm).split(":")
    recipe = changed(get_recipe(name), [*changes, f"steps={steps}"])
    how = recipe.image_encoder
    values = {field.name: getattr(how, field.name) for field in fields(how)}
    kind = GaLoreWithPeer if isinstance(how, GaLore) else FullWithPeer
    return replace(recipe, image_encoder=kind(**values, peer=peer))


def row_of(peer: Peer, dataset: DataSet, seed: int, steps: int) -> dict[str, Any]:
    """Train and score a run; return its row."""
    torch.manual_seed(seed)  # pytorch-optimizer's APOLLO draws from the global generator
    recipe, began = recipe_with(peer, steps), time.process_time()
    settings = Settings(shots=SHOTS, backbone=BACKBONE, size=SIZE, seed=seed)
    result = train(recipe, dataset, settings, progress=False)
    spent = time.process_time() - began
    labels, feed = dataset.require_labels(), FEED_OF[BACKBONE]
    predictor = Predictor(result.model, labels, dataset.modality, dataset.window, feed)
    cases = [case for case in dataset.split("test") if case.mask is not None]
    scores = evaluate_cases(lambda case: predictor.case(dataset, case), dataset, cases).summary()
    return {
        "name": peer.name,
        "package": peer.package,
        "recipe": recorded_recipe(peer.algorithm),
        "data": dataset.name,
        "seed": seed,
        "steps": steps,
        "commit": commit(ROOT, "notebooks/recorded"),
        "cpu_seconds": round(spent),
        "collapsed": result.collapsed is not None,
        "val_dice": list(_valid(result.log))[-1],
        "dice": scores["dice"],
        "dice_interval": scores["dice_interval"],
        "case_dice": [
            [case["case"], case["patient"], case["dice"] and round(case["dice"], DIGITS)]
            for case in scores["cases"]
        ],
    }


def _valid(log: list[dict[str, float]]) -> Iterator[float]:
    """Yield the Dice of each validation."""
    yield from (row["val_dice"] for row in log if row["val_dice"] == row["val_dice"])


if __name__ == "__main__":
    main()
