"""What tells two runs apart: a hash of everything that determines the numbers, and of nothing else.

A finished run is found by it among the records, and a killed one among the checkpoints.

>>> KEY_FIELD
'run_key'
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.config import RunConfig, settings_in_key
from bend_hf.data.dataset import TaskData
from bend_hf.evaluation.record import jsonable
from bend_hf.files import json_sha256

if TYPE_CHECKING:
    from bend_hf.embedders._embedder import Embedder
    from bend_hf.tasks._spec import HeadSpec

KEY_FIELD: Final = "run_key"  # in a record's config

_TASK: Final = ("key", "label", "stranded", "partition", "training", "variant", "metrics")
_FACTS: Final = ("assembly", "files", "items", "changes", "revision")


def run_key(config: RunConfig, data: TaskData, embedder: Embedder, head: HeadSpec | None) -> str:
    """The key of a run.

    Args:
        config: Resolved for the task.
        data: The task's data.
        embedder: With its weights.
        head: What is trained; None where nothing is.
    """
    in_key = settings_in_key(type(config))
    settings = {name: value for name, value in asdict(config).items() if name in in_key}
    return json_sha256(
        {
            "task": {name: jsonable(getattr(data.task, name)) for name in _TASK},
            "data": {name: data.facts.get(name) for name in _FACTS},
            "model": jsonable(embedder.identity),
            "head": jsonable(head),
            "settings": jsonable(settings),
        }
    )


def finished_runs(folder: Path) -> dict[str, Path]:
    """The records of a folder by the key of their run; of two of one key, the first by name."""
    found: dict[str, Path] = {}
    for path, key in _keys(folder):
        found.setdefault(key, path)
    return found


def _keys(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.glob("*.json")):
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # not a record, or one that is being written
        config = body.get("config") if isinstance(body, dict) else None
        key = config.get(KEY_FIELD) if isinstance(config, dict) else None
        if isinstance(key, str):
            yield path, key
