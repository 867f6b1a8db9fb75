"""HyenaDNA: a causal language model of single nucleotides with gated long convolutions (arXiv:2306.15794).

Plain PyTorch. Parameters are named as in the ``-hf`` files; ``rename_key`` maps the keys of the original
``weights.ckpt`` files. The long filters are not stored: a small network of sines (``ImplicitFilter``; Hyena Hierarchy,
arXiv:2302.10866, section 3.3) computes them from positions.

>>> config = HyenaDNAConfig(d_model=8, d_inner=16, n_layer=1, max_seq_len=10)
>>> HyenaDNAModel(config)(torch.tensor([[0, 7, 8, 1]])).last_hidden_state.shape
torch.Size([1, 4, 8])
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

from bend_hf.embedders.networks._language_model import LanguageModel
from bend_hf.embedders.networks._layers import (
    fft_length,
    filter_spectrum,
    keep_float32,
    kernels_for,
    known_fields,
    long_convolution,
    short_convolution,
)
from bend_hf.errors import ModelError

# Decay of the filters: the defaults of HyenaDNA's ExponentialModulation.
_DECAY_TARGET, _FAST_DECAY, _SLOW_DECAY, _DECAY_FLOOR = 1e-2, 0.3, 1.5, 0.05

# Bytes of spectra that each layer keeps. With a width of 256, inputs of 512 tokens take 1 MB and those of 6,000 12 MB.
SPECTRUM_BYTES: Final[dict[str, int]] = {"cpu": 2**25, "cuda": 2**27}


class FilterConfig(Protocol):
    """The fields of ``HyenaDNAConfig`` that a filter needs."""

    d_model: int
    max_seq_len: int
    emb_dim: int
    filter_order: int
    num_inner_mlps: int
    activation_freq: float


class _Positions(nn.Module):
    """Inputs of the filters: time from 0 to 1 and waves of it, for each position of the longest input."""

    z: Tensor
    t: Tensor

    def __init__(self, config: FilterConfig) -> None:
        super().__init__()
        n_positions, n_bands = config.max_seq_len, (config.emb_dim - 1) // 2
        time = torch.linspace(0, 1, n_positions)[:, None]
        angle = 2 * math.pi * torch.arange(n_positions, device=time.device)[:, None] / n_positions
        phase = torch.linspace(1e-4, n_bands - 1, n_bands, device=time.device) * angle
        self.register_buffer("z", torch.cat([time, phase.cos(), -phase.sin()], dim=-1)[None])
        self.register_buffer("t", time[None])


class _Modulation(nn.Module):
    """How fast the filter of each channel decays."""

    deltas: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        slowest = math.log(_DECAY_TARGET) / _SLOW_DECAY
        fastest = math.log(_DECAY_TARGET) / _FAST_DECAY
        self.register_buffer("deltas", torch.linspace(slowest, fastest, width)[None, None])


class _Frequency(nn.Module):
    def __init__(self, config: FilterConfig) -> None:
        super().__init__()
        self.freq = nn.Parameter(torch.full((1, config.filter_order), float(config.activation_freq)))


class _Spectra:
    """Spectra of filters by the length of the input, until the weights change; the ones used longest ago go first."""

    def __init__(self) -> None:
        self._weights: list[tuple[Tensor, int]] = []
        self._of_length: OrderedDict[int, Tensor] = OrderedDict()

    def __reduce__(self) -> tuple[type[_Spectra], tuple[()]]:
        """Copies and files of a network hold no spectra."""
        return _Spectra, ()

    def find(self, weights: list[Tensor], n_positions: int) -> Tensor | None:
        """Return the spectra of a length if they are those of these weights."""
        if not self._of(weights):
            # A kept view keeps the memory, so that other weights cannot have the same address.
            self._weights = [(weight.detach(), weight._version) for weight in weights]
            self._of_length.clear()
        if n_positions in self._of_length:
            self._of_length.move_to_end(n_positions)
        return self._of_length.get(n_positions)

    def keep(self, spectrum_DF: Tensor, n_positions: int) -> None:
        """Keep the spectra of a length."""
        self._of_length[n_positions] = spectrum_DF
        most = _most_bytes(spectrum_DF.device)
        while sum(one.nbytes for one in self._of_length.values()) > most:
            self._of_length.popitem(last=False)

    def _of(self, weights: list[Tensor]) -> bool:
        """Whether the weights have the address, the type and the count of changes of those that are known."""
        return len(weights) == len(self._weights) and all(
            (one.data_ptr(), one.dtype, one.device, one._version) == (old.data_ptr(), old.dtype, old.device, version)
            for one, (old, version) in zip(weights, self._weights, strict=True)
        )


def _most_bytes(device: torch.device) -> int:
    return SPECTRUM_BYTES.get(device.type, SPECTRUM_BYTES["cuda"])


class ImplicitFilter(nn.Module):
    """A long filter for each channel, computed from positions by a small network; always in float32.

    Without gradients, the Fourier transforms of the filters are kept for each length of the input, in a bounded memory.
    """

    def __init__(self, config: FilterConfig) -> None:
        super().__init__()
        order, inner = config.filter_order, config.num_inner_mlps
        self.n_linear = inner + 1
        self.bias = nn.Parameter(torch.randn(config.d_model))
        self.pos_emb = _Positions(config)
        # Named by the numbers of a stack of linear and sine layers; all sines share the frequency of the first.
        layers: dict[str, nn.Module] = {"0": nn.Linear(config.emb_dim, order), "1": _Frequency(config)}
        layers |= {str(2 * number): nn.Linear(order, order) for number in range(1, inner + 1)}
        layers[str(2 * self.n_linear)] = nn.Linear(order, config.d_model, bias=False)
        self.implicit_filter = nn.ModuleDict(layers)
        self.modulation = _Modulation(config.d_model)
        self._spectra = _Spectra()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ImplicitFilter:
        super()._apply(keep_float32(fn), recurse)  # type: ignore[no-untyped-call]  # torch does not annotate it
        return self

    def forward(self, n_positions: int) -> Tensor:
        """Compute the filters at the first ``n_positions`` positions, shape (channels, positions)."""
        x_TD = self.pos_emb.z[0, :n_positions].float()
        frequency = self.implicit_filter["1"].freq
        for number in range(self.n_linear):
            x_TD = torch.sin(frequency * self.implicit_filter[str(2 * number)](x_TD))
        x_DT = self.get_parameter(f"implicit_filter.{2 * self.n_linear}.weight") @ x_TD.t()
        fade_DT = torch.exp(-self.modulation.deltas[0, 0, :, None].abs() * self.pos_emb.t[0, :n_positions, 0])
        filter_DT: Tensor = x_DT * (fade_DT + _DECAY_FLOOR)
        return filter_DT

    def convolve(self, x_BDT: Tensor) -> Tensor:
        """Convolve with the filters, and add the input times the bias: float32, shape (batch, channels, positions)."""
        n_positions = x_BDT.shape[-1]
        spectrum_DF = self._kept_spectrum(n_positions)
        filter_DT = self(n_positions) if spectrum_DF is None else None
        return long_convolution(x_BDT, filter_DT, self.bias, spectrum_DF=spectrum_DF)

    # Addresses and counts of changes are not for the compiler.
    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch does not annotate it
    def _kept_spectrum(self, n_positions: int) -> Tensor | None:
        """Return the spectra of a length, computed once; None if gradients are needed or they are too large to keep."""
        weights = [*self.parameters(), *self.buffers()]
        n_bytes = 8 * len(self.bias) * (fft_length(2 * n_positions - 1) // 2 + 1)
        counted = not any(weight.is_inference() for weight in weights)  # changes of the others are not counted
        if torch.is_grad_enabled() or not counted or n_bytes > _most_bytes(self.bias.device):
            return None
        spectrum_DF = self._spectra.find(weights, n_positions)
        if spectrum_DF is None:
            spectrum_DF = filter_spectrum(self(n_positions))
            self._spectra.keep(spectrum_DF, n_positions)
        return spectrum_DF


class HyenaDNAConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is not typed
    """Sizes of the network; the defaults are those of LongSafari/hyenadna-tiny-1k-seqlen."""

    model_type = "hyenadna"

    def __init__(
        self,
        *,
        vocab_size: int = 12,  # config.json of LongSafari/hyenadna-tiny-1k-seqlen-hf, as all below
        d_model: int = 128,
        n_layer: int = 2,
        d_inner: int = 512,
        max_seq_len: int = 1026,
        emb_dim: int = 5,
        filter_order: int = 64,
        short_filter_order: int = 3,
        num_inner_mlps: int = 2,
        hyena_order: int = 2,
        activation_freq: float = 10,
        use_bias: bool = True,
        layer_norm_epsilon: float = 1e-5,
        pad_vocab_size_multiple: int = 8,
        initializer_range: float = 0.02,
        pad_token_id: int = 4,
        tie_word_embeddings: bool = False,
        **common: object,
    ) -> None:
        if hyena_order != 2:
            raise ModelError(
                f"a HyenaDNA of order {hyena_order} is not supported; expected order 2, as in all published models"
            )
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.n_layer = n_layer
        self.d_inner = d_inner
        self.max_seq_len = max_seq_len
        self.emb_dim = emb_dim
        self.filter_order = filter_order
        self.short_filter_order = short_filter_order
        self.num_inner_mlps = num_inner_mlps
        self.hyena_order = hyena_order
        self.activation_freq = activation_freq
        self.use_bias = use_bias
        self.layer_norm_epsilon = layer_norm_epsilon
        self.pad_vocab_size_multiple = pad_vocab_size_multiple
        self.initializer_range = initializer_range
        # Set here too: newer releases of transformers do not take it as a keyword of the base class.
        self.pad_token_id = pad_token_id
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **common)

    @property
    def n_embeddings(self) -> int:
        """Number of input embeddings: the vocabulary, rounded up."""
        return -(-self.vocab_size // self.pad_vocab_size_multiple) * self.pad_vocab_size_multiple


def is_original(fields: Mapping[str, object]) -> bool:
    """Whether a config.json belongs to the original files: it has a section ``layer``, unlike ``-hf`` files."""
    return isinstance(fields.get("layer"), Mapping)


def config_from_json(fields: Mapping[str, object]) -> HyenaDNAConfig:
    """Make a configuration from either kind of config.json; see ``is_original``.

    Args:
        fields: Content of the file.

    Raises:
        ModelError: The file is of neither kind, or describes attention layers.
    """
    layer = fields.get("layer")
    if not isinstance(layer, Mapping):
        known = known_fields(HyenaDNAConfig, fields)
        if "max_seq_len" not in known:
            raise ModelError(
                "config.json has neither 'max_seq_len' (-hf files) nor a section 'layer' (original files); "
                "expected the configuration of a HyenaDNA"
            )
        return HyenaDNAConfig(**known)
    if fields.get("attn_layer_idx"):
        raise ModelError(
            f"config.json has attention in layers {fields['attn_layer_idx']}; expected none, as in all published models"
        )
    original: dict[str, Any] = {
        "max_seq_len": layer.get("l_max"),
        "emb_dim": layer.get("emb_dim"),
        "filter_order": layer.get("filter_order"),
        "short_filter_order": layer.get("short_filter_order"),
        "num_inner_mlps": layer.get("num_inner_mlps"),
        "activation_freq": layer.get("w"),
        **{key: fields.get(key) for key in ("d_model", "n_layer", "d_inner", "vocab_size", "pad_vocab_size_multiple")},
    }
    return HyenaDNAConfig(**{key: value for key, value in original.items() if value is not None})


def rename_key(key: str) -> str:
    """Rename a key of a published file to one of this module; keys of ``-hf`` files stay unchanged.

    A key of the original files starts with ``model.`` and lacks ``hyena.``. Models trained with activation
    checkpointing (small-32k and larger) have an additional ``layer.`` behind ``mixer`` and ``mlp``.

    >>> rename_key("model.backbone.layers.0.mixer.layer.in_proj.bias")
    'hyena.backbone.layers.0.mixer.in_proj.bias'
    """
    key = key.removeprefix("model.").replace(".mixer.layer.", ".mixer.").replace(".mlp.layer.", ".mlp.")
    return f"hyena.{key}" if key.startswith("backbone.") else key


# The three sine layers of a filter share one frequency. Original files have it three times; -hf files and this module
# once. fnmatch patterns, after renaming.
SHARED_FREQUENCY_KEYS: Final[tuple[str, ...]] = (
    "*.implicit_filter.3.freq",
    "*.implicit_filter.5.freq",
)


class _Hyena(nn.Module):
    """The order-2 Hyena operator: two gates around a long convolution."""

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        width, taps = config.d_model, config.short_filter_order
        self.in_proj = nn.Linear(width, 3 * width, bias=config.use_bias)
        self.out_proj = nn.Linear(width, width, bias=config.use_bias)
        self.short_filter = nn.Conv1d(3 * width, 3 * width, taps, groups=3 * width, padding=taps - 1)
        self.filter_fn = ImplicitFilter(config)

    def forward(self, x_BTD: Tensor, mask_BT1: Tensor | None) -> Tensor:
        mixed_BTE = self.in_proj(x_BTD)
        weight, bias, kernels = self.short_filter.weight, self.short_filter.bias, kernels_for(mixed_BTE)
        if kernels is not None:
            mixed_BTE = kernels.masked_convolution(mixed_BTE, weight, bias, mask_BT1)
        else:
            if mask_BT1 is not None:
                mixed_BTE = mixed_BTE * mask_BT1
            mixed_BTE = short_convolution(mixed_BTE, weight, bias)
        gate_out, gate_in, value_BTD = mixed_BTE.chunk(3, dim=-1)
        value_BTD = value_BTD * gate_in
        if mask_BT1 is not None:
            value_BTD = value_BTD * mask_BT1
        long_BDT = self.filter_fn.convolve(value_BTD.transpose(1, 2))
        # The gate first: the product then has the layout of the gate, which the projection needs.
        mixed: Tensor = self.out_proj(gate_out * long_BDT.transpose(1, 2).to(gate_out.dtype))
        return mixed


class _FeedForward(nn.Module):
    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, config.d_inner)
        self.fc2 = nn.Linear(config.d_inner, config.d_model)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.fc2(gelu(self.fc1(x_BTD), approximate="tanh"))
        return out


class _Block(nn.Module):
    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        self.mixer = _Hyena(config)
        self.norm1 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.mlp = _FeedForward(config)
        self.norm2 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)

    def forward(self, x_BTD: Tensor, mask_BT1: Tensor | None) -> Tensor:
        x_BTD = x_BTD + self.mixer(self.norm1(x_BTD), mask_BT1)
        out: Tensor = x_BTD + self.mlp(self.norm2(x_BTD))
        return out


class _Embeddings(nn.Module):
    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.n_embeddings, config.d_model)


class _Backbone(nn.Module):
    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.layers = nn.ModuleList([_Block(config) for _ in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)


class HyenaDNAPreTrainedModel(PreTrainedModel):  # type: ignore[misc]  # transformers is not typed
    """Base class of the encoder and the language model."""

    config_class = HyenaDNAConfig
    base_model_prefix = "hyena"


class HyenaDNAModel(HyenaDNAPreTrainedModel):
    """The network without its head. It has no dropout, because it is used frozen."""

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__(config)
        self.backbone = _Backbone(config)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> BaseModelOutput:
        """Compute hidden states. Padding on either side does not change them.

        Args:
            input_ids: Shape (batch, tokens), at most ``max_seq_len`` tokens.
            attention_mask: 1 for tokens, 0 for padding, shape (batch, tokens); None if nothing is padded.
            output_hidden_states: Also return the input embeddings, the output of each layer, and that of the final
                norm.

        Returns:
            ``last_hidden_state`` of shape (batch, tokens, width); ``hidden_states``, ``n_layer + 2`` tensors.

        Raises:
            ModelError: The input is longer than the filters.
        """
        if input_ids.shape[1] > self.config.max_seq_len:
            raise ModelError(
                f"an input of {input_ids.shape[1]} tokens is longer than the {self.config.max_seq_len} positions of "
                f"this HyenaDNA; cut it into chunks, or use a model with a longer context"
            )
        x_BTD = self.backbone.embeddings.word_embeddings(input_ids)
        mask_BT1 = None if attention_mask is None else attention_mask[..., None].to(x_BTD.dtype)
        states = [x_BTD]
        for layer in self.backbone.layers:
            x_BTD = layer(x_BTD, mask_BT1)
            states.append(x_BTD)
        x_BTD = self.backbone.ln_f(x_BTD)
        states.append(x_BTD)
        return BaseModelOutput(last_hidden_state=x_BTD, hidden_states=tuple(states) if output_hidden_states else None)


class HyenaDNAForCausalLM(LanguageModel, HyenaDNAPreTrainedModel):
    """The network with its head, which predicts the next token."""

    output_class = CausalLMOutput

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__(config)
        self.hyena = HyenaDNAModel(config)
        self.lm_head = nn.Linear(config.d_model, config.n_embeddings, bias=False)
        self.post_init()

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Apply the head: (batch, tokens, width) to (batch, tokens, vocabulary)."""
        scores_BTV: Tensor = self.lm_head(x_BTD)
        return scores_BTV
