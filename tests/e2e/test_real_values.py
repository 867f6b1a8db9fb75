"""A user's own regression task, by flags: built, verified, trained and scored, with every number taken as a value."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from bend_hf.config import DataConfig, RunConfig
from bend_hf.data.dataset import open_task
from bend_hf.data.sources import sources_of
from bend_hf.errors import BendError, ConfigError, InputError, LabelError
from bend_hf.evaluation.audit.task_audit import audit_task
from bend_hf.evaluation.predictions import read_predictions
from bend_hf.publishing.dataset_folder import build
from bend_hf.publishing.verify_dataset import verify
from bend_hf.runs.run import run, run_controls

N = 60


def write_task(folder: Path, values: list[str]) -> DataConfig:
    """Windows of 64 bp whose value is what ``values`` says, and a genome of one contig."""
    rng = random.Random(0)
    windows = ["".join(rng.choices("ACGT", weights=(1, n % 7 + 1, 1, 1), k=64)) for n in range(len(values))]
    (folder / "toy.fa").write_text(">chrT\n" + "".join(windows) + "\n")
    rows = [
        f"chrT\t{64 * n}\t{64 * n + 64}\t{value}\t{('train', 'valid', 'test')[n % 3]}\n"
        for n, value in enumerate(values)
    ]
    (folder / "mine.bed").write_text("chromosome\tstart\tend\tlabel\tsplit\n" + "".join(rows))
    return DataConfig(bed=folder / "mine.bed", genome=folder / "toy.fa", loss="mse")


def values_of(n: int) -> list[str]:
    """A value of -100 in each split, and a missing one in the test split."""
    values = [f"{(k % 7 + 1) * 10 - 40 + k / 100:.2f}" for k in range(n)]
    values[0], values[1], values[2], values[5] = "-100.0", "-100", "-1e2", "NA"
    return values


def trained(folder: Path, **flags: object) -> RunConfig:
    settings = {"out": folder / "results", "model": "onehot", "epochs": 2, "learning_rate": 0.01, "no_cache": True}
    data = {"bed": folder / "mine.bed", "genome": folder / "toy.fa", "loss": "mse"}
    return RunConfig(**{**data, **settings, **flags})  # type: ignore[arg-type]


def test_a_regression_is_trained_and_scored_on_every_value(tmp_path: Path) -> None:
    values = values_of(N)
    write_task(tmp_path, values)
    (done,) = run(trained(tmp_path, epochs=20))
    found = read_predictions(tmp_path / "results" / done.record.predictions["file"])  # type: ignore[operator]
    expected = np.array([np.nan if value == "NA" else float(value) for value in values], np.float32)[2::3]
    np.testing.assert_array_equal(found.target[:, 0], expected)
    assert found.score is not None
    scored = ~np.isnan(expected)
    for metric, reference in (("pearsonr", stats.pearsonr), ("spearmanr", stats.spearmanr)):
        entry = done.record.metrics[metric]
        assert isinstance(entry, dict)
        assert entry["value"] == pytest.approx(reference(found.score[scored, 0], expected[scored]).statistic, abs=1e-6)
        assert entry["detail"]["n_items"] == [N // 3 - 1]  # type: ignore[index,call-overload]
    assert done.record.main_metric == "pearsonr"
    assert done.record.value is not None
    assert done.record.value > 0.4  # the number of C decides the value
    assert done.record.training["loss"]["loss"] == "mse"  # type: ignore[index,call-overload]


def test_the_metric_and_the_loss_of_a_regression_are_flags(tmp_path: Path) -> None:
    write_task(tmp_path, [str(k % 7) for k in range(N)])  # classes, unless --loss says otherwise
    (done,) = run(trained(tmp_path, loss="poisson", metric=("spearmanr",), epochs=1))
    assert list(done.record.metrics) == ["spearmanr"]
    found = read_predictions(tmp_path / "results" / done.record.predictions["file"])  # type: ignore[operator]
    assert found.score is not None
    assert (found.score > 0).all()  # rates
    with pytest.raises(ConfigError, match="metric mcc cannot score mine"):
        run(trained(tmp_path, metric=("mcc",)))


def test_controls_of_classes_do_not_apply(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_task(tmp_path, values_of(N))
    caplog.set_level("INFO")
    assert run_controls(trained(tmp_path), ["kmer", "gc", "cpg", "prevalence"]) == []
    assert caplog.text.count("the labels of mine are real values, and it predicts classes") == 4


def test_a_regression_is_built_and_verified(tmp_path: Path) -> None:
    values = [f"{value},{k / 3}" if value != "NA" else value for k, value in enumerate(values_of(N))]
    config = write_task(tmp_path, values)
    build(config, tmp_path / "bend")
    assert len(list(verify(config, tmp_path / "bend"))) == 1
    (shard,) = (tmp_path / "bend" / "mine" / "data").glob("train-*.parquet")
    assert pq.read_table(shard)["labels"][0].as_py() == [-100.0, 0.0]
    assert "list of float32" in (tmp_path / "bend" / "mine" / "README.md").read_text()
    assert json.loads(shard.with_name("bend_facts.json").read_text())["label_names"] == ["value_0", "value_1"]
    text = (tmp_path / "mine.bed").read_text()
    (tmp_path / "mine.bed").write_text(text.replace("-100.0,", "-99.0,"))
    with pytest.raises(BendError, match=r"item 0: labels is .*'-100\.0'.*expected .*'-99\.0'"):
        list(verify(config, tmp_path / "bend"))


@pytest.mark.parametrize(
    ("values", "loss", "message"),
    [
        (["1.5", "x", "2"], "mse", r"line 3: 'x'\); expected finite numbers"),
        (["1.5", "inf", "2"], "mse", r"line 3: 'inf'"),
        (["1.5", "1e300", "2"], "mse", r"line 3: '1e300'"),
        (["1.5", "1,2", "2"], "mse", r"line 3: '2 values'\); expected 1 \(value\)"),
        (["1", "-1", "2"], "poisson", r"line 3: '-1'\); expected counts, 0 or more"),
    ],
)
def test_values_that_cannot_be_read_are_refused(tmp_path: Path, values: list[str], loss: str, message: str) -> None:
    write_task(tmp_path, values)
    with pytest.raises(LabelError, match=message):
        run(trained(tmp_path, loss=loss))


def test_real_labels_without_a_loss_ask_for_it(tmp_path: Path) -> None:
    write_task(tmp_path, values_of(N))
    with pytest.raises(LabelError, match="Pass --loss mse to learn the values"):
        run(trained(tmp_path, loss=None))


def test_a_loss_that_cannot_apply_is_refused(tmp_path: Path) -> None:
    write_task(tmp_path, ["1"] * 6)
    with pytest.raises(ConfigError, match=r"--loss mse is for real-valued labels, but gene_finding has classes"):
        sources_of(DataConfig(task=("gene_finding",), data="sample", loss="mse"))
    (tmp_path / "mine.bed").write_text("chromosome\tstart\tend\tref\talt\nchrT\t1\t2\tA\tC\n")
    with pytest.raises(InputError, match="holds variants, which are scored without training; leave --loss out"):
        run(trained(tmp_path))


def test_real_values_are_audited_for_copies_but_have_no_rules(tmp_path: Path) -> None:
    config = write_task(tmp_path, values_of(N))
    ((source, _),) = sources_of(config)
    audit = audit_task(open_task(source, config))
    assert audit.summary["rules"] is None
    assert "test" in audit.summary["leaks"]
