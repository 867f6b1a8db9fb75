"""The boards of BEND's datasets on the Hub: one for each task, probe and protocol.

So two protocols never stand in one column.

>>> board_id("gene_finding", "cnn", "bend-2024")
'gene_finding_cnn_bend-2024'
"""

from __future__ import annotations

from bend_hf.shapes import PROTOCOLS
from bend_hf.tasks import TASKS, Folds, TaskSpec


def probes(task: TaskSpec) -> tuple[str, ...]:
    """What a task can be scored with: its own head and a linear probe, or nothing trained."""
    if task.head is None:
        return ("zero_shot",)
    return tuple(dict.fromkeys((type(task.head).__name__.removesuffix("Spec").lower(), "linear")))


def board_id(task: str, probe: str, protocol: str) -> str:
    """The id of a board in a dataset's ``eval.yaml``."""
    return f"{task}_{probe}_{protocol}"


def board_ids(group: str) -> dict[str, tuple[str, str]]:
    """All boards of a dataset: configuration and split of each. A task of folds is named by its first."""
    return {
        board_id(task.key, probe, protocol): (
            task.config or ("fold_1" if isinstance(task.partition, Folds) else "default"),
            "test",
        )
        for task in TASKS
        if task.group == group
        for protocol in PROTOCOLS
        for probe in probes(task)
    }
