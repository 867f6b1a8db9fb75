"""Language models that are trained here are loaded by the embedders, survive kills, and agree over processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bend_hf.config import ModelConfig
from bend_hf.embedders import load_embedder
from bend_hf.embedders.from_config import open_model
from bend_hf.training.pretraining.config import PretrainConfig
from bend_hf.training.pretraining.data import open_inputs
from bend_hf.training.pretraining.families import FAMILIES
from bend_hf.training.pretraining.objectives import validation_batch
from bend_hf.training.pretraining.run import main, run
from tests.tiny import write_genome

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "awdlstm": ("input_size=8", "hidden_size=12", "num_hidden_layers=2"),
    "bert": ("hidden_size=16", "num_hidden_layers=1", "num_attention_heads=2", "intermediate_size=16"),
    "convnet": ("hidden_size=8", "n_layers=2"),
    "hyena": ("d_model=8", "d_inner=16", "n_layer=1", "filter_order=8"),
    "bend-mini": ("kmer=3", "table_width=8", "body_width=8", "body_layers=2", "local_width=8", "fine_width=8"),
}
LETTERS = np.frombuffer(b"ACGTN", np.uint8)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training, and where its lives end."""

    flags: tuple[str, ...]
    kills: tuple[tuple[str, int], ...]


DROPOUT = ("hidden_dropout_prob=0.1", "attention_probs_dropout_prob=0.1")
LIVES = {
    "masked": Case(
        flags=("--model", "convnet", "--set", *TINY["convnet"], "--reverse-complement", "--repeat-weight", "0.1"),
        kills=(("rename", 1), ("step", 6), ("rename", 4), ("validation", 1), ("losses", 1), ("rename", 9), ("step", 5)),
    ),
    "causal": Case(
        flags=("--model", "awdlstm", "--set", *TINY["awdlstm"], "--accumulation-steps", "2"),
        kills=(("step", 9), ("losses", 2), ("summary", 1)),
    ),
    "dropout": Case(
        flags=("--model", "bert", "--set", *TINY["bert"], *DROPOUT, "--learning-rate", "0.01", "--keep", "2"),
        kills=(("step", 3), ("step", 8), ("rename", 12)),
    ),
}


