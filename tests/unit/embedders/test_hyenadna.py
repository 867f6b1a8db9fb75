"""HyenaDNA's tokens, and both kinds of published files."""

from __future__ import annotations

import collections
import copy
import json
import os
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from bend_hf.embedders import HyenaDNAEmbedder
from bend_hf.embedders.networks import hyenadna as network
from bend_hf.embedders.networks.hyenadna import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAModel,
    ImplicitFilter,
    config_from_json,
    rename_key,
)
from bend_hf.errors import ModelError

HF = {
    "d_model": 8, "n_layer": 2, "d_inner": 16, "max_seq_len": 12, "vocab_size": 12, "model_type": "hyenadna",
    "train_freq": True, "auto_map": {"AutoConfig": "configuration_hyena.HyenaConfig"},
}  # fmt: skip
PLAIN = {
    "d_model": 8, "n_layer": 2, "d_inner": 16, "vocab_size": 12, "pad_vocab_size_multiple": 8, "attn_layer_idx": None,
    "layer": {"_name_": "hyena", "emb_dim": 5, "filter_order": 64, "local_order": 3, "l_max": 12, "w": 10},
}  # fmt: skip


def write(folder: Path, fields: dict[str, Any], *, tied_frequencies: bool = True) -> dict[str, torch.Tensor]:
    """A checkpoint with random weights, in the -hf format; returns what its file holds."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    torch.manual_seed(1)
    state = {key: value.clone() for key, value in HyenaDNAForCausalLM(config_from_json(fields)).state_dict().items()}
    save_file(state, folder / "model.safetensors")
    return state


def as_plain(state: dict[str, torch.Tensor], *, wrapped: bool) -> dict[str, torch.Tensor]:
    """The same weights under the names of a weights.ckpt, its three frequencies included."""
    plain = {"model." + key.removeprefix("hyena."): value for key, value in state.items()}
    for key in [key for key in plain if key.endswith("implicit_filter.1.freq")]:
        for number in (3, 5):
            plain[key.replace(".1.freq", f".{number}.freq")] = plain[key].clone()
    if wrapped:  # models trained with activation checkpointing
        plain = {key.replace(".mixer.", ".mixer.layer.").replace(".mlp.", ".mlp.layer."): plain[key] for key in plain}
    return plain


@pytest.fixture
def hf(tmp_path: Path) -> HyenaDNAEmbedder:
    write(tmp_path / "hf", HF)
    return HyenaDNAEmbedder(tmp_path / "hf", device="cpu")


@pytest.fixture
def plain(tmp_path: Path) -> HyenaDNAEmbedder:
    write(tmp_path / "plain", PLAIN)
    return HyenaDNAEmbedder(tmp_path / "plain", device="cpu")


def test_plain_files_have_cls_and_sep(plain: HyenaDNAEmbedder) -> None:
    assert plain.tokenize(["ACGTN"]).ids.tolist() == [0, 7, 8, 9, 10, 11, 1]


def test_hf_files_have_sep_only(hf: HyenaDNAEmbedder) -> None:
    assert hf.tokenize(["ACGTN"]).ids.tolist() == [7, 8, 9, 10, 11, 1]


def test_lower_case_is_read_as_upper_case(hf: HyenaDNAEmbedder) -> None:
    assert hf.tokenize(["acGtn"]).ids.tolist() == hf.tokenize(["ACGTN"]).ids.tolist()


def test_each_iupac_nucleotide_is_one_unknown_token_and_one_embedding(hf: HyenaDNAEmbedder) -> None:
    tokenized = hf.tokenize(["RYSWKMBDHV"])
    assert tokenized.ids.tolist() == [6] * 10 + [1]
    assert tokenized.embedding_bp.tolist() == [1] * 10


def test_long_sequences_are_cut_at_the_context_each_chunk_with_its_specials(plain: HyenaDNAEmbedder) -> None:
    tokenized = plain.tokenize(["A" * 10, "C" * 21])
    assert np.diff(tokenized.chunk_starts).tolist() == [12, 12, 12, 3]
    assert tokenized.ids[tokenized.chunk_starts[:-1]].tolist() == [0, 0, 0, 0]
    assert tokenized.ids[tokenized.chunk_starts[1:] - 1].tolist() == [1, 1, 1, 1]


def test_kept_special_tokens_stand_in_mid_embedding(plain: HyenaDNAEmbedder) -> None:
    assert plain.embed(["C" * 21], remove_special_tokens=False)[0].shape == (21 + 3 * 2, 8)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_published_weights_ckpt_is_read_past_its_training_settings(
    wrapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the fourteen pickle imports that the Hub lists for the published files, and a counter of the harness."""
    state = write(tmp_path / "plain", PLAIN)
    expected = HyenaDNAEmbedder(tmp_path / "plain", device="cpu")("ACGTACG")
    (tmp_path / "plain" / "model.safetensors").unlink()
    tensors: dict[str, torch.Tensor] = collections.OrderedDict(as_plain(state, wrapped=wrapped))
    tensors["train_torchmetrics.num-tokens.count"] = torch.tensor(5)
    saved = {"state_dict": tensors, "hyper_parameters": _settings(monkeypatch), "epoch": 3}
    torch.save(saved, tmp_path / "plain" / "weights.ckpt")
    monkeypatch.undo()
    embedder = HyenaDNAEmbedder(tmp_path / "plain", device="cpu")
    assert embedder.lacking == ()
    np.testing.assert_array_equal(embedder("ACGTACG"), expected)


