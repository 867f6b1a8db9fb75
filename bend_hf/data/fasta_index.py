"""Where each contig stands inside a FASTA file: the ``.fai`` index of samtools and pyfaidx, kept honest.

For the genome: finds the index beside the file, or makes it there with pyfaidx, or in memory where the folder
cannot be written.

>>> FastaIndex.parse("chr1\\t120\\t6\\t60\\t61\\n").lengths_bp.tolist()
[120]

Random access to the text inside a file that ``bgzip`` compressed.

For the genome, which inflates only the blocks that its intervals touch:

>>> BGZF_END.hex()[:8]
'1f8b0804'

The table of blocks is read from the block headers themselves on opening (a tenth of a second for a human
genome): this needs no ``.gzi`` file, and finds a truncated file before anything is fetched from it.
"""

from __future__ import annotations

import io
import logging
import mmap
import struct
import tempfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

import numpy as np

from bend_hf.errors import GenomeError
from bend_hf.files import atomic_path
from bend_hf.types import Bytes, Ints

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_log = logging.getLogger(__name__)
_CHECKED_CONTIGS: Final = 256  # enough to notice an index of another file; a human assembly has fewer
_HEADER_BYTES: Final = 1 << 16  # a longer gap between two contigs is no header line
_REWRAP = "rewrap its sequence lines to one width, for example with `seqtk seq -l 60`, and try again"


class Text(Protocol):
    """The uncompressed text of a FASTA file; see `bend_hf.data.fasta_index.BgzfText` for what the parts do."""

    @property
    def n_bytes(self) -> int: ...

    def stream(self) -> BinaryIO: ...

    def read(self, first: int, last: int) -> bytes: ...

    def new_bytes(self, first: Ints, last: Ints) -> Ints: ...

    def window(self, first: Ints, last: Ints) -> tuple[Bytes, Ints]: ...


class PlainText:
    """The text of a FASTA file that is not compressed, mapped into memory."""

    def __init__(self, path: Path, raw: mmap.mmap) -> None:
        self._path = path
        self._buffer: Bytes = np.frombuffer(raw, np.uint8)

    @property
    def n_bytes(self) -> int:
        """Length of the file."""
        return len(self._buffer)

    def stream(self) -> BinaryIO:
        """The file from its beginning."""
        return self._path.open("rb")

    def read(self, first: int, last: int) -> bytes:
        """The bytes between two positions."""
        return self._buffer[first:last].tobytes()

    def new_bytes(self, first: Ints, last: Ints) -> Ints:
        """Nothing is inflated: 0 for each span."""
        return np.zeros(len(first), np.int64)

    def window(self, first: Ints, last: Ints) -> tuple[Bytes, Ints]:
        """The whole file, and nothing to subtract."""
        return self._buffer, np.zeros(len(first), np.int64)


