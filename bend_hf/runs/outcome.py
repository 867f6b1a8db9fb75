"""What a run computed, and the result record it becomes; the only place that builds a ``ResultRecord``.

Trained heads, zero-shot variants, controls and files of variants all end here.

>>> from bend_hf.evaluation.metrics import Score
>>> fold = FoldResult(fold=None, predictions=None, scores=(Score(metric="mcc", value=0.5, detail={}),))
>>> summarize([fold])["mcc"]["value"]
0.5
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bend_hf.errors import BendError
from bend_hf.evaluation.chance import is_labeled, with_chance
from bend_hf.evaluation.diagnostics import diagnostics_of
from bend_hf.evaluation.gene_structure import sequence_of
from bend_hf.evaluation.identity import CONTENT
from bend_hf.evaluation.metrics import Rows, Score, score
from bend_hf.evaluation.predictions import Predictions, concatenate, write_predictions
from bend_hf.evaluation.record import ResultRecord, jsonable, member, write_record
from bend_hf.evaluation.remarks import remarks
from bend_hf.evaluation.shots import FewHeads, ShotHeads, passes_text
from bend_hf.evaluation.strands import BothStrands, strand_text
from bend_hf.evaluation.uncertainty.bootstrap import folds_of
from bend_hf.evaluation.uncertainty.intervals import with_intervals
from bend_hf.tables import Table, number
from bend_hf.tasks import TaskSpec
from bend_hf.training.heads import BASELINES
from bend_hf.types import Ints, Json, ProtocolName

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

    from bend_hf.embedders._embedder import Embedder
    from bend_hf.training.kept_head import KeptHead


log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ScoredPredictions:
    """Predictions with the scores of a task's metrics, the main one first."""

    predictions: Predictions
    scores: tuple[Score, ...]


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """What one fold gave, or the whole task if it has no folds.

    Attributes:
        fold: Counted from 1; None if the task has no folds.
        predictions: Of the test split; with a column ``fold`` if there are folds.
        scores: The task's metrics of them, the main one first.
        training: What the record keeps of the training, such as the best epoch; None if nothing was trained.
        cache_files: Files of the embedding cache that were read.
        head: The trained weights; None if they are not kept.
        argmax: The most probable classes, if ``predictions`` are decoded in another way; None otherwise.
        strands: Predictions on both strands; None if they were not asked for.
        few: What heads predict that were trained on few rows; None if they were not asked for.
    """

    fold: int | None
    predictions: Predictions
    scores: tuple[Score, ...] = ()
    training: Mapping[str, Json] | None = None
    cache_files: frozenset[Path] = frozenset()
    head: KeptHead | None = None
    argmax: ScoredPredictions | None = None
    strands: BothStrands | None = None
    few: FewHeads | None = None


@dataclass(frozen=True, kw_only=True)
class RunResults:
    """What a run computed.

    Attributes:
        folds: One for each fold; a single one if there are none.
        model: Description of what predicted.
        head: Description of what was trained; None if nothing was.
        loss: Description of the loss; None if there was none.
        search: What was searched on the validation split; empty if that is not known.
        metrics: The record's metrics; None summarizes the scores of the folds and gives them intervals.
        detail: What else the record says under the main metric.
        further: Predictions of further heads by name; each is written to a file of its own.
        cache_bytes: Size of the embeddings that the run kept on disk.
        batch_keys: Keys of the scored variants on disk, which are removed when the record is written.
        figure_title: Title of the figure of the scores; None draws none.
        alignment: How tokens became nucleotides; None if there are no tokens.
        probabilities: Whether the scores are probabilities.
        strands: What the record says of both strands; None if it was not asked for.
        layers: Which layers were tried with this one; None if it is no part of a sweep over layers.
        shots: What the record says of heads that were trained on few rows; None if it was not asked for.
        shot_heads: Predictions of these heads.
    """

    folds: Sequence[FoldResult]
    model: Mapping[str, Json] = field(default_factory=dict)
    head: Json = None
    loss: Json = None
    search: Mapping[str, Json] = field(default_factory=dict)
    metrics: Mapping[str, Json] | None = None
    detail: Mapping[str, Json] = field(default_factory=dict)
    further: Mapping[str, Predictions] = field(default_factory=dict)
    cache_bytes: int = 0
    batch_keys: Sequence[str] = ()
    figure_title: str | None = None
    alignment: dict[str, Json] | None = None
    probabilities: bool = False
    strands: dict[str, Json] | None = None
    layers: Mapping[str, Json] | None = None
    shots: dict[str, Json] | None = None
    shot_heads: ShotHeads | None = None

    @cached_property
    def predictions(self) -> Predictions:
        """The predictions of all folds, in the order of the items."""
        return concatenate([fold.predictions for fold in self.folds])

    @property
    def kept_head(self) -> KeptHead | None:
        """The trained weights to keep: those of the fold that was best on its validation split, the first of equals."""
        heads = [fold.head for fold in self.folds if fold.head is not None]
        if not heads:
            return None
        return max(heads, key=lambda one: -math.inf if one.config.validation is None else one.config.validation)


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a record says of a run besides its results.

    Attributes:
        task: Task key.
        protocol: Which flaws of the paper are fixed.
        settings: The resolved configuration, with the run key or the file of variants.
        data: Origin, hashes and counts of the data.
        n_items: Items that were to be scored.
        accelerator: What the run ran on.
        started: ``time.perf_counter()`` at its start.
        distance_bp: How far each item lies from the nearest training row; see ``distance_to_training``.
        metric: The main metric, or the path of its folder; None if it is one of this package.
    """

    task: str
    protocol: ProtocolName
    settings: Mapping[str, Json]
    data: dict[str, Json]
    n_items: int
    accelerator: Accelerator
    started: float
    distance_bp: tuple[Ints, Ints] | None = None
    metric: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished run.

    Attributes:
        record: As it was written.
        path: Where it was written.
        control: Key of the control that the run is; None for the model itself.
        was_there: Whether an earlier run was found, and nothing was computed.
    """

    record: ResultRecord
    path: Path
    control: str | None = None
    was_there: bool = False

    def as_json(self) -> dict[str, Json]:
        """Return the record with its path, the state of the run (``done`` or ``was there``) and the control it is."""
        state = "was there" if self.was_there else "done"
        return {"state": state, "path": str(self.path), "control": self.control, **self.record.as_json()}


