"""Heads on the embeddings of both alleles learn what the embeddings hold, in folds that no neighbor leaks into."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator

from bend_hf.errors import InputError, RecordError
from bend_hf.variants import ScoreSettings, VariantHeadSettings, score_variants
from bend_hf.variants.allele_store import AlleleStore
from bend_hf.variants.checkpoint import ScoringCheckpoint
from bend_hf.variants.score import ScoringResult
from bend_hf.variants.supervised_head import HEAD_KINDS, VariantHeadResult, cross_validate_heads, fold_by_position
from tests.variant_controls import Control, Memory

# the label is whether the variant becomes a G, which the embedding says and no distance does
ROWS = [("TT" + ref + "TT", 2, ref, alt, int(alt == "G")) for ref, alt in ("AG", "AC", "CG", "CA") for _ in range(12)]


def scored(folder: Path) -> tuple[ScoringResult, ScoringCheckpoint]:
    checkpoint = ScoringCheckpoint(folder / "checkpoint")
    settings = ScoreSettings(keep_embeddings=True, likelihood=False)
    found = score_variants(Memory(ROWS), Control(), Accelerator(cpu=True), settings, checkpoint=checkpoint)
    return found, checkpoint


def trained(folder: Path, *, seed: int = 0) -> VariantHeadResult:
    found, checkpoint = scored(folder)
    settings = VariantHeadSettings(learning_rate=0.05, seed=seed)
    return cross_validate_heads(found, checkpoint, Accelerator(cpu=True), settings)


def test_heads_learn_what_the_embeddings_hold(tmp_path: Path) -> None:
    found = trained(tmp_path)
    for kind in HEAD_KINDS:
        entry = found.detail[kind]
        assert isinstance(entry, dict)
        assert isinstance(entry["auroc"], dict)
        assert entry["auroc"]["detail"]["pooled"] == 1.0
        assert len(found.predictions[kind]) == len(ROWS)


def test_the_record_says_how_many_steps_the_heads_took(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = trained(tmp_path)
    folds, budget = found.detail["folds"], found.detail["budget"]
    assert isinstance(folds, dict)
    sizes = np.array(folds["variants"])
    assert budget == {
        "rows": (len(ROWS) - sizes).tolist(),
        "steps": [20] * len(sizes),  # 20 epochs of one batch
        "few_steps": True,
        "searched": {},
    }
    assert "the heads on the embeddings of variants took 20 steps of the optimizer, fewer than 50" in caplog.text


def test_heads_repeat_with_the_same_seed(tmp_path: Path) -> None:
    one, other = (trained(tmp_path / name, seed=3).predictions["mlp"] for name in "ab")
    np.testing.assert_array_equal(one.score, other.score)


def test_unlabeled_variants_are_left_out(tmp_path: Path) -> None:
    found, checkpoint = scored(tmp_path)
    target = found.predictions.target.copy()
    target[:3] = -100
    few = replace(found, predictions=replace(found.predictions, target=target))
    predictions = cross_validate_heads(few, checkpoint, Accelerator(cpu=True)).predictions["linear"]
    assert predictions.item.tolist() == list(range(3, len(ROWS)))


def test_one_class_raises(tmp_path: Path) -> None:
    found, checkpoint = scored(tmp_path)
    one = replace(found, predictions=replace(found.predictions, target=np.ones(len(ROWS), np.int16)))
    with pytest.raises(InputError, match="48 labeled variants of 1 class; a head needs both"):
        cross_validate_heads(one, checkpoint, Accelerator(cpu=True))


def test_embeddings_are_those_of_the_alleles_in_the_order_of_the_items(tmp_path: Path) -> None:
    found, checkpoint = scored(tmp_path)
    store = AlleleStore.gather(checkpoint, found.keys, found.predictions.item, write=True)
    features = store.features(np.array([0, 13]))
    ids = {base: np.eye(6, dtype=np.float32)[number] for number, base in enumerate("ACGT", start=1)}
    for row, (ref, alt) in zip(features, ("AG", "AC"), strict=True):
        np.testing.assert_array_equal(row, np.concatenate([ids[ref], ids[alt], ids[alt] - ids[ref]]))


def test_missing_batches_raise(tmp_path: Path) -> None:
    found, checkpoint = scored(tmp_path)
    checkpoint.remove(found.keys)
    with pytest.raises(RecordError, match="is missing or holds no embeddings; score again with keep_embeddings=True"):
        cross_validate_heads(found, checkpoint, Accelerator(cpu=True))


def test_chromosomes_stay_whole_and_folds_even() -> None:
    names = ["a"] * 50 + ["b"] * 30 + ["c"] * 25 + ["d"] * 5
    found = fold_by_position(names, np.arange(len(names)), n_folds=2, apart_bp=10)
    assert (found.by, found.n_folds) == ("chromosome", 2)
    assert [set(found.fold[np.array(names) == name].tolist()) for name in "abcd"] == [{0}, {1}, {1}, {0}]


def test_blocks_are_cut_only_at_wide_gaps() -> None:
    start = np.array([5_000, 0, 100, 5_050, 9_000, 9_020])
    found = fold_by_position(["chr1"] * 6, start, n_folds=3, apart_bp=1_000)
    assert found.by == "blocks of position"
    assert found.fold.tolist() == [1, 0, 0, 1, 2, 2]


def test_one_chromosome_without_a_gap_raises() -> None:
    with pytest.raises(InputError, match="without a gap of 1025 bp to cut at"):
        fold_by_position(["chr1"] * 100, np.arange(100) * 50, n_folds=5, apart_bp=1025)
