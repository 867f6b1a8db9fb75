"""Kept heads: what a run keeps, that a loaded head predicts as the run did, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import bend_hf
from bend_hf.config import Keep, RunConfig, Tune
from bend_hf.data.dataset import task_openers
from bend_hf.errors import ConfigError, InputError, ModelError, RecordError, SourceError
from bend_hf.evaluation.predictions import Predictions, read_predictions
from bend_hf.evaluation.record import read_record
from bend_hf.runs import run as runs
from bend_hf.runs.grid import run_grid
from bend_hf.runs.outcome import Outcome
from bend_hf.training import trained_head
from bend_hf.training.kept_head import read_head
from bend_hf.training.load_head import load_head
from tests.fake_checkpoints import make_tiny
from tests.tiny import write_data

GENES, WINDOWS, BINS = "gene_finding", "cpg_methylation", "enhancer_annotation"
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), (GENES, WINDOWS), n=20)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 3-mers with its weights."""
    folder = make_tiny("dnabert3", tmp_path_factory.mktemp("models") / "tiny")
    made = bend_hf.load_embedder("dnabert3", checkpoint=folder, random_init=True, device="cpu")
    assert made.model is not None
    made.model.save_pretrained(folder)
    return folder


@pytest.fixture
def config(data: Path, tmp_path: Path) -> RunConfig:
    return RunConfig(
        task=(GENES,),
        data=str(data),
        model="onehot",
        out=tmp_path / "out",
        cache=tmp_path / "cache",
        epochs=3,
        batch_size=4,
    )


def trained(config: RunConfig) -> Outcome:
    (outcome,) = runs.run(config)
    return outcome


def predicted_by_run(outcome: Outcome) -> Predictions:
    return read_predictions(outcome.path.with_suffix(".parquet"))


def sequences_of(config: RunConfig, fold: int | None = None) -> list[str]:
    (open_one,) = task_openers(config).values()
    return list(open_one().splits(fold)["test"]["sequence"])


@pytest.mark.parametrize("task", [GENES, WINDOWS])
@pytest.mark.parametrize("model", ["onehot", "tiny"])
def test_a_loaded_head_predicts_the_test_split_as_its_run_did(
    config: RunConfig, task: str, model: str, tiny: Path
) -> None:
    config = replace(config, task=(task,))
    if model == "tiny":
        config = replace(config, model="dnabert3", checkpoint=str(tiny))
    outcome = trained(config)
    head = load_head(outcome.path)
    found, expected = head.predict(sequences_of(config)), predicted_by_run(outcome)
    assert head.names == tuple(expected.label_names or ())
    assert [len(one) for one in found] == np.diff(expected.windows).tolist()
    scores = np.concatenate([one.scores for one in found])
    if task == GENES:
        assert expected.predicted is not None
        np.testing.assert_array_equal(scores.argmax(axis=1), expected.predicted)
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
        assert found[0].classes[0] == head.names[expected.predicted[0]]
    else:
        np.testing.assert_allclose(scores, expected.score, atol=1e-5)
        with pytest.raises(InputError, match="each label has a score of its own"):
            _ = found[0].classes


@pytest.mark.parametrize("tune", [pytest.param("full"), pytest.param("lora", marks=needs_peft)])
def test_what_was_fine_tuned_is_kept_with_its_head(config: RunConfig, tune: Tune, tiny: Path) -> None:
    config = replace(config, model="dnabert3", checkpoint=str(tiny), tune=tune, learning_rate=0.01)
    outcome = trained(config)
    file = outcome.path.with_suffix(".safetensors")
    names = load_file(file).keys()
    assert any(name.startswith("head.") for name in names)
    assert any(name.startswith("encoder.") for name in names)
    if tune == "lora":
        assert all("lora_" in name for name in names if name.startswith("encoder."))
    found = load_head(outcome.path).predict(sequences_of(config))
    scores = np.concatenate([one.scores for one in found])
    np.testing.assert_array_equal(scores.argmax(axis=1), predicted_by_run(outcome).predicted)


def test_the_head_of_the_fold_that_validates_best_is_kept(config: RunConfig, tmp_path: Path) -> None:
    few = write_data(tmp_path / "few", (BINS,), n=10)
    config = replace(config, data=str(few), task=(BINS,), fold=(1, 2), head="linear", epochs=1)
    outcome = trained(config)
    kept = read_head(outcome.path.with_suffix(".safetensors")).config
    assert outcome.record.training is not None
    entries = outcome.record.training["runs"]
    assert isinstance(entries, list)
    values = {one["fold"]: max(e["validation"] for e in one["history"]) for one in entries if isinstance(one, dict)}  # type: ignore[union-attr,index,call-overload]  # the form of JSON
    assert kept.validation == max(values.values())
    assert values[kept.fold] == kept.validation
    predictions = predicted_by_run(outcome)
    here = np.repeat(predictions.columns["fold"].to_numpy() == kept.fold, np.diff(predictions.windows))
    found = load_head(outcome.path).predict(sequences_of(config, kept.fold))
    assert predictions.score is not None
    np.testing.assert_allclose(np.concatenate([one.scores[:, 1] for one in found]), predictions.score[here], atol=1e-5)
    assert found[0].window_bp == 128
    assert set(found[0].classes) <= set(kept.label.names)


