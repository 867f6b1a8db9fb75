"""Metrics of many resamples at once, from counts that are made once.

A resample is a weight for each cluster: how often it was drawn. MCC is computed from the weighted sum of the clusters'
confusion matrices, AUROC and AUPRC from weighted sums over items that were sorted once. Weights and counts are whole
numbers, so all sums are exact, and each value is the metric of the repeated items.

>>> predicted, true, cluster = np.array([0, 1, 1]), np.array([0, 1, 0]), np.array([0, 1, 2])
>>> counts = ConfusionCounts.of(predicted, true, cluster, n_clusters=3, n_classes=2)
>>> counts.mcc(np.ones((3, 1))).tolist()
[0.5]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.types import IGNORE_LABEL, Ints

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]  # SciPy has no type hints

Weights = NDArray[np.floating]  # (clusters, resamples), whole numbers
_EXACT_IN_FLOAT32: Final = 1 << 24
_CHUNK: Final = 1 << 20  # windows that are counted at a time


@dataclass(frozen=True, kw_only=True)
class ConfusionCounts:
    """The confusion matrix of each cluster.

    Attributes:
        counts: Float64, shape (clusters, classes * classes), references first.
        n_classes: Number of classes.
    """

    counts: NDArray[np.float64]
    n_classes: int

    @classmethod
    def of(
        cls, predicted: NDArray[Any], true: NDArray[Any], cluster: Ints, *, n_clusters: int, n_classes: int
    ) -> ConfusionCounts:
        """Count pairs of labels.

        Args:
            predicted: Class numbers, shape (windows,).
            true: Class numbers, -100 if a window is not scored, shape (windows,).
            cluster: Cluster of each window, shape (windows,).
            n_clusters: Number of clusters.
            n_classes: Number of classes.
        """
        n_cells = n_classes * n_classes
        counts = np.zeros(n_clusters * n_cells, np.int64)
        for start in range(0, len(true), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            scored = true[chunk] != IGNORE_LABEL
            t, p = true[chunk][scored].astype(np.int64), predicted[chunk][scored].astype(np.int64)
            cell = (cluster[chunk][scored] * n_classes + t) * n_classes + p
            if not len(cell):
                continue
            first = int(cell.min()) // n_cells * n_cells
            found = np.bincount(cell - first)  # a chunk holds few clusters if clusters have many windows
            counts[first : first + len(found)] += found
        return cls(counts=counts.reshape(n_clusters, n_cells).astype(np.float64), n_classes=n_classes)

    def mcc(self, weights: Weights) -> NDArray[np.float64]:
        """Compute Gorodkin's coefficient of each resample.

        Args:
            weights: How often each cluster was drawn, shape (clusters, resamples).

        Returns:
            Values, shape (resamples,); 0 if one class is left, nan if no window is.
        """
        return mcc_of_counts(self.counts.T @ weights.astype(np.float64), self.n_classes)

    def metrics(self, weights: Weights, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Compute metrics of each resample by name; ``mcc`` is the only one of classes."""
        return {name: self.mcc(weights) for name in names}


