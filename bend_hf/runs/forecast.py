"""What a command would do, before it does it: items, shards, bytes and time, and what is cached.

    for one in forecast_runs(RunConfig(task=("gene_finding",), model="dnabert2"), ["dnabert2"]):
        print(one.task, one.split, one.n_items, one.n_bytes, one.seconds)

Nothing is written or downloaded, and no weights are loaded. Items are counted in the files of a task. The network of a
model is built without memory for its weights (PyTorch's device ``meta``), which gives width, tokens and the number of
weights. The time is that of the same network with random weights, measured on random sequences for a second, times the
nucleotides. For a network that is large or whose files are not here, it is that of two operations per weight and token,
at the speed of a matrix product on this machine; attention over long inputs and recurrent networks take longer.

>>> spread(5, 2).tolist(), spread(3, None).tolist()
([0, 4], [0, 1, 2])
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.config import DataConfig, ModelFlags, RunConfig
from bend_hf.data.dataset import spread
from bend_hf.data.sources import BuiltSource, Source, key_of, sources_of
from bend_hf.embedders.cache import default_folder
from bend_hf.embedders.cache.estimate import duration
from bend_hf.embedders.cache.shards import SHARD_BYTES, ShardFiles, ShardPlan, embedding_bytes, shard_starts
from bend_hf.errors import BendError
from bend_hf.files import without_notes
from bend_hf.tables import Table
from bend_hf.tasks import BinClasses, NucleotideClasses, TaskSpec
from bend_hf.types import Ints, Json, StoredDtype

if TYPE_CHECKING:
    from bend_hf.embedders._embedder import Embedder
    from bend_hf.runs.embed import EmbedConfig
    from bend_hf.variants.config import VariantRun

log = logging.getLogger(__name__)

HEADS_NOTE: Final = "The time is that of the embeddings, without the training of heads and without controls."

# What a shard holds besides embeddings: labels (int64), coordinates and offsets, and what Arrow writes itself.
_LABEL_BYTES: Final = 8
_ITEM_BYTES: Final = 80
_SHARD_BYTES: Final = 4_000
_PROBE_BP: Final = 4_096
_WARM_BP: Final = 256  # of the first timed sequence, which says how much a second is enough for
_LONGEST_BP: Final = 16_384
_MEASURED_S: Final = 1.0
_MOST_PARAMETERS: Final = 1_000_000_000  # of a network that is built with random weights: 4 GB
_VARIANT_PASSES: Final = 3  # REF, ALT, and the site with a mask
_MATRIX: Final = 1_024
_TIMED_S: Final = 0.2
# Files of a scored set of variants, as bend-mini writes them: one variant with its scores in Parquet, record, figures.
_SCORED_BYTES: Final = 44
_RECORD_BYTES: Final = 33_000
_FIGURE_BYTES: Final = 122_000


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What one model needs for one split, or for a file of variants.

    Attributes:
        task: Task key, or the name of the file.
        split: The split, or the subset of folds; empty for variants.
        model: As the user named it.
        n_items: Sequences or variants.
        n_bp: Nucleotides that the model reads.
        n_shards: Shards of the cache entry; 0 if nothing is cached.
        n_finished: Those of them that are computed.
        n_bytes: Bytes to write; None if the model's width is not known.
        seconds: Time to compute what is missing; None if it is not known.
        is_known: Whether the model's files say what identifies its embeddings, so that they could be looked for.
    """

    task: str
    split: str
    model: str
    n_items: int
    n_bp: int
    n_shards: int = 0
    n_finished: int = 0
    n_bytes: int | None = None
    seconds: float | None = None
    is_known: bool = True

    @property
    def n_missing_bp(self) -> float:
        """Nucleotides of what is not cached; shards have about equal nucleotides."""
        return self.n_bp * (1 - self.n_finished / self.n_shards) if self.n_shards else self.n_bp

    @property
    def state(self) -> str:
        """What is cached, in words."""
        if not self.n_shards:
            return "not stored"
        if not self.is_known:
            return "not known"
        if self.n_finished == self.n_shards:
            return "cached"
        return f"{self.n_finished} of {self.n_shards} cached" if self.n_finished else "not cached"

    def as_json(self) -> dict[str, Json]:
        """Return the numbers, with the state."""
        return {**asdict(self), "state": self.state}


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known of a model without its weights.

    Attributes:
        width: Width of an embedding; None if it is not known.
        n_parameters: Number of weights; None if it is not known.
        tokens_per_bp: Token embeddings per nucleotide.
        identity: What identifies its embeddings in a cache; None if that is not known without running it.
        is_cached: Whether its embeddings are worth caching.
        speed: Measures how fast it is; None if it cannot be built here.
        is_causal: Whether its likelihoods of variants follow from the embeddings before them.
    """

    width: int | None
    n_parameters: int | None
    tokens_per_bp: float = 1.0
    identity: Mapping[str, str] | None = None
    is_cached: bool = True
    speed: Speed | None = None
    is_causal: bool = False

    def likelihood_passes(self, *, both_strands: bool) -> int:
        """Count the windows of a substitution that its likelihoods need besides those of both alleles.

        A masked model reads the window with the site masked, on each strand. What a causal model says about a site
        follows from the reference allele's window on the plus strand, and from a window more on the minus strand.
        """
        return int(both_strands) if self.is_causal else 1 + both_strands

    def seconds(self, n_bp: float, *, length_bp: float) -> float | None:
        """Estimate the time to embed nucleotides.

        Args:
            n_bp: How many.
            length_bp: Mean length of the sequences.
        """
        if not self.n_parameters or not n_bp:
            return None if self.n_parameters is None else 0.0
        if self.speed is not None:
            return self.speed.seconds_per_bp(length_bp) * n_bp
        n_tokens = n_bp * self.tokens_per_bp or n_bp / max(length_bp, 1.0)
        return 2 * self.n_parameters * n_tokens / operations_per_second()


class Speed:
    """The speed of a model, measured with random weights.

    Args:
        config: Names the model and its settings.
    """

    def __init__(self, config: ModelFlags) -> None:
        self._config = config
        self._embedder: Embedder | None = None
        self._seconds_per_bp: dict[int, float] = {}

    def seconds_per_bp(self, length_bp: float) -> float:
        """Return the time per nucleotide of sequences of about that length.

        Args:
            length_bp: Rounded to a power of two; at most ``_LONGEST_BP`` are measured.
        """
        length = 1 << (int(min(max(length_bp, 64.0), _LONGEST_BP)) - 1).bit_length()
        if length not in self._seconds_per_bp:
            self._seconds_per_bp[length] = self._measure(length)
        return self._seconds_per_bp[length]

    def _measure(self, length_bp: int) -> float:
        """Embed sequences for about a second, fewer or shorter ones if the model is slow."""
        from bend_hf.embedders._device import planned_for_gpus
        from bend_hf.embedders.from_config import open_model

        with planned_for_gpus(False):
            self._embedder = embedder = self._embedder or open_model(replace(self._config, random_init=True))
        with embedder.runner().fixed():
            embedder.embed_tokens([_random_sequence(_WARM_BP)])
            n_bp, seconds = _WARM_BP, _timed(embedder, [_random_sequence(_WARM_BP)])
            affordable_bp = _MEASURED_S * n_bp / seconds
            if affordable_bp > 2 * n_bp:
                one_bp = min(length_bp, int(affordable_bp))
                sequences = [_random_sequence(one_bp)] * max(1, int(min(affordable_bp, _LONGEST_BP) / one_bp))
                n_bp, seconds = one_bp * len(sequences), _timed(embedder, sequences)
        return seconds / n_bp


def _timed(embedder: Embedder, sequences: list[str]) -> float:
    started = time.perf_counter()
    embedder.embed_tokens(sequences)
    return time.perf_counter() - started


def _random_sequence(length_bp: int) -> str:
    letters = np.frombuffer(b"ACGT", np.uint8)[np.random.default_rng(0).integers(0, 4, length_bp)]
    return letters.tobytes().decode()


@cache
def operations_per_second() -> float:
    """Measure how many operations of a matrix product this machine does in a second."""
    import torch

    from bend_hf.embedders._device import best_device

    device = best_device()
    one, two = (torch.randn(_MATRIX, _MATRIX, device=device) for _ in range(2))
    (one @ two).sum().item()
    n, started = 0, time.perf_counter()
    while time.perf_counter() - started < _TIMED_S:
        (one @ two).sum().item()
        n += 1
    return 2 * _MATRIX**3 * n / (time.perf_counter() - started)


def forecast_runs(config: RunConfig, models: Sequence[str]) -> list[Forecast]:
    """Forecast the embeddings of runs.

    Raises:
        BendError: A task or model is unknown, a flag does not apply, or a file is invalid.
    """
    from bend_hf.runs.checks import check_model_place
    from bend_hf.runs.flag_effects import check_model_flags
    from bend_hf.runs.grid import with_model
    from bend_hf.runs.settings import embedder_config

    named = [with_model(config, model) for model in models]
    for one in named:
        check_model_place(one.model, one.checkpoint)
    check_model_flags(config, named)
    splits = list(_splits(config, config.limit))
    folder = None if config.no_cache or config.tune != "head" else config.cache or default_folder()
    cached = _Cached(folder=folder, dtype=config.cache_dtype, labels=frozenset(split.label for split in splits))
    found = []
    for model, one in zip(models, named, strict=True):
        facts = facts_of(embedder_config(one))
        found += [_forecast(model, facts, split, cached) for split in splits]
    return found


def forecast_embedding(config: EmbedConfig, models: Sequence[str] = ()) -> list[Forecast]:
    """Forecast ``bend-hf embed``.

    Args:
        config: The configuration.
        models: Several models; by default that of the configuration.

    Raises:
        BendError: A task, model or split is unknown, a flag does not apply, or a file is invalid.
    """
    from bend_hf.runs.checks import check_model_place
    from bend_hf.runs.embed import check_splits
    from bend_hf.runs.flag_effects import check_model_flags

    named = [replace(config, model=model) for model in models] or [config]
    for one in named:
        check_model_place(one.model, one.checkpoint)
    check_model_flags(config, named)
    splits = [split for split in _splits(config) if split.is_embedded]
    tasks = dict.fromkeys(split.task for split in splits)
    check_splits({task: [one.name for one in splits if one.task == task] for task in tasks}, config.splits)
    chosen = [split for split in splits if not config.splits or split.name in config.splits]
    cached = _Cached(
        folder=config.cache or default_folder(),
        dtype=config.cache_dtype,
        shard_bytes=config.shard_bytes,
        labels=frozenset(split.label for split in splits),
    )
    return [
        _forecast(one.model, facts, split, cached) for one in named for facts in [facts_of(one)] for split in chosen
    ]


def forecast_variants(file: Path, config: VariantRun) -> Forecast:
    """Forecast ``bend-hf variants``.

    Raises:
        BendError: The file is invalid, or a flag does not apply.
    """
    from bend_hf.runs.checks import check_model_place
    from bend_hf.runs.flag_effects import check_model_flags
    from bend_hf.variants.read import read_rows

    check_model_place(config.model, config.checkpoint)
    check_model_flags(config)
    rows = read_rows(file, [name for name in (config.label_column, config.consequence_column) if name])
    n_items, is_labeled = len(rows), (config.label_column or "label") in rows.columns.column_names
    facts, scores = facts_of(config), config.settings
    passes = 2 + scores.likelihood * facts.likelihood_passes(both_strands=scores.both_strands)  # 2: both alleles
    length_bp = 2 * scores.context.context_bp + 1
    n_bp = n_items * passes * length_bp
    kept = 0 if facts.width is None or not config.probe else 2 * embedding_bytes(facts.width, "float32")
    return Forecast(
        task=key_of(file),
        split="",
        model=config.model,
        n_items=n_items,
        n_bp=n_bp,
        n_bytes=n_items * (_SCORED_BYTES + kept) + _RECORD_BYTES + is_labeled * _FIGURE_BYTES,
        seconds=facts.seconds(n_bp, length_bp=length_bp),
    )


@dataclass(frozen=True, kw_only=True)
class _Split:
    """The sequences of one split.

    Attributes:
        task: Key of the task.
        name: Name of the split.
        lengths_bp: Length of each sequence, shape (items,).
        is_embedded: Whether a head is trained on the embeddings; variants are scored instead.
        pool_bp: Nucleotides over which the head needs only means; None if it needs each token.
        label_bytes: Stored bytes of labels per nucleotide.
    """

    task: str
    name: str
    lengths_bp: Ints
    is_embedded: bool
    pool_bp: int | None = None
    label_bytes: float = 0.0

    @property
    def label(self) -> str:
        """Name of the split in a cache."""
        return f"{self.task} {self.name}"

    @property
    def n_bp(self) -> int:
        """Number of nucleotides."""
        return int(self.lengths_bp.sum())

    @property
    def n_read_bp(self) -> int:
        """Number of nucleotides that a model reads."""
        return self.n_bp if self.is_embedded else _VARIANT_PASSES * self.n_bp

    def seconds(self, facts: ModelFacts, n_bp: int | None = None) -> float | None:
        """Estimate the time to embed it, or some nucleotides of it."""
        length_bp = self.n_bp / max(len(self.lengths_bp), 1)
        return facts.seconds(self.n_read_bp if n_bp is None else n_bp, length_bp=length_bp)


def _splits(config: DataConfig, limit: int | None = None) -> Iterator[_Split]:
    """Count the sequences of each split in the files of the tasks; no sequence is read."""
    from bend_hf.data.plain_bed import plain_bed, rows_by_split
    from bend_hf.runs.embed import EmbedConfig

    table = plain_bed(config) if isinstance(config, EmbedConfig) else None
    if table is not None:
        for name, rows in rows_by_split(table).items():
            lengths_bp = table.end_bp[rows] - table.start_bp[rows]
            yield _Split(task=table.path.name.partition(".")[0], name=name, lengths_bp=lengths_bp, is_embedded=True)
        return
    for source, message in sources_of(config):
        log.warning(message) if "NOT BEND" in message else log.info(message)
        for name, lengths_bp, task in _lengths_of(source):
            yield _Split(
                task=source.task.key if isinstance(source, BuiltSource) else source.key,
                name=name,
                lengths_bp=lengths_bp[spread(len(lengths_bp), limit)],
                is_embedded=task.head is not None,
                pool_bp=_pool_bp(config, task),
                label_bytes=_label_bytes(task),
            )


def _pool_bp(config: DataConfig, task: TaskSpec) -> int | None:
    """Return over how many nucleotides a run stores means only; None if it stores token embeddings."""
    from bend_hf.registry import names_file
    from bend_hf.training.heads import BASELINES, head_of, pooled_bp

    if not isinstance(config, RunConfig) or task.head is None or config.model in BASELINES:
        return None
    if config.head is not None and names_file(config.head):
        return None  # a user's code is not run
    return pooled_bp(head_of(config.head, task))


def _label_bytes(task: TaskSpec) -> float:
    """Return the stored bytes of labels per nucleotide; those of a whole sequence do not count."""
    match task.label:
        case NucleotideClasses():
            return _LABEL_BYTES
        case BinClasses(bin_bp=bin_bp):
            return _LABEL_BYTES / bin_bp
        case _:
            return 0.0


def _lengths_of(source: Source) -> Iterator[tuple[str, Ints, TaskSpec]]:
    from bend_hf.data.examples import read_rows

    if isinstance(source, BuiltSource):
        for name, lengths_bp in _lengths_of_built(source):
            yield name, lengths_bp, source.task
        return
    rows = read_rows(source)
    context_bp = 0 if rows.task.variant is None else 2 * rows.task.variant.context_bp
    lengths = rows.bed.end_bp - rows.bed.start_bp + context_bp
    for number, name in enumerate(rows.subset_names):
        if (rows.subset == number).any():
            yield name, lengths[rows.subset == number], rows.task


def _lengths_of_built(source: BuiltSource) -> Iterator[tuple[str, Ints]]:
    """Read the lengths of a built folder's sequences from the coordinates in its Parquet files."""
    import pyarrow.parquet as pq

    folder = Path(source.repo) / "data" / source.task.config if source.task.config else Path(source.repo) / "data"
    if not folder.is_dir():
        raise BendError(
            f"the items of {source.repo} are not counted, because nothing is downloaded for a forecast; give a data "
            "folder, or leave --dry-run out"
        )
    names = dict.fromkeys(path.name.rpartition("-")[0].split("-")[0] for path in sorted(folder.glob("*.parquet")))
    for name in names:
        files = sorted(folder.glob(f"{name}-*.parquet"))
        tables = [pq.read_table(path, columns=["start", "end"]) for path in files]
        yield name, np.concatenate([np.asarray(one["end"]) - np.asarray(one["start"]) for one in tables])


