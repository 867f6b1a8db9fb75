"""What every task of the registry must hold, whoever declares it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bend_hf.data.sources import TaskFiles, find_source
from bend_hf.evaluation.metrics import metric_names
from bend_hf.tasks import TASKS, Folds, NamedSplits, TaskSpec, Unsplit, select_tasks, task_names
from bend_hf.tasks._labels import BinClasses, MultiLabel, NucleotideClasses, SequenceClass
from bend_hf.tasks._spec import BEND, CnnSpec

ALL = list(TASKS)


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.key)
def test_a_task_is_whole(task: TaskSpec) -> None:
    assert set(task.metrics) <= set(metric_names())
    assert BEND in task.citations
    assert task.license
    assert len(set(task.label_names)) == len(task.label_names)
    assert (task.head is None) == (task.training is None) == isinstance(task.partition, Unsplit)
    assert (task.variant is None) != isinstance(task.partition, Unsplit)


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.key)
def test_a_tasks_head_gives_as_many_windows_as_it_has_labels(task: TaskSpec) -> None:
    match task.label:
        case NucleotideClasses():
            assert isinstance(task.head, CnnSpec)
            assert task.head.pool_bp is None
        case BinClasses():
            assert isinstance(task.head, CnnSpec)
            assert task.head.pool_bp == task.label.bin_bp
            assert task.window_bp is not None
            assert task.window_bp % task.label.bin_bp == 0
        case MultiLabel():
            assert isinstance(task.head, CnnSpec)
            assert task.head.pool_bp == task.window_bp
        case SequenceClass():
            assert task.variant is not None


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.key)
def test_the_sample_holds_every_task(task: TaskSpec) -> None:
    source = find_source(task, data="sample")
    assert isinstance(source, TaskFiles)
    assert source.origin == "sample"
    assert source.label_names is not None


def test_the_seven_tasks_have_the_facts_of_bend() -> None:
    facts = {
        task.key: (len(task.label_names), task.window_bp, task.assembly, task.stranded, task.metric) for task in TASKS
    }
    assert facts == {
        "gene_finding": (9, None, "GRCh38", False, "mcc"),
        "enhancer_annotation": (2, 100_096, "GRCh38", False, "auprc"),
        "chromatin_accessibility": (125, 512, "GRCh37", True, "auroc"),
        "histone_modification": (18, 512, "GRCh38", True, "auroc"),
        "cpg_methylation": (7, 512, "GRCh38", True, "auroc"),
        "variant_effects_expression": (2, None, "GRCh38", False, "auroc"),
        "variant_effects_disease": (2, None, "GRCh38", False, "auroc"),
    }
    partition = {task.key: type(task.partition) for task in TASKS}
    assert partition["enhancer_annotation"] is Folds
    assert partition["gene_finding"] is NamedSplits
    training = {task.key: task.training for task in TASKS if task.training}
    assert {key: (t.batch_size, t.learning_rate, t.epochs, t.weight_decay) for key, t in training.items()} == {
        "gene_finding": (64, 0.003, 100, 0.01),
        "enhancer_annotation": (8, 0.001, 100, 0.01),
        "chromatin_accessibility": (256, 0.003, 100, 0.01),
        "histone_modification": (256, 0.003, 100, 0.01),
        "cpg_methylation": (256, 0.003, 100, 0.01),
    }
    assert training["enhancer_annotation"].positive_weight == 82.86


def test_a_group_name_runs_both_of_its_parts_once() -> None:
    both = ["variant_effects_disease", "variant_effects_expression"]
    assert [task.key for task in select_tasks(["variant_effects", "variant_effects_disease"])] == both
    assert "variant_effects" in task_names()


def test_declarations_import_without_torch() -> None:
    code = (
        "import sys; from bend_hf.tasks import TASKS; from bend_hf.embedders import MODELS; "
        "TASKS.names(); MODELS.names(); "
        "print(sorted({'torch', 'transformers', 'datasets', 'evaluate'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
