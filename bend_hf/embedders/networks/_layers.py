"""Parts that several networks share, in PyTorch alone; ``_language_model`` holds those of transformers' form.

- ``init_linear``, ``sizes_from``, ``known_fields``: random weights and published configurations;
- ``RMSNorm``: a norm whose arithmetic is float32;
- ``HeadTransform``: what stands in front of the output matrix of BERT's head;
- ``keep_float32``: parameters that stay float32 in half precision;
- ``short_convolution``, ``long_convolution``: causal convolutions, for HyenaDNA and Mamba;
- ``kernels_for``: the Triton kernels, where they can run;
- ``DilatedStack``: residual layers of dilated convolutions, for BEND's ResNet LM and the first GPN.

A long convolution of three positions with a filter of three taps:

>>> long_convolution(torch.tensor([[[1.0, 0.0, 2.0]]]), torch.tensor([[1.0, 0.5, 0.25]])).round(decimals=3).tolist()
[[[1.0, 0.5, 2.25]]]
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from inspect import signature
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, rms_norm

from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


log = logging.getLogger(__name__)


def init_linear(module: nn.Module, std: float) -> None:
    """Draw the weights of a linear map or an embedding from a normal distribution, and set its bias to zero."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def sizes_from(fields: Mapping[str, object], needed: Sequence[str], *, name: str) -> dict[str, Any]:
    """Take the needed fields from a published config.json.

    Raises:
        ModelError: A field is missing.
    """
    missing = [field for field in needed if field not in fields]
    if missing:
        raise ModelError(f"{name} lacks {', '.join(missing)}; expected the config.json of the published model")
    return {field: fields[field] for field in needed}


def known_fields(config_class: type[PreTrainedConfig], fields: Mapping[str, object]) -> dict[str, Any]:
    """Take the fields of a published config.json that a configuration class has."""
    names = signature(config_class.__init__).parameters
    return {field: value for field, value in fields.items() if field in names}


