"""``bend-hf submit``: run a command as jobs of a cluster, and see how far they are.

bend-hf submit run all --model dnabert2 --on slurm --nodes 8 --gpus-per-node 1 --time 4:00:00
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bend_hf.cli import COMMANDS as OTHERS
from bend_hf.cli import Command
from bend_hf.cli._output import show
from bend_hf.config import Condition, RunConfig, add_flags, flag_group, given_values
from bend_hf.embedders._device import planned_for_gpus
from bend_hf.errors import ConfigError
from bend_hf.runs.cluster.config import CONDITIONS, SubmitConfig

if TYPE_CHECKING:
    from bend_hf.runs.cluster.plan import Stage
    from bend_hf.runs.cluster.submission import Progress, Submission, Worker

_SUBMITTED = {
    "embed": "one array of workers that share the cache",
    "run": "embeddings, then one job for each task and model, then a report",
    "variants": "one job",
    "report": "one job",
}


def _add_flags(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=False)
    for name, text in _SUBMITTED.items():
        action = actions.add_parser(name, help=text)
        OTHERS.get(name).add_flags(action)
        add_flags(action, SubmitConfig)
        if name == "report":
            output = flag_group(action, "output")
            output.add_argument("--dry-run", action="store_true", help="show the job and its script; submit nothing")
    cluster = flag_group(parser, "cluster")
    cluster.add_argument("--status", type=Path, metavar="DIR", help="show the jobs of a submission, by its folder")
    cluster.add_argument(
        "--resume",
        action="store_true",
        help="with --status: submit failed jobs again, and the stages whose turn it is",
    )


def _run(parsed: argparse.Namespace) -> int:
    if parsed.action is None:
        if parsed.status is None:
            raise ConfigError("nothing to submit; name embed, run, variants or report, or give --status DIR")
        return _status(parsed)
    if parsed.status is not None:
        raise ConfigError(f"--status {parsed.status} shows what was submitted; leave out {parsed.action!r}")
    OTHERS.get(parsed.action).check(parsed)
    where = SubmitConfig(**given_values(SubmitConfig, _without_file(parsed)))
    with planned_for_gpus() if where.has_gpus else nullcontext():
        stages = _in_place(_stages(parsed, where), where)
    if not stages:
        show(parsed, "nothing to submit: every shard is in the cache", [])
        return 0
    if parsed.dry_run:
        return _dry_run(parsed, stages, where)
    from bend_hf.runs.cluster.submission import submit

    done = submit(_words(stages), stages, where, getattr(parsed, "cache", None))
    lines = [*(one.text() for one in stages), *_too_long(stages, where), *_planned_dtype(stages, where)]
    lines += [f"{name}: {_jobs_text(jobs)}" for name, jobs in done.jobs.items()]
    waiting = [one.name for one in stages if one.name not in done.jobs]
    if waiting:
        lines.append(f"{' and '.join(waiting)}: later, with bend-hf submit --status {_shown(done.folder)} --resume")
    lines.append(f"see them with: bend-hf submit --status {_shown(done.folder)}")
    show(parsed, lines, ({**one.as_json(), "jobs": done.jobs.get(one.name)} for one in stages))
    return 0


def _shown(folder: Path) -> Path:
    """Return a folder as it is typed here."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _without_file(parsed: argparse.Namespace) -> argparse.Namespace:
    """Leave out ``--config``, whose keys are those of the command."""
    return argparse.Namespace(**{name: value for name, value in vars(parsed).items() if name != "config"})


def _stages(parsed: argparse.Namespace, where: SubmitConfig) -> list[Stage]:
    """Plan the jobs of the command that was named."""
    from bend_hf.runs.cluster import plan
    from bend_hf.runs.embed import EmbedConfig
    from bend_hf.variants.config import VariantRun

    if parsed.action == "report":
        words = [*plan.report_words(parsed.records, parsed.out), *_report_flags(parsed)]
        return [plan.Stage(name="report", commands=(tuple(words),), has_gpu=False)]
    if parsed.action == "variants":
        return [plan.variants_stage(parsed.file, given_values(VariantRun, parsed), where)]
    kind = EmbedConfig if parsed.action == "embed" else RunConfig
    given: dict[str, Any] = given_values(kind, parsed, ("model",))
    models = list(dict.fromkeys(given.pop("model", ())))
    if parsed.action == "run":
        return plan.run_stages(given, models, where)
    stage = plan.embed_stage(given, models, where)
    return [] if stage is None else [stage]


