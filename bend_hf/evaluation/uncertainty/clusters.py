"""What a bootstrap draws together: single items, chromosomes, or blocks of neighboring positions.

Neighbors on a chromosome share sequence, genes and chromatin. Items are therefore not independent, and intervals over
items are too narrow. In gene finding and enhancer annotation an item is a gene.

>>> codes_of(np.array(["b", "a", "b"])).tolist()
[1, 0, 1]
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.errors import ConfigError, RecordError, did_you_mean
from bend_hf.evaluation.predictions import Predictions
from bend_hf.types import Ints

ClusterBy: TypeAlias = Literal["item", "chromosome", "block"]
CLUSTERS: Final[tuple[ClusterBy, ...]] = get_args(ClusterBy)
BLOCK_BP: Final = 1_000_000  # longer than most genes and most blocks of linkage disequilibrium


def clusters_of(predictions: Predictions, by: str, *, block_bp: int = BLOCK_BP) -> Ints:
    """Assign each item to a cluster.

    Args:
        predictions: The items, with the columns ``chromosome``, ``start`` and ``end`` unless ``by`` is ``item``.
        by: ``item``, ``chromosome``, or ``block``: the block of the chromosome that holds the middle of the item.
        block_bp: Length of a block.

    Returns:
        Numbers from 0 without a gap, int64, shape (items,).

    Raises:
        ConfigError: ``by`` is unknown, or the length of a block is below 1.
        RecordError: The predictions lack a column.
    """
    if by not in CLUSTERS:
        raise ConfigError(f"unknown clusters {by!r}; {did_you_mean(by, list(CLUSTERS))}")
    if by == "item":
        return np.arange(len(predictions), dtype=np.int64)
    chromosome = codes_of(_column(predictions, "chromosome", by))
    if by == "chromosome":
        return chromosome
    if block_bp < 1:
        raise ConfigError(f"blocks have {block_bp} bp; expected 1 or more, such as {BLOCK_BP}")
    middle_bp = (_column(predictions, "start", by).astype(np.int64) + _column(predictions, "end", by)) // 2
    block = middle_bp // block_bp
    return codes_of(chromosome * (int(block.max(initial=0)) + 1) + block)


def codes_of(values: NDArray[Any]) -> Ints:
    """Number the distinct values from 0, in their order; equal values get the same number."""
    codes: Ints = np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return codes


def _column(predictions: Predictions, name: str, by: str) -> NDArray[Any]:
    column = predictions.columns.get(name)
    if column is None:
        found = ", ".join(sorted(predictions.columns)) or "nothing"
        raise RecordError(
            f"clusters by {by} need the column {name!r}, but the predictions have {found}; "
            "choose clusters by item, or repeat the run"
        )
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    array: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return array.astype(str) if array.dtype == object else array
