"""Names and keywords of BEND that work as they are: baselines, scores from ``embed``, paths of HyenaDNA."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest

from bend_hf.cli._main import command_parser
from bend_hf.config import RunConfig
from bend_hf.embedders import MODELS, DNABertEmbedder, HyenaDNAEmbedder, OneHotEmbedder, load_embedder
from bend_hf.errors import ConfigError
from bend_hf.runs.settings import embedder_config
from tests.fake_checkpoints import make_tiny

ROOT = Path(__file__).resolve().parents[3]
SEQUENCES = ["ACGTNACGTA", "GGC" * 20]  # the second is longer than the context


@pytest.mark.parametrize("name", ["resnet_supervised", "basset_supervised"])
def test_the_baselines_have_the_names_of_bend(name: str) -> None:
    config = RunConfig(task=("cpg_methylation",), model=name)
    assert config.model == name.replace("_", "-")
    assert embedder_config(config).model == "onehot"


@pytest.mark.parametrize("key", ["nt_transformer_v2_50m", "dnabert2", "hyenadna-tiny-1k", "caduceus-ph-1k"])
@pytest.mark.parametrize("per_nucleotide", [False, True])
def test_embed_returns_logits_or_losses_if_the_embedder_is_told_so(
    key: str, per_nucleotide: bool, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"checkpoint": make_tiny(key, tmp_path / "tiny"), "random_init": True, "device": "cpu"}
    plain = load_embedder(key, **options)
    logits = load_embedder(key, **options, return_logits=True).embed(SEQUENCES, upsample_embeddings=per_nucleotide)
    losses = load_embedder(key, **options, return_loss=True).embed(SEQUENCES, upsample_embeddings=per_nucleotide)
    embeddings = plain.embed(SEQUENCES, upsample_embeddings=per_nucleotide)
    for found, expected in zip(logits, plain.logits(SEQUENCES, per_nucleotide), strict=True):
        np.testing.assert_array_equal(found, expected[None])
    for found, expected in zip(losses, plain.loss(SEQUENCES, per_nucleotide), strict=True):
        np.testing.assert_array_equal(found, expected[None])
    shapes = [(1, len(one)) for one in embeddings]
    assert [one.shape[:2] for one in logits] == [one.shape for one in losses] == shapes
    assert {one.ndim for one in logits} == {3}


def test_special_tokens_have_logits_and_no_loss(tmp_path: Path) -> None:
    options: dict[str, Any] = {"checkpoint": make_tiny("dnabert2", tmp_path), "random_init": True, "device": "cpu"}
    logits = load_embedder("dnabert2", **options, return_logits=True)
    without, kept = (logits.embed(SEQUENCES[:1], remove_special_tokens=one)[0] for one in (True, False))
    assert kept.shape == (1, without.shape[1] + 2, without.shape[2])
    with pytest.raises(ConfigError, match="return_loss gives the loss of nucleotides"):
        load_embedder("dnabert2", **options, return_loss=True).embed(SEQUENCES, remove_special_tokens=False)
    with pytest.raises(ConfigError, match="return_logits and return_loss are both True"):
        load_embedder("dnabert2", **options, return_loss=True, return_logits=True)


@pytest.mark.parametrize("keyword", ["model_path", "model_name"])
def test_a_keyword_of_bend_is_told_what_it_is_called_here(keyword: str) -> None:
    with pytest.raises(TypeError, match=f"DNABertEmbedder got the keyword {keyword}='x' of BEND, .* called checkpoint"):
        DNABertEmbedder(**{keyword: "x"}, kmer=6)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=rf"{keyword}='x' of BEND.*; write HyenaDNAEmbedder\('x'\)"):
        load_embedder("hyenadna-tiny-1k", **{keyword: "x"})  # type: ignore[arg-type]


def test_an_unknown_keyword_is_named_with_its_neighbors() -> None:
    with pytest.raises(TypeError, match="DNABertEmbedder got an unknown keyword k_mer=6; did you mean 'kmer'"):
        DNABertEmbedder("x", k_mer=6)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="HyenaDNAEmbedder got an unknown keyword kmer=6"):
        HyenaDNAEmbedder("x", kmer=6)  # type: ignore[call-arg]


def test_a_class_of_a_user_keeps_its_own_keywords() -> None:
    class Own(OneHotEmbedder):
        def __init__(self, **own: object) -> None:
            super().__init__()
            self.own = own

    assert Own(model_path="x").own == {"model_path": "x"}


def test_a_path_of_bend_is_downloaded_to_that_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str | None, Path | None]] = []
    made = make_tiny("hyenadna-tiny-1k", tmp_path / "made")

    def download(name: str, *, revision: str | None, local_dir: Path | None, **_: object) -> str:
        assert local_dir is not None
        asked.append((name, revision, local_dir))
        return str(shutil.copytree(made, local_dir, dirs_exist_ok=True))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    path = Path("pretrained_models/hyenadna/hyenadna-tiny-1k-seqlen")
    for _ in range(2):  # the second finds the folder
        embedder = HyenaDNAEmbedder(str(path), random_init=True, device="cpu")
        assert embedder.embed(["ACGT"])[0].shape == (4, 16)
    spec = MODELS.get("hyenadna-tiny-1k")
    assert asked == [(spec.checkpoint, spec.revision, path)]


def test_the_script_for_all_models_names_models_that_exist_and_commands_that_parse(tmp_path: Path) -> None:
    stub = tmp_path / "bend-hf"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$*" >> said.txt\n')
    stub.chmod(0o755)
    script = ROOT / "examples" / "run_variant_effects.sh"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for further in ({}, {"MODELS": "onehot", "OUT": "out"}):
        words = ["bash", str(script), "--data", "sample", "--limit", "4"]
        subprocess.run(words, env=environment | further, cwd=tmp_path, check=True, timeout=60)
    parse = command_parser().parse_args
    every, _, one, report = [parse(line.split()) for line in (tmp_path / "said.txt").read_text().splitlines()]
    assert set(every.model) <= set(MODELS.names())
    assert {"dnabert6", "nt_transformer_ms", "hyenadna-large-1m", "awdlstm", "resnetlm"} <= set(every.model)
    assert (one.command, one.model, one.limit, str(one.out)) == ("run", ["onehot"], 4, "out")
    assert one.task == ["variant_effects_expression", "variant_effects_disease"]
    assert report.command == "report"
