"""Numbers that are not finite stop the run, with the item's name; nothing plausible is made of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bend_hf import load_embedder, load_task, score_file
from bend_hf.config import RunConfig
from bend_hf.embedders import Embedder
from bend_hf.errors import BendError
from bend_hf.runs.run import run
from bend_hf.variants import VariantRun, allele_likelihoods
from tests.fake_checkpoints import make_tiny
from tests.tiny import write_bed, write_data, write_genome

MODEL = """
import numpy as np


def embed(sequences):
    rows = [np.array([[base == x for x in "ACGT"] for base in s], np.float32) for s in sequences]
    for row, s in zip(rows, sequences):
        if {condition}:
            row[:] = {value}
    return rows
"""


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    data = write_data(tmp_path / "data", ("cpg_methylation",), n=20)
    return RunConfig(
        task=("cpg_methylation",),
        data=str(data),
        model=str(tmp_path / "model.py"),
        epochs=1,
        no_cache=True,
        out=tmp_path / "out",
    )


@pytest.mark.parametrize("value", ["np.nan", "np.inf"])
def test_embeddings_that_are_not_finite_stop_training_in_the_first_step(config: RunConfig, value: str) -> None:
    Path(config.model).write_text(MODEL.format(condition="True", value=value))
    with pytest.raises(BendError, match=r"of item \d+ \(chr\w+:\d+-\d+\) are not finite: model gave nan"):
        run(config)
    assert not list(config.out.glob("*.json"))


def test_embeddings_that_are_not_finite_are_named_with_their_item(config: RunConfig, tmp_path: Path) -> None:
    first = load_task("cpg_methylation", data=str(tmp_path / "data")).splits(None)["test"][0]
    Path(config.model).write_text(
        MODEL.format(condition="s == TESTED", value="np.nan") + f"\n\nTESTED = {first['sequence']!r}\n"
    )
    with pytest.raises(
        BendError, match=rf"item {first['item']} .chr\w+:{first['start']}-{first['end']}. are not finite: model gave"
    ):
        run(config)
    assert not list(config.out.glob("*.json"))


def test_variants_whose_embeddings_are_not_finite_are_named(config: RunConfig, tmp_path: Path) -> None:
    genome = tmp_path / "data" / "genomes" / "genome.fa"
    bases = write_genome(genome)["chr1"]
    rows = [("chr1", at, at + 1, bases[at], "CAAA"["ACGT".index(bases[at])]) for at in (2000, 2001, 2002)]
    bed = write_bed(tmp_path / "variants.bed", ("chromosome", "start", "end", "ref", "alt"), rows)
    Path(config.model).write_text(MODEL.format(condition="True", value="np.nan"))
    with pytest.raises(BendError, match=rf"chr1:2001 {rows[0][3]}>{rows[0][4]}: model gave an embedding that"):
        score_file(bed, VariantRun(model=config.model, genome=genome, out=config.out, no_plot=True))


def test_cached_embeddings_that_are_not_finite_are_named(config: RunConfig, tmp_path: Path) -> None:
    first = load_task("cpg_methylation", data=str(tmp_path / "data")).splits(None)["train"][2]
    Path(config.model).write_text(
        MODEL.format(condition="s == BAD", value="np.nan") + f"\n\nBAD = {first['sequence']!r}\n"
    )
    with pytest.raises(BendError, match=rf"item {first['item']} .chr\w+:{first['start']}-{first['end']}.*not finite"):
        run(replace(config, no_cache=False, cache=tmp_path / "cache"))


def test_only_the_variant_with_nan_is_named(config: RunConfig, tmp_path: Path) -> None:
    genome = tmp_path / "data" / "genomes" / "genome.fa"
    bases = write_genome(genome)["chr1"]
    places = range(1000, 1040)
    rows = [("chr1", at, at + 1, bases[at], "CAAA"["ACGT".index(bases[at])]) for at in places]
    bed = write_bed(tmp_path / "variants.bed", ("chromosome", "start", "end", "ref", "alt"), rows)
    bad = bases[1017 - 256 : 1017] + rows[17][4] + bases[1018 : 1018 + 255]
    Path(config.model).write_text(MODEL.format(condition="BAD in s", value="np.inf") + f"\n\nBAD = {bad[200:300]!r}\n")
    with pytest.raises(BendError, match=rf"^chr1:1018 {rows[17][3]}>{rows[17][4]}: model gave an embedding"):
        score_file(bed, VariantRun(model=config.model, genome=genome, out=config.out, no_plot=True))


@pytest.mark.parametrize("model", ["caduceus-ph-1k", "hyenadna-tiny-1k"], ids=["masked", "causal"])
@pytest.mark.parametrize("kind", ["substitution", "insertion"])
def test_the_variant_whose_likelihood_is_nan_is_named(
    model: str, kind: str, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genome = tmp_path / "data" / "genomes" / "genome.fa"
    bases = write_genome(genome)["chr1"]
    rows = [("chr1", at, at + 1, bases[at], "CAAA"["ACGT".index(bases[at])]) for at in range(1000, 9000, 1000)]
    if kind == "insertion":
        rows = [(*row[:4], row[3] + 2 * row[4]) for row in rows]  # which cannot be written further to the left
    bed = write_bed(tmp_path / "variants.bed", ("chromosome", "start", "end", "ref", "alt"), rows)
    folder = make_tiny(model, tmp_path / "tiny")
    fields = json.loads((folder / "config.json").read_text())
    fields.get("layer", {})["l_max"] = 1026  # so that a window is one chunk
    (folder / "config.json").write_text(json.dumps(fields))
    embedder = load_embedder(model, checkpoint=folder, random_init=True, device="cpu")
    flank = embedder.tokenize([bases[4990:5000]])
    pattern = torch.from_numpy(flank.ids[~flank.special].astype(np.int64))
    logits = type(embedder)._logits

    def nan_next_to_the_fifth(self: Embedder, ids_BT: torch.Tensor, mask_BT: torch.Tensor | None) -> torch.Tensor:
        found_BTV = logits(self, ids_BT, mask_BT)
        holds_B = (ids_BT.unfold(1, len(pattern), 1) == pattern).all(-1).any(-1)
        return torch.where(holds_B[:, None, None], torch.nan, found_BTV)

    settings = VariantRun(model=model, genome=genome, out=config.out, no_plot=True, indels="likelihood")
    assert len(score_file(bed, settings, embedder=embedder).predictions.columns["log_likelihood_ratio"]) == len(rows)
    monkeypatch.setattr(type(embedder), "_logits", nan_next_to_the_fifth)
    # otherwise the logits of a causal model are read from the embeddings of the reference alleles
    monkeypatch.setattr(allele_likelihoods, "_head_of", lambda embedder: None)
    row = rows[4]
    with pytest.raises(
        BendError, match=rf"^chr1:{row[1] + 1} {row[3]}>{row[4]}: \w+.* gave a log-likelihood that is not"
    ):
        score_file(bed, replace(settings, out=tmp_path / "other"), embedder=embedder)
