#!/usr/bin/env bash
# seg-metrics 1.2.8: HD95, HD and mean surface distance of a missed organ
#
# Good guess: a missed organ has an infinite or undefined surface distance, or raises an error as in MedPy.
# Behaviour:  every surface distance is 0, as for a perfect mask. Where a mask is empty, its distance map is
#             set to 0 "otherwise SignedMaurerDistanceMap may raise exceptions", and read as distances. The same
#             for an organ that is predicted but not there. Dice is 0 in both cases. The log has a note on precision
#             and recall, and none on the distances.
# Matters:    the mean HD95 of a network falls with each organ that it misses; a network that predicts nothing
#             has the best one.
# Seen (2026-11-30): hd95, hd, msd of a missed organ, and of one that is not there: 0.0; of one 5 pixels off: 5.0.
# Where:      seg_metrics/seg_metrics.py, computeQualityMeasures ("all 0, set the distance map to 0")
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
# without dependencies, because one that is never imported, PySimpleGUI, is not on every index
"$dir/venv/bin/pip" install -qq --disable-pip-version-check --no-deps seg-metrics==1.2.8 medutils==0.1.21
"$dir/venv/bin/pip" install -qq --disable-pip-version-check \
  numpy==2.4.6 scipy==1.17.1 pandas==3.1.1 matplotlib==3.11.2 SimpleITK==2.5.7 tqdm==4.70.1 pingouin==0.7.0
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys
import numpy as np
from seg_metrics.seg_metrics import write_metrics

organ = np.zeros((32, 32), int)
organ[4:8, 4:8] = 1
nothing = np.zeros_like(organ)
pairs = {"5 pixels off": (np.roll(organ, 5, 0), organ), "missed": (nothing, organ), "not there": (organ, nothing)}
seen = {}
for name, (prediction, truth) in pairs.items():
    (found,) = write_metrics([1], gdth_img=truth, pred_img=prediction, metrics=["dice", "hd95", "hd", "msd"])
    seen[name] = {metric: float(found[metric][0]) for metric in ("dice", "hd95", "hd", "msd")}
    print(f"{name:13}", *(f"{metric} {value:.1f}" for metric, value in seen[name].items()))
for name in ("missed", "not there"):
    if list(seen[name].values()) != [0, 0, 0, 0]:
        sys.exit("seg-metrics no longer gives a surface distance of 0 where a mask is empty.")
if seen["5 pixels off"]["hd95"] != 5:
    sys.exit("seg-metrics no longer gives 5 for a square that is 5 pixels off.")
PY
