"""Write a bigWig file with pyBigWig, in a process of its own, and check that it is whole.

pyBigWig does not report a disk that is full, or crashes; then only that process ends, and the file is not taken for
whole. This file is the program of that process, too.

The format is that of the supplement of Kent et al., Bioinformatics 26, 2204 (2010): a header, then data and reductions
of them (zoom levels) in blocks that zlib packed, each part with an index. zlib holds a checksum of each block.
"""

from __future__ import annotations

import errno
import mmap
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

Strings: TypeAlias = NDArray[np.str_]

_MAGIC: Final = 0x888FFC26  # at the start and, as four bytes, at the end
_HEADER: Final = struct.Struct("<IHHQQQHHQQIQ")
_ZOOM: Final = struct.Struct("<IIQQ")  # reduction, reserved, offset of the data, offset of the index
_INDEX_MAGIC: Final = 0x2468ACE0
_INDEX: Final = struct.Struct("<IIQIIIIQII")
_LEAF: Final = struct.Struct("<IIIIQQ")  # the last two: offset and size of a block
_NODE: Final = struct.Struct("<IIIIQ")  # the last one: offset of a node
_SECTION: Final = struct.Struct("<IIIIIBBH")  # before the rows of a block of data; the last one: their number


WriteRows: TypeAlias = "Callable[[Strings, NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]], None]"


@contextmanager
def bigwig_writer(path: Path, contigs: Mapping[str, int]) -> Iterator[WriteRows]:
    """Write a bigWig file; it is whole when the block has ended without an error.

    Args:
        path: The file.
        contigs: Length of each contig in bp, in their order.

    Yields:
        A function that writes sorted rows without overlaps: names of contigs, starts, ends and values, all of shape
        (rows,).

    Raises:
        OSError: It cannot be written.
    """
    n_rows = 0
    with _writing_process(path) as sends:
        sends(np.array(list(contigs), np.str_), np.array(list(contigs.values()), np.int64))

        def write(
            contig: Strings, start: NDArray[np.int64], end: NDArray[np.int64], value: NDArray[np.float64]
        ) -> None:
            nonlocal n_rows
            if len(contig):
                n_rows += len(contig)
                sends(contig, start, end, value)

        yield write
        sends(np.array([], np.str_))
    check_bigwig(path, n_rows)


@contextmanager
def _writing_process(path: Path) -> Iterator[Callable[..., None]]:
    """Start the process; yields a function that sends arrays to it, and raises what the process ended with."""
    command = [sys.executable, "-P", __file__, str(path)]  # without the working directory
    with subprocess.Popen(  # noqa: S603 - our own program
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        inlet, outlet = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)

        def send(*arrays: NDArray[Any]) -> None:
            for array in arrays:
                inlet.write(f"{array.dtype.str} {len(array)}\n".encode() + array.tobytes())
            inlet.flush()

        failed: OSError | None = None
        try:
            yield send
        except BrokenPipeError as error:  # it ended before it had read all; why is found below
            failed = error
        except BaseException:
            process.kill()
            raise
        with suppress(BrokenPipeError):
            inlet.close()
        said = outlet.read().decode(errors="replace").strip()
        status = process.wait()
    if status < 0:
        said = f"pyBigWig ended with {signal.Signals(-status).name}, as it does if a write fails"
    if status or failed is not None:
        raise OSError(errno.EIO, said or f"pyBigWig ended with status {status}", str(path)) from failed


def check_bigwig(path: Path, n_rows: int) -> None:
    """Check that every block of a little-endian bigWig file can be read, and that it has all rows.

    Args:
        path: The file.
        n_rows: How many rows were written.

    Raises:
        OSError: It is not whole.
    """
    try:
        found = _count_rows(path)
    except (struct.error, zlib.error, ValueError, IndexError) as error:
        raise OSError(errno.ENOSPC, f"the bigWig file is not whole ({error})", str(path)) from error
    if found != n_rows:
        raise OSError(errno.ENOSPC, f"the bigWig file holds {found} of {n_rows} rows", str(path))


def _count_rows(path: Path) -> int:
    """Unpack all blocks; return the number of rows."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        magic, _, n_zooms, _, _, index_at, *_ = _HEADER.unpack_from(content)
        (last,) = struct.unpack("<I", content[-4:])
        if magic != _MAGIC or last != _MAGIC:
            raise ValueError("its signature is missing")
        zooms = [_ZOOM.unpack_from(content, _HEADER.size + _ZOOM.size * number) for number in range(n_zooms)]
        for *_, zoom_index_at in zooms:
            for _ in _blocks(content, zoom_index_at):
                pass
        return sum(_SECTION.unpack_from(block)[-1] for block in _blocks(content, index_at)) if index_at else 0


def _blocks(content: mmap.mmap, index_at: int) -> Iterator[bytes]:
    """Yield the blocks of an index, unpacked."""
    if _INDEX.unpack_from(content, index_at)[0] != _INDEX_MAGIC:
        raise ValueError("an index is missing")
    nodes = [index_at + _INDEX.size]
    while nodes:
        at = nodes.pop()
        is_leaf, _, n_items = struct.unpack_from("<BBH", content, at)
        kind = _LEAF if is_leaf else _NODE
        for number in range(n_items):
            item = kind.unpack_from(content, at + 4 + kind.size * number)
            if is_leaf:
                yield zlib.decompress(content[item[4] : item[4] + item[5]])
            else:
                nodes.append(item[4])


def _write(path: str, rows: IO[bytes]) -> None:
    """Be the process: write the rows that come in, before which come the contigs and their lengths."""
    import pyBigWig

    def receive() -> NDArray[Any]:
        kind, length = rows.readline().split()
        dtype = np.dtype(kind.decode())
        return np.frombuffer(rows.read(dtype.itemsize * int(length)), dtype)

    contigs, lengths = receive(), receive()
    Path(path).touch()  # pyBigWig crashes if it cannot make the file
    file = pyBigWig.open(path, "w")
    file.addHeader(list(zip(contigs.tolist(), lengths.tolist(), strict=True)))
    while len(contig := receive()):
        start, end, value = receive(), receive(), receive()
        file.addEntries(contig, start, ends=end, values=value)
    file.close()


if __name__ == "__main__":
    try:
        _write(sys.argv[1], sys.stdin.buffer)
    except (OSError, RuntimeError, ValueError) as error:  # the last: the other process has ended
        with suppress(OSError):
            sys.stdout.write(f"pyBigWig: {error}\n")
            sys.stdout.flush()
        sys.exit(1)
