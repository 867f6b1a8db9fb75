"""Draw the plots of a report as PNG and SVG.

A report has a heat map, a forest plot per leaderboard, and scores against parameters and cost. matplotlib is imported
when something is drawn. The same numbers give the same bytes.
"""

from __future__ import annotations

import importlib.util
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bend_hf.evaluation.record import member
from bend_hf.publishing.diagnostics import reliability_of
from bend_hf.publishing.leaderboard import Leaderboard, Row, over_tasks
from bend_hf.publishing.report.tables import layer_name
from bend_hf.runs.shot_plot import curve_figure
from bend_hf.tables import metric_title
from bend_hf.types import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bend_hf.evaluation.layer_choice import LayerCurve, LayerPoint

# Okabe and Ito's colors, which color-blind readers can tell apart (Wong, Nature Methods 8, 441, 2011), each with the
# marker that is drawn in it. Seven pairs: their yellow is too pale for lines.
_STYLES: Final = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#000000", "X"),
)
_MODEL_COLOR: Final = _STYLES[0][0]  # in a forest plot
_CONTROL_COLOR: Final = _STYLES[3][0]
_ROW_INCHES: Final = 0.32
_TITLE_WIDTH: Final = 14  # characters per line below the heat map


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
        log("no plots: matplotlib is not installed; run 'pip install bend-hf[plots]'")
        return {}
    files: dict[str, bytes] = {}
    with drawing():
        for protocol in sorted({board.protocol for board in boards}):
            same_protocol = [board for board in boards if board.protocol == protocol]
            files |= saved(f"plots/heatmap_{protocol}", _heatmap(same_protocol, protocol))
            for name, label, cost_of in (
                ("parameters", "parameters", lambda row: row.result.n_parameters),
                ("cost", "seconds per run", lambda row: row.result.seconds),
            ):
                figure = _scatter(same_protocol, cost_of, label, protocol)
                if figure is not None:
                    files |= saved(f"plots/score_{name}_{protocol}", figure)
        for board in boards:
            files |= saved(f"plots/forest_{board.key}", _forest(board))
            if (figure := _shots(board)) is not None:
                files |= saved(f"plots/shots_{board.key}", figure)
            if (figure := _reliability(board)) is not None:
                files |= saved(f"plots/reliability_{board.key}", figure)
    return files


@contextmanager
def drawing() -> Iterator[None]:
    """Settings that make the same figure give the same bytes."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "bend_hf", "svg.fonttype": "none", "font.size": 9, "axes.grid": False}):
        yield


def saved(stem: str, figure: Figure) -> dict[str, bytes]:
    """A figure as ``stem.png`` and ``stem.svg``."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=150, metadata={"Software": None})
    figure.set_layout_engine("none")  # what was laid out stays; computing it takes longer than drawing
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return {f"{stem}.png": png.getvalue(), f"{stem}.svg": svg.getvalue()}


def _shots(board: Leaderboard) -> Figure | None:
    """The curves of all models that have one, with the controls of the first; None if there are none."""
    models: dict[str, list[Json]] = {}
    controls: dict[str, list[Json]] = {}
    for row in board.rows:
        for record in row.result.records:
            points = member(record.shots, "points")
            if not isinstance(points, list) or not points or row.name in models:
                continue
            models[_plain(row.name)] = points
            for key, entry in record.controls.items():
                own = member(entry, "shots")
                if isinstance(own, list):
                    controls.setdefault(_plain(key), own)
    if not models:
        return None
    title = f"{_plain(board.title)}, protocol {_plain(board.protocol)}"
    return curve_figure(models, controls, metric=board.metric, title=title)


def _plain(text: str) -> str:
    """Text that matplotlib does not read as a formula, and that an SVG file can hold."""
    return re.sub("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\ufffe\\uffff]", "\ufffd", text).replace("$", r"\$")


def _short(count: float) -> str:
    """A number on an axis, such as 50, 2k or 100M."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{sign}"
    return f"{count:g}"


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _inches(names: Sequence[str]) -> float:
    """Width of the longest of some names in the plots' font."""
    return 0.075 * max(map(len, names), default=0)


