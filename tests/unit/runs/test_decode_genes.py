"""Runs that decode genes with a grammar: both scores are recorded and verified, and the head keeps its grammar."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bend_hf.config import RunConfig
from bend_hf.errors import ConfigError
from bend_hf.evaluation.predictions import read_predictions
from bend_hf.evaluation.record import digest_of
from bend_hf.runs.run import prepare, run, run_controls
from bend_hf.runs.verify import verify_run
from bend_hf.training.gene_grammar import SPLICE_WEIGHTS, TRANSITION_WEIGHTS, Grammar
from bend_hf.training.kept_head import HeadConfig, read_config
from tests.tiny import write_data

COMMON = {"task": ("gene_finding",), "model": "onehot"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_data(tmp_path_factory.mktemp("data"), ("gene_finding",), n=40))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: str) -> Path:
    config = RunConfig(
        **COMMON,  # type: ignore[arg-type]  # text, as the command line gives it
        data=data,
        seeds=(0,),
        protocol="bend-hf-1",
        decode="grammar",
        head="linear",
        learning_rate=0.01,
        epochs=2,
        out=tmp_path_factory.mktemp("run"),
    )
    return run(config)[0].path


def test_bend_2024_takes_the_most_probable_class(tmp_path: Path, data: str) -> None:
    with pytest.raises(
        ConfigError, match="--decode is grammar, but --protocol bend-2024 takes the most probable class"
    ):
        prepare(RunConfig(**COMMON, data=data, decode="grammar", out=tmp_path))  # type: ignore[arg-type]  # as above


def test_tasks_without_genes_refuse_a_grammar(tmp_path: Path) -> None:
    config = RunConfig(
        task=("cpg_methylation",), data="sample", model="onehot", protocol="bend-hf-1", decode="grammar", out=tmp_path
    )
    with pytest.raises(ConfigError, match="--decode is grammar, but cpg_methylation has no genes to decode"):
        prepare(config)


def test_a_record_holds_the_scores_of_both(finished: Path) -> None:
    body = json.loads(finished.read_text())
    decoding = body["training"]["runs"][0]["decoding"]
    assert len(decoding["tried"]) == len(TRANSITION_WEIGHTS) * len(SPLICE_WEIGHTS)
    best = max(one["mcc"] for one in decoding["tried"])
    chosen = [
        one
        for one in decoding["tried"]
        if (one["transition_weight"], one["splice_weight"])
        == (decoding["transition_weight"], decoding["splice_weight"])
    ]
    assert [one["mcc"] for one in chosen] == [best]
    argmax = body["metrics"]["mcc"]["detail"]["argmax"]
    assert set(argmax) == {"mcc", "gene_structure"}
    assert argmax["mcc"]["value"] != body["metrics"]["mcc"]["value"]
    assert "interval" in body["metrics"]["gene_structure"]
    file = finished.with_name(body["predictions"]["further"]["argmax"]["file"])
    one, other = read_predictions(finished.with_suffix(".parquet")), read_predictions(file)
    assert one.item_sha256 == other.item_sha256
    assert not np.array_equal(one.values, other.values)
    assert set(one.columns) == set(other.columns) == {"chromosome", "start", "end", "strand"}


def test_the_record_of_a_control_does_not_claim_a_grammar(tmp_path: Path, data: str) -> None:
    config = RunConfig(**COMMON, data=data, protocol="bend-hf-1", decode="grammar", seeds=(0,), out=tmp_path)  # type: ignore[arg-type]  # as above
    assert run_controls(config, ["prevalence"])[0].record.config["decode"] == "argmax"


def test_genes_of_the_grammar_are_in_frame(finished: Path) -> None:
    detail = json.loads(finished.read_text())["metrics"]["gene_structure"]["detail"]
    assert detail["frame_errors"] == 0


def test_both_scores_are_verified(finished: Path, tmp_path: Path) -> None:
    for file in finished.parent.glob(f"{finished.stem}*"):
        shutil.copy(file, tmp_path / file.name)
    path = tmp_path / finished.name
    assert not verify_run(path).problems
    body = json.loads(path.read_text())
    body["metrics"]["mcc"]["detail"]["argmax"]["mcc"]["value"] = 0.75
    body["sha256"] = digest_of(body)
    path.write_text(json.dumps(body))
    assert verify_run(path).problems == (
        f"metrics.mcc.detail.argmax.mcc.value is 0.75, but {_argmax(finished):.6g} was computed again",
    )
    path.with_name(body["predictions"]["further"]["argmax"]["file"]).unlink()
    assert "the scores of the most probable classes" in " ".join(verify_run(path).unchecked)


def _argmax(path: Path) -> float:
    value = json.loads(path.read_text())["metrics"]["mcc"]["detail"]["argmax"]["mcc"]["value"]
    assert isinstance(value, float)
    return value


def test_the_head_keeps_its_grammar(finished: Path) -> None:
    decoding = json.loads(finished.read_text())["training"]["runs"][0]["decoding"]
    grammar = read_config(finished.with_suffix(".safetensors")).grammar
    assert Grammar.from_json(dict(grammar or {})).as_json() == {name: decoding[name] for name in grammar or {}}


def test_heads_of_earlier_releases_have_no_grammar(finished: Path) -> None:
    body = read_config(finished.with_suffix(".safetensors")).as_json()
    del body["grammar"]
    assert HeadConfig.from_json(body).grammar is None
