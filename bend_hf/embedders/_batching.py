"""Runs a model over many pieces of different lengths: batches by token budget, results in the order asked for.

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

# ids (B, T) and mask (B, T) or None in, (B, T, K) out, all on the device.
BatchFunction: TypeAlias = "Callable[[Tensor, Tensor | None], Tensor]"

# Tokens in a batch that are tried out, the usual best first. Measured on two CPU cores: 1,000 to 4,000 are best, more
# loses on small models. On a GPU more fills it.
CANDIDATE_TOKENS: Final[dict[str, tuple[int, ...]]] = {
    "cpu": (2048, 1024, 4096),
    "cuda": (32768, 16384, 65536, 131072),
    "mps": (8192, 4096, 16384),
}
_TRIALS: Final = 2  # batches of each size that are timed; the faster counts
_FULL: Final = 0.9  # a batch that fills less of its budget says nothing about it
_WORTH_MORE: Final = 1.03  # another size must be that much faster than the usual one to be taken
_LEAST_TOKENS: Final = 512
_LIKE: Final = 8  # pieces share a batch when they are shorter than its longest by an eighth at most ...
_SHORT_TOKENS: Final = 16  # ... or by that many tokens: padding is computed like any token


class BudgetTrials:
    """Finds the fastest batch size by timing the first full batches of the work itself."""

    def __init__(self, candidates: Sequence[int]) -> None:
        self._candidates = list(candidates)
        self._rates: dict[int, list[float]] = {candidate: [] for candidate in candidates}

    @property
    def decided(self) -> bool:
        """Whether each size has been timed."""
        return all(len(rates) >= _TRIALS for rates in self._rates.values())

    @property
    def budget(self) -> int:
        """The size to try next, or the fastest of all."""
        for candidate, rates in self._rates.items():
            if len(rates) < _TRIALS:
                return candidate
        usual, *others = self._rates
        best = max(others, key=lambda candidate: max(self._rates[candidate]), default=usual)
        return best if max(self._rates[best]) > _WORTH_MORE * max(self._rates[usual]) else usual

    def record(self, n_tokens: int, seconds: float) -> None:
        """Say how long a batch took that was made for ``budget``."""
        budget = self.budget
        if n_tokens >= _FULL * budget:
            self._rates[budget].append(n_tokens / max(seconds, 1e-9))

    def out_of_memory(self) -> bool:
        """Strike off the size tried now and all larger ones; False where none would be left."""
        left = {candidate: rates for candidate, rates in self._rates.items() if candidate < self.budget}
        self._rates = left or self._rates
        return bool(left)


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Host side of one batch: ids (B, T), mask (B, T) or None, and which of its B * T tokens are wanted, where."""

    ids: NDArray[np.int64]
    mask: NDArray[np.int64] | None
    take: Ints
    slots: Ints


class BatchRunner:
    """Runs a batch function over the pieces of tokenized sequences.

    Args:
        device: Where the function runs.
        pad_id: Token id of padding.
        batch_tokens: Tokens in a batch, padding included; None: the fastest of some, found by trial.
        equal_lengths: Only pieces of one length share a batch, so that nothing is padded.
    """

    def __init__(self, *, device: torch.device, pad_id: int, batch_tokens: int | None, equal_lengths: bool) -> None:
        self.device = device
        self.pad_id = pad_id
        self.batch_tokens = batch_tokens
        self.equal_lengths = equal_lengths
        self.trials: dict[int, BudgetTrials] = {}

    @property
    def usual_tokens(self) -> int:
        """Tokens in a batch, before anything was tried out."""
        return self.batch_tokens or CANDIDATE_TOKENS[self.device.type][0]

    @contextmanager
    def fixed(self) -> Iterator[None]:
        """Keeps to the usual batch size instead of the fastest by trial, so that any process makes the same bytes."""
        asked, self.batch_tokens = self.batch_tokens, self.usual_tokens
        try:
            yield
        finally:
            self.batch_tokens = asked

    def halve(self) -> bool:
        """Half as many tokens in a batch from now on; False where that would be too few to be worth it."""
        if self.usual_tokens <= _LEAST_TOKENS:
            return False
        self.batch_tokens = self.usual_tokens // 2
        return True

    def run(self, tokenized: Tokenized, wanted: Bools, function: BatchFunction) -> Floats:
        """The function's values for the wanted tokens.

        Args:
            tokenized: The pieces.
            wanted: Which tokens, shape (N,).
            function: From a batch to K values a token.

        Returns:
            Shape (wanted tokens, K), in the order of the tokens.
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
        """Of pieces of about that length: short ones and long ones have different best sizes."""
        candidates = CANDIDATE_TOKENS[self.device.type]
        return self.trials.setdefault(longest.bit_length(), BudgetTrials(candidates))

    def _assemble(self, tokenized: Tokenized, pieces: Ints, lengths: Ints, wanted: Bools, slot_of: Ints) -> _Batch:
        n_tokens = lengths[pieces]
        longest = int(n_tokens.max())
        inside = np.arange(longest) < n_tokens[:, None]
        index = np.where(inside, tokenized.chunk_starts[pieces][:, None] + np.arange(longest), 0)
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
        landed = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
        landed.copy_(flat, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(self.device))
        return _Pending(values=landed, slots=batch.slots, done=done)

    def _send(self, array: NDArray[np.int64]) -> Tensor:
        import torch

        host = torch.from_numpy(array)
        if self.device.type != "cuda":
            return host.to(self.device)
        return host.pin_memory().to(self.device, non_blocking=True)


@dataclass(frozen=True, kw_only=True)
class _Pending:
    """Values on their way from the device."""

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
    """Where the batch that begins with a piece ends.

    Args:
        sorted_lengths: Tokens of each piece, longest first, shape (P,).
        first: The batch's first and longest piece.
        budget_tokens: Most tokens in a batch, padding included; a longer piece goes alone.
        equal_lengths: Never mix lengths.

    Returns:
        Index of the first piece behind the batch.
    """
    longest = int(sorted_lengths[first])
    shortest = longest if equal_lengths else longest - max(longest // _LIKE, _SHORT_TOKENS)
    alike = int(np.searchsorted(-sorted_lengths, -shortest, side="right"))
    return min(first + max(1, budget_tokens // longest), alike)
