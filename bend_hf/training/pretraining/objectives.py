"""A network with the loss of its family: what is given to the optimizer, to Accelerate and to the validation.

>>> from bend_hf.training.pretraining.families import FAMILIES
>>> family = FAMILIES.get("convnet")
>>> Learner(family, family.build(family.resolve(("hidden_size=8",), window_bp=4), seed=0)).place_of_code.tolist()
[3, 4, 5, 6]

What a language model is asked about a batch of windows: inputs, the places of the answers, the answers, weights.

Masked and causal models differ here and nowhere else.

>>> asked = next_letters(np.array([[0, 1, 4, 3]], np.uint8), np.ones((1, 4), np.float32))
>>> asked.place_N.tolist(), asked.answer_N.tolist()
([0, 2], [1, 3])

Which letters a masked language model has to guess, and what it sees in their place.

For the training loop; the mask of a row depends on seed, step and row alone, however a batch is cut over processes:

>>> codes_BL = np.zeros((2, 8), np.uint8)
>>> whole = mask(codes_BL, rate=0.5, seed=1, step=9)
>>> bool((mask(codes_BL[1:], rate=0.5, seed=1, step=9, first_row=1).inputs_BL == whole.inputs_BL[1:]).all())
True
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bend_hf.training.batches import to_device
from bend_hf.training.pretraining.config import PretrainConfig
from bend_hf.training.pretraining.families import Family
from bend_hf.training.pretraining.families._family import N_NUCLEOTIDES
from bend_hf.training.pretraining.nucleotides import LETTERS, OTHER, Stream, Words, words
from bend_hf.training.pretraining.windows import Windows
from bend_hf.types import Bools, Bytes, Floats, Ints

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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


class Learner(nn.Module):
    """Weighted losses of the answers that a network is asked for.

    Args:
        family: Says which tokens the letters are and which compete.
        network: With its language-model head.
    """

    token_of_code: Tensor
    competing: Tensor | None
    place_of_code: Tensor

    def __init__(self, family: Family, network: PreTrainedModel) -> None:
        super().__init__()
        self.family, self.network = family, network
        self.register_buffer("token_of_code", torch.tensor(family.token_ids), persistent=False)
        answers = list(family.token_ids[:N_NUCLEOTIDES])
        competing = None if family.competing is None else torch.tensor(family.competing)
        places = answers if family.competing is None else [family.competing.index(token) for token in answers]
        self.register_buffer("competing", competing, persistent=False)
        self.register_buffer("place_of_code", torch.tensor(places), persistent=False)

    def forward(self, inputs_BL: Tensor, place_N: Tensor, answer_N: Tensor, weight_N: Tensor) -> Tensor:
        """The losses of one part of a batch; see ``Questions``.

        Only the hidden states that are asked pass through the head: of a masked batch one in seven. What a family
        learns beside the letters has its share in the gradient, but not in the losses, which are those of letters.

        Returns:
            Weighted sum of the losses in nats, and the sum of the weights, shape (2,), float32.
        """
        ids_BL, beside_N = self.token_of_code[inputs_BL.long()], None
        if self.training:
            scores_NV, beside_N = self.family.learn(self.network, ids_BL, place_N)
        else:
            scores_NV = self.family.score(self.network, ids_BL, place_N)
        scores_NV = scores_NV.float()
        if self.competing is not None:
            scores_NV = scores_NV.index_select(1, self.competing)
        loss_N = cross_entropy(scores_NV, self.place_of_code[answer_N.long()], reduction="none")
        if beside_N is not None:
            loss_N = loss_N + (beside_N - beside_N.detach())
        return torch.stack([(loss_N * weight_N).sum(), weight_N.sum()])


def on_device(part: Questions, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The arguments of ``Learner.forward``."""
    columns: tuple[NDArray[np.generic], ...] = (part.inputs_BL, part.place_N, part.answer_N, part.weight_N)
    inputs_BL, place_N, answer_N, weight_N = (to_device(np.ascontiguousarray(column), device) for column in columns)
    return inputs_BL, place_N, answer_N, weight_N


def optimizer_of(
    network: nn.Module, *, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.AdamW:
    """AdamW that decays the matrices of linear maps and convolutions: no norm, bias, table of tokens or frequency."""
    tables = {
        id(weight)
        for module in network.modules()
        if isinstance(module, nn.Embedding)
        for weight in module.parameters(recurse=False)
    }
    weights = [(name, weight) for name, weight in network.named_parameters() if weight.requires_grad]
    decays = [
        weight for name, weight in weights if name.endswith("weight") and weight.ndim > 1 and id(weight) not in tables
    ]
    known = {id(weight) for weight in decays}
    others = [weight for _, weight in weights if id(weight) not in known]
    groups = [{"params": decays, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas)
