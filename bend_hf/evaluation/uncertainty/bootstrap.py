"""Bootstrap a score: compute it on clusters drawn with replacement, a thousand times (Efron 1979, Ann. Stat. 7:1).

Records hold Wilson's intervals (``intervals.py``), because percentiles of resamples cover too rarely with few positives
or clusters and near the ends of the range. Resamples remain for ``bend-hf compare --method bootstrap``.

>>> predictions = Predictions(item=np.arange(4), windows=np.arange(5), target=np.array([0, 0, 1, 1], np.int16),
...                           score=np.array([0.1, 0.4, 0.5, 0.8], np.float32), predicted=None, label_names=("a", "b"))
>>> draws_of(predictions, ["auroc"], Bootstrap(resamples=5))["auroc"].value
1.0
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.errors import ConfigError, RecordError, did_you_mean
from bend_hf.evaluation.gene_structure import NAME as STRUCTURE
from bend_hf.evaluation.gene_structure import StructureCounts, check_structure
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.uncertainty.clusters import AUTO, as_clusters, codes_of
from bend_hf.evaluation.uncertainty.fast_metrics import ConfusionCounts, CurveCounts
from bend_hf.types import Floats, Ints

OF_CLASSES: Final = ("mcc", STRUCTURE)
METRICS: Final = (*OF_CLASSES, "auroc", "auprc")  # the metrics that can be resampled: those of BEND's tasks
_AT_ONCE: Final = 16  # resamples per step; a row of weights then fits into one cache line of the processor
_WEIGHT_CELLS: Final = 1 << 25  # weights in memory: 128 MiB
_SORTED_CELLS: Final = 1 << 25  # windows times labels that are kept sorted: some 256 MiB


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How resamples are drawn.

    Args:
        resamples: Number of resamples.
        seed: Seed of the draws.
        clusters: What is drawn: ``auto``, ``item``, ``chromosome`` or ``block`` (of a chromosome).
        block_bp: Length of a block; by default chosen from the data or 1 Mb.
    """

    resamples: int = 1000
    seed: int = 0
    clusters: str = AUTO
    block_bp: int | None = None


@dataclass(frozen=True, kw_only=True)
class Draws:
    """A score, and the same score in each resample.

    Attributes:
        value: Score of the items as they are; with folds, the mean over folds.
        values: Score of each resample, float64, shape (resamples,); nan if it is not defined.
        per_label: Score of each label, float64, shape (resamples, labels); 0 labels if the metric has none.
        n_clusters: Number of clusters that were drawn from.
    """

    value: float
    values: NDArray[np.float64]
    per_label: NDArray[np.float64]
    n_clusters: int


def draws_of(predictions: Predictions, metrics: Sequence[str], bootstrap: Bootstrap | None = None) -> dict[str, Draws]:
    """Compute each metric in each resample. Two models on the same items in the same order get the same resamples.

    Args:
        predictions: The predictions.
        metrics: Names out of ``METRICS``: ``mcc`` and ``gene_structure`` for classes, the others for scores.
        bootstrap: How resamples are drawn; by default 1,000 over clusters that fit the data.

    Raises:
        ConfigError: A metric cannot be resampled or does not fit the predictions, or a number is out of range.
        RecordError: The predictions lack the columns that the clusters need.
    """
    bootstrap = bootstrap or Bootstrap()
    if bootstrap.resamples < 1:
        raise ConfigError(f"resamples is {bootstrap.resamples}; expected 1 or more, such as 1000")
    check_metrics(predictions, metrics)
    cluster = as_clusters(predictions, bootstrap.clusters, block_bp=bootstrap.block_bp).of_item
    fold_of_item = folds_of(predictions)
    folds = np.unique(fold_of_item) if len(fold_of_item) else np.zeros(1, np.int64)
    per_fold = [
        _fold_draws(predictions, np.flatnonzero(fold_of_item == fold), cluster, metrics, bootstrap, int(fold))
        for fold in folds
    ]
    joined = {}
    for metric in metrics:
        found = [one[metric] for one in per_fold]
        joined[metric] = Draws(
            value=float(mean_of_defined(np.array([one.value for one in found]))),
            values=mean_of_defined(np.stack([one.values for one in found], axis=1)),
            per_label=found[0].per_label if len(found) == 1 else np.empty((bootstrap.resamples, 0)),
            n_clusters=sum(one.n_clusters for one in found),
        )
    return joined


