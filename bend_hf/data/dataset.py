"""Open a task's data: its splits as datasets, and the facts about it that a result record keeps.

Files are built into the cache of ``datasets``; a folder with the layout of the Hub, and the Hub itself, are loaded.

>>> fold_subsets(10, fold=10)
(9, 0, (1, 2, 3, 4, 5, 6, 7, 8))
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bend_hf.config import DataConfig
from bend_hf.data.assembly import UNKNOWN, assembly_of
from bend_hf.data.examples import TaskExamples, read_examples
from bend_hf.data.sources import BuiltSource, Source, sources_of
from bend_hf.errors import BendError, ConfigError, SourceError, hub_errors
from bend_hf.files import file_sha256, json_sha256, parse_json
from bend_hf.tasks import Folds, RealValues, TaskSpec
from bend_hf.types import Ints, Json

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

FACTS_FILE: Final = "bend_facts.json"  # next to the Parquet files of a built task


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskData:
    """The data of one task.

    Attributes:
        task: The declaration, with the label names of the data.
        subsets: Splits by name, or the subsets that folds are made of, in order.
        facts: Origin, hashes and counts, for the result record.
        genome: FASTA file that the sequences were read from; None for a built dataset.
    """

    task: TaskSpec
    subsets: dict[str, Dataset]
    facts: dict[str, Json]
    genome: Path | None = None

    @property
    def n_folds(self) -> int:
        """Number of folds; 0 if the task has named splits."""
        return len(self.subsets) if isinstance(self.task.partition, Folds) else 0

    def splits(self, fold: int | None) -> dict[str, Dataset]:
        """Return the splits of a fold (counted from 1), or of a task without folds."""
        return self.subsets if fold is None else dict(_splits_of_fold(self, fold))


@functools.lru_cache(maxsize=16)  # joining subsets copies all they say of themselves; runs and checks ask many times
def _splits_of_fold(data: TaskData, fold: int) -> Mapping[str, Dataset]:
    from datasets import concatenate_datasets

    subsets = list(data.subsets.values())
    test, validation, train = fold_subsets(len(subsets), fold=fold)
    return {
        "train": concatenate_datasets([subsets[number] for number in train]),
        "validation": subsets[validation],
        "test": subsets[test],
    }


def limited(data: TaskData, limit: int | None) -> TaskData:
    """Return a task's data with at most ``limit`` items of each split, spread evenly over it.

    Items with the same number in a column ``pair`` stay together, as matched pairs of variants must.

    Args:
        data: The data of the task.
        limit: Number of items; None keeps all.
    """
    if limit is None:
        return data
    subsets = {
        name: subset.select(_spread_rows(subset, limit)) if len(subset) > limit else subset
        for name, subset in data.subsets.items()
    }
    items: dict[str, Json] = {name: len(subset) for name, subset in subsets.items()}
    return replace(data, subsets=subsets, facts={**data.facts, "items": items, "limit": limit})


def _spread_rows(subset: Dataset, limit: int) -> Ints:
    """Choose rows of a split as ``limited`` does."""
    if "pair" not in subset.column_names:
        return spread(len(subset), limit)
    pair = np.unique(np.asarray(subset.with_format(None)["pair"]).astype(str), return_inverse=True)[1]
    first = np.full(int(pair.max()) + 1, len(pair), dtype=np.int64)
    np.minimum.at(first, pair, np.arange(len(pair)))
    n_pairs = int(limit * len(first) / len(pair))
    if not n_pairs:
        return spread(len(subset), limit)
    chosen = np.argsort(first)[spread(len(first), n_pairs)]
    return np.flatnonzero(np.isin(pair, chosen))


def spread(n: int, limit: int | None) -> Ints:
    """Return at most ``limit`` of the numbers below ``n``, spread evenly; None keeps all.

    >>> spread(5, 2).tolist(), spread(3, None).tolist()
    ([0, 4], [0, 1, 2])
    """
    if limit is None or n <= limit:
        return np.arange(n)
    return np.unique(np.linspace(0, n - 1, limit).round().astype(np.int64))


def fold_subsets(n: int, *, fold: int) -> tuple[int, int, tuple[int, ...]]:
    """Return the subsets that a fold tests on, validates on and trains on; fold k tests on subset k, counted from 1."""
    test, validation = (fold - 1) % n, fold % n
    return test, validation, tuple(subset for subset in range(n) if subset not in (test, validation))


def parts_of_fold(parts: Sequence[str], fold: int) -> dict[str, list[str]]:
    """Return the subsets that make up each split of a fold, counted from 1."""
    test, validation, train = fold_subsets(len(parts), fold=fold)
    return {"train": [parts[n] for n in train], "validation": [parts[validation]], "test": [parts[test]]}


_MARK: Final = "Content sha256: "


def content_mark(hashes: Mapping[str, Sequence[str]]) -> str:
    """Return the description that the card of a built task gives ``datasets``, which names its cache by the card.

    Args:
        hashes: For each split the sha256 of its Parquet files.
    """
    return _MARK + json_sha256({split: list(of_split) for split, of_split in hashes.items()})


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
    openers = task_openers(config)
    if len(openers) > 1:
        raise ConfigError(f"{task!r} is a group of {len(openers)} tasks; name one of them ('bend-hf tasks' lists them)")
    (open_one,) = openers.values()
    return open_one()


def task_openers(config: DataConfig) -> dict[str, Callable[[], TaskData]]:
    """Find the data of each task of a configuration, and return what opens them, by task key.

    Raises:
        BendError: A task is unknown, or its files do not exist.
    """
    found = sources_of(config)
    return {_key(source): partial(_open_with_message, source, message, config) for source, message in found}


def _key(source: Source) -> str:
    return source.task.key if isinstance(source, BuiltSource) else source.key


def _open_with_message(source: Source, message: str, config: DataConfig) -> TaskData:
    """Open a task's data, and log where they come from."""
    log.warning(message) if "NOT BEND" in message else log.info(message)
    return open_task(source, config)


