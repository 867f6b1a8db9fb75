"""Variants of the bundled sample: what the genetic code and the splice sites say of each possible change.

For ``make_sample.py``. Single-nucleotide changes, enumerated from the transcripts and the codon table; none was
seen in a patient or in an expression study. A change is a place and the code of its new letter on the plus
strand (``ACGT`` are 0 to 3, so 3 minus a code is its complement).

>>> amino_acids()[[14, 48 + 8]].tolist()  # ATG, TGA
['M', '*']
"""

from __future__ import annotations

from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sample_region import Bools, Region
from sample_sources import Ints, Transcript
from sample_tracks import Tracks, around

LETTERS: Final = "ACGT"
# The standard genetic code, NCBI translation table 1, bases in the order T C A G.
_GENETIC_CODE: Final = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
DEEP_INTRON_BP: Final = 100  # this far from every exon
SPLICE_REGION_BP: Final = 3  # coding nucleotides this near an exon's edge are left alone
EDGE_BP: Final = 1_024  # context that every model can have on both sides
_PROMOTER_BP: Final = (100, 50)  # upstream and downstream of a transcript's start
_CONSENSUS: Final = {2: "AG", 3: "A", 4: "G"}  # of a donor, intron counted from 0: GTRAG
_CODING_EDGE_BP: Final = 3  # start and stop codon
_UNREAD: Final = -1
_DISPUTED: Final = -2

Changes = dict[str, Ints]

_DEEP: Final = f"in an intron, {DEEP_INTRON_BP} bp or more from every exon"
DISEASE_KINDS: Final = {
    "stop_gained": "a codon becomes a stop codon",
    "splice_donor_variant": "the GT that begins an intron loses one of its bases",
    "splice_acceptor_variant": "the AG that ends an intron loses one of its bases",
    "synonymous_variant": (
        f"a codon becomes another of the same amino acid, {SPLICE_REGION_BP} bp or more from the ends of exons"
    ),
    "intron_variant": _DEEP,
}
EXPRESSION_KINDS: Final = {
    "core_promoter": (
        f"from {_PROMOTER_BP[0]} upstream to {_PROMOTER_BP[1]} downstream of the start of a coding transcript, "
        "not coding"
    ),
    "splice_consensus": "the intron after a donor loses the base of GTRAG at its third, fourth or fifth position",
    "deep_intron": f"{_DEEP}, outside promoters",
}


def amino_acids() -> NDArray[np.str_]:
    """The amino acid of each codon, ``*`` for stop; shape (64,), codons in the order of ``ACGT``."""
    code = dict(zip(product("TCAG", repeat=3), _GENETIC_CODE, strict=True))
    return np.array([code[codon] for codon in product(LETTERS, repeat=3)])


def disease_changes(region: Region) -> Changes:
    """Every change of the five kinds, as arrays of shape (n, 2): place and new letter."""
    codes = letter_codes(region)
    not_exonic = ~Tracks(region).exon()
    changes = _coding_changes(region, codes)
    changes["splice_donor_variant"] = _motif_changes(region, codes, {0: "G", 1: "T"}, not_exonic, donor=True)
    changes["splice_acceptor_variant"] = _motif_changes(region, codes, {0: "G", 1: "A"}, not_exonic, donor=False)
    changes["intron_variant"] = _point_changes(_deep(region), codes)
    return {kind: _with_context(changes[kind], region) for kind in DISEASE_KINDS}


def expression_changes(region: Region) -> Changes:
    """Every change of the three kinds, as arrays of shape (n, 2): place and new letter."""
    codes, tracks = letter_codes(region), Tracks(region)
    starts = [around(t.tss_bp, t.strand, *_PROMOTER_BP) for t in region.transcripts if t.cds_bp is not None]
    promoter = region.covered(np.concatenate(starts))
    changes = {
        "core_promoter": _point_changes(promoter & ~tracks.coding_exon(), codes),
        "splice_consensus": _motif_changes(region, codes, _CONSENSUS, ~tracks.exon() & ~promoter, donor=True),
        "deep_intron": _point_changes(_deep(region) & ~tracks.promoter() & ~promoter, codes),
    }
    return {kind: _with_context(changes[kind], region) for kind in EXPRESSION_KINDS}


def draw_changes(changes: list[Changes], counts: dict[str, int], rng: np.random.Generator) -> dict[str, Ints]:
    """Draw changes of each kind at random, at most one per position.

    Args:
        changes: The changes of each region.
        counts: Number of changes of each kind.
        rng: Random generator.

    Returns:
        For each kind an array of shape (count, 3): region, position, new letter.
    """
    drawn: dict[str, Ints] = {}
    taken = np.empty(0, np.int64)
    for kind, n_rows in counts.items():
        rows = np.concatenate([np.insert(found[kind], 0, n, axis=1) for n, found in enumerate(changes)])
        rows = rows[rng.permutation(len(rows))]
        place = rows[:, 0] << 32 | rows[:, 1]
        _, first = np.unique(place, return_index=True)
        free = np.sort(first[~np.isin(place[first], taken)])[:n_rows]
        drawn[kind] = rows[free]
        taken = np.concatenate([taken, place[free]])
    return drawn


