"""Load a model: find its declaration and its checkpoint, and fill the network with weights.

The constructor of ``LoadedModel`` resolves ``checkpoint`` to a folder and calls ``_load`` of the family, which reads
the files of the folder and builds the network with ``_build``. ``identity`` is what a cache is keyed by,
``description`` goes into the result record.

A model that is opened inside ``lazily`` loads when it is first needed. Its identity is that of its files, so what was
computed with it is found in a cache without loading it; ``recall`` takes the facts that the cache knows.

>>> from bend_hf.embedders import OneHotEmbedder
>>> OneHotEmbedder().identity["protocol"]
'bend-2024'
"""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias, TypeVar

from bend_hf import __version__
from bend_hf.embedders import _checkpoint_files, _weights
from bend_hf.embedders._adapter import adapter_files, merge_adapter
from bend_hf.embedders._checkpoint_files import mask_in_files
from bend_hf.embedders._device import check_tf32, resolved_dtype
from bend_hf.embedders._spec import DTYPES, OFFLOADS, Direction, ModelSpec, check_choice
from bend_hf.errors import BendError, ConfigError, ModelError, did_you_mean
from bend_hf.files import asset_folder, disk_error, json_sha256
from bend_hf.types import PROTOCOLS, DtypeChoice, Json, ModelDtype, Offload, ProtocolName
from bend_hf.user_code import code_of, weights_of

if TYPE_CHECKING:
    from torch import Tensor, nn

M = TypeVar("M", bound="nn.Module")
Fact: TypeAlias = str | int | bool | None
_DEPTHS: Final = ("num_hidden_layers", "n_layer", "n_layers")  # fields of configurations with the number of layers
_CHECKPOINT_IN_BEND: Final = ("model_path", "model_name")  # BEND bend/utils/embedders.py, load_model
_PACKAGE: Final = f"{__package__.partition('.')[0]}."
_DEVICE: Final = re.compile(r"cpu|mps|cuda(:\d+)?")
_opens_lazily: ContextVar[bool] = ContextVar("_opens_lazily", default=False)


@contextlib.contextmanager
def lazily() -> Iterator[None]:
    """Open models of this package without loading them; each loads when it is first needed.

    A model that runs a user's code loads at once, because only its embeddings say what it computes.
    """
    before = _opens_lazily.set(True)
    try:
        yield
    finally:
        _opens_lazily.reset(before)


def content_facts(identity: Mapping[str, str]) -> dict[str, str | None]:
    """Return the hashes of what a model was read from, by which records of one model are recognized.

    Args:
        identity: See ``LoadedModel.identity``; with the probe of ``_probe.identity_in`` for a user's code.

    Returns:
        ``weights_sha256``, None with random weights; ``configuration_sha256``, of configuration and tokenizer; and
        ``code_sha256``, None unless the model runs a user's code.
    """
    own = {name: value for name, value in identity.items() if name.startswith("user_") or name == "probe"}
    return {
        "weights_sha256": None if identity["weights"].startswith("random") else identity["weights"],
        "configuration_sha256": identity["configuration"],
        "code_sha256": json_sha256(dict(own)) if own else None,
    }


def _check_keywords(kind: type[LoadedModel], options: Mapping[str, object]) -> None:
    """Raise a TypeError if a class has no keyword of some name.

    Args:
        kind: A class of this package, whose constructors pass further keywords on to that of ``LoadedModel``.
        options: The given keywords.
    """
    constructors = [
        vars(base)["__init__"] for base in kind.__mro__ if issubclass(base, LoadedModel) and "__init__" in vars(base)
    ]
    taken = [list(inspect.signature(each).parameters.values()) for each in constructors]
    if any(one.kind == one.VAR_KEYWORD for one in taken[-1]):
        return  # that of LoadedModel says itself what it takes
    known = sorted({one.name for one in chain.from_iterable(taken) if one.kind != one.VAR_KEYWORD} - {"self"})
    for name, value in options.items():
        if name in known:
            continue
        if name in _CHECKPOINT_IN_BEND and kind.needs_checkpoint:
            raise TypeError(
                f"{kind.__name__} got the keyword {name}={value!r} of BEND, which is called checkpoint here; write "
                f"{kind.__name__}({value!r})"
            )
        raise TypeError(f"{kind.__name__} got an unknown keyword {name}={value!r}; {did_you_mean(name, known)}")


