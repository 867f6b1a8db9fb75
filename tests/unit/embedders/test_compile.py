"""A compiled network sees few shapes, computes what it computes without compilation, and is compiled once for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bend_hf.embedders import MODELS, _compile, load_embedder
from bend_hf.embedders._alignment import Tokenized, assemble
from bend_hf.embedders._compile import Shapes, bucket_tokens
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders._tokens import Nucleotides, nucleotide_table, single_nucleotides
from bend_hf.errors import ConfigError

WIDTH = 4


class Backend:
    """Runs what is compiled as it is, and counts how often something is compiled."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        self.n += 1
        return graph.forward


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    counting = Backend()
    monkeypatch.setattr(_compile, "BACKEND", counting)
    yield counting
    torch._dynamo.reset()


def some_sequences(n: int, *, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return ["".join(random.choice(list("ACGT"), length)) for length in random.integers(30, 200, n)]


def opened(key: str, folder: Path, **options: bool) -> Embedder:
    tiny = MODELS.get(key).tiny
    assert tiny is not None
    return load_embedder(
        key, checkpoint=tiny().write(folder), random_init=True, device="cpu", batch_tokens=512, **options
    )


class TwoLayers(Embedder):
    """Embeds single nucleotides by a table and a convolution."""

    needs_checkpoint = False
    equal_lengths = False

    def _load(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Embedding(5, WIDTH), Mixing())
        self._table = nucleotide_table({"A": 0, "C": 1, "G": 2, "T": 3}, unknown=4)

    @property
    def width(self) -> int:
        return WIDTH

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        return assemble(single_nucleotides(Nucleotides.of(sequences), self._table), self._window(None))

    def _hidden(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor | None, layer: int) -> torch.Tensor:
        assert self.model is not None
        found: torch.Tensor = self.model(ids_BT)
        return found


class Mixing(torch.nn.Module):
    """Adds to each embedding that of the position before it."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return x_BTD + torch.nn.functional.pad(x_BTD, (0, 0, 1, 0))[:, :-1].tanh()


class EqualLengths(TwoLayers):
    """Must not be given padding."""

    equal_lengths = True


@pytest.mark.parametrize("kind", [TwoLayers, EqualLengths])
def test_a_network_is_compiled_once(kind: type[Embedder], backend: Backend) -> None:
    plain, compiled = kind(device="cpu", batch_tokens=512), kind(device="cpu", batch_tokens=512, compile=True)
    assert_compiled_once(compilations(plain, compiled, backend))


@pytest.mark.slow
@pytest.mark.parametrize("key", ["nt_transformer_v2_500m", "convnet"])
def test_a_published_network_is_compiled_once(key: str, tmp_path: Path, backend: Backend) -> None:
    plain, compiled = opened(key, tmp_path / "a"), opened(key, tmp_path / "b", compile=True)
    assert_compiled_once(compilations(plain, compiled, backend))


def compilations(plain: Embedder, compiled: Embedder, backend: Backend) -> list[int]:
    """Count the compiled graphs after each of three groups of sequences, which both networks embed alike."""
    counts = []
    for seed, n in enumerate((60, 17, 41)):
        sequences = some_sequences(n, seed=seed)
        for one, other in zip(plain.embed_tokens(sequences), compiled.embed_tokens(sequences), strict=True):
            np.testing.assert_allclose(other.values, one.values, atol=1e-5)
            np.testing.assert_array_equal(other.embedding_bp, one.embedding_bp)
        counts.append(backend.n)
    return counts


def assert_compiled_once(counts: list[int]) -> None:
    assert counts[0] >= 1
    assert counts[1] == counts[2] <= 4  # of 60 lengths and more batches


def test_shapes_are_few_and_never_longer_than_the_context() -> None:
    assert len({bucket_tokens(n) for n in range(1, 1025)}) == 16 + 16 + 16 + 16  # to 128, 256, 512 and 1,024
    assert all(n <= bucket_tokens(n) <= max(n + 7, n * 17 / 16) for n in range(1, 5000))
    shapes = Shapes(equal_lengths=False)
    assert shapes.n_tokens(1001, is_full=False, most=1002) == 1002
    assert shapes.n_tokens(1001, is_full=False, most=None) == 1024
    assert shapes.n_tokens(514, is_full=True, most=None) == shapes.n_tokens(514, is_full=False, most=None) == 514
    assert Shapes(equal_lengths=True).n_tokens(1001, is_full=False, most=None) == 1001
    assert [shapes.n_chunks(n, budget=16) for n in (1, 4, 5, 9, 16)] == [4, 4, 8, 16, 16]
    assert [shapes.n_chunks(1, budget=n) for n in (1, 2, 3)] == [1, 2, 2]


def test_without_a_c_compiler_compilation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compile.shutil, "which", lambda name: None)
    embedder = load_embedder("bend-mini", device="cpu", compile=True)
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler on this machine.*install g\+\+, or leave the flag out"):
        embedder.embed_tokens(["ACGT"])


def test_a_model_without_weights_refuses_to_be_compiled() -> None:
    with pytest.raises(ConfigError, match="compile is True, but onehot has no weights to compile; leave it out"):
        load_embedder("onehot", compile=True)
