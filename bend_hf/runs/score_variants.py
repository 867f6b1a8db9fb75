"""A variant task of the benchmark: every zero-shot score, their summary by consequence, and the probe beside them.

BEND's cosine distance stays the record's score; what else is known stands in the metric's detail, and the probe's
predictions in files of their own.

>>> beside_metrics({"auroc": {"value": 0.5, "detail": {}}}, {"probe": None})["auroc"]["detail"]
{'probe': None}
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.data.dataset import TaskData
from bend_hf.errors import ConfigError
from bend_hf.evaluation.predictions import Predictions, write_predictions
from bend_hf.evaluation.record import jsonable
from bend_hf.evaluation.uncertainty.bootstrap import intervals_of
from bend_hf.runs.outcome import FoldResult, scores_of
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
from bend_hf.variants.read import DatasetSource

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bend_hf.embedders._embedder import Embedder

log = logging.getLogger(__name__)

CONSEQUENCE: Final = "full_label"  # BEND's variant_effects_disease.bed


@dataclass(frozen=True, kw_only=True)
class ScoredVariants:
    """What a variant task gave.

    Attributes:
        part: The zero-shot predictions and their scores.
        detail: All else, for the record.
        probed: Predictions of each probe, by its name; empty where none was trained.
        parts: The pieces that a killed run goes on from.
        keys: Those of this run.
    """

    part: FoldResult
    detail: dict[str, Json]
    probed: Mapping[str, Predictions]
    parts: ScoringCheckpoint
    keys: list[str]

    def beside(self, metrics: Mapping[str, Json]) -> dict[str, Json]:
        """The record's metrics with the detail in the main one."""
        return beside_metrics(metrics, self.detail)

    @property
    def kept_bytes(self) -> int:
        """Of the rows and scores that lie on disk until ``finish``."""
        return self.parts.size_bytes(self.keys)

    def finish(self, stem: Path) -> None:
        """Writes the probes' predictions and the picture beside the record; on the main process.

        The pieces are removed. Without matplotlib there is no picture.
        """
        for name, predictions in self.probed.items():
            write_predictions(predictions, stem.with_name(f"{stem.name}.{name}_probe.parquet"))
        if find_spec("matplotlib") is not None:
            from bend_hf.variants.plots import draw_score

            draw_score(self.part.predictions, stem, title=stem.name.split("__seed")[0].replace("__", ", "))
        self.parts.remove(self.keys)


def beside_metrics(metrics: Mapping[str, Json], detail: Mapping[str, Json]) -> dict[str, Json]:
    """Metrics with something more in the detail of the first."""
    merged = dict(metrics)
    for name, entry in merged.items():
        if isinstance(entry, dict):
            before = entry.get("detail")
            merged[name] = {**entry, "detail": {**(before if isinstance(before, dict) else {}), **detail}}
        break
    return merged


def score_task(
    data: TaskData, embedder: Embedder, accelerator: Accelerator, kept: Path, *, seed: int = 0
) -> ScoredVariants:
    """Scores every variant zero-shot, then trains the probe where the labels allow it.

    Args:
        data: A variant task.
        embedder: What embeds the alleles.
        accelerator: The processes.
        kept: Where a killed run finds what it had finished.
        seed: Of the probes.
    """
    task, dataset = data.task, data.splits(None)["test"]
    assert task.variant is not None
    parts = ScoringCheckpoint(kept)
    further = (CONSEQUENCE,) if CONSEQUENCE in dataset.column_names else ()
    with Bar(accelerator, task.key, unit="variant") as bar:
        scored = score_variants(
            DatasetSource(dataset, task.label_names, further),
            embedder,
            accelerator,
            ScoreSettings(context=task.variant, keep_embeddings=True),
            checkpoint=parts,
            on_progress=bar.at,
        )
    predictions = scored.predictions
    summary = summarize_scores(predictions, group_by=further[0] if further else None, intervals=intervals_of)
    detail: dict[str, Json] = {
        "by_score": summary["scores"],
        "by_group": summary["groups"],
        "no_likelihood": scored.no_likelihood,
        "short_context": scored.short_context,
    }
    probed: Mapping[str, Predictions] = {}
    try:
        trained = cross_validate_heads(scored, parts, accelerator, VariantHeadSettings(seed=seed))
        probed, detail["probe"] = trained.predictions, jsonable(trained.detail)
    except ConfigError as error:
        log.info("%s: no probe was trained: %s", task.key, error)
        detail["probe"] = {"left_out": str(error)}
    part = FoldResult(fold=None, predictions=predictions, scores=scores_of(task, predictions), fitted=None)
    return ScoredVariants(part=part, detail=detail, probed=probed, parts=parts, keys=scored.keys)
