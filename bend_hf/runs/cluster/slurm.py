"""Submit stages to Slurm: scripts and submission are submitit's, the workers are commands of ``bend-hf``.

submitit hands functions to its workers as pickles, which run as code where they are loaded. Here, a job is a command in
its script, so that no pickle is written or read, a worker logs as it goes, and SIGTERM reaches it. Only submitit's
methods for commands are used, which its plug-ins build on.

A job whose worker died from a signal (it was killed, ran out of memory, or met the limit of time) is put back into the
queue by its own script, up to ``--retries`` times; jobs of nodes that failed and preempted jobs by Slurm. Slurm tells
the script itself to stop if it requeues, preempts or cancels a job; the script then notes how its worker ended, and
leaves the queue to Slurm, so that a cancelled job stays cancelled.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bend_hf.errors import ConfigError, SourceError
from bend_hf.runs.cluster.config import SubmitConfig
from bend_hf.runs.cluster.plan import Stage

# Seconds between SIGTERM and the end of a job's time: a record batch is finished, and leases are freed.
WARNING_S: Final = 90
LOGS: Final = "logs"  # below the folder of a submission, as is the next
EXITS: Final = "exits"
_MISSING: Final = "submitit is not installed; install it with: pip install 'bend-hf[cluster]'"


def script_of(stage: Stage, where: SubmitConfig, folder: Path, after: str | None = None) -> str:
    """Return the script of a stage.

    Args:
        stage: The stage.
        where: The resources.
        folder: The folder of the submission.
        after: The job that must have ended before.

    Raises:
        ConfigError: submitit is missing.
    """
    executor = _executor(stage, where, folder, after)
    return str(executor._make_submission_file_text('"$@"', ""))


def submit_stage(stage: Stage, where: SubmitConfig, folder: Path, after: str | None = None) -> list[str]:
    """Submit a stage and return the names of its jobs, as ``ARRAY_INDEX``.

    Raises:
        ConfigError: submitit or Slurm is missing, or Slurm refuses the job.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "sbatch is not on this machine; run the command where Slurm's commands are, or see the scripts with "
            "--dry-run"
        )
    executor = _executor(stage, where, folder, after)
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    for name in (LOGS, EXITS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    try:
        job = executor._submit_command('"$@"').job_id
    except (FailedJobError, FailedSubmissionError) as error:
        said = " ".join(str(error).split()) or "no reason given"
        raise ConfigError(f"sbatch refuses the stage {stage.name} ({said}); see its script with --dry-run") from error
    return [f"{job}_{index}" for index in range(len(stage.commands))]


def _executor(stage: Stage, where: SubmitConfig, folder: Path, after: str | None) -> Any:  # noqa: ANN401 submitit's
    """Make submitit's executor for a stage. It is not started on Slurm, so that scripts are shown without it."""
    try:
        import submitit
    except ImportError as error:
        raise ConfigError(_MISSING) from error

    class Commands(submitit.SlurmExecutor):  # type: ignore[misc]  # submitit is not read by the type checker
        """An executor that can be made where Slurm is not installed."""

        @classmethod
        def affinity(cls) -> int:
            """Say that scripts can be made anywhere."""
            return 2

    options: dict[str, object] = {"time": where.time, "signal": f"TERM@{WARNING_S}", "requeue": True}
    executor = Commands(folder=folder / LOGS)
    executor.update_parameters(
        job_name=f"bend-hf-{stage.name}",
        nodes=1,
        ntasks_per_node=1,
        setup=["trap 'told=yes' TERM", *where.setup, *_choose(stage)],
        teardown=_ending(where, folder),
        additional_parameters={**options, **where.sbatch_options},
        array_parallelism=where.array_parallelism or len(stage.commands),
    )
    if where.partition is not None:
        executor.update_parameters(partition=where.partition)
    if where.gpus_per_node and stage.has_gpu:
        executor.update_parameters(gpus_per_node=1)  # of an array; each GPU has a worker
    if after is not None:
        executor.update_parameters(dependency=f"afterany:{after}")
    executor.parameters["map_count"] = len(stage.commands)  # as submitit does for arrays
    return executor


def _choose(stage: Stage) -> list[str]:
    """Return the lines that make each job of an array choose its command."""
    python = [sys.executable, "-P", "-m", "bend_hf"]  # nothing is imported from the folder of the job
    lines = ['case "$SLURM_ARRAY_TASK_ID" in']
    lines += [f"  {number}) set -- {shlex.join([*python, *words])} ;;" for number, words in enumerate(stage.commands)]
    return [*lines, "esac"]


def _ending(where: SubmitConfig, folder: Path) -> list[str]:
    """Return the lines that note how a worker ended, and put the job back into the queue if the worker died.

    The shell's status of a process that died from a signal is above 128. Statuses 1 and 2 are errors, which another
    attempt would repeat. The job is named by its array and its index: ``SLURM_JOB_ID`` of the last job of an array is
    the number of the whole array, and would requeue the jobs that work.
    """
    job = '"$SLURM_ARRAY_JOB_ID"_"$SLURM_ARRAY_TASK_ID"'
    file = f"{shlex.quote(str(folder.absolute() / EXITS))}/{job}"
    restarts = '"${SLURM_RESTART_COUNT:-0}"'
    died = f'[ "$status" -gt 128 ] && [ -z "$told" ] && [ {restarts} -lt {where.retries} ]'
    return [
        "status=$?",
        f'echo "$status $(date +%s) $SLURMD_NODENAME" >> {file}',
        f"if {died}; then scontrol requeue {job}; fi",
        'exit "$status"',
    ]


def states_of(jobs: Sequence[str]) -> dict[str, str]:
    """Return the states of the jobs that Slurm still knows, in its words, by ``ARRAY_INDEX``.

    Args:
        jobs: Names of jobs.

    Raises:
        SourceError: Slurm does not answer.
    """
    arrays = sorted({job.partition("_")[0] for job in jobs})
    if not arrays:
        return {}
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%F_%K|%T", f"--jobs={','.join(arrays)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603  numbers of jobs
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"squeue does not answer ({error}); run the command where Slurm's commands are") from error
    if done.returncode and "Invalid job id" not in done.stderr:  # Slurm forgets jobs that ended long ago
        raise SourceError(f"squeue fails ({' '.join(done.stderr.split())}); is Slurm running?")
    pairs = [line.partition("|") for line in done.stdout.split()]
    return {name: state for name, _, state in pairs}


def exits_of(folder: Path, job: str) -> list[int]:
    """Return the exit status of each attempt of a job."""
    try:
        lines = (folder / EXITS / job).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [int(line.split()[0]) for line in lines if line.split()[0].isdecimal()]


def log_of(folder: Path, job: str) -> Path:
    """Return the file with what a worker wrote to stderr."""
    return folder / LOGS / f"{job}_0_log.err"
