"""The rows of a split as predictions hold them, read from its dataset, to compare predictions with.

>>> from bend_hf.data.dataset import load_task
>>> sorted(identity_of(load_task("cpg_methylation", "sample")))
['test', 'train', 'validation']
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.evaluation.identity import Keys, item_keys, keys_sha256, place_keys, places_of
from bend_hf.tasks import Folds, MultiLabel, RealValues, TaskSpec
from bend_hf.types import Ints, Json

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.data.dataset import TaskData

_CELLS: Final = 1 << 21  # labels that are read at once


@dataclass(frozen=True, kw_only=True)
class DatasetItems:
    """n rows of a split, as predictions hold them.

    Attributes:
        item: Row numbers in the file, shape (n,).
        table: The columns ``item``, ``chromosome``, ``start``, ``end``, and ``strand``, ``ref``, ``alt`` if there are.
        target: Labels of all windows, shape (N,) or (N, C).
        windows: Start of each row's windows, shape (n + 1,).
        places: Hashes of the places, shape (n, 2).
        keys: Hashes of the rows, shape (n, 2).
    """

    item: Ints
    table: pa.Table
    target: NDArray[Any]
    windows: Ints
    places: Keys
    keys: Keys


_PLACE_COLUMNS: Final = ("item", "chromosome", "start", "end", "strand", "ref", "alt")


def dataset_items(task: TaskSpec, dataset: Dataset, *, fold: int | None = None) -> DatasetItems:
    """Read the rows of a split as predictions hold them, without sequences.

    Args:
        task: The task.
        dataset: The split.
        fold: The fold whose test split it is; None without folds.
    """
    names = [name for name in _PLACE_COLUMNS if name in dataset.column_names]
    table = dataset.select_columns(names).with_format("arrow")[:] if len(dataset) else pa.table({"item": []})
    target, windows = _targets(task, dataset)
    places = place_keys(places_of({name: table[name] for name in names if name != "item"}))
    keys = item_keys(places, target, windows, np.full(len(dataset), fold or 0))
    item = table["item"].to_numpy().astype(np.int64)
    return DatasetItems(item=item, table=table, target=target, windows=windows, places=places, keys=keys)


def _targets(task: TaskSpec, dataset: Dataset) -> tuple[NDArray[Any], Ints]:
    """The labels of all windows, and where those of each row start."""
    from bend_hf.embedders.token_embeddings import Targets

    targets, n = Targets(dataset, task.label), len(dataset)
    if isinstance(task.label, MultiLabel | RealValues):
        step = max(1, _CELLS // max(len(task.label_names), 1))
        parts = [targets.rows(np.arange(first, min(first + step, n)))[:, 0] for first in range(0, n, step)]
        return np.concatenate(parts), np.arange(n + 1)
    column = dataset.select_columns([targets.column]).with_format("arrow")[:][targets.column].combine_chunks()
    if targets.column == "label":
        return column.to_numpy(zero_copy_only=False).astype(np.int16), np.arange(n + 1)
    offsets = column.offsets.to_numpy().astype(np.int64)
    return column.flatten().to_numpy(zero_copy_only=False).astype(np.int16), offsets - offsets[0]


def identity_of(data: TaskData) -> dict[str, Json]:
    """Hash the items of each split of a task, or of each subset that folds are made of.

    Args:
        data: The task's data.
    """
    return dict(_identity_of(data))


@functools.lru_cache(maxsize=8)  # the same for all models of a task
def _identity_of(data: TaskData) -> Mapping[str, Json]:
    folds = isinstance(data.task.partition, Folds)
    return {
        name: keys_sha256(dataset_items(data.task, subset, fold=number if folds else None).keys)
        for number, (name, subset) in enumerate(data.subsets.items(), start=1)
        if len(subset)
    }