def flags(genome: Path, out: Path, *more: str) -> list[str]:
    """A training of 13 steps on a small genome, with a checkpoint every fourth and a validation every fifth."""
    places = ["--genome", str(genome), "--out", str(out), "--held-out", "chr2:100000-110000", "--no-tables"]
    sizes = ["--steps", "13", "--batch-windows", "6", "--window-bp", "24", "--validation-windows", "40"]
    return [*places, *sizes, "--save-every", "4", "--validate-every", "5", "--threads", "1", *more]


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random genome with N and lower case in it."""
    path = tmp_path_factory.mktemp("pretrain") / "genome.fa"
    contigs = write_genome(path)
    with path.open("w") as file:
        for name, sequence in contigs.items():
            file.write(f">{name}\n{sequence[:5000].lower()}{'N' * 50}{sequence[5050:20000]}N{sequence[20001:]}\n")
    return path


@pytest.fixture(scope="module", params=sorted(TINY))
def trained(request: pytest.FixtureRequest, genome: Path, tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
    """A training of each family, come to its end."""
    out = tmp_path_factory.mktemp("trained") / request.param
    config = PretrainConfig(
        model=request.param,
        set=TINY[request.param],
        genome=genome,
        out=out,
        held_out=("chr2:100000-110000",),
        steps=4,
        batch_windows=4,
        window_bp=24,
        validation_windows=30,
        no_tables=True,
    )
    run(config)
    return config


def test_every_family_is_tried_here() -> None:
    assert sorted(TINY) == FAMILIES.names()


def test_the_embedder_scores_held_out_letters_as_the_training_did(trained: PretrainConfig) -> None:
    """The perplexity of the last validation, out of the scores of the embedder that loads the folder."""
    family, out = trained.family, trained.out
    assert out is not None
    embedder = load_embedder(family.opens_with or str(out), checkpoint=out, device="cpu")
    held_out_BL = open_inputs(trained).held_out_BL
    texts = ["".join(map(chr, LETTERS[row])) for row in held_out_BL]
    if family.objective == "causal":
        loss = np.array(embedder.loss(texts))
        loss = loss[held_out_BL < 4]
        nats = loss[~np.isnan(loss)].mean()
    else:
        batch = validation_batch(trained.resolved(), held_out_BL, first_row=0)
        ids = torch.tensor(family.token_ids)[torch.from_numpy(batch.inputs_BL).long()]
        with torch.no_grad():
            scores = embedder._logits(ids, None).flatten(0, 1)[batch.position_N].log_softmax(-1).numpy()
        nats = -scores[np.arange(len(scores)), np.array(family.token_ids)[batch.target_N]].mean()
    summary = json.loads((out / "training" / "summary.json").read_text())
    assert np.exp(nats) == pytest.approx(summary["perplexity"], rel=1e-5)


def test_the_folder_is_opened_by_the_flags_that_the_training_names(trained: PretrainConfig) -> None:
    assert trained.out is not None
    words = trained.family.command(trained.out).split()
    config = ModelConfig(
        task=("gene_finding",),
        model=words[words.index("--model") + 1],
        checkpoint=words[words.index("--checkpoint") + 1] if "--checkpoint" in words else None,
    )
    rows = open_model(config).embed(["ACGTNacgt" * 9], upsample_embeddings=True)[0]
    assert len(rows) == 81
    assert np.isfinite(rows).all()


def test_the_untrained_twin_has_the_first_weights(trained: PretrainConfig) -> None:
    family, out = trained.family, trained.out
    assert out is not None
    twin = load_embedder(family.opens_with or str(out), checkpoint=out, random_init=True, seed=0).model
    assert twin is not None
    first = family.build(family.resolve(trained.set, window_bp=trained.window_bp), 0).state_dict()
    assert all(torch.equal(value, first[name]) for name, value in twin.state_dict().items() if name in first)


def test_the_same_command_again_finds_it_trained(trained: PretrainConfig) -> None:
    assert trained.out is not None
    before = {path: path.stat().st_mtime_ns for path in trained.out.rglob("*")}
    assert run(trained).finished
    assert {path: path.stat().st_mtime_ns for path in trained.out.rglob("*")} == before


# Kills.


def numbers(out: Path) -> dict[str, Any]:
    """All that a training gave but the time that it took: the weights, and each step's loss to the bit."""
    losses = [line.split(",")[:3] for line in (out / "training" / "losses.csv").read_text().splitlines()]
    curve = [line.split(",")[:3] for line in (out / "training" / "validation.csv").read_text().splitlines()]
    models = sorted(path.relative_to(out) for path in out.rglob("model.safetensors"))
    weights = {
        str(path): {name: value.numpy().tobytes() for name, value in load_file(out / path).items()} for path in models
    }
    return {"losses": losses, "curve": curve, "weights": weights}


