"""A full disk: one clear line, nothing half written, and the same command goes on when there is space."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bend_hf.cli import COMMANDS
from bend_hf.cli._main import main
from bend_hf.runs.leftovers import find_leftovers
from tests.tiny import write_data

WORDS = """
import numpy as np

def embed(sequences):
    return [np.array([[ord(base), place] for place, base in enumerate(one)], np.float32) for one in sequences]
"""
TRAIN = ("--task", "gene_finding", "--model", "onehot", "--epochs", "1", "--batch-size", "4", "--out", "DISK/results")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "words.py").write_text(WORDS)
    return write_data(folder, ["gene_finding"], n=12)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder, mount = tmp_path / "disk", shutil.which("mount")
    folder.mkdir()
    command = [str(mount), "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here: that takes root and tmpfs")
    yield folder
    subprocess.run([str(shutil.which("umount")), "-l", str(folder)], check=True)


def leave(disk: Path, n_bytes: int) -> Path:
    """Fill the disk up to some bytes."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - n_bytes))
    return ballast


CASES = {
    "train, at the start": (("train", *TRAIN), 100_000),
    "train, later": (("train", *TRAIN), 1_100_000),
    "run, at the start": (("run", *TRAIN), 100_000),
    "embed": (("embed", "--task", "gene_finding", "--model", "WORDS", "--cache", "DISK/cache"), 12_000),
    "build, at the start": (("build", "gene_finding", "--out", "DISK/bend"), 0),
    "build, later": (("build", "gene_finding", "--out", "DISK/bend"), 1_090_000),
}


@pytest.mark.parametrize("case", CASES)
def test_a_full_disk_is_one_clear_line_and_the_command_goes_on_later(
    case: str, data: Path, disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, free_bytes = CASES[case]
    argv = [one.replace("DISK", str(disk)).replace("WORDS", str(data / "words.py")) for one in words]
    argv += ["--data", str(data)]
    ballast = leave(disk, free_bytes)
    if case.endswith("later"):  # what the trial at the start leaves is not enough for what follows
        from bend_hf.training.checkpoints import Checkpoints

        monkeypatch.setattr(Checkpoints, "write", filling(disk, Checkpoints.write))
        monkeypatch.setattr("bend_hf.publishing.dataset_folder.make_builder", filling(disk, builder_maker()))
    status, text = main(argv), capsys.readouterr().err
    monkeypatch.undo()
    assert status == 1, text
    assert "Traceback" not in text
    line = next(line for line in text.splitlines() if line.startswith("error: "))
    assert str(disk) in line
    assert any(text in line for text in ("No space left on device", "do not fit on the disk", "Not enough disk space"))
    assert "free some" in line.lower() or "free space" in line.lower() or "give another" in line.lower()
    assert [item for item in find_leftovers([disk], settled_s=-1) if item.kind != "resumable"] == []
    assert not list(disk.glob("results/*__seed*"))
    for left in disk.glob("ballast*"):
        left.unlink()
    assert not ballast.exists()
    assert main(argv) == 0


def builder_maker() -> object:
    from bend_hf.publishing import dataset_folder

    return dataset_folder.make_builder


def filling(disk: Path, function: object) -> object:
    """The function, on a disk that is full when it is called."""

    def wrapped(*args: object, **kwargs: object) -> object:
        (disk / "ballast-2").write_bytes(bytes(shutil.disk_usage(disk).free))
        return function(*args, **kwargs)  # type: ignore[operator]

    return wrapped


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "/disk/x"),
        OSError(122, "Disk quota exceeded"),
        OSError(27, "File too large"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
    ids=str,
)
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("command", ["train", "report", "card", "push", "list"])
def test_any_command_says_that_the_disk_is_full(
    command: str, wrapped: bool, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(parsed: object) -> int:
        if not wrapped:
            raise error
        try:
            raise error
        except Exception as inner:
            raise ValueError("an error of a library") from inner

    key = command if command in COMMANDS else "tasks"
    monkeypatch.setitem(COMMANDS.get(key).__dict__, "run", full)
    argv = {"push": ["push", "report"], "card": ["card", "x"], "report": ["report", "x"]}.get(key, [key])
    assert main(argv) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert "finished work is kept" in text
    assert "GB for " in text


def test_other_defects_are_no_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(parsed: object) -> int:
        raise ValueError("a defect")

    monkeypatch.setitem(COMMANDS.get("tasks").__dict__, "run", defect)
    with pytest.raises(ValueError, match="a defect"):
        main(["tasks"])


def test_an_argument_that_is_not_utf_8_is_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["variants", "a\udcffb.bed"])
    assert (
        r"the argument a\udcffb.bed is not UTF-8, which a record must hold; rename the file" in capsys.readouterr().err
    )
