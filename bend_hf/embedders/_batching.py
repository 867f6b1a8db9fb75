"""Run a model over many chunks of different lengths.

Chunks are sorted by length. A batch holds chunks of similar length, as many as fit a budget of tokens, padding
included. ``BudgetTrials`` finds the fastest budget on the first batches, unless the user fixes it. ``BatchRunner``
returns values in the order of the tokens, whatever the order of the batches.

The chunks of 90 and 88 tokens share a batch, the one of 30 tokens is too short for it; with a budget of 90 tokens the
first chunk is a batch of its own:

>>> batch_end(np.array([90, 88, 30, 9]), 0, budget_tokens=1000), batch_end(np.array([90, 88]), 0, budget_tokens=90)
(2, 1)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._alignment import Tokenized
from bend_hf.types import Bools, Floats, Ints

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# From ids (B, T) and mask (B, T) or None to values (B, T, K), all on the device.
BatchFunction: TypeAlias = "Callable[[Tensor, Tensor | None], Tensor]"

# Budgets that are tried, in tokens; the first is the default. Measured on two CPU cores: 1,000 to 4,000 tokens are
# fastest, larger batches are slower for small models. A GPU needs more to be busy.
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


class BudgetTrials:
    """Find the fastest token budget by timing the first full batches of the real work."""

    def __init__(self, candidates: Sequence[int]) -> None:
        self._candidates = list(candidates)
        self._rates: dict[int, list[float]] = {candidate: [] for candidate in candidates}

    @property
    def decided(self) -> bool:
        """Whether every budget has been timed."""
        return all(len(rates) >= _TRIALS for rates in self._rates.values())

    @property
    def budget(self) -> int:
        """The budget to try next, or the fastest one once all are timed."""
        for candidate, rates in self._rates.items():
            if len(rates) < _TRIALS:
                return candidate
        default, *others = self._rates
        best = max(others, key=lambda candidate: max(self._rates[candidate]), default=default)
        return best if max(self._rates[best]) > _MIN_GAIN * max(self._rates[default]) else default

    def record(self, n_tokens: int, seconds: float) -> None:
        """Record the seconds of a batch that was made for ``budget``."""
        budget = self.budget
        if n_tokens >= _FULL * budget:
            self._rates[budget].append(n_tokens / max(seconds, 1e-9))

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
        take: Which of the B * T tokens are wanted.
        slots: Index of each wanted token in the result.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.int64] | None
    take: Ints
    slots: Ints


class BatchRunner:
    """Run a function over the chunks of tokenized sequences, batch by batch.

    Args:
        device: Device of the model.
        pad_id: Token id of padding.
        batch_tokens: Tokens in a batch, padding included; None: the fastest of several budgets, found by trial.
        equal_lengths: Batch only chunks of equal length, so that nothing is padded.
    """

    def __init__(self, *, device: torch.device, pad_id: int, batch_tokens: int | None, equal_lengths: bool) -> None:
        self.device = device
        self.pad_id = pad_id
        self.batch_tokens = batch_tokens
        self.equal_lengths = equal_lengths
        self.trials: dict[int, BudgetTrials] = {}

    @property
    def default_tokens(self) -> int:
        """Tokens in a batch before any trial."""
        return self.batch_tokens or CANDIDATE_TOKENS[self.device.type][0]

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

    def run(self, tokenized: Tokenized, wanted: Bools, function: BatchFunction) -> Floats:
        """Compute values for the wanted tokens.

        Args:
            tokenized: The chunks.
            wanted: Which tokens to return, shape (N,).
            function: Computes K values per token of a batch.

        Returns:
            Float32, shape (wanted tokens, K), in the order of the tokens.
        """
        import torch

        lengths = np.diff(tokenized.chunk_starts)
        slot_of = np.cumsum(wanted) - 1
        n_wanted = int(slot_of[-1]) + 1 if len(slot_of) else 0
        order = np.argsort(-lengths, kind="stable")
        ordered = lengths[order]
        out: Tensor | None = None
        pending: _Pending | None = None
        first = 0
        with torch.inference_mode():
            while first < len(order):
                trials = self._trials_for(int(ordered[first]))
                budget = self.batch_tokens or trials.budget
                last = batch_end(ordered, first, budget_tokens=budget, equal_lengths=self.equal_lengths)
                batch = self._assemble(tokenized, order[first:last], lengths, wanted, slot_of)
                start = time.perf_counter()
                try:
                    launched = self._launch(batch, function)
                except torch.cuda.OutOfMemoryError:
                    if self.batch_tokens is not None or not trials.out_of_memory():
                        raise
                    torch.cuda.empty_cache()
                    continue
                if self.batch_tokens is None and not trials.decided:
                    launched.wait()
                    trials.record(batch.ids.size, time.perf_counter() - start)
                if out is None:
                    out = torch.empty((n_wanted, launched.values.shape[-1]), dtype=torch.float32)
                if pending is not None:
                    pending.finish(out)
                pending = launched
                first = last
            if pending is not None and out is not None:
                pending.finish(out)
        return out.numpy() if out is not None else np.zeros((0, 0), dtype=np.float32)

    def _trials_for(self, longest: int) -> BudgetTrials:
        """Return the trials for chunks of about this length: short and long chunks have different best budgets."""
        candidates = CANDIDATE_TOKENS[self.device.type]
        return self.trials.setdefault(longest.bit_length(), BudgetTrials(candidates))

    def _assemble(self, tokenized: Tokenized, chunks: Ints, lengths: Ints, wanted: Bools, slot_of: Ints) -> _Batch:
        n_tokens = lengths[chunks]
        longest = int(n_tokens.max())
        inside = np.arange(longest) < n_tokens[:, None]
        index = np.where(inside, tokenized.chunk_starts[chunks][:, None] + np.arange(longest), 0)
        take = np.flatnonzero(inside & wanted[index])
        padded = bool(n_tokens.min() < longest)
        return _Batch(
            ids=np.where(inside, tokenized.ids[index], self.pad_id).astype(np.int64),
            mask=inside.astype(np.int64) if padded else None,
            take=take,
            slots=slot_of[index.reshape(-1)[take]],
        )

    def _launch(self, batch: _Batch, function: BatchFunction) -> _Pending:
        import torch

        ids = self._send(batch.ids)
        values = function(ids, None if batch.mask is None else self._send(batch.mask))
        flat = values.reshape(-1, values.shape[-1])
        if len(batch.take) < len(flat):
            flat = flat[self._send(batch.take)]
        if self.device.type != "cuda":
            return _Pending(values=flat.cpu(), slots=batch.slots, done=None)
        copied = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
        copied.copy_(flat, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch does not annotate it
        done.record(torch.cuda.current_stream(self.device))
        return _Pending(values=copied, slots=batch.slots, done=done)

    def _send(self, array: NDArray[np.int64]) -> Tensor:
        import torch

        host = torch.from_numpy(array)
        if self.device.type != "cuda":
            return host.to(self.device)
        return host.pin_memory().to(self.device, non_blocking=True)


@dataclass(frozen=True, kw_only=True)
class _Pending:
    """Values that are being copied from the device."""

    values: Tensor
    slots: Ints
    done: torch.cuda.Event | None

    def wait(self) -> None:
        if self.done is not None:
            self.done.synchronize()

    def finish(self, out: Tensor) -> None:
        import torch

        self.wait()
        out[torch.from_numpy(self.slots)] = self.values.float()


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
