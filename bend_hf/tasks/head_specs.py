"""Which head stands on a task's embeddings, as data; ``bend_hf.training.heads.build_head`` makes it.

>>> CnnSpec(hidden=64, kernel=3, pool_bp=512).pool_bp
512
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True)
class CnnSpec:
    """Two convolutions and a linear layer, the head of every embedding model in BEND.

    Args:
        hidden: Channels of both convolutions.
        kernel: Nucleotides that a convolution sees.
        pool_bp: Nucleotides averaged into one label window; None for a label a nucleotide.
    """

    hidden: int = 64  # BEND conf/supervised_tasks/*.yaml, params.hidden_size (enhancer_annotation: 2)
    kernel: int = 3  # BEND conf/supervised_tasks/*.yaml, params.kernel_size
    pool_bp: int | None = None


@dataclass(frozen=True, kw_only=True)
class ResNetSpec:
    """BEND's supervised baseline: dilated residual convolutions on one-hot sequence, trained from scratch.

    Args:
        layers: Residual layers.
        channels: Width of the residual stream.
        kernel: Nucleotides that a residual convolution sees, before dilation.
        hidden: Channels of the two convolutions at the end.
        head_kernel: Nucleotides that those see.
        pool_bp: Nucleotides averaged into one label window; None for a label a nucleotide.
    """

    layers: int = 30  # BEND conf/supervised_encoder/resnet-supervised.yaml, n_layers
    channels: int = 256  # the same, hidden_size
    kernel: int = 9  # BEND bend/models/downstream.py, ConvNetForSupervised, kernel_size
    hidden: int = 64
    head_kernel: int = 3
    pool_bp: int | None = None


@dataclass(frozen=True, kw_only=True)
class BassetSpec:
    """Basset (Kelley et al. 2016): three pooled convolutions, three linear layers, one window a sequence.

    Args:
        window_bp: Length of every sequence.
    """

    window_bp: int = 512  # BEND, windows of chromatin_accessibility, histone_modification, cpg_methylation


@dataclass(frozen=True, kw_only=True)
class LinearSpec:
    """A linear probe.

    Args:
        pool_bp: Nucleotides averaged into one label window; None for a label a nucleotide.
    """

    pool_bp: int | None = None


HeadSpec: TypeAlias = CnnSpec | ResNetSpec | BassetSpec | LinearSpec
