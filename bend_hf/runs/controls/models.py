"""Controls that are models: one-hot rows under the same head, and the same network with random weights.

>>> [control.key for control in CONTROLS]
['onehot', 'random_twin']
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from bend_hf.config import RunConfig, flags_of
from bend_hf.runs.controls._spec import ControlSpec, always
from bend_hf.tasks import TaskSpec
from bend_hf.training.heads import BASELINES


def _one_hot_moves_alike(task: TaskSpec) -> str | None:
    if task.variant is None:
        return None
    return f"{task.key} trains no head, and the one-hot row of every variant moves by the same distance"


def _one_hot(config: RunConfig) -> RunConfig:
    # the letters have no checkpoint, layer or dtype
    infos = flags_of(type(config))
    defaults: dict[str, Any] = {
        item.name: item.default for item in fields(config) if infos[item.name].concerns == "model"
    }
    return replace(config, **{**defaults, "model": "onehot"})


def _random_twin(config: RunConfig) -> RunConfig | None:
    if config.model == "onehot" or config.model in BASELINES or config.model.endswith(".py") or config.random_init:
        return None
    return replace(config, random_init=True)


CONTROLS = (
    ControlSpec(
        key="onehot",
        title="One-hot",
        text="The letters themselves under the same head, trained in the same way.",
        why_not=_one_hot_moves_alike,
        model=_one_hot,
    ),
    ControlSpec(
        key="random_twin",
        title="Random twin",
        text="The same network with random weights, under the same head, trained in the same way.",
        why_not=always,
        model=_random_twin,
    ),
)
