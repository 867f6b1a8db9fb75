"""Intervals of a score by the bootstrap: the same score on items drawn with replacement, a thousand times.

Percentile intervals (Efron 1979, The Annals of Statistics 7:1). They speak of other items of the same kind; that
another seed would have trained another head is not in them.

    interval_of(read_predictions(path), "auroc", clusters="chromosome")

>>> Interval(low=0.4, high=0.6, level=0.95, resamples=1000, clusters="item", n_clusters=50, seed=0).method
'bootstrap over items'

A score on items drawn with replacement: once as they are, then in each resample; folds each by themselves.

Intervals and paired comparisons are both made of these draws.

>>> next(draw_weights(3, 2, (0,))).sum(axis=0).tolist()
[3.0, 3.0]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.errors import ConfigError
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.uncertainty.clusters import BLOCK_BP, clusters_of, codes_of
from bend_hf.evaluation.uncertainty.fast_metrics import ConfusionCounts, CurveCounts
from bend_hf.types import Floats, Ints, Json

METRICS: Final = ("mcc", "auroc", "auprc")  # those of BEND's tasks; there are no resamples of any other
RESAMPLES: Final = 1000
_AT_ONCE: Final = 16  # resamples; a row of weights is then one line of the processor's cache
_WEIGHT_CELLS: Final = 1 << 25  # weights in memory, 128 MiB
_TALLY_CELLS: Final = 1 << 25  # windows times labels that are kept sorted, some 256 MiB


@dataclass(frozen=True, kw_only=True)
class Draws:
    """A score, and the same score in each resample.

    Attributes:
        value: On the items as they are; the mean over folds where there are folds.
        values: In each resample, float64, shape (resamples,); nan where it is not defined.
        per_label: For each label, float64, shape (resamples, labels); no label where the metric is not one of labels.
        n_clusters: How many clusters were drawn from.
    """

    value: float
    values: NDArray[np.float64]
    per_label: NDArray[np.float64]
    n_clusters: int


def draws_of(
    predictions: Predictions,
    metrics: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    clusters: str = "item",
    block_bp: int = BLOCK_BP,
) -> dict[str, Draws]:
    """Each metric in each resample. Two models on the same items in the same order get the same resamples.

    Raises:
        ConfigError: As for ``intervals_of``.
        RecordError: As for ``intervals_of``.
    """
    _check(predictions, metrics, resamples)
    cluster = clusters_of(predictions, clusters, block_bp=block_bp)
    folds = folds_of(predictions)
    found = [
        _fold_draws(predictions, np.flatnonzero(folds == fold), cluster, metrics, resamples, (seed, int(fold)))
        for fold in (np.unique(folds) if len(folds) else np.zeros(1, np.int64))
    ]
    joined = {}
    for metric in metrics:
        parts = [one[metric] for one in found]
        joined[metric] = Draws(
            value=float(_mean_of_defined(np.array([part.value for part in parts]))),
            values=_mean_of_defined(np.stack([part.values for part in parts], axis=1)),
            per_label=parts[0].per_label if len(parts) == 1 else np.empty((resamples, 0)),
            n_clusters=sum(part.n_clusters for part in parts),
        )
    return joined


def with_fold(predictions: Predictions, fold: int | None) -> Predictions:
    """The same predictions with their fold beside each item; unchanged where there is none."""
    if fold is None:
        return predictions
    column = pa.array(np.full(len(predictions), fold, np.int16))
    return replace(predictions, columns={**predictions.columns, "fold": column})


def folds_of(predictions: Predictions) -> Ints:
    """The fold of each item, int64, shape (items,); 0 where there are none."""
    column = predictions.columns.get("fold")
    if column is None:
        return np.zeros(len(predictions), np.int64)
    folds: Ints = column.to_numpy(zero_copy_only=False).astype(np.int64)
    return folds


def draw_weights(n_clusters: int, resamples: int, seed: Sequence[int], at_once: int = _AT_ONCE) -> Iterator[Floats]:
    """How often each cluster is drawn, some resamples at a time; the same whatever ``at_once`` is.

    Yields:
        Whole numbers, float32, shape (clusters, resamples of this piece).
    """
    rng = np.random.default_rng(list(seed))
    at_once = max(1, min(at_once, _WEIGHT_CELLS // max(n_clusters, 1)))
    for start in range(0, resamples, at_once):
        drawn = np.empty((min(at_once, resamples - start), n_clusters), np.float32)
        for row in drawn:
            row[:] = np.bincount(rng.integers(0, n_clusters, n_clusters, dtype=np.int32), minlength=n_clusters)
        yield np.ascontiguousarray(drawn.T)


def _fold_draws(
    predictions: Predictions, rows: Ints, cluster: Ints, metrics: Sequence[str], resamples: int, seed: tuple[int, int]
) -> dict[str, Draws]:
    """Each metric in each resample of some items."""
    cluster = codes_of(cluster[rows])
    n_clusters = int(cluster.max(initial=-1)) + 1
    lengths = np.diff(predictions.windows)[rows]
    places = np.repeat(predictions.windows[rows] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    if len(rows) == len(predictions):
        places = slice(None)  # type: ignore[assignment]  # nothing is copied
    cluster_of_window = np.repeat(cluster, lengths)
    target = predictions.target[places]
    pieces: list[dict[str, NDArray[np.float64]]] = []
    if predictions.score is None:
        assert predictions.predicted is not None
        pieces.append(
            _values(
                [_Confusion(predictions.predicted[places], target, cluster_of_window, n_clusters, predictions)],
                n_clusters,
                metrics,
                resamples,
                seed,
            )
        )
    else:
        score = predictions.score[places]
        if score.ndim == 1:
            score, target = score[:, None], target[:, None]
        n_labels = score.shape[1]
        step = max(1, _TALLY_CELLS // max(len(score), 1))
        for first in range(0, n_labels, step):
            some = range(first, min(first + step, n_labels))
            tallies = [
                CurveCounts(score[:, label], target[:, label], cluster_of_window, n_clusters=n_clusters)
                for label in some
            ]
            pieces.append(_values([tally.areas for tally in tallies], n_clusters, metrics, resamples, seed))
    found = {metric: np.concatenate([piece[metric] for piece in pieces], axis=1) for metric in metrics}
    means = {metric: _mean_of_defined(values) for metric, values in found.items()}
    of_labels = predictions.score is not None and predictions.target.ndim == 2
    return {
        metric: Draws(
            value=float(means[metric][0]),
            values=means[metric][1:],
            per_label=values[1:] if of_labels else np.empty((resamples, 0)),
            n_clusters=n_clusters,
        )
        for metric, values in found.items()
    }


class _Tally(Protocol):
    def __call__(self, weights: Floats, metrics: Sequence[str], /) -> dict[str, NDArray[np.float64]]: ...


class _Confusion:
    """The confusion tally, called as the curve tallies are."""

    def __init__(
        self,
        predicted: NDArray[np.int16],
        true: NDArray[np.int16],
        cluster: Ints,
        n_clusters: int,
        predictions: Predictions,
    ) -> None:
        highest = max(int(predicted.max(initial=0)), int(true.max(initial=0)), len(predictions.label_names) - 1)
        self._tally = ConfusionCounts.of(predicted, true, cluster, n_clusters=n_clusters, n_classes=highest + 1)

    def __call__(self, weights: Floats, metrics: Sequence[str], /) -> dict[str, NDArray[np.float64]]:
        return {"mcc": self._tally.mcc(weights)}


def _values(
    tallies: Sequence[_Tally], n_clusters: int, metrics: Sequence[str], resamples: int, seed: tuple[int, int]
) -> dict[str, NDArray[np.float64]]:
    """Each metric of the items as they are, then of each resample, shape (1 + resamples, tallies)."""
    values = {metric: np.full((1 + resamples, len(tallies)), np.nan) for metric in metrics}
    at = 0
    if not n_clusters:
        return values
    for weights in _ones_first(n_clusters, resamples, seed):
        for column, tally in enumerate(tallies):
            for metric, found in tally(weights, metrics).items():
                values[metric][at : at + len(found), column] = found
        at += weights.shape[1]
    return values


def _ones_first(n_clusters: int, resamples: int, seed: tuple[int, int]) -> Iterator[Floats]:
    yield np.ones((n_clusters, 1), np.float32)
    yield from draw_weights(n_clusters, resamples, seed)


def _mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the last axis of what is not nan; nan where nothing is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=-1)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    mean: NDArray[np.float64] = np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
    return mean


def _check(predictions: Predictions, metrics: Sequence[str], resamples: int) -> None:
    if resamples < 1:
        raise ConfigError(f"resamples is {resamples}; draw at least one, better a thousand")
    for metric in metrics:
        if metric not in METRICS:
            raise ConfigError(f"there is no interval of {metric!r}; there is one of {', '.join(METRICS)}")
        if (metric == "mcc") != (predictions.score is None):
            has, needs = ("classes", "scores") if predictions.score is None else ("scores", "classes")
            raise ConfigError(f"{metric} is made of {needs}, but these predictions hold {has}; ask for another metric")
    if predictions.score is not None:
        unscored = np.isnan(predictions.score) & (predictions.target >= 0)
        if unscored.any():
            raise ConfigError(f"{int(unscored.sum()):,} scores are nan; a model gave no score, find out why")


LEVEL: Final = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Between which values a score lies.

    Attributes:
        low: Lower end; nan where the score is defined in no resample.
        high: Upper end.
        level: Share of resamples between them.
        resamples: How many there were.
        clusters: What was drawn: ``item``, ``chromosome`` or ``block``.
        n_clusters: How many of them there are.
        seed: Of the draws.
        n_undefined: Resamples in which the score is not defined; they are left out.
        per_label: Ends for each label; empty where the metric is not one of labels.
    """

    low: float
    high: float
    level: float
    resamples: int
    clusters: str
    n_clusters: int
    seed: int
    n_undefined: int = 0
    per_label: tuple[tuple[float, float], ...] = ()

    @property
    def method(self) -> str:
        """In words."""
        return f"bootstrap over {self.clusters}s"

    def as_json(self) -> dict[str, Json]:
        """As a result record keeps it; null for nan."""
        body: dict[str, Json] = {
            "low": _number(self.low),
            "high": _number(self.high),
            "level": self.level,
            "method": self.method,
            "resamples": self.resamples,
            "seed": self.seed,
            "clusters": self.clusters,
            "n_clusters": self.n_clusters,
            "n_undefined": self.n_undefined,
        }
        if self.per_label:
            body["per_label"] = [[_number(low), _number(high)] for low, high in self.per_label]
        return body


