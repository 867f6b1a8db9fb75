"""Write what stands behind a score as cards show it: chance, calibration, parts of the test split, label noise.

>>> print(part_table([{"part": "up to 10 kb from one", "items": 12, "value": 0.5, "low": 0.4, "high": 0.6}], "auroc"))
| part | items | auroc | interval |
| --- | --- | --- | --- |
| up to 10 kb from one | 12 | 0.5000 | 0.4000 to 0.6000 |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bend_hf.evaluation.record import ResultRecord, member
from bend_hf.publishing.results import ResultGroup
from bend_hf.tables import escaped, markdown_table, number
from bend_hf.types import Json

_PARTS: Final = {"by_length": "length", "by_distance": "distance to training", "by_prevalence": "label prevalence"}


def diagnostic_fields(result: ResultGroup, title: str) -> dict[str, Any]:
    """Fields of the card's template for one result, from its first record.

    Args:
        result: The result.
        title: Title of the task.

    Returns:
        ``title``, ``metric``, ``protocol``, ``seed``, sentences in ``lines`` and Markdown tables in ``tables``, with
        their captions.
    """
    record = result.records[0]
    tables = [(f"By {name}:", part_table(parts, result.metric)) for name, parts in _parts_of(record).items()]
    bins = member(record.diagnostics, "calibration", "reliability")
    if isinstance(bins, list):
        tables.append(("Predicted probability and fraction of positives:", reliability_table(bins)))
    return {
        "title": title,
        "metric": result.metric,
        "protocol": result.protocol,
        "seed": record.config.get("seed"),
        "lines": [*_chance_lines(result), *_calibration_lines(record), *_noise_lines(record)],
        "tables": tables,
    }


def part_table(parts: Sequence[Json], metric: str) -> str:
    """Write the scores of parts of the items, or of the labels, as a Markdown table."""
    of_labels = any("labels" in part for part in parts if isinstance(part, dict))
    rows = []
    for part in parts:
        low, high = member(part, "low"), member(part, "high")
        count = member(part, "labels" if of_labels else "items")
        interval = f"{number(low)} to {number(high)}" if low is not None and high is not None else "none"
        cells = [escaped(str(member(part, "part"))), f"{count:,}" if isinstance(count, int) else ""]
        rows.append([*cells, number(member(part, "value")), *([] if of_labels else [interval])])
    header = ["part", "labels" if of_labels else "items", metric, *([] if of_labels else ["interval"])]
    return markdown_table(header, rows)


def reliability_table(bins: Sequence[Json]) -> str:
    """Write the bins of a reliability plot that hold a prediction as a Markdown table."""
    rows = [
        [
            f"{_number(one, 'from'):.1f} to {_number(one, 'to'):.1f}",
            f"{_number(one, 'n'):,.0f}",
            number(member(one, "predicted")),
            number(member(one, "positive")),
        ]
        for one in bins
        if _number(one, "n") > 0
    ]
    return markdown_table(["probability", "predictions", "mean probability", "fraction of positives"], rows)


def calibration_text(record: ResultRecord) -> str:
    """Expected calibration error and Brier score in words; empty if the scores are not probabilities."""
    found = member(record.diagnostics, "calibration")
    if not isinstance(found, dict):
        return ""
    return f"expected calibration error {number(found.get('ece'))}, Brier score {number(found.get('brier'))}"


def reliability_of(record: ResultRecord) -> list[tuple[float, float]]:
    """Mean probability and fraction of positives of each bin that holds a prediction; empty without probabilities."""
    bins = member(record.diagnostics, "calibration", "reliability")
    found = [one for one in bins if _number(one, "n") > 0] if isinstance(bins, list) else []
    return [(_number(one, "predicted"), _number(one, "positive")) for one in found]


def _parts_of(record: ResultRecord) -> dict[str, list[Json]]:
    found = {name: member(record.diagnostics, key) for key, name in _PARTS.items()}
    return {name: parts for name, parts in found.items() if isinstance(parts, list) and parts}


def _chance_lines(result: ResultGroup) -> list[str]:
    return [f"Chance: {result.chance_text}."] if result.chance_text else []


def _calibration_lines(record: ResultRecord) -> list[str]:
    text = calibration_text(record)
    if not text:
        return []
    weight = member(record.training, "loss", "positive_weight")
    weighted = "" if weight is None else f" Positives weigh {weight} in training, so that probabilities are too high."
    return [f"{text[0].upper()}{text[1:]}.{weighted}"]


def _noise_lines(record: ResultRecord) -> list[str]:
    noise = member(record.diagnostics, "label_noise")
    lines = []
    if isinstance(noise, Mapping):
        shared, wrong = noise.get("rows_at_the_place_of_another"), noise.get("rows_with_other_labels")
        lines.append(f"Test rows at the place of another test row: {shared}; with other labels than it: {wrong}.")
    differs = member(record.data, "audit", "rows_whose_equals_have_other_labels")
    if differs is not None:
        lines.append(f"Rows of all splits with the sequence of another row and other labels: {differs}.")
    return lines


def _number(value: Json, key: str) -> float:
    found = member(value, key)
    return float(found) if isinstance(found, int | float) else 0.0
