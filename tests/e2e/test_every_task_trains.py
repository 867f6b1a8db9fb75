"""Every trained task of the real data with one-hot letters, BEND's ResNet and a random language model, end to end.

A few rows of each split and fold keep it short. The ResNet is the whole one, 30 layers of 256 channels; on one
processor core it takes seconds for 512 nucleotides, and for the 100,096 of an enhancer row some ten minutes and 27 GB
in training, so it learns enhancers from two bins a row there.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from bend_hf.config import RunConfig
from bend_hf.evaluation.predictions import read_predictions
from bend_hf.evaluation.record import read_record
from bend_hf.runs.run import run
from tests.fake_checkpoints import make_tiny
from tests.shared_data import CHR20, needs_shared
from tests.tiny import write_bed

pytestmark = needs_shared

SPLIT_TASKS = ("gene_finding", "chromatin_accessibility", "histone_modification")
ROWS_A_SPLIT = {"train": 3, "valid": 2, "test": 2}
BIN_BP = 128  # BEND, bins of enhancer_annotation
N_PARTS = 10


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a few rows of every split and every fold, and its genome."""
    folder = tmp_path_factory.mktemp("few_rows")
    with gzip.open(CHR20 / "genome.fa.gz") as packed, (folder / "GRCh37.fa").open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    for names in CHR20.glob("*.labels.txt"):
        shutil.copy(names, folder)
    write_genes(folder)
    for name in ("chromatin_accessibility", "histone_modification"):
        header, rows = read_bed(name)  # those with the most labels, so that most labels have an example
        chosen = few(rows, sort=lambda row, rows=rows: -len(rows[row][3].split(",")))
        write_bed(folder / f"{name}.bed", header, [rows[row] for row in chosen])
    write_enhancers(folder)
    return folder


def read_bed(name: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a bed of the real data."""
    header, *rows = (line.split("\t") for line in (CHR20 / f"{name}.bed").read_text().splitlines())
    return header, rows


def few(rows: Sequence[Sequence[str]], sort: Callable[[int], int]) -> list[int]:
    """The first rows of every split, in that order; of equals those that come first."""
    ordered = sorted(range(len(rows)), key=sort)
    return [row for split, n in ROWS_A_SPLIT.items() for row in [r for r in ordered if rows[r][-1] == split][:n]]


def write_genes(folder: Path) -> None:
    header, rows = read_bed("gene_finding")
    chosen = few(rows, sort=lambda row: int(rows[row][2]) - int(rows[row][1]))
    write_bed(folder / "gene_finding.bed", header, [rows[row] for row in chosen])
    with h5py.File(CHR20 / "gene_finding.hdf5") as whole, h5py.File(folder / "gene_finding.hdf5", "w") as some:
        labels = some.create_dataset("labels", (len(chosen),), dtype=h5py.vlen_dtype(np.int64))
        for place, row in enumerate(chosen):
            labels[place] = whole["labels"][row]


def write_enhancers(folder: Path) -> None:
    """The row of every part that has the most enhancers, whole; and two bins of it, the first of which is one."""
    header, rows = read_bed("enhancer_annotation")
    with h5py.File(CHR20 / "enhancer_annotation.hdf5") as file:
        labels = np.asarray(file["labels"])
    parts = [row[3] for row in rows]
    best = [max((r for r, p in enumerate(parts) if p == part), key=lambda r: labels[r].sum()) for part in parts_of()]
    write_bed(folder / "enhancer_annotation.bed", header, [rows[row] for row in best])
    (folder / "cut").mkdir()
    cut, cut_labels = [], []
    for row in best:
        first = min(int(labels[row].argmax()), labels.shape[1] - 2)
        start = int(rows[row][1]) + BIN_BP * first
        cut.append((rows[row][0], start, start + 2 * BIN_BP, rows[row][3]))
        cut_labels.append(labels[row, first : first + 2])
    write_bed(folder / "cut" / "enhancers.bed", header, cut)
    for path, values in (("enhancer_annotation.hdf5", labels[best]), ("cut/enhancers.hdf5", np.stack(cut_labels))):
        with h5py.File(folder / path, "w") as file:
            file["labels"] = values


def parts_of() -> list[str]:
    return [f"part{number}" for number in range(N_PARTS)]


def trained(config: RunConfig, *, n_test: int) -> dict[str, object]:
    """Runs it and checks what it left; returns the record's entry about training."""
    (outcome,) = run(config)
    record = read_record(outcome.path)
    predictions = read_predictions(outcome.path.with_suffix(".parquet"))
    assert record.coverage["scored"] == record.coverage["items"] == len(predictions) == n_test
    assert record.main_metric in record.metrics
    assert record.training is not None
    runs = record.training["runs"]
    assert isinstance(runs, list)
    assert runs
    for one in runs:
        assert isinstance(one, dict)
        history = one["history"]
        assert isinstance(history, list)
        assert np.isfinite([epoch["loss"] for epoch in history if isinstance(epoch, dict)]).all()  # type: ignore[arg-type]
    return dict(record.training)


def language_model(folder: Path) -> dict[str, object]:
    checkpoint = make_tiny("nt_transformer_ms", folder / "nt")
    return {"model": "nt_transformer_ms", "checkpoint": str(checkpoint), "random_init": True}


@pytest.mark.parametrize("model", ["onehot", "language model"])
@pytest.mark.parametrize("name", [*SPLIT_TASKS, "enhancer_annotation"])
def test_embeddings_under_the_tasks_own_head(data: Path, tmp_path: Path, name: str, model: str) -> None:
    of_model = {"model": model} if model == "onehot" else language_model(tmp_path)
    folds = {"fold": (1, N_PARTS)} if name == "enhancer_annotation" else {}
    config = RunConfig(task=(name,), data=str(data), epochs=1, batch_size=4, out=tmp_path / "out", **of_model, **folds)
    runs = trained(config, n_test=2)["runs"]
    assert isinstance(runs, list)
    assert len(runs) == len(folds.get("fold", (None,)))


@pytest.mark.parametrize("name", SPLIT_TASKS)
def test_the_supervised_resnet(data: Path, tmp_path: Path, name: str) -> None:
    config = RunConfig(
        task=(name,), data=str(data), model="resnet-supervised", epochs=1, batch_size=2, out=tmp_path / "out"
    )
    head = trained(config, n_test=2)["head"]
    assert isinstance(head, dict)
    assert (head["layers"], head["channels"]) == (30, 256)


def test_the_supervised_resnet_on_folds(data: Path, tmp_path: Path) -> None:
    config = RunConfig(
        bed=data / "cut" / "enhancers.bed",
        labels=data / "cut" / "enhancers.hdf5",
        genome=data / "GRCh37.fa",
        model="resnet-supervised",
        epochs=1,
        batch_size=4,
        fold=(1,),
        out=tmp_path / "out",
    )
    head = trained(config, n_test=1)["head"]
    assert isinstance(head, dict)
    assert (head["layers"], head["channels"], head["pool_bp"]) == (30, 256, BIN_BP)
