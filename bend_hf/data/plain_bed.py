"""Sequences of a BED file that has no labels or no splits: nothing can be trained on them, but they can be embedded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.config import DataConfig
from bend_hf.data.bed import BedTable, read_bed
from bend_hf.data.genome import Genome
from bend_hf.data.sources import labels_next_to
from bend_hf.data.vcf import is_vcf
from bend_hf.errors import ConfigError
from bend_hf.files import file_name, file_states
from bend_hf.types import Ints

if TYPE_CHECKING:
    from datasets import Dataset

_ALL: Final = "all"  # the split of a file without splits


def plain_bed(config: DataConfig) -> BedTable | None:
    """Return the BED file of a configuration if it has no labels or no splits; None if it is a task.

    Raises:
        InputError: It is no BED file.
        ConfigError: No genome is given.
    """
    path = config.bed
    if path is None or config.task or config.labels is not None or is_vcf(path):
        return None
    table = read_bed(path)
    has_labels = "label" in table.columns.column_names or labels_next_to(path) is not None
    if (has_labels and table.split is not None) or {"ref", "alt"} <= set(table.columns.column_names):
        return None
    genome_of(path, config.genome)
    return table


def rows_by_split(table: BedTable) -> dict[str, Ints]:
    """Return the rows of each split, in the order of their first rows; all rows as one if there are no splits."""
    if table.split is None:
        return {_ALL: np.arange(len(table))}
    code = table.split.indices.to_numpy()
    return {str(name): np.flatnonzero(code == number) for number, name in enumerate(table.split.dictionary.to_pylist())}


def plain_datasets(config: DataConfig, table: BedTable) -> dict[str, Dataset]:
    """Read the sequences of each split into a dataset, in the cache of ``datasets``.

    Args:
        config: Names the genome.
        table: From ``plain_bed``.

    Raises:
        GenomeError: An interval is not in the genome.
    """
    from bend_hf.data.plain_builder import PlainBuilder

    path = genome_of(table.path, config.genome)
    states = file_states([table.path, path])
    genome = Genome(path)
    # every interval is checked before a sequence is read
    genome.fetch_iter(
        table.chromosome,
        table.start_bp,
        table.end_bp,
        table.strand,
        out_of_bounds=config.out_of_bounds,
        describe=table.describe,
    )
    splits = rows_by_split(table)
    builder = PlainBuilder(
        dataset_name=file_name(table.path.name),
        config_name="plain",
        table=table,
        genome=genome,
        out_of_bounds=config.out_of_bounds,
        splits=tuple(splits.values()),
        states=states,
    )
    builder.download_and_prepare()
    built = builder.as_dataset()
    return {name: built[f"split_{number}"] for number, name in enumerate(splits)}


def genome_of(bed: Path, genome: Path | None) -> Path:
    """Return the FASTA file of a BED file.

    Raises:
        ConfigError: None is given.
    """
    if genome is None:
        raise ConfigError(f"--bed {bed} needs --genome, the FASTA file that holds its intervals")
    return genome
