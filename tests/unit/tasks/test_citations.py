"""BibTeX of BEND and of the sources of its tasks."""

from __future__ import annotations

import re

import pytest

from bend_hf.tasks import BEND, TASKS, Citation
from bend_hf.tasks._spec import VEP

ALL = sorted({c for task in TASKS for c in task.citations} | {VEP}, key=lambda c: c.key)


@pytest.mark.parametrize("citation", ALL, ids=lambda c: c.key)
def test_each_citation_has_the_fields_of_an_entry(citation: Citation) -> None:
    text = citation.bibtex()
    fields = dict(re.findall(r'^  (\w+) = "(.*)",?$', text, re.MULTILINE))
    assert {"author", "title", "year", "doi"} < set(fields)
    assert ("booktitle" in fields) == (citation == BEND)
    assert ("journal" in fields) == (citation != BEND)
    assert re.fullmatch(r"10\.\d{4,}/\S+", fields["doi"])
    assert text.count("{") == text.count("}")


def test_keys_are_distinct_and_every_source_is_there() -> None:
    keys = [citation.key for citation in ALL]
    assert len(set(keys)) == len(keys)
    for source in ("marin", "frankish2021gencode", "encode", "fulco", "gasperini", "avsec", "zhou", "leslie2014grasp"):
        assert any(key.startswith(source) for key in keys), source
    assert {"1000genomesprojectconsortium2015global", "landrum2020clinvar", "mclaren2016ensembl"} <= set(keys)


def test_signs_of_bibtex_in_a_users_citation_stay_text() -> None:
    made = Citation(authors='A "B" {C}', title="50 % of `x` & y_1}", venue="J", year=2020, doi='10.1/a"}b')
    assert made.bibtex().splitlines()[1:] == [
        '  author = "{A  B   C }",',
        r'  title = "{50 \% of  x  \& y\_1 }",',
        '  journal = "J",',
        '  year = "2020",',
        '  doi = "10.1/ab"',
        "}",
    ]
