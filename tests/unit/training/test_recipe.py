"""A protocol gives few rows enough steps, and searches the same grid for every model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bend_hf.tasks import TASKS
from bend_hf.tasks._spec import Head, TrainingSpec
from bend_hf.training.heads import HEADS
from bend_hf.training.recipe import RECIPES, Budget, fewest_train_rows, steps_per_epoch, trials_of

BEND, NEW = RECIPES["bend-2024"], RECIPES["bend-hf-1"]
GENES = TrainingSpec(loss="cross_entropy", batch_size=64, learning_rate=0.003)


@given(n_rows=st.integers(1, 100_000), batch_size=st.integers(4, 512), accumulation=st.integers(1, 4))
def test_the_new_protocol_takes_at_least_300_steps(n_rows: int, batch_size: int, accumulation: int) -> None:
    training = TrainingSpec(loss="bce", batch_size=batch_size, learning_rate=0.001)
    budget = NEW.budget(training, n_rows, accumulation=accumulation)
    n_steps = budget.epochs * steps_per_epoch(n_rows, batch_size=budget.batch_size, accumulation=accumulation)
    assert n_steps >= 300
    assert 4 <= budget.batch_size <= batch_size
    assert BEND.budget(training, n_rows) == Budget(batch_size=batch_size, epochs=100)


@pytest.mark.parametrize(
    ("n_rows", "budget"),
    [
        (45, Budget(batch_size=15, epochs=100)),  # 3 batches, 100 times
        (5, Budget(batch_size=4, epochs=150)),  # 2 batches, 150 times
        (4780, Budget(batch_size=64, epochs=100)),  # as BEND
    ],
)
def test_batches_become_smaller_before_epochs_become_more(n_rows: int, budget: Budget) -> None:
    assert NEW.budget(GENES, n_rows) == budget


def test_what_the_user_gives_stays() -> None:
    assert NEW.budget(GENES, 45, epochs=3) == Budget(batch_size=4, epochs=3)
    assert NEW.budget(GENES, 45, batch_size=64) == Budget(batch_size=64, epochs=300)
    assert NEW.budget(GENES, 45, epochs=3, batch_size=64) == Budget(batch_size=64, epochs=3)


@pytest.mark.parametrize("task", [task for task in TASKS if task.head is not None], ids=lambda task: task.key)
def test_every_trained_task_has_the_same_grid(task: object) -> None:
    head = HEADS.get("cnn").complete(task.head)  # type: ignore[attr-defined]  # a TaskSpec
    searched = NEW.searched(head, None)
    assert searched == {"hidden": (8, 64), "learning_rate": (0.0003, 0.001, 0.003)}
    trials = trials_of(head, searched, None)
    assert [(trial.head.settings["hidden"], trial.learning_rate) for trial in trials] == [
        (8, 0.0003),
        (8, 0.001),
        (8, 0.003),
        (64, 0.0003),
        (64, 0.001),
        (64, 0.003),
    ]
    assert {trial.head.settings["kernel"] for trial in trials} == {head.settings["kernel"]}
    assert BEND.searched(head, None) == {}


def test_a_given_learning_rate_is_not_searched() -> None:
    head = HEADS.get("linear").complete(Head("linear"))
    assert NEW.searched(head, 0.01) == {}
    assert [trial.learning_rate for trial in trials_of(head, {}, 0.01)] == [0.01]


@given(counts=st.lists(st.integers(1, 50), min_size=3, max_size=10))
def test_the_fewest_rows_of_folds_are_those_of_the_smallest_training_split(counts: list[int]) -> None:
    n = len(counts)
    left = [sum(counts) - counts[k] - counts[(k + 1) % n] for k in range(n)]
    assert fewest_train_rows({f"part{k}": count for k, count in enumerate(counts)}, folds=True) == min(left)
