"""Compare models on the same items: differences of their scores with intervals and corrected p values.

Both models of a pair are scored on the same resamples, so items that are hard for both cancel out.

>>> holm([0.01, 0.5])
[0.02, 0.5]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final, Literal, TypeAlias

import numpy as np

from bend_hf.errors import ConfigError, RecordError
from bend_hf.evaluation.predictions import Predictions, concatenate
from bend_hf.evaluation.uncertainty.bootstrap import LEVEL, Bootstrap, Draws, draws_of, folds_of
from bend_hf.evaluation.uncertainty.delong import delong

Method: TypeAlias = Literal["bootstrap", "delong"]
RESAMPLES: Final = 2000  # twice those of an interval: the smallest p value is 2 / (resamples + 1)


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


def compare(
    models: Mapping[str, Predictions],
    metric: str,
    bootstrap: Bootstrap | None = None,
    *,
    level: float = LEVEL,
    method: Method = "bootstrap",
) -> list[Comparison]:
    """Compare every pair of models.

    Args:
        models: Predictions by name, two or more, all of the same items.
        metric: ``mcc`` for classes, ``auroc`` or ``auprc`` for scores.
        bootstrap: How resamples are drawn; by default 2,000 over items.
        level: Fraction of the resamples inside the intervals.
        method: ``bootstrap``, or ``delong`` for AUROC of one label.

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
    sorted_models = {name: by_item(predictions) for name, predictions in models.items()}
    check_same_items(sorted_models)
    if method == "delong":
        found = _by_delong(sorted_models, metric, bootstrap.clusters, level)
    else:
        draws = {name: draws_of(one, [metric], bootstrap)[metric] for name, one in sorted_models.items()}
        found = [difference(pair, draws[pair[0]], draws[pair[1]], level) for pair in combinations(draws, 2)]
    corrected = holm([one.p for one in found])
    ordered = [_better_first(replace(one, p_holm=p)) for one, p in zip(found, corrected, strict=True)]
    return sorted(ordered, key=lambda one: (np.isnan(one.difference), -one.difference, one.first, one.second))


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


def by_item(predictions: Predictions) -> Predictions:
    """Sort predictions by item."""
    in_order = bool((np.diff(predictions.item) > 0).all())
    return predictions if in_order else concatenate([predictions])


def check_same_items(models: Mapping[str, Predictions]) -> None:
    """Check that models can be compared item by item.

    Args:
        models: Predictions by name, sorted by item.

    Raises:
        RecordError: The models have different items, labels or folds.
    """
    (name, first), *others = models.items()
    for other_name, other in others:
        if first.item_sha256 != other.item_sha256:
            shared = len(np.intersect1d(first.item, other.item))
            raise RecordError(
                f"{name} has {len(first):,} items (sha256 {first.item_sha256[:12]}) and {other_name} {len(other):,} "
                f"(sha256 {other.item_sha256[:12]}); {shared:,} of them are the same. A paired comparison needs the "
                "same items of one task: run both models on the same data"
            )
        same = first.target.shape == other.target.shape and bool((first.target == other.target).all())
        if not same or first.label_names != other.label_names or not np.array_equal(first.windows, other.windows):
            raise RecordError(
                f"{name} and {other_name} have the same items but different labels, so they are of two tasks or of two "
                "versions of the data; run both models on the same data"
            )
        if not np.array_equal(folds_of(first), folds_of(other)):
            raise RecordError(f"{name} and {other_name} have their items in different folds; use the same folds")


def difference(pair: tuple[str, str], one: Draws, other: Draws, level: float = LEVEL) -> Comparison:
    """Compare two models by their scores in the same resamples.

    Args:
        pair: Names of the models.
        one: Scores of the first model.
        other: Scores of the second model in the same resamples.
        level: Fraction of the resamples inside the interval.
    """
    differences = one.values - other.values
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


def _by_delong(models: Mapping[str, Predictions], metric: str, clusters: str, level: float) -> list[Comparison]:
    first = next(iter(models.values()))
    n_labels = 0 if first.score is None else first.score.reshape(len(first.score), -1).shape[1]
    one_window = bool((np.diff(first.windows) == 1).all())
    if metric != "auroc" or n_labels != 1 or clusters != "item" or not one_window or folds_of(first).any():
        raise ConfigError(
            "DeLong's test needs the AUROC of one label over independent items, one score per item, without folds; "
            "use --method bootstrap"
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
    )