def letter_codes(region: Region) -> Ints:
    """The code of each letter, shape (nucleotides,)."""
    return np.searchsorted(np.frombuffer(LETTERS.encode(), np.uint8), region.bases)


def _read(codes: Ints, places: Ints, strand: str) -> Ints:
    """Codes in reading direction at some places."""
    return codes[places] if strand == "+" else 3 - codes[places]


def _readings(region: Region, codes: Ints) -> Ints:
    """How each nucleotide is read: strand, codon and place in it as one number; shape (nucleotides,).

    -1 where nothing reads it, -2 where transcripts disagree, where one is broken on this genome, and in start and
    stop codons.
    """
    readings = np.full(region.n_bp, _UNREAD, np.int64)
    for transcript in (*region.transcripts, *region.clipped):
        places = transcript.coding_positions
        places = places[(places >= 0) & (places < region.n_bp)]
        if not region.is_intact(transcript):
            readings[places] = _DISPUTED
            continue
        codons = _read(codes, places, transcript.strand).reshape(-1, 3) @ [16, 4, 1]
        mine = (np.repeat(codons, 3) * 3 + np.arange(len(places)) % 3) * 2 + (transcript.strand == "-")
        mine[:_CODING_EDGE_BP] = mine[-_CODING_EDGE_BP:] = _DISPUTED
        agreed = (readings[places] == _UNREAD) | (readings[places] == mine)
        readings[places] = np.where(agreed, mine, _DISPUTED)
    return readings


def _coding_changes(region: Region, codes: Ints) -> Changes:
    """The stop-gained and synonymous changes on which all transcripts agree."""
    readings = _readings(region, codes)
    places = np.flatnonzero(readings >= 0)
    minus = readings[places] % 2 == 1
    phase = readings[places] // 2 % 3
    codon = readings[places] // 6
    amino, near_edge = amino_acids(), _near_exon_edge(region)[places]
    unit = 4 ** (2 - phase)
    found: dict[str, list[Ints]] = {"stop_gained": [], "synonymous_variant": []}
    for letter in range(4):
        changed = codon + (letter - codon // unit % 4) * unit
        alt = np.where(minus, 3 - letter, letter)
        stop = amino[changed] == "*"
        same = (amino[changed] == amino[codon]) & (changed != codon) & ~near_edge
        for kind, chosen in (("stop_gained", stop), ("synonymous_variant", same)):
            found[kind].append(np.stack([places, alt], axis=1)[chosen])
    return {kind: np.concatenate(changes) for kind, changes in found.items()}


def _near_exon_edge(region: Region) -> Bools:
    """Within three nucleotides of an end of an exon, on either side of it."""
    ends = np.concatenate([t.exons.ravel() for t in (*region.transcripts, *region.clipped)])
    return region.covered(np.stack([ends - SPLICE_REGION_BP, ends + SPLICE_REGION_BP], axis=1))


def _motif_changes(region: Region, codes: Ints, motif: dict[int, str], allowed: Bools, *, donor: bool) -> Ints:
    """Changes away from the letters that splicing expects at an end of each intron.

    Args:
        region: The region.
        codes: Its letters.
        motif: Which letters are right how far from the end of the intron; for acceptors counted backwards.
        allowed: Places that may change.
        donor: Whether the end is the intron's first nucleotide in reading direction, or its last.
    """
    invariant = {0: "G", 1: "T"} if donor else {0: "G", 1: "A"}
    found = [np.empty((0, 2), np.int64)]
    for transcript in region.representatives:
        plus = transcript.strand == "+"
        end = transcript.introns[:, 0] if plus == donor else transcript.introns[:, 1] - 1
        step = 1 if plus == donor else -1
        good = np.logical_and.reduce([_is(codes, end + step * at, transcript, ok) for at, ok in invariant.items()])
        for at, ok in motif.items():
            places = (end + step * at)[good & _is(codes, end + step * at, transcript, ok)]
            places = places[allowed[places]]
            wrong = [LETTERS.index(letter) for letter in LETTERS if letter not in ok]
            alts = np.array(wrong) if plus else 3 - np.array(wrong)
            found.append(np.stack([np.repeat(places, len(alts)), np.tile(alts, len(places))], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _is(codes: Ints, places: Ints, transcript: Transcript, letters: str) -> Bools:
    return np.isin(_read(codes, places, transcript.strand), [LETTERS.index(letter) for letter in letters])


def _deep(region: Region) -> Bools:
    """In an intron of a transcript, far from every exon."""
    exons = np.concatenate([t.exons for t in (*region.transcripts, *region.clipped)])
    return Tracks(region).gene_body() & ~region.covered(exons + np.array([-DEEP_INTRON_BP, DEEP_INTRON_BP]))


def _point_changes(places: Bools, codes: Ints) -> Ints:
    """The three changes of each marked nucleotide."""
    at = np.repeat(np.flatnonzero(places), 3)
    return np.stack([at, (codes[at] + 1 + np.arange(len(at)) % 3) % 4], axis=1)


def _with_context(changes: Ints, region: Region) -> Ints:
    return changes[(changes[:, 0] >= EDGE_BP) & (changes[:, 0] < region.n_bp - EDGE_BP)]
