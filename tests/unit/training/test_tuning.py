"""Fine-tuning: the network learns with the head, what is frozen stays, and tokens give what embeddings give."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from bend_hf.config import RunConfig, Tune
from bend_hf.data.dataset import open_task
from bend_hf.data.sources import sources_of
from bend_hf.embedders import Embedder, load_embedder
from bend_hf.embedders.token_embeddings import pad_embeddings
from bend_hf.errors import ConfigError
from bend_hf.runs.run import PreparedTask, model_run, run_task
from bend_hf.training.finetuning import TunedModel, check_tunable, open_for_tuning, token_rows
from bend_hf.training.heads.cnn import CnnHead
from tests.fake_checkpoints import make_tiny
from tests.tiny import write_data

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
KINDS = [pytest.param("full"), pytest.param("lora", marks=needs_peft)]


def tiny(key: str, folder: Path) -> Embedder:
    return load_embedder(key, checkpoint=make_tiny(key, folder / key), random_init=True, device="cpu")


@pytest.mark.parametrize("key", ["dnabert3", "dnabert2", "nt_transformer_v2_50m", "hyenadna-tiny-1k", "resnetlm"])
def test_tokens_through_the_network_give_the_embeddings(key: str, tmp_path: Path) -> None:
    embedder = tiny(key, tmp_path)
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list("ACGT"), n)) for n in (31, 9, 70)]  # 70: longer than the context
    head = CnnHead(width=embedder.width, n_outputs=3)
    model = TunedModel(open_for_tuning(embedder, "full"), head).eval()
    tokens = token_rows(embedder.tokenize(sequences), pad_id=embedder.pad_id)
    arrays = (tokens.ids_PT, tokens.mask_PT, tokens.row_of_BT, tokens.token_of_BL)
    with torch.no_grad():
        from_tokens = model(*map(torch.from_numpy, arrays))
    embedded = embedder.embed_tokens(sequences)
    starts = np.concatenate([[0], np.cumsum([len(one.embedding_bp) for one in embedded])])
    rows = pad_embeddings(
        np.concatenate([one.values for one in embedded]), starts, np.concatenate([one.embedding_bp for one in embedded])
    )
    with torch.no_grad():
        from_rows = head(torch.from_numpy(rows.x_BTD), torch.from_numpy(rows.token_of_BL))
    real = torch.from_numpy(rows.token_of_BL >= 0)
    np.testing.assert_array_equal(tokens.token_of_BL, rows.token_of_BL)
    torch.testing.assert_close(from_tokens[real], from_rows[real], atol=1e-5, rtol=0)


@pytest.mark.parametrize("tune", KINDS)
def test_the_embedder_itself_stays_as_it_is(tune: Tune, tmp_path: Path) -> None:
    embedder = tiny("dnabert3", tmp_path)
    assert embedder.model is not None
    before = {name: value.clone() for name, value in embedder.model.state_dict().items()}
    opened = open_for_tuning(embedder, tune)
    model = TunedModel(opened, CnnHead(width=opened.width, n_outputs=2))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    after = embedder.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@needs_peft
def test_adapters_learn_and_the_network_under_them_does_not(tmp_path: Path) -> None:
    embedder = tiny("dnabert3", tmp_path)
    opened = open_for_tuning(embedder, "lora")
    assert opened.model is not None
    learning = [name for name, weight in opened.model.named_parameters() if weight.requires_grad]
    assert learning
    assert all("lora_" in name for name in learning)
    assert not any(name.startswith("cls.") for name in learning)
    assert len(learning) < len(list(opened.model.parameters())) / 2


@pytest.mark.parametrize("tune", KINDS)
def test_a_tuned_run_goes_through_the_same_loop(tune: Tune, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", ["gene_finding"], n=12)
    config = RunConfig(
        task=("gene_finding",),
        data=str(data),
        out=tmp_path / "out",
        model="dnabert3",
        epochs=3,
        batch_size=4,
        tune=tune,
        cache=tmp_path / "cache",
    )
    (source, _), *_ = sources_of(config)
    task = open_task(source, config)
    prepared = PreparedTask(config=config, data=task, accelerator=Accelerator(cpu=True))
    outcome = run_task(model_run(prepared, tiny("dnabert3", tmp_path)))
    assert outcome.record.training is not None
    history = outcome.record.training["runs"][0]["history"]  # type: ignore[index,call-overload]
    assert history[-1]["loss"] < history[0]["loss"]  # type: ignore[index]
    assert outcome.record.config["learning_rate"] == {"full": 3e-5, "lora": 3e-4}[tune]
    assert not (tmp_path / "cache").exists()
    assert outcome.record.coverage["scored"] == len(task.splits(None)["test"])


@needs_peft
def test_adapters_start_from_the_runs_seed(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", ["gene_finding"], n=8)
    embedder = tiny("dnabert3", tmp_path)
    losses = {}
    for seed, before in ((3, 1), (3, 2), (4, 1)):
        torch.manual_seed(before)  # what ran earlier in the process
        config = RunConfig(
            task=("gene_finding",), data=str(data), out=tmp_path / f"{seed}{before}", model="dnabert3", epochs=2,
            batch_size=4, tune="lora", seed=seed, learning_rate=0.01,
        )  # fmt: skip
        (source, _), *_ = sources_of(config)
        prepared = PreparedTask(config=config, data=open_task(source, config), accelerator=Accelerator(cpu=True))
        outcome = run_task(model_run(prepared, embedder))
        assert outcome.record.training is not None
        losses[seed, before] = outcome.record.training["runs"][0]["history"][-1]["loss"]  # type: ignore[index,call-overload]
    assert losses[3, 1] == losses[3, 2] != losses[4, 1]


def test_one_hot_letters_and_zero_shot_tasks_have_nothing_to_tune(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="has none; use --tune head"):
        open_for_tuning(load_embedder("onehot"), "full")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install"):
        check_tunable("lora")
