"""The key of cached embeddings: a hash of everything that affects their bytes, and of nothing else.

The content of a dataset counts, however it is cut into chunks or files:

>>> import datasets
>>> one = datasets.Dataset.from_dict({"sequence": ["ACGT", "AC"]})
>>> two = datasets.concatenate_datasets([one.select([0]), one.select([1])])
>>> content_of(one).digest == content_of(two).digest, content_of(one).lengths_bp.tolist()
(True, [4, 2])
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

import bend_hf
from bend_hf.errors import CacheError
from bend_hf.files import json_sha256
from bend_hf.types import Ints, StoredDtype

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.embedders._embedder import Embedder

FORMAT: Final = 2  # raised when the bytes of the files change, so that older caches are left alone
_ITEMS_PER_READ: Final = 16_384
_CONTENTS: Final = WeakKeyDictionary["Dataset", "Content"]()  # folds ask for the same subsets many times


def key_parts(
    content: str, embedder: Embedder, dtype: StoredDtype, identity: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return what the key is made of, by name, for people to read.

    Args:
        content: Checksum of the dataset, see ``content_of``.
        embedder: Its ``identity`` names the checkpoint's weights, the layer, the protocol and the arithmetic.
        dtype: How embeddings are stored.
        identity: The embedder's identity in the folder of the cache, see ``_probe.identity_in``; None: its identity.
    """
    return {
        "format": str(FORMAT),
        "content": content,
        "stored_dtype": dtype,
        "embedder_source": _source_of(type(embedder)),
        **{f"embedder_{name}": value for name, value in (identity or embedder.identity).items()},
    }


def key_of(parts: Mapping[str, str]) -> str:
    """Return the key of ``key_parts``, 32 hexadecimal digits."""
    return json_sha256(dict(parts))[:32]


@lru_cache
def _source_of(kind: type) -> str:
    """Hash the code that computes embeddings: the class's own modules, shared modules, and the architectures.

    The embedder's identity holds the package's version; this hash also separates two states of a checkout.
    """
    package = Path(bend_hf.__file__).parent
    modules = [getattr(sys.modules.get(base.__module__), "__file__", None) for base in kind.__mro__]
    shared = [*(package / "embedders").glob("_*.py"), *(package / "embedders" / "networks").glob("*.py")]
    paths = {Path(path).resolve() for path in (*modules, *shared) if path is not None}
    digests = sorted(  # by name and content, not by path: two installations of the same code agree
        (path.name, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in paths
        if path.suffix == ".py" and path.is_file()
    )
    return json_sha256([[name, digest] for name, digest in digests])[:32]


@dataclass(frozen=True, kw_only=True)
class Content:
    """The content of one dataset.

    Attributes:
        digest: Checksum of names, types and values of all columns, in the order of the items.
        lengths_bp: Nucleotides of each sequence, shape (items,).
    """

    digest: str
    lengths_bp: Ints


def content_of(dataset: Dataset) -> Content:
    """Compute the checksum of a dataset, which is read once as long as the object exists.

    Raises:
        CacheError: It has no column ``sequence``.
    """
    found = _CONTENTS.get(dataset)
    if found is None:
        found = _CONTENTS[dataset] = _read_content(dataset)
    return found


def _read_content(dataset: Dataset) -> Content:
    if "sequence" not in dataset.column_names:
        raise CacheError(f"the dataset has no column 'sequence' to embed; it has {', '.join(dataset.column_names)}")
    checksums = _ColumnChecksums()
    lengths = [np.zeros(0, np.int64)]
    for table in dataset.with_format("arrow").iter(_ITEMS_PER_READ):
        for name in sorted(table.column_names):
            for chunk in table[name].chunks:
                checksums.add(name, chunk)
        lengths.append(pc.binary_length(table["sequence"]).cast(pa.int64()).to_numpy())
    types = {name: str(feature) for name, feature in sorted(dataset.features.items())}
    return Content(digest=checksums.digest(types), lengths_bp=np.concatenate(lengths))


class _ColumnChecksums:
    """A running checksum for each buffer of each column; values, lengths and nulls are kept apart."""

    def __init__(self) -> None:
        self._running: dict[str, xxhash.xxh3_128] = {}
        self._seen: dict[str, int] = {}

    def add(self, name: str, array: pa.Array) -> None:
        """Add the next values of a column."""
        kind = array.type
        if pa.types.is_dictionary(kind):
            self.add(name, array.dictionary_decode())
            return
        seen = self._seen.get(name, 0)
        self._seen[name] = seen + len(array)
        if array.null_count:
            self._update(f"{name} nulls", np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False)) + seen)
        if pa.types.is_fixed_size_list(kind):
            array = array.cast(pa.large_list(kind.value_type))
            kind = array.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            self._update(f"{name}.lengths", pc.list_value_length(array).cast(pa.int64()).fill_null(-1).to_numpy())
            self.add(f"{name}[]", array.flatten())
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            self._add_strings(name, array.cast(pa.large_string()))
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            self._update(name, array.fill_null(0).to_numpy(zero_copy_only=False))
        else:
            lines = "".join(json.dumps(value, default=repr, sort_keys=True) + "\n" for value in array.to_pylist())
            self._update(name, np.frombuffer(lines.encode(), np.uint8))

    def digest(self, types: dict[str, str]) -> str:
        """Return one checksum over all columns and their types."""
        columns = {name: running.hexdigest() for name, running in self._running.items()}
        return xxhash.xxh3_128_hexdigest(json.dumps([types, columns], sort_keys=True).encode())

    def _add_strings(self, name: str, array: pa.Array) -> None:
        self._update(f"{name}.lengths", pc.binary_length(array).cast(pa.int64()).fill_null(-1).to_numpy())
        array = array.fill_null("")
        offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
        characters = array.buffers()[2]
        if characters is not None and len(array):
            self._update(name, np.frombuffer(characters, np.uint8)[offsets[0] : offsets[-1]])

    def _update(self, name: str, values: NDArray[Any]) -> None:
        self._running.setdefault(name, xxhash.xxh3_128()).update(np.ascontiguousarray(values).data)
