"""One-hot embeddings: the baseline without a model, with the five columns A C G N T.

>>> OneHotEmbedder()("aX").tolist()
[[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0]]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bend_hf.embedders._alignment import Tokenized, Window, assemble
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders._spec import ModelSpec
from bend_hf.embedders._tokens import Nucleotides, nucleotide_table, single_nucleotides

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS: Final = "ACGNT"  # BEND bend/utils/embedders.py: categories of the one-hot encoder, sorted

MODELS: Final = (
    ModelSpec(
        key="onehot",
        embedder="onehot:OneHotEmbedder",
        family="one-hot",
        source="none",
        width=len(COLUMNS),
        n_parameters=0,
        direction="none",
        license="BSD-3-Clause",
        paper="https://arxiv.org/abs/2311.12570",
        verified="golden",
    ),
)


class OneHotEmbedder(Embedder):
    """One column per nucleotide; nucleotides other than A, C, G and T use the column of N."""

    needs_checkpoint = False
    direction = "none"

    def _load(self) -> None:
        self._table = nucleotide_table({nucleotide: i for i, nucleotide in enumerate(COLUMNS)}, COLUMNS.index("N"))

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        return assemble(single_nucleotides(Nucleotides.of(sequences), self._table), Window(context_tokens=None))

    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        from torch.nn.functional import one_hot

        return one_hot(ids_BT, len(COLUMNS))

    @property
    def width(self) -> int:
        """Number of columns, 5."""
        return len(COLUMNS)