def _heatmap(boards: Sequence[Leaderboard], protocol: str) -> Figure:
    """Models and controls by tasks. Each column has its own color scale, because each task has its own metric."""
    import numpy as np

    lines = over_tasks(boards)
    names = [f"control: {line.name}" if line.is_control else line.name for line in lines]
    values = np.array([line.values for line in lines], dtype=np.float64)
    low, high = np.nanmin(values, axis=0, initial=np.inf), np.nanmax(values, axis=0, initial=-np.inf)
    shade = np.where(high > low, np.clip((values - low) / np.where(high > low, high - low, 1.0), 0, 1), 0.5)
    shade[np.isnan(values)] = np.nan
    figure, axes = _figure(1.0 + _inches(names) + 1.15 * len(boards), 1.8 + _ROW_INCHES * len(names))
    axes.imshow(shade, cmap="Blues", aspect="auto", vmin=-0.2, vmax=1.25)
    for (y, x), value in np.ndenumerate(values):
        text = "-" if np.isnan(value) else f"{value:.3f}"
        axes.text(x, y, text, ha="center", va="center", color="white" if shade[y, x] > 0.7 else "black", fontsize=8)
    titles = ["\n".join([*textwrap.wrap(b.title, _TITLE_WIDTH), metric_title(b.metric)]) for b in boards]
    axes.set_xticks(range(len(boards)), [_plain(title) for title in titles], fontsize=8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_yticks(range(len(names)), [_plain(name) for name in names])
    axes.set_title(f"Scores, protocol {protocol}\ndarker is better within a column", fontsize=9)
    return figure


def _forest(board: Leaderboard) -> Figure:
    """The models of a leaderboard with their intervals, and its controls below them."""
    rows = [(row, row.result.value) for row in board.rows if row.result.value is not None]
    names = [row.name for row, _ in rows] + [f"control: {name}" for name in board.controls]
    figure, axes = _figure(5.0 + _inches(names), 1.3 + _ROW_INCHES * len(names))
    for y, (row, value) in enumerate(rows):
        result, fill = row.result, "white" if row.tied else _MODEL_COLOR
        if result.low is not None and result.high is not None:
            axes.plot([result.low, result.high], [y, y], color=_MODEL_COLOR, linewidth=2)
        axes.plot([value], [y], "o", color=_MODEL_COLOR, markerfacecolor=fill)
    controls = list(board.controls.values())
    axes.plot(controls, range(len(rows), len(names)), "D", color=_CONTROL_COLOR, markersize=5)
    best = ""
    if controls:
        axes.axvline(max(controls), color=_CONTROL_COLOR, linestyle=":", linewidth=1.2, zorder=0)
        best = "; dotted: best control"
    axes.set_yticks(range(len(names)), [_plain(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    hollow = "; hollow: cannot be told from the best" if any(row.tied for row, _ in rows) else ""
    axes.set_xlabel(f"{metric_title(board.metric)} (bar: interval{hollow}{best})")
    axes.set_title(_plain(f"{board.title}, protocol {board.protocol}, {board.n_items:,} items"))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _reliability(board: Leaderboard) -> Figure | None:
    """Fraction of positives by predicted probability, one line per model; None if no scores are probabilities."""
    lines = [(row.name, reliability_of(row.result.records[0])) for row in board.rows]
    drawn = [(name, points) for name, points in lines if points]
    if not drawn:
        return None
    figure, axes = _figure(4.9 + _inches([name for name, _ in drawn]), 4.2)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, zorder=0)
    for index, (name, points) in enumerate(drawn):
        color, marker = _STYLES[index % len(_STYLES)]
        label = _plain(name)
        axes.plot(*zip(*points, strict=True), color=color, marker=marker, linewidth=1.2, markersize=4, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="fraction of positives")
    axes.set_title(_plain(f"{board.title}, protocol {board.protocol}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


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
        log("no plots: matplotlib is not installed; run 'pip install bend-hf[plots]'")
        return {}
    files: dict[str, bytes] = {}
    with drawing():
        for curve in curves:
            files |= saved(f"layers_{curve.key}", _layers(curve))
    return files


def _layers(curve: LayerCurve) -> Figure:
    """Validation and test score by layer, and the interval of the layer that was chosen."""
    figure, axes = _figure(5.6, 3.6)
    lines: dict[str, Callable[[LayerPoint], float | None]] = {
        "validation": lambda point: point.validation,
        "test": lambda point: point.test,
    }
    for place, (label, score_of) in enumerate(lines.items()):
        known = [(point.layer, score) for point in curve.points if (score := score_of(point)) is not None]
        color, marker = _STYLES[place]
        axes.plot([x for x, _ in known], [y for _, y in known], color=color, marker=marker, markersize=4, label=label)
    chosen = curve.chosen
    if chosen is not None and chosen.test is not None and isinstance(chosen.layer, int):
        color = _STYLES[1][0]
        if chosen.choice_low is not None and chosen.choice_high is not None:
            ends = [chosen.choice_low, chosen.choice_high]
            label = f"test, interval over {len(curve.points)} layers"
            axes.plot([chosen.layer] * 2, ends, color=color, linewidth=1, label=label)
        if chosen.low is not None and chosen.high is not None:
            axes.plot([chosen.layer] * 2, [chosen.low, chosen.high], color=color, linewidth=3, label="test, interval")
        axes.axvline(chosen.layer, color="0.7", linestyle=":", linewidth=1.2, zorder=0)
    for mix, style in zip(curve.mixes, ("--", "-."), strict=False):
        if mix.test is not None:
            axes.axhline(mix.test, color=_STYLES[2][0], linestyle=style, label=f"test, {layer_name(mix.layer)}")
    axes.set_xticks([point.layer for point in curve.points])
    axes.set_xlabel("layer (0: input of the first block; dotted: chosen on validation)")
    axes.set_ylabel(metric_title(curve.metric))
    axes.set_title(_plain(f"{curve.model}: {curve.task}, protocol {curve.protocol}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _scatter(
    boards: Sequence[Leaderboard], cost_of: Callable[[Row], float | None], label: str, protocol: str
) -> Figure | None:
    """One panel per leaderboard: score against a cost. None if no row states the cost."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    panels = []
    for board in boards:
        points = [(cost_of(row), row) for row in board.rows if row.result.value is not None]
        known = [(x, row) for x, row in points if x]  # a model of 0 parameters has no place on a logarithmic axis
        if known:
            panels.append((board, known))
    if not panels:
        return None
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    names = sorted({row.name for _, known in panels for _, row in known}, key=str.casefold)
    width = max(3.6 * n_columns, 0.8 + _inches(names))
    figure = Figure(figsize=(width, 2.9 * n_rows + 0.4 + 0.2 * len(names)), layout="constrained")
    style_of = {name: _style(index) for index, name in enumerate(names)}
    for place, (board, known) in enumerate(panels, start=1):
        axes = figure.add_subplot(n_rows, n_columns, place)
        _scatter_panel(axes, known, style_of)
        axes.set_xlabel(label)
        axes.set_ylabel(metric_title(board.metric))
        axes.set_title(_plain(board.title), fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Score against {label}, protocol {protocol}")
    figure.legend(
        handles=[Line2D([], [], color=color, marker=marker, linestyle="") for color, marker in style_of.values()],
        labels=[_plain(name) for name in style_of],
        loc="outside lower center",
        ncols=max(1, int(width / (0.5 + _inches(names)))),
        frameon=False,
        fontsize=8,
    )
    return figure


def _style(index: int) -> tuple[str, str]:
    """Color and marker of a model; 49 models have different ones."""
    n = len(_STYLES)
    return _STYLES[index % n][0], _STYLES[(index + index // n) % n][1]


def _scatter_panel(axes: Axes, points: Sequence[tuple[float, Row]], style_of: Mapping[str, tuple[str, str]]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    xs = [x for x, _ in points]
    for x, row in points:
        color, marker = style_of[row.name]
        if row.result.low is not None and row.result.high is not None:
            axes.plot([x, x], [row.result.low, row.result.high], color=color, linewidth=1)
        axes.plot([x], [row.result.value or 0.0], marker, color=color)
    axes.set_xscale("log")
    # labels at 2 and 5 have room on a short axis only
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(xs) < 10 * min(xs) else (1,), numticks=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    margin = max((max(xs) / min(xs)) ** 0.15, 2)
    axes.set_xlim(min(xs) / margin, max(xs) * margin)
    axes.margins(y=0.15)
