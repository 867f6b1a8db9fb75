"""GENERanno: the blocks of a Llama without a causal mask, so that each token sees the whole sequence.

Its weights have the names of a Llama's. Built as one, they would give other numbers everywhere.

>>> sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1}
>>> config = GENERannoConfig(**sizes, num_attention_heads=2, num_key_value_heads=1)
>>> GENERannoModel(config)(torch.tensor([[1, 6, 1]])).last_hidden_state.shape
torch.Size([1, 3, 8])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from bend_hf.embedders.networks._language_model import LanguageModel
from bend_hf.embedders.networks._layers import init_linear, known_fields
from bend_hf.embedders.networks.nucleotide_transformer_v2 import rotary_tables, rotate
from bend_hf.errors import ModelError

# Fields of config.json that have one supported value, that of every published model.
_FIXED: Final[dict[str, object]] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}


class GENERannoConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is not typed
    """Sizes of the network; the defaults are those of eukaryote-0.5b-base."""

    model_type = "generanno"

    def __init__(
        self,
        *,
        vocab_size: int = 64,
        hidden_size: int = 1280,
        intermediate_size: int = 3520,
        num_hidden_layers: int = 28,
        num_attention_heads: int = 16,
        num_key_value_heads: int = 4,
        max_position_embeddings: int = 8192,
        rms_norm_eps: float = 1e-5,
        rope_theta: float = 500_000.0,
        initializer_range: float = 0.02,
        **common: object,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.max_position_embeddings = max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        self.rope_theta = rope_theta
        self.initializer_range = initializer_range
        super().__init__(tie_word_embeddings=False, **common)
        if hidden_size % num_attention_heads or num_attention_heads % num_key_value_heads:
            raise ModelError(
                f"{num_attention_heads} heads do not divide a width of {hidden_size}, or are not a multiple of "
                f"{num_key_value_heads} heads of keys; check config.json"
            )

    @classmethod
    def published(cls, fields: Mapping[str, object]) -> GENERannoConfig:
        """Make a configuration from a published config.json.

        Raises:
            ModelError: The file describes another network.
        """
        odd = {field: fields[field] for field, value in _FIXED.items() if fields.get(field, value) != value}
        if odd:
            raise ModelError(f"config.json has {odd}; expected {_FIXED}, as in every published GENERanno")
        return cls(**known_fields(cls, fields))


class _RMSNorm(nn.Module):
    def __init__(self, config: GENERannoConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden_size))
        self.epsilon = config.rms_norm_eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        normed: Tensor = rms_norm(x_BTD.float(), self.weight.shape, None, self.epsilon)
        return self.weight * normed.to(x_BTD.dtype)


class _Attention(nn.Module):
    def __init__(self, config: GENERannoConfig) -> None:
        super().__init__()
        self.head_width = config.hidden_size // config.num_attention_heads
        self.sharing = config.num_attention_heads // config.num_key_value_heads
        narrow = self.head_width * config.num_key_value_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, narrow, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, narrow, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def _split(self, x_BTD: Tensor) -> Tensor:
        """(batch, tokens, width) to (batch, heads, tokens, head width)."""
        return x_BTD.view(*x_BTD.shape[:2], -1, self.head_width).transpose(1, 2)

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask_B11T: Tensor | None) -> Tensor:
        query = rotate(self._split(self.q_proj(x_BTD)), cos, sin)
        key = rotate(self._split(self.k_proj(x_BTD)), cos, sin).repeat_interleave(self.sharing, dim=1)
        value = self._split(self.v_proj(x_BTD)).repeat_interleave(self.sharing, dim=1)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask_B11T)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return out


class _FeedForward(nn.Module):
    def __init__(self, config: GENERannoConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.down_proj(silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return out


class _Layer(nn.Module):
    def __init__(self, config: GENERannoConfig) -> None:
        super().__init__()
        self.input_layernorm = _RMSNorm(config)
        self.self_attn = _Attention(config)
        self.post_attention_layernorm = _RMSNorm(config)
        self.mlp = _FeedForward(config)

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask_B11T: Tensor | None) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos, sin, mask_B11T)
        out: Tensor = x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))
        return out


class _GENERannoPreTrained(PreTrainedModel):  # type: ignore[misc]  # transformers is not typed
    """Base class of the encoder and the language model."""

    config_class = GENERannoConfig
    base_model_prefix = "model"
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        init_linear(module, self.config.initializer_range)


class GENERannoModel(_GENERannoPreTrained):
    """The encoder."""

    def __init__(self, config: GENERannoConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = _RMSNorm(config)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> BaseModelOutput:
        """Run the encoder.

        Args:
            input_ids: Token ids, int, shape (batch, tokens).
            attention_mask: 1 for tokens, 0 for padding, shape (batch, tokens); None if nothing is padded.
            output_hidden_states: Also return the input embeddings and the output of each layer.

        Returns:
            ``last_hidden_state`` of shape (batch, tokens, width), and ``hidden_states``, layers + 1 tensors, the last
            one after the final norm.
        """
        x_BTD = self.embed_tokens(input_ids)
        mask_B11T = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        cos, sin = rotary_tables(
            input_ids.shape[1],
            self.config.hidden_size // self.config.num_attention_heads,
            device=x_BTD.device,
            dtype=x_BTD.dtype,
            base=self.config.rope_theta,
        )
        states = [x_BTD]
        for layer in self.layers:
            x_BTD = layer(x_BTD, cos, sin, mask_B11T)
            if output_hidden_states:
                states.append(x_BTD)
        x_BTD = self.norm(x_BTD)
        hidden_states = (*states[:-1], x_BTD) if output_hidden_states else None
        return BaseModelOutput(last_hidden_state=x_BTD, hidden_states=hidden_states)


class GENERannoForMaskedLM(LanguageModel, _GENERannoPreTrained):
    """The encoder with its language-model head, a linear map without bias."""

    def __init__(self, config: GENERannoConfig) -> None:
        super().__init__(config)
        self.model = GENERannoModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Apply the head: (batch, tokens, width) to (batch, tokens, vocabulary)."""
        scores_BTV: Tensor = self.lm_head(x_BTD)
        return scores_BTV
