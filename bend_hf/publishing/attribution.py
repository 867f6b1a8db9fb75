"""Says which dataset of the Hub a record was scored on, after comparing the hashes of both.

For records made from files of a folder: the dataset that was built from the same files and pushed is the one they may
be published for.

>>> named_datasets(["gene_finding=me/gene_finding@" + "0" * 40])["gene_finding"].repo
'me/gene_finding'
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from bend_hf.data.hub_names import DatasetRef
from bend_hf.data.task_data import FACTS_FILE
from bend_hf.errors import RecordError
from bend_hf.evaluation.results import ResultRecord
from bend_hf.shapes import Json
from bend_hf.tasks import TASKS, TaskSpec

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
