"""Which letters a masked language model has to guess, and what it sees in their place.

For the training loop; the mask of a row depends on seed, step and row alone, however a batch is cut over processes:

>>> codes_BL = np.zeros((2, 8), np.uint8)
>>> whole = mask(codes_BL, rate=0.5, seed=1, step=9)
>>> bool((mask(codes_BL[1:], rate=0.5, seed=1, step=9, first_row=1).inputs_BL == whole.inputs_BL[1:]).all())
True
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from bend_hf.shapes import Bools, Bytes, Floats
from bend_hf.training.pretraining.letters import LETTERS, OTHER
from bend_hf.training.pretraining.streams import Stream, Words, words

MASK: Final = 5

# Devlin et al. 2019, BERT (doi 10.18653/v1/N19-1423), section 3.1: 15 % of the positions are chosen; of these 80 %
# become [MASK], 10 % a random token and 10 % stay as they are.
RATE: Final = 0.15
MASKED_SHARE: Final = 0.8
RANDOM_SHARE: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Masked:
    """A batch as a masked language model sees it.

    Attributes:
        inputs_BL: 0 to 3 for A, C, G and T, 4 for any other letter, 5 for MASK, shape (batch, nucleotides).
        chosen_BL: The letters to be guessed, shape (batch, nucleotides).
    """

    inputs_BL: Bytes
    chosen_BL: Bools


def mask(codes_BL: Bytes, *, rate: float = RATE, seed: int, step: int, first_row: int = 0) -> Masked:
    """Choose letters to be guessed in a training batch, and hide most of them as BERT does.

    Each letter is chosen by itself with probability ``rate``; one that is not A, C, G or T never is. A random letter
    is drawn from all four, so that it is the letter itself in a quarter of the cases.

    Args:
        codes_BL: 0 to 3 for A, C, G and T, 4 for any other letter, shape (batch, nucleotides).
        rate: Share of the letters to choose, above 0 and at most 1.
        seed: 0 or more.
        step: Which training step.
        first_row: Place of the first of these rows in the whole batch of the step.
    """
    chances = _chances(codes_BL, rate, Stream.MASKS, seed, step, first_row)
    chosen_BL = (chances < _threshold(rate)) & (codes_BL < OTHER)
    hidden_BL = chosen_BL & (chances < _threshold(rate * MASKED_SHARE))
    random_BL = chosen_BL & ~hidden_BL & (chances < _threshold(rate * (MASKED_SHARE + RANDOM_SHARE)))
    inputs_BL = codes_BL.copy()
    inputs_BL[hidden_BL] = MASK
    inputs_BL[random_BL] = chances[random_BL] % len(LETTERS)
    return Masked(inputs_BL=inputs_BL, chosen_BL=chosen_BL)


def validation_mask(codes_BL: Bytes, *, rate: float = RATE, seed: int, first_row: int = 0) -> Masked:
    """Choose letters of the held-out windows, the same ones whenever they are asked for, and hide all of them.

    None is left as it is or replaced by another letter: what is scored is the guess of a letter that is not seen, as
    it is in a table of the letters on both sides, so that the two perplexities can be compared.

    Args:
        codes_BL: Held-out windows, as in `mask`, shape (batch, nucleotides).
        rate: Share of the letters to choose, above 0 and at most 1.
        seed: 0 or more.
        first_row: Place of the first of these rows among all held-out windows.
    """
    chances = _chances(codes_BL, rate, Stream.VALIDATION_MASKS, seed, 0, first_row)
    chosen_BL = (chances < _threshold(rate)) & (codes_BL < OTHER)
    return Masked(inputs_BL=np.where(chosen_BL, np.uint8(MASK), codes_BL), chosen_BL=chosen_BL)


def weights(chosen_BL: Bools, repeats_BL: Bools, repeat_weight: float) -> Floats:
    """How much each letter counts in the loss.

    Args:
        chosen_BL: The letters to be guessed, shape (batch, nucleotides).
        repeats_BL: The letters of repeats, lower case in the FASTA, shape (batch, nucleotides).
        repeat_weight: Weight of a letter of a repeat, others having 1 (GPN gives 0.1; Benegas et al. 2023, PNAS).

    Returns:
        0 where nothing is to be guessed, shape (batch, nucleotides).
    """
    return np.where(repeats_BL, np.float32(repeat_weight), np.float32(1)) * chosen_BL


def _chances(codes_BL: Bytes, rate: float, stream: Stream, seed: int, step: int, first_row: int) -> Words:
    """A uniform 64-bit word for each letter, shape (batch, nucleotides)."""
    if not 0 < rate <= 1:
        raise ValueError(f"the masking rate is {rate}; it must be above 0 and at most 1")
    n_rows, n_words = codes_BL.shape
    return words(stream, seed=seed, step=step, first_row=first_row, n_rows=n_rows, n_words=n_words)


def _threshold(chance: float) -> np.uint64:
    """Below this lies that share of all 64-bit words, but for one in 2^53."""
    return np.uint64(min(int(chance * 2.0**64), 2**64 - 1))
