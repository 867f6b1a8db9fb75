"""The score by the number of labels: points with intervals, and from how many labels a model passes its controls.

A point is one number of shots, with several seeds: each draws another subset and starts from other weights. The
interval over seeds says how much the draw matters, and the interval over items how much the test items do. The
predictions of every head are columns of one file next to the record.

>>> passing([("1", -0.1, -0.2, 0.0), ("10", 0.1, -0.1, 0.3), ("all", 0.3, 0.2, 0.4)])
{'at': '10', 'earliest': '10', 'latest': 'all'}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bend_hf.evaluation.metrics import metric_range
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.record import member
from bend_hf.evaluation.shots import ShotHeads
from bend_hf.evaluation.uncertainty.bootstrap import has_interval
from bend_hf.evaluation.uncertainty.clusters import as_clusters
from bend_hf.evaluation.uncertainty.comparison import paired, trainings_of
from bend_hf.evaluation.uncertainty.intervals import LEVEL, t_quantile, wilson
from bend_hf.runs.outcome import scored_again, summarize
from bend_hf.types import Json


def point_of(shots: str, heads: Mapping[int, Predictions], metric: str) -> dict[str, Json]:
    """Return one point of a curve.

    Args:
        shots: Number of shots.
        heads: Predictions of each seed.
        metric: Name or folder of the main metric.

    Returns:
        ``shots``, ``seeds``, their ``values``, the mean as ``value``, and the intervals ``over_seeds`` (Student's, of
        the mean over seeds; None with one seed) and ``over_items`` (Wilson's, of the mean variance of the heads; None
        if the metric has no interval).
    """
    values = [value_of(one, metric) for one in heads.values()]
    known = [value for value in values if value is not None]
    return {
        "shots": shots,
        "seeds": list[Json](heads),
        "values": list[Json](values),
        "value": float(np.mean(known)) if known and len(known) == len(values) else None,
        "over_seeds": over_seeds(known, metric) if len(known) == len(values) else None,
        "over_items": _over_items(list(heads.values()), metric),
    }


def value_of(predictions: Predictions, metric: str) -> float | None:
    """Return the main metric of predictions, the mean over folds if there are any; None if it is not defined."""
    (entry,) = summarize(scored_again(predictions, [metric])).values()
    value = member(entry, "value")
    return float(value) if isinstance(value, int | float) else None


def over_seeds(values: Sequence[float], metric: str) -> Json:
    """Return Student's interval of a mean over seeds, within the range of the metric; None for fewer than two."""
    n = len(values)
    if n < 2:
        return None
    deviation = float(np.std(values, ddof=1))
    half = t_quantile(n - 1.0, (1 + LEVEL) / 2) * deviation / math.sqrt(n)
    lowest, highest = metric_range(metric) or (-math.inf, math.inf)
    mean = float(np.mean(values))
    return {"low": max(mean - half, lowest), "high": min(mean + half, highest), "deviation": deviation}


def _over_items(heads: Sequence[Predictions], metric: str) -> Json:
    if not has_interval(metric, heads[0]):
        return None
    found = trainings_of(heads, metric, as_clusters(heads[0])).over_clusters
    variance = float(np.mean([one.variance for one in found]))
    value = float(np.mean([one.value for one in found]))
    if not math.isfinite(variance) or not math.isfinite(value):
        return None
    freedom, at_most = min(one.degrees_of_freedom for one in found), min(one.at_most for one in found)
    low, high = wilson(value, variance, freedom, metric=metric, level=LEVEL, at_most=at_most)
    return {"low": low, "high": high}


def against_controls(model: ShotHeads, controls: Mapping[str, ShotHeads], metric: str) -> dict[str, Json]:
    """Compare a model with the best control at each number of shots, on the same subsets and items.

    Args:
        model: Heads of the model.
        controls: Those of each control, by key.
        metric: Name or folder of the main metric.

    Returns:
        ``points`` with the best ``control``, the ``difference`` and its paired interval over seeds and items (``low``,
        ``high``; None if it is not known), and what ``passing`` gives as ``passes``.
    """
    points: list[Json] = []
    tried: list[tuple[str, float, float, float]] = []
    for shots, ours in [*model.few.items(), ("all", {0: model.full})]:
        theirs = {
            key: [one.full] if shots == "all" else [one.few[shots][seed] for seed in ours]
            for key, one in controls.items()
            if shots == "all" or (shots in one.few and ours.keys() <= one.few[shots].keys())
        }
        means = {key: _mean([value_of(one, metric) for one in heads]) for key, heads in theirs.items()}
        defined = {key: value for key, value in means.items() if value is not None}
        if not defined:
            continue
        best = max(defined, key=lambda key: (defined[key], key))
        difference, low, high = _difference(list(ours.values()), theirs[best], metric)
        tried.append((shots, difference, low, high))
        points.append(
            {
                "shots": shots,
                "control": best,
                "difference": _finite(difference),
                "low": _finite(low),
                "high": _finite(high),
            }
        )
    return {"points": points, "passes": passing(tried)}


def _difference(ours: Sequence[Predictions], theirs: Sequence[Predictions], metric: str) -> tuple[float, float, float]:
    """Mean difference with its interval over seeds and items; over seeds alone if the metric has no interval."""
    if has_interval(metric, ours[0]):
        clusters = as_clusters(ours[0])
        found = paired(
            ("model", "control"), trainings_of(ours, metric, clusters), trainings_of(theirs, metric, clusters)
        )
        return found.difference, found.low, found.high
    values = [(value_of(one, metric), value_of(other, metric)) for one, other in zip(ours, theirs, strict=True)]
    each = [one - other for one, other in values if one is not None and other is not None]
    n = len(each)
    if n < 2:
        return (float(np.mean(each)) if each else math.nan), math.nan, math.nan
    half = t_quantile(n - 1.0, (1 + LEVEL) / 2) * float(np.std(each, ddof=1)) / math.sqrt(n)
    mean = float(np.mean(each))
    return mean, mean - half, mean + half


def passing(tried: Sequence[tuple[str, float, float, float]]) -> dict[str, Json]:
    """Return from how many shots on a model is better than the best control, and how certain that is.

    Args:
        tried: Number of shots, difference to the best control, and the ends of its interval, with rising shots.

    Returns:
        ``at``, the fewest shots from which on every difference is above 0; ``earliest``, from which on no difference is
        significantly below 0; and ``latest``, from which on every difference is significantly above 0. Only numbers
        that were tried are given; None stands for none of them.
    """

    def first(values: Sequence[float]) -> str | None:
        found = None
        for (shots, *_), value in zip(reversed(tried), reversed(values), strict=True):
            if not value > 0:  # nan is not above 0
                break
            found = shots
        return found

    return {
        "at": first([difference for _, difference, _, _ in tried]),
        "earliest": first([high for *_, high in tried]),
        "latest": first([low for _, _, low, _ in tried]),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
