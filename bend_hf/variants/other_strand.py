"""Variants as they read on the other strand.

>>> table = pa.table({"sequence": ["AACGTT"], "variant_offset": [2], "ref": ["C"], "alt": ["T"]})
>>> read_on_other_strand(table).to_pylist()
[{'sequence': 'AACGTT', 'variant_offset': 3, 'ref': 'G', 'alt': 'A'}]
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from bend_hf.data.other_strand import reverse_complements
from bend_hf.evaluation.predictions import Predictions
from bend_hf.types import Ints
from bend_hf.variants.read import VariantSource

_WRITTEN: tuple[str, ...] = ("ref", "alt")


@dataclass(frozen=True)
class OtherStrand:
    """The variants of a source, read on the other strand; a ``VariantSource``.

    Attributes:
        source: The variants on the plus strand.
    """

    source: VariantSource

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the two classes."""
        return self.source.label_names

    def __len__(self) -> int:
        return len(self.source)

    def by_site(self) -> Ints:
        """Sort the variants by position; indices, shape (n,)."""
        return self.source.by_site()

    def table(self, rows: Ints) -> pa.Table:
        """Return some variants; coordinates stay those of the plus strand."""
        return read_on_other_strand(self.source.table(rows))


def read_on_other_strand(table: pa.Table) -> pa.Table:
    """Return variants with sequences, offsets and alleles of the other strand.

    Args:
        table: As ``VariantSource.table`` returns it.
    """
    lengths = pc.utf8_length(table["sequence"]).cast(pa.int64())
    ends = pc.add(table["variant_offset"].cast(pa.int64()), pc.utf8_length(table["ref"]).cast(pa.int64()))
    offsets = pc.subtract(lengths, ends).cast(table["variant_offset"].type)
    turned = {name: reverse_complements(table[name]) for name in ("sequence", *_WRITTEN)}
    for name, column in {**turned, "variant_offset": offsets}.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def as_written(reverse: Predictions, forward: Predictions) -> Predictions:
    """Return scores of the other strand with the alleles as the items write them, so that items stay comparable."""
    written = {name: forward.columns[name] for name in _WRITTEN}
    return replace(reverse, columns={**reverse.columns, **written})
