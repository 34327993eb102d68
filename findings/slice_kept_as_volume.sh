#!/usr/bin/env bash
# MedPy 0.5.2 and surface-distance 0.1: a 2-D mask given with a depth of one, shape (1, H, W)
#
# Good guess: an axis of length one changes nothing: the slice has the same contour.
# Behaviour:  in 3-D the flat top and bottom of the slice are surface, so every pixel of the mask counts as
#             surface, and inside the overlap the distance is 0. Both libraries; no warning.
#             The plain Hausdorff distance stays here; of a mask with a hole it changes too.
# Matters:    networks hand out (1, H, W), so slice-wise evaluation falls into it. A disc moved by 8 pixels
#             gets an NSD of .89 instead of .21 and an average distance of .6 instead of 4.8: the numbers
#             follow the overlap, and they flatter large organs most.
# Seen (2026-11-29): (H, W) to (1, H, W): HD95 8.0 -> 5.0, ASSD 4.82 -> 0.61 (MedPy);
#             NSD at 2 px .213 -> .893, HD95 8.0 -> 4.24 (surface-distance).
# Where:      medpy/metric/binary.py, __surface_distances; surface_distance/metrics.py,
#             compute_surface_distances (2-D and 3-D are told apart by the number of axes alone)
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check \
  numpy==2.4.6 scipy==1.17.1 SimpleITK==2.5.7 medpy==0.5.2 surface-distance==0.1
cd "$dir"
venv/bin/python - <<'PY'
import sys
import numpy as np
import surface_distance as sd
from medpy.metric.binary import assd, hd, hd95

def disc(column):
    y, x = np.mgrid[:128, :128]
    return (y - 64) ** 2 + (x - column) ** 2 <= 30 ** 2

truth, prediction = disc(64), disc(72)
rows = {}
for name, a, b in (("(H, W)", prediction, truth), ("(1, H, W)", prediction[None], truth[None])):
    d = sd.compute_surface_distances(b, a, (1,) * a.ndim)
    rows[name] = [hd(a, b), hd95(a, b), assd(a, b), sd.compute_surface_dice_at_tolerance(d, 2),
                  sd.compute_robust_hausdorff(d, 95)]
    print(f"{name:10} MedPy HD %.2f, HD95 %.2f, ASSD %.2f; surface-distance NSD %.3f, HD95 %.2f" % tuple(rows[name]))
flat, deep = rows.values()
if not np.allclose(flat, [8, 8, 4.8158, 0.21295, 8], atol=0.01):
    sys.exit("The numbers of the 2-D masks have changed.")
if not np.allclose(deep, [8, 5, 0.6091, 0.89336, 4.2426], atol=0.01):
    sys.exit("An axis of length one no longer turns the whole mask into surface.")
PY
