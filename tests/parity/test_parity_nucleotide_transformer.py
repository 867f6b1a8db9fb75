"""Nucleotide Transformer gives what BEND (first version) and the published code (v2) give on the same weights.

``nt_v2_tiny`` is what BEND made of a "v2" in its own tests: transformers' ESM with rotary positions. It loads by its
configuration as what it is.
"""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from bend_hf.embedders import NucleotideTransformerEmbedder, load_embedder
from bend_hf.errors import ModelError
from tests.parity.golden import arrays, cases, folder_of, golden
from tests.shared_data import needs_shared

pytestmark = needs_shared

BEND, V2 = ("nt_tiny", "nt_v2_tiny"), "nucleotide-transformer-v2-tiny"
ATOL = 5e-5  # a float64 run of the same network is up to 2e-5 away on 512 nucleotides (golden/more/README.md)

UPPER = "the published tokenizer makes one <unk> of a run of lower-case nucleotides; here they are upper-cased first"
LONGER = "the published code runs any length whole; here an input is at most the context of 2,048 tokens"
OTHER_INPUT = {
    ("nt_tiny", "soft_masked_512"): UPPER,
    ("nt_tiny", "all_lower_100"): UPPER,
    ("nt_v2_tiny", "soft_masked_512"): UPPER,
    ("nt_v2_tiny", "all_lower_100"): UPPER,
    (V2, "soft_masked_100"): UPPER,
    (V2, "all_lower_60"): UPPER,
    (V2, "len12300"): LONGER,
}


@cache
def embedder_of(name: str, protocol: Any = "bend-2024") -> NucleotideTransformerEmbedder:
    return NucleotideTransformerEmbedder(folder_of(name), protocol=protocol, device="cpu", batch_tokens=2048)


SAME_INPUT = [case for case in cases(*BEND, V2) if case not in OTHER_INPUT]


def holds(key: str, name: str) -> bool:
    return key in arrays(name)


def cross_entropy(
    scores: NDArray[np.floating], targets: NDArray[np.integer], first: int, last: int | None = None
) -> NDArray[np.floating]:
    competing = scores[:, first:last].astype(np.float64)
    top = competing.max(axis=1)
    total = np.log(np.exp(competing - top[:, None]).sum(axis=1)) + top
    return total - competing[np.arange(len(targets)), targets - first]


@pytest.mark.parametrize(("name", "sequence"), SAME_INPUT)
def test_model_inputs_equal_the_reference(name: str, sequence: str) -> None:
    tokenized = embedder_of(name).tokenize([golden(name).sequences[sequence]])
    chunks = np.split(tokenized.ids, tokenized.chunk_starts[1:-1])
    theirs = golden(name).input_ids(name, sequence)
    assert [chunk.tolist() for chunk in chunks] == [chunk.tolist() for chunk in theirs]


@pytest.mark.parametrize(("name", "sequence"), SAME_INPUT)
def test_token_embeddings_equal_the_reference(name: str, sequence: str) -> None:
    nucleotides = golden(name).sequences[sequence]
    for special in (True, False):
        ours = embedder_of(name)(nucleotides, remove_special_tokens=not special)
        theirs = golden(name).embedding(name, sequence, special=special)
        np.testing.assert_allclose(ours, theirs, atol=ATOL, rtol=0)


@pytest.mark.parametrize(("name", "sequence"), [case for case in cases(*BEND) if case not in OTHER_INPUT])
def test_nucleotide_embeddings_equal_bend_wherever_bend_has_one_for_each(name: str, sequence: str) -> None:
    nucleotides = golden(name).sequences[sequence]
    ours = embedder_of(name)(nucleotides, upsample_embeddings=True)
    if golden(name).record(name, sequence)["upsample_matches_len"]:
        theirs = golden(name).embedding(name, sequence, upsample=True)
        np.testing.assert_allclose(ours, theirs, atol=ATOL, rtol=0)
    else:  # BEND gives an <unk> five rows; here it has one for each nucleotide that it stands for
        assert len(ours) == len(nucleotides) != golden(name).record(name, sequence)["upsampled_len"]


@pytest.mark.parametrize(("name", "sequence"), [case for case in OTHER_INPUT if OTHER_INPUT[case] == UPPER])
def test_lower_case_is_upper_cased_and_whole(name: str, sequence: str) -> None:
    nucleotides = golden(name).sequences[sequence]
    lower, upper = embedder_of(name).embed([nucleotides, nucleotides.upper()], upsample_embeddings=True)
    np.testing.assert_array_equal(lower, upper)
    assert len(lower) == len(nucleotides)


