"""How much of the time an artificial device is busy.

>>> share_of([(0.0, 1.0), (1.5, 2.0)])
0.75
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

WANTED = 0.95
_STAGES_S = (*[0.03] * 10, *[0.1] * 6, *[0.3] * 4)


def share_of(busy: Sequence[tuple[float, float]]) -> float:
    """The share of the time from the first start to the last end in which a device computes.

    Args:
        busy: When each batch starts and ends, one after the other.
    """
    return sum(end - begin for begin, end in busy) / (busy[-1][1] - busy[0][0])


def is_kept_busy(share: Callable[[float], float]) -> bool:
    """Whether a device is busy for more than the wanted share, at stages of some length.

    Other processes may take the processor away, for which longer stages leave time.

    Args:
        share: Measures once, with stages of as many seconds.
    """
    return any(share(seconds) > WANTED for seconds in _STAGES_S)
