"""A user's model in a few lines: every 6-mer has a random vector, drawn once from a seed.

    bend-hf train --task histone_modification --model examples/random_sixmers.py

The model learns nothing. Its score shows what a head alone can make of 6-mers; a trained model should do better.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WIDTH = 16
_TABLE = np.random.default_rng(0).standard_normal((4**6 + 1, WIDTH)).astype(np.float32)
_CODE = np.full(256, -1, np.int64)
_CODE[np.frombuffer(b"ACGT", np.uint8)] = np.arange(4)


def embed(sequences: list[str]) -> list[NDArray[np.float32]]:
    """Look up the vector of the 6-mer that starts two nucleotides before each nucleotide.

    Args:
        sequences: Upper-case sequences.

    Returns:
        For each sequence an array of shape (nucleotides, 16). 6-mers with another character than A, C, G and T, or
        that extend past an end, have the last vector of the table.
    """
    return [_TABLE[_kmers(sequence)] for sequence in sequences]


def _kmers(sequence: str) -> NDArray[np.int64]:
    codes = np.full(len(sequence) + 5, -1, np.int64)
    codes[2 : 2 + len(sequence)] = _CODE[np.frombuffer(sequence.encode("ascii"), np.uint8)]
    windows = np.lib.stride_tricks.sliding_window_view(codes, 6)
    return np.where((windows < 0).any(axis=1), len(_TABLE) - 1, windows @ 4 ** np.arange(6))
