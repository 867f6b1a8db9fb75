"""Write and check the score files that the Hub reads: ``.eval_results/*.yaml`` of a model, ``eval.yaml`` of a dataset.

``eval.yaml`` in a dataset's repository declares the leaderboards of the dataset, each under a task id.
``.eval_results/*.yaml`` in a model's repository holds one value per task id. There is one task id per task, head and
protocol, so that scores of two protocols never share a column. The Hub's client checks neither file; this module does.

>>> eval_task_id("gene_finding", "cnn", "bend-2024")
'gene_finding_cnn_bend-2024'
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from bend_hf.data.sources import DatasetRef
from bend_hf.errors import RecordError
from bend_hf.evaluation.record import member
from bend_hf.files import asset_folder
from bend_hf.publishing.results import ResultGroup
from bend_hf.publishing.yaml_text import content_ends, dumped
from bend_hf.tables import number, render
from bend_hf.tasks import TASKS, Folds, TaskSpec
from bend_hf.types import PROTOCOLS, Json

if TYPE_CHECKING:
    from huggingface_hub import EvalResultEntry

Entries: TypeAlias = Sequence[Mapping[str, Json]]

DATASET_NAME: Final = "BEND"  # one name for all tasks in model-index; with several the Hub shows a score twice
FRAMEWORK: Final = "bend_hf"
FOLDER: Final = ".eval_results"

_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d))?")
# Keys of an entry: huggingface/hub-docs, docs/hub/eval-results.md, "Adding Evaluation Results".
_ENTRY_KEYS: Final = frozenset({"dataset", "value", "verifyToken", "date", "source", "evaluation_framework", "notes"})
_DATASET_KEYS: Final = frozenset({"id", "task_id", "revision"})
_SOURCE_KEYS: Final = frozenset({"url", "name", "user", "org"})


def heads_of(task: TaskSpec) -> tuple[str, ...]:
    """The heads that a task has leaderboards for: its own and a linear one, or ``zero_shot`` if nothing is trained."""
    if task.head is None:
        return ("zero_shot",)
    return tuple(dict.fromkeys((task.head.key, "linear")))


def eval_task_id(task: str, head: str, protocol: str) -> str:
    """The id of one leaderboard in a dataset's ``eval.yaml``."""
    return f"{task}_{head}_{protocol}"


def eval_task_ids(group: str) -> dict[str, tuple[str, str]]:
    """All task ids of a dataset with their configuration and split. A task with folds is named by its first fold."""
    return {
        eval_task_id(task.key, head, protocol): (
            task.config or ("fold_1" if isinstance(task.partition, Folds) else "default"),
            "test",
        )
        for task in TASKS
        if task.group == group
        for protocol in PROTOCOLS
        for head in heads_of(task)
    }


def eval_yaml(group: str) -> str:
    """The ``eval.yaml`` of a dataset.

    Raises:
        RecordError: BEND has no task in a dataset of that name.
    """
    import yaml

    tasks = [task for task in TASKS if task.group == group]
    if not tasks:
        raise RecordError(f"no task of BEND belongs to a dataset {group!r}; only BEND's own tasks have leaderboards")
    sentences = [task.description for task in tasks]
    if any(isinstance(task.partition, Folds) for task in tasks):
        sentences.append("A score is the mean over all folds; the leaderboard is named after the first fold.")
    sentences.append(
        "There is one leaderboard for each head and protocol, because scores of two protocols are not comparable."
    )
    fields = {
        "name": f"{DATASET_NAME}: {' and '.join(task.title for task in tasks)}",
        "description": " ".join(sentences),
        "framework": FRAMEWORK,
        "eval_task_ids": eval_task_ids(group),
    }
    text = render(asset_folder("model_cards") / "eval.yaml.jinja", fields)
    check_eval_yaml(yaml.safe_load(text), f"eval.yaml of {group}")
    return text


