"""Embed with any base model of transformers, given by its Hub id or folder.

For models without a family in this package. Tokens are aligned by the offsets of a fast tokenizer, or by the texts of
the tokens. Remote code is not run.

When a model is opened, its tokenizer and its network are tried on short fixed inputs (``_dna_tokenizer``,
``_behavior``). What is found decides how it is batched and cut, and stands in ``description``. A model whose embeddings
do not depend on the sequence alone is refused.

>>> AutoEmbedder("no-such-owner/")
Traceback (most recent call last):
bend_hf.errors.ModelError: there is no checkpoint folder no-such-owner; pass a folder ...
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.embedders._adapter import adapter_files, merge_adapter, without_adapter
from bend_hf.embedders._alignment import Tokenized, assemble
from bend_hf.embedders._behavior import Behavior, measure
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._dna_tokenizer import DnaTokenizer, largest_id, load_tokenizer
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders._loaded_model import Fact
from bend_hf.embedders._weights import (
    build_random,
    check_weight_file,
    find_weights,
    log_heads,
    other_heads,
    refuse_integers,
    stored_names,
    stored_shapes,
)
from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

logger = logging.getLogger(__name__)

# Keys that many checkpoints lack and embeddings do not use.
_UNUSED: Final = (
    "pooler.",
    "contact_head.",
    "position_ids",
)  # position_ids: the counter that transformers 3 and 4 saved
# Buffers that transformers 3 and 4 saved with the weights, and that the networks of transformers 5 compute.
_BUFFERS: Final = re.compile(r"(^|.*\.)(position_ids|token_type_ids|masked_bias|inv_freq)")
_CAUSAL_MASK: Final = re.compile(r".*\.(attn|attention)\.bias")  # of shape (1, 1, positions, positions)
# Model types whose positions start at pad_id + 1, so that n positions take n - pad_id - 1 tokens: transformers,
# create_position_ids_from_input_ids. The measured table may be smaller still.
_SHIFTED_POSITIONS: Final = frozenset({"camembert", "esm", "longformer", "roberta", "xlm-roberta"})
_PORTABLE_ATTENTION: Final = ("eager", "sdpa")  # they need no further package
_CONTEXT_FIELDS: Final = ("max_position_embeddings", "max_seq_len")  # the second is MPT's
# The inputs that the network is measured on. Layers that work in chunks behave differently on longer inputs, so the
# long input has more than two chunks, up to a limit that keeps the measurement short.
_MEASURED_TOKENS: Final = 48
_MOST_MEASURED_TOKENS: Final = 512
_CHUNK_FIELDS: Final = ("chunk", "window", "stride")


class AutoEmbedder(Embedder):
    """A model that ``transformers.AutoModel`` loads without remote code.

    Raises:
        ModelError: The model cannot be loaded completely, or its tokenizer does not read DNA.
        AlignmentError: The tokens cannot be aligned with a sequence.
    """

    model: PreTrainedModel

    def _load(self) -> None:
        from transformers import AutoConfig

        self._refuse_code()
        try:
            config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
        except (ValueError, KeyError, OSError, ImportError) as error:
            raise ModelError(self._cannot(f"transformers does not load it: {error}")) from error
        try:
            tokenizer = load_tokenizer(self.folder)
        except Exception as error:  # transformers raises many kinds of errors
            raise ModelError(self._cannot(f"transformers does not load its tokenizer: {error}")) from error
        _use_named_outputs(config)
        if getattr(config, "is_encoder_decoder", False):
            raise ModelError(
                self._cannot("it is an encoder-decoder model, which does not have one embedding per token")
            )
        self._tokenizer = DnaTokenizer(tokenizer, name=self.name, cannot=self._cannot)
        self.pad_id = tokenizer.pad_token_id or 0
        self.mask_id = tokenizer.mask_token_id
        self._context_tokens = self._stated_context(config)
        self.model = self._network(config).eval()
        self._takes_mask = "attention_mask" in inspect.signature(self.model.base_model.forward).parameters
        # Block-sparse attention pads inputs to whole blocks, for inputs longer than those that are measured.
        self._sparse = getattr(config, "attention_type", None) == "block_sparse"
        self._measure(config)

    @property
    def width(self) -> int:
        """Embedding width D, as measured."""
        return self._width

    @property
    def description(self) -> dict[str, Fact]:
        """Model facts for a result record, with what was found when the model was loaded."""
        return {**super().description, **self._facts()}

    @property
    def measured(self) -> dict[str, Fact]:
        """The facts in ``description`` that only the loaded model knows."""
        return {
            **super().measured,
            "context_tokens": self._context_tokens,
            "direction": self.direction,
            "padding_changes_embeddings": self.equal_lengths,
            "tokenizer_has_n": not self._tokenizer.drops_n,
            "tokenizer_adds_blank": self._tokenizer.has_blank,
        }

    def _n_states(self, fields: Mapping[str, object]) -> int | None:
        return None  # architectures differ; loading runs the network, which shows it

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        stream = self._tokenizer.stream(sequences)
        window = self._window(self._context_tokens, prefix=self._tokenizer.prefix, suffix=self._tokenizer.suffix)
        return assemble(stream, window)

    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        self._choose_attention(ids_BT.shape[1])
        mask = {"attention_mask": mask_BT} if self._takes_mask else {}
        return self._pick(self.model.base_model(ids_BT, **mask, output_hidden_states=layer != -1), layer)

    def _logits(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        if not self._has_head:
            return super()._logits(ids_BT, mask_BT)
        self._choose_attention(ids_BT.shape[1])
        mask = {"attention_mask": mask_BT} if self._takes_mask else {}
        logits: Tensor = self.model(ids_BT, **mask).logits
        return logits

    def _choose_attention(self, n_tokens: int) -> None:
        """Set sparse or full attention by the length of the input.

        BigBird of transformers switches to full attention at the first short input, and stays there. Here the length
        of each input decides, by the same rule (``BigBirdModel.forward``).
        """
        if not self._sparse:
            return
        import torch

        config = self.model.config
        short = n_tokens <= (5 + 2 * config.num_random_blocks) * config.block_size
        with torch.device("meta"):  # the modules that are made take over all weights of the old ones
            self.model.base_model.set_attention_type("original_full" if short else "block_sparse")

    def _stated_context(self, config: PretrainedConfig) -> int | None:
        limits = [self._tokenizer.limit_tokens]
        for field in _CONTEXT_FIELDS:
            positions = getattr(config, field, None)
            if isinstance(positions, int) and positions > 0:
                shifted = config.model_type in _SHIFTED_POSITIONS
                limits.append(positions - self.pad_id - 1 if shifted else positions)
        return min((limit for limit in limits if limit is not None), default=None)

    def _measure(self, config: PretrainedConfig) -> None:
        """Find out what padding, direction, width and positions of the network are, and check its vocabulary."""
        drawn = np.random.default_rng(1).choice(list("ACGT"), (16, 1000))
        stream = self._tokenizer.stream(["".join(row) for row in drawn])
        n_rows = self.model.get_input_embeddings().num_embeddings if self._has_table() else None
        largest = largest_id(stream, (*self._tokenizer.prefix, *self._tokenizer.suffix, self._tokenizer.stand_in))
        if n_rows is not None and largest >= n_rows:
            raise ModelError(
                self._cannot(
                    f"its tokenizer gives the token id {largest}, but its network has {n_rows} tokens; the files do "
                    f"not belong together"
                )
            )
        found = self._measured(stream.ids.tolist(), _measured_tokens(config, self._context_tokens))
        if found.n_positions is not None and found.n_positions < (self._context_tokens or found.n_positions + 1):
            self._context_tokens = found.n_positions
        if found.direction is not None:
            self.direction = found.direction
        self.equal_lengths = self._sparse or not self._takes_mask or not found.padding_is_safe
        if not found.padding_is_safe:
            logger.info("%s: padding changes its embeddings, so a batch holds sequences of equal length", self.name)
        self._width = found.width if self.layer == -1 else self._width_of_layer(stream.ids.tolist()[:4])

    def _measured(self, content: list[int], n_tokens: int) -> Behavior:
        import torch

        prefix, suffix = self._tokenizer.prefix, self._tokenizer.suffix
        n_long = max(n_tokens - len(prefix) - len(suffix), 1)
        n_short = max(n_long * 3 // 5, 1)
        try:
            with torch.random.fork_rng(devices=[]):
                return measure(
                    lambda ids_BT, mask_BT: self._hidden(ids_BT, mask_BT, -1),
                    long_ids=[*prefix, *content[:n_long], *suffix],
                    short_ids=[*prefix, *content[-n_short:], *suffix],
                    pad_id=self.pad_id,
                    name=self.name,
                )
        except (IndexError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            if n_long > 2:  # a shorter context than the files state
                return self._measured(content, n_tokens // 2)
            reason = str(error).splitlines()[0] if str(error) else "no reason given"
            raise ModelError(
                self._cannot(f"it does not run on {n_tokens} tokens of DNA: {type(error).__name__}: {reason}")
            ) from error

    def _width_of_layer(self, content: list[int]) -> int:
        import torch

        ids = torch.tensor([[*self._tokenizer.prefix, *content, *self._tokenizer.suffix]])
        with torch.no_grad():
            return int(self._hidden(ids, None, self.layer).shape[-1])

    def _network(self, config: PretrainedConfig) -> PreTrainedModel:
        """Build the network, with its language-model head if the checkpoint has one."""
        from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

        saved_as = (getattr(config, "architectures", None) or [""])[0]
        maker = None
        if saved_as.endswith(("ForMaskedLM", "ForPreTraining")):
            maker = AutoModelForMaskedLM
        elif saved_as.endswith(("ForCausalLM", "LMHeadModel")):
            maker, self.direction = AutoModelForCausalLM, "causal"
        if maker is not None and type(config) not in maker._model_mapping:
            maker = None
        self._has_head = maker is not None
        if self.random_init:
            return build_random(lambda: (maker or AutoModel).from_config(config), self.seed)
        self._read_files = (*self._weight_files(), *adapter_files(self.folder))
        for path in self._read_files:
            check_weight_file(path)
        if maker is not None:
            network, missing = self._loaded(maker, config)
            prefix = f"{network.base_model_prefix}."
            if not missing or any(key.startswith(prefix) for key in missing):
                return self._whole(network, missing)
            logger.info("%s: its checkpoint has no language-model head (%s)", self.name, missing[0])
            self._has_head = False
        return self._whole(*self._base_network(config, saved_as))

    def _base_network(self, config: PretrainedConfig, saved_as: str) -> tuple[PreTrainedModel, list[str]]:
        """Load the network without a head; return it and the keys that the files lack."""
        from transformers import AutoModel

        try:
            network, missing = self._loaded(AutoModel, config)
            if missing:
                self._refuse_weights(network, missing, [], [])
        except ModelError:
            own = _class_named(saved_as, config)
            if own is None:
                raise
            # A class with a head may keep its base model under a name of its own.
            return self._loaded(own, config)
        return network, missing

    def _loaded(
        self, maker: type[_BaseAutoModelClass] | type[PreTrainedModel], config: PretrainedConfig
    ) -> tuple[PreTrainedModel, list[str]]:
        """Load the weights; return the network and the keys that the files lack.

        Raises:
            ModelError: transformers cannot load them, a shape differs, or the base model has no place for a key.
        """
        import torch

        try:
            with without_adapter(self.folder) as folder:
                network, info = maker.from_pretrained(
                    folder,
                    config=config,
                    dtype=torch.float32,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
        except Exception as error:  # transformers raises many kinds of errors
            raise ModelError(
                self._cannot(f"{type(error).__name__}: {(str(error) or 'no reason given').splitlines()[0]}")
            ) from error
        missing = sorted(key for key in info["missing_keys"] if not any(part in key for part in _UNUSED))
        unexpected = sorted(key for key in info["unexpected_keys"] if not any(part in key for part in _UNUSED))
        if unexpected:
            in_files = set(stored_names(self._weight_files()))
            unexpected = self._without_buffers(sorted(_as_in_file(key, in_files) for key in unexpected))
            heads = other_heads(unexpected, in_files, prefix=network.base_model_prefix)
            log_heads(heads, self.folder)
            unexpected = [key for key in unexpected if key not in heads]
        mismatched = sorted(map(str, info["mismatched_keys"]))
        if unexpected or mismatched:
            self._refuse_weights(network, missing, unexpected, mismatched)
        return network, missing

    def _whole(self, network: PreTrainedModel, missing: list[str]) -> PreTrainedModel:
        """Check that nothing is missing or quantized, and merge an adapter that lies next to the weights."""
        if missing:
            self._refuse_weights(network, missing, [], [])
        dtypes = self._dtypes_in_files()
        floating = [key for key, value in network.state_dict().items() if value.is_floating_point()]
        refuse_integers(
            {name: dtypes[name] for key in floating if (name := _as_in_file(key, set(dtypes))) in dtypes}, self.folder
        )
        if not adapter_files(self.folder):
            return network
        return merge_adapter(network, self.folder, uses_head=self._has_head)

    def _without_buffers(self, keys: list[str]) -> list[str]:
        """Leave out the keys of buffers that older versions of transformers saved with the weights."""
        kept = [key for key in keys if not _BUFFERS.fullmatch(key)]
        masks = [key for key in kept if _CAUSAL_MASK.fullmatch(key)]
        if not masks:
            return kept
        shapes = stored_shapes(self._weight_files(), masks)
        squares = {key for key, shape in shapes.items() if len(shape) == 4 and shape == (1, 1, shape[2], shape[2])}
        return [key for key in kept if key not in squares]

    def _dtypes_in_files(self) -> dict[str, str]:
        """Return the dtype of each tensor of the files that holds no floating-point numbers."""
        import torch

        dtypes: dict[str, str] = {}
        for path in self._weight_files():
            if path.suffix == ".safetensors":
                from safetensors import safe_open

                with safe_open(path, framework="pt") as file:
                    dtypes |= {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118  no mapping
            else:
                loaded = torch.load(path, map_location="meta", weights_only=True)
                dtypes |= {key: "F" if value.is_floating_point() else str(value.dtype) for key, value in loaded.items()}
        return {key: dtype.removeprefix("torch.") for key, dtype in dtypes.items() if not dtype.startswith(("F", "BF"))}

    def _refuse_weights(
        self, network: PreTrainedModel, missing: list[str], unexpected: list[str], mismatched: list[str]
    ) -> None:
        raise ModelError(
            self._cannot(
                f"its weights do not fit {type(network).__name__}: missing {missing[:5]}, unexpected {unexpected[:5]}, "
                f"with another shape {mismatched[:5]}"
            )
        )

    def _weight_files(self) -> list[Path]:
        """Find the weight files as transformers does: ``transformers_weights`` of ``config.json`` names them first."""
        named = read_json(self.folder / "config.json").get("transformers_weights")
        return find_weights(self.folder, first=named if isinstance(named, str) else None)

    def _has_table(self) -> bool:
        """Whether the network looks token ids up in one table of embeddings."""
        try:
            return hasattr(self.model.get_input_embeddings(), "num_embeddings")
        except NotImplementedError:
            return False

    def _refuse_code(self) -> None:
        """Raise if the architecture comes as remote code that transformers itself does not have."""
        from transformers import CONFIG_MAPPING

        config = read_json(self.folder / "config.json")
        if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
            raise ModelError(
                self._cannot(
                    f"its architecture {config.get('model_type')!r} comes as remote code, which is not run; "
                    f"'bend-hf models' lists the models of this package"
                )
            )

    def _cannot(self, reason: str) -> str:
        return f"cannot load {str(self.checkpoint)!r} as a transformers model: {reason}"


def _class_named(name: str, config: PretrainedConfig) -> type[PreTrainedModel] | None:
    """Return the class of transformers with a name, if it has a base model and reads this configuration."""
    import transformers

    found = getattr(transformers, name, None) if name.isidentifier() else None
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        return None
    own: type[PreTrainedModel] = found
    return own if own.base_model_prefix and own.config_class is type(config) else None


def _use_named_outputs(config: PretrainedConfig) -> None:
    """Undo what a published configuration says about the code that trained it: tuples as outputs, kernels for GPUs."""
    config.return_dict = True
    config.output_attentions = config.output_hidden_states = False  # hidden states are asked for where they are needed
    if config._attn_implementation not in _PORTABLE_ATTENTION:
        config._attn_implementation = None  # transformers chooses


def _measured_tokens(config: PretrainedConfig, context_tokens: int | None) -> int:
    """Choose the length of the long input: more than two of the chunks in which the layers work."""
    lengths = [_MEASURED_TOKENS]
    fields = config.to_dict()
    for name, value in fields.items():
        if any(part in name for part in _CHUNK_FIELDS):
            sizes = value if isinstance(value, list) else [value]
            lengths += [size * 5 // 2 for size in sizes if type(size) is int and 0 < size <= _MOST_MEASURED_TOKENS]
    block = fields.get("block_size")
    if type(block) is int and block > 0:
        lengths.append((5 + 2 * int(fields.get("num_random_blocks") or 0)) * block + block + 1)
    longest = max(length for length in lengths if length <= _MOST_MEASURED_TOKENS)
    return min(longest, context_tokens or longest)


def _as_in_file(key: str, in_files: set[str]) -> str:
    """Find the name that a key has in the weight files."""
    if key in in_files:
        return key
    return next((name for name in sorted(in_files) if name.endswith(f".{key}") or key.endswith(f".{name}")), key)
