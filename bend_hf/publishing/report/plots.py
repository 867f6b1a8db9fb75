"""Choose the plots of a report and their numbers; `publishing.figures` draws them.

A report has a heat map, a forest plot per leaderboard, and scores against parameters and cost if there are several
models.
"""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from bend_hf.evaluation.record import member
from bend_hf.publishing.diagnostics import reliability_of
from bend_hf.publishing.figures import (
    Drawable,
    Forest,
    HeatMap,
    Layers,
    Panel,
    Point,
    Reliability,
    Scatter,
    Shots,
    drawn,
)
from bend_hf.publishing.leaderboard import Leaderboard, Row, over_tasks
from bend_hf.publishing.report.tables import layer_name
from bend_hf.tables import metric_title
from bend_hf.types import Json

if TYPE_CHECKING:
    from bend_hf.evaluation.layer_choice import LayerCurve

_TITLE_WIDTH: Final = 14  # characters per line below the heat map
_MISSING: Final = "no plots: matplotlib is not installed; pip install 'bend-hf[plots]' brings it"


def plot_files(boards: Sequence[Leaderboard], log: Callable[[str], None]) -> dict[str, bytes]:
    """Draw every plot of a report that there are numbers for.

    Args:
        boards: Leaderboards to draw; those of controls only are left out.
        log: Receives one line if matplotlib is not installed.

    Returns:
        File contents by path below the report.
    """
    boards = [board for board in boards if board.rows]
    if not boards:
        return {}
    if importlib.util.find_spec("matplotlib") is None:
        log(_MISSING)
        return {}
    return drawn({f"plots/{name}": figure for name, figure in _figures(boards).items() if figure is not None})


def _figures(boards: Sequence[Leaderboard]) -> dict[str, Drawable | None]:
    """Return the figures by name; None for those without numbers."""
    found: dict[str, Drawable | None] = {}
    for protocol in sorted({board.protocol for board in boards}):
        same_protocol = [board for board in boards if board.protocol == protocol]
        found[f"heatmap_{protocol}"] = _heatmap(same_protocol, protocol)
        for name, label, cost_of in (
            ("parameters", "parameters", lambda row: row.result.n_parameters),
            ("cost", "seconds per run", lambda row: row.result.seconds),
        ):
            found[f"score_{name}_{protocol}"] = _scatter(same_protocol, cost_of, label, protocol)
    for board in boards:
        found[f"forest_{board.key}"] = _forest(board)
        found[f"shots_{board.key}"] = _shots(board)
        found[f"reliability_{board.key}"] = _reliability(board)
    return found


def _title(board: Leaderboard) -> str:
    return f"{board.title}, protocol {board.protocol}"


def _shots(board: Leaderboard) -> Shots | None:
    """The curves of all models that have one, with the controls of the first; None if there are none."""
    models: dict[str, list[Json]] = {}
    controls: dict[str, list[Json]] = {}
    for row in board.rows:
        for record in row.result.records:
            points = member(record.shots, "points")
            if not isinstance(points, list) or not points or row.name in models:
                continue
            models[row.name] = points
            for key, entry in record.controls.items():
                own = member(entry, "shots")
                if isinstance(own, list):
                    controls.setdefault(key, own)
    if not models:
        return None
    return Shots(title=_title(board), metric=board.metric, models=models, controls=controls)


def _heatmap(boards: Sequence[Leaderboard], protocol: str) -> HeatMap:
    lines = over_tasks(boards)
    return HeatMap(
        title=f"Scores, protocol {protocol}",
        names=tuple(f"control: {line.name}" if line.is_control else line.name for line in lines),
        columns=tuple("\n".join([*textwrap.wrap(b.title, _TITLE_WIDTH), metric_title(b.metric)]) for b in boards),
        values=tuple(tuple(line.values) for line in lines),
    )


def _forest(board: Leaderboard) -> Forest:
    points = [_point(row) for row in board.rows]
    return Forest(
        title=f"{_title(board)}, {board.n_items:,} items",
        metric=board.metric,
        rows=tuple(point for point in points if point is not None),
        controls=dict(board.controls),
    )


def _point(row: Row, x: float = 0.0) -> Point | None:
    """The score of a row; None if it has none."""
    result = row.result
    if result.value is None:
        return None
    return Point(name=row.name, value=result.value, low=result.low, high=result.high, x=x, tied=row.tied)


def _reliability(board: Leaderboard) -> Reliability | None:
    """Calibration of all models; None if no scores are probabilities."""
    lines = [(row.name, tuple(reliability_of(row.result.records[0]))) for row in board.rows]
    known = tuple((name, points) for name, points in lines if points)
    return Reliability(title=_title(board), lines=known) if known else None


def _scatter(
    boards: Sequence[Leaderboard], cost_of: Callable[[Row], float | None], label: str, protocol: str
) -> Scatter | None:
    """Score against a cost, for tasks in which two models or more state it; None if there are none."""
    panels = []
    for board in boards:
        # a model of 0 parameters has no place on a logarithmic axis
        points = [_point(row, cost) for row in board.rows if (cost := cost_of(row))]
        known = tuple(point for point in points if point is not None)
        if len(known) > 1:  # one point shows no relation
            panels.append(Panel(title=board.title, metric=board.metric, points=known))
    if not panels:
        return None
    return Scatter(title=f"Score against {label}, protocol {protocol}", label=label, panels=tuple(panels))


def layer_plots(curves: Sequence[LayerCurve], log: Callable[[str], None]) -> dict[str, bytes]:
    """Draw the curve of each model over its layers.

    Args:
        curves: What is drawn.
        log: Receives one line if matplotlib is not installed.

    Returns:
        File contents by name, ``layers_<key>.png`` and ``.svg``.
    """
    if not curves:
        return {}
    if importlib.util.find_spec("matplotlib") is None:
        log(_MISSING)
        return {}
    return drawn({f"layers_{curve.key}": _layers(curve) for curve in curves})


def _layers(curve: LayerCurve) -> Layers:
    found, chosen = curve.chosen, None
    if found is not None and found.test is not None and isinstance(found.layer, int):
        chosen = Point(name="chosen", value=found.test, low=found.low, high=found.high, x=found.layer)
    return Layers(
        title=f"{curve.model}: {curve.task}, protocol {curve.protocol}",
        metric=curve.metric,
        layers=tuple(point.layer for point in curve.points),
        scores={
            "validation": tuple(point.validation for point in curve.points),
            "test": tuple(point.test for point in curve.points),
        },
        chosen=chosen,
        choice=(None, None) if chosen is None or found is None else (found.choice_low, found.choice_high),
        mixes=tuple((layer_name(mix.layer), mix.test) for mix in curve.mixes),
    )
