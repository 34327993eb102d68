#!/usr/bin/env bash
# MedPy 0.5.2 with NumPy 2.2.6 and with NumPy 2.3.0: two empty masks
#
# Good guess: the Dice of two empty masks is fixed by the version of MedPy.
# Behaviour:  NumPy decides. MedPy catches ZeroDivisionError and returns 1. Since NumPy 2.3 count_nonzero
#             returns a NumPy integer, whose division by zero does not raise: the same call returns nan
#             and a RuntimeWarning. dc, precision and recall change; jc converts to float first and stays 1.
# Matters:    slices and patients without the organ: a right "nothing here" counted as 1, now it is nan. It
#             spoils a mean or drops out of a nanmean: the same 10 slices score .91, nan or .77 after an
#             update of NumPy, and Jaccard still counts what Dice leaves out.
# Seen (2026-11-29): dc, jc, precision, recall: 1, 1, 0, 0 (2.2.6) and nan, 1, nan, nan (2.3.0).
# Where:      medpy/metric/binary.py, dc; type(numpy.count_nonzero(x)) is int in 2.2.6 and numpy.int64 in 2.3.0
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check \
  numpy==2.2.6 scipy==1.17.1 SimpleITK==2.5.7 medpy==0.5.2
cat > "$dir/check.py" <<'PY'
import sys
import numpy as np
from medpy.metric.binary import dc, jc, precision, recall

empty, organ = np.zeros((16, 16), bool), np.ones((16, 16), bool)
seen = [float(f(empty, empty)) for f in (dc, jc, precision, recall)]
half = organ & (np.arange(16) < 10)  # found in 4 of 10 slices; the other 6 are empty, and rightly so
pairs = [(half, organ)] * 4 + [(empty, empty)] * 6
dice, jaccard = [dc(*p) for p in pairs], [jc(*p) for p in pairs]
print(f"NumPy {np.__version__}: dc, jc, precision, recall of two empty masks: {seen}")
print(f"  10 slices: mean Dice {np.mean(dice):.2f}, nanmean {np.nanmean(dice):.2f}, mean Jaccard {np.mean(jaccard):.2f}")
expected = [float(x) for x in sys.argv[1:]]
if not np.array_equal(seen, expected, equal_nan=True):
    sys.exit("MedPy's values for two empty masks with this NumPy are no longer the stated ones.")
PY
"$dir/venv/bin/python" -W ignore "$dir/check.py" 1 1 0 0
"$dir/venv/bin/pip" install -qq --disable-pip-version-check numpy==2.3.0
"$dir/venv/bin/python" -W ignore "$dir/check.py" nan 1 nan nan
