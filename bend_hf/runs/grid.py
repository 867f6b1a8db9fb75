"""A grid of runs: every model on every task with every seed. Finished cells are skipped, failed ones are listed.

Equal grids that run at once in one folder share the cells: a process leaves the cells that others compute for later,
and takes them over if their process dies.

    results = run_grid(RunConfig(task=("gene_finding",), seeds=(0, 1)), ["onehot", "resnet-supervised"])

>>> failures([CellResult(task="gene_finding", model="onehot", seed=0, error="the disk is full")])
['gene_finding / onehot / seed 0: the disk is full']
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from bend_hf.config import RunConfig
from bend_hf.data.dataset import TaskData, task_openers
from bend_hf.errors import BendError, ConfigError, memory_error
from bend_hf.evaluation.record import ResultRecord, check_writable
from bend_hf.files import cache_folder, disk_error, free_space
from bend_hf.lease import Watch
from bend_hf.runs import run as runs
from bend_hf.runs.checks import check_fit, check_model_place, check_names
from bend_hf.runs.flag_effects import (
    check_model_flags,
    check_task_flags,
    lacking_of_model,
    with_effect,
)
from bend_hf.runs.outcome import seed_lines
from bend_hf.runs.settings import seeds_of
from bend_hf.tables import Table, number
from bend_hf.training.launch import run_on_main_process
from bend_hf.training.trackers import check_trackers
from bend_hf.types import Json

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bend_hf.embedders._embedder import Embedder

log = logging.getLogger(__name__)
T = TypeVar("T")

_WAIT_S: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What became of one model on one task with one seed: it has a record, or an error.

    Attributes:
        task: Task key.
        model: The model, as the user named it.
        seed: The seed.
        record: Of this run, or of an earlier one with the same key.
        path: Where the record is.
        skipped: Whether an earlier run was found.
        error: Why there is no record.
        lock: The lease of another process that is computing it; None if none is.
    """

    task: str
    model: str
    seed: int
    record: ResultRecord | None = None
    path: Path | None = None
    skipped: bool = False
    error: str | None = None
    lock: Path | None = None

    @property
    def state(self) -> str:
        """In a word: failed, was there or done."""
        return "failed" if self.error else "was there" if self.skipped else "done"

    def as_json(self) -> dict[str, Json]:
        """Return the record with its path and state; of a failed cell, what a record says of it, and the error."""
        if self.record is None:
            named: dict[str, Json] = {"task": self.task, "model": {"model": self.model}, "config": {"seed": self.seed}}
            return {"state": self.state, "path": None, "error": self.error, **named}
        return {"state": self.state, "path": str(self.path), "error": None, **self.record.as_json()}


def run_grid(config: RunConfig, models: Sequence[str]) -> list[CellResult]:
    """Run every cell, model by model, so that each model is loaded once; then wait for those of other processes.

    Args:
        config: What the cells share; its ``model`` is not used.
        models: The models. ``KEY=FOLDER`` is the model of that key with the weights of a folder.

    Raises:
        BendError: A task, model or tracker is unknown, or ``--out`` cannot be written. Nothing was run.
    """
    check_writable(config.out)
    check_trackers(config.tracker)
    for model in models:
        one = with_model(config, model)
        check_model_place(one.model, one.checkpoint)
    check_model_flags(config, [with_model(config, model) for model in dict.fromkeys(models)])
    check_names(config)
    openers = task_openers(config)
    accelerator = runs.start_processes(config)
    opened = {key: _attempt(partial(runs.open_data, open_one, config)) for key, open_one in openers.items()}
    check_task_flags(config, [data.task for data in opened.values() if not isinstance(data, _Failed)])
    watch = Watch()
    found = {
        _place(cell): cell
        for model in dict.fromkeys(models)
        for cell in _of_model(config, model, opened, accelerator, watch)
    }
    while waiting := [cell for cell in found.values() if cell.lock is not None]:
        log.info("waiting for %d of %d cells that other processes compute", len(waiting), len(found))
        free = run_on_main_process(accelerator, partial(_wait_for_one, [cell.lock for cell in waiting], watch))
        for model in dict.fromkeys(cell.model for cell in waiting if cell.lock in free):
            here = {(cell.task, cell.seed) for cell in waiting if cell.model == model and cell.lock in free}
            for cell in _of_model(config, model, opened, accelerator, watch, only=here):
                found[_place(cell)] = cell
    return list(found.values())


def _wait_for_one(locks: Sequence[Path | None], watch: Watch) -> list[Path]:
    """Wait until a process has freed one of some leases or has died, and return these."""
    while True:
        free = [lock for lock in locks if lock is not None and (watch.is_stale(lock) or not lock.exists())]
        if free:
            return free
        time.sleep(_WAIT_S)


def _place(cell: CellResult) -> tuple[str, str, int]:
    return cell.task, cell.model, cell.seed


@dataclass(frozen=True, kw_only=True)
class _Failed:
    """Why something could not be done."""

    reason: str


