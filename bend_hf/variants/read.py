"""Read variants from a BED, a VCF or a dataset, and check them before a model loads.

    variants = read_variants(Path("mine.vcf.gz"), Path("hg38.fa"))
    variants.table(np.arange(4))["sequence"]          # read from the genome when it is asked for

Labels are optional.
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

from bend_hf.data.bed import BedTable, read_bed
from bend_hf.data.genome import Genome
from bend_hf.data.labels import labels_from_column
from bend_hf.data.variants import WrittenVariants, warn_of_contradictions
from bend_hf.data.vcf import is_vcf, label_remedy, read_vcf
from bend_hf.errors import ConfigError, InputError, did_you_mean
from bend_hf.tasks import VariantSpec
from bend_hf.tasks._labels import SequenceClass
from bend_hf.types import IGNORE_LABEL, Bools, Ints, Json, RefMismatch
from bend_hf.variants.config import INDELS, Indels
from bend_hf.variants.scores import MAIN, score_keys

if TYPE_CHECKING:
    from datasets import Dataset

COORDINATES: Final = ("chromosome", "start", "end", "ref", "alt")
CONSEQUENCE: Final = "full_label"  # BEND variant_effects_disease.bed, the kind of variant
LABELS: Final = SequenceClass(names=("no_effect", "effect"))
_NEEDED: Final = ("item", "sequence", "variant_offset", "label")
_WRITTEN: Final = (*_NEEDED, "target", "predicted", MAIN, "left_bp", "right_bp", "ref_row", "alt_row")


class VariantSource(Protocol):
    """Variants that can be scored."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the two classes."""
        ...

    def __len__(self) -> int:
        """Number of variants."""
        ...

    def by_site(self) -> Ints:
        """Sort the variants by position, so that those of one site are neighbors; indices, shape (n,)."""
        ...

    def table(self, rows: Ints) -> pa.Table:
        """Return some variants.

        Args:
            rows: Indices of the variants, shape (m,).

        Returns:
            Columns item, sequence, variant_offset, label (-100 for an unlabeled variant), ``COORDINATES``, and any
            columns to keep next to the scores.
        """
        ...


class DatasetSource:
    """The variants of a dataset; a ``VariantSource``.

    Args:
        dataset: Columns ``sequence``, ``variant_offset``, ``ref``, ``alt``, ``label`` and coordinates.
        label_names: Names of the two classes.
        keep: Further columns to keep next to the scores, if the dataset has them.

    Raises:
        ConfigError: A name in ``keep`` is that of a column that scoring writes.
    """

    def __init__(
        self, dataset: Dataset, label_names: tuple[str, ...] = LABELS.names, keep: Sequence[str] = (CONSEQUENCE,)
    ) -> None:
        kept = [name for name in columns_to_keep(keep) if name in dataset.column_names]
        self.label_names = label_names
        self._dataset = dataset.select_columns([*_NEEDED, *COORDINATES, *kept]).with_format("arrow")

    def __len__(self) -> int:
        return len(self._dataset)

    def by_site(self) -> Ints:
        """Sort the variants by position; indices, shape (n,)."""
        coordinates = self._dataset.select_columns(["chromosome", "start"])[:]
        return site_order(coordinates["chromosome"], coordinates["start"].to_numpy())

    def table(self, rows: Ints) -> pa.Table:
        """Return some variants."""
        return self._dataset[rows]


def site_order(chromosome: pa.Array | pa.ChunkedArray, start_bp: Ints) -> Ints:
    """Sort by chromosome, in the order of first appearance, and position; stable, indices, shape (n,)."""
    column = chromosome.combine_chunks() if isinstance(chromosome, pa.ChunkedArray) else chromosome
    codes = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return np.lexsort((start_bp, codes.indices.to_numpy()))


