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
from safetensors import safe_open

from medsaga_lib.backbones.sam import build_sam
from medsaga_lib.errors import UserError
from medsaga_lib.files import write_json
from medsaga_lib.pretraining.pictures import Settings
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
    """The settings, the network's parameters and the rows of the curve of one run."""
    weights, curve = run / "run.safetensors", run / "curve.csv"
    if not (weights.exists() and curve.exists()):
        raise UserError(f"There is no run at {run}; give a folder with {weights.name}.")
    with safe_open(weights, "pt") as file:
        settings = json.loads(file.metadata()["settings"])
    with torch.device("meta"):
        sam = build_sam(Settings(**settings).shape)
    rows = pd.read_csv(curve).to_json(orient="records")  # null where a row has no test
    return {
        "settings": settings,
        "parameters": sum(parameter.numel() for parameter in sam.parameters()),
        "rows": json.loads(rows),
    }


def report(words: str) -> tuple[str, list[dict[str, Any]]]:
    """The name and the rows of NAME=FILE."""
    name, _, file = words.partition("=")
    if not (name and Path(file).is_file()):
        raise UserError(f"--reports {words}: give NAME=FILE, with what --report printed in FILE.")
    return name, [json.loads(line) for line in Path(file).read_text().splitlines()]


if __name__ == "__main__":
    main()
