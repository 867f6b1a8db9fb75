"""MutBERT: BERT with rotary positions, and with rows of nucleotide frequencies as input.

Parameters are named as in the published files. Token ids are the plain case of the input: rows with a single 1.

>>> config = MutBertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12)
>>> network = MutBertModel(config).eval()
>>> mixed = torch.zeros(1, 3, 9)
>>> mixed[0, [0, 1, 1, 2], [1, 5, 7, 2]] = torch.tensor([1.0, 0.5, 0.5, 1.0])  # [CLS], A or G, [SEP]
>>> network(mixed).last_hidden_state.shape
torch.Size([1, 3, 8])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from bend_hf.embedders.networks._language_model import LanguageModel, WordEmbeddingsModel
from bend_hf.embedders.networks._layers import HeadTransform, init_linear, known_fields
from bend_hf.embedders.networks.nucleotide_transformer_v2 import rotate
from bend_hf.errors import ModelError

SCALINGS: Final = ("linear", "dynamic")


class MutBertConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is not typed
    """Sizes of the network; the defaults are those of the published config.json."""

    model_type = "mutbert"

    def __init__(
        self,
        *,
        vocab_size: int = 9,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        layer_norm_eps: float = 1e-12,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        initializer_range: float = 0.02,
        rope_theta: float = 10_000.0,
        rope_scaling: Mapping[str, object] | None = None,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.layer_norm_eps = layer_norm_eps
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.rotary_base = rope_theta
        self.scaling, self.factor = _scaling(rope_scaling)
        super().__init__()
        if hidden_act != "gelu":
            raise ModelError(f"config.json has hidden_act {hidden_act!r}; expected 'gelu', as published")
        if hidden_size % num_attention_heads or hidden_size // num_attention_heads % 2:
            raise ModelError(
                f"config.json has hidden_size {hidden_size} and num_attention_heads {num_attention_heads}; expected "
                f"heads of an even width"
            )

    @classmethod
    def published(cls, fields: Mapping[str, object]) -> MutBertConfig:
        """Make a configuration from a published config.json."""
        return cls(**known_fields(cls, fields))

    @property
    def context_tokens(self) -> int:
        """Maximum number of tokens of an input: that of training, times the factor by which positions are scaled."""
        return int(self.max_position_embeddings * self.factor)


def _scaling(fields: Mapping[str, object] | None) -> tuple[str, float]:
    """Read ``rope_scaling``: its kind, and its factor; an empty kind and 1 if it is null."""
    if fields is None:
        return "", 1.0
    kind, factor = fields.get("type", fields.get("rope_type")), fields.get("factor")
    if kind not in SCALINGS or not isinstance(factor, int | float) or factor < 1:
        raise ModelError(
            f"config.json has rope_scaling {dict(fields)}; expected null, or type {' or '.join(SCALINGS)} and a factor "
            f"of at least 1"
        )
    return str(kind), float(factor)


def rotary_tables(config: MutBertConfig, n_tokens: int, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
    """Compute cosine and sine of the angles of each position of each sequence.

    Dynamic scaling stretches the wavelengths of a sequence that is longer than the inputs of training. It goes by the
    length of that sequence alone: padding and other sequences change nothing.

    Args:
        config: Base, scaling and sizes.
        n_tokens: Number of positions T.
        lengths_B: Number of tokens of each sequence without padding, shape (batch,).

    Returns:
        Two float32 tensors of shape (batch, 1, tokens, head width).
    """
    width = config.hidden_size // config.num_attention_heads
    device = lengths_B.device
    positions = torch.arange(n_tokens, device=device, dtype=torch.float32)
    base_B1 = torch.full_like(lengths_B, config.rotary_base, dtype=torch.float32)[:, None]
    if config.scaling == "linear":
        positions = positions / config.factor
    elif config.scaling == "dynamic":
        stretch_B1 = config.factor * lengths_B.float()[:, None] / config.max_position_embeddings - (config.factor - 1)
        is_long_B1 = lengths_B[:, None] > config.max_position_embeddings
        base_B1 = torch.where(is_long_B1, base_B1 * stretch_B1 ** (width / (width - 2)), base_B1)
    exponents = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
    angles_BTW = positions[:, None] / (base_B1**exponents)[:, None]
    angles_B1TW = torch.cat((angles_BTW, angles_BTW), dim=-1)[:, None]
    return angles_B1TW.cos(), angles_B1TW.sin()


class _Embeddings(nn.Module):
    def __init__(self, config: MutBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, inputs: Tensor) -> Tensor:
        """Embed ids (batch, tokens), or frequencies (batch, tokens, vocabulary)."""
        mixes = inputs.is_floating_point()
        words_BTD = inputs @ self.word_embeddings.weight if mixes else self.word_embeddings(inputs)
        x_BTD: Tensor = self.LayerNorm(words_BTD + self.token_type_embeddings.weight[0])
        return x_BTD


class _SelfAttention(nn.Module):
    def __init__(self, config: MutBertConfig) -> None:
        super().__init__()
        self.head_width = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def _split(self, x_BTD: Tensor) -> Tensor:
        """(batch, tokens, width) to (batch, heads, tokens, head width)."""
        return x_BTD.view(*x_BTD.shape[:2], -1, self.head_width).transpose(1, 2)

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask_B11T: Tensor | None) -> Tensor:
        query = rotate(self._split(self.query(x_BTD)), cos, sin)
        key = rotate(self._split(self.key(x_BTD)), cos, sin)
        mixed = scaled_dot_product_attention(query, key, self._split(self.value(x_BTD)), attn_mask=mask_B11T)
        return mixed.transpose(1, 2).flatten(2)


class _Output(nn.Module):
    """A linear layer, and the norm of the sum with its residual."""

    def __init__(self, n_in: int, config: MutBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(n_in, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, y: Tensor, residual_BTD: Tensor) -> Tensor:
        x_BTD: Tensor = self.LayerNorm(residual_BTD + self.dense(y))
        return x_BTD


class _Layer(nn.Module):
    def __init__(self, config: MutBertConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": _SelfAttention(config), "output": _Output(config.hidden_size, config)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = _Output(config.intermediate_size, config)

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask_B11T: Tensor | None) -> Tensor:
        x_BTD = self.attention["output"](self.attention["self"](x_BTD, cos, sin, mask_B11T), x_BTD)
        out: Tensor = self.output(gelu(self.intermediate["dense"](x_BTD)), x_BTD)
        return out


class _Encoder(nn.Module):
    def __init__(self, config: MutBertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))


class _MutBertPreTrained(WordEmbeddingsModel):
    """Base class of the encoder and the language model."""

    config_class = MutBertConfig
    base_model_prefix = "bert"

    def _init_weights(self, module: nn.Module) -> None:
        init_linear(module, self.config.initializer_range)


class MutBertModel(_MutBertPreTrained):
    """The encoder."""

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__(config)
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> BaseModelOutput:
        """Run the encoder.

        Args:
            input_ids: Token ids, int, shape (batch, tokens), or frequencies of tokens, float, shape (batch, tokens,
                vocabulary).
            attention_mask: 1 for tokens, 0 for padding on the right, shape (batch, tokens); None if nothing is padded.
            output_hidden_states: Also return the input embeddings and the output of each layer.

        Returns:
            ``last_hidden_state`` of shape (batch, tokens, width), and ``hidden_states``, layers + 1 tensors.
        """
        n_tokens = input_ids.shape[1]
        mask_B11T = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        x_BTD = self.embeddings(input_ids)
        lengths_B = torch.full(input_ids.shape[:1], n_tokens, device=input_ids.device)
        if attention_mask is not None:
            lengths_B = attention_mask.sum(dim=1)
        cos, sin = (table.to(x_BTD.dtype) for table in rotary_tables(self.config, n_tokens, lengths_B))
        states = [x_BTD]
        for layer in self.encoder.layer:
            x_BTD = layer(x_BTD, cos, sin, mask_B11T)
            if output_hidden_states:
                states.append(x_BTD)
        return BaseModelOutput(last_hidden_state=x_BTD, hidden_states=tuple(states) if output_hidden_states else None)


class _Head(nn.Module):
    """BERT's head; its output matrix is that of the input embeddings."""

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__()
        self.transform = HeadTransform(config.hidden_size, nn.GELU(), config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x_BTD: Tensor, words_VD: Tensor) -> Tensor:
        scores_BTV: Tensor = self.transform(x_BTD) @ words_VD.t() + self.bias
        return scores_BTV


class MutBertForMaskedLM(LanguageModel, _MutBertPreTrained):
    """The encoder with its language-model head."""

    def __init__(self, config: MutBertConfig) -> None:
        super().__init__(config)
        self.bert = MutBertModel(config)
        self.cls = nn.ModuleDict({"predictions": _Head(config)})
        self.post_init()

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Apply the head: (batch, tokens, width) to (batch, tokens, vocabulary)."""
        scores_BTV: Tensor = self.cls["predictions"](x_BTD, self.get_input_embeddings().weight)
        return scores_BTV
