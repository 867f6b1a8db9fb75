"""GROVER gives the rows that BEND's code gave.

Where BEND's output differs on purpose: lower case is all [UNK] in BEND; here nucleotides are upper-cased first (token
ids of the nucleotides as they stand are compared all the same). The golden folder has a vocabulary without merges, so
that ``bend-hf-1`` cuts it into the same words; byte pairs are tested with the tokenizer.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from bend_hf.embedders import load_embedder
from bend_hf.embedders.grover import MODELS, GROVEREmbedder
from bend_hf.errors import ModelError
from tests.parity.bert_golden import TOLERANCE, Reference, cases, reference
from tests.parity.golden import folder_of
from tests.shared_data import needs_shared

NAME = "grover_tiny"


def is_upper(name: str, golden: Reference) -> bool:
    return golden.is_upper


@cache
def embedder(protocol: str = "bend-2024") -> GROVEREmbedder:
    return GROVEREmbedder(folder_of(NAME), protocol=protocol, device="cpu")


@pytest.mark.parametrize(("name", "sequence"), cases(NAME))
def test_token_ids_and_chunks_are_bends(name: str, sequence: str) -> None:
    golden = reference(name, sequence)
    tokenized = embedder()._tokenize([golden.sequence])
    np.testing.assert_array_equal(tokenized.ids, golden.ids)
    assert np.diff(tokenized.chunk_starts).tolist() == golden.call_lengths


@pytest.mark.parametrize(("name", "sequence"), cases(NAME, only=is_upper))
def test_embeddings_are_bends(name: str, sequence: str) -> None:
    golden = reference(name, sequence)
    np.testing.assert_allclose(embedder()(golden.sequence, False), golden.raw, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(embedder()(golden.sequence), golden.removed, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("protocol", ["bend-2024", "bend-hf-1"])
@pytest.mark.parametrize(("name", "sequence"), cases(NAME, only=is_upper))
def test_nucleotide_embeddings_are_bends(name: str, sequence: str, protocol: str) -> None:
    golden = reference(name, sequence)
    rows = embedder(protocol)(golden.sequence, upsample_embeddings=True)
    assert golden.upsampled is not None
    np.testing.assert_allclose(rows, golden.upsampled, atol=TOLERANCE, rtol=0)


@needs_shared
def test_a_batch_changes_nothing() -> None:
    names = ("len1", "long2100", "len513", "n_all_64", "len12")
    together = embedder().embed([reference(NAME, one).sequence for one in names])
    for rows, one in zip(together, names, strict=True):
        np.testing.assert_allclose(rows, reference(NAME, one).removed, atol=TOLERANCE, rtol=0)


@needs_shared
def test_logits_without_a_head_in_the_file_raise() -> None:
    with pytest.raises(ModelError, match="lacks the language-model head"):
        embedder().logits(["ACGTACGT"])


@needs_shared
def test_the_registry_loads_it_by_key() -> None:
    golden = reference(NAME, "len513")
    rows = load_embedder("grover", checkpoint=folder_of(NAME), device="cpu")
    np.testing.assert_allclose(rows(golden.sequence), golden.removed, atol=TOLERANCE, rtol=0)


def test_the_declared_count_is_that_of_a_bert_base_of_its_vocabulary() -> None:
    from transformers import BertConfig, BertForMaskedLM

    with torch.device("meta"):
        model = BertForMaskedLM(BertConfig(vocab_size=609))  # rows of the published embedding
        model.tie_weights()
    assert sum(weight.numel() for weight in model.parameters()) == MODELS[0].n_parameters
