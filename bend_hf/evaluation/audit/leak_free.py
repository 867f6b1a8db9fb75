"""Score stored predictions again on the rows without leaks, or on the rows that pretraining has not seen.

>>> PartScore(run="one", part="without leaks", metric="auroc", n_items=9, n_part=8, official=0.9, value=0.8).in_words()
'one: auroc 0.9000 on all 9 items, 0.8000 on the 8 items without leaks'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bend_hf.errors import RecordError
from bend_hf.evaluation.evidence import read_verified
from bend_hf.evaluation.metrics import score
from bend_hf.evaluation.predictions import Predictions, read_predictions
from bend_hf.evaluation.record import ResultRecord, jsonable, member, read_record
from bend_hf.files import file_sha256
from bend_hf.tables import number
from bend_hf.types import Bools, Ints, Json


@dataclass(frozen=True, kw_only=True)
class ScoredRun:
    """A finished run: its record and its predictions."""

    name: str
    record: ResultRecord
    predictions: Predictions


@dataclass(frozen=True, kw_only=True)
class PartScore:
    """The score of a run on all of its items, and on a part of them.

    Attributes:
        run: Name of the record.
        part: What the part leaves out, in words.
        metric: The main metric.
        n_items: Number of items.
        n_part: Number of items in the part.
        official: Score of all items.
        value: Score of the part; None if it is not defined there.
    """

    run: str
    part: str
    metric: str
    n_items: int
    n_part: int
    official: float | None
    value: float | None

    def in_words(self) -> str:
        """One line for people."""
        return (
            f"{self.run}: {self.metric} {number(self.official)} on all {self.n_items:,} items, {number(self.value)} "
            f"on the {self.n_part:,} items {self.part}"
        )


def read_run(path: Path) -> ScoredRun:
    """Read the record of a run and the predictions next to it.

    Args:
        path: The record, or its prediction file.

    Raises:
        RecordError: A file is missing or was changed since the run.
    """
    path = path.with_suffix(".json") if path.suffix == ".parquet" else path
    record = read_record(path)
    file = path.with_name(str(record.predictions.get("file")))
    if not file.is_file():
        raise RecordError(f"{path} names the predictions {file.name}, which are not next to it; copy them there")
    if file_sha256(file) != record.predictions.get("sha256"):
        raise RecordError(f"{file} was changed after the run: its sha256 differs from the record; repeat the run")
    return ScoredRun(name=path.stem, record=read_verified(path), predictions=read_predictions(file))


def check_same_data(run: ScoredRun, task: str, facts: Mapping[str, Json]) -> None:
    """Check that a run was scored on the audited data.

    Raises:
        RecordError: Task or files differ.
    """
    if run.record.task != task:
        raise RecordError(
            f"{run.name} is a run of {run.record.task!r}, but {task!r} was audited; give a run of that task"
        )
    theirs, ours = run.record.data.get("files"), facts.get("files")
    if theirs != ours:
        names = sorted(name for name in {*_names(theirs), *_names(ours)} if member(theirs, name) != member(ours, name))
        raise RecordError(
            f"{run.name} was scored on other data than were audited (different: {', '.join(names)}); give --data the "
            "data of the run"
        )


def _names(files: Json) -> list[str]:
    return list(files) if isinstance(files, dict) else []


def score_part(run: ScoredRun, items: Ints, keep: Bools, part: str) -> PartScore:
    """Score a run on some of its items.

    Args:
        run: The run.
        items: Item ids of all rows of the task, shape (R,).
        keep: Whether each of these rows is in the part, shape (R,).
        part: What the part leaves out, in words.

    Raises:
        RecordError: An item of the predictions is not a row of the task.
    """
    order = np.argsort(items, kind="stable")
    at = np.searchsorted(items[order], run.predictions.item)
    row = order[np.minimum(at, len(items) - 1)]
    unknown = run.predictions.item[items[row] != run.predictions.item]
    if len(unknown):
        raise RecordError(
            f"{run.name} has predictions for item {unknown[0]}, which the audited data do not hold; give --data "
            "the data of the run"
        )
    chosen, metric = run.predictions.take(np.flatnonzero(keep[row])), run.record.main_metric
    return PartScore(
        run=run.name,
        part=part,
        metric=metric,
        n_items=len(run.predictions),
        n_part=len(chosen),
        official=_value(metric, run.predictions),
        value=_value(metric, chosen),
    )


def _value(metric: str, predictions: Predictions) -> float | None:
    """The metric as a run computes it: over folds, the mean of the folds in which it is defined."""
    if "fold" not in predictions.columns:
        return _score(metric, predictions)
    fold = predictions.columns["fold"].to_numpy(zero_copy_only=False)
    values = [_score(metric, predictions.take(np.flatnonzero(fold == one))) for one in np.unique(fold)]
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _score(metric: str, predictions: Predictions) -> float | None:
    if not len(predictions):
        return None
    values = predictions.values
    names = predictions.label_names if predictions.score is None or values.ndim == 2 else None
    value = jsonable(score(metric, values, predictions.target, names=names).value)
    return value if isinstance(value, float) else None
