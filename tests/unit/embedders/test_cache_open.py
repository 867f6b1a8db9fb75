"""Open embeddings: which are cached, keys, full disks, numbers that do not fit, and the commands."""

from __future__ import annotations

import errno
import logging
from collections import namedtuple
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch

from bend_hf.cli._main import main
from bend_hf.embedders import OneHotEmbedder
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders._spec import TokenEmbeddings
from bend_hf.embedders.cache import CacheSettings, open_embeddings
from bend_hf.embedders.cache.dtypes import encode, is_too_small
from bend_hf.embedders.cache.estimate import duration
from bend_hf.embedders.cache.key import key_of, key_parts
from bend_hf.embedders.cache.manage import list_entries
from bend_hf.embedders.cache.pooling import Pooling
from bend_hf.embedders.cache.reader import CachedEmbeddings
from bend_hf.embedders.cache.writer import TokenColumns
from bend_hf.embedders.token_embeddings import OnTheFly
from bend_hf.errors import CacheError, ConfigError
from bend_hf.runs.embed import parse_shards
from bend_hf.types import StoredDtype
from tests.cached import Triplets, arrow_bytes, leftovers, made, random_sequences, small_dataset, small_entry

Usage = namedtuple("Usage", "total used free")


def quiet(folder: Path, *, dtype: StoredDtype = "float16") -> CacheSettings:
    return CacheSettings(folder=folder, dtype=dtype, show_progress=False)


def test_one_hot_is_never_cached(tmp_path: Path) -> None:
    source = open_embeddings(small_dataset(), OneHotEmbedder(), CacheSettings(folder=tmp_path))
    assert isinstance(source, OnTheFly)
    assert list(tmp_path.iterdir()) == []


def test_no_cache_writes_nothing(tmp_path: Path) -> None:
    source = open_embeddings(small_dataset(), Triplets(), CacheSettings(folder=tmp_path, no_cache=True))
    assert isinstance(source, OnTheFly)
    assert list(tmp_path.iterdir()) == []


def test_subsets_are_cached_separately_and_read_as_one(tmp_path: Path) -> None:
    subsets = [small_dataset(9, seed) for seed in range(3)]
    all_three = open_embeddings(subsets, Triplets(), quiet(tmp_path))
    assert len(list_entries(tmp_path)) == 3
    other_order = open_embeddings([subsets[2], subsets[0]], Triplets(), quiet(tmp_path))
    assert len(list_entries(tmp_path)) == 3
    assert (len(all_three), len(other_order)) == (27, 18)
    np.testing.assert_array_equal(
        all_three.rows(np.array([20, 3])).x_BTD, other_order.rows(np.array([20 - 18, 9 + 3])).x_BTD
    )


def test_coordinates_and_labels_are_stored_with_the_embeddings(tmp_path: Path) -> None:
    source = open_embeddings(small_dataset(), Triplets(), quiet(tmp_path))
    assert isinstance(source, CachedEmbeddings)
    stored = source.dataset()
    assert stored.column_names == ["item", "chromosome", "start", "labels", "token_rows", "token_bp"]
    for name in ("item", "start", "labels"):
        assert list(stored[name]) == list(small_dataset()[name])
    assert stored.features["labels"] == small_dataset().features["labels"]


def test_bfloat16_bits_are_stored_under_their_own_column_name(tmp_path: Path) -> None:
    source = open_embeddings(small_dataset(), Triplets(), quiet(tmp_path, dtype="bfloat16"))
    assert isinstance(source, CachedEmbeddings)
    assert "token_rows_bfloat16_bits" in source.dataset().column_names


def test_a_batch_does_not_change_when_others_are_read(tmp_path: Path) -> None:
    source = CachedEmbeddings.of(made(tmp_path).shards, dtype="float16")
    first = source.rows(np.arange(5)).x_BTD
    copy = first.copy()
    for _ in range(20):
        source.rows(np.arange(5, 30))
    np.testing.assert_array_equal(first, copy)


