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
from bend_hf.training.heads._spec import HeadSpec
from bend_hf.training.heads._upsample import spread
from bend_hf.training.heads.cnn import CnnHead


class ResNetHead(nn.Module):
    """A stack of dilated residual layers, then a CNN head, trained together from scratch.

    Parameters are named as in BEND's checkpoints: ``encoder.encoder.<layer>``, ``downstream_cnn``.

    Args:
        width: 5, that of one-hot sequence.
        n_outputs: Classes or labels.
        layers: Residual layers.
        channels: Width of the residual stream.
        kernel: Nucleotides that a residual convolution sees, before dilation.
        hidden: Channels of the CNN head.
        head_kernel: Nucleotides that its convolutions see.
        pool_bp: Nucleotides averaged into one label window; None for one label per nucleotide.
    """

    def __init__(
        self,
        *,
        width: int,
        n_outputs: int,
        layers: int = 30,  # BEND conf/supervised_encoder/resnet-supervised.yaml, n_layers
        channels: int = 256,  # the same, hidden_size
        kernel: int = 9,  # BEND bend/models/downstream.py, ConvNetForSupervised, kernel_size
        hidden: int = 64,
        head_kernel: int = 3,
        pool_bp: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"encoder": DilatedStack(width=channels, layers=layers, kernel=kernel)})
        self._stack.initialize(std=0.02)  # BEND bend/models/downstream.py, initializer_range
        self.downstream_cnn = CnnHead(
            width=channels, n_outputs=n_outputs, hidden=hidden, kernel=head_kernel, pool_bp=pool_bp
        )

    @property
    def _stack(self) -> DilatedStack:
        return cast(DilatedStack, self.encoder["encoder"])

    def forward(self, x_BTD: Tensor, token_of_BL: Tensor) -> Tensor:
        """Score every label window.

        Args:
            x_BTD: One-hot sequence, float, shape (batch, tokens, 5).
            token_of_BL: Row of each nucleotide, int64, shape (batch, nucleotides); -1 at padding.

        Returns:
            Logits, shape (batch, windows, outputs).
        """
        # one row per nucleotide, in order: from here on a token is a nucleotide
        real_BL = token_of_BL >= 0
        encoded_BLD = self._stack(spread(x_BTD, token_of_BL), real_BL)
        place_L = torch.arange(token_of_BL.shape[1], device=token_of_BL.device)
        logits: Tensor = self.downstream_cnn(encoded_BLD, torch.where(real_BL, place_L, -1))
        return logits


HEADS = (
    HeadSpec(
        key="resnet",
        text="a residual network, trained from scratch",
        build=ResNetHead,
        needs_one_hot=True,
        kind="ResNetSpec",  # in records since the first release
    ),
)