def _report_flags(parsed: argparse.Namespace) -> list[str]:
    words = [word for other in parsed.others for word in ("--with", other)]
    return words + ["--no-paired"] * parsed.no_paired + ["--no-plots"] * parsed.no_plots


def _in_place(stages: Sequence[Stage], where: SubmitConfig) -> list[Stage]:
    """Put what Hugging Face Jobs write on their volume, and refuse files that they cannot see."""
    if where.on == "slurm":
        return list(stages)
    from bend_hf.runs.cluster.hub import mount_of

    mount = mount_of(where)
    if mount is None:
        raise ConfigError("--volume is not given, and jobs keep nothing without one; give hf://buckets/NAMESPACE/NAME")
    return [
        replace(stage, commands=tuple(_on_volume(words, str(mount)) for words in stage.commands)) for stage in stages
    ]


def _on_volume(words: Sequence[str], mount: str) -> tuple[str, ...]:
    """Write the places of a worker's results below the mount; its other files must be there."""
    placed = list(words)
    if words[0] == "run" and "--out" not in words:
        placed += ["--out", str(RunConfig.out)]
    local = ("--bed", "--labels", "--genome", "--checkpoint", "--config")
    for index, word in enumerate(placed[1:], 1):
        before = placed[index - 1]
        is_result = before == "--out" or (words[0] == "report" and not word.startswith("-") and before[:2] != "--")
        if is_result and not Path(word).is_absolute():
            placed[index] = f"{mount}/{word}"
        elif word.startswith("/") and not word.startswith(f"{mount}/"):
            raise ConfigError(f"{before} is {word}, which jobs do not see; expected a file below {mount}, the volume")
        elif before in local and not word.startswith(f"{mount}/") and Path(word).exists():
            raise ConfigError(f"{before} is {word}, which jobs do not see; copy it to the volume, named {mount}")
    return tuple(placed)


def _words(stages: Sequence[Stage]) -> str:
    return "; ".join(dict.fromkeys(shlex.join(["bend-hf", *one.commands[0]]) for one in stages))


def _jobs_text(jobs: Sequence[str]) -> str:
    """Name the jobs of a stage: an array by its number.

    >>> _jobs_text(["12_0", "12_1"])
    'job 12_[0-1]'
    """
    arrays = {job.partition("_")[0] for job in jobs}
    if len(arrays) == 1 and "_" in jobs[0]:
        return f"job {arrays.pop()}_[0-{len(jobs) - 1}]"
    return f"job {', '.join(jobs)}"


def _dry_run(parsed: argparse.Namespace, stages: Sequence[Stage], where: SubmitConfig) -> int:
    from bend_hf.runs.forecast import HEADS_NOTE

    folder = where.jobs or Path("jobs/TIME")
    lines: list[str] = []
    for stage in stages:
        lines += [stage.text(), *(f"  {line}" for line in _script(stage, where, folder).splitlines()), ""]
    notes = [HEADS_NOTE] if any(one.name == "heads" for one in stages) else []
    notes += _planned_dtype(stages, where)
    lines += [*_too_long(stages, where), *notes, "dry run: nothing was submitted"]
    show(parsed, lines, (one.as_json() for one in stages))
    return 0


def _too_long(stages: Sequence[Stage], where: SubmitConfig) -> list[str]:
    """Name the stages whose jobs take longer than they may."""
    from bend_hf.embedders.cache.estimate import duration

    return [
        f"{one.name}: each job takes about {duration(one.seconds_each)}, but --time is {where.time}; it is stopped and "
        f"started again, at most {where.retries} times (--retries)"
        for one in stages
        if one.seconds_each is not None and one.seconds_each > where.seconds
    ]


