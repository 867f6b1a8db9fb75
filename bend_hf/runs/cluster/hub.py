"""Submit stages as Hugging Face Jobs: one job for each worker, with a bucket mounted as their cache.

Each job mounts the bucket by itself, and nothing says that one mount sees at once what another creates. Workers
therefore have static shares of the shards. Jobs have no dependencies: a stage is submitted when the one before has
ended, by ``bend-hf submit --status DIR --resume``.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from bend_hf import __version__
from bend_hf.errors import ConfigError, HubError, hub_errors
from bend_hf.runs.cluster.config import MOUNT, SubmitConfig
from bend_hf.runs.cluster.plan import Stage

if TYPE_CHECKING:
    from huggingface_hub import HfApi

UV_IMAGE: Final = "ghcr.io/astral-sh/uv:python3.12-bookworm"  # huggingface_hub._jobs_api.DEFAULT_UV_IMAGE
_FETCHED_TOGETHER: Final = 16
_STATES: Final = {  # huggingface_hub.JobStage
    "SCHEDULING": "PENDING",
    "RUNNING": "RUNNING",
    "COMPLETED": "COMPLETED",
    "CANCELED": "CANCELLED",
    "ERROR": "FAILED",
    "DELETED": "LOST",
}


def mount_of(where: SubmitConfig) -> PurePosixPath | None:
    """Return the place in a job where the volume is mounted; None without a volume."""
    if where.volume is None:
        return None
    return PurePosixPath(_volume(where.volume)["mount_path"])


def request_of(words: Sequence[str], where: SubmitConfig, *, has_gpu: bool) -> dict[str, Any]:
    """Return what ``huggingface_hub.run_job`` is called with for one worker.

    Args:
        words: The words after ``bend-hf``.
        where: The resources.
        has_gpu: Whether the job needs the hardware of ``--flavor``.

    Raises:
        ConfigError: The volume is malformed.
    """
    installed = ["bend-hf"] if where.image else ["uv", "run", "--with", f"bend-hf=={__version__}", "bend-hf"]
    request: dict[str, Any] = {
        "image": where.image or UV_IMAGE,
        "command": [*installed, *words],
        "flavor": where.flavor if has_gpu else "cpu-basic",
        "timeout": where.seconds,
        "attempts": where.retries + 1,
    }
    if where.volume is not None:
        volume = _volume(where.volume)
        request |= {"volumes": [volume], "env": {"BEND_HF_CACHE": volume["mount_path"]}}
    return request | ({"namespace": where.namespace} if where.namespace else {})


def submit_stage(stage: Stage, where: SubmitConfig) -> list[str]:
    """Submit a stage and return the ids of its jobs.

    Raises:
        ConfigError: The volume is malformed, or the installed huggingface_hub cannot mount one.
        HubError: The Hub refuses a job.
    """
    from huggingface_hub import HfApi

    api, ids = HfApi(), []
    for words in stage.commands:
        request = request_of(words, where, has_gpu=stage.has_gpu)
        _check_known(api, request)
        if "volumes" in request:
            from huggingface_hub import Volume

            request["volumes"] = [Volume(**one) for one in request["volumes"]]
        try:
            ids.append(api.run_job(**request).id)
        except hub_errors(OSError) as error:
            raise HubError(
                f"the Hub started {len(ids)} of {len(stage.commands)} jobs of the stage {stage.name} and refused the "
                f"next ({error}); log in with 'hf auth login' or choose another --flavor"
            ) from error
    return ids


def _check_known(api: HfApi, request: dict[str, Any]) -> None:
    unknown = sorted(set(request) - set(inspect.signature(api.run_job).parameters))
    if unknown:
        raise ConfigError(
            f"the installed huggingface_hub starts jobs without {' and '.join(unknown)}; update it with: "
            "pip install -U huggingface_hub"
        )


def states_of(jobs: Sequence[str], where: SubmitConfig) -> dict[str, str]:
    """Return the states of jobs in Slurm's words, by id.

    Raises:
        HubError: The Hub does not answer.
    """
    from huggingface_hub import HfApi

    api, states = HfApi(), {}
    for job in jobs:
        try:
            stage = api.inspect_job(job_id=job, namespace=where.namespace).status.stage
        except hub_errors(OSError) as error:
            raise HubError(f"the Hub does not say how job {job} is ({error}); repeat the command later") from error
        states[job] = _STATES.get(str(getattr(stage, "value", stage)), "UNKNOWN")
    return states


def logs_of(jobs: Sequence[str], where: SubmitConfig) -> dict[str, list[str]]:
    """Return the logs of jobs by id, as far as the Hub has kept them; empty if it has kept nothing.

    The Hub holds the log of a running job open for seconds, so that they are fetched at the same time.
    """
    from huggingface_hub import HfApi

    api = HfApi()

    def lines_of(job: str) -> list[str]:
        try:
            return list(api.fetch_job_logs(job_id=job, namespace=where.namespace))
        except hub_errors(OSError):
            return []

    with ThreadPoolExecutor(_FETCHED_TOGETHER) as threads:
        return dict(zip(jobs, threads.map(lines_of, jobs), strict=True))


def _volume(text: str) -> dict[str, Any]:
    """Read a volume, in the notation of ``hf jobs run --volume``; without a place it is mounted at ``/cache``."""
    from huggingface_hub import utils

    parse_hf_mount = getattr(utils, "parse_hf_mount", None)
    if parse_hf_mount is None:
        raise ConfigError(
            "the installed huggingface_hub mounts no volumes; update it with: pip install -U huggingface_hub"
        )
    place = text if ":/" in text.removeprefix("hf://") else f"{text}:{MOUNT}"
    try:
        mount = parse_hf_mount(place)
    except ValueError as error:
        raise ConfigError(
            f"--volume {text!r}; expected hf://buckets/NAMESPACE/NAME, or with :/PLACE ({error})"
        ) from error
    if mount.source.type != "bucket" or mount.read_only:
        raise ConfigError(f"--volume {text!r} cannot be written; expected a bucket: hf://buckets/NAMESPACE/NAME")
    path = {"path": mount.source.path_in_repo} if mount.source.path_in_repo else {}
    return {"type": "bucket", "source": mount.source.id, "mount_path": mount.mount_path, **path}
