"""Controls that are models: one-hot rows under the same head, and the same network with random weights.

>>> [control.key for control in CONTROLS]
['onehot', 'random_twin']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bend_hf.baselines import BASELINES
from bend_hf.controls._spec import ControlSpec, always
from bend_hf.tasks import TaskSpec

if TYPE_CHECKING:
    from bend_hf.config import RunConfig
    from bend_hf.embedders._base import Embedder


def _one_hot_moves_alike(task: TaskSpec) -> str | None:
    if task.variant is None:
        return None
    return f"{task.key} trains no head, and the one-hot row of every variant moves by the same distance"


def _one_hot(config: RunConfig) -> Embedder | None:
    if config.model == "onehot" or config.model in BASELINES:
        return None
    from bend_hf.embedders import load_embedder

    return load_embedder("onehot", protocol=config.protocol)


def _random_twin(config: RunConfig) -> Embedder | None:
    if config.model == "onehot" or config.model in BASELINES or config.model.endswith(".py"):
        return None
    from bend_hf.embedders import load_embedder

    return load_embedder(
        config.model, checkpoint=config.checkpoint, protocol=config.protocol, random_init=True, seed=config.seed
    )


CONTROLS = (
    ControlSpec(
        key="onehot",
        title="One-hot",
        text="The letters themselves under the same head, trained in the same way.",
        why_not=_one_hot_moves_alike,
        embedder=_one_hot,
    ),
    ControlSpec(
        key="random_twin",
        title="Random twin",
        text="The same network with random weights, under the same head, trained in the same way.",
        why_not=always,
        embedder=_random_twin,
    ),
)
