"""Learning-rate schedule: linear warm-up, then polynomial decay (SAMed, arXiv 2304.13785)."""

REFERENCE_WARMUP = 250  # iterations; SAMed and MedSAGa
POWER = 0.9  # SAMed's code


def warmup_polynomial(
    step: int, base: float, warmup: int, total: int, power: float = POWER
) -> float:
    """Learning rate of step `step` (0, 1, ...): `warmup` steps up to `base`, then a decay.

    `base * (step + 1) / warmup` during the warm-up, `base * (1 - (step - warmup) / total) ** power`
    after it (SAMed's formula). The rate of the last of `total` steps is above 0, because the decay
    takes `total` steps and begins after the warm-up. `warmup=0` means no warm-up.

    SAMed's published loop sets the rate after the optimizer's step, so its step i + 1 uses the rate
    of step i, and its steps 0 and 1 both use the rate of step 0.

    Raises:
        ValueError: the step is negative or beyond the end of the decay.

    >>> [warmup_polynomial(step, 1.0, 4, 100) for step in (0, 3, 4)]
    [0.25, 1.0, 1.0]
    """
    if not 0 <= step <= warmup + total:
        raise ValueError(
            f"step {step} is outside a schedule of {warmup} + {total} steps; "
            f"give one from 0 to {warmup + total}"
        )
    if step < warmup:
        return base * (step + 1) / warmup
    return base * (1 - (step - warmup) / total) ** power


def scaled_warmup(steps: int, warmup: int = REFERENCE_WARMUP) -> int:
    """Warm-up steps for a run of `steps` steps: 10 % of them, at least 1, at most `warmup`.

    SAMed's 250 belong to runs of 14,880 iterations and would exceed a run of 200. Runs of 2,500
    steps or more use the published 250. The 10 % are our choice.

    >>> [scaled_warmup(steps) for steps in (5, 200, 14_880)]
    [1, 20, 250]
    """
    return min(warmup, max(1, steps // 10))
