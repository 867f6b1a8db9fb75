"""Real human data in BEND's formats: built, loaded, verified, trained on and scored, every task of it."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import datasets
import pytest

from bend_hf.config import DataConfig, RunConfig
from bend_hf.evaluation.predictions import read_predictions
from bend_hf.evaluation.record import read_record
from bend_hf.publishing.dataset_folder import build
from bend_hf.publishing.verify_dataset import verify
from bend_hf.runs.run import run
from tests.shared_data import CHR20, needs_shared

pytestmark = needs_shared

ROWS = {
    "gene_finding": 183,
    "chromatin_accessibility": 8716,
    "histone_modification": 19_994,
    "enhancer_annotation": 249,
    "variant_effects_disease": 2128,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder, its genome unpacked."""
    folder = tmp_path_factory.mktemp("chr20")
    for path in CHR20.iterdir():
        if path.name != "genome.fa.gz":
            shutil.copy(path, folder)
    with gzip.open(CHR20 / "genome.fa.gz") as packed, (folder / "GRCh37.fa").open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    return folder


@pytest.fixture(scope="module")
def built(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chr20_hub") / "bend"
    found = build(DataConfig(task=tuple(ROWS), data=str(data)), out)
    assert {task.key: task.n_items for task in found} == ROWS
    return out


def test_every_row_agrees_with_an_independent_reading(data: Path, built: Path) -> None:
    assert len(list(verify(DataConfig(task=tuple(ROWS), data=str(data)), built))) == len(ROWS)


def test_plain_datasets_loads_it(built: Path) -> None:
    genes = datasets.load_dataset(str(built / "gene_finding"))
    assert sum(len(split) for split in genes.values()) == 183
    assert genes["train"].features["labels"].feature.names[0] == "cds+"
    marks = datasets.load_dataset(str(built / "histone_modification"), split="train")
    assert marks.features["labels"].feature.names[0] == "GM12878_H3K4me3"


LONG = {"enhancer_annotation": pytest.mark.long}  # 25 Mb of sequence


@pytest.mark.parametrize("name", [pytest.param(name, marks=LONG.get(name, ())) for name in ROWS])
def test_a_head_is_trained_and_scored(data: Path, tmp_path: Path, name: str) -> None:
    config = RunConfig(
        task=(name,),
        data=str(data),
        model="onehot",
        epochs=None if name == "variant_effects_disease" else 1,
        batch_size=None if name in ("enhancer_annotation", "variant_effects_disease") else 32,
        head="linear" if name == "enhancer_annotation" else None,  # BEND's takes minutes for windows of 100 kb
        fold=(1,) if name == "enhancer_annotation" else (),
        out=tmp_path,
    )
    (outcome,) = run(config)
    record = read_record(outcome.path)
    assert record.data["origin"] == "folder"
    assert record.value is not None
    predictions = read_predictions(outcome.path.with_suffix(".parquet"))
    assert len(predictions) == record.coverage["scored"] == record.coverage["items"]
    if name == "histone_modification":
        assert record.value > 0.55  # marks of promoters follow the letters (CpG), one epoch shows it
