"""Entries set against each other: a contest for each task, protocol and set of data, its rows ranked, ties marked.

Only what was scored on the same items of the same files under the same protocol by the same metric is compared.

>>> contests([])
[]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from bend_hf.entries import NOT_SETTINGS, Entry, gather
from bend_hf.eval_results import probes
from bend_hf.results import ResultRecord
from bend_hf.shapes import Json
from bend_hf.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class Row:
    """One entry in a contest.

    Attributes:
        entry: What was scored.
        name: What tells it from every other row: the model, and probe or settings where those differ.
        rank: 1 for the best, equal scores share one; None where the score is not defined or items are missing.
        tied: Whether it cannot be told from the best: equal scores, or intervals that overlap.
    """

    entry: Entry
    name: str
    rank: int | None
    tied: bool


@dataclass(frozen=True, kw_only=True)
class Contest:
    """All rows of one task, protocol, set of data and metric, the best first.

    Attributes:
        task: Task key.
        title: Its title.
        protocol: ``bend-2024`` or ``bend-hf-1``.
        data_id: Hash of the data.
        data: The data in words.
        metric: What it is ranked by; higher is better.
        n_items: Items scored.
        rows: The rows.
        controls: Scores of controls on the same items, by name.
        refusals: Why it must not be published as it stands, for any of its rows and controls.
    """

    task: str
    title: str
    protocol: str
    data_id: str
    data: str
    metric: str
    n_items: int
    rows: tuple[Row, ...]
    controls: dict[str, float]
    refusals: tuple[str, ...]

    @property
    def key(self) -> str:
        """A name for files and anchors."""
        return f"{self.task}_{self.protocol}_{self.data_id}"

    @property
    def span(self) -> tuple[float, float]:
        """Lowest and highest number to draw: scores, intervals, controls."""
        ends = [x for row in self.rows for x in (row.entry.value, row.entry.low, row.entry.high) if x is not None]
        known = [*ends, *self.controls.values()]
        return (min(known), max(known)) if known else (0.0, 1.0)


_DATA_IN_WORDS = {
    "sample": "bundled sample, not BEND's data",
    "folder": "a data folder",
    "files": "files of the user's own",
    "built": "a built dataset folder",
}


def contests(records: Sequence[ResultRecord]) -> list[Contest]:
    """The contests of some records, ordered by task, protocol and data."""
    found: dict[tuple[str, str, str, str], list[Entry]] = defaultdict(list)
    for entry in gather(records):
        found[(entry.task, entry.protocol, entry.data_id, entry.metric)].append(entry)
    return [_contest(found[key]) for key in sorted(found)]


def _contest(entries: Sequence[Entry]) -> Contest:
    first = entries[0]
    controls: dict[str, float] = {}
    for entry in entries:
        for name, value in entry.controls.items():
            if value is not None:
                controls.setdefault(name, value)
        if entry.is_control and entry.value is not None:
            controls[entry.model] = entry.value
    items = first.records[0].coverage.get("scored")
    return Contest(
        task=first.task,
        title=TASKS.get(first.task).title if first.task in TASKS else first.task,
        protocol=first.protocol,
        data_id=first.data_id,
        data=_data_words(first),
        metric=first.metric,
        n_items=items if isinstance(items, int) else 0,
        rows=_ranked([entry for entry in entries if not entry.is_control]),
        refusals=tuple(dict.fromkeys(reason for entry in entries for reason in entry.refusals)),
        controls=dict(sorted(controls.items())),
    )


def _data_words(entry: Entry) -> str:
    data = entry.records[0].data
    repo, revision = data.get("repo"), data.get("revision")
    if entry.origin == "hub":
        return f"{repo} at {str(revision)[:12]}"
    return _DATA_IN_WORDS.get(entry.origin, entry.origin)


def _ranked(entries: Sequence[Entry]) -> tuple[Row, ...]:
    names = _names(entries)
    order = sorted(range(len(entries)), key=lambda i: (not _rankable(entries[i]), -(entries[i].value or 0.0), names[i]))
    best = next((entries[i] for i in order if _rankable(entries[i])), None)
    rows, rank, last = [], 0, None
    for place, index in enumerate(order, start=1):
        entry = entries[index]
        if not _rankable(entry):
            rows.append(Row(entry=entry, name=names[index], rank=None, tied=False))
            continue
        rank = rank if entry.value == last else place
        last = entry.value
        assert best is not None
        tied = entry is not best and overlap(best, entry)
        rows.append(Row(entry=entry, name=names[index], rank=rank, tied=tied))
    if any(row.tied for row in rows):
        rows[0] = Row(entry=rows[0].entry, name=rows[0].name, rank=rows[0].rank, tied=True)
    return tuple(rows)


def _rankable(entry: Entry) -> bool:
    return entry.value is not None and not any(reason.startswith("partial coverage") for reason in entry.refusals)


def overlap(one: Entry, other: Entry) -> bool:
    """Whether two scores are equal or their intervals share a point; without intervals only equal ones do."""
    if one.value == other.value:
        return True
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.low <= other.high and other.low <= one.high


def _names(entries: Sequence[Entry]) -> list[str]:
    """The model of each row; its probe where that is not the task's own; settings where rows would look alike."""
    names = []
    for entry in entries:
        own = probes(TASKS.get(entry.task))[0] if entry.task in TASKS else entry.probe
        names.append(entry.model if entry.probe == own else f"{entry.model}, {entry.probe.replace('_', ' ')}")
    by_name = sorted(range(len(entries)), key=lambda i: names[i])
    for _, group in groupby(by_name, key=lambda i: names[i]):
        alike = list(group)
        for index, said in zip(alike, _differences([entries[i] for i in alike]), strict=True):
            names[index] += said
    return names


def _differences(entries: Sequence[Entry]) -> list[str]:
    """What in the configuration tells entries apart that are called the same."""
    if len(entries) == 1:
        return [""]
    configs = [dict(entry.records[0].config) for entry in entries]
    keys = sorted({key for config in configs for key in config} - NOT_SETTINGS)
    differing = [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)]
    if not differing:
        return [f", revision {_short(entry.records[0].model.get('revision'))}" for entry in entries]
    return ["".join(f", {key.replace('_', ' ')} {config.get(key)}" for key in differing) for config in configs]


def _short(revision: Json) -> str:
    return str(revision)[:7]
