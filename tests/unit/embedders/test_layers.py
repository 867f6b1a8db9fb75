"""Several layers of a model from one forward pass, in the cache entries that runs with one layer read."""

from __future__ import annotations

import threading
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from bend_hf.embedders import MODELS, load_embedder
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders.cache import CacheSettings, fill, open_embeddings
from bend_hf.embedders.cache import layers as cache_layers
from bend_hf.embedders.cache.layers import open_layers
from bend_hf.embedders.cache.open import find_entry
from bend_hf.embedders.layers import chosen_layers, layer_view, layer_widths, layers_view, usable_layers
from bend_hf.errors import CacheError, ConfigError
from bend_hf.lease import take

RNG = np.random.default_rng(3)
SEQUENCES = ["".join(RNG.choice(list("ACGT"), size=n)) for n in (5, 40, 17, 64, 33, 9, 28, 51, 12, 60)]


def tiny(key: str, folder: Path, **options: object) -> Embedder:
    spec = MODELS.get(key)
    assert spec.tiny is not None
    path = folder / key.replace("/", "_")
    spec.tiny().write(path)
    return load_embedder(key, checkpoint=str(path), random_init=True, device="cpu", **options)  # type: ignore[arg-type]


def dataset(sequences: list[str] = SEQUENCES) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"sequence": sequences, "item": list(range(len(sequences)))})


@pytest.mark.parametrize("text", ["", "every-0", "1;2", "last", "every-2,3"])
def test_a_choice_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected 'all', 'every-4', or numbers"):
        chosen_layers(text, 13)


def test_a_layer_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match="layer 13, but the model has layers 0 to 12"):
        chosen_layers("0,13", 13)


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("key", ["dnabert6", "dnabert2", "hyenadna-tiny-1k", "caduceus-ph", "ntv3-8m", "bend-mini"])
def test_layers_together_are_the_layers_one_by_one(key: str, average: bool, tmp_path: Path) -> None:
    names = {one.key for one in MODELS}
    key = key if key in names else next(name for name in sorted(names) if name.startswith(key.split("-")[0]))
    embedder = tiny(key, tmp_path, reverse_complement_average=average)
    layers = usable_layers(embedder, "all")
    assert len(layers) > 1
    together = layers_view(embedder, layers).embed_tokens(SEQUENCES)
    for place, layer in enumerate(layers):
        alone = tiny(key, tmp_path, layer=layer, reverse_complement_average=average).embed_tokens(SEQUENCES)
        for both, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(both.embedding_bp, one.embedding_bp)
            own = both.values[:, place * embedder.width : (place + 1) * embedder.width]
            np.testing.assert_allclose(own, one.values, atol=1e-5)
    last = layer_view(embedder, len(layer_widths(embedder)) - 1).embed_tokens(SEQUENCES)
    for one, other in zip(last, embedder.embed_tokens(SEQUENCES), strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=1e-5)


FAMILIES = {spec.embedder: spec.key for spec in MODELS if spec.tiny is not None}


@pytest.mark.parametrize("key", FAMILIES.values(), ids=FAMILIES)
def test_every_family_gives_its_layers(key: str, tmp_path: Path) -> None:
    embedder = tiny(key, tmp_path)
    widths = layer_widths(embedder)
    assert len(widths) > 1
    layers = usable_layers(embedder, "all")
    (together,) = layers_view(embedder, layers).embed_tokens(SEQUENCES[1:2])
    assert together.values.shape[1] == len(layers) * embedder.width
    assert np.isfinite(together.values).all()
    first, last = (layer_view(embedder, layer).embed_tokens(SEQUENCES[1:2])[0] for layer in (layers[0], layers[-1]))
    np.testing.assert_allclose(together.values[:, : embedder.width], first.values, atol=1e-5)
    np.testing.assert_allclose(together.values[:, -embedder.width :], last.values, atol=1e-5)


def test_a_model_without_layers_says_so() -> None:
    with pytest.raises(ConfigError, match="has no layers to choose from"):
        layer_widths(load_embedder("onehot"))


