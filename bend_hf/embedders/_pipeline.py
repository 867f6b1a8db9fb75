"""Three stages that overlap: sequences are tokenized ahead, the device computes, and the caller takes what is ready.

Each of the first two stages runs in a thread of its own, one or two groups of sequences ahead of the next stage, so the
device does not wait for the tokenizer, for the caller, or at the end of a group. ``ahead`` is one such stage, and
``ahead(device(ahead(tokenize(sequences))))`` is a pipeline. ``prefetch`` calls a function for the next items
meanwhile.

Rows are written to host memory once. ``Rows`` are the places of one group's rows in buffers that the caller keeps: on a
CPU each batch is rounded into them directly; on a GPU the rows of a group are gathered, rounded and averaged on the
device, and one asynchronous copy brings them to pinned memory, while the next group is computed. Buffers can also stay
on the device, for a head that reads them there.

>>> list(ahead(number * number for number in range(2, 5)))
[4, 9, 16]
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice
from queue import Full, Queue, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._pooling import Windows
from bend_hf.types import Ints

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")
_POLL_S: Final = 0.05  # how often a stage that waits looks whether it was stopped


class StoppedError(Exception):
    """A stage was stopped because nobody takes its results."""


@dataclass(frozen=True)
class _Made(Generic[Item]):
    """An item of a stage, its error, or neither at its end."""

    item: Item | None = None
    error: BaseException | None = None


class _KeptThreads:
    """Threads that wait for the next stage, each of which runs one stage at a time.

    Libraries keep some things per thread that take long to make, such as cuDNN its plan for each shape of a batch.
    """

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)  # threads do not survive a fork

    def forget(self) -> None:
        """Start with no thread."""
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[tuple[Callable[[], None], threading.Event]]] = []

    def start(self, work: Callable[[], None]) -> threading.Event:
        """Call a function, in the thread that was last used if it is idle; return an event that is set at its end."""
        ended = threading.Event()
        with self._lock:
            inbox = self._idle.pop() if self._idle else None
        if inbox is None:
            inbox = SimpleQueue()
            threading.Thread(target=self._serve, args=(inbox,), name="kept", daemon=True).start()
        inbox.put((work, ended))
        return ended

    def _serve(self, inbox: SimpleQueue[tuple[Callable[[], None], threading.Event]]) -> None:
        while True:
            work, ended = inbox.get()
            try:
                work()
            finally:
                del work  # and what it refers to
                with self._lock:
                    self._idle.append(inbox)
                ended.set()


_KEPT: Final = _KeptThreads()


def ahead(
    items: Iterable[Item], *, n_ahead: int = 1, stop: threading.Event | None = None, keeps_thread: bool = False
) -> Generator[Item, None, None]:
    """Iterate in a background thread, up to ``n_ahead`` items before they are needed.

    An exception of ``items`` is raised at its place in the order. Closing the generator stops the thread and waits for
    the item that it is making.

    Args:
        items: Read in the background thread alone, and closed there.
        n_ahead: Items that may wait, besides the one that is being made; this bounds the memory.
        stop: Is set when the generator is closed or fails, for work that looks at it.
        keeps_thread: Run in a thread that later calls use again, for work on a GPU.

    Yields:
        The items.
    """
    stage = _Stage(items, n_ahead, stop or threading.Event())
    work = partial(copy_context().run, stage.work)
    wait: Callable[[], object]
    if keeps_thread:
        wait = _KEPT.start(work).wait
    else:
        thread = threading.Thread(target=work, name="ahead", daemon=True)
        thread.start()
        wait = thread.join
    try:
        while (item := stage.next_item()) is not None:
            yield item
    finally:
        stage.stop.set()
        wait()


def prefetch(
    make: Callable[[Item], Result], items: Iterable[Item], *, n_ahead: int = 1, n_threads: int = 1
) -> Generator[Result, None, None]:
    """Yield ``make(item)`` for each item, in order; the next ones are made in the background while one is used.

    An exception of ``make`` is raised at its place in the order. Closing the generator drops what has not been
    started and waits for the calls that are running.

    >>> list(prefetch(lambda step: step * step, range(2, 5)))
    [4, 9, 16]

    Args:
        make: Called in background threads.
        items: Read in the calling thread, at most ``n_ahead`` items before they are needed.
        n_ahead: How many results may wait while another one is used; this bounds the memory. With 0, each is made when
            it is asked for, in the calling thread.
        n_threads: Calls of ``make`` at the same time.

    Yields:
        The results.
    """
    if not n_ahead:
        yield from map(make, items)
        return
    left = iter(items)
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(n_threads, thread_name_prefix="prefetch") as threads:

        def start(item: Item) -> Future[Result]:
            return threads.submit(copy_context().run, make, item)

        try:
            waiting.extend(map(start, islice(left, n_ahead)))
            while waiting:
                made = waiting.popleft().result()
                waiting.extend(map(start, islice(left, 1)))
                yield made
        finally:
            for future in waiting:
                future.cancel()


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
    """The places of a group's R rows, in the order in which they are stored.

    Attributes:
        n_rows: R.
        dtype: In which the rows are stored; None: float32.
        views: Consecutive parts of the rows, shape (n, K) each; without them one buffer is made for the first batch.
        windows: What the rows are averaged over before they are stored; None stores them as they are. There are then
            as many places as windows.
        averaged_dtype: To which rows are rounded before they are averaged; None: float32.
        n_bytes_written: Bytes of rows that were written to host memory.
    """

    n_rows: int
    dtype: torch.dtype | None = None
    views: list[Tensor] = field(default_factory=list)
    windows: Windows | None = None
    averaged_dtype: torch.dtype | None = None
    n_bytes_written: int = 0
    _staged: Tensor | None = None  # the rows on the device
    _copied: torch.cuda.Event | None = None

    def place(self, values_nK: Tensor, slots_n: Ints) -> None:
        """Write the rows of a batch.

        Args:
            values_nK: Of any float dtype, on the device, shape (n, K).
            slots_n: Which rows they are, shape (n,), ascending.
        """
        import torch

        dtype, width = self.dtype or torch.float32, values_nK.shape[-1]
        on_gpu = values_nK.is_cuda and not (self.views and self.views[0].is_cuda)
        if on_gpu or self.windows is not None:
            if self._staged is None:
                staged = self.averaged_dtype or torch.float32 if self.windows is not None else dtype
                self._staged = torch.empty((self.n_rows, width), dtype=staged, device=values_nK.device)
            _write(self._staged, slots_n, values_nK)
            return
        self._make_views(width, dtype)
        first = 0
        for view in self.views:
            last = first + len(view)
            inside = slice(None) if len(self.views) == 1 else np.flatnonzero((slots_n >= first) & (slots_n < last))
            _write(view, slots_n[inside] - first, values_nK[_on(inside, values_nK.device)])
            first = last
        self._count(len(slots_n) * width * dtype.itemsize)

    def copy(self) -> None:
        """Average what is to be averaged, and start to copy to the host what lies on a GPU, after the last batch.

        The copy has a stream of its own, so that the next group is computed meanwhile.
        """
        if self._staged is None:
            return
        if self.windows is not None:
            self._staged = self.windows.means(self._staged)
        self._make_views(self._staged.shape[1], self._staged.dtype)
        if not self._staged.is_cuda or self.views[0].is_cuda:
            self._copy_to_views(self._staged)
            self._staged = None
            return
        import torch

        device = self._staged.device
        stream = _copies(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            self._copy_to_views(self._staged)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch does not annotate it
            self._copied.record(stream)

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

    def _copy_to_views(self, values: Tensor) -> None:
        first = 0
        for view in self.views:
            view.copy_(values[first : first + len(view)], non_blocking=True)
            first += len(view)
        self._count(values.nbytes)

    def _count(self, n_bytes: int) -> None:
        if not self.views[0].is_cuda:
            self.n_bytes_written += n_bytes

    def _make_views(self, width: int, dtype: torch.dtype) -> None:
        if not self.views:
            n = self.n_rows if self.windows is None else len(self.windows.bp)
            self.views = [empty_rows(n, width, dtype, pinned=self._staged is not None and self._staged.is_cuda)]


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of copies from a GPU."""
    import torch

    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch does not annotate it