@pytest.mark.parametrize(("name", "sequence"), [case for case in SAME_INPUT if holds(f"{case[1]}/logits", case[0])])
def test_logits_equal_the_reference(name: str, sequence: str) -> None:
    ours = embedder_of(name).logits([golden(name).sequences[sequence]])[0]
    theirs = arrays(name)[f"{sequence}/logits"][-len(ours) :]  # the published code's include <cls>
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sequence", [one for name, one in SAME_INPUT if name == BEND[0] and one != "len5993"])
def test_loss_equals_bend(sequence: str) -> None:
    name = BEND[0]
    nucleotides = golden(name).sequences[sequence]
    ours = embedder_of(name).loss([nucleotides])[0]
    assert len(ours) == len(embedder_of(name)(nucleotides))
    if holds(f"{sequence}/loss", name):
        np.testing.assert_allclose(ours, arrays(name)[f"{sequence}/loss"], atol=1e-4, rtol=0)
    else:  # BEND raises for <unk>, and for N past 1,000 tokens
        assert np.isnan(ours).sum() == (embedder_of(name).tokenize([nucleotides]).ids == 0).sum()


def test_loss_past_the_context_is_complete_where_bend_leaves_out_a_token_and_two_nucleotides() -> None:
    # Past 1,000 tokens BEND loses the first token of the chunk without <cls>, and G and N no longer compete.
    name, key = BEND[0], "len5993"
    nucleotides = golden(name).sequences[key]
    scores = embedder_of(name).logits([nucleotides])[0]
    targets = np.concatenate(golden(name).input_ids(name, key))[1:]
    theirs = cross_entropy(np.delete(scores, 999, axis=0), np.delete(targets, 999), first=4, last=4103)
    np.testing.assert_allclose(theirs, arrays(name)[f"{key}/loss"], atol=1e-4, rtol=0)
    ours = embedder_of(name).loss([nucleotides])[0]
    np.testing.assert_allclose(ours, cross_entropy(scores, targets, first=4), atol=1e-4, rtol=0)


# Where BEND raises, one of the two words stands in the sequence, or an <unk>.
LOSSES_OF_ROTARY_ESM = [one for name, one in SAME_INPUT if name == BEND[1] and holds(f"{one}/loss", name)]


@pytest.mark.parametrize("sequence", LOSSES_OF_ROTARY_ESM)
def test_loss_of_rotary_esm_equals_bend_but_for_the_kmers_that_bend_leaves_out(sequence: str) -> None:
    # BEND takes the vocabulary for that of a real v2 by the path's name, so that two words do not compete.
    name = BEND[1]
    nucleotides = golden(name).sequences[sequence]
    targets = np.concatenate([chunk[1:] for chunk in golden(name).input_ids(name, sequence)])
    ours = cross_entropy(embedder_of(name).logits([nucleotides])[0], targets, first=6)
    np.testing.assert_allclose(ours, arrays(name)[f"{sequence}/loss"], atol=1e-4, rtol=0)
    whole = cross_entropy(embedder_of(name).logits([nucleotides])[0], targets, first=4)
    np.testing.assert_allclose(embedder_of(name).loss([nucleotides])[0], whole, atol=1e-4, rtol=0)


def test_longer_than_the_context_runs_whole_as_published_and_cut_by_default() -> None:
    embedder, ids = embedder_of(V2), arrays(V2)["len12300/ids"]
    with torch.inference_mode():
        whole = embedder.model.esm(torch.from_numpy(ids)[None].long()).last_hidden_state[0]  # type: ignore[union-attr,operator]
    np.testing.assert_allclose(whole.numpy(), arrays(V2)["len12300/raw"], atol=ATOL, rtol=0)
    tokenized = embedder.tokenize([golden(V2).sequences["len12300"]])
    assert tokenized.ids[: tokenized.chunk_starts[1]].tolist() == arrays(V2)["trunc/ids"].tolist()


def test_padded_batch_equals_the_published_code() -> None:
    ids, mask = (torch.from_numpy(arrays(V2)[f"batch/{key}"]).long() for key in ("ids", "mask"))
    with torch.inference_mode():
        ours = embedder_of(V2).model.esm(ids, mask).last_hidden_state  # type: ignore[union-attr,operator]
    there = mask.bool().numpy()
    np.testing.assert_allclose(ours.numpy()[there], arrays(V2)["batch/raw"][there], atol=ATOL, rtol=0)


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_every_layer_equals_the_published_code(layer: int) -> None:
    embedder = NucleotideTransformerEmbedder(folder_of(V2), layer=layer, device="cpu")
    ours = embedder(golden(V2).sequences["len100"], remove_special_tokens=False)
    np.testing.assert_allclose(ours, arrays(V2)[f"len100/layer{layer}"], atol=ATOL, rtol=0)


def test_masked_tokens_get_the_published_scores() -> None:
    ids = torch.from_numpy(arrays(V2)["len100/masked_ids"]).long().reshape(1, -1)
    with torch.inference_mode():
        scores = embedder_of(V2).model(ids).logits[0].numpy()  # type: ignore[misc]
    theirs = arrays(V2)["len100/masked_logits"]
    np.testing.assert_allclose(scores.reshape(theirs.shape), theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [*BEND, V2])