@pytest.mark.parametrize(("keep", "epoch"), [("best", None), ("last", 3)])
def test_best_and_last_epoch_are_told_apart(config: RunConfig, keep: Keep, epoch: int | None) -> None:
    outcome = trained(replace(config, keep=keep, learning_rate=1.0))
    assert outcome.record.training is not None
    (entry,) = outcome.record.training["runs"]  # type: ignore[misc]  # the form of JSON
    kept = read_head(outcome.path.with_suffix(".safetensors")).config
    assert isinstance(entry, dict)
    assert (kept.kept, kept.epoch) == (keep, epoch or entry["best_epoch"])
    assert kept.validation == entry["history"][kept.epoch - 1]["validation"]  # type: ignore[index,call-overload]


def test_nothing_is_kept_if_nothing_is_wanted_and_a_finished_run_says_so(
    config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = trained(replace(config, keep="none"))
    assert outcome.record.kept == {}
    assert not list(config.out.glob("*.safetensors"))
    with pytest.raises(SourceError, match="names no head"):
        load_head(outcome.path)
    caplog.set_level("INFO")
    again = trained(config)
    assert again.was_there
    assert "its trained weights were not kept; --force repeats it" in caplog.text
    assert trained(replace(config, force=True)).record.kept


def test_the_size_is_said_first_and_a_disk_that_is_too_small_stops_the_run(
    config: RunConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    outcome = trained(config)
    (line,) = (one for one in caplog.messages if "are kept next to the record" in one)
    stated = float(line.split(", ")[1].split()[0])
    assert outcome.record.kept is not None
    assert stated == pytest.approx(int(str(outcome.record.kept["bytes"])) / 1000, rel=0.1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(RecordError, match=r"trained weights take .* but .* has 1 bytes free"):
        trained(replace(config, seed=1))


def test_a_grid_keeps_no_weights_unless_it_is_asked_to(config: RunConfig) -> None:
    (cell,) = run_grid(config, ["onehot"])
    assert cell.record is not None
    assert cell.record.kept == {}
    (cell,) = run_grid(replace(config, keep="best", seed=1), ["onehot"])
    assert cell.record is not None
    assert cell.record.kept


def test_controls_keep_no_weights(config: RunConfig, tiny: Path) -> None:
    config = replace(config, model="dnabert3", checkpoint=str(tiny), controls=True, epochs=1)
    outcome = trained(config)
    assert outcome.record.controls
    assert [path.stem for path in config.out.glob("*.safetensors")] == [outcome.path.stem]


def test_long_sequences_are_cut_into_windows_of_the_task_and_short_ones_refused(config: RunConfig) -> None:
    config = replace(config, task=(WINDOWS,))
    head = load_head(trained(config).path)
    first, second = sequences_of(config)[:2]
    one, two = head.predict([first, second])
    both = head(first + second + first[:100])
    np.testing.assert_allclose(both.scores, np.concatenate([one.scores, two.scores]), atol=1e-6)
    with pytest.raises(InputError, match="sequence 1 has 511 nucleotides, but the head of cpg_methylation predicts"):
        head.predict([first, first[1:]])


def test_batches_are_bounded_and_do_not_change_a_prediction(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    head = load_head(trained(config).path)
    sequences = sequences_of(config) * 3
    whole = head.predict(sequences)
    monkeypatch.setattr(trained_head, "_BATCH_BP", 300)
    sizes: list[int] = []
    seen = head.module.forward
    monkeypatch.setattr(head.module, "forward", lambda x, t: (sizes.append(t.numel()), seen(x, t))[1])
    parts = head.predict(sequences)
    assert max(sizes) <= 300
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)


def test_another_checkpoint_is_refused_and_a_moved_one_is_found(config: RunConfig, tiny: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(tiny, tmp_path / "moved")
    away = shutil.copytree(tiny, tmp_path / "away")
    outcome = trained(replace(config, model="dnabert3", checkpoint=str(moved)))
    shutil.rmtree(moved)
    with pytest.raises(ModelError, match=r"cannot be opened .* Pass embedder= or checkpoint="):
        load_head(outcome.path)
    assert load_head(outcome.path, checkpoint=away).predict(["ACGTACGTAC"])[0].scores.shape == (10, 9)
    weights = load_file(away / "model.safetensors")
    weights[next(iter(weights))] += 1
    save_file(weights, away / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="its weights differs"):
        load_head(outcome.path, checkpoint=away)


def test_a_model_in_memory_must_be_passed(data: Path, tmp_path: Path) -> None:
    def embed(sequences: list[str]) -> list[np.ndarray]:  # type: ignore[type-arg]  # as a user writes it
        return [
            np.eye(4, dtype=np.float32)[[("ACGT".index(one) if one in "ACGT" else 0) for one in s]] for s in sequences
        ]

    results = bend_hf.evaluate(embed, GENES, data=str(data), out=tmp_path / "out", cache=tmp_path / "cache", epochs=1)
    (outcome,) = results.outcomes
    with pytest.raises(ConfigError, match="was an object in memory; pass it as embedder="):
        load_head(outcome.path)
    assert load_head(outcome.path, embedder=embed)("ACGT").scores.shape == (4, 9)


def test_a_head_of_a_users_file_is_loaded_where_the_file_lies(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "from torch import nn\nfrom bend_hf.training.heads import HeadSpec, spread\n"
        "class Mine(nn.Module):\n"
        "    def __init__(self, *, width: int, n_outputs: int) -> None:\n"
        "        super().__init__()\n        self.one = nn.Linear(width, n_outputs)\n"
        "    def forward(self, x_BTD, token_of_BL):\n        return self.one(spread(x_BTD, token_of_BL))\n"
        "HEADS = (HeadSpec(key='mine', text='mine', build=Mine, fits=lambda task: {}),)\n"
    )
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    outcome = trained(replace(config, head="mine.py"))
    assert load_head(outcome.path)("ACGT").scores.shape == (4, 9)
    (tmp_path / "mine.py").write_text(code.replace("self.one(spread", "2 * self.one(spread"))
    with pytest.raises(RecordError, match="the code of the head 'mine' is not that of the training"):
        load_head(outcome.path)


def test_wrong_files_are_refused(config: RunConfig, tmp_path: Path) -> None:
    outcome = trained(config)
    file = outcome.path.with_suffix(".safetensors")
    with pytest.raises(SourceError, match=r"does not exist; give the \.safetensors file"):
        load_head(tmp_path / "nothing.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"w": torch.zeros(2)}, other)
    with pytest.raises(RecordError, match=r"is not a trained head .it holds weights of something else"):
        load_head(other)
    other.write_bytes(b"pickled")
    with pytest.raises(RecordError, match="is not a trained head"):
        load_head(other)
    kept = read_head(file)
    tensors = dict(kept.tensors)
    tensors.popitem()
    replace(kept, tensors=tensors).write(other)
    with pytest.raises(RecordError, match="its weights do not fit its head"):
        load_head(other)
    file.write_bytes(other.read_bytes())
    with pytest.raises(RecordError, match=r"differs from what .* states"):
        load_head(outcome.path)


def test_a_folder_must_hold_one_head_of_the_task(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no trained head"):
        load_head(tmp_path)
    runs.run(replace(config, task=(GENES, WINDOWS), epochs=1))
    with pytest.raises(SourceError, match=r"holds 2 heads .*; choose one with --task"):
        load_head(config.out)
    assert load_head(config.out, task=WINDOWS).config.task == WINDOWS
    with pytest.raises(SourceError, match="holds no head of 'gene_findng'; did you mean 'gene_finding'"):
        load_head(config.out, task="gene_findng")


def test_a_record_of_an_earlier_release_is_read_and_does_not_know(config: RunConfig) -> None:
    outcome = trained(config)
    body = json.loads(outcome.path.read_text())
    assert body["kept"]["sha256"] == read_record(outcome.path).kept["sha256"]  # type: ignore[index]
    del body["kept"], body["sha256"]
    outcome.path.write_text(json.dumps(body))
    assert read_record(outcome.path).kept is None
    with pytest.raises(SourceError, match="it is of an earlier release"):
        load_head(outcome.path)


def test_equal_heads_are_equal_files(config: RunConfig, tmp_path: Path) -> None:
    head = read_head(trained(config).path.with_suffix(".safetensors"))
    sums = [head.write(tmp_path / f"{number}.safetensors")["sha256"] for number in range(10)]
    assert len(set(sums)) == 1
    again = read_head(tmp_path / "0.safetensors")
    assert again.config == head.config
    assert all((again.tensors[name] == value).all() for name, value in head.tensors.items())
