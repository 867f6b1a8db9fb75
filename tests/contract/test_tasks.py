"""What every task of the registry must hold, whoever declares it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from bend_hf.data.sources import TaskFiles, find_source, sample_tasks
from bend_hf.evaluation.metrics import metric_names
from bend_hf.tasks import TASKS, TaskSpec, Unsplit, select_tasks, task_names
from bend_hf.tasks._labels import BinClasses, MultiLabel, NucleotideClasses
from bend_hf.training.heads import build_head

ALL = list(TASKS)
TRAINED = [task for task in ALL if task.head is not None]


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.key)
def test_a_task_is_whole(task: TaskSpec) -> None:
    assert set(task.metrics) <= set(metric_names())
    assert task.title
    assert task.license
    assert task.label_names
    assert len(set(task.label_names)) == len(task.label_names)
    assert (task.head is None) == (task.training is None) == isinstance(task.partition, Unsplit)
    assert (task.variant is None) != isinstance(task.partition, Unsplit)


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.key)
def test_a_task_is_found_by_its_key_and_by_its_group(task: TaskSpec) -> None:
    assert {task.key, task.group} <= set(task_names())
    assert select_tasks([task.key]) == [task]
    assert task in select_tasks([task.group])


@pytest.mark.parametrize("task", TRAINED, ids=lambda task: task.key)
def test_a_head_gives_one_window_per_label(task: TaskSpec) -> None:
    if isinstance(task.label, BinClasses) and task.window_bp is not None:
        assert task.window_bp % task.label.bin_bp == 0
    length_bp = task.window_bp or (4 * task.label.bin_bp if isinstance(task.label, BinClasses) else 300)
    match task.label:
        case NucleotideClasses():
            n_windows = length_bp
        case BinClasses():
            n_windows = length_bp // task.label.bin_bp
        case _:
            n_windows = 1
    assert task.head is not None
    head = build_head(task.head, width=5, n_outputs=task.n_outputs)
    with torch.no_grad():
        logits = head(torch.zeros(1, length_bp, 5), torch.arange(length_bp)[None])
    assert logits.shape == (1, n_windows, task.n_outputs)
    assert task.n_outputs == 1 or task.n_outputs == len(task.label_names)
    assert not isinstance(task.label, MultiLabel) or task.n_outputs == len(task.label_names)


@pytest.mark.parametrize("task", sample_tasks(), ids=lambda task: task.key)
def test_what_the_sample_holds_of_a_task_is_whole(task: TaskSpec) -> None:
    source = find_source(task, data="sample")
    assert isinstance(source, TaskFiles)
    assert source.origin == "sample"
    assert source.label_names is not None


def test_declarations_import_without_torch() -> None:
    code = (
        "import sys; from bend_hf.tasks import TASKS; from bend_hf.embedders import MODELS; "
        "TASKS.names(); MODELS.names(); "
        "print(sorted({'torch', 'transformers', 'datasets', 'evaluate'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
