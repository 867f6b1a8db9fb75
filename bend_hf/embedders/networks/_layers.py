"""Weights that stay float32 when the rest of their model is cast to half precision.

For networks whose scans and filters exponentiate small numbers: eight bits of mantissa would ruin them.

>>> import torch
>>> keep_float32(lambda value: value.to(torch.bfloat16))(torch.zeros(2)).dtype
torch.float32

Convolutions along a sequence that look back only: short ones tap by tap, long ones by FFT.

Channel by channel, for HyenaDNA and Mamba blocks.

>>> long_convolution(torch.tensor([[[1.0, 0.0, 2.0]]]), torch.tensor([[1.0, 0.5, 0.25]])).round(decimals=3).tolist()
[[[1.0, 0.5, 2.25]]]

Dilated convolutions over tokens, and the residual layers of them that BEND's own models and the first GPN are.

>>> DilatedStack(width=8, layers=2, kernel=3)(torch.eye(5)[None], None).shape
torch.Size([1, 5, 8])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad


def keep_float32(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function that ``nn.Module._apply`` hands to a module, without its casts to fewer than 32 bits.

    Args:
        function: What ``.to``, ``.half`` or ``.cuda`` do to each tensor.
    """

    def keeping(value: Tensor) -> Tensor:
        changed = function(value)
        if changed.is_floating_point() and changed.element_size() < 4:
            return value.to(device=changed.device, dtype=torch.float32)
        return changed

    return keeping


# Numbers (batch * channels * transform length) in one transform: bounds its memory at a million positions, where the
# spectra of all channels together would need gigabytes.
FFT_NUMBERS: Final = 2**26


def short_convolution(x_BTD: Tensor, weight_D1K: Tensor, bias_D: Tensor | None) -> Tensor:
    """What ``nn.Conv1d(D, D, K, groups=D, padding=K - 1)`` gives, cut to the input's length, channels last.

    K multiplications of the whole, without the two transposes that ``Conv1d`` needs: half its time on a CPU.

    Args:
        x_BTD: Shape (batch, positions, channels).
        weight_D1K: The convolution's weight, shape (channels, 1, taps); the last tap is the position itself.
        bias_D: Shape (channels,), or None.

    Returns:
        Shape (batch, positions, channels).
    """
    taps_KD = weight_D1K[:, 0].t()
    y_BTD = x_BTD * taps_KD[-1] if bias_D is None else torch.addcmul(bias_D, x_BTD, taps_KD[-1])
    for back in range(1, min(len(taps_KD), x_BTD.shape[1])):
        y_BTD[:, back:].addcmul_(x_BTD[:, :-back], taps_KD[-1 - back])
    return y_BTD


def long_convolution(x_BDT: Tensor, filter_DT: Tensor) -> Tensor:
    """Convolve each channel with a filter as long as the input, in float32, a block of channels at a time.

    Args:
        x_BDT: Shape (batch, channels, positions).
        filter_DT: Float32, shape (channels, positions); the first column is for distance 0.

    Returns:
        Float32, shape (batch, channels, positions).
    """
    batch, width, n_positions = x_BDT.shape
    length = fft_length(2 * n_positions - 1)
    block = max(1, min(width, FFT_NUMBERS // (batch * length)))
    parts = []
    for first in range(0, width, block):
        spectrum = torch.fft.rfft(x_BDT[:, first : first + block].float(), n=length)
        spectrum = spectrum * torch.fft.rfft(filter_DT[first : first + block], n=length)
        parts.append(torch.fft.irfft(spectrum, n=length)[..., :n_positions])
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def fft_length(n_positions: int) -> int:
    """The least length that a transform handles fast (no prime factor above 5) and that holds ``n_positions``.

    >>> fft_length(2051), fft_length(1), fft_length(17)
    (2160, 1, 18)
    """
    best = 1 << (n_positions - 1).bit_length()
    fives = 1
    while fives < best:
        odd = fives
        while odd < best:
            best = min(best, odd << (-(-n_positions // odd) - 1).bit_length())
            odd *= 3
        fives *= 5
    return best


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