def _settings(monkeypatch: pytest.MonkeyPatch) -> object:
    """Objects as omegaconf pickles them, made without it."""
    kinds: dict[str, Any] = {}
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    modules = [f"omegaconf.{name}" for name in ("dictconfig", "listconfig", "base", "nodes")]
    for full in modules:
        monkeypatch.setitem(sys.modules, full, types.ModuleType(full))
    for module, name in (
        ("dictconfig", "DictConfig"),
        ("listconfig", "ListConfig"),
        ("base", "ContainerMetadata"),
        ("base", "Metadata"),
        ("nodes", "AnyNode"),
    ):
        full = f"omegaconf.{module}"
        kinds[name] = type(name, (), {"__module__": full})
        setattr(sys.modules[full], name, kinds[name])

    def made(name: str, **contents: object) -> object:
        one = kinds[name]()
        one.__dict__.update(contents)
        return one

    flags = collections.defaultdict(dict, cached={"a": 1})
    about = made("ContainerMetadata", ref_type=typing.Any, object_type=dict, key_type=int, resolver_cache=flags)
    leaf = made("AnyNode", _metadata=made("Metadata", ref_type=typing.Any, object_type=list), _val=0.1)
    return made("DictConfig", _metadata=about, _content={"lr": leaf, "betas": made("ListConfig", _content=[leaf])})


class Harmful:
    def __reduce__(self) -> Any:
        return os.system, ("echo harm",)


def test_a_weights_ckpt_that_would_run_code_raises(tmp_path: Path) -> None:
    state = write(tmp_path / "plain", PLAIN)
    (tmp_path / "plain" / "model.safetensors").unlink()
    saved = {"state_dict": as_plain(state, wrapped=False), "callbacks": Harmful()}
    torch.save(saved, tmp_path / "plain" / "weights.ckpt")
    with pytest.raises(ModelError, match="not a plain state dict"):
        HyenaDNAEmbedder(tmp_path / "plain")


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    state = write(tmp_path / "hf", HF)
    key = "hyena.backbone.layers.1.mixer.filter_fn.implicit_filter.1.freq"
    save_file({name: value for name, value in state.items() if name != key}, tmp_path / "hf" / "model.safetensors")
    with pytest.raises(ModelError, match=r"missing hyena\.backbone\.layers\.1\.mixer.*freq"):
        HyenaDNAEmbedder(tmp_path / "hf")


