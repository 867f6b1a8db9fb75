"""BEND's head for embeddings: two convolutions, the first one run on tokens, and a linear layer.

>>> import torch
>>> head = CnnHead(width=32, n_outputs=9)
>>> head(torch.zeros(1, 2, 32), torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1]])).shape
torch.Size([1, 8, 9])
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from bend_hf.training.heads._upsample import ONE_HOT_WIDTH, flat_rows, pool, spread


class CnnHead(nn.Module):
    """Convolution, GELU, convolution, GELU, average over a window, linear.

    Parameters are named as in BEND's checkpoints (``conv1.1``, ``conv2.1``, ``linear.0``). Every kernel keeps
    the length: both convolutions read zeros beyond a sequence's ends, also where it ends in a batch's padding.

    Args:
        width: Width of the embeddings.
        n_outputs: Classes or labels.
        hidden: Channels of both convolutions.
        kernel: Nucleotides that a convolution sees; an even one sees one more to the right than to the left.
        pool_bp: Nucleotides averaged into one label window; None for a label a nucleotide.
    """

    def __init__(
        self, *, width: int, n_outputs: int, hidden: int = 64, kernel: int = 3, pool_bp: int | None = None
    ) -> None:
        super().__init__()
        self.pool_bp = pool_bp
        self.conv1 = nn.ModuleDict({"1": nn.Conv1d(width, hidden, kernel, padding="same")})
        self.conv2 = nn.ModuleDict({"1": nn.Conv1d(hidden, hidden, kernel, padding="same")})
        self.linear = nn.ModuleDict({"0": nn.Linear(hidden, n_outputs)})

    @property
    def _first(self) -> nn.Conv1d:
        return cast(nn.Conv1d, self.conv1["1"])

    def forward(self, x_BTD: Tensor, token_of_BL: Tensor) -> Tensor:
        """Score every label window.

        Args:
            x_BTD: Token embeddings, float, shape (batch, tokens, width); finite where padded, but of any value.
            token_of_BL: For each nucleotide the row of its token, int64, shape (batch, nucleotides); -1 where
                padded.

        Returns:
            Logits, shape (batch, windows, outputs); windows = nucleotides // pool_bp, or nucleotides.
        """
        real_B1L = (token_of_BL >= 0).unsqueeze(1).to(x_BTD.dtype)
        h_BHL = nn.functional.gelu(convolve_tokens(x_BTD, token_of_BL, self._first)) * real_B1L
        h_BHL = nn.functional.gelu(self.conv2["1"](h_BHL))
        logits: Tensor = self.linear["0"](pool(h_BHL, self.pool_bp))
        return logits


def convolve_tokens(x_BTD: Tensor, token_of_BL: Tensor, convolution: nn.Conv1d) -> Tensor:
    """What the convolution gives on rows repeated for each nucleotide, without repeating them.

    A kernel of k taps over repeated rows is k linear maps of the rows, picked per nucleotide and added. One-hot
    letters, and embeddings no wider than the output, are repeated after all: that tensor is no larger than what
    follows, and the plain convolution is the faster way.

    Args:
        x_BTD: Token rows, float, shape (batch, tokens, width).
        token_of_BL: The row of each nucleotide, int64, shape (batch, nucleotides); -1 where
            padded, read as zeros.
        convolution: Of stride 1 and padding "same".

    Returns:
        Shape (batch, channels, nucleotides).
    """
    channels, width, kernel = convolution.weight.shape
    if width <= max(channels, ONE_HOT_WIDTH):
        convolved: Tensor = convolution(spread(x_BTD, token_of_BL).transpose(1, 2))
        return convolved
    (n_batch, n_tokens, _), n_bp = x_BTD.shape, token_of_BL.shape[1]
    maps_KHD = convolution.weight.permute(2, 0, 1).reshape(kernel * channels, width)
    rows = nn.functional.linear(x_BTD.reshape(-1, width), maps_KHD).view(-1, channels)  # row * kernel + tap
    table = nn.functional.pad(rows, (0, 0, 0, 1))
    left = (kernel - 1) // 2  # torch's padding="same"
    row_BL = flat_rows(token_of_BL, n_tokens, padding_row=-1)
    row_BLK = nn.functional.pad(row_BL, (left, kernel - 1 - left), value=-1).unfold(1, kernel, 1)
    taps = torch.arange(kernel, device=row_BLK.device)
    bags = torch.where(row_BLK >= 0, row_BLK * kernel + taps, len(table) - 1).reshape(-1, kernel)
    summed = nn.functional.embedding_bag(bags, table, mode="sum").view(n_batch, n_bp, channels)
    if convolution.bias is not None:
        summed = summed + convolution.bias
    return summed.transpose(1, 2)
