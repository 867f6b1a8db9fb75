"""Compare models on the same items: differences of their scores with intervals and corrected p values.

Items that are hard for both models cancel out. The default test flips the signs of what each cluster adds to the
difference, which is exact for few clusters, and asks for a t test over clusters too; with several trainings of a model,
their variation is part of the interval and of the test.

>>> holm([0.01, 0.5])
[0.02, 0.5]
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bend_hf.errors import ConfigError, RecordError
from bend_hf.evaluation.identity import in_other, keys_sha256, order_of
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.uncertainty.bootstrap import Bootstrap, Draws, check_metrics, draws_of, folds_of
from bend_hf.evaluation.uncertainty.clusters import Clusters, as_clusters
from bend_hf.evaluation.uncertainty.delong import delong
from bend_hf.evaluation.uncertainty.influence import concentration
from bend_hf.evaluation.uncertainty.intervals import (
    LEVEL,
    Estimate,
    estimate_of,
    sum_of_variances,
    t_quantile,
    t_two_sided,
)
from bend_hf.types import IGNORE_LABEL

log = logging.getLogger(__name__)

Method: TypeAlias = Literal["paired", "bootstrap", "delong"]
RESAMPLES: Final = 2000  # twice those of an interval: the smallest p value is 2 / (resamples + 1)
POWER: Final = 0.8
_ALL_FLIPS: Final = 16  # clusters up to which every pattern of signs is tried: 2**15
_FLIPS: Final = 9999  # patterns that are drawn otherwise, so that the smallest p is 0.0001
_FLIPPED: Final = 1000  # clusters that are flipped one by one; the sum of many small ones is normal


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same items.

    Attributes:
        first: Name of the first model.
        second: Name of the second model.
        value_first: Score of the first model.
        value_second: Score of the second model.
        difference: First score minus second score.
        low: Lower end of the interval of the difference; nan if it is not defined.
        high: Upper end.
        p: Two-sided p value of no difference; nan if it is not defined.
        p_holm: The p value, corrected over all pairs by Holm's method.
        n_trainings: Number of trainings of each model.
        se_items: Standard error of the difference over other items; nan if it is not known.
        se_trainings: Standard error over other trainings; nan if a model was trained once.
        detectable: The smallest difference that this test would find in 4 of 5 cases; nan if it is not known.
    """

    first: str
    second: str
    value_first: float
    value_second: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    n_trainings: tuple[int, int] = (1, 1)
    se_items: float = math.nan
    se_trainings: float = math.nan
    detectable: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """The trainings of one model, scored on the same items.

    Attributes:
        values: Score of each training, float64, shape (trainings,).
        over_clusters: The estimate of each training over clusters.
        over_items: The estimate of each training over items.
    """

    values: NDArray[np.float64]
    over_clusters: tuple[Estimate, ...]
    over_items: tuple[Estimate, ...]

    @property
    def variance(self) -> float:
        """Variance of the mean over other trainings; nan if there is one training."""
        n = len(self.values)
        return float(self.values.var(ddof=1) / n) if n > 1 else math.nan


def compare(
    models: Mapping[str, Predictions | Sequence[Predictions]],
    metric: str,
    bootstrap: Bootstrap | None = None,
    *,
    level: float = LEVEL,
    method: Method = "paired",
) -> list[Comparison]:
    """Compare every pair of models.

    Args:
        models: Predictions by name, two or more, all of the same items; several of a model that was trained
            several times.
        metric: ``mcc`` for classes, ``auroc`` or ``auprc`` for scores.
        bootstrap: What counts as one observation, and for ``bootstrap`` how resamples are drawn.
        level: Confidence level of the intervals.
        method: ``paired``, ``bootstrap``, or ``delong`` for AUROC of one label.

    Returns:
        A comparison per pair, the better model first, the largest difference first.

    Raises:
        RecordError: The predictions are not of the same items and labels.
        ConfigError: There are fewer than two models, or metric, method and predictions do not fit together.
    """
    if len(models) < 2:
        raise ConfigError(f"{len(models)} set of predictions was given; a comparison needs two or more")
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; expected a fraction between 0 and 1, such as 0.95")
    bootstrap = bootstrap or Bootstrap(resamples=RESAMPLES)
    groups = on_common_items(
        {name: [given] if isinstance(given, Predictions) else given for name, given in models.items()}
    )
    if method == "paired":
        first = next(iter(groups.values()))[0]
        clusters = as_clusters(first, bootstrap.clusters, block_bp=bootstrap.block_bp)
        trained = {name: trainings_of(group, metric, clusters) for name, group in groups.items()}
        found = [paired(pair, trained[pair[0]], trained[pair[1]], level) for pair in combinations(trained, 2)]
    else:
        found = _of_one_training(groups, metric, bootstrap, level, method)
    corrected = holm([one.p for one in found])
    ordered = [_better_first(replace(one, p_holm=p)) for one, p in zip(found, corrected, strict=True)]
    return sorted(ordered, key=lambda one: (np.isnan(one.difference), -one.difference, one.first, one.second))