class LoadedModel(ABC):
    """A DNA language model with its weights loaded. ``Embedder`` adds sequences and embeddings.

    Args:
        checkpoint: Folder with the published files, Hub id, or registry key of this family; None: the checkpoint of
            ``spec``.
        spec: The declaration; None: the one that ``checkpoint`` names, if there is one.
        revision: Commit on the Hub; None: the declared one.
        protocol: ``bend-2024`` reproduces BEND's embeddings, ``bend-hf-1`` the authors' intention. They differ only
            where BEND's code has a quirk.
        layer: Which hidden layer; 0 is the input embeddings, -1 the last layer, or the one that the model declares.
            Some families also take names.
        dtype: Type of weights and arithmetic; ``auto``: bfloat16 on a GPU that has it, else float32. Embeddings are
            always float32.
        tf32: Compute float32 matrix products, convolutions and recurrent layers in TF32 on a CUDA device.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; None: the fastest that is available at first use.
        random_init: Keep architecture and tokenizer, but draw random weights; no weight file is needed.
        seed: Seed of ``random_init``.
        reverse_complement_average: Average the embedding of each nucleotide with that of the reverse complement.
        overlap_tokens: Tokens that neighboring chunks of a long sequence share; see ``_windows``. 0: no overlap.
        batch_tokens: Tokens in a batch, padding included; None: the fastest of several budgets, found on the first
            batches. Set it if two runs must agree to the last bit.
        compile: Run the model through ``torch.compile``.
        return_logits: As in BEND: ``embed`` returns language-model scores instead of embeddings, of the shape
            (1, tokens, vocabulary); see ``logits``.
        return_loss: As in BEND: ``embed`` returns the loss of each token instead of embeddings, of the shape
            (1, tokens); see ``loss``.
        offload: Where the blocks of a network stay that the device cannot hold, ``host`` or ``disk``; each is copied
            when it is needed. Only some families can do this.

    Attributes:
        model: The network, set by ``_load``. It moves to its device at first use.
        pad_id: Token id of padding, set by ``_load``.
        mask_id: Token id of the mask of a masked language model. ``_load`` sets it if neither ``vocab.txt`` nor
            ``tokenizer.json`` of the checkpoint names it. None: the model has no mask.
        folder: Folder with the files of the checkpoint.
        lacking: Keys of the model that the checkpoint lacks and may lack. Their parameters are nan.
    """

    needs_checkpoint: ClassVar[bool] = True
    pickles: ClassVar[tuple[str, ...]] = _checkpoint_files.PICKLES  # weight files of a repository without safetensors
    bfloat16_by_default: ClassVar[bool] = True  # False: the dtype auto stays float32, which the network needs
    can_offload: ClassVar[bool] = False  # whether the family takes ``offload``
    direction: Direction = "masked"  # causal: the loss of a token is read one token before it
    model: nn.Module | None
    pad_id: int
    mask_id: int | None
    lacking: tuple[str, ...]

    if not TYPE_CHECKING:  # type checkers compare the arguments with the constructor

        def __new__(cls, *args: object, **options: object) -> LoadedModel:
            """Refuse keywords that a class of this package does not have, those of BEND's classes among them."""
            if cls.__module__.startswith(_PACKAGE):
                _check_keywords(cls, options)
            return super().__new__(cls)

    def __init__(  # noqa: PLR0913  the keywords that users write, see EmbedderOptions
        self,
        checkpoint: str | Path | None = None,
        *,
        spec: ModelSpec | None = None,
        revision: str | None = None,
        protocol: ProtocolName = "bend-2024",
        layer: int | str = -1,
        dtype: DtypeChoice = "float32",
        tf32: bool = False,
        device: str | None = None,
        random_init: bool = False,
        seed: int = 0,
        reverse_complement_average: bool = False,
        overlap_tokens: int = 0,
        batch_tokens: int | None = None,
        compile: bool = False,
        return_logits: bool = False,
        return_loss: bool = False,
        offload: Offload = "none",
    ) -> None:
        check_choice("protocol", protocol, PROTOCOLS)
        check_choice("dtype", dtype, DTYPES)
        check_choice("offload", offload, OFFLOADS)
        if device is not None and not _DEVICE.fullmatch(device):
            raise ConfigError(f"unknown device {device!r}; expected cpu, cuda, cuda:1 (2, ...) or mps")
        if batch_tokens is not None and batch_tokens < 1:
            raise ConfigError(f"batch_tokens={batch_tokens} is too small; expected at least 1, or None")
        self.spec = spec or self._declared(checkpoint)
        self.checkpoint = self._checkpoint_of(checkpoint)
        self.revision = revision or (self.spec.revision if self.spec and self._is_declared() else None)
        self.protocol: ProtocolName = protocol
        shortens = self.needs_checkpoint and self.bfloat16_by_default  # without weights there is nothing to speed up
        self.dtype: ModelDtype = resolved_dtype(dtype, device if shortens else "cpu")
        self.tf32 = tf32
        if tf32:
            check_tf32(self.dtype, device)
        self.random_init = random_init
        self.seed = seed
        self.reverse_complement_average = reverse_complement_average
        self.overlap_tokens = overlap_tokens
        self.batch_tokens = batch_tokens
        self.compile = compile
        if return_logits and return_loss:
            raise ConfigError("return_logits and return_loss are both True; embed() returns one of them")
        self.return_logits, self.return_loss = return_logits, return_loss
        if offload != "none" and not self.can_offload:
            raise ConfigError(
                f"{type(self).__name__} has no blocks to offload, but offload is {offload!r}; leave it out"
            )
        self.offload: Offload = offload
        if compile and self.spec is not None and self.spec.source == "none":
            raise ConfigError(f"compile is True, but {self.spec.key} has no weights to compile; leave it out")
        self.folder = self._folder()
        self.layer: int = self._layer_number(layer)
        if self.layer != -1 and self.checkpoint is not None and (self.folder / "config.json").is_file():
            self._check_layer(_checkpoint_files.read_json(self.folder / "config.json"))
        self._device_name = device
        self._read_files: tuple[Path, ...] = ()  # set with the network
        self._recalled_description: Mapping[str, Fact] = {}
        self._recalled_alignment: dict[str, dict[str, Json]] = {}
        self._waits = True
        if self._runs_user_code or not _opens_lazily.get():
            self.load()

    @property
    def is_loaded(self) -> bool:
        """Whether tokenizer and network are loaded."""
        return not self._waits

    def load(self) -> None:
        """Load tokenizer and network, unless they are loaded.

        Raises:
            ModelError: They cannot be loaded, or the files changed after the identity was taken.
        """
        if not self._waits:
            return
        self._waits = False
        try:
            self.pad_id, self.mask_id, self.model, self.lacking = 0, None, None, ()
            if self.checkpoint is not None:
                _checkpoint_files.check_sizes(self.folder, with_weights=not self.random_init)
            with self._explained():
                self._load()
            config = getattr(self.model, "config", None)  # which has the fields that config.json leaves out
            self._check_layer(getattr(config, "__dict__", {}))
            if self.mask_id is None and self.checkpoint is not None:
                self.mask_id = mask_in_files(self.folder)
            taken = vars(self).get("_weights_sha256")
            if taken is not None and taken != _checkpoint_files.sha256_of(self.weight_files):
                raise ModelError(f"the weights in {self.folder} changed while they were opened; start again")
        except BaseException:
            self._waits = True
            raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what libraries raise for a configuration that they cannot build into an error that names its folder.

        Raises:
            ModelError: The block raised such an error. Errors of a user's code stay as they are.
        """
        try:
            yield
        except (BendError, OSError, ImportError):
            raise
        except Exception as error:
            if self.checkpoint is None or self._runs_user_code or disk_error(error) is not None:
                raise
            text = (str(error).strip() or "no reason is given").splitlines()[0]
            raise ModelError(
                f"{self.folder} does not hold a model that can be built ({type(error).__name__}: {text}); check its "
                "config.json and tokenizer files, or download the checkpoint again"
            ) from error

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            """Load the model when something that ``_load`` sets is asked for."""
            if name.startswith("__") or not vars(self).get("_waits", False):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            self.load()
            return getattr(self, name)

    @abstractmethod
    def _load(self) -> None:
        """Set ``self.model`` (with ``self._build``), ``self.pad_id``, ``self.mask_id`` and what ``_tokenize`` needs.

        ``self.folder`` holds the files of the checkpoint.
        """

    @property
    def name(self) -> str:
        """Class and checkpoint, for messages; the key of a model without one."""
        if not self.checkpoint and self.spec is not None:
            return self.spec.key
        return f"{type(self).__name__}({str(self.checkpoint or '')!r})"

    @property
    def width(self) -> int:
        """Embedding width D, from the configuration of the network."""
        known = self.network_width or (self.spec.width if self.spec is not None else None)
        if known is None:
            raise ModelError(f"{self.name} has no known width; its class must define the property width")
        return known

    @property
    def network_width(self) -> int | None:
        """Width of the network by its configuration; None if that does not say it."""
        config = getattr(self.model, "config", None)
        return next(
            (int(getattr(config, field)) for field in ("hidden_size", "d_model") if hasattr(config, field)), None
        )

    def _build(
        self,
        make: Callable[[], M],
        *,
        allow_missing: Sequence[str] = (),
        allow_unexpected: Sequence[str] = (),
        rename: _weights.Rename | None = None,
        nested: str | None = None,
    ) -> M:
        """Build the network with random weights or those of the checkpoint; see ``_weights.load_folder``.

        Args:
            make: Constructs the network, for example ``lambda: Model(config)``.
            allow_missing: Patterns of keys that the checkpoint may lack, such as heads and computed buffers.
            allow_unexpected: Patterns of keys that the network does not have, such as poolers and stored buffers.
            rename: Maps a key of the file to a key of the network.
            nested: Key of the state dict inside a ``.ckpt`` file.
        """
        if self.random_init:
            return _weights.use_named_outputs(_weights.build_random(make, self.seed))
        model = _weights.use_named_outputs(_weights.build_empty(make))
        loaded = _weights.load_folder(
            model,
            self.folder,
            allow_missing=allow_missing,
            allow_unexpected=allow_unexpected,
            rename=rename,
            read=partial(self._read_state, nested=nested),
        )
        self._read_files, self.lacking = loaded.files, loaded.lacking
        adapter = adapter_files(self.folder)
        if adapter:
            model = merge_adapter(model, self.folder)
            self._read_files += adapter
        return model

    def _read_state(self, paths: Sequence[Path], *, nested: str | None) -> dict[str, Tensor]:
        """Read the tensors of weight files. Override it if the network joins tensors of the files."""
        return _weights.read_files(paths, nested=nested)

    def _layer_number(self, layer: int | str) -> int:
        """Return the number of a layer. Override it if layers of the family have names.

        Raises:
            ConfigError: The layer is a name, and the family has none.
        """
        try:
            return int(layer)
        except ValueError:
            raise ConfigError(
                f"unknown layer {layer!r} of {self.name}; expected a whole number, -1 for the last layer"
            ) from None

    def _n_states(self, fields: Mapping[str, object]) -> int | None:
        """Return how many layers can be chosen, the input embeddings included; None if it shows when the model runs.

        Override it if the hidden states of the network are others than the input and the output of each layer.

        Args:
            fields: Those of ``config.json``, or of the configuration of the network. A field may be missing.
        """
        if self._runs_user_code:
            return None
        if self.checkpoint is None and self.model is None:
            return 1  # without a network there are only the embeddings
        found = next((fields[name] for name in _DEPTHS if name in fields), None)
        return found + 1 if isinstance(found, int) else None

    def _check_layer(self, fields: Mapping[str, object]) -> None:
        n_states = None if self.layer == -1 else self._n_states(fields)
        if n_states is not None and not -n_states <= self.layer < n_states:
            raise ConfigError(self._no_layer(n_states))

    def _no_layer(self, n_states: int, layer: int | None = None) -> str:
        """Say that a layer, by default that of the constructor, is not among the hidden states."""
        asked = self.layer if layer is None else layer
        return f"{self.name} has no layer {asked}; expected {-n_states} to {n_states - 1} (0: input embeddings)"

    # Checkpoint and identity.

    def _declared(self, checkpoint: str | Path | None) -> ModelSpec | None:
        declared: tuple[ModelSpec, ...] = getattr(sys.modules[type(self).__module__], "MODELS", ())
        declared = tuple(spec for spec in declared if spec.class_name == type(self).__name__)
        if checkpoint is None:
            return declared[0] if len(declared) == 1 else None
        return next((spec for spec in declared if str(checkpoint) in (*spec.names, spec.checkpoint)), None)

    def _checkpoint_of(self, checkpoint: str | Path | None) -> str | Path | None:
        if checkpoint is None or (self.spec and str(checkpoint) in self.spec.names and not Path(checkpoint).is_dir()):
            checkpoint = self.spec.checkpoint if self.spec else None
        if not checkpoint and self.needs_checkpoint:
            if self.spec is not None and self.spec.source == "unknown":
                raise ModelError(
                    f"the address of {self.spec.key!r} is not confirmed, so its checkpoint has no default; pass the "
                    f"folder or the Hub id as checkpoint (--checkpoint)"
                )
            raise ModelError(
                f"{type(self).__name__} needs a checkpoint; pass a folder, a Hub id or a key of the registry"
            )
        return checkpoint or None

    def _is_declared(self) -> bool:
        return self.spec is not None and self.checkpoint == self.spec.checkpoint

    def _folder(self) -> Path:
        if self.checkpoint is None:
            return Path()
        source = self.spec.source if self.spec is not None and self._is_declared() else "hub"
        if source == "package":
            return asset_folder("pretrained") / str(self.checkpoint)
        if self.spec is not None and source not in ("hub", "none"):
            return _checkpoint_files.fetch_files(self.spec, with_weights=not self.random_init)
        return _checkpoint_files.resolve_checkpoint(
            self.checkpoint, revision=self.revision, with_weights=not self.random_init, pickles=self.pickles
        )

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The files that the weights are read from, those of an adapter included; empty if there are none to read."""
        if self.is_loaded or self.random_init or self.checkpoint is None:
            return self._read_files
        return (*self._weight_files(), *adapter_files(self.folder))

    def _weight_files(self) -> list[Path]:
        """Find the weight files, without those of an adapter."""
        return _weights.find_weights(self.folder)

    @cached_property
    def _weights_sha256(self) -> str:
        return _checkpoint_files.sha256_of(self.weight_files)

    @property
    def identity(self) -> dict[str, str]:
        """Everything that determines the embeddings, for the key of a cache.

        Two embedders with the same identity compute the same embeddings. Files count by their content, not by their
        path. It is the same before and after the model is loaded.
        """
        weights = f"random, seed {self.seed}" if self.random_init else self._weights_sha256
        files = [] if self.checkpoint is None else _checkpoint_files.small_files(self.folder)
        own: dict[str, str] = {}
        if self._runs_user_code:
            own = {"user_source": code_of(type(self)), "user_weights": weights_of(self.model)}
        return {
            "class": f"{type(self).__module__}:{type(self).__qualname__}",
            "key": self.spec.key if self.spec else "",
            "declared": json_sha256([self.spec.context_tokens, dict(self.spec.options)]) if self.spec else "",
            "configuration": _checkpoint_files.sha256_of(files, with_names=True),
            "weights": weights,
            "protocol": self.protocol,
            "layer": str(self.layer),
            "dtype": self.dtype,
            "overlap_tokens": str(self.overlap_tokens),
            "reverse_complement_average": str(self.reverse_complement_average),
            "code": __version__,
            **self._approximations,
            **own,
        }

    @property
    def _approximations(self) -> dict[str, str]:
        """What was asked for that changes the last bits, or more of them; empty in a plain model."""
        return {name: "True" for name in ("tf32", "compile") if getattr(self, name)}

    @property
    def _runs_user_code(self) -> bool:
        """Whether the class is a user's, so that files of this package do not say what it computes."""
        return not type(self).__module__.startswith(_PACKAGE)

    @property
    def measured(self) -> dict[str, Fact]:
        """The facts in ``description`` that only the loaded model knows."""
        return {"width": self.width, "n_parameters": self.n_parameters}

    def recall(self, description: Mapping[str, Fact], alignment: Mapping[str, dict[str, Json]]) -> None:
        """Take facts about the model that a cache with its identity keeps, so that it need not load to state them.

        Args:
            description: ``measured`` of the loaded model.
            alignment: How its tokens become nucleotides, by checksum of the sequences; see ``alignment_summary``.
        """
        self._recalled_description = {**self._recalled_description, **description}
        self._recalled_alignment.update(alignment)

    def recalled_alignment(self, sequences_sha256: str) -> dict[str, Json] | None:
        """Return the alignment that a cache keeps for some sequences; None if the model is to be asked."""
        return None if self.is_loaded else self._recalled_alignment.get(sequences_sha256)

    def _facts(self) -> Mapping[str, Fact]:
        return self.measured if self.is_loaded or not self._recalled_description else self._recalled_description

    @property
    def description(self) -> dict[str, Fact]:
        """Model facts for a result record."""
        spec, facts = self.spec, self._facts()
        published = spec if self._is_declared() and not self.random_init else None  # whose weights were read
        return {
            "model": spec.key if spec else str(self.checkpoint),
            "family": spec.family if spec else type(self).__name__.removesuffix("Embedder"),
            "checkpoint": str(self.checkpoint or ""),
            "revision": self.revision,
            "width": facts["width"],
            "n_parameters": facts["n_parameters"],
            "context_tokens": spec.context_tokens if spec else None,
            "tokenization": spec.tokenization if spec else None,
            "direction": spec.direction if spec else self.direction,
            "training_data": published.training_data if published else None,
            "license": published.license if published else None,
            "paper": published.paper if published else None,
            "protocol": self.protocol,
            "layer": self.layer,
            "dtype": self.dtype,
            "random_init": self.random_init,
            "reverse_complement_average": self.reverse_complement_average,
            **dict.fromkeys(self._approximations, True),
            **content_facts(self.identity),
        }

    @property
    def n_parameters(self) -> int:
        """Number of weights of the loaded network; tied weights count once."""
        return 0 if self.model is None else sum(weight.numel() for weight in self.model.parameters())
