#!/usr/bin/env bash
# TorchMetrics 1.9.0 (torch 2.13.0): generalised Dice of an image, and the images beside it
#
# Good guess: the score of an image depends on that image, and organs predicted where none are lower it.
# Behaviour:  the weight of a class that the truth of an image lacks is 1/0. It is replaced by the largest
#             weight in the batch, and read from a table with rows and columns exchanged, so often from
#             another class. Alone in its batch, the weight is 0: what is predicted of this class is free.
# Matters:    volumes are validated one by one, and few have all organs. False positives of the others cost
#             nothing there. With larger batches, the score changes with the neighbours and their order.
# Seen (2026-12-03): 2 organs right, and 504 pixels of a third that is not there: alone 1.000; before and
#             after an image where all organs are right 0.031 and 0.890, with another 0.337 and 0.002.
#             weight_type="linear" has no such weights: 0.337 each time, the Dice of all pixels together.
# Where:      torchmetrics/functional/segmentation/generalized_dice.py, _generalized_dice_update
#             (repeat of a row, transposed, then flattened); torchmetrics#2846 is about per_class only
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check \
  numpy==2.4.6 torch==2.13.0 torchmetrics==1.9.0
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import sys
import torch
from torchmetrics.segmentation import GeneralizedDiceScore
from torchmetrics.functional.segmentation import generalized_dice_score


def image(**boxes):
    """A label map (32, 32): the rows and columns of liver 1, spleen 2 and kidney 3."""
    labels = torch.zeros(32, 32, dtype=torch.long)
    for label, organ in enumerate(("liver", "spleen", "kidney"), 1):
        if organ in boxes:
            top, bottom, left, right = boxes[organ]
            labels[top:bottom, left:right] = label
    return labels


truth = image(liver=(2, 10, 2, 10), spleen=(2, 10, 12, 20))
wrong = truth.clone()
wrong[12:30, 2:30] = 3  # a kidney of 504 pixels
others = [image(liver=(0, 2, 0, 2), spleen=(4, 8, 4, 8), kidney=(10, 26, 10, 26)),
          image(liver=(0, 16, 0, 16), spleen=(16, 24, 16, 24), kidney=(28, 30, 28, 30))]


def scores(*pairs, weight_type="square"):
    predicted, annotated = (torch.stack(part) for part in zip(*pairs))
    return generalized_dice_score(predicted, annotated, num_classes=4, include_background=False,
                                  weight_type=weight_type, input_format="index").tolist()


mine, seen, linear = (wrong, truth), [], []
for weight_type, found in (("square", seen), ("linear", linear)):
    found += scores(mine, weight_type=weight_type)
    for other in others:
        found.append(scores(mine, (other, other), weight_type=weight_type)[0])
        found.append(scores((other, other), mine, weight_type=weight_type)[1])
    print(f"{weight_type}: alone {found[0]:.3f}; before and after an image without errors "
          + ", ".join(f"{before:.3f} and {after:.3f}" for before, after in (found[1:3], found[3:5])))
metric = GeneralizedDiceScore(num_classes=4, include_background=False, input_format="index")
metric.update(wrong[None], truth[None])
alone = metric.compute().item()
print(f"GeneralizedDiceScore, batches of one image: {alone:.3f}")
expected = [1.0, 0.031, 0.890, 0.337, 0.002]
same = all(abs(one - two) < 5e-4 for one, two in zip(seen, expected))
if not (same and alone == 1.0 and max(linear) - min(linear) < 1e-6 and abs(linear[0] - 0.337) < 5e-4):
    sys.exit("TorchMetrics' generalised Dice of an image is no longer what the head of this script says.")
PY
