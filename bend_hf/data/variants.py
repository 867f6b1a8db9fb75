"""The variants of a BED or VCF file: REF is checked as it is written, then every variant is normalized.

One variant can be written in many ways: with bases around it that both alleles share, in lower case, or, if it is an
insertion or deletion in a repeat, at several positions. Only after REF was compared with the genome letter by letter,
shared bases are trimmed and insertions and deletions are moved as far left as they go (Tan et al. 2015,
doi:10.1093/bioinformatics/btv112), so that one variant has one score however it is written.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bend_hf.data.bed import BedTable, name_rows
from bend_hf.data.genome import Genome
from bend_hf.errors import InputError
from bend_hf.types import IGNORE_LABEL, Bools, Classes, Ints, RefMismatch

log = logging.getLogger(__name__)

_BASE: Final = "^[ACGT]$"
_BASES: Final = "^[ACGT]+$"
_TRIMMED: Final = "^[ACGTN]+$"
_COMPLEMENT_OF: Final = {"A": "T", "C": "G", "G": "C", "T": "A"}
_SHOWN_BASES: Final = 20  # of an allele, in a message
_STEP_BP: Final = 64  # read to the left of insertions and deletions at a time; few repeats are longer


@dataclass(frozen=True, kw_only=True)
class Variants:
    """n variants, checked and normalized.

    Attributes:
        bed: Coordinates of the normalized variants, and all columns of the file.
        ref: Reference alleles, upper case, length n.
        alt: Alternative alleles, upper case, length n.
        is_substitution: True if one base replaces one base, shape (n,).
        is_normalized: True if the file writes the variant in another way, shape (n,).
    """

    bed: BedTable
    ref: pa.Array
    alt: pa.Array
    is_substitution: Bools
    is_normalized: Bools

    @property
    def position_bp(self) -> Ints:
        """Position of each variant's first base, 0-based, shape (n,)."""
        return self.bed.start_bp


def warn_of_contradictions(variants: Variants, label: Classes) -> int:
    """Log how many variants have rows with different labels, with the first of them.

    Args:
        variants: n normalized variants, so that one that is written in two ways is found.
        label: Their classes, -100 for a row without a label, shape (n,).

    Returns:
        The number of variants with such rows.
    """
    columns = {
        "chromosome": variants.bed.chromosome.indices,
        "start": pa.array(variants.bed.start_bp),
        "ref": variants.ref,
        "alt": variants.alt,
    }
    rows = pa.table({**columns, "label": pa.array(label), "row": pa.array(np.arange(len(label)))})
    rows = rows.filter(pc.not_equal(rows["label"], IGNORE_LABEL))
    groups = rows.group_by([*columns]).aggregate([("label", "min"), ("label", "max"), ("row", "min")])
    differ = groups.filter(pc.not_equal(groups["label_min"], groups["label_max"]))
    if not len(differ):
        return 0
    first = int(pc.min(differ["row_min"]).as_py())
    same = np.logical_and.reduce([pc.equal(one, one[first]).to_numpy(zero_copy_only=False) for one in columns.values()])
    other = int(np.flatnonzero(same & (label != label[first]) & (label != IGNORE_LABEL))[0])
    log.warning(
        "%s: %d variants have rows with different labels, the first of them in %s (%s to %s, label %d) and %s (label "
        "%d); each row keeps its label. Correct them, or remove these rows",
        variants.bed.path,
        len(differ),
        variants.bed.line(first),
        _shown(variants.ref[first].as_py()),
        _shown(variants.alt[first].as_py()),
        label[first],
        variants.bed.line(other),
        label[other],
    )
    return len(differ)


@dataclass(frozen=True, kw_only=True)
class _Trimmed:
    """Alleles without the bases that both share at an end; at least one base of each stays."""

    start_bp: Ints
    ref: pa.Array
    alt: pa.Array


