"""Reads variants out of a bed or a VCF and a genome, checks them, and hands them on to be scored.

    variants = read_variants(Path("mine.vcf.gz"), Path("hg38.fa"))
    variants.table(np.arange(4))["sequence"]          # read from the genome when it is asked for

Labels are not needed. Everything that is wrong with a file is said here, before a model loads.

Where variants come from when they are scored: a dataset that was built, or a file and its genome.

>>> DatasetSource.__name__
'DatasetSource'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bend_hf.data.bed import BedTable, name_rows, read_bed
from bend_hf.data.examples import agrees_with_genome, allele_texts, substitutions
from bend_hf.data.genome import Genome
from bend_hf.data.vcf import is_vcf, read_vcf
from bend_hf.errors import ConfigError, InputError, did_you_mean
from bend_hf.tasks import VariantSpec
from bend_hf.tasks._labels import SequenceClass, labels_from_column
from bend_hf.types import IGNORE_LABEL, Bools, Ints, Json, RefMismatch
from bend_hf.variants.config import INDELS, Indels

if TYPE_CHECKING:
    from datasets import Dataset

_SHOWN: Final = ("item", "sequence", "variant_offset", "label")
PLACES: Final = ("chromosome", "start", "end", "ref", "alt")
CONSEQUENCE: Final = "full_label"  # BEND variant_effects_disease.bed, the kind of variant


class VariantSource(Protocol):
    """Variants that can be scored."""

    def __len__(self) -> int:
        """How many."""
        ...

    def by_site(self) -> Ints:
        """Row numbers in the order of the genome, so that variants of one site stand together, shape (n,)."""
        ...

    def table(self, rows: Ints) -> pa.Table:
        """Some rows: item, sequence, variant_offset, label (-100 for none), ``PLACES``, and columns to be kept."""
        ...


class DatasetSource:
    """The variants of a dataset.

    Args:
        dataset: With ``sequence``, ``variant_offset``, ``ref``, ``alt``, ``label`` and places.
        keep: Further columns that are kept where there are any of that name.
    """

    def __init__(self, dataset: Dataset, keep: tuple[str, ...] = (CONSEQUENCE,)) -> None:
        kept = [name for name in keep if name in dataset.column_names]
        self._dataset = dataset.select_columns([*_SHOWN, *PLACES, *kept]).with_format("arrow")

    def __len__(self) -> int:
        return len(self._dataset)

    def by_site(self) -> Ints:
        """Row numbers in the order of the genome."""
        places = self._dataset.select_columns(["chromosome", "start"])[:]
        return site_order(places["chromosome"], places["start"].to_numpy())

    def table(self, rows: Ints) -> pa.Table:
        """Some rows."""
        return self._dataset[rows]


def site_order(chromosome: pa.Array | pa.ChunkedArray, start_bp: Ints) -> Ints:
    """Row numbers by chromosome (in the order of first appearance) and position; rows of one site as they stand."""
    column = chromosome.combine_chunks() if isinstance(chromosome, pa.ChunkedArray) else chromosome
    codes = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return np.lexsort((start_bp, codes.indices.to_numpy()))


LABELS: Final = SequenceClass(names=("no_effect", "effect"))
_BASE: Final = "^[ACGT]$"
_WORD: Final = "^[ACGT]+$"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What became of the rows of a file, for the record.

    Attributes:
        rows: Rows of the file, an alternative allele each.
        dropped_ref_mismatch: Left out because REF is not the genome's.
        dropped_indels: Left out because they are no substitution of one base.
        scored_by_likelihood_alone: Kept, though they are none.
        unlabelled: Kept rows without a label.
    """

    rows: int
    dropped_ref_mismatch: int
    dropped_indels: int
    scored_by_likelihood_alone: int
    unlabelled: int

    def facts(self) -> dict[str, Json]:
        """As JSON."""
        return {name: int(getattr(self, name)) for name in self.__dataclass_fields__}


