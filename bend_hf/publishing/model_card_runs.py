"""Describe the runs of a model card: training, data, cost, and the command that repeats the run.

>>> command({"task": ["gene_finding"], "model": "dnabert2", "seed": 3})
'bend-hf train --task gene_finding --model dnabert2 --seed 3'
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any

from bend_hf.config import RunConfig, flags_of
from bend_hf.data.assembly import UNKNOWN
from bend_hf.data.sources import HUB_NAMESPACE
from bend_hf.embedders import MODELS
from bend_hf.evaluation.record import ResultRecord, member
from bend_hf.files import asset_folder, parse_json
from bend_hf.tables import INVISIBLE, metric_title, number
from bend_hf.tasks import TASKS, TaskSpec
from bend_hf.training.heads import BASELINES, HEADS
from bend_hf.types import Json


@cache
def fixed_texts() -> dict[str, Any]:
    """The fixed sentences of a card, ``model_cards/fields.json``."""
    body: dict[str, Any] = parse_json((asset_folder("model_cards") / "fields.json").read_text(encoding="utf-8"))
    return body


def task_title(task: str) -> str:
    """Title of a task of BEND, or the key of a user's task."""
    return TASKS.get(task).title if task in TASKS else task


def text_or(value: Json, otherwise: str = "not recorded") -> str:
    """A value as text, or ``otherwise`` if it is missing."""
    return otherwise if value in (None, "") else str(value)


def head_text(head: str) -> str:
    """Describe in a few words how embeddings became predictions."""
    if head == "zero_shot":
        return str(fixed_texts()["zero_shot"])
    return HEADS.get(head).text if head in HEADS.names() else head.replace("_", " ")


def run_fields(record: ResultRecord) -> dict[str, Any]:
    """Fields of the template for one run."""
    task: TaskSpec | None = TASKS.get(record.task) if record.task in TASKS else None
    cost, data, items = record.cost, record.data, record.data.get("items")
    files = data.get("files")
    seconds = cost.get("seconds")
    splits = items.items() if isinstance(items, dict) else ()
    return {
        "title": task_title(record.task),
        "protocol": record.protocol,
        "seed": record.config.get("seed"),
        "description": task.description if task else "A task that the user defined.",
        "head_text": head_text(record.probe),
        "training": _training_text(record),
        "data": _data_text(record),
        "splits": ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in splits if isinstance(count, int)),
        "leaks": _leaks_text(data.get("audit")),
        "hashes": [(name, member(files, name, "sha256")) for name in sorted(files)] if isinstance(files, dict) else [],
        "scored": record.coverage.get("scored"),
        "n_items": record.coverage.get("items"),
        "item_sha256": record.coverage.get("item_sha256"),
        "seconds": f"{seconds:,.0f} s" if isinstance(seconds, int | float) else "time not recorded",
        "device": text_or(cost.get("device_name") or cost.get("device")),
        "peak_memory": cost.get("peak_memory_bytes"),
        "cache": cost.get("cache_bytes"),
        "created_at": text_or(record.created_at, "at an unrecorded time"),
        "version": text_or(member(record.created_with, "bend_hf")),
        "commit": text_or(member(record.created_with, "git_commit"), "of a release"),
        "command": command({**record.config, "task": [record.task], "data": _data_flag(record)}),
    }


def _training_text(record: ResultRecord) -> str:
    if record.training is None:
        return "Nothing was trained."
    config = record.config
    runs = record.training.get("runs")
    runs = runs if isinstance(runs, list) else []
    declared = config.get("learning_rate")
    rates = [member(run, "learning_rate") or declared for run in runs] or [declared]
    text = (
        f"Trained for {config.get('epochs')} epochs in batches of {config.get('batch_size')}, learning rate "
        f"{', '.join(dict.fromkeys(map(str, rates)))}, weight decay {config.get('weight_decay')}"
    )
    steps = [n for n in (member(run, "steps") for run in runs) if isinstance(n, int)]
    if steps:
        ends = dict.fromkeys(f"{n:,}" for n in (min(steps), max(steps)))
        text += f", {' to '.join(ends)} steps of the optimizer"
    if best := [member(run, "best_epoch") for run in runs]:
        text += f"; best epoch by the validation metric: {', '.join(map(str, best))}"
    return f"{text}. {_search_text(record)}".strip()