def values_of_folds(predictions: Predictions, metrics: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Compute metrics of the items as they are, for each fold and label.

    Args:
        predictions: The predictions, with a column ``fold`` if there are folds.
        metrics: Names out of ``METRICS``: ``mcc`` and ``gene_structure`` for classes, the others for scores.

    Returns:
        Values by metric, float64, shape (folds, labels), folds in ascending order; nan if a value is not defined.
    """
    fold_of_item = folds_of(predictions)
    folds = np.unique(fold_of_item) if len(fold_of_item) else np.zeros(1, np.int64)
    weights = np.ones((1, 1), np.float32)
    rows: dict[str, list[NDArray[np.float64]]] = {metric: [] for metric in metrics}
    for fold in folds:
        items = np.flatnonzero(fold_of_item == fold)
        one_cluster = np.zeros(len(items), np.int64)
        columns = [
            metrics_of(weights, metrics)
            for step in _metrics_of_labels(predictions, items, one_cluster, 1)
            for metrics_of in step
        ]
        for metric in metrics:
            rows[metric].append(np.array([column[metric][0] for column in columns]))
    return {metric: np.stack(found) for metric, found in rows.items()}


def _windows_of(predictions: Predictions, rows: Ints) -> slice | Ints:
    """The windows of some items, in ascending order."""
    if len(rows) == len(predictions):
        return slice(None)  # copies nothing
    lengths = np.diff(predictions.windows)[rows]
    window: Ints = np.repeat(predictions.windows[rows] - np.cumsum(lengths) + lengths, lengths)
    return window + np.arange(lengths.sum())


def has_interval(metric: str, predictions: Predictions) -> bool:
    """Return whether a metric can be resampled on these predictions."""
    return metric in METRICS and (metric in OF_CLASSES) == (predictions.score is None)


def check_metrics(predictions: Predictions, metrics: Sequence[str]) -> None:
    """Check that metrics have intervals and fit predictions.

    Raises:
        ConfigError: A metric is unknown or does not fit, or a score is nan.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise ConfigError(f"metric {metric!r} has no interval; {did_you_mean(metric, list(METRICS))}")
        if (metric in OF_CLASSES) != (predictions.score is None):
            has, needs = ("classes", "scores") if predictions.score is None else ("scores", "classes")
            raise ConfigError(f"{metric} needs {needs}, but these predictions hold {has}; choose another metric")
        if metric == STRUCTURE:
            check_structure(predictions)
    if predictions.score is not None:
        unscored = np.isnan(predictions.score) & (predictions.target >= 0)
        if unscored.any():
            raise RecordError(f"{int(unscored.sum()):,} scores are nan; find out which items the model gives nan")


def with_fold(predictions: Predictions, fold: int | None) -> Predictions:
    """Add a column ``fold`` to predictions; None leaves them as they are."""
    if fold is None:
        return predictions
    column = pa.array(np.full(len(predictions), fold, np.int16))
    return replace(predictions, columns={**predictions.columns, "fold": column})


def folds_of(predictions: Predictions) -> Ints:
    """Give the fold of each item, int64, shape (items,); 0 if there are no folds."""
    column = predictions.columns.get("fold")
    if column is None:
        return np.zeros(len(predictions), np.int64)
    folds: Ints = column.to_numpy(zero_copy_only=False).astype(np.int64)
    return folds


def draw_weights(n_clusters: int, resamples: int, seed: Sequence[int], at_once: int = _AT_ONCE) -> Iterator[Floats]:
    """Draw how often each cluster is in each resample. The draws do not depend on ``at_once``.

    Args:
        n_clusters: Number of clusters to draw from; each resample draws as many.
        resamples: Number of resamples.
        seed: Seed of the draws.
        at_once: Resamples per step.

    Yields:
        Whole numbers, float32, shape (clusters, resamples of this step).
    """
    rng = np.random.default_rng(list(seed))
    at_once = max(1, min(at_once, _WEIGHT_CELLS // max(n_clusters, 1)))
    for start in range(0, resamples, at_once):
        drawn = np.empty((min(at_once, resamples - start), n_clusters), np.float32)
        for row in drawn:
            row[:] = np.bincount(rng.integers(0, n_clusters, n_clusters, dtype=np.int32), minlength=n_clusters)
        yield np.ascontiguousarray(drawn.T)


class _Metrics(Protocol):
    """Metrics of many resamples at once: weights (clusters, resamples) -> values (resamples,) by metric."""

    def __call__(self, weights: Floats, metrics: Sequence[str], /) -> dict[str, NDArray[np.float64]]: ...


class _ClassMetrics:
    """Metrics of classes, each from counts that are made when it is first asked for."""

    def __init__(self, predictions: Predictions, cluster: Ints, n_clusters: int) -> None:
        self._predictions, self._cluster, self._n_clusters = predictions, cluster, n_clusters

    @cached_property
    def _confusion(self) -> ConfusionCounts:
        one = self._predictions
        highest = max(int(one.values.max(initial=0)), int(one.target.max(initial=0)), len(one.label_names) - 1)
        of_window = np.repeat(self._cluster, np.diff(one.windows))
        return ConfusionCounts.of(one.values, one.target, of_window, n_clusters=self._n_clusters, n_classes=highest + 1)

    @cached_property
    def _structure(self) -> StructureCounts:
        return StructureCounts.of(self._predictions, self._cluster, self._n_clusters)

    def __call__(self, weights: Floats, metrics: Sequence[str], /) -> dict[str, NDArray[np.float64]]:
        return {
            name: self._structure.exon_f1(weights) if name == STRUCTURE else self._confusion.mcc(weights)
            for name in metrics
        }


def _fold_draws(
    predictions: Predictions, rows: Ints, cluster: Ints, metrics: Sequence[str], bootstrap: Bootstrap, fold: int
) -> dict[str, Draws]:
    """Each metric in each resample of the items of one fold."""
    cluster = codes_of(cluster[rows])
    n_clusters = int(cluster.max(initial=-1)) + 1
    found: dict[str, list[NDArray[np.float64]]] = {metric: [] for metric in metrics}
    for columns in _metrics_of_labels(predictions, rows, cluster, n_clusters):
        for metric, values in _values(columns, n_clusters, metrics, bootstrap, fold).items():
            found[metric].append(values)
    values_of = {metric: np.concatenate(columns, axis=1) for metric, columns in found.items()}
    has_labels = predictions.score is not None and predictions.target.ndim == 2
    draws = {}
    for metric, values in values_of.items():
        means = mean_of_defined(values)
        draws[metric] = Draws(
            value=float(means[0]),
            values=means[1:],
            per_label=values[1:] if has_labels else np.empty((bootstrap.resamples, 0)),
            n_clusters=n_clusters,
        )
    return draws


def _metrics_of_labels(
    predictions: Predictions, rows: Ints, cluster: Ints, n_clusters: int
) -> Iterator[list[_Metrics]]:
    """The metrics of each label, as many labels at a time as may be kept sorted; one for classes.

    Args:
        predictions: The predictions.
        rows: The items to score.
        cluster: Cluster of each of them.
        n_clusters: Number of clusters.
    """
    if predictions.score is None:
        part = predictions if len(rows) == len(predictions) else predictions.take(rows)
        yield [_ClassMetrics(part, cluster, n_clusters)]
        return
    chosen = _windows_of(predictions, rows)
    cluster = np.repeat(cluster, np.diff(predictions.windows)[rows])
    target, values = predictions.target[chosen], predictions.values[chosen]
    score = values[:, None] if values.ndim == 1 else values
    target = target[:, None] if target.ndim == 1 else target
    step = max(1, _SORTED_CELLS // max(len(score), 1))
    for first in range(0, score.shape[1], step):
        labels = range(first, min(first + step, score.shape[1]))
        yield [
            CurveCounts(score[:, label], target[:, label], cluster, n_clusters=n_clusters).metrics for label in labels
        ]


def _values(
    columns: Sequence[_Metrics], n_clusters: int, metrics: Sequence[str], bootstrap: Bootstrap, fold: int
) -> dict[str, NDArray[np.float64]]:
    """Each metric of the items as they are, then of each resample, shape (1 + resamples, columns)."""
    values = {metric: np.full((1 + bootstrap.resamples, len(columns)), np.nan) for metric in metrics}
    row = 0
    if not n_clusters:
        return values
    for weights in _ones_first(n_clusters, bootstrap.resamples, (bootstrap.seed, fold)):
        for column, metrics_of in enumerate(columns):
            for metric, found in metrics_of(weights, metrics).items():
                values[metric][row : row + len(found), column] = found
        row += weights.shape[1]
    return values


def _ones_first(n_clusters: int, resamples: int, seed: tuple[int, int]) -> Iterator[Floats]:
    yield np.ones((n_clusters, 1), np.float32)
    yield from draw_weights(n_clusters, resamples, seed)


def mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the last axis of the values that are not nan; nan if all are."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=-1)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    mean: NDArray[np.float64] = np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
    return mean
