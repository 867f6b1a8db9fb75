"""Run a user's code, and say what decides what it computes.

``load_file`` runs the Python file of a model, head, task or control, and runs it again if the file, one that it imports
or one that it read has changed. ``identity_of`` hashes all of that for the key of what was computed: source, imports,
constants, and the content of the files that are named or read. ``state_of`` and ``weights_of`` do it for an object.

>>> state_of({"bp": 64}) == state_of({"bp": 64}), state_of({"bp": 64}) == state_of({"bp": 128})
(True, False)
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import logging
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Final, Protocol, TypeGuard

import numpy as np
import xxhash

from bend_hf.errors import RegistryError
from bend_hf.files import cache_folder, file_sha256, json_sha256

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)

_PACKAGE: Final = "bend_hf"
FILE_MODULES: Final = "bend_hf_file_"  # how the names of modules begin that ``load_file`` makes
_DEEPEST: Final = 12  # objects inside objects; a longer chain is no setting of a model
_LONGEST_PATH: Final = 4096  # PATH_MAX of Linux
_MADE_IN_PYTHON: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE of CPython
_PLAIN: Final = (type(None), bool, int, float, complex, bytes)
# What may differ between the machine that filled a cache and the one that reads it.
_MACHINE: Final = re.compile(r"device|cuda|gpu|batch|thread|worker|progress|verbose", re.IGNORECASE)
_DEVICE: Final = re.compile(r"(cpu|mps|cuda(:\d+)?)")
_HIDDEN: Final = frozenset({".cache", ".config", ".git", ".local", ".nv", ".triton", ".venv"})
_SYSTEM: Final = ("/proc/", "/sys/", "/dev/", "/etc/", "/run/", "/usr/")  # says something about the machine only


class Keyed(Protocol):
    """A declaration."""

    @property
    def key(self) -> str:
        """Its name."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """A file that was run.

    Attributes:
        module: Its module.
        sources: Checksum of the file and of those modules, by path, when it was run.
        read: Checksum of the files that it read when it was run, by path.
    """

    module: ModuleType
    sources: Mapping[Path, str]
    read: Mapping[Path, str]

    def changed(self) -> list[Path]:
        """List the files that have changed."""
        known = {**self.sources, **self.read}
        return [path for path, digest in known.items() if not path.is_file() or file_sha256(path) != digest]


_loaded: dict[Path, _Loaded] = {}
_folder_of: dict[str, Path] = {}  # of each module that was found next to a file that was run


def load_file(path: Path) -> ModuleType:
    """Run a Python file as a module, once as long as the files it consists of stay the same; the log says so.

    These are the file, the user's files that it imports, and the files that it reads when it runs. Modules of its own
    folder can be imported.

    Raises:
        RegistryError: There is no such file, or it fails when it is run.
    """
    path = path.expanduser().resolve()
    if not path.is_file():
        raise RegistryError(f"there is no file {path}; check the path")
    earlier = _loaded.get(path)
    changed = earlier.changed() if earlier is not None else []
    if earlier is not None and not changed:
        return earlier.module
    anew = set(earlier.sources) - {path} if earlier is not None and changed != [path] else set()
    _forget_imports(path.parent, anew)
    source = path.read_bytes()
    name = f"{FILE_MODULES}{path.stem}_{hashlib.sha256(str(path).encode() + source).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise RegistryError(f"{path} is not a Python file; expected a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    log.info("running the code of %s", path)
    _remove_uncertain_bytecode(_with_imports([path], name))
    before = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses and pickles in the file look themselves up
    try:
        with _importing_from(path.parent), files_read() as read:
            # From the source itself: bytecode is found by the second of the last change, which may be too coarse.
            exec(compile(source, path, "exec", dont_inherit=True), vars(module))  # noqa: S102  the user named the file
    except Exception as error:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        raise RegistryError(f"{path} failed when it was run ({type(error).__name__}: {error}); correct it") from error
    sources = {one: file_sha256(one) for one in _sources(module, name)} | {path: hashlib.sha256(source).hexdigest()}
    _loaded[path] = _Loaded(
        module=module,
        sources=sources,
        read={one: file_sha256(one) for one in sorted(read) if one.is_file() and one not in sources},
    )
    return module


def forget(kind: type) -> None:
    """Let the module of a class of the user run again when it is imported next, and those that it imports."""
    for module in list(_imported(sys.modules.get(kind.__module__), kind.__module__.partition(".")[0])):
        sys.modules.pop(module.__name__, None)


def _forget_imports(folder: Path, changed: set[Path]) -> None:
    """Let files of the user be imported anew: some that may have changed, and those next to a file of another folder.

    Args:
        folder: Folder of the file that is run next. Two folders may hold modules of one name.
        changed: Files of which one has changed, or has read a file that has.
    """
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is not None and (Path(file) in changed or _folder_of.get(name, folder) != folder):
            del sys.modules[name]
            _folder_of.pop(name, None)


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Let imports find the modules of a folder, after all others, and write no bytecode next to the user's files."""
    importlib.invalidate_caches()
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.append(str(folder))
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and folder in Path(file).parents and not _is_library(file):
                _folder_of[name] = folder
        sys.dont_write_bytecode = writes
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


