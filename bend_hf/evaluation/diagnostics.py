"""What stands behind a score: calibration, scores of parts of the items, and contradicting labels.

Everything is computed from predictions, so that it can be computed again from their file.

>>> predictions = Predictions(item=np.arange(4), windows=np.arange(5), target=np.array([0, 0, 1, 1], np.int16),
...                           score=np.array([0.0, 0.5, 0.5, 1.0], np.float32), predicted=None, label_names=("a", "b"))
>>> calibration_of(predictions)["brier"]
0.125
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bend_hf.data.dataset import TaskData
from bend_hf.evaluation.audit.places import FAR, Places
from bend_hf.evaluation.metrics import score
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.uncertainty.bootstrap import has_interval
from bend_hf.evaluation.uncertainty.clusters import Clusters, as_clusters, codes_of
from bend_hf.evaluation.uncertainty.intervals import interval_of
from bend_hf.types import Bools, Ints, Json

N_BINS: Final = 10  # of probabilities, as in metrics/calibration
_LENGTH_PARTS: Final = 4
_PREVALENCES: Final = (0.01, 0.05, 0.2)
_DISTANCES_BP: Final = (0, 10_000, 1_000_000)
_LARGE: Final = 1 << 62
_TWO: Final = ("train", "test")
_PLACE: Final = ("chromosome", "start", "end", "strand", "ref", "alt")


def diagnostics_of(
    predictions: Predictions,
    metric: str,
    *,
    probabilities: bool = False,
    distance_bp: tuple[Ints, Ints] | None = None,
    per_label: Sequence[Json] = (),
) -> dict[str, Json]:
    """Compute what a record says of a score besides its interval.

    Args:
        predictions: The predictions that were scored.
        metric: The main metric, or the path of its folder.
        probabilities: Whether the scores are probabilities, as those of a head with a binary loss are.
        distance_bp: As ``distance_to_training`` gives it.
        per_label: The main metric of each label; empty if there are no labels.
    """
    answered = predictions.answered
    clusters = as_clusters(predictions)
    parts = _Parts(predictions=answered, metric=metric, clusters=clusters)
    distances = None
    if distance_bp is not None:
        items, found = distance_bp
        distances = found[items.searchsorted(predictions.item)]
    return {
        "calibration": calibration_of(answered) if probabilities else None,
        "by_length": parts.scores(_by_length(predictions)),
        "by_distance": parts.scores({} if distances is None else _by_distance(distances)),
        "by_prevalence": _by_prevalence(answered, per_label),
        "label_noise": label_noise(predictions),
    }


def calibration_of(predictions: Predictions) -> dict[str, Json] | None:
    """Compare probabilities with the fraction of positives; None if nothing is labeled.

    Args:
        predictions: Scores between 0 and 1.
    """
    if predictions.score is None or predictions.target.dtype.kind == "f":
        return None
    detail = score("calibration", predictions.score, predictions.target)
    if not math.isfinite(detail.value):
        return None
    columns = [detail.detail[name] for name in ("bin_weight", "bin_predicted", "bin_positive")]
    table: list[Json] = [
        {"from": number / N_BINS, "to": (number + 1) / N_BINS, "n": n, "predicted": predicted, "positive": positive}
        for number, (n, predicted, positive) in enumerate(zip(*columns, strict=True))
    ]
    return {"ece": detail.value, "brier": detail.detail["brier"], "reliability": table}


def label_noise(predictions: Predictions) -> dict[str, Json] | None:
    """Count the items that stand at the place of another item, and those of them whose labels differ.

    Returns:
        ``rows_at_the_place_of_another`` and ``rows_with_other_labels``; None if the items have no places.
    """
    if not {"chromosome", "start", "end"} <= predictions.columns.keys():
        return None
    place = _codes([predictions.columns[name] for name in _PLACE if name in predictions.columns])
    count = np.bincount(place) if len(place) else np.zeros(0, np.int64)
    shared = count[place] > 1  # few, so that only their labels are read
    at, labels = place[shared], _label_sums(predictions.take(np.flatnonzero(shared)))
    differs = np.zeros(len(count), np.bool_)
    order = np.lexsort((labels, at))
    again = (at[order][1:] == at[order][:-1]) & (labels[order][1:] != labels[order][:-1])
    differs[at[order][1:][again]] = True
    return {"rows_at_the_place_of_another": len(at), "rows_with_other_labels": int(differs[at].sum())}


def _label_sums(predictions: Predictions) -> Ints:
    """A number for each item that equal labels share: a sum with random weights, which differ by place."""
    target = predictions.target[:, None] if predictions.target.ndim == 1 else predictions.target
    bits = target.view(np.int32).astype(np.int64) if target.dtype.kind == "f" else target.astype(np.int64) + 128
    lengths = np.diff(predictions.windows)
    first = np.repeat(predictions.windows[:-1], lengths)
    drawn = np.random.default_rng(0).integers(1, _LARGE, (int(lengths.max(initial=0)), bits.shape[1]))
    of_window = (bits * drawn[np.arange(len(bits)) - first]).sum(axis=1)  # wraps around, as a hash may
    sums: Ints = np.concatenate([[0], np.cumsum(of_window)])
    return sums[predictions.windows[1:]] - sums[predictions.windows[:-1]]


def distance_to_training(data: TaskData, folds: Sequence[int | None]) -> tuple[Ints, Ints] | None:
    """Measure how far the test items of some folds lie from the nearest row that their head was trained on.

    Args:
        data: The task's data.
        folds: Folds, counted from 1; None for a task without folds.

    Returns:
        Items, sorted, and their distances in nucleotides, both of shape (items,); -1 if the chromosome holds no
        training row. None if nothing is trained, or the rows have no places.
    """
    return _distance_to_training(data, tuple(folds))


@functools.lru_cache(maxsize=8)  # the same for all models of a task
def _distance_to_training(data: TaskData, folds: tuple[int | None, ...]) -> tuple[Ints, Ints] | None:
    items, distances = [], []
    for fold in folds:
        splits = data.splits(fold)
        if not {"train", "test"} <= splits.keys():
            return None
        if not {"item", *_PLACE[:3]} <= set(splits["test"].column_names) & set(splits["train"].column_names):
            return None
        train, test = (splits[name].select_columns(["item", *_PLACE[:3]]).with_format("arrow")[:] for name in _TWO)
        both = pa.concat_tables([train, test])
        chromosome = codes_of(both["chromosome"].to_numpy())
        places = Places(chromosome=chromosome, start_bp=_whole(both["start"]), end_bp=_whole(both["end"]))
        trained = np.arange(len(both)) < len(train)
        found = places.where(~trained).distance_bp(places.where(trained))
        items.append(_whole(test["item"]))
        distances.append(np.where(found == FAR, -1, found))
    order = np.argsort(np.concatenate(items), kind="stable")
    return np.concatenate(items)[order], np.concatenate(distances)[order]


def _whole(column: pa.ChunkedArray) -> Ints:
    values: Ints = column.to_numpy().astype(np.int64)
    return values


def _codes(columns: Sequence[pa.Array]) -> Ints:
    """Number the distinct rows of some columns."""
    codes: Ints = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values = codes_of(pc.fill_null(column, "" if pa.types.is_string(column.type) else 0).to_numpy(False))
        codes = codes_of(codes * (int(values.max(initial=0)) + 1) + values)
    return codes


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Scores of parts of the items."""

    predictions: Predictions
    metric: str
    clusters: Clusters

    def scores(self, parts: Mapping[str, Bools]) -> list[Json] | None:
        """Score each part that holds an item; None if there are fewer than two."""
        filled = {name: chosen for name, chosen in parts.items() if chosen.any()}
        return [self._score(name, chosen) for name, chosen in filled.items()] if len(filled) > 1 else None

    def _score(self, name: str, chosen: Bools) -> dict[str, Json]:
        part = self.predictions.take(np.flatnonzero(chosen))
        entry: dict[str, Json] = {"part": name, "items": len(part)}
        if not has_interval(self.metric, part):
            return {**entry, "value": _finite(score(self.metric, part.values, part.target).value)}
        clusters = replace(self.clusters, of_item=codes_of(self.clusters.of_item[chosen]))
        found = interval_of(part, self.metric, clusters)
        ends: dict[str, Json] = {"low": _finite(found.low), "high": _finite(found.high), "mark": found.mark or None}
        return {**entry, "value": _finite(found.estimate.value), **ends}


