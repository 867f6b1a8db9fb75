"""Entries set against each other: a contest for each task, protocol and set of data, its rows ranked, ties marked.

Only what was scored on the same items of the same files under the same protocol by the same metric is compared.

>>> contests([])
[]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Final

from bend_hf.evaluation.record import ResultRecord
from bend_hf.publishing.eval_results import probes
from bend_hf.publishing.results import ResultGroup, gather, not_settings
from bend_hf.publishing.ties import Tie, ties_with
from bend_hf.runs.controls import CONTROLS
from bend_hf.tasks import TASKS
from bend_hf.training.heads import BASELINES
from bend_hf.types import Json

MARKS: Final = MappingProxyType(
    {
        "=": "cannot be told from the best of its table: equal scores, or a paired bootstrap of both models on the "
        "same items (p of 0.05 or more after Holm's correction)",
        "≈": "perhaps not told from the best: no predictions of both lie here to pair, but the intervals overlap",
    }
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One entry in a contest.

    Attributes:
        entry: What was scored.
        name: What tells it from every other row: the model, and probe or settings where those differ.
        rank: 1 for the best, equal scores share one; None where the score is not defined or items are missing.
        tie: Whether it can be told from the best, and how that was found; None of the best row itself and of rows
            without a rank.
        best_mark: Of the best row, the surest mark of the rows that cannot be told from it; empty of the others.
    """

    entry: ResultGroup
    name: str
    rank: int | None
    tie: Tie | None = None
    best_mark: str = ""

    @property
    def tied(self) -> bool:
        """Whether it is one of several that cannot be told from the best."""
        return bool(self.mark)

    @property
    def mark(self) -> str:
        """``=`` where it is tied by the test or by equal scores, ``≈`` where by intervals alone, else nothing."""
        if self.tie is None:
            return self.best_mark
        return "" if not self.tie.tied else "≈" if self.tie.basis == "overlap" else "="


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
        controls: Scores of controls on the same items, by title; of none that is one of the rows.
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


def contests(
    records: Sequence[ResultRecord],
    files: Mapping[str, Path] = MappingProxyType({}),
    *,
    say: Callable[[str], None] = lambda text: None,
) -> list[Contest]:
    """The contests of some records, ordered by task, protocol and data.

    Args:
        records: Of models and of controls.
        files: Prediction files by the sha256 in the records, for the paired test; see ``bend_hf.publishing.ties``.
        say: Told why a file was not used.
    """
    found: dict[tuple[str, str, str, str], list[ResultGroup]] = defaultdict(list)
    for entry in gather(records):
        found[(entry.task, entry.protocol, entry.data_id, entry.metric)].append(entry)
    return [_contest(found[key], files, say) for key in sorted(found)]


def _contest(entries: Sequence[ResultGroup], files: Mapping[str, Path], say: Callable[[str], None]) -> Contest:
    first = entries[0]
    controls: dict[str, float] = {}
    for entry in entries:
        for name, value in entry.controls.items():
            if value is not None:
                controls.setdefault(name, value)
        if entry.is_control and entry.value is not None:
            controls[entry.model] = entry.value
    ranked = {entry.model for entry in entries if not entry.is_control}
    named = {_control_title(name): value for name, value in controls.items() if name not in ranked}
    items = first.records[0].coverage.get("scored")
    return Contest(
        task=first.task,
        title=TASKS.get(first.task).title if first.task in TASKS else first.task,
        protocol=first.protocol,
        data_id=first.data_id,
        data=_data_words(first),
        metric=first.metric,
        n_items=items if isinstance(items, int) else 0,
        rows=_ranked([entry for entry in entries if not entry.is_control], files, say),
        refusals=tuple(dict.fromkeys(reason for entry in entries for reason in entry.refusals)),
        controls=dict(sorted(named.items())),
    )


def _control_title(name: str) -> str:
    return CONTROLS.get(name).title if name in CONTROLS else name


def _data_words(entry: ResultGroup) -> str:
    data = entry.records[0].data
    repo, revision = data.get("repo"), data.get("revision")
    if entry.origin == "hub":
        return f"{repo} at {str(revision)[:12]}"
    return _DATA_IN_WORDS.get(entry.origin, entry.origin)


def _ranked(entries: Sequence[ResultGroup], files: Mapping[str, Path], say: Callable[[str], None]) -> tuple[Row, ...]:
    names = _names(entries)
    order = sorted(range(len(entries)), key=lambda i: (not _rankable(entries[i]), -(entries[i].value or 0.0), names[i]))
    ranked = [index for index in order if _rankable(entries[index])]
    rest = [Row(entry=entries[index], name=names[index], rank=None) for index in order[len(ranked) :]]
    if not ranked:
        return tuple(rest)
    best, *others = (entries[index] for index in ranked)
    ties = ties_with(best, others, files, say=say)
    rows: list[Row] = []
    for place, (index, tie) in enumerate(zip(ranked[1:], ties, strict=True), start=2):
        before = rows[-1] if rows else Row(entry=best, name="", rank=1)
        rank = before.rank if entries[index].value == before.entry.value else place
        rows.append(Row(entry=entries[index], name=names[index], rank=rank, tie=tie))
    first = Row(
        entry=best, name=names[ranked[0]], rank=1, best_mark=min((row.mark for row in rows if row.mark), default="")
    )
    return (first, *rows, *rest)


def _rankable(entry: ResultGroup) -> bool:
    return entry.value is not None and not any(reason.startswith("partial coverage") for reason in entry.refusals)


def _names(entries: Sequence[ResultGroup]) -> list[str]:
    """The model of each row; its probe where that is not the task's own; settings where rows would look alike."""
    names = []
    for entry in entries:
        own = probes(TASKS.get(entry.task))[0] if entry.task in TASKS else entry.probe
        by_itself = entry.probe == own or entry.model in BASELINES  # whose name says what is trained
        names.append(entry.model if by_itself else f"{entry.model}, {entry.probe.replace('_', ' ')}")
    by_name = sorted(range(len(entries)), key=lambda i: names[i])
    for _, group in groupby(by_name, key=lambda i: names[i]):
        alike = list(group)
        for index, said in zip(alike, _differences([entries[i] for i in alike]), strict=True):
            names[index] += said
    return names


def _differences(entries: Sequence[ResultGroup]) -> list[str]:
    """What in the configuration tells entries apart that are called the same."""
    if len(entries) == 1:
        return [""]
    configs = [dict(entry.records[0].config) for entry in entries]
    keys = sorted({key for config in configs for key in config} - not_settings())
    differing = [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)]
    if not differing:
        return [f", revision {_short(entry.records[0].model.get('revision'))}" for entry in entries]
    return ["".join(f", {key.replace('_', ' ')} {config.get(key)}" for key in differing) for config in configs]


def _short(revision: Json) -> str:
    return str(revision)[:7]
