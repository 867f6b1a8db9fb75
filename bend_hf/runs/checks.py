"""Check names, heads, metrics, folds and splits before a model is loaded.

>>> check_model_name("onehot")
"""

from __future__ import annotations

import functools
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.config import RunConfig
from bend_hf.data.dataset import TaskData
from bend_hf.errors import ConfigError, InputError, RegistryError, did_you_mean
from bend_hf.evaluation.metrics import check_metrics, metric_folder
from bend_hf.registry import file_of, names_file
from bend_hf.runs.settings import check_folds, chosen_folds, chosen_head
from bend_hf.tasks import BinClasses, Folds, MultiLabel, NucleotideClasses, RealValues, TaskSpec, select_tasks
from bend_hf.tasks._labels import LabelKind
from bend_hf.training.heads import BASELINES, HEADS, head_of
from bend_hf.types import IGNORE_LABEL

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.embedders._embedder import Embedder

log = logging.getLogger(__name__)

_OF_EQUAL_LABELS: Final = {
    "train": "a head cannot learn to tell them from others",
    "validation": "epochs cannot be compared",
    "test": "the score says nothing about the model",
}


def check_model_name(model: str) -> None:
    """Check that a model name is registered, unless it is a path or a name on the Hub.

    Raises:
        RegistryError: It is unknown. The message names the nearest model or baseline.
    """
    from bend_hf.embedders import MODELS

    declared = model in MODELS or model in BASELINES
    if not declared and "/" not in model and not names_file(model) and not Path(model).exists():
        raise RegistryError(
            f"unknown model {model!r}: there is no such key, folder or file; "
            f"{did_you_mean(model, [*MODELS.names(), *BASELINES])}"
        )


def check_model_place(model: str, checkpoint: str | None) -> None:
    """Check that the folder or file of a model exists, unless the name may be one on the Hub.

    Args:
        model: A key, a file, a folder or a name on the Hub.
        checkpoint: Weights to use instead of the declared ones.

    Raises:
        RegistryError: The name is unknown, or there is no such file.
        ModelError: There is no such folder.
    """
    from bend_hf.embedders import MODELS
    from bend_hf.embedders._checkpoint_files import check_place

    check_model_name(model)
    if names_file(model):
        file = file_of(model).expanduser()
        if not file.is_file():
            raise RegistryError(f"there is no file {file}; check the path")
    elif model not in BASELINES:
        place = checkpoint or (None if model in MODELS else model)
        if place is not None and place not in MODELS:
            check_place(place)


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
    """Check that head, folds, splits, labels and tuning fit a task.

    Raises:
        ConfigError: They do not.
        InputError: A split is empty, or there is no label to learn from.
    """
    task, head = data.task, chosen_head(config)
    if head is not None or task.head is not None:
        head_of(head, task)
    needed = tuple(data.subsets) if data.n_folds else ("train", "validation", "test") if task.head else ("test",)
    for name in needed:
        if not len(data.subsets.get(name, ())):
            raise InputError(f"{task.key} has no item in its split {name!r}; check the split column of the BED file")
    chosen_folds(config, data)
    if task.head is not None:
        check_labels(data)
    check_decode(config)
    if config.tune != "head":
        if task.head is None:
            raise ConfigError(f"{task.key} is scored without training; leave --tune {config.tune} out")
        from bend_hf.training.finetuning import check_tunable

        check_tunable(config.tune)


@functools.lru_cache(maxsize=8)  # the models and seeds of a grid share the data, and one warning is enough
def check_labels(data: TaskData) -> None:
    """Check that there are labels to learn from, and warn of splits in which all labels are equal.

    Raises:
        InputError: The training split has no label.
    """
    task = data.task
    labels = {split: _kinds_of_label(subset, task.label) for split, subset in data.subsets.items() if len(subset)}
    learned = labels if data.n_folds else {"train": labels.get("train", 0)}
    if not any(learned.values()):
        raise InputError(
            f"{task.key}: no row of its split 'train' has a label, so there is nothing to learn; check the column label"
        )
    for split, n in labels.items():
        if n < 2:
            found = "no row has a label" if n == 0 else "all labels are equal"
            log.warning(
                "%s: %s in its split %r, so %s",
                task.key,
                found,
                split,
                _OF_EQUAL_LABELS.get(split, "its score says little"),
            )


def _kinds_of_label(dataset: Dataset, kind: LabelKind) -> int:
    """Count the different labels of a split up to two: 0 if no row is labeled, 1 if all labels are equal."""
    import pyarrow as pa
    import pyarrow.compute as pc

    name = "labels" if "labels" in dataset.column_names else "label"
    column = dataset.select_columns([name]).with_format("arrow")[:][name]
    values = column if name == "label" else pc.list_flatten(column)
    if isinstance(kind, MultiLabel):  # the indices of the positive labels
        counts = pc.value_counts(values).field("counts").to_numpy()
        return 1 if (counts == len(dataset)).all() else 2  # each label has all rows, or none
    if isinstance(kind, RealValues):
        values = values.filter(pc.is_finite(values))
    elif pa.types.is_integer(values.type):
        lowest = pc.min(values).as_py()
        values = values.filter(pc.not_equal(values, IGNORE_LABEL)) if lowest == IGNORE_LABEL else values
    ends = pc.min_max(values).as_py()
    return 0 if ends["min"] is None else 1 if ends["min"] == ends["max"] else 2


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
