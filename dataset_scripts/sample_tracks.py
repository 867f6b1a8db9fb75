"""What is known of each nucleotide of a region: parts of genes, CpG islands, repeats.

For the derived labels of the bundled sample. Every track is computed from the letters and from where RefSeq
places its transcripts, and from nothing else.

>>> cpg_islands(np.frombuffer(b"CG" * 150, np.uint8), GARDINER_GARDEN).all()
np.True_
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from sample_region import Bools, Region
from sample_sources import Bytes, Ints, Transcript

# Length, share of G + C, observed over expected CpG: Gardiner-Garden and Frommer 1987, doi
# 10.1016/0022-2836(87)90689-9; Takai and Jones 2002, doi 10.1073/pnas.052410099, who leave out most Alu repeats.
GARDINER_GARDEN: Final = (200, 0.5, 0.6)
TAKAI_JONES: Final = (500, 0.55, 0.65)
PROMOTER_UPSTREAM_BP: Final = 500
PROMOTER_DOWNSTREAM_BP: Final = 100
SHORE_BP: Final = 2_000  # Irizarry et al. 2009, doi 10.1038/ng.298: within 2 kb of an island
REPEAT_BP: Final = 20
REPEAT_UNIT_BP: Final = 6  # microsatellites: units of one to six


@dataclass(frozen=True)
class Tracks:
    """One truth value a nucleotide for each track of a region."""

    region: Region

    def _of(self, strand: str) -> list[Transcript]:
        known = (*self.region.transcripts, *self.region.clipped)
        return [t for t in known if t.strand in strand]

    def _covered(self, intervals: list[Ints]) -> Bools:
        return self.region.covered(np.concatenate([np.empty((0, 2), np.int64), *intervals]))

    def gene_body(self, strand: str = "+-") -> Bools:
        """Between the ends of some transcript on one of those strands."""
        return self._covered([np.array([[t.start_bp, t.end_bp]]) for t in self._of(strand)])

    def exon(self, strand: str = "+-") -> Bools:
        """In an exon of a transcript on one of those strands."""
        return self._covered([t.exons for t in self._of(strand)])

    def coding_exon(self, strand: str = "+-") -> Bools:
        """In the coding sequence of a transcript on one of those strands."""
        return self._covered([t.coding for t in self._of(strand)])

    def utr(self) -> Bools:
        """In an exon of a coding transcript, coding in none."""
        coding = [t.exons for t in self._of("+-") if t.cds_bp is not None]
        return self._covered(coding) & ~self.coding_exon()

    def intron(self) -> Bools:
        """In a transcript, exonic in none."""
        return self.gene_body() & ~self.exon()

    def promoter(self, strand: str = "+-") -> Bools:
        """Around the first nucleotide of a coding transcript, upstream more than downstream."""
        return self._covered(
            [
                around(t.tss_bp, t.strand, PROMOTER_UPSTREAM_BP, PROMOTER_DOWNSTREAM_BP)
                for t in self._of(strand)
                if t.cds_bp is not None
            ]
        )

    def terminal_exon(self, strand: str, *, first: bool) -> Bools:
        """In the first or the last exon of a coding transcript of several exons."""
        several = [t for t in self._of(strand) if t.cds_bp is not None and len(t.exons) > 1]
        return self._covered([t.exons[:1] if first == (t.strand == "+") else t.exons[-1:] for t in several])

    def splice_site(self, strand: str, *, donor: bool) -> Bools:
        """The two nucleotides of each intron's 5' end (donor) or 3' end (acceptor)."""
        introns = [t.introns for t in self._of(strand) if len(t.introns)]
        left = donor == (strand == "+")
        return self._covered([np.stack([i[:, 0], i[:, 0] + 2] if left else [i[:, 1] - 2, i[:, 1]], 1) for i in introns])

    def start_codon(self, strand: str) -> Bools:
        """The A of each ATG that opens a coding sequence."""
        firsts = [t.coding_positions[0] for t in self._of(strand) if t.cds_bp is not None]
        return self._covered([np.array([[at, at + 1]]) for at in firsts])

    def transcript_start(self, strand: str) -> Bools:
        """The first nucleotide of each transcript."""
        return self._covered([np.array([[t.tss_bp, t.tss_bp + 1]]) for t in self._of(strand)])

    def transcript_end(self, strand: str) -> Bools:
        """The last nucleotide of each transcript."""
        lasts = [t.end_bp - 1 if t.strand == "+" else t.start_bp for t in self._of(strand)]
        return self._covered([np.array([[at, at + 1]]) for at in lasts])

    @cached_property
    def island(self) -> Bools:
        """In a CpG island after Gardiner-Garden and Frommer."""
        return cpg_islands(self.region.bases, GARDINER_GARDEN)

    @cached_property
    def strict_island(self) -> Bools:
        """In a CpG island after Takai and Jones."""
        return cpg_islands(self.region.bases, TAKAI_JONES)

    @cached_property
    def shore(self) -> Bools:
        """Near a CpG island after Takai and Jones, not in one."""
        near = runs(self.strict_island) + np.array([-SHORE_BP, SHORE_BP])
        return self._covered([near]) & ~self.strict_island

    @cached_property
    def cpg(self) -> Bools:
        """The C of each CpG."""
        return cpg_sites(self.region.bases)

    @cached_property
    def gc(self) -> Bools:
        """G or C."""
        return np.isin(self.region.bases, list(b"GC"))

    @cached_property
    def hpaii_site(self) -> Bools:
        """The inner C and G of each CCGG."""
        found = self.cpg.copy()
        found[1:] &= self.region.bases[:-1] == ord("C")
        found[:-2] &= self.region.bases[2:] == ord("G")
        found[1:] |= found[:-1].copy()
        return found

    @cached_property
    def tandem_repeat(self) -> Bools:
        """In an exact repeat of a short unit."""
        return tandem_repeats(self.region.bases)


