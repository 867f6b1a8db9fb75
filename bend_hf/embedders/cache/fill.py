"""Makes the missing shards of an entry, together with whoever else does: ranks, nodes, other jobs.

Each process begins with its share and goes on with what others have not begun; what another one holds is waited for,
and taken over where its maker died. All that processes tell each other lies in the cache's folder, so that no number
of them, and no barrier between them, is agreed on beforehand. A lease only saves double work: should two processes make
one shard all the same, each has files of its own, and the last one renamed stands whole.

>>> order_of([4, 5, 6, 7, 8], rank=1, world=2)
[5, 7, 4, 6, 8]
"""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bend_hf.embedders.cache.estimate import Progress, Report
from bend_hf.embedders.cache.shards import ShardFiles, State
from bend_hf.embedders.cache.writer import Feed, ShardWriter, TokenColumns, no_bars
from bend_hf.errors import CacheError
from bend_hf.lease import Lease, Watch, take

log = logging.getLogger(__name__)

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_POLL_S: Final = (0.05, 2.0)  # first and longest wait for a shard that another process makes


def order_of(numbers: Sequence[int], *, rank: int, world: int) -> list[int]:
    """The shards in the order in which a process tries them: its share first."""
    place = {number: index for index, number in enumerate(numbers)}
    return sorted(numbers, key=lambda number: (place[number] % world != rank, place[number]))


@dataclass(kw_only=True)
class _Tally:
    """Nucleotides and bytes, for the progress reports."""

    report: Report
    total_bp: int
    before_bp: int
    made_bp: int = 0
    made_bytes: int = 0
    others_bp: int = 0
    begun: float = 0.0

    def written(self, nucleotides: int, n_bytes: int) -> None:
        self.made_bp += nucleotides
        self.made_bytes += n_bytes
        self.tell()

    def others(self, nucleotides: int) -> None:
        self.others_bp += nucleotides
        self.tell()

    def tell(self) -> None:
        self.report(
            Progress(
                total_bp=self.total_bp,
                done_bp=min(self.before_bp + self.made_bp + self.others_bp, self.total_bp),
                made_bp=self.made_bp,
                made_bytes=self.made_bytes,
                seconds=time.perf_counter() - self.begun,
                others_bp=self.others_bp,
            )
        )


def missing_shards(shards: Sequence[ShardFiles], *, every_byte: bool = False) -> list[ShardFiles]:
    """Those that are not good; one that was altered is named in the log."""
    found = []
    for files in shards:
        state = files.state(every_byte=every_byte)
        if state is State.ALTERED:
            log.warning("%s was cut or altered (its checksum is another one); it is made again", files.arrow)
        if state is not State.GOOD:
            found.append(files)
    return found


def fill(
    writer: ShardWriter,
    columns: TokenColumns,
    shards: Sequence[ShardFiles],
    *,
    rank: int,
    world: int,
    report: Report,
) -> None:
    """Returns when every one of the shards is good.

    Args:
        writer: Writes one.
        columns: Makes the token rows.
        shards: Which are wanted.
        rank: Which process this is.
        world: Of how many.
        report: Told how far it is.

    Raises:
        CacheError: The disk is full; finished shards are kept.
    """
    missing = missing_shards(shards)
    size_bp = {files.number: writer.nucleotides(files) for files in shards}
    total_bp = sum(size_bp.values())
    before_bp = total_bp - sum(size_bp[files.number] for files in missing)
    tally = _Tally(report=report, total_bp=total_bp, before_bp=before_bp, begun=time.perf_counter())
    tally.tell()
    by_number = {files.number: files for files in missing}
    pending = order_of(sorted(by_number), rank=rank, world=world)
    wait_s = _POLL_S[0]
    with no_bars(), _Maker(writer, columns, tally) as maker:
        while pending:
            left = [number for number in pending if not maker.make(by_number[number])]
            if len(left) == len(pending):
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, _POLL_S[1])
            else:
                wait_s = _POLL_S[0]
            pending = left
    for files in missing:
        if not files.lock.exists():
            files.sweep()  # what was left by processes that were killed when their shard was finished


class _Maker:
    """Embeds shards in this thread and writes them in another; one is finished while the next is embedded."""

    def __init__(self, writer: ShardWriter, columns: TokenColumns, tally: _Tally) -> None:
        self._writer = writer
        self._columns = columns
        self._tally = tally
        self._feed = Feed()
        self._watch = Watch()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write shard")
        self._writing: list[Future[None]] = []

    def __enter__(self) -> _Maker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown()
        if kind is None:
            self._check()

    def make(self, files: ShardFiles) -> bool:
        """Makes a shard, unless it is there; False where another process is at it."""
        if files.state() is State.GOOD:
            self._tally.others(self._writer.nucleotides(files))
            return True
        lease = take(files.lock, self._watch)
        if lease is None:
            return False
        if files.state() is State.GOOD:  # finished between the look and the lease
            lease.release()
            return self.make(files)
        writing = self._thread.submit(self._write, files, lease)
        self._writing.append(writing)
        try:
            for columns in self._columns.of(self._writer.batches(files)):
                self._feed.put(files.number, columns, self._check)
        except BaseException:
            self._feed.stop(writing)
            raise
        return True

    def _write(self, files: ShardFiles, lease: Lease) -> None:
        with lease, _explained(files):
            files.sweep()
            self._writer.write(files, lease.token, self._feed, self._tally.written)

    def _check(self) -> None:
        """Raises what went wrong with the writing of a shard."""
        for future in self._writing:
            if future.done():
                future.result()
        self._writing = [future for future in self._writing if not future.done()]


@contextlib.contextmanager
def _explained(files: ShardFiles) -> Iterator[None]:
    """Says what a failed write means for the cache."""
    try:
        yield
    except CacheError:
        raise
    except Exception as error:
        reason = _os_error(error)
        if reason is None:
            raise
        if reason.errno in _FULL:
            raise CacheError(_full(files.folder, files.of, reason)) from error
        raise CacheError(
            f"{files.arrow} cannot be written ({reason}); finished shards are kept, mend the file system and run the "
            "same command again"
        ) from error


def _os_error(error: BaseException | None) -> OSError | None:
    """The failed write behind an error; `datasets` fails once more when it closes a file after one."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _full(folder: Path, n_shards: int, error: OSError) -> str:
    done = sum(1 for _ in folder.glob("shard-*.json"))
    free = shutil.disk_usage(folder).free
    return (
        f"the disk of {folder} is full ({error.strerror or error}; {free / 1e9:.2f} GB free); {done} of {n_shards} "
        "shards are finished and kept. Free space or give another cache folder, and run the same command again; "
        "--no-cache embeds without a disk"
    )
