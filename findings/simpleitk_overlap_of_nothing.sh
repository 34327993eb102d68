#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4): LabelOverlapMeasures where an organ is missed or in neither mask
#
# Good guess: a measure whose denominator is 0 is nan, or at least the same by label and without a label.
# Behaviour:  Dice of two empty masks is inf without a label; with label 1 it is 0, and a warning. Jaccard and
#             the errors are 1.8e308, the largest number of a double. A missed organ has the false-positive
#             rate 0 without a label; with its label, it is 1.8e308, also where another organ was found.
# Matters:    1.8e308 is finite, so no check for inf or nan stops it. A mean over cases is inf or about 1e307,
#             and one case decides it. By label, a right "nothing here" lowers the mean Dice instead.
# Seen (2026-12-04): Dice of two empty masks inf and 0.0, false negatives 1.8e308 and 0.0; missed: false
#             positives 0.0 without a label and 1.8e308 with it. Mean Dice of 9 perfect cases and an empty
#             pair: inf without a label, 0.9 with it.
# Where:      itkLabelOverlapMeasuresImageFilter.hxx, GetDiceCoefficient and GetFalsePositiveError
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check numpy==2.4.6 SimpleITK==2.5.7
cd "$dir"
venv/bin/python - 2> /dev/null <<'PY' || { echo "SimpleITK's overlap of empty masks is no longer what the head of this script says."; exit 1; }
import sys
import numpy as np
import SimpleITK as sitk


def overlap(predicted, annotated):
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(sitk.GetImageFromArray(predicted), sitk.GetImageFromArray(annotated))
    return measures


def both(measure):
    """A measure without a label, and of label 1."""
    return measure(), measure(1)


nothing = np.zeros((32, 32), np.uint8)
kidney = nothing.copy()
kidney[4:12, 4:12] = 1
liver = nothing.copy()
liver[16:30, 4:28] = 2

empty, missed = overlap(nothing, nothing), overlap(nothing, kidney)
found = overlap(liver, liver + kidney)  # the liver is right, the kidney is missed
seen = {
    "empty pair, Dice": both(empty.GetDiceCoefficient),
    "empty pair, Jaccard": both(empty.GetJaccardCoefficient),
    "empty pair, false negatives": both(empty.GetFalseNegativeError),
    "missed, false positives": both(missed.GetFalsePositiveError),
    "missed, liver found, false positives": both(found.GetFalsePositiveError),
}
for name, (whole, one) in seen.items():
    print(f"{name}: {whole} without a label, {one} with label 1")
cases = [overlap(kidney, kidney)] * 9 + [empty]
means = [float(np.mean([case.GetDiceCoefficient(*label) for case in cases])) for label in ((), (1,))]
print(f"mean Dice of 9 perfect cases and an empty pair: {means[0]}, with label 1 {means[1]}")
most = sys.float_info.max
expected = [(np.inf, 0.0), (most, 0.0), (most, 0.0), (0.0, most), (0.0, most)]
if list(seen.values()) != expected or means != [np.inf, 0.9] or not np.isfinite(most):
    sys.exit(1)
PY
