"""Dilated convolutions over tokens, and the residual layers of them that BEND's own models and the first GPN are.

>>> DilatedStack(width=8, layers=2, kernel=3)(torch.eye(5)[None], None).shape
torch.Size([1, 5, 8])
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

DILATION_CYCLE: Final = 6  # songlab/gpn-brassicales config.json; BEND's models have the same three
DILATION_DOUBLE_EVERY: Final = 1
DILATION_MAX: Final = 32


def dilation_of(layer: int, *, cycle: int, double_every: int, largest: int, base: int = 2) -> int:
    """Places between the taps of one layer's convolution: 1, 2, 4 ... and again from 1 after a cycle.

    >>> [dilation_of(layer, cycle=4, double_every=1, largest=4) for layer in range(6)]
    [1, 2, 4, 4, 1, 2]
    """
    return int(min(largest, base ** ((layer % cycle) // double_every)))


def convolve(convolution: nn.Module, x_BTD: Tensor) -> Tensor:
    """A convolution along the tokens, shape (batch, tokens, width) in and out; what is padded must be zero."""
    convolved: Tensor = convolution(x_BTD.transpose(1, 2)).transpose(1, 2)
    return convolved


def real_places(mask_BT: Tensor | None, like: Tensor) -> Tensor | None:
    """The mask as a factor, shape (batch, tokens, 1), in the type of ``like``: 1 at tokens, 0 where padded."""
    return None if mask_BT is None else mask_BT.to(like.dtype).unsqueeze(-1)


def masked(x_BTD: Tensor, real_BT1: Tensor | None) -> Tensor:
    """Zero where padded."""
    return x_BTD if real_BT1 is None else x_BTD * real_BT1


class DilatedLayer(nn.Module):
    """A dilated convolution, then a linear map; each is activated, normed and added to what it read.

    The numbered names (``conv.1``, ``conv.4``, ``ffn.0``, ``ffn.2``) are those of the published checkpoints.
    """

    def __init__(self, *, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        convolution = nn.Conv1d(width, width, kernel, dilation=dilation, padding="same")
        self.conv = nn.ModuleDict({"1": convolution, "4": nn.LayerNorm(width)})
        self.ffn = nn.ModuleDict({"0": nn.Linear(width, width), "2": nn.LayerNorm(width)})

    def forward(self, x_BTD: Tensor, real_BT1: Tensor | None = None) -> Tensor:
        """One layer.

        Args:
            x_BTD: Float, shape (batch, tokens, width), zero where padded.
            real_BT1: See ``real_places``.

        Returns:
            The shape of ``x_BTD``, zero where padded.
        """
        x_BTD = x_BTD + self.conv["4"](gelu(convolve(self.conv["1"], x_BTD)))
        x_BTD = x_BTD + self.ffn["2"](gelu(self.ffn["0"](x_BTD)))
        return masked(x_BTD, real_BT1)


class DilatedStack(nn.ModuleList):
    """The layers in order, reading one-hot letters.

    Args:
        width: Channels of the residual stream.
        layers: How many.
        kernel: Taps of a convolution.
        dilation_cycle: Layers after which the dilation starts from 1 again.
        dilation_double_every: Layers that share one dilation.
        dilation_max: The largest dilation.
        dilation_base: What the dilation grows by.
    """

    def __init__(
        self,
        *,
        width: int,
        layers: int,
        kernel: int,
        dilation_cycle: int = DILATION_CYCLE,
        dilation_double_every: int = DILATION_DOUBLE_EVERY,
        dilation_max: int = DILATION_MAX,
        dilation_base: int = 2,
    ) -> None:
        dilations = [
            dilation_of(
                layer,
                cycle=dilation_cycle,
                double_every=dilation_double_every,
                largest=dilation_max,
                base=dilation_base,
            )
            for layer in range(layers)
        ]
        super().__init__(DilatedLayer(width=width, kernel=kernel, dilation=dilation) for dilation in dilations)
        self.width = width

    def states(self, letters_BTV: Tensor, mask_BT: Tensor | None) -> Iterator[Tensor]:
        """The input and what each layer makes of it, one after the other.

        Args:
            letters_BTV: One-hot letters, float, shape (batch, tokens, letters). There are no embedding weights: the
                letters are the first channels of the stream, and the others start at zero.
            mask_BT: True or 1 at real tokens, shape (batch, tokens); None where nothing is padded.

        Yields:
            One tensor more than there are layers, shape (batch, tokens, width), zero where padded.
        """
        real_BT1 = real_places(mask_BT, letters_BTV)
        x_BTD = masked(pad(letters_BTV, (0, self.width - letters_BTV.shape[-1])), real_BT1)
        yield x_BTD
        for layer in self:
            x_BTD = layer(x_BTD, real_BT1)
            yield x_BTD

    def forward(self, letters_BTV: Tensor, mask_BT: Tensor | None) -> Tensor:
        """The last of ``states``."""
        x_BTD = letters_BTV
        for x_BTD in self.states(letters_BTV, mask_BT):  # noqa: B007  only the last is wanted, none is kept
            pass
        return x_BTD

    @torch.no_grad()
    def initialise(self, std: float) -> None:
        """Weights to train from: the linear maps normal, biases zero; convolutions as torch makes them."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=std)
                nn.init.zeros_(module.bias)
