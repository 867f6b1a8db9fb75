"""Predictions: what a head, or a zero-shot score, said of every item; Parquet on disk.

Heads and zero-shot variants meet here, metrics start from here. Item ids, places, what was true and what was said
stand beside each other, so that two models can be compared item by item.

>>> import numpy as np
>>> p = Predictions(item=np.array([0]), windows=np.array([0, 2]), target=np.array([1, 0], np.int16),
...                 score=np.array([.9, .2], np.float32), predicted=None, label_names=("no", "yes"))
>>> p.table().column_names
['item', 'target', 'score']
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bend_hf.errors import RecordError
from bend_hf.files import atomic_path, explain_write_errors
from bend_hf.types import Floats, Ints

_NAMES: Final = "bend_hf.label_names"
_LABELS_A_WINDOW: Final = "bend_hf.labels_a_window"  # 0 where a window has one class


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of n items with N label windows in all.

    Attributes:
        item: Row numbers of the items in the task's bed, int64, shape (n,).
        windows: Where each item's windows start, int64, shape (n + 1,).
        target: True classes, int16, shape (N,), or 0 and 1 a label, shape (N, C); -100 where there is none.
        score: Scores of the positive class or of each label, float32, shaped as ``target``; None for classes.
        predicted: Predicted classes, int16, shape (N,); None where scores are given.
        label_names: Names of the classes or labels.
        columns: Further columns, one value an item.
    """

    item: Ints
    windows: Ints
    target: NDArray[np.int16]
    score: Floats | None
    predicted: NDArray[np.int16] | None
    label_names: tuple[str, ...]
    columns: dict[str, pa.Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.item)

    @property
    def item_sha256(self) -> str:
        """Hash of the sorted item ids: equal for two models that were scored on the same items."""
        return hashlib.sha256(np.sort(self.item).astype("<i8").tobytes()).hexdigest()

    def table(self) -> pa.Table:
        """One row an item, its windows as lists."""
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
            {_NAMES: "\n".join(self.label_names), _LABELS_A_WINDOW: per_window}
        )

    def _lists(self, values: NDArray[Any]) -> pa.Array:
        per_window = values.shape[1] if values.ndim == 2 else 1
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        if (np.diff(self.windows) == 1).all() and per_window == 1:
            return flat
        return pa.LargeListArray.from_arrays(pa.array(self.windows * per_window), flat)


def concatenate(parts: list[Predictions]) -> Predictions:
    """The predictions of several processes or folds as one, ordered by item.

    Raises:
        RecordError: An item was predicted twice.
    """
    item = np.concatenate([part.item for part in parts])
    if len(np.unique(item)) != len(item):
        twice = np.unique(item[np.sort(item).searchsorted(item, side="right") - np.sort(item).searchsorted(item) > 1])
        raise RecordError(f"items {twice[:5].tolist()} were predicted twice; each is scored once")
    order = np.argsort(item, kind="stable")
    lengths = np.concatenate([np.diff(part.windows) for part in parts])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    windows = np.concatenate([[0], np.cumsum(lengths[order])])
    source = np.repeat(starts[order] - windows[:-1], lengths[order]) + np.arange(windows[-1])

    def joined(name: str) -> NDArray[Any] | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else np.concatenate(values)[source]

    columns = {
        name: pa.concat_arrays([_plain(part.columns[name]) for part in parts]).take(pa.array(order))
        for name in parts[0].columns
    }
    target = joined("target")
    assert target is not None
    return Predictions(
        item=item[order],
        windows=windows,
        target=target,
        score=joined("score"),
        predicted=joined("predicted"),
        label_names=parts[0].label_names,
        columns=columns,
    )


def _plain(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def write_predictions(predictions: Predictions, path: Path) -> str:
    """Writes the Parquet file whole or not at all.

    Returns:
        Its sha256.

    Raises:
        RecordError: The file is there already, or cannot be written.
    """
    if path.exists():
        raise RecordError(f"{path} exists and is never overwritten; give another --out")
    with explain_write_errors(path), atomic_path(path, overwrite=False) as part:
        pq.write_table(predictions.table(), part, compression="zstd")
        return hashlib.sha256(part.read_bytes()).hexdigest()


def read_predictions(path: Path) -> Predictions:
    """Reads what ``write_predictions`` wrote.

    Raises:
        RecordError: The file is no prediction file.
    """
    try:
        table = pq.read_table(path)
        names = tuple(table.schema.metadata[_NAMES.encode()].decode().split("\n"))
        per_window = int(table.schema.metadata[_LABELS_A_WINDOW.encode()])
        columns = {name: _plain(table[name]) for name in table.column_names}
        item, target = columns.pop("item").to_numpy(), columns.pop("target")
    except (OSError, KeyError, TypeError, pa.ArrowException) as error:
        raise RecordError(f"{path} is no prediction file of bend_hf ({error}); give the .parquet of a run") from error
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
