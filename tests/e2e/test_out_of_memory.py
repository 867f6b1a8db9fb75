"""Memory runs out, or Linux kills a process for it: one line, and the same command goes on where it was."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from bend_hf.cli import COMMANDS
from bend_hf.cli._main import main
from bend_hf.data.builder import BendBuilder
from bend_hf.errors import memory_error
from bend_hf.runs.leftovers import find_leftovers
from tests.tiny import write_data

GREEDY = """
import os
import numpy as np

def embed(sequences):
    if os.path.exists({flag!r}):
        np.ones(1 << 40)
    return [np.array([[ord(base), place] for place, base in enumerate(one)], np.float32) for one in sequences]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), ["gene_finding"], n=12)


@pytest.fixture
def _little_memory() -> Iterator[None]:
    """No more than 64 GB of addresses, on machines that would promise more."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (64 << 30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        pa.ArrowMemoryError("malloc of size 137438953472 failed"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("One of the subprocesses has abruptly died during map operation."),
    ],
    ids=lambda error: str(error)[:20] or type(error).__name__,
)
def test_any_command_says_that_memory_ran_out(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def short(parsed: object) -> int:
        try:
            raise error
        except Exception as inner:
            raise ValueError("an error of a library") from inner

    monkeypatch.setitem(COMMANDS.get("tasks").__dict__, "run", short)
    assert main(["tasks"]) == 1
    text = capsys.readouterr().err
    assert text.startswith(("error: memory ran out (", "error: a process was killed, as happens when memory runs out"))
    assert text.endswith("repeat the command; finished work is kept\n")
    assert text.count("\n") == 1


def test_other_errors_are_not_about_memory() -> None:
    assert memory_error(ValueError("7 rows")) is None


@pytest.mark.usefixtures("_little_memory")
@pytest.mark.parametrize("command", ["embed", "run"])
def test_a_model_that_takes_too_much_memory_is_one_line_and_the_command_goes_on_later(
    command: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = tmp_path / "greedy"
    flag.touch()
    (tmp_path / "model.py").write_text(GREEDY.format(flag=str(flag)))
    argv = [command, "--task", "gene_finding", "--data", str(data), "--model", str(tmp_path / "model.py")]
    argv += ["--cache", str(tmp_path / "cache")]
    argv += ["--epochs", "1", "--out", str(tmp_path / "out")] if command == "run" else []
    assert main(argv) == 1
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    assert "memory ran out (Unable to allocate" in said.out + said.err
    assert [item for item in find_leftovers([tmp_path], settled_s=-1) if item.kind != "resumable"] == []
    flag.unlink()
    assert main(argv) == 0


def test_a_worker_that_is_killed_is_one_line_and_leaves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, whole = os.getpid(), BendBuilder._prepare_split_single

    def killed(*args: object, **kwargs: object) -> object:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*args, **kwargs)  # type: ignore[arg-type]

    argv = ["build", "gene_finding", "--data", str(data), "--out", str(tmp_path), "--num-proc", "2"]
    with monkeypatch.context() as patched:
        patched.setattr(BendBuilder, "_prepare_split_single", killed)
        patched.setattr("bend_hf.data.builder._TABLE_BP", 200)  # more than one table, so that workers are started
        assert main(argv) == 1
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert "error: a process was killed, as happens when memory runs out" in text
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert main(argv) == 0
