"""The tables of a report as Markdown and as CSV.

>>> as_csv([]).splitlines()[0].split(",")[:3]
['task', 'protocol', 'data']
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Final

from bend_hf.publishing.leaderboard import MARKS, Contest, Row
from bend_hf.tables import escaped, markdown_table, number

_COLUMNS: Final = (
    *(
        "task",
        "protocol",
        "data",
        "data_id",
        "metric",
        "rank",
        "tied_with_best",
        "tie_found_by",
        "p_against_best",
        "model",
        "family",
        "probe",
    ),
    *("score", "low", "high", "interval", "seeds", "items", "n_parameters", "seconds", "not_publishable_because"),
)


def as_markdown(contests: Sequence[Contest]) -> str:
    """A heading and a table for each contest."""
    said = ["# BEND report", "", *(line for contest in contests for line in _section(contest))]
    marks = {row.mark for contest in contests for row in contest.rows}
    said += [line for mark, text in MARKS.items() if mark in marks for line in (f"{mark} {text}.", "")]
    if any(row.entry.refusals for contest in contests for row in contest.rows):
        said += ["† not a score of BEND that may be published; the reasons are in `scores.csv`.", ""]
    return "\n".join(said).rstrip() + "\n"


def _section(contest: Contest) -> list[str]:
    rows = [_cells(row) for row in contest.rows]
    rows += [["", escaped(name), "control", "", number(value), "", "", ""] for name, value in contest.controls.items()]
    header = ["", "model", "family", "probe", contest.metric, "interval", "seeds", "seconds"]
    return [
        f"## {escaped(contest.title)}, protocol {escaped(contest.protocol)}",
        "",
        f"{contest.n_items:,} items; data: {escaped(contest.data)} ({contest.data_id}).",
        "",
        markdown_table(header, rows),
        "",
    ]


def _cells(row: Row) -> list[str]:
    entry = row.entry
    between = f"{number(entry.low)} to {number(entry.high)}" if entry.low is not None else ""
    return [
        f"{row.rank if row.rank else '-'} {row.mark}".rstrip(),
        escaped(row.name) + (" †" if entry.refusals else ""),
        escaped(entry.family),
        escaped(entry.probe.replace("_", " ")),
        number(entry.value),
        between,
        ", ".join(map(str, entry.seeds)),
        "" if entry.seconds is None else f"{entry.seconds:,.0f}",
    ]


def as_csv(contests: Sequence[Contest]) -> str:
    """One line a row and a control, every number in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for contest in contests:
        head = [contest.task, contest.protocol, contest.data, contest.data_id, contest.metric]
        for row in contest.rows:
            entry = row.entry
            writer.writerow(
                [
                    *map(_plain, head),
                    row.rank or "",
                    "yes" if row.tied else "no",
                    "" if row.tie is None else row.tie.basis,
                    "" if row.tie is None or row.tie.p is None else f"{row.tie.p:.4g}",
                    *map(_plain, (row.name, entry.family, entry.probe)),
                    *("" if x is None else repr(x) for x in (entry.value, entry.low, entry.high)),
                    _plain(entry.interval_method),
                    " ".join(map(str, entry.seeds)),
                    contest.n_items,
                    "" if entry.n_parameters is None else entry.n_parameters,
                    "" if entry.seconds is None else f"{entry.seconds:.1f}",
                    _plain("; ".join(entry.refusals)),
                ]
            )
        for name, value in contest.controls.items():
            cells = [*map(_plain, head), "", "", "", "", _plain(name), "control", "", repr(value)]
            writer.writerow([*cells, "", "", "", "", contest.n_items, "", "", ""])
    return text.getvalue()


def _plain(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
