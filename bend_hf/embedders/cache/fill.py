"""Fill the missing shards of a cache entry, together with any other process that does: ranks, nodes, other jobs.

Each process starts with its own share of the shards and continues with those that no other process has started. It
waits for shards that another process holds, and takes them over if that process died. All coordination is in the
cache's folder, so the number of processes need not be known and no barrier is needed. A lease only avoids double work:
if two processes fill one shard all the same, each writes its own files, and the last rename leaves a whole shard.

>>> shard_order([4, 5, 6, 7, 8], rank=1, n_processes=2)
[5, 7, 4, 6, 8]
"""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from bend_hf.embedders.cache.shards import ShardFiles, State
from bend_hf.embedders.cache.writer import Feed, ShardWriter, TokenColumns, UnstorableError, no_bars
from bend_hf.errors import CacheError
from bend_hf.lease import Lease, Watch, take

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_POLL_S: Final = (0.05, 2.0)  # first and longest wait for a shard that another process fills
OnProgress: TypeAlias = Callable[[int, int], None]  # called with the nucleotides that are embedded, and their total


@dataclass(frozen=True, kw_only=True)
class RankSlice:
    """Which of several processes this is."""

    rank: int = 0
    n_processes: int = 1

    @classmethod
    def of(cls, accelerator: Accelerator | None) -> RankSlice:
        """Return this process of a launched run; without an accelerator it is the only one."""
        if accelerator is None:
            return cls()
        return cls(rank=accelerator.process_index, n_processes=accelerator.num_processes)


def shard_order(numbers: Sequence[int], *, rank: int, n_processes: int) -> list[int]:
    """Sort shards in the order in which a process tries them: its own share first."""
    place = {number: index for index, number in enumerate(numbers)}
    return sorted(numbers, key=lambda number: (place[number] % n_processes != rank, place[number]))


def missing_shards(shards: Sequence[ShardFiles]) -> list[ShardFiles]:
    """List the shards that are not good, and log those that were altered."""
    found = []
    for files in shards:
        state = files.state()
        if state is State.ALTERED:
            log.warning("%s was truncated or altered (its checksum differs); it is computed again", files.arrow)
        if state is not State.GOOD:
            found.append(files)
    return found


def fill(
    writer: ShardWriter, columns: TokenColumns, shards: Sequence[ShardFiles], here: RankSlice, on_progress: OnProgress
) -> None:
    """Return when each of the shards is good.

    Args:
        writer: Writes a shard.
        columns: Computes the embeddings.
        shards: The wanted shards.
        here: Which process this is.
        on_progress: Called as nucleotides are embedded, by any process.

    Raises:
        CacheError: The disk is full; finished shards are kept.
    """
    missing = missing_shards(shards)
    size_bp = {files.number: writer.n_bp(files) for files in shards}
    progress = _Progress(on_progress, total_bp=sum(size_bp.values()))
    progress.add(progress.total_bp - sum(size_bp[files.number] for files in missing))
    by_number = {files.number: files for files in missing}
    pending = shard_order(sorted(by_number), rank=here.rank, n_processes=here.n_processes)
    wait_s = _POLL_S[0]
    with no_bars(), _Filler(writer, columns, progress) as filler:
        while pending:
            left = [number for number in pending if not filler.fill(by_number[number])]
            if len(left) == len(pending):
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, _POLL_S[1])
            else:
                wait_s = _POLL_S[0]
            pending = left
    sweep_finished(shards)


def sweep_finished(shards: Sequence[ShardFiles]) -> None:
    """Remove what processes left that were killed after they finished their shard."""
    watch = Watch()
    folders = {files.folder for files in shards}
    left = [path.name for folder in folders for path in folder.iterdir() if path.suffix not in (".arrow", ".json")]
    for files in shards:
        if any(files.stem in name for name in left) and files.record.exists():
            lease = take(files.lock, watch)
            if lease is not None:
                with lease:
                    files.sweep()


class _Progress:
    """Adds up the nucleotides that are embedded."""

    def __init__(self, on_progress: OnProgress, *, total_bp: int) -> None:
        self.total_bp = total_bp
        self._done_bp = 0
        self._on_progress = on_progress

    def add(self, n_bp: int) -> None:
        self._done_bp = min(self._done_bp + n_bp, self.total_bp)
        self._on_progress(self._done_bp, self.total_bp)


class _Filler:
    """Embeds shards in this thread and writes them in another; one is finished while the next is embedded."""

    def __init__(self, writer: ShardWriter, columns: TokenColumns, progress: _Progress) -> None:
        self._writer = writer
        self._columns = columns
        self._progress = progress
        self._feed = Feed()
        self._watch = Watch()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write shard")
        self._writing: list[Future[None]] = []

    def __enter__(self) -> _Filler:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            # A thread's join() that a signal interrupts gives up on the thread in Python 3.11; wait() does not.
            wait(self._writing)
        except KeyboardInterrupt:
            wait(self._writing)  # until the shard is finished and its lease is freed
            raise
        finally:
            self._thread.shutdown()
        if kind is None:
            self._check()

    def fill(self, files: ShardFiles) -> bool:
        """Fill a shard unless it exists; return False if another process is filling it."""
        if files.state() is State.GOOD:
            self._progress.add(self._writer.n_bp(files))
            return True
        lease = take(files.lock, self._watch)
        if lease is None:
            return False
        if files.state() is State.GOOD:  # finished between the look and the lease
            lease.release()
            return self.fill(files)
        writing = self._thread.submit(self._write, files, lease)
        self._writing.append(writing)
        try:
            for columns in self._columns.of(self._writer.batches(files)):
                self._feed.put(files.number, columns, self._check)
        except BaseException as error:
            self._feed.stop(writing)
            if isinstance(error, UnstorableError):
                raise CacheError(f"{self._writer.item_name(files, error.position)}: {error}") from error
            raise
        return True

    def _write(self, files: ShardFiles, lease: Lease) -> None:
        with lease, explained(files):
            files.sweep()
            self._writer.write(files, lease.token, self._feed, self._progress.add)

    def _check(self) -> None:
        """Raise the error of a shard that could not be written."""
        for future in self._writing:
            if future.done():
                future.result()
        self._writing = [future for future in self._writing if not future.done()]


@contextlib.contextmanager
def explained(files: ShardFiles) -> Iterator[None]:
    """Explain what a failed write means for the cache."""
    try:
        yield
    except CacheError:
        raise
    except Exception as error:
        reason = _os_error(error)
        if reason is None:
            raise
        if reason.errno in _FULL:
            raise CacheError(_explain_full(files.folder, files.of, reason)) from error
        raise CacheError(
            f"{files.arrow} cannot be written ({reason}). Finished shards are kept; repair the file system and run "
            "the same command again."
        ) from error


def _os_error(error: BaseException | None) -> OSError | None:
    """Find the failed write behind an error; `datasets` raises another one when it closes the file."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _explain_full(folder: Path, n_shards: int, error: OSError) -> str:
    done = sum(1 for _ in folder.glob("shard-*.json"))
    free = shutil.disk_usage(folder).free
    return (
        f"the disk of {folder} is full ({error.strerror or error}; {free / 1e9:.2f} GB free); {done} of {n_shards} "
        "shards are finished and kept. Free space or give another --cache and run the same command again, or train "
        "without a cache: 'bend-hf train --no-cache'."
    )
