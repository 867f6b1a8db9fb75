"""The seven tasks of BEND, a declaration each, and the user's own.

>>> [task.key for task in select_tasks(["variant_effects"])]
['variant_effects_disease', 'variant_effects_expression']
"""

from __future__ import annotations

from collections.abc import Sequence

from bend_hf.errors import RegistryError, did_you_mean
from bend_hf.registry import Registry
from bend_hf.tasks._spec import (
    Citation,
    Folds,
    NamedSplits,
    Partition,
    TaskSpec,
    TrainingSpec,
    Unsplit,
    VariantSpec,
)

TASKS: Registry[TaskSpec] = Registry(kind="task", package="bend_hf.tasks", attribute="TASKS")


def task_names() -> list[str]:
    """Every name a task can be asked for by: its key, or the group that runs several."""
    return sorted({task.key for task in TASKS} | {task.group for task in TASKS})


def select_tasks(names: Sequence[str]) -> list[TaskSpec]:
    """The tasks of those names, each once, in the order asked for; a group stands for its tasks.

    Raises:
        RegistryError: A name is unknown; the message names the nearest.
    """
    chosen: dict[str, TaskSpec] = {}
    for name in names:
        matching = [task for task in TASKS if name in (task.key, task.group)]
        if not matching:
            raise RegistryError(f"unknown task {name!r}; {did_you_mean(name, task_names())}")
        chosen.update({task.key: task for task in matching})
    return list(chosen.values())


__all__ = [
    "TASKS",
    "Citation",
    "Folds",
    "NamedSplits",
    "Partition",
    "TaskSpec",
    "TrainingSpec",
    "Unsplit",
    "VariantSpec",
    "select_tasks",
    "task_names",
]
