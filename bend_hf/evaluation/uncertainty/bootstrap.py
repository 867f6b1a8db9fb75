"""Intervals of a score by the bootstrap: the same score on items drawn with replacement, a thousand times.

Percentile intervals (Efron 1979, The Annals of Statistics 7:1). They speak of other items of the same kind; that
another seed would have trained another head is not in them.

    python -c "from bend_hf.evaluation.predictions import read_predictions; from bend_hf.evaluation.uncertainty.bootstrap import interval_of;
    print(interval_of(read_predictions(path), 'auroc', clusters='chromosome'))"

>>> Interval(low=0.4, high=0.6, level=0.95, resamples=1000, clusters="item", n_clusters=50, seed=0).method
'bootstrap over items'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.errors import ConfigError
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.uncertainty.clusters import BLOCK_BP
from bend_hf.evaluation.uncertainty.resampling import METRICS, RESAMPLES, draws_of
from bend_hf.shapes import Json

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
