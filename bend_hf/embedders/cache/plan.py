"""How one dataset's embeddings are cut into shards; written once, so that every process cuts alike.

    <cache>/<model>-<dtype>-<key>/about.json

>>> shard_starts(np.array([300, 300, 300, 300]), shard_bp=600).tolist()
[0, 2, 4]
"""

from __future__ import annotations

import json
import os
import re
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bend_hf.embedders.cache.numbers import StoredDtype, itemsize
from bend_hf.embedders.cache.shard import ShardFiles
from bend_hf.errors import CacheError
from bend_hf.shapes import Ints

ABOUT: Final = "about.json"
SHARD_BYTES: Final = 1 << 29  # a kill costs at most one shard of work
_MOST_SHARDS: Final = 256  # each holds a file open while it is read; 1,024 is a usual limit
# Of token rows in a record batch: few enough that memory which was just filled is still in the processor's cache when
# it is written, and that filling, writing and flushing overlap; enough that what a batch costs by itself is little.
_BATCH_BYTES: Final = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One keyed folder of the cache.

    Attributes:
        key: See ``key_of``.
        parts: What the key is made of, for people.
        label: What the data are called, for people.
        model: What the model is called, for people.
        dtype: How rows are stored.
        width: Numbers in a row.
        items: Sequences in all.
        nucleotides: In all sequences.
        shard_starts: First item of each shard, and behind the last one the number of items.
        rows_per_bp: Token rows a nucleotide, estimated from some sequences.
    """

    key: str
    parts: dict[str, str]
    label: str
    model: str
    dtype: StoredDtype
    width: int
    items: int
    nucleotides: int
    shard_starts: tuple[int, ...]
    rows_per_bp: float

    @property
    def n_shards(self) -> int:
        """How many."""
        return len(self.shard_starts) - 1

    def forecast_bytes(self, nucleotides: int) -> int:
        """About how many bytes so many nucleotides take."""
        return int(nucleotides * (self.rows_per_bp * row_bytes(self.width, self.dtype) + _BESIDE_BYTES_PER_BP))


_BESIDE_BYTES_PER_BP: Final = 9  # at most: a label of 8 bytes a nucleotide, coordinates


def row_bytes(width: int, dtype: StoredDtype) -> int:
    """Bytes of one token: its numbers and its length in nucleotides."""
    return width * itemsize(dtype) + 4


def entry_folder(cache: Path, model: str, dtype: StoredDtype, key: str) -> Path:
    """Where embeddings of that key lie; the name's beginning is for people."""
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", model).strip("-.")[-40:] or "model"
    return cache / f"{plain}-{dtype}-{key}"


def shard_files(folder: Path, n_shards: int) -> list[ShardFiles]:
    """All shards of an entry."""
    return [ShardFiles(folder=folder, number=number, of=n_shards) for number in range(n_shards)]


def shard_starts(lengths_bp: Ints, *, shard_bp: int) -> Ints:
    """Cuts items into contiguous shards of about equal nucleotides, none of them empty.

    Args:
        lengths_bp: Nucleotides of each item, shape (n,).
        shard_bp: Nucleotides of a shard, about.

    Returns:
        First item of each shard and n, shape (shards + 1,).
    """
    ends = np.cumsum(lengths_bp)
    total = int(ends[-1]) if len(ends) else 0
    n_shards = max(1, min(-(-total // max(shard_bp, 1)), len(ends), _MOST_SHARDS))
    inner = np.searchsorted(ends, np.arange(1, n_shards) * total / n_shards, side="left") + 1
    return np.unique(np.concatenate([[0], inner, [len(ends)]])).astype(np.int64)


def batch_items(plan: Plan, lengths_bp: Ints) -> int:
    """How many items of a shard make a record batch.

    Args:
        plan: The entry's.
        lengths_bp: Nucleotides of the shard's items, shape (n,).
    """
    mean_bytes = plan.forecast_bytes(int(lengths_bp.sum())) / max(len(lengths_bp), 1)
    return max(1, int(_BATCH_BYTES // max(mean_bytes, 1)))


def read_plan(folder: Path) -> Plan | None:
    """The plan of an entry; None where none is there yet.

    Raises:
        CacheError: It is there, but cannot be read.
    """
    path = folder / ABOUT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Plan(**{**found, "shard_starts": tuple(found["shard_starts"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheError(
            f"{path} cannot be read ({error}); remove the folder {folder} ('bend-hf cache prune --broken'), its "
            "embeddings are made again"
        ) from error


def publish_plan(folder: Path, plan: Plan) -> Plan:
    """Writes a plan unless there is one, and returns the one that is there: of several writers the first wins."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ABOUT
    written = path.with_name(f"{ABOUT}.{uuid.uuid4().hex}")
    with written.open("w", encoding="utf-8") as file:
        json.dump(asdict(plan), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(written, path)
    except (FileExistsError, FileNotFoundError):  # there is one, and somebody may have tidied up behind it
        pass
    except OSError:  # no hard links here; plans are the same whoever makes them
        if not path.exists():
            with suppress(FileNotFoundError):  # another one has published meanwhile, and tidied up behind it
                written.replace(path)
    tidy(folder)
    published = read_plan(folder)
    if published is None:
        raise CacheError(f"{path} was removed while it was written; does somebody prune this cache? Run again")
    return published


def tidy(folder: Path) -> None:
    """Removes what a process that was killed while it published a plan has left beside the plan that there is now."""
    for left in folder.glob(f"{ABOUT}.*"):
        left.unlink(missing_ok=True)
