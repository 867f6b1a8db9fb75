"""``bend-hf submit``: stages, scripts, and submissions to programs that only say how Slurm's would answer."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import shlex
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bend_hf.cli import COMMANDS
from bend_hf.cli._main import command_parser, main
from bend_hf.config import given_values
from bend_hf.embedders.cache.shards import ShardFiles, ShardPlan, publish_plan
from bend_hf.errors import ConfigError, SourceError
from bend_hf.runs.cluster import slurm, submission
from bend_hf.runs.cluster.config import SubmitConfig
from bend_hf.runs.cluster.plan import Stage, embed_stage, run_stages
from bend_hf.runs.cluster.submission import Submission, progress_of, read_submission
from bend_hf.runs.forecast import Forecast
from tests.fake_checkpoints import make_tiny
from tests.tiny import write_data

TASKS = ("cpg_methylation", "chromatin_accessibility")
pytest.importorskip("submitit", reason="submitit is not installed: pip install 'bend-hf[cluster]'")

# Programs of Slurm: they keep what they were called with, and answer from files next to them.
SBATCH = """n=$(($(cat "$HERE/n" 2>/dev/null || echo 6) + 1)); echo $n > "$HERE/n"
cp "$1" "$HERE/script_$n"; echo "Submitted batch job $n"
"""
PROGRAMS = {
    "sbatch": SBATCH,
    "squeue": 'cat "$HERE/queue" 2>/dev/null; exit 0',
    "srun": 'while [ "${1#-}" != "$1" ]; do case "$1" in --output|--error) shift;; esac; shift; done; "$@"',
    "scontrol": 'echo "$@" >> "$HERE/requeued"',
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the programs and of what they keep."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, body in PROGRAMS.items():
        _write(folder / name, body)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HERE", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def _write(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), TASKS, n=20)


@pytest.fixture
def submit(data: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs ``bend-hf submit`` and returns its status and what it printed."""

    def run(*words: object) -> tuple[int, str]:
        status = main(["submit", *map(str, words)])
        return status, capsys.readouterr().out

    return run


def test_a_grid_is_embeddings_then_a_head_for_each_task_and_model_then_a_report(data: Path, tmp_path: Path) -> None:
    given = {"task": TASKS, "data": str(data), "epochs": 1, "cache": tmp_path / "cache", "layer": 1}
    embed, heads, report = run_stages(given, ["bend-mini", "onehot"], SubmitConfig(nodes=2, gpus_per_node=2))
    assert [one.waits_for for one in (embed, heads, report)] == [None, "embed", "heads"]
    assert all(words[0] == "embed" and words[words.index("--model") + 1] == "bend-mini" for words in embed.commands)
    assert all("onehot" not in words for words in embed.commands), "one-hot embeddings are never cached"
    assert all("--epochs" not in words for words in embed.commands), "embeddings do not depend on the training"
    assert all(words[words.index("--layer") :][:2] == ("--layer", "1") for words in embed.commands)
    pairs = {(words[words.index("--task") + 1], words[words.index("--model") + 1]) for words in heads.commands}
    assert pairs == {(task, model) for task in TASKS for model in ("bend-mini", "onehot")}
    assert len(heads.commands) == 4
    assert report.commands == (("report", "results", "--out", "results_report"),)


def test_there_are_not_more_workers_than_shards(data: Path, tmp_path: Path) -> None:
    given = {"task": TASKS[:1], "data": str(data), "cache": tmp_path}
    stage = embed_stage(given, ["bend-mini"], SubmitConfig(nodes=64))
    assert stage is not None
    assert 1 < len(stage.commands) == stage.n_shards < 64
    assert [words[-2:] for words in stage.commands] == [
        ("--shard", f"{number}/{len(stage.commands)}") for number in range(len(stage.commands))
    ]


