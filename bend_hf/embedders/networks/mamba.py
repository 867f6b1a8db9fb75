"""A bidirectional Mamba block: one selective scan from left to right plus one from right to left.

The mixer of Caduceus (arXiv:2403.03234, section 4.1); parameters are named as in its published files.

For each channel and state the scan computes h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] x[t] and then
y[t] = C[t] h[t] + D x[t] (Mamba, arXiv:2312.00752, equations 2 and 4, with the zero-order hold for A and Euler's rule
for B). It handles all positions at once: in plain PyTorch, with the kernel of mamba-ssm if that is installed, or else
on a GPU with the Triton kernels of ``scan_kernels``. No step divides or exponentiates a positive number, so nothing
overflows at any length.

``mamba2`` has the other scan that ``BidirectionalMamba`` takes.

>>> sizes = MambaSizes(width=8, inner=16, n_states=4, dt_rank=1, taps=4)
>>> BidirectionalMamba(lambda: Mamba(sizes), tied=True)(torch.zeros(2, 5, 8), None).shape
torch.Size([2, 5, 8])
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Final, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad, silu, softplus
from transformers import initialization as init

from bend_hf.embedders.networks._layers import keep_float32, kernels_for, short_convolution

# States (batch * positions * states * channels) that are computed together. On a CPU they should fit into the cache: of
# 0.5 to 64 MiB, 2 MiB in float32 was the fastest for 512 and 4,096 positions of 512 channels. On a GPU they should fill
# the device.
SEGMENT_STATES: Final[dict[str, int]] = {"cpu": 2**19, "cuda": 2**26}

FusedScan: TypeAlias = Callable[..., Tensor]


# torch.compile would unroll every step, which takes minutes for each new length.
@torch.compiler.disable  # type: ignore[untyped-decorator]  # torch does not annotate it
def selective_scan(
    x_BTD: Tensor,
    dt_BTD: Tensor,
    A_DN: Tensor,
    B_BTN: Tensor,
    C_BTN: Tensor,
    D_D: Tensor,
    *,
    reverse: bool = False,
) -> Tensor:
    """Scan along T from a state of zeros, in float32 (float64 if x is float64).

    Args:
        x_BTD: Input of each channel, shape (batch, positions, channels).
        dt_BTD: Step sizes, at least zero, shape (batch, positions, channels).
        A_DN: Decay rates, at most zero, shape (channels, states).
        B_BTN: Weight of the input in each state, shape (batch, positions, states).
        C_BTN: Weight of each state in the output, shape (batch, positions, states).
        D_D: Weight of the input in the output, shape (channels,).
        reverse: Scan from the last position to the first.

    Returns:
        Shape (batch, positions, channels), in the type of x.
    """
    if reverse:
        x_BTD, dt_BTD, B_BTN, C_BTN = (value.flip(1) for value in (x_BTD, dt_BTD, B_BTN, C_BTN))
        backward: Tensor = selective_scan(x_BTD, dt_BTD, A_DN, B_BTN, C_BTN, D_D)
        return backward.flip(1)
    fused = fused_scan() if x_BTD.is_cuda and x_BTD.dtype != torch.float64 else None
    if fused is not None:
        return scan_with_kernel(fused, x_BTD, dt_BTD, A_DN, B_BTN, C_BTN, D_D)
    exact = torch.float64 if x_BTD.dtype == torch.float64 else torch.float32
    x, dt, rates_DN, into, out_of, past = (value.to(exact) for value in (x_BTD, dt_BTD, A_DN, B_BTN, C_BTN, D_D))
    batch, n_positions, width = x.shape
    n_states = rates_DN.shape[1]
    rates_ND = rates_DN.t().contiguous()
    budget = SEGMENT_STATES.get(x.device.type, SEGMENT_STATES["cuda"])
    segment = max(1, min(n_positions, budget // (batch * n_states * width)))
    carry_BND = x.new_zeros(batch, n_states, width)
    y_BTD = torch.empty_like(x)
    for start in range(0, n_positions, segment):
        here = slice(start, start + segment)
        segment_BTD, carry_BND = _scan_segment(
            dt[:, here] * x[:, here], dt[:, here], rates_ND, into[:, here], out_of[:, here], carry_BND
        )
        y_BTD[:, here] = torch.addcmul(segment_BTD, x[:, here], past)
    return y_BTD.to(x_BTD.dtype)


def _scan_segment(
    entering_BTD: Tensor, dt_BTD: Tensor, rates_ND: Tensor, into_BTN: Tensor, out_of_BTN: Tensor, carry_BND: Tensor
) -> tuple[Tensor, Tensor]:
    """Scan one segment from a given state, and return y without the term D x, and the state behind the segment.

    The segment is folded into R rows and K columns, about as many rows as columns. First all rows are scanned in
    parallel along their columns, each from a state of zeros. Then the last states of the rows are chained, and each
    row adds the state that it should have started from. These are 2 sqrt(T) steps on large tensors instead of T steps
    on small ones.
    """
    batch, n_positions, width = entering_BTD.shape
    n_columns = max(1, math.isqrt(n_positions))
    n_rows = -(-n_positions // n_columns)
    filler = n_rows * n_columns - n_positions

    def folded(value_BTX: Tensor) -> Tensor:
        # Steps of size zero behind the end leave the state unchanged.
        return (pad(value_BTX, (0, 0, 0, filler)) if filler else value_BTX).reshape(batch, n_rows, n_columns, -1)

    decay = torch.exp(folded(dt_BTD)[..., None, :] * rates_ND)  # (B, R, K, N, D)
    state = folded(entering_BTD)[..., None, :] * folded(into_BTN)[..., None]
    if torch.is_grad_enabled() and (decay.requires_grad or state.requires_grad):
        state, decay = _run_rows_differentiably(state, decay)
    else:
        for column in range(1, n_columns):
            state[:, :, column].addcmul_(decay[:, :, column], state[:, :, column - 1])
            decay[:, :, column].mul_(decay[:, :, column - 1])
    owed = [carry_BND]
    for row in range(n_rows):
        owed.append(torch.addcmul(state[:, row, -1], decay[:, row, -1], owed[-1]))
    carry_BND = owed.pop()
    state = torch.addcmul(state, decay, torch.stack(owed, dim=1)[:, :, None])
    y = torch.matmul(folded(out_of_BTN)[..., None, :], state)  # (B, R, K, 1, D)
    return y.reshape(batch, n_rows * n_columns, width)[:, :n_positions], carry_BND


def _run_rows_differentiably(state: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """Compute states and running products of decay along the columns, without in-place writes, for the gradient."""
    states, decays = list(state.unbind(2)), list(decay.unbind(2))
    for column in range(1, len(states)):
        states[column] = torch.addcmul(states[column], decays[column], states[column - 1])
        decays[column] = decays[column] * decays[column - 1]
    return torch.stack(states, dim=2), torch.stack(decays, dim=2)


@cache
def fused_scan() -> FusedScan | None:
    """Return ``selective_scan_fn`` of mamba-ssm, or None if that package is not installed."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None
    found: FusedScan = selective_scan_fn
    return found