def on_common_items(groups: Mapping[str, Sequence[Predictions]]) -> dict[str, list[Predictions]]:
    """Sort the predictions of several models, and leave out windows that one of them gives no score for.

    A score may be missing, as that of an insertion from a model that only substitutions can be scored by. A window that
    is left out is not labeled in what is returned.

    Args:
        groups: Predictions by name, one or several for each model.

    Raises:
        RecordError: The predictions are not of the same items and labels.
    """
    found = {name: [in_order(one) for one in group] for name, group in groups.items()}
    every = {f"{name} {n}" if n else name: one for name, group in found.items() for n, one in enumerate(group)}
    check_same_items(every)
    scores = [one.score for one in every.values() if one.score is not None and one.target.dtype.kind != "f"]
    if len(scores) < len(every):
        return found
    finite = np.logical_and.reduce([np.isfinite(score) for score in scores])
    if finite.all():
        return found
    lacking = [name for name, one in every.items() if one.score is not None and not np.isfinite(one.score).all()]
    log.warning(
        "%d of %d scores are missing or not finite (%s), and these items are left out for all models",
        *(int((~finite).sum()), finite.size, _few(lacking)),
    )
    return {
        name: [
            replace(
                one,
                target=np.where(finite, one.target, np.int16(IGNORE_LABEL)),
                score=None if one.score is None else np.where(finite, one.score, np.float32(0)),
            )
            for one in group
        ]
        for name, group in found.items()
    }


def _of_one_training(
    groups: Mapping[str, Sequence[Predictions]], metric: str, bootstrap: Bootstrap, level: float, method: Method
) -> list[Comparison]:
    several = [name for name, group in groups.items() if len(group) > 1]
    if several:
        raise ConfigError(
            f"{several[0]} has {len(groups[several[0]])} trainings, which --method {method} cannot take into account; "
            "use --method paired"
        )
    models = {name: group[0] for name, group in groups.items()}
    if method == "delong":
        return _by_delong(models, metric, bootstrap, level)
    draws = {name: draws_of(one, [metric], bootstrap)[metric] for name, one in models.items()}
    return [difference(pair, draws[pair[0]], draws[pair[1]], level) for pair in combinations(draws, 2)]


def trainings_of(predictions: Sequence[Predictions], metric: str, clusters: Clusters) -> Trainings:
    """Score the trainings of one model.

    Args:
        predictions: Of each training, on the same items in the same order.
        metric: ``mcc``, ``auroc`` or ``auprc``.
        clusters: What counts as one observation.

    Raises:
        ConfigError: The metric has no interval or does not fit the predictions.
    """
    for one in predictions:
        check_metrics(one, [metric])
    over_clusters = tuple(estimate_of(one, metric, clusters) for one in predictions)
    items = Clusters(of_item=np.arange(len(predictions[0]), dtype=np.int64), by="item", block_bp=None, reason="")
    return Trainings(
        values=np.array([one.value for one in over_clusters]),
        over_clusters=over_clusters,
        over_items=over_clusters
        if clusters.by == "item"
        else tuple(estimate_of(one, metric, items) for one in predictions),
    )


