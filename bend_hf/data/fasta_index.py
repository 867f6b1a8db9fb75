r"""Find each contig inside a FASTA file: its ``.fai`` index, and one plain text for compressed files.

An index next to the file, as samtools writes it, is used if it fits the file; otherwise a new one is made and left
there, or kept in memory if the folder cannot be written. A file that gzip or bgzip compressed is inflated once into
the cache folder, so that every genome is read as plain text.

>>> FastaIndex.parse("chr1\t120\t6\t60\t61\n").lengths_bp.tolist()
[120]
"""

from __future__ import annotations

import gzip
import logging
import mmap
import shutil
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bend_hf.data.gzip_files import open_gzip
from bend_hf.errors import GenomeError
from bend_hf.files import UTF8_MARK, atomic_path, cache_folder, file_sha256
from bend_hf.lease import Watch, take
from bend_hf.tables import n_bytes
from bend_hf.types import Bytes, Ints

_log = logging.getLogger(__name__)
_CHECKED_CONTIGS: Final = 256  # enough to notice an index of another file; a human assembly has fewer
_HEADER_BYTES: Final = 1 << 16  # a longer gap between two contigs is not a header line
_COUNTED_BYTES: Final = 1 << 24  # text whose blanks and line ends are counted at one time
_REWRAP: Final = "rewrap its sequence lines to one width, for example with `seqtk seq -l 60`, and try again"

