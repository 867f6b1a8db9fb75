"""Trains and scores: one model on one task or several, a result record and a prediction file each.

    accelerate launch -m bend_hf.train --task variant_effects
    accelerate launch -m bend_hf.train --task gene_finding --model onehot --data sample --epochs 5

Tasks with a split train a head on frozen embeddings through Accelerate; variant effects are scored zero-shot.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bend_hf.builder import n_outputs
from bend_hf.config import RunConfig, parse_run
from bend_hf.errors import BendError, ConfigError
from bend_hf.predictions import Predictions, concatenate, write_predictions
from bend_hf.results import ResultRecord, check_writable, free_stem, jsonable, run_name, write_record
from bend_hf.scoring import Score, metric_names, score
from bend_hf.shapes import Json
from bend_hf.sources import sources_of
from bend_hf.task_data import TaskData, open_task
from bend_hf.tasks import Folds, TaskSpec

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from bend_hf.embedders._base import Embedder
    from bend_hf.fit import Fitted, Split

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run of one task gave, and where it lies."""

    record: ResultRecord
    path: Path
    title: str
    n_scored: int


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Predictions and training of one fold, or of the whole task where there are none."""

    fold: int | None
    predictions: Predictions
    scores: tuple[Score, ...]
    fitted: Fitted | None


def run(config: RunConfig) -> list[Outcome]:
    """Runs every task of the configuration, after checking all inputs.

    Raises:
        BendError: An input is bad; nothing was trained then.
    """
    check_writable(config.out)
    sources = sources_of(config)
    opened = []
    for source, message in sources:
        log.warning(message) if "NOT BEND" in message else log.info(message)
        data = open_task(source, config)
        missing = [name for name in data.task.metrics if name not in metric_names()]
        if missing:
            raise ConfigError(f"{data.task.key} wants the metrics {missing}, which are not in metrics/")
        opened.append(data)

    from accelerate import Accelerator
    from accelerate.utils import set_seed

    from bend_hf.embedders import load_embedder

    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    embedder = load_embedder(config.model, checkpoint=config.checkpoint, protocol=config.protocol)
    outcomes = []
    for data in opened:
        set_seed(config.seed)
        outcomes.append(run_task(config, data, embedder, accelerator))
    return outcomes


def run_task(config: RunConfig, data: TaskData, embedder: Embedder, accelerator: Accelerator) -> Outcome:
    """Runs one task and writes its record and predictions."""
    started, moment = time.perf_counter(), datetime.now(UTC)
    task = data.task
    resolved = resolve_config(config, task)
    if task.variant is not None:
        parts = [_zero_shot(data, embedder, accelerator)]
    else:
        folds = _chosen_folds(config, data)
        parts = [_train_fold(resolved, data, fold, embedder, accelerator) for fold in folds]
    predictions = concatenate([part.predictions for part in parts])
    record = ResultRecord(
        task=task.key,
        protocol=config.protocol,
        model=jsonable(embedder.description),  # type: ignore[arg-type]
        data=data.facts,
        config=jsonable(asdict(resolved)),  # type: ignore[arg-type]
        metrics=_summarise(parts),
        main_metric=task.metric,
        coverage=_coverage(predictions, data, parts),
        training=_training(parts, task),
        folds=[_fold_entry(part) for part in parts if part.fold is not None],
        cost=_cost(time.perf_counter() - started, accelerator),
        predictions={},
    )
    stem = free_stem(config.out, run_name(task.key, embedder_label(embedder, config), config.seed, _stamp(moment)))
    path = stem.with_name(stem.name + ".json")
    if accelerator.is_main_process:
        file = stem.with_name(stem.name + ".parquet")
        digest = write_predictions(predictions, file)
        record = replace(record, predictions={"file": file.name, "sha256": digest, "items": len(predictions)})
        write_record(record, path)
    accelerator.wait_for_everyone()
    return Outcome(record=record, path=path, title=task.title, n_scored=len(predictions))


def resolve_config(config: RunConfig, task: TaskSpec) -> RunConfig:
    """The configuration with the task's own numbers where none were given."""
    if task.training is None:
        return config
    return replace(
        config,
        epochs=config.epochs or task.training.epochs,
        batch_size=config.batch_size or task.training.batch_size,
        learning_rate=config.learning_rate or task.training.learning_rate,
        weight_decay=task.training.weight_decay if config.weight_decay is None else config.weight_decay,
    )


