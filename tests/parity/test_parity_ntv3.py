"""NTv3 gives the hidden states and scores of the original code for the same weights, whatever shares its batch."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from bend_hf.embedders import MODELS, Embedder, load_embedder
from bend_hf.embedders.networks.ntv3 import NTv3Config, NTv3ForMaskedLM
from bend_hf.embedders.ntv3 import NTv3Embedder
from bend_hf.errors import ConfigError, ModelError
from bend_hf.types import Floats, ProtocolName
from bend_hf.variants.allele_likelihoods import AlleleLikelihoods
from tests.fake_checkpoints import make_tiny
from tests.parity.golden_new import folder_of, golden
from tests.shared_data import needs_shared

REPEATED, TRANSPOSED = "ntv3-tiny", "ntv3-tiny-deconv"
NAMES = (REPEATED, TRANSPOSED)
ATOL = 3e-5  # two implementations of the authors differ by that


@cache
def embedder(name: str, protocol: ProtocolName = "bend-2024") -> NTv3Embedder:
    return NTv3Embedder(folder_of(name), protocol=protocol, device="cpu", batch_tokens=10**5)


def expected_rows(name: str, case: str, protocol: ProtocolName) -> Floats | None:
    """What the original code gives for the filler of a protocol, without its rows; None if that is not stored."""
    n_nucleotides = len(golden().sequences[case])
    key = f"{case}/raw_padded_N"
    if protocol == "bend-2024" or len(golden().input_ids(name, case)) == n_nucleotides:
        rows: Floats = golden().embedding(name, case)
        return rows
    return golden().extra(name, key)[:n_nucleotides] if key in golden().z(name).files else None


@needs_shared
@pytest.mark.parametrize("protocol", get_args(ProtocolName))
@pytest.mark.parametrize("name", NAMES)
def test_ids_rows_and_scores_equal_the_reference(name: str, protocol: ProtocolName) -> None:
    """All sequences share batches, so most of them have whole blocks of padding behind them."""
    cases = golden().sequence_names(name)
    sequences = [golden().sequences[case] for case in cases]
    loaded, compared = embedder(name, protocol), 0
    for case, sequence, rows in zip(cases, sequences, loaded.embed(sequences), strict=True):
        ids = golden().input_ids(name, case)[: len(sequence)]
        np.testing.assert_array_equal(loaded.tokenize([sequence]).ids, ids, case)
        expected = expected_rows(name, case, protocol)
        if expected is not None:
            np.testing.assert_allclose(rows, expected, atol=ATOL, rtol=0, err_msg=case)
            compared += 1
        scores = golden().logits(name, case)
        if scores is not None and protocol == "bend-2024":
            own = loaded.logits([sequence])[0]
            np.testing.assert_allclose(own, scores[: len(sequence)], atol=5e-5, rtol=0, err_msg=case)
    assert compared >= 10


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_a_row_does_not_depend_on_the_padding_of_its_batch_where_the_original_does(name: str) -> None:
    loaded = embedder(name)
    network, block = loaded._network().base_model, loaded._config.block_tokens
    ids = torch.from_numpy(golden().input_ids(name, "len1"))[None, :1].long()
    with torch.no_grad():
        alone = network(ids).last_hidden_state[0, 0]
        for length in (2, block, block + 1, 3 * block, 5 * block - 1):
            padded = torch.nn.functional.pad(ids, (0, length - 1), value=9)  # masked, whatever it holds
            mask = torch.arange(length)[None] < 1
            torch.testing.assert_close(network(padded, mask).last_hidden_state[0, 0], alone, atol=1e-5, rtol=0)
    original = golden().extra(name, "len1/raw_two_pad_blocks")[0]
    assert np.abs(original - alone.numpy()).max() > 0.1


@cache
def tiny(protocol: ProtocolName) -> Embedder:
    with tempfile.TemporaryDirectory() as folder:
        (make_tiny("ntv3-8m", Path(folder)) / "tokenizer_config.json").unlink()  # it has a limit
        return load_embedder(folder, random_init=True, protocol=protocol, device="cpu", batch_tokens=10**4)


@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=5), protocol=st.sampled_from(get_args(ProtocolName)))
def test_rows_of_any_batch_equal_single_runs(lengths: list[int], protocol: ProtocolName) -> None:
    loaded = tiny(protocol)
    sequences = [("ACGTTGNCAGRT" * 5)[:length] for length in lengths]
    for sequence, rows in zip(sequences, loaded.embed(sequences), strict=True):
        assert rows.shape == (len(sequence), 16)
        np.testing.assert_allclose(rows, loaded(sequence), atol=1e-5, rtol=1e-5)


@needs_shared
@pytest.mark.parametrize("case", ["len12", "len64"])
@pytest.mark.parametrize("name", NAMES)
def test_hidden_layers_equal_the_reference_and_are_repeated_for_their_nucleotides(name: str, case: str) -> None:
    sequence = golden().sequences[case]
    n_states = len(embedder(name)._config.state_widths)
    assert n_states == golden().index["embedders"][name]["hidden_states_count"] + 1  # the original has no embeddings
    for layer in range(1, n_states):
        loaded = NTv3Embedder(folder_of(name), layer=layer, device="cpu")
        stored = golden().extra(name, f"{case}/layer{layer - 1}")
        whole = golden().extra(name, f"{case}/layer{n_states - 2}")
        expected = np.repeat(stored, len(whole) // len(stored), axis=0)[: len(sequence)]
        np.testing.assert_allclose(loaded(sequence), expected, atol=ATOL, rtol=0, err_msg=str(layer))
        assert loaded.width == stored.shape[1]


@needs_shared
def test_the_first_layer_is_the_table_and_a_layer_too_many_is_named() -> None:
    table = load_file(folder_of(REPEATED) / "model.safetensors")["core.embed_layer.weight"].numpy()
    loaded = NTv3Embedder(folder_of(REPEATED), layer=0, device="cpu")
    np.testing.assert_array_equal(loaded("ACGTN"), table[[6, 8, 9, 7, 10]])
    assert loaded.width == 8
    with pytest.raises(ConfigError, match=r"has no layer 9; expected -9 to 8 \(0: input embeddings\)"):
        NTv3Embedder(folder_of(REPEATED), layer=9, device="cpu")("ACGT")


def test_a_state_as_long_as_the_sequence_is_still_repeated(tmp_path: Path) -> None:
    """Four nucleotides fill half a block of eight, whose first level leaves four positions."""
    loaded = load_embedder(make_tiny("ntv3-8m", tmp_path), random_init=True, layer=2, device="cpu")
    rows = loaded("ACGT")
    np.testing.assert_array_equal(rows[0], rows[1])
    assert np.abs(rows[1] - rows[2]).max() > 1e-4


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_the_likelihood_of_a_base_is_read_at_the_mask(name: str) -> None:
    scores = golden().extra(name, "len64/masked20_logits")[20]
    likely = AlleleLikelihoods.of(embedder(name)).of_bases([golden().sequences["len64"]], np.array([20]))
    expected = scores[[6, 8, 9, 7]]
    np.testing.assert_allclose(likely[0] - likely[0, 0], expected - expected[0], atol=1e-4, rtol=0)


@needs_shared
def test_the_loss_follows_from_the_scores_of_a_c_g_and_t() -> None:
    scores = golden().logits(REPEATED, "len12")[:12].astype(np.float64)
    ids = golden().input_ids(REPEATED, "len12")[:12]
    expected = np.log(np.exp(scores[:, 6:10]).sum(axis=1)) - scores[np.arange(12), ids]
    np.testing.assert_allclose(embedder(REPEATED).loss([golden().sequences["len12"]])[0], expected, atol=1e-4)
    assert np.isnan(embedder(REPEATED).loss(["ANR"])[0][1:]).all()


def test_the_declared_count_is_that_of_the_published_sizes() -> None:
    with torch.device("meta"):
        model = NTv3ForMaskedLM(NTv3Config())
    assert sum(weight.numel() for weight in model.parameters()) == MODELS.get("ntv3-8m").n_parameters


def copied(name: str, folder: Path, **changes: Any) -> Path:
    """Copy a checkpoint with fields of config.json changed."""
    for file in ("model.safetensors", "vocab.json"):
        shutil.copyfile(folder_of(name) / file, folder / file)
    fields = json.loads((folder_of(name) / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


@needs_shared
@pytest.mark.parametrize("layout", ["no prefix", "no buffers", "pickle", "vocab.txt"])
def test_other_layouts_of_a_checkpoint_give_the_same_rows(layout: str, tmp_path: Path) -> None:
    folder = copied(REPEATED, tmp_path)
    state = load_file(folder / "model.safetensors")
    if layout == "no prefix":
        save_file({key.removeprefix("core."): value for key, value in state.items()}, folder / "model.safetensors")
    elif layout == "no buffers":
        kept = {key: value for key, value in state.items() if "inv_freq" not in key}
        save_file(kept, folder / "model.safetensors")
    elif layout == "pickle":
        torch.save(state, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    else:
        tokens = json.loads((folder / "vocab.json").read_text())
        (folder / "vocab.txt").write_text("\n".join(sorted(tokens, key=tokens.__getitem__)))
        (folder / "vocab.json").unlink()
    loaded = load_embedder(folder, device="cpu")
    expected = golden().embedding(REPEATED, "len100")
    np.testing.assert_allclose(loaded(golden().sequences["len100"]), expected, atol=ATOL, rtol=0)


@needs_shared
def test_a_checkpoint_without_its_head_gives_rows_and_no_scores(tmp_path: Path) -> None:
    folder = copied(REPEATED, tmp_path)
    state = load_file(folder / "model.safetensors")
    save_file({key: value for key, value in state.items() if "lm_head" not in key}, folder / "model.safetensors")
    loaded = load_embedder(folder, device="cpu")
    np.testing.assert_allclose(loaded("ACGTTGCA"), embedder(REPEATED)("ACGTTGCA"), atol=1e-6, rtol=0)
    with pytest.raises(ModelError, match="lacks the language-model head"):
        loaded.logits(["ACGT"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architectures": ["NTv3PostTrained"], "model_type": "ntv3_posttrained"},
            "post-trained NTv3, which",
        ),
        ({"conditions_names": ["species"]}, "post-trained NTv3, which"),
        ({"num_hidden_layers_head": 1}, r"config.json has \{'num_hidden_layers_head': 1\}"),
        ({"deconv_upsample_type": "repeat-conv"}, r"'repeat-conv'; did you mean 'repeat\+conv'\?"),
        ({"alphabet_size": 9}, "has the token id 10, but alphabet_size is 9"),
    ],
)
def test_another_network_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = make_tiny("ntv3-8m", tmp_path)
    fields = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ModelError, match=message):
        load_embedder(folder, random_init=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", {"<unk>": 0, "<pad>": 1, "A": 6}, "lacks <mask>, C, G, T, N; expected that of an NTv3"),
        ("vocab.json", {"<unk>": "0"}, r"has \{'<unk>': '0'\}; expected an id for each token"),
        ("tokenizer_config.json", {"model_max_length": "long"}, "has the model_max_length 'long'; expected a number"),
    ],
)
def test_a_damaged_file_is_named(name: str, content: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = make_tiny("ntv3-8m", tmp_path)
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(ModelError, match=message):
        load_embedder(folder, random_init=True)


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_rows_are_near_those_of_float32(name: str) -> None:
    sequence = golden().sequences["len100"]
    half, full = NTv3Embedder(folder_of(name), dtype="bfloat16", device="cpu")(sequence), embedder(name)(sequence)
    cosine = (half * full).sum(1) / (np.linalg.norm(half, axis=1) * np.linalg.norm(full, axis=1))
    assert cosine.min() > 0.99