_reads: ContextVar[set[Path] | None] = ContextVar("_reads", default=None)


@functools.cache
def _watch_opened_files() -> None:
    """Start to note the files that Python opens; an audit hook stays for the rest of the process."""

    def opened(event: str, args: tuple[object, ...]) -> None:
        if event != "open":
            return
        found = _reads.get()
        if found is not None and len(args) == 3 and isinstance(args[0], str | Path):
            name, (mode, flags) = args[0], args[1:]
            writes = any(sign in str(mode or "") for sign in "wax+") or bool(int(str(flags or 0)) & os.O_ACCMODE)
            if not writes and _is_asked_for(sys._getframe(1)):
                found.add(Path(name))

    sys.addaudithook(opened)


def _is_asked_for(frame: FrameType | None) -> bool:
    """Whether code of the user opens a file, itself or through a library, and not the import of a library."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib"):
            return False
        if not _is_library(name):
            return True
        frame = frame.f_back
    return False


@functools.cache
def _is_library(file: str) -> bool:
    here = os.path.realpath(Path(__file__).parent) + os.sep
    return file.startswith("<") or os.path.realpath(file).startswith((*_installed(), here))


@contextlib.contextmanager
def files_read() -> Iterator[set[Path]]:
    """Collect the files that the user's code opens for reading inside the block; complete when it ends.

    Files of installed packages, of the system and of caches do not count, nor does bytecode.
    """
    _watch_opened_files()
    opened: set[Path] = set()
    found: set[Path] = set()
    before = _reads.set(opened)
    try:
        yield found
    finally:
        _reads.reset(before)
        found.update(path.absolute() for path in opened if _is_users_file(path.absolute()))
        if before.old_value is not before.MISSING and before.old_value is not None:
            before.old_value.update(opened)


def _is_users_file(path: Path) -> bool:
    text = os.path.realpath(path)
    hidden = any(part in _HIDDEN for part in path.parts)
    others = (*_installed(), *_SYSTEM, os.path.realpath(Path(__file__).parent), os.path.realpath(cache_folder("")))
    return not hidden and path.suffix != ".pyc" and not text.startswith(others) and path.is_file()


def identity_of(declaration: object) -> str:
    """Hash what decides what the code of a declaration computes, such as a head, a control or a class of a metric.

    Functions and classes of this package do not count; what is empty for them is the identity of the declaration.

    Args:
        declaration: A function, a class, or a dataclass whose fields hold them.
    """
    held: Iterable[object] = (declaration,)
    if is_dataclass(declaration) and not isinstance(declaration, type):
        held = [getattr(declaration, one.name) for one in fields(declaration)]
    own = [thing for thing in map(_bare, held) if isinstance(thing, type | FunctionType) and _is_outside(thing)]
    return json_sha256([[code_of(thing), _exact_state_of(thing)] for thing in own]) if own else ""


def key_with_code(declaration: Keyed) -> str:
    """Return the key of a declaration, with the hash of its code if that is not of this package."""
    identity = identity_of(declaration)
    return f"{declaration.key}@{identity}" if identity else declaration.key


def _is_outside(thing: type | FunctionType) -> bool:
    return (thing.__module__ or "").partition(".")[0] not in (_PACKAGE, "builtins")


def _exact_state_of(thing: object) -> str:
    walker = _Walker(weights_only=False, exact=True)
    walker.add(thing)
    return walker.digest()


def _bare(thing: object) -> object:
    """Return the function of a method or of a partial call."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    return thing.__func__ if isinstance(thing, MethodType) else thing


def code_of(thing: object) -> str:
    """Hash the files that hold the code of a class, a function or an object, with the user's files they import.

    A file that ``load_file`` ran counts as it was then, and so do the files that it read. Files of installed packages
    count if they belong to the package of ``thing``, and not otherwise. A model in ``__main__`` has no file here,
    because a script changes with every line of an analysis; ``state_of`` hashes its functions.
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
            digests.update(_digests_of(sys.modules.get(name), package))
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


def _digests_of(module: ModuleType | None, package: str) -> dict[str, str]:
    """Return the name of each file that a module consists of, by checksum."""
    loaded = next((one for one in list(_loaded.values()) if one.module is module), None)
    known = {**loaded.sources, **loaded.read} if loaded is not None else {}
    for path in () if loaded is not None else _sources(module, package):
        known[path] = file_sha256(path)
    return {digest: path.name for path, digest in known.items()}


def _sources(module: ModuleType | None, package: str) -> list[Path]:
    """List the file of a module and those of the user's modules that it imports, inside functions too."""
    return _with_imports([Path(str(one.__file__)) for one in _imported(module, package)], package)


def _with_imports(files: Iterable[Path], package: str) -> list[Path]:
    """List files and those of the user's modules that they import, inside functions too, as their sources say."""
    waiting, found = list(files), list[Path]()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.append(path)
            waiting += [one for one in _imports_in(path) if _is_users_file(one) or _is_in_package(one, path, package)]
    return sorted(found)


