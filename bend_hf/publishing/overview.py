"""Models and controls side by side on several tasks: a table and a picture that say the same.

The table has one line per task. Models come first, controls after them. The best score of a line is marked, and so is
every score that a paired test cannot tell from it.

>>> one = TaskScore(task="a", metric="mcc", model="mine", value=0.5, low=0.4, high=0.6, chance=0.0, mark="best")
>>> print(Overview(scores=(one,)).text().splitlines()[2])
a     MCC     0.000   0.500 [0.400, 0.600] *
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from textwrap import wrap
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from bend_hf.errors import ConfigError
from bend_hf.evaluation.chance import chance_of
from bend_hf.evaluation.record import ResultRecord, member
from bend_hf.files import parse_json
from bend_hf.tables import escaped, markdown_table, metric_title, text_table
from bend_hf.types import Json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bend_hf.evaluation.predictions import Predictions

Mark: TypeAlias = Literal["best", "tied", ""]
MIN_ITEMS: Final = 30  # an interval over fewer items is not shown
LEVEL: Final = 0.05  # of the paired tests
SIGNS: Final[Mapping[Mark, str]] = {"best": "*", "tied": "=", "": ""}
LEGEND: Final = (
    "Each cell is a score with its 95 % interval in brackets (left out below "
    f"{MIN_ITEMS} items); {{best}} is the best score of the line; = cannot be told from it by a paired test; "
    "chance is the score of guessing; controls are what a model should beat."
)
_ROW_INCHES: Final = 0.62
_SPREAD: Final = 0.6  # fraction of a task's row over which its models are spread
# Okabe and Ito's colors (Wong, Nature Methods 8, 441, 2011); controls are gray.
_COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GRAYS: Final = ("0.45", "0.65", "0.3", "0.75")
_MARKERS: Final = "os^DvPX"


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """The score of one model on one task.

    Attributes:
        task: Key or title of the task.
        metric: Registry key of the main metric.
        model: Name of the model or control.
        value: The score; None if it is undefined.
        low: Lower end of the interval; None without an interval.
        high: Upper end of the interval; None without an interval.
        is_control: Whether it is a control.
        chance: The score of guessing; None if it is not known.
        mark: Whether it is the best score of the task, or cannot be told from the best.
    """

    task: str
    metric: str
    model: str
    value: float | None
    low: float | None
    high: float | None
    is_control: bool = False
    chance: float | None = None
    mark: Mark = ""

    @classmethod
    def of(cls, record: ResultRecord, model: str, *, is_control: bool = False) -> TaskScore:
        """Return the main score of a record, under a name of the model."""
        ends = [member(record.metrics, record.main_metric, "interval", end) for end in ("low", "high")]
        scored = record.coverage.get("scored")
        few = isinstance(scored, int) and scored < MIN_ITEMS
        low, high = (end if isinstance(end, float) and not few else None for end in ends)
        return cls(
            task=record.task,
            metric=record.main_metric,
            model=model,
            value=record.value,
            low=low,
            high=high,
            is_control=is_control,
            chance=_number(member(record.metrics, record.main_metric, "chance", "value")),
        )

    @property
    def cell(self) -> str:
        """Score, interval and mark, with three decimals."""
        if self.value is None:
            return "undefined"
        interval = "" if self.low is None or self.high is None else f" [{_three(self.low)}, {_three(self.high)}]"
        return f"{_three(self.value)}{interval} {SIGNS[self.mark]}".rstrip()


def _name(text: str) -> str:
    """Escape a name for Markdown; names of tasks and models need it rarely.

    >>> _name("gene_finding"), _name("a|b")
    ('gene_finding', 'a&#124;b')
    """
    return text if re.fullmatch(r"[\w (),:+-]+", text) else escaped(text)


def _three(value: float | None) -> str:
    """Format with three decimals, and never as -0.000.

    >>> _three(-0.0001), _three(0.25)
    ('0.000', '0.250')
    """
    return "-" if value is None else f"{round(value, 3) + 0.0:.3f}"


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Scores of models and controls on several tasks.

    Attributes:
        scores: In the order of the table.
        sentences: What the table shows, in words.
    """

    scores: tuple[TaskScore, ...]
    sentences: tuple[str, ...] = field(default=())

    @classmethod
    def of(
        cls,
        results: Sequence[tuple[ResultRecord, str, bool]],
        predictions: Mapping[tuple[str, str], Predictions],
    ) -> Overview:
        """Mark the best scores, and say where a model does not beat its controls.

        Args:
            results: Record, name, and whether it is a control.
            predictions: Predictions by task and name.
        """
        scores = [TaskScore.of(record, name, is_control=is_control) for record, name, is_control in results]
        scores = [_with_chance(one, predictions[one.task, one.model]) for one in scores]
        by_task = {task: [one for one in scores if one.task == task] for task in dict.fromkeys(s.task for s in scores)}
        marked = [one for of_task in by_task.values() for one in _marked(of_task, predictions)]
        return cls(scores=tuple(marked), sentences=_sentences(by_task, predictions))

    @property
    def models(self) -> list[tuple[str, bool]]:
        """Name of each column, and whether it is a control; models first."""
        names = dict.fromkeys((one.model, one.is_control) for one in self.scores)
        return sorted(names, key=lambda column: column[1])

    @property
    def tasks(self) -> list[tuple[str, str]]:
        """Task and metric of each line."""
        return list(dict.fromkeys((one.task, one.metric) for one in self.scores))

    def _table(self) -> tuple[list[str], list[list[str]]]:
        header = ["task", "metric", "chance"]
        header += [f"control: {name}" if is_control else name for name, is_control in self.models]
        cells = {(one.task, one.model): one.cell for one in self.scores}
        chance = {one.task: one.chance for one in self.scores}
        rows = [
            [task, metric_title(metric), _three(chance[task])]
            + [cells.get((task, name), "-") for name, _ in self.models]
            for task, metric in self.tasks
        ]
        return header, rows

    def text(self) -> str:
        """Write the table for a terminal, with its legend."""
        return "\n".join([text_table(*self._table()), "", LEGEND.format(best="*"), *self.sentences])

    def markdown(self, legend: str = LEGEND) -> str:
        """Write the table in Markdown, the best score of a line in bold.

        Args:
            legend: The line below the table; ``{best}`` stands for how the best score is marked.
        """
        header, rows = self._table()
        best = {(one.task, one.cell) for one in self.scores if one.mark == "best"}
        shown = [
            [f"**{cell.removesuffix(SIGNS['best']).strip()}**" if (row[0], cell) in best else cell for cell in row]
            for row in [[_name(row[0]), *row[1:]] for row in rows]
        ]
        words = " ".join([legend.format(best="bold"), *self.sentences])
        return "\n".join(
            [
                markdown_table([*header[:3], *map(_name, header[3:])], shown),
                "",
                *wrap(words, 120, break_on_hyphens=False),
            ]
        )

    def json(self) -> str:
        """Write the scores as JSON, see ``from_json``."""
        body: dict[str, Json] = {"scores": [asdict(one) for one in self.scores], "sentences": list(self.sentences)}
        return json.dumps(body, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Overview:
        """Read what ``json`` wrote."""
        body = parse_json(text)
        return cls(scores=tuple(TaskScore(**one) for one in body["scores"]), sentences=tuple(body["sentences"]))

    def figure(self, title: str) -> Figure:
        """Draw the table.

        Raises:
            ConfigError: Matplotlib is not installed.
        """
        if importlib.util.find_spec("matplotlib") is None:
            raise ConfigError("plots need matplotlib; run 'pip install matplotlib'")
        from bend_hf.publishing.figures import drawing

        with drawing():
            return _drawn(self, title)

    def plot_files(self, stem: str, title: str) -> dict[str, bytes]:
        """Draw the table as ``stem.png`` and ``stem.svg``; empty if matplotlib is not installed."""
        if importlib.util.find_spec("matplotlib") is None:
            return {}
        from bend_hf.publishing.figures import drawing, saved

        with drawing():
            return saved(stem, _drawn(self, title))


def _with_chance(score: TaskScore, predictions: Predictions) -> TaskScore:
    """Fill in chance, which older records do not state."""
    chance = chance_of(predictions, score.metric) if score.chance is None else None
    return score if chance is None else replace(score, chance=chance.value)


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _better(one: TaskScore, other: TaskScore, predictions: Mapping[tuple[str, str], Predictions]) -> float:
    """Return by how much a score is above another; 0 if a paired test cannot tell them apart."""
    from bend_hf.evaluation.uncertainty.comparison import compare

    if one.value is None or other.value is None:
        return 0.0
    pair = {score.model: predictions[score.task, score.model] for score in (one, other)}
    (found,) = compare(pair, one.metric)
    return one.value - other.value if found.p < LEVEL else 0.0


def _marked(scores: list[TaskScore], predictions: Mapping[tuple[str, str], Predictions]) -> list[TaskScore]:
    """Mark the best score of a task and those that cannot be told from it."""
    known = [one for one in scores if one.value is not None]
    if len(known) < 2:
        return scores
    best = max(known, key=lambda one: one.value if one.value is not None else -math.inf)

    def mark(one: TaskScore) -> Mark:
        if one is best:
            return "best"
        return "tied" if one in known and not _better(best, one, predictions) else ""

    return [replace(one, mark=mark(one)) for one in scores]


def _sentences(
    by_task: Mapping[str, list[TaskScore]], predictions: Mapping[tuple[str, str], Predictions]
) -> tuple[str, ...]:
    """Say for each model and control on which tasks the model is not better."""
    pairs: dict[tuple[str, str], list[tuple[str, bool]]] = {}
    for task, scores in by_task.items():
        for one in (score for score in scores if not score.is_control):
            for control in (score for score in scores if score.is_control):
                is_better = _better(one, control, predictions) > 0
                pairs.setdefault((one.model, control.model), []).append((task, is_better))
    return tuple(_sentence(model, control, found) for (model, control), found in pairs.items())


def _sentence(model: str, control: str, found: list[tuple[str, bool]]) -> str:
    lost = [task for task, is_better in found if not is_better]
    if len(found) == 1:
        return f"{model} {'does not beat' if lost else 'beats'} {control} in {found[0][0]}."
    if not lost:
        return f"{model} beats {control} in all {len(found)} tasks."
    if len(lost) == len(found):
        return f"{model} does not beat {control} in any of {len(found)} tasks."
    words = lost[0] if len(lost) == 1 else f"{', '.join(lost[:-1])} and {lost[-1]}"
    return f"{model} beats {control} in {len(found) - len(lost)} of {len(found)} tasks, not in {words}."


def _drawn(overview: Overview, title: str) -> Figure:
    from matplotlib.figure import Figure

    columns, tasks = overview.models, overview.tasks
    figure = Figure(figsize=(8.6, 1.6 + _ROW_INCHES * len(tasks)), layout="constrained")
    axes = figure.add_subplot()
    step = _SPREAD / max(len(columns) - 1, 1)
    for index, (model, is_control) in enumerate(columns):
        n_models = sum(not control for _, control in columns)
        color = _GRAYS[(index - n_models) % len(_GRAYS)] if is_control else _COLORS[index % len(_COLORS)]
        offset = (index * step - _SPREAD / 2) * (len(columns) > 1)
        values, ys = [], []
        for score in overview.scores:
            if score.model != model or score.value is None:
                continue
            y = tasks.index((score.task, score.metric)) + offset
            if score.low is not None and score.high is not None:
                axes.plot([score.low, score.high], [y, y], color=color, linewidth=1.8)
            right = score.value if score.high is None else max(score.high, score.value)
            axes.annotate(SIGNS[score.mark], (right, y), xytext=(5, 0), textcoords="offset points", va="center")
            values.append(score.value)
            ys.append(y)
        label = f"control: {model}" if is_control else model
        fill = "white" if is_control else color
        axes.plot(
            values, ys, _MARKERS[index % 7], color=color, markerfacecolor=fill, markersize=5, label=label, ls="none"
        )
    for row, (task, _) in enumerate(tasks):
        chance = next((one.chance for one in overview.scores if one.task == task), None)
        if chance is not None:
            ends = [row - 0.45, row + 0.45]
            shown = "chance" if row == 0 else None
            axes.plot([chance, chance], ends, color="0.2", linewidth=1, linestyle=":", label=shown, zorder=1)
    for border in range(1, len(tasks)):
        axes.axhline(border - 0.5, color="0.9", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(tasks)), [f"{task}\n{metric_title(metric)}" for task, metric in tasks], fontsize=8)
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.set_xlabel(
        f"score (bar: 95 % interval, left out below {MIN_ITEMS} items)\n"
        "* best of the task, = cannot be told from it by a paired test",
        fontsize=8,
    )
    axes.set_title(title, fontsize=9)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
