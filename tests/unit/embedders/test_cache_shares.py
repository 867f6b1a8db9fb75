"""A cache folder that cannot hold leases: static shares, each computed by one process whatever the others do."""

from __future__ import annotations

import logging
import shutil
import threading
from pathlib import Path

import pytest

from bend_hf import lease as leases
from bend_hf.embedders.cache import fill
from bend_hf.embedders.cache.fill import RankSlice
from bend_hf.embedders.cache.open import CacheEntry
from bend_hf.embedders.cache.shards import State
from bend_hf.embedders.cache.share_progress import ShareProgress, read_progress
from bend_hf.lease import take
from tests.cached import arrow_bytes, leftovers, made, small_entry


def _link_over(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


@pytest.fixture
def no_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder where a second process creates what another has created."""
    monkeypatch.setattr("bend_hf.lease.os.link", _link_over)


def numbers(entry: CacheEntry) -> set[int]:
    return {files.number for files in entry.shards if files.record.exists()}


@pytest.mark.usefixtures("no_leases")
def test_each_process_computes_its_static_share_and_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = small_entry(tmp_path / "shared")
    every = set(range(entry.plan.n_shards))
    assert len(every) > 3
    assert entry.fill(here=RankSlice(rank=1, n_processes=3, waits=False)) == len([n for n in every if n % 3 == 1])
    assert numbers(entry) == {number for number in every if number % 3 == 1}
    assert "no leases (a file can be created although it exists)" in caplog.text
    assert "static share 1/3" in caplog.text
    for rank in (2, 0):
        entry.fill(here=RankSlice(rank=rank, n_processes=3, waits=False))
    assert numbers(entry) == every
    assert leftovers(entry) == []
    assert arrow_bytes(entry) == arrow_bytes(made(tmp_path / "alone"))


def test_a_worker_logs_how_far_its_static_share_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = small_entry(tmp_path)
    entry.fill([1], here=RankSlice(leases=False))
    caplog.set_level(logging.INFO)
    entry.fill(here=RankSlice(rank=1, n_processes=3, leases=False, waits=False))
    n_mine = len(range(1, entry.plan.n_shards, 3))
    first, *_, last = (read_progress([line]) for line in caplog.messages if "share 1/3: " in line)
    key = (entry.plan.model, entry.plan.label)
    assert (first[key].n_done, first[key].n_now) == (1, 0), "a shard was there"
    assert (last[key].n_done, last[key].n_now, last[key].n_mine) == (n_mine, n_mine - 1, n_mine)
    assert last[key].n_shards == entry.plan.n_shards
    assert last[key].seconds >= 0  # of a small shard, rounded to a tenth
    assert read_progress(f"a bar 50%\r{message}" for message in caplog.messages) == last


@pytest.mark.parametrize("name", ["genes by chromosome train", 'a "quoted" name', "back\\slash", "Größe\n2", " "])
def test_names_of_any_kind_are_read_again_from_the_log(name: str) -> None:
    one = ShareProgress(model=name, label=f"{name} by {name}", rank=0, n_processes=2, n_mine=3, n_shards=6)
    done = one.finished(seconds=2.5)
    assert read_progress([one.text(), f"50%|##  |\r{done.text()} and more"]) == {(name, f"{name} by {name}"): done}


@pytest.mark.usefixtures("no_leases")
def test_ranks_of_a_launch_wait_for_the_shares_of_the_others(tmp_path: Path) -> None:
    entry = small_entry(tmp_path)
    waiting = threading.Thread(target=entry.fill, kwargs={"here": RankSlice(rank=0, n_processes=2)})
    waiting.start()
    while 0 not in numbers(entry):
        waiting.join(0.01)
    assert waiting.is_alive()
    small_entry(tmp_path).fill(here=RankSlice(rank=1, n_processes=2, waits=False))
    waiting.join(30)
    assert not waiting.is_alive()
    assert numbers(entry) == set(range(entry.plan.n_shards))


def test_a_share_only_says_where_to_start_if_the_folder_holds_leases(tmp_path: Path) -> None:
    entry = small_entry(tmp_path)
    assert entry.fill(here=RankSlice(rank=1, n_processes=3, waits=False)) == entry.plan.n_shards


def test_leases_can_be_forbidden(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = small_entry(tmp_path)
    entry.fill(here=RankSlice(rank=0, n_processes=2, leases=False, waits=False))
    assert numbers(entry) == {number for number in range(entry.plan.n_shards) if number % 2 == 0}
    assert "--no-leases is given" in caplog.text


@pytest.mark.usefixtures("no_leases")
def test_a_process_without_a_share_keeps_the_unfinished_files_of_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = small_entry(tmp_path)
    other = entry.shards[0].work_folder("another")
    other.mkdir()
    entry.fill()
    assert other.is_dir()
    assert "give each process its share with --shard I/N" in caplog.text
    assert not [path for path in entry.folder.iterdir() if path.suffix == ".lock"]


def test_the_self_test_leaves_nothing_in_the_folder(tmp_path: Path) -> None:
    entry = small_entry(tmp_path)
    assert fill.why_static(entry.folder, RankSlice()) is None
    assert not list(entry.folder.glob(".lease-test*"))


def test_a_finished_cache_keeps_nothing_of_a_process_that_died_in_the_self_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = made(tmp_path)
    monkeypatch.setattr(leases.os, "getpid", lambda: 4194305)  # Linux's highest process id and one
    monkeypatch.setattr(leases.Path, "unlink", lambda *_, **__: None)
    leases.lease_problem(entry.folder)
    monkeypatch.undo()
    assert len(list(entry.folder.glob(".lease-test*"))) == 3
    small_entry(tmp_path).fill()
    assert not list(entry.folder.glob(".lease-test*"))


def test_a_process_that_does_not_wait_leaves_what_others_hold_and_takes_it_over_later(tmp_path: Path) -> None:
    entry = small_entry(tmp_path)
    held = take(entry.shards[1].lock)
    assert held is not None
    altered = entry.shards[2]
    altered.record.write_text("{}")  # its record is there, and its embeddings are not
    entry.fill(here=RankSlice(waits=False))
    every = set(range(entry.plan.n_shards))
    assert numbers(entry) - {2} == every - {1, 2}
    held.release()
    entry.fill()
    assert {files.state() for files in entry.shards} == {State.GOOD}
    assert leftovers(entry) == []


def test_free_shards_are_found_by_one_look_at_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = small_entry(tmp_path)
    leases = [take(files.lock) for files in entry.shards[1:]]
    tried: list[Path] = []
    monkeypatch.setattr(fill, "take", lambda path, watch=None: tried.append(path) or take(path, watch))
    entry.fill(here=RankSlice(waits=False))
    assert tried == [entry.shards[0].lock], "no lease of another process is asked for"
    for lease in leases:
        assert lease is not None
        lease.release()
