"""Check a result record against its evidence: the ranges of its metrics, its interval and its predictions.

Everything that shows or sends scores reads records with ``read_verified``, so that a record that was edited, cut or
mixed up with another run is refused instead of ranked.

>>> [problem for problem in wrong_ranges({"auroc": {"value": 7.5}}, "metrics")]
['metrics.auroc.value is 7.5; expected a number from 0 to 1']
"""

from __future__ import annotations

import logging
import marshal
import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf import __version__
from bend_hf.errors import BendError, RecordError
from bend_hf.evaluation.chance import chance_of
from bend_hf.evaluation.identity import CONTENT
from bend_hf.evaluation.metrics import Rows, metric_names, metric_range, score
from bend_hf.evaluation.predictions import Predictions, has_label, read_predictions
from bend_hf.evaluation.record import ResultRecord, edited, member, read_record
from bend_hf.evaluation.remembered import content_sha256, recalled, remember
from bend_hf.evaluation.uncertainty.bootstrap import (
    METRICS,
    Bootstrap,
    draws_of,
    has_interval,
    mean_of_defined,
    values_of_folds,
)
from bend_hf.evaluation.uncertainty.intervals import LEVEL, RULES, interval_of
from bend_hf.types import Json

log = logging.getLogger(__name__)

_AGREES: Final = "a record agrees with its predictions"
_SHOWN: Final = 60  # characters of a value in a message
_SEED_IN_NAME: Final = re.compile(r"__seed(\d+)__")
_OF_INTERVALS: Final = {"interval", "low", "high", "mark"}
_OF_ALL_RULES: Final = ("level", "method", "clusters", "n_clusters", "block_bp", "mark", "n_undefined")
_CLOSE: Final = 1e-6  # two ways to sum the same numbers; a value is shown with four digits


def read_verified(path: Path) -> ResultRecord:
    """Read a record, and check it against its predictions if their files lie next to it.

    A record and predictions that were found to agree are not compared again while neither their content nor the code
    changes; only their hashes are.

    Records of releases that counted the rows as ``coverage.scored`` are returned with the number of answers.

    Raises:
        RecordError: The file is not a record, or the record does not agree with its metrics, its interval or its
            predictions; the message says where.
    """
    record = read_record(path)
    try:
        file = predictions_next_to(record, path)
        problem = next(_wrong_without_predictions(record, complete=file is None), None)
        problem = problem or next(_wrong_hashes(record, path), None)
        if problem is None and file is not None:
            record, problem = _compared(record, path, file)
        problem = problem or next(_wrong_within(record, path), None)
    except (BendError, OSError) as error:
        raise RecordError(f"{path} cannot be checked against its predictions: {error}") from error
    if problem is not None:
        raise RecordError(f"{path}: {problem}. Records and predictions must not be edited; repeat the run.")
    return record


def read_all_verified(paths: Sequence[Path], *, complete: bool = False) -> list[ResultRecord]:
    """Read records as ``read_verified`` does, and say which of them lack the predictions that they name.

    Args:
        paths: Files of the records.
        complete: Refuse records whose predictions are missing. Otherwise a warning says that their scores are checked
            against their intervals only.

    Raises:
        RecordError: A record is refused.
    """
    known: dict[bytes, Any] = {}
    records = [_sharing(read_verified(path), known) for path in paths]
    missing = [
        path.with_name(str(member(entry, "file")))
        for path, record in zip(paths, records, strict=True)
        for entry in prediction_entries(record)
        if not path.with_name(str(member(entry, "file"))).is_file()
    ]
    if missing and complete:
        raise RecordError(
            f"{missing[0]} is missing, which its record names as its predictions ({len(missing)} such files); put the "
            "file back next to the record, or repeat the run"
        )
    if missing:
        log.warning(
            "%s is missing (%d such files), so the scores of these records are checked against their intervals only; "
            "put the predictions next to the records",
            *(missing[0], len(missing)),
        )
    return records


def _sharing(record: ResultRecord, known: dict[bytes, Any]) -> ResultRecord:
    """Let equal parts of records be one object: those of ten thousand records then fit into memory."""
    parts: dict[str, Any] = {one.name: getattr(record, one.name) for one in fields(record)}
    for name, value in parts.items():
        if isinstance(value, dict):
            inner = {sys.intern(key): known.setdefault(marshal.dumps(part), part) for key, part in value.items()}
            parts[name] = known.setdefault(marshal.dumps(inner), inner)
    return replace(record, **parts)


