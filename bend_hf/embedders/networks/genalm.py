"""GENA-LM's BERT: layer norms before attention and feed-forward, and optionally a norm behind the last layer.

After AIRI-Institute/GENA_LM, src/gena_lm/modeling_bert.py. Parameters are named as in the published files, without
``bert.`` for the encoder alone.

>>> config = GenaLMConfig(vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=2)
>>> GenaLMModel(config)(torch.tensor([[1, 6, 2]])).last_hidden_state.shape
torch.Size([1, 3, 4])
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from bend_hf.embedders.networks._language_model import LanguageModel, WordEmbeddingsModel
from bend_hf.embedders.networks._layers import HeadTransform, init_linear
from bend_hf.errors import ModelError


class GenaLMConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is not typed
    """The keys of a published ``config.json``, with its defaults.

    Args:
        vocab_size: Number of tokens, V.
        hidden_size: Width, D.
        num_hidden_layers: Number of layers.
        num_attention_heads: Number of heads; divides the width.
        intermediate_size: Width of the feed-forward layer.
        hidden_act: ``gelu`` (exact) or ``gelu_new`` (tanh).
        hidden_dropout_prob: Dropout of embeddings and of both residual branches, in training only.
        attention_probs_dropout_prob: Dropout of attention weights, in training only.
        max_position_embeddings: Longest input in tokens.
        type_vocab_size: Number of segment embeddings; only the first one is used.
        layer_norm_eps: Epsilon of each layer norm.
        pad_token_id: Id of padding.
        initializer_range: Standard deviation of random weights.
        pre_layer_norm: Norms before the two branches of a layer; False: behind them, as in BERT.
        last_layer_norm: A norm behind the last layer; None: the value of ``pre_layer_norm``, the authors' default.
        position_embedding_type: ``absolute``; the rotary models with sparse attention are not supported.
        tie_word_embeddings: The output matrix of the head is that of the input embeddings, unless a file has its own.
    """

    model_type = "gena_lm_bert"

    def __init__(
        self,
        vocab_size: int = 32000,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        layer_norm_eps: float = 1e-12,
        pad_token_id: int = 3,
        initializer_range: float = 0.02,
        pre_layer_norm: bool = True,
        last_layer_norm: bool | None = None,
        position_embedding_type: str = "absolute",
        tie_word_embeddings: bool = True,
        **common: object,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.pre_layer_norm = pre_layer_norm
        self.last_layer_norm = pre_layer_norm if last_layer_norm is None else last_layer_norm
        self.position_embedding_type = position_embedding_type
        super().__init__(pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **common)
        if position_embedding_type != "absolute" or getattr(self, "sparse_attention", None):
            raise ModelError(
                f"this GENA-LM has position_embedding_type {position_embedding_type!r} and sparse_attention "
                f"{getattr(self, 'sparse_attention', None)!r}; expected 'absolute' and None. Models with "
                f"DeepSpeed's sparse attention are not supported; use gena-lm-bigbird-base-t2t"
            )
        if hidden_act not in _ACTIVATIONS:
            raise ModelError(f"hidden_act is {hidden_act!r}; expected one of {sorted(_ACTIVATIONS)}")
        if hidden_size % num_attention_heads:
            raise ModelError(
                f"hidden_size {hidden_size} is not a multiple of num_attention_heads {num_attention_heads}"
            )


_ACTIVATIONS: Final = {"gelu": "none", "gelu_new": "tanh"}  # torch's names of the approximation


def _gelu(config: GenaLMConfig) -> nn.GELU:
    return nn.GELU(approximate=_ACTIVATIONS[config.hidden_act])


class _Embeddings(nn.Module):
    """The sum of word, position and segment embeddings, normalized."""

    def __init__(self, config: GenaLMConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Embed ids (batch, tokens), shape (batch, tokens, width)."""
        position_TD = self.position_embeddings.weight[: ids_BT.shape[1]]
        x_BTD = self.word_embeddings(ids_BT) + self.token_type_embeddings.weight[0] + position_TD
        return self.dropout(self.LayerNorm(x_BTD))  # type: ignore[no-any-return]  # torch's modules return Any


class _SelfAttention(nn.Module):
    """Queries, keys and values; softmax attention over all tokens that are not padding."""

    def __init__(self, config: GenaLMConfig) -> None:
        super().__init__()
        self.n_heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_BTD: Tensor, mask_B11T: Tensor | None) -> Tensor:
        """Attend to the tokens that are True in the mask, shape (batch, 1, 1, tokens)."""
        q, k, v = (
            layer(x_BTD).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        mixed: Tensor = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask_B11T, dropout_p=dropout)
        return mixed.transpose(1, 2).flatten(2)


