"""Variants of the bundled sample: matched pairs of a change that breaks something and one that breaks nothing.

For ``make_sample.py``. Single-nucleotide changes, enumerated from the transcripts and the codon table; none was seen in
a patient or in an expression study. Both changes of a pair lie in the same part of the same gene, replace the same
letter by the same letter between the same two neighbors, are at most ``MAX_APART_BP`` apart, and have nearly the same
share of G and C around them. So composition, the kind of substitution and the distance from the gene do not tell them
apart; what the sequence does there differs.

A change is a position and the code of its new letter on the plus strand (``ACGT`` are 0 to 3, so 3 minus a code is
its complement).

>>> amino_acids()[[14, 48 + 8]].tolist()  # ATG, TGA
['M', '*']
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sample_region import Bools, Region
from sample_sources import Ints, Transcript
from sample_tracks import Tracks

LETTERS: Final = "ACGT"
# The standard genetic code, NCBI translation table 1, bases in the order T C A G.
_GENETIC_CODE: Final = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
MAX_APART_BP: Final = 500
GC_FLANK_BP: Final = 512  # BEND: the sequence on each side of a variant that a causal model reads
MAX_GC_APART: Final = 0.005  # of the sequences around both changes of a pair
INTRON_MARGIN_BP: Final = 50  # silent changes in introns are this far from every exon: no splice site, no branch point
SPLICE_REGION_BP: Final = 3  # coding nucleotides this near an exon's edge are left alone
EDGE_BP: Final = 1_024  # context that every model can have on both sides
_CONSENSUS: Final = {2: "AG", 3: "A", 4: "G"}  # of a donor, intron counted from 0: GTRAG
_DONOR: Final = {0: "G", 1: "T"}
_ACCEPTOR: Final = {0: "G", 1: "A"}  # counted backwards from the end of the intron
_CODON_BP: Final = 3
_SIGNALS: Final = (
    "AATAAA",
    "ATTAAA",
)  # poly(A) signals, the two most frequent (Beaudoing et al. 2000, 10.1101/gr.10.7.1001)
_SIGNAL_FROM_END_BP: Final = 40  # of a transcript; the signal lies 10 to 30 bp before its end
_NONE: Final = -1
_DISPUTED: Final = -2


@dataclass(frozen=True, kw_only=True)
class PairKind:
    """A kind of pairs.

    Attributes:
        effect: Name of the change with an effect.
        effect_text: What it does.
        silent: Name of its partner.
        silent_text: What the partner is.
        n_pairs: Number of pairs that are drawn.
    """

    effect: str
    effect_text: str
    silent: str
    silent_text: str
    n_pairs: int


_SYNONYMOUS: Final = (
    "synonymous_variant",
    f"a codon becomes another of the same amino acid, {SPLICE_REGION_BP} bp or more from the ends of exons",
)
_INTRON: Final = ("intron_variant", f"in an intron, {INTRON_MARGIN_BP} bp or more from every exon")


def _kind(effect: str, effect_text: str, silent: tuple[str, str], n_pairs: int) -> PairKind:
    return PairKind(effect=effect, effect_text=effect_text, silent=silent[0], silent_text=silent[1], n_pairs=n_pairs)


DISEASE_KINDS: Final = (
    _kind("stop_gained", "a codon becomes a stop codon", _SYNONYMOUS, 150),
    _kind("start_lost", "the ATG that begins a coding sequence loses one of its bases", _SYNONYMOUS, 50),
    _kind("splice_donor_variant", "the GT that begins an intron loses one of its bases", _INTRON, 100),
    _kind("splice_acceptor_variant", "the AG that ends an intron loses one of its bases", _INTRON, 100),
)
EXPRESSION_KINDS: Final = (
    _kind(
        "splice_donor_region_variant",
        "the GTRAG that begins an intron loses its third, fourth or fifth base",
        _INTRON,
        140,
    ),
    _kind(
        "upstream_start_gained",
        "a new ATG in the untranslated sequence before the coding sequence",
        ("5_prime_UTR_variant", "in the same untranslated sequence, no ATG made or lost"),
        130,
    ),
    _kind(
        "polya_signal_lost",
        f"the AATAAA in the last {_SIGNAL_FROM_END_BP} bp of a transcript loses one of its bases",
        ("3_prime_UTR_variant", "in the same untranslated sequence, in no AATAAA or ATTAAA"),
        130,
    ),
)
Pairs = dict[str, Ints]  # by kind of the effect: (n, 3), positions of effect and partner, code of the new letter


def amino_acids() -> NDArray[np.str_]:
    """The amino acid of each codon, ``*`` for stop; shape (64,), codons in the order of ``ACGT``."""
    code = dict(zip(product("TCAG", repeat=3), _GENETIC_CODE, strict=True))
    return np.array([code[codon] for codon in product(LETTERS, repeat=3)])


def disease_pairs(region: Region) -> Pairs:
    """Enumerate the pairs of changes in coding sequence and at splice sites."""
    codes = letter_codes(region)
    not_exonic = ~Tracks(region).exon()
    exon = _numbered(region, lambda t: t.coding)
    gene = _numbered(region, lambda t: t.coding, whole=True)
    intron = _numbered(region, lambda t: t.introns)
    stops, synonymous = _coding_changes(region, codes)
    starts = _all_changes(_start_codons(region), codes)
    quiet = _all_changes(_deep(region), codes)
    donors = _motif_changes(region, codes, _DONOR, not_exonic, donor=True)
    acceptors = _motif_changes(region, codes, _ACCEPTOR, not_exonic, donor=False)
    return {
        "stop_gained": _pair(codes, stops, synonymous, exon),
        "start_lost": _pair(codes, starts, synonymous, gene),
        "splice_donor_variant": _pair(codes, donors, quiet, intron),
        "splice_acceptor_variant": _pair(codes, acceptors, quiet, intron),
    }


def expression_pairs(region: Region) -> Pairs:
    """Enumerate the pairs of changes at donors beyond GT, before coding sequences, and in poly(A) signals."""
    codes, tracks = letter_codes(region), Tracks(region)
    intron = _numbered(region, lambda t: t.introns)
    coding = tracks.coding_exon()
    before, after = (_numbered(region, side, whole=True) for side in (_utr_before, _utr_after))
    before[coding], after[coding] = _NONE, _NONE
    donors = _motif_changes(region, codes, _CONSENSUS, ~tracks.exon(), donor=True)
    made, kept = _start_changes(region, codes, before)
    signal, near = _poly_a(region)
    return {
        "splice_donor_region_variant": _pair(codes, donors, _all_changes(_deep(region), codes), intron),
        "upstream_start_gained": _pair(codes, made, kept, before),
        "polya_signal_lost": _pair(
            codes, _all_changes(signal & (after >= 0), codes), _all_changes(~near & (after >= 0), codes), after
        ),
    }


def draw_pairs(found: list[Pairs], kinds: tuple[PairKind, ...], rng: np.random.Generator) -> dict[str, Ints]:
    """Draw pairs of each kind at random, no position twice.

    Args:
        found: The pairs of each region.
        kinds: The kinds, with the number of pairs to draw.
        rng: Random generator.

    Returns:
        For each kind of effect an array of shape (n_pairs, 4): region, position of the effect, position of the
        partner, new letter.
    """
    drawn: dict[str, Ints] = {}
    taken: set[tuple[int, int]] = set()
    for kind in kinds:
        rows = np.concatenate([np.insert(pairs[kind.effect], 0, n, axis=1) for n, pairs in enumerate(found)])
        chosen: list[list[int]] = []
        for row in rows[rng.permutation(len(rows))].tolist():
            places = {(row[0], row[1]), (row[0], row[2])}
            if len(chosen) < kind.n_pairs and not places & taken:
                taken |= places
                chosen.append(row)
        drawn[kind.effect] = np.array(sorted(chosen), np.int64)
    return drawn


def letter_codes(region: Region) -> Ints:
    """The code of each letter, shape (nucleotides,)."""
    return np.searchsorted(np.frombuffer(LETTERS.encode(), np.uint8), region.bases)


def _pair(codes: Ints, effects: Ints, silent: Ints, unit: Ints) -> Ints:
    """Give each change with an effect the nearest silent change of the same letters in the same unit.

    Args:
        codes: Letters of the region.
        effects: Positions and new letters, shape (n, 2).
        silent: As ``effects``, shape (m, 2).
        unit: The part of a gene that each nucleotide belongs to, negative for none, shape (nucleotides,).

    Returns:
        Position of the effect, position of the partner, new letter, shape (pairs, 3). A partner is used once, by the
        effect that is nearest to it.
    """
    n_bp, gc = len(codes), _gc_around(codes)
    effects, silent = (_usable(changes, unit) for changes in (effects, silent))
    if not len(effects) or not len(silent):
        return np.empty((0, 3), np.int64)
    silent = silent[np.argsort(_same(codes, silent, unit) * n_bp + silent[:, 0], kind="stable")]
    key, silent_key = _same(codes, effects, unit), _same(codes, silent, unit)
    after = np.searchsorted(silent_key * n_bp + silent[:, 0], key * n_bp + effects[:, 0], side="right")
    best = np.full(len(effects), MAX_APART_BP + 1)
    partner = np.zeros(len(effects), np.int64)
    for neighbor in (after - 1, after):
        at = neighbor.clip(0, len(silent) - 1)
        alike = (silent_key[at] == key) & (np.abs(gc[silent[at, 0]] - gc[effects[:, 0]]) <= MAX_GC_APART)
        apart = np.where(alike, np.abs(silent[at, 0] - effects[:, 0]), MAX_APART_BP + 1)
        nearer = (apart < best) & (apart > 0)
        best, partner = np.where(nearer, apart, best), np.where(nearer, at, partner)
    order = np.lexsort((effects[:, 0], best, partner))
    _, first = np.unique(partner[order], return_index=True)
    kept = np.sort(order[first][best[order[first]] <= MAX_APART_BP])
    return np.stack([effects[kept, 0], silent[partner[kept], 0], effects[kept, 1]], axis=1)


def _gc_around(codes: Ints) -> NDArray[np.float64]:
    """The share of G and C around each nucleotide, shape (nucleotides,); 0 near the ends of the region."""
    width = 2 * GC_FLANK_BP + 1
    share = np.zeros(len(codes))
    sums = np.concatenate([[0], np.cumsum((codes == 1) | (codes == 2))])
    share[GC_FLANK_BP:-GC_FLANK_BP] = (sums[width:] - sums[:-width]) / width
    return share


def _usable(changes: Ints, unit: Ints) -> Ints:
    """The changes in some unit that have context on both sides, each once."""
    places = changes[:, 0]
    inside = (places >= EDGE_BP) & (places < len(unit) - EDGE_BP)
    changes = changes[inside]
    return np.unique(changes[unit[changes[:, 0]] >= 0], axis=0)


def _same(codes: Ints, changes: Ints, unit: Ints) -> Ints:
    """One number for unit, left neighbor, letter, right neighbor and new letter, shape (n,)."""
    places, alt = changes[:, 0], changes[:, 1]
    letters = codes[places - 1] * 64 + codes[places] * 16 + codes[places + 1] * 4 + alt
    return unit[places] * 256 + letters


def _numbered(region: Region, parts: Callable[[Transcript], Ints], *, whole: bool = False) -> Ints:
    """Number the parts of each gene's transcript; -1 elsewhere.

    Args:
        region: The region.
        parts: Returns starts and ends of the parts, shape (n, 2).
        whole: Give all parts of a gene one number.
    """
    unit, number = np.full(region.n_bp, _NONE, np.int64), 0
    for transcript in region.representatives:
        for start, end in parts(transcript).tolist():
            unit[start:end] = number
            number += not whole
        number += whole
    return unit


def _utr_before(transcript: Transcript) -> Ints:
    """The exons before the coding sequence in reading direction."""
    return _beyond(transcript, left=transcript.strand == "+")


def _utr_after(transcript: Transcript) -> Ints:
    """The exons after the coding sequence in reading direction."""
    return _beyond(transcript, left=transcript.strand == "-")


def _beyond(transcript: Transcript, *, left: bool) -> Ints:
    coding = transcript.coding
    limits = (transcript.start_bp, coding[0, 0]) if left else (coding[-1, 1], transcript.end_bp)
    parts = transcript.exons.clip(*limits)
    return parts[parts[:, 1] > parts[:, 0]]


def _read(codes: Ints, places: Ints, strand: str) -> Ints:
    """Codes in reading direction at some places."""
    return codes[places] if strand == "+" else 3 - codes[places]


def _readings(region: Region, codes: Ints) -> Ints:
    """How each nucleotide is read: strand, codon and place in it as one number; shape (nucleotides,).

    -1 where nothing reads it, -2 where transcripts disagree, where one is broken on this genome, and in start and
    stop codons.
    """
    readings = np.full(region.n_bp, _NONE, np.int64)
    for transcript in (*region.transcripts, *region.clipped):
        places = transcript.coding_positions
        places = places[(places >= 0) & (places < region.n_bp)]
        if not region.is_intact(transcript):
            readings[places] = _DISPUTED
            continue
        codons = _read(codes, places, transcript.strand).reshape(-1, 3) @ [16, 4, 1]
        mine = (np.repeat(codons, 3) * 3 + np.arange(len(places)) % 3) * 2 + (transcript.strand == "-")
        mine[:_CODON_BP] = mine[-_CODON_BP:] = _DISPUTED
        agreed = (readings[places] == _NONE) | (readings[places] == mine)
        readings[places] = np.where(agreed, mine, _DISPUTED)
    return readings


def _start_codons(region: Region) -> Bools:
    """The start codons that no other transcript reads in another way, shape (nucleotides,)."""
    role = np.full(region.n_bp, _NONE, np.int64)  # strand and place in the start codon
    for transcript in (*region.transcripts, *region.clipped):
        places = transcript.coding_positions
        mine = np.full(len(places), _DISPUTED)
        if region.is_intact(transcript):
            mine[:_CODON_BP] = np.arange(_CODON_BP) * 2 + (transcript.strand == "-")
        inside = (places >= 0) & (places < region.n_bp)
        places, mine = places[inside], mine[inside]
        agreed = (role[places] == _NONE) | (role[places] == mine)
        role[places] = np.where(agreed, mine, _DISPUTED)
    return role >= 0


def _coding_changes(region: Region, codes: Ints) -> tuple[Ints, Ints]:
    """The stop-gained and the synonymous changes on which all transcripts agree, each of shape (n, 2)."""
    readings = _readings(region, codes)
    places = np.flatnonzero(readings >= 0)
    minus = readings[places] % 2 == 1
    phase = readings[places] // 2 % 3
    codon = readings[places] // 6
    amino, near_edge = amino_acids(), _near_exon_edge(region)[places]
    unit = 4 ** (2 - phase)
    stops, synonymous = [], []
    for letter in range(4):
        changed = codon + (letter - codon // unit % 4) * unit
        changes = np.stack([places, np.where(minus, 3 - letter, letter)], axis=1)
        stops.append(changes[amino[changed] == "*"])
        synonymous.append(changes[(amino[changed] == amino[codon]) & (changed != codon) & ~near_edge])
    return np.concatenate(stops), np.concatenate(synonymous)


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
    invariant = _DONOR if donor else _ACCEPTOR
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


def _start_changes(region: Region, codes: Ints, before: Ints) -> tuple[Ints, Ints]:
    """The changes before coding sequences that make a new ATG, and those that neither make nor break one.

    Args:
        region: The region.
        codes: Its letters.
        before: Number of the untranslated sequence that each nucleotide belongs to, negative for none.
    """
    minus = np.zeros(region.n_bp, np.bool_)
    for transcript in region.representatives:
        minus[transcript.start_bp : transcript.end_bp] = transcript.strand == "-"
    changes = _usable(_all_changes(before >= 0, codes), before)
    around = codes[changes[:, :1] + np.arange(-2, 3)]
    changed = around.copy()
    changed[:, 2] = changes[:, 1]
    read_minus = minus[changes[:, 0]][:, None]
    had, has = (_has_start(np.where(read_minus, 3 - five[:, ::-1], five)) for five in (around, changed))
    return changes[has & ~had], changes[~has & ~had]


def _has_start(codes_N5: Ints) -> Bools:
    """Whether ATG is among five letters, shape (n,)."""
    atg = [LETTERS.index(letter) for letter in "ATG"]
    return np.any([(codes_N5[:, at : at + 3] == atg).all(axis=1) for at in range(3)], axis=0)


def _poly_a(region: Region) -> tuple[Bools, Bools]:
    """The AATAAA near the ends of coding transcripts, and every place that may be part of a signal on either strand."""
    text = region.bases.tobytes().decode()
    found = {}
    for strand in "+-":
        for signal in _SIGNALS:
            word = signal if strand == "+" else signal.translate(str.maketrans("ACGT", "TGCA"))[::-1]
            starts = np.array([at for at in range(len(text) - 5) if text.startswith(word, at)], np.int64)
            found[strand, signal] = np.stack([starts, starts + len(word)], axis=1)
    ends = {
        strand: region.covered(
            np.array(
                [
                    (t.end_bp - _SIGNAL_FROM_END_BP, t.end_bp)
                    if strand == "+"
                    else (t.start_bp, t.start_bp + _SIGNAL_FROM_END_BP)
                    for t in region.representatives
                    if t.strand == strand
                ]
            ).reshape(-1, 2)
        )
        for strand in "+-"
    }
    signal = np.logical_or.reduce([region.covered(found[s, _SIGNALS[0]]) & ends[s] for s in "+-"])
    return signal, region.covered(np.concatenate(list(found.values())))


def _deep(region: Region) -> Bools:
    """In an intron of a transcript, far from every exon."""
    exons = np.concatenate([t.exons for t in (*region.transcripts, *region.clipped)])
    return Tracks(region).gene_body() & ~region.covered(exons + np.array([-INTRON_MARGIN_BP, INTRON_MARGIN_BP]))


def _all_changes(places: Bools, codes: Ints) -> Ints:
    """The three changes of each marked nucleotide, shape (n, 2)."""
    at = np.repeat(np.flatnonzero(places), 3)
    return np.stack([at, (codes[at] + 1 + np.arange(len(at)) % 3) % 4], axis=1)
