"""All layers together are scored as each is scored alone, and one is chosen on the validation split."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bend_hf.cli._main import main
from bend_hf.config import RunConfig
from bend_hf.embedders import MODELS
from bend_hf.errors import ConfigError
from bend_hf.evaluation.layer_choice import choose, curves_of, level_of, validation_of
from bend_hf.evaluation.predictions import read_predictions
from bend_hf.evaluation.uncertainty.intervals import interval_of
from bend_hf.publishing.report import write_report
from bend_hf.runs import layers as layer_runs
from bend_hf.runs import run as runs
from bend_hf.runs.layers import run_layers
from bend_hf.runs.outcome import Outcome
from bend_hf.runs.verify import verify_run
from bend_hf.training.layer_mix import MIXES
from tests.records import schema_errors
from tests.tiny import write_data

pytestmark = pytest.mark.slow

TASK, GENES = "cpg_methylation", "gene_finding"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), (TASK, GENES), n=24)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = MODELS.get("dnabert6")
    assert spec.tiny is not None
    return spec.tiny().write(tmp_path_factory.mktemp("model"))


@pytest.fixture
def config(data: Path, checkpoint: Path, tmp_path: Path) -> RunConfig:
    return RunConfig(
        task=(TASK,),
        data=str(data),
        model="dnabert6",
        checkpoint=str(checkpoint),
        random_init=True,
        out=tmp_path / "out",
        cache=tmp_path / "cache",
        epochs=3,
        batch_size=4,
    )


def answers(outcome: Outcome) -> np.ndarray:
    predictions = read_predictions(outcome.path.with_suffix(".parquet"))
    return np.asarray(predictions.predicted if predictions.score is None else predictions.score)


@pytest.mark.parametrize(
    ("task", "head", "protocol"), [(TASK, None, "bend-2024"), (TASK, "linear", "bend-hf-1"), (GENES, None, "bend-2024")]
)
def test_layers_together_have_the_scores_of_runs_with_one_layer(
    task: str, head: str | None, protocol: str, config: RunConfig, tmp_path: Path
) -> None:
    config = replace(config, task=(task,), head=head, protocol=protocol)  # type: ignore[arg-type]
    (sweep,) = run_layers(config)
    layers = [outcome.record.model["layer"] for outcome in sweep.outcomes]
    assert layers == list(range(len(layers)))
    assert len(layers) >= 3
    for layer, outcome in zip(layers, sweep.outcomes, strict=True):
        own = replace(config, layer=layer, out=tmp_path / "alone", cache=tmp_path / "own cache")  # type: ignore[arg-type]
        (alone,) = runs.run(own)
        assert outcome.record.value == pytest.approx(alone.record.value, abs=1e-6)
        np.testing.assert_allclose(answers(outcome), answers(alone), atol=1e-6 if task == TASK else 0)
        assert outcome.record.config["run_key"] == alone.record.config["run_key"]
        assert outcome.record.kept
        found, expected = (one.record.training["runs"][0] for one in (outcome, alone))  # type: ignore[index]
        assert found.keys() == expected.keys()  # type: ignore[union-attr]
        for name in ("best_epoch", "batch_size", "steps", "learning_rate"):
            assert found[name] == expected[name]  # type: ignore[index,call-overload]
        assert alone.record.layers is None


def test_the_layer_is_chosen_on_validation_and_its_interval_says_among_how_many(config: RunConfig) -> None:
    (sweep,) = run_layers(config)
    chosen = sweep.curve.chosen
    assert chosen is not None
    values = {one.record.model["layer"]: validation_of(one.record.training) for one in sweep.outcomes}
    assert chosen.layer == choose(values)  # type: ignore[arg-type]
    outcome = sweep.outcomes[chosen.layer]
    predictions = read_predictions(outcome.path.with_suffix(".parquet"))
    wide = interval_of(predictions, "auroc", level=level_of(len(values)))
    assert (chosen.choice_low, chosen.choice_high) == pytest.approx((wide.low, wide.high))
    usual = interval_of(predictions, "auroc")
    assert wide.low < usual.low < usual.high < wide.high
    assert (
        f"Layer {chosen.layer} is chosen on the validation split among {len(values)} layers" in sweep.curve.in_words()
    )
    for one in sweep.outcomes:
        body = json.loads(one.path.read_text())
        assert not schema_errors(body)
        verified = verify_run(one.path)
        assert not verified.problems
        body["layers"]["interval"]["low"] -= 0.1
        one.path.write_text(json.dumps(body))
        assert any("layers" in problem for problem in verify_run(one.path).problems)


def test_a_repeated_sweep_reads_its_records_and_a_later_run_of_one_layer_does_too(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = run_layers(config, "0,2")
    first.outcomes[0].path.unlink()
    computed: list[tuple[int, ...]] = []
    real = layer_runs.train_layers
    monkeypatch.setattr(
        layer_runs, "train_layers", lambda runs, *rest: computed.append(tuple(runs)) or real(runs, *rest)
    )
    (again,) = run_layers(config, "0,2")
    assert computed == [(0,)]
    assert again.curve.points == first.curve.points
    assert again.outcomes[1].was_there
    (alone,) = runs.run(replace(config, layer=2))
    assert alone.was_there
    (other,) = run_layers(config, "0,1,2")
    assert computed == [(0,), (0, 1, 2)], "the interval depends on how many layers were tried"
    assert not other.outcomes[0].was_there
    assert not list(config.out.glob(".training*/*"))


def test_the_report_shows_the_curve(config: RunConfig, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (sweep,) = run_layers(replace(config, seeds=(0, 1)))
    write_report([config.out], tmp_path / "report", paired=False)
    text = (tmp_path / "report" / "README.md").read_text()
    page = (tmp_path / "report" / "index.html").read_text()
    (curve,) = curves_of([one.record for one in sweep.outcomes])
    assert [point.n_seeds for point in curve.points] == [2] * len(curve.points)
    assert curve.in_words() in text
    assert f"{curve.chosen.layer} (chosen)" in text  # type: ignore[union-attr]
    assert curve.in_words() in page
    rows = (tmp_path / "report" / "scores.csv").read_text()
    assert f"layer {curve.chosen.layer}" in rows  # type: ignore[union-attr]
    assert sum(f"layer {point.layer}" in rows for point in curve.points) == 1, "only the chosen layer is ranked"
    for ending in ("png", "svg"):
        assert (tmp_path / "report" / "plots" / f"layers_{curve.key}.{ending}").stat().st_size > 1000


def test_the_command_prints_the_layers_and_draws_the_curve(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    flags = ["--model", "dnabert6", "--checkpoint", str(config.checkpoint), "--random-init", "--epochs", "1"]
    places = ["--data", str(config.data), "--out", str(config.out), "--cache", str(config.cache)]
    assert main(["layers", "--task", TASK, *flags, *places, "--layers", "every-2", "--head", "linear"]) == 0
    printed = capsys.readouterr().out
    assert "is chosen on the validation split among 2 layers" in printed
    assert len(list(config.out.glob("layers_*.png"))) == len(list(config.out.glob("layers_*.svg"))) == 1


@pytest.mark.parametrize(
    ("changes", "layers", "text"),
    [
        ({"layer": 2}, "all", "--layer is 2, but all layers of --layers are scored"),
        ({"tune": "lora"}, "all", "--tune is 'lora'"),
        ({"shots": ("1",)}, "all", "--shots is 1, but layers"),
        ({"strand_report": True}, "all", "--strand-report predicts a second time"),
        ({}, "some", "--layers is 'some'"),
        ({}, "0,99", "names layer 99, but the model has layers 0 to"),
        ({"model": "onehot", "checkpoint": None, "random_init": False}, "all", "has no layers to choose from"),
    ],
)
def test_what_has_no_layers_to_choose_from_is_refused(
    config: RunConfig, changes: dict[str, object], layers: str, text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        run_layers(replace(config, **changes), layers)  # type: ignore[arg-type]
    assert not list(config.out.glob("*.json"))


def test_heads_that_read_all_layers_at_once_stand_next_to_the_curve(config: RunConfig, tmp_path: Path) -> None:
    config = replace(config, head="linear")
    (sweep,) = run_layers(config, mixes=("mean", "scalar"))
    layers = [one.layer for one in sweep.curve.points]
    assert [one.layer for one in sweep.curve.mixes] == [f"{kind}:{','.join(map(str, layers))}" for kind in MIXES]
    assert isinstance(sweep.curve.chosen.layer, int)  # type: ignore[union-attr]
    for outcome, kind in zip(sweep.outcomes[-2:], MIXES, strict=True):
        assert not schema_errors(json.loads(outcome.path.read_text()))
        assert not verify_run(outcome.path).problems
        assert not outcome.record.kept
        weights = outcome.record.training["runs"][0].get("layer_weights")  # type: ignore[index,union-attr,call-overload]
        assert (weights is None) == (kind == "mean")
        if weights is not None:
            assert sum(weights) == pytest.approx(1.0)  # type: ignore[arg-type]
            assert max(weights) - min(weights) > 1e-4, "they were learned"  # type: ignore[operator,arg-type]
    write_report([config.out], tmp_path / "report", paired=False, plots=False)
    text = (tmp_path / "report" / "README.md").read_text()
    assert "| mean of all |" in text
    assert "| scalar mix of all |" in text
    (again,) = run_layers(config, mixes=("scalar",))
    assert all(one.was_there for one in again.outcomes)
