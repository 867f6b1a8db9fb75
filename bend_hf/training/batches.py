"""Batches of a split on the device, each prepared while the previous one is used.

A split that is held on the device needs nothing of the host in a step: ``held_rows`` copies the order of an epoch once,
and a batch is gathered by a part of it.

>>> to_device(np.ones(2, np.float16), torch.device("cpu")).dtype
torch.float32
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from bend_hf.embedders._pipeline import prefetch
from bend_hf.embedders.cache.reader import DeviceEmbeddings, fits_on_device
from bend_hf.embedders.token_embeddings import OnTheFly, Targets
from bend_hf.types import IGNORE_LABEL, Ints, Labels

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from datasets import Dataset

_COORDINATES: Final = ("chromosome", "start", "end", "strand", "ref", "alt")

# A dataclass whose fields are the model's arguments in order, arrays or tensors, such as ``TokenBatch``. The last is
# ``token_of_BL``.
Inputs: TypeAlias = "DataclassInstance"


class InputSource(Protocol):
    """Gives the model's inputs for any items of a split, as an ``EmbeddingSource`` does."""

    def rows(self, rows: Ints) -> Inputs:
        """Return the inputs of some items, in the order given."""
        ...


_LABELS_AT_A_TIME: Final = 4096  # items whose labels are copied to the device at a time


