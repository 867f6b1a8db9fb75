"""Checksums of a user's code, of the state of an object, and of the files of a checkpoint.

They are part of the identity of a model that this package does not know: its source, what it imports from files of the
user, its weights, its settings, and the content of the files that it names.

>>> state_of({"bp": 64}) == state_of({"bp": 64}), state_of({"bp": 64}) == state_of({"bp": 128})
(True, False)
"""

from __future__ import annotations

import functools
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Final, TypeGuard

import numpy as np
import xxhash

from bend_hf.files import file_sha256, json_sha256

if TYPE_CHECKING:
    from torch import Tensor, nn

_PACKAGE: Final = "bend_hf"
_DEEPEST: Final = 12  # objects inside objects; a longer chain is no setting of a model
_LONGEST_PATH: Final = 4096  # PATH_MAX of Linux
_MADE_IN_PYTHON: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE of CPython
_PLAIN: Final = (type(None), bool, int, float, complex, bytes)
# What may differ between the machine that filled a cache and the one that reads it.
_MACHINE: Final = re.compile(r"device|cuda|gpu|batch|thread|worker|progress|verbose", re.IGNORECASE)
_DEVICE: Final = re.compile(r"(cpu|mps|cuda(:\d+)?)")


def code_of(thing: object) -> str:
    """Hash the files that hold the code of a class, a function or an object, with the user's files they import.

    Files of installed packages count if they belong to the package of ``thing``, and not otherwise. A model in
    ``__main__`` has no file here, because a script changes with every line of an analysis; ``state_of`` hashes its
    functions.
    """
    kinds: Sequence[object] = type(thing).__mro__
    if isinstance(thing, type):
        kinds = thing.__mro__
    elif isinstance(thing, FunctionType | MethodType):
        kinds = (thing,)
    digests: dict[str, str] = {}
    for kind in kinds:
        name = getattr(kind, "__module__", "")
        if not _is_foreign(name):
            package = name.partition(".")[0]
            for path in _imported(sys.modules.get(name), package):
                digests[file_sha256(path)] = path.name
    return json_sha256(dict(digests)) if digests else ""


def state_of(thing: object) -> str:
    """Hash what an object, a class or a function computes with: settings, weights, closures, and its own functions.

    A path counts by the content of the file that it names. Objects of installed packages count by their arrays. What
    names a device or a batch size does not count, nor does the value of a single float: where it matters, it shows in
    the embeddings of the probes.
    """
    walker = _Walker(weights_only=False)
    walker.add(thing)
    return walker.digest()


def weights_of(thing: object) -> str:
    """Hash the arrays and tensors that are attributes of an object, which training changes in place."""
    walker = _Walker(weights_only=True)
    walker.add(thing)
    return walker.digest()


def content_of_path(path: str | Path) -> str:
    """Hash a file, or all files of a folder with their names; for something else, its text."""
    path = Path(path).expanduser()
    if path.is_file():
        return file_sha256(path)
    if not path.is_dir():
        return f"not a file: {path}"
    files = sorted(file for file in path.rglob("*") if file.is_file() and ".git" not in file.parts)
    return json_sha256([[file.relative_to(path).as_posix(), file_sha256(file)] for file in files])


def _is_foreign(module: str | None) -> bool:
    """Whether a module is this package, the standard library, torch or ``__main__``, whose files are not hashed."""
    top = (module or "").partition(".")[0]
    return top in (_PACKAGE, "", "__main__", "builtins", "torch", "transformers") or top in sys.stdlib_module_names


@functools.cache
def _installed() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({os.path.realpath(sysconfig.get_paths()[name]) + os.sep for name in names})


def _imported(module: ModuleType | None, package: str) -> Iterator[Path]:
    """Yield the files of a module and of the user's modules that it imports, each once."""
    waiting, seen = [module], {id(module)}
    while waiting:
        module = waiting.pop()
        file = getattr(module, "__file__", None)
        if module is None or file is None or not file.endswith(".py"):
            continue
        path = Path(file)
        if not path.is_file():
            continue
        yield path
        for value in list(vars(module).values()):
            held = value
            if isinstance(value, type | FunctionType):
                held = sys.modules.get(value.__module__)
            if isinstance(held, ModuleType) and id(held) not in seen and _is_users(held, package):
                seen.add(id(held))
                waiting.append(held)


