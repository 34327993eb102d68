"""The grid of runs behind a published table: what is run, what is not, its hours and its memory.

The profile `full` trains what the paper trains. The profile `quick` takes stand-ins: a data set of
the same kind with fewer images, a small input, few steps, and the late stages of LiteMedSAM or the
pocket SAM. It shows how a table is reproduced, and nothing about the published numbers.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from medsaga_lib.data.catalog import data_root, open_dataset
from medsaga_lib.data.dataset import INDEX, DataSet
from medsaga_lib.data.fetching.catalogue import find_set
from medsaga_lib.data.fetching.fetch import RECORD, named
from medsaga_lib.data.shots import count_shots, labelled
from medsaga_lib.errors import UserError
from medsaga_lib.files import file_hash
from medsaga_lib.models.weights import path_of, weight_file
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import model_size
from medsaga_lib.recipes.recipe import Recipe, changed
from medsaga_lib.reproduce.published import Cell, Table
from medsaga_lib.reproduce.runs import Row, a_run

Profile = Literal["full", "quick"]
SLICES = "_slices"
# of the quick profile; our choices
QUICK_SIZE, QUICK_STEPS = 128, 50
LATE = ("image_encoder.from_stage=3", "image_encoder.copies=12")  # as `late_stages`
QUICK_BATCH, QUICK_RATE = "batch=4", "lr=0.001"  # as `late_stages`
SECONDS = 3600  # of an hour


@dataclass(frozen=True)
class Request:
    """A part of a table, and how it is trained; None for the profile's own value."""

    table: Table
    cells: Sequence[Cell]
    profile: Profile = "full"
    seeds: Sequence[int] = (0, 1, 2)
    backbone: str | None = None
    size: int | None = None
    steps: int | None = None


@dataclass(frozen=True)
class Grid:
    """The runs of a request, and why the other places of the table have none.

    needs: by data set of the table.
    """

    runs: list[Row]
    needs: dict[str, str]


def grid(request: Request) -> Grid:
    """Return the runs of a request, seed by seed.

    Raises:
        UserError: no data set of the request is here, or the backbone or the size does not fit.
    """
    runs, needs = [], {}
    places = list(dict.fromkeys((cell.place, cell.shots) for cell in request.cells))
    for seed in request.seeds:
        for place, shots in places:
            data, shots = _data_and_shots(request, *place[:2], shots)
            if why := _missing(data) or _too_few(data, shots):
                needs[place[0]] = why
            elif shots:
                runs.append(_run(request, place, data, shots, seed))
    if not runs:
        reasons = "; ".join(f"{name} {why}" for name, why in needs.items())
        raise UserError(
            f"None of these runs of {request.table.name} can be made here: {reasons or 'no images'}"
            ". Fetch a data set, or add --profile quick."
        )
    return Grid(runs, needs)


def _data_and_shots(request: Request, dataset: str, images: str, shots: str) -> tuple[str, str]:
    """Return the data set and the images of a place; without images, it is not run."""
    if request.profile == "full":
        return request.table.sets[dataset], shots
    stand_in = request.table.quick.get(dataset)
    return (stand_in["data"], stand_in["images"].get(images, "")) if stand_in else ("", "")


def _missing(data: str) -> str:
    """Return what is needed to have a data set; "" if it is here."""
    if not data:
        return "has no stand-in in the profile quick"
    root = data_root()
    if root is not None and (root / data).is_dir():
        return ""
    return f"needs {data}: {fetching(data)}"


def _too_few(data: str, shots: str) -> str:
    """Return why a data set of images has too few for a run; "" if it has enough."""
    opened = _opened(data)
    images = len(labelled(opened))
    if opened.dimensions == 3 or not shots or count_shots(opened, shots) <= images:
        return ""
    return f"has {images} labelled training images in {data}, and a number of the table is {shots}"


def fetching(data: str) -> str:
    """Return the command that fetches an official data set."""
    name = data.removesuffix(SLICES)
    option = " --slices" if data.endswith(SLICES) else ""
    option += " --accept-licence" if find_set(name).needs_consent else ""
    option += " --from FILE" if find_set(name).comes == "by hand" else ""
    return f"medsaga data fetch {name}{option}"


