"""Heads: what is trained on the embeddings. Each takes token rows and says which row a nucleotide takes.

>>> from bend_hf.tasks._spec import CnnSpec
>>> head = build_head(CnnSpec(hidden=8, pool_bp=128), width=32, n_outputs=1)
>>> type(head).__name__
'CnnHead'

Which head a run trains: the task's own, one that was asked for, or that of a supervised baseline.

>>> from bend_hf.tasks import TASKS
>>> head_of("linear", TASKS.get("cpg_methylation"))
LinearSpec(pool_bp=512)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from bend_hf.config import HeadName, RunConfig
from bend_hf.errors import ConfigError
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import BinClasses, MultiLabel
from bend_hf.tasks._spec import BassetSpec, CnnSpec, HeadSpec, LinearSpec, ResNetSpec

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


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A model that is trained from scratch on the letters, under a name of its own.

    Attributes:
        model: What embeds.
        head: What is trained on it.
        n_parameters: Weights, but for the last layer's, which are as many as a task's labels want.
        tasks: Which tasks it can learn.
        paper: What it is.
    """

    model: str
    head: HeadName
    n_parameters: int
    tasks: str
    paper: str


BASELINES: Final[Mapping[str, Baseline]] = MappingProxyType(
    {  # BEND conf/supervised_encoder: the names of its files
        "resnet-supervised": Baseline(
            model="onehot",
            head="resnet",
            n_parameters=19_768_448,
            tasks="all that are trained",
            paper="BEND, supervised baseline",
        ),
        "basset-supervised": Baseline(
            model="onehot",
            head="basset",
            n_parameters=3_972_600,
            tasks="windows of one length with one set of labels",
            paper="Kelley et al. 2016, Genome Research",
        ),
    }
)


def pool_bp_of(task: TaskSpec) -> int | None:
    """Nucleotides of a label window; None where every nucleotide has a label."""
    match task.label:
        case BinClasses(bin_bp=bin_bp):
            return bin_bp
        case MultiLabel():
            return task.window_bp
        case _:
            return None if task.head is None or isinstance(task.head, BassetSpec) else task.head.pool_bp


def _cnn(task: TaskSpec) -> HeadSpec:
    return task.head if isinstance(task.head, CnnSpec) else CnnSpec(pool_bp=pool_bp_of(task))


def _basset(task: TaskSpec) -> HeadSpec:
    if task.window_bp is None or pool_bp_of(task) != task.window_bp:
        raise ConfigError(
            f"the head 'basset' gives one window of labels a sequence of fixed length, which {task.key} has not; "
            "use 'resnet' or 'resnet-supervised' there"
        )
    return BassetSpec(window_bp=task.window_bp)


HEADS: Final[Mapping[HeadName, Callable[[TaskSpec], HeadSpec]]] = MappingProxyType(
    {
        "cnn": _cnn,
        "linear": lambda task: LinearSpec(pool_bp=pool_bp_of(task)),
        "resnet": lambda task: ResNetSpec(pool_bp=pool_bp_of(task)),
        "basset": _basset,
    }
)


def head_of(name: HeadName | None, task: TaskSpec) -> HeadSpec:
    """The head of that name for a task's labels; the task's own where none was asked for.

    Raises:
        ConfigError: Nothing is trained on the task, or the head does not fit its labels.
    """
    if task.head is None:
        raise ConfigError(
            f"{task.key} is scored without training, so no head or supervised baseline can learn it; "
            "leave --head out and name an embedding model"
        )
    return task.head if name is None else HEADS[name](task)


def without_alias(config: RunConfig) -> RunConfig:
    """The configuration with a baseline's name replaced by what it stands for.

    Raises:
        ConfigError: Another head, or weights, were asked for as well.
    """
    baseline = BASELINES.get(config.model)
    if baseline is None:
        return config
    if config.head not in (None, baseline.head):
        raise ConfigError(
            f"--model {config.model} is the head {baseline.head!r} on {baseline.model!r}, but --head is "
            f"{config.head!r}; leave one of them out"
        )
    if config.checkpoint is not None:
        raise ConfigError(f"--model {config.model} is trained from scratch; leave --checkpoint out")
    return replace(config, model=baseline.model, head=baseline.head)
