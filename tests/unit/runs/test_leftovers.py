"""Files that interrupted processes left are found and removed; what a living process needs stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bend_hf.cli._main import main
from bend_hf.lease import take
from bend_hf.runs.leftovers import SETTLED_S, find_leftovers

DEAD = 4194305  # Linux's highest process id and one
TOKEN = "0123456789abcdef" * 2
LEFT = (
    f".gene_finding.part{DEAD}/files/a.parquet",
    f".scores.json.part{DEAD}-0a1b2c3d",
    f"entry/shard-00000-of-00005.{TOKEN}.part/made.arrow",
    f"entry/shard-00000-of-00005.lock.{TOKEN}",
    f"entry/.lease-test.0a1b2c3d.{DEAD}-1.{TOKEN}.aside",
    f"entry/shard-00000-of-00005.lock.{TOKEN}.dead",
    "gene_finding__onehot__seed0__20260101T000000.parquet",
    "gene_finding__onehot__seed0__20260101T000000.safetensors",  # the head is written before the predictions
    "gene_finding__onehot__seed0__20260101T000000.mean_probe.parquet",
)
RESUMABLE = ("genome.fa.part", ".checkpoints/ab/last.safetensors", ".scored_variants/ab.parquet")
WANTED = (
    "gene_finding/README.md",
    "apart.bed",
    "yarn.lock",
    "kmers__kmer__seed0__20260101T000000.parquet",
    "kmers__kmer__seed0__20260101T000000.json",
)


def write(folder: Path, *names: str, text: str = "") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all kinds of leftovers, changed long ago."""
    monkeypatch.setenv("BEND_HF_CACHE", str(tmp_path / "cache"))
    there = tmp_path / "there"
    write(there, *LEFT, *WANTED)
    write(there, *RESUMABLE, text="0123456789")
    (there / "gene_finding.lock").write_text(f'{{"token": "x", "place": "elsewhere", "pid": {DEAD}, "born": "1"}}')
    settle(there)
    return there


def settle(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (1e9, 1e9))


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_clean_removes_what_is_of_no_use_and_keeps_the_rest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before_it = names(folder)
    assert main(["clean", str(folder), "--dry-run"]) == 0
    assert names(folder) == before_it
    assert main(["clean", str(folder)]) == 0
    assert names(folder) == {*WANTED, *RESUMABLE}
    out = capsys.readouterr().out
    assert out.count("--resumable removes it") == 2 * len(RESUMABLE)
    assert f"in {len(LEFT) + 1} files and folders, removed" in out
    assert main(["clean", str(folder), "--resumable"]) == 0
    assert names(folder) == set(WANTED)
    assert find_leftovers([folder]) == []


def test_files_of_living_processes_stay(folder: Path) -> None:
    write(folder, f".mine.part{os.getpid()}-0a1b2c3d")
    settle(folder)
    lease = take(folder / "mine.lock")
    assert lease is not None
    kept = {item.path.name: item.kept_because for item in find_leftovers([folder]) if item.kept_because}
    lease.release()
    assert kept == {
        f".mine.part{os.getpid()}-0a1b2c3d": f"process {os.getpid()} may be writing it",
        "mine.lock": "its process lives",
    }


def test_a_file_that_changed_a_moment_ago_may_belong_to_another_machine(folder: Path) -> None:
    left = folder / LEFT[1]
    left.write_text("more")
    reasons = {item.path: item.kept_because for item in find_leftovers([folder])}
    assert reasons[left] == "it changed 0 s ago"
    assert SETTLED_S > 60


def test_a_run_without_a_record_is_one_whole(folder: Path) -> None:
    """What was written before the predictions goes with their empty file; with whole predictions, all of it stays."""
    stem = "gene_finding__onehot__seed0__20260101T000000"
    (folder / f"{stem}.safetensors").touch()
    assert [item.kept_because for item in find_leftovers([folder]) if item.path.name.startswith(stem)] == (
        3 * ["it changed 0 s ago"]
    )
    write(folder, f"{stem}.parquet", text="scores")
    settle(folder)
    kept = {item.path.name: item.kept_because for item in find_leftovers([folder]) if item.path.name.startswith(stem)}
    assert len(kept) == 3
    assert set(kept.values()) == {"its predictions are whole, and only the record is gone; remove it yourself"}
    write(folder, f"{stem}.json")
    write(folder, f"{stem}-2.safetensors", "mine.safetensors")  # a head that was copied here alone
    settle(folder)
    assert not [item for item in find_leftovers([folder]) if item.path.suffix == ".safetensors"]


def test_the_last_complete_build_stays(folder: Path) -> None:
    old = folder / "gene_finding" / f".data.old{DEAD}"
    write(old, "a.parquet")
    settle(folder)
    assert {item.path: item.kept_because for item in find_leftovers([folder])}[old] == (
        "it is the last complete build; build again"
    )
    write(folder, "gene_finding/data/a.parquet")
    assert {item.path: item.kept_because for item in find_leftovers([folder])}[old] is None


def test_caches_go_on_request_unless_they_are_in_use(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = folder.parent / "cache"
    write(cache, "genomes/ab.fa", "embeddings/entry/about.json", text="0123456789")
    lease = take(cache / "genomes" / "ab.lock")
    assert main(["clean", str(folder)]) == 0
    assert "--caches removes it" in capsys.readouterr().out
    assert main(["clean", str(folder), "--caches"]) == 0
    assert "ab.lock in it: its process lives" in capsys.readouterr().out
    assert names(cache) == {"genomes/ab.fa", "genomes/ab.lock"}
    assert lease is not None
    lease.release()


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", str(tmp_path / "no")]) == 1
    assert "is not a folder; give folders that bend-hf wrote to" in capsys.readouterr().err


def test_what_a_killed_writer_leaves_is_found(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from bend_hf.files import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as part:\n    part.write_bytes(b'x' * 7); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.json")], check=False, timeout=300)
    (left,) = find_leftovers([tmp_path], settled_s=-1)
    assert (left.kind, left.size_bytes, left.kept_because) == ("unfinished", 7, None)
    left.remove()
    assert list(tmp_path.iterdir()) == []
