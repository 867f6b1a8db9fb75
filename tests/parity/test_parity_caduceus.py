"""Caduceus, ``ph`` and ``ps``, gives the outputs of the authors' code for the same weights."""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from bend_hf.embedders import MODELS, CaduceusEmbedder, load_embedder
from bend_hf.embedders._tokens import reverse_complement
from bend_hf.embedders.networks.caduceus import (
    CaduceusConfig,
    CaduceusForMaskedLM,
    CaduceusModel,
    config_from_json,
    rename_key,
)
from bend_hf.errors import ModelError
from bend_hf.types import ProtocolName
from tests.parity.golden import arrays, cases, entry_of, folder_of, golden, sequence_of
from tests.shared_data import GOLDEN, needs_shared

pytestmark = needs_shared

PH, PS = "caduceus-ph-tiny", "caduceus-ps-tiny"
NAMES = (PH, PS)
WIDTHS = {PH: 64, PS: 96}
ATOL = 1e-4
LOGITS_RTOL = 1e-4  # of the largest score: they reach 40

# bend-hf-1 cuts at the 1,024 tokens that the model was trained on; bend-2024 runs sequences whole, as the authors do.
CUT_IN_HF_1 = ("len1024", "len1200")


@cache
def embedder_of(name: str, protocol: ProtocolName = "bend-2024") -> CaduceusEmbedder:
    return CaduceusEmbedder(folder_of(name), protocol=protocol, device="cpu", batch_tokens=2048)


@cache
def network_of(name: str, **changes: Any) -> CaduceusForMaskedLM:
    fields = json.loads((folder_of(name) / "config.json").read_text()) | changes
    model = CaduceusForMaskedLM(config_from_json(fields)).eval()
    state = load_file(folder_of(name) / "model.safetensors")
    model.load_state_dict({rename_key(key): value for key, value in state.items()}, strict=False)
    return model


def rows_of(model: CaduceusForMaskedLM, ids: NDArray[np.integer]) -> Any:
    with torch.no_grad():
        return model.caduceus(torch.from_numpy(ids)[None].long()).last_hidden_state[0].numpy()


@pytest.mark.parametrize(("name", "case"), cases(*NAMES))
def test_token_ids_equal_the_published_tokenizer(name: str, case: str) -> None:
    tokenized = embedder_of(name).tokenize([sequence_of(name, case)])
    np.testing.assert_array_equal(tokenized.ids, golden(name).input_ids(name, case)[0])


@pytest.mark.parametrize("protocol", get_args(ProtocolName))
@pytest.mark.parametrize(("name", "case"), cases(*NAMES))
def test_embeddings_equal_the_reference(name: str, case: str, protocol: ProtocolName) -> None:
    if protocol == "bend-hf-1" and case in CUT_IN_HF_1:
        return _is_cut(name, case)
    sequence = sequence_of(name, case)
    for keep in (True, False):
        (rows,) = embedder_of(name, protocol).embed([sequence], remove_special_tokens=not keep)
        np.testing.assert_allclose(rows, golden(name).embedding(name, case, special=keep), atol=ATOL, rtol=0)
    return None


def _is_cut(name: str, case: str) -> None:
    embedder, sequence = embedder_of(name, "bend-hf-1"), sequence_of(name, case)
    chunks = [embedder(sequence[:1023]), embedder(sequence[1023:])]
    np.testing.assert_allclose(embedder(sequence), np.concatenate(chunks), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "case"), cases(*NAMES, holding="logits"))
