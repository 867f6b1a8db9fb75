"""References and difficult sequences for the parity tests of models of single nucleotides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bend_hf.embedders import Embedder
from bend_hf.types import Floats, Ints
from tests.parity.golden import reader
from tests.shared_data import GOLDEN

EDGES: Final = {
    "one nucleotide": "A",
    "two nucleotides": "CG",
    "all N": "N" * 40,
    "runs of N": "ACGT" + "N" * 30 + "GG" + "N" * 5,
    "lower case": "acgtnACGTacgt",
    "IUPAC": "ACRYSWKMBDHVNGT",
    "longer than other models' context": "ACGTTGCA" * 160,
}


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The stored outputs of one tiny checkpoint.

    Attributes:
        root: The folder of references that holds it, with a reader ``load.py``.
        name: Of the checkpoint.
    """

    root: Path
    name: str

    @property
    def golden(self) -> Any:
        """The reader."""
        return reader(self.root)

    @property
    def folder(self) -> Path:
        """The checkpoint's files."""
        return self.root / "ckpt" / self.name

    def sequences(self) -> dict[str, str]:
        """Every sequence there are outputs for."""
        golden = self.golden
        return {one: golden.sequences[one] for one in golden.sequence_names(self.name)}

    def rows(self) -> dict[str, Floats]:
        """Rows of each sequence, special tokens included (these models have none)."""
        golden = self.golden
        return {one: golden.embedding(self.name, one, special=True) for one in self.sequences()}

    def ids(self) -> dict[str, Ints]:
        """Token ids of each sequence."""
        golden = self.golden
        return {one: np.concatenate(golden.input_ids(self.name, one)) for one in self.sequences()}


BEND = GOLDEN
ORIGINAL = GOLDEN / "more"


def ids_of(embedder: Embedder, sequence: str) -> Ints:
    """The token ids that the model reads for a sequence."""
    return embedder.tokenize([sequence]).ids


def farthest(ours: list[Floats], theirs: list[Floats]) -> float:
    """The largest difference between rows, over all sequences; nan where shapes differ."""
    if [one.shape for one in ours] != [one.shape for one in theirs]:
        return float("nan")
    return max(float(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True))