@dataclass(frozen=True, kw_only=True)
class VariantFile:
    """The variants of a file, checked; a ``VariantSource``.

    Attributes:
        bed: Coordinates and further columns of the kept rows.
        item: Their row numbers in the file, counted from 0, shape (n,).
        ref: Reference allele, upper case, length n.
        alt: Other allele, length n.
        label: Class of each, -100 for none, shape (n,).
        genome: The reference.
        stored_bp: Nucleotides on each side that are read.
        keep: Further columns that go into the predictions.
        counts: What became of the rows.
    """

    bed: BedTable
    item: Ints
    ref: pa.Array
    alt: pa.Array
    label: NDArray[np.int16]
    genome: Genome
    stored_bp: int
    keep: tuple[str, ...]
    counts: Counts

    def __len__(self) -> int:
        return len(self.item)

    def by_site(self) -> Ints:
        """Row numbers in the order of the genome."""
        return site_order(self.bed.chromosome, self.bed.start_bp)

    def table(self, rows: Ints) -> pa.Table:
        """Some rows, their sequences read from the genome."""
        picked = pa.array(rows)
        ref = self.ref.take(picked)
        names = self.bed.chromosome.take(picked)
        position = self.bed.start_bp[rows]
        ends = position + pc.utf8_length(ref).to_numpy().astype(np.int64)
        contig_bp = _contig_bp(self.genome, self.bed.chromosome)[rows]
        start = np.maximum(position - self.stored_bp, 0)
        sequences = self.genome.fetch(
            names,
            start,
            np.minimum(ends + self.stored_bp, contig_bp),
            describe=lambda row: self.bed.describe(int(rows[row])),
        )
        columns: dict[str, pa.Array] = {
            "item": pa.array(self.item[rows]),
            "sequence": sequences.to_arrow(),
            "variant_offset": pa.array((position - start).astype(np.int32)),
            "label": pa.array(self.label[rows].astype(np.int64)),
            "chromosome": names.cast(pa.string()),
            "start": pa.array(position),
            "end": pa.array(ends),
            "ref": ref,
            "alt": self.alt.take(picked),
        }
        for name in self.keep:
            columns[name] = self.bed.columns[name].take(picked).combine_chunks()
        return pa.table(columns)


def read_variants(
    path: Path,
    genome: Path,
    *,
    spec: VariantSpec | None = None,
    ref_mismatch: RefMismatch = "error",
    indels: Indels = "error",
    label_column: str | None = None,
    keep: Sequence[str] = (),
) -> VariantFile:
    """Reads and checks variants.

    Args:
        path: A bed with ``ref`` and ``alt``, or a VCF; plain or compressed.
        genome: The FASTA that they speak of.
        spec: How much context they get.
        ref_mismatch: What to do where REF is not the genome's base, or equals ALT.
        indels: What to do with what is no substitution of one base: an error, left out, or scored by likelihood.
        label_column: Column of the bed, or key of the VCF's INFO, with 0 and 1; None: ``label`` where there is one.
        keep: Further columns of the bed, or keys of INFO, that stand beside the scores.

    Raises:
        BendError: A file or row is not what it should be; the message names file, row and remedy.
    """
    if indels not in INDELS:
        raise ConfigError(f"--indels is {indels!r}; expected one of {', '.join(INDELS)}")
    bed = _bed_of(path, [name for name in (label_column, *keep) if name is not None])
    reference = Genome(genome)
    spec = spec or VariantSpec()
    ref, alt = (allele_texts(bed, name).combine_chunks() for name in ("ref", "alt"))
    single = _matches(ref, _BASE) & _matches(alt, _BASE)
    kept, n_indels = _without_indels(bed, ref, alt, single, indels)
    agrees = _agrees(bed, ref, alt, single, kept, reference, ref_mismatch)
    rows = np.flatnonzero(kept & agrees)
    label = _labels(bed, label_column or "label")[rows]
    return VariantFile(
        bed=bed.take(rows),
        item=rows,
        ref=ref.take(pa.array(rows)),
        alt=alt.take(pa.array(rows)),
        label=label,
        genome=reference,
        stored_bp=spec.stored_context_bp,
        keep=tuple(dict.fromkeys(keep)),
        counts=Counts(
            rows=len(bed),
            dropped_ref_mismatch=int((kept & ~agrees).sum()),
            dropped_indels=n_indels if indels == "drop" else 0,
            scored_by_likelihood_alone=int((~single[rows]).sum()),
            unlabelled=int((label == IGNORE_LABEL).sum()),
        ),
    )


def _bed_of(path: Path, named: Sequence[str]) -> BedTable:
    """The rows of a bed or a VCF, which must have the columns that were named."""
    if is_vcf(path):
        bed = read_vcf(path, info=list(dict.fromkeys(("label", *named))))
    else:
        bed = read_bed(path, allow_empty=True)
    for name in named:
        if name not in bed.columns.column_names:
            raise InputError(
                f"{path} has no column {name!r}; {did_you_mean(name, bed.columns.column_names)}"
                + (" (of INFO only keys that were found)" if is_vcf(path) else "")
            )
    return bed


