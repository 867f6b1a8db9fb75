"""A small random twin of every model family, run end to end on real human genes and histone windows."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from bend_hf.config import RunConfig
from bend_hf.data.dataset import open_task
from bend_hf.data.sources import find_source
from bend_hf.embedders import MODELS, load_embedder
from bend_hf.runs.run import PreparedTask, model_run, run_task
from bend_hf.tasks import TASKS
from tests.fake_checkpoints import make_tiny
from tests.shared_data import CHR20, needs_shared
from tests.tiny import write_bed

pytestmark = needs_shared

ONE_OF_EACH = {(spec.embedder, spec.family): spec.key for spec in reversed(list(MODELS))}
OTHER_NETWORKS = {"caduceus-ps", "gena-lm-bigbird-base-t2t", "hyenadna-tiny-1k-hf"}  # of a family that is in it already
SPLITS = ("train", "valid", "test")
ROWS_A_SPLIT = 4
LONGEST_BP = 2600


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first short genes and the first windows of each split, with their labels, and the genome."""
    folder = tmp_path_factory.mktemp("few")
    with gzip.open(CHR20 / "genome.fa.gz") as packed, (folder / "GRCh37.fa").open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    genes = copy_some_rows("gene_finding", folder)
    copy_some_rows("histone_modification", folder)
    with h5py.File(CHR20 / "gene_finding.hdf5") as whole, h5py.File(folder / "gene_finding.hdf5", "w") as few:
        labels = few.create_dataset("labels", (len(genes),), dtype=h5py.vlen_dtype(np.int64))
        for row, number in enumerate(genes):
            labels[row] = whole["labels"][number]
    return folder


def copy_some_rows(name: str, folder: Path) -> list[int]:
    """Write a small bed of a task, and its names of labels; returns which rows it took."""
    header, *rows = (line.split("\t") for line in (CHR20 / f"{name}.bed").read_text().splitlines())
    short = [number for number, row in enumerate(rows) if int(row[2]) - int(row[1]) <= LONGEST_BP]
    chosen = [n for split in SPLITS for n in [n for n in short if rows[n][-1] == split][:ROWS_A_SPLIT]]
    write_bed(folder / f"{name}.bed", header, [rows[number] for number in chosen])
    shutil.copy(CHR20 / f"{name}.labels.txt", folder)
    return chosen


@pytest.mark.parametrize("name", ["gene_finding", "histone_modification"])
@pytest.mark.parametrize("key", sorted({*ONE_OF_EACH.values(), *OTHER_NETWORKS}))
def test_a_family_runs_end_to_end(data: Path, tmp_path: Path, key: str, name: str) -> None:
    from accelerate import Accelerator

    checkpoint = None if MODELS.get(key).source == "none" else make_tiny(key, tmp_path / key)
    embedder = load_embedder(key, checkpoint=checkpoint, random_init=True, batch_tokens=2000)
    config = RunConfig(task=(name,), data=str(data), epochs=1, batch_size=4, out=tmp_path / "out")
    opened = open_task(find_source(TASKS.get(name), data=str(data)), config)
    prepared = PreparedTask(config=config, data=opened, accelerator=Accelerator(cpu=True))
    outcome = run_task(model_run(prepared, embedder))
    assert outcome.record.coverage["scored"] == outcome.record.coverage["items"] == ROWS_A_SPLIT
    assert outcome.record.model["model"] == key
    runs = outcome.record.training["runs"]  # type: ignore[index]
    assert np.isfinite(runs[0]["history"][0]["loss"])  # type: ignore[index,call-overload]