def _run(request: Request, place: tuple[str, str, str], data: str, shots: str, seed: int) -> Row:
    """Return the facts of a run: those of `a_run`, and its place in the table."""
    table, (dataset, images, method) = request.table, place
    opened = _opened(data)
    number = count_shots(opened, shots)
    backbone, recipe, size = _trained(request, method)
    built = recipe_named(recipe)
    size = model_size(built, backbone, size)
    steps = request.steps or QUICK_STEPS
    if request.steps is None and request.profile == "full":
        steps = math.ceil(table.epochs * number / built.batch)
    run = a_run(recipe, data, number, seed, backbone=backbone, steps=steps, size=size,
                weights="pretrained" if built.network is None else "random")  # fmt: skip
    return run | {
        "table": table.name,
        "dataset": dataset,
        "images": images,
        "method": method,
        "asked": shots,
        "backbone": backbone if built.network is None else "none",
        "size": size,
        "planned_steps": steps if built.steps else 0,
        "batch": built.batch,
        "official": is_official(opened, data),
        "index_sha256": file_hash(opened.root / INDEX),
        "data_text": opened.describe(),
        "classes": len(opened.labels) or 1,
    }


def _trained(request: Request, method: str) -> tuple[str, str, int]:
    """Return the backbone, the recipe with its changed values, and the size of a method."""
    table = request.table
    if request.profile == "full":
        backbone = request.backbone or table.backbone
        return backbone, table.recipe_of(method), request.size or table.size_of(method)
    backbone = request.backbone or quick_backbone()
    recipe = table.methods[method]
    changes = _quick_changes(recipe_named(recipe), backbone)
    return backbone, ":".join([recipe, *changes]), request.size or QUICK_SIZE


def quick_backbone() -> str:
    """Return lite_medsam if its weights are here, and pocket otherwise."""
    path = path_of(weight_file("lite_medsam"))
    return "lite_medsam" if path is not None and path.is_file() else "pocket"


def _quick_changes(recipe: Recipe, backbone: str) -> list[str]:
    """Return the values that the quick profile changes: late stages alone on LiteMedSAM."""
    changes = [QUICK_BATCH]
    if recipe.network is None and recipe.head != "names":  # S-SAM's rate is higher on purpose
        changes.append(QUICK_RATE)
    if recipe.network is None and backbone == "lite_medsam":
        changes += LATE[: 1 if recipe.synthesis else 2]  # synthesised images cannot be kept
    return changes


def recipe_named(text: str) -> Recipe:
    """Return a recipe with its changed values, for "samed:lr=0.001"."""
    name, *changes = text.split(":")
    return changed(get_recipe(name), changes)


def is_official(dataset: DataSet, name: str) -> bool:
    """Return whether a folder was written by `medsaga data fetch` as the data set `name`."""
    path = dataset.root / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return named(record["set"], record["slices"]) == name
    except (OSError, ValueError, KeyError, TypeError):
        return False


def hours(runs: Iterable[Row], known: Iterable[Row]) -> tuple[float, int]:
    """Return the hours of runs one after the other, and the number of runs with unknown time.

    A known row counts for the runs with its recipe, backbone and size. Its time is that of its
    steps, which grows with their number, and the rest, such as reading and evaluation.
    """
    timed: dict[tuple, list[Row]] = {}
    for row in known:
        if row.get("wall_seconds") and row["steps"]:
            timed.setdefault(_kind(row), []).append(row)
    total, unknown = 0.0, 0
    for run in runs:
        alike = timed.get(_kind(run), [])
        unknown += not alike
        seconds = [
            row["seconds"] * run["planned_steps"] / row["steps"]
            + row["wall_seconds"]
            - row["seconds"]
            for row in alike
        ]
        total += sum(seconds) / max(1, len(seconds))
    return total / SECONDS, unknown


def _kind(row: Row) -> tuple[Any, ...]:
    return row["recipe"], row["backbone"], row["size"]


@cache
def peak_of(recipe: str, backbone: str, size: int, classes: int) -> int:
    """Return the predicted peak of a training step in bytes, without the network or the data."""
    from medsaga_lib.memory.plan import Plan, predict_peak

    built = recipe_named(recipe)
    plan = Plan("pocket" if backbone == "none" else backbone, built.batch, size, classes)
    return predict_peak(built, plan)


@cache
def _opened(data: str) -> DataSet:
    return open_dataset(Path(data_root() or ".") / data)
