"""bend-mini: the small language model in this package, and models that ``bend-hf pretrain --model twoscale`` makes.

    embedder = BendMiniEmbedder("bend-mini")
    embeddings = embedder("ACGTN", upsample_embeddings=True)          # (5, 296)

Each nucleotide is a token; a sequence may have any length. Both protocols give the same embeddings. Checkpoints call
the architecture ``TwoScale``.

>>> BendMiniEmbedder("bend-mini")("ACGTN", upsample_embeddings=True).shape
(5, 296)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._nucleotides import NucleotideEmbedder, tiny_nucleotide_tokenizer
from bend_hf.embedders._spec import ModelSpec, TinyCheckpoint

if TYPE_CHECKING:
    from torch import Tensor

    from bend_hf.embedders.networks.bend_mini import BendMiniForMaskedLM


def _tiny() -> TinyCheckpoint:
    config = {
        "model_type": "TwoScale",
        "vocab_size": 7,
        "kmer": 3,
        "table_width": 8,
        "side_kmers": 2,
        "stride": 4,
        "body_width": 8,
        "body_layers": 3,
        "detail_width": 6,
        "local_width": 16,
        "fine_width": 16,
        "fine_layers": 2,
        "around_word": 2,
    }
    return TinyCheckpoint(config=config, tokenizer=tiny_nucleotide_tokenizer())


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
        tiny=_tiny,
    ),
)


class BendMiniEmbedder(NucleotideEmbedder):
    """bend-mini, or another model of its architecture (``model_type`` TwoScale)."""

    model: BendMiniForMaskedLM
    bfloat16_by_default = False  # its whitening divides by small spreads: a tenth of the largest number may change

    def _load_network(self) -> None:
        from bend_hf.embedders.networks.bend_mini import BendMiniConfig, BendMiniForMaskedLM

        config = BendMiniConfig(**read_json(self.folder / "config.json"))
        self.model = self._build(lambda: BendMiniForMaskedLM(config), allow_missing=("around.*",))

    def _n_states(self, fields: Mapping[str, object]) -> int | None:
        n_layers = fields.get("fine_layers")  # the layers of the fine part are those that can be chosen
        return n_layers + 1 if isinstance(n_layers, int) else None

    def _hidden_at(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int, tokens_BQ: Tensor | None) -> Tensor:
        """Compute the fine part at the selected tokens only."""
        if layer != -1 or tokens_BQ is None:
            return super()._hidden_at(ids_BT, mask_BT, layer, tokens_BQ)
        x_ND: Tensor = self.model.model.embeddings_at(ids_BT, mask_BT, _flat(ids_BT, tokens_BQ))
        return x_ND.view(*tokens_BQ.shape, -1)

    def _logits_at(self, ids_BT: Tensor, mask_BT: Tensor | None, tokens_BQ: Tensor | None) -> Tensor:
        """Compute the scores of selected tokens, with the head at these tokens only."""
        if tokens_BQ is None:
            return super()._logits_at(ids_BT, mask_BT, tokens_BQ)
        scores_NV: Tensor = self.model.scores_at(ids_BT, _flat(ids_BT, tokens_BQ), mask_BT)
        return scores_NV.view(*tokens_BQ.shape, -1)


def _flat(ids_BT: Tensor, tokens_BQ: Tensor) -> Tensor:
    """Index the selected tokens in the flattened batch, shape (batch * Q,)."""
    n_sequences, n_tokens = ids_BT.shape
    first_B1 = tokens_BQ.new_tensor(range(n_sequences))[:, None] * n_tokens
    return (first_B1 + tokens_BQ).flatten()
