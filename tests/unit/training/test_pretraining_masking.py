"""Masks: BERT's shares, and what is never chosen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bend_hf.training.pretraining.objectives import MASK, mask, validation_mask, weights
from bend_hf.types import Bytes

N_ROWS, N_LETTERS = 200, 5_000


@pytest.fixture(scope="module")
def codes() -> Bytes:
    return np.random.default_rng(0).integers(0, 4, (N_ROWS, N_LETTERS)).astype(np.uint8)


def is_share(count: int, n: int, share: float) -> bool:
    """Within five standard deviations of a binomial count, which chance alone leaves in 1 of 10^6 cases."""
    return abs(count - n * share) < 5 * math.sqrt(n * share * (1 - share))


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_the_fractions_are_those_of_bert(codes: Bytes, rate: float) -> None:
    masked = mask(codes, rate=rate, seed=4, step=17)
    chosen = int(masked.chosen_BL.sum())
    inputs, letters = masked.inputs_BL[masked.chosen_BL], codes[masked.chosen_BL]
    assert is_share(chosen, codes.size, rate)
    assert is_share(int((inputs == MASK).sum()), chosen, 0.8)
    # A tenth is left, and of the tenth that is replaced a quarter is replaced by itself.
    assert is_share(int((inputs == letters).sum()), chosen, 0.1 + 0.1 / 4)
    others = (inputs != MASK) & (inputs != letters)
    for difference in (1, 2, 3):
        n_such = int(((inputs[others] - letters[others]) % 4 == difference).sum())
        assert is_share(n_such, chosen, 0.1 / 4)


def test_nucleotides_that_are_not_chosen_and_the_input_batch_stay_unchanged(codes: Bytes) -> None:
    given = codes.copy()
    masked = mask(given, seed=4, step=17)
    assert np.array_equal(masked.inputs_BL[~masked.chosen_BL], codes[~masked.chosen_BL])
    assert np.array_equal(given, codes)


def test_places_are_chosen_independently_of_each_other_and_of_the_step(codes: Bytes) -> None:
    first, second = (mask(codes, seed=4, step=step).chosen_BL for step in (17, 18))
    assert is_share(int((first & second).sum()), codes.size, 0.15**2)
    assert is_share(int((first[:, 1:] & first[:, :-1]).sum()), first[:, 1:].size, 0.15**2)
    assert is_share(int((first[1:] & first[:-1]).sum()), first[1:].size, 0.15**2)


def test_an_unknown_nucleotide_is_never_chosen(codes: Bytes) -> None:
    holed = np.where(np.arange(N_LETTERS) % 3 == 0, np.uint8(4), codes)
    for masked in (mask(holed, rate=1.0, seed=0, step=0), validation_mask(holed, rate=1.0, seed=0)):
        assert np.array_equal(masked.chosen_BL, holed < 4)
        assert (masked.inputs_BL[holed == 4] == 4).all()


def test_validation_masks_all_of_its_targets_and_always_the_same(codes: Bytes) -> None:
    masked, again, other = (validation_mask(codes, seed=seed) for seed in (1, 1, 2))
    assert is_share(int(masked.chosen_BL.sum()), codes.size, 0.15)
    assert (masked.inputs_BL[masked.chosen_BL] == MASK).all()
    assert np.array_equal(masked.inputs_BL[~masked.chosen_BL], codes[~masked.chosen_BL])
    assert np.array_equal(masked.chosen_BL, again.chosen_BL)
    assert is_share(int((masked.chosen_BL & other.chosen_BL).sum()), codes.size, 0.15**2)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.01])
def test_a_rate_that_is_not_a_fraction_is_refused(codes: Bytes, rate: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        mask(codes, rate=rate, seed=0, step=0)


def test_weights_count_repeats_less_and_non_targets_not_at_all() -> None:
    chosen = np.array([[True, True, False, False]])
    repeats = np.array([[True, False, True, False]])
    found = weights(chosen, repeats, 0.1)
    assert found.dtype == np.float32
    assert found.tolist() == [[pytest.approx(0.1), 1.0, 0.0, 0.0]]