def _remove_uncertain_bytecode(files: Iterable[Path]) -> None:
    """Remove bytecode that may be that of an earlier content.

    Python takes bytecode for that of a file if the second of its last change and its size fit. A file may have changed
    again within that second, unless the bytecode was written after it.
    """
    for file in files:
        bytecode = Path(importlib.util.cache_from_source(str(file)))
        with contextlib.suppress(OSError):
            if int(bytecode.stat().st_mtime) <= int(file.stat().st_mtime):
                bytecode.unlink()


def _is_in_package(file: Path, importer: Path, package: str) -> bool:
    """Whether a file and the one that imports it are of the same installed package."""
    return all(package in one.parts for one in (file, importer))


def _imports_in(path: Path) -> Iterator[Path]:
    """Yield the files of the modules that the source in a file imports, as far as they can be found without a run."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files_of_name(alias.name, path.parent)
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if 0 < node.level <= len(path.parents) else None
            for name in (node.module or "", *(f"{node.module or ''}.{alias.name}".strip(".") for alias in node.names)):
                yield from _files_below(base, name) if base is not None else _files_of_name(name, path.parent)


def _files_of_name(name: str, folder: Path) -> Iterator[Path]:
    """Yield the files of an absolute import: of the packages that it is in, and of the module."""
    top, _, rest = name.partition(".")
    if not top or _is_foreign(top):
        return
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:  # next to the file, where ``load_file`` finds it
        yield from _files_below(folder, name)
        return
    if spec.origin is not None:
        yield Path(spec.origin)
    for place in spec.submodule_search_locations or ():
        yield from _files_below(Path(place), rest)


def _files_below(folder: Path, name: str) -> Iterator[Path]:
    """Yield the files of a module below a folder, and of the packages on the way."""
    for part in filter(None, name.split(".")):
        for file in (folder / part / "__init__.py", folder / f"{part}.py"):
            if file.is_file():
                yield file
        folder = folder / part


def _imported(module: ModuleType | None, package: str) -> Iterator[ModuleType]:
    """Yield a module and the user's modules that it imports, each once, if their files exist."""
    waiting, seen = [module], {id(module)}
    while waiting:
        module = waiting.pop()
        file = getattr(module, "__file__", None)
        if module is None or file is None or not file.endswith(".py"):
            continue
        if not Path(file).is_file():
            continue
        yield module
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
        exact: Count the value of each float. Otherwise it shows in the probe, with a tolerance.
    """

    def __init__(self, *, weights_only: bool, exact: bool = False) -> None:
        self._weights_only = weights_only
        self._exact = exact
        self._running = xxhash.xxh3_128()
        self._folder: Path | None = None  # of the code that is added, which names files next to itself
        self._seen: dict[int, int] = {}
        self._classes: set[int] = set()
        self._kept: list[object] = []  # so that no id is used twice
        self._depth = 0

    def digest(self) -> str:
        return self._running.hexdigest()

    def add(self, value: object) -> None:
        """Add a value and what it holds."""
        if isinstance(value, _PLAIN):
            exact = self._exact or not isinstance(value, float | complex)
            self._text(f"{type(value).__name__} {value!r}" if exact else type(value).__name__)
            return
        if isinstance(value, str | Path):
            self._text(_text_of(value, self._folder))
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
            entry = _Walker(weights_only=False, exact=self._exact)
            entry._seen, entry._kept, entry._depth = dict(self._seen), self._kept, self._depth
            entry._folder, entry._classes = self._folder, set(self._classes)
            entry.add(key)
            entry.add(held)
            digests.append(entry.digest())
        self._put(" ".join(sorted(digests)))

    def _class(self, kind: type) -> None:
        """Add the functions and constants of a class of the user, and of the classes that it inherits from."""
        for base in kind.__mro__:
            self._put(base.__qualname__)
            if self._weights_only or not _is_own_code(base) or id(base) in self._classes:
                continue
            self._classes.add(id(base))
            self._kept.append(base)
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
                outer, self._folder = self._folder, Path(function.__code__.co_filename).parent
                self._code(function.__code__)
                self._sequence([function.__defaults__, function.__kwdefaults__])
                self._folder = outer
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


def _text_of(value: str | Path, folder: Path | None) -> str:
    """Return a text, or the checksum of the file that it names.

    Args:
        value: The text.
        folder: Folder of the code that holds it, in which a file may be meant; None: there is no such code.
    """
    text = os.fspath(value)
    if _DEVICE.fullmatch(text):
        return "device"
    if 0 < len(text) < _LONGEST_PATH and "\0" not in text and "\n" not in text:
        try:
            path = Path(text).expanduser()
            for place in (path, folder / path) if folder is not None else (path,):
                if place.is_file():
                    return f"file {file_sha256(place)}"
        except (OSError, RuntimeError):  # not a path, not readable, or no home folder
            pass
    return f"text {text}"


def _is_tensor(value: object) -> TypeGuard[Tensor]:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_module(value: object) -> TypeGuard[nn.Module]:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)
