"""The figures of a report as numbers, and how matplotlib draws them as PNG and SVG.

    files = drawn({"plots/forest": Forest(title="CpG methylation", metric="auroc", rows=rows, controls={})})

A figure holds nothing but numbers and names, so that other processes can draw it: they start faster than records are
read, and their memory is free again at once. The same numbers give the same bytes, wherever they are drawn. matplotlib
is imported when something is drawn.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from bend_hf.errors import BendError
from bend_hf.runs.shot_plot import curve_figure
from bend_hf.tables import metric_title
from bend_hf.types import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
_DPI: Final = 150
_FEW: Final = 5  # figures that one process draws before a second one has imported matplotlib


class Drawable(Protocol):
    """The numbers of a figure."""

    def draw(self) -> Figure:
        """Draw the figure."""
        ...


@dataclass(frozen=True, kw_only=True)
class Point:
    """A score with the ends of its interval.

    Attributes:
        name: Name of the model.
        value: The score.
        low: Lower end; None without an interval.
        high: Upper end.
        x: What it is drawn against.
        tied: Whether it cannot be told from the best.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    x: float = 0.0
    tied: bool = False


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Models and controls by tasks. Each column has its own color scale, because each task has its own metric.

    Attributes:
        title: Title of the figure.
        names: Name of each line.
        columns: Title of each column.
        values: Scores of each line; None for a task without one.
    """

    title: str
    names: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]

    def draw(self) -> Figure:
        """Draw the figure."""
        values = np.array(self.values, dtype=np.float64)
        low, high = np.nanmin(values, axis=0, initial=np.inf), np.nanmax(values, axis=0, initial=-np.inf)
        shade = np.where(high > low, np.clip((values - low) / np.where(high > low, high - low, 1.0), 0, 1), 0.5)
        shade[np.isnan(values)] = np.nan
        figure, axes = _figure(
            1.0 + _inches(self.names) + 1.15 * len(self.columns), 1.8 + _ROW_INCHES * len(self.names)
        )
        # a mesh and no image, which takes 70 MB to enlarge; text is read on the lightest and the darkest color
        edges = [np.arange(n + 1) - 0.5 for n in (len(self.columns), len(self.names))]
        axes.pcolormesh(*edges, shade, cmap="Blues", vmin=-0.2, vmax=1.25)
        axes.set_ylim(len(self.names) - 0.5, -0.5)
        for (y, x), value in np.ndenumerate(values):
            text = "-" if np.isnan(value) else f"{value:.3f}"
            axes.text(x, y, text, ha="center", va="center", color="white" if shade[y, x] > 0.7 else "black", fontsize=8)
        axes.set_xticks(range(len(self.columns)), [_plain(title) for title in self.columns], fontsize=8)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_yticks(range(len(self.names)), [_plain(name) for name in self.names])
        axes.set_title(f"{self.title}\ndarker is better within a column", fontsize=9)
        return figure


@dataclass(frozen=True, kw_only=True)
class Forest:
    """The models of a leaderboard with their intervals, and its controls below them.

    Attributes:
        title: Title of the figure.
        metric: Name of the metric.
        rows: The models.
        controls: Score of each control.
    """

    title: str
    metric: str
    rows: tuple[Point, ...]
    controls: Mapping[str, float]

    def draw(self) -> Figure:
        """Draw the figure."""
        names = [row.name for row in self.rows] + [f"control: {name}" for name in self.controls]
        figure, axes = _figure(5.0 + _inches(names), 1.3 + _ROW_INCHES * len(names))
        for y, row in enumerate(self.rows):
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [y, y], color=_MODEL_COLOR, linewidth=2)
            axes.plot([row.value], [y], "o", color=_MODEL_COLOR, markerfacecolor="white" if row.tied else _MODEL_COLOR)
        controls = list(self.controls.values())
        axes.plot(controls, range(len(self.rows), len(names)), "D", color=_CONTROL_COLOR, markersize=5)
        best = ""
        if controls:
            axes.axvline(max(controls), color=_CONTROL_COLOR, linestyle=":", linewidth=1.2, zorder=0)
            best = "; dotted: best control"
        axes.set_yticks(range(len(names)), [_plain(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        hollow = "; hollow: cannot be told from the best" if any(row.tied for row in self.rows) else ""
        axes.set_xlabel(f"{metric_title(self.metric)} (bar: interval{hollow}{best})")
        axes.set_title(_plain(self.title))
        axes.spines[["top", "right"]].set_visible(False)
        return figure


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Fraction of positives by predicted probability, one line per model.

    Attributes:
        title: Title of the figure.
        lines: Name of each model, and its points.
    """

    title: str
    lines: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]

    def draw(self) -> Figure:
        """Draw the figure."""
        figure, axes = _figure(4.9 + _inches([name for name, _ in self.lines]), 4.2)
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, zorder=0)
        for index, (name, points) in enumerate(self.lines):
            color, marker = _STYLES[index % len(_STYLES)]
            label = _plain(name)
            axes.plot(*zip(*points, strict=True), color=color, marker=marker, linewidth=1.2, markersize=4, label=label)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="fraction of positives")
        axes.set_title(_plain(self.title))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return figure