def _search_text(record: ResultRecord) -> str:
    """Say what was searched; empty if the record does not know."""
    search = member(record.training, "search")
    values, runs = member(search, "values"), member(record.training, "runs")
    if not isinstance(search, dict) or not isinstance(values, dict):
        return ""
    if not values:
        return f"Nothing was searched: {search['reason']}." if search.get("reason") else ""
    searched = ", ".join(
        f"{name.replace('_', ' ')} {' / '.join(map(str, tried))}"
        for name, tried in values.items()
        if isinstance(tried, list)
    )
    chosen = [member(run, "chosen") for run in runs] if isinstance(runs, list) else []
    picks = "; ".join(
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in one.items())
        for one in chosen
        if isinstance(one, dict)
    )
    return f"Searched by {search.get('by')}: {searched}; chosen: {picks}. The test split was not used."


def _leaks_text(audit: Json) -> str:
    """Say how many tested rows occur in the rows that were trained on, and what a rule without a model scores."""
    if not isinstance(audit, dict) or "leaks" not in audit:
        reason = member(audit, "left_out")
        return f"unknown: {reason or 'the data were not audited'}"
    leaks = audit["leaks"]
    counts = {name: member(leak, "rows") for name, leak in leaks.items()} if isinstance(leaks, dict) else {}
    tested = {"test": counts["test"]} if "test" in counts else counts
    n = sum(count for count in tested.values() if isinstance(count, int))
    text = f"{n:,} tested rows occur in rows that they are tested against" if tested else "the task has no splits"
    value, metric = member(audit, "best_rule", "value"), member(audit, "best_rule", "metric")
    if isinstance(value, int | float):
        text += f"; the best rule without a model scores {metric_title(str(metric))} {number(value)}"
    return text


def _data_flag(record: ResultRecord) -> str:
    """The value of ``--data`` that reads the data again: ``hub:NAMESPACE`` for datasets of another namespace."""
    origin, owner = str(record.data.get("origin")), str(record.data.get("repo")).partition("/")[0]
    return f"hub:{owner}" if origin == "hub" and owner != HUB_NAMESPACE else origin


def _data_text(record: ResultRecord) -> str:
    data = record.data
    repo, revision = data.get("repo"), data.get("revision")
    genome = text_or(data.get("assembly"))
    genome = "a genome of no known assembly" if genome == UNKNOWN else genome
    if isinstance(repo, str) and isinstance(revision, str):
        return f"{repo} at {revision}, {genome}"
    kind = {
        "sample": "the bundled sample, not BEND's data",
        "folder": "files of a data folder",
        "files": "the user's own files",
        "built": "a built dataset folder",
    }
    return f"{kind.get(str(data.get('origin')), text_or(data.get('origin')))}, {genome}"


def _has_weights(model: str) -> bool:
    """Whether flags of weights apply to a model; the code of a user's model is not run to find out."""
    if model in BASELINES or model.endswith(".py"):
        return False
    return model not in MODELS or MODELS.get(model).source != "none"


def command(config: Mapping[str, Json], kind: type[RunConfig] = RunConfig) -> str:
    """The command that repeats a run: the model and every flag that is not at its default, without local paths."""
    tasks, origin = config.get("task"), config.get("data")
    words = ["bend-hf", "train", "--task", *map(str, tasks if isinstance(tasks, list) else [])]
    if origin is not None:
        words += ["--data", str(origin) if str(origin).partition(":")[0] in ("sample", "hub") else "data"]
    infos = flags_of(kind)
    has_weights = _has_weights(str(config.get("model")))
    for item in fields(kind):
        value = config.get(item.name) if has_weights or infos[item.name].needs != "weights" else None
        default = None if item.default is MISSING else item.default
        at_default = value == default and item.name != "model"
        if not infos[item.name].in_command or value in (None, [], False) or at_default:
            continue
        words.append(f"--{item.name.replace('_', '-')}")
        if value is not True:
            words += list(map(str, value)) if isinstance(value, list) else [str(value)]
    return " ".join(shlex.quote(INVISIBLE.sub(" ", re.sub(r"[^\S ]", " ", word))) for word in words)
