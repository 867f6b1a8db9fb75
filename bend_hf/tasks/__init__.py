"""Tasks: what is asked of a model, one declaration per task.

Each public module holds a tuple ``TASKS`` of ``TaskSpec``: label kind and names, splits, head, training settings and
metric. To add a task, add a module here, install a package with an entry point in ``bend_hf.plugins``, or name a
file: ``--task my_task.py``. Declarations read no files and import no torch. ``_spec`` says what a task declares,
``_labels`` which kinds of labels there are.

>>> [task.key for task in select_tasks(["variant_effects"])]
['variant_effects_disease', 'variant_effects_expression']
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bend_hf.errors import RegistryError, did_you_mean
from bend_hf.registry import Registry, names_file
from bend_hf.tasks._labels import BinClasses, LabelKind, MultiLabel, NucleotideClasses, RealValues, SequenceClass
from bend_hf.tasks._spec import (
    BEND,
    Citation,
    Folds,
    Head,
    NamedSplits,
    Partition,
    TaskSpec,
    TrainingSpec,
    Unsplit,
    VariantSpec,
)

ALL: Final = "all"  # the word for every registered task
TASKS: Registry[TaskSpec] = Registry(kind="task", package="bend_hf.tasks", attribute="TASKS")


def task_names() -> list[str]:
    """List the keys of all tasks, and the groups that stand for several tasks."""
    return sorted({task.key for task in TASKS} | {task.group for task in TASKS})


def select_tasks(names: Sequence[str]) -> list[TaskSpec]:
    """Return the tasks of some names, each once and in the order of the names.

    Args:
        names: Keys, groups (each stands for its tasks), ``all``, or files as ``Registry.get`` takes them.

    Raises:
        RegistryError: A name is unknown (the message names the nearest one), or a file declares another task under
            the key of a registered one.
    """
    chosen: dict[str, TaskSpec] = {}
    for name in names:
        if names_file(name):
            matching = [_task_of_file(name)]
        else:
            matching = [task for task in TASKS if name in (task.key, task.group, ALL)]
        if not matching:
            raise RegistryError(f"unknown task {name!r}; {did_you_mean(name, [*task_names(), ALL])}")
        chosen.update({task.key: task for task in matching})
    return list(chosen.values())


def _task_of_file(name: str) -> TaskSpec:
    task = TASKS.get(name)
    if task.key in TASKS and TASKS.get(task.key) != task:
        raise RegistryError(
            f"{name} declares a task {task.key!r}, which is the key of another registered task; give it another key"
        )
    return task


__all__ = [
    "BEND",
    "TASKS",
    "BinClasses",
    "Citation",
    "Folds",
    "Head",
    "LabelKind",
    "MultiLabel",
    "NamedSplits",
    "NucleotideClasses",
    "Partition",
    "RealValues",
    "SequenceClass",
    "TaskSpec",
    "TrainingSpec",
    "Unsplit",
    "VariantSpec",
    "select_tasks",
    "task_names",
]
