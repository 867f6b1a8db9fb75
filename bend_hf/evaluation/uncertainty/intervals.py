"""The interval that a score lies in, over other items of the same kind: Wilson's, with an effective number of answers.

The low end may lie lower. Average precision of few items is skewed, so its low end is not above that of a logit
interval (Boyd, Eng and Page 2013, ECML PKDD, 451). If errors depend on which blocks were drawn, a draw may miss the
blocks with most of them: it shows too few errors and too small a variance at once. Errors then add up like squares of
block effects, which are skewed. Hall's correction (1992, J. R. Stat. Soc. B 54:221) for this skewness is made as far as
the ranks of all items say that blocks differ, and as the score is near the end of its range.

The variance of a score comes from the influence of each cluster (``influence.py``). Score and variance give the number
of independent yes-or-no answers that would be as certain, and Wilson's interval (1927, JASA 22:209) for so many answers
holds near the ends of the range, where the bootstrap and the normal interval miss; Korn and Graubard (1998, Survey
Methodology 24:193) use an effective number in the same way. The quantile is Student's. ``benchmarks/coverage.py``
measures how often the interval covers the truth.

>>> predictions = Predictions(item=np.arange(4), windows=np.arange(5), target=np.array([0, 0, 1, 1], np.int16),
...                           score=np.array([0.1, 0.4, 0.5, 0.8], np.float32), predicted=None, label_names=("a", "b"))
>>> interval_of(predictions, "auroc").mark
'too few clusters and positives'
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Final

import numpy as np

from bend_hf.errors import ConfigError
from bend_hf.evaluation.gene_structure import NAME as STRUCTURE
from bend_hf.evaluation.gene_structure import StructureCounts
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.uncertainty.bootstrap import check_metrics, folds_of, has_interval
from bend_hf.evaluation.uncertainty.clusters import Clusters, as_clusters, codes_of
from bend_hf.evaluation.uncertainty.fast_metrics import ConfusionCounts
from bend_hf.evaluation.uncertainty.influence import (
    INFORMATION,
    Spread,
    influences,
    mean_spread,
    spread_by_leaving_out,
    spread_of,
    spread_of_mcc,
)
from bend_hf.types import Ints, Json

LEVEL: Final = 0.95
RULES: Final = 2  # by which intervals are computed; raise it if the intervals of the same predictions change
FEW_CLUSTERS: Final = 6  # with 5 clusters, no exact two-sided test reaches 0.05: 2 / 2**5
FEW_POSITIVES: Final = 8
_TWO: Final = 2  # clusters that a variance takes
_LONGER: Final = 0.8  # the logit interval of average precision of n answers, by this over sqrt(n); by simulation
_STEEP: Final = 3  # how fast the correction for blocks grows with what they explain of the ranks; by simulation
# Variance over other rows of training, per variance of the mean of n folds, times n - 1. Nadeau and Bengio (2003, Mach.
# Learn. 52:239) take n for random splits; folds have less, by simulation.
_SHARED: Final = 2.0
_LARGEST: Final = 700.0  # exponent that a double holds
_SKEWNESS: Final = 4.5  # of the errors of a block, by simulation; squares of normal variables have 2.8
_RANGE: Final = {"mcc": (-1.0, 1.0), "auroc": (0.0, 1.0), "auprc": (0.0, 1.0)}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A score and how certain it is.

    Attributes:
        value: The score; with folds, the mean over folds; nan if it is not defined.
        variance: Its variance over clusters; nan with fewer than two clusters.
        degrees_of_freedom: Of the variance.
        at_most: The score is not more certain than this many independent answers.
        spread: Influence of each cluster; None if the score is not defined.
        n_clusters: Number of clusters with scored windows.
        n_rare: Items of the rarer class of the median label; None for classes.
        of_folds: Score of each fold; empty if there are no folds.
        bias: By how much the score is too high on average. It matters over folds only: their mean has a smaller
            variance than each fold, but the same bias.
    """

    value: float
    variance: float
    degrees_of_freedom: float
    at_most: float
    spread: Spread | None
    n_clusters: int
    n_rare: int | None
    of_folds: tuple[float, ...] = ()
    bias: float = 0.0

    def ends(self, metric: str, level: float) -> tuple[float, float]:
        """Compute the interval; nan if the variance is not defined. Over folds, it holds that without the bias too."""
        centers = [self.value, self.value - self.bias] if self.of_folds and self.bias else [self.value]
        found = [
            wilson(center, self.variance, self.degrees_of_freedom, metric=metric, level=level, at_most=self.at_most)
            for center in centers
        ]
        lows = [self._lower(center, low, metric, level) for center, (low, _) in zip(centers, found, strict=True)]
        return min(lows), max(high for _, high in found)

    def _lower(self, center: float, low: float, metric: str, level: float) -> float:
        """Lower the low end of Wilson's interval of an area for the skewness of few items and of few blocks."""
        error = 1 - center
        if metric not in INFORMATION or math.isnan(low) or not 0 < error < 1:
            return low
        t = t_quantile(self.degrees_of_freedom, (1 + level) / 2)
        if metric == "auprc":
            low = min(low, _logit_low(center, self.variance, t * (1 + _LONGER / math.sqrt(self.at_most))))
        weight = self.spread.between**_STEEP * max(1 - 2 * error, 0.0) ** 2 if self.spread is not None else 0.0
        if not weight or self.n_clusters < _TWO:
            return low
        of_clusters = t_quantile(self.n_clusters - 1.0, (1 + level) / 2)
        # Hall's term of first order, the sign of which is that of the skewness of errors
        skewed = of_clusters + _SKEWNESS * (2 * of_clusters**2 + 1) / (6 * math.sqrt(self.n_clusters - 1))
        variance = max(self.variance, center * error / self.at_most)
        return low - weight * max(low - _logit_low(center, variance, max(t, skewed)), 0.0)

    @property
    def mark(self) -> str:
        """What is wrong with the interval: ``undefined``, ``too few ...``, or nothing."""
        if math.isnan(self.variance):
            return "undefined"
        few = ["clusters"] if self.n_clusters < FEW_CLUSTERS else []
        few += ["positives"] if self.n_rare is not None and self.n_rare < FEW_POSITIVES else []
        return f"too few {' and '.join(few)}" if few else ""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The interval that a score lies in.

    Attributes:
        low: Lower end; nan if it is not defined.
        high: Upper end.
        level: Confidence level.
        estimate: The score with its variance.
        clusters: What counted as one observation.
        over_items: The interval if each item counted as one observation.
        per_label: Ends for each label; empty if the metric has no labels.
        n_undefined: Labels for which the interval is not defined.
    """

    low: float
    high: float
    level: float
    estimate: Estimate
    clusters: Clusters
    over_items: tuple[float, float]
    per_label: tuple[tuple[float, float], ...] = ()
    n_undefined: int = 0

    @property
    def method(self) -> str:
        """The method in words."""
        return f"Wilson over {self.n_clusters} {self.clusters.noun}"

    @property
    def mark(self) -> str:
        """What is wrong with the interval; empty if nothing is."""
        return self.estimate.mark

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return self.estimate.n_clusters

    def as_json(self) -> dict[str, Json]:
        """Give the interval as a result record keeps it; null stands for nan."""
        body: dict[str, Json] = {
            "low": _finite(self.low),
            "high": _finite(self.high),
            "level": self.level,
            "method": self.method,
            "rules": RULES,
            "clusters": self.clusters.by,
            "n_clusters": self.n_clusters,
            "block_bp": self.clusters.block_bp,
            "clusters_reason": self.clusters.reason,
            "standard_error": _finite(math.sqrt(self.estimate.variance)),
            "degrees_of_freedom": _finite(self.estimate.degrees_of_freedom),
            "mark": self.mark or None,
            "over_items": {"low": _finite(self.over_items[0]), "high": _finite(self.over_items[1])},
            "n_undefined": self.n_undefined,
        }
        if self.per_label:
            body["per_label"] = [[_finite(low), _finite(high)] for low, high in self.per_label]
        return body


def with_intervals(
    metrics: Mapping[str, Json], predictions: Predictions, clusters: Clusters | None = None
) -> dict[str, Json]:
    """Add an ``interval`` to each metric of a result record that has one.

    Args:
        metrics: Entries by name, objects with a ``value``.
        predictions: The predictions that were scored, with a column ``fold`` if there are folds.
        clusters: What counts as one observation; by default chosen from the data.
    """
    possible = [name for name in metrics if has_interval(name, predictions)]
    found = intervals_of(predictions, possible, clusters) if possible else {}
    return {
        name: {**entry, "interval": found[name].as_json()} if name in found and isinstance(entry, dict) else entry
        for name, entry in metrics.items()
    }


def interval_of(
    predictions: Predictions, metric: str, clusters: Clusters | None = None, *, level: float = LEVEL
) -> Interval:
    """Compute the interval of one metric; see ``intervals_of``."""
    return intervals_of(predictions, [metric], clusters, level=level)[metric]


def intervals_of(
    predictions: Predictions, metrics: Sequence[str], clusters: Clusters | None = None, *, level: float = LEVEL
) -> dict[str, Interval]:
    """Compute the intervals of several metrics.

    If the predictions have a column ``fold``, the score is the mean over folds, clusters are taken within folds, and
    the variance is that between the folds if it is larger.

    Args:
        predictions: The predictions.
        metrics: ``mcc`` and ``gene_structure`` for classes, ``auroc`` and ``auprc`` for scores.
        clusters: What counts as one observation; by default chosen from the data.
        level: Confidence level.

    Raises:
        ConfigError: A metric has no interval or does not fit the predictions, or the level is out of range.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; expected a fraction between 0 and 1, such as 0.95")
    check_metrics(predictions, metrics)
    chosen = as_clusters(predictions) if clusters is None else clusters
    return {metric: _interval(predictions, metric, chosen, level) for metric in metrics}


