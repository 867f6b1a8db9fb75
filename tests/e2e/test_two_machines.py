"""``accelerate launch`` with ``multi_node.yaml`` on two machines: two network namespaces, or one machine's loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from bend_hf.cli._main import main
from bend_hf.evaluation.predictions import read_predictions
from tests.slurm_cluster import free_ports
from tests.tiny import write_data

ROOT = Path(__file__).resolve().parents[2]
TASK = "cpg_methylation"


@dataclass(frozen=True)
class Machine:
    """How a command is started on a machine, and its variables."""

    start: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()


def ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0


@pytest.fixture
def machines() -> Iterator[tuple[str, tuple[Machine, Machine]]]:
    """The address of the first machine, and two of them: with networks of their own where that is permitted."""
    tag = uuid.uuid4().hex[:6]
    names, ends = [f"bend{tag}{number}" for number in range(2)], [f"be{tag}{number}" for number in range(2)]
    try:
        made = shutil.which("ip") is not None and all(ip("netns", "add", name) for name in names)
        made = made and ip(
            "link", "add", ends[0], "netns", names[0], "type", "veth", "peer", ends[1], "netns", names[1]
        )
        for number, (name, end) in enumerate(zip(names, ends, strict=True)):
            made = made and ip("-n", name, "address", "add", f"10.77.0.{number + 1}/24", "dev", end)
            made = made and ip("-n", name, "link", "set", end, "up") and ip("-n", name, "link", "set", "lo", "up")
        if made:
            one, two = (
                Machine(("ip", "netns", "exec", name), (("GLOO_SOCKET_IFNAME", end),))
                for name, end in zip(names, ends, strict=True)
            )
            yield "10.77.0.1", (one, two)
        else:
            yield "127.0.0.1", (Machine(), Machine())
    finally:
        for name in names:
            ip("netns", "delete", name)


@pytest.mark.slow
def test_two_machines_train_what_one_process_trains(
    machines: tuple[str, tuple[Machine, Machine]], tmp_path: Path
) -> None:
    address, both = machines
    data = write_data(tmp_path / "data", (TASK,), n=22)
    flags = ["--task", TASK, "--data", str(data), "--model", "onehot", "--epochs", "2", "--batch-size", "5"]
    (port,) = free_ports(1)
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file"]
    launch += [str(ROOT / "accelerate_configs" / "multi_node.yaml"), "--num_processes", "2"]
    launch += ["--main_process_ip", address, "--main_process_port", str(port)]
    trained = ["-m", "bend_hf.train", *flags, "--processes", "2", "--out", str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    running = []
    for rank, machine in enumerate(both):
        with (tmp_path / f"log{rank}").open("w") as log:
            words = [*machine.start, *launch, "--machine_rank", str(rank), *trained]
            variables = environment | dict(machine.variables)
            running.append(subprocess.Popen(words, cwd=tmp_path, env=variables, stdout=log, stderr=log))
    assert main(["train", *flags, "--out", str(tmp_path / "one")]) == 0
    try:
        ended = [one.wait(600) for one in running]
    finally:
        for one in running:
            one.kill()
    assert ended == [0, 0], "\n".join((tmp_path / f"log{rank}").read_text()[-3000:] for rank in range(2))

    (one,), (two,) = ((tmp_path / name).glob(f"{TASK}__*.json") for name in ("one", "two"))
    ours, theirs = json.loads(one.read_text()), json.loads(two.read_text())
    assert (ours["cost"]["processes"], theirs["cost"]["processes"]) == (1, 2)
    assert ours["config"]["run_key"] == theirs["config"]["run_key"]
    weights, others = (load_file(path.with_suffix(".safetensors")) for path in (one, two))
    assert weights.keys() == others.keys()
    for name, values in weights.items():
        np.testing.assert_allclose(others[name], values, atol=1e-5, err_msg=name)
    mine, other = (read_predictions(path.with_suffix(".parquet")) for path in (one, two))
    np.testing.assert_array_equal(other.item, mine.item)
    np.testing.assert_allclose(other.score, mine.score, atol=1e-5)
    score, other_score = (record["metrics"]["auroc"]["value"] for record in (ours, theirs))
    assert other_score == pytest.approx(score, abs=1e-5)
