"""Dataset folders: `datasets` loads them, verify checks them, and they can be written again."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bend_hf.config import DataConfig
from bend_hf.data.dataset import open_task
from bend_hf.data.sources import BuiltSource, find_source
from bend_hf.errors import BendError
from bend_hf.lease import take
from bend_hf.publishing import dataset_folder as dataset_folder
from bend_hf.publishing.dataset_folder import build
from bend_hf.publishing.duplicates import find_duplicates
from bend_hf.publishing.verify_dataset import verify
from bend_hf.tasks import TASKS
from tests.tiny import write_data

NAMES = ("histone_modification", "gene_finding", "enhancer_annotation", "variant_effects_disease")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), [*NAMES, "variant_effects_expression"])


@pytest.fixture(scope="module")
def built(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hub") / "bend"
    build(DataConfig(task=NAMES, data=str(data)), out)
    return out


def test_every_row_agrees_with_the_files_it_was_built_from(data: Path, built: Path) -> None:
    lines = list(verify(DataConfig(task=NAMES, data=str(data)), built))
    assert [line.split(":")[0] for line in lines] == list(NAMES)


def test_the_sample_agrees_with_its_files(tmp_path: Path) -> None:
    config = DataConfig(task=("gene_finding", "cpg_methylation", "variant_effects"), data="sample")
    build(config, tmp_path / "bend")
    assert len(list(verify(config, tmp_path / "bend"))) == 4


def test_features_name_their_classes(built: Path) -> None:
    features = datasets.load_dataset(str(built / "gene_finding"), split="train").features
    assert features["labels"].feature.names == list(TASKS.get("gene_finding").label_names)


def test_folds_share_their_files(built: Path) -> None:
    repo = str(built / "enhancer_annotation")
    assert datasets.get_dataset_config_names(repo) == [f"fold_{k}" for k in range(1, 11)]
    fold = datasets.load_dataset(repo, "fold_10")
    assert sorted(fold["test"]["item"]) == [9, 19]
    assert sorted(fold["validation"]["item"]) == [0, 10]
    assert len(fold["train"]) == 16
    assert len(list((built / "enhancer_annotation" / "data").glob("*.parquet"))) == 10


def test_streaming_gives_the_same_rows(built: Path) -> None:
    repo = str(built / "histone_modification")
    streamed = list(datasets.load_dataset(repo, split="test", streaming=True))
    assert streamed == list(datasets.load_dataset(repo, split="test"))


def test_a_second_task_of_a_group_joins_the_first(data: Path, built: Path) -> None:
    repo = built / "variant_effects"
    assert datasets.get_dataset_config_names(str(repo)) == ["disease"]
    build(DataConfig(task=("variant_effects_expression",), data=str(data)), built)
    assert sorted(datasets.get_dataset_config_names(str(repo))) == ["disease", "expression"]
    assert set(datasets.load_dataset(str(repo), "expression")) == {"test"}


@pytest.mark.slow
def test_building_again_gives_the_same_bytes(data: Path, built: Path) -> None:
    before = {path: path.read_bytes() for path in built.rglob("*.parquet")}
    build(DataConfig(task=NAMES, data=str(data)), built)
    assert {path: path.read_bytes() for path in built.rglob("*.parquet")} == before


def test_a_folder_that_is_built_again_is_loaded_anew(tmp_path: Path) -> None:
    loaded = "import datasets; print(datasets.load_dataset('bend/cpg_methylation', split='train')['sequence'][0])"
    bed = tmp_path / "mine.bed"
    rows = [f"chrT\t{512 * n}\t{512 * n + 512}\t+\t{n % 7}\t{('train', 'valid', 'test')[n % 3]}\n" for n in range(9)]
    bed.write_text("chromosome\tstart\tend\tstrand\tlabel\tsplit\n" + "".join(rows))
    for letter in "AC":  # of equal size, so that no file size changes
        genome = tmp_path / f"{letter}.fa"
        genome.write_text(f">chrT\n{letter * 9 * 512}\n")
        build(DataConfig(task=("cpg_methylation",), bed=bed, genome=genome), tmp_path / "bend")
        here = datasets.load_dataset(str(tmp_path / "bend" / "cpg_methylation"), split="train")
        assert here["sequence"][0] == letter * 512
        there = subprocess.run([sys.executable, "-c", loaded], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert there.stdout.strip() == letter * 512


def test_a_build_that_is_interrupted_leaves_no_card_of_the_old_content(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DataConfig(task=("gene_finding",), data=str(data))
    build(config, tmp_path / "bend")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset_folder, "write_dataset_card", stop)
    with pytest.raises(KeyboardInterrupt):
        build(config, tmp_path / "bend")
    assert not (tmp_path / "bend" / "gene_finding" / "README.md").exists()


DEAD = 4194305  # Linux's highest process id and one


def test_a_build_sweeps_what_killed_builds_left(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "bend"
    left = out / f".gene_finding.part{DEAD}" / "cache" / "x.arrow"
    old = out / "gene_finding" / f".data.old{DEAD}" / "x.parquet"
    for path in (left, old):
        path.parent.mkdir(parents=True)
        path.write_text("x")
    (out / ".gene_finding.lock").write_text(
        json.dumps({**written_lease(tmp_path), "pid": DEAD})  # of the process that was killed
    )
    build(DataConfig(task=("gene_finding",), data=str(data)), out)
    hidden = [path for path in out.rglob("*") if path.name.startswith(".")]
    assert hidden == []


def test_a_build_that_was_killed_while_it_replaced_an_earlier_one_gives_that_back(tmp_path: Path) -> None:
    task = TASKS.get("gene_finding")
    target = tmp_path / "gene_finding" / "data"
    target.mkdir(parents=True)
    (target / "a.parquet").write_text("complete")
    target.rename(target.with_name(f".data.old{DEAD}"))
    dataset_folder._sweep(task, tmp_path)
    assert (target / "a.parquet").read_text() == "complete"
    assert [path.name for path in target.parent.iterdir()] == ["data"]


def test_a_second_build_of_a_task_at_the_same_time_is_refused(data: Path, tmp_path: Path) -> None:
    with take(tmp_path / ".gene_finding.lock"), pytest.raises(BendError, match="another process is building gene_find"):
        build(DataConfig(task=("gene_finding",), data=str(data)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == []


def written_lease(folder: Path) -> dict[str, object]:
    with take(folder / "other.lock") as lease:
        found: dict[str, object] = json.loads(lease.path.read_text())
    return found


WINDOWS = [("chrT", 64 * n, 64 * n + 64, "-+"[n % 2], n % 7, ("train", "valid", "test")[n % 3]) for n in range(9)]
NAMES_OF_COLUMNS = ("chromosome", "start", "end", "strand", "label", "split")


def window_task(folder: Path) -> Path:
    """A task with windows of 64 bp, and a genome for it."""
    letters = random.Random(0).choices("ACGT", k=9 * 64)
    (folder / "toy.fa").write_text(f">chrT\n{''.join(letters)}\n")
    task = folder / "small.py"
    task.write_text(
        "from dataclasses import replace\nfrom bend_hf.tasks import TASKS\n"
        "TASKS = (replace(TASKS.get('cpg_methylation'), key='small', group='small', window_bp=64),)\n"
    )
    return task


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace("chromosome", "#Chrom").replace("start", "chromStart").replace("end", "ChromEnd"),
        lambda text: text.replace("strand", "Strand").replace("label", "LABEL").replace("split", "Split"),
        lambda text: text.replace("strand", "fourth"),
        lambda text: "\ufeff" + text.replace("\n", "\r\n").replace("\r\n", "\r\n\r\n", 3) + "  \n\n",
        lambda text: gzip.compress(text.encode()),
    ],
    ids=["plain", "UCSC", "capitals", "strand in the fourth place", "mark, CRLF and blank lines", "gzip"],
)
def test_verify_reads_what_build_reads(tmp_path: Path, change: Callable[[str], str | bytes]) -> None:
    task, bed = window_task(tmp_path), tmp_path / "mine.bed"
    text = "\n".join("\t".join(map(str, row)) for row in (NAMES_OF_COLUMNS, *WINDOWS)) + "\n"
    changed = change(text)
    bed.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    config = DataConfig(task=(str(task),), bed=bed, genome=tmp_path / "toy.fa")
    build(config, tmp_path / "bend")
    assert list(verify(config, tmp_path / "bend")) == [
        f"small: 9 rows agree with {bed}, its labels and {tmp_path / 'toy.fa'}"
    ]


@pytest.mark.parametrize(("column", "value"), [("Strand", "+"), ("START", 64), ("chrom", "chrU"), ("label", 6)])
def test_verify_notices_a_column_that_the_build_did_not_read(tmp_path: Path, column: str, value: object) -> None:
    task, bed = window_task(tmp_path), tmp_path / "mine.bed"
    with (tmp_path / "toy.fa").open("a") as genome:
        genome.write(">chrU\n" + "ACGTTGCAGT" * 64 + "\n")
    names = ["chrom", "START", "end", "label", "split", "Strand"]

    def write(rows: list[dict[str, object]]) -> DataConfig:
        bed.write_text("\n".join("\t".join(map(str, row)) for row in (names, *(row.values() for row in rows))) + "\n")
        return DataConfig(task=(str(task),), bed=bed, genome=tmp_path / "toy.fa")

    rows = [dict(zip(names, (*row[:3], *row[4:], "-"), strict=True)) for row in WINDOWS]
    build(write(rows), tmp_path / "bend")
    rows[0][column] = value
    if column == "START":
        rows[0]["end"] = 128
    with pytest.raises(BendError, match=r"^item 0: .*expected.*build the task again"):
        list(verify(write(rows), tmp_path / "bend"))


@pytest.mark.parametrize("kind", ["vcf", "vcf.gz", "bed"])
def test_verify_reads_variants_however_they_are_written(tmp_path: Path, data: Path, kind: str) -> None:
    genome = next(data.glob("genomes/*.fa"))
    letters = genome.read_text().split(">")[1].partition("\n")[2].replace("\n", "")
    alt = {"A": "C", "C": "G", "G": "T", "T": "A"}
    lines = []
    for number, at in enumerate((900, 2_000, 3_100)):
        ref = letters[at - number : at + number + 1]
        changed = ref[:number] + alt[ref[number]] + ref[number + 1 :]
        if kind == "bed":
            lines.append(f"chr1\t{at - number}\t{at + number + 1}\t{ref}\t{changed.lower()}\t{number % 2}\n")
        else:
            lines.append(f"chr1\t{at - number + 1}\t.\t{ref}\t{changed.lower()}\t.\t.\tlabel={number % 2}\n")
    head = "chrom\tstart\tend\tREF\tALT\tlabel\n"
    if kind != "bed":
        head = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    text, path = (head + "".join(lines)).encode(), tmp_path / f"mine.{kind}"
    path.write_bytes(gzip.compress(text) if kind.endswith("gz") else text)
    config = DataConfig(task=("variant_effects_disease",), bed=path, genome=genome)
    build(config, tmp_path / "bend")
    assert len(list(verify(config, tmp_path / "bend"))) == 1
    rows = datasets.load_dataset(str(tmp_path / "bend" / "variant_effects"), "disease", split="test")
    assert rows["start"] == [900, 2_000, 3_100]
    assert rows["ref"] == [letters[at] for at in rows["start"]]


def test_bad_input_leaves_an_earlier_build_alone(data: Path, built: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*") if path.is_file()}
    bad = write_data(tmp_path, ["histone_modification"])
    bed = bad / "histone_modification" / "histone_modification.bed"
    bed.write_text(bed.read_text().replace("train", "tranche"))
    with pytest.raises(BendError, match="unknown split"):
        build(DataConfig(task=("histone_modification",), data=str(bad)), built)
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*") if path.is_file()} == before


def test_a_full_disk_leaves_nothing_half_written(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "bend"
    monkeypatch.setattr(dataset_folder, "replace_folder", full)
    with pytest.raises(BendError, match=r"cannot write .*No space left.*free some disk space"):
        build(DataConfig(task=("histone_modification",), data=str(data)), out)
    assert not list(out.rglob("*.parquet"))


def test_verify_finds_a_changed_file_and_a_changed_row(data: Path, tmp_path: Path) -> None:
    config = DataConfig(task=("histone_modification",), data=str(data))
    build(config, tmp_path / "bend")
    shard = tmp_path / "bend/histone_modification/data/test-00000-of-00001.parquet"
    table = pq.read_table(shard)
    at = table.column_names.index("sequence")
    changed = [text[:-1] + ("A" if text[-1] != "A" else "C") for text in table["sequence"].to_pylist()]
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(changed, pa.large_string())), shard)
    with pytest.raises(BendError, match="was changed after the build"):
        list(verify(config, tmp_path / "bend"))
    facts_path = shard.with_name("bend_facts.json")
    facts = json.loads(facts_path.read_text())
    facts["sha256"][shard.name] = hashlib.sha256(shard.read_bytes()).hexdigest()
    facts_path.write_text(json.dumps(facts))
    with pytest.raises(BendError, match=r"item \d+: sequence is"):
        list(verify(config, tmp_path / "bend"))


def test_a_built_folder_is_opened_like_its_source(data: Path, built: Path) -> None:
    for name in ("histone_modification", "enhancer_annotation"):
        config = DataConfig(task=(name,))
        source = find_source(TASKS.get(name), data=str(built))
        assert isinstance(source, BuiltSource)
        from_folder = open_task(source, config)
        from_files = open_task(find_source(TASKS.get(name), data=str(data)), config)
        fold = 4 if from_files.n_folds else None
        for split, dataset in from_files.splits(fold).items():
            loaded = from_folder.splits(fold)[split]
            assert sorted(loaded["item"]) == sorted(dataset["item"])
        assert from_folder.facts["files"] == from_files.facts["files"]
        assert from_folder.task.label_names == from_files.task.label_names


def test_duplicates_are_counted_and_named(tmp_path: Path) -> None:
    folder = write_data(tmp_path, ["histone_modification"])
    bed = folder / "histone_modification" / "histone_modification.bed"
    lines = bed.read_text().splitlines()
    again = lines[1].split("\t")  # a train row
    bed.write_text("\n".join([*lines, "\t".join([*again[:-1], "test"]), lines[2]]) + "\n")
    build(DataConfig(task=("histone_modification",), data=str(folder)), tmp_path / "bend")
    card = (tmp_path / "bend/histone_modification/README.md").read_text()
    assert "2 rows have the interval of an earlier row" in card
    assert "1 rows of test have a sequence that also occurs in train (items 20" in card


def test_folds_without_duplicates_report_none(built: Path) -> None:
    shards = sorted((built / "enhancer_annotation/data").glob("*.parquet"))
    found = find_duplicates([(path.stem.split("-")[0], [path]) for path in shards])
    assert found.n_intervals == 0
    assert found.shared == {}