def test_a_file_without_head_embeds_but_has_no_logits(tmp_path: Path) -> None:
    state = write(tmp_path / "hf", HF)
    body = {name: value for name, value in state.items() if name != "lm_head.weight"}
    save_file(body, tmp_path / "hf" / "model.safetensors")
    embedder = HyenaDNAEmbedder(tmp_path / "hf", device="cpu")
    assert np.isfinite(embedder("ACGT")).all()
    with pytest.raises(ModelError, match="lacks the language-model head"):
        embedder.logits(["ACGT"])


def test_a_configuration_of_neither_kind_raises() -> None:
    with pytest.raises(ModelError, match="neither 'max_seq_len'"):
        config_from_json({"hidden_size": 8})


def test_a_configuration_with_attention_layers_raises() -> None:
    with pytest.raises(ModelError, match="has attention in layers"):
        config_from_json({**PLAIN, "attn_layer_idx": [1]})


def test_an_input_longer_than_the_filters_raises() -> None:
    with pytest.raises(ModelError, match="an input of 13 tokens is longer"):
        HyenaDNAModel(config_from_json(HF))(torch.full((1, 13), 7))


def test_keys_of_hf_files_are_left_as_they_are() -> None:
    own = HyenaDNAForCausalLM(config_from_json(HF)).state_dict()
    assert [rename_key(key) for key in own] == list(own)


def test_padding_on_either_side_changes_nothing() -> None:
    torch.manual_seed(0)
    model = HyenaDNAModel(HyenaDNAConfig(d_model=8, d_inner=16, max_seq_len=20)).eval()
    alone = torch.tensor([[7, 8, 9, 10, 1]])
    other = torch.tensor([7, 7, 9, 10, 11, 8, 8, 1])
    for place in (slice(0, 5), slice(3, 8)):
        ids, mask = torch.full((2, 8), 4), torch.zeros(2, 8)
        ids[0, place], mask[0, place] = alone[0], 1
        ids[1], mask[1] = other, 1
        with torch.no_grad():
            batched = model(ids, mask).last_hidden_state[0, place]
            torch.testing.assert_close(batched, model(alone).last_hidden_state[0], atol=1e-5, rtol=0)


def test_filters_stay_float32_in_a_half_precision_model() -> None:
    model = HyenaDNAModel(HyenaDNAConfig(d_model=8, d_inner=16, max_seq_len=20)).to(torch.bfloat16)
    mixer = model.backbone.layers[0].mixer
    assert {value.dtype for value in mixer.filter_fn.state_dict().values()} == {torch.float32}
    assert mixer.in_proj.weight.dtype == torch.bfloat16
    assert model(torch.tensor([[7, 8, 9]])).last_hidden_state.dtype == torch.bfloat16