@pytest.mark.parametrize("column", ["sequence", "labels", "start", "item"])
def test_any_changed_value_changes_the_key(tmp_path: Path, column: str) -> None:
    dataset = small_dataset()
    values = list(dataset[column])
    other = {"sequence": "ACGT", "labels": [0, 1, 2], "start": -1, "item": 77}[column]
    assert values[3] != other
    values[3] = other
    columns = {name: list(dataset[name]) for name in dataset.column_names} | {column: values}
    changed = datasets.Dataset.from_dict(columns, features=dataset.features)
    assert small_entry(tmp_path, changed).plan.key != small_entry(tmp_path, dataset).plan.key


def test_the_order_of_the_items_is_part_of_the_key(tmp_path: Path) -> None:
    dataset = small_dataset()
    turned = dataset.select(range(len(dataset))[::-1])
    assert small_entry(tmp_path, turned).plan.key != small_entry(tmp_path, dataset).plan.key


def test_everything_that_affects_the_embeddings_is_part_of_the_key() -> None:
    usual = key_of(key_parts("x", Triplets(), "float16"))
    others = [
        key_of(key_parts("y", Triplets(), "float16")),
        key_of(key_parts("x", Triplets(), "float32")),
        key_of(key_parts("x", Triplets(protocol="bend-hf-1"), "float16")),
        key_of(key_parts("x", Triplets(layer=2), "float16")),
        key_of(key_parts("x", Triplets(dtype="bfloat16"), "float16")),
        key_of(key_parts("x", Triplets(overlap_tokens=3), "float16")),
        key_of(key_parts("x", OneHotEmbedder(), "float16")),
    ]
    assert len({usual, *others}) == 1 + len(others)
    assert key_of(key_parts("x", Triplets(batch_tokens=7, device="cpu"), "float16")) == usual


def test_a_disk_that_is_too_small_raises_before_anything_is_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bend_hf.embedders.cache.estimate.shutil.disk_usage", lambda folder: Usage(1000, 500, 500))
    monkeypatch.setattr(Triplets, "probe", lambda self: None)
    monkeypatch.setattr(Triplets, "iter_tokens", lambda self, sequences: pytest.fail("embedded"))
    with pytest.raises(CacheError, match=r"do not fit on the disk of .* 0\.00 GB free.*--no-cache"):
        made(tmp_path)


def test_a_disk_that_fills_up_keeps_finished_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = arrow_bytes(made(tmp_path / "whole"))
    from fsspec.implementations.local import LocalFileOpener

    room = sum(path.stat().st_size for path in (tmp_path / "whole").rglob("*.arrow")) // 2
    write = LocalFileOpener.write

    def write_while_there_is_room(self: object, data: bytes) -> int:
        nonlocal room
        room -= len(data)
        if room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(write(self, data))

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileOpener, "write", write_while_there_is_room)
        with pytest.raises(CacheError, match=r"is full \(No space left on device; .* shards are finished and kept"):
            made(tmp_path / "full")
    entry = small_entry(tmp_path / "full")
    kept = arrow_bytes(entry)
    assert kept
    assert kept.items() < whole.items()
    assert leftovers(entry) == []
    assert arrow_bytes(made(tmp_path / "full")) == whole


@pytest.mark.parametrize(("scale", "text"), [(1e4, "is too large for float16"), (np.inf, "not finite")])
def test_numbers_that_cannot_be_stored_raise(tmp_path: Path, scale: float, text: str) -> None:
    embedder = Triplets()
    embedder.scale = scale
    with np.errstate(invalid="ignore"), pytest.raises(CacheError, match=text):
        made(tmp_path, embedder=embedder)
    assert leftovers(small_entry(tmp_path)) == []


