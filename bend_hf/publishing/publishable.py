"""Decide which results may be published as BEND scores, and name the reasons against the others.

Used by ``bend-hf push`` and for the marks in cards and reports. A record that was scored on files of a folder may be
published once it is matched to the Hub dataset that was built from the same files; see `match_dataset`.

>>> parse_datasets(["gene_finding=me/gene_finding@" + "0" * 40])["gene_finding"].repo
'me/gene_finding'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Final, TypeAlias

from bend_hf.config import RunConfig, flags_of
from bend_hf.data.dataset import FACTS_FILE
from bend_hf.data.sources import DatasetRef
from bend_hf.errors import ConfigError, RecordError, hub_errors
from bend_hf.evaluation.record import ResultRecord, jsonable, member
from bend_hf.files import parse_json
from bend_hf.tasks import TASKS, Folds, TaskSpec
from bend_hf.training.recipe import RECIPES, fewest_train_rows
from bend_hf.types import Json

FactsReader: TypeAlias = Callable[[DatasetRef, TaskSpec], "dict[str, Json]"]

REASONS: Final = {
    "sample": "scored on the bundled sample, whose labels are stand-ins and not BEND's",
    "folder": "scored on files of a folder, and no Hub dataset with the same content is named",
    "built": "scored on a built folder, and no Hub dataset with the same content is named",
    "files": "scored on the user's own BED, label or genome files",
    "revision": "the revision of the dataset was not recorded",
    "task": "not a task of BEND",
    "metric": "scored with other metrics than the task's own",
    "value": "the main metric is undefined",
    "random": "computed with random weights",
    "commit": "computed by code with uncommitted changes",
}


def reasons_not_to_publish(record: ResultRecord) -> list[str]:
    """List why a record must not be published as a BEND score; empty if it may be."""
    reasons = [*_data_reasons(record), *_coverage_reasons(record), *_config_reasons(record)]
    if record.config.get("metric"):
        reasons.append(REASONS["metric"])
    if record.value is None:
        reasons.append(REASONS["value"])
    if record.model.get("random_init"):
        reasons.append(REASONS["random"])
    if str(member(record.created_with, "git_commit")).endswith("-dirty"):
        reasons.append(REASONS["commit"])
    return reasons


def _data_reasons(record: ResultRecord) -> list[str]:
    origin = str(record.data.get("origin"))
    reasons = [REASONS[origin]] if origin in REASONS else []
    if origin == "hub" and not (record.data.get("repo") and record.data.get("revision")):
        reasons.append(REASONS["revision"])
    return reasons + ([REASONS["task"]] if record.task not in TASKS else [])


def _coverage_reasons(record: ResultRecord) -> list[str]:
    """Reasons for items that are missing from the score: unscored items, dropped rows, folds that were not run."""
    reasons = []
    scored, items = record.coverage.get("scored"), record.coverage.get("items")
    if scored != items:
        reasons.append(f"partial coverage: {scored} of {items} items")
    limit = record.data.get("limit")
    if limit is not None:
        reasons.append(f"partial coverage: at most {limit} items of each split were used")
    for name in ("rows_dropped_out_of_bounds", "rows_dropped_ref_mismatch"):
        dropped = member(record.data, "changes", name)
        if dropped:
            reasons.append(f"partial coverage: {name.replace('_', ' ')}: {dropped}")
    if record.task in TASKS and isinstance(TASKS.get(record.task).partition, Folds):
        subsets = record.data.get("items")
        n_folds = len(subsets) if isinstance(subsets, dict) else 0  # one fold tests each subset
        if len(record.folds) != n_folds:
            reasons.append(f"partial coverage: {len(record.folds)} of {n_folds} folds")
    return reasons


def _config_reasons(record: ResultRecord, kind: type[RunConfig] = RunConfig) -> list[str]:
    """Reasons for training settings that differ from the task's declaration or, if it is silent, the defaults."""
    if record.task not in TASKS or record.training is None or record.is_control:
        return []
    task, defaults = TASKS.get(record.task), {item.name: item.default for item in fields(kind)}
    expected = _expected_recipe(record, task)
    reasons = []
    for name, info in flags_of(kind).items():
        if info.concerns != "recipe":
            continue
        default = jsonable(defaults[name])
        value = record.config.get(name, default)
        if name in expected:
            if value != expected[name]:
                wanted = "protocol searches it" if expected[name] is None else f"task declares {expected[name]}"
                reasons.append(f"{name} is {value}, the {wanted}")
        elif value != default:
            reasons.append(f"{name} is {value}, the benchmark uses {default}")
    return reasons


