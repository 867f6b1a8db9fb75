"""Cut a command into stages of jobs: first the embeddings, then a head for each task and model, then a report.

A stage is an array of workers. Workers of the first stage are identical: they share the shards of one cache by leases,
and each starts with a share of its own. A stage starts when all jobs of the one before have ended, however they ended:
a head computes the embeddings that are missing, and a report shows what there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bend_hf.config import RunConfig, flags_of
from bend_hf.embedders.cache.estimate import duration
from bend_hf.errors import ConfigError
from bend_hf.runs.cluster.config import SubmitConfig
from bend_hf.runs.embed import EmbedConfig
from bend_hf.types import Json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from bend_hf.runs.forecast import Forecast
    from bend_hf.variants.config import VariantRun


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Jobs that run at the same time.

    Attributes:
        name: What they do: ``embed``, ``heads``, ``variants`` or ``report``.
        commands: The words after ``bend-hf``, one tuple for each job.
        expected: What the stage computes, as far as it is known.
        has_gpu: Whether each job gets a GPU, if nodes have any.
        waits_for: The stage that must have ended before; None for the first.
        n_at_once: Jobs that may run at the same time; None for all.
        bp_per_second: Nucleotides per second of one job; None to take the speed of this machine.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    expected: tuple[Forecast, ...] = ()
    has_gpu: bool = True
    waits_for: str | None = None
    n_at_once: int | None = None
    bp_per_second: float | None = None

    @property
    def seconds(self) -> float | None:
        """Time of all jobs together to compute what is expected; None if it is not known."""
        if self.bp_per_second is not None:
            return sum(one.n_missing_bp for one in self.expected) / self.bp_per_second
        known = [one.seconds for one in self.expected if one.seconds is not None]
        return sum(known) if len(known) == len(self.expected) else None

    @property
    def seconds_each(self) -> float | None:
        """Time of one job, if the work is divided evenly."""
        return None if self.seconds is None else self.seconds / len(self.commands)

    @property
    def n_shards(self) -> int:
        """Shards of the cache that the stage computes."""
        return sum(one.n_shards - one.n_finished for one in self.expected)

    def text(self) -> str:
        """Describe the stage in one line."""
        n = len(self.commands)
        words = [f"{self.name}: {n} {'job' if n == 1 else 'jobs'}"]
        if self.waits_for is not None:
            words.append(f"after {self.waits_for}")
        if self.expected:
            sizes = [one.n_bytes for one in self.expected]
            if self.n_shards:
                words.append(f"{self.n_shards:,} shards")
            known = [size for size in sizes if size is not None]
            words.append(f"{sum(known) / 1e9:.3f} GB" if len(known) == len(sizes) else "GB unknown")
            words.append(self._time_text())
        return ", ".join(words)

    def _time_text(self) -> str:
        """Describe the time of each job and of all, and until the last one ends if not all run at once."""
        if self.seconds is None or self.seconds_each is None:
            return "time unknown"
        n, n_at_once = len(self.commands), min(self.n_at_once or len(self.commands), len(self.commands))
        at = "the speed of this machine" if self.bp_per_second is None else f"{self.bp_per_second:,.0f} bp per second"
        if n == 1:
            return f"about {duration(self.seconds)} at {at}"
        end = f" and {duration(-(-n // n_at_once) * self.seconds_each)} to the end" if n_at_once < n else ""
        return f"about {duration(self.seconds_each)} each, {duration(self.seconds)} in all{end}, at {at}"

    def as_json(self) -> dict[str, Json]:
        """Return what ``--json`` prints, and the record of a submission keeps."""
        return {
            "stage": self.name,
            "commands": [list(command) for command in self.commands],
            "waits_for": self.waits_for,
            "has_gpu": self.has_gpu,
            "expected": [one.as_json() for one in self.expected],
            "n_shards": self.n_shards,
            "seconds": self.seconds,
            "seconds_each": self.seconds_each,
        }


def words_of(config: type[DataclassInstance], values: Mapping[str, Any]) -> list[str]:
    """Write the values of a configuration as flags.

    >>> words_of(EmbedConfig, {"task": ("gene_finding",), "no_leases": True, "layer": -1})
    ['--task', 'gene_finding', '--layer', '-1', '--no-leases']
    """
    words = []
    for name in flags_of(config):
        value = values.get(name)
        if value is None or value is False or value == ():
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words += [str(one) for one in (value if isinstance(value, tuple) else (value,))]
    return words


def embed_stage(given: Mapping[str, Any], models: Sequence[str], where: SubmitConfig) -> Stage | None:
    """Plan ``bend-hf embed``; None if every shard is in the cache.

    Args:
        given: The values that flags and file give.
        models: The models; empty for the default.
        where: Where the jobs run.

    Raises:
        BendError: A task, model or split is unknown, or a file is invalid.
    """
    from bend_hf.runs.forecast import forecast_embedding

    config = EmbedConfig(**given)
    for name in ("shard", "shards"):
        if getattr(config, name):
            raise ConfigError(f"--{name} is {getattr(config, name)}, but the jobs divide the shards; leave it out")
    return _embed(words_of(EmbedConfig, {**given, "model": tuple(models)}), forecast_embedding(config, models), where)


def _embed(words: Sequence[str], found: Sequence[Forecast], where: SubmitConfig) -> Stage | None:
    missing = tuple(one for one in found if one.n_shards > one.n_finished)
    if not missing:
        return None
    known = all(one.is_known and one.n_bytes is not None for one in missing)
    n = min(where.n_workers, sum(one.n_shards - one.n_finished for one in missing)) if known else where.n_workers
    static = ("--no-leases",) if where.on == "hf-jobs" and "--no-leases" not in words else ()  # each mounts the bucket
    commands = tuple(("embed", *words, "--shard", f"{number}/{n}", *static) for number in range(n))
    at_once, speed = where.array_parallelism, where.bp_per_second
    return Stage(name="embed", commands=commands, expected=missing, n_at_once=at_once, bp_per_second=speed)


def run_stages(given: Mapping[str, Any], models: Sequence[str], where: SubmitConfig) -> list[Stage]:
    """Plan ``bend-hf run``: embeddings, one job for each task and model, and a report over ``--out``.

    Raises:
        BendError: A task or model is unknown, a flag does not apply, or a file is invalid.
    """
    from bend_hf.runs.forecast import forecast_runs

    models = list(dict.fromkeys(models)) or [RunConfig.model]
    config = RunConfig(**given)
    found = forecast_runs(config, models)
    tasks = list(dict.fromkeys(one.task for one in found))
    first = _embeddings_of(config, given, models, found, where)
    stages = [first] if first is not None else []
    shared = {name: value for name, value in given.items() if name != "task"}
    named = [("--task", task) for task in tasks] if config.task else [()]
    heads = [("run", *task, "--model", model, *words_of(RunConfig, shared)) for model in models for task in named]
    stages.append(Stage(name="heads", commands=tuple(heads), waits_for=stages[-1].name if stages else None))
    report = report_words([config.out], config.out.with_name(f"{config.out.name}_report"))
    stages.append(Stage(name="report", commands=(tuple(report),), has_gpu=False, waits_for="heads"))
    return stages


def _embeddings_of(
    config: RunConfig, given: Mapping[str, Any], models: Sequence[str], found: Sequence[Forecast], where: SubmitConfig
) -> Stage | None:
    """Plan the embeddings of runs, unless heads read something else than the embeddings of all items."""
    if config.limit is not None or config.tune != "head" or config.no_cache or config.head == "linear":
        return None
    cached = {one.model for one in found if one.n_shards}
    named = [model for model in models if model in cached and "=" not in model]
    shared = {item.name for item in fields(EmbedConfig)} - {"model"}
    kept = {name: value for name, value in given.items() if name in shared}
    expected = [one for one in found if one.model in named]
    return _embed(words_of(EmbedConfig, {**kept, "model": tuple(named)}), expected, where) if named else None


def variants_stage(file: Path, given: Mapping[str, Any], where: SubmitConfig) -> Stage:
    """Plan ``bend-hf variants``, which is one job.

    Raises:
        BendError: The file is invalid, or a flag does not apply.
    """
    from bend_hf.runs.forecast import forecast_variants
    from bend_hf.variants.config import VariantRun

    if where.n_workers > 1:
        raise ConfigError(f"--nodes and --gpus-per-node give {where.n_workers} workers, but variants is one job")
    config: VariantRun = VariantRun(**given)
    words = ("variants", str(file), *words_of(VariantRun, given))
    found = (forecast_variants(file, config),)
    return Stage(name="variants", commands=(words,), expected=found, bp_per_second=where.bp_per_second)


def report_words(records: Sequence[Path], out: Path) -> list[str]:
    """Return the words of ``bend-hf report``."""
    return ["report", *map(str, records), "--out", str(out)]
