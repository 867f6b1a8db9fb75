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

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from bend_hf.embedders.cache.shards import ShardFiles, State
from bend_hf.embedders.cache.share_progress import ShareProgress
from bend_hf.embedders.cache.stream import Claim, ShardStream
from bend_hf.embedders.cache.writer import ShardWriter, TokenColumns, no_bars
from bend_hf.lease import Watch, lease_problem, sweep_trials, take, unshared

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

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
    with no_bars(), ShardStream([writer], columns, progress.add) as stream:
        taker = _Taker(writer, progress, Watch())
        stream.fill(taker.claims(_free([by_number[number] for number in pending], taker)))
        while taker.held and here.waits:
            others, taker.held = taker.held, []
            stream.fill(taker.claims(others))
            if len(taker.held) == len(others):
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, _POLL_S[1])
            else:
                wait_s = _POLL_S[0]
    if here.waits:
        sweep_finished(shards)


def _free(shards: Sequence[ShardFiles], taker: _Taker) -> Iterator[ShardFiles]:
    """Yield the shards that no other process has finished or holds; the taker remembers those that others hold.

    One look at the folder before each shard replaces looks at every file of it, which many workers on a network file
    system would pay for dearly.
    """
    if not shards:
        return
    folder = shards[0].folder
    left = {files.number: (files, files.lock.name, files.record.name) for files in shards}
    while True:
        names = _names(folder)
        for number in [number for number, (_, _, record) in left.items() if record in names]:
            files = left.pop(number)[0]
            if not taker.is_done(files):
                taker.held.append(files)  # it was altered, or is being replaced
        free = next((number for number, (_, lock, _) in left.items() if lock not in names), None)
        if free is None:
            taker.held += [files for files, _, _ in left.values()]
            return
        yield left.pop(free)[0]


def _fill_static(
    writer: ShardWriter, columns: TokenColumns, shards: Sequence[ShardFiles], here: RankSlice, on_progress: OnProgress
) -> None:
    """Fill the static share of a process; then wait until each of the shards is good, if the process should."""
    mine = own_shards(shards, here)
    missing = missing_shards(mine)
    progress = _Progress(on_progress, total_bp=sum(writer.n_bp(files) for files in mine))
    progress.add(progress.total_bp - sum(writer.n_bp(files) for files in missing))
    said = _said_in_log(writer, here, n_mine=len(mine), n_done=len(mine) - len(missing), n_shards=len(shards))
    alone = here.n_processes > 1
    with no_bars(), ShardStream([writer], columns, progress.add, sweeps=alone, on_shard=said) as stream:
        stream.fill(_Taker(writer, progress, watch=None).claims(missing))
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
    """Adds up the nucleotides that are embedded, from any thread."""

    def __init__(self, on_progress: OnProgress, *, total_bp: int) -> None:
        self.total_bp = total_bp
        self._done_bp = 0
        self._on_progress = on_progress
        self._lock = threading.Lock()

    def add(self, n_bp: int) -> None:
        with self._lock:
            self._done_bp = min(self._done_bp + n_bp, self.total_bp)
            self._on_progress(self._done_bp, self.total_bp)


class _Taker:
    """Takes shards for this process.

    Args:
        writer: Knows the nucleotides of a shard.
        progress: Adds up those of shards that others finished.
        watch: Recognizes leases of dead processes; None: no leases divide the shards between processes.

    Attributes:
        held: Shards that other processes hold.
    """

    def __init__(self, writer: ShardWriter, progress: _Progress, watch: Watch | None) -> None:
        self._writer, self._progress, self._watch = writer, progress, watch
        self.held: list[ShardFiles] = []

    def claims(self, shards: Iterable[ShardFiles]) -> Iterator[Claim]:
        """Yield those of the shards that are missing and that no other process holds, when they are needed."""
        for files in shards:
            if self.is_done(files):
                continue
            lease = unshared(files.lock) if self._watch is None else take(files.lock, self._watch)
            if lease is None:
                self.held.append(files)
            elif self.is_done(files):  # finished between the look and the lease
                lease.release()
            else:
                yield Claim(files=(files,), leases=(lease,))

    def is_done(self, files: ShardFiles) -> bool:
        """Return whether a shard is good, and count its nucleotides if it is."""
        if files.state() is not State.GOOD:
            return False
        self._progress.add(self._writer.n_bp(files))
        return True