def _expected_recipe(record: ResultRecord, task: TaskSpec) -> dict[str, Json]:
    """Return the training settings that the task declares and the protocol makes of them; None for what is searched."""
    training, items = task.training, record.data.get("items")
    recipe = next((one for protocol, one in RECIPES.items() if protocol == record.protocol), None)
    if training is None or recipe is None:
        return {}
    rows = {name: n for name, n in items.items() if isinstance(n, int)} if isinstance(items, dict) else {}
    budget = recipe.budget(training, fewest_train_rows(rows, folds=isinstance(task.partition, Folds)))
    searched = bool(recipe.learning_rates) and record.config.get("tune", "head") == "head"
    return {
        "epochs": budget.epochs,
        "batch_size": budget.batch_size,
        "learning_rate": None if searched else training.learning_rate,
        "weight_decay": training.weight_decay,
    }


def parse_datasets(texts: Sequence[str]) -> dict[str, DatasetRef]:
    """Parse the values of ``--dataset``, each ``GROUP=OWNER/NAME@COMMIT``, into one dataset per task group.

    Raises:
        ConfigError: A text has another form or names a task group that BEND does not have.
    """
    groups = sorted({task.group for task in TASKS})
    datasets = {}
    for text in texts:
        group, _, rest = text.partition("=")
        repo, _, revision = rest.partition("@")
        if group not in groups or not repo or not revision:
            raise ConfigError(
                f"--dataset {text!r}; expected GROUP=OWNER/NAME@COMMIT with GROUP one of {', '.join(groups)}"
            )
        datasets[group] = DatasetRef(repo=repo, revision=revision)
    return datasets


def match_dataset(
    records: Sequence[ResultRecord], datasets: Mapping[str, DatasetRef], read_facts: FactsReader
) -> list[ResultRecord]:
    """Write the Hub dataset of its task group into each record, after comparing the hashes of both.

    Args:
        records: Records as they were read.
        datasets: One dataset per task group; records of other groups are returned unchanged.
        read_facts: Reads what a dataset says it was built from.

    Raises:
        RecordError: A dataset was built from other files than a record was scored on.
    """
    return [_match_one(record, datasets, read_facts) for record in records]


def _match_one(record: ResultRecord, datasets: Mapping[str, DatasetRef], read_facts: FactsReader) -> ResultRecord:
    task = TASKS.get(record.task) if record.task in TASKS else None
    dataset = datasets.get(task.group) if task else None
    if task is None or dataset is None or record.data.get("origin") in ("sample", "files"):
        return record
    facts = read_facts(dataset, task)
    for name in ("files", "items", "changes"):
        if facts.get(name) != record.data.get(name):
            raise RecordError(
                f"{task.key} was not scored on {dataset.repo} at {dataset.revision[:12]}: {name} differ "
                f"({record.data.get(name)} in the record, {facts.get(name)} in the dataset). Name the dataset that "
                "was used, or repeat the run."
            )
    data = {**record.data, "origin": "hub", "repo": dataset.repo, "revision": dataset.revision}
    return replace(record, data=data)


def read_hub_facts(dataset: DatasetRef, task: TaskSpec) -> dict[str, Json]:
    """Download what a Hub dataset says it was built from.

    Raises:
        RecordError: The file cannot be read or holds no facts.
    """
    from huggingface_hub import hf_hub_download

    name = f"data/{task.config}/{FACTS_FILE}" if task.config else f"data/{FACTS_FILE}"
    try:
        path = hf_hub_download(dataset.repo, name, repo_type="dataset", revision=dataset.revision)
        facts: dict[str, Json] = parse_json(Path(path).read_text(encoding="utf-8"))["facts"]
    except hub_errors(OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecordError(
            f"cannot read {name} of {dataset.repo} at {dataset.revision[:12]} ({type(error).__name__}). Check the "
            "name and the network."
        ) from error
    return facts
