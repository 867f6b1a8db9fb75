"""The strict check of the Hub's score files, which the Hub's own client does not make.

>>> check_eval_results([], "scores.yaml")
Traceback (most recent call last):
    ...
bend_hf.errors.RecordError: scores.yaml holds list; expected a list of entries
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from bend_hf.data.hub_names import DatasetRef
from bend_hf.errors import RecordError
from bend_hf.publishing.boards import board_ids
from bend_hf.tasks import TASKS

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d))?")
# Keys of an entry: huggingface/hub-docs, docs/hub/eval-results.md, "Adding Evaluation Results".
_ENTRY_KEYS: Final = frozenset({"dataset", "value", "verifyToken", "date", "source", "evaluation_framework", "notes"})
_DATASET_KEYS: Final = frozenset({"id", "task_id", "revision"})
_SOURCE_KEYS: Final = frozenset({"url", "name", "user", "org"})


def check_eval_yaml(body: object, where: str) -> None:
    """Checks the content of an ``eval.yaml``.

    Raises:
        RecordError: A field is missing, unknown or of the wrong form, or an id stands twice.
    """
    wanted = {"name", "description", "evaluation_framework", "tasks"}
    if not isinstance(body, dict) or set(body) != wanted:
        raise RecordError(
            f"{where} holds {sorted(body) if isinstance(body, dict) else body!r}; expected {sorted(wanted)}"
        )
    for key in wanted - {"tasks"}:
        if not isinstance(body[key], str) or not body[key].strip():
            raise RecordError(f"{where}: {key} is {body[key]!r}; expected text")
    tasks = body["tasks"]
    if not isinstance(tasks, list) or not tasks:
        raise RecordError(f"{where}: tasks is {tasks!r}; expected a list with one at least")
    for task in tasks:
        if not isinstance(task, dict) or set(task) != {"id", "config", "split"}:
            raise RecordError(f"{where}: task {task!r}; expected id, config and split")
        if not all(isinstance(task[key], str) and re.fullmatch(r"[\w.-]+", task[key]) for key in task):
            raise RecordError(f"{where}: task {task!r}; expected names of letters, digits, '_', '-' and '.'")
    ids = [task["id"] for task in tasks]
    if len(set(ids)) != len(ids):
        raise RecordError(f"{where}: ids {sorted({i for i in ids if ids.count(i) > 1})} stand twice")


def check_eval_text(text: str, where: str) -> None:
    """Checks the text of an ``.eval_results`` file.

    Raises:
        RecordError: It is no YAML, or the first thing that is wrong with its content.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        body = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecordError(f"{where} is no YAML ({error})") from error
    check_eval_results(body, where)


def check_eval_results(body: object, where: str, *, now: datetime | None = None) -> None:
    """Checks the content of an ``.eval_results`` file: ids, values, dates, revisions, sources.

    Args:
        body: What the YAML holds.
        where: What to call it in messages.
        now: The present, for dates; the clock's where None.

    Raises:
        RecordError: The first thing that is wrong.
    """
    if not isinstance(body, list) or not body:
        raise RecordError(f"{where} holds {type(body).__name__}; expected a list of entries")
    seen = set()
    for number_, item in enumerate(body, start=1):
        at = f"{where}, entry {number_}"
        _check_keys(item, _ENTRY_KEYS, {"dataset", "value"}, at)
        dataset = item["dataset"]
        _check_keys(dataset, _DATASET_KEYS, _DATASET_KEYS, f"{at}: dataset")
        reference = DatasetRef(repo=str(dataset["id"]), revision=str(dataset["revision"]))
        known = {board for group in {task.group for task in TASKS} for board in board_ids(group)}
        if dataset["task_id"] not in known:
            raise RecordError(f"{at}: task_id {dataset['task_id']!r} is no board of BEND, such as {min(known)!r}")
        _check_value(item["value"], at)
        _check_date(item.get("date"), now or datetime.now(UTC), at)
        _check_source(item.get("source"), at)
        if (key := (reference.repo, dataset["task_id"])) in seen:
            raise RecordError(f"{at}: {key[1]} of {key[0]} stands there twice; keep one value")
        seen.add(key)


def _check_keys(item: object, known: frozenset[str], required: frozenset[str] | set[str], at: str) -> None:
    if not isinstance(item, dict):
        raise RecordError(f"{at} is {item!r}; expected an object")
    unknown, missing = sorted(set(item) - known), sorted(required - set(item))
    if unknown or missing:
        raise RecordError(f"{at} has unknown {unknown} and lacks {missing}; known are {sorted(known)}")


def _check_value(value: object, at: str) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not -1 <= value <= 1
    ):
        raise RecordError(f"{at}: value {value!r}; expected a finite number from -1 to 1")


def _check_date(date: object, now: datetime, at: str) -> None:
    if not isinstance(date, str) or not _DAY.fullmatch(date):
        raise RecordError(f"{at}: date {date!r}; expected ISO 8601 text, such as '2026-01-31T12:00:00Z'")
    try:
        moment = datetime.fromisoformat(date.replace("Z", "+00:00"))
    except ValueError as error:
        raise RecordError(f"{at}: date {date!r} is no day of the calendar ({error})") from error
    if (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) > now + timedelta(days=1):
        raise RecordError(f"{at}: date {date!r} lies in the future; check the clock")


def _check_source(source: object, at: str) -> None:
    if source is None:
        return
    _check_keys(source, _SOURCE_KEYS, {"url"}, f"{at}: source")
    assert isinstance(source, dict)
    if not re.fullmatch(r"https?://\S+", str(source["url"])):
        raise RecordError(f"{at}: source url {source['url']!r}; expected http(s)://...")
