"""The result record of a run: one JSON file with everything that is needed to trust a score or to reproduce it.

Model cards, leaderboards and uploads are made from records. A record is never overwritten.

>>> run_name("gene_finding", "onehot", 0, "20260101T000000")
'gene_finding__onehot__seed0__20260101T000000'
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import logging
import math
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from bend_hf import __version__
from bend_hf.errors import InputError, RecordError
from bend_hf.evaluation.record_schema import SCHEMA_VERSION, upgraded
from bend_hf.files import atomic_path, explain_write_errors, file_name, json_sha256, parse_json, read_text, utf8
from bend_hf.types import PROTOCOLS, Json

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

_DEEPEST: Final = 40  # levels of nesting; records have about ten
_LARGEST: Final = 2**1000  # a float holds it
_LARGEST_SPREAD: Final = 1e100  # its square does not overflow

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ResultRecord:
    """The record of one run.

    Attributes:
        task: Task key.
        protocol: Version of the rules: ``bend-2024`` or ``bend-hf-1``.
        model: The embedder's description of itself: key, checkpoint, revision, hashes of what was read, facts, and
            everything that determines its embeddings (``identity``).
        data: Origin, hashes of the files and of the items of each split (``identity``), counts, and how many rows
            were padded or dropped.
        config: The complete resolved configuration.
        metrics: Each metric on the test split by name: ``value``, ``detail`` and, if it has one, ``interval`` (low,
            high, level, method).
        main_metric: The metric that ranks the task.
        coverage: How many items were scored out of how many, and the hash of the items; ``identity`` says what it is
            taken of: ``content``, or row numbers in records that do not say.
        training: Epochs, the best epoch, the history of loss and validation metric; None if nothing is trained.
        folds: Metrics of each fold; empty if there are no folds.
        cost: Seconds, peak memory and cached embeddings in bytes, device, number of processes.
        predictions: Name and sha256 of the Parquet file next to the record; below ``further`` those of further heads.
        controls: Results of each control on the same items by its name, each with ``metrics`` as above.
        alignment: How tokens became nucleotides, in words; None if there are no tokens, as in a control.
        diagnostics: Calibration, scores of parts of the items, contradicting labels; see ``diagnostics.py``. None if
            they are not known.
        kept: Name, sha256 and size of the file with the trained weights next to the record; empty if none were kept.
            None if that is not known.
        strands: How far the predictions of both strands agree, and the score of each and of their average; None if
            the other strand was not predicted.
        layers: If the layers of a model were tried together: which, the validation score of this one, and the interval
            of its test score that holds whichever is chosen; see ``layer_choice``. None if not, or if not known.
        shots: The score by the number of labels, on subsets of the training split; None if no curve was asked for.
        created_at: Time of the record, ISO 8601 in UTC.
        created_with: Versions and git commit of the software; None until the record is written.
        sha256: Hash of all other fields, as ``digest_of`` computes it; None until the record is written, and in
            earlier records.
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
    diagnostics: dict[str, Json] | None = None
    kept: dict[str, Json] | None = None
    strands: dict[str, Json] | None = None
    layers: dict[str, Json] | None = None
    shots: dict[str, Json] | None = None
    created_at: str | None = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    created_with: dict[str, Json] | None = None
    sha256: str | None = field(default=None, compare=False)

    @property
    def value(self) -> float | None:
        """The value of the main metric; None if it is not defined."""
        value = member(self.metrics, self.main_metric, "value")
        return value if isinstance(value, int | float) else None

    @property
    def is_control(self) -> bool:
        """Whether a control was scored that needs no model: prevalence, composition, k-mers."""
        return self.model.get("family") == "control"

    @property
    def probe(self) -> str:
        """The kind of the head, with the name of the fine-tuning if the embedder is trained too; or ``zero_shot``."""
        kind, tune = member(self.training, "head", "kind"), self.config.get("tune")
        further = f"_{tune}" if tune not in (None, "head") else ""
        return str(kind).removesuffix("Spec").lower() + further if kind else "zero_shot"

    @classmethod
    def from_json(cls, body: Json) -> ResultRecord:
        """Make a record from the content of its file.

        Raises:
            RecordError: A field is missing, unknown or malformed, or the schema version is not supported.
        """
        if problems := list(_wrong_form(body)):
            raise RecordError(problems[0])
        body = upgraded(body)
        names = {item.name for item in fields(cls)}
        problems = [f"the record lacks {name!r}" for name in sorted(names - set(body) - {"sha256"})]
        problems += [
            f"the record has an unknown field {name!r}" for name in sorted(set(body) - names - {"schema_version"})
        ]
        if not problems:
            values: dict[str, Any] = {name: body[name] for name in names if name in body}
            record = cls(**values)
            problems = list(_wrong_types(record)) or list(_wrong_values(record))
        if problems:
            raise RecordError("; ".join(problems[:5]))
        return record

    def as_json(self) -> dict[str, Json]:
        """Give the content of the record's file, with the schema version and the versions of the software."""
        body = {item.name: jsonable(getattr(self, item.name)) for item in fields(self)}
        created_with = body.pop("created_with") or _versions()
        whole = {"schema_version": SCHEMA_VERSION, "created_with": created_with, **body}
        return {**whole, "sha256": digest_of(whole)}