def _is_users(module: ModuleType, package: str) -> bool:
    name, file = module.__name__, getattr(module, "__file__", None)
    if file is None or _is_foreign(name):
        return False
    return name.partition(".")[0] == package or not os.path.realpath(file).startswith(_installed())


class _Walker:
    """Adds a graph of objects to a checksum; what it reaches again counts as such.

    Args:
        weights_only: Count only arrays and tensors that are attributes, not settings and not what lists and
            dictionaries hold, because a model may keep what it computed there.
    """

    def __init__(self, *, weights_only: bool) -> None:
        self._weights_only = weights_only
        self._running = xxhash.xxh3_128()
        self._seen: dict[int, int] = {}
        self._kept: list[object] = []  # so that no id is used twice
        self._depth = 0

    def digest(self) -> str:
        return self._running.hexdigest()

    def add(self, value: object) -> None:
        """Add a value and what it holds."""
        if isinstance(value, _PLAIN):
            exact = not isinstance(value, float | complex)  # a factor shows in the probe, with a tolerance
            self._text(f"{type(value).__name__} {value!r}" if exact else type(value).__name__)
            return
        if isinstance(value, str | Path):
            self._text(_text_of(value))
            return
        if self._depth >= _DEEPEST:
            return
        if not isinstance(value, tuple | frozenset):  # equal constants are one object or two, as the compiler likes
            if id(value) in self._seen:
                self._put(f"again {self._seen[id(value)]}")
                return
            self._seen[id(value)] = len(self._seen)
            self._kept.append(value)
        self._depth += 1
        try:
            self._add_object(value)
        finally:
            self._depth -= 1

    def _add_object(self, value: object) -> None:
        self._put(type(value).__qualname__)
        if self._add_numbers(value) or self._add_container(value):
            return
        match value:
            case MethodType():
                self.add(value.__func__)
                self.add(value.__self__)
            case FunctionType():
                self._function(value)
            case type():
                self._class(value)
            case ModuleType():
                pass
            case _:
                self._class(type(value))
                outer = self._weights_only
                self._weights_only = outer or not _is_own_code(type(value))
                self._attributes(value)
                self._weights_only = outer

    def _add_numbers(self, value: object) -> bool:
        if _is_tensor(value):
            self._tensor(value)
        elif _is_module(value):
            self._module(value)
        elif isinstance(value, np.generic):
            self._text(repr(value))
        elif isinstance(value, np.ndarray) or hasattr(type(value), "__array__"):
            self._array(np.asarray(value))
        else:
            return False
        return True

    def _add_container(self, value: object) -> bool:
        match value:
            case Mapping():
                self._items(value.items())
            case set() | frozenset():
                self._items((held, None) for held in value)
            case list() | tuple():
                self._sequence(value)
            case functools.partial():
                self._sequence([value.func, value.args, value.keywords])
            case _:
                return False
        return True

    def _put(self, text: str) -> None:
        self._running.update(text.encode("utf-8", "surrogatepass") + b"\0")

    def _text(self, text: str) -> None:
        if not self._weights_only:
            self._put(text)

    def _array(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
        if array.dtype.hasobject:
            self._sequence(array.ravel().tolist())
            return
        self._put(f"{array.dtype.str} {array.shape}")
        self._running.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def _tensor(self, tensor: Tensor) -> None:
        import torch

        self._put(f"{tensor.dtype} {tuple(tensor.shape)} {tensor.layout}")
        if tensor.is_meta:
            return
        dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
        if dense.is_quantized:
            dense = dense.dequantize()
        self._running.update(dense.resolve_conj().cpu().contiguous().flatten().view(torch.uint8).numpy().data)

    def _module(self, module: nn.Module) -> None:
        for name, part in module.named_modules():
            self._put(f"{name} {type(part).__qualname__}")
            self._class(type(part))
            self._attributes(part, of_module=True)
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            self._put(name)
            self._tensor(tensor)

    def _attributes(self, value: object, *, of_module: bool = False) -> None:
        """Add attributes by name; of a torch module, the public ones that are no modules."""
        held: dict[str, object] = dict(getattr(value, "__dict__", {}))
        for kind in type(value).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, name) and name not in ("__dict__", "__weakref__"):
                    held[name] = getattr(value, name)
        for name in sorted(held):
            if of_module and (name.startswith("_") or name == "training"):
                continue
            if isinstance(held[name], (*_PLAIN, str)) and _MACHINE.search(name):
                continue
            if of_module and name == "forward":  # transformers 5.0 puts a wrapper there when the model is first used
                continue
            self._put(name)
            self.add(held[name])

    def _sequence(self, values: Iterable[object]) -> None:
        if self._weights_only:
            return
        for value in values:
            self.add(value)

    def _items(self, pairs: Iterable[tuple[object, object]]) -> None:
        """Add the entries of a mapping or a set, in whatever order it holds them."""
        if self._weights_only:
            return
        digests = []
        for key, held in pairs:
            entry = _Walker(weights_only=False)
            entry._seen, entry._kept, entry._depth = dict(self._seen), self._kept, self._depth
            entry.add(key)
            entry.add(held)
            digests.append(entry.digest())
        self._put(" ".join(sorted(digests)))

    def _class(self, kind: type) -> None:
        """Add the functions and constants of a class of the user, and of the classes that it inherits from."""
        for base in kind.__mro__:
            self._put(base.__qualname__)
            if self._weights_only or not _is_own_code(base) or id(base) in self._seen:
                continue
            self._seen[id(base)] = len(self._seen)
            for name, value in sorted(vars(base).items()):
                if name.startswith("__") and not isinstance(value, FunctionType):
                    continue
                inner = value.__func__ if isinstance(value, staticmethod | classmethod) else value
                inner = inner.fget if isinstance(inner, property) else inner
                self._put(name)
                self.add(inner)

    def _function(self, function: FunctionType) -> None:
        """Add the code, defaults, closure and globals of a function of the user."""
        if _is_own_code(function):
            if not self._weights_only:
                self._code(function.__code__)
                self._sequence([function.__defaults__, function.__kwdefaults__])
            for name in sorted(_names_in(function.__code__)):
                held = function.__globals__.get(name)
                if held is not None and not isinstance(held, ModuleType):
                    self._put(name)
                    self.add(held)
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:  # the variable has no value yet
                self._put("empty")

    def _code(self, code: CodeType) -> None:
        self._put(code.co_code.hex())
        self._put(" ".join((*code.co_names, *code.co_varnames)))
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._code(constant)
            elif isinstance(constant, float | complex):
                self._put(repr(constant))
            else:
                self.add(constant)


def _names_in(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_in(constant)
    return names


def _is_own_code(thing: type | FunctionType) -> bool:
    """Whether a class or a function is the user's: not of this package and not of an installed one."""
    module = thing.__module__
    if module in ("__main__", "builtins", None):  # the last two: made by exec
        return isinstance(thing, FunctionType) or bool(thing.__flags__ & _MADE_IN_PYTHON)
    if _is_foreign(module):
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is None or not os.path.realpath(file).startswith(_installed())


def _text_of(value: str | Path) -> str:
    """Return a text, or the checksum of the file that it names."""
    text = os.fspath(value)
    if _DEVICE.fullmatch(text):
        return "device"
    if 0 < len(text) < _LONGEST_PATH and "\0" not in text and "\n" not in text:
        try:
            path = Path(text).expanduser()
            if path.is_file():
                return f"file {file_sha256(path)}"
        except (OSError, RuntimeError):  # not a path, not readable, or no home folder
            pass
    return f"text {text}"


def _is_tensor(value: object) -> TypeGuard[Tensor]:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_module(value: object) -> TypeGuard[nn.Module]:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)
