"""Fill the missing shards of a cache entry, together with any other process that does: ranks, nodes, other jobs.

Each process starts with its own share of the shards and continues with those that no other process has started. It
waits for shards that another process holds, and takes them over if that process died. All coordination is in the
cache's folder, so the number of processes need not be known and no barrier is needed. A lease only avoids double work:
if two processes fill one shard all the same, each writes its own files, and the last rename leaves a whole shard.

A folder that cannot hold leases has static shares instead: each process computes every n-th shard, whatever the others
do.

>>> static_share([4, 5, 6, 7, 8], rank=1, n_processes=2)
[5, 7]
>>> shard_order([4, 5, 6, 7, 8], rank=1, n_processes=2)
[5, 7, 4, 6, 8]
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from bend_hf.embedders.cache.shards import ShardFiles, State
from bend_hf.embedders.cache.share_progress import ShareProgress
from bend_hf.embedders.cache.writer import Feed, ShardWriter, TokenColumns, UnstorableError, no_bars
from bend_hf.errors import CacheError
from bend_hf.lease import Lease, Watch, lease_problem, sweep_trials, take, unshared

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_POLL_S: Final = (0.05, 2.0)  # first and longest wait for a shard that another process fills
OnProgress: TypeAlias = Callable[[int, int], None]  # called with the nucleotides that are embedded, and their total


@dataclass(frozen=True, kw_only=True)
class RankSlice:
    """Which of several processes this is.

    Attributes:
        rank: Its number, from 0.
        n_processes: How many processes share the work.
        leases: Whether they may divide it by leases, if the folder can hold them.
        waits: Whether it waits for shards that others compute, and takes them over if these die. A process with
            more to do fills what is free and comes back later.
        is_main: Whether it says what it does; one process of a launch does.
    """

    rank: int = 0
    n_processes: int = 1
    leases: bool = True
    waits: bool = True
    is_main: bool = True

    @classmethod
    def of(cls, accelerator: Accelerator | None) -> RankSlice:
        """Return this process of a launched run; without an accelerator it is the only one."""
        if accelerator is None:
            return cls()
        rank = accelerator.process_index
        return cls(rank=rank, n_processes=accelerator.num_processes, is_main=rank == 0)


def shard_order(numbers: Sequence[int], *, rank: int, n_processes: int) -> list[int]:
    """Sort shards in the order in which a process tries them: its own share first."""
    place = {number: index for index, number in enumerate(numbers)}
    return sorted(numbers, key=lambda number: (place[number] % n_processes != rank, place[number]))


def static_share(numbers: Sequence[int], *, rank: int, n_processes: int) -> list[int]:
    """Return the shards of one process if the processes cannot see what others do; it follows from the number alone."""
    return [number for number in numbers if number % n_processes == rank]


def own_shards(shards: Sequence[ShardFiles], here: RankSlice) -> list[ShardFiles]:
    """Return the shards that a process must compute itself: its static share."""
    mine = set(static_share([files.number for files in shards], rank=here.rank, n_processes=here.n_processes))
    return [files for files in shards if files.number in mine]


def why_static(folder: Path, here: RankSlice) -> str | None:
    """Return why the processes have static shares of the shards; None if they divide them by leases.

    Args:
        folder: The cache entry.
        here: Which process this is.
    """
    return lease_problem(folder) if here.leases else "--no-leases is given"


def missing_shards(shards: Sequence[ShardFiles]) -> list[ShardFiles]:
    """List the shards that are not good, and log those that were altered.

    A shard without its files is missing by the names in its folder; only the others are looked at.
    """
    found = []
    names = {folder: _names(folder) for folder in {files.folder for files in shards}}
    for files in shards:
        there = {files.arrow.name, files.record.name} <= names[files.folder]
        state = files.state() if there else State.MISSING
        if state is State.ALTERED:
            log.warning("%s was truncated or altered (its checksum differs); it is computed again", files.arrow)
        if state is not State.GOOD:
            found.append(files)
    return found


def _names(folder: Path) -> frozenset[str]:
    """Return the names in a folder; none if there is no folder."""
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208  thousands of names
    except FileNotFoundError:
        return frozenset()


def fill(
    writer: ShardWriter, columns: TokenColumns, shards: Sequence[ShardFiles], here: RankSlice, on_progress: OnProgress
) -> None:
    """Return when each of the shards is good, or when none is free for a process that does not wait.

    Args:
        writer: Writes a shard.
        columns: Computes the embeddings.
        shards: The wanted shards.
        here: Which process this is. It fills what is free, or its static share, and then waits for the others if it
            should.
        on_progress: Called as nucleotides are embedded, by any process.

    Raises:
        CacheError: The disk is full; finished shards are kept.
    """
    if not here.leases:
        _fill_static(writer, columns, shards, here, on_progress)
        return
    missing = missing_shards(shards)
    size_bp = {files.number: writer.n_bp(files) for files in shards}
    progress = _Progress(on_progress, total_bp=sum(size_bp.values()))
    progress.add(progress.total_bp - sum(size_bp[files.number] for files in missing))
    by_number = {files.number: files for files in missing}
    pending = shard_order(sorted(by_number), rank=here.rank, n_processes=here.n_processes)
    wait_s = _POLL_S[0]
    with no_bars(), _Filler(writer, columns, progress) as filler:
        pending = _fill_free(filler, [by_number[number] for number in pending], size_bp)
        while pending and here.waits:
            left = [number for number in pending if not filler.fill(by_number[number])]
            if len(left) == len(pending):
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, _POLL_S[1])
            else:
                wait_s = _POLL_S[0]
            pending = left
    if here.waits:
        sweep_finished(shards)


def _fill_free(filler: _Filler, shards: Sequence[ShardFiles], size_bp: Mapping[int, int]) -> list[int]:
    """Fill the shards that no other process has finished or holds; return the numbers of those that others hold.

    One look at the folder before each shard replaces looks at every file of it, which many workers on a network file
    system would pay for dearly.
    """
    if not shards:
        return []
    folder = shards[0].folder
    left = {files.number: (files, files.lock.name, files.record.name) for files in shards}
    held: list[int] = []
    while True:
        names = _names(folder)
        for number in [number for number, (_, _, record) in left.items() if record in names]:
            files = left.pop(number)[0]
            if files.state() is State.GOOD:
                filler.progress.add(size_bp[number])
            else:
                held.append(number)  # it was altered, or is being replaced
        free = next((number for number, (_, lock, _) in left.items() if lock not in names), None)
        if free is None:
            return [*held, *left]
        if not filler.fill(left.pop(free)[0]):
            held.append(free)


def _fill_static(
    writer: ShardWriter, columns: TokenColumns, shards: Sequence[ShardFiles], here: RankSlice, on_progress: OnProgress
) -> None:
    """Fill the static share of a process; then wait until each of the shards is good, if the process should."""
    mine = own_shards(shards, here)
    missing = missing_shards(mine)
    progress = _Progress(on_progress, total_bp=sum(writer.n_bp(files) for files in mine))
    progress.add(progress.total_bp - sum(writer.n_bp(files) for files in missing))
    said = _said_in_log(writer, here, n_mine=len(mine), n_done=len(mine) - len(missing), n_shards=len(shards))
    with (
        no_bars(),
        _Filler(writer, columns, progress, leases=False, alone=here.n_processes > 1, on_shard=said) as filler,
    ):
        for files in missing:
            filler.fill(files)
    wait_s = _POLL_S[0]
    while here.waits and missing_shards(shards):
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, _POLL_S[1])


def _said_in_log(
    writer: ShardWriter, here: RankSlice, *, n_mine: int, n_done: int, n_shards: int
) -> Callable[[], None]:
    """Log how far a process with a static share is; return what logs that it has finished one more shard."""
    plan, started = writer.plan, time.monotonic()
    share = {"rank": here.rank, "n_processes": here.n_processes, "n_mine": n_mine, "n_shards": n_shards}
    so_far = ShareProgress(model=plan.model, label=plan.label, n_done=n_done, **share)
    log.info(so_far.text())

    def finished() -> None:
        nonlocal so_far
        so_far = so_far.finished(seconds=time.monotonic() - started)
        log.info(so_far.text())

    return finished


def sweep_finished(shards: Sequence[ShardFiles]) -> None:
    """Remove what processes left that were killed after they finished their shard."""
    watch = Watch()
    folders = {files.folder for files in shards}
    for folder in folders:
        sweep_trials(folder)
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
    """Embeds shards in this thread and writes them in another; one is finished while the next is embedded.

    Args:
        writer: Writes a shard.
        columns: Computes the embeddings.
        progress: Adds up the nucleotides.
        leases: Whether leases divide the shards between processes.
        alone: Whether no other process writes the shards that this one fills, so that it may remove what was left.
        on_shard: Called when a shard is finished, in the thread that writes.
    """

    def __init__(
        self,
        writer: ShardWriter,
        columns: TokenColumns,
        progress: _Progress,
        *,
        leases: bool = True,
        alone: bool = True,
        on_shard: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_shard = on_shard
        self._leases = leases
        self._alone = alone
        self._writer = writer
        self._columns = columns
        self.progress = progress
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
            self.progress.add(self._writer.n_bp(files))
            return True
        lease = take(files.lock, self._watch) if self._leases else unshared(files.lock)
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
            if self._alone:
                files.sweep()
            self._writer.write(files, lease.token, self._feed, self.progress.add)
        self._on_shard()

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
