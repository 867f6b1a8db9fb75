"""Finds the declarations that the modules of a package hold, so that adding one is adding a file.

For tasks and models alike:

>>> from bend_hf.registry import Registry
>>> Registry(kind="task", package="bend_hf.tasks", attribute="TASKS").names()[0]
'chromatin_accessibility'
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Generic, Protocol, TypeVar

from bend_hf.errors import RegistryError, did_you_mean


class Declaration(Protocol):
    """What a registry can hold: anything with a key."""

    @property
    def key(self) -> str:
        """The name it is found by: registry key, command-line name, Hub name."""
        ...


T = TypeVar("T", bound=Declaration)


class Registry(Generic[T]):
    """The declarations of one package, found when first asked for.

    A module of the package that is not private (no leading underscore) and holds ``attribute``, a tuple of
    declarations, takes part. A declaration may have a field ``aliases``, a tuple of other names it is found by; it is
    listed by its key alone.

    Args:
        kind: What a declaration is called in messages, for example ``task``.
        package: Dotted name of the package to look through.
        attribute: Name of the tuple in each module, for example ``TASKS``.
    """

    def __init__(self, *, kind: str, package: str, attribute: str) -> None:
        self.kind = kind
        self.package = package
        self.attribute = attribute

    @cached_property
    def _declared(self) -> Mapping[str, T]:
        package = importlib.import_module(self.package)
        found: dict[str, T] = {}
        for module_name in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
            if module_name.startswith("_"):
                continue
            module = importlib.import_module(f"{self.package}.{module_name}")
            for declaration in getattr(module, self.attribute, ()):
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
                        f"{self.kind} {key!r} has the alias {alias!r}, which is a name of {self.kind} {keys[alias]!r} "
                        f"already; give it another one"
                    )
                keys[alias] = key
        return keys

    def names(self) -> list[str]:
        """All keys, sorted; no aliases."""
        return sorted(self._declared)

    def get(self, name: str) -> T:
        """The declaration of that key or alias.

        Raises:
            RegistryError: There is none; the message names the nearest one.
        """
        try:
            return self._declared[self._key_of[name]]
        except KeyError:
            raise RegistryError(f"unknown {self.kind} {name!r}; {did_you_mean(name, sorted(self._key_of))}") from None

    def __iter__(self) -> Iterator[T]:
        return (self._declared[name] for name in self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._key_of
