"""Build tasks into folders shaped like Hub repositories: sharded Parquet, a dataset card, checksums, and the metrics.

``bend/gene_finding/`` is laid out like a dataset repository and ``bend/mcc/`` like a metric Space. So
``load_dataset("bend/gene_finding")`` and ``evaluate.load("bend/mcc")`` work in the folder that holds ``bend/``, and a
push uploads the folders unchanged.

>>> shard_name("train", 0, 3)
'train-00000-of-00003.parquet'
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.config import DataConfig
from bend_hf.data.builder import BendBuilder, make_builder
from bend_hf.data.dataset import FACTS_FILE, file_facts
from bend_hf.data.examples import TaskExamples, read_examples
from bend_hf.data.sources import TaskFiles, sources_of
from bend_hf.errors import BendError, SourceError
from bend_hf.evaluation.audit.copies import Thresholds
from bend_hf.evaluation.audit.rows import parquet_subset, read_subsets
from bend_hf.evaluation.audit.task_audit import audit_facts, audit_rows
from bend_hf.evaluation.metrics import write_metric_folders
from bend_hf.evaluation.record import check_writable
from bend_hf.files import disk_error, file_sha256, replace_folder, write_text
from bend_hf.lease import take_for_long
from bend_hf.publishing.dataset_card import write_dataset_card
from bend_hf.publishing.duplicates import find_duplicates
from bend_hf.tasks import TaskSpec
from bend_hf.types import Json

if TYPE_CHECKING:
    import datasets

_CARD: Final = "README.md"
_SHARD_SIZE: Final = "500MB"  # default of datasets, config.MAX_SHARD_SIZE


@dataclass(frozen=True, kw_only=True)
class BuiltTask:
    """One built task."""

    key: str
    folder: Path
    n_items: int
    n_bytes: int


def build(
    config: DataConfig, out: Path, *, num_proc: int | None = None, log: Callable[[str], None] = lambda text: None
) -> list[BuiltTask]:
    """Build tasks and metrics into a folder.

    All inputs are checked before anything is written. A task replaces an earlier build of itself once it is complete.
    What killed builds of the same tasks left in the folder is removed.

    Args:
        config: The tasks and their data.
        out: The folder, usually ``bend``.
        num_proc: Number of processes that read and write one task.
        log: Receives one line about the data of each task.

    Raises:
        BendError: An input is invalid, the folder cannot be written, or another process is building one of the tasks.
    """
    check_writable(out)
    found = []
    for source, message in sources_of(config):
        log(message)
        if not isinstance(source, TaskFiles):
            raise SourceError(f"{source.task.key}: {source.repo} is already built; give --data a folder of BED files")
        found.append(read_examples(source, out_of_bounds=config.out_of_bounds, ref_mismatch=config.ref_mismatch))
    built = []
    for rows in found:
        with _only_build(rows.task, out):
            built.append(_build_task(rows, out, flip=config.protocol != "bend-2024", num_proc=num_proc))
            write_dataset_card(out / rows.task.group)
    write_metric_folders(out)
    return built


def _target(task: TaskSpec, out: Path) -> Path:
    return out / task.group / "data" / (task.config or "")


@contextlib.contextmanager
def _only_build(task: TaskSpec, out: Path) -> Iterator[None]:
    """Keep other processes from building the task in this folder, and sweep what killed ones left."""
    try:
        lease = take_for_long(out / f".{task.key}.lock")
    except OSError as error:
        raise BendError(f"cannot write {out} ({error}); free some disk space or give another --out") from error
    if lease is None:
        raise BendError(
            f"another process is building {task.key} in {out}; wait until it is finished, or give another --out"
        )
    with lease:
        _sweep(task, out)
        yield


def _sweep(task: TaskSpec, out: Path) -> None:
    """Remove what killed builds of a task left; only the holder of its lease may call it."""
    target = _target(task, out)
    for old in sorted(target.parent.glob(f".{target.name}.old*")):
        if not target.exists():
            old.rename(target)  # the build was killed while it replaced the folder
        shutil.rmtree(old, ignore_errors=True)
    for part in out.glob(f".{task.key}.part*"):
        shutil.rmtree(part, ignore_errors=True)


def _build_task(rows: TaskExamples, out: Path, *, flip: bool, num_proc: int | None) -> BuiltTask:
    task = rows.task
    target = _target(task, out)
    part = out / f".{task.key}.part{os.getpid()}"
    builder = make_builder(rows, flip_labels=flip, cache_dir=part / "cache")
    try:
        builder.download_and_prepare(
            output_dir=str(part / "files"), file_format="parquet", max_shard_size=_SHARD_SIZE, num_proc=num_proc
        )
        shards = _rename_shards(part / "files", rows.subset_names)
        facts = _facts(rows, builder, shards)
        body = json.dumps(facts, indent=2, allow_nan=False) + "\n"
        write_text(part / "files" / FACTS_FILE, body)
        # The old card names the old content; next to new files it would make `datasets` read its cache of the old ones.
        (out / task.group / _CARD).unlink(missing_ok=True)
        replace_folder(part / "files", target)
    except Exception as error:  # datasets raises errors of its own when a write fails
        reason = disk_error(error) or (error if isinstance(error, OSError) else None)
        if reason is None:
            raise
        raise BendError(f"cannot write {target} ({reason}); free some disk space or give another --out") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    paths = [target / name for names in shards.values() for name in names]
    return BuiltTask(
        key=task.key,
        folder=out / task.group,
        n_items=sum(info.num_examples for info in builder.info.splits.values()),
        n_bytes=sum(path.stat().st_size for path in paths),
    )


def shard_name(part: str, number: int, count: int) -> str:
    """Name of a Parquet file, as on the Hub."""
    return f"{part}-{number:05d}-of-{count:05d}.parquet"


def _rename_shards(folder: Path, part_names: Sequence[str]) -> dict[str, list[str]]:
    """Rename the Parquet files as on the Hub, and remove all other files."""
    shards: dict[str, list[str]] = {}
    written = sorted(folder.glob("*.parquet"))
    for part in part_names:
        mine = [path for path in written if path.name.split(".")[0].split("-")[1] == part]
        names = [shard_name(part, number, len(mine)) for number in range(len(mine))]
        for path, name in zip(mine, names, strict=True):
            path.rename(folder / name)
        if mine:
            shards[part] = names
    for path in folder.iterdir():
        if path.suffix != ".parquet":
            path.unlink()
    return shards


def _facts(rows: TaskExamples, builder: BendBuilder, shards: dict[str, list[str]]) -> dict[str, Json]:
    """The facts about a build: hashes of its input and output, counts, duplicates."""
    folder = Path(builder._output_dir)
    splits: dict[str, datasets.SplitInfo] = builder.info.splits
    facts = file_facts(rows, builder.config.hashes, {part: splits[part].num_examples for part in shards})
    duplicates = find_duplicates([(part, [folder / name for name in names]) for part, names in shards.items()])
    splits_on_disk = {part: parquet_subset([folder / name for name in names]) for part, names in shards.items()}
    audit = audit_rows(rows.task, read_subsets(rows.task, splits_on_disk), Thresholds()).as_json()
    facts["audit"] = audit_facts(audit)
    return {
        "task": rows.task.key,
        "config": rows.task.config,
        "stranded": rows.task.stranded,
        "label_names": list(rows.task.label_names),
        "facts": facts,
        "repetitions": duplicates.as_json(),
        "audit": audit,
        "shards": {part: list(names) for part, names in shards.items()},
        "sha256": {name: file_sha256(folder / name) for names in shards.values() for name in names},
        "bytes": {name: (folder / name).stat().st_size for names in shards.values() for name in names},
        "features": builder.info.features._to_yaml_list(),
    }
