"""Takes a file's checksum and flushes it to the disk while another thread still writes it.

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

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import xxhash

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