def estimate_of(predictions: Predictions, metric: str, clusters: Clusters) -> Estimate:
    """Compute a score with its variance over clusters.

    Args:
        predictions: The predictions, which ``check_metrics`` accepts.
        metric: ``mcc``, ``auroc`` or ``auprc``.
        clusters: What counts as one observation.
    """
    return _estimates(predictions, metric, [clusters.of_item])[0][0]


def wilson(
    value: float, variance: float, degrees_of_freedom: float, *, metric: str, level: float, at_most: float = math.inf
) -> tuple[float, float]:
    """Compute Wilson's interval of a score from its variance; nan if the variance is not defined.

    Args:
        value: The score.
        variance: Its variance.
        degrees_of_freedom: Of the variance.
        metric: ``mcc``, ``auroc`` or ``auprc``, which says in which range the score lies.
        level: Confidence level.
        at_most: The score is not more certain than this many independent answers.
    """
    if math.isnan(value) or math.isnan(variance):
        return math.nan, math.nan
    lowest, highest = _RANGE.get(metric, (0.0, 1.0))
    width = highest - lowest
    p = min(max((value - lowest) / width, 0.0), 1.0)
    n = min(p * (1 - p) * width**2 / variance if variance > 0 else math.inf, at_most)
    if not math.isfinite(n) or n <= 0:
        return value, value
    t = t_quantile(degrees_of_freedom, (1 + level) / 2)
    middle = (p + t * t / (2 * n)) / (1 + t * t / n)
    half = t / (1 + t * t / n) * math.sqrt(p * (1 - p) / n + t * t / (4 * n * n))
    return lowest + width * max(middle - half, 0.0), lowest + width * min(middle + half, 1.0)