def digest_of(body: Mapping[str, Json]) -> str:
    """Hash the content of a record's file, without the entry that holds the hash."""
    return json_sha256({name: value for name, value in body.items() if name != "sha256"})


def edited(path: Path) -> bool:
    """Whether the file of a record was changed since it was written; False if it does not hold its hash."""
    body = _json_of(path)
    stated = body.get("sha256") if isinstance(body, dict) else None
    return isinstance(body, dict) and stated is not None and stated != digest_of(body)


def member(value: Json, *path: str) -> Json:
    """Look up a path of keys in nested objects; None if a key is missing."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _wrong_form(body: Json) -> Iterator[str]:
    """Describe what no record holds and what cannot be written again: endless nesting, numbers and text."""
    waiting: list[tuple[Json, int]] = [(body, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict | list):
            if depth == _DEEPEST:
                yield f"it is nested more than {_DEEPEST} levels deep; expected a result record"
                return
            waiting += [(one, depth + 1) for one in (value.values() if isinstance(value, dict) else value)]
            waiting += [(name, depth + 1) for name in value] if isinstance(value, dict) else []
        elif isinstance(value, str):
            if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
                yield f"{value[:80]!r} holds half of a surrogate pair; expected text that UTF-8 can hold"
        elif isinstance(value, float):
            if not math.isfinite(value):
                yield f"it holds the number {value}; expected finite numbers"
        elif isinstance(value, int) and abs(value) >= _LARGEST:
            yield f"it holds a whole number of {value.bit_length()} bits; expected a number that a float holds"


def _wrong_types(record: ResultRecord) -> Iterator[str]:
    """Describe the fields that do not have the type of their annotation."""
    for item in fields(record):
        value = getattr(record, item.name)
        kind = str(item.type).partition("[")[0].partition(" ")[0]  # "dict[str, Json] | None" is a dict
        optional = str(item.type).endswith("| None")
        if not (isinstance(value, {"str": str, "dict": dict, "list": list}[kind]) or (optional and value is None)):
            expected = {"str": "text", "dict": "an object", "list": "a list"}[kind] + (" or null" if optional else "")
            yield f"{item.name} is {value!r}; expected {expected}"


def _wrong_values(record: ResultRecord) -> Iterator[str]:
    """Describe the values that this package reads from a record and that are missing or malformed."""
    if record.protocol not in PROTOCOLS:
        yield f"protocol is {record.protocol!r}; expected {' or '.join(PROTOCOLS)}"
    if record.created_at is not None and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record.created_at):
        yield f"created_at is {record.created_at!r}; expected a time such as 2026-01-31T12:00:00Z"
    texts = {f"model.{name}": record.model.get(name) for name in ("model", "checkpoint")}
    for place, value in {**texts, "data.origin": record.data.get("origin")}.items():
        if not isinstance(value, str):
            yield f"{place} is {value!r}; expected text"
    yield from _wrong_predictions(record.predictions)
    yield from _wrong_file(record.kept, "kept.")
    seed = record.config.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        yield f"config.seed is {seed!r}; expected a whole number"
    yield from _wrong_counts_and_hashes(record)
    yield from _wrong_metrics(record.metrics, "metrics")
    for index, fold in enumerate(record.folds):
        yield from _wrong_metrics(member(fold, "metrics"), f"folds[{index}].metrics")
    for name, control in record.controls.items():
        yield from _wrong_metrics(member(control, "metrics"), f"controls.{name}.metrics")


def _wrong_predictions(predictions: dict[str, Json]) -> Iterator[str]:
    further = predictions.get("further")
    for place, entry in {"": predictions, **{f"further.{k}.": v for k, v in _entries(further)}}.items():
        yield from _wrong_file(entry, f"predictions.{place}")


def _wrong_file(entry: Json, place: str) -> Iterator[str]:
    """Describe what is wrong with the entry of a file next to the record."""
    file, digest = member(entry, "file"), member(entry, "sha256")
    if file is not None and not (isinstance(file, str) and file and Path(file).name == file and "\0" not in file):
        yield f"{place}file is {file!r}; expected the name of a file next to the record"
    if digest is not None and not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)):
        yield f"{place}sha256 is {digest!r}; expected a sha256 in hexadecimal"


def _wrong_counts_and_hashes(record: ResultRecord) -> Iterator[str]:
    coverage, data = record.coverage, record.data
    counts = {f"coverage.{name}": coverage.get(name) for name in ("scored", "items")}
    counts |= {f"data.items.{split}": n for split, n in _entries(data.get("items"))}
    wrong = {
        place: value
        for place, value in counts.items()
        if not isinstance(value, int) or isinstance(value, bool) or value < 0
    }
    for place, value in wrong.items():
        yield f"{place} is {value!r}; expected a whole number from 0 on"
    if not wrong and coverage["scored"] > coverage["items"]:  # type: ignore[operator]
        yield f"coverage.scored is {coverage['scored']}; expected at most the {coverage['items']} items"
    hashes = {"coverage.item_sha256": coverage.get("item_sha256")}
    hashes |= {f"data.identity.{split}": value for split, value in _entries(data.get("identity"))}
    hashes |= {f"data.files.{name}.sha256": member(file, "sha256") for name, file in _entries(data.get("files"))}
    for name in ("weights_sha256", "configuration_sha256", "code_sha256"):
        if record.model.get(name) is not None:  # older records lack them
            hashes[f"model.{name}"] = record.model[name]
    for place, value in hashes.items():
        if not (isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)):
            yield f"{place} is {value!r}; expected a sha256 in hexadecimal"


def _entries(value: Json) -> list[tuple[str, Json]]:
    return list(value.items()) if isinstance(value, dict) else []


def _wrong_metrics(metrics: Json, where: str) -> Iterator[str]:
    if not isinstance(metrics, dict):
        yield f"{where} is {metrics!r}; expected an object"
        return
    for name, metric in metrics.items():
        if not isinstance(metric, dict) or "value" not in metric:
            yield f"{where}.{name} is {metric!r}; expected an object with a value"
            continue
        numbers = {f"{where}.{name}.value": metric["value"]}
        if (interval := metric.get("interval")) is not None:
            numbers |= {f"{where}.{name}.interval.{end}": member(interval, end) for end in ("low", "high", "level")}
            for key in sorted({"low", "high", "level", "method"} - dict(_entries(interval)).keys()):
                yield f"{where}.{name}.interval lacks {key!r}"
            yield from _wrong_spread(interval, f"{where}.{name}.interval")
        for place, number in numbers.items():
            if number is not None and not _is_number(number):
                yield f"{place} is {number!r}; expected a number or null"


def _wrong_spread(interval: Json, where: str) -> Iterator[str]:
    """Describe the numbers behind an interval that none can have; older records lack some of them."""
    level = member(interval, "level")
    if _is_number(level) and not 0 < level < 1:  # type: ignore[operator]
        yield f"{where}.level is {level!r}; expected a number between 0 and 1, such as 0.95"
    for key in ("standard_error", "degrees_of_freedom"):
        number = member(interval, key)
        if number is not None and not (_is_number(number) and 0 <= number < _LARGEST_SPREAD):  # type: ignore[operator]
            yield f"{where}.{key} is {number!r}; expected null or a number from 0 on"


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def jsonable(value: object) -> Json:
    """Convert a value to JSON.

    Dataclasses become objects with their ``kind``, paths text, NumPy arrays lists, nan and infinity null. Bytes of a
    file name that are not UTF-8 become escapes.

    Raises:
        RecordError: The value has no form in JSON.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "kind": type(value).__name__,
            **{f.name: jsonable(getattr(value, f.name)) for f in fields(value)},
        }
    if isinstance(value, Mapping):
        return {utf8(str(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, str):
        return utf8(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # an array or a number of NumPy
        return jsonable(value.tolist())
    if isinstance(value, Path):
        return utf8(str(value))
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
    """The commit of the checkout that this package runs from, with ``-dirty`` appended if files were changed."""
    checkout = Path(__file__).resolve().parents[2]
    git = shutil.which("git")
    if git is None or not (checkout / ".git").exists():
        return None
    try:
        done = subprocess.run(  # noqa: S603 - the arguments are fixed
            [git, "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def run_name(task: str, model: str, seed: int, moment: str) -> str:
    """Name a run's files, without their endings. The name is safe for file systems, whatever the model is called.

    >>> len(run_name("a" * 240, "b" * 240, 0, "20260101T000000"))
    146
    """
    return f"{file_name(task)}__{file_name(model)}__seed{seed}__{moment}"


def free_stem(folder: Path, name: str) -> Path:
    """Take a path in a folder, without ending, that no other run has taken or takes.

    The path is taken by creating an empty prediction file, which ``write_predictions`` replaces. Of several processes
    that ask at once for one name, each gets a path of its own. Call it in one process of a run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        stem = folder / (name if number == 1 else f"{name}-{number}")
        if any(folder.glob(f"{glob.escape(stem.name)}.*")):
            continue
        with contextlib.suppress(FileExistsError):
            stem.with_name(stem.name + ".parquet").open("xb").close()
            break
    return stem


def write_record(record: ResultRecord, path: Path) -> None:
    """Write a record atomically. An existing file is never overwritten.

    Raises:
        RecordError: The file exists or cannot be written, or a field of the record is malformed.
    """
    if path.exists():
        raise RecordError(f"{path} exists and is never overwritten; give another --out")
    body = record.as_json()
    try:
        ResultRecord.from_json(body)
    except RecordError as error:
        raise RecordError(f"the record for {path} is malformed: {error}. This is a defect of bend_hf") from error
    text = _text(body)
    with explain_write_errors(path), atomic_path(path, overwrite=False) as part:
        part.write_text(text, encoding="utf-8")


def record_text(record: ResultRecord) -> str:
    """Write the content of a record's file, with its hash."""
    return _text(record.as_json())


def _text(body: Mapping[str, Json]) -> str:
    return json.dumps(body, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def read_record(path: Path) -> ResultRecord:
    """Read a record of this schema version or an older one.

    Raises:
        RecordError: The file is not a record, a field is malformed, or the schema version is not supported.
    """
    try:
        body = _json_of(path)
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is not a result record ({error}); give the .json of a run") from error
    try:
        return ResultRecord.from_json(body)
    except RecordError as error:
        raise RecordError(f"{path}: {error}. Repeat the run if the file was cut or edited") from error


def _json_of(path: Path) -> Json:
    try:
        body: Json = parse_json(read_text(path))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except InputError as error:
        raise ValueError(str(error)) from error
    return body


def find_records(places: Sequence[Path]) -> list[Path]:
    """Find the record files among paths: a file is taken as it is, a folder is searched for ``*.json``.

    In folders, a ``.json`` file of something else is left out, with a line in the log if it could be mistaken for a
    record. A file that is named as records are is never left out.

    Raises:
        RecordError: A path does not exist, or there is no record.
    """
    found: set[Path] = set()
    for place in places:
        if place.is_dir():
            found |= {path for path in sorted(place.rglob("*.json")) if path.is_file() and is_record(path)}
        elif place.is_file():
            found.add(place)
        else:
            raise RecordError(f"{place} does not exist; give a record or a folder of records")
    if not found:
        raise RecordError(f"no result record in {', '.join(map(str, places))}; 'bend-hf train' writes them")
    return sorted(found)


def is_record(path: Path) -> bool:
    """Whether a file is a record, or a damaged one by its name; logs a line for a file that could be mistaken."""
    named_as_one = "__seed" in path.name  # a damaged record must be reported, another file need not
    try:
        body = _json_of(path)
    except (OSError, ValueError) as error:
        if not named_as_one:
            logger.warning("%s is left out: it is not a result record (%s)", path, error)
        return named_as_one
    if not isinstance(body, dict) or not {"schema_version", "main_metric"} <= set(body):
        return False
    if named_as_one:
        return True
    try:
        ResultRecord.from_json(body)
    except RecordError as error:
        logger.warning("%s is left out: it is not a result record (%s)", path, error)
        return False
    return True


_TRIAL_BYTES: Final = 1 << 20  # more than a record takes; predictions and checkpoints may take more


def check_writable(folder: Path) -> None:
    """Make a folder and check that files can be written there, before anything expensive starts.

    Raises:
        RecordError: Nothing can be written there.
    """
    trial = folder / f".writable.part{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            trial.write_bytes(bytes(_TRIAL_BYTES))
        finally:
            trial.unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(
            f"--out {folder} cannot be written ({error}); give another folder, or free some space there"
        ) from error