def paired(pair: tuple[str, str], one: Trainings, other: Trainings, level: float = LEVEL) -> Comparison:
    """Compare two models over items and, if both were trained several times, over trainings.

    The p value is the larger one of two: flipping the signs of the clusters' contributions, which is exact however few
    clusters there are, and a t test, whose variance holds the trainings.

    Args:
        pair: Names of the models.
        one: The first model.
        other: The second model.
        level: Confidence level of the interval.
    """
    values = float(one.values.mean()), float(other.values.mean())
    value = values[0] - values[1]
    of_items, freedom, p_flip = _over_items(value, one, other)
    of_trainings = one.variance + other.variance
    variance, freedoms = of_items, freedom
    if not math.isnan(of_trainings):
        parts = [of_items, one.variance, other.variance]
        variance = sum(parts)
        freedoms = sum_of_variances(parts, [freedom, len(one.values) - 1.0, len(other.values) - 1.0])
    low = high = p = detectable = math.nan
    if not math.isnan(variance):
        error = math.sqrt(variance)
        t = t_quantile(freedoms, (1 + level) / 2)
        low, high = value - t * error, value + t * error
        p_t = t_two_sided(value / error, freedoms) if error > 0 else float(value == 0)
        p = max(p_flip, p_t) if value else 1.0
        detectable = (t + t_quantile(freedoms, POWER)) * error
    return Comparison(
        first=pair[0],
        second=pair[1],
        value_first=values[0],
        value_second=values[1],
        difference=value,
        low=low,
        high=high,
        p=p,
        p_holm=math.nan,
        n_trainings=(len(one.values), len(other.values)),
        se_items=math.sqrt(of_items),
        se_trainings=math.sqrt(of_trainings),
        detectable=detectable,
    )


def _over_items(value: float, one: Trainings, other: Trainings) -> tuple[float, float, float]:
    """Variance of the difference over clusters, its degrees of freedom, and p by flipping signs; nan if undefined."""
    estimates = [*one.over_clusters, *other.over_clusters]
    spreads = [found.spread for found in estimates if found.spread is not None]
    if len(spreads) < len(estimates) or any(math.isnan(found.variance) for found in estimates):
        return math.nan, math.nan, math.nan
    signs = [1 / len(one.values)] * len(one.values) + [-1 / len(other.values)] * len(other.values)
    adjusted = sum(sign * found.adjusted for sign, found in zip(signs, spreads, strict=True))
    influence = sum(sign * found.influence for sign, found in zip(signs, spreads, strict=True))
    variance = replace(spreads[0], adjusted=np.asarray(adjusted)).variance
    freedom = max(1.0, min(concentration(np.asarray(adjusted)), *(found.degrees_of_freedom for found in spreads)))
    p = sign_flip_p(np.asarray(influence) + value * spreads[0].share)
    by_item = [found.spread for found in (*one.over_items, *other.over_items) if found.spread is not None]
    single = sum(sign * found.adjusted for sign, found in zip(signs, by_item, strict=True))
    variance = max(variance, replace(by_item[0], adjusted=np.asarray(single)).variance)
    if estimates[0].of_folds:
        folds = np.array([found.of_folds for found in estimates]).T @ np.array(signs)
        folds = folds[~np.isnan(folds)]
        if len(folds) > 1 and folds.var(ddof=1) / len(folds) > variance:
            variance, freedom = float(folds.var(ddof=1) / len(folds)), len(folds) - 1.0
    return variance, freedom, p