def _agrees(
    bed: BedTable, ref: pa.Array, alt: pa.Array, single: Bools, kept: Bools, reference: Genome, policy: RefMismatch
) -> Bools:
    """Whether REF is what the genome has, for substitutions of one base and for the longer ones that are kept."""
    agrees = np.zeros(len(bed), np.bool_)
    at = np.flatnonzero(single)
    if len(at):
        of_single = bed.take(at)
        agrees[at] = agrees_with_genome(substitutions(of_single), of_single, reference, policy)
    others = np.flatnonzero(kept & ~single)
    if len(others):
        agrees[others] = _words_agree(bed, ref, alt, others, reference, policy)
    return agrees


def _matches(column: pa.Array, pattern: str) -> Bools:
    found: Bools = pc.match_substring_regex(column, pattern).to_numpy(zero_copy_only=False)
    return found


def _contig_bp(genome: Genome, chromosome: pa.DictionaryArray) -> Ints:
    """Length of each row's contig, shape (n,); 0 where the genome does not have it, which reading then says."""
    lengths = np.array([genome.contigs.get(name, 0) for name in chromosome.dictionary.to_pylist()], np.int64)
    of_rows: Ints = lengths[chromosome.indices.to_numpy()]
    return of_rows


def _without_indels(bed: BedTable, ref: pa.Array, alt: pa.Array, single: Bools, indels: Indels) -> tuple[Bools, int]:
    """Which rows are kept, and how many are no substitution of one base."""
    odd = np.flatnonzero(~single)
    if not len(odd) or indels == "drop":
        return single, len(odd)

    def tell(row: int) -> str:
        return f"{bed.describe(row)} ({ref[row].as_py() or 'nothing'} to {alt[row].as_py() or 'nothing'})"

    if indels == "error":
        raise InputError(
            f"{bed.path}: {len(odd)} of {len(bed)} variants are no substitution of one base (A, C, G, T): "
            f"{name_rows(odd, tell)}; --indels likelihood scores them by likelihood alone, --indels drop leaves "
            "them out"
        )
    unwritten = np.flatnonzero(~(_matches(ref, _WORD) & _matches(alt, _WORD)))
    if len(unwritten):
        raise InputError(
            f"{bed.path}: {len(unwritten)} of {len(bed)} variants do not write out both alleles: "
            f"{name_rows(unwritten, tell)}; take them out, or leave out all that are no substitution of one base "
            "with --indels drop"
        )
    return np.ones(len(bed), np.bool_), len(odd)


def _words_agree(bed: BedTable, ref: pa.Array, alt: pa.Array, rows: Ints, genome: Genome, policy: RefMismatch) -> Bools:
    """Whether REF, of any length, is what the genome has there."""
    chosen = bed.take(rows)
    picked = pa.array(rows)
    words = ref.take(picked)
    ends = chosen.start_bp + pc.utf8_length(words).to_numpy().astype(np.int64)
    found = genome.fetch(chosen.chromosome, chosen.start_bp, ends, describe=chosen.describe).to_arrow()
    same = pc.equal(found.cast(pa.string()), words.cast(pa.string()))
    agrees: Bools = pc.and_(same, pc.not_equal(words, alt.take(picked))).to_numpy(zero_copy_only=False)
    bad = np.flatnonzero(~agrees)
    if len(bad) and policy == "error":

        def tell(row: int) -> str:
            return f"{chosen.describe(row)}: REF is {words[row].as_py()}, the genome has {found[row].as_py()}"

        raise InputError(
            f"{bed.path}: REF disagrees with {genome.path}, or is ALT, in {len(bad)} of {len(rows)} insertions and "
            f"deletions: {name_rows(bad, tell)}; mend the rows, or leave them out with --ref-mismatch drop"
        )
    return agrees


def _labels(bed: BedTable, name: str) -> NDArray[np.int16]:
    """The label of each row, -100 where its cell is empty or there is no such column."""
    label = np.full(len(bed), IGNORE_LABEL, np.int16)
    if name not in bed.columns.column_names:
        return label
    column = pc.utf8_trim_whitespace(bed.columns[name])
    rows = np.flatnonzero(pc.not_equal(column, "").to_numpy(zero_copy_only=False))
    if len(rows):
        read = labels_from_column(
            column.take(pa.array(rows)),
            LABELS,
            where=str(bed.path),
            row_number=lambda row: bed.row_number(int(rows[row])),
        )
        label[rows] = read.values
    return label
