"""GPN of the later releases (``model_type`` GPN): pre-norm layers of dilated convolutions, or those of ByteNet.

After songlab-cal/gpn, gpn/ss/model.py and gpn/ss/modules.py. Parameters are named as in the published files. The first
release, for example gpn-brassicales, is another network: ``bend_hf.embedders.networks.convnet``.

>>> config = GPNConfig(hidden_size=8, intermediate_size=16, num_hidden_layers=1, encoder="bytenet")
>>> GPNForMaskedLM(config)(torch.tensor([[3, 4, 5, 6]])).logits.shape
torch.Size([1, 4, 7])
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, one_hot, pad
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from bend_hf.embedders.networks._language_model import LanguageModel
from bend_hf.embedders.networks._layers import convolve, dilation_of, init_linear, masked, token_factor
from bend_hf.errors import ModelError, did_you_mean

EMBEDDINGS: Final = ("one_hot", "embedding")


class GPNConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is not typed
    """The fields of a published ``config.json`` that shape the network.

    Args:
        vocab_size: Number of tokens, V: special tokens, then the nucleotides.
        hidden_size: Width of the residual stream, D.
        num_hidden_layers: Number of residual layers.
        intermediate_size: Width of the feed-forward branch of a ``convnet`` layer.
        encoder: ``convnet`` or ``bytenet``.
        embedding: ``one_hot``, without weights, or ``embedding``, learned.
        bias: Whether norms, convolutions and linear maps have biases.
        mlm_head_transform: Whether the head has a hidden layer.
        slim: Whether the convolution of a ``bytenet`` layer has half the width.
        first_kernel_size: Taps of the first layer's convolution.
        rest_kernel_size: Taps of the others.
        dilation_double_every: Layers that share one dilation.
        dilation_max: The largest dilation.
        dilation_cycle: Layers after which the dilation starts from 1 again.
        dilation_base: Factor by which the dilation grows.
        depthwise: Whether convolutions are depthwise, except that of the first layer.
        hidden_dropout_prob: Dropout of both branches of a ``convnet`` layer, in training only.
        initializer_range: Standard deviation of random linear weights.
        pad_token_id: Id of padding, whose learned embedding is zero.
        tie_word_embeddings: Whether the matrix of the head is that of the input embeddings.
        n_aux_features: Additional alignment columns; only 0 (sequence only) is supported.

    Raises:
        ModelError: The encoder or the embedding is unknown, or the network needs an alignment.
    """

    model_type = "GPN"

    def __init__(
        self,
        *,
        vocab_size: int = 7,  # GPNConfig of gpn/ss/model.py, as all below
        hidden_size: int = 512,
        num_hidden_layers: int = 25,
        intermediate_size: int = 2048,
        encoder: str = "convnet",
        embedding: str = "one_hot",
        bias: bool = False,
        mlm_head_transform: bool = True,
        slim: bool = False,
        first_kernel_size: int = 9,
        rest_kernel_size: int = 5,
        dilation_double_every: int = 1,
        dilation_max: int = 9999,
        dilation_cycle: int = 8,
        dilation_base: int = 2,
        depthwise: bool = False,
        hidden_dropout_prob: float = 0.0,
        initializer_range: float = 0.02,
        pad_token_id: int = 0,
        tie_word_embeddings: bool = False,
        n_aux_features: int = 0,
        **common: object,
    ) -> None:
        if encoder not in LAYERS:
            raise ModelError(f"this GPN has the encoder {encoder!r}; {did_you_mean(encoder, list(LAYERS))}")
        if embedding not in EMBEDDINGS:
            raise ModelError(f"this GPN has the embedding {embedding!r}; {did_you_mean(embedding, list(EMBEDDINGS))}")
        if n_aux_features:
            raise ModelError(
                f"this GPN needs {n_aux_features} alignment columns (n_aux_features); expected 0. "
                "Use a checkpoint that reads only the sequence"
            )
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.intermediate_size = intermediate_size
        self.encoder = encoder
        self.embedding = embedding
        self.bias = bias
        self.mlm_head_transform = mlm_head_transform
        self.slim = slim
        self.first_kernel_size = first_kernel_size
        self.rest_kernel_size = rest_kernel_size
        self.dilation_double_every = dilation_double_every
        self.dilation_max = dilation_max
        self.dilation_cycle = dilation_cycle
        self.dilation_base = dilation_base
        self.depthwise = depthwise
        self.hidden_dropout_prob = hidden_dropout_prob
        self.initializer_range = initializer_range
        self.pad_token_id = pad_token_id
        self.n_aux_features = n_aux_features
        super().__init__(**common)
        self.tie_word_embeddings = tie_word_embeddings and embedding == "embedding"


def _convolution(config: GPNConfig, layer: int, width: int) -> nn.Conv1d:
    dilation = dilation_of(
        layer,
        cycle=config.dilation_cycle,
        double_every=config.dilation_double_every,
        largest=config.dilation_max,
        base=config.dilation_base,
    )
    return nn.Conv1d(
        width,
        width,
        config.rest_kernel_size if layer else config.first_kernel_size,
        dilation=dilation,
        groups=width if config.depthwise and layer else 1,
        bias=config.bias,
        padding="same",
    )


class ConvNetLayer(nn.Module):
    """Norm, convolution, GELU, linear; norm, linear, GELU, linear; each branch is added to its input."""

    def __init__(self, config: GPNConfig, layer: int) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, config.bias
        self.conv = nn.ModuleDict(
            {
                "0": nn.LayerNorm(width, bias=bias),
                "2": _convolution(config, layer, width),
                "5": nn.Linear(width, width, bias=bias),
            }
        )
        self.ffn = nn.ModuleDict(
            {
                "0": nn.LayerNorm(width, bias=bias),
                "1": nn.Linear(width, inner, bias=bias),
                "3": nn.Linear(inner, width, bias=bias),
            }
        )
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x_BTD: Tensor, token_BT1: Tensor | None) -> Tensor:
        """Run the layer, shape (batch, tokens, width) in and out; ``token_BT1`` is 1 for tokens, 0 for padding."""
        read_BTD = masked(self.conv["0"](x_BTD), token_BT1)
        x_BTD = x_BTD + self.dropout(self.conv["5"](gelu(convolve(self.conv["2"], read_BTD))))
        fed_BTD: Tensor = self.dropout(self.ffn["3"](gelu(self.ffn["1"](self.ffn["0"](x_BTD)))))
        return x_BTD + fed_BTD


class ByteNetLayer(nn.Module):
    """Norm, GELU, linear, norm, GELU, convolution, norm, GELU, linear, added to the input."""

    def __init__(self, config: GPNConfig, layer: int) -> None:
        super().__init__()
        width, bias = config.hidden_size, config.bias
        inner = width // 2 if config.slim else width
        self.layer = nn.ModuleDict(
            {
                "0": nn.LayerNorm(width, bias=bias),
                "2": nn.Linear(width, inner, bias=bias),
                "3": nn.LayerNorm(inner, bias=bias),
                "6": _convolution(config, layer, inner),
                "8": nn.LayerNorm(inner, bias=bias),
                "10": nn.Linear(inner, width, bias=bias),
            }
        )

    def forward(self, x_BTD: Tensor, token_BT1: Tensor | None) -> Tensor:
        """Run the layer, shape (batch, tokens, width) in and out; ``token_BT1`` is 1 for tokens, 0 for padding."""
        steps = self.layer
        read_BTI = gelu(steps["3"](steps["2"](gelu(steps["0"](x_BTD)))))
        convolved_BTI = convolve(steps["6"], masked(read_BTI, token_BT1))
        added_BTD: Tensor = steps["10"](gelu(steps["8"](convolved_BTI)))
        return x_BTD + added_BTD


LAYERS: Final = {"convnet": ConvNetLayer, "bytenet": ByteNetLayer}


class _Encoder(nn.Module):
    def __init__(self, config: GPNConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(LAYERS[config.encoder](config, layer) for layer in range(config.num_hidden_layers))


class _Embeddings(nn.Module):
    """Input embeddings: learned, or one-hot nucleotides in the first channels of the residual stream."""

    def __init__(self, config: GPNConfig) -> None:
        super().__init__()
        self.vocabulary, self.width = config.vocab_size, config.hidden_size
        if config.embedding == "embedding":
            self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)

    def forward(self, ids_BT: Tensor, dtype: torch.dtype) -> Tensor:
        """Embed ids (batch, tokens), shape (batch, tokens, width)."""
        if hasattr(self, "word_embeddings"):
            x_BTD: Tensor = self.word_embeddings(ids_BT)
            return x_BTD
        return pad(one_hot(ids_BT, self.vocabulary).to(dtype), (0, self.width - self.vocabulary))


class _GPNPreTrained(PreTrainedModel):  # type: ignore[misc]  # transformers is not typed
    config_class = GPNConfig
    base_model_prefix = "model"

    def _init_weights(self, module: nn.Module) -> None:
        init_linear(module, self.config.initializer_range)
        if isinstance(module, nn.Embedding):
            nn.init.zeros_(module.weight[self.config.pad_token_id])


class GPNModel(_GPNPreTrained):
    """Input embeddings, residual layers and the last norm."""

    def __init__(self, config: GPNConfig) -> None:
        super().__init__(config)
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.ln_f = nn.LayerNorm(config.hidden_size, bias=config.bias)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> BaseModelOutput:
        """Run the layers.

        Args:
            input_ids: Token ids, int64, shape (batch, tokens).
            attention_mask: 1 for tokens, 0 for padding, shape (batch, tokens). Padding equals the end of the sequence.
            output_hidden_states: Also return the input embeddings and the output of each layer.

        Returns:
            ``last_hidden_state`` of shape (batch, tokens, width), undefined for padding; ``hidden_states`` if
            requested, before the last norm.
        """
        x_BTD = self.embeddings(input_ids, self.dtype)
        token_BT1 = token_factor(attention_mask, x_BTD)
        states = [x_BTD]
        for layer in self.encoder.layer:
            x_BTD = layer(x_BTD, token_BT1)
            if output_hidden_states:
                states.append(x_BTD)
        return BaseModelOutput(
            last_hidden_state=self.ln_f(x_BTD), hidden_states=tuple(states) if output_hidden_states else None
        )


class _Head(nn.Module):
    """Score the vocabulary: optionally linear, GELU, norm (``transform.0``, ``.2``), then linear."""

    def __init__(self, config: GPNConfig) -> None:
        super().__init__()
        width, bias = config.hidden_size, config.bias
        if config.mlm_head_transform:
            self.transform = nn.ModuleDict(
                {"0": nn.Linear(width, width, bias=bias), "2": nn.LayerNorm(width, bias=bias)}
            )
        self.decoder = nn.Linear(width, config.vocab_size, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Shape (batch, tokens, width) to (batch, tokens, vocabulary)."""
        if hasattr(self, "transform"):
            x_BTD = self.transform["2"](gelu(self.transform["0"](x_BTD)))
        scores_BTV: Tensor = self.decoder(x_BTD)
        return scores_BTV


class GPNForMaskedLM(LanguageModel, _GPNPreTrained):
    """The layers with their language-model head."""

    def __init__(self, config: GPNConfig) -> None:
        super().__init__(config)
        self.model = GPNModel(config)
        self.cls = _Head(config)
        if config.tie_word_embeddings:
            self.cls.decoder.weight = self.model.embeddings.word_embeddings.weight
        self.post_init()

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Apply the head: (batch, tokens, width) to (batch, tokens, vocabulary)."""
        scores_BTV: Tensor = self.cls(x_BTD)
        return scores_BTV