class DeviceTargets:
    """All labels of a split on a device, where those of a batch are gathered.

    Args:
        targets: The labels.
        device: Where they are held.
    """

    def __init__(self, targets: Targets, device: torch.device) -> None:
        self.n_windows = targets.n_windows()
        most, parts = int(self.n_windows.max(initial=0)), []
        for start in range(0, len(targets), _LABELS_AT_A_TIME):
            read = targets.rows(np.arange(start, min(start + _LABELS_AT_A_TIME, len(targets))))
            labels = to_device(read, device)
            parts.append(pad(labels, (0, most - labels.shape[1]), value=IGNORE_LABEL) if labels.dim() == 2 else labels)
        self._labels = torch.cat(parts)

    @staticmethod
    def fits(targets: Targets, device: torch.device) -> bool:
        """Check whether the labels take at most half of a GPU's free memory; they stay on the host otherwise."""
        if device.type != "cuda" or not len(targets):
            return False
        one = targets.rows(np.zeros(1, np.int64))
        n_bytes = one.itemsize * (int(targets.n_windows().max()) if one.ndim == 2 else one.size)
        return fits_on_device(len(targets) * n_bytes, device)

    def gather(self, items: Tensor, *, n_windows: int) -> Tensor:
        """Gather the labels of items whose numbers are on the device, as ``Targets.rows`` returns them.

        Args:
            items: Item numbers, in any order, int64, shape (B,).
            n_windows: Label windows of the item that has most of them.
        """
        labels = self._labels[items]
        return labels[:, :n_windows] if labels.dim() == 2 else labels


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split with its inputs and labels.

    Attributes:
        dataset: The rows.
        embeddings: The inputs of the model.
        targets: The labels.
        device_targets: The labels on the device, if they are held there together with the inputs.
    """

    dataset: Dataset
    embeddings: InputSource
    targets: Targets
    device_targets: DeviceTargets | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    @functools.cached_property
    def places(self) -> Dataset:
        """The number and the coordinates of each item, in Arrow's format. Selecting columns takes long."""
        names = [name for name in _COORDINATES if name in self.dataset.column_names]
        return self.dataset.select_columns(["item", *names]).with_format("arrow")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One process's slice of a batch.

    Attributes:
        rows: Items of the split; empty if this process has none.
        inputs: The model's arguments, on the device; the last is ``token_of_BL``.
        labels: As returned by ``Targets.rows``; all -100, or nan for real values, if this process has no item. On the
            device if the split is held there.
    """

    rows: Ints
    inputs: tuple[Tensor, ...]
    labels: Labels | Tensor

    def host_labels(self) -> Labels:
        """Return the labels on the host. Waits for the device if they are there."""
        labels: Labels = self.labels.cpu().numpy() if isinstance(self.labels, Tensor) else self.labels
        return labels

    def lengths_bp(self) -> Ints:
        """Return the nucleotides of each item, int64, shape (batch,). Waits for the device."""
        lengths: Ints = (self.inputs[-1] >= 0).sum(dim=1).cpu().numpy()
        return lengths


@dataclass(frozen=True, kw_only=True)
class HeldRows:
    """The rows of a batch of a split that is held on the device.

    Attributes:
        rows: The rows, on the host, for messages.
        items: The rows on the device, a part of the order of the epoch.
        n_tokens: Token embeddings of the longest item.
        n_bp: Nucleotides of the longest item.
        n_windows: Label windows of the item that has most of them.
    """

    rows: Ints
    items: Tensor
    n_tokens: int
    n_bp: int
    n_windows: int

    def __len__(self) -> int:
        return len(self.rows)


BatchRows: TypeAlias = Ints | HeldRows


def held_rows(split: Split, slices: Sequence[Ints], device: torch.device) -> Sequence[BatchRows]:
    """Copy the order of an epoch to the device, once, and return its batches as parts of it.

    Returns:
        The slices as they are if the split is not held on the device, or if a slice is empty.
    """
    embeddings, targets = split.embeddings, split.device_targets
    if not isinstance(embeddings, DeviceEmbeddings) or targets is None or not all(len(one) for one in slices):
        return slices
    order = np.concatenate([np.zeros(0, np.int64), *slices])
    starts = np.cumsum([0, *(len(one) for one in slices)])
    items = to_device(order, device)
    most = [
        np.maximum.reduceat(sizes[order], starts[:-1]).tolist() if len(slices) else []
        for sizes in (embeddings.n_tokens, embeddings.lengths_bp, targets.n_windows)
    ]
    return [
        HeldRows(rows=rows, items=items[start : start + len(rows)], n_tokens=n_tokens, n_bp=n_bp, n_windows=n_windows)
        for rows, start, n_tokens, n_bp, n_windows in zip(slices, starts[:-1].tolist(), *most, strict=True)
    ]


def batch_rows(n: int, *, batch_size: int, seed: int, epoch: int, rank: int, n_processes: int) -> list[Ints]:
    """Return this process's slice of every batch of an epoch.

    The whole split is shuffled, and the last batch may be smaller. If a batch has fewer items than processes, some
    slices are empty, so that all processes take the same number of steps.
    """
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return [order[start : start + batch_size][rank::n_processes] for start in range(0, n, batch_size)]


def feed(split: Split, slices: Sequence[BatchRows], device: torch.device) -> Generator[Batch, None, None]:
    """Yield the batches of some items, in order, each prepared while the previous one is used.

    Args:
        split: Where the items are read from.
        slices: Row numbers of each batch.
        device: The device of the model.
    """
    if isinstance(split.embeddings, OnTheFly) and split.embeddings.streams:
        return _streamed(split, split.embeddings, [_on_host(rows) for rows in slices], device)
    return prefetch(partial(make_batch, split, device), slices)


def _streamed(
    split: Split, source: OnTheFly, slices: Sequence[Ints], device: torch.device
) -> Generator[Batch, None, None]:
    """Yield the batches of a split whose embeddings are computed in one stream."""
    read = (rows if len(rows) else np.zeros(1, np.int64) for rows in slices)
    with closing(source.stream(read)) as stream:
        for rows, inputs in zip(slices, stream, strict=True):
            yield _batch_of(split, inputs, device, rows)


def _on_host(rows: BatchRows) -> Ints:
    return rows.rows if isinstance(rows, HeldRows) else rows


def labels_of(split: Split, rows: BatchRows) -> Labels | Tensor:
    """Return the labels of some items; for no items, those of one item with every label marked as padding."""
    if isinstance(rows, HeldRows):
        if split.device_targets is None:
            raise TypeError("rows on the device need labels on the device; make them with held_rows")
        return split.device_targets.gather(rows.items, n_windows=rows.n_windows)
    return labels_from(split.targets, rows)


def labels_from(targets: Targets, rows: Ints) -> Labels:
    """Return the labels of some items, as ``labels_of`` does."""
    if len(rows):
        return targets.rows(rows)
    one = targets.rows(np.zeros(1, np.int64))
    return np.full_like(one, np.nan if one.dtype.kind == "f" else IGNORE_LABEL)


def make_batch(split: Split, device: torch.device, rows: BatchRows) -> Batch:
    """Read the batch of some rows of a split, and copy it to the device; gather it there if the split is held there."""
    if isinstance(rows, HeldRows):
        embeddings = cast("DeviceEmbeddings", split.embeddings)
        held = embeddings.gather(rows.items, n_tokens=rows.n_tokens, n_bp=rows.n_bp)
        return Batch(rows=rows.rows, inputs=(held.x_BTD, held.token_of_BL), labels=labels_of(split, rows))
    inputs = split.embeddings.rows(rows if len(rows) else np.zeros(1, np.int64))
    return _batch_of(split, inputs, device, rows)


def _batch_of(split: Split, inputs: Inputs, device: torch.device, rows: Ints) -> Batch:
    tensors = [to_device(getattr(inputs, field.name), device) for field in fields(inputs)]
    if not len(rows):  # an item of padding alone counts in no statistics
        tensors[-1] = torch.full_like(tensors[-1], -1)
    return Batch(rows=rows, inputs=tuple(tensors), labels=labels_of(split, rows))


def to_device(values: NDArray[np.generic] | Tensor, device: torch.device) -> Tensor:
    """Copy values to a device, asynchronously if it can; half precision becomes float32."""
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    moved = tensor.to(device, non_blocking=True)
    return moved.float() if moved.dtype == torch.float16 else moved
