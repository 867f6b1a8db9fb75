"""Find the models that cannot be told from the best: by a paired test on the same items, or by overlapping intervals.

If prediction files lie next to the records, all seeds of both models are compared on the same items, over items and
trainings, and p is corrected by Holm's method over the models of the leaderboard. If a file is missing, only the
overlap of the intervals is left, which calls too many models tied; such models get a mark of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np

from bend_hf.errors import BendError, RecordError
from bend_hf.evaluation.comparable import check_comparable
from bend_hf.evaluation.evidence import states_items_of
from bend_hf.evaluation.record import ResultRecord
from bend_hf.evaluation.remembered import content_sha256, recalled, remember
from bend_hf.evaluation.uncertainty.clusters import as_clusters
from bend_hf.evaluation.uncertainty.comparison import check_same_items, holm, in_order, paired, trainings_of
from bend_hf.publishing.results import ResultGroup
from bend_hf.types import Json

if TYPE_CHECKING:
    from bend_hf.evaluation.predictions import Predictions
    from bend_hf.evaluation.uncertainty.comparison import Comparison

Basis: TypeAlias = Literal["equal", "paired", "overlap"]
_PAIRED: Final = "a paired test"
LEVEL: Final = 0.95  # of the intervals; two models differ if p is below 1 - LEVEL


@dataclass(frozen=True, kw_only=True)
class Tie:
    """How a result compares with the best one.

    Attributes:
        tied: Whether the two cannot be told apart.
        basis: What decided: equal scores, the paired test, or overlapping intervals.
        p: p of the paired test, corrected over all models; None without a paired test.
        n_compared: Number of paired tests that p is corrected for.
        detectable: The smallest difference that the test would find in 4 of 5 cases; None without a paired test.
    """

    tied: bool
    basis: Basis
    p: float | None = None
    n_compared: int = 0
    detectable: float | None = None


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
    compared = _compared(best, [others[index] for index in unequal], files, log)
    p_values = [one.p if one is not None else math.nan for one in compared]
    n_compared = sum(not math.isnan(p) for p in p_values)
    for index, one, corrected in zip(unequal, compared, holm(p_values), strict=True):
        if one is not None and not math.isnan(one.p):
            found[index] = Tie(
                tied=corrected >= 1 - LEVEL,
                basis="paired",
                p=corrected,
                n_compared=n_compared,
                detectable=one.detectable,
            )
    return found


def overlap(one: ResultGroup, other: ResultGroup) -> bool:
    """Whether two scores are equal or their intervals share a point."""
    if one.value == other.value:
        return True
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.low <= other.high and other.low <= one.high


def _compared(
    best: ResultGroup, others: Sequence[ResultGroup], files: Mapping[str, Path], log: Callable[[str], None]
) -> list[Comparison | None]:
    """The paired test of the best result against each other one; None if it is not possible."""
    if not others or not _has_files(best, files):
        return [None] * len(others)
    keys = [_key(best, other, files) if _has_files(other, files) else None for other in others]
    found = [None if key is None else _recalled(key, best, other) for key, other in zip(keys, others, strict=True)]
    missing = [i for i, key in enumerate(keys) if key is not None and found[i] is None]
    if not missing:
        return found
    try:
        first = list(_read(best, files))
        clusters = as_clusters(first[0].answered)
        _check_same_answers(best.model, best.model, first[0], first)
        of_best = trainings_of([one.answered for one in first], best.metric, clusters)
    except BendError as error:
        log(f"{best.task}: no paired test for {best.model}: {error}")
        return [None] * len(others)
    for index in missing:
        other = others[index]
        try:
            check_comparable({best.model: best.records[0], other.model: other.records[0]})
            predictions = list(_read(other, files))
            for one in predictions:
                check_same_items({best.model: first[0], other.model: one})
            _check_same_answers(best.model, other.model, first[0], predictions)
            of_other = trainings_of([one.answered for one in predictions], other.metric, clusters)
            compared = paired((best.model, other.model), of_best, of_other, LEVEL)
            remember(_PAIRED, keys[index] or [], asdict(compared))
            found[index] = compared
        except BendError as error:
            log(f"{other.task}: no paired test for {other.model}: {error}")
    return found


def _check_same_answers(best: str, other: str, first: Predictions, predictions: Sequence[Predictions]) -> None:
    """Raise if scores are missing for other items than in the first predictions, so that two scores are of two sets."""
    for one in predictions:
        if first.score is None or one.score is None or np.array_equal(np.isfinite(first.score), np.isfinite(one.score)):
            continue
        raise RecordError(
            f"{best} and {other} lack the scores of different items; 'bend-hf compare' compares them on those that "
            "both score"
        )


def _key(best: ResultGroup, other: ResultGroup, files: Mapping[str, Path]) -> list[Json]:
    """What a paired test follows from: the predictions of both models, the metric and the level."""
    digests: list[Json] = [
        [content_sha256(files[str(one.predictions["sha256"])]) for one in result.records] for result in (best, other)
    ]
    return [*digests, [best.metric, LEVEL]]


def _recalled(key: list[Json], best: ResultGroup, other: ResultGroup) -> Comparison | None:
    from bend_hf.evaluation.uncertainty.comparison import Comparison

    noted = recalled(_PAIRED, key)
    names = {field.name for field in fields(Comparison)}
    if not isinstance(noted, dict) or set(noted) != names:
        return None
    facts: dict[str, Any] = {**noted, "first": best.model, "second": other.model}
    return Comparison(**facts)


def _has_files(result: ResultGroup, files: Mapping[str, Path]) -> bool:
    return all(record.predictions.get("sha256") in files for record in result.records)


def _read(result: ResultGroup, files: Mapping[str, Path]) -> Iterator[Predictions]:
    from bend_hf.evaluation.predictions import read_predictions

    for record in result.records:
        path = files[str(record.predictions["sha256"])]
        predictions = in_order(read_predictions(path))
        if not states_items_of(record, predictions):
            raise RecordError(f"{path} holds other items than its record states; repeat the run")
        yield predictions
