"""Tokenizing, the device and the caller overlap; each row is written once, with the bits of a plain pass."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from torch import Tensor

from bend_hf.embedders import _embedder as embedder_module
from bend_hf.embedders import load_embedder
from bend_hf.embedders._alignment import Tokenized, TokenMap, TokenStream, Window, assemble
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders._pipeline import Rows, Storage, ahead, numpy_rows
from bend_hf.embedders._pooling import Windows
from bend_hf.embedders._spec import TokenEmbeddings
from bend_hf.embedders._tokens import Nucleotides, nucleotide_table, single_nucleotides
from bend_hf.embedders.cache.dtypes import encode, torch_dtype
from bend_hf.embedders.cache.pooling import Pooling
from bend_hf.embedders.cache.shards import ShardFiles
from bend_hf.embedders.cache.stream import Claim, ShardStream
from bend_hf.embedders.cache.writer import Feed, OnBatch, ShardWriter, TokenColumns
from bend_hf.embedders.layers import layers_view
from bend_hf.embedders.token_embeddings import OnTheFly
from bend_hf.lease import unshared
from bend_hf.types import StoredDtype
from tests.busy import is_kept_busy, share_of
from tests.fake_checkpoints import make_tiny

WIDTH = 6


class Artificial(Embedder):
    """Random embeddings of single nucleotides, with a device and a tokenizer that take a given time."""

    needs_checkpoint = False
    seconds = 0.0
    repeats_first = False

    def _load(self) -> None:
        self._table = nucleotide_table({"A": 0, "C": 1, "G": 2, "T": 3}, unknown=4)
        self._weights = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
        self.busy: list[tuple[float, float]] = []

    @property
    def width(self) -> int:
        return WIDTH

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        time.sleep(self.seconds)  # the stage itself, not a wait for something
        stream = single_nucleotides(Nucleotides.of(sequences), self._table)
        return assemble(stream, Window(context_tokens=None), token_map=self._map(stream))

    def _map(self, stream: TokenStream) -> TokenMap | None:
        """Repeat the first token of each sequence before its last, which then counts no nucleotide of its own."""
        if not self.repeats_first:
            return None
        token = np.arange(len(stream.ids))
        token[stream.starts[1:] - 1] = stream.starts[:-1]
        return TokenMap(token=token, bp=stream.token_bp, starts=stream.starts)

    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        begin = time.perf_counter()
        time.sleep(self.seconds)
        found = self._weights[ids_BT] + torch.arange(ids_BT.shape[1])[:, None]
        self.busy.append((begin, time.perf_counter()))
        return found


def some_sequences(n: int, lengths: tuple[int, ...]) -> list[str]:
    random = np.random.default_rng(0)
    return ["".join(random.choice(list("ACGTN"), lengths[place % len(lengths)])) for place in range(n)]


def plain(embedder: Embedder, sequences: list[str]) -> list[np.ndarray]:
    return [embedder.embed_tokens([sequence])[0].values for sequence in sequences]


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> Artificial:
    """An embedder with many groups: 8 batches of 16 tokens each."""
    monkeypatch.setattr(embedder_module, "_GROUP_BYTES", {"cpu": 0})
    return Artificial(batch_tokens=16, device="cpu")


def busy_share(embedder: Artificial, stage_s: float) -> float:
    embedder.seconds = stage_s
    embedder.load()
    embedder.busy.clear()
    units = [[sequence] for sequence in some_sequences(30, (600,))]
    for _ in embedder.iter_stored(units, torch.float16):
        time.sleep(stage_s)  # the caller's stage
    return share_of(embedder.busy)


def test_the_device_is_busy_over_95_percent_at_equal_costs(small_groups: Artificial) -> None:
    assert is_kept_busy(lambda stage_s: busy_share(small_groups, stage_s))


class SlowWriter(ShardWriter):
    """Reads two sequences for each shard, each a batch, and writes a batch as slowly as the device computes it."""

    seconds = 0.0
    written: list[int] = []  # noqa: RUF012  of the test that set it

    def batches(self, files: ShardFiles) -> Iterator[list[str]]:
        for sequence in some_sequences(2, (600,)):
            yield [sequence]

    def write(self, files: ShardFiles, token: str, feed: Feed, on_batch: OnBatch) -> None:
        for _ in range(2):
            feed.get(files.number)
            time.sleep(self.seconds)
            on_batch(600)
        self.written.append(files.number)


def test_the_device_does_not_wait_between_shards(small_groups: Artificial, tmp_path: Path) -> None:
    def share(stage_s: float) -> float:
        small_groups.seconds = SlowWriter.seconds = stage_s
        small_groups.load()
        small_groups.busy.clear()
        SlowWriter.written = []
        claimed: list[int] = []

        def claims() -> Iterator[Claim]:
            for files in ShardFiles.of_entry(tmp_path, 12):
                claimed.append(files.number)
                assert len(claimed) - len(SlowWriter.written) < 8  # no shard is held long before its turn
                yield Claim(files=(files,), leases=(unshared(files.lock),))

        writer = SlowWriter(plan=None, dataset=None, lengths_bp=None)  # type: ignore[arg-type]  # nothing is read of them
        with ShardStream([writer], TokenColumns(small_groups, "float16"), lambda n_bp: None) as stream:
            stream.fill(claims())
        assert SlowWriter.written == list(range(12))
        return share_of(small_groups.busy)

    assert is_kept_busy(share)


def test_a_batch_is_embedded_while_the_one_before_is_used(small_groups: Artificial) -> None:
    dataset = datasets.Dataset.from_dict({"sequence": some_sequences(20, (600,))})

    def share(stage_s: float) -> float:
        small_groups.seconds = stage_s
        small_groups.load()
        small_groups.busy.clear()
        for _ in OnTheFly(dataset, small_groups).stream([np.array([row]) for row in range(20)]):
            time.sleep(stage_s)  # a step of the training
        return share_of(small_groups.busy)

    assert is_kept_busy(share)


def test_streamed_batches_have_the_bits_of_single_ones(small_groups: Artificial) -> None:
    sequences = some_sequences(30, (3, 17, 40, 1, 25))
    source = OnTheFly(datasets.Dataset.from_dict({"sequence": sequences}), small_groups)
    slices = [np.array([4, 2]), np.array([29]), np.arange(20)[::-1]]
    for found, rows in zip(source.stream(iter(slices)), slices, strict=True):
        expected = source.rows(rows)
        np.testing.assert_array_equal(found.x_BTD.numpy(), expected.x_BTD)
        np.testing.assert_array_equal(found.token_of_BL.numpy(), expected.token_of_BL)


@pytest.mark.parametrize("per_unit", [1, 7, 60], ids=["split groups", "across groups", "one unit"])
@pytest.mark.parametrize("repeats_first", [False, True], ids=["in order", "repeated"])
def test_means_of_a_stream_are_those_of_each_sequence(
    small_groups: Artificial, per_unit: int, repeats_first: bool
) -> None:
    small_groups.repeats_first = repeats_first
    sequences = some_sequences(60, (3, 17, 40, 1, 25))
    units = [sequences[at : at + per_unit] for at in range(0, len(sequences), per_unit)]
    found = list(small_groups.iter_stored(iter(units), torch.float16, rows_per_bp=0.1, pool_bp=8))
    pooling = Pooling(pool_bp=8, rounded_to="float16")
    means = [unit.values.numpy()[first:last] for unit in found for first, last in pairwise(unit.starts.tolist())]
    lengths = [unit.bp[first:last] for unit in found for first, last in pairwise(unit.starts.tolist())]
    for mean, bp, sequence in zip(means, lengths, sequences, strict=True):
        (item,) = small_groups.embed_tokens([sequence])
        expected = pooling.of(TokenEmbeddings(values=item.values, embedding_bp=item.embedding_bp))
        np.testing.assert_array_equal(mean, expected.values)
        np.testing.assert_array_equal(bp, expected.embedding_bp)
        one_by_one = encode(item.upsampled(), "float16").astype(np.float32)  # an oracle: each nucleotide has a row
        by_hand = np.stack([one_by_one[at : at + 8].mean(axis=0) for at in range(0, len(sequence), 8)])
        np.testing.assert_allclose(mean, by_hand, rtol=1e-5)


def test_a_token_counts_in_each_window_by_its_nucleotides_there() -> None:
    random = np.random.default_rng(0)
    counts = random.integers(1, 9, 20)
    starts, bp = np.concatenate([[0], np.cumsum(counts)]), random.integers(1, 14, counts.sum())
    values = random.normal(size=(counts.sum(), 3)).astype(np.float32)
    windows = Windows.of(starts, bp, pool_bp=5)
    found = windows.means(torch.from_numpy(values)).numpy()
    for sequence, (first, last) in enumerate(pairwise(starts.tolist())):
        rows = np.repeat(values[first:last], bp[first:last], axis=0).astype(np.float64)
        expected = np.stack([rows[at : at + 5].mean(axis=0) for at in range(0, len(rows), 5)])
        own = slice(windows.starts[sequence], windows.starts[sequence + 1])
        np.testing.assert_allclose(found[own], expected, rtol=1e-4, atol=1e-6)
        assert windows.bp[own].sum() == len(rows)


@pytest.mark.parametrize("at_once", [1, 7, 40])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_means_do_not_depend_on_how_many_windows_are_averaged_at_a_time(
    at_once: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    counts = np.array([9, 0, 30, 1, 17])
    starts = np.concatenate([[0], np.cumsum(counts)])
    values = torch.from_numpy(random.normal(size=(counts.sum(), 3)).astype(np.float32)).to(dtype)
    for bp in (np.ones(counts.sum(), np.int64), random.integers(1, 14, counts.sum())):
        windows = Windows.of(starts, bp, pool_bp=5)
        monkeypatch.setattr("bend_hf.embedders._pooling._PIECES_AT_ONCE", 10_000)
        whole = windows.means(values)
        monkeypatch.setattr("bend_hf.embedders._pooling._PIECES_AT_ONCE", at_once)
        assert torch.equal(windows.means(values), whole)
        assert np.array_equal(windows.means_of_array(values.float().numpy()), whole.numpy())


def test_layers_are_stored_apart_and_written_once(small_groups: Artificial, monkeypatch: pytest.MonkeyPatch) -> None:
    states = lambda self, ids, mask, layer: torch.cat([self._weights[ids] * (one + 1) for one in self.layers], -1)  # noqa: E731
    monkeypatch.setattr(Artificial, "_hidden", states)
    kept: dict[int, Rows] = {}
    place = Rows.place
    monkeypatch.setattr(Rows, "place", lambda self, *given: (kept.update({id(self): self}), place(self, *given))[1])
    view = layers_view(small_groups, (0, 1, 4))
    sequences = some_sequences(30, (3, 17, 40, 1, 25))
    units = list(view.iter_stored_layers(iter([sequences[:11], sequences[11:]]), Storage(dtype=torch.float16)))
    for unit, own in zip(units, (sequences[:11], sequences[11:]), strict=True):
        for rows, factor in zip(unit, (1, 2, 5), strict=True):
            ids = ["ACGT".find(letter) % 5 for sequence in own for letter in sequence]
            expected = small_groups._weights[torch.tensor(ids)] * factor
            torch.testing.assert_close(rows.values, expected.half(), rtol=0, atol=0)
            assert rows.values.is_contiguous()
    assert sum(rows.n_bytes_written for rows in kept.values()) == 3 * 2 * WIDTH * sum(map(len, sequences))


@pytest.mark.parametrize("repeats_first", [False, True], ids=["in order", "repeated"])
def test_overlapped_rows_are_those_of_a_plain_pass(small_groups: Artificial, repeats_first: bool) -> None:
    small_groups.repeats_first = repeats_first
    sequences = some_sequences(60, (3, 17, 40, 1, 25))
    found = list(small_groups.iter_tokens(iter(sequences)))
    for one, expected, sequence in zip(found, plain(small_groups, sequences), sequences, strict=True):
        np.testing.assert_array_equal(one.values, expected)
        assert one.embedding_bp.sum() == len(sequence)


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
@pytest.mark.parametrize("per_unit", [1, 7, 60], ids=["split groups", "across groups", "one unit"])
def test_stored_rows_have_the_bits_of_rounded_embeddings(
    small_groups: Artificial, dtype: StoredDtype, per_unit: int
) -> None:
    small_groups.repeats_first = True
    sequences = some_sequences(60, (3, 17, 40, 1, 25))
    units = [sequences[at : at + per_unit] for at in range(0, len(sequences), per_unit)]
    found = list(small_groups.iter_stored(iter(units), torch_dtype(dtype), rows_per_bp=0.5))
    assert [len(unit.starts) - 1 for unit in found] == [len(unit) for unit in units]
    rows = [numpy_rows(unit.values)[first:last] for unit in found for first, last in pairwise(unit.starts.tolist())]
    for one, expected in zip(rows, plain(small_groups, sequences), strict=True):
        np.testing.assert_array_equal(one, encode(expected, dtype))


def test_each_stored_byte_is_written_once_and_arrow_wraps_it(
    small_groups: Artificial, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Rows] = []
    place = Rows.place
    monkeypatch.setattr(Rows, "place", lambda self, *given: (kept.append(self), place(self, *given))[1])
    sequences = some_sequences(60, (3, 17, 40, 1, 25))
    columns = list(TokenColumns(small_groups, "float16").of([sequences[:30], sequences[30:]]))
    stored = sum(embeddings.values.values.nbytes for embeddings, _ in columns)
    assert sum(rows.n_bytes_written for rows in {id(rows): rows for rows in kept}.values()) == stored
    assert stored == 2 * WIDTH * sum(map(len, sequences))
    spans = [
        (view.data_ptr(), view.data_ptr() + view.nbytes)
        for rows in {id(rows): rows for rows in kept}.values()
        for view in rows.views
    ]
    for embeddings, _ in columns:
        begin = embeddings.values.values.buffers()[1].address
        end = begin + embeddings.values.values.nbytes
        within = [(low, high) for low, high in spans if begin <= low and high <= end]
        assert sum(high - low for low, high in within) == end - begin


class Crowded(Artificial):
    """Has memory for 600 tokens at a time."""

    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        if ids_BT.numel() > 600:
            raise torch.cuda.OutOfMemoryError
        return super()._hidden(ids_BT, mask_BT, layer)


def test_too_large_batches_are_halved_and_no_row_is_lost_or_doubled() -> None:
    sequences = some_sequences(60, (3, 17, 40, 1, 25))
    crowded = Crowded(batch_tokens=1300, device="cpu")
    (unit,) = crowded.iter_stored([sequences], torch.float32)
    np.testing.assert_array_equal(unit.values.numpy(), np.concatenate(plain(Artificial(device="cpu"), sequences)))
    assert crowded.runner().default_tokens == 325


def test_an_error_is_raised_at_its_place_and_ends_the_threads(small_groups: Artificial) -> None:
    def sequences() -> Iterator[str]:
        yield from some_sequences(20, (40,))
        raise OSError("the file cannot be read")

    found = []
    with pytest.raises(OSError, match="the file cannot be read"):
        found.extend(small_groups.iter_tokens(sequences()))
    assert "ahead" not in {thread.name for thread in threading.enumerate()}


def test_whoever_stops_early_ends_the_threads_within_a_batch(small_groups: Artificial) -> None:
    read = []

    def sequences() -> Iterator[str]:
        for sequence in some_sequences(1000, (40,)):
            read.append(sequence)
            yield sequence

    for _ in small_groups.iter_tokens(sequences()):
        break
    assert "ahead" not in {thread.name for thread in threading.enumerate()}
    assert len(read) < 40  # a group holds 4 of them, and at most six groups are begun


def threads_of(n_stages: int) -> list[threading.Thread]:
    """The threads of stages that run one after the other, each of which is kept."""
    return [
        thread
        for _ in range(n_stages)
        for thread in ahead((threading.get_ident() for _ in range(2)), keeps_thread=True)
    ]


def test_a_kept_thread_runs_the_next_stage_and_those_at_the_same_time_have_their_own() -> None:
    (thread,) = set(threads_of(3))
    assert thread is not threading.current_thread()
    first, second = (ahead(iter(threading.current_thread, None), keeps_thread=True) for _ in range(2))
    assert next(first) != next(second)
    first.close()
    second.close()
    assert len(set(threads_of(3))) == 1


def test_a_kept_thread_survives_an_error() -> None:
    (before,) = set(threads_of(1))
    with pytest.raises(ZeroDivisionError):
        list(ahead((1 // number for number in (1, 0)), keeps_thread=True))
    assert set(threads_of(1)) == {before}


def test_kept_threads_do_not_hold_up_a_forked_process() -> None:
    threads_of(1)
    child = os.fork()
    if not child:
        os._exit(0 if len(set(threads_of(2))) == 1 else 1)
    ended, status = os.waitpid(child, 0)
    assert (ended, os.waitstatus_to_exitcode(status)) == (child, 0)


def test_items_that_nobody_takes_are_not_made() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(1, 100):
            made.append(number)
            yield number

    stage = ahead(items(), n_ahead=2)
    assert next(stage) == 1
    stage.close()
    assert len(made) <= 4


@pytest.mark.parametrize(("key", "bp_per_token"), [("nt_transformer_human_ref", 6), ("hyenadna-tiny-1k-hf", 1)])
def test_a_group_on_a_gpu_holds_as_many_tokens_whatever_they_stand_for(
    key: str, bp_per_token: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = load_embedder(key, checkpoint=make_tiny(key, tmp_path), random_init=True, batch_tokens=100)
    monkeypatch.setattr(embedder_module, "_GROUP_BYTES", {"cpu": 0, "cuda": 0})
    sequences = ["ACGTAC" * 10] * 1000
    on_cpu = [len(group) for group in embedder._groups(sequences)]
    monkeypatch.setattr(embedder.runner(), "device", torch.device("cuda"))
    on_gpu = [len(group) for group in embedder._groups(sequences)]
    assert on_cpu[0] == 8 * 100 // 60
    assert on_gpu[0] == bp_per_token * 8 * 100 // 60
    assert sum(on_gpu) == 1000