def eval_result_files(results: Sequence[ResultGroup], *, source_url: str | None = None) -> dict[str, str]:
    """The checked ``.eval_results`` files of one model's results: text by path.

    Args:
        results: Results of one model.
        source_url: Address of the records.

    Raises:
        RecordError: Two results have the same task id, a dataset is unknown, or an entry fails the check.
    """
    from huggingface_hub import eval_result_entries_to_yaml

    files: dict[str, list[Mapping[str, Json]]] = defaultdict(list)
    for result in results:
        path = f"{FOLDER}/bend_{result.task}_{result.head}.yaml"
        files[path] += eval_result_entries_to_yaml([eval_result_entry(result, source_url=source_url)])
    return {path: to_yaml(entries, path) for path, entries in sorted(files.items())}


def eval_result_entry(result: ResultGroup, *, source_url: str | None = None) -> EvalResultEntry:
    """A result in the Hub's form.

    Raises:
        RecordError: The records do not name the dataset that they were scored on.
    """
    from huggingface_hub import EvalResultEntry

    dataset = dataset_scored_on(result)
    return EvalResultEntry(
        dataset_id=dataset.repo,
        task_id=eval_task_id(result.task, result.head, result.protocol),
        value=result.value,
        dataset_revision=dataset.revision,
        date=max((record.created_at for record in result.records if record.created_at), default=None),
        source_url=source_url,
        source_name="bend_hf results" if source_url else None,
        notes=_notes(result),
    )


def dataset_scored_on(result: ResultGroup) -> DatasetRef:
    """The Hub dataset that a result was scored on.

    Raises:
        RecordError: The records do not name it.
    """
    repo, revision = (result.records[0].data.get(key) for key in ("repo", "revision"))
    if result.origin != "hub" or not isinstance(repo, str) or not isinstance(revision, str):
        group = TASKS.get(result.task).group if result.task in TASKS else result.task
        raise RecordError(
            f"{result.task}: the records do not name the Hub dataset that they were scored on. Give --dataset "
            f"{group}=OWNER/NAME@COMMIT, or repeat the run: 'bend-hf train --data hub'."
        )
    several = sorted({f"{one.data.get('repo')}@{one.data.get('revision')}" for one in result.records})
    if len(several) > 1:
        group = TASKS.get(result.task).group if result.task in TASKS else result.task
        raise RecordError(
            f"{result.task}: seeds of {result.model} were scored on {' and '.join(several)}; expected one dataset. "
            f"Give --dataset {group}=OWNER/NAME@COMMIT to check them against it, or leave records out."
        )
    return DatasetRef(repo=repo, revision=revision)


def _notes(result: ResultGroup) -> str:
    first = result.records[0]
    notes = [f"{result.metric}, protocol {result.protocol}, {result.head.replace('_', ' ')}"]
    if result.low is not None and result.high is not None:
        notes.append(f"interval {number(result.low)} to {number(result.high)} ({result.interval_method})")
    notes.append(f"{first.coverage.get('scored')} of {first.coverage.get('items')} items")
    notes.append("seed " + ", ".join(map(str, result.seeds)))
    notes.append(f"bend_hf {member(first.created_with, 'bend_hf')}")
    return "; ".join(notes)


def to_yaml(entries: Entries, name: str) -> str:
    """Check entries and write them as YAML, ordered by dataset and task id.

    Raises:
        RecordError: An entry fails the check.
    """
    checked = check_eval_results(list(entries), name)
    return dumped([dict(checked[key]) for key in sorted(checked)])


def merged(old: str, new: str, name: str) -> str:
    """Merge two ``.eval_results`` files. New entries replace old ones of the same dataset and task id.

    Every other entry of the old file is kept as it is written there, whatever its benchmark: only what the Hub requires
    of an entry is asked of it.

    Args:
        old: Text of the file in the repository.
        new: Text of our file.
        name: Name of the file in messages.

    Raises:
        RecordError: The old file is not a list of entries, or the new file fails the check.
    """
    import yaml

    before = _entries_there(old, name)
    added = dict(check_eval_results(yaml.safe_load(new), name))
    text = _spliced(old, [_entry_key(item) for item in before], added)
    kept = [item for item in before if _entry_key(item) not in added]
    if sorted(_loaded(text), key=repr) != sorted(
        [*kept, *added.values()], key=repr
    ):  # an anchor, or a list on one line
        text = dumped([*kept, *(dict(entry) for entry in added.values())])
    return text


