"""Rank results: one leaderboard per task, protocol, set of data and metric, with ties marked.

Results are compared only if they were scored on the same items of the same files, under the same protocol and by the
same metric.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Final

from bend_hf.evaluation.record import ResultRecord, member
from bend_hf.files import file_name, json_sha256
from bend_hf.publishing.diagnostics import calibration_text
from bend_hf.publishing.eval_results import heads_of
from bend_hf.publishing.gene_tables import gene_row
from bend_hf.publishing.published import PublishedScore, published_next_to
from bend_hf.publishing.results import ResultGroup, group_records, settings_of, spread_over_trainings
from bend_hf.publishing.shot_tables import shot_lines, shot_rows
from bend_hf.publishing.ties import Tie, ties_with
from bend_hf.runs.controls import CONTROLS
from bend_hf.tables import number
from bend_hf.tasks import TASKS
from bend_hf.training.heads import BASELINES
from bend_hf.types import Json

_TWIN: Final = "random_twin"  # the control's key
_RANDOM: Final = ", random weights"  # as ``model_label`` writes it
BELOW: Final = "↓"  # next to a score that is significantly below chance
BELOW_CONTROL: Final = "‡"  # next to a score below that of the best control
MARKS: Final = MappingProxyType(
    {
        "=": "cannot be told from the best: equal scores, or p of 0.05 or more in a paired test on the same items "
        "(Holm's correction over the models of the table)",
        "≈": "may be as good as the best: the intervals overlap, and no predictions of both models were found for a "
        "paired test",
    }
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One result on a leaderboard.

    Attributes:
        name: The model; with its head or settings if they tell it from another row.
        rank: 1 for the best; equal scores share a rank. None if the score is undefined or items are missing.
        tie: How the result compares with the best one; None for the best row and for rows without a rank.
        best_mark: For the best row, the surest mark among the rows tied with it; empty for other rows.
    """

    result: ResultGroup
    name: str
    rank: int | None
    tie: Tie | None = None
    best_mark: str = ""

    @property
    def tied(self) -> bool:
        """Whether the row is one of several that cannot be told from the best."""
        return bool(self.mark)

    @property
    def mark(self) -> str:
        """``=`` for a tie by equal scores or the paired test, ``≈`` for a tie by intervals only, empty otherwise."""
        if self.tie is None:
            return self.best_mark
        return "" if not self.tie.tied else "≈" if self.tie.basis == "overlap" else "="


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """All results of one task, protocol, set of data and metric, the best first.

    Attributes:
        data_id: Hash of the scored data.
        data: The data in words.
        metric: The main metric; higher is better.
        n_items: Number of scored items.
        controls: Scores of the controls on the same items, by title; controls that are rows are left out. A model with
            random weights is a control if the trained one is a row.
        reasons_not_to_publish: Why the leaderboard must not be published, over all its rows and controls.
        control_metrics: By control with a record of its own, all its metrics.
        provenances: By control, what it took from the machine: version, source, license and training data, in words.
        published: Scores that others report on the task, to show apart from the rows.
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
    reasons_not_to_publish: tuple[str, ...]
    provenances: Mapping[str, str] = field(default_factory=dict)
    control_metrics: Mapping[str, Json] = field(default_factory=dict)
    published: tuple[PublishedScore, ...] = ()

    @property
    def key(self) -> str:
        """A name for files and anchors."""
        return f"{file_name(self.task)}_{self.protocol}_{self.data_id}"

    @property
    def power(self) -> str:
        """What was compared and what the test could have found, in words; empty without a paired test."""
        tested = [row.tie for row in self.rows if row.tie is not None and row.tie.p is not None]
        if not tested:
            return ""
        n = tested[0].n_compared
        models = "1 model was" if n == 1 else f"{n} models were"
        sizes = [tie.detectable for tie in tested if tie.detectable is not None]
        ends = dict.fromkeys(number(end) for end in (min(sizes), max(sizes)))
        return (
            f"{models} compared with the best (p corrected by Holm's method). "
            f"The smallest difference that this test set shows in 4 of 5 cases: {' to '.join(ends)}."
        )

    @property
    def chance(self) -> str:
        """Chance for the metric, in words; empty if no record knows it."""
        known = (row.result.chance_text for row in self.rows)
        return next((text for text in known if text), "")

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know next to the scores: the remarks, each with the rows that it applies to."""
        rows_of: dict[str, list[str]] = {}
        for row in self.rows:
            for remark in (*row.result.remarks, *filter(None, [self.below_best_control(row)])):
                rows_of.setdefault(remark, []).append(row.name)
        remarks = [f"{'; '.join(names)}: {remark}." for remark, names in rows_of.items()]
        return (*remarks, *(f"{name}: {text}." for name, text in self.provenances.items()))

    def below_best_control(self, row: Row) -> str:
        """Say that a row scores below the best control, and which that is; empty if it does not."""
        if row.result.value is None or not self.controls:
            return ""
        name, best = max(self.controls.items(), key=lambda control: control[1])
        return f"below the best control, {name} with {number(best)}" if row.result.value < best else ""

    def score_text(self, row: Row) -> str:
        """The score of a row with the signs for chance and controls."""
        signs = [BELOW] * row.result.below_chance + [BELOW_CONTROL] * bool(self.below_best_control(row))
        return " ".join([number(row.result.value), *signs])

    @property
    def calibrations(self) -> dict[str, str]:
        """Expected calibration error and Brier score of each row whose scores are probabilities, in words."""
        texts = {row.name: calibration_text(row.result.records[0]) for row in self.rows}
        return {name: text for name, text in texts.items() if text}

    @property
    def shots(self) -> list[tuple[str, ...]]:
        """The scores of heads on few rows, of the models that have a curve; see ``shot_tables``."""
        return [line for row in self.rows for line in shot_rows(row.name, _curve_of(row.result))]

    @property
    def shot_lines(self) -> list[str]:
        """What is said below them."""
        return [line for row in self.rows for one in row.result.records for line in shot_lines(row.name, one)]

    @property
    def genes(self) -> list[tuple[str, ...]]:
        """Rows of the table of gene structure, of models and of their controls; empty for other tasks."""
        metrics: dict[str, Json] = {row.name: row.result.records[0].metrics for row in self.rows}
        for row in self.rows:
            record = row.result.records[0]
            metrics[f"{row.name}, most probable classes"] = member(record.metrics, self.metric, "detail", "argmax")
            for key, control in record.controls.items():
                metrics.setdefault(_control_title(key), member(control, "metrics"))
        metrics |= {name: found for name, found in self.control_metrics.items() if name not in metrics}
        return [row for row in (gene_row(name, one) for name, one in metrics.items()) if row is not None]

    @property
    def seed_spreads(self) -> dict[str, str]:
        """For each model with several seeds, its standard errors over items and over seeds, in words."""
        spreads = {row.name: spread_over_trainings(row.result.records) for row in self.rows}
        return {name: spread.as_text() for name, spread in spreads.items() if spread is not None}

    @property
    def span(self) -> tuple[float, float]:
        """Lowest and highest number to draw, over scores, intervals and controls."""
        ends = [x for row in self.rows for x in (row.result.value, row.result.low, row.result.high) if x is not None]
        known = [*ends, *self.controls.values()]
        return (min(known), max(known)) if known else (0.0, 1.0)


