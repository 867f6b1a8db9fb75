"""The identity of items is their content: place, alleles, labels and fold, in any order and from any file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bend_hf.config import DataConfig
from bend_hf.data.dataset import TaskData, load_task
from bend_hf.errors import RecordError
from bend_hf.evaluation.comparable import check_comparable, differences
from bend_hf.evaluation.dataset_items import dataset_items, identity_of
from bend_hf.evaluation.predictions import Predictions, read_predictions, write_predictions
from bend_hf.evaluation.record import ResultRecord
from bend_hf.evaluation.uncertainty.clusters import as_clusters
from bend_hf.evaluation.uncertainty.comparison import compare
from bend_hf.publishing.dataset_folder import build
from bend_hf.tasks import TASKS
from bend_hf.variants import ReadSettings, read_variants
from bend_hf.variants.read import VariantFile
from tests.records import record
from tests.tiny import write_bed, write_genome


def windows_of(n: int, seed: int = 0) -> Predictions:
    """Items of one to three classes each, with places on both strands."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 4, n)
    start = rng.integers(0, 10**6, n)
    columns = {
        "chromosome": pa.array([f"chr{number % 3}" for number in range(n)]),
        "start": pa.array(start),
        "end": pa.array(start + 512),
        "strand": pa.array(["+-"[number % 2] for number in range(n)]),
    }
    return Predictions(
        item=np.arange(n),
        windows=np.concatenate([[0], np.cumsum(lengths)]),
        target=rng.integers(-1, 3, lengths.sum()).astype(np.int16),
        score=None,
        predicted=rng.integers(0, 3, lengths.sum()).astype(np.int16),
        label_names=("a", "b", "c"),
        columns=columns,
    )


def variants_of(alleles: list[tuple[str, int, str, str]], **changes: Any) -> Predictions:
    """One score per variant."""
    n = len(alleles)
    chromosome, start, ref, alt = zip(*alleles, strict=True)
    made = Predictions(
        item=np.arange(n),
        windows=np.arange(n + 1),
        target=(np.arange(n) % 2).astype(np.int16),
        score=np.linspace(0, 1, n, dtype=np.float32),
        predicted=None,
        label_names=("benign", "pathogenic"),
        columns={
            "chromosome": pa.array(chromosome),
            "start": pa.array(start),
            "end": pa.array([at + len(one) for at, one in zip(start, ref, strict=True)]),
            "ref": pa.array(ref),
            "alt": pa.array(alt),
        },
    )
    return replace(made, **changes)


@given(st.integers(1, 30), st.randoms(use_true_random=False))
def test_row_numbers_and_order_do_not_matter(n: int, random: Any) -> None:
    one = windows_of(n)
    order = list(range(n))
    random.shuffle(order)
    other = replace(one.take(np.array(order)), item=np.arange(n) + 1000)
    assert other.item_sha256 == one.item_sha256
    assert set(map(tuple, other.keys.tolist())) == set(map(tuple, one.keys.tolist()))


def changed(name: str, values: Callable[[list[Any]], list[Any]]) -> Callable[[Predictions], Predictions]:
    def change(one: Predictions) -> Predictions:
        column = one.columns[name]
        return replace(one, columns={**one.columns, name: pa.array(values(column.to_pylist()), column.type)})

    return change


def with_target(one: Predictions) -> Predictions:
    target = one.target.copy()
    target[-1] += 1
    return replace(one, target=target)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(changed("chromosome", lambda old: ["chr9", *old[1:]]), id="chromosome"),
        pytest.param(changed("start", lambda old: [old[0] + 1, *old[1:]]), id="start"),
        pytest.param(changed("end", lambda old: [*old[:-1], old[-1] - 1]), id="end"),
        pytest.param(changed("strand", lambda old: ["-", *old[1:]]), id="strand"),
        pytest.param(with_target, id="label"),
        pytest.param(lambda one: replace(one, columns={**one.columns, "fold": pa.array([1] * len(one))}), id="fold"),
        pytest.param(lambda one: one.take(np.arange(len(one) - 1)), id="one item fewer"),
        pytest.param(lambda one: one.take(np.append(np.arange(len(one)), 0)), id="one item twice"),
    ],
)
def test_each_change_of_an_item_is_another_identity(change: Callable[[Predictions], Predictions]) -> None:
    assert change(windows_of(6)).item_sha256 != windows_of(6).item_sha256


def test_labels_stay_with_their_item_and_window() -> None:
    one = windows_of(2)
    ends = replace(one, windows=np.array([0, 1, 4]), target=np.array([0, 1, 1, 0], np.int16))
    moved = replace(ends, windows=np.array([0, 2, 4]))
    swapped = replace(ends, target=np.array([0, 1, 0, 1], np.int16))
    assert len({made.item_sha256 for made in (ends, moved, swapped)}) == 3


