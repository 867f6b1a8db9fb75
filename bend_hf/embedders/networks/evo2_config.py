"""Sizes of an Evo 2, and the names of its layers; ``networks.evo2`` is the network.

>>> layer_name("28.mlp", 32)
'blocks.28.mlp.l3'
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from bend_hf.embedders.networks._layers import sizes_from
from bend_hf.errors import ConfigError, ModelError

Kind: TypeAlias = Literal["hcs", "hcm", "hcl", "attn"]

# What every published configuration says, and this module assumes (the seven yml files of evo2 0.6.0).
_ASSUMED: Final[Mapping[str, object]] = {
    "column_split": True,
    "column_split_hyena": False,
    "evo2_style_activations": True,
    "final_norm": True,
    "hyena_flip_x1x2": False,
    "hyena_out_proj_bias": True,
    "interleave": True,
    "mha_out_proj_bias": True,
    "mlp_activation": "gelu",
    "proj_groups": 1,
    "qkv_proj_bias": False,
    "short_filter_bias": False,
    "tie_embeddings": True,
}


@dataclass(frozen=True, kw_only=True)
class Evo2Config:
    """Sizes of the network.

    Attributes:
        hidden_size: Width D of the residual stream.
        n_heads: Attention heads.
        inner_mlp_size: Inner width of the feed-forward layers.
        kinds: Kind of each block.
        hcm_groups: Different filters of a medium convolution; neighboring channels share one.
        hcs_groups: The same for a short convolution.
        hcm_taps: Length of the medium filters.
        hcs_taps: Length of the short filters.
        fir_taps: Length of the filters behind the projections.
        n_poles: Exponentials that a long filter is the sum of.
        vocab_size: Tokens are bytes, and the rest is unused.
        eps: Of the norms.
        rotary_base: Of the rotary frequencies. A checkpoint brings its own frequencies, rounded; this is for random
            weights.
        rotary_factor: Positions are divided by it.
        fp8: Whether the published model was trained with FP8 projections.
    """

    hidden_size: int
    n_heads: int
    inner_mlp_size: int
    kinds: tuple[Kind, ...]
    hcm_groups: int
    hcs_groups: int
    hcm_taps: int = 128
    hcs_taps: int = 7
    fir_taps: int = 3
    n_poles: int = 16
    vocab_size: int = 512
    eps: float = 1e-6
    rotary_base: float = 10_000
    rotary_factor: float = 1
    fp8: bool = True

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.n_heads


def config_from_json(fields: Mapping[str, object]) -> Evo2Config:
    """Make a configuration from a ``config.json`` with the fields of the published yml files.

    Raises:
        ModelError: A field is missing, or describes a network that this module does not compute.
    """
    lists = {kind: f"{kind}_layer_idxs" for kind in get_args(Kind)}
    needed = ("hidden_size", "num_layers", "num_attention_heads", "inner_mlp_size", *lists.values())
    groups = ("hcm_filter_groups", "hcs_filter_groups")
    sizes = sizes_from(fields, (*needed, *groups, "state_size"), name="the configuration of this Evo 2")
    for name, value in _ASSUMED.items():
        if fields.get(name, value) != value:
            raise ModelError(
                f"config.json says {name}={fields[name]!r}; expected {value!r}, as in all published models of Evo 2"
            )
    kind_of: dict[int, Kind] = {number: kind for kind in get_args(Kind) for number in sizes[lists[kind]]}
    if sorted(kind_of) != list(range(sizes["num_layers"])) or sum(len(sizes[one]) for one in lists.values()) != len(
        kind_of
    ):
        raise ModelError(
            f"config.json gives a kind to the blocks {sorted(kind_of)}; expected each of 0 to "
            f"{sizes['num_layers'] - 1} once in {', '.join(lists.values())}"
        )
    interpolated = bool(fields.get("use_interpolated_rotary_pos_emb", False))
    given: dict[str, Any] = {
        "hcm_taps": fields.get("hcm_filter_length"),
        "hcs_taps": fields.get("hcs_filter_length"),
        "fir_taps": fields.get("short_filter_length"),
        "vocab_size": fields.get("vocab_size"),
        "eps": fields.get("eps"),
        "rotary_base": fields.get("rotary_emb_base", 1_000_000),  # the default of the original code
        "rotary_factor": fields.get("rotary_emb_scaling_factor", 1) if interpolated else 1,
        "fp8": fields.get("use_fp8_input_projections"),
    }
    return Evo2Config(
        hidden_size=sizes["hidden_size"],
        n_heads=sizes["num_attention_heads"],
        inner_mlp_size=sizes["inner_mlp_size"],
        kinds=tuple(kind_of[number] for number in range(sizes["num_layers"])),
        hcm_groups=sizes["hcm_filter_groups"],
        hcs_groups=sizes["hcs_filter_groups"],
        n_poles=sizes["state_size"],
        **{name: value for name, value in given.items() if value is not None},
    )


def striped(n_blocks: int, attention: Sequence[int]) -> tuple[Kind, ...]:
    """List the kinds of blocks: the three convolutions in turn, from the start again behind each attention.

    >>> striped(6, (3,))
    ('hcs', 'hcm', 'hcl', 'attn', 'hcs', 'hcm')
    """
    convolutions: tuple[Kind, ...] = ("hcs", "hcm", "hcl")
    kinds: list[Kind] = []
    turn = 0
    for number in range(n_blocks):
        if number in attention:
            kinds.append("attn")
            turn = 0
        else:
            kinds.append(convolutions[turn % 3])
            turn += 1
    return tuple(kinds)


_LAYER: Final = re.compile(r"(?:blocks\.)?(\d+)(\.mlp(?:\.l3)?)?")


def layer_name(layer: int | str, n_blocks: int) -> str:
    """Return the original name of a layer.

    A number counts as for every model: 0 is the input embeddings, n the state after n blocks, -1 the final norm. So
    28 is ``blocks.27``, the block with that number in the original code, which counts from 0. ``28.mlp`` is short
    for ``blocks.28.mlp.l3``.

    >>> [layer_name(layer, 32) for layer in (0, 27, -1, "blocks.26", "28.mlp")]
    ['embedding_layer', 'blocks.26', 'norm', 'blocks.26', 'blocks.28.mlp.l3']

    Args:
        layer: Number or name.
        n_blocks: Blocks of the network.

    Raises:
        ConfigError: There is no such layer.
    """
    names = layer_names(n_blocks)[: n_blocks + 2]
    if isinstance(layer, str) and re.fullmatch(r"-?\d+", layer):
        layer = int(layer)
    if isinstance(layer, int):
        if -len(names) <= layer < len(names):
            return names[layer]
    elif layer in names:
        return layer
    elif (found := _LAYER.fullmatch(layer)) and int(found[1]) < n_blocks and (found[2] or layer.startswith("blocks")):
        return f"blocks.{int(found[1])}.mlp.l3" if found[2] else f"blocks.{int(found[1])}"
    raise ConfigError(
        f"there is no layer {layer!r} in this Evo 2 of {n_blocks} blocks; expected {-len(names)} to {len(names) - 1} "
        f"(0: input embeddings), 'blocks.0' to 'blocks.{n_blocks - 1}', '0.mlp' to '{n_blocks - 1}.mlp', or 'norm'"
    )


def layer_names(n_blocks: int) -> tuple[str, ...]:
    """List the original names of all layers: those that ``layer_name`` numbers, then the feed-forward outputs.

    >>> layer_names(2)
    ('embedding_layer', 'blocks.0', 'blocks.1', 'norm', 'blocks.0.mlp.l3', 'blocks.1.mlp.l3')
    """
    blocks = [f"blocks.{number}" for number in range(n_blocks)]
    return ("embedding_layer", *blocks, "norm", *(f"{block}.mlp.l3" for block in blocks))


def block_of(name: str) -> int | None:
    """Return the number of the block that a layer's original name belongs to.

    >>> block_of("blocks.28.mlp.l3"), block_of("norm")
    (28, None)
    """
    found = _LAYER.fullmatch(name)
    return int(found[1]) if found else None
