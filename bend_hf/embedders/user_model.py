"""Use a model of the user's as an embedder: an object with ``embed``, a function, or a file that holds one.

``embed`` takes a list of sequences and returns one array or tensor per sequence, with one row per nucleotide. A model
that pools returns one vector per sequence; it fits tasks with one set of labels per sequence. Torch modules are put in
evaluation mode and run without gradients.


>>> class Purines:
...     def embed(self, sequences):
...         return [np.array([[nucleotide in "AG"] for nucleotide in sequence]) for sequence in sequences]
>>> UserEmbedder(Purines())("ACGT")[:, 0].tolist()
[1.0, 0.0, 1.0, 0.0]
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set, Sized
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, Unpack, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bend_hf.embedders._alignment import Tokenized
from bend_hf.embedders._batching import BatchFunction
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders._loaded_model import Fact
from bend_hf.embedders._spec import EmbedderOptions, TokenEmbeddings
from bend_hf.embedders._tokens import checked_sequences
from bend_hf.errors import AlignmentError, ConfigError, ModelError, RegistryError
from bend_hf.files import json_sha256
from bend_hf.types import Floats
from bend_hf.user_code import code_of, content_of_path, files_read, load_file, state_of, weights_of

if TYPE_CHECKING:
    from torch import Tensor

_PROBE: Final = "ACGT" * 128  # 512 bp, as in BEND's shortest task
_SEQUENCES_PER_CALL: Final = 64
_SHOWN_BP: Final = 20  # of a sequence in a message
_MOST_EXACT: Final = 1 << 24  # float32 has 24 bits of mantissa
EmbedFunction: TypeAlias = Callable[[list[str]], Sequence[ArrayLike]]


@runtime_checkable
class UserModel(Protocol):
    """What a user's model provides."""

    def embed(self, sequences: list[str]) -> Sequence[ArrayLike]:
        """Embed upper-case sequences.

        Returns:
            One array or tensor per sequence, shape (nucleotides, width), or (width,) from a model that pools. The
            width is always the same.
        """
        ...


class UserEmbedder(Embedder):
    """An embedder around a user's model. It checks that every nucleotide has one embedding.

    Args:
        model: An object with ``embed``, or a function like it.
        name: Name of the model in results.
        checkpoint: What the model was made from; a file or a folder counts by its content.
        read: The files that were read when the model was made, which count by their content.
        options: Only ``protocol`` and ``reverse_complement_average`` apply to a user's model.
    """

    needs_checkpoint = False
    has_tokens = False
    direction = "none"

    def __init__(
        self,
        model: UserModel | EmbedFunction,
        *,
        name: str | None = None,
        checkpoint: str | Path | None = None,
        read: Iterable[Path] = (),
        **options: Unpack[EmbedderOptions],
    ) -> None:
        given = set(options) - ({"dtype"} if options.get("dtype") == "auto" else set())  # which is the model's own
        unused = sorted(given - {"spec", "protocol", "reverse_complement_average"})
        if unused:
            raise ConfigError(f"options {', '.join(unused)} do not apply to a user's model; leave them out")
        _evaluate(model)
        self._embed: EmbedFunction = model.embed if isinstance(model, UserModel) else model
        self._name: str = name or str(getattr(model, "__name__", type(model).__name__))
        self._made_from = "" if checkpoint is None else content_of_path(checkpoint)
        self._read = json_sha256([*sorted({content_of_path(path) for path in read})])
        self._state = state_of(model)  # before the first call, because a model may keep what it computed
        self._held = model
        self._width: int | None = None
        super().__init__(None, **options)

    @property
    def name(self) -> str:
        """Name of the model in messages and results."""
        return self._name

    @property
    def width(self) -> int:
        """Embedding width D; the model embeds a short sequence to find it before first use."""
        return self._embeddings([_PROBE])[0].shape[1] if self._width is None else self._width

    @property
    def identity(self) -> dict[str, str]:
        """Checksums of the model's code, checkpoint, settings and weights, next to its name.

        What they leave out shows in its embeddings of the probes; see ``_probe``.
        """
        return {
            **super().identity,
            "own_model": self._name,
            "user_source": code_of(self._held),
            "user_checkpoint": self._made_from,
            "user_files": self._read,
            "user_state": self._state,
            "user_weights": weights_of(self._held),
        }

    @property
    def description(self) -> dict[str, Fact]:
        """Model facts for a result record."""
        return {**super().description, "model": self._name, "family": "own"}

    @property
    def finite_remedy(self) -> str:
        """What to do if the model gives nan or infinity."""
        return "correct the model, or let it compute in float32"

    @property
    def _runs_user_code(self) -> bool:
        return True

    def _load(self) -> None:
        """Load nothing; the user's model is ready."""

    def _groups(self, sequences: Iterable[str]) -> Iterator[list[str]]:
        prepared = (self._normalize(sequence) for sequence in checked_sequences(sequences))
        while group := list(islice(prepared, _SEQUENCES_PER_CALL)):
            yield group

    def _outputs(
        self, sequences: list[str], function: BatchFunction, *, specials: bool, per_nucleotide: bool
    ) -> Iterator[TokenEmbeddings]:
        for sequence, x_RD in zip(sequences, self._embeddings(sequences), strict=True):
            one_bp = np.ones(len(x_RD), dtype=np.int64)
            bp = np.array([len(sequence)], dtype=np.int64) if self.pooled else one_bp
            yield TokenEmbeddings(values=x_RD, embedding_bp=bp)

    def _embeddings(self, sequences: list[str]) -> list[Floats]:
        with _without_gradients():
            returned = self._embed(sequences)
        n_returned = _length(returned)
        if n_returned is None:
            raise ModelError(
                f"{self.name} returned {_kind(returned)} for {len(sequences)} sequences, the first of them "
                f"{_named(sequences[0])}; expected a list with one array per sequence"
            )
        if n_returned != len(sequences):
            raise AlignmentError(
                f"{self.name} returned {n_returned} arrays for {len(sequences)} sequences; "
                f"expected one array per sequence"
            )
        return [self._checked(one, sequence) for one, sequence in zip(returned, sequences, strict=True)]

    def _checked(self, returned: ArrayLike | Tensor, sequence: str) -> Floats:
        """Return one embedding per nucleotide, or one per sequence if the first answer was one; shape (R, D)."""
        try:
            found = _array(returned)
        except _NotNumbersError as error:
            raise ModelError(f"{self.name} returned {error.found} for {_named(sequence)}; {error.expected}") from error
        n_bp = len(sequence)
        x_RD = found[None] if found.ndim == 1 else found
        if self._width is None and x_RD.ndim == 2:
            self.pooled = len(x_RD) == 1 != n_bp
        expected = 1 if self.pooled else n_bp
        if x_RD.ndim != 2 or len(x_RD) != expected:
            raise AlignmentError(
                f"{self.name} returned an array of shape {found.shape} for {_named(sequence)}; expected "
                f"({expected}, width), one embedding per {'sequence, as before' if self.pooled else 'nucleotide'}. A "
                "model that pools returns one vector for every sequence"
            )
        if not x_RD.shape[1]:
            raise AlignmentError(
                f"{self.name} returned an array of shape {found.shape} for {_named(sequence)}; expected embeddings of "
                "at least one number"
            )
        if self._width is None:
            self._width = x_RD.shape[1]
        if x_RD.shape[1] != self._width:
            raise AlignmentError(
                f"{self.name} returned an array of width {x_RD.shape[1]} after arrays of width {self._width}, for "
                f"{_named(sequence)}; the width must stay the same"
            )
        return x_RD

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        raise ModelError(f"{self.name} is a user's model; it provides embeddings, but no tokens")

    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        raise ModelError(f"{self.name} is a user's model; it provides embeddings, but no hidden states")

    def _need_head(self) -> None:
        raise ModelError(f"{self.name} is a user's model; it provides embeddings, but no logits and no loss")


