#!/usr/bin/env bash
# scipy 1.17.1 and statsmodels 0.15.0: power of a paired t-test, far lower tail of the noncentral t
#
# Good guess: The lower tail of a noncentral t far from its centre is a tiny number or 0, and the power of a
#             two-sided t-test grows with the effect up to 1.
# Behaviour:  nct.cdf is NaN at some points of that tail and 0 or tiny at their neighbours. statsmodels adds
#             both tails, so TTestPower.power is NaN for some large effects, with numbers on both sides of
#             them, and solve_power ends at NaN with a ConvergenceWarning.
# Matters:    Differences of segmentation methods on the same patients are often many times their standard
#             deviation (Dice against a network from scratch). A table of "patients needed" then has gaps,
#             or a program stops when it rounds NaN up to a whole number. The upper tail alone is right.
# Seen (2026-11-30): 10 patients, d = 2 to 12: power NaN for 3, 5, 7, 8, 10, 11 and 12, and 0.9998 or 1 for
#             2, 4, 6 and 9. The lower tail is NaN for the same, and 4e-15 to 8e-121 for the others. The upper
#             tail is above 0.999 for all. solve_power(8, power=0.8): NaN.
# Where:      scipy.stats.nct (Boost's non_central_t); statsmodels/stats/power.py, ttest_power
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check scipy==1.17.1 numpy==2.4.6 pandas==3.1.1 \
    statsmodels==0.15.0
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import math
import sys

import scipy
import statsmodels
from scipy.stats import nct, t
from statsmodels.stats.power import TTestPower

PATIENTS, EFFECTS = 10, range(2, 13)
least = t.isf(0.025, PATIENTS - 1)
power = {d: float(TTestPower().power(d, PATIENTS, 0.05)) for d in EFFECTS}
lower = {d: float(nct.cdf(-least, PATIENTS - 1, d * math.sqrt(PATIENTS))) for d in EFFECTS}
upper = [float(nct.sf(least, PATIENTS - 1, d * math.sqrt(PATIENTS))) for d in EFFECTS]
needed = TTestPower().solve_power(8, alpha=0.05, power=0.8)
print(f"scipy {scipy.__version__}, statsmodels {statsmodels.__version__}")
for d in EFFECTS:
    print(f"d = {d}: power {power[d]:.6f}, lower tail {lower[d]:.2g}")
print(f"d = 8: patients needed {needed}")
lost = [d for d in EFFECTS if math.isnan(power[d])]
between = lost and any(not math.isnan(power[d]) for d in range(lost[0], lost[-1]))
fits = lost == [d for d in EFFECTS if math.isnan(lower[d])]
if not (between and fits and min(upper) > 0.99 and math.isnan(needed)):
    sys.exit("the tails behave differently now")
PY
