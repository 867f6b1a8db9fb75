"""Check that a bigWig file is whole: the library that writes it does not report a disk that is full.

The format is that of the supplement of Kent et al., Bioinformatics 26, 2204 (2010): a header, then data and reductions
of them (zoom levels) in blocks that zlib packed, each part with an index. zlib holds a checksum of each block.
"""

from __future__ import annotations

import errno
import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_MAGIC: Final = 0x888FFC26  # at the start and, as four bytes, at the end
_HEADER: Final = struct.Struct("<IHHQQQHHQQIQ")
_ZOOM: Final = struct.Struct("<IIQQ")  # reduction, reserved, offset of the data, offset of the index
_INDEX_MAGIC: Final = 0x2468ACE0
_INDEX: Final = struct.Struct("<IIQIIIIQII")
_LEAF: Final = struct.Struct("<IIIIQQ")  # the last two: offset and size of a block
_NODE: Final = struct.Struct("<IIIIQ")  # the last one: offset of a node
_SECTION: Final = struct.Struct("<IIIIIBBH")  # before the rows of a block of data; the last one: their number


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
