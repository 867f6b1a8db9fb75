"""Loading metrics by name and by path, scoring with them, and writing their folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from bend_hf.data.user_task import user_task_from_column
from bend_hf.errors import ConfigError, RecordError, RegistryError
from bend_hf.evaluation.metrics import (
    Score,
    check_metrics,
    load_metric,
    metric_name,
    metric_names,
    score,
    write_metric_folders,
)
from bend_hf.files import asset_folder
from bend_hf.tasks import TASKS


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_metric_names_are_the_folders() -> None:
    cards = asset_folder("metrics").glob("*/README.md")
    assert metric_names(plugins=False) == sorted(card.parent.name for card in cards)
    assert {"auprc", "auroc", "mcc"} <= set(metric_names())


LOADED = """
from bend_hf.evaluation.metrics import load_metric
print(load_metric("mcc").compute(predictions=[0, 1, 1, 0], references=[0, 1, 1, 1])["recall"])
"""


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_copy_of_a_module_that_was_cut_short_is_made_again(share: float, tmp_path: Path) -> None:
    def load() -> str:
        environment = {**os.environ, "HF_HOME": str(tmp_path)}
        environment.pop("HF_MODULES_CACHE", None)
        done = subprocess.run(
            [sys.executable, "-c", LOADED], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-1000:]
        return done.stdout

    first = load()
    (copy,) = (tmp_path / "modules").rglob("mcc.py")
    whole = copy.read_bytes()
    copy.write_bytes(whole[: int(share * len(whole))])
    assert load() == first
    assert copy.read_bytes() == whole


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


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(RegistryError, match="unknown metric 'auroq'; did you mean 'auroc'"):
        load_metric("auroq")
    with pytest.raises(RegistryError, match=r"\.\./mcc is not a metric folder; expected the module mcc/mcc.py in it"):
        score("../mcc", [0], [0])


PLAIN = """
import datasets
import evaluate


class {name}(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description="A metric from the template.", citation="", inputs_description="",
            features=datasets.Features(
                {{"predictions": datasets.Value("{kind}"), "references": datasets.Value("int64")}}
            ),
        )

    def _compute(self, predictions, references):
        return {{"accuracy": sum(p == r for p, r in zip(predictions, references)) / len(references)}}
