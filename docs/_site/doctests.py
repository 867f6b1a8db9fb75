"""Show the examples in docstrings as code: an extension of griffe, which reads the docstrings for the reference."""

from __future__ import annotations

import re
from typing import Any, Final

from griffe import Extension, Object

_EXAMPLE: Final = re.compile(r"(?:^[ ]*>>>[^\n]*\n?(?:^(?![ ]*>>>)[^\n]*\S[^\n]*\n?)*)+", re.MULTILINE)


def fenced(text: str) -> str:
    r"""Put runs of ``>>>`` lines and their output into fences.

    >>> fenced("Add.\n\n>>> 1 + 1\n2\n\nMore.")
    'Add.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nMore.'
    """
    return _EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text)


class Doctests(Extension):
    """Fence the examples of every docstring."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:  # noqa: ANN401 griffe's interface
        """Rewrite the docstring of an object before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
