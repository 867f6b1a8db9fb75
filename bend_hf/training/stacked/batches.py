"""Batches of several heads: rows that several of them want are read once, and all are padded to one rectangle.

>>> pad_to([np.array([1, 2]), np.array([3])], fill=-1).tolist()
[[1, 2], [3, -1]]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bend_hf.errors import ConfigError
from bend_hf.training.batches import InputSource, Split, labels_from, to_device
from bend_hf.types import IGNORE_LABEL, Ints, Labels

Read: TypeAlias = tuple[Tensor, Tensor] | Labels  # embeddings and the token of each nucleotide, or labels
Source = TypeVar("Source")
Found = TypeVar("Found", bound=Read)
NO_ROWS = np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class StackedBatch:
    """One batch for each of K heads, padded to one rectangle.

    Attributes:
        x_KBTD: Token embeddings, float, on the device; an expanded axis K if all heads read the same.
        token_of_KBL: Token of each nucleotide, int64; -1 at padding and for items that a head does not have.
        labels: For each head as ``Targets.rows`` returns them, padded, with the axis K in front.
        shapes: Items, tokens and nucleotides of each head, without padding; no item if the head takes no part.
    """

    x_KBTD: Tensor
    token_of_KBL: Tensor
    labels: Labels
    shapes: tuple[tuple[int, int, int], ...]


def pad_to(arrays: Sequence[NDArray[Any]], *, fill: float) -> NDArray[Any]:
    """Stack arrays of different sizes into one, padded at the end of each axis."""
    first = arrays[0]
    if all(one is first for one in arrays):
        return np.broadcast_to(first, (len(arrays), *first.shape))
    shape = tuple(np.max([one.shape for one in arrays], axis=0).tolist())
    padded = np.full((len(arrays), *shape), fill, first.dtype)
    for place, one in enumerate(arrays):
        padded[place][tuple(slice(size) for size in one.shape)] = one
    return padded


def read_stacked(splits: Sequence[Split], rows: Sequence[Ints | None], device: torch.device) -> StackedBatch:
    """Read one batch for each head; rows that several heads want from one source are read once.

    Args:
        splits: The split of each head, shape (K,).
        rows: The rows of each head, shape (K,); empty if this process has none of its batch, and None if the head takes
            no part.
        device: Where the batch goes.

    Raises:
        ConfigError: A source gives something else than embeddings and their nucleotides.
    """
    given = [NO_ROWS if one is None else one for one in rows]
    inputs = _per_source([one.embeddings for one in splits], given, _read_embeddings)
    shapes = tuple(
        (0 if own is None else len(x), x.shape[1], token_of.shape[1])
        for (x, token_of), own in zip(inputs, rows, strict=True)
    )
    x_KBTD = stack_padded([x for x, _ in inputs], fill=0)
    token_of_KBL = stack_padded([token_of for _, token_of in inputs], fill=-1)
    return StackedBatch(
        x_KBTD=to_device_expanded(x_KBTD, device),
        token_of_KBL=to_device_expanded(token_of_KBL, device),
        labels=read_labels(splits, given),
        shapes=shapes,
    )


def to_device_expanded(values: Tensor, device: torch.device) -> Tensor:
    """Copy values with an axis K in front to a device; what all K share is copied once."""
    if len(values) > 1 and values.stride(0) == 0:
        return to_device(values[0], device).expand(values.shape)
    return to_device(values, device)


def _per_source(sources: Sequence[Source], rows: Sequence[Ints], read: Callable[[Source, Ints], Found]) -> list[Found]:
    """Read the rows of each head, once for each source and set of rows; members with equal ones share the result."""
    made: dict[tuple[int, int], Found] = {}
    groups: dict[int, list[Ints]] = {}
    for source, wanted in zip(sources, rows, strict=True):
        if all(wanted is not one for one in groups.setdefault(id(source), [])):
            groups[id(source)].append(wanted)
    by_id = {id(source): source for source in sources}
    for key, several in groups.items():
        if len(several) == 1:
            made[key, id(several[0])] = read(by_id[key], several[0])
            continue
        union = np.unique(np.concatenate(several))
        whole = read(by_id[key], union)
        for one in several:
            made[key, id(one)] = _pick(whole, np.searchsorted(union, one)) if len(one) else read(by_id[key], one)
    return [made[id(source), id(wanted)] for source, wanted in zip(sources, rows, strict=True)]


def _pick(read: Found, places: Ints) -> Found:
    """Take items of what was read, and cut off padding that none of them needs."""
    if isinstance(read, np.ndarray):
        return cast("Found", read[places])
    x_BTD, token_of_BL = (one[torch.from_numpy(places).to(one.device)] for one in read)
    n_bp, n_tokens = int((token_of_BL >= 0).sum(1).max()), int(token_of_BL.max()) + 1
    return cast("Found", (x_BTD[:, :n_tokens], token_of_BL[:, :n_bp]))


def _read_embeddings(source: InputSource, rows: Ints) -> tuple[Tensor, Tensor]:
    """Read embeddings and the token of each nucleotide; for no rows, an item of padding alone."""
    inputs = source.rows(rows if len(rows) else np.zeros(1, np.int64))
    values = [getattr(inputs, one.name) for one in fields(inputs)]
    if len(values) != 2:
        raise ConfigError(
            f"heads are trained together on embeddings, but the split gives {len(values)} inputs per batch; use "
            "--tune head"
        )
    x_BTD, token_of_BL = (one if isinstance(one, Tensor) else torch.from_numpy(one) for one in values)
    return x_BTD, token_of_BL if len(rows) else torch.full_like(token_of_BL, -1)


def read_labels(splits: Sequence[Split], rows: Sequence[Ints]) -> Labels:
    """Read the labels of each head's rows, padded, with the axis K in front."""
    found = _per_source([one.targets for one in splits], rows, labels_from)
    return pad_to(found, fill=np.nan if found[0].dtype.kind == "f" else IGNORE_LABEL)


def stack_padded(tensors: Sequence[Tensor], *, fill: float) -> Tensor:
    """Stack tensors of different sizes into one, padded at the end of each axis."""
    first = tensors[0]
    if all(one is first for one in tensors):
        return first.expand(len(tensors), *first.shape)
    if all(one.shape == first.shape for one in tensors):
        return torch.stack(list(tensors))
    shape = [max(sizes) for sizes in zip(*(one.shape for one in tensors), strict=True)]
    padded = first.new_full((len(tensors), *shape), fill)
    for place, one in enumerate(tensors):
        padded[place][tuple(slice(size) for size in one.shape)] = one
    return padded
