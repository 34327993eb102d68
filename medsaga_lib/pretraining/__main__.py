"""The command `python -m medsaga_lib.pretraining`."""

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path

import torch

from medsaga_lib import pretraining
from medsaga_lib.data.folder import DataSet, open_dataset
from medsaga_lib.data.procedural import DRAWN, HELD_OUT
from medsaga_lib.errors import UserError
from medsaga_lib.files import file_hash
from medsaga_lib.pretraining.pictures import Settings, unseen_scenes
from medsaga_lib.pretraining.real import real_objects
from medsaga_lib.pretraining.run import RUN_FILE, Run, saved_state, train
from medsaga_lib.pretraining.scores import evaluate, prompted, spread
from medsaga_lib.pretraining.together import joined, share

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
    often = "of the scenes; one named twice is drawn twice as often"
    add("--families", nargs="+", default=DRAWN, metavar="FAMILY", help=often)
    add("--clutter", type=float, default=Settings.clutter, help="share of untidy pictures")
    add("--learning-rate", type=float, default=Settings.learning_rate)
    add("--patch-rate", type=float, default=Settings.patch_rate, help="of the patch embedding")
    add("--iou-head-alone", action="store_true", help="all other weights stay as they are")
    add("--width", type=int, default=Settings.width, help="channels of the image encoder")
    add("--depth", type=int, default=Settings.depth, help="its blocks")
    add("--heads", type=int, default=Settings.heads, help="of each block's attention")
    add("--device", choices=("cpu", "cuda"), default="cpu")
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
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("There is no GPU that torch can use; leave --device.")
    with joined(options.device):
        if not options.report:
            _train(options)
        elif share()[0] == 0:
            _report(_to_report(options), real)


def _train(options: argparse.Namespace) -> None:
    """A function of its own, because a run must be gone before the group of its processes is.

    DistributedDataParallel holds the group, and as its last holder it can wait for ever: it
    takes the GIL along, for which a thread of the group waits (pytorch/pytorch issue 56297).
    """
    run = _opened(options)
    train(run, options.out, options.minutes, options.workers)
    if options.export and share()[0] == 0:
        run.export(options.export)


def _opened(options: argparse.Namespace) -> Run:
    """The run that is in --out, or a new one."""
    if not options.out:
        raise UserError("A run needs a folder: give --out.")
    asked = {name: value for name, value in vars(options).items() if hasattr(Settings, name)}
    asked |= {"processes": share()[1], "start": file_hash(options.start) if options.start else ""}
    settings, saved = Settings(**asked), options.out / RUN_FILE
    if saved.exists():
        run = Run.load(saved, options.device)
        for name, value in asdict(run.settings).items():
            if getattr(settings, name) != value:
                raise UserError(
                    f"{saved} was begun with {name} {value}, not {getattr(settings, name)}; repeat "
                    "its words or change --out."
                )
        return run
    run = Run(settings, options.device)
    if options.start:
        run.start_from(options.start)
    return run


def _to_report(options: argparse.Namespace) -> Run:
    """The run in --out, or one with the weights of --start."""
    if bool(options.out) == bool(options.start):
        raise UserError("A report is on the run in --out or on the weights of --start; give one.")
    if options.start:
        _, settings = saved_state(options.start)
        run = Run(settings, options.device)
        run.start_from(options.start)
        return run
    if not (options.out / RUN_FILE).exists():
        raise UserError(f"There is no run at {options.out} to report on; train it first.")
    return Run.load(options.out / RUN_FILE, options.device)


def _report(run: Run, real: list[DataSet]) -> None:
    """Prints the model card's tables, one JSON object a row."""
    sam, size = run.averaged(), run.settings.size
    for name, families in (("trained", run.settings.trained), ("held_out", HELD_OUT)):
        scores = evaluate(sam, prompted(unseen_scenes(REPORT_PICTURES, families, size)))
        print(json.dumps({"families": name} | scores), flush=True)
    print(json.dumps({"spread": spread(sam)}))
    for dataset in real:
        for name, pictures in real_objects(dataset, size):
            print(json.dumps({"real": name} | evaluate(sam, pictures)), flush=True)


if __name__ == "__main__":
    main()
