"""Which rows cannot be told from the best: by a paired test on the same items, or by intervals that overlap.

Where the prediction files lie beside the records, both models are scored on the same resamples, and p is corrected
by Holm's method over the models of the table. Where one is missing, all that is left is whether intervals overlap,
which calls too many rows tied; such rows are marked as such.

>>> prediction_files([], [])
{}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from bend_hf.errors import BendError
from bend_hf.evaluation.record import ResultRecord
from bend_hf.evaluation.uncertainty.comparison import by_item, check_same_items, difference, holm
from bend_hf.publishing.results import ResultGroup

if TYPE_CHECKING:
    from bend_hf.evaluation.predictions import Predictions
    from bend_hf.evaluation.uncertainty.bootstrap import Draws

Basis: TypeAlias = Literal["equal", "paired", "overlap"]
LEVEL: Final = 0.95  # of the intervals; p below 1 - LEVEL tells two rows apart
_RESAMPLES: Final = 1000
_RESAMPLES_OF_MANY: Final = 400
_MANY: Final = 4_000_000  # windows times labels
_A_MODEL: Final = 41  # resamples, so that the smallest p, 2 / (resamples + 1), times the models stays below 0.05


@dataclass(frozen=True, kw_only=True)
class Tie:
    """What is known of a row and the best one.

    Attributes:
        tied: Whether the two cannot be told apart.
        basis: How that was found: equal scores, the paired test, or intervals.
        p: Of the paired test, corrected over all rows; None where there was none.
    """

    tied: bool
    basis: Basis
    p: float | None = None


def prediction_files(paths: Sequence[Path], records: Sequence[ResultRecord]) -> dict[str, Path]:
    """The prediction files that lie beside records, by the sha256 that the record gives.

    Args:
        paths: Of the records.
        records: In the same order.
    """
    found = {}
    for path, record in zip(paths, records, strict=True):
        name, digest = record.predictions.get("file"), record.predictions.get("sha256")
        if isinstance(name, str) and isinstance(digest, str) and (path.parent / Path(name).name).is_file():
            found[digest] = path.parent / Path(name).name
    return found


def ties_with(
    best: ResultGroup,
    others: Sequence[ResultGroup],
    files: Mapping[str, Path],
    *,
    say: Callable[[str], None] = lambda text: None,
) -> list[Tie]:
    """For each row, whether it can be told from the best.

    Args:
        best: The best row.
        others: The other ones, of the same contest.
        files: Prediction files by their sha256.
        say: Told why a file was not used.
    """
    found = [Tie(tied=overlap(best, other), basis="overlap") for other in others]
    open_ = [place for place, other in enumerate(others) if other.value != best.value]
    for place in set(range(len(others))) - set(open_):
        found[place] = Tie(tied=True, basis="equal")
    p_values = _p_values(best, [others[place] for place in open_], files, say)
    for place, p, corrected in zip(open_, p_values, holm(p_values), strict=True):
        if not np.isnan(p):
            found[place] = Tie(tied=corrected >= 1 - LEVEL, basis="paired", p=corrected)
    return found


def overlap(one: ResultGroup, other: ResultGroup) -> bool:
    """Whether two scores are equal or their intervals share a point; without intervals only equal ones do."""
    if one.value == other.value:
        return True
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.low <= other.high and other.low <= one.high


def _p_values(
    best: ResultGroup, others: Sequence[ResultGroup], files: Mapping[str, Path], say: Callable[[str], None]
) -> list[float]:
    """P of the paired test of each row against the best; nan where there is none."""
    undefined = float("nan")
    if not others or not _has_files(best, files):
        return [undefined] * len(others)
    try:
        (first, *_), drawn = _drawn(best, files, len(others))
    except BendError as error:
        say(f"{best.task}: {best.model} is not compared by pairs: {error}")
        return [undefined] * len(others)
    p_values = []
    for other in others:
        p = undefined
        if _has_files(other, files):
            try:
                predictions, draws = _drawn(other, files, len(others))
                for one in predictions:
                    check_same_items({best.model: first, other.model: one})
                p = difference((best.model, other.model), drawn, draws, LEVEL).p
            except BendError as error:
                say(f"{other.task}: {other.model} is not compared by pairs: {error}")
        p_values.append(p)
    return p_values


def _has_files(entry: ResultGroup, files: Mapping[str, Path]) -> bool:
    return all(record.predictions.get("sha256") in files for record in entry.records)


def _drawn(entry: ResultGroup, files: Mapping[str, Path], n_others: int) -> tuple[list[Predictions], Draws]:
    """The predictions of each seed, and the mean of their scores in each resample.

    Raises:
        BendError: A file cannot be read or is not that of its record, or there are no resamples of the metric.
    """
    from bend_hf.evaluation.uncertainty.bootstrap import draws_of

    predictions = list(_read(entry, files))
    found = [draws_of(one, [entry.metric], resamples=_resamples(one, n_others))[entry.metric] for one in predictions]
    value = float(np.mean([one.value for one in found]))
    return predictions, replace(found[0], value=value, values=np.mean([one.values for one in found], axis=0))


def _read(entry: ResultGroup, files: Mapping[str, Path]) -> Iterator[Predictions]:
    from bend_hf.errors import RecordError
    from bend_hf.evaluation.predictions import read_predictions

    for record in entry.records:
        path = files[str(record.predictions["sha256"])]
        predictions = by_item(read_predictions(path))
        if predictions.item_sha256 != record.coverage.get("item_sha256"):
            raise RecordError(f"{path} holds other items than its record says; it was exchanged, run it again")
        yield predictions


def _resamples(predictions: Predictions, n_others: int) -> int:
    enough = _RESAMPLES if predictions.target.size <= _MANY else _RESAMPLES_OF_MANY
    return max(enough, _A_MODEL * n_others)
