"""Heads: what is trained on the embeddings. Each takes token rows and says which row a nucleotide takes.

>>> from bend_hf.tasks.head_specs import CnnSpec
>>> head = build_head(CnnSpec(hidden=8, pool_bp=128), width=32, n_outputs=1)
>>> type(head).__name__
'CnnHead'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bend_hf.tasks.head_specs import BassetSpec, CnnSpec, HeadSpec, LinearSpec, ResNetSpec

if TYPE_CHECKING:
    from torch import nn


def build_head(spec: HeadSpec, width: int, n_outputs: int) -> nn.Module:
    """The head of that declaration, with fresh weights.

    Args:
        spec: What to build.
        width: Width of the embeddings; 5 for one-hot, all that ResNet and Basset take.
        n_outputs: Classes or labels.

    Returns:
        A module called as ``head(x_BTD, token_of_BL)`` that gives logits, float, shape (batch,
        windows, outputs); a window is a nucleotide where the spec pools nothing.
    """
    match spec:
        case CnnSpec():
            from bend_hf.training.heads.cnn import CnnHead

            return CnnHead(
                width=width, n_outputs=n_outputs, hidden=spec.hidden, kernel=spec.kernel, pool_bp=spec.pool_bp
            )
        case ResNetSpec():
            from bend_hf.training.heads.resnet import ResNetHead

            return ResNetHead(
                width=width,
                n_outputs=n_outputs,
                layers=spec.layers,
                channels=spec.channels,
                kernel=spec.kernel,
                hidden=spec.hidden,
                head_kernel=spec.head_kernel,
                pool_bp=spec.pool_bp,
            )
        case BassetSpec():
            from bend_hf.training.heads.basset import BassetHead

            return BassetHead(width=width, n_outputs=n_outputs, window_bp=spec.window_bp)
        case LinearSpec():
            from bend_hf.training.heads.linear import LinearHead

            return LinearHead(width=width, n_outputs=n_outputs, pool_bp=spec.pool_bp)
