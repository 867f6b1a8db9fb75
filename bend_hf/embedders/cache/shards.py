"""How the embeddings of one dataset are cut into shards, and the files of a shard.

    <cache>/<model>-<dtype>-<key>/about.json              the plan, written once so that every process cuts alike
                                 /shard-00003-of-00042.arrow   the embeddings, with labels and coordinates
                                 /shard-00003-of-00042.json    the shard's record: size, checksum and counts
                                 /shard-00003-of-00042.lock    exists while a process fills the shard
                                 /state.json, dataset_info.json    for datasets.load_from_disk, once all are finished

The record is written last. A shard is good if its record exists and holds the file's size, times of modification and
change, and inode. If only those differ (the file was copied or edited, with or without its time put back), the checksum
is computed once. Opening a cache therefore costs one look at each file, and an edited shard is noticed. Bits that a
disk changed are found by ``bend-hf cache verify``, which reads every byte.

>>> shard_starts(np.array([300, 300, 300, 300]), shard_bp=600).tolist()
[0, 2, 4]
>>> ShardFiles(folder=Path("cache"), number=3, of=42).arrow.name
'shard-00003-of-00042.arrow'
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Final

import numpy as np
import xxhash

from bend_hf.embedders._loaded_model import Fact
from bend_hf.embedders.cache.dtypes import itemsize
from bend_hf.errors import CacheError
from bend_hf.files import atomic_path, parse_json, sync_folder
from bend_hf.types import Ints, Json, StoredDtype

ABOUT: Final = "about.json"
STATE: Final = "state.json"  # datasets.config.DATASET_STATE_JSON_FILENAME; see as_dataset
SHARD_BYTES: Final = 1 << 29  # an interrupted process loses at most one shard of work
_MOST_SHARDS: Final = 256  # each holds a file open while it is read; 1,024 is a usual limit
# Embeddings in a record batch: few enough that memory which was just filled is still in the processor's cache when it
# is written, and that embedding and writing overlap; enough that the cost per batch is small.
_BATCH_BYTES: Final = 1 << 24
_FURTHER_BYTES_PER_BP: Final = 9  # at most: a label of 8 bytes per nucleotide, coordinates


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """How one dataset's embeddings are stored; the content of ``about.json``.

    Attributes:
        key: Hash of everything that affects the embeddings, see ``key_of``.
        parts: What the key is made of, for people.
        label: Name of the data, for people.
        model: Name of the model, for people.
        dtype: How embeddings are stored.
        width: Width of an embedding.
        items: Number of sequences.
        nucleotides: Nucleotides of all sequences.
        shard_starts: First item of each shard, and the number of items at the end.
        rows_per_bp: Token embeddings per nucleotide, estimated from some sequences.
        description: What only the loaded model knows about itself, for result records; see ``LoadedModel.recall``.
        alignment: How its tokens become nucleotides, by checksum of the sequences on which it was measured.
        libraries: Versions of the libraries that compute embeddings; they are no part of the key.
    """

    key: str
    parts: dict[str, str]
    label: str
    model: str
    dtype: StoredDtype
    width: int
    items: int
    nucleotides: int
    shard_starts: tuple[int, ...]
    rows_per_bp: float
    description: dict[str, Fact] = field(default_factory=dict)
    alignment: dict[str, dict[str, Json]] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return len(self.shard_starts) - 1

    def estimate_bytes(self, n_bp: int) -> int:
        """Estimate the stored size of that many nucleotides."""
        return int(n_bp * (self.rows_per_bp * embedding_bytes(self.width, self.dtype) + _FURTHER_BYTES_PER_BP))

    def items_per_batch(self, lengths_bp: Ints) -> int:
        """Choose how many items of a shard make a record batch.

        Args:
            lengths_bp: Nucleotides of the shard's items, shape (n,).
        """
        mean_bytes = self.estimate_bytes(int(lengths_bp.sum())) / max(len(lengths_bp), 1)
        return max(1, int(_BATCH_BYTES // max(mean_bytes, 1)))


def embedding_bytes(width: int, dtype: StoredDtype) -> int:
    """Return the bytes of one stored token: its embedding and its length in nucleotides."""
    return width * itemsize(dtype) + 4


def entry_folder(cache: Path, model: str, dtype: StoredDtype, key: str) -> Path:
    """Return the folder of the embeddings with that key; its name starts with words for people."""
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", model).strip("-.")[-40:] or "model"
    return cache / f"{plain}-{dtype}-{key}"


def shard_starts(lengths_bp: Ints, *, shard_bp: int) -> Ints:
    """Cut items into contiguous shards with about equal nucleotides, none of them empty.

    Args:
        lengths_bp: Nucleotides of each item, shape (n,).
        shard_bp: Wanted nucleotides of a shard.

    Returns:
        First item of each shard, and n at the end, shape (shards + 1,).
    """
    ends = np.cumsum(lengths_bp)
    total = int(ends[-1]) if len(ends) else 0
    n_shards = max(1, min(-(-total // max(shard_bp, 1)), len(ends), _MOST_SHARDS))
    inner = np.searchsorted(ends, np.arange(1, n_shards) * total / n_shards, side="left") + 1
    return np.unique(np.concatenate([[0], inner, [len(ends)]])).astype(np.int64)


def read_plan(folder: Path) -> ShardPlan | None:
    """Read the plan of a cache entry; None before it is written.

    Raises:
        CacheError: The plan exists but cannot be read.
    """
    path = folder / ABOUT
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        plan = ShardPlan(**{**found, "shard_starts": tuple(found["shard_starts"])})
        if problem := _wrong_in(plan):
            raise ValueError(problem)
        return plan
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheError(
            f"{path} cannot be read ({error}). Remove the folder {folder} ('bend-hf cache prune --broken'); its "
            "embeddings will be computed again."
        ) from error


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _wrong_in(plan: ShardPlan) -> str | None:
    """Describe a field of a plan that holds another kind of value."""
    for name in ("key", "label", "model", "dtype"):
        if not isinstance(getattr(plan, name), str):
            return f"{name} is {getattr(plan, name)!r}; expected text"
    for name in ("width", "items", "nucleotides"):
        if not _is_count(getattr(plan, name)):
            return f"{name} is {getattr(plan, name)!r}; expected a count"
    starts = plan.shard_starts
    if not all(map(_is_count, starts)) or list(starts) != sorted(starts) or not 0 < len(starts) <= _MOST_SHARDS + 1:
        return f"shard_starts is {starts!r:.80}; expected rising numbers of items"
    if isinstance(plan.rows_per_bp, bool) or not isinstance(plan.rows_per_bp, int | float):
        return f"rows_per_bp is {plan.rows_per_bp!r}; expected a number"
    for name in ("parts", "description", "alignment", "libraries"):
        if not isinstance(getattr(plan, name), dict):
            return f"{name} is {getattr(plan, name)!r:.80}; expected an object"
    return None


def publish_plan(folder: Path, plan: ShardPlan) -> ShardPlan:
    """Write a plan unless there is one, and return the one that exists: the first of several writers wins."""
    path = folder / ABOUT
    # Another process may have published its plan, and have removed this one's temporary file.
    with (
        contextlib.suppress(FileExistsError, FileNotFoundError),
        atomic_path(path, overwrite=False, durable=True) as part,
    ):
        part.write_text(json.dumps(asdict(plan), indent=1), encoding="utf-8")
    remove_unpublished(folder)
    published = read_plan(folder)
    if published is None:
        raise CacheError(f"{path} was removed while it was written; is this cache being pruned? Run again.")
    return published


def remove_unpublished(folder: Path) -> None:
    """Remove what a process left that was killed while it published a plan."""
    for left in folder.glob(f".{ABOUT}.part*"):
        left.unlink(missing_ok=True)


class State(Enum):
    """State of a shard."""

    GOOD = "good"
    MISSING = "missing"
    ALTERED = "altered"


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """The record of a finished shard.

    Attributes:
        size_bytes: Size of the Arrow file.
        xxh3_128: Its checksum.
        changed_ns: Its modification time when the checksum was last known to be right.
        items: Number of sequences.
        rows: Number of token embeddings.
        nucleotides: Number of nucleotides that they cover.
        state: Its inode and its time of change, in nanoseconds, when the checksum was last known to be right; None in
            records of earlier releases.
    """

    size_bytes: int
    xxh3_128: str
    changed_ns: int
    items: int
    rows: int
    nucleotides: int
    state: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class ShardFiles:
    """The files of shard ``number`` of ``of``."""

    folder: Path
    number: int
    of: int

    @classmethod
    def of_entry(cls, folder: Path, n_shards: int) -> list[ShardFiles]:
        """List all shards of a cache entry."""
        return [cls(folder=folder, number=number, of=n_shards) for number in range(n_shards)]

    @property
    def stem(self) -> str:
        """The common beginning of the file names."""
        return f"shard-{self.number:05d}-of-{self.of:05d}"

    @property
    def arrow(self) -> Path:
        """The embeddings."""
        return self.folder / f"{self.stem}.arrow"

    @property
    def record(self) -> Path:
        """The record, which exists if the shard is finished."""
        return self.folder / f"{self.stem}.json"

    @property
    def lock(self) -> Path:
        """The lease of the process that fills the shard."""
        return self.folder / f"{self.stem}.lock"

    def work_folder(self, token: str) -> Path:
        """Return the folder for the unfinished files of the process with that lease."""
        return self.folder / f"{self.stem}.{token}.part"

    def sweep(self) -> None:
        """Remove what killed processes left; only the holder of the lock may call it."""
        for left in self.folder.glob(f"{self.stem}.*.part"):
            shutil.rmtree(left, ignore_errors=True)
        for pattern in (f"{self.stem}.lock.*", f".{self.stem}.json.part*"):
            for left in self.folder.glob(pattern):
                with contextlib.suppress(OSError):
                    left.unlink()

    def read_record(self) -> ShardRecord | None:
        """Read the record; None if it is missing or truncated."""
        try:
            body = parse_json(self.record.read_text(encoding="utf-8"))
            state = body.get("state")
            record = ShardRecord(**{**body, "state": None if state is None else tuple(state)})
            counts = (record.size_bytes, record.changed_ns, record.items, record.rows, record.nucleotides)
            return record if all(map(_is_count, counts)) else None
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return None

    def state(self, *, every_byte: bool = False) -> State:
        """Check the shard.

        Args:
            every_byte: Compute the checksum even if size, times and inode are right.
        """
        record = self.read_record()
        try:
            stat = self.arrow.stat()
        except FileNotFoundError:
            return State.MISSING
        if record is None:
            return State.MISSING  # not finished: the record is written last
        if stat.st_size != record.size_bytes:
            return State.ALTERED
        now = replace(record, changed_ns=stat.st_mtime_ns, state=(stat.st_ino, stat.st_ctime_ns))
        if now == record and not every_byte:
            return State.GOOD
        if checksum(self.arrow) != record.xxh3_128:
            return State.ALTERED
        if now != record:
            with contextlib.suppress(OSError):  # another user's cache may be read-only
                self._write_record(now)
        return State.GOOD

    def finish(self, written: Path, *, items: int, rows: int, nucleotides: int) -> ShardRecord:
        """Flush and hash a written Arrow file, give it its name and write its record, in an order safe in a power cut.

        Args:
            written: The file, in the work folder.
            items: Number of sequences.
            rows: Number of token embeddings.
            nucleotides: Number of nucleotides that they cover.

        Raises:
            OSError: The file did not reach the disk.
        """
        self.record.unlink(missing_ok=True)
        with written.open("rb") as file, ThreadPoolExecutor(1, thread_name_prefix="flush shard") as thread:
            flushed = thread.submit(os.fsync, file.fileno())  # the disk writes while the processor hashes
            digest = checksum(written)
            flushed.result()
        written.replace(self.arrow)
        sync_folder(self.folder)
        stat = self.arrow.stat()
        record = ShardRecord(
            size_bytes=stat.st_size,
            xxh3_128=digest,
            changed_ns=stat.st_mtime_ns,
            items=items,
            rows=rows,
            nucleotides=nucleotides,
            state=(stat.st_ino, stat.st_ctime_ns),
        )
        self._write_record(record)
        return record

    def remove(self) -> None:
        """Remove the files; the record first, so that a shard without its embeddings is never taken for good."""
        for path in (self.folder / STATE, self.record, self.arrow, self.lock):
            with contextlib.suppress(OSError):
                path.unlink()
        self.sweep()

    def _write_record(self, record: ShardRecord) -> None:
        with atomic_path(self.record, durable=True) as part:
            part.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")


def checksum(path: Path) -> str:
    """Compute the xxh3 checksum of a file, 128 bits in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
