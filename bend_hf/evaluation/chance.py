"""Chance: the score that a guess without knowledge is expected to have.

>>> predictions = Predictions(item=np.arange(4), windows=np.arange(5), target=np.array([0, 0, 1, 1], np.int16),
...                           score=np.array([0.1, 0.4, 0.5, 0.8], np.float32), predicted=None, label_names=("a", "b"))
>>> chance_of(predictions, "auprc").value
0.5
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from bend_hf.evaluation.predictions import Predictions, has_label
from bend_hf.evaluation.uncertainty.bootstrap import folds_of
from bend_hf.types import Json

_OF_RANDOM: Final = {
    "auroc": (0.5, "a random order of the items"),
    "mcc": (0.0, "classes drawn without regard to the labels"),
    "pearsonr": (0.0, "values without regard to the measured ones"),
    "spearmanr": (0.0, "a random order of the items"),
}


@dataclass(frozen=True, kw_only=True)
class Chance:
    """The score that a guess without knowledge is expected to have.

    Attributes:
        value: The score.
        how: How it was determined.
    """

    value: float
    how: str

    def as_json(self) -> dict[str, Json]:
        """Give it as a record holds it."""
        return {"value": self.value, "how": self.how}


def chance_of(predictions: Predictions, metric: str) -> Chance | None:
    """Return chance for a metric; None for metrics without a known one, or without labels to tell it from.

    Args:
        predictions: The predictions that are scored.
        metric: Name of the metric.
    """
    if metric in _OF_RANDOM:
        return Chance(value=_OF_RANDOM[metric][0], how=_OF_RANDOM[metric][1])
    if metric != "auprc":
        return None
    by_fold = []
    fold = np.repeat(folds_of(predictions), np.diff(predictions.windows))
    target = predictions.target[:, None] if predictions.target.ndim == 1 else predictions.target
    for one in np.unique(fold):
        inside = target if len(predictions) and (fold == one).all() else target[fold == one]
        positive, negative = (inside == 1).sum(axis=0), (inside == 0).sum(axis=0)
        both = (positive > 0) & (negative > 0)
        if both.any():
            by_fold.append(float((positive[both] / (positive + negative)[both]).mean()))
    return Chance(value=float(np.mean(by_fold)), how="the fraction of positives") if by_fold else None


def is_labeled(predictions: Predictions) -> bool:
    """Return whether any window has a label."""
    return bool(has_label(predictions.target).any())


def with_chance(metrics: Mapping[str, Json], predictions: Predictions) -> dict[str, Json]:
    """Add ``chance`` to the metrics of a record, and to the main one whether it is significantly below.

    Args:
        metrics: Entries by name, the main one first, with their intervals.
        predictions: The predictions that were scored.
    """
    found = dict(metrics)
    for place, (name, entry) in enumerate(metrics.items()):
        chance = chance_of(predictions, name)
        if chance is None or not isinstance(entry, dict):
            continue
        found[name] = {**entry, "chance": chance.as_json()}
        if place == 0:
            interval = entry.get("interval")
            high = interval.get("high") if isinstance(interval, dict) else None
            below = isinstance(high, int | float) and high < chance.value
            found[name] = {**entry, "chance": chance.as_json(), "below_chance": below}
    return found
