"""Random bits that are a pure function of seed, purpose, step and row: nothing to store, nothing to hand around.

For the sampler and the masks; any process can draw any rows of any step, and resuming needs only the step:

>>> whole = words(Stream.WINDOWS, seed=7, step=3, n_rows=6)
>>> bool((words(Stream.WINDOWS, seed=7, step=3, first_row=4, n_rows=2) == whole[4:]).all())
True
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Words: TypeAlias = NDArray[np.uint64]

_WORDS_PER_BLOCK: Final = 4  # Philox4x64 gives four words for each value of its counter (numpy.random.Philox)


class Stream(IntEnum):
    """What the bits are for; two purposes never share any."""

    WINDOWS = 1
    MASKS = 2
    VALIDATION_MASKS = 3
    BLOCKS = 4


def words(stream: Stream, *, seed: int, n_rows: int, step: int = 0, first_row: int = 0, n_words: int = 1) -> Words:
    """Uniform 64-bit words for some rows of a step.

    The bits come straight from the counter-based generator Philox4x64-10 (Salmon et al. 2011, SC11), whose counter
    holds purpose, step, row and word; unlike numpy's distributions these are the same in every release.

    Args:
        stream: What they are for.
        seed: 0 or more.
        n_rows: How many rows.
        step: Which step, 0 or more.
        first_row: The first of the rows, counted within the step.
        n_words: How many words a row.

    Returns:
        Words, shape (n_rows, n_words).
    """
    blocks_per_row = -(-n_words // _WORDS_PER_BLOCK)
    counter = np.array([first_row * blocks_per_row, 0, step, stream], np.uint64)
    generator = np.random.Philox(key=np.array([seed, 0], np.uint64), counter=counter)
    drawn: Words = generator.random_raw(n_rows * blocks_per_row * _WORDS_PER_BLOCK)
    return drawn.reshape(n_rows, blocks_per_row * _WORDS_PER_BLOCK)[:, :n_words]
