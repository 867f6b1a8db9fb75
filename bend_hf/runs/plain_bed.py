"""Sequences of a BED file that has no labels or no splits: nothing can be trained on them, but they can be embedded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from bend_hf.config import DataConfig
from bend_hf.data.bed import BedTable, read_bed
from bend_hf.data.genome import Genome
from bend_hf.errors import ConfigError
from bend_hf.files import file_sha256
from bend_hf.types import Ints, OutOfBounds

if TYPE_CHECKING:
    from datasets import Dataset

_ALL: Final = "all"  # the split of a file without splits
_HDF5: Final = (".hdf5", ".h5")
_VARIANTS: Final = (".vcf", ".vcf.gz")


def plain_bed(config: DataConfig) -> BedTable | None:
    """Return the BED file of a configuration if it has no labels or no splits; None if it is a task.

    Raises:
        InputError: It is no BED file.
        ConfigError: No genome is given.
    """
    path = config.bed
    if path is None or config.task or config.labels is not None or path.name.endswith(_VARIANTS):
        return None
    table = read_bed(path)
    stem = path.name.partition(".")[0]
    has_labels = "label" in table.columns.column_names or any(path.with_name(stem + one).is_file() for one in _HDF5)
    if (has_labels and table.split is not None) or {"ref", "alt"} <= set(table.columns.column_names):
        return None
    if config.genome is None:
        raise ConfigError(f"--bed {path} needs --genome, the FASTA file that holds its intervals")
    return table


def rows_by_split(table: BedTable) -> dict[str, Ints]:
    """Return the rows of each split, in the order of their first rows; all rows as one if there are no splits."""
    if table.split is None:
        return {_ALL: np.arange(len(table))}
    code = table.split.indices.to_numpy()
    return {str(name): np.flatnonzero(code == number) for number, name in enumerate(table.split.dictionary.to_pylist())}


def plain_datasets(config: DataConfig, table: BedTable) -> dict[str, Dataset]:
    """Read the sequences of each split into a dataset.

    Args:
        config: Names the genome.
        table: From ``plain_bed``.

    Raises:
        GenomeError: An interval is not in the genome.
    """
    import datasets

    genome = Genome(Path(str(config.genome)))
    features = datasets.Features(
        {
            "item": datasets.Value("int64"),
            "chromosome": datasets.Value("string"),
            "start": datasets.Value("int64"),
            "end": datasets.Value("int64"),
            "sequence": datasets.Value("large_string"),
        }
    )
    # every interval is checked before a sequence is read
    genome.fetch_iter(
        table.chromosome,
        table.start_bp,
        table.end_bp,
        table.strand,
        out_of_bounds=config.out_of_bounds,
        describe=table.describe,
    )
    found = {}
    for name, rows in rows_by_split(table).items():
        made = datasets.Dataset.from_generator(
            _examples,
            features=features,
            # the checksums tell a changed file from the one that datasets may have in its cache
            gen_kwargs={
                "bed": str(table.path),
                "genome": str(genome.path),
                "split": name,
                "out_of_bounds": config.out_of_bounds,
                "sha256": f"{file_sha256(table.path)} {genome.sha256} {len(rows)}",
            },
        )
        found[name] = made
    return found


def _examples(
    bed: str, genome: str, split: str, out_of_bounds: OutOfBounds, sha256: str
) -> Iterator[dict[str, object]]:
    table = read_bed(bed)
    rows = rows_by_split(table)[split]
    chosen = table.take(rows)
    batches = Genome(genome).fetch_iter(
        chosen.chromosome,
        chosen.start_bp,
        chosen.end_bp,
        chosen.strand,
        out_of_bounds=out_of_bounds,
        describe=chosen.describe,
    )
    names, at = chosen.chromosome.cast(pa.string()), 0
    for batch in batches:
        kept = at + np.flatnonzero(batch.kept)
        for row, sequence in zip(kept.tolist(), batch.to_arrow().to_pylist(), strict=True):
            yield {
                "item": int(rows[row]),
                "chromosome": names[row].as_py(),
                "start": int(chosen.start_bp[row]),
                "end": int(chosen.end_bp[row]),
                "sequence": sequence,
            }
        at += len(batch.kept)
