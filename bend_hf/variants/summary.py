"""How well the scores tell the labels of variants apart: AUROC and AUPRC of each score, and by consequence.

    summary = summarize_scores(predictions, group_by="full_label")
    summary["scores"]["score"]["auroc"]["value"]

A score that falls if a variant has an effect (a log-likelihood ratio) counts by its negative, as ``sign`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import pyarrow as pa

from bend_hf.errors import ConfigError, RecordError, did_you_mean
from bend_hf.evaluation.metrics import score
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.record import jsonable
from bend_hf.tables import Table
from bend_hf.types import IGNORE_LABEL, Bools, Floats, Json
from bend_hf.variants.scores import MAIN, SCORES, score_keys

if TYPE_CHECKING:
    from bend_hf.evaluation.uncertainty.intervals import Interval

METRICS: Final = ("auroc", "auprc")

# From predictions and names of metrics to their intervals, such as uncertainty.intervals.intervals_of.
Intervals: TypeAlias = "Callable[[Predictions, Sequence[str]], Mapping[str, Interval]]"


def has_label(predictions: Predictions) -> Bools:
    """Return which variants are labeled, shape (n,)."""
    found: Bools = predictions.target != IGNORE_LABEL
    return found


def scores_of(predictions: Predictions) -> Floats:
    """Return BEND's score of every variant, float32, shape (n,).

    Raises:
        RecordError: The predictions hold classes instead of scores.
    """
    if predictions.score is None:
        raise RecordError("these predictions hold classes, not scores of variants; give those of score_variants()")
    return predictions.score


def values_of(predictions: Predictions, key: str) -> Floats:
    """Return one score of every variant, float32, shape (n,); nan if a variant has no such score.

    Raises:
        ConfigError: The predictions have no such score.
    """
    if key == MAIN:
        return scores_of(predictions)
    if key not in predictions.columns:
        raise ConfigError(f"the predictions have no score {key!r}; {did_you_mean(key, score_keys())}")
    values: Floats = predictions.columns[key].to_numpy(zero_copy_only=False).astype(np.float32)
    return values


def summarize_scores(
    predictions: Predictions, *, group_by: str | None = None, intervals: Intervals | None = None
) -> dict[str, Json]:
    """Compute the metrics of every score over the labeled variants, and those of BEND's score by group.

    Args:
        predictions: Variants with their scores, from ``score_variants``.
        group_by: A further column of the predictions, such as ``full_label``; None forms no groups.
        intervals: Computes intervals of metrics, for all variants and for each group; None leaves them out.

    Returns:
        ``scores`` holds a block per score, ``groups`` a block per value of the column; both are empty if no variant is
        labeled. ``labels`` counts positive, negative and unlabeled variants.

    Raises:
        ConfigError: The predictions have no column ``group_by``.
    """
    labeled = has_label(predictions)
    blocks: dict[str, Json] = {}
    for key in score_keys():
        if key != MAIN and key not in predictions.columns:
            continue  # scored before this score was added
        values = values_of(predictions, key)
        scored = labeled & np.isfinite(values)
        if scored.any():
            described = SCORES.get(key)
            sign = 1.0 if described.rises_with_effect else -1.0
            block = _block(_take(predictions, scored, sign * values), intervals)
            blocks[key] = {"text": described.text, "sign": sign, **block}
    return {
        "labels": label_counts(predictions),
        "scores": blocks,
        "groups": _groups(predictions, labeled, group_by, intervals) if group_by else {},
    }


def label_counts(predictions: Predictions) -> dict[str, Json]:
    """Count the positive, negative and unlabeled variants."""
    return {
        "positive": int((predictions.target == 1).sum()),
        "negative": int((predictions.target == 0).sum()),
        "none": int((~has_label(predictions)).sum()),
    }


def _take(predictions: Predictions, chosen: Bools, values: Floats) -> Predictions:
    rows = np.flatnonzero(chosen)
    picked = pa.array(rows)
    return replace(
        predictions,
        item=predictions.item[rows],
        windows=np.arange(len(rows) + 1),
        target=predictions.target[rows],
        score=values[rows].astype(np.float32),
        columns={name: column.take(picked) for name, column in predictions.columns.items()},
    )


def _block(predictions: Predictions, intervals: Intervals | None) -> dict[str, Json]:
    """Compute the metrics of labeled predictions, with chance and interval of each."""
    fraction = float((predictions.target == 1).mean())
    chance = {"auroc": 0.5, "auprc": fraction}
    has_both = 0.0 < fraction < 1.0
    found = intervals(predictions, METRICS) if intervals is not None and has_both else {}
    block: dict[str, Json] = {"n": len(predictions), "n_positive": int((predictions.target == 1).sum())}
    for metric in METRICS:
        value = score(metric, scores_of(predictions), predictions.target).value if has_both else float("nan")
        entry: dict[str, Json] = {"value": jsonable(value), "chance": chance[metric]}
        if metric in found:
            entry["interval"] = found[metric].as_json()
        block[metric] = entry
    return block


def _groups(predictions: Predictions, labeled: Bools, group_by: str, intervals: Intervals | None) -> dict[str, Json]:
    if group_by not in predictions.columns:
        raise ConfigError(
            f"the predictions have no column {group_by!r}; {did_you_mean(group_by, list(predictions.columns))}"
        )
    values = values_of(predictions, MAIN)
    groups = predictions.columns[group_by].cast(pa.string()).dictionary_encode()
    code = groups.indices.to_numpy(zero_copy_only=False)
    usable = labeled & np.isfinite(values)
    found: dict[str, Json] = {}
    for number, name in sorted(enumerate(groups.dictionary.to_pylist()), key=lambda entry: str(entry[1])):
        chosen = usable & (code == number)
        if chosen.any():
            found[str(name)] = _block(_take(predictions, chosen, values), intervals)
    return found


def as_table(summary: dict[str, Json], heads: dict[str, Json] | None = None) -> Table:
    """Return a summary as a table: a line per score, group and head, with intervals in parentheses.

    Args:
        summary: From ``summarize_scores``.
        heads: Metrics of heads by name, each with the mean over its folds.
    """
    lines = [_line(name, block) for title in ("scores", "groups") for name, block in _blocks(summary[title])]
    lines += [
        _line(f"{name} probe, mean of folds", block) for name, block in _blocks(heads or {}) if METRICS[0] in block
    ]
    return Table(header=("score", "AUROC", "chance", "AUPRC", "chance", "variants"), rows=lines)


def _blocks(value: Json) -> list[tuple[str, dict[str, Json]]]:
    """List the entries of a JSON object that are objects themselves."""
    entries = value.items() if isinstance(value, dict) else ()
    return [(name, block) for name, block in entries if isinstance(block, dict)]


def _line(name: str, block: dict[str, Json]) -> tuple[str, ...]:
    cells = [name]
    for metric in METRICS:
        entry = dict(_blocks(block))[metric]
        value, chance, ends = entry["value"], entry["chance"], entry.get("interval")
        cell = "undefined" if not isinstance(value, float) else f"{value:.4f}"
        if isinstance(ends, dict) and ends["low"] is not None:
            cell += f" ({float(str(ends['low'])):.4f} to {float(str(ends['high'])):.4f})"
        cells += [cell, f"{float(str(chance)):.4f}"]
    return (*cells, str(block["n"]))
