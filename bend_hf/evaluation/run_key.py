"""The key of a run: a hash of everything that affects its scores, and of nothing else.

It finds a finished run among the records and an interrupted run among the checkpoints.

>>> KEY_FIELD
'run_key'
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bend_hf.data.dataset import TaskData
from bend_hf.evaluation.metrics import metric_identity
from bend_hf.evaluation.record import jsonable
from bend_hf.files import json_sha256, parse_json
from bend_hf.types import Json

KEY_FIELD: Final = "run_key"  # in a record's config

_TASK: Final = ("key", "label", "stranded", "partition", "training", "variant")
_FACTS: Final = ("assembly", "files", "items", "changes", "revision")


def run_key(
    settings: Mapping[str, object], data: TaskData, identity: Mapping[str, str], head: Mapping[str, Json] | None
) -> str:
    """Compute the key of a run.

    Args:
        settings: The settings that decide the numbers, resolved for the task; see ``config.scored_settings``.
        data: The data of the task.
        identity: The identity of the embedder in the folder of the records; see ``embedders.identity_in``.
        head: The head as the record holds it; None if nothing is trained.
    """
    task = {name: jsonable(getattr(data.task, name)) for name in _TASK}
    task["metrics"] = [metric_identity(metric) for metric in data.task.metrics]
    return json_sha256(
        {
            "task": task,
            "data": {name: data.facts.get(name) for name in _FACTS},
            "model": jsonable(dict(identity)),
            "head": None if head is None else dict(head),
            "settings": jsonable(dict(settings)),
        }
    )


def control_key(control: str, data: TaskData, *, protocol: str, seed: int, fold: Sequence[int]) -> str:
    """Compute the key of a control that predicts without a model: it depends on neither model nor head.

    Args:
        control: Key of the control, with the hash of its code if it is not one of this package.
        data: The data of the task.
        protocol: Which flaws of the paper are fixed.
        seed: Seed of the run.
        fold: The folds that were asked for; empty for all.
    """
    metrics: list[Json] = [metric_identity(metric) for metric in data.task.metrics]
    return json_sha256(
        {
            "control": control,
            "task": {"key": data.task.key, "label": jsonable(data.task.label), "metrics": metrics},
            "data": {name: data.facts.get(name) for name in _FACTS},
            "protocol": protocol,
            "seed": seed,
            "fold": list(fold),
        }
    )


def name_in_key(control: str, version: str | None, content: str | None = None) -> str:
    """Name a control in its key: with version and content of what it took from the machine, if it took something.

    Args:
        control: Key of the control, with the hash of its code if it is not one of this package.
        version: Version of the program, networks or data base.
        content: Hash of its files; None if the version stands for them, and in records of earlier releases.

    >>> name_in_key("augustus", "3.5.0"), name_in_key("augustus", "3.5.0", "1f"), name_in_key("kmer", None)
    ('augustus 3.5.0', 'augustus 3.5.0 1f', 'kmer')
    """
    return " ".join(part for part in (control, version, content) if part is not None)


def variant_file_key(
    settings: Mapping[str, object], *, task: str, files: Mapping[str, str], identity: Mapping[str, str]
) -> str:
    """Compute the key of the scoring of a file of variants.

    Args:
        settings: The settings that decide the numbers; see ``config.scored_settings``.
        task: What the record calls the file.
        files: The sha256 of the file of variants and of the genome, by kind.
        identity: The identity of the embedder in the folder of the records; see ``embedders.identity_in``.
    """
    return json_sha256(
        {
            "variants": task,
            "files": dict(files),
            "model": jsonable(dict(identity)),
            "settings": jsonable(dict(settings)),
        }
    )


def runs_of_key(folder: Path, key: str) -> list[Path]:
    """Find the records of a folder that have the key of a run, by name."""
    return [path for path, found in _keys(folder) if found == key]


def _keys(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.glob("*.json")):
        try:
            body = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # not a record, or one that another process is writing
        config = body.get("config") if isinstance(body, dict) else None
        key = config.get(KEY_FIELD) if isinstance(config, dict) else None
        if isinstance(key, str):
            yield path, key
