"""The objectives of language models, masked and causal: targets of a batch of windows, and the loss of a network.

>>> from bend_hf.training.pretraining.families import FAMILIES
>>> family = FAMILIES.get("convnet")
>>> network = family.build(family.resolve(("hidden_size=8",), window_bp=4), seed=0)
>>> LanguageModelObjective(family, network).class_of_code.tolist()
[3, 4, 5, 6]

Masked and causal models differ here and nowhere else:

>>> batch = next_targets(np.array([[0, 1, 4, 3]], np.uint8), np.ones((1, 4), np.float32))
>>> batch.position_N.tolist(), batch.target_N.tolist()
([0, 2], [1, 3])

The mask of a row depends on seed, step and row alone, however a batch is divided among processes:

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
from bend_hf.training.optimizer import AdamW
from bend_hf.training.pretraining.config import PretrainConfig
from bend_hf.training.pretraining.families import Family
from bend_hf.training.pretraining.families._family import N_NUCLEOTIDES
from bend_hf.training.pretraining.nucleotides import NUCLEOTIDES, OTHER, RandomWords, Stream, random_words
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
        inputs_BL: 0 to 3 for A, C, G and T, 4 for unknown nucleotides, 5 for MASK, shape (batch, nucleotides).
        chosen_BL: The targets, shape (batch, nucleotides).
    """

    inputs_BL: Bytes
    chosen_BL: Bools


def mask(codes_BL: Bytes, *, rate: float = RATE, seed: int, step: int, first_row: int = 0) -> Masked:
    """Choose the targets of a training batch, and mask most of them as BERT does.

    Each nucleotide is chosen independently with probability ``rate``; unknown ones are never chosen. A random
    nucleotide is drawn from all four, so that it is the original one in a quarter of the cases.

    Args:
        codes_BL: 0 to 3 for A, C, G and T, 4 for unknown nucleotides, shape (batch, nucleotides).
        rate: Fraction of the nucleotides to choose, above 0 and at most 1.
        seed: 0 or more.
        step: Number of the training step.
        first_row: Index of the first of these rows in the whole batch of the step.
    """
    chances = _chances(codes_BL, rate, Stream.MASKS, seed, step, first_row)
    chosen_BL = (chances < _threshold(rate)) & (codes_BL < OTHER)
    hidden_BL = chosen_BL & (chances < _threshold(rate * MASKED_SHARE))
    random_BL = chosen_BL & ~hidden_BL & (chances < _threshold(rate * (MASKED_SHARE + RANDOM_SHARE)))
    inputs_BL = codes_BL.copy()
    inputs_BL[hidden_BL] = MASK
    inputs_BL[random_BL] = chances[random_BL] % len(NUCLEOTIDES)
    return Masked(inputs_BL=inputs_BL, chosen_BL=chosen_BL)


def validation_mask(codes_BL: Bytes, *, rate: float = RATE, seed: int, first_row: int = 0) -> Masked:
    """Choose targets in held-out windows, the same in every validation, and mask all of them.

    No target is left visible or replaced, so that the perplexity can be compared with that of an n-gram table, which
    does not see the predicted nucleotide either.

    Args:
        codes_BL: Held-out windows, as in `mask`, shape (batch, nucleotides).
        rate: Fraction of the nucleotides to choose, above 0 and at most 1.
        seed: 0 or more.
        first_row: Index of the first of these rows among all held-out windows.
    """
    chances = _chances(codes_BL, rate, Stream.VALIDATION_MASKS, seed, 0, first_row)
    chosen_BL = (chances < _threshold(rate)) & (codes_BL < OTHER)
    return Masked(inputs_BL=np.where(chosen_BL, np.uint8(MASK), codes_BL), chosen_BL=chosen_BL)


def weights(chosen_BL: Bools, repeats_BL: Bools, repeat_weight: float) -> Floats:
    """Return the weight of each nucleotide in the loss.

    Args:
        chosen_BL: The targets, shape (batch, nucleotides).
        repeats_BL: Nucleotides of repeats, lower case in the FASTA, shape (batch, nucleotides).
        repeat_weight: Weight of a nucleotide in a repeat; others have 1 (GPN uses 0.1; Benegas et al. 2023, PNAS).

    Returns:
        Weights, 0 where there is no target, shape (batch, nucleotides).
    """
    return np.where(repeats_BL, np.float32(repeat_weight), np.float32(1)) * chosen_BL


def _chances(codes_BL: Bytes, rate: float, stream: Stream, seed: int, step: int, first_row: int) -> RandomWords:
    """Draw a uniform 64-bit word per nucleotide, shape (batch, nucleotides)."""
    if not 0 < rate <= 1:
        raise ValueError(f"the masking rate is {rate}; it must be above 0 and at most 1")
    n_rows, n_words = codes_BL.shape
    return random_words(stream, seed=seed, step=step, first_row=first_row, n_rows=n_rows, n_words=n_words)


def _threshold(chance: float) -> np.uint64:
    """Return the number below which that fraction of all 64-bit words lies, up to one in 2^53."""
    return np.uint64(min(int(chance * 2.0**64), 2**64 - 1))


