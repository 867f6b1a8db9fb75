"""How much of the time an artificial device is busy.

>>> share_of([(0.0, 1.0), (1.5, 2.0)])
0.75
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

WANTED = 0.95
_TRIES = 40


def share_of(busy: Sequence[tuple[float, float]]) -> float:
    """The share of the time from the first start to the last end in which a device computes.

    Args:
        busy: When each batch starts and ends, one after the other.
    """
    return sum(end - begin for begin, end in busy) / (busy[-1][1] - busy[0][0])


def is_kept_busy(share: Callable[[], float]) -> bool:
    """Whether a device is busy for more than the wanted share. Other processes may take the processor from some tries.

    Args:
        share: Measures once.
    """
    return any(share() > WANTED for _ in range(_TRIES))
