"""A model of your own in a few lines: every word of six letters has a vector, drawn once from a seed.

    bend-hf train --task histone_modification --model examples/random_sixmers.py

Nothing is learned in it, so it shows what the head alone makes of words; a trained model should do better.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WIDTH = 16
_TABLE = np.random.default_rng(0).standard_normal((4**6 + 1, WIDTH)).astype(np.float32)
_LETTER = np.full(256, -1, np.int64)
_LETTER[np.frombuffer(b"ACGT", np.uint8)] = np.arange(4)


def embed(sequences: list[str]) -> list[NDArray[np.float32]]:
    """The vector of the word that begins two letters before each nucleotide.

    Args:
        sequences: In upper case.

    Returns:
        For each an array of shape (nucleotides, 16); words with another letter than A C G T, or past an end, have
        the table's last row.
    """
    return [_TABLE[_words(sequence)] for sequence in sequences]


def _words(sequence: str) -> NDArray[np.int64]:
    letters = np.full(len(sequence) + 5, -1, np.int64)
    letters[2 : 2 + len(sequence)] = _LETTER[np.frombuffer(sequence.encode("ascii"), np.uint8)]
    windows = np.lib.stride_tricks.sliding_window_view(letters, 6)
    return np.where((windows < 0).any(axis=1), len(_TABLE) - 1, windows @ 4 ** np.arange(6))
