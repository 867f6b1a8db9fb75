"""Evo 2 gives what its original code gives on the same weights: every block, the final norm and the logits."""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bend_hf.embedders import MODELS, Evo2Embedder, load_embedder
from bend_hf.embedders._loaded_model import lazily
from bend_hf.embedders.evo2 import MODELS as FAMILY
from bend_hf.embedders.evo2 import published_fields
from bend_hf.embedders.networks import evo2
from bend_hf.embedders.networks.evo2 import Evo2Model, Evo2State
from bend_hf.embedders.networks.evo2_config import config_from_json
from bend_hf.errors import ConfigError
from bend_hf.types import Floats
from tests.parity.golden import reader
from tests.shared_data import GOLDEN, needs_shared

pytestmark = needs_shared

ROOT = GOLDEN / "evo2"
MEGA, BASE = "evo2-tiny-1m", "evo2-tiny-8k"
NAMES = (MEGA, BASE)
# From the fact sheet of the references. Raw: the output of the final norm.
RAW, LOGITS = 1e-4, 5e-4
LAYER = {"atol": 3e-4, "rtol": 1e-4}
EXTRAS = "mixed_60"


def golden() -> Any:
    return reader(ROOT)


def cases() -> list[tuple[str, str]]:
    if not ROOT.is_dir():
        return []
    return [(name, case) for name in NAMES for case in golden().sequence_names(name)]


def folder_of(name: str) -> Path:
    return ROOT / "ckpt" / name


@cache
def network(name: str) -> Evo2Model:
    from safetensors.torch import load_file

    model = Evo2Model(config_from_json(golden().config(name)))
    model.load_state_dict(load_file(folder_of(name) / "model.safetensors"))
    return model.requires_grad_(False)


def ids_of(name: str, case: str) -> Tensor:
    return torch.from_numpy(golden().input_ids(name, case)[0].astype(np.int64))[None]


def run(name: str, ids_BT: Tensor) -> Floats:
    """Output of the final norm."""
    rows: Floats = network(name).run(ids_BT, ["norm"]).layers["norm"].numpy()
    return rows


