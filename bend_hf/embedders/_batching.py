"""Run a model over many chunks of different lengths.

Chunks are sorted by length. A batch holds chunks of similar length, as many as fit a budget of tokens, padding
included. ``BudgetTrials`` finds the fastest budget on the first batches, unless the user fixes it. ``BatchRunner``
yields the values of each batch and says which outputs they are.

The chunks of 90 and 88 tokens share a batch, the one of 30 tokens is too short for it; with a budget of 90 tokens the
first chunk is a batch of its own:

>>> batch_end(np.array([90, 88, 30, 9]), 0, budget_tokens=1000), batch_end(np.array([90, 88]), 0, budget_tokens=90)
(2, 1)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._alignment import Tokenized
from bend_hf.embedders._compile import Shapes
from bend_hf.embedders._pipeline import StoppedError
from bend_hf.types import Bools, Ints

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# From ids (B, T) and mask (B, T) or None to values (B, T, K), all on the device.
BatchFunction: TypeAlias = "Callable[[Tensor, Tensor | None], Tensor]"

# Budgets that are tried, in tokens; the first is the default. Measured on two CPU cores: 1,000 to 4,000 tokens are
# fastest, larger batches are slower for small models. A GPU needs more to be busy; see also ``candidate_tokens``.
CANDIDATE_TOKENS: Final[dict[str, tuple[int, ...]]] = {
    "cpu": (2048, 1024, 4096),
    "cuda": (32768, 16384, 65536, 131072),
    "mps": (8192, 4096, 16384),
}
_TRIALS: Final = 2  # timed batches per budget; the faster one counts
_FULL: Final = 0.9  # a batch that fills less of its budget is not counted
_MIN_GAIN: Final = 1.03  # another budget replaces the default if it is faster by this factor
_MIN_TOKENS: Final = 512
# Padding costs as much as any token. Chunks share a batch if they are shorter than its longest chunk by at most an
# eighth, or by at most 16 tokens.
_LENGTH_FRACTION: Final = 8
_LENGTH_TOKENS: Final = 16


# Numbers per layer that keep a large GPU busy for longer than a host takes to start the kernels of the next batch.
_GPU_NUMBERS: Final = 1 << 25


def candidate_tokens(device: str, width: int | None) -> tuple[int, ...]:
    """Return the budgets that are tried on a kind of device, the default first.

    The narrower a network is, the more tokens a GPU needs.

    >>> candidate_tokens("cuda", 768)[0], candidate_tokens("cuda", 256)[0], candidate_tokens("cpu", 256)[0]
    (32768, 131072, 2048)

    Args:
        device: ``cpu``, ``cuda`` or ``mps``.
        width: Numbers per token; None: not known.
    """
    candidates = CANDIDATE_TOKENS[device]
    if device != "cuda" or not width:
        return candidates
    default = max([candidates[0], *(budget for budget in candidates if budget * width <= _GPU_NUMBERS)])
    return (default, *(budget for budget in candidates if budget != default))


class Timer:
    """Times what is done between its making and ``stop``, on a GPU by events, which nothing waits for."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._events: list[torch.cuda.Event] = []
        self._seconds = 0.0
        if device.type == "cuda":
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]  # torch does not annotate it
            self._events[0].record()
        self._start = time.perf_counter()

    def stop(self) -> None:
        """End the time."""
        self._seconds = time.perf_counter() - self._start
        for event in self._events[1:]:
            event.record()

    def seconds(self) -> float | None:
        """Return the time, or None while the device is not there yet."""
        if not self._events:
            return self._seconds
        first, last = self._events
        return first.elapsed_time(last) / 1000 if last.query() else None  # type: ignore[no-untyped-call]  # see above


