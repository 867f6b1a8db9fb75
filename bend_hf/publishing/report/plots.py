"""The plots of a report, each as PNG and SVG: heat map, forest, score against parameters and against cost.

matplotlib is imported when the first is drawn. The same contests give the same bytes.

>>> plot_files([], print)
{}

Few models and controls on many tasks, side by side: as text for the terminal, and as a picture.

>>> print(side_by_side_text([Score(task="a", metric="mcc", model="k-mer", value=0.5, low=None, high=None)]))
task  metric  k-mer
--------------------
a     mcc     0.5000
"""

from __future__ import annotations

import importlib.util
import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bend_hf.evaluation.record import ResultRecord, member
from bend_hf.publishing.leaderboard import Contest
from bend_hf.tables import metric_title, number, text_table

# Okabe and Ito's colours, which the colour-blind tell apart (Wong, Nature Methods 8, 441, 2011).
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
_MARKS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
_CONTROL_COLOURS: Final = (*COLOURS[1:6], COLOURS[7])  # the models are drawn in the first; yellow is too pale
_DASHES: Final = ("--", ":", "-.")
_INCH_A_ROW: Final = 0.32
_TITLE_WIDTH: Final = 14  # letters of a line below the heat map


def plot_files(contests: Sequence[Contest], say: Callable[[str], None]) -> dict[str, bytes]:
    """Draws everything there are numbers for.

    Args:
        contests: What to draw.
        say: Told why nothing is drawn, where matplotlib is missing.

    Returns:
        File contents by path below the report.
    """
    contests = [contest for contest in contests if contest.rows]  # controls alone need no picture
    if not contests:
        return {}
    if importlib.util.find_spec("matplotlib") is None:
        say("no plots: matplotlib is not installed; 'pip install bend-hf[plots]' brings it")
        return {}
    import matplotlib as mpl

    files: dict[str, bytes] = {}
    with mpl.rc_context({"svg.hashsalt": "bend_hf", "svg.fonttype": "none", "font.size": 9, "axes.grid": False}):
        for protocol in sorted({contest.protocol for contest in contests}):
            mine = [contest for contest in contests if contest.protocol == protocol]
            files |= saved(f"plots/heatmap_{protocol}", _heatmap(mine, protocol))
            for name, attribute, label in (
                ("parameters", "n_parameters", "parameters"),
                ("cost", "seconds", "seconds a run"),
            ):
                figure = _scatter(mine, attribute, label, protocol)
                if figure is not None:
                    files |= saved(f"plots/score_{name}_{protocol}", figure)
        for contest in contests:
            files |= saved(f"plots/forest_{contest.key}", _forest(contest))
    return files


