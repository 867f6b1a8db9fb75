"""One run: one model on one task, from the configuration to the result record. Read ``run`` and ``run_task`` first.

    outcomes = run(RunConfig(task=("gene_finding",), data="sample", model="onehot", epochs=5))
    print(outcomes[0].record.value, outcomes[0].path)

    accelerate launch -m bend_hf.train --task gene_finding --data sample --model onehot --epochs 5

``prepare`` checks every input and opens the data before a model is loaded. Tasks with splits train a head on
embeddings; variant effects are scored zero-shot; controls are runs too. What only some runs need, such as the scoring
of variants, is imported where they need it.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bend_hf.config import Keep, RunConfig, scored_settings
from bend_hf.data.dataset import TaskData, limited, task_openers
from bend_hf.embedders._loaded_model import content_facts
from bend_hf.embedders._probe import identity_in
from bend_hf.embedders.alignment_summary import alignment_of, some_sequences
from bend_hf.embedders.from_config import open_model
from bend_hf.errors import ControlError
from bend_hf.evaluation.dataset_items import identity_of
from bend_hf.evaluation.diagnostics import distance_to_training
from bend_hf.evaluation.evidence import predictions_next_to, read_verified
from bend_hf.evaluation.predictions import read_predictions
from bend_hf.evaluation.record import ResultRecord, check_writable, free_stem, jsonable, member, run_name
from bend_hf.evaluation.run_key import KEY_FIELD, control_key, name_in_key, run_key, runs_of_key
from bend_hf.evaluation.shots import ShotHeads
from bend_hf.files import SCORED_VARIANTS, TRAINING_STATE
from bend_hf.lease import Watch
from bend_hf.runs.checks import check_declarations, check_fit, check_model_place, check_names, check_pooled
from bend_hf.runs.claim import claimed, lock_of
from bend_hf.runs.controls import CONTROLS, ControlSpec
from bend_hf.runs.flag_effects import check_model_flags, check_task_flags, lacking_of_task, with_effect
from bend_hf.runs.outcome import Outcome, RunInfo, RunResults, build_record, label_of, write_outcome
from bend_hf.runs.settings import (
    chosen_folds,
    embedder_config,
    head_in_key,
    resolve_config,
    searched_of,
    seeds_of,
    with_metrics,
)
from bend_hf.runs.shot_plot import curve_files, draw_curve, has_matplotlib
from bend_hf.runs.train_head import train_head
from bend_hf.training.heads import BASELINES, head_of
from bend_hf.training.launch import run_on_main_process, start_accelerator
from bend_hf.training.trackers import check_trackers
from bend_hf.types import Json
from bend_hf.user_code import key_with_code

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bend_hf.embedders._embedder import Embedder
    from bend_hf.tasks._spec import Head, HeadSetting
    from bend_hf.training.layer_mix import MixedLayers

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PreparedTask:
    """One task and one seed of a configuration. Every input is checked, and no model is loaded.

    Attributes:
        config: As the user gave it, with one seed.
        data: The task's data.
        accelerator: The processes.
        is_object: Whether the model is an object in memory, which ``config.model`` names but cannot open.
    """

    config: RunConfig
    data: TaskData
    accelerator: Accelerator
    is_object: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    """One model, or one control, on one prepared task.

    Attributes:
        config: The configuration with the task's own values filled in.
        data: The task's data.
        accelerator: The processes.
        key: Hash of everything that affects the scores; see ``bend_hf.evaluation.run_key``.
        label: What the files of the run call the model.
        folds: The folds to run, counted from 1; a single None if the task has none.
        control: The control that the run is; None for the model itself.
    """

    config: RunConfig
    data: TaskData
    accelerator: Accelerator
    key: str
    label: str
    folds: Sequence[int | None]
    control: ControlSpec | None = None

    @property
    def checkpoints(self) -> Path:
        """Folder of the training state, from which an interrupted run resumes."""
        return self.config.out / TRAINING_STATE / self.key[:32]

    @property
    def lock(self) -> Path:
        """The lease of the process that computes the run, see ``claimed_run``."""
        return lock_of(self.config.out, self.key)

    @property
    def scored_batches(self) -> Path:
        """Folder of scored variants, from which an interrupted run resumes."""
        return self.config.out / SCORED_VARIANTS


@dataclass(frozen=True, kw_only=True)
class ModelRun(Run):
    """A run of a model.

    Attributes:
        embedder: The model, which may load its weights when they are needed.
        identity: The embedder's identity in the folder of the records; part of the run's key.
        head: What is trained on its embeddings; None if the task is scored zero-shot.
        searched: Values that are searched on the validation split, by name; see ``training.recipe``.
        is_object: Whether the embedder is an object in memory, which ``config.model`` names but cannot open.
        mix: The layers that the head reads at once; None if it reads one.
    """

    embedder: Embedder
    identity: Mapping[str, str]
    head: Head | None
    searched: Mapping[str, Sequence[HeadSetting]] = field(default_factory=dict)
    is_object: bool = False
    mix: MixedLayers | None = None

    @property
    def keep(self) -> Keep:
        """Which trained weights are kept: those of the best epoch unless something else was asked for."""
        return "none" if self.head is None or self.control is not None else self.config.keep or "best"

    @property
    def description(self) -> dict[str, Json]:
        """The embedder's description for the record, under the name of the supervised baseline if it is one."""
        facts = {**self.embedder.description, **content_facts(self.identity), "identity": dict(self.identity)}
        described = {name: jsonable(value) for name, value in facts.items()}
        return {**described, "model": self.config.model} if self.config.model in BASELINES else described

    @property
    def alignment(self) -> dict[str, Json]:
        """How the embedder's tokens become nucleotides, measured on some sequences of the task."""
        return alignment_of(self.embedder, some_sequences(list(self.data.subsets.values())[-1]))


