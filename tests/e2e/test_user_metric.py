"""``--metric my_folder/``: a plain metric of a user ranks a task, next to one of ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bend_hf.config import RunConfig
from bend_hf.errors import ConfigError, RegistryError
from bend_hf.evaluation.record import read_record
from bend_hf.runs.run import run
from tests.records import schema_errors
from tests.tiny import write_data

GAP = """
import datasets
import evaluate


class Gap(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description="Mean score of the positive items minus that of the negative items.",
            citation="",
            features=datasets.Features(
                {"predictions": datasets.Value("float32"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions, references):
        mean = [sum(p for p, r in zip(predictions, references) if r == k) / max(1, references.count(k)) for k in (0, 1)]
        return {"gap": mean[1] - mean[0]}
"""


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    (tmp_path / "gap").mkdir()
    (tmp_path / "gap" / "gap.py").write_text(GAP)
    data = write_data(tmp_path / "data", ("cpg_methylation",), n=20)
    return RunConfig(
        task=("cpg_methylation",),
        data=str(data),
        model="onehot",
        epochs=1,
        metric=(f"{tmp_path}/gap/", "auroc"),
        out=tmp_path / "out",
    )


def test_a_metric_folder_ranks_the_task_by_its_name(config: RunConfig) -> None:
    (outcome,) = run(config)
    record = read_record(outcome.path)
    assert (record.main_metric, list(record.metrics)) == ("gap", ["gap", "auroc"])
    assert record.value is not None
    assert -1 <= record.value <= 1
    assert schema_errors(record.as_json()) == []


def test_a_changed_metric_is_another_run(config: RunConfig, tmp_path: Path) -> None:
    (first,) = run(config)
    module = tmp_path / "gap" / "gap.py"
    module.write_text(module.read_text().replace("mean[1] - mean[0]", "mean[0] - mean[1]"))
    (second,) = run(config)
    assert first.path != second.path
    assert second.record.value == pytest.approx(-(first.record.value or 0.0))


def test_a_bad_metric_stops_before_the_model_is_loaded(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "gap" / "gap.py").write_text("import evaluate\nnot_defined\n")
    with pytest.raises(ConfigError, match=r"gap\.py fails on import"):
        run(replace(config, model="nobody/no-such-model"))
    with pytest.raises(RegistryError, match="unknown metric 'aurok'; did you mean 'auroc'"):
        run(replace(config, metric=("aurok",)))