def check_without_predictions(record: ResultRecord, name: str) -> None:
    """Check a record whose predictions are not at hand: the ranges of its metrics, and their intervals.

    Args:
        record: The record.
        name: Name of the record in messages.

    Raises:
        RecordError: A value is outside its range or its interval.
    """
    problem = next(_wrong_without_predictions(record, complete=True), None)
    if problem is not None:
        raise RecordError(f"{name}: {problem}")


def problems_of(record: ResultRecord, predictions: Predictions, path: Path) -> Iterator[str]:
    """Describe everything in a record that does not agree with itself or with its predictions.

    Args:
        record: The record, with its answers counted.
        predictions: The predictions next to it.
        path: Its file.
    """
    yield from _wrong_without_predictions(record, complete=False)
    wrong = list(_wrong_hashes(record, path))
    yield from wrong
    if not wrong:
        yield from _wrong_by_predictions(record, predictions, path.with_name(str(record.predictions.get("file"))))
    yield from _wrong_within(record, path)


def _wrong_within(record: ResultRecord, path: Path) -> Iterator[str]:
    """Describe what one place of a record says and another one does not."""
    for place, stated in {"config": record.config.get("protocol"), "model": record.model.get("protocol")}.items():
        if stated is not None and stated != record.protocol:
            yield f"protocol is {record.protocol!r}, but {place}.protocol is {stated!r}"
    seed, name = record.config.get("seed"), str(record.predictions.get("file") or path.name)
    named = _SEED_IN_NAME.search(name)
    if named is not None and isinstance(seed, int) and int(named[1]) != seed:
        yield f"config.seed is {seed}, but {name} is named after seed {named[1]}"
    if record.metrics and record.main_metric not in record.metrics:
        yield f"main_metric is {record.main_metric!r}, but the metrics are {', '.join(record.metrics)}"
    items, in_file = record.coverage.get("items"), record.predictions.get("items")
    if in_file is not None and in_file != items:
        yield f"predictions.items is {in_file}, but coverage.items is {items}"
    if edited(path):
        yield "it was edited after it was written: its sha256 is not that of its content"


def _wrong_without_predictions(record: ResultRecord, *, complete: bool) -> Iterator[str]:
    """Describe what does not agree within a record; ``complete`` if there are no predictions to decide the rest."""
    yield from wrong_ranges(record.metrics, "metrics")
    for index, fold in enumerate(record.folds):
        yield from wrong_ranges(member(fold, "metrics"), f"folds[{index}].metrics")
    for name, control in record.controls.items():
        yield from wrong_ranges(member(control, "metrics"), f"controls.{name}.metrics")
    if complete:
        yield from (_outside_text(record, name) for name in _outside(record))


def _wrong_hashes(record: ResultRecord, path: Path) -> Iterator[str]:
    """Compare the hashes of the prediction files that are there with those in the record."""
    for entry in prediction_entries(record):
        name, stated = member(entry, "file"), member(entry, "sha256")
        file = path.parent / str(name)
        if not (isinstance(name, str) and name and file.is_file()):
            continue
        found = content_sha256(file)
        if stated != found:
            yield f"{file.name} has the sha256 {found[:12]}, but the record states {str(stated)[:12]}"


def prediction_entries(record: ResultRecord) -> list[Json]:
    """The entries of a record's prediction files: those of its score, and of further heads. Empty without predictions.

    Records of earlier releases do not name the files of further heads.
    """
    further = record.predictions.get("further")
    entries: list[Json] = [{"file": record.predictions.get("file"), "sha256": record.predictions.get("sha256")}]
    entries += list(further.values()) if isinstance(further, dict) else []
    return [entry for entry in entries if member(entry, "file") is not None]


def _compared(record: ResultRecord, path: Path, file: Path) -> tuple[ResultRecord, str | None]:
    """Compare a record with its predictions, unless both were found to agree before.

    Returns:
        The record with the answers counted, and what is wrong with it.
    """
    key: list[Json] = [content_sha256(path), record.predictions.get("sha256")]
    if recalled(_AGREES, key) is True:
        return record, None
    predictions = read_predictions(file)
    counted = with_answers_counted(record, predictions, path)
    problem = next(_wrong_by_predictions(counted, predictions, file), None)
    if problem is None and counted is record:
        remember(_AGREES, key, True)
    return counted, problem


