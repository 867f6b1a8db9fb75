"""BEND's head for embeddings: two convolutions, the first of which runs on tokens, and a linear layer.

>>> import torch
>>> head = CnnHead(width=32, n_outputs=9)
>>> head(torch.zeros(1, 2, 32), torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1]])).shape
torch.Size([1, 8, 9])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from bend_hf.training.heads._spec import ONE_HOT_WIDTH, HeadSpec
from bend_hf.training.heads._upsample import flat_rows, map_rows, pool, spread


class CnnHead(nn.Module):
    """Convolution, GELU, convolution, GELU, average over a window, linear.

    Parameters are named as in BEND's checkpoints (``conv1.1``, ``conv2.1``, ``linear.0``). Both convolutions keep the
    length: they read zeros beyond the ends of a sequence, also if padding follows.

    Args:
        width: Width of the embeddings.
        n_outputs: Classes or labels.
        hidden: Channels of both convolutions.
        kernel: Nucleotides that a convolution sees; an even kernel sees one more to the right than to the left.
        pool_bp: Nucleotides averaged into one label window; None for one label per nucleotide.
    """

    def __init__(
        self,
        *,
        width: int,
        n_outputs: int,
        hidden: int = 64,  # BEND conf/supervised_tasks/*.yaml, params.hidden_size (enhancer_annotation: 2)
        kernel: int = 3,  # BEND conf/supervised_tasks/*.yaml, params.kernel_size
        pool_bp: int | None = None,
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
            x_BTD: Token embeddings, float, shape (batch, tokens, width); any finite values at padding.
            token_of_BL: Token of each nucleotide, int64, shape (batch, nucleotides); -1 at padding.

        Returns:
            Logits, shape (batch, windows, outputs); windows = nucleotides // pool_bp, or nucleotides.
        """
        real_B1L = (token_of_BL >= 0).unsqueeze(1).to(x_BTD.dtype)
        h_BHL = nn.functional.gelu(convolve_tokens(x_BTD, token_of_BL, self._first)) * real_B1L
        h_BHL = nn.functional.gelu(self.conv2["1"](h_BHL))
        logits: Tensor = self.linear["0"](pool(h_BHL, self.pool_bp))
        return logits


def convolve_tokens(x_BTD: Tensor, token_of_BL: Tensor, convolution: nn.Conv1d) -> Tensor:
    """Convolve token embeddings as if each was repeated for its nucleotides, without repeating them.

    A kernel of k taps over repeated rows is k linear maps of the rows, picked per nucleotide and added. One-hot
    sequence, and embeddings no wider than the output, are repeated nevertheless: that tensor is no larger than the
    output, and the plain convolution is faster.

    Args:
        x_BTD: Token embeddings, float, shape (batch, tokens, width).
        token_of_BL: Token of each nucleotide, int64, shape (batch, nucleotides); -1 at padding, read as zeros.
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


def batched_cnn(head: nn.Module, weights: Mapping[str, Tensor], x_KBTD: Tensor, token_of_KBL: Tensor) -> Tensor:
    """Score every label window with K heads; see ``HeadSpec.batched``. The second convolution has a group per head."""
    first, second, last = (
        (weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in ("conv1.1", "conv2.1", "linear.0")
    )
    n_heads, n_batch, _, _ = x_KBTD.shape
    channels, n_bp = second[0].shape[1], token_of_KBL.shape[-1]
    h_BKHL = _convolve_batched(x_KBTD, token_of_KBL, *first)
    real_BK1L = (token_of_KBL >= 0).transpose(0, 1).unsqueeze(2).to(h_BKHL.dtype)
    h_BNL = (nn.functional.gelu(h_BKHL) * real_BK1L).reshape(n_batch, n_heads * channels, n_bp)
    h_BNL = nn.functional.gelu(
        nn.functional.conv1d(h_BNL, second[0].flatten(0, 1), second[1].reshape(-1), padding="same", groups=n_heads)
    )
    pooled_BWN = pool(h_BNL, cast(CnnHead, head).pool_bp)
    pooled_KRH = pooled_BWN.reshape(-1, n_heads, channels).transpose(0, 1)
    return map_rows(pooled_KRH, *last).view(n_heads, n_batch, pooled_BWN.shape[1], -1)


def _convolve_batched(x_KBTD: Tensor, token_of_KBL: Tensor, weight_KHDC: Tensor, bias_KH: Tensor) -> Tensor:
    """Convolve the tokens of K heads as ``convolve_tokens`` does; returns shape (batch, K, channels, nucleotides)."""
    n_heads, channels, width, kernel = weight_KHDC.shape
    (_, n_batch, n_tokens, _), n_bp = x_KBTD.shape, token_of_KBL.shape[-1]
    if width <= max(channels, ONE_HOT_WIDTH):
        spread_NLD = spread(x_KBTD.flatten(0, 1), token_of_KBL.flatten(0, 1))
        x_BNL = spread_NLD.view(n_heads, n_batch, n_bp, width).permute(1, 0, 3, 2).reshape(n_batch, -1, n_bp)
        convolved = nn.functional.conv1d(
            x_BNL, weight_KHDC.flatten(0, 1), bias_KH.reshape(-1), padding="same", groups=n_heads
        )
        return convolved.view(n_batch, n_heads, channels, n_bp)
    maps_KMD = weight_KHDC.permute(0, 3, 1, 2).reshape(n_heads, kernel * channels, width)
    table = nn.functional.pad(
        map_rows(x_KBTD.flatten(1, 2), maps_KMD).reshape(-1, channels), (0, 0, 0, 1)
    )  # rows of the heads one after the other
    left = (kernel - 1) // 2
    row_NL = flat_rows(token_of_KBL.flatten(0, 1), n_tokens, padding_row=-1)
    row_BKL = row_NL.view(n_heads, n_batch, n_bp).transpose(0, 1)
    row_BKLW = nn.functional.pad(row_BKL, (left, kernel - 1 - left), value=-1).unfold(2, kernel, 1)
    taps = torch.arange(kernel, device=table.device)
    bags = torch.where(row_BKLW >= 0, row_BKLW * kernel + taps, len(table) - 1).reshape(-1, kernel)
    summed = nn.functional.embedding_bag(bags, table, mode="sum").view(n_batch, n_heads, n_bp, channels)
    return (summed + bias_KH[:, None]).transpose(2, 3)


HEADS = (
    HeadSpec(
        key="cnn",
        text="a small convolutional network, trained on frozen embeddings",
        build=CnnHead,
        batched=batched_cnn,
        kind="CnnSpec",  # in records since the first release
        sizes={"hidden": (8, 64)},  # BEND's are 2 and 64, for 1 and for many labels
    ),
)
