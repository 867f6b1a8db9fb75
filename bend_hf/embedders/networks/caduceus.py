"""Caduceus: a masked language model of single nucleotides, made of bidirectional Mamba blocks (arXiv:2403.03234).

PlantCAD2 is a Caduceus whose blocks are Mamba-2. Plain PyTorch; parameters are named as in the published files. ``ps``
models (``rcps=True``) are equivariant: the reverse complement of a sequence has the same embeddings, reversed along
both axes.

>>> config = CaduceusConfig(d_model=8, n_layer=1, rcps=True)
>>> CaduceusModel(config)(torch.tensor([[7, 8, 9, 10]])).last_hidden_state.shape
torch.Size([1, 4, 16])
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from bend_hf.embedders.networks._language_model import LanguageModel
from bend_hf.embedders.networks._layers import RMSNorm, known_fields
from bend_hf.embedders.networks.mamba import BidirectionalMamba, Mamba, MambaSizes, ScanBlock
from bend_hf.embedders.networks.mamba2 import Mamba2, Mamba2Sizes
from bend_hf.errors import ModelError

# A 7 and T 10, C 8 and G 9; every other token is its own complement. complement_map in the published config.json.
COMPLEMENT: Final[Mapping[int, int]] = {7: 10, 8: 9, 9: 8, 10: 7}
# Fields of ssm_cfg that have one supported value, the default of mamba-ssm (Mamba and Mamba2 of version 2.2.4).
_ONE_VALUE: Final[dict[str, object]] = {"bias": False, "conv_bias": True}
_ONE_VALUE_2: Final[dict[str, object]] = {
    **_ONE_VALUE,
    "ngroups": 1,
    "rmsnorm": True,
    "norm_before_gate": False,
    "D_has_hdim": False,
}


class CaduceusConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is not typed
    """Sizes of the network; the defaults are those of the published 131k models, with ``rcps`` for ``ps``.

    In ``ps`` models ``fused_add_norm`` also changes the result: the fused code, with which all published models were
    trained, swaps the two strands in every block.
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
        mamba_version: int = 1,
        pad_token_id: int = 4,  # tokenizer_config.json
        tie_word_embeddings: bool = True,
        **common: object,
    ) -> None:
        _only("rms_norm", rms_norm, True)
        _only("bidirectional", bidirectional, True)
        _only("bidirectional_strategy", bidirectional_strategy, "add")
        cells = dict(ssm_cfg or {})
        for field, value in (_ONE_VALUE if mamba_version == 1 else _ONE_VALUE_2).items():
            _only(f"ssm_cfg.{field}", cells.get(field, value), value)
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
        self.mamba_version = mamba_version
        # Set here too: newer releases of transformers do not take it as a keyword of the base class.
        self.pad_token_id = pad_token_id
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **common)

    @property
    def hidden_size(self) -> int:
        """Width of the output; ``ps`` models concatenate both strands."""
        return 2 * self.d_model if self.rcps else self.d_model

    @property
    def n_embeddings(self) -> int:
        """Number of input embeddings: the vocabulary, rounded up."""
        return -(-self.vocab_size // self.pad_vocab_size_multiple) * self.pad_vocab_size_multiple

    def complements(self) -> list[int]:
        """Return the complement of each token; a token without one is its own complement."""
        return [self.complement_map.get(str(token), token) for token in range(self.n_embeddings)]

    def mixer(self) -> BidirectionalMamba:
        """Make the mixer of a block: Mamba or Mamba-2 in both directions."""

        def make() -> ScanBlock:
            return Mamba(self._mamba_sizes()) if self.mamba_version == 1 else Mamba2(self._mamba2_sizes())

        return BidirectionalMamba(make, tied=self.bidirectional_weight_tie)

    def _mamba_sizes(self) -> MambaSizes:
        return MambaSizes(
            width=self.d_model,
            inner=self._inner,
            n_states=self._size("d_state", 16),
            dt_rank=self._size("dt_rank", math.ceil(self.d_model / 16)),
            taps=self._size("d_conv", 4),
        )

    def _mamba2_sizes(self) -> Mamba2Sizes:
        _only("ssm_cfg.d_ssm", self._size("d_ssm", self._inner), self._inner)
        return Mamba2Sizes(
            width=self.d_model,
            inner=self._inner,
            n_states=self._size("d_state", 128),
            head_width=self._size("headdim", 64),
            taps=self._size("d_conv", 4),
        )

    @property
    def _inner(self) -> int:
        return self._size("expand", 2) * self.d_model

    def _size(self, name: str, default: int) -> int:
        """Return a size; the default of mamba-ssm if ``ssm_cfg`` lacks it or has ``auto``."""
        value = self.ssm_cfg.get(name, default)
        return value if isinstance(value, int) else default


def _only(field: str, value: object, expected: object) -> None:
    if value != expected:
        raise ModelError(
            f"a Caduceus with {field}={value!r} is not supported; expected {expected!r}, as in all published models"
        )


def config_from_json(fields: Mapping[str, object], *, mamba_version: int | None = None) -> CaduceusConfig:
    """Make a configuration from a published config.json.

    Two layouts are published. Caduceus has all fields at the top. PlantCAD2 has those of its blocks in
    ``layer_cfg.mamba_cfg`` and those of its norms in ``norm_cfg``, without the fields that have their default.

    Args:
        fields: Content of the file.
        mamba_version: 1 or 2, from ``mamba_version_of``; None: as the file says.

    Raises:
        ModelError: The file is not that of a Caduceus, or describes a variant that was never published.
    """
    nested = _mapping(fields, "layer_cfg")
    blocks = _mapping(nested, "mamba_cfg")
    _only("layer_cfg.mamba_cfg.mlp_cfg", blocks.get("mlp_cfg") or None, None)
    flat = {**fields, **blocks, **_mapping(fields, "norm_cfg")}
    known = known_fields(CaduceusConfig, flat)
    if not {"d_model", "n_layer", "rcps"} <= known.keys():
        raise ModelError("config.json lacks 'd_model', 'n_layer' or 'rcps'; expected the configuration of a Caduceus")
    if known["rcps"] and not known.get("complement_map"):
        raise ModelError("config.json has rcps but no complement_map; expected the complement of each token")
    if mamba_version is None:
        said = blocks.get("version", "v2") if nested else _mapping(fields, "ssm_cfg").get("layer", "Mamba1")
        mamba_version = 2 if str(said).lower() in ("v2", "mamba2") else 1
    return CaduceusConfig(**{**known, "mamba_version": mamba_version})


def _mapping(fields: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return a nested object without what transformers adds to it; empty if it is missing or null."""
    value = fields.get(name) or {}
    if not isinstance(value, Mapping):
        raise ModelError(f"config.json has {name}={value!r}; expected an object")
    return {field: entry for field, entry in value.items() if field != "model_type"}


def mamba_version_of(keys: Iterable[str]) -> int:
    """Tell Mamba from Mamba-2 by the keys of the weights: configurations leave the version out, or have other defaults.

    >>> mamba_version_of(["backbone.layers.0.mixer.mamba_fwd.dt_bias"])
    2
    """
    return 2 if any(key.endswith("dt_bias") for key in keys) else 1


def rename_key(key: str) -> str:
    """Rename a key of a published file to one of this module.

    Files of ``ps`` models that were saved with ``fused_add_norm: false`` wrap each norm once more, and files of a bare
    encoder lack its prefix.
    """
    key = key.replace("norm.submodule.", "norm.").replace("norm_f.submodule.", "norm_f.")
    return f"caduceus.{key}" if key.startswith("backbone.") else key


class _BothStrands(nn.Module):
    """The mixer of a ``ps`` block, wrapped to have its published name."""

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.submodule = config.mixer()

    def forward(self, x_BTD: Tensor, mask_BT1: Tensor | None) -> Tensor:
        out: Tensor = self.submodule(x_BTD, mask_BT1)
        return out


class _Block(nn.Module):
    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.mixer = _BothStrands(config) if config.rcps else config.mixer()
        self.norm = RMSNorm(config.d_model, config.norm_epsilon)

    def forward(self, residual_SBTD: Tensor, mask_BT1: Tensor | None) -> Tensor:
        mixed: Tensor = self.mixer(self.norm(residual_SBTD).flatten(0, 1), mask_BT1)
        return mixed.reshape(residual_SBTD.shape)


class _StrandEmbedding(nn.Module):
    """Input embeddings of a ``ps`` model, and the complement of each token."""

    complement_map: Tensor

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.n_embeddings, config.d_model)
        self.register_buffer("complement_map", torch.tensor(config.complements()))

    def forward(self, input_ids: Tensor) -> Tensor:
        """Embed a sequence and its reverse complement, shape (2, batch, tokens, width)."""
        both: Tensor = self.embedding(torch.stack([input_ids, self.complement_map[input_ids.flip(1)]]))
        return both


class _Embeddings(nn.Module):
    word_embeddings: nn.Module

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.word_embeddings = (
            _StrandEmbedding(config) if config.rcps else nn.Embedding(config.n_embeddings, config.d_model)
        )


class _Backbone(nn.Module):
    """The network. Axis S: one strand, or two, of which the second is the reverse complement."""

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.layers = nn.ModuleList([_Block(config) for _ in range(config.n_layer)])
        self.norm_f = RMSNorm(config.d_model, config.norm_epsilon)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> list[Tensor]:
        """Return input embeddings, the output of each block but the last, and the final state.

        Each has the shape (S, batch, tokens, width).
        """
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
                # The two strands swap: each gets the state of the other, flipped.
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
            return table(input_ids)  # type: ignore[no-any-return]  # modules return Any
        return table(input_ids)[None]  # type: ignore[no-any-return]  # modules return Any


def side_by_side(x_SBTD: Tensor) -> Tensor:
    """Concatenate strands as the published models do: the first, then the second in forward order.

    Args:
        x_SBTD: Shape (strands, batch, tokens, width).

    Returns:
        Shape (batch, tokens, strands * width).
    """
    return torch.cat([x_SBTD[0], *(strand.flip(1, 2) for strand in x_SBTD[1:])], dim=-1)


class CaduceusPreTrainedModel(PreTrainedModel):  # type: ignore[misc]  # transformers is not typed
    """Base class of the encoder and the language model."""

    config_class = CaduceusConfig
    base_model_prefix = "caduceus"

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ScanBlock):
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
        """Compute hidden states. Padding on either side does not change them.

        Args:
            input_ids: Shape (batch, tokens).
            attention_mask: 1 for tokens, 0 for padding, shape (batch, tokens); None if nothing is padded.
            output_hidden_states: Also return the input embeddings and the output of each block but the last.

        Returns:
            ``last_hidden_state`` of shape (batch, tokens, ``hidden_size``); ``hidden_states``, ``n_layer + 1`` tensors.
        """
        states = self.backbone(input_ids, attention_mask)
        return BaseModelOutput(
            last_hidden_state=side_by_side(states[-1]),
            hidden_states=tuple(side_by_side(state) for state in states) if output_hidden_states else None,
        )


class _StrandHead(nn.Module):
    """Head of a ``ps`` model: scores of a token on the first strand plus those of its complement on the second."""

    complement_map: Tensor

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.lm_head = nn.Linear(config.d_model, config.n_embeddings, bias=False)
        self.register_buffer("complement_map", torch.tensor(config.complements()))

    def forward(self, x_BTD: Tensor) -> Tensor:
        first, second = x_BTD.chunk(2, dim=-1)
        scores: Tensor = self.lm_head(first)
        return scores + linear(second.flip(-1), self.lm_head.weight[self.complement_map])


class CaduceusForMaskedLM(LanguageModel, CaduceusPreTrainedModel):
    """The network with its head, whose matrix is that of the input embeddings."""

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__(config)
        self.caduceus = CaduceusModel(config)
        self.lm_head = (
            _StrandHead(config) if config.rcps else nn.Linear(config.d_model, config.n_embeddings, bias=False)
        )
        if config.tie_word_embeddings:
            table = "caduceus.backbone.embeddings.word_embeddings"
            self._tied_weights_keys = (
                {"lm_head.lm_head.weight": f"{table}.embedding.weight"}
                if config.rcps
                else {"lm_head.weight": f"{table}.weight"}
            )
        self.post_init()

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Apply the head: (batch, tokens, width) to (batch, tokens, vocabulary)."""
        scores_BTV: Tensor = self.lm_head(x_BTD)
        return scores_BTV