def with_answers_counted(record: ResultRecord, predictions: Predictions, path: Path) -> ResultRecord:
    """Return a record with the number of answers as ``coverage.scored``; earlier releases counted the rows.

    Args:
        record: The record.
        predictions: Its predictions.
        path: Its file.
    """
    answered, items = predictions.n_answered, record.coverage.get("items")
    if record.coverage.get("scored") != items or answered == len(predictions):
        return record
    if record.coverage.get("identity") == CONTENT:
        return record
    log.warning("%s: %d of %s items have a score; the record counts all of them", path, answered, items)
    return replace(record, coverage={**record.coverage, "scored": answered})


def _wrong_by_predictions(record: ResultRecord, predictions: Predictions, file: Path) -> Iterator[str]:
    """Describe what the predictions do not give."""
    yield from _wrong_items(record, predictions, file)
    yield from _wrong_values(record, predictions, file)
    yield from _wrong_chances(record, predictions, file)
    yield from _wrong_intervals(record, predictions, file)


def predictions_next_to(record: ResultRecord, path: Path) -> Path | None:
    """Return the prediction file next to a record; None if it is not there."""
    name = record.predictions.get("file")
    file = path.parent / Path(name).name if isinstance(name, str) and name else None
    return file if file is not None and file.is_file() else None


def wrong_ranges(metrics: Json, where: str) -> Iterator[str]:
    """Describe the values and intervals that their metric cannot have."""
    for name, metric in metrics.items() if isinstance(metrics, dict) else ():
        low, high = _number(metric, "interval", "low"), _number(metric, "interval", "high")
        numbers = {"value": _number(metric, "value"), "interval.low": low, "interval.high": high}
        limits = metric_range(name) or (-np.inf, np.inf)
        for place, value in numbers.items():
            if value is not None and not limits[0] - _CLOSE <= value <= limits[1] + _CLOSE:
                yield f"{where}.{name}.{place} is {value:g}; expected a number from {limits[0]:g} to {limits[1]:g}"
        if low is not None and high is not None and low > high:
            yield f"{where}.{name}.interval goes from {low:g} to {high:g}; expected the lower end first"


def states_items_of(record: ResultRecord, predictions: Predictions) -> bool:
    """Whether a record states the hash of the items of predictions; earlier records state that of row numbers."""
    by_content = record.coverage.get("identity") == CONTENT
    found = predictions.item_sha256 if by_content else predictions.row_sha256
    return record.coverage.get("item_sha256") == found


def _wrong_items(record: ResultRecord, predictions: Predictions, file: Path) -> Iterator[str]:
    stated, found = record.coverage.get("items"), len(predictions)
    if stated != found:
        yield f"coverage.items is {stated}, but {file.name} holds {found} items"
    elif not states_items_of(record, predictions):
        yield f"{file.name} holds other items than coverage.item_sha256 states"
    elif record.coverage.get("windows", predictions.windows[-1]) != predictions.windows[-1]:
        yield f"coverage.windows is {record.coverage.get('windows')}, but {file.name} holds {predictions.windows[-1]}"
    elif record.coverage.get("scored") != predictions.n_answered:
        yield f"coverage.scored is {record.coverage.get('scored')}, but {file.name} has {predictions.n_answered} scores"


def _wrong_values(record: ResultRecord, predictions: Predictions, file: Path) -> Iterator[str]:
    """Compare every value in the record that the predictions give: of metrics, labels and folds."""
    for metric, values in _computed(record, predictions).items():
        of_fold = mean_of_defined(values)
        computed: dict[tuple[str, ...], float] = {("metrics", metric, "value"): float(mean_of_defined(of_fold))}
        labels = member(record.metrics, metric, "detail", "per_label")
        if len(values) == 1 and isinstance(labels, list) and len(labels) == values.shape[1]:
            for label, value in zip(labels, values[0], strict=True):
                if _differs(label, value):
                    yield f"metrics.{metric}.detail.per_label holds {label}, but {file.name} gives {value:.6g}"
        folds = sorted(record.folds, key=lambda fold: _number(fold, "fold") or 0)
        if len(folds) == len(of_fold):
            for fold, value in zip(folds, of_fold, strict=True):
                stated = member(fold, "metrics", metric, "value")
                if _differs(stated, value):
                    name = member(fold, "fold")
                    yield f"metrics.{metric}.value of fold {name} is {stated}, but {file.name} gives {value:.6g}"
        for place, value in computed.items():
            stated = member(record.metrics, *place[1:])
            if _differs(stated, value):
                yield f"{'.'.join(place)} is {stated}, but {file.name} gives {value:.6g}"


