"""The kinds of labels that a task can have; ``bend_hf.data.labels`` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

MOST_CLASSES: Final = 1 << 15  # class indices are stored as int16


@dataclass(frozen=True, kw_only=True)
class NucleotideClasses:
    """One class per nucleotide, read from HDF5."""

    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BinClasses:
    """One class per bin of ``bin_bp`` nucleotides, read from HDF5; two names make it a yes-or-no label."""

    names: tuple[str, ...]
    bin_bp: int


@dataclass(frozen=True, kw_only=True)
class MultiLabel:
    """Any number of positive labels per sequence; the ``label`` column lists their indices."""

    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SequenceClass:
    """One class per sequence, a single index in the ``label`` column."""

    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RealValues:
    """One real value per name and sequence; the ``label`` column lists them. ``nan``, ``NA`` or nothing is missing."""

    names: tuple[str, ...]
    dtype: Literal["float32"] = "float32"


LabelKind: TypeAlias = NucleotideClasses | BinClasses | MultiLabel | SequenceClass | RealValues


def strand_partners(names: Sequence[str]) -> tuple[int, ...]:
    """Return the label that each label is on the other strand.

    A name that ends with ``+`` and the same name with ``-`` are partners; any other label is its own.

    >>> strand_partners(("donor+", "none", "donor-"))
    (2, 1, 0)
    """
    place = {name: index for index, name in enumerate(names)}
    other = {"+": "-", "-": "+"}
    return tuple(
        place.get(name[:-1] + other[name[-1:]], index) if name[-1:] in other else index
        for index, name in enumerate(names)
    )
