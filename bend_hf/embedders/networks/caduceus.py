"""Caduceus: a masked language model of single nucleotides made of Mamba blocks that read both ways.

Caduceus (arXiv:2403.03234) in plain PyTorch; parameters are named as in the published files. ``ps`` models
(``rcps=True``) are equivariant: the reverse complement of a sequence gives the same rows, reversed in both axes.

>>> config = CaduceusConfig(d_model=8, n_layer=1, rcps=True)
>>> CaduceusModel(config)(torch.tensor([[7, 8, 9, 10]])).last_hidden_state.shape
torch.Size([1, 4, 16])
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from inspect import signature
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput

from bend_hf.embedders.networks.mamba import BidirectionalMamba, Mamba, MambaSizes
from bend_hf.errors import ModelError

# A7 <-> T10, C8 <-> G9, every other token its own complement: config.json of the published models, complement_map.
COMPLEMENT: Final[Mapping[int, int]] = {7: 10, 8: 9, 9: 8, 10: 7}


class CaduceusConfig(PreTrainedConfig):  # type: ignore[misc]
    """Sizes of the network; the defaults are those of the published 131k models, with ``rcps`` for ``ps``.

    ``fused_add_norm`` is more than a matter of speed in ``ps`` models: the fused code, which all published ones were
    trained with, swaps the two strands in every block.
    """

    model_type = "caduceus"

    def __init__(
        self,
        *,
        d_model: int = 256,  # config.json of kuleshov-group/caduceus-ph_seqlen-131k_d_model-256_n_layer-16
        n_layer: int = 16,
        vocab_size: int = 16,
        pad_vocab_size_multiple: int = 8,
        norm_epsilon: float = 1e-5,
        rms_norm: bool = True,
        residual_in_fp32: bool = False,
        fused_add_norm: bool = True,
        bidirectional: bool = True,
        bidirectional_strategy: str = "add",
        bidirectional_weight_tie: bool = True,
        rcps: bool = False,
        complement_map: Mapping[str, int] | Mapping[int, int] | None = None,
        ssm_cfg: Mapping[str, object] | None = None,
        pad_token_id: int = 4,  # tokenizer_config.json
        tie_word_embeddings: bool = True,
        **common: object,
    ) -> None:
        _only("rms_norm", rms_norm, True)
        _only("bidirectional", bidirectional, True)
        _only("bidirectional_strategy", bidirectional_strategy, "add")
        cells = dict(ssm_cfg or {})
        _only("ssm_cfg.bias", cells.get("bias", False), False)
        _only("ssm_cfg.conv_bias", cells.get("conv_bias", True), True)
        self.d_model = d_model
        self.n_layer = n_layer
        self.vocab_size = vocab_size
        self.pad_vocab_size_multiple = pad_vocab_size_multiple
        self.norm_epsilon = norm_epsilon
        self.rms_norm = rms_norm
        self.residual_in_fp32 = residual_in_fp32
        self.fused_add_norm = fused_add_norm
        self.bidirectional = bidirectional
        self.bidirectional_strategy = bidirectional_strategy
        self.bidirectional_weight_tie = bidirectional_weight_tie
        self.rcps = rcps
        self.complement_map = {
            str(token): partner for token, partner in (COMPLEMENT if complement_map is None else complement_map).items()
        }
        self.ssm_cfg = cells
        # Set here too: newer transformers no longer take it as a keyword of the base class.
        self.pad_token_id = pad_token_id
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **common)

    @property
    def hidden_size(self) -> int:
        """Width of the output: both strands side by side in ``ps`` models."""
        return 2 * self.d_model if self.rcps else self.d_model

    @property
    def n_rows(self) -> int:
        """Rows of the table of token vectors: the vocabulary, rounded up."""
        return -(-self.vocab_size // self.pad_vocab_size_multiple) * self.pad_vocab_size_multiple

    def complements(self) -> list[int]:
        """The complement of each row of the table, itself where none is given."""
        return [self.complement_map.get(str(token), token) for token in range(self.n_rows)]

    def mamba_sizes(self) -> MambaSizes:
        """Sizes of a block; those of Mamba where ``ssm_cfg`` is silent or says ``auto``."""

        def size(name: str, default: int) -> int:
            value = self.ssm_cfg.get(name, default)
            return value if isinstance(value, int) else default

        return MambaSizes(
            width=self.d_model,
            inner=size("expand", 2) * self.d_model,
            n_states=size("d_state", 16),
            dt_rank=size("dt_rank", math.ceil(self.d_model / 16)),
            taps=size("d_conv", 4),
            tied=self.bidirectional_weight_tie,
        )


def _only(field: str, value: object, expected: object) -> None:
    if value != expected:
        raise ModelError(
            f"a Caduceus with {field}={value!r} is not known here; expected {expected!r}, as in all published ones"
        )


def config_from_json(fields: Mapping[str, object]) -> CaduceusConfig:
    """A configuration from the contents of a published config.json.

    Raises:
        ModelError: It is not one of a Caduceus, or asks for a variant that was never published.
    """
    names = signature(CaduceusConfig.__init__).parameters
    known: dict[str, Any] = {key: value for key, value in fields.items() if key in names}
    if not {"d_model", "n_layer", "rcps"} <= known.keys():
        raise ModelError("config.json lacks 'd_model', 'n_layer' or 'rcps'; expected the configuration of a Caduceus")
    return CaduceusConfig(**known)


def rename_key(key: str) -> str:
    """A key of a published file as this module names it.

    Files of ``ps`` models saved with ``fused_add_norm: false`` wrap each norm once more.
    """
    return key.replace("norm.submodule.", "norm.").replace("norm_f.submodule.", "norm_f.")


class _RMSNorm(nn.Module):
    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x.float(), self.weight.shape, self.weight.float(), self.epsilon).to(self.weight.dtype)


class _BothStrands(nn.Module):
    """The mixer of a ``ps`` block; the wrapper gives it its published name."""

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.submodule = BidirectionalMamba(config.mamba_sizes())

    def forward(self, x_BTD: Tensor, mask_BT1: Tensor | None) -> Tensor:
        out: Tensor = self.submodule(x_BTD, mask_BT1)
        return out


class _Block(nn.Module):
    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.mixer = _BothStrands(config) if config.rcps else BidirectionalMamba(config.mamba_sizes())
        self.norm = _RMSNorm(config.d_model, config.norm_epsilon)

    def forward(self, residual_SBTD: Tensor, mask_BT1: Tensor | None) -> Tensor:
        mixed: Tensor = self.mixer(self.norm(residual_SBTD).flatten(0, 1), mask_BT1)
        return mixed.reshape(residual_SBTD.shape)


class _StrandEmbedding(nn.Module):
    """Token vectors of a ``ps`` model and the token that pairs with each."""

    complement_map: Tensor

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.n_rows, config.d_model)
        self.register_buffer("complement_map", torch.tensor(config.complements()))

    def forward(self, input_ids: Tensor) -> Tensor:
        """Vectors of a sequence and of its reverse complement, shape (2, batch, tokens, width)."""
        both: Tensor = self.embedding(torch.stack([input_ids, self.complement_map[input_ids.flip(1)]]))
        return both


class _Embeddings(nn.Module):
    word_embeddings: nn.Module

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.word_embeddings = _StrandEmbedding(config) if config.rcps else nn.Embedding(config.n_rows, config.d_model)


class _Backbone(nn.Module):
    """The network. Letter S: strands, one, or two of which the second is read as its reverse complement."""

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.layers = nn.ModuleList([_Block(config) for _ in range(config.n_layer)])
        self.norm_f = _RMSNorm(config.d_model, config.norm_epsilon)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> list[Tensor]:
        """Embeddings, each block's output but the last, and the final state; shape (S, batch, tokens, width)."""
        x_SBTD = self._embed(input_ids)
        mask_BT1 = None
        if attention_mask is not None:
            mask = attention_mask.to(x_SBTD.dtype)
            mask_BT1 = (torch.cat([mask, mask.flip(1)]) if self.config.rcps else mask)[..., None]
        states = [x_SBTD]
        residual_SBTD: Tensor | None = None
        for layer in self.layers:
            residual_SBTD = x_SBTD if residual_SBTD is None else x_SBTD + residual_SBTD
            if self.config.rcps and self.config.fused_add_norm:
                # The second strand's rows, flipped back, become the first's, and the other way round.
                residual_SBTD = residual_SBTD.flip(0, 2, 3)
            if self.config.residual_in_fp32:
                residual_SBTD = residual_SBTD.float()
            x_SBTD = layer(residual_SBTD, mask_BT1)
            states.append(x_SBTD)
        states[-1] = self.norm_f(x_SBTD if residual_SBTD is None else x_SBTD + residual_SBTD)
        return states

    def _embed(self, input_ids: Tensor) -> Tensor:
        table = self.embeddings.word_embeddings
        if isinstance(table, _StrandEmbedding):
            return table(input_ids)  # type: ignore[no-any-return]
        return table(input_ids)[None]  # type: ignore[no-any-return]


