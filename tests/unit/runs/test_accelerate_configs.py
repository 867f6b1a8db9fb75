"""Every launch configuration is loaded by accelerate itself, and every key of it says what it is for."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from bend_hf.errors import ConfigError
from bend_hf.files import asset_folder
from bend_hf.training import launch
from bend_hf.training.launch import missing_processes, start_accelerator

FOLDER = asset_folder("accelerate_configs")
CONFIGS = sorted(FOLDER.glob("*.yaml"))


def test_the_promised_configurations_are_there() -> None:
    assert {path.stem for path in CONFIGS} >= {"cpu", "single_gpu", "multi_gpu", "multi_node", "fsdp"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_loads_it(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert config.num_processes >= 1
    assert config.distributed_type in {"NO", "MULTI_GPU", "FSDP"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_key_is_commented_and_the_command_is_shown(path: Path) -> None:
    lines = path.read_text().splitlines()
    keys = [line for line in lines if re.match(r"\s*\w+:\s*\S", line) and not line.startswith("#")]
    assert keys
    assert not [line for line in keys if " # " not in line and "  # " not in line]
    assert f"--config_file accelerate_configs/{path.name}" in path.read_text()


def test_a_key_that_accelerate_does_not_know_raises(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((FOLDER / "cpu.yaml").read_text() + "num_proceses: 2\n")
    with pytest.raises(ValueError, match="num_proceses"):
        load_config_from_file(str(wrong))


def test_the_slurm_script_is_bash_and_starts_the_multi_node_configuration() -> None:
    script = FOLDER / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert "accelerate_configs/multi_node.yaml" in text
    known = (Path(FOLDER) / "multi_node.yaml").read_text()
    assert all(flag in known for flag in ("num_machines", "num_processes", "machine_rank", "main_process_ip"))


@pytest.fixture
def slurm(tmp_path: Path) -> Callable[..., list[list[str]]]:
    """Runs the script with programs of Slurm and launchers that only say how they were called."""
    programs = {
        "scontrol": 'printf "node7\\nnode8\\n"',
        "srun": 'shift; for rank in $(seq 0 $((SLURM_NNODES - 1))); do SLURM_NODEID=$rank "$@"; done',
        "accelerate": 'printf "%s\\n" "accelerate" "$@" -- >> "$CALLS"',
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\nset -eu\n{body}\n")
        (tmp_path / name).chmod(0o755)

    def run(*words: str, **environment: str) -> list[list[str]]:
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        slurm = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "20011", "SLURM_NNODES": "2"}
        paths = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls)}
        subprocess.run(["bash", str(FOLDER / "slurm.sh"), *words], check=True, env={**paths, **slurm, **environment})
        return [call.splitlines() for call in calls.read_text().split("--\n") if call]

    return run


@pytest.mark.parametrize(
    ("environment", "n_processes"),
    [({}, "2"), ({"SLURM_GPUS_ON_NODE": "0"}, "2"), ({"SLURM_GPUS_ON_NODE": "4"}, "8")],
    ids=["unset", "zero", "four"],
)
def test_the_slurm_script_starts_a_process_per_gpu_or_per_machine_without_gpus(
    slurm: Callable[..., list[list[str]]], environment: dict[str, str], n_processes: str
) -> None:
    calls = slurm("--task", "gene_finding", "--out", "my results", **environment)
    assert [call[:2] for call in calls] == [["accelerate", "launch"]] * 2
    for rank, call in enumerate(calls):
        flags = dict(zip(call[2:14:2], call[3:14:2], strict=True))
        assert flags == {
            "--config_file": "accelerate_configs/multi_node.yaml",
            "--num_machines": "2",
            "--num_processes": n_processes,
            "--machine_rank": str(rank),
            "--main_process_ip": "node7",
            "--main_process_port": "20011",
        }
        words = ["-m", "bend_hf.train", "--processes", n_processes, "--task", "gene_finding", "--out", "my results"]
        assert call[14:] == words


@pytest.mark.parametrize(
    ("environment", "n_processes", "said"),
    [
        ({}, 1, None),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "x"}, 2, None),
        ({"WORLD_SIZE": "1", "MASTER_ADDR": "x"}, 1, None),
        ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}, 1, "several processes were requested"),
        ({"WORLD_SIZE": "4"}, 1, r"4 processes were requested \(WORLD_SIZE\), but this run has 1"),
        ({"SLURM_STEP_NUM_TASKS": "8"}, 2, "torchrun"),
        ({"SLURM_STEP_NUM_TASKS": "many"}, 1, None),
    ],
)
def test_fewer_processes_than_promised_are_said(
    environment: dict[str, str], n_processes: int, said: str | None
) -> None:
    problem = missing_processes(environment, n_processes=n_processes)
    assert problem is None if said is None else re.search(said, str(problem))


@pytest.mark.parametrize(
    ("environment", "has_accelerator", "joined"),
    [
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "0"}, False, True),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "0"}, True, False),
        ({"WORLD_SIZE": "1", "LOCAL_RANK": "0"}, False, False),
        ({"WORLD_SIZE": "2"}, False, False),
        ({}, False, False),
    ],
)
def test_processes_that_a_configuration_for_gpus_starts_on_cpus_are_joined(
    environment: dict[str, str], has_accelerator: bool, joined: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: has_accelerator)
    assert launch._are_launched_on_cpus() == joined


def test_a_run_does_not_start_with_fewer_processes_than_it_must_have() -> None:
    with pytest.raises(ConfigError, match=r"--processes is 2, but this run has 1; .*torchrun"):
        start_accelerator(processes=2)
