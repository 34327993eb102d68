"""Keeps the curves of pretraining runs, with their settings, as a recorded result of the book.

    python -m tools.curves pretraining_shapes RUN RUN
    python -m tools.curves pretraining RUN RUN --reports before=FILE after=FILE

A RUN is a folder that `python -m medsaga_lib.pretraining --out RUN` has written, a FILE what it
printed with --report.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from medsaga_lib.backbones.sam import build_sam
from medsaga_lib.errors import UserError
from medsaga_lib.files import write_json
from medsaga_lib.pretraining.pictures import Settings
from medsaga_lib.pretraining.run import RUN_FILE, saved_words
from tools.record import RECORDED, machine


def main(words: list[str] | None = None, folder: Path = RECORDED) -> None:
    """Reads the command line, writes notebooks/recorded/NAME.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--reports", nargs="+", default=[], metavar="NAME=FILE")
    options = parser.parse_args(words)
    kept: dict[str, Any] = {"provenance": machine()}
    try:
        kept["runs"] = [recorded(run) for run in options.runs]
        if options.reports:
            kept["reports"] = dict(report(words) for words in options.reports)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    write_json(folder / f"{options.name}.json", kept)


def recorded(run: Path) -> dict[str, Any]:
    """The settings that a run's file names, the network's parameters, the rows of the curve."""
    weights, curve = run / RUN_FILE, run / "curve.csv"
    if not (weights.exists() and curve.exists()):
        raise UserError(f"There is no run at {run}; give a folder with {weights.name}.")
    step, named = saved_words(weights)
    settings = Settings(**named)
    with torch.device("meta"):
        sam = build_sam(settings.shape, settings.size)
    rows = pd.read_csv(curve)
    rows = rows[rows["step"] <= step]  # later ones were not saved
    return {
        "settings": named,
        "parameters": sum(parameter.numel() for parameter in sam.parameters()),
        "rows": json.loads(rows.to_json(orient="records")),  # null where a row has no test
    }


def report(words: str) -> tuple[str, list[dict[str, Any]]]:
    """The name and the rows of NAME=FILE."""
    name, _, file = words.partition("=")
    if not (name and Path(file).is_file()):
        raise UserError(f"--reports {words}: give NAME=FILE, with what --report printed in FILE.")
    try:
        return name, [json.loads(line) for line in Path(file).read_text().splitlines()]
    except ValueError as error:
        raise UserError(f"{file} is not what --report printed ({error}).") from error


if __name__ == "__main__":
    main()
