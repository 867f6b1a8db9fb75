"""Which records commands read when they are given files of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bend_hf.cli._main import main
from bend_hf.cli._records import records_of


def test_files_of_a_run_stand_for_its_record(tmp_path: Path) -> None:
    run = tmp_path / "task__my_model.py__seed0__20260101T000000"
    endings = (".json", ".parquet", ".safetensors", ".linear_probe.parquet", ".shots.png")
    files = [tmp_path / f"{run.name}{ending}" for ending in endings]
    for file in files:
        file.touch()
    assert records_of(files) == [files[0]]


def test_other_places_stay_in_their_order(tmp_path: Path) -> None:
    places = [tmp_path / "b", tmp_path / "a.json", tmp_path, tmp_path / "folder.parquet"]
    places[-1].mkdir()
    assert records_of(places) == places


@pytest.mark.parametrize("command", ["card", "report", "verify"])
def test_a_file_without_a_record_is_named(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.parquet"
    file.touch()
    assert main([command, str(file)]) == 1
    assert f"{file.with_suffix('.json')} does not exist; give a record or a folder" in capsys.readouterr().err


def test_a_card_of_scores_that_are_not_of_bend_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = [
        "--model",
        "onehot",
        "--data",
        "sample",
        "--epochs",
        "1",
        "--limit",
        "24",
        "--device",
        "cpu",
        "--out",
        "results",
        "-q",
    ]
    assert main(["train", "cpg_methylation", *flags]) == 0
    assert main(["card", *map(str, sorted(Path("results").iterdir()))]) == 0
    assert "it holds scores that may not be published as BEND scores; card/README.md says why" in caplog.messages
