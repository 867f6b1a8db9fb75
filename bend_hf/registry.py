"""Find the declarations of a package, of plug-ins and of single files, so that adding one means adding a file.

Tasks, models, heads, controls, variant scores and commands each have a registry:

>>> from bend_hf.tasks import TASKS
>>> TASKS.names()[0]
'chromatin_accessibility'
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Final, Generic, Protocol, TypeVar

from bend_hf.errors import RegistryError, did_you_mean
from bend_hf.user_code import load_file

PLUGIN_GROUP: Final = "bend_hf.plugins"


class Declaration(Protocol):
    """What a registry can hold: anything with a key."""

    @property
    def key(self) -> str:
        """The name that finds it: registry key, command-line name, Hub name."""
        ...


T = TypeVar("T", bound=Declaration)


class Registry(Generic[T]):
    """The declarations of one kind, found when first asked for.

    They come from three places, in this order:

    - the modules of ``package`` whose names have no leading underscore;
    - the modules that installed packages name in the entry-point group ``bend_hf.plugins``;
    - ``add``.

    A module takes part if it holds ``attribute``, a tuple of declarations. A declaration may have a field ``aliases``,
    a tuple of other names that find it; it is listed by its key alone.

    Args:
        kind: What a declaration is called in messages, for example ``task``.
        package: Dotted name of the package to look through.
        attribute: Name of the tuple in each module, for example ``TASKS``.
    """

    def __init__(self, *, kind: str, package: str, attribute: str) -> None:
        self.kind = kind
        self.package = package
        self.attribute = attribute
        self._of_files: set[str] = set()

    @cached_property
    def _declared(self) -> dict[str, T]:
        found: dict[str, T] = {}
        for module in (*_modules_of(self.package), *plugin_modules()):
            for declaration in self._held(module, module.__name__):
                if declaration.key in found:
                    raise RegistryError(
                        f"{self.kind} {declaration.key!r} is declared twice, the second time in "
                        f"{module.__name__}; give one of them another key"
                    )
                found[declaration.key] = declaration
        return found

    @cached_property
    def _key_of(self) -> Mapping[str, str]:
        """The key of each name, keys and aliases alike."""
        keys = {key: key for key in self._declared}
        for key, declaration in self._declared.items():
            for alias in getattr(declaration, "aliases", ()):
                if alias in keys:
                    raise RegistryError(
                        f"{self.kind} {key!r} has the alias {alias!r}, which is already a name of {self.kind} "
                        f"{keys[alias]!r}; give it another one"
                    )
                keys[alias] = key
        return keys

    def names(self) -> list[str]:
        """List all keys, sorted; no aliases."""
        return sorted(self._declared)

    def in_order(self) -> list[T]:
        """List all declarations in the order of the modules and of their tuples, plug-ins and added ones last."""
        return list(self._declared.values())

    def get(self, name: str) -> T:
        """Return the declaration of a key or alias, or the one that a Python file holds.

        Args:
            name: A key or alias, ``path/to/file.py``, or ``path/to/file.py:key`` for a file with several
                declarations. The file is run. Its declaration is not added to the registry.

        Raises:
            RegistryError: The name is unknown (the message names the nearest one), or the file cannot be run or does
                not hold such a declaration.
        """
        if names_file(name):
            return self._from_file(name)
        try:
            return self._declared[self._key_of[name]]
        except KeyError:
            raise RegistryError(f"unknown {self.kind} {name!r}; {did_you_mean(name, sorted(self._key_of))}") from None

    def add(self, declaration: T, *, from_file: bool = False) -> T:
        """Add a declaration for the rest of this process, and return it.

        Args:
            declaration: The declaration.
            from_file: Whether it is of a Python file that a user named. It then replaces an earlier one of a file,
                because the file may have changed.

        Raises:
            RegistryError: One of its names is taken by another declaration.
        """
        if from_file and declaration.key in self._of_files:
            del self._declared[declaration.key]
            vars(self).pop("_key_of", None)
        for name in (declaration.key, *getattr(declaration, "aliases", ())):
            if name in self._key_of and self._declared[self._key_of[name]] != declaration:
                raise RegistryError(
                    f"{self.kind} {declaration.key!r} cannot be added: {name!r} is already a name of {self.kind} "
                    f"{self._key_of[name]!r}; give it another one"
                )
        self._declared[declaration.key] = declaration
        if from_file:
            self._of_files.add(declaration.key)
        del self._key_of
        return declaration

    def _from_file(self, name: str) -> T:
        path, key = _split_key(name)
        held = {one.key: one for one in self._held(load_file(path), str(path))}
        if key is not None and key in held:
            return held[key]
        if key is not None and held:
            raise RegistryError(f"{path} holds no {self.kind} {key!r}; {did_you_mean(key, sorted(held))}")
        if len(held) > 1:
            raise RegistryError(
                f"{path} holds {len(held)} declarations in {self.attribute}: {', '.join(sorted(held))}; "
                f"choose one, for example {path}:{min(held)}"
            )
        if not held:
            raise RegistryError(f"{path} declares no {self.kind}; expected a tuple named {self.attribute}")
        return next(iter(held.values()))

    def _held(self, module: ModuleType, place: str) -> tuple[T, ...]:
        """Return the declarations of a module; none if it has no such tuple.

        Raises:
            RegistryError: The tuple is something else, or holds something else.
        """
        found: object = getattr(module, self.attribute, ())
        if not isinstance(found, tuple | list):
            raise RegistryError(
                f"{place}: {self.attribute} is of type {type(found).__name__}; expected a tuple of declarations"
            )
        for one in found:
            if not isinstance(getattr(one, "key", None), str):
                raise RegistryError(
                    f"{place}: {self.attribute} holds {one!r}, which is not a declaration of a {self.kind}; expected "
                    f"an object with a key, as in {self.package}"
                )
        return tuple(found)

    def __iter__(self) -> Iterator[T]:
        return (self._declared[name] for name in self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._key_of


def names_file(name: str) -> bool:
    """Whether a name is the path of a Python file, ``file.py`` or ``file.py:key``."""
    return _split_key(name)[0].suffix == ".py"


def file_of(name: str) -> Path:
    """Return the path in a name such as ``file.py`` or ``file.py:key``."""
    return _split_key(name)[0]


def _split_key(name: str) -> tuple[Path, str | None]:
    path, colon, key = name.rpartition(":")
    return (Path(path), key) if colon and path.endswith(".py") else (Path(name), None)


def _modules_of(package: str) -> Iterator[ModuleType]:
    folders = importlib.import_module(package).__path__
    for name in sorted(info.name for info in pkgutil.iter_modules(folders)):
        if not name.startswith("_"):
            yield importlib.import_module(f"{package}.{name}")


def plugin_modules() -> Iterator[ModuleType]:
    """Import the modules that installed packages name in the entry-point group."""
    for entry in sorted(entry_points(group=PLUGIN_GROUP), key=lambda entry: (entry.name, entry.value)):
        try:
            module = entry.load()
        except Exception as error:
            package = entry.dist.name if entry.dist else "an unknown package"
            raise RegistryError(
                f"the plug-in {entry.name!r} ({entry.value}) of {package} cannot be imported "
                f"({type(error).__name__}: {error}); correct or uninstall the package"
            ) from error
        if not isinstance(module, ModuleType):
            raise RegistryError(
                f"the plug-in {entry.name!r} names {entry.value}, which is not a module; name a module that holds "
                "declarations"
            )
        yield module
