"""A cache ends with the same bytes when processes are killed, run out of disk or share the work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bend_hf.embedders.cache.reader import CachedEmbeddings
from tests.cached import (
    arrow_bytes,
    calls_of_a_run,
    leftovers,
    made,
    make_and_die,
    make_within,
    small_dataset,
    small_entry,
    start,
)

USER_MODEL = """
import numpy as np

def embed(sequences):
    return [np.array([[ord(base), place] for place, base in enumerate(one)], np.float32) for one in sequences]
"""


@pytest.fixture(scope="module")
def whole() -> Iterator[dict[str, str]]:
    """Checksums of a cache that was filled without interruption."""
    with TemporaryDirectory() as folder:
        yield arrow_bytes(made(Path(folder)))


@pytest.fixture(scope="module")
def calls() -> Iterator[int]:
    """The number of moments at which a process can be killed."""
    with TemporaryDirectory() as folder:
        yield calls_of_a_run(Path(folder))


def test_the_small_cache_has_several_shards(whole: dict[str, str]) -> None:
    assert len(whole) >= 4


# An attempt: for each of its ranks the moment of its death, in thousandths of a run, or None for a rank that lives.
ATTEMPTS = st.lists(
    st.lists(st.none() | st.integers(1, 1000), min_size=1, max_size=3).filter(any), min_size=1, max_size=3
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(attempts=ATTEMPTS, ranks=st.integers(1, 3))
def test_any_number_of_kills_and_any_ranks_give_the_same_bytes(
    whole: dict[str, str], calls: int, attempts: list[list[int | None]], ranks: int
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        for deaths in [*attempts, [None] * ranks]:
            processes = [
                start(make_and_die, folder, rank, len(deaths), None if death is None else death * calls // 1000 + 1)
                for rank, death in enumerate(deaths)
            ]
            for process in processes:
                process.join(60)
                assert not process.is_alive()
        assert [process.exitcode for process in processes] == [0] * ranks
        entry = small_entry(folder)
        assert arrow_bytes(entry) == whole
        assert leftovers(entry) == []
        assert not any(files.state().value != "good" for files in entry.shards)


def test_a_killed_run_keeps_what_was_finished(tmp_path: Path, calls: int) -> None:
    process = start(make_and_die, tmp_path, 0, 1, calls * 6 // 10)
    process.join(60)
    assert process.exitcode == -9
    entry = small_entry(tmp_path)
    finished = {files.arrow: files.arrow.stat().st_mtime_ns for files in entry.shards if files.record.exists()}
    assert finished
    assert len(finished) < len(entry.shards)
    made(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_two_processes_fill_each_shard_once(tmp_path: Path, whole: dict[str, str]) -> None:
    processes = [start(make_and_die, tmp_path, 0, 1, None) for _ in range(2)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    entry = small_entry(tmp_path)
    assert arrow_bytes(entry) == whole
    assert leftovers(entry) == []


def test_a_file_size_limit_raises_and_leaves_no_partial_file(tmp_path: Path) -> None:
    entry = made(tmp_path / "whole")
    largest = max(files.arrow.stat().st_size for files in entry.shards)
    starved = tmp_path / "starved"
    starved.mkdir()
    process = start(make_within, starved, largest - 1)
    process.join(60)
    assert "is full" in (starved / "error.txt").read_text()
    entry = small_entry(starved)
    assert leftovers(entry) == []
    assert arrow_bytes(made(starved)) == arrow_bytes(small_entry(tmp_path / "whole"))


def test_two_launched_ranks_embed_a_task_as_one_does(tmp_path: Path) -> None:
    model = tmp_path / "letters.py"
    model.write_text(USER_MODEL)
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "bend_hf", "embed"]
    flags = ["--task", "gene_finding", "--data", "sample", "--model", str(model), "--splits", "test", "validation"]
    done = subprocess.run(
        [sys.executable, *command, *flags, "--cache", str(tmp_path / "two")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("gene_finding test:") == 1  # only the main process prints

    from bend_hf.cli._main import main

    assert main(["embed", *flags, "--cache", str(tmp_path / "one")]) == 0
    one, two = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.arrow")}
        for name in ("one", "two")
    )
    assert one
    assert one == two


def test_a_cache_filled_by_killed_ranks_holds_what_the_embedder_returns(tmp_path: Path, calls: int) -> None:
    for process in [start(make_and_die, tmp_path, rank, 2, calls // 3) for rank in range(2)]:
        process.join(60)
    entry = made(tmp_path)
    source = CachedEmbeddings.of(entry.shards, dtype="float16")
    sequences = small_dataset()["sequence"]
    for row, expected in enumerate(entry.embedder.embed_tokens(list(sequences))):
        view = source.item(row)
        assert view.embedding_bp.tolist() == expected.embedding_bp.tolist()
        assert (view.values == expected.values.astype("float16")).all()
