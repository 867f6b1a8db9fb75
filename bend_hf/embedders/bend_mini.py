"""bend-mini, a small language model that travels with the package, and others that ``bend-hf pretrain`` makes.

    embedder = BendMiniEmbedder("bend-mini")
    rows = embedder("ACGTN", upsample_embeddings=True)                # (5, 192)

Both protocols give the same rows: one a nucleotide, for sequences of any length, without special tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._nucleotides import NucleotideEmbedder
from bend_hf.embedders._spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

    from bend_hf.embedders.networks.bend_mini import BendMiniForMaskedLM

MODELS: Final = (
    ModelSpec(
        key="bend-mini",
        embedder="bend_mini:BendMiniEmbedder",
        family="TwoScale",
        checkpoint="bend-mini",
        source="package",
        width=296,
        n_parameters=1_535_759,
        training_data="human chromosome 20 of GRCh37, without what its card names",
        license="BSD-3-Clause",
    ),
)


class BendMiniEmbedder(NucleotideEmbedder):
    """bend-mini, or another of its architecture (``model_type`` TwoScale)."""

    model: BendMiniForMaskedLM

    def _load_network(self) -> None:
        from bend_hf.embedders.networks.bend_mini import BendMiniConfig, BendMiniForMaskedLM

        config = BendMiniConfig(**read_json(self.folder / "config.json"))
        self.model = self._build(lambda: BendMiniForMaskedLM(config), allow_missing=("around.*",))

    def _hidden_at(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int, tokens_BQ: Tensor | None) -> Tensor:
        """Without the fine part of the other tokens."""
        if layer != -1 or tokens_BQ is None:
            return super()._hidden_at(ids_BT, mask_BT, layer, tokens_BQ)
        rows_ND: Tensor = self.model.model.rows_at(ids_BT, mask_BT, _places(ids_BT, tokens_BQ))
        return rows_ND.view(*tokens_BQ.shape, -1)

    def _logits_at(self, ids_BT: Tensor, mask_BT: Tensor | None, tokens_BQ: Tensor | None) -> Tensor:
        """The same, and the head at those tokens alone."""
        if tokens_BQ is None:
            return super()._logits_at(ids_BT, mask_BT, tokens_BQ)
        scores_NV: Tensor = self.model.scores_at(ids_BT, _places(ids_BT, tokens_BQ), mask_BT)
        return scores_NV.view(*tokens_BQ.shape, -1)


def _places(ids_BT: Tensor, tokens_BQ: Tensor) -> Tensor:
    """Tokens of each sequence, counted through the batch, shape (batch * Q,)."""
    n_sequences, n_tokens = ids_BT.shape
    first_B1 = tokens_BQ.new_tensor(range(n_sequences))[:, None] * n_tokens
    return (first_B1 + tokens_BQ).flatten()
