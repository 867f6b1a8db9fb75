"""Trains and scores: one model on one task or several, a result record and a prediction file each.

    accelerate launch -m bend_hf.train --task variant_effects
    accelerate launch -m bend_hf.train --task gene_finding --model onehot --data sample --epochs 5

Tasks with a split train a head on frozen embeddings through Accelerate; variant effects are scored zero-shot.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from bend_hf.config import RunConfig, Tune, parse_run
from bend_hf.data.dataset import TaskData, open_task
from bend_hf.data.sources import Source, sources_of
from bend_hf.embedders.alignment_summary import alignment_of, some_sequences
from bend_hf.embedders.from_config import open_model
from bend_hf.errors import BendError, ConfigError, RegistryError, did_you_mean
from bend_hf.evaluation.metrics import check_metrics, metric_name
from bend_hf.evaluation.predictions import concatenate, write_predictions
from bend_hf.evaluation.record import ResultRecord, check_writable, free_stem, jsonable, run_name, write_record
from bend_hf.evaluation.run_key import KEY_FIELD, run_key
from bend_hf.evaluation.uncertainty.bootstrap import with_intervals
from bend_hf.files import start_logging
from bend_hf.runs.outcome import (
    cached_bytes,
    cost,
    coverage,
    fold_entries,
    seed_lines,
    summarise,
    training_entry,
)
from bend_hf.runs.score_variants import ScoredVariants, score_task
from bend_hf.runs.train_head import RunPlan, Training
from bend_hf.tables import number, text_table
from bend_hf.tasks import Folds, TaskSpec
from bend_hf.training.heads import BASELINES, head_entry, head_of, without_alias
from bend_hf.training.launch import start_accelerator
from bend_hf.training.trackers import check_trackers
from bend_hf.types import Json

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bend_hf.embedders._embedder import Embedder

log = logging.getLogger(__name__)

# A task's own rate is meant for a fresh head and would undo a pretrained network; these are usual for fine-tuning.
TUNING_RATES: Final[Mapping[Tune, float]] = MappingProxyType({"full": 3e-5, "lora": 3e-4})


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run of one task gave, and where it lies.

    Attributes:
        record: As it was written.
        path: Where to.
        title: Of the task.
        n_scored: Items of it.
        is_main: Whether this process is the one that tells of it.
    """

    record: ResultRecord
    path: Path
    title: str
    n_scored: int
    is_main: bool = True


def run(config: RunConfig) -> list[Outcome]:
    """Runs every task of the configuration with every seed, after checking all inputs.

    Raises:
        BendError: An input is bad; nothing was trained then.
    """
    opened = open_tasks(config)
    accelerator = start_accelerator(config)
    embedder = open_embedder(config)
    outcomes = []
    for data in opened:
        for seed in config.seeds or (config.seed,):
            one = replace(config, seed=seed, seeds=())
            beside = controls_of(one, data, accelerator)
            outcomes.append(run_task(one, data, embedder, accelerator, controls=beside))
    return outcomes


def controls_of(config: RunConfig, data: TaskData, accelerator: Accelerator) -> dict[str, Json]:
    """The controls of a run where they were asked for, as a record keeps them."""
    if not config.controls:
        return {}
    from bend_hf.runs.controls._run import as_entries, run_controls

    runs = run_controls(config, data, accelerator, run_task, open_embedder, key_of, beside_model=True)
    return as_entries(runs)


def open_tasks(config: RunConfig) -> list[TaskData]:
    """The data of each task, after everything was checked that can be without a model.

    Raises:
        BendError: An input is bad, or a flag does not fit a task.
    """
    check_writable(config.out)
    check_trackers(config.tracker)
    check_model_name(config.model)
    opened = []
    for source, message in sources_of(config):
        data = open_data(source, message, config)
        check_fit(config, data)
        opened.append(data)
    return opened


def open_data(source: Source, message: str, config: RunConfig) -> TaskData:
    """One task's data, and the sentence that says where they come from.

    Raises:
        BendError: A file is bad, or a metric is not there.
    """
    log.warning(message) if "NOT BEND" in message else log.info(message)
    data = open_task(source, config)
    check_metrics(data.task.metrics)
    return data