def _attempt(work: Callable[[], T]) -> T | _Failed:
    """Return the result of some work, or why it failed. Only the user's Ctrl-C is passed on."""
    try:
        return work()
    except BendError as error:
        return _Failed(reason=str(error))
    except Exception as error:  # a cell that runs out of memory must not stop the others
        failed = disk_error(error)
        if failed is not None:
            free = free_space([Path(tempfile.gettempdir()), Path.cwd(), cache_folder("")])
            return _Failed(
                reason=f"the disk is full or fails ({failed}; free: {free}); free some space and repeat the command"
            )
        memory = memory_error(error)
        if memory is not None:
            return _Failed(reason=f"{memory}; use smaller batches or fewer processes, and repeat the command")
        log.exception("this cell failed; the others continue")
        return _Failed(reason=f"{type(error).__name__}: {error}")


def with_model(config: RunConfig, model: str) -> RunConfig:
    """Set the model of a configuration.

    >>> one = with_model(RunConfig(task=("gene_finding",)), "dnabert6=models/promoters")
    >>> one.model, one.checkpoint
    ('dnabert6', 'models/promoters')

    Args:
        config: The configuration.
        model: A name, or ``KEY=FOLDER``: the model of that key with the weights of a folder.

    Raises:
        ConfigError: The key or the folder is empty, or ``checkpoint`` is set, too.
    """
    key, equals, folder = model.partition("=")
    if not equals or Path(model).exists():
        return replace(config, model=model)
    if not key or not folder:
        raise ConfigError(f"--model {model!r} is not complete; expected KEY=FOLDER, such as dnabert6=models/promoters")
    if config.checkpoint is not None:
        raise ConfigError(
            f"--model {model!r} names its weights, and so does --checkpoint {config.checkpoint!r}; leave one out"
        )
    return replace(config, model=key, checkpoint=folder)


def _of_model(
    shared: RunConfig,
    model: str,
    opened: Mapping[str, TaskData | _Failed],
    accelerator: Accelerator,
    watch: Watch,
    *,
    only: Container[tuple[str, int]] | None = None,
) -> Iterator[CellResult]:
    """Run the cells of a model, or only some tasks and seeds of it."""
    named = with_model(shared, model)
    config = with_effect(named, lacking_of_model(named.model, named.checkpoint))
    embedder = _attempt(partial(runs.open_embedder, config))
    for key, data in opened.items():
        seeds = (config.seeds or (config.seed,)) if isinstance(data, _Failed) else seeds_of(config, data)
        for place, seed in enumerate(dict.fromkeys(seeds)):
            if only is not None and (key, seed) not in only:
                continue
            cell = CellResult(task=key, model=model, seed=seed)
            result: CellResult | _Failed
            if isinstance(data, _Failed):
                result = data
            elif isinstance(embedder, _Failed):
                result = embedder
            else:
                kept = replace(config, keep=config.keep or "none")  # the heads of a large grid would fill the disk
                task = runs.prepare_task(runs.with_curve_if_first(kept, place), data, accelerator, seed)
                result = _attempt(partial(_run_cell, cell, task, embedder, watch))
            if isinstance(result, _Failed):
                accelerator.free_memory()
                log.warning("%s / %s / seed %d failed: %s", key, model, seed, result.reason)
                result = replace(cell, error=result.reason)
            yield result


def _run_cell(cell: CellResult, task: runs.PreparedTask, embedder: Embedder, watch: Watch) -> CellResult:
    check_fit(task.config, task.data)
    outcome = runs.run_once(task, embedder, watch, wait=False)
    if outcome is None:
        return replace(cell, lock=runs.model_run(task, embedder).lock)
    return replace(cell, record=outcome.record, path=outcome.path, skipped=outcome.was_there)


def grid_table(results: Sequence[CellResult]) -> str:
    """Return one row per cell, then mean and deviation over seeds, then the failures with their reasons."""
    return "\n".join([str(grid_rows(results)), *grid_lines(results)])


def grid_rows(results: Sequence[CellResult]) -> Table:
    """Return a table with one row per cell."""
    rows = [
        (
            cell.task,
            cell.model,
            str(cell.seed),
            cell.record.main_metric if cell.record else "",
            number(cell.record.value) if cell.record else "",
            cell.state,
        )
        for cell in results
    ]
    return Table(header=("task", "model", "seed", "metric", "score", "state"), rows=rows)


def grid_lines(results: Sequence[CellResult]) -> list[str]:
    """Return the mean and deviation over seeds in words, then the failures with their reasons."""
    failed = failures(results)
    report = ["", f"{len(failed)} of {len(results)} failed:", *(f"  {line}" for line in failed)] if failed else []
    return [*seed_lines([cell.record for cell in results if cell.record is not None]), *report]


def failures(results: Sequence[CellResult]) -> list[str]:
    """Return which cells failed, and why."""
    return [f"{cell.task} / {cell.model} / seed {cell.seed}: {cell.error}" for cell in results if cell.error]
