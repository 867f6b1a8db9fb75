"""From token embeddings to nucleotides, and from nucleotides to label windows, for every head.

>>> import torch
>>> spread(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[0, 0, 1, -1]])).flatten().tolist()
[1.0, 1.0, 2.0, 0.0]
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bend_hf.errors import ConfigError


def flat_rows(token_of_BL: Tensor, n_tokens: int, padding_row: int) -> Tensor:
    """Number the batch's tokens laid end to end, and return that number for each nucleotide.

    Returns:
        Shape (batch, nucleotides), int64; ``padding_row`` at padding.
    """
    first_B1 = n_tokens * torch.arange(len(token_of_BL), device=token_of_BL.device).unsqueeze(1)
    return torch.where(token_of_BL >= 0, token_of_BL + first_B1, padding_row)


def spread(x_BTD: Tensor, token_of_BL: Tensor) -> Tensor:
    """Repeat the embedding of each token for its nucleotides.

    Args:
        x_BTD: Token embeddings, float, shape (batch, tokens, width).
        token_of_BL: Token of each nucleotide, int64, shape (batch, nucleotides); -1 at padding.

    Returns:
        Shape (batch, nucleotides, width), zero at padding.
    """
    n_batch, n_tokens, width = x_BTD.shape
    table = nn.functional.pad(x_BTD.reshape(n_batch * n_tokens, width), (0, 0, 0, 1))
    return nn.functional.embedding(flat_rows(token_of_BL, n_tokens, len(table) - 1), table)


def tokens_are_windows(token_of_BL: Tensor, n_tokens: int, pool_bp: int | None) -> bool:
    """Check whether each token is one label window, as in a cache of means; then nothing needs to be spread and pooled.

    >>> tokens_are_windows(torch.tensor([[0, 0, 1, 1, 2], [0, 0, -1, -1, -1]]), n_tokens=3, pool_bp=2)
    True

    Args:
        token_of_BL: Token of each nucleotide, int64, never falling, shape (batch, nucleotides); -1 at padding.
        n_tokens: Tokens of the longest sequence.
        pool_bp: Nucleotides in a window; None for no pooling.
    """
    n_bp = token_of_BL.shape[1]
    if pool_bp is None or pool_bp < 2 or n_tokens != -(-n_bp // pool_bp) or n_bp < pool_bp:
        return False
    windows = torch.arange(n_bp // pool_bp, device=token_of_BL.device)
    first_BW, last_BW = (token_of_BL[:, at : len(windows) * pool_bp : pool_bp] for at in (0, pool_bp - 1))
    return bool((((first_BW == windows) & (last_BW == windows)) | (last_BW < 0)).all())


def pool(x_BDL: Tensor, pool_bp: int | None) -> Tensor:
    """Average over label windows that lie next to each other; nucleotides that fill no window are left out, as in BEND.

    A window that reaches into a sequence's padding is not one of that sequence's windows, and its label is the
    padding label.

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
            f"a label window is {pool_bp} nucleotides, but the longest sequence of the batch has {x_BDL.shape[-1]}; "
            "give longer sequences, or a head with a smaller pool_bp"
        )
    return nn.functional.avg_pool1d(x_BDL, pool_bp).transpose(1, 2)


def map_rows(x_KND: Tensor, weight_KCD: Tensor, bias_KC: Tensor | None = None) -> Tensor:
    """Apply K linear maps, each to its own rows.

    >>> map_rows(torch.ones(1, 2, 3).expand(2, -1, -1), torch.stack([torch.ones(1, 3), torch.zeros(1, 3)])).tolist()
    [[[3.0], [3.0]], [[0.0], [0.0]]]

    Args:
        x_KND: Float, shape (K, rows, width). Rows that all maps share, an expanded axis, are read once.
        weight_KCD: Shape (K, outputs, width).
        bias_KC: Shape (K, outputs); None for none.

    Returns:
        Shape (K, rows, outputs).
    """
    n_maps, n_outputs, width = weight_KCD.shape
    if n_maps > 1 and x_KND.stride(0) == 0:
        bias = None if bias_KC is None else bias_KC.reshape(-1)
        mapped: Tensor = nn.functional.linear(x_KND[0], weight_KCD.reshape(-1, width), bias)
        return mapped.view(-1, n_maps, n_outputs).transpose(0, 1)
    weight_KDC = weight_KCD.transpose(1, 2)
    if bias_KC is None:
        return torch.bmm(x_KND, weight_KDC)
    return torch.baddbmm(bias_KC.unsqueeze(1), x_KND, weight_KDC)