@pytest.mark.parametrize("window_tokens", [evo2.WINDOW_TOKENS, 50], ids=["whole", "windows"])
@pytest.mark.parametrize(("name", "case"), cases())
def test_every_layer_and_the_logits_equal_the_original(
    name: str, case: str, window_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in windows of 50 tokens, whose states each block carries from one to the next."""
    monkeypatch.setattr(evo2, "WINDOW_TOKENS", window_tokens)
    model = network(name)
    blocks = [f"blocks.{number}" for number in range(len(model.config.kinds))]
    found = model.run(ids_of(name, case), [*blocks, "norm"]).layers
    for number, block in enumerate(blocks):
        expected = golden().layer(name, case, number)
        np.testing.assert_allclose(found[block][0].numpy(), expected, **LAYER, err_msg=block)
    np.testing.assert_allclose(found["norm"][0].numpy(), golden().embedding(name, case), atol=RAW, rtol=0)
    expected, positions = golden().logits(name, case)
    np.testing.assert_allclose(model.scores(found["norm"])[0, positions].numpy(), expected, atol=LOGITS, rtol=0)


@pytest.mark.parametrize("number", range(4), ids=["hcs", "hcm", "hcl", "attn"])
@pytest.mark.parametrize("name", NAMES)
def test_the_parts_of_each_kind_of_block_equal_the_original(name: str, number: int) -> None:
    model = network(name)
    seen: dict[str, NDArray[np.float32]] = {}
    block: Any = model.blocks[number]
    if block.kind == "attn":
        hooks = [block.inner_mha_cls.out_proj.register_forward_hook(lambda _, __, y: seen.update(mixer=y[0].numpy()))]
    else:
        hooks = [
            block.projections.register_forward_hook(lambda _, __, y: seen.update(proj=y[0].numpy())),
            block.out_filter_dense.register_forward_pre_hook(lambda _, x: seen.update(mixer=x[0][0].numpy())),
        ]
    mlp = f"blocks.{number}.mlp.l3"
    seen["mlp_l3"] = model.run(ids_of(name, EXTRAS), [mlp]).layers[mlp][0].numpy()
    for hook in hooks:
        hook.remove()
    stored = [key for key in ("proj", "mixer", "mlp_l3") if f"{EXTRAS}/{key}.{number}" in golden().extra_names(name)]
    assert {"mixer", "mlp_l3"} <= set(stored)
    for key in set(stored) & set(seen):
        np.testing.assert_allclose(seen[key], golden().extra(name, f"{EXTRAS}/{key}.{number}"), **LAYER, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_padded_on_the_right_gives_the_rows_of_each_sequence(name: str) -> None:
    """Also beside a longer sequence, and without a mask: every block is causal."""
    lengths = {case: len(golden().sequences[case]) for case in ("len1", "len7", "lower_40", "n_runs_129")}
    ids_BT = torch.ones(len(lengths), max(lengths.values()), dtype=torch.int64)
    for row, (case, length) in enumerate(lengths.items()):
        ids_BT[row, :length] = ids_of(name, case)
    rows_BTD = run(name, ids_BT)
    for row, (case, length) in enumerate(lengths.items()):
        np.testing.assert_allclose(rows_BTD[row, :length], golden().embedding(name, case), atol=RAW, rtol=0)


@pytest.mark.parametrize("ends", [(60, 61, 62, 63, 129), (1, 2, 3, 129), (127, 128, 129)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_prefix_and_further_steps_give_what_one_pass_gives(name: str, ends: tuple[int, ...]) -> None:
    ids_1T = ids_of(name, "n_runs_129")
    rows: list[Floats] = []
    state: Evo2State | None = None
    first = 0
    for end in ends:
        out = network(name).run(ids_1T[:, first:end], ["norm"], state=state, keep_state=True)
        rows.append(out.layers["norm"][0].numpy())
        state, first = out.state, end
    np.testing.assert_allclose(np.concatenate(rows), golden().embedding(name, "n_runs_129"), atol=RAW, rtol=0)


def test_a_state_that_several_sequences_continue_stays_as_it_is() -> None:
    ids_1T = ids_of(BASE, "n_runs_129")
    prefix = network(BASE).run(ids_1T[:, :90], keep_state=True).state
    assert prefix is not None
    for _ in range(2):
        rows_2TD = (
            network(BASE)
            .run(ids_1T[:, 90:].repeat(2, 1), ["norm"], state=prefix.take(torch.tensor([0, 0])))
            .layers["norm"]
        )
        for rows in rows_2TD.numpy():
            np.testing.assert_allclose(rows, golden().embedding(BASE, "n_runs_129")[90:], atol=RAW, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_near_the_original_in_bfloat16(name: str) -> None:
    """Poles, residues and rotary frequencies stay in float32. The bound is loose, as the sheet says."""
    model = Evo2Model(network(name).config)
    model.load_state_dict(network(name).state_dict())
    model = model.bfloat16()
    assert model.get_parameter("blocks.2.filter.log_poles").dtype == torch.float32
    assert model.get_buffer("blocks.3.inner_mha_cls.rotary_emb.inv_freq").dtype == torch.float32
    rows = model.run(ids_of(name, EXTRAS), ["norm"]).layers["norm"]
    difference = rows[0].float().numpy() - golden().extra(name, f"{EXTRAS}/bf16_raw").astype(np.float32)
    assert np.abs(difference).mean() < 0.06


def test_blocks_behind_the_layer_that_is_needed_are_not_run() -> None:
    model = network(BASE)
    ran: list[int] = []
    hooks = [
        block.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
        for number, block in enumerate(model.blocks)
    ]
    model.run(ids_of(BASE, "len7"), ["blocks.4.mlp.l3", "blocks.2"])
    for hook in hooks:
        hook.remove()
    assert ran == [0, 1, 2, 3, 4]


# Bytes of the published tensors (index of tcztzy/evo.cpp, as the fact sheet of the references quotes it).
PUBLISHED_BYTES = {
    "evo2_1b_base": 2_218_806_272,
    "evo2_7b": 13_170_000_000,
    "evo2_7b_base": 12_968_673_408,
    "evo2_7b_262k": 12_968_673_408,
    "evo2_20b": 47_945_336_576,
    "evo2_40b": 82_252_533_760,
}


def is_float32(key: str, name: str) -> bool:
    """Whether the published file stores a tensor in float32."""
    if name.endswith(("log_poles", "residues")):
        return True
    if "40b" in key:
        return name.endswith((".scale", "inv_freq"))
    return "20b" in key and name.endswith(("projections.weight", "inv_freq"))


@pytest.mark.parametrize("key", [spec.key for spec in FAMILY])
def test_the_sizes_of_each_entry_give_the_bytes_of_its_published_tensors(key: str) -> None:
    with torch.device("meta"):
        model = Evo2Model(config_from_json(published_fields(key)))
    assert sum(weight.numel() for weight in model.parameters()) == MODELS.get(key).n_parameters
    state = model.state_dict()
    state["unembed.weight"] = state["embedding_layer.weight"]
    if key in PUBLISHED_BYTES:
        assert (
            sum(value.numel() * (4 if is_float32(key, name) else 2) for name, value in state.items())
            == (PUBLISHED_BYTES[key])
        )


@cache
def embedder(name: str, layer: int | str = -1) -> Evo2Embedder:
    return Evo2Embedder(folder_of(name), device="cpu", batch_tokens=2048, layer=layer)


# Lower-case letters are other tokens in the original code; here they are upper-cased first.
UPPER = [(name, case) for name, case in cases() if golden().sequences[case].isupper()]


@pytest.mark.parametrize(("name", "case"), UPPER)
def test_the_embedder_gives_the_ids_and_rows_of_the_original(name: str, case: str) -> None:
    sequence = golden().sequences[case]
    np.testing.assert_array_equal(embedder(name, "norm").tokenize([sequence]).ids, golden().input_ids(name, case)[0])
    np.testing.assert_allclose(embedder(name, "norm")(sequence), golden().embedding(name, case), atol=RAW, rtol=0)
    expected, positions = golden().logits(name, case)
    found = embedder(name, "norm").logits([sequence])[0][positions]
    np.testing.assert_allclose(found, expected, atol=LOGITS, rtol=0)


@pytest.mark.parametrize("layer", [3, "3", "blocks.2"])
def test_a_layer_is_named_by_its_number_or_as_in_the_original(
    layer: int | str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = golden().layer(BASE, "n_runs_129", 2)
    with caplog.at_level("INFO"):
        found = Evo2Embedder(folder_of(BASE), device="cpu", layer=layer)
    assert "embeddings are those of blocks.2, as the original code names it" in caplog.text
    np.testing.assert_allclose(found(golden().sequences["n_runs_129"]), expected, **LAYER)
    assert found.description["layer"] == "blocks.2"


@pytest.mark.parametrize("layer", ["3.mlp", "blocks.3.mlp", "blocks.3.mlp.l3"])
def test_a_feed_forward_output_has_a_short_and_the_original_name(layer: str) -> None:
    """The stored one has lower-case letters, so that it is compared with the network's."""
    sequence = golden().sequences["n_runs_129"]
    expected = network(BASE).run(ids_of(BASE, "n_runs_129"), ["blocks.3.mlp.l3"]).layers["blocks.3.mlp.l3"][0]
    np.testing.assert_allclose(embedder(BASE, layer)(sequence), expected.numpy(), **LAYER)
    assert embedder(BASE, layer).description["layer"] == "blocks.3.mlp.l3"


@pytest.mark.parametrize(
    ("key", "layer"),
    [
        ("evo2_7b", "blocks.28.mlp.l3"),
        ("evo2_7b_base", "blocks.26"),
        ("evo2_1b_base", "blocks.20"),
        ("evo2_20b", "blocks.21.mlp.l3"),
    ],
)
def test_the_default_is_the_layer_that_the_authors_use(key: str, layer: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(published_fields(key)))
    with lazily():
        assert load_embedder(key, checkpoint=tmp_path, random_init=True).layer_name == layer


@pytest.mark.parametrize("layer", [13, "blocks.11", "11.mlp", "mlp", "2.mixer"])
def test_a_layer_that_is_not_there_raises(layer: int | str) -> None:
    with pytest.raises(ConfigError, match=r"there is no layer .* in this Evo 2 of 11 blocks; expected -13 to 12"):
        Evo2Embedder(folder_of(BASE), device="cpu", layer=layer)


def test_a_pickle_in_the_published_layout_gives_what_safetensors_give(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same values in bfloat16, with entries that the original loader leaves out; in one file and in parts."""
    sequence = golden().sequences["n_runs_129"]
    config = (folder_of(MEGA) / "config.json").read_bytes()
    whole = (folder_of(MEGA) / "evo2_tiny_1m.pt").read_bytes()
    for cuts in ([0, len(whole)], [0, 100_001, 400_000, len(whole)]):
        folder = tmp_path / str(len(cuts))
        folder.mkdir()
        (folder / "config.json").write_bytes(config)
        for number, (first, last) in enumerate(pairwise(cuts)):
            (folder / f"evo2_tiny_1m.pt{'.part' + str(number) if len(cuts) > 2 else ''}").write_bytes(whole[first:last])
        with caplog.at_level("INFO"):
            read = Evo2Embedder(folder, device="cpu", batch_tokens=2048, layer="norm")
        np.testing.assert_array_equal(read(sequence), embedder(MEGA, "norm")(sequence))
        assert len(read.weight_files) == len(cuts) - 1
    assert "entries that the original loader leaves out" in caplog.text
    assert "unknown" not in caplog.text