_DATA_IN_WORDS = {
    "sample": "bundled sample, not BEND's data",
    "folder": "a data folder",
    "files": "the user's own files",
    "built": "a built dataset folder",
}


def _curve_of(result: ResultGroup) -> Json:
    return next((record.shots for record in result.records if record.shots is not None), None)


def leaderboards(
    records: Sequence[ResultRecord],
    files: Mapping[str, Path] = MappingProxyType({}),
    *,
    stores: Sequence[str] = (),
    log: Callable[[str], None] = lambda text: None,
) -> list[Leaderboard]:
    """Rank the results of records on one leaderboard each, ordered by task, protocol and data.

    Args:
        records: Records of models and of controls.
        files: Prediction files by the sha256 in the records, for the paired test; see `prediction_files`.
        stores: The shared store of each record, see `group_records`.
        log: Receives one line for each prediction file that cannot be used, with the reason.
    """
    found: dict[tuple[str, str, str, str], list[ResultGroup]] = defaultdict(list)
    for result in group_records(records, stores):
        found[(result.task, result.protocol, result.data_id, result.metric)].append(result)
    return [_leaderboard(found[key], files, log) for key in sorted(found)]


def with_published(
    boards: Sequence[Leaderboard], *, log: Callable[[str], None] = lambda text: None
) -> list[Leaderboard]:
    """Add what others report to the leaderboards of BEND's data; the sample and a user's files are other data.

    Args:
        boards: The leaderboards.
        log: Receives one line for each leaderboard that gets none.
    """
    found = []
    for board in boards:
        origin = board.rows[0].result.origin if board.rows else ""
        scores, why_none = published_next_to(board.task, board.metric, origin)
        if why_none:
            log(f"{board.task}, {board.protocol}: {why_none}")
        found.append(replace(board, published=scores))
    return found


