"""The static page of a report: one file of HTML with its style and script inside, nothing fetched from anywhere.

The template is ``model_cards/report.html.jinja``; all that comes from records is escaped by Jinja.

>>> "<script src" in page([], {})
False
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bend_hf import __version__
from bend_hf.files import asset_folder
from bend_hf.publishing.leaderboard import MARKS, Contest, Row
from bend_hf.tables import number, render

_TEMPLATE: Final = "report.html.jinja"
_MARGIN: Final = 0.06  # of the span, left free at each side of the drawn intervals


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Where a score and its interval are drawn, in percent of the width; None where there is none."""

    at: float | None
    low: float | None
    high: float | None


def page(contests: Sequence[Contest], plots: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        contests: What to show.
        plots: File contents by path; the SVGs are put into the page.
    """
    rows = [row for contest in contests for row in contest.rows]
    fields = {
        "version": __version__,
        "sections": [_section(contest) for contest in contests],
        "tasks": sorted({(contest.task, contest.title) for contest in contests}),
        "protocols": sorted({contest.protocol for contest in contests}),
        "families": sorted({row.entry.family for row in rows}),
        "matrices": [_matrix(contests, protocol) for protocol in sorted({c.protocol for c in contests if c.rows})],
        "plots": [
            _plot(name, content, contests)
            for name, content in sorted(plots.items(), key=_plot_order)
            if name.endswith(".svg")
        ],
        "refused": any(row.entry.refusals for row in rows),
        "marks": [(mark, text) for mark, text in MARKS.items() if mark in {row.mark for row in rows}],
    }
    return render(asset_folder("model_cards") / _TEMPLATE, fields, html=True)


def _section(contest: Contest) -> dict[str, Any]:
    low, high = contest.span
    margin = _MARGIN * (high - low) or 0.05
    low, high = low - margin, high + margin

    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * (value - low) / (high - low), 2)

    return {
        "contest": contest,
        "rows": [
            _row(row, place(row.entry.value), place(row.entry.low), place(row.entry.high)) for row in contest.rows
        ],
        "controls": [
            {"name": name, "value": value, "text": number(value), "at": place(value)}
            for name, value in contest.controls.items()
        ],
        "low": f"{low:.2f}",
        "high": f"{high:.2f}",
        "paired": any(row.tie is not None and row.tie.p is not None for row in contest.rows),
        "methods": sorted({row.entry.interval_method for row in contest.rows} - {""}),
    }


def _row(row: Row, at: float | None, low: float | None, high: float | None) -> dict[str, Any]:
    entry = row.entry
    return {
        "row": row,
        "entry": entry,
        "score": number(entry.value),
        "interval": "" if entry.low is None else f"{number(entry.low)} to {number(entry.high)}",
        "bar": Bar(at=at, low=low, high=high),
        "seeds": ", ".join(map(str, entry.seeds)),
        "parameters": "" if entry.n_parameters is None else f"{entry.n_parameters:,}",
        "seconds": "" if entry.seconds is None else f"{entry.seconds:,.0f}",
        "probe": entry.probe.replace("_", " "),
        "mark": row.mark,
        "why_marked": MARKS.get(row.mark, ""),
        "p": None if row.tie is None else row.tie.p,
    }


def _matrix(contests: Sequence[Contest], protocol: str) -> dict[str, Any]:
    """Models by contests of one protocol; a cell's shade is its place between the worst and best of its column."""
    mine = [contest for contest in contests if contest.protocol == protocol and contest.rows]
    names = sorted({row.name for contest in mine for row in contest.rows})
    columns = [{row.name: row for row in contest.rows} for contest in mine]
    spans = []
    for contest in mine:
        values = [row.entry.value for row in contest.rows if row.entry.value is not None]
        spans.append((min(values), max(values)) if values else (0.0, 0.0))
    lines = []
    for name in names:
        found = [column.get(name) for column in columns]
        family = next(row.entry.family for row in found if row is not None)
        cells = [_cell(row, low, high) for row, (low, high) in zip(found, spans, strict=True)]
        lines.append({"name": name, "family": family, "cells": cells})
    tasks = [contest.task for contest in mine]
    doubled = sorted({task for task in tasks if tasks.count(task) > 1})  # scored on several sets of data
    return {"protocol": protocol, "contests": mine, "lines": lines, "doubled": doubled}


def _cell(row: Row | None, low: float, high: float) -> dict[str, Any]:
    if row is None or row.entry.value is None:
        return {"text": "", "shade": 0, "tied": False, "value": ""}
    shade = round(100 * (row.entry.value - low) / (high - low)) if high > low else 50
    return {
        "text": number(row.entry.value),
        "shade": shade,
        "tied": row.tied or row.rank == 1,
        "value": row.entry.value,
    }


def _plot_order(item: tuple[str, bytes]) -> tuple[bool, str]:
    """The pictures of all tasks first."""
    return "/forest_" in item[0], item[0]


def _plot(name: str, content: bytes, contests: Sequence[Contest]) -> dict[str, str]:
    stem = name.rsplit("/", 1)[-1].removesuffix(".svg")
    titles = {f"forest_{contest.key}": f"{contest.title}, protocol {contest.protocol}" for contest in contests}
    return {
        "name": titles.get(stem, stem.replace("_", " ").capitalize()),
        "png": name.removesuffix(".svg") + ".png",
        "data": "data:image/svg+xml;base64," + base64.b64encode(content).decode(),
    }
