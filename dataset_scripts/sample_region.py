"""The regions of chromosome 20 that the sample is made of, and how they are divided into splits.

Each region becomes a contig, named by its position. It is divided into blocks of about 400 kb, ten in total. A block is
in one split, and no row crosses the border of a block.

>>> REGIONS[0].name
'chr20_GRCh37_2750000_3850000'
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sample_sources import Bytes, Ints, SampleError, Transcript

Bools = NDArray[np.bool_]

MIN_INTRON_BP: Final = 30  # shorter gaps are frameshifts of the alignment, not introns
_STOPS: Final = ("TAA", "TAG", "TGA")
_COMPLEMENT: Final = np.arange(256, dtype=np.uint8)
_COMPLEMENT[list(b"ACGT")] = list(b"TGCA")


@dataclass(frozen=True, kw_only=True)
class Span:
    """An interval on chromosome 20 of GRCh37.

    Attributes:
        first_block: Number of its first block among all blocks of the sample.
        n_blocks: Number of its blocks.
    """

    start_bp: int
    end_bp: int
    first_block: int
    n_blocks: int

    @property
    def name(self) -> str:
        """Name of its contig."""
        return f"chr20_GRCh37_{self.start_bp}_{self.end_bp}"


# Where short coding genes are densest: 20p13, 20p11.21, 20q13.12 and 20q13.33, between the gaps of the assembly.
# bend-mini was not pretrained on any of it (examples/bend_mini/left_out.bed). The cystatin genes of the second region
# are paralogs; they are in one block, so that no copy of a training gene is tested.
REGIONS: Final = (
    Span(start_bp=2_750_000, end_bp=3_850_000, first_block=0, n_blocks=2),
    Span(start_bp=23_300_000, end_bp=23_870_000, first_block=2, n_blocks=1),
    Span(start_bp=43_705_000, end_bp=44_830_000, first_block=3, n_blocks=3),
    Span(start_bp=61_400_000, end_bp=62_900_000, first_block=6, n_blocks=4),
)
# Split of each block in BEND's words: 32 test genes, enough for an interval, and both ends of the GC range among them.
SPLIT_OF_BLOCK: Final = (
    "train", "test",
    "train",
    "test", "valid", "train",
    "test", "valid", "test", "train",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Region:
    """A region with its sequence and transcripts; all coordinates count from its start.

    Attributes:
        span: Its position on the chromosome.
        bases: Upper-case letters, shape (nucleotides,).
        transcripts: Transcripts within the region.
        clipped: Transcripts that cross an edge; what they cover is not intergenic.
    """

    span: Span
    bases: Bytes
    transcripts: tuple[Transcript, ...]
    clipped: tuple[Transcript, ...]

    @property
    def n_bp(self) -> int:
        """Length in nucleotides."""
        return len(self.bases)

    def covered(self, intervals: Ints) -> Bools:
        """Mark the nucleotides that an interval covers, shape (nucleotides,).

        Args:
            intervals: Starts and ends, shape (n, 2); cut to the region.
        """
        steps = np.zeros(self.n_bp + 1, np.int32)
        np.add.at(steps, intervals[:, 0].clip(0, self.n_bp), 1)
        np.add.at(steps, intervals[:, 1].clip(0, self.n_bp), -1)
        return np.cumsum(steps[:-1]) > 0

    def letters(self, positions: Ints, strand: str) -> Bytes:
        """Return the letters at some positions, complemented for the minus strand."""
        letters = self.bases[positions]
        return letters if strand == "+" else _COMPLEMENT[letters]

    @cached_property
    def representatives(self) -> tuple[Transcript, ...]:
        """One intact coding transcript of each gene: the longest coding sequence, then the longest span."""
        return representatives([t for t in self.transcripts if self.is_intact(t)])

    def is_intact(self, transcript: Transcript) -> bool:
        """Whether the coding sequence is complete on this genome: ATG, whole codons, one stop, real introns."""
        if transcript.cds_bp is None or len(transcript.coding_positions) % 3:
            return False
        if transcript.start_bp < 0 or transcript.end_bp > self.n_bp:
            return False
        if len(transcript.introns) and np.diff(transcript.introns).min() < MIN_INTRON_BP:
            return False
        text = self.letters(transcript.coding_positions, transcript.strand).tobytes().decode()
        codons = [text[at : at + 3] for at in range(0, len(text), 3)]
        return codons[0] == "ATG" and codons[-1] in _STOPS and not set(codons[:-1]) & set(_STOPS)


def representatives(transcripts: list[Transcript]) -> tuple[Transcript, ...]:
    """Choose one transcript of each gene, in genome order."""
    best: dict[str, Transcript] = {}
    for transcript in sorted(transcripts, key=_preference):
        best.setdefault(transcript.gene, transcript)
    return tuple(sorted(best.values(), key=lambda t: (t.start_bp, t.gene)))


def _preference(transcript: Transcript) -> tuple[int, int, str]:
    return (
        -len(transcript.coding_positions),
        transcript.start_bp - transcript.end_bp,
        transcript.accession,
    )


def cut_region(span: Span, chromosome: Bytes, transcripts: list[Transcript]) -> Region:
    """Cut one region out of the chromosome.

    Raises:
        SampleError: The region contains an unknown base.
    """
    bases = chromosome[span.start_bp : span.end_bp]
    if not np.isin(bases, list(b"ACGT")).all():
        raise SampleError(f"{span.name} contains letters other than A, C, G and T; choose another region")
    near = [t.shifted(-span.start_bp) for t in transcripts if t.end_bp > span.start_bp and t.start_bp < span.end_bp]
    inside = [t.start_bp >= 0 and t.end_bp <= len(bases) for t in near]
    return Region(
        span=span,
        bases=bases,
        transcripts=tuple(t for t, whole in zip(near, inside, strict=True) if whole),
        clipped=tuple(t for t, whole in zip(near, inside, strict=True) if not whole),
    )


def block_borders(region: Region, keep_whole: Ints) -> Ints:
    """Place the borders of the blocks of a region.

    Args:
        region: The region.
        keep_whole: Starts and ends of intervals that no border may cut, shape (n, 2).

    Returns:
        Ascending borders, shape (blocks + 1,); the blocks are as equal as ``keep_whole`` allows.
    """
    forbidden = region.covered(keep_whole + np.array([1, 0]))
    free = np.flatnonzero(~forbidden)
    nominal = np.arange(1, region.span.n_blocks) * region.n_bp // region.span.n_blocks
    inner = [int(free[np.abs(free - border).argmin()]) for border in nominal]
    return np.array([0, *inner, region.n_bp], np.int64)


def block_of(starts: Ints, ends: Ints, borders: Ints) -> Ints:
    """Return the block of each interval, -1 if it crosses a border; shape (n,)."""
    block = np.searchsorted(borders, starts, side="right") - 1
    return np.where(ends <= borders[block + 1], block, -1)
