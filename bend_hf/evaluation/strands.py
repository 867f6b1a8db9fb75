"""Predictions of both strands: how far they agree, and their average.

A prediction of the other strand is turned back before it is compared: its windows stand in the order of the plus
strand, and labels that name a strand are exchanged (``donor+`` for ``donor-``).

>>> from bend_hf.tasks._labels import strand_partners
>>> names = ("cds+", "cds-", "none")
>>> read_backwards = Predictions(item=np.array([0]), windows=np.array([0, 3]), target=np.array([2, 2, 0], np.int16),
...                              score=None, predicted=np.array([1, 2, 2], np.int16), label_names=names)
>>> turned_back(read_backwards, strand_partners(names)).predicted.tolist()
[2, 2, 0]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.errors import RecordError
from bend_hf.evaluation.predictions import LOG_PROBABILITY, Predictions
from bend_hf.evaluation.record import member
from bend_hf.tables import number
from bend_hf.types import Bools, Floats, Json

Sides: TypeAlias = Literal["class", "0.5", "0", "median"]
FLIPS: Final[dict[Sides, str]] = {
    "class": "another class is the most probable one",
    "0.5": "the probability crosses 0.5",
    "0": "the sign changes",
    "median": "the value crosses the median of its strand",
}


@dataclass(frozen=True, kw_only=True)
class BothStrands:
    """Predictions of the same items, read on each strand.

    Attributes:
        forward: As the task reads the items.
        reverse: Of the other strand, turned back.
    """

    forward: Predictions
    reverse: Predictions

    def average(self) -> Predictions:
        """Return the mean of both: of probabilities or values; for classes, the one with the highest mean probability.

        Raises:
            RecordError: There are classes without their probabilities.
        """
        forward, reverse = self.forward, self.reverse
        if forward.score is not None and reverse.score is not None:
            return replace(forward, score=(forward.score + reverse.score) / np.float32(2))
        one, other = class_probabilities(forward), class_probabilities(reverse)
        if one is None or other is None:
            raise RecordError("the predictions hold classes without probabilities, whose mean is not known")
        return replace(without_probabilities(forward), predicted=(one + other).argmax(axis=1).astype(np.int16))


def class_probabilities(predictions: Predictions) -> Floats | None:
    """Return the probabilities of the classes, float32, shape (windows, C); None if the predictions hold none."""
    column = predictions.columns.get(LOG_PROBABILITY)
    if column is None:
        return None
    logs = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    found: Floats = np.exp(logs.reshape(int(predictions.windows[-1]), -1))
    return found


def without_probabilities(predictions: Predictions) -> Predictions:
    """Return predictions without the column of probabilities."""
    return replace(predictions, columns={k: v for k, v in predictions.columns.items() if k != LOG_PROBABILITY})


def turned_back(predictions: Predictions, partners: Sequence[int]) -> Predictions:
    """Return predictions of the other strand as predictions of the strand that the task reads.

    Args:
        predictions: Their windows are in the order of the other strand; their labels are those of the task already.
        partners: The label that each label is on the other strand; see ``strand_partners``.
    """
    starts, ends = predictions.windows[:-1], predictions.windows[1:]
    lengths = ends - starts
    mirrored = np.repeat(starts + ends - 1, lengths) - np.arange(predictions.windows[-1])
    label = np.asarray(partners, np.int64)
    score, predicted, columns = predictions.score, predictions.predicted, dict(predictions.columns)
    if score is not None:
        score = score[mirrored]
        if score.ndim == 2:
            score = score[:, label]
        elif len(label) == 2 and label[0] == 1:  # the score of one of two classes that name the strands
            score = np.float32(1) - score
    if predicted is not None:
        predicted = label.astype(np.int16)[predicted[mirrored]]
    if LOG_PROBABILITY in columns:
        flat = columns[LOG_PROBABILITY].flatten().to_numpy(zero_copy_only=False)
        logs = flat.reshape(int(predictions.windows[-1]), len(label))[mirrored][:, label]
        offsets = pa.array(predictions.windows * len(label))
        columns[LOG_PROBABILITY] = pa.LargeListArray.from_arrays(offsets, pa.array(logs.reshape(-1)))
    return replace(predictions, score=score, predicted=predicted, columns=columns)


def agreement(both: BothStrands, sides: Sides) -> dict[str, Json]:
    """Say how far the predictions of both strands agree, over all windows that both have a value for.

    Args:
        both: The predictions.
        sides: What a flip is; see ``FLIPS``.

    Returns:
        ``windows``, ``flip_rate``, what a flip is in words (``flips_if``) and, unless there are only classes,
        ``correlation``: Pearson's, the mean over the classes or labels that have one. Several classes or labels have
        an entry each in ``per_label``. A class flips if it is the most probable one on one strand alone.
    """
    forward, reverse = both.forward, both.reverse
    names = forward.label_names
    entry: dict[str, Json] = {"windows": int(forward.windows[-1]), "flips_if": FLIPS[sides]}
    if forward.predicted is not None and reverse.predicted is not None:
        one, other = forward.predicted, reverse.predicted
        entry["flip_rate"] = _mean((one != other)[:, None])
        per_class = [_mean(((one == c) != (other == c))[:, None]) for c in range(len(names))]
        found = class_probabilities(forward), class_probabilities(reverse)
        if found[0] is None or found[1] is None:
            return {**entry, "per_label": {"names": list(names), "flip_rate": list[Json](per_class)}}
        each = correlations(found[0], found[1])
        return {**entry, **_correlation(each, names, per_class)}
    values = np.atleast_2d(forward.values.T).T, np.atleast_2d(reverse.values.T).T
    flips, known = _flips(values[0], values[1], sides)
    entry["flip_rate"] = _mean(flips[known])
    per_label = [_mean(flips[known[:, c], c]) for c in range(flips.shape[1])]
    return {**entry, **_correlation(correlations(*values), names, per_label)}


def correlations(one: NDArray[Any], other: NDArray[Any]) -> list[float | None]:
    """Compute Pearson's correlation of each column over the rows that are finite in both; None if it is not defined.

    Args:
        one: Values, shape (N, C).
        other: Values, shape (N, C).
    """
    found: list[float | None] = []
    for column in range(one.shape[1]):
        x, y = one[:, column].astype(np.float64), other[:, column].astype(np.float64)
        known = np.isfinite(x) & np.isfinite(y)
        x, y = x[known] - x[known].mean() if known.any() else x[known], y[known]
        y = y - y.mean() if len(y) else y
        spread = float(np.sqrt((x * x).sum() * (y * y).sum()))
        found.append(float(np.clip((x * y).sum() / spread, -1, 1)) if spread > 0 else None)
    return found


def _correlation(each: list[float | None], names: Sequence[str], flip_rates: list[float | None]) -> dict[str, Json]:
    defined = [one for one in each if one is not None]
    entry: dict[str, Json] = {"correlation": float(np.mean(defined)) if defined else None}
    if len(each) > 1:
        entry["per_label"] = {
            "names": list(names),
            "correlation": list[Json](each),
            "flip_rate": list[Json](flip_rates),
        }
    return entry


def _flips(one: NDArray[Any], other: NDArray[Any], sides: Sides) -> tuple[Bools, Bools]:
    """Mark the values that lie on two sides of the threshold, and those that are known; shape (N, C) each."""
    known = np.isfinite(one) & np.isfinite(other)
    if sides == "median":
        limits = [
            np.array([np.median(v[k]) if k.any() else 0.0 for v, k in zip(x.T, known.T, strict=True)])
            for x in (one, other)
        ]
    else:
        limits = [np.full(one.shape[1], float(sides))] * 2
    return (one >= limits[0]) != (other >= limits[1]), known


def _mean(flips: Bools) -> float | None:
    return float(flips.mean()) if flips.size else None


def strand_text(entry: Mapping[str, Json], metric: str) -> str:
    """Say the report in one sentence.

    Args:
        entry: As the record holds it.
        metric: The main metric.

    >>> values = {"forward": 0.5, "reverse": 0.4, "average": 0.6}
    >>> scores = {name: {"mcc": {"value": value}} for name, value in values.items()}
    >>> entry = {"correlation": 0.9, "flip_rate": 0.125, "flips_if": "the sign changes", "scores": scores}
    >>> for part in strand_text(entry, "mcc").split("; "):
    ...     print(part)
    both strands: correlation 0.9000, 12.5 % flip (the sign changes)
    mcc 0.5000, 0.4000 on the other strand, 0.6000 of the average
    """
    flips = entry.get("flip_rate")
    rate = f"{100 * flips:.1f} % flip" if isinstance(flips, int | float) else "flips undefined"
    values = [number(member(entry.get("scores"), name, metric, "value")) for name in ("forward", "reverse", "average")]
    return (
        f"both strands: correlation {number(entry.get('correlation'))}, {rate} ({entry.get('flips_if')}); {metric} "
        f"{values[0]}, {values[1]} on the other strand, {values[2]} of the average"
    )