@pytest.fixture(scope="module")
def lives(genome: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every case, ``<case>-whole`` and ``<case>-killed``."""
    folder = tmp_path_factory.mktemp("lives")
    trainings = [
        {"kills": kills, "argv": [*flags(genome, folder / f"{name}-{what}"), *case.flags]}
        for name, case in LIVES.items()
        for what, kills in (("whole", ()), ("killed", case.kills))
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.pretrain_lives", json.dumps(trainings)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", LIVES)
def test_killed_and_resumed_is_equal_to_the_bit(name: str, lives: Path) -> None:
    whole, killed = numbers(lives / f"{name}-whole"), numbers(lives / f"{name}-killed")
    assert len(whole["losses"]) == 1 + 13
    assert killed == whole


@pytest.mark.parametrize("name", LIVES)
def test_a_finished_training_leaves_models_and_records_alone(name: str, lives: Path) -> None:
    out = lives / f"{name}-killed"
    left = {path.name for path in out.rglob("*") if path.is_file()}
    assert {"model.safetensors", "config.json", "summary.json", "losses.csv"} <= left
    assert not {file for file in left if "part" in file or file.startswith(("last", "best-"))}
    assert json.loads((out / "training" / "summary.json").read_text())["resumed_at"] is not None


def test_only_the_newest_checkpoints_are_kept(lives: Path) -> None:
    kept = sorted(path.name for path in (lives / "dropout-killed").glob("step-*"))
    assert kept == ["step-12", "step-13"]


@pytest.mark.parametrize("name", ["masked", "dropout"])
def test_stopping_early_and_going_on_is_one_training(name: str, genome: Path, lives: Path, tmp_path: Path) -> None:
    """In this process, whose random numbers stand elsewhere than in a fresh one: all comes from the seed."""
    argv = [*flags(genome, tmp_path / "parts"), *LIVES[name].flags]
    assert main([*argv, "--stop-after", "7"]) == 0
    whole = numbers(lives / f"{name}-whole")
    assert numbers(tmp_path / "parts")["losses"] == whole["losses"][:8]
    assert main(argv) == 0
    parts = numbers(tmp_path / "parts")
    assert (parts["losses"], parts["curve"]) == (whole["losses"], whole["curve"])
    assert parts["weights"]["model.safetensors"] == whole["weights"]["model.safetensors"]


# One batch, however it is shared.


@pytest.mark.parametrize("model", ["convnet", pytest.param("awdlstm", marks=pytest.mark.long)])
def test_two_processes_and_accumulation_learn_what_one_process_learns(model: str, genome: Path, tmp_path: Path) -> None:
    own = ["--model", model, "--set", *TINY[model]]
    assert main([*flags(genome, tmp_path / "one"), *own]) == 0
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "bend_hf.pretrain"]
    done = subprocess.run(
        [sys.executable, *launcher, *flags(genome, tmp_path / "two"), *own, "--accumulation-steps", "2"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=6000,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    summaries = [json.loads((tmp_path / n / "training" / "summary.json").read_text()) for n in ("one", "two")]
    assert [summary["machine"]["processes"] for summary in summaries] == [1, 2]
    assert summaries[1]["perplexity"] == pytest.approx(summaries[0]["perplexity"], rel=1e-4)
    one, two = (np.loadtxt(tmp_path / n / "training" / "losses.csv", delimiter=",", skiprows=1) for n in ("one", "two"))
    np.testing.assert_allclose(two[:, 1], one[:, 1], rtol=1e-4)
    ours, theirs = (load_file(tmp_path / n / "model.safetensors") for n in ("one", "two"))
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=1e-4)


# What it learns, and what it says.


def test_it_learns_a_genome_of_repeats(tmp_path: Path) -> None:
    """A letter of a sequence with a period is known from its neighbours: the perplexity goes towards 1."""
    genome = tmp_path / "genome.fa"
    genome.write_text(">chr1\n" + "ACGGT" * 4000 + "\n")
    places = {"genome": genome, "held_out": ("chr1:0-1000",), "out": tmp_path / "out"}
    summary = run(
        PretrainConfig(
            model="convnet",
            set=("hidden_size=16", "n_layers=1"),
            steps=150,
            batch_windows=8,
            window_bp=40,
            learning_rate=0.01,
            min_learning_rate_share=0.0,
            **places,  # type: ignore[arg-type]
        )
    )
    assert summary.validations[-1].perplexity < 1.1
    assert [row.perplexity < 1.05 for row in summary.tables] == [True] * 5
    facts: Any = summary.facts
    assert facts["nucleotides"] == 150 * 8 * 40
    assert facts["config"]["seed"] == 0
    assert set(facts["machine"]) >= {"cpu", "cores", "device", "threads"}
    assert facts["data"]["train_bp"] == 19_000
    assert 0 <= facts["input_wait_share"] < 1


def test_the_command_prints_the_tables_beside_the_model(
    genome: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [word for word in flags(genome, tmp_path / "out") if word != "--no-tables"]
    assert main([*argv, "--model", "hyena", "--set", *TINY["hyena"], "--steps", "2"]) == 0
    said = capsys.readouterr().out
    assert "3 letters before (table)" in said
    assert "hyena, step 2 " in said
    assert f"use it with --model hyenadna-tiny-1k-hf --checkpoint {tmp_path / 'out'}" in said
