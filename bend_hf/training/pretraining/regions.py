r"""Sets of genomic regions, with union, difference and intersection.

>>> from pathlib import Path; from tempfile import mkdtemp
>>> fasta = Path(mkdtemp()) / "tiny.fa"
>>> _ = fasta.write_text(">chr1\nACGTACGTAC\n>chr2\nGGGG\n")
>>> whole = Regions.of_genome(Genome(fasta))
>>> whole.minus(Regions.of_places(["chr1:4-6"], Genome(fasta)), margin_bp=1).places()
['chr1:0-3', 'chr1:7-10', 'chr2:0-4']
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from bend_hf.data.bed import name_rows, read_bed
from bend_hf.data.genome import Genome
from bend_hf.errors import GenomeError, InputError, did_you_mean
from bend_hf.files import write_text
from bend_hf.types import Bools, Ints

_PLACE: Final = re.compile(r"(?P<contig>.+):(?P<start>[0-9][0-9,_]*)-(?P<end>[0-9][0-9,_]*)")


@dataclass(frozen=True, kw_only=True, eq=False)
class Regions:
    """R intervals on the contigs of one genome: sorted, not empty, not touching.

    Attributes:
        names: The contigs of the genome, in the order of its file.
        lengths_bp: Lengths of the contigs, shape (contigs,).
        contig: Contig number of each interval, shape (R,).
        start_bp: Start, 0-based, shape (R,).
        end_bp: End, exclusive, shape (R,).
    """

    names: tuple[str, ...]
    lengths_bp: Ints
    contig: Ints
    start_bp: Ints
    end_bp: Ints

    @classmethod
    def of_genome(cls, genome: Genome) -> Regions:
        """Return the whole genome."""
        n_contigs = len(genome.contigs)
        return cls.of_intervals(genome, np.arange(n_contigs), np.zeros(n_contigs, np.int64), _lengths(genome))

    @classmethod
    def of_intervals(cls, genome: Genome, contig: Ints, start_bp: Ints, end_bp: Ints) -> Regions:
        """Return the union of intervals in any order. They must lie on their contigs; empty ones are ignored.

        Args:
            genome: The genome.
            contig: Contig number of each interval, in the order of the file, shape (intervals,).
            start_bp: Starts, shape (intervals,).
            end_bp: Ends, exclusive, shape (intervals,).
        """
        empty = np.zeros(0, np.int64)
        nowhere = cls(
            names=tuple(genome.contigs), lengths_bp=_lengths(genome), contig=empty, start_bp=empty, end_bp=empty
        )
        shift = nowhere._shift[contig]
        return nowhere._with_line(*_union(start_bp + shift, end_bp + shift))

    @classmethod
    def of_bed(cls, path: str | Path, genome: Genome) -> Regions:
        """Return the union of the rows of a BED file. A row with start = end, as variants have, is one nucleotide.

        Raises:
            InputError: The file is not a BED file.
            GenomeError: A row does not lie on the genome.
        """
        bed = read_bed(path, allow_empty=True)
        number = {name: at for at, name in enumerate(genome.contigs)}
        names = bed.chromosome.dictionary.to_pylist()
        for name in names:
            if name not in number:
                raise GenomeError(f"{path}: {_unknown_contig(name, genome)}")
        contig = np.array([number[name] for name in names], np.int64)[bed.chromosome.indices.to_numpy()]
        end_bp = np.maximum(bed.end_bp, bed.start_bp + 1)
        outside = np.flatnonzero(end_bp > _lengths(genome)[contig])
        if len(outside):
            rows = name_rows(
                outside,
                lambda row: (
                    f"line {bed.row_number(row)} ({names[bed.chromosome.indices[row].as_py()]}:"
                    f"{bed.start_bp[row]}-{bed.end_bp[row]})"
                ),
            )
            raise GenomeError(
                f"{path}: an interval ends after its contig in {genome.path}: {rows}; "
                "check that the BED file belongs to this assembly"
            )
        return cls.of_intervals(genome, contig, bed.start_bp, end_bp)

    @classmethod
    def of_places(cls, places: Sequence[str], genome: Genome) -> Regions:
        """Return the union of regions such as ``chr20:50000000-52000000``, 0-based and half-open, or ``chr20``.

        Raises:
            InputError: A region is malformed.
            GenomeError: A region does not lie on the genome.
        """
        found = [_read_place(place, genome) for place in places]
        contig, start_bp, end_bp = np.array(found, np.int64).reshape(-1, 3).T
        return cls.of_intervals(genome, contig, start_bp, end_bp)

    @classmethod
    def of_any(cls, sources: Sequence[str | Path], genome: Genome) -> Regions:
        """Return the union of BED files and regions: the name of a file is read as BED, all else as a region."""
        beds = [source for source in sources if isinstance(source, Path) or Path(source).is_file()]
        places = [str(source) for source in sources if source not in beds]
        regions = cls.of_places(places, genome)
        for bed in beds:
            regions = regions.plus(cls.of_bed(bed, genome))
        return regions

    def __len__(self) -> int:
        return len(self.contig)

    @property
    def length_bp(self) -> Ints:
        """Length of each interval, shape (R,)."""
        return self.end_bp - self.start_bp

    @property
    def total_bp(self) -> int:
        """Number of nucleotides in these regions."""
        return int(self.length_bp.sum())

    def places(self) -> list[str]:
        """Return each interval as ``contig:start-end``, 0-based and half-open."""
        columns = (self.contig.tolist(), self.start_bp.tolist(), self.end_bp.tolist())
        return [f"{self.names[contig]}:{start}-{end}" for contig, start, end in zip(*columns, strict=True)]

    def write_bed(self, path: Path) -> None:
        """Write the intervals as a BED file with a header, in place of an older one.

        Raises:
            RecordError: The file cannot be written.
        """
        columns = (self.contig.tolist(), self.start_bp.tolist(), self.end_bp.tolist())
        rows = [f"{self.names[contig]}\t{start}\t{end}\n" for contig, start, end in zip(*columns, strict=True)]
        write_text(path, "chromosome\tstart\tend\n" + "".join(rows))

    def plus(self, other: Regions) -> Regions:
        """Return the union."""
        mine, theirs = self._line(), self._same_genome(other)._line()
        return self._with_line(*_union(np.concatenate([mine[0], theirs[0]]), np.concatenate([mine[1], theirs[1]])))

    def minus(self, other: Regions, margin_bp: int = 0) -> Regions:
        """Return the difference.

        Args:
            other: Regions to remove.
            margin_bp: Nucleotides around them to remove as well; margins end at the ends of a contig.
        """
        if margin_bp < 0:
            raise ValueError(f"margin_bp is {margin_bp}; it must be 0 or more")
        return self._with_line(*_overlay(self._line(), self._same_genome(other)._line(margin_bp), keep=False))

    def within(self, other: Regions) -> Regions:
        """Return the intersection."""
        return self._with_line(*_overlay(self._line(), self._same_genome(other)._line(), keep=True))

    def overlaps(self, contig: Ints, start_bp: Ints, end_bp: Ints) -> Bools:
        """Return whether intervals share a nucleotide with these regions.

        Args:
            contig: Contig number of each interval, shape (intervals,).
            start_bp: Starts, shape (intervals,).
            end_bp: Ends, exclusive, greater than the starts, shape (intervals,).

        Returns:
            One flag per interval, shape (intervals,).
        """
        start, end = self._line()
        shift = self._shift[contig]
        before: Bools = np.searchsorted(end, start_bp + shift, side="right") < np.searchsorted(start, end_bp + shift)
        return before

    def count_before(self, contig: Ints, position_bp: Ints) -> Ints:
        """Count the nucleotides of these regions before positions, in the order of the genome.

        Args:
            contig: Contig number of each position, shape (positions,).
            position_bp: Position on the contig, up to its end, shape (positions,).
        """
        start, end = self._line()
        place = position_bp + self._shift[contig]
        last = np.searchsorted(start, place, side="right") - 1
        whole = np.concatenate([[0], np.cumsum(end - start)])
        count: Ints = whole[last + 1] - np.maximum(np.append(end, 0)[last] - place, 0)
        return count

    @property
    def _shift(self) -> Ints:
        """Start of each contig if all are laid on one line with gaps of one position."""
        return np.cumsum(self.lengths_bp + 1) - (self.lengths_bp + 1)

    def _line(self, margin_bp: int = 0) -> tuple[Ints, Ints]:
        """Return starts and ends on that line, widened by a margin that stays on the contig."""
        shift = self._shift[self.contig]
        end_bp = np.minimum(self.end_bp + margin_bp, self.lengths_bp[self.contig])
        return np.maximum(self.start_bp - margin_bp, 0) + shift, end_bp + shift

    def _with_line(self, start: Ints, end: Ints) -> Regions:
        """Return regions of the same genome from starts and ends on that line."""
        contig = np.searchsorted(self._shift, start, side="right") - 1
        shift = self._shift[contig]
        return replace(self, contig=contig, start_bp=start - shift, end_bp=end - shift)

    def _same_genome(self, other: Regions) -> Regions:
        if self.names != other.names or not np.array_equal(self.lengths_bp, other.lengths_bp):
            raise ValueError("the regions lie on two genomes; take both from the same")
        return other


def _lengths(genome: Genome) -> Ints:
    return np.array(list(genome.contigs.values()), np.int64)


def _union(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Merge intervals that overlap or touch, and sort them."""
    filled = end > start
    order = np.argsort(start[filled], kind="stable")
    start, end = start[filled][order], end[filled][order]
    reach = np.maximum.accumulate(end)
    opens = np.concatenate([[True], start[1:] > reach[:-1]])[: len(start)]
    return start[opens], reach[np.flatnonzero(np.concatenate([opens[1:], [True]]))[: int(opens.sum())]]


