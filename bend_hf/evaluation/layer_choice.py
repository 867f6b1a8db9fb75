"""Choose a layer of a model on the validation split, and say what its test score is worth.

The layer with the highest validation score is chosen, the lowest of equals. Its test score then has two intervals. The
usual one is that of a layer which was named beforehand. The other one holds for all K layers that were tried at once,
whichever of them is chosen and by whatever rule: each has the level 1 - 0.05 / K (Bonferroni), so that all of them hold
with a probability of at least 95 %. A choice by the test scores is covered too, so it is wider than a choice on the
validation split needs.

>>> choose({0: 0.5, 1: 0.7, 2: 0.7, 3: None})
1
>>> round(level_of(13), 4)
0.9962
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.record import ResultRecord, member
from bend_hf.evaluation.uncertainty.bootstrap import has_interval
from bend_hf.evaluation.uncertainty.intervals import LEVEL, interval_of
from bend_hf.files import json_sha256
from bend_hf.types import Json

METHOD: Final = "Bonferroni over the layers tried"
_NOT_OF_A_CURVE: Final = (
    "layer",
    "seed",
    "seeds",
    "run_key",
    "controls",
    "keep",
)  # settings in which its records differ


def level_of(n_tried: int) -> float:
    """Return the level of each of so many intervals that hold together with a probability of at least 0.95."""
    return 1.0 - (1.0 - LEVEL) / n_tried


def choose(validation: Mapping[int, float | None]) -> int | None:
    """Return the layer with the highest validation score, the lowest of equals; None if none is defined."""
    known = {layer: value for layer, value in validation.items() if value is not None and math.isfinite(value)}
    return min(known, key=lambda layer: (-known[layer], layer), default=None)


def validation_of(training: Mapping[str, Json] | None) -> float | None:
    """Return the validation score of the weights that were kept: that of the best epoch, averaged over folds.

    >>> validation_of({"runs": [{"best_epoch": 2, "history": [{"validation": 0.1}, {"validation": 0.4}]}]})
    0.4
    """
    runs = [] if training is None else training.get("runs")
    values = []
    for one in runs if isinstance(runs, list) else []:
        best, history = member(one, "best_epoch"), member(one, "history")
        if not isinstance(best, int) or not isinstance(history, list) or not 0 < best <= len(history):
            return None
        value = member(history[best - 1], "validation")
        if not isinstance(value, int | float):
            return None
        values.append(float(value))
    return sum(values) / len(values) if values else None


def layers_entry(
    tried: Sequence[int], validation: float | None, predictions: Predictions, metric: str
) -> dict[str, Json]:
    """Return what the record of one layer says of the layers that were tried together.

    Args:
        tried: The layers, counted from 0.
        validation: The validation score of this layer.
        predictions: Its predictions of the test split.
        metric: The main metric.
    """
    return {
        "tried": list(tried),
        "validation": validation,
        "interval": choice_interval(len(tried), predictions, metric),
    }


def choice_interval(n_tried: int, predictions: Predictions, metric: str) -> dict[str, Json] | None:
    """Return the interval of a test score that holds whichever of the layers is chosen; None if the metric has none."""
    if not has_interval(metric, predictions):
        return None
    interval = interval_of(predictions, metric, level=level_of(n_tried))
    ends = [value if math.isfinite(value) else None for value in (interval.low, interval.high)]
    return {"low": ends[0], "high": ends[1], "level": interval.level, "method": f"{interval.method}; {METHOD}"}


@dataclass(frozen=True, kw_only=True)
class LayerPoint:
    """One layer of a curve; the mean over seeds, and the outermost ends of their intervals.

    Attributes:
        layer: Counted from 0; or the mix of layers that the head reads, such as ``mean:0,6,12``.
        validation: Score on the validation split; None if it is not defined.
        test: Score on the test split.
        low: Lower end of the interval of a layer named beforehand.
        high: Its upper end.
        choice_low: Lower end of the interval that holds whichever layer is chosen.
        choice_high: Its upper end.
        n_seeds: Number of seeds.
    """

    layer: int | str
    validation: float | None
    test: float | None
    low: float | None
    high: float | None
    choice_low: float | None
    choice_high: float | None
    n_seeds: int


@dataclass(frozen=True, kw_only=True)
class LayerCurve:
    """Validation and test score of each layer of one model on one task.

    Attributes:
        task: Task key.
        protocol: Version of the rules.
        model: Name of the model.
        metric: The main metric.
        head: Kind of the head.
        points: The layers that were tried, rising.
        mixes: Heads that read all of them at once, which are not among the choices.
        key: A name for files, different for different curves.
    """

    task: str
    protocol: str
    model: str
    metric: str
    head: str
    points: tuple[LayerPoint, ...]
    key: str
    mixes: tuple[LayerPoint, ...] = ()

    @property
    def chosen(self) -> LayerPoint | None:
        """The layer with the highest validation score; None if none is defined."""
        layer = choose({point.layer: point.validation for point in self.points if isinstance(point.layer, int)})
        return next((point for point in self.points if point.layer == layer), None)

    def in_words(self) -> str:
        """Say which layer was chosen, and what its test score is worth."""
        chosen, n_tried = self.chosen, len(self.points)
        if chosen is None:
            return f"No layer is chosen: the validation score of none of {n_tried} layers is defined."
        text = f"Layer {chosen.layer} is chosen on the validation split among {n_tried} layers"
        if chosen.test is None:
            return f"{text}; its test score is not defined."
        text += f"; its test {self.metric} is {chosen.test:.4f}"
        if chosen.low is not None and chosen.high is not None:
            text += f", {LEVEL:.0%} interval {chosen.low:.4f} to {chosen.high:.4f}"
        if chosen.choice_low is not None and chosen.choice_high is not None:
            text += f", and {chosen.choice_low:.4f} to {chosen.choice_high:.4f} whichever of them is chosen"
        return f"{text}."


def curves_of(records: Sequence[ResultRecord]) -> list[LayerCurve]:
    """Return the curves that records give: those of one model, task and data that tried the same layers together."""
    groups: dict[str, list[ResultRecord]] = {}
    for record in records:
        if record.layers is not None:
            groups.setdefault(_key(record), []).append(record)
    curves = [curve for key, group in groups.items() if (curve := _curve(key, group)).points]
    return sorted(curves, key=lambda curve: (curve.task, curve.protocol, curve.model, curve.key))


def of_choices(records: Sequence[ResultRecord]) -> list[bool]:
    """Say which records stand in a ranking: all but the layers that were tried and not chosen, and mixes of layers.

    The best of many layers by its test score would be ranked too high.
    """
    chosen = {curve.key: curve.chosen for curve in curves_of(records)}
    kept = []
    for record in records:
        point = None if record.layers is None else chosen.get(_key(record))
        kept.append(record.layers is None or point is None or record.model.get("layer") == point.layer)
    return kept


def _key(record: ResultRecord) -> str:
    settings = {name: value for name, value in record.config.items() if name not in _NOT_OF_A_CURVE}
    identity = member(record.model, "identity")
    model = {name: value for name, value in identity.items() if name != "layer"} if isinstance(identity, dict) else {}
    tried = None if record.layers is None else record.layers.get("tried")
    parts = [record.task, record.protocol, settings, model, member(record.data, "identity"), tried]
    return json_sha256(parts)[:12]


def _curve(key: str, records: Sequence[ResultRecord]) -> LayerCurve:
    first = records[0]
    by_layer: dict[int | str, dict[Json, ResultRecord]] = {}
    for record in records:
        layer = record.model.get("layer")
        if isinstance(layer, int | str):
            by_layer.setdefault(layer, {})[record.config.get("seed")] = record  # a repeated run replaces the one before
    points = [_point(layer, list(of_seed.values())) for layer, of_seed in by_layer.items()]
    return LayerCurve(
        task=first.task,
        protocol=first.protocol,
        model=str(first.model.get("model")) + (", random weights" if first.model.get("random_init") else ""),
        metric=first.main_metric,
        head=first.probe,
        points=tuple(sorted((one for one in points if isinstance(one.layer, int)), key=lambda one: int(one.layer))),
        mixes=tuple(sorted((one for one in points if isinstance(one.layer, str)), key=lambda one: str(one.layer))),
        key=key,
    )


def _point(layer: int | str, records: Sequence[ResultRecord]) -> LayerPoint:
    usual = [member(record.metrics, record.main_metric, "interval") for record in records]
    of_choice = [member(record.layers, "interval") for record in records]
    return LayerPoint(
        layer=layer,
        validation=_mean([member(record.layers, "validation") for record in records]),
        test=_mean([record.value for record in records]),
        low=_outermost([member(one, "low") for one in usual], lowest=True),
        high=_outermost([member(one, "high") for one in usual], lowest=False),
        choice_low=_outermost([member(one, "low") for one in of_choice], lowest=True),
        choice_high=_outermost([member(one, "high") for one in of_choice], lowest=False),
        n_seeds=len(records),
    )


def _mean(values: Sequence[Json]) -> float | None:
    known = [float(value) for value in values if isinstance(value, int | float)]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _outermost(values: Sequence[Json], *, lowest: bool) -> float | None:
    known = [float(value) for value in values if isinstance(value, int | float)]
    return (min if lowest else max)(known) if known and len(known) == len(values) else None
