"""Import the ``evaluate`` library without its evaluators.

``import evaluate`` also imports ``evaluate.evaluator`` and ``evaluate.evaluation_suite``, and with them
``transformers.pipelines`` and ``scipy.stats``. Scoring uses neither, and they take most of the time. ``load_evaluate``
leaves these two modules out until something asks for a name of theirs, so the library stays complete.

>>> load_evaluate().load.__module__
'evaluate.loading'
"""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType
from typing import Final

_LATER: Final = ("evaluate.evaluation_suite", "evaluate.evaluator")
_lock = threading.Lock()


def load_evaluate() -> ModuleType:
    """Import ``evaluate`` and return it. What it imports of the evaluators is imported at their first use."""
    with _lock:
        if "evaluate" in sys.modules or any(name in sys.modules for name in _LATER):
            return importlib.import_module("evaluate")
        stands_in = {name: _StandsIn(name) for name in _LATER}
        sys.modules.update(stands_in)
        try:
            library = importlib.import_module("evaluate")
        finally:
            for name in stands_in:
                sys.modules.pop(name, None)
        later = {name: one.__name__ for one in stands_in.values() for name in one.asked}
        for name in (*later, *(name.rpartition(".")[2] for name in _LATER)):
            if isinstance(vars(library).get(name), (_Placeholder, _StandsIn)):
                delattr(library, name)
        library.__getattr__ = _FirstUse(library, later)  # type: ignore[method-assign]  # the hook of PEP 562
        return library


class _Placeholder:
    """What a name of a module stands for that is not imported yet."""


class _StandsIn(ModuleType):
    """A module that is not imported yet; it remembers the names that are asked of it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> _Placeholder:
        if name.startswith("__"):
            raise AttributeError(name)
        self.asked.append(name)
        return _Placeholder()


class _FirstUse:
    """Import the module behind a name of the library when the name is used.

    Args:
        library: ``evaluate``.
        later: The module of each name that is not imported yet.
    """

    def __init__(self, library: ModuleType, later: dict[str, str]) -> None:
        self._library, self._later = library, later

    def __call__(self, name: str) -> object:
        modules = {module.rpartition(".")[2]: module for module in _LATER}
        if name not in self._later and name not in modules:
            raise AttributeError(f"module 'evaluate' has no attribute {name!r}")
        module = importlib.import_module(self._later.get(name) or modules[name])
        for other, home in self._later.items():
            if home == module.__name__:
                setattr(self._library, other, getattr(module, other))
        return getattr(self._library, name)