class _NotNumbersError(Exception):
    """An answer that is not an array of real numbers: what it is, and what was expected."""

    def __init__(self, found: str, expected: str = "expected an array or a tensor of real numbers") -> None:
        super().__init__(found)
        self.found, self.expected = found, expected


def _named(sequence: str) -> str:
    """Name a sequence in a message."""
    shown = sequence if len(sequence) <= _SHOWN_BP else f"{sequence[:_SHOWN_BP]}..."
    return f"the sequence {shown!r} of {len(sequence)} nucleotides"


def _kind(value: object) -> str:
    """Name a value in a message by its type."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _length(returned: object) -> int | None:
    """Return the number of elements of a list, tuple, array or tensor; None if an answer is none of these."""
    if isinstance(returned, str | bytes | Mapping | Set) or not isinstance(returned, Sized):
        return None
    try:
        return len(returned)
    except TypeError:  # an array without axes, or a sparse one
        return None


def _array(value: ArrayLike | Tensor) -> Floats:
    """Return an array or a tensor of any device and real dtype as float32 on the host.

    Raises:
        _NotNumbersError: It does not hold real numbers, or float32 cannot hold them.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _from_tensor(value)
    if isinstance(value, list | tuple):
        if any(isinstance(one, np.ma.MaskedArray) for one in value):
            return _stacked([_array(one) for one in value])
        if torch is not None and any(isinstance(one, torch.Tensor) for one in value):
            return _stacked([_array(one) for one in value])
    if np.ma.is_masked(value):
        raise _NotNumbersError(
            "an array with masked values", "expected a number in each place. Fill them, for example with .filled(0)"
        )
    try:
        found = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise _NotNumbersError(f"{_kind(value)} that is not an array ({_first_line(error)})") from error
    if found.dtype.kind == "c":
        raise _NotNumbersError(
            f"an array of dtype {found.dtype}",
            "expected real numbers. Return the real and the imaginary part next to each other",
        )
    if found.dtype.kind not in "biuf" and not _is_extended_float(found.dtype):
        raise _NotNumbersError(f"an array of dtype {found.dtype}" if found.ndim else _kind(value))
    return _as_float32(found)


