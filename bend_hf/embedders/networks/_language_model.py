"""Base classes of encoders and of networks with a head, in the form that transformers gives them.

- ``WordEmbeddingsModel``: a BERT-like network with input embeddings;
- ``LanguageModel``: the forward pass of a network with a language-model head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput


class WordEmbeddingsModel(PreTrainedModel):  # type: ignore[misc]  # transformers is not typed
    """Base class of BERT-like networks, whose input embeddings are ``embeddings.word_embeddings`` of the encoder."""

    _supports_sdpa = True

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the input embeddings of the encoder."""
        return cast("nn.Embedding", self.base_model.embeddings.word_embeddings)


class LanguageModel(ABC):
    """Forward pass of a network with a language-model head; ``base_model`` is its encoder."""

    base_model: nn.Module
    output_class: Callable[..., MaskedLMOutput] = MaskedLMOutput

    @abstractmethod
    def scores(self, x_BTD: Tensor) -> Tensor:
        """Apply the head: (batch, tokens, width) to (batch, tokens, vocabulary)."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> MaskedLMOutput:
        """Score the vocabulary at each token.

        Args:
            input_ids: Token ids, int64, shape (batch, tokens).
            attention_mask: 1 for tokens, 0 for padding, shape (batch, tokens); None if nothing is padded.
            output_hidden_states: Also return the hidden states of the encoder.

        Returns:
            ``logits`` of shape (batch, tokens, vocabulary), and ``hidden_states`` as the encoder returns them.
        """
        encoded = self.base_model(input_ids, attention_mask, output_hidden_states)
        return self.output_class(logits=self.scores(encoded.last_hidden_state), hidden_states=encoded.hidden_states)
