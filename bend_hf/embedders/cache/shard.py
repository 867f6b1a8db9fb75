"""One shard on disk: an Arrow file, and beside it a small record that is written last and says that it is whole.

    shard-00003-of-00042.arrow      the rows
    shard-00003-of-00042.json       its size, checksum and counts
    shard-00003-of-00042.lock       while somebody makes it

What makes a shard good: its record is there, and its size and its time of change are those of the record. Where only
the time differs (a copy, or somebody's hand) its checksum is taken, once. So opening a cache costs a look at each
file, and whoever writes into a shard is found out; a disk that changes bits by itself is found by ``cache verify``,
which reads every byte.

>>> ShardFiles(folder=Path("cache"), number=3, of=42).arrow.name
'shard-00003-of-00042.arrow'
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path

from bend_hf.embedders.cache.following import checksum


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
        for pattern in (f"{self.stem}.lock.*", f"{self.stem}.json.*"):
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
        _sync(self.folder)
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
        write_atomically(self.record, json.dumps(asdict(record), indent=1) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Writes a small file so that it is there whole or not at all, also after a power cut."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def _sync(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, as far as the file system knows such a thing."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
