"""The flags of ``bend-hf submit``.

>>> SubmitConfig(nodes=4, gpus_per_node=2).n_workers
8
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from bend_hf.config import Condition, Flags, flag
from bend_hf.errors import ConfigError

Engine = Literal["slurm", "hf-jobs"]
MOUNT: Final = "/cache"  # where a volume is mounted that names no place
_TIME: Final = re.compile(r"(\d+-)?\d+(:\d{1,2}){0,2}")  # sbatch --time: minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S


@dataclass(frozen=True, kw_only=True)
class SubmitConfig(Flags):
    """Where the jobs of a command run, and with what.

    Raises:
        ConfigError: A number is out of range, or an option of ``sbatch`` is malformed.
    """

    on: Engine = flag("slurm", "what runs the jobs", "speed", group="cluster")
    nodes: int = flag(1, "nodes, with one worker on each, or one for each GPU", "speed", group="cluster")
    gpus_per_node: int = flag(0, "GPUs of a node; each gets a worker of its own", "speed", group="cluster")
    partition: str | None = flag(None, "partition of Slurm; default: that of the cluster", "speed", group="cluster")
    time: str = flag(
        "4:00:00",
        "longest time of one job; workers are stopped 90 s before, free their shards, and are started again",
        "speed",
        group="cluster",
    )
    bp_per_second: float | None = flag(
        None,
        "nucleotides per second of one worker, as bend-hf bench prints them on its node, for the hours that are shown; "
        "default: the speed of this machine",
        "nothing",
        group="cluster",
    )
    array_parallelism: int | None = flag(
        None, "most workers that run at the same time; default: all", "speed", group="cluster"
    )
    retries: int = flag(3, "how often a worker that died is started again", "speed", group="cluster")
    sbatch: tuple[str, ...] = flag(
        (), "further options of sbatch as KEY=VALUE, such as account=mine mem=64G", "speed", group="cluster"
    )
    setup: tuple[str, ...] = flag((), "shell commands to run first in each job", "speed", group="cluster")
    flavor: str = flag("cpu-basic", "hardware of Hugging Face Jobs, such as h200", "speed", group="cluster")
    volume: str | None = flag(
        None,
        "bucket to mount, as hf://buckets/NAMESPACE/NAME or with :/PLACE; it holds the cache and what is written",
        "speed",
        group="cluster",
    )
    image: str | None = flag(
        None, "image with bend-hf installed; default: one that installs this release first", "speed", group="cluster"
    )
    namespace: str | None = flag(None, "user or organization that the jobs belong to", "speed", group="cluster")
    jobs: Path | None = flag(
        None,
        "new folder for scripts, logs and exit states, which the jobs must see; default: jobs/TIME",
        "nothing",
        group="cluster",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("nodes", 1), ("gpus_per_node", 0), ("retries", 0), ("array_parallelism", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--{name.replace('_', '-')} is {value}; it must be {least} or more")
        if self.bp_per_second is not None and not (math.isfinite(self.bp_per_second) and self.bp_per_second > 0):
            raise ConfigError(f"--bp-per-second is {self.bp_per_second}; it must be above 0")
        if not _TIME.fullmatch(self.time):
            raise ConfigError(f"--time is {self.time!r}; expected hours, minutes and seconds, such as 4:00:00")
        self.sbatch_options  # noqa: B018  raises

    @property
    def n_workers(self) -> int:
        """Workers on all nodes together."""
        return self.nodes * max(1, self.gpus_per_node)

    @property
    def has_gpus(self) -> bool:
        """Whether the jobs have GPUs.

        >>> SubmitConfig(gpus_per_node=1).has_gpus, SubmitConfig(sbatch=("gres=gpu:a100:1",)).has_gpus
        (True, True)
        >>> SubmitConfig(sbatch=("gpus=0", "partition=nogpu")).has_gpus
        False
        >>> SubmitConfig(on="hf-jobs", flavor="h200").has_gpus, SubmitConfig(on="hf-jobs").has_gpus
        (True, False)
        """
        if self.on == "hf-jobs":
            return not self.flavor.startswith("cpu")
        options = self.sbatch_options
        asked = "gpu" in options.get("gres", "")
        asked |= any(key.startswith("gpus") and bool(value.strip("0")) for key, value in options.items())
        return self.gpus_per_node > 0 or asked

    @property
    def sbatch_options(self) -> dict[str, str]:
        """Further options of ``sbatch``, by name without dashes.

        Raises:
            ConfigError: One is not KEY=VALUE.
        """
        options = {}
        for word in self.sbatch:
            key, equals, value = word.lstrip("-").partition("=")
            if not equals or not key or not value:
                raise ConfigError(f"--sbatch {word!r}; expected KEY=VALUE, such as account=mine")
            options[key] = value
        return options

    @property
    def seconds(self) -> int:
        """The longest time of a job.

        >>> SubmitConfig(time="1-2:00").seconds, SubmitConfig(time="90").seconds
        (93600, 5400)
        """
        days, dash, rest = self.time.rpartition("-")
        parts = [int(part) for part in rest.split(":")]
        if dash:
            hours, minutes, seconds = (*parts, 0, 0)[:3]
        elif len(parts) == 3:
            hours, minutes, seconds = parts
        else:
            hours, minutes, seconds = (0, *parts, 0)[:3]
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


CONDITIONS: Final = (
    Condition(
        flags=("gpus_per_node", "partition", "array_parallelism", "sbatch", "setup"),
        met=lambda given: getattr(given, "on", "slurm") == "slurm",
        reason="--on is not slurm",
    ),
    Condition(
        flags=("flavor", "volume", "image", "namespace"),
        met=lambda given: getattr(given, "on", "slurm") == "hf-jobs",
        reason="--on is not hf-jobs",
    ),
)
