#!/usr/bin/env bash
# surface-distance 0.1 (DeepMind's, as on PyPI) with NumPy 1.26.4 and 2.4.6: the first missed organ
#
# Good guess: a package that imports and computes distances with NumPy 2 works with NumPy 2.
# Behaviour:  it fails at the first case where prediction or truth is empty: AttributeError, np.Inf was removed.
#             Pairs of masks that both have elements never reach that line. With NumPy 1 the HD95 is inf.
# Matters:    an evaluation runs for hours and ends in a traceback at the first missed organ; and a script that
#             skips cases which raise then skips exactly the missed ones, and its mean improves.
# Seen (2026-11-30): HD95 of a square 5 pixels off: 5.0 with both; of a missed one: inf, and AttributeError.
# Where:      surface_distance/metrics.py, compute_surface_distances: np.Inf * np.ones(...)
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
cat > "$dir/check.py" <<'PY'
import sys
import numpy as np
import surface_distance as sd

organ = np.zeros((32, 32), bool)
organ[4:8, 4:8] = True

def hd95(prediction):
    try:
        return sd.compute_robust_hausdorff(sd.compute_surface_distances(organ, prediction, (1, 1)), 95)
    except AttributeError as error:
        return f"AttributeError: {str(error).splitlines()[0][:40]}"

found, missed = hd95(np.roll(organ, 5, 0)), hd95(np.zeros_like(organ))
print(f"NumPy {np.__version__}: HD95 of a square 5 pixels off: {found}; of a missed one: {missed}")
if found != 5 or not str(missed).startswith(sys.argv[1]):
    sys.exit("surface-distance no longer behaves as stated with this NumPy.")
PY
"$dir/venv/bin/pip" install -qq --disable-pip-version-check numpy==1.26.4 scipy==1.13.1 surface-distance==0.1
"$dir/venv/bin/python" -W ignore "$dir/check.py" inf
"$dir/venv/bin/pip" install -qq --disable-pip-version-check numpy==2.4.6 scipy==1.17.1
"$dir/venv/bin/python" -W ignore "$dir/check.py" AttributeError