def test_logits_equal_the_reference(name: str, case: str) -> None:
    expected = golden(name).logits(name, case)[:-1]
    scores = embedder_of(name).logits([sequence_of(name, case)])[0]
    np.testing.assert_allclose(scores, expected, atol=LOGITS_RTOL * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_the_cross_entropy_of_the_reference_logits(name: str) -> None:
    scores = golden(name).logits(name, "len100")[:-1].astype(np.float64)
    targets = golden(name).input_ids(name, "len100")[0][:-1]
    expected = np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1)
    expected -= scores[np.arange(len(targets)), targets]
    np.testing.assert_allclose(embedder_of(name).loss([sequence_of(name, "len100")])[0], expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("layer", range(4))
@pytest.mark.parametrize("name", NAMES)
def test_hidden_layers_equal_the_published_code(name: str, layer: int) -> None:
    embedder = CaduceusEmbedder(folder_of(name), layer=layer, device="cpu")
    rows = embedder.embed([sequence_of(name, "len12")], remove_special_tokens=False)[0]
    np.testing.assert_allclose(rows, arrays(name)[f"len12/layer{layer}"], atol=ATOL, rtol=0)


@pytest.mark.parametrize(("name", "case"), cases(*NAMES, holding="nospecial"))
def test_embeddings_without_the_trailing_sep_equal_the_reference(name: str, case: str) -> None:
    rows = rows_of(network_of(name), golden(name).input_ids(name, case)[0][:-1])
    np.testing.assert_allclose(rows, arrays(name)[f"{case}/nospecial"], atol=ATOL, rtol=0)


@pytest.mark.parametrize(("name", "case"), cases(*NAMES, holding="nospecial_fused_add_norm_false"))
def test_unfused_norms_are_another_function_in_ps_and_the_same_in_ph(name: str, case: str) -> None:
    ids = golden(name).input_ids(name, case)[0][:-1]
    unfused = rows_of(network_of(name, fused_add_norm=False), ids)
    np.testing.assert_allclose(unfused, arrays(name)[f"{case}/nospecial_fused_add_norm_false"], atol=ATOL, rtol=0)
    assert (np.abs(unfused - rows_of(network_of(name), ids)).max() > 1) == (name == PS)


@pytest.mark.parametrize(("name", "case"), cases(*NAMES, holding="rc_raw"))
def test_ps_is_reverse_complement_equivariant(name: str, case: str) -> None:
    """The rows of the reverse complement are the rows, reversed in both axes; so are the scores, by the pairing."""
    ids = golden(name).input_ids(name, case)[0][:-1]
    back_ids = arrays(name)[f"{case}/rc_ids"]
    model = network_of(name)
    rows, back = rows_of(model, ids), rows_of(model, back_ids)
    np.testing.assert_allclose(back, arrays(name)[f"{case}/rc_raw"], atol=ATOL, rtol=0)
    np.testing.assert_allclose(back[::-1, ::-1], rows, atol=1e-5, rtol=0)
    with torch.no_grad():
        scores = model(torch.from_numpy(ids)[None].long()).logits[0].numpy()
        back_scores = model(torch.from_numpy(back_ids)[None].long()).logits[0].numpy()
    pairs = model.config.complements()
    np.testing.assert_allclose(back_scores[::-1][:, pairs], scores, atol=LOGITS_RTOL * np.abs(scores).max(), rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.text("ACGTN", min_size=1, max_size=80))
def test_any_ps_model_is_equivariant_for_any_sequence(sequence: str) -> None:
    torch.manual_seed(len(sequence))
    model = CaduceusForMaskedLM(CaduceusConfig(d_model=8, n_layer=3, rcps=True)).eval()
    table = dict(zip("ACGTN", range(7, 12), strict=True))
    rows, back = (
        rows_of(model, np.array([table[nucleotide] for nucleotide in strand]))
        for strand in (sequence, reverse_complement(sequence))
    )
    np.testing.assert_allclose(back[::-1, ::-1], rows, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_reverse_complement_average_puts_the_strands_onto_each_other(name: str) -> None:
    sequence = sequence_of(name, "len100")
    averaged = CaduceusEmbedder(folder_of(name), reverse_complement_average=True, device="cpu")
    back = embedder_of(name)(reverse_complement(sequence))[::-1]
    back = back[:, ::-1] if name == PS else back
    expected = (embedder_of(name)(sequence) + back) / 2
    np.testing.assert_allclose(averaged(sequence, upsample_embeddings=True), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_padded_batch_equals_single_runs_where_the_published_code_reads_its_padding(name: str) -> None:
    """The published tokenizer pads on the left and the model takes no mask, so its batched rows differ."""
    names = entry_of(name)["batch"]["names"]
    rows = CaduceusEmbedder(folder_of(name), device="cpu", batch_tokens=10**6).embed(
        [sequence_of(name, case) for case in names], remove_special_tokens=False
    )
    for case, one in zip(names, rows, strict=True):
        np.testing.assert_allclose(one, golden(name).embedding(name, case, special=True), atol=ATOL, rtol=0)
    assert np.abs(arrays(name)["batch/raw"][0, -len(rows[0]) :] - rows[0]).max() > ATOL


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_do_not_depend_on_the_batch(name: str) -> None:
    sequences = [sequence_of(name, case) for case in ("len1", "len511", "n_runs_512", "len7", "len100", "len12")]
    together = CaduceusEmbedder(folder_of(name), device="cpu", batch_tokens=10**6).embed(sequences)
    for sequence, rows in zip(sequences, together, strict=True):
        np.testing.assert_allclose(rows, embedder_of(name)(sequence), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_padding_on_either_side_changes_nothing(name: str) -> None:
    model = network_of(name)
    alone, other = torch.tensor([7, 8, 9, 10, 1]), torch.tensor([7, 7, 9, 10, 11, 8, 8, 1])
    for place in (slice(0, 5), slice(3, 8)):
        ids, mask = torch.full((2, 8), 4), torch.zeros(2, 8)
        ids[0, place], mask[0, place] = alone, 1
        ids[1], mask[1] = other, 1
        with torch.no_grad():
            batched = model.caduceus(ids, mask).last_hidden_state[0, place]
        np.testing.assert_allclose(batched.numpy(), rows_of(model, alone.numpy()), atol=1e-5, rtol=0)


@settings(max_examples=15, deadline=None)
@given(
    runs=st.lists(
        st.tuples(st.text("ACGTNacgtnRYSWKMBDHV", min_size=1, max_size=8), st.integers(1, 30)), min_size=1, max_size=4
    ),
    protocol=st.sampled_from(get_args(ProtocolName)),
    name=st.sampled_from(NAMES),
)
def test_every_sequence_has_one_finite_embedding_per_nucleotide(
    runs: list[tuple[str, int]], protocol: ProtocolName, name: str
) -> None:
    sequence = "".join(nucleotides * times for nucleotides, times in runs)
    rows = embedder_of(name, protocol)(sequence, upsample_embeddings=True)
    assert rows.shape == (len(sequence), WIDTHS[name])
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("overlap_tokens", [0, 10])
@pytest.mark.parametrize("protocol", get_args(ProtocolName))
@pytest.mark.parametrize("name", NAMES)
def test_lengths_around_the_context_have_one_embedding_per_nucleotide(
    name: str, protocol: ProtocolName, overlap_tokens: int, tmp_path: Path
) -> None:
    for file in ("config.json", "model.safetensors"):
        shutil.copy(folder_of(name) / file, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 64}')
    embedder = CaduceusEmbedder(tmp_path, protocol=protocol, device="cpu", overlap_tokens=overlap_tokens)
    lengths = [1, 62, 63, 64, 65, 126, 127]
    sequences = ["ACGTN" * (length // 5) + "ACGTN"[: length % 5] for length in lengths]
    n_pieces = len(embedder.tokenize(sequences).chunk_starts) - 1
    assert (n_pieces > len(lengths)) == (protocol == "bend-hf-1" or overlap_tokens > 0)
    assert [len(one) for one in embedder.embed(sequences)] == lengths


@pytest.mark.parametrize("name", NAMES)
def test_shared_projections_are_shared_and_the_head_is_the_table(name: str) -> None:
    embedder = embedder_of(name)
    assert embedder.lacking == ()
    assert isinstance(embedder.model, CaduceusForMaskedLM)
    own = embedder.model.state_dict()
    stored = load_file(folder_of(name) / "model.safetensors")
    absent = entry_of(name)["keys_absent_from_file_shared_by_tying"]
    assert sorted(set(own) - set(stored)) == sorted(absent)
    for key in absent:
        partner = key.replace("mamba_rev", "mamba_fwd")
        if "lm_head" in key:
            partner = next(one for one in stored if one.endswith(("embeddings.weight", "embedding.weight")))
        assert own[key].data_ptr() == own[partner].data_ptr()


@pytest.mark.parametrize("rcps", [False, True])
def test_untied_projections_are_stored_read_and_used(rcps: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = CaduceusConfig(d_model=8, n_layer=2, rcps=rcps, bidirectional_weight_tie=False)
    model = CaduceusForMaskedLM(config).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 64}')
    stored = load_file(tmp_path / "model.safetensors")
    rev = [key for key in stored if "mamba_rev.in_proj" in key]
    assert len(rev) == 2
    ids = np.array([7, 8, 9, 10, 10, 1])
    rows = CaduceusEmbedder(tmp_path, device="cpu").embed(["ACGTT"], remove_special_tokens=False)[0]
    np.testing.assert_allclose(rows, rows_of(model, ids), atol=1e-6, rtol=0)
    stored[rev[0]] = stored[rev[0]] + 1
    save_file(stored, tmp_path / "model.safetensors")
    changed = CaduceusEmbedder(tmp_path, device="cpu").embed(["ACGTT"], remove_special_tokens=False)[0]
    assert np.abs(changed - rows).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_weight_is_named(name: str, tmp_path: Path) -> None:
    for file in ("config.json", "tokenizer_config.json"):
        (tmp_path / file).write_text((folder_of(name) / file).read_text())
    state = load_file(folder_of(name) / "model.safetensors")
    lost = next(key for key in state if re.search(r"layers\.1\.mixer\..*mamba_fwd\.in_proj\.weight", key))
    save_file({key: value for key, value in state.items() if key != lost}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=re.escape(lost)):
        CaduceusEmbedder(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("rms_norm", False), ("bidirectional", False), ("bidirectional_strategy", "ew_multiply")],
)
def test_unpublished_variants_raise(field: str, value: object) -> None:
    fields = json.loads((folder_of(PH) / "config.json").read_text())
    with pytest.raises(ModelError, match=f"{field}=.* is not supported"):
        config_from_json({**fields, field: value})


def test_random_weights_are_seeded() -> None:
    def rows(seed: int) -> Any:
        return CaduceusEmbedder(folder_of(PS), random_init=True, seed=seed, device="cpu")("ACGTACGT")

    np.testing.assert_array_equal(rows(3), rows(3))
    assert np.abs(rows(3) - rows(4)).max() > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_embeddings_are_near_those_of_float32(name: str) -> None:
    sequence = sequence_of(name, "len512")
    half = CaduceusEmbedder(folder_of(name), dtype="bfloat16", device="cpu")(sequence)
    full = embedder_of(name)(sequence)
    cosine = (half * full).sum(1) / (np.linalg.norm(half, axis=1) * np.linalg.norm(full, axis=1))
    assert cosine.min() > 0.99


def test_rates_of_decay_stay_float32_in_a_half_precision_model() -> None:
    model = CaduceusModel(CaduceusConfig(d_model=8, n_layer=1)).to(torch.bfloat16)
    cell = model.backbone.layers[0].mixer.mamba_fwd
    assert cell.A_log.dtype == cell.D.dtype == torch.float32
    assert cell.in_proj.weight.dtype == torch.bfloat16


def test_the_registry_key_takes_a_local_checkpoint() -> None:
    embedder = load_embedder("caduceus-ps", checkpoint=folder_of(PS), device="cpu")
    assert isinstance(embedder, CaduceusEmbedder)
    assert embedder.width == WIDTHS[PS]
    np.testing.assert_allclose(embedder("ACGT"), embedder_of(PS)("ACGT"), atol=1e-5, rtol=0)


# PlantCaduceus: the same network with other tokens. The published tokenizer gives [PAD] 0, [MASK] 1, [UNK] 2, a 3,
# c 4, g 5, t 6 and adds nothing; N is [UNK].
PLANT_TOKEN_OF = {4: 0, 3: 1, 11: 2, 7: 3, 8: 4, 9: 5, 10: 6}


def plant_folder(name: str, folder: Path) -> Path:
    """Give a checkpoint of Caduceus the tokens of PlantCaduceus: the same rows of its embeddings at other ids."""
    tiny = MODELS.get("plantcaduceus-l32").tiny
    assert tiny is not None
    tiny().write(folder)
    fields = json.loads((folder_of(name) / "config.json").read_text())
    new_of = PLANT_TOKEN_OF
    fields |= {"vocab_size": 8, "complement_map": {"3": 6, "4": 5, "5": 4, "6": 3} | {str(i): i for i in (0, 1, 2, 7)}}
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30, "padding_side": "right"}))
    state = load_file(folder_of(name) / "model.safetensors")
    for key, value in state.items():
        if key.endswith("complement_map"):
            state[key] = torch.tensor([0, 1, 2, 6, 5, 4, 3, 7])
        elif "word_embeddings" in key or key.endswith("lm_head.weight"):
            rows = torch.zeros(8, value.shape[1])
            rows[list(new_of.values())] = value[list(new_of)]
            state[key] = rows
    save_file(state, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("protocol", get_args(ProtocolName))
@pytest.mark.parametrize("name", NAMES)
def test_plantcaduceus_gives_the_same_rows_for_its_own_tokens(
    name: str, protocol: ProtocolName, tmp_path: Path
) -> None:
    plant = load_embedder("plantcaduceus-l32", checkpoint=plant_folder(name, tmp_path), protocol=protocol, device="cpu")
    compared = 0
    for _, case in cases(name, holding="nospecial"):
        sequence = sequence_of(name, case)
        is_whole = protocol == "bend-2024" or len(sequence) <= 512  # the length of training
        if set(sequence.upper()) <= set("ACGTN") and is_whole:
            assert plant.tokenize([sequence]).ids.tolist() == [
                PLANT_TOKEN_OF[token] for token in golden(name).input_ids(name, case)[0][:-1].tolist()
            ]
            expected = arrays(name)[f"{case}/nospecial"]
            np.testing.assert_allclose(plant(sequence), expected, atol=ATOL, rtol=0, err_msg=case)
            compared += 1
    assert compared


def test_plantcaduceus_reads_what_the_published_tokenizer_reads(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    published = GOLDEN / "new" / "ckpt" / "plantcad2-tiny" / "tokenizer.json"  # of eight ids, as PlantCaduceus has
    folder = plant_folder(PS, tmp_path)
    shutil.copy(published, folder / "tokenizer.json")
    plant = load_embedder("plantcaduceus-l20", checkpoint=folder, device="cpu")
    for sequence in ("ACGTNRYacgtn", "N" * 40, "a", "ACGT" * 300):
        assert plant.tokenize([sequence]).ids.tolist() == Tokenizer.from_file(str(published)).encode(sequence).ids
    assert plant.mask_id == 1


def test_a_tokenizer_with_more_tokens_than_the_network_is_refused(tmp_path: Path) -> None:
    folder = plant_folder(PS, tmp_path)
    body = json.loads((folder / "tokenizer.json").read_text())
    body["model"]["vocab"]["t"] = 9
    (folder / "tokenizer.json").write_text(json.dumps(body))
    with pytest.raises(ModelError, match=r"gives the token id 9, but the network has 8 tokens"):
        load_embedder("plantcaduceus-l20", checkpoint=folder).load()
