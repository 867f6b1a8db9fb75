"""A lease that is held as long as a run lasts, where its holder is on another machine."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bend_hf import lease as leases
from bend_hf.lease import STALE_S, file_system_of, lease_problem, sweep_trials, take_for_long

ELSEWHERE = json.dumps({"token": "x", "place": "another machine", "pid": 1, "born": "1"})


class Clock:
    """Time that passes while one sleeps, and what a holder does meanwhile."""

    def __init__(self, lock: Path, *, holder_lives: bool) -> None:
        self.now, self.lock, self.holder_lives = 1000.0, lock, holder_lives

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.holder_lives and self.now > 1005.0:
            os.utime(self.lock, ns=(0, int(self.now)))


@pytest.mark.parametrize("lives", [True, False])
def test_the_holder_of_another_machine_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: bool) -> None:
    lock = tmp_path / "run.lock"
    lock.write_text(ELSEWHERE)
    clock = Clock(lock, holder_lives=lives)
    monkeypatch.setattr("bend_hf.lease.time.monotonic", lambda: clock.now)
    monkeypatch.setattr("bend_hf.lease.time.sleep", clock.sleep)
    lease = take_for_long(lock)
    if lives:
        assert lease is None
        assert clock.now < 1010.0  # it showed itself
    else:
        assert lease is not None
        assert clock.now - 1000.0 > STALE_S
        lease.release()
        assert not lock.exists()


def test_a_living_holder_on_this_machine_is_noticed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "run.lock"
    lease = take_for_long(lock)
    assert lease is not None
    clock = Clock(lock, holder_lives=False)
    monkeypatch.setattr("bend_hf.lease.time.sleep", clock.sleep)
    assert take_for_long(lock) is None
    assert clock.now == 1000.0
    lease.release()


def _without(function: Callable[..., object], flags: int) -> Callable[..., object]:
    return lambda path, given, *rest: function(path, given & ~flags, *rest)


def _refused(*_: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "no links")


def _unsupported(*_: object) -> None:
    raise OSError(errno.EIO, "cannot be moved")


def _link_over(source: Path, target: Path) -> None:
    target.write_text(source.read_text())


def _copy(source: Path, target: Path) -> None:
    target.write_text(source.read_text())  # an object store copies, and removes the source later


FAULTS = {
    "links replace": ({"link": _link_over}, "can be created although it exists"),
    "no links, and no exclusive create": (
        {"link": _refused, "open": _without(os.open, os.O_EXCL)},
        "can be created although it exists",
    ),
    "a move copies": ({"replace": _copy}, "does not replace another one"),
    "a move fails": ({"replace": _unsupported}, "cannot be moved"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_system_that_cannot_hold_leases_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    functions, said = FAULTS[name]
    for function, double in functions.items():
        monkeypatch.setattr(leases.os, function, double)
    assert said in (lease_problem(tmp_path) or "")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("links", [True, False])
def test_local_disks_hold_leases_with_links_or_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(leases.os, "link", _refused)
    assert lease_problem(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["link", "replace"])
def test_what_a_process_leaves_that_is_killed_while_it_tries_a_folder_is_swept(tmp_path: Path, call: str) -> None:
    child = os.fork()
    if child == 0:
        setattr(os if call == "link" else Path, call, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        lease_problem(tmp_path)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    left = {path.name for path in tmp_path.iterdir()}
    assert left
    own = next(iter(left)).replace(f".{child}-", f".{os.getpid()}-")
    living = re.sub(r"-\w+\.", f"-{Path('/proc/self/stat').read_text().rpartition(')')[2].split()[19]}.", own, count=1)
    elsewhere = re.sub(r"test\.\w+", "test.00000000", own, count=1)
    for name in (living, elsewhere):
        (tmp_path / name).touch()
    sweep_trials(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {living, elsewhere}


MOUNTS = """22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:40 / {folder} rw,nosuid shared:1 - {kind} source rw
31 22 0:41 / {folder}er rw - tmpfs none rw
"""


@pytest.mark.parametrize(
    ("kind", "problem"), [("fuse.gcsfuse", True), ("fuse", True), ("fuse.juicefs", False), ("nfs4", False)]
)
def test_the_mount_of_an_object_store_is_recognized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, problem: bool
) -> None:
    folder = tmp_path / "a cache"
    folder.mkdir()
    table = MOUNTS.format(folder=str(folder).replace(" ", "\\040"), kind=kind)
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, **kind: table if str(self) == "/proc/self/mountinfo" else read(self, **kind)
    )
    assert file_system_of(folder) == kind
    assert file_system_of(tmp_path) == "ext4"
    assert (lease_problem(folder) is not None) == problem
