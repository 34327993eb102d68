"""The command line, `medsaga ...`: methods, memory, bench, weights, data, train, evaluate, predict.

Exit code 0: fine; 2: the user can mend it, one sentence says how; 1: a fault of ours, with its
traceback; 130: interrupted. `--json` prints one JSON document for machines.
"""

import json
import math
import os
import re
import sys
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from medsaga_lib.errors import UserError

app = typer.Typer(
    help="Adapt the Segment Anything Model to medical images with few labels and little memory.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
weights_app = typer.Typer(help="Checkpoints of the backbones.", no_args_is_help=True)
data_app = typer.Typer(help="Data sets: list them, check a folder.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")
app.add_typer(data_app, name="data")


class Split(StrEnum):
    """Part of a data set."""

    train = "train"
    val = "val"
    test = "test"


class Slices(StrEnum):
    """How a box goes from slice to slice of a volume."""

    propagate = "propagate"
    same = "same"


class Axis(StrEnum):
    """An axis of a volume."""

    z = "z"
    y = "y"
    x = "x"


class Consistency(StrEnum):
    """What makes slices agree that were predicted one by one."""

    none = "none"
    majority = "majority"
    largest = "largest"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Backbone = Annotated[str, typer.Option(help="pocket, vit_b, medsam, mobile_sam or lite_medsam.")]
Checkpointing = Annotated[bool, typer.Option(help="Less memory, more time.")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="Autocast; weights and states stay fp32.")]
PerLayer = Annotated[
    bool,
    typer.Option("--per-layer", "--fused", help="Update inside the backward pass: no gradients."),
]
Data = Annotated[str, typer.Option(help="Folder, a name below $MEDSAGA_DATA, or phantom_cxr.")]


