"""The Hub's own form of scores: ``.eval_results/*.yaml`` in a model's repository, ``eval.yaml`` in a dataset's.

A dataset's ``eval.yaml`` names its boards, a model's file names a board and a value. The Hub checks neither on the
client's side; ``bend_hf.publishing.eval_results`` does, strictly.

>>> eval_yaml("gene_finding").splitlines()[0]
'name: "BEND: Gene finding"'

The boards of BEND's datasets on the Hub: one for each task, probe and protocol.

So two protocols never stand in one column.

>>> board_id("gene_finding", "cnn", "bend-2024")
'gene_finding_cnn_bend-2024'

The strict check of the Hub's score files, which the Hub's own client does not make.

>>> check_eval_results([], "scores.yaml")
Traceback (most recent call last):
    ...
bend_hf.errors.RecordError: scores.yaml holds list; expected a list of entries
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from bend_hf.data.sources import DatasetRef
from bend_hf.errors import RecordError
from bend_hf.evaluation.record import member
from bend_hf.files import asset_folder
from bend_hf.publishing.results import ResultGroup
from bend_hf.tables import number, render
from bend_hf.tasks import TASKS, Folds, TaskSpec
from bend_hf.types import PROTOCOLS

if TYPE_CHECKING:
    from huggingface_hub import EvalResultEntry


def probes(task: TaskSpec) -> tuple[str, ...]:
    """What a task can be scored with: its own head and a linear probe, or nothing trained."""
    if task.head is None:
        return ("zero_shot",)
    return tuple(dict.fromkeys((type(task.head).__name__.removesuffix("Spec").lower(), "linear")))


def board_id(task: str, probe: str, protocol: str) -> str:
    """The id of a board in a dataset's ``eval.yaml``."""
    return f"{task}_{probe}_{protocol}"


def board_ids(group: str) -> dict[str, tuple[str, str]]:
    """All boards of a dataset: configuration and split of each. A task of folds is named by its first."""
    return {
        board_id(task.key, probe, protocol): (
            task.config or ("fold_1" if isinstance(task.partition, Folds) else "default"),
            "test",
        )
        for task in TASKS
        if task.group == group
        for protocol in PROTOCOLS
        for probe in probes(task)
    }


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


DATASET_NAME: Final = "BEND"  # one name for all tasks in model-index, or the Hub shows a line twice
FRAMEWORK: Final = "bend_hf"
FOLDER: Final = ".eval_results"


def eval_yaml(group: str) -> str:
    """The ``eval.yaml`` of a dataset.

    Raises:
        RecordError: No task of BEND is in a dataset of that name.
    """
    import yaml

    tasks = [task for task in TASKS if task.group == group]
    if not tasks:
        raise RecordError(f"no task of BEND is in a dataset {group!r}; boards are made for BEND's own tasks")
    said = [task.description for task in tasks]
    if any(isinstance(task.partition, Folds) for task in tasks):
        said.append("A score is the mean over all folds, each tested once; the board is named by the first.")
    said.append("A board for each probe and each protocol: scores of two protocols are not comparable.")
    fields = {
        "name": f"{DATASET_NAME}: {' and '.join(task.title for task in tasks)}",
        "description": " ".join(said),
        "framework": FRAMEWORK,
        "boards": board_ids(group),
    }
    text = render(asset_folder("model_cards") / "eval.yaml.jinja", fields)
    check_eval_yaml(yaml.safe_load(text), f"eval.yaml of {group}")
    return text


def file_name(entry: ResultGroup) -> str:
    """Where an entry stands in a model's repository."""
    return f"{FOLDER}/bend_{entry.task}_{entry.probe}.yaml"


def dataset_of(entry: ResultGroup) -> DatasetRef:
    """The dataset that an entry was scored on.

    Raises:
        RecordError: Its records do not say.
    """
    repo, revision = (entry.records[0].data.get(key) for key in ("repo", "revision"))
    if entry.origin != "hub" or not isinstance(repo, str) or not isinstance(revision, str):
        group = TASKS.get(entry.task).group if entry.task in TASKS else entry.task
        raise RecordError(
            f"{entry.task}: which dataset of the Hub was it scored on? Give --dataset {group}=OWNER/NAME@COMMIT, or "
            "run it with --data hub"
        )
    return DatasetRef(repo=repo, revision=revision)


def hub_entry(entry: ResultGroup, *, source_url: str | None = None) -> EvalResultEntry:
    """An entry in the Hub's form.

    Raises:
        RecordError: Its records do not say what they were scored on.
    """
    from huggingface_hub import EvalResultEntry

    dataset = dataset_of(entry)
    return EvalResultEntry(
        dataset_id=dataset.repo,
        task_id=board_id(entry.task, entry.probe, entry.protocol),
        value=entry.value,
        dataset_revision=dataset.revision,
        date=max((record.created_at for record in entry.records if record.created_at), default=None),
        source_url=source_url,
        source_name="bend_hf results" if source_url else None,
        notes=_notes(entry),
    )


def _notes(entry: ResultGroup) -> str:
    first = entry.records[0]
    said = [f"{entry.metric}, protocol {entry.protocol}, {entry.probe.replace('_', ' ')}"]
    if entry.low is not None and entry.high is not None:
        said.append(f"interval {number(entry.low)} to {number(entry.high)} ({entry.interval_method})")
    said.append(f"{first.coverage.get('scored')} of {first.coverage.get('items')} items")
    said.append("seed " + ", ".join(map(str, entry.seeds)))
    said.append(f"bend_hf {member(first.created_with, 'bend_hf')}")
    return "; ".join(said)


def eval_result_files(entries: Sequence[ResultGroup], *, source_url: str | None = None) -> dict[str, str]:
    """The files of some entries of one model: text by path, checked.

    Args:
        entries: What was scored.
        source_url: Where the records can be read.

    Raises:
        RecordError: Two entries are of one board, a dataset is not known, or an entry fails the check.
    """
    from huggingface_hub import eval_result_entries_to_yaml

    files: dict[str, list[Any]] = defaultdict(list)
    for entry in entries:
        files[file_name(entry)] += eval_result_entries_to_yaml([hub_entry(entry, source_url=source_url)])
    return {name: dumped(body, name) for name, body in sorted(files.items())}


def dumped(body: list[Any], where: str) -> str:
    """A checked list of entries as YAML, ordered by dataset and board.

    Raises:
        RecordError: The check fails.
    """
    import yaml

    check_eval_results(body, where)
    ordered = sorted(body, key=lambda item: (item["dataset"]["id"], item["dataset"]["task_id"]))
    text: str = yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=110)
    return text


def merged(old: str, new: str, where: str) -> str:
    """What a file holds after new entries were put in: those of the same board replaced, others kept.

    Raises:
        RecordError: The old file is no list of entries, or the whole fails the check.
    """
    import yaml

    try:
        before = yaml.safe_load(old) or []
        kept = {(item["dataset"]["id"], item["dataset"]["task_id"]): item for item in before}
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise RecordError(
            f"{where} in the repository is no list of eval results ({error}); mend or remove it there"
        ) from error
    kept |= {(item["dataset"]["id"], item["dataset"]["task_id"]): item for item in yaml.safe_load(new)}
    return dumped(list(kept.values()), where)