def build_record(info: RunInfo, results: RunResults, controls: dict[str, Json] | None = None) -> ResultRecord:
    """Build the result record of a run. Its entry ``predictions`` is filled by ``write_outcome``.

    Args:
        info: What is known without the results.
        results: What was computed.
        controls: Description and metrics of each control on the same items, by key.

    Raises:
        BendError: Not every item was scored.
    """
    predictions = results.predictions
    if len(predictions) != info.n_items:
        raise BendError(f"{info.task}: {len(predictions)} of {info.n_items} items were scored; please report this bug")
    scored = predictions.n_answered
    if scored < info.n_items:
        log.warning(
            "%s: only %d of %d items have a score; the result cannot be published", info.task, scored, info.n_items
        )
    metrics = results.metrics
    if metrics is None:
        metrics = with_detail(summarize(results.folds), results.detail)
        metrics = with_intervals(metrics, predictions)
    main, labeled = next(iter(metrics)), is_labeled(predictions)
    metrics = with_chance(metrics, predictions) if labeled else metrics
    per_label = member(dict(metrics), main, "detail", "per_label")
    diagnostics = None
    if labeled:
        diagnostics = diagnostics_of(
            predictions,
            info.metric or main,
            probabilities=results.probabilities,
            distance_bp=info.distance_bp,
            per_label=per_label if isinstance(per_label, list) else [],
        )
    return ResultRecord(
        task=info.task,
        protocol=info.protocol,
        model=dict(results.model),
        data=info.data,
        config=dict(info.settings),
        metrics=dict(metrics),
        main_metric=main,
        coverage={
            "scored": scored,
            "items": info.n_items,
            "windows": int(predictions.windows[-1]),
            "item_sha256": predictions.item_sha256,
            "identity": CONTENT,
        },
        training=_training(results),
        folds=fold_entries(results.folds),
        cost=_cost(time.perf_counter() - info.started, info.accelerator, results.cache_bytes),
        predictions={},
        controls=controls or {},
        alignment=results.alignment,
        diagnostics=diagnostics,
        strands=results.strands,
        layers=None if results.layers is None else dict(results.layers),
        shots=results.shots,
    )


def write_outcome(record: ResultRecord, results: RunResults, stem: Path) -> Outcome:
    """Write the trained weights and the predictions, then the record, which marks the run as finished.

    Args:
        record: As built.
        results: Whose predictions are written.
        stem: Path of all files of the run, without the ending; see ``free_stem``.
    """
    written = [prediction_file(stem)]
    kept, kept_entry = results.kept_head, dict[str, Json]()
    try:
        if kept is not None:
            written.append(stem.with_name(stem.name + ".safetensors"))
            kept_entry = kept.write(written[-1])
        further: dict[str, Json] = {}
        for name, predictions in results.further.items():
            written.append(prediction_file(stem, name))
            further[name] = _written(predictions, written[-1])
        # Last, because the empty file in their place says that the other files belong to no finished run.
        entry = _written(results.predictions, written[0])
        entry |= {"further": further} if further else {}
        record = replace(record, predictions=entry, kept=kept_entry)
        path = stem.with_name(stem.name + ".json")
        write_record(record, path)
    except BaseException:
        for file in written:  # predictions and weights without a record belong to nothing
            file.unlink(missing_ok=True)
        raise
    return Outcome(record=record, path=path)


