"""A checkpoint that another one replaces under the same path: nothing of the first one is taken for the second."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from bend_hf.cli._main import main
from bend_hf.embedders import load_embedder
from bend_hf.training.head_trainer import HeadTrainer
from bend_hf.variants import score as scoring
from tests.fake_checkpoints import make_tiny
from tests.killing import before
from tests.tiny import write_bed, write_data

KEY = "dnabert3"
GENES = ("--task", "gene_finding", "--model", KEY)


def stop(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, variants, and two checkpoints of one shape with other weights."""
    folder = tmp_path_factory.mktemp("made")
    write_data(folder / "data", ["gene_finding"], n=12)
    letters = (folder / "data/genomes/genome.fa").read_text().split(">")[1].split("\n", 1)[1].replace("\n", "")
    places = [1000 + 700 * number for number in range(12)]
    alts = ["ACGT"[("ACGT".index(letters[at]) + 1) % 4] for at in places]
    rows = [("chr1", at, at + 1, letters[at], alt, at // 700 % 2) for at, alt in zip(places, alts, strict=True)]
    write_bed(folder / "mine.bed", ("chromosome", "start", "end", "ref", "alt", "label"), rows)
    drawn = load_embedder(KEY, checkpoint=make_tiny(KEY, folder / "first"), random_init=True).model
    assert drawn is not None
    save_file({name: value.clone() for name, value in drawn.state_dict().items()}, folder / "first/model.safetensors")
    shutil.copytree(folder / "first", folder / "second")
    state = load_file(folder / "first/model.safetensors")
    save_file({name: value * 1.5 for name, value in state.items()}, folder / "second/model.safetensors")
    return folder


def place(made: Path, name: str, model: Path) -> None:
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(made / name, model)


def trained(out: Path) -> dict[str, dict[str, object]]:
    """The records by the hash of the weights that they name."""
    records = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    return {record["model"]["weights_sha256"]: record for record in records}


def test_training_does_not_resume_with_other_weights_or_read_their_cache(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"

    def train(out: str) -> int:
        flags = ["--checkpoint", str(model), "--data", str(made / "data"), "--epochs", "2", "--batch-size", "4"]
        places = ["--out", str(tmp_path / out), "--cache", str(tmp_path / f"{out}-cache"), "--checkpoint-every", "1"]
        return main(["train", *GENES, *flags, *places])

    place(made, "second", model)
    assert train("clean") == 0
    place(made, "first", model)
    with monkeypatch.context() as patched:  # the cache is full and two steps are done
        patched.setattr(HeadTrainer, "_step", before(HeadTrainer._step, 3, stop))
        assert train("mixed") == 130
    place(made, "second", model)
    assert train("mixed") == 0
    ((weights, clean),) = trained(tmp_path / "clean").items()
    mixed = trained(tmp_path / "mixed")[weights]
    assert mixed["training"]["runs"][0]["resumed_at_step"] is None  # type: ignore[index]
    assert mixed["predictions"]["sha256"] == clean["predictions"]["sha256"]  # type: ignore[index]
    place(made, "first", model)
    assert train("mixed") == 0
    assert len(trained(tmp_path / "mixed")) == 2


def test_scored_variants_of_other_weights_are_not_taken(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_BATCH_VARIANTS", 4)
    model = tmp_path / "model"

    def score(out: str) -> int:
        flags = ["--genome", str(made / "data/genomes/genome.fa"), "--model", KEY, "--checkpoint", str(model)]
        return main(["variants", str(made / "mine.bed"), *flags, "--out", str(tmp_path / out), "--no-plot"])

    place(made, "second", model)
    assert score("clean") == 0
    place(made, "first", model)
    with monkeypatch.context() as patched:
        patched.setattr(scoring, "score_batch", before(scoring.score_batch, 3, stop))
        assert score("mixed") == 130
    assert list((tmp_path / "mixed").rglob("*.parquet"))
    place(made, "second", model)
    assert score("mixed") == 0

    def scores(out: str) -> list[pa.Table]:
        return [pq.read_table(path) for path in sorted((tmp_path / out).glob("*.parquet"))]

    assert scores("mixed") == scores("clean")