def _overlay(mine: tuple[Ints, Ints], theirs: tuple[Ints, Ints], *, keep: bool) -> tuple[Ints, Ints]:
    """Return the parts of sorted, separate intervals that lie inside others (``keep``) or outside them."""
    borders = np.unique(np.concatenate([*mine, *theirs]))

    def covered(start: Ints, end: Ints) -> Bools:
        inside: Bools = np.searchsorted(start, borders[:-1], side="right") > np.searchsorted(
            end, borders[:-1], side="right"
        )
        return inside

    wanted = covered(*mine) & (covered(*theirs) == keep)
    return _union(borders[:-1][wanted], borders[1:][wanted])


def _read_place(place: str, genome: Genome) -> tuple[int, int, int]:
    """Return contig number, start and end of a region."""
    numbers = {name: at for at, name in enumerate(genome.contigs)}
    if place in numbers:
        return numbers[place], 0, genome.contigs[place]
    parts = _PLACE.fullmatch(place.strip())
    if parts is None:
        raise InputError(
            f"{place!r} is neither a BED file nor a region: {_unknown_contig(place, genome)} "
            "Write a region as chr20:50000000-52000000 (0-based, half-open) or as the name of a contig"
        )
    name = parts["contig"]
    if name not in numbers:
        raise GenomeError(f"{place!r}: {_unknown_contig(name, genome)}")
    start_bp, end_bp = (int(parts[side].replace(",", "").replace("_", "")) for side in ("start", "end"))
    if not start_bp < end_bp:
        raise InputError(
            f"{place!r}: start ({start_bp}) must be smaller than end ({end_bp}); regions are 0-based, half-open"
        )
    if end_bp > genome.contigs[name]:
        raise GenomeError(
            f"{place!r} ends after its contig: {name} of {genome.path} has {genome.contigs[name]} bp; "
            "check that the region belongs to this assembly"
        )
    return numbers[name], start_bp, end_bp


def _unknown_contig(name: str, genome: Genome) -> str:
    return f"{genome.path} has no contig {name!r}; {did_you_mean(name, list(genome.contigs))}"
