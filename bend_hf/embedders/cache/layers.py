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
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa

from bend_hf.embedders._spec import TokenEmbeddings
from bend_hf.embedders.cache.as_dataset import describe_dataset
from bend_hf.embedders.cache.fill import (
    RankSlice,
    missing_shards,
    shard_order,
    static_share,
    sweep_finished,
    why_static,
)
from bend_hf.embedders.cache.open import CacheEntry, CacheSettings, find_entry, worth_caching
from bend_hf.embedders.cache.reader import CachedEmbeddings
from bend_hf.embedders.cache.shards import ShardFiles, State
from bend_hf.embedders.cache.stream import Claim, ShardStream
from bend_hf.embedders.cache.writer import ShardWriter, TokenColumns, UnstorableError, no_bars, stored_features
from bend_hf.embedders.layers import LayersOnTheFly, layer_view, layers_view
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
MakeColumns: TypeAlias = Callable[[], tuple[pa.Array, pa.Array]]


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
    wanted = {number: {layer for layer in entries if number in lacking[layer]} for number in pending}
    while pending:
        claims = _Claims(entries, wanted, watch if here.leases else None)
        _fill_claimed(entries, claims.of(pending), embedder, sweeps=here.leases or here.n_processes > 1)
        wait_s = min(2 * wait_s, _POLL_S[1]) if len(claims.held) == len(pending) else _POLL_S[0]
        if len(claims.held) == len(pending):
            time.sleep(wait_s)
        pending = claims.held
    while not here.leases and any(missing_shards(entry.shards) for entry in entries.values()):
        time.sleep(_POLL_S[1])  # for the shares of the others


class _Claims:
    """Takes shards of several layers for this process.

    Args:
        entries: The entry of each layer.
        wanted: The layers that lack each shard, by its number.
        watch: Recognizes leases of dead processes; None: no leases divide the shards between processes.

    Attributes:
        held: Numbers of shards of which other processes fill a layer.
    """

    def __init__(
        self, entries: Mapping[int, CacheEntry], wanted: Mapping[int, Collection[int]], watch: Watch | None
    ) -> None:
        self._entries, self._wanted, self._watch = entries, wanted, watch
        self.held: list[int] = []

    def of(self, numbers: Sequence[int]) -> Iterator[tuple[tuple[int, ...], Claim]]:
        """Yield the layers of each shard that are missing and that no other process fills, when they are needed."""
        for number in numbers:
            layers, claim = self._take(number)
            if layers:
                yield layers, claim

    def _take(self, number: int) -> tuple[tuple[int, ...], Claim]:
        """Take the missing layers of a shard; the lease of the first decides between processes that fill the same."""
        mine: dict[int, tuple[ShardFiles, Lease]] = {}
        with ExitStack() as on_error:
            for layer, entry in self._entries.items():
                files = entry.shards[number]
                if layer not in self._wanted[number] or files.state() is State.GOOD:
                    continue
                lease = unshared(files.lock) if self._watch is None else take(files.lock, self._watch)
                if lease is None:
                    self.held += [number] if number not in self.held else []
                    if not mine:
                        break  # its holder takes the other layers too, and embeds the shard once
                elif files.state() is State.GOOD:  # finished between the look and the lease
                    lease.release()
                else:
                    on_error.callback(lease.release)
                    mine[layer] = (files, lease)
            on_error.pop_all()
        return tuple(mine), Claim(
            files=[files for files, _ in mine.values()], leases=[lease for _, lease in mine.values()]
        )


def _fill_claimed(
    entries: Mapping[int, CacheEntry],
    claims: Iterator[tuple[tuple[int, ...], Claim]],
    embedder: Embedder,
    *,
    sweeps: bool,
) -> None:
    """Embed claimed shards; those that follow one another and lack the same layers are one stream."""
    first = next(claims, None)
    while first is not None:
        layers, (following, after) = first[0], _run_of(first, claims)
        writers = [_writer(entries[layer]) for layer in layers]
        columns = LayerColumns(embedder, entries, layers)
        with ShardStream(writers, columns, lambda n_bp: None, sweeps=sweeps) as stream:
            stream.fill(following)
        first = next(after, None)


def _run_of(
    first: tuple[tuple[int, ...], Claim], claims: Iterator[tuple[tuple[int, ...], Claim]]
) -> tuple[Iterator[Claim], Iterator[tuple[tuple[int, ...], Claim]]]:
    """Return the claims with the layers of the first one up to the first of others, and what follows these."""
    others: list[tuple[tuple[int, ...], Claim]] = []

    def run() -> Iterator[Claim]:
        yield first[1]
        for one in claims:
            if one[0] != first[0]:
                others.append(one)
                return
            yield one[1]

    def after() -> Iterator[tuple[tuple[int, ...], Claim]]:
        yield from others

    return run(), after()


class LayerColumns:
    """Turns sequences into the two columns of each layer, which are written to a buffer of the layer as computed.

    Args:
        embedder: The model.
        entries: The entry of each layer.
        layers: Which layers, counted from 0.
    """

    def __init__(self, embedder: Embedder, entries: Mapping[int, CacheEntry], layers: Sequence[int]) -> None:
        plan = entries[layers[0]].plan
        self._layers, self._width = tuple(layers), plan.width
        self._view = layers_view(embedder, layers)
        self._together = TokenColumns(self._view, plan.dtype, plan.rows_per_bp)
        self._apart = [
            TokenColumns(entries[layer].embedder, plan.dtype, plan.rows_per_bp, entries[layer].pooling)
            for layer in layers
        ]

    def of_layers(self, batches: Iterator[list[str]]) -> Generator[list[tuple[pa.Array, pa.Array]], None, None]:
        """Yield embeddings and token lengths of each batch, for each layer.

        Raises:
            UnstorableError: A number of a layer cannot be stored.
        """
        n_before = 0
        with closing(self._stored(batches) if self._view.overlaps else self._plain(batches)) as made:
            for make_columns, n in made:
                found = []
                for layer, make in zip(self._layers, make_columns, strict=True):
                    try:
                        found.append(make())
                    except UnstorableError as error:
                        raise UnstorableError(f"layer {layer}: {error}", n_before + error.position) from error
                n_before += n
                yield found

    def _stored(self, batches: Iterator[list[str]]) -> Generator[tuple[list[MakeColumns], int], None, None]:
        """Yield what makes the columns of each layer of a batch, and its number of sequences."""
        given: deque[list[str]] = deque()

        def remember() -> Iterator[list[str]]:
            for sequences in batches:
                given.append(sequences)
                yield sequences

        with closing(self._view.iter_stored_layers(remember(), self._apart[0].storage)) as units:
            for unit in units:
                sequences = given.popleft()
                yield (
                    [partial(columns.around, rows, sequences) for columns, rows in zip(self._apart, unit, strict=True)],
                    len(sequences),
                )

    def _plain(self, batches: Iterator[list[str]]) -> Generator[tuple[list[MakeColumns], int], None, None]:
        """Do the same for an embedder whose stages do not overlap."""
        for sequences in batches:
            items, n_bp = list(self._together.embed(iter(sequences))), sum(map(len, sequences))
            split = [np.split(item.values, len(self._layers), axis=1) for item in items]
            parts = [
                [
                    TokenEmbeddings(values=of_layers[place], embedding_bp=item.embedding_bp)
                    for of_layers, item in zip(split, items, strict=True)
                ]
                for place in range(len(self._layers))
            ]
            yield (
                [partial(columns.columns, own, n_bp=n_bp) for columns, own in zip(self._apart, parts, strict=True)],
                len(sequences),
            )
