"""A submission: its stages and their jobs, in a folder from which ``--status`` and ``--resume`` go on.

The folder holds ``submission.json``, written again after each stage; for Slurm also the scripts and logs of the jobs,
and the exit status of each attempt.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from bend_hf.embedders.cache import default_folder
from bend_hf.embedders.cache.manage import FinishedShards, inventory
from bend_hf.embedders.cache.share_progress import read_progress
from bend_hf.errors import ConfigError, SourceError
from bend_hf.files import atomic_path, parse_json
from bend_hf.runs.cluster import hub, slurm
from bend_hf.runs.cluster.config import SubmitConfig
from bend_hf.runs.cluster.plan import Stage
from bend_hf.runs.forecast import Forecast
from bend_hf.types import Json

RECORD: Final = "submission.json"
_VERSION: Final = 1
_ENDED_WELL: Final = "COMPLETED"
_LIVING: Final = (  # squeue(1), JOB STATE CODES
    "PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESIZING",
    "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "SUSPENDED",
)  # fmt: skip
_MOST_TIMED: Final = 2_000  # files whose times are looked at for a rate; more take long on a network file system
_TAIL: Final = 5
_TAIL_BYTES: Final = 8_192


@dataclass(frozen=True, kw_only=True)
class Submission:
    """Stages of jobs on one engine.

    Attributes:
        folder: Where its record, scripts and logs are.
        command: The words that were submitted, for people.
        where: The resources.
        stages: What runs.
        jobs: The job of each command of each stage, by the stage's name; a stage without jobs waits.
        cache: The folder of the embeddings, as the workers see it.
        created: When it was submitted, in seconds since 1970.
    """

    folder: Path
    command: str
    where: SubmitConfig
    stages: tuple[Stage, ...]
    cache: Path
    created: float
    jobs: dict[str, list[str]] = field(default_factory=dict)

    def write(self) -> None:
        """Write the record."""
        resources = {name: str(one) if isinstance(one, Path) else one for name, one in asdict(self.where).items()}
        content: dict[str, Any] = {
            "version": _VERSION,
            "command": self.command,
            "where": resources,
            "cache": str(self.cache),
            "created": self.created,
            "stages": [one.as_json() for one in self.stages],
            "jobs": self.jobs,
        }
        with atomic_path(self.folder / RECORD) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def submit(command: str, stages: Sequence[Stage], where: SubmitConfig, cache: Path | None) -> Submission:
    """Submit stages, each after the one that it waits for.

    A submission of the same command in this folder that was interrupted goes on with the stages that have no jobs yet.

    Raises:
        BendError: The folder holds a submission, or the engine refuses a job. Jobs that were submitted before go on.
    """
    folder = where.jobs or Path("jobs") / time.strftime("%Y%m%d-%H%M%S")
    earlier = read_submission(folder) if (folder / RECORD).exists() else None
    now = [
        stage
        for stage in stages
        if (stage.waits_for is None or where.on == "slurm") and (earlier is None or stage.name not in earlier.jobs)
    ]
    if earlier is not None and (earlier.command != command or not now):
        raise ConfigError(f"--jobs {folder} holds a submission; give a new folder, or see it with --status {folder}")
    one = earlier or Submission(
        folder=folder.absolute(),
        command=command,
        where=where,
        stages=tuple(stages),
        cache=(cache or default_folder()).absolute(),
        created=time.time(),
    )
    one.folder.mkdir(parents=True, exist_ok=True)
    one.write()
    for stage in now:
        _submit_stage(one, stage)
    return one


def _submit_stage(one: Submission, stage: Stage) -> None:
    if one.where.on == "slurm":
        before = one.jobs.get(stage.waits_for or "", [])
        arrays = sorted({job.partition("_")[0] for job in before})
        one.jobs[stage.name] = slurm.submit_stage(stage, one.where, one.folder, ":".join(arrays) or None)
    else:
        one.jobs[stage.name] = hub.submit_stage(stage, one.where)
    one.write()


def read_submission(folder: Path) -> Submission:
    """Read the record of a submission.

    Raises:
        SourceError: The record is missing or cannot be read.
    """
    path = folder / RECORD
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        where: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in found["where"].items()
        }
        names = {item.name for item in fields(Forecast)}
        stages = tuple(
            Stage(
                name=stage["stage"],
                commands=tuple(tuple(map(str, words)) for words in stage["commands"]),
                waits_for=stage["waits_for"],
                has_gpu=bool(stage["has_gpu"]),
                expected=tuple(
                    Forecast(**{name: value for name, value in each.items() if name in names})
                    for each in stage["expected"]
                ),
            )
            for stage in found["stages"]
        )
        return Submission(
            folder=folder.absolute(),
            command=str(found["command"]),
            where=SubmitConfig(**where),
            stages=stages,
            cache=Path(found["cache"]),
            created=float(found["created"]),
            jobs={str(name): list(map(str, jobs)) for name, jobs in found["jobs"].items()},
        )
    except FileNotFoundError as error:
        raise SourceError(f"{folder} holds no {RECORD}; give the folder that 'bend-hf submit' printed") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{path} cannot be read ({error!r}); submit again into another folder") from error


@dataclass(frozen=True, kw_only=True)
class Worker:
    """How a job is.

    Attributes:
        stage: Its stage.
        number: Its number in the stage.
        job: The job, as the engine names it; empty if it waits to be submitted.
        state: ``waiting``, ``done``, ``failed``, or the state that the engine names.
        attempts: The exit status of each attempt, as far as they are known.
        last_lines: The end of its log, if it failed.
        log: Where the whole log is.
    """

    stage: str
    number: int
    job: str
    state: str
    attempts: tuple[int, ...] = ()
    last_lines: tuple[str, ...] = ()
    log: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether it will not run again by itself."""
        return self.state in ("done", "failed")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How many of the expected shards are in the cache.

    Attributes:
        n_done: Finished shards.
        n_shards: Shards in all; those of entries that no worker has planned yet are forecast.
        per_minute: Shards finished per minute; None if there are too few to say.
    """

    n_done: int
    n_shards: int
    per_minute: float | None

    @property
    def seconds_left(self) -> float | None:
        """Time until the last shard at this rate; None if there is no rate yet."""
        missing = self.n_shards - self.n_done
        if not missing:
            return 0.0
        return 60 * missing / self.per_minute if self.per_minute else None


def workers_of(one: Submission) -> list[Worker]:
    """Ask the engine and read the exits of all workers.

    Raises:
        BendError: The engine does not answer.
    """
    every = [job for jobs in one.jobs.values() for job in jobs]
    states = slurm.states_of(every) if one.where.on == "slurm" else hub.states_of(every, one.where)
    found = []
    for stage in one.stages:
        jobs = one.jobs.get(stage.name, [])
        for number in range(len(stage.commands)):
            job = jobs[number] if number < len(jobs) else ""
            found.append(_worker(one, stage.name, number, job, states.get(job)))
    return found


def _worker(one: Submission, stage: str, number: int, job: str, said: str | None) -> Worker:
    attempts = tuple(slurm.exits_of(one.folder, job)) if one.where.on == "slurm" and job else ()
    worker = Worker(stage=stage, number=number, job=job, state="waiting", attempts=attempts)
    if not job:
        return worker
    if said in _LIVING:
        return replace(worker, state=said.lower())
    if said == _ENDED_WELL or (attempts and attempts[-1] == 0):
        return replace(worker, state="done")
    if one.where.on == "slurm":
        log = slurm.log_of(one.folder, job)
        return replace(worker, state="failed", last_lines=tuple(_tail(log)), log=str(log))
    lines = _last_of("\n".join(hub.logs_of([job], one.where)[job]))
    return replace(worker, state="failed", last_lines=tuple(lines), log=f"hf jobs logs {job}")


def _tail(path: Path) -> list[str]:
    """Read the last lines of a file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return _last_of(text)


