"""The figures of a report as numbers, and how they are drawn as PNG and SVG.

    files = drawn({"plots/forest": Forest(title="CpG methylation", metric="auroc", rows=rows, controls={})})

A figure holds nothing but numbers and names, so that other processes can draw it: they start faster than records are
read, and their memory is free again at once. The same numbers give the same bytes, wherever they are drawn. Those
that reports have most are drawn on a `canvas`, the others by matplotlib, which both import when something is drawn.
"""

from __future__ import annotations

import contextlib
import gc
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
from numpy.typing import NDArray

from bend_hf.embedders._device import usable_cores
from bend_hf.errors import BendError
from bend_hf.tables import metric_title
from bend_hf.types import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bend_hf.publishing.canvas import Canvas

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
_PANEL_INCHES: Final = (3.6, 2.9)
_SMALL: Final = 8.0  # size of the font of cells and legends
_KEY: Final = 13.0  # points, height of a line of a legend
_DPI: Final = 150
_FEW: Final = 20  # figures that one process draws before a second one has imported matplotlib and pays off


class Drawable(Protocol):
    """The numbers of a figure."""

    def files(self, stem: str) -> dict[str, bytes]:
        """Draw the figure and return it as ``stem.png`` and ``stem.svg``."""
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

    @property
    def ends(self) -> list[float]:
        """The score, and the ends of its interval if it has one."""
        return [end for end in (self.value, self.low, self.high) if end is not None]


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

    def files(self, stem: str) -> dict[str, bytes]:
        """Draw the figure and return it as ``stem.png`` and ``stem.svg``."""
        from bend_hf.publishing.canvas import Canvas
        from bend_hf.publishing.chart import Axes, Scale, room_above, room_at_left

        names, title = [_clean(name) for name in self.names], f"{_clean(self.title)}\ndarker is better within a column"
        shown = np.round(np.array(self.values, dtype=np.float64).reshape(len(names), len(self.columns)), 3)
        page = Canvas(
            72 * (1.0 + 1.15 * len(self.columns)) + room_at_left(names), 72 * (1.5 + _ROW_INCHES * len(names))
        )
        below = 6 + _SMALL * 1.2 * max((column.count("\n") + 1 for column in self.columns), default=1)
        left, top = room_at_left(names), room_above(title, _SMALL + 1)
        axes = Axes(
            page=page,
            left=left,
            bottom=below,
            width=page.width - left - 6,
            height=page.height - below - top,
            x=Scale(low=-0.5, high=len(self.columns) - 0.5),
            y=Scale(low=len(names) - 0.5, high=-0.5),
        )
        # sides of cells in hundredths of a point, as the SVG writes them, so that neighbors share them
        xs, ys = (axes.x_of(_edges(self.columns)).round(2).tolist(), axes.y_of(_edges(names)).round(2).tolist())
        for (row, column), shade in np.ndenumerate(_shades(shown)):
            (x, right), (y, top), value = xs[column : column + 2], ys[row : row + 2][::-1], shown[row, column]
            if not np.isnan(shade):
                page.rectangle(x, y, right - x, top - y, color=_blue(shade))
            text, color = "-" if np.isnan(value) else f"{value:.3f}", "white" if shade > 0.7 else "black"
            page.text(((x + right) / 2, (y + top) / 2), text, size=_SMALL, align="center", color=color)
        for x, heading in zip(axes.x_of(range(len(self.columns))), self.columns, strict=True):
            page.text((x, below - 4), _clean(heading), size=_SMALL, align="center", level="top")
        axes.ticks_at_left(range(len(names)), names, marks=False)
        axes.title(title, _SMALL + 1)
        return page.files(stem)


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

    def files(self, stem: str) -> dict[str, bytes]:
        """Draw the figure and return it as ``stem.png`` and ``stem.svg``."""
        from bend_hf.publishing.canvas import Canvas
        from bend_hf.publishing.chart import ACROSS, Axes, Scale, in_decimals, room_above, room_at_left, room_below

        names = [_clean(row.name) for row in self.rows] + [_clean(f"control: {name}") for name in self.controls]
        controls, left, title = list(self.controls.values()), room_at_left(names), _clean(self.title)
        page = Canvas(72 * 4.8 + left, 72 * (1.1 + _ROW_INCHES * len(names)))
        axes = Axes(
            page=page,
            left=left,
            bottom=room_below(),
            width=page.width - left - 12,
            height=page.height - room_below() - room_above(title),
            x=Scale.around([end for row in self.rows for end in row.ends] + controls),
            y=Scale(low=len(names) - 0.4, high=-0.6),
        )
        best = ""
        if controls:
            (x,) = axes.x_of([max(controls)])
            ends = [axes.bottom, axes.bottom + axes.height]
            page.line([x, x], ends, color=_CONTROL_COLOR, width=1.2, dashes=(1.2, 2.0))
            best = "; dotted: best control"
        axes.frame()
        for y, row in zip(axes.y_of(range(len(self.rows))), self.rows, strict=True):
            if row.low is not None and row.high is not None:
                page.line(axes.x_of([row.low, row.high]), [y, y], color=_MODEL_COLOR, width=2)
            fill = "white" if row.tied else _MODEL_COLOR
            page.marker(axes.x_of([row.value])[0], y, "o", color=_MODEL_COLOR, fill=fill)
        for place, value in enumerate(controls, start=len(self.rows)):
            page.marker(axes.x_of([value])[0], axes.y_of([place])[0], "D", color=_CONTROL_COLOR, size=5)
        hollow = "; hollow: cannot be told from the best" if any(row.tied for row in self.rows) else ""
        ticks = axes.x.ticks(axes.width, ACROSS)
        label = f"{metric_title(self.metric)} (bar: interval{hollow}{best})"
        axes.ticks_below(ticks, in_decimals(ticks), label=label)
        axes.ticks_at_left(range(len(names)), names)
        axes.title(title)
        return page.files(stem)


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Fraction of positives by predicted probability, one line per model.

    Attributes:
        title: Title of the figure.
        lines: Name of each model, and its points.
    """

    title: str
    lines: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]

    def files(self, stem: str) -> dict[str, bytes]:
        """Draw the figure and return it as ``stem.png`` and ``stem.svg``."""
        from bend_hf.publishing.canvas import Canvas
        from bend_hf.publishing.chart import ACROSS, Axes, Scale, in_decimals, room_above, room_at_left, room_below

        whole, plot = Scale(low=0.0, high=1.0), 72 * 4.2
        legend = _Legend(
            names=tuple(_clean(name) for name, _ in self.lines),
            styles=tuple(_STYLES[index % len(_STYLES)] for index in range(len(self.lines))),
        )
        ticks = whole.ticks(plot, ACROSS)
        left = room_at_left(in_decimals(ticks), labeled=True)
        page = Canvas(left + plot + 8 + legend.width, max(plot, legend.height + 12))
        axes = Axes(
            page=page,
            left=left,
            bottom=room_below(),
            width=plot - 6,
            height=page.height - room_below() - room_above(self.title),
            x=whole,
            y=whole,
        )
        page.line(axes.x_of([0, 1]), axes.y_of([0, 1]), color="0.7")
        axes.frame()
        for (_, points), (color, shape) in zip(self.lines, legend.styles, strict=True):
            xs, ys = axes.x_of([x for x, _ in points]), axes.y_of([y for _, y in points])
            page.line(xs, ys, color=color, width=1.2)
            for x, y in zip(xs, ys, strict=True):
                page.marker(x, y, shape, color=color, size=4)
        legend.draw(page, left + plot + 8, (page.height + legend.height) / 2)
        axes.ticks_below(ticks, in_decimals(ticks), label="predicted probability")
        axes.ticks_at_left(ticks, in_decimals(ticks), label="fraction of positives")
        axes.title(_clean(self.title))
        return page.files(stem)


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

    def files(self, stem: str) -> dict[str, bytes]:
        """Draw the figure and return it as ``stem.png`` and ``stem.svg``."""
        from bend_hf.runs.shot_plot import curve_figure

        models = {_plain(name): points for name, points in self.models.items()}
        controls = {_plain(name): points for name, points in self.controls.items()}
        return saved(stem, curve_figure(models, controls, metric=self.metric, title=_plain(self.title)))


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

    def files(self, stem: str) -> dict[str, bytes]:
        """Draw the figure and return it as ``stem.png`` and ``stem.svg``."""
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
        return saved(stem, figure)


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

    def files(self, stem: str) -> dict[str, bytes]:
        """Draw the figure and return it as ``stem.png`` and ``stem.svg``."""
        from bend_hf.publishing.canvas import Canvas, width_of
        from bend_hf.publishing.chart import PAD, TITLE

        n_columns = min(3, len(self.panels))
        n_rows = -(-len(self.panels) // n_columns)
        names = sorted({point.name for panel in self.panels for point in panel.points}, key=str.casefold)
        width = 72 * max(_PANEL_INCHES[0] * n_columns, 0.8 + _inches(names), 0.3 + width_of(self.title, TITLE) / 72)
        style_of = {name: _style(index) for index, name in enumerate(names)}
        legend = _Legend(
            names=tuple(_clean(name) for name in names),
            styles=tuple(style_of.values()),
            n_columns=max(1, int(width / 72 / (0.5 + _inches(names)))),
        )
        below = legend.height + 2 * PAD
        cell = (width / n_columns, 72 * _PANEL_INCHES[1])
        page = Canvas(width, cell[1] * n_rows + TITLE * 1.2 + 2 * PAD + below)
        for place, panel in enumerate(self.panels):
            row, column = divmod(place, n_columns)
            corner = (column * cell[0], below + (n_rows - 1 - row) * cell[1])
            _draw_panel(page, panel, corner, cell, self.label, style_of)
        page.text((width / 2, page.height - PAD), _clean(self.title), size=TITLE, align="center", level="top")
        legend.draw(page, max((width - legend.width) / 2, PAD), legend.height + PAD)
        return page.files(stem)


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
    n_processes = min(usable_cores(), 2 if len(figures) > _FEW else 1)
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
    gc.disable()  # the process ends before a search for garbage pays off
    files = _drawn_here(pickle.loads(sys.stdin.buffer.read()))  # noqa: S301  # sent by our own process
    sys.stdout.buffer.write(pickle.dumps(files))


def _drawn_here(figures: Mapping[str, Drawable]) -> dict[str, bytes]:
    if not figures:
        return {}
    files: dict[str, bytes] = {}
    with drawing():
        for stem, figure in figures.items():
            files |= figure.files(stem)
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


def _clean(text: str) -> str:
    """Text that an SVG file can hold."""
    return re.sub("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\ufffe\\uffff]", "\ufffd", text)


def _plain(text: str) -> str:
    """Text that matplotlib does not read as a formula either."""
    return _clean(text).replace("$", r"\$")


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


def _draw_panel(
    page: Canvas,
    panel: Panel,
    corner: tuple[float, float],
    size: tuple[float, float],
    label: str,
    style_of: Mapping[str, tuple[str, str]],
) -> None:
    """Draw a panel into a rectangle of the page, given by its lower left corner and its size in points."""
    from bend_hf.publishing.chart import UPWARD, Axes, Scale, in_decimals, room_above, room_at_left, room_below

    xs, title = [point.x for point in panel.points], _clean(panel.title)
    margin = max((max(xs) / min(xs)) ** 0.15, 2)
    y = Scale.around([end for point in panel.points for end in point.ends], 0.15)
    height = size[1] - room_below() - room_above(title, _SMALL + 1) - 6
    ticks = y.ticks(height, UPWARD)
    left = room_at_left(in_decimals(ticks), labeled=True)
    axes = Axes(
        page=page,
        left=corner[0] + left,
        bottom=corner[1] + room_below() + 6,
        width=size[0] - left - 14,
        height=height,
        x=Scale(low=min(xs) / margin, high=max(xs) * margin, log=True),
        y=y,
    )
    axes.frame()
    for point in panel.points:
        color, shape = style_of[point.name]
        x = axes.x_of([point.x])[0]
        if point.low is not None and point.high is not None:
            page.line([x, x], axes.y_of([point.low, point.high]), color=color)
        page.marker(x, axes.y_of([point.value])[0], shape, color=color)
    # labels at 2 and 5 have room on a short axis only
    named = axes.x.log_ticks((1, 2, 5) if max(xs) < 10 * min(xs) else (1,))
    minor = [tick for tick in axes.x.log_ticks(tuple(range(2, 10))) if tick not in named]
    axes.ticks_below(named, [_short(tick) for tick in named], minor=minor, label=label)
    axes.ticks_at_left(ticks, in_decimals(ticks), label=metric_title(panel.metric))
    axes.title(title, _SMALL + 1)


@dataclass(frozen=True, kw_only=True)
class _Legend:
    """Names with their colors and markers, column by column."""

    names: tuple[str, ...]
    styles: tuple[tuple[str, str], ...]
    n_columns: int = 1

    @property
    def n_rows(self) -> int:
        return -(-len(self.names) // self.n_columns)

    @property
    def height(self) -> float:
        """In points."""
        return _KEY * self.n_rows

    @property
    def width(self) -> float:
        """In points."""
        return self._step * -(-len(self.names) // max(self.n_rows, 1))

    @property
    def _step(self) -> float:
        from bend_hf.publishing.canvas import width_of

        return 28 + max((width_of(name, _SMALL) for name in self.names), default=0.0)

    def draw(self, page: Canvas, left: float, top: float) -> None:
        """Draw it below and to the right of its upper left corner."""
        step = self._step
        for place, (name, (color, shape)) in enumerate(zip(self.names, self.styles, strict=True)):
            column, row = divmod(place, self.n_rows)
            x, y = left + column * step + 8, top - _KEY * (row + 0.5)
            page.marker(x, y, shape, color=color)
            page.text((x + 11, y), name, size=_SMALL)


def _edges(cells: Sequence[str]) -> NDArray[np.float64]:
    """Where the cells of a table begin and end, if each is 1 wide around its number."""
    return np.arange(len(cells) + 1, dtype=np.float64) - 0.5


def _shades(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shade each column from 0, its lowest value, to 1; 0.5 if all are the same, NaN without a value."""
    low, high = np.nanmin(values, axis=0, initial=np.inf), np.nanmax(values, axis=0, initial=-np.inf)
    found = np.where(high > low, np.clip((values - low) / np.where(high > low, high - low, 1.0), 0, 1), 0.5)
    found[np.isnan(values)] = np.nan
    return found


def _blue(shade: float) -> str:
    """The color of a shade, which leaves out the lightest and the darkest, so that text is read on each."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    return to_hex(mpl.colormaps["Blues"]((shade + 0.2) / 1.45))
