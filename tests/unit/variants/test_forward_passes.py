"""How many forward passes variants take, how full they are, and how often the host and the device exchange anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from bend_hf.embedders import load_embedder
from bend_hf.embedders._embedder import Embedder
from bend_hf.tasks import VariantSpec
from bend_hf.variants.allele_likelihoods import _head_of
from tests.fake_checkpoints import make_tiny
from tests.variant_controls import column, scores_of

KEY, CAUSAL = "nt_transformer_human_ref", "hyenadna-tiny-1k"
CONTEXT_BP = 30
LETTERS = "ACGT"
Row = tuple[str, int, str, str, int]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    folder = make_tiny(KEY, tmp_path_factory.mktemp("model"))
    return load_embedder(KEY, checkpoint=folder, random_init=True, device="cpu")


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    folder = make_tiny(CAUSAL, tmp_path_factory.mktemp("causal"))
    return load_embedder(CAUSAL, checkpoint=folder, random_init=True, device="cpu")


def variants(n_sites: int, n_alternatives: int) -> list[Row]:
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for site in range(n_sites):
        text = "".join(rng.choice(list(LETTERS), 2 * CONTEXT_BP + 1))
        others = [base for base in LETTERS if base != text[CONTEXT_BP]]
        rows += [(text, CONTEXT_BP, text[CONTEXT_BP], alt, site) for alt in others[:n_alternatives]]
    return rows


class Passes:
    """The numbers of sequences and tokens of each forward pass."""

    def __init__(self, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shapes: dict[str, list[tuple[int, int]]] = {"_hidden_at": [], "_logits_at": []}
        for name, shapes in self.shapes.items():
            monkeypatch.setattr(embedder, name, self._counted(getattr(embedder, name), shapes))

    @staticmethod
    def _counted(inner: Callable[..., torch.Tensor], shapes: list[tuple[int, int]]) -> Callable[..., torch.Tensor]:
        def counted(ids: torch.Tensor, *others: Any) -> torch.Tensor:
            shapes.append((ids.shape[0], ids.shape[1]))
            return inner(ids, *others)

        return counted

    def sequences(self, name: str) -> int:
        return sum(n for n, _ in self.shapes[name])


def score(embedder: Embedder, n_sites: int, n_alternatives: int = 1, **settings: Any) -> None:
    scores_of(embedder, variants(n_sites, n_alternatives), VariantSpec(context_bp=CONTEXT_BP), **settings)


@pytest.mark.parametrize("averages", [True, False])
@pytest.mark.parametrize(("n_alternatives", "n_alleles"), [(1, 2), (3, 4)])
def test_each_allele_of_a_site_is_embedded_once_and_one_masked_sequence_gives_all_likelihoods(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch, averages: bool, n_alternatives: int, n_alleles: int
) -> None:
    passes = Passes(embedder, monkeypatch)
    score(embedder, 20, n_alternatives, averages=averages)
    assert passes.sequences("_hidden_at") == 20 * n_alleles
    assert passes.sequences("_logits_at") == 20


def test_batches_are_filled_up_to_the_budget_with_the_sequences_of_several_sites(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Passes(embedder, monkeypatch)
    monkeypatch.setattr(embedder, "batch_tokens", 128)
    score(embedder, 50)
    for name, n_sequences in (("_hidden_at", 100), ("_logits_at", 50)):
        n_tokens = passes.shapes[name][0][1]
        assert {length for _, length in passes.shapes[name]} == {n_tokens}
        fits = 128 // n_tokens
        assert [n for n, _ in passes.shapes[name][:-1]] == [fits] * (-(-n_sequences // fits) - 1)


@pytest.mark.parametrize("averages", [True, False])
def test_the_forward_pass_of_the_reference_gives_the_likelihoods_of_a_causal_model(
    causal: Embedder, monkeypatch: pytest.MonkeyPatch, averages: bool
) -> None:
    rows = variants(20, 3)
    spec = VariantSpec(causal_context_bp=15)  # fits into one chunk of the small model
    with monkeypatch.context() as patch:
        patch.setattr("bend_hf.variants.allele_likelihoods._head_of", lambda embedder: None)
        apart = Passes(causal, patch)
        expected = scores_of(causal, rows, spec, averages=averages)
    passes = Passes(causal, monkeypatch)
    found = scores_of(causal, rows, spec, averages=averages)
    assert (apart.sequences("_hidden_at"), apart.sequences("_logits_at")) == (80, 20)
    # one sequence more shows that the logits follow from the embeddings
    assert (passes.sequences("_hidden_at"), passes.sequences("_logits_at")) == (80 + 1, 1)
    for name in ("log_likelihood_ratio", "entropy"):
        np.testing.assert_allclose(column(found, name), column(expected, name), rtol=0, atol=1e-5)
    assert column(found, "score") == pytest.approx(column(expected, "score"), abs=1e-6)


def test_a_batch_with_a_variant_at_the_start_of_its_sequence_has_a_forward_pass_for_likelihoods(
    causal: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Row] = [("ACGTACGT", 0, "A", "C", 0), ("ACGTACGT", 3, "T", "C", 1)]
    passes = Passes(causal, monkeypatch)
    found = column(scores_of(causal, rows), "log_likelihood_ratio")
    assert passes.sequences("_logits_at") == 2 + 1, "those of the batch, and one that shows whether it is needed"
    assert found[0] is not None, "read from the special token that each sequence begins with"
    assert found[1] is not None


def test_logits_that_do_not_follow_from_the_embeddings_are_computed(
    causal: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _head_of(causal) is not None
    plain = causal._logits_at
    monkeypatch.setattr(causal, "_logits_at", lambda *inputs: 2 * plain(*inputs))
    assert _head_of(causal) is None


class Calls(TorchFunctionMode):
    """Counts what is asked of PyTorch, among it each copy between host and device."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("averages", [True, False])
def test_nothing_is_asked_of_the_device_for_a_single_variant(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch, averages: bool
) -> None:
    """One batch of four and one of 64 variants ask for the same operations and copies."""
    monkeypatch.setattr(embedder, "batch_tokens", 1 << 20)
    counts = []
    for n_sites in (4, 64):
        with Calls() as calls:
            score(embedder, n_sites, averages=averages)
        counts.append(calls.n)
    assert counts[0] == counts[1]