def test_two_files_of_variants_with_the_same_row_numbers_are_told_apart() -> None:
    one = variants_of([("chr1", 5, "A", "C"), ("chr1", 9, "G", "T")])
    other = variants_of([("chr1", 6, "A", "C"), ("chr1", 9, "G", "T")])
    assert one.row_sha256 == other.row_sha256
    assert one.item_sha256 != other.item_sha256


def test_two_alternative_alleles_of_one_place_are_two_items_of_one_cluster() -> None:
    both = variants_of([("chr1", 5, "A", "C"), ("chr1", 5, "A", "G"), ("chr1", 5_000_005, "A", "G")])
    assert len(set(map(tuple, both.keys.tolist()))) == 3
    assert as_clusters(both, "block").of_item.tolist() == [0, 0, 1]
    once = both.take(np.array([0, 2]))
    assert both.item_sha256 != once.item_sha256
    swapped = replace(both, target=np.array([1, 0, 0], np.int16))
    assert both.item_sha256 != swapped.item_sha256, "the labels of the two alleles were exchanged"


def test_two_alternative_alleles_of_a_file_are_both_kept(tmp_path: Path) -> None:
    genome = tmp_path / "genome.fa"
    letters = write_genome(genome)["chr1"]
    ref = letters[300]
    first, second = _others(ref)
    vcf = tmp_path / "two.vcf"
    vcf.write_text(
        '##fileformat=VCFv4.2\n##INFO=<ID=label,Number=A,Type=Integer,Description="class">\n'
        f"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\nchr1\t301\t.\t{ref}\t{first},{second}\t.\t.\tlabel=1,0\n"
    )
    found = scored(read_variants(vcf, genome))
    assert found.columns["alt"].to_pylist() == [first, second]
    assert found.target.tolist() == [1, 0]
    assert len(set(map(tuple, found.keys.tolist()))) == 2


def _others(ref: str) -> tuple[str, str]:
    first, second, _ = (base for base in "ACGT" if base != ref)
    return first, second


def scored(variants: VariantFile) -> Predictions:
    """Predictions of a file of variants, as a run writes them."""
    table = variants.table(np.arange(len(variants)))
    return Predictions(
        item=table["item"].to_numpy(),
        windows=np.arange(len(table) + 1),
        target=table["label"].to_numpy().astype(np.int16),
        score=np.zeros(len(table), np.float32),
        predicted=None,
        label_names=variants.label_names,
        columns={name: table[name].combine_chunks() for name in ("chromosome", "start", "end", "ref", "alt")},
    )


def test_vcf_bed_and_another_order_of_rows_have_one_identity(tmp_path: Path) -> None:
    genome = tmp_path / "genome.fa"
    letters = write_genome(genome)["chr1"]
    rows = [(at, letters[at], _others(letters[at])[0], number % 2) for number, at in enumerate(range(200, 260, 7))]
    vcf = tmp_path / "mine.vcf"
    vcf.write_text(
        '##fileformat=VCFv4.2\n##INFO=<ID=label,Number=1,Type=Integer,Description="class">\n'
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        # two letters of each allele are shared, so that the variant must be normalized
        + "".join(
            f"chr1\t{at}\t.\t{letters[at - 1]}{ref}\t{letters[at - 1]}{alt}\t.\t.\tlabel={label}\n"
            for at, ref, alt, label in rows
        )
    )
    columns = ("chromosome", "start", "end", "ref", "alt", "label")
    bed = write_bed(tmp_path / "mine.bed", columns, [("chr1", at, at + 1, *row) for at, *row in rows])
    empty = write_bed(tmp_path / "empty.bed", columns, [("chr1", at, at, *row) for at, *row in reversed(rows)])
    found = [scored(read_variants(path, genome, ReadSettings())) for path in (vcf, bed, empty)]
    assert len({one.item_sha256 for one in found}) == 1
    other = scored(read_variants(bed, genome)).take(np.arange(len(rows) - 1))
    assert other.item_sha256 != found[0].item_sha256


def test_a_built_dataset_has_the_identity_of_its_files(tmp_path: Path) -> None:
    config = DataConfig(task=("enhancer_annotation", "variant_effects_expression"), data="sample")
    build(config, tmp_path / "bend")
    for task in config.task:
        of_files, of_build = (
            identity_of(load_task(task, "sample")),
            identity_of(load_task(task, str(tmp_path / "bend"))),
        )
        assert of_files == of_build
        assert len(set(of_files.values())) == len(of_files)