def facts_of(config: ModelFlags) -> ModelFacts:
    """Return what is known of a model without its weights; nothing is downloaded.

    Raises:
        RegistryError: The model is unknown.
    """
    from bend_hf.embedders import declared_model
    from bend_hf.registry import names_file

    spec = declared_model(config.model)
    if spec is not None and spec.source == "none":
        return ModelFacts(width=spec.width, n_parameters=0, is_cached=False)
    known = ModelFacts(
        width=None if spec is None else spec.width,
        n_parameters=None if spec is None else spec.n_parameters,
        is_causal=spec is not None and spec.direction == "causal",
    )
    if names_file(config.model):
        return known  # a user's code is not run
    network = _without_weights(config)
    if network is None:
        return _facts_in_files(config) or known
    tokens = _tokens_per_bp(network) * (2 if config.reverse_complement_average else 1)
    return ModelFacts(
        width=network.width,
        n_parameters=network.n_parameters,
        tokens_per_bp=tokens,
        identity=_identity_of(network, random=config.random_init),
        speed=Speed(config) if (network.n_parameters or 0) <= _MOST_PARAMETERS else None,
        is_causal=network.direction == "causal",
    )


def _without_weights(config: ModelFlags) -> Embedder | None:
    """Build a model with its tokenizer, but no memory for its weights; None if its files are not on this machine."""
    import torch

    from bend_hf.embedders._checkpoint_files import without_fetching
    from bend_hf.embedders.from_config import open_model

    try:
        with without_fetching(), torch.device("meta"):
            return open_model(replace(config, random_init=True))
    except (BendError, RuntimeError, ValueError, OSError) as error:
        log.debug("%s is not built without weights: %s", config.model, error)
        return None


