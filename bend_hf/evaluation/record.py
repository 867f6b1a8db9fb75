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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from bend_hf import __version__
from bend_hf.errors import RecordError
from bend_hf.evaluation.record_schema import SCHEMA_VERSION, upgraded, violations
from bend_hf.files import atomic_path, explain_write_errors
from bend_hf.types import Json

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
        metrics: Value, detail and (under ``interval``: low, high, level, method) uncertainty of each metric on the
            test split.
        main_metric: Which of them the task is ranked by.
        coverage: Items scored of items, and the hash of their ids.
        training: Epochs, the best of them, the history of loss and validation metric; None where nothing is trained.
        folds: Metrics of each fold; empty where there are none.
        cost: Seconds, peak memory and cached embeddings in bytes, device, processes.
        predictions: Name and sha256 of the Parquet file beside the record.
        controls: Metrics of each control on the same items, by its name, each with ``metrics`` as above.
        alignment: How tokens became nucleotides, in words; None where there are no tokens, as in a control.
        created_at: Moment of the record, ISO 8601 in UTC; filled when it is made.
        created_with: Versions and commit of what made it; filled when it is written.
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
    controls: dict[str, Json] = field(default_factory=dict)
    alignment: dict[str, Json] | None = None
    created_at: str | None = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    created_with: dict[str, Json] | None = None

    @property
    def value(self) -> float | None:
        """The main metric; None where it is not defined."""
        value = member(self.metrics, self.main_metric, "value")
        return value if isinstance(value, int | float) else None

    @property
    def is_control(self) -> bool:
        """Whether no model was scored, but what needs none: prevalence, composition, k-mers."""
        return self.model.get("family") == "control"

    @property
    def probe(self) -> str:
        """What turns embeddings into predictions: the kind of the head, with what else is trained, or ``zero_shot``."""
        kind, tune = member(self.training, "head", "kind"), self.config.get("tune")
        further = f"_{tune}" if tune not in (None, "head") else ""
        return str(kind).removesuffix("Spec").lower() + further if kind else "zero_shot"

    def as_json(self) -> dict[str, Json]:
        """The record as it is written, with the schema version and the versions of what made it."""
        body = {item.name: jsonable(getattr(self, item.name)) for item in fields(self)}
        made_with = body.pop("created_with") or _versions()
        return {"schema_version": SCHEMA_VERSION, "created_with": made_with, **body}


def member(value: Json, *path: str) -> Json:
    """What stands at a path of keys inside nested objects; None where a key is missing."""
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
    here = Path(__file__).resolve().parents[2]
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
        RecordError: There is a record already, the record breaks its schema, or the file cannot be written.
    """
    if path.exists():
        raise RecordError(f"{path} exists and is never overwritten; give another --out")
    body = record.as_json()
    wrong = violations(body)
    if wrong:
        raise RecordError(f"the record for {path} breaks the schema: {'; '.join(wrong[:5])}; this is a defect")
    text = json.dumps(body, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with explain_write_errors(path), atomic_path(path, overwrite=False) as part:
        part.write_text(text, encoding="utf-8")


def read_record(path: Path) -> ResultRecord:
    """Reads a record of this schema version or an older one.

    Raises:
        RecordError: It is no record, breaks its schema, or is of a version that this release does not know.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is no result record ({error}); give the .json of a run") from error
    try:
        body = upgraded(body)
    except ValueError as error:
        raise RecordError(f"{path} {error}") from error
    wrong = violations(body)
    if wrong:
        raise RecordError(
            f"{path} breaks the schema of result records: {'; '.join(wrong[:5])}; the file was cut or edited, "
            "run it again"
        )
    values: dict[str, Any] = {item.name: body[item.name] for item in fields(ResultRecord) if item.name in body}
    return ResultRecord(**values)


def find_records(places: Sequence[Path]) -> list[Path]:
    """The record files among paths: a file stands for itself, a folder for all ``*.json`` records below it.

    A ``.json`` below a folder that is no record at all (no ``schema_version``) is passed over.

    Raises:
        RecordError: A path is not there, or none of them holds a record.
    """
    found: set[Path] = set()
    for place in places:
        if place.is_dir():
            found |= {path for path in place.rglob("*.json") if _looks_like_a_record(path)}
        elif place.is_file():
            found.add(place)
        else:
            raise RecordError(f"{place} is not there; give a record or a folder of records")
    if not found:
        raise RecordError(f"no result record in {', '.join(map(str, places))}; 'bend-hf train' writes them")
    return sorted(found)


def _looks_like_a_record(path: Path) -> bool:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "__seed" in path.name  # a damaged record must be noticed, another file need not
    return isinstance(body, dict) and "schema_version" in body and "main_metric" in body


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