def scan_with_kernel(
    kernel: FusedScan, x_BTD: Tensor, dt_BTD: Tensor, A_DN: Tensor, B_BTN: Tensor, C_BTN: Tensor, D_D: Tensor
) -> Tensor:
    """Scan with the kernel of mamba-ssm, which expects positions last and decay rates in float32."""
    y_BDT = kernel(
        x_BTD.transpose(1, 2).contiguous(),
        dt_BTD.to(x_BTD.dtype).transpose(1, 2).contiguous(),
        A_DN.float().contiguous(),
        B_BTN.to(x_BTD.dtype).transpose(1, 2).contiguous(),
        C_BTN.to(x_BTD.dtype).transpose(1, 2).contiguous(),
        D_D.float().contiguous(),
    )
    return y_BDT.transpose(1, 2).to(x_BTD.dtype)


def scan_kernels_for(x: Tensor) -> ModuleType | None:
    """Return the Triton kernels if they compute on a tensor and mamba-ssm, which comes first, is not installed."""
    return kernels_for(x) if fused_scan() is None else None


@dataclass(frozen=True, kw_only=True)
class MambaSizes:
    """Sizes of a block.

    Attributes:
        width: Width of input and output, D.
        inner: Channels of the scan, E.
        n_states: States per channel.
        dt_rank: Rank of the map to step sizes.
        taps: Taps of the short convolution.
    """

    width: int
    inner: int
    n_states: int
    dt_rank: int
    taps: int


class ScanBlock(nn.Module):
    """One direction of a block: a short convolution, then a scan.

    The projections in and out are parameters of this module by name. The two directions may share them, so
    ``BidirectionalMamba`` applies them.
    """

    in_proj: nn.Linear
    out_proj: nn.Linear
    conv1d: nn.Conv1d

    @abstractmethod
    def reset(self) -> None:
        """Draw the parameters that the block initializes in its own way."""

    @abstractmethod
    def forward(self, entering_BTE: Tensor, mask_BT1: Tensor | None, *, reverse: bool = False) -> Tensor:
        """Scan from left to right, or from right to left.

        Args:
            entering_BTE: Output of ``in_proj``, shape (batch, tokens, width of ``in_proj``).
            mask_BT1: 1 for tokens and 0 for padding on either side, shape (batch, tokens, 1); None if nothing is
                padded.
            reverse: From right to left.

        Returns:
            Input of ``out_proj``, shape (batch, tokens, inner width).
        """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ScanBlock:
        # Decay rates stay float32 in half precision; matrices do not.
        if recurse:
            for child in self.children():
                child._apply(fn)  # type: ignore[no-untyped-call]  # torch does not annotate it
        super()._apply(keep_float32(fn), recurse=False)  # type: ignore[no-untyped-call]  # torch does not annotate it
        return self

    def convolve(self, x_BTE: Tensor, mask_BT1: Tensor | None, *, reverse: bool) -> Tensor:
        """Apply the short convolution and its activation; padding is zero before and after it."""
        weight, bias, kernels = self.conv1d.weight, self.conv1d.bias, scan_kernels_for(x_BTE)
        if kernels is not None:
            convolved: Tensor = kernels.masked_convolution(
                x_BTE, weight, bias, mask_BT1, reverse=reverse, activates=True
            )
            return convolved
        if mask_BT1 is not None:
            x_BTE = x_BTE * mask_BT1
        x_BTE = silu(short_convolution(x_BTE, weight, bias, reverse=reverse))
        return x_BTE if mask_BT1 is None else x_BTE * mask_BT1


