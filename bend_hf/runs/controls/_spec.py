"""What a control declares, and what it hands back.

>>> ControlSpec(key="x", title="X", text="", why_not=lambda task: None, predict=print).model is None
True
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bend_hf.evaluation.predictions import Predictions
from bend_hf.tasks import TaskSpec
from bend_hf.types import Json

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class ControlResult:
    """What a control said of a test split.

    Attributes:
        predictions: Of every item.
        n_features: Numbers it looked at for each label window.
        n_parameters: Numbers it learned.
        learned: What else is worth keeping: how many windows it was fitted on, which C was chosen.
    """

    predictions: Predictions
    n_features: int = 1
    n_parameters: int = 0
    learned: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ControlSpec:
    """One control; it either predicts by itself, or is a model that is run as any other.

    Attributes:
        key: Registry key and name in tables.
        title: For people.
        text: One sentence: what it looks at.
        why_not: Why it says nothing about a task; None where it does.
        predict: From a task, its splits and a seed to predictions of the test split.
        head: What is learned, as a record names it; for those that predict.
        model: From a run's configuration to that of the control; None where that model has no such control.
    """

    key: str
    title: str
    text: str
    why_not: Callable[[TaskSpec], str | None]
    predict: Callable[[TaskSpec, dict[str, Dataset], int], ControlResult] | None = None
    head: str = ""
    model: Callable[[RunConfig], RunConfig | None] | None = None


def always(task: TaskSpec) -> str | None:
    """For a control that says something about every task."""
    return None


def needs_training(task: TaskSpec) -> str | None:
    """For a control that learns."""
    if task.variant is None:
        return None
    return f"{task.key} is scored without training, so there is nothing to learn it from"
