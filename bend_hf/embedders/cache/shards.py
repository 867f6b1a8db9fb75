"""How one dataset's embeddings are cut into shards; written once, so that every process cuts alike.

    <cache>/<model>-<dtype>-<key>/about.json

>>> shard_starts(np.array([300, 300, 300, 300]), shard_bp=600).tolist()
[0, 2, 4]

One shard on disk: an Arrow file, and beside it a small record that is written last and says that it is whole.

    shard-00003-of-00042.arrow      the rows
    shard-00003-of-00042.json       its size, checksum and counts
    shard-00003-of-00042.lock       while somebody makes it

What makes a shard good: its record is there, and its size and its time of change are those of the record. Where only
the time differs (a copy, or somebody's hand) its checksum is taken, once. So opening a cache costs a look at each
file, and whoever writes into a shard is found out; a disk that changes bits by itself is found by ``cache verify``,
which reads every byte.

>>> ShardFiles(folder=Path("cache"), number=3, of=42).arrow.name
'shard-00003-of-00042.arrow'

Takes a file's checksum and flushes it to the disk while another thread still writes it.

A file that is summed and flushed when it is whole keeps its writer waiting for as long as the writing took. Here both
run behind the writer, in threads of their own, and little is left to do at the end.

>>> import tempfile; folder = Path(tempfile.mkdtemp())
>>> with Follower(folder) as follower:
...     n_written = (folder / "made.arrow").write_bytes(b"ACGT")
...     follower.look()
...     follower.finish(folder / "made.arrow") == xxhash.xxh3_128_hexdigest(b"ACGT")
True
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

import numpy as np
import xxhash

from bend_hf.embedders.cache.dtypes import itemsize
from bend_hf.errors import CacheError
from bend_hf.files import atomic_path, sync_folder
from bend_hf.types import Ints, StoredDtype

_BYTES_A_READ: Final = 1 << 20  # few enough to be in the processor's cache when they are summed
_FLUSHED_BYTES: Final = 1 << 26  # a flush for less costs the disk more than it saves at the end


class Checksum:
    """The running xxh3 checksum, 128 bits, of a file that grows at its end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._running = xxhash.xxh3_128()
        self._n_read = 0
        self._buffer = memoryview(bytearray(_BYTES_A_READ))

    def advance(self) -> None:
        """Takes in what was written since."""
        while n_read := os.preadv(self._descriptor, [self._buffer], self._n_read):
            self._running.update(self._buffer[:n_read])
            self._n_read += n_read

    def hexdigest(self) -> str:
        """Of what was taken in."""
        return self._running.hexdigest()


def checksum(path: Path) -> str:
    """The checksum of a file, as fast as it can be read."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        running = Checksum(descriptor)
        running.advance()
        return running.hexdigest()
    finally:
        os.close(descriptor)


class Follower:
    """Follows the one file of a folder, whose bytes are final once they are written.

    Args:
        folder: Where the file is, or will be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="follow shard")
        self._descriptor: int | None = None
        self._at_work: list[Future[None]] = []

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        self._close()

    def look(self) -> None:
        """Goes on with what is written by now, and returns at once.

        Raises:
            OSError: What was written did not reach the disk.
        """
        if self._descriptor is None and not self._find():
            return
        for place, work in enumerate((self._sum, self._flush)):
            if self._at_work[place].done():
                self._at_work[place].result()
                self._at_work[place] = self._threads.submit(work)

    def finish(self, path: Path) -> str:
        """Waits until all of the file is summed and on the disk, and returns its checksum.

        Args:
            path: The finished file; the one that was followed, under whatever name, or another one.

        Raises:
            OSError: It did not reach the disk.
        """
        for future in self._at_work:
            future.result()
        if self._descriptor is None or not os.path.samestat(os.fstat(self._descriptor), path.stat()):
            self._follow(path)
        assert self._descriptor is not None
        flushed = self._threads.submit(os.fsync, self._descriptor)
        self._checksum.advance()
        flushed.result()
        return self._checksum.hexdigest()

    def _find(self) -> bool:
        """Whether the file is there."""
        found = list(self._folder.iterdir())
        if len(found) == 1:
            self._follow(found[0])
        return len(found) == 1

    def _follow(self, path: Path) -> None:
        self._close()
        self._descriptor = os.open(path, os.O_RDONLY)
        self._checksum = Checksum(self._descriptor)
        self._n_flushed = 0
        self._at_work = [_done(), _done()]

    def _sum(self) -> None:
        self._checksum.advance()

    def _flush(self) -> None:
        assert self._descriptor is not None
        n_written = os.fstat(self._descriptor).st_size
        if n_written - self._n_flushed >= _FLUSHED_BYTES:
            os.fsync(self._descriptor)
            self._n_flushed = n_written

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _done() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


