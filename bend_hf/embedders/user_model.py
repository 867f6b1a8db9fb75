"""Your own model: any object with ``embed(list of sequences) -> list of arrays``, or a file that holds one.

>>> class Purines:
...     def embed(self, sequences):
...         return [np.array([[base in "AG"] for base in sequence]) for sequence in sequences]
>>> UserEmbedder(Purines())("ACGT")[:, 0].tolist()
[1.0, 0.0, 1.0, 0.0]
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, Unpack, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from bend_hf.embedders._alignment import Tokenized
from bend_hf.embedders._batching import BatchFunction
from bend_hf.embedders._checkpoint_files import sha256_of
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders._spec import EmbedderOptions, TokenEmbeddings
from bend_hf.embedders._tokens import readable
from bend_hf.errors import AlignmentError, ConfigError, ModelError
from bend_hf.types import Floats

if TYPE_CHECKING:
    from torch import Tensor

_ASKING: Final = "ACGT" * 128  # as long as BEND's shortest task, 512 bp
EmbedFunction: TypeAlias = Callable[[list[str]], Sequence[ArrayLike]]


@runtime_checkable
class UserModel(Protocol):
    """What to bring: one array for each sequence, shape (nucleotides, width), the width always the same."""

    def embed(self, sequences: list[str]) -> Sequence[ArrayLike]:
        """Embed sequences, which come in upper case."""
        ...


class UserEmbedder(Embedder):
    """An object of the user's as an embedder: its rows are checked, one for each nucleotide.

    Args:
        model: Object with ``embed``, or a function of that kind.
        name: How results call it.
        source_sha256: Checksum of the file it came from.
        group: How many sequences it is given at a time.
        options: Of all keywords only ``protocol`` and ``reverse_complement_average`` have a meaning here.
    """

    needs_checkpoint = False
    direction = "none"

    def __init__(
        self,
        model: UserModel | EmbedFunction,
        *,
        name: str | None = None,
        source_sha256: str = "",
        group: int = 64,
        **options: Unpack[EmbedderOptions],
    ) -> None:
        idle = sorted(set(options) - {"spec", "protocol", "reverse_complement_average"})
        if idle:
            raise ConfigError(f"a model of your own decides by itself on {', '.join(idle)}; leave that out")
        self._embed: EmbedFunction = model.embed if isinstance(model, UserModel) else model
        self._name: str = name or str(getattr(model, "__name__", type(model).__name__))
        self._source_sha256 = source_sha256
        self._group = group
        self._width: int | None = None
        super().__init__(None, **options)

    @property
    def name(self) -> str:
        """As the user calls it."""
        return self._name

    @property
    def width(self) -> int:
        """Columns of its arrays; asked of the model by one short sequence before it was used."""
        if self._width is None:
            self._rows([_ASKING])
        assert self._width is not None
        return self._width

    @property
    def identity(self) -> dict[str, str]:
        """Its name and, where it came from a file, the file's checksum; an object in memory has only its name."""
        return {**super().identity, "own_model": self._name, "user_source": self._source_sha256}

    @property
    def description(self) -> dict[str, str | int | bool | None]:
        """Facts for a result record, under the name that the user gave."""
        return {**super().description, "model": self._name, "family": "own"}

    def _load(self) -> None:
        """Nothing: the user made it."""

    def _groups(self, sequences: Iterable[str]) -> Iterator[list[str]]:
        prepared = (self._normalise(sequence) for sequence in readable(sequences))
        while group := list(islice(prepared, self._group)):
            yield group

    def _outputs(
        self, sequences: list[str], function: BatchFunction, *, specials: bool, per_nucleotide: bool
    ) -> Iterator[TokenEmbeddings]:
        for rows in self._rows(sequences):
            yield TokenEmbeddings(values=rows, embedding_bp=np.ones(len(rows), dtype=np.int64))

    def _rows(self, sequences: list[str]) -> list[Floats]:
        given = self._embed(sequences)
        if len(given) != len(sequences):
            raise AlignmentError(
                f"{self.name} gave {len(given)} arrays for {len(sequences)} sequences; expected one each"
            )
        arrays = [np.asarray(one, dtype=np.float32) for one in given]
        for sequence, rows in zip(sequences, arrays, strict=True):
            if rows.ndim != 2 or len(rows) != len(sequence):
                raise AlignmentError(
                    f"{self.name} gave an array of shape {rows.shape} for a sequence of {len(sequence)} "
                    f"nucleotides; expected ({len(sequence)}, width), one row for each"
                )
            if self._width is None:
                self._width = rows.shape[1]
            if rows.shape[1] != self._width:
                raise AlignmentError(
                    f"{self.name} gave {rows.shape[1]} columns where it gave {self._width} before; the width must "
                    f"stay the same"
                )
        return arrays

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        raise ModelError(f"{self.name} is a model of your own: its tokens are not known here, only its rows")

    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        raise ModelError(f"{self.name} is a model of your own: it has no hidden states to ask for, only its rows")

    def _need_head(self) -> None:
        raise ModelError(f"{self.name} is a model of your own: logits and loss are not known here, only its rows")


def load_user_model(
    path: str | Path, *, checkpoint: str | Path | None = None, **options: Unpack[EmbedderOptions]
) -> UserEmbedder:
    """The model that a file of the user's holds; the file is run.

    Args:
        path: A Python file with a function ``embed``, or with one object or one class that has ``embed``. A class
            is called without arguments, or with ``checkpoint`` where that is given.
        checkpoint: For a class: its only argument.
        options: As ``UserEmbedder``.

    Raises:
        ModelError: There is no such file, or it holds no such thing, or more than one.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ModelError(f"there is no file {path}; expected a Python file with a model of your own")
    found = _model_in(_run(path), path)
    if isinstance(found, type):
        make: Callable[..., UserModel] = found
        found = make() if checkpoint is None else make(checkpoint)
    elif checkpoint is not None:
        raise ModelError(f"{path} holds no class that could take checkpoint={str(checkpoint)!r}; leave it out")
    return UserEmbedder(found, name=path.stem, source_sha256=sha256_of([path]), **options)


def _run(path: Path) -> ModuleType:
    name = f"bend_hf_own_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    loader = importlib.util.spec_from_file_location(name, path)
    if loader is None or loader.loader is None:
        raise ModelError(f"{path} is no Python file; expected a name that ends in .py")
    module = importlib.util.module_from_spec(loader)
    sys.modules[name] = module  # dataclasses and pickles in the file look themselves up
    try:
        loader.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ModelError(f"{path} failed when it was run: {type(error).__name__}: {error}") from error
    return module


def _model_in(module: ModuleType, path: Path) -> Any:
    held = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    if inspect.isfunction(held.get("embed")):
        return held["embed"]
    objects = {
        name: value
        for name, value in held.items()
        if callable(getattr(value, "embed", None)) and not inspect.ismodule(value) and not inspect.isclass(value)
    }
    classes = {
        name: value
        for name, value in held.items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and callable(getattr(value, "embed", None))
    }
    found = objects or classes
    if len(found) != 1:
        what = f"several: {', '.join(sorted(found))}" if found else "none"
        raise ModelError(
            f"{path} should hold one function embed(sequences), or one object or class with such a method; found {what}"
        )
    return next(iter(found.values()))
