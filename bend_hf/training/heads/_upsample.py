"""From token rows to nucleotides and from nucleotides to label windows, for every head.

>>> import torch
>>> spread(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[0, 0, 1, -1]])).flatten().tolist()
[1.0, 1.0, 2.0, 0.0]
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from bend_hf.errors import ConfigError

ONE_HOT_WIDTH: Final = 5  # A C G N T


def flat_rows(token_of_BL: Tensor, n_tokens: int, padding_row: int) -> Tensor:
    """Rows of the batch's tokens laid end to end, shape (batch, nucleotides); padding takes ``padding_row``."""
    first_B1 = n_tokens * torch.arange(len(token_of_BL), device=token_of_BL.device).unsqueeze(1)
    return torch.where(token_of_BL >= 0, token_of_BL + first_B1, padding_row)


def spread(x_BTD: Tensor, token_of_BL: Tensor) -> Tensor:
    """One row a nucleotide.

    Args:
        x_BTD: Token rows, float, shape (batch, tokens, width).
        token_of_BL: The row of each nucleotide, int64, shape (batch, nucleotides); -1 where padded.

    Returns:
        Shape (batch, nucleotides, width), zero where padded.
    """
    n_batch, n_tokens, width = x_BTD.shape
    table = nn.functional.pad(x_BTD.reshape(n_batch * n_tokens, width), (0, 0, 0, 1))
    return nn.functional.embedding(flat_rows(token_of_BL, n_tokens, len(table) - 1), table)


def pool(x_BDL: Tensor, pool_bp: int | None) -> Tensor:
    """Averages over windows side by side; nucleotides that fill no window are left out, as in BEND.

    A window is full or it is none: one that reaches into a sequence's padding is not one of that sequence's
    windows, and its label is the padding label.

    Args:
        x_BDL: Float, shape (batch, channels, nucleotides).
        pool_bp: Nucleotides in a window; None for no pooling.

    Returns:
        Shape (batch, windows, channels).

    Raises:
        ConfigError: No sequence of the batch fills a window.
    """
    if pool_bp is None:
        return x_BDL.transpose(1, 2)
    if x_BDL.shape[-1] < pool_bp:
        raise ConfigError(
            f"a label window is {pool_bp} nucleotides, the longest sequence of the batch {x_BDL.shape[-1]}; "
            "give whole windows, or a head with a smaller pool_bp"
        )
    return nn.functional.avg_pool1d(x_BDL, pool_bp).transpose(1, 2)


def check_one_hot(head: str, width: int) -> None:
    """Raises unless the embeddings are letters.

    Raises:
        ConfigError: The width is not that of one-hot sequence.
    """
    if width != ONE_HOT_WIDTH:
        raise ConfigError(
            f"the {head} head reads one-hot sequence of width {ONE_HOT_WIDTH}, not embeddings of width {width}; "
            "use the model 'onehot' with it, or a CNN head"
        )