def _facts_in_files(config: ModelFlags) -> ModelFacts | None:
    """Read the width and the number of weights of a model from its folder; None without a folder."""
    from safetensors import safe_open

    from bend_hf.embedders._checkpoint_files import read_json, resolve_checkpoint, without_fetching
    from bend_hf.embedders._weights import find_weights

    try:
        with without_fetching():
            folder = resolve_checkpoint(config.checkpoint or config.model, revision=config.revision, with_weights=False)
            settings, files = read_json(folder / "config.json"), find_weights(folder)
    except BendError as error:
        log.debug("the files of %s are not here: %s", config.model, error)
        return None
    width = next((settings[name] for name in ("hidden_size", "d_model", "n_embd") if name in settings), None)
    n_parameters = 0
    for path in files:
        if path.suffix != ".safetensors":
            return ModelFacts(width=width, n_parameters=None)
        with safe_open(path, "pt") as stored:  # reads the header
            n_parameters += sum(math.prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118  it is no dictionary
    return ModelFacts(width=width, n_parameters=n_parameters)


def _tokens_per_bp(embedder: Embedder) -> float:
    """Count the token embeddings of a random sequence."""
    if embedder.pooled:
        return 0.0
    return min(1.0, len(embedder.tokenize([_random_sequence(_PROBE_BP)]).embedding_bp) / _PROBE_BP)


def _identity_of(network: Embedder, *, random: bool) -> dict[str, str] | None:
    """Return what identifies the embeddings of a model in a cache; None if its weights are not on this machine.

    Args:
        network: The model without its weights.
        random: Whether it is used with random weights.
    """
    from bend_hf.embedders._adapter import adapter_files
    from bend_hf.embedders._checkpoint_files import sha256_of
    from bend_hf.embedders._weights import find_weights
    from bend_hf.embedders.cache.key import key_parts

    parts = key_parts("", network, "float16")
    if random:
        return parts
    try:
        files = (*find_weights(network.folder), *adapter_files(network.folder))
    except BendError as error:
        log.debug("the weights of %s are not here: %s", network.name, error)
        return None
    with without_notes():
        return {**parts, "embedder_weights": sha256_of(files)}


_NOT_COMPARED: Final = ("content", "width", "stored_dtype")


@dataclass(frozen=True, kw_only=True)
class _Cached:
    """The cache that is looked into.

    Attributes:
        folder: Its folder; None if nothing is cached.
        dtype: How embeddings are stored.
        shard_bytes: Wanted size of a shard of a new entry.
        labels: Names of all splits that are forecast.
        taken: Entries that belong to a split, by model.
    """

    folder: Path | None
    dtype: StoredDtype
    shard_bytes: int = SHARD_BYTES
    labels: frozenset[str]
    taken: set[tuple[str, Path]] = field(default_factory=set)

    def entries(self, facts: ModelFacts, split: _Split) -> Iterator[tuple[Path, ShardPlan]]:
        """Yield the cache entries of a split: of means if its head reads only those, and of token embeddings.

        No sequence is read, so that an entry is known by the number of its items and nucleotides. It does not count if
        it has the name of another split.
        """
        from bend_hf.embedders.cache.manage import list_entries

        if facts.identity is None or self.folder is None:
            return
        whole = {name: value for name, value in facts.identity.items() if name not in _NOT_COMPARED}
        means = {**whole, "pool_bp": str(split.pool_bp), "rounded_to": self.dtype}
        wanted = [whole, means] if split.pool_bp else [whole]
        for entry in list_entries(self.folder):
            plan = entry.plan
            if plan is None or (plan.items, plan.nucleotides) != (len(split.lengths_bp), split.n_bp):
                continue
            if plan.label != split.label and plan.label in self.labels:
                continue
            parts = {name: value for name, value in plan.parts.items() if name not in _NOT_COMPARED}
            if parts in wanted and plan.dtype == ("float32" if _is_pooled(plan) else self.dtype):
                yield entry.path, plan


def _is_pooled(plan: ShardPlan) -> bool:
    return "pool_bp" in plan.parts


def _forecast(
    model: str,
    facts: ModelFacts,
    split: _Split,
    cached: _Cached,
) -> Forecast:
    start = Forecast(
        task=split.task,
        split=split.name,
        model=model,
        n_items=len(split.lengths_bp),
        n_bp=split.n_read_bp,
        is_known=facts.identity is not None,
    )
    dtype = cached.dtype
    if cached.folder is None or not facts.is_cached or not split.is_embedded:
        return replace(start, n_bytes=0, seconds=split.seconds(facts))
    for path, plan in cached.entries(facts, split):
        if (model, path) in cached.taken:
            continue  # by another split of the same size
        shards = ShardFiles.of_entry(path, plan.n_shards)
        finished = [one.record.exists() for one in shards]
        is_whole = all(finished)
        if split.pool_bp and not _is_pooled(plan) and not is_whole:
            continue  # means are taken from token embeddings if all are there
        cached.taken.add((model, path))
        ranges = pairwise(plan.shard_starts)
        missing = [split.lengths_bp[low:high] for (low, high), done in zip(ranges, finished, strict=True) if not done]
        n_bp = sum(int(lengths_bp.sum()) for lengths_bp in missing)
        return replace(
            start,
            n_shards=plan.n_shards,
            n_finished=sum(finished),
            n_bytes=sum(_bytes_of(lengths_bp, facts, split, dtype) or 0 for lengths_bp in missing),
            seconds=split.seconds(facts, n_bp),
        )
    n_bytes = _bytes_of(split.lengths_bp, facts, split, dtype)
    if n_bytes is None or facts.width is None:
        return replace(start, n_shards=1, seconds=split.seconds(facts))
    stored: StoredDtype = "float32" if split.pool_bp else dtype
    per_bp = 1 / split.pool_bp if split.pool_bp else facts.tokens_per_bp or start.n_items / max(split.n_bp, 1)
    shard_bp = int(cached.shard_bytes / (per_bp * embedding_bytes(facts.width, stored)))
    n_shards = len(shard_starts(split.lengths_bp, shard_bp=shard_bp)) - 1
    return replace(start, n_shards=n_shards, n_bytes=n_bytes, seconds=split.seconds(facts))


def _bytes_of(lengths_bp: Ints, facts: ModelFacts, split: _Split, dtype: StoredDtype) -> int | None:
    """Estimate the bytes of a shard of some sequences of a split; None if the width is not known."""
    if facts.width is None:
        return None
    n_bp, n_items = int(lengths_bp.sum()), len(lengths_bp)
    n_rows, stored = n_bp * facts.tokens_per_bp or n_items, dtype
    if split.pool_bp:
        n_rows, stored = float((-(-lengths_bp // split.pool_bp)).sum()), "float32"
    further = n_bp * split.label_bytes + n_items * _ITEM_BYTES + _SHARD_BYTES
    return int(n_rows * embedding_bytes(facts.width, stored) + further)


def forecast_table(found: Sequence[Forecast]) -> Table:
    """Return one row per split and model, and one for all of them."""
    rows = [
        (
            one.task,
            one.split,
            one.model,
            *_amounts(one.n_items, one.n_bp, one.n_shards, one.n_bytes, one.seconds),
            one.state,
        )
        for one in found
    ]
    if len(found) > 1:
        sums = [
            _sum([getattr(one, name) for one in found])
            for name in ("n_items", "n_bp", "n_shards", "n_bytes", "seconds")
        ]
        rows.append(("all", "", "", *_amounts(*sums), ""))
    return Table(header=("task", "split", "model", "items", "Mbp", "shards", "GB", "time", "embeddings"), rows=rows)


def _sum(numbers: Sequence[float | None]) -> float | None:
    known = [one for one in numbers if one is not None]
    return sum(known) if len(known) == len(numbers) else None


def _amounts(*numbers: float | None) -> tuple[str, ...]:
    n_items, n_bp, n_shards, n_bytes, seconds = numbers
    return (
        f"{n_items or 0:,.0f}",
        f"{(n_bp or 0) / 1e6:,.2f}",
        f"{n_shards or 0:,.0f}",
        "unknown" if n_bytes is None else f"{n_bytes / 1e9:.3f}",
        "unknown" if seconds is None else f"about {duration(seconds)}",
    )
