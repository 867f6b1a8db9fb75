"""Axes on a page: a frame at the left and below, ticks, and labels.

    axes = Axes(page=page, left=60, bottom=40, width=200, height=150, x=Scale(low=0.0, high=1.0), y=Scale.around(ys))
    axes.frame()
    axes.ticks_below([0.0, 1.0], ["0", "1"], label="recall")
    page.line(axes.x_of(xs), axes.y_of(ys), color="black")

`figures` says what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from bend_hf.publishing.canvas import Canvas, width_of

TICK: Final = 3.5  # points, also between a tick and its label
PAD: Final = 3.0  # points, at the edge of the page
LABEL: Final = 9.0  # size of the font of axes
TITLE: Final = 10.8
_LABEL_ROOM: Final = 14.0  # points, of an axis label with the space before it
_LINE: Final = 0.8
ACROSS: Final = 40.0  # points from tick to tick at least, below axes
UPWARD: Final = 18.0  # at the left of axes


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What an axis shows.

    Attributes:
        low: Value at its left or lower end; it may be the higher one.
        high: Value at its other end.
        log: Whether it is logarithmic.
    """

    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, values: Sequence[float], margin: float = 0.05) -> Scale:
        """Return a linear scale that holds some values with a margin on both sides, a fraction of their range."""
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
            low, high = low - 0.05 * (abs(low) or 1.0), high + 0.05 * (abs(high) or 1.0)
        room = margin * (high - low)
        return cls(low=low - room, high=high + room)

    def part(self, values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where values lie, 0 at the first end and 1 at the other."""
        at, ends = np.asarray(values, np.float64), np.array([self.low, self.high])
        if self.log:
            at, ends = np.log10(at), np.log10(ends)
        found: NDArray[np.float64] = (at - ends[0]) / (ends[1] - ends[0])
        return found

    def ticks(self, points: float, apart: float) -> list[float]:
        """Return the ticks of a linear axis.

        Args:
            points: Length of the axis.
            apart: Points from tick to tick at least.
        """
        most = min(max(int(points / apart), 2), 9)
        found = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(*sorted((self.low, self.high)))
        return [float(tick) for tick in found if -1e-9 <= self.part([tick])[0] <= 1 + 1e-9]

    def log_ticks(self, subs: tuple[int, ...]) -> list[float]:
        """Return the ticks of a logarithmic axis at multiples of powers of ten."""
        found = LogLocator(subs=subs, numticks=6).tick_values(self.low, self.high)
        return [float(tick) for tick in found if self.low <= tick <= self.high]


def in_decimals(ticks: Sequence[float]) -> list[str]:
    """Write ticks with as many decimals as tell them apart.

    >>> in_decimals([0.0, 0.25, 0.5]), in_decimals([0.0, 1.0, 2.0])
    (['0.00', '0.25', '0.50'], ['0', '1', '2'])
    """
    step = min((b - a for a, b in pairwise(ticks)), default=1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if abs(step * 10**decimals - round(step * 10**decimals)) > 1e-6:
        decimals += 1
    return [f"{tick + 0.0:.{decimals}f}".replace("-", "\N{MINUS SIGN}") for tick in ticks]


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The area that data are drawn in.

    Attributes:
        page: The page.
        left: Its left side, in points.
        bottom: Its lower side.
        width: In points.
        height: In points.
        x: What it shows from left to right.
        y: What it shows from below.
    """

    page: Canvas
    left: float
    bottom: float
    width: float
    height: float
    x: Scale
    y: Scale

    def x_of(self, values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where values lie on the page."""
        found: NDArray[np.float64] = self.left + self.width * self.x.part(values)
        return found

    def y_of(self, values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where values lie on the page."""
        found: NDArray[np.float64] = self.bottom + self.height * self.y.part(values)
        return found

    def frame(self) -> None:
        """Draw the left and the lower side."""
        right, top = self.left + self.width, self.bottom + self.height
        self.page.line([self.left, self.left, right], [top, self.bottom, self.bottom], color="black", width=_LINE)

    def ticks_below(
        self, ticks: Sequence[float], names: Sequence[str], *, minor: Sequence[float] = (), label: str = ""
    ) -> None:
        """Draw ticks and their names below, and the label of the axis."""
        for values, length in ((ticks, TICK), (minor, 2.0)):
            for at in self.x_of(values):
                self.page.line([at, at], [self.bottom, self.bottom - length], color="black", width=_LINE)
        for at, name in zip(self.x_of(ticks), names, strict=True):
            self.page.text((at, self.bottom - 2 * TICK), name, size=LABEL, align="center", level="top")
        below = self.bottom - 2 * TICK - LABEL - 4
        self.page.text((self._middle_of(label, LABEL), below), label, size=LABEL, align="center", level="top")

    def ticks_at_left(
        self, ticks: Sequence[float], names: Sequence[str], *, label: str = "", marks: bool = True
    ) -> None:
        """Draw ticks and their names at the left, and the label of the axis."""
        for at, name in zip(self.y_of(ticks), names, strict=True):
            if marks:
                self.page.line([self.left, self.left - TICK], [at, at], color="black", width=_LINE)
            self.page.text((self.left - 2 * TICK, at), name, size=LABEL, align="right")
        if label:
            x = self.left - room_at_left(names, labeled=True) + PAD + LABEL / 2
            self.page.upright_text((x, self.bottom + self.height / 2), label, size=LABEL)

    def title(self, text: str, size: float = TITLE) -> None:
        """Write a title above."""
        at = (self._middle_of(text, size), self.bottom + self.height + 6)
        self.page.text(at, text, size=size, align="center", level="bottom")

    def _middle_of(self, text: str, size: float) -> float:
        """Return where a text is centered: on the axes, or as near as it fits on the page."""
        half = width_of(text, size) / 2 + PAD
        return max(min(self.left + self.width / 2, self.page.width - half), half)


def room_at_left(names: Sequence[str], *, labeled: bool = False) -> float:
    """Return the points that names of ticks take at the left of axes, with the edge of the page."""
    return 2 * TICK + PAD + max((width_of(name, LABEL) for name in names), default=0.0) + labeled * _LABEL_ROOM


def room_below(*, labeled: bool = True) -> float:
    """Return the points that ticks, their names and a label take below axes, with the edge of the page."""
    return 2 * TICK + PAD + 1.1 * LABEL + labeled * _LABEL_ROOM


def room_above(title: str, size: float = TITLE) -> float:
    """Return the points that a title takes above axes, with the edge of the page."""
    return 6 + PAD + size * 1.2 * (title.count("\n") + 1)