def entry_keys(text: str, name: str) -> set[tuple[str, str]]:
    """Dataset and task id of each entry of a file.

    Raises:
        RecordError: The text is not a list of entries.
    """
    return {_entry_key(item) for item in _entries_there(text, name)}


def values_of(text: str) -> dict[tuple[str, str], Json]:
    """The value of each entry of one of our files, by dataset and task id."""
    return {_entry_key(item): item["value"] for item in _entries_there(text, FOLDER)}


def _entries_there(text: str, name: str) -> list[dict[str, Json]]:
    """The entries of a file in a repository, which other tools may have written.

    Raises:
        RecordError: The text is not a list of entries with the id and task id of a dataset, and a value.
    """
    import yaml

    try:
        body = yaml.safe_load(text) or []
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _not_entries(name, f"{type(error).__name__}") from error
    if not isinstance(body, list):
        raise _not_entries(name, f"it holds {type(body).__name__}")
    for position, item in enumerate(body, start=1):
        texts = [member(item, "dataset", key) for key in ("id", "task_id")]
        if not all(isinstance(one, str) and one for one in texts) or "value" not in item:
            raise _not_entries(name, f"entry {position} lacks the id or task_id of its dataset, or its value")
    return body


def _not_entries(name: str, why: str) -> RecordError:
    return RecordError(f"{name} in the repository is not a list of evaluation results ({why}); fix or remove it there")


def _entry_key(item: Mapping[str, Json]) -> tuple[str, str]:
    dataset = item["dataset"]
    return str(member(dataset, "id")), str(member(dataset, "task_id"))


def _loaded(text: str) -> list[Json]:
    import yaml

    try:
        body = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return []
    return body if isinstance(body, list) else []


def _spliced(old: str, keys: Sequence[tuple[str, str]], added: Mapping[tuple[str, str], Mapping[str, Json]]) -> str:
    """Write entries into the text of a file: over those of the same key, or at its end. The rest keeps its bytes."""
    import yaml

    root = yaml.compose(old, Loader=yaml.SafeLoader)
    nodes = root.value if root is not None else []
    indent = " " * (root.start_mark.column if nodes else 0)
    texts = {key: indent + dumped([dict(entry)]).replace("\n", "\n" + indent) for key, entry in added.items()}
    texts = {key: text.rstrip() for key, text in texts.items()}
    pieces, at, written = list[str](), 0, set[tuple[str, str]]()
    for key, node in zip(keys, nodes, strict=True):
        if key not in texts:
            continue
        dash = old.rfind("-", at, node.start_mark.index)
        pieces += [old[at:dash], "" if key in written else texts[key][len(indent) :]]
        at, written = max(content_ends(node)), written | {key}
    text = "".join([*pieces, old[at:]])
    further = [texts[key] for key in sorted(texts) if key not in written]
    if nodes or root is None:
        return text + ("\n" if text and not text.endswith("\n") else "") + "".join(f"{one}\n" for one in further)
    return "".join(f"{one}\n" for one in further)


def check_eval_yaml(body: object, name: str) -> None:
    """Check the content of an ``eval.yaml``.

    Args:
        body: The parsed YAML.
        name: Name of the file in messages.

    Raises:
        RecordError: A field is missing, unknown or malformed, or an id is repeated.
    """
    wanted = {"name", "description", "evaluation_framework", "tasks"}
    if not isinstance(body, dict) or set(body) != wanted:
        found = sorted(body) if isinstance(body, dict) else repr(body)
        raise RecordError(f"{name} holds {found}; expected {sorted(wanted)}")
    for key in wanted - {"tasks"}:
        if not isinstance(body[key], str) or not body[key].strip():
            raise RecordError(f"{name}: {key} is {body[key]!r}; expected text")
    tasks = body["tasks"]
    if not isinstance(tasks, list) or not tasks:
        raise RecordError(f"{name}: tasks is {tasks!r}; expected a list of at least one task")
    for task in tasks:
        if not isinstance(task, dict) or set(task) != {"id", "config", "split"}:
            raise RecordError(f"{name}: task {task!r}; expected id, config and split")
        if not all(isinstance(task[key], str) and re.fullmatch(r"[\w.-]+", task[key]) for key in task):
            raise RecordError(f"{name}: task {task!r}; expected names of letters, digits, '_', '-' and '.'")
    ids = [task["id"] for task in tasks]
    if len(set(ids)) != len(ids):
        raise RecordError(f"{name}: ids {sorted({i for i in ids if ids.count(i) > 1})} are repeated; expected one each")


