"""Model cards: exact text, metadata that huggingface_hub reads, and no empty field."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from bend_hf.errors import RecordError
from bend_hf.evaluation.record import ResultRecord
from bend_hf.files import asset_folder
from bend_hf.publishing.card_folder import write_card
from bend_hf.publishing.card_text import BEGIN, END, split_card
from bend_hf.publishing.model_card import NOT_BEND_SCORES, model_card
from bend_hf.publishing.model_card_runs import command
from bend_hf.tables import escaped
from bend_hf.types import Json
from tests.golden import FOLDER, TEXTS
from tests.records import record, several

PLACEHOLDER = re.compile(r"\{\{|\}\}|\{%|\bTODO\b|\bFIXME\b|\bXXX\b|More Information Needed|\bNone\b|\bnan\b|Undefined")


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_the_golden_one(name: str) -> None:
    assert TEXTS[name]() == (FOLDER / name).read_text(encoding="utf-8"), "run python -m tests.golden and read the diff"


@pytest.mark.parametrize("name", [name for name in TEXTS if name.endswith(".md")])
def test_no_placeholder_survives(name: str) -> None:
    assert not PLACEHOLDER.findall(TEXTS[name]())


@pytest.mark.parametrize("card", sorted(asset_folder("metrics").glob("*/README.md")), ids=lambda path: path.parent.name)
def test_no_placeholder_is_in_a_metric_card(card: Path) -> None:
    assert not re.findall(r"\{\{ |\{%|\bTODO\b|More Information Needed", card.read_text(encoding="utf-8"))


def test_model_index_holds_every_published_score() -> None:
    results = ModelCard(TEXTS["model_card.md"]()).data.eval_results
    found = {(r.dataset_type, r.dataset_config, r.metric_name, r.metric_value) for r in results}
    assert found == {
        ("bend/chromatin_accessibility", None, "auroc, protocol bend-2024, cnn", 0.805),
        ("bend/chromatin_accessibility", None, "auroc, protocol bend-hf-1, cnn", 0.82),
        ("bend/gene_finding", None, "mcc, protocol bend-2024, cnn", 0.6),
        ("bend/variant_effects", "disease", "auroc, protocol bend-2024, zero_shot", 0.55),
    }
    assert {r.dataset_name for r in results} == {"BEND"}


def test_unpublishable_scores_are_marked_and_not_in_the_metadata() -> None:
    card = ModelCard(TEXTS["model_card_refused.md"]())
    assert card.data.eval_results is None
    assert card.data.datasets is None
    assert NOT_BEND_SCORES in card.text


def test_card_names_no_base_model() -> None:
    assert ModelCard(TEXTS["model_card.md"]()).data.base_model is None


def test_text_of_records_cannot_become_markup() -> None:
    text = ModelCard(TEXTS["model_card_refused.md"]()).text
    outside_of_code = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert "<script>" not in outside_of_code
    assert "a&#124;b&lt;script&gt;" in outside_of_code


def test_a_card_of_two_models_raises() -> None:
    with pytest.raises(RecordError, match=r"of 2 models \(dnabert2, onehot\); a card describes one"):
        model_card([record(), record(model="onehot")])


def test_written_folder_is_the_model_repository(tmp_path: Path) -> None:
    paths = write_card([record(), record("gene_finding")], tmp_path / "card")
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "card/README.md",
        "card/bend_records.json",
        "card/.eval_results/bend_chromatin_accessibility_cnn.yaml",
        "card/.eval_results/bend_gene_finding_cnn.yaml",
    ]


def test_unpublishable_scores_get_no_score_file(tmp_path: Path) -> None:
    assert [path.name for path in write_card([record(origin="sample")], tmp_path)] == [
        "README.md",
        "bend_records.json",
    ]


def test_each_protocol_has_its_own_table() -> None:
    mine = [made for made in several() if made.model["model"] == "dnabert2"]
    for section in re.split(r"### Protocol ", model_card(mine).split("## Controls")[0])[1:]:
        name, rows = section.split("\n", 1)
        scores = {made.value for made in mine if made.protocol == name.strip()}
        assert {float(score) for score in re.findall(r"\| (0\.\d{4}) \|", rows)} == {round(s or 0, 4) for s in scores}


def test_command_leaves_out_defaults_and_local_paths() -> None:
    config = {
        "task": ["gene_finding"],
        "data": "folder",
        "model": "onehot",
        "out": "/home/me/x",
        "epochs": 3,
        "fold": [1, 2],
    }
    assert command(config) == "bend-hf train --task gene_finding --data data --model onehot --epochs 3 --fold 1 2"


def test_command_quotes_what_a_shell_would_read() -> None:
    assert command({"task": ["gene_finding"], "model": "a; rm -rf /\nx"}).endswith("--model 'a; rm -rf / x'")


def test_records_of_controls_are_in_the_card_of_a_model() -> None:
    control = record(model="kmer", value=0.6789, family="control")
    elsewhere = record(model="gc", value=0.5123, family="control", protocol="bend-hf-1")
    text = model_card([record()], [control, elsewhere])
    assert "| kmer | auroc | 0.6789 | 0.8000 |" in text
    assert "0.5123" not in text
    assert "‡" not in text


def test_a_card_says_where_a_control_comes_from_and_that_a_model_is_below_it() -> None:
    control = record(model="augustus", value=0.9, family="control")
    stated = {"version": "3.5.0", "source": "https://example.org", "license": "Artistic-1.0", "trained_on": "genes"}
    text = model_card([record()], [replace(control, model={**control.model, "provenance": stated})])
    assert "| augustus | auroc | 0.9000 | 0.8000 ‡ |" in text
    assert "\n‡ below the control.\n" in text
    assert "\n- AUGUSTUS: version 3.5.0, license Artistic-1.0; trained on genes; https://example.org.\n" in text


HOSTILE = (
    "a\r```\r<script>",
    "x\u2028# y",
    "\x1b[31mred",
    "_name_ and __x__",
    "~~struck~~",
    "# heading",
    "- item",
    "<!-- bend_hf: end -->",
    "a | b",
    "\u202etxet",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_text_of_one_line(name: str) -> None:
    made = record("gene_finding", name, data={**record("gene_finding").data, "assembly": name})
    text = model_card([made], [record("gene_finding", name + "2", family="control")])
    section = split_card(text, "it").section
    assert section is not None
    assert section.startswith(BEGIN)
    assert section.endswith(END)
    assert section.count("\n```") == 4  # the command and the BibTeX, begin and end
    assert not re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", section)
    assert "<script>" not in section.replace(command_line(section), "")
    assert escaped(name) in section
    for markup in ("_name_", "__x__", "~~", "\n# heading", "\n- # ", "| a | b |"):
        assert markup not in section.replace(command_line(section), "")


def command_line(section: str) -> str:
    """The command between the fences; nothing in it is markup."""
    (found,) = re.findall(r"```bash\n(.*)\n```", section)
    return str(found)


def test_names_in_text_keep_their_underscores() -> None:
    assert escaped("gene_finding my_model_v1 -1 +0.5 #3") == "gene_finding my_model_v1 -1 +0.5 #3"


def _of(record_: ResultRecord, *, config: dict[str, Json] | None = None, **model: Json) -> ResultRecord:
    return replace(record_, model={**record_.model, **model}, config={**record_.config, **(config or {})})


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (_of(record(), checkpoint="/home/me/promoters", revision=None), "the user's own weights, promoters"),
        (_of(record(), checkpoint="weights.safetensors", revision=None), "the user's own weights, weights.safetensors"),
        (_of(record(), checkpoint="me/my-dnabert"), "the user's own weights, me/my-dnabert"),
        (_of(record(), random_init=True), "random weights"),
        (_of(record(), config={"tune": "lora"}), "LoRA made of dnabert2, zhihan1996/DNABERT-2-117M"),
        (_of(record(), config={"tune": "full"}), "full fine-tuning made of dnabert2, zhihan1996/DNABERT-2-117M"),
        (_of(record(), model="/home/me/my_model.py", checkpoint=""), "my_model.py, which bend_hf does not describe"),
    ],
)
def test_a_card_of_own_weights_claims_nothing_of_the_published_model(made: ResultRecord, said: str) -> None:
    text = model_card([made])
    assert said in text
    assert "/home/me/promoters" not in text
    assert ModelCard(text).data.license == "unknown"
    for claim in ("Apache-2.0", "apache-2.0", "135 genomes", "2306.15006", "32.5 billion"):
        assert claim not in text


def test_a_card_of_the_published_weights_states_license_paper_and_data() -> None:
    text = TEXTS["model_card.md"]()
    for claim in ("license of the model's weights is Apache-2.0", "| training data | 135 genomes |", "2306.15006"):
        assert claim in text


def test_a_card_with_scores_by_consequence_cites_their_predictor() -> None:
    made = record("variant_effects_disease")
    metric = {**made.metrics["auroc"], "detail": {"by_group": {"missense": {}}}}  # type: ignore[dict-item]
    assert "mclaren2016ensembl" in model_card([replace(made, metrics={**made.metrics, "auroc": metric})])
    assert "mclaren2016ensembl" not in model_card([made])


@pytest.mark.parametrize("origin", ["files", "sample"])
def test_labels_of_own_files_and_of_the_sample_have_no_license_of_a_source(origin: str) -> None:
    text = model_card([record(origin=origin)])
    assert "ENCODE" not in text
    assert "marin2024bend" in text


def test_a_genome_that_is_no_known_assembly_is_called_so() -> None:
    made = record()
    assert "3,000 train" in model_card([made])
    text = model_card([replace(made, data={**made.data, "assembly": "unknown"})])
    assert "at 0123456789abcdef0123456789abcdef01234567, a genome of no known assembly." in text
    assert "GRCh37" not in text


def test_the_card_shows_both_strands() -> None:
    scores: Json = {name: {"auroc": {"value": value}} for name, value in (("forward", 0.8), ("reverse", 0.7))}
    assert isinstance(scores, dict)
    strands: Json = {
        "windows": 1000,
        "correlation": 0.925,
        "flip_rate": 0.125,
        "flips_if": "the probability crosses 0.5",
        "exchanged_labels": ["CAGE+, CAGE-"],
        "scores": {**scores, "average": {"auroc": {"value": 0.83}}},
        "gain": {"difference": 0.03, "low": 0.01, "high": 0.05},
    }
    card = model_card([record(strands=strands), record(seed=1)])
    assert "| 0.9250 | 12.5 % | 0.8000 | 0.7000 | 0.8300 | 0.0300 (0.0100 to 0.0500) |" in card
    assert "a prediction flips if the probability crosses 0.5." in card
    assert "exchanged labels are CAGE+, CAGE-." in card
    assert "## Both strands" not in model_card([record()])
