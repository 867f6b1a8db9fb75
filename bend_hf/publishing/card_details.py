"""The tables of a card that go below the main number: each class, each label, each fold, further metrics.

>>> _columns({"recall": [0.5, None], "names": ["a", "b"]}, 2)
['recall']
"""

from __future__ import annotations

from typing import Any, Final

from bend_hf.evaluation.results import ResultRecord, member
from bend_hf.markdown import escaped, number
from bend_hf.publishing.entries import Entry
from bend_hf.shapes import Json

_COUNTS: Final = frozenset({"support", "n_positive", "n_negative", "items"})
_SKIPPED: Final = frozenset({"names", "confusion_matrix"})


def detail_tables(entry: Entry, title: str) -> list[dict[str, Any]]:
    """The tables of an entry, of its first seed.

    Returns:
        For each a title, metric, protocol, seed, and the table as Markdown.
    """
    record = entry.records[0]
    said = {"title": title, "protocol": record.protocol, "seed": record.config.get("seed")}
    tables = [(metric, _metric_table(record, metric)) for metric in record.metrics]
    return [{**said, "metric": metric, "table": table} for metric, table in tables if table]


def _metric_table(record: ResultRecord, metric: str) -> str:
    """A line a class or label; a line a fold where there are folds; else one line where it is a further metric."""
    if record.folds:
        rows = [
            [str(member(fold, "fold")), str(member(fold, "items")), number(member(fold, "metrics", metric, "value"))]
            for fold in record.folds
        ]
        deviation = member(record.metrics, metric, "detail", "deviation")
        rows.append(["deviation over folds", "", number(deviation)])
        return _table(["fold", "items", metric], rows)
    detail = member(record.metrics, metric, "detail")
    detail = detail if isinstance(detail, dict) else {}
    names = detail.get("names")
    if isinstance(names, list) and (columns := _columns(detail, len(names))):
        rows = [[escaped(name), *(_cell(detail[c], c, i) for c in columns)] for i, name in enumerate(names)]
        return _table(["label", *(metric if c == "per_label" else c.replace("_", " ") for c in columns)], rows)
    if metric == record.main_metric:
        return ""
    chance = detail.get("chance")
    return _table([metric, "chance"], [[number(member(record.metrics, metric, "value")), number(chance)]])


def _columns(detail: dict[str, Json], n: int) -> list[str]:
    return [
        name for name, value in detail.items() if name not in _SKIPPED and isinstance(value, list) and len(value) == n
    ]


def _cell(values: Json, column: str, index: int) -> str:
    value = values[index] if isinstance(values, list) else None
    return str(value) if column in _COUNTS else number(value)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