@dataclass(frozen=True, kw_only=True)
class WrittenVariants:
    """n variants as a file writes them; nothing is compared with the genome yet.

    Attributes:
        bed: The rows of the file.
        ref: Reference alleles, upper case, length n.
        alt: Alternative alleles, upper case, length n.
        trimmed: The same alleles without the bases that both share.
        is_substitution: True if one base (A, C, G or T) replaces one base, shape (n,).
    """

    bed: BedTable
    ref: pa.Array
    alt: pa.Array
    trimmed: _Trimmed
    is_substitution: Bools

    @classmethod
    def of(cls, bed: BedTable) -> WrittenVariants:
        """Read the columns ``ref`` and ``alt``.

        Raises:
            InputError: A column is missing.
        """
        ref, alt = (_allele_texts(bed, name) for name in ("ref", "alt"))
        trimmed = _trim(ref, alt, bed.start_bp)
        single = _matches(trimmed.ref, _BASE) & _matches(trimmed.alt, _BASE)
        return cls(bed=bed, ref=ref, alt=alt, trimmed=trimmed, is_substitution=single)

    def __len__(self) -> int:
        return len(self.bed)

    def not_spelled_out(self) -> Ints:
        """Return the rows that have an allele of other letters than A, C, G and T."""
        return np.flatnonzero(~(_matches(self.ref, _BASES) & _matches(self.alt, _BASES)))

    def name(self, rows: Ints) -> str:
        """Name some rows with their alleles, for a message."""

        def describe(row: int) -> str:
            ref, alt = (_shown(column[row].as_py()) or "nothing" for column in (self.ref, self.alt))
            return f"{self.bed.describe(row)} ({ref} to {alt})"

        return name_rows(rows, describe)

    def agree_with(self, genome: Genome, policy: RefMismatch, *, kept: Bools | None = None) -> Bools:
        """Return whether REF, as it is written, is the genome's sequence and differs from ALT, shape (n,).

        Args:
            genome: The genome.
            policy: What to do if a REF disagrees.
            kept: The rows to check, shape (n,); all others are False. None checks all.

        Raises:
            InputError: A REF disagrees and the policy is ``error``, with a guess at the reason; or an interval is not
                as long as its REF.
        """
        agrees = np.ones(len(self), np.bool_) if kept is None else kept.copy()
        rows = np.flatnonzero(agrees)
        if not len(rows):
            return agrees
        bed, ref, alt = self.bed.take(rows), self.ref.take(pa.array(rows)), self.alt.take(pa.array(rows))
        ref_bp = pc.utf8_length(ref).to_numpy().astype(np.int64)
        _check_lengths(bed, ref_bp)
        found = _genome_at(genome, bed, bed.start_bp, ref_bp)
        equal: Bools = pc.and_(pc.equal(found, ref), pc.not_equal(ref, alt)).to_numpy(zero_copy_only=False)
        bad = np.flatnonzero(~equal)
        if len(bad) and policy == "error":

            def describe(row: int) -> str:
                return _disagreement(bed.describe(row), *(column[row].as_py() for column in (ref, alt, found)))

            raise InputError(
                f"{bed.path}: REF disagrees with {genome.path} in {len(bad)} of {len(self)} rows: "
                f"{name_rows(bad, describe)}; {_reason(bed.take(bad), ref.take(pa.array(bad)), genome, len(self))}"
                "correct the rows, or drop them with --ref-mismatch drop"
            )
        agrees[rows] = equal
        return agrees

    def normalized(self, rows: Ints, genome: Genome) -> Variants:
        """Normalize some variants whose REF was checked.

        Args:
            rows: Their indices, shape (m,).
            genome: The genome.
        """
        picked = pa.array(rows)
        ref, alt = self.trimmed.ref.take(picked), self.trimmed.alt.take(picked)
        bed, start_bp = self.bed.take(rows), self.trimmed.start_bp[rows]
        ref_bp, alt_bp = (pc.utf8_length(column).to_numpy().astype(np.int64) for column in (ref, alt))
        others = np.flatnonzero(ref_bp != alt_bp)
        if len(others):
            ref, alt, start_bp = _move_left(bed, ref, alt, start_bp, others, genome)
            ref_bp = pc.utf8_length(ref).to_numpy().astype(np.int64)
        same = pc.and_(pc.equal(ref, self.ref.take(picked)), pc.equal(alt, self.alt.take(picked)))
        changed: Bools = ~(same.to_numpy(zero_copy_only=False) & (start_bp == bed.start_bp))
        return Variants(
            bed=replace(bed, start_bp=start_bp, end_bp=np.where(changed, start_bp + ref_bp, bed.end_bp)),
            ref=ref,
            alt=alt,
            is_substitution=self.is_substitution[rows],
            is_normalized=changed,
        )