def columns_to_keep(names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that are kept in addition to coordinates and alleles, which always are.

    Raises:
        ConfigError: Scoring writes a column of that name itself.
    """
    written = {*_WRITTEN, *score_keys()}
    for name in names:
        if name in written:
            raise ConfigError(
                f"the column {name!r} cannot be kept, because scores are written to a column of that name, or are "
                "computed from it; rename it in the file"
            )
    return tuple(name for name in dict.fromkeys(names) if name not in COORDINATES)


@dataclass(frozen=True, kw_only=True)
class VariantCounts:
    """What happened to the rows of a file, for the record.

    Attributes:
        rows: Rows of the file, one per alternative allele.
        normalized: Scored rows that write their variant with more bases than needed, or not as far left as possible.
        dropped_ref_mismatch: Dropped because REF is not the genome's.
        dropped_indels: Dropped because they are not substitutions of one base.
        scored_by_likelihood_alone: Kept although they are not substitutions of one base.
        unlabelled: Kept rows without a label.
    """

    rows: int
    normalized: int
    dropped_ref_mismatch: int
    dropped_indels: int
    scored_by_likelihood_alone: int
    unlabelled: int

    def facts(self) -> dict[str, Json]:
        """Return the counts as JSON."""
        return {name: int(getattr(self, name)) for name in self.__dataclass_fields__}


@dataclass(frozen=True, kw_only=True)
class VariantFile:
    """The variants of a file, checked; a ``VariantSource``.

    Attributes:
        bed: Coordinates and further columns of the kept rows.
        item: Row numbers in the file, counted from 0, shape (n,).
        ref: Reference alleles, upper case, length n.
        alt: Alternative alleles, upper case, length n.
        label: Class of each variant, -100 for an unlabeled one, shape (n,).
        genome: The reference.
        stored_bp: Nucleotides on each side that are read.
        keep: Further columns to keep next to the scores.
        counts: What happened to the rows of the file.
    """

    bed: BedTable
    item: Ints
    ref: pa.Array
    alt: pa.Array
    label: NDArray[np.int16]
    genome: Genome
    stored_bp: int
    keep: tuple[str, ...]
    counts: VariantCounts

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the two classes."""
        return LABELS.names

    def __len__(self) -> int:
        return len(self.item)

    def by_site(self) -> Ints:
        """Sort the variants by position; indices, shape (n,)."""
        return site_order(self.bed.chromosome, self.bed.start_bp)

    def place_columns(self) -> dict[str, pa.Array]:
        """Return the coordinates and alleles of all variants as columns, without reading the genome."""
        ends = self.bed.start_bp + pc.utf8_length(self.ref).to_numpy().astype(np.int64)
        return {
            "chromosome": self.bed.chromosome.cast(pa.string()),
            "start": pa.array(self.bed.start_bp),
            "end": pa.array(ends),
            "ref": self.ref,
            "alt": self.alt,
        }

    def table(self, rows: Ints) -> pa.Table:
        """Return some variants, with their sequences read from the genome."""
        picked = pa.array(rows)
        ref = self.ref.take(picked)
        chromosome = self.bed.chromosome.take(picked)
        position = self.bed.start_bp[rows]
        ends = position + pc.utf8_length(ref).to_numpy().astype(np.int64)
        contig_bp = _contig_bp(self.genome, self.bed.chromosome)[rows]
        start = np.maximum(position - self.stored_bp, 0)
        sequences = self.genome.fetch(
            chromosome,
            start,
            np.minimum(ends + self.stored_bp, contig_bp),
            describe=lambda row: self.bed.describe(int(rows[row])),
        )
        columns: dict[str, pa.Array] = {
            "item": pa.array(self.item[rows]),
            "sequence": sequences.to_arrow(),
            "variant_offset": pa.array((position - start).astype(np.int32)),
            "label": pa.array(self.label[rows].astype(np.int64)),
            "chromosome": chromosome.cast(pa.string()),
            "start": pa.array(position),
            "end": pa.array(ends),
            "ref": ref,
            "alt": self.alt.take(picked),
        }
        for name in self.keep:
            columns[name] = self.bed.columns[name].take(picked).combine_chunks()
        return pa.table(columns)


@dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """How a file of variants is read.

    Attributes:
        ref_mismatch: What to do if REF is not the genome's base, or equals ALT.
        indels: What to do with variants that are not substitutions of one base: raise an error, drop them, or score
            them by likelihood alone.
        label_column: BED column or VCF INFO key with 0 and 1; None takes ``label`` if there is one.
        keep: Further BED columns or INFO keys to keep next to the scores.

    Raises:
        ConfigError: ``indels`` is unknown.
    """

    ref_mismatch: RefMismatch = "error"
    indels: Indels = "error"
    label_column: str | None = None
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.indels not in INDELS:
            raise ConfigError(f"--indels is {self.indels!r}; expected one of {', '.join(INDELS)}")


def read_variants(
    path: Path, genome: Path, settings: ReadSettings | None = None, *, context: VariantSpec | None = None
) -> VariantFile:
    """Read and check variants.

    Args:
        path: A BED with ``ref`` and ``alt``, or a VCF; plain or compressed.
        genome: The FASTA of the genome that they refer to.
        settings: How to read them; by default nothing is dropped.
        context: How much sequence is read around each variant.

    Raises:
        BendError: A file or row is invalid. The message names the file, the row and what to do.
    """
    settings, context = settings or ReadSettings(), context or VariantSpec()
    keep = columns_to_keep(settings.keep)
    bed = read_rows(path, [name for name in (settings.label_column, *settings.keep) if name is not None])
    reference = Genome(genome)
    written = WrittenVariants.of(bed)
    kept = _without_indels(written, settings.indels)
    agrees = written.agree_with(reference, settings.ref_mismatch, kept=kept)
    chosen = np.flatnonzero(agrees)
    variants = written.normalized(chosen, reference)
    label = _labels(bed, settings.label_column or "label")[chosen]
    warn_of_contradictions(variants, label)
    return VariantFile(
        bed=variants.bed,
        item=chosen,
        ref=variants.ref,
        alt=variants.alt,
        label=label,
        genome=reference,
        stored_bp=context.stored_context_bp,
        keep=keep,
        counts=VariantCounts(
            rows=len(bed),
            normalized=int(variants.is_normalized.sum()),
            dropped_ref_mismatch=int((kept & ~agrees).sum()),
            dropped_indels=int((~kept).sum()),
            scored_by_likelihood_alone=int((~variants.is_substitution).sum()),
            unlabelled=int((label == IGNORE_LABEL).sum()),
        ),
    )


def read_rows(path: Path, named: Sequence[str]) -> BedTable:
    """Read a BED or a VCF and check that it has the named columns."""
    if is_vcf(path):
        bed = read_vcf(path, info=list(dict.fromkeys(("label", CONSEQUENCE, *named))))
    else:
        bed = read_bed(path, allow_empty=True)
    for name in named:
        if name not in bed.columns.column_names:
            raise InputError(
                f"{path} has no column {name!r}; {did_you_mean(name, bed.columns.column_names)}"
                + (" (of INFO, only keys that some line has)" if is_vcf(path) else "")
            )
    return bed


def _contig_bp(genome: Genome, chromosome: pa.DictionaryArray) -> Ints:
    """Look up the length of each row's contig, shape (n,); 0 if the genome lacks it, which reading reports."""
    lengths = np.array([genome.contigs.get(name, 0) for name in chromosome.dictionary.to_pylist()], np.int64)
    of_rows: Ints = lengths[chromosome.indices.to_numpy()]
    return of_rows


def _without_indels(written: WrittenVariants, indels: Indels) -> Bools:
    """Decide which rows are kept by the kind of their variant, shape (n,)."""
    single = written.is_substitution
    others = np.flatnonzero(~single)
    if not len(others) or indels == "drop":
        return single
    path = written.bed.path
    unwritten = others[np.isin(others, written.not_spelled_out())]
    if len(unwritten):
        raise InputError(
            f"{path}: {len(unwritten)} of {len(written)} variants do not spell out both alleles: "
            f"{written.name(unwritten)}. Remove them, or drop all that are not substitutions with --indels drop."
        )
    if indels == "error":
        raise InputError(
            f"{path}: {len(others)} of {len(written)} variants are not substitutions of one base (A, C, G, T): "
            f"{written.name(others)}. Give --indels likelihood to score them by likelihood alone, or --indels drop."
        )
    return np.ones(len(written), np.bool_)


def _labels(bed: BedTable, name: str) -> NDArray[np.int16]:
    """Read the label of each row, shape (n,); -100 if its cell is empty or the column is missing."""
    label = np.full(len(bed), IGNORE_LABEL, np.int16)
    if name not in bed.columns.column_names:
        return label
    column = pc.utf8_trim_whitespace(bed.columns[name])
    rows = np.flatnonzero(pc.not_equal(column, "").to_numpy(zero_copy_only=False))
    if len(rows):
        written = label_remedy(name) if is_vcf(bed.path) else f"write 0 or 1 in the column {name!r}"
        read = labels_from_column(
            column.take(pa.array(rows)),
            LABELS,
            where=str(bed.path),
            named=lambda row: bed.line(int(rows[row])),
            remedy=f"{written}; a variant without a label needs none",
        )
        label[rows] = read.values
    return label