@pytest.mark.parametrize("task", ["gene_finding", "histone_modification", "enhancer_annotation", "cpg_methylation"])
def test_a_dataset_gives_the_keys_of_predictions(task: str) -> None:
    data = load_task(task, "sample")
    subset = list(data.subsets.values())[-1]
    items = dataset_items(data.task, subset)
    names = [name for name in items.table.column_names if name != "item"]
    made = Predictions(
        item=items.item,
        windows=items.windows,
        target=items.target,
        score=None,
        predicted=np.zeros(items.windows[-1], np.int16),
        label_names=data.task.label_names,
        columns={name: items.table[name].combine_chunks() for name in names},
    )
    assert (made.keys == items.keys).all()
    assert int(np.diff(items.windows).sum()) == len(items.target)


def test_real_values_have_an_identity() -> None:
    values = np.array([[0.5, np.nan], [0.0, 1.0]], np.float32)
    one = replace(windows_of(2), windows=np.arange(3), target=values)
    assert replace(one, target=values * np.float32(1)).item_sha256 == one.item_sha256
    assert replace(one, target=-values * np.float32(-1)).item_sha256 == one.item_sha256, "0 and -0, and any nan"
    assert replace(one, target=values[::-1].copy()).item_sha256 != one.item_sha256


@pytest.mark.slow
def test_models_are_compared_item_by_item_in_any_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    places = [("chr1", int(at), "A", "C") for at in rng.permutation(10**8)[:300]]
    one = variants_of(places)
    other = replace(one, score=rng.random(300, np.float32))
    shuffled = replace(other.take(rng.permutation(300)), item=np.arange(300))
    mixed, in_order = (compare({"one": one, "other": it}, "auroc")[0] for it in (shuffled, other))
    for name, value in asdict(in_order).items():
        expected = pytest.approx(value, abs=1e-12, nan_ok=True) if isinstance(value, float) else value
        assert getattr(mixed, name) == expected, name
    write_predictions(shuffled, tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet").item_sha256 == one.item_sha256


IDENTITY = {"train": "1" * 64, "validation": "2" * 64, "test": "3" * 64}
ONE = record()
KNOWN = replace(ONE, data={**ONE.data, "identity": dict(IDENTITY)}, coverage={**ONE.coverage, "identity": "content"})


@pytest.mark.parametrize(
    ("other", "place"),
    [
        (replace(KNOWN, task="histone_modification"), "task is chromatin_accessibility and histone_modification"),
        (replace(KNOWN, protocol="bend-hf-1"), "protocol is bend-2024 and bend-hf-1"),
        (
            replace(KNOWN, data={**KNOWN.data, "identity": {**IDENTITY, "test": "4" * 64}}),
            "data.identity.test is 333333333333 and 444444444444",
        ),
        (
            replace(KNOWN, data={**KNOWN.data, "identity": {**IDENTITY, "train": "4" * 64}}),
            "data.identity.train is 111111111111 and 444444444444",
        ),
        (
            replace(KNOWN, data={**KNOWN.data, "assembly": "GRCh39"}),
            f"data.assembly is {KNOWN.data['assembly']} and GRCh39",
        ),
        (
            replace(KNOWN, data={**KNOWN.data, "files": {"genome": {"sha256": "f" * 64}}}),
            "data.files.genome.sha256 is bbbbbbbbbbbb and ffffffffffff",
        ),
        (
            replace(ONE, data={**ONE.data, "files": {**ONE.data["files"], "bed": {"sha256": "f" * 64}}}),  # type: ignore[dict-item]  # an object
            "data.files.bed.sha256 is aaaaaaaaaaaa and ffffffffffff",
        ),
        (replace(KNOWN, coverage={**KNOWN.coverage, "scored": 999}), "coverage.scored is 1000 and 999"),
        (
            replace(KNOWN, coverage={**KNOWN.coverage, "item_sha256": "f" * 64}),
            "coverage.item_sha256 is cccccccccccc and ffffffffffff",
        ),
    ],
)
def test_what_must_not_be_compared_is_refused_by_name(other: ResultRecord, place: str) -> None:
    with pytest.raises(RecordError, match=f"one and two cannot be compared: {place}"):
        check_comparable({"one": KNOWN, "two": other})


def test_the_same_items_from_other_files_may_be_compared() -> None:
    files = {"variants": {"sha256": "e" * 64}, "genome": {"sha256": "b" * 64}}
    assert not list(differences(KNOWN, replace(KNOWN, data={**KNOWN.data, "files": files})))  # type: ignore[dict-item]  # an object
    assert not list(differences(KNOWN, replace(KNOWN, model={**KNOWN.model, "model": "other"})))


def test_subsets_of_folds_are_told_apart() -> None:
    data: TaskData = load_task("enhancer_annotation", "sample")
    first = next(iter(data.subsets.values()))
    task = TASKS.get("enhancer_annotation")
    keys = [dataset_items(task, first, fold=fold).keys for fold in (None, 1, 2)]
    assert not (keys[0] == keys[1]).any()
    assert not (keys[1] == keys[2]).any()
