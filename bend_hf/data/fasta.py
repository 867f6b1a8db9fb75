r"""Copy many intervals of a FASTA text into one array, without a Python step per interval or nucleotide.

``gather`` copies the sequence lines that the intervals touch without their line ends, reverses those of the minus
strand together, brings all letters to upper case and complements the minus strand through one table, and moves each
interval to its place. It works on about a megabyte at a time. ``read_windows`` reads windows of one length, with
letters as in the file: soft-masked ones in lower case.

>>> index = FastaIndex.parse("chr1\t10\t6\t4\t5\n")
>>> window_bytes(index, np.array([0, 0]), np.array([0, 3]), 6).tolist()
[[6, 7, 8, 9, 11, 12], [9, 11, 12, 13, 14, 16]]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.data.fasta_index import FastaIndex
from bend_hf.data.sequences import COMPLEMENT, READ
from bend_hf.types import Bools, Bytes, Ints

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_BYTES: Final = 1 << 20  # working memory is a few times this; more leaves the processor's cache
_WIDEST_TILE: Final = 256
_LONGEST_TILE: Final = 4096
_SHORT_BP: Final = 64  # shorter stretches are moved separately, so that longer ones keep wide tiles
_KEPT_BYTES: Final = 31 << 20

# While a batch is copied, the case of a letter marks its strand: upper case is plus, lower case minus. That is one
# bit, and setting or clearing it turns no other byte into a letter.
_CASE_BIT: Final = 0x20


@dataclass(frozen=True, kw_only=True)
class Stretches:
    """Intervals to copy, and where to; every array has shape (stretches,), and no stretch is empty.

    Attributes:
        contig: Number of the contig in the index.
        start_bp: First nucleotide on the contig.
        end_bp: Position after the last nucleotide, within the contig.
        minus: Whether to read the minus strand.
        destination: Position of the first letter in the result.
    """

    contig: Ints
    start_bp: Ints
    end_bp: Ints
    minus: Bools
    destination: Ints

    def between(self, low: int, high: int) -> Stretches:
        """Return a range of the stretches."""
        return self.take(slice(low, high))

    def take(self, which: Ints | slice) -> Stretches:
        """Return some of the stretches."""
        return Stretches(
            contig=self.contig[which],
            start_bp=self.start_bp[which],
            end_bp=self.end_bp[which],
            minus=self.minus[which],
            destination=self.destination[which],
        )


class InvalidNucleotideError(Exception):
    """A byte that is not a nucleotide, at a position of a contig."""

    def __init__(self, contig: int, base: int) -> None:
        super().__init__(contig, base)
        self.contig = contig
        self.base = base


def tile_width(index: FastaIndex) -> int:
    """Return how many bytes are copied at once: a line of the longest contig, unless lines are very long."""
    return int(min(index.line_bp[np.argmax(index.lengths_bp)], _WIDEST_TILE))


def gather(text: Bytes, index: FastaIndex, stretches: Stretches, out: Bytes) -> None:
    """Write the upper-case letters of all stretches into ``out``.

    Args:
        text: The FASTA text.
        index: Its index.
        stretches: What to copy, in any order; overlaps are allowed.
        out: Receives the letters, shape (nucleotides,).

    Raises:
        InvalidNucleotideError: A stretch contains a byte that is not a nucleotide.
    """
    _keep_freed_memory()
    stretches = _cut(stretches)
    if not len(stretches.contig):
        return
    in_tile = stretches.start_bp % index.line_bp[stretches.contig] % tile_width(index)
    first = index.byte_of(stretches.contig, stretches.start_bp - in_tile)
    if (first[1:] < first[:-1]).any():  # in the order of the file, so that a disk reads onward
        order = np.argsort(first)
        stretches, first = stretches.take(order), first[order]
    cost = np.cumsum(stretches.end_bp - stretches.start_bp)
    borders = np.flatnonzero(np.diff(cost // _BATCH_BYTES)) + 1
    for low, high in zip([0, *borders.tolist()], [*borders.tolist(), len(first)], strict=True):
        _copy(text, index, stretches.between(low, high), out)
    if not out.min():
        raise _strange(int(np.argmin(out)), stretches)


def _cut(stretches: Stretches) -> Stretches:
    """Cut stretches that are longer than a batch, so that a whole chromosome needs no more working memory."""
    length_bp = stretches.end_bp - stretches.start_bp
    if not len(length_bp) or length_bp.max() <= _BATCH_BYTES:
        return stretches
    n_cuts = -(-length_bp // _BATCH_BYTES)
    owner = np.repeat(np.arange(len(length_bp)), n_cuts)
    into_bp = (np.arange(len(owner)) - np.repeat(np.cumsum(n_cuts) - n_cuts, n_cuts)) * _BATCH_BYTES
    whole = stretches.take(owner)
    start_bp = whole.start_bp + into_bp
    end_bp = np.minimum(start_bp + _BATCH_BYTES, whole.end_bp)
    into_result = np.where(whole.minus, whole.end_bp - end_bp, into_bp)
    return replace(whole, start_bp=start_bp, end_bp=end_bp, destination=whole.destination + into_result)


def _copy(text: Bytes, index: FastaIndex, batch: Stretches, out: Bytes) -> None:
    """Write the letters of one batch of stretches; bytes that are not nucleotides become 0."""
    n_plus = len(batch.minus) - int(np.count_nonzero(batch.minus))
    by_strand = np.concatenate([np.flatnonzero(~batch.minus), np.flatnonzero(batch.minus)])
    batch = batch.take(by_strand)
    length_bp = batch.end_bp - batch.start_bp
    lines, at = _copy_lines(text, index, batch)
    border = int(at[n_plus]) if n_plus < len(at) else len(lines)
    lines[:border] &= 0xFF ^ _CASE_BIT
    np.bitwise_or(_reversed(lines[border:]), _CASE_BIT, out=lines[border:])
    at[n_plus:] = border + len(lines) - (at + length_bp)[n_plus:]
    _move(_translate(lines), at, out, batch.destination, length_bp)


def _strange(place: int, stretches: Stretches) -> InvalidNucleotideError:
    """Find the nucleotide and contig at a position of the result."""
    behind = place - stretches.destination
    which = int(np.flatnonzero((behind >= 0) & (behind < stretches.end_bp - stretches.start_bp))[0])
    bp = int(behind[which])
    base = int(stretches.end_bp[which]) - 1 - bp if stretches.minus[which] else int(stretches.start_bp[which]) + bp
    return InvalidNucleotideError(int(stretches.contig[which]), base)


def _copy_lines(text: Bytes, index: FastaIndex, batch: Stretches) -> tuple[Bytes, Ints]:
    """Copy the sequence lines that some stretches touch, without line ends.

    Args:
        text: The FASTA text.
        index: Index of the FASTA text.
        batch: The stretches, those of the plus strand first.

    Returns:
        Letters, and where each stretch starts among them; bytes between stretches are undefined.
    """
    width = tile_width(index)
    if len(text) < width:
        text = np.concatenate([text, np.zeros(width - len(text), np.uint8)])
    line_bp, line_bytes = index.line_bp[batch.contig], index.line_bytes[batch.contig]
    origin = index.offsets[batch.contig]
    one_line = index.lengths_bp[batch.contig] <= line_bp
    line = batch.start_bp // line_bp
    column = batch.start_bp - line * line_bp
    if ((line_bp == width) | one_line).all():
        # Lines as wide as a tile, or a contig without line ends: tiles follow each other at one distance.
        skip = column % width
        n_tiles = -(-(batch.end_bp - batch.start_bp + skip) // width)
        step = np.where(one_line, width, line_bytes)
        before = np.cumsum(n_tiles) - n_tiles
        byte = origin + line * line_bytes + column - skip
        if int((byte + (n_tiles - 1) * step).max()) + width <= len(text):
            distance = np.repeat(step, n_tiles) if step.min() < step.max() else step[0]
            tiles = np.repeat(byte - before * step, n_tiles) + np.arange(n_tiles.sum()) * distance
            return _elements(text, width)[tiles].view(np.uint8), before * width + skip

    tiles_per_line = -(-line_bp // width)
    first_tile = line * tiles_per_line + column // width
    line = (batch.end_bp - 1) // line_bp
    column = batch.end_bp - 1 - line * line_bp
    n_tiles = line * tiles_per_line + column // width + 1 - first_tile
    owner = np.repeat(np.arange(len(n_tiles)), n_tiles)
    tile = np.arange(len(owner)) + (first_tile - np.cumsum(n_tiles) + n_tiles)[owner]
    line, in_line = np.divmod(tile, tiles_per_line[owner])
    in_line *= width
    base = line * line_bp[owner] + in_line
    byte = origin[owner] + line * line_bytes[owner] + in_line
    skip = np.maximum(batch.start_bp[owner] - base, 0)
    stop = np.minimum(batch.end_bp[owner] - base, np.minimum(line_bp[owner] - in_line, width))
    beyond = np.maximum(byte - (len(text) - width), 0)  # a tile may not reach past the text: begin it earlier
    byte, skip, stop = byte - beyond, skip + beyond, stop + beyond
    counts = np.stack([skip, stop - skip, width - stop], axis=1).ravel()
    inside = np.repeat(np.tile(np.array([False, True, False]), len(owner)), counts)
    length_bp = batch.end_bp - batch.start_bp
    return _elements(text, width)[byte].view(np.uint8)[inside], np.cumsum(length_bp) - length_bp


def _elements(letters: Bytes, width: int) -> NDArray[np.void]:
    """Return a view whose element k is the ``width`` bytes from k on, so that each is copied at once."""
    return np.ndarray((len(letters) - width + 1,), dtype=f"V{width}", buffer=letters, strides=(1,))


def _move(letters: Bytes, at: Ints, out: Bytes, to: Ints, length_bp: Ints) -> None:
    """Copy stretches of different lengths from the letters to the result.

    Each is copied in tiles of one width, the last of which ends where the stretch ends and overlaps the one before.
    """
    short = length_bp < _SHORT_BP
    if short.any() and not short.all():
        for some in (short, ~short):
            _move(letters, at[some], out, to[some], length_bp[some])
        return
    width = min(int(length_bp.min()), _LONGEST_TILE)
    source, target = _elements(letters, width), _elements(out, width)
    if int(length_bp.max()) == width:
        target[to] = source[at]
        return
    n_tiles = -(-length_bp // width)
    before = np.cumsum(n_tiles) - n_tiles
    into_bp = (np.arange(n_tiles.sum()) - np.repeat(before, n_tiles)) * width
    into_bp = np.minimum(into_bp, np.repeat(length_bp - width, n_tiles))
    target[np.repeat(to, n_tiles) + into_bp] = source[np.repeat(at, n_tiles) + into_bp]


def _reversed(letters: Bytes) -> Bytes:
    """Reverse the letters, eight at a time."""
    words = np.zeros(-(-len(letters) // 8), np.uint64)
    words.view(np.uint8)[len(words) * 8 - len(letters) :] = letters
    return words[::-1].byteswap().view(np.uint8)[: len(letters)]


@cache
def _tables() -> tuple[pa.Array, pa.Array]:
    """Return what each marked letter becomes, and each pair of them; 0 for other bytes."""
    import pyarrow as pa

    one = np.zeros(256, np.uint8)
    upper, lower = slice(ord("A"), ord("Z") + 1), slice(ord("a"), ord("z") + 1)
    one[upper] = np.frombuffer(READ, np.uint8)[upper]
    one[lower] = np.frombuffer(COMPLEMENT, np.uint8)[lower]
    pairs = one[np.arange(1 << 16, dtype=np.uint16).view(np.uint8)].view(np.uint16)
    return pa.array(one), pa.array(pairs)


def _translate(marked: Bytes) -> Bytes:
    """Translate marked letters to upper-case ones, two at a time if their number is even."""
    import pyarrow as pa
    import pyarrow.compute as pc

    one, pairs = _tables()
    if len(marked) % 2:
        table, codes = one, marked
    else:
        table, codes = pairs, marked.view(np.uint16)
    letters: Bytes = pc.take(table, pa.array(codes), boundscheck=False).to_numpy().view(np.uint8)
    return letters


@cache
def _keep_freed_memory() -> None:
    """Let the allocator keep the memory that a batch frees for the next one, which makes reading about twice as fast.

    glibc returns a large block to the kernel when it is freed, and every page of the next one is mapped and cleared
    again, until a block of up to 32 MiB was freed once (mallopt(3), M_MMAP_THRESHOLD: the threshold is dynamic). This
    block is never touched, so it takes no memory; other allocators are not affected.
    """
    np.empty(_KEPT_BYTES, np.uint8)


def read_windows(text: Bytes, index: FastaIndex, contig: Ints, start_bp: Ints, window_bp: int) -> Bytes:
    """Read windows that lie on their contigs.

    Args:
        text: The FASTA text.
        index: Its index.
        contig: Number of each window's contig, shape (windows,).
        start_bp: First nucleotide of each, shape (windows,).
        window_bp: Nucleotides in each.

    Returns:
        ASCII letters, shape (windows, nucleotides).
    """
    if not start_bp.size or not window_bp:
        return np.zeros((len(start_bp), window_bp), np.uint8)
    letters: Bytes = text[window_bytes(index, contig, start_bp, window_bp)]
    return letters


def window_bytes(index: FastaIndex, contig: Ints, start_bp: Ints, window_bp: int) -> Ints:
    """Return the byte position of each letter of each window, shape (windows, nucleotides)."""
    line_bp, line_end = index.line_bp[contig], (index.line_bytes - index.line_bp)[contig]
    column = start_bp % line_bp
    within = np.arange(window_bp)
    first = index.byte_of(contig, start_bp)
    if (line_bp == line_bp[0]).all():  # a division by one number is several times faster
        lines = (column[:, None] + within) // line_bp[0]
    else:
        lines = (column[:, None] + within) // line_bp[:, None]
    byte: Ints = (first[:, None] + within) + lines * line_end[:, None]
    return byte