def around(at_bp: int, strand: str, upstream_bp: int, downstream_bp: int) -> Ints:
    """The interval around a place, upstream and downstream in reading direction; shape (1, 2)."""
    before, after = (upstream_bp, downstream_bp) if strand == "+" else (downstream_bp - 1, upstream_bp + 1)
    return np.array([[at_bp - before, at_bp + after]])


def runs(mask: Bools) -> Ints:
    """Start and end of each run of True, shape (runs, 2)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2)


def sums(track: Bools, starts: Ints, n_bp: int) -> Ints:
    """How many nucleotides of each window are True.

    Args:
        track: Shape (nucleotides,).
        starts: Where the windows start, any shape.
        n_bp: Their length.
    """
    total = np.zeros(len(track) + 1, np.int64)
    np.cumsum(track, out=total[1:])
    inside: Ints = total[starts + n_bp] - total[starts]
    return inside


def cpg_sites(bases: Bytes) -> Bools:
    """True at each C that a G follows, shape (nucleotides,)."""
    sites = np.zeros(len(bases), np.bool_)
    sites[:-1] = (bases[:-1] == ord("C")) & (bases[1:] == ord("G"))
    return sites


def cpg_islands(bases: Bytes, criteria: tuple[int, float, float]) -> Bools:
    """True where a nucleotide lies in some window that meets the criteria; shape (nucleotides,).

    Observed over expected is the number of CpG times the length over the product of the numbers of C and G.

    Args:
        bases: Upper-case letters.
        criteria: Length of the window, least share of G + C, least observed over expected CpG.
    """
    n_bp, least_gc, least_ratio = criteria
    starts = np.arange(len(bases) - n_bp + 1)
    n_c, n_g = (sums(bases == ord(letter), starts, n_bp) for letter in "CG")
    n_cpg = sums(cpg_sites(bases), starts, n_bp - 1)
    good = (n_c + n_g > least_gc * n_bp) & (n_cpg * n_bp > least_ratio * n_c * n_g)
    steps = np.zeros(len(bases) + 1, np.int32)
    steps[:-n_bp][good] += 1
    steps[n_bp:][good] -= 1
    return np.cumsum(steps[:-1]) > 0


def tandem_repeats(bases: Bytes) -> Bools:
    """True in exact repeats of a unit of 1 to 6 that are at least 20 nucleotides long; shape (nucleotides,)."""
    found = np.zeros(len(bases), np.bool_)
    for unit in range(1, REPEAT_UNIT_BP + 1):
        repeats = runs(bases[unit:] == bases[:-unit])
        for start, end in repeats[np.diff(repeats)[:, 0] + unit >= REPEAT_BP].tolist():
            found[start : end + unit] = True
    return found