def _logit_low(value: float, variance: float, quantile: float) -> float:
    """Compute the low end of an interval that is symmetric on the logit scale.

    Args:
        value: The score, between 0 and 1.
        variance: Its variance.
        quantile: Number of standard errors.
    """
    product = value * (1 - value)
    return value / (value + (1 - value) * math.exp(min(quantile * math.sqrt(variance) / product, _LARGEST)))


def t_quantile(degrees_of_freedom: float, probability: float) -> float:
    """Compute a quantile of Student's distribution; the normal one for infinite degrees of freedom."""
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # SciPy has no type hints

    if math.isinf(degrees_of_freedom):
        return NormalDist().inv_cdf(probability)
    return float(stdtrit(degrees_of_freedom, probability))


def t_two_sided(t: float, degrees_of_freedom: float) -> float:
    """Compute the probability that Student's t is at least as far from 0."""
    from scipy.special import stdtr

    return 2 * float(stdtr(min(degrees_of_freedom, 1e9), -abs(t)))


def _interval(predictions: Predictions, metric: str, clusters: Clusters, level: float) -> Interval:
    items = np.arange(len(predictions), dtype=np.int64)
    found = _estimates(predictions, metric, [clusters.of_item, items] if clusters.by != "item" else [items])
    (by_cluster, labels), (by_item, item_labels) = found[0], found[-1]
    # neighbors are alike, not opposite: clusters that seem to make a score more certain than items do are chance
    wider = [_wider(one, other) for one, other in zip([by_cluster, *labels], [by_item, *item_labels], strict=True)]
    ends = [one.ends(metric, level) for one in wider]
    return Interval(
        low=ends[0][0],
        high=ends[0][1],
        level=level,
        estimate=wider[0],
        clusters=clusters,
        over_items=by_item.ends(metric, level),
        per_label=tuple(ends[1:]),
        n_undefined=sum(math.isnan(low) for low, _ in ends[1:] or ends),
    )


