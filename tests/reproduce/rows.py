"""Rows of made-up runs for the tests of verdicts, pages and merges."""

import json

import numpy as np

from medsaga_lib.reproduce.published import find_table


def a_row(table="medsaga_table1", place=("Spleen", "100", "medsaga"), seed=0, **facts):
    """A row of a run as the paper trained it, with a Dice for each of 30 patients."""
    dataset, images, method = place
    found = find_table(table)
    recipe = found.recipe_of(method)
    dice = np.clip(np.random.default_rng(seed).normal(facts.pop("mean", 0.84), 0.02, 30), 0, 1)
    cases = [[f"c{n}", f"p{n}", round(float(value), 4)] for n, value in enumerate(dice)]
    row = {
        "table": table, "dataset": dataset, "images": images, "method": method,
        "recipe": recipe, "weights": "pretrained", "data": found.sets[dataset], "asked": images,
        "shots": 100, "seed": seed, "size": found.size_of(method), "backbone": found.backbone,
        "planned_steps": 2000, "steps": 2000, "batch": 12, "trainable": 5, "classes": 1,
        "command": f"medsaga train {recipe} --data {found.sets[dataset]} --seed {seed}",
        "official": True, "index_sha256": "ab", "backbone_sha256": "cd", "data_text": "41 volumes",
        "date": "2026-11-30", "device": "one GPU", "versions": {"torch": "2.13.0"}, "commit": "ef",
        "seconds": 60, "wall_seconds": 90, "cpu_seconds": 80, "evaluation_cpu_seconds": 9,
        "peak_bytes": 7, "collapsed": None, "val_dice": 0.8, "dice": float(np.mean(dice)),
        "hd95": 14.0, "nsd": 0.5, "dice_interval": [0.8, 0.9], "case_dice": cases,
    }  # fmt: skip
    return json.loads(json.dumps(row | facts))
