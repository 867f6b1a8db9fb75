"""SIGTERM ends a command as Ctrl-C does: finished work is kept, leases are freed, and the exit status says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bend_hf.cli._main import _signals, main
from bend_hf.embedders.cache.shards import ShardFiles
from bend_hf.publishing import dataset_folder
from bend_hf.runs.leftovers import find_leftovers
from bend_hf.training.head_trainer import HeadTrainer
from tests.killing import before
from tests.tiny import write_data

WORDS = """
import numpy as np

def embed(sequences):
    return [np.array([[ord(base), place] for place, base in enumerate(one)], np.float32) for one in sequences]
"""
HANDLERS = {signal.SIGTERM: (143, "terminated; finished work is kept"), signal.SIGINT: (130, "interrupted; finished")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "words.py").write_text(WORDS)
    return write_data(folder, ["gene_finding"], n=12)


def useless(folder: Path) -> list[str]:
    """What is left that no run would resume from."""
    return [str(item.path) for item in find_leftovers([folder], settled_s=-1) if item.kind != "resumable"]


def ends_at(number: int, argv: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, message = HANDLERS[signal.Signals(number)]
    handlers = [signal.getsignal(one) for one in HANDLERS]
    assert main(argv) == status
    assert message in capsys.readouterr().err
    assert [signal.getsignal(one) for one in HANDLERS] == handlers
    assert useless(folder) == []


def test_a_signal_that_was_ignored_before_stays_ignored(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
    try:
        with monkeypatch.context() as patched:
            patched.setattr(HeadTrainer, "_step", before(HeadTrainer._step, 1, lambda *_: os.kill(os.getpid(), 15)))
            argv = ["train", "--task", "gene_finding", "--model", "onehot", "--epochs", "1", "--data", str(data)]
            ends_at(signal.SIGTERM, [*argv, "--out", str(tmp_path)], tmp_path, capsys)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, ignored)


@pytest.mark.parametrize("number", HANDLERS)
def test_training_ends_at_a_signal_and_resumes(
    number: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--task", "gene_finding", "--model", "onehot", "--epochs", "3", "--batch-size", "2"]
    argv = ["train", *flags, "--data", str(data), "--out", str(tmp_path)]
    step = before(HeadTrainer._step, 5, lambda *_: os.kill(os.getpid(), number))
    with monkeypatch.context() as patched:
        patched.setattr(HeadTrainer, "_step", step)
        ends_at(number, argv, tmp_path, capsys)
    assert not list(tmp_path.glob("*.json"))
    assert main(argv) == 0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".parquet", ".safetensors"]


def test_embedding_frees_its_leases_at_a_signal(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(data / "words.py")
    argv = ["embed", "--task", "gene_finding", "--model", model, "--data", str(data), "--cache", str(tmp_path)]
    with monkeypatch.context() as patched:  # in the thread that writes, in the middle of a shard
        patched.setattr(
            ShardFiles, "finish", before(ShardFiles.finish, 2, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        )
        ends_at(signal.SIGTERM, argv, tmp_path, capsys)
    assert main(argv) == 0
    assert useless(tmp_path) == []


def test_a_build_leaves_nothing_at_a_signal(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["build", "gene_finding", "--data", str(data), "--out", str(tmp_path)]
    with monkeypatch.context() as patched:
        act = before(dataset_folder._facts, 1, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        patched.setattr(dataset_folder, "_facts", act)
        ends_at(signal.SIGTERM, argv, tmp_path, capsys)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


TWICE = """
import os, signal, sys
from bend_hf import pretrain, train
from bend_hf.cli import COMMANDS

def twice(parsed):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        print("cleaning up", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        print("never", flush=True)

COMMANDS.get(sys.argv[1]).__dict__["run"] = twice
sys.exit({"train": train, "pretrain": pretrain}[sys.argv[1]].main([]))
"""


@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_a_second_signal_ends_at_once(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWICE, command], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert done.stdout == "cleaning up\n"


def test_a_worker_hears_a_signal_that_comes_before_it_runs() -> None:
    """On one core, a new process begins after the signal; Python forgets those that come before it is ready."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        with _signals():
            for _ in range(20):
                worker = os.fork()
                if worker == 0:
                    time.sleep(5)
                    os._exit(0)
                os.kill(worker, signal.SIGTERM)
                assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -signal.SIGTERM
    finally:
        os.sched_setaffinity(0, cores)


def test_a_forked_worker_ends_at_the_first_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import os, signal, sys
from bend_hf.cli import COMMANDS
from bend_hf.cli._main import main

def forks(parsed):
    worker = os.fork()
    if not worker:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            print("no cleaning up in a worker", flush=True)
    return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])

COMMANDS.get("tasks").__dict__["run"] = forks
sys.exit(0 if main(["tasks"]) == -signal.SIGTERM else 1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "")
