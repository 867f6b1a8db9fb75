"""DNABERT gives the rows that BEND's code gave, and says where it means not to.

Where the protocols differ, or BEND's output is not defined:

- Shorter than k: BEND has no k-mer and raises; here one [UNK] stands for all nucleotides, in both protocols.
- Lower case: BEND's k-mers are all [UNK]; here nucleotides are upper-cased first. The tokens of the nucleotides as they
  stand are compared all the same.
- k = 5 and 6: ``bend-2024`` has BEND's copy of the first row near the end, ``bend-hf-1`` has it in front.
- Over 512 tokens: ``bend-2024`` cuts CLS + k-mers + SEP, ``bend-hf-1`` gives each chunk its own.
"""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from bend_hf.embedders import load_embedder
from bend_hf.embedders.dnabert import DNABertEmbedder
from bend_hf.errors import ModelError
from tests.parity.bert_golden import TOLERANCE, Reference, cases, reference
from tests.parity.golden import folder_of
from tests.shared_data import needs_shared

NAMES = {3: "dnabert3_tiny", 4: "dnabert4_tiny", 5: "dnabert5_tiny", 6: "dnabert6_tiny"}
KMER = {name: k for k, name in NAMES.items()}
CASES = cases(*KMER)


def is_comparable(name: str, golden: Reference) -> bool:
    return golden.is_upper and len(golden.sequence) >= KMER[name]


def is_one_piece(name: str, golden: Reference) -> bool:
    return is_comparable(name, golden) and len(golden.call_lengths) == 1


@cache
def embedder(name: str, protocol: str = "bend-2024") -> DNABertEmbedder:
    return DNABertEmbedder(folder_of(name), kmer=KMER[name], protocol=protocol, device="cpu")


@pytest.mark.parametrize(("name", "sequence"), CASES)
def test_token_ids_and_chunks_are_bends(name: str, sequence: str) -> None:
    golden = reference(name, sequence)
    tokenized = embedder(name)._tokenize([golden.sequence])
    if len(golden.sequence) < KMER[name]:
        assert tokenized.ids.tolist() == [golden.ids[0], 1, golden.ids[-1]]  # [UNK] between CLS and SEP
        return
    np.testing.assert_array_equal(tokenized.ids, golden.ids)
    assert np.diff(tokenized.chunk_starts).tolist() == golden.call_lengths


