"""Scoring with the metrics that travel with the package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from bend_hf.errors import RegistryError
from bend_hf.evaluation.metrics import Score, load_metric, metric_names, score, write_metric_folders
from bend_hf.files import asset_folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_metric_names_are_the_folders() -> None:
    cards = asset_folder("metrics").glob("*/README.md")
    assert metric_names() == sorted(card.parent.name for card in cards)
    assert {"auprc", "auroc", "mcc"} <= set(metric_names())


def test_score_holds_the_value_and_the_rest() -> None:
    found = score("mcc", [0, 1, 1, 2, 0], [0, 0, 1, 2, -100], names=["cds", "intron", "other"])
    assert found == Score(
        metric="mcc",
        value=0.7,
        detail={
            "recall": [0.5, 1.0, 1.0],
            "precision": [1.0, 0.5, 1.0],
            "f1": [2 / 3, 2 / 3, 1.0],
            "support": [2, 1, 1],
            "confusion_matrix": [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
            "names": ["cds", "intron", "other"],
        },
    )


def test_detail_of_undefined_labels_is_strict_json() -> None:
    found = score("auroc", np.array([[0.1, 0.2], [0.3, 0.4]]), np.array([[0, 1], [1, 1]]))
    assert found.value == 1.0
    assert found.detail["per_label"] == [1.0, None]
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["detail"] == found.detail


def test_undefined_value_is_nan() -> None:
    found = score("auprc", [0.1, 0.2], [1, 1])
    assert np.isnan(found.value)
    assert found.detail["chance"] is None


def test_unknown_metric_names_its_neighbour() -> None:
    with pytest.raises(RegistryError, match="unknown metric 'auroq'; did you mean 'auroc'"):
        load_metric("auroq")
    with pytest.raises(RegistryError, match=r"unknown metric '\.\./mcc'"):
        score("../mcc", [0], [0])


def test_two_loaded_metrics_share_nothing() -> None:
    one, two = load_metric("mcc"), load_metric("mcc")
    one.add_batch(predictions=[0, 1], references=[0, 1])
    assert (len(one), len(two)) == (2, 0)
    assert one.experiment_id != two.experiment_id


def test_folders_are_written_once(tmp_path: Path) -> None:
    out = tmp_path / "new" / "bend"
    folders = write_metric_folders(out)
    assert folders == [out / name for name in metric_names()]
    assert sorted(path.name for path in out.iterdir()) == metric_names()
    for folder in folders:
        assert {"README.md", "app.py", "requirements.txt", f"{folder.name}.py"} == set(contents(folder))
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.rglob("*") if path.is_file()}
    assert write_metric_folders(out) == folders
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.rglob("*") if path.is_file()} == before


def test_changed_and_missing_files_are_mended_and_strange_ones_stay(tmp_path: Path) -> None:
    folder = write_metric_folders(tmp_path)[0]
    whole = contents(folder)
    (folder / "README.md").write_text("old")
    (folder / "app.py").unlink()
    (folder / ".gitattributes").write_text("a Space has one")
    write_metric_folders(tmp_path)
    assert contents(folder) == {**whole, ".gitattributes": b"a Space has one"}
    assert sorted(path.name for path in tmp_path.iterdir()) == metric_names()


def test_file_in_the_place_of_a_folder_is_no_silent_loss(tmp_path: Path) -> None:
    (tmp_path / "mcc").write_text("mine")
    with pytest.raises(OSError, match="mcc"):
        write_metric_folders(tmp_path)
    assert (tmp_path / "mcc").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_importing_loads_no_heavy_package() -> None:
    program = (
        "import sys, bend_hf.evaluation.metrics; "
        "print(sorted({'torch', 'evaluate', 'datasets', 'transformers'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.slow
def test_processes_that_load_at_once_agree_quietly_and_offline(tmp_path: Path) -> None:
    program = (
        "from bend_hf.evaluation.metrics import score\n"
        "print([score(m, [0, 1], [0, 1]).value for m in ('mcc', 'auroc')])"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1"}
    env.pop("HF_MODULES_CACHE", None)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = [process.communicate() for process in started]
    assert said == [("[1.0, 1.0]\n", "")] * 3