def _last_of(text: str) -> list[str]:
    """Return the last lines of a log, each without what a progress bar wrote over."""
    return [line.rstrip().rpartition("\r")[2] for line in text.split("\n") if line.strip()][-_TAIL:]


def progress_of(one: Submission, workers: Sequence[Worker]) -> Progress | None:
    """Count the finished shards of what the submission embeds; None if it embeds nothing.

    Slurm's workers share a cache folder, which is looked at. The folder of Hugging Face Jobs is elsewhere, so that
    what the workers say in their logs is added up.

    Args:
        one: The submission.
        workers: Its workers, from ``workers_of``.

    Raises:
        BendError: The cache cannot be read.
    """
    expected = [each for stage in one.stages if stage.name == "embed" for each in stage.expected]
    if not expected:
        return None
    if one.where.on == "slurm":
        return _progress_in_cache(one, expected)
    return _progress_in_logs(one, expected, [worker for worker in workers if worker.stage == "embed" and worker.job])


def _progress_in_logs(one: Submission, expected: Sequence[Forecast], workers: Sequence[Worker]) -> Progress:
    """Add up the shares of workers; the rate is that of the workers that still run."""
    logs = hub.logs_of([worker.job for worker in workers], one.where)
    shares = {worker.job: read_progress(logs[worker.job]) for worker in workers}
    totals = {key: share.n_shards for of_worker in shares.values() for key, share in of_worker.items()}
    of_label = {label: n_shards for (_, label), n_shards in totals.items()}
    one_model = len({each.model for each in expected}) == 1  # a user's file or folder may have another name in a plan
    n_shards, per_second = 0, 0.0
    for each in expected:
        label = f"{each.task} {each.split}"
        known = of_label.get(label) if one_model else totals.get((each.model, label))
        n_shards += each.n_shards if known is None else known
    for worker in workers:
        seconds = sum(share.seconds for share in shares[worker.job].values())
        if seconds > 0 and not worker.has_ended:
            per_second += sum(share.n_now for share in shares[worker.job].values()) / seconds
    n_done = sum(share.n_done for of_worker in shares.values() for share in of_worker.values())
    return Progress(n_done=n_done, n_shards=n_shards, per_minute=60 * per_second or None)


