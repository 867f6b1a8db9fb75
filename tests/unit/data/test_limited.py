"""``--limit`` keeps items spread over a split, and those of a matched pair together."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from datasets import Dataset

from bend_hf.data.dataset import TaskData, limited
from bend_hf.tasks import TASKS


def rows_kept(columns: dict[str, list[Any]], limit: int) -> dict[str, list[Any]]:
    data = TaskData(task=TASKS.get("variant_effects_disease"), subsets={"test": Dataset.from_dict(columns)}, facts={})
    kept = limited(data, limit)
    assert kept.facts["limit"] == limit
    return kept.subsets["test"].to_dict()  # type: ignore[no-any-return]  # datasets is not typed


def test_items_without_pairs_are_spread_over_the_split() -> None:
    assert rows_kept({"start": list(range(101))}, 3)["start"] == [0, 50, 100]


@pytest.mark.parametrize("names", [list(range(50)), [f"p{number}" for number in range(50)]], ids=["numbers", "texts"])
@pytest.mark.parametrize("limit", [2, 20, 21])
def test_pairs_stay_whole_also_where_they_interleave(names: list[Any], limit: int) -> None:
    pair = [name for two in zip(names[::2], names[1::2], strict=True) for name in (*two, *two)]  # a b a b c d c d ...
    kept = rows_kept({"pair": pair, "start": list(range(100))}, limit)
    assert set(Counter(kept["pair"]).values()) == {2}
    assert len(kept["start"]) == limit // 2 * 2
    assert kept["start"] == sorted(kept["start"])
    assert kept["start"][0] == 0


def test_fewer_items_than_a_pair_has_are_items() -> None:
    assert rows_kept({"pair": [0, 0, 1, 1], "start": [0, 1, 2, 3]}, 1)["start"] == [0]
