"""Write the web page of a report: one HTML file with its style and script inside; it loads nothing from elsewhere.

The template is ``model_cards/report.html.jinja``. Jinja escapes everything that comes from records.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bend_hf import __version__
from bend_hf.evaluation.layer_choice import LayerCurve
from bend_hf.files import asset_folder
from bend_hf.publishing.gene_tables import EXPLAINED as GENES_EXPLAINED
from bend_hf.publishing.gene_tables import HEADER as GENES_HEADER
from bend_hf.publishing.gene_tables import HEADING as GENES
from bend_hf.publishing.leaderboard import BELOW_CONTROL, MARKS, Leaderboard, Row, heads_in_words, over_tasks
from bend_hf.publishing.published import EXPLAINED, HEADING
from bend_hf.publishing.report.tables import LAYER_HEADER, layer_rows, layer_title
from bend_hf.publishing.shot_tables import EXPLAINED as SHOTS_EXPLAINED
from bend_hf.publishing.shot_tables import HEADER as SHOTS_HEADER
from bend_hf.publishing.shot_tables import HEADING as SHOTS
from bend_hf.tables import INVISIBLE, metric_title, number, render

_TEMPLATE: Final = "report.html.jinja"
_MARGIN: Final = 0.06  # fraction of the span that stays free on each side of the intervals


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Positions of a score and its interval in percent of the width; None if the number is missing."""

    at: float | None
    low: float | None
    high: float | None


def page(boards: Sequence[Leaderboard], plots: Mapping[str, bytes], curves: Sequence[LayerCurve] = ()) -> str:
    """The HTML of the page.

    Args:
        boards: Leaderboards to show.
        plots: File contents by path; the SVG files are embedded in the page.
        curves: Curves over layers to show.
    """
    rows = [row for board in boards for row in board.rows]
    fields = {
        "version": __version__,
        "sections": [_section(board) for board in boards],
        "tasks": sorted({(board.task, board.title) for board in boards}),
        "protocols": sorted({board.protocol for board in boards}),
        "families": sorted({row.result.family for row in rows}),
        "matrices": [_matrix(boards, protocol) for protocol in sorted({b.protocol for b in boards if b.rows})],
        "plots": [
            _plot(name, content, boards, curves)
            for name, content in sorted(plots.items(), key=_plot_order)
            if name.endswith(".svg")
        ],
        "curves": [
            {"title": layer_title(curve), "text": curve.in_words(), "rows": layer_rows(curve)} for curve in curves
        ],
        "curves_header": LAYER_HEADER,
        "genes_heading": GENES,
        "genes_explained": GENES_EXPLAINED,
        "genes_header": GENES_HEADER,
        "shots_heading": SHOTS,
        "shots_explained": SHOTS_EXPLAINED,
        "shots_header": SHOTS_HEADER,
        "published_heading": HEADING,
        "published_explained": EXPLAINED,
        "any_not_publishable": any(row.result.reasons_not_to_publish for row in rows),
        "any_unranked": any(row.rank is None for row in rows),
        "marks": [
            *((mark, text) for mark, text in MARKS.items() if mark in {row.mark for row in rows}),
            *[(BELOW_CONTROL, "below the best control")]
            * any(b.below_best_control(row) for b in boards for row in b.rows),
        ],
    }
    html = render(asset_folder("model_cards") / _TEMPLATE, fields, html=True)
    return INVISIBLE.sub(lambda sign: sign[0] if sign[0] in "\n\t" else "\ufffd", html)  # as in Markdown


def _section(board: Leaderboard) -> dict[str, Any]:
    low, high = board.span
    margin = _MARGIN * (high - low) or 0.05
    low, high = low - margin, high + margin

    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * (value - low) / (high - low), 2)

    return {
        "board": board,
        "rows": [
            _row(row, board, Bar(at=place(one.value), low=place(one.low), high=place(one.high)))
            for row in board.rows
            for one in [row.result]
        ],
        "controls": [
            {"name": name, "value": value, "text": number(value), "at": place(value)}
            for name, value in board.controls.items()
        ],
        "low": _axis_end(low),
        "high": _axis_end(high),
        "paired": any(row.tie is not None and row.tie.p is not None for row in board.rows),
        "methods": sorted({row.result.interval_method for row in board.rows} - {""}),
    }


