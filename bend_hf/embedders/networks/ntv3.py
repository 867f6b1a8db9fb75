"""NTv3: a U-Net of convolutions around a transformer, so that a million nucleotides fit.

A tower of convolutions halves the length ``num_downsamples`` times, the transformer reads the shortened sequence, and a
second tower doubles the length again and adds what the first one had at that length. So the network needs a multiple of
``2 ** num_downsamples`` tokens, a *block*. Each sequence is filled up to whole blocks of its own, with the token
``filler_token_id``, and the result is cut back. What a batch adds behind that is hidden from every convolution and from
the attention. So a row depends on its sequence alone, and equals that of the sequence in a batch of its own. In the
original PyTorch code it depends on the padding of the batch.

Parameters are named as in the published files.

>>> config = NTv3Config(embed_dim=8, conv_init_embed_dim=8, attention_heads=2, key_size=4, ffn_embed_dim=8)
>>> NTv3ForMaskedLM(config)(torch.tensor([[6, 7, 8, 9, 10]])).logits.shape
torch.Size([1, 5, 11])
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv_transpose1d, gelu, linear, pad, scaled_dot_product_attention, silu
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from bend_hf.embedders.networks._language_model import LanguageModel
from bend_hf.embedders.networks._layers import init_linear, known_fields, masked
from bend_hf.embedders.networks.nucleotide_transformer_v2 import rotary_tables, rotate
from bend_hf.errors import ModelError, did_you_mean

_TAPS: Final = 5  # of the convolutions of both towers; the stem has 15
_STEM_TAPS: Final = 15
_CONVOLUTION_EPSILON: Final = 1e-5  # of the norms of both towers, which no field of config.json changes
_UPSAMPLING: Final = ("repeat+conv", "conv_transpose")
# Fields of config.json that have one supported value, that of every published pre-trained model.
_FIXED: Final[dict[str, object]] = {
    "num_hidden_layers_head": 0,
    "deconv_phase": "odd",
    "tie_word_embeddings": False,
}


class NTv3Config(PreTrainedConfig):  # type: ignore[misc]  # transformers is not typed
    """Sizes of the network; the defaults are those of the 8M model.

    Args:
        alphabet_size: Number of tokens.
        num_downsamples: How often the length is halved.
        attention_heads: Heads of the transformer.
        key_size: Width of one head.
        token_embed_dim: Width of the input embeddings.
        conv_init_embed_dim: Width at full length.
        embed_dim: Width of the transformer.
        ffn_embed_dim: Width of its feed-forward branch.
        num_layers: Layers of the transformer.
        layer_norm_eps: Of the norms of the transformer.
        use_skip_connection: Whether the second tower adds the states of the first.
        deconv_upsample_type: How the second tower doubles the length, ``repeat+conv`` or ``conv_transpose``.
        pad_token_id: Id of padding.
        mask_token_id: Id of the mask.
        filler_token_id: Id of the token that fills up the last block; None: that of padding.
        initializer_range: Standard deviation of random linear weights.

    Raises:
        ModelError: ``deconv_upsample_type`` is unknown.
    """

    model_type = "ntv3"

    def __init__(
        self,
        *,
        alphabet_size: int = 11,
        num_downsamples: int = 7,
        attention_heads: int = 8,
        key_size: int = 32,
        token_embed_dim: int = 16,
        conv_init_embed_dim: int = 256,
        embed_dim: int = 256,
        ffn_embed_dim: int = 1024,
        num_layers: int = 2,
        layer_norm_eps: float = 1e-5,
        use_skip_connection: bool = True,
        deconv_upsample_type: str = "repeat+conv",
        pad_token_id: int = 1,
        mask_token_id: int = 2,
        filler_token_id: int | None = None,
        initializer_range: float = 0.02,
        **common: object,
    ) -> None:
        if deconv_upsample_type not in _UPSAMPLING:
            hint = did_you_mean(deconv_upsample_type, list(_UPSAMPLING))
            raise ModelError(f"this NTv3 has the deconv_upsample_type {deconv_upsample_type!r}; {hint}")
        self.alphabet_size = alphabet_size
        self.num_downsamples = num_downsamples
        self.attention_heads = attention_heads
        self.key_size = key_size
        self.token_embed_dim = token_embed_dim
        self.conv_init_embed_dim = conv_init_embed_dim
        self.embed_dim = embed_dim
        self.ffn_embed_dim = ffn_embed_dim
        self.num_layers = num_layers
        self.layer_norm_eps = layer_norm_eps
        self.use_skip_connection = use_skip_connection
        self.deconv_upsample_type = deconv_upsample_type
        self.mask_token_id = mask_token_id
        self.filler_token_id = pad_token_id if filler_token_id is None else filler_token_id
        self.initializer_range = initializer_range
        # Set here too: newer releases of transformers do not take it as a keyword of the base class.
        self.pad_token_id = pad_token_id
        super().__init__(pad_token_id=pad_token_id, tie_word_embeddings=False, **common)

    @classmethod
    def published(cls, fields: Mapping[str, object]) -> NTv3Config:
        """Make a configuration from a published config.json.

        The fields ``*_dtype`` are not read: the whole network computes in the type that the user chooses.

        Raises:
            ModelError: The file describes another network.
        """
        if fields.get("conditions_names") or "Post" in str(fields.get("architectures")):
            raise ModelError(
                "config.json is that of a post-trained NTv3, which needs the species of each sequence; expected a "
                "pre-trained one, such as InstaDeepAI/NTv3_8M_pre"
            )
        odd = {field: fields[field] for field, value in _FIXED.items() if fields.get(field, value) != value}
        if odd:
            raise ModelError(f"config.json has {odd}; expected {_FIXED}, as in every published NTv3")
        return cls(**known_fields(cls, fields))

    @property
    def hidden_size(self) -> int:
        """Width of the last hidden state."""
        return self.conv_init_embed_dim

    @property
    def block_tokens(self) -> int:
        """The length of an input is a multiple of this."""
        return int(2**self.num_downsamples)

    @property
    def filters(self) -> list[int]:
        """Width at full length, at half of it, and so on to that of the transformer."""
        steps = np.linspace(self.conv_init_embed_dim, self.embed_dim, self.num_downsamples + 1)
        return [int(width) for width in steps]  # cut, not rounded, as in the original

    @property
    def state_widths(self) -> list[int]:
        """Width of each hidden state; see ``NTv3Model``."""
        filters = self.filters
        return [self.token_embed_dim, *filters[1:], *[self.embed_dim] * self.num_layers, *filters[-2::-1]]


class _Convolution(nn.Module):
    """Holds a convolution, and its norm if it has one, under their published names."""

    conv: nn.Conv1d | nn.ConvTranspose1d

    def __init__(self, convolution: nn.Conv1d | nn.ConvTranspose1d, norm: nn.LayerNorm | None) -> None:
        super().__init__()
        self.conv = convolution
        if norm is not None:
            self.layer_norm = norm


class _Residual(nn.Module):
    """Add a convolution of one tap, which is a linear map of each position."""

    def __init__(self, width: int, *, transposed: bool) -> None:
        super().__init__()
        kind = nn.ConvTranspose1d if transposed else nn.Conv1d
        self.conv_block = _Convolution(kind(width, width, 1), nn.LayerNorm(width, eps=_CONVOLUTION_EPSILON))
        self.transposed = transposed

    def forward(self, x_BTD: Tensor) -> Tensor:
        convolution = self.conv_block.conv
        weight_DD = convolution.weight[..., 0].t() if self.transposed else convolution.weight[..., 0]
        added: Tensor = gelu(linear(self.conv_block.layer_norm(x_BTD), weight_DD, convolution.bias), approximate="tanh")
        return x_BTD + added


class _Down(nn.Module):
    """A level of the first tower, without the pooling behind it."""

    def __init__(self, width: int, wider: int) -> None:
        super().__init__()
        convolution = nn.Conv1d(width, wider, _TAPS, padding="same")
        self.conv = _Convolution(convolution, nn.LayerNorm(width, eps=_CONVOLUTION_EPSILON))
        self.res_conv = _Residual(wider, transposed=False)

    def forward(self, x_BTD: Tensor, token_BT1: Tensor | None) -> Tensor:
        normed_BTD = masked(self.conv.layer_norm(x_BTD), token_BT1)
        out: Tensor = self.res_conv(_convolve(self.conv.conv, normed_BTD))
        return out


class _Up(nn.Module):
    """A level of the second tower: twice the length."""

    def __init__(self, width: int, narrower: int, *, repeats: bool) -> None:
        super().__init__()
        self.repeats = repeats
        convolution = nn.Conv1d(width, narrower, _TAPS) if repeats else nn.ConvTranspose1d(width, narrower, _TAPS)
        self.conv = _Convolution(convolution, nn.LayerNorm(width, eps=_CONVOLUTION_EPSILON))
        self.res_conv = _Residual(narrower, transposed=True)

    def forward(self, x_BTD: Tensor, token_BT1: Tensor | None) -> Tensor:
        normed_BDT = masked(self.conv.layer_norm(x_BTD), token_BT1).transpose(1, 2)
        convolution = self.conv.conv
        if self.repeats:
            doubled_BDT = normed_BDT.repeat_interleave(2, dim=2)
            y_BDT = conv1d(doubled_BDT, convolution.weight, convolution.bias, padding=_TAPS // 2)
        else:
            # The input is at the odd positions, with zeros between, and the stored taps are not flipped; those of
            # conv_transpose1d are.
            y_BDT = conv_transpose1d(normed_BDT, convolution.weight.flip(2), convolution.bias, stride=2, padding=1)
            y_BDT = y_BDT[..., : 2 * normed_BDT.shape[2]]
        out: Tensor = self.res_conv(gelu(y_BDT.transpose(1, 2), approximate="tanh"))
        return out


def _convolve(convolution: nn.Module, x_BTD: Tensor) -> Tensor:
    """Convolve along the positions and activate, shape (batch, positions, width) in and out."""
    return gelu(convolution(x_BTD.transpose(1, 2)).transpose(1, 2), approximate="tanh")


class _Projection(nn.Module):
    """A linear map under its published name."""

    def __init__(self, config: NTv3Config) -> None:
        super().__init__()
        self.linear = nn.Linear(config.embed_dim, config.attention_heads * config.key_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.linear(x_BTD)
        return out


class _Attention(nn.Module):
    def __init__(self, config: NTv3Config) -> None:
        super().__init__()
        self.head_width = config.key_size
        self.query_head = _Projection(config)
        self.key_head = _Projection(config)
        self.value_head = _Projection(config)
        self.mha_output = nn.Linear(config.attention_heads * config.key_size, config.embed_dim)

    def _split(self, x_BTD: Tensor) -> Tensor:
        """(batch, tokens, width) to (batch, heads, tokens, head width)."""
        return x_BTD.view(*x_BTD.shape[:2], -1, self.head_width).transpose(1, 2)

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask_B11T: Tensor | None) -> Tensor:
        query = rotate(self._split(self.query_head(x_BTD)), cos, sin)
        key = rotate(self._split(self.key_head(x_BTD)), cos, sin)
        value = self._split(self.value_head(x_BTD))
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask_B11T)
        out: Tensor = self.mha_output(mixed.transpose(1, 2).flatten(2))
        return out


class _Layer(nn.Module):
    def __init__(self, config: NTv3Config) -> None:
        super().__init__()
        self.self_attention_layer_norm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.sa_layer = _Attention(config)
        self.final_layer_norm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.embed_dim, 2 * config.ffn_embed_dim, bias=False)
        self.fc2 = nn.Linear(config.ffn_embed_dim, config.embed_dim, bias=False)

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask_B11T: Tensor | None) -> Tensor:
        x_BTD = x_BTD + self.sa_layer(self.self_attention_layer_norm(x_BTD), cos, sin, mask_B11T)
        gate_BTF, value_BTF = self.fc1(self.final_layer_norm(x_BTD)).chunk(2, dim=-1)
        out: Tensor = x_BTD + self.fc2(silu(gate_BTF) * value_BTF)
        return out


class _Head(nn.Module):
    def __init__(self, config: NTv3Config) -> None:
        super().__init__()
        self.head = nn.Linear(config.conv_init_embed_dim, config.alphabet_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        scores_BTV: Tensor = self.head(gelu(x_BTD, approximate="tanh"))
        return scores_BTV


class _NTv3PreTrained(PreTrainedModel):  # type: ignore[misc]  # transformers is not typed
    """Base class of the encoder and the language model."""

    config_class = NTv3Config
    base_model_prefix = "core"
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        init_linear(module, self.config.initializer_range)


class NTv3Model(_NTv3PreTrained):
    """The encoder. It also holds the head, as in the published files.

    Hidden states are the input embeddings, the output of each level of the first tower, of each layer of the
    transformer, and of each level of the second tower. Those at full length have the length of the whole blocks, the
    others are shorter by a power of 2.
    """

    def __init__(self, config: NTv3Config) -> None:
        super().__init__(config)
        filters = config.filters
        self.embed_layer = nn.Embedding(config.alphabet_size, config.token_embed_dim)
        stem = nn.Conv1d(config.token_embed_dim, config.conv_init_embed_dim, _STEM_TAPS, padding="same")
        self.stem = _Convolution(stem, None)
        self.conv_tower_blocks = nn.ModuleList(_Down(*widths) for widths in pairwise(filters))
        self.transformer_blocks = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))
        repeats = config.deconv_upsample_type == "repeat+conv"
        self.deconv_tower_blocks = nn.ModuleList(_Up(*widths, repeats=repeats) for widths in pairwise(filters[::-1]))
        self.lm_head = _Head(config)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> BaseModelOutput:
        """Run the encoder.

        Args:
            input_ids: Token ids, int, shape (batch, tokens).
            attention_mask: 1 for tokens, 0 for padding on the right, shape (batch, tokens); None if nothing is padded.
            output_hidden_states: Also return all hidden states.

        Returns:
            ``last_hidden_state`` of shape (batch, tokens, ``hidden_size``), and ``hidden_states`` as described above.
        """
        n_tokens = input_ids.shape[1]
        ids_BT, inside_BT = self._whole_blocks(input_ids, attention_mask)
        x_BTD = self.embed_layer(ids_BT)
        states, skips = [x_BTD], []
        x_BTD = _convolve(self.stem.conv, masked(x_BTD, _level(inside_BT, 1, x_BTD)))
        for depth, down in enumerate(self.conv_tower_blocks):
            skips.append(x_BTD)
            x_BTD = down(x_BTD, _level(inside_BT, 2**depth, x_BTD))
            states.append(x_BTD)
            x_BTD = x_BTD.reshape(len(x_BTD), -1, 2, x_BTD.shape[2]).mean(2)
        states += self._transform(x_BTD, inside_BT)
        x_BTD = states[-1] if len(self.transformer_blocks) else x_BTD
        for depth, up in enumerate(self.deconv_tower_blocks):
            x_BTD = up(x_BTD, _level(inside_BT, self.config.block_tokens // 2**depth, x_BTD))
            skip_BTD = skips.pop()
            x_BTD = x_BTD + skip_BTD if self.config.use_skip_connection else x_BTD
            states.append(x_BTD)
        return BaseModelOutput(
            last_hidden_state=x_BTD[:, :n_tokens], hidden_states=tuple(states) if output_hidden_states else None
        )

    def _whole_blocks(self, ids_BT: Tensor, mask_BT: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Fill each sequence up to whole blocks of its own.

        Returns:
            The ids, filled up to the blocks of the longest sequence; and which of them are in the blocks of their own
            sequence, None if all are.
        """
        block, filler = self.config.block_tokens, self.config.filler_token_id
        missing = -ids_BT.shape[1] % block
        if mask_BT is None:
            return pad(ids_BT, (0, missing), value=filler), None
        real_BT = pad(mask_BT, (0, missing)).bool()
        ids_BT = torch.where(real_BT, pad(ids_BT, (0, missing)), filler)
        # A block is inside if one of its tokens is real.
        inside_BT = real_BT.view(len(real_BT), -1, block).any(2).repeat_interleave(block, dim=1)
        return ids_BT, inside_BT

    def _transform(self, x_BTD: Tensor, inside_BT: Tensor | None) -> list[Tensor]:
        """Return the output of each layer of the transformer."""
        blocks_BT = None if inside_BT is None else inside_BT[:, :: self.config.block_tokens]
        mask_B11T = None if blocks_BT is None else blocks_BT[:, None, None, :]
        cos, sin = rotary_tables(x_BTD.shape[1], self.config.key_size, device=x_BTD.device, dtype=x_BTD.dtype)
        states = []
        for layer in self.transformer_blocks:
            x_BTD = layer(x_BTD, cos, sin, mask_B11T)
            states.append(x_BTD)
        return states


def _level(inside_BT: Tensor | None, shorter: int, like: Tensor) -> Tensor | None:
    """Return the factor that hides other sequences' blocks at a level of the towers, (batch, positions, 1)."""
    return None if inside_BT is None else inside_BT[:, ::shorter, None].to(like.dtype)


class NTv3ForMaskedLM(LanguageModel, _NTv3PreTrained):
    """The encoder with its language-model head: an activation, then a linear map."""

    def __init__(self, config: NTv3Config) -> None:
        super().__init__(config)
        self.core = NTv3Model(config)
        self.post_init()

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Apply the head: (batch, tokens, width) to (batch, tokens, vocabulary)."""
        scores_BTV: Tensor = self.core.lm_head(x_BTD)
        return scores_BTV
