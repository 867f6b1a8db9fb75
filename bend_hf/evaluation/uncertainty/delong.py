"""DeLong's variance of AUROC, its intervals, and the test of two correlated areas, for one label and independent items.

DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837. Computed from mid-ranks in O(n log n), as in Sun and Xu 2014,
IEEE Signal Processing Letters 21:1389.

>>> found = delong(np.array([[0.1, 0.4, 0.35, 0.8]]), np.array([0, 0, 1, 1]))
>>> found.areas.tolist()
[0.75]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bend_hf.errors import ConfigError, RecordError
from bend_hf.types import IGNORE_LABEL


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference of two areas.

    Attributes:
        value: First area minus second area.
        low: Lower end of its interval; nan if the variance is not defined.
        high: Upper end.
        p: Two-sided p value of no difference; 1 if the areas are equal, nan if their variance is 0 or not defined.
    """

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, kw_only=True)
class DeLong:
    """The areas of m models on the same items.

    Attributes:
        areas: AUROC, float64, shape (m,); nan if a class is missing.
        covariance: Covariance of the areas, float64, shape (m, m); nan if a class has fewer than two items.
    """

    areas: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def interval(self, model: int = 0, *, level: float = 0.95) -> tuple[float, float]:
        """Compute the normal interval of one area, cut at 0 and 1."""
        half = _quantile(level) * math.sqrt(self.covariance[model, model])
        area = float(self.areas[model])
        return float(np.maximum(area - half, 0.0)), float(np.minimum(area + half, 1.0))

    def difference(self, first: int, second: int, *, level: float = 0.95) -> Difference:
        """Compute the difference of two areas with its interval and test."""
        value = float(self.areas[first] - self.areas[second])
        c = self.covariance
        variance = np.maximum(c[first, first] + c[second, second] - 2 * c[first, second], 0.0)
        half = _quantile(level) * math.sqrt(variance)
        if math.isnan(value) or np.isnan(c[[first, first, second], [first, second, second]]).any():
            return Difference(value=value, low=math.nan, high=math.nan, p=math.nan)
        p = math.erfc(abs(value) / math.sqrt(2 * variance)) if variance > 0 else math.nan
        if value == 0:
            p = 1.0
        return Difference(value=value, low=value - half, high=value + half, p=p)


def delong(score: NDArray[Any], target: NDArray[Any]) -> DeLong:
    """Compute the areas of models on the same items, and their covariance.

    Args:
        score: Scores, higher for positive, shape (models, items).
        target: 0, 1, or -100 if an item is not scored, shape (items,).

    Raises:
        ConfigError: The shapes do not fit, a label is not 0 or 1, or a score is nan.
    """
    if score.ndim != 2 or score.shape[1:] != target.shape:
        raise ConfigError(
            f"scores have shape {score.shape}, targets {target.shape}; expected (models, items), (items,)"
        )
    if not np.isin(target, [0, 1, IGNORE_LABEL]).all():
        raise ConfigError(f"targets hold {sorted(set(target.tolist()) - {0, 1, IGNORE_LABEL})[:5]}; expected 0 and 1")
    positive, negative = score[:, target == 1], score[:, target == 0]
    if np.isnan(positive).any() or np.isnan(negative).any():
        raise RecordError("scores hold nan; find out which items the model gives nan")
    m, n_positive, n_negative = len(score), positive.shape[1], negative.shape[1]
    if not n_positive or not n_negative:
        return DeLong(areas=np.full(m, np.nan), covariance=np.full((m, m), np.nan))
    won_by, lost_by = np.empty((m, n_positive)), np.empty((m, n_negative))
    for model in range(m):
        both = _midranks(np.concatenate([positive[model], negative[model]]))
        won_by[model] = (both[:n_positive] - _midranks(positive[model])) / n_negative
        lost_by[model] = 1.0 - (both[n_positive:] - _midranks(negative[model])) / n_positive
    return DeLong(areas=won_by.mean(axis=1), covariance=_covariance(won_by) + _covariance(lost_by))


def _covariance(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance of the means of rows, shape (m, m); nan if there is one column."""
    m, n = components.shape
    if n < 2:
        return np.full((m, m), np.nan)
    covariance: NDArray[np.float64] = np.cov(components).reshape(m, m) / n
    return covariance


def _midranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share their mean rank."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(count) - (count - 1) / 2)[place]
    return ranks


def _quantile(level: float) -> float:
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; expected a fraction between 0 and 1, such as 0.95")
    return NormalDist().inv_cdf((1 + level) / 2)
