"""Gene finding of the bundled sample: whole genes with their flanks, one class a nucleotide, as BEND has it.

For ``make_sample.py``. The only task of the sample whose labels are of BEND's own kind. As in BEND's file, the
stop codon and the introns outside the coding sequence count as non-coding (seen in the labels of its 597 test rows:
gene finders' coding sequence ends three nucleotides later, and no intron stands outside the coding sequence).

>>> windows = gene_windows(region, rng)  # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sample_region import Region, representatives
from sample_sources import Ints, Transcript
from sample_tracks import runs

_PARTS: Final = ("cds", "donor", "intron", "acceptor")
CLASSES: Final = (*(f"{part}+" for part in _PARTS), *(f"{part}-" for part in _PARTS), "non_coding")
CLASS_TEXTS: Final = (
    "coding, without the stop codon",
    "first nucleotide of an intron",
    "between donor and acceptor",
    "last nucleotide of an intron",
    "coding on minus, without the stop codon",
    "rightmost nucleotide of an intron",
    "between acceptor and donor",
    "leftmost nucleotide of an intron",
    "UTR, stop codon, introns outside the coding sequence, flanks",
)
NON_CODING: Final = CLASSES.index("non_coding")
MIN_BP: Final = 1_433  # shortest and longest row of BEND's gene_finding.bed
MAX_BP: Final = 14_000
_FLANK_BP: Final = (300, 1_000)  # BEND's rows are genes with flanks; their length here is drawn from this range
_OTHER_GENE_MARGIN_BP: Final = 20


@dataclass(frozen=True, kw_only=True)
class GeneWindow:
    """A gene with its flanks.

    Attributes:
        transcript: The transcript that the labels are of.
        start_bp: Start of the row.
        end_bp: End of the row.
        labels: One class a nucleotide, int8, shape (end_bp - start_bp,).
    """

    transcript: Transcript
    start_bp: int
    end_bp: int
    labels: NDArray[np.int8]


def gene_windows(region: Region, rng: np.random.Generator) -> list[GeneWindow]:
    """The genes of a region that are short enough, one transcript each, and alone in their window.

    A gene is left out where another gene's coding sequence in it would get a wrong label; a flank is shortened
    where it would reach one.
    """
    short = [
        t for t in region.transcripts if t.end_bp - t.start_bp <= MAX_BP - 2 * _FLANK_BP[0] and region.is_intact(t)
    ]
    found = []
    for transcript in representatives(short):
        flanks = rng.integers(*_FLANK_BP, size=2, endpoint=True)
        others = [t.coding for t in (*region.transcripts, *region.clipped) if t.gene != transcript.gene]
        foreign = runs(region.covered(np.concatenate(others)) & ~region.covered(transcript.coding))
        if ((foreign[:, 1] > transcript.start_bp) & (foreign[:, 0] < transcript.end_bp)).any():
            continue
        found += _window(transcript, foreign, flanks, region.n_bp)
    return found


def _window(transcript: Transcript, foreign: Ints, flanks: Ints, region_bp: int) -> list[GeneWindow]:
    """The window of a gene, or none where too little of it is left; ``foreign`` is other coding sequence."""
    spare = MAX_BP - (transcript.end_bp - transcript.start_bp)
    left, right = np.minimum(flanks, spare // 2).tolist()
    before = foreign[foreign[:, 1] <= transcript.start_bp, 1].max(initial=-_OTHER_GENE_MARGIN_BP)
    after = foreign[foreign[:, 0] >= transcript.end_bp, 0].min(initial=region_bp + _OTHER_GENE_MARGIN_BP)
    start = max(transcript.start_bp - left, int(before) + _OTHER_GENE_MARGIN_BP)
    end = min(transcript.end_bp + right, int(after) - _OTHER_GENE_MARGIN_BP)
    if not (start <= transcript.start_bp and end >= transcript.end_bp and end - start >= MIN_BP):
        return []
    labels = gene_labels(transcript, start, end)
    return [GeneWindow(transcript=transcript, start_bp=start, end_bp=end, labels=labels)]


def gene_labels(transcript: Transcript, start_bp: int, end_bp: int) -> NDArray[np.int8]:
    """The class of each nucleotide between two places, in genome order; shape (end_bp - start_bp,).

    An intron's first and last nucleotide are its splice sites: donor and acceptor on plus, the other way round
    on minus.
    """
    plus = transcript.strand == "+"
    cds, donor, intron, acceptor = (CLASSES.index(part + transcript.strand) for part in _PARTS)
    labels = np.full(end_bp - start_bp, NON_CODING, np.int8)
    coding = transcript.coding_positions[:-3]  # without the stop codon
    labels[coding - start_bp] = cds
    for left, right in (transcript.introns - start_bp).tolist():
        if coding.min() - start_bp < left and right <= coding.max() - start_bp:
            labels[left:right] = intron
            labels[left] = donor if plus else acceptor
            labels[right - 1] = acceptor if plus else donor
    return labels
