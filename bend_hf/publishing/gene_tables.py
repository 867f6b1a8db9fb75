"""Tables of gene structure, for the card of a model and for the tables of a report.

>>> gene_row("a model", {}) is None
True
"""

from __future__ import annotations

from typing import Final

from bend_hf.evaluation.gene_structure import NAME, READ_FROM_SEQUENCE
from bend_hf.evaluation.record import ResultRecord, member
from bend_hf.tables import escaped, markdown_table, number
from bend_hf.types import Json

HEADING: Final = "Gene structure"
EXPLAINED: Final = (
    "Exact coding exons with both ends right, splice sites at the right nucleotide, and rows in which every exon and "
    "intron is right; of the first seed."
)
HEADER: Final = (
    *("model", "MCC", "exon sensitivity", "exon precision", "exon F1", "interval", "splice site F1", "rows right"),
    "out of frame",
)
_EXON: Final = "exon"
_SITE: Final = "splice_site"


def gene_row(name: str, metrics: Json) -> tuple[str, ...] | None:
    """Return the row of a model in the table of a report, with the columns of ``HEADER``.

    Args:
        name: The model or the control.
        metrics: The metrics of its record.

    Returns:
        None if the record does not hold the structure of genes.
    """
    entry = member(metrics, NAME)
    names = member(entry, "detail", "names")
    if not isinstance(names, list):
        return None

    def of(result: str, part: str) -> str:
        values = member(entry, "detail", part)
        index = names.index(result) if result in names else -1
        return number(values[index] if isinstance(values, list) and 0 <= index < len(values) else None)

    low, high = (member(entry, "interval", end) for end in ("low", "high"))
    return (
        name,
        number(member(metrics, "mcc", "value")),
        of(_EXON, "sensitivity"),
        of(_EXON, "precision"),
        number(member(entry, "value")),
        "" if low is None or high is None else f"{number(low)} to {number(high)}",
        of(_SITE, "f1"),
        _of(entry, "rows_right", "rows"),
        _of(entry, "frame_errors", "whole_genes"),
    )


def structure_table(record: ResultRecord) -> str:
    """Return the table of a card as Markdown, with a line on rows and genes; empty if the record holds none."""
    entry = member(record.metrics, NAME)
    detail = member(entry, "detail")
    names = member(detail, "names")
    if not isinstance(detail, dict) or not isinstance(names, list):
        return ""
    columns = ("sensitivity", "precision", "f1")
    counts = ("true", "predicted", "right")
    ends = member(entry, "interval", "per_label")
    rows = []
    for index, name in enumerate(names):
        pair = ends[index] if isinstance(ends, list) and index < len(ends) else None
        low, high = pair if isinstance(pair, list) else (None, None)
        rows.append(
            [
                escaped(str(name).replace("_", " ")),
                *(number(_at(detail.get(column), index)) for column in columns),
                "none" if low is None else f"{number(low)} to {number(high)}",
                *(str(_at(detail.get(column), index)) for column in counts),
            ]
        )
    table = markdown_table(["", *columns[:2], "F1", "interval of F1", *counts], rows)
    said = [f"Rows right: {_of(entry, 'rows_right', 'rows')}", f"genes out of frame: {_of(entry, *_FRAME)}"]
    read, stops = READ_FROM_SEQUENCE
    said += [f"genes with a stop codon in frame: {_of(entry, stops, read)}"] if stops in detail else []
    return f"{table}\n\n{'; '.join(said)}."


_FRAME: Final = ("frame_errors", "whole_genes")


def _at(values: Json, index: int) -> Json:
    return values[index] if isinstance(values, list) and index < len(values) else None


def _of(entry: Json, part: str, whole: str) -> str:
    """Write a count and what it is of, such as ``3 of 10``."""
    found, total = (member(entry, "detail", name) for name in (part, whole))
    return f"{found:,} of {total:,}" if isinstance(found, int) and isinstance(total, int) else ""