CONFIG = HyenaDNAConfig(d_model=8, d_inner=16, n_layer=1, max_seq_len=64, filter_order=16)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths for which filters were computed, in order."""
    lengths: list[int] = []
    forward = ImplicitFilter.forward

    def counted(self: ImplicitFilter, n_positions: int) -> torch.Tensor:
        lengths.append(n_positions)
        return forward(self, n_positions)

    monkeypatch.setattr(ImplicitFilter, "forward", counted)
    return lengths


def filters_and_input() -> tuple[ImplicitFilter, torch.Tensor]:
    torch.manual_seed(0)
    return ImplicitFilter(CONFIG).eval(), torch.randn(2, 8, 21)


def test_filters_are_computed_once_per_length(computed: list[int]) -> None:
    torch.manual_seed(0)
    model = HyenaDNAModel(CONFIG).eval()
    ids = torch.randint(7, 11, (3, 21))
    expected = model(ids).last_hidden_state  # with gradients nothing is kept
    with torch.no_grad():
        first, second = (model(ids).last_hidden_state for _ in range(2))
        model(ids[:, :12])
    with torch.inference_mode():
        third = model(ids).last_hidden_state
    assert computed == [21, 21, 12]
    for one in (first, second, third):
        torch.testing.assert_close(one, expected.detach(), atol=0, rtol=0)


def test_filters_that_take_too_much_memory_are_not_kept(computed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    filters, x = filters_and_input()
    monkeypatch.setitem(network.SPECTRUM_BYTES, "cpu", 8 * 8 * 25)  # 25 frequencies of 8 channels: 24 positions
    with torch.no_grad():
        for length in (12, 12, 9, 9, 12, 21, 12):  # 13 and 10 frequencies fit together, the 23 of 21 alone
            filters.convolve(x[..., :length])
        filters.convolve(torch.zeros(1, 8, 40))
        filters.convolve(torch.zeros(1, 8, 40))
    assert computed == [12, 9, 21, 12, 40, 40]
    assert sum(one.nbytes for one in filters._spectra._of_length.values()) <= 8 * 8 * 25


def _other_weights(filters: ImplicitFilter) -> None:
    torch.manual_seed(9)
    filters.load_state_dict(ImplicitFilter(CONFIG).state_dict())


def _assigned(filters: ImplicitFilter) -> None:
    torch.manual_seed(9)
    filters.load_state_dict(ImplicitFilter(CONFIG).state_dict(), assign=True)


def _one_step(filters: ImplicitFilter) -> None:
    with torch.enable_grad():
        filters.convolve(torch.ones(1, 8, 21)).sum().backward()
    torch.optim.SGD(filters.parameters(), lr=0.1).step()


def _replaced(filters: ImplicitFilter) -> None:
    weight = filters.implicit_filter["2"].weight
    weight.data = weight.data * 2
    weight.data = weight.data * 2  # may have the address of the first


def _double(filters: ImplicitFilter) -> None:
    filters.double().float()


@pytest.mark.parametrize("change", [_other_weights, _assigned, _one_step, _replaced, _double])
def test_filters_of_changed_weights_are_computed_again(change: Callable[[ImplicitFilter], None]) -> None:
    filters, x = filters_and_input()
    with torch.no_grad():
        filters.convolve(x)
        change(filters)
        fresh = ImplicitFilter(CONFIG)
        fresh.load_state_dict(filters.state_dict())
        torch.testing.assert_close(filters.convolve(x), fresh.convolve(x), atol=0, rtol=0)


def test_copies_of_a_network_hold_no_spectra() -> None:
    filters, x = filters_and_input()
    with torch.no_grad():
        filters.convolve(x)
    assert not copy.deepcopy(filters)._spectra._of_length
    assert filters._spectra._of_length


def test_gradients_flow_after_filters_were_kept() -> None:
    filters, x = filters_and_input()
    with torch.inference_mode():
        filters.convolve(x)
    filters.convolve(x).sum().backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in filters.parameters())


def test_half_precision_values_are_cast_once() -> None:
    """One cast in, with the transposition and the padding; one cast out, with the transposition."""
    model = HyenaDNAModel(CONFIG).to(torch.bfloat16).eval()
    ids = torch.randint(7, 11, (3, 21))
    with torch.no_grad():
        model(ids)
        with Casts() as casts:
            model(ids)
    assert casts.between(torch.bfloat16, torch.float32) == [(3, 8, 21)]
    assert casts.between(torch.float32, torch.bfloat16) == [(3, 21, 8)]


class Casts(TorchDispatchMode):
    """Records the shapes that operators copy from one type to another."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.dtype, torch.dtype, tuple[int, ...]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default:
            self.seen.append((args[0].dtype, out.dtype, tuple(out.shape)))
        if func is torch.ops.aten.copy_.default:
            self.seen.append((args[1].dtype, args[0].dtype, tuple(args[0].shape)))
        return out

    def between(self, source: torch.dtype, target: torch.dtype) -> list[tuple[int, ...]]:
        return [shape for one, other, shape in self.seen if (one, other) == (source, target)]