@dataclass(frozen=True, kw_only=True)
class Shots:
    """Scores by the number of labels; see ``runs.shot_plot``.

    Attributes:
        title: Title of the figure.
        metric: Name of the metric.
        models: Points of each model.
        controls: Points of each control.
    """

    title: str
    metric: str
    models: Mapping[str, Sequence[Json]]
    controls: Mapping[str, Sequence[Json]]

    def draw(self) -> Figure:
        """Draw the figure."""
        models = {_plain(name): points for name, points in self.models.items()}
        controls = {_plain(name): points for name, points in self.controls.items()}
        return curve_figure(models, controls, metric=self.metric, title=_plain(self.title))


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Validation and test score by layer, and the interval of the layer that was chosen.

    Attributes:
        title: Title of the figure.
        metric: Name of the metric.
        layers: The layers.
        scores: Validation and test score of each, by name; None for a layer without one.
        chosen: The layer that was chosen, with the interval of a layer named beforehand; None if no layer was chosen.
        choice: Ends of the interval that holds whichever layer is chosen.
        mixes: Name and test score of heads that read all layers.
    """

    title: str
    metric: str
    layers: tuple[int | str, ...]
    scores: Mapping[str, tuple[float | None, ...]]
    chosen: Point | None
    choice: tuple[float | None, float | None]
    mixes: tuple[tuple[str, float | None], ...]

    def draw(self) -> Figure:
        """Draw the figure."""
        figure, axes = _figure(5.6, 3.6)
        for (label, values), (color, marker) in zip(self.scores.items(), _STYLES, strict=False):
            known = [(x, y) for x, y in zip(self.layers, values, strict=True) if y is not None]
            xs, ys = [x for x, _ in known], [y for _, y in known]
            axes.plot(xs, ys, color=color, marker=marker, markersize=4, label=label)
        if self.chosen is not None:
            color, x = _STYLES[1][0], self.chosen.x
            low, high = self.choice
            if low is not None and high is not None:
                label = f"test, interval over {len(self.layers)} layers"
                axes.plot([x] * 2, [low, high], color=color, linewidth=1, label=label)
            if self.chosen.low is not None and self.chosen.high is not None:
                ends = [self.chosen.low, self.chosen.high]
                axes.plot([x] * 2, ends, color=color, linewidth=3, label="test, interval")
            axes.axvline(x, color="0.7", linestyle=":", linewidth=1.2, zorder=0)
        for (name, value), style in zip(self.mixes, ("--", "-."), strict=False):
            if value is not None:
                axes.axhline(value, color=_STYLES[2][0], linestyle=style, label=f"test, {name}")
        axes.set_xticks(list(self.layers))
        axes.set_xlabel("layer (0: input of the first block; dotted: chosen on validation)")
        axes.set_ylabel(metric_title(self.metric))
        axes.set_title(_plain(self.title))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
        return figure


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One leaderboard of a ``Scatter``."""

    title: str
    metric: str
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Score against a cost, one panel per leaderboard.

    Attributes:
        title: Title of the figure.
        label: What the cost is.
        panels: The leaderboards.
    """

    title: str
    label: str
    panels: tuple[Panel, ...] = field(default=())

    def draw(self) -> Figure:
        """Draw the figure."""
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D

        n_columns = min(3, len(self.panels))
        n_rows = -(-len(self.panels) // n_columns)
        names = sorted({point.name for panel in self.panels for point in panel.points}, key=str.casefold)
        width = max(3.6 * n_columns, 0.8 + _inches(names))
        figure = Figure(figsize=(width, 2.9 * n_rows + 0.4 + 0.2 * len(names)), layout="constrained")
        style_of = {name: _style(index) for index, name in enumerate(names)}
        for place, panel in enumerate(self.panels, start=1):
            axes = figure.add_subplot(n_rows, n_columns, place)
            _draw_panel(axes, panel.points, style_of)
            axes.set_xlabel(self.label)
            axes.set_ylabel(metric_title(panel.metric))
            axes.set_title(_plain(panel.title), fontsize=9)
            axes.spines[["top", "right"]].set_visible(False)
        figure.suptitle(self.title)
        figure.legend(
            handles=[Line2D([], [], color=color, marker=marker, linestyle="") for color, marker in style_of.values()],
            labels=[_plain(name) for name in style_of],
            loc="outside lower center",
            ncols=max(1, int(width / (0.5 + _inches(names)))),
            frameon=False,
            fontsize=8,
        )
        return figure


def drawn(figures: Mapping[str, Drawable]) -> dict[str, bytes]:
    """Draw figures, in processes of their own unless this one has imported matplotlib.

    Args:
        figures: The figures by path without ending.

    Returns:
        File contents by path, each figure as PNG and SVG, in the order of the figures.

    Raises:
        BendError: A process failed.
    """
    if "matplotlib" in sys.modules or not figures:
        return _drawn_here(figures)
    n_processes = min(os.cpu_count() or 1, 2 if len(figures) > _FEW else 1)
    stems = list(figures)
    parts = [{stem: figures[stem] for stem in stems[first::n_processes]} for first in range(n_processes)]
    found: dict[str, bytes] = {}
    processes = [_start(part) for part in parts]
    for process in processes:
        out, said = process.communicate()
        if process.returncode:
            raise BendError(
                f"the process that draws the plots ended with {process.returncode}: {said.decode()[-2000:].strip()}; "
                "give --no-plots to leave them out"
            )
        found |= pickle.loads(out)  # noqa: S301  # written by our own process
    return {path: found[path] for stem in stems for path in (f"{stem}.png", f"{stem}.svg")}


def _start(figures: Mapping[str, Drawable]) -> subprocess.Popen[bytes]:
    """Start a process that draws figures, and give it their numbers."""
    code = "from bend_hf.publishing.figures import _draw_for_parent; _draw_for_parent()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(  # noqa: S603  # our own code
        [sys.executable, "-P", "-c", code],  # without the working directory, where files may have names of modules
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # it ended already, which its exit status says
            process.stdin.write(pickle.dumps(dict(figures)))
            process.stdin.close()
        process.stdin = None
    return process


def _draw_for_parent() -> None:
    """Draw the figures that the parent sent, and send the files back."""
    files = _drawn_here(pickle.loads(sys.stdin.buffer.read()))  # noqa: S301  # sent by our own process
    sys.stdout.buffer.write(pickle.dumps(files))


def _drawn_here(figures: Mapping[str, Drawable]) -> dict[str, bytes]:
    if not figures:
        return {}
    files: dict[str, bytes] = {}
    with drawing():
        for stem, figure in figures.items():
            files |= saved(stem, figure.draw())
    return files


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Settings that make the same figure give the same bytes."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "bend_hf", "svg.fonttype": "none", "font.size": 9, "axes.grid": False}):
        yield


def saved(stem: str, figure: Figure) -> dict[str, bytes]:
    """Return a figure as ``stem.png`` and ``stem.svg``."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.set_dpi(_DPI)
    engine = figure.get_layout_engine()
    if engine is not None:
        # Laid out once and then drawn twice. With an engine, matplotlib would lay it out by drawing, for each file.
        engine.execute(figure)
        figure.set_layout_engine(None)
    figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return {f"{stem}.png": png.getvalue(), f"{stem}.svg": svg.getvalue()}


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


def _style(index: int) -> tuple[str, str]:
    """Color and marker of a model; 49 models have different ones."""
    n = len(_STYLES)
    return _STYLES[index % n][0], _STYLES[(index + index // n) % n][1]


def _draw_panel(axes: Axes, points: Sequence[Point], style_of: Mapping[str, tuple[str, str]]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    xs = [point.x for point in points]
    for point in points:
        color, marker = style_of[point.name]
        if point.low is not None and point.high is not None:
            axes.plot([point.x, point.x], [point.low, point.high], color=color, linewidth=1)
        axes.plot([point.x], [point.value], marker, color=color)
    axes.set_xscale("log")
    # labels at 2 and 5 have room on a short axis only
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(xs) < 10 * min(xs) else (1,), numticks=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    margin = max((max(xs) / min(xs)) ** 0.15, 2)
    axes.set_xlim(min(xs) / margin, max(xs) * margin)
    axes.margins(y=0.15)
