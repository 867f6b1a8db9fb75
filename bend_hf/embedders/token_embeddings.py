"""Batches for a head: padded token embeddings, and padded labels.

``EmbeddingSource`` is where the embeddings of a split come from: ``OnTheFly`` computes them, the cache reads them.
``Targets`` gives the labels of the same items.

Labels of three items; the second has none:

>>> from bend_hf.tasks._labels import MultiLabel
>>> dense_labels(np.array([0, 2, 1]), np.array([0, 2, 2, 3]), MultiLabel(names=("a", "b", "c"))).tolist()
[[[1, 0, 1]], [[0, 0, 0]], [[0, 1, 0]]]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bend_hf.errors import NotFiniteError
from bend_hf.tasks._labels import LabelKind, MultiLabel, RealValues
from bend_hf.types import IGNORE_LABEL, Floats, Ints, Labels

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.embedders._embedder import Embedder


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """Token embeddings of several sequences, padded to a rectangle.

    Attributes:
        x_BTD: Float32, or float16 from a cache, shape (batch, tokens, width). A head casts them on its device.
        token_of_BL: Index of the token that each nucleotide belongs to, int64, shape (batch, nucleotides); -1 for
            padding.
    """

    x_BTD: Floats | NDArray[np.float16]
    token_of_BL: Ints


class EmbeddingSource(Protocol):
    """The embeddings of a split: computed on the fly, or read from a cache."""

    @property
    def width(self) -> int:
        """Width of an embedding."""
        ...

    def __len__(self) -> int:
        """Number of items in the split."""
        ...

    def rows(self, rows: Ints) -> TokenBatch:
        """Return the embeddings of items, in the given order."""
        ...


def pad_embeddings(x_ND: Floats | NDArray[np.float16], embedding_starts: Ints, embedding_bp: Ints) -> TokenBatch:
    """Pad concatenated token embeddings to a rectangle.

    Args:
        x_ND: Token embeddings of all sequences, shape (N, width). Float16 stays float16, to be cast on the device.
        embedding_starts: Where the embeddings of each sequence start, shape (batch + 1,).
        embedding_bp: Number of nucleotides that each embedding stands for, shape (N,).
    """
    counts = np.diff(embedding_starts)
    n_batch, n_tokens = len(counts), int(counts.max(initial=0))
    sequence_of = np.repeat(np.arange(n_batch), counts)
    place = np.arange(len(x_ND)) - embedding_starts[sequence_of]
    x_BTD = np.zeros((n_batch, n_tokens, x_ND.shape[1]), np.float16 if x_ND.dtype == np.float16 else np.float32)
    x_BTD[sequence_of, place] = x_ND
    bp_starts = np.concatenate([[0], np.cumsum(embedding_bp)])[embedding_starts]
    lengths_bp = np.diff(bp_starts)
    token_of_BL = np.full((n_batch, int(lengths_bp.max(initial=0))), -1, np.int64)
    token_of_BL[np.arange(token_of_BL.shape[1]) < lengths_bp[:, None]] = np.repeat(place, embedding_bp)
    return TokenBatch(x_BTD=x_BTD, token_of_BL=token_of_BL)


def item_name(dataset: Dataset, row: int) -> str:
    """Name an item of a dataset in messages: its number and its coordinates, if it has any.

    >>> import datasets
    >>> item_name(datasets.Dataset.from_dict({"item": [7], "chromosome": ["chr1"], "start": [0], "end": [9]}), 0)
    'item 7 (chr1:0-9)'
    """
    names = [name for name in ("item", "chromosome", "start", "end") if name in dataset.column_names]
    item = dataset.select_columns(names)[int(row)] if names else {}
    number = item.get("item", row)
    place = f" ({item['chromosome']}:{item['start']}-{item['end']})" if len(names) - ("item" in names) == 3 else ""
    return f"item {number}{place}"


def all_finite(values: NDArray[np.floating[Any]]) -> bool:
    """Whether all numbers are finite. Reads them once, unless they are huge."""
    flat = values.reshape(-1)
    return bool(np.isfinite(np.dot(flat, flat)) or np.isfinite(flat).all())


class OnTheFly:
    """Embeddings that are computed when they are needed, for embedders that cost next to nothing.

    Args:
        dataset: The split, with a column ``sequence``.
        embedder: The embedder.
    """

    def __init__(self, dataset: Dataset, embedder: Embedder) -> None:
        self._dataset = dataset
        self._sequences = dataset.select_columns(["sequence"]).with_format("arrow")
        self._embedder = embedder

    @property
    def width(self) -> int:
        """Width of an embedding."""
        return int(self._embedder.width)

    def __len__(self) -> int:
        return len(self._sequences)

    def rows(self, rows: Ints) -> TokenBatch:
        """Embed items, in the given order.

        Raises:
            NotFiniteError: An embedding is nan or infinite; the message names the item.
        """
        sequences = self._sequences[rows]["sequence"].to_pylist()
        embedded = self._embedder.embed_tokens(sequences)
        starts = np.concatenate([[0], np.cumsum([len(item.embedding_bp) for item in embedded])])
        x_ND = np.concatenate([item.values for item in embedded])
        if not all_finite(x_ND):
            bad = [place for place, item in enumerate(embedded) if not np.isfinite(item.values).all()]
            raise NotFiniteError(
                f"the embeddings of {item_name(self._dataset, rows[bad[0]])} are not finite: {self._embedder.name} "
                f"gave nan or infinity for {len(bad)} of {len(rows)} items, computed in {self._embedder.dtype}; "
                f"{self._embedder.finite_remedy}"
            )
        return pad_embeddings(
            x_ND,
            starts,
            np.concatenate([item.embedding_bp for item in embedded]),
        )


class Targets:
    """The labels of a split, padded and dense as a head needs them.

    Args:
        dataset: The split, with a column ``labels`` or ``label``.
        kind: Kind of the labels.
    """

    def __init__(self, dataset: Dataset, kind: LabelKind) -> None:
        self.column = "labels" if "labels" in dataset.column_names else "label"
        self._labels = dataset.select_columns([self.column]).with_format("arrow")
        self.kind = kind

    def __len__(self) -> int:
        return len(self._labels)

    def n_windows(self) -> Ints:
        """Return how many label windows ``rows`` gives each item, int64, shape (items,)."""
        if self.column == "label" or isinstance(self.kind, MultiLabel | RealValues):
            return np.ones(len(self), np.int64)
        lengths: Ints = pc.list_value_length(self._labels[:][self.column]).to_numpy().astype(np.int64)
        return lengths

    def rows(self, rows: Ints) -> Labels:
        """Return the labels of items, in the given order.

        Returns:
            Classes, shape (batch, windows), -100 for padding; or 0 and 1, or real values, shape (batch, 1, labels).
        """
        column = self._labels[rows][self.column]
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if self.column == "label":
            values, offsets = column.to_numpy(zero_copy_only=False), np.arange(len(column) + 1)
        else:
            values = column.flatten().to_numpy(zero_copy_only=False)
            raw = column.offsets.to_numpy().astype(np.int64)
            offsets = raw - raw[0]
        return dense_labels(values, offsets, self.kind)


def dense_labels(values: NDArray[Any], offsets: Ints, kind: LabelKind) -> Labels:
    """Turn ragged labels into a rectangle: 0 and 1 for each label, padded classes, or real values.

    Args:
        values: Classes or indices of labels of all items, concatenated.
        offsets: Where the values of each item start, shape (batch + 1,).
        kind: Kind of the labels.
    """
    counts = np.diff(offsets)
    row_of = np.repeat(np.arange(len(counts)), counts)
    if isinstance(kind, RealValues):
        real: Floats = values.astype(np.float32).reshape(len(counts), 1, len(kind.names))
        return real
    if isinstance(kind, MultiLabel):
        dense = np.zeros((len(counts), 1, len(kind.names)), np.int16)
        dense[row_of, 0, values] = 1
        return dense
    padded = np.full((len(counts), int(counts.max(initial=0))), IGNORE_LABEL, np.int16)
    padded[row_of, np.arange(len(values)) - offsets[row_of]] = values
    return padded
