"""Write cached embeddings as a dataset that others load: Parquet with a card, in a folder or on the Hub.

>>> split_of("gene_finding train"), split_of("enhancer_annotation part_3"), split_of("")
('train', 'part_3', 'train')
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet

from bend_hf import __version__
from bend_hf.embedders.cache.dtypes import COLUMN_OF
from bend_hf.embedders.cache.manage import EntryInfo
from bend_hf.errors import CacheError, ConfigError
from bend_hf.files import asset_folder, atomic_path, explain_write_errors, replace_folder, write_text
from bend_hf.lease import process_lives
from bend_hf.publishing.hub import Upload, UploadFile, push
from bend_hf.tables import render
from bend_hf.types import Json

if TYPE_CHECKING:
    from bend_hf.embedders.cache.shards import ShardPlan
    from bend_hf.publishing.hub import PushResult

ABOUT: Final = "bend_cache.json"  # left by every export; a later one replaces its files
_DATA: Final = "data"
_UNFINISHED: Final = f".{_DATA}.*"  # see files.replace_folder
_CARD: Final = "README.md"
_HUB: Final = "hub:"
_OWN_PARTS: Final = ("content", "embedder_code")  # of the data of one split, and of this release


def split_of(label: str) -> str:
    """Return the name of the split that an entry holds, from its label."""
    word = label.split()[-1] if label.split() else "train"
    return word if re.fullmatch(r"train|validation|test|part_\d+", word) else "train"


def export(entries: Sequence[EntryInfo], to: str, *, public: bool = False) -> Path | PushResult:
    """Write the entries of one model as the splits of one dataset.

    Args:
        entries: The entries, of which each is a split.
        to: A folder, or ``hub:OWNER/NAME``.
        public: Make the repository public; by default a new one is private.

    Returns:
        The folder, or the outcome of the push.

    Raises:
        CacheError: There is no entry, one is not finished, or they are not the splits of one dataset.
        ConfigError: The folder holds something else.
        HubError: The Hub refused or cannot be reached.
    """
    splits = _splits(entries)
    if not to.startswith(_HUB):
        folder = Path(to)
        others = [path for path in folder.iterdir() if not path.match(_UNFINISHED)] if folder.exists() else []
        if others and not (folder / ABOUT).is_file():
            raise ConfigError(f"--to {folder} holds other files; give an empty folder")
        _write(splits, folder, folder.name, str(to))
        return folder
    repo = to.removeprefix(_HUB)
    trial = Upload(
        repo=repo, repo_type="dataset", files=(), message="Upload embeddings with bend_hf"
    )  # checks the name
    some = next(iter(splits.values()))
    with tempfile.TemporaryDirectory(dir=some.path.parent, prefix=".export") as made:
        names = _write(splits, Path(made), repo.partition("/")[2], repo)
        files = tuple(UploadFile(name, Path(made) / name) for name in sorted(names))
        (pushed,) = push([replace(trial, files=files, mirrored=("data",), filled_by=ABOUT)], public=public)
    return pushed


def _splits(entries: Sequence[EntryInfo]) -> dict[str, EntryInfo]:
    """Return the entries by split."""
    if not entries:
        raise CacheError("no cached embeddings are selected; 'bend-hf cache list' shows them")
    found: dict[str, EntryInfo] = {}
    for entry in entries:
        if entry.plan is None or not entry.is_whole:
            raise CacheError(f"{entry.path.name} is not finished; run 'bend-hf embed' again, or select other entries")
        name = split_of(entry.plan.label)
        if name in found:
            raise CacheError(
                f"{found[name].path.name} and {entry.path.name} are both a split {name!r}; select the entries of one "
                "task and one model by a word of their names"
            )
        found[name] = entry
    about = {json.dumps(_shared(entry.plan)) for entry in found.values() if entry.plan is not None}
    if len(about) > 1:
        names = ", ".join(entry.path.name for entry in found.values())
        raise CacheError(f"{names} are of several models, tasks or settings; select those of one")
    order = ("train", "validation", "test")
    return dict(sorted(found.items(), key=lambda one: (order.index(one[0]) if one[0] in order else 3, one[0])))


def _shared(plan: ShardPlan) -> dict[str, Json]:
    """Return what the splits of one dataset have in common."""
    parts: dict[str, Json] = {name: value for name, value in sorted(plan.parts.items()) if name not in _OWN_PARTS}
    task = plan.label.rpartition(" ")[0]
    return {"task": task, "model": plan.model, "dtype": plan.dtype, "width": plan.width, "parts": parts}


def _write(splits: dict[str, EntryInfo], folder: Path, name: str, repo: str) -> list[str]:
    """Write the files of the dataset, and return their names.

    Earlier files stay until the new ones are complete. Readers of datasets skip the hidden folder of unfinished files.
    """
    for left in folder.glob(_UNFINISHED):
        if not process_lives(int(re.sub(r"\D", "", left.name) or 0)):
            shutil.rmtree(left, ignore_errors=True)
    part = folder / f".{_DATA}.part{os.getpid()}"
    try:
        shards = [
            _write_shard(files.arrow, part / f"{split}-{files.number:05d}-of-{files.of:05d}.parquet")
            for split, entry in splits.items()
            for files in entry.shards
        ]
        # First the file that says whose folder it is, last the card, without which the folder is no dataset.
        with explain_write_errors(folder / _DATA):
            (folder / _CARD).unlink(missing_ok=True)
            write_text(folder / ABOUT, _about(splits))
            replace_folder(part, folder / _DATA)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    plans = {split: entry.plan for split, entry in splits.items() if entry.plan is not None}
    write_text(folder / _CARD, _card(plans, _shared(next(iter(plans.values()))), name, repo))
    return [*(f"{_DATA}/{shard}" for shard in shards), ABOUT, _CARD]


def _about(splits: dict[str, EntryInfo]) -> str:
    """Write what the export holds as JSON."""
    plans = {split: entry.plan for split, entry in splits.items() if entry.plan is not None}
    shared = _shared(next(iter(plans.values())))
    counts: dict[str, Json] = {
        split: {"items": plan.items, "nucleotides": plan.nucleotides, "content": plan.parts.get("content", "")}
        for split, plan in plans.items()
    }
    return json.dumps({**shared, "splits": counts, "bend_hf": __version__}, indent=1) + "\n"


def _write_shard(arrow: Path, path: Path) -> str:
    """Copy a shard to Parquet, one record batch after the other; return the file's name."""
    with (
        pa.memory_map(str(arrow)) as source,
        pa.ipc.open_stream(source) as batches,
        explain_write_errors(path),
        atomic_path(path) as part,
        pa.parquet.ParquetWriter(part, batches.schema, compression="zstd") as file,
    ):
        for batch in batches:
            file.write_batch(batch)
    return path.name


def _card(plans: dict[str, ShardPlan], shared: dict[str, Json], name: str, repo: str) -> str:
    import yaml

    first = next(iter(plans.values()))
    metadata = {
        "pretty_name": name,
        "tags": ["biology", "genomics", "DNA", "embeddings"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*"} for split in plans],
            }
        ],
    }
    parts = shared["parts"]
    fields = {
        "name": name,
        "repo": repo,
        "model": first.model,
        "labels": str(shared["task"]) or "sequences",
        "version": __version__,
        "column": COLUMN_OF[first.dtype],
        "width": first.width,
        "dtype": first.dtype,
        "parts": sorted(parts.items()) if isinstance(parts, dict) else [],
        "splits": [{"name": split, "n_items": plan.items, "n_bp": plan.nucleotides} for split, plan in plans.items()],
    }
    text = render(asset_folder("model_cards") / "cache_card.md.jinja", fields)
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False).strip()}\n---\n\n{text}"