def test_the_cache_that_is_planned_is_that_of_the_jobs_gpus(
    submit: Callable[..., tuple[int, str]], data: Path, here: Path
) -> None:
    model = ["--model", "hyenadna-tiny-1k-hf", "--checkpoint", make_tiny("hyenadna-tiny-1k-hf", here / "model")]
    words = [TASKS[0], "--data", data, *model, "--random-init", "--cache", here / "cache"]
    assert main(["embed", *map(str, words), "--model-dtype", "bfloat16"]) == 0
    assert "every shard is in the cache" in submit("embed", *words, "--gpus-per-node", 1, "--dry-run")[1]
    assert "every shard is in the cache" in submit("embed", *words, "--sbatch", "gres=gpu:1", "--dry-run")[1]
    assert "every shard is in the cache" not in submit("embed", *words, "--dry-run")[1]
    on_cpus = ("--device", "cpu")
    assert "every shard is in the cache" not in submit("embed", *words, *on_cpus, "--gpus-per-node", 1, "--dry-run")[1]


def test_a_plan_for_gpus_says_which_dtype_it_looks_for(submit: Callable[..., tuple[int, str]], data: Path) -> None:
    words = ["embed", TASKS[0], "--data", data, "--model", "bend-mini", "--dry-run"]
    said = "planned for GPUs that compute in bfloat16; for others, such as V100 and T4, give --model-dtype float32"
    assert said in submit(*words, "--gpus-per-node", 1)[1]
    assert said not in submit(*words)[1]
    assert said not in submit(*words, "--gpus-per-node", 1, "--model-dtype", "float32")[1]


def test_hours_follow_from_the_speed_that_bench_prints(data: Path, tmp_path: Path) -> None:
    given = {"task": TASKS[:1], "data": str(data), "cache": tmp_path}
    where = SubmitConfig(nodes=3, bp_per_second=2.0, array_parallelism=2)
    stage = embed_stage(given, ["bend-mini"], where)
    assert stage is not None
    assert len(stage.commands) == stage.n_shards == 3
    n_bp = 20 * 512  # sequences of CpG methylation in write_data, times their length
    assert (stage.seconds, stage.seconds_each) == (n_bp / 2, n_bp / 6)
    # 1,707 s each; three jobs, two at once, are two rounds
    assert "about 28 min each, 1 h 25 min in all and 57 min to the end, at 2 bp per second" in stage.text()
    assert (stage.as_json()["seconds"], stage.as_json()["n_shards"]) == (n_bp / 2, 3)


def test_only_what_is_missing_takes_time(data: Path, tmp_path: Path) -> None:
    words = [TASKS[0], "--data", str(data), "--model", "bend-mini", "--cache", str(tmp_path / "cache")]
    assert main(["embed", *words, "--splits", "test"]) == 0
    given = {"task": TASKS[:1], "data": str(data), "cache": tmp_path / "cache"}
    stage = embed_stage(given, ["bend-mini"], SubmitConfig(bp_per_second=512.0))
    assert stage is not None
    assert stage.seconds == 15  # a fourth of the sequences is the test split


