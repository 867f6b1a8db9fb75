"""A split's batches on the device, the next one made while the last one is worked on.

>>> to_device(np.ones(2, np.float16), torch.device("cpu")).dtype
torch.float32
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bend_hf.embedders.token_embeddings import Targets
from bend_hf.prefetch import prefetch
from bend_hf.types import IGNORE_LABEL, Ints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from datasets import Dataset

# A dataclass whose fields are a model's arguments in order, arrays or tensors, ``token_of_BL`` last: ``TokenBatch``.
Inputs: TypeAlias = "DataclassInstance"


class InputSource(Protocol):
    """What gives a model's inputs for any items of a split; ``EmbeddingSource`` is one."""

    def rows(self, rows: Ints) -> Inputs:
        """The inputs of some items, in the order given."""
        ...


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split, ready for a head: where its embeddings come from, its labels, its items."""

    dataset: Dataset
    embeddings: InputSource
    targets: Targets

    def __len__(self) -> int:
        return len(self.dataset)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One process's share of a batch.

    Attributes:
        rows: Which items of the split; empty where this process has none.
        inputs: The model's arguments, on the device; the last is ``token_of_BL``.
        labels: As ``Targets.rows`` gives them, all -100 where this process has no item.
    """

    rows: Ints
    inputs: tuple[Tensor, ...]
    labels: NDArray[np.int16]

    def lengths_bp(self) -> Ints:
        """Nucleotides of each item, int64, shape (batch,); waits for the device."""
        lengths: Ints = (self.inputs[-1] >= 0).sum(dim=1).cpu().numpy()
        return lengths


def batch_rows(n: int, *, batch_size: int, seed: int, epoch: int, rank: int, world: int) -> list[Ints]:
    """This process's share of every batch of an epoch.

    The whole split is shuffled; the last batch may be smaller. A process that a batch has no item for gets an
    empty share, so that all take the same number of steps.
    """
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return [order[start : start + batch_size][rank::world] for start in range(0, n, batch_size)]


def feed(split: Split, shares: Sequence[Ints], device: torch.device) -> Generator[Batch, None, None]:
    """Yield the batches of some items, in order, each prepared while the previous one is used.

    Args:
        split: Where the items are read from.
        shares: Row numbers of each batch.
        device: The device of the model.
    """
    return prefetch(partial(_make, split, device), shares)


def labels_of(split: Split, rows: Ints) -> NDArray[np.int16]:
    """Labels of a share; where it is empty those of one item, all marked as padding."""
    if len(rows):
        return split.targets.rows(rows)
    return np.full_like(split.targets.rows(np.zeros(1, np.int64)), IGNORE_LABEL)


def _make(split: Split, device: torch.device, rows: Ints) -> Batch:
    inputs = split.embeddings.rows(rows if len(rows) else np.zeros(1, np.int64))
    tensors = [to_device(getattr(inputs, field.name), device) for field in fields(inputs)]
    if not len(rows):  # an item that is all padding counts in no statistics either
        tensors[-1] = torch.full_like(tensors[-1], -1)
    return Batch(rows=rows, inputs=tuple(tensors), labels=labels_of(split, rows))


def to_device(values: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """The values as a tensor there, copied without waiting where the device can; half precision becomes float32."""
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    moved = tensor.to(device, non_blocking=True)
    return moved.float() if moved.dtype == torch.float16 else moved
