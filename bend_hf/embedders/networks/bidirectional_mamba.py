"""A Mamba block that reads both ways: one selective scan from left to right plus one from right to left.

The mixer of Caduceus (arXiv:2403.03234, section 4.1); parameters are named as in its published files.

>>> sizes = MambaSizes(width=8, inner=16, n_states=4, dt_rank=1, taps=4, tied=True)
>>> mixer = BidirectionalMamba(sizes)
>>> mixer(torch.zeros(2, 5, 8), None).shape
torch.Size([2, 5, 8])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu, softplus
from transformers import initialization as init

from bend_hf.embedders.networks._float32 import keep_float32
from bend_hf.embedders.networks.causal_convolution import short_convolution
from bend_hf.embedders.networks.selective_scan import selective_scan


@dataclass(frozen=True, kw_only=True)
class MambaSizes:
    """Sizes of a block.

    Attributes:
        width: Of what comes in and goes out, D.
        inner: Channels of the scan, E.
        n_states: States of each channel.
        dt_rank: Rank of the map that makes step sizes.
        taps: Positions that the short convolution sees.
        tied: Whether the two directions share their projections in and out.
    """

    width: int
    inner: int
    n_states: int
    dt_rank: int
    taps: int
    tied: bool


class Mamba(nn.Module):
    """One direction of a block: a short convolution, then the selective scan. Projections stand outside.

    They are parameters of this module by name, but the two directions may share them, so the block applies them.
    """

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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Mamba:
        # The rates of decay stay float32 whatever the model is; the matrices follow the model.
        if recurse:
            for child in self.children():
                child._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(keep_float32(fn), recurse=False)  # type: ignore[no-untyped-call]
        return self

    def reset(self) -> None:
        """Draw what Mamba does not draw like other linear layers (arXiv:2312.00752, section 3.6)."""
        bound = self.sizes.dt_rank**-0.5
        init.uniform_(self.dt_proj.weight, -bound, bound)
        step = torch.exp(torch.empty(self.sizes.inner).uniform_(math.log(1e-3), math.log(1e-1))).clamp(min=1e-4)
        init.copy_(self.dt_proj.bias, step + torch.log(-torch.expm1(-step)))  # softplus of it is the step
        init.copy_(self.A_log, torch.log(torch.arange(1.0, self.sizes.n_states + 1)).expand_as(self.A_log))
        init.ones_(self.D)

    def forward(self, x_BTE: Tensor, gate_BTE: Tensor, mask_BT1: Tensor | None) -> Tensor:
        """Scan from left to right.

        Args:
            x_BTE: What is scanned, shape (batch, tokens, inner width).
            gate_BTE: What the result is gated by, same shape.
            mask_BT1: 1 for tokens and 0 for padding on either side, shape (batch, tokens, 1), or None.

        Returns:
            Shape (batch, tokens, inner width).
        """
        if mask_BT1 is not None:
            x_BTE = x_BTE * mask_BT1
        x_BTE = silu(short_convolution(x_BTE, self.conv1d.weight, self.conv1d.bias))
        if mask_BT1 is not None:
            x_BTE = x_BTE * mask_BT1
        rank, n_states = self.sizes.dt_rank, self.sizes.n_states
        step, into, out_of = self.x_proj(x_BTE).split([rank, n_states, n_states], dim=-1)
        step = softplus(linear(step, self.dt_proj.weight).float() + self.dt_proj.bias.float())
        y_BTE: Tensor = selective_scan(x_BTE, step, -torch.exp(self.A_log), into, out_of, self.D)
        del x_BTE, step
        return y_BTE * silu(gate_BTE)


class BidirectionalMamba(nn.Module):
    """A Mamba from left to right plus one from right to left."""

    def __init__(self, sizes: MambaSizes) -> None:
        super().__init__()
        self.mamba_fwd = Mamba(sizes)
        self.mamba_rev = Mamba(sizes)
        self.tied = sizes.tied
        if self.tied:
            self.mamba_rev.in_proj = self.mamba_fwd.in_proj
            self.mamba_rev.out_proj = self.mamba_fwd.out_proj

    def forward(self, x_BTD: Tensor, mask_BT1: Tensor | None) -> Tensor:
        entering_BTE = self.mamba_fwd.in_proj(x_BTD)
        ahead_BTE = self.mamba_fwd(*entering_BTE.chunk(2, dim=-1), mask_BT1)
        entering_BTE = (entering_BTE if self.tied else self.mamba_rev.in_proj(x_BTD)).flip(1)
        back_mask_BT1 = None if mask_BT1 is None else mask_BT1.flip(1)
        back_BTE = self.mamba_rev(*entering_BTE.chunk(2, dim=-1), back_mask_BT1).flip(1)
        if self.tied:
            both: Tensor = self.mamba_fwd.out_proj(ahead_BTE + back_BTE)
            return both
        out: Tensor = self.mamba_fwd.out_proj(ahead_BTE) + self.mamba_rev.out_proj(back_BTE)
        return out