@pytest.mark.parametrize("flag", [{"limit": 5}, {"head": "linear"}, {"no_cache": True}, {"tune": "full"}])
def test_embeddings_that_heads_do_not_read_are_not_made(data: Path, flag: dict[str, object]) -> None:
    stages = run_stages({"task": TASKS[:1], "data": str(data), **flag}, ["bend-mini"], SubmitConfig())
    assert [one.name for one in stages] == ["heads", "report"]
    assert stages[0].waits_for is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"nodes": 0}, "--nodes is 0"),
        ({"gpus_per_node": -1}, "--gpus-per-node is -1"),
        ({"time": "soon"}, "--time is 'soon'"),
        ({"bp_per_second": 0.0}, "--bp-per-second is 0"),
        ({"sbatch": ("account",)}, "expected KEY=VALUE"),
        ({"array_parallelism": 0}, "--array-parallelism is 0"),
    ],
)
def test_wrong_resources_are_refused(flags: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SubmitConfig(**flags)  # type: ignore[arg-type]


def test_the_script_asks_for_what_the_flags_say(tmp_path: Path) -> None:
    where = SubmitConfig(
        nodes=3, gpus_per_node=1, partition="gpu", time="2:00:00", sbatch=("account=mine",), array_parallelism=2,
        setup=("module load python",),
    )  # fmt: skip
    text = slurm.script_of(Stage(name="embed", commands=(("a",), ("b",), ("c d",))), where, tmp_path, after="7")
    lines = text.splitlines()
    for wanted in ("array=0-2%2", "partition=gpu", "gpus-per-node=1", "time=2:00:00", "account=mine", "nodes=1"):
        assert f"#SBATCH --{wanted}" in lines
    assert {"#SBATCH --signal=TERM@90", "#SBATCH --requeue", "#SBATCH --dependency=afterany:7"} <= set(lines)
    assert lines.index("module load python") < next(i for i, line in enumerate(lines) if line.startswith("srun"))


@pytest.mark.parametrize(
    ("worker", "restarts", "status", "again"),
    [
        ("exit 0", 0, 0, False),
        ("exit 1", 0, 1, False),
        ("kill -9 $$", 0, 137, True),
        ("kill -TERM $$", 1, 143, True),
        ("kill -9 $$", 2, 137, False),
        ('kill -TERM "$SCRIPT"; exit 143', 0, 143, False),  # Slurm requeues or cancels the job itself
    ],
)
def test_a_worker_that_died_is_put_back_into_the_queue(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: str, restarts: int, status: int, again: bool
) -> None:
    python = _write(here / "python", f'echo "$@" > "$HERE/called"; {worker}')
    monkeypatch.setattr("bend_hf.runs.cluster.slurm.sys.executable", str(python))
    stage = Stage(name="embed", commands=(("embed", "first"), ("embed", "a file with 'quotes'")))
    script = _write(tmp_path / "script", "")
    script.write_text(slurm.script_of(stage, SubmitConfig(retries=2, setup=("export SCRIPT=$$",)), tmp_path))
    (tmp_path / "exits").mkdir()
    # The last job of an array has the number of the array, with which Slurm would requeue all of its jobs.
    job = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_JOB_ID": "7", "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1"}
    done = subprocess.run(
        ["bash", str(script)], env={**os.environ, **job, "SLURM_RESTART_COUNT": str(restarts)}, capture_output=True
    )
    assert done.returncode == status
    assert (here / "called").read_text() == "-P -m bend_hf embed a file with 'quotes'\n"
    assert slurm.exits_of(tmp_path, "7_1") == [status]
    assert (here / "requeued").exists() == again
    if again:
        assert (here / "requeued").read_text() == "requeue 7_1\n"


def _stages_of(here: Path) -> list[str]:
    """The scripts that were submitted, in order."""
    return [path.read_text() for path in sorted(here.glob("script_*"), key=lambda one: int(one.name[7:]))]


def test_stages_are_submitted_one_after_the_other_and_no_pickle_is_written(
    submit: Callable[..., tuple[int, str]], data: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle is written or read")

    for name in ("dump", "load"):
        monkeypatch.setattr(pickle, name, refuse)
    for kind in (pickle.Pickler, pickle.Unpickler):  # as classes, which modules subclass that are imported now
        monkeypatch.setattr(pickle, kind.__name__, type(kind.__name__, (kind,), {"__init__": refuse}))
    words = (TASKS[0], "--data", data, "--model", "bend-mini", "--cache", tmp_path / "cache", "--jobs", "jobs")
    status, shown = submit("run", *words, "--nodes", 2)
    assert status == 0
    scripts = _stages_of(here)
    after = [line for text in scripts for line in text.splitlines() if "dependency" in line]
    assert after == ["#SBATCH --dependency=afterany:7", "#SBATCH --dependency=afterany:8"]
    assert "embed: job 7_[0-1]" in shown
    assert "see them with: bend-hf submit --status" in shown
    assert not list(tmp_path.rglob("*.pkl"))
    one = read_submission(tmp_path / "jobs")
    assert one.jobs == {"embed": ["7_0", "7_1"], "heads": ["8_0"], "report": ["9_0"]}
    assert main(["submit", "run", *map(str, words)]) == 2, "a folder holds one submission"


def test_a_submission_that_was_interrupted_goes_on_with_the_stages_without_jobs(
    data: Path, here: Path, tmp_path: Path
) -> None:
    words = ["run", TASKS[0], "--data", str(data), "--model", "bend-mini", "--cache", "cache", "--jobs", "jobs"]
    sbatch = (here / "sbatch").read_text()
    _write(here / "sbatch", f'[ "$(cat "$HERE/n" 2>/dev/null)" = 7 ] && exit 1\n{SBATCH}')
    assert main(["submit", *words]) == 2, "sbatch refuses the stage heads"
    assert read_submission(tmp_path / "jobs").jobs == {"embed": ["7_0"]}
    (here / "sbatch").write_text(sbatch)
    assert main(["submit", *words, "--epochs", "1"]) == 2, "another command"
    assert main(["submit", *words]) == 0
    assert read_submission(tmp_path / "jobs").jobs == {"embed": ["7_0"], "heads": ["8_0"], "report": ["9_0"]}
    assert "--dependency=afterany:7" in (here / "script_8").read_text()
    assert main(["submit", *words]) == 2, "nothing is left to submit"


def test_a_dry_run_submits_and_writes_nothing(
    submit: Callable[..., tuple[int, str]], data: Path, here: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    status, shown = submit("run", TASKS[0], "--data", data, "--cache", tmp_path / "c", "--nodes", 2, "--dry-run")
    assert status == 0
    for wanted in ("embed: 2 jobs", "shards", "GB", "in all, at the speed of this machine", "#SBATCH --array=0-1%2"):
        assert wanted in shown
    assert "without the training of heads" in shown
    assert "heads: 1 job, after embed" in shown
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_says_that_the_time_of_a_job_is_too_short(
    submit: Callable[..., tuple[int, str]], data: Path, tmp_path: Path
) -> None:
    words = (TASKS[0], "--data", data, "--cache", tmp_path / "c", "--nodes", 2, "--time", 30, "--dry-run")
    assert (
        "embed: each job takes about 1 h 25 min, but --time is 30;" in submit("embed", *words, "--bp-per-second", 1)[1]
    )
    assert "each job takes" not in submit("embed", *words, "--bp-per-second", 10_000)[1]


VARIANTS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\nchr1\t101\t.\t{ref}\t{alt}\t.\tPASS\tlabel=1\n"


def _variants(folder: Path, data: Path) -> tuple[str, str]:
    """A VCF and its genome."""
    genome = data / "genomes" / "genome.fa"
    ref = genome.read_text().split(">")[1].partition("\n")[2].replace("\n", "")[100]
    (folder / "my variants.vcf").write_text(VARIANTS.format(ref=ref, alt="C" if ref == "A" else "A"))
    return str(folder / "my variants.vcf"), str(genome)


@pytest.mark.parametrize("name", ["embed", "run", "variants", "report"])
def test_a_job_gets_the_command_that_was_typed(
    name: str, submit: Callable[..., tuple[int, str]], data: Path, here: Path, tmp_path: Path
) -> None:
    file, genome = _variants(tmp_path, data)
    common = ["--data", str(data), "--model", "bend-mini", "--cache", str(tmp_path / "my cache")]
    typed = {
        "embed": ["embed", "--task", TASKS[0], *common, "--splits", "train", "test", "--cache-dtype", "float32"],
        "run": ["run", "--task", TASKS[0], *common, "--epochs", "3", "--seeds", "0", "1", "--out", "my results"],
        "variants": ["variants", file, "--genome", genome, "--model", "bend-mini", "--layer", "1", "--out", "v"],
        "report": ["report", "results", "more", "--out", "r", "--with", "published", "--no-plots", "--no-paired"],
    }[name]
    assert submit(*typed, "--jobs", "jobs")[0] == 0
    (script,) = (one for one in _stages_of(here) if f" -m bend_hf {name} " in one)
    line = next(line for line in script.splitlines() if " set -- " in line)
    words = shlex.split(line.partition(" set -- ")[2].removesuffix(";;"))
    assert words[1:4] == ["-P", "-m", "bend_hf"]
    given, parsed = (dict(vars(command_parser().parse_args(one))) for one in (typed, words[4:]))
    if name == "embed":
        assert parsed.pop("shard") == "0/1"
    assert parsed == given


def test_variants_and_a_report_are_one_job_each(submit: Callable[..., tuple[int, str]], data: Path, here: Path) -> None:
    file, genome = _variants(Path(), data)
    variants = ("variants", file, "--genome", genome, "--model", "bend-mini")
    status, shown = submit(*variants, "--dry-run", "--bp-per-second", 1000)
    assert status == 0
    assert "variants: 1 job, " in shown
    assert "GB, about " in shown
    assert "at 1,000 bp per second" in shown
    status, shown = submit("report", "results", "--gpus-per-node", 1, "--dry-run")
    assert status == 0
    assert shown.startswith("report: 1 job\n")
    assert "gpus-per-node" not in shown, "a report needs no GPU"
    assert not list(here.glob("script_*")), "nothing was submitted"
    assert main(["submit", *variants, "--nodes", "2"]) == 2, "variants is one job"


@pytest.fixture
def submitted(submit: Callable[..., tuple[int, str]], data: Path, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    words = (TASKS[0], "--data", data, "--model", "bend-mini", "--cache", tmp_path / "cache", "--jobs", "jobs")
    assert submit("run", *words, "--nodes", 3)[0] == 0
    return submit


def _ended(folder: Path, job: str, *statuses: int) -> None:
    (folder / "exits" / job).write_text("".join(f"{status} 1 n1\n" for status in statuses))


def test_the_status_names_what_runs_what_failed_and_its_last_lines(
    submitted: Callable[..., tuple[int, str]], here: Path, tmp_path: Path
) -> None:
    jobs = tmp_path / "jobs"
    (here / "queue").write_text("7_0|RUNNING\n7_1|FAILED\n8_0|PENDING\n9_0|PENDING\n")
    _ended(jobs, "7_1", 137, 1)
    _ended(jobs, "7_2", 143, 0)
    (jobs / "logs" / "7_1_0_log.err").write_text("many\n" * 2000 + "progress 1\rprogress 2\nerror: the disk is full\n")
    status, shown = submitted("--status", "jobs")
    assert status == 1
    first, *_ = shown.splitlines()
    assert first.startswith("embed: 1 done, 1 failed, 1 running, 2 started again, 0 of ")
    assert "heads: 1 pending" in shown
    assert "failed: embed 1, job 7_1, exit status 137, 1\n" in shown
    assert "  progress 2\n  error: the disk is full\n" in shown
    assert "7_1_0_log.err" in shown


def test_the_status_counts_the_shards_of_this_submission(
    submitted: Callable[..., tuple[int, str]], data: Path, tmp_path: Path
) -> None:
    from bend_hf.embedders.cache.manage import list_entries

    words = [TASKS[0], "--data", str(data), "--model", "bend-mini", "--cache", str(tmp_path / "cache")]
    assert main(["embed", *words, "--splits", "train", "test"]) == 0
    assert main(["embed", *words, "--splits", "test", "--layer", "1"]) == 0  # another entry of the same sequences
    record = json.loads((tmp_path / "jobs" / "submission.json").read_text())
    n_shards = sum(one["n_shards"] for one in record["stages"][0]["expected"])
    times = sorted(files.record.stat().st_mtime for entry in list_entries(tmp_path / "cache") for files in entry.shards)
    assert f"2 of {n_shards} shards, " in submitted("--status", "jobs")[1]
    assert len(times) == 3


@pytest.mark.parametrize("most", [2_000, 10])
def test_the_rate_follows_from_some_of_many_shards(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "_MOST_TIMED", most)
    entry = tmp_path / "cache" / f"bend-mini-float16-{0:032x}"
    entry.mkdir(parents=True)
    starts = tuple(range(101))
    plan = ShardPlan(
        key=f"{0:032x}", parts={}, label="mine train", model="bend-mini", dtype="float16", width=4, items=100,
        nucleotides=800, shard_starts=starts, rows_per_bp=1.0,
    )  # fmt: skip
    publish_plan(entry, plan)
    created = time.time() - 1_000
    for number, files in enumerate(ShardFiles.of_entry(entry, 100)[:60]):
        files.arrow.touch()
        files.record.touch()
        os.utime(files.record, (0, created + 12 * number if number else created - 12))  # one was there before
    split = Forecast(task="mine", split="train", model="bend-mini", n_items=100, n_bp=800, n_shards=100)
    one = Submission(
        folder=tmp_path, command="", where=SubmitConfig(), cache=tmp_path / "cache", created=created,
        stages=(Stage(name="embed", commands=(("embed",),), expected=(split,)),),
    )  # fmt: skip
    progress = progress_of(one, [])
    assert progress is not None
    assert (progress.n_done, progress.n_shards) == (60, 100)
    assert progress.per_minute == pytest.approx(5.0)
    assert progress.seconds_left == pytest.approx(40 * 12)


def test_failed_workers_are_submitted_again(
    submitted: Callable[..., tuple[int, str]], here: Path, tmp_path: Path
) -> None:
    jobs = tmp_path / "jobs"
    for job, status in (("7_0", 0), ("7_1", 137), ("7_2", 1)):
        _ended(jobs, job, status)
    (here / "queue").write_text("8_0|PENDING\n9_0|PENDING\n")
    status, shown = submitted("--status", "jobs", "--resume")
    assert "submitted again or next: embed" in shown
    script = _stages_of(here)[-1]
    assert [f"--shard {number}/3" in script for number in range(3)] == [False, True, True]
    assert read_submission(jobs).jobs["embed"] == ["7_0", "10_0", "10_1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resume"], "--resume is given, but --status DIR is not given"),
        ([], "nothing to submit; name embed, run, variants or report"),
        (["report", "results", "--flavor", "h200"], "--flavor is h200, but --on is not hf-jobs"),
        (["embed", *TASKS, "--shard", "0/2"], "the jobs divide the shards"),
    ],
)
def test_flags_without_effect_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str], words: Sequence[str], said: str
) -> None:
    assert main(["submit", *words]) == 2
    assert said in capsys.readouterr().err