def _by_length(predictions: Predictions) -> dict[str, Bools]:
    """Quarters of the items by their length; empty if all are equally long."""
    if not {"start", "end"} <= predictions.columns.keys():
        return {}
    length = _column(predictions, "end") - _column(predictions, "start")
    if not len(length):
        return {}
    edges = np.unique(np.quantile(length, np.linspace(0, 1, _LENGTH_PARTS + 1), method="nearest"))
    parts = {}
    for place, (low, high) in enumerate(pairwise(edges.tolist())):
        inside = (length >= low if place == 0 else length > low) & (length <= high)
        shown = low if place == 0 else low + 1
        parts[f"{shown:,} to {high:,} bp"] = inside
    return parts


def _by_distance(distance_bp: Ints) -> dict[str, Bools]:
    """Items by their distance to the nearest training row."""
    none, near, far = (distance_bp < 0), _DISTANCES_BP[1], _DISTANCES_BP[2]
    return {
        "overlaps or touches a training row": distance_bp == 0,
        f"up to {near // 1000} kb from one": (distance_bp > 0) & (distance_bp <= near),
        f"{near // 1000} kb to {far // 1_000_000} Mb from one": (distance_bp > near) & (distance_bp <= far),
        f"over {far // 1_000_000} Mb from one": distance_bp > far,
        "no training row on its chromosome": none,
    }


def _by_prevalence(predictions: Predictions, per_label: Sequence[Json]) -> list[Json] | None:
    """Mean of the main metric over the labels of each range of prevalence; None without several labels."""
    target = predictions.target
    if target.ndim != 2 or target.dtype.kind == "f" or len(per_label) != target.shape[1]:
        return None
    labeled = (target == 0).sum(axis=0) + (target == 1).sum(axis=0)
    prevalence = (target == 1).sum(axis=0) / np.maximum(labeled, 1)
    value = np.array([one if isinstance(one, int | float) else math.nan for one in per_label], np.float64)
    parts: list[Json] = []
    for low, high in zip((0.0, *_PREVALENCES), (*_PREVALENCES, 1.01), strict=True):
        inside = (prevalence >= low) & (prevalence < high) & ~np.isnan(value)
        if inside.any():
            name = f"{low:.0%} to {high:.0%}" if high <= 1 else f"{low:.0%} or more"
            mean = float(value[inside].mean())
            parts.append({"part": f"{name} positive", "labels": int(inside.sum()), "value": mean})
    return parts if len(parts) > 1 else None


def _column(predictions: Predictions, name: str) -> NDArray[Any]:
    values: NDArray[Any] = predictions.columns[name].to_numpy(zero_copy_only=False)
    return values.astype(np.int64)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