def _written(predictions: Predictions, path: Path) -> dict[str, Json]:
    """Write predictions, and return what the record says of the file."""
    return {"file": path.name, "sha256": write_predictions(predictions, path), "items": len(predictions)}


def label_of(embedder: Embedder, model: str) -> str:
    """Return what the files of a run call its model, such as ``dnabert2-random`` with random weights.

    Args:
        embedder: The model.
        model: What the user calls it.
    """
    if model in BASELINES:
        return model
    name = Path(model).name
    if embedder.spec is not None:
        own = embedder.checkpoint not in (None, embedder.spec.checkpoint)
        name = f"{embedder.spec.key}-{Path(str(embedder.checkpoint)).name}" if own else embedder.spec.key
    return f"{name}-random" if embedder.random_init else name


def scored_again(predictions: Predictions, metrics: Sequence[str]) -> list[FoldResult]:
    """Score predictions by metrics, fold by fold if they have folds; a single result with fold None otherwise."""
    of_folds = np.unique(folds_of(predictions)) if "fold" in predictions.columns else [None]
    folds = []
    for fold in of_folds:
        one = predictions if fold is None else predictions.take(np.flatnonzero(folds_of(predictions) == fold))
        of_labels = one.label_names if one.score is None or one.values.ndim == 2 else None
        rows = Rows(lengths=np.diff(one.windows))
        scores = tuple(score(name, one.values, one.target, names=of_labels, rows=rows) for name in metrics)
        folds.append(FoldResult(fold=None if fold is None else int(fold), predictions=one, scores=scores))
    return folds


def prediction_file(stem: Path, further: str | None = None) -> Path:
    """Return the path of the predictions, or of those of a further head."""
    return stem.with_name(stem.name + (".parquet" if further is None else f".{further}_probe.parquet"))


def scores_of(
    task: TaskSpec, predictions: Predictions, dataset: Dataset | None = None, *, main_only: bool = False
) -> tuple[Score, ...]:
    """Score predictions with the metrics of a task, or with the main one only.

    Args:
        task: The task.
        predictions: The predictions.
        dataset: The rows that were predicted, for metrics that read the sequences too.
        main_only: Whether to leave out all metrics but the main one.
    """
    values = predictions.values
    names = predictions.label_names if predictions.score is None or values.ndim == 2 else None
    metrics = task.metrics[:1] if main_only else task.metrics
    sequence = None if dataset is None else sequence_of(task, dataset, predictions)
    rows = Rows(lengths=np.diff(predictions.windows), sequence=sequence)
    return tuple(score(metric, values, predictions.target, names=names, rows=rows) for metric in metrics)


def summarize(folds: Sequence[FoldResult]) -> dict[str, Json]:
    """Return value and detail of each metric; over folds the mean, its deviation and the number of folds."""
    metrics: dict[str, Json] = {}
    for index, first in enumerate(folds[0].scores):
        if folds[0].fold is None:
            metrics[first.metric] = _metric_entry(first)
            continue
        values = np.array([fold.scores[index].value for fold in folds], np.float64)
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


def argmax_detail(folds: Sequence[FoldResult]) -> dict[str, Json]:
    """Return what the main metric of a record says of the most probable classes; nothing if there are no folds."""
    return {"argmax": summarize(folds)} if folds else {}


def with_detail(metrics: Mapping[str, Json], detail: Mapping[str, Json]) -> dict[str, Json]:
    """Return the metrics with more detail in the main one.

    >>> with_detail({"auroc": {"value": 0.5, "detail": {"n": 2}}}, {"probe": None})["auroc"]["detail"]
    {'n': 2, 'probe': None}
    """
    merged = dict(metrics)
    main = next(iter(merged))
    entry = merged[main]
    if detail and isinstance(entry, dict):
        before = entry.get("detail")
        merged[main] = {**entry, "detail": {**(before if isinstance(before, dict) else {}), **detail}}
    return merged


def cached_bytes(folds: Sequence[FoldResult]) -> int:
    """Return the size of the cached embeddings that the folds read, each file counted once."""
    return sum(path.stat().st_size for path in frozenset[Path]().union(*(fold.cache_files for fold in folds)))


def _metric_entry(one: Score) -> dict[str, Json]:
    return {"value": jsonable(one.value), "detail": jsonable(one.detail)}


