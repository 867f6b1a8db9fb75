"""Means of token embeddings over windows of nucleotides, for many sequences at once, on the host or on a GPU.

A token may belong to two windows; its part in each is weighted by its nucleotides there. The nucleotides at the end of
a sequence that fill no window have a mean of their own.

>>> windows = Windows.of(np.array([0, 2]), np.array([3, 2]), pool_bp=2)
>>> windows.means_of_array(np.array([[1.0], [4.0]], np.float32)).ravel().tolist(), windows.bp.tolist()
([1.0, 2.5, 4.0], [2, 2, 1])
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.types import Floats, Ints

if TYPE_CHECKING:
    from torch import Tensor

_PIECES_AT_ONCE: Final = 512  # at 300 numbers, 600 kB: the fastest of 512 to 4096 on a CPU with 1 MB of cache per core


@dataclass(frozen=True, kw_only=True)
class Windows:
    """P windows of S sequences, and the pieces of tokens that they consist of.

    Attributes:
        starts: Where the windows of each sequence start, shape (S + 1,).
        bp: Nucleotides of each window, shape (P,).
        token: The token of each piece, shape (n,); None if each token is a nucleotide, which is a piece.
        piece_bp: Nucleotides of each piece, shape (n,).
        first: The first piece of each window, shape (P,).
    """

    starts: Ints
    bp: Ints
    token: Ints | None
    piece_bp: Ints
    first: Ints

    @classmethod
    def of(cls, token_starts: Ints, token_bp: Ints, *, pool_bp: int) -> Windows:
        """Lay out the windows.

        Args:
            token_starts: Where the tokens of each sequence start, shape (S + 1,).
            token_bp: Nucleotides of each token, shape (R,).
            pool_bp: Nucleotides of a window.
        """
        token_ends = np.cumsum(token_bp, dtype=np.int64)
        starts_bp = np.concatenate([[0], token_ends])[token_starts]
        counts = -(-np.diff(starts_bp) // pool_bp)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
        window_starts = np.repeat(starts_bp[:-1], counts) + within * pool_bp
        n_bp = int(starts_bp[-1])
        bp = np.diff(np.append(window_starts, n_bp))
        if len(token_bp) == n_bp:
            return cls(starts=starts, bp=bp, token=None, piece_bp=np.ones(n_bp, np.int64), first=window_starts)
        pieces = np.union1d(token_ends - token_bp, window_starts)
        return cls(
            starts=starts,
            bp=bp,
            token=np.searchsorted(token_ends, pieces, side="right"),
            piece_bp=np.diff(np.append(pieces, n_bp)),
            first=np.searchsorted(pieces, window_starts),
        )

    def means_of_array(self, values_RD: Floats) -> Floats:
        """Return the means of token embeddings on the host, float32, shape (P, D)."""
        return self._on_host(lambda rows: values_RD[rows], values_RD.shape[1])

    def means(self, values_RD: Tensor) -> Tensor:
        """Return the means of token embeddings where they are, float32, shape (P, D).

        Args:
            values_RD: Of any float dtype; means are taken of its float32 values.
        """
        import torch

        device = values_RD.device
        if device.type == "cpu":
            means_PD = self._on_host(lambda rows: values_RD[rows].float().numpy(), values_RD.shape[1])
            return torch.from_numpy(means_PD)
        weighted = values_RD.float()
        if self.token is not None:
            piece_bp = torch.from_numpy(self.piece_bp).to(device).float()
            weighted = weighted[torch.from_numpy(self.token).to(device)] * piece_bp[:, None]
        lengths = torch.from_numpy(np.diff(np.append(self.first, len(self.piece_bp)))).to(device)
        sums = torch.segment_reduce(weighted, "sum", lengths=lengths, axis=0)
        return sums / torch.from_numpy(self.bp).to(device)[:, None]

    def _on_host(self, read: Callable[[slice | Ints], Floats], width: int) -> Floats:
        """Compute the means some windows at a time, so that the rows of these stay in the caches of a CPU.

        Args:
            read: Returns some rows, by their numbers.
            width: D.
        """
        means_PD = np.empty((len(self.bp), width), np.float32)
        ends = np.append(self.first[1:], len(self.piece_bp))
        low = 0
        while low < len(self.first):
            high = max(low + 1, int(np.searchsorted(ends, self.first[low] + _PIECES_AT_ONCE, side="right")))
            pieces = slice(int(self.first[low]), int(ends[high - 1]))
            if self.token is None:
                weighted = read(pieces)
            else:
                weighted = read(self.token[pieces]) * self.piece_bp[pieces].astype(np.float32)[:, None]
            sums = np.add.reduceat(weighted, self.first[low:high] - pieces.start, axis=0, dtype=np.float32)
            np.divide(sums, self.bp[low:high, None], out=means_PD[low:high], dtype=np.float32)
            low = high
        return means_PD
