"""Predictions of a head, a control or a variant score, and their Parquet file.

Metrics start from here. Item ids, coordinates, labels and predictions are in one table, so that two models can be
compared item by item.

>>> predictions = Predictions(item=np.array([0]), windows=np.array([0, 2]), target=np.array([1, 0], np.int16),
...                           score=np.array([.9, .2], np.float32), predicted=None, label_names=("no", "yes"))
>>> predictions.table().column_names
['item', 'target', 'score']
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bend_hf.errors import RecordError
from bend_hf.evaluation.identity import Keys, item_keys, keys_sha256, place_keys, places_of, row_keys
from bend_hf.files import atomic_path, check_regular, explain_write_errors
from bend_hf.types import IGNORE_LABEL, Bools, Floats, Ints, Labels

LOG_PROBABILITY: Final = "log_probability"  # column of predictions with the log probabilities of all classes
_NAMES: Final = "bend_hf.label_names"
_LABELS_PER_WINDOW: Final = "bend_hf.labels_a_window"  # 0 if a window has one class


def has_label(target: NDArray[Any]) -> Bools:
    """Mark the labels that count: real values that are not nan, classes that are not ``IGNORE_LABEL``."""
    known: Bools = ~np.isnan(target) if target.dtype.kind == "f" else target != IGNORE_LABEL
    return known


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of n items with N label windows in all: either scores or classes.

    Attributes:
        item: Row numbers of the items in the BED file of the task, int64, shape (n,). They order the items; what
            identifies an item is its content, see ``item_sha256``.
        windows: Start of each item's windows, int64, shape (n + 1,).
        target: True classes, int16, shape (N,), or 0 and 1 per label, shape (N, C); -100 if not labeled. Real values
            are float32, shape (N, C); nan if not measured.
        score: Scores of the positive class or of each label, float32, shaped as ``target``; None for classes.
        predicted: Predicted classes, int16, shape (N,); None for scores.
        label_names: Names of the classes or labels.
        columns: Further columns by name, one value per item.
    """

    item: Ints
    windows: Ints
    target: Labels
    score: Floats | None
    predicted: NDArray[np.int16] | None
    label_names: tuple[str, ...]
    columns: dict[str, pa.Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.item)

    @property
    def values(self) -> Floats | NDArray[np.int16]:
        """The scores, or the classes if there are no scores.

        Raises:
            RecordError: There are neither.
        """
        values = self.predicted if self.score is None else self.score
        if values is None:
            raise RecordError("the predictions hold neither scores nor classes; give one of the two")
        return values

    @property
    def n_answered(self) -> int:
        """Number of items whose values are all finite: those that metrics are taken of."""
        finite = np.isfinite(self.values)
        of_window = finite.all(axis=1) if finite.ndim == 2 else finite
        n_missing = np.concatenate([[0], np.cumsum(~of_window)])
        return int((np.diff(n_missing[self.windows]) == 0).sum())

    @property
    def answered(self) -> Predictions:
        """The same with windows without a finite score marked as not labeled, as metrics leave them out."""
        if self.score is None or self.target.dtype.kind == "f" or np.isfinite(self.score).all():
            return self
        finite = np.isfinite(self.score)
        return replace(
            self,
            target=np.where(finite, self.target, np.int16(IGNORE_LABEL)),
            score=np.where(finite, self.score, np.float32(0)),
        )

    @cached_property
    def places(self) -> Keys:
        """Hashes of the items' places, shape (n, 2); of their row numbers if the columns hold no places."""
        if not {"chromosome", "start", "end"} <= self.columns.keys():
            return row_keys(self.item)
        return place_keys(places_of(self.columns))

    @cached_property
    def keys(self) -> Keys:
        """Hashes of the items: place, labels and fold, shape (n, 2)."""
        fold = self.columns.get("fold")
        split = np.zeros(len(self), np.int64) if fold is None else fold.to_numpy(zero_copy_only=False)
        return item_keys(self.places, self.target, self.windows, split)

    @property
    def item_sha256(self) -> str:
        """Hash of the items in any order: equal for two models that were scored on the same items.

        An item is its place, its labels and its fold, whatever its row number in a file.
        """
        return keys_sha256(self.keys)

    @property
    def row_sha256(self) -> str:
        """Hash of the sorted row numbers, which records before version 0.2.0 took for the items."""
        return hashlib.sha256(np.sort(self.item).astype("<i8").tobytes()).hexdigest()

    def take(self, rows: Ints) -> Predictions:
        """Return some items, in the order of their indices."""
        lengths = np.diff(self.windows)[rows]
        windows = np.concatenate([[0], np.cumsum(lengths)])
        source = np.repeat(self.windows[rows] - windows[:-1], lengths) + np.arange(windows[-1])
        return replace(
            self,
            item=self.item[rows],
            windows=windows,
            target=self.target[source],
            score=None if self.score is None else self.score[source],
            predicted=None if self.predicted is None else self.predicted[source],
            columns={name: column.take(pa.array(rows)) for name, column in self.columns.items()},
        )

    def table(self) -> pa.Table:
        """Make a table with one row per item and its windows as lists."""
        columns: dict[str, pa.Array] = {
            "item": pa.array(self.item),
            **self.columns,
            "target": self._lists(self.target),
        }
        if self.score is not None:
            columns["score"] = self._lists(self.score)
        if self.predicted is not None:
            columns["predicted"] = self._lists(self.predicted)
        per_window = str(self.target.shape[1] if self.target.ndim == 2 else 0)
        return pa.table(columns).replace_schema_metadata(
            {_NAMES: "\n".join(self.label_names), _LABELS_PER_WINDOW: per_window}
        )

    def _lists(self, values: NDArray[Any]) -> pa.Array:
        per_window = values.shape[1] if values.ndim == 2 else 1
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        if (np.diff(self.windows) == 1).all() and per_window == 1:
            return flat
        return pa.LargeListArray.from_arrays(pa.array(self.windows * per_window), flat)


