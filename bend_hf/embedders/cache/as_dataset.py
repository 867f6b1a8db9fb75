"""Let ``datasets.load_from_disk`` read a finished cache entry: two small files next to its shards.

    datasets.load_from_disk("cache/dnabert2-float16-0123456789abcdef")

>>> STATE, INFO
('state.json', 'dataset_info.json')
"""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bend_hf.embedders.cache.shards import STATE as STATE
from bend_hf.embedders.cache.shards import ShardFiles, ShardPlan
from bend_hf.errors import CacheError
from bend_hf.files import atomic_path
from bend_hf.types import Json

if TYPE_CHECKING:
    from datasets import Features

INFO = "dataset_info.json"  # datasets.config.DATASET_INFO_FILENAME


def describe_dataset(folder: Path, plan: ShardPlan, shards: Sequence[ShardFiles], features: Features) -> None:
    """Write the files that ``datasets.load_from_disk`` asks for, if every shard is finished and they are not there.

    Nothing is written into a cache that is read-only.

    Args:
        folder: The cache entry.
        plan: Its plan.
        shards: All its shards.
        features: The columns of its shards.

    Raises:
        CacheError: The disk is full, or it fails.
    """
    if (folder / STATE).is_file() or not all(files.record.exists() for files in shards):
        return
    info: dict[str, Json] = {"description": plan.label, "features": features.to_dict()}
    state: dict[str, Json] = {
        "_data_files": [{"filename": files.arrow.name} for files in shards],
        "_fingerprint": plan.key,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    try:
        for name, content in ((INFO, info), (STATE, state)):  # the state last, which says that the entry is whole
            with atomic_path(folder / name) as part:
                part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return
        raise CacheError(
            f"cannot write {folder / name} ({error}); the embeddings are finished and kept. Free some space and repeat "
            "the command."
        ) from error
