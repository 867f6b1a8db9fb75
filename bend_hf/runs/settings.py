"""What a configuration means for one task: seeds, head, recipe, folds, metrics, and what is searched.

>>> chosen_head(RunConfig(task="gene_finding", model="onehot", head="linear"))
'linear'
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from bend_hf.config import RunConfig, Tune, flags_of
from bend_hf.data.dataset import TaskData
from bend_hf.errors import ConfigError
from bend_hf.evaluation.metrics import check_metrics
from bend_hf.evaluation.record import jsonable
from bend_hf.tasks import TASKS, Folds, TaskSpec
from bend_hf.training.heads import baseline_of, head_entry
from bend_hf.training.recipe import RECIPES, fewest_train_rows
from bend_hf.types import Json

if TYPE_CHECKING:
    from bend_hf.tasks._spec import Head, HeadSetting

log = logging.getLogger(__name__)

N_SEEDS: Final = 3  # of a score that can be published, unless seeds are given
_PUBLISHED_FROM: Final = ("hub", "built", "folder")
_PARTIAL: Final = ("limit", "fold", "metric", "random_init")  # flags of runs that are not published

# The learning rate of a task is meant for a new head and would destroy pretrained weights.
TUNING_RATES: Final[Mapping[Tune, float]] = MappingProxyType({"full": 3e-5, "lora": 3e-4})


def seeds_of(config: RunConfig, data: TaskData) -> tuple[int, ...]:
    """Return the seeds to run a task with: those that were asked for, or three if the score can be published.

    One training says little about a model, because another seed gives another score. Three are not worth their time
    for tasks that train nothing, for the sample, the user's own tasks and a part of the data, or if a flag changes how
    the protocol trains.

    Args:
        config: The configuration, as it was given.
        data: The data of the task.
    """
    given = config.seeds or ((config.seed,) if config.seed else ())
    changed = [
        item.name
        for item in fields(config)
        if (flags_of(RunConfig)[item.name].concerns == "recipe" or item.name in _PARTIAL)
        and getattr(config, item.name) != item.default
    ]
    real = data.task.key in TASKS and data.facts.get("origin") in _PUBLISHED_FROM
    if given or changed or not real or data.task.head is None:
        return given or (config.seed,)
    seeds = tuple(range(N_SEEDS))
    log.info(
        "%s: training with seeds %s, because one training says little; --seeds 0 trains once",
        data.task.key,
        ", ".join(map(str, seeds)),
    )
    return seeds


def resolve_config(config: RunConfig, data: TaskData) -> RunConfig:
    """Fill in the values of the task and of the protocol for the fields that are None.

    The learning rate stays None if it is searched.
    """
    task, recipe = data.task, RECIPES[config.protocol]
    if task.training is None:
        return config
    rows = {name: len(subset) for name, subset in data.subsets.items()}
    budget = recipe.budget(
        task.training,
        fewest_train_rows(rows, folds=bool(data.n_folds)),
        epochs=config.epochs,
        batch_size=config.batch_size,
        accumulation=config.gradient_accumulation,
    )
    rate = config.learning_rate or TUNING_RATES.get(config.tune)
    return replace(
        config,
        head=chosen_head(config),
        epochs=budget.epochs,
        batch_size=budget.batch_size,
        learning_rate=rate if rate or recipe.learning_rates else task.training.learning_rate,
        weight_decay=task.training.weight_decay if config.weight_decay is None else config.weight_decay,
    )


def chosen_head(config: RunConfig) -> str | None:
    """Return the head that was asked for, which may be that of a supervised baseline; None for the task's."""
    baseline = baseline_of(config.model, head=config.head, checkpoint=config.checkpoint)
    return config.head if baseline is None else baseline.head


def searched_of(config: RunConfig, head: Head | None) -> dict[str, tuple[HeadSetting, ...]]:
    """Return the values that a run searches on the validation split, by name.

    Nothing is searched if the embedder is trained too, which would take as many times as long.

    Args:
        config: The configuration, resolved for the task.
        head: The head of the run; None if nothing is trained.
    """
    if head is None or config.tune != "head":
        return {}
    return RECIPES[config.protocol].searched(head, config.learning_rate)


def head_in_key(head: Head | None, searched: Mapping[str, Sequence[HeadSetting]]) -> dict[str, Json] | None:
    """Return the head and what is searched as they enter the key of a run; None if nothing is trained."""
    entry = head_entry(head)
    return {**entry, "searched": jsonable(dict(searched))} if entry is not None and searched else entry


def chosen_folds(config: RunConfig, data: TaskData) -> list[int | None]:
    """Return the folds to run, counted from 1; a single None if the task has none.

    Raises:
        ConfigError: ``--fold`` names a fold that does not exist.
    """
    n_folds = data.n_folds if isinstance(data.task.partition, Folds) else 0
    check_folds(config.fold, data.task, n_folds)
    return list(config.fold or range(1, n_folds + 1)) if n_folds else [None]


def check_folds(folds: Sequence[int], task: TaskSpec, n_folds: int) -> None:
    """Check that a task has the folds that ``--fold`` names.

    Args:
        folds: As given, counted from 1.
        task: The task.
        n_folds: How many folds it has; 0 if it has splits instead.

    Raises:
        ConfigError: It does not have them.
    """
    if folds and not n_folds:
        raise ConfigError(f"{task.key} has no folds; leave --fold out")
    beyond = [fold for fold in folds if fold > n_folds]
    if beyond:
        raise ConfigError(f"--fold is {beyond[0]}, but {task.key} has folds 1 to {n_folds}")


def with_metrics(data: TaskData, metrics: Sequence[str]) -> TaskData:
    """Return a task's data with other metrics, the main one first; with the task's own if none are named.

    Raises:
        BendError: A metric is unknown or does not fit the task.
    """
    if metrics:
        data = replace(data, task=replace(data.task, metric=metrics[0], further_metrics=tuple(metrics[1:])))
    check_metrics(data.task)
    return data


def embedder_config(config: RunConfig) -> RunConfig:
    """Return a configuration with the embedder that a supervised baseline reads in place of its name."""
    baseline = baseline_of(config.model, head=config.head, checkpoint=config.checkpoint)
    return config if baseline is None else replace(config, model=baseline.model)
