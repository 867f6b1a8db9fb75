"""DeLong's variance, interval and test, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bend_hf.errors import ConfigError, RecordError
from bend_hf.evaluation.uncertainty.delong import delong

# positives 0.35 and 0.8, negatives 0.1 and 0.4: three of four pairs are won. Of the positives 1/2 and 1 are won, by
# the negatives 1 and 1/2 are lost: each has variance 1/8, halved for two items each, summed.
SCORE = np.array([0.1, 0.4, 0.35, 0.8])
TARGET = np.array([0, 0, 1, 1])


def test_variance_worked_by_hand() -> None:
    found = delong(SCORE[None], TARGET)
    assert found.areas.tolist() == [0.75]
    assert found.covariance.tolist() == [[0.125]]
    low, high = found.interval()
    assert low == pytest.approx(0.75 - 1.959963984540054 * math.sqrt(0.125), abs=1e-12)
    assert high == 1.0


def test_difference_worked_by_hand() -> None:
    # the second model loses half of each item's pairs: area 1/2, no variance, no covariance
    second = np.zeros(4)
    found = delong(np.stack([SCORE, second]), TARGET)
    assert found.covariance.tolist() == [[0.125, 0.0], [0.0, 0.0]]
    difference = found.difference(0, 1)
    assert difference.value == 0.25
    assert difference.p == pytest.approx(math.erfc(0.25 / math.sqrt(0.25)), abs=1e-15)  # z = 0.25 / sqrt(1/8)
    assert found.difference(1, 0).low == pytest.approx(-difference.high, abs=1e-15)


def test_model_against_itself_is_no_difference() -> None:
    difference = delong(np.stack([SCORE, SCORE]), TARGET).difference(0, 1)
    assert (difference.value, difference.low, difference.high, difference.p) == (0.0, 0.0, 0.0, 1.0)


def test_difference_without_variance_has_no_p() -> None:
    difference = delong(np.stack([TARGET, 1 - TARGET]), TARGET).difference(0, 1)
    assert difference.value == 1.0
    assert math.isnan(difference.p)


def test_interval_and_power_are_those_that_simulation_gives() -> None:
    rng = np.random.default_rng(0)
    target = np.repeat([0, 1], [60, 40])
    truth = 0.76024993890652  # of scores one standard deviation apart: the normal distribution at 1 / sqrt(2)
    found = [delong(rng.standard_normal((2, 100)) + target, target) for _ in range(400)]
    covered = [low <= truth <= high for low, high in (one.interval() for one in found)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.035)
    assert np.mean([one.difference(0, 1).p < 0.05 for one in found]) == pytest.approx(0.05, abs=0.035)


def test_unscored_items_change_nothing() -> None:
    found = delong(np.append(SCORE, math.nan)[None], np.append(TARGET, -100))
    assert found.covariance.tolist() == [[0.125]]


@pytest.mark.parametrize("target", [[0, 0, 0, 0], [-100] * 4])
def test_one_class_is_undefined(target: list[int]) -> None:
    found = delong(SCORE[None], np.array(target))
    assert np.isnan(found.areas).all()
    assert np.isnan(found.interval()).all()


def test_one_positive_item_has_an_area_without_variance() -> None:
    found = delong(np.stack([SCORE, SCORE]), np.array([0, 0, 0, 1]))
    assert found.areas.tolist() == [1.0, 1.0]
    assert math.isnan(found.difference(0, 1).p)


def test_bad_input_is_named() -> None:
    with pytest.raises(ConfigError, match=r"scores have shape \(4,\), targets \(4,\)"):
        delong(SCORE, TARGET)
    with pytest.raises(ConfigError, match=r"targets hold \[2\]"):
        delong(SCORE[None], np.array([0, 1, 2, 1]))
    with pytest.raises(RecordError, match="hold nan"):
        delong(np.array([[math.nan, 1.0]]), np.array([0, 1]))
    with pytest.raises(ConfigError, match="level is 95"):
        delong(SCORE[None], TARGET).interval(level=95)
