"""Several layers of a model from one forward pass.

``layer_view`` is an embedder that returns one other layer, ``layers_view`` one that returns several side by side; both
share the network. Layers are numbered as by ``--layer``: 0 is the input of the first block. A family gives its layers
by ``Embedder._pick``, from the hidden states of its network.

>>> chosen_layers("every-4", 13), chosen_layers("0,6,-1", 13)
((0, 4, 8, 12), (0, 6, 12))
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.embedders.token_embeddings import OnTheFly, TokenBatch
from bend_hf.errors import ConfigError
from bend_hf.types import Ints

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.embedders._embedder import Embedder

ALL: Final = "all"
_EVERY: Final = re.compile(r"every-([1-9]\d*)")
_LISTED: Final = re.compile(r"-?\d+(,-?\d+)*")
_PROBE: Final = "ACGTACGTACGTACGTACGTACGTACGTACGT"  # what is embedded to see which layers there are


def check_choice_of_layers(text: str) -> None:
    """Check the form of ``--layers``.

    Raises:
        ConfigError: It is neither ``all`` nor ``every-N`` nor numbers.
    """
    if text != ALL and not _EVERY.fullmatch(text) and not _LISTED.fullmatch(text):
        raise ConfigError(f"--layers is {text!r}; expected 'all', 'every-4', or numbers of layers such as '0,6,12'")


def chosen_layers(text: str, n_layers: int) -> tuple[int, ...]:
    """Return the layers that ``--layers`` names, rising, counted from 0.

    ``every-N`` counts back from the last layer, so that it is among them.

    Args:
        text: ``all``, ``every-N``, or numbers, negative ones counted from the end.
        n_layers: How many layers there are, the input of the first block included.

    Raises:
        ConfigError: The text has another form, or a layer does not exist.
    """
    check_choice_of_layers(text)
    if text == ALL:
        return tuple(range(n_layers))
    if every := _EVERY.fullmatch(text):
        return tuple(sorted(range(n_layers - 1, -1, -int(every[1]))))
    numbers = [int(one) for one in text.split(",")]
    if wrong := [one for one in numbers if not -n_layers <= one < n_layers]:
        raise ConfigError(f"--layers names layer {wrong[0]}, but the model has layers 0 to {n_layers - 1}")
    return tuple(sorted({one % n_layers for one in numbers}))


def layer_widths(embedder: Embedder) -> tuple[int, ...]:
    """Return the width of each layer, found by embedding a short sequence.

    Raises:
        ConfigError: The model has no layers, as one-hot and users' functions.
    """
    from bend_hf.embedders.onehot import OneHotEmbedder
    from bend_hf.embedders.user_model import UserEmbedder

    if not isinstance(embedder, OneHotEmbedder | UserEmbedder):
        view = layer_view(embedder, 0)
        view.embed_tokens([_PROBE])
        if view._state_widths:
            return view._state_widths
    raise ConfigError(
        f"{embedder.name} has no layers to choose from; it gives one embedding per token, which 'bend-hf train' scores"
    )


def usable_layers(embedder: Embedder, text: str) -> tuple[int, ...]:
    """Return the layers that ``--layers`` names, without those of another width than the embeddings.

    Args:
        embedder: The model.
        text: As for ``chosen_layers``.

    Raises:
        ConfigError: A layer is named that does not exist or has another width.
    """
    widths = layer_widths(embedder)
    layers = chosen_layers(text, len(widths))
    fitting = tuple(layer for layer in layers if widths[layer] == embedder.width)
    left_out = sorted(set(layers) - set(fitting))
    if (left_out and _LISTED.fullmatch(text)) or not fitting:
        raise ConfigError(
            f"layer {left_out[0]} of {embedder.name} has width {widths[left_out[0]]}; expected {embedder.width}, that "
            "of the embeddings. Leave it out"
        )
    return fitting


def layer_view(embedder: Embedder, layer: int) -> Embedder:
    """Return an embedder of another layer that shares the network, which is loaded once.

    Args:
        embedder: The model.
        layer: Counted from 0.
    """
    return _view(embedder, layer, ())


def layers_view(embedder: Embedder, layers: Sequence[int]) -> Embedder:
    """Return an embedder of several layers side by side, shape (tokens, layers * width), from one forward pass.

    Args:
        embedder: The model.
        layers: Counted from 0.
    """
    return _view(embedder, 0, tuple(layers))


def mixed_view(embedder: Embedder, layers: Sequence[int], name: str) -> Embedder:
    """Return an embedder of several layers side by side, under the name by which records know their mix."""
    return _view(embedder, name, tuple(layers))


def _view(embedder: Embedder, layer: int | str, layers: tuple[int, ...]) -> Embedder:
    embedder.runner()  # which all views share
    view = copy.copy(embedder)
    view.layer, view.layers = layer, layers  # type: ignore[assignment]  # a name, where ``layers`` says what is returned
    return view


class LayersOnTheFly:
    """The layers of a split, computed together when they are needed; ``at`` gives the source of each.

    Args:
        dataset: The split, with a column ``sequence``.
        embedder: The model.
        layers: Counted from 0.
    """

    def __init__(self, dataset: Dataset, embedder: Embedder, layers: Sequence[int]) -> None:
        self._layers, self.width = tuple(layers), int(embedder.width)
        self._source = OnTheFly(dataset, layers_view(embedder, layers))
        self._rows: Ints | None = None
        self._found: TokenBatch | None = None

    def __len__(self) -> int:
        return len(self._source)

    def at(self, layer: int) -> LayerOnTheFly:
        """Return the source of one layer."""
        return LayerOnTheFly(self, self._layers.index(layer))

    def whole(self, rows: Ints) -> TokenBatch:
        """Return all layers side by side; asked for the same rows again, they are not computed again."""
        if self._found is None or self._rows is None or not np.array_equal(rows, self._rows):
            self._rows, self._found = rows, self._source.rows(rows)
        return self._found


class LayerOnTheFly:
    """One layer of ``LayersOnTheFly``; an ``EmbeddingSource``."""

    def __init__(self, of: LayersOnTheFly, place: int) -> None:
        self._of, self._place = of, place

    @property
    def width(self) -> int:
        """Width of an embedding."""
        return self._of.width

    def __len__(self) -> int:
        return len(self._of)

    def rows(self, rows: Ints) -> TokenBatch:
        """Return the embeddings of some items, in the given order."""
        whole, first = self._of.whole(rows), self._place * self.width
        return TokenBatch(x_BTD=whole.x_BTD[:, :, first : first + self.width], token_of_BL=whole.token_of_BL)