@dataclass(frozen=True, kw_only=True)
class ObjectiveBatch:
    """Inputs of some windows with their N targets.

    Attributes:
        inputs_BL: 0 to 3 for A, C, G and T, 4 for unknown nucleotides, 5 for MASK, shape (batch, nucleotides).
        position_N: Position whose hidden state predicts the target, in the flattened batch, shape (N,).
        target_N: The nucleotide, 0 to 3, shape (N,).
        weight_N: Weight of the target in the loss, shape (N,).
    """

    inputs_BL: Bytes
    position_N: Ints
    target_N: Bytes
    weight_N: Floats

    def parts(self, n_parts: int) -> Iterator[ObjectiveBatch]:
        """Split the windows into parts of about equal size; a part may be empty if there are few windows."""
        n_rows, width = self.inputs_BL.shape
        for rows in np.array_split(np.arange(n_rows), n_parts):
            low, high = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
            first, last = np.searchsorted(self.position_N, [low * width, high * width])
            yield ObjectiveBatch(
                inputs_BL=self.inputs_BL[low:high],
                position_N=self.position_N[first:last] - low * width,
                target_N=self.target_N[first:last],
                weight_N=self.weight_N[first:last],
            )


def masked_targets(codes_BL: Bytes, masked: Masked, weight_BL: Floats) -> ObjectiveBatch:
    """Predict each chosen nucleotide at its own position."""
    position_N = np.flatnonzero(masked.chosen_BL)
    return ObjectiveBatch(
        inputs_BL=masked.inputs_BL,
        position_N=position_N,
        target_N=codes_BL.ravel()[position_N],
        weight_N=weight_BL.ravel()[position_N],
    )


def next_targets(codes_BL: Bytes, weight_BL: Floats) -> ObjectiveBatch:
    """Predict each known nucleotide but the first of a window at the position before it."""
    target_BL: Bools = codes_BL < OTHER
    target_BL[:, 0] = False
    index_N = np.flatnonzero(target_BL)
    return ObjectiveBatch(
        inputs_BL=codes_BL,
        position_N=index_N - 1,
        target_N=codes_BL.ravel()[index_N],
        weight_N=weight_BL.ravel()[index_N],
    )


def training_batch(config: PretrainConfig, windows: Windows, *, step: int, first_row: int) -> ObjectiveBatch:
    """Choose the targets of some windows of a step.

    Args:
        config: Objective, masking rate, seed and weight of repeats.
        windows: The windows.
        step: Number of the step.
        first_row: Index of the first of these windows in the whole batch of the step.
    """
    codes_BL = windows.codes_BL
    if config.objective == "causal":
        everything = np.ones(codes_BL.shape, np.bool_)
        return next_targets(codes_BL, weights(everything, windows.repeats_BL, config.repeat_weight))
    masked = mask(codes_BL, rate=config.mask_rate, seed=config.seed, step=step, first_row=first_row)
    return masked_targets(codes_BL, masked, weights(masked.chosen_BL, windows.repeats_BL, config.repeat_weight))


def validation_batch(config: PretrainConfig, codes_BL: Bytes, *, first_row: int) -> ObjectiveBatch:
    """Choose the targets of held-out windows: always the same ones, with equal weights."""
    if config.objective == "causal":
        return next_targets(codes_BL, np.ones(codes_BL.shape, np.float32))
    masked = validation_mask(codes_BL, rate=config.mask_rate, seed=config.seed, first_row=first_row)
    return masked_targets(codes_BL, masked, np.ones(codes_BL.shape, np.float32))


class LanguageModelObjective(nn.Module):
    """A network with the weighted loss of its objective.

    Args:
        family: Gives the tokens of the nucleotides and which tokens compete.
        network: With its language-model head.
    """

    token_of_code: Tensor
    competing: Tensor | None
    class_of_code: Tensor

    def __init__(self, family: Family, network: PreTrainedModel) -> None:
        super().__init__()
        self.family, self.network = family, network
        self.register_buffer("token_of_code", torch.tensor(family.token_ids), persistent=False)
        nucleotides = list(family.token_ids[:N_NUCLEOTIDES])
        competing = None if family.competing is None else torch.tensor(family.competing)
        classes = nucleotides if family.competing is None else [family.competing.index(one) for one in nucleotides]
        self.register_buffer("competing", competing, persistent=False)
        self.register_buffer("class_of_code", torch.tensor(classes), persistent=False)

    def forward(self, inputs_BL: Tensor, position_N: Tensor, target_N: Tensor, weight_N: Tensor) -> Tensor:
        """Compute the loss of some windows; see ``ObjectiveBatch`` for the arguments.

        Only the hidden states of targets pass through the head: one in seven in a masked batch. A further objective
        of the family contributes to the gradient, but not to the value of the loss, which is that of nucleotides.

        Returns:
            Weighted sum of the losses in nats, and the sum of the weights, shape (2,), float32.
        """
        ids_BL, further_N = self.token_of_code[inputs_BL.long()], None
        if self.training:
            scores_NV, further_N = self.family.learn(self.network, ids_BL, position_N)
        else:
            scores_NV = self.family.score(self.network, ids_BL, position_N)
        scores_NV = scores_NV.float()
        if self.competing is not None:
            scores_NV = scores_NV.index_select(1, self.competing)
        loss_N = cross_entropy(scores_NV, self.class_of_code[target_N.long()], reduction="none")
        if further_N is not None:
            loss_N = loss_N + (further_N - further_N.detach())
        return torch.stack([(loss_N * weight_N).sum(), weight_N.sum()])


def on_device(part: ObjectiveBatch, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the arguments of ``LanguageModelObjective.forward`` on a device."""
    columns: tuple[NDArray[np.generic], ...] = (part.inputs_BL, part.position_N, part.target_N, part.weight_N)
    inputs_BL, position_N, target_N, weight_N = (to_device(np.ascontiguousarray(column), device) for column in columns)
    return inputs_BL, position_N, target_N, weight_N


def optimizer_of(network: nn.Module, *, learning_rate: float, weight_decay: float, betas: tuple[float, float]) -> AdamW:
    """Build AdamW with weight decay on the matrices of linear layers and convolutions only."""
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
    return AdamW(groups, lr=learning_rate, betas=betas)
