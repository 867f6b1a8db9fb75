"""A task's data, opened for use: its splits as datasets, and the facts about it that a result record keeps.

Where the data come from makes no difference here: files are built into the cache of `datasets`, a folder in the
image of the Hub and the Hub itself are loaded.

>>> fold_parts(10, fold=10)
(9, 0, (1, 2, 3, 4, 5, 6, 7, 8))
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.config import DataConfig
from bend_hf.data.examples import TaskExamples, read_rows
from bend_hf.data.sources import BuiltSource, Source, sources_of
from bend_hf.errors import BendError, ConfigError, SourceError
from bend_hf.tasks import Folds, TaskSpec
from bend_hf.types import Json

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

FACTS_FILE: Final = "bend_facts.json"  # beside the Parquet files of a built task


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """One task's data.

    Attributes:
        task: The declaration, with the label names that are in force.
        parts: The datasets it was built as: splits by name, or the parts of folds in order.
        facts: Origin, hashes and counts, for the result record.
    """

    task: TaskSpec
    parts: dict[str, Dataset]
    facts: dict[str, Json]

    @property
    def n_folds(self) -> int:
        """How many folds there are; 0 where the task has named splits."""
        return len(self.parts) if isinstance(self.task.partition, Folds) else 0

    def splits(self, fold: int | None) -> dict[str, Dataset]:
        """The splits of a fold (counted from 1), or of the task where it has none."""
        if fold is None:
            return self.parts
        from datasets import concatenate_datasets

        parts = list(self.parts.values())
        test, validation, train = fold_parts(len(parts), fold=fold)
        return {
            "train": concatenate_datasets([parts[number] for number in train]),
            "validation": parts[validation],
            "test": parts[test],
        }


def fold_parts(n: int, *, fold: int) -> tuple[int, int, tuple[int, ...]]:
    """Which parts a fold tests on, validates on and trains on; fold k tests on part k, counted from 1."""
    test, validation = (fold - 1) % n, fold % n
    return test, validation, tuple(part for part in range(n) if part not in (test, validation))


def load_task(
    task: str,
    data: str | None = None,
    *,
    bed: Path | None = None,
    labels: Path | None = None,
    genome: Path | None = None,
) -> TaskData:
    """Open the data of one task: its splits as datasets, and the facts about them.

    Args:
        task: Task key, or the path of a ``.py`` file that declares a task.
        data: ``sample``, ``hub`` or a data folder; None looks where ``--data`` looks by default.
        bed: BED file to use instead of the folder's.
        labels: HDF5 file of labels to use instead of the one next to the BED file.
        genome: FASTA file to use instead of the folder's.

    Raises:
        BendError: The task is unknown, or a file is bad or missing.
        ConfigError: The name is that of a group of several tasks.
    """
    config = DataConfig(task=(str(task),), data=data, bed=bed, labels=labels, genome=genome)
    sources = sources_of(config)
    if len(sources) > 1:
        raise ConfigError(f"{task!r} is a group of {len(sources)} tasks; name one of them ('bend-hf tasks' lists them)")
    source, message = sources[0]
    log.info(message)
    return open_task(source, config)


def open_task(source: Source, config: DataConfig) -> TaskData:
    """Reads, checks and builds a task's data, or loads what is built already.

    Raises:
        BendError: A file is bad or missing.
    """
    if isinstance(source, BuiltSource):
        return _open_built(source)
    rows = read_rows(source, out_of_bounds=config.out_of_bounds, ref_mismatch=config.ref_mismatch)
    from bend_hf.data.builder import make_builder

    builder = make_builder(rows, flip_labels=config.protocol != "bend-2024")
    builder.download_and_prepare()
    built = builder.as_dataset()
    parts = {name: built[name] for name in rows.part_names if name in built}
    return TaskData(
        task=rows.task,
        parts=parts,
        facts=file_facts(rows, builder.config.hashes, {name: len(part) for name, part in parts.items()}),
    )


def file_facts(rows: TaskExamples, hashes: dict[str, str], items: dict[str, int]) -> dict[str, Json]:
    """What a record says about data that were read from files.

    Args:
        rows: The files, read.
        hashes: The sha256 of each.
        items: Items in each split that was built of them.
    """
    padded = 0
    if rows.out_of_bounds == "pad":
        names = rows.bed.chromosome.dictionary.to_pylist()
        ends = np.array([rows.genome.contigs[name] for name in names], np.int64)[rows.bed.chromosome.indices.to_numpy()]
        padded = int((rows.bed.end_bp > ends).sum())
    return {
        "origin": rows.files.origin,
        "assembly": "GRCh37" if rows.files.origin == "sample" else rows.task.assembly,
        "files": {name: {"sha256": digest} for name, digest in sorted(hashes.items())},
        "rows_of_bed": len(rows),
        "items": dict(items),
        "changes": {
            "out_of_bounds": rows.out_of_bounds,
            "rows_padded": padded,
            "rows_dropped_out_of_bounds": len(rows) - rows.n_ref_mismatches - sum(items.values()),
            "rows_dropped_ref_mismatch": rows.n_ref_mismatches,
        },
    }


def _open_built(source: BuiltSource) -> TaskData:
    import datasets

    task = source.task
    folder = Path(source.repo)
    facts = _built_facts(source, folder)
    try:
        if isinstance(task.partition, Folds):
            # the parts are what the folds share; fold k tests on part k
            names = [n for n in datasets.get_dataset_config_names(source.repo) if n.startswith("fold_")]
            names.sort(key=lambda name: int(name.removeprefix("fold_")))
            parts = {
                f"part_{number}": datasets.load_dataset(source.repo, name, split="test")
                for number, name in enumerate(names)
            }
        else:
            parts = dict(datasets.load_dataset(source.repo, task.config))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise SourceError(
            f"{task.key}: the dataset {source.repo!r} cannot be loaded ({error}); check the network and the name, "
            "or give --data FOLDER"
        ) from error
    first = next(iter(parts.values()), None)
    if first is None:
        raise SourceError(f"{task.key}: the dataset {source.repo!r} holds no split")
    column = first.features["labels"].feature if "labels" in first.features else first.features["label"]
    return TaskData(
        task=task.with_label_names(tuple(column.names)),
        parts=parts,
        facts={**facts, "repo": source.repo, "items": {name: len(part) for name, part in parts.items()}},
    )


def _built_facts(source: BuiltSource, folder: Path) -> dict[str, Json]:
    """The facts that were written when the dataset was built; a sample stays a sample wherever it is loaded from."""
    name = f"data/{source.task.config}/{FACTS_FILE}" if source.task.config else f"data/{FACTS_FILE}"
    revision: str | None = None
    path = folder / name
    if not folder.is_dir():
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        try:
            api = HfApi()
            revision = api.dataset_info(source.repo).sha
            path = Path(api.hf_hub_download(source.repo, name, repo_type="dataset", revision=revision))
        except (OSError, HfHubHTTPError, OfflineModeIsEnabled) as error:
            raise SourceError(
                f"{source.task.key}: the dataset {source.repo!r} is not to be had ({error}); check the network and "
                "the name, or give --data FOLDER"
            ) from error
    try:
        facts: dict[str, Json] = json.loads(path.read_text(encoding="utf-8"))["facts"]
    except (OSError, ValueError, KeyError) as error:
        raise BendError(f"{path} is missing or cut; build the task again with 'bend-hf build'") from error
    return {**facts, "revision": revision}