def check_fit(config: RunConfig, data: TaskData) -> None:
    """Makes sure that head and folds fit a task.

    Raises:
        ConfigError: They do not.
    """
    head = without_alias(config).head
    if head is not None or data.task.head is not None:
        head_of(head, data.task)
    if data.task.head is not None:
        _chosen_folds(config, data)
    if config.tune != "head":
        if data.task.head is None:
            raise ConfigError(f"{data.task.key} is scored without training; leave --tune {config.tune} out")
        from bend_hf.training.finetuning import check_tunable

        check_tunable(config.tune)


def check_model_name(model: str) -> None:
    """Makes sure that a name that is no path and no name of the Hub is registered.

    Raises:
        RegistryError: It is not; the message names the nearest model or baseline.
    """
    from bend_hf.embedders import MODELS

    known = [*MODELS.names(), *BASELINES]
    declared = model in MODELS or model in BASELINES
    if not declared and "/" not in model and not model.endswith(".py") and not Path(model).exists():
        raise RegistryError(f"unknown model {model!r}; {did_you_mean(model, known)}")


def open_embedder(config: RunConfig) -> Embedder:
    """The embedder that a configuration names, or that of the baseline it names."""
    return open_model(without_alias(config))


def run_task(
    config: RunConfig,
    data: TaskData,
    embedder: Embedder,
    accelerator: Accelerator,
    *,
    controls: dict[str, Json] | None = None,
) -> Outcome:
    """Runs one task and writes its record and predictions.

    A run that was killed goes on where it was: its positions lie in ``.checkpoints`` below ``--out`` until its
    record is written.
    """
    from accelerate.utils import set_seed

    started, moment = time.perf_counter(), datetime.now(UTC)
    task = data.task
    plan = plan_of(config, data, embedder)
    name = run_name(task.key, embedder_label(embedder, config), config.seed, _stamp(moment))
    kept = config.out / ".checkpoints" / plan.key[:32]
    variants: ScoredVariants | None = None
    if plan.head is None:
        set_seed(config.seed)
        variants = score_task(data, embedder, accelerator, config.out / ".variant_parts", seed=config.seed)
        parts = [variants.part]
    else:
        training = Training(plan=plan, data=data, embedder=embedder, accelerator=accelerator, kept=kept, name=name)
        parts = [training.fold(fold) for fold in _chosen_folds(config, data)]
    predictions = concatenate([part.predictions for part in parts])
    metrics = summarise(parts)
    if variants is not None:
        metrics = variants.beside(metrics)
    record = ResultRecord(
        task=task.key,
        protocol=config.protocol,
        model={**jsonable(embedder.description), **_alias(config)},  # type: ignore[dict-item]
        data=data.facts,
        config={**jsonable(asdict(plan.config)), KEY_FIELD: plan.key},  # type: ignore[dict-item]
        metrics=with_intervals(metrics, predictions, seed=config.seed),
        controls=controls or {},
        main_metric=metric_name(task.metric),
        coverage=coverage(predictions, data, parts),
        training=training_entry(parts, task, plan.head),
        folds=fold_entries(parts),
        cost=cost(
            time.perf_counter() - started,
            accelerator,
            cache_bytes=cached_bytes(parts) if variants is None else variants.kept_bytes,
        ),
        alignment=alignment_of(embedder, some_sequences(list(data.parts.values())[-1])),
        predictions={},
    )
    stem = free_stem(config.out, name)
    path = stem.with_name(stem.name + ".json")
    if accelerator.is_main_process:
        file = stem.with_name(stem.name + ".parquet")
        digest = write_predictions(predictions, file)
        record = replace(record, predictions={"file": file.name, "sha256": digest, "items": len(predictions)})
        write_record(record, path)
        if variants is not None:
            variants.finish(stem)
        _forget(kept)
    accelerator.wait_for_everyone()
    return Outcome(
        record=record, path=path, title=task.title, n_scored=len(predictions), is_main=accelerator.is_main_process
    )