def settings(folder: Path, **changes: object) -> CacheSettings:
    return CacheSettings(folder=folder, dtype="float32", show_progress=False, shard_bytes=6000, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("pool_bp", [None, 8])
def test_one_pass_fills_the_entries_that_single_layers_read(pool_bp: int | None, tmp_path: Path) -> None:
    embedder, rows = tiny("dnabert6", tmp_path), np.array([3, 0, 7])
    calls: list[int] = []
    network = embedder._embed_batch
    layers = usable_layers(embedder, "all")
    torch.manual_seed(0)
    found = open_layers([dataset()], embedder, layers, settings(tmp_path / "cache", pool_bp=pool_bp))
    embedder._embed_batch = lambda ids, mask: calls.append(len(ids)) or network(ids, mask)  # type: ignore[method-assign]
    for layer in layers:
        view = layer_view(embedder, layer)
        again = open_embeddings(dataset(), view, settings(tmp_path / "cache", pool_bp=pool_bp))
        fresh = open_embeddings(dataset(), tiny("dnabert6", tmp_path, layer=layer), settings(tmp_path / "own"))
        if pool_bp is None:
            np.testing.assert_allclose(again.rows(rows).x_BTD, fresh.rows(rows).x_BTD, atol=1e-5)
        np.testing.assert_array_equal(again.rows(rows).x_BTD, found[layer].rows(rows).x_BTD)
        np.testing.assert_array_equal(again.rows(rows).token_of_BL, found[layer].rows(rows).token_of_BL)
    assert not calls


def test_only_what_is_missing_is_embedded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = tiny("dnabert6", tmp_path)
    cache = settings(tmp_path / "cache")
    open_embeddings(dataset(), layer_view(embedder, 1), cache)
    asked: list[tuple[int, ...]] = []
    real = cache_layers.layers_view

    def watched(of: Embedder, layers: object) -> Embedder:
        asked.append(tuple(layers))  # type: ignore[arg-type]
        return real(of, layers)  # type: ignore[arg-type]

    monkeypatch.setattr(cache_layers, "layers_view", watched)
    first = open_layers([dataset()], embedder, (0, 1, 2), cache)
    assert set(asked) == {(0, 2)}
    asked.clear()
    shard = sorted((tmp_path / "cache").glob("*/shard-00001-of-*.arrow"))[0]
    expected = shard.read_bytes()
    shard.write_bytes(expected[:-8])
    again = open_layers([dataset()], embedder, (0, 1, 2), cache)
    assert len(asked) == 1
    assert len(asked[0]) == 1
    rows = np.arange(len(SEQUENCES))
    for layer in (0, 1, 2):
        np.testing.assert_allclose(again[layer].rows(rows).x_BTD, first[layer].rows(rows).x_BTD, atol=1e-6)
    assert not list((tmp_path / "cache").glob("*/*.lock"))


def test_the_layers_of_a_shard_are_left_to_the_process_that_has_the_first_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = tiny("dnabert6", tmp_path)
    cache = settings(tmp_path / "cache")
    entries = {layer: find_entry(dataset(), layer_view(embedder, layer), cache) for layer in (0, 2)}
    first, *others = (files.record for files in entries[2].shards)
    passes: list[tuple[int, ...]] = []
    real = cache_layers.layers_view
    monkeypatch.setattr(cache_layers, "layers_view", lambda of, layers: passes.append(layers) or real(of, layers))
    lease = take(entries[0].shards[0].lock)
    assert lease is not None
    filling = threading.Thread(target=open_layers, args=([dataset()], embedder, (0, 2), cache))
    filling.start()
    while not all(record.exists() for record in others):
        filling.join(0.01)
    assert not first.exists()
    lease.release()
    filling.join()
    assert first.exists()
    assert passes == [(0, 2)] * 2, "each shard is embedded once: the others in one stream, then the first"


def test_in_a_folder_without_leases_each_process_has_a_static_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fill, "lease_problem", lambda folder: "no links")
    monkeypatch.setattr(cache_layers, "take", lambda *_: pytest.fail("a lease was taken"))
    found = open_layers([dataset()], tiny("dnabert6", tmp_path), (0, 2), settings(tmp_path / "cache"))
    assert "no leases (no links): this process computes the static share 0/1 of each layer" in caplog.text
    assert len(found[0].rows(np.arange(len(SEQUENCES))).x_BTD) == len(SEQUENCES)
    assert not list((tmp_path / "cache").glob("*/*.lock"))


def test_without_a_cache_or_room_the_layers_are_computed_from_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    embedder, rows = tiny("dnabert6", tmp_path), np.array([3, 0, 7])
    cached = open_layers([dataset()], embedder, (0, 2), settings(tmp_path / "cache"))
    free = open_layers([dataset()], embedder, (0, 2), settings(tmp_path, no_cache=True))
    monkeypatch.setattr(cache_layers.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    full = open_layers([dataset(SEQUENCES[::-1])], embedder, (0, 2), settings(tmp_path / "cache"))
    assert "they are computed each time they are read" in caplog.text
    for layer in (0, 2):
        expected = cached[layer].rows(rows)
        np.testing.assert_allclose(free[layer].rows(rows).x_BTD, expected.x_BTD, atol=1e-5)
        np.testing.assert_allclose(full[layer].rows(9 - rows).x_BTD, expected.x_BTD, atol=1e-5)
        np.testing.assert_array_equal(free[layer].rows(rows).token_of_BL, expected.token_of_BL)
    calls: list[int] = []
    source = free[0]._of._source  # type: ignore[attr-defined]
    real = source.rows
    source.rows = lambda rows: calls.append(1) or real(rows)
    free[0].rows(rows[:2])
    free[2].rows(rows[:2])
    assert calls == [1]


def test_a_number_that_cannot_be_stored_names_layer_and_item(tmp_path: Path) -> None:
    embedder = tiny("dnabert6", tmp_path)
    view = layers_view(embedder, (0, 1))
    real = type(view)._pick_one

    def huge(self: Embedder, output: object, layer: int) -> torch.Tensor:
        values = real(self, output, layer)  # type: ignore[arg-type]
        return values * (1e9 if layer == 1 else 1.0)

    type(embedder)._pick_one = huge  # type: ignore[method-assign]
    try:
        with pytest.raises(CacheError, match=r"item 0: layer 1: .* too large for float16"):
            open_layers([dataset()], embedder, (0, 1), CacheSettings(folder=tmp_path / "c", show_progress=False))
    finally:
        type(embedder)._pick_one = real  # type: ignore[method-assign]
    assert not list((tmp_path / "c").glob("*/*.lock"))
