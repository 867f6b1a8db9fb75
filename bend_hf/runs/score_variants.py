"""Score a variant task of BEND: all zero-shot scores, their summary by consequence, and a head on REF and ALT.

The cosine distance of BEND is the score of the record. All other scores are in the detail of its main metric, and the
predictions of the trained heads are files of their own.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from bend_hf.errors import ConfigError, InputError
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.record import jsonable
from bend_hf.evaluation.uncertainty.intervals import intervals_of
from bend_hf.runs.outcome import FoldResult, RunResults, scores_of
from bend_hf.runs.strand_report import report_of_variants
from bend_hf.training.progress import Bar
from bend_hf.types import Json
from bend_hf.variants import (
    ScoreSettings,
    VariantHeadSettings,
    cross_validate_heads,
    score_variants,
    summarize_scores,
)
from bend_hf.variants.checkpoint import ScoringCheckpoint
from bend_hf.variants.other_strand import OtherStrand
from bend_hf.variants.plots import plots_available
from bend_hf.variants.read import DatasetSource
from bend_hf.variants.score import batch_keys

if TYPE_CHECKING:
    from bend_hf.runs.run import ModelRun

log = logging.getLogger(__name__)

CONSEQUENCE: Final = "full_label"  # BEND's variant_effects_disease.bed


def score_variant_task(run: ModelRun) -> RunResults:
    """Score every variant zero-shot, then train a head on REF and ALT if the labels allow it."""
    from accelerate.utils import set_seed

    set_seed(run.config.seed)
    task, accelerator = run.data.task, run.accelerator
    settings = _settings(run, keep_embeddings=True)
    draws = plots_available()
    group_by = CONSEQUENCE if CONSEQUENCE in run.data.splits(None)["test"].column_names else None
    checkpoint = ScoringCheckpoint(run.scored_batches)
    source = _source(run)
    with Bar(accelerator, task.key, unit="variant") as bar:
        scored = score_variants(
            source,
            run.embedder,
            accelerator,
            settings,
            checkpoint=checkpoint,
            on_progress=bar.at,
        )
    predictions = scored.predictions
    summary = summarize_scores(predictions, group_by=group_by, intervals=intervals_of)
    detail: dict[str, Json] = {
        "by_score": summary["scores"],
        "by_group": summary["groups"],
        "no_likelihood": scored.no_likelihood,
        "short_context": scored.short_context,
    }
    further: dict[str, Predictions] = {}
    try:
        trained = cross_validate_heads(scored, checkpoint, accelerator, VariantHeadSettings(seed=run.config.seed))
        further, detail["probe"] = trained.predictions, jsonable(trained.detail)
    except InputError as error:
        log.info("%s: no head was trained on the variants: %s", task.key, error)
        detail["probe"] = {"left_out": str(error)}
    keys, report = scored.keys, None
    if run.config.strand_report:
        with Bar(accelerator, f"{task.key}, other strand", unit="variant") as bar:
            other = score_variants(
                OtherStrand(source),
                run.embedder,
                accelerator,
                _settings(run, keep_embeddings=False),
                checkpoint=checkpoint,
                on_progress=bar.at,
            )
        keys, report = [*keys, *other.keys], report_of_variants(predictions, other.predictions, task.metrics)
        further = {**further, **report.further}
    return RunResults(
        folds=[FoldResult(fold=None, predictions=predictions, scores=scores_of(task, predictions))],
        detail=detail,
        further=further,
        cache_bytes=checkpoint.size_bytes(scored.keys),
        batch_keys=keys,
        strands=None if report is None else report.entry,
        figure_title=title_of_figure(run) if draws else None,
    )


def title_of_figure(run: ModelRun) -> str:
    """Return the title of the figure of a run's scores."""
    return f"{run.data.task.key}, {run.label}"


def keys_of_batches(run: ModelRun) -> list[str]:
    """Return the keys of the batches that ``score_variant_task`` keeps on disk until the record is written."""
    checkpoint, source = ScoringCheckpoint(run.scored_batches), _source(run)
    keys = batch_keys(source, run.embedder, _settings(run, keep_embeddings=True), checkpoint)
    if run.config.strand_report:
        keys += batch_keys(OtherStrand(source), run.embedder, _settings(run, keep_embeddings=False), checkpoint)
    return keys


def _source(run: ModelRun) -> DatasetSource:
    dataset = run.data.splits(None)["test"]
    return DatasetSource(
        dataset, run.data.task.label_names, (CONSEQUENCE,) if CONSEQUENCE in dataset.column_names else ()
    )


def _settings(run: ModelRun, *, keep_embeddings: bool) -> ScoreSettings:
    """Return what is scored.

    Raises:
        ConfigError: The task does not score variants.
    """
    task = run.data.task
    if task.variant is None:
        raise ConfigError(f"{task.key} is not a variant task and has no head; declare one of the two")
    return ScoreSettings(context=task.variant, averages=not run.config.no_averages, keep_embeddings=keep_embeddings)