ROOT = Path(__file__).resolve().parents[3]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_BLOCKS = re.compile(r"^```(bash|text)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def _of_pages(language: str) -> list[str]:
    """The ``bend-hf submit`` lines in blocks of a language, in order, each once."""
    found = [
        line.removeprefix("$ ")
        for page in PAGES
        for kind, body in _BLOCKS.findall(page.read_text(encoding="utf-8"))
        for line in body.splitlines()
        if kind == language
    ]
    return list(dict.fromkeys(line for line in found if line.startswith("bend-hf submit")))


def test_the_pages_submit_watch_and_try(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = _of_pages("bash")
    assert {line.split()[2] for line in lines} >= {"run", "embed", "--status"}
    (here / "queue").write_text("7_0|RUNNING\n7_1|RUNNING\n7_2|RUNNING\n8_0|PENDING\n9_0|PENDING\n")
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, line
    shown = capsys.readouterr().out
    assert "embed: 3 running, 0 of 3 shards, time left unknown" in shown
    assert "dry run: nothing was submitted" in shown
    assert len(_stages_of(here)) == 3, "embeddings, heads and a report"
    assert set(read_submission(tmp_path / "jobs").jobs) == {"embed", "heads", "report"}


def test_the_flags_of_lines_that_need_a_cluster_or_weights_apply() -> None:
    lines = _of_pages("text")
    assert any("--on hf-jobs" in line for line in lines)
    for line in lines:
        parsed = command_parser().parse_args(shlex.split(line)[1:])
        COMMANDS.get("submit").check(parsed)
        if parsed.action is not None:
            COMMANDS.get(parsed.action).check(parsed)
            SubmitConfig(**given_values(SubmitConfig, argparse.Namespace(**{**vars(parsed), "config": None})))


def test_a_folder_without_a_submission_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no submission\.json; give the folder"):
        read_submission(tmp_path)
    (tmp_path / "submission.json").write_text("[1]")
    with pytest.raises(SourceError, match="cannot be read"):
        read_submission(tmp_path)


def test_a_machine_without_slurm_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["submit", "report", "results"]) == 2
    assert "sbatch is not on this machine" in capsys.readouterr().err
