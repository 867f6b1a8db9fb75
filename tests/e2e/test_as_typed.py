"""The commands of the README as a newcomer types them, in an empty folder and without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bend_hf.publishing.overview import Overview

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]


def typed(line: str, cwd: Path, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a command line as it stands, with this environment's programs first."""
    words = line.split()
    program = BIN / words[0]
    command = [str(program) if program.exists() else words[0], *words[1:]]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done


def python(code: str, cwd: Path) -> str:
    """Runs Python code in a folder; returns what it printed."""
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder in which the sample was built."""
    cwd = tmp_path_factory.mktemp("typed")
    typed("bend-hf build gene_finding enhancer_annotation variant_effects --data sample --out bend", cwd)
    return cwd


def test_load_dataset_as_typed(folder: Path) -> None:
    out = python(
        "from datasets import load_dataset\n"
        'print({name: len(split) for name, split in load_dataset("bend/gene_finding").items()})\n'
        'print(sorted(load_dataset("bend/enhancer_annotation", "fold_3")))\n'
        'rows = list(load_dataset("bend/variant_effects", "disease", split="test", streaming=True))\n'
        'print({row["ref"] == row["sequence"][row["variant_offset"]] for row in rows})\n',
        folder,
    ).splitlines()
    assert "'train'" in out[0]
    assert out[1] == "['test', 'train', 'validation']"
    assert out[2] == "{True}"


def test_evaluate_load_as_typed(folder: Path) -> None:
    out = python(
        "import evaluate\n"
        'print(evaluate.load("bend/mcc").compute(predictions=[0, 1, 2, 2], references=[0, 1, 2, 2])["mcc"])\n',
        folder,
    )
    assert out.strip() == "1.0"


# All variants take two minutes of processor time.
@pytest.mark.parametrize("limit", [" --limit 200", pytest.param("", marks=pytest.mark.long)])
def test_accelerate_launch_as_typed(limit: str, tmp_path: Path) -> None:
    done = typed(f"accelerate launch -m bend_hf.train --task variant_effects{limit}", tmp_path)
    assert "NOT BEND's DATA" in done.stderr
    assert "variant_effects_expression" in done.stdout
    records = sorted((tmp_path / "results").glob("*.json"))
    assert len(records) == 2
    record = json.loads(records[0].read_text())
    assert record["task"] == "variant_effects_disease"
    assert record["data"]["origin"] == "sample"
    assert record["model"]["model"] == "bend-mini"
    assert 0.4 < record["metrics"]["auroc"]["value"] < 0.6
    assert record["coverage"]["scored"] == record["coverage"]["items"] > 0
    assert (tmp_path / "results" / record["predictions"]["file"]).is_file()


def test_the_demo_runs_all_seven_tasks(tmp_path: Path) -> None:
    done = typed("bend-hf demo --epochs 1 --model onehot", tmp_path)  # bend-mini takes minutes; see benchmarks/demo.py
    out = tmp_path / "demo_results"
    records = [json.loads(path.read_text()) for path in (out / "results").glob("*.json")]
    assert {record["model"]["model"] for record in records} == {"onehot", "kmer"}
    records = [record for record in records if record["model"]["model"] == "onehot"]
    assert sorted(record["task"] for record in records) == [
        "chromatin_accessibility",
        "cpg_methylation",
        "enhancer_annotation",
        "gene_finding",
        "histone_modification",
        "variant_effects_disease",
        "variant_effects_expression",
    ]
    assert {record["data"]["origin"] for record in records} == {"sample"}
    shown = Overview.from_json((out / "side_by_side.json").read_text())
    cells = {(one.task, one.model): one.cell for one in shown.scores}
    for record in records:
        assert f"  {cells[record['task'], 'onehot']}" in done.stdout
        assert record["metrics"][record["main_metric"]]["value"] is not None
        assert record["controls"].keys() == (set() if "variant" in record["task"] else {"kmer"})
        assert record["coverage"]["scored"] == record["coverage"]["items"]
        assert (record["coverage"]["scored"] >= 30) == ("[" in cells[record["task"], "onehot"])
    assert (out / "side_by_side.png").read_bytes().startswith(b"\x89PNG")
    assert "onehot" in (out / "report" / "index.html").read_text(encoding="utf-8")
    assert "less than 1 GB of disk" in done.stdout.splitlines()[0]
    assert not (out / "cache").exists(), "caches are removed at the end"
    assert "onehot beats k-mers" in done.stdout or "onehot does not beat k-mers" in done.stdout


def test_the_demo_ends_with_a_command_that_is_found(tmp_path: Path) -> None:
    """The programs of the environment are not on the path, as after `make demo`."""
    done = subprocess.run(
        [sys.executable, "-m", "bend_hf", "demo", "--quick", "--epochs", "1", "--model", "onehot", "--keep"],
        cwd=tmp_path,
        env={**os.environ, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (tmp_path / "demo_results" / "cache").is_dir()
    assert "Left out of the quick demo: chromatin_accessibility, enhancer_annotation, " in done.stdout
    *_, activate, command, other = done.stdout.splitlines()
    assert activate.split() == ["source", str(BIN / "activate")]
    assert command.split()[0] == "bend-hf"
    assert str(BIN / "bend-hf") in other


def test_make_clean_names_the_caches_that_remain(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    left, removed = tmp_path / "home" / ".cache" / "bend_hf", tmp_path / "demo_results"
    for folder in (left, removed):
        folder.mkdir(parents=True)
    environment = {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["make", "clean"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"left: {left} (" in done.stdout
    assert "huggingface" not in done.stdout, "there is no such cache here"
    assert "bend-hf cache prune --older-than 30" in done.stdout
    assert left.is_dir()
    assert not removed.exists()


def test_an_unknown_name_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = typed("bend-hf train --task gene_findng", tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: unknown task 'gene_findng'; did you mean 'gene_finding'?"
    assert "Traceback" not in done.stderr
    done = typed("python -m bend_hf.train --task gene_finding --model onehott --data sample", tmp_path, check=False)
    assert done.returncode == 2
    assert "onehot" in done.stderr.splitlines()[-1]


def test_an_own_task_needs_no_code(tmp_path: Path) -> None:
    rows = [f"chr1\t{i * 64}\t{i * 64 + 64}\t{i % 2}\t{('train', 'valid', 'test')[i % 3]}" for i in range(60)]
    (tmp_path / "mine.bed").write_text("\n".join(["chromosome\tstart\tend\tlabel\tsplit", *rows]) + "\n")
    sequence = "".join(("AC" if i % 2 else "GT") * 32 for i in range(60))
    (tmp_path / "my.fa").write_text(f">chr1\n{sequence}\n")
    typed("bend-hf train --bed mine.bed --genome my.fa --epochs 5 --batch-size 8", tmp_path)
    (path,) = (tmp_path / "results").glob("mine__*.json")
    record = json.loads(path.read_text())
    assert record["data"]["origin"] == "files"
    assert record["metrics"]["mcc"]["value"] == 1.0


def test_help_and_lists(tmp_path: Path) -> None:
    assert "demo" in typed("bend-hf --help", tmp_path).stdout
    assert typed("bend-hf tasks", tmp_path).stdout.count("\n") == 9
    assert "| dnabert2" in typed("bend-hf models", tmp_path).stdout
    assert "NOT BEND's DATA" in typed("bend-hf status", tmp_path).stdout
    assert typed("python -m bend_hf --version", tmp_path).stdout.startswith("bend-hf ")


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'evaluate', 'numpy', 'pyarrow', 'accelerate'}"
    assert python(f"import sys, bend_hf; print(sorted({heavy} & set(sys.modules)))", tmp_path).strip() == "[]"
    out = python(
        "import sys\nfrom bend_hf.cli._main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'evaluate', 'accelerate'} & set(sys.modules)))",
        tmp_path,
    )
    assert out.strip().endswith("[]")
