"""The dilated convolutional language model: BEND's ResNet LM and the GPN of the first release.

After songlab-cal/gpn, gpn/legacy.py, and frederikkemarin/BEND, bend/models/dilated_cnn.py, which is the same network.
Parameters are named as in the published files.

>>> import torch
>>> config = ConvNetConfig(hidden_size=8, n_layers=1)
>>> ConvNetForMaskedLM(config)(torch.tensor([[3, 4, 5, 6]])).logits.shape
torch.Size([1, 4, 7])
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import gelu, one_hot
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from bend_hf.embedders.networks._language_model import LanguageModel
from bend_hf.embedders.networks._layers import (
    DILATION_CYCLE,
    DILATION_DOUBLE_EVERY,
    DILATION_MAX,
    DilatedStack,
    init_linear,
)
from bend_hf.errors import ModelError


class ConvNetConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is not typed
    """The fields of a published ``config.json``; the defaults are those of songlab/gpn-brassicales.

    Args:
        vocab_size: Number of tokens, V: special tokens, then the nucleotides.
        hidden_size: Width of the residual stream, D.
        n_layers: Number of residual layers.
        kernel_size: Taps of a convolution.
        dilation_double_every: Layers that share one dilation.
        dilation_max: The largest dilation.
        dilation_cycle: Layers after which the dilation starts from 1 again.
        dilation_base: Factor by which the dilation grows.
        initializer_range: Standard deviation of random linear weights.
        n_aux_features: Additional alignment columns; only 0 (sequence only) is supported.

    Raises:
        ModelError: The network needs an alignment.
    """

    model_type = "ConvNet"

    def __init__(
        self,
        *,
        vocab_size: int = 7,
        hidden_size: int = 512,
        n_layers: int = 25,
        kernel_size: int = 9,
        dilation_double_every: int = DILATION_DOUBLE_EVERY,
        dilation_max: int = DILATION_MAX,
        dilation_cycle: int = DILATION_CYCLE,
        dilation_base: int = 2,
        initializer_range: float = 0.02,
        n_aux_features: int = 0,
        **common: object,
    ) -> None:
        if n_aux_features:
            raise ModelError(
                f"this ConvNet needs {n_aux_features} alignment columns (n_aux_features); expected 0. "
                "Use a checkpoint that reads only the sequence"
            )
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.n_layers = n_layers
        self.kernel_size = kernel_size
        self.dilation_double_every = dilation_double_every
        self.dilation_max = dilation_max
        self.dilation_cycle = dilation_cycle
        self.dilation_base = dilation_base
        self.initializer_range = initializer_range
        self.n_aux_features = n_aux_features
        self.tie_word_embeddings = False  # there are no word embeddings
        super().__init__(**common)


class _ConvNetPreTrained(PreTrainedModel):  # type: ignore[misc]  # transformers is not typed
    config_class = ConvNetConfig
    base_model_prefix = "model"

    def _init_weights(self, module: nn.Module) -> None:
        init_linear(module, self.config.initializer_range)


class ConvNetModel(_ConvNetPreTrained):
    """The residual layers."""

    def __init__(self, config: ConvNetConfig) -> None:
        super().__init__(config)
        self.encoder = DilatedStack(
            width=config.hidden_size,
            layers=config.n_layers,
            kernel=config.kernel_size,
            dilation_cycle=config.dilation_cycle,
            dilation_double_every=config.dilation_double_every,
            dilation_max=config.dilation_max,
            dilation_base=config.dilation_base,
        )
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> BaseModelOutput:
        """Run the layers.

        Args:
            input_ids: Token ids, int64, shape (batch, tokens).
            attention_mask: 1 for tokens, 0 for padding, shape (batch, tokens). Padding equals the end of the sequence.
            output_hidden_states: Also return the one-hot input and the output of each layer.

        Returns:
            ``last_hidden_state`` of shape (batch, tokens, width), zero for padding; ``hidden_states`` if requested.
        """
        onehot_BTV = one_hot(input_ids, self.config.vocab_size).to(self.dtype)
        if not output_hidden_states:
            return BaseModelOutput(last_hidden_state=self.encoder(onehot_BTV, attention_mask))
        states = tuple(self.encoder.states(onehot_BTV, attention_mask))
        return BaseModelOutput(last_hidden_state=states[-1], hidden_states=states)


class _Head(nn.Module):
    """Score the vocabulary: linear, GELU, norm, linear (``decoder.0``, ``.2``, ``.3``)."""

    def __init__(self, config: ConvNetConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.decoder = nn.ModuleDict(
            {"0": nn.Linear(width, width), "2": nn.LayerNorm(width), "3": nn.Linear(width, config.vocab_size)}
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Shape (batch, tokens, width) to (batch, tokens, vocabulary)."""
        scores_BTV: Tensor = self.decoder["3"](self.decoder["2"](gelu(self.decoder["0"](x_BTD))))
        return scores_BTV


class ConvNetForMaskedLM(LanguageModel, _ConvNetPreTrained):
    """The residual layers with their language-model head."""

    def __init__(self, config: ConvNetConfig) -> None:
        super().__init__(config)
        self.model = ConvNetModel(config)
        self.cls = _Head(config)
        self.post_init()

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Apply the head: (batch, tokens, width) to (batch, tokens, vocabulary)."""
        scores_BTV: Tensor = self.cls(x_BTD)
        return scores_BTV


def rename_key(key: str) -> str:
    """Add the prefix to a key of a file with the layers only, as BEND publishes them."""
    return f"model.{key}" if key.startswith("encoder.") else key
