"""Runs the controls of a task: a result record and a prediction file each, as for a model.

    run_controls(config, data, accelerator, train.run_task, train.open_embedder, train.key_of)

A control that a folder holds already, made of the same data with the same settings, is not run again.

>>> as_entries([])
{}
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bend_hf.config import RunConfig
from bend_hf.data.dataset import TaskData
from bend_hf.errors import ConfigError
from bend_hf.evaluation.metrics import metric_name
from bend_hf.evaluation.predictions import concatenate, write_predictions
from bend_hf.evaluation.record import ResultRecord, free_stem, jsonable, read_record, run_name, write_record
from bend_hf.evaluation.run_key import KEY_FIELD, finished_runs
from bend_hf.evaluation.uncertainty.bootstrap import with_fold, with_intervals
from bend_hf.files import json_sha256
from bend_hf.runs.controls import CONTROLS
from bend_hf.runs.controls._spec import ControlResult, ControlSpec
from bend_hf.runs.outcome import FoldResult, cost, coverage, fold_entries, scores_of, summarise
from bend_hf.tasks import Folds, TaskSpec
from bend_hf.training.launch import run_on_main_process
from bend_hf.types import Json

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bend_hf.embedders._embedder import Embedder

log = logging.getLogger(__name__)


class Ran(Protocol):
    """What a run of a model hands back."""

    @property
    def record(self) -> ResultRecord:
        """Its record."""
        ...

    @property
    def path(self) -> Path:
        """Where that lies."""
        ...


RunModel = Callable[[RunConfig, TaskData, "Embedder", "Accelerator"], Ran]
KeyOf = Callable[[RunConfig, TaskData, "Embedder"], str]


@dataclass(frozen=True, kw_only=True)
class ControlRun:
    """One control on one task.

    Attributes:
        key: Of the control.
        record: Its result record.
        path: Where that lies.
    """

    key: str
    record: ResultRecord
    path: Path


def run_controls(
    config: RunConfig,
    data: TaskData,
    accelerator: Accelerator,
    run_model: RunModel,
    open_model: Callable[[RunConfig], Embedder],
    key_of: KeyOf,
    keys: Iterable[str] | None = None,
    *,
    beside_model: bool = False,
) -> list[ControlRun]:
    """Runs the controls that say something about a task; the others are named in the log with the reason.

    Every process must call it, and gets every record. Those that are no models are computed on the main process, and
    the others wait for it. A control that was run already, or a run of a model that is the same, is taken as it is.

    Args:
        config: Of the run that they are controls of: its head, epochs, seed, folds and folder.
        data: The task's data.
        accelerator: The processes.
        run_model: Trains and scores a head on an embedder, ``bend_hf.runs.run.run_task``.
        open_model: Loads the embedder that a configuration names, ``bend_hf.runs.run.open_embedder``.
        key_of: What tells two runs of a model apart, ``bend_hf.runs.run.key_of``.
        keys: Which controls; None for all.
        beside_model: Whether the model of the configuration is run as well, so that it is no control of itself.

    Raises:
        RegistryError: There is no control of that key.
        ConfigError: A split is empty.
    """
    runs = []
    for control in [CONTROLS.get(key) for key in (CONTROLS.names() if keys is None else keys)]:
        if beside_model and control.key == config.model:
            continue
        reason = control.why_not(data.task)
        if reason is not None:
            log.info("no control %r: %s", control.key, reason)
            continue
        if control.model is not None:
            own = control.model(config)
            if own is None:
                log.info("no control %r: the model %r has none", control.key, config.model)
                continue
            runs.append(_as_model(control.key, own, data, open_model(own), accelerator, run_model, key_of))
        else:
            runs.append(run_on_main_process(accelerator, partial(run_control, config, data, control, accelerator)))
    return runs


def _as_model(
    key: str,
    config: RunConfig,
    data: TaskData,
    embedder: Embedder,
    accelerator: Accelerator,
    run_model: RunModel,
    key_of: KeyOf,
) -> ControlRun:
    """A control that is a model: the finished run that is the same, or a new one."""
    run_key = key_of(config, data, embedder)
    earlier = run_on_main_process(accelerator, partial(_finished, config.out, run_key))
    if earlier is not None:
        log.info("control %r is done: %s", key, earlier.path)
        return replace(earlier, key=key)
    ran = run_model(config, data, embedder, accelerator)
    return ControlRun(key=key, record=ran.record, path=ran.path)


def _finished(folder: Path, run_key: str) -> ControlRun | None:
    path = finished_runs(folder).get(run_key)
    return None if path is None else ControlRun(key="", record=read_record(path), path=path)


def run_control(config: RunConfig, data: TaskData, control: ControlSpec, accelerator: Accelerator) -> ControlRun:
    """Runs one control that is no model, or finds its record."""
    key = _key(config, data, control)
    found = _finished(config.out, key)
    if found is not None:
        return replace(found, key=control.key)
    started, moment = time.perf_counter(), datetime.now(UTC)
    assert control.predict is not None
    parts, all_said = [], []
    for fold in _folds(config, data):
        splits = data.splits(fold)
        for name in ("train", "validation", "test") if data.task.variant is None else ("test",):
            if not len(splits.get(name, ())):
                raise ConfigError(
                    f"{data.task.key} has no item in its split {name!r}; check the split column of the bed"
                )
        said = control.predict(data.task, splits, config.seed)
        predictions = with_fold(said.predictions, fold)
        parts.append(
            FoldResult(fold=fold, predictions=predictions, scores=scores_of(data.task, predictions), fitted=None)
        )
        all_said.append(said)
    predictions = concatenate([part.predictions for part in parts])
    stem = free_stem(config.out, run_name(data.task.key, control.key, config.seed, moment.strftime("%Y%m%dT%H%M%S")))
    path, file = (stem.with_name(stem.name + ending) for ending in (".json", ".parquet"))
    digest = write_predictions(predictions, file)
    record = ResultRecord(
        task=data.task.key,
        protocol=config.protocol,
        model=_model(config, control, all_said),
        data=data.facts,
        config={**jsonable(asdict(replace(config, model=control.key))), KEY_FIELD: key},  # type: ignore[dict-item]
        metrics=with_intervals(summarise(parts), predictions, seed=config.seed),
        main_metric=metric_name(data.task.metric),
        coverage=coverage(predictions, data, parts),
        training=_training(control, data.task, parts, all_said),
        folds=fold_entries(parts),
        cost=cost(time.perf_counter() - started, accelerator),
        predictions={"file": file.name, "sha256": digest, "items": len(predictions)},
    )
    write_record(record, path)
    return ControlRun(key=control.key, record=record, path=path)


def as_entries(runs: Sequence[ControlRun]) -> dict[str, Json]:
    """The controls as the record of a model keeps them: sentence and metrics by key."""
    return {run.key: {"description": CONTROLS.get(run.key).text, "metrics": run.record.metrics} for run in runs}


def _folds(config: RunConfig, data: TaskData) -> list[int | None]:
    if not isinstance(data.task.partition, Folds):
        return [None]
    return list(config.fold or range(1, data.n_folds + 1))


def _key(config: RunConfig, data: TaskData, control: ControlSpec) -> str:
    """What tells two runs of a control apart: not the model, nor how its head was trained."""
    facts = {name: data.facts.get(name) for name in ("assembly", "files", "items", "changes", "revision")}
    return json_sha256(
        {
            "control": control.key,
            "task": jsonable({"key": data.task.key, "label": data.task.label, "metrics": data.task.metrics}),
            "data": facts,
            "protocol": config.protocol,
            "seed": config.seed,
            "fold": list(config.fold),
        }
    )


def _model(config: RunConfig, control: ControlSpec, said: Sequence[ControlResult]) -> dict[str, Json]:
    """The control in the place of an embedder's description."""
    return {
        "model": control.key,
        "family": "control",
        "description": control.text,
        "checkpoint": "",
        "revision": None,
        "width": max(said[0].n_features, 1),
        "n_parameters": max(one.n_parameters for one in said),
        "protocol": config.protocol,
        "layer": -1,
        "dtype": "float64",
        "random_init": False,
    }


def _training(
    control: ControlSpec, task: TaskSpec, parts: Sequence[FoldResult], said: Sequence[ControlResult]
) -> dict[str, Json] | None:
    if task.variant is not None:
        return None
    return {
        "head": {"kind": control.head},
        "loss": None,
        "runs": [{"fold": part.fold, **one.learned} for part, one in zip(parts, said, strict=True)],
    }
