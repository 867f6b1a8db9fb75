"""Evo 2's files and memory: conversion, offloading, emulated FP8, and what long sequences take."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.evo2_memory import RESULT, Allocations, memory_of
from bend_hf.cli._main import main
from bend_hf.cli.list import model_table
from bend_hf.embedders import Evo2Embedder, load_embedder
from bend_hf.embedders._loaded_model import lazily
from bend_hf.embedders._tensor_files import JoinedFile, open_tensors
from bend_hf.embedders.convert import convert
from bend_hf.embedders.evo2 import evo2_weights, published_fields
from bend_hf.embedders.networks import evo2
from bend_hf.embedders.networks.evo2 import Evo2Model, fp8_linear, multiply_fp8
from bend_hf.embedders.networks.evo2_config import Evo2Config, config_from_json
from bend_hf.errors import ConfigError, ModelError
from bend_hf.tasks import VariantSpec
from bend_hf.training.finetuning import open_for_tuning
from bend_hf.variants.allele_likelihoods import AlleleLikelihoods, VariantLikelihoods
from bend_hf.variants.alleles import Context, StoredVariants
from tests.fake_checkpoints import make_tiny
from tests.variant_controls import column, scores_of

SEQUENCE = "ACGTTGACGATTNACGTGGA"
KEY = "evo2_7b"


def published(folder: Path, *, change: Any = None, **fields: object) -> Path:
    """Write a tiny checkpoint in the published layout: a flat pickle in bfloat16 with entries of Transformer Engine."""
    make_tiny(KEY, folder)
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))
    model = load_embedder(KEY, checkpoint=folder, random_init=True).model
    assert model is not None
    exact = ("log_poles", "residues")
    state: dict[str, object] = {
        name: value if name.endswith(exact) else value.bfloat16() for name, value in model.state_dict().items()
    }
    state["unembed.weight"] = state["embedding_layer.weight"]
    for number in (0, 1, 2, 4):
        blob = io.BytesIO()
        torch.save({"scale_fwd": torch.tensor([16.0, 64.0, 1.0])}, blob)
        state[f"blocks.{number}.projections._extra_state"] = blob
    if change is not None:
        change(state)
    torch.save(state, folder / "evo2_7b.pt")
    return folder


def rows(folder: Path, **options: Any) -> Any:
    return load_embedder(KEY, checkpoint=folder, device="cpu", layer="norm", **options)(SEQUENCE)


def test_converted_weights_give_the_embeddings_of_the_published_file(tmp_path: Path) -> None:
    source, out = published(tmp_path / "published"), tmp_path / "converted"
    assert main(["convert", KEY, "--checkpoint", str(source), "--out", str(out), "--shard-gb", "0.00001"]) == 0
    assert len(list(out.glob("*.safetensors"))) > 3
    np.testing.assert_array_equal(rows(out), rows(source))
    by_folder = load_embedder(out, device="cpu", layer="norm")
    assert isinstance(by_folder, Evo2Embedder)
    np.testing.assert_array_equal(by_folder(SEQUENCE), rows(source))


def test_converted_shards_are_what_the_library_reads(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    source, out = published(tmp_path / "published"), tmp_path / "converted"
    shards = [path for path in convert(KEY, out, checkpoint=source, shard_bytes=9000) if path.suffix == ".safetensors"]
    read = {name: value for path in shards for name, value in load_file(path).items()}
    weight_map = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(read) == set(weight_map)
    stored = torch.load(source / "evo2_7b.pt", weights_only=False)
    for name, value in read.items():
        if not name.endswith("fp8_scale"):
            assert value.dtype == stored[name].dtype
            assert torch.equal(value, stored[name]), name
    assert read["blocks.0.projections.fp8_scale"].tolist() == [16.0, 64.0]
    for path in shards:
        assert path.stat().st_size < 12_000 or len(load_file(path)) == 1


def test_an_interrupted_conversion_keeps_its_shards_and_a_finished_one_is_not_overwritten(tmp_path: Path) -> None:
    source, out = published(tmp_path / "published"), tmp_path / "converted"
    first, *_ = convert(KEY, out, checkpoint=source, shard_bytes=9000)
    with pytest.raises(ConfigError, match="holds converted weights already"):
        convert(KEY, out, checkpoint=source, shard_bytes=9000)
    (out / "model.safetensors.index.json").unlink()
    written = first.stat().st_mtime_ns
    convert(KEY, out, checkpoint=source, shard_bytes=9000)
    assert first.stat().st_mtime_ns == written


def peak_kb() -> int:
    """The highest memory of this process since ``reset_peak``."""
    return int(next(line.split()[1] for line in Path("/proc/self/status").open() if line.startswith("VmHWM")))


def reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def test_a_conversion_holds_less_than_one_shard_in_memory(tmp_path: Path) -> None:
    """A file of 60 MB, whose largest tensor has 4 MB."""
    source = published(tmp_path / "large", hidden_size=256, num_attention_heads=2, inner_mlp_size=8192)
    assert (source / "evo2_7b.pt").stat().st_size > 60e6
    if not reset_peak():
        pytest.skip("this system does not measure the highest memory of a part of a process")
    before = peak_kb()
    convert(KEY, tmp_path / "out", checkpoint=source, shard_bytes=20_000_000)
    assert (peak_kb() - before) * 1024 < 20_000_000


def test_only_evo2_is_converted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dnabert6 needs no conversion; expected one of evo2_1b_base"):
        convert("dnabert6", tmp_path)


def test_a_tensor_that_is_missing_or_has_another_shape_is_an_error(tmp_path: Path) -> None:
    lost = published(tmp_path / "lost", change=lambda state: state.pop("blocks.2.filter.D"))
    with pytest.raises(ModelError, match=r"lacks 1 tensors of this Evo 2, the first is blocks\.2\.filter\.D"):
        rows(lost)
    other = published(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"inner_mlp_size": 48}))
    with pytest.raises(ModelError, match=r"blocks\.0\.mlp\.l1\.weight has the shape \(32, 16\); expected \(48, 16\)"):
        rows(other)


def test_unknown_entries_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows(published(tmp_path, change=lambda state: state.update({"blocks.9.extra": torch.zeros(2)})))
    assert "left out 1 unknown entries, which this network does not have: blocks.9.extra" in caplog.text


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this file ran code",))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = published(tmp_path, change=lambda state: state.update(bad=_Runs()))
    with pytest.raises(ModelError, match="holds objects that could run code"):
        rows(folder)
    assert "ran code" not in capsys.readouterr().out


def test_parts_of_a_file_must_be_complete_and_of_one_model(tmp_path: Path) -> None:
    for name in ("evo2_40b.pt.part0", "evo2_40b.pt.part2"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=r"expected all parts from \.part0 on"):
        evo2_weights(tmp_path)
    (tmp_path / "evo2_7b.pt.part1").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"holds the weights of evo2_40b, evo2_7b"):
        evo2_weights(tmp_path)


def test_joined_files_read_as_one(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "ab"]
    for path, content in zip(paths, (b"01234", b"56789"), strict=True):
        path.write_bytes(content)
    file = io.BufferedReader(JoinedFile(paths))
    assert file.seek(3) == 3
    assert file.read(4) == b"3456"
    assert file.seek(-2, io.SEEK_END) == 8
    assert file.read() == b"89"


def test_the_published_pickle_is_fetched_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    folder = published(tmp_path)
    asked: list[str] = []

    def record(name: str, *, allow_patterns: list[str], **_: object) -> str:
        asked.extend([name, *allow_patterns])
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", record)
    embedder = load_embedder(KEY, device="cpu")
    assert {"arcinstitute/evo2_7b", "*.safetensors", "*.pt", "*.pt.part*"} <= set(asked)
    assert [path.name for path in embedder.weight_files] == ["evo2_7b.pt"]


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    folder = published(tmp_path)
    whole = (folder / "evo2_7b.pt").read_bytes()
    (folder / "evo2_7b.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="download it again"), open_tensors([folder / "evo2_7b.pt"]):
        pass


@pytest.mark.parametrize("where", ["host", "disk"])
def test_offloaded_blocks_give_the_same_embeddings(where: str, tmp_path: Path) -> None:
    folder = published(tmp_path)
    embedder = load_embedder(KEY, checkpoint=folder, device="cpu", layer="norm", offload=where)  # type: ignore[arg-type]  # one of its words
    np.testing.assert_array_equal(embedder(SEQUENCE), rows(folder))
    assert isinstance(embedder, Evo2Embedder)
    assert not list(embedder.model.blocks)
    whole = load_embedder(KEY, checkpoint=folder, device="cpu")
    assert embedder.n_parameters == whole.n_parameters


def test_the_next_block_comes_while_one_computes(tmp_path: Path) -> None:
    """When a block is handed out, the one behind it is on its way, and no other."""
    embedder = load_embedder(KEY, checkpoint=published(tmp_path), device="cpu", offload="disk")
    assert isinstance(embedder, Evo2Embedder)
    source: Any = embedder.model.source
    read: list[int] = []
    load = source._load
    source._load = lambda number: (read.append(number), load(number))[1]
    blocks = source.blocks(5)
    for number in range(5):
        next(blocks)
        for _ in range(200):
            if len(read) == min(number + 2, 5):
                break
            torch.zeros(100_000).exp()
        assert read == list(range(min(number + 2, 5)))


def test_offload_is_refused_where_it_has_no_effect(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="OneHotEmbedder has no blocks to offload"):
        load_embedder("onehot", offload="host")
    with pytest.raises(ConfigError, match="random weights are in no file"):
        load_embedder(KEY, checkpoint=make_tiny(KEY, tmp_path), random_init=True, offload="disk")


def reference_fp8(x: Tensor, weight: Tensor, scale_x: float, scale_w: float) -> Tensor:
    x8 = (x * scale_x).clamp(-448, 448).to(torch.float8_e4m3fn).double()
    weight8 = (weight * scale_w).clamp(-448, 448).to(torch.float8_e4m3fn).double()
    return (x8 @ weight8.T / scale_x / scale_w).float()


def test_fp8_projections_follow_the_published_rule() -> None:
    """With stored scales, also if a number exceeds what they allow for, and with those of each token."""
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 5, 32, generator=draw), torch.randn(8, 32, generator=draw)
    for scale_x in (100.0, 400.0):
        found = fp8_linear(x, weight, torch.tensor([scale_x, 50.0]))
        torch.testing.assert_close(found, reference_fp8(x, weight, scale_x, 50.0), atol=1e-4, rtol=0)
    assert float((x * 400).abs().max()) > 448 > float((x * 100).abs().max())
    own = fp8_linear(x, weight, None)
    for token in range(5):
        one = x[:, token : token + 1]
        expected = reference_fp8(one, weight, float(448 / one.abs().max()), float(448 / weight.abs().max()))
        torch.testing.assert_close(own[:, token : token + 1], expected, atol=1e-4, rtol=0)
    exact = x @ weight.T
    for found in (fp8_linear(x, weight, torch.tensor([100.0, 50.0])), own):
        error = (found - exact).norm() / exact.norm()
        assert 1e-4 < float(error) < 0.05


@pytest.mark.parametrize("n_rows", [1, 16, 37])
def test_the_product_in_8_bits_is_that_of_the_rounded_numbers(n_rows: int) -> None:
    """``torch._scaled_mm``, which GPUs use, runs on a CPU here."""
    draw = torch.Generator().manual_seed(1)
    x, weight = (torch.randn(rows, 32, generator=draw).to(torch.float8_e4m3fn) for rows in (n_rows, 48))
    found = multiply_fp8(x, weight, native=True)
    assert found.shape == (n_rows, 48)
    torch.testing.assert_close(found, multiply_fp8(x, weight, native=False))


@pytest.mark.parametrize("stored", [True, False])
def test_a_model_that_needs_fp8_runs_with_it_and_says_so(
    stored: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def without_states(state: dict[str, object]) -> None:
        for name in [name for name in state if name.endswith("_extra_state")]:
            del state[name]

    folder = published(tmp_path / "fp8", use_fp8_input_projections=True, change=None if stored else without_states)
    with_fp8 = rows(folder)
    scales = "stored scales" if stored else "scales of each token"
    assert f"emulated with {scales}; this was not compared with the original (verified: config only)" in caplog.text
    plain = rows(published(tmp_path / "plain", use_fp8_input_projections=False))
    difference = np.abs(with_fp8 - plain)
    assert difference.max() > 1e-4
    assert difference.mean() < 0.3


def test_100_kb_through_the_7b_model_fit_into_80_gb() -> None:
    """Counted on ``meta`` with the sizes of the published model; the page shows the same number."""
    config = config_from_json(published_fields(KEY))
    found = memory_of(config, 100_000)
    assert found.weights_bytes + found.activations_bytes < 80e9
    stored = {row["length_bp"]: row for row in json.loads(RESULT.read_text())["rows"] if row["model"] == KEY}
    assert stored[100_000]["weights_bytes"] == found.weights_bytes
    assert stored[100_000]["activations_bytes"] == pytest.approx(found.activations_bytes, rel=0.02)
    # residual stream, queries, keys, values and their mixture: a few numbers of two bytes per channel and token
    grown = found.activations_bytes - stored[8192]["activations_bytes"]
    assert grown / (100_000 - 8192) < 6 * 2 * config.hidden_size


def test_the_count_on_meta_is_that_of_real_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evo2, "WINDOW_TOKENS", 100)
    sizes = {"hidden_size": 32, "n_heads": 2, "inner_mlp_size": 64, "hcm_groups": 4, "hcs_groups": 4}
    config = Evo2Config(**sizes, kinds=("hcs", "hcm", "hcl", "attn"))
    found = [memory_of(config, 1000, device=device) for device in ("meta", "cpu")]
    assert found[0] == found[1]


def test_the_count_of_allocations_frees_what_is_freed() -> None:
    with Allocations() as count:
        kept = torch.zeros(1000, device="meta")
        for _ in range(3):
            part = torch.ones(500, device="meta")[:10]
        del part
        assert (count.now, count.peak) == (4000, 8000)
        view = kept.view(10, 100)
    assert count.now == view.untyped_storage().nbytes()


def random_text(length: int) -> str:
    return "".join(np.random.default_rng(0).choice(list("ACGT"), length))


def whole_model(folder: Path) -> Evo2Embedder:
    make_tiny(KEY, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_seqlen": 4096}))
    embedder = load_embedder(KEY, checkpoint=folder, device="cpu", random_init=True)
    assert isinstance(embedder, Evo2Embedder)
    return embedder


WINDOW = VariantSpec(context_bp=40, causal_context_bp=60, stored_context_bp=100)
VARIANTS = [
    (random_text(200), at, random_text(200)[at], alt, 0)
    for at, alts in ((100, "ACGT"), (90, "GT"), (120, "CA"))
    for alt in alts
    if alt != random_text(200)[at]
]


def test_a_whole_window_is_scored_by_the_sum_of_its_log_probabilities(tmp_path: Path) -> None:
    """The authors' score: the log-likelihood of the window with ALT minus that with REF, over the whole vocabulary."""
    embedder = whole_model(tmp_path)

    def log_likelihood(text: str) -> float:
        logits = torch.from_numpy(embedder.logits([text])[0][:-1]).double()
        ids = torch.tensor(list(text.encode())[1:])
        return float(logits.log_softmax(-1).gather(1, ids[:, None]).sum())

    found = column(scores_of(embedder, VARIANTS, WINDOW, whole_window=True), "log_likelihood_ratio")
    assert len(found) > 5
    for ratio, (text, at, _, alt, _) in zip(found, VARIANTS, strict=True):
        window = text[at - 60 : at + 41]
        expected = log_likelihood(window[:60] + alt + window[61:]) - log_likelihood(window)
        assert ratio == pytest.approx(expected, abs=2e-4)
    at_site = column(scores_of(embedder, VARIANTS, WINDOW), "log_likelihood_ratio")
    assert max(abs(a - b) for a, b in zip(found, at_site, strict=True)) > 0.01


