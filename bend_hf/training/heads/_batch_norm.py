"""Batch normalisation over the batch of all processes, on any device: torch's SyncBatchNorm runs on GPUs only.

>>> norm = SharedBatchNorm1d(2)
>>> norm(torch.ones(3, 2, 4)).shape, sorted(norm.state_dict()) == sorted(nn.BatchNorm1d(2).state_dict())
(torch.Size([3, 2, 4]), True)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class SharedBatchNorm1d(nn.BatchNorm1d):
    """``BatchNorm1d`` whose statistics are those of all processes' items together; on one process it is the same."""

    def forward(self, x_BCL: Tensor, real_B: Tensor | None = None) -> Tensor:
        """Normalises each channel.

        Args:
            x_BCL: Float, shape (batch, channels, places).
            real_B: Which items count; all where None. Items that do not are normalised all the same.

        Returns:
            Of that shape.
        """
        if not (self.training and _several_processes()):
            return super().forward(x_BCL)
        x32_BCL = x_BCL.float()
        counts_B11 = x32_BCL.new_ones(len(x_BCL), 1, 1) if real_B is None else real_B.float()[:, None, None]
        sums = (x32_BCL * counts_B11).sum(dim=(0, 2))
        n = counts_B11.sum() * x_BCL.shape[2]
        totals = _sum_over_processes(torch.cat([sums, n[None]]))
        n, mean_C1 = totals[-1].detach(), (totals[:-1] / totals[-1].detach())[:, None]
        centred_BCL = x32_BCL - mean_C1
        # in a second pass, as a difference of squares would lose digits
        squares = _sum_over_processes((centred_BCL.square() * counts_B11).sum(dim=(0, 2)))
        variance_C1 = (squares / n)[:, None]
        self._remember(mean_C1[:, 0].detach(), squares.detach() / (n - 1).clamp(min=1))
        normed_BCL = centred_BCL * torch.rsqrt(variance_C1 + self.eps)
        return (normed_BCL * self.weight[:, None] + self.bias[:, None]).to(x_BCL.dtype)

    def _remember(self, mean_C: Tensor, unbiased_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), self.momentum)


def _several_processes() -> bool:
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return there and torch.distributed.get_world_size() > 1


class _Sum(torch.autograd.Function):
    """Each process's loss depends on the sum, so the gradients of all are summed in turn."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        torch.distributed.all_reduce(total)
        return total


def _sum_over_processes(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total
