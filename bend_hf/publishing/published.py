"""Scores that others report on BEND's tasks, each with its source: ``model_cards/published.toml``.

They are shown next to a user's own scores and never ranked with them: there are no predictions to compare item by item,
and data, heads and classes may differ.

>>> [one.text for one in published_scores() if one.model == "DNABERT"]
['0.5966']
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from bend_hf.errors import RecordError
from bend_hf.evaluation.metrics import metric_range
from bend_hf.files import asset_folder, read_text
from bend_hf.tasks import TASKS

FILE: Final = "published.toml"
_OTHER_DATA: Final = {"sample": "the bundled sample", "files": "a user's own files"}
HEADING: Final = "Published by others"
EXPLAINED: Final = (
    "Not computed by bend_hf and not ranked: no predictions are at hand for a paired test, and data, heads and classes "
    "may differ."
)


@dataclass(frozen=True, kw_only=True)
class PublishedScore:
    """One score that others report.

    Attributes:
        task: Key of the task.
        metric: Registry key of the metric.
        model: The model, as the source calls it.
        text: The score with the digits of the source.
        source: Title of the source.
        url: Address of the source.
        note: What differs from a run of bend_hf; empty if nothing is known to.
    """

    task: str
    metric: str
    model: str
    text: str
    source: str
    url: str
    note: str

    @property
    def value(self) -> float:
        """The score."""
        return float(self.text)

    def as_json(self) -> dict[str, object]:
        """Return the score for programs."""
        return {
            **{name: getattr(self, name) for name in ("task", "metric", "model", "value", "source", "url", "note")},
            "published_by_others": True,
        }


@cache
def published_scores() -> tuple[PublishedScore, ...]:
    """Return all scores of the file, the best of each task first."""
    path = asset_folder("model_cards") / FILE
    return read_published(read_text(path), str(path))


def read_published(text: str, name: str) -> tuple[PublishedScore, ...]:
    """Read the content of a file of published scores, and check every cell.

    Args:
        text: TOML with ``[sources.KEY]`` (``title``, ``url``) and ``[[scores]]`` (``task``, ``metric``, ``source``,
            ``note``, and ``values``: text by model).
        name: Name of the file in messages.

    Raises:
        RecordError: A score has no source, its value is no number in range, or its task or metric is unknown.
    """
    body = tomllib.loads(text)
    found = [score for entry in body.get("scores", ()) for score in _scores(entry, body.get("sources", {}), name)]
    return tuple(sorted(found, key=lambda one: (one.task, one.metric, -one.value, one.model)))


def _scores(entry: Mapping[str, Any], sources: Mapping[str, Any], name: str) -> Iterator[PublishedScore]:
    task, metric = entry.get("task"), str(entry.get("metric"))
    source = sources.get(entry.get("source", ""), {})
    if task not in TASKS or metric not in TASKS.get(str(task)).metrics:
        raise RecordError(f"{name}: the scores of task {task!r} by {metric!r}; expected a task of BEND and its metric")
    for model, text in entry.get("values", {}).items():
        if not source.get("title") or not str(source.get("url")).startswith("https://"):
            raise RecordError(
                f"{name}: {model} on {task} has no source (source is {entry.get('source')!r}); expected the key of a "
                "[sources.KEY] with title and url. Add it, or take the score out."
            )
        low, high = metric_range(metric) or (0.0, 1.0)
        try:
            inside = isinstance(text, str) and low <= float(text) <= high
        except ValueError:
            inside = False
        if not inside:
            raise RecordError(
                f"{name}: {model} on {task} is {text!r}; expected text such as '0.50', {low:g} to {high:g}"
            )
        yield PublishedScore(
            task=str(task),
            metric=metric,
            model=str(model),
            text=text,
            source=str(source["title"]),
            url=str(source["url"]),
            note=str(entry.get("note", "")),
        )


def published_next_to(task: str, metric: str, origin: str) -> tuple[tuple[PublishedScore, ...], str]:
    """Select the scores to show next to a user's own.

    Args:
        task: Key of the task.
        metric: Registry key of the metric.
        origin: Where the data of the user's score are from, as its record says.

    Returns:
        The scores, the best first; and why there are none, empty if there are some.
    """
    if origin in _OTHER_DATA:
        return (), f"published scores are on BEND's data, and these are on {_OTHER_DATA[origin]}"
    found = tuple(one for one in published_scores() if (one.task, one.metric) == (task, metric))
    return found, "" if found else f"no published score by {metric} with a source is known"
