"""Batches for a head: padded token embeddings, and padded labels.

``EmbeddingSource`` is where the embeddings of a split come from: ``OnTheFly`` computes them, the cache reads them.
``Targets`` gives the labels of the same items.

Labels of three items; the second has none:

>>> from bend_hf.tasks._labels import MultiLabel
>>> dense_labels(np.array([0, 2, 1]), np.array([0, 2, 2, 3]), MultiLabel(names=("a", "b", "c"))).tolist()
[[[1, 0, 1]], [[0, 0, 0]], [[0, 1, 0]]]
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
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
    from torch import Tensor

    from bend_hf.embedders._embedder import Embedder
    from bend_hf.embedders._pipeline import StoredRows


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


@dataclass(frozen=True, kw_only=True)
class DeviceTokenBatch:
    """A ``TokenBatch`` on the device, with ``x_BTD`` in float32."""

    x_BTD: Tensor
    token_of_BL: Tensor


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
    return TokenBatch(x_BTD=x_BTD, token_of_BL=token_of_nucleotide(place, embedding_starts, embedding_bp))


def token_of_nucleotide(place: Ints, embedding_starts: Ints, embedding_bp: Ints) -> Ints:
    """Return the token that each nucleotide belongs to, shape (batch, nucleotides); -1 for padding.

    Args:
        place: Index of each embedding in its sequence, shape (N,).
        embedding_starts: Where the embeddings of each sequence start, shape (batch + 1,).
        embedding_bp: Number of nucleotides that each embedding stands for, shape (N,).
    """
    bp_starts = np.concatenate([[0], np.cumsum(embedding_bp)])[embedding_starts]
    lengths_bp = np.diff(bp_starts)
    token_of_BL = np.full((len(lengths_bp), int(lengths_bp.max(initial=0))), -1, np.int64)
    token_of_BL[np.arange(token_of_BL.shape[1]) < lengths_bp[:, None]] = np.repeat(place, embedding_bp)
    return token_of_BL


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
        embedded = self._embedder.embed_tokens(self._texts(rows))
        starts = np.concatenate([[0], np.cumsum([len(item.embedding_bp) for item in embedded])])
        x_ND = np.concatenate([item.values for item in embedded])
        if not all_finite(x_ND):
            raise self._not_finite(rows, [bool(np.isfinite(item.values).all()) for item in embedded])
        return pad_embeddings(
            x_ND,
            starts,
            np.concatenate([item.embedding_bp for item in embedded]),
        )

    @property
    def streams(self) -> bool:
        """Whether ``stream`` gains over ``rows``: for networks, which can compute while a batch is used."""
        return self._embedder.overlaps and self._embedder.needs_checkpoint

    def stream(self, slices: Iterable[Ints]) -> Generator[DeviceTokenBatch, None, None]:
        """Embed batches of items ahead of their use, with the bits of ``rows``; they stay on the embedder's device.

        Args:
            slices: The items of each batch, read in another thread.

        Raises:
            NotFiniteError: An embedding is nan or infinite; the message names the item.
        """
        import torch

        given: deque[Ints] = deque()

        def units() -> Iterator[list[str]]:
            for rows in slices:
                given.append(rows)
                yield self._texts(rows)

        with closing(self._embedder.iter_stored(units(), torch.float32, on_device=True)) as stored:
            for unit in stored:
                rows = given.popleft()
                if not bool(torch.isfinite(unit.values).all()):
                    finite = torch.isfinite(unit.values).all(dim=1).cpu().numpy()
                    raise self._not_finite(rows, np.logical_and.reduceat(finite, unit.starts[:-1]).tolist())
                yield _padded_on_device(unit)

    def _texts(self, rows: Ints) -> list[str]:
        found: list[str] = self._sequences[rows]["sequence"].to_pylist()
        return found

    def _not_finite(self, rows: Ints, finite: Sequence[bool]) -> NotFiniteError:
        """Say which items have embeddings that are nan or infinite."""
        return NotFiniteError(
            f"the embeddings of {item_name(self._dataset, rows[finite.index(False)])} are not finite: "
            f"{self._embedder.name} gave nan or infinity for {finite.count(False)} of {len(rows)} items, computed in "
            f"{self._embedder.dtype}; {self._embedder.finite_remedy}"
        )


def _padded_on_device(unit: StoredRows) -> DeviceTokenBatch:
    """Pad the token embeddings of a unit to a rectangle on their device, as ``pad_embeddings`` does on the host."""
    import torch

    counts, device = np.diff(unit.starts), unit.values.device
    sequence_of = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(unit.values)) - unit.starts[sequence_of]
    n_tokens = int(counts.max(initial=0))
    x_BTD = unit.values.new_zeros((len(counts), n_tokens, unit.values.shape[1]))
    x_BTD.view(-1, unit.values.shape[1])[torch.from_numpy(sequence_of * n_tokens + place).to(device)] = unit.values
    return DeviceTokenBatch(
        x_BTD=x_BTD, token_of_BL=torch.from_numpy(token_of_nucleotide(place, unit.starts, unit.bp)).to(device)
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
