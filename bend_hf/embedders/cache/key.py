"""The key of cached embeddings: everything that decides their bytes, and nothing else.

>>> from bend_hf.embedders import OneHotEmbedder
>>> key_of("0f" * 16, OneHotEmbedder(), "float16") == key_of("0f" * 16, OneHotEmbedder(), "float32")
False
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import bend_hf
from bend_hf.embedders.cache.numbers import StoredDtype

if TYPE_CHECKING:
    from bend_hf.embedders._base import Embedder

FORMAT: Final = 2  # raised when the files' bytes change, so that older ones are left alone


def key_parts(content: str, embedder: Embedder, dtype: StoredDtype) -> dict[str, str]:
    """What goes into the key, by name, for people to read.

    Args:
        content: Checksum of the dataset, see ``content_of``.
        embedder: Its ``identity`` names the checkpoint's weights, layer, protocol and arithmetic.
        dtype: How rows are stored.
    """
    return {
        "format": str(FORMAT),
        "content": content,
        "stored_dtype": dtype,
        "width": str(embedder.width),
        "embedder_source": _source_of(type(embedder)),
        **{f"embedder_{name}": value for name, value in embedder.identity.items()},
    }


def key_of(content: str, embedder: Embedder, dtype: StoredDtype) -> str:
    """The key as 32 hexadecimal digits."""
    text = json.dumps(key_parts(content, embedder, dtype), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@lru_cache
def _source_of(kind: type) -> str:
    """Checksum of the code that makes rows: the class's own modules, what embedders share, the architectures.

    The package's version is in the embedder's identity; this one also tells two states of a checkout apart.
    """
    package = Path(bend_hf.__file__).parent
    own = [getattr(sys.modules.get(base.__module__), "__file__", None) for base in kind.__mro__]
    shared = [*(package / "embedders").glob("_*.py"), *(package / "embedders" / "networks").glob("*.py")]
    paths = {Path(path).resolve() for path in (*own, *shared) if path is not None}
    sums = sorted(  # by name and content, not by place: two installations of the same code agree
        (path.name, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in paths
        if path.suffix == ".py" and path.is_file()
    )
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:32]
