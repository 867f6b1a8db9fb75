"""Convolutions along a sequence that look back only: short ones tap by tap, long ones by FFT.

Channel by channel, for HyenaDNA and Mamba blocks.

>>> long_convolution(torch.tensor([[[1.0, 0.0, 2.0]]]), torch.tensor([[1.0, 0.5, 0.25]])).round(decimals=3).tolist()
[[[1.0, 0.5, 2.25]]]
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

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
