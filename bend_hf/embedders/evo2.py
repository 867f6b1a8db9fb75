"""Evo 2: a causal model of single nucleotides, trained on genomes of all domains of life, with up to a million tokens.

    embedder = load_embedder("evo2_7b", dtype="bfloat16")
    embeddings = embedder("ACGTNNACGT")                                   # (10, 4096), of blocks.28.mlp.l3
    embedder = load_embedder("evo2_7b", dtype="bfloat16", layer="blocks.26")

Tokens are bytes; nucleotides are upper-cased first, as for every model here. There are no special tokens. Longer
sequences than the model was trained on are cut into chunks. The authors advise an intermediate layer, which is
the default here; ``layer="norm"`` is the last. See ``networks.evo2_config`` for numbers and names of layers.

The weights are read from the published ``.pt`` files or from what ``bend-hf convert`` makes of them, one tensor at a
time and straight to the device.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.embedders._adapter import adapter_files
from bend_hf.embedders._alignment import Tokenized, assemble
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._device import available_device
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders._loaded_model import Fact
from bend_hf.embedders._spec import TINY_CONTEXT_TOKENS, Direction, ModelSpec, TinyCheckpoint
from bend_hf.embedders._tokens import Nucleotides, single_nucleotides
from bend_hf.embedders._weights import build_random, check_archive, find_weights, refuse_integers
from bend_hf.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bend_hf.embedders._tensor_files import TensorFiles
    from bend_hf.embedders.networks.evo2 import Evo2Model
    from bend_hf.embedders.networks.evo2_config import Evo2Config

logger = logging.getLogger(__name__)

PAD: Final = 1  # CharLevelTokenizer of vortex 1.1.0; the authors' wrapper pads on the right, without a mask
# The layers that the authors read: the README of ArcInstitute/evo2 for the 7B model, and its exon classifier for the
# base model, whose rotary positions are not divided. Other depths than 32 take the block at the same fraction.
_ADVISED: Final = "blocks.{}.mlp.l3", 28
_ADVISED_BASE: Final = "blocks.{}", 26
_ADVISED_OF: Final = 32
_WITHOUT_FP8: Final = 4096  # width of the 7B models, which give nearly the same in bfloat16 (their README)
# Entries of the published files that the original loader leaves out, too.
EXTRA_KEYS: Final = ("unembed.weight", "*._extra_state", "*.filter.t")
_FP8_SCALE: Final = ".fp8_scale"
_FP8_STATE: Final = re.compile(r"(blocks\.\d+\.projections)\._extra_state")

_ATTENTION: Final = (3, 10, 17, 24, 31)  # the yml files of evo2 0.6.0; those of the 40B models go on as below
_ATTENTION_40B: Final = (*_ATTENTION, 35, 42, 49)


def published_fields(key: str) -> dict[str, object]:
    """Return the configuration of a published model with the fields of its yml file in evo2 0.6.0."""
    size = "1b" if "1b" in key else "7b" if "7b" in key else "large"
    width, heads, groups = {"1b": (1920, 15, 128), "7b": (4096, 32, 256), "large": (8192, 64, 512)}[size]
    n_blocks = {"1b": 25, "7b": 32, "large": 24 if "20b" in key else 50}[size]
    inner = {
        "evo2_1b_base": 5120,
        "evo2_7b": 11264,
        "evo2_7b_base": 11008,
        "evo2_7b_262k": 11008,
        "evo2_20b": 22528,
        "evo2_40b": 22528,
        "evo2_40b_base": 21888,
    }[key]
    factor = 1 if "base" in key else 32 if "262k" in key else 128
    attention = [number for number in (_ATTENTION_40B if "40b" in key else _ATTENTION) if number < n_blocks]
    return {
        **_striped(n_blocks, attention),
        "hidden_size": width,
        "num_attention_heads": heads,
        "inner_mlp_size": inner,
        "hcm_filter_groups": groups,
        "hcs_filter_groups": groups,
        "state_size": 16,
        "rotary_emb_base": 1_000_000 if size == "large" else 10_000,
        "use_interpolated_rotary_pos_emb": factor > 1,
        "rotary_emb_scaling_factor": factor,
        "use_fp8_input_projections": True,
    }


def _striped(n_blocks: int, attention: Iterable[int]) -> dict[str, object]:
    """Return the four lists of blocks of a configuration."""
    from bend_hf.embedders.networks.evo2_config import striped

    kinds = np.array(striped(n_blocks, tuple(attention)))
    lists = {f"{kind}_layer_idxs": np.flatnonzero(kinds == kind).tolist() for kind in ("hcs", "hcm", "hcl", "attn")}
    return {"num_layers": n_blocks, **lists}


def _tiny() -> TinyCheckpoint:
    """One block of each kind and a second short convolution, with the context of other tiny checkpoints."""
    config = {
        "model_type": "evo2",
        "num_layers": 5,
        "hcs_layer_idxs": [0, 4],
        "hcm_layer_idxs": [1],
        "hcl_layer_idxs": [2],
        "attn_layer_idxs": [3],
        "hidden_size": 16,
        "num_attention_heads": 2,
        "inner_mlp_size": 32,
        "hcm_filter_groups": 4,
        "hcs_filter_groups": 4,
        "state_size": 16,
        "rotary_emb_base": 10_000,
        "use_fp8_input_projections": False,
        "max_seqlen": TINY_CONTEXT_TOKENS,
    }
    return TinyCheckpoint(config=config)


def _spec(key: str, *, n_parameters: int, width: int, context_tokens: int) -> ModelSpec:
    return ModelSpec(
        key=key,
        embedder="evo2:Evo2Embedder",
        family="Evo 2",
        checkpoint=f"arcinstitute/{key}",
        width=width,
        n_parameters=n_parameters,
        context_tokens=context_tokens,
        direction="causal",
        training_data="OpenGenome2: genomes of bacteria, archaea, eukaryotes (human among them) and phages",
        trained_on_human_genome=True,
        license="Apache-2.0",
        paper="https://www.biorxiv.org/content/10.1101/2025.02.18.638918",
        offloads=True,
        verified="golden" if "7b" in key else "config only",
        tiny=_tiny,
    )


# Parameters: the network with its tied head, counted from the configurations; tests/parity/test_parity_evo2.py compares
# the bytes with those of the published tensors. Context: the lengths of the authors' last training stage.
MODELS: Final = (
    _spec("evo2_1b_base", n_parameters=1_107_989_760, width=1920, context_tokens=8192),
    _spec("evo2_7b_base", n_parameters=6_481_059_584, width=4096, context_tokens=8192),
    _spec("evo2_7b_262k", n_parameters=6_481_059_584, width=4096, context_tokens=262_144),
    _spec("evo2_20b", n_parameters=19_738_780_160, width=8192, context_tokens=1_048_576),
    _spec("evo2_40b", n_parameters=41_117_574_144, width=8192, context_tokens=1_048_576),
    _spec("evo2_40b_base", n_parameters=40_331_142_144, width=8192, context_tokens=8192),
    _spec("evo2_7b", n_parameters=6_581_722_880, width=4096, context_tokens=1_048_576),
)


def evo2_weights(folder: Path) -> list[Path]:
    """Find the weights of a folder: safetensors, or the published ``.pt`` file or its parts, in order.

    Raises:
        ModelError: There are none, or several.
    """
    pickles = sorted(folder.glob("*.pt")) or sorted(folder.glob("*.pt.part*"))
    if any(folder.glob("*.safetensors*")) or not pickles:
        return find_weights(folder)
    parts = [path for path in pickles if path.suffix != ".pt"]
    names = {path.name.partition(".pt")[0] for path in pickles}
    if len(names) > 1:
        raise ModelError(f"{folder} holds the weights of {', '.join(sorted(names))}; expected those of one model")
    if parts and [path.suffix for path in parts] != [f".part{number}" for number in range(len(parts))]:
        raise ModelError(
            f"{folder} holds {', '.join(path.name for path in parts)}; expected all parts from .part0 on, download the "
            f"missing ones"
        )
    return pickles


class Evo2Embedder(Embedder):
    """Evo 2 from its published files, or from those of ``bend-hf convert``."""

    direction: Direction = "causal"
    head_keys = ()
    can_offload = True
    tunable = False
    shares_prefixes = True
    pickles = ("*.pt", "*.pt.part*")
    model: Evo2Model

    # Configuration and layers.

    def _fields(self) -> Mapping[str, object]:
        """Return the fields of the configuration; for published files, which may lack them, those of the entry."""
        path = self.folder / "config.json"
        fields: Mapping[str, object] = read_json(path) if path.is_file() else {}
        if "hcl_layer_idxs" in fields:
            return fields
        if self.spec is None or not (self._is_declared() or any(self.folder.glob(f"{self.spec.key}.pt*"))):
            raise ModelError(
                f"{path} has no 'hcl_layer_idxs'; expected the fields of the published yml files. Load the folder with "
                f"the key of a model, or convert it with 'bend-hf convert'"
            )
        return published_fields(self.spec.key)

    def _config(self) -> Evo2Config:
        from bend_hf.embedders.networks.evo2_config import config_from_json

        return config_from_json(self._fields())

    def _layer_number(self, layer: int | str) -> int:
        from bend_hf.embedders.networks.evo2_config import layer_name, layer_names

        config = self._config()
        n_blocks = len(config.kinds)
        if layer in (-1, "-1"):
            form, block = _ADVISED_BASE if config.rotary_factor == 1 else _ADVISED
            name = form.format(block * n_blocks // _ADVISED_OF)
        else:
            name = layer_name(layer, n_blocks)
        return layer_names(n_blocks).index(name)

    @property
    def layer_name(self) -> str:
        """Original name of the layer that embeddings are taken from."""
        from bend_hf.embedders.networks.evo2_config import layer_names

        return layer_names(len(self._config().kinds))[self.layer]

    @property
    def description(self) -> dict[str, Fact]:
        """Model facts for a result record, with the original name of the layer."""
        return {**super().description, "layer": self.layer_name}

    # Loading.

    def empty_network(self) -> Evo2Model:
        """Build the network without memory for its weights, in the dtypes that it runs in."""
        import torch

        from bend_hf.embedders.networks.evo2 import Evo2Model

        config = self._config()
        with torch.device("meta"):
            return Evo2Model(config).to(getattr(torch, self.dtype)).requires_grad_(False)

    def _load(self) -> None:
        from bend_hf.embedders.networks.evo2 import Evo2Model

        if self.compile:
            raise ConfigError(
                "compile=True has no effect on Evo 2, whose blocks change their states in place; leave it out"
            )
        logger.info("%s: embeddings are those of %s, as the original code names it", self.name, self.layer_name)
        config = self._config()
        length = self._fields().get("max_seqlen")
        limits = [one for one in (length, self.spec.context_tokens if self.spec else None) if isinstance(one, int)]
        self._context_tokens: int | None = min(limits, default=None)
        self.pad_id = PAD
        if adapter_files(self.folder):
            raise ModelError(f"{self.folder} holds an adapter, which Evo 2 does not apply; use a folder without one")
        if not self.random_init:
            paths = evo2_weights(self.folder)
            self.model = self._read(paths)
            self._read_files = tuple(paths)
            return
        if self.offload == "disk":
            raise ConfigError("offload is 'disk', but random weights are in no file; use offload='host'")
        self.model = build_random(lambda: Evo2Model(config), self.seed).requires_grad_(False)
        self._cast(self.model)
        self._quantize({})
        if self.offload == "host":
            states = [block.state_dict() for block in self.model.blocks]
            self._stream(states.__getitem__)

    def _weight_files(self) -> list[Path]:
        return evo2_weights(self.folder)

    def _read(self, paths: list[Path]) -> Evo2Model:
        """Read one tensor after the other to where it stays."""
        from bend_hf.embedders._tensor_files import open_tensors

        device = available_device(self._device_name)
        self.model = self.empty_network()
        own = self.model.state_dict()

        def read(tensors: TensorFiles, name: str) -> Tensor:
            return tensors.read(name).to(dtype=own[name].dtype)

        def read_block(number: int) -> dict[str, Tensor]:
            prefix = f"blocks.{number}."
            with open_tensors(paths) as tensors:
                return {name.removeprefix(prefix): read(tensors, name) for name in own if name.startswith(prefix)}

        with open_tensors(paths) as tensors:
            check_keys(tensors, own, paths[0])
            stays = [name for name in own if self.offload == "none" or not name.startswith("blocks.")]
            for name in stays:
                value = read(tensors, name).to(device)
                self.model.load_state_dict({name: value}, strict=False, assign=True)
            self._quantize({name: scale.to(device) for name, scale in fp8_scales(tensors).items()})
        if self.offload == "disk":
            self._stream(read_block)
        elif self.offload == "host":
            blocks = [read_block(number) for number in range(len(self.model.config.kinds))]
            self._stream(blocks.__getitem__)
        return self.model

    def _stream(self, load: Callable[[int], dict[str, Tensor]]) -> None:
        """Let the blocks come to the device one by one; ``load`` returns the weights of a block on the host."""
        from torch import nn

        from bend_hf.embedders._offload import StreamedBlocks

        device = available_device(self._device_name)
        self.model.source = StreamedBlocks(list(self.model.blocks.to("meta")), load, device, pin=self.offload == "host")
        self.model.blocks = nn.ModuleList()

    def _quantize(self, scales: Mapping[str, Tensor]) -> None:
        """Emulate FP8 projections if the model needs them, and say what that means."""
        config = self.model.config
        if not config.fp8 or config.hidden_size == _WITHOUT_FP8:
            return
        self.model.emulate_fp8(scales)
        logger.warning(
            "%s was trained with FP8 projections, which are emulated with %s; this was not compared with the original "
            "(verified: config only)",
            self.name,
            "stored scales" if scales else "scales of each token",
        )

    @property
    def n_parameters(self) -> int:
        """Number of weights, those of offloaded blocks included."""
        source = self.model.source
        return super().n_parameters + (0 if source is None else source.n_parameters)

    # Tokens and the network.

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        stream = single_nucleotides(Nucleotides.of(sequences), np.arange(256, dtype=np.int32))
        return assemble(stream, self._window(self._context_tokens))

    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        import torch

        from bend_hf.embedders.networks.evo2_config import layer_names

        names = layer_names(len(self.model.config.kinds))
        self._state_widths = (self.width,) * len(names)
        wanted = [names[one] for one in self.layers or (layer,)]
        found = self.model.run(ids_BT, tuple(dict.fromkeys(wanted))).layers
        return found[wanted[0]] if len(wanted) == 1 else torch.cat([found[name] for name in wanted], dim=-1)

    def _logits(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        return self._logits_at(ids_BT, mask_BT, None)

    def _logits_at(self, ids_BT: Tensor, mask_BT: Tensor | None, tokens_BQ: Tensor | None) -> Tensor:
        """Compute scores, with the head at the selected tokens only."""
        from bend_hf.embedders.networks.selected_tokens import take

        return self.model.scores(take(self.model.run(ids_BT, ("norm",)).layers["norm"], tokens_BQ))

    def _losses_behind(self, prefix_PF: Tensor, rest_NR: Tensor, prefix_of_N: Tensor) -> Tensor:
        """Compute losses behind shared prefixes: the states after all but the last token of a prefix are continued."""
        import torch
        from torch.nn.functional import cross_entropy

        n_before = prefix_PF.shape[1] - 1
        state = None
        if n_before:
            before = self.model.run(prefix_PF[:, :n_before], keep_state=True).state
            state = None if before is None else before.take(prefix_of_N)
        shown_NR = torch.cat([prefix_PF[prefix_of_N, n_before:], rest_NR[:, :-1]], dim=1)
        scores_NRV = self.model.scores(self.model.run(shown_NR, ("norm",), state=state).layers["norm"])
        return cross_entropy(scores_NRV.float().transpose(1, 2), rest_NR, reduction="none")


def fp8_scales(tensors: TensorFiles) -> dict[str, Tensor]:
    """Return the scales of input and weight of each FP8 projection, by name of the network's buffer.

    They are tensors in converted files. In published files they are slots 0 and 1 of ``scale_fwd`` in the state that
    Transformer Engine stores; states that hold objects other than tensors are not read.
    """
    import torch

    found = {name: tensors.read(name) for name in tensors.shapes if name.endswith(_FP8_SCALE)}
    for name, blob in tensors.blobs.items():
        projections = _FP8_STATE.fullmatch(name)
        if projections is None:
            continue
        try:
            check_archive(io.BytesIO(blob), Path(name))
            state = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
            found[f"{projections[1]}{_FP8_SCALE}"] = state["scale_fwd"][:2].float().clone()
        except Exception as error:  # torch raises many kinds of errors for what it does not read
            logger.info("%s is not read: %s", name, type(error).__name__)
            return {}
    return found


def check_keys(tensors: TensorFiles, own: Mapping[str, torch.Tensor], source: Path) -> None:
    """Check names, shapes and types of the tensors of a file against those of the network, and report extra ones.

    Raises:
        ModelError: A tensor is missing, has another shape, or holds integers.
    """
    missing = [name for name in own if name not in tensors.shapes]
    if missing:
        raise ModelError(
            f"{source} lacks {len(missing)} tensors of this Evo 2, the first is {missing[0]}; expected a complete "
            f"checkpoint of this model. Download it again, or name the model that it belongs to"
        )
    for name, value in own.items():
        if tensors.shapes[name] != tuple(value.shape):
            raise ModelError(
                f"{source}: {name} has the shape {tensors.shapes[name]}; expected {tuple(value.shape)} by its "
                f"configuration. Name the model that the file belongs to"
            )
    refuse_integers(
        {name: str(tensors.dtypes[name]) for name in own if not tensors.dtypes[name].is_floating_point}, source
    )
    extra = [name for name in (*tensors.shapes, *tensors.blobs) if name not in own and not name.endswith(_FP8_SCALE)]
    known = [name for name in extra if any(fnmatchcase(name, pattern) for pattern in EXTRA_KEYS)]
    unknown = [name for name in extra if name not in known]
    if known:
        logger.info("%s: left out %d entries that the original loader leaves out, too", source.name, len(known))
    if unknown:
        logger.warning(
            "%s: left out %d unknown entries, which this network does not have: %s",
            source.name,
            len(unknown),
            ", ".join(unknown[:8]),
        )
