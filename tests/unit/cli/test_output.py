"""What commands print: records with ``--json``, results and errors alone with ``-q``, details with ``-v``."""

from __future__ import annotations

import argparse
import json
import logging
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bend_hf.cli import COMMANDS, _main
from bend_hf.cli._main import main
from bend_hf.cli._output import show
from bend_hf.embedders import MODELS
from bend_hf.errors import hub_errors
from bend_hf.evaluation.record import ResultRecord, read_record
from bend_hf.files import shows_progress
from bend_hf.tasks import TASKS
from tests.tiny import write_bed, write_genome

SMALL = ["--data", "sample", "--epochs", "1", "--limit", "24", "--device", "cpu"]


def records_of(argv: list[str], capsys: pytest.CaptureFixture[str], status: int = 0) -> list[dict[str, Any]]:
    """Run a command with ``--json`` and parse every line of its stdout."""
    capsys.readouterr()
    assert main([*argv, "--json"]) == status
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def as_record(line: dict[str, Any]) -> ResultRecord:
    """The result record in a line."""
    return ResultRecord.from_json(
        {name: line[name] for name in line if name not in ("state", "path", "control", "error")}
    )


def test_lists_give_one_record_per_declaration(capsys: pytest.CaptureFixture[str]) -> None:
    assert [one["task"] for one in records_of(["tasks"], capsys)] == TASKS.names()
    models = records_of(["models"], capsys)
    assert [one["model"] for one in models if one["kind"] == "model"] == MODELS.names()
    widths = {one["model"]: one["width"] for one in models if one["kind"] == "model"}
    assert widths["onehot"] == 5
    found = records_of(["status"], capsys)
    assert {one["kind"] for one in found} == {"package", "device", "data"}
    assert sorted(task for one in found if one["kind"] == "data" for task in one["tasks"]) == TASKS.names()


def test_a_run_gives_its_record_and_nothing_else_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "cpg_methylation", "histone_modification", "--model", "onehot", "--out", str(tmp_path), *SMALL]
    lines = records_of(train, capsys)
    assert [line["task"] for line in lines] == ["cpg_methylation", "histone_modification"]
    for line in lines:
        assert as_record(line) == read_record(Path(line["path"]))
        assert line["state"] == "done"
    of_grid = records_of(
        ["run", "cpg_methylation", "--model", "onehot", "no/model", "--out", str(tmp_path), *SMALL], capsys, 1
    )
    assert [line["state"] for line in of_grid] == ["was there", "failed"]
    assert of_grid[0]["path"] == lines[0]["path"]
    assert (of_grid[1]["model"], of_grid[1]["config"]["seed"]) == ({"model": "no/model"}, 0)
    assert "no/model" in of_grid[1]["error"]
    controls = records_of(
        ["controls", "cpg_methylation", "--only", "gc", "cpg", "--out", str(tmp_path), *SMALL], capsys
    )
    assert [line["control"] for line in controls] == ["gc", "cpg"]
    files = [str(Path(line["path"]).with_suffix(".parquet")) for line in (lines[0], *controls)]
    pairs = records_of(["compare", *files], capsys)
    assert len(pairs) == 3
    assert {pair["metric"] for pair in pairs} == {"auroc"}
    for pair in pairs:
        assert math.isclose(pair["value_first"] - pair["value_second"], pair["difference"], abs_tol=1e-12)
        assert pair["p_holm"] is None or pair["p_holm"] >= pair["p"]


def test_an_audit_gives_its_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = records_of(["audit", "cpg_methylation", "--data", "sample", "--out", str(tmp_path)], capsys)
    written = json.loads(next(Path(one) for one in found.pop("written") if one.endswith(".json")).read_text())
    assert found == written


def test_variants_give_their_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letters = write_genome(tmp_path / "genome.fa")
    rows = [
        ("chr1", at, at + 1, letters["chr1"][at], "ACGTA"["ACGT".index(letters["chr1"][at]) + 1], at % 2)
        for at in range(600, 640, 3)
    ]
    write_bed(tmp_path / "v.bed", ("chromosome", "start", "end", "ref", "alt", "label"), rows)
    argv = [
        "variants",
        str(tmp_path / "v.bed"),
        "--genome",
        str(tmp_path / "genome.fa"),
        "--model",
        "onehot",
        "--no-plot",
    ]
    (found,) = records_of([*argv, "--out", str(tmp_path / "out")], capsys)
    assert found["variants"] == len(rows)
    assert found["labels"] == {"negative": 7, "positive": 7, "none": 0}
    record = read_record(Path(found["files"]["record"]))
    assert found["scores"]["score"]["auroc"]["value"] == record.metrics["auroc"]["value"]


@pytest.mark.parametrize("key", [command.key for command in COMMANDS if command.has_records])
def test_commands_with_records_say_so_in_their_help(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*{"submit": ("submit", "run")}.get(key, (key,)), "--help"])
    assert "--json" in capsys.readouterr().out


