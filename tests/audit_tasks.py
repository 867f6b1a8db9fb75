"""Small tasks with known sequences, labels and splits, for the audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import datasets
import numpy as np

from bend_hf.data.builder import features
from bend_hf.data.dataset import TaskData
from bend_hf.tasks import TASKS, TaskSpec
from bend_hf.tasks._labels import MultiLabel, RealValues, SequenceClass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row. Without a place it stands alone on a chromosome of its own."""

    sequence: str
    labels: tuple[float, ...] = (0,)
    chromosome: str = ""
    start: int = 0


def random_sequence(rng: np.random.Generator, n_bp: int) -> str:
    return "".join(rng.choice(list("ACGT"), n_bp))


def mutated(rng: np.random.Generator, sequence: str, share: float) -> str:
    """The sequence with a share of its letters, at random places, replaced by other ones."""
    letters = np.array(list(sequence))
    places = rng.choice(len(letters), round(share * len(letters)), replace=False)
    letters[places] = [rng.choice([other for other in "ACGT" if other != letters[place]]) for place in places]
    return "".join(letters)


def multi_label_task(n_labels: int = 2) -> TaskSpec:
    names = tuple(f"label_{number}" for number in range(n_labels))
    return replace(TASKS.get("histone_modification"), label=MultiLabel(names=names), window_bp=None)


def class_task() -> TaskSpec:
    return replace(
        TASKS.get("histone_modification"), label=SequenceClass(names=("no", "yes")), window_bp=None, metric="auroc"
    )


def task_data(splits: Mapping[str, Sequence[Row]], task: TaskSpec | None = None) -> TaskData:
    """Make the data of a task from its rows."""
    task = task or multi_label_task()
    one = isinstance(task.label, SequenceClass)
    real = isinstance(task.label, RealValues)
    subsets, item = {}, 0
    for name, rows in splits.items():
        numbers = range(item, item + len(rows))
        item += len(rows)
        columns = {
            "item": list(numbers),
            "chromosome": [row.chromosome or f"alone_{number}" for row, number in zip(rows, numbers, strict=True)],
            "start": [row.start for row in rows],
            "end": [row.start + len(row.sequence) for row in rows],
            "strand": ["+"] * len(rows),
            "sequence": [row.sequence for row in rows],
            "label" if one else "labels": [
                row.labels[0] if one else [float(value) for value in row.labels] if real else list(row.labels)
                for row in rows
            ],
        }
        subsets[name] = datasets.Dataset.from_dict(columns, features=features(task))
    return TaskData(task=task, subsets=subsets, facts={"files": {}})
