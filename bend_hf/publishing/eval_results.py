"""The Hub's own form of scores: ``.eval_results/*.yaml`` in a model's repository, ``eval.yaml`` in a dataset's.

A dataset's ``eval.yaml`` names its boards, a model's file names a board and a value. The Hub checks neither on the
client's side; ``bend_hf.publishing.eval_checks`` does, strictly.

>>> eval_yaml("gene_finding").splitlines()[0]
'name: "BEND: Gene finding"'
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from bend_hf.assets import asset_folder
from bend_hf.data.hub_names import DatasetRef
from bend_hf.errors import RecordError
from bend_hf.evaluation.results import member
from bend_hf.markdown import number, render
from bend_hf.publishing.boards import board_id, board_ids
from bend_hf.publishing.entries import Entry
from bend_hf.publishing.eval_checks import check_eval_results, check_eval_yaml
from bend_hf.tasks import TASKS, Folds

if TYPE_CHECKING:
    from huggingface_hub import EvalResultEntry

DATASET_NAME: Final = "BEND"  # one name for all tasks in model-index, or the Hub shows a line twice
FRAMEWORK: Final = "bend_hf"
FOLDER: Final = ".eval_results"


def eval_yaml(group: str) -> str:
    """The ``eval.yaml`` of a dataset.

    Raises:
        RecordError: No task of BEND is in a dataset of that name.
    """
    import yaml  # type: ignore[import-untyped]

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


def file_name(entry: Entry) -> str:
    """Where an entry stands in a model's repository."""
    return f"{FOLDER}/bend_{entry.task}_{entry.probe}.yaml"


def dataset_of(entry: Entry) -> DatasetRef:
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


def hub_entry(entry: Entry, *, source_url: str | None = None) -> EvalResultEntry:
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


def _notes(entry: Entry) -> str:
    first = entry.records[0]
    said = [f"{entry.metric}, protocol {entry.protocol}, {entry.probe.replace('_', ' ')}"]
    if entry.low is not None and entry.high is not None:
        said.append(f"interval {number(entry.low)} to {number(entry.high)} ({entry.interval_method})")
    said.append(f"{first.coverage.get('scored')} of {first.coverage.get('items')} items")
    said.append("seed " + ", ".join(map(str, entry.seeds)))
    said.append(f"bend_hf {member(first.created_with, 'bend_hf')}")
    return "; ".join(said)


def eval_result_files(entries: Sequence[Entry], *, source_url: str | None = None) -> dict[str, str]:
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