@dataclass(frozen=True, kw_only=True)
class ControlRun(Run):
    """A run of a control that predicts without a model.

    Attributes:
        control: What predicts.
    """

    control: ControlSpec = field()


def run(config: RunConfig, embedder: Embedder | None = None) -> list[Outcome]:
    """Run every task of a configuration with every seed, with the controls first if they are asked for.

    Args:
        config: The configuration.
        embedder: A loaded model, which the configuration only names; None opens the one that it names.

    Raises:
        BendError: An input is bad. Nothing was trained in that case.
    """
    tasks = prepare(config, is_object=embedder is not None)
    embedder = embedder or open_embedder(config)
    watch = Watch()
    outcomes = [run_once(task, embedder, watch) for task in tasks]
    return [outcome for outcome in outcomes if outcome is not None]


def run_once(task: PreparedTask, embedder: Embedder, watch: Watch, *, wait: bool = True) -> Outcome | None:
    """Return the finished run of a model on a task, or compute it. Every process must call it.

    ``bend-hf train``, ``bend-hf run`` and ``bend_hf.evaluate`` repeat no run that has a record in ``--out``, unless the
    configuration forces it.

    Args:
        task: The task, as prepared.
        embedder: The model.
        watch: Remembers the leases of other processes; one for all calls.
        wait: Wait while another process computes the run.

    Returns:
        The outcome, with the controls if they are asked for; None if another process is computing the run.
    """
    # looked up for each run, because it may be the control of an earlier one
    of_model = model_run(task, embedder)
    with claimed_run(of_model, watch, wait=wait) as earlier:
        if isinstance(earlier, Outcome):
            place = f"{earlier.record.task} / {task.config.model} / seed {task.config.seed}"
            log.info("%s was there: %s; --force repeats it", place, earlier.path)
            if of_model.keep != "none" and not earlier.record.kept:
                log.info("%s: its trained weights were not kept; --force repeats it and keeps them", place)
            return _with_controls(task, earlier)
        return run_with_controls(task, of_model) if earlier else None