def _leaderboard(results: Sequence[ResultGroup], files: Mapping[str, Path], log: Callable[[str], None]) -> Leaderboard:
    first = results[0]
    models = [result for result in results if not result.is_control]
    partners = {_use(result) for result in models if not result.is_random}
    twins = [result for result in models if result.is_random and _use(result) in partners]
    rows = _ranked([result for result in models if result not in twins], files, log)
    items = first.records[0].coverage.get("scored")
    return Leaderboard(
        task=first.task,
        title=TASKS.get(first.task).title if first.task in TASKS else first.task,
        protocol=first.protocol,
        data_id=first.data_id,
        data=", ".join(dict.fromkeys(map(_data_words, results))),
        metric=first.metric,
        n_items=items if isinstance(items, int) else 0,
        rows=rows,
        reasons_not_to_publish=tuple(
            dict.fromkeys(reason for result in results for reason in result.reasons_not_to_publish)
        ),
        controls=_controls(results, rows, twins, log),
        provenances=control_provenances(results),
        control_metrics={_control_name(one): one.records[0].metrics for one in results if one.is_control},
    )


def control_provenances(results: Sequence[ResultGroup]) -> dict[str, str]:
    """Say what the controls of results took from the machine, by title; of several versions, all.

    >>> control_provenances([])
    {}
    """
    stated: dict[str, dict[str, None]] = {}
    for record in (record for result in results for record in result.records):
        found = {str(record.model.get("model")): record.model.get("provenance")} if record.is_control else {}
        found |= {name: member(record.controls, name, "provenance") for name in record.controls}
        for name, facts in found.items():
            if isinstance(facts, dict):
                version, license_, trained_on, source = (
                    str(facts.get(key) or "unknown") for key in ("version", "license", "trained_on", "source")
                )
                text = f"version {version}, license {license_}; trained on {trained_on}; {source}"
                stated.setdefault(_control_title(name), {})[text] = None
    return {name: "; ".join(texts) for name, texts in sorted(stated.items())}


def _controls(
    results: Sequence[ResultGroup], rows: Sequence[Row], twins: Sequence[ResultGroup], log: Callable[[str], None]
) -> dict[str, float]:
    """Scores of controls by title: those that the records of models hold, then those of records of their own."""
    name_of = {_use(row.result): row.name for row in rows if not row.result.is_random}
    ranked = {row.result.model for row in rows}
    titled: dict[str, float] = {}
    for result in sorted(results, key=lambda one: one.store):  # one's own come first
        for key, value in result.controls.items():
            if value is None or key in ranked:
                continue
            title = _twin_title(name_of.get(_use(result), result.model)) if key == _TWIN else _control_title(key)
            if titled.setdefault(title, value) != value:
                log(f"{result.task}: records hold {titled[title]:.4f} and {value:.4f} for {title}; the first is shown")
    titled |= {_twin_title(name_of[_use(twin)]): twin.value for twin in twins if twin.value is not None}
    alone = sorted((one for one in results if one.is_control and one.value is not None), key=_control_name)
    for name, group in groupby(alone, key=_control_name):
        alike = list(group)
        for result, difference in zip(alike, _differences(alike), strict=True):
            titled[name + difference] = result.value or 0.0
    return dict(sorted(titled.items(), key=_by_name))


def _use(result: ResultGroup) -> tuple[str, ...]:
    """What a model shares with its twin of random weights: name, use, head and settings."""
    settings = {name: value for name, value in settings_of(result.records[0]).items() if name != "random_init"}
    name = result.model.replace(_RANDOM, "")
    return (name, result.head, result.namespace, result.store, json_sha256(settings))


def _twin_title(name: str) -> str:
    return name + _RANDOM


@dataclass(frozen=True, kw_only=True)
class OverviewLine:
    """A model or a control over several leaderboards.

    Attributes:
        rows: Its row on each leaderboard; None for a control and where the model has no row.
        values: Its score on each leaderboard.
    """

    name: str
    is_control: bool
    rows: tuple[Row | None, ...]
    values: tuple[float | None, ...]


def over_tasks(boards: Sequence[Leaderboard]) -> list[OverviewLine]:
    """Return a line per model and then a line per control over leaderboards of one protocol.

    A model has one line whatever its heads are, unless a leaderboard holds several heads of it.
    """
    counts = [Counter(_without_head(row) for row in board.rows) for board in boards]
    several = {name for count in counts for name, n in count.items() if n > 1}
    models: dict[str, list[Row | None]] = {}
    controls: dict[str, list[float | None]] = {}
    for index, board in enumerate(boards):
        short = {row.name: row.name if _without_head(row) in several else _without_head(row) for row in board.rows}
        for row in board.rows:
            models.setdefault(short[row.name], [None] * len(boards))[index] = row
        short = {_twin_title(name): _twin_title(found) for name, found in short.items()}
        for title, value in board.controls.items():
            controls.setdefault(short.get(title, title), [None] * len(boards))[index] = value
    lines = [
        OverviewLine(
            name=name,
            is_control=False,
            rows=tuple(rows),
            values=tuple(None if row is None else row.result.value for row in rows),
        )
        for name, rows in sorted(models.items(), key=_by_name)
    ]
    nothing = (None,) * len(boards)
    return lines + [
        OverviewLine(name=name, is_control=True, rows=nothing, values=tuple(values))
        for name, values in sorted(controls.items(), key=_by_name)
    ]


