"""A lease that is held as long as a run lasts, where its holder is on another machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bend_hf.lease import STALE_S, take_for_long

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
