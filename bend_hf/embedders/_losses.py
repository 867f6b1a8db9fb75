"""The loss of each token under a language model's scores.

>>> import torch
>>> ids = torch.tensor([[0, 1, 2]])
>>> token_losses(torch.zeros(1, 3, 4), ids, competing=[0, 1], causal=False)[0, :, 0].exp()
tensor([2., 2., nan])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def token_losses(logits_BTV: Tensor, ids_BT: Tensor, *, competing: Sequence[int] | None, causal: bool) -> Tensor:
    """Cross-entropy of each token as it stands.

    Args:
        logits_BTV: Scores, float, shape (batch, tokens, vocabulary).
        ids_BT: Token ids, int64, shape (batch, tokens).
        competing: The token ids among which probability is shared out; None: all.
        causal: A token's scores stand one place before it; the first token has none.

    Returns:
        Shape (batch, tokens, 1), float32; nan for a token that does not compete or has no scores.
    """
    import torch

    competes_V = torch.ones(logits_BTV.shape[-1], dtype=torch.bool, device=logits_BTV.device)
    if competing is not None:
        competes_V[:] = False
        competes_V[list(competing)] = True
    log_BTV = logits_BTV.float().masked_fill(~competes_V, -torch.inf).log_softmax(-1)
    scored_BT = competes_V[ids_BT]
    if causal:
        log_BTV = log_BTV.roll(1, dims=1)
        scored_BT[:, 0] = False
    loss_BT1 = -log_BTV.gather(-1, ids_BT[..., None])
    return loss_BT1.masked_fill(~scored_BT[..., None], torch.nan)