def _by_name(item: tuple[str, object]) -> str:
    return item[0].casefold()


def _without_head(row: Row) -> str:
    return _with_owner(row.result.model, row.result)


def heads_in_words(boards: Sequence[Leaderboard]) -> str:
    """Name the trained heads that are not their task's own; empty if there are none."""
    heads = set()
    for board in boards:
        usual = {"zero_shot", *(heads_of(TASKS.get(board.task))[:1] if board.task in TASKS else ())}
        heads |= {row.result.head for row in board.rows if row.result.model not in BASELINES} - usual
    return ", ".join(sorted(head.replace("_", " ") for head in heads))


def _control_title(name: str) -> str:
    return CONTROLS.get(name).title if name in CONTROLS else name


def _control_name(result: ResultGroup) -> str:
    return _with_owner(_control_title(result.model), result)


def _with_owner(name: str, result: ResultGroup) -> str:
    """A name with the owner of the data and the store of the records, if they are not the usual ones."""
    name = f"{name}, data of {result.namespace}" if result.namespace else name
    return f"{name}, from {result.store}" if result.store else name


def _data_words(result: ResultGroup) -> str:
    data = result.records[0].data
    repo, revision = data.get("repo"), data.get("revision")
    if result.origin == "hub":
        return f"{repo} at {str(revision)[:12]}"
    return _DATA_IN_WORDS.get(result.origin, result.origin)


def _ranked(results: Sequence[ResultGroup], files: Mapping[str, Path], log: Callable[[str], None]) -> tuple[Row, ...]:
    names = row_names(results)
    order = sorted(range(len(results)), key=lambda i: (not _rankable(results[i]), -(results[i].value or 0.0), names[i]))
    ranked = [index for index in order if _rankable(results[index])]
    unranked = [Row(result=results[index], name=names[index], rank=None) for index in order[len(ranked) :]]
    if not ranked:
        return tuple(unranked)
    best, *others = (results[index] for index in ranked)
    ties = ties_with(best, others, files, log=log)
    rows: list[Row] = []
    for place, (index, tie) in enumerate(zip(ranked[1:], ties, strict=True), start=2):
        before = rows[-1] if rows else Row(result=best, name="", rank=1)
        rank = before.rank if results[index].value == before.result.value else place
        rows.append(Row(result=results[index], name=names[index], rank=rank, tie=tie))
    best_mark = min((row.mark for row in rows if row.mark), default="")
    return (Row(result=best, name=names[ranked[0]], rank=1, best_mark=best_mark), *rows, *unranked)


def _rankable(result: ResultGroup) -> bool:
    partial = any(reason.startswith("partial coverage") for reason in result.reasons_not_to_publish)
    return result.value is not None and not partial


def row_names(results: Sequence[ResultGroup]) -> list[str]:
    """Name each result: its model, with what tells it apart.

    That is its head if it is not the task's, the owner of its data if they are not the canonical datasets of the Hub,
    the store of its records, and settings if two would look alike.
    """
    names = []
    for result in results:
        usual = heads_of(TASKS.get(result.task))[0] if result.task in TASKS else result.head
        model_is_enough = result.head == usual or result.model in BASELINES  # a baseline's name says what is trained
        name = result.model if model_is_enough else f"{result.model}, {result.head.replace('_', ' ')}"
        names.append(_with_owner(name, result))
    by_name = sorted(range(len(results)), key=lambda i: names[i])
    for _, group in groupby(by_name, key=lambda i: names[i]):
        alike = list(group)
        for index, difference in zip(alike, _differences([results[i] for i in alike]), strict=True):
            names[index] += difference
    return names


def _differences(results: Sequence[ResultGroup]) -> list[str]:
    """What in the settings or the head tells results of the same name apart."""
    if len(results) == 1:
        return [""]
    records = [result.records[0] for result in results]
    facts = [{**settings_of(record), **_head_facts(record)} for record in records]
    keys = sorted({key for one in facts for key in one})
    differing = [key for key in keys if any(one.get(key) != facts[0].get(key) for one in facts)]
    if not differing:
        return [f", run of {record.created_at or 'an unrecorded time'}" for record in records]
    return ["".join(f", {key.replace('_', ' ')} {one.get(key)}" for key in differing) for one in facts]


def _head_facts(record: ResultRecord) -> dict[str, Json]:
    head = member(record.training, "head")
    return {f"head {name}": value for name, value in head.items()} if isinstance(head, dict) else {}
