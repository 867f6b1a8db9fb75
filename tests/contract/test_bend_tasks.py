"""What the seven tasks of BEND must hold: the facts of its article and of its configuration files."""

from __future__ import annotations

import pytest

from bend_hf.data.sources import sample_tasks
from bend_hf.tasks import TASKS, Folds, NamedSplits, TaskSpec, select_tasks
from bend_hf.tasks._labels import BinClasses, MultiLabel, NucleotideClasses
from bend_hf.tasks._spec import BEND

FACTS = {  # labels, window, assembly, whether minus rows are turned, main metric
    "gene_finding": (9, None, "GRCh38", False, "mcc"),
    "enhancer_annotation": (2, 100_096, "GRCh38", False, "auprc"),
    "chromatin_accessibility": (125, 512, "GRCh37", True, "auroc"),
    "histone_modification": (18, 512, "GRCh38", True, "auroc"),
    "cpg_methylation": (7, 512, "GRCh38", True, "auroc"),
    "variant_effects_expression": (2, None, "GRCh38", False, "auroc"),
    "variant_effects_disease": (2, None, "GRCh38", False, "auroc"),
}
SEVEN = [TASKS.get(key) for key in FACTS]


def test_bend_has_seven_tasks() -> None:
    bends = {task.key for task in TASKS if BEND in task.citations}
    assert bends == set(FACTS)


@pytest.mark.parametrize("task", SEVEN, ids=lambda task: task.key)
def test_a_task_has_the_facts_of_bend(task: TaskSpec) -> None:
    found = (len(task.label_names), task.window_bp, task.assembly, task.stranded, task.metric)
    assert found == FACTS[task.key]


@pytest.mark.parametrize("task", SEVEN, ids=lambda task: task.key)
def test_the_head_is_bends_cnn_and_pools_to_the_labels(task: TaskSpec) -> None:
    if task.head is None:
        assert task.variant is not None
        return
    assert task.head.key == "cnn"
    pool_bp = task.head.settings.get("pool_bp")
    match task.label:
        case NucleotideClasses():
            assert pool_bp is None
        case BinClasses():
            assert pool_bp == task.label.bin_bp
        case MultiLabel():
            assert pool_bp == task.window_bp


def test_enhancers_are_folded_and_genes_are_split_by_name() -> None:
    assert TASKS.get("enhancer_annotation").partition == Folds(n=10)
    assert TASKS.get("gene_finding").partition == NamedSplits()


def test_training_is_bends() -> None:
    training = {task.key: task.training for task in SEVEN if task.training}
    assert {key: (t.batch_size, t.learning_rate, t.epochs, t.weight_decay) for key, t in training.items()} == {
        "gene_finding": (64, 0.003, 100, 0.01),
        "enhancer_annotation": (8, 0.001, 100, 0.01),
        "chromatin_accessibility": (256, 0.003, 100, 0.01),
        "histone_modification": (256, 0.003, 100, 0.01),
        "cpg_methylation": (256, 0.003, 100, 0.01),
    }
    assert training["enhancer_annotation"].positive_weight == 82.86


def test_the_sample_holds_all_seven() -> None:
    assert {task.key for task in sample_tasks()} >= set(FACTS)


def test_a_group_stands_for_its_tasks_and_each_runs_once() -> None:
    both = ["variant_effects_disease", "variant_effects_expression"]
    assert [task.key for task in select_tasks(["variant_effects", "variant_effects_disease"])] == both
