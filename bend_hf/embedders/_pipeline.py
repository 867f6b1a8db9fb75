"""Three stages that overlap: sequences are tokenized ahead, the device computes, and the caller takes what is ready.

Each of the first two stages runs in a thread of its own, one or two groups of sequences ahead of the next stage, so the
device does not wait for the tokenizer, for the caller, or at the end of a group. ``ahead`` is one such stage, and
``ahead(device(ahead(tokenize(sequences))))`` is a pipeline.

Rows are written to host memory once. ``Rows`` are the places of one group's rows in buffers that the caller keeps: on a
CPU each batch is rounded into them directly; on a GPU the rows of a group are gathered and rounded on the device, and
one asynchronous copy brings them to pinned memory.

>>> list(ahead(number * number for number in range(2, 5)))
[4, 9, 16]
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from queue import Full, Queue
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from bend_hf.types import Ints

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Item = TypeVar("Item")
_POLL_S: Final = 0.05  # how often a stage that waits looks whether it was stopped


class StoppedError(Exception):
    """A stage was stopped because nobody takes its results."""


@dataclass(frozen=True)
class _Made(Generic[Item]):
    """An item of a stage, its error, or neither at its end."""

    item: Item | None = None
    error: BaseException | None = None


def ahead(
    items: Iterable[Item], *, n_ahead: int = 1, stop: threading.Event | None = None
) -> Generator[Item, None, None]:
    """Iterate in a background thread, up to ``n_ahead`` items before they are needed.

    An exception of ``items`` is raised at its place in the order. Closing the generator stops the thread and waits for
    the item that it is making.

    Args:
        items: Read in the background thread alone, and closed there.
        n_ahead: Items that may wait, besides the one that is being made; this bounds the memory.
        stop: Is set when the generator is closed or fails, for work that looks at it.

    Yields:
        The items.
    """
    stage = _Stage(items, n_ahead, stop or threading.Event())
    thread = threading.Thread(target=copy_context().run, args=(stage.work,), name="ahead", daemon=True)
    thread.start()
    try:
        while (item := stage.next_item()) is not None:
            yield item
    finally:
        stage.stop.set()
        thread.join()


class _Stage(Generic[Item]):
    """What the thread of a stage and its reader share."""

    def __init__(self, items: Iterable[Item], n_ahead: int, stop: threading.Event) -> None:
        self.items, self.stop = items, stop
        self.queue: Queue[_Made[Item]] = Queue(maxsize=n_ahead)

    def next_item(self) -> Item | None:
        """Return the next item, None at the end, or raise the error of the thread."""
        made = self.queue.get()
        if made.error is not None:
            raise made.error
        return made.item

    def work(self) -> None:
        """Iterate until the end, an error, or the event that stops the stage."""
        iterator = iter(self.items)
        try:
            for item in iterator:
                if not self._hand_over(_Made(item=item)):
                    break
            else:
                self._hand_over(_Made())
        except BaseException as error:  # raised again where the items are taken
            self._hand_over(_Made(error=error))
        finally:
            if isinstance(iterator, Generator):
                iterator.close()

    def _hand_over(self, made: _Made[Item]) -> bool:
        while not self.stop.is_set():
            with contextlib.suppress(Full):
                self.queue.put(made, timeout=_POLL_S)
                return True
        return False


@dataclass(kw_only=True)
class Rows:
    """The places in host memory of a group's R rows, in the order in which they are stored.

    Attributes:
        n_rows: R.
        dtype: In which the rows are stored; None: float32.
        views: Consecutive parts of the rows, shape (n, K) each; without them one buffer is made for the first batch.
        n_bytes_written: Bytes of rows that were written to host memory.
    """

    n_rows: int
    dtype: torch.dtype | None = None
    views: list[Tensor] = field(default_factory=list)
    n_bytes_written: int = 0
    _staged: Tensor | None = None  # the rows on a GPU
    _copied: torch.cuda.Event | None = None

    def place(self, values_nK: Tensor, slots_n: Ints) -> None:
        """Write the rows of a batch.

        Args:
            values_nK: Of any float dtype, on the device, shape (n, K).
            slots_n: Which rows they are, shape (n,).
        """
        import torch

        dtype, width = self.dtype or torch.float32, values_nK.shape[-1]
        slots = torch.from_numpy(slots_n)
        if values_nK.is_cuda:
            if self._staged is None:
                self._staged = torch.empty((self.n_rows, width), dtype=dtype, device=values_nK.device)
            self._staged[slots.pin_memory().to(values_nK.device, non_blocking=True)] = values_nK.to(dtype)
            return
        values_nK = values_nK.cpu()
        self._make_views(width, dtype)
        first = 0
        for view in self.views:
            last = first + len(view)
            inside = slice(None) if len(self.views) == 1 else np.flatnonzero((slots_n >= first) & (slots_n < last))
            _write(view, slots_n[inside] - first, values_nK[inside])
            first = last
        self.n_bytes_written += len(slots_n) * width * dtype.itemsize

    def copy(self) -> None:
        """Start to copy what lies on a GPU, after the last batch; does nothing on a CPU."""
        if self._staged is None:
            return
        import torch

        self._make_views(self._staged.shape[1], self._staged.dtype)
        first = 0
        for view in self.views:
            view.copy_(self._staged[first : first + len(view)], non_blocking=True)
            first += len(view)
        self.n_bytes_written += self._staged.nbytes
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch does not annotate it
        self._copied.record(torch.cuda.current_stream(self._staged.device))

    def wait(self) -> None:
        """Wait for the copy, and free the rows on the GPU."""
        if self._copied is not None:
            self._copied.synchronize()
        self._staged = self._copied = None

    def array(self) -> NDArray[np.float32]:
        """Return the rows of a group without given views, float32, shape (R, K)."""
        if not self.views:
            return np.zeros((0, 0), np.float32)
        (view,) = self.views
        found: NDArray[np.float32] = view.numpy()
        return found

    def _make_views(self, width: int, dtype: torch.dtype) -> None:
        if not self.views:
            self.views = [empty_rows(self.n_rows, width, dtype, pinned=self._staged is not None)]


def _write(view: Tensor, slots_n: Ints, values_nK: Tensor) -> None:
    """Write rows; those that follow one another are written without an index, which is faster."""
    import torch

    n = len(slots_n)
    if n and slots_n[-1] - slots_n[0] == n - 1 and (np.diff(slots_n) == 1).all():
        view[slots_n[0] : slots_n[0] + n].copy_(values_nK)
    elif n:
        view[torch.from_numpy(slots_n)] = values_nK.to(view.dtype)


def empty_rows(n_rows: int, width: int, dtype: torch.dtype, *, pinned: bool) -> Tensor:
    """Make a buffer in host memory, shape (n_rows, width); pinned memory can be copied to asynchronously."""
    import torch

    return torch.empty((n_rows, width), dtype=dtype, pin_memory=pinned)


@dataclass(kw_only=True)
class Unit:
    """A unit that is not complete: its buffers, and what is known of its rows."""

    n_sequences: int
    n_bp: int
    buffers: list[Tensor] = field(default_factory=list)
    filled: list[int] = field(default_factory=list)
    counts: list[Ints] = field(default_factory=list)
    bp: list[Ints] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class StoredRows:
    """The rows of a unit of S sequences, which are stored together.

    Attributes:
        values: Shape (R, D), in the stored dtype; a view of the buffer that the rows were written to.
        bp: Nucleotides that each row stands for, shape (R,).
        starts: Where the rows of each sequence start, shape (S + 1,).
    """

    values: Tensor
    bp: Ints
    starts: Ints


class UnitBuffers:
    """Buffers of units (sequences that are stored together), which groups fill one after the other.

    Args:
        width: Numbers of a row.
        dtype: In which they are stored.
        rows_per_bp: Estimated rows per nucleotide. A unit with more rows gets a second buffer, and is joined by a copy.
        pinned: Whether the memory is pinned.
    """

    def __init__(self, *, width: int, dtype: torch.dtype, rows_per_bp: float, pinned: bool) -> None:
        self._width, self._dtype, self._rows_per_bp, self._pinned = width, dtype, rows_per_bp, pinned
        self._units: deque[Unit] = deque()

    def begin(self, sequences: Sequence[str]) -> None:
        """Announce the next unit."""
        self._units.append(Unit(n_sequences=len(sequences), n_bp=sum(map(len, sequences))))

    def of_group(self, starts: Ints, bp: Ints) -> tuple[Rows, list[Unit]]:
        """Return the places of a group's rows, and the units that are complete with them.

        Args:
            starts: Where the rows of each of its sequences start, shape (S + 1,).
            bp: Nucleotides of each row, shape (R,).
        """
        views: list[Tensor] = []
        complete: list[Unit] = []
        first, n = 0, len(starts) - 1
        while first < n or (self._units and not self._units[0].n_sequences):
            unit = self._units[0]
            last = min(n, first + unit.n_sequences)
            views.append(self._place(unit, int(starts[last] - starts[first])))
            unit.counts.append(np.diff(starts[first : last + 1]))
            unit.bp.append(bp[starts[first] : starts[last]])
            unit.n_sequences -= last - first
            first = last
            if not unit.n_sequences:
                complete.append(self._units.popleft())
        return Rows(n_rows=len(bp), dtype=self._dtype, views=views), complete

    def _place(self, unit: Unit, n_rows: int) -> Tensor:
        if not unit.buffers or unit.filled[-1] + n_rows > len(unit.buffers[-1]):
            n_most = max(n_rows, int(1.05 * self._rows_per_bp * unit.n_bp) + 1 - sum(unit.filled))
            unit.buffers.append(empty_rows(n_most, self._width, self._dtype, pinned=self._pinned))
            unit.filled.append(0)
        begin = unit.filled[-1]
        unit.filled[-1] += n_rows
        return unit.buffers[-1][begin : begin + n_rows]


def stored_rows(unit: Unit) -> StoredRows:
    """Return the rows of a complete unit, after the groups that hold them were waited for."""
    import torch

    parts = [buffer[:filled] for buffer, filled in zip(unit.buffers, unit.filled, strict=True)]
    counts = np.concatenate([np.zeros(0, np.int64), *unit.counts])
    return StoredRows(
        values=parts[0] if len(parts) == 1 else torch.cat(parts),
        bp=np.concatenate([np.zeros(0, np.int64), *unit.bp]),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def numpy_rows(values: Tensor) -> NDArray[Any]:
    """Return rows as NumPy sees them, without a copy: bfloat16 as its 16 bits."""
    import torch

    if values.dtype == torch.bfloat16:
        bits: NDArray[Any] = values.view(torch.int16).numpy().view(np.uint16)
        return bits
    found: NDArray[Any] = values.numpy()
    return found
