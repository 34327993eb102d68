"""The command `python -m medsaga_lib.pretraining`."""

import argparse
import json
import math
from pathlib import Path

from medsaga_lib import pretraining
from medsaga_lib.data.folder import DataSet, open_dataset
from medsaga_lib.data.procedural import HELD_OUT, TRAINED
from medsaga_lib.errors import UserError
from medsaga_lib.pretraining.pictures import Settings, unseen_scenes
from medsaga_lib.pretraining.real import real_objects
from medsaga_lib.pretraining.run import Run, export, train
from medsaga_lib.pretraining.scores import evaluate, prompted, spread
from medsaga_lib.pretraining.together import join, share

REPORT_PICTURES = 200  # of each set


def main() -> None:
    parser = argparse.ArgumentParser(description=pretraining.__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--out", type=Path, help="folder of the run; one that exists goes on")
    add("--steps", type=int, default=Settings.steps, help="of the whole schedule")
    add("--minutes", type=float, default=math.inf, help="stop after; the same command goes on")
    add("--seed", type=int, default=Settings.seed)
    add("--size", type=int, default=Settings.size, help="pixels along one side of a picture")
    add("--start", type=Path, help="begin with these weights, of any size, best with a new --seed")
    add("--pictures", type=int, default=Settings.pictures, help="in a step")
    add("--objects", type=int, default=Settings.objects, help="prompted in a picture")
    add("--corrections", type=int, default=Settings.corrections, help="clicks after a prompt")
    add("--clutter", type=float, default=Settings.clutter, help="share of untidy pictures")
    add("--learning-rate", type=float, default=Settings.learning_rate)
    add("--patch-rate", type=float, default=Settings.patch_rate, help="of the patch embedding")
    add("--iou-head-alone", action="store_true", help="all other weights stay as they are")
    add("--width", type=int, default=Settings.width, help="channels of the image encoder")
    add("--depth", type=int, default=Settings.depth, help="its blocks")
    add("--heads", type=int, default=Settings.heads, help="of each block's attention")
    add("--device", default="cpu", help="cpu or cuda")
    add("--bf16", action="store_true", help="bfloat16 where autocast allows it")
    add("--workers", type=int, default=0, help="processes that draw pictures")
    add("--export", type=Path, help="also write the averaged weights in float16 to this file")
    add("--report", action="store_true", help="print the model card's tables of --out or --start")
    add("--data", nargs="+", default=[], help="data sets with real objects for the report")
    options = parser.parse_args()

    try:
        _run(options)
    except UserError as error:
        parser.error(str(error))


def _run(options: argparse.Namespace) -> None:
    real = [open_dataset(name) for name in options.data]
    if real and not options.report:
        raise UserError("--data is for --report: no step of the pretraining sees a real picture.")
    join()
    run = _opened(options)
    if options.report:
        if share()[0] == 0:
            _report(run, real)
        return
    train(run, options.out, options.minutes, options.bf16, options.workers)
    if options.export and share()[0] == 0:
        export(run, options.export)


def _opened(options: argparse.Namespace) -> Run:
    """The run that is in --out, or a new one."""
    asked = {name: value for name, value in vars(options).items() if hasattr(Settings, name)}
    settings = Settings(**asked)
    saved = options.out / "run.safetensors" if options.out else None
    if saved and saved.exists():
        run = Run.load(saved, options.device)
        if run.settings != settings and not options.report:
            raise UserError(f"{saved} was begun with {run.settings}; repeat them or change --out.")
        return run
    if options.report and not options.start:
        where = f"at {options.out}" if options.out else "without --out"
        raise UserError(f"There is no run {where} to report on; train it first, or name --start.")
    if not options.report and not options.out:
        raise UserError("A run needs a folder: give --out.")
    run = Run(settings, options.device)
    if options.start:
        if not options.start.is_file():
            raise UserError(f"There are no weights at {options.start}; give a run.safetensors.")
        run.start_from(options.start)
    return run


def _report(run: Run, real: list[DataSet]) -> None:
    """Prints the model card's tables, one JSON object a row."""
    sam, size = run.averaged(), run.settings.size
    for name, families in (("trained", TRAINED), ("held_out", HELD_OUT)):
        scores = evaluate(sam, prompted(unseen_scenes(REPORT_PICTURES, families, size)))
        print(json.dumps({"families": name} | scores), flush=True)
    print(json.dumps({"spread": spread(sam)}))
    for dataset in real:
        for name, pictures in real_objects(dataset, size):
            print(json.dumps({"real": name} | evaluate(sam, pictures)), flush=True)


if __name__ == "__main__":
    main()