def check_eval_text(text: str, name: str) -> None:
    """Check the text of an ``.eval_results`` file.

    Raises:
        RecordError: The text is not YAML, or its content fails the check.
    """
    import yaml

    try:
        body = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecordError(f"{name} is not YAML ({error})") from error
    check_eval_results(body, name)


def check_eval_results(
    body: object, name: str, *, now: datetime | None = None
) -> dict[tuple[str, str], Mapping[str, Json]]:
    """Check the content of an ``.eval_results`` file: ids, values, dates, revisions, sources.

    Args:
        body: The parsed YAML.
        name: Name of the file in messages.
        now: The present, for dates; None reads the clock.

    Returns:
        The entries by dataset and task id.

    Raises:
        RecordError: The message names the first entry that is wrong.
    """
    if not isinstance(body, list) or not body:
        raise RecordError(f"{name} holds {type(body).__name__}; expected a list of at least one entry")
    known = {task_id for group in {task.group for task in TASKS} for task_id in eval_task_ids(group)}
    entries: dict[tuple[str, str], Mapping[str, Json]] = {}
    for position, item in enumerate(body, start=1):
        at = f"{name}, entry {position}"
        entry = _checked_keys(item, _ENTRY_KEYS, {"dataset", "value"}, at)
        dataset = _checked_keys(entry["dataset"], _DATASET_KEYS, _DATASET_KEYS, f"{at}: dataset")
        reference = DatasetRef(repo=str(dataset["id"]), revision=str(dataset["revision"]))
        task_id = str(dataset["task_id"])
        if task_id not in known:
            raise RecordError(f"{at}: task_id {task_id!r} is not a task id of BEND, such as {min(known)!r}")
        _check_value(entry["value"], at)
        _check_date(entry.get("date"), now or datetime.now(UTC), at)
        if entry.get("source") is not None:
            url = str(_checked_keys(entry["source"], _SOURCE_KEYS, {"url"}, f"{at}: source")["url"])
            if not re.fullmatch(r"https?://\S+", url):
                raise RecordError(f"{at}: source url {url!r}; expected http(s)://...")
        if (reference.repo, task_id) in entries:
            raise RecordError(f"{at}: {task_id} of {reference.repo} is repeated; keep one value")
        entries[reference.repo, task_id] = entry
    return entries


def _checked_keys(item: object, known: frozenset[str], required: frozenset[str] | set[str], at: str) -> dict[str, Json]:
    if not isinstance(item, dict):
        raise RecordError(f"{at} is {item!r}; expected an object")
    unknown, missing = sorted(set(item) - known), sorted(required - set(item))
    if unknown or missing:
        raise RecordError(f"{at} has unknown keys {unknown} and lacks {missing}; known keys are {sorted(known)}")
    return item


def _check_value(value: object, at: str) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not -1 <= value <= 1:  # nan fails as well
        raise RecordError(f"{at}: value {value!r}; expected a finite number from -1 to 1")


def _check_date(date: object, now: datetime, at: str) -> None:
    if not isinstance(date, str) or not _DATE.fullmatch(date):
        raise RecordError(f"{at}: date {date!r}; expected ISO 8601 text, such as '2026-01-31T12:00:00Z'")
    try:
        moment = datetime.fromisoformat(date.replace("Z", "+00:00"))
    except ValueError as error:
        raise RecordError(f"{at}: date {date!r} is not a calendar day ({error})") from error
    if (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) > now + timedelta(days=1):
        raise RecordError(f"{at}: date {date!r} is in the future; check the clock")
