"""Learning rate of a step: linear warm-up, then polynomial decay (SAMed, arXiv 2304.13785)."""

REFERENCE_WARMUP = 250  # iterations; SAMed and MedSAGa
POWER = 0.9  # SAMed's code


def warmup_polynomial(
    step: int, base: float, warmup: int, total: int, power: float = POWER
) -> float:
    """Learning rate of step `step` (0, 1, ...): up to `base` in `warmup` steps, then down.

    `base * (step + 1) / warmup` during the warm-up, `base * (1 - (step - warmup) / total) ** power`
    after it. Because `total` counts all steps and the decay starts `warmup` steps late, the rate
    does not reach 0 at the last step; this is SAMed's formula. `warmup=0` leaves the warm-up out.

    Raises:
        ValueError: a negative step, or one beyond the end of the decay.

    >>> [warmup_polynomial(step, 1.0, 4, 100) for step in (0, 3, 4)]
    [0.25, 1.0, 1.0]
    """
    if not 0 <= step <= warmup + total:
        raise ValueError(f"step {step} lies outside a schedule of {warmup} + {total} steps")
    if step < warmup:
        return base * (step + 1) / warmup
    return base * (1 - (step - warmup) / total) ** power


def samed_learning_rate(
    step: int, base: float, warmup: int, total: int, power: float = POWER
) -> float:
    """Learning rate that SAMed's published loop uses in step `step`: one step late.

    The loop computes the rate of a step after the optimizer has taken it, so step i + 1 uses the
    rate of step i, and steps 0 and 1 both use the rate of step 0.
    """
    return warmup_polynomial(max(step - 1, 0), base, warmup, total, power)


def scaled_warmup(steps: int, warmup: int = REFERENCE_WARMUP) -> int:
    """Warm-up for a run of `steps` steps: a tenth of it, at least 1, at most the published 250.

    SAMed's 250 belong to runs of 14,880 iterations; in a run of 200 they would never end. From
    2,500 steps on the published number holds. The tenth is our choice.

    >>> [scaled_warmup(steps) for steps in (5, 200, 14_880)]
    [1, 20, 250]
    """
    return min(warmup, max(1, steps // 10))
