"""Few models and controls on many tasks, side by side: as text for the terminal, and as a picture.

>>> print(side_by_side_text([Score(task="a", metric="mcc", model="k-mer", value=0.5, low=None, high=None)]))
task  metric  k-mer
--------------------
a     mcc     0.5000
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bend_hf.evaluation.results import ResultRecord, member
from bend_hf.markdown import metric_title
from bend_hf.publishing.report.plots import COLOURS, saved
from bend_hf.runs.score_table import aligned, shown

_MARKS: Final = ("o", "s", "^", "D", "v", "P", "X")
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
    return aligned(("task", "metric", *models), lines)


def _text(score: Score) -> str:
    interval = "" if score.low is None or score.high is None else f" [{score.low:.2f}, {score.high:.2f}]"
    return f"{shown(score.value)}{interval}"


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
    for number, model in enumerate(models):
        colour, mark = COLOURS[number % len(COLOURS)], _MARKS[number % len(_MARKS)]
        mine = [score for score in scores if score.model == model and score.value is not None]
        values = [score.value for score in mine if score.value is not None]
        places = [tasks.index((s.task, s.metric)) + (number * step - _SPREAD / 2) * (len(models) > 1) for s in mine]
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