def key_of(config: RunConfig, data: TaskData, embedder: Embedder) -> str:
    """What tells a run of one task from every other; see ``bend_hf.evaluation.run_key``."""
    return plan_of(config, data, embedder).key


def plan_of(config: RunConfig, data: TaskData, embedder: Embedder) -> RunPlan:
    """What a run of one task will do."""
    resolved = resolve_config(config, data.task)
    head = None if data.task.head is None else head_of(resolved.head, data.task)
    return RunPlan(config=resolved, head=head, key=run_key(resolved, data, embedder, head_entry(head)))


def resolve_config(config: RunConfig, task: TaskSpec) -> RunConfig:
    """The configuration with the task's own numbers where none were given."""
    if task.training is None:
        return config
    return replace(
        config,
        head=without_alias(config).head,
        epochs=config.epochs or task.training.epochs,
        batch_size=config.batch_size or task.training.batch_size,
        learning_rate=config.learning_rate or TUNING_RATES.get(config.tune, task.training.learning_rate),
        weight_decay=task.training.weight_decay if config.weight_decay is None else config.weight_decay,
    )


def embedder_label(embedder: Embedder, config: RunConfig) -> str:
    """What a run's files call the model."""
    if config.model in BASELINES:
        return config.model
    return embedder.spec.key if embedder.spec is not None else Path(config.model).name


def _alias(config: RunConfig) -> dict[str, Json]:
    return {"model": config.model} if config.model in BASELINES else {}


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y%m%dT%H%M%S")


def _forget(kept: Path) -> None:
    """Removes a run's checkpoints, and their folder where no other run has any."""
    import shutil

    shutil.rmtree(kept, ignore_errors=True)
    if kept.parent.is_dir() and not any(kept.parent.iterdir()):
        kept.parent.rmdir()


def _chosen_folds(config: RunConfig, data: TaskData) -> list[int | None]:
    if not isinstance(data.task.partition, Folds):
        if config.fold:
            raise ConfigError(f"{data.task.key} has no folds; leave --fold out")
        return [None]
    beyond = [fold for fold in config.fold if fold > data.n_folds]
    if beyond:
        raise ConfigError(f"--fold {beyond[0]} of {data.task.key}: there are folds 1 to {data.n_folds}")
    return list(config.fold or range(1, data.n_folds + 1))


def table(outcomes: Sequence[Outcome]) -> str:
    """The scores as text: a line a run, and over several seeds their mean and deviation."""
    header = ("task", "metric", "score", "95 % interval", "items", "data")
    lines = [
        (
            o.record.task,
            o.record.main_metric,
            number(o.record.value),
            interval_text(o.record),
            str(o.n_scored),
            str(o.record.data.get("origin")),
        )
        for o in outcomes
    ]
    return "\n".join([text_table(header, lines), *seed_lines([o.record for o in outcomes])])


def interval_text(record: ResultRecord) -> str:
    """The interval of a record's main metric; empty where it has none."""
    entry = record.metrics.get(record.main_metric)
    interval = entry.get("interval") if isinstance(entry, dict) else None
    if not isinstance(interval, dict):
        return ""
    low, high = interval.get("low"), interval.get("high")
    if not isinstance(low, float) or not isinstance(high, float):
        return ""
    return f"{low:.4f} to {high:.4f}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command: parses flags, runs, prints the table; 1 where an input was bad."""
    start_logging()
    try:
        config = parse_run(argv, prog="bend_hf.train", description="Train and score a model on tasks of BEND.")
        outcomes = run(config)
    except BendError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    report(outcomes)
    return 0


def report(outcomes: Sequence[Outcome]) -> None:
    """Prints the table and the records' paths, on the main process."""
    if all(outcome.is_main for outcome in outcomes):
        sys.stdout.write("\n" + table(outcomes) + "\n\n")
        sys.stdout.writelines(f"record: {outcome.path}\n" for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
