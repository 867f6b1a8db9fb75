"""Makes the missing shards of an entry, together with whoever else does: ranks, nodes, other jobs.

Each process begins with its share and goes on with what others have not begun; what another one holds is waited for,
and taken over where its maker died. All that processes tell each other lies in the cache's folder, so that no number
of them, and no barrier between them, is agreed on beforehand.

>>> order_of([4, 5, 6, 7, 8], rank=1, world=2)
[5, 7, 4, 6, 8]
"""

from __future__ import annotations

import errno
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bend_hf.cache.errors import CacheError
from bend_hf.cache.lease import Lease, Watch, take
from bend_hf.cache.progress import Progress, Report
from bend_hf.cache.shard import ShardFiles, State
from bend_hf.cache.writer import MadeShard, ShardWriter

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

    writer: ShardWriter
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


def fill(writer: ShardWriter, shards: Sequence[ShardFiles], *, rank: int, world: int, report: Report) -> None:
    """Returns when every one of the shards is good.

    Args:
        writer: Makes one.
        shards: Which are wanted.
        rank: Which process this is.
        world: Of how many.
        report: Told how far it is.

    Raises:
        CacheError: The disk is full; finished shards are kept.
    """
    missing = missing_shards(shards)
    size_bp = {files.number: _nucleotides(writer, files) for files in shards}
    total_bp = sum(size_bp.values())
    before_bp = total_bp - sum(size_bp[files.number] for files in missing)
    tally = _Tally(writer=writer, report=report, total_bp=total_bp, before_bp=before_bp, begun=time.perf_counter())
    tally.tell()
    by_number = {files.number: files for files in missing}
    pending = order_of(sorted(by_number), rank=rank, world=world)
    watch, wait_s = Watch(), _POLL_S[0]
    with _Finisher() as finisher:
        while pending:
            left = []
            for number in pending:
                files = by_number[number]
                if files.state() is State.GOOD:
                    tally.others_bp += size_bp[number]
                    tally.tell()
                elif not _make(writer, files, watch, tally, finisher):
                    left.append(number)
            if len(left) == len(pending):
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, _POLL_S[1])
            else:
                wait_s = _POLL_S[0]
            pending = left


class _Finisher:
    """Checksum, flush to the disk and rename of one shard, while the next one is embedded."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="finish shard")
        self._last: Future[None] | None = None

    def __enter__(self) -> _Finisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._thread.shutdown()

    def give(self, made: MadeShard, lease: Lease) -> None:
        """Finishes a shard and gives its lease up; waits until the one before is finished."""
        self.wait()
        self._last = self._thread.submit(self._finish, made, lease)

    def wait(self) -> None:
        """Raises what went wrong with the last one."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    @staticmethod
    def _finish(made: MadeShard, lease: Lease) -> None:
        with lease, _explained(made.files):
            made.finish()


def _make(writer: ShardWriter, files: ShardFiles, watch: Watch, tally: _Tally, finisher: _Finisher) -> bool:
    """Makes a shard; False where another process is at it."""
    lease = take(files.lock, watch)
    if lease is None:
        return False
    try:
        if files.state() is State.GOOD:  # finished between the look and the lease
            tally.others_bp += _nucleotides(writer, files)
            lease.release()
            return True
        files.sweep()
        with _explained(files):
            made = writer.make(files, lease.token, tally.written)
    except BaseException:
        lease.release()
        raise
    finisher.give(made, lease)
    return True


@contextmanager
def _explained(files: ShardFiles) -> Iterator[None]:
    """Says what a failed write means for the cache."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise CacheError(_full(files.folder, files.of, error)) from error
        raise CacheError(
            f"{files.arrow} cannot be written ({error}); finished shards are kept, mend the file system and run the "
            "same command again"
        ) from error


def _nucleotides(writer: ShardWriter, files: ShardFiles) -> int:
    starts = writer.plan.shard_starts
    return int(writer.lengths_bp[starts[files.number] : starts[files.number + 1]].sum())


def _full(folder: Path, n_shards: int, error: OSError) -> str:
    done = sum(1 for _ in folder.glob("shard-*.json"))
    free = shutil.disk_usage(folder).free
    return (
        f"the disk of {folder} is full ({error.strerror or error}; {free / 1e9:.2f} GB free); {done} of {n_shards} "
        "shards are finished and kept. Free space or give another cache folder, and run the same command again; "
        "--no-cache embeds without a disk"
    )