def test_the_largest_float16_is_stored_and_the_next_is_not() -> None:
    assert encode(np.array([[65519.0]], np.float32), "float16").tolist() == [[65504.0]]
    with pytest.raises(CacheError, match="65520"):
        encode(np.array([[65520.0]], np.float32), "float16")


class Batched(Triplets):
    """The same tokens, in batches, with their ids as embeddings."""

    iter_tokens = Embedder.iter_tokens

    def _hidden(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor | None, layer: int) -> torch.Tensor:
        return self.scale * ids_BT[..., None].expand(-1, -1, self.width).float()


@pytest.mark.parametrize("pool_bp", [None, 8])
@pytest.mark.parametrize("kind", [Triplets, Batched])
def test_numbers_of_which_rounding_leaves_nothing_raise(kind: type[Triplets], pool_bp: int | None) -> None:
    sequences = random_sequences((30, 7, 90))

    def columns(scale: float, dtype: StoredDtype) -> pa.Array:
        embedder = kind(device="cpu")
        embedder.scale = scale
        pooling = None if pool_bp is None else Pooling(pool_bp=pool_bp, rounded_to=dtype)
        stored = TokenColumns(embedder, dtype if pooling is None else "float32", 0.4, pooling)
        (batch,) = stored.of([sequences])
        return batch[0]

    assert kind(device="cpu").overlaps == (kind is Batched)
    with pytest.raises(CacheError, match=r"numbers of at most \S+e-0\d, of which float16 keeps few digits or none"):
        columns(1e-9, "float16")
    for scale, dtype in ((1e-9, "float32"), (1e-9, "bfloat16"), (1.0, "float16"), (0.0, "float16")):
        assert len(columns(scale, dtype)) == len(sequences)


@pytest.mark.parametrize(
    ("dtype", "smallest"), [("float16", 2.0**-14), ("float32", 2.0**-126), ("bfloat16", 2.0**-126)]
)
def test_numbers_are_too_small_below_the_smallest_normal_one(dtype: StoredDtype, smallest: float) -> None:
    for sign in (1, -1):
        stored = encode(np.array([[0, sign * smallest]], np.float32), dtype)
        assert not is_too_small(stored, dtype, dtype)
        stored = encode(np.array([[0, sign * smallest / 2]], np.float32), dtype)
        assert is_too_small(stored, dtype, dtype)
    means = np.array([[2.0**-15]], np.float32)
    assert is_too_small(means, "float32", "float16")
    assert not is_too_small(means, "float32", "bfloat16")


def test_an_embedder_that_covers_too_few_nucleotides_raises(tmp_path: Path) -> None:
    class Short(Triplets):
        def iter_tokens(self, sequences: Iterable[str]) -> Iterator[TokenEmbeddings]:
            return super().iter_tokens([sequence[1:] + "" for sequence in sequences])

    with pytest.raises(CacheError, match="expected width 4 for a sequence of"):
        made(tmp_path, embedder=Short())


