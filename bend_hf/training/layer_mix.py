"""A head that reads several layers of a model at once: their mean, or a mix whose weights are learned with the head.

The scalar mix is that of ELMo (Peters et al. 2018, arXiv:1802.05365, equation 1): the layers are summed with weights
that are the softmax of one learned number per layer, and the sum is scaled by one more.

>>> from bend_hf.training.heads.linear import LinearHead
>>> mix = LayerMix(LinearHead(width=2, n_outputs=1), n_layers=3, learned=True)
>>> mix(torch.zeros(1, 4, 6), torch.tensor([[0, 1, 2, 3]])).shape, mix.shares()
(torch.Size([1, 4, 1]), [0.3333333432674408, 0.3333333432674408, 0.3333333432674408])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from bend_hf.embedders.token_embeddings import EmbeddingSource, TokenBatch
from bend_hf.errors import ConfigError
from bend_hf.types import Ints

MixKind: TypeAlias = Literal["mean", "scalar"]
MIXES: Final[tuple[MixKind, ...]] = ("mean", "scalar")


class LayerMix(nn.Module):
    """A head on a mix of layers.

    Args:
        head: Reads the mix, of the width of one layer.
        n_layers: Number of layers, K.
        learned: Whether the weights of the layers are learned; otherwise each layer counts the same.
    """

    def __init__(self, head: nn.Module, *, n_layers: int, learned: bool) -> None:
        super().__init__()
        self.head, self.n_layers = head, n_layers
        self.layer_logits = nn.Parameter(torch.zeros(n_layers)) if learned else None
        self.scale = nn.Parameter(torch.ones(())) if learned else None

    def forward(self, x_BTN: Tensor, token_of_BL: Tensor) -> Tensor:
        """Score every label window.

        Args:
            x_BTN: The layers side by side, float, shape (batch, tokens, K * width).
            token_of_BL: Token of each nucleotide, int64, shape (batch, nucleotides); -1 at padding.

        Returns:
            Logits, shape (batch, windows, outputs).
        """
        x_BTKD = x_BTN.reshape(*x_BTN.shape[:2], self.n_layers, -1)
        if self.layer_logits is None or self.scale is None:
            mixed = x_BTKD.mean(dim=2)
        else:
            mixed = self.scale * torch.einsum("btkd,k->btd", x_BTKD, self.layer_logits.softmax(0))
        logits: Tensor = self.head(mixed, token_of_BL)
        return logits

    def shares(self) -> list[float] | None:
        """Return the weight of each layer, which sum to 1; None if they are not learned."""
        return None if self.layer_logits is None else [float(one) for one in self.layer_logits.detach().softmax(0)]


@dataclass(frozen=True, kw_only=True)
class MixedLayers:
    """Which layers a head reads at once, and how.

    Attributes:
        kind: ``mean``, or ``scalar`` for learned weights.
        layers: The layers, counted from 0.
    """

    kind: MixKind
    layers: tuple[int, ...]

    @property
    def name(self) -> str:
        """What stands in records in place of the number of a layer.

        >>> MixedLayers(kind="scalar", layers=(0, 6, 12)).name
        'scalar:0,6,12'
        """
        return f"{self.kind}:{','.join(map(str, self.layers))}"

    def over(self, head: nn.Module) -> LayerMix:
        """Return a head on the mix."""
        return LayerMix(head, n_layers=len(self.layers), learned=self.kind == "scalar")


def check_mixes(kinds: Sequence[str]) -> None:
    """Check the names of mixes.

    Raises:
        ConfigError: One is unknown.
    """
    for kind in kinds:
        if kind not in MIXES:
            raise ConfigError(f"unknown mix of layers {kind!r}; expected {' or '.join(MIXES)}")


class SideBySide:
    """The layers of a split side by side, for ``LayerMix``; an ``InputSource``.

    Args:
        sources: The source of each layer.
    """

    def __init__(self, sources: Sequence[EmbeddingSource]) -> None:
        self._sources = list(sources)

    def rows(self, rows: Ints) -> TokenBatch:
        """Return all layers of some items, in the order given."""
        parts = [source.rows(rows) for source in self._sources]
        whole = np.concatenate([part.x_BTD for part in parts], axis=-1)
        return TokenBatch(x_BTD=whole, token_of_BL=parts[0].token_of_BL)
