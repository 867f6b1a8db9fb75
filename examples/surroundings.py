"""A user's model that learns nothing but sees far: the composition of the sequence around each nucleotide.

    bend-hf train --task histone_modification --model examples/surroundings.py

The embedding holds the fractions of A, C, G and CpG within 16, 128 and 1,024 bp, which reveal CpG islands and
promoters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WINDOWS_BP = (16, 128, 1024)


def embed(sequences: list[str]) -> list[NDArray[np.float32]]:
    """Compute the composition around each nucleotide.

    Args:
        sequences: Upper-case sequences.

    Returns:
        For each sequence an array of shape (nucleotides, 12): four times the fractions of A, C, G and CpG in each
        window.
    """
    return [_composition(np.frombuffer(sequence.encode("ascii"), np.uint8)) for sequence in sequences]


def _composition(sequence: NDArray[np.uint8]) -> NDArray[np.float32]:
    n = len(sequence)
    is_c, is_g = sequence == ord("C"), sequence == ord("G")
    found = np.stack([sequence == ord("A"), is_c, is_g, is_c & np.append(is_g[1:], False)], axis=1)
    counts = np.concatenate([np.zeros((1, 4)), np.cumsum(found, axis=0)])
    columns = []
    for window_bp in WINDOWS_BP:
        low = np.maximum(np.arange(n) - window_bp // 2, 0)
        high = np.minimum(np.arange(n) + window_bp // 2, n)
        columns.append(4 * (counts[high] - counts[low]) / np.maximum(high - low, 1)[:, None])
    return np.concatenate(columns, axis=1).astype(np.float32)
