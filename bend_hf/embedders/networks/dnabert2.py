"""DNABERT-2: BERT with linear attention biases (ALiBi) instead of positions, and a gated feed-forward layer.

Plain PyTorch, without Triton. The published code removes padding from a batch; here the mask has the same effect.
Parameters are named as in the published file.

>>> config = DNABert2Config(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
>>> DNABert2Model(config)(torch.tensor([[1, 6, 2]])).last_hidden_state.shape
torch.Size([1, 3, 8])
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, scaled_dot_product_attention
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from bend_hf.embedders.networks._language_model import LanguageModel, WordEmbeddingsModel
from bend_hf.embedders.networks._layers import sizes_from

# Queries whose bias is in memory at the same time: 12 heads, 2,048 queries and 10,000 keys take 1 GB in float32.
QUERY_BLOCK: Final = 2048
# Rows of the bias start at multiples of as many numbers. PyTorch's attention on a GPU copies any other bias, in each
# layer (aten/src/ATen/native/transformers/attention.cpp, mem_eff_alignment).
ALIGNED: Final = 8

# The pooler of some copies; it is not part of the language model. fnmatch patterns.
UNUSED_KEYS: Final[tuple[str, ...]] = ("bert.pooler.dense.*",)

# The last matrix of the head is that of the input embeddings; a file may leave it out.
TIED_KEYS: Final[dict[str, str]] = {"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"}

_MARK: Final = "alibi_starting_size"  # distinguishes its config.json from that of a BERT; both have model_type 'bert'
_SIZES: Final = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "type_vocab_size",
    "layer_norm_eps",
)


class DNABert2Config(PreTrainedConfig):  # type: ignore[misc]  # transformers is not typed
    """Sizes of the network; the defaults are those of zhihan1996/DNABERT-2-117M.

    Its config.json has the ``model_type`` ``bert``, so the class cannot be chosen by it; see ``published``.
    """

    model_type = "dnabert2"

    def __init__(
        self,
        *,
        vocab_size: int = 4096,  # config.json of zhihan1996/DNABERT-2-117M, as all below
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        type_vocab_size: int = 2,
        layer_norm_eps: float = 1e-12,
        initializer_range: float = 0.02,
        pad_token_id: int = 3,  # tokenizer.json; config.json says 0, which is [UNK]
        tie_word_embeddings: bool = True,
        **common: object,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.type_vocab_size = type_vocab_size
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        # Set here too: newer releases of transformers do not take it as a keyword of the base class.
        self.pad_token_id = pad_token_id
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **common)

    @classmethod
    def published(cls, fields: Mapping[str, object], *, pad_token_id: int, name: str = "config.json") -> DNABert2Config:
        """Make a configuration from a published config.json, or from one that this class saved.

        Args:
            fields: Content of the file.
            pad_token_id: Id of the tokenizer; the one in the file is wrong.
            name: Name of the file, for messages.

        Raises:
            ModelError: A size is missing, or the file is that of a BERT.
        """
        needed = _SIZES if fields.get("model_type") == cls.model_type else (*_SIZES, _MARK)
        sizes = sizes_from(fields, needed, name=name)
        sizes.pop(_MARK, None)
        return cls(**sizes, pad_token_id=pad_token_id)


def alibi_slopes(n_heads: int) -> list[float]:
    """Compute how fast the attention of each head falls with distance.

    Train Short, Test Long (arXiv:2108.12409), section 3: a geometric series from 2^(-8/n) if n is a power of two;
    otherwise the series of the power below, then every other entry of the series of the power above.

    Args:
        n_heads: Attention heads H.

    Returns:
        H slopes.

    >>> alibi_slopes(2)
    [0.0625, 0.00390625]
    """
    below = 2 ** math.floor(math.log2(n_heads))
    row = [2.0 ** (-8.0 * (head + 1) / below) for head in range(below)]
    between = [2.0 ** (-4.0 * (head + 1) / below) for head in range(0, 2 * below, 2)]
    return row + between[: n_heads - below]


@cache
def _slopes_on(device: torch.device, n_heads: int) -> Tensor:
    """Return the slopes on a device, shape (H,); they are sent once, because sending waits for the device."""
    with torch.inference_mode(False):
        return torch.tensor(alibi_slopes(n_heads), device=device)


class AttentionBias:
    """The bias of the attention scores: minus slope times distance, and minus infinity for padding.

    Short inputs have one table for all layers. A long input would fill the memory with it, so each layer computes it
    again, for a block of queries at a time.

    Args:
        n_tokens: T.
        n_heads: H.
        attention_mask: 1 or True for tokens, 0 for padding, shape (batch, tokens); None if nothing is padded.
        like: A tensor with the device and type of the scores.
    """

    def __init__(self, n_tokens: int, n_heads: int, attention_mask: Tensor | None, *, like: Tensor) -> None:
        self.blocks = [slice(start, min(start + QUERY_BLOCK, n_tokens)) for start in range(0, n_tokens, QUERY_BLOCK)]
        self._dtype, self._n_tokens = like.dtype, n_tokens
        n_aligned = -(-n_tokens // ALIGNED) * ALIGNED
        self._place_T = torch.arange(n_aligned, device=like.device, dtype=torch.float32)
        self._slopes_H11 = _slopes_on(like.device, n_heads).view(-1, 1, 1)
        self._padding_B11T = None
        if attention_mask is not None:
            is_token_BT = pad(attention_mask.to(torch.bool), (0, n_aligned - n_tokens))
            self._padding_B11T = ~is_token_BT[:, None, None, :]
        self._whole = self._of(self.blocks[0]) if len(self.blocks) == 1 else None

    def of(self, queries: slice) -> Tensor:
        """Return the bias of a block of Q queries for all keys, shape (1 or batch, heads, Q, tokens)."""
        return self._of(queries) if self._whole is None else self._whole

    def _of(self, queries: slice) -> Tensor:
        distance_QT = (self._place_T[queries, None] - self._place_T[None, :]).abs()
        bias_1HQT = (-self._slopes_H11 * distance_QT).to(self._dtype).unsqueeze(0)
        if self._padding_B11T is None:
            return bias_1HQT[..., : self._n_tokens]
        return bias_1HQT.masked_fill(self._padding_B11T, -math.inf)[..., : self._n_tokens]


class _SelfAttention(nn.Module):
    def __init__(self, config: DNABert2Config) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.Wqkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)

    def forward(self, x_BTD: Tensor, bias: AttentionBias) -> Tensor:
        query, key, value = self.Wqkv(x_BTD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = [
            scaled_dot_product_attention(query[:, :, block], key, value, attn_mask=bias.of(block))
            for block in bias.blocks
        ]
        return torch.cat(mixed, dim=2).transpose(1, 2).flatten(2)


class _SelfOutput(nn.Module):
    def __init__(self, config: DNABert2Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, mixed_BTD: Tensor, x_BTD: Tensor) -> Tensor:
        normed: Tensor = self.LayerNorm(self.dense(mixed_BTD) + x_BTD)
        return normed


class _Attention(nn.Module):
    def __init__(self, config: DNABert2Config) -> None:
        super().__init__()
        self.self = _SelfAttention(config)
        self.output = _SelfOutput(config)

    def forward(self, x_BTD: Tensor, bias: AttentionBias) -> Tensor:
        mixed: Tensor = self.output(self.self(x_BTD, bias), x_BTD)
        return mixed


class _GatedFeedForward(nn.Module):
    def __init__(self, config: DNABert2Config) -> None:
        super().__init__()
        self.gated_layers = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.wo = nn.Linear(config.intermediate_size, config.hidden_size)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate, linear = self.gated_layers(x_BTD).chunk(2, dim=-1)
        normed: Tensor = self.layernorm(self.wo(gelu(gate) * linear) + x_BTD)
        return normed


class _Layer(nn.Module):
    def __init__(self, config: DNABert2Config) -> None:
        super().__init__()
        self.attention = _Attention(config)
        self.mlp = _GatedFeedForward(config)

    def forward(self, x_BTD: Tensor, bias: AttentionBias) -> Tensor:
        fed: Tensor = self.mlp(self.attention(x_BTD, bias))
        return fed


class _Embeddings(nn.Module):
    def __init__(self, config: DNABert2Config) -> None:
        super().__init__()
        # No padding_idx: the published embedding of [PAD] is an ordinary one, and the mask hides it.
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, ids_BT: Tensor) -> Tensor:
        normed: Tensor = self.LayerNorm(self.word_embeddings(ids_BT) + self.token_type_embeddings.weight[0])
        return normed


class _Encoder(nn.Module):
    def __init__(self, config: DNABert2Config) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))


class _Transform(nn.Module):
    def __init__(self, config: DNABert2Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class _Predictions(nn.Module):
    def __init__(self, config: DNABert2Config) -> None:
        super().__init__()
        self.transform = _Transform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        scores: Tensor = self.decoder(self.transform.LayerNorm(gelu(self.transform.dense(x_BTD))))
        return scores


class _MaskedLMHead(nn.Module):
    def __init__(self, config: DNABert2Config) -> None:
        super().__init__()
        self.predictions = _Predictions(config)


class DNABert2PreTrainedModel(WordEmbeddingsModel):
    """Base class of the encoder and the language model."""

    config_class = DNABert2Config
    base_model_prefix = "bert"


class DNABert2Model(DNABert2PreTrainedModel):
    """The encoder."""

    def __init__(self, config: DNABert2Config) -> None:
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
            ``last_hidden_state`` of shape (batch, tokens, width), undefined for padding. ``hidden_states``, if
            requested: the input embeddings and the output of each layer.
        """
        x_BTD = self.embeddings(input_ids)
        heads = self.config.num_attention_heads
        bias = AttentionBias(input_ids.shape[1], heads, attention_mask, like=x_BTD)
        states = [x_BTD]
        for layer in self.encoder.layer:
            x_BTD = layer(x_BTD, bias)
            if output_hidden_states:
                states.append(x_BTD)
        return BaseModelOutput(last_hidden_state=x_BTD, hidden_states=tuple(states) if output_hidden_states else None)


class DNABert2ForMaskedLM(LanguageModel, DNABert2PreTrainedModel):
    """The encoder with its language-model head."""

    _tied_weights_keys = TIED_KEYS

    def __init__(self, config: DNABert2Config) -> None:
        super().__init__(config)
        self.bert = DNABert2Model(config)
        self.cls = _MaskedLMHead(config)
        # Tied here too: post_init does not tie if initial weights are skipped.
        self.cls.predictions.decoder.weight = self.bert.embeddings.word_embeddings.weight
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """Return the last matrix of the head, which is that of the input embeddings."""
        return self.cls.predictions.decoder

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Apply the head: (batch, tokens, width) to (batch, tokens, vocabulary)."""
        scores_BTV: Tensor = self.cls.predictions(x_BTD)
        return scores_BTV