def _differs(stated: Json, computed: float) -> bool:
    """Whether a number in a record is not the one that was computed; null says nothing."""
    value = _number(stated)
    return value is not None and not abs(value - computed) <= _CLOSE


def _computed(record: ResultRecord, predictions: Predictions) -> dict[str, NDArray[np.float64]]:
    """Compute the metrics of a record from predictions, shape (folds, labels).

    The metrics of users are left out, because their code is not run when a record is read. Items without an answer do
    not count, as when the record was written.
    """
    predictions = predictions.answered
    fast = [name for name in record.metrics if has_interval(name, predictions)]
    computed = values_of_folds(predictions, fast) if fast else {}
    further = [name for name in record.metrics if name not in METRICS and name in metric_names(plugins=False)]
    if further and not record.folds:  # loading their modules takes a second
        names = predictions.label_names if predictions.score is None or predictions.target.ndim == 2 else None
        for name in further:
            rows = Rows(lengths=np.diff(predictions.windows))
            value = score(name, predictions.values, predictions.target, names=names, rows=rows).value
            computed[name] = np.array([[value]])
    return computed


def _outside(record: ResultRecord) -> Iterator[str]:
    """The metrics whose value lies outside their interval."""
    for name, metric in record.metrics.items():
        value, low, high = (_number(metric, *path) for path in (("value",), ("interval", "low"), ("interval", "high")))
        if value is None or low is None or high is None:
            continue
        if not low - _CLOSE <= value <= high + _CLOSE:
            yield name


def _wrong_chances(record: ResultRecord, predictions: Predictions, file: Path) -> Iterator[str]:
    """Compare chance, and whether the score lies below it; older records state neither."""
    for name in record.metrics:
        stated = member(record.metrics, name, "chance", "value")
        if stated is not None:
            chance = chance_of(predictions, name)
            computed = math.nan if chance is None else chance.value
            if _differs(stated, computed):
                yield f"metrics.{name}.chance.value is {stated}, but {file.name} gives {computed:.6g}"
    main = record.main_metric
    below, high = member(record.metrics, main, "below_chance"), _number(record.metrics, main, "interval", "high")
    chance_value = _number(record.metrics, main, "chance", "value")
    if isinstance(below, bool) and chance_value is not None and below != (high is not None and high < chance_value):
        yield f"metrics.{main}.below_chance is {below}, but the interval ends at {high} and chance is {chance_value}"


def _wrong_intervals(record: ResultRecord, predictions: Predictions, file: Path) -> Iterator[str]:
    """Compute the intervals again, as this release computes them or as they say how they were drawn."""
    written_now = member(record.created_with, "bend_hf") in (None, __version__)
    for name in [name for name in record.metrics if member(record.metrics, name, "interval") is not None]:
        interval = member(record.metrics, name, "interval")
        if written_now and not is_earlier(interval) and name in METRICS:
            differ = [list(unequal(interval, again, f"metrics.{name}.interval")) for again in _again(predictions, name)]
            if all(differ):
                yield from (f"{one}; that is what {file.name} gives" for one in differ[0])
        elif written_now and _is_of_first_rules(interval) and name in METRICS:
            differ = [list(_outgrown(interval, again, name)) for again in _again(predictions, name)]
            if all(differ):
                yield from (f"{one}; that is what {file.name} gives" for one in differ[0])
        elif name in _outside(record):  # so it may be with few items
            ends = _interval_again(predictions, name, interval)
            if _differs(member(interval, "low"), ends[0]) or _differs(member(interval, "high"), ends[1]):
                yield f"{_outside_text(record, name)}; {file.name} gives another interval"


def is_earlier(interval: Json) -> bool:
    """Whether an interval was computed by rules that this release does not follow, so that it would not agree."""
    rules = member(interval, "rules")
    return interval is not None and (rules is None or (isinstance(rules, int) and rules < RULES))


def _is_of_first_rules(interval: Json) -> bool:
    return is_earlier(interval) and str(member(interval, "method")).startswith("Wilson")


