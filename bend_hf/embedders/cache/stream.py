"""Embed shards in one stream: the device goes on with the next shard while the last one is written.

A shard is claimed (its lease is taken, and its writing begins) when the embedder first asks for its sequences, which is
a little ahead of what the device computes. Shards of several layers are written from one stream, each layer by a thread
of its own.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import pyarrow as pa

from bend_hf.embedders.cache.shards import ShardFiles
from bend_hf.embedders.cache.writer import Feed, OnBatch, ShardWriter, UnstorableError
from bend_hf.errors import CacheError
from bend_hf.lease import Lease

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A shard that this process fills: its files and lease, for each layer that is written."""

    files: Sequence[ShardFiles]
    leases: Sequence[Lease]


class Columns(Protocol):
    """Turns sequences into the columns of each layer."""

    def of_layers(self, batches: Iterator[list[str]]) -> Generator[Sequence[tuple[pa.Array, pa.Array]], None, None]:
        """Yield embeddings and token lengths of each batch, for each layer; batches are read in another thread."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """Sequences that were given to the embedder: their shard, and where they start in it."""

    files: Sequence[ShardFiles]
    first: int
    n: int


class ShardStream:
    """Embeds claimed shards in this thread, and writes them in others.

    Args:
        writers: Writes the shards of each layer.
        columns: Computes the embeddings.
        on_batch: Called for each record batch of the first layer, in the thread that writes.
        sweeps: Whether no other process writes these shards, so that what was left of them may be removed.
        on_shard: Called when a shard of a layer is finished, in the thread that writes.
    """

    def __init__(
        self,
        writers: Sequence[ShardWriter],
        columns: Columns,
        on_batch: OnBatch,
        *,
        sweeps: bool = True,
        on_shard: Callable[[], None] = lambda: None,
    ) -> None:
        self._writers, self._columns, self._sweeps, self._on_shard = writers, columns, sweeps, on_shard
        self._feeds = [Feed() for _ in writers]
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix="write shard") for _ in writers]
        self._on_batch: list[OnBatch] = [on_batch, *(lambda n_bp: None for _ in writers[1:])]
        self._writing: list[tuple[Future[None], Lease, Feed]] = []

    def __enter__(self) -> ShardStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        writing = [future for future, _, _ in self._writing]
        try:
            # A thread's join() that a signal interrupts gives up on the thread in Python 3.11; wait() does not.
            wait(writing)
        except KeyboardInterrupt:
            wait(writing)  # until the shard is finished and its lease is freed
            raise
        finally:
            for thread in self._threads:
                thread.shutdown()
        if kind is None:
            self._check()

    def fill(self, claims: Iterable[Claim]) -> None:
        """Fill shards; returns when all are embedded, the last of them perhaps not yet written.

        Args:
            claims: Read in another thread, a little ahead.

        Raises:
            CacheError: A number cannot be stored, or a shard cannot be written.
        """
        given: deque[_Unit] = deque()  # to the embedder, without columns so far
        n_done = 0

        def batches() -> Iterator[list[str]]:
            for claim in claims:
                self._start(claim)
                first = 0
                for sequences in self._writers[0].batches(claim.files[0]):
                    given.append(_Unit(files=claim.files, first=first, n=len(sequences)))
                    first += len(sequences)
                    yield sequences

        try:
            with closing(self._columns.of_layers(batches())) as made:
                for layers in made:
                    unit = given[0]
                    for feed, files, columns in zip(self._feeds, unit.files, layers, strict=True):
                        feed.put(files.number, columns, self._check)
                    n_done += given.popleft().n
        except BaseException as error:
            self._abandon()
            if isinstance(error, UnstorableError) and given:
                place = given[0].first + error.position - n_done
                raise CacheError(f"{self._writers[0].item_name(given[0].files[0], place)}: {error}") from error
            raise

    def _start(self, claim: Claim) -> None:
        """Let the writers begin with a shard, when they are done with those before."""
        for place, (files, lease) in enumerate(zip(claim.files, claim.leases, strict=True)):
            future = self._threads[place].submit(self._write, place, files, lease)
            self._writing.append((future, lease, self._feeds[place]))

    def _write(self, place: int, files: ShardFiles, lease: Lease) -> None:
        with lease, explained(files):
            if self._sweeps:
                files.sweep()
            self._writers[place].write(files, lease.token, self._feeds[place], self._on_batch[place])
        self._on_shard()

    def _abandon(self) -> None:
        """Give up the shards that are not embedded."""
        started = []
        for future, lease, feed in self._writing:
            if future.cancel():
                lease.release()
            else:
                started.append((future, feed))
        for future, feed in started:
            feed.stop(future)

    def _check(self) -> None:
        """Raise the error of a shard that could not be written."""
        for future, _, _ in self._writing:
            if future.done() and not future.cancelled():
                future.result()
        self._writing = [one for one in self._writing if not one[0].done()]


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
