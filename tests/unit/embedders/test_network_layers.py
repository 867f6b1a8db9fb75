"""Causal convolutions equal plain ones, at any length and for any number of channels at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv1d

from bend_hf.embedders.networks import _layers as module
from bend_hf.embedders.networks._layers import fft_length, long_convolution, short_convolution


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", [1, 2, 3, 4, 50])
@pytest.mark.parametrize("taps", [1, 3, 4])
@pytest.mark.parametrize("with_bias", [True, False])
def test_short_convolution_equals_conv1d_cut_to_length(length: int, taps: int, with_bias: bool) -> None:
    x, weight = normal(2, length, 6), normal(6, 1, taps, seed=1)
    bias = normal(6, seed=2) if with_bias else None
    plain = conv1d(x.mT, weight, bias, padding=taps - 1, groups=6)[..., :length].mT
    torch.testing.assert_close(short_convolution(x, weight, bias), plain, atol=1e-6, rtol=1e-5)


def directly(x: Tensor, taps: Tensor) -> Tensor:
    length = x.shape[-1]
    return conv1d(x.double(), taps.double().flip(-1)[:, None], padding=length - 1, groups=len(taps))[..., :length]


@pytest.mark.parametrize("length", [1, 2, 5, 64, 301])
@pytest.mark.parametrize("numbers", [1, 3000, 2**26])
def test_long_convolution_equals_the_direct_sum(length: int, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FFT_NUMBERS", numbers)
    x, taps = normal(2, 5, length), normal(5, length, seed=3)
    torch.testing.assert_close(long_convolution(x, taps).double(), directly(x, taps), atol=5e-5, rtol=1e-4)


def test_long_convolution_of_half_precision_input_is_done_in_float32() -> None:
    x, taps = normal(1, 3, 400).bfloat16(), normal(3, 400, seed=3)
    out = long_convolution(x, taps)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), directly(x, taps), atol=1e-4, rtol=1e-4)


def test_long_convolution_does_not_look_ahead() -> None:
    x, taps = normal(1, 2, 40), normal(2, 40, seed=3)
    changed = x.clone()
    changed[..., 25:] += 100
    torch.testing.assert_close(
        long_convolution(changed, taps)[..., :25], long_convolution(x, taps)[..., :25], atol=2e-4, rtol=0
    )


def without_small_factors(number: int) -> int:
    for factor in (2, 3, 5):
        while number % factor == 0:
            number //= factor
    return number


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000))
def test_fft_length_is_the_least_one_without_large_prime_factors(n_positions: int) -> None:
    least = next(number for number in range(n_positions, 2 * n_positions + 1) if without_small_factors(number) == 1)
    assert fft_length(n_positions) == least
