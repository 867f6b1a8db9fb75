"""Basset (Kelley et al. 2016), the supervised baseline for sequences with one label window, in BEND's form.

>>> import torch
>>> head = BassetHead(width=5, n_outputs=18, window_bp=96).eval()
>>> head(torch.zeros(1, 96, 5), torch.arange(96)[None]).shape
torch.Size([1, 1, 18])
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from bend_hf.errors import ConfigError
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._spec import HeadSetting
from bend_hf.training.heads._spec import HeadSpec, pool_bp_of
from bend_hf.training.heads._upsample import spread


class SharedBatchNorm1d(nn.BatchNorm1d):
    """``BatchNorm1d`` with statistics over the items of all processes.

    It runs on any device, while torch's ``SyncBatchNorm`` runs on GPUs only. On one process it is ``BatchNorm1d``.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x_BCL: Tensor, real_B: Tensor | None = None) -> Tensor:
        """Normalize each channel.

        Args:
            x_BCL: Float, shape (batch, channels, positions).
            real_B: Which items count in the statistics; None for all. The others are normalized too.

        Returns:
            The same shape.
        """
        if not (self.training and _several_processes()):
            return super().forward(x_BCL)
        x32_BCL = x_BCL.float()
        counts_B11 = x32_BCL.new_ones(len(x_BCL), 1, 1) if real_B is None else real_B.float()[:, None, None]
        sums = (x32_BCL * counts_B11).sum(dim=(0, 2))
        n = counts_B11.sum() * x_BCL.shape[2]
        totals = _sum_over_processes(torch.cat([sums, n[None]]))
        n, mean_C1 = totals[-1].detach(), (totals[:-1] / totals[-1].detach())[:, None]
        centered_BCL = x32_BCL - mean_C1
        # in a second pass, as a difference of squares would lose digits
        squares = _sum_over_processes((centered_BCL.square() * counts_B11).sum(dim=(0, 2)))
        variance_C1 = (squares / n)[:, None]
        self._remember(mean_C1[:, 0].detach(), squares.detach() / (n - 1).clamp(min=1))
        normalized_BCL = centered_BCL * torch.rsqrt(variance_C1 + self.eps)
        return (normalized_BCL * self.weight[:, None] + self.bias[:, None]).to(x_BCL.dtype)

    def _remember(self, mean_C: Tensor, unbiased_C: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), self.momentum)


def _several_processes() -> bool:
    is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return is_distributed and torch.distributed.get_world_size() > 1


class _Sum(torch.autograd.Function):
    """Sum over processes. Each process's loss depends on the sum, so the gradients are summed too."""

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor) -> Tensor:
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        torch.distributed.all_reduce(total)
        return total


def _sum_over_processes(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]  # torch does not annotate it
    return total


CHANNELS = (300, 200, 200)  # Kelley et al. 2016, figure 1: filters of the three convolutions
KERNELS = (19, 11, 7)  # the same, their lengths
POOLS = (3, 4, 4)  # the same, max pooling after each
LINEAR = (1000, 1000)  # the same, fully connected units
DROPOUT = 0.3  # BEND bend/models/basset.py


class BassetHead(nn.Module):
    """Three convolutions with batch norm and max pooling, then three linear layers.

    Batch statistics are those of all processes together. Parameters are named as in BEND's checkpoints
    (``conv_net``, ``clf``).

    Args:
        width: 5, that of one-hot sequence.
        n_outputs: Labels.
        window_bp: Length of every sequence, at least 48 nucleotides, which pooling reduces to one position.

    Raises:
        ConfigError: The window is too short.
    """

    def __init__(
        self,
        *,
        width: int,
        n_outputs: int,
        window_bp: int = 512,  # BEND, windows of chromatin_accessibility, histone_modification, cpg_methylation
    ) -> None:
        super().__init__()
        positions = window_bp
        for step in POOLS:
            positions //= step
        if positions < 1:
            raise ConfigError(f"Basset needs windows of 48 nucleotides or more, not {window_bp}; use the head 'cnn'")
        self.window_bp = window_bp
        blocks: list[nn.Module] = []
        for (n_in, n_out), kernel, step in zip(pairwise((width, *CHANNELS)), KERNELS, POOLS, strict=True):
            convolution = nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2)
            blocks += [convolution, SharedBatchNorm1d(n_out), nn.ReLU(), nn.MaxPool1d(step)]
        self.conv_net = nn.Sequential(*blocks)
        self.clf = nn.Sequential(
            nn.Flatten(),
            nn.Linear(positions * CHANNELS[-1], LINEAR[0]),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(*LINEAR),
            nn.Dropout(DROPOUT),  # BEND has no activation between its last two layers
            nn.Linear(LINEAR[1], n_outputs),
        )

    def forward(self, x_BTD: Tensor, token_of_BL: Tensor) -> Tensor:
        """Score each sequence as one label window.

        Args:
            x_BTD: One-hot sequence, float, shape (batch, tokens, 5).
            token_of_BL: Row of each nucleotide, int64, shape (batch, window_bp).

        Returns:
            Logits, shape (batch, 1, labels).

        Raises:
            ConfigError: The sequences have another length than the window.
        """
        if token_of_BL.shape[1] != self.window_bp:
            raise ConfigError(
                f"Basset was built for windows of {self.window_bp} nucleotides, not {token_of_BL.shape[1]}; "
                "set window_bp to the length of the task's sequences"
            )
        h_BDL = spread(x_BTD, token_of_BL).transpose(1, 2)
        real_B = (token_of_BL >= 0).any(dim=1)  # a process without an item gets one that is all padding
        for layer in self.conv_net:
            h_BDL = layer(h_BDL, real_B) if isinstance(layer, SharedBatchNorm1d) else layer(h_BDL)
        logits: Tensor = self.clf(h_BDL).unsqueeze(1)
        return logits


def _window_of(task: TaskSpec) -> Mapping[str, HeadSetting]:
    if task.window_bp is None or pool_bp_of(task) != task.window_bp:
        raise ConfigError(
            f"the head 'basset' needs sequences of one length with one label window each, which {task.key} does not "
            "have; use 'resnet' or 'resnet-supervised' there"
        )
    return {"window_bp": task.window_bp}


HEADS = (
    HeadSpec(
        key="basset",
        text="Basset, trained from scratch",
        build=BassetHead,
        fits=_window_of,
        needs_one_hot=True,
        kind="BassetSpec",  # in records since the first release
    ),
)
