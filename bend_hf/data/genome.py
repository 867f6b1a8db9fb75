r"""The reference genome: the sequences of many intervals at once, from an indexed FASTA file.

>>> from pathlib import Path; from tempfile import mkdtemp
>>> fasta = Path(mkdtemp()) / "tiny.fa"
>>> _ = fasta.write_text(">chr1\nACGTacgtNN\n")
>>> genome = Genome(fasta)
>>> genome.fetch(["chr1", "chr1"], [0, 2], [4, 6], [1, -1]).to_arrow().to_pylist()
['ACGT', 'GTAC']

The file is mapped into memory, so one ``Genome`` works in forked processes, and is pickled by its path into spawned
ones. See ``bend_hf.data.fasta_index`` for compressed files and the index.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from bend_hf.data.bed import name_rows
from bend_hf.data.fasta import InvalidNucleotideError, Stretches, gather, read_windows
from bend_hf.data.fasta_index import FastaIndex, inflated, is_gzip, len_of_mark, load_index
from bend_hf.data.sequences import SequenceBatch
from bend_hf.errors import GenomeError, did_you_mean
from bend_hf.files import FileState, check_regular, file_sha256, file_state, state_of
from bend_hf.types import Bools, Bytes, Ints, OutOfBounds

if TYPE_CHECKING:
    import pyarrow as pa

OUT_OF_BOUNDS: Final[tuple[OutOfBounds, ...]] = ("error", "pad", "drop")
Describe: TypeAlias = Callable[[int], str]
_LISTED: Final = 10  # contigs that a message names


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Intervals with their contigs; every array has shape (intervals,)."""

    contig: Ints
    start_bp: Ints
    end_bp: Ints
    minus: Bools
    inside: Bools

    def between(self, low: int, high: int) -> _Places:
        """Return a range of the intervals."""
        cut = slice(low, high)
        return _Places(
            contig=self.contig[cut],
            start_bp=self.start_bp[cut],
            end_bp=self.end_bp[cut],
            minus=self.minus[cut],
            inside=self.inside[cut],
        )


def _any_row(row: int) -> str:
    return f"row {row} (counted from 0)"


