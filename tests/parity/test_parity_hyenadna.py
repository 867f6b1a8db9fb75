"""HyenaDNA gives what BEND (plain files) and the published code (``-hf`` files) give on the same weights."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bend_hf.embedders import HyenaDNAEmbedder, load_embedder
from bend_hf.errors import ConfigError
from bend_hf.types import ProtocolName
from tests.parity.golden import arrays, cases, folder_of, golden, sequence_of
from tests.shared_data import needs_shared

pytestmark = needs_shared

PLAIN, HF = "hyenadna-tiny-1k-seqlen", "hyenadna-tiny-1k-seqlen-hf"
NAMES = (PLAIN, HF)
ATOL = 1e-4  # another length of the transform than the published code's: up to 3e-5

UPPER = "the published tokenizers make [UNK] of lower-case nucleotides; here they are upper-cased first"
LONGER = "the published code raises past 1,026 tokens; here the sequence is cut"
OTHER_INPUT = {
    (PLAIN, "soft_masked_512"): UPPER,
    (PLAIN, "all_lower_100"): UPPER,
    (HF, "soft_masked_100"): UPPER,
    (HF, "all_lower_60"): UPPER,
    (HF, "len1026"): LONGER,
    (HF, "len1200"): LONGER,
    (HF, "len1300"): LONGER,
}
# BEND's own loss raises where a nucleotide is [UNK]; here that nucleotide's loss is nan.
NO_LOSS = ("soft_masked_512", "all_lower_100", "iupac_60")


@cache
def embedder_of(name: str, protocol: ProtocolName = "bend-2024") -> HyenaDNAEmbedder:
    return HyenaDNAEmbedder(folder_of(name), protocol=protocol, device="cpu", batch_tokens=2048)


SAME_INPUT = [case for case in cases(*NAMES) if case not in OTHER_INPUT]


@pytest.mark.parametrize(("name", "case"), SAME_INPUT)
def test_token_ids_equal_the_published_tokenizer(name: str, case: str) -> None:
    tokenized = embedder_of(name).tokenize([sequence_of(name, case)])
    calls = golden(name).input_ids(name, case)
    np.testing.assert_array_equal(tokenized.ids, np.concatenate(calls))
    assert np.diff(tokenized.chunk_starts).tolist() == [len(call) for call in calls]


@pytest.mark.parametrize("protocol", get_args(ProtocolName))
@pytest.mark.parametrize(("name", "case"), SAME_INPUT)
def test_embeddings_equal_the_reference(name: str, case: str, protocol: ProtocolName) -> None:
    """With special tokens, those between the chunks of a long sequence included, and without."""
    embedder, sequence = embedder_of(name, protocol), sequence_of(name, case)
    for keep in (True, False):
        rows = embedder.embed([sequence], remove_special_tokens=not keep)[0]
        np.testing.assert_allclose(rows, golden(name).embedding(name, case, special=keep), atol=ATOL, rtol=0)


@pytest.mark.parametrize(("name", "case"), [case for case in cases(*NAMES, holding="logits") if case in SAME_INPUT])
def test_logits_equal_the_reference(name: str, case: str) -> None:
    expected = arrays(name)[f"{case}/logits"]
    expected = expected[:-1] if name == HF else expected  # the plain ones are stored without special tokens
    np.testing.assert_allclose(embedder_of(name).logits([sequence_of(name, case)])[0], expected, atol=ATOL, rtol=0)


@pytest.mark.parametrize("case", [case for name, case in cases(*NAMES) if name == PLAIN and case not in NO_LOSS])
def test_loss_equals_bends(case: str) -> None:
    loss = embedder_of(PLAIN).loss([sequence_of(PLAIN, case)])[0]
    np.testing.assert_allclose(loss, arrays(PLAIN)[f"{case}/loss"], atol=ATOL, rtol=0)


def test_loss_is_nan_where_bend_raises_and_finite_elsewhere() -> None:
    sequence = sequence_of(PLAIN, "iupac_60")
    known = np.isin(list(sequence), list("ACGTN"))
    assert (np.isfinite(embedder_of(PLAIN).loss([sequence])[0]) == known).all()
    assert not known.all()


def test_loss_of_the_first_nucleotide_needs_something_in_front() -> None:
    """-hf inputs have no [CLS], so that nothing predicts their first nucleotide."""
    loss = embedder_of(HF).loss(["ACGT"])[0]
    assert np.isfinite(loss).tolist() == [False, True, True, True]


@pytest.mark.parametrize("layer", range(4))
def test_hidden_layers_equal_the_published_code(layer: int) -> None:
    embedder = HyenaDNAEmbedder(folder_of(HF), layer=layer, device="cpu")
    rows = embedder.embed([sequence_of(HF, "len12")], remove_special_tokens=False)[0]
    np.testing.assert_allclose(rows, arrays(HF)[f"len12/layer{layer}"], atol=ATOL, rtol=0)


def test_a_layer_that_is_not_there_raises() -> None:
    with pytest.raises(ConfigError, match="has no layer 4"):
        HyenaDNAEmbedder(folder_of(HF), layer=4, device="cpu")("ACGT")


@pytest.mark.parametrize(("name", "case"), list(OTHER_INPUT))
def test_other_input_than_the_references_still_has_a_embedding_for_each_nucleotide(name: str, case: str) -> None:
    sequence = sequence_of(name, case)
    rows = embedder_of(name)(sequence, upsample_embeddings=True)
    assert rows.shape == (len(sequence), 64)
    np.testing.assert_allclose(rows, embedder_of(name)(sequence.upper()), atol=1e-5, rtol=0)


def test_a_cut_hf_sequence_starts_like_its_first_chunk() -> None:
    sequence = sequence_of(HF, "len1200")
    rows = embedder_of(HF)(sequence)
    np.testing.assert_allclose(rows[:1025], embedder_of(HF)(sequence[:1025]), atol=1e-5, rtol=0)
    np.testing.assert_allclose(rows[1025:], embedder_of(HF)(sequence[1025:]), atol=1e-5, rtol=0)


def test_a_padded_batch_equals_single_runs_where_the_published_code_reads_its_padding() -> None:
    """The -hf tokenizer pads on the left and the published model takes no mask, so its batched rows differ."""
    names = golden(HF).index["embedders"][HF]["batch"]["names"]
    rows = embedder_of(HF).embed([sequence_of(HF, case) for case in names], remove_special_tokens=False)
    for case, one in zip(names, rows, strict=True):
        np.testing.assert_allclose(one, golden(HF).embedding(HF, case, special=True), atol=ATOL, rtol=0)
    padded_by_them = arrays(HF)["batch/raw"][0, -len(rows[0]) :]
    assert np.abs(padded_by_them - rows[0]).max() > ATOL


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_do_not_depend_on_the_batch(name: str) -> None:
    sequences = [sequence_of(name, case) for case in ("len1", "len511", "n_runs_512", "len7", "len1200", "len12")]
    together = HyenaDNAEmbedder(folder_of(name), device="cpu", batch_tokens=10**6).embed(sequences)
    for sequence, rows in zip(sequences, together, strict=True):
        np.testing.assert_allclose(rows, embedder_of(name)(sequence), atol=1e-5, rtol=0)


def test_weights_ckpt_gives_what_safetensors_give(tmp_path: Path) -> None:
    for file in ("config.json", "weights.ckpt"):
        shutil.copy(folder_of(PLAIN) / file, tmp_path / file)
    sequence = sequence_of(PLAIN, "len513")
    embedder = HyenaDNAEmbedder(tmp_path, device="cpu", batch_tokens=2048)
    assert [path.name for path in embedder.weight_files] == ["weights.ckpt"]
    np.testing.assert_array_equal(embedder(sequence), embedder_of(PLAIN)(sequence))


def test_both_kinds_of_files_are_one_network() -> None:
    """With [CLS] in front by hand, the -hf network reads what the plain one does."""
    from safetensors.torch import load_file

    from bend_hf.embedders.networks.hyenadna import HyenaDNAForCausalLM, config_from_json, rename_key

    model = HyenaDNAForCausalLM(config_from_json(json.loads((folder_of(HF) / "config.json").read_text())))
    state = load_file(folder_of(PLAIN) / "model.safetensors")
    lost = model.load_state_dict({rename_key(key): value for key, value in state.items()}, strict=False)
    assert lost.missing_keys == []
    ids = torch.from_numpy(golden(PLAIN).input_ids(PLAIN, "len513")[0][None]).long()
    with torch.no_grad():
        rows = model.eval().hyena(ids).last_hidden_state[0].numpy()
    np.testing.assert_allclose(rows, golden(PLAIN).embedding(PLAIN, "len513", special=True), atol=ATOL, rtol=0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.lists(
        st.tuples(st.text("ACGTNacgtnRYSWKMBDHV", min_size=1, max_size=8), st.integers(1, 60)),
        min_size=1,
        max_size=8,
    ),
    protocol=st.sampled_from(get_args(ProtocolName)),
    name=st.sampled_from(NAMES),
)
def test_every_sequence_has_one_finite_embedding_per_nucleotide(
    runs: list[tuple[str, int]], protocol: ProtocolName, name: str
) -> None:
    sequence = "".join(nucleotides * times for nucleotides, times in runs)
    rows = embedder_of(name, protocol)(sequence, upsample_embeddings=True)
    assert rows.shape == (len(sequence), 64)
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("overlap_tokens", [0, 100])
@pytest.mark.parametrize("name", NAMES)
def test_lengths_around_the_context_have_one_embedding_per_nucleotide(name: str, overlap_tokens: int) -> None:
    embedder = HyenaDNAEmbedder(folder_of(name), device="cpu", overlap_tokens=overlap_tokens)
    lengths = [1, 1023, 1024, 1025, 1026, 1027, 2048, 2049, 2050, 2051]
    rows = embedder.embed(["ACGTN" * (length // 5) + "ACGTN"[: length % 5] for length in lengths])
    assert [len(one) for one in rows] == lengths


def test_overlap_gives_each_embedding_more_to_look_back_on() -> None:
    sequence = sequence_of(HF, "len1300")
    embedder = HyenaDNAEmbedder(folder_of(HF), device="cpu", overlap_tokens=400)
    last_bp = int(np.diff(embedder.tokenize([sequence]).chunk_starts)[-1]) - 1
    behind_bp = 1300 - 1025
    assert last_bp >= behind_bp + 400
    expected = embedder_of(HF)(sequence[-last_bp:])[-behind_bp:]
    np.testing.assert_allclose(embedder(sequence)[-behind_bp:], expected, atol=1e-5, rtol=0)


def test_random_weights_are_seeded() -> None:
    def rows(seed: int) -> Any:
        return HyenaDNAEmbedder(folder_of(PLAIN), random_init=True, seed=seed, device="cpu")("ACGTACGT")

    np.testing.assert_array_equal(rows(3), rows(3))
    assert np.abs(rows(3) - rows(4)).max() > 1e-2
    assert np.isfinite(rows(3)).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_embeddings_are_near_those_of_float32(dtype: Any) -> None:
    sequence = sequence_of(PLAIN, "len1200")
    half = HyenaDNAEmbedder(folder_of(PLAIN), dtype=dtype, device="cpu")(sequence)
    full = embedder_of(PLAIN)(sequence)
    cosine = (half * full).sum(1) / (np.linalg.norm(half, axis=1) * np.linalg.norm(full, axis=1))
    assert cosine.min() > 0.99


def test_the_registry_key_takes_a_local_checkpoint() -> None:
    embedder = load_embedder("hyenadna-tiny-1k", checkpoint=folder_of(PLAIN), device="cpu")
    assert isinstance(embedder, HyenaDNAEmbedder)
    np.testing.assert_allclose(embedder("ACGT"), embedder_of(PLAIN)("ACGT"), atol=1e-5, rtol=0)
