"""A bigWig file that could not be written whole is never taken for one that was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bend_hf.runs.bigwig import bigwig_writer, check_bigwig
from bend_hf.runs.prediction_writers import Rows, writer_of
from bend_hf.tasks import RealValues
from tests.faults import live, why_not

pytest.importorskip("pyBigWig")
N_ROWS, BATCHES = 3_000, 3


def write(path: Path) -> int:
    """Write random values of neighboring windows; returns 0, as a command does."""
    rng = np.random.default_rng(0)
    with writer_of(path, RealValues(names=("a",)), None, {"chr1": 10_000_000})(path) as writes:
        for batch in range(BATCHES):
            start = 10 * np.arange(batch * N_ROWS // BATCHES, (batch + 1) * N_ROWS // BATCHES)
            writes(
                Rows(
                    chromosome=pa.DictionaryArray.from_arrays(np.zeros(len(start), np.int32), ["chr1"]),
                    start_bp=start,
                    end_bp=start + 10,
                    strand=None,
                    scores=rng.random((len(start), 1), np.float32),
                    predicted=None,
                )
            )
    return 0


def test_a_whole_file_has_all_rows_and_any_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.bw"
    write(path)
    check_bigwig(path, N_ROWS)
    with pytest.raises(OSError, match="holds 3000 of 3001 rows"):
        check_bigwig(path, N_ROWS + 1)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for at, size in zip(rng.integers(400, len(whole) - 100, 40), rng.choice([1, 4096], 40), strict=True):
        lost = bytearray(whole)
        lost[at : at + size] = bytes(len(lost[at : at + size]))
        if lost != whole:
            path.write_bytes(lost)
            with pytest.raises(OSError, match=r"is not whole|of 3000 rows"):
                check_bigwig(path, N_ROWS)
    for size in (0, 3, 63, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(OSError, match="is not whole"):
            check_bigwig(path, N_ROWS)


def test_no_write_fails_unnoticed(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    path = tmp_path / "a.bw"
    changes = live(lambda: write(path), below=tmp_path).changes
    whole = path.read_bytes()
    assert len(changes) > 10
    for number, change in enumerate(changes, 1):
        path.unlink(missing_ok=True)
        life = live(lambda: write(path), below=tmp_path, fails=number, stays=number % 2 == 0)
        assert (life.status == 0) == path.exists(), (change, life.text)
        assert not path.exists() or path.read_bytes() == whole, change
        assert path.exists() or f"{path} cannot be written" in life.text, (change, life.text)


def test_rows_that_do_not_fit_are_an_error_with_the_reason_of_the_library(tmp_path: Path) -> None:
    unsorted = np.array(["chr1", "chr1"]), np.array([20, 10]), np.array([30, 20]), np.array([0.5, 0.5])
    with (
        pytest.raises(OSError, match=r"pyBigWig: .*out of order"),
        bigwig_writer(tmp_path / "a.bw", {"chr1": 100}) as writes,
    ):
        writes(*unsorted)


def test_an_error_of_the_caller_ends_the_writing_process(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"), bigwig_writer(tmp_path / "a.bw", {"chr1": 100}):
        raise KeyError("mine")