def _progress_in_cache(one: Submission, expected: Sequence[Forecast]) -> Progress:
    """Look into the cache; the rate is that of all shards since the submission.

    A cache entry belongs to an expected split if its label, its model and its sequences do; of several, the one that
    changed last.
    """
    alike: dict[tuple[str, int, int], list[FinishedShards]] = {}  # by label and sequences
    for entry in sorted(inventory(one.cache), key=lambda entry: entry.changed):
        if entry.plan is not None:
            alike.setdefault((entry.plan.label, entry.plan.items, entry.plan.nucleotides), []).append(entry)
    one_model = len({each.model for each in expected}) == 1  # a user's file or folder may have another name in a plan
    n_done, n_shards, begun = 0, 0, []
    for each in expected:
        key = (f"{each.task} {each.split}", each.n_items, each.n_bp)
        found = _entry_of(each, alike.get(key, []), any_model=one_model)
        if found is None or found.plan is None:
            n_shards += each.n_shards
            continue
        n_done, n_shards = n_done + len(found.finished), n_shards + found.plan.n_shards
        begun += [found] if found.changed >= one.created else []
    every = -(-sum(len(entry.finished) for entry in begun) // _MOST_TIMED) or 1
    times = [when for entry in begun for when in entry.finished_times(every=every) if when >= one.created]
    span = max(times) - min(times) if len(times) > 1 else 0.0
    per_minute = 60 * every * (len(times) - 1) / span if span > 0 else None
    return Progress(n_done=n_done, n_shards=n_shards, per_minute=per_minute)


def _entry_of(each: Forecast, alike: Sequence[FinishedShards], *, any_model: bool) -> FinishedShards | None:
    """Return the entry of an expected split that changed last, of those with its label and its sequences."""
    named = [entry for entry in alike if entry.plan is not None and entry.plan.model == each.model]
    chosen = named or (alike if any_model else [])
    return chosen[-1] if chosen else None


def resume(one: Submission) -> list[str]:
    """Submit failed workers again, and the stages whose turn it is; return the stages that got jobs.

    Raises:
        BendError: The engine does not answer, or refuses a job.
    """
    workers, submitted = workers_of(one), []
    ended = {stage.name: all(w.has_ended for w in workers if w.stage == stage.name) for stage in one.stages}
    for stage in one.stages:
        failed = [worker.number for worker in workers if worker.stage == stage.name and worker.state == "failed"]
        if stage.name not in one.jobs:
            if stage.waits_for is None or (ended[stage.waits_for] and stage.waits_for not in submitted):
                _submit_stage(one, stage)
                submitted.append(stage.name)
        elif failed:
            again = replace(stage, commands=tuple(stage.commands[number] for number in failed))
            if one.where.on == "slurm":
                jobs = slurm.submit_stage(again, one.where, one.folder)
            else:
                jobs = hub.submit_stage(again, one.where)
            for number, job in zip(failed, jobs, strict=True):
                one.jobs[stage.name][number] = job
            one.write()
            submitted.append(stage.name)
    return submitted


def as_json(worker: Worker) -> dict[str, Json]:
    """Return what ``--json`` prints of a worker."""
    return {**asdict(worker), "attempts": list(worker.attempts), "last_lines": list(worker.last_lines)}
