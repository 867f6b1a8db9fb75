"""Groups of records: what makes one result, its value, its interval and its name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bend_hf.errors import ConfigError
from bend_hf.evaluation.record import ResultRecord
from bend_hf.publishing.models import model_label, records_of_model
from bend_hf.publishing.results import group_records, spread_over_trainings
from tests.records import record


def _with(made: ResultRecord, part: str, **changes: object) -> ResultRecord:
    return replace(made, **{part: {**getattr(made, part), **changes}})  # type: ignore[arg-type]


def test_seeds_make_one_group_with_their_mean_and_an_interval_over_items_and_seeds() -> None:
    [entry] = group_records([record(value=0.8), record(value=0.84, seed=1, interval=(0.81, 0.9))])
    assert entry.seeds == (0, 1)
    assert entry.value == pytest.approx(0.82)
    assert entry.low is not None
    assert entry.high is not None
    assert entry.low < 0.78  # two trainings that differ by 0.04 say little of a third
    assert entry.high > 0.87
    assert entry.interval_method == "95 %, bootstrap over items and 2 seeds"
    spread = spread_over_trainings(entry.records)
    assert spread is not None
    assert spread.of_trainings == pytest.approx(0.04**2 / 2 / 2)
    assert spread.of_items == pytest.approx((0.04**2 + 0.09**2) / 2 / (2 * 1.96) ** 2, rel=1e-3)
    assert spread.as_text() == "standard error 0.0178 over items, 0.0200 over seeds"


def test_of_two_runs_with_one_seed_the_later_counts() -> None:
    old = record(value=0.1, created_at="2026-01-01T00:00:00Z")
    [entry] = group_records([record(value=0.8), old])
    assert entry.value == 0.8


def test_a_seed_without_a_score_leaves_the_group_without_one() -> None:
    [entry] = group_records([record(), record(value=None, seed=1, interval=None)])
    assert (entry.value, entry.low) == (None, None)


@pytest.mark.parametrize(
    "other",
    [
        record(protocol="bend-hf-1"),
        record("gene_finding"),
        record(model="onehot"),
        _with(record(), "config", epochs=3),
        _with(record(), "model", layer=6),
        _with(record(), "model", revision="f" * 40),
        _with(record(), "data", files={"bed": {"sha256": "e" * 64}}),
        _with(record(), "training", head={"kind": "LinearSpec"}),
    ],
)
def test_any_difference_but_the_seed_makes_another_group(other: ResultRecord) -> None:
    assert len(group_records([record(), other])) == 2


@pytest.mark.parametrize("name", ["out", "data", "tracker"])
def test_local_paths_make_no_other_group(name: str) -> None:
    assert len(group_records([record(), _with(record(seed=1), "config", **{name: "elsewhere"})])) == 1


def test_a_model_label_names_what_sets_its_use_apart() -> None:
    made = _with(record(), "model", layer=6, dtype="float16", reverse_complement_average=True, random_init=True)
    assert model_label(made) == "dnabert2, random weights, layer 6, float16, both strands averaged"


def test_selecting_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no record of this model; known are: dnabert2, onehot"):
        records_of_model([record(), record(model="onehot")], "grover")


def test_the_run_key_of_a_seed_makes_no_other_group() -> None:
    made = [_with(record(seed=seed), "config", run_key=f"key{seed}") for seed in (0, 1)]
    assert len(group_records(made)) == 1


def test_seeds_of_one_file_of_variants_are_one_group_wherever_files_lie_and_whatever_else_was_written() -> None:
    made = [
        _with(record(seed=seed), "config", file=file, genome=genome, csv=csv, no_plot=not csv, out=f"out{seed}")
        for seed, (file, genome, csv) in enumerate(
            [("v.vcf", "g.fa", True), ("/data/v.vcf", "/data/g.fa", False), ("./v.vcf", "x/../g.fa", True)]
        )
    ]
    (group,) = group_records(made)
    assert group.seeds == (0, 1, 2)
    assert len(group_records([*made, _with(record(seed=3), "config", window_bp=8)])) == 2