@pytest.mark.parametrize(("name", "sequence"), cases(*KMER, only=is_comparable))
def test_embeddings_are_bends(name: str, sequence: str) -> None:
    golden = reference(name, sequence)
    rows = embedder(name)
    np.testing.assert_allclose(rows(golden.sequence, False), golden.raw, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(rows(golden.sequence), golden.removed, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("name", "sequence"), CASES)
def test_nucleotide_embeddings_are_bends(name: str, sequence: str) -> None:
    golden = reference(name, sequence)
    rows = embedder(name)(golden.sequence, upsample_embeddings=True)
    assert len(rows) == len(golden.sequence)
    if golden.upsampled is None:
        assert len(golden.sequence) < KMER[name]
        np.testing.assert_array_equal(rows, rows[:1].repeat(len(rows), axis=0))
    elif golden.is_upper:
        np.testing.assert_allclose(rows, golden.upsampled, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("name", "sequence"), cases(*KMER, only=is_one_piece))
def test_bend_hf_1_repeats_the_first_embedding_in_front_and_the_last_behind(name: str, sequence: str) -> None:
    golden = reference(name, sequence)
    n_kmers, front = len(golden.sequence) - KMER[name] + 1, (KMER[name] - 1) // 2
    expected = golden.removed[np.clip(np.arange(len(golden.sequence)) - front, 0, n_kmers - 1)]
    rows = embedder(name, "bend-hf-1")(golden.sequence, upsample_embeddings=True)
    np.testing.assert_allclose(rows, expected, atol=TOLERANCE, rtol=0)


@needs_shared
@pytest.mark.parametrize("name", KMER)
def test_bend_hf_1_reads_each_chunk_as_if_it_were_a_sequence(name: str) -> None:
    sequence = reference(name, "len1200").sequence
    rows = embedder(name, "bend-hf-1")
    whole = rows(sequence)
    for first in (0, 510, 1020):
        alone = rows(sequence[first : first + 510 + KMER[name] - 1])
        np.testing.assert_allclose(whole[first : first + 510], alone, atol=1e-5, rtol=0)


@needs_shared
@pytest.mark.parametrize("protocol", ["bend-2024", "bend-hf-1"])
def test_a_batch_changes_nothing(protocol: str) -> None:
    names = ("len1", "len7", "len513", "n_lead_trail", "len12")
    sequences = [reference("dnabert6_tiny", name).sequence for name in names]
    together = embedder("dnabert6_tiny", protocol).embed(sequences, upsample_embeddings=True)
    for rows, sequence in zip(together, sequences, strict=True):
        alone = embedder("dnabert6_tiny", protocol)(sequence, upsample_embeddings=True)
        np.testing.assert_allclose(rows, alone, atol=1e-5, rtol=0)


@needs_shared
def test_any_hidden_layer_is_transformers_own() -> None:
    from transformers import BertModel

    folder = folder_of("dnabert4_tiny")
    golden = reference("dnabert4_tiny", "len13")
    with torch.no_grad():
        states = BertModel.from_pretrained(folder).eval()(torch.tensor(golden.ids)[None], output_hidden_states=True)
    for layer in (0, 1, -1):
        rows = DNABertEmbedder(folder, layer=layer, device="cpu")(golden.sequence, False)
        np.testing.assert_allclose(rows, states.hidden_states[layer][0].numpy(), atol=1e-5, rtol=0)


@needs_shared
def test_logits_and_loss_are_transformers_own(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    folder = folder_of("dnabert3_tiny")
    shutil.copy(folder / "vocab.txt", tmp_path)
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig.from_pretrained(folder)).eval()
    model.save_pretrained(tmp_path)
    golden = reference("dnabert3_tiny", "len13")
    ids = torch.tensor(golden.ids)
    with torch.no_grad():
        logits = model(ids[None]).logits[0, 1:-1]
    embedder = DNABertEmbedder(tmp_path, device="cpu")
    np.testing.assert_allclose(embedder.logits([golden.sequence])[0], logits.numpy(), atol=1e-5, rtol=0)
    loss = torch.nn.functional.cross_entropy(logits, ids[1:-1], reduction="none")
    np.testing.assert_allclose(embedder.loss([golden.sequence])[0], loss.numpy(), atol=1e-5, rtol=0)


@needs_shared
def test_logits_without_a_head_in_the_file_raise() -> None:
    with pytest.raises(ModelError, match="lacks the language-model head"):
        embedder("dnabert6_tiny").logits(["ACGTACGT"])


@needs_shared
def test_the_wrong_k_raises() -> None:
    with pytest.raises(ModelError, match=r"kmer=5 does not match .* has 6-mers; use kmer=6"):
        DNABertEmbedder(folder_of("dnabert6_tiny"), kmer=5)


@needs_shared
def test_a_vocabulary_larger_than_the_model_raises(tmp_path: Path) -> None:
    shutil.copy(folder_of("dnabert6_tiny") / "vocab.txt", tmp_path)
    config = json.loads((folder_of("dnabert3_tiny") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="vocabulary of 4101 tokens, but vocab_size 69"):
        DNABertEmbedder(tmp_path, random_init=True)


@needs_shared
def test_the_registry_loads_it_by_key() -> None:
    loaded = load_embedder("dnabert5", checkpoint=folder_of("dnabert5_tiny"), device="cpu")
    golden = reference("dnabert5_tiny", "len7")
    rows = loaded(golden.sequence, upsample_embeddings=True)
    assert golden.upsampled is not None
    np.testing.assert_allclose(rows, golden.upsampled, atol=TOLERANCE, rtol=0)