class Mamba(ScanBlock):
    """One direction with the selective scan."""

    def __init__(self, sizes: MambaSizes) -> None:
        super().__init__()
        width, inner = sizes.width, sizes.inner
        self.sizes = sizes
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, sizes.taps, groups=inner, padding=sizes.taps - 1)
        self.x_proj = nn.Linear(inner, sizes.dt_rank + 2 * sizes.n_states, bias=False)
        self.dt_proj = nn.Linear(sizes.dt_rank, inner)
        self.A_log = nn.Parameter(torch.empty(inner, sizes.n_states))
        self.D = nn.Parameter(torch.empty(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        with torch.no_grad():
            self.reset()

    def reset(self) -> None:
        """Draw parameters as Mamba does (arXiv:2312.00752, section 3.6)."""
        bound = self.sizes.dt_rank**-0.5
        init.uniform_(self.dt_proj.weight, -bound, bound)
        init.copy_(self.dt_proj.bias, step_bias(self.sizes.inner))
        init.copy_(self.A_log, torch.log(torch.arange(1.0, self.sizes.n_states + 1)).expand_as(self.A_log))
        init.ones_(self.D)

    def forward(self, entering_BTE: Tensor, mask_BT1: Tensor | None, *, reverse: bool = False) -> Tensor:
        """Scan; ``entering_BTE`` holds the input of the scan, then the gate of its output."""
        x_BTE, gate_BTE = entering_BTE.chunk(2, dim=-1)
        x_BTE = self.convolve(x_BTE, mask_BT1, reverse=reverse)
        rank, n_states = self.sizes.dt_rank, self.sizes.n_states
        step, into, out_of = self.x_proj(x_BTE).split([rank, n_states, n_states], dim=-1)
        step, bias, rates = linear(step, self.dt_proj.weight), self.dt_proj.bias, -torch.exp(self.A_log)
        kernels = scan_kernels_for(x_BTE)
        if kernels is not None:
            gated_BTE: Tensor = kernels.gated_scan(
                x_BTE, step, bias, rates, into, out_of, self.D, gate_BTE, reverse=reverse
            )
            return gated_BTE
        step = softplus(step.float() + bias.float())
        y_BTE: Tensor = selective_scan(x_BTE, step, rates, into, out_of, self.D, reverse=reverse)
        del x_BTE, step
        return y_BTE * silu(gate_BTE)


def step_bias(n_steps: int) -> Tensor:
    """Draw biases whose softplus is between 0.001 and 0.1, uniform on a log scale, shape (n_steps,)."""
    step = torch.exp(torch.empty(n_steps).uniform_(math.log(1e-3), math.log(1e-1))).clamp(min=1e-4)
    return step + torch.log(-torch.expm1(-step))


class BidirectionalMamba(nn.Module):
    """A scan from left to right plus one from right to left.

    Args:
        make: Makes one direction, for example ``lambda: Mamba(sizes)``.
        tied: Whether the two directions share their projections in and out.
    """

    def __init__(self, make: Callable[[], ScanBlock], *, tied: bool) -> None:
        super().__init__()
        self.mamba_fwd = make()
        self.mamba_rev = make()
        self.tied = tied
        if self.tied:
            self.mamba_rev.in_proj = self.mamba_fwd.in_proj
            self.mamba_rev.out_proj = self.mamba_fwd.out_proj

    def forward(self, x_BTD: Tensor, mask_BT1: Tensor | None) -> Tensor:
        """Run both directions, shape (batch, tokens, width) in and out; ``mask_BT1`` is 1 for tokens."""
        entering_BTE = self.mamba_fwd.in_proj(x_BTD)
        ahead_BTE = self.mamba_fwd(entering_BTE, mask_BT1)
        entering_BTE = entering_BTE if self.tied else self.mamba_rev.in_proj(x_BTD)
        if scan_kernels_for(x_BTD) is not None:
            back_BTE = self.mamba_rev(entering_BTE, mask_BT1, reverse=True)
        else:  # to flip the input of the block and its output costs less than to flip those of the scan
            back_mask_BT1 = None if mask_BT1 is None else mask_BT1.flip(1)
            back_BTE = self.mamba_rev(entering_BTE.flip(1), back_mask_BT1).flip(1)
        if self.tied:
            both: Tensor = self.mamba_fwd.out_proj(ahead_BTE + back_BTE)
            return both
        out: Tensor = self.mamba_fwd.out_proj(ahead_BTE) + self.mamba_rev.out_proj(back_BTE)
        return out
