#!/usr/bin/env bash
# MONAI 1.6.1 (torch 2.13.0): the mean HD95 of a network that misses an organ
#
# Good guess: a missed organ makes the mean HD95 worse: it counts as infinite, or as a large distance.
# Behaviour:  HausdorffDistanceMetric gives nan for it, and aggregate() leaves nan out of the mean, so to miss
#             a badly segmented organ improves the mean. If all are missed, the mean is 0.0, the best HD95
#             there is. There is a warning for each mask, none with the mean. The Dice of the same masks is 0.
# Matters:    a network that predicts nothing wins a comparison by HD95, and a sweep that minimises it picks
#             that network. get_not_nans=True tells how many cases the mean has.
# Seen (2026-11-30): two cases, HD95 3 and 10: mean 6.5; the second one missed: 3.0; both missed: 0.0.
# Where:      monai/metrics/hausdorff_distance.py, _compute_percentile_hausdorff_distance (nan for no distances);
#             monai/metrics/utils.py, do_metric_reduction (mean of what is not nan, 0 if there is nothing)
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 torch==2.13.0 monai==1.6.1
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys
import torch
from monai.metrics import DiceMetric, HausdorffDistanceMetric

organ = torch.zeros(1, 1, 32, 32)
organ[..., 4:8, 4:8] = 1
near, far, nothing = organ.roll(3, 2), organ.roll(10, 2), torch.zeros_like(organ)

def mean(metric, *predictions):
    for prediction in predictions:
        metric(prediction, organ)
    return metric.aggregate().item()

seen = []
for name, pair in {"both found": (near, far), "one missed": (near, nothing), "both missed": (nothing, nothing)}.items():
    hd95 = mean(HausdorffDistanceMetric(include_background=True, percentile=95), *pair)
    dice = mean(DiceMetric(include_background=True), *pair)
    seen.append(hd95)
    print(f"{name:11}: mean HD95 {hd95:.1f}, mean Dice {dice:.2f}")
if seen != [6.5, 3.0, 0.0]:
    sys.exit("MONAI's mean HD95 no longer leaves missed organs out.")
PY