def side_by_side(x_SBTD: Tensor) -> Tensor:
    """Strands as the published models give them: the second one, put forward again, behind the first.

    Args:
        x_SBTD: Shape (strands, batch, tokens, width).

    Returns:
        Shape (batch, tokens, strands * width).
    """
    return torch.cat([x_SBTD[0], *(strand.flip(1, 2) for strand in x_SBTD[1:])], dim=-1)


class CaduceusPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """What the two models below share with transformers."""

    config_class = CaduceusConfig
    base_model_prefix = "caduceus"

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Mamba):
            with torch.no_grad():
                module.reset()


class CaduceusModel(CaduceusPreTrainedModel):
    """The network without its head."""

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__(config)
        self.backbone = _Backbone(config)
        if config.bidirectional_weight_tie:
            mixer = "mixer.submodule" if config.rcps else "mixer"
            blocks = [f"backbone.layers.{number}.{mixer}" for number in range(config.n_layer)]
            self._tied_weights_keys = {
                f"{block}.mamba_rev.{name}.weight": f"{block}.mamba_fwd.{name}.weight"
                for block in blocks
                for name in ("in_proj", "out_proj")
            }
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> BaseModelOutput:
        """Hidden states; padding on either side leaves the other tokens as they are.

        Args:
            input_ids: Shape (batch, tokens).
            attention_mask: 1 for tokens, 0 for padding, shape (batch, tokens); None where nothing is padded.
            output_hidden_states: Also the embeddings and what each block but the last adds to them.

        Returns:
            ``last_hidden_state`` of shape (batch, tokens, ``hidden_size``); ``hidden_states`` of ``n_layer + 1`` such.
        """
        states = self.backbone(input_ids, attention_mask)
        return BaseModelOutput(
            last_hidden_state=side_by_side(states[-1]),
            hidden_states=tuple(side_by_side(state) for state in states) if output_hidden_states else None,
        )