def _with_controls(task: PreparedTask, earlier: Outcome) -> Outcome:
    """Run the controls of an earlier run that are asked for and that it was recorded without."""
    if not _wants_controls(task.config) or earlier.record.controls:
        return earlier
    entry = controls_entry(run_controls_of(task))
    return replace(earlier, record=replace(earlier.record, controls=entry))


def _wants_controls(config: RunConfig) -> bool:
    """Whether controls are run too: a curve over few rows is compared with them at each number of rows."""
    return config.controls or bool(config.shots)


def run_controls_of(task: PreparedTask) -> list[Outcome]:
    """Run the controls of a task, unless they were run before."""
    task = replace(task, config=replace(task.config, force=False))
    return [run_task(control) for control in controls_of(task, with_model=True)]


def prepare(config: RunConfig, *, is_object: bool = False) -> list[PreparedTask]:
    """Check everything that can be checked without a model, open the data and start the processes.

    Args:
        config: The configuration.
        is_object: Whether the model is an object in memory, which the configuration only names.

    Returns:
        One for each task and seed.

    Raises:
        BendError: An input is bad, or a flag does not fit a task.
    """
    check_writable(config.out)
    check_trackers(config.tracker)
    if not is_object:
        check_model_place(config.model, config.checkpoint)
        check_model_flags(config)
    check_names(config)
    check_declarations(config)
    opened = []
    for open_one in task_openers(config).values():
        data = open_data(open_one, config)
        check_fit(config, data)
        opened.append(data)
    check_task_flags(config, [data.task for data in opened])
    accelerator = start_processes(config)
    return [
        replace(prepare_task(with_curve_if_first(config, place), data, accelerator, seed), is_object=is_object)
        for data in opened
        for place, seed in enumerate(seeds_of(config, data))
    ]


def with_curve_if_first(config: RunConfig, place: int) -> RunConfig:
    """Return a configuration without ``--shots`` for all seeds but the first: a curve has seeds of its own.

    Args:
        config: The configuration.
        place: Which of the seeds it is used with, counted from 0.
    """
    return config if place == 0 else replace(config, shots=())


def prepare_task(config: RunConfig, data: TaskData, accelerator: Accelerator, seed: int) -> PreparedTask:
    """Return one task with one seed. Flags that have no effect on the task are at their default."""
    config = replace(with_effect(config, lacking_of_task(data.task)), seed=seed, seeds=())
    return PreparedTask(config=config, data=data, accelerator=accelerator)


def run_with_controls(task: PreparedTask, run: ModelRun) -> Outcome:
    """Compute the run of a model on a task; with ``--controls``, run its controls first and record them with it."""
    return run_task(run, run_controls_of(task) if _wants_controls(task.config) else [])


def run_controls(config: RunConfig, keys: Sequence[str] | None = None, *, installed: bool = False) -> list[Outcome]:
    """Run the controls of every task of a configuration with every seed, without the model.

    Args:
        config: Configuration of the model that the controls are compared with.
        keys: Which controls; None for all that fit each task and need nothing of the machine.
        installed: Run instead those that need something of the machine, if it is installed.

    Raises:
        BendError: An input is bad, or a control that was named is not installed. Nothing was trained in that case.
    """
    for key in keys or ():
        if (reason := CONTROLS.get(key).why_absent()) is not None:
            raise ControlError(reason)
    keys = chosen_controls(installed=installed) if keys is None else keys
    return [run_task(control) for task in prepare(config) for control in controls_of(task, keys)]


def chosen_controls(*, installed: bool) -> list[str]:
    """Return the controls that need nothing of the machine, or those that need something and have it.

    The log says how to get what is not installed. By default, a run gives the same controls on every machine.
    """
    if not installed:
        return [control.key for control in CONTROLS if control.provenance is None]
    chosen = []
    for control in CONTROLS:
        if (reason := control.why_absent()) is not None:
            log.warning("%s", reason)
        elif control.provenance is not None:
            chosen.append(control.key)
    return chosen


