"""The recurrence of Mamba, over all positions at once, in plain PyTorch or by mamba-ssm's kernel where it is at hand.

For each channel and state: h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] x[t], and y[t] = C[t] h[t] + D x[t]
(Mamba, arXiv:2312.00752, equations 2 and 4 with the zero-order hold on A and Euler's rule on B). No step divides
or takes the exponential of a positive number, so nothing overflows at any length.

>>> one = torch.ones(1, 3, 1)
>>> selective_scan(one, one, -torch.ones(1, 1), one, one, torch.zeros(1)).flatten().tolist()[0]
1.0
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Final, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

# States (batch * positions * states * channels) worked on at once. On a CPU they should fit into its cache: 2 MiB in
# float32 was the fastest of 0.5 to 64 MiB, for 512 and 4,096 positions of 512 channels. On a GPU they should fill it.
SEGMENT_STATES: Final[dict[str, int]] = {"cpu": 2**19, "cuda": 2**26}

FusedScan: TypeAlias = Callable[..., Tensor]


# Not for the compiler, which would write out every step: minutes for each new length.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def selective_scan(x_BTD: Tensor, dt_BTD: Tensor, A_DN: Tensor, B_BTN: Tensor, C_BTN: Tensor, D_D: Tensor) -> Tensor:
    """Scan along T from a state of zeros, in float32 (or float64 where x is).

    Args:
        x_BTD: Input of each channel, shape (batch, positions, channels).
        dt_BTD: Step sizes, zero or more, shape (batch, positions, channels).
        A_DN: Decay rates, zero or less, shape (channels, states).
        B_BTN: What enters each state, shape (batch, positions, states).
        C_BTN: What is read from each state, shape (batch, positions, states).
        D_D: What passes by the states, shape (channels,).

    Returns:
        Shape (batch, positions, channels), in x's dtype.
    """
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
        part_BTD, carry_BND = _scan_segment(
            dt[:, here] * x[:, here], dt[:, here], rates_ND, into[:, here], out_of[:, here], carry_BND
        )
        y_BTD[:, here] = torch.addcmul(part_BTD, x[:, here], past)
    return y_BTD.to(x_BTD.dtype)


def _scan_segment(
    entering_BTD: Tensor, dt_BTD: Tensor, rates_ND: Tensor, into_BTN: Tensor, out_of_BTN: Tensor, carry_BND: Tensor
) -> tuple[Tensor, Tensor]:
    """Scan one segment from a given state: y without its passing term, and the state behind the segment.

    The segment is folded into about as many rows as columns. All rows run through their columns side by side, each
    from a state of zeros; then the rows' last states are chained; then each row adds what it was owed. That is twice
    the square root of T steps of large tensors instead of T steps of small ones. Letters: R rows, K columns.
    """
    batch, n_positions, width = entering_BTD.shape
    n_columns = max(1, math.isqrt(n_positions))
    n_rows = -(-n_positions // n_columns)
    filler = n_rows * n_columns - n_positions

    def folded(value_BTX: Tensor) -> Tensor:
        # Steps of size zero behind the end: the state passes through them unchanged.
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
    """States and running products of decay along the columns, without writing into what the gradient needs."""
    states, decays = list(state.unbind(2)), list(decay.unbind(2))
    for column in range(1, len(states)):
        states[column] = torch.addcmul(states[column], decays[column], states[column - 1])
        decays[column] = decays[column] * decays[column - 1]
    return torch.stack(states, dim=2), torch.stack(decays, dim=2)


@cache
def fused_scan() -> FusedScan | None:
    """mamba-ssm's ``selective_scan_fn``, or None where that package is not installed."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None
    found: FusedScan = selective_scan_fn
    return found


def scan_with_kernel(
    kernel: FusedScan, x_BTD: Tensor, dt_BTD: Tensor, A_DN: Tensor, B_BTN: Tensor, C_BTN: Tensor, D_D: Tensor
) -> Tensor:
    """The same through mamba-ssm's interface, which wants positions last and its rates in float32."""
    y_BDT = kernel(
        x_BTD.transpose(1, 2).contiguous(),
        dt_BTD.to(x_BTD.dtype).transpose(1, 2).contiguous(),
        A_DN.float().contiguous(),
        B_BTN.to(x_BTD.dtype).transpose(1, 2).contiguous(),
        C_BTN.to(x_BTD.dtype).transpose(1, 2).contiguous(),
        D_D.float().contiguous(),
    )
    return y_BDT.transpose(1, 2).to(x_BTD.dtype)
