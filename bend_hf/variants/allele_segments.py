"""Cosine distance of two alleles' embeddings along the sequence, computed on the device.

Both alleles have as many nucleotides, but their tokens may differ. The sequence is cut into segments over which
neither allele's embedding changes, so that each pair of embeddings is compared once and counts by its nucleotides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.types import Ints
from bend_hf.variants.allele_embeddings import EmbeddingsOnDevice

if TYPE_CHECKING:
    from torch import Tensor

_USUAL_NORMS: Final = (1e-15, 1e15)  # whose squares neither vanish nor overflow in float32
_BLOCK_NUMBERS: Final = 1 << 22  # numbers that are compared at a time, few enough to stay in a cache


@dataclass(frozen=True, kw_only=True)
class SegmentDistances:
    """The segments of n pairs of alleles, pair after pair.

    Attributes:
        pair: Which pair each segment belongs to, shape (segments,).
        start_bp: Where it starts in its sequence, shape (segments,).
        end_bp: Where it ends, shape (segments,).
        distance: Cosine distance of the two embeddings, float64, shape (segments,).
        n_pairs: Number of pairs.
    """

    pair: Ints
    start_bp: Ints
    end_bp: Ints
    distance: NDArray[np.float64]
    n_pairs: int

    @classmethod
    def of(cls, embeddings: EmbeddingsOnDevice, ref: Ints, alt: Ints) -> SegmentDistances:
        """Compare the embeddings of two sequences of equal length, for n pairs.

        Args:
            embeddings: Embeddings of all sequences.
            ref: Index of the sequence with the reference allele, shape (n,).
            alt: Index of the sequence with the alternative allele, shape (n,).
        """
        segments = _segments(embeddings, ref, alt)
        return cls(
            pair=segments.pair,
            start_bp=segments.start_bp,
            end_bp=segments.end_bp,
            distance=_distances(embeddings.values, segments),
            n_pairs=len(ref),
        )

    def mean(self) -> NDArray[np.float64]:
        """Average over the nucleotides of each sequence, shape (n,)."""
        return self._weighted(self.end_bp - self.start_bp)

    def mean_around(self, offset_bp: Ints, window_bp: int) -> NDArray[np.float64]:
        """Average over a position and the nucleotides around it, as far as the sequence reaches.

        Args:
            offset_bp: The position in each pair, shape (n,).
            window_bp: Nucleotides on each side of it.

        Returns:
            Shape (n,).
        """
        low, high = offset_bp - window_bp, offset_bp + window_bp + 1
        n_bp = np.minimum(self.end_bp, high[self.pair]) - np.maximum(self.start_bp, low[self.pair])
        return self._weighted(np.maximum(n_bp, 0))

    def _weighted(self, n_bp: Ints) -> NDArray[np.float64]:
        total = np.bincount(self.pair, self.distance * n_bp, self.n_pairs)
        mean: NDArray[np.float64] = total / np.maximum(np.bincount(self.pair, n_bp, self.n_pairs), 1)
        return mean


@dataclass(frozen=True, kw_only=True)
class _Segments:
    """Index of both alleles' embeddings in each segment, its pair, and its place in the sequence."""

    ref_index: Ints
    alt_index: Ints
    pair: Ints
    start_bp: Ints
    end_bp: Ints


def _segments(embeddings: EmbeddingsOnDevice, ref: Ints, alt: Ints) -> _Segments:
    starts_bp, ends_bp = embeddings.starts_bp(), embeddings.ends_bp()
    lengths_bp = np.diff(starts_bp)[ref]
    pair_ends = np.cumsum(lengths_bp)
    pair_starts = pair_ends - lengths_bp

    def laid_out(sequence: Ints) -> tuple[Ints, Ints]:
        """Return the embeddings of each pair's sequence, and where they end counted through all pairs."""
        counts = np.diff(embeddings.starts)[sequence]
        first = np.repeat(np.cumsum(counts) - counts, counts)
        index = np.repeat(embeddings.starts[sequence], counts) + np.arange(counts.sum()) - first
        return index, ends_bp[index] + np.repeat(pair_starts - starts_bp[sequence], counts)

    ref_index, ref_end = laid_out(ref)
    alt_index, alt_end = laid_out(alt)
    if len(ref_end) == len(alt_end) and (ref_end == alt_end).all():
        end = ref_end
    else:
        end = np.union1d(ref_end, alt_end)
        ref_index, alt_index = ref_index[np.searchsorted(ref_end, end)], alt_index[np.searchsorted(alt_end, end)]
    pair = np.searchsorted(pair_ends, end)
    start = np.concatenate([[0], end[:-1]])
    return _Segments(
        ref_index=ref_index,
        alt_index=alt_index,
        pair=pair,
        start_bp=start - pair_starts[pair],
        end_bp=end - pair_starts[pair],
    )


def _distances(values: Tensor, segments: _Segments) -> NDArray[np.float64]:
    """Compute half the squared distance of unit vectors, which is one minus their cosine and exact at 0."""
    import torch

    with torch.inference_mode():
        norms = values.norm(dim=1, keepdim=True)
        unusual = ~((norms > _USUAL_NORMS[0]) & (norms < _USUAL_NORMS[1]))
        if unusual.any():
            largest = values.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
            values = torch.where(unusual, values / largest, values)
            norms = values.norm(dim=1, keepdim=True)
        unit = values / norms.clamp(min=torch.finfo(values.dtype).tiny)
        is_zero = norms[:, 0] == 0
        block = max(1, _BLOCK_NUMBERS // values.shape[1])
        found = []
        for at in range(0, len(segments.pair), block):
            a, b = (
                torch.from_numpy(index[at : at + block]).to(values.device)
                for index in (segments.ref_index, segments.alt_index)
            )
            half = (unit[a] - unit[b]).square_().sum(dim=1) / 2
            found.append(torch.where(is_zero[a] ^ is_zero[b], 1.0, half).cpu().numpy())
    return np.concatenate(found).astype(np.float64)
