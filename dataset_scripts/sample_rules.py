"""The rules that label the windows of the bundled sample.

The data card prints their texts. Labels follow from sequence and annotation, not from experiments.

>>> [rule.name for rule in CHROMATIN_RULES][:2]
['promoter', 'cpg_island']
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sample_region import Bools
from sample_sources import Ints
from sample_tracks import PROMOTER_DOWNSTREAM_BP, PROMOTER_UPSTREAM_BP, SHORE_BP, Tracks, sums

WINDOW_BP: Final = 512  # BEND: chromatin_accessibility, histone_modification, cpg_methylation
CENTRE_BP: Final = 255  # the C of a CpG in the middle; on the minus strand its partner is at the same position
_MARGIN_BP: Final = 64

Track: TypeAlias = Callable[[Tracks, str], Bools]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule that gives windows a label.

    Attributes:
        name: Name of the label.
        text: The rule in words, for the data card.
        track: The track that counts, for the window's strand.
        least_bp: Nucleotides of the window that must be in the track.
        part_bp: Start and end of the counted part of the window, in reading direction.
    """

    name: str
    text: str
    track: Track
    least_bp: int
    part_bp: tuple[int, int] = (0, WINDOW_BP)


def _whole(name: str, text: str, track: Track, least_bp: int) -> Rule:
    """Make a rule that counts in the whole window."""
    return Rule(name=name, text=text, track=track, least_bp=least_bp)


def _inner(name: str, text: str, track: Track, least_bp: int) -> Rule:
    """Make a rule that counts away from the ends of the window."""
    part = (_MARGIN_BP, WINDOW_BP - _MARGIN_BP)
    return Rule(name=name, text=text, track=track, least_bp=least_bp, part_bp=part)


def _centre(name: str, text: str, track: Track) -> Rule:
    """Make a rule for the C of the window's CpG, on the strand of the window."""
    return Rule(name=name, text=text, track=track, least_bp=1, part_bp=(CENTRE_BP, CENTRE_BP + 1))


_PROMOTER: Final = (
    f"from {PROMOTER_UPSTREAM_BP} upstream to {PROMOTER_DOWNSTREAM_BP} downstream of the start of a coding transcript"
)
_SENSE: Final = "of the window's strand"
_INNER: Final = f"{_SENSE}, {_MARGIN_BP} bp or more from the window's ends"

CHROMATIN_RULES: Final = (
    _whole("promoter", f"at least 128 bp {_PROMOTER}", lambda t, _: t.promoter(), 128),
    _whole(
        "cpg_island",
        "at least 200 bp in a CpG island after Gardiner-Garden and Frommer "
        "(200 bp, G + C > 0.5, observed over expected CpG > 0.6)",
        lambda t, _: t.island,
        200,
    ),
    _whole("coding_exon", "at least 64 bp coding", lambda t, _: t.coding_exon(), 64),
    _whole("utr", "at least 64 bp in an exon of a coding transcript, coding in none", lambda t, _: t.utr(), 64),
    _whole("intron", "at least 384 bp in a transcript, exonic in none", lambda t, _: t.intron(), 384),
    _whole("intergenic", "all 512 bp outside every transcript", lambda t, _: ~t.gene_body(), WINDOW_BP),
    _whole("gc_rich", "at least 308 of 512 bp are G or C", lambda t, _: t.gc, 308),
    _whole("tandem_repeat", "at least 20 bp in an exact repeat of a unit of 1 to 6", lambda t, _: t.tandem_repeat, 20),
)

HISTONE_RULES: Final = (
    _inner(
        "transcription_start", f"the first nucleotide of a transcript {_INNER}", lambda t, s: t.transcript_start(s), 1
    ),
    _inner("start_codon", f"the A of the ATG that begins a coding sequence {_INNER}", lambda t, s: t.start_codon(s), 1),
    _inner(
        "splice_donor",
        f"at least 2 bp of donors (an intron's first two nucleotides) {_INNER}",
        lambda t, s: t.splice_site(s, donor=True),
        2,
    ),
    _inner(
        "splice_acceptor",
        f"at least 2 bp of acceptors (an intron's last two nucleotides) {_INNER}",
        lambda t, s: t.splice_site(s, donor=False),
        2,
    ),
    _inner("transcript_end", f"the last nucleotide of a transcript {_INNER}", lambda t, s: t.transcript_end(s), 1),
    _whole(
        "first_exon",
        f"at least 64 bp in the first of several exons of a coding transcript {_SENSE}",
        lambda t, s: t.terminal_exon(s, first=True),
        64,
    ),
    _whole(
        "last_exon",
        f"at least 64 bp in the last of several exons of a coding transcript {_SENSE}",
        lambda t, s: t.terminal_exon(s, first=False),
        64,
    ),
    _whole("coding_sense", "at least 64 bp coding on the window's strand", lambda t, s: t.coding_exon(s), 64),
    _whole("coding_antisense", "at least 64 bp coding on the other strand", lambda t, s: t.coding_exon(_other(s)), 64),
    _whole("gene_body_sense", f"at least 384 bp in a transcript {_SENSE}", lambda t, s: t.gene_body(s), 384),
    _whole(
        "gene_body_antisense",
        "at least 384 bp in a transcript of the other strand",
        lambda t, s: t.gene_body(_other(s)),
        384,
    ),
)

CPG_RULES: Final = (
    _centre(
        "in_cpg_island",
        "in a CpG island after Takai and Jones (500 bp, G + C > 0.55, observed over expected CpG > 0.65)",
        lambda t, _: t.strict_island,
    ),
    _centre("in_cpg_shore", f"within {SHORE_BP:,} bp of such an island, not in one", lambda t, _: t.shore),
    _centre("in_promoter", _PROMOTER, lambda t, _: t.promoter()),
    _centre("in_coding_exon", "coding in some transcript", lambda t, _: t.coding_exon()),
    _centre("in_gene_body_sense", f"in a transcript {_SENSE}", lambda t, s: t.gene_body(s)),
    _whole("cpg_dense", "at least 20 CpG whose C on plus is in the window", lambda t, _: t.cpg, 20),
    _centre("in_hpaii_site", "the CpG of a CCGG, where HpaII and MspI cut", lambda t, _: t.hpaii_site),
)


def apply_rules(tracks: Tracks, rules: tuple[Rule, ...], starts: Ints, strands: NDArray[np.str_]) -> Bools:
    """Label windows.

    Args:
        tracks: Tracks of the region.
        rules: One per label.
        starts: Starts of the 512-bp windows, shape (n,).
        strands: ``+`` or ``-``, shape (n,).

    Returns:
        Truth values, shape (n, labels).
    """
    labels = np.zeros((len(starts), len(rules)), np.bool_)
    for strand in "+-":
        rows = np.flatnonzero(strands == strand)
        for column, rule in enumerate(rules):
            first, last = rule.part_bp
            if strand == "-":
                first, last = WINDOW_BP - last, WINDOW_BP - first
            in_track = sums(rule.track(tracks, strand), starts[rows] + first, last - first)
            labels[rows, column] = in_track >= rule.least_bp
    return labels


def _other(strand: str) -> str:
    return "-" if strand == "+" else "+"
