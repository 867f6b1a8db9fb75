"""Batches of a split on the device, each prepared while the previous one is used.

>>> to_device(np.ones(2, np.float16), torch.device("cpu")).dtype
torch.float32
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bend_hf.embedders.token_embeddings import Targets
from bend_hf.training.prefetch import prefetch
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


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split with its inputs and labels."""

    dataset: Dataset
    embeddings: InputSource
    targets: Targets

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
        labels: As returned by ``Targets.rows``; all -100, or nan for real values, if this process has no item.
    """

    rows: Ints
    inputs: tuple[Tensor, ...]
    labels: Labels

    def lengths_bp(self) -> Ints:
        """Return the nucleotides of each item, int64, shape (batch,). Waits for the device."""
        lengths: Ints = (self.inputs[-1] >= 0).sum(dim=1).cpu().numpy()
        return lengths


def batch_rows(n: int, *, batch_size: int, seed: int, epoch: int, rank: int, n_processes: int) -> list[Ints]:
    """Return this process's slice of every batch of an epoch.

    The whole split is shuffled, and the last batch may be smaller. If a batch has fewer items than processes, some
    slices are empty, so that all processes take the same number of steps.
    """
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return [order[start : start + batch_size][rank::n_processes] for start in range(0, n, batch_size)]


def feed(split: Split, slices: Sequence[Ints], device: torch.device) -> Generator[Batch, None, None]:
    """Yield the batches of some items, in order, each prepared while the previous one is used.

    Args:
        split: Where the items are read from.
        slices: Row numbers of each batch.
        device: The device of the model.
    """
    return prefetch(partial(make_batch, split, device), slices)


def labels_of(split: Split, rows: Ints) -> Labels:
    """Return the labels of some items; for no items, those of one item with every label marked as padding."""
    return labels_from(split.targets, rows)


def labels_from(targets: Targets, rows: Ints) -> Labels:
    """Return the labels of some items, as ``labels_of`` does."""
    if len(rows):
        return targets.rows(rows)
    one = targets.rows(np.zeros(1, np.int64))
    return np.full_like(one, np.nan if one.dtype.kind == "f" else IGNORE_LABEL)


def make_batch(split: Split, device: torch.device, rows: Ints) -> Batch:
    """Read the batch of some rows of a split, and copy it to the device."""
    inputs = split.embeddings.rows(rows if len(rows) else np.zeros(1, np.int64))
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
