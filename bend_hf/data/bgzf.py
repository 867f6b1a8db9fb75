"""Random access to the text inside a file that ``bgzip`` compressed.

For the genome, which inflates only the blocks that its intervals touch:

>>> BGZF_END.hex()[:8]
'1f8b0804'

The table of blocks is read from the block headers themselves on opening (a tenth of a second for a human
genome): this needs no ``.gzi`` file, and finds a truncated file before anything is fetched from it.
"""

from __future__ import annotations

import io
import mmap
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from bend_hf.errors import GenomeError
from bend_hf.shapes import Bytes, Ints

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# SAM/BAM format specification, section 4.1: a gzip member whose extra field BC holds its size minus one,
# and the empty block that ends each file.
_GZIP_MAGIC: Final = b"\x1f\x8b\x08"
_HAS_EXTRA: Final = 0x04
_FIXED_HEADER_BYTES: Final = 12
BGZF_END: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def is_gzip(head: bytes) -> bool:
    """Whether a file that opens with these bytes is compressed with gzip or bgzip."""
    return head.startswith(_GZIP_MAGIC[:2])


def block_bytes(raw: bytes | mmap.mmap, at: int) -> int | None:
    """Size of the compressed block at that byte, or None where no whole block header stands there."""
    header = raw[at : at + _FIXED_HEADER_BYTES]
    if len(header) < _FIXED_HEADER_BYTES or header[:3] != _GZIP_MAGIC or not header[3] & _HAS_EXTRA:
        return None
    extra = raw[at + _FIXED_HEADER_BYTES : at + _FIXED_HEADER_BYTES + struct.unpack_from("<H", header, 10)[0]]
    while len(extra) >= 4:
        n_bytes = struct.unpack_from("<H", extra, 2)[0]
        if extra[:2] == b"BC" and n_bytes == 2 and len(extra) >= 6:
            return int(struct.unpack_from("<H", extra, 4)[0]) + 1
        extra = extra[4 + n_bytes :]
    return None


class BgzfText:
    """The text of one bgzip file, addressed by its byte positions after inflation.

    Args:
        path: Named in messages.
        raw: The compressed file, mapped into memory.

    Raises:
        GenomeError: The file is truncated or not made of bgzip blocks.
    """

    def __init__(self, path: Path, raw: mmap.mmap) -> None:
        self.path = path
        self._raw = raw
        at, ninflated, file_bytes = 0, 0, len(raw)
        starts, compressed_starts = [0], [0]
        while at < file_bytes:
            n_block_bytes = block_bytes(raw, at)
            if n_block_bytes is None or at + n_block_bytes > file_bytes:
                raise self._truncated(f"no whole bgzip block at byte {at:,} of {file_bytes:,}")
            at += n_block_bytes
            ninflated += struct.unpack_from("<I", raw, at - 4)[0]
            starts.append(ninflated)
            compressed_starts.append(at)
        if len(starts) < 2 or starts[-1] != starts[-2]:
            raise self._truncated("it lacks the empty block that ends a bgzip file")
        self._starts: Ints = np.array(starts, np.int64)
        self._compressed_starts: Ints = np.array(compressed_starts, np.int64)

    def _truncated(self, what: str) -> GenomeError:
        return GenomeError(f"{self.path}: the bgzip file is truncated or damaged ({what}); fetch or compress it again")

    @property
    def n_bytes(self) -> int:
        """Length of the inflated text."""
        return int(self._starts[-1])

    def inflate(self, block: int) -> bytes:
        """The text of one block."""
        first, last = self._compressed_starts[block : block + 2].tolist()
        try:
            return zlib.decompress(self._raw[first:last], wbits=31)
        except zlib.error as error:
            raise self._truncated(f"block {block} at byte {first:,}: {error}") from None

    def read(self, first: int, last: int) -> bytes:
        """The text between two byte positions."""
        buffer, shift = self.window(np.array([first]), np.array([last]))
        return buffer[first - int(shift[0]) : last - int(shift[0])].tobytes()

    def new_bytes(self, first: Ints, last: Ints) -> Ints:
        """How much must be inflated for each span when the spans before it are at hand.

        Args:
            first: Where each span starts, ascending, shape (spans,).
            last: Where each span ends, above ``first``, shape (spans,).
        """
        from_block, to_block = self._blocks(first, last)
        seen = np.maximum.accumulate(to_block)
        from_block[1:] = np.maximum(from_block[1:], seen[:-1] + 1)
        n_new: Ints = self._starts[np.maximum(to_block + 1, from_block)] - self._starts[from_block]
        return n_new

    def window(self, first: Ints, last: Ints) -> tuple[Bytes, Ints]:
        """Inflate all blocks that some spans touch.

        Args:
            first: Where each span starts, shape (spans,).
            last: Where each span ends, above ``first``, shape (spans,).

        Returns:
            A buffer, and for each span what to subtract from its positions to find them in the buffer.
        """
        from_block, to_block = self._blocks(first, last)
        lowest = int(from_block.min())
        n_blocks = int(to_block.max()) + 1 - lowest
        steps = np.bincount(from_block - lowest, minlength=n_blocks + 1)
        steps -= np.bincount(to_block + 1 - lowest, minlength=n_blocks + 1)
        wanted = np.flatnonzero(np.cumsum(steps[:n_blocks]) > 0)
        buffer = np.frombuffer(b"".join(map(self.inflate, (wanted + lowest).tolist())), np.uint8)
        n_bytes = np.zeros(n_blocks, np.int64)
        n_bytes[wanted] = np.diff(self._starts)[wanted + lowest]
        in_buffer = np.cumsum(n_bytes) - n_bytes
        return buffer, self._starts[from_block] - in_buffer[from_block - lowest]

    def stream(self) -> BinaryIO:
        """The text from its beginning, to be read through."""
        return io.BufferedReader(_BlockStream(self, len(self._starts) - 1), buffer_size=1 << 18)

    def _blocks(self, first: Ints, last: Ints) -> tuple[Ints, Ints]:
        """First and last block that each span touches."""
        return (
            np.searchsorted(self._starts, first, side="right") - 1,
            np.searchsorted(self._starts, last - 1, side="right") - 1,
        )


class _BlockStream(io.RawIOBase):
    """Reads the blocks of a `BgzfText` one after the other; can only go back to the beginning."""

    def __init__(self, text: BgzfText, n_blocks: int) -> None:
        self._text = text
        self._n_blocks = n_blocks
        self.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if offset or whence != io.SEEK_SET:
            raise io.UnsupportedOperation("a block stream only goes back to its beginning")
        self._at, self._block, self._rest = 0, 0, b""
        return 0

    def readinto(self, buffer: WriteableBuffer) -> int:
        while not self._rest and self._block < self._n_blocks:
            self._rest = self._text.inflate(self._block)
            self._block += 1
        view = memoryview(buffer)
        n_bytes = min(len(self._rest), len(view))
        view[:n_bytes] = self._rest[:n_bytes]
        self._rest = self._rest[n_bytes:]
        self._at += n_bytes
        return n_bytes
