"""Dataset cards name the genome that was used and the sources that the data really have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bend_hf.publishing.dataset_card import write_dataset_card
from tests.golden import dataset_facts


def _card(folder: Path, features: tuple[str, ...] = (), **facts: Any) -> str:
    made = dataset_facts()
    made["facts"] |= facts
    made["features"] += [{"name": name, "dtype": "string"} for name in features]
    place = folder / "variant_effects" / "data" / "disease"
    place.mkdir(parents=True)
    (place / "bend_facts.json").write_text(json.dumps(made))
    return write_dataset_card(folder / "variant_effects").read_text()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"assembly": "GRCh38"}, "Genome: GRCh38, by the lengths of its contigs (sha256 `bbbbbbbb"),
        ({"assembly": "GRCh37"}, "bbbb`); BEND's own task is on GRCh38."),
        ({"assembly": "unknown"}, "Genome: a genome whose contigs have the lengths of no known human assembly (sha256"),
        ({"assembly": "GRCh37", "origin": "sample"}, "Genome: a part of GRCh37 (sha256 `bbbbbbbb"),
    ],
)
def test_the_genome_is_the_one_that_was_read(tmp_path: Path, facts: dict[str, str], said: str) -> None:
    assert said in _card(tmp_path, **facts)


def test_the_predictor_of_consequences_is_cited_if_they_are_in_the_data(tmp_path: Path) -> None:
    assert "McLaren" not in _card(tmp_path / "without")
    assert "@article{mclaren2016ensembl," in _card(tmp_path / "with", features=("full_label",))


@pytest.mark.parametrize(("origin", "license"), [("files", "the user's own data"), ("sample", "made by bend_hf")])
def test_labels_that_are_not_the_sources_own_are_not_given_their_license(
    tmp_path: Path, origin: str, license: str
) -> None:
    card = _card(tmp_path, origin=origin)
    assert license in card
    assert "ClinVar: public domain" not in card
    assert "landrum2020clinvar" not in card
    assert "marin2024bend" in card
