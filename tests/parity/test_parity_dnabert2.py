"""DNABERT-2 gives the outputs of BEND's copy and of the published code for the same weights."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bend_hf.embedders import MODELS, DNABert2Embedder, load_embedder
from bend_hf.embedders.networks import dnabert2
from bend_hf.errors import ModelError
from tests.parity.golden import arrays, cases, folder_of, golden, sequence_of
from tests.shared_data import GOLDEN, SHARED, needs_shared

pytestmark = needs_shared

BEND, HUB = "dnabert2_tiny", "dnabert2-hub-tiny"
ATOL = 5e-5

UPPER = "the published tokenizer knows no lower-case nucleotide; here they are upper-cased first"
OTHER_INPUT = {
    (BEND, "soft_masked_512"): UPPER,
    (BEND, "all_lower_100"): UPPER,
    (HUB, "soft_masked_100"): UPPER,
    (HUB, "all_lower_60"): UPPER,
}


@cache
def embedder_of(name: str, protocol: Any = "bend-2024") -> DNABert2Embedder:
    return DNABert2Embedder(folder_of(name), protocol=protocol, device="cpu", batch_tokens=2048)


SAME_INPUT = [case for case in cases(BEND, HUB) if case not in OTHER_INPUT]


@pytest.mark.parametrize(("name", "sequence"), SAME_INPUT)
def test_model_inputs_equal_the_reference(name: str, sequence: str) -> None:
    tokenized = embedder_of(name).tokenize([sequence_of(name, sequence)])
    chunks = np.split(tokenized.ids, tokenized.chunk_starts[1:-1])
    theirs = golden(name).input_ids(name, sequence)
    assert [chunk.tolist() for chunk in chunks] == [chunk.tolist() for chunk in theirs]


@pytest.mark.parametrize(("name", "sequence"), SAME_INPUT)
def test_token_embeddings_equal_the_reference(name: str, sequence: str) -> None:
    for special in (True, False):
        ours = embedder_of(name)(sequence_of(name, sequence), remove_special_tokens=not special)
        theirs = golden(name).embedding(name, sequence, special=special)
        np.testing.assert_allclose(ours, theirs, atol=ATOL, rtol=0)


@pytest.mark.parametrize("sequence", [one for name, one in SAME_INPUT if name == BEND])
def test_nucleotide_embeddings_equal_bend(sequence: str) -> None:
    ours = embedder_of(BEND)(sequence_of(BEND, sequence), upsample_embeddings=True)
    theirs = golden(BEND).embedding(BEND, sequence, upsample=True)
    np.testing.assert_allclose(ours, theirs, atol=ATOL, rtol=0)


@pytest.mark.parametrize(("name", "sequence"), list(OTHER_INPUT))
def test_lower_case_is_upper_cased_and_whole(name: str, sequence: str) -> None:
    nucleotides = sequence_of(name, sequence)
    lower, upper = embedder_of(name).embed([nucleotides, nucleotides.upper()], upsample_embeddings=True)
    np.testing.assert_array_equal(lower, upper)
    assert len(lower) == len(nucleotides)


@pytest.mark.parametrize(
    ("name", "sequence"), [case for case in cases(BEND, HUB, holding="logits") if case in SAME_INPUT]
)
def test_logits_equal_the_reference(name: str, sequence: str) -> None:
    ours = embedder_of(name).logits([sequence_of(name, sequence)])[0]
    theirs = arrays(name)[f"{sequence}/logits"]
    if name == HUB:  # with [CLS] and [SEP]
        theirs = theirs[1:-1]
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sequence", [one for name, one in SAME_INPUT if name == BEND])
def test_loss_equals_bend(sequence: str) -> None:
    ours = embedder_of(BEND).loss([sequence_of(BEND, sequence)])[0]
    assert len(ours) == len(embedder_of(BEND)(sequence_of(BEND, sequence)))
    if sequence == "len10050":  # BEND loses the two tokens at the seam of its two inputs
        ours = np.delete(ours, [2670, 2671])
    np.testing.assert_allclose(ours, arrays(BEND)[f"{sequence}/loss"], atol=1e-4, rtol=0)


def test_padded_batch_equals_the_published_code() -> None:
    ids, mask = (torch.from_numpy(arrays(HUB)[f"batch/{key}"]).long() for key in ("ids", "mask"))
    with torch.inference_mode():
        ours = embedder_of(HUB).model.bert(ids, mask).last_hidden_state  # type: ignore[union-attr,operator]
    there = mask.bool().numpy()
    np.testing.assert_allclose(ours.numpy()[there], arrays(HUB)["batch/raw"][there], atol=ATOL, rtol=0)


@pytest.mark.parametrize("name", [BEND, HUB])
def test_embeddings_do_not_depend_on_the_batch(name: str) -> None:
    nucleotides = [nucleotides for nucleotides in golden(name).sequences.values() if len(nucleotides) < 2700]
    for together, alone in zip(embedder_of(name).embed(nucleotides), map(embedder_of(name), nucleotides), strict=True):
        np.testing.assert_allclose(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", [BEND, HUB])
def test_half_precision_gives_float32_embeddings_near_the_full_ones(name: str, dtype: Any) -> None:
    nucleotides = sequence_of(name, "n_runs_512")
    rows = DNABert2Embedder(folder_of(name), dtype=dtype, device="cpu")(nucleotides)
    assert rows.dtype == np.float32
    assert 0 < np.abs(rows - embedder_of(name)(nucleotides)).mean() < {"bfloat16": 0.08, "float16": 0.01}[dtype]


def test_bias_made_in_blocks_gives_the_same_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    nucleotides = [sequence_of(HUB, "len1200"), sequence_of(HUB, "n_runs_512")]
    whole = embedder_of(HUB).embed(nucleotides)
    monkeypatch.setattr(dnabert2, "QUERY_BLOCK", 50)
    for ours, theirs in zip(embedder_of(HUB).embed(nucleotides), whole, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)


def test_protocols_differ_only_in_the_special_tokens_between_inputs() -> None:
    nucleotides = sequence_of(BEND, "len10050")
    bend, right = embedder_of(BEND), embedder_of(BEND, "bend-hf-1")
    np.testing.assert_array_equal(right(nucleotides), bend(nucleotides))
    assert (
        len(right(nucleotides, remove_special_tokens=False)) == len(bend(nucleotides, remove_special_tokens=False)) + 2
    )


@pytest.mark.parametrize("layer", [0, 1, 2, 3, -1])
def test_layer_is_the_one_of_the_network(layer: int) -> None:
    nucleotides = sequence_of(HUB, "len100")
    ours = DNABert2Embedder(folder_of(HUB), layer=layer, device="cpu")(nucleotides, remove_special_tokens=False)
    with torch.inference_mode():
        ids = torch.from_numpy(arrays(HUB)["len100/ids"])[None].long()
        states = embedder_of(HUB).model.bert(ids, output_hidden_states=True).hidden_states  # type: ignore[union-attr,operator]
    np.testing.assert_allclose(ours, states[layer][0].numpy(), atol=1e-6, rtol=0)
    assert layer in (3, -1) or np.abs(ours - arrays(HUB)["len100/raw"]).max() > 0.1


@pytest.mark.parametrize("kept", ["model.safetensors", "pytorch_model.bin"])
def test_either_file_of_weights_gives_the_same_embeddings(kept: str, tmp_path: Path) -> None:
    folder = copy_of(BEND, tmp_path)
    for other in {"model.safetensors", "pytorch_model.bin"} - {kept}:
        (folder / other).unlink()
    embedder = DNABert2Embedder(folder, device="cpu")
    assert [path.name for path in embedder.weight_files] == [kept]
    np.testing.assert_array_equal(embedder(sequence_of(BEND, "len513")), embedder_of(BEND)(sequence_of(BEND, "len513")))


def copy_of(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(folder_of(name), folder / name, copy_function=shutil.copyfile))


def change_weights(folder: Path, change: Any) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").unlink()
    save_file({new: value for key, value in state.items() if (new := change(key))}, folder / "model.safetensors")


def test_output_matrix_may_be_left_out_as_it_is_the_table_of_token_vectors(tmp_path: Path) -> None:
    folder = copy_of(BEND, tmp_path)
    change_weights(folder, lambda key: None if key == "cls.predictions.decoder.weight" else key)
    nucleotides = [sequence_of(BEND, "len13")]
    ours = DNABert2Embedder(folder, device="cpu").logits(nucleotides)[0]
    np.testing.assert_array_equal(ours, embedder_of(BEND).logits(nucleotides)[0])


def test_weights_saved_without_the_head_give_the_same_embeddings_and_no_logits(tmp_path: Path) -> None:
    folder = copy_of(BEND, tmp_path)
    change_weights(folder, lambda key: key.removeprefix("bert.") if key.startswith("bert.") else None)
    headless = DNABert2Embedder(folder, device="cpu")
    nucleotides = sequence_of(BEND, "len513")
    np.testing.assert_allclose(headless(nucleotides), embedder_of(BEND)(nucleotides), atol=1e-6, rtol=0)
    with pytest.raises(ModelError, match="lacks the language-model head"):
        headless.logits([nucleotides])


def test_missing_weight_is_named(tmp_path: Path) -> None:
    folder = copy_of(BEND, tmp_path)
    change_weights(folder, lambda key: None if key == "bert.encoder.layer.1.mlp.wo.weight" else key)
    with pytest.raises(ModelError, match=r"missing bert\.encoder\.layer\.1\.mlp\.wo\.weight"):
        DNABert2Embedder(folder)


def test_checkpoint_saved_by_transformers_loads_again(tmp_path: Path) -> None:
    folder = copy_of(BEND, tmp_path)
    embedder_of(BEND).model.save_pretrained(folder)  # type: ignore[union-attr,operator]
    (folder / "pytorch_model.bin").unlink()
    nucleotides = sequence_of(BEND, "len513")
    again = DNABert2Embedder(folder, device="cpu")
    np.testing.assert_array_equal(again(nucleotides), embedder_of(BEND)(nucleotides))
    np.testing.assert_array_equal(again.logits([nucleotides])[0], embedder_of(BEND).logits([nucleotides])[0])


def test_configuration_of_a_plain_bert_raises(tmp_path: Path) -> None:
    folder = copy_of(BEND, tmp_path)
    fields = json.loads((folder / "config.json").read_text())
    del fields["alibi_starting_size"]
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ModelError, match="lacks alibi_starting_size; expected the config"):
        DNABert2Embedder(folder)


def test_loads_by_registry_key_from_a_folder() -> None:
    nucleotides = sequence_of(BEND, "len13")
    embedder = load_embedder("dnabert2", checkpoint=folder_of(BEND), device="cpu")
    np.testing.assert_allclose(embedder(nucleotides), embedder_of(BEND)(nucleotides), atol=1e-6, rtol=0)


REAL = "DNABERT-2-117M"
REAL_IDS = json.loads((GOLDEN / "more" / "real_tokenizer_ids.json").read_text())[REAL]["ids"] if GOLDEN.is_dir() else {}


@cache
def real() -> DNABert2Embedder:
    return DNABert2Embedder(SHARED / "tokenizers" / "dnabert2", random_init=True, device="cpu")


@pytest.mark.parametrize("sequence", sorted(REAL_IDS))
def test_real_vocabulary_gives_the_published_ids(sequence: str) -> None:
    nucleotides = sequence_of(HUB, sequence)
    tokenized = real()._tokenize([nucleotides])  # lower case as it stands, as it was recorded
    assert tokenized.ids.tolist() == REAL_IDS[sequence]
    tokenized.check([len(nucleotides)])


def test_real_configuration_has_the_declared_size() -> None:
    spec = MODELS.get("dnabert2")
    assert (real().n_parameters, real().width) == (spec.n_parameters, spec.width)