class _Dense(nn.Module):
    """A linear map, with a norm over the residual sum in post-norm layers."""

    def __init__(self, width_in: int, config: GenaLMConfig, *, norm: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(width_in, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if norm else None

    def forward(self, y: Tensor, residual_BTD: Tensor) -> Tensor:
        """Add the branch to its residual, (batch, tokens, width)."""
        x_BTD: Tensor = residual_BTD + self.dropout(self.dense(y))
        if self.LayerNorm is not None:
            x_BTD = self.LayerNorm(x_BTD)
        return x_BTD


class _Layer(nn.Module):
    """One transformer layer, norms before its branches or behind them."""

    def __init__(self, config: GenaLMConfig) -> None:
        super().__init__()
        post_norm = not config.pre_layer_norm
        self.attention = nn.ModuleDict(
            {"self": _SelfAttention(config), "output": _Dense(config.hidden_size, config, norm=post_norm)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = _Dense(config.intermediate_size, config, norm=post_norm)
        self.activation = _gelu(config)
        self.pre_attention_ln: nn.Module = nn.Identity()
        self.post_attention_ln: nn.Module = nn.Identity()
        if config.pre_layer_norm:
            self.pre_attention_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            self.post_attention_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x_BTD: Tensor, mask_B11T: Tensor | None) -> Tensor:
        """Run the layer, (batch, tokens, width) to the same shape."""
        mixed_BTD = self.attention["self"](self.pre_attention_ln(x_BTD), mask_B11T)
        x_BTD = self.attention["output"](mixed_BTD, x_BTD)
        wide = self.activation(self.intermediate["dense"](self.post_attention_ln(x_BTD)))
        return self.output(wide, x_BTD)  # type: ignore[no-any-return]  # torch's modules return Any


class _Encoder(nn.Module):
    """All layers, and the last norm if the configuration has one."""

    def __init__(self, config: GenaLMConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.last_layer_ln = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.last_layer_norm else None
        )

    def forward(self, x_BTD: Tensor, mask_B11T: Tensor | None, last_norm: bool) -> list[Tensor]:
        """Return the input and the output of each layer.

        The last one is normalized if ``last_norm`` is True and the model has the norm.
        """
        states = [x_BTD]
        for layer in self.layer:
            states.append(layer(states[-1], mask_B11T))
        if last_norm and self.last_layer_ln is not None:
            states[-1] = self.last_layer_ln(states[-1])
        return states


class _GenaLMPreTrained(WordEmbeddingsModel):
    """Base class of the encoder and the language model."""

    config_class = GenaLMConfig
    base_model_prefix = "bert"

    def _init_weights(self, module: nn.Module) -> None:
        init_linear(module, self.config.initializer_range)


class GenaLMModel(_GenaLMPreTrained):
    """The encoder without a head."""

    def __init__(self, config: GenaLMConfig) -> None:
        super().__init__(config)
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool = False,
        last_norm: bool = True,
    ) -> BaseModelOutput:
        """Run the encoder.

        Args:
            input_ids: Token ids, int64, shape (batch, tokens).
            attention_mask: 1 for tokens, 0 for padding, shape (batch, tokens); None if nothing is padded.
            output_hidden_states: Also return the input embeddings and the output of each layer.
            last_norm: False leaves out the norm behind the last layer, as BEND's copy of the architecture does.

        Returns:
            ``last_hidden_state``, shape (batch, tokens, width), and ``hidden_states``, layers + 1 tensors.
        """
        n_tokens = input_ids.shape[1]
        if n_tokens > self.config.max_position_embeddings:
            raise ModelError(
                f"an input of {n_tokens} tokens is longer than the {self.config.max_position_embeddings} "
                f"positions of this GENA-LM; cut it into chunks first, as GENALMEmbedder does"
            )
        mask_B11T = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        states = self.encoder(self.embeddings(input_ids), mask_B11T, last_norm)
        return BaseModelOutput(
            last_hidden_state=states[-1], hidden_states=tuple(states) if output_hidden_states else None
        )


class _PredictionHead(nn.Module):
    """BERT's masked-language-model head: linear, GELU, norm, output matrix and a separate bias."""

    def __init__(self, config: GenaLMConfig) -> None:
        super().__init__()
        self.transform = HeadTransform(config.hidden_size, _gelu(config), config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Score the vocabulary, shape (batch, tokens, vocabulary)."""
        return self.decoder(self.transform(x_BTD)) + self.bias  # type: ignore[no-any-return]  # torch's modules return Any


class GenaLMForMaskedLM(LanguageModel, _GenaLMPreTrained):
    """The encoder with its masked-language-model head."""

    _tied_weights_keys = {"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"}  # noqa: RUF012  transformers' own form

    def __init__(self, config: GenaLMConfig) -> None:
        super().__init__(config)
        self.bert = GenaLMModel(config)
        self.cls = nn.ModuleDict({"predictions": _PredictionHead(config)})
        self.post_init()

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Apply the head: (batch, tokens, width) to (batch, tokens, vocabulary)."""
        scores_BTV: Tensor = self.cls["predictions"](x_BTD)
        return scores_BTV