def _wider(by_cluster: Estimate, by_item: Estimate) -> Estimate:
    if math.isnan(by_cluster.variance):
        return by_cluster
    return replace(by_cluster, variance=max(by_cluster.variance, by_item.variance))


def _estimates(
    predictions: Predictions, metric: str, clusterings: Sequence[Ints]
) -> list[tuple[Estimate, list[Estimate]]]:
    """For each way to cluster the items: the estimate over all, and those of each label."""
    fold_of_item = folds_of(predictions)
    folds = np.unique(fold_of_item) if len(fold_of_item) else np.zeros(1, np.int64)
    rows = [np.flatnonzero(fold_of_item == fold) for fold in folds]
    per_fold = [_fold_estimates(predictions, row, metric, [codes[row] for codes in clusterings]) for row in rows]
    if len(folds) == 1:
        return per_fold[0]
    return [
        (_mean_of_folds([found[index][0] for found in per_fold], [codes[row] for row in rows]), [])
        for index, codes in enumerate(clusterings)
    ]


def _fold_estimates(
    predictions: Predictions, rows: Ints, metric: str, clusterings: Sequence[Ints]
) -> list[tuple[Estimate, list[Estimate]]]:
    lengths = np.diff(predictions.windows)[rows]
    window = np.repeat(predictions.windows[rows] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    chosen = slice(None) if len(rows) == len(predictions) else window  # a slice copies nothing
    codes = [codes_of(one) for one in clusterings]
    of_window = [np.repeat(one, lengths) for one in codes]
    sizes = [int(one.max(initial=-1)) + 1 for one in codes]
    if metric == STRUCTURE:
        part = predictions if len(rows) == len(predictions) else predictions.take(rows)
        return [_structure_estimates(part, code, n) for code, n in zip(codes, sizes, strict=True)]
    target, values = predictions.target[chosen], predictions.values[chosen]
    if predictions.score is None:
        highest = max(int(values.max(initial=0)), int(target.max(initial=0)), len(predictions.label_names) - 1)
        found = []
        for cluster, n in zip(of_window, sizes, strict=True):
            counts = ConfusionCounts.of(values, target, cluster, n_clusters=n, n_classes=highest + 1).counts
            value, spread = spread_of_mcc(counts, highest + 1)
            found.append((_estimate(value, spread, None), list[Estimate]()))
        return found
    per_label: list[list[Estimate]] = [[] for _ in clusterings]
    score = values[:, None] if values.ndim == 1 else values
    true = target[:, None] if target.ndim == 1 else target
    for label in range(score.shape[1]):
        influence = influences(score[:, label], true[:, label], metric)
        rare = int(min(influence.positive.sum(), influence.negative.sum()))
        for index, (cluster, n) in enumerate(zip(of_window, sizes, strict=True)):
            of_label = None if math.isnan(influence.value) else spread_of(influence, cluster, n, metric)
            per_label[index].append(replace(_estimate(influence.value, of_label, rare), bias=influence.bias))
    return [(_mean_of_labels(labels), labels if target.ndim == 2 else []) for labels in per_label]


def _structure_estimates(predictions: Predictions, cluster: Ints, n_clusters: int) -> tuple[Estimate, list[Estimate]]:
    """The estimates of exact exons and of each result that the metric names."""
    found = StructureCounts.of(predictions, cluster, n_clusters)
    values = found.f1(np.ones((n_clusters, 1)))[0]
    without = found.f1_without()
    estimates = []
    for index, value in enumerate(values.tolist()):
        of_name = None if math.isnan(value) else spread_by_leaving_out(value, without[:, index], found.sizes(index))
        estimates.append(_estimate(value, of_name, None))
    return estimates[0], estimates


def _estimate(value: float, spread: Spread | None, n_rare: int | None) -> Estimate:
    """The estimate of one score; its variance is not defined if one cluster holds all positives or negatives."""
    n_clusters = 0 if spread is None else spread.n_clusters
    if spread is None or n_clusters < _TWO or min(spread.effective) <= 1 + 1e-9:  # rounding of 1 / share**2
        return Estimate(
            value=value,
            variance=math.nan,
            degrees_of_freedom=math.nan,
            at_most=math.inf,
            spread=spread,
            n_clusters=n_clusters,
            n_rare=n_rare,
        )
    variance = spread.variance
    return Estimate(
        value=value,
        variance=variance,
        degrees_of_freedom=spread.degrees_of_freedom,
        at_most=spread.at_most if variance > 0 else min(spread.at_least, spread.at_most),
        spread=spread,
        n_clusters=n_clusters,
        n_rare=n_rare,
    )


def _mean_of_labels(labels: Sequence[Estimate]) -> Estimate:
    """The mean over the labels that are defined; labels without a variance are left out of the variance."""
    if len(labels) == 1:
        return labels[0]
    defined = [one for one in labels if not math.isnan(one.value)]
    certain = [one.spread for one in defined if one.spread is not None and not math.isnan(one.variance)]
    value = float(np.mean([one.value for one in defined])) if defined else math.nan
    rare = int(np.median([one.n_rare or 0 for one in labels])) if labels else 0
    bias = float(np.mean([one.bias for one in defined])) if defined else 0.0
    return replace(_estimate(value, mean_spread(certain) if certain else None, rare), bias=bias)


def _mean_of_folds(folds: Sequence[Estimate], codes: Sequence[Ints]) -> Estimate:
    """The mean over folds: clusters within folds, or the variation between folds if it is larger, and trainings.

    Folds share rows of training, so that other rows would move all of their scores together.
    """
    defined = [one for one in folds if not math.isnan(one.value)]
    n = len(defined)
    values = np.array([one.value for one in defined])
    n_clusters = len(np.unique(np.concatenate(codes))) if codes else 0
    between = float(values.var(ddof=1) / n) if n > 1 else math.nan
    within = sum(one.variance for one in defined) / n**2 if n else math.nan
    use_between = math.isnan(within) or between > within
    freedom = (
        n - 1.0
        if use_between
        else sum_of_variances([one.variance for one in defined], [one.degrees_of_freedom for one in defined])
    )
    rare = [one.n_rare for one in defined if one.n_rare is not None]
    return Estimate(
        value=float(values.mean()) if n else math.nan,
        variance=(between if use_between else within) * (1 + _SHARED / (n - 1) if n > 1 else 1.0),
        degrees_of_freedom=freedom,
        at_most=sum(one.at_most for one in defined) if n else math.inf,
        spread=_spread_of_folds(folds, codes),
        n_clusters=n_clusters,
        n_rare=sum(rare) if rare else None,
        of_folds=tuple(one.value for one in folds),
        bias=float(np.mean([one.bias for one in defined])) if n else 0.0,
    )


def _spread_of_folds(folds: Sequence[Estimate], codes: Sequence[Ints]) -> Spread | None:
    """The influence of clusters that may lie in several folds on the mean over the folds that are defined."""
    known = [(one.spread, code) for one, code in zip(folds, codes, strict=True) if one.spread is not None]
    if not known:
        return None
    names = np.unique(np.concatenate([code for _, code in known]))
    aligned = []
    for spread, code in known:
        place = names.searchsorted(np.unique(code))
        influence, adjusted, share = (np.zeros(len(names)) for _ in range(3))
        influence[place], adjusted[place], share[place] = spread.influence, spread.adjusted, spread.share
        aligned.append(replace(spread, influence=influence, adjusted=adjusted, share=share))
    return mean_spread(aligned)


def sum_of_variances(variances: Sequence[float], freedoms: Sequence[float]) -> float:
    """Degrees of freedom of a sum of variances, by Welch and Satterthwaite."""
    squares = sum(v * v / f for v, f in zip(variances, freedoms, strict=True))
    return sum(variances) ** 2 / squares if squares > 0 else min(freedoms)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
