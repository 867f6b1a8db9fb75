"""Open several layers of a model: each is a cache entry of its own, and one forward pass fills all that are missing.

The entry of a layer is the one that a run with ``--layer`` reads, so either finds what the other stored, and leases,
checksums, resuming and pruning work per layer. If the disk cannot hold what is missing, or without a cache, the layers
are computed together each time they are read.

>>> by_cut([("a", (0, 4)), ("b", (0, 2, 4)), ("c", (0, 4))])
[['a', 'c'], ['b']]
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

import pyarrow as pa

from bend_hf.embedders._spec import TokenEmbeddings
from bend_hf.embedders.cache.as_dataset import describe_dataset
from bend_hf.embedders.cache.fill import (
    RankSlice,
    explained,
    missing_shards,
    shard_order,
    static_share,
    sweep_finished,
    why_static,
)
from bend_hf.embedders.cache.open import CacheEntry, CacheSettings, find_entry, worth_caching
from bend_hf.embedders.cache.reader import CachedEmbeddings
from bend_hf.embedders.cache.shards import ShardFiles, State
from bend_hf.embedders.cache.writer import Feed, ShardWriter, TokenColumns, UnstorableError, no_bars, stored_features
from bend_hf.embedders.layers import LayersOnTheFly, layer_view, layers_view
from bend_hf.errors import CacheError
from bend_hf.lease import Lease, Watch, take, unshared
from bend_hf.tables import n_bytes

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

    from bend_hf.embedders._embedder import Embedder
    from bend_hf.embedders.token_embeddings import EmbeddingSource

log = logging.getLogger(__name__)

_POLL_S: Final = (0.05, 2.0)  # first and longest wait for a shard that another process fills, as in fill
_SPARE: Final = 1.02  # as in estimate: the disk must hold what is missing and a little more
Key = TypeVar("Key")


def open_layers(
    datasets: Sequence[Dataset],
    embedder: Embedder,
    layers: Sequence[int],
    settings: CacheSettings | None = None,
    *,
    accelerator: Accelerator | None = None,
    label: str = "",
) -> dict[int, EmbeddingSource]:
    """Open several layers of a split; every process of a run calls it, as ``open_embeddings``.

    Args:
        datasets: What the split consists of.
        embedder: The model.
        layers: Counted from 0, see ``embedders.layers``.
        settings: Where and how embeddings are cached.
        accelerator: The processes of the run; None if this is the only one.
        label: Name in ``bend-hf cache list``.

    Raises:
        CacheError: A number does not fit the dtype.
    """
    import datasets as hf

    settings = settings or CacheSettings()
    whole = datasets[0] if len(datasets) == 1 else hf.concatenate_datasets(list(datasets))
    if settings.no_cache or not worth_caching(embedder):
        shared = LayersOnTheFly(whole, embedder, layers)
        return {layer: shared.at(layer) for layer in layers}
    entries: dict[int, list[CacheEntry]] = {}
    like: Sequence[CacheEntry | None] = [None] * len(datasets)
    for layer in layers:
        view = layer_view(embedder, layer)
        entries[layer] = [
            find_entry(subset, view, settings, label=f"{label} layer {layer}", like=one)
            for subset, one in zip(datasets, like, strict=True)
        ]
        like = entries[layer]
    needed, free = _missing_bytes(entries), shutil.disk_usage(next(iter(entries.values()))[0].folder.parent).free
    if _of_first_process(needed * _SPARE > free, accelerator):
        log.warning(
            "%s: %d layers take %s, but the disk of the cache has %s free; they are computed each time they are read",
            label,
            len(layers),
            n_bytes(needed),
            n_bytes(free),
        )
        shared = LayersOnTheFly(whole, embedder, layers)
        return {layer: shared.at(layer) for layer in layers}
    for place in range(len(datasets)):
        fill_layers(
            {layer: of_layer[place] for layer, of_layer in entries.items()}, embedder, RankSlice.of(accelerator)
        )
    return {
        layer: CachedEmbeddings.of([files for entry in of_layer for files in entry.shards], dtype=settings.stored_dtype)
        for layer, of_layer in entries.items()
    }


def _of_first_process(answer: bool, accelerator: Accelerator | None) -> bool:
    """Return the answer of the first process, so that all of a run do the same."""
    if accelerator is None or accelerator.num_processes == 1:
        return answer
    from accelerate.utils import broadcast_object_list

    answers = [answer]
    broadcast_object_list(answers)
    return answers[0]


def _missing_bytes(entries: Mapping[int, Sequence[CacheEntry]]) -> int:
    return sum(
        entry.plan.estimate_bytes(_writer(entry).n_bp(files))
        for of_layer in entries.values()
        for entry in of_layer
        for files in missing_shards(entry.shards)
    )


def _writer(entry: CacheEntry) -> ShardWriter:
    return ShardWriter(plan=entry.plan, dataset=entry.dataset, lengths_bp=entry.content.lengths_bp)


def by_cut(cuts: Sequence[tuple[Key, tuple[int, ...]]]) -> list[list[Key]]:
    """Group keys by the first items of their shards, in the order given."""
    groups: dict[tuple[int, ...], list[Key]] = {}
    for key, starts in cuts:
        groups.setdefault(starts, []).append(key)
    return list(groups.values())


def fill_layers(entries: Mapping[int, CacheEntry], embedder: Embedder, here: RankSlice) -> None:
    """Return when every shard of every layer is good; a shard that several layers lack is embedded once.

    Args:
        entries: The entry of each layer, of one dataset.
        embedder: The model.
        here: Which of several processes this is.

    Raises:
        CacheError: The disk is full, or a number cannot be stored; the message names the layer.
    """
    for entry in entries.values():
        stored_features(entry.dataset.features, entry.plan.width, entry.plan.dtype)  # raises before it embeds
    with no_bars(), embedder.runner().fixed():
        for layers in by_cut([(layer, entry.plan.shard_starts) for layer, entry in entries.items()]):
            _fill_alike({layer: entries[layer] for layer in layers}, embedder, here)
    for entry in entries.values():
        sweep_finished(entry.shards)
        features = stored_features(entry.dataset.features, entry.plan.width, entry.plan.dtype)
        describe_dataset(entry.folder, entry.plan, entry.shards, features)


def _fill_alike(entries: Mapping[int, CacheEntry], embedder: Embedder, here: RankSlice) -> None:
    """Fill entries whose shards hold the same items."""
    lacking = {layer: {files.number for files in missing_shards(entry.shards)} for layer, entry in entries.items()}
    numbers = sorted(set().union(*lacking.values()))
    if numbers and here.rank == 0:
        entry = next(iter(entries.values()))
        log.info(
            "%s: embedding %d of %d shards with %d layers together",
            entry.plan.label,
            len(numbers),
            entry.plan.n_shards,
            len(entries),
        )
    reason = why_static(next(iter(entries.values())).folder, here) if numbers else None
    place = {"rank": here.rank, "n_processes": here.n_processes}
    if reason is not None:
        log.warning(
            "no leases (%s): this process computes the static share %d/%d of each layer",
            reason,
            here.rank,
            here.n_processes,
        )
        here = replace(here, leases=False)
    watch, wait_s = Watch(), _POLL_S[0]
    pending = shard_order(numbers, **place) if here.leases else static_share(numbers, **place)
    while pending:
        left = []
        for number in pending:
            wanted = {layer: entries[layer].shards[number] for layer in entries if number in lacking[layer]}
            if not _fill_shard(entries, wanted, embedder, watch, here):
                left.append(number)
        wait_s = min(2 * wait_s, _POLL_S[1]) if len(left) == len(pending) else _POLL_S[0]
        if len(left) == len(pending):
            time.sleep(wait_s)
        pending = left
    while not here.leases and any(missing_shards(entry.shards) for entry in entries.values()):
        time.sleep(_POLL_S[1])  # for the shares of the others


def _fill_shard(
    entries: Mapping[int, CacheEntry],
    wanted: Mapping[int, ShardFiles],
    embedder: Embedder,
    watch: Watch,
    here: RankSlice,
) -> bool:
    """Fill one shard of the layers that no other process fills; return whether none of them is missing now.

    The lease of the first missing layer decides between processes that fill the same layers.
    """
    with ExitStack() as leases:
        mine: dict[int, tuple[ShardFiles, Lease]] = {}
        others = 0
        for layer, files in wanted.items():
            if files.state() is State.GOOD:
                continue
            lease = take(files.lock, watch) if here.leases else unshared(files.lock)
            if lease is None and not mine:
                return False  # its holder takes the other layers too, and embeds the shard once
            if lease is None:
                others += 1
                continue
            leases.enter_context(lease)
            if files.state() is not State.GOOD:  # finished between the look and the lease
                mine[layer] = (files, lease)
        if mine:
            _embed_shard(entries, mine, embedder, sweeps=here.leases or here.n_processes > 1)
    return not others


def _embed_shard(
    entries: Mapping[int, CacheEntry],
    mine: Mapping[int, tuple[ShardFiles, Lease]],
    embedder: Embedder,
    *,
    sweeps: bool,
) -> None:
    """Embed one shard once, and write it for each layer in a thread of its own.

    Args:
        entries: The entry of each layer.
        mine: The files of the shard for each layer that this process fills, with their leases.
        embedder: The model.
        sweeps: Whether no other process writes these shards, so that what was left of them may be removed.
    """
    layers = tuple(mine)
    writers = {layer: _writer(entries[layer]) for layer in layers}
    feeds = {layer: Feed() for layer in layers}
    first = layers[0]
    with ThreadPoolExecutor(len(layers), thread_name_prefix="write layer") as threads:
        writing = {layer: threads.submit(_write, writers[layer], mine[layer], feeds[layer], sweeps) for layer in layers}
        try:
            columns = LayerColumns(embedder, entries, layers)
            for batch in columns.of(writers[first].batches(mine[first][0])):
                for layer, made in zip(layers, batch, strict=True):
                    feeds[layer].put(mine[layer][0].number, made, lambda: _check(writing))
        except BaseException as error:
            for layer in layers:
                feeds[layer].stop(writing[layer])
            wait(writing.values())
            if isinstance(error, UnstorableError):
                name = writers[first].item_name(mine[first][0], error.position)
                raise CacheError(f"{name}: {error}") from error
            raise
        wait(writing.values())
        _check(writing)


def _write(writer: ShardWriter, mine: tuple[ShardFiles, Lease], feed: Feed, sweeps: bool) -> None:
    files, lease = mine
    with explained(files):
        if sweeps:
            files.sweep()
        writer.write(files, lease.token, feed, lambda n_bp: None)


def _check(writing: Mapping[int, Future[None]]) -> None:
    """Raise the error of a layer that could not be written."""
    for future in writing.values():
        if future.done():
            future.result()


class LayerColumns:
    """Turns sequences into the two columns of each layer; memory is bounded by one batch of all layers.

    Args:
        embedder: The model.
        entries: The entry of each layer.
        layers: Which layers, counted from 0.
    """

    def __init__(self, embedder: Embedder, entries: Mapping[int, CacheEntry], layers: Sequence[int]) -> None:
        plan = entries[layers[0]].plan
        self._layers, self._width = tuple(layers), plan.width
        self._together = TokenColumns(layers_view(embedder, layers), plan.dtype, plan.rows_per_bp)
        self._apart = [
            TokenColumns(entries[layer].embedder, plan.dtype, plan.rows_per_bp, entries[layer].pooling)
            for layer in layers
        ]

    def of(self, batches: Iterator[list[str]]) -> Iterator[list[tuple[pa.Array, pa.Array]]]:
        """Yield embeddings and token lengths of each batch, for each layer.

        Raises:
            UnstorableError: A number of a layer cannot be stored.
        """
        n_before = 0
        for sequences in batches:
            items = list(self._together.embed(iter(sequences)))
            made, n_bp = [], sum(map(len, sequences))
            for place, (layer, columns) in enumerate(zip(self._layers, self._apart, strict=True)):
                own = slice(place * self._width, (place + 1) * self._width)
                parts = (TokenEmbeddings(values=one.values[:, own], embedding_bp=one.embedding_bp) for one in items)
                try:
                    made.append(columns.columns(parts, n_bp=n_bp))
                except UnstorableError as error:
                    raise UnstorableError(f"layer {layer}: {error}", n_before + error.position) from error
            n_before += len(sequences)
            yield made