def _outgrown(stated: Json, computed: Json, name: str) -> Iterator[str]:
    """Compare an interval of the first rules with that of today, which has the same clusters and is not narrower."""
    where, same = f"metrics.{name}.interval", {name: member(computed, name) for name in _OF_ALL_RULES}
    yield from unequal(stated, same, where)
    for end, sign in (("low", -1), ("high", 1)):
        one, other = _number(stated, end), _number(computed, end)
        if one is None or other is None:
            if one is not other:
                yield f"{where}.{end} is {one}, but {other} was computed again"
        elif sign * (one - other) > _CLOSE:
            yield f"{where}.{end} is {one:g}, outside {other:g}, which was computed again"


def has_earlier_intervals(record: ResultRecord) -> bool:
    """Whether a record has intervals that were computed by earlier rules."""
    return any(is_earlier(member(entry, "interval")) for entry in record.metrics.values())


def without_intervals(computed: Json) -> Json:
    """Leave the intervals of a computed value out, to compare the rest with a record that has earlier ones.

    >>> without_intervals({"value": 0.5, "low": 0.4, "parts": [{"n": 2, "high": 0.6}]})
    {'value': 0.5, 'parts': [{'n': 2}]}
    """
    if isinstance(computed, dict):
        return {name: without_intervals(value) for name, value in computed.items() if name not in _OF_INTERVALS}
    return [without_intervals(value) for value in computed] if isinstance(computed, list) else computed


def _again(predictions: Predictions, metric: str) -> Iterator[Json]:
    """The interval of a metric over all items; then over those with a label and a score, as for files of variants."""
    yield interval_of(predictions.answered, metric).as_json()
    if predictions.score is not None and predictions.target.ndim == 1 and len(predictions) == len(predictions.target):
        scored = has_label(predictions.target) & np.isfinite(predictions.score)
        if scored.any() and not scored.all():
            yield interval_of(predictions.take(np.flatnonzero(scored)), metric).as_json()


def unequal(stated: Json, computed: Json, where: str) -> Iterator[str]:
    """Describe each part of a computed value that a record states otherwise.

    Args:
        stated: What the record holds; further entries of objects are not looked at.
        computed: What was computed again.
        where: Place in the record.

    >>> list(unequal({"low": 0.5, "n": 2}, {"low": 0.4}, "interval"))
    ['interval.low is 0.5, but 0.4 was computed again']
    """
    if isinstance(computed, dict) and isinstance(stated, dict):
        for name, value in computed.items():
            yield from unequal(stated.get(name), value, f"{where}.{name}")
    elif isinstance(computed, list) and isinstance(stated, list) and len(stated) == len(computed):
        for index, (one, other) in enumerate(zip(stated, computed, strict=True)):
            yield from unequal(one, other, f"{where}[{index}]")
    elif not _same(stated, computed):
        yield f"{where} is {_short(stated)}, but {_short(computed)} was computed again"


def _same(stated: Json, computed: Json) -> bool:
    one, other = _number(stated), _number(computed)
    if one is None or other is None or (isinstance(stated, int) and isinstance(computed, int)):
        return stated == computed  # counts are equal or they are not
    return abs(one - other) <= _CLOSE * max(1.0, abs(one), abs(other))


def _short(value: Json) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _outside_text(record: ResultRecord, name: str) -> str:
    value, low, high = (
        member(record.metrics, name, *path) for path in (("value",), ("interval", "low"), ("interval", "high"))
    )
    return f"metrics.{name}.value is {value}, outside its interval of {low} to {high}"


def _interval_again(predictions: Predictions, metric: str, interval: Json) -> tuple[float, float]:
    """The ends of an interval of resamples, drawn as it says; nan if it does not say how it was drawn."""
    resamples, seed, level = (member(interval, name) for name in ("resamples", "seed", "level"))
    if metric not in METRICS or not isinstance(resamples, int) or not isinstance(seed, int):
        return math.nan, math.nan
    drawn = Bootstrap(resamples=resamples, seed=seed, clusters=str(member(interval, "clusters")))
    values = draws_of(predictions.answered, [metric], drawn)[metric].values
    values, inside = values[~np.isnan(values)], _number(level) or LEVEL
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - inside) / 2, (1 + inside) / 2])
    return float(low), float(high)


def _number(value: Json, *path: str) -> float | None:
    """A number in nested objects; None if there is no number."""
    value = member(value, *path)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