class Genome:
    """One FASTA file.

    Args:
        path: The file, plain or compressed with gzip or bgzip. A compressed file is inflated once into the cache.

    Raises:
        GenomeError: The file is missing, empty, truncated or not a FASTA file, or names a contig twice.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._open()

    def _open(self, known: tuple[FileState, FastaIndex] | None = None) -> None:
        """Map the file into memory, and read its index unless it is known for the file as it is."""
        self._state, plain, raw = _map_fasta(self.path)
        self._text: Bytes = np.frombuffer(raw, np.uint8)
        if known is not None and known[0] == self._state:
            self._index = known[1]
        else:
            self._index = load_index(plain, raw, name=self.path)

    def __getstate__(self) -> tuple[Path, FileState, FastaIndex]:
        return self.path.absolute(), self._state, self._index

    def __setstate__(self, state: tuple[Path, FileState, FastaIndex]) -> None:
        self.path = state[0]
        self._open(state[1:])

    def __repr__(self) -> str:
        return f"Genome({str(self.path)!r}, {len(self.contigs)} contigs)"

    @cached_property
    def contigs(self) -> dict[str, int]:
        """Length of each contig in nucleotides, in the order of the file."""
        return dict(zip(self._index.names, self._index.lengths_bp.tolist(), strict=True))

    @property
    def sha256(self) -> str:
        """The sha256 of the file (compressed if it is), remembered between runs while the file stays unchanged.

        Raises:
            GenomeError: The file is not the one that was opened, so that its hash would name what was not read.
        """
        digest = file_sha256(self.path)
        if not file_state(self.path).holds_what(self._state):
            raise GenomeError(f"{self.path} changed after it was opened; repeat the command")
        return digest

    def fetch(
        self,
        chromosomes: pa.Array | pa.ChunkedArray | Sequence[str],
        start_bp: ArrayLike,
        end_bp: ArrayLike,
        strand: ArrayLike | None = None,
        *,
        out_of_bounds: OutOfBounds | None = None,
        describe: Describe = _any_row,
    ) -> SequenceBatch:
        """Read the sequences of all intervals in upper case, those of the minus strand as reverse complements.

        Needs the memory of the sequences and a few megabytes. U is read as T.

        Args:
            chromosomes: Contig name of each interval, shape (intervals,); a dictionary array is fastest.
            start_bp: First nucleotide, 0-based, shape (intervals,).
            end_bp: Position after the last nucleotide, shape (intervals,).
            strand: 1 or -1 for each interval, shape (intervals,); None means plus for all.
            out_of_bounds: For intervals that reach past an end of their contig: ``error`` raises, ``pad`` writes N for
                each missing nucleotide, ``drop`` drops the interval. The batch counts the changes. None raises as
                ``error`` does, but the message offers no choice.
            describe: Names an interval, given its number, in messages.

        Raises:
            GenomeError: A contig is not in the file, a start exceeds its end, an interval reaches past an end of its
                contig and ``out_of_bounds`` is ``error``, or a letter is not a nucleotide.
        """
        places = self._resolve(chromosomes, start_bp, end_bp, strand, out_of_bounds, describe)
        return self._read(places, 0, len(places.contig), out_of_bounds, describe)

    def fetch_iter(  # noqa: PLR0913  the arguments of fetch, and a batch size
        self,
        chromosomes: pa.Array | pa.ChunkedArray | Sequence[str],
        start_bp: ArrayLike,
        end_bp: ArrayLike,
        strand: ArrayLike | None = None,
        *,
        rows_per_batch: int = 20_000,
        out_of_bounds: OutOfBounds | None = None,
        describe: Describe = _any_row,
    ) -> Iterator[SequenceBatch]:
        r"""Read as ``fetch`` does, in batches, so that millions of intervals need the memory of one batch.

        All intervals are checked before the first batch is read. Batch k holds the intervals from
        ``k * rows_per_batch`` on, and its ``kept`` refers to these.

        >>> from pathlib import Path; from tempfile import mkdtemp
        >>> fasta = Path(mkdtemp()) / "tiny.fa"
        >>> _ = fasta.write_text(">chr1\nACGTTT\n")
        >>> batches = Genome(fasta).fetch_iter(["chr1"] * 3, [0, 1, 2], [3, 4, 5], rows_per_batch=2)
        >>> [batch.to_arrow().to_pylist() for batch in batches]
        [['ACG', 'CGT'], ['GTT']]
        """
        if rows_per_batch < 1:
            raise ValueError(f"rows_per_batch is {rows_per_batch}; it must be 1 or more")
        places = self._resolve(chromosomes, start_bp, end_bp, strand, out_of_bounds, describe)
        n_rows = len(places.contig)
        return (
            self._read(places, low, min(low + rows_per_batch, n_rows), out_of_bounds, describe)
            for low in range(0, n_rows, rows_per_batch)
        )

    def base_at(
        self,
        chromosomes: pa.Array | pa.ChunkedArray | Sequence[str],
        position_bp: ArrayLike,
        *,
        describe: Describe = _any_row,
    ) -> Bytes:
        """Read the nucleotides at single positions, as upper-case ASCII, shape (positions,).

        Args:
            chromosomes: Contig name of each position, shape (positions,).
            position_bp: 0-based positions, shape (positions,).
            describe: Names a position, given its number, in messages.
        """
        position = np.asarray(position_bp, np.int64)
        return self.fetch(chromosomes, position, position + 1, describe=describe).bases

    def windows(self, contig: Ints, start_bp: Ints, window_bp: int) -> Bytes:
        """Read windows of one length on the plus strand, letters as in the file: soft-masked ones in lower case.

        Args:
            contig: Number of each window's contig in the order of the file, shape (windows,).
            start_bp: First nucleotide of each, 0-based, shape (windows,).
            window_bp: Nucleotides in each.

        Returns:
            ASCII letters, shape (windows, nucleotides).

        Raises:
            GenomeError: A window reaches past an end of its contig.
        """
        outside = np.flatnonzero((start_bp < 0) | (start_bp + window_bp > self._index.lengths_bp[contig]))
        if len(outside):
            first = f"{self._index.names[contig[outside[0]]]}:{start_bp[outside[0]]}-{start_bp[outside[0]] + window_bp}"
            raise GenomeError(
                f"{len(outside)} windows reach past an end of their contig in {self.path}, the first is {first}; "
                "take windows that lie on their contig"
            )
        return read_windows(self._text, self._index, contig, start_bp, window_bp)

    def _resolve(
        self,
        chromosomes: pa.Array | pa.ChunkedArray | Sequence[str],
        start_bp: ArrayLike,
        end_bp: ArrayLike,
        strand: ArrayLike | None,
        out_of_bounds: OutOfBounds | None,
        describe: Describe,
    ) -> _Places:
        """Find the contigs of all intervals, and check the intervals."""
        if out_of_bounds is not None and out_of_bounds not in OUT_OF_BOUNDS:
            raise ValueError(f"out_of_bounds is {out_of_bounds!r}; expected one of {OUT_OF_BOUNDS}")
        contig = self._contig_of(chromosomes, describe)
        start, end = np.asarray(start_bp, np.int64), np.asarray(end_bp, np.int64)
        turn = np.ones(len(contig), np.int8) if strand is None else np.asarray(strand)
        if not start.shape == end.shape == turn.shape == contig.shape:
            raise ValueError(
                f"{len(contig)} chromosomes, starts {start.shape}, ends {end.shape} and strands {turn.shape} "
                "must be of one length"
            )
        if ((turn != 1) & (turn != -1)).any():
            raise ValueError("a strand is neither 1 nor -1; pass 1 for plus and -1 for minus")

        def interval(row: int) -> str:
            name = self._index.names[contig[row]]
            return f"{describe(row)} ({name}:{start[row]}-{end[row]}, {name} has {self.contigs[name]} bp)"

        backwards = np.flatnonzero(start > end)
        if len(backwards):
            raise GenomeError(
                f"start must not exceed end (0-based, half-open): {name_rows(backwards, interval)}. "
                "Correct these intervals"
            )
        inside = (start >= 0) & (end <= self._index.lengths_bp[contig])
        if out_of_bounds in (None, "error") and not inside.all():
            remedy = "take the line out" if out_of_bounds is None else "pass --out-of-bounds pad (fill with N) or drop"
            raise GenomeError(
                f"an interval reaches past the end of its contig in {self.path}: "
                f"{name_rows(np.flatnonzero(~inside), interval)}; check that the file belongs to this assembly, or "
                f"{remedy}"
            )
        return _Places(contig=contig, start_bp=start, end_bp=end, minus=turn < 0, inside=inside)

    def _read(
        self, places: _Places, low: int, high: int, out_of_bounds: OutOfBounds | None, describe: Describe
    ) -> SequenceBatch:
        """Read the sequences of a range of checked intervals."""
        here = places.between(low, high)
        kept = here.inside if out_of_bounds == "drop" else np.ones(high - low, np.bool_)
        rows = np.flatnonzero(kept)
        contig, minus = here.contig[rows], here.minus[rows]
        start, end = here.start_bp[rows], here.end_bp[rows]
        offsets = np.concatenate([[0], np.cumsum(end - start)])
        there_start = np.clip(start, 0, self._index.lengths_bp[contig])
        there_end = np.clip(end, 0, self._index.lengths_bp[contig])
        n_padded = (end - start) - (there_end - there_start)
        bases = np.full(offsets[-1], ord("N"), np.uint8) if n_padded.any() else np.empty(offsets[-1], np.uint8)
        stretches = Stretches(
            contig=contig,
            start_bp=there_start,
            end_bp=there_end,
            minus=minus,
            destination=offsets[:-1] + np.where(minus, end - there_end, there_start - start),
        )
        try:
            gather(self._text, self._index, stretches.take(np.flatnonzero(there_start < there_end)), bases)
        except InvalidNucleotideError as strange:
            covers = (contig == strange.contig) & (start <= strange.base) & (strange.base < end)
            raise GenomeError(self._strange(strange, describe(low + int(rows[covers][0])))) from None
        return SequenceBatch(
            bases=bases,
            offsets=offsets,
            kept=kept,
            n_padded_bp=int(n_padded.sum()),
            n_padded_rows=int((n_padded > 0).sum()),
            n_dropped_rows=int((~kept).sum()),
        )

    def _strange(self, strange: InvalidNucleotideError, row: str) -> str:
        byte = int(self._index.byte_of(np.array([strange.contig]), np.array([strange.base]))[0])
        letter = chr(self._text[byte])
        return (
            f"{self.path}: {letter!r} at {self._index.names[strange.contig]}:{strange.base} is not a nucleotide "
            f"({row}); check that the file is a DNA FASTA and did not change while in use. Write N for unknown letters"
        )

    def _contig_of(self, chromosomes: pa.Array | pa.ChunkedArray | Sequence[str], describe: Describe) -> Ints:
        """Return the number in the index of each interval's contig."""
        import pyarrow as pa

        names = (
            chromosomes if isinstance(chromosomes, pa.Array | pa.ChunkedArray) else pa.array(chromosomes, pa.string())
        )
        if not pa.types.is_dictionary(names.type):
            names = names.dictionary_encode()
        if isinstance(names, pa.ChunkedArray):
            names = names.unify_dictionaries().combine_chunks()
        if isinstance(names, pa.ChunkedArray):  # in older releases of pyarrow, if it is empty
            return np.zeros(0, np.int64)
        if names.null_count:
            raise GenomeError(f"{describe(int(np.flatnonzero(names.is_null())[0]))} has no chromosome; write one")
        used = names.dictionary.to_pylist()
        number = {name: at for at, name in enumerate(self._index.names)}
        number_of = np.array([number.get(name, -1) for name in used], np.int64)
        codes = names.indices.to_numpy().astype(np.int64)
        contig: Ints = number_of[codes] if len(codes) else codes
        missing = np.flatnonzero(contig < 0)
        if len(missing):
            hints = [f"{used[code]!r}: {self._hint(used[code])}" for code in dict.fromkeys(codes[missing].tolist())]

            def named(row: int) -> str:
                return f"{describe(row)} ({used[codes[row]]})"

            raise GenomeError(
                f"{self.path} does not contain the contig of {name_rows(missing, named)}; {' '.join(hints[:5])}"
            )
        return contig

    def _hint(self, name: str) -> str:
        """Say what to do about a contig name that is not in the FASTA file."""
        other = name.removeprefix("chr") if name.startswith("chr") else "chr" + name
        if other in self.contigs:
            return (
                f"the FASTA calls it {other!r}, only the prefix 'chr' is {'extra' if other in name else 'missing'}; "
                "use the same names in the BED and FASTA files."
            )
        near = did_you_mean(name, list(self.contigs))
        if not near.startswith("did you mean"):
            listed = ", ".join(list(self.contigs)[:_LISTED])
            near = f"its {len(self.contigs)} contigs are {listed}{', ...' if len(self.contigs) > _LISTED else ''}."
        return f"{near} Use the FASTA file that the BED file was made for."


def _map_fasta(path: Path) -> tuple[FileState, Path, mmap.mmap]:
    """Map a FASTA file into memory, inflating it first if it is compressed.

    Returns:
        The state of the file, the plain file (itself or its copy), and the plain text.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            state = state_of(file)
            compressed = is_gzip(file.read(2))
        plain = inflated(path) if compressed else path
        with plain.open("rb") as file:
            raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # an empty file cannot be mapped
        raise GenomeError(f"{path} is empty; download the FASTA file again") from None
    except OSError as error:
        raise GenomeError(f"{path}: the FASTA file cannot be read ({error.strerror}); check the path") from None
    opening = raw[len_of_mark(raw) : 1 << 16].lstrip()
    if not opening.startswith((b">", b";")):
        raise GenomeError(
            f"{path} is not a FASTA file: it begins with {opening[:20]!r}, expected '>' and a name; "
            "check the path, and decompress the file if it is compressed with something other than gzip"
        )
    return state, plain, raw
