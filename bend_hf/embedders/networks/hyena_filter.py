"""The long filters of a Hyena operator: a small network of sines that maps a position to one tap of each channel.

Hyena Hierarchy (arXiv:2302.10866), section 3.3, as HyenaDNA (arXiv:2306.15794) uses it.

>>> from bend_hf.embedders.networks.hyenadna import HyenaDNAConfig
>>> ImplicitFilter(HyenaDNAConfig(d_model=8, max_seq_len=100))(20).shape
torch.Size([8, 20])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from bend_hf.embedders.networks._float32 import keep_float32

# Where the decay of the filters starts and how steep it is: HyenaDNA's ExponentialModulation, its defaults.
_DECAY_TARGET, _FAST_DECAY, _SLOW_DECAY, _DECAY_FLOOR = 1e-2, 0.3, 1.5, 0.05


class FilterConfig(Protocol):
    """The sizes that a filter depends on; see ``HyenaDNAConfig``."""

    d_model: int
    max_seq_len: int
    emb_dim: int
    filter_order: int
    num_inner_mlps: int
    activation_freq: float


class _Positions(nn.Module):
    """Time from 0 to 1 and waves of it, on a grid as long as the longest input: what filters are functions of."""

    z: Tensor
    t: Tensor

    def __init__(self, config: FilterConfig) -> None:
        super().__init__()
        n_positions, n_bands = config.max_seq_len, (config.emb_dim - 1) // 2
        time = torch.linspace(0, 1, n_positions)[:, None]
        angle = 2 * math.pi * torch.arange(n_positions, device=time.device)[:, None] / n_positions
        phase = torch.linspace(1e-4, n_bands - 1, n_bands, device=time.device) * angle
        self.register_buffer("z", torch.cat([time, phase.cos(), -phase.sin()], dim=-1)[None])
        self.register_buffer("t", time[None])


class _Modulation(nn.Module):
    """How fast each channel's filter fades."""

    deltas: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        slowest = math.log(_DECAY_TARGET) / _SLOW_DECAY
        fastest = math.log(_DECAY_TARGET) / _FAST_DECAY
        self.register_buffer("deltas", torch.linspace(slowest, fastest, width)[None, None])


class _Frequency(nn.Module):
    def __init__(self, config: FilterConfig) -> None:
        super().__init__()
        self.freq = nn.Parameter(torch.full((1, config.filter_order), float(config.activation_freq)))


class ImplicitFilter(nn.Module):
    """A long filter for each channel, made by a small network from positions; float32 whatever the model is."""

    def __init__(self, config: FilterConfig) -> None:
        super().__init__()
        order, inner = config.filter_order, config.num_inner_mlps
        self.n_linear = inner + 1
        self.bias = nn.Parameter(torch.randn(config.d_model))
        self.pos_emb = _Positions(config)
        # Numbered as a stack of linear and sine layers is; the sines share the frequency of the first.
        layers: dict[str, nn.Module] = {"0": nn.Linear(config.emb_dim, order), "1": _Frequency(config)}
        layers |= {str(2 * number): nn.Linear(order, order) for number in range(1, inner + 1)}
        layers[str(2 * self.n_linear)] = nn.Linear(order, config.d_model, bias=False)
        self.implicit_filter = nn.ModuleDict(layers)
        self.modulation = _Modulation(config.d_model)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ImplicitFilter:
        super()._apply(keep_float32(fn), recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, n_positions: int) -> Tensor:
        """The filters' first ``n_positions`` columns, shape (channels, positions)."""
        x_TD = self.pos_emb.z[0, :n_positions].float()
        frequency = self.implicit_filter["1"].freq
        for number in range(self.n_linear):
            x_TD = torch.sin(frequency * self.implicit_filter[str(2 * number)](x_TD))
        x_DT = self.get_parameter(f"implicit_filter.{2 * self.n_linear}.weight") @ x_TD.t()
        fade_DT = torch.exp(-self.modulation.deltas[0, 0, :, None].abs() * self.pos_emb.t[0, :n_positions, 0])
        filter_DT: Tensor = x_DT * (fade_DT + _DECAY_FLOOR)
        return filter_DT