def fold_entries(folds: Sequence[FoldResult]) -> list[Json]:
    """Return what the record keeps of each fold: its number, items and metrics."""
    return [
        {
            "fold": one.fold,
            "items": len(one.predictions),
            "metrics": {metric.metric: _metric_entry(metric) for metric in one.scores},
        }
        for one in folds
        if one.fold is not None
    ]


def _training(results: RunResults) -> dict[str, Json] | None:
    if results.head is None:
        return None
    runs: list[Json] = [{"fold": one.fold, **one.training} for one in results.folds if one.training is not None]
    return {"head": results.head, "loss": results.loss, "search": dict(results.search) or None, "runs": runs}


def _cost(seconds: float, accelerator: Accelerator, cache_bytes: int) -> dict[str, Json]:
    """Return time, memory, disk and what the run ran on."""
    import resource

    import torch

    kilobyte = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, kilobytes on Linux
    entry: dict[str, Json] = {
        "seconds": seconds,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte,
        "cache_bytes": cache_bytes,
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
    }
    if accelerator.device.type == "cuda":
        entry["device_name"] = torch.cuda.get_device_name(accelerator.device)
        entry["peak_device_memory_bytes"] = torch.cuda.max_memory_allocated(accelerator.device)
    return entry


def outcome_table(outcomes: Sequence[Outcome]) -> str:
    """Return the scores as text: one row per run, and the mean and deviation over seeds."""
    return "\n".join([str(outcome_rows(outcomes)), *outcome_lines(outcomes)])


def outcome_rows(outcomes: Sequence[Outcome]) -> Table:
    """Return the scores as a table with one row per run."""
    header = ("task", "metric", "score", "95 % interval", "items", "data")
    records = [outcome.record for outcome in outcomes]
    rows = [
        (
            record.task,
            record.main_metric,
            number(record.value),
            interval_text(record),
            str(record.coverage["scored"]),
            str(record.data.get("origin")),
        )
        for record in records
    ]
    return Table(header=header, rows=rows)


def outcome_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Return what is said below the table: remarks on records, and the mean and deviation over seeds."""
    records = [outcome.record for outcome in outcomes]
    return [*_remark_lines(records), *seed_lines(records)]


def _remark_lines(records: Sequence[ResultRecord]) -> list[str]:
    """Return one line for each remark on a record, under an empty line."""
    lines = [
        f"{record.task}, {record.model.get('model')}, seed {record.config.get('seed')}: {remark}."
        for record in records
        for remark in [*remarks(record), *_strand_remarks(record), *shot_remarks(record)]
    ]
    return ["", *lines] if lines else []


def shot_remarks(record: ResultRecord) -> list[str]:
    """Say the score of each number of shots with both intervals, one text each; empty without a curve."""
    points = member(record.shots, "points")
    texts = []
    for point in points if isinstance(points, list) else ():
        ends = [
            f"{number(member(point, over, 'low'))} to {number(member(point, over, 'high'))} {over.replace('_', ' ')}"
            for over in ("over_seeds", "over_items")
            if member(point, over) is not None
        ]
        value = f"{record.main_metric} {number(member(point, 'value'))}"
        texts.append(f"{member(point, 'shots')} shots ({member(point, 'rows')} rows): {', '.join([value, *ends])}")
    passes = member(record.shots, "against_controls", "passes")
    return texts if passes is None else [*texts, f"it {passes_text(passes)}"]


def _strand_remarks(record: ResultRecord) -> list[str]:
    return [] if record.strands is None else [strand_text(record.strands, record.main_metric)]


def interval_text(record: ResultRecord) -> str:
    """Return the interval of a record's main metric; empty if it has none."""
    entry = record.metrics.get(record.main_metric)
    interval = entry.get("interval") if isinstance(entry, dict) else None
    if not isinstance(interval, dict):
        return ""
    low, high = interval.get("low"), interval.get("high")
    if not isinstance(low, float) or not isinstance(high, float):
        return ""
    return f"{low:.4f} to {high:.4f}"


def seed_lines(records: Sequence[ResultRecord]) -> list[str]:
    """Return one line for each task and model that has several seeds: mean, deviation and number of seeds."""
    groups: dict[tuple[str, str], list[ResultRecord]] = {}
    for record in records:
        model, weights = str(record.model.get("model")), record.config.get("checkpoint")
        name = f"{model}={weights}" if weights else model
        name += ", random weights" if record.model.get("random_init") else ""
        groups.setdefault((record.task, name), []).append(record)
    lines = []
    for (task, model), group in groups.items():
        if len(group) < 2:
            continue
        values = np.array([record.value for record in group if record.value is not None])
        mean = number(float(values.mean()) if len(values) else None)
        spread = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
        lines.append(f"{task}, {model}: {group[0].main_metric} {mean}{spread} over {len(values)} of {len(group)} seeds")
    return ["", *lines] if lines else []
