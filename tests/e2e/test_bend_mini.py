"""bend-mini as it travels: what its record says, that it is so, and that its training gives the same losses again."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator

from bend_hf.config import DEFAULT_MODEL, DataConfig, kinds_of, read_toml
from bend_hf.data.dataset import open_task
from bend_hf.data.sources import sources_of
from bend_hf.embedders import MODELS, load_embedder
from bend_hf.files import asset_folder
from bend_hf.training.pretraining.config import PretrainConfig
from bend_hf.training.pretraining.data import Inputs, open_inputs
from bend_hf.training.pretraining.families import FAMILIES
from bend_hf.training.pretraining.objectives import LanguageModelObjective
from bend_hf.training.pretraining.run import run
from bend_hf.training.pretraining.validation import validate
from tests.shared_data import CHR20, needs_shared

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "examples" / "bend_mini"
FOLDER = asset_folder("pretrained") / "bend-mini"
FACTS = json.loads((FOLDER / "training.json").read_text(encoding="utf-8"))
RETRAINED_STEPS = 200
CONTEXT_BP = 256


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chromosome 20, unpacked."""
    path = tmp_path_factory.mktemp("chr20") / "GRCh37.fa"
    with gzip.open(CHR20 / "genome.fa.gz") as packed, path.open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    return path


def recipe(genome: Path, out: Path) -> PretrainConfig:
    """The configuration that bend-mini was trained by."""
    values = read_toml(RECIPE / "train.toml", kinds_of(PretrainConfig))
    return PretrainConfig(**{**values, "exclude": (str(RECIPE / "left_out.bed"),)}, genome=genome, out=out)


@pytest.fixture(scope="module")
def inputs(genome: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return open_inputs(recipe(genome, tmp_path_factory.mktemp("none")).resolved())


def test_it_is_what_a_command_takes_that_names_no_model() -> None:
    assert DEFAULT_MODEL == "bend-mini"
    assert MODELS.get(DEFAULT_MODEL).source == "package"


def test_it_loads_from_the_package_and_is_small() -> None:
    embedder = load_embedder("bend-mini", device="cpu")
    assert embedder("ACGTN" * 8).shape == (40, MODELS.get("bend-mini").width)
    assert embedder.n_parameters == MODELS.get("bend-mini").n_parameters == FACTS["model"]["n_parameters"]
    assert (FOLDER / "model.safetensors").stat().st_size <= 3_000_000


def test_its_record_says_how_it_was_made() -> None:
    assert FACTS["command"][:4] == ["python", "-m", "bend_hf.pretrain", "--model"]
    assert FACTS["config"]["exclude"] == ["examples/bend_mini/left_out.bed"]
    assert not [word for word in FACTS["command"] if word.startswith("/")]
    assert (
        FACTS["steps"]
        == FACTS["config"]["steps"]
        == read_toml(RECIPE / "train.toml", kinds_of(PretrainConfig))["steps"]
    )
    assert FACTS["curve"][-1]["perplexity"] == FACTS["perplexity"]
    assert FACTS["input_wait_share"] < 0.05
    assert {"cpu", "cores", "threads"} <= set(FACTS["machine"])


def test_it_guesses_letters_better_than_tables_of_its_context() -> None:
    tables = {row["order"]: row["perplexity"] for row in FACTS["tables"]}
    assert FACTS["perplexity"] < tables[5] < tables[3]


@needs_shared
def test_it_was_trained_on_nothing_that_is_scored(inputs: Inputs, genome: Path) -> None:
    assert FACTS["data"]["genome_sha256"] == inputs.identity["genome_sha256"]
    assert FACTS["data"]["train_sha256"] == inputs.identity["train_sha256"]
    train = inputs.split.train
    assert train.names == ("chr20",)
    data = DataConfig(
        task=("gene_finding", "chromatin_accessibility", "histone_modification", "variant_effects_disease"),
        data=str(CHR20),
        genome=genome,
    )
    for source, _ in sources_of(data):
        task = open_task(source, data)
        rows = task.splits(None)["test"]
        chromosome = np.asarray(rows["chromosome"])
        assert set(chromosome.tolist()) == {"chr20"}
        start, end = (np.asarray(rows[name], np.int64) for name in ("start", "end"))
        around = CONTEXT_BP if task.task.variant is not None else 0
        first, behind = np.maximum(start - around, 0), np.maximum(end, start + 1) + around
        assert not train.overlaps(np.zeros(len(start), np.int64), first, behind).any(), task.task.key
    with gzip.open(asset_folder("sample") / "genomes" / "sample.fa.gz", "rt") as fasta:
        sample = [line[1:].split()[0] for line in fasta if line.startswith(">")]
    for name in sample:
        start_bp, end_bp = map(int, name.split("_")[2:])
        span = [np.array([place]) for place in (0, start_bp, end_bp)]
        assert not train.overlaps(*span).any(), name


@needs_shared
def test_the_packed_weights_have_the_recorded_perplexity(inputs: Inputs, genome: Path, tmp_path: Path) -> None:
    embedder = load_embedder("bend-mini", device="cpu")
    config = recipe(genome, tmp_path).resolved()
    objective = LanguageModelObjective(FAMILIES.get("bend-mini"), embedder.model)  # type: ignore[arg-type]
    found = validate(objective, inputs.held_out_BL, config, Accelerator(cpu=True), step=0, seconds=0.0)
    assert found.perplexity == pytest.approx(FACTS["perplexity"], rel=1e-3)


@pytest.mark.long
@needs_shared
def test_retraining_gives_the_recorded_losses(genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with (FOLDER / "first_losses.csv").open(encoding="utf-8") as file:
        recorded = [float(row["loss"]) for row in csv.DictReader(file)][:RETRAINED_STEPS]
    values = read_toml(RECIPE / "train.toml", kinds_of(PretrainConfig))
    values = {**values, "no_tables": True, "stop_after": RETRAINED_STEPS}
    run(PretrainConfig(**values, genome=genome, out=tmp_path / "again"))
    with (tmp_path / "again" / "training" / "losses.csv").open(encoding="utf-8") as file:
        again = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(again) == len(recorded) == RETRAINED_STEPS
    # Another processor rounds otherwise, and rounding grows from step to step.
    np.testing.assert_allclose(again[:50], recorded[:50], rtol=1e-3)
    np.testing.assert_allclose(np.mean(again[-50:]), np.mean(recorded[-50:]), rtol=1e-2)
