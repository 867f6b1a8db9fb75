"""Open the embedder that a configuration names.

Used by every command that opens a model, so that the same flags give the same numbers.

>>> open_model(ModelFlags(model="onehot")).width, open_model(ModelFlags()).width  # the default is bend-mini
(5, 296)
"""

from __future__ import annotations

from contextlib import nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast

from bend_hf.config import ModelFlags, RunConfig
from bend_hf.embedders._device import computes_in_bfloat16
from bend_hf.types import DtypeChoice

if TYPE_CHECKING:
    from bend_hf.embedders._embedder import Embedder
    from bend_hf.embedders._spec import EmbedderOptions


_DEFAULTS: Final = MappingProxyType(
    {
        "revision": None,
        "layer": -1,
        "dtype": "float32",
        "tf32": False,
        "reverse_complement_average": False,
        "device": None,
        "batch_tokens": None,
        "compile": False,
        "offload": "none",
        "overlap_tokens": 0,
    }
)


def embedder_options(config: ModelFlags) -> EmbedderOptions:
    """Return the keywords that differ from the defaults of embedders; a user's model takes no others."""
    values = {name: _dtype_of(config) if name == "dtype" else getattr(config, name) for name in _DEFAULTS}
    given = {name: value for name, value in values.items() if value != _DEFAULTS[name]}
    random = {"random_init": True, "seed": config.seed} if config.random_init else {}
    return cast("EmbedderOptions", {"protocol": config.protocol, **given, **random})


def _dtype_of(config: ModelFlags) -> DtypeChoice:
    """Return the dtype to open a model with: ``auto`` only if it means something else than float32 here.

    A model whose weights are trained too has float32 weights: a step of the optimizer is lost in the few bits of a
    bfloat16 weight.
    """
    if config.model_dtype != "auto":
        return config.model_dtype
    trains = isinstance(config, RunConfig) and config.tune != "head"
    return "float32" if trains or not computes_in_bfloat16(config.device) else "auto"


def open_model(config: ModelFlags, *, lazy: bool = False) -> Embedder:
    """Load the embedder that a configuration names.

    Args:
        config: The configuration.
        lazy: Load a model of this package when it is first needed, which it is not if everything is cached.

    Raises:
        RegistryError: The model is unknown; the message names the nearest one.
        ModelError: The model cannot be loaded.
    """
    from bend_hf.embedders import load_embedder
    from bend_hf.embedders._loaded_model import lazily

    with lazily() if lazy else nullcontext():
        return load_embedder(config.model, checkpoint=config.checkpoint, **embedder_options(config))