class _StrandHead(nn.Module):
    """Scores of a ``ps`` model: the first strand's for a token plus the second's for its complement."""

    complement_map: Tensor

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.lm_head = nn.Linear(config.d_model, config.n_rows, bias=False)
        self.register_buffer("complement_map", torch.tensor(config.complements()))

    def forward(self, x_BTD: Tensor) -> Tensor:
        first, second = x_BTD.chunk(2, dim=-1)
        scores: Tensor = self.lm_head(first)
        return scores + linear(second.flip(-1), self.lm_head.weight[self.complement_map])


class CaduceusForMaskedLM(CaduceusPreTrainedModel):
    """The network with its head, which predicts masked tokens; its matrix is the table of token vectors."""

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__(config)
        self.caduceus = CaduceusModel(config)
        self.lm_head = _StrandHead(config) if config.rcps else nn.Linear(config.d_model, config.n_rows, bias=False)
        if config.tie_word_embeddings:
            table = "caduceus.backbone.embeddings.word_embeddings"
            self._tied_weights_keys = (
                {"lm_head.lm_head.weight": f"{table}.embedding.weight"}
                if config.rcps
                else {"lm_head.weight": f"{table}.weight"}
            )
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> MaskedLMOutput:
        """As ``CaduceusModel``, with ``logits`` of shape (batch, tokens, rounded-up vocabulary)."""
        out = self.caduceus(input_ids, attention_mask, output_hidden_states)
        return MaskedLMOutput(logits=self.lm_head(out.last_hidden_state), hidden_states=out.hidden_states)