def _planned_dtype(stages: Sequence[Stage], where: SubmitConfig) -> list[str]:
    """Say in which dtype the cache is looked up, if the GPUs of the jobs decide about it."""
    asked = [words for one in stages if where.has_gpus and one.has_gpu for words in one.commands[:1]]
    if not any("--model-dtype" not in words or words[words.index("--model-dtype") + 1] == "auto" for words in asked):
        return []
    return [
        "planned for GPUs that compute in bfloat16; for others, such as V100 and T4, give --model-dtype float32, or "
        "their embeddings are not found in the cache"
    ]


def _script(stage: Stage, where: SubmitConfig, folder: Path) -> str:
    """Return what a stage submits."""
    if where.on == "slurm":
        from bend_hf.runs.cluster import slurm

        return slurm.script_of(stage, where, folder, after=stage.waits_for and stage.waits_for.upper())
    from bend_hf.runs.cluster import hub

    requests = (hub.request_of(words, where, has_gpu=stage.has_gpu) for words in stage.commands)
    return "\n".join(", ".join(f"{name}={value!r}" for name, value in one.items()) for one in requests)


def _status(parsed: argparse.Namespace) -> int:
    from bend_hf.runs.cluster.submission import as_json, progress_of, read_submission, resume, workers_of

    one = read_submission(parsed.status)
    lines: list[str] = []
    if parsed.resume:
        names = resume(one)
        lines.append(f"submitted again or next: {', '.join(names)}" if names else "nothing to submit")
    workers = workers_of(one)
    progress = progress_of(one, workers)
    lines += [*_stage_lines(one, workers, progress), *_failed_lines(workers)]
    about = {} if progress is None else {**asdict(progress), "seconds_left": progress.seconds_left}
    show(parsed, lines, [*([about] if about else []), *(as_json(worker) for worker in workers)])
    return 1 if any(worker.state == "failed" for worker in workers) else 0


def _stage_lines(one: Submission, workers: Sequence[Worker], progress: Progress | None) -> list[str]:
    lines = []
    for stage in one.stages:
        counts: dict[str, int] = {}
        for worker in workers:
            if worker.stage == stage.name:
                counts[worker.state] = counts.get(worker.state, 0) + 1
        words = [f"{n} {state}" for state, n in sorted(counts.items())]
        again = sum(max(0, len(worker.attempts) - 1) for worker in workers if worker.stage == stage.name)
        words += [f"{again} started again"] if again else []
        if stage.name == "embed" and progress is not None:
            words += _progress_words(progress)
        lines.append(f"{stage.name}: {', '.join(words)}")
    return lines


def _progress_words(progress: Progress) -> list[str]:
    from bend_hf.embedders.cache.estimate import duration

    words = [f"{progress.n_done:,} of {progress.n_shards:,} shards"]
    if progress.per_minute is not None:
        words.append(f"{progress.per_minute:.1f} shards per minute")
    left = progress.seconds_left
    return [*words, "time left unknown" if left is None else f"{duration(left)} left"]


def _failed_lines(workers: Sequence[Worker]) -> list[str]:
    lines = []
    for worker in workers:
        if worker.state == "failed":
            statuses = ", ".join(map(str, worker.attempts)) or "unknown"
            lines.append(f"failed: {worker.stage} {worker.number}, job {worker.job}, exit status {statuses}")
            lines += [f"  {line}" for line in worker.last_lines]
            lines.append(f"  log: {worker.log}")
    return lines


def _given(name: str) -> Condition:
    """Declare that a flag needs ``--status``."""
    return Condition(flags=(name,), met=lambda given: given.status is not None, reason="--status DIR is not given")


COMMANDS = (
    Command(
        key="submit",
        text="run a command as jobs of Slurm or of Hugging Face, and show how far they are",
        example="bend-hf submit run all --model dnabert2 --nodes 8 --gpus-per-node 1 --dry-run",
        has_records=True,
        add_flags=_add_flags,
        conditions=(*CONDITIONS, _given("resume")),
        run=_run,
    ),
)
