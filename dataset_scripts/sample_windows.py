"""The tasks of the bundled sample that label windows: what stands in for chromatin, histone, CpG and enhancers.

For ``make_sample.py``. Every label says what can be read off sequence and annotation; none is an experiment.

>>> [rule.name for rule in CHROMATIN_RULES][:2]
['promoter', 'cpg_island']
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sample_region import Bools, Region, block_of
from sample_sources import Ints
from sample_tracks import SHORE_BP, Tracks, sums

WINDOW_BP: Final = 512  # BEND: chromatin_accessibility, histone_modification, cpg_methylation
ENHANCER_WINDOW_BP: Final = 100_096  # BEND: enhancer_annotation, 782 bins of 128 bp
BIN_BP: Final = 128
_ENHANCER_WINDOWS_A_BLOCK: Final = 4
_HALF_BIN_BP: Final = BIN_BP // 2
_CENTRE_BP: Final = 255  # the C of the CpG; on the minus strand its partner stands at the same place
_CPG_STEP_BP: Final = 128  # at most one CpG out of each such stretch, so that islands do not fill the task

Track = Callable[[Tracks, str], Bools]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When a window has a label.

    Attributes:
        name: Of the label.
        text: The rule in words, for the data card.
        track: The track that counts, for the window's strand.
        least_bp: Nucleotides of the window that must be in the track.
        part_bp: Where in the window they are counted, in reading direction.
    """

    name: str
    text: str
    track: Track
    least_bp: int
    part_bp: tuple[int, int] = (0, WINDOW_BP)


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Rows of one region.

    Attributes:
        starts: Where they start, ascending, shape (n,).
        strands: ``+`` or ``-``, shape (n,).
        labels: Truth values, shape (n, labels).
    """

    starts: Ints
    strands: NDArray[np.str_]
    labels: Bools


def _near(name: str, text: str, track: Track, least_bp: int) -> Rule:
    return Rule(name=name, text=text, track=track, least_bp=least_bp)


def _inner(name: str, text: str, track: Track) -> Rule:
    """One nucleotide of the track, with context on both sides."""
    return Rule(name=name, text=text, track=track, least_bp=1, part_bp=(64, WINDOW_BP - 64))


def _centre(name: str, text: str, track: Track, n_bp: int = 1) -> Rule:
    """The nucleotides from the middle on."""
    return Rule(name=name, text=text, track=track, least_bp=n_bp, part_bp=(_CENTRE_BP, _CENTRE_BP + n_bp))


CHROMATIN_RULES: Final = (
    _near("promoter", "at least 128 nt from 500 upstream to 100 downstream of the start of a coding transcript", lambda t, s: t.promoter(), 128),
    _near("cpg_island", "at least 200 nt in a CpG island after Gardiner-Garden and Frommer (200 nt, G+C > 0.5, observed/expected CpG > 0.6)", lambda t, s: t.island, 200),
    _near("coding_exon", "at least 64 nt coding", lambda t, s: t.coding_exon(), 64),
    _near("utr", "at least 64 nt in an exon of a coding transcript, coding in none", lambda t, s: t.utr(), 64),
    _near("intron", "at least 384 nt in a transcript, exonic in none", lambda t, s: t.intron(), 384),
    _near("intergenic", "all 512 nt outside every transcript", lambda t, s: ~t.gene_body(), WINDOW_BP),
    _near("gc_rich", "G + C at least 60 %", lambda t, s: t.gc, 308),
    _near("tandem_repeat", "at least 20 nt in an exact repeat of a unit of 1 to 6", lambda t, s: t.tandem_repeat, 20),
)  # fmt: skip

HISTONE_RULES: Final = (
    _inner("transcription_start", "the start of a transcript of the window's strand, 64 nt or more from its ends", lambda t, s: t.transcript_start(s)),
    _inner("start_codon", "the A of an ATG that opens a coding sequence of the window's strand, as above", lambda t, s: t.start_codon(s)),
    _inner("splice_donor", "the two nucleotides of a donor of the window's strand, as above", lambda t, s: t.splice_site(s, donor=True)),
    _inner("splice_acceptor", "the two nucleotides of an acceptor of the window's strand, as above", lambda t, s: t.splice_site(s, donor=False)),
    _inner("transcript_end", "the end of a transcript of the window's strand, as above", lambda t, s: t.transcript_end(s)),
    _near("first_exon", "at least 64 nt in the first exon of a coding transcript of the window's strand", lambda t, s: t.terminal_exon(s, first=True), 64),
    _near("last_exon", "at least 64 nt in the last exon of a coding transcript of the window's strand", lambda t, s: t.terminal_exon(s, first=False), 64),
    _near("coding_sense", "at least 64 nt coding on the window's strand", lambda t, s: t.coding_exon(s), 64),
    _near("coding_antisense", "at least 64 nt coding on the other strand", lambda t, s: t.coding_exon(other(s)), 64),
    _near("gene_body_sense", "at least 384 nt in a transcript of the window's strand", lambda t, s: t.gene_body(s), 384),
    _near("gene_body_antisense", "at least 384 nt in a transcript of the other strand", lambda t, s: t.gene_body(other(s)), 384),
)  # fmt: skip

CPG_RULES: Final = (
    _centre("in_cpg_island", "the CpG lies in a CpG island after Takai and Jones (500 nt, G+C > 0.55, observed/expected CpG > 0.65)", lambda t, s: t.strict_island),
    _centre("in_cpg_shore", f"within {SHORE_BP:,} nt of such an island, not in one", lambda t, s: t.shore),
    _centre("in_promoter", "from 500 upstream to 100 downstream of the start of a coding transcript", lambda t, s: t.promoter()),
    _centre("in_coding_exon", "coding in some transcript", lambda t, s: t.coding_exon()),
    _centre("in_gene_body_sense", "in a transcript of the window's strand", lambda t, s: t.gene_body(s)),
    _near("cpg_dense", "at least 20 CpG in the window", lambda t, s: t.cpg, 20),
    _centre("in_hpaii_site", "the CpG of a CCGG, where HpaII and MspI cut", lambda t, s: t.hpaii_site),
)  # fmt: skip

_OWN_PROMOTER_BP: Final = 1_000
ENHANCER_NAMES: Final = ("other", "distal_cpg_island")
ENHANCER_TEXT: Final = (
    "at least half of the bin's 128 nt in a CpG island after Takai and Jones and more than "
    f"{_OWN_PROMOTER_BP:,} nt from the start of the gene in the middle"
)


def other(strand: str) -> str:
    return "-" if strand == "+" else "+"


def apply_rules(tracks: Tracks, rules: tuple[Rule, ...], starts: Ints, strands: NDArray[np.str_]) -> Bools:
    """Which window has which label.

    Args:
        tracks: Of the region.
        rules: One a label.
        starts: Where the windows of 512 start, shape (n,).
        strands: ``+`` or ``-``, shape (n,).

    Returns:
        Truth values, shape (n, labels).
    """
    labels = np.zeros((len(starts), len(rules)), np.bool_)
    for strand in "+-":
        rows = np.flatnonzero(strands == strand)
        for column, rule in enumerate(rules):
            first, last = rule.part_bp if strand == "+" else tuple(WINDOW_BP - at for at in rule.part_bp[::-1])
            track = rule.track(tracks, strand)
            labels[rows, column] = sums(track, starts[rows] + first, last - first) >= rule.least_bp
    return labels


def tile_windows(region: Region, borders: Ints, rules: tuple[Rule, ...], *, offset_bp: int, rng: np.random.Generator, stranded: bool) -> Windows:  # fmt: skip
    """All windows side by side that lie in one block, on strands drawn by chance or all on plus."""
    starts = np.arange(offset_bp, region.n_bp - WINDOW_BP + 1, WINDOW_BP)
    starts = starts[block_of(starts, starts + WINDOW_BP, borders) >= 0]
    strands = rng.choice(["+", "-"], len(starts)) if stranded else np.full(len(starts), "+")
    return Windows(
        starts=starts, strands=strands, labels=apply_rules(Tracks(region), rules, starts, strands)
    )


def cpg_windows(region: Region, borders: Ints, rng: np.random.Generator) -> Windows:
    """Windows around CpG dinucleotides, one out of each stretch of 128, on strands drawn by chance."""
    tracks = Tracks(region)
    sites = np.flatnonzero(tracks.cpg)
    sites = sites[rng.permutation(len(sites))]
    _, chosen = np.unique(sites // _CPG_STEP_BP, return_index=True)
    starts = np.sort(sites[chosen]) - _CENTRE_BP
    starts = starts[(starts >= 0) & (starts + WINDOW_BP <= region.n_bp)]
    starts = starts[block_of(starts, starts + WINDOW_BP, borders) >= 0]
    strands = rng.choice(["+", "-"], len(starts))
    return Windows(starts=starts, strands=strands, labels=apply_rules(tracks, CPG_RULES, starts, strands))


def draw(labels: Bools, n_rows: int, rng: np.random.Generator) -> Ints:
    """Choose rows by chance, those with rare labels more often.

    Weighted sampling without replacement (Efraimidis and Spirakis 2006, doi 10.1016/j.ipl.2005.11.003).

    Args:
        labels: Truth values, shape (n, labels).
        n_rows: How many to take.
        rng: Where chance comes from.

    Returns:
        Ascending row numbers, shape (n_rows,).
    """
    share = labels.mean(axis=0).clip(1 / len(labels))
    weight = 1 + (labels / share).sum(axis=1)
    return np.sort(np.argsort(np.log(rng.random(len(labels))) / weight, kind="stable")[-n_rows:])


@dataclass(frozen=True, kw_only=True)
class EnhancerWindows:
    """Windows around starts of genes: starts (n,), blocks (n,), labels int8 (n, 782)."""

    starts: Ints
    blocks: Ints
    labels: NDArray[np.int8]


def enhancer_windows(region: Region, borders: Ints) -> EnhancerWindows:
    """Four genes of each block, spread over it, whose window lies in the block."""
    starts = np.unique([t.tss_bp for t in region.representatives]) - ENHANCER_WINDOW_BP // 2
    starts = starts[(starts >= 0) & (starts + ENHANCER_WINDOW_BP <= region.n_bp)]
    blocks = block_of(starts, starts + ENHANCER_WINDOW_BP, borders)
    chosen = []
    for block in range(region.span.n_blocks):
        within = np.flatnonzero(blocks == block)
        chosen += within[np.linspace(0, len(within) - 1, _ENHANCER_WINDOWS_A_BLOCK).round().astype(int)].tolist()
    starts, blocks = starts[chosen], blocks[chosen]
    bins = starts[:, None] + np.arange(0, ENHANCER_WINDOW_BP, BIN_BP)
    in_island = sums(Tracks(region).strict_island, bins, BIN_BP) >= _HALF_BIN_BP
    from_middle_bp = np.abs(bins[0] - starts[0] + _HALF_BIN_BP - ENHANCER_WINDOW_BP // 2)
    labels = (in_island & (from_middle_bp > _OWN_PROMOTER_BP)).astype(np.int8)
    return EnhancerWindows(starts=starts, blocks=blocks + region.span.first_block, labels=labels)
