"""Which results may leave this machine as scores of BEND, and for those that may not, why.

For ``bend-hf push``, and for the marks in cards and reports.

>>> REASONS["sample"]
"scored on the bundled sample, whose labels are stand-ins and not BEND's"

Says which dataset of the Hub a record was scored on, after comparing the hashes of both.

For records made from files of a folder: the dataset that was built from the same files and pushed is the one they may
be published for.

>>> named_datasets(["gene_finding=me/gene_finding@" + "0" * 40])["gene_finding"].repo
'me/gene_finding'
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Final, TypeAlias

from bend_hf.config import RunConfig, flags_of
from bend_hf.data.dataset import FACTS_FILE
from bend_hf.data.sources import DatasetRef
from bend_hf.errors import RecordError
from bend_hf.evaluation.record import ResultRecord, jsonable, member
from bend_hf.tasks import TASKS, Folds, TaskSpec
from bend_hf.types import Json

REASONS: Final = {
    "sample": "scored on the bundled sample, whose labels are stand-ins and not BEND's",
    "folder": "scored on files of a folder, and no dataset of the Hub is named that holds the same",
    "built": "scored on a built folder, and no dataset of the Hub is named that holds the same",
    "files": "scored on bed, labels or genome files of the user's own",
    "revision": "the revision of its dataset was not recorded",
    "task": "a task of the user's own",
    "metric": "scored with other metrics than the task's own",
    "value": "the main metric is not defined",
    "random": "made with random weights",
    "commit": "made by code with uncommitted changes",
}


def refusals(record: ResultRecord) -> list[str]:
    """Why a record must not be published as a score of BEND; empty where it may be."""
    found = [*_data_refusals(record), *_coverage_refusals(record), *_config_refusals(record)]
    if record.config.get("metric"):
        found.append(REASONS["metric"])
    if record.value is None:
        found.append(REASONS["value"])
    if record.model.get("random_init"):
        found.append(REASONS["random"])
    if str(member(record.created_with, "git_commit")).endswith("-dirty"):
        found.append(REASONS["commit"])
    return found


def _data_refusals(record: ResultRecord) -> list[str]:
    origin = str(record.data.get("origin"))
    found = [REASONS[origin]] if origin in REASONS else []
    if origin == "hub" and not (record.data.get("repo") and record.data.get("revision")):
        found.append(REASONS["revision"])
    return found + ([REASONS["task"]] if record.task not in TASKS else [])


def _coverage_refusals(record: ResultRecord) -> list[str]:
    """Items left out of the scores: unscored ones, dropped rows, folds that were not run."""
    found = []
    scored, items = record.coverage.get("scored"), record.coverage.get("items")
    if scored != items:
        found.append(f"partial coverage: {scored} of {items} items")
    for name in ("rows_dropped_out_of_bounds", "rows_dropped_ref_mismatch"):
        dropped = member(record.data, "changes", name)
        if dropped:
            found.append(f"partial coverage: {name.replace('_', ' ')}: {dropped}")
    if record.task in TASKS and isinstance(TASKS.get(record.task).partition, Folds):
        parts = record.data.get("items")
        n_parts = len(parts) if isinstance(parts, dict) else 0
        if len(record.folds) != n_parts:
            found.append(f"partial coverage: {len(record.folds)} of {n_parts} folds")
    return found


def _config_refusals(record: ResultRecord, kind: type[RunConfig] = RunConfig) -> list[str]:
    """Settings that differ from the task's declaration."""
    if record.task not in TASKS or record.training is None or record.is_control:
        return []
    declared, defaults = TASKS.get(record.task).training, {item.name: item.default for item in fields(kind)}
    found = []
    for name, info in flags_of(kind).items():
        if info.concerns != "recipe":
            continue
        is_set = record.config.get(name, jsonable(defaults[name]))
        if hasattr(declared, name):
            if is_set != getattr(declared, name):
                found.append(f"{name} is {is_set}, the task declares {getattr(declared, name)}")
        elif is_set != jsonable(defaults[name]):
            found.append(f"{name} is {is_set}, the benchmark has {defaults[name]}")
    return found


FactsOf: TypeAlias = Callable[[DatasetRef, TaskSpec], "dict[str, Json]"]


def named_datasets(named: Sequence[str]) -> dict[str, DatasetRef]:
    """The datasets that ``GROUP=OWNER/NAME@COMMIT`` texts name.

    Raises:
        RecordError: A text has another form, or names no task group of BEND.
    """
    groups = sorted({task.group for task in TASKS})
    found = {}
    for text in named:
        group, _, rest = text.partition("=")
        repo, _, revision = rest.partition("@")
        if group not in groups or not repo or not revision:
            raise RecordError(f"--dataset {text!r}; expected GROUP=OWNER/NAME@COMMIT, GROUP one of {', '.join(groups)}")
        found[group] = DatasetRef(repo=repo, revision=revision)
    return found


def attributed(
    records: Sequence[ResultRecord], datasets: Mapping[str, DatasetRef], facts_of: FactsOf
) -> list[ResultRecord]:
    """The records, those of named task groups said to be of their dataset.

    Args:
        records: As they were read.
        datasets: A dataset for each task group to be attributed.
        facts_of: Reads what a dataset says it was built from.

    Raises:
        RecordError: A dataset was built from other files than a record was scored on.
    """
    return [_attributed(record, datasets, facts_of) for record in records]


def _attributed(record: ResultRecord, datasets: Mapping[str, DatasetRef], facts_of: FactsOf) -> ResultRecord:
    task = TASKS.get(record.task) if record.task in TASKS else None
    dataset = datasets.get(task.group) if task else None
    if task is None or dataset is None or record.data.get("origin") in ("sample", "files"):
        return record
    facts = facts_of(dataset, task)
    for name in ("files", "items", "changes"):
        if facts.get(name) != record.data.get(name):
            raise RecordError(
                f"{task.key} was not scored on {dataset.repo} at {dataset.revision[:12]}: {name} differ "
                f"({record.data.get(name)} here, {facts.get(name)} there); name the dataset that was, or run it again"
            )
    data = {**record.data, "origin": "hub", "repo": dataset.repo, "revision": dataset.revision}
    return replace(record, data=data)


def hub_facts(dataset: DatasetRef, task: TaskSpec) -> dict[str, Json]:
    """What a dataset of the Hub says it was built from.

    Raises:
        RecordError: It cannot be read, or does not say.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    name = f"data/{task.config}/{FACTS_FILE}" if task.config else f"data/{FACTS_FILE}"
    try:
        path = hf_hub_download(dataset.repo, name, repo_type="dataset", revision=dataset.revision)
        facts: dict[str, Json] = json.loads(Path(path).read_text(encoding="utf-8"))["facts"]
    except (OSError, ValueError, KeyError, HfHubHTTPError, OfflineModeIsEnabled) as error:
        raise RecordError(
            f"{name} of {dataset.repo} at {dataset.revision[:12]} cannot be read ({type(error).__name__}); "
            "check the name and the network"
        ) from error
    return facts
