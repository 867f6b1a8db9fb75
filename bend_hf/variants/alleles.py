"""The sequences that a model sees of a variant: its context with the reference allele and with the other one.

>>> pair = alleles(["AACGTT"], np.array([2]), ["C"], ["G"], Context(left_bp=1, right_bp=2))
>>> pair.ref, pair.alt, pair.offset_bp.tolist()
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
    """How many nucleotides a model sees before and behind a variant."""

    left_bp: int
    right_bp: int

    @classmethod
    def of(cls, spec: VariantSpec, *, causal: bool) -> Context:
        """Both sides alike; for a causal model the left side alone, as its embedding ends at the variant."""
        if causal:
            return cls(left_bp=spec.causal_context_bp, right_bp=0)
        return cls(left_bp=spec.context_bp, right_bp=spec.context_bp)


@dataclass(frozen=True, kw_only=True)
class Alleles:
    """Sequences around n variants, one a variant and allele, and where in them the variant stands.

    Attributes:
        ref: With the reference allele.
        alt: The same with the other one.
        offset_bp: Place of the variant's first base in both, int64, shape (n,).
        left_bp: Nucleotides of context that are there before the variant, shape (n,).
        right_bp: The same behind it.
        is_substitution: Whether one base takes the place of one base, shape (n,).
    """

    ref: list[str]
    alt: list[str]
    offset_bp: Ints
    left_bp: Ints
    right_bp: Ints
    is_substitution: Bools

    def reverse_complement(self, ref_bases: Sequence[str]) -> Alleles:
        """The same variants read from the other strand.

        Args:
            ref_bases: The reference allele of each.
        """
        ref_bp = np.array([len(bases) for bases in ref_bases], np.int64)
        lengths = np.array([len(text) for text in self.ref], np.int64)
        return Alleles(
            ref=[reverse_complement(text) for text in self.ref],
            alt=[reverse_complement(text) for text in self.alt],
            offset_bp=lengths - self.offset_bp - ref_bp,
            left_bp=self.right_bp,
            right_bp=self.left_bp,
            is_substitution=self.is_substitution,
        )


def alleles(
    sequences: Sequence[str], offset_bp: Ints, ref: Sequence[str], alt: Sequence[str], context: Context
) -> Alleles:
    """Cuts the context out of stored sequences and puts the other allele in.

    Near a contig's end the context is what there is.

    Args:
        sequences: Stored sequence around each variant, with the reference allele.
        offset_bp: Place of the variant's first base in each, int64, shape (n,).
        ref: The reference allele of each.
        alt: The other allele of each.
        context: How much is shown.
    """
    starts = np.maximum(offset_bp - context.left_bp, 0)
    places = offset_bp - starts
    ref_bp = np.array([len(bases) for bases in ref], np.int64)
    ends = offset_bp + ref_bp + context.right_bp
    shown = [text[a:e] for text, a, e in zip(sequences, starts.tolist(), ends.tolist(), strict=True)]
    changed = [
        text[:place] + bases + text[place + n :]
        for text, place, bases, n in zip(shown, places.tolist(), alt, ref_bp.tolist(), strict=True)
    ]
    alt_bp = np.array([len(bases) for bases in alt], np.int64)
    return Alleles(
        ref=shown,
        alt=changed,
        offset_bp=places,
        left_bp=places,
        right_bp=np.array([len(text) for text in shown], np.int64) - places - ref_bp,
        is_substitution=(ref_bp == 1) & (alt_bp == 1),
    )


@dataclass(frozen=True, kw_only=True)
class Distinct:
    """Texts without repeats, and which of them each given one is.

    Attributes:
        texts: Each text once, in the order of first appearance.
        code: Index into ``texts`` for each text that was given, shape (n,).
    """

    texts: list[str]
    code: Ints


def distinct(texts: Sequence[str]) -> Distinct:
    """Each text once: variants of one site share the forward of their reference."""
    encoded = pa.array(texts, pa.large_string()).dictionary_encode()
    return Distinct(texts=encoded.dictionary.to_pylist(), code=encoded.indices.to_numpy().astype(np.int64))