def concatenate(predictions: Sequence[Predictions]) -> Predictions:
    """Join the predictions of several processes or folds, ordered by item.

    Args:
        predictions: All of scores or all of classes, with the same columns.

    Raises:
        RecordError: An item was predicted twice.
    """
    first = predictions[0]
    item = np.concatenate([one.item for one in predictions])
    if len(np.unique(item)) != len(item):
        twice = np.unique(item[np.sort(item).searchsorted(item, side="right") - np.sort(item).searchsorted(item) > 1])
        raise RecordError(f"items {twice[:5].tolist()} were predicted twice; each item must be scored once")
    lengths = np.concatenate([np.diff(one.windows) for one in predictions])
    values = np.concatenate([one.values for one in predictions])
    joined = Predictions(
        item=item,
        windows=np.concatenate([[0], np.cumsum(lengths)]),
        target=np.concatenate([one.target for one in predictions]),
        score=None if first.score is None else values,
        predicted=values if first.score is None else None,
        label_names=first.label_names,
        columns={
            name: pa.concat_arrays([_one_array(one.columns[name]) for one in predictions]) for name in first.columns
        },
    )
    return joined.take(np.argsort(item, kind="stable"))


def _one_array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def write_predictions(predictions: Predictions, path: Path) -> str:
    """Write predictions to a Parquet file atomically, in place of the empty file that takes the name for the run.

    Returns:
        The sha256 of the file.

    Raises:
        RecordError: The file exists already, or cannot be written.
    """
    taken = path.is_file() and path.stat().st_size == 0
    if path.exists() and not taken:
        raise RecordError(f"{path} exists and is never overwritten; give another --out")
    with explain_write_errors(path), atomic_path(path, overwrite=taken) as part:
        pq.write_table(predictions.table(), part, compression="zstd")
        return hashlib.sha256(part.read_bytes()).hexdigest()


def read_predictions(path: Path) -> Predictions:
    """Read the file of ``write_predictions``.

    Raises:
        RecordError: The file is not a prediction file.
    """
    try:
        check_regular(path)
        with pq.ParquetFile(path) as file:  # read_table imports pyarrow.dataset, which takes a second
            table = file.read(use_threads=False)
        names = tuple(table.schema.metadata[_NAMES.encode()].decode().split("\n"))
        per_window = int(table.schema.metadata[_LABELS_PER_WINDOW.encode()])
        columns = {name: _one_array(table[name]) for name in table.column_names}
        item, target = columns.pop("item").to_numpy(), columns.pop("target")
    except (OSError, KeyError, TypeError, pa.ArrowException) as error:
        raise RecordError(
            f"{path} is not a prediction file of bend_hf ({error}); give the .parquet of a run"
        ) from error
    lists = pa.types.is_large_list(target.type)
    counts = np.diff(target.offsets.to_numpy()) if lists else np.ones(len(item), np.int64)

    def values(column: pa.Array) -> NDArray[Any]:
        flat = column.flatten() if pa.types.is_large_list(column.type) else column
        array: NDArray[Any] = flat.to_numpy(zero_copy_only=False)
        return array.reshape(-1, per_window) if per_window else array

    return Predictions(
        item=item,
        windows=np.concatenate([[0], np.cumsum(counts // max(per_window, 1))]),
        target=values(target),
        score=values(columns.pop("score")) if "score" in columns else None,
        predicted=values(columns.pop("predicted")) if "predicted" in columns else None,
        label_names=names,
        columns=columns,
    )