@dataclass(frozen=True, kw_only=True)
class FastaIndex:
    """The columns of a ``.fai`` file; every array has shape (contigs,).

    Attributes:
        names: Contig names, in the order of the file.
        lengths_bp: Contig lengths in nucleotides.
        offsets: Byte position of each contig's first nucleotide.
        line_bp: Nucleotides in a full line of the contig.
        line_bytes: Bytes in such a line with its line end.
    """

    names: tuple[str, ...]
    lengths_bp: Ints
    offsets: Ints
    line_bp: Ints
    line_bytes: Ints

    @classmethod
    def parse(cls, text: str) -> FastaIndex:
        """Read the text of a ``.fai`` file.

        Raises:
            ValueError: It is none.
        """
        rows = [line.split("\t") for line in text.splitlines()]
        if not rows or any(len(row) != 5 for row in rows):
            raise ValueError("a .fai file has five columns")
        numbers = np.array([row[1:] for row in rows], np.int64)
        if (numbers < 0).any() or (numbers[:, 3] < numbers[:, 2]).any():
            raise ValueError("a .fai file holds no negative number and no line shorter than its nucleotides")
        lengths_bp, offsets, line_bp, line_bytes = (np.ascontiguousarray(column) for column in numbers.T)
        if ((line_bp == 0) & (lengths_bp > 0)).any():
            raise ValueError("a contig without lines has no nucleotides")
        empty = line_bp == 0
        line_bp[empty] = line_bytes[empty] = 1
        return cls(
            names=tuple(row[0] for row in rows),
            lengths_bp=lengths_bp,
            offsets=offsets,
            line_bp=line_bp,
            line_bytes=line_bytes,
        )

    def byte_of(self, contig: Ints, base: Ints) -> Ints:
        """Byte position of nucleotides, all of one shape."""
        line: Ints = base // self.line_bp[contig]
        column = base - line * self.line_bp[contig]
        return self.offsets[contig] + line * self.line_bytes[contig] + column

    def misfit(self, text: Text) -> str | None:
        """The name of a contig whose borders are wrong when this index is laid over a text; None if all is well.

        The last line of a contig must begin behind a line end, and between two contigs there must be a header line
        with the second one's name and nothing else; up to 256 contigs, evenly spread, are looked at.
        """
        order: list[int] = np.argsort(self.offsets, kind="stable").tolist()
        n_steps = min(_CHECKED_CONTIGS, len(order))
        for place in (step * len(order) // n_steps for step in range(n_steps + 1)):
            first, before = 0, ""
            if place:
                contig = np.array([order[place - 1]])
                before = self.names[order[place - 1]]
                last_base = np.maximum(self.lengths_bp[contig] - 1, 0)
                line_start = int(self.byte_of(contig, last_base // self.line_bp[contig] * self.line_bp[contig])[0])
                first = int(self.byte_of(contig, last_base)[0]) + int(self.lengths_bp[contig][0] > 0)
                if first > text.n_bytes or text.read(line_start - 1, line_start) != b"\n":
                    return before
            if place == len(order):
                rest = text.read(first, min(text.n_bytes, first + _HEADER_BYTES)) if first < text.n_bytes else b""
                return before if rest.strip() else None
            name, last = self.names[order[place]], int(self.offsets[order[place]])
            if not first < last <= text.n_bytes or last - first > _HEADER_BYTES:
                return name
            *blank, header = text.read(first, last).splitlines() or [b""]
            if not header.startswith(b">") or header[1:].split()[:1] != [name.encode()]:
                return name
            if place and b"".join(blank).strip():
                return before
        return None


def load_index(path: Path, text: Text) -> FastaIndex:
    """The index of a FASTA file: the one beside it if it still fits, else a new one, left there if possible.

    Args:
        path: The FASTA file; its index is ``path`` with ``.fai`` added.
        text: Its uncompressed text.

    Raises:
        GenomeError: The file is no FASTA, or one that no index can describe.
    """
    beside = path.with_name(path.name + ".fai")
    try:
        if beside.stat().st_mtime_ns >= path.stat().st_mtime_ns:
            index = FastaIndex.parse(beside.read_text())
            if len(set(index.names)) == len(index.names) and index.misfit(text) is None:
                return index
        _log.info("%s does not fit %s any more and is made again", beside, path.name)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        _log.info("%s cannot be used (%s) and is made again", beside, error)
    written = _build(path, text)
    index = FastaIndex.parse(written)
    doubles = [name for name, count in Counter(index.names).items() if count > 1]
    if doubles:
        raise GenomeError(
            f"{path}: the contig name {doubles[0]!r} stands more than once ({len(doubles)} such names); "
            "names must be unique up to the first blank: rename or remove the doubles"
        )
    misfit = index.misfit(text)
    if misfit is not None:
        raise GenomeError(f"{path}: the lines of contig {misfit!r} are not of one width; {_REWRAP}")
    _leave(written, beside)
    return index


def _build(path: Path, text: Text) -> str:
    """The text of a new index, made by pyfaidx."""
    from pyfaidx import Faidx, FastaIndexingError

    class StreamIndexer(Faidx):  # type: ignore[misc]
        """pyfaidx's indexer over an open stream: its constructor would want Biopython for a bgzip file."""

        def __init__(self, index: Path) -> None:
            self.filename, self.indexname, self._fai_fs = str(path), str(index), None
            self.file = text.stream()

    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index.fai"
        indexer = StreamIndexer(index)
        try:
            indexer.build_index()
        except (FastaIndexingError, UnicodeDecodeError) as error:
            raise GenomeError(
                f"{path}: cannot be indexed: {error} Check that it is a FASTA; if so, {_REWRAP}"
            ) from None
        finally:
            indexer.file.close()
        return index.read_text()


def _leave(written: str, beside: Path) -> None:
    """Put a new index beside its FASTA, whole or not at all; a folder that cannot be written stays as it is."""
    try:
        with atomic_path(beside) as part:
            part.write_text(written)
    except OSError as error:
        _log.info("the index %s is kept in memory: %s", beside, error)


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