def sign_flip_p(contributions: NDArray[np.float64], seed: int = 0) -> float:
    """Test whether contributions are symmetric about 0: how often the sum with random signs is as far from 0.

    Up to 16 contributions, all patterns of signs are tried, so that p is not below 2 / 2**n; otherwise 9,999 are drawn.

    Args:
        contributions: What each cluster adds to the difference, shape (clusters,).
        seed: Seed of the draws.
    """
    contributions = contributions[contributions != 0]
    if not len(contributions):
        return 1.0
    total = abs(float(contributions.sum())) * (1 - 1e-9)  # rounding: the pattern that was seen must count
    if len(contributions) <= _ALL_FLIPS:
        sums = contributions[:1]
        for one in contributions[1:]:
            sums = np.concatenate([sums + one, sums - one])
        return float((np.abs(sums) >= total).mean())
    rng = np.random.default_rng(seed)
    order = np.argsort(-np.abs(contributions))
    large, small = contributions[order[:_FLIPPED]], contributions[order[_FLIPPED:]]
    flipped = np.unpackbits(rng.integers(0, 256, (_FLIPS, -(-len(large) // 8)), dtype=np.uint8), axis=1)
    kept = flipped[:, : len(large)].astype(np.float32) @ large.astype(np.float32)
    drawn = 2 * kept - large.sum() + math.sqrt(float((small**2).sum())) * rng.standard_normal(_FLIPS)
    return float((1 + (np.abs(drawn) >= total).sum()) / (_FLIPS + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values so that the chance of any false finding keeps its level; Holm 1979, Scand. J. Statist. 6:65.

    Args:
        p_values: One per test; nan if there was no test, which is not counted.
    """
    tested = sorted((p, index) for index, p in enumerate(p_values) if not np.isnan(p))
    corrected, highest = [float("nan")] * len(p_values), 0.0
    for rank, (p, index) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        corrected[index] = highest
    return corrected


def in_order(predictions: Predictions) -> Predictions:
    """Sort predictions by the content of their items, whatever their order in a file was."""
    order = order_of(predictions.keys)
    return predictions if (np.diff(order) == 1).all() else predictions.take(order)


def check_same_items(models: Mapping[str, Predictions]) -> None:
    """Check that models can be compared item by item.

    Args:
        models: Predictions by name, as ``in_order`` sorts them.

    Raises:
        RecordError: The models have different items, labels or folds.
    """
    (name, first), *others = models.items()
    for other_name, other in others:
        if first.label_names != other.label_names:
            raise RecordError(
                f"{name} has the labels {_few(first.label_names)} and {other_name} {_few(other.label_names)}; compare "
                "runs of one task"
            )
        if np.array_equal(first.keys, other.keys):
            continue
        if keys_sha256(first.places) != keys_sha256(other.places):
            shared = int(in_other(first.places, other.places).sum())
            raise RecordError(
                f"{name} has {len(first):,} items (sha256 {first.item_sha256[:12]}) and {other_name} {len(other):,} "
                f"(sha256 {other.item_sha256[:12]}); {shared:,} of them lie at the same places. A paired comparison "
                "needs the same items of one task: run both models on the same data"
            )
        if not np.array_equal(np.sort(folds_of(first)), np.sort(folds_of(other))):
            raise RecordError(f"{name} and {other_name} have their items in different folds; use the same folds")
        differ = int((~in_other(first.keys, other.keys)).sum())
        raise RecordError(
            f"{name} and {other_name} have the same places but {differ:,} items with other labels or folds, so they "
            "are of two tasks or of two versions of the data; run both models on the same data"
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def difference(pair: tuple[str, str], one: Draws, other: Draws, level: float = LEVEL) -> Comparison:
    """Compare two models by their scores in the same resamples.

    Args:
        pair: Names of the models.
        one: Scores of the first model.
        other: Scores of the second model in the same resamples.
        level: Fraction of the resamples inside the interval.
    """
    differences = one.values - other.values if min(one.n_clusters, other.n_clusters) > 1 else np.empty(0)
    differences = differences[~np.isnan(differences)]
    low = high = p = float("nan")
    if len(differences):
        low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2]).tolist()
        fewer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
        p = min(1.0, 2 * (fewer + 1) / (len(differences) + 1))
    return Comparison(
        first=pair[0],
        second=pair[1],
        value_first=one.value,
        value_second=other.value,
        difference=one.value - other.value,
        low=low,
        high=high,
        p=p,
        p_holm=float("nan"),
    )


def _by_delong(models: Mapping[str, Predictions], metric: str, bootstrap: Bootstrap, level: float) -> list[Comparison]:
    first = next(iter(models.values()))
    n_labels = 0 if first.score is None else first.score.reshape(len(first.score), -1).shape[1]
    one_window = bool((np.diff(first.windows) == 1).all())
    if (
        metric != "auroc"
        or n_labels != 1
        or as_clusters(first, bootstrap.clusters, block_bp=bootstrap.block_bp).by != "item"
        or not one_window
        or folds_of(first).any()
    ):
        raise ConfigError(
            "DeLong's test needs the AUROC of one label over independent items, one score per item, without folds; "
            "use --method paired"
        )
    scores = np.stack([one.score.reshape(-1) for one in models.values() if one.score is not None])
    result = delong(scores, first.target.reshape(-1))
    found = []
    for (i, name), (j, other) in combinations(enumerate(models), 2):
        areas = result.difference(i, j, level=level)
        found.append(
            Comparison(
                first=name,
                second=other,
                value_first=float(result.areas[i]),
                value_second=float(result.areas[j]),
                difference=areas.value,
                low=areas.low,
                high=areas.high,
                p=areas.p,
                p_holm=float("nan"),
            )
        )
    return found


def _better_first(one: Comparison) -> Comparison:
    if not one.difference < 0:
        return one
    return replace(
        one,
        first=one.second,
        second=one.first,
        value_first=one.value_second,
        value_second=one.value_first,
        difference=-one.difference,
        low=-one.high,
        high=-one.low,
        n_trainings=one.n_trainings[::-1],
    )
