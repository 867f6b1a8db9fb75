"""The linear head, which shows what can be read off an embedding without a network in between.

>>> import torch
>>> head = LinearHead(width=4, n_outputs=2, pool_bp=3)
>>> head(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1, 1, 1]])).shape
torch.Size([1, 2, 2])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from bend_hf.training.heads._spec import HeadSpec
from bend_hf.training.heads._upsample import map_rows, pool, spread, tokens_are_windows


class LinearHead(nn.Module):
    """A linear map of each token, averaged over the nucleotides of a window.

    Args:
        width: Width of the embeddings.
        n_outputs: Classes or labels.
        pool_bp: Nucleotides averaged into one label window; None for one label per nucleotide.
    """

    def __init__(self, *, width: int, n_outputs: int, pool_bp: int | None = None) -> None:
        super().__init__()
        self.pool_bp = pool_bp
        self.linear = nn.Linear(width, n_outputs)

    def forward(self, x_BTD: Tensor, token_of_BL: Tensor) -> Tensor:
        """Score every label window.

        Args:
            x_BTD: Token embeddings, float, shape (batch, tokens, width); any finite values at padding.
            token_of_BL: Token of each nucleotide, int64, shape (batch, nucleotides); -1 at padding.

        Returns:
            Logits, shape (batch, windows, outputs).
        """
        if tokens_are_windows(token_of_BL, x_BTD.shape[1], self.pool_bp):
            n_windows = token_of_BL.shape[1] // (self.pool_bp or 1)
            mapped: Tensor = self.linear(x_BTD[:, :n_windows])
            return mapped
        # the map runs before the repeat, as its output is narrower; a mean of maps is the map of the mean
        return pool(spread(self.linear(x_BTD), token_of_BL).transpose(1, 2), self.pool_bp)


def batched_linear(head: nn.Module, weights: Mapping[str, Tensor], x_KBTD: Tensor, token_of_KBL: Tensor) -> Tensor:
    """Score every label window with K heads; see ``HeadSpec.batched``."""
    pool_bp = cast(LinearHead, head).pool_bp
    n_heads, n_batch, n_tokens, _ = x_KBTD.shape
    mapped_KNC = map_rows(x_KBTD.flatten(1, 2), weights["linear.weight"], weights["linear.bias"])
    mapped_KBTC = mapped_KNC.view(n_heads, n_batch, n_tokens, -1)
    token_of_NL = token_of_KBL.flatten(0, 1)
    if tokens_are_windows(token_of_NL, n_tokens, pool_bp):
        return mapped_KBTC[:, :, : token_of_NL.shape[1] // (pool_bp or 1)]
    pooled_NWC = pool(spread(mapped_KBTC.flatten(0, 1), token_of_NL).transpose(1, 2), pool_bp)
    return pooled_NWC.view(n_heads, n_batch, *pooled_NWC.shape[1:])


HEADS = (
    HeadSpec(
        key="linear",
        text="a linear layer, trained on frozen embeddings",
        build=LinearHead,
        reads_means=True,
        batched=batched_linear,
        kind="LinearSpec",  # in records since the first release
    ),
)
