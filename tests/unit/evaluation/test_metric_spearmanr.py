"""The Spearman metric against cases worked by hand and SciPy, ties and weights included."""

from __future__ import annotations

import math
from typing import Any

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from bend_hf.files import asset_folder

few = st.integers(-4, 4).map(float)  # so that there are ties


@pytest.fixture(scope="module")
def spearmanr() -> Any:
    return evaluate.load(str(asset_folder("metrics") / "spearmanr"))


def test_ties_worked_by_hand(spearmanr: Any) -> None:
    # ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: covariance 4.5, spreads 4.5 and 5
    result = spearmanr.compute(predictions=[10.0, 20.0, 20.0, 90.0], references=[1, 2, 3, 4])
    assert result["spearmanr"] == pytest.approx(4.5 / math.sqrt(4.5 * 5), abs=1e-15)
    assert (result["n_labels_left_out"], result["n_items"]) == (0, [4])


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.float64, st.tuples(st.just(2), st.integers(2, 40)), elements=few))
def test_is_that_of_scipy(pair: Any) -> None:
    metric = evaluate.load(str(asset_folder("metrics") / "spearmanr"))
    found = metric.compute(predictions=pair[0], references=pair[1])["spearmanr"]
    if min(np.ptp(side) for side in pair) == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(stats.spearmanr(*pair).statistic, abs=1e-12)


def test_only_the_order_counts(spearmanr: Any) -> None:
    x = np.array([0.1, 5.0, -3.0, 7.0])
    assert spearmanr.compute(predictions=x, references=np.exp(x))["spearmanr"] == 1.0
    assert spearmanr.compute(predictions=x, references=-(x**3))["spearmanr"] == -1.0


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_weights_repeat_items_and_zero_leaves_them_out(data: st.DataObject) -> None:
    metric = evaluate.load(str(asset_folder("metrics") / "spearmanr"))
    n = data.draw(st.integers(1, 20))
    x, y = (data.draw(hnp.arrays(np.float64, n, elements=few)) for _ in range(2))
    weights = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, 3)))
    weighted = metric.compute(predictions=x, references=y, sample_weight=weights)["spearmanr"]
    repeated = metric.compute(predictions=np.repeat(x, weights), references=np.repeat(y, weights))["spearmanr"]
    assert weighted == pytest.approx(repeated, abs=1e-12, nan_ok=True)


def test_weights_may_come_with_some_batches(spearmanr: Any) -> None:
    spearmanr.add_batch(predictions=[1.0, 2.0], references=[1.0, 2.0])
    spearmanr.add_batch(predictions=[9.0, 3.0], references=[0.0, 3.0], sample_weight=[0, 1])
    result = spearmanr.compute()
    assert (result["spearmanr"], result["n_items"]) == (1.0, [3])


@pytest.mark.parametrize(("predictions", "references"), [([], []), ([0.3], [0.1]), ([2, 2], [1, 2])])
def test_constant_or_nothing_is_nan(spearmanr: Any, predictions: Any, references: Any) -> None:
    assert math.isnan(spearmanr.compute(predictions=predictions, references=references)["spearmanr"])
