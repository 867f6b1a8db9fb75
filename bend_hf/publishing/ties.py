"""Find the models that cannot be told from the best: by a paired test on the same items, or by overlapping intervals.

If prediction files lie next to the records, both models are scored on the same resamples, and p is corrected by
Holm's method over the models of the leaderboard. If a file is missing, only the overlap of the intervals is left,
which calls too many models tied; such models get a mark of their own.
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
LEVEL: Final = 0.95  # of the intervals; two models differ if p is below 1 - LEVEL
_RESAMPLES: Final = 1000
_RESAMPLES_IF_LARGE: Final = 400
_LARGE: Final = 4_000_000  # windows times labels
# so that Holm's smallest p, 2 / (resamples + 1) times the number of models, stays below 0.05
_RESAMPLES_PER_MODEL: Final = 41


@dataclass(frozen=True, kw_only=True)
class Tie:
    """How a result compares with the best one.

    Attributes:
        tied: Whether the two cannot be told apart.
        basis: What decided: equal scores, the paired test, or overlapping intervals.
        p: p of the paired test, corrected over all models; None without a paired test.
    """

    tied: bool
    basis: Basis
    p: float | None = None


def prediction_files(paths: Sequence[Path], records: Sequence[ResultRecord]) -> dict[str, Path]:
    """Find the prediction files next to the records, by the sha256 that the record states.

    Args:
        paths: Paths of the records.
        records: The records, in the same order.
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
    log: Callable[[str], None] = lambda text: None,
) -> list[Tie]:
    """Compare each result with the best one.

    Args:
        best: The best result of a leaderboard.
        others: The other results of the same leaderboard.
        files: Prediction files by their sha256.
        log: Receives one line for each prediction file that cannot be used, with the reason.
    """
    found = [Tie(tied=overlap(best, other), basis="overlap") for other in others]
    unequal = [index for index, other in enumerate(others) if other.value != best.value]
    for index in set(range(len(others))) - set(unequal):
        found[index] = Tie(tied=True, basis="equal")
    p_values = _p_values(best, [others[index] for index in unequal], files, log)
    for index, p, corrected in zip(unequal, p_values, holm(p_values), strict=True):
        if not np.isnan(p):
            found[index] = Tie(tied=corrected >= 1 - LEVEL, basis="paired", p=corrected)
    return found


def overlap(one: ResultGroup, other: ResultGroup) -> bool:
    """Whether two scores are equal or their intervals share a point."""
    if one.value == other.value:
        return True
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.low <= other.high and other.low <= one.high


def _p_values(
    best: ResultGroup, others: Sequence[ResultGroup], files: Mapping[str, Path], log: Callable[[str], None]
) -> list[float]:
    """P of the paired test of each result against the best; nan without a paired test."""
    undefined = float("nan")
    if not others or not _has_files(best, files):
        return [undefined] * len(others)
    try:
        (first, *_), best_draws = _draws(best, files, len(others))
    except BendError as error:
        log(f"{best.task}: no paired test for {best.model}: {error}")
        return [undefined] * len(others)
    p_values = []
    for other in others:
        p = undefined
        if _has_files(other, files):
            try:
                predictions, draws = _draws(other, files, len(others))
                for one in predictions:
                    check_same_items({best.model: first, other.model: one})
                p = difference((best.model, other.model), best_draws, draws, LEVEL).p
            except BendError as error:
                log(f"{other.task}: no paired test for {other.model}: {error}")
        p_values.append(p)
    return p_values


def _has_files(result: ResultGroup, files: Mapping[str, Path]) -> bool:
    return all(record.predictions.get("sha256") in files for record in result.records)


def _draws(result: ResultGroup, files: Mapping[str, Path], n_others: int) -> tuple[list[Predictions], Draws]:
    """The predictions of each seed, and the mean of their scores in each resample.

    Raises:
        BendError: A file cannot be read or does not belong to its record, or the metric cannot be resampled.
    """
    from bend_hf.evaluation.uncertainty.bootstrap import Bootstrap, draws_of

    predictions = list(_read(result, files))
    found = [
        draws_of(one, [result.metric], Bootstrap(resamples=_resamples(one, n_others)))[result.metric]
        for one in predictions
    ]
    value = float(np.mean([one.value for one in found]))
    return predictions, replace(found[0], value=value, values=np.mean([one.values for one in found], axis=0))


def _read(result: ResultGroup, files: Mapping[str, Path]) -> Iterator[Predictions]:
    from bend_hf.errors import RecordError
    from bend_hf.evaluation.predictions import read_predictions

    for record in result.records:
        path = files[str(record.predictions["sha256"])]
        predictions = by_item(read_predictions(path))
        if predictions.item_sha256 != record.coverage.get("item_sha256"):
            raise RecordError(f"{path} holds other items than its record states; repeat the run")
        yield predictions


def _resamples(predictions: Predictions, n_others: int) -> int:
    enough = _RESAMPLES if predictions.target.size <= _LARGE else _RESAMPLES_IF_LARGE
    return max(enough, _RESAMPLES_PER_MODEL * n_others)