def _on(index: Ints | slice, device: torch.device) -> Tensor | slice:
    """Return an index where it is used."""
    import torch

    if isinstance(index, slice):
        return index
    host = torch.from_numpy(index)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)


def _write(view: Tensor, slots_n: Ints, values_nK: Tensor) -> None:
    """Write rows; those that follow one another are written without an index, which is faster."""
    n = len(slots_n)
    if n and slots_n[-1] - slots_n[0] == n - 1 and (np.diff(slots_n) == 1).all():
        view[slots_n[0] : slots_n[0] + n].copy_(values_nK)
    elif n:
        view[_on(slots_n, view.device)] = values_nK.to(view.device, view.dtype)


def empty_rows(
    n_rows: int, width: int, dtype: torch.dtype, *, pinned: bool, device: torch.device | None = None
) -> Tensor:
    """Make a buffer, shape (n_rows, width), in host memory unless a device is given.

    Pinned memory can be copied to asynchronously; torch keeps what is freed of it for the next buffer.
    """
    import torch

    return torch.empty((n_rows, width), dtype=dtype, pin_memory=pinned and device is None, device=device)


@dataclass(frozen=True, kw_only=True)
class Storage:
    """How rows are stored.

    Attributes:
        dtype: To which they are rounded.
        rows_per_bp: Estimated stored rows per nucleotide, for the first allocation.
        pool_bp: Nucleotides of the windows over which rounded rows are averaged, in float32; None stores them as they
            are.
        on_device: Whether they stay on the device of the model. Each unit is then embedded apart from the others, with
            the bits that it has alone.
    """

    dtype: torch.dtype
    rows_per_bp: float = 1.0
    pool_bp: int | None = None
    on_device: bool = False


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
        device: Where the buffers are, if they stay on the device; None: in host memory.
    """

    def __init__(
        self, *, width: int, dtype: torch.dtype, rows_per_bp: float, pinned: bool, device: torch.device | None = None
    ) -> None:
        self._width, self._dtype, self._rows_per_bp = width, dtype, rows_per_bp
        self._pinned, self._device = pinned, device
        self._units: deque[Unit] = deque()

    def begin(self, sequences: Sequence[str]) -> None:
        """Announce the next unit."""
        self._units.append(Unit(n_sequences=len(sequences), n_bp=sum(map(len, sequences))))

    def of_group(self, starts: Ints, bp: Ints, storage: Storage) -> tuple[Rows, list[Unit]]:
        """Return the places of a group's rows, and the units that are complete with them.

        Args:
            starts: Where the rows of each of its sequences start, shape (S + 1,).
            bp: Nucleotides of each row, shape (R,).
            storage: Whether rows are averaged before they are stored.
        """
        n_rows, windows = len(bp), None
        if storage.pool_bp is not None:
            windows = Windows.of(starts, bp, pool_bp=storage.pool_bp)
            starts, bp = windows.starts, windows.bp
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
        rows = Rows(n_rows=n_rows, dtype=self._dtype, views=views, windows=windows, averaged_dtype=storage.dtype)
        return rows, complete

    def _place(self, unit: Unit, n_rows: int) -> Tensor:
        if not unit.buffers or unit.filled[-1] + n_rows > len(unit.buffers[-1]):
            n_most = max(n_rows, int(1.05 * self._rows_per_bp * unit.n_bp) + 1 - sum(unit.filled))
            unit.buffers.append(empty_rows(n_most, self._width, self._dtype, pinned=self._pinned, device=self._device))
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