def keep_float32(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Wrap the function that ``nn.Module._apply`` gets, so that it does not cast to fewer than 32 bits.

    For networks whose scans and filters exponentiate small numbers, which half precision would ruin.

    >>> keep_float32(lambda value: value.to(torch.bfloat16))(torch.zeros(2)).dtype
    torch.float32

    Args:
        function: What ``.to``, ``.half`` or ``.cuda`` apply to each tensor.
    """

    def keeping(value: Tensor) -> Tensor:
        changed = function(value)
        if changed.is_floating_point() and changed.element_size() < 4:
            return value.to(device=changed.device, dtype=torch.float32)
        return changed

    return keeping


_KERNEL_CAPABILITY: Final = (7, 0)  # the oldest GPUs that Triton compiles for: github.com/triton-lang/triton, README

# Maximum size (batch * channels * length) of one Fourier transform. It bounds the memory: at a million positions the
# spectra of all channels would need gigabytes.
FFT_NUMBERS: Final = 2**26


def short_convolution(x_BTD: Tensor, weight_D1K: Tensor, bias_D: Tensor | None, *, reverse: bool = False) -> Tensor:
    """Compute ``nn.Conv1d(D, D, K, groups=D, padding=K - 1)``, cut to the length of the input, channels last.

    It multiplies the whole input K times. ``Conv1d`` needs two transposes, and twice the time on a CPU.

    Args:
        x_BTD: Shape (batch, positions, channels).
        weight_D1K: Weight of the convolution, shape (channels, 1, taps); the last tap is the position itself.
        bias_D: Shape (channels,), or None.
        reverse: The taps reach to later positions, not to earlier ones.

    Returns:
        Shape (batch, positions, channels).
    """
    taps_KD = weight_D1K[:, 0].t()
    y_BTD = x_BTD * taps_KD[-1] if bias_D is None else torch.addcmul(bias_D, x_BTD, taps_KD[-1])
    for back in range(1, min(len(taps_KD), x_BTD.shape[1])):
        early, late = slice(None, -back), slice(back, None)
        to, of = (early, late) if reverse else (late, early)
        y_BTD[:, to].addcmul_(x_BTD[:, of], taps_KD[-1 - back])
    return y_BTD


def kernels_for(x: Tensor) -> ModuleType | None:
    """Return ``scan_kernels`` if they compute on a tensor: on a GPU with Triton, without gradients."""
    if not x.is_cuda or x.dtype == torch.float64 or torch.is_grad_enabled():
        return None
    return _kernels(x.device)


@cache
def _kernels(device: torch.device) -> ModuleType | None:
    """Return ``scan_kernels`` if Triton can compile for a GPU; if not, say once what to install."""
    from bend_hf.embedders.networks import scan_kernels

    if torch.cuda.get_device_capability(device) < _KERNEL_CAPABILITY:
        return None
    if not scan_kernels.can_compile():
        log.warning(
            "selective scans and short convolutions run in PyTorch, far slower than a kernel; install Triton and a C "
            "compiler (pip install triton; apt-get install gcc)"
        )
        return None
    return scan_kernels


def long_convolution(
    x_BDT: Tensor, filter_DT: Tensor | None, bias_D: Tensor | None = None, *, spectrum_DF: Tensor | None = None
) -> Tensor:
    """Convolve each channel with a filter as long as the input, in float32, several channels at a time.

    The input is cast, transposed and padded in one pass, so it may be a view of any layout and type.

    Args:
        x_BDT: Shape (batch, channels, positions).
        filter_DT: Float32, shape (channels, positions); the first column is that of distance 0. Not used with
            ``spectrum_DF``.
        bias_D: Weight of the input itself, which is added, shape (channels,); or None.
        spectrum_DF: ``filter_spectrum`` of the filter; None: computed here.

    Returns:
        Float32, shape (batch, channels, positions).
    """
    batch, width, n_positions = x_BDT.shape
    length = fft_length(2 * n_positions - 1)
    block = max(1, min(width, FFT_NUMBERS // (batch * length)))
    blocks = []
    for first in range(0, width, block):
        here = slice(first, first + block)
        padded = x_BDT.new_zeros((batch, len(range(width)[here]), length), dtype=torch.float32)
        padded[..., :n_positions] = x_BDT[:, here]
        of_filter = spectrum_DF[here] if spectrum_DF is not None else filter_spectrum(cast("Tensor", filter_DT)[here])
        convolved = torch.fft.irfft(torch.fft.rfft(padded) * of_filter, n=length)[..., :n_positions]
        if bias_D is not None:
            convolved = torch.addcmul(convolved, padded[..., :n_positions], bias_D[here, None])
        blocks.append(convolved)
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def filter_spectrum(filter_DT: Tensor) -> Tensor:
    """Compute the Fourier transform of filters, padded for ``long_convolution``, complex, shape (channels, F)."""
    spectrum_DF: Tensor = torch.fft.rfft(filter_DT, n=fft_length(2 * filter_DT.shape[1] - 1))
    return spectrum_DF


def fft_length(n_positions: int) -> int:
    """Find the smallest length of at least ``n_positions`` without a prime factor above 5, for fast transforms.

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
    """Return the distance between the taps of a layer's convolution: 1, 2, 4 ..., from 1 again after each cycle.

    >>> [dilation_of(layer, cycle=4, double_every=1, largest=4) for layer in range(6)]
    [1, 2, 4, 4, 1, 2]
    """
    return int(min(largest, base ** ((layer % cycle) // double_every)))


def convolve(convolution: nn.Module, x_BTD: Tensor) -> Tensor:
    """Convolve along the tokens, shape (batch, tokens, width) in and out. Padding must be zero."""
    convolved: Tensor = convolution(x_BTD.transpose(1, 2)).transpose(1, 2)
    return convolved


def token_factor(mask_BT: Tensor | None, like: Tensor) -> Tensor | None:
    """Turn a mask into a factor in the type of ``like``: 1 for tokens, 0 for padding, shape (batch, tokens, 1)."""
    return None if mask_BT is None else mask_BT.to(like.dtype).unsqueeze(-1)


def masked(x_BTD: Tensor, token_BT1: Tensor | None) -> Tensor:
    """Set padding to zero."""
    return x_BTD if token_BT1 is None else x_BTD * token_BT1


class RMSNorm(nn.Module):
    """Divide by the root of the mean square and scale, in float32 (float64 if the input is).

    Args:
        width: Width of the last axis.
        epsilon: Added to the mean square.
    """

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., width) to the same shape, in the type of the weight."""
        exact = torch.float64 if x.dtype == torch.float64 else torch.float32
        return rms_norm(x.to(exact), self.weight.shape, self.weight.to(exact), self.epsilon).to(self.weight.dtype)


class HeadTransform(nn.Module):
    """The first part of BERT's language-model head: linear, activation, norm; the output matrix follows.

    Args:
        width: Width of the embeddings.
        activation: Between the two.
        eps: Of the norm.
    """

    def __init__(self, width: int, activation: nn.Module, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.activation = activation
        self.LayerNorm = nn.LayerNorm(width, eps=eps)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Shape (batch, tokens, width) to the same shape."""
        transformed_BTD: Tensor = self.LayerNorm(self.activation(self.dense(x_BTD)))
        return transformed_BTD


class DilatedLayer(nn.Module):
    """A dilated convolution, then a linear map; each is activated, normalized and added to its input.

    The numbered names (``conv.1``, ``conv.4``, ``ffn.0``, ``ffn.2``) are those of the published checkpoints.
    """

    def __init__(self, *, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        convolution = nn.Conv1d(width, width, kernel, dilation=dilation, padding="same")
        self.conv = nn.ModuleDict({"1": convolution, "4": nn.LayerNorm(width)})
        self.ffn = nn.ModuleDict({"0": nn.Linear(width, width), "2": nn.LayerNorm(width)})

    def forward(self, x_BTD: Tensor, token_BT1: Tensor | None = None) -> Tensor:
        """Run the layer.

        Args:
            x_BTD: Shape (batch, tokens, width), zero for padding.
            token_BT1: See ``token_factor``.

        Returns:
            The shape of ``x_BTD``, zero for padding.
        """
        x_BTD = x_BTD + self.conv["4"](gelu(convolve(self.conv["1"], x_BTD)))
        x_BTD = x_BTD + self.ffn["2"](gelu(self.ffn["0"](x_BTD)))
        return masked(x_BTD, token_BT1)


class DilatedStack(nn.ModuleList):
    """The dilated layers in order. The input is one-hot nucleotides.

    >>> DilatedStack(width=8, layers=2, kernel=3)(torch.eye(5)[None], None).shape
    torch.Size([1, 5, 8])

    Args:
        width: Channels of the residual stream.
        layers: Number of layers.
        kernel: Taps of a convolution.
        dilation_cycle: Layers after which the dilation starts from 1 again.
        dilation_double_every: Layers that share one dilation.
        dilation_max: The largest dilation.
        dilation_base: Factor by which the dilation grows.
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

    def states(self, onehot_BTV: Tensor, mask_BT: Tensor | None) -> Iterator[Tensor]:
        """Yield the input and the output of each layer.

        Args:
            onehot_BTV: One-hot nucleotides, float, shape (batch, tokens, vocabulary). There are no embedding weights:
                these are the first channels of the residual stream, and the others start at zero.
            mask_BT: 1 for tokens, 0 for padding, shape (batch, tokens); None if nothing is padded.

        Yields:
            Number of layers + 1 tensors of shape (batch, tokens, width), zero for padding.
        """
        token_BT1 = token_factor(mask_BT, onehot_BTV)
        x_BTD = masked(pad(onehot_BTV, (0, self.width - onehot_BTV.shape[-1])), token_BT1)
        yield x_BTD
        for layer in self:
            x_BTD = layer(x_BTD, token_BT1)
            yield x_BTD

    def forward(self, onehot_BTV: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Return the last of ``states``."""
        x_BTD = onehot_BTV
        for x_BTD in self.states(onehot_BTV, mask_BT):  # noqa: B007  only the last state is needed
            pass
        return x_BTD

    @torch.no_grad()
    def initialize(self, std: float) -> None:
        """Draw initial weights: linear maps normal with bias zero; convolutions as torch draws them."""
        for module in self.modules():
            init_linear(module, std)
