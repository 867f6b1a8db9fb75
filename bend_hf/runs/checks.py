"""Check names, heads, metrics, folds and splits before a model is loaded.

>>> check_model_name("onehot")
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bend_hf.config import RunConfig
from bend_hf.data.dataset import TaskData
from bend_hf.errors import ConfigError, InputError, RegistryError, did_you_mean
from bend_hf.evaluation.metrics import check_metrics, metric_folder
from bend_hf.runs.settings import check_folds, chosen_folds, chosen_head
from bend_hf.tasks import BinClasses, Folds, NucleotideClasses, TaskSpec, select_tasks
from bend_hf.training.heads import BASELINES, HEADS, head_of

if TYPE_CHECKING:
    from bend_hf.embedders._embedder import Embedder


def check_model_name(model: str) -> None:
    """Check that a model name is registered, unless it is a path or a name on the Hub.

    Raises:
        RegistryError: It is unknown. The message names the nearest model or baseline.
    """
    from bend_hf.embedders import MODELS

    declared = model in MODELS or model in BASELINES
    if not declared and "/" not in model and not model.endswith(".py") and not Path(model).exists():
        raise RegistryError(f"unknown model {model!r}; {did_you_mean(model, [*MODELS.names(), *BASELINES])}")


def check_names(config: RunConfig) -> None:
    """Check that the head and the metrics exist, before anything is opened.

    Raises:
        BendError: One does not.
    """
    head = chosen_head(config)
    if head is not None:
        HEADS.get(head)
    for metric in config.metric:
        metric_folder(metric)


def check_declarations(config: RunConfig) -> None:
    """Check that head, metrics and folds fit the declared tasks, before data are opened.

    Raises:
        BendError: One does not fit a task.
    """
    head = chosen_head(config)
    for task in select_tasks(config.task):
        if head is not None:
            head_of(head, task)
        if config.metric:
            check_metrics(replace(task, metric=config.metric[0], further_metrics=tuple(config.metric[1:])))
        check_folds(config.fold, task, task.partition.n if isinstance(task.partition, Folds) else 0)


def check_fit(config: RunConfig, data: TaskData) -> None:
    """Check that head, folds, splits and tuning fit a task.

    Raises:
        ConfigError: They do not.
        InputError: A split is empty.
    """
    task, head = data.task, chosen_head(config)
    if head is not None or task.head is not None:
        head_of(head, task)
    needed = tuple(data.subsets) if data.n_folds else ("train", "validation", "test") if task.head else ("test",)
    for name in needed:
        if not len(data.subsets.get(name, ())):
            raise InputError(f"{task.key} has no item in its split {name!r}; check the split column of the BED file")
    chosen_folds(config, data)
    check_decode(config)
    if config.tune != "head":
        if task.head is None:
            raise ConfigError(f"{task.key} is scored without training; leave --tune {config.tune} out")
        from bend_hf.training.finetuning import check_tunable

        check_tunable(config.tune)


def check_decode(config: RunConfig) -> None:
    """Check that the protocol lets a run choose how classes are decoded.

    Raises:
        ConfigError: It does not.
    """
    if config.decode != "argmax" and config.protocol == "bend-2024":
        raise ConfigError(
            f"--decode is {config.decode}, but --protocol bend-2024 takes the most probable class, as BEND does; "
            "give --protocol bend-hf-1, or leave --decode out"
        )


def check_pooled(embedder: Embedder, task: TaskSpec) -> None:
    """Check that a model with one embedding per sequence meets a task with one set of labels per sequence.

    Raises:
        InputError: The task has labels along the sequence, or compares variants at their place.
    """
    if embedder.pooled and (task.variant is not None or isinstance(task.label, NucleotideClasses | BinClasses)):
        raise InputError(
            f"{embedder.name} returns one embedding per sequence, but {task.key} asks about places in a sequence; "
            "expected one embedding per nucleotide, of shape (nucleotides, width)"
        )
