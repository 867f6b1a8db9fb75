"""AWD-LSTM (Merity et al. 2017), the recurrent language model that BEND trains as a small baseline.

>>> config = AwdLstmConfig(input_size=8, hidden_size=12, num_hidden_layers=2)
>>> AwdLstmForCausalLM(config)(torch.tensor([[3, 4, 5, 6]])).logits.shape
torch.Size([1, 4, 7])

Facts: frederikkemarin/BEND, bend/models/awd_lstm.py. The recurrence runs in torch's own LSTM kernel, to which each
layer hands its weights in the kernel's order. Dropout, of use in training alone, is left out.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

from bend_hf.errors import ModelError

# What a file may hold beside the weights: the recurrent weights with one draw of dropout in them, and the state that
# training carries from batch to batch. Patterns of fnmatch, after ``rename_key``.
UNUSED_KEYS: Final[tuple[str, ...]] = ("*.dropped_weight", "last_hidden_state_*", "last_cell_state_*")


class AwdLstmConfig(PreTrainedConfig):  # type: ignore[misc]
    """The fields of BEND's ``config.json`` that shape the network.

    Args:
        vocab_size: Tokens, V.
        input_size: Width of the token vectors, and of the last layer's output.
        hidden_size: Width of the layers before the last; a single layer has none of it.
        num_hidden_layers: Layers.
        initializer_range: Standard deviation of random weights.
        bidirectional: Only False is supported.
        reset_token_id: Token that resets the state; only None is supported.

    Raises:
        ModelError: The network is bidirectional, or a token resets it.
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
                "and None, as in BEND's published checkpoint: no other kind can be loaded"
            )
        self.vocab_size = vocab_size
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.initializer_range = initializer_range
        self.bidirectional = bidirectional
        self.reset_token_id = reset_token_id
        super().__init__(**common)
        self.tie_word_embeddings = True  # the head's matrix is the table of token vectors


class AwdLstmLayer(nn.Module):
    """One LSTM, its gates kept in BEND's order: input, forget, output, cell."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.i2h = nn.Linear(n_in, 4 * n_out)
        self.h2h = nn.Linear(n_out, 4 * n_out)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Outputs (batch, tokens, n_out) of inputs (batch, tokens, n_in); the state starts at zero."""
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
    """Rows of the four gates as torch.nn.LSTM has them: input, forget, cell, output."""
    entry, forget, output, cell = weight.chunk(4)
    return torch.cat([entry, forget, cell, output])


class _AwdLstmPreTrained(PreTrainedModel):  # type: ignore[misc]
    config_class = AwdLstmConfig
    base_model_prefix = "encoder"

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


class AwdLstmModel(_AwdLstmPreTrained):
    """Token vectors and LSTM layers."""

    def __init__(self, config: AwdLstmConfig) -> None:
        super().__init__(config)
        inner = [config.hidden_size] * (config.num_hidden_layers - 1)
        widths = [config.input_size, *inner, config.input_size]
        self.embedding = nn.Embedding(config.vocab_size, config.input_size)
        self.lstm = nn.ModuleList(AwdLstmLayer(n_in, n_out) for n_in, n_out in pairwise(widths))
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of token vectors."""
        return self.embedding

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> BaseModelOutput:
        """Run the layers.

        Args:
            input_ids: Token ids, int64, shape (batch, tokens).
            attention_mask: Not needed, as no token sees the padding on its right.
            output_hidden_states: Also return the token vectors and what each layer gives.

        Returns:
            ``last_hidden_state`` of shape (batch, tokens, width), without meaning where padded; ``hidden_states`` if
            asked for, those of the inner layers ``hidden_size`` wide.
        """
        x_BTD = self.embedding(input_ids)
        states = [x_BTD]
        for layer in self.lstm:
            x_BTD = layer(x_BTD)
            if output_hidden_states:
                states.append(x_BTD)
        return BaseModelOutput(last_hidden_state=x_BTD, hidden_states=tuple(states) if output_hidden_states else None)


class AwdLstmForCausalLM(_AwdLstmPreTrained):
    """The layers with their language-model head."""

    _tied_weights_keys = {"decoder.weight": "encoder.embedding.weight"}  # noqa: RUF012  transformers' own form

    def __init__(self, config: AwdLstmConfig) -> None:
        super().__init__(config)
        self.encoder = AwdLstmModel(config)
        self.decoder = nn.Linear(config.input_size, config.vocab_size)
        self.decoder.weight = self.encoder.embedding.weight
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """The head's matrix, which is the table of token vectors."""
        return self.decoder

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> CausalLMOutput:
        """Scores of the token that follows each place; see ``AwdLstmModel.forward``.

        Returns:
            ``logits`` of shape (batch, tokens, vocabulary), and ``hidden_states`` if asked for.
        """
        encoded = self.encoder(input_ids, attention_mask, output_hidden_states)
        return CausalLMOutput(logits=self.decoder(encoded.last_hidden_state), hidden_states=encoded.hidden_states)


_LAYER: Final = re.compile(r"^(encoder\.)encoder\.(lstm\.\d+\.)(?:module\.)?(.*)$")


def rename_key(key: str) -> str:
    """A key of BEND's file in ``AwdLstmForCausalLM``.

    BEND keeps the recurrent weights twice: as trained in ``weight_raw``, and in ``module.h2h.weight`` with one draw
    of dropout; the first counts. A model trained without that dropout has ``h2h.weight`` alone.

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
