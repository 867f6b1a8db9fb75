"""What is drawn together in a bootstrap: single items, chromosomes, or blocks of neighbouring positions.

Neighbours on a chromosome share sequence, genes and chromatin, so that items are not independent and intervals over
items are too narrow. A gene is an item in gene finding and in enhancer annotation.

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
    """The cluster of each item.

    Args:
        predictions: The items; all but ``item`` need their places beside them.
        by: ``item``, ``chromosome``, or ``block``: the block of a chromosome that the item's middle lies in.
        block_bp: Length of a block.

    Returns:
        Numbers from 0 without a gap, int64, shape (items,).

    Raises:
        ConfigError: There is no such way to cluster, or blocks have no length.
        RecordError: The places are not beside the predictions.
    """
    if by not in CLUSTERS:
        raise ConfigError(f"unknown clusters {by!r}; {did_you_mean(by, list(CLUSTERS))}")
    if by == "item":
        return np.arange(len(predictions), dtype=np.int64)
    chromosome = codes_of(_place(predictions, "chromosome", by))
    if by == "chromosome":
        return chromosome
    if block_bp < 1:
        raise ConfigError(f"blocks of {block_bp} bp; give a length above 0")
    middle_bp = (_place(predictions, "start", by).astype(np.int64) + _place(predictions, "end", by)) // 2
    block = middle_bp // block_bp
    return codes_of(chromosome * (int(block.max(initial=0)) + 1) + block)


def codes_of(values: NDArray[Any]) -> Ints:
    """Numbers from 0 for equal values, in the order of the values."""
    codes: Ints = np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return codes


def _place(predictions: Predictions, name: str, by: str) -> NDArray[Any]:
    column = predictions.columns.get(name)
    if column is None:
        found = ", ".join(sorted(predictions.columns)) or "nothing"
        raise RecordError(
            f"clusters by {by} need the column {name!r} beside the predictions, which have {found}; "
            "use clusters by item, or predict again"
        )
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    array: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return array.astype(str) if array.dtype == object else array
