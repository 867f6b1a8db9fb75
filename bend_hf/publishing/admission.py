"""Which results may leave this machine as scores of BEND, and for those that may not, why.

For ``bend-hf push``, and for the marks in cards and reports.

>>> REASONS["sample"]
"scored on the bundled sample, whose labels are stand-ins and not BEND's"
"""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from bend_hf.config import RunConfig
from bend_hf.evaluation.results import ResultRecord, member
from bend_hf.tasks import TASKS, Folds

REASONS: Final = {
    "sample": "scored on the bundled sample, whose labels are stand-ins and not BEND's",
    "folder": "scored on files of a folder, and no dataset of the Hub is named that holds the same",
    "built": "scored on a built folder, and no dataset of the Hub is named that holds the same",
    "files": "scored on bed, labels or genome files of the user's own",
    "revision": "the revision of its dataset was not recorded",
    "task": "a task of the user's own",
    "value": "the main metric is not defined",
    "random": "made with random weights",
    "commit": "made by code with uncommitted changes",
}
# What a run shares with the task's declaration where it is run as declared; BEND conf/supervised_tasks/*.yaml.
_DECLARED: Final = ("epochs", "batch_size", "learning_rate", "weight_decay")
# Settings of a run that a task does not speak of; a score of BEND leaves them at their defaults.
_AT_DEFAULT: Final = ("schedule", "warmup_steps", "gradient_accumulation", "patience")


def refusals(record: ResultRecord) -> list[str]:
    """Why a record must not be published as a score of BEND; empty where it may be."""
    found = [*_data_refusals(record), *_coverage_refusals(record), *_config_refusals(record)]
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


def _config_refusals(record: ResultRecord) -> list[str]:
    """Settings that differ from the task's declaration."""
    if record.task not in TASKS or record.training is None or record.is_control:
        return []
    declared = TASKS.get(record.task).training
    found = []
    for name in _DECLARED:
        is_set, meant = record.config.get(name), getattr(declared, name)
        if is_set != meant:
            found.append(f"{name} is {is_set}, the task declares {meant}")
    defaults = {item.name: item.default for item in fields(RunConfig)}
    for name in _AT_DEFAULT:
        if name in record.config and name in defaults and record.config[name] != defaults[name]:
            found.append(f"{name} is {record.config[name]}, the benchmark has {defaults[name]}")
    return found
