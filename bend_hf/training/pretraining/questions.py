"""What a language model is asked about a batch of windows: inputs, the places of the answers, the answers, weights.

Masked and causal models differ here and nowhere else.

>>> asked = next_letters(np.array([[0, 1, 4, 3]], np.uint8), np.ones((1, 4), np.float32))
>>> asked.place_N.tolist(), asked.answer_N.tolist()
([0, 2], [1, 3])
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bend_hf.shapes import Bools, Bytes, Floats, Ints
from bend_hf.training.pretraining.config import PretrainConfig
from bend_hf.training.pretraining.letters import OTHER
from bend_hf.training.pretraining.masking import Masked, mask, validation_mask, weights
from bend_hf.training.pretraining.windows import Windows


@dataclass(frozen=True, kw_only=True)
class Questions:
    """One part of a batch; N answers are wanted.

    Attributes:
        inputs_BL: 0 to 3 for A, C, G and T, 4 for other letters, 5 where one is hidden, shape (batch, nucleotides).
        place_N: Whose hidden state has to tell, counted through the flattened batch, shape (N,).
        answer_N: The letter, 0 to 3, shape (N,).
        weight_N: What it counts in the loss, shape (N,).
    """

    inputs_BL: Bytes
    place_N: Ints
    answer_N: Bytes
    weight_N: Floats

    def parts(self, n_parts: int) -> Iterator[Questions]:
        """The same in so many parts of about as many rows each; a part may be empty where there are few rows."""
        n_rows, width = self.inputs_BL.shape
        for rows in np.array_split(np.arange(n_rows), n_parts):
            low, high = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
            first, last = np.searchsorted(self.place_N, [low * width, high * width])
            yield Questions(
                inputs_BL=self.inputs_BL[low:high],
                place_N=self.place_N[first:last] - low * width,
                answer_N=self.answer_N[first:last],
                weight_N=self.weight_N[first:last],
            )


def hidden_letters(codes_BL: Bytes, masked: Masked, weight_BL: Floats) -> Questions:
    """What was chosen is asked for where it stands."""
    place_N = np.flatnonzero(masked.chosen_BL)
    return Questions(
        inputs_BL=masked.inputs_BL,
        place_N=place_N,
        answer_N=codes_BL.ravel()[place_N],
        weight_N=weight_BL.ravel()[place_N],
    )


def next_letters(codes_BL: Bytes, weight_BL: Floats) -> Questions:
    """Each known letter but the first of a window is asked for one place before it."""
    wanted_BL: Bools = codes_BL < OTHER
    wanted_BL[:, 0] = False
    letter_N = np.flatnonzero(wanted_BL)
    return Questions(
        inputs_BL=codes_BL,
        place_N=letter_N - 1,
        answer_N=codes_BL.ravel()[letter_N],
        weight_N=weight_BL.ravel()[letter_N],
    )


def training_questions(config: PretrainConfig, windows: Windows, *, step: int, first_row: int) -> Questions:
    """What a step asks about some rows of its batch.

    Args:
        config: Objective, masking rate, seed and weight of repeats.
        windows: The rows.
        step: Which step.
        first_row: Place of the first of these rows in the whole batch of the step.
    """
    codes_BL = windows.codes_BL
    if config.objective == "causal":
        everything = np.ones(codes_BL.shape, np.bool_)
        return next_letters(codes_BL, weights(everything, windows.repeats_BL, config.repeat_weight))
    masked = mask(codes_BL, rate=config.mask_rate, seed=config.seed, step=step, first_row=first_row)
    return hidden_letters(codes_BL, masked, weights(masked.chosen_BL, windows.repeats_BL, config.repeat_weight))


def validation_questions(config: PretrainConfig, codes_BL: Bytes, *, first_row: int) -> Questions:
    """What is asked about held-out windows: always the same, repeats counting like all else."""
    if config.objective == "causal":
        return next_letters(codes_BL, np.ones(codes_BL.shape, np.float32))
    masked = validation_mask(codes_BL, rate=config.mask_rate, seed=config.seed, first_row=first_row)
    return hidden_letters(codes_BL, masked, np.ones(codes_BL.shape, np.float32))
