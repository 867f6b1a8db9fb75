"""The dataset builder against plain Python reading of the same files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import traceback
from pathlib import Path

import datasets
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from bend_hf.cli._main import main
from bend_hf.config import DataConfig
from bend_hf.data.builder import BendBuilder, make_builder
from bend_hf.data.dataset import TaskData, fold_subsets, load_task, open_task
from bend_hf.data.examples import TaskExamples, read_examples
from bend_hf.data.sources import TaskFiles, find_source
from bend_hf.errors import BendError, GenomeError, InputError, SourceError
from bend_hf.publishing.dataset_folder import build
from bend_hf.tasks import TASKS
from tests.tiny import write_data

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def open_tiny(folder: Path, name: str, **config: str) -> TaskData:
    source = find_source(TASKS.get(name), data=str(folder))
    return open_task(source, DataConfig(task=(name,), **config))  # type: ignore[arg-type]


def sequences_of(folder: Path) -> dict[str, str]:
    parts = (folder / "genomes" / "genome.fa").read_text().split(">")[1:]
    return {part.split("\n", 1)[0]: part.split("\n", 1)[1].replace("\n", "") for part in parts}


def test_stranded_windows_and_their_labels(tmp_path: Path) -> None:
    folder = write_data(tmp_path, ["histone_modification"])
    data, genome = open_tiny(folder, "histone_modification"), sequences_of(tmp_path)
    lines = [
        line.split("\t") for line in (folder / "histone_modification/histone_modification.bed").read_text().splitlines()
    ]
    names = {"train": "train", "valid": "validation", "test": "test"}
    seen = 0
    for split, dataset in data.splits(None).items():
        for row in dataset:
            chromosome, start, end, strand, label, part = lines[row["item"] + 1]
            plain = genome[chromosome][int(start) : int(end)]
            assert row["sequence"] == (plain.translate(COMPLEMENT)[::-1] if strand == "-" else plain)
            assert row["strand"] == strand
            assert row["labels"] == [int(v) for v in label.split(",") if v]
            assert names[part] == split
            seen += 1
    assert seen == len(lines) - 1
    assert data.subsets["train"].features["labels"].feature.names == list(TASKS.get("histone_modification").label_names)


def test_ragged_labels_belong_to_their_sequence(tmp_path: Path) -> None:
    folder = write_data(tmp_path, ["gene_finding"])
    data = open_tiny(folder, "gene_finding")
    with h5py.File(folder / "gene_finding/gene_finding.hdf5") as file:
        for dataset in data.splits(None).values():
            for row in dataset:
                assert row["labels"] == file["labels"][row["item"]].tolist()
                assert len(row["sequence"]) == len(row["labels"]) == row["end"] - row["start"]


def test_variants_carry_their_context_and_offset(tmp_path: Path) -> None:
    folder = write_data(tmp_path, ["variant_effects_disease"])
    bed = folder / "variant_effects/variant_effects_disease.bed"
    genome = sequences_of(tmp_path)["chr1"]
    near = f"chr1\t100\t101\t{genome[100]}\t{'C' if genome[100] != 'C' else 'G'}\t1\n"
    bed.write_text(bed.read_text() + near)
    rows = list(open_tiny(folder, "variant_effects_disease").splits(None)["test"])
    for row in rows:
        assert row["sequence"][row["variant_offset"]] == row["ref"] == genome[row["start"]]
        assert row["sequence"] == genome[max(0, row["start"] - 512) : row["start"] + 513]
    assert rows[-1]["variant_offset"] == 100


def test_folds_test_on_their_part_and_train_on_the_rest(tmp_path: Path) -> None:
    folder = write_data(tmp_path, ["enhancer_annotation"])
    data = open_tiny(folder, "enhancer_annotation")
    assert data.n_folds == 10
    splits = data.splits(3)
    assert sorted(row["item"] for row in splits["test"]) == [2, 12]
    assert sorted(row["item"] for row in splits["validation"]) == [3, 13]
    assert len(splits["train"]) == 16
    assert fold_subsets(10, fold=10)[:2] == (9, 0)
    tested = sorted(item for fold in range(1, 11) for item in data.splits(fold)["test"]["item"])
    assert tested == list(range(20))


def test_a_changed_file_is_never_served_from_the_cache(tmp_path: Path) -> None:
    folder = write_data(tmp_path, ["histone_modification"])
    before = open_tiny(folder, "histone_modification").subsets["train"]["sequence"][0]
    genome = folder / "genomes" / "genome.fa"
    head, body = genome.read_text().split("\n", 1)
    genome.write_text(head + "\n" + body.translate(str.maketrans("ACGT\n", "CGTA\n")).replace(">cgr2", ">chr2"))
    text = genome.read_text()
    genome.write_text(text.replace(">chr2", ">chr2") if ">chr2" in text else text)
    after = open_tiny(folder, "histone_modification").subsets["train"]["sequence"][0]
    assert before != after


@pytest.mark.parametrize(
    "file", ["gene_finding/gene_finding.bed", "gene_finding/gene_finding.hdf5", "genomes/genome.fa"]
)
@pytest.mark.parametrize("moment", ["before the hashes", "while the table is made"])
def test_a_file_that_changes_while_it_is_read_is_an_error_and_leaves_no_cache(
    file: str, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    folder = write_data(tmp_path, ["gene_finding"])
    path, owner = folder / file, TaskExamples if moment == "before the hashes" else BendBuilder
    whole, name = path.read_bytes(), "__len__" if moment == "before the hashes" else "_table"
    method = getattr(owner, name)

    def changing(self: object, *args: object) -> object:
        other = path.with_name("other")
        other.write_bytes(whole + b"\n")
        shutil.copystat(path, other)
        other.replace(path)
        return method(self, *args)

    if moment == "before the hashes":
        rows = read_examples(find_source(TASKS.get("gene_finding"), data=str(folder)))  # type: ignore[arg-type]
        changing(rows)
        monkeypatch.setattr("bend_hf.data.dataset.read_examples", lambda *_, **__: rows)
    else:
        monkeypatch.setattr(BendBuilder, name, changing)
    with pytest.raises(InputError, match=rf"{path.name} changed while it was read; .*Repeat the command"):
        open_tiny(folder, "gene_finding")
    assert not list(cache.rglob("*.arrow"))


def test_other_columns_of_the_bed_are_kept(tmp_path: Path) -> None:
    folder = write_data(tmp_path, ["gene_finding"])
    bed = folder / "gene_finding" / "gene_finding.bed"
    header, *lines = bed.read_text().splitlines()
    bed.write_text("\n".join([f"{header}\ttranscript_id", *(f"{line}\tNM_{i}" for i, line in enumerate(lines))]) + "\n")
    for dataset in open_tiny(folder, "gene_finding").splits(None).values():
        assert dataset["transcript_id"][:] == [f"NM_{item}" for item in dataset["item"]]


@pytest.mark.parametrize("name", ["gene_finding", "variant_effects_disease"])
def test_no_column_of_the_bed_replaces_another(tmp_path: Path, name: str) -> None:
    folder = write_data(tmp_path, [name])
    bed = next(folder.rglob(f"{name}.bed"))
    before = open_tiny(folder, name).subsets["test"][:]
    header, *lines = bed.read_text().splitlines()
    added = ["labels", "bed_labels", "variant_offset", "bed_bed_labels", "item"]
    rows = [line + "".join(f"\t{column} {n}" for column in added) for n, line in enumerate(lines)]
    bed.write_text("\n".join(["\t".join([header, *added]), *rows]) + "\n")
    after = open_tiny(folder, name).subsets["test"][:]
    assert {column: after[column] for column in before} == before
    further = [after[column][0].rpartition(" ")[0] for column in after if column not in before]
    assert sorted(further) == sorted(added)


def test_out_of_bounds_is_padded_with_n_or_dropped_and_counted(tmp_path: Path) -> None:
    folder = write_data(tmp_path, ["histone_modification"])
    bed = folder / "histone_modification" / "histone_modification.bed"
    bed.write_text(bed.read_text() + "chr2\t139900\t140412\t+\t0\ttest\n")
    padded = open_tiny(folder, "histone_modification", out_of_bounds="pad")
    assert padded.subsets["test"]["sequence"][-1].endswith("N" * 412)
    assert padded.facts["changes"]["rows_padded"] == 1  # type: ignore[index,call-overload]
    dropped = open_tiny(folder, "histone_modification", out_of_bounds="drop")
    assert 20 not in dropped.subsets["test"]["item"]
    assert dropped.facts["changes"]["rows_dropped_out_of_bounds"] == 1  # type: ignore[index,call-overload]


@pytest.mark.parametrize("flip", [True, False])
def test_labels_of_nucleotides_are_flipped_with_the_minus_strand(tmp_path: Path, flip: bool) -> None:
    from dataclasses import replace

    folder = write_data(tmp_path, ["gene_finding"])
    bed = folder / "gene_finding" / "gene_finding.bed"
    header, *lines = bed.read_text().splitlines()
    bed.write_text("\n".join([f"{header}\tstrand", *(f"{line}\t-" for line in lines)]) + "\n")
    source = find_source(TASKS.get("gene_finding"), data=str(folder))
    assert isinstance(source, TaskFiles)
    stranded = replace(source, task=replace(TASKS.get("gene_finding"), stranded=True))
    builder = make_builder(read_examples(stranded), flip_labels=flip)
    builder.download_and_prepare()
    row = builder.as_dataset()["train"][0]
    with h5py.File(folder / "gene_finding/gene_finding.hdf5") as file:
        labels = np.asarray(file["labels"][row["item"]])
    assert row["labels"] == (labels[::-1] if flip else labels).tolist()


def test_several_processes_build_the_same(tmp_path: Path) -> None:
    folder = write_data(tmp_path, ["histone_modification"], n=40)
    source = find_source(TASKS.get("histone_modification"), data=str(folder))
    assert isinstance(source, TaskFiles)
    one = make_builder(read_examples(source), cache_dir=tmp_path / "one")
    one.download_and_prepare()
    import bend_hf.data.builder as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TABLE_BP", 4096)
        two = make_builder(read_examples(source), cache_dir=tmp_path / "two")
        two.download_and_prepare(num_proc=2)
    assert one.as_dataset()["train"].to_dict() == two.as_dataset()["train"].to_dict()


def write_strange_letter(folder: Path) -> None:
    """Puts a letter into the genome that no sequence has, in a window of the task."""
    bed = folder / "histone_modification" / "histone_modification.bed"
    chromosome, start = bed.read_text().splitlines()[-1].split("\t")[:2]
    genome = folder / "genomes" / "genome.fa"
    contigs = sequences_of(folder)
    text = contigs[chromosome]
    contigs[chromosome] = f"{text[: int(start)]}*{text[int(start) + 1 :]}"
    genome.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in contigs.items()))


@pytest.mark.parametrize("num_proc", [None, 2])
def test_an_error_while_building_is_the_error_of_this_package(
    tmp_path: Path, num_proc: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_data(tmp_path, ["histone_modification"], n=40)
    write_strange_letter(folder)
    monkeypatch.setattr("bend_hf.data.builder._TABLE_BP", 4096)
    source = find_source(TASKS.get("histone_modification"), data=str(folder))
    assert isinstance(source, TaskFiles)
    builder = make_builder(read_examples(source), cache_dir=tmp_path / "cache")
    with pytest.raises(GenomeError, match=r"'\*'") as raised:
        builder.download_and_prepare(num_proc=num_proc)
    assert "DatasetGenerationError" not in "".join(traceback.format_exception(raised.value))


def test_load_task_raises_the_error_of_this_package(tmp_path: Path) -> None:
    folder = write_data(tmp_path, ["histone_modification"])
    write_strange_letter(folder)
    with pytest.raises(GenomeError, match=r"'\*'"):
        open_tiny(folder, "histone_modification")


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--task", "histone_modification", "--model", "onehot", "--epochs", "1", "--data"],
        ["embed", "--task", "histone_modification", "--model", "onehot", "--data"],
        ["build", "histone_modification", "--num-proc", "2", "--data"],
        ["controls", "--task", "histone_modification", "--data"],
    ],
    ids=lambda command: command[0],
)
def test_commands_end_with_the_error_of_this_package_in_one_line(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_data(tmp_path, ["histone_modification"])
    write_strange_letter(folder)
    out = [] if command[0] == "embed" else ["--out", str(tmp_path / "out")]
    assert main([*command, str(folder), *out]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert "'*'" in said[0]


def test_a_damaged_built_folder_is_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data(tmp_path / "data", ["histone_modification"])
    build(DataConfig(task=("histone_modification",), data=str(tmp_path / "data")), tmp_path / "bend")
    shard = tmp_path / "bend/histone_modification/data/test-00000-of-00001.parquet"
    shard.write_bytes(b"PAR1" + shard.read_bytes()[4:-8] + b"\0" * 8)
    facts_path = shard.with_name("bend_facts.json")
    facts = json.loads(facts_path.read_text())
    facts["sha256"][shard.name] = hashlib.sha256(shard.read_bytes()).hexdigest()
    facts_path.write_text(json.dumps(facts))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "nothing cached"))
    with pytest.raises(SourceError, match=r"cannot be loaded \(.*(Parquet|parquet).*\)"):
        load_task("histone_modification", str(tmp_path / "bend"))


def labels_elsewhere(kind: str, path: Path, values: np.ndarray) -> Path:
    """Let the labels of a file be held by another one, which is returned."""
    other = path.with_name("other.hdf5")
    with h5py.File(other, "w") as file:
        file["labels"] = values
    with h5py.File(path, "w") as file:
        if kind == "link":
            file["labels"] = h5py.ExternalLink(other.name, "labels")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            layout[:] = h5py.VirtualSource(other.name, "labels", values.shape)
            file.create_virtual_dataset("labels", layout)
        else:
            other = path.with_name("other.bin")
            other.write_bytes(values.tobytes())
            external = [(str(other), 0, values.nbytes)]
            file.create_dataset("labels", values.shape, values.dtype, external=external)
    return other


@pytest.mark.parametrize("kind", ["link", "virtual", "external"])
def test_labels_that_another_file_holds_count_by_its_content(tmp_path: Path, kind: str) -> None:
    folder = write_data(tmp_path, ["enhancer_annotation"])
    path = folder / "enhancer_annotation" / "enhancer_annotation.hdf5"
    with h5py.File(path) as file:
        values = np.asarray(file["labels"])
    other = labels_elsewhere(kind, path, values)
    before = open_tiny(folder, "enhancer_annotation")
    again = open_tiny(folder, "enhancer_annotation")
    assert again.facts == before.facts
    if kind == "external":
        other.write_bytes((1 - values).astype(values.dtype).tobytes())
    else:
        with h5py.File(other, "r+") as file:
            file["labels"][:] = 1 - values
    after = open_tiny(folder, "enhancer_annotation")
    assert after.facts["files"] != before.facts["files"]
    row = next(iter(after.subsets.values()))[0]
    assert row["labels"] == (1 - values)[row["item"]].tolist()


def test_a_built_folder_that_was_edited_is_refused(tmp_path: Path) -> None:
    write_data(tmp_path / "data", ["histone_modification"])
    build(DataConfig(task=("histone_modification",), data=str(tmp_path / "data")), tmp_path / "bend")
    assert len(load_task("histone_modification", str(tmp_path / "bend")).subsets["test"]) == 5
    shard = tmp_path / "bend/histone_modification/data/test-00000-of-00001.parquet"
    table = pq.read_table(shard)
    pq.write_table(table.slice(1), shard)
    with pytest.raises(SourceError, match=r"test-00000-of-00001.parquet changed after the build.*build the task again"):
        load_task("histone_modification", str(tmp_path / "bend"))


def built_tiny(tmp_path: Path, task: str = "gene_finding", name: str = "bend", seed: int = 0) -> Path:
    """A built task of its own cache."""
    data = write_data(tmp_path / f"data-{name}", [task], seed=seed)
    build(DataConfig(task=(task,), data=str(data)), tmp_path / name)
    return tmp_path / name / TASKS.get(task).group


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("a shard more", r"train-00001-of-00002.parquet changed after the build"),
        ("a shard less", r"train-00000-of-00001.parquet changed after the build"),
        ("shards exchanged", r"-00000-of-00001.parquet changed after the build"),
        ("sums removed", r"bend_facts.json is missing or damaged"),
        ("splits exchanged", r"its README.md gives the splits .*expected"),
        ("labels exchanged", r"its labels are .*expected|cannot be loaded"),
        ("card of another build", r"its README.md is of another build"),
    ],
)
def test_whatever_changes_in_a_built_folder_is_refused_warm_or_cold(
    change: str, message: str, warm: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = built_tiny(tmp_path)
    card, facts = folder / "README.md", folder / "data/bend_facts.json"
    train, test = (folder / f"data/{split}-00000-of-00001.parquet" for split in ("train", "test"))
    if warm:
        load_task("gene_finding", str(folder.parent))
    text = card.read_text()
    if change == "a shard more":
        shutil.copy(train, train.with_name("train-00001-of-00002.parquet"))
    elif change == "a shard less":
        train.unlink()
    elif change == "shards exchanged":
        held = test.read_bytes()
        test.write_bytes(train.read_bytes())
        train.write_bytes(held)
    elif change == "sums removed":
        facts.write_text(json.dumps({**json.loads(facts.read_text()), "sha256": {}}))
    elif change == "splits exchanged":
        held_out = text.replace("data/test-*", "data/x-*").replace("data/validation-*", "data/test-*")
        card.write_text(held_out.replace("data/x-*", "data/validation-*"))
    elif change == "labels exchanged":
        card.write_text(text.replace("'0': cds+", "'0': donor+", 1).replace("'1': donor+", "'1': cds+", 1))
    else:
        other = built_tiny(tmp_path, name="other", seed=1)
        load_task("gene_finding", str(other.parent))
        shutil.copy(other / "README.md", card)
    with pytest.raises(BendError, match=message):
        load_task("gene_finding", str(folder.parent))


def test_a_built_folder_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEND_HF_CACHE", str(tmp_path / "notes"))
    monkeypatch.setattr("bend_hf.files._SETTLED_NS", -(10**18))
    folder = built_tiny(tmp_path)
    hashed: list[str] = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: (hashed.append(file.name), digest(file, name))[1])
    for _ in range(3):
        load_task("gene_finding", str(folder.parent))
    assert sorted(hashed) == sorted(map(str, folder.glob("data/*.parquet")))
    hashed.clear()
    shard = folder / "data/test-00000-of-00001.parquet"
    os.utime(shard, ns=(0, 10**18))
    for _ in range(2):
        load_task("gene_finding", str(folder.parent))
    assert [Path(name).name for name in hashed] == [shard.name]