def _axis_end(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # -0.001 reads 0.00


def _row(row: Row, board: Leaderboard, bar: Bar) -> dict[str, Any]:
    result = row.result
    return {
        "row": row,
        "result": result,
        "score": board.score_text(row),
        "interval": "" if result.low is None else f"{number(result.low)} to {number(result.high)}",
        "bar": bar,
        "seeds": ", ".join(map(str, result.seeds)),
        "parameters": "" if result.n_parameters is None else f"{result.n_parameters:,}",
        "seconds": "" if result.seconds is None else f"{result.seconds:,.0f}",
        "head": result.head.replace("_", " "),
        "mark": row.mark,
        "why_marked": MARKS.get(row.mark, ""),
        "p": None if row.tie is None else row.tie.p,
    }


def _matrix(boards: Sequence[Leaderboard], protocol: str) -> dict[str, Any]:
    """Models and controls by leaderboards of one protocol; a cell's shade is its position in its column."""
    shown = [board for board in boards if board.protocol == protocol and board.rows]
    found = over_tasks(shown)
    spans = []
    for values in zip(*(line.values for line in found), strict=True):
        known = [value for value in values if value is not None]
        spans.append((min(known), max(known)) if known else (0.0, 0.0))
    lines = [
        {
            "name": line.name,
            "family": next((row.result.family for row in line.rows if row is not None), ""),
            "is_control": line.is_control,
            "cells": [
                _cell(row, value, span, board)
                for row, value, span, board in zip(line.rows, line.values, spans, shown, strict=True)
            ],
        }
        for line in found
    ]
    tasks = [board.task for board in shown]
    doubled = sorted(
        {task for task in tasks if tasks.count(task) > 1}
    )  # tasks that were scored on several sets of data
    return {"protocol": protocol, "boards": shown, "lines": lines, "doubled": doubled, "heads": heads_in_words(shown)}


def _cell(row: Row | None, value: float | None, span: tuple[float, float], board: Leaderboard) -> dict[str, Any]:
    label = f"{board.title}, {metric_title(board.metric)}"
    if value is None:
        return {"text": "", "shade": 0, "tied": False, "value": "", "label": label}
    low, high = span
    shade = round(100 * (value - low) / (high - low)) if high > low else 50
    tied = row is not None and (row.tied or row.rank == 1)
    return {"text": number(value), "shade": shade, "tied": tied, "value": value, "label": label}


def _plot_order(item: tuple[str, bytes]) -> tuple[bool, str]:
    """Plots over all tasks come first."""
    return any(f"/{kind}_" in item[0] for kind in ("forest", "layers", "reliability", "shots")), item[0]


def _plot(name: str, content: bytes, boards: Sequence[Leaderboard], curves: Sequence[LayerCurve]) -> dict[str, str]:
    stem = name.rsplit("/", 1)[-1].removesuffix(".svg")
    titles = {f"forest_{board.key}": f"{board.title}, protocol {board.protocol}" for board in boards}
    for protocol in {board.protocol for board in boards}:
        titles[f"heatmap_{protocol}"] = f"All tasks, protocol {protocol}"
        titles[f"score_parameters_{protocol}"] = f"Score against parameters, protocol {protocol}"
        titles[f"score_cost_{protocol}"] = f"Score against seconds per run, protocol {protocol}"
    titles |= {f"layers_{curve.key}": layer_title(curve) for curve in curves}
    titles |= {f"shots_{board.key}": f"Few shots: {board.title}, protocol {board.protocol}" for board in boards}
    titles |= {f"reliability_{board.key}": f"Reliability: {board.title}, protocol {board.protocol}" for board in boards}
    return {
        "name": titles.get(stem, stem.replace("_", " ").capitalize()),
        "png": name.removesuffix(".svg") + ".png",
        "data": "data:image/svg+xml;base64," + base64.b64encode(content).decode(),
    }