def with_intervals(
    metrics: Mapping[str, Json],
    predictions: Predictions,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    clusters: str = "item",
) -> dict[str, Json]:
    """The metrics of a result record with an ``interval`` in each that can have one.

    Args:
        metrics: Entries by name, objects with a ``value``.
        predictions: What they were made of, a column ``fold`` beside them where there are folds.
        seed: Of the draws.
        resamples: How many.
        clusters: What is drawn.
    """
    possible = [name for name in metrics if name in METRICS and (name == "mcc") == (predictions.score is None)]
    found = intervals_of(predictions, possible, seed=seed, resamples=resamples, clusters=clusters) if possible else {}
    return {
        name: {**entry, "interval": found[name].as_json()} if name in found and isinstance(entry, dict) else entry
        for name, entry in metrics.items()
    }


def interval_of(
    predictions: Predictions,
    metric: str,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    clusters: str = "item",
    level: float = LEVEL,
    block_bp: int = BLOCK_BP,
) -> Interval:
    """The interval of one metric; see ``intervals_of``."""
    return intervals_of(
        predictions, [metric], seed=seed, resamples=resamples, clusters=clusters, level=level, block_bp=block_bp
    )[metric]


def intervals_of(
    predictions: Predictions,
    metrics: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    clusters: str = "item",
    level: float = LEVEL,
    block_bp: int = BLOCK_BP,
) -> dict[str, Interval]:
    """Percentile intervals of several metrics, from the same resamples.

    Where a column ``fold`` stands beside the predictions, each fold is resampled by itself and the score is the mean
    over folds.

    Args:
        predictions: What was said of each item.
        metrics: Out of ``METRICS``: ``mcc`` for classes, the others for scores.
        seed: Of the draws.
        resamples: How many.
        clusters: What is drawn: ``item``, ``chromosome`` or ``block``.
        level: Share of resamples that the interval holds.
        block_bp: Length of a block.

    Raises:
        ConfigError: The metric has no interval or does not fit the predictions, or a number is out of range.
        RecordError: The predictions lack the places that the clusters need.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; expected a share between 0 and 1, such as 0.95")
    drawn = draws_of(predictions, metrics, seed=seed, resamples=resamples, clusters=clusters, block_bp=block_bp)
    return {
        metric: Interval(
            low=_ends(draws.values, level)[0],
            high=_ends(draws.values, level)[1],
            level=level,
            resamples=resamples,
            clusters=clusters,
            n_clusters=draws.n_clusters,
            seed=seed,
            n_undefined=int(np.isnan(draws.values).sum()),
            per_label=tuple(_ends(column, level) for column in draws.per_label.T),
        )
        for metric, draws in drawn.items()
    }


def _ends(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
