"""Several items at once: results in order, errors and log lines as in one process, and no process is left behind."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from bend_hf.errors import ConfigError, memory_error
from bend_hf.runs.processes import Processes, n_at_once

log = logging.getLogger("bend_hf.test_processes")


prepared: list[int] = []


def prepare() -> None:
    prepared.append(os.getpid())


def run(number: int) -> tuple[int, int, str]:
    log.info("item %d", number)
    logging.getLogger("a_library").info("request %d", number)
    time.sleep(0.3 if number == 0 else 0.0)
    return number, os.getpid(), os.environ.get("OMP_NUM_THREADS", "")


def fail(number: int) -> int:
    if number == 1:
        raise RuntimeError("wrapped") from ConfigError("epochs is 0; expected at least 1")
    return number


def die(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def hang(folder: Path) -> None:
    try:
        (folder / "started").touch()
        time.sleep(60)
    finally:
        (folder / "freed").touch()


def exists_soon(path: Path) -> bool:
    until = time.monotonic() + 20
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.02)
    return path.exists()


def sleep_and_start(number: int) -> tuple[int, int]:
    moment = time.monotonic_ns()
    time.sleep(0.3)
    return number, moment


def test_the_longest_item_starts_first_and_results_keep_their_order() -> None:
    with Processes(prepare=prepare, n=2) as processes:
        found = list(processes.map(sleep_and_start, [0, 1, 2, 3], costs=[1.0, 4.0, 2.0, 3.0]))
    assert [number for number, _ in found] == [0, 1, 2, 3]
    at = [moment for _, moment in found]
    assert max(at[1], at[3]) < min(at[0], at[2])


def test_results_and_log_lines_are_in_the_order_of_the_items(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    logging.getLogger("a_library").setLevel(logging.WARNING)
    with caplog.at_level(logging.INFO, "bend_hf"), Processes(prepare=prepare, n=2) as processes:
        found = list(processes.map(run, [0, 1, 2]))
    assert [number for number, _, _ in found] == [0, 1, 2]
    assert len({os.getpid(), *(pid for _, pid, _ in found)}) == 4
    assert [record.getMessage() for record in caplog.records] == ["item 0", "item 1", "item 2"]
    assert prepared == [], "it prepares in another process"
    assert all(threads for _, _, threads in found)
    assert "OMP_NUM_THREADS" not in os.environ


def test_an_error_keeps_its_type_its_text_and_its_cause() -> None:
    with pytest.raises(RuntimeError, match="wrapped") as caught, Processes(prepare=prepare, n=2) as processes:
        list(processes.map(fail, [0, 1]))
    assert isinstance(caught.value.__cause__, ConfigError)
    assert caught.value.__cause__.exit_status == 2
    assert str(caught.value.__cause__) == "epochs is 0; expected at least 1"
    assert "in fail" in caught.value.__notes__[0], "a defect shows where it is"


def test_a_killed_process_is_an_error_and_not_a_hang() -> None:
    with pytest.raises(RuntimeError) as caught, Processes(prepare=prepare, n=2) as processes:
        list(processes.map(die, [0, 1]))
    assert (memory_error(caught.value) or "").startswith("a process was killed, as happens when memory runs out")


def test_an_interrupt_ends_the_processes_which_clean_up(tmp_path: Path) -> None:
    def interrupt() -> None:
        assert exists_soon(tmp_path / "started")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt), Processes(prepare=prepare, n=2) as processes:
        list(processes.map(hang, [tmp_path, tmp_path]))
    thread.join()
    assert (tmp_path / "freed").exists()


def test_one_process_is_this_process() -> None:
    with Processes(prepare=prepare, n=1) as processes:
        assert [pid for _, pid, _ in processes.map(run, [1])] == [os.getpid()]
    assert n_at_once(7, n_cores=1) == 1
