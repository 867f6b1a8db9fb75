"""Controls that are models: one-hot nucleotides under the same head, and the same network with random weights.

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


def _all_variants_look_alike(task: TaskSpec) -> str | None:
    if task.variant is None:
        return None
    return f"{task.key} trains no head, and every variant moves the one-hot embedding by the same distance"


def _one_hot(config: RunConfig) -> RunConfig:
    infos = flags_of(type(config))
    defaults: dict[str, Any] = {
        item.name: item.default for item in fields(config) if infos[item.name].concerns == "model"
    }  # one-hot nucleotides have no checkpoint, layer or dtype
    return replace(config, **{**defaults, "model": "onehot", "tune": "head"})  # and no weights to fine-tune


def _random_weights(config: RunConfig) -> RunConfig | None:
    if config.model == "onehot" or config.model in BASELINES or config.model.endswith(".py") or config.random_init:
        return None
    return replace(config, random_init=True)


CONTROLS = (
    ControlSpec(
        key="onehot",
        title="One-hot",
        text="The nucleotides themselves under the same head, trained in the same way.",
        why_not=_all_variants_look_alike,
        model=_one_hot,
    ),
    ControlSpec(
        key="random_twin",  # as records spell it
        title="Random weights",
        text="The same network with random weights, under the same head, trained in the same way.",
        why_not=always,
        model=_random_weights,
    ),
)