def test_a_record_is_one_line_of_ascii_without_nan(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\n\x1b[31m\u2028\u202eb"
    parsed = argparse.Namespace(json_stream=sys.stdout)
    show(parsed, "text", [{"name": name, "score": math.nan, "values": np.array([1.0, math.inf]), "path": Path("a/b")}])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isascii()
    assert json.loads(line) == {"name": name, "score": None, "values": [1.0, None], "path": "a/b"}


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bend_hf", *argv], capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_quiet_prints_results_and_errors_and_verbose_says_more(tmp_path: Path) -> None:
    train = ["train", "cpg_methylation", "--model", "onehot", "--out", str(tmp_path), *SMALL]
    quiet = run(*train, "-q")
    assert quiet.stderr == ""
    assert "cpg_methylation  auroc" in quiet.stdout
    failed = run("train", "cpg_methylation", "--data", "missing", "-q")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1
    verbose = run("train", "cpg_methylation", "--data", "missing", "-v")
    assert "Traceback" in verbose.stderr
    assert "DEBUG bend_hf" in verbose.stderr
    assert "Traceback" not in run("train", "cpg_methylation", "--data", "missing").stderr


def test_the_level_of_a_command_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(parsed: argparse.Namespace) -> int:
        seen.append((shows_progress(), logging.getLogger("bend_hf").isEnabledFor(logging.DEBUG)))
        return 0

    monkeypatch.setitem(COMMANDS.get("tasks").__dict__, "run", look)
    for argv in (["tasks"], ["tasks", "-q"], ["tasks", "-v"]):
        assert main(argv) == 0
    assert seen == [(True, False), (False, False), (True, True)]
    assert shows_progress()


def test_a_hub_that_is_not_reached_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    *_, root = hub_errors()

    def fail(parsed: argparse.Namespace) -> int:
        raise root("[Errno -2] Name or service not known\nand more")

    monkeypatch.setitem(COMMANDS.get("tasks").__dict__, "run", fail)
    assert main(["tasks"]) == 1
    assert capsys.readouterr().err == (
        "error: the Hub cannot be reached, or refuses the request (HTTPError: [Errno -2] Name or service not known); "
        "check the name and the network, and repeat the command\n"
    )


def test_a_defect_is_not_taken_for_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(parsed: argparse.Namespace) -> int:
        raise ConnectionResetError("a worker closed its pipe")

    monkeypatch.setitem(COMMANDS.get("tasks").__dict__, "run", fail)
    with pytest.raises(ConnectionResetError):
        main(["tasks"])


def test_an_error_in_a_file_of_the_user_is_shown_from_that_file_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "my_model.py"
    model.write_text("def part(s):\n    raise ValueError('no table')\n\ndef embed(sequences):\n    return part('A')\n")
    flags = ["--data", "sample", "--epochs", "1", "--out", str(tmp_path)]
    assert main(["train", "cpg_methylation", "--model", str(model), *flags]) == 1
    said = capsys.readouterr().err.partition("error: ")[2]
    first, *trace = said.splitlines()
    assert first == "my_model.py failed (ValueError: no table); correct it"
    assert [line.split(", ")[1] for line in trace if line.startswith("  File")] == ["line 5", "line 2"]


def test_what_a_library_logs_is_shown_once() -> None:
    code = (
        "import argparse, logging; from bend_hf.cli._output import output_as_asked; "
        "from bend_hf.files import start_logging; start_logging()\n"
        "with output_as_asked(argparse.Namespace()):\n"
        "    import datasets, huggingface_hub\n"
        "    for name in ('datasets', 'huggingface_hub'): logging.getLogger(f'{name}.x').warning('from %s', name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [done.stderr.count(f"from {name}") for name in ("datasets", "huggingface_hub")] == [1, 1]


def test_controls_are_shown_below_the_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["cpg_methylation", "--model", "onehot", "--out", str(tmp_path), *SMALL, "--controls"]
    for command in ("train", "run"):
        assert main([command, *flags]) == 0
        printed = capsys.readouterr().out
        (line,) = [one for one in printed.splitlines() if one.startswith("cpg_methylation, onehot, seed 0: controls: ")]
        scores = [float(score) for score in re.findall(r"\d\.\d{4}", line)]
        assert len(scores) >= 4
        assert scores == sorted(scores, reverse=True)
        assert "k-mers" in line


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "nothing to verify is named; give records of runs or a folder of them, such as results"),
        (["nowhere"], "nowhere does not exist, and is no task; give records of runs, or a folder of them"),
        (["gene_findng"], "unknown task 'gene_findng'; did you mean 'gene_finding'?"),
    ],
)
def test_verify_says_what_it_takes(names: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", *names]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_quiet_and_verbose_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["tasks", "-q", "-v"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_every_command_and_action_can_be_quiet() -> None:
    parse = _main.command_parser().parse_args
    assert parse(["cache", "list", "-q"]).quiet
    assert parse(["report", "a", "--quiet"]).quiet
    assert parse(["tasks", "--json"]).json