@pytest.mark.parametrize("protocol", ["bend-2024", "bend-hf-1"])
def test_embeddings_do_not_depend_on_the_batch(name: str, protocol: str) -> None:
    embedder = embedder_of(name, protocol)
    nucleotides = [nucleotides for nucleotides in golden(name).sequences.values() if len(nucleotides) < 1300]
    for together, alone in zip(embedder.embed(nucleotides), map(embedder, nucleotides), strict=True):
        np.testing.assert_allclose(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", [*BEND, V2])
def test_half_precision_gives_float32_embeddings_near_the_full_ones(name: str, dtype: Any) -> None:
    nucleotides = golden(name).sequences["n_runs_512"]
    rows = NucleotideTransformerEmbedder(folder_of(name), dtype=dtype, device="cpu")(nucleotides)
    assert rows.dtype == np.float32
    assert 0 < np.abs(rows - embedder_of(name)(nucleotides)).mean() < {"bfloat16": 0.08, "float16": 0.01}[dtype]


@pytest.mark.parametrize("name", [*BEND, V2])
def test_protocols_agree_on_clean_nucleotides(name: str) -> None:
    nucleotides = ["ACGTACGTAC" * 1300, "GATTACA"]
    for ours, theirs in zip(
        embedder_of(name).embed(nucleotides), embedder_of(name, "bend-hf-1").embed(nucleotides), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


def test_every_chunk_of_bend_hf_1_has_its_own_cls() -> None:
    nucleotides = golden(BEND[0]).sequences["n_1500"]
    chunks = {
        protocol: embedder_of(BEND[0], protocol).tokenize([nucleotides]) for protocol in ("bend-2024", "bend-hf-1")
    }
    starts = {protocol: one.ids[one.chunk_starts[:-1]].tolist() for protocol, one in chunks.items()}
    assert starts == {"bend-2024": [3, 4104], "bend-hf-1": [3, 3]}  # <cls>, and N in the middle of the sequence


def copy_of(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(folder_of(name), folder / name, copy_function=shutil.copyfile))


def change_weights(folder: Path, change: Any) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file({new: value for key, value in state.items() if (new := change(key))}, folder / "model.safetensors")


@pytest.mark.parametrize("name", [*BEND, V2])
def test_weights_saved_without_the_head_give_the_same_embeddings_and_no_logits(name: str, tmp_path: Path) -> None:
    folder = copy_of(name, tmp_path)
    change_weights(folder, lambda key: key.removeprefix("esm.") if key.startswith("esm.") else None)
    headless = NucleotideTransformerEmbedder(folder, device="cpu")
    nucleotides = golden(name).sequences["len513"]
    np.testing.assert_allclose(headless(nucleotides), embedder_of(name)(nucleotides), atol=1e-6, rtol=0)
    with pytest.raises(ModelError, match="lacks the language-model head"):
        headless.logits([nucleotides])


@pytest.mark.parametrize("name", [*BEND, V2])
def test_checkpoint_saved_by_transformers_loads_again(name: str, tmp_path: Path) -> None:
    folder = copy_of(name, tmp_path)
    (folder / "model.safetensors").unlink()
    embedder_of(name).model.save_pretrained(folder)  # type: ignore[union-attr,operator]
    nucleotides = golden(name).sequences["len513"]
    np.testing.assert_array_equal(
        NucleotideTransformerEmbedder(folder, device="cpu")(nucleotides), embedder_of(name)(nucleotides)
    )


def test_positions_that_older_files_store_are_passed_over(tmp_path: Path) -> None:
    folder = copy_of(BEND[0], tmp_path)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state | {"esm.embeddings.position_ids": torch.arange(1002)[None]}, folder / "pytorch_model.bin")
    nucleotides = golden(BEND[0]).sequences["len513"]
    np.testing.assert_array_equal(
        NucleotideTransformerEmbedder(folder, device="cpu")(nucleotides), embedder_of(BEND[0])(nucleotides)
    )


@pytest.mark.parametrize("name", [*BEND, V2])
def test_missing_weight_is_named(name: str, tmp_path: Path) -> None:
    folder = copy_of(name, tmp_path)
    lost = "esm.encoder.layer.1.attention.self.key.weight"
    change_weights(folder, lambda key: None if key == lost else key)
    with pytest.raises(ModelError, match=f"missing {lost}"):
        NucleotideTransformerEmbedder(folder)


def test_weights_of_the_ungated_network_do_not_load_as_v2(tmp_path: Path) -> None:
    folder = copy_of(BEND[1], tmp_path)
    fields = json.loads((folder / "config.json").read_text())
    del fields["model_type"]
    (folder / "config.json").write_text(json.dumps(fields | {"add_bias_fnn": False}))
    with pytest.raises(ModelError, match="does not have the shapes of its configuration"):
        NucleotideTransformerEmbedder(folder)


def test_loads_by_registry_key_from_a_folder() -> None:
    nucleotides = golden(V2).sequences["len100"]
    embedder = load_embedder("nt_transformer_v2_50m", checkpoint=folder_of(V2), device="cpu")
    np.testing.assert_allclose(embedder(nucleotides), embedder_of(V2)(nucleotides), atol=1e-6, rtol=0)
