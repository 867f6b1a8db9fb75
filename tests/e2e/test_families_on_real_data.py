"""A small random twin of every model family, run end to end on real human genes and histone windows."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from bend_hf.config import RunConfig
from bend_hf.embedders import MODELS, load_embedder
from bend_hf.sources import find_source
from bend_hf.task_data import open_task
from bend_hf.tasks import TASKS
from bend_hf.train import run_task
from tests.fake_checkpoints import make_fake
from tests.shared_data import CHR20, needs_shared
from tests.tiny import write_bed

pytestmark = needs_shared

FAMILIES = {spec.embedder: spec.key for spec in reversed(list(MODELS))}  # one entry of each class
ROWS_A_SPLIT = 4
LONGEST_BP = 2600


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first short genes and the first windows of each split, with their labels, and the genome."""
    folder = tmp_path_factory.mktemp("few")
    with gzip.open(CHR20 / "genome.fa.gz") as packed, (folder / "GRCh37.fa").open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    for name in ("gene_finding", "histone_modification"):
        lines = [line.split("\t") for line in (CHR20 / f"{name}.bed").read_text().splitlines()]
        header, rows = lines[0], lines[1:]
        chosen = [
            number
            for split in ("train", "valid", "test")
            for number in [
                n for n, row in enumerate(rows) if row[-1] == split and int(row[2]) - int(row[1]) <= LONGEST_BP
            ][:ROWS_A_SPLIT]
        ]
        write_bed(folder / f"{name}.bed", header, [rows[number] for number in chosen])
        shutil.copy(CHR20 / f"{name}.labels.txt", folder)
    with h5py.File(CHR20 / "gene_finding.hdf5") as whole, h5py.File(folder / "gene_finding.hdf5", "w") as few:
        genes = [line.split("\t") for line in (CHR20 / "gene_finding.bed").read_text().splitlines()[1:]]
        kept = {tuple(line.split("\t")[:3]) for line in (folder / "gene_finding.bed").read_text().splitlines()[1:]}
        order = [tuple(line.split("\t")[:3]) for line in (folder / "gene_finding.bed").read_text().splitlines()[1:]]
        number_of = {tuple(gene[:3]): n for n, gene in enumerate(genes) if tuple(gene[:3]) in kept}
        labels = few.create_dataset("labels", (len(order),), dtype=h5py.vlen_dtype(np.int64))
        for row, place in enumerate(order):
            labels[row] = whole["labels"][number_of[place]]
    return folder


@pytest.mark.parametrize("name", ["gene_finding", "histone_modification"])
@pytest.mark.parametrize("key", sorted(FAMILIES.values()))
def test_a_family_runs_end_to_end(data: Path, tmp_path: Path, key: str, name: str) -> None:
    from accelerate import Accelerator

    checkpoint = None if MODELS.get(key).source == "none" else make_fake(key, tmp_path / key)
    embedder = load_embedder(key, checkpoint=checkpoint, random_init=True, batch_tokens=2000)
    config = RunConfig(task=(name,), data=str(data), epochs=1, batch_size=4, out=tmp_path / "out")
    opened = open_task(find_source(TASKS.get(name), data=str(data)), config)
    outcome = run_task(config, opened, embedder, Accelerator(cpu=True))
    assert outcome.record.coverage["scored"] == outcome.record.coverage["items"] == ROWS_A_SPLIT
    assert outcome.record.model["key"] == key
    runs = outcome.record.training["runs"]  # type: ignore[index]
    assert np.isfinite(runs[0]["history"][0]["loss"])  # type: ignore[index,call-overload]