_GZIP_MAGIC: Final = b"\x1f\x8b"  # RFC 1952, section 2.3.1
# SAM/BAM format specification, section 4.1: bgzip marks its blocks by an extra field BC, and ends a file with an empty
# block, without which the file was cut.
_BGZIP_MARK: Final = b"BC\x02\x00"
_BGZIP_END: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_USUAL_RATIO: Final = 4  # nucleotides in ASCII against gzip, as for the human assemblies of GENCODE
_WORTH_A_MESSAGE_BYTES: Final = 10_000_000
_WAIT_S: Final = 0.2


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
            ValueError: It is not the text of a ``.fai`` file.
        """
        # not splitlines, which also cuts at characters that a name may hold
        rows = [line.rstrip("\r").split("\t") for line in text.removesuffix("\n").split("\n")]
        if not rows or any(len(row) != 5 for row in rows):
            raise ValueError("a .fai file has five columns")
        try:
            numbers = np.array([row[1:] for row in rows], np.int64)
        except OverflowError as error:
            raise ValueError("a .fai file holds numbers of 64 bits") from error
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
        """Return the byte position of each nucleotide; all arrays have one shape."""
        line: Ints = base // self.line_bp[contig]
        column = base - line * self.line_bp[contig]
        return self.offsets[contig] + line * self.line_bytes[contig] + column

    def misfit(self, raw: mmap.mmap) -> str | None:
        """Return the name of a contig whose borders are wrong in a text; None if the index fits.

        The last line of a contig must begin after a line end, and between two contigs there must be a header line
        with the second one's name and nothing else. Up to 256 contigs, evenly spread, are checked.
        """
        order: list[int] = np.argsort(self.offsets, kind="stable").tolist()
        mark = len_of_mark(raw)
        n_steps = min(_CHECKED_CONTIGS, len(order))
        for place in (step * len(order) // n_steps for step in range(n_steps + 1)):
            first, before = 0, ""
            if place:
                before = self.names[order[place - 1]]
                line_start, first = self._last_line(order[place - 1])
                if first > len(raw) or raw[line_start - 1 : line_start] != b"\n":
                    return before
            if place == len(order):
                return before if raw[first : first + _HEADER_BYTES].strip() else None
            name, last = self.names[order[place]], int(self.offsets[order[place]])
            if not first < last <= len(raw) or last - first > _HEADER_BYTES:
                return name
            *blank, header = raw[first or mark : last].splitlines() or [b""]
            if not header.startswith(b">") or header[1:].split()[:1] != [name.encode()]:
                return name
            if place and b"".join(blank).strip():
                return before
        return None

    def _last_line(self, number: int) -> tuple[int, int]:
        """Return the byte where the last line of a contig begins, and the byte after its last nucleotide."""
        contig = np.array([number])
        last_bp = np.maximum(self.lengths_bp[contig] - 1, 0)
        line_start = self.byte_of(contig, last_bp // self.line_bp[contig] * self.line_bp[contig])
        return int(line_start[0]), int(self.byte_of(contig, last_bp)[0]) + int(self.lengths_bp[number] > 0)


def load_index(path: Path, raw: mmap.mmap, *, name: Path | None = None) -> FastaIndex:
    """Read the index next to a FASTA file if it fits; otherwise make one and leave it there if possible.

    Args:
        path: The plain FASTA file; its index is ``path`` with ``.fai`` added.
        raw: The file, mapped into memory.
        name: The file to name in messages, if it is not ``path``.

    Raises:
        GenomeError: The file is not a FASTA file, or its lines do not have one width.
    """
    name = name or path
    index_path = path.with_name(path.name + ".fai")
    try:
        if index_path.stat().st_mtime_ns >= path.stat().st_mtime_ns:
            index = FastaIndex.parse(index_path.read_text(encoding="utf-8"))
            if len(set(index.names)) == len(index.names) and index.misfit(raw) is None:
                return index
        _log.info("%s does not fit %s any more and is made again", index_path, path.name)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        _log.info("%s cannot be used (%s) and is made again", index_path, error)
    written = _index_text(raw, name)
    index = FastaIndex.parse(written)
    doubles = [contig for contig, count in Counter(index.names).items() if count > 1]
    if doubles:
        raise GenomeError(
            f"{name}: the contig name {doubles[0]!r} occurs more than once ({len(doubles)} such names); "
            "names must be unique up to the first blank. Rename or remove the doubles"
        )
    try:
        with atomic_path(index_path) as part:
            part.write_text(written, encoding="utf-8")
    except OSError as error:
        _log.info("the index %s is kept in memory: %s", index_path, error)
    return index


def len_of_mark(raw: bytes | mmap.mmap) -> int:
    """Return the number of bytes of the byte order mark that a text begins with; 0 without one."""
    return len(UTF8_MARK) if raw[: len(UTF8_MARK)] == UTF8_MARK else 0


def _index_text(raw: mmap.mmap, path: Path) -> str:
    """Write the ``.fai`` lines of a FASTA text, as samtools faidx does.

    Raises:
        GenomeError: The file is not a FASTA file, or its lines do not have one width.
    """
    text = np.frombuffer(raw, np.uint8)
    mark = len_of_mark(raw)
    header = mark if raw[mark : mark + 1] == b">" else raw.find(b"\n>") + 1
    before = [line for line in raw[mark:header].splitlines() if line.strip() and not line.startswith(b";")]
    if before or raw[header : header + 1] != b">":
        raise GenomeError(f"{path} cannot be indexed: its first line that is not a comment does not begin with '>'")
    rows = []
    while True:
        start = raw.find(b"\n", header) + 1 or len(raw)
        following = raw.find(b"\n>", start - 1)
        end = len(raw) if following < 0 else following + 1
        try:
            name = raw[header + 1 : start].split()[0].decode()
        except (IndexError, UnicodeDecodeError):
            raise GenomeError(
                f"{path} cannot be indexed: the header {raw[header : min(start, header + 40)]!r} has no readable name. "
                "Write a name after '>'"
            ) from None
        if b"\r" in raw[header:start].rstrip(b"\r\n"):
            raise GenomeError(
                f"{path} cannot be indexed: its lines end with carriage returns alone; expected line feeds. Convert "
                r"it, for example with `tr '\r' '\n'`"
            )
        lines = _measure(raw, text, start, end)
        if lines is None:
            raise GenomeError(f"{path}: the lines of contig {name!r} do not have one width, or hold blanks; {_REWRAP}")
        rows.append("\t".join(map(str, (name, lines[0], start, *lines[1:]))) + "\n")
        if following < 0:
            return "".join(rows)
        header = end


def _measure(raw: mmap.mmap, text: Bytes, start: int, end: int) -> tuple[int, int, int] | None:
    """Measure the lines of a contig between two bytes: nucleotides of all, nucleotides and bytes of a full line.

    Returns:
        None if the lines, apart from a shorter last one, do not have one width, or blanks are not at the same places
        behind all of them.
    """
    first = raw.find(b"\n", start, end)
    line_bytes = (first + 1 if first >= 0 else end) - start
    line_bp = len(raw[start : start + line_bytes].rstrip(b"\r\n \t"))
    while end > start and raw[end - 1] in b"\r\n \t":
        end -= 1
    n_full = max(end - start - 1, 0) // line_bytes if line_bytes else 0
    if end - start - n_full * line_bytes > line_bp:
        return None
    n_blanks = sum(
        int(np.count_nonzero(text[at : min(at + _COUNTED_BYTES, end)] <= ord(" ")))
        for at in range(start, end, _COUNTED_BYTES)
    )
    if n_blanks != n_full * (line_bytes - line_bp):
        return None
    line_ends = text[start + line_bytes - 1 : end : line_bytes] if n_full else text[:0]
    behind = [text[start + at : end : line_bytes][:n_full] for at in range(line_bp, line_bytes - 1)] if n_full else []
    if not (line_ends == ord("\n")).all() or not all((column <= ord(" ")).all() for column in behind):
        return None
    return end - start - n_full * (line_bytes - line_bp), line_bp, line_bytes


def is_gzip(head: bytes) -> bool:
    """Whether a file that begins with these bytes is compressed with gzip or bgzip."""
    return head.startswith(_GZIP_MAGIC)


def inflated(path: Path) -> Path:
    """Inflate a FASTA file that gzip or bgzip compressed, once, and return the plain copy.

    The copy is in ``genomes`` below the cache folder (see ``bend_hf.files.cache_folder``), named by the file's
    content, so that a changed file is never read from an old copy. The copy's own sha256 is kept next to it; a copy
    that was altered is made again. Of several processes one inflates, and the others wait for it.

    Raises:
        GenomeError: The file is truncated or damaged, or the copy cannot be written.
    """
    copy = cache_folder("genomes") / f"{file_sha256(path)[:32]}.fa"
    watch = Watch()
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        while not _is_whole(copy):
            lease = take(copy.with_suffix(".lock"), watch)
            if lease is None:
                time.sleep(_WAIT_S)
                continue
            with lease:
                if not _is_whole(copy):
                    _inflate(path, copy)
    except OSError as error:
        raise GenomeError(
            f"{path} cannot be inflated into {copy} ({error}); free some space, or set BEND_HF_CACHE to another folder"
        ) from error
    return copy


def _is_whole(copy: Path) -> bool:
    """Whether a plain copy is there as it was written."""
    try:
        stated = _sum_of(copy).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return False
    return copy.is_file() and file_sha256(copy) == stated


def _sum_of(copy: Path) -> Path:
    return copy.with_suffix(".sha256")


def _inflate(path: Path, copy: Path) -> None:
    size = path.stat().st_size
    if size >= _WORTH_A_MESSAGE_BYTES:
        _log.info(
            "%s (%s) is inflated once into %s, about %s",
            *(path, n_bytes(size), copy, n_bytes(size * _USUAL_RATIO)),
        )
    try:
        with atomic_path(copy) as part:
            with open_gzip(path) as packed, part.open("wb") as text:
                shutil.copyfileobj(packed, text, 1 << 22)
            if _is_cut_bgzip(path):
                raise EOFError("the empty block that ends a bgzip file is missing")
        with atomic_path(_sum_of(copy)) as part:
            part.write_text(file_sha256(copy), encoding="utf-8")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise GenomeError(f"{path} is truncated or damaged ({error}); download or compress it again") from error


def _is_cut_bgzip(path: Path) -> bool:
    """Whether a file begins as bgzip files do, but does not end as they do."""
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(-min(len(_BGZIP_END), path.stat().st_size), 2)
        return head[12:] == _BGZIP_MARK and file.read() != _BGZIP_END