def open_task(source: Source, config: DataConfig) -> TaskData:
    """Read, check and build a task's data, or load a built dataset.

    Raises:
        BendError: A file is invalid or missing.
    """
    if isinstance(source, BuiltSource):
        return _open_built(source)
    rows = read_examples(source, out_of_bounds=config.out_of_bounds, ref_mismatch=config.ref_mismatch)
    from bend_hf.data.builder import make_builder

    builder = make_builder(rows, flip_labels=config.protocol != "bend-2024")
    rows.check_unchanged()  # since the hashes were taken that name the cache of datasets
    builder.download_and_prepare()
    built = builder.as_dataset()
    subsets = {name: built[name] for name in rows.subset_names if name in built}
    return TaskData(
        task=rows.task,
        subsets=subsets,
        facts=file_facts(rows, builder.config.hashes, {name: len(subset) for name, subset in subsets.items()}),
        genome=rows.files.genome,
    )


def file_facts(rows: TaskExamples, hashes: dict[str, str], items: dict[str, int]) -> dict[str, Json]:
    """Return what a result record says about data that were read from files.

    Args:
        rows: Content of the files.
        hashes: The sha256 of each file.
        items: Number of items in each split.
    """
    padded = 0
    if rows.out_of_bounds == "pad":
        names = rows.bed.chromosome.dictionary.to_pylist()
        ends = np.array([rows.genome.contigs[name] for name in names], np.int64)[rows.bed.chromosome.indices.to_numpy()]
        padded = int((rows.bed.end_bp > ends).sum())
    normalized = 0 if rows.variants is None else int((rows.variants.is_normalized & rows.keep).sum())
    return {
        "origin": rows.files.origin,
        # The genome that was read says which one it is, not the declaration of the task.
        "assembly": "GRCh37" if rows.files.origin == "sample" else assembly_of(rows.genome.contigs) or UNKNOWN,
        "files": {name: {"sha256": digest} for name, digest in sorted(hashes.items())},
        "rows_of_bed": len(rows),
        "items": dict(items),
        "changes": {
            "out_of_bounds": rows.out_of_bounds,
            "rows_padded": padded,
            "rows_dropped_out_of_bounds": len(rows) - rows.n_ref_mismatches - sum(items.values()),
            "rows_dropped_ref_mismatch": rows.n_ref_mismatches,
            # Left out if zero, so that runs of files without such rows keep their key.
            **({"rows_normalized": normalized} if normalized else {}),
        },
    }


