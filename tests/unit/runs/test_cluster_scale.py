"""Many workers on many shards: the simulation, worked by hand for small cases, and the figures that were recorded."""

from __future__ import annotations

import json

import pytest

from benchmarks import cluster
from benchmarks.cluster import RESULT, Costs, simulate

FREE = Costs(look=0.0, lease=0.0, open_shard=0.0)


@pytest.fixture(autouse=True)
def even(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards that take 30 s each."""
    monkeypatch.setattr(cluster, "SPREAD", 0.0)


def test_even_shards_leave_the_workers_idle_at_the_end_only() -> None:
    done = simulate(2, FREE, n_shards=7, per_entry=3)
    # Entries of 3, 3 and 1 shards: one worker computes 4 of them, the other 3, and waits 30 s for it.
    assert done.efficiency == pytest.approx(7 * 30 / (2 * 120))
    assert (done.overhead, done.idle_s) == (0.0, 30.0)
    assert done.fewest == pytest.approx(3 / 3.5)


def test_every_operation_is_paid_for() -> None:
    costs = Costs(look=0.5, lease=2.0, open_shard=0.25)
    done = simulate(1, costs, n_shards=4, per_entry=2)
    looks = 4 * 0.5 + 2 * 0.5  # one before each shard, and one that finds nothing free in each entry
    opened = 2 * 0.5  # the second entry, by both looks at it; nothing in it is finished
    assert done.overhead == pytest.approx((looks + 4 * 2.0 + opened) / (4 * 30))


def test_a_network_adds_its_delay_to_each_operation() -> None:
    slow = FREE.on_network()
    assert (slow.look, slow.lease, slow.open_shard) == pytest.approx((0.001, 0.005, 0.002))


def test_the_recorded_figures_keep_the_promises() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert (result["n_shards"], result["n_windows"], result["shard_s"]) == (200_000, 2_000_000, 30.0)
    assert [one["n_workers"] for one in result["local"]] == [1, 4, 16, 64, 256]
    for one in result["local"] + result["network"]:
        assert one["overhead"] < 0.01
        assert one["fewest"] > 0.95, "a worker starves"
        assert one["efficiency"] > 0.99
    for name in ("plan", "inventory", "status"):
        assert result["large"][name]["seconds"] < 1
        assert result["large"][name]["peak_mb"] < 200
    assert result["large"]["list"]["seconds"] < 2
