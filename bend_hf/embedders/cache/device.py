"""Batches on their way to a device: gathered ahead in pinned memory, or the whole split held there where it fits.

For training: while the device works on a batch, a thread gathers the next ones and their copies run. Any
``EmbeddingSource`` will do.

    for batch in device_batches(source, batches, device):
        logits = head(batch.x_BTD, batch.token_of_BL)

>>> from bend_hf.embedders.batches import EmbeddedRows
>>> class Source:
...     width = 1
...     def __len__(self): return 3
...     def rows(self, rows): return EmbeddedRows(
...         x_BTD=rows.reshape(-1, 1, 1).astype(np.float32), token_of_BL=np.zeros((len(rows), 2), np.int64))
>>> import torch
>>> [batch.x_BTD.flatten().tolist() for batch in device_batches(Source(), [[2, 0], [1]], torch.device("cpu"))]
[[2.0, 0.0], [1.0]]
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bend_hf.embedders.batches import EmbeddingSource
from bend_hf.embedders.cache.numbers import itemsize, readable
from bend_hf.embedders.cache.reader import CachedEmbeddings
from bend_hf.shapes import Ints

_SHARE: Final = 0.5  # of a device's free memory that a held split may take; the rest is the head's
_CHUNK_ROWS: Final = 1 << 16


@dataclass(frozen=True, kw_only=True)
class DeviceRows:
    """One batch on the device; the same as ``EmbeddedRows``, x_BTD in float32."""

    x_BTD: Tensor
    token_of_BL: Tensor


def device_batches(
    source: EmbeddingSource, batches: Iterable[Ints], device: torch.device, *, ahead: int = 2
) -> Iterator[DeviceRows]:
    """The embeddings of batches, in order.

    Args:
        source: Where they come from.
        batches: Item numbers of each batch.
        device: Where they are wanted.
        ahead: Batches gathered in advance; 0 gathers each when it is asked for.
    """
    if ahead < 1:
        for rows in batches:
            yield _landed(_sent(source, np.asarray(rows), device), device)
        return
    waiting: deque[Future[_OnTheWay]] = deque()
    left = iter(batches)
    with ThreadPoolExecutor(1, thread_name_prefix="embeddings") as gatherer:
        try:
            for rows in islice(left, ahead):
                waiting.append(gatherer.submit(_sent, source, np.asarray(rows), device))
            while waiting:
                sent = waiting.popleft().result()
                for rows in islice(left, 1):
                    waiting.append(gatherer.submit(_sent, source, np.asarray(rows), device))
                yield _landed(sent, device)
        finally:
            for future in waiting:  # the reader stopped early, or a batch could not be made
                future.cancel()


@dataclass(frozen=True, kw_only=True)
class _OnTheWay:
    """Tensors that are being copied; ``host`` must live until ``copied``."""

    x_BTD: Tensor
    token_of_BL: Tensor
    host: tuple[Tensor, ...]
    copied: torch.cuda.Event | None


def _sent(source: EmbeddingSource, rows: Ints, device: torch.device) -> _OnTheWay:
    embedded = source.rows(rows)
    x, token_of = torch.from_numpy(embedded.x_BTD), torch.from_numpy(embedded.token_of_BL)
    if device.type != "cuda":
        return _OnTheWay(x_BTD=x.to(device), token_of_BL=token_of.to(device), host=(), copied=None)
    stream = _copy_stream(device)
    host = (x.pin_memory(), token_of.pin_memory())
    with torch.cuda.stream(stream):
        moved = [tensor.to(device, non_blocking=True) for tensor in host]
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(stream)
    return _OnTheWay(x_BTD=moved[0], token_of_BL=moved[1], host=host, copied=copied)


def _landed(sent: _OnTheWay, device: torch.device) -> DeviceRows:
    if sent.copied is not None:
        current = torch.cuda.current_stream(device)
        current.wait_event(sent.copied)
        for tensor in (sent.x_BTD, sent.token_of_BL):
            tensor.record_stream(current)
    return DeviceRows(x_BTD=sent.x_BTD.float(), token_of_BL=sent.token_of_BL)


_STREAMS: Final[dict[torch.device, torch.cuda.Stream]] = {}


def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _STREAMS[device]


class HeldEmbeddings:
    """A whole cached split on a device: batches are gathered there, nothing is copied any more.

    Args:
        source: What to hold.
        device: Where.
    """

    def __init__(self, source: CachedEmbeddings, device: torch.device) -> None:
        counts = source.n_rows
        self._starts = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)])).to(device)
        self._lengths_bp = torch.from_numpy(source.lengths_bp).to(device)
        kind = torch.float16 if source.dtype == "float16" else torch.float32
        self._rows = torch.empty((int(counts.sum()) + 1, source.width), dtype=kind, device=device)
        self._row_bp = torch.empty(int(counts.sum()), dtype=torch.int64, device=device)
        self._rows[-1] = 0  # what padded places read
        at = 0
        for rows, row_bp in source.pieces(_CHUNK_ROWS):
            self._rows[at : at + len(rows)] = _tensor(readable(rows, source.dtype)).to(device)
            self._row_bp[at : at + len(rows)] = _tensor(row_bp).to(device)
            at += len(rows)

    @staticmethod
    def fits(source: CachedEmbeddings, device: torch.device) -> bool:
        """Whether a split takes at most half of the free memory of a device; never held on a CPU, which maps it."""
        if device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(device)
        bytes_a_row = source.width * (2 if source.dtype == "float16" else itemsize("float32")) + 8
        return int(source.n_rows.sum()) * bytes_a_row < _SHARE * free

    def rows(self, rows: Ints) -> DeviceRows:
        """The embeddings of some items, in the order given."""
        items = torch.from_numpy(np.asarray(rows, np.int64)).to(self._starts.device)
        first, counts = self._starts[items], self._starts[items + 1] - self._starts[items]
        place_T = torch.arange(int(counts.max()), device=items.device)
        real_BT = place_T < counts[:, None]
        at_BT = torch.where(real_BT, first[:, None] + place_T, len(self._rows) - 1)
        lengths = self._lengths_bp[items]
        n_bp = int(lengths.max())
        bp_BT = torch.where(real_BT, self._row_bp[at_BT.clamp(max=len(self._row_bp) - 1)], 0)
        bp_BT = torch.cat([bp_BT, (n_bp - lengths)[:, None]], dim=1)
        place_T = torch.cat([place_T, place_T.new_full((1,), -1)])
        token_of = (
            place_T.expand_as(bp_BT).reshape(-1).repeat_interleave(bp_BT.reshape(-1), output_size=n_bp * len(items))
        )
        return DeviceRows(x_BTD=self._rows[at_BT].float(), token_of_BL=token_of.view(len(items), n_bp))


def _tensor(array: NDArray[Any]) -> Tensor:
    """A tensor of its own; the mapped file is read-only."""
    return torch.from_numpy(array.copy())