"""


def plain_metric(folder: Path, *, kind: str = "int64", text: str = PLAIN) -> str:
    """The path of a metric as the template of ``evaluate`` makes it: predictions, references and nothing else."""
    folder.mkdir(parents=True)
    (folder / f"{folder.name}.py").write_text(text.format(name=folder.name.title(), kind=kind))
    return str(folder)


def test_a_plain_metric_is_scored_by_path_without_our_arguments(tmp_path: Path) -> None:
    path = plain_metric(tmp_path / "hits")
    found = score(path + "/", np.array([0, 1, 1, 0], np.int16), np.array([0, 1, 0, -100], np.int16), names=["a", "b"])
    assert found == Score(metric="hits", value=2 / 3, detail={})
    assert metric_name(path) == "hits"


def test_a_plain_metric_of_nothing_is_nan(tmp_path: Path) -> None:
    assert np.isnan(score(plain_metric(tmp_path / "hits"), [0, 1], [-100, -100]).value)


def test_a_plain_metric_scores_each_label_and_the_value_is_their_mean(tmp_path: Path) -> None:
    path = plain_metric(tmp_path / "hits", kind="float32")
    found = score(path, np.float32([[0, 1, 0], [1, 0, 0]]), np.array([[0, 1, -100], [1, -100, -100]]))
    assert found.value == 1.0
    assert found.detail == {"per_label": [1.0, 1.0, None], "n_labels_left_out": 1}


def test_a_plain_metric_of_classes_refuses_scores(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="metric hits takes class numbers, but the predictions are scores"):
        score(plain_metric(tmp_path / "hits"), [0.2, 0.9], [0, 1])


def test_a_plain_metric_of_rows_refuses_items_with_some_labels_ignored(tmp_path: Path) -> None:
    rows = PLAIN.replace('datasets.Value("{kind}")', 'datasets.Sequence(datasets.Value("{kind}"))').replace(
        'datasets.Value("int64")', 'datasets.Sequence(datasets.Value("int64"))'
    )
    path = plain_metric(tmp_path / "hits", text=rows)
    assert score(path, [[0, 1], [1, 1], [1, 0]], [[0, 1], [1, 0], [-100, -100]]).value == 0.5
    with pytest.raises(ConfigError, match="takes no ignore_index, but some labels of an item are ignored"):
        score(path, [[0, 1], [1, 1]], [[0, 1], [1, -100]])


def test_a_main_value_that_is_not_computed_is_named(tmp_path: Path) -> None:
    path = plain_metric(tmp_path / "hits", text=PLAIN + 'MAIN = "f1"\n')
    with pytest.raises(ConfigError, match=r"metric hits gives \['accuracy'\], not 'f1'; set MAIN in hits.py"):
        score(path, [0, 1], [0, 1])


def test_a_metric_that_fails_on_import_is_found_by_the_check(tmp_path: Path) -> None:
    path = plain_metric(tmp_path / "hits", text="import evaluate\nnot_defined\n")
    with pytest.raises(ConfigError, match=r"hits.py fails on import with NameError.*correct the module"):
        check_metrics(replace(TASKS.get("gene_finding"), further_metrics=(path,)))


def test_the_metrics_of_every_task_score_its_labels() -> None:
    for task in TASKS:
        check_metrics(task)


@pytest.mark.parametrize("column", [["0", "1"], ["0", "1", "2"], ["0,1", "1"], ["0"]])
def test_the_metrics_of_an_inferred_task_score_its_labels(column: list[str]) -> None:
    check_metrics(user_task_from_column("mine", column, lengths_bp=np.full(len(column), 64)))


@pytest.mark.parametrize(
    ("task", "metric", "why"),
    [
        ("gene_finding", "auroc", "it takes scores, but the predictions are classes; choose another, such as mcc"),
        ("cpg_methylation", "mcc", "it takes classes, but the predictions are scores; choose another, such as auroc"),
    ],
)
def test_a_metric_of_other_labels_is_found_by_the_check(task: str, metric: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"metric {metric} cannot score {task}: {why}"):
        check_metrics(replace(TASKS.get(task), metric=metric))


def test_a_path_with_the_name_of_our_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="has the name of the metric 'mcc'"):
        load_metric(plain_metric(tmp_path / "mcc"))
    assert metric_name(str(asset_folder("metrics") / "mcc")) == "mcc"


@pytest.mark.slow
def test_plugins_bring_metric_folders(tmp_path: Path) -> None:
    path = plain_metric(tmp_path / "hits")
    (tmp_path / "bend_plugin.py").write_text(f"METRICS = ({path!r},)\n")
    info = tmp_path / "bend_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bend-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bend_hf.plugins]\nmine = bend_plugin\n")
    program = (
        "from bend_hf.evaluation.metrics import metric_names, score\n"
        "print('hits' in metric_names(), 'hits' in metric_names(plugins=False), score('hits', [0, 1], [0, 1]).value)"
    )
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    run = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "False", "1.0"]


def test_a_module_is_searched_for_imports_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_metric("mcc")
    monkeypatch.delattr("evaluate.load")
    again = load_metric("mcc")
    assert type(again) is type(first)
    assert again.compute(predictions=[0, 1], references=[0, 1]) == first.compute(predictions=[0, 1], references=[0, 1])


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


def test_changed_and_missing_files_are_restored_and_other_files_stay(tmp_path: Path) -> None:
    folder = write_metric_folders(tmp_path)[0]
    whole = contents(folder)
    (folder / "README.md").write_text("old")
    (folder / "app.py").unlink()
    (folder / ".gitattributes").write_text("a Space has one")
    write_metric_folders(tmp_path)
    assert contents(folder) == {**whole, ".gitattributes": b"a Space has one"}
    assert sorted(path.name for path in tmp_path.iterdir()) == metric_names()


def test_a_file_in_the_place_of_a_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mcc").write_text("mine")
    with pytest.raises(RecordError, match="mcc cannot be written"):
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