def test_what_the_alleles_of_a_site_begin_with_is_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three alternatives per site: one prefix of 59 tokens and four alleles of 41, in place of six windows of 101."""
    embedder = whole_model(tmp_path)
    n_tokens: list[int] = []
    run = Evo2Model.run

    def counted(self: Evo2Model, ids_BT: Tensor, *names: Any, **options: Any) -> Any:
        n_tokens.append(ids_BT.numel())
        return run(self, ids_BT, *names, **options)

    monkeypatch.setattr(Evo2Model, "run", counted)
    text = random_text(200)
    rows = [(text, 100, text[100], alt, 0) for alt in "ACGT" if alt != text[100]]
    alleles = AlleleLikelihoods.of(embedder)
    likelihoods = VariantLikelihoods(
        alleles=alleles,
        context=Context(left_bp=60, right_bp=0),
        indel_context=Context(left_bp=60, right_bp=40),
        both_strands=False,
    )
    stored = StoredVariants(
        sequences=[text] * 3, offset_bp=np.full(3, 100), ref=[text[100]] * 3, alt=[row[3] for row in rows]
    )
    n_tokens.clear()
    shared = likelihoods.of_indels(stored)
    assert sum(n_tokens) == 59 + 4 * 41
    monkeypatch.setattr(Evo2Embedder, "shares_prefixes", False)
    n_tokens.clear()
    np.testing.assert_allclose(shared, likelihoods.of_indels(stored), atol=1e-4)
    assert sum(n_tokens) == 6 * 101


def test_insertions_and_deletions_share_their_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = whole_model(tmp_path)
    text = random_text(200)
    stored = StoredVariants(
        sequences=[text] * 3,
        offset_bp=np.array([100, 100, 70]),
        ref=[text[100], text[100:104], text[70]],
        alt=[text[100] + "GGA", text[100], text[70] + "C"],
    )
    likelihoods = VariantLikelihoods(
        alleles=AlleleLikelihoods.of(embedder),
        context=Context(left_bp=60, right_bp=0),
        indel_context=Context(left_bp=60, right_bp=40),
        both_strands=True,
    )
    shared = likelihoods.of_indels(stored)
    monkeypatch.setattr(Evo2Embedder, "shares_prefixes", False)
    np.testing.assert_allclose(shared, likelihoods.of_indels(stored), atol=2e-4)
    assert np.abs(shared).max() > 0.01


def test_what_the_network_cannot_do_is_refused(tmp_path: Path) -> None:
    folder = make_tiny(KEY, tmp_path)
    embedder = load_embedder(KEY, checkpoint=folder, random_init=True, device="cpu")
    with pytest.raises(ConfigError, match="computes no gradients; use --tune head"):
        open_for_tuning(embedder, "full")
    with pytest.raises(ConfigError, match="compile=True has no effect on Evo 2"):
        load_embedder(KEY, checkpoint=folder, random_init=True, compile=True)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="device 'cuda' is not available"):
            load_embedder(KEY, checkpoint=published(tmp_path / "published"), device="cuda")


def test_published_files_without_a_configuration_take_that_of_their_key(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["Evo2"]}')
    (tmp_path / "evo2_7b.pt").touch()
    with lazily():
        embedder = load_embedder(KEY, checkpoint=tmp_path)
    assert isinstance(embedder, Evo2Embedder)
    assert embedder.layer_name == "blocks.28.mlp.l3"
    with pytest.raises(ModelError, match=r"has no 'hcl_layer_idxs'; .* Load the folder with the key of a model"):
        Evo2Embedder(tmp_path)


def test_the_table_of_models_says_what_was_verified() -> None:
    table = model_table()
    said = {row[0]: row[table.header.index("verified")] for row in table.rows}
    assert {key for key, text in said.items() if text == "config only"} == {
        *("evo2_1b_base", "evo2_20b", "evo2_40b", "evo2_40b_base")
    }
    assert said["evo2_7b"] == said["evo2_7b_base"] == said["evo2_7b_262k"] == "golden"
