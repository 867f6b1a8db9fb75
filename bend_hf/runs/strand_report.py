"""What a run says of its predictions on both strands: how far they agree, and what each and their average score.

DNA has two strands, and most tasks ask the same on both. ``--strand-report`` predicts the test split once more, from
the reverse complement of each sequence. Labels that name a strand are exchanged and the order of windows is turned
back. The predictions of the other strand and the average lie next to the record, so that ``bend-hf verify`` computes
the report again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from bend_hf.data.other_strand import on_other_strand
from bend_hf.evaluation.predictions import LOG_PROBABILITY, Predictions, concatenate
from bend_hf.evaluation.strands import BothStrands, Sides, agreement, turned_back, without_probabilities
from bend_hf.evaluation.uncertainty.bootstrap import has_interval, with_fold
from bend_hf.evaluation.uncertainty.clusters import as_clusters
from bend_hf.evaluation.uncertainty.comparison import paired, trainings_of
from bend_hf.evaluation.uncertainty.intervals import with_intervals
from bend_hf.runs.outcome import scored_again, summarize
from bend_hf.tasks._labels import BinClasses, strand_partners
from bend_hf.training.kept_head import is_per_label
from bend_hf.types import Json
from bend_hf.variants.other_strand import as_written
from bend_hf.variants.scores import MAIN, SCORES
from bend_hf.variants.summary import summarize_scores, values_of

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.tasks import TaskSpec

OTHER_STRAND: Final = "other_strand"
AVERAGE: Final = "strand_average"
_KEPT_OF_INTERVAL: Final = ("low", "high", "level", "method")


@dataclass(frozen=True, kw_only=True)
class StrandReport:
    """The report of a run.

    Attributes:
        entry: What the record holds.
        further: Predictions to write next to it, by name.
    """

    entry: dict[str, Json]
    further: Mapping[str, Predictions]


def dataset_of_other_strand(task: TaskSpec, dataset: Dataset) -> Dataset:
    """Return rows with the reverse complement of their sequences; nucleotides that fill no bin are left out first."""
    return on_other_strand(dataset, multiple_of_bp=task.label.bin_bp if isinstance(task.label, BinClasses) else 1)


def predict_both(
    task: TaskSpec, predict: Callable[[str | None], Predictions], predict_other: Callable[[str | None], Predictions]
) -> BothStrands:
    """Predict a split on both strands, with the probabilities of classes.

    Args:
        task: The task.
        predict: Predicts the rows as the task reads them; takes the column for log probabilities, or None.
        predict_other: The same for ``dataset_of_other_strand``.
    """
    gives_classes = task.n_outputs > 1 and not is_per_label(task.label)
    column = LOG_PROBABILITY if gives_classes else None
    return BothStrands(
        forward=predict(column), reverse=turned_back(predict_other(column), strand_partners(task.label_names))
    )


def report_of_folds(folds: Sequence[tuple[int | None, BothStrands]], task: TaskSpec) -> StrandReport:
    """Report on the predictions of a trained head, over all folds.

    Args:
        folds: Number and predictions of each fold.
        task: The task.
    """
    both = BothStrands(
        forward=concatenate([with_fold(one.forward, fold) for fold, one in folds]),
        reverse=concatenate([with_fold(one.reverse, fold) for fold, one in folds]),
    )
    average = both.average()
    probabilities = task.training is not None and task.training.loss == "bce"
    entry = entry_of_heads(both, average, task.metrics, probabilities=probabilities)
    return StrandReport(entry=entry, further={OTHER_STRAND: without_probabilities(both.reverse), AVERAGE: average})


def entry_of_heads(
    both: BothStrands, average: Predictions, metrics: Sequence[str], *, probabilities: bool
) -> dict[str, Json]:
    """Return what a record says of the strands for a trained head.

    Args:
        both: The predictions; the correlation of classes needs their probabilities.
        average: Of both.
        metrics: Of the task, the main one first.
        probabilities: Whether scores are probabilities.
    """
    sides: Sides = "class" if both.forward.score is None else "0.5" if probabilities else "median"
    partners = strand_partners(both.forward.label_names)
    names = both.forward.label_names
    exchanged: list[Json] = [f"{names[a]}, {names[b]}" for a, b in enumerate(partners) if a < b]
    return {
        **agreement(both, sides),
        "exchanged_labels": exchanged,
        "scores": _scores(
            {"forward": without_probabilities(both.forward), "reverse": without_probabilities(both.reverse)},
            average,
            metrics,
        ),
        "gain": _gain(without_probabilities(both.forward), average, metrics[0]),
    }


def report_of_variants(forward: Predictions, reverse: Predictions, metrics: Sequence[str]) -> StrandReport:
    """Report on the zero-shot scores of variants.

    Args:
        forward: Scores on the plus strand.
        reverse: Scores of the same variants on the other strand.
        metrics: Of the task, the main one first.
    """
    reverse = as_written(reverse, forward)
    average = _average_of_scores(forward, reverse)
    entry = entry_of_variants(forward, reverse, average, metrics)
    return StrandReport(entry=entry, further={OTHER_STRAND: reverse, AVERAGE: average})


def entry_of_variants(
    forward: Predictions, reverse: Predictions, average: Predictions, metrics: Sequence[str]
) -> dict[str, Json]:
    """Return what a record says of the strands for zero-shot scores; ``by_score`` holds all of them."""
    found = [summarize_scores(one)["scores"] for one in (forward, reverse, average)]
    by_score: dict[str, Json] = {}
    for key in found[0] if isinstance(found[0], dict) else ():
        pair = BothStrands(forward=_of_score(forward, key), reverse=_of_score(reverse, key))
        sides: Sides = "0" if SCORES.get(key).zero_is_neutral else "median"
        scores: dict[str, Json] = {
            name: {metric: {"value": _value(one, key, metric)} for metric in metrics}
            for name, one in zip(("forward", "reverse", "average"), found, strict=True)
        }
        by_score[key] = {**agreement(pair, sides), "scores": scores}
    main = agreement(BothStrands(forward=_of_score(forward, MAIN), reverse=_of_score(reverse, MAIN)), "median")
    return {
        **main,
        "exchanged_labels": [],
        "scores": _scores({"forward": forward, "reverse": reverse}, average, metrics),
        "gain": _gain(forward, average, metrics[0]),
        "by_score": by_score,
    }


def _average_of_scores(forward: Predictions, reverse: Predictions) -> Predictions:
    """The mean of each score; a score that one strand lacks is missing."""
    columns = dict(forward.columns)
    for key in (key for key in SCORES.names() if key in columns and key in reverse.columns):
        mean = (values_of(forward, key) + values_of(reverse, key)) / np.float32(2)
        columns[key] = pa.array(mean, from_pandas=True)  # nan becomes null
    score = (values_of(forward, MAIN) + values_of(reverse, MAIN)) / np.float32(2)
    return replace(forward, score=score, columns=columns)


def _of_score(predictions: Predictions, key: str) -> Predictions:
    return replace(predictions, score=values_of(predictions, key))


def _value(blocks: Json, key: str, metric: str) -> Json:
    block = blocks.get(key) if isinstance(blocks, dict) else None
    entry = block.get(metric) if isinstance(block, dict) else None
    return entry.get("value") if isinstance(entry, dict) else None


def _scores(strands: Mapping[str, Predictions], average: Predictions, metrics: Sequence[str]) -> dict[str, Json]:
    """The metrics of each strand and of the average, this one with intervals."""
    entry: dict[str, Json] = {}
    for name, one in {**strands, "average": average}.items():
        values: dict[str, Json] = {
            metric: {"value": found.get("value") if isinstance(found, dict) else None}
            for metric, found in summarize(scored_again(one, metrics)).items()
        }
        entry[name] = _with_ends(values, average) if name == "average" else values
    return entry


def _with_ends(values: Mapping[str, Json], predictions: Predictions) -> dict[str, Json]:
    entry: dict[str, Json] = {}
    for metric, found in with_intervals(values, predictions).items():
        interval = found.get("interval") if isinstance(found, dict) else None
        kept = {name: interval[name] for name in _KEPT_OF_INTERVAL} if isinstance(interval, dict) else None
        value = found.get("value") if isinstance(found, dict) else None
        entry[metric] = {"value": value} if kept is None else {"value": value, "interval": dict[str, Json](kept)}
    return entry


def _gain(forward: Predictions, average: Predictions, metric: str) -> Json:
    """By how much the average scores more than the strand that the task reads, with a paired interval; None if unknown.

    The clusters are those of the record's other intervals.
    """
    if not has_interval(metric, forward):
        return None
    clusters = as_clusters(forward)
    found = paired(
        ("average", "forward"), trainings_of([average], metric, clusters), trainings_of([forward], metric, clusters)
    )
    if not math.isfinite(found.difference):
        return None
    return {"difference": found.difference, "low": _finite(found.low), "high": _finite(found.high)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
