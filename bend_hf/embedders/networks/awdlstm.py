"""AWD-LSTM (Merity et al. 2017): the recurrent language model that BEND trains as a small baseline.

After frederikkemarin/BEND, bend/models/awd_lstm.py. The recurrence runs in torch's LSTM kernel, which gets the weights
of each layer in its own order. Dropout is left out, because it matters only in training.

>>> config = AwdLstmConfig(input_size=8, hidden_size=12, num_hidden_layers=2)
>>> AwdLstmForCausalLM(config)(torch.tensor([[3, 4, 5, 6]])).logits.shape
torch.Size([1, 4, 7])
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

from bend_hf.embedders.networks._language_model import LanguageModel
from bend_hf.embedders.networks._layers import init_linear
from bend_hf.errors import ModelError

# Keys that a file may have besides the weights: recurrent weights with one draw of dropout applied, and the state that
# training keeps between batches. fnmatch patterns, after ``rename_key``.
UNUSED_KEYS: Final[tuple[str, ...]] = ("*.dropped_weight", "last_hidden_state_*", "last_cell_state_*")


class AwdLstmConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is not typed
    """The fields of BEND's ``config.json`` that shape the network.

    Args:
        vocab_size: Number of tokens, V.
        input_size: Width of the input embeddings and of the last layer.
        hidden_size: Width of the layers before the last; unused if there is only one layer.
        num_hidden_layers: Number of layers.
        initializer_range: Standard deviation of random weights.
        bidirectional: Only False is supported.
        reset_token_id: Token that resets the state; only None is supported.

    Raises:
        ModelError: The network is bidirectional, or a token resets the state.
    """

    model_type = "AWDLSTM"

    def __init__(
        self,
        *,
        vocab_size: int = 7,  # BEND bend/models/awd_lstm.py, AWDLSTMConfig, as all below
        input_size: int = 64,
        hidden_size: int = 512,
        num_hidden_layers: int = 1,
        initializer_range: float = 0.02,
        bidirectional: bool = False,
        reset_token_id: int | None = None,
        **common: object,
    ) -> None:
        if bidirectional or reset_token_id is not None:
            raise ModelError(
                f"this AWD-LSTM has bidirectional={bidirectional} and reset_token_id={reset_token_id}; expected False "
                "and None, as in BEND's published checkpoint"
            )
        self.vocab_size = vocab_size
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.initializer_range = initializer_range
        self.bidirectional = bidirectional
        self.reset_token_id = reset_token_id
        super().__init__(**common)
        self.tie_word_embeddings = True  # the matrix of the head is that of the input embeddings


class AwdLstmLayer(nn.Module):
    """One LSTM layer. Its gates are stored in BEND's order: input, forget, output, cell."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.i2h = nn.Linear(n_in, 4 * n_out)
        self.h2h = nn.Linear(n_out, 4 * n_out)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Run the layer, (batch, tokens, n_in) to (batch, tokens, n_out); the state starts at zero."""
        weights = [
            _in_torch_order(weight) for weight in (self.i2h.weight, self.h2h.weight, self.i2h.bias, self.h2h.bias)
        ]
        zero_1BD = x_BTD.new_zeros(1, len(x_BTD), self.h2h.in_features)
        output_BTD, _, _ = torch.lstm(
            x_BTD,
            (zero_1BD, zero_1BD),
            weights,
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=False,
            bidirectional=False,
            batch_first=True,
        )
        return output_BTD


def _in_torch_order(weight: Tensor) -> Tensor:
    """Order the four gates as torch.nn.LSTM does: input, forget, cell, output."""
    entry, forget, output, cell = weight.chunk(4)
    return torch.cat([entry, forget, cell, output])


class _AwdLstmPreTrained(PreTrainedModel):  # type: ignore[misc]  # transformers is not typed
    config_class = AwdLstmConfig
    base_model_prefix = "encoder"

    def _init_weights(self, module: nn.Module) -> None:
        init_linear(module, self.config.initializer_range)


class AwdLstmModel(_AwdLstmPreTrained):
    """Input embeddings and LSTM layers."""

    def __init__(self, config: AwdLstmConfig) -> None:
        super().__init__(config)
        inner = [config.hidden_size] * (config.num_hidden_layers - 1)
        widths = [config.input_size, *inner, config.input_size]
        self.embedding = nn.Embedding(config.vocab_size, config.input_size)
        self.lstm = nn.ModuleList(AwdLstmLayer(n_in, n_out) for n_in, n_out in pairwise(widths))
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the input embeddings."""
        return self.embedding

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> BaseModelOutput:
        """Run the layers.

        Args:
            input_ids: Token ids, int64, shape (batch, tokens).
            attention_mask: Unused, because no token depends on the padding to its right.
            output_hidden_states: Also return the input embeddings and the output of each layer.

        Returns:
            ``last_hidden_state`` of shape (batch, tokens, width), undefined for padding; ``hidden_states`` if
            requested, those of the inner layers ``hidden_size`` wide.
        """
        x_BTD = self.embedding(input_ids)
        states = [x_BTD]
        for layer in self.lstm:
            x_BTD = layer(x_BTD)
            if output_hidden_states:
                states.append(x_BTD)
        return BaseModelOutput(last_hidden_state=x_BTD, hidden_states=tuple(states) if output_hidden_states else None)


class AwdLstmForCausalLM(LanguageModel, _AwdLstmPreTrained):
    """The layers with their language-model head."""

    output_class = CausalLMOutput
    _tied_weights_keys = {"decoder.weight": "encoder.embedding.weight"}  # noqa: RUF012  transformers' own form

    def __init__(self, config: AwdLstmConfig) -> None:
        super().__init__(config)
        self.encoder = AwdLstmModel(config)
        self.decoder = nn.Linear(config.input_size, config.vocab_size)
        self.decoder.weight = self.encoder.embedding.weight
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """Return the matrix of the head, which is that of the input embeddings."""
        return self.decoder

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Apply the head: (batch, tokens, width) to (batch, tokens, vocabulary)."""
        scores_BTV: Tensor = self.decoder(x_BTD)
        return scores_BTV


_LAYER: Final = re.compile(r"^(encoder\.)encoder\.(lstm\.\d+\.)(?:module\.)?(.*)$")


def rename_key(key: str) -> str:
    """Rename a key of BEND's file to one of ``AwdLstmForCausalLM``.

    BEND stores the recurrent weights twice: ``weight_raw`` as trained, which is used here, and ``module.h2h.weight``
    with one draw of dropout applied. A model trained without that dropout has only ``h2h.weight``.

    >>> rename_key("encoder.encoder.lstm.0.weight_raw")
    'encoder.lstm.0.h2h.weight'
    """
    found = _LAYER.match(key)
    if found is None:
        return key
    head, layer, weight = found.groups()
    if weight == "weight_raw":
        return f"{head}{layer}h2h.weight"
    if weight == "h2h.weight" and ".module." in key:
        return f"{head}{layer}dropped_weight"
    return f"{head}{layer}{weight}"