def embedder_label(embedder: Embedder, config: RunConfig) -> str:
    """What a run's files call the model."""
    return embedder.spec.key if embedder.spec is not None else Path(config.model).name


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y%m%dT%H%M%S")


def _chosen_folds(config: RunConfig, data: TaskData) -> list[int | None]:
    if not isinstance(data.task.partition, Folds):
        if config.fold:
            raise ConfigError(f"{data.task.key} has no folds; leave --fold out")
        return [None]
    beyond = [fold for fold in config.fold if fold > data.n_folds]
    if beyond:
        raise ConfigError(f"--fold {beyond[0]} of {data.task.key}: there are folds 1 to {data.n_folds}")
    return list(config.fold or range(1, data.n_folds + 1))


def _zero_shot(data: TaskData, embedder: Embedder, accelerator: Accelerator) -> _Part:
    from bend_hf.variants import score_zero_shot

    assert data.task.variant is not None
    with _bar(accelerator, data.task.key, unit="variant") as bar:
        predictions = score_zero_shot(
            data.splits(None)["test"], embedder, data.task.variant, data.task.label_names, accelerator, bar.at
        )
    return _Part(fold=None, predictions=predictions, scores=_scores(data.task, predictions), fitted=None)


def _train_fold(
    config: RunConfig, data: TaskData, fold: int | None, embedder: Embedder, accelerator: Accelerator
) -> _Part:
    from bend_hf.fit import FitConfig, fit, predict
    from bend_hf.heads import build_head
    from bend_hf.losses import build_loss

    task = data.task
    settings = FitConfig.of(config)
    assert task.head is not None
    assert task.training is not None
    splits: dict[str, Split] = {name: _split(dataset, task, embedder) for name, dataset in data.splits(fold).items()}
    for name in ("train", "validation", "test"):
        if name not in splits or not len(splits[name]):
            raise ConfigError(f"{task.key} has no item in its split {name!r}; check the split column of the bed")
    head = build_head(task.head, splits["train"].embeddings.width, n_outputs(task))

    def validate(model: nn.Module) -> float | None:
        predictions = predict(model, splits["validation"], accelerator, batch_size=settings.batch_size)
        value = _scores(task, predictions, main_only=True)[0].value
        return value if np.isfinite(value) else None

    with _bar(accelerator, task.key + (f" fold {fold}" if fold else ""), unit="step") as bar:
        fitted = fit(
            head,
            splits["train"],
            build_loss(task.training.loss, positive_weight=task.training.positive_weight),
            settings,
            accelerator,
            validate,
            bar.with_loss,
        )
    head.load_state_dict(fitted.state)
    predictions = predict(head, splits["test"], accelerator, batch_size=settings.batch_size)
    return _Part(fold=fold, predictions=predictions, scores=_scores(task, predictions), fitted=fitted)


def _split(dataset: Any, task: TaskSpec, embedder: Embedder) -> Split:
    from bend_hf.batches import OnTheFly, Targets
    from bend_hf.fit import Split

    return Split(dataset=dataset, embeddings=OnTheFly(dataset, embedder), targets=Targets(dataset, task.label))


def _scores(task: TaskSpec, predictions: Predictions, *, main_only: bool = False) -> tuple[Score, ...]:
    said: NDArray[Any] | None = predictions.predicted if predictions.score is None else predictions.score
    assert said is not None
    names = predictions.label_names if predictions.score is None or said.ndim == 2 else None
    wanted = task.metrics[:1] if main_only else task.metrics
    return tuple(score(metric, said, predictions.target, names=names) for metric in wanted)