def main() -> None:
    """Entry point: turns the user's errors into one sentence and exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"medsaga: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def methods(
    backbone: Backbone = "vit_b",
    classes: Annotated[int, typer.Option(min=1, max=1000, help="Foreground classes.")] = 8,
    size: Annotated[int, typer.Option(min=16, max=2**16, help="Pixels along one side.")] = 512,
    as_json: Json = False,
) -> None:
    """Every recipe: what trains, what the optimizer keeps, and where it comes from."""
    from medsaga_lib.recipes import RECIPES
    from medsaga_lib.recipes.build import Count, count

    counts: list[Count] = [count(r, backbone, size, classes) for r in RECIPES.values()]
    if as_json:
        return _print_json([c._asdict() for c in counts])
    print(f"{backbone}, {size} px, {classes} foreground classes\n")
    rows = [
        (c.name, f"{c.trainable:,}", f"{c.total:,}", f"{c.state_bytes / 2**20:,.1f}", c.source)
        for c in counts
    ]
    _print_table(("method", "trainable", "total", "states, MiB", "source"), rows)


@app.command()
def memory(
    recipe: Annotated[list[str] | None, typer.Option(help="Again for more; default: all.")] = None,
    backbone: Backbone = "vit_b",
    batch: Annotated[int, typer.Option(min=1, max=10**6, help="Images in one pass.")] = 12,
    size: Annotated[int | None, typer.Option(max=2**16, help="Pixels along one side.")] = None,
    classes: Annotated[int, typer.Option(min=1, max=1000, help="Foreground classes.")] = 8,
    rank: Annotated[int | None, typer.Option(min=1, help="Of GaLore or LoRA.")] = None,
    checkpointing: Checkpointing = False,
    bf16: Bf16 = False,
    per_layer: PerLayer = False,
    original_attention: Annotated[
        bool, typer.Option("--original-attention", help="segment_anything's: keeps every map.")
    ] = False,
    peak: Annotated[bool, typer.Option(help="Also the peak; a few seconds a method.")] = False,
    fit: Annotated[str | None, typer.Option(help="Largest batch in this memory, as 16GiB.")] = None,
    as_json: Json = False,
) -> None:
    """Where the memory of a training step goes, predicted without a GPU.

    With --json: bytes; one object for one --recipe, a list otherwise, always with the peak.
    """
    from medsaga_lib.recipes import RECIPES, get_recipe
    from medsaga_lib.recipes.build import model_size
    from medsaga_lib.recipes.predict import Plan, largest_batch, predict_ledger, predict_peak
    from medsaga_lib.recipes.recipe import GaLore, LoRA, Scratch, with_rank

    limit = None if fit is None else parse_bytes(fit)
    chosen = [get_recipe(name) for name in recipe or RECIPES]
    if not recipe:  # of all methods, those that the question is about
        chosen = [r for r in chosen if not (checkpointing and isinstance(r.image_encoder, Scratch))]
        chosen = [r for r in chosen if not (per_layer and r.optimizer == "sgd")]
        chosen = [r for r in chosen if rank is None or isinstance(r.image_encoder, GaLore | LoRA)]
    if rank is not None:
        chosen = [with_rank(r, rank) for r in chosen]
    with_sam = [r for r in chosen if not isinstance(r.image_encoder, Scratch)]
    plan = Plan(
        backbone=backbone,
        batch=batch,
        size=model_size((with_sam or chosen)[0], backbone, size),
        classes=classes,
        checkpointing=checkpointing,
        per_layer=per_layer,
        precision="bf16" if bf16 else "fp32",
        attention="original" if original_attention else "fused",
    )
    records: list[dict[str, Any]] = []
    for one in chosen:
        entry = predict_ledger(one, plan)
        record: dict[str, Any] = {"recipe": one.name, **asdict(entry), "sum": entry.sum}
        if peak or as_json:
            record["peak"] = predict_peak(one, plan)
        if limit is not None:
            record["largest_batch"] = largest_batch(one, plan, limit)
        records.append(record)
    if as_json:
        records = [{**record, "plan": asdict(plan)} for record in records]
        return _print_json(records[0] if recipe and len(recipe) == 1 else records)
    how = ["checkpointing"] * checkpointing + ["per-layer updates"] * per_layer
    how = [plan.precision, f"{plan.attention} attention", *how]
    print(f"{backbone}, {plan.size} px, batch {batch}, {classes} classes, {', '.join(how)}; MiB\n")
    counts = ("recipe", "largest_batch")
    header = list(records[0])
    rows = [tuple(r[k] if k in counts else f"{r[k] / 2**20:,.0f}" for k in header) for r in records]
    _print_table(tuple(key.replace("_", " ") for key in header), rows)
    if limit is not None:
        print(f"\nlargest batch: its predicted peak is within {fit}; leave room for the driver")


@app.command()
def bench(
    backbone: Backbone = "vit_b",
    rank: Annotated[int, typer.Option(min=1, help="Of GaLore.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Refreshes to time.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this file.")] = None,
    as_json: Json = False,
) -> None:
    """GaLore here against galore-torch, AdamW and LoRA: time, states, checkpoints, energy.

    With --json: a list of `name, ours, peer, ratio`; a ratio is the peer's for one of ours.
    """
    from medsaga_lib.bench import bench as run
    from medsaga_lib.bench import captured_energy, comparisons
    from medsaga_lib.files import write_json

    rows = run(backbone, rank, rounds)
    compared = comparisons(rows, captured_energy())
    if out is not None:
        write_json(out, compared)
    if as_json:
        return _print_json(compared)
    header = ("optimizer", "trainable", "first", "plain", "refresh", "states, MiB", "on disk, MiB")
    adamw = next(r["plain_step"] for r in rows if r["name"] == "AdamW")
    print(
        f"{backbone}'s block matrices, rank {rank}; times in steps of AdamW, {adamw:.3f} s each\n"
    )
    table = [
        (
            r["name"],
            f"{r['trainable']:,}",
            *(f"{r[key] / adamw:.2f}" for key in ("first_step", "plain_step", "refresh_step")),
            *(f"{r[key] / 2**20:,.1f}" for key in ("state_bytes", "checkpoint_bytes")),
        )
        for r in rows
    ]
    _print_table(header, table)
    print("\nof the peer for one of ours\n")
    _print_table(("", "ratio"), [(c["name"], f"{c['ratio']:.4g}") for c in compared])


@weights_app.command("list")
def weights_list(as_json: Json = False) -> None:
    """Checkpoints: licence, size, hash, and whether they are here."""
    from medsaga_lib.backbones.weights import CHECKPOINTS, path_of

    records: list[dict[str, Any]] = []
    for item in CHECKPOINTS.values():
        path = path_of(item)
        here = path.is_file()
        size = item.size or (path.stat().st_size if here else None)
        records.append(
            {
                "name": item.name,
                "licence": item.licence,
                "bytes": size,
                "hash": item.known_hash,
                "url": item.url,
                "page": item.page,
                "source": item.source,
                "path": str(path),
                "here": here,
            }
        )
    if as_json:
        return _print_json(records)
    rows = [
        (
            r["name"],
            r["licence"],
            f"{r['bytes'] / 1e6:,.0f} MB" if r["bytes"] else "size unknown",
            "here" if r["here"] else "to be fetched by hand" if r["page"] else "to be fetched",
            r["source"],
        )
        for r in records
    ]
    _print_table(("name", "licence", "size", "state", "source"), rows)
    for r in records:
        if r["page"] and not r["here"]:
            print(f"\n{r['name']} by hand: {r['page']}\nTo be put there: {r['path']}")


@weights_app.command("fetch")
def weights_fetch(name: str, as_json: Json = False) -> None:
    """Download a checkpoint; a download that broke off goes on where it stopped."""
    from medsaga_lib.backbones.weights import checkpoint, fetch

    path = fetch(name, progress=not as_json)
    item = checkpoint(name)
    if as_json:
        return _print_json({"name": name, "path": str(path), "licence": item.licence})
    print(f"{path}  ({item.licence}; {item.source})")


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """The data sets that can be named here."""
    from medsaga_lib.data.catalog import catalog

    entries = catalog()
    if as_json:
        return _print_json([asdict(entry) for entry in entries])
    rows = [(e.name, e.modality, e.cases, e.licence, e.fault or e.place) for e in entries]
    _print_table(("name", "modality", "cases", "licence", "place"), rows)


@data_app.command("check")
def data_check(folder: str, as_json: Json = False) -> None:
    """What is wrong with a data set, file by file; exit code 2 if something is."""
    from medsaga_lib.data.check import check_dataset
    from medsaga_lib.data.folder import find_dataset

    problems = check_dataset(find_dataset(folder))
    errors = [p for p in problems if not p.note]
    if as_json:
        _print_json(
            {
                "ok": not errors,
                "problems": [
                    {"file": str(p.file), "what": p.what, "remedy": p.remedy, "note": p.note}
                    for p in problems
                ],
            }
        )
    else:
        for problem in problems:
            print(f"{'note: ' if problem.note else ''}{problem}")
        print(f"{folder}: " + (f"{len(errors)} problems" if errors else "fine"))
    if errors:
        raise typer.Exit(2)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A name that `medsaga methods` prints.")],
    data: Data = "phantom_cxr",
    shots: Annotated[str, typer.Option(help="Labelled images to train on, or a share: 1%.")] = "32",
    backbone: Backbone = "pocket",
    out: Annotated[Path | None, typer.Option(help="Default: runs/RECIPE-DATA-SHOTS-sSEED.")] = None,
    weights: Annotated[
        str, typer.Option(help="Of the backbone: pretrained, random, or a file of its layout.")
    ] = "pretrained",
    size: Annotated[int | None, typer.Option(max=2**16, help="Pixels along one side.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Default: the recipe's.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Default: the recipe's.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Another value of the recipe, as lr=0.001.")
    ] = None,
    bf16: Bf16 = False,
    accumulate: Annotated[int, typer.Option(min=1, help="Passes that make up a batch.")] = 1,
    checkpointing: Checkpointing = False,
    per_layer: PerLayer = False,
    as_json: Json = False,
) -> None:
    """Train a recipe on a few labelled images; the same command goes on after a stop."""
    from medsaga_lib.data.batches import count_shots
    from medsaga_lib.data.folder import open_dataset
    from medsaga_lib.recipes import get_recipe
    from medsaga_lib.recipes.recipe import Scratch
    from medsaga_lib.training import train as run

    chosen = get_recipe(recipe)
    for name, value in (("steps", steps), ("batch", batch)):
        if value and any(change.startswith(f"{name}=") for change in changes or ()):
            raise UserError(f"--{name} and --set {name}= say the same; leave one.")
    chosen = replace(chosen, steps=steps or chosen.steps, batch=batch or chosen.batch)
    dataset = open_dataset(data)
    images = count_shots(dataset, shots)
    if out is None:
        start = "" if weights == "pretrained" else f"-{Path(weights).stem}"
        sam = "" if isinstance(chosen.image_encoder, Scratch) else f"-{backbone}{start}"
        what = "-".join([recipe, *(changes or ())])
        few = images if chosen.steps else 0
        out = Path("runs", f"{what}{sam}-{dataset.name}-{few}-s{seed}")
    result = run(
        chosen,
        dataset,
        images,
        out,
        backbone=backbone,
        weights=weights,
        size=size,
        seed=seed,
        changes=changes or (),
        precision="bf16" if bf16 else "fp32",
        accumulate=accumulate,
        checkpointing=checkpointing,
        per_layer=per_layer,
        progress=not as_json,
    )
    if int(os.environ.get("RANK", "0")):  # of several processes the first one speaks
        return
    last = result.log[-1] if result.log else {"loss": None, "val_dice": None}
    record = {
        "run": str(out),
        "steps": len(result.log),
        "loss": last["loss"],
        "val_dice": None if last["val_dice"] != last["val_dice"] else last["val_dice"],
        "seconds": sum(row["seconds"] for row in result.log),
        "trainable": sum(p.numel() for p in result.model.parameters() if p.requires_grad),
    }
    if as_json:
        return _print_json(record)
    dice = "" if record["val_dice"] is None else f", validation Dice {record['val_dice']:.3f}"
    print(f"{out}: {len(result.log)} steps in {record['seconds']:.0f} s{dice}")
    print(f"next: medsaga evaluate {out} --data {data}")


@app.command()
def evaluate(
    run: Path,
    data: Data,
    split: Split = Split.test,
    out: Annotated[Path | None, typer.Option(help="Default: a folder in RUN.")] = None,
    as_json: Json = False,
) -> None:
    """Dice, HD95 and NSD of a run, per case and class: CSV, JSON and a figure."""
    from medsaga_lib.data.folder import open_dataset
    from medsaga_lib.evaluation import without_nan
    from medsaga_lib.inference import evaluate_run, evaluation_folder

    dataset = open_dataset(data)
    out = out or evaluation_folder(run, dataset, split.value)
    evaluation = evaluate_run(run, dataset, split.value, out)
    summary = evaluation.summary()
    if as_json:
        return _print_json(without_nan(summary))
    rows = [
        (c["name"], *(_with_interval(c, m, d) for m, d in (("dice", 3), ("hd95", 1), ("nsd", 3))))
        for c in summary["classes"]
    ]
    low, high = evaluation.interval("dice")
    cases, patients = (evaluation.table[c].nunique() for c in ("case", "patient"))
    whose, over = (f" of {patients} patients", "patients") if patients < cases else ("", "cases")
    print(f"{cases} cases{whose}; in brackets 95 % intervals over {over}")
    print(f"prompts: {evaluation.prompts}\n" if evaluation.prompts else "")
    _print_table(("class", "Dice", "HD95", "NSD"), rows)
    print(f"\nmean Dice {summary['dice']:.3f} [{low:.3f}, {high:.3f}]")
    print(f"each case: {out / 'cases.csv'}; worst, middle and best: {out / 'figure.png'}")


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A run; or with boxes a backbone's name, as it is.")],
    inputs: Annotated[list[Path], typer.Argument(help="PNG, JPEG, TIFF, NIfTI or npz files.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    boxes: Annotated[
        list[str] | None,
        typer.Option("--box", help="x0,y0,x1,y1 or x0,y0,z0,x1,y1,z1; default: those of an npz."),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(help="Of a backbone: CT (level 40, width 400), or the intensities LOW,HIGH."),
    ] = None,
    slices: Annotated[Slices, typer.Option(help="Boxes of volumes, from slice to slice.")] = (
        Slices.propagate
    ),
    axis: Annotated[Axis, typer.Option(help="Across which volumes are cut.")] = Axis.z,
    consistency: Annotated[
        Consistency,
        typer.Option(help="Of volumes: majority of three slices, or largest pieces."),
    ] = Consistency.none,
    as_json: Json = False,
) -> None:
    """Label maps of pictures and volumes."""
    from medsaga_lib.data.boxes import read_boxes
    from medsaga_lib.inference import load_run, predict_files
    from medsaga_lib.prompted import load_prompted, predict_boxes, takes_boxes

    seen = None if window is None else parse_window(window)
    if boxes or takes_boxes(run):
        if axis is not Axis.z or consistency is not Consistency.none:
            raise UserError("Boxes lie in slices across z; leave --axis and --consistency.")
        asked = read_boxes(boxes) if boxes else None
        found = predict_boxes(load_prompted(run, seen), inputs, out, asked, slices.value)
    elif seen is not None:
        raise UserError(f"{run} was trained with its own window; leave --window.")
    elif slices is not Slices.propagate:
        raise UserError(f"{run} takes no boxes; leave --slices.")
    else:
        number = "zyx".index(axis.value)
        found = predict_files(load_run(run), inputs, out, number, consistency.value)
    records = []
    for record in found:
        records.append(record)
        if not as_json:
            print(record["labels"])
    if as_json:
        _print_json(records)


def parse_window(text: str) -> tuple[float, float]:
    """(low, high) of "CT" or "-160,240"; UserError for anything else."""
    from medsaga_lib.data.images import CT_WINDOW

    if text.upper() == "CT":
        return CT_WINDOW
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise UserError(
            f"--window {text} is no window; write CT or two numbers, as --window=-160,240."
        )
    return low, high


def parse_bytes(text: str) -> int:
    """Bytes of "16GiB", "512 MiB" or "16GB"; UserError for anything else."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*([KMGT]i?B)\s*", text)
    units = {"K": 1, "M": 2, "G": 3, "T": 4}
    try:
        number, unit = match.groups()  # type: ignore[union-attr]
        return int(float(number) * (1024 if "i" in unit else 1000) ** units[unit[0]])
    except (AttributeError, ValueError) as error:
        raise UserError(f"{text!r} is no amount of memory; write for example 16GiB.") from error


def _with_interval(record: dict[str, Any], metric: str, digits: int) -> str:
    low, high = record[f"{metric}_interval"]
    return f"{record[metric]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False))


def _print_table(header: tuple[str, ...], rows: list[tuple]) -> None:
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(str(cell).ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
