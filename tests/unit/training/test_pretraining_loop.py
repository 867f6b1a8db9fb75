"""The loop's parts: configuration, families, questions, losses, the folder, and what each says of bad input."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import math
import os
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import nn

from bend_hf.data.genome import Genome
from bend_hf.embedders import load_embedder
from bend_hf.errors import BendError, ConfigError, RegistryError, TrainingError
from bend_hf.evaluation.audit.pretraining import pretraining_of_model
from bend_hf.training.pretraining.config import PretrainConfig, as_flags, parse_pretrain
from bend_hf.training.pretraining.data import open_inputs
from bend_hf.training.pretraining.families import FAMILIES
from bend_hf.training.pretraining.objectives import (
    LanguageModelObjective,
    ObjectiveBatch,
    next_targets,
    on_device,
    optimizer_of,
    training_batch,
    validation_batch,
)
from bend_hf.training.pretraining.regions import Regions
from bend_hf.training.pretraining.run import main, refuse_emulation, run
from bend_hf.training.pretraining.run_folder import Progress, RunFolder, StepLoss, write_model
from bend_hf.training.pretraining.trainer import step_settings
from bend_hf.training.pretraining.validation import Validation
from bend_hf.training.pretraining.windows import Windows
from tests.tiny import write_genome

PLACES: dict[str, Any] = {"genome": Path("genome.fa"), "out": Path("out")}
SMALL = ("hidden_size=8", "n_layers=1")


def config_of(**changes: Any) -> PretrainConfig:
    """A small training of a ConvNet, with some fields changed."""
    values = {**PLACES, "model": "convnet", "set": SMALL, "steps": 2, "window_bp": 16, "batch_windows": 4, **changes}
    return PretrainConfig(**values)


def windows_of(codes_BL: Any, repeats_BL: Any = None) -> Windows:
    """Windows of these codes."""
    codes = np.array(codes_BL, np.uint8)
    repeats = np.zeros(codes.shape, np.bool_) if repeats_BL is None else np.array(repeats_BL, np.bool_)
    zeros = np.zeros(len(codes), np.int64)
    return Windows(codes_BL=codes, repeats_BL=repeats, contig_B=zeros, starts_B=zeros, flipped_B=zeros > 0)


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    path = tmp_path / "genome.fa"
    write_genome(path)
    return path


def tiny_run(genome: Path, out: Path, **changes: Any) -> PretrainConfig:
    """A training that takes a moment."""
    places = {"genome": genome, "out": out, "held_out": ("chr2:100000-101000",), "no_tables": True}
    return config_of(**{**places, **changes})


# Configuration.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, r"--model is missing; give it"),
        ({"genome": None}, r"--genome is missing"),
        ({"out": None}, r"--out is missing"),
        ({"objective": "causal"}, r"--objective is causal, but convnet is a masked model"),
        ({"steps": 0}, r"--steps is 0; it must be 1 or more"),
        ({"window_bp": 1}, r"--window-bp is 1; it must be 2 or more"),
        ({"accumulation_steps": 0}, r"--accumulation-steps is 0; it must be 1 or more"),
        ({"mask_rate": 0.0}, r"--mask-rate is 0, so that there is nothing to predict"),
        ({"mask_rate": 1.5}, r"--mask-rate is 1.5; it must lie between 0 and 1"),
        ({"seed": -1}, r"--seed is -1; it must lie between 0 and 4294967295"),
        ({"learning_rate": 0.0}, r"--learning-rate is 0.0; it must be above 0"),
        ({"warmup_steps": 3}, r"--warmup-steps is 3, more than --steps 2"),
        ({"betas": (0.9,)}, r"--betas is \[0.9\]; expected two numbers"),
        ({"betas": (0.9, 1.0)}, r"--betas is \[0.9, 1.0\]; expected two numbers"),
        ({"set": ("hiden_size=8",)}, r"convnet has no size 'hiden_size'; did you mean 'hidden_size'\?"),
        ({"set": ("hidden_size",)}, r"--set 'hidden_size' has no value; expected name=value, such as hidden_size=128"),
        ({"set": ("hidden_size=big",)}, r"'big' is not of type int; give a value such as 128"),
        ({"set": ("hidden_size=8.5",)}, r"'8.5' is not of type int"),
        ({"set": ("n_layers=0",)}, r"--set 'n_layers=0': 0 is too small; expected 1 or more"),
        ({"set": ("hidden_size=6",)}, r"--set 'hidden_size=6': 6 is too small; expected 7 or more"),
        (
            {"model": "awdlstm", "set": (), "mixed_precision": "bf16"},
            r"is bf16, but awdlstm computes in float32 only; leave the flag out",
        ),
    ],
)
def test_a_bad_configuration_is_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(**changes)


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(RegistryError, match=r"unknown model to pretrain 'convnt'; did you mean 'convnet'\?"):
        config_of(model="convnt")


def test_flags_and_back() -> None:
    config = config_of(reverse_complement=True, betas=(0.8, 0.9), exclude=("a.bed", "chr1:1-2"), clip=0.5)
    assert parse_pretrain(as_flags(config)) == config


def test_a_flag_given_twice_adds_to_the_first() -> None:
    words = ["--model", "convnet", "--genome", "g.fa", "--out", "o"]
    config = parse_pretrain([*words, "--set", "hidden_size=16", "--set", "n_layers=3"])
    assert config.set == ("hidden_size=16", "n_layers=3")


def test_a_file_holds_what_flags_do(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('model = "bert"\ngenome = "g.fa"\nset = ["hidden_size=8"]\nsteps = 7\nmask-rate = 0.2\n')
    config = parse_pretrain(["--config", str(file), "--out", "o", "--steps", "9"])
    assert (config.model, config.set, config.steps, config.mask_rate) == ("bert", ("hidden_size=8",), 9, 0.2)


def test_the_command_parses_without_torch() -> None:
    code = (
        "import sys; from bend_hf.cli.pretrain import COMMANDS; from bend_hf.training.pretraining.config import *;"
        "parse_pretrain(['--model', 'bert', '--genome', 'g', '--out', 'o', '--set', 'hidden_size=8']);"
        "print([name for name in ('torch', 'transformers', 'accelerate') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "[]"


def test_what_is_not_given_comes_from_the_family() -> None:
    config = config_of(steps=100).resolved()
    assert (config.objective, config.learning_rate, config.warmup_steps) == ("masked", 1e-3, 10)
    assert config_of(steps=100_000).resolved().warmup_steps == 500


# Families.


@pytest.mark.parametrize("key", FAMILIES.names())
def test_sizes_are_fields_of_the_configuration(key: str) -> None:
    family = FAMILIES.get(key)
    module, name = family.configuration.split(":")
    known = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    assert set(family.resolve((), window_bp=64)) <= set(known)


@pytest.mark.parametrize("key", FAMILIES.names())
def test_tokens_are_those_of_the_tokenizer(key: str, tmp_path: Path) -> None:
    family = FAMILIES.get(key)
    assert len(set(family.token_ids)) == 6
    if family.competing is not None:
        assert set(family.token_ids[:4]) <= set(family.competing)
    family.write_tokenizer(tmp_path, 64)
    if not (tmp_path / "tokenizer.json").exists():  # the embedder has it in its code
        return
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("ACGTN")["input_ids"] == list(family.token_ids[:5])
    assert tokenizer("acgtn")["input_ids"] == list(family.token_ids[:5])
    assert tokenizer.mask_token_id == family.token_ids[5]


@pytest.mark.parametrize("key", FAMILIES.names())
def test_scores_of_picked_states_are_those_of_the_network(key: str) -> None:
    family = FAMILIES.get(key)
    network = family.build(family.resolve((), window_bp=16), 3).eval()
    ids = torch.tensor(family.token_ids)[torch.randint(0, 5, (2, 16))]
    with torch.no_grad():
        scores = family.score(network, ids, torch.tensor([3, 20]))
        torch.testing.assert_close(scores, network(ids).logits.flatten(0, 1)[[3, 20]])


def test_sizes_that_do_not_fit_each_other_are_an_error() -> None:
    family = FAMILIES.get("bert")
    sizes = family.resolve(("hidden_size=10", "num_attention_heads=4"), window_bp=16)
    with pytest.raises(ConfigError, match=r"bert cannot be built with .*; change the sizes with --set"):
        family.build(sizes, 0)


def test_the_window_decides_the_longest_input() -> None:
    assert FAMILIES.get("hyena").resolve((), window_bp=1024)["max_seq_len"] == 1026
    assert FAMILIES.get("bert").resolve((), window_bp=300)["max_position_embeddings"] == 300


# ObjectiveBatch.


def test_causal_targets_are_the_next_known_nucleotides() -> None:
    batch = next_targets(np.array([[4, 0, 4, 2], [1, 1, 3, 4]], np.uint8), np.ones((2, 4), np.float32))
    # places 0 and 2 of the first row, 4 and 5 of the second; never the first letter of a row
    assert batch.position_N.tolist() == [0, 2, 4, 5]
    assert batch.target_N.tolist() == [0, 2, 1, 3]


def test_repeats_count_less_in_training_and_alike_in_validation() -> None:
    codes, repeats = [[0, 1, 2, 3]], [[False, True, False, True]]
    config = config_of(model="hyena", set=(), repeat_weight=0.25).resolved()
    batch = training_batch(config, windows_of(codes, repeats), step=0, first_row=0)
    assert batch.weight_N.tolist() == [0.25, 1.0, 0.25]
    assert validation_batch(config, np.array(codes, np.uint8), first_row=0).weight_N.tolist() == [1.0] * 3


def test_masked_targets_are_the_chosen_nucleotides() -> None:
    codes = np.random.default_rng(0).integers(0, 5, (6, 50)).astype(np.uint8)
    batch = training_batch(config_of(mask_rate=0.4).resolved(), windows_of(codes), step=2, first_row=0)
    np.testing.assert_array_equal(batch.target_N, codes.ravel()[batch.position_N])
    assert (batch.target_N < 4).all()
    untouched = np.ones(codes.size, np.bool_)
    untouched[batch.position_N] = False
    np.testing.assert_array_equal(batch.inputs_BL.ravel()[untouched], codes.ravel()[untouched])
    assert (batch.inputs_BL.ravel()[batch.position_N] == 5).mean() == pytest.approx(0.8, abs=0.15)


def test_validation_masks_all_of_its_targets() -> None:
    codes = np.random.default_rng(0).integers(0, 4, (6, 50)).astype(np.uint8)
    batch = validation_batch(config_of().resolved(), codes, first_row=0)
    assert len(batch.position_N) > 20
    assert (batch.inputs_BL.ravel()[batch.position_N] == 5).all()


@pytest.mark.parametrize("n_parts", [1, 2, 3, 5, 9])
def test_parts_hold_together_the_targets_of_the_whole(n_parts: int) -> None:
    codes = np.random.default_rng(1).integers(0, 5, (5, 20)).astype(np.uint8)
    whole = training_batch(config_of().resolved(), windows_of(codes), step=0, first_row=0)
    parts = list(whole.parts(n_parts))
    assert len(parts) == n_parts
    shift = np.cumsum([0, *(part.inputs_BL.size for part in parts)])
    places = np.concatenate([part.position_N + at for part, at in zip(parts, shift, strict=False)])
    np.testing.assert_array_equal(places, whole.position_N)
    np.testing.assert_array_equal(np.concatenate([part.target_N for part in parts]), whole.target_N)
    np.testing.assert_array_equal(np.concatenate([part.inputs_BL for part in parts]), whole.inputs_BL)


# Losses and weights.


def hyena() -> LanguageModelObjective:
    """A small causal model; some of its vocabulary does not compete."""
    family = FAMILIES.get("hyena")
    return LanguageModelObjective(
        family, family.build(family.resolve(("d_model=8", "d_inner=8", "n_layer=1"), window_bp=9), 0)
    )


def test_the_loss_is_weighted_cross_entropy_over_what_competes() -> None:
    objective = hyena()
    batch = ObjectiveBatch(
        inputs_BL=np.array([[0, 1, 2, 4]], np.uint8),
        position_N=np.array([0, 2]),
        target_N=np.array([1, 3], np.uint8),
        weight_N=np.array([1.0, 0.5], np.float32),
    )
    with torch.no_grad():
        both = objective(*on_device(batch, torch.device("cpu")))
        logits = objective.network(torch.tensor([[7, 8, 9, 11]])).logits[0, [0, 2], 7:12].double().log_softmax(-1)
    assert both[0].item() == pytest.approx(-(logits[0, 1] + 0.5 * logits[1, 3]).item(), rel=1e-5)
    assert both[1].item() == 1.5


def test_a_further_objective_is_in_the_gradient_and_not_in_the_loss() -> None:
    family = FAMILIES.get("bend-mini")
    sizes = ("kmer=2", "table_width=4", "body_width=8", "body_layers=1", "local_width=8", "fine_width=8")
    objective = LanguageModelObjective(family, family.build(family.resolve(sizes, window_bp=16), 0))
    batch = ObjectiveBatch(
        inputs_BL=np.arange(16, dtype=np.uint8)[None] % 4,
        position_N=np.array([3, 9]),
        target_N=np.array([3, 1], np.uint8),
        weight_N=np.array([1.0, 0.5], np.float32),
    )
    arguments = on_device(batch, torch.device("cpu"))
    objective.train()(*arguments)[0].backward()
    gradient = objective.network.around.weight.grad.clone()
    _, beside_N = objective.network.learned_at(objective.token_of_code[arguments[0].long()], arguments[1])
    (wanted,) = torch.autograd.grad((beside_N * arguments[3]).sum(), [objective.network.around.weight])
    assert wanted.any()
    torch.testing.assert_close(gradient, wanted)
    torch.testing.assert_close(objective(*arguments), objective.eval()(*arguments))


def test_a_part_without_targets_has_no_loss_and_a_gradient_of_zero() -> None:
    objective = hyena()
    nothing = np.zeros(0, np.int64)
    batch = ObjectiveBatch(
        inputs_BL=np.full((2, 9), 4, np.uint8),
        position_N=nothing,
        target_N=nothing.astype(np.uint8),
        weight_N=nothing.astype(np.float32),
    )
    both = objective(*on_device(batch, torch.device("cpu")))
    both[0].backward()
    assert both.tolist() == [0.0, 0.0]
    gradients = [weight.grad for weight in objective.parameters() if weight.grad is not None]
    assert len(gradients) > 5
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("key", FAMILIES.names())
def test_only_matrices_decay(key: str) -> None:
    family = FAMILIES.get(key)
    network = family.build(family.resolve((), window_bp=16), 0)
    decaying, others = optimizer_of(network, learning_rate=1e-3, weight_decay=0.1, betas=(0.9, 0.98)).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    owner = {id(weight): module for module in network.modules() for weight in module.parameters(recurse=False)}
    assert all(isinstance(owner[id(weight)], nn.Linear | nn.Conv1d) for weight in decaying["params"])
    assert all(weight.ndim > 1 for weight in decaying["params"])
    tables = [module.weight for module in network.modules() if isinstance(module, nn.Embedding)]
    assert {id(weight) for weight in tables} <= {id(weight) for weight in others["params"]}
    learned = [weight for weight in network.parameters() if weight.requires_grad]
    assert len(decaying["params"]) + len(others["params"]) == len(learned)


# What it says meanwhile.


def test_without_a_terminal_a_line_is_logged_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr("bend_hf.training.pretraining.run_folder.time", SimpleNamespace(monotonic=lambda: now[0]))
    with (
        caplog.at_level(logging.INFO, "bend_hf.training.pretraining.run_folder"),
        Progress(n_steps=100, nucleotides=1000, shown=True) as progress,
    ):
        progress.start(20, seconds=500.0)
        for step, at, seconds in ((30, 120.0, 520.0), (40, 180.0, 570.0), (41, 181.0, 571.0)):
            now[0] = at  # ten seconds of it were a validation, which is not training
            progress.at(step, 1.5, seconds=seconds)
    # 20 steps in 70 of the 80 seconds: 60 more take 210
    assert caplog.messages == ["step 40 of 100: loss 1.5000, 286 nucleotides/s, 0:03:30 left"]


def test_other_processes_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Progress(n_steps=9, nucleotides=1, shown=False) as progress:
        progress.say("validated")
        progress.at(9, 1.0, seconds=1.0)
    assert caplog.messages == []


# The folder.


def line(step: int, loss: float = 1.25) -> StepLoss:
    return StepLoss(step=step, loss=loss, learning_rate=0.1, seconds=1.0)


def test_losses_are_rewound_to_the_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.rewind(0)
    folder.append([line(1, 1 / 3), line(2), line(3)])
    with folder.losses.open("a") as file:
        file.write("4,1.2")
    folder.rewind(2)
    rows = folder.losses.read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "2"]
    assert float(rows[1].split(",")[1]) == 1 / 3


def test_losses_that_lack_a_step_of_the_checkpoint_are_an_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.rewind(0)
    folder.append([line(1)])
    with pytest.raises(ConfigError, match=r"losses.csv holds 1 of the 2 steps of the checkpoint next to it"):
        folder.rewind(2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.5}, r"learning_rate is None there and 0.5 here"),
        ({"set": ("hidden_size=16",)}, r"set is \['hidden_size=8', 'n_layers=1'\] there and \['hidden_size=16'\] here"),
        ({"seed": 1, "steps": 3}, r"seed is 0 there and 1 here; steps is 2 there and 3 here"),
    ],
)
def test_the_folder_of_another_training_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    RunFolder(tmp_path).claim(config_of(), {"genome_sha256": "a"}).release()
    with pytest.raises(ConfigError, match=f"holds another training: {message}. Give another --out"):
        RunFolder(tmp_path).claim(config_of(**changes), {"genome_sha256": "a"}).release()


def test_another_genome_under_the_same_flags_is_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path).claim(config_of(), {"genome_sha256": "a"}).release()
    with pytest.raises(ConfigError, match="genome_sha256 is 'a' there and 'b' here"):
        RunFolder(tmp_path).claim(config_of(), {"genome_sha256": "b"}).release()


def test_what_changes_no_number_may_differ(tmp_path: Path) -> None:
    RunFolder(tmp_path).claim(config_of(), {}).release()
    other = config_of(save_every=7, threads=2, stop_after=1, keep=3, genome=Path("moved.fa"))
    RunFolder(tmp_path).claim(other, {}).release()
    assert json.loads(RunFolder(tmp_path).run.read_text())["config"]["steps"] == 2


def test_a_run_that_was_started_before_a_field_existed_resumes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(config_of(), {}).release()
    told = json.loads(folder.run.read_text())
    del told["config"]["clip"]
    folder.run.write_text(json.dumps(told))
    folder.claim(config_of(), {}).release()
    with pytest.raises(ConfigError, match=r"clip is 1.0 there and 2.0 here"):
        folder.claim(config_of(clip=2.0), {}).release()


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"holds files of something else \(thesis.tex\); give another folder"):
        RunFolder(tmp_path).claim(config_of(), {}).release()


def test_a_damaged_description_of_the_run_is_an_error(tmp_path: Path) -> None:
    RunFolder(tmp_path).claim(config_of(), {}).release()
    RunFolder(tmp_path).run.write_text("[]")
    with pytest.raises(ConfigError, match=r"run.json cannot be read .* give another --out, or delete it"):
        RunFolder(tmp_path).claim(config_of(), {}).release()


def test_files_that_a_killed_run_left_half_written_are_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(config_of(), {}).release()
    (tmp_path / ".model.part123").mkdir()
    (tmp_path / ".model.part123" / "config.json").write_text("")
    (folder.training / ".last.safetensors.part9").write_text("")
    folder.claim(config_of(), {}).release()
    assert [path.name for path in tmp_path.iterdir()] == ["training"]
    assert [path.name for path in folder.training.iterdir()] == ["run.json"]


def test_two_trainings_in_one_folder_are_refused_while_the_first_lives(tmp_path: Path) -> None:
    first = RunFolder(tmp_path).claim(config_of(), {})
    with pytest.raises(ConfigError, match=r"another process is training in --out .*; wait until it is finished"):
        RunFolder(tmp_path).claim(config_of(), {})
    first.release()
    RunFolder(tmp_path).claim(config_of(), {}).release()


def test_the_folder_of_a_killed_training_is_taken_over_at_once(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from bend_hf.lease import take;"
        "take(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    (tmp_path / "training").mkdir()
    lock = tmp_path / "training" / "run.lock"
    done = subprocess.run([sys.executable, "-c", code, str(lock)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert lock.exists()
    RunFolder(tmp_path).claim(config_of(), {}).release()
    assert not lock.exists()


def test_a_model_is_replaced_whole(tmp_path: Path) -> None:
    config = config_of()
    family = config.family
    networks = [family.build(family.resolve(config.set, window_bp=16), seed) for seed in (0, 1)]
    for network in networks:
        write_model(tmp_path / "model", network, family, config)
    read = load_file(tmp_path / "model" / "model.safetensors")
    assert torch.equal(read["cls.decoder.0.weight"], networks[1].state_dict()["cls.decoder.0.weight"])
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


# Runs.


def rates(config: PretrainConfig) -> list[float]:
    """The learning rate of each step."""
    settings = step_settings(replace(config, learning_rate=1.0))
    return [settings.rate(step) for step in range(config.steps)]


def test_the_rate_rises_then_falls_to_its_smallest_fraction() -> None:
    found = rates(config_of(steps=6, warmup_steps=2, min_learning_rate_share=0.2))
    cosine = [0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * done / 4)) for done in range(4)]
    assert found == pytest.approx([0.5, 1.0, *cosine])
    assert rates(config_of(steps=3, warmup_steps=1, schedule="constant")) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window_bp": 200_000}, r"no window of 200000 bp can be drawn: the longest of \d+ regions has"),
        ({"held_out": ("chr2:100-110",)}, r"window of 16 bp"),
        ({"held_out": ("chr1", "chr2")}, r"nothing is left to train on"),
        ({"held_out": ("chr3",)}, r"no contig 'chr3'"),
        ({"exclude": ("nowhere.bed",)}, r"'nowhere.bed' is neither a BED file nor a region"),
        ({"accumulation_steps": 5}, r"--batch-windows is 4, but 1 processes share .* 5 parts each; give at least 5"),
    ],
)
def test_bad_input_is_an_error_before_training(
    genome: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BendError, match=message):
        run(tiny_run(genome, tmp_path / "out", **changes))
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_gpu_without_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    refuse_emulation(torch.device("cpu"))
    with pytest.raises(
        ConfigError, match=r"--mixed-precision is bf16, but the GPU cuda:1 does not compute in bfloat16"
    ):
        refuse_emulation(torch.device("cuda:1"))


def test_a_precision_that_accelerate_refuses_is_an_error(
    genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AcceleratorState, "_shared_state", {})
    config = tiny_run(genome, tmp_path / "out")
    run(config)
    with pytest.raises(ConfigError, match=r"--mixed-precision bf16 does not work here: .*already been initialized"):
        run(replace(config, mixed_precision="bf16"))


def test_a_loss_that_is_nan_stops_the_training(genome: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss became nan in step \d+; lower --learning-rate"):
        run(tiny_run(genome, tmp_path / "out", learning_rate=1e30, clip=0.0, steps=20, warmup_steps=0))
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_bfloat16_learns_about_the_same(genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_run(genome, tmp_path / "float32", steps=5)
    single = run(config)
    # the precision belongs to a process: what another run chose is forgotten, and this choice after it
    monkeypatch.setattr(AcceleratorState, "_shared_state", {})
    half = run(replace(config, out=tmp_path / "bf16", mixed_precision="bf16"))
    ours, theirs = (found.validations[-1].perplexity for found in (single, half))
    assert theirs == pytest.approx(ours, rel=0.02)
    assert theirs != ours


def test_the_regions_that_were_trained_on_are_next_to_the_model(genome: Path, tmp_path: Path) -> None:
    config = tiny_run(genome, tmp_path / "out").resolved()
    run(config)
    found = pretraining_of_model(str(tmp_path / "out"))
    assert found == tmp_path / "out" / "pretraining.bed"
    trained = open_inputs(config).split
    assert found is not None
    assert Regions.of_bed(found, Genome(genome)).places() == trained.train.places()
    assert not len(Regions.of_bed(found, Genome(genome)).within(trained.held_out))


def test_the_best_model_is_kept_next_to_the_last(genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(*_: object, step: int, seconds: float) -> Validation:
        perplexity = {1: 3.9, 2: 3.5, 3: 3.7, 4: 3.5}[step]
        return Validation(step=step, perplexity=perplexity, nats=1.0, n_letters=1, seconds=seconds)

    monkeypatch.setattr("bend_hf.training.pretraining.trainer.validate", judged)
    config = tiny_run(genome, tmp_path / "out", steps=4, validate_every=1, save_every=3, learning_rate=0.01)
    best: Any = run(config).facts["best"]
    assert (best["step"], best["perplexity"]) == (2, 3.5)
    assert not run(replace(config, out=tmp_path / "short", stop_after=2)).finished
    at_best, at_two, last = (load_file(tmp_path / name / "model.safetensors") for name in ("out/best", "short", "out"))
    assert all(torch.equal(value, at_two[name]) for name, value in at_best.items())
    regions = (tmp_path / "out" / "pretraining.bed").read_text()
    assert (tmp_path / "out" / "best" / "pretraining.bed").read_text() == regions
    assert not all(torch.equal(value, last[name]) for name, value in at_best.items())


def test_what_is_computed_when_training_is_over_is_so_for_the_last_and_the_best_model(
    genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(*_: object, step: int, seconds: float) -> Validation:
        return Validation(step=step, perplexity=3.0 + step, nats=1.0, n_letters=1, seconds=seconds)

    monkeypatch.setattr("bend_hf.training.pretraining.trainer.validate", judged)
    sizes = ("kmer=2", "table_width=4", "body_width=8", "body_layers=1", "local_width=8", "fine_width=8")
    changes = {"model": "bend-mini", "set": sizes, "steps": 40, "validate_every": 20, "batch_windows": 8}
    run(tiny_run(genome, tmp_path / "out", **changes))
    for folder in (tmp_path / "out", tmp_path / "out" / "best"):
        embedder = load_embedder("bend-mini", checkpoint=folder, device="cpu")
        rows = np.concatenate(embedder.embed(["ACGGTTCATTGACCAG" * 40, "TTGACATTGCA" * 50], upsample_embeddings=True))
        assert not torch.equal(embedder.model.model.even_fine.map, torch.eye(8))
        assert 0.3 < rows.var(axis=0).mean() < 3.0


def test_a_bad_input_is_an_error_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--model", "convnet", "--genome", str(tmp_path / "no.fa"), "--out", str(tmp_path / "out")])
    assert status == 1
    assert "no.fa: the FASTA file cannot be read" in capsys.readouterr().err


def test_every_field_has_a_help_text() -> None:
    assert all(field.metadata["flag"].help for field in fields(PretrainConfig))
