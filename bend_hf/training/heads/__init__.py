"""Heads: the modules that are trained on token embeddings.

In: token embeddings and, for each nucleotide, the row of its token. Out: logits per label window. Each head is one
file with ``HEADS = (HeadSpec(...),)``: ``cnn`` (BEND's head for embeddings), ``linear``, and ``resnet`` and
``basset``, which are trained from scratch on one-hot sequence. ``_spec`` says what a head declares, ``_upsample`` maps
tokens to nucleotides to label windows. Add a head as a file here, or name a file of yours with ``--head my_head.py``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from bend_hf.errors import ConfigError
from bend_hf.registry import Registry, names_file, plugin_modules
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._spec import Head
from bend_hf.training.heads._spec import ONE_HOT_WIDTH
from bend_hf.training.heads._spec import HeadSpec as HeadSpec
from bend_hf.types import Json

if TYPE_CHECKING:
    from torch import nn

    from bend_hf.training.heads._upsample import pool as pool
    from bend_hf.training.heads._upsample import spread as spread


class HeadRegistry(Registry[HeadSpec]):
    """The heads. The files of the package define torch modules, so listing their names does not import them."""

    def names(self) -> list[str]:
        """List all keys, sorted. A head of the package has the name of its file."""
        if "_declared" in vars(self):
            return super().names()
        files = pkgutil.iter_modules(importlib.import_module(self.package).__path__)
        own = [file.name for file in files if not file.name.startswith("_")]
        return sorted([*own, *(spec.key for module in plugin_modules() for spec in getattr(module, "HEADS", ()))])


HEADS: Final = HeadRegistry(kind="head", package="bend_hf.training.heads", attribute="HEADS")


def head_of(name: str | None, task: TaskSpec) -> Head:
    """Return the head for a task's labels, with all its settings.

    >>> from bend_hf.tasks import TASKS
    >>> head_of("linear", TASKS.get("cpg_methylation"))
    Head('linear', pool_bp=512)

    Args:
        name: Key of the head, or path of a file that declares one; None for the task's own head.
        task: The task.

    Raises:
        ConfigError: Nothing is trained on the task, or the head does not fit its labels.
        RegistryError: There is no such head.
    """
    if task.head is None:
        raise ConfigError(
            f"{task.key} is scored without training, so no head or supervised baseline can learn it; "
            "leave --head out and name an embedding model"
        )
    spec = HEADS.get(task.head.key if name is None else name)
    if name is not None and names_file(name):
        HEADS.add(spec, from_file=True)
    if name is None or spec.key == task.head.key:
        return spec.complete(task.head)
    return spec.for_task(task)


def build_head(head: Head, width: int, n_outputs: int) -> nn.Module:
    """Build the module of a head, with fresh weights.

    >>> build_head(Head("cnn", hidden=8, pool_bp=128), width=32, n_outputs=1).conv1["1"]
    Conv1d(32, 8, kernel_size=(3,), stride=(1,), padding=same)

    Args:
        head: Key and settings.
        width: Width of the embeddings.
        n_outputs: Classes or labels.

    Returns:
        A module called as ``head(x_BTD, token_of_BL)`` that gives logits, float, shape (batch, windows, outputs); a
        window is one nucleotide if the head pools nothing.

    Raises:
        ConfigError: A setting is wrong, or the head reads one-hot sequence and the width is not that of one-hot.
    """
    spec = HEADS.get(head.key)
    if spec.needs_one_hot and width != ONE_HOT_WIDTH:
        raise ConfigError(
            f"the head {spec.key!r} reads one-hot sequence of width {ONE_HOT_WIDTH}, not embeddings of width {width}; "
            "use the model 'onehot' with it, or the head 'cnn'"
        )
    return spec.build(width=width, n_outputs=n_outputs, **spec.complete(head).settings)


def pooled_bp(head: Head | None) -> int | None:
    """Return the nucleotides over which a head needs only the mean of the embeddings; None if it needs each.

    >>> pooled_bp(Head("linear", pool_bp=512)), pooled_bp(Head("cnn", pool_bp=512))
    (512, None)
    """
    if head is None or not HEADS.get(head.key).reads_means:
        return None
    pool_bp = head.settings.get("pool_bp")
    return pool_bp if isinstance(pool_bp, int) else None


def head_entry(head: Head | None) -> dict[str, Json] | None:
    """Return a head as result records and run keys hold it; None if nothing is trained."""
    if head is None:
        return None
    spec = HEADS.get(head.key)
    return spec.entry(spec.complete(head))


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A model that is trained from scratch on one-hot sequence, under its own name.

    Attributes:
        model: Key of the embedder.
        head: Key of the head.
        n_parameters: Weights without the last layer, whose size depends on the task's labels.
        tasks: Which tasks it can learn, for the table of models.
        paper: Its source.
    """

    model: str
    head: str
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


def baseline_of(model: str, *, head: str | None = None, checkpoint: str | None = None) -> Baseline | None:
    """Return the supervised baseline that a model name stands for; None if it names an embedder.

    >>> baseline_of("basset-supervised").head, baseline_of("dnabert6", head="cnn")
    ('basset', None)

    Args:
        model: Name of the model.
        head: Head that was asked for; None for the baseline's or the task's.
        checkpoint: Weights that were asked for; a baseline has none.

    Raises:
        ConfigError: It is a baseline, but another head, or weights, are asked for.
    """
    baseline = BASELINES.get(model)
    if baseline is None:
        return None
    if head not in (None, baseline.head):
        raise ConfigError(
            f"--model {model} is the head {baseline.head!r} on {baseline.model!r}, but --head is {head!r}; leave one "
            "of them out"
        )
    if checkpoint is not None:
        raise ConfigError(f"--model {model} is trained from scratch; leave --checkpoint out")
    return baseline


def __getattr__(name: str) -> object:
    if name in ("pool", "spread"):  # they import torch
        return getattr(importlib.import_module(f"{__name__}._upsample"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
