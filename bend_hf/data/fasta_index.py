"""Where each contig stands inside a FASTA file: the ``.fai`` index of samtools and pyfaidx, kept honest.

For the genome: finds the index beside the file, or makes it there with pyfaidx, or in memory where the folder
cannot be written.

>>> FastaIndex.parse("chr1\\t120\\t6\\t60\\t61\\n").lengths_bp.tolist()
[120]
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import tempfile
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import numpy as np

from bend_hf.errors import GenomeError
from bend_hf.shapes import Bytes, Ints

_log = logging.getLogger(__name__)
_CHECKED_CONTIGS: Final = 256  # enough to notice an index of another file; a human assembly has fewer
_HEADER_BYTES: Final = 1 << 16  # a longer gap between two contigs is no header line
_REWRAP = "rewrap its sequence lines to one width, for example with `seqtk seq -l 60`, and try again"


class Text(Protocol):
    """The uncompressed text of a FASTA file; see `bend_hf.data.bgzf.BgzfText` for what the parts do."""

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
    partial = beside.with_name(f".{beside.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        partial.write_text(written)
        partial.replace(beside)
    except OSError as error:
        _log.info("the index %s is kept in memory: %s", beside, error)
        with contextlib.suppress(OSError):
            partial.unlink()
