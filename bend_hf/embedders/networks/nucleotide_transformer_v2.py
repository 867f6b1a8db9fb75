"""Nucleotide Transformer v2: an ESM encoder with rotary positions and a gated feed-forward layer.

transformers has ESM, and with it the first Nucleotide Transformer, but not this network, whose feed-forward layer is
SwiGLU without biases. Parameters are named as in the published files.

>>> config = NucleotideTransformerV2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
>>> NucleotideTransformerV2Model(config)(torch.tensor([[3, 6, 7]])).last_hidden_state.shape
torch.Size([1, 3, 8])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention, silu
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from bend_hf.embedders.networks._language_model import LanguageModel, WordEmbeddingsModel
from bend_hf.embedders.networks._layers import sizes_from
from bend_hf.embedders.networks.selected_tokens import take
from bend_hf.errors import ModelError

ROTARY_BASE: Final = 10_000.0  # modeling_esm.py of the published checkpoints, RotaryEmbedding

# Keys of the published files that this network does not use: absolute positions (replaced by rotary ones), the rotary
# frequencies (computed here), and ESM's contact head. fnmatch patterns.
UNUSED_KEYS: Final[tuple[str, ...]] = (
    "esm.embeddings.position_embeddings.weight",
    "esm.encoder.layer.*.attention.self.rotary_embeddings.inv_freq",
    "esm.contact_head.regression.*",
    "esm.pooler.*",
)

# Fields that are the same in every published config.json. The network supports only these values.
_FIXED: Final[dict[str, object]] = {
    "position_embedding_type": "rotary",
    "add_bias_fnn": False,
    "emb_layer_norm_before": False,
    "token_dropout": False,
}
_SIZES: Final = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "layer_norm_eps",
    "pad_token_id",
)


class NucleotideTransformerV2Config(PreTrainedConfig):  # type: ignore[misc]  # transformers is not typed
    """Sizes of the network; the defaults are those of the 50m checkpoint.

    The published config.json has no ``model_type``, so the class cannot be chosen by it; see ``published``.
    """

    model_type = "nucleotide_transformer_v2"

    def __init__(
        self,
        *,
        vocab_size: int = 4107,  # config.json of nucleotide-transformer-v2-50m-multi-species, as all below
        hidden_size: int = 512,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 16,
        intermediate_size: int = 2048,
        max_position_embeddings: int = 2050,
        layer_norm_eps: float = 1e-12,
        initializer_range: float = 0.02,
        pad_token_id: int = 1,
        mask_token_id: int = 2,
        tie_word_embeddings: bool = False,
        **common: object,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.mask_token_id = mask_token_id
        # Set here too: newer releases of transformers do not take it as a keyword of the base class.
        self.pad_token_id = pad_token_id
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **common)

    @classmethod
    def published(cls, fields: Mapping[str, object], *, name: str = "config.json") -> NucleotideTransformerV2Config:
        """Make a configuration from a published config.json, which is checked to describe this network.

        Args:
            fields: Content of the file.
            name: Name of the file, for messages.

        Raises:
            ModelError: A size is missing, or the file describes another network.
        """
        odd = {field: fields[field] for field, value in _FIXED.items() if fields.get(field, value) != value}
        if odd:
            raise ModelError(f"{name} has {odd}; expected {_FIXED}, as in every published v2")
        return cls(**sizes_from(fields, _SIZES, name=name))


def rotary_tables(
    n_tokens: int, head_width: int, *, device: torch.device, dtype: torch.dtype, base: float = ROTARY_BASE
) -> tuple[Tensor, Tensor]:
    """Compute cosine and sine of the angles of each position; the two halves of a head are equal.

    Args:
        n_tokens: Number of tokens T; the first one, CLS, has position 0.
        head_width: Width of one attention head.
        device: Device of the result.
        dtype: Type of the result; angles are computed in float32.
        base: Longest wavelength over 2 pi.

    Returns:
        Two tensors of shape (tokens, head width).
    """
    exponents = torch.arange(0, head_width, 2, device=device, dtype=torch.float32) / head_width
    # One over the power, as the published frequencies were computed. The power of the negative exponent rounds
    # differently, and position 2,000 amplifies the difference to 1e-4 in the output.
    frequencies = 1.0 / base**exponents
    angles = torch.outer(torch.arange(n_tokens, device=device, dtype=torch.float32), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of channels (i, i + half) by the angle of its position.

    Args:
        x: Queries or keys, shape (batch, heads, tokens, head width).
        cos: From ``rotary_tables``, shape (tokens, head width).
        sin: From ``rotary_tables``, shape (tokens, head width).

    Returns:
        The shape of ``x``.
    """
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class _Dense(nn.Module):
    """A linear layer with the published name ``dense``."""

    def __init__(self, n_in: int, n_out: int, *, bias: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(n_in, n_out, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        projected: Tensor = self.dense(x_BTD)
        return projected


class _SelfAttention(nn.Module):
    def __init__(self, config: NucleotideTransformerV2Config) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def _split(self, x_BTD: Tensor) -> Tensor:
        """(batch, tokens, width) to (batch, heads, tokens, head width)."""
        return x_BTD.view(*x_BTD.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(
        self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask_B11T: Tensor | None, tokens_BQ: Tensor | None
    ) -> Tensor:
        if tokens_BQ is None:
            query = rotate(self._split(self.query(x_BTD)), cos, sin)
        else:
            angles = cos[tokens_BQ][:, None], sin[tokens_BQ][:, None]
            query = rotate(self._split(self.query(take(x_BTD, tokens_BQ))), *angles)
        key = rotate(self._split(self.key(x_BTD)), cos, sin)
        value = self._split(self.value(x_BTD))
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask_B11T)
        return mixed.transpose(1, 2).flatten(2)


class _Attention(nn.Module):
    def __init__(self, config: NucleotideTransformerV2Config) -> None:
        super().__init__()
        self.self = _SelfAttention(config)
        self.output = _Dense(config.hidden_size, config.hidden_size, bias=True)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask_B11T: Tensor | None, tokens_BQ: Tensor | None
    ) -> Tensor:
        mixed: Tensor = self.output(self.self(self.LayerNorm(x_BTD), cos, sin, mask_B11T, tokens_BQ))
        return take(x_BTD, tokens_BQ) + mixed


class _Layer(nn.Module):
    def __init__(self, config: NucleotideTransformerV2Config) -> None:
        super().__init__()
        self.attention = _Attention(config)
        self.intermediate = _Dense(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.output = _Dense(config.intermediate_size, config.hidden_size, bias=False)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask_B11T: Tensor | None, tokens_BQ: Tensor | None = None
    ) -> Tensor:
        """Run the layer, shape (batch, tokens, width); only for the selected tokens if ``tokens_BQ`` is given."""
        x_BTD = self.attention(x_BTD, cos, sin, mask_B11T, tokens_BQ)
        gate, linear = self.intermediate(self.LayerNorm(x_BTD)).chunk(2, dim=-1)
        added: Tensor = self.output(silu(gate) * linear)
        return x_BTD + added


class _Embeddings(nn.Module):
    def __init__(self, config: NucleotideTransformerV2Config) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)


