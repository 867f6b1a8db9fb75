"""BEND's supervised baseline: dilated residual convolutions on one-hot sequence under the CNN head.

>>> import torch
>>> head = ResNetHead(width=5, n_outputs=9, layers=2, channels=8)
>>> head(torch.eye(5)[None], torch.arange(5)[None]).shape
torch.Size([1, 5, 9])
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from bend_hf.embedders.networks._layers import DilatedStack
from bend_hf.training.heads._upsample import check_one_hot, spread
from bend_hf.training.heads.cnn import CnnHead


class ResNetHead(nn.Module):
    """A stack of dilated residual layers, then a CNN head, trained together from scratch.

    Parameters are named as in BEND's checkpoints: ``encoder.encoder.<layer>``, ``downstream_cnn``.

    Args:
        width: 5, the letters.
        n_outputs: Classes or labels.
        layers: Residual layers.
        channels: Width of the residual stream.
        kernel: Nucleotides that a residual convolution sees, before dilation.
        hidden: Channels of the head's convolutions.
        head_kernel: Nucleotides that those see.
        pool_bp: Nucleotides averaged into one label window; None for a label a nucleotide.

    Raises:
        ConfigError: The embeddings are not one-hot sequence.
    """

    def __init__(
        self,
        *,
        width: int,
        n_outputs: int,
        layers: int = 30,
        channels: int = 256,
        kernel: int = 9,
        hidden: int = 64,
        head_kernel: int = 3,
        pool_bp: int | None = None,
    ) -> None:
        super().__init__()
        check_one_hot("ResNet", width)
        self.encoder = nn.ModuleDict({"encoder": DilatedStack(width=channels, layers=layers, kernel=kernel)})
        self._stack.initialise(std=0.02)  # BEND bend/models/downstream.py, initializer_range
        self.downstream_cnn = CnnHead(
            width=channels, n_outputs=n_outputs, hidden=hidden, kernel=head_kernel, pool_bp=pool_bp
        )

    @property
    def _stack(self) -> DilatedStack:
        return cast(DilatedStack, self.encoder["encoder"])

    def forward(self, x_BTD: Tensor, token_of_BL: Tensor) -> Tensor:
        """Score every label window.

        Args:
            x_BTD: One-hot letters, float, shape (batch, tokens, 5).
            token_of_BL: For each nucleotide the row of its letter, int64, shape (batch, nucleotides); -1 where
                padded.

        Returns:
            Logits, shape (batch, windows, outputs).
        """
        # the letters go to the places of their nucleotides; from here on a token is a nucleotide
        real_BL = token_of_BL >= 0
        encoded_BLD = self._stack(spread(x_BTD, token_of_BL), real_BL)
        place_L = torch.arange(token_of_BL.shape[1], device=token_of_BL.device)
        logits: Tensor = self.downstream_cnn(encoded_BLD, torch.where(real_BL, place_L, -1))
        return logits
