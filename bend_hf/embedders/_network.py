"""Embedders over one network of transformers' form: ``base_model`` gives hidden states, the whole gives scores.

All of the families that have a network of their own stand on it; each says how its network is built and what it reads.
``compile=True`` compiles both, as either may be the one that is called.

>>> issubclass(NetworkEmbedder, Embedder)
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bend_hf.embedders._base import Embedder
from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class NetworkEmbedder(Embedder):
    """A family adds ``_load`` and ``_tokenize``."""

    def _network(self) -> PreTrainedModel:
        """Encoder and head."""
        if self.model is None:
            raise ModelError(f"{self.name} has no network; its _load() should set one")
        return cast("PreTrainedModel", self.model)

    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        encoder = self._network().base_model
        return self._pick(encoder(ids_BT, attention_mask=mask_BT, output_hidden_states=layer != -1), layer)

    def _hidden_at(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int, tokens_BQ: Tensor | None) -> Tensor:
        """Without what the last layer computes for other tokens, where the network is known well enough."""
        found = None
        if type(self)._hidden is NetworkEmbedder._hidden and not self.compile:
            from bend_hf.embedders.networks.some_tokens import hidden_at

            found = hidden_at(self._network().base_model, ids_BT, mask_BT, layer, tokens_BQ)
        return super()._hidden_at(ids_BT, mask_BT, layer, tokens_BQ) if found is None else found

    def _logits_at(self, ids_BT: Tensor, mask_BT: Tensor | None, tokens_BQ: Tensor | None) -> Tensor:
        """The same, and the head at those tokens alone."""
        found = None
        if type(self)._logits is NetworkEmbedder._logits and not self.compile:
            from bend_hf.embedders.networks.some_tokens import logits_at

            found = logits_at(self._network(), ids_BT, mask_BT, tokens_BQ)
        return super()._logits_at(ids_BT, mask_BT, tokens_BQ) if found is None else found

    def _logits(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        scores_BTV: Tensor = self._network()(ids_BT, attention_mask=mask_BT).logits
        return scores_BTV
