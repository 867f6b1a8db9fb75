"""What the scores of labelled variants are worth: AUROC and AUPRC of each score, and by consequence.

    summary = summarise(predictions, group_by="full_label")
    summary["scores"]["score"]["auroc"]["value"]

A score that falls where an effect is expected (a log-likelihood ratio) counts by its negative, which is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol, TypeAlias

import numpy as np
import pyarrow as pa

from bend_hf.errors import ConfigError, did_you_mean
from bend_hf.evaluation.metrics import score
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.record import jsonable
from bend_hf.tables import text_table
from bend_hf.types import IGNORE_LABEL, Bools, Floats, Json
from bend_hf.variants.embedding_scores import MAIN, SCORE_COLUMNS

METRICS: Final = ("auroc", "auprc")


class Interval(Protocol):
    """Between which values a metric lies; ``bend_hf.evaluation.uncertainty.bootstrap.Interval`` is one."""

    def as_json(self) -> dict[str, Json]:
        """As a record keeps it."""
        ...


# From predictions and names of metrics to their intervals, such as uncertainty.bootstrap.intervals_of.
Intervals: TypeAlias = "Callable[[Predictions, Sequence[str]], Mapping[str, Interval]]"


def labelled(predictions: Predictions) -> Bools:
    """Which variants have a label, shape (n,)."""
    found: Bools = predictions.target != IGNORE_LABEL
    return found


def values_of(predictions: Predictions, column: str) -> Floats:
    """One score of every variant, float32, shape (n,); nan where there is none.

    Raises:
        ConfigError: There is no such score.
    """
    if column == MAIN:
        assert predictions.score is not None
        return predictions.score
    if column not in predictions.columns:
        raise ConfigError(f"there is no score {column!r}; {did_you_mean(column, [c.name for c in SCORE_COLUMNS])}")
    values: Floats = predictions.columns[column].to_numpy(zero_copy_only=False).astype(np.float32)
    return values


def summarise(
    predictions: Predictions, *, group_by: str | None = None, intervals: Intervals | None = None
) -> dict[str, Json]:
    """Every score's metrics over the labelled variants, and those of BEND's score by consequence.

    Args:
        predictions: Of variants, as ``score_zero_shot`` gives them.
        group_by: A column beside them, such as ``full_label``; None for none.
        intervals: Gives intervals of metrics, of all variants and of each group; None leaves them out.

    Returns:
        Under ``scores`` a block a score; under ``groups`` a block a value of the column, with its count; under
        ``labels`` how many variants are positive, negative and without a label. ``{}`` for the scores and groups
        where there is nothing to compare with.
    """
    has_label = labelled(predictions)
    blocks: dict[str, Json] = {}
    for column in SCORE_COLUMNS:
        values = values_of(predictions, column.name)
        scored = has_label & np.isfinite(values)
        if scored.any():
            sign = 1.0 if column.rises_with_effect else -1.0
            block = _block(_taken(predictions, scored, sign * values), intervals)
            blocks[column.name] = {"text": column.text, "sign": sign, **block}
    return {
        "labels": {
            "positive": int((predictions.target == 1).sum()),
            "negative": int((predictions.target == 0).sum()),
            "none": int((~has_label).sum()),
        },
        "scores": blocks,
        "groups": _groups(predictions, has_label, group_by, intervals) if group_by else {},
    }


def _taken(predictions: Predictions, chosen: Bools, values: Floats) -> Predictions:
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
    """Metrics of some labelled predictions, chance beside each, and intervals."""
    assert predictions.score is not None
    share = float((predictions.target == 1).mean())
    chance = {"auroc": 0.5, "auprc": share}
    both = 0.0 < share < 1.0
    sure = intervals(predictions, METRICS) if intervals is not None and both else {}
    block: dict[str, Json] = {"n": len(predictions), "n_positive": int((predictions.target == 1).sum())}
    for metric in METRICS:
        value = score(metric, predictions.score, predictions.target).value if both else float("nan")
        entry: dict[str, Json] = {"value": jsonable(value), "chance": chance[metric]}
        if metric in sure:
            entry["interval"] = sure[metric].as_json()
        block[metric] = entry
    return block


def _groups(predictions: Predictions, has_label: Bools, group_by: str, intervals: Intervals | None) -> dict[str, Json]:
    if group_by not in predictions.columns:
        raise ConfigError(
            f"there is no column {group_by!r} beside the predictions; "
            f"{did_you_mean(group_by, list(predictions.columns))}"
        )
    values = values_of(predictions, MAIN)
    groups = predictions.columns[group_by].cast(pa.string()).dictionary_encode()
    code = groups.indices.to_numpy(zero_copy_only=False)
    usable = has_label & np.isfinite(values)
    found: dict[str, Json] = {}
    for number, name in sorted(enumerate(groups.dictionary.to_pylist()), key=lambda entry: str(entry[1])):
        chosen = usable & (code == number)
        if chosen.any():
            found[str(name)] = _block(_taken(predictions, chosen, values), intervals)
    return found


def as_text(summary: dict[str, Json], probes: dict[str, Json] | None = None) -> str:
    """The summary as a table for the terminal: a line a score, a line a group, a line a probe; intervals in brackets.

    Args:
        summary: Of ``summarise``.
        probes: Metrics of probes by name, each with the mean over its folds.
    """
    lines: list[tuple[str, ...]] = []
    for title in ("scores", "groups"):
        blocks = summary[title]
        assert isinstance(blocks, dict)
        lines += [_line(name, block) for name, block in blocks.items() if isinstance(block, dict)]
    for name, block in (probes or {}).items():
        if isinstance(block, dict) and METRICS[0] in block:
            lines.append(_line(f"{name} probe, mean of folds", block))
    return text_table(("score", "AUROC", "chance", "AUPRC", "chance", "variants"), lines)


def _line(name: str, block: dict[str, Json]) -> tuple[str, str, str, str, str, str]:
    cells = []
    for metric in METRICS:
        entry = block[metric]
        assert isinstance(entry, dict)
        value, chance, ends = entry["value"], entry["chance"], entry.get("interval")
        cell = "undefined" if not isinstance(value, float) else f"{value:.4f}"
        if isinstance(ends, dict):
            cell += f" ({float(str(ends['low'])):.4f} to {float(str(ends['high'])):.4f})"
        cells += [cell, f"{float(str(chance)):.4f}"]
    return (name, cells[0], cells[1], cells[2], cells[3], str(block["n"]))
