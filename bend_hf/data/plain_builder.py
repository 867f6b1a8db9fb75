"""The ``datasets`` builder of a BED file without labels: its sequences, by split; see ``plain_bed``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import datasets
import numpy as np
import pyarrow as pa

from bend_hf.data.bed import BedTable
from bend_hf.data.builder import TABLE_FORMAT, TableBuilder, row_tables
from bend_hf.data.genome import Genome
from bend_hf.errors import BendError
from bend_hf.files import FileState, check_unchanged, file_sha256, json_sha256
from bend_hf.types import Ints, Json, OutOfBounds

_patched_for_streaming: Final = True  # as in ``builder``


@dataclass
class PlainConfig(datasets.BuilderConfig):  # type: ignore[misc]  # datasets has no types
    """A BED file and its genome.

    Attributes:
        table: The BED file, read; None only for the configuration that ``datasets`` makes by default.
        genome: Holds the intervals; None as above.
        out_of_bounds: What is done with intervals that end after their contig.
        splits: Rows of each split.
        states: State of each file before it was read.
    """

    table: BedTable | None = None
    genome: Genome | None = None
    out_of_bounds: OutOfBounds = "error"
    splits: tuple[Ints, ...] = ()
    states: Mapping[Path, FileState] = field(default_factory=dict)

    @property
    def files(self) -> tuple[BedTable, Genome]:
        """The BED file and the genome.

        Raises:
            BendError: The builder was made without files.
        """
        if self.table is None or self.genome is None:
            raise BendError("the dataset builder has no files; make it with bend_hf.data.plain_bed.plain_datasets")
        return self.table, self.genome

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        """Name the cache folder by content."""
        table, genome = self.files
        decides: Json = [TABLE_FORMAT, file_sha256(table.path), genome.sha256, self.out_of_bounds]
        return f"{self.name}-{json_sha256(decides)[:32]}"


class PlainBuilder(TableBuilder):
    """Builds the sequences of a BED file; its splits are numbered, as ``datasets`` does not take every name."""

    BUILDER_CONFIG_CLASS = PlainConfig

    def _info(self) -> datasets.DatasetInfo:
        numbers = {name: datasets.Value("int64") for name in ("item", "start", "end")}
        texts = {"chromosome": datasets.Value("string"), "sequence": datasets.Value("large_string")}
        return datasets.DatasetInfo(features=datasets.Features(numbers | texts))

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        bed, _ = self.config.files
        length_bp = bed.end_bp - bed.start_bp
        return [
            datasets.SplitGenerator(name=f"split_{number}", gen_kwargs={"tables": row_tables(rows, length_bp[rows])})
            for number, rows in enumerate(self.config.splits)
        ]

    def check_unchanged(self) -> None:
        """Raise if the BED file or the genome has changed since it was read."""
        check_unchanged(self.config.states)

    def _table(self, chosen: Ints) -> pa.Table:
        """Read the sequences of some rows."""
        bed, genome = self.config.files
        rows = bed.take(chosen)
        sequences = genome.fetch(
            rows.chromosome,
            rows.start_bp,
            rows.end_bp,
            rows.strand,
            out_of_bounds=self.config.out_of_bounds,
            describe=rows.describe,
        )
        kept = sequences.kept
        return pa.table(
            {
                "item": chosen[kept],
                "start": rows.start_bp[kept],
                "end": rows.end_bp[kept],
                "chromosome": rows.chromosome.cast(pa.string()).take(pa.array(np.flatnonzero(kept))),
                "sequence": sequences.to_arrow(),
            }
        )