def _open_built(source: BuiltSource) -> TaskData:
    import datasets

    task = source.task
    folder = Path(source.repo)
    built = _read_built(source, folder)
    facts, revision = built.facts, built.facts["revision"]  # of the Hub, so that facts and rows are of one commit
    try:
        if isinstance(task.partition, Folds):
            # Folds share their subsets, and fold k tests on subset k.
            configs = datasets.get_dataset_config_names(source.repo, revision=revision)
            names = [name for name in configs if name.startswith("fold_")]
            names.sort(key=lambda name: int(name.removeprefix("fold_")))
            subsets = {
                f"part_{number}": datasets.load_dataset(source.repo, name, split="test", revision=revision)
                for number, name in enumerate(names)
            }
        else:
            subsets = dict(datasets.load_dataset(source.repo, task.config, revision=revision))
    except hub_errors(OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise SourceError(
            f"{task.key}: the dataset {source.repo!r} cannot be loaded ({_reason(error)}); check the network and the "
            "name, or pass --data FOLDER"
        ) from error
    first = next(iter(subsets.values()), None)
    if first is None:
        raise SourceError(f"{task.key}: the dataset {source.repo!r} has no split; build it again with 'bend-hf build'")
    if (problem := next(_other_than_built(built.body, subsets, folder, task.config), None)) is not None:
        raise SourceError(
            f"{task.key}: the dataset {source.repo!r} is not the one that was built: {problem}; build the task again "
            "with 'bend-hf build'"
        )
    column = first.features["labels"].feature if "labels" in first.features else first.features["label"]
    return TaskData(
        task=task if isinstance(task.label, RealValues) else task.with_label_names(tuple(column.names)),
        subsets=subsets,
        facts={**facts, "repo": source.repo, "items": {name: len(subset) for name, subset in subsets.items()}},
    )


def _other_than_built(
    body: Mapping[str, Any], subsets: Mapping[str, Dataset], folder: Path, config: str | None
) -> Iterator[str]:
    """Describe what the loaded splits are not, compared with the facts of the build.

    ``datasets`` names its cache by the card alone, so a card of another build would load the rows of that one.

    Args:
        body: Content of the file of facts.
        subsets: The loaded splits, or subsets of folds.
        folder: The folder with the card; another name for a dataset of the Hub.
        config: Configuration of the task within the dataset.
    """
    items, shards = body["facts"]["items"], body["shards"]
    found: dict[str, Json] = {name: len(subset) for name, subset in subsets.items()}
    if found != items:
        yield f"it has {found} items, expected {items}"
    for number, (name, subset) in enumerate(subsets.items(), 1):
        fold = number if name.startswith("part_") else None
        splits = {part: [part] for part in shards} if fold is None else parts_of_fold(list(shards), fold)
        files = {split: [file for part in parts for file in shards[part]] for split, parts in splits.items()}
        mark = content_mark({split: [body["sha256"][file] for file in of_split] for split, of_split in files.items()})
        stated = str(subset.info.description)
        if stated.startswith(_MARK) and stated != mark:
            yield f"its README.md is of another build ({stated}, expected {mark})"
        column = subset.features.get("labels", subset.features.get("label"))
        names = getattr(getattr(column, "feature", column), "names", body["label_names"])
        if names != body["label_names"]:
            yield f"its labels are {names}, expected {body['label_names']}"
        in_card = _files_in_card(folder, config or "default" if fold is None else f"fold_{fold}")
        if in_card and in_card != {split: set(of_split) for split, of_split in files.items()}:
            yield f"its README.md gives the splits {in_card}, expected {files}"


def _files_in_card(folder: Path, config: str) -> dict[str, set[str]]:
    """Return the file names of each split that the card of a folder gives to a configuration."""
    from huggingface_hub import metadata_load

    try:
        card: dict[str, Any] = metadata_load(folder / "README.md") or {}
        entries = [one for one in card.get("configs", ()) if one["config_name"] == config]
        return {
            str(one["split"]): {
                file.name
                for pattern in ([one["path"]] if isinstance(one["path"], str) else one["path"])
                for file in folder.glob(pattern)
            }
            for entry in entries
            for one in entry["data_files"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError):
        return {}  # of the Hub, or written in another way


def _reason(error: BaseException) -> str:
    """Return the message of the error that an error of ``datasets`` was raised from; its own does not say why."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip() or type(error).__name__


@dataclass(frozen=True, kw_only=True)
class _Built:
    """What is known about a built dataset.

    Attributes:
        facts: What a result record says about it.
        body: The whole content of its file of facts.
    """

    facts: dict[str, Json]
    body: dict[str, Any]


def _read_built(source: BuiltSource, folder: Path) -> _Built:
    """Read the facts that were written when the dataset was built, and check the Parquet files of a folder.

    A dataset that is read from the Hub is of the Hub, unless it was built from the bundled sample or from single files
    of a user's, which are known as such wherever they are.
    """
    name = f"data/{source.task.config}/{FACTS_FILE}" if source.task.config else f"data/{FACTS_FILE}"
    revision: str | None = None
    path = folder / name
    if not folder.is_dir():
        from huggingface_hub import HfApi

        try:
            api = HfApi()
            revision = api.dataset_info(source.repo).sha
            path = Path(api.hf_hub_download(source.repo, name, repo_type="dataset", revision=revision))
        except hub_errors(OSError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise SourceError(
                f"{source.task.key}: the dataset {source.repo!r} cannot be reached ({reason}); check the network and "
                "the name, or pass --data FOLDER"
            ) from error
    try:
        built = parse_json(path.read_text(encoding="utf-8"))
        facts: dict[str, Json] = built["facts"]
        named = {str(name) for names in built["shards"].values() for name in names}
        sums = {name: str(built["sha256"][name]) for name in named}
        _ = dict(built["facts"]["items"]), list(built["label_names"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BendError(f"{path} is missing or damaged; build the task again with 'bend-hf build'") from error
    there = {file.name for file in path.parent.glob("*.parquet")} if revision is None else set()
    for name in sorted(named | there) if revision is None else ():
        file = path.with_name(name)
        if name not in named or not file.is_file() or file_sha256(file) != sums[name]:
            raise SourceError(
                f"{source.task.key}: {file} changed after the build, and a cache may hold the earlier one; "
                "build the task again with 'bend-hf build'"
            )
    if source.origin == "hub" and facts.get("origin") not in ("sample", "files"):
        facts = {**facts, "origin": "hub", "built_from": facts.get("origin")}
    return _Built(facts={**facts, "revision": revision}, body=built)
