"""The command `python -m medsaga_lib.pretraining`."""

import argparse
import json
import math
from pathlib import Path

from medsaga_lib import pretraining
from medsaga_lib.data.folder import open_dataset
from medsaga_lib.data.procedural import HELD_OUT, TRAINED
from medsaga_lib.errors import UserError
from medsaga_lib.pretraining.pictures import Settings, unseen_scenes
from medsaga_lib.pretraining.real import real_objects
from medsaga_lib.pretraining.run import Run, export, train
from medsaga_lib.pretraining.scores import evaluate, prompted, spread

REPORT_PICTURES = 200  # of each set


def main() -> None:
    parser = argparse.ArgumentParser(description=pretraining.__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the run; one that exists goes on")
    add("--steps", type=int, default=Settings.steps, help="of the whole schedule")
    add("--minutes", type=float, default=math.inf, help="stop after; the same command goes on")
    add("--seed", type=int, default=Settings.seed)
    add("--size", type=int, default=Settings.size, help="pixels along one side of a picture")
    add("--start", type=Path, help="begin with these weights, made at any size")
    add("--pictures", type=int, default=Settings.pictures, help="in a step")
    add("--objects", type=int, default=Settings.objects, help="prompted in a picture")
    add("--corrections", type=int, default=Settings.corrections, help="clicks after a prompt")
    add("--clutter", type=float, default=Settings.clutter, help="share of untidy pictures")
    add("--learning-rate", type=float, default=Settings.learning_rate)
    add("--patch-rate", type=float, default=Settings.patch_rate, help="of the patch embedding")
    add("--device", default="cpu", help="cpu or cuda")
    add("--bf16", action="store_true", help="bfloat16 where autocast allows it, for GPUs")
    add("--workers", type=int, default=0, help="processes that draw pictures")
    add("--export", type=Path, help="also write the averaged weights in float16 to this file")
    add("--report", action="store_true", help="print the table of the model card as JSON and stop")
    add("--data", nargs="+", default=[], help="data sets with real objects for the report")
    options = parser.parse_args()

    try:
        _run(options)
    except UserError as error:
        parser.error(str(error))


def _run(options: argparse.Namespace) -> None:
    asked = {name: value for name, value in vars(options).items() if hasattr(Settings, name)}
    settings = Settings(**asked)
    saved = options.out / "run.safetensors"
    if options.start and not options.start.is_file():
        raise UserError(f"There are no weights at {options.start}; give a run.safetensors.")
    real = [open_dataset(name) for name in options.data]
    if real and not options.report:
        raise UserError("--data is for --report: no step of the pretraining sees a real picture.")
    if options.report and not saved.exists():
        raise UserError(f"There is no run at {options.out} to report on; train it first.")
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
            scenes = unseen_scenes(REPORT_PICTURES, families, settings.size)
            print(json.dumps({"families": name} | evaluate(sam, prompted(scenes))))
        print(json.dumps({"spread": spread(sam)}))
        for dataset in real:
            for name, pictures in real_objects(dataset, settings.size):
                print(json.dumps({"real": name} | evaluate(sam, pictures)), flush=True)


if __name__ == "__main__":
    main()
