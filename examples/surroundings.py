"""A model of your own that sees far and knows little: what the surroundings of each nucleotide are made of.

    bend-hf train --task histone_modification --model examples/surroundings.py

Shares of A, C, G and of CpG within 16, 128 and 1,024 nucleotides; islands and promoters show in them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WINDOWS_BP = (16, 128, 1024)


def embed(sequences: list[str]) -> list[NDArray[np.float32]]:
    """Shares of letters around each nucleotide.

    Args:
        sequences: In upper case.

    Returns:
        For each an array of shape (nucleotides, 12): A, C, G and CpG in each window, 1 for a quarter of its length.
    """
    return [_shares(np.frombuffer(sequence.encode("ascii"), np.uint8)) for sequence in sequences]


def _shares(letters: NDArray[np.uint8]) -> NDArray[np.float32]:
    n = len(letters)
    is_c, is_g = letters == ord("C"), letters == ord("G")
    marks = np.stack([letters == ord("A"), is_c, is_g, is_c & np.append(is_g[1:], False)], axis=1)
    below = np.concatenate([np.zeros((1, 4)), np.cumsum(marks, axis=0)])
    columns = []
    for window_bp in WINDOWS_BP:
        low = np.maximum(np.arange(n) - window_bp // 2, 0)
        high = np.minimum(np.arange(n) + window_bp // 2, n)
        columns.append(4 * (below[high] - below[low]) / np.maximum(high - low, 1)[:, None])
    return np.concatenate(columns, axis=1).astype(np.float32)
