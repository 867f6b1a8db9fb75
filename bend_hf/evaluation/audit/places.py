"""Intervals on chromosomes: how much of each lies in others, and how far the nearest one is.

>>> one = Places(chromosome=np.array([0]), start_bp=np.array([0]), end_bp=np.array([10]))
>>> two = Places(chromosome=np.array([0, 0]), start_bp=np.array([8, 9]), end_bp=np.array([12, 30]))
>>> one.covered_bp(two).tolist(), one.distance_bp(two).tolist()
([2], [0])
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from bend_hf.types import Bools, Ints

FAR: Final = np.iinfo(np.int64).max  # the distance to the nearest interval if the chromosome holds none
_STEP: Final = 1 << 40  # more than any chromosome is long; chromosomes lie end to end on one line


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """N intervals.

    Attributes:
        chromosome: Number of the chromosome, shape (N,).
        start_bp: Start, 0-based, shape (N,).
        end_bp: End, exclusive, shape (N,).
    """

    chromosome: Ints
    start_bp: Ints
    end_bp: Ints

    def __len__(self) -> int:
        return len(self.chromosome)

    def where(self, chosen: Bools | Ints) -> Places:
        """Return some of the intervals."""
        return Places(chromosome=self.chromosome[chosen], start_bp=self.start_bp[chosen], end_bp=self.end_bp[chosen])

    @cached_property
    def union(self) -> tuple[Ints, Ints]:
        """Starts and ends of the union, on one line; sorted and not touching."""
        start, end = self.start_bp + self.chromosome * _STEP, self.end_bp + self.chromosome * _STEP
        full = end > start
        order = np.argsort(start[full], kind="stable")
        start, end = start[full][order], end[full][order]
        furthest = np.maximum.accumulate(end) if len(end) else end
        first = np.flatnonzero(np.concatenate([[True], start[1:] > furthest[:-1]])[: len(start)])
        last = np.concatenate([first[1:], [len(start)]])[: len(first)] - 1
        return start[first], furthest[last]

    def covered_bp(self, other: Places) -> Ints:
        """Count the nucleotides of each interval that lie in any interval of the others, shape (N,)."""
        start, end = other.union
        before = np.concatenate([[0], np.cumsum(end - start)])

        def up_to(place: Ints) -> Ints:
            number = np.searchsorted(start, place, side="right")
            inside = np.zeros(len(place), np.int64)
            some = number > 0
            last = number[some] - 1
            inside[some] = before[last] + np.minimum(place[some], end[last]) - start[last]
            return inside

        shift = self.chromosome * _STEP
        return up_to(self.end_bp + shift) - up_to(self.start_bp + shift)

    def distance_bp(self, other: Places) -> Ints:
        """Return the number of nucleotides between each interval and the nearest other one, shape (N,).

        It is 0 for intervals that overlap or touch, and ``FAR`` if the chromosome holds no other interval.
        """
        start, end = other.union
        nearest = np.full(len(self), FAR)
        shift = self.chromosome * _STEP
        low, high = self.start_bp + shift, self.end_bp + shift
        after = np.searchsorted(start, low, side="right")  # the first interval that starts right of ours
        for number, gap in ((after - 1, True), (after, False)):
            some = np.flatnonzero((number >= 0) & (number < len(start)))
            at = number[some]
            same = start[at] // _STEP == self.chromosome[some]
            some, at = some[same], at[same]
            space = low[some] - end[at] if gap else start[at] - high[some]
            nearest[some] = np.minimum(nearest[some], np.maximum(space, 0))
        return nearest