def _allele_texts(bed: BedTable, name: str) -> pa.Array:
    """Return the column ``ref`` or ``alt`` in upper case."""
    if name not in bed.columns.column_names:
        found = ", ".join(bed.columns.column_names)
        raise InputError(f"{bed.path} has no column {name!r} (it has {found}); variants need ref and alt")
    return pc.utf8_upper(pc.utf8_trim_whitespace(pc.fill_null(bed.columns[name], ""))).combine_chunks()


def _matches(column: pa.Array, pattern: str) -> Bools:
    found: Bools = pc.match_substring_regex(column, pattern).to_numpy(zero_copy_only=False)
    return found


def _shown(allele: str) -> str:
    """Shorten a long allele for a message."""
    return allele if len(allele) <= _SHOWN_BASES else f"{allele[:_SHOWN_BASES]}... ({len(allele)} bases)"


def _trim(ref: pa.Array, alt: pa.Array, start_bp: Ints) -> _Trimmed:
    """Trim the bases that both alleles share at an end."""
    longer = pc.and_(pc.greater(pc.utf8_length(ref), 1), pc.greater(pc.utf8_length(alt), 1))
    longer = pc.and_(longer, pc.not_equal(ref, alt)).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(longer)
    if len(rows):
        picked = pa.array(rows)
        rows = rows[_matches(ref.take(picked), _TRIMMED) & _matches(alt.take(picked), _TRIMMED)]
    if not len(rows):
        return _Trimmed(start_bp=start_bp, ref=ref, alt=alt)
    refs, alts, start_bp = ref.to_pylist(), alt.to_pylist(), start_bp.copy()
    for row in rows.tolist():  # alleles of several bases only
        a, b = refs[row], alts[row]
        shortest = min(len(a), len(b)) - 1
        end = next((n for n in range(shortest) if a[-1 - n] != b[-1 - n]), shortest)
        a, b = a[: len(a) - end], b[: len(b) - end]
        shortest = min(len(a), len(b)) - 1
        begin = next((n for n in range(shortest) if a[n] != b[n]), shortest)
        refs[row], alts[row], start_bp[row] = a[begin:], b[begin:], start_bp[row] + begin
    return _Trimmed(start_bp=start_bp, ref=pa.array(refs, pa.string()), alt=pa.array(alts, pa.string()))


def _check_lengths(bed: BedTable, ref_bp: Ints) -> None:
    """Raise if an interval is neither empty nor as long as its REF."""
    length_bp = bed.end_bp - bed.start_bp
    wrong = np.flatnonzero((length_bp != 0) & (length_bp != ref_bp))
    if len(wrong):

        def describe(row: int) -> str:
            return f"{bed.describe(row)} has {length_bp[row]} bp and {ref_bp[row]} bases"

        raise InputError(
            f"{bed.path}: the interval of a variant must be as long as its REF (end = start + number of bases, or "
            f"start = end): {name_rows(wrong, describe)}. Correct these rows"
        )


def _genome_at(genome: Genome, bed: BedTable, start_bp: Ints, length_bp: Ints) -> pa.Array:
    """Read the genome's sequence for each row, length n."""
    if (length_bp == 1).all():
        codes = genome.base_at(bed.chromosome, start_bp, describe=bed.describe)
        letters = pa.array([chr(code) for code in range(128)])
        return letters.take(pa.array(codes.astype(np.int64)))
    found = genome.fetch(bed.chromosome, start_bp, start_bp + length_bp, describe=bed.describe)
    return found.to_arrow().cast(pa.string())


def _disagreement(row: str, ref: str, alt: str, found: str) -> str:
    """Say how a row disagrees with the genome."""
    if ref == alt:
        return f"{row}: REF and ALT are both {_shown(ref)}"
    guess = ""
    if found == alt:
        guess = " (REF and ALT swapped?)"
    elif "".join(_COMPLEMENT_OF.get(base, base) for base in reversed(ref)) == found:
        guess = " (other strand?)"
    return f"{row}: REF is {_shown(ref)}, the genome has {_shown(found)}{guess}"


