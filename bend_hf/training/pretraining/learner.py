"""A network with the loss of its family: what is given to the optimizer, to Accelerate and to the validation.

>>> from bend_hf.training.pretraining.families import FAMILIES
>>> family = FAMILIES.get("convnet")
>>> Learner(family, family.build(family.resolve(("hidden_size=8",), window_bp=4), seed=0)).place_of_code.tolist()
[3, 4, 5, 6]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bend_hf.training.feeding import to_device
from bend_hf.training.pretraining.families import Family
from bend_hf.training.pretraining.families._family import N_NUCLEOTIDES
from bend_hf.training.pretraining.questions import Questions

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
