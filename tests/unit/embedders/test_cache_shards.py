"""Shards that were truncated, altered, copied or lost are noticed; good shards are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bend_hf.embedders.cache.manage import list_entries, remove, select, verify
from bend_hf.embedders.cache.shards import ShardFiles, State, read_plan
from bend_hf.errors import CacheError
from bend_hf.lease import Lease, Watch, take
from tests.cached import arrow_bytes, leftovers, made, small_dataset, small_entry


def cut(files: ShardFiles) -> None:
    with files.arrow.open("r+b") as file:
        file.truncate(files.arrow.stat().st_size - 8)


def flip(files: ShardFiles) -> None:
    flip_silently(files)
    stat = files.arrow.stat()
    os.utime(files.arrow, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))


def flip_silently(files: ShardFiles) -> None:
    """Flip one bit behind the back of the file system, as a failing disk does."""
    flip_with_time_put_back(files)
    stat, record = files.arrow.stat(), files.read_record()
    assert record is not None
    files._write_record(replace(record, state=(stat.st_ino, stat.st_ctime_ns)))


def flip_with_time_put_back(files: ShardFiles) -> None:
    stat = files.arrow.stat()
    with files.arrow.open("r+b") as file:
        file.seek(stat.st_size // 2)
        byte = file.read(1)[0]
        file.seek(stat.st_size // 2)
        file.write(bytes([byte ^ 4]))
    os.utime(files.arrow, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def lose(files: ShardFiles) -> None:
    files.arrow.unlink()


def lose_record(files: ShardFiles) -> None:
    files.record.unlink()


def cut_record(files: ShardFiles) -> None:
    files.record.write_text(files.record.read_text()[:20])


@pytest.mark.parametrize("damage", [cut, flip, lose, lose_record, cut_record])
def test_only_a_damaged_shard_is_computed_again(tmp_path: Path, damage: Callable[[ShardFiles], None]) -> None:
    entry = made(tmp_path)
    whole = arrow_bytes(entry)
    kept = {files.number: files.arrow.stat().st_ino for files in entry.shards if files.number != 2}
    damage(entry.shards[2])
    assert entry.shards[2].state() is not State.GOOD
    again = made(tmp_path)
    assert arrow_bytes(again) == whole
    assert {files.number: files.arrow.stat().st_ino for files in again.shards if files.number != 2} == kept


def test_only_verify_reads_every_byte(tmp_path: Path) -> None:
    entry = made(tmp_path)
    flip_silently(entry.shards[1])
    assert entry.shards[1].state() is State.GOOD
    found = verify(list_entries(tmp_path))
    assert found.altered == (entry.shards[1].arrow,)
    assert found.n_good == len(entry.shards) - 1
    assert entry.shards[1].state() is State.MISSING


def test_a_shard_that_is_edited_with_its_time_put_back_is_noticed(tmp_path: Path) -> None:
    files = made(tmp_path).shards[0]
    flip_with_time_put_back(files)
    assert files.state() is State.ALTERED


def test_the_record_of_an_earlier_release_is_read_and_completed(tmp_path: Path) -> None:
    files = made(tmp_path).shards[0]
    body = json.loads(files.record.read_text())
    state = body.pop("state")
    files.record.write_text(json.dumps(body))
    assert files.state() is State.GOOD
    assert json.loads(files.record.read_text())["state"] == state


def test_a_copied_shard_is_good_and_not_read_twice(tmp_path: Path) -> None:
    files = made(tmp_path).shards[0]
    os.utime(files.arrow, ns=(0, 5_000_000_000))
    assert files.state() is State.GOOD
    record = files.read_record()
    assert record is not None
    assert record.changed_ns == 5_000_000_000


def test_a_finished_cache_is_not_filled_again(tmp_path: Path) -> None:
    entry = made(tmp_path)
    assert entry.fill() == 0


def test_a_lease_is_held_by_one_process_and_released(tmp_path: Path) -> None:
    place = tmp_path / "shard.lock"
    with take(place) as lease:  # type: ignore[union-attr]
        assert take(place, Watch()) is None
        assert lease.path == place
    assert not place.exists()
    assert list(tmp_path.iterdir()) == []


def test_the_lease_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    place = tmp_path / "shard.lock"
    lease = take(place)
    assert lease is not None
    place.write_text(place.read_text().replace(f'"pid": {os.getpid()}', '"pid": 4194305'))  # beyond Linux's highest
    taken = take(place, Watch())
    assert taken is not None
    lease.release()
    assert place.exists()  # it is the new holder's now
    taken.release()


def test_a_lease_that_was_taken_over_meanwhile_stays_with_its_new_holder(tmp_path: Path) -> None:
    place = tmp_path / "shard.lock"
    dead_lease(place)
    taken: list[Lease | None] = []

    class Overtaken(Watch):
        def is_stale(self, path: Path) -> bool:
            judged = super().is_stale(path)
            if not taken:  # another process is faster
                taken.append(take(path, Watch()))
            return judged

    assert take(place, Overtaken()) is None
    assert taken[0] is not None
    assert taken[0].token in place.read_text()
    taken[0].release()
    assert list(tmp_path.iterdir()) == []


def test_whoever_finds_a_finished_cache_removes_the_lease_of_a_dead_process(tmp_path: Path) -> None:
    entry = made(tmp_path)
    dead_lease(entry.shards[0].lock)
    entry.shards[0].work_folder("x").mkdir()
    assert entry.fill() == 0
    assert leftovers(entry) == []


@pytest.mark.parametrize(
    ("pid", "is_stale"),
    [(1 << 70, True), (-(1 << 70), True), (0, True), (-1, True), (True, True), ("1", False), (None, False)],
)
def test_a_lease_of_an_impossible_process_is_stale_and_of_an_unknown_one_is_kept(
    tmp_path: Path, pid: object, is_stale: bool
) -> None:
    place = tmp_path / "shard.lock"
    place.write_text(json.dumps({**json.loads(written_lease(tmp_path)), "pid": pid}))
    watch = Watch()
    assert watch.is_stale(place) is is_stale
    assert watch.lives(place) is not is_stale


def written_lease(folder: Path) -> str:
    with take(folder / "other.lock") as lease:  # type: ignore[union-attr]
        return lease.path.read_text()


def dead_lease(place: Path) -> None:
    beyond = 4194305  # Linux's highest process id and one
    place.write_text(json.dumps({**json.loads(written_lease(place.parent)), "pid": beyond}))


def test_the_lease_of_another_machine_goes_stale_only_when_it_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "shard.lock"
    place.write_text('{"token": "x", "place": "elsewhere", "pid": 1, "born": "1"}')
    moment = 1000.0
    monkeypatch.setattr("bend_hf.lease.time.monotonic", lambda: moment)
    watch = Watch()
    assert not watch.is_stale(place)
    moment += 119
    assert not watch.is_stale(place)
    os.utime(place, ns=(0, 7))  # its holder lives
    moment += 119
    assert not watch.is_stale(place)
    moment += 121
    assert watch.is_stale(place)


def test_the_list_shows_entries_and_their_sizes(tmp_path: Path) -> None:
    entry = made(tmp_path)
    (held,) = list_entries(tmp_path)
    assert held.is_whole
    assert held.size_bytes == sum(path.stat().st_size for path in entry.folder.iterdir())
    assert "small train: Triplets('')" in held.text()
    assert "whole" in held.text()
    lose_record(entry.shards[0])
    assert f"{len(entry.shards) - 1} of {len(entry.shards)} shards" in list_entries(tmp_path)[0].text()


def test_prune_removes_what_was_selected_and_needs_a_condition(tmp_path: Path) -> None:
    made(tmp_path)
    made(tmp_path, small_dataset(seed=1))
    small = small_entry(tmp_path, small_dataset(seed=2))
    held = list_entries(tmp_path)
    with pytest.raises(CacheError, match="nothing says which entries to remove"):
        select(held)
    assert [one.path for one in select(held, unfinished=True)] == [small.folder]
    assert select(held, names=("no such",)) == []
    assert select(held, older_than_days=1) == []
    freed = remove(select(held, unfinished=True)[0])
    assert freed > 0
    assert len(list_entries(tmp_path)) == 2


def test_an_entry_that_is_being_filled_is_not_removed(tmp_path: Path) -> None:
    entry = made(tmp_path)
    (held,) = list_entries(tmp_path)
    assert take(entry.shards[0].lock) is not None
    with pytest.raises(CacheError, match="is being filled"):
        remove(held)


def test_a_truncated_plan_raises_and_can_be_pruned(tmp_path: Path) -> None:
    entry = made(tmp_path)
    (entry.folder / "about.json").write_text("{")
    with pytest.raises(CacheError, match="prune --broken"):
        small_entry(tmp_path)
    (held,) = select(list_entries(tmp_path), broken=True)
    remove(held)
    assert made(tmp_path).shards[0].state() is State.GOOD


def test_files_of_a_process_killed_after_its_shard_was_finished_are_removed(tmp_path: Path) -> None:
    entry = made(tmp_path)
    files = entry.shards[1]
    files.work_folder("0123").mkdir()
    lease = take(files.lock)
    assert lease is not None
    files.lock.write_text(files.lock.read_text().replace(f'"pid": {os.getpid()}', '"pid": 4194305'))  # a dead process
    (entry.folder / f".{files.record.name}.part1-abc").write_text("{")
    assert len(leftovers(entry)) == 3
    assert entry.fill() == 0
    assert leftovers(entry) == []
    lease.release()


BAD = (5, -1, 10**30, None, "x", [1], {"a": 1}, True, 1.5)


def test_a_plan_with_values_of_another_kind_is_a_cache_error(tmp_path: Path) -> None:
    path = made(tmp_path).shards[0].folder / "about.json"
    whole = json.loads(path.read_text())
    accepted = []
    for name, right in whole.items():
        for value in BAD:
            path.write_text(json.dumps({**whole, name: value}))
            try:
                assert type(getattr(read_plan(path.parent), name)) in (type(right), int, tuple)
                accepted.append((name, value))
            except CacheError:
                continue
    assert ("width", -1) not in accepted
    assert ("shard_starts", 5) not in accepted
    path.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(CacheError, match="nested too deeply"):
        read_plan(path.parent)


def test_a_record_with_values_of_another_kind_counts_as_none(tmp_path: Path) -> None:
    files = made(tmp_path).shards[0]
    whole = json.loads(files.record.read_text())
    for name in whole:
        for value in BAD:
            files.record.write_text(json.dumps({**whole, name: value}))
            assert files.state() in (State.GOOD, State.ALTERED, State.MISSING)