def test_an_empty_dataset_and_one_without_sequences_raise(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no sequence to embed"):
        small_entry(tmp_path, small_dataset().select([]))
    with pytest.raises(CacheError, match="no column 'sequence'"):
        small_entry(tmp_path, datasets.Dataset.from_dict({"letters": ["ACGT"]}))


def test_a_dataset_with_a_column_of_the_cache_raises(tmp_path: Path) -> None:
    taken = small_dataset().rename_column("start", "token_bp")
    with pytest.raises(CacheError, match="already has a column 'token_bp'"):
        made(tmp_path, taken)


def test_an_unknown_dtype_raises_and_names_the_nearest() -> None:
    with pytest.raises(CacheError, match="did you mean 'float16'"):
        CacheSettings(dtype="float1")  # type: ignore[arg-type]  # wrong on purpose


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    entry = small_entry(tmp_path)
    entry.fill([0])
    entry.fill(on_progress=lambda done_bp, total_bp: seen.append((done_bp, total_bp)))
    n_bp = entry.plan.nucleotides
    assert 0 < seen[0][0] < n_bp
    assert seen[-1] == (n_bp, n_bp)
    assert {total_bp for _, total_bp in seen} == {n_bp}
    assert seen == sorted(seen)


def test_the_estimate_is_near_what_is_written(tmp_path: Path) -> None:
    entry = made(tmp_path)
    written = sum(files.arrow.stat().st_size for files in entry.shards)
    assert 0.3 * written < entry.plan.estimate_bytes(entry.plan.nucleotides) < 3 * written


def test_only_chosen_shards_are_filled(tmp_path: Path) -> None:
    entry = small_entry(tmp_path)
    entry.fill([1, 3])
    assert [files.number for files in entry.shards if files.record.exists()] == [1, 3]


def test_shards_are_numbers_and_ranges() -> None:
    assert parse_shards(("3", "10-12", "11")) == [3, 10, 11, 12]
    assert parse_shards(()) is None
    for word in ("x", "3-", "-3", "5-4", "1-2-3"):
        with pytest.raises(ConfigError, match="--shards"):
            parse_shards((word,))


def test_durations_are_formatted_in_hours_minutes_and_seconds() -> None:
    assert [duration(seconds) for seconds in (12, 600, 7260)] == ["12 s", "10 min", "2 h 1 min"]


def test_the_commands_embed_list_verify_and_prune(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = tmp_path / "ones.py"
    model.write_text("import numpy as np\ndef embed(sequences): return [np.ones((len(s), 2)) for s in sequences]\n")
    cache = tmp_path / "cache"
    flags = ["embed", "--task", "gene_finding", "--data", "sample", "--model", str(model), "--cache", str(cache)]
    with caplog.at_level(logging.INFO):
        assert main([*flags, "--splits", "validation"]) == 0
    assert "gene_finding validation: 1 of 1 shards computed" in capsys.readouterr().out
    assert "GB free" in caplog.text
    assert main([*flags, "--splits", "validation"]) == 0
    assert "0 of 1 shards computed, 1 of 1 finished" in capsys.readouterr().out
    assert main([*flags, "--splits", "nothing"]) == 2
    assert "has no split 'nothing'" in capsys.readouterr().err
    assert main(["cache", "list", "--cache", str(cache)]) == 0
    assert "gene_finding validation: ones, width 2" in capsys.readouterr().out
    assert main(["cache", "verify", "--cache", str(cache)]) == 0
    (shard,) = cache.rglob("*.arrow")
    shard.write_bytes(shard.read_bytes()[:-4])
    assert main(["cache", "verify", "--cache", str(cache)]) == 1
    assert main(["cache", "prune", "ones", "--dry-run", "--cache", str(cache)]) == 0
    assert any(cache.iterdir())
    assert main(["cache", "prune", "ones", "--cache", str(cache)]) == 0
    assert not any(cache.iterdir())


def test_the_command_refuses_a_model_that_costs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "--task", "gene_finding", "--data", "sample", "--model", "onehot"]) == 2
    assert "costs nothing to compute" in capsys.readouterr().err


def test_files_of_a_process_killed_while_planning_are_removed(tmp_path: Path) -> None:
    entry = small_entry(tmp_path)
    left = entry.folder / ".about.json.part1-0123abcd"
    left.write_bytes((entry.folder / "about.json").read_bytes())  # killed between the link and the removal
    assert small_entry(tmp_path).plan == entry.plan
    assert leftovers(entry) == []


def test_embeddings_of_other_versions_of_the_libraries_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made(tmp_path)
    small_entry(tmp_path)
    assert "were computed with" not in caplog.text
    now = {"torch": "99.1", "transformers": version("transformers")}
    monkeypatch.setattr("bend_hf.embedders.cache.open._libraries", lambda: now)
    small_entry(tmp_path)
    assert f"torch {version('torch')} (now 99.1); if it changed" in caplog.text
    assert "transformers" not in caplog.text