class CurveCounts:
    """The scores of one label, sorted once: how many items of each cluster lie between two positive scores.

    Args:
        score: Scores, higher for positive, shape (windows,).
        true: 0, 1, or -100 if a window is not scored, shape (windows,).
        cluster: Cluster of each window, shape (windows,).
        n_clusters: Number of clusters.
    """

    def __init__(self, score: NDArray[Any], true: NDArray[Any], cluster: Ints, *, n_clusters: int) -> None:
        positive, negative = np.flatnonzero(true == 1), np.flatnonzero(true == 0)
        self.n_positive, self.n_negative = len(positive), len(negative)
        if not self.is_defined:
            return
        thresholds, rank = np.unique(score[positive], return_inverse=True)
        above = np.searchsorted(thresholds, score[negative], side="right")  # number of thresholds that the item reaches
        tied = above - np.searchsorted(thresholds, score[negative], side="left") > 0
        largest = int(np.bincount(cluster[true != IGNORE_LABEL], minlength=1).max())
        self.dtype = np.float32 if n_clusters * largest < _EXACT_IN_FLOAT32 else np.float64
        shape = (len(thresholds), n_clusters)
        self._positive = _sums(rank, cluster[positive], shape, self.dtype)
        self._negative = _sums(above, cluster[negative], (len(thresholds) + 1, n_clusters), self.dtype)
        self._tied_at, row = np.unique(above[tied] - 1, return_inverse=True)
        self._tied = _sums(row, cluster[negative[tied]], (len(self._tied_at), n_clusters), self.dtype)

    @property
    def is_defined(self) -> bool:
        """Whether both classes occur."""
        return self.n_positive > 0 and self.n_negative > 0

    def metrics(self, weights: Weights, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Compute areas of each resample.

        Args:
            weights: How often each cluster was drawn, shape (clusters, resamples).
            names: ``auroc``, ``auprc`` or both.

        Returns:
            Values by name, shape (resamples,); nan if a class is missing.
        """
        if not self.is_defined:
            return {name: np.full(weights.shape[1], np.nan) for name in names}
        weights = weights.astype(self.dtype, copy=False)
        positive = self._positive @ weights  # (thresholds, resamples)
        below = np.cumsum(self._negative @ weights, axis=0)  # negatives below each threshold, then all of them
        n_positive, n_negative = positive.sum(axis=0, dtype=np.float64), below[-1].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is nan, as documented
            areas = {}
            if "auprc" in names:
                right = positive[::-1].cumsum(axis=0)[::-1]
                precision = np.divide(right, np.maximum(right + (below[-1] - below[:-1]), 1), dtype=np.float64)
                areas["auprc"] = np.einsum("kr,kr->r", positive, precision) / n_positive
                areas["auprc"][n_negative == 0] = np.nan
            if "auroc" in names:
                won = np.einsum("kr,kr->r", positive, below[:-1], dtype=np.float64)
                if len(self._tied_at):
                    won += np.einsum("kr,kr->r", positive[self._tied_at], self._tied @ weights, dtype=np.float64) / 2
                areas["auroc"] = won / (n_positive * n_negative)
        return areas


def mcc_of_counts(counts: NDArray[np.float64], n_classes: int) -> NDArray[np.float64]:
    """Compute Gorodkin's coefficient of several confusion matrices.

    Args:
        counts: Confusion matrices, float64, shape (classes * classes, matrices), references first.
        n_classes: Number of classes.

    Returns:
        Values, shape (matrices,); 0 if one class is left, nan if no window is.
    """
    counts = counts.reshape(n_classes, n_classes, -1)
    true, predicted = counts.sum(axis=1), counts.sum(axis=0)
    total, right = true.sum(axis=0), np.trace(counts)
    covariance = right * total - (true * predicted).sum(axis=0)
    spread_true = total**2 - (true**2).sum(axis=0)
    spread_predicted = total**2 - (predicted**2).sum(axis=0)
    spread = np.where(spread_true == spread_predicted, spread_true, np.sqrt(spread_true) * np.sqrt(spread_predicted))
    value = np.divide(covariance, spread, out=np.zeros_like(spread), where=spread > 0)
    return np.where(total > 0, value, np.nan)


def _sums(row: Ints, cluster: Ints, shape: tuple[int, int], dtype: type[np.floating]) -> csr_matrix | NDArray[Any]:
    """A matrix that sums weights of clusters: how many items of each cluster each row holds; sparse if it is wide."""
    if shape[1] == 1:
        return np.bincount(row, minlength=shape[0]).astype(dtype)[:, None]
    from scipy.sparse import csr_matrix

    matrix = csr_matrix((np.ones(len(row), dtype), (row, cluster)), shape=shape)
    matrix.sum_duplicates()
    return matrix
