"""Names of files: whatever they hold, a run is refused before work or ends with its record."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from bend_hf.cli._main import main
from bend_hf.errors import InputError
from bend_hf.evaluation.record import jsonable, read_record
from bend_hf.files import json_sha256
from bend_hf.runs.variant_file import score_file
from tests.tiny import write_data

LINEAR = ("--model", "onehot", "--head", "linear", "--epochs", "1", "--batch-size", "4")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tasks = ["histone_modification", "variant_effects_disease"]
    return write_data(tmp_path_factory.mktemp("data"), tasks, n=8)


@pytest.mark.parametrize("name", ["a\t\nb c", "a" * 240, "\U0001f9ec" * 50, "a<b|c>*?", "\x1b[31m\u202e"])
def test_a_bed_file_of_any_name_ends_with_a_record(name: str, data: Path, tmp_path: Path) -> None:
    bed = tmp_path / f"{name}.bed"
    shutil.copy(data / "histone_modification/histone_modification.bed", bed)
    files = ("--bed", str(bed), "--genome", str(data / "genomes/genome.fa"))
    assert main(["train", *files, *LINEAR, "--out", str(tmp_path / "out")]) == 0
    (record,) = (tmp_path / "out").glob("*.json")
    assert read_record(record).task == name
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".parquet", ".safetensors"]


def test_a_bed_file_without_a_name_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bed = tmp_path / "...bed"
    shutil.copy(data / "histone_modification/histone_modification.bed", bed)
    assert main(["train", "--bed", str(bed), "--genome", str(data / "genomes/genome.fa"), *LINEAR]) == 1
    assert "...bed has no name before its ending; rename the file" in capsys.readouterr().err


def test_a_folder_whose_name_is_not_utf_8_is_refused_before_work(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / os.fsdecode(b"d\xff")
    shutil.copytree(data, folder)
    monkeypatch.setenv("BEND_DATA_DIR", str(folder))
    argv = ["train", "--task", "histone_modification", *LINEAR, "--out", str(tmp_path / "out")]
    assert main(argv) == 1
    assert r"d\udcff/histone_modification/histone_modification.bed is not UTF-8" in capsys.readouterr().err
    assert list((tmp_path / "out").glob("*")) == []


def test_text_that_is_not_utf_8_becomes_escapes_in_records_and_hashes() -> None:
    name = os.fsdecode(b"a\xff")
    assert json.loads(json.dumps(jsonable({name: [Path(name), name]})).encode()) == {"a\\udcff": ["a\\udcff"] * 2}
    assert json_sha256({"name": name}) != json_sha256({"name": "a"})


@pytest.mark.parametrize("file", ["genomes/genome.fa", "variant_effects/variant_effects_disease.bed"])
def test_variants_are_not_recorded_with_a_file_that_changed_meanwhile(file: str, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    variants = next(folder.rglob("variant_effects_disease.bed"))
    path = variants if file.endswith(".bed") else folder / file

    def change(*_: object) -> None:
        path.write_bytes(path.read_bytes() + b"\n")

    with pytest.raises(InputError, match=rf"{path.name} changed while it was read"):
        score_file(
            variants, genome=folder / "genomes/genome.fa", model="onehot", out=tmp_path / "out", on_progress=change
        )
    assert not list((tmp_path / "out").glob("*__seed*"))