def _reason(bad: BedTable, ref: pa.Array, genome: Genome, n_rows: int) -> str:
    """Guess what is wrong with all rows, from those that disagree."""
    ref_bp = pc.utf8_length(ref).to_numpy().astype(np.int64)
    length_of = np.array([genome.contigs[name] for name in bad.chromosome.dictionary.to_pylist()], np.int64)
    contig_bp = length_of[bad.chromosome.indices.to_numpy()]
    for shift, text in (
        (-1, "the positions look 1-based, but BED is 0-based; "),
        (1, "the positions look too small by one; "),
    ):
        moved = bad.start_bp + shift
        if len(bad) < 4 or not ((moved >= 0) & (moved + ref_bp <= contig_bp)).all():
            continue
        there = _genome_at(genome, bad, moved, ref_bp)
        if pc.equal(there, ref).to_numpy(zero_copy_only=False).mean() > 0.9:
            return text
    return "check that the variants were called on this assembly; " if len(bad) > 0.3 * n_rows else ""


def _move_left(
    bed: BedTable, ref: pa.Array, alt: pa.Array, start_bp: Ints, rows: Ints, genome: Genome
) -> tuple[pa.Array, pa.Array, Ints]:
    """Write insertions and deletions as far left as they go, after the base before them."""
    refs, alts, start_bp = ref.to_pylist(), alt.to_pylist(), start_bp.copy()
    chosen, texts, at_bp = [], [], []  # of those that only insert or only delete: row, text and its position
    for row in rows.tolist():
        shorter, longer = sorted((refs[row], alts[row]), key=len)
        if longer.startswith(shorter):
            text, at = longer[len(shorter) :], start_bp[row] + len(shorter)
        elif longer.endswith(shorter):
            text, at = longer[: -len(shorter)], start_bp[row]
        else:
            continue
        chosen.append(row)
        texts.append(text)
        at_bp.append(at)
    if not chosen:
        return ref, alt, start_bp
    moved, picked = bed.take(np.array(chosen, np.int64)), np.array(chosen, np.int64)
    at = np.array(at_bp, np.int64)
    shift = _shifts(moved, texts, at, genome)
    at -= shift
    deletes = np.array([len(refs[row]) > len(alts[row]) for row in chosen])
    text_bp = np.array([len(text) for text in texts], np.int64)
    anchor_at = np.where(at > 0, at - 1, text_bp * deletes)  # nothing is before the start of a contig: the base after
    anchors = _genome_at(genome, moved, anchor_at, np.ones(len(at), np.int64)).to_pylist()
    for row, text, anchor, position, by in zip(chosen, texts, anchors, at.tolist(), shift.tolist(), strict=True):
        turn = len(text) - by % len(text)
        turned = text[turn:] + text[:turn]
        longer = anchor + turned if position else turned + anchor
        refs[row], alts[row] = (longer, anchor) if len(refs[row]) > len(alts[row]) else (anchor, longer)
    start_bp[picked] = np.maximum(at - 1, 0)
    return pa.array(refs, pa.string()), pa.array(alts, pa.string()), start_bp


def _shifts(bed: BedTable, texts: list[str], at_bp: Ints, genome: Genome) -> Ints:
    """Count by how many nucleotides inserted or deleted texts can move left without changing the result, shape (n,)."""
    shift = np.zeros(len(texts), np.int64)
    moving, step_bp = np.flatnonzero(at_bp > 0), _STEP_BP
    while len(moving):
        end = at_bp[moving] - shift[moving]
        begin = np.maximum(end - step_bp, 0)
        rows = bed.take(moving)
        before = genome.fetch(rows.chromosome, begin, end, describe=rows.describe)
        full = np.zeros(len(moving), np.bool_)
        for number, row in enumerate(moving.tolist()):
            text, left, done = texts[row], before.one(number), int(shift[row])
            n = len(text)
            equal = (left[-1 - k] == text[n - 1 - (done + k) % n] for k in range(len(left)))
            found = next((k for k, same in enumerate(equal) if not same), len(left))
            shift[row], full[number] = done + found, found == len(left)
        moving, step_bp = moving[full & (begin > 0)], step_bp * 4
    return shift
