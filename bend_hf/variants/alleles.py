"""The REF and ALT sequences that a model is shown for each variant.

>>> stored = StoredVariants(sequences=["AACGTT"], offset_bp=np.array([2]), ref=["C"], alt=["G"])
>>> shown = stored.alleles(Context(left_bp=1, right_bp=2))
>>> shown.ref, shown.alt, shown.offset_bp.tolist()
(['ACGT'], ['AGGT'], [1])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from bend_hf.data.sequences import reverse_complement
from bend_hf.tasks import VariantSpec
from bend_hf.types import Bools, Ints


@dataclass(frozen=True, kw_only=True)
class Context:
    """How many nucleotides a model is shown before and after a variant."""

    left_bp: int
    right_bp: int

    @classmethod
    def of(cls, spec: VariantSpec, *, causal: bool) -> Context:
        """Choose the context of a model: both sides, or only the left side if its embeddings end at the variant."""
        if causal:
            return cls(left_bp=spec.causal_context_bp, right_bp=0)
        return cls(left_bp=spec.context_bp, right_bp=spec.context_bp)

    def mirrored(self) -> Context:
        """Exchange left and right, as seen from the other strand."""
        return Context(left_bp=self.right_bp, right_bp=self.left_bp)


@dataclass(frozen=True, kw_only=True)
class Alleles:
    """The sequences of n variants, one per allele.

    Attributes:
        ref: Sequences with the reference allele.
        alt: The same sequences with the alternative allele.
        offset_bp: Position of the variant's first base in both sequences, int64, shape (n,).
        left_bp: Nucleotides of context before the variant, shape (n,); fewer near the end of a contig.
        right_bp: Nucleotides of context after the reference allele, shape (n,).
        is_substitution: True if one base replaces one base, shape (n,).
    """

    ref: list[str]
    alt: list[str]
    offset_bp: Ints
    left_bp: Ints
    right_bp: Ints
    is_substitution: Bools

    def reverse_complement(self, ref_bases: Sequence[str]) -> Alleles:
        """Return the same variants read from the other strand.

        Args:
            ref_bases: The reference allele of each variant.
        """
        ref_bp = np.array([len(bases) for bases in ref_bases], np.int64)
        lengths = np.array([len(sequence) for sequence in self.ref], np.int64)
        return Alleles(
            ref=[reverse_complement(sequence) for sequence in self.ref],
            alt=[reverse_complement(sequence) for sequence in self.alt],
            offset_bp=lengths - self.offset_bp - ref_bp,
            left_bp=self.right_bp,
            right_bp=self.left_bp,
            is_substitution=self.is_substitution,
        )


@dataclass(frozen=True, kw_only=True)
class StoredVariants:
    """Variants as a dataset stores them.

    Attributes:
        sequences: The sequence around each variant, with the reference allele; long enough for any model.
        offset_bp: Position of the variant's first base in its sequence, int64, shape (n,).
        ref: The reference allele of each variant.
        alt: The alternative allele of each variant.
    """

    sequences: Sequence[str]
    offset_bp: Ints
    ref: Sequence[str]
    alt: Sequence[str]

    def __len__(self) -> int:
        return len(self.ref)

    @classmethod
    def of(cls, table: pa.Table) -> StoredVariants:
        """Take the variants out of a table of a ``VariantSource``."""
        return cls(
            sequences=table["sequence"].to_pylist(),
            offset_bp=table["variant_offset"].to_numpy().astype(np.int64),
            ref=table["ref"].to_pylist(),
            alt=table["alt"].to_pylist(),
        )

    def take(self, chosen: Ints) -> StoredVariants:
        """Select variants by index."""
        return StoredVariants(
            sequences=[self.sequences[i] for i in chosen],
            offset_bp=self.offset_bp[chosen],
            ref=[self.ref[i] for i in chosen],
            alt=[self.alt[i] for i in chosen],
        )

    def alleles(self, context: Context) -> Alleles:
        """Cut out the context that a model is shown and write each allele into it.

        Near the end of a contig the context is as long as the contig allows.
        """
        starts = np.maximum(self.offset_bp - context.left_bp, 0)
        offsets = self.offset_bp - starts
        ref_bp = np.array([len(bases) for bases in self.ref], np.int64)
        alt_bp = np.array([len(bases) for bases in self.alt], np.int64)
        ends = self.offset_bp + ref_bp + context.right_bp
        ref = [
            sequence[start:end]
            for sequence, start, end in zip(self.sequences, starts.tolist(), ends.tolist(), strict=True)
        ]
        alt = [
            sequence[:offset] + bases + sequence[offset + n_bp :]
            for sequence, offset, bases, n_bp in zip(ref, offsets.tolist(), self.alt, ref_bp.tolist(), strict=True)
        ]
        return Alleles(
            ref=ref,
            alt=alt,
            offset_bp=offsets,
            left_bp=offsets,
            right_bp=np.array([len(sequence) for sequence in ref], np.int64) - offsets - ref_bp,
            is_substitution=(ref_bp == 1) & (alt_bp == 1),
        )


@dataclass(frozen=True, kw_only=True)
class Distinct:
    """Texts without repeats.

    Attributes:
        texts: Each text once, in the order of first appearance.
        code: Index into ``texts`` of each given text, shape (n,).
    """

    texts: list[str]
    code: Ints


def distinct(texts: Sequence[str]) -> Distinct:
    """Remove repeated texts, so that the variants of one site share the forward pass of their reference."""
    encoded = pa.array(texts, pa.large_string()).dictionary_encode()
    return Distinct(texts=encoded.dictionary.to_pylist(), code=encoded.indices.to_numpy().astype(np.int64))
