"""On a GPU, every family computes what it computes on a CPU, and what is stored is what was computed.

Only these tests compute on a GPU; ``python -m pytest -m cuda`` runs them alone.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from bend_hf.config import RunConfig
from bend_hf.embedders import MODELS, load_embedder
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders._spec import TokenEmbeddings
from bend_hf.embedders.cache.pooling import Pooling
from bend_hf.embedders.token_embeddings import OnTheFly
from bend_hf.runs.run import run
from bend_hf.types import DtypeChoice
from tests.fake_checkpoints import make_tiny

pytestmark = pytest.mark.cuda
DEVICE = "cuda"
ONE_OF_EACH = sorted({spec.embedder: spec.key for spec in MODELS if spec.tiny is not None}.values())


def some_sequences(n: int, lengths: tuple[int, ...]) -> list[str]:
    random = np.random.default_rng(0)
    return ["".join(random.choice(list("ACGTN"), lengths[place % len(lengths)])) for place in range(n)]


def opened(key: str, folder: Path, device: str, dtype: DtypeChoice) -> Embedder:
    checkpoint = make_tiny(key, folder / device)
    return load_embedder(key, checkpoint=checkpoint, random_init=True, device=device, dtype=dtype, batch_tokens=600)


@pytest.mark.parametrize("key", ONE_OF_EACH)
def test_a_gpu_gives_the_embeddings_of_a_cpu(key: str, tmp_path: Path) -> None:
    sequences = some_sequences(24, (30, 90, 17, 64))
    expected = np.concatenate(
        [one.upsampled() for one in opened(key, tmp_path, "cpu", "float32").embed_tokens(sequences)]
    )
    for dtype, most in (("float32", 1e-3), ("bfloat16", 0.1)):
        embedder = opened(key, tmp_path, DEVICE, dtype)  # type: ignore[arg-type]  # mypy sees a text
        found = np.concatenate([one.upsampled() for one in embedder.embed_tokens(sequences)])
        assert np.abs(found - expected).max() < most * np.abs(expected).max(), dtype


@pytest.mark.parametrize("on_device", [False, True])
def test_stored_rows_are_rounded_embeddings(on_device: bool) -> None:
    embedder = load_embedder("bend-mini", device=DEVICE, batch_tokens=600)
    sequences = some_sequences(40, (30, 90, 17, 64))
    units = list(embedder.iter_stored([sequences[:13], sequences[13:]], torch.float16, on_device=on_device))
    assert all(unit.values.device.type == (torch.device(DEVICE).type if on_device else "cpu") for unit in units)
    rows = [unit.values[a:b].cpu().float().numpy() for unit in units for a, b in pairwise(unit.starts.tolist())]
    for one, item in zip(rows, embedder.embed_tokens(sequences), strict=True):
        np.testing.assert_allclose(one, item.values, rtol=1e-3, atol=1e-3 * np.abs(item.values).max())


def test_means_are_those_of_the_host() -> None:
    embedder = load_embedder("bend-mini", device=DEVICE, batch_tokens=600)
    sequences = some_sequences(40, (30, 90, 17, 64))
    (unit,) = embedder.iter_stored([sequences], torch.float16, pool_bp=8)
    pooling = Pooling(pool_bp=8, rounded_to="float16")
    expected = [
        pooling.of(TokenEmbeddings(values=item.values, embedding_bp=item.embedding_bp)).values
        for item in embedder.embed_tokens(sequences)
    ]
    np.testing.assert_allclose(unit.values.numpy(), np.concatenate(expected), rtol=1e-3, atol=1e-3)


def test_streamed_batches_stay_on_the_device() -> None:
    embedder = load_embedder("bend-mini", device=DEVICE, batch_tokens=600)
    source = OnTheFly(datasets.Dataset.from_dict({"sequence": some_sequences(12, (30, 90))}), embedder)
    slices = [np.arange(4), np.arange(4, 12)]
    for found, rows in zip(source.stream(slices), slices, strict=True):
        assert found.x_BTD.device.type == torch.device(DEVICE).type
        np.testing.assert_allclose(found.x_BTD.cpu().numpy(), source.rows(rows).x_BTD, rtol=1e-3, atol=1e-4)


def test_a_run_on_a_gpu_records_device_and_dtype(tmp_path: Path) -> None:
    config = RunConfig(
        task="cpg_methylation", data="sample", limit=4, epochs=1, device=DEVICE, out=tmp_path, cache=tmp_path / "cache"
    )
    (done,) = run(config)
    assert done.record.model["dtype"] == done.record.config["model_dtype"] == "float32"  # as bend-mini needs it
    assert str(done.record.cost["device"]).startswith(DEVICE)
