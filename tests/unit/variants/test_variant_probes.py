"""Probes on the rows of both alleles: what they can learn, and that no neighbour leaks into their folds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from accelerate import Accelerator

from bend_hf.errors import ConfigError, RecordError
from bend_hf.tasks import VariantSpec
from bend_hf.variants import ScoreSettings, VariantHeadSettings, score_variants
from bend_hf.variants.allele_store import AlleleStore
from bend_hf.variants.checkpoint import ScoringCheckpoint, content_key
from bend_hf.variants.score import Scored
from bend_hf.variants.supervised_head import PROBES, VariantHeadResult, fold_by_place, probe
from tests.variant_controls import Control, Memory

# the label is whether the variant becomes a G, which the embedding says and no distance does
ROWS = [("TT" + ref + "TT", 2, ref, alt, int(alt == "G")) for ref, alt in ("AG", "AC", "CG", "CA") for _ in range(12)]


def scored(folder: Path, rows: list[tuple[str, int, str, str, int]] = ROWS) -> tuple[Scored, ScoringCheckpoint]:
    parts = ScoringCheckpoint(folder / "parts")
    settings = ScoreSettings(keep_rows=True, likelihood=False)
    found = score_variants(
        Memory(rows), Control(), VariantSpec(), ("no", "yes"), Accelerator(cpu=True), settings, parts=parts
    )
    return found, parts


def probed(folder: Path, **settings: int | float) -> VariantHeadResult:
    found, parts = scored(folder)
    return probe(found, parts, Accelerator(cpu=True), VariantHeadSettings(learning_rate=0.05, **settings))  # type: ignore[arg-type]


def test_probe_learns_what_the_rows_say(tmp_path: Path) -> None:
    found = probed(tmp_path)
    for kind in PROBES:
        entry = found.detail[kind]
        assert isinstance(entry, dict)
        assert isinstance(entry["auroc"], dict)
        assert entry["auroc"]["detail"]["pooled"] == 1.0
        assert len(found.predictions[kind]) == len(ROWS)


def test_probe_repeats_itself_with_the_same_seed(tmp_path: Path) -> None:
    one, other = (probed(tmp_path / name, seed=3).predictions["mlp"] for name in "ab")
    np.testing.assert_array_equal(one.score, other.score)


def test_variants_without_a_label_take_no_part(tmp_path: Path) -> None:
    found, parts = scored(tmp_path)
    target = found.predictions.target.copy()
    target[:3] = -100
    few = replace(found, predictions=replace(found.predictions, target=target))
    said = probe(few, parts, Accelerator(cpu=True)).predictions["linear"]
    assert said.item.tolist() == list(range(3, len(ROWS)))


def test_one_class_raises(tmp_path: Path) -> None:
    found, parts = scored(tmp_path)
    one = replace(found, predictions=replace(found.predictions, target=np.ones(len(ROWS), np.int16)))
    with pytest.raises(ConfigError, match="48 labelled variants of 1 class train no probe"):
        probe(one, parts, Accelerator(cpu=True))


def test_rows_are_those_of_the_alleles_in_the_order_of_the_items(tmp_path: Path) -> None:
    found, parts = scored(tmp_path)
    store = AlleleStore.gather(parts, found.keys, found.predictions.item, write=True)
    features = store.features(np.array([0, 13]))
    ids = {base: np.eye(6, dtype=np.float32)[number] for number, base in enumerate("ACGT", start=1)}
    for row, (ref, alt) in zip(features, ("AG", "AC"), strict=True):
        np.testing.assert_array_equal(row, np.concatenate([ids[ref], ids[alt], ids[alt] - ids[ref]]))


def test_pieces_without_rows_raise(tmp_path: Path) -> None:
    found, parts = scored(tmp_path)
    parts.remove(found.keys)
    with pytest.raises(RecordError, match="is gone or holds no rows; score again with rows kept"):
        probe(found, parts, Accelerator(cpu=True))


def test_chromosomes_stay_whole_and_folds_even() -> None:
    names = ["a"] * 50 + ["b"] * 30 + ["c"] * 25 + ["d"] * 5
    found = fold_by_place(names, np.arange(len(names)), n_folds=2, apart_bp=10)
    assert (found.by, found.n_folds) == ("chromosome", 2)
    assert [set(found.fold[np.array(names) == name].tolist()) for name in "abcd"] == [{0}, {1}, {1}, {0}]


def test_blocks_are_cut_only_at_wide_gaps() -> None:
    start = np.array([5_000, 0, 100, 5_050, 9_000, 9_020])
    found = fold_by_place(["chr1"] * 6, start, n_folds=3, apart_bp=1_000)
    assert found.by == "blocks of position"
    assert found.fold.tolist() == [1, 0, 0, 1, 2, 2]


def test_one_chromosome_without_a_gap_raises() -> None:
    with pytest.raises(ConfigError, match="without a gap of 1025 bp to cut at"):
        fold_by_place(["chr1"] * 100, np.arange(100) * 50, n_folds=5, apart_bp=1025)


def test_key_depends_on_settings_and_values_but_not_on_chunks() -> None:
    table = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    in_pieces = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert content_key({"s": 1}, table) == content_key({"s": 1}, in_pieces)
    assert content_key({"s": 1}, table.slice(1)) == content_key({"s": 1}, pa.table({"a": [2, 3], "b": ["y", "z"]}))
    others = [content_key({"s": 2}, table), content_key({"s": 1}, table.slice(1))]
    assert content_key({"s": 1}, table) not in others


def test_damaged_piece_counts_as_missing(tmp_path: Path) -> None:
    parts = ScoringCheckpoint(tmp_path)
    parts.write("k", pa.table({"a": [1]}))
    parts.path("k").write_bytes(b"PAR1 cut short")
    assert parts.read("k") is None


def test_folder_that_cannot_be_written_raises(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot be written"):
        ScoringCheckpoint(tmp_path / "file" / "parts").write("k", pa.table({"a": [1]}))
