"""The result record: one JSON file a run, with all that is needed to believe a number or to make it again.

Cards, tables and the Hub start from it. A record is never overwritten: a second run is a second record.

>>> run_name("gene_finding", "onehot", 0, "20260101T000000").startswith("gene_finding__onehot__seed0__")
True
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from bend_hf import __version__
from bend_hf.errors import RecordError
from bend_hf.shapes import Json

SCHEMA_VERSION: Final = 1
_VERSIONS_OF: Final = (
    "accelerate",
    "datasets",
    "evaluate",
    "huggingface_hub",
    "numpy",
    "pyarrow",
    "safetensors",
    "scikit-learn",
    "torch",
    "transformers",
)


@dataclass(frozen=True, kw_only=True)
class ResultRecord:
    """One run.

    Attributes:
        task: Task key.
        protocol: ``bend-2024`` or ``bend-hf-1``.
        model: The embedder's own description: key, checkpoint, revision, facts.
        data: Origin, hashes, counts, what was padded or dropped.
        config: The whole resolved configuration.
        metrics: Value and detail of each metric on the test split.
        main_metric: Which of them the task is ranked by.
        coverage: Items scored of items, and the hash of their ids.
        training: Epochs, the best of them, the history of loss and validation metric; None where nothing is trained.
        folds: Metrics of each fold; empty where there are none.
        cost: Seconds a stage, peak memory in bytes, device, processes.
        predictions: Name and sha256 of the Parquet file beside the record.
    """

    task: str
    protocol: str
    model: dict[str, Json]
    data: dict[str, Json]
    config: dict[str, Json]
    metrics: dict[str, Json]
    main_metric: str
    coverage: dict[str, Json]
    training: dict[str, Json] | None
    folds: list[Json]
    cost: dict[str, Json]
    predictions: dict[str, Json]

    @property
    def value(self) -> float | None:
        """The main metric; None where it is not defined."""
        value = _member(self.metrics, self.main_metric, "value")
        return value if isinstance(value, int | float) else None

    def as_json(self) -> dict[str, Json]:
        """The record as it is written, with the schema version and the versions of what made it."""
        body = {item.name: jsonable(getattr(self, item.name)) for item in fields(self)}
        return {"schema_version": SCHEMA_VERSION, "created_with": _versions(), **body}


def _member(value: Json, *path: str) -> Json:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def jsonable(value: Any) -> Json:
    """Plain JSON: dataclasses as objects, paths as text, NumPy numbers as numbers, nan and infinity as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "kind": type(value).__name__,
            **{f.name: jsonable(getattr(value, f.name)) for f in fields(value)},
        }
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, Path):
        return str(value)
    raise RecordError(f"{value!r} ({type(value).__name__}) has no form in JSON; give text, numbers, lists or objects")


@cache
def _versions() -> dict[str, Json]:
    installed: dict[str, Json] = {"bend_hf": __version__, "python": platform.python_version()}
    for name in _VERSIONS_OF:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = None
    installed["git_commit"] = _git_commit()
    installed["platform"] = platform.platform()
    return installed


def _git_commit() -> str | None:
    """Commit of the checkout this package runs from, with ``-dirty`` behind it where files were changed."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def run_name(task: str, model: str, seed: int, moment: str) -> str:
    """Stem of a run's files: safe as a file name whatever the model is called."""
    return "__".join([re.sub(r"[^\w.+-]+", "-", part).strip("-.") or "x" for part in (task, model)]) + (
        f"__seed{seed}__{moment}"
    )


def free_stem(folder: Path, name: str) -> Path:
    """A path in the folder, without ending, that no earlier run has taken."""
    stem, number = folder / name, 1
    while any(folder.glob(f"{stem.name}.*")):
        number += 1
        stem = folder / f"{name}-{number}"
    return stem


def write_record(record: ResultRecord, path: Path) -> None:
    """Writes the record whole or not at all, and never over another.

    Raises:
        RecordError: There is a record already, or the file cannot be written.
    """
    if path.exists():
        raise RecordError(f"{path} exists; records are never overwritten, give another --out")
    text = json.dumps(record.as_json(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    part = path.with_name(path.name + f".part{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.link(part, path)  # fails where another process was quicker, as os.replace would not
        part.unlink()
    except FileExistsError as error:
        part.unlink(missing_ok=True)
        raise RecordError(f"{path} exists; records are never overwritten, give another --out") from error
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RecordError(f"{path} cannot be written ({error}); free some space or give another --out") from error


def read_record(path: Path) -> ResultRecord:
    """Reads a record.

    Raises:
        RecordError: It is no record, lacks a field, or is of a version that this release does not know.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is no result record ({error})") from error
    version = body.get("schema_version") if isinstance(body, dict) else None
    if version != SCHEMA_VERSION:
        raise RecordError(
            f"{path} has schema version {version!r}, this release reads {SCHEMA_VERSION}; "
            + ("install a newer bend-hf" if isinstance(version, int) and version > SCHEMA_VERSION else "run it again")
        )
    missing = [item.name for item in fields(ResultRecord) if item.name not in body]
    if missing:
        raise RecordError(f"{path} lacks {', '.join(missing)}; the file was cut or edited, run it again")
    return ResultRecord(**{item.name: body[item.name] for item in fields(ResultRecord)})


def check_writable(folder: Path) -> None:
    """Makes the folder and tries it, before anything expensive starts.

    Raises:
        RecordError: Nothing can be written there.
    """
    probe = folder / f".probe{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise RecordError(f"--out {folder} cannot be written ({error}); give a folder that can") from error