def _from_tensor(value: Tensor) -> Floats:
    import torch

    try:
        on_host = value.detach().to("cpu")
        is_float = on_host.is_floating_point() and on_host.dtype != torch.float64
        found = (on_host.float() if is_float else on_host).numpy(force=True)
    except (TypeError, NotImplementedError) as error:  # a sparse or quantized tensor, or one without data
        raise _NotNumbersError(f"a tensor that is not an array ({_first_line(error)})") from error
    return _array(found)


def _stacked(rows: list[Floats]) -> Floats:
    try:
        return np.stack(rows)
    except ValueError as error:
        shapes = sorted({row.shape for row in rows})
        raise _NotNumbersError(f"a list of rows of the shapes {shapes[0]} and {shapes[1]}") from error


def _is_extended_float(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype that NumPy does not have itself, such as bfloat16 of JAX, holds numbers that float32 holds."""
    return dtype.isbuiltin == 2 and np.can_cast(dtype, np.float32)


def _as_float32(found: NDArray[Any]) -> Floats:
    """Return numbers as float32, if it can hold them."""
    largest = max(-int(found.min()), int(found.max())) if found.dtype.kind in "iu" and found.size else 0
    if largest > _MOST_EXACT:
        raise _NotNumbersError(
            f"an array of dtype {found.dtype} with numbers up to {largest}",
            f"expected whole numbers up to {_MOST_EXACT}, which float32 holds exactly. Scale them",
        )
    with np.errstate(over="ignore"):
        x = found.astype(np.float32, copy=False)
    if found.dtype.kind == "f" and found.dtype.itemsize > 4 and (np.isinf(x) & np.isfinite(found)).any():
        raise _NotNumbersError(
            f"an array of dtype {found.dtype} with numbers up to {np.abs(found[np.isfinite(found)]).max():.3g}",
            "expected numbers that float32 can hold. Scale them",
        )
    return x


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _without_gradients() -> AbstractContextManager[object]:
    torch = sys.modules.get("torch")
    return nullcontext() if torch is None else torch.no_grad()


def _evaluate(model: object) -> None:
    """Turn off dropout and the like, of a torch module or of those that an object holds."""
    torch = sys.modules.get("torch")
    if torch is not None:
        for held in (model, getattr(model, "__self__", None), *getattr(model, "__dict__", {}).values()):
            if isinstance(held, torch.nn.Module):
                held.eval()


def load_user_model(
    path: str | Path, *, checkpoint: str | Path | None = None, **options: Unpack[EmbedderOptions]
) -> UserEmbedder:
    """Run a Python file and return the model that it holds.

    Args:
        path: A Python file with a function ``embed``, or with one object or one class that has a method ``embed``. A
            class is called without arguments, or with ``checkpoint`` if that is given.
        checkpoint: The only argument of a class.
        options: As for ``UserEmbedder``.

    Raises:
        ModelError: The file is missing, fails, or does not hold exactly one model.
    """
    path = Path(path).expanduser()
    try:
        module = load_file(path)
    except RegistryError as error:
        raise ModelError(str(error)) from error
    found = _model_in(module, path)
    read: set[Path] = set()
    if isinstance(found, type):
        make: Callable[..., UserModel] = found
        _check_arguments(found, path, () if checkpoint is None else (checkpoint,))
        with files_read() as read:
            found = make() if checkpoint is None else make(checkpoint)
    elif checkpoint is not None:
        raise ModelError(f"{path} holds no class that takes checkpoint={str(checkpoint)!r}; leave checkpoint out")
    return UserEmbedder(found, name=path.stem, checkpoint=checkpoint, read=read, **options)


def _check_arguments(made: type[UserModel], path: Path, given: tuple[str | Path, ...]) -> None:
    """Check that a class can be called with the checkpoint, or with nothing.

    Raises:
        ModelError: It takes other arguments.
    """
    try:
        signature = inspect.signature(made)
    except ValueError:  # as of classes in C that do not say what they take
        return
    try:
        signature.bind(*given)
    except TypeError as error:
        what = "with a checkpoint only" if given else "without arguments"
        remedy = (
            "leave --checkpoint out, or give __init__ one argument for it"
            if given
            else "give the arguments of __init__ default values, or give --checkpoint, which is passed as the only one"
        )
        raise ModelError(f"{path}: the class {made.__name__} cannot be called {what} ({error}); {remedy}") from error


def _model_in(module: ModuleType, path: Path) -> UserModel | EmbedFunction | type[UserModel]:
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    function: EmbedFunction | None = public.get("embed")
    if function is not None and inspect.isfunction(function):
        return function
    with_embed = [
        name
        for name, value in public.items()
        if callable(getattr(value, "embed", None)) and not inspect.ismodule(value)
    ]
    objects = [name for name in with_embed if not inspect.isclass(public[name])]
    found = objects or [name for name in with_embed if public[name].__module__ == module.__name__]
    if len(found) != 1:
        held = f"{len(found)}: {', '.join(sorted(found))}" if found else "none"
        raise ModelError(
            f"{path} must hold a function embed(sequences), or one object or class with a method embed; found {held}"
        )
    only: UserModel | type[UserModel] = public[found[0]]
    return only
