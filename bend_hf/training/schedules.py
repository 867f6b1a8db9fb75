"""The learning rate of a step, a function of its number alone, so that there is nothing to restore on resuming.

>>> [round(factor("linear", step, n_steps=4, warmup_steps=2), 2) for step in range(4)]
[0.5, 1.0, 1.0, 0.5]
"""

from __future__ import annotations

import math

from bend_hf.config import Schedule


def factor(schedule: Schedule, step: int, *, n_steps: int, warmup_steps: int) -> float:
    """Return the factor of the learning rate.

    Args:
        schedule: ``constant``, or from 1 to 0 along a ``cosine`` or a line (``linear``).
        step: Steps that are done.
        n_steps: All steps, including warm-up.
        warmup_steps: Steps over which the factor rises to 1; it is above 0 in the first.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    done = (step - warmup_steps) / max(n_steps - warmup_steps, 1)
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