class _Encoder(nn.Module):
    def __init__(self, config: NucleotideTransformerV2Config) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.emb_layer_norm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class _LMHead(nn.Module):
    def __init__(self, config: NucleotideTransformerV2Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x_BTD: Tensor) -> Tensor:
        scores: Tensor = self.decoder(self.layer_norm(gelu(self.dense(x_BTD))))
        return scores + self.bias


class NucleotideTransformerV2PreTrainedModel(WordEmbeddingsModel):
    """Base class of the encoder and the language model."""

    config_class = NucleotideTransformerV2Config
    base_model_prefix = "esm"


class NucleotideTransformerV2Model(NucleotideTransformerV2PreTrainedModel):
    """The encoder."""

    def __init__(self, config: NucleotideTransformerV2Config) -> None:
        super().__init__(config)
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> BaseModelOutput:
        """Run the encoder.

        Args:
            input_ids: Token ids, int, shape (batch, tokens).
            attention_mask: 1 or True for tokens, 0 for padding on the right, shape (batch, tokens); or None.
            output_hidden_states: Also return the output of each layer.

        Returns:
            ``last_hidden_state`` of shape (batch, tokens, width). ``hidden_states``, if requested: the input embeddings
            and the output of each layer, the last one after the final norm.
        """
        x_BTD, cos, sin, mask_B11T = self._inputs(input_ids, attention_mask)
        states = [x_BTD]
        for layer in self.encoder.layer:
            x_BTD = layer(x_BTD, cos, sin, mask_B11T)
            if output_hidden_states:
                states.append(x_BTD)
        x_BTD = self.encoder.emb_layer_norm_after(x_BTD)
        hidden_states = (*states[:-1], x_BTD) if output_hidden_states else None
        return BaseModelOutput(last_hidden_state=x_BTD, hidden_states=hidden_states)

    def hidden_at(
        self, input_ids: Tensor, attention_mask: Tensor | None, depth: int, tokens_BQ: Tensor | None
    ) -> Tensor:
        """Compute the hidden state after ``depth`` layers at selected tokens; see ``selected_tokens.hidden_at``."""
        x_BTD, cos, sin, mask_B11T = self._inputs(input_ids, attention_mask)
        if depth == 0:
            return take(x_BTD, tokens_BQ)
        for layer in self.encoder.layer[: depth - 1]:
            x_BTD = layer(x_BTD, cos, sin, mask_B11T)
        x_BQD: Tensor = self.encoder.layer[depth - 1](x_BTD, cos, sin, mask_B11T, tokens_BQ)
        if depth == len(self.encoder.layer):
            x_BQD = self.encoder.emb_layer_norm_after(x_BQD)
        return x_BQD

    def _inputs(self, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return input embeddings, cosines and sines of the positions, and the mask of shape (batch, 1, 1, tokens)."""
        x_BTD = self.embeddings.word_embeddings(input_ids)
        mask_B11T = None
        if attention_mask is not None:
            x_BTD = x_BTD * attention_mask.unsqueeze(-1).to(x_BTD.dtype)
            mask_B11T = attention_mask.to(torch.bool)[:, None, None, :]
        head_width = self.config.hidden_size // self.config.num_attention_heads
        cos, sin = rotary_tables(input_ids.shape[1], head_width, device=x_BTD.device, dtype=x_BTD.dtype)
        return x_BTD, cos, sin, mask_B11T


class NucleotideTransformerV2ForMaskedLM(LanguageModel, NucleotideTransformerV2PreTrainedModel):
    """The encoder with its language-model head."""

    def __init__(self, config: NucleotideTransformerV2Config) -> None:
        super().__init__(config)
        self.esm = NucleotideTransformerV2Model(config)
        self.lm_head = _LMHead(config)
        self.post_init()

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Apply the head: (batch, tokens, width) to (batch, tokens, vocabulary)."""
        scores_BTV: Tensor = self.lm_head(x_BTD)
        return scores_BTV
