"""What the record of a run holds besides scores: the size of the cached embeddings and the alignment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bend_hf.config import RunConfig
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.record import ResultRecord, read_record
from bend_hf.runs.outcome import FoldResult, cached_bytes
from bend_hf.runs.run import run
from bend_hf.tasks import TASKS
from tests.fake_checkpoints import make_tiny
from tests.records import schema_errors
from tests.tiny import write_data

TASK_NAMES = ("gene_finding", "variant_effects_disease")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ResultRecord, Path]]:
    """A cached model on every kind of task, and one-hot nucleotides on one."""
    folder = tmp_path_factory.mktemp("facts")
    data = write_data(folder / "data", TASK_NAMES, n=20)
    checkpoint = make_tiny("dnabert2", folder / "dnabert2")
    found = {}
    for task, model in [*((task, "dnabert2") for task in TASK_NAMES), ("gene_finding", "onehot")]:
        cache = folder / f"cache_{task}_{model}"
        config = RunConfig(
            task=(task,),
            data=str(data),
            model=model,
            checkpoint=str(checkpoint) if model == "dnabert2" else None,
            random_init=model == "dnabert2",
            epochs=1 if TASKS.get(task).training else None,  # variants are scored without training
            cache=cache,
            out=folder / f"{task}_{model}",
        )
        (outcome,) = run(config)
        found[f"{task} {model}"] = (read_record(outcome.path), cache)
    return found


def test_cache_bytes_are_those_of_the_shards(records: dict[str, tuple[ResultRecord, Path]]) -> None:
    record, cache = records["gene_finding dnabert2"]
    assert record.cost["cache_bytes"] == sum(path.stat().st_size for path in cache.rglob("*.arrow")) > 0


def test_a_shard_of_several_folds_counts_once(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abc"]
    for size, path in enumerate(files, start=1):
        path.write_bytes(b"x" * size)
    some = Predictions(
        item=np.arange(1),
        windows=np.arange(2),
        target=np.zeros(1, np.int16),
        score=np.zeros(1, np.float32),
        predicted=None,
        label_names=("a", "b"),
        columns={},
    )
    parts = [
        FoldResult(fold=fold, predictions=some, cache_files=frozenset(files[fold - 1 : fold + 1])) for fold in (1, 2)
    ]
    assert cached_bytes(parts) == 1 + 2 + 3
    assert cached_bytes([]) == 0


def test_variants_count_their_files_on_disk(
    records: dict[str, tuple[ResultRecord, Path]],
) -> None:
    record, _ = records["variant_effects_disease dnabert2"]
    assert isinstance(record.cost["cache_bytes"], int)
    assert record.cost["cache_bytes"] > 20 * 2 * 16  # two float rows of 16 numbers, compressed, for each of 20 variants


def test_one_hot_nucleotides_are_never_cached(records: dict[str, tuple[ResultRecord, Path]]) -> None:
    assert records["gene_finding onehot"][0].cost["cache_bytes"] == 0


def test_every_record_says_how_it_was_aligned(records: dict[str, tuple[ResultRecord, Path]]) -> None:
    for name, (record, _) in records.items():
        assert schema_errors(record.as_json()) == []
        assert record.alignment is not None, name
        assert set(record.alignment) >= {"tokens", "rows", "inputs"}
        assert ("rows_per_nucleotide" in record.alignment) == ("dnabert2" in name)