class BudgetTrials:
    """Find the fastest token budget by timing the first full batches of the real work."""

    def __init__(self, candidates: Sequence[int]) -> None:
        self._candidates = list(candidates)
        self._rates: dict[int, list[float]] = {candidate: [] for candidate in candidates}
        self._running: list[tuple[int, int, Timer]] = []  # budgets and tokens of batches that a GPU has not finished

    @property
    def decided(self) -> bool:
        """Whether every budget has been timed."""
        return all(len(rates) >= _TRIALS for rates in self._rates.values())

    @property
    def budget(self) -> int:
        """The budget to try next, or the fastest one once all are timed."""
        for candidate, rates in self._rates.items():
            if len(rates) + sum(budget == candidate for budget, _, _ in self._running) < _TRIALS:
                return candidate
        default, *others = self._rates
        if not self.decided:
            return default  # until the last timed batches are finished
        best = max(others, key=lambda candidate: max(self._rates[candidate]), default=default)
        return best if max(self._rates[best]) > _MIN_GAIN * max(self._rates[default]) else default

    def record(self, n_tokens: int, seconds: float) -> None:
        """Record the seconds of a batch that was made for ``budget``."""
        budget = self.budget
        if n_tokens >= _FULL * budget:
            self._rates[budget].append(n_tokens / max(seconds, 1e-9))

    def time(self, n_tokens: int, timer: Timer) -> None:
        """Record a batch that was made for ``budget``, now or when the device has finished it."""
        self._running.append((self.budget, n_tokens, timer))
        self.collect()

    def collect(self) -> None:
        """Record the batches that the device has finished; does not wait for the others."""
        running = []
        for budget, n_tokens, timer in self._running:
            seconds = timer.seconds()
            if seconds is None:
                running.append((budget, n_tokens, timer))
            elif n_tokens >= _FULL * budget and budget in self._rates:
                self._rates[budget].append(n_tokens / max(seconds, 1e-9))
        self._running = running

    def out_of_memory(self) -> bool:
        """Drop the current budget and all larger ones; return False if none is left."""
        left = {candidate: rates for candidate, rates in self._rates.items() if candidate < self.budget}
        self._rates = left or self._rates
        return bool(left)


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """One batch in the memory of the host.

    Attributes:
        ids: Shape (B, T).
        mask: Shape (B, T); None if nothing is padded.
        take: Which of the B * T tokens gives each output of the batch, shape (n,).
        slots: Index of each output among all, ascending, shape (n,).
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.int64] | None
    take: Ints
    slots: Ints


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """The shape of a batch.

    Attributes:
        chunks: The chunk in each row, shape (B,). Rows behind ``n_rows`` repeat one, and nothing is read of them.
        n_rows: Chunks whose values are read.
        n_tokens: Tokens of a row, padding included.
    """

    chunks: Ints
    n_rows: int
    n_tokens: int


class BatchRunner:
    """Run a function over the chunks of tokenized sequences, batch by batch.

    Args:
        device: Device of the model.
        pad_id: Token id of padding.
        batch_tokens: Tokens in a batch, padding included; None: the fastest of several budgets, found by trial.
        equal_lengths: Batch only chunks of equal length, so that nothing is padded.
        compiled: Whether the network is compiled, so that batches should have few shapes.
        width: Numbers per token of the network, which the budgets depend on; None: not known.

    Attributes:
        most_tokens: Tokens that the network takes at once; None: any number, or not known.
    """

    def __init__(
        self,
        *,
        device: torch.device,
        pad_id: int,
        batch_tokens: int | None,
        equal_lengths: bool,
        compiled: bool = False,
        width: int | None = None,
    ) -> None:
        self.device = device
        self._candidates = candidate_tokens(device.type, width)
        self.pad_id = pad_id
        self.batch_tokens = batch_tokens
        self.equal_lengths = equal_lengths
        self.shapes = Shapes(equal_lengths=equal_lengths) if compiled else None
        self.most_tokens: int | None = None
        self.trials: dict[int, BudgetTrials] = {}

    @property
    def default_tokens(self) -> int:
        """Tokens in a batch before any trial."""
        return self.batch_tokens or self._candidates[0]

    @contextmanager
    def fixed(self) -> Iterator[None]:
        """Use the default budget instead of the fastest, so that every process computes the same bytes."""
        requested, self.batch_tokens = self.batch_tokens, self.default_tokens
        try:
            yield
        finally:
            self.batch_tokens = requested

    def halve(self) -> bool:
        """Halve the tokens in a batch from now on; return False if the batch is small already."""
        if self.default_tokens <= _MIN_TOKENS:
            return False
        self.batch_tokens = self.default_tokens // 2
        return True

    def run(
        self,
        tokenized: Tokenized,
        token_R: Ints,
        function: BatchFunction,
        *,
        stop: threading.Event | None = None,
        shrinks: bool = False,
    ) -> Iterator[tuple[Tensor, Ints]]:
        """Compute values for the wanted tokens, batch by batch.

        Args:
            tokenized: The chunks.
            token_R: The token of each output, in any order and with repeats, shape (R,).
            function: Computes K values per token of a batch.
            stop: Ends the run between two batches when it is set.
            shrinks: Halve the batches if the device's memory is too small for one that the user or ``fixed`` asked for.

        Yields:
            Values of n outputs on the device, shape (n, K), and which outputs they are, shape (n,), ascending if the
            tokens are.

        Raises:
            StoppedError: ``stop`` was set.
        """
        import torch

        outputs = _Outputs.of(token_R, n_tokens=len(tokenized.ids))
        lengths = np.diff(tokenized.chunk_starts)
        order = np.argsort(-lengths, kind="stable")
        ordered = lengths[order]
        first = 0
        while first < len(order):
            if stop is not None and stop.is_set():
                raise StoppedError
            trials = self._trials_for(int(ordered[first]))
            trials.collect()
            budget = self.batch_tokens or trials.budget
            last = batch_end(ordered, first, budget_tokens=budget, equal_lengths=self.equal_lengths)
            batch = self._assemble(tokenized, self._shape(order[first:last], lengths, budget), lengths, outputs)
            timer = Timer(self.device)
            try:
                with torch.inference_mode():
                    values = self._values(batch, function)
            except torch.cuda.OutOfMemoryError:
                smaller = trials.out_of_memory() if self.batch_tokens is None else shrinks and self.halve()
                if not smaller:
                    raise
                torch.cuda.empty_cache()
                continue
            if self.batch_tokens is None and not trials.decided:
                timer.stop()
                trials.time(batch.ids.size, timer)
            yield values, batch.slots
            first = last

    def _trials_for(self, longest: int) -> BudgetTrials:
        """Return the trials for chunks of about this length: short and long chunks have different best budgets."""
        return self.trials.setdefault(longest.bit_length(), BudgetTrials(self._candidates))

    def _shape(self, chunks: Ints, lengths: Ints, budget_tokens: int) -> _Shape:
        """Choose the shape of a batch; that of its chunks, unless the network is compiled."""
        n_tokens = lengths[chunks]
        longest, n = int(n_tokens.max()), len(chunks)
        if self.shapes is None:
            return _Shape(chunks=chunks, n_rows=n, n_tokens=longest)
        fits = max(1, budget_tokens // longest)
        is_full = n == fits and int(n_tokens.min()) == longest
        n_rows = self.shapes.n_chunks(n, budget=fits)
        chosen = self.shapes.n_tokens(longest, is_full=is_full, most=self.most_tokens)
        return _Shape(chunks=np.concatenate([chunks, chunks[-1:].repeat(n_rows - n)]), n_rows=n, n_tokens=chosen)

    def _assemble(self, tokenized: Tokenized, shape: _Shape, lengths: Ints, outputs: _Outputs) -> _Batch:
        chunks, longest, n_rows = shape.chunks, shape.n_tokens, shape.n_rows
        n_tokens, starts = lengths[chunks], tokenized.chunk_starts[chunks]
        if n_tokens.min() == longest and (np.diff(starts) == longest).all():  # the chunks follow one another
            ids = tokenized.ids[starts[0] : starts[-1] + longest].reshape(-1, longest).astype(np.int64)
            take, slots = outputs.of_tokens(slice(starts[0], starts[n_rows - 1] + longest))
            return _Batch(ids=ids, mask=None, take=take, slots=slots)
        index = starts[:, None] + np.arange(longest)
        if n_tokens.min() == longest:
            take, slots = outputs.of_tokens(index[:n_rows].ravel())
            return _Batch(ids=tokenized.ids[index].astype(np.int64), mask=None, take=take, slots=slots)
        inside = np.arange(longest) < n_tokens[:, None]
        index = np.where(inside, index, 0)
        take, slots = outputs.of_tokens(index[:n_rows].ravel(), inside[:n_rows].ravel())
        ids = np.where(inside, tokenized.ids[index], self.pad_id).astype(np.int64)
        return _Batch(ids=ids, mask=inside.astype(np.int64), take=take, slots=slots)

    def _values(self, batch: _Batch, function: BatchFunction) -> Tensor:
        ids, mask = self._send(batch.ids), None if batch.mask is None else self._send(batch.mask)
        if self.shapes is not None:
            self.shapes.mark(ids, mask)
        values = function(ids, mask)
        flat = values.reshape(-1, values.shape[-1])
        everything = len(batch.take) == len(flat) and bool((np.diff(batch.take) == 1).all())
        return flat if everything else flat[self._send(batch.take)]

    def _send(self, array: NDArray[np.int64]) -> Tensor:
        import torch

        host = torch.from_numpy(array)
        if self.device.type != "cuda":
            return host.to(self.device)
        return host.pin_memory().to(self.device, non_blocking=True)


@dataclass(frozen=True, kw_only=True)
class _Outputs:
    """Which outputs each of N tokens gives.

    Attributes:
        single: The output of each token, -1 if it gives none, shape (N,); None if a token gives several.
        first: Index into ``slot`` of the first output of each token, shape (N + 1,); empty with ``single``.
        slot: The outputs of all tokens, token after token, shape (R,); empty with ``single``.
    """

    single: Ints | None
    first: Ints
    slot: Ints

    @classmethod
    def of(cls, token_R: Ints, *, n_tokens: int) -> _Outputs:
        none = np.zeros(0, dtype=np.int64)
        in_order = len(token_R) < 2 or bool((np.diff(token_R) > 0).all())
        if in_order:
            single = np.full(n_tokens, -1, dtype=np.int64)
            single[token_R] = np.arange(len(token_R))
            return cls(single=single, first=none, slot=none)
        counts = np.bincount(token_R, minlength=n_tokens)
        first = np.concatenate([[0], np.cumsum(counts)])
        return cls(single=None, first=first, slot=np.argsort(token_R, kind="stable"))

    def of_tokens(self, tokens: Ints | slice, inside: Bools | None = None) -> tuple[Ints, Ints]:
        """Find the outputs of M tokens.

        Args:
            tokens: Which tokens, shape (M,).
            inside: False for padding, shape (M,); None: nothing is padded.

        Returns:
            Which of the M tokens gives each of their n outputs, and which outputs these are, ascending; both of shape
            (n,).
        """
        if self.single is not None:
            slot = self.single[tokens]
            wanted = slot >= 0 if inside is None else (slot >= 0) & inside
            take = np.flatnonzero(wanted)
            slot = slot[take]
        else:
            first = self.first[:-1][tokens]
            counts = self.first[1:][tokens] - first
            if inside is not None:
                counts = np.where(inside, counts, 0)
            take = np.repeat(np.arange(len(counts)), counts)
            slot = self.slot[np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(len(take))]
        if not (self.single is not None and isinstance(tokens, slice)) and (np.diff(slot) < 0).any():
            order = np.argsort(slot, kind="stable")  # the order in which they are stored
            return take[order], slot[order]
        return take, slot


def batch_end(sorted_lengths: Ints, first: int, *, budget_tokens: int, equal_lengths: bool = False) -> int:
    """Find the end of the batch that starts with a chunk.

    Args:
        sorted_lengths: Tokens of each chunk, longest first, shape (P,).
        first: Index of the first and longest chunk of the batch.
        budget_tokens: Maximum number of tokens in a batch, padding included. A longer chunk is a batch of its own.
        equal_lengths: Do not mix lengths.

    Returns:
        Index of the first chunk behind the batch.
    """
    longest = int(sorted_lengths[first])
    shortest = longest if equal_lengths else longest - max(longest // _LENGTH_FRACTION, _LENGTH_TOKENS)
    alike = int(np.searchsorted(-sorted_lengths, -shortest, side="right"))
    return min(first + max(1, budget_tokens // longest), alike)