def saved(stem: str, figure: Any) -> dict[str, bytes]:
    """A figure as ``stem.png`` and ``stem.svg``; the same figure gives the same bytes."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=150, metadata={"Software": None})
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return {f"{stem}.png": png.getvalue(), f"{stem}.svg": svg.getvalue()}


def _plain(text: str) -> str:
    """Text that matplotlib does not read as a formula."""
    return text.replace("$", r"\$")


def _short(count: float) -> str:
    """A number of an axis: 50, 2k, 100M."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{sign}"
    return f"{count:g}"


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _heatmap(contests: Sequence[Contest], protocol: str) -> Any:
    """Models by tasks; a column is coloured by itself, as its metric is its own."""
    import numpy as np

    names = sorted({row.name for contest in contests for row in contest.rows})
    values = np.full((len(names), len(contests)), np.nan)
    for column, contest in enumerate(contests):
        for row in contest.rows:
            if row.entry.value is not None:
                values[names.index(row.name), column] = row.entry.value
    low, high = np.nanmin(values, axis=0, initial=np.inf), np.nanmax(values, axis=0, initial=-np.inf)
    shade = np.where(high > low, np.clip((values - low) / np.where(high > low, high - low, 1.0), 0, 1), 0.5)
    shade[np.isnan(values)] = np.nan
    figure, axes = _figure(2.6 + 1.15 * len(contests), 1.8 + _INCH_A_ROW * len(names))
    axes.imshow(shade, cmap="Blues", aspect="auto", vmin=-0.2, vmax=1.25)
    for (y, x), value in np.ndenumerate(values):
        text = "-" if np.isnan(value) else f"{value:.3f}"
        axes.text(x, y, text, ha="center", va="center", color="white" if shade[y, x] > 0.7 else "black", fontsize=8)
    titles = ["\n".join([*textwrap.wrap(c.title, _TITLE_WIDTH), metric_title(c.metric)]) for c in contests]
    axes.set_xticks(range(len(contests)), [_plain(title) for title in titles], fontsize=8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_yticks(range(len(names)), [_plain(name) for name in names])
    axes.set_title(f"Scores, protocol {protocol}\ndarker is better within a column", fontsize=9)
    return figure


def _forest(contest: Contest) -> Any:
    rows = [row for row in reversed(contest.rows) if row.entry.value is not None]
    figure, axes = _figure(7.6, 1.3 + _INCH_A_ROW * max(len(rows), len(contest.controls)))
    for place, row in enumerate(rows):
        entry = row.entry
        if entry.low is not None and entry.high is not None:
            axes.plot([entry.low, entry.high], [place, place], color=COLOURS[0], linewidth=2)
        axes.plot([entry.value], [place], "o", color=COLOURS[0], markerfacecolor="white" if row.tied else COLOURS[0])
    for index, (name, value) in enumerate(contest.controls.items()):
        colour, dashes = _CONTROL_COLOURS[index % len(_CONTROL_COLOURS)], _DASHES[index % len(_DASHES)]
        label = _plain(f"{name} {value:.3f}")
        axes.axvline(value, color=colour, linestyle=dashes, linewidth=1.2, label=label, zorder=0)
    axes.set_yticks(range(len(rows)), [_plain(row.name) for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    hollow = "; hollow: not told from the best" if any(row.tied for row in rows) else ""
    axes.set_xlabel(f"{metric_title(contest.metric)} (bar: interval{hollow})")
    axes.set_title(_plain(f"{contest.title}, protocol {contest.protocol}, {contest.n_items:,} items"))
    axes.spines[["top", "right"]].set_visible(False)
    if contest.controls:
        axes.legend(title="Controls", fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _scatter(contests: Sequence[Contest], attribute: str, label: str, protocol: str) -> Any | None:
    """A panel a contest: score against what it took. None where no row says."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panels = []
    for contest in contests:
        points = [(getattr(row.entry, attribute), row) for row in contest.rows if row.entry.value is not None]
        known = [(x, row) for x, row in points if x]  # 0 parameters has no place on a logarithmic axis
        if known:
            panels.append((contest, known))
    if not panels:
        return None
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.9 * lines + 0.4), layout="constrained")
    families = sorted({row.entry.family for _, known in panels for _, row in known})
    for place, (contest, known) in enumerate(panels, start=1):
        axes = figure.add_subplot(lines, columns, place)
        xs = [x for x, _ in known]
        for x, row in known:
            index = families.index(row.entry.family)
            mark, colour = _MARKS[index % len(_MARKS)], COLOURS[index % len(COLOURS)]
            value = row.entry.value or 0.0
            if row.entry.low is not None and row.entry.high is not None:
                axes.plot([x, x], [row.entry.low, row.entry.high], color=colour, linewidth=1)
            axes.plot([x], [value], mark, color=colour)
            rightmost = x > (min(xs) * max(xs)) ** 0.5  # its name goes to the left, where there is room
            axes.annotate(
                _plain(row.name),
                (x, value),
                fontsize=7,
                xytext=(-5 if rightmost else 5, 3),
                ha="right" if rightmost else "left",
                textcoords="offset points",
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        spread = max(xs) / min(xs)
        axes.set_xlim(min(xs) / max(spread**0.15, 2), max(xs) * max(spread**0.15, 2))
        axes.margins(y=0.15)
        axes.set_xlabel(label)
        axes.set_ylabel(metric_title(contest.metric))
        axes.set_title(_plain(contest.title), fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Score against {label}, protocol {protocol}")
    return figure


_MODEL_MARKS: Final = ("o", "s", "^", "D", "v", "P", "X")
_SPREAD: Final = 0.6  # of a task's line over its models
_LINE_INCHES: Final = 0.62


@dataclass(frozen=True, kw_only=True)
class Score:
    """One model on one task.

    Attributes:
        task: Key or title.
        metric: Registry key of the main metric.
        model: Its name.
        value: The score; None where it is not defined.
        low: Lower end of its interval; None where there is none.
        high: Upper end.
    """

    task: str
    metric: str
    model: str
    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, record: ResultRecord, model: str) -> Score:
        """From a record."""
        ends = [member(record.metrics, record.main_metric, "interval", end) for end in ("low", "high")]
        low, high = (end if isinstance(end, float) else None for end in ends)
        return cls(task=record.task, metric=record.main_metric, model=model, value=record.value, low=low, high=high)


def side_by_side_text(scores: Sequence[Score]) -> str:
    """A line a task and a column a model, both in the order in which they first appear."""
    models = list(dict.fromkeys(score.model for score in scores))
    tasks = dict.fromkeys((score.task, score.metric) for score in scores)
    found = {(score.task, score.model): _text(score) for score in scores}
    lines = [(task, metric, *(found.get((task, model), "-") for model in models)) for task, metric in tasks]
    return text_table(("task", "metric", *models), lines)


def _text(score: Score) -> str:
    interval = "" if score.low is None or score.high is None else f" [{score.low:.2f}, {score.high:.2f}]"
    return f"{number(score.value)}{interval}"


def side_by_side_plot(scores: Sequence[Score], title: str) -> dict[str, bytes]:
    """The same as PNG and SVG, ``side_by_side.png`` and ``.svg``; empty where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return {}
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "bend_hf", "svg.fonttype": "none", "font.size": 9}):
        return saved("side_by_side", _draw(scores, title))


def _draw(scores: Sequence[Score], title: str) -> Any:
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(score.model for score in scores))
    tasks = list(dict.fromkeys((score.task, score.metric) for score in scores))
    figure = Figure(figsize=(8.0, 1.3 + _LINE_INCHES * len(tasks)), layout="constrained")
    axes = figure.add_subplot()
    step = _SPREAD / max(len(models) - 1, 1)
    for index, model in enumerate(models):
        colour, mark = COLOURS[index % len(COLOURS)], _MODEL_MARKS[index % len(_MODEL_MARKS)]
        mine = [score for score in scores if score.model == model and score.value is not None]
        values = [score.value for score in mine if score.value is not None]
        places = [tasks.index((s.task, s.metric)) + (index * step - _SPREAD / 2) * (len(models) > 1) for s in mine]
        for score, place in zip(mine, places, strict=True):
            if score.low is not None and score.high is not None:
                axes.plot([score.low, score.high], [place, place], color=colour, linewidth=1.8)
        axes.plot(values, places, mark, color=colour, markersize=5, label=model, linestyle="none")
    for border in range(1, len(tasks)):
        axes.axhline(border - 0.5, color="0.9", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(tasks)), [f"{task}\n{metric_title(metric)}" for task, metric in tasks], fontsize=8)
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.set_xlabel("score (bar: 95 % interval)")
    axes.set_title(title, fontsize=9)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
