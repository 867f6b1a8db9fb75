"""Where variants come from when they are scored: a dataset that was built, or a file and its genome.

>>> DatasetSource.__name__
'DatasetSource'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import pyarrow as pa

from bend_hf.shapes import Ints

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