def run_task(run: Run, controls: Sequence[Outcome] = ()) -> Outcome:
    """Compute, record and write one run. Every process must call it.

    An interrupted run resumes when it is repeated: its state lies below ``--out`` until the record is written. A
    control that was run before, or that another process is running, is not run again unless it is forced; one that
    needs no model runs on the main process only.

    Args:
        run: What to run.
        controls: Finished controls of the run, which its record shows.
    """
    if run.control is None:
        return _run_task(run, controls)
    with claimed_run(run, Watch(), wait=True) as earlier:
        if isinstance(earlier, Outcome):
            log.info("control %r is done: %s", run.control.key, earlier.path)
            return earlier
        return _run_task(run, controls)


def _run_task(run: Run, controls: Sequence[Outcome]) -> Outcome:
    if isinstance(run, ControlRun):
        outcome = run_on_main_process(run.accelerator, partial(_compute_and_write, run, controls))
    else:
        outcome = _compute_and_write(run, controls)
        run.accelerator.wait_for_everyone()
    return outcome


def _compute_and_write(run: Run, controls: Sequence[Outcome]) -> Outcome:
    started, name = time.perf_counter(), name_of_run(run)
    return write_run(run, compute(run, name), name, started=started, controls=controls)


def name_of_run(run: Run) -> str:
    """Return the name of the files of a run that begins now."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    return run_name(run.data.task.key, run.label, run.config.seed, moment)


def write_run(run: Run, results: RunResults, name: str, *, started: float, controls: Sequence[Outcome] = ()) -> Outcome:
    """Build the record of a run, and write it with what belongs to it. Every process must call it.

    Args:
        run: The run.
        results: What was computed.
        name: Name of its files, see ``name_of_run``.
        started: ``time.perf_counter()`` at its start.
        controls: Finished controls of the run, which its record shows.
    """
    from bend_hf.evaluation.audit.task_audit import audit_for_record

    if results.shots is not None and results.shot_heads is not None and run.control is None:
        from bend_hf.runs.few_shots import with_controls

        results = replace(results, shots=with_controls(results.shots, results.shot_heads, _shot_heads_of(controls)))
    audit = run_on_main_process(run.accelerator, partial(audit_for_record, run.data))
    info = RunInfo(
        task=run.data.task.key,
        protocol=run.config.protocol,
        settings={**{name: jsonable(value) for name, value in asdict(run.config).items()}, KEY_FIELD: run.key},
        data={**run.data.facts, "identity": identity_of(run.data), "audit": audit},
        n_items=sum(len(run.data.splits(fold)["test"]) for fold in run.folds),
        accelerator=run.accelerator,
        started=started,
        distance_bp=distance_to_training(run.data, run.folds),
        metric=run.data.task.metric,
    )
    record = build_record(info, results, controls_entry(controls))
    outcome = Outcome(record=record, path=run.config.out / f"{name}.json")
    if run.accelerator.is_main_process:
        stem = free_stem(run.config.out, name)
        outcome = write_outcome(record, results, stem)
        _clean_up(run, outcome.record, results, stem)
    return replace(outcome, control=None if run.control is None else run.control.key)


def _shot_heads_of(controls: Sequence[Outcome]) -> dict[str, ShotHeads]:
    from bend_hf.runs.few_shots import shot_heads_next_to

    found = {str(one.control): shot_heads_next_to(one.record, one.path) for one in controls}
    return {key: heads for key, heads in found.items() if heads is not None}


def compute(run: Run, name: str) -> RunResults:
    """Predict the test items of a run, and score the predictions.

    Args:
        run: What to run.
        name: Name of the run for trackers.
    """
    match run:
        case ControlRun():
            from bend_hf.runs.controls._predict import predict_control

            return predict_control(run)
        case ModelRun(head=None):
            from bend_hf.runs.score_variants import score_variant_task

            results = score_variant_task(run)
        case ModelRun():
            results = train_head(run, name)
        case _:
            raise TypeError(f"{type(run).__name__} is not a run; give a ModelRun or a ControlRun")
    return replace(results, model=run.description, alignment=run.alignment)


def claimed_run(run: Run, watch: Watch, *, wait: bool) -> AbstractContextManager[Outcome | bool]:
    """Claim a run, see ``claimed``; the outcome of an earlier run with the same key is found unless it is forced."""
    return claimed(run.lock, run.accelerator, lambda: None if run.config.force else _find(run), watch, wait=wait)


def _find(run: Run) -> Outcome | None:
    control = None if run.control is None else run.control.key
    for path in runs_of_key(run.config.out, run.key):
        record = read_verified(path)
        lacking = _lacking(run.config, record)
        if not lacking:
            _finish(run, record, path)
            return Outcome(record=record, path=path, control=control, was_there=True)
        log.info("%s has no %s, so the run is repeated", path, lacking)
    return None


def _lacking(config: RunConfig, record: ResultRecord) -> str:
    """Name what a configuration asks for and a record does not hold; empty if nothing."""
    if config.strand_report and record.strands is None:
        return "strand report"
    asked = member(record.shots, "asked")
    if set(config.shots) - set(asked if isinstance(asked, list) else ()):
        return f"curve over {', '.join(config.shots)} shots"
    return ""


def _finish(run: Run, record: ResultRecord, path: Path) -> None:
    """Do what an earlier run did not come to after its record, such as on a full disk."""
    stem = path.with_name(path.name.removesuffix(".json"))
    if record.shots is not None and run.control is None and has_matplotlib() and not _are_there(curve_files(stem)):
        draw_curve(record, stem)
    if isinstance(run, ModelRun) and run.head is None:
        _finish_variants(run, record, path, stem)
    _remove_state(run)


def _finish_variants(run: ModelRun, record: ResultRecord, path: Path, stem: Path) -> None:
    from bend_hf.runs.score_variants import keys_of_batches, title_of_figure
    from bend_hf.variants.checkpoint import ScoringCheckpoint
    from bend_hf.variants.plots import draw_missing, figure_files

    file = predictions_next_to(record, path)
    if has_matplotlib() and file is not None and not _are_there(figure_files(stem)):
        draw_missing(read_predictions(file), stem, title=title_of_figure(run))
    if run.scored_batches.is_dir():
        ScoringCheckpoint(run.scored_batches).remove(keys_of_batches(run))


def _are_there(files: Sequence[Path]) -> bool:
    return all(file.is_file() for file in files)


def _clean_up(run: Run, record: ResultRecord, results: RunResults, stem: Path) -> None:
    """Draw scores of variants and curves over few rows, then remove what an interrupted run would resume from."""
    if record.shots is not None and run.control is None:
        draw_curve(record, stem)
    if results.figure_title is not None:
        from bend_hf.variants.plots import draw_missing

        draw_missing(results.predictions, stem, title=results.figure_title)
    if results.batch_keys:
        from bend_hf.variants.checkpoint import ScoringCheckpoint

        ScoringCheckpoint(run.scored_batches).remove(list(results.batch_keys))
    _remove_state(run)


def _remove_state(run: Run) -> None:
    """Remove the training state of a finished run."""
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    if run.checkpoints.parent.is_dir() and not any(run.checkpoints.parent.iterdir()):
        run.checkpoints.parent.rmdir()


def model_run(task: PreparedTask, embedder: Embedder, control: ControlSpec | None = None) -> ModelRun:
    """Return the run of a model on a task.

    Args:
        task: The task, as prepared.
        embedder: The model that ``task.config`` names.
        control: The control that the model is, if it is one.
    """
    config = replace(resolve_config(task.config, task.data), model_dtype=embedder.dtype)
    identity = identity_in(config.out, embedder)
    check_pooled(embedder, task.data.task)
    head = None if task.data.task.head is None else head_of(config.head, task.data.task)
    searched = searched_of(config, head)
    if head is None:
        from bend_hf.variants.scores import own_scores

        identity |= {f"score {key}": code for key, code in own_scores().items()}
    return ModelRun(
        config=config,
        data=task.data,
        accelerator=task.accelerator,
        key=run_key(scored_settings(config), task.data, identity, head_in_key(head, searched)),
        label=label_of(embedder, config.model),
        folds=chosen_folds(config, task.data),
        control=control,
        embedder=embedder,
        identity=identity,
        head=head,
        searched=searched,
        is_object=task.is_object and control is None,
    )


def controls_of(task: PreparedTask, keys: Sequence[str] | None = None, *, with_model: bool = False) -> Iterator[Run]:
    """Yield the runs of the controls that fit a task; the log says why the others do not.

    Args:
        task: The task, as prepared for the model that the controls are compared with.
        keys: Which controls; None for all that need nothing of the machine.
        with_model: Whether the model itself is run too, so that it is not a control of itself.

    Raises:
        RegistryError: A control is unknown.
    """
    for control in [CONTROLS.get(key) for key in (chosen_controls(installed=False) if keys is None else keys)]:
        reason = control.why_not(task.data.task)
        if with_model and control.key == task.config.model:
            continue
        if reason is not None:
            log.info("no control %r: %s", control.key, reason)
        elif control.model is None:
            yield control_run(task, control)
        elif (config := control.model(task.config)) is None or (task.is_object and config.model == task.config.model):
            log.info("no control %r: the model %r has none", control.key, task.config.model)
        else:
            yield model_run(replace(task, config=config), open_embedder(config), control)


def control_run(task: PreparedTask, control: ControlSpec) -> ControlRun:
    """Return the run of a control that predicts without a model."""
    version, content = (
        (None, None) if control.provenance is None else (control.provenance.version(), control.provenance.content())
    )
    return ControlRun(
        # a control chooses classes by itself, and is not asked about the other strand; what it takes from the machine
        # does not depend on the training rows
        config=replace(
            task.config,
            model=control.key,
            model_dtype="float32",
            decode="argmax",
            strand_report=False,
            shots=task.config.shots if control.provenance is None else (),
        ),
        data=task.data,
        accelerator=task.accelerator,
        key=control_key(
            name_in_key(key_with_code(control), version, content),
            task.data,
            protocol=task.config.protocol,
            seed=task.config.seed,
            fold=task.config.fold,
        ),
        label=control.key,
        folds=chosen_folds(task.config, task.data),
        control=control,
    )


def controls_entry(controls: Sequence[Outcome]) -> dict[str, Json]:
    """Return the controls as the record of a model holds them: description and metrics by key."""
    return {
        one.control: {
            "description": CONTROLS.get(one.control).text,
            "metrics": one.record.metrics,
            **{name: one.record.model[name] for name in ("provenance",) if name in one.record.model},
            **({} if one.record.shots is None else {"shots": one.record.shots["points"]}),
        }
        for one in controls
        if one.control is not None
    }


def open_data(open_one: Callable[[], TaskData], config: RunConfig) -> TaskData:
    """Open the data of one task, with the limit and the metrics of a configuration."""
    return with_metrics(limited(open_one(), config.limit), config.metric)


def open_embedder(config: RunConfig) -> Embedder:
    """Open the embedder that a configuration names, or that of the supervised baseline it names.

    One that is read from files loads when it is first needed.
    """
    return open_model(embedder_config(config), lazy=True)


def start_processes(config: RunConfig) -> Accelerator:
    """Start the processes of a run.

    Raises:
        ConfigError: This machine does not support the precision, or the number of processes is not ``--processes``.
    """
    return start_accelerator(
        mixed_precision=config.mixed_precision,
        processes=config.processes,
        tunes=config.tune != "head",
        device=config.device,
        tf32=config.tf32,
    )
