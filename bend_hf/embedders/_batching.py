"""Runs a model over many pieces of different lengths: batches by token budget, results in the order asked for.

>>> [batch.tolist() for batch in batches_of(np.array([3, 9, 4, 8]), budget_tokens=18)]
[[1, 3], [2, 0]]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._alignment import Tokenized
from bend_hf.shapes import Bools, Floats, Ints

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# ids (B, T) and mask (B, T) or None in, (B, T, K) out, all on the device.
BatchFunction: TypeAlias = "Callable[[Tensor, Tensor | None], Tensor]"

# Measured on two CPU cores: 1,000 to 4,000 tokens are best, more loses on small models. On a GPU more fills it.
_DEFAULT_TOKENS: Final = {"cpu": 2048, "cuda": 32768, "mps": 8192}
_PROBED_TOKENS: Final[dict[str, tuple[int, ...]]] = {
    "cpu": (1024, 2048, 4096),
    "cuda": (16384, 32768, 65536, 131072),
    "mps": (4096, 16384),
}
_PROBE_WORTH: Final = 16  # probe where the work is at least that many of the largest batches tried
_WORTH_MORE: Final = 1.03  # a larger batch must be that much faster to be taken


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
        batch_tokens: Tokens in a batch, padding included; None: probed on long work, a default for short.
        equal_lengths: Only pieces of one length share a batch, so that nothing is padded.
    """

    def __init__(self, *, device: torch.device, pad_id: int, batch_tokens: int | None, equal_lengths: bool) -> None:
        self.device = device
        self.pad_id = pad_id
        self.batch_tokens = batch_tokens
        self.equal_lengths = equal_lengths
        self._probed: dict[int, int] = {}

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

        lengths = np.diff(tokenized.piece_starts)
        slot_of = np.cumsum(wanted) - 1
        n_wanted = int(slot_of[-1]) + 1 if len(slot_of) else 0
        budget = self._budget(tokenized, lengths, function)
        out: Tensor | None = None
        pending: _Pending | None = None
        with torch.inference_mode():
            for pieces in batches_of(lengths, budget_tokens=budget, equal_lengths=self.equal_lengths):
                batch = self._assemble(tokenized, pieces, lengths, wanted, slot_of)
                launched = self._launch(batch, function)
                if out is None:
                    out = torch.empty((n_wanted, launched.values.shape[-1]), dtype=torch.float32)
                if pending is not None:
                    pending.finish(out)
                pending = launched
            if pending is not None and out is not None:
                pending.finish(out)
        return out.numpy() if out is not None else np.zeros((0, 0), dtype=np.float32)

    def _assemble(self, tokenized: Tokenized, pieces: Ints, lengths: Ints, wanted: Bools, slot_of: Ints) -> _Batch:
        n_tokens = lengths[pieces]
        longest = int(n_tokens.max())
        inside = np.arange(longest) < n_tokens[:, None]
        index = np.where(inside, tokenized.piece_starts[pieces][:, None] + np.arange(longest), 0)
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

    def _budget(self, tokenized: Tokenized, lengths: Ints, function: BatchFunction) -> int:
        if self.batch_tokens is not None:
            return self.batch_tokens
        candidates = _PROBED_TOKENS[self.device.type]
        if lengths.sum() < _PROBE_WORTH * candidates[-1]:
            return _DEFAULT_TOKENS[self.device.type]
        bucket = int(np.median(lengths)).bit_length()
        if bucket not in self._probed:
            self._probed[bucket] = self._probe(tokenized, lengths, function, candidates)
        return self._probed[bucket]

    def _probe(self, tokenized: Tokenized, lengths: Ints, function: BatchFunction, candidates: Sequence[int]) -> int:
        """The fastest of some batch sizes on pieces of the middle length."""
        import torch

        everything = np.ones(len(tokenized.ids), dtype=np.bool_)
        slot_of = np.zeros(len(tokenized.ids), dtype=np.int64)
        middle = np.argsort(lengths, kind="stable")[len(lengths) // 2 :]
        best, best_rate = candidates[0], 0.0
        for candidate in candidates:
            pieces = middle[: max(1, candidate // int(lengths[middle[0]]))]
            batch = self._assemble(tokenized, pieces, lengths, everything, slot_of)
            try:
                with torch.inference_mode():
                    seconds = [self._time(batch, function) for _ in range(3)][1:]
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
                break
            rate = lengths[pieces].sum() / min(seconds)
            if rate > best_rate * _WORTH_MORE:
                best, best_rate = candidate, rate
        return best

    def _time(self, batch: _Batch, function: BatchFunction) -> float:
        import torch

        start = time.perf_counter()
        self._launch(batch, function).wait()
        if self.device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter() - start


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


def batches_of(lengths: Ints, *, budget_tokens: int, equal_lengths: bool = False) -> Iterator[Ints]:
    """Pieces in batches, longest first, so that a batch holds pieces of like lengths.

    Args:
        lengths: Tokens of each piece, shape (P,).
        budget_tokens: Most tokens in a batch, padding included; a longer piece goes alone.
        equal_lengths: Never mix lengths.

    Yields:
        Indices of the pieces of one batch.
    """
    order = np.argsort(-lengths, kind="stable")
    sorted_lengths = lengths[order]
    first = 0
    while first < len(order):
        longest = int(sorted_lengths[first])
        last = min(first + max(1, budget_tokens // longest), len(order))
        if equal_lengths:
            same = int(np.searchsorted(-sorted_lengths, -longest, side="right"))
            last = min(last, same)
        yield order[first:last]
        first = last
