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
    declarations, takes part.

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

    def names(self) -> list[str]:
        """All keys, sorted."""
        return sorted(self._declared)

    def get(self, key: str) -> T:
        """The declaration of that key.

        Raises:
            RegistryError: There is none; the message names the nearest key.
        """
        try:
            return self._declared[key]
        except KeyError:
            raise RegistryError(f"unknown {self.kind} {key!r}; {did_you_mean(key, self.names())}") from None

    def __iter__(self) -> Iterator[T]:
        return (self._declared[name] for name in self.names())

    def __contains__(self, key: object) -> bool:
        return key in self._declared