def _summarise(parts: list[_Part]) -> dict[str, Json]:
    """Each metric's value and detail; over folds the mean, with the deviation and how many folds it is over."""
    metrics: dict[str, Json] = {}
    for index, first in enumerate(parts[0].scores):
        if parts[0].fold is None:
            metrics[first.metric] = {"value": jsonable(first.value), "detail": jsonable(first.detail)}
            continue
        values = np.array([part.scores[index].value for part in parts], np.float64)
        defined = values[np.isfinite(values)]
        metrics[first.metric] = {
            "value": float(defined.mean()) if len(defined) else None,
            "detail": {
                "deviation": float(defined.std(ddof=1)) if len(defined) > 1 else None,
                "n_folds": len(values),
                "n_folds_undefined": int(len(values) - len(defined)),
            },
        }
    return metrics


def _fold_entry(part: _Part) -> dict[str, Json]:
    metrics: dict[str, Json] = {
        s.metric: {"value": jsonable(s.value), "detail": jsonable(s.detail)} for s in part.scores
    }
    return {"fold": part.fold, "items": len(part.predictions), "metrics": metrics}


def _coverage(predictions: Predictions, data: TaskData, parts: list[_Part]) -> dict[str, Json]:
    items = sum(len(data.splits(part.fold)["test"]) for part in parts)
    if len(predictions) != items:
        raise BendError(f"{data.task.key}: {len(predictions)} of {items} items were scored; this is a defect")
    return {
        "scored": len(predictions),
        "items": items,
        "windows": int(predictions.windows[-1]),
        "item_sha256": predictions.item_sha256,
    }


def _training(parts: list[_Part], task: TaskSpec) -> dict[str, Json] | None:
    if task.training is None:
        return None
    return {
        "head": jsonable(task.head),
        "loss": jsonable(task.training),
        "runs": [
            {"fold": part.fold, "best_epoch": part.fitted.best_epoch, "history": jsonable(part.fitted.history)}
            for part in parts
            if part.fitted is not None
        ],
    }


def _cost(seconds: float, accelerator: Accelerator) -> dict[str, Json]:
    import resource

    import torch

    kilobyte = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, kilobytes on Linux
    cost: dict[str, Json] = {
        "seconds": seconds,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte,
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
    }
    if accelerator.device.type == "cuda":
        cost["device_name"] = torch.cuda.get_device_name(accelerator.device)
        cost["peak_device_memory_bytes"] = torch.cuda.max_memory_allocated(accelerator.device)
    return cost


class _bar:  # noqa: N801
    """A progress bar on the main process."""

    def __init__(self, accelerator: Accelerator, name: str, *, unit: str) -> None:
        from tqdm.auto import tqdm

        self._bar = tqdm(desc=name, unit=unit, disable=not accelerator.is_main_process, dynamic_ncols=True)

    def __enter__(self) -> _bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def at(self, done: int, total: int) -> None:
        """So many of so many are done."""
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def with_loss(self, done: int, total: int, loss: float) -> None:
        """The same, with the running loss."""
        self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        self.at(done, total)


def table(outcomes: Sequence[Outcome]) -> str:
    """The scores as text: a line a task, and where the records are."""
    header = ("task", "metric", "score", "items", "data")
    lines = [
        (
            o.record.task,
            o.record.main_metric,
            "undefined" if o.record.value is None else f"{o.record.value:.4f}",
            str(o.n_scored),
            str(o.record.data.get("origin")),
        )
        for o in outcomes
    ]
    widths = [max(len(row[i]) for row in [header, *lines]) for i in range(len(header))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *lines]
    ]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def main(argv: Sequence[str] | None = None) -> int:
    """The command: parses flags, runs, prints the table; 1 where an input was bad."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("httpx", "datasets", "evaluate", "filelock", "accelerate"):
        logging.getLogger(name).setLevel(logging.WARNING)
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
    from accelerate import PartialState

    if PartialState().is_main_process:
        sys.stdout.write("\n" + table(outcomes) + "\n\n")
        sys.stdout.writelines(f"record: {outcome.path}\n" for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
