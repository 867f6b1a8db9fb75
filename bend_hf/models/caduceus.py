"""Caduceus: a masked language model of single nucleotides made of Mamba blocks that read both ways.

Caduceus (arXiv:2403.03234) in plain PyTorch; parameters are named as in the published files. ``ps`` models
(``rcps=True``) are equivariant: the reverse complement of a sequence gives the same rows, reversed in both axes.

>>> config = CaduceusConfig(d_model=8, n_layer=1, rcps=True)
>>> CaduceusModel(config)(torch.tensor([[7, 8, 9, 10]])).last_hidden_state.shape
torch.Size([1, 4, 16])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm, silu, softplus
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput

from bend_hf.errors import ModelError
from bend_hf.models._float32 import keep_float32
from bend_hf.models.causal_convolution import short_convolution
from bend_hf.models.selective_scan import selective_scan

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

    def cell(self, name: str, default: int) -> int:
        """A size out of ``ssm_cfg``; the default where it is absent or ``auto``."""
        size = self.ssm_cfg.get(name, default)
        return size if isinstance(size, int) else default


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
    known = {key: value for key, value in fields.items() if key in CaduceusConfig.__init__.__kwdefaults__}
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


class _Mamba(nn.Module):
    """One direction of a block: a short convolution, then the selective scan. Projections stand outside.

    They are parameters of this module by name, but the two directions may share them, so the block applies them.
    """

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        width = config.d_model
        self.inner = config.cell("expand", 2) * width
        self.n_states = config.cell("d_state", 16)
        self.dt_rank = config.cell("dt_rank", math.ceil(width / 16))
        taps = config.cell("d_conv", 4)
        self.in_proj = nn.Linear(width, 2 * self.inner, bias=False)
        self.conv1d = nn.Conv1d(self.inner, self.inner, taps, groups=self.inner, padding=taps - 1)
        self.x_proj = nn.Linear(self.inner, self.dt_rank + 2 * self.n_states, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.inner)
        self.A_log = nn.Parameter(torch.empty(self.inner, self.n_states))
        self.D = nn.Parameter(torch.empty(self.inner))
        self.out_proj = nn.Linear(self.inner, width, bias=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Mamba:
        # The rates of decay stay float32 whatever the model is; the matrices follow the model.
        if recurse:
            for child in self.children():
                child._apply(fn)
        super()._apply(keep_float32(fn), recurse=False)
        return self

    def reset(self) -> None:
        """Draw what Mamba does not draw like other linear layers (arXiv:2312.00752, section 3.6)."""
        bound = self.dt_rank**-0.5
        init.uniform_(self.dt_proj.weight, -bound, bound)
        step = torch.exp(torch.empty(self.inner).uniform_(math.log(1e-3), math.log(1e-1))).clamp(min=1e-4)
        init.copy_(self.dt_proj.bias, step + torch.log(-torch.expm1(-step)))  # softplus of it is the step
        init.copy_(self.A_log, torch.log(torch.arange(1.0, self.n_states + 1)).expand_as(self.A_log))
        init.ones_(self.D)

    def forward(self, x_BTE: Tensor, gate_BTE: Tensor, mask_BT1: Tensor | None) -> Tensor:
        """Scan from left to right.

        Args:
            x_BTE: What is scanned, shape (batch, tokens, inner width).
            gate_BTE: What the result is gated by, same shape.
            mask_BT1: 1 for tokens and 0 for padding on either side, shape (batch, tokens, 1), or None.

        Returns:
            Shape (batch, tokens, inner width).
        """
        if mask_BT1 is not None:
            x_BTE = x_BTE * mask_BT1
        x_BTE = silu(short_convolution(x_BTE, self.conv1d.weight, self.conv1d.bias))
        if mask_BT1 is not None:
            x_BTE = x_BTE * mask_BT1
        step, into, out_of = self.x_proj(x_BTE).split([self.dt_rank, self.n_states, self.n_states], dim=-1)
        step = softplus(linear(step, self.dt_proj.weight).float() + self.dt_proj.bias.float())
        y_BTE = selective_scan(x_BTE, step, -torch.exp(self.A_log), into, out_of, self.D)
        return y_BTE * silu(gate_BTE)


class _BothWays(nn.Module):
    """A Mamba from left to right plus one from right to left."""

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.mamba_fwd = _Mamba(config)
        self.mamba_rev = _Mamba(config)
        self.tied = config.bidirectional_weight_tie
        if self.tied:
            self.mamba_rev.in_proj = self.mamba_fwd.in_proj
            self.mamba_rev.out_proj = self.mamba_fwd.out_proj

    def forward(self, x_BTD: Tensor, mask_BT1: Tensor | None) -> Tensor:
        ahead_BTE = self.mamba_fwd.in_proj(x_BTD)
        back_BTE = (ahead_BTE if self.tied else self.mamba_rev.in_proj(x_BTD)).flip(1)
        back_mask_BT1 = None if mask_BT1 is None else mask_BT1.flip(1)
        ahead_BTE = self.mamba_fwd(*ahead_BTE.chunk(2, dim=-1), mask_BT1)
        back_BTE = self.mamba_rev(*back_BTE.chunk(2, dim=-1), back_mask_BT1).flip(1)
        if self.tied:
            both: Tensor = self.mamba_fwd.out_proj(ahead_BTE + back_BTE)
            return both
        out: Tensor = self.mamba_fwd.out_proj(ahead_BTE) + self.mamba_rev.out_proj(back_BTE)
        return out


class _BothStrands(nn.Module):
    """The mixer of a ``ps`` block; the wrapper gives it its published name."""

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.submodule = _BothWays(config)

    def forward(self, x_BTD: Tensor, mask_BT1: Tensor | None) -> Tensor:
        out: Tensor = self.submodule(x_BTD, mask_BT1)
        return out


class _Block(nn.Module):
    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.mixer = _BothStrands(config) if config.rcps else _BothWays(config)
        self.norm = _RMSNorm(config.d_model, config.norm_epsilon)


class _StrandEmbedding(nn.Module):
    """Token vectors of a ``ps`` model and the token that pairs with each."""

    complement_map: Tensor

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.n_rows, config.d_model)
        self.register_buffer("complement_map", torch.tensor(config.complements()))


class _Embeddings(nn.Module):
    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.word_embeddings = (
            _StrandEmbedding(config) if config.rcps else nn.Embedding(config.n_rows, config.d_model)
        )


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
            mixed = layer.mixer(layer.norm(residual_SBTD).flatten(0, 1), mask_BT1)
            x_SBTD = mixed.unflatten(0, x_SBTD.shape[:2])
            states.append(x_SBTD)
        states[-1] = self.norm_f(x_SBTD if residual_SBTD is None else x_SBTD + residual_SBTD)
        return states

    def _embed(self, input_ids: Tensor) -> Tensor:
        table = self.embeddings.word_embeddings
        if not isinstance(table, _StrandEmbedding):
            vectors: Tensor = table(input_ids)[None]
            return vectors
        both = torch.stack([input_ids, table.complement_map[input_ids.flip(1)]])
        vectors = table.embedding(both)
        return vectors


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
        if isinstance(module, _Mamba):
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