class State(Enum):
    """What a look at a shard found."""

    GOOD = "good"
    MISSING = "missing"
    ALTERED = "altered"


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """What a finished shard is.

    Attributes:
        size_bytes: Of the Arrow file.
        xxh3_128: Its checksum.
        changed_ns: Its time of change when the checksum was last known to be right.
        items: Sequences in it.
        rows: Token rows in it.
        nucleotides: That the rows stand for.
    """

    size_bytes: int
    xxh3_128: str
    changed_ns: int
    items: int
    rows: int
    nucleotides: int


@dataclass(frozen=True, kw_only=True)
class ShardFiles:
    """Where a shard lies."""

    folder: Path
    number: int
    of: int

    @property
    def stem(self) -> str:
        """What its files' names begin with."""
        return f"shard-{self.number:05d}-of-{self.of:05d}"

    @property
    def arrow(self) -> Path:
        """The rows."""
        return self.folder / f"{self.stem}.arrow"

    @property
    def record(self) -> Path:
        """What says that it is whole."""
        return self.folder / f"{self.stem}.json"

    @property
    def lock(self) -> Path:
        """There while somebody makes it."""
        return self.folder / f"{self.stem}.lock"

    def workplace(self, token: str) -> Path:
        """A folder for what is not finished."""
        return self.folder / f"{self.stem}.{token}.part"

    def sweep(self) -> None:
        """Removes what killed processes left; for the holder of the lock."""
        for left in self.folder.glob(f"{self.stem}.*.part"):
            shutil.rmtree(left, ignore_errors=True)
        for pattern in (f"{self.stem}.lock.*", f".{self.stem}.json.part*"):
            for left in self.folder.glob(pattern):
                with contextlib.suppress(OSError):
                    left.unlink()

    def read_record(self) -> ShardRecord | None:
        """Its record; None where it is missing or cut."""
        try:
            return ShardRecord(**json.loads(self.record.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def state(self, *, every_byte: bool = False) -> State:
        """Whether it is good.

        Args:
            every_byte: Take its checksum even where size and time of change are right.
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
        if stat.st_mtime_ns == record.changed_ns and not every_byte:
            return State.GOOD
        if checksum(self.arrow) != record.xxh3_128:
            return State.ALTERED
        if stat.st_mtime_ns != record.changed_ns:
            with contextlib.suppress(OSError):  # somebody else's cache may be read-only
                self._write_record(replace(record, changed_ns=stat.st_mtime_ns))
        return State.GOOD

    def finish(self, made: Path, *, digest: str, items: int, rows: int, nucleotides: int) -> ShardRecord:
        """Gives a made Arrow file its name, and writes its record; after this a power cut does not harm it.

        Args:
            made: The file, which is on the disk already.
            digest: Its checksum.
            items: Sequences in it.
            rows: Token rows in it.
            nucleotides: That the rows stand for.
        """
        self.record.unlink(missing_ok=True)
        made.replace(self.arrow)
        sync_folder(self.folder)
        stat = self.arrow.stat()
        record = ShardRecord(
            size_bytes=stat.st_size,
            xxh3_128=digest,
            changed_ns=stat.st_mtime_ns,
            items=items,
            rows=rows,
            nucleotides=nucleotides,
        )
        self._write_record(record)
        return record

    def remove(self) -> int:
        """Removes its files; the record first, so that a shard is never believed without its rows. Gives the bytes."""
        size = 0
        for path in (self.record, self.arrow, self.lock):
            with contextlib.suppress(OSError):
                size += path.stat().st_size
                path.unlink()
        self.sweep()
        return size

    def _write_record(self, record: ShardRecord) -> None:
        with atomic_path(self.record, durable=True) as part:
            part.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")


ABOUT: Final = "about.json"
SHARD_BYTES: Final = 1 << 29  # a kill costs at most one shard of work
_MOST_SHARDS: Final = 256  # each holds a file open while it is read; 1,024 is a usual limit
# Of token rows in a record batch: few enough that memory which was just filled is still in the processor's cache when
# it is written, and that filling, writing and flushing overlap; enough that what a batch costs by itself is little.
_BATCH_BYTES: Final = 1 << 24


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """One keyed folder of the cache.

    Attributes:
        key: See ``key_of``.
        parts: What the key is made of, for people.
        label: What the data are called, for people.
        model: What the model is called, for people.
        dtype: How rows are stored.
        width: Numbers in a row.
        items: Sequences in all.
        nucleotides: In all sequences.
        shard_starts: First item of each shard, and behind the last one the number of items.
        rows_per_bp: Token rows a nucleotide, estimated from some sequences.
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

    @property
    def n_shards(self) -> int:
        """How many."""
        return len(self.shard_starts) - 1

    def forecast_bytes(self, nucleotides: int) -> int:
        """About how many bytes so many nucleotides take."""
        return int(nucleotides * (self.rows_per_bp * row_bytes(self.width, self.dtype) + _BESIDE_BYTES_PER_BP))


_BESIDE_BYTES_PER_BP: Final = 9  # at most: a label of 8 bytes a nucleotide, coordinates


def row_bytes(width: int, dtype: StoredDtype) -> int:
    """Bytes of one token: its numbers and its length in nucleotides."""
    return width * itemsize(dtype) + 4


def entry_folder(cache: Path, model: str, dtype: StoredDtype, key: str) -> Path:
    """Where embeddings of that key lie; the name's beginning is for people."""
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", model).strip("-.")[-40:] or "model"
    return cache / f"{plain}-{dtype}-{key}"


def shard_files(folder: Path, n_shards: int) -> list[ShardFiles]:
    """All shards of an entry."""
    return [ShardFiles(folder=folder, number=number, of=n_shards) for number in range(n_shards)]


def shard_starts(lengths_bp: Ints, *, shard_bp: int) -> Ints:
    """Cuts items into contiguous shards of about equal nucleotides, none of them empty.

    Args:
        lengths_bp: Nucleotides of each item, shape (n,).
        shard_bp: Nucleotides of a shard, about.

    Returns:
        First item of each shard and n, shape (shards + 1,).
    """
    ends = np.cumsum(lengths_bp)
    total = int(ends[-1]) if len(ends) else 0
    n_shards = max(1, min(-(-total // max(shard_bp, 1)), len(ends), _MOST_SHARDS))
    inner = np.searchsorted(ends, np.arange(1, n_shards) * total / n_shards, side="left") + 1
    return np.unique(np.concatenate([[0], inner, [len(ends)]])).astype(np.int64)


def batch_items(plan: ShardPlan, lengths_bp: Ints) -> int:
    """How many items of a shard make a record batch.

    Args:
        plan: The entry's.
        lengths_bp: Nucleotides of the shard's items, shape (n,).
    """
    mean_bytes = plan.forecast_bytes(int(lengths_bp.sum())) / max(len(lengths_bp), 1)
    return max(1, int(_BATCH_BYTES // max(mean_bytes, 1)))


def read_plan(folder: Path) -> ShardPlan | None:
    """The plan of an entry; None where none is there yet.

    Raises:
        CacheError: It is there, but cannot be read.
    """
    path = folder / ABOUT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return ShardPlan(**{**found, "shard_starts": tuple(found["shard_starts"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheError(
            f"{path} cannot be read ({error}); remove the folder {folder} ('bend-hf cache prune --broken'), its "
            "embeddings are made again"
        ) from error


def publish_plan(folder: Path, plan: ShardPlan) -> ShardPlan:
    """Writes a plan unless there is one, and returns the one that is there: of several writers the first wins."""
    path = folder / ABOUT
    # Another process may have published its plan, and have tidied up this one's temporary file.
    with suppress(FileExistsError, FileNotFoundError), atomic_path(path, overwrite=False, durable=True) as part:
        part.write_text(json.dumps(asdict(plan), indent=1), encoding="utf-8")
    tidy(folder)
    published = read_plan(folder)
    if published is None:
        raise CacheError(f"{path} was removed while it was written; does somebody prune this cache? Run again")
    return published


def tidy(folder: Path) -> None:
    """Removes what a process that was killed while it published a plan has left beside the plan that there is now."""
    for left in folder.glob(f".{ABOUT}.part*"):
        left.unlink(missing_ok=True)
